//! What each gate says, and when the schedule calls.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    clock::Timestamp,
    domain::{
        ids::ClusterId,
        purpose::Purpose,
        rotation::{
            Name, Outcome, Phase, Progress, Rotation, Told, Word, alarms,
            gates::{
                self, Blocker, Named, Why, may_activate, may_announce, may_confirm, may_retire,
                may_roll_back,
            },
            schedule::{Due, Schedule, Shown, asks_authority, begins_at, due},
            steps::{Local, Lost, Step, next},
            still_old,
        },
    },
};

const OLD: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];

fn id(text: &str) -> ClusterId {
    ClusterId::new(text).unwrap()
}

fn name(purpose: Purpose) -> Name {
    Name {
        node: "n1".to_owned(),
        purpose,
    }
}

fn announced() -> Rotation {
    let mut rotation = Rotation::requested(false, None);
    rotation.made(OLD, NEW, 7);
    rotation
}

fn told(cluster: &str, outcome: Outcome, sequence: u64) -> Told {
    let mut progress = Progress::default();
    progress.answered(sequence, outcome, "");
    Told {
        cluster: id(cluster),
        progress,
    }
}

fn why(blockers: &[Blocker]) -> Vec<(String, Why)> {
    let of_peers = blockers.iter().filter_map(|b| match b {
        Blocker::Peer { cluster, why, .. } => Some((cluster.to_string(), *why)),
        _ => None,
    });
    of_peers.collect()
}

#[test]
fn what_is_shown_is_not_lost_while_the_node_runs() {
    let rotation = announced();
    let mut local = Local {
        has_old: false,
        has_new: true,
        shown: Some(OLD),
        ..Local::default()
    };
    let steps = next(&rotation, &[told("a", Outcome::Silent, 0)], &[], &local);
    assert_eq!(steps, []);
    // After a start there is nothing else to show.
    local.shown = None;
    let steps = next(&rotation, &[told("a", Outcome::Silent, 0)], &[], &local);
    assert_eq!(steps, [Step::Lost(Lost::Old)]);
}

#[test]
fn activating_names_each_peer_that_holds_it_up() {
    let rotation = announced();
    let peers = [
        told("a", Outcome::Loaded, 7),
        told("b", Outcome::Loaded, 6),
        told("c", Outcome::Waiting, 7),
        told("d", Outcome::Refused, 7),
        told("e", Outcome::Manual, 0),
        told("f", Outcome::Silent, 0),
    ];
    let refused = may_activate(&rotation, &peers, &Named::default());
    let expected = [
        ("b", Why::Silent),
        ("c", Why::Waiting),
        ("d", Why::Refused),
        ("e", Why::Manual),
        ("f", Why::Silent),
    ];
    assert_eq!(
        why(&refused),
        expected.map(|(id, why)| (id.to_owned(), why))
    );
    for (blocker, (cluster, _)) in refused.iter().zip(expected) {
        assert!(blocker.to_string().starts_with(cluster), "{blocker}");
    }
    let named = Named {
        confirmed: BTreeSet::from([id("e")]),
        overridden: ["b", "c", "d", "f"].map(id).into(),
    };
    assert_eq!(may_activate(&rotation, &peers, &named), []);
    // A word about one that answers for itself is none, and neither is one about nobody.
    let named = Named {
        confirmed: BTreeSet::from([id("b"), id("nobody")]),
        overridden: BTreeSet::new(),
    };
    let refused = may_activate(&rotation, &peers[..2], &named);
    assert_eq!(
        refused,
        [Blocker::Unknown(id("nobody")), Blocker::NotManual(id("b"))]
    );
    // Who has it is not harmed by a word.
    let named = Named {
        overridden: BTreeSet::from([id("a")]),
        ..Named::default()
    };
    let mut one = [told("a", Outcome::Loaded, 7)];
    assert_eq!(may_activate(&rotation, &one, &named), []);
    gates::keep_words(&rotation, &mut one, &named);
    assert_eq!(one[0].progress.word, None);
}

