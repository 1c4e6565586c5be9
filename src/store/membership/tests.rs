//! Two and more nodes on one store: who lives, who holds what, and what a holder can't do any more.

use std::path::Path;

use tokio::time::timeout;

use super::*;
use crate::store::{audit, meta};

/// Longer than any takeover may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn open(path: &Path, node: &str) -> Store {
    let url = format!("sqlite:{}", path.display());
    let node = node.to_owned();
    Store::open(&crate::store::Config { url, node }).unwrap()
}

/// A node with a connection of its own on the file, as another process has.
struct Running {
    member: Membership,
    store: Store,
    tasks: Tasks,
}

impl Running {
    async fn start(path: &Path, node: &str) -> Self {
        let store = open(path, node);
        let config = Config {
            node: node.to_owned(),
            addresses: vec![format!("{node}.example:8444")],
            software: "emccd test".to_owned(),
            ..Config::default()
        };
        let member = Membership::new(store.clone(), Clock::system(), config);
        member.join().await.unwrap();
        let tasks = Tasks::default();
        let (keeper, ends) = (member.clone(), tasks.clone());
        tasks.spawn("member", async move { keeper.keep(&ends).await });
        Self {
            member,
            store,
            tasks,
        }
    }

    async fn held(&self, task: &Task) -> Claim {
        timeout(PATIENCE, self.member.held(task)).await.unwrap()
    }

    /// Waits until the others are seen to be these.
    async fn sees(&self, names: &[&str]) {
        let mut living = self.member.living();
        let seen = living.wait_for(|living| {
            living
                .iter()
                .map(|node| &*node.run.node)
                .eq(names.iter().copied())
        });
        timeout(PATIENCE, seen).await.unwrap().unwrap();
    }

    async fn stop(self) {
        self.tasks.shut_down(PATIENCE).await;
        self.store.close();
    }

    /// An effect of a task: it counts.
    async fn work(&self, claim: &Claim) -> Result<(), Error> {
        let claim = claim.clone();
        self.store
            .write(move |tx: &mut dyn Transaction| {
                meta::bump(tx, "work")?;
                claims::effect(tx, &claim, "worked", Clock::system().now())
            })
            .await
    }
}

async fn worked(store: &Store) -> Option<String> {
    store
        .read(|tx: &mut dyn Transaction| meta::get(tx, "work"))
        .await
        .unwrap()
}

/// The entries about claims: action and the beginning of the outcome, oldest first.
async fn audited(store: &Store) -> Vec<(String, String)> {
    let query = audit::Query {
        action: Some("claim.".to_owned()),
        limit: 100,
        ..audit::Query::default()
    };
    let found = store
        .read(move |tx: &mut dyn Transaction| audit::search(tx, &query))
        .await
        .unwrap();
    found
        .into_iter()
        .rev()
        .map(|entry| {
            let (generation, rest) = entry.outcome.split_once(" of ").unwrap();
            let owner = rest.split_whitespace().next().unwrap();
            (entry.action, format!("{generation} {owner}"))
        })
        .collect()
}

#[tokio::test]
async fn who_stops_gives_back_and_who_is_killed_is_replaced_within_ten_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let task = Task::retention();
    let n1 = Running::start(&path, "n1").await;
    let first = n1.held(&task).await;
    assert_eq!(first.generation, 1);
    let n2 = Running::start(&path, "n2").await;
    n1.sees(&["n1", "n2"]).await;
    n2.sees(&["n1", "n2"]).await;
    n2.member.want(&task);
    n1.work(&first).await.unwrap();

    // Given back: the other takes it at its next look.
    let began = Instant::now();
    n1.stop().await;
    let second = n2.held(&task).await;
    assert!(began.elapsed() < SILENCE, "{:?}", began.elapsed());
    assert_eq!(second.generation, 2);
    n2.sees(&["n2"]).await;
    n2.work(&second).await.unwrap();

    // Killed: its task is gone, nothing is given back.
    let n3 = Running::start(&path, "n3").await;
    n3.member.want(&task);
    n3.sees(&["n2", "n3"]).await;
    assert_eq!(n3.member.claim(&task), None);
    let killed = n2.member.clone();
    killed.inner.gone.store(true, Ordering::Release);
    let began = Instant::now();
    let third = n3.held(&task).await;
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(third.generation, 3);

    // It was only stopped: what it holds in its hand is worth nothing.
    let error = n2.work(&second).await.unwrap_err();
    assert!(
        matches!(error, Error::ClaimLost { generation: 2, .. }),
        "{error}"
    );
    assert_eq!(worked(&n3.store).await.as_deref(), Some("2"));
    let entries: Vec<_> = audited(&n3.store).await;
    let told: Vec<_> = entries
        .iter()
        .map(|(action, what)| (&**action, &**what))
        .collect();
    let mut expected = vec![
        ("claim.take", "generation 1 n1"),
        ("claim.effect", "generation 1 n1"),
        ("claim.release", "generation 1 n1"),
        ("claim.take", "generation 2 n2"),
        ("claim.effect", "generation 2 n2"),
        ("claim.take", "generation 3 n3"),
    ];
    let mut told = told;
    // Entries of one millisecond are in the order of their nodes.
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);
    n2.stop().await;
    n3.stop().await;
}

