//! Two stores, reduced to what counts, and exchanges between them that are lost, repeated or late.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use super::*;

fn id(n: u16) -> SessionId {
    let mut bytes = [7u8; 16];
    let [high, low] = n.to_be_bytes();
    (bytes[0], bytes[15]) = (high, low);
    SessionId::from_bytes(&bytes).unwrap()
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(0).plus(Duration::from_secs(seconds))
}

fn ours(role: Role, state: State, changed: u64) -> Ours {
    Ours {
        role,
        id: id(1),
        state,
        changed_at: at(changed),
    }
}

#[test]
fn the_same_sessions_in_any_order_have_one_digest_and_others_another() {
    let sum = |ids: &[u16]| {
        let mut digest = Digest::default();
        ids.iter().for_each(|n| digest.add(id(*n)));
        digest
    };
    assert_eq!(sum(&[1, 2, 258]), sum(&[258, 1, 2]));
    assert_eq!(sum(&[1, 2, 258]).total(), 3);
    let differing = sum(&[1, 2, 258]).differing(&sum(&[1, 2, 514]));
    assert!(
        differing.has(id(258)) && differing.has(id(2)),
        "they share bucket 2"
    );
    assert!(!differing.has(id(1)));
    assert!(sum(&[1, 2]).differing(&sum(&[2, 1])).is_empty());
    // Two of the same in one bucket are not none.
    assert!(!sum(&[1, 1]).differing(&sum(&[])).is_empty());
}

#[test]
fn what_an_id_counts_for_is_what_the_contract_says() {
    let id = SessionId::from_bytes(&(0..16).collect::<Vec<u8>>()).unwrap();
    let f = |mut x: u64| {
        x ^= x >> 30;
        x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x ^= x >> 27;
        x = x.wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    };
    let (high, low) = (0x0001_0203_0405_0607u64, 0x0809_0A0B_0C0D_0E0Fu64);
    let mut digest = Digest::default();
    digest.add(id);
    assert_eq!(digest.sums[15], f(high.wrapping_add(f(low))));
    assert_eq!(digest.counts[15], 1);
}

#[test]
fn a_row_is_judged_by_what_the_other_side_knows() {
    use Verdict::{End, EndAsLost, Leave, TooYoung};
    let began = at(100);
    for role in [Role::Home, Role::Visiting] {
        for state in [State::Active, State::Ending] {
            let told = Theirs::Ended(EndReason::User);
            assert_eq!(
                judge(&ours(role, state, 99), told, began),
                End(EndReason::User)
            );
            assert_eq!(judge(&ours(role, state, 0), Theirs::Living, began), Leave);
            assert_eq!(
                judge(&ours(role, state, 70), Theirs::Lacks, began),
                EndAsLost
            );
            assert_eq!(
                judge(&ours(role, state, 71), Theirs::Lacks, began),
                TooYoung
            );
            // A row of after the exchange began is young, however the clock was set.
            assert_eq!(
                judge(&ours(role, state, 101), Theirs::Lacks, began),
                TooYoung
            );
        }
        for state in [State::Pending, State::Ended] {
            for theirs in [
                Theirs::Living,
                Theirs::Lacks,
                Theirs::Ended(EndReason::User),
            ] {
                assert_eq!(judge(&ours(role, state, 0), theirs, began), Leave);
            }
        }
    }
}

#[test]
fn only_a_mass_end_is_held_back_and_only_once() {
    let hold = |until| Pass::Hold { until: at(until) };
    assert_eq!(guard(50, 50, None, at(0)), Pass::Proceed);
    assert_eq!(guard(51, 255, None, at(0)), Pass::Proceed, "a fifth");
    assert_eq!(guard(51, 254, None, at(0)), hold(30));
    assert_eq!(guard(12_001, 60_000, None, at(7)), hold(37));
    assert_eq!(guard(12_001, 60_000, Some(at(7)), at(36)), hold(37));
    assert_eq!(guard(12_001, 60_000, Some(at(7)), at(37)), Pass::Proceed);
    // One of long ago was another one, and one of the future is of another clock.
    assert_eq!(guard(60, 60, Some(at(7)), at(607)), hold(637));
    assert_eq!(guard(60, 60, Some(at(700)), at(607)), hold(637));
    assert_eq!(guard(u64::MAX, u64::MAX, None, at(0)), hold(30));
}

