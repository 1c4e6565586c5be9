//! Many rotations in a row: nothing is left over, nothing grows, and the link is never down.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use emccd::lab::member::Member;
use tokio_util::sync::CancellationToken;

use super::operator::{self, PATIENCE, accepted, shown, until, until_agreed, until_linked};
use crate::support::{is_long, lab_of_processes};

/// Rows of what lives for a while, such as the questions of the looks.
const ROWS: i64 = 20;
/// What may come and go between two looks at a node.
const FILES: i64 = 12;
const MEMORY: i64 = 24 << 20;

/// What a node holds of the system.
#[derive(Clone, Copy, Debug)]
struct Held {
    files: i64,
    memory: i64,
}

fn held(member: &Member) -> Held {
    let pid = member.pid().unwrap();
    let files = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: i64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    Held {
        files: i64::try_from(files).unwrap(),
        memory: kib << 10,
    }
}

fn last_of(rows: &BTreeMap<String, i64>, table: &str) -> i64 {
    rows.get(table).copied().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::disallowed_methods,
    reason = "the phones look on while the certificates are exchanged"
)]
async fn rotations_in_a_row_leave_nothing_behind() {
    let lab = lab_of_processes(2).await;
    operator::hurry(&lab).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let (here, there) = (berlin.member().unwrap(), tokyo.member().unwrap());
    let stop = CancellationToken::new();
    let asked = Arc::new(AtomicUsize::new(0));
    // Whoever is unknown is refused so only when the other cluster has answered: each look is one at a living link.
    let looks = {
        let (stop, asked) = (stop.clone(), Arc::clone(&asked));
        let phones = [here.phone().unwrap(), there.phone().unwrap()];
        let devices = [berlin, tokyo].map(|c| c.data.phone(0).unwrap().name.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                for (phone, device) in phones.iter().zip(&devices) {
                    let shown = phone.login_at_once(device, None, "nobody", "48031").await;
                    let shown = shown.map_err(|error| format!("{error:?}"))?;
                    if shown.em_code != Some(23) {
                        return Err(shown.text);
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Ok(())
        })
    };
    // After so many everything has been done often enough to have the memory that it needs.
    let (rotations, warm) = if is_long() { (200, 80) } else { (20, 8) };
    let (began, mut first) = (Instant::now(), None);
    let (mut seen, mut sequence) = (BTreeSet::new(), 0);
    let mut rows = [BTreeMap::new(), BTreeMap::new()];
    for round in 0..rotations {
        let before = shown(here).await;
        assert!(seen.insert(before.clone()), "{before} is shown again");
        operator::rotate(here).await;
        assert_ne!(shown(here).await, before, "round {round}");
        let told = operator::sequence_at(there, &berlin.id);
        assert!(told > sequence, "round {round}: {told} after {sequence}");
        sequence = told;
        assert_eq!(accepted(tokyo, berlin).await.len(), 1, "round {round}");
        let left = operator::left_over(here).await;
        assert_eq!(left, Vec::<String>::new(), "round {round}");
        if round == warm {
            first = Some([held(here), held(there)]);
            rows = [here, there].map(operator::rows_by_table);
        }
    }
    let took = began.elapsed();
    stop.cancel();
    let looked = tokio::time::timeout(PATIENCE, looks).await.unwrap();
    looked
        .unwrap()
        .unwrap_or_else(|said| panic!("the link was down: {said}"));
    let last = [held(here), held(there)];
    let looked = asked.load(Ordering::Relaxed);
    println!("{rotations} rotations in {took:?}, {looked} looks; {first:?}, then {last:?}");
    assert!(looked > rotations / 4, "{looked}");
    for (first, last) in first.unwrap().iter().zip(&last) {
        assert!(
            last.files - first.files <= FILES,
            "{first:?}, then {last:?}"
        );
        assert!(
            last.memory - first.memory <= MEMORY,
            "{first:?}, then {last:?}"
        );
    }
    for (first, last) in rows.iter().zip([here, there].map(operator::rows_by_table)) {
        let grown = |(table, count): &(&String, &i64)| **count > last_of(first, table) + ROWS;
        let grown: Vec<_> = last.iter().filter(grown).collect();
        assert!(grown.is_empty(), "{grown:?} after {first:?}");
    }
    until_agreed(tokyo, berlin, &BTreeSet::new()).await;
    until_agreed(berlin, tokyo, &BTreeSet::new()).await;
    until("nothing is on record", async || {
        operator::nothing_on_record(here)
    })
    .await;
    until_linked(&lab).await;
    lab.shut_down().await;
}
