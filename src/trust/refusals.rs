//! The refusals of late, kept in memory so that an operator finds them without reading logs.
//!
//! Whoever can reach a port can cause refusals, and make as many certificates as it likes. So their number is
//! bounded, in all and per network, repeats are folded, and log lines are counted.

use std::{
    collections::{BTreeMap, VecDeque},
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
    /// When a line was written of each kind of late: a refusal that is no longer kept is not news for that. There are
    /// at most [`RecentRefusals::LINES_PER_SECOND`] new ones a second, besides those of calls that we choose.
    logged: BTreeMap<Kind, Timestamp>,
    lines: Lines,
    counts: BTreeMap<(Side, Rejection), u64>,
}

/// What makes two refusals one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    side: Side,
    rejection: Rejection,
    fingerprint: Option<String>,
    network: IpAddr,
}

/// The log lines of the second that began at `since`.
#[derive(Debug, Default)]
struct Lines {
    since: Timestamp,
    written: u32,
    muted: u64,
}

/// Who refused whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
}

/// What a caller with a trusted certificate said that the certificate does not bear out.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Where it called from.
    pub remote: SocketAddr,
    /// Fingerprint of its leaf.
    pub fingerprint: Option<&'a str>,
    /// What it claimed, and what it is.
    pub cause: &'a str,
    /// What the operator can type.
    pub mend: &'a str,
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
    pub const CAPACITY: usize = 256;
    /// How much of what any stranger can cause is kept of one network: each caller can make a new certificate for
    /// each call, and call from a new address of an IPv6 network. All nodes of a peer may stand behind one address.
    pub const STRANGERS_PER_NETWORK: usize = 16;
    /// How many refusals of callers are logged in a second.
    pub const LINES_PER_SECOND: u32 = 10;
    /// How long a refusal is not logged again: peers that are refused come back twice a second.
    const QUIET: Duration = Duration::from_secs(60);
    /// How many kinds are remembered as logged; more than can be within [`Self::QUIET`] of callers.
    const LOGGED: usize = 1_024;

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
        self.keep(
            Refused {
                at: now,
                side,
                remote,
                rejection: *rejection,
                fingerprint: certificate
                    .as_ref()
                    .map(|c| fingerprint_text(&c.fingerprint())),
                subject: certificate.as_ref().map(|c| c.subject().to_owned()),
                valid: certificate
                    .as_ref()
                    .map(|c| (c.not_before(), c.not_after())),
                expectation: expectation.clone(),
                mend: mend.clone(),
                count: 1,
            },
            true,
        )
    }

    /// Remembers that a caller with a trusted certificate said that it is somebody else. Whoever calls this has
    /// a log line of its own for it.
    pub fn record_claim(&self, claim: Claim<'_>, now: Timestamp) {
        let refused = Refused {
            at: now,
            side: Side::Caller,
            remote: claim.remote,
            rejection: Rejection::WrongCluster,
            fingerprint: claim.fingerprint.map(ToOwned::to_owned),
            subject: None,
            valid: None,
            expectation: claim.cause.to_owned(),
            mend: claim.mend.to_owned(),
            count: 1,
        };
        self.keep(refused, false);
    }

    fn keep(&self, mut refused: Refused, is_logged: bool) -> Novelty {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut *kept;
        *kept
            .counts
            .entry((refused.side, refused.rejection))
            .or_default() += 1;
        let earlier = kept
            .ring
            .iter()
            .position(|earlier| are_alike(earlier, &refused))
            .and_then(|at| kept.ring.remove(at));
        let now = refused.at;
        let kind = refused.kind();
        let novelty = if !is_logged || kept.is_quiet(&kind, now) {
            Novelty::Repeat
        } else if refused.side == Side::Answerer {
            // We choose whom we call and how often.
            Novelty::New { muted: 0 }
        } else {
            kept.lines.take(now)
        };
        if matches!(novelty, Novelty::New { .. }) {
            kept.remember(kind, now);
        }
        refused.count = earlier.map_or(1, |e| e.count.saturating_add(1));
        make_room(&mut kept.ring, &refused);
        kept.ring.push_back(refused);
        novelty
    }

    /// Forgets what has been mended: the caller at `remote` is a peer now, by the leaf with this fingerprint. It
    /// accepts ours as well, or it would not have finished the handshake; others of its network may not, and behind
    /// one address that can't be told, so that what was logged of them stays logged.
    pub fn caller_accepted(&self, fingerprint: &str, remote: IpAddr) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let remote = remote.to_canonical();
        kept.ring.retain(|refused| {
            refused.side != Side::Own || refused.remote.ip().to_canonical() != remote
        });
        // What a caller claims is heard only later.
        kept.forget(|kind| {
            kind.side == Side::Caller && !kind.is_claim() && kind.is_of(fingerprint)
        });
    }

    /// The same for the server where we called.
    pub fn answerer_accepted(&self, fingerprint: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget(|kind| kind.side == Side::Answerer && kind.is_of(fingerprint));
    }

    /// The same for what the caller claims to be.
    pub fn claim_accepted(&self, fingerprint: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget(|kind| kind.is_claim() && kind.is_of(fingerprint));
    }

    /// How many there were of each kind since the node started, those that are not kept included.
    #[must_use]
    pub fn counts(&self) -> Vec<(Side, Rejection, u64)> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = kept.counts.iter();
        counts
            .map(|((side, why), count)| (*side, *why, *count))
            .collect()
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

