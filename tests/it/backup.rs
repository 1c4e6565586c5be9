//! A backup of a node that is busy, brought back.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use emccd::{
    domain::session::State,
    lab::{Lab, Spec},
    store::{
        self, Store, Transaction,
        sessions::{self, Filter},
    },
    tasks::Tasks,
    wire::admin as pb,
};

use crate::support::{binary, log_in};

/// What `emccd db verify` says of a file: whether it ends with 0, and all it prints.
fn verify(file: &Path) -> (bool, String) {
    let output = std::process::Command::new(binary())
        .args(["db", "verify"])
        .arg(file)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_taken_while_logins_run_comes_back_whole() {
    let lab = Arc::new(
        Lab::start(&Spec {
            clusters: 1,
            ..Spec::default()
        })
        .await
        .unwrap(),
    );
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let tasks = Tasks::default();
    let people = {
        let (lab, stop, done) = (Arc::clone(&lab), Arc::clone(&stop), Arc::clone(&done));
        tasks.spawn("people", async move {
            let cluster = &lab.clusters[0];
            let phone = cluster.member().unwrap().phone().unwrap();
            let device = cluster.data.devices[0].name.clone();
            while !stop.load(Ordering::Relaxed) {
                log_in(&lab, 0, 0, 0, 0).await;
                phone.logout(&device).await.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let folder = tempfile::tempdir().unwrap();
    let mut admin = lab.clusters[0].admin().await.unwrap();
    let mut files = Vec::new();
    for number in 0..4 {
        // Between any two of them people came and went.
        while done.load(Ordering::Relaxed) < (number + 1) * 2 {
            tokio::task::yield_now().await;
        }
        let path = folder.path().join(format!("{number}.db"));
        let request = pb::BackUpStoreRequest {
            path: path.display().to_string(),
        };
        let saved = admin.back_up_store(request).await.unwrap();
        assert_eq!(saved.path, path.display().to_string());
        files.push(path);
    }
    stop.store(true, Ordering::Relaxed);
    people.await.unwrap();
    for file in &files {
        let (whole, said) = verify(file);
        assert!(whole, "{said}");
    }

    // What comes back is a store that a node can go on with: its people, and at most one of them on the phone.
    let restored = folder.path().join("restored.db");
    fs::copy(files.last().unwrap(), &restored).unwrap();
    let config = store::Config {
        url: format!("sqlite:{}", restored.display()),
        node: "after".to_owned(),
    };
    let store = tokio::task::spawn_blocking(move || Store::open(&config))
        .await
        .unwrap()
        .unwrap();
    let held = store
        .read(|tx: &mut dyn Transaction| sessions::list(tx, &Filter::default()))
        .await
        .unwrap();
    assert!(held.iter().any(|s| s.state == State::Ended));
    assert!(held.iter().filter(|s| s.state == State::Active).count() <= 2);
    let changed = store
        .write(|tx: &mut dyn Transaction| {
            let sql = "UPDATE audit SET actor = 'nobody' WHERE seq = 5";
            Ok::<_, store::Error>(tx.execute(sql, &[])?)
        })
        .await
        .unwrap();
    assert_eq!(changed, 1);
    store.close();
    let (whole, said) = verify(&restored);
    assert!(!whole && said.contains("entry 5"), "{said}");
}
