//! The state of one link and the age of its last proof. Pure: events and the time are handed in.
//!
//! ```text
//!               attempt fails                    attempt fails: no version in common
//!  Connecting ───────────────▶ Down ◀───────────────────────────▶ Incompatible
//!      │                      ▲    │                                   │
//!      │            lost, dead│    │attempt succeeds                   │
//!      └──────────────────────┴─▶ Up ◀─────────────────────────────────┘
//! ```
//!
//! `Connecting` is shown only until the first attempt has ended: a peer that is down stays `Down` while we
//! dial it again. A call that finds the link not up waits for an attempt that *began after it*: what was
//! known before may be out of date, a fresh failure is not.

use std::time::{Duration, Instant};

use crate::domain::{
    capability::Traits,
    login::SecurityMode,
    rejection::Rejection,
    version::{Version, VersionRange},
};

pub use crate::domain::federation::LinkState;

/// What kind of failure it was; tells the EM code of a call that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No version in common: code 1.
    Incompatible,
    /// The peer's role said that it has no record of us: code 35.
    Unconfigured,
    /// Somebody said no (connection, TLS, trust, service): code 208.
    Refused,
    /// Nobody said anything: code 40.
    Silent,
}

/// Why an attempt failed or a link was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which kind.
    pub kind: FailureKind,
    /// One sentence or two for an operator, with what mends it.
    pub text: String,
    /// The reason at the door, when trust was the cause.
    pub rejection: Option<Rejection>,
    /// Whether it is what we showed that was refused, and not what we were shown.
    pub by_peer: bool,
}

impl Failure {
    /// A failure whose cause is not trust.
    #[must_use]
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            rejection: None,
            by_peer: false,
        }
    }
}

/// What the peer told when the link came up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The version negotiated for this link.
    pub version: Version,
    /// All that the peer speaks.
    pub versions: VersionRange,
    /// The node that answered.
    pub node: String,
    /// Which start of that node; empty when it does not say.
    pub instance: String,
    /// Its software.
    pub software: String,
    /// The address that led there.
    pub address: String,
    /// Its wall clock minus ours, in milliseconds.
    pub clock_offset_ms: i64,
    /// Security mode of the peer's cluster.
    pub security_mode: SecurityMode,
    /// Its optional features.
    pub capabilities: Vec<String>,
    /// Fingerprint of the certificate that it showed.
    pub certificate: Option<String>,
    /// Fingerprint of the certificate that we showed.
    pub shown: Option<String>,
}

impl Facts {
    /// What tells one node from another: its name and which start of it; the address where it tells neither.
    #[must_use]
    pub fn identity(&self) -> (&str, &str) {
        match (&*self.node, &*self.instance) {
            ("", "") => (&self.address, ""),
            told => told,
        }
    }

    /// What it can, as told.
    #[must_use]
    pub fn traits(&self) -> Traits {
        Traits::told(self.security_mode, &self.capabilities)
    }
}

/// Where a call stands that waits for the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// An attempt that began after the call has failed, or the link is closed for good.
    Failed(&'a Failure),
    /// Send it.
    Up,
    /// No attempt that began after the call has ended yet.
    Waiting,
}

/// One link.
#[derive(Clone, Debug)]
pub struct Link {
    state: LinkState,
    since: Instant,
    last_proof: Option<Instant>,
    facts: Option<Facts>,
    failure: Option<Failure>,
    attempts_begun: u64,
    attempts_failed: u64,
    times_up: u64,
    closed: bool,
}

