//! `audit`: what can be typed about the record of changes.

use clap::{Args, Subcommand};

use crate::{domain::ids::Ref, store::audit::Action};

/// `audit`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// What people and peers have changed, newest first
    List(AuditList),
    /// Check that no entry was changed, removed or put in between; names the first one that was
    #[command(after_help = "Example:\n  emccd audit verify")]
    Verify,
}

/// `audit list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd audit list --since 2h\n  emccd audit list --action param --actor anna\n  \
    emccd audit list --ref 7K3Q-9M2X --json"
)]
pub struct AuditList {
    /// Only from then on: a time such as 2026-11-22T09:30:00Z, or how long ago, such as 90min, 2h or 7d
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only by those whose name has this in it
    #[arg(long, value_name = "TEXT")]
    pub actor: Option<String>,
    /// Only of this attempt
    #[arg(long, value_name = "REF")]
    pub r#ref: Option<Ref>,
    /// Only what is called so or begins with this, for example session or param.set
    #[arg(long, value_name = "ACTION", value_parser = action, long_help = action_help())]
    pub action: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
}

/// Where nothing begins with it, nothing would ever be found.
fn action(text: &str) -> Result<String, String> {
    let all = Action::all();
    if all.iter().any(|word| word.starts_with(text)) {
        return Ok(text.to_owned());
    }
    Err(format!("no action begins so; there are {}", all.join(", ")))
}

fn action_help() -> String {
    format!(
        "Only what is called so or begins with this, for example session or param.set. There are {}",
        Action::all().join(", ")
    )
}