#[test]
fn what_is_shown_as_held_back_is_what_a_pass_would_go_by() {
    assert_eq!(still_held(None, at(7)), None);
    assert_eq!(still_held(Some(at(7)), at(7)), Some(at(7)));
    assert_eq!(still_held(Some(at(7)), at(606)), Some(at(7)));
    assert_eq!(still_held(Some(at(7)), at(607)), None);
    assert_eq!(still_held(Some(at(8)), at(7)), None);
}

#[test]
fn who_shared_nothing_since_could_not_disagree() {
    assert_eq!(agreed_until(None, None), None);
    assert_eq!(agreed_until(None, Some(at(5))), None, "never compared");
    assert_eq!(agreed_until(Some(at(7)), None), Some(at(7)));
    assert_eq!(agreed_until(Some(at(7)), Some(at(5))), Some(at(7)));
    assert_eq!(agreed_until(Some(at(7)), Some(at(900))), Some(at(900)));
}

proptest! {
    #[test]
    fn a_mass_end_takes_place_in_the_end(
        pauses in vec(1u64..300, 1..40), ends in 51u64..500, start in 0u64..1_000_000,
    ) {
        let (mut now, mut held) = (start, None);
        for pause in pauses {
            match guard(ends, ends, held, at(now)) {
                Pass::Proceed => {
                    let since = held.expect("the first is held");
                    prop_assert!(at(now).since(since) >= HOLD);
                    held = None;
                }
                Pass::Hold { until } => {
                    prop_assert!(until > at(now) && until <= at(now).plus(HOLD));
                    // Whoever repeats at the latest when told to is let through.
                    prop_assert_eq!(guard(ends, ends, Some(until.minus(HOLD)), until), Pass::Proceed);
                    held = Some(until.minus(HOLD));
                }
            }
            now += pause;
        }
    }
}

/// A row of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    state: State,
    reason: Option<EndReason>,
    changed_at: Timestamp,
    owed: bool,
}

/// One side's rows of the sessions in which it plays `role`.
#[derive(Clone, Debug)]
struct Side {
    role: Role,
    rows: BTreeMap<u16, Row>,
}

impl Side {
    fn living(&self) -> BTreeSet<u16> {
        let living = self
            .rows
            .iter()
            .filter(|(_, row)| row.state != State::Ended);
        living.map(|(n, _)| *n).collect()
    }

    fn standing(&self, n: u16) -> Theirs {
        match self.rows.get(&n) {
            None => Theirs::Lacks,
            Some(Row {
                state: State::Ended,
                reason,
                ..
            }) => Theirs::Ended(reason.unwrap_or(EndReason::Abandoned)),
            Some(_) => Theirs::Living,
        }
    }

    fn end(&mut self, n: u16, reason: EndReason, owed: bool, now: Timestamp) -> bool {
        let row = self
            .rows
            .get_mut(&n)
            .filter(|row| row.state != State::Ended);
        if let Some(row) = row {
            *row = Row {
                state: State::Ended,
                reason: Some(reason),
                changed_at: now,
                owed,
            };
            return true;
        }
        false
    }

    /// What the other side answers to an exchange that begins now.
    fn ask(&self, other: &Self, now: Timestamp) -> Heard {
        let (here, there) = (self.living(), other.living());
        let missing = here.difference(&there);
        let told = missing.map(|n| (*n, other.standing(*n))).collect();
        Heard { began: now, told }
    }

    /// Mends by an answer, of now or of before; which ids the other side may forget its debts for.
    fn mend(&mut self, heard: &Heard, now: Timestamp) -> Vec<u16> {
        let mut settled = Vec::new();
        for (n, theirs) in &heard.told {
            let Some(row) = self.rows.get(n) else {
                continue;
            };
            let (state, changed_at) = (row.state, row.changed_at);
            let ours = Ours {
                role: self.role,
                id: id(*n),
                state,
                changed_at,
            };
            match judge(&ours, *theirs, heard.began) {
                Verdict::End(reason) => {
                    if self.end(*n, reason, false, now) {
                        settled.push(*n);
                    }
                }
                Verdict::EndAsLost => {
                    assert!(heard.began.since(changed_at) >= OLD_ENOUGH, "young");
                    assert!(state != State::Pending, "pending");
                    self.end(*n, EndReason::Abandoned, false, now);
                }
                Verdict::Leave | Verdict::TooYoung => {}
            }
        }
        settled
    }

