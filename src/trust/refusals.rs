//! The refusals of late, kept in memory so that an operator finds them without reading logs.
//!
//! Whoever can reach a port can cause refusals, so their number is bounded and repeats are folded.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
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

/// Who refused whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// We refused somebody who called us.
    Caller,
    /// We refused what answered where we called.
    Answerer,
    /// Somebody who called us refused our own certificate.
    Own,
}

impl Side {
    /// The word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Answerer => "answerer",
            Self::Own => "own",
        }
    }
}

/// One refusal, or several alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When it happened last.
    pub at: Timestamp,
    /// Who refused whom.
    pub side: Side,
    /// Where the other side was; of repeats, the last one.
    pub remote: SocketAddr,
    /// The reason.
    pub rejection: Rejection,
    /// Fingerprint of the leaf that was refused.
    pub fingerprint: Option<String>,
    /// Subject of the leaf that was refused.
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
    pub fn record(
        &self,
        side: Side,
        verdict: &Verdict,
        remote: SocketAddr,
        now: Timestamp,
    ) -> Novelty {
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
            refused.side == side
                && refused.rejection == *rejection
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
            side,
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

    /// Forgets what has been mended: the caller at `remote` is a peer now, by the leaf with this fingerprint. It
    /// accepts ours as well, or it would not have finished the handshake.
    pub fn caller_accepted(&self, fingerprint: &str, remote: IpAddr) {
        self.forget(|refused| match refused.side {
            Side::Caller => refused.fingerprint.as_deref() == Some(fingerprint),
            Side::Own => refused.remote.ip() == remote,
            Side::Answerer => false,
        });
    }

    /// The same for the server where we called.
    pub fn answerer_accepted(&self, fingerprint: &str) {
        self.forget(|refused| {
            refused.side == Side::Answerer && refused.fingerprint.as_deref() == Some(fingerprint)
        });
    }

    fn forget(&self, is_mended: impl Fn(&Refused) -> bool) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.retain(|refused| !is_mended(refused));
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
        assert_eq!(
            refusals.record(Side::Caller, &plaintext, from(1), start),
            Novelty::New
        );
        assert_eq!(
            refusals.record(
                Side::Caller,
                &plaintext,
                from(1),
                start.plus(Duration::from_secs(59))
            ),
            Novelty::Repeat
        );
        assert_eq!(
            refusals.record(Side::Caller, &plaintext, from(2), start),
            Novelty::New
        );
        assert_eq!(
            refusals.record(
                Side::Caller,
                &verdict(Rejection::TlsVersion),
                from(1),
                start
            ),
            Novelty::New
        );
        assert_eq!(
            refusals.record(
                Side::Caller,
                &plaintext,
                from(1),
                start.plus(Duration::from_secs(60))
            ),
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
    fn what_has_been_mended_is_forgotten_and_nothing_else() {
        let refusals = RecentRefusals::default();
        let now = Timestamp::from_millis(1_000_000);
        let leaf = Spec::new("berlin").self_signed().certificate();
        let shown = leaf.fingerprint_text();
        let stranger = Verdict::rejected(Rejection::UnknownIssuer, Some(leaf), "a pin", None);
        refusals.record(Side::Caller, &stranger, from(1), now);
        refusals.record(Side::Answerer, &stranger, from(1), now);
        refusals.record(Side::Own, &stranger, from(1), now);
        refusals.record(Side::Own, &stranger, from(2), now);
        refusals.record(Side::Caller, &verdict(Rejection::Plaintext), from(1), now);
        let left = || {
            let list = refusals.list();
            list.iter().map(|r| (r.side, r.remote)).collect::<Vec<_>>()
        };
        refusals.caller_accepted("AB:CD", from(3).ip());
        assert_eq!(left().len(), 5);
        refusals.caller_accepted(&shown, from(1).ip());
        assert_eq!(
            left(),
            [
                (Side::Caller, from(1)),
                (Side::Own, from(2)),
                (Side::Answerer, from(1))
            ]
        );
        refusals.answerer_accepted(&shown);
        assert_eq!(left(), [(Side::Caller, from(1)), (Side::Own, from(2))]);
    }

    #[test]
    fn the_leaf_that_was_shown_is_remembered_with_its_dates() {
        let refusals = RecentRefusals::default();
        let leaf = Spec::new("a.example").self_signed().certificate();
        let shown = Verdict::rejected(Rejection::Expired, Some(leaf.clone()), "a valid one", None);
        refusals.record(Side::Caller, &shown, from(1), Timestamp::from_millis(0));
        let refused = &refusals.list()[0];
        assert_eq!(refused.valid, Some((leaf.not_before(), leaf.not_after())));
        assert_eq!(refused.subject.as_deref(), Some(leaf.subject()));
    }

    #[test]
    fn the_oldest_make_room() {
        let refusals = RecentRefusals::default();
        for n in 0..=u8::try_from(RecentRefusals::CAPACITY).unwrap() {
            refusals.record(
                Side::Caller,
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
