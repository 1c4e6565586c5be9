//! Seeds, run: many of them, the ones that once failed, and some with a bug put in.

use std::{fs, path::PathBuf, sync::OnceLock};

use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

use super::{
    checker::{Counts, Wrong},
    driver::{self, Outcome},
    plan::Plan,
    shrink::shrink,
};
use crate::fault::{Bug, with_bug};

/// How many seeds each of the eight tests runs.
const EACH: u64 = 250;
/// The same when asked for more.
const EACH_LONG: u64 = 6_250;

fn each() -> u64 {
    match std::env::var_os("EMCCD_LONG") {
        Some(_) => EACH_LONG,
        None => EACH,
    }
}

fn told(wrong: &[Wrong]) -> String {
    let lines: Vec<_> = wrong.iter().map(|one| format!("  {one}")).collect();
    lines.join("\n")
}

/// Runs one seed; a panic of the product counts as a failure of the seed like any other.
fn failure_of(plan: &Plan) -> Option<String> {
    let ran = std::panic::catch_unwind(|| driver::run(plan));
    match ran {
        Ok(Outcome { wrong, .. }) if wrong.is_empty() => None,
        Ok(Outcome { wrong, .. }) => Some(told(&wrong)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(format!("  it panicked: {}", text.unwrap_or_default()))
        }
    }
}

#[track_caller]
fn holds(seeds: std::ops::Range<u64>) {
    let mut failed = Vec::new();
    for seed in seeds {
        let plan = Plan::of(seed);
        if let Some(failure) = failure_of(&plan) {
            if failed.is_empty() {
                println!(
                    "seed {seed} fails:\n{failure}\nits plan:\n{}",
                    plan.to_json()
                );
            }
            println!("seed {seed}:\n{failure}");
            failed.push(seed);
        }
    }
    assert!(
        failed.is_empty(),
        "the rules of sessions don't hold for the seeds {failed:?}; run one again with \
         EMCCD_SIM_SEED={} cargo test --lib sim::seeds::replay -- --nocapture",
        failed[0]
    );
}

fn part(n: u64) -> std::ops::Range<u64> {
    n * each()..(n + 1) * each()
}

#[test]
fn seeds_0() {
    holds(part(0));
}

#[test]
fn seeds_1() {
    holds(part(1));
}

#[test]
fn seeds_2() {
    holds(part(2));
}

#[test]
fn seeds_3() {
    holds(part(3));
}

#[test]
fn seeds_4() {
    holds(part(4));
}

#[test]
fn seeds_5() {
    holds(part(5));
}

#[test]
fn seeds_6() {
    holds(part(6));
}

#[test]
fn seeds_7() {
    holds(part(7));
}

/// Twice the same seed is twice the same run: every packet, every answer and every row.
#[test]
fn a_seed_is_one_course_of_events() {
    for seed in 0..20 {
        let plan = Plan::of(seed);
        let (one, other) = (driver::run(&plan), driver::run(&plan));
        assert_eq!(one.trace, other.trace, "seed {seed}");
        assert_eq!(one.wrong, other.wrong, "seed {seed}");
    }
}

/// What nothing happens in says nothing: most runs must have logins that succeed, and some that don't; and each check
/// must have met what it is about.
#[test]
fn runs_are_about_something() {
    let all: Vec<_> = (0..60).map(|seed| driver::run(&Plan::of(seed))).collect();
    let sum = |n: usize| all.iter().map(|run| run.told[n]).sum::<usize>();
    println!("in, refused, unanswered: {} {} {}", sum(0), sum(1), sum(2));
    let told: Vec<_> = all.iter().map(|run| run.told).collect();
    assert!(sum(0) > 300 && sum(1) > 150 && sum(2) > 9, "{told:?}");
    assert!(
        told.iter().filter(|told| told[0] > 0).count() >= 54,
        "{told:?}"
    );
    let mut judged = Counts::new();
    for (what, count) in all.iter().flat_map(|run| &run.judged) {
        *judged.entry(what.clone()).or_default() += count;
    }
    println!("{judged:#?}");
    let few = |(what, least): &&(&str, usize)| judged.get(*what).is_none_or(|met| met < least);
    let too_few: Vec<_> = JUDGED.iter().filter(few).collect();
    assert_eq!(too_few, [] as [&(&str, usize); 0], "{judged:#?}");
}

/// How often sixty runs meet what there is to judge, at least: about a quarter of what they do.
const JUDGED: [(&str, usize); 38] = [
    ("S1 moments", 500),
    ("S3 asked after the end was told", 25),
    ("S3 asked again", 7),
    ("S3 failures told", 50),
    ("S3 logins asked after the end", 2),
    ("S3 openings", 150),
    ("S4 a logout", 80),
    ("S4 an operator", 45),
    ("S4 another login", 25),
    ("S4 ends by operators", 45),
    ("S4 it lives", 150),
    ("S4 its time was over", 7),
    ("S4 logouts", 50),
    ("S5 ended since it was lacked", 4),
    ("S5 reasons", 40),
    ("S5 shared", 20),
    ("S6 debts looked at", 20),
    ("S7 expired", 4),
    ("S8 disabled users' phones", 8),
    ("S8 logins after trust was removed", 1),
    ("S8 logins after trust was revoked", 1),
    ("S8 logins of disabled users", 4),
    ("S8 logins with disabled peers", 3),
    ("S8 logins with removed peers", 6),
    ("S8 peers told of a removal", 2),
    ("home abandoned", 20),
    ("home expired", 4),
    ("home operator", 25),
    ("home revoked", 2),
    ("home superseded", 15),
    ("home user", 45),
    ("visiting abandoned", 20),
    ("visiting expired", 4),
    ("visiting operator", 24),
    ("visiting refused", 40),
    ("visiting revoked", 2),
    ("visiting superseded", 14),
    ("visiting user", 45),
];