#[test]
fn each_gate_is_shut_in_every_other_phase() {
    let name = name(Purpose::Federation);
    for phase in Phase::ALL {
        let rotation = Rotation {
            phase,
            settled: true,
            shown: Some(NEW),
            in_use: Some(Vec::new()),
            ..announced()
        };
        let open = |blockers: Vec<Blocker>| blockers.is_empty();
        let gates = (
            open(may_announce(Some(&rotation))),
            open(may_activate(&rotation, &[], &Named::default())),
            open(may_retire(&name, &rotation, &[])),
            open(may_roll_back(&rotation, &[], false)),
            open(may_confirm(&rotation, &[], &Named::default())),
        );
        let expected = match phase {
            Phase::Requested => (false, false, false, true, false),
            Phase::Announced => (false, true, false, true, true),
            Phase::Active => (false, false, true, true, true),
            Phase::Retired | Phase::RollingBack => (true, false, false, false, false),
        };
        assert_eq!(gates, expected, "{phase}");
        assert_eq!(phase.as_str().parse(), Ok(phase));
    }
    assert_eq!(may_announce(None), []);
    let unsettled = Rotation {
        phase: Phase::Retired,
        ..announced()
    };
    assert_eq!(may_announce(Some(&unsettled)), [Blocker::Unsettled]);
    assert_eq!("nothing".parse::<Phase>().ok(), None);
}

#[test]
fn retiring_needs_every_peer_and_that_nothing_rests_on_the_old_one() {
    let mut rotation = announced();
    rotation.activate();
    let refused = may_retire(&name(Purpose::Federation), &rotation, &[]);
    assert_eq!(refused, [Blocker::NotShown]);
    rotation.shown = Some(NEW);
    let refused = may_retire(&name(Purpose::Federation), &rotation, &[]);
    assert_eq!(refused, [Blocker::Unreported]);
    rotation.in_use = Some(vec!["from tokyo, 192.0.2.1:5000".to_owned()]);
    let refused = may_retire(&name(Purpose::Federation), &rotation, &[]);
    assert!(refused[0].to_string().contains("tokyo, 192.0.2.1:5000"));
    rotation.in_use = Some(Vec::new());
    let mut overridden = told("b", Outcome::Silent, 0);
    overridden.progress.word = Some(Word::Overridden);
    let mut manual = told("c", Outcome::Manual, 0);
    manual.progress.word = Some(Word::Confirmed);
    manual.progress.seen_out = true;
    let peers = [told("a", Outcome::Loaded, 7), overridden, manual];
    let refused = may_retire(&name(Purpose::Federation), &rotation, &peers);
    let expected = [("b", Why::Overridden), ("c", Why::UnseenIn)];
    assert_eq!(
        why(&refused),
        expected.map(|(id, why)| (id.to_owned(), why))
    );
    let refused = may_retire(&name(Purpose::FederationClient), &rotation, &peers[2..]);
    assert_eq!(refused, []);
    // It is called with the old one until it says that it has the new one.
    assert_eq!(
        still_old(&rotation, &peers, &BTreeSet::new(), false),
        [id("b")]
    );
    let mut peers = peers;
    peers[1].progress.answered(7, Outcome::Loaded, "");
    assert_eq!(still_old(&rotation, &peers, &BTreeSet::new(), false), []);
    assert_eq!(peers[1].progress.word, None);
}

#[test]
fn only_the_operator_of_a_peer_that_cannot_be_told_is_taken_at_their_word() {
    let rotation = announced();
    let peers = [told("a", Outcome::Silent, 0), told("b", Outcome::Manual, 0)];
    let confirm = |cluster: &str| {
        let named = Named {
            confirmed: BTreeSet::from([id(cluster)]),
            ..Named::default()
        };
        may_confirm(&rotation, &peers, &named)
    };
    assert_eq!(confirm("a"), [Blocker::NotManual(id("a"))]);
    assert_eq!(confirm("b"), []);
    assert_eq!(confirm("z"), [Blocker::Unknown(id("z"))]);
}

