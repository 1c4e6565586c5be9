//! The checker on histories made by hand: each bad one it must find, and a good one not.

use super::*;
use crate::lab::sim::plan::{Base, Settings, Step};

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
        let attempt = model.login(reference(1), PHONE, USER, 1_000);
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
        self.model.end(done, true, to_ms);
        self.plan.steps.push(Step {
            at_ms: from_ms,
            what,
        });
    }

    fn rules(&self) -> Vec<&'static str> {
        self.rules_at(100_000)
    }

    fn rules_at(&self, at_ms: u64) -> Vec<&'static str> {
        let checker = Checker::new(&self.plan);
        let wrong = checker.finish(at_ms, &self.dumps, &self.model, &self.shown, &self.calls);
        let rules: BTreeSet<_> = wrong.iter().map(|wrong| wrong.rule).collect();
        rules.into_iter().collect()
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
        answered: Some(answered),
    }
}

#[test]
fn a_good_history_is_good() {
    assert_eq!(History::new().rules(), [""; 0]);
    let mut history = History::new();
    history.model.logout(PHONE, 5_000);
    history.model.logged_out(0, 5_100);
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
    checker.look(5_000, &before, &history.model);
    assert!(checker.wrong.is_empty());
    let mut restored = Checker {
        plan: history.plan.clone(),
        seen: checker.seen.clone(),
        late: BTreeMap::new(),
        wrong: BTreeSet::new(),
    };
    checker.look(10_000, &history.dumps, &history.model);
    assert_eq!(checker.wrong.iter().next().unwrap().rule, "S3");
    restored.restored(TOKYO);
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
        let what = What::Restore {
            cluster: TOKYO,
            age_ms: 1,
            for_ms: 1,
        };
        history.did(what, 3_000, 4_000);
        assert_eq!(history.rules(), [""; 0]);
    }
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
    let what = What::Restore {
        cluster: BERLIN,
        age_ms: 1,
        for_ms: 1,
    };
    history.did(what, 3_000, 4_000);
    assert_eq!(history.rules(), [""; 0]);
}

#[test]
fn an_acknowledged_logout_after_which_the_session_lives() {
    let mut history = History::new();
    history.model.logout(PHONE, 5_000);
    assert_eq!(history.rules(), [""; 0], "the phone was not told");
    history.model.logged_out(0, 5_100);
    assert_eq!(history.rules(), ["S4"]);
}

#[test]
fn sides_that_differ() {
    let operator = What::EndAtHome {
        user: USER,
        node: 0,
    };
    for at in [0, 1] {
        let mut history = History::new();
        history.did(operator.clone(), 3_000, 3_100);
        let one = history.dumps[at].rows[0].clone();
        history.dumps[at].rows[0] = ended(one, EndReason::Operator);
        if at == 0 {
            history.shown.clear();
        }
        assert_eq!(history.rules(), ["S5"]);
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
fn an_end_that_stays_owed() {
    let mut history = History::new();
    history.model.logout(PHONE, 5_000);
    history.model.logged_out(0, 5_100);
    history.end(EndReason::User);
    history.dumps[0].rows[0].owed = true;
    assert_eq!(history.rules(), ["S6"]);
    history.dumps[0].peers.remove(&TOKYO);
    assert_eq!(history.rules(), [""; 0]);
}

#[test]
fn ends_that_come_too_early_or_never() {
    let mut history = History::new();
    history.plan.settings.limit_minutes = Some(1);
    assert_eq!(history.rules_at(70_000), [""; 0]);
    assert_eq!(history.rules_at(90_000), ["S7"], "never");
    history.end(EndReason::Expired);
    history.dumps[1].rows[0].initiator = Some(Initiator::Home);
    history.dumps[0].rows[0].initiator = Some(Initiator::Home);
    assert_eq!(history.rules_at(62_000), [""; 0]);
    assert_eq!(history.rules_at(60_000), ["S7"], "a second too early");
    history.dumps[0].rows[0].initiator = Some(Initiator::Visiting);
    assert_eq!(
        history.rules_at(62_000),
        ["S7"],
        "visiting waits a minute longer"
    );
    history.plan.settings.limit_minutes = None;
    assert_eq!(history.rules_at(500_000), ["S4", "S7"], "it had no limit");
}

#[test]
fn time_may_be_lost_only_while_nobody_watches_and_by_a_clock_that_jumps() {
    let mut history = History::new();
    history.plan.settings.limit_minutes = Some(1);
    history.end(EndReason::Expired);
    assert_eq!(history.rules_at(30_000), ["S7"]);
    let node = Node(TOKYO.0, 0);
    let jump = What::Clock {
        node,
        offset_ms: 86_400_000,
    };
    history.did(jump, 5_000, 5_000);
    history.dumps[0].rows[0].initiator = Some(Initiator::Home);
    assert_eq!(history.rules_at(30_000), ["S7"]);
    history.did(What::Crash { node, for_ms: 1 }, 6_000, 7_000);
    assert_eq!(history.rules_at(30_000), [""; 0]);
}

#[test]
fn whoever_lost_the_right_and_stays() {
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
    let again = history.model.login(reference(9), Phone(0, 3), USER, 3_000);
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
