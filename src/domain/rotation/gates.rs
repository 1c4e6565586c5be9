//! What an operator may do with a rotation now, and by whom it is held up. Pure.

use std::{collections::BTreeSet, fmt};

use crate::domain::{
    ids::ClusterId,
    purpose::Purpose,
    rotation::{Name, Outcome, Phase, Progress, Rotation, Told, Word},
};

/// The peers that an operator names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// They have the new certificate by other ways.
    pub confirmed: BTreeSet<ClusterId>,
    /// They are not waited for.
    pub overridden: BTreeSet<ClusterId>,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// It is not at that point.
    Phase {
        /// Where it is.
        now: Phase,
        /// Where it has to be.
        needs: &'static str,
    },
    /// A peer does not accept the new certificate yet.
    Peer {
        /// Which.
        cluster: ClusterId,
        /// What is known of it.
        why: Why,
        /// What it has said, for an operator.
        detail: String,
    },
    /// There is no such enabled peer.
    Unknown(ClusterId),
    /// It can be told, and is: nobody's word stands for its own.
    NotManual(ClusterId),
    /// The node does not show the new one yet.
    NotShown,
    /// The node has not said which connections rest on the old one.
    Unreported,
    /// A connection rests on the old one.
    InUse(String),
    /// The node's files are not as the last rotation leaves them.
    Unsettled,
    /// The old certificate's validity is over.
    OldEnded,
}

/// What is known of a peer that holds up a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has not answered.
    Silent,
    /// Its operator has to agree.
    Waiting,
    /// It does not take it.
    Refused,
    /// It has no `trust-announce`, and its operator has not been asked.
    Manual,
    /// It was not waited for, and has not caught up.
    Overridden,
    /// No connection of ours to it has stood on the new certificate.
    UnseenOut,
    /// No connection of it to us has.
    UnseenIn,
}

impl Why {
    /// The word in tables and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Waiting => "waiting",
            Self::Refused => "refused",
            Self::Manual => "manual",
            Self::Overridden => "overridden",
            Self::UnseenOut => "unseen-out",
            Self::UnseenIn => "unseen-in",
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Phase { now, needs } => write!(f, "it is {now}, and this needs {needs}"),
            Self::Peer {
                cluster,
                why,
                detail,
            } => {
                let what = match why {
                    Why::Silent => "has not answered",
                    Why::Waiting => "keeps it until its operator agrees",
                    Why::Refused => "does not take it",
                    Why::Manual => {
                        "can't be told: it has no trust-announce, and its operator has to add the certificate by hand"
                    }
                    Why::Overridden => "was not waited for, and has not caught up yet",
                    Why::UnseenOut => {
                        "has not been seen to accept a connection of ours that shows it"
                    }
                    Why::UnseenIn => "has not been seen to connect to us since we show it",
                };
                write!(f, "{cluster} {what}")?;
                if detail.is_empty() {
                    Ok(())
                } else {
                    write!(f, ": {detail}")
                }
            }
            Self::Unknown(cluster) => write!(f, "there is no enabled peer {cluster}"),
            Self::NotManual(cluster) => write!(
                f,
                "{cluster} has trust-announce and answers for itself, or was never reached to say that it has not"
            ),
            Self::NotShown => f.write_str("the node does not show the new certificate yet"),
            Self::Unreported => {
                f.write_str("the node has not said yet which connections rest on the old one")
            }
            Self::InUse(link) => write!(f, "in use: {link}"),
            Self::Unsettled => f.write_str("the node has still to finish the last rotation"),
            Self::OldEnded => {
                f.write_str("the certificate from before has expired: nobody would accept it")
            }
        }
    }
}

/// Whether a new rotation may begin beside what is on record; empty when it may.
#[must_use]
pub fn may_announce(now: Option<&Rotation>) -> Vec<Blocker> {
    match now {
        None => Vec::new(),
        Some(last) => match last.phase {
            Phase::Retired | Phase::RollingBack if last.settled => Vec::new(),
            Phase::Retired | Phase::RollingBack => vec![Blocker::Unsettled],
            now => vec![Blocker::Phase {
                now,
                needs: "one that is finished",
            }],
        },
    }
}

/// Whether the new certificate may be shown; empty when it may.
#[must_use]
pub fn may_activate(rotation: &Rotation, peers: &[Told], named: &Named) -> Vec<Blocker> {
    if rotation.phase != Phase::Announced {
        return vec![Blocker::Phase {
            now: rotation.phase,
            needs: "announced",
        }];
    }
    let mut blockers = unknown(peers, named);
    for Told { cluster, progress } in peers {
        let said_so = named.confirmed.contains(cluster);
        if said_so && progress.outcome != Outcome::Manual && !progress.accepts(rotation) {
            blockers.push(Blocker::NotManual(cluster.clone()));
            continue;
        }
        let passes = progress.accepts(rotation) || said_so || named.overridden.contains(cluster);
        if !passes {
            blockers.push(held_up(cluster, progress));
        }
    }
    blockers
}

/// What the operator's word makes of each peer's progress once it is activated.
pub fn keep_words(rotation: &Rotation, peers: &mut [Told], named: &Named) {
    for Told { cluster, progress } in peers {
        if progress.accepts(rotation) {
            continue;
        }
        if named.confirmed.contains(cluster) {
            progress.word = Some(Word::Confirmed);
        } else if named.overridden.contains(cluster) {
            progress.word = Some(Word::Overridden);
        }
    }
}

