//! A large import whose node is killed on the way: all of it or nothing, nothing of it stays behind, and the next one
//! works.

use std::{
    process::{Command, Output},
    time::Duration,
};

use emccd::lab::{Cluster, Hosting, Lab, Spec, member::Versions};

use crate::support::{binary, holds, rows::rows, until};

/// More than one batch of rows.
const USERS: usize = 1_500;
/// How long a node may take to come to a point, and to clear away what it left behind: a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Everybody's extension is that of the import: old rows change and new ones come.
fn users(extension: usize) -> String {
    let mut file = "id,extension\n".to_owned();
    for number in 0..USERS + extension {
        file += &format!("import{number:05},{extension}\n");
    }
    file
}

fn apply(cluster: &Cluster, file: &std::path::Path) -> std::process::Child {
    Command::new(binary())
        .arg("--socket")
        .arg(&cluster.member().unwrap().addresses.admin)
        .arg("apply")
        .arg(file)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

async fn ended(child: std::process::Child) -> Output {
    let wait = tokio::task::spawn_blocking(move || child.wait_with_output());
    wait.await.unwrap().unwrap()
}

/// What a number in the database is, whether or not a node runs on it.
async fn number(cluster: &Cluster, sql: String) -> usize {
    let file = cluster.member().unwrap().folder.join("../emccd.db");
    let read = tokio::task::spawn_blocking(move || {
        let database = rusqlite::Connection::open(file).unwrap();
        database.busy_timeout(Duration::from_secs(10)).unwrap();
        let number: i64 = database.query_row(&sql, [], |row| row.get(0)).unwrap();
        usize::try_from(number).unwrap()
    });
    read.await.unwrap()
}

/// How many users have the extension of an import, how many were ever imported, and how many rows wait.
async fn state(cluster: &Cluster, extension: usize) -> [usize; 3] {
    let imported = "SELECT count(*) FROM users WHERE user_id LIKE 'import%'";
    [
        number(
            cluster,
            format!("{imported} AND primary_extension = '{extension}'"),
        )
        .await,
        number(cluster, imported.to_owned()).await,
        number(cluster, "SELECT count(*) FROM import_rows".to_owned()).await,
    ]
}

/// Waits until nothing is left of any import.
async fn cleared(cluster: &Cluster) {
    let left = "SELECT (SELECT count(*) FROM imports) + (SELECT count(*) FROM import_rows)";
    until(LIMIT, "nothing is left of any import", async || {
        let left = number(cluster, left.to_owned()).await;
        holds(left == 0, left)
    })
    .await;
}

/// Entries of the audit that an import with this extension makes.
async fn told(cluster: &Cluster) -> (usize, usize) {
    let audit = rows(cluster).await.audit;
    let count = |action: &str| {
        audit
            .iter()
            .filter(|entry| &*entry.action == action)
            .count()
    };
    (count("user.add") + count("user.set"), count("data.import"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_whose_node_is_killed_is_in_force_as_a_whole_or_not_at_all_and_leaves_nothing() {
    let spec = Spec {
        clusters: 1,
        hosting: Hosting::Processes { binary: binary() },
        ..Spec::default()
    };
    let mut lab = Lab::start(&spec).await.unwrap();
    let mut before = 0;
    for (turn, (point, waits, holds)) in [
        ("apply.staging", 1_000, false),
        ("apply.staged", USERS + 2, false),
        ("apply.switched", USERS + 3, true),
    ]
    .into_iter()
    .enumerate()
    {
        let extension = turn + 1;
        let all = USERS + extension;
        let file = lab.folder().join("users.csv");
        std::fs::write(&file, users(extension)).unwrap();
        let cluster = &mut lab.clusters[0];
        let audited = told(cluster).await;
        let member = cluster.member_mut().unwrap();
        member.stop().await;
        member.start(&Versions::stopping_at(point)).await.unwrap();
        let command = apply(cluster, &file);
        let member = cluster.member_mut().unwrap();
        member.wait_stopped_at(point, LIMIT).await.unwrap();
        member.kill().await.unwrap();
        let output = ended(command).await;
        assert!(!output.status.success(), "{point}: {output:?}");

        // All or nothing, before anybody has tidied up, and after.
        let (changed, total) = if holds { (all, all) } else { (0, before) };
        assert_eq!(
            state(cluster, extension).await,
            [changed, total, waits],
            "{point}"
        );
        let member = cluster.member_mut().unwrap();
        member.start(&Versions::default()).await.unwrap();
        cleared(cluster).await;
        assert_eq!(state(cluster, extension).await, [changed, total, 0]);
        // The audit is whole, and has each row of what is in force and nothing else.
        let (each, imports) = told(cluster).await;
        assert_eq!(
            (each - audited.0, imports - audited.1),
            (changed, usize::from(holds)),
            "{point}"
        );

        let again = ended(apply(cluster, &file)).await;
        assert!(again.status.success(), "{point}: {again:?}");
        assert_eq!(state(cluster, extension).await, [all, all, 0], "{point}");
        before = all;
    }
    lab.shut_down().await;
}
