//! Peers that die and come back, with the values that are shipped: seen dead within 10 s, usable again within 2 s, and in
//! between a login ends by its deadline, with its true code, and delays nobody else.

use std::time::{Duration, Instant};

use emccd::{
    lab::{Cluster, Hosting, Lab, Spec, member::Versions},
    wire::admin as pb,
};

use crate::support::{binary, log_in_at, log_out, nobody_panicked};

/// Their phones are at the first cluster, their users at the two others.
const HERE: usize = 0;
const MORTAL: usize = 1;
const OTHER: usize = 2;

const SEEN_DEAD: Duration = Duration::from_secs(10);
const USABLE: Duration = Duration::from_secs(2);
/// The shipped deadline of a login.
const DEADLINE: Duration = Duration::from_secs(5);
/// What a debug build beside other tests on a busy machine may take longer.
const SLACK: Duration = Duration::from_secs(2);

async fn seen(lab: &Lab, state: &str) -> Duration {
    let began = Instant::now();
    let is_so = |peer: &pb::PeerStatus| {
        let out = peer.outbound.clone().unwrap_or_default();
        out.state == state && (state == "up" || out.reason.is_some())
    };
    let there = &lab.clusters[MORTAL].id;
    lab.clusters[HERE]
        .wait_status(there, state, is_so)
        .await
        .unwrap();
    began.elapsed()
}

/// One user on a phone here and off again; the code, and how long the login took.
async fn visit(home: &Cluster, here: &Cluster, phone: usize) -> (Option<u16>, Duration) {
    let began = Instant::now();
    let shown = log_in_at(home, 0, here, phone).await;
    let took = began.elapsed();
    if shown.em_code.is_none() {
        assert_eq!(log_out(here, phone).await.em_code, None);
    }
    (shown.em_code, took)
}

/// A login towards the dead one and logins towards the living one, at the same time.
async fn dead_for_one_only(lab: &Lab, code: u16) {
    let here = &lab.clusters[HERE];
    let others = async {
        for _ in 0..5 {
            let (told, took) = visit(&lab.clusters[OTHER], here, 1).await;
            assert_eq!(told, None);
            assert!(took < USABLE + SLACK, "another one's login took {took:?}");
        }
    };
    let (dead, ()) = tokio::join!(visit(&lab.clusters[MORTAL], here, 0), others);
    assert_eq!(dead.0, Some(code));
    assert!(dead.1 <= DEADLINE + SLACK, "{:?}", dead.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_peer_is_seen_in_ten_seconds_and_a_healed_one_is_usable_in_two() {
    let shipped = [
        ("federation", "heartbeat = \"5s\""),
        ("federation", "dead-after = \"8s\""),
    ];
    let mut lab = Lab::start(&Spec {
        clusters: 3,
        hosting: Hosting::Processes { binary: binary() },
        settings: shipped
            .map(|(at, line)| (at.to_owned(), line.to_owned()))
            .into(),
        ..Spec::default()
    })
    .await
    .unwrap();
    // Whose name it is, is known without asking everybody: else all must answer before a PIN is handed out.
    for home in [MORTAL, OTHER] {
        let id = lab.clusters[home].id.to_string();
        let request = pb::SetClusterRequest {
            user_patterns: Some(pb::TextList {
                values: vec![format!("*.{id}")],
            }),
            cluster_id: id,
            ..pb::SetClusterRequest::default()
        };
        let mut admin = lab.clusters[HERE].admin().await.unwrap();
        admin.set_cluster(request).await.unwrap();
    }

    // It stands still: its sockets stay open, and nobody answers.
    lab.clusters[MORTAL].member().unwrap().pause().unwrap();
    let dead_after = seen(&lab, "down").await;
    assert!(dead_after <= SEEN_DEAD + SLACK, "{dead_after:?}");
    dead_for_one_only(&lab, 40).await;
    lab.clusters[MORTAL].member().unwrap().resume().unwrap();
    // What was known a moment ago is out of date: the very next login proves it.
    let (told, took) = visit(&lab.clusters[MORTAL], &lab.clusters[HERE], 0).await;
    assert_eq!(told, None, "after {took:?}");
    assert!(took <= USABLE + SLACK, "{took:?}");

    // It is killed: somebody says no.
    lab.clusters[MORTAL]
        .member_mut()
        .unwrap()
        .kill()
        .await
        .unwrap();
    let dead_after = seen(&lab, "down").await;
    assert!(dead_after <= SEEN_DEAD + SLACK, "{dead_after:?}");
    dead_for_one_only(&lab, 208).await;
    // It is back, and calls: that is proof enough, without a login.
    let member = lab.clusters[MORTAL].member_mut().unwrap();
    member.start(&Versions::default()).await.unwrap();
    let up_after = seen(&lab, "up").await;
    assert!(up_after <= USABLE + SLACK, "{up_after:?}");
    let (told, took) = visit(&lab.clusters[MORTAL], &lab.clusters[HERE], 0).await;
    assert_eq!(told, None);
    assert!(took <= USABLE + SLACK, "{took:?}");
    nobody_panicked(&lab);
    lab.shut_down().await;
}