    fn settle(&mut self, ids: &[u16]) {
        for n in ids {
            if let Some(row) = self.rows.get_mut(n) {
                row.owed = false;
            }
        }
    }
}

/// An answer, which may be acted on late or twice.
#[derive(Clone, Debug)]
struct Heard {
    began: Timestamp,
    told: Vec<(u16, Theirs)>,
}

#[derive(Clone, Debug)]
enum Event {
    /// A login: home commits, and visiting turns its pending row active, or gives up first.
    Open {
        n: u16,
        gives_up: bool,
        answered: bool,
    },
    /// Visiting hears home's answer.
    Answered(u16),
    /// One side ends its row and owes the news.
    End {
        n: u16,
        at_home: bool,
        reason: EndReason,
    },
    /// The debt of one side is delivered.
    Deliver {
        n: u16,
        by_home: bool,
    },
    /// A store loses a row.
    Lose {
        n: u16,
        at_home: bool,
    },
    /// One side asks; the answer is acted on at once, or kept.
    Ask {
        by_home: bool,
        keep: bool,
    },
    /// A kept answer is acted on, once more or for the first time; its word of what is settled may be lost.
    Late {
        by_home: bool,
        lost: bool,
    },
    Wait(u64),
}

fn any_event() -> impl Strategy<Value = Event> {
    let n = 0u16..12;
    let reasons = [EndReason::User, EndReason::Operator, EndReason::Expired];
    let reason = proptest::sample::select(reasons.to_vec());
    prop_oneof![
        4 => (n.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(n, gives_up, answered)| Event::Open { n, gives_up, answered }),
        2 => n.clone().prop_map(Event::Answered),
        3 => (n.clone(), any::<bool>(), reason)
            .prop_map(|(n, at_home, reason)| Event::End { n, at_home, reason }),
        1 => (n.clone(), any::<bool>()).prop_map(|(n, by_home)| Event::Deliver { n, by_home }),
        2 => (n, any::<bool>()).prop_map(|(n, at_home)| Event::Lose { n, at_home }),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(by_home, keep)| Event::Ask { by_home, keep }),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(by_home, lost)| Event::Late { by_home, lost }),
        3 => (0u64..50).prop_map(Event::Wait),
    ]
}

struct World {
    home: Side,
    visiting: Side,
    now: Timestamp,
    kept: [Option<Heard>; 2],
}

impl World {
    fn new() -> Self {
        let side = |role| Side {
            role,
            rows: BTreeMap::new(),
        };
        Self {
            home: side(Role::Home),
            visiting: side(Role::Visiting),
            now: at(1_000),
            kept: [None, None],
        }
    }

    fn sides(&mut self, by_home: bool) -> (&mut Side, &mut Side) {
        if by_home {
            (&mut self.home, &mut self.visiting)
        } else {
            (&mut self.visiting, &mut self.home)
        }
    }

    fn happen(&mut self, event: &Event) {
        let now = self.now;
        match *event {
            Event::Open {
                n,
                gives_up,
                answered,
            } => self.open(n, gives_up, answered),
            Event::Answered(n) => {
                let lives = self
                    .home
                    .rows
                    .get(&n)
                    .is_some_and(|row| row.state == State::Active);
                let row = self.visiting.rows.get_mut(&n);
                if let Some(row) = row.filter(|row| lives && row.state == State::Pending) {
                    (row.state, row.changed_at) = (State::Active, now);
                }
            }
            Event::End { n, at_home, reason } => {
                self.sides(at_home).0.end(n, reason, true, now);
            }
            Event::Deliver { n, by_home } => self.deliver(n, by_home),
            Event::Lose { n, at_home } => {
                self.sides(at_home).0.rows.remove(&n);
            }
            Event::Ask { by_home, keep } => {
                let (one, other) = self.sides(by_home);
                let heard = one.ask(other, now);
                if !keep {
                    let settled = one.mend(&heard, now);
                    other.settle(&settled);
                }
                self.kept[usize::from(by_home)] = Some(heard);
            }
            Event::Late { by_home, lost } => {
                if let Some(heard) = self.kept[usize::from(by_home)].clone() {
                    let (one, other) = self.sides(by_home);
                    let settled = one.mend(&heard, now);
                    if !lost {
                        other.settle(&settled);
                    }
                }
            }
            Event::Wait(seconds) => self.now = now.plus(Duration::from_secs(seconds)),
        }
    }

