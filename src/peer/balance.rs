//! Which node of a peer a call goes to, and when another one is asked beside it. Pure: time and chance are handed in.
//!
//! A call goes to one of the best nodes: one that was not asked yet before one that was, one that answers before one
//! that owes an answer for too long or has just failed a call, one that stays before one that is leaving. Among equals two are drawn and the one
//! with fewer calls under way gets it: nearly as even as the least loaded of all, and nodes that start together don't
//! all run to the same one.

use std::time::{Duration, Instant};

use crate::domain::em_code::EmCode;

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

/// How long a node comes after the others once it has failed a call, or owes an answer for too long: it fails faster
/// than the others work, and would else have the fewest calls under way.
const PENALTY: Duration = Duration::from_secs(1);
/// How long it is told that calls have failed at a node.
const TOLD: Duration = Duration::from_secs(60);

/// How a node has met our calls over one link.
#[derive(Clone, Debug, Default)]
pub struct Conduct {
    /// It did not answer a probe, and has given no sign of life since.
    silent: bool,
    /// The last sign of life.
    lived: Option<Instant>,
    /// Since when calls are overdue; none once one is answered.
    overdue: Option<Instant>,
    /// Until then it comes after the others.
    penalty: Option<Instant>,
    /// The last answers, the newest in the lowest bit: set where it failed.
    recent: u64,
    /// How many of those bits are answers.
    seen: u32,
    /// What it failed a call with last.
    failed: Option<(EmCode, Instant)>,
}

/// Calls that a node failed by an error of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// What it answered the last of them with.
    pub code: EmCode,
    /// How many there were,
    pub calls: u32,
    /// of its last so many answers.
    pub of: u32,
}

impl Conduct {
    /// A heartbeat or an answer arrived.
    pub const fn lives(&mut self, now: Instant) {
        self.silent = false;
        self.lived = Some(now);
    }

    /// It answered a call, and not with an error of its own.
    pub const fn answered(&mut self, now: Instant) {
        self.lives(now);
        (self.overdue, self.penalty) = (None, None);
        self.count(0);
    }

    /// It answered a call with an error of its own.
    pub fn failed(&mut self, code: EmCode, now: Instant) {
        self.lives(now);
        self.overdue = None;
        self.penalty = Some(now + PENALTY);
        self.failed = Some((code, now));
        self.count(1);
    }

    /// A call waits for an answer for longer than [`hedge_after`].
    pub fn overdue(&mut self, now: Instant) {
        self.overdue.get_or_insert(now);
        self.penalty = Some(now + PENALTY);
    }

    /// It did not answer a probe. True when that is news.
    pub const fn silent(&mut self) -> bool {
        !std::mem::replace(&mut self.silent, true)
    }

    const fn count(&mut self, failed: u64) {
        self.recent = (self.recent << 1) | failed;
        if self.seen < u64::BITS {
            self.seen += 1;
        }
    }

    /// Whether there was a sign of life within `age`.
    #[must_use]
    pub fn lived_within(&self, age: Duration, now: Instant) -> bool {
        let since = self.lived.map(|at| now.saturating_duration_since(at));
        since.is_some_and(|since| since < age)
    }

    /// Whether others are asked first.
    #[must_use]
    pub fn is_suspect(&self, now: Instant) -> bool {
        self.silent || self.penalty.is_some_and(|until| now < until)
    }

    /// For how long calls have been waiting for an answer longer than they should.
    #[must_use]
    pub fn overdue_for(&self, now: Instant) -> Option<Duration> {
        self.overdue
            .map(|since| now.saturating_duration_since(since))
    }

    /// The calls that it has failed of late; none once the last of them is a minute ago.
    #[must_use]
    pub fn failing(&self, now: Instant) -> Option<Failing> {
        let (code, at) = self.failed?;
        let calls = self.recent.count_ones();
        let is_told = calls > 0 && now.saturating_duration_since(at) < TOLD;
        is_told.then_some(Failing {
            code,
            calls,
            of: self.seen,
        })
    }
}

/// How many calls are sent to a second node only because the first one is slow: one in ten, and ten in a row. Where
/// all are slow because there is too much to do, more than that would be more to do.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    tenths: u32,
}

impl Budget {
    const COST: u32 = 10;
    const MOST: u32 = 10 * Self::COST;

    /// A call has begun.
    pub fn earn(&mut self) {
        self.tenths = Self::MOST.min(self.tenths + 1);
    }