/// Tells how much simulated time has passed since the first line.
#[derive(Default)]
struct Simulated(OnceLock<tokio::time::Instant>);

impl FormatTime for Simulated {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        let now = tokio::time::Instant::now();
        write!(
            w,
            "{:>9.3}",
            (now - *self.0.get_or_init(|| now)).as_secs_f64()
        )
    }
}

/// One seed, or one plan of a file, with all that is logged: for people. Without either there is nothing to do.
#[test]
fn replay() {
    let of = |name| std::env::var(name).ok();
    let plan = match (of("EMCCD_SIM_SEED"), of("EMCCD_SIM_PLAN")) {
        (Some(seed), _) => Plan::of(seed.parse().unwrap()),
        (None, Some(file)) => Plan::from_json(&fs::read_to_string(file).unwrap()),
        (None, None) => return,
    };
    println!("{}", plan.to_json());
    // What nodes log, for the first run.
    let log = std::env::var("EMCCD_SIM_LOG").ok().map(|filter| {
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_timer(Simulated::default())
            .with_test_writer()
            .finish();
        tracing::subscriber::set_default(log)
    });
    let began = std::time::Instant::now();
    let outcome = driver::run(&plan);
    drop(log);
    println!("{outcome:?} in {:?}", began.elapsed());
    if outcome.wrong.is_empty() {
        return;
    }
    let rule = outcome.wrong[0].rule;
    let fails = |plan: &Plan| {
        driver::run(plan)
            .wrong
            .iter()
            .any(|wrong| wrong.rule == rule)
    };
    let tries = std::env::var("EMCCD_SIM_TRIES").map_or(0, |tries| tries.parse().unwrap());
    let least = shrink(&plan, tries, fails);
    if least != plan {
        println!("as few steps as still break {rule}:\n{}", least.to_json());
        println!("{}", told(&driver::run(&least).wrong));
    }
    panic!("\n{}", told(&outcome.wrong));
}

/// Plans that once found something.
#[test]
fn what_once_failed_holds() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sim");
    let files = fs::read_dir(&folder).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(
        !files.is_empty(),
        "there is nothing in {}",
        folder.display()
    );
    for file in files {
        let plan = Plan::from_json(&fs::read_to_string(&file).unwrap());
        if let Some(failure) = failure_of(&plan) {
            panic!("{} fails again:\n{failure}", file.display());
        }
    }
}

/// Puts a bug in: by it some seed of the first 500 must break one of these rules, and not without it.
#[track_caller]
fn is_caught(bug: Bug, rules: &[&str]) {
    for seed in 0..500 {
        let plan = Plan::of(seed);
        let wrong = {
            let _buggy = with_bug(bug);
            driver::run(&plan).wrong
        };
        if wrong.iter().any(|one| rules.contains(&one.rule)) {
            println!("{bug:?} is caught by seed {seed}:\n{}", told(&wrong));
            assert_eq!(
                failure_of(&plan),
                None,
                "seed {seed} fails without {bug:?}, too"
            );
            return;
        }
        // Something else that it breaks is no proof that its rule is watched.
        if !wrong.is_empty() {
            println!("{bug:?} breaks by seed {seed}:\n{}", told(&wrong));
        }
    }
    panic!("no seed of 500 has noticed {bug:?}");
}

#[test]
fn a_dropped_outbox_is_noticed() {
    is_caught(Bug::OutboxDropped, &["S5", "S6"]);
}

#[test]
fn a_pending_row_promoted_late_is_noticed() {
    is_caught(Bug::PendingPromotedLate, &["S3"]);
}

#[test]
fn a_login_on_a_tombstone_is_noticed() {
    is_caught(Bug::LoginOnTombstone, &["S3"]);
}

#[test]
fn an_answer_before_its_commit_is_noticed() {
    is_caught(Bug::AckBeforeCommit, &["S4"]);
}

/// Each cluster writes its own rows alone: what beats the other side's end is left as it is, and no ended row lives again.
#[test]
fn active_that_beats_ended_is_noticed() {
    is_caught(Bug::ActiveBeatsEnded, &["S5"]);
}

#[test]
fn a_row_ended_too_young_is_noticed() {
    is_caught(Bug::RowEndedTooYoung, &["S4", "S5"]);
}

#[test]
fn expiry_by_the_wall_clock_is_noticed() {
    is_caught(Bug::ExpiryByWallClock, &["S7"]);
}
