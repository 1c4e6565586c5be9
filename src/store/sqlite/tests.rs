//! SQLite's own promises, and the suite on both kinds of database.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use futures_util::future::{join, join_all};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::{
    domain::{
        ids::{LoginName, UserId},
        login::LoginType,
        session::Role,
    },
    store::{
        Config, Error, Row, Store, Transaction, Value, answers, base_devices,
        cluster_time::ClusterClock,
        credentials, debts, devices, hints, is_lock_held, living, meta, profiles,
        sessions::{self, Filter},
        suite::{at, cluster, device_name, each_engine_must, increment, session_id},
        users,
    },
};

mod commits;
mod fixture;
mod inline;
mod model;
mod offline;

each_engine_must!(in_a_file, super::fresh());
each_engine_must!(in_memory, (super::open_in_memory(), ()));

fn config(path: &Path) -> Config {
    Config {
        url: format!("sqlite:{}", path.display()),
        node: "n1".into(),
    }
}

fn fresh() -> (Store, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&config(&dir.path().join("store.db"))).unwrap();
    (store, dir)
}

fn open_in_memory() -> Store {
    Store::open(&Config {
        url: "sqlite::memory:".into(),
        node: "n1".into(),
    })
    .unwrap()
}

async fn number(store: &Store) -> i64 {
    let text: Result<_, Error> = store.read(|tx| meta::get(tx, "n")).await;
    text.unwrap().map_or(0, |text| text.parse().unwrap())
}

#[test]
fn a_url_of_another_kind_is_refused_in_words() {
    for (url, word) in [
        ("postgres://db/emccd", "PostgreSQL"),
        ("postgresql://db/emccd", "PostgreSQL"),
        ("sqlite:", "sqlite:PATH"),
        ("/var/lib/emccd/store.db", "sqlite:PATH"),
    ] {
        let refused = Store::open(&Config {
            url: url.into(),
            node: "n1".into(),
        });
        let text = refused.unwrap_err().to_string();
        assert!(text.contains(word), "{url}: {text}");
    }
}

#[test]
fn a_missing_directory_is_named() {
    let refused = Store::open(&config(Path::new("/nowhere/at/all/store.db"))).unwrap_err();
    assert!(refused.to_string().contains("/nowhere/at/all"), "{refused}");
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    fs::write(&path, "cluster-id = \"berlin\"\n".repeat(200)).unwrap();
    assert!(matches!(
        Store::open(&config(&path)),
        Err(Error::Open { .. })
    ));
}

#[tokio::test]
async fn a_database_that_can_not_grow_is_told_of_until_it_can() {
    let (store, _dir) = fresh();
    store.write(|tx| increment(tx, "n")).await.unwrap();
    assert!(store.failing().is_none());
    let limit = |pages: i64| {
        let sql = format!("PRAGMA max_page_count = {pages}");
        store.write(move |tx| tx.query(&sql, &[]))
    };
    let large = || {
        let text = "x".repeat(1 << 20);
        store.write(move |tx: &mut dyn Transaction| meta::put(tx, "large", &text))
    };
    // As with a full disk: SQLite takes no page more.
    limit(1).await.unwrap();
    let before = store.stats();
    let refused: Error = large().await.unwrap_err();
    let told = store.failing().map(|e| crate::telemetry::error_chain(&e));
    assert!(
        told.as_ref().is_some_and(|t| t.contains("is full")),
        "{told:?} of {refused}"
    );
    assert_eq!(store.stats().commit_failures, before.commit_failures + 1);
    // What writes nothing says nothing of the disk.
    store.write(|_| Ok::<_, Error>(())).await.unwrap();
    assert!(store.failing().is_some());
    limit(1 << 30).await.unwrap();
    assert!(store.failing().is_some());
    large().await.unwrap();
    assert!(store.failing().is_none());
    // What somebody asked in vain is not the disk's fault.
    let twice = store.write(|tx: &mut dyn Transaction| tx.execute("no SQL", &[]));
    twice.await.unwrap_err();
    assert!(store.failing().is_none());
}

