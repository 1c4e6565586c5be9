//! The checker on histories made by hand: each bad one it must find, and a good one not.

use super::{
    record::{Move, Regard, Row},
    *,
};
use crate::{
    domain::{
        ids::{Ref, SessionId},
        session::{EndReason, Initiator, Role},
    },
    lab::sim::{
        model::{Answer, Told},
        plan::{Base, Node, SETTLED_MS, Second, Settings, Step, What},
        tap::{Answered, Asked},
    },
};

const BERLIN: Cluster = Cluster(0);
const TOKYO: Cluster = Cluster(1);
const LIMA: Cluster = Cluster(2);
const PHONE: Phone = Phone(0, 1);
const USER: User = User(1, 2);

/// A run in which one user of Tokyo logged in on a phone of Berlin.
struct History {
    plan: Plan,
    model: Model,
    dumps: Dumps,
    calls: Vec<Call>,
    shown: Vec<(Phone, Shown)>,
}

fn reference(n: u64) -> Ref {
    Ref::from_bits(n)
}

fn id(n: u8) -> SessionId {
    SessionId::from_bytes(&[n; 16]).unwrap()
}

fn row(role: Role, counterpart: Cluster, n: u8) -> Row {
    Row {
        role,
        counterpart,
        id: id(n),
        state: State::Active,
        phone: Some(PHONE),
        user: Some(USER),
        base: (role == Role::Home).then(|| Base(TOKYO.0, n).to_string()),
        reference: reference(n.into()),
        owed: false,
        parked: None,
        reason: None,
        initiator: None,
    }
}

fn ended(mut row: Row, reason: EndReason) -> Row {
    row.state = State::Ended;
    row.reason = Some(reason);
    row
}

impl History {
    fn new() -> Self {
        let settings = Settings {
            troubled_ms: 45_000,
            patterns: true,
            limit_minutes: None,
            second: [Second::NotAllowed; 3],
            skew_ms: [0; 4],
            old: None,
            latency_ms: (1, 1),
        };
        let plan = Plan {
            seed: 1,
            settings,
            steps: Vec::new(),
        };
        let regard = Regard {
            enabled: true,
            trusted: true,
        };
        let dump = |at: Cluster| Dump {
            bases: (0..3).map(|n| Base(at.0, n).to_string()).collect(),
            peers: Cluster::all()
                .filter(|other| *other != at)
                .map(|other| (other, regard))
                .collect(),
            ..Dump::default()
        };
        let mut dumps = [dump(BERLIN), dump(TOKYO), dump(LIMA)];
        dumps[0].rows.push(row(Role::Visiting, TOKYO, 1));
        dumps[1].rows.push(row(Role::Home, BERLIN, 1));
        let mut model = Model::default();
        let attempt = model.login(reference(1), PHONE, USER, true, 1_000);
        model.told(attempt, Told::In, 1_300);
        Self {
            plan,
            model,
            dumps,
            calls: vec![call(Asked::Login, 1, Answered::Opened("all".into()))],
            shown: vec![(PHONE, Shown::In(USER)), (Phone(0, 0), Shown::Nobody)],
        }
    }

    /// Ends the session on both sides.
    fn end(&mut self, reason: EndReason) {
        for (at, role, with) in [(0, Role::Visiting, TOKYO), (1, Role::Home, BERLIN)] {
            self.dumps[at].rows = vec![ended(row(role, with, 1), reason)];
        }
        self.shown = vec![(PHONE, Shown::Nobody)];
    }

    fn did(&mut self, what: What, from_ms: u64, to_ms: u64) {
        let done = self.model.begin(what.clone(), from_ms);
        self.model.answered(done, Answer::Done, to_ms);
        self.model.end(done, to_ms);
        self.plan.steps.push(Step {
            at_ms: from_ms,
            what,
        });
    }

    /// What the checker finds when all has settled.
    fn rules(&self) -> Vec<&'static str> {
        self.rules_at(self.plan.healed_at_ms() + SETTLED_MS)
    }

    /// What it finds when it looks at that time.
    fn seen_at(&self, at_ms: u64) -> Vec<&'static str> {
        let mut checker = Checker::new(&self.plan);
        checker.look(at_ms, &self.dumps, &self.model);
        checker.rules()
    }

    /// A row becomes something else at that time, and so it was written down.
    fn moves(&mut self, at: Cluster, at_ms: u64, was: State, now: State) {
        let dump = &mut self.dumps[usize::from(at.0)];
        let row = &mut dump.rows[0];
        row.state = now;
        dump.moves.push(Move {
            at_ms,
            role: row.role,
            counterpart: row.counterpart,
            id: row.id,
            reference: row.reference,
            phone: row.phone,
            user: row.user,
            base: row.base.clone(),
            was: Some(was),
            now: Some(now),
            reason: row.reason,
            initiator: row.initiator,
        });
    }

    /// A row ends at that time, by that side's doing.
    fn ends(&mut self, at: Cluster, at_ms: u64, reason: EndReason, by: Initiator) {
        let row = &mut self.dumps[usize::from(at.0)].rows[0];
        (row.reason, row.initiator) = (Some(reason), Some(by));
        self.moves(at, at_ms, State::Active, State::Ended);
    }

    fn rules_at(&self, at_ms: u64) -> Vec<&'static str> {
        let checker = Checker::new(&self.plan);
        let (wrong, _) = checker.finish(at_ms, &self.dumps, &self.model, &self.shown, &self.calls);
        let rules: BTreeSet<_> = wrong.iter().map(|wrong| wrong.rule).collect();
        rules.into_iter().collect()
    }
}

impl Checker {
    fn rules(&self) -> Vec<&'static str> {
        let rules: BTreeSet<_> = self.wrong.iter().map(|wrong| wrong.rule).collect();
        rules.into_iter().collect()
    }
}

fn restore(of: Cluster, age_ms: u64) -> What {
    What::Restore {
        cluster: of,
        age_ms,
        for_ms: 1,
    }
}

fn call(asked: Asked, began: u64, answered: Answered) -> Call {
    Call {
        caller: BERLIN,
        callee: TOKYO,
        id: id(1),
        asked,
        began,
        ended: Some(began + 1),
        began_ms: 1_000 + began,
        answered: Some(answered),
    }
}

#[test]
fn a_good_history_is_good() {
    assert_eq!(History::new().rules(), [""; 0]);
    let mut history = History::new();
    history.model.logout(PHONE, 5_000);
    history.model.logged_out(0, true, 5_100);
    history.end(EndReason::User);
    assert_eq!(history.rules(), [""; 0]);
}

/// The second session, of the same user, on a phone of lima.
fn elsewhere(role: Role, counterpart: Cluster) -> Row {
    Row {
        phone: Some(Phone(2, 0)),
        ..row(role, counterpart, 2)
    }
}

