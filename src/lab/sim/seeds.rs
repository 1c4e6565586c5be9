//! Seeds, run: many of them, the ones that once failed, and some with a bug put in.

use std::{fs, path::PathBuf, sync::OnceLock};

use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

use super::{
    checker::Wrong,
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

/// What nothing happens in says nothing: most runs must have logins that succeed, and some that don't.
#[test]
fn runs_are_about_something() {
    let all: Vec<_> = (0..20)
        .map(|seed| driver::run(&Plan::of(seed)).told)
        .collect();
    let sum = |n: usize| all.iter().map(|told| told[n]).sum::<usize>();
    println!("in, refused, unanswered: {} {} {}", sum(0), sum(1), sum(2));
    assert!(sum(0) > 100 && sum(1) > 50 && sum(2) > 3, "{all:?}");
    assert!(
        all.iter().filter(|told| told[0] > 0).count() >= 18,
        "{all:?}"
    );
}

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

/// Puts a bug in: by it some seed of the first 500 must break one of these rules, and not without it. The seeds from
/// `first` come first: which one notices is known.
#[track_caller]
fn is_caught(bug: Bug, rules: &[&str], first: u64) {
    for seed in (first..500).chain(0..first) {
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
    is_caught(Bug::OutboxDropped, &["S5", "S6"], 0);
}

#[test]
fn a_pending_row_promoted_late_is_noticed() {
    is_caught(Bug::PendingPromotedLate, &["S3"], 0);
}

#[test]
fn a_login_on_a_tombstone_is_noticed() {
    is_caught(Bug::LoginOnTombstone, &["S3"], 0);
}

#[test]
fn an_answer_before_its_commit_is_noticed() {
    is_caught(Bug::AckBeforeCommit, &["S4"], 0);
}

#[test]
fn active_that_beats_ended_is_noticed() {
    is_caught(Bug::ActiveBeatsEnded, &["S5"], 0);
}

#[test]
fn a_row_ended_too_young_is_noticed() {
    is_caught(Bug::RowEndedTooYoung, &["S4", "S5"], 0);
}

#[test]
fn expiry_by_the_wall_clock_is_noticed() {
    is_caught(Bug::ExpiryByWallClock, &["S7"], 0);
}
