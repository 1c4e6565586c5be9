//! What a node does next about one of its identities, by what is on record and what it finds on itself. Pure.
//!
//! Each step is safe to repeat, and is worked out anew from the state after it: a node that was stopped at any point goes
//! on where it was.

use std::collections::BTreeSet;

use crate::domain::{
    ids::ClusterId,
    rotation::{
        Fingerprint, Outcome, Phase, Rotation, Told,
        gates::{self, Named},
        still_old,
    },
};

/// What a node finds on itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// The old certificate and its key are there.
    pub has_old: bool,
    /// The new ones are.
    pub has_new: bool,
    /// What is shown.
    pub shown: Option<Fingerprint>,
    /// Whom the old one is shown.
    pub shown_old: Vec<ClusterId>,
    /// The connections that rest on the certificate that is to go.
    pub in_use: Vec<String>,
    /// The old certificate's validity is over.
    pub old_ended: bool,
    /// The peers that have refused what the record has them shown: they are shown the other one.
    pub turned: BTreeSet<ClusterId>,
    /// What is configured and can be shown, where nothing of the rotation can be ([`Rotation::gives_way`]).
    pub replaced_by: Option<Fingerprint>,
}

/// What the links of a node to a peer say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// Which.
    pub cluster: ClusterId,
    /// Whether it can be told, as far as is known; none while no link is up.
    pub can_be_told: Option<bool>,
    /// A connection of ours to it stands on the new certificate.
    pub seen_out: bool,
    /// A connection of it to us does.
    pub seen_in: bool,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the new certificate.
    Make,
    /// A certificate or its key is gone from the node: what is left is told to be the only one.
    Lost(Lost),
    /// The old certificate is shown and has ended: the new one is shown in its place.
    Ended,
    /// Nothing of the rotation can be shown, and this one, which is configured, can: the rotation ends.
    GiveUp(Fingerprint),
    /// Show this one, and the old one to those.
    Show {
        /// To everybody.
        certificate: Fingerprint,
        /// Instead, to these peers.
        old_for: Vec<ClusterId>,
    },
    /// Put on record what is shown and what rests on the one that is to go.
    Report,
    /// Tell this peer.
    Tell(ClusterId),
    /// Note what the links to this peer say.
    Note(Linked),
    /// Make what is shown the configured one, and remove the other.
    Settle,
    /// The gate is open, and it goes on by itself: show the new one.
    Activate,
    /// The same: have the old one go.
    Retire,
    /// Nothing is left to be done.
    Finish,
}

/// What is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The one from before: the new one is shown, since nothing else can be.
    Old,
    /// The new one: the one from before is shown.
    New,
    /// All that is on record: what is configured is shown, and the record is of something else.
    Both,
}

/// What is to be done now.
#[must_use]
pub fn next(rotation: &Rotation, peers: &[Told], linked: &[Linked], local: &Local) -> Vec<Step> {
    if rotation.phase == Phase::Requested {
        return vec![Step::Make];
    }
    if let Some(configured) = local.replaced_by {
        return vec![Step::GiveUp(configured)];
    }
    if let Some(lost) = lost(rotation, local) {
        return vec![Step::Lost(lost)];
    }
    if local.old_ended && local.has_new && rotation.is_held_by_the_old() {
        return vec![Step::Ended];
    }
    let mut steps = Vec::new();
    let old_for = still_old(rotation, peers, &local.turned, local.old_ended);
    if let Some(certificate) = rotation.shows()
        && (local.shown != Some(certificate) || local.shown_old != old_for)
    {
        // Everything else rests on this.
        return vec![Step::Show {
            certificate,
            old_for,
        }];
    }
    if rotation.shown != local.shown
        || rotation.leaves().is_some() && rotation.in_use.as_ref() != Some(&local.in_use)
    {
        steps.push(Step::Report);
    }
    if !rotation.settled && settles(rotation, local) {
        steps.push(Step::Settle);
        return steps;
    }
    for Told { cluster, progress } in peers {
        let Some(link) = linked.iter().find(|l| l.cluster == *cluster) else {
            continue;
        };
        let is_manual = progress.outcome == Outcome::Manual;
        let turned = link.can_be_told.is_some_and(|can| can == is_manual);
        let seen = link.seen_out && !progress.seen_out || link.seen_in && !progress.seen_in;
        if turned || seen {
            steps.push(Step::Note(link.clone()));
        }
        // Who refuses what it has said to have, has lost it.
        let is_done = progress.has_answered(rotation) && !local.turned.contains(cluster);
        if link.can_be_told == Some(true) && rotation.tells() && !is_done {
            steps.push(Step::Tell(cluster.clone()));
        }
    }
    if gates::is_finished(rotation, peers) {
        steps.push(Step::Finish);
    }
    if rotation.automatic {
        match rotation.phase {
            Phase::Announced
                if gates::may_activate(rotation, peers, &Named::default()).is_empty() =>
            {
                steps.push(Step::Activate);
            }
            Phase::Active if rotation.in_use.as_ref().is_some_and(Vec::is_empty) => {
                steps.push(Step::Retire);
            }
            _ => {}
        }
    }
    steps
}

