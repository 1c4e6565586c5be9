//! What the federation costs, against baselines taken in the same run: `cargo bench --bench federation`.
//!
//! Both clusters, the phones and the baselines share this machine's cores. The figures are taken in rounds, each
//! once per round in turn, so that a machine whose speed drifts drifts for all of them alike. What is printed is the
//! median over the rounds and the spread; the ratios are medians of the ratios within each round. After the warm-up
//! round every home is known from an earlier login, so a login is one call to it and no search. Options (behind
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
use emccd::credentials;
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
/// Hashes of one figure in one round, on each core.
const HASHES: usize = 20;
/// Passes over all phones for one figure of cheap logins: a figure takes a thousand logins and more.
const LOGIN_PASSES: usize = 4;

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
    let bench = Bench::start().await?;
    let mut figures = Figures::default();
    // One round is thrown away: caches fill, connections open, the first allocations happen.
    for round in 0..=rounds {
        let mut taken = Figures::default();
        bench.round(&mut taken).await?;
        if round > 0 {
            figures.add(taken);
        }
    }
    bench.stop().await;
    Ok(figures)
}

/// What is measured: the baselines and the real thing.
struct Bench {
    folder: tempfile::TempDir,
    echo: Arc<Echo>,
    chain: Arc<Chain>,
    cheap: Arc<Subject>,
    usual: Arc<Subject>,
}

impl Bench {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let shipped = credentials::Config::default();
        let usual = [
            format!("memory-kib = {}", shipped.memory_kib),
            format!("iterations = {}", shipped.iterations),
        ];
        let usual: Vec<_> = usual.iter().map(String::as_str).collect();
        Ok(Self {
            echo: Echo::start(folder.path()).await?,
            chain: Chain::start(folder.path()).await?,
            cheap: Subject::start(
                folder.path(),
                "cheap",
                &["memory-kib = 8", "iterations = 1"],
            )
            .await?,
            usual: Subject::start(folder.path(), "usual", &usual).await?,
            folder,
        })
    }

    async fn stop(self) {
        self.cheap.stop().await;
        self.usual.stop().await;
    }

    async fn round(&self, figures: &mut Figures) -> Result<()> {
        let echoes = rate(CALLS, async |_| self.echo.call().await).await?;
        figures.put("echo", "bare tonic mTLS unary echo", "1/s", echoes);
        let commit = millis(baseline::durable_commit(self.folder.path(), COMMITS)?);
        figures.put(
            "commit",
            "durable commit (SQLite, WAL, synchronous=FULL)",
            "ms",
            commit,
        );
        let hashes = baseline::argon2id(HASHES)?;
        figures.put(
            "argon2id",
            "bare Argon2id, shipped settings, all cores",
            "1/s",
            hashes,
        );
        self.find_user(figures, echoes).await?;
        let logins = self.cheap_logins(figures).await?;
        self.latency(figures, logins, commit).await?;
        self.usual_logins(figures, hashes).await
    }

    async fn find_user(&self, figures: &mut Figures, echoes: f64) -> Result<()> {
        let finds = rate(CALLS, async |n| self.cheap.find_user(n).await).await?;
        figures.put(
            "find-user",
            "FindUser over a peer's connection",
            "1/s",
            finds,
        );
        figures.put(
            "find-user/echo",
            "FindUser against the echo (at least 0.70)",
            "",
            finds / echoes,
        );
        Ok(())
    }

    async fn cheap_logins(&self, figures: &mut Figures) -> Result<f64> {
        let count = LOGIN_PASSES * self.cheap.size();
        let chained = rate(count, async |n| self.chain.request(n).await).await?;
        figures.put(
            "chain",
            "HTTPS, mTLS echo and three grouped commits",
            "1/s",
            chained,
        );
        let logins = login_rate(&self.cheap, LOGIN_PASSES).await?;
        figures.put(
            "login-cheap",
            "cross-cluster logins, cheapest hash",
            "1/s",
            logins,
        );
        figures.put(
            "login-cheap/chain",
            "logins against the chain (at least 0.50)",
            "",
            logins / chained,
        );
        Ok(logins)
    }

    async fn latency(&self, figures: &mut Figures, logins: f64, commit: f64) -> Result<()> {
        let mut latencies = Vec::new();
        for _ in 0..LOGIN_PASSES {
            latencies.extend(at_rate(&self.cheap, logins / 2.0).await?);
            self.cheap.log_all_out().await?;
        }
        latencies.sort_unstable();
        let (p50, p99) = (
            millis(percentile(&latencies, 50)),
            millis(percentile(&latencies, 99)),
        );
        figures.put(
            "login-cheap-p50",
            "login at half of that rate, p50",
            "ms",
            p50,
        );
        figures.put(
            "login-cheap-p99",
            "login at half of that rate, p99",
            "ms",
            p99,
        );
        figures.put(
            "p50/bar",
            "p50 against 10 ms or 4 commits, the larger (at most 1)",
            "",
            p50 / (4.0 * commit).max(10.0),
        );
        figures.put(
            "p50/goal",
            "p50 against 3 ms and 3 commits (the goal: at most 1)",
            "",
            p50 / (3.0 + 3.0 * commit),
        );
        figures.put("p99/p50", "p99 against p50 (at most 5)", "", p99 / p50);
        Ok(())
    }

    async fn usual_logins(&self, figures: &mut Figures, hashes: f64) -> Result<()> {
        let logins = login_rate(&self.usual, 1).await?;
        figures.put(
            "login-default",
            "cross-cluster logins, shipped hash",
            "1/s",
            logins,
        );
        figures.put(
            "login-default/argon2id",
            "logins against bare hashing (at least 0.90)",
            "",
            logins / hashes,
        );
        Ok(())
    }
}

/// Logins per second over some passes; the logouts between them are not counted.
async fn login_rate(subject: &Arc<Subject>, passes: usize) -> Result<f64> {
    let mut seconds = 0.0;
    for _ in 0..passes {
        let one = rate(subject.size(), async |n| subject.log_in(n).await).await?;
        seconds += count(subject.size()) / one;
        subject.log_all_out().await?;
    }
    Ok(count(passes * subject.size()) / seconds)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
const fn count(count: usize) -> f64 {
    count as f64
}

fn millis(length: Duration) -> f64 {
    length.as_secs_f64() * 1_000.0
}

/// Calls per second of `count` calls, [`CONCURRENCY`] at a time.
async fn rate(calls: usize, call: impl AsyncFn(usize) -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    let call = &call;
    stream::iter(0..calls)
        .map(|n| call(n))
        .buffer_unordered(CONCURRENCY)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    Ok(count(calls) / began.elapsed().as_secs_f64())
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
