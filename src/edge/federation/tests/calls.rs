//! Calls: who may make them, what they may say, and how long they may take.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::join_all};
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt;

use super::rig::{Node, PATIENCE, Shown, channel, context, find, linked, login, pair};
use crate::{
    domain::{
        em_code::EmCode,
        ids::{Ref, SessionId},
        login::{LoginAnswer, LoginType, LogoutRequest, Ownership},
        rejection::Rejection,
        session::{EndReason, Initiator},
        version::Version,
    },
    edge::{
        federation::{Federation, MAX_CALLS_PER_PEER, MAX_ENDS_PER_PEER},
        listener::{ConnIdentity, Introduced, Leaving},
    },
    trust::{fixtures::cluster, judge::Verdict},
    wire::{
        federation::encode_login,
        metadata,
        pb::{
            self, federation_service_client::FederationServiceClient,
            federation_service_server::FederationService,
        },
        status,
    },
};

type Client = FederationServiceClient<tonic::transport::Channel>;

async fn client(from: &Node, to: &Node) -> Client {
    Client::new(channel(from, to, Shown::Own).await)
}

fn find_request(
    caller: &str,
    version: &str,
    login_type: pb::LoginType,
) -> Request<pb::FindUserRequest> {
    let mut request = Request::new(pb::FindUserRequest {
        login_type: login_type.into(),
        name: "ada".to_owned(),
    });
    let map = request.metadata_mut();
    map.insert(metadata::CLUSTER_ID, caller.parse().unwrap());
    map.insert(metadata::VERSION, version.parse().unwrap());
    request
}

