//! A few lines over the lab: the networks that many tests want, and how they are looked at.

pub(crate) mod raw_home;
pub(crate) mod raw_peer;
pub(crate) mod rows;
pub(crate) mod stranger;
pub(crate) mod tls;

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use emccd::{
    clock::{Clock, Timestamp},
    domain::ids::ClusterId,
    lab::{Cluster, Hosting, Lab, Spec, phone::Shown},
    trust::make::Made,
    wire::admin as pb,
};

/// One day, in milliseconds.
pub(crate) const DAY_MILLIS: i64 = 86_400_000;

/// How often it is looked whether something is so.
const LOOK: Duration = Duration::from_millis(50);
/// How much longer than what is waited for a single look may take.
const HANGS: Duration = Duration::from_secs(60);

/// So many days from now by the machine's clock, or ago.
pub(crate) fn days_from_now(days: i64) -> Timestamp {
    Timestamp::from_millis(Clock::system().now().as_millis() + days * DAY_MILLIS)
}

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_emccd"))
}

/// Nothing has panicked in any process of the lab, whatever else came of it: a task that does is gone, and nobody else
/// may notice.
pub(crate) fn nobody_panicked(lab: &Lab) {
    for member in lab.clusters.iter().flat_map(|cluster| &cluster.members) {
        let log = std::fs::read_to_string(member.log_file()).unwrap();
        let line = log.lines().find(|line| line.contains("panicked"));
        assert_eq!(line, None, "{}", member.name);
    }
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
    log_in_at(&lab.clusters[home], user, &lab.clusters[visiting], phone).await
}

/// The same where the clusters are at hand.
pub(crate) async fn log_in_at(
    home: &Cluster,
    user: usize,
    visiting: &Cluster,
    phone: usize,
) -> Shown {
    let user = home.data.user(user).unwrap();
    let device = &visiting.data.phone(phone).unwrap().name;
    let browser = visiting.member().unwrap().phone().unwrap();
    browser
        .login_at_once(device, None, &user.user_id, &user.pin)
        .await
        .unwrap()
}

/// Presses Logout on phone `phone`, whoever is on it; gives what it shows.
pub(crate) async fn log_out(visiting: &Cluster, phone: usize) -> Shown {
    let device = &visiting.data.phone(phone).unwrap().name;
    let browser = visiting.member().unwrap().phone().unwrap();
    browser.logout(device).await.unwrap()
}

/// One more certificate that `us` accepts from `them`.
pub(crate) async fn pin(us: &Cluster, them: &Cluster, made: &Made) {
    trust_more(us, &them.id, "pinned", &made.certificate_pem).await;
}

/// One more entry of that kind for `them` at `us`.
pub(crate) async fn trust_more(us: &Cluster, them: &ClusterId, kind: &str, pem: &str) {
    let trust = pb::TrustMaterial {
        kind: kind.to_owned(),
        certificates: pem.as_bytes().to_vec(),
    };
    let request = pb::AddTrustRequest {
        cluster_id: them.to_string(),
        trust: Some(trust),
        unrevoke: None,
    };
    let added = us.admin().await.unwrap().add_trust(request).await.unwrap();
    assert_eq!(added.added.len(), 1);
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

/// Looks until something is so that nobody tells of, as another process's rows; gives what was found. What was seen
/// instead when `within` is over fails the test, and so does a look that waits for ever.
pub(crate) async fn until<T>(
    within: Duration,
    what: impl std::fmt::Display,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let began = Instant::now();
    let mut last = "nothing".to_owned();
    loop {
        match tokio::time::timeout(within + HANGS, look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(seen)) => last = seen,
            Err(_) => panic!(
                "{what}: a look took longer than {:?}; seen before: {last}",
                within + HANGS
            ),
        }
        assert!(
            began.elapsed() <= within,
            "{what}: not within {within:?}; last seen: {last}"
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// Nothing where it holds; else what was seen, for [`until`].
pub(crate) fn holds(is_so: bool, seen: impl std::fmt::Debug) -> Result<(), String> {
    if is_so {
        Ok(())
    } else {
        Err(format!("{seen:?}"))
    }
}

/// Waits until so many sessions live at a cluster.
pub(crate) async fn until_living(lab: &Lab, cluster: usize, number: usize, within: Duration) {
    let what = format!("{number} sessions at cluster {cluster}");
    until(within, what, async || {
        let found = living(lab, cluster).await;
        holds(found.len() == number, &found)
    })
    .await;
}

/// Sets a parameter of a cluster.
pub(crate) async fn set_parameter(cluster: &Cluster, name: &str, value: &str) {
    let request = pb::SetParameterRequest {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let mut admin = cluster.admin().await.unwrap();
    admin.set_parameter(request).await.unwrap();
}

/// A port base for `emccd init` whose ports are free; each call gives another one, below the ports that the
/// system gives to whoever asks for any.
pub(crate) fn free_port_base() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: u16| TcpListener::bind(("0.0.0.0", port)).is_ok();
    loop {
        let turn = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(turn < 2_000, "no ports are free");
        let base =
            10_000 + u16::try_from((std::process::id() % 200 * 7 + turn) % 200).unwrap() * 100;
        if [80, 443, 444, 1_464]
            .iter()
            .all(|offset| is_free(base + offset))
        {
            return base;
        }
    }
}
