//! The refusals of late, kept in memory so that an operator finds them without reading logs.
//!
//! Whoever can reach a port can cause refusals, and make as many certificates as it likes. So their number is
//! bounded, in all and per address, repeats are folded, and log lines are counted.

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
pub struct RecentRefusals(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    ring: VecDeque<Refused>,
    lines: Lines,
}

/// The log lines of the second that began at `since`.
#[derive(Debug, Default)]
struct Lines {
    since: Timestamp,
    written: u32,
    muted: u64,
}

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
    /// When a log line was written of it last; never, if there were too many at the time.
    logged: Option<Timestamp>,
}

/// Whether a refusal is worth a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// Not seen for a while.
    New {
        /// How many others were not logged since the last line, because there were too many.
        muted: u64,
    },
    /// Not seen for a while, but others have used up the lines of this second.
    Flood {
        /// Whether it is the first that gets no line in this second.
        is_first: bool,
    },
    /// Seen a moment ago.
    Repeat,
}

impl RecentRefusals {
    /// How many are kept; enough for every peer of a large federation to be wrong once.
    pub const CAPACITY: usize = 64;
    /// How many certificates that nobody vouches for are kept of one address: each caller can make new ones for
    /// each call.
    pub const STRANGERS_PER_ADDRESS: usize = 4;
    /// How many refusals of callers are logged in a second.
    pub const LINES_PER_SECOND: u32 = 10;
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
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut *kept;
        let alike = |refused: &Refused| {
            refused.side == side
                && refused.rejection == *rejection
                && refused.fingerprint == fingerprint
                && refused.remote.ip() == remote.ip()
        };
        let earlier = kept
            .ring
            .iter()
            .position(alike)
            .and_then(|at| kept.ring.remove(at));
        let last = earlier.as_ref().and_then(|e| e.logged);
        let novelty = if last.is_some_and(|at| now.since(at) < Self::QUIET) {
            Novelty::Repeat
        } else if side == Side::Answerer {
            // We choose whom we call and how often.
            Novelty::New { muted: 0 }
        } else {
            kept.lines.take(now)
        };
        let refused = Refused {
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
            logged: match novelty {
                Novelty::New { .. } => Some(now),
                Novelty::Flood { .. } => None,
                Novelty::Repeat => last,
            },
        };
        make_room(&mut kept.ring, &refused);
        kept.ring.push_back(refused);
        novelty
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
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.ring.retain(|refused| !is_mended(refused));
    }

    /// What is remembered, the newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Refused> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ring
            .iter()
            .rev()
            .cloned()
            .collect()
    }
}

impl Lines {
    fn take(&mut self, now: Timestamp) -> Novelty {
        // The clock may have been set back.
        if now < self.since || now.since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.written = 0;
        }
        if self.written < RecentRefusals::LINES_PER_SECOND {
            self.written += 1;
            let muted = std::mem::take(&mut self.muted);
            return Novelty::New { muted };
        }
        self.muted = self.muted.saturating_add(1);
        let is_first = self.written == RecentRefusals::LINES_PER_SECOND;
        // One above: the first has been told.
        self.written = RecentRefusals::LINES_PER_SECOND + 1;
        Novelty::Flood { is_first }
    }
}

/// Drops the oldest of the same address when `next` is a stranger and there are enough of those, and otherwise
/// the oldest of all when there are too many.
fn make_room(ring: &mut VecDeque<Refused>, next: &Refused) {
    let is_neighbour = |kept: &Refused| {
        is_stranger(kept) && network(kept.remote.ip()) == network(next.remote.ip())
    };
    if is_stranger(next)
        && ring.iter().filter(|kept| is_neighbour(kept)).count()
            >= RecentRefusals::STRANGERS_PER_ADDRESS
        && let Some(oldest) = ring.iter().position(is_neighbour)
    {
        ring.remove(oldest);
    }
    if ring.len() >= RecentRefusals::CAPACITY {
        ring.pop_front();
    }
}

