//! What befalls the nodes of a cluster, and what lies between two: decks of it, shuffled again and again.

use super::*;

use emccd::lab::{Cluster, between::Way, member::Versions, proxy::Flow};

/// How long a node stands still.
const STILL: Duration = Duration::from_secs(20);

/// What must have happened; `{}` is a cluster.
pub(super) const ALL: [&str; 10] = [
    "one node of {} killed",
    "all nodes of {} killed",
    "one node of {} stopped for 20 s",
    "one node of {} restarted",
    "both ways held",
    "both ways lost",
    "one way held",
    "one way lost",
    "connections refused",
    "connections killed",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnNodes {
    Kill,
    KillAll,
    Stop,
    Restart,
}

/// Twice as many kills as of the others.
const NODES_DECK: [OnNodes; 5] = [
    OnNodes::Kill,
    OnNodes::Stop,
    OnNodes::Restart,
    OnNodes::KillAll,
    OnNodes::Kill,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnTheWay {
    Cut(Way, Flow),
    Refuse,
    Kill,
}

const WAY_DECK: [OnTheWay; 9] = [
    OnTheWay::Cut(Way::Both, Flow::Held),
    OnTheWay::Cut(Way::Both, Flow::Lost),
    OnTheWay::Cut(Way::There, Flow::Held),
    OnTheWay::Cut(Way::There, Flow::Lost),
    OnTheWay::Cut(Way::Back, Flow::Held),
    OnTheWay::Cut(Way::Back, Flow::Lost),
    OnTheWay::Refuse,
    OnTheWay::Kill,
    OnTheWay::Kill,
];

/// The same cards in another order.
fn shuffled<T: Copy>(chance: &Chance, deck: &[T]) -> Vec<T> {
    let mut deck = deck.to_vec();
    for last in (1..deck.len()).rev() {
        let other = chance.range(0..last as u64 + 1);
        deck.swap(last, usize::try_from(other).unwrap());
    }
    deck
}

async fn pause(chance: &Chance, range: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(chance.range(range))).await;
}

/// Kills, stops and restarts nodes of one cluster; all run when it ends.
pub(super) async fn on_nodes(cluster: &mut Cluster, chance: Chance, until: Instant) -> Counts {
    let mut counts = Counts::new();
    loop {
        for card in shuffled(&chance, &NODES_DECK) {
            pause(&chance, 500..4_000).await;
            let needs = if card == OnNodes::Stop {
                STILL
            } else {
                Duration::ZERO
            };
            if Instant::now() + needs >= until {
                return counts;
            }
            let victim = usize::try_from(chance.range(0..NODES as u64)).unwrap();
            let name = cluster.id.clone();
            let what = match card {
                OnNodes::Kill => {
                    cluster.members[victim].kill().await.unwrap();
                    pause(&chance, 0..3_000).await;
                    format!("one node of {name} killed")
                }
                OnNodes::KillAll => {
                    for member in &mut cluster.members {
                        member.kill().await.unwrap();
                        pause(&chance, 0..500).await;
                    }
                    pause(&chance, 0..2_000).await;
                    format!("all nodes of {name} killed")
                }
                OnNodes::Stop => {
                    cluster.members[victim].pause().unwrap();
                    tokio::time::sleep(STILL).await;
                    cluster.members[victim].resume().unwrap();
                    format!("one node of {name} stopped for 20 s")
                }
                OnNodes::Restart => {
                    cluster.members[victim].stop().await;
                    format!("one node of {name} restarted")
                }
            };
            count(&mut counts, what);
            for member in cluster.members.iter_mut().filter(|m| !m.is_running()) {
                member.start(&Versions::default()).await.unwrap();
            }
        }
    }
}

/// Cuts what lies between them, and heals it after a while.
pub(super) async fn between_them(between: &Between, chance: Chance, until: Instant) -> Counts {
    let mut counts = Counts::new();
    loop {
        for card in shuffled(&chance, &WAY_DECK) {
            pause(&chance, 500..4_000).await;
            if Instant::now() >= until {
                return counts;
            }
            match card {
                OnTheWay::Cut(way, flow) => {
                    between.cut(way, flow);
                    let ways = if way == Way::Both {
                        "both ways"
                    } else {
                        "one way"
                    };
                    let flow = if flow == Flow::Held { "held" } else { "lost" };
                    count(&mut counts, format!("{ways} {flow}"));
                }
                OnTheWay::Refuse => {
                    between.refuse();
                    count(&mut counts, "connections refused");
                }
                OnTheWay::Kill => {
                    between.kill();
                    count(&mut counts, "connections killed");
                    continue;
                }
            }
            pause(&chance, 200..8_000).await;
            between.heal();
        }
    }
}