impl Kept {
    /// Whether a line was written of such a one a moment ago. The clock may have been set back since.
    fn is_quiet(&self, kind: &Kind, now: Timestamp) -> bool {
        self.logged.get(kind).is_some_and(|at| is_late(*at, now))
    }

    fn remember(&mut self, kind: Kind, now: Timestamp) {
        if self.logged.len() >= RecentRefusals::LOGGED {
            self.logged.retain(|_, at| is_late(*at, now));
        }
        if self.logged.len() >= RecentRefusals::LOGGED {
            let oldest = self.logged.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(kind, _)| kind.clone()) {
                self.logged.remove(&oldest);
            }
        }
        self.logged.insert(kind, now);
    }

    fn forget(&mut self, is_mended: impl Fn(&Kind) -> bool) {
        self.ring.retain(|refused| !is_mended(&refused.kind()));
        self.logged.retain(|kind, _| !is_mended(kind));
    }
}

fn is_late(at: Timestamp, now: Timestamp) -> bool {
    at <= now && now.since(at) < RecentRefusals::QUIET
}

impl Refused {
    fn kind(&self) -> Kind {
        Kind {
            side: self.side,
            rejection: self.rejection,
            fingerprint: self.fingerprint.clone(),
            network: network(self.remote.ip()),
        }
    }
}

impl Kind {
    fn is_of(&self, fingerprint: &str) -> bool {
        self.fingerprint.as_deref() == Some(fingerprint)
    }

