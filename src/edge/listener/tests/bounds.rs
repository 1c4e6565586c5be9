//! How many, how long, how large: nobody takes the place of others.

use super::*;

#[tokio::test]
async fn an_unidentified_connection_is_short() {
    let config = Config {
        unidentified_life: Duration::from_millis(50),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(Vec::new(), config).await;
    let config = rustls_client(&tokyo, &Spec::new("stranger").self_signed());
    let mut tls = within(raw_tls(tokyo.address, config)).await.unwrap();
    let mut rest = Vec::new();
    // Never a byte of HTTP/2 is sent; it ends all the same.
    drop(within(tls.read_to_end(&mut rest)).await);
}

#[tokio::test]
async fn the_unidentified_do_not_crowd_out_peers() {
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        max_unidentified: 1,
        unidentified_life: Duration::from_secs(60),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let stranger = Spec::new("stranger").self_signed();
    let mut first = tokyo.client(&stranger);
    assert_eq!(
        hello(&mut first).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    let second = hello(&mut tokyo.client(&stranger)).await.unwrap_err();
    assert_eq!(
        rejection_from_status(&second),
        None,
        "the second is cut: {second:?}"
    );
    assert_eq!(hello(&mut tokyo.client(&berlin)).await.unwrap(), "berlin");
}

#[tokio::test]
async fn silent_connections_delay_nobody() {
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        handshake_timeout: Duration::from_secs(60),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let mut silent = Vec::new();
    // Some say nothing, some begin a handshake and stall. No small number of turns outlasts them.
    for _ in 0..150 {
        silent.push(TcpStream::connect(tokyo.address).await.unwrap());
        let mut stalled = TcpStream::connect(tokyo.address).await.unwrap();
        stalled.write_all(&[0x16]).await.unwrap();
        silent.push(stalled);
    }
    // Connections are accepted in turn: this one comes behind all of them.
    assert_eq!(hello(&mut tokyo.client(&berlin)).await.unwrap(), "berlin");
}

#[tokio::test]
async fn connections_that_are_not_past_their_handshake_are_bounded() {
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        max_pending: 2,
        handshake_timeout: Duration::from_secs(60),
        ..Config::default()
    };
    let turned = config.turned.clone();
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let silent = TcpStream::connect(tokyo.address).await.unwrap();
    let _other = TcpStream::connect(tokyo.address).await.unwrap();
    // The next is closed at once, not after the minute.
    let mut third = TcpStream::connect(tokyo.address).await.unwrap();
    assert_eq!(told(&mut third).await, "");
    assert_eq!(turned.count(Bound::Handshakes), 1);
    assert!(hello(&mut tokyo.client(&berlin)).await.is_err());
    drop(silent);
    let mut client = tokyo.client(&berlin);
    within(async { while hello(&mut client).await.is_err() {} }).await;
}

/// A connection from another address of this machine.
#[cfg(target_os = "linux")]
async fn connect_from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    socket.connect(to).await.unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_network_can_not_take_all_places_of_silence() {
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        max_pending: 4,
        max_pending_per_network: 2,
        handshake_timeout: Duration::from_secs(60),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let _silent = connect_from([127, 0, 0, 2], tokyo.address).await;
    let _other = connect_from([127, 0, 0, 2], tokyo.address).await;
    for _ in 0..10 {
        let mut more = connect_from([127, 0, 0, 2], tokyo.address).await;
        assert_eq!(told(&mut more).await, "");
    }
    assert_eq!(hello(&mut tokyo.client(&berlin)).await.unwrap(), "berlin");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_network_can_not_keep_the_reason_from_another_stranger() {
    let config = Config {
        max_unidentified: 3,
        max_unidentified_per_network: 2,
        unidentified_life: Duration::from_secs(60),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(Vec::new(), config).await;
    let config = rustls_client(&tokyo, &Spec::new("mallory").self_signed());
    let mut held = Vec::new();
    let mut cut = 0;
    for _ in 0..6 {
        let tcp = connect_from([127, 0, 0, 2], tokyo.address).await;
        let name = ServerName::DnsName(DnsName::try_from("tokyo").unwrap());
        let mut tls = TlsConnector::from(Arc::new(config.clone()))
            .connect(name, tcp)
            .await
            .unwrap();
        // Whoever has a place is greeted by HTTP/2, and whoever has none hears nothing.
        let mut first = [0; 1];
        match within(tls.read(&mut first)).await {
            Ok(1) => held.push(tls),
            _ => cut += 1,
        }
    }
    assert_eq!((held.len(), cut), (2, 4));
    let stranger = Spec::new("stranger").self_signed();
    let mut told = tokyo.client(&stranger);
    assert_eq!(rejected_hello(&mut told).await, Rejection::UnknownIssuer);
}

#[tokio::test]
async fn listeners_that_share_their_places_are_bounded_together() {
    let tasks = Tasks::default();
    let limits = Config {
        header_timeout: Duration::from_secs(60),
        ..Config::default()
    };
    let places = Places::for_phones(1, 1);
    let mut addresses = Vec::new();
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        let (router, places) = (axum::Router::new(), places.clone());
        let door = serve_http(
            listener,
            None,
            router,
            tasks.clone(),
            places,
            limits.clone(),
        );
        tasks.spawn("phones", door);
    }
    let get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut first = TcpStream::connect(addresses[0]).await.unwrap();
    first.write_all(get).await.unwrap();
    assert!(matches!(within(first.read(&mut [0; 64])).await, Ok(1..)));
    let mut second = TcpStream::connect(addresses[1]).await.unwrap();
    let _reset = second.write_all(get).await;
    assert_eq!(told(&mut second).await, "");
    assert_eq!(limits.turned.count(Bound::Connections), 1);
    drop(first);
    let served = async {
        loop {
            let mut next = TcpStream::connect(addresses[1]).await.unwrap();
            let _reset = next.write_all(get).await;
            if matches!(next.read(&mut [0; 64]).await, Ok(1..)) {
                break;
            }
        }
    };
    within(served).await;
    within(tasks.shut_down(Duration::from_secs(10))).await;
}

#[tokio::test]
async fn connections_are_bounded_in_all_and_per_peer() {
    let (berlin, paris) = (
        Spec::new("berlin").self_signed(),
        Spec::new("paris").self_signed(),
    );
    let bundles = vec![pinned("berlin", &berlin), pinned("paris", &paris)];
    let per_peer = Config {
        max_connections_per_peer: 2,
        ..Config::default()
    };
    let total = Config {
        max_connections: 2,
        ..Config::default()
    };
    for (config, others_are_served) in [(per_peer, true), (total, false)] {
        let turned = config.turned.clone();
        let tokyo = Tokyo::start_with(bundles.clone(), config).await;
        let (mut first, mut second) = (tokyo.client(&berlin), tokyo.client(&berlin));
        hello(&mut first).await.unwrap();
        hello(&mut second).await.unwrap();
        assert!(hello(&mut tokyo.client(&berlin)).await.is_err());
        let bound = if others_are_served {
            Bound::Peer
        } else {
            Bound::Connections
        };
        assert!(turned.count(bound) >= 1, "{turned:?}");
        let mut other = tokyo.client(&paris);
        assert_eq!(hello(&mut other).await.is_ok(), others_are_served);
        // Those that have their places keep them, and one that ends leaves its own.
        hello(&mut first).await.unwrap();
        drop(second);
        let mut next = tokyo.client(&berlin);
        within(async { while hello(&mut next).await.is_err() {} }).await;
        assert!(hello(&mut tokyo.client(&berlin)).await.is_err());
    }
}

#[tokio::test]
async fn strangers_without_a_place_leave_no_trace() {
    let config = Config {
        max_unidentified: 1,
        unidentified_life: Duration::from_secs(60),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(Vec::new(), config).await;
    let first = Spec::new("first").self_signed();
    let mut told = tokyo.client(&first);
    assert_eq!(rejected_hello(&mut told).await, Rejection::UnknownIssuer);
    for _ in 0..5 {
        let next = Spec::new("next").self_signed();
        assert!(hello(&mut tokyo.client(&next)).await.is_err());
    }
    let list = tokyo.trust.refusals().list();
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(
        list[0].fingerprint,
        Some(first.certificate().fingerprint_text())
    );
}

#[tokio::test]
async fn calls_of_one_connection_are_bounded() {
    use std::sync::atomic::Ordering;
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        max_streams: 2,
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let mut client = tokyo.client(&berlin);
    hello(&mut client).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let mut client = client.clone();
        calls.spawn(async move { client.find_user(pb::FindUserRequest::default()).await });
    }
    within(async {
        while tokyo.echo.finding.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // No third is begun, and neither is another call of this connection.
    let waited = Duration::from_millis(200);
    let beyond = client.hello(pb::HelloRequest::default());
    assert!(!matches!(
        tokio::time::timeout(waited, beyond).await,
        Ok(Ok(_))
    ));
    assert_eq!(tokyo.echo.finding.load(Ordering::SeqCst), 2);
    assert_eq!(hello(&mut tokyo.client(&berlin)).await.unwrap(), "berlin");
    // Calls that end make room.
    calls.shutdown().await;
    within(async { while hello(&mut client).await.is_err() {} }).await;
}

#[tokio::test]
async fn headers_are_bounded() {
    let berlin = Spec::new("berlin").self_signed();
    let tokyo = Tokyo::start(vec![pinned("berlin", &berlin)]).await;
    let mut sender = bare_client(&tokyo, &berlin).await;
    let request = |bytes: usize| {
        let method = "https://tokyo/emcc.federation.v1.FederationService/Hello";
        ::http::Request::post(method)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-padding", "x".repeat(bytes))
            .body(empty_message())
            .unwrap()
    };
    let refused = within(sender.send_request(request(20 * 1024))).await;
    let is_refused = refused.as_ref().map_or(true, |r| r.status() == 431);
    assert!(is_refused, "{refused:?}");
    assert!(tokyo.echo.seen.lock().unwrap().is_empty());
    // Well below the bound it is served.
    let mut sender = bare_client(&tokyo, &berlin).await;
    let served = within(sender.send_request(request(8 * 1024))).await;
    assert_eq!(served.unwrap().status(), 200);
    assert_eq!(tokyo.echo.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn silent_connections_are_let_go() {
    let config = Config {
        handshake_timeout: Duration::from_millis(50),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(Vec::new(), config).await;
    let mut silent = TcpStream::connect(tokyo.address).await.unwrap();
    // Half a handshake is no better than none.
    let mut stuck = TcpStream::connect(tokyo.address).await.unwrap();
    stuck.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    let mut rest = Vec::new();
    drop(within(silent.read_to_end(&mut rest)).await);
    drop(within(stuck.read_to_end(&mut rest)).await);
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_deadline_is_kept_and_named_and_streams_outlive_it() {
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        max_call: Duration::from_millis(100),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let mut client = tokyo.client(&berlin);
    // The longest time that we allow.
    let status = within(client.find_user(pb::FindUserRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let mut stream = watch(&mut client).await;
    assert!(
        tokio::time::timeout(Duration::from_millis(300), stream.message())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_peer_that_begins_calls_without_end_gets_no_further_ones_and_others_do() {
    let (berlin, paris) = (
        Spec::new("berlin").self_signed(),
        Spec::new("paris").self_signed(),
    );
    let config = Config {
        max_begun_per_peer: 1,
        ..Config::default()
    };
    let turned = config.turned.clone();
    let bundles = vec![pinned("berlin", &berlin), pinned("paris", &paris)];
    let tokyo = Tokyo::start_with(bundles, config).await;
    let (mut first, mut second) = (tokyo.client(&berlin), tokyo.client(&berlin));
    // It is never answered; the next one comes over another connection.
    let never = first.find_user(pb::FindUserRequest::default());
    let refused = async {
        loop {
            match hello(&mut second).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(refused) => return refused,
            }
        }
    };
    let refused = tokio::select! {
        biased;
        answer = never => panic!("{answer:?}"),
        refused = within(refused) => refused,
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert_eq!(turned.count(Bound::Begun), 1);
    assert_eq!(hello(&mut tokyo.client(&paris)).await.unwrap(), "paris");
}

#[tokio::test]
async fn the_deadline_in_the_header_is_kept() {
    let berlin = Spec::new("berlin").self_signed();
    let tokyo = Tokyo::start(vec![pinned("berlin", &berlin)]).await;
    // Not tonic's client, which would run its own timer on the header.
    let mut sender = bare_client(&tokyo, &berlin).await;
    let request =
        ::http::Request::post("https://tokyo/emcc.federation.v1.FederationService/FindUser")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "20m")
            .body(empty_message())
            .unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn shutdown_drains_and_leaves_no_task_behind() {
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        drain_grace: Duration::from_millis(100),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let mut client = tokyo.client(&berlin);
    let mut stream = watch(&mut client).await;
    within(tokyo.tasks.shut_down(Duration::from_secs(10))).await;
    assert!(within(stream.message()).await.is_err());
    assert!(TcpStream::connect(tokyo.address).await.is_err());
}

#[tokio::test]
async fn who_takes_calls_back_without_end_is_cut_and_has_to_wait_and_others_are_not_touched() {
    let (berlin, paris) = (
        Spec::new("berlin").self_signed(),
        Spec::new("paris").self_signed(),
    );
    let config = Config {
        max_wasted_per_peer: (4, 10),
        ..Config::default()
    };
    let bundles = vec![pinned("berlin", &berlin), pinned("paris", &paris)];
    let tokyo = Tokyo::start_with(bundles, config).await;
    let mut other = tokyo.client(&paris);
    let mut stream = watch(&mut other).await;
    let mut sender = bare_client(&tokyo, &berlin).await;
    let begun = || tokyo.echo.finding.load(std::sync::atomic::Ordering::SeqCst);
    let find = || {
        ::http::Request::post("https://tokyo/emcc.federation.v1.FederationService/FindUser")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(empty_message())
            .unwrap()
    };
    within(async {
        while sender.ready().await.is_ok() {
            let before = begun();
            let is_begun = async {
                while begun() == before {
                    tokio::task::yield_now().await;
                }
            };
            // It is taken back when it is under way, or the connection has ended.
            tokio::select! {
                biased;
                _ = sender.send_request(find()) => {}
                () = is_begun => {}
            }
        }
    })
    .await;
    assert!(begun() > 4, "{} are not too many", begun());
    // What it may waste has to come back before it is served again: four in 400 ms.
    let began = std::time::Instant::now();
    assert_eq!(hello(&mut tokyo.client(&berlin)).await.unwrap(), "berlin");
    let waited = began.elapsed();
    assert!(waited > Duration::from_millis(150), "only {waited:?}");
    // The connection of another peer is the same that it was.
    assert_eq!(hello(&mut other).await.unwrap(), "paris");
    assert!(stream.message().now_or_never().is_none());
}

#[tokio::test]
async fn an_answer_that_is_not_taken_ends_its_connection() {
    let berlin = Spec::new("berlin").self_signed();
    let config = Config {
        answer_timeout: Duration::from_millis(100),
        look_again: Duration::from_millis(20),
        ..Config::default()
    };
    let tokyo = Tokyo::start_with(vec![pinned("berlin", &berlin)], config).await;
    let tls = raw_tls(tokyo.address, rustls_client(&tokyo, &berlin));
    let tls = within(tls).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::Builder::new(executor)
        .initial_stream_window_size(0)
        .handshake::<_, Bytes>(TokioIo::new(tls));
    let (mut sender, connection) = within(handshake).await.unwrap();
    let connection = tokyo.tasks.spawn("client", connection);
    let hello_there =
        ::http::Request::post("https://tokyo/emcc.federation.v1.FederationService/Hello")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(empty_message())
            .unwrap();
    // The head comes, and nothing behind it.
    let response = within(sender.send_request(hello_there)).await.unwrap();
    assert_eq!(response.status(), 200);
    drop(within(connection).await);
    // Whoever takes its answers stays, however long.
    let mut client = tokyo.client(&berlin);
    let mut stream = watch(&mut client).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(stream.message().now_or_never().is_none(), "it still stands");
}