#[test]
fn two_sessions_of_a_user_or_on_a_phone() {
    let mut history = History::new();
    let mut second = elsewhere(Role::Home, LIMA);
    history.dumps[2].rows.push(elsewhere(Role::Visiting, TOKYO));
    history.dumps[1].rows.push(second.clone());
    assert_eq!(history.rules(), ["S1"]);
    history.plan.settings.second[1] = Second::Allowed;
    assert_eq!(history.rules(), [""; 0]);
    second.counterpart = BERLIN;
    second.phone = Some(PHONE);
    history.dumps[0].rows.push(row(Role::Visiting, TOKYO, 2));
    history.dumps[1].rows[1] = second;
    history.dumps[2].rows.clear();
    assert_eq!(history.rules(), ["S1"]);
}

#[test]
fn a_base_device_that_is_held_twice_or_not_at_all_or_gone() {
    for base in [None, Some("EMCC10"), Some("gone")] {
        let mut history = History::new();
        history.plan.settings.second[1] = Second::Allowed;
        history.dumps[1].rows[0].base = Some("EMCC10".into());
        let mut second = elsewhere(Role::Home, LIMA);
        second.base = base.map(str::to_owned);
        history.dumps[1].rows.push(second);
        history.dumps[2].rows.push(elsewhere(Role::Visiting, TOKYO));
        assert_eq!(history.rules(), ["S2"], "{base:?}");
    }
}

#[test]
fn what_lives_again_or_vanishes() {
    let history = History::new();
    let mut checker = Checker::new(&history.plan);
    let mut before = history.dumps.clone();
    before[1].rows = vec![ended(row(Role::Home, BERLIN, 1), EndReason::User)];
    before[1].rows[0].owed = true;
    checker.look(5_000, &before, &history.model);
    assert!(checker.wrong.is_empty());
    let mut restored = checker.clone();
    checker.look(10_000, &history.dumps, &history.model);
    assert_eq!(checker.wrong.iter().next().unwrap().rule, "S3");
    restored.restored(TOKYO, &history.dumps[1]);
    restored.look(10_000, &history.dumps, &history.model);
    assert!(restored.wrong.is_empty());

    let mut checker = Checker::new(&history.plan);
    checker.look(5_000, &history.dumps, &history.model);
    let mut gone = history.dumps.clone();
    gone[0].rows.clear();
    checker.look(10_000, &gone, &history.model);
    assert_eq!(checker.wrong.iter().next().unwrap().rule, "S4");
}

#[test]
fn a_phone_that_was_told_of_a_failure_and_has_somebody_on_it() {
    let mut history = History::new();
    history.model.told(0, Told::Failed(31), 6_000);
    let mut checker = Checker::new(&history.plan);
    for (at_ms, wrong) in [(10_000, 0), (15_000, 0), (20_000, 1)] {
        checker.look(at_ms, &history.dumps, &history.model);
        assert_eq!(checker.wrong.len(), wrong, "{at_ms}");
    }
}

#[test]
fn answers_that_differ_or_come_after_the_end() {
    let opened = |text: &str| Answered::Opened(text.into());
    let user = || Answered::Ended(EndReason::User);
    for (asked, first, second, is_wrong) in [
        (Asked::Login, opened("all"), opened("all"), false),
        (Asked::Login, opened("all"), opened("other"), true),
        (
            Asked::Login,
            opened("all"),
            Answered::Ended(EndReason::User),
            false,
        ),
        (
            Asked::Logout,
            Answered::Ended(EndReason::User),
            opened("all"),
            true,
        ),
        (
            Asked::Login,
            Answered::Ended(EndReason::User),
            opened("all"),
            true,
        ),
        (Asked::Login, Answered::Refused(25), opened("all"), true),
        (Asked::Login, opened("all"), Answered::Refused(25), true),
        (Asked::Login, opened("all"), Answered::Refused(26), false),
        (
            Asked::Login,
            Answered::Refused(25),
            Answered::Refused(25),
            false,
        ),
        (
            Asked::Login,
            Answered::Refused(25),
            Answered::Refused(2),
            true,
        ),
        (Asked::Login, user(), Answered::Refused(25), true),
        (Asked::Login, user(), Answered::Refused(26), false),
        (Asked::Logout, user(), Answered::Refused(25), false),
        (Asked::Login, user(), user(), false),
        (
            Asked::Logout,
            user(),
            Answered::Ended(EndReason::Operator),
            true,
        ),
        (
            Asked::Login,
            Answered::Refused(25),
            Answered::Refused(6),
            false,
        ),
        (Asked::Login, Answered::Refused(26), opened("all"), false),
        (Asked::Logout, Answered::Refused(26), opened("all"), false),
    ] {
        let mut history = History::new();
        let wrong: &[&str] = if is_wrong { &["S3"] } else { &[] };
        history.calls = vec![call(asked, 1, first), call(Asked::Login, 3, second)];
        assert_eq!(history.rules(), wrong, "{:?}", history.calls);
        // Asked before the first was answered: either may have come first.
        history.calls[1].began = 1;
        assert_eq!(history.rules(), [""; 0]);
        // A database of before does not know.
        history.calls[1].began = 3;
        history.did(restore(TOKYO, 2_500), 3_000, 4_000);
        assert_eq!(history.rules(), [""; 0]);
    }
}

#[test]
fn a_caller_that_may_not_ask_for_a_time_is_told_so() {
    let mut history = History::new();
    history
        .calls
        .push(call(Asked::Login, 3, Answered::Refused(4)));
    assert_eq!(history.rules(), ["S3"]);
    let what = What::DisablePeer {
        at: TOKYO,
        peer: BERLIN,
        for_ms: 1,
    };
    history.did(what, 3_000, 4_000);
    assert_eq!(history.rules(), [""; 0]);
}

#[test]
fn an_acknowledged_login_that_is_gone_or_ended_without_a_reason() {
    let mut history = History::new();
    history.end(EndReason::Abandoned);
    assert_eq!(history.rules(), ["S4"]);
    history.end(EndReason::User);
    assert_eq!(history.rules(), ["S4"]);
    for dump in &mut history.dumps {
        dump.rows.clear();
    }
    assert_eq!(history.rules(), ["S4"]);
    // What was told before what is left of the database is there.
    let mut recent = History {
        plan: history.plan.clone(),
        model: history.model.clone(),
        dumps: history.dumps.clone(),
        calls: Vec::new(),
        shown: Vec::new(),
    };
    recent.did(restore(BERLIN, 1_000), 3_000, 4_000);
    assert_eq!(recent.rules(), ["S4"]);
    history.did(restore(BERLIN, 2_000), 3_000, 4_000);
    assert_eq!(history.rules(), [""; 0]);
}

