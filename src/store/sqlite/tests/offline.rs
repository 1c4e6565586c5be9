//! Backups of a database in use, and files that are not what they should be.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::{
    store::{
        self,
        audit::{self, Entry, Fault},
    },
    tasks::Tasks,
};

fn entry(n: u32) -> Entry {
    Entry {
        at: at(i64::from(n)),
        actor: "root (uid 0)".into(),
        action: audit::Action::Set(audit::Noun::Param),
        subject: "allow-proxy".into(),
        outcome: format!("{n}"),
        reference: None,
    }
}

/// A login's worth of writing: a number and its entry, in one transaction.
async fn write_one(store: &Store, n: u32) {
    store
        .write::<_, Error>(move |tx| {
            increment(tx, "n")?;
            audit::append(tx, &entry(n))
        })
        .await
        .unwrap();
}

/// A store of a cluster, in a file.
async fn of_berlin() -> (Store, TempDir) {
    let (store, dir) = fresh();
    store
        .write(|tx| meta::put(tx, "cluster-id", "berlin"))
        .await
        .unwrap();
    (store, dir)
}

fn tamper(file: &Path, sql: &str) {
    let connection = Connection::open(file).unwrap();
    assert!(connection.execute(sql, []).unwrap() > 0, "{sql}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_taken_while_others_write_is_one_moment_and_whole() {
    let (store, dir) = of_berlin().await;
    let before = store.stats().writes;
    let stop = Arc::new(AtomicBool::new(false));
    let tasks = Tasks::default();
    let writing = {
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        tasks.spawn("writing", async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                write_one(&store, n).await;
            }
            n
        })
    };
    let mut sizes = Vec::new();
    for number in 0..5 {
        while store.stats().writes < before + (number + 1) * 20 {
            tokio::task::yield_now().await;
        }
        let to = dir.path().join(format!("copy{number}.db"));
        let saved = store.back_up(to.clone()).await.unwrap();
        assert_eq!(saved.bytes, fs::metadata(&to).unwrap().len());
        let mode = fs::metadata(&to).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let found = store::inspect(&to, &store::Check::default()).unwrap();
        assert!(found.is_whole(), "{found:?}");
        // What belongs together was copied together.
        let restored = Store::open(&config(&to)).unwrap();
        let entries = found.audit.unwrap().chains[0].entries;
        assert_eq!(super::number(&restored).await, entries);
        sizes.push(entries);
    }
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap();
    assert!(sizes.is_sorted() && sizes[0] >= 20, "{sizes:?}");
    assert!(*sizes.last().unwrap() <= i64::from(written));
    let left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".emccd-backup"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_file_that_is_there_or_can_not_be_made_is_left_alone() {
    let (store, dir) = of_berlin().await;
    write_one(&store, 1).await;
    let taken = dir.path().join("taken");
    fs::write(&taken, "mine").unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
    for path in [taken.clone(), link, dir.path().join("no/such/folder")] {
        let error = store.back_up(path).await.unwrap_err();
        assert!(matches!(error, Error::Backup { .. }), "{error:?}");
    }
    assert_eq!(fs::read_to_string(&taken).unwrap(), "mine");
    let in_memory = open_in_memory().back_up(dir.path().join("new")).await;
    assert!(matches!(in_memory, Err(Error::Unsupported(_))));
    assert!(!dir.path().join("new").exists());
}

#[tokio::test]
async fn one_changed_entry_of_a_backup_is_found_by_its_number() {
    let (store, dir) = of_berlin().await;
    for n in 1..=7 {
        write_one(&store, n).await;
    }
    let to = dir.path().join("copy.db");
    store.back_up(to.clone()).await.unwrap();
    tamper(&to, "UPDATE audit SET outcome = '77' WHERE seq = 4");
    let found = store::inspect(&to, &store::Check::default()).unwrap();
    assert!(found.problems.is_empty() && !found.is_whole());
    let chain = &found.audit.unwrap().chains[0];
    assert_eq!((chain.entries, chain.fault), (3, Some(Fault::Changed(4))));
    // The one it was taken of is whole all the same.
    assert!(store.verify().await.unwrap().is_intact());
}