#[tokio::test]
async fn what_waits_for_a_database_that_another_program_has_locked_is_refused_together() {
    let (store, dir) = fresh();
    store.write(|tx| increment(tx, "n")).await.unwrap();
    let path = dir.path().join("store.db");
    assert!(!is_lock_held(&path, Duration::ZERO).unwrap());
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert!(is_lock_held(&path, Duration::ZERO).unwrap());
    let began = Instant::now();
    let writes = (0..20).map(|_| store.write(|tx| increment(tx, "n")));
    for refused in join_all(writes).await {
        let refused: Error = refused.unwrap_err();
        assert!(matches!(refused, Error::Commit(_)), "{refused:?}");
        let advice = refused.advice().unwrap_or_default();
        assert!(advice.contains("fuser"), "{advice}");
    }
    // Once for all of them, and perhaps for the one that was taken alone: less than a login may take each time.
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    assert!(store.failing().is_some());
    assert_eq!(number(&store).await, 1, "it can be read all the time");
    other.execute_batch("ROLLBACK").unwrap();
    store.write(|tx| increment(tx, "n")).await.unwrap();
    assert!(store.failing().is_none());
    assert_eq!(number(&store).await, 2, "nothing of them stands");
}

#[tokio::test]
async fn a_transaction_that_is_given_up_is_told_of() {
    let (store, dir) = fresh();
    store.write(|tx| increment(tx, "n")).await.unwrap();
    let path = dir.path().join("store.db");
    let giving_up = "CREATE TRIGGER full BEFORE UPDATE ON meta
        BEGIN SELECT RAISE(ROLLBACK, 'the disk is gone'); END";
    crate::store::tamper(&path, giving_up);
    store.write(|tx| increment(tx, "n")).await.unwrap_err();
    assert!(matches!(store.failing(), Some(Error::Commit(_))));
    assert_eq!(store.stats().commit_failures, 1);
    crate::store::tamper(&path, "DROP TRIGGER full");
    store.write(|tx| increment(tx, "n")).await.unwrap();
    assert!(store.failing().is_none());
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    let (store, dir) = fresh();
    store.write(|tx| increment(tx, "n")).await.unwrap();
    for file in fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.path());
    }
}

#[tokio::test]
async fn a_database_that_was_put_back_readable_for_others_is_taken_from_them() {
    let (store, dir) = fresh();
    store.write(|tx| increment(tx, "n")).await.unwrap();
    drop(store);
    let path = dir.path().join("store.db");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let store = Store::open(&config(&path)).unwrap();
    store.write(|tx| increment(tx, "n")).await.unwrap();
    for file in fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.path());
    }
    // What is no database is none of ours to change.
    let other = dir.path().join("other");
    fs::write(&other, "x".repeat(4_096)).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    Store::open(&config(&other)).unwrap_err();
    assert_eq!(
        fs::metadata(&other).unwrap().permissions().mode() & 0o777,
        0o644
    );
}

#[tokio::test]
async fn what_was_written_is_there_after_opening_again() {
    let (store, dir) = fresh();
    store.write(|tx| increment(tx, "n")).await.unwrap();
    drop(store);
    let store = Store::open(&config(&dir.path().join("store.db"))).unwrap();
    assert_eq!(number(&store).await, 1);
}

#[tokio::test]
async fn a_closed_store_finishes_what_it_has_and_takes_no_more() {
    let (store, _dir) = fresh();
    let other = store.clone();
    let (begun, wait) = mpsc::channel();
    let waiting = store.write(move |tx| {
        begun.send(()).unwrap();
        increment(tx, "n")
    });
    let (first, ()) = join(waiting, async {
        wait.recv().unwrap();
        other.clone().close();
    })
    .await;
    assert_eq!(first.unwrap(), 1);
    for result in [
        other.write(|tx| increment(tx, "n")).await,
        other.read(|tx| increment(tx, "n")).await,
    ] {
        assert!(matches!(result, Err(Error::Closed)));
    }
}

#[tokio::test]
async fn a_full_queue_is_told_at_once() {
    let (store, _dir) = fresh();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let blocked = store.write::<(), Error>(move |_| {
        let _ = may_go_on.recv();
        Ok(())
    });
    let more = join_all((0..super::QUEUE + 10).map(|_| store.write(|tx| increment(tx, "n"))));
    let ((_, results), ()) = join(join(blocked, more), async { drop(go_on) }).await;
    let busy = results
        .iter()
        .filter(|r| matches!(r, Err(Error::Busy)))
        .count();
    // The blocked one is in the queue or already out of it.
    assert!((10..=11).contains(&busy), "{busy}");
    let done = i64::try_from(results.len() - busy).unwrap();
    assert_eq!(number(&store).await, done);
}

