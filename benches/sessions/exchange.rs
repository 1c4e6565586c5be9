//! Comparing 60,000 active sessions with one peer.
//!
//! Two nodes in processes of their own hold the same sessions. They are filled and started with no link between them,
//! and their memory is noted; then they are linked, and compare several times. How long a comparison takes each node
//! says itself, in its log; how much memory it took at the most the kernel does.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use emccd::lab::{Cluster, Hosting, Lab, Spec};

/// Sessions that the two share.
const SESSIONS: u32 = 60_000;
/// Comparisons of each node.
const PASSES: usize = 5;
/// How long one may take: the median counts.
const WANTED: Duration = Duration::from_secs(1);
/// How much more memory a node may take for it.
const WANTED_KIB: u64 = 64 * 1024;
/// Until then they have compared so often, on any machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Measures, prints, and tells whether all is as wanted.
pub(crate) async fn run() -> Result<bool> {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_emccd"));
    let level = "level = \"debug\"";
    let lab = Lab::start(&Spec {
        clusters: 2,
        hosting: Hosting::Processes { binary },
        paired: false,
        settings: vec![("log".to_owned(), level.to_owned())],
        ..Spec::default()
    })
    .await?;
    let ids = [
        lab.cluster(0)?.id.to_string(),
        lab.cluster(1)?.id.to_string(),
    ];
    for (cluster, role, other) in [(0, "home", 1), (1, "visiting", 0)] {
        let file = lab.cluster(cluster)?.member()?.folder.join("../emccd.db");
        let other = ids.get(other).context("two clusters")?.clone();
        tokio::task::spawn_blocking(move || fill(&file, role, &other)).await??;
    }
    let mut before = Vec::new();
    for cluster in &lab.clusters {
        before.push(memory(cluster, "VmRSS")?);
    }
    lab.pair_all().await?;
    let mut is_met = true;
    for (cluster, before) in lab.clusters.iter().zip(before) {
        let mut took = passes(cluster).await?;
        took.sort_unstable();
        let at = |place: usize| took.get(place).copied().unwrap_or_default();
        let (median, extra) = (
            at(PASSES / 2),
            memory(cluster, "VmHWM")?.saturating_sub(before),
        );
        println!(
            "comparing {SESSIONS} sessions, {}: {median} ms (median of {PASSES}; {} to {}); wanted: at most {} ms; \
             {extra} KiB more than before; wanted: at most {WANTED_KIB}",
            cluster.id,
            at(0),
            at(PASSES - 1),
            WANTED.as_millis()
        );
        is_met &= u128::from(median) <= WANTED.as_millis() && extra <= WANTED_KIB;
    }
    lab.shut_down().await;
    Ok(is_met)
}

/// Puts the sessions into a node's database beside it.
fn fill(file: &Path, role: &str, other: &str) -> Result<()> {
    let database = rusqlite::Connection::open(file)?;
    database.busy_timeout(Duration::from_secs(30))?;
    let filled = database.execute(
        "INSERT INTO sessions (role, counterpart, id, state, device, user_key, user_id, login_type, login_name, reference, created_at,
           changed_at, owed)
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < $1)
         SELECT $2, $3, printf('0192f0c1-%04x-7abc-8def-%012x', n / 256, n * 2654435761 % 281474976710656), 'active',
           'SEP' || n, 'ida.berlin', 'ida.berlin', 'UID', 'user' || n, '00000000', 0, 0, 0 FROM n",
        (SESSIONS, role, other),
    )?;
    ensure!(filled == usize::try_from(SESSIONS)?, "{filled} rows");
    Ok(())
}

/// What the kernel says of the memory of a cluster's first node, in KiB.
fn memory(cluster: &Cluster, what: &str) -> Result<u64> {
    let pid = cluster.member()?.pid().context("it does not run")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(what));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.context("the kernel does not tell")?.parse()?)
}

/// Waits until a node has compared so often; how many milliseconds each time took.
async fn passes(cluster: &Cluster) -> Result<Vec<u64>> {
    let began = Instant::now();
    let file = cluster.member()?.log_file();
    loop {
        let log = std::fs::read_to_string(&file)?;
        let lines = log
            .lines()
            .filter(|line| line.contains("compared sessions with"));
        let took: Vec<u64> = lines.filter_map(millis).collect();
        if took.len() >= PASSES {
            return Ok(took.into_iter().take(PASSES).collect());
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "{} compared {} times",
            cluster.id,
            took.len()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn millis(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("took_ms")?;
    let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}
