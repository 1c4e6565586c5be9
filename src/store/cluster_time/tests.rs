//! Steps of a wall clock against what goes by cluster time.

use super::*;
use crate::{
    domain::liveness::Incarnation,
    store::{
        Config,
        claims::Task,
        inline::{Disk, Schedule},
        nodes::{Node, register},
    },
};

const DAY_MS: i64 = 86_400_000;

fn store() -> Store {
    Store::open(&Config {
        url: "sqlite::memory:".to_owned(),
        node: "n1".to_owned(),
    })
    .unwrap()
}

async fn on_record(store: &Store) -> Option<Reading> {
    store
        .read(|tx: &mut dyn Transaction| reading(tx))
        .await
        .unwrap()
}

async fn now(store: &Store) -> Timestamp {
    store
        .read(|tx: &mut dyn Transaction| tx.cluster_now())
        .await
        .unwrap()
}

async fn set(store: &Store, at: i64, wall: Timestamp) {
    let at = Timestamp::from_millis(at);
    store
        .write(move |tx: &mut dyn Transaction| put(tx, Reading { at, wall }))
        .await
        .unwrap();
}

async fn claim(store: &Store) -> Claim {
    let run = Incarnation {
        node: "n1".to_owned(),
        instance: "a".to_owned(),
    };
    store
        .write(move |tx: &mut dyn Transaction| {
            claims::take(tx, &Task::expiry(), None, &run, Timestamp::from_millis(1))
        })
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn steps_of_the_keepers_clock_move_nothing() {
    let (store, clock) = (store(), Clock::system());
    begin(&store, "n1", &clock, false).await.unwrap();
    let claim = claim(&store).await;
    let began = now(&store).await;
    for by in [DAY_MS, -DAY_MS, 0] {
        clock.set_offset_millis(by);
        keep(&store, &claim, &clock).await.unwrap();
        let passed = now(&store).await.since(began);
        assert!(passed < Duration::from_secs(60), "{by}: {passed:?}");
        assert!(now(&store).await >= began);
    }
    let lost = Claim {
        generation: 0,
        ..claim
    };
    let refused = keep(&store, &lost, &clock).await.unwrap_err();
    assert!(matches!(refused, Error::ClaimLost { .. }), "{refused}");
}

#[tokio::test]
async fn a_node_alone_crosses_the_time_it_was_away_and_never_goes_back() {
    let clock = Clock::system();
    let wall = clock.now();
    let away = store();
    set(&away, 5_000, wall.minus(Duration::from_secs(3_600))).await;
    begin(&away, "n1", &clock, false).await.unwrap();
    let at = on_record(&away).await.unwrap().at.as_millis();
    assert!((3_605_000..3_665_000).contains(&at), "{at}");

    // Also where that was a moment: many of them are a while.
    let brief = store();
    set(&brief, 5_000, clock.now().minus(Duration::from_secs(3))).await;
    begin(&brief, "n1", &clock, false).await.unwrap();
    let at = on_record(&brief).await.unwrap().at.as_millis();
    assert!((8_000..68_000).contains(&at), "{at}");

    let ahead = store();
    set(&ahead, 5_000, wall.plus(Duration::from_secs(86_400))).await;
    begin(&ahead, "n1", &clock, false).await.unwrap();
    assert_eq!(on_record(&ahead).await.unwrap().at.as_millis(), 5_000);

    let new = store();
    begin(&new, "n1", &clock, false).await.unwrap();
    assert!(on_record(&new).await.unwrap().at >= wall);
}

/// A take-over: the process before had counted up to here, under the same name.
#[tokio::test]
async fn a_clock_set_forth_just_before_a_take_over_ends_nothing() {
    let (store, clock) = (store(), Clock::system());
    set(&store, 5_000, clock.now()).await;
    let before = on_record(&store).await;
    clock.set_offset_millis(DAY_MS);
    begin(&store, "n1", &clock, true).await.unwrap();
    assert_eq!(on_record(&store).await, before, "and nothing is written");
    let at = now(&store).await.as_millis();
    assert!((5_000..65_000).contains(&at), "{at}");

    // One that finds nothing on record begins it all the same.
    let new = self::store();
    begin(&new, "n1", &clock, true).await.unwrap();
    assert!(on_record(&new).await.is_some());
}

#[tokio::test]
async fn a_clock_a_day_ahead_moves_nothing_while_another_node_counts() {
    let (store, clock) = (store(), Clock::system());
    let other = Node {
        run: Incarnation {
            node: "n2".to_owned(),
            instance: "b".to_owned(),
        },
        addresses: Vec::new(),
        software: "emccd".to_owned(),
        started_at: Timestamp::from_millis(1),
        beat: 0,
    };
    store
        .write(move |tx: &mut dyn Transaction| register(tx, &other).map(drop))
        .await
        .unwrap();
    set(&store, 5_000, clock.now()).await;
    clock.set_offset_millis(DAY_MS);
    let counting = async {
        // The other one's next beat.
        tokio::time::sleep(LOOK).await;
        set(&store, 7_000, Timestamp::from_millis(1)).await;
    };
    let (begun, ()) = tokio::join!(begin(&store, "n1", &clock, false), counting);
    begun.unwrap();
    assert_eq!(on_record(&store).await.unwrap().at.as_millis(), 7_000);
}

#[tokio::test(start_paused = true)]
async fn a_node_counts_from_its_start_on_however_late_it_is_asked() {
    let disk = Disk::new();
    let (store, _power) = Store::on(&disk, "n1", Schedule::prompt());
    let clock = Clock::simulated(Timestamp::from_millis(1_000_000));
    begin(&store, "n1", &clock, false).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let at = now(&store).await.as_millis();
    assert!((1_004_000..1_004_100).contains(&at), "{at}");
}