#[tokio::test]
async fn a_node_that_starts_again_has_its_work_back_at_once_and_the_old_run_can_do_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let task = Task::revocations();
    let old = Running::start(&path, "n1").await;
    let before = old.held(&task).await;
    let began = Instant::now();
    let new = Running::start(&path, "n1").await;
    let after = new.held(&task).await;
    assert!(began.elapsed() < SILENCE, "{:?}", began.elapsed());
    assert!(after.generation > before.generation);
    timeout(PATIENCE, old.member.lost(&before)).await.unwrap();
    old.work(&before).await.unwrap_err();
    // The old one goes, and leaves the row of the new one alone.
    old.stop().await;
    new.work(&after).await.unwrap();
    let rows = new
        .store
        .read(|tx: &mut dyn Transaction| nodes::all(tx))
        .await
        .unwrap();
    let runs: Vec<_> = rows.iter().map(|node| &node.run).collect();
    assert_eq!(runs, [new.member.run()]);
    new.stop().await;
}

#[tokio::test]
async fn a_run_that_was_replaced_by_one_that_dies_has_its_work_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let task = Task::revocations();
    let old = Running::start(&path, "n1").await;
    let before = old.held(&task).await;
    // It goes on record, and ends before it has done anything.
    let config = Config {
        node: "n1".to_owned(),
        ..Config::default()
    };
    let other = Membership::new(old.store.clone(), Clock::system(), config);
    let replaced = other.join().await.unwrap();
    assert_eq!(replaced.as_ref(), Some(old.member.run()));
    timeout(PATIENCE, old.member.lost(&before)).await.unwrap();
    let after = old.held(&task).await;
    assert!(after.generation > before.generation);
    old.work(&after).await.unwrap();
    let stands = old
        .store
        .read(|tx: &mut dyn Transaction| nodes::get(tx, "n1"))
        .await
        .unwrap();
    assert_eq!(&stands.unwrap().run, old.member.run());
    old.stop().await;
}

#[tokio::test]
async fn what_is_let_go_goes_to_the_other_and_one_taken_for_dead_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let task = Task::pending_logins();
    let (n1, n2) = (
        Running::start(&path, "n1").await,
        Running::start(&path, "n2").await,
    );
    let first = n1.held(&task).await;
    n1.member.let_go(&task);
    let second = n2.held(&task).await;
    assert_eq!(second.generation, first.generation + 1);
    n1.work(&first).await.unwrap_err();

    let run = n1.member.run().clone();
    let mut changes = n2.store.changes();
    n2.store
        .write(move |tx: &mut dyn Transaction| nodes::remove(tx, &run))
        .await
        .unwrap();
    let back = async {
        loop {
            let found = n2
                .store
                .read(|tx: &mut dyn Transaction| nodes::get(tx, "n1"));
            if found.await.unwrap().is_some() {
                return;
            }
            changes.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, back).await.unwrap();
    n1.stop().await;
    n2.stop().await;
}

#[tokio::test]
async fn of_two_that_saw_the_same_one_takes_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store.db"), "n1");
    let run = |node: &str| Incarnation {
        node: node.to_owned(),
        instance: "1".to_owned(),
    };
    let now = Clock::system().now();
    store
        .write(move |tx: &mut dyn Transaction| {
            let task = Task::retention();
            let first = claims::take(tx, &task, None, &run("n1"), now)?;
            assert!(first.is_some());
            assert_eq!(claims::take(tx, &task, None, &run("n2"), now)?, None);
            let seen = claims::all(tx)?;
            // It beats again: whoever saw it silent was wrong.
            claims::beat(tx, &run("n1"))?;
            assert_eq!(
                claims::take(tx, &task, seen.first(), &run("n2"), now)?,
                None
            );
            let seen = claims::all(tx)?;
            let second = claims::take(tx, &task, seen.first(), &run("n2"), now)?;
            assert_eq!(second.map(|claim| claim.generation), Some(2));
            assert_eq!(
                claims::take(tx, &task, seen.first(), &run("n3"), now)?,
                None
            );
            assert_eq!(claims::beat(tx, &run("n1"))?, []);
            if let Some(first) = &first {
                assert!(!claims::release(tx, first, "late", now)?);
            }
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
    store.close();
}

#[tokio::test]
async fn a_run_that_has_beaten_since_it_was_looked_at_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store.db"), "n1");
    let member = Membership::of(&store);
    member.join().await.unwrap();
    let run = member.run().clone();
    let forgotten = store.write(move |tx: &mut dyn Transaction| {
        let seen = nodes::get(tx, &run.node)?.map_or(-1, |node| node.beat);
        nodes::beat(tx, &run)?;
        let late = nodes::remove_silent(tx, &run, seen)?;
        Ok::<_, Error>((late, nodes::remove_silent(tx, &run, seen + 1)?))
    });
    assert_eq!(forgotten.await.unwrap(), (false, true));
}