#[test]
fn a_failed_logout_of_before_is_no_reason() {
    for (began, over, is_reason) in [(2_000, 2_100, false), (39_950, 40_050, true)] {
        let mut history = History::new();
        let logout = history.model.logout(PHONE, began);
        history.model.logged_out(logout, false, over);
        history.ends(BERLIN, 40_000, EndReason::User, Initiator::Visiting);
        history.ends(TOKYO, 40_100, EndReason::User, Initiator::Visiting);
        history.shown.clear();
        let wrong: &[&str] = if is_reason { &[] } else { &["S4"] };
        assert_eq!(history.rules(), wrong, "{began}");
    }
}

#[test]
fn home_may_hear_of_an_end_with_a_login_of_somebody_else() {
    let mut history = History::new();
    let logout = history.model.logout(PHONE, 39_950);
    history.model.logged_out(logout, true, 40_050);
    history.ends(BERLIN, 40_000, EndReason::User, Initiator::Visiting);
    history.ends(TOKYO, 41_000, EndReason::Superseded, Initiator::Visiting);
    // Visiting takes over home's reason when it is told.
    history.dumps[0].rows[0].reason = Some(EndReason::Superseded);
    history.shown.clear();
    assert_eq!(history.rules(), ["S4"]);
    let (other, phone) = (User(TOKYO.0, 4), Phone(BERLIN.0, 4));
    let login = history
        .model
        .login(reference(7), phone, other, true, 40_900);
    history.model.told(login, Told::Failed(2), 41_050);
    assert_eq!(history.rules(), [""; 0]);
    // In a database of before it lived again, and ended once more after home had heard of it.
    history.did(restore(BERLIN, 2_000), 41_500, 41_600);
    history.ends(BERLIN, 42_000, EndReason::User, Initiator::Visiting);
    history.dumps[0].rows[0].reason = Some(EndReason::Superseded);
    assert_eq!(history.rules(), [""; 0]);
    // Home can't have heard of an end that came later than its own.
    history.dumps[0].moves.remove(0);
    assert_eq!(history.rules(), ["S4"]);
}

#[test]
fn an_acknowledged_logout_after_which_the_session_lives() {
    let mut history = History::new();
    history.model.logout(PHONE, 5_000);
    assert_eq!(history.rules(), [""; 0], "the phone was not told");
    history.model.logged_out(0, true, 5_100);
    assert_eq!(history.rules(), ["S4"]);
}

#[test]
fn sides_that_differ() {
    let at_visiting = What::EndAtVisiting {
        phone: PHONE,
        node: 0,
    };
    let at_home = What::EndAtHome {
        user: USER,
        node: 0,
    };
    for (at, operator) in [(0, at_visiting), (1, at_home)] {
        let mut history = History::new();
        history.did(operator, 3_000, 3_100);
        let one = history.dumps[at].rows[0].clone();
        history.dumps[at].rows[0] = ended(one, EndReason::Operator);
        history.dumps[at].rows[0].owed = true;
        if at == 0 {
            history.shown.clear();
        }
        assert_eq!(history.rules(), ["S5", "S6"]);
        // While one of them has the other disabled, nobody can tell.
        let regard = history.dumps[0].peers.get_mut(&TOKYO).unwrap();
        regard.enabled = false;
        assert_eq!(history.rules(), [""; 0]);
    }
    let mut pending = History::new();
    pending.dumps[0].rows[0].state = State::Pending;
    pending.model.attempts.clear();
    pending.shown.clear();
    assert_eq!(pending.rules(), ["S5"]);
}

#[test]
fn sides_agree_so_soon_and_not_later() {
    let mut history = History::new();
    let operator = What::EndAtHome {
        user: USER,
        node: 0,
    };
    history.did(operator, 3_000, 3_100);
    history.ends(TOKYO, 3_050, EndReason::Operator, Initiator::Home);
    history.dumps[1].rows[0].owed = true;
    let healed = history.plan.healed_at_ms();
    assert_eq!(history.seen_at(healed + 41_000), [""; 0]);
    assert_eq!(history.seen_at(healed + 42_000), ["S5", "S6"]);
    // What changes only then takes a moment.
    history.dumps[1].moves[0].at_ms = healed + 41_000;
    assert_eq!(history.seen_at(healed + 42_000), [""; 0]);
    assert_eq!(history.seen_at(healed + 50_000), ["S5", "S6"]);
    // As long as something goes on there is nothing to agree on.
    let node = Node(BERLIN.0, 0);
    history.model.begin(What::Crash { node, for_ms: 1 }, 4_000);
    assert_eq!(history.seen_at(healed + 50_000), [""; 0]);
}

#[test]
fn a_debt_that_is_cleared_and_was_not_told() {
    let mut history = History::new();
    history.ends(BERLIN, 5_000, EndReason::User, Initiator::Visiting);
    assert_eq!(history.seen_at(5_000), ["S6"]);
    let mut owed = history.dumps.clone();
    owed[0].rows[0].owed = true;
    let mut checker = Checker::new(&history.plan);
    checker.look(5_000, &owed, &history.model);
    assert_eq!(checker.rules(), [""; 0]);
    let mut told = history.dumps.clone();
    told[1].rows[0] = ended(told[1].rows[0].clone(), EndReason::User);
    checker.look(5_000, &told, &history.model);
    assert_eq!(checker.rules(), [""; 0]);
    // It was told, and forgotten.
    history.did(restore(TOKYO, 3_000), 5_500, 6_000);
    assert_eq!(history.seen_at(7_000), [""; 0]);
}

#[test]
fn what_lived_again_between_two_looks() {
    let mut history = History::new();
    history.model.logout(PHONE, 2_000);
    history.ends(BERLIN, 2_100, EndReason::User, Initiator::Visiting);
    history.dumps[0].rows[0].owed = true;
    assert_eq!(history.seen_at(5_000), [""; 0]);
    history.moves(BERLIN, 2_200, State::Ended, State::Active);
    history.moves(BERLIN, 2_300, State::Active, State::Ended);
    assert_eq!(history.seen_at(5_000), ["S3"]);
}

#[test]
fn an_answer_that_opens_a_session_after_the_deadline() {
    for (at_ms, is_late) in [(6_000, false), (6_001, true)] {
        let mut history = History::new();
        history.moves(BERLIN, at_ms, State::Pending, State::Active);
        let wrong: &[&str] = if is_late { &["S3"] } else { &[] };
        assert_eq!(history.seen_at(10_000), wrong, "{at_ms}");
    }
}