/// Whether the files may be made as they are to be at the end.
fn settles(rotation: &Rotation, local: &Local) -> bool {
    match rotation.phase {
        Phase::Requested | Phase::Announced | Phase::Active => false,
        Phase::Retired => true,
        // Who still has a connection that rests on the new one must not be told that it is gone.
        Phase::RollingBack => local.in_use.is_empty(),
    }
}

fn lost(rotation: &Rotation, local: &Local) -> Option<Lost> {
    let (needs_old, needs_new) = match rotation.phase {
        Phase::Requested => (false, false),
        Phase::Announced | Phase::Active => (true, true),
        Phase::Retired => (false, true),
        Phase::RollingBack => (true, false),
    };
    // While it is shown it is not lost to peers, who may have nothing else yet: what is in memory lasts until the node ends.
    // On the way back all have both, and what is gone can't be made the only one.
    let shows_old = rotation.phase != Phase::RollingBack
        && (local.shown == rotation.old || !local.shown_old.is_empty());
    let no_old = needs_old && !local.has_old && !shows_old;
    let no_new = needs_new && !local.has_new;
    let goes_back = rotation.phase == Phase::RollingBack && !rotation.settled;
    if local.old_ended && !local.has_new && (no_new || goes_back) {
        // Nobody takes the one that would be gone back to.
        return Some(Lost::Both);
    }
    match (no_old, no_new) {
        (false, false) => None,
        (true, false) if local.has_new => Some(Lost::Old),
        (false, true) if local.has_old => Some(Lost::New),
        _ => Some(Lost::Both),
    }
}

impl Rotation {
    /// A certificate of it is gone from the node. False when nothing of it is left to go on with.
    pub fn lost(&mut self, lost: Lost, sequence: u64) -> bool {
        match lost {
            Lost::Old => {
                self.retire(sequence);
                true
            }
            Lost::New => self.roll_back(sequence),
            Lost::Both => false,
        }
    }

    /// Whether it gives way to what is configured: none of its certificates that peers may still take can be shown (`fits`),
    /// and what an operator has put in the configured files can (`configured`) and is another one.
    pub fn gives_way(
        &self,
        fits: impl Fn(Fingerprint) -> bool,
        configured: impl FnOnce() -> Option<Fingerprint>,
    ) -> Option<Fingerprint> {
        let meant = self.shows()?;
        let is_over = match self.phase {
            Phase::Requested => false,
            // Peers were told that there is no other one.
            Phase::Retired => true,
            Phase::RollingBack => self.settled,
            Phase::Announced | Phase::Active => false,
        };
        let both = [self.old, self.new];
        let mut others = both.into_iter().flatten().filter(|of| *of != meant);
        if fits(meant) || !is_over && others.any(fits) {
            return None;
        }
        configured().filter(|configured| !both.contains(&Some(*configured)))
    }
}
