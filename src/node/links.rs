//! How this node's links stand, put on record for the other nodes of its cluster.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use crate::{
    clock::{Clock, Timestamp},
    domain::federation::LinkState,
    peer::{LinkStatus, Peers, error::bounded},
    store::{
        self, Store, Transaction,
        membership::Membership,
        node_links::{self, Link},
    },
    tasks::Tasks,
};

/// The least time between two records: a link that flaps must not keep the store busy.
const SPACING: Duration = Duration::from_millis(500);
/// The same where nothing is new but the words of a reason.
const WORDS: Duration = Duration::from_secs(10);
/// How often the record is looked at without a reason: it went if this node was taken for dead.
const LOOK: Duration = Duration::from_secs(10);
/// When what could not be put on record is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Ages are told in milliseconds, and worked out anew each time: what differs by less is the same moment.
const SAME_MOMENT_MS: u64 = 1_000;

/// What has changed since the record was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    Nothing,
    Words,
    State,
}

/// Keeps the record true until the node shuts down. It goes when the node leaves.
pub(super) async fn tell(
    store: Store,
    membership: Membership,
    peers: Peers,
    clock: Clock,
    tasks: Tasks,
) {
    let telling = tell_on(&store, &membership, &peers, &clock);
    tasks.token().run_until_cancelled(telling).await;
}

async fn tell_on(store: &Store, membership: &Membership, peers: &Peers, clock: &Clock) {
    let mut changes = peers.changes();
    let mut on_record: Option<Vec<Link>> = None;
    let (mut words_due, mut look_due) = (Instant::now(), Instant::now());
    let mut has_complained = false;
    loop {
        changes.mark_unchanged();
        let links = links(&peers.status(), clock.now());
        let due = match on_record.as_ref().map(|before| news(before, &links)) {
            None | Some(News::State) => Instant::now(),
            Some(News::Words) => words_due,
            Some(News::Nothing) => look_due,
        };
        if due > Instant::now() {
            tokio::select! {
                biased;
                Ok(()) = changes.changed() => {}
                () = sleep_until(due) => {}
            }
            continue;
        }
        on_record = match record(store, membership, links).await {
            Ok(on_record) => {
                has_complained = false;
                on_record
            }
            Err(error) => {
                if !std::mem::replace(&mut has_complained, true) {
                    warn!(
                        cause = crate::telemetry::error_chain(&error),
                        "the other nodes of this cluster can't be told how this one's links stand; it tries again"
                    );
                }
                None
            }
        };
        (words_due, look_due) = (Instant::now() + WORDS, Instant::now() + LOOK);
        let pause = if on_record.is_some() { SPACING } else { RETRY };
        sleep(pause).await;
    }
}

/// Puts `links` on record where they are news; what stands there then. None when this run isn't on record itself.
async fn record(
    store: &Store,
    membership: &Membership,
    links: Vec<Link>,
) -> Result<Option<Vec<Link>>, store::Error> {
    let run = membership.run().clone();
    let asked = run.clone();
    let before = store
        .read(move |tx: &mut dyn Transaction| node_links::of(tx, &asked))
        .await?;
    match before {
        None => return Ok(None),
        Some(before) if news(&before, &links) == News::Nothing => return Ok(Some(before)),
        Some(_) => {}
    }
    let told = links.clone();
    let stands = store
        .write(move |tx: &mut dyn Transaction| node_links::put(tx, &run, &told))
        .await?;
    Ok(stands.then_some(links))
}

/// What is to be told, by peer. Of a disabled one there is nothing to tell.
fn links(status: &[LinkStatus], now: Timestamp) -> Vec<Link> {
    let enabled = status.iter().filter(|link| link.enabled);
    enabled
        .map(|link| Link {
            cluster: link.cluster.clone(),
            state: link.outbound,
            since: now.minus(link.since),
            reason: match link.outbound {
                LinkState::Up => None,
                _ => link.last_error.as_deref().map(bounded),
            },
        })
        .collect()
}

