//! A backup of a node that is busy, brought back.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use emccd::{
    lab::{Cluster, member::Versions},
    store::{self, Store, Transaction},
    tasks::Tasks,
    wire::admin as pb,
};

use crate::support::{binary, lab, log_in, log_in_at, log_out};

/// Home and user, visiting cluster and phone of those who come and go all the time.
const PEOPLE: [[usize; 4]; 4] = [[0, 0, 0, 0], [0, 1, 1, 1], [1, 0, 0, 2], [0, 2, 0, 3]];
/// Backups at least, and at most: on a machine where each is made before anybody is logged in.
const BACKUPS: std::ops::Range<usize> = 3..100;
/// Logins at least that were answered while one of the backups was being made.
const MEANWHILE: usize = 5;

/// What the program says: whether it ends with 0, and all that it prints.
fn type_in(words: &[&str]) -> (bool, String) {
    let output = Command::new(binary()).args(words).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

/// What `emccd db verify` says of a cluster's database, with its seals.
fn verify(file: &Path, pepper: &Path) -> (bool, String) {
    let (file, pepper) = (file.to_str().unwrap(), pepper.to_str().unwrap());
    type_in(&["db", "verify", file, "--pepper-file", pepper])
}

/// Fills the database, so that its copy takes a while.
async fn fill(cluster: &Cluster) {
    let users = (0..6_000)
        .map(|n| format!("[[user]]\nid = \"extra{n}\"\nname = \"Nobody in particular {n}\"\n"));
    let request = pb::ApplyRequest {
        files: vec![pb::ApplyFile {
            name: "extra.toml".to_owned(),
            content: users.collect(),
        }],
        dry_run: false,
        prune: false,
        removals: String::new(),
    };
    cluster.admin().await.unwrap().apply(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_taken_while_logins_run_comes_back_whole() {
    let lab = Arc::new(lab(2).await);
    fill(&lab.clusters[0]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let tasks = Tasks::default();
    let mut people = Vec::new();
    for [home, user, visiting, phone] in PEOPLE {
        let (lab, stop, done) = (Arc::clone(&lab), Arc::clone(&stop), Arc::clone(&done));
        people.push(tasks.spawn("person", async move {
            while !stop.load(Ordering::Relaxed) {
                let shown = log_in(&lab, home, user, visiting, phone).await;
                assert!(shown.em_code.is_none(), "{shown:?}");
                done.fetch_add(1, Ordering::Relaxed);
                let gone = log_out(&lab.clusters[visiting], phone).await;
                assert!(gone.em_code.is_none(), "{gone:?}");
            }
        }));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut admin = lab.clusters[0].admin().await.unwrap();
    let (mut files, mut meanwhile) = (Vec::new(), 0);
    while files.len() < BACKUPS.start || meanwhile < MEANWHILE {
        assert!(
            files.len() < BACKUPS.end,
            "only {meanwhile} logins during {} backups",
            files.len()
        );
        let path = folder.path().join(format!("{}.db", files.len()));
        let request = pb::BackUpStoreRequest {
            path: path.display().to_string(),
        };
        let before = done.load(Ordering::Relaxed);
        let saved = admin.back_up_store(request).await.unwrap();
        meanwhile += done.load(Ordering::Relaxed) - before;
        assert_eq!(saved.path, path.display().to_string());
        files.push(path);
    }
    stop.store(true, Ordering::Relaxed);
    for person in people {
        // Whoever was refused has failed here.
        person.await.unwrap();
    }
    let mut lab = Arc::into_inner(lab).unwrap();
    let data = lab.clusters[0].member().unwrap().folder.join("..");
    let pepper = data.join("pepper");
    let newest = files.pop().unwrap();
    for file in files.iter().rev().take(2).chain([&newest]) {
        let (whole, said) = tokio::task::block_in_place(|| verify(file, &pepper));
        assert!(
            whole && said.contains("whole, and so is its audit"),
            "{said}"
        );
    }

    // A node goes on with it: linked with its peer, and people log in, here and there.
    lab.clusters[0].member_mut().unwrap().stop().await;
    for end in ["", "-wal", "-shm"] {
        let old = data.join(format!("emccd.db{end}"));
        if old.exists() {
            fs::rename(&old, folder.path().join(format!("old.db{end}"))).unwrap();
        }
    }
    fs::copy(&newest, data.join("emccd.db")).unwrap();
    let member = lab.clusters[0].member_mut().unwrap();
    member.start(&Versions::default()).await.unwrap();
    let (here, there) = (&lab.clusters[0], &lab.clusters[1]);
    here.wait_linked(&there.id).await.unwrap();
    there.wait_linked(&here.id).await.unwrap();
    for (visiting, phone) in [(here, 4), (there, 5)] {
        let shown = log_in_at(here, phone, visiting, phone).await;
        assert!(shown.em_code.is_none(), "{shown:?}");
    }
    let socket = here.member().unwrap().addresses.admin.to_str().unwrap();
    let (whole, said) =
        tokio::task::block_in_place(|| type_in(&["--socket", socket, "audit", "verify"]));
    assert!(whole, "{said}");
    lab.clusters[0].member_mut().unwrap().stop().await;
    let (whole, said) = tokio::task::block_in_place(|| verify(&data.join("emccd.db"), &pepper));
    assert!(whole, "{said}");

    let config = store::Config {
        url: format!("sqlite:{}", newest.display()),
        node: "after".to_owned(),
    };
    let store = tokio::task::spawn_blocking(move || Store::open(&config))
        .await
        .unwrap()
        .unwrap();
    let changed = store
        .write(|tx: &mut dyn Transaction| {
            let sql = "UPDATE audit SET actor = 'nobody' WHERE seq = 5";
            tx.execute(sql, &[])
        })
        .await
        .unwrap();
    assert_eq!(changed, 1);
    store.close();
    let (whole, said) = tokio::task::block_in_place(|| verify(&newest, &pepper));
    assert!(!whole && said.contains("entry 5"), "{said}");
    lab.shut_down().await;
}