#[test]
fn a_session_that_is_ended_too_young_since_the_other_side_lacks_it() {
    let ended_at = |at_ms| {
        let mut history = History::new();
        history.did(restore(BERLIN, 2_000), 3_000, 3_500);
        history.dumps[0].rows.clear();
        history.ends(TOKYO, at_ms, EndReason::Abandoned, Initiator::Home);
        history
    };
    assert_eq!(ended_at(6_000).seen_at(10_000), ["S5"]);
    assert_eq!(ended_at(31_000).seen_at(35_000), [""; 0]);
    // Nobody lacks it: it was ended there.
    let mut told = ended_at(6_000);
    told.dumps[0]
        .rows
        .push(ended(row(Role::Visiting, TOKYO, 1), EndReason::User));
    assert_eq!(told.seen_at(10_000), [""; 0]);
    // A login that was never answered, as a database of before has it, is given up at its deadline.
    for (older, was, wrong) in [
        (BERLIN, State::Active, &["S5"][..]),
        (BERLIN, State::Pending, &[]),
        // The other side's database of before says nothing of this one's row: its phone was told.
        (TOKYO, State::Pending, &["S5"]),
    ] {
        let mut given_up = History::new();
        given_up.did(restore(older, 2_000), 3_000, 3_500);
        given_up.dumps[1].rows.clear();
        let row = &mut given_up.dumps[0].rows[0];
        row.reason = Some(EndReason::Abandoned);
        row.initiator = Some(Initiator::Visiting);
        given_up.moves(BERLIN, 6_500, was, State::Ended);
        assert_eq!(given_up.seen_at(10_000), wrong, "{older} {was:?}");
    }
    // The two have fallen out meanwhile.
    let mut apart = ended_at(6_000);
    let what = What::RemovePeer {
        at: TOKYO,
        peer: BERLIN,
        for_ms: None,
    };
    apart.did(what, 5_000, 5_100);
    assert_eq!(apart.seen_at(10_000), [""; 0]);
    // Time that was read while nobody kept it may have been behind.
    let mut behind = ended_at(21_000);
    assert_eq!(behind.seen_at(25_000), ["S5"]);
    let node = Node(TOKYO.0, 0);
    behind.did(What::Pause { node, for_ms: 1 }, 100, 900);
    assert_eq!(behind.seen_at(25_000), [""; 0]);
}

#[test]
fn a_ref_that_was_given_out_again_is_not_the_older_sessions() {
    let mut history = History::new();
    history.did(restore(BERLIN, 2_500), 3_000, 3_500);
    history.dumps[0].rows.clear();
    let first = Move {
        at_ms: 1_200,
        role: Role::Home,
        counterpart: BERLIN,
        id: id(1),
        reference: reference(1),
        phone: Some(PHONE),
        user: Some(USER),
        base: Some("EMCC11".into()),
        was: None,
        now: Some(State::Active),
        reason: None,
        initiator: None,
    };
    history.dumps[1].moves.push(first);
    history.ends(TOKYO, 34_000, EndReason::Abandoned, Initiator::Home);
    let again = history
        .model
        .login(reference(1), Phone(0, 3), USER, true, 20_000);
    history.model.told(again, Told::In, 20_200);
    assert_eq!(history.seen_at(35_000), [""; 0]);
    // Of the later one it would be too young.
    history.dumps[1].moves[0].at_ms = 20_100;
    assert_eq!(history.seen_at(35_000), ["S5"]);
}

#[test]
fn an_end_that_stays_owed() {
    let mut history = History::new();
    history.model.logout(PHONE, 5_000);
    history.model.logged_out(0, true, 5_100);
    history.end(EndReason::User);
    history.dumps[0].rows[0].owed = true;
    assert_eq!(history.rules(), ["S6"]);
    history.dumps[0].peers.remove(&TOKYO);
    assert_eq!(history.rules(), [""; 0]);
}

/// A history in which sessions last for a minute, and this one ended at that time by one side's doing.
fn expired(at_ms: u64, by: Initiator) -> History {
    let mut history = History::new();
    history.plan.settings.limit_minutes = Some(1);
    let (at, other) = match by {
        Initiator::Home => (TOKYO, BERLIN),
        Initiator::Visiting => (BERLIN, TOKYO),
    };
    history.ends(at, at_ms, EndReason::Expired, by);
    history.ends(other, at_ms, EndReason::Expired, by);
    history
}

#[test]
fn ends_that_come_too_early_or_late_or_never() {
    let mut history = History::new();
    history.plan.settings.limit_minutes = Some(1);
    assert_eq!(history.seen_at(70_000), [""; 0]);
    assert_eq!(history.seen_at(71_000), ["S7"], "never");
    // The node that watches has died.
    let node = Node(TOKYO.0, 0);
    let what = What::Crash { node, for_ms: 1 };
    history.did(what, 58_000, 60_000);
    assert_eq!(history.seen_at(81_000), [""; 0]);
    assert_eq!(history.seen_at(82_000), ["S7"], "never");
    // In a database of before it lives once more, and is ended once more.
    for (older, from_ms, at_ms, wrong) in [
        (TOKYO, 80_000, 98_100, &[][..]),
        (TOKYO, 80_000, 98_101, &["S7"]),
        // The other side's gives home's no time.
        (BERLIN, 62_000, 70_301, &["S7"]),
    ] {
        let mut restored = History::new();
        restored.plan.settings.limit_minutes = Some(1);
        restored.did(restore(older, 30_000), from_ms, from_ms + 100);
        assert_eq!(restored.seen_at(at_ms), wrong, "{older} {at_ms}");
        restored.ends(TOKYO, at_ms, EndReason::Expired, Initiator::Home);
        restored.ends(BERLIN, at_ms, EndReason::Expired, Initiator::Home);
        assert_eq!(restored.seen_at(at_ms), wrong, "{older} {at_ms}, ended");
    }

    for (at_ms, by, is_wrong) in [
        (57_999, Initiator::Home, true),
        (58_000, Initiator::Home, false),
        (70_300, Initiator::Home, false),
        (70_301, Initiator::Home, true),
        (62_000, Initiator::Visiting, true),
        (121_000, Initiator::Visiting, false),
    ] {
        let wrong: &[&str] = if is_wrong { &["S7"] } else { &[] };
        assert_eq!(expired(at_ms, by).seen_at(130_000), wrong, "{by} {at_ms}");
    }
    let mut endless = expired(61_000, Initiator::Home);
    endless.plan.settings.limit_minutes = None;
    endless.shown.clear();
    assert_eq!(endless.rules(), ["S4", "S7"], "it had no limit");
}

