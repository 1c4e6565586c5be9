//! The exchange of one identity's certificate for another, while every peer trusts what it is shown at every moment.
//! Pure.
//!
//! A [`Rotation`] is what is on record of one identity while it is not steady. What peers are to have is told as a
//! whole ([`Rotation::certificates`]) under a sequence, and what each of them has said to it is a [`Progress`]: state on
//! both sides, so that it is all the same how often it is told, and in which order it arrives. [`gates`] say what an
//! operator may do, [`steps`] what the node does next, [`schedule`] when it begins by itself.

pub mod alarms;
pub mod gates;
pub mod schedule;
pub mod steps;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::domain::{ids::ClusterId, purpose::Purpose};

/// SHA-256 of a certificate.
pub type Fingerprint = [u8; 32];

/// It is none of the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is none of {0}")]
pub struct UnknownWord(&'static str);

/// Which identity: of which node, and for what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The node.
    pub node: String,
    /// What it is shown for.
    pub purpose: Purpose,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.purpose)
    }
}

/// How far a rotation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Somebody wants it; the node has still to make the key.
    Requested,
    /// The old one is shown, and peers are told of both.
    Announced,
    /// The new one is shown, and peers still have both.
    Active,
    /// The new one is shown, and peers are told that it is the only one.
    Retired,
    /// The old one is shown, and peers are told that it is the only one.
    RollingBack,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [
        Self::Requested,
        Self::Announced,
        Self::Active,
        Self::Retired,
        Self::RollingBack,
    ];

    /// The word in the store, in tables and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Announced => "announced",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::RollingBack => "rolling-back",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Phase {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let found = Self::ALL.into_iter().find(|p| p.as_str() == text);
        found.ok_or(UnknownWord(
            "requested, announced, active, retired, rolling-back",
        ))
    }
}

/// One identity that is not steady.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// How far it has come.
    pub phase: Phase,
    /// The certificate from before; none until the node has made the new one, unless peers have still to be told that
    /// it is the only one.
    pub old: Option<Fingerprint>,
    /// The one that is to be shown; none until it is made.
    pub new: Option<Fingerprint>,
    /// Under which number peers are told; 0 until they are.
    pub sequence: u64,
    /// Whether it goes on by itself when a gate opens.
    pub automatic: bool,
    /// Whether the node's own files are as they are to be at the end.
    pub settled: bool,
    /// What the node has said that it shows.
    pub shown: Option<Fingerprint>,
    /// The connections that rest on the certificate that is to go, as the node has said; none while it has not since
    /// the phase began.
    pub in_use: Option<Vec<String>>,
}

impl Rotation {
    /// One that somebody wants, in place of the last one, if peers have still to be told how that ended.
    #[must_use]
    pub fn requested(automatic: bool, last: Option<&Self>) -> Self {
        Self {
            phase: Phase::Requested,
            old: last.and_then(Self::shows),
            new: None,
            sequence: last.map_or(0, |last| last.sequence),
            automatic,
            settled: false,
            shown: None,
            in_use: None,
        }
    }

    /// What the node is to show; none for what is in its files.
    #[must_use]
    pub const fn shows(&self) -> Option<Fingerprint> {
        match self.phase {
            Phase::Requested => None,
            Phase::Announced | Phase::RollingBack => self.old,
            Phase::Active | Phase::Retired => self.new,
        }
    }

    /// The one that is not to be shown any more.
    #[must_use]
    pub const fn leaves(&self) -> Option<Fingerprint> {
        match self.phase {
            Phase::Requested | Phase::Announced => None,
            Phase::RollingBack => self.new,
            Phase::Active | Phase::Retired => self.old,
        }
    }

    /// The certificates that peers are to have of the identity.
    #[must_use]
    pub fn certificates(&self) -> Vec<Fingerprint> {
        let both = match self.phase {
            Phase::Requested => [None, None],
            Phase::Announced | Phase::Active => [self.old, self.new],
            Phase::Retired => [None, self.new],
            Phase::RollingBack => [self.old, None],
        };
        both.into_iter().flatten().collect()
    }

    /// Whether peers are told now. After a step back they are told only when nothing rests on the new one any more.
    #[must_use]
    pub const fn tells(&self) -> bool {
        match self.phase {
            Phase::Requested => false,
            Phase::Announced | Phase::Active | Phase::Retired => true,
            Phase::RollingBack => self.settled,
        }
    }

    /// The node has made the new one.
    pub fn made(&mut self, old: Fingerprint, new: Fingerprint, sequence: u64) {
        self.phase = Phase::Announced;
        (self.old, self.new) = (Some(old), Some(new));
        self.sequence = sequence;
        (self.shown, self.settled) = (Some(old), false);
        self.in_use = None;
    }

    /// The new one is to be shown. [`gates::may_activate`] comes first.
    pub fn activate(&mut self) {
        self.enter(Phase::Active);
    }

    /// The old one goes. [`gates::may_retire`] comes first.
    pub fn retire(&mut self, sequence: u64) {
        self.enter(Phase::Retired);
        self.sequence = sequence;
    }

    /// The old one is to be shown again, and the new one goes. False when nobody has been told of anything, so that
    /// nothing is left to be done.
    pub fn roll_back(&mut self, sequence: u64) -> bool {
        if self.old.is_none() {
            return false;
        }
        self.enter(Phase::RollingBack);
        self.sequence = sequence;
        true
    }

