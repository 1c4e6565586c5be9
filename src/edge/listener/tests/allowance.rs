//! What a peer may waste: who means well keeps its connections, and hears when it has to wait.

use std::sync::atomic::Ordering;

use http_body_util::StreamBody;
use tonic::body::Body;
use tonic_types::StatusExt as _;

use super::*;

type Sender = hyper::client::conn::http2::SendRequest<Body>;

/// One connection without anything of gRPC, so that its end is seen.
async fn connect(tokyo: &Tokyo, own: &Leaf) -> Sender {
    let tls = raw_tls(tokyo.address, rustls_client(tokyo, own));
    let tls = within(tls).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, TokioIo::new(tls));
    let (sender, connection) = within(handshake).await.unwrap();
    tokyo.tasks.spawn("client", connection);
    sender
}

fn call(method: &str, limit: Option<&str>, body: Body) -> ::http::Request<Body> {
    let uri = format!("https://tokyo/emcc.federation.v1.FederationService/{method}");
    let mut request = ::http::Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(limit) = limit {
        request = request.header("grpc-timeout", limit);
    }
    request.body(body).unwrap()
}

fn whole() -> Body {
    Body::new(empty_message())
}

/// It is begun, and never finished.
fn endless() -> Body {
    let nothing =
        futures_util::stream::pending::<Result<hyper::body::Frame<bytes::Bytes>, Status>>();
    Body::new(StreamBody::new(nothing))
}

/// What is in the head of an answer.
async fn code(sender: &mut Sender, request: ::http::Request<Body>) -> Option<Code> {
    sender.ready().await.ok()?;
    let answer = sender.send_request(request).await.ok()?;
    Status::from_header_map(answer.headers()).map(|status| status.code())
}

/// Begins calls and finishes none, until its connection is ended.
async fn waste_all(tokyo: &Tokyo, own: &Leaf) {
    let mut sender = connect(tokyo, own).await;
    within(async {
        while code(&mut sender, call("FindUser", Some("5m"), endless()))
            .await
            .is_some()
        {}
    })
    .await;
}

/// Two calls that stay begun for as long as the connection is there.
async fn fill(tokyo: &Tokyo, own: &Leaf, body: fn() -> Body) -> Sender {
    let sender = connect(tokyo, own).await;
    for _ in 0..2 {
        let mut sender = sender.clone();
        tokyo.tasks.spawn("never answered", async move {
            drop(sender.send_request(call("FindUser", None, body())).await);
        });
    }
    sender
}