    /// Whether one more may be sent twice; it counts as sent.
    pub const fn spend(&mut self) -> bool {
        let left = self.tenths.checked_sub(Self::COST);
        if let Some(left) = left {
            self.tenths = left;
        }
        left.is_some()
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { tenths: Self::MOST }
    }
}

/// A connection that a call may go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The node behind it: its name, and which start of it.
    pub node: (&'a str, &'a str),
    /// Whether this call was sent to that node before, over another connection.
    pub asked: bool,
    /// Whether the others are asked first: [`Conduct::is_suspect`].
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
/// Several addresses that lead to one node count once: they would give it a double share. What is suspect at one of
/// them is at all.
#[must_use]
pub fn choose(candidates: &[Candidate<'_>], chance: u32) -> Option<usize> {
    let whole = |one: &Candidate<'_>| {
        let of_node = candidates.iter().filter(|other| other.node == one.node);
        let (asked, suspect, draining) = one.rank();
        (
            asked,
            suspect || of_node.into_iter().any(|c| c.suspect),
            draining,
        )
    };
    let best = candidates.iter().map(whole).min()?;
    let mut nodes: Vec<(usize, &Candidate<'_>)> = Vec::with_capacity(candidates.len());
    for (place, candidate) in candidates.iter().enumerate() {
        let is_new = nodes.iter().all(|(_, other)| other.node != candidate.node);
        if whole(candidate) == best && is_new {
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

    #[test]
    fn who_hangs_at_one_address_hangs_at_all() {
        let hangs = Candidate {
            suspect: true,
            ..node("a")
        };
        for chance in 0..20 {
            assert_eq!(choose(&[hangs, node("a"), node("b")], chance), Some(2));
        }
    }

    #[test]
    fn who_fails_a_call_comes_after_the_others_for_a_second_and_is_told_for_a_minute() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut conduct = Conduct::default();
        conduct.answered(at(0));
        assert!(!conduct.is_suspect(at(0)) && conduct.failing(at(0)).is_none());
        conduct.failed(EmCode::Busy, at(1));
        conduct.failed(EmCode::DatabaseError, at(2));
        assert!(conduct.is_suspect(at(1_001)) && !conduct.is_suspect(at(1_002)));
        let told = Failing {
            code: EmCode::DatabaseError,
            calls: 2,
            of: 3,
        };
        assert_eq!(conduct.failing(at(60_001)), Some(told));
        assert_eq!(conduct.failing(at(60_002)), None);
        // An answer lifts the penalty at once; it is told all the same, until 64 answers are good.
        conduct.answered(at(3));
        assert!(!conduct.is_suspect(at(4)));
        assert_eq!(
            conduct.failing(at(4)).map(|f| (f.calls, f.of)),
            Some((2, 4))
        );
        for _ in 0..64 {
            conduct.answered(at(5));
        }
        assert_eq!(conduct.failing(at(6)), None);
    }

    #[test]
    fn who_is_silent_is_avoided_until_a_sign_of_life_and_who_is_slow_for_a_second() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut conduct = Conduct::default();
        assert!(conduct.silent() && !conduct.silent(), "it is news once");
        assert!(conduct.is_suspect(at(3_600_000)));
        conduct.lives(at(10));
        assert!(!conduct.is_suspect(at(10)));
        assert!(conduct.lived_within(Duration::from_millis(5), at(14)));
        assert!(!conduct.lived_within(Duration::from_millis(5), at(15)));

        conduct.overdue(at(100));
        conduct.overdue(at(200));
        assert!(conduct.is_suspect(at(1_199)) && !conduct.is_suspect(at(1_200)));
        // A heartbeat is no answer.
        conduct.lives(at(300));
        assert_eq!(
            conduct.overdue_for(at(350)),
            Some(Duration::from_millis(250))
        );
        conduct.answered(at(400));
        assert_eq!(conduct.overdue_for(at(450)), None);
        assert!(!conduct.is_suspect(at(450)));
    }

    #[test]
    fn one_call_in_ten_is_sent_twice_for_slowness() {
        let mut budget = Budget::default();
        let mut sent = 0;
        for _ in 0..1_000 {
            budget.earn();
            sent += u32::from(budget.spend());
        }
        assert!((100..=110).contains(&sent), "{sent}");
        // What was not used is not saved up.
        (0..1_000).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
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
