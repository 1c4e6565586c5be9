//! How often a peer may announce its certificates: each announcement may write trust, which all nodes then take up, and an
//! entry of the audit, which stays.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::domain::{announcement::MAX_IDENTITIES, ids::ClusterId};

/// A rate with room for bursts.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// One in so long.
    every: Duration,
    /// So many at once, after a pause.
    burst: u32,
}

/// Of one identity: a whole rotation is four, and twenty of them in a row are no reason to wait.
const OF_IDENTITY: Rate = Rate {
    every: Duration::from_secs(1),
    burst: 60,
};

/// Of all identities of a peer together, on one node of ours: each of them can be told four times at once.
const OF_PEER: Rate = Rate {
    every: Duration::from_millis(250),
    burst: 256,
};

/// What one has left: from this moment on it would have all again.
#[derive(Clone, Copy, Debug)]
struct Left(Instant);

impl Left {
    /// How long to wait until one is left; nothing when one is.
    fn wait(self, rate: Rate, now: Instant) -> Option<Duration> {
        let debt = self.0.saturating_duration_since(now);
        let most = rate.every * rate.burst.saturating_sub(1);
        debt.checked_sub(most).filter(|wait| !wait.is_zero())
    }

    fn take(&mut self, rate: Rate, now: Instant) {
        self.0 = self.0.max(now) + rate.every;
    }

    fn has_all(self, now: Instant) -> bool {
        self.0 <= now
    }
}

struct OfPeer {
    all: Left,
    identities: HashMap<String, Left>,
}

/// The budgets of all peers, on this node.
#[derive(Default)]
pub(super) struct Budgets(Mutex<HashMap<ClusterId, OfPeer>>);

impl Budgets {
    /// How many identities of a peer are counted at a time: what it has, and as many that make room for others.
    const MAX_COUNTED: usize = 2 * MAX_IDENTITIES;

    /// Takes one announcement of an identity. When there is none left, says when to come again, and takes nothing.
    pub(super) fn take(
        &self,
        cluster: &ClusterId,
        identity: &str,
        now: Instant,
    ) -> Result<(), Duration> {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = peers.entry(cluster.clone()).or_insert_with(|| OfPeer {
            all: Left(now),
            identities: HashMap::new(),
        });
        if let Some(wait) = of_peer.all.wait(OF_PEER, now) {
            return Err(wait);
        }
        let counted = &mut of_peer.identities;
        if !counted.contains_key(identity) && counted.len() >= Self::MAX_COUNTED {
            counted.retain(|_, left| !left.has_all(now));
            if counted.len() >= Self::MAX_COUNTED {
                return Err(OF_IDENTITY.every);
            }
        }
        let left = counted.entry(identity.to_owned()).or_insert(Left(now));
        if let Some(wait) = left.wait(OF_IDENTITY, now) {
            return Err(wait);
        }
        left.take(OF_IDENTITY, now);
        of_peer.all.take(OF_PEER, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str) -> ClusterId {
        ClusterId::new(name).unwrap()
    }

    #[test]
    fn after_a_burst_one_is_left_each_second_and_others_have_their_own() {
        let (budgets, tokyo, now) = (Budgets::default(), cluster("tokyo"), Instant::now());
        for _ in 0..OF_IDENTITY.burst {
            assert_eq!(budgets.take(&tokyo, "n/federation", now), Ok(()));
        }
        let wait = budgets.take(&tokyo, "n/federation", now).unwrap_err();
        assert_eq!(wait, OF_IDENTITY.every);
        // Asking costs nothing, and the time that was told is right.
        assert_eq!(budgets.take(&tokyo, "n/federation", now), Err(wait));
        let early = now + wait - Duration::from_millis(1);
        assert!(budgets.take(&tokyo, "n/federation", early).is_err());
        assert_eq!(budgets.take(&tokyo, "n/federation", now + wait), Ok(()));
        assert!(budgets.take(&tokyo, "n/federation", now + wait).is_err());
        assert_eq!(budgets.take(&tokyo, "m/federation", now), Ok(()));
        assert_eq!(budgets.take(&cluster("lima"), "n/federation", now), Ok(()));
    }

    #[test]
    fn ever_new_identities_are_no_way_around() {
        let (budgets, tokyo) = (Budgets::default(), cluster("tokyo"));
        let began = Instant::now();
        let mut taken = 0_u32;
        for n in 0..10_000_u32 {
            let now = began + Duration::from_millis(n.into());
            if budgets
                .take(&tokyo, &format!("{n}/federation"), now)
                .is_ok()
            {
                taken += 1;
            }
        }
        assert!((100..=OF_PEER.burst + 40).contains(&taken), "{taken}");
        let peers = budgets.0.lock().unwrap();
        assert!(peers[&tokyo].identities.len() <= Budgets::MAX_COUNTED);
    }
}