#[test]
fn a_silent_peer_does_not_hold_up_the_next_renewal() {
    const DAY: Duration = Duration::from_secs(86_400);
    let schedule = Schedule {
        renew_before: DAY * 30,
        jitter: Duration::ZERO,
        override_before: DAY,
    };
    let (of, end) = (
        name(Purpose::Federation),
        Timestamp::from_millis(1_000_000_000_000),
    );
    let old_ends = end.minus(DAY * 90);
    let shown = Shown {
        fingerprint: NEW,
        not_before: end.minus(DAY * 100),
        not_after: end,
        old_ends: Some(old_ends),
        is_self_signed: true,
    };
    let mut rotation = announced();
    let peers = [told("a", Outcome::Loaded, 7), told("b", Outcome::Silent, 0)];
    rotation.activate();
    let due_at = |now, shown: &Shown| due(&schedule, now, &of, shown, Some(&rotation), &peers);
    assert_eq!(due_at(old_ends, &shown), Due::Nothing);
    let without_b = Due::RetireWithout(BTreeSet::from([id("b")]));
    let after = old_ends.plus(Duration::from_millis(1));
    assert_eq!(due_at(after, &shown), without_b);
    // Of one that is still valid nobody is deprived until the new one is about to end.
    let long = Shown {
        old_ends: Some(end.plus(DAY)),
        ..shown
    };
    assert_eq!(due_at(after, &long), Due::Nothing);
    let begin = begins_at(&schedule, &long);
    assert_eq!(due_at(begin, &long), Due::Retire);
    let last_call = end.minus(DAY);
    let before = last_call.minus(Duration::from_millis(1));
    assert_eq!(due_at(before, &long), Due::Retire);
    assert_eq!(due_at(last_call, &long), without_b);
    // A last call before the beginning is none.
    let hasty = Schedule {
        override_before: DAY * 60,
        ..schedule
    };
    let early = end.minus(DAY * 40);
    assert_eq!(
        due(&hasty, early, &of, &long, Some(&rotation), &peers),
        Due::Nothing
    );
    // An authority is asked in time, although the last exchange is not over.
    assert!(!asks_authority(&Due::Retire, &long));
    let foreign = Shown {
        is_self_signed: false,
        ..long
    };
    assert!(asks_authority(&due_at(begin, &foreign), &foreign));
    // While the old one is shown, for whatever reason, it is not taken away.
    let still = Shown {
        fingerprint: OLD,
        ..shown
    };
    assert_eq!(due_at(after, &still), Due::Nothing);
    // The gate is that of retiring, but for those.
    let without = |ids: &[&str]| {
        let ids = ids.iter().map(|text| id(text)).collect();
        gates::may_retire_without(&of, &rotation, &peers, &ids)
    };
    assert_eq!(without(&["b"]), [Blocker::NotShown]);
    assert_eq!(why(&without(&[])), [("b".to_owned(), Why::Silent)]);
}

#[test]
fn who_became_a_peer_while_the_new_one_was_shown_is_shown_that_and_needs_the_old_one_for_a_step_back()
 {
    let mut rotation = announced();
    rotation.activate();
    (rotation.shown, rotation.in_use) = (Some(NEW), Some(Vec::new()));
    let mut peers = [told("a", Outcome::Silent, 0), told("b", Outcome::Silent, 0)];
    peers[1].progress.newcomer = true;
    let nobody = BTreeSet::new();
    assert_eq!(still_old(&rotation, &peers, &nobody, false), [id("a")]);
    let blockers = may_roll_back(&rotation, &peers, false);
    assert_eq!(why(&blockers), [("b".to_owned(), Why::Silent)]);
    let of = name(Purpose::Federation);
    let blockers = may_retire(&of, &rotation, &peers[1..]);
    assert_eq!(why(&blockers), [("b".to_owned(), Why::Silent)]);
    // Its connections are proof enough that it takes what it was given.
    (peers[1].progress.seen_out, peers[1].progress.seen_in) = (true, true);
    assert_eq!(may_retire(&of, &rotation, &peers[1..]), []);
    assert!(!may_roll_back(&rotation, &peers, false).is_empty());
    peers[1].progress.answered(7, Outcome::Loaded, "");
    assert_eq!(may_roll_back(&rotation, &peers, false), []);
    // Who refuses what it should know is shown the other one.
    let both = BTreeSet::from([id("a"), id("b")]);
    assert_eq!(still_old(&rotation, &peers, &both, false), [id("b")]);
}

#[test]
fn nobody_is_called_with_what_has_ended_and_all_is_as_before_when_the_clock_is_put_right() {
    let mut rotation = announced();
    rotation.activate();
    let peers = [told("a", Outcome::Silent, 0)];
    let step = |shown_old: Vec<ClusterId>, old_ended| {
        let local = Local {
            has_old: true,
            has_new: true,
            shown: Some(NEW),
            shown_old,
            old_ended,
            ..Local::default()
        };
        next(&rotation, &peers, &[], &local)
    };
    let show = |old_for: Vec<ClusterId>| {
        vec![Step::Show {
            certificate: NEW,
            old_for,
        }]
    };
    assert_eq!(step(vec![id("a")], true), show(Vec::new()));
    assert!(!step(Vec::new(), true).contains(&show(Vec::new())[0]));
    assert_eq!(step(Vec::new(), false), show(vec![id("a")]));
}

