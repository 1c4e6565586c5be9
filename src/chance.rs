//! Chance as a value.
//!
//! Whatever a node decides by lot (ids, jitter, which of two ways to take) it draws from its own [`Chance`]. The
//! daemon's is the machine's; a seeded one gives the same lots in the same order each time, so that what a test found
//! can be had again.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use uuid::Uuid;

use crate::clock::Timestamp;

/// Draws lots. Cheap to clone; clones of a seeded one draw from the same row of lots.
#[derive(Clone, Default)]
pub struct Chance {
    /// None draws from the machine.
    seeded: Option<Arc<Seeded>>,
}

struct Seeded {
    seed: u64,
    state: Mutex<u64>,
}

impl Chance {
    /// The machine's own.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Lots that follow from `seed` alone. Anybody can foresee them.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            seeded: Some(Arc::new(Seeded {
                seed,
                state: Mutex::new(seed),
            })),
        }
    }

    /// One that draws apart from this one and from those of other labels: how much is drawn from one says nothing of
    /// the others. Two with one label draw the same lots.
    #[must_use]
    pub fn fork(&self, label: &str) -> Self {
        match &self.seeded {
            None => Self::system(),
            Some(seeded) => {
                Self::seeded(label.bytes().fold(mix(seeded.seed ^ FORKED), |seed, byte| {
                    mix(seed ^ u64::from(byte))
                }))
            }
        }
    }

    /// Any number of 64 bits.
    #[must_use]
    pub fn u64(&self) -> u64 {
        let Some(seeded) = &self.seeded else {
            return rand::random();
        };
        let mut state = seeded.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(GOLDEN);
        mix(*state)
    }

    /// Any number of 32 bits.
    #[must_use]
    pub fn u32(&self) -> u32 {
        // The upper half: of good lots all bits are alike.
        u32::try_from(self.u64() >> 32).unwrap_or_default()
    }

    /// Any number of 16 bits.
    #[must_use]
    pub fn u16(&self) -> u16 {
        u16::try_from(self.u64() >> 48).unwrap_or_default()
    }

    /// At least 0 and less than 1.
    #[must_use]
    pub fn unit(&self) -> f64 {
        f64::from(self.u32()) / (f64::from(u32::MAX) + 1.0)
    }

    /// Any bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        if self.seeded.is_none() {
            return rand::random();
        }
        let mut all = [0; N];
        for part in all.chunks_mut(8) {
            let lot = self.u64().to_le_bytes();
            for (place, byte) in part.iter_mut().zip(lot) {
                *place = byte;
            }
        }
        all
    }

    /// A number out of `range`; its start when it is empty.
    #[must_use]
    pub fn range(&self, range: Range<u64>) -> u64 {
        match range.end.checked_sub(range.start) {
            // What the remainder prefers is no more than one in 2^32 for the ranges that are asked for.
            Some(length) if length > 0 => range.start + self.u64() % length,
            _ => range.start,
        }
    }

    /// Whether one of `of` lots is drawn; never when `of` is 0.
    #[must_use]
    pub fn one_in(&self, of: u64) -> bool {
        of > 0 && self.range(0..of) == 0
    }

    /// An id whose order is that of the moments it is made at (a UUID of version 7).
    #[must_use]
    pub fn id(&self, at: Timestamp) -> Uuid {
        let millis = u64::try_from(at.as_millis()).unwrap_or_default();
        uuid::Builder::from_unix_timestamp_millis(millis, &self.bytes()).into_uuid()
    }
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.seeded {
            None => f.write_str("Chance(system)"),
            Some(seeded) => write!(f, "Chance({})", seeded.seed),
        }
    }
}

/// Spreads every bit of the input over the output (the finaliser of `SplitMix64`).
const fn mix(input: u64) -> u64 {
    let z = (input ^ (input >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

// The step of SplitMix64.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

// Keeps what is forked off with an empty label apart from the row that it is forked from.
const FORKED: u64 = 0x5851_F42D_4C95_7F2D;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_lots_each_time_and_another_seed_others() {
        let draw = |seed| {
            let chance = Chance::seeded(seed);
            (chance.u64(), chance.u32(), chance.bytes::<11>())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn the_lots_of_a_seed_stay_what_they_are() {
        // SplitMix64's own first numbers: what was found with a seed must be found again with a later build.
        let chance = Chance::seeded(1_234_567);
        let first = [chance.u64(), chance.u64(), chance.u64()];
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn a_fork_depends_on_its_label_and_not_on_what_was_drawn_before() {
        let (a, b) = (Chance::seeded(1), Chance::seeded(1));
        let _ = a.u64();
        assert_eq!(a.fork("net").u64(), b.fork("net").u64());
        let all: BTreeSet<_> = ["", "net", "net ", "store"]
            .iter()
            .map(|label| a.fork(label).u64())
            .chain([Chance::seeded(1).u64(), Chance::seeded(2).fork("net").u64()])
            .collect();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn clones_draw_from_one_row() {
        let a = Chance::seeded(1);
        let b = a.clone();
        assert_ne!(a.u64(), b.u64());
    }

    #[test]
    fn a_number_stays_in_its_range() {
        for chance in [Chance::system(), Chance::seeded(3)] {
            assert!((0..1_000).all(|_| (5..9).contains(&chance.range(5..9))));
            assert!((0..1_000).all(|_| (0.0..1.0).contains(&chance.unit())));
            assert_eq!(chance.range(5..5), 5);
            assert!(!chance.one_in(0));
            assert!(chance.one_in(1));
        }
    }

    #[test]
    fn ids_stand_in_the_order_of_their_moments() {
        let chance = Chance::seeded(9);
        let ids: Vec<_> = (0..50)
            .map(|n| chance.id(Timestamp::from_millis(1_700_000_000_000 + n)))
            .collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
        assert_ne!(ids[0].as_bytes()[15], ids[1].as_bytes()[15]);
    }
}
