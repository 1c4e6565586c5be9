//! A peer that falls silent, with the shipped values: it is known for dead in time, holds up nobody, and is of use again
//! as soon as it can be.

use std::time::{Duration, Instant};

use emccd::{
    config::keys::{KEYS, Preset},
    lab::{
        Cluster, Lab, Spec,
        between::{Between, Way},
        proxy::Flow,
    },
    wire::admin as pb,
};

use crate::support::{log_in_at, log_out};

const SILENT: usize = 0;
const VISITING: usize = 1;
const OTHER: usize = 2;

/// By the design.
const DEAD_WITHIN: Duration = Duration::from_secs(10);
const USABLE_WITHIN: Duration = Duration::from_secs(2);
/// What a debug build on a busy machine may add.
const SLACK: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(5);

/// As shipped; the lab's own are quicker.
fn shipped() -> Vec<(String, String)> {
    let names = [
        "federation.heartbeat",
        "federation.dead-after",
        "login.deadline",
    ];
    let line = |name: &str| {
        let key = KEYS.iter().find(|key| key.name == name).unwrap();
        let Preset::Is(value) = key.preset else {
            panic!("{name} has no value of its own: {key:?}");
        };
        let (section, name) = name.split_once('.').unwrap();
        (section.to_owned(), format!("{name} = {value}"))
    };
    names.map(line).into()
}

fn is_up(peer: &pb::PeerStatus) -> bool {
    peer.outbound.as_ref().is_some_and(|o| o.state == "up")
}

async fn works(home: &Cluster, visiting: &Cluster, phone: usize) -> Duration {
    let began = Instant::now();
    let shown = log_in_at(home, phone, visiting, phone).await;
    assert_eq!(shown.em_code, None, "{}", shown.text);
    let took = began.elapsed();
    let shown = log_out(visiting, phone).await;
    assert_eq!(shown.em_code, None, "{}", shown.text);
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_is_dead_in_time_holds_up_nobody_and_is_of_use_at_once() {
    let lab = Lab::start(&Spec {
        clusters: 3,
        paired: false,
        settings: shipped(),
        ..Spec::default()
    })
    .await
    .unwrap();
    let [silent, visiting, other] = [SILENT, VISITING, OTHER].map(|n| &lab.clusters[n]);
    let between = Between::pair(silent, visiting).await.unwrap();
    for (us, them) in [(visiting, other), (other, visiting)] {
        us.trust(them).await.unwrap();
    }
    for (us, them) in [(visiting, other), (other, visiting)] {
        us.wait_linked(&them.id).await.unwrap();
    }
    for (phone, home) in [silent, other].into_iter().enumerate() {
        works(home, visiting, phone).await;
    }

    let cut = Instant::now();
    between.cut(Way::Both, Flow::Lost);
    let down = visiting.wait_status(&silent.id, "down", |peer| !is_up(peer));
    down.await.unwrap();
    let known = cut.elapsed();

    // Nobody waits longer for it than for any other, and others don't wait at all.
    let towards_the_dead = async {
        let began = Instant::now();
        let shown = log_in_at(silent, 0, visiting, 0).await;
        assert!(matches!(shown.em_code, Some(40 | 208)), "{}", shown.text);
        began.elapsed()
    };
    let (told, meanwhile) = tokio::join!(towards_the_dead, works(other, visiting, 1));

    between.heal();
    let healed = Instant::now();
    let shown = log_in_at(silent, 0, visiting, 0).await;
    let usable = healed.elapsed();
    assert_eq!(shown.em_code, None, "{}", shown.text);

    println!(
        "known for dead after {known:?}; a login towards it is told after {told:?}, one towards another peer takes \
         {meanwhile:?}; usable {usable:?} after it is back"
    );
    assert!(
        known <= DEAD_WITHIN + SLACK,
        "known for dead after {known:?}"
    );
    assert!(told <= DEADLINE + SLACK, "told after {told:?}");
    assert!(meanwhile <= SLACK, "held up for {meanwhile:?}");
    assert!(usable <= USABLE_WITHIN + SLACK, "of use after {usable:?}");
    lab.shut_down().await;
}