#[test]
fn time_may_be_lost_only_while_nobody_watches_and_by_a_clock_that_jumps() {
    let mut history = expired(20_000, Initiator::Home);
    assert_eq!(history.seen_at(30_000), ["S7"]);
    let node = Node(TOKYO.0, 0);
    let jump = What::Clock {
        node,
        offset_ms: 86_400_000,
    };
    history.did(jump, 5_000, 5_000);
    assert_eq!(history.seen_at(30_000), ["S7"]);
    history.did(What::Crash { node, for_ms: 1 }, 6_000, 7_000);
    assert_eq!(history.seen_at(30_000), [""; 0]);
    // Of two nodes both stood still, or one after the other.
    let [one, other] = [0, 1].map(|number| Node(BERLIN.0, number));
    for (from_ms, to_ms, wrong) in [(7_000, 8_000, &[][..]), (20_000, 21_000, &["S7"])] {
        let mut both = expired(62_000, Initiator::Visiting);
        let jump = What::Clock {
            node: one,
            offset_ms: 86_400_000,
        };
        both.did(jump, 5_000, 5_000);
        both.did(
            What::Pause {
                node: one,
                for_ms: 1,
            },
            6_000,
            7_500,
        );
        assert_eq!(both.seen_at(65_000), ["S7"], "one goes on");
        both.did(
            What::Pause {
                node: other,
                for_ms: 1,
            },
            from_ms,
            to_ms,
        );
        assert_eq!(both.seen_at(65_000), wrong, "{from_ms}");
    }
}

#[test]
fn whoever_lost_the_right_and_stays_for_good() {
    let mut disabled = History::new();
    disabled.dumps[1].disabled.insert(USER);
    assert_eq!(disabled.rules(), ["S8"]);
    let mut removed = History::new();
    removed.dumps[0].peers.remove(&TOKYO);
    assert_eq!(removed.rules(), ["S8"]);
    let mut revoked = History::new();
    revoked.dumps[0].peers.get_mut(&TOKYO).unwrap().trusted = false;
    assert_eq!(revoked.rules(), ["S8"]);
}

#[test]
fn whoever_lost_the_right_long_ago_and_stays() {
    let mut disabled = History::new();
    let mut checker = Checker::new(&disabled.plan);
    disabled.dumps[1].disabled.insert(USER);
    disabled.dumps[0].rows.clear();
    let set = |enabled| What::SetUser {
        user: USER,
        enabled,
    };
    disabled.did(set(false), 4_000, 4_100);
    for (at_ms, wrong) in [(5_000, 0), (40_000, 0), (45_000, 1)] {
        checker.look(at_ms, &disabled.dumps, &disabled.model);
        assert_eq!(checker.wrong.len(), wrong, "{at_ms}");
    }
    // Enabled and disabled again meanwhile.
    let mut checker = Checker::new(&disabled.plan);
    checker.look(5_000, &disabled.dumps, &disabled.model);
    disabled.did(set(true), 20_000, 20_100);
    disabled.did(set(false), 21_000, 21_100);
    checker.look(45_000, &disabled.dumps, &disabled.model);
    assert_eq!(checker.rules(), [""; 0]);

    let mut revoked = History::new();
    revoked.dumps[0].peers.get_mut(&TOKYO).unwrap().trusted = false;
    let mut checker = Checker::new(&revoked.plan);
    checker.look(5_000, &revoked.dumps, &revoked.model);
    assert_eq!(checker.rules(), [""; 0]);
    checker.look(45_000, &revoked.dumps, &revoked.model);
    assert_eq!(checker.rules(), ["S8"]);
    // A login that is only being tried is refused yet.
    let mut tried = revoked;
    tried.dumps[0].rows[0].state = State::Pending;
    let mut checker = Checker::new(&tried.plan);
    for at_ms in [5_000, 45_000] {
        checker.look(at_ms, &tried.dumps, &tried.model);
    }
    assert!(!checker.rules().contains(&"S8"));
}

#[test]
fn who_is_let_in_and_should_not_be() {
    let mut history = History::new();
    history.model.attempts[0].right_pin = false;
    assert_eq!(history.rules(), ["S8"]);
    history.model.told(0, Told::Failed(3), 1_300);
    assert!(!history.seen_at(5_000).contains(&"S8"));

    for (from_ms, to_ms, is_wrong) in [(500, 900, true), (900, 1_100, false)] {
        let mut disabled = History::new();
        let what = What::SetUser {
            user: USER,
            enabled: false,
        };
        disabled.did(what, from_ms, to_ms);
        let wrong: &[&str] = if is_wrong { &["S8"] } else { &[] };
        assert_eq!(disabled.rules(), wrong, "{from_ms}");
    }
    // Somebody enabled them while they waited for the answer, or only after it.
    for (is_enabled, from_ms, to_ms, wrong) in [
        (true, 1_100, 1_150, &[][..]),
        (true, 1_301, 1_400, &["S8"]),
        // To disable them once more lets nobody in.
        (false, 1_100, 1_150, &["S8"]),
    ] {
        let mut enabled = History::new();
        let set = |enabled| What::SetUser {
            user: USER,
            enabled,
        };
        enabled.did(set(false), 500, 900);
        enabled.did(set(is_enabled), from_ms, to_ms);
        assert_eq!(enabled.rules(), wrong, "{is_enabled} {from_ms}");
    }
}

#[test]
fn a_peer_that_is_removed_is_told_first() {
    let mut history = History::new();
    history.dumps[1].rows[0] = ended(history.dumps[1].rows[0].clone(), EndReason::Revoked);
    history.dumps[1].rows[0].owed = true;
    history.dumps[1].peers.remove(&BERLIN);
    let what = What::RemovePeer {
        at: TOKYO,
        peer: BERLIN,
        for_ms: None,
    };
    history.did(what, 10_000, 10_500);
    assert_eq!(history.seen_at(39_000), [""; 0]);
    assert_eq!(history.seen_at(40_000), ["S8"]);
    // It could not be told.
    let (a, b) = (Node(BERLIN.0, 0), Node(TOKYO.0, 0));
    history.did(What::Kill { a, b }, 10_100, 10_100);
    assert_eq!(history.seen_at(40_000), [""; 0]);
}

#[test]
fn a_page_that_tells_something_else() {
    let mut history = History::new();
    history.shown = vec![(PHONE, Shown::Nobody)];
    assert_eq!(history.rules(), ["S3"]);
    history.shown = vec![(PHONE, Shown::In(User(1, 3)))];
    assert_eq!(history.rules(), ["S3"]);
}

