//! A few lines over the lab: the networks that many tests want, and how they are looked at.

pub(crate) mod raw_home;
pub(crate) mod raw_peer;
pub(crate) mod rows;

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use emccd::{
    lab::{Hosting, Lab, Spec, phone::Shown},
    wire::admin as pb,
};

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_emccd"))
}

/// Whether the long runs are wanted: `tests/run --long`.
pub(crate) fn is_long() -> bool {
    std::env::var_os("EMCCD_LONG").is_some()
}

/// The Python of the test tools; `tests/run` (or `tests/run --tools`) puts it there.
pub(crate) fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools/venv/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run `tests/run --tools` once",
        python.display()
    );
    python
}

/// Paired clusters in this process.
pub(crate) async fn lab(clusters: usize) -> Lab {
    Lab::start(&Spec {
        clusters,
        ..Spec::default()
    })
    .await
    .unwrap()
}

/// Paired clusters, each node a process of its own.
pub(crate) async fn lab_of_processes(clusters: usize) -> Lab {
    let hosting = Hosting::Processes { binary: binary() };
    Lab::start(&Spec {
        clusters,
        hosting,
        ..Spec::default()
    })
    .await
    .unwrap()
}

/// User `user` of cluster `home` on phone `phone` of cluster `visiting`, in one request.
pub(crate) async fn log_in(
    lab: &Lab,
    home: usize,
    user: usize,
    visiting: usize,
    phone: usize,
) -> Shown {
    let user = lab.clusters[home].data.user(user).unwrap().clone();
    let visiting = &lab.clusters[visiting];
    let device = &visiting.data.phone(phone).unwrap().name;
    let browser = visiting.member().unwrap().phone().unwrap();
    browser
        .login_at_once(device, None, &user.user_id, &user.pin)
        .await
        .unwrap()
}

/// The sessions that live at a cluster.
pub(crate) async fn living(lab: &Lab, cluster: usize) -> Vec<pb::Session> {
    lab.clusters[cluster]
        .admin()
        .await
        .unwrap()
        .living()
        .await
        .unwrap()
}

/// A port base for `emccd init` whose three ports are free; each call gives another one, below the ports that the
/// system gives to whoever asks for any.
pub(crate) fn free_port_base() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: u16| TcpListener::bind(("0.0.0.0", port)).is_ok();
    loop {
        let turn = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(turn < 2_000, "no ports are free");
        let base =
            10_000 + u16::try_from((std::process::id() % 200 * 7 + turn) % 200).unwrap() * 100;
        if [80, 443, 444].iter().all(|offset| is_free(base + offset)) {
            return base;
        }
    }
}
