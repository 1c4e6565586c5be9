//! The disk of a simulated cluster: what is durable, when, and what goes wrong.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::{
    chance::Chance,
    fault::{self, Bug},
    store::{
        Error, Store,
        inline::{Disk, Power, Schedule, Trouble},
        meta,
        suite::{each_engine_must, increment},
    },
};

each_engine_must!(in_turn, super::open(&super::Disk::new()));

fn open(disk: &Disk) -> (Store, Power) {
    Store::on(disk, "n1", Schedule::prompt())
}

fn slow(seed: u64) -> Schedule {
    Schedule {
        before: Duration::from_millis(100),
        after: Duration::from_millis(100),
        stalls: 0,
        ..Schedule::common(Chance::seeded(seed))
    }
}

fn durable(disk: &Disk) -> i64 {
    let text = disk.with(|tx| meta::get(tx, "n")).unwrap();
    text.map_or(0, |text| text.parse().unwrap())
}

async fn add(store: &Store) -> Result<i64, Error> {
    store.write(|tx| increment(tx, "n")).await
}

#[tokio::test(start_paused = true)]
async fn whatever_moment_the_power_is_cut_at_what_was_told_is_there_and_the_rest_may_be() {
    let (mut seen, template) = ([0; 3], Disk::new());
    for after in 0..200 {
        let disk = template.copy();
        let (store, power) = Store::on(&disk, "n1", slow(after));
        let told = timeout(Duration::from_millis(after), add(&store)).await;
        power.cut();
        let there = durable(&disk);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(durable(&disk), there, "nothing is written any more");
        let case = match (told, there) {
            (Err(_), 0) => 0,
            (Err(_), 1) => 1,
            (Ok(Ok(1)), 1) => 2,
            other => panic!("{other:?}"),
        };
        seen[case] += 1;
    }
    assert!(seen.iter().all(|times| *times > 5), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_disk_outlives_its_nodes_and_tells_each_of_what_the_other_wrote() {
    let disk = Disk::new();
    let (one, power) = open(&disk);
    let (two, _) = Store::on(&disk, "n2", Schedule::prompt());
    let mut changes = two.changes();
    changes.mark_unchanged();
    assert_eq!(add(&one).await.unwrap(), 1);
    assert!(changes.has_changed().unwrap());
    assert_eq!(add(&two).await.unwrap(), 2);
    power.cut();
    assert!(matches!(add(&one).await, Err(Error::Closed)));
    let (again, _) = open(&disk);
    assert_eq!(add(&again).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_a_disk_refuses_is_not_there_and_what_it_takes_afterwards_is() {
    let disk = Disk::new();
    let (store, _) = open(&disk);
    assert_eq!(add(&store).await.unwrap(), 1);
    disk.set_trouble(Trouble::Commits);
    assert!(matches!(add(&store).await, Err(Error::Commit(_))));
    assert!(store.failing().is_some());
    disk.set_trouble(Trouble::Busy);
    assert!(matches!(add(&store).await, Err(Error::Busy)));
    disk.set_trouble(Trouble::Full);
    let much = "x".repeat(1 << 16);
    let refused = store
        .write(move |tx| meta::put(tx, "much", &much))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, Error::Statement { .. } | Error::Commit(_)),
        "{refused:?}"
    );
    disk.set_trouble(Trouble::None);
    assert_eq!(add(&store).await.unwrap(), 2);
    assert!(store.failing().is_none());
    assert_eq!(durable(&disk), 2);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_held_up_does_nothing_until_it_is_let_go() {
    let disk = Disk::new();
    let (store, power) = open(&disk);
    power.hold(true);
    let began = Instant::now();
    let (added, read, ()) =
        tokio::join!(add(&store), store.look_up(|tx| meta::get(tx, "n")), async {
            sleep(Duration::from_secs(20)).await;
            assert_eq!(durable(&disk), 0);
            power.hold(false);
        });
    let read: Result<Option<String>, Error> = read;
    assert_eq!(added.unwrap(), 1);
    read.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn an_old_state_can_be_put_back_and_a_copy_goes_its_own_way() {
    let disk = Disk::new();
    let (store, power) = open(&disk);
    add(&store).await.unwrap();
    let (old, copy) = (disk.snapshot(), disk.copy());
    add(&store).await.unwrap();
    power.cut();
    assert_eq!((durable(&disk), durable(&copy)), (2, 1));
    disk.restore(&old);
    assert_eq!(durable(&disk), 1);
    let (store, _) = open(&disk);
    assert_eq!(add(&store).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_same_lots_take_the_same_time() {
    let run = || async {
        let (store, _) = Store::on(&Disk::new(), "n1", slow(4));
        let began = Instant::now();
        let mut times = Vec::new();
        for _ in 0..20 {
            add(&store).await.unwrap();
            times.push(began.elapsed());
        }
        times
    };
    assert_eq!(run().await, run().await);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_answers_before_it_is_durable_loses_what_it_told() {
    let _buggy = fault::with_bug(Bug::AckBeforeCommit);
    let disk = Disk::new();
    let (store, power) = open(&disk);
    add(&store).await.unwrap();
    power.cut();
    assert_eq!(durable(&disk), 0);
}
