//! Operations apart from each other, and together in a commit.

use super::*;

pub(in crate::store) async fn concurrent_increments_are_not_lost(store: &Store) {
    let all = join_all((0..200).map(|_| store.write(|tx| increment(tx, "n")))).await;
    let mut values: Vec<i64> = all.into_iter().map(Result::unwrap).collect();
    values.sort_unstable();
    assert_eq!(values, (1..=200).collect::<Vec<_>>());
}

/// Lets `operations` wait behind one that ends when all are there, so that they share its commit.
async fn run_together<T>(store: &Store, operations: impl Future<Output = T>) -> T {
    let (release, released) = mpsc::channel::<()>();
    let blocked = store.write::<(), Error>(move |_| {
        let _ = released.recv();
        Ok(())
    });
    // Polled from left to right: by the time the last one runs, all are in the queue.
    let ((_, result), ()) = join(join(blocked, operations), async { drop(release) }).await;
    result
}

pub(in crate::store) async fn operations_that_wait_share_a_commit(store: &Store) {
    let before = store.stats();
    let writes = join_all((0..200).map(|_| store.write(|tx| increment(tx, "n"))));
    run_together(store, writes).await;
    let after = store.stats();
    let (writes, commits) = (after.writes - before.writes, after.commits - before.commits);
    // The one that they waited for has changed nothing.
    assert_eq!(writes, 200);
    assert!(
        commits < writes / 10,
        "{commits} commits of {writes} writes"
    );
}

pub(in crate::store) async fn what_fails_undoes_itself_and_not_its_neighbours(store: &Store) {
    let operations = join_all((0..10).map(|n| {
        store.write(move |tx| {
            increment(tx, "n")?;
            meta::put(tx, &format!("by {n}"), "")?;
            if n % 2 == 0 { Ok(()) } else { Err(Error::Busy) }
        })
    }));
    let before = store.stats().commits;
    let results = run_together(store, operations).await;
    assert_eq!(store.stats().commits, before + 1);
    for (n, result) in results.into_iter().enumerate() {
        assert_eq!(result.is_ok(), n % 2 == 0);
        let kept: Result<_, Error> = store
            .read(move |tx| meta::get(tx, &format!("by {n}")))
            .await;
        assert_eq!(kept.unwrap().is_some(), n % 2 == 0);
    }
    let total: Result<_, Error> = store.read(|tx| meta::get(tx, "n")).await;
    assert_eq!(total.unwrap().as_deref(), Some("5"));
}

pub(in crate::store) async fn a_panic_is_an_error_for_its_operation_only(store: &Store) {
    let operations = join_all((0..3).map(|n| {
        store.write(move |tx| {
            let value = increment(tx, "n")?;
            assert!(n != 1, "this panic is meant");
            Ok::<_, Error>(value)
        })
    }));
    let results = run_together(store, operations).await;
    assert!(matches!(
        results.as_slice(),
        [Ok(1), Err(Error::Panicked), Ok(2)]
    ));
    let read: Result<(), Error> = store.read(|_| panic!("this panic is meant")).await;
    assert!(matches!(read, Err(Error::Panicked)));
    assert_eq!(
        store.write(|tx| increment(tx, "n")).await.unwrap(),
        3,
        "the store goes on"
    );
}

pub(in crate::store) async fn a_failed_statement_undoes_itself_only(store: &Store) {
    store
        .write::<_, Error>(|tx| {
            sessions::insert(tx, &session(Role::Visiting, 1, "SEP1", State::Active))?;
            let refused = sessions::insert(tx, &session(Role::Visiting, 2, "SEP1", State::Active));
            assert!(refused.is_err());
            let broken = tx.execute("UPDATE nothing SET at = $1", &[1i64.into()]);
            assert!(matches!(broken, Err(Error::Statement { .. })));
            let miscounted = tx.execute("DELETE FROM meta WHERE name = $1", &[]);
            assert!(matches!(miscounted, Err(Error::Statement { .. })));
            meta::put(tx, "went on", "yes")
        })
        .await
        .unwrap();
    assert_eq!(fetch(store, Role::Visiting, 1).await.id, session_id(1));
    let went_on: Result<_, Error> = store.read(|tx| meta::get(tx, "went on")).await;
    assert!(went_on.unwrap().is_some());
}

pub(in crate::store) async fn a_read_changes_nothing(store: &Store) {
    let refused = store.read(|tx| meta::put(tx, "a", "1")).await;
    assert!(matches!(refused, Err(Error::Statement { .. })));
    store.write(|tx| meta::put(tx, "b", "1")).await.unwrap();
    let a: Result<_, Error> = store.read(|tx| meta::get(tx, "a")).await;
    assert_eq!(a.unwrap(), None);
}

pub(in crate::store) async fn a_look_up_is_a_read_also_where_many_come_at_once_and_ends_with_the_store(
    store: &Store,
) {
    let refused = store.look_up(|tx| meta::put(tx, "a", "1")).await;
    assert!(matches!(refused, Err(Error::Statement { .. })));
    for value in ["1", "2"] {
        store
            .write(move |tx| meta::put(tx, "b", value))
            .await
            .unwrap();
        // Each sees what was committed before it, whichever connection it gets.
        let many = (0..64).map(|_| {
            let (store, runtime) = (store.clone(), tokio::runtime::Handle::current());
            tokio::task::spawn_blocking(move || {
                runtime.block_on(store.look_up(|tx| meta::get(tx, "b")))
            })
        });
        for found in join_all(many).await {
            let found: Result<_, Error> = found.unwrap();
            assert_eq!(found.unwrap().as_deref(), Some(value));
        }
    }
    let panicked: Result<(), Error> = store.look_up(|_| panic!("an operation's fault")).await;
    assert!(matches!(panicked, Err(Error::Panicked)));
    let other = store.clone();
    tokio::task::spawn_blocking(move || other.close())
        .await
        .unwrap();
    let closed = store.look_up(|tx| meta::get(tx, "b")).await;
    assert!(matches!(closed, Err(Error::Closed)), "{closed:?}");
}

pub(in crate::store) async fn commits_are_announced(store: &Store) {
    let mut changes = store.changes();
    changes.mark_unchanged();
    store.write(|tx| meta::put(tx, "a", "1")).await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let _: Option<String> = store.write(|tx| meta::get(tx, "a")).await.unwrap_or(None);
    let failed: Result<(), Error> = store
        .write(|tx| {
            meta::put(tx, "a", "2")?;
            Err(Error::Busy)
        })
        .await;
    assert!(failed.is_err());
    assert!(
        !changes.has_changed().unwrap(),
        "what changed nothing is not announced"
    );
}