    /// An id is made once: visiting's row comes first, then home's.
    fn open(&mut self, n: u16, gives_up: bool, answered: bool) {
        if self.home.rows.contains_key(&n) || self.visiting.rows.contains_key(&n) {
            return;
        }
        let row = |state| Row {
            state,
            reason: None,
            changed_at: self.now,
            owed: false,
        };
        let visiting = if answered {
            State::Active
        } else {
            State::Pending
        };
        self.home.rows.insert(n, row(State::Active));
        self.visiting.rows.insert(n, row(visiting));
        if gives_up {
            self.visiting.end(n, EndReason::Abandoned, true, self.now);
        }
    }

    /// As a logout: the other side's row ends, or is a tombstone; of two reasons home's counts.
    fn deliver(&mut self, n: u16, by_home: bool) {
        let now = self.now;
        let (one, other) = self.sides(by_home);
        let Some(row) = one.rows.get(&n).copied().filter(|row| row.owed) else {
            return;
        };
        let blank = Row {
            state: State::Active,
            reason: None,
            changed_at: now,
            owed: false,
        };
        other.rows.entry(n).or_insert(blank);
        other.end(n, row.reason.unwrap_or(EndReason::Abandoned), false, now);
        other.settle(&[n]);
        one.settle(&[n]);
        let reason = self.home.rows.get(&n).and_then(|row| row.reason);
        if let Some(row) = self.visiting.rows.get_mut(&n) {
            row.reason = reason;
        }
    }

    /// Nothing happens any more but what the two sides do by themselves.
    fn settle(&mut self) {
        for n in 0..12 {
            // A login under way ends at its deadline.
            if self
                .visiting
                .rows
                .get(&n)
                .is_some_and(|row| row.state == State::Pending)
            {
                self.visiting.end(n, EndReason::Abandoned, true, self.now);
            }
        }
        for _ in 0..2 {
            self.now = self.now.plus(OLD_ENOUGH);
            for by_home in [true, false] {
                self.happen(&Event::Ask {
                    by_home,
                    keep: false,
                });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn two_stores_come_to_agree_whatever_was_lost_or_came_late(events in vec(any_event(), 0..60)) {
        let mut world = World::new();
        for event in &events {
            let before = [world.home.clone(), world.visiting.clone()];
            world.happen(event);
            for (before, after) in before.iter().zip([&world.home, &world.visiting]) {
                for (n, row) in &before.rows {
                    // What has ended stays so, unless the store lost it.
                    if let (State::Ended, Some(after)) = (row.state, after.rows.get(n)) {
                        prop_assert_eq!(after.state, State::Ended);
                    }
                }
            }
        }
        world.settle();
        prop_assert_eq!(world.home.living(), world.visiting.living());
        // Debts pay themselves without a delivery wherever sync ended the other row; delivering the rest changes
        // no reason that home has on record.
        let reasons = |side: &Side| -> Vec<_> {
            side.rows.iter().map(|(n, row)| (*n, row.reason)).collect()
        };
        let on_record = world.home.clone();
        for n in 0..12 {
            for by_home in [true, false] {
                world.happen(&Event::Deliver { n, by_home });
            }
        }
        for (n, reason) in reasons(&on_record) {
            prop_assert_eq!(world.home.rows[&n].reason, reason);
        }
        prop_assert!(world.home.rows.values().chain(world.visiting.rows.values()).all(|row| !row.owed));
    }

    #[test]
    fn what_lives_on_both_sides_is_never_touched(
        events in vec(any_event(), 0..60), by_home: bool,
    ) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
        }
        let living = world.home.living();
        let both: BTreeSet<_> = living.intersection(&world.visiting.living()).copied().collect();
        world.happen(&Event::Ask { by_home, keep: false });
        prop_assert!(both.is_subset(&world.home.living()) && both.is_subset(&world.visiting.living()));
    }
}
