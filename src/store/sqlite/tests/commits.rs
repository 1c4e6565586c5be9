//! Stopping at a commit, before and after.

use std::sync::mpsc;

use rusqlite::Connection;

use super::{config, number};
use crate::{
    fault::FaultPoints,
    store::{Error, Store, suite::increment},
};

async fn second(store: Store) -> Result<i64, Error> {
    store.write(|tx| increment(tx, "n")).await
}

/// What stands in the file after the second commit was stopped at `point`, and whether the writer was told.
async fn stopped_at(point: &str) -> (i64, bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let (report, reported) = mpsc::sync_channel(1);
    let points = FaultPoints::stop_at(point, move |name, writes| {
        assert_eq!(writes.len(), 1, "{writes:?}");
        assert!(writes[0].contains("commits::second"), "{writes:?}");
        report.send(name.to_owned()).unwrap();
    });
    let store = Store::open_with(&config(&path), points).unwrap();
    store.write(|tx| increment(tx, "n")).await.unwrap();
    // Undone and unchanged ones are no commits.
    let nothing: Result<i64, Error> = store
        .write(|tx| increment(tx, "n").and(Err(Error::Busy)))
        .await;
    nothing.unwrap_err();
    store.write(|_| Ok::<_, Error>(())).await.unwrap();
    let writer = store.clone();
    let told = crate::tasks::Tasks::default().spawn("a write", second(writer));
    let name = tokio::task::spawn_blocking(move || reported.recv().unwrap());
    assert_eq!(name.await.unwrap(), point);
    let seen: String = Connection::open(&path)
        .unwrap()
        .query_row("SELECT value FROM meta WHERE name = 'n'", [], |row| {
            row.get(0)
        })
        .unwrap();
    let is_told = told.is_finished();
    told.abort();
    // Its writer never returns: closing the store would wait for it.
    std::mem::forget(store);
    (seen.parse().unwrap(), is_told)
}

#[tokio::test]
async fn nothing_of_a_commit_that_is_stopped_before_it_is_durable() {
    assert_eq!(stopped_at("store.commit.before.2").await, (1, false));
}

#[tokio::test]
async fn a_commit_that_is_stopped_after_it_is_durable_and_answered_to_nobody() {
    assert_eq!(stopped_at("store.commit.after.2").await, (2, false));
}

#[tokio::test]
async fn a_commit_can_be_named_by_what_it_writes() {
    let before = stopped_at("store.commit.before.commits::second").await;
    assert_eq!(before, (1, false));
    let after = stopped_at("store.commit.after.commits::second").await;
    assert_eq!(after, (2, false));
}

#[tokio::test]
async fn other_commits_are_passed() {
    let dir = tempfile::tempdir().unwrap();
    let points = FaultPoints::stop_at("store.commit.after.3", |_, _| {});
    let store = Store::open_with(&config(&dir.path().join("store.db")), points).unwrap();
    for _ in 0..2 {
        store.write(|tx| increment(tx, "n")).await.unwrap();
    }
    assert_eq!(number(&store).await, 2);
}