    /// The certificate from before has ended while it was the one that is shown. The new one is shown in its place, and the
    /// old one is not dropped: a clock may be wrong. False where that does not help.
    pub fn ended(&mut self) -> bool {
        let helps = self.is_held_by_the_old();
        if helps {
            self.enter(Phase::Active);
        }
        helps
    }

    /// Whether the old one is shown while the new one can still be.
    #[must_use]
    pub const fn is_held_by_the_old(&self) -> bool {
        match self.phase {
            Phase::Announced => true,
            // Peers have both until it is settled.
            Phase::RollingBack => !self.settled,
            Phase::Requested | Phase::Active | Phase::Retired => false,
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        (self.settled, self.in_use) = (false, None);
    }
}

/// What a peer has said to what it was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Nothing.
    #[default]
    Silent,
    /// All of its nodes have it.
    Loaded,
    /// Its operator has to agree.
    Waiting,
    /// It does not take it.
    Refused,
    /// It can't be told: it has no `trust-announce`.
    Manual,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Silent,
        Self::Loaded,
        Self::Waiting,
        Self::Refused,
        Self::Manual,
    ];

    /// The word in the store, in tables and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Loaded => "loaded",
            Self::Waiting => "waiting",
            Self::Refused => "refused",
            Self::Manual => "manual",
        }
    }
}

impl FromStr for Outcome {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let found = Self::ALL.into_iter().find(|o| o.as_str() == text);
        found.ok_or(UnknownWord("silent, loaded, waiting, refused, manual"))
    }
}

/// What our operator has said of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// Its operator has the new certificate by other ways.
    Confirmed,
    /// It is not waited for.
    Overridden,
}

impl Word {
    /// The word in the store, in tables and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Overridden => "overridden",
        }
    }
}

impl FromStr for Word {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "confirmed" => Ok(Self::Confirmed),
            "overridden" => Ok(Self::Overridden),
            _ => Err(UnknownWord("confirmed, overridden")),
        }
    }
}

/// How far one peer has come with one identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// To which sequence it has said something.
    pub sequence: u64,
    /// What.
    pub outcome: Outcome,
    /// Why, for an operator.
    pub detail: String,
    /// What our operator has said.
    pub word: Option<Word>,
    /// A connection of ours to it has stood on the new certificate.
    pub seen_out: bool,
    /// A connection of it to us has.
    pub seen_in: bool,
    /// It became a peer while the new certificate was shown already: that one is what it was given, and of the old one it
    /// may never have heard.
    pub newcomer: bool,
}

impl Progress {
    /// Whether it accepts all that it is to have.
    #[must_use]
    pub fn accepts(&self, rotation: &Rotation) -> bool {
        match self.outcome {
            Outcome::Loaded => self.sequence == rotation.sequence,
            Outcome::Manual => self.word == Some(Word::Confirmed),
            Outcome::Silent | Outcome::Waiting | Outcome::Refused => false,
        }
    }

    /// Whether its answer is the last word on what it was told.
    #[must_use]
    pub fn has_answered(&self, rotation: &Rotation) -> bool {
        self.sequence == rotation.sequence && self.outcome == Outcome::Loaded
    }

    /// Whether it is to be called with the new one, once that is shown.
    #[must_use]
    pub fn is_called_with_new(&self, rotation: &Rotation) -> bool {
        self.newcomer || self.accepts(rotation)
    }

    /// It has answered.
    pub fn answered(&mut self, sequence: u64, outcome: Outcome, detail: impl Into<String>) {
        (self.sequence, self.outcome, self.detail) = (sequence, outcome, detail.into());
        if outcome == Outcome::Loaded {
            // It has caught up: from here on it is one as all others.
            self.word = None;
        }
    }

    /// What our links say of it. What they say when none is up is nothing.
    pub fn note(&mut self, link: &steps::Linked) {
        self.seen_out |= link.seen_out;
        self.seen_in |= link.seen_in;
        match (link.can_be_told, self.outcome) {
            (Some(false), _) => {
                self.outcome = Outcome::Manual;
                self.detail.clear();
            }
            // It has learned to: from here on it answers for itself.
            (Some(true), Outcome::Manual) => self.outcome = Outcome::Silent,
            (Some(true) | None, _) => {}
        }
    }
}

/// An enabled peer, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which.
    pub cluster: ClusterId,
    /// How far.
    pub progress: Progress,
}

/// The peers that are dialled with the certificate from before: those that knew it and have not said that they accept the
/// new one. `turned` are those that refuse what they are to be shown by that: each gets the other one. Nobody is dialled with
/// one whose validity is over (`old_ended`): it is refused by everybody, and the new one perhaps not.
#[must_use]
pub fn still_old(
    rotation: &Rotation,
    peers: &[Told],
    turned: &BTreeSet<ClusterId>,
    old_ended: bool,
) -> Vec<ClusterId> {
    if rotation.phase != Phase::Active || old_ended {
        return Vec::new();
    }
    let is_old =
        |told: &&Told| told.progress.is_called_with_new(rotation) == turned.contains(&told.cluster);
    let old = peers.iter().filter(is_old);
    old.map(|told| told.cluster.clone()).collect()
}
