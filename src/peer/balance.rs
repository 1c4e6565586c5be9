//! Which node of a peer a call goes to, and when another one is asked beside it. Pure: time and chance are handed in.
//!
//! A call goes to one of the best nodes: one that was not asked yet before one that was, one that answers before one
//! that owes an answer for too long, one that stays before one that is leaving. Among equals two are drawn and the one
//! with fewer calls under way gets it: nearly as even as the least loaded of all, and nodes that start together don't
//! all run to the same one.

use std::time::Duration;

/// The share of the time left after which a silent node is not waited for alone.
const SHARE: u32 = 3;
/// And the longest: a person waits.
const LONGEST: Duration = Duration::from_secs(2);
/// And the shortest: what is nearly late is not sent everywhere at once.
const SHORTEST: Duration = Duration::from_millis(20);

/// How long a call waits for the node that it asked last before it asks another one as well, when `left` is left until
/// its deadline: a third of that, so that the second one and a third one have as much, between 20 ms and 2 s.
#[must_use]
pub fn hedge_after(left: Duration) -> Duration {
    (left / SHARE).clamp(SHORTEST, LONGEST)
}

/// A connection that a call may go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The node behind it: its name, and which start of it.
    pub node: (&'a str, &'a str),
    /// Whether this call was sent to that node before, over another connection.
    pub asked: bool,
    /// Whether a call waits for its answer for longer than [`hedge_after`], and no sign of life came since.
    pub suspect: bool,
    /// Whether it has said that it shuts down.
    pub draining: bool,
    /// How many calls are under way on it.
    pub in_flight: usize,
}

impl Candidate<'_> {
    /// Lower is better.
    const fn rank(&self) -> (bool, bool, bool) {
        (self.asked, self.suspect, self.draining)
    }
}

/// The place of the one to use; none when there is none. `chance` is any number.
///
/// Several addresses that lead to one node count once: they would give it a double share.
#[must_use]
pub fn choose(candidates: &[Candidate<'_>], chance: u32) -> Option<usize> {
    let best = candidates.iter().map(Candidate::rank).min()?;
    let mut nodes: Vec<(usize, &Candidate<'_>)> = Vec::with_capacity(candidates.len());
    for (place, candidate) in candidates.iter().enumerate() {
        let is_new = nodes.iter().all(|(_, other)| other.node != candidate.node);
        if candidate.rank() == best && is_new {
            nodes.push((place, candidate));
        }
    }
    let count = u32::try_from(nodes.len()).ok()?;
    let first = chance.checked_rem(count)?;
    // One of the others, by what the first draw left over.
    let second = match count {
        1 => first,
        _ => (first + 1 + (chance / count) % (count - 1)) % count,
    };
    let at = |n: u32| nodes.get(usize::try_from(n).ok()?);
    let (one, other) = (at(first)?, at(second)?);
    let chosen = if other.1.in_flight < one.1.in_flight {
        other
    } else {
        one
    };
    Some(chosen.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const fn node(name: &str) -> Candidate<'_> {
        Candidate {
            node: (name, "1"),
            asked: false,
            suspect: false,
            draining: false,
            in_flight: 0,
        }
    }

    #[test]
    fn a_silent_node_costs_a_third_of_the_time_and_at_most_two_seconds() {
        let ms = Duration::from_millis;
        for (left, after) in [
            (ms(1_500), ms(500)),
            (ms(5_000), ms(1_666)),
            (ms(25_000), ms(2_000)),
            (ms(9), ms(20)),
            (ms(0), ms(20)),
        ] {
            assert_eq!(hedge_after(left).as_millis(), after.as_millis(), "{left:?}");
        }
    }

    #[test]
    fn the_better_one_is_used_whatever_the_load_and_the_draw() {
        let good = Candidate {
            in_flight: 99,
            ..node("good")
        };
        let worse = [
            Candidate {
                draining: true,
                ..node("a")
            },
            Candidate {
                suspect: true,
                ..node("b")
            },
            Candidate {
                asked: true,
                ..node("c")
            },
        ];
        for chance in 0..50 {
            for one in worse {
                assert_eq!(choose(&[one, good], chance), Some(1), "{one:?}");
            }
            // What leaves is better than what hangs, and both are better than what failed this call.
            assert_eq!(choose(&worse, chance), Some(0));
        }
        assert_eq!(choose(&[], 7), None);
    }

    #[test]
    fn two_addresses_of_one_node_are_one() {
        let all = [node("a"), node("a"), node("b")];
        let mut counts = [0; 3];
        for chance in 0..1_000 {
            counts[choose(&all, chance).unwrap()] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!(counts[0].min(counts[2]) >= 400, "{counts:?}");
        // A node that was started again is another one until the old connection has ended.
        let again = Candidate {
            node: ("a", "2"),
            ..node("a")
        };
        let used: BTreeSet<_> = (0..20)
            .filter_map(|c| choose(&[node("a"), again], c))
            .collect();
        assert_eq!(used.len(), 2);
    }

    proptest! {
        #[test]
        fn of_two_that_are_drawn_the_less_loaded_gets_it_and_everybody_gets_some(
            loads in proptest::collection::vec(0usize..50, 2..8),
            chance in any::<u32>(),
        ) {
            let names: Vec<String> = (0..loads.len()).map(|n| format!("n{n}")).collect();
            let all: Vec<_> = names
                .iter()
                .zip(&loads)
                .map(|(name, load)| Candidate { in_flight: *load, ..node(name) })
                .collect();
            let chosen = choose(&all, chance).unwrap();
            // The most loaded one is drawn together with a less loaded one each time.
            let most = loads.iter().max().unwrap();
            let only_most = loads.iter().filter(|load| *load == most).count() == 1;
            prop_assert!(!only_most || loads[chosen] < *most);
            // Where all are equal each is used.
            let even: Vec<_> = all.iter().map(|c| Candidate { in_flight: 1, ..*c }).collect();
            let used: BTreeSet<_> = (0..64).filter_map(|c| choose(&even, c)).collect();
            prop_assert_eq!(used.len(), even.len());
        }
    }
}