#[tokio::test]
async fn an_operation_may_hold_the_last_handle() {
    let (store, dir) = fresh();
    let held = store.clone();
    let result: Result<i64, Error> = {
        let write = store.write(move |tx| {
            let _ = &held;
            increment(tx, "n")
        });
        write.await
    };
    drop(store);
    assert_eq!(result.unwrap(), 1);
    let store = Store::open(&config(&dir.path().join("store.db"))).unwrap();
    assert_eq!(number(&store).await, 1);
}

#[tokio::test]
async fn a_newer_schema_is_refused_in_words() {
    let (store, dir) = fresh();
    store.close();
    let path = dir.path().join("store.db");
    let change = |sql: &str| Connection::open(&path).unwrap().execute(sql, []).unwrap();
    change("INSERT INTO refinery_schema_history VALUES (99, 'later', '2030-01-01T00:00:00Z', '1')");
    let newer = Store::open(&config(&path)).unwrap_err();
    assert!(matches!(newer, Error::NewerSchema { found: 99, .. }));
    assert!(newer.to_string().contains("newer emccd"), "{newer}");

    change("UPDATE refinery_schema_history SET applied_on = 'someday' WHERE version = 99");
    assert!(matches!(
        Store::open(&config(&path)),
        Err(Error::Migration(_))
    ));

    change("DELETE FROM refinery_schema_history WHERE version = 99");
    change("UPDATE refinery_schema_history SET checksum = '1'");
    assert!(matches!(
        Store::open(&config(&path)),
        Err(Error::Migration(_))
    ));
}

#[tokio::test]
async fn readers_see_nothing_uncommitted() {
    let (store, _dir) = fresh();
    let (wrote, has_written) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let write = store.write(move |tx| {
        let value = increment(tx, "n")?;
        wrote.send(()).unwrap();
        let _ = may_go_on.recv();
        Ok::<_, Error>(value)
    });
    let (written, seen) = join(write, async {
        has_written.recv().unwrap();
        let seen = number(&store).await;
        drop(go_on);
        seen
    })
    .await;
    assert_eq!((written.unwrap(), seen), (1, 0));
    assert_eq!(number(&store).await, 1);
}

#[tokio::test]
async fn two_handles_on_one_file_lose_no_write_and_see_each_other() {
    let (one, dir) = fresh();
    let two = Store::open(&Config {
        node: "n2".into(),
        ..config(&dir.path().join("store.db"))
    })
    .unwrap();
    let mut changes = two.changes();
    changes.mark_unchanged();
    one.write(|tx| increment(tx, "n")).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), changes.changed())
        .await
        .expect("the other's commit is seen")
        .unwrap();

    // In waves, so that there are many turns and not one commit each.
    for _ in 0..20 {
        let both = (0..20).map(|n| {
            let store = if n % 2 == 0 { &one } else { &two };
            store.write(|tx| increment(tx, "n"))
        });
        for result in join_all(both).await {
            result.unwrap();
        }
    }
    assert_eq!(number(&one).await, 401);
    assert_eq!(number(&two).await, 401);
}

#[tokio::test]
async fn an_idle_store_announces_nothing() {
    let (store, _dir) = fresh();
    store.write(|tx| increment(tx, "n")).await.unwrap();
    let mut changes = store.changes();
    changes.mark_unchanged();
    let announced = tokio::time::timeout(Duration::from_millis(600), changes.changed()).await;
    assert!(announced.is_err(), "our own commit is announced once");
}

#[tokio::test]
async fn a_full_disk_refuses_all_of_a_commit_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = Store::open(&config(&path)).unwrap();
    // The database may not grow beyond what it is now: SQLite calls that a full disk.
    let fill = |tx: &mut dyn Transaction| {
        let pages = tx.query("PRAGMA page_count", &[])?[..]
            .first_mut()
            .unwrap()
            .int()?;
        tx.query(&format!("PRAGMA max_page_count = {pages}"), &[])?;
        meta::put(tx, "big", &"x".repeat(1 << 20))
    };
    let neighbour = store.write(|tx| increment(tx, "n"));
    let (kept, full) = join(neighbour, store.write(fill)).await;
    assert!(
        matches!(full, Err(Error::Commit(_) | Error::Statement { .. })),
        "{full:?}"
    );
    let stands = number(&store).await;
    assert_eq!(
        stands,
        i64::from(kept.is_ok()),
        "what was acknowledged stands"
    );
    store
        .write(|tx| {
            tx.query("PRAGMA max_page_count = 1000000", &[])?;
            increment(tx, "n")
        })
        .await
        .unwrap();
}