impl Link {
    /// A link that has never been tried.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            state: LinkState::Connecting,
            since: now,
            last_proof: None,
            facts: None,
            failure: None,
            attempts_begun: 0,
            attempts_failed: 0,
            times_up: 0,
            closed: false,
        }
    }

    /// An attempt begins. It may run beside a live connection, to replace it.
    pub fn attempt_began(&mut self) {
        self.attempts_begun += 1;
    }

    /// The attempt that began last has failed. With it goes the connection that it was to replace.
    pub fn attempt_failed(&mut self, failure: Failure, now: Instant) {
        self.attempts_failed = self.attempts_begun;
        self.lost(failure, now);
    }

    /// An attempt succeeded: the peer has answered `Hello` and accepted `Watch`.
    pub fn came_up(&mut self, facts: Facts, now: Instant) {
        if self.state != LinkState::Up {
            self.since = now;
            self.times_up += 1;
        }
        self.state = LinkState::Up;
        self.last_proof = Some(now);
        self.facts = Some(facts);
        self.failure = None;
    }

    /// A heartbeat arrived; the peer's wall clock minus ours comes with it.
    pub fn proved(&mut self, clock_offset_ms: Option<i64>, now: Instant) {
        if self.state != LinkState::Up {
            return;
        }
        self.last_proof = Some(now);
        if let (Some(facts), Some(offset)) = (&mut self.facts, clock_offset_ms) {
            facts.clock_offset_ms = offset;
        }
    }

    /// The connection ended, or its proof is too old.
    pub fn lost(&mut self, failure: Failure, now: Instant) {
        let state = match failure.kind {
            FailureKind::Incompatible => LinkState::Incompatible,
            FailureKind::Unconfigured | FailureKind::Refused | FailureKind::Silent => {
                LinkState::Down
            }
        };
        if self.state != state {
            self.since = now;
        }
        self.state = state;
        self.failure = Some(failure);
    }

    /// The peer was removed or disabled: nothing will ever bring this link up.
    pub fn close(&mut self, failure: Failure, now: Instant) {
        self.lost(failure, now);
        self.closed = true;
    }

    /// Whether nothing will ever bring it up.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// When the link counts as dead if no proof arrives; none while it isn't up.
    #[must_use]
    pub fn dead_at(&self, dead_after: Duration) -> Option<Instant> {
        match self.state {
            LinkState::Up => self.last_proof.map(|proof| proof + dead_after),
            LinkState::Connecting | LinkState::Down | LinkState::Incompatible => None,
        }
    }

    /// Where a call stands that came when `attempts` had begun.
    #[must_use]
    pub fn standing(&self, attempts: u64) -> Standing<'_> {
        match (&self.failure, self.state) {
            (_, LinkState::Up) => Standing::Up,
            (Some(failure), _) if self.closed || self.attempts_failed > attempts => {
                Standing::Failed(failure)
            }
            _ => Standing::Waiting,
        }
    }

    /// How many attempts have begun: the mark that a call keeps for [`Link::standing`].
    #[must_use]
    pub const fn attempts_begun(&self) -> u64 {
        self.attempts_begun
    }

    /// How often the link has come up.
    #[must_use]
    pub const fn times_up(&self) -> u64 {
        self.times_up
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> LinkState {
        self.state
    }

    /// Since when it has been in this state.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// The age of the last proof; none while the link isn't up.
    #[must_use]
    pub fn proof_age(&self, now: Instant) -> Option<Duration> {
        match self.state {
            LinkState::Up => self.last_proof.map(|p| now.saturating_duration_since(p)),
            LinkState::Connecting | LinkState::Down | LinkState::Incompatible => None,
        }
    }

    /// What the peer told last, also while it is down now.
    #[must_use]
    pub const fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }

    /// Why it isn't up.
    #[must_use]
    pub const fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::ids::ClusterId;

    const DEAD_AFTER: Duration = Duration::from_secs(8);

    fn facts() -> Facts {
        Facts {
            version: Version::V1_1,
            versions: VersionRange::SUPPORTED,
            node: "berlin-1".to_owned(),
            instance: "1".to_owned(),
            software: "emccd test".to_owned(),
            address: "127.0.0.1:8444".to_owned(),
            clock_offset_ms: 0,
            security_mode: SecurityMode::NonSecure,
            capabilities: Vec::new(),
            certificate: None,
            shown: None,
        }
    }

    fn refused() -> Failure {
        Failure::new(FailureKind::Refused, "connection refused")
    }

    #[test]
    fn as_shipped_a_dead_peer_is_seen_within_10_s_and_a_late_heartbeat_kills_nobody() {
        let config = crate::peer::Config::new(ClusterId::new("tokyo").unwrap(), "tokyo-1");
        let start = Instant::now();
        // The peer ends at each moment between two heartbeats, the last of which was late by all it may be.
        for late in [Duration::ZERO, Duration::from_millis(2_900)] {
            let mut link = Link::new(start);
            link.attempt_began();
            link.came_up(facts(), start);
            let mut last = start;
            for _ in 0..3 {
                let proof = last + config.heartbeat + late;
                assert!(proof < link.dead_at(config.dead_after).unwrap());
                link.proved(None, proof);
                last = proof;
            }
            for after_proof in (0..=5_000).step_by(100).map(Duration::from_millis) {
                let ended = last + after_proof;
                let seen = link.dead_at(config.dead_after).unwrap();
                assert!(seen.saturating_duration_since(ended) <= Duration::from_secs(10));
                assert!(seen > ended, "dead before its next heartbeat was due");
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Begin,
        Fail(FailureKind),
        Up,
        Proof,
        Lose,
        Pass(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            Just(Event::Begin),
            prop_oneof![
                Just(FailureKind::Incompatible),
                Just(FailureKind::Refused),
                Just(FailureKind::Silent)
            ]
            .prop_map(Event::Fail),
            Just(Event::Up),
            Just(Event::Proof),
            Just(Event::Lose),
            (0u64..10_000).prop_map(Event::Pass),
        ];
        proptest::collection::vec(event, 0..80)
    }

    proptest! {
        #[test]
        fn what_is_shown_holds_together(events in events()) {
            let start = Instant::now();
            let (mut now, mut link) = (start, Link::new(start));
            for event in events {
                let (before, failed) = (link.clone(), link.attempts_failed);
                match event {
                    Event::Begin => link.attempt_began(),
                    Event::Fail(kind) => link.attempt_failed(Failure::new(kind, "x"), now),
                    Event::Up => link.came_up(facts(), now),
                    Event::Proof => link.proved(Some(5), now),
                    Event::Lose => link.lost(refused(), now),
                    Event::Pass(ms) => now += Duration::from_millis(ms),
                }
                let up = link.state() == LinkState::Up;
                prop_assert_eq!(up, link.proof_age(now).is_some());
                prop_assert_eq!(up, link.dead_at(DEAD_AFTER).is_some());
                prop_assert_eq!(up, link.standing(0) == Standing::Up);
                prop_assert!(!up || link.failure().is_none());
                prop_assert!(up || link.state() == LinkState::Connecting || link.failure().is_some());
                prop_assert!(link.times_up() >= before.times_up());
                prop_assert!(link.attempts_failed >= failed && link.attempts_failed <= link.attempts_begun);
                // Old news never fails a call that has just come.
                let fresh = link.attempts_begun();
                prop_assert!(!matches!(link.standing(fresh), Standing::Failed(_)));
                prop_assert!(link.since() <= now);
            }
        }
    }

    #[test]
    fn a_call_fails_only_on_an_attempt_that_began_after_it() {
        let now = Instant::now();
        let mut link = Link::new(now);
        link.attempt_began();
        let mark = link.attempts_begun();
        link.attempt_failed(refused(), now);
        assert_eq!(link.standing(mark), Standing::Waiting);
        link.attempt_began();
        assert_eq!(link.standing(mark), Standing::Waiting);
        link.attempt_failed(refused(), now);
        assert_eq!(link.standing(mark), Standing::Failed(&refused()));
    }

    #[test]
    fn a_proof_puts_death_off_and_nothing_else_does() {
        let start = Instant::now();
        let mut link = Link::new(start);
        link.came_up(facts(), start);
        assert_eq!(link.dead_at(DEAD_AFTER), Some(start + DEAD_AFTER));
        let later = start + Duration::from_secs(5);
        link.attempt_began();
        assert_eq!(link.dead_at(DEAD_AFTER), Some(start + DEAD_AFTER));
        link.proved(None, later);
        assert_eq!(link.dead_at(DEAD_AFTER), Some(later + DEAD_AFTER));
        assert_eq!(
            link.proof_age(later + Duration::from_secs(1)),
            Some(Duration::from_secs(1))
        );
    }

    #[test]
    fn a_late_heartbeat_does_not_revive_a_lost_link() {
        let now = Instant::now();
        let mut link = Link::new(now);
        link.came_up(facts(), now);
        link.lost(Failure::new(FailureKind::Silent, "no heartbeat"), now);
        link.proved(None, now);
        assert_eq!(link.state(), LinkState::Down);
        assert_eq!(link.proof_age(now), None);
    }

    #[test]
    fn replacing_a_live_connection_is_not_coming_up_again() {
        let now = Instant::now();
        let mut link = Link::new(now);
        link.came_up(facts(), now);
        link.came_up(facts(), now + Duration::from_secs(1));
        assert_eq!((link.times_up(), link.since()), (1, now));
    }

    #[test]
    fn redialling_does_not_hide_that_the_peer_is_down() {
        let now = Instant::now();
        let mut link = Link::new(now);
        link.attempt_began();
        link.attempt_failed(refused(), now);
        link.attempt_began();
        assert_eq!(link.state(), LinkState::Down);
        assert_eq!(link.failure(), Some(&refused()));
    }

    #[test]
    fn a_closed_link_fails_even_a_fresh_call() {
        let now = Instant::now();
        let mut link = Link::new(now);
        link.close(Failure::new(FailureKind::Refused, "removed"), now);
        assert!(matches!(
            link.standing(link.attempts_begun()),
            Standing::Failed(_)
        ));
    }
}