/// Whether an operator's word that peers have the certificate by other ways counts now; empty when it does.
#[must_use]
pub fn may_confirm(rotation: &Rotation, peers: &[Told], named: &Named) -> Vec<Blocker> {
    if !matches!(rotation.phase, Phase::Announced | Phase::Active) {
        return vec![Blocker::Phase {
            now: rotation.phase,
            needs: "announced or active",
        }];
    }
    let mut blockers = unknown(peers, named);
    for Told { cluster, progress } in peers {
        if named.confirmed.contains(cluster) && progress.outcome != Outcome::Manual {
            blockers.push(Blocker::NotManual(cluster.clone()));
        }
    }
    blockers
}

/// Whether the old certificate may go; empty when it may.
#[must_use]
pub fn may_retire(name: &Name, rotation: &Rotation, peers: &[Told]) -> Vec<Blocker> {
    if rotation.phase != Phase::Active {
        return vec![Blocker::Phase {
            now: rotation.phase,
            needs: "active",
        }];
    }
    let mut blockers = Vec::new();
    for Told { cluster, progress } in peers {
        let unseen = unseen(name, cluster, progress);
        if progress.newcomer && unseen.is_empty() {
            // It has never had another one, and its connections stand on this.
        } else if !progress.accepts(rotation) {
            blockers.push(held_up(cluster, progress));
        } else if progress.outcome == Outcome::Manual {
            blockers.extend(unseen);
        }
    }
    if rotation.shown != rotation.new {
        blockers.push(Blocker::NotShown);
    } else {
        match &rotation.in_use {
            None => blockers.push(Blocker::Unreported),
            Some(links) => blockers.extend(links.iter().cloned().map(Blocker::InUse)),
        }
    }
    blockers
}

/// The peers that hold up the old certificate's end.
#[must_use]
pub fn behind(name: &Name, rotation: &Rotation, peers: &[Told]) -> BTreeSet<ClusterId> {
    let blockers = may_retire(name, rotation, peers).into_iter();
    let of_peers = blockers.filter_map(|blocker| match blocker {
        Blocker::Peer { cluster, .. } => Some(cluster),
        _ => None,
    });
    of_peers.collect()
}

/// Whether the old certificate may go without these peers; empty when it may. It is asked at the old one's end, or at the
/// last moment before the new one's, and then what rests on the old one does not count: those connections need no key any
/// more, and without a successor all would end.
#[must_use]
pub fn may_retire_without(
    name: &Name,
    rotation: &Rotation,
    peers: &[Told],
    without: &BTreeSet<ClusterId>,
) -> Vec<Blocker> {
    let mut blockers = may_retire(name, rotation, peers);
    blockers.retain(|blocker| match blocker {
        Blocker::Peer { cluster, .. } => !without.contains(cluster),
        Blocker::InUse(_) => false,
        _ => true,
    });
    blockers
}

/// Whether it can be taken back; empty when it can. `old_ended` is whether the old certificate's validity is over. Who
/// became a peer while the new one was shown has to have the old one first.
#[must_use]
pub fn may_roll_back(rotation: &Rotation, peers: &[Told], old_ended: bool) -> Vec<Blocker> {
    match rotation.phase {
        Phase::Announced | Phase::Active if old_ended => vec![Blocker::OldEnded],
        Phase::Active => {
            let strangers = peers.iter().filter(|told| told.progress.newcomer);
            let strangers = strangers.filter(|told| !told.progress.accepts(rotation));
            strangers
                .map(|told| held_up(&told.cluster, &told.progress))
                .collect()
        }
        Phase::Requested | Phase::Announced => Vec::new(),
        now => vec![Blocker::Phase {
            now,
            needs: "requested, announced or active",
        }],
    }
}

/// Whether nothing is left to be done. Who can't be told is not waited for, and neither is who was never told anything.
#[must_use]
pub fn is_finished(rotation: &Rotation, peers: &[Told]) -> bool {
    let is_done =
        |progress: &Progress| progress.outcome == Outcome::Manual || progress.accepts(rotation);
    matches!(rotation.phase, Phase::Retired | Phase::RollingBack)
        && rotation.settled
        && peers.iter().all(|p| is_done(&p.progress))
}

fn unknown(peers: &[Told], named: &Named) -> Vec<Blocker> {
    let all = named.confirmed.union(&named.overridden);
    let unknown = all.filter(|named| peers.iter().all(|p| p.cluster != **named));
    unknown.cloned().map(Blocker::Unknown).collect()
}

fn held_up(cluster: &ClusterId, progress: &Progress) -> Blocker {
    let why = match progress.outcome {
        Outcome::Waiting => Why::Waiting,
        Outcome::Refused => Why::Refused,
        Outcome::Manual => Why::Manual,
        Outcome::Silent | Outcome::Loaded => match progress.word {
            Some(Word::Overridden) => Why::Overridden,
            _ => Why::Silent,
        },
    };
    Blocker::Peer {
        cluster: cluster.clone(),
        why,
        detail: progress.detail.clone(),
    }
}

/// Which proof is missing that a peer without a voice accepts the new one. Where calls to peers show another identity,
/// the node takes the proof outward as given.
fn unseen(name: &Name, cluster: &ClusterId, progress: &Progress) -> Vec<Blocker> {
    let (out, inward) = match name.purpose {
        Purpose::Federation => (progress.seen_out, progress.seen_in),
        Purpose::FederationClient => (progress.seen_out, true),
        Purpose::Phone => (true, true),
    };
    let missing = [(out, Why::UnseenOut), (inward, Why::UnseenIn)];
    let missing = missing.into_iter().filter(|(seen, _)| !seen);
    let blocker = |(_, why)| Blocker::Peer {
        cluster: cluster.clone(),
        why,
        detail: String::new(),
    };
    missing.map(blocker).collect()
}
