//! When a certificate is exchanged by itself, and what becomes of peers that stay silent until it ends. Pure.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    clock::Timestamp,
    domain::{
        ids::ClusterId,
        rotation::{Fingerprint, Name, Phase, Rotation, Told, gates},
    },
};

/// What the cluster goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How long before its end a certificate is exchanged; zero for never.
    pub renew_before: Duration,
    /// By how much that is later at most, by the certificate, so that nodes do not all do it at once.
    pub jitter: Duration,
    /// How long before its end it is exchanged without the peers that have not answered.
    pub override_before: Duration,
}

/// What the schedule asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// A new certificate is to be made and announced.
    Announce,
    /// It would be time, but an authority has to make the new one, and a person to fetch it.
    AskAuthority,
    /// The end is near: the new one is to be shown although these peers have not said that they have it.
    ActivateWithout(BTreeSet<ClusterId>),
    /// The next one is due, and this exchange is in its way: the one from before goes if nothing needs it, and else people
    /// have to see to it.
    Retire,
    /// The one from before has ended, or the new one is about to: it goes, although these peers have not caught up.
    RetireWithout(BTreeSet<ClusterId>),
}

/// What is shown now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The certificate.
    pub fingerprint: Fingerprint,
    /// When its validity begins.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// When the one from before ends, where one is being exchanged.
    pub old_ends: Option<Timestamp>,
    /// Whether the node can make its successor.
    pub is_self_signed: bool,
}

/// What the schedule asks for now.
#[must_use]
pub fn due(
    schedule: &Schedule,
    now: Timestamp,
    name: &Name,
    shown: &Shown,
    rotation: Option<&Rotation>,
    peers: &[Told],
) -> Due {
    // Phones can't be told of the next one, so no gate would hold it back.
    if schedule.renew_before.is_zero() || !name.purpose.is_of_peers() {
        return Due::Nothing;
    }
    let last_call = shown.not_after.minus(schedule.override_before);
    match rotation {
        Some(rotation) if rotation.phase == Phase::Announced => {
            let behind = peers.iter().filter(|p| !p.progress.accepts(rotation));
            let behind = behind.map(|p| p.cluster.clone()).collect();
            if now < last_call {
                Due::Nothing
            } else {
                Due::ActivateWithout(behind)
            }
        }
        Some(rotation) if rotation.phase == Phase::Active => {
            let has_ended = shown.old_ends.is_some_and(|ends| ends < now);
            let begins_at = begins_at(schedule, shown);
            // Until the new one is shown its successor is nobody's business.
            let is_shown = rotation.new == Some(shown.fingerprint);
            // A valid one that peers work over is theirs for as long as the wait harms nobody else.
            if is_shown && (has_ended || now >= last_call.max(begins_at)) {
                Due::RetireWithout(gates::behind(name, rotation, peers))
            } else if is_shown && now >= begins_at {
                Due::Retire
            } else {
                Due::Nothing
            }
        }
        Some(rotation) if rotation.phase == Phase::Requested => Due::Nothing,
        Some(_) | None if now < begins_at(schedule, shown) => Due::Nothing,
        Some(_) | None if shown.is_self_signed => Due::Announce,
        Some(_) | None => Due::AskAuthority,
    }
}

/// Whether it is time for a person to go to an authority, also while the last exchange is still in the way of the next.
#[must_use]
pub fn asks_authority(due: &Due, shown: &Shown) -> bool {
    match due {
        Due::AskAuthority => true,
        Due::Retire => !shown.is_self_signed,
        Due::Nothing | Due::Announce | Due::ActivateWithout(_) | Due::RetireWithout(_) => false,
    }
}

/// When the exchange begins. The delay is the certificate's own, so that it is the same after a restart; it is never longer
/// than half of what is left, and the first half of a certificate's life is left alone: one that lives for a shorter time
/// than it is exchanged ahead would be exchanged without end.
#[must_use]
pub fn begins_at(schedule: &Schedule, shown: &Shown) -> Timestamp {
    let [a, b, ..] = shown.fingerprint;
    let share = u32::from(u16::from_be_bytes([a, b]));
    let most = schedule.jitter.min(schedule.renew_before / 2);
    let delay = most * share / u32::from(u16::MAX);
    let life = shown.not_after.since(shown.not_before);
    let begin = shown.not_after.minus(schedule.renew_before).plus(delay);
    begin.max(shown.not_before.plus(life / 2))
}