#[test]
fn who_is_locked_out_by_a_session_that_failed() {
    let mut history = History::new();
    history.model.told(0, Told::Failed(31), 2_000);
    history.dumps[0].rows[0] = ended(row(Role::Visiting, TOKYO, 1), EndReason::Abandoned);
    history.dumps[0].rows[0].owed = true;
    let again = history
        .model
        .login(reference(9), Phone(0, 3), USER, true, 3_000);
    let refused = |history: &History| {
        let mut checker = Checker::new(&history.plan);
        let attempt = history.model.attempts[again].clone();
        checker.refused_elsewhere(4_000, &attempt, &history.dumps, &history.model);
        checker.wrong.len()
    };
    assert_eq!(refused(&history), 1);
    // Another session of theirs is a reason.
    let mut with_another = History {
        dumps: history.dumps.clone(),
        ..history
    };
    with_another.dumps[1].rows.push(row(Role::Home, LIMA, 2));
    assert_eq!(refused(&with_another), 0);
    // So is one that the phone's cluster has not given up.
    with_another.dumps[1].rows.pop();
    with_another.dumps[0].rows[0].owed = false;
    assert_eq!(refused(&with_another), 0);
}

/// An operator of either side, or of the base devices, was told of the end of the session or that there is nobody.
#[test]
fn what_operators_were_told_to_be_over_is_over_then() {
    let base = Base(TOKYO.0, 1);
    let (user, phone, node) = (USER, PHONE, 0);
    for (at, what) in [
        (BERLIN, What::EndAtVisiting { phone, node }),
        (TOKYO, What::EndAtHome { user, node }),
        (TOKYO, What::RemoveBase { base, for_ms: 1 }),
    ] {
        let told = |answer, over_ms: Option<u64>| {
            let mut history = History::new();
            let done = history.model.begin(what.clone(), 3_000);
            history.model.answered(done, answer, 3_100);
            history.model.end(done, 9_000);
            if let Some(over_ms) = over_ms {
                history.ends(BERLIN, over_ms, EndReason::Operator, Initiator::Home);
                history.ends(TOKYO, over_ms, EndReason::Operator, Initiator::Home);
                history.shown.clear();
            }
            history
        };
        let none = [""; 0];
        assert_eq!(told(Answer::Done, Some(3_050)).rules(), none, "{what:?}");
        assert_eq!(told(Answer::Done, Some(3_101)).rules(), ["S4"], "{what:?}");
        assert_eq!(told(Answer::Done, None).rules(), ["S4"], "{what:?}");
        assert_eq!(told(Answer::Nobody, None).rules(), ["S4"], "{what:?}");
        assert_eq!(told(Answer::Nothing, None).rules(), none, "{what:?}");
        // Somebody who was told later may have come later.
        let mut later = told(Answer::Done, None);
        later.model.attempts[0].ended_ms = Some(3_000);
        assert_eq!(later.rules(), none, "{what:?}");
        // A database of before knows nothing of it; one of since does.
        for (age_ms, wrong) in [(2_000, &none[..]), (500, &["S4"])] {
            let mut restored = told(Answer::Done, None);
            restored.did(restore(at, age_ms), 4_000, 4_500);
            assert_eq!(restored.rules(), wrong, "{what:?}");
        }
    }
    // Whoever was told that there was nobody has ended nothing.
    let mut nobody = History::new();
    nobody.model.attempts[0].ended_ms = Some(3_050);
    let done = nobody.model.begin(What::EndAtHome { user, node }, 3_000);
    nobody.model.answered(done, Answer::Nobody, 3_100);
    nobody.model.end(done, 3_100);
    nobody.ends(TOKYO, 3_060, EndReason::Operator, Initiator::Home);
    nobody.ends(BERLIN, 3_070, EndReason::Operator, Initiator::Home);
    nobody.shown.clear();
    assert_eq!(nobody.rules(), ["S4"]);
}

#[test]
fn an_operator_explains_what_ended_soon_and_the_session_of_that_base_device() {
    for (base, told, over_ms, is_explained) in [
        (1, 3_100, 3_050, true),
        (1, 3_100, 11_100, true),
        (1, 3_100, 11_101, false),
        (2, 3_100, 3_050, false),
    ] {
        let mut history = History::new();
        // Nobody was told, so that only the reason counts.
        let (base, for_ms) = (Base(TOKYO.0, base), 1);
        let done = history
            .model
            .begin(What::RemoveBase { base, for_ms }, 3_000);
        history.model.answered(done, Answer::Nothing, told);
        history.model.end(done, 30_000);
        history.ends(TOKYO, over_ms, EndReason::Operator, Initiator::Home);
        history.ends(BERLIN, 20_000, EndReason::Operator, Initiator::Home);
        history.shown.clear();
        let wrong: &[&str] = if is_explained { &[] } else { &["S4"] };
        assert_eq!(history.rules(), wrong, "{base} {over_ms}");
    }
}

#[test]
fn an_acknowledged_logout_after_which_the_session_goes_on_for_a_while() {
    for (over_ms, is_wrong) in [(5_100, false), (5_101, true)] {
        let mut history = History::new();
        let logout = history.model.logout(PHONE, 5_000);
        history.model.logged_out(logout, true, 5_100);
        history.ends(BERLIN, over_ms, EndReason::User, Initiator::Visiting);
        history.ends(TOKYO, 5_200, EndReason::User, Initiator::Visiting);
        history.shown.clear();
        let wrong: &[&str] = if is_wrong { &["S4"] } else { &[] };
        assert_eq!(history.rules(), wrong, "{over_ms}");
    }
}

#[test]
fn who_is_let_in_though_one_cluster_has_shut_the_other_out() {
    let for_ms = 1;
    for (at, peer) in [(BERLIN, TOKYO), (TOKYO, BERLIN)] {
        let shut_outs = [
            What::DisablePeer { at, peer, for_ms },
            What::RemovePeer {
                at,
                peer,
                for_ms: Some(for_ms),
            },
            What::RevokeTrust {
                at,
                peer,
                for_ms: Some(for_ms),
                only_removed: true,
            },
        ];
        for what in shut_outs {
            let rules = |change: &dyn Fn(&mut History)| {
                let mut history = History::new();
                let attempt = &mut history.model.attempts[0];
                (attempt.began_ms, attempt.ended_ms) = (5_000, Some(5_300));
                let done = history.model.begin(what.clone(), 2_000);
                history.model.answered(done, Answer::Done, 2_500);
                change(&mut history);
                let mut checker = Checker::new(&history.plan);
                checker.let_in(&history.model);
                checker.rules()
            };
            let none = [""; 0];
            assert_eq!(rules(&|_| {}), ["S8"], "{what:?}");
            let undoes = |at_ms| move |history: &mut History| history.model.undoes(0, at_ms);
            assert_eq!(rules(&undoes(5_301)), ["S8"], "{what:?}");
            assert_eq!(rules(&undoes(5_300)), none, "{what:?}");
            let told = |answer, at_ms| {
                move |history: &mut History| history.model.answered(0, answer, at_ms)
            };
            assert_eq!(rules(&told(Answer::Nothing, 2_500)), none, "{what:?}");
            assert_eq!(rules(&told(Answer::Done, 5_000)), none, "{what:?}");
            // Links are cut where the phone is, and that takes a moment.
            let is_cut = matches!(what, What::RevokeTrust { .. }) && at == BERLIN;
            let wrong: &[&str] = if is_cut { &[] } else { &["S8"] };
            assert_eq!(rules(&told(Answer::Done, 3_500)), wrong, "{what:?}");
            let refused = |history: &mut History| history.model.told(0, Told::Failed(38), 5_300);
            assert_eq!(rules(&refused), none, "{what:?}");
            let restored = |history: &mut History| history.did(restore(at, 2_000), 3_000, 3_500);
            assert_eq!(rules(&restored), none, "{what:?}");
            // Somebody takes back what was done to the peer before.
            let another = |history: &mut History| {
                let done = history.model.begin(what.clone(), 1_000);
                history.model.answered(done, Answer::Done, 1_100);
                history.model.undoes(done, 2_600);
            };
            assert_eq!(rules(&another), none, "{what:?}");
        }
    }
}

