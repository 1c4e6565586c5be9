//! Which rotations need a person, and why. Pure.

use std::{collections::BTreeMap, time::Duration};

use crate::domain::rotation::{Outcome, Phase, Rotation, Told, Word};

/// Why a person is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The node can't go on.
    Problem,
    /// An authority has to make the next certificate.
    Authority,
    /// The next certificate is due, and this exchange is in its way.
    Next,
    /// A peer has to be given the certificate by hand.
    Manual,
    /// A peer's operator has to agree.
    Waiting,
    /// A peer does not take it.
    Refused,
    /// A peer was not waited for, and has not caught up.
    Overridden,
    /// A peer has not answered for long.
    Silent,
}

impl Reason {
    /// The word in figures.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Authority => "authority",
            Self::Next => "next",
            Self::Manual => "manual",
            Self::Waiting => "waiting",
            Self::Refused => "refused",
            Self::Overridden => "overridden",
            Self::Silent => "silent",
        }
    }
}

/// For how long nobody is called because a peer is silent: it may be starting anew.
pub const PATIENCE: Duration = Duration::from_secs(3_600);

/// What holds up a rotation that has been in its phase for so long and that a person has to see to: how many peers for each
/// reason, and one for a problem of the node's own.
#[must_use]
pub fn of(
    rotation: &Rotation,
    peers: &[Told],
    has_problem: bool,
    lasts: Duration,
) -> BTreeMap<Reason, u64> {
    let mut all = BTreeMap::new();
    if has_problem {
        all.insert(Reason::Problem, 1);
    }
    if rotation.phase == Phase::Requested {
        return all;
    }
    let behind = peers.iter().filter(|p| !p.progress.accepts(rotation));
    for Told { progress, .. } in behind {
        let is_current = progress.sequence == rotation.sequence;
        let reason = match progress.outcome {
            Outcome::Waiting if is_current => Reason::Waiting,
            Outcome::Refused if is_current => Reason::Refused,
            // At the end it is told by hand to forget the old one, and nothing waits for that.
            Outcome::Manual if rotation.phase > Phase::Active => continue,
            Outcome::Manual => Reason::Manual,
            _ if progress.word == Some(Word::Overridden) => Reason::Overridden,
            _ if lasts >= PATIENCE => Reason::Silent,
            _ => continue,
        };
        *all.entry(reason).or_default() += 1;
    }
    all
}
