//! Two clusters of two processes each under a mixed load, while nodes of both are killed, stopped for 20 s and started
//! again, and what lies between them is cut, both ways and one way, and its connections are killed: all at random.
//! Afterwards both sides agree, nobody is owed anything, and whatever phones and operators were told holds.
//!
//! What is done is drawn from a seed, which is printed; `EMCCD_CHAOS_SEED` gives one. When it meets what is up to the
//! machine.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use emccd::{
    chance::Chance,
    clock::Clock,
    lab::{Hosting, Lab, Spec, between::Between},
};
use futures_util::future::join_all;

use crate::support::{binary, is_long, nobody_panicked, rows::settled, set_parameter};

mod faults;
mod load;
mod oracle;

use faults::{between_them, on_nodes};
use load::{Guesser, Operator, Roamer};

const NODES: usize = 2;

/// How long it goes on.
fn length() -> Duration {
    Duration::from_secs(if is_long() { 20 * 60 } else { 2 * 60 })
}

/// How often what happened.
type Counts = BTreeMap<String, u32>;

fn count(counts: &mut Counts, what: impl Into<String>) {
    *counts.entry(what.into()).or_default() += 1;
}

/// Says it to whoever looks on, also when the test passes: what passes is kept from the output otherwise.
fn say(what: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "chaos: {what}");
}

/// The present, as the rows have it.
fn now() -> i64 {
    Clock::system().now().as_millis()
}

fn seed() -> u64 {
    let given = std::env::var("EMCCD_CHAOS_SEED").ok();
    given.map_or_else(|| Chance::system().u64(), |text| text.parse().unwrap())
}

async fn two_by_two() -> (Lab, Between) {
    let lab = Lab::start(&Spec {
        nodes: NODES,
        hosting: Hosting::Processes { binary: binary() },
        paired: false,
        settings: vec![("login".to_owned(), "deadline = \"3s\"".to_owned())],
        ..Spec::default()
    })
    .await
    .unwrap();
    // At one of them the second login wins, at the other one the first.
    set_parameter(&lab.clusters[0], "multiple-login-behavior", "auto-logout").await;
    let between = Between::pair(&lab.clusters[0], &lab.clusters[1])
        .await
        .unwrap();
    (lab, between)
}

async fn linked(lab: &Lab) {
    for (us, them) in [(0, 1), (1, 0)] {
        let (us, them) = (&lab.clusters[us], &lab.clusters[them].id);
        us.wait_linked(them).await.unwrap();
        us.wait_all_up(them).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_befalls_both_sides_they_agree_afterwards_and_what_was_told_holds() {
    let seed = seed();
    say(&format!("EMCCD_CHAOS_SEED={seed}"));
    let chance = Chance::seeded(seed);
    let (mut lab, between) = two_by_two().await;
    let until = Instant::now() + length();

    let mut roamers = Roamer::all(&lab, &chance);
    let mut guessers = Guesser::all(&lab, &chance);
    let mut operators = Operator::all(&lab, &chance);
    let load = async {
        tokio::join!(
            join_all(roamers.iter_mut().map(|r| r.roam(until))),
            join_all(guessers.iter_mut().map(|g| g.guess(until))),
            join_all(operators.iter_mut().map(|o| o.work(until))),
        )
    };
    let (first, second) = lab.clusters.split_at_mut(1);
    let (_, at_first, at_second, on_the_way) = tokio::join!(
        load,
        on_nodes(&mut first[0], chance.fork("first"), until),
        on_nodes(&mut second[0], chance.fork("second"), until),
        between_them(&between, chance.fork("between"), until),
    );
    between.heal();
    linked(&lab).await;

    let began = Instant::now();
    let (one, other) = (&lab.clusters[0], &lab.clusters[1]);
    let (of_first, of_second) = tokio::join!(settled(one, other), settled(other, one));
    let took = began.elapsed();

    let mut counts = Counts::new();
    for (what, number) in [at_first, at_second, on_the_way].into_iter().flatten() {
        *counts.entry(what).or_default() += number;
    }
    let told = oracle::Told {
        roamers: &roamers,
        guessers: &guessers,
        operators: &operators,
    };
    let broken = oracle::judge(&lab, &told, &mut counts).await;
    let live = of_first.len() + of_second.len();
    let mut report = format!(
        "seed {seed}: agreed {:.1} s after the last link was up; {live} rows live",
        took.as_secs_f64()
    );
    for (what, number) in &counts {
        report.push_str(&format!("\n{number:>6}  {what}"));
    }
    say(&report);
    assert!(broken.is_empty(), "seed {seed}: {broken:#?}");
    // None of it was left out, and the load was one.
    for what in faults::ALL {
        for side in &lab.clusters {
            let what = what.replace("{}", side.id.as_str());
            assert!(counts.contains_key(&what), "seed {seed}: never {what}");
        }
    }
    let logins = counts.get("logins acknowledged").copied().unwrap_or(0);
    assert!(logins >= 50, "seed {seed}: {logins} logins");
    nobody_panicked(&lab);
    lab.shut_down().await;
}