#[test]
fn a_session_that_outlives_the_trust() {
    let (at, peer, for_ms) = (TOKYO, BERLIN, None);
    let revoked = |over_ms| {
        let mut history = History::new();
        let what = What::RevokeTrust {
            at,
            peer,
            for_ms,
            only_removed: false,
        };
        history.did(what, 3_000, 3_100);
        history.ends(TOKYO, over_ms, EndReason::Revoked, Initiator::Home);
        history
    };
    let rules = |history: &History| {
        let mut checker = Checker::new(&history.plan);
        checker.without_trust(60_000, &history.dumps, &history.model);
        checker.rules()
    };
    assert_eq!(rules(&revoked(11_100)), [""; 0]);
    assert_eq!(rules(&revoked(11_101)), ["S8"]);
    let mut lives = revoked(11_101);
    lives.dumps[1].moves.clear();
    lives.dumps[1].rows[0].state = State::Active;
    assert_eq!(rules(&lives), ["S8"]);
    lives.model.undoes(0, 11_100);
    assert_eq!(rules(&lives), [""; 0]);
    // It was written before the trust was taken back; or once more later, and has its time from then.
    for (born, wrong) in [(&[1_200][..], &["S8"][..]), (&[1_200, 10_000], &[])] {
        let mut again = revoked(11_101);
        let end = again.dumps[1].moves[0].clone();
        let births = born.iter().map(|at_ms| Move {
            at_ms: *at_ms,
            was: None,
            now: Some(State::Active),
            reason: None,
            ..end.clone()
        });
        again.dumps[1].moves.splice(..0, births);
        assert_eq!(rules(&again), wrong, "{born:?}");
    }
    // The node that ends them stood still.
    let mut late = revoked(11_101);
    let node = Node(TOKYO.0, 0);
    late.did(What::Pause { node, for_ms: 1 }, 4_000, 4_500);
    assert_eq!(rules(&late), [""; 0]);
}

#[test]
fn a_login_that_comes_again_after_the_end_and_is_let_in() {
    for (began_ms, is_wrong) in [(4_000, false), (4_001, true)] {
        let mut history = History::new();
        history.did(
            What::EndAtHome {
                user: USER,
                node: 0,
            },
            3_950,
            4_050,
        );
        history.ends(TOKYO, 4_000, EndReason::Operator, Initiator::Home);
        history.ends(BERLIN, 4_100, EndReason::Operator, Initiator::Home);
        history.shown.clear();
        let mut again = call(Asked::Login, 3, Answered::Opened("all".into()));
        again.began_ms = began_ms;
        history.calls.push(again);
        let wrong: &[&str] = if is_wrong { &["S3"] } else { &[] };
        assert_eq!(history.rules(), wrong, "{began_ms}");
    }
}

#[test]
fn a_phone_that_is_told_of_a_failure_before_its_row_has_ended() {
    let rules = |code, state| {
        let mut history = History::new();
        history.model.told(0, Told::Failed(code), 2_000);
        history.dumps[0].rows[0].state = state;
        let mut checker = Checker::new(&history.plan);
        let attempt = history.model.attempts[0].clone();
        checker.ended_before_told(2_000, &attempt, &history.dumps[0], &history.model);
        checker.rules()
    };
    assert_eq!(rules(31, State::Active), ["S3"]);
    assert_eq!(rules(31, State::Pending), ["S3"]);
    assert_eq!(rules(31, State::Ended), [""; 0]);
    // The store has failed, and could not end it.
    assert_eq!(rules(6, State::Pending), [""; 0]);
    // What opens it afterwards does so in time, and is wrong all the same.
    for (at_ms, is_wrong) in [(2_000, false), (2_001, true)] {
        let mut history = History::new();
        history.model.told(0, Told::Failed(6), 2_000);
        history.moves(BERLIN, at_ms, State::Pending, State::Active);
        let wrong: &[&str] = if is_wrong { &["S3"] } else { &[] };
        assert_eq!(history.seen_at(5_000), wrong, "{at_ms}");
    }
}

#[test]
fn a_login_that_failed_and_stays_under_way() {
    let mut history = History::new();
    history.model.told(0, Told::Failed(6), 2_000);
    history.dumps[0].rows[0].state = State::Pending;
    let mut checker = Checker::new(&history.plan);
    for (at_ms, wrong) in [(5_000, 0), (13_000, 0), (13_001, 1)] {
        checker.look(at_ms, &history.dumps, &history.model);
        assert_eq!(checker.wrong.len(), wrong, "{at_ms}");
    }
    // Whoever would end it is down.
    let mut checker = Checker::new(&history.plan);
    let node = Node(BERLIN.0, 1);
    history.did(What::Crash { node, for_ms: 1 }, 6_000, 7_000);
    for at_ms in [5_000, 15_000] {
        checker.look(at_ms, &history.dumps, &history.model);
    }
    assert_eq!(checker.rules(), [""; 0]);
}

#[test]
fn an_end_that_a_node_took_with_it_when_its_disk_stood_still() {
    for (code, crashed_ms, wrong) in [
        (6, 3_000, 0),
        (26, 3_000, 0),
        (6, 12_000, 1),
        (40, 3_000, 1),
    ] {
        let mut history = History::new();
        history.model.told(0, Told::Failed(code), 2_000);
        let node = Node(BERLIN.0, 0);
        history.did(
            What::Crash { node, for_ms: 1 },
            crashed_ms,
            crashed_ms + 500,
        );
        let mut checker = Checker::new(&history.plan);
        for at_ms in [5_000, 30_000] {
            checker.look(at_ms, &history.dumps, &history.model);
        }
        let told = checker.wrong.iter().filter(|one| one.rule == "S3").count();
        assert_eq!(told, wrong, "{code} {crashed_ms}");
    }
}

