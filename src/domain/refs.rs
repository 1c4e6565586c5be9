//! Which refs a cluster gives out, so that none is given out twice.
//!
//! A ref has 40 bits. Those whose top bit is 0 come from a count that all nodes of a cluster share, put through a
//! keyed bijection: they never repeat before 2^39 of them are used up, and look like chance, so that nobody takes
//! neighbours for related. Those whose top bit is 1 are chance itself: for calls that belong to no attempt of a
//! user, and for the moments in which the count can't be had.

use crate::domain::ids::Ref;

/// How many counted refs there are.
pub const COUNTED: u64 = 1 << (BITS - 1);

const BITS: u32 = 40;
const HALF: u32 = BITS / 2;
const HALF_MASK: u64 = (1 << HALF) - 1;
const ROUNDS: u64 = 4;

/// The bijection of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scramble {
    key: u64,
}

impl Scramble {
    /// Takes the cluster's key. It is no secret: it only keeps the refs of two clusters apart.
    #[must_use]
    pub const fn new(key: u64) -> Self {
        Self { key }
    }

    /// The ref of a number; numbers start anew behind [`COUNTED`].
    #[must_use]
    pub fn counted(self, number: u64) -> Ref {
        let mut bits = number % COUNTED;
        // A Feistel network permutes all 40 bits. Going on from each result above the range until one lies in it
        // permutes the range; half of the results do, so this ends soon, and it must come back to its start.
        loop {
            bits = self.permuted(bits);
            if bits < COUNTED {
                return Ref::from_bits(bits);
            }
        }
    }

    fn permuted(self, bits: u64) -> u64 {
        let (mut left, mut right) = ((bits >> HALF) & HALF_MASK, bits & HALF_MASK);
        for round in 0..ROUNDS {
            let mixed = mix(self.key ^ (round << 56) ^ right) & HALF_MASK;
            (left, right) = (right, left ^ mixed);
        }
        (left << HALF) | right
    }
}

/// A ref by chance, apart from all counted ones.
#[must_use]
pub const fn by_chance(random: u64) -> Ref {
    Ref::from_bits((random % COUNTED) | COUNTED)
}

/// Spreads every bit of the input over the output (the finaliser of `SplitMix64`).
const fn mix(input: u64) -> u64 {
    let mut z = input.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn many_in_a_row_are_all_different_and_far_apart() {
        let scramble = Scramble::new(7);
        let refs: Vec<Ref> = (0..100_000).map(|n| scramble.counted(n)).collect();
        let different: BTreeSet<&Ref> = refs.iter().collect();
        assert_eq!(different.len(), refs.len());
        let alike = refs
            .windows(2)
            .filter(|pair| pair[0].compact()[..4] == pair[1].compact()[..4])
            .count();
        // By chance one pair in 2^20 begins alike.
        assert!(alike < 10, "{alike} neighbours begin alike");
    }

    proptest! {
        #[test]
        fn two_numbers_never_share_a_ref(key: u64, a in 0..COUNTED, b in 0..COUNTED) {
            let scramble = Scramble::new(key);
            prop_assert_eq!(scramble.counted(a) == scramble.counted(b), a == b);
        }

        #[test]
        fn counted_refs_and_those_by_chance_never_meet(key: u64, number: u64, random: u64) {
            let (counted, chance) = (Scramble::new(key).counted(number), by_chance(random));
            prop_assert!(counted < chance, "{} {}", counted, chance);
        }
    }
}
