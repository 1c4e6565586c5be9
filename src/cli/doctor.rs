//! `doctor`: what is wrong with this node, and what mends it.

use std::{path::Path, time::Duration};

use serde_json::json;

use crate::{
    cli::{
        args::Global,
        client,
        failure::Outcome,
        output::{Report, clean, table},
    },
    clock::Clock,
    config::{self, Config},
    doctor::{self, Daemon, Finding, Level, Told},
    wire::admin as pb,
};

/// How long a daemon may take to answer everything. One that is stopped never does.
const PATIENCE: Duration = Duration::from_secs(10);

/// Examines a node.
///
/// # Errors
/// None: what is wrong stands in the report, which fails when something is an error.
pub async fn run(global: &Global) -> Outcome {
    let file = global
        .config
        .as_deref()
        .unwrap_or_else(|| Path::new(config::FILE_NAME));
    let found = doctor::examine(file, Clock::system().now(), async |config: &Config| {
        ask(global, config).await
    })
    .await;
    let is_well = doctor::is_well(&found);
    let answer = json!({"file": file.display().to_string(), "ok": is_well, "findings": found});
    let report = Report::new(text(&found), &answer);
    Ok(if is_well { report } else { report.failing() })
}

async fn ask(global: &Global, config: &Config) -> Daemon {
    let socket = global
        .socket
        .clone()
        .unwrap_or_else(|| config.admin.socket.clone());
    let there = std::os::unix::net::UnixStream::connect(&socket);
    if let Err(cause) = there
        && cause.kind() != std::io::ErrorKind::PermissionDenied
        && cause.kind() != std::io::ErrorKind::WouldBlock
    {
        return Daemon::Down;
    }
    let to = Global {
        socket: Some(socket),
        wait: None,
        ..global.clone()
    };
    match tokio::time::timeout(PATIENCE, told(&to)).await {
        Ok(Ok(told)) => Daemon::Up(Box::new(told)),
        Ok(Err(failure)) => Daemon::Silent {
            why: format!("{}: {}", failure.what(), failure.why()),
            hint: failure.next().to_owned(),
        },
        Err(_) => Daemon::Silent {
            why: format!("it does not answer within {} s", PATIENCE.as_secs()),
            hint: "look whether it was stopped (ps -o stat,cmd -C emccd), and into its log"
                .to_owned(),
        },
    }
}

async fn told(global: &Global) -> Outcome<Told> {
    const WHAT: &str = "the daemon can't be asked";
    let mut client = client::connect(global).await?;
    let status = client
        .get_cluster_status(pb::GetClusterStatusRequest {})
        .await;
    let identities = client.list_identities(pb::ListIdentitiesRequest {}).await;
    let trust = client
        .forecast_trust(pb::ForecastTrustRequest::default())
        .await;
    let parameters = client.list_parameters(pb::ListParametersRequest {}).await;
    let rotations = client.list_rotations(pb::ListRotationsRequest {}).await;
    Ok(Told {
        status: client::answer(WHAT, status)?,
        identities: client::answer(WHAT, identities)?,
        trust: client::answer(WHAT, trust)?,
        parameters: client::answer(WHAT, parameters)?,
        rotations: client::answer(WHAT, rotations)?,
    })
}

fn text(found: &[Finding]) -> String {
    let name = |finding: &Finding| match &finding.subject {
        Some(subject) => format!("{} {subject}", finding.id),
        None => finding.id.to_owned(),
    };
    let rows = found
        .iter()
        .map(|f| [f.level.as_str().to_owned(), name(f), f.text.clone()])
        .collect();
    let mut text = table(["LEVEL", "CHECK", "WHAT"], rows);
    let hints: Vec<_> = found
        .iter()
        .filter_map(|f| {
            f.hint
                .as_ref()
                .map(|hint| format!("  {}: {}", clean(&name(f)), clean(hint)))
        })
        .collect();
    if !hints.is_empty() {
        text = format!("{text}\n\nwhat to do:\n{}", hints.join("\n"));
    }
    let count = |level| found.iter().filter(|f| f.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    format!("{text}\n\nerrors: {errors}, warnings: {warnings}")
}
