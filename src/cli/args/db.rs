//! `db`: what can be typed about the database.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::store::audit::Noted;

/// `db`.
#[derive(Debug, Subcommand)]
pub enum Db {
    /// Have the daemon write a copy of its database, while it runs
    #[command(
        after_help = "The daemon writes the file, with its own rights; only its user can read it.\n\n\
        Example:\n  emccd db backup /var/backups/emccd-monday.db"
    )]
    Backup {
        /// File to make; none of that name may exist
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Check a backup, or the database of a node that is down: its pages, its tables, its rows and its audit
    Verify(DbVerify),
    /// Bring a database to the schema of this version, as its next start would
    Migrate(DbMigrate),
}

/// `db verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Without the pepper it is not found when somebody has cut the audit off, or written it anew, together \
    with its head; what is not found even with it is in: emccd audit verify --help\n\n\
    Examples:\n  emccd db verify /var/backups/emccd-monday.db\n  \
    emccd db verify emccd-monday.db --pepper-file /etc/emccd/pepper.key"
)]
pub struct DbVerify {
    /// The file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The cluster's pepper, which the seals of its audit are made with
    #[arg(long, value_name = "FILE")]
    pub pepper_file: Option<PathBuf>,
    /// A head of the audit that was noted earlier: its entry must be there; may be repeated
    #[arg(long, value_name = "NODE:NUMBER:HASH")]
    pub noted: Vec<Noted>,
}

/// `db migrate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd db migrate emccd.db --dry-run    only tell what would be done\n  \
    emccd --config emccd.toml db migrate"
)]
pub struct DbMigrate {
    /// The file; default: the one that the configuration names
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Only tell what would be done
    #[arg(long)]
    pub dry_run: bool,
}