/// Everything else takes a certificate that somebody issued or listed, or none at all.
fn is_stranger(refused: &Refused) -> bool {
    refused.side == Side::Caller
        && refused.rejection == Rejection::UnknownIssuer
        && refused.fingerprint.is_some()
}

/// What one host can choose freely of an IPv6 address does not make it another host.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
        v4 @ IpAddr::V4(_) => v4,
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
            Novelty::New { muted: 0 }
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
            Novelty::New { muted: 0 }
        );
        assert_eq!(
            refusals.record(
                Side::Caller,
                &verdict(Rejection::TlsVersion),
                from(1),
                start
            ),
            Novelty::New { muted: 0 }
        );
        assert_eq!(
            refusals.record(
                Side::Caller,
                &plaintext,
                from(1),
                start.plus(Duration::from_secs(60))
            ),
            Novelty::New { muted: 0 }
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

    fn stranger(name: &str) -> Verdict {
        let leaf = Spec::new(name).self_signed().certificate();
        Verdict::rejected(Rejection::UnknownIssuer, Some(leaf), "a pin", None)
    }

    #[test]
    fn one_address_can_not_flush_what_others_did() {
        let refusals = RecentRefusals::default();
        let at = Timestamp::from_millis;
        refusals.record(Side::Caller, &stranger("berlin"), from(1), at(0));
        refusals.record(Side::Own, &stranger("own"), from(2), at(0));
        refusals.record(Side::Caller, &verdict(Rejection::Plaintext), from(2), at(0));
        for n in 1..=100 {
            refusals.record(Side::Caller, &stranger("mallory"), from(2), at(n));
        }
        let list = refusals.list();
        assert_eq!(list.len(), 3 + RecentRefusals::STRANGERS_PER_ADDRESS);
        assert_eq!(list[0].at, at(100), "the newest are kept");
        assert_eq!(list[3].at, at(97));
        assert!(list.iter().any(|kept| kept.remote == from(1)));
        // The hosts of one IPv6 network are one.
        let before = refusals.list().len();
        for n in 1..=10u16 {
            let host = SocketAddr::from(([0x2001, 0xdb8, 0, 0, n, n, n, n], 40_000));
            refusals.record(Side::Caller, &stranger("eve"), host, at(200));
        }
        assert_eq!(
            refusals.list().len(),
            before + RecentRefusals::STRANGERS_PER_ADDRESS
        );
    }

    #[test]
    fn log_lines_are_counted_and_what_was_left_out_is_told() {
        let refusals = RecentRefusals::default();
        let start = Timestamp::from_millis(1_000_000);
        let plaintext = verdict(Rejection::Plaintext);
        let record = |n: u8, at: Timestamp| refusals.record(Side::Caller, &plaintext, from(n), at);
        for n in 0..10 {
            assert_eq!(record(n, start), Novelty::New { muted: 0 });
        }
        assert_eq!(record(10, start), Novelty::Flood { is_first: true });
        assert_eq!(record(11, start), Novelty::Flood { is_first: false });
        // Folded ones need no line, and our own calls have theirs.
        assert_eq!(record(0, start), Novelty::Repeat);
        assert_eq!(
            refusals.record(Side::Answerer, &plaintext, from(1), start),
            Novelty::New { muted: 0 }
        );
        // What got no line is still due, and is kept all the same.
        let later = start.plus(Duration::from_secs(1));
        assert_eq!(record(10, later), Novelty::New { muted: 2 });
        assert_eq!(record(10, later), Novelty::Repeat);
        assert_eq!(record(12, later), Novelty::New { muted: 0 });
        assert!(refusals.list().iter().any(|kept| kept.remote == from(11)));
        // A clock that was set back does not mute for ever.
        let earlier = Timestamp::from_millis(500);
        assert_eq!(record(13, earlier), Novelty::New { muted: 0 });
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
