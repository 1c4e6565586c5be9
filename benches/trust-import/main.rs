//! How long it takes to bring in many certificates at once: `cargo bench --bench trust-import`.
//!
//! An operator types `emccd trust import FILE --yes` at a node in a process of its own, with a file in PEM of 10,000
//! certificates (ECDSA P-256, each with a name of its own) of which the node knows none; what is measured is that
//! program from its start to its end, so with reading the file, the dry run before and the answer after. Beside it
//! stands the same file imported once more, which changes nothing. Each round has a node of its own; the median of the
//! rounds is printed, with the lowest and the highest; where one of the two medians is above what is wanted it exits
//! with 1. Options (behind `--`): `--rounds N`, at least 1, default 5;
//! `--certificates N`, default 10,000.

#![expect(
    clippy::print_stdout,
    reason = "what a bench measures goes to standard output"
)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use emccd::{
    lab::{Hosting, Lab, Spec},
    trust::{
        certificate::Certificate,
        formats::{self, Entry, Format},
    },
    wire::admin as pb,
};

const PEER: &str = "lima";

/// An operator who waits longer looks whether it hangs.
const WANTED: Duration = Duration::from_secs(2);

fn main() -> Result<ExitCode> {
    let rounds = option("--rounds", 5)?;
    let count = option("--certificates", 10_000)?;
    ensure!(
        rounds > 0 && count > 0,
        "at least one round and one certificate"
    );
    let runtime = tokio::runtime::Runtime::new()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("many.pem");
    std::fs::write(&file, formats::write(Format::Pem, &many(count)?, None)?)?;
    let (mut new, mut again) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (first, second) = runtime.block_on(round(&file, count))?;
        new.push(first);
        again.push(second);
    }
    let mut is_met = true;
    for (what, times) in [("all of them new", &mut new), ("once more", &mut again)] {
        times.sort();
        let at = |place: usize| times.get(place).map_or(0.0, Duration::as_secs_f64);
        is_met &= times
            .get(rounds / 2)
            .is_some_and(|median| *median <= WANTED);
        println!(
            "emccd trust import of {count} certificates, {what}: {:.2} s (median of {rounds}; {:.2} to {:.2}); wanted: at most {} s",
            at(rounds / 2),
            at(0),
            at(rounds - 1),
            WANTED.as_secs()
        );
    }
    Ok(match is_met {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn option(name: &str, preset: usize) -> Result<usize> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    match (arguments.next(), arguments.next()) {
        (Some(_), Some(number)) => number
            .parse()
            .with_context(|| format!("{name} takes a number")),
        _ => Ok(preset),
    }
}

/// So many certificates of one key, each with a name of its own.
fn many(count: usize) -> Result<Vec<Entry>> {
    let key = rcgen::KeyPair::generate()?;
    let one = |number: usize| {
        let name = format!("n{number}.{PEER}.example");
        let mut params = rcgen::CertificateParams::new(vec![name.clone()])?;
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, &*name);
        let certificate = Certificate::from_der(params.self_signed(&key)?.der())?;
        let alias = format!("{PEER}/pinned/{name}");
        Ok(Entry::trusted(Some(alias), certificate))
    };
    (0..count).map(one).collect()
}

/// How long the import took, and how long the same once more.
async fn round(file: &Path, count: usize) -> Result<(Duration, Duration)> {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_emccd"));
    let hosting = Hosting::Processes {
        binary: binary.clone(),
    };
    let lab = Lab::start(&Spec {
        clusters: 1,
        hosting,
        ..Spec::default()
    })
    .await?;
    let cluster = lab.cluster(0)?;
    let mut admin = cluster.admin().await?;
    let record = pb::Cluster {
        cluster_id: PEER.to_owned(),
        addresses: vec!["192.0.2.1:8444".to_owned()],
        ..pb::Cluster::default()
    };
    let request = pb::AddClusterRequest {
        cluster: Some(record),
        trust: None,
    };
    admin.add_cluster(request).await?;
    let socket = &cluster.member()?.addresses.admin;
    let import = || async {
        let began = Instant::now();
        let ended = tokio::process::Command::new(&binary)
            .arg("--socket")
            .arg(socket)
            .args(["trust", "import", "--yes"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .await?;
        ensure!(ended.success(), "the import failed: {ended}");
        Ok::<_, anyhow::Error>(began.elapsed())
    };
    let (first, second) = (import().await?, import().await?);
    let trusted = admin.trust(pb::ListTrustRequest::default()).await?;
    let found = trusted.entries.len();
    ensure!(found == count, "{found} are trusted, not {count}");
    lab.shut_down().await;
    Ok((first, second))
}