#[test]
fn two_sessions_of_a_user_for_a_moment() {
    let moved = |row: &Row, at_ms, was, now| Move {
        at_ms,
        role: row.role,
        counterpart: row.counterpart,
        id: row.id,
        reference: row.reference,
        phone: row.phone,
        user: row.user,
        base: row.base.clone(),
        was,
        now: Some(now),
        reason: (now == State::Ended).then_some(EndReason::Superseded),
        initiator: None,
    };
    let (active, ended) = (State::Active, State::Ended);
    for (second, first_over_ms, rules) in [
        (Second::AutoLogout, 4_000, &[][..]),
        (Second::AutoLogout, 4_001, &["S1"]),
        (Second::Allowed, 4_001, &[]),
    ] {
        let mut history = History::new();
        history.plan.settings.second[1] = second;
        let first = history.dumps[1].rows[0].clone();
        let other = elsewhere(Role::Home, LIMA);
        // In one transaction the second comes first.
        history.dumps[1].moves = vec![
            moved(&first, 1_100, None, active),
            moved(&other, 4_000, None, active),
            moved(&first, first_over_ms, Some(active), ended),
        ];
        history.dumps[1].rows = vec![ended_row(first), other];
        history.dumps[0].rows.clear();
        assert_eq!(history.seen_at(5_000), rules, "{second:?} {first_over_ms}");
    }
    let mut twice = History::new();
    twice.plan.settings.second[1] = Second::Allowed;
    let (first, mut other) = (twice.dumps[1].rows[0].clone(), elsewhere(Role::Home, LIMA));
    other.base.clone_from(&first.base);
    twice.dumps[1].moves = vec![
        moved(&first, 1_100, None, active),
        moved(&other, 4_000, None, active),
        moved(&other, 4_100, Some(active), ended),
    ];
    assert_eq!(twice.seen_at(5_000), ["S2"]);
}

fn ended_row(row: Row) -> Row {
    ended(row, EndReason::Superseded)
}

#[test]
fn what_is_forgotten_and_comes_again() {
    let mut history = History::new();
    history.ends(TOKYO, 3_000, EndReason::Operator, Initiator::Home);
    history.ends(BERLIN, 3_000, EndReason::Operator, Initiator::Home);
    let last = history.dumps[1].moves[0].clone();
    let change = |at_ms, was, now| Move {
        at_ms,
        was,
        now,
        reason: None,
        ..last.clone()
    };
    let (active, ended) = (Some(State::Active), Some(State::Ended));
    history.dumps[1].moves.push(change(3_100, ended, None));
    assert_eq!(history.seen_at(5_000), ["S4"]);
    history.dumps[1].moves.push(change(3_200, None, active));
    history.dumps[1].moves.push(change(3_300, active, ended));
    assert_eq!(history.seen_at(5_000), ["S3", "S4"]);
    // A database of before has it as it was.
    let mut checker = Checker::new(&history.plan);
    history.dumps[1].moves.truncate(1);
    checker.changes(&history.dumps, &history.model);
    let before = History::new().dumps[1].clone();
    history.dumps[1].rows.clone_from(&before.rows);
    checker.restored(TOKYO, &history.dumps[1]);
    history.dumps[1].moves.push(change(3_400, active, ended));
    checker.changes(&history.dumps, &history.model);
    assert_eq!(checker.rules(), [""; 0]);
}

#[test]
fn a_run_that_ends_before_all_was_judged() {
    let mut history = History::new();
    let operator = What::EndAtHome {
        user: USER,
        node: 0,
    };
    history.did(operator, 3_000, 3_100);
    history.ends(TOKYO, 3_050, EndReason::Operator, Initiator::Home);
    history.dumps[1].rows[0].owed = true;
    let healed = history.plan.healed_at_ms();
    assert_eq!(history.rules_at(healed + 41_999), ["run"]);
    assert_eq!(history.rules_at(healed + 42_000), ["S5", "S6"]);
    // What was planned takes longer.
    let node = Node(LIMA.0, 0);
    history.did(What::Crash { node, for_ms: 1 }, 4_000, healed + 5_000);
    assert_eq!(history.rules(), ["run"]);
    // All has come to rest by then.
    let mut rest = History::new();
    rest.did(What::Crash { node, for_ms: 1 }, 4_000, healed + 5_000);
    assert_eq!(rest.rules(), [""; 0]);
}

#[test]
fn two_sides_that_have_one_session_of_different_people_or_ends_for_different_reasons() {
    let mut history = History::new();
    history.dumps[1].rows[0].user = Some(User(1, 3));
    assert_eq!(history.rules(), ["S5"]);
    let mut history = History::new();
    history.dumps[1].rows[0].phone = Some(Phone(0, 2));
    assert_eq!(history.rules(), ["S5"]);

    let mut ends = History::new();
    let logout = ends.model.logout(PHONE, 5_000);
    ends.model.logged_out(logout, true, 5_100);
    let operator = What::EndAtHome {
        user: USER,
        node: 0,
    };
    ends.did(operator, 5_000, 5_100);
    ends.ends(BERLIN, 5_050, EndReason::User, Initiator::Visiting);
    ends.ends(TOKYO, 5_050, EndReason::Operator, Initiator::Home);
    ends.shown.clear();
    assert_eq!(ends.rules(), ["S5"]);
    // Home's reason counts, once visiting knows it.
    ends.dumps[0].rows[0].reason = Some(EndReason::Operator);
    assert_eq!(ends.rules(), [""; 0]);
}

#[test]
fn the_phone_of_a_user_who_was_disabled_while_nothing_was_broken() {
    let set = |enabled| What::SetUser {
        user: USER,
        enabled,
    };
    let disabled = || {
        let mut history = History::new();
        history.did(set(false), 10_000, 10_100);
        history.dumps[1].rows[0] = ended(history.dumps[1].rows[0].clone(), EndReason::Revoked);
        history.dumps[1].rows[0].owed = true;
        history
    };
    assert_eq!(disabled().seen_at(39_999), [""; 0]);
    assert_eq!(disabled().seen_at(40_000), ["S8"]);
    let mut told = disabled();
    told.dumps[0].rows[0] = ended(told.dumps[0].rows[0].clone(), EndReason::Revoked);
    assert_eq!(told.seen_at(40_000), [""; 0]);
    let mut again = disabled();
    again.did(set(true), 10_150, 10_200);
    assert_eq!(again.seen_at(40_000), [""; 0]);
    let mut cut = disabled();
    let (a, b) = (Node(BERLIN.0, 0), Node(TOKYO.0, 0));
    cut.did(What::Kill { a, b }, 10_100, 10_100);
    assert_eq!(cut.seen_at(40_000), [""; 0]);
}