#[tokio::test]
async fn a_role_that_stalls_costs_the_peer_nothing_and_calls_without_end_cost_it_the_connection() {
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        max_wasted_per_peer: (8, 1),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let sender = connect(&tokyo, &berlin).await;
    let each = |body: fn() -> Body| {
        let calls = (0..64).map(|_| {
            let mut sender = sender.clone();
            async move { code(&mut sender, call("FindUser", Some("50m"), body())).await }
        });
        within(futures_util::future::join_all(calls))
    };
    let codes = each(whole).await;
    assert_eq!(codes, vec![Some(Code::DeadlineExceeded); 64]);
    // Taken back by the peer's own clock, which is as good as ours.
    let finding = || tokyo.echo.finding.load(Ordering::SeqCst);
    let begun = finding();
    let mut given_up = tokyo.client(&berlin);
    hello(&mut given_up).await.unwrap();
    let calls = (0..16).map(|_| {
        let mut client = given_up.clone();
        async move {
            let mut find = Request::new(pb::FindUserRequest::default());
            find.set_timeout(Duration::from_secs(2));
            client.find_user(find).await.unwrap_err()
        }
    });
    within(futures_util::future::join_all(calls)).await;
    assert_eq!(finding(), begun + 16, "a role has had each of them");
    hello(&mut given_up).await.unwrap();
    let answer = within(sender.clone().send_request(call("Hello", None, whole())));
    assert_eq!(answer.await.unwrap().status(), 200, "the same connection");
    // The same with requests that are never finished.
    each(endless).await;
    within(async {
        while !sender.is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn calls_that_are_too_many_since_we_do_not_answer_cost_the_peer_nothing() {
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        max_begun_per_peer: 2,
        max_wasted_per_peer: (8, 1),
        ..Config::default()
    };
    let turned = config.turned.clone();
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let mut second = connect(&tokyo, &berlin).await;
    let filled = fill(&tokyo, &berlin, whole).await;
    within(async {
        while tokyo.echo.finding.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for number in 0..32 {
        let refused = within(code(&mut second, call("Hello", None, whole()))).await;
        assert_eq!(refused, Some(Code::ResourceExhausted), "{number}");
    }
    assert_eq!(turned.count(Bound::Begun), 32);
    drop(filled);
    tokyo.tasks.shut_down(Duration::from_secs(1)).await;

    // The peer itself fills them with what it never finishes.
    let config = Config {
        max_begun_per_peer: 2,
        max_wasted_per_peer: (8, 1),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let mut second = connect(&tokyo, &berlin).await;
    let _filled = fill(&tokyo, &berlin, endless).await;
    within(async {
        // Until they are there, it is answered.
        while !second.is_closed() {
            code(&mut second, call("Hello", None, whole())).await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_has_to_wait_for_long_is_told_for_how_long() {
    let (berlin, paris) = (
        Spec::new("berlin").self_signed(),
        Spec::new("paris").self_signed(),
    );
    let config = Config {
        max_wasted_per_peer: (30, 1),
        turn_timeout: Duration::from_millis(500),
        ..Config::default()
    };
    let bundles = vec![pinned("berlin", &berlin), pinned("paris", &paris)];
    let tokyo = Tokyo::start_with(bundles, config).await;
    waste_all(&tokyo, &berlin).await;
    let refused = hello(&mut tokyo.client(&berlin)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let retry = refused.get_details_retry_info().unwrap().retry_delay;
    let retry = retry.unwrap();
    assert!(
        (Duration::from_secs(10)..=Duration::from_secs(30)).contains(&retry),
        "{retry:?}"
    );
    // That connection is over, and its caller was nobody else.
    let mut sender = connect(&tokyo, &berlin).await;
    within(async {
        while code(&mut sender, call("Hello", None, whole()))
            .await
            .is_some()
        {}
    })
    .await;
    assert_eq!(hello(&mut tokyo.client(&paris)).await.unwrap(), "paris");
}

#[tokio::test]
async fn who_goes_while_it_waits_leaves_its_place_to_the_next() {
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        max_wasted_per_peer: (30, 1),
        max_connections_per_peer: 1,
        turn_timeout: Duration::from_secs(300),
        ..Config::default()
    };
    let turned = config.turned.clone();
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    waste_all(&tokyo, &berlin).await;
    // Whoever has no place is closed at once, whoever waits is not.
    let waits = async || {
        let mut tls = raw_tls(tokyo.address, rustls_client(&tokyo, &berlin))
            .await
            .unwrap();
        // As a peer that says Hello and gives up.
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .ok();
        let mut byte = [0];
        let is_waiting = tokio::time::timeout(Duration::from_secs(2), tls.read(&mut byte));
        is_waiting.await.is_err().then_some(tls)
    };
    let place = async || {
        loop {
            if let Some(tls) = waits().await {
                return tls;
            }
        }
    };
    let first = within(place()).await;
    let before = turned.count(Bound::Peer);
    let tls = raw_tls(tokyo.address, rustls_client(&tokyo, &berlin));
    let mut other = within(tls).await.unwrap();
    // There is one place.
    drop(within(other.read_to_end(&mut Vec::new())).await);
    assert_eq!(turned.count(Bound::Peer), before + 1);
    drop(first);
    within(place()).await;
}