/// A process of its own for the test below; does nothing when run as a test.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD) else {
        return;
    };
    let store = Store::open(&config(Path::new(&path))).unwrap();
    loop {
        let value = store.write(|tx| increment(tx, "n")).await.unwrap();
        println!("\nacknowledged {value}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_the_kill_of_its_process() {
    let (store, dir) = fresh();
    let path = dir.path().join("store.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "store::sqlite::tests::child_that_writes_until_it_is_killed",
        ])
        .env(CHILD, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = 0;
    while acknowledged < 50 {
        let line = lines.next().expect("the child goes on").unwrap();
        if let Some(value) = line.strip_prefix("acknowledged ") {
            acknowledged = value.parse().unwrap();
            // We write in turn with it, on the same file.
            store.write(|tx| increment(tx, "ours")).await.unwrap();
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it still said before it died counts too.
    for line in lines.map_while(Result::ok) {
        if let Some(Ok(value)) = line.strip_prefix("acknowledged ").map(str::parse) {
            acknowledged = value;
        }
    }
    // Its locks died with it: we can write on.
    let value = store.write(|tx| increment(tx, "n")).await.unwrap();
    assert!(value > acknowledged, "{value} after {acknowledged}");
    drop(store);
    let store = Store::open(&config(&path)).unwrap();
    assert_eq!(number(&store).await, value);
}

const CHILD: &str = "EMCCD_TEST_STORE_CHILD";

/// Passes statements on, and fails when SQLite would look at every row for one.
struct Explaining<'t>(&'t mut dyn Transaction);

impl Transaction for Explaining<'_> {
    fn node(&self) -> &str {
        self.0.node()
    }

    fn cluster_clock(&self) -> &ClusterClock {
        self.0.cluster_clock()
    }

    fn query(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>, Error> {
        self.explain(sql, args)?;
        self.0.query(sql, args)
    }

    fn execute(&mut self, sql: &str, args: &[Value]) -> Result<u64, Error> {
        self.explain(sql, args)?;
        self.0.execute(sql, args)
    }
}

impl Explaining<'_> {
    fn explain(&mut self, sql: &str, args: &[Value]) -> Result<(), Error> {
        for mut row in self.0.query(&format!("EXPLAIN QUERY PLAN {sql}"), args)? {
            let _ = (row.int()?, row.int()?, row.int()?);
            let detail = row.text()?;
            let scans_all = detail.starts_with("SCAN")
                && !detail.contains("INDEX sessions_owed")
                && !detail.contains("INDEX sessions_created")
                && !detail.starts_with("SCAN b");
            assert!(!scans_all, "{sql}\n{detail}");
        }
        Ok(())
    }
}

#[tokio::test]
async fn what_a_login_asks_is_found_through_an_index() {
    let (store, _dir) = fresh();
    store
        .write::<_, Error>(|tx| {
            let tx = &mut Explaining(tx);
            let (berlin, id, phone) = (cluster("berlin"), session_id(1), device_name("SEP1"));
            let (anna, login) = (UserId::new("a").unwrap(), LoginName::new("a").unwrap());
            for login_type in LoginType::ALL {
                users::find(tx, login_type, &login)?;
                hints::get(tx, login_type, &login)?;
            }
            users::get(tx, &anna)?;
            users::list(tx, None, 10)?;
            credentials::get(tx, &anna)?;
            profiles::for_user(tx, &anna)?;
            devices::get(tx, &phone)?;
            answers::get(tx, &berlin, id)?;
            base_devices::next_free(tx)?;
            sessions::get(tx, Role::Home, &berlin, id)?;
            sessions::active_on_device(tx, Role::Visiting, &phone)?;
            sessions::active_of_user(tx, &anna)?;
            sessions::owed(tx, &berlin, 10)?;
            sessions::newest_owed(tx, Role::Home, &berlin, 10)?;
            sessions::counterparts_owed(tx)?;
            sessions::overdue_pending(tx, at(1))?;
            sessions::acknowledge(tx, Role::Home, &berlin, id)?;
            sessions::list(tx, &Filter::default())?;
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_base_device_is_found_without_a_look_at_what_has_ended() {
    let (store, _dir) = fresh();
    store
        .write::<_, Error>(|tx| {
            tx.execute(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                 INSERT INTO sessions (role, counterpart, id, state, device, login_type, login_name, base_device,
                   reference, created_at, changed_at, ended_at, owed)
                 SELECT 'home', 'berlin', 'id' || i, 'ended', 'SEP' || i, 'UID', 'anna', 'EMCC' || (i % 100),
                   'ref', i, i, i, 0 FROM n",
                &[],
            )?;
            tx.execute(
                "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
                 INSERT INTO base_devices (base_device_key, name) SELECT 'emcc' || i, 'EMCC' || i FROM n",
                &[],
            )?;
            // What a database may know of its tables after a while must not change the plan.
            tx.execute("ANALYZE", &[])?;
            let mut plans = Plans { tx, of_sessions: Vec::new() };
            assert!(base_devices::next_free(&mut plans)?.is_some());
            assert_eq!(base_devices::list(&mut plans)?.len(), 100);
            assert_eq!(plans.of_sessions.len(), 2, "{:?}", plans.of_sessions);
            for plan in plans.of_sessions {
                assert!(plan.starts_with("SEARCH s USING INDEX sessions_one_per_base_device"), "{plan}");
            }
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_revoked_or_shared_is_found_without_a_look_at_what_has_ended() {
    let (store, _dir) = fresh();
    store
        .write::<_, Error>(|tx| {
            tx.execute(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                 INSERT INTO sessions (role, counterpart, id, state, device, user_key, login_type, login_name, reference,
                   created_at, changed_at, ended_at, owed)
                 SELECT 'home', 'berlin', 'id' || i, 'ended', 'SEP' || i, 'u' || i, 'UID', 'anna', 'ref', i, i, i, 0
                 FROM n",
                &[],
            )?;
            let (berlin, tokyo) = (cluster("berlin"), cluster("tokyo"));
            // Whether the database knows something of its tables or nothing.
            for statement in ["SELECT 1", "ANALYZE"] {
                if statement == "ANALYZE" {
                    tx.execute(statement, &[])?;
                }
                let mut plans = Plans { tx: &mut *tx, of_sessions: Vec::new() };
                sessions::revoked(&mut plans, &tokyo, 256)?;
                sessions::living_with(&mut plans, &berlin, 256)?;
                sessions::shared_with(&mut plans, &berlin)?;
                living::users(&mut plans)?;
                living::devices(&mut plans)?;
                living::peers(&mut plans)?;
                let found: Vec<_> = plans
                    .of_sessions
                    .iter()
                    .map(|plan| plan.split_whitespace().find(|word| word.starts_with("sessions_")))
                    .collect();
                let [user, living, owed] = ["sessions_active_of_user", "sessions_shared", "sessions_owed"].map(Some);
                assert_eq!(found, [user, living, living, owed, user, living, living, owed], "{:?}", plans.of_sessions);
                // This is asked at each change of the store.
                plans.of_sessions.clear();
                debts::creditors(&mut plans)?;
                assert_eq!(plans.of_sessions, ["SCAN s USING COVERING INDEX sessions_owed"]);
                plans.of_sessions.clear();
                debts::distrusted(&mut plans)?;
                let [shared] = &*plans.of_sessions else {
                    panic!("{:?}", plans.of_sessions)
                };
                assert!(shared.contains("INDEX sessions_shared (counterpart=?)"), "{shared}");
                // And this by the writer, once for each session that was found.
                plans.of_sessions.clear();
                sessions::get_revoked(&mut plans, &tokyo, &berlin, session_id(1))?;
                let by_key = "SEARCH s USING INDEX sqlite_autoindex_sessions_1 (role=? AND counterpart=? AND id=?)";
                assert_eq!(plans.of_sessions, [by_key]);
            }
            Ok(())
        })
        .await
        .unwrap();
}

/// Passes queries on, and notes how SQLite finds the sessions `s` in them.
struct Plans<'t> {
    tx: &'t mut dyn Transaction,
    of_sessions: Vec<String>,
}

impl Transaction for Plans<'_> {
    fn node(&self) -> &str {
        self.tx.node()
    }

    fn cluster_clock(&self) -> &ClusterClock {
        self.tx.cluster_clock()
    }

    fn query(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>, Error> {
        for mut row in self.tx.query(&format!("EXPLAIN QUERY PLAN {sql}"), args)? {
            let _ = (row.int()?, row.int()?, row.int()?);
            let detail = row.text()?;
            if detail.starts_with("SEARCH s ") || detail.starts_with("SCAN s ") {
                self.of_sessions.push(detail);
            }
        }
        self.tx.query(sql, args)
    }

    fn execute(&mut self, sql: &str, args: &[Value]) -> Result<u64, Error> {
        self.tx.execute(sql, args)
    }
}