#[tokio::test]
async fn what_is_damaged_or_no_database_of_ours_is_told() {
    let (store, dir) = of_berlin().await;
    for n in 1..=200 {
        write_one(&store, n).await;
    }
    let to = dir.path().join("copy.db");
    store.back_up(to.clone()).await.unwrap();

    let torn = dir.path().join("torn.db");
    let mut bytes = fs::read(&to).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4_096].fill(0xA5);
    fs::write(&torn, bytes).unwrap();
    let whole = store::inspect(&torn, &store::Check::default()).is_ok_and(|found| found.is_whole());
    assert!(!whole, "a page of rubbish is not noticed");

    let orphan = dir.path().join("orphan.db");
    fs::copy(&to, &orphan).unwrap();
    let connection = Connection::open(&orphan).unwrap();
    connection
        .pragma_update(None, "foreign_keys", false)
        .unwrap();
    connection
        .execute(
            "INSERT INTO profiles (name, user_key, is_default, lines, services) VALUES ('p', 'nobody', 1, '[]', '[]')",
            [],
        )
        .unwrap();
    drop(connection);
    let found = store::inspect(&orphan, &store::Check::default()).unwrap();
    assert_eq!(
        found.problems,
        ["a row of profiles points at none of users"]
    );

    assert!(
        store::inspect(&to, &store::Check::default())
            .unwrap()
            .is_whole()
    );
    for (sql, told) in [
        ("DROP TABLE tickets", "the table tickets is missing"),
        ("DROP INDEX audit_at", "the index audit_at is missing"),
        ("CREATE TABLE other (a)", "the table other is none of emccd"),
        ("DELETE FROM meta", "whose it is"),
        (
            "INSERT INTO parameters VALUES ('p', 'v', 1, 2); UPDATE meta SET value = 'x'; DELETE FROM audit;
             DELETE FROM audit_heads",
            "audit is empty",
        ),
        (
            "INSERT INTO users VALUES ('a', '', NULL, NULL, '', 1, 1, NULL)",
            "a row of users",
        ),
        (
            "INSERT INTO users VALUES ('a', 'a', NULL, NULL, '', 1, 1, NULL);
             INSERT INTO credentials (user_key, phc, changed_at, failures, must_change)
             VALUES ('a', 'rubbish', 1, 0, 0)",
            "the one of a holds no hash",
        ),
    ] {
        let bad = dir.path().join("bad.db");
        fs::copy(&to, &bad).unwrap();
        Connection::open(&bad).unwrap().execute_batch(sql).unwrap();
        let found = store::inspect(&bad, &store::Check::default()).unwrap();
        assert!(
            !found.is_whole() && found.problems.iter().any(|p| p.contains(told)),
            "{sql}: {found:?}"
        );
    }

    for (name, bytes) in [
        ("text", &b"hello"[..]),
        ("short", &b"SQLite format 3\0"[..]),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = store::inspect(&path, &store::Check::default()).unwrap_err();
        assert!(matches!(error, Error::Open { .. }), "{name}: {error:?}");
    }
    let missing = dir.path().join("missing");
    assert!(store::inspect(&missing, &store::Check::default()).is_err() && !missing.exists());
    let empty = dir.path().join("empty");
    Connection::open(&empty)
        .unwrap()
        .execute("CREATE TABLE other (a)", [])
        .unwrap();
    let found = store::inspect(&empty, &store::Check::default()).unwrap();
    assert_eq!(found.problems, ["it is no database of emccd"]);
    // And it is not taken over, neither by a migration nor by a node.
    let refused = store::migrate(&empty).unwrap_err();
    assert!(matches!(refused, Error::Migration(_)), "{refused:?}");
    assert!(Store::open(&config(&empty)).is_err());
    let left: i64 = Connection::open(&empty)
        .unwrap()
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 1);
}

#[test]
fn lock_files_belong_to_whom_the_database_does() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    Store::open(&config(&path)).unwrap().close();
    for extension in ["turn", "write"] {
        fs::remove_file(path.with_extension(extension)).unwrap();
    }
    if chown(&path, Some(65_534), Some(65_534)).is_err() {
        // Only root can give a file away.
        return;
    }
    Store::open(&config(&path)).unwrap().close();
    for extension in ["turn", "write"] {
        let found = path.with_extension(extension).metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), (65_534, 65_534), "{extension}");
    }
}

#[tokio::test]
async fn an_older_schema_says_what_is_missing_and_a_newer_one_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old.db");
    Connection::open(&old)
        .unwrap()
        .execute_batch("VACUUM")
        .unwrap();
    let before = store::schema(&old).unwrap();
    assert_eq!(before.found, 0);
    assert_eq!(before.missing.len(), usize::try_from(before.known).unwrap());
    store::migrate(&old).unwrap();
    let after = store::schema(&old).unwrap();
    assert_eq!((after.found, after.missing.len()), (before.known, 0));

    tamper(
        &old,
        "UPDATE refinery_schema_history SET version = version + 1000",
    );
    let newer = store::schema(&old).unwrap();
    assert!(newer.found > newer.known && newer.missing.is_empty());
    assert!(matches!(
        store::migrate(&old),
        Err(Error::NewerSchema { .. })
    ));
    let found = store::inspect(&old, &store::Check::default()).unwrap();
    assert!(
        found.problems[0].contains("knows versions up to"),
        "{found:?}"
    );
    assert!(found.audit.is_none() && !found.is_whole());
}

#[tokio::test]
async fn a_quick_look_ends_when_its_time_is_over() {
    let (store, dir) = super::fresh();
    let filled = store.write(|tx: &mut dyn Transaction| {
        for n in 0..500 {
            meta::put(tx, &format!("n{n}"), &"x".repeat(4_000))?;
        }
        meta::put(tx, meta::CLUSTER_ID, "munich")
    });
    let _: () = filled.await.unwrap();
    let path = dir.path().join("store.db");
    let whole = crate::store::glance(&path, Duration::from_secs(60)).unwrap();
    assert_eq!((whole.is_cut_short, whole.problems), (false, Vec::new()));
    assert_eq!(whole.cluster.as_deref(), Some("munich"));
    // Nobody has a PIN.
    assert_eq!(whole.pepper_mark, None);
    let short = crate::store::glance(&path, Duration::ZERO).unwrap();
    assert!(short.is_cut_short);
    assert_eq!((short.schema, short.cluster), (whole.schema, whole.cluster));
}