#[test]
fn what_has_ended_while_it_is_shown_gives_way() {
    let mut local = Local {
        has_old: true,
        has_new: true,
        shown: Some(OLD),
        old_ended: true,
        ..Local::default()
    };
    let mut rotation = announced();
    assert_eq!(next(&rotation, &[], &[], &local), [Step::Ended]);
    let mut back = announced();
    back.roll_back(8);
    assert_eq!(next(&back, &[], &[], &local), [Step::Ended]);
    // There is no other one any more.
    back.settled = true;
    assert!(!next(&back, &[], &[], &local).contains(&Step::Ended));
    assert!(!back.ended());
    assert!(rotation.ended());
    assert_eq!(rotation.shows(), Some(NEW));
    local.shown = Some(NEW);
    assert!(!next(&rotation, &[], &[], &local).contains(&Step::Ended));
}

#[test]
fn nobody_goes_back_to_what_has_ended_where_there_is_nothing_else() {
    let ended = Local {
        has_old: true,
        old_ended: true,
        ..Local::default()
    };
    let both = [Step::Lost(Lost::Both)];
    // The next one was never made, and what the last one has left has ended.
    let mut last = announced();
    last.activate();
    last.retire(8);
    let mut back = Rotation::requested(false, Some(&last));
    assert!(back.roll_back(9));
    assert_eq!(next(&back, &[], &[], &ended), both);
    assert!(!back.lost(Lost::Both, 10));
    let good = Local {
        old_ended: false,
        ..ended.clone()
    };
    let [Step::Show { certificate, .. }] = next(&back, &[], &[], &good)[..] else {
        panic!("it is shown again while it is good")
    };
    assert_eq!(certificate, NEW);
    // The new one's key is gone.
    let mut active = announced();
    active.activate();
    assert_eq!(next(&active, &[], &[], &ended), both);
    assert_eq!(next(&active, &[], &[], &good), [Step::Lost(Lost::New)]);
    // Peers have still to be told how that went, and it stays on record.
    let mut settled = announced();
    settled.roll_back(8);
    settled.settled = true;
    assert!(!next(&settled, &[], &[], &ended).contains(&both[0]));
}

#[test]
fn a_rotation_gives_way_to_what_is_configured_where_nothing_of_it_can_be_shown() {
    const BY_HAND: [u8; 32] = [3; 32];
    let (none, old, new): (&[_], _, _) = (&[], &[OLD], &[NEW]);
    let (mut active, mut back) = (announced(), announced());
    active.activate();
    back.roll_back(8);
    let (mut retired, mut settled) = (active.clone(), back.clone());
    retired.retire(8);
    settled.settled = true;
    for (rotation, fit, gives_way) in [
        (Rotation::requested(false, None), none, false),
        (announced(), none, true),
        (announced(), old, false),
        (announced(), new, false),
        (active.clone(), none, true),
        (active.clone(), old, false),
        (active.clone(), new, false),
        (back.clone(), none, true),
        (back.clone(), new, false),
        // Of the other one peers were told that it is gone.
        (settled.clone(), new, true),
        (settled, old, false),
        (retired.clone(), old, true),
        (retired, new, false),
    ] {
        let by = |configured| rotation.gives_way(|of| fit.contains(&of), || configured);
        let wanted = gives_way.then_some(BY_HAND);
        assert_eq!(by(Some(BY_HAND)), wanted, "{rotation:?} {fit:?}");
        assert_eq!(by(None), None);
        assert_eq!(by(Some(OLD)), None, "that is what can't be shown");
    }
    let local = Local {
        has_old: true,
        has_new: true,
        old_ended: true,
        replaced_by: Some(BY_HAND),
        ..Local::default()
    };
    assert_eq!(
        next(&announced(), &[], &[], &local),
        [Step::GiveUp(BY_HAND)]
    );
}

