//! How two clusters come to agree on the sessions that they share. Pure.
//!
//! Each side mends its own rows and no others: it compares what lives on both sides, asks about what lives only here,
//! and [`judge`]s each of those rows by the answer. Both sides do so, each for itself. An answer that is lost, late or
//! told twice does no harm: a row only ever goes forward, and only ended ones are told of.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    domain::{
        ids::SessionId,
        session::{EndReason, Role, State, View},
    },
};

/// Into how many buckets the sessions of a role are sorted, by the last byte of their id.
pub const BUCKETS: usize = 256;

/// The most ids of one message of the wire.
pub const IDS_AT_ONCE: usize = 1_024;

/// How old a row must be when an exchange begins, to be ended since the other side lacks it: what the other side does
/// within the deadline of a login has long been done by then.
pub const OLD_ENOUGH: Duration = Duration::from_secs(30);

/// How long a mass end is held back.
pub const HOLD: Duration = Duration::from_secs(30);

/// A mass end that was held back longer ago than this is another one: in between nothing was asked.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// So many ends in one pass are no mass end, whatever the share.
const FEW: u64 = 50;

/// Nor is one in so many of the shared sessions.
const SHARE: u64 = 5;

/// What lives of one role, summed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Of each bucket, the sum of what its ids are mixed to.
    pub sums: [u64; BUCKETS],
    /// Of each bucket, how many.
    pub counts: [u32; BUCKETS],
}

impl Default for Digest {
    fn default() -> Self {
        Self {
            sums: [0; BUCKETS],
            counts: [0; BUCKETS],
        }
    }
}

impl Digest {
    /// One more.
    pub fn add(&mut self, id: SessionId) {
        let bucket = usize::from(bucket(id));
        if let (Some(sum), Some(count)) = (self.sums.get_mut(bucket), self.counts.get_mut(bucket)) {
            *sum = sum.wrapping_add(mix(id));
            *count = count.saturating_add(1);
        }
    }

    /// The buckets in which the two sides differ.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Buckets {
        let mut buckets = Buckets::default();
        let sums = self.sums.iter().zip(&other.sums);
        let counts = self.counts.iter().zip(&other.counts);
        for (place, ((ours, theirs), (our_count, their_count))) in
            buckets.0.iter_mut().zip(sums.zip(counts))
        {
            *place = ours != theirs || our_count != their_count;
        }
        buckets
    }

    /// How many in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }
}

/// What lives of both roles. The roles are those of the cluster that asks, on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// Sessions of its users on the other side's phones.
    pub home: Digest,
    /// Sessions of the other side's users on its phones.
    pub visiting: Digest,
}

impl Digests {
    /// That of one role.
    #[must_use]
    pub const fn of(&self, role: Role) -> &Digest {
        match role {
            Role::Home => &self.home,
            Role::Visiting => &self.visiting,
        }
    }

    /// The same as the other side speaks of it.
    #[must_use]
    pub fn turned(self) -> Self {
        Self {
            home: self.visiting,
            visiting: self.home,
        }
    }

    /// How many in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.home.total() + self.visiting.total()
    }
}

/// Some of the buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets(Box<[bool; BUCKETS]>);

impl Default for Buckets {
    fn default() -> Self {
        Self(Box::new([false; BUCKETS]))
    }
}

impl Buckets {
    /// Whether the id is in one of them.
    #[must_use]
    pub fn has(&self, id: SessionId) -> bool {
        let is_in = self.0.get(usize::from(bucket(id)));
        is_in.copied().unwrap_or_default()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.0.contains(&true)
    }
}

fn bucket(id: SessionId) -> u8 {
    let [.., last] = *id.as_bytes();
    last
}

/// What an id counts for in its bucket's sum. It is part of the contract between clusters, so it never changes.
fn mix(id: SessionId) -> u64 {
    let half = |bytes: &[u8]| {
        let number = |sum, byte: &u8| (sum << 8) | u64::from(*byte);
        bytes.iter().fold(0u64, number)
    };
    let (high, low) = id.as_bytes().split_at(8);
    scatter(half(high).wrapping_add(scatter(half(low))))
}

const fn scatter(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// How a session stands on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theirs {
    /// It lives, or is being opened.
    Living,
    /// It has ended.
    Ended(EndReason),
    /// There is no record of it.
    Lacks,
}

/// A row of ours that the other side did not name among what lives there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ours {
    /// The part that we play.
    pub role: Role,
    /// Its id.
    pub id: SessionId,
    /// Where it stands here.
    pub state: State,
    /// The time of its newest commit, by our own cluster's clock.
    pub changed_at: Timestamp,
}

/// What becomes of a row of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays as it is.
    Leave,
    /// It ends, as it did on the other side.
    End(EndReason),
    /// It ends: the other side has lost it.
    EndAsLost,
    /// The other side lacks it, and it is too young to end for that.
    TooYoung,
}

/// Decides about a row of ours by the answer of an exchange that began at `began` of our cluster's clock.
///
/// A login under way is never ended so: its carrier learns from home how it went, or it ends at its deadline.
#[must_use]
pub fn judge(ours: &Ours, theirs: Theirs, began: Timestamp) -> Verdict {
    if !matches!(ours.state, State::Active | State::Ending) {
        return Verdict::Leave;
    }
    let living = View {
        state: ours.state,
        reason: None,
    };
    match theirs {
        Theirs::Living => Verdict::Leave,
        Theirs::Ended(reason) => {
            let ended = View {
                state: State::Ended,
                reason: Some(reason),
            };
            let merged = match ours.role {
                Role::Home => View::merge(living, ended),
                Role::Visiting => View::merge(ended, living),
            };
            if merged.state > ours.state {
                Verdict::End(merged.reason.unwrap_or(EndReason::Abandoned))
            } else {
                Verdict::Leave
            }
        }
        Theirs::Lacks if began.since(ours.changed_at) >= OLD_ENOUGH => Verdict::EndAsLost,
        Theirs::Lacks => Verdict::TooYoung,
    }
}

/// Whether the ends of one pass may take place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// They do.
    Proceed,
    /// They are held back, and the pass is repeated.
    Hold {
        /// Until then.
        until: Timestamp,
    },
}

/// Holds a mass end back once: what one pass would end of more than a fifth of the `shared` sessions, and more than 50,
/// is ended only by a pass [`HOLD`] after the first that would have. All times are of our cluster's clock.
#[must_use]
pub fn guard(ends: u64, shared: u64, held_since: Option<Timestamp>, now: Timestamp) -> Pass {
    if ends <= FEW || ends <= shared / SHARE {
        return Pass::Proceed;
    }
    let until = still_held(held_since, now).unwrap_or(now).plus(HOLD);
    if now >= until {
        Pass::Proceed
    } else {
        Pass::Hold { until }
    }
}

/// Since when a mass end is held back at `now`, by what is on record; none where that is forgotten. A pass would have
/// taken it off the record, but there may be none for long: the link is down, or the peer is disabled.
#[must_use]
pub fn still_held(held_since: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    held_since.filter(|since| *since <= now && now.since(*since) < FORGOTTEN)
}

/// Until when two sides are known to have agreed that were last found to agree at `agreed_at`, given when the `oldest` began
/// of what they share now. Where nothing is shared there is nothing to compare, and to disagree about.
#[must_use]
pub fn agreed_until(agreed_at: Option<Timestamp>, oldest: Option<Timestamp>) -> Option<Timestamp> {
    agreed_at.map(|agreed| oldest.map_or(agreed, |began| began.max(agreed)))
}

#[cfg(test)]
mod tests;
