//! The refusals of late, kept in memory so that an operator finds them without reading logs.
//!
//! Whoever can reach a port can cause refusals, so their number is bounded and repeats are folded.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    clock::Timestamp,
    domain::rejection::Rejection,
    trust::{certificate::fingerprint_text, judge::Verdict},
};

/// The newest refusals of one node, at most [`RecentRefusals::CAPACITY`]. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RecentRefusals(Arc<Mutex<VecDeque<Refused>>>);

/// One refusal, or several alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When it happened last.
    pub at: Timestamp,
    /// Where the other side was; of repeats, the last one.
    pub remote: SocketAddr,
    /// The reason.
    pub rejection: Rejection,
    /// Fingerprint of the leaf that was shown.
    pub fingerprint: Option<String>,
    /// Subject of the leaf that was shown.
    pub subject: Option<String>,
    /// First and last moment at which that leaf is valid.
    pub valid: Option<(Timestamp, Timestamp)>,
    /// What would have been accepted.
    pub expectation: String,
    /// What the operator can type.
    pub mend: String,
    /// How often it happened.
    pub count: u64,
    logged: Timestamp,
}

/// Whether a refusal is worth a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// Not seen for a while.
    New,
    /// Seen a moment ago.
    Repeat,
}

impl RecentRefusals {
    /// How many are kept; enough for every peer of a large federation to be wrong once.
    pub const CAPACITY: usize = 64;
    /// How long a refusal is not logged again: peers that are refused come back twice a second.
    const QUIET: Duration = Duration::from_secs(60);

    /// Remembers a rejecting verdict on the other side at `remote`. A verdict that identifies a peer is
    /// none, and is not remembered.
    pub fn record(&self, verdict: &Verdict, remote: SocketAddr, now: Timestamp) -> Novelty {
        let Verdict::Rejected {
            rejection,
            certificate,
            expectation,
            mend,
        } = verdict
        else {
            return Novelty::Repeat;
        };
        let fingerprint = certificate
            .as_ref()
            .map(|c| fingerprint_text(&c.fingerprint()));
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let alike = |refused: &Refused| {
            refused.rejection == *rejection
                && refused.fingerprint == fingerprint
                && refused.remote.ip() == remote.ip()
        };
        let earlier = ring.iter().position(alike).and_then(|at| ring.remove(at));
        let is_due = earlier
            .as_ref()
            .is_none_or(|e| now.since(e.logged) >= Self::QUIET);
        let logged = earlier
            .as_ref()
            .filter(|_| !is_due)
            .map_or(now, |e| e.logged);
        if ring.len() >= Self::CAPACITY {
            ring.pop_front();
        }
        ring.push_back(Refused {
            at: now,
            remote,
            rejection: *rejection,
            fingerprint,
            subject: certificate.as_ref().map(|c| c.subject().to_owned()),
            valid: certificate
                .as_ref()
                .map(|c| (c.not_before(), c.not_after())),
            expectation: expectation.clone(),
            mend: mend.clone(),
            count: earlier.map_or(1, |e| e.count.saturating_add(1)),
            logged,
        });
        if is_due {
            Novelty::New
        } else {
            Novelty::Repeat
        }
    }

    /// What is remembered, the newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Refused> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .rev()
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::fixtures::Spec;

    fn verdict(rejection: Rejection) -> Verdict {
        Verdict::rejected(rejection, None, "something else", None)
    }

    fn from(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 40_000))
    }

    #[test]
    fn repeats_are_folded_and_logged_again_only_after_a_while() {
        let refusals = RecentRefusals::default();
        let start = Timestamp::from_millis(1_000_000);
        let plaintext = verdict(Rejection::Plaintext);
        assert_eq!(refusals.record(&plaintext, from(1), start), Novelty::New);
        assert_eq!(
            refusals.record(&plaintext, from(1), start.plus(Duration::from_secs(59))),
            Novelty::Repeat
        );
        assert_eq!(refusals.record(&plaintext, from(2), start), Novelty::New);
        assert_eq!(
            refusals.record(&verdict(Rejection::TlsVersion), from(1), start),
            Novelty::New
        );
        assert_eq!(
            refusals.record(&plaintext, from(1), start.plus(Duration::from_secs(60))),
            Novelty::New
        );
        let list = refusals.list();
        assert_eq!(list.len(), 3);
        assert_eq!(
            (list[0].rejection, list[0].count),
            (Rejection::Plaintext, 3)
        );
    }

    #[test]
    fn the_leaf_that_was_shown_is_remembered_with_its_dates() {
        let refusals = RecentRefusals::default();
        let leaf = Spec::new("a.example").self_signed().certificate();
        let shown = Verdict::rejected(Rejection::Expired, Some(leaf.clone()), "a valid one", None);
        refusals.record(&shown, from(1), Timestamp::from_millis(0));
        let refused = &refusals.list()[0];
        assert_eq!(refused.valid, Some((leaf.not_before(), leaf.not_after())));
        assert_eq!(refused.subject.as_deref(), Some(leaf.subject()));
    }

    #[test]
    fn the_oldest_make_room() {
        let refusals = RecentRefusals::default();
        for n in 0..=u8::try_from(RecentRefusals::CAPACITY).unwrap() {
            refusals.record(
                &verdict(Rejection::Plaintext),
                from(n),
                Timestamp::from_millis(i64::from(n)),
            );
        }
        let list = refusals.list();
        assert_eq!(list.len(), RecentRefusals::CAPACITY);
        assert_eq!(list.last().unwrap().remote, from(1));
    }
}
