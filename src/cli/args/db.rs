//! `db`: what can be typed about the database.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
    /// Check a backup, or the database of a node that is down: its pages, its references and its audit
    #[command(after_help = "Example:\n  emccd db verify /var/backups/emccd-monday.db")]
    Verify {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Bring a database to the schema of this version, as its next start would
    Migrate(DbMigrate),
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