#[test]
fn an_alarm_says_for_what_a_person_is_needed() {
    let mut rotation = announced();
    let mut overridden = told("e", Outcome::Silent, 0);
    overridden.progress.word = Some(Word::Overridden);
    let peers = [
        told("a", Outcome::Loaded, 7),
        told("b", Outcome::Waiting, 7),
        told("c", Outcome::Manual, 0),
        told("d", Outcome::Silent, 0),
        overridden,
    ];
    let reasons = |rotation: &Rotation, lasts| {
        let all = alarms::of(rotation, &peers, true, lasts);
        all.into_iter()
            .map(|(reason, n)| (reason.as_str(), n))
            .collect::<Vec<_>>()
    };
    let soon = [
        ("problem", 1),
        ("manual", 1),
        ("waiting", 1),
        ("overridden", 1),
    ];
    assert_eq!(reasons(&rotation, Duration::ZERO), soon);
    assert_eq!(reasons(&rotation, alarms::PATIENCE).len(), 5);
    rotation.activate();
    rotation.retire(8);
    // Nobody has to be told by hand to forget, and what was said before is no answer to this.
    assert_eq!(
        reasons(&rotation, alarms::PATIENCE),
        [("problem", 1), ("overridden", 1), ("silent", 3)]
    );
    assert!(alarms::of(&rotation, &[], false, alarms::PATIENCE).is_empty());
}

#[test]
fn the_schedule_begins_in_time_and_does_not_wait_for_the_silent_for_ever() {
    const DAY: Duration = Duration::from_secs(86_400);
    let schedule = Schedule {
        renew_before: DAY * 30,
        jitter: DAY * 7,
        override_before: DAY,
    };
    let end = Timestamp::from_millis(1_000_000_000_000);
    let shown = Shown {
        fingerprint: [0x80; 32],
        not_before: end.minus(DAY * 100),
        not_after: end,
        old_ends: None,
        is_self_signed: true,
    };
    let of = name(Purpose::Federation);
    let begin = begins_at(&schedule, &shown);
    assert!(begin > end.minus(DAY * 30) && begin < end.minus(DAY * 23));
    let due_at = |now, rotation: Option<&Rotation>, peers: &[Told]| {
        due(&schedule, now, &of, &shown, rotation, peers)
    };
    let before = begin.minus(Duration::from_millis(1));
    assert_eq!(due_at(before, None, &[]), Due::Nothing);
    assert_eq!(due_at(begin, None, &[]), Due::Announce);
    // Phones can't be told of it: theirs is exchanged by people.
    let of_phones = name(Purpose::Phone);
    assert_eq!(
        due(&schedule, end, &of_phones, &shown, None, &[]),
        Due::Nothing
    );
    let foreign = Shown {
        is_self_signed: false,
        ..shown
    };
    assert_eq!(
        due(&schedule, begin, &of, &foreign, None, &[]),
        Due::AskAuthority
    );
    // While one is under way no other begins; at the end of the last's the next may.
    let mut rotation = announced();
    let peers = [told("a", Outcome::Loaded, 7), told("b", Outcome::Silent, 0)];
    assert_eq!(due_at(begin, Some(&rotation), &peers), Due::Nothing);
    let last = end.minus(DAY);
    assert_eq!(
        due_at(last, Some(&rotation), &peers),
        Due::ActivateWithout(BTreeSet::from([id("b")]))
    );
    // Also one that an operator began and left lying, although all have it.
    assert_eq!(
        due_at(last, Some(&rotation), &peers[..1]),
        Due::ActivateWithout(BTreeSet::new())
    );
    rotation.activate();
    assert_eq!(due_at(last, Some(&rotation), &peers), Due::Nothing);
    rotation.retire(8);
    assert_eq!(due_at(last, Some(&rotation), &peers), Due::Announce);
    // Off is off.
    let off = Schedule {
        renew_before: Duration::ZERO,
        ..schedule
    };
    assert_eq!(due(&off, end, &of, &shown, None, &[]), Due::Nothing);
    // What lives for a shorter time than it is exchanged ahead is left alone for half of it.
    let short = Shown {
        not_before: end.minus(DAY * 10),
        ..shown
    };
    assert_eq!(begins_at(&schedule, &short), end.minus(DAY * 5));
    // However long the jitter is, most of the time is left.
    let wild = Schedule {
        jitter: DAY * 300,
        ..schedule
    };
    let all = Shown {
        fingerprint: [0xff; 32],
        ..shown
    };
    assert_eq!(begins_at(&wild, &all), end.minus(DAY * 15));
}
