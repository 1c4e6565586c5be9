//! `audit`: what can be typed about the record of changes.

use clap::{Args, Subcommand};

use crate::{
    domain::ids::Ref,
    store::audit::{Action, Noted},
};

/// `audit`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// What people and peers have changed, newest first
    List(AuditList),
    /// Check that no entry was changed, removed or put in between, also at the end; names the first one that was
    Verify(AuditVerify),
}

/// `audit verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each entry is hashed with the one before it; the last one of each node is sealed with a key that comes \
    from the pepper, which is not in the database, and other nodes note it in their own audit every minute. Not found \
    is what was done with the pepper at hand, and a database that was brought back as a whole to what it once was, or \
    emptied and begun anew. For that, note the heads elsewhere (they are in the last column here, and every minute in \
    the log of each node, as audit.head) and give them with --noted.\n\n\
    Examples:\n  emccd audit verify\n  emccd audit verify --noted n1:1207:5b0c...e1"
)]
pub struct AuditVerify {
    /// A head that was noted earlier: its entry must still be there; may be repeated
    #[arg(long, value_name = "NODE:NUMBER:HASH")]
    pub noted: Vec<Noted>,
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
    /// How many at most, the newest of them
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
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