    /// Whether the certificate was trusted and what the call said was not.
    fn is_claim(&self) -> bool {
        self.side == Side::Caller && self.rejection == Rejection::WrongCluster
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

/// Whether the two are one reason, seen twice.
fn are_alike(earlier: &Refused, refused: &Refused) -> bool {
    earlier.side == refused.side
        && earlier.rejection == refused.rejection
        && earlier.fingerprint == refused.fingerprint
        && network(earlier.remote.ip()) == network(refused.remote.ip())
}

/// Drops the oldest of the same network when `next` is what any stranger can cause and there are enough of those,
/// and otherwise the oldest of all when there are too many.
fn make_room(ring: &mut VecDeque<Refused>, next: &Refused) {
    let is_neighbour = |kept: &Refused| {
        is_any_stranger_s(kept) && network(kept.remote.ip()) == network(next.remote.ip())
    };
    if is_any_stranger_s(next)
        && ring.iter().filter(|kept| is_neighbour(kept)).count()
            >= RecentRefusals::STRANGERS_PER_NETWORK
        && let Some(oldest) = ring.iter().position(is_neighbour)
    {
        ring.remove(oldest);
    }
    if ring.len() >= RecentRefusals::CAPACITY {
        ring.pop_front();
    }
}

/// Whether it takes no certificate that somebody issued or listed here. Our own is shown to whoever asks, and
/// refusing it costs nothing.
fn is_any_stranger_s(refused: &Refused) -> bool {
    match refused.side {
        Side::Answerer => false,
        Side::Own => true,
        Side::Caller => matches!(
            refused.rejection,
            Rejection::UnknownIssuer
                | Rejection::NoClientCertificate
                | Rejection::Plaintext
                | Rejection::TlsVersion
        ),
    }
}

/// What one host can choose freely of an IPv6 address does not make it another host.
pub(crate) fn network(address: IpAddr) -> IpAddr {
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
        refusals.record(Side::Answerer, &stranger("paris"), from(2), at(0));
        for n in 1..=100 {
            refusals.record(Side::Caller, &stranger("mallory"), from(2), at(n));
        }
        let list = refusals.list();
        assert_eq!(list.len(), 2 + RecentRefusals::STRANGERS_PER_NETWORK);
        assert_eq!(list[0].at, at(100), "the newest are kept");
        assert_eq!(list[3].at, at(97));
        assert!(list.iter().any(|kept| kept.remote == from(1)));
        assert!(list.iter().any(|kept| kept.side == Side::Answerer));
    }

    #[test]
    fn one_ipv6_network_can_not_flush_what_others_did_by_any_reason_that_is_free() {
        let refusals = RecentRefusals::default();
        let now = Timestamp::from_millis(1_000_000);
        refusals.record(Side::Caller, &stranger("berlin"), from(1), now);
        let own = stranger("own");
        for n in 1..=200u16 {
            let host = SocketAddr::from(([0x2001, 0xdb8, 0, 0, n, n, n, n], 40_000));
            refusals.record(Side::Caller, &stranger("eve"), host, now);
            for rejection in [
                Rejection::NoClientCertificate,
                Rejection::Plaintext,
                Rejection::TlsVersion,
            ] {
                refusals.record(Side::Caller, &verdict(rejection), host, now);
            }
            refusals.record(Side::Own, &own, host, now);
        }
        let list = refusals.list();
        assert_eq!(list.len(), 1 + RecentRefusals::STRANGERS_PER_NETWORK);
        assert!(list.iter().any(|kept| kept.remote == from(1)));
    }

    #[test]
    fn the_hosts_of_one_ipv6_network_are_one() {
        let refusals = RecentRefusals::default();
        let now = Timestamp::from_millis(1_000_000);
        let host = |network: u16, n: u16| {
            SocketAddr::from(([0x2001, 0xdb8, 0, network, 0, 0, 0, n], 40_000))
        };
        let plaintext = verdict(Rejection::Plaintext);
        for (network, n) in [(1, 1), (1, 2), (2, 1), (1, 3)] {
            refusals.record(Side::Caller, &plaintext, host(network, n), now);
        }
        let counts: Vec<_> = refusals
            .list()
            .iter()
            .map(|r| (r.remote, r.count))
            .collect();
        assert_eq!(counts, [(host(1, 3), 3), (host(2, 1), 1)]);
    }

    #[test]
    fn a_claim_is_forgotten_by_a_right_one_and_not_by_the_handshake() {
        let refusals = RecentRefusals::default();
        let now = Timestamp::from_millis(1_000_000);
        let claim = Claim {
            remote: from(1),
            fingerprint: Some("AB:CD"),
            cause: "it says that it is lima",
            mend: "emccd config show",
        };
        refusals.record_claim(claim, now);
        refusals.caller_accepted("AB:CD", from(1).ip());
        refusals.record_claim(claim, now);
        let list = refusals.list();
        assert_eq!((list.len(), list[0].count), (1, 2));
        assert_eq!(list[0].rejection, Rejection::WrongCluster);
        refusals.claim_accepted("12:34");
        assert_eq!(refusals.list().len(), 1);
        refusals.claim_accepted("AB:CD");
        assert!(refusals.list().is_empty());
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
    fn nodes_behind_one_address_do_not_bring_back_each_other_s_lines() {
        let refusals = RecentRefusals::default();
        let start = Timestamp::from_millis(1_000_000);
        // More of one address than are kept of it, and one of them gets in now and then.
        let strangers: Vec<_> = (0..=RecentRefusals::STRANGERS_PER_NETWORK)
            .map(|n| stranger(&format!("node-{n}")))
            .collect();
        let own = stranger("own");
        let lines = |round: u64| {
            let now = start.plus(Duration::from_secs(round * 2));
            let mut lines = 0;
            for (side, verdict) in strangers
                .iter()
                .map(|verdict| (Side::Caller, verdict))
                .chain([(Side::Own, &own)])
            {
                if let Novelty::New { .. } = refusals.record(side, verdict, from(1), now) {
                    lines += 1;
                }
            }
            refusals.caller_accepted("AB:CD", from(1).ip());
            lines
        };
        assert_eq!(lines(0), RecentRefusals::LINES_PER_SECOND);
        let all = u32::try_from(strangers.len() + 1).unwrap();
        assert_eq!(lines(1), all - RecentRefusals::LINES_PER_SECOND);
        for round in 2..30 {
            assert_eq!(lines(round), 0, "{round}");
        }
        assert_eq!(
            lines(30),
            RecentRefusals::LINES_PER_SECOND,
            "a minute later"
        );
    }

    #[test]
    fn another_host_of_the_network_that_accepts_us_mends_nothing_for_the_first() {
        let refusals = RecentRefusals::default();
        let now = Timestamp::from_millis(1_000_000);
        let host = |n: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 40_000));
        refusals.record(Side::Own, &stranger("own"), host(1), now);
        refusals.caller_accepted("AB:CD", host(2).ip());
        assert_eq!(refusals.list().len(), 1);
        refusals.caller_accepted("AB:CD", host(1).ip());
        assert!(refusals.list().is_empty());
    }

    #[test]
    fn what_was_logged_is_bounded() {
        let refusals = RecentRefusals::default();
        for n in 0..2 * u16::try_from(RecentRefusals::LOGGED).unwrap() {
            let host = SocketAddr::from(([0x2001, 0xdb8, 0, n, 0, 0, 0, 1], 40_000));
            let now = Timestamp::from_millis(1_000_000);
            refusals.record(Side::Answerer, &verdict(Rejection::Expired), host, now);
        }
        assert_eq!(
            refusals.0.lock().unwrap().logged.len(),
            RecentRefusals::LOGGED
        );
    }

    #[test]
    fn the_oldest_make_room() {
        let refusals = RecentRefusals::default();
        let from = |n: u16| {
            let [high, low] = n.to_be_bytes();
            SocketAddr::from(([192, 0, high, low], 40_000))
        };
        for n in 0..=u16::try_from(RecentRefusals::CAPACITY).unwrap() {
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