fn em_code(status: &tonic::Status) -> Option<String> {
    status
        .get_details_error_info()?
        .metadata
        .get("em_code")
        .cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_reaches_the_role_it_is_for() {
    let (tokyo, berlin) = pair().await;
    let (home, context) = (tokyo.home(&berlin), context(&tokyo, PATIENCE));
    let found = home.find_user(&context, &find(LoginType::Extension)).await;
    assert_eq!(found, Ok(Ownership::Mine));
    let services = home
        .login(&context, &login(LoginType::SelfService))
        .await
        .unwrap();
    let LoginAnswer::Opened(services) = services else {
        panic!("{services:?}")
    };
    assert_eq!(services.user_id.as_str(), "ada");
    let session_id = SessionId::from_uuid(uuid::Uuid::now_v7());
    for initiator in [Initiator::Visiting, Initiator::Home] {
        let logout = LogoutRequest {
            session_id,
            reason: EndReason::Operator,
            initiator,
        };
        assert_eq!(home.logout(&context, logout).await, Ok(EndReason::Operator));
    }
    let expected = ["find_user", "login", "end_from_visiting", "end_from_home"];
    assert_eq!(berlin.roles.seen(), expected);
    let seen = berlin.roles.last.lock().unwrap().clone().unwrap();
    assert_eq!(seen.caller, tokyo.id);
    let leaf = tokyo.leaf.identity().leaf().fingerprint();
    assert_eq!(seen.certificate, Some(leaf));
    assert_eq!(seen.reference, context.reference);
    assert!(seen.deadline <= context.deadline + Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn login_types_follow_the_versions_of_both_sides() {
    let (v10, v11) = (Version::V1_0, Version::V1_1);
    for (ours, theirs) in [(v10, v10), (v10, v11), (v11, v10), (v11, v11)] {
        let tokyo = Node::speaking("tokyo", v10, ours).await;
        let berlin = Node::speaking("berlin", v10, theirs).await;
        let (tokyo, berlin) = linked(tokyo, berlin).await;
        let (home, context) = (tokyo.home(&berlin), context(&tokyo, PATIENCE));
        for login_type in LoginType::ALL {
            let known = login_type == LoginType::Uid || (ours == v11 && theirs == v11);
            let before = berlin.roles.seen().len();
            let found = home.find_user(&context, &find(login_type)).await;
            let opened = home.login(&context, &login(login_type)).await;
            if known {
                assert_eq!(found, Ok(Ownership::Mine), "{ours} {theirs} {login_type}");
                assert!(opened.is_ok(), "{ours} {theirs} {login_type}: {opened:?}");
            } else {
                let upgrade = if ours == v10 {
                    "upgrade this cluster"
                } else {
                    "upgrade berlin"
                };
                for refusal in [found.unwrap_err(), opened.unwrap_err()] {
                    assert_eq!(refusal.code, EmCode::ErrorOnParsing);
                    assert!(refusal.cause.contains(upgrade), "{refusal}");
                }
                assert_eq!(
                    berlin.roles.seen().len(),
                    before,
                    "it was sent all the same"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_at_1_0_knows_no_other_login_type() {
    let (tokyo, berlin) = pair().await;
    let mut client = client(&tokyo, &berlin).await;
    let refused = client
        .find_user(find_request("tokyo", "1.0", pb::LoginType::Dn))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(em_code(&refused).as_deref(), Some("1"));
    let unnamed = find_request("tokyo", "1.0", pb::LoginType::Unspecified);
    client.find_user(unnamed).await.unwrap();
    assert_eq!(berlin.roles.seen(), ["find_user"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_we_do_not_speak_is_1_with_both_ranges() {
    let (tokyo, berlin) = pair().await;
    let mut client = client(&tokyo, &berlin).await;
    for version in ["2.0", "1.7", "one"] {
        let refused = client
            .find_user(find_request("tokyo", version, pb::LoginType::Uid))
            .await
            .unwrap_err();
        assert_eq!(
            em_code(&refused).as_deref(),
            Some("1"),
            "{version}: {refused:?}"
        );
    }
    assert!(berlin.roles.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_the_certificate_does_not_bear_out_is_42() {
    let (tokyo, berlin) = pair().await;
    let mut client = client(&tokyo, &berlin).await;
    for claimed in ["paris", "berlin", "not a cluster"] {
        let refused = client
            .find_user(find_request(claimed, "1.1", pb::LoginType::Uid))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{claimed}");
        assert_eq!(
            em_code(&refused).as_deref(),
            Some("42"),
            "{claimed}: {refused:?}"
        );
    }
    let hello = pb::HelloRequest {
        cluster_id: "paris".to_owned(),
        ..Default::default()
    };
    let refused = client.hello(hello).await.unwrap_err();
    assert_eq!(em_code(&refused).as_deref(), Some("42"), "{refused:?}");
    assert!(berlin.roles.seen().is_empty());
    // Without a claim the certificate alone identifies.
    let mut silent = find_request("tokyo", "1.1", pb::LoginType::Uid);
    silent.metadata_mut().remove(metadata::CLUSTER_ID);
    client.find_user(silent).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_certificate_is_told_so_and_reaches_no_role() {
    let (tokyo, berlin) = pair().await;
    let mut client = Client::new(channel(&tokyo, &berlin, Shown::Nothing).await);
    let refused = client
        .find_user(find_request("tokyo", "1.1", pb::LoginType::Uid))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(
        status::rejection_from_status(&refused),
        Some(Rejection::NoClientCertificate)
    );
    assert!(berlin.roles.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_and_oversize_messages_are_refused_and_the_rest_is_served() {
    let (tokyo, berlin) = pair().await;
    let mut client = client(&tokyo, &berlin).await;
    let long = |length: usize| {
        let mut request = find_request("tokyo", "1.1", pb::LoginType::Uid);
        request.get_mut().name = "a".repeat(length);
        request
    };
    let too_long = client.find_user(long(129)).await.unwrap_err();
    assert_eq!(em_code(&too_long).as_deref(), Some("1"), "{too_long:?}");
    let oversize = client
        .find_user(long(super::super::MAX_REQUEST_BYTES))
        .await
        .unwrap_err();
    assert_eq!(oversize.code(), Code::OutOfRange, "{oversize:?}");
    client.find_user(long(128)).await.unwrap();
    assert_eq!(berlin.roles.seen(), ["find_user"]);
}

/// `FindUserRequest` of a later version.
#[derive(Clone, PartialEq, prost::Message)]
struct LaterFindUser {
    #[prost(int32, tag = "1")]
    login_type: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "4711")]
    novelty: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_a_later_version_are_ignored() {
    let (tokyo, berlin) = pair().await;
    let mut grpc = tonic::client::Grpc::new(channel(&tokyo, &berlin, Shown::Own).await);
    grpc.ready().await.unwrap();
    let message = LaterFindUser {
        login_type: 1,
        name: "ada".to_owned(),
        novelty: "x".repeat(1_000),
    };
    let path =
        http::uri::PathAndQuery::from_static("/emcc.federation.v1.FederationService/FindUser");
    let codec = tonic_prost::ProstCodec::<LaterFindUser, pb::FindUserResponse>::default();
    let answer = grpc
        .unary(Request::new(message), path, codec)
        .await
        .unwrap();
    assert_eq!(answer.into_inner().ownership(), pb::Ownership::Mine);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_at_its_deadline_with_40_and_the_login_goes_on() {
    let (tokyo, berlin) = pair().await;
    tokyo.until_up().await;
    berlin.roles.hangs.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let context = context(&tokyo, Duration::from_millis(300));
    let home = tokyo.home(&berlin);
    let request = login(LoginType::Uid);
    let query = find(LoginType::Uid);
    let (found, opened) = tokio::join!(
        home.find_user(&context, &query),
        home.login(&context, &request)
    );
    for refusal in [found.unwrap_err(), opened.unwrap_err()] {
        assert_eq!(refusal.code, EmCode::NoResponseFromRemoteHost, "{refusal}");
    }
    assert!(begun.elapsed() >= Duration::from_millis(250));
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    // What changes state is not broken off with its caller.
    berlin.roles.hangs.store(false, Ordering::SeqCst);
    let deadline = Instant::now() + PATIENCE;
    while berlin.roles.finished.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline, "the login was broken off");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_the_bound_are_26() {
    let (tokyo, berlin) = pair().await;
    tokyo.until_up().await;
    berlin.roles.hangs.store(true, Ordering::SeqCst);
    let home = tokyo.home(&berlin);
    let context = Arc::new(context(&tokyo, Duration::from_secs(2)));
    let query = find(LoginType::Uid);
    berlin.roles.ends.store(true, Ordering::SeqCst);
    let asking = join_all((0..300).map(|_| home.find_user(&context, &query)));
    // However many are stuck, what frees a session gets through at once.
    let ending = async {
        until("as many as may be", || {
            berlin.roles.begun.load(Ordering::SeqCst) >= 192
        })
        .await;
        let began = Instant::now();
        let end = logout_request(Initiator::Visiting);
        let ended = home.logout(&context, end).await;
        (ended, began.elapsed())
    };
    let (answers, (ended, took)) = tokio::join!(asking, ending);
    assert_eq!(ended, Ok(EndReason::Operator));
    assert!(took < Duration::from_secs(1), "{took:?}");
    let count = |code: EmCode| {
        answers
            .iter()
            .filter(|a| a.as_ref().is_err_and(|r| r.code == code))
            .count()
    };
    assert_eq!(count(EmCode::Busy), 300 - 192);
    assert_eq!(count(EmCode::NoResponseFromRemoteHost), 192);
}

fn logout_request(initiator: Initiator) -> LogoutRequest {
    LogoutRequest {
        session_id: SessionId::from_uuid(uuid::Uuid::now_v7()),
        reason: EndReason::Operator,
        initiator,
    }
}

/// A login as the listener hands it over, from a connection of `peer`.
fn login_request(peer: &str) -> Request<pb::LoginRequest> {
    let mut request = Request::new(encode_login(&login(LoginType::Uid), Version::V1_1));
    let map = request.metadata_mut();
    map.insert(metadata::CLUSTER_ID, peer.parse().unwrap());
    map.insert(metadata::VERSION, "1.1".parse().unwrap());
    request.extensions_mut().insert(identity(peer));
    request
}

fn identity(peer: &str) -> ConnIdentity {
    ConnIdentity {
        remote: ([192, 0, 2, 1], 40_000).into(),
        verdict: Verdict::Peer(cluster(peer)),
        fingerprint: None,
        chain: Arc::new([]),
        leaf_not_after: None,
        introduced: Introduced::default(),
        leaving: Leaving::default(),
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_opens_and_hangs_up_leaves_bounded_work_and_the_others_are_served() {
    let berlin = Node::new("berlin").await;
    let federation = Federation::new(berlin.parts());
    berlin.roles.hangs.store(true, Ordering::SeqCst);
    // Each is broken off as soon as its work has begun, as a reset does.
    for _ in 0..MAX_CALLS_PER_PEER {
        let opened = federation.login(login_request("tokyo"));
        assert!(opened.now_or_never().is_none());
    }
    until("begun", || {
        berlin.roles.begun.load(Ordering::SeqCst) == MAX_CALLS_PER_PEER
    })
    .await;
    let logout = || {
        let mut logout = Request::new(pb::LogoutRequest::from(&logout_request(
            Initiator::Visiting,
        )));
        *logout.metadata_mut() = login_request("tokyo").metadata().clone();
        logout.extensions_mut().insert(identity("tokyo"));
        logout
    };
    // What frees a session has places that no login takes, and not without end.
    for _ in 0..MAX_ENDS_PER_PEER {
        assert!(federation.logout(logout()).now_or_never().is_none());
    }
    const BEGUN: usize = MAX_CALLS_PER_PEER + MAX_ENDS_PER_PEER;
    until("begun", || {
        berlin.roles.begun.load(Ordering::SeqCst) == BEGUN
    })
    .await;
    let mut find = find_request("tokyo", "1.1", pb::LoginType::Uid);
    find.extensions_mut().insert(identity("tokyo"));
    for refused in [
        federation.login(login_request("tokyo")).await.err(),
        federation.logout(logout()).await.err(),
        federation.find_user(find).await.err(),
    ] {
        let refused = refused.unwrap();
        assert_eq!(em_code(&refused).as_deref(), Some("26"), "{refused:?}");
        let retry = refused.get_details_retry_info().unwrap();
        assert_eq!(retry.retry_delay, Some(Duration::from_secs(1)));
    }
    // What another peer asks for is begun.
    let others = federation.login(login_request("paris"));
    assert!(others.now_or_never().is_none());
    until("begun for paris", || {
        berlin.roles.begun.load(Ordering::SeqCst) == BEGUN + 1
    })
    .await;
    // And the work that is done makes room.
    berlin.roles.hangs.store(false, Ordering::SeqCst);
    until("finished", || {
        berlin.roles.finished.load(Ordering::SeqCst) == BEGUN + 1
    })
    .await;
    let deadline = Instant::now() + PATIENCE;
    while let Err(busy) = federation.login(login_request("tokyo")).await {
        assert_eq!(em_code(&busy).as_deref(), Some("26"), "{busy:?}");
        assert!(Instant::now() < deadline, "no place was given back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_cluster_is_no_peer_whatever_is_trusted_for_it() {
    let (berlin, impostor) = (Node::new("berlin").await, Node::new("berlin").await);
    berlin.trusts(&[&impostor]);
    impostor.trusts(&[&berlin]);
    berlin.serve().await;
    let mut client = client(&impostor, &berlin).await;
    let refused = client
        .find_user(find_request("berlin", "1.1", pb::LoginType::Uid))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    assert_eq!(em_code(&refused).as_deref(), Some("42"));
    let mut logins = login_request("berlin");
    logins.extensions_mut().clear();
    for refused in [
        client.hello(pb::HelloRequest::default()).await.err(),
        client.login(logins).await.err(),
        client.logout(pb::LogoutRequest::default()).await.err(),
        client.watch(pb::WatchRequest::default()).await.err(),
    ] {
        let refused = refused.unwrap();
        assert_eq!(em_code(&refused).as_deref(), Some("42"), "{refused:?}");
    }
    assert!(berlin.roles.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_bounded_per_peer_and_heartbeats_are_kept_to_the_wish() {
    let (tokyo, berlin) = pair().await;
    tokyo.until_up().await;
    let mut client = client(&tokyo, &berlin).await;
    let wish = || {
        let heartbeat = Some(prost_types::Duration {
            seconds: 0,
            nanos: 1,
        });
        let mut request = Request::new(pb::WatchRequest {
            heartbeat,
            node: String::new(),
        });
        let any = Ref::from_bits(1);
        metadata::write(request.metadata_mut(), &tokyo.id, Version::V1_1, any);
        request
    };
    let (begun, mut streams) = (Instant::now(), Vec::new());
    let refused = loop {
        match client.watch(wish()).await {
            Ok(stream) => streams.push(stream.into_inner()),
            Err(refused) => break refused,
        }
        assert!(streams.len() <= 64);
    };
    assert!(
        streams.len() > 32,
        "two nodes with many addresses each have room"
    );
    assert_eq!(em_code(&refused).as_deref(), Some("26"), "{refused:?}");
    // One nanosecond is brought up to 100 ms.
    for expected in 1..=4 {
        let beat = streams[0].message().await.unwrap().unwrap();
        assert_eq!(beat.sequence, expected);
    }
    assert!(
        begun.elapsed() >= Duration::from_millis(250),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_node_says_so() {
    let (tokyo, berlin) = pair().await;
    let channel = channel(&tokyo, &berlin, Shown::Own).await;
    let mut health = HealthClient::new(channel.clone());
    let service = "emcc.federation.v1.FederationService";
    let ask = || HealthCheckRequest {
        service: service.to_owned(),
    };
    assert_eq!(health.check(ask()).await.unwrap().into_inner().status, 1);
    let mut beats = Client::new(channel)
        .watch(pb::WatchRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(!beats.message().await.unwrap().unwrap().draining);
    berlin.drain.cancel();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let told = tokio::time::timeout_at(deadline, async {
        while !beats.message().await.unwrap().unwrap().draining {}
        while health.check(ask()).await.unwrap().into_inner().status != 2 {}
    });
    assert!(told.await.is_ok(), "nobody was told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_lists_federation_and_health_and_nothing_else() {
    let (tokyo, berlin) = pair().await;
    let mut reflection = ServerReflectionClient::new(channel(&tokyo, &berlin, Shown::Own).await);
    let ask = |message| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message),
    };
    let asked = futures_util::stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(
            "emcc.federation.v1.HelloRequest".to_owned(),
        )),
    ]);
    let mut answers = reflection
        .server_reflection_info(asked)
        .await
        .unwrap()
        .into_inner();
    let first = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = first else {
        panic!("{first:?}");
    };
    let mut names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "emcc.federation.v1.FederationService",
            "grpc.health.v1.Health"
        ]
    );
    let second = answers.message().await.unwrap().unwrap().message_response;
    assert!(
        matches!(second, Some(MessageResponse::FileDescriptorResponse(_))),
        "{second:?}"
    );
}
