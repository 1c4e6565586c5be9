//! `param`: what can be typed about the cluster's parameters.

use clap::{Args, Subcommand};

/// `param`.
#[derive(Debug, Subcommand)]
pub enum Param {
    /// Every parameter with its value, its default and who has set it
    List(ParamList),
    /// One parameter: what it does, what it may be, and why its default is so
    #[command(after_help = "Example:\n  emccd param show multiple-login-behavior")]
    Show {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Set a parameter; in force on every node within a second
    Set(ParamSet),
    /// Take a setting back, so that the default holds
    #[command(after_help = "Example:\n  emccd param reset maximum-concurrent-requests")]
    Reset {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// `param list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  emccd param list\n  emccd param list --set --json")]
pub struct ParamList {
    /// Only those that somebody has set
    #[arg(long)]
    pub set: bool,
}

/// `param set`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd param set multiple-login-behavior auto-logout\n  \
    emccd param set intra-cluster-maximum-login-time 12:00"
)]
pub struct ParamSet {
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Its new value; emccd param show tells what it may be
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    pub value: String,
}