fn news(before: &[Link], links: &[Link]) -> News {
    if before.len() != links.len() {
        return News::State;
    }
    let each = before.iter().zip(links).map(|(before, link)| {
        let apart = before.since.as_millis().abs_diff(link.since.as_millis());
        if before.cluster != link.cluster || before.state != link.state || apart > SAME_MOMENT_MS {
            News::State
        } else if before.reason != link.reason {
            News::Words
        } else {
            News::Nothing
        }
    });
    each.max().unwrap_or(News::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::ids::ClusterId,
        peer::{NodeStatus, inbound::Inbound},
        store::{membership, nodes},
    };

    fn to(cluster: &str, state: LinkState, since: i64, reason: Option<&str>) -> Link {
        Link {
            cluster: ClusterId::new(cluster).unwrap(),
            state,
            since: Timestamp::from_millis(since),
            reason: reason.map(str::to_owned),
        }
    }

    #[test]
    fn a_state_is_told_at_once_and_words_alone_in_their_time() {
        use LinkState::{Down, Up};
        let up = || to("tokyo", Up, 5_000, None);
        let down = |reason| to("tokyo", Down, 5_000, Some(reason));
        for (before, links, expected) in [
            (vec![], vec![], News::Nothing),
            (vec![], vec![up()], News::State),
            (vec![up()], vec![up()], News::Nothing),
            (vec![up()], vec![], News::State),
            (vec![up()], vec![down("refused")], News::State),
            (vec![up()], vec![to("lima", Up, 5_000, None)], News::State),
            (vec![down("refused")], vec![down("no answer")], News::Words),
            // As old as it was; and one that was down meanwhile.
            (
                vec![up()],
                vec![to("tokyo", Up, 5_999, None)],
                News::Nothing,
            ),
            (vec![up()], vec![to("tokyo", Up, 7_000, None)], News::State),
            (
                vec![down("refused"), up()],
                vec![down("no answer"), down("refused")],
                News::State,
            ),
        ] {
            assert_eq!(news(&before, &links), expected, "{before:?} {links:?}");
        }
    }

    #[test]
    fn what_nobody_wants_is_not_told_and_a_reason_only_of_what_is_not_up() {
        let status = |id: &str, enabled, outbound| LinkStatus {
            outbound,
            since: Duration::from_secs(2),
            last_error: Some("x".repeat(5_000)),
            ..LinkStatus::of(
                &ClusterId::new(id).unwrap(),
                enabled,
                Vec::<NodeStatus>::new(),
                None,
                Inbound::default(),
            )
        };
        let now = Timestamp::from_millis(9_000);
        let all = [
            status("lima", false, LinkState::Down),
            status("oslo", true, LinkState::Down),
            status("tokyo", true, LinkState::Up),
        ];
        let told = links(&all, now);
        assert_eq!(told[1], to("tokyo", LinkState::Up, 7_000, None));
        assert_eq!((told.len(), told[0].cluster.as_str()), (2, "oslo"));
        let reason = told[0].reason.as_ref().unwrap();
        assert!(reason.len() <= 512, "{}", reason.len());
    }

    #[tokio::test]
    async fn a_record_is_written_when_it_is_news_and_by_who_is_on_record() {
        let config = store::Config {
            url: "sqlite::memory:".to_owned(),
            node: "n1".to_owned(),
        };
        let store = Store::open(&config).unwrap();
        let config = membership::Config {
            node: "n1".to_owned(),
            instance: "a".to_owned(),
            ..membership::Config::default()
        };
        let member = Membership::new(store.clone(), Clock::system(), config);
        let told = |links: Vec<Link>| record(&store, &member, links);
        let up = vec![to("tokyo", LinkState::Up, 5_000, None)];
        let writes = || store.stats().writes;
        let before = writes();
        assert_eq!(told(up.clone()).await.unwrap(), None);
        assert_eq!(writes(), before, "who is not on record writes nothing");
        member.join().await.unwrap();
        let before = writes();
        assert_eq!(told(up.clone()).await.unwrap(), Some(up.clone()));
        assert_eq!(writes(), before + 1);
        let older = vec![to("tokyo", LinkState::Up, 5_100, None)];
        assert_eq!(told(older).await.unwrap(), Some(up.clone()));
        assert_eq!(writes(), before + 1, "it is the same");
        let stands = || {
            let run = member.run().clone();
            store.read(move |tx: &mut dyn Transaction| node_links::of(tx, &run))
        };
        assert_eq!(stands().await.unwrap(), Some(up.clone()));
        // Taken for dead, and back: what it said is gone, and is said again.
        let run = member.run().clone();
        let removed = store.write(move |tx: &mut dyn Transaction| nodes::remove(tx, &run));
        assert!(removed.await.unwrap());
        assert_eq!(told(up.clone()).await.unwrap(), None);
        member.join().await.unwrap();
        assert_eq!(stands().await.unwrap(), Some(Vec::new()));
        assert_eq!(told(up.clone()).await.unwrap(), Some(up.clone()));
        assert_eq!(stands().await.unwrap(), Some(up));
    }
}
