//! Clocks of peers that are far from ours. Nothing here goes by them, but logs can't be compared any more, and sooner or
//! later a certificate is not valid on one side: it is told once, and once more when it is well again.

use std::{collections::BTreeSet, time::Duration};

use tracing::{info, warn};

use crate::{
    domain::ids::ClusterId,
    peer::{LinkState, LinkStatus, Peers},
    tasks::Tasks,
};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(5);

/// Beyond this it is told.
pub(super) const ALARM_MS: u64 = 30_000;
/// And within this it is well again: a clock at the edge is not told again and again.
const WELL_MS: u64 = 25_000;

/// Looks until the node shuts down.
pub(super) async fn watch(peers: Peers, tasks: Tasks) {
    let mut skews = Skews::default();
    let watching = async {
        loop {
            tokio::time::sleep(LOOK).await;
            for news in skews.look(&peers.status()) {
                tell(&news);
            }
        }
    };
    tasks.token().run_until_cancelled(watching).await;
}

fn tell(news: &News) {
    match news {
        News::Off(cluster, offset_ms) => {
            let seconds = offset_ms.unsigned_abs() / 1_000;
            let which = if *offset_ms < 0 { "behind" } else { "ahead of" };
            warn!(
                alarm = "clock_skew", peer.cluster_id = %cluster, offset_ms,
                "the clock of cluster {cluster} is {seconds} s {which} ours: look at both with timedatectl status. \
                 Sessions don't depend on it; logs can't be compared, and certificates may be valid on one side only"
            );
        }
        News::Well(cluster) => info!(
            alarm_over = "clock_skew", peer.cluster_id = %cluster,
            "the clock of cluster {cluster} is near ours again"
        ),
    }
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
enum News {
    /// Its clock is off, by so many milliseconds.
    Off(ClusterId, i64),
    /// It is well again.
    Well(ClusterId),
}

/// The peers whose clocks are off.
#[derive(Debug, Default)]
struct Skews(BTreeSet<ClusterId>);

impl Skews {
    /// What is new. Of a peer without a link nothing is known: what was told stands.
    fn look(&mut self, status: &[LinkStatus]) -> Vec<News> {
        self.0
            .retain(|cluster| status.iter().any(|peer| peer.cluster == *cluster));
        let up = status.iter().filter(|peer| peer.outbound == LinkState::Up);
        let mut news = Vec::new();
        for peer in up {
            let Some(offset) = peer.clock_offset_ms else {
                continue;
            };
            let (cluster, apart) = (&peer.cluster, offset.unsigned_abs());
            if apart > ALARM_MS && self.0.insert(cluster.clone()) {
                news.push(News::Off(cluster.clone(), offset));
            } else if apart <= WELL_MS && self.0.remove(cluster) {
                news.push(News::Well(cluster.clone()));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::inbound::Inbound;

    fn tokyo() -> ClusterId {
        ClusterId::new("tokyo").unwrap()
    }

    fn peer(outbound: LinkState, clock_offset_ms: Option<i64>) -> LinkStatus {
        LinkStatus {
            outbound,
            clock_offset_ms,
            ..LinkStatus::of(&tokyo(), true, Vec::new(), None, Inbound::default())
        }
    }

    #[test]
    fn it_is_told_once_and_once_more_when_it_is_well_again() {
        use LinkState::{Down, Up};
        let mut skews = Skews::default();
        for (state, offset, expected) in [
            (Up, None, vec![]),
            (Up, Some(30_000), vec![]),
            (Up, Some(-30_001), vec![News::Off(tokyo(), -30_001)]),
            (Up, Some(-86_400_000), vec![]),
            // A moment without a link tells nothing, and neither does what was last heard over it.
            (Down, Some(0), vec![]),
            // Not at the edge.
            (Up, Some(29_000), vec![]),
            (Up, Some(31_000), vec![]),
            (Up, Some(25_000), vec![News::Well(tokyo())]),
            (Up, Some(86_400_000), vec![News::Off(tokyo(), 86_400_000)]),
        ] {
            assert_eq!(skews.look(&[peer(state, offset)]), expected, "{offset:?}");
        }
        // One that is added again is told again.
        assert!(skews.look(&[]).is_empty());
        let again = skews.look(&[peer(Up, Some(31_000))]);
        assert_eq!(again, [News::Off(tokyo(), 31_000)]);
    }
}
