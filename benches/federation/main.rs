//! What the federation costs, against baselines taken in the same run: `cargo bench --bench federation`.
//!
//! Both clusters, the phones and the baselines share this machine's cores. The figures are taken in rounds, each
//! once per round in turn, so that a machine whose speed drifts drifts for all of them alike. What is printed is the
//! median over the rounds and the spread; the ratios are medians of the ratios within each round. Options (behind
//! `--`): `--rounds N`, at least 1, default 5; `--json`.

#![expect(
    clippy::print_stdout,
    reason = "what a bench measures goes to standard output"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

mod baseline;
mod figures;
mod subject;

use self::{
    baseline::{Chain, Echo},
    figures::{Figures, percentile},
    subject::Subject,
};

/// Calls of one throughput figure in one round.
const CALLS: usize = 4_000;
/// Requests under way at once in a throughput figure.
const CONCURRENCY: usize = 32;
/// Durable commits of one figure in one round.
const COMMITS: usize = 200;
/// Hashes of one figure in one round.
const HASHES: usize = 40;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let rounds = arguments
        .iter()
        .position(|a| a == "--rounds")
        .and_then(|at| arguments.get(at + 1))
        .map_or(Ok(5), |n| n.parse())
        .context("--rounds takes a whole number")?;
    ensure!(rounds > 0, "--rounds takes at least 1");
    let json = arguments.iter().any(|a| a == "--json");
    let figures = tokio::runtime::Runtime::new()?.block_on(measure(rounds))?;
    println!("{}", if json { figures.json() } else { figures.text() });
    Ok(())
}

async fn measure(rounds: usize) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let echo = Echo::start(folder.path()).await?;
    let chain = Chain::start(folder.path()).await?;
    let cheap = Subject::start(
        folder.path(),
        "cheap",
        &["memory-kib = 8", "iterations = 1"],
    )
    .await?;
    let usual = Subject::start(
        folder.path(),
        "usual",
        &["memory-kib = 19456", "iterations = 2"],
    )
    .await?;
    let mut figures = Figures::default();
    // One round is thrown away: caches fill, connections open, the first allocations happen.
    for round in 0..=rounds {
        let mut taken = Figures::default();
        one_round(&mut taken, &echo, &chain, &cheap, &usual, folder.path()).await?;
        if round > 0 {
            figures.add(taken);
        }
    }
    cheap.stop().await;
    usual.stop().await;
    Ok(figures)
}

async fn one_round(
    figures: &mut Figures,
    echo: &Arc<Echo>,
    chain: &Arc<Chain>,
    cheap: &Arc<Subject>,
    usual: &Arc<Subject>,
    folder: &std::path::Path,
) -> Result<()> {
    let echoes = rate(CALLS, |_| {
        let echo = Arc::clone(echo);
        async move { echo.call().await }
    })
    .await?;
    figures.put("echo", "bare tonic mTLS unary echo", "1/s", echoes);

    let commit = baseline::durable_commit(folder, COMMITS)?;
    figures.put(
        "commit",
        "durable commit (SQLite, WAL, synchronous=FULL)",
        "ms",
        millis(commit),
    );

    let hash = baseline::argon2id(HASHES, 19_456, 2)?;
    figures.put(
        "argon2id",
        "bare Argon2id 19 MiB, 2 passes, all cores",
        "1/s",
        hash,
    );

    let finds = rate(CALLS, |n| {
        let cheap = Arc::clone(cheap);
        async move { cheap.find_user(n).await }
    })
    .await?;
    figures.put(
        "find-user",
        "FindUser over a peer's connection",
        "1/s",
        finds,
    );
    figures.put(
        "find-user/echo",
        "FindUser against the echo (goal 0.70)",
        "",
        finds / echoes,
    );

    let chained = rate(chain.size(), |n| {
        let chain = Arc::clone(chain);
        async move { chain.request(n).await }
    })
    .await?;
    figures.put(
        "chain",
        "HTTPS, mTLS echo and three grouped commits",
        "1/s",
        chained,
    );

    let logins = rate(cheap.size(), |n| {
        let cheap = Arc::clone(cheap);
        async move { cheap.log_in(n).await.map(drop) }
    })
    .await?;
    cheap.log_all_out().await?;
    figures.put(
        "login-cheap",
        "cross-cluster logins, cheapest hash",
        "1/s",
        logins,
    );
    figures.put(
        "login-cheap/chain",
        "logins against the chain (goal 0.50)",
        "",
        logins / chained,
    );

    let latencies = at_rate(cheap, logins / 2.0).await?;
    cheap.log_all_out().await?;
    let (p50, p99) = (percentile(&latencies, 50), percentile(&latencies, 99));
    figures.put(
        "login-cheap-p50",
        "login at half of that rate, p50",
        "ms",
        millis(p50),
    );
    figures.put(
        "login-cheap-p99",
        "login at half of that rate, p99",
        "ms",
        millis(p99),
    );
    figures.put(
        "p50/commit",
        "p50 against the durable commit",
        "",
        millis(p50) / millis(commit),
    );
    figures.put(
        "p99/p50",
        "p99 against p50 (goal 5)",
        "",
        millis(p99) / millis(p50),
    );

    let usual_logins = rate(usual.size(), |n| {
        let usual = Arc::clone(usual);
        async move { usual.log_in(n).await.map(drop) }
    })
    .await?;
    usual.log_all_out().await?;
    figures.put(
        "login-default",
        "cross-cluster logins, default hash",
        "1/s",
        usual_logins,
    );
    figures.put(
        "login-default/argon2id",
        "logins against bare hashing (goal 0.90)",
        "",
        usual_logins / hash,
    );
    Ok(())
}

fn millis(length: Duration) -> f64 {
    length.as_secs_f64() * 1_000.0
}

/// Calls per second of `count` calls, [`CONCURRENCY`] at a time.
async fn rate<F, C>(count: usize, call: C) -> Result<f64>
where
    C: Fn(usize) -> F,
    F: Future<Output = Result<()>>,
{
    let began = Instant::now();
    stream::iter((0..count).map(call))
        .buffer_unordered(CONCURRENCY)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Latencies of logins that begin at a fixed rate, whether earlier ones have ended or not; each is counted from
/// when it should have begun.
async fn at_rate(subject: &Arc<Subject>, per_second: f64) -> Result<Vec<Duration>> {
    let gap = Duration::from_secs_f64(1.0 / per_second);
    let began = tokio::time::Instant::now();
    let logins = (0..subject.size()).map(|n| {
        let subject = Arc::clone(subject);
        let due = began + gap * u32::try_from(n).unwrap_or(u32::MAX);
        async move {
            tokio::time::sleep_until(due).await;
            subject.log_in(n).await?;
            Ok::<_, anyhow::Error>(due.elapsed())
        }
    });
    let mut latencies: Vec<Duration> = stream::iter(logins)
        .buffer_unordered(subject.size())
        .try_collect()
        .await?;
    latencies.sort_unstable();
    Ok(latencies)
}
