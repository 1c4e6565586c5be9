//! `cert rotate`: what can be typed about exchanging the nodes' certificates.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::cert::Purpose;
use crate::domain::ids::ClusterId;

/// `cert rotate`.
#[derive(Debug, Subcommand)]
pub enum Rotate {
    /// Make a new certificate, and tell the peers of it; the old one stays in use
    #[command(after_help = "Examples:\n  emccd cert rotate announce\n  \
        emccd cert rotate announce --node all --days 365 --wait 60s\n  \
        emccd cert rotate announce --from signed.pem ca.pem --key-file signed.key")]
    Announce(RotateAnnounce),
    /// Use the new certificate; refused while a peer does not have it
    #[command(after_help = "Examples:\n  emccd cert rotate activate --node all\n  \
        emccd cert rotate activate --override tokyo")]
    Activate(RotateActivate),
    /// Say that the operators of peers without trust-announce have added the new certificate by hand
    #[command(after_help = "Example:\n  emccd cert rotate confirm tokyo")]
    Confirm(RotateConfirm),
    /// Let the old certificate go; refused while something rests on it
    #[command(after_help = "Example:\n  emccd cert rotate retire --node all")]
    Retire(RotateStep),
    /// Use the old certificate again, and let the new one go; possible until it is retired
    #[command(after_help = "Example:\n  emccd cert rotate rollback --node berlin-1 --yes")]
    Rollback(RotateStep),
    /// Forget the rotations of a node that is gone for good; refused while it shows signs of life
    #[command(after_help = "Example:\n  emccd cert rotate forget berlin-2")]
    Forget(RotateForget),
    /// Announce, activate and retire: each as soon as nothing stands in the way
    #[command(after_help = "Example:\n  emccd cert rotate run --node all --wait 2min")]
    Run(RotateAnnounce),
    /// Show the certificates that are being exchanged, and how far each peer has come
    #[command(
        after_help = "Examples:\n  emccd cert rotate status\n  emccd cert rotate status --json"
    )]
    Status,
}

/// Which certificates.
#[derive(Debug, Args)]
pub struct RotateTarget {
    /// The node whose certificate it is, or all; may be repeated
    #[arg(long, value_name = "NAME|all")]
    pub node: Vec<String>,
    /// What the certificate is for
    #[arg(long, value_enum, default_value_t = Purpose::Federation)]
    pub purpose: Purpose,
    /// Ask nothing
    #[arg(long)]
    pub yes: bool,
}

/// `cert rotate announce` and `cert rotate run`.
#[derive(Debug, Args)]
pub struct RotateAnnounce {
    /// Which certificates.
    #[command(flatten)]
    pub target: RotateTarget,
    /// Kind of the new key
    #[arg(long, value_enum, value_name = "KIND")]
    pub key: Option<RotateKey>,
    /// How long it is valid; as long as the one from before if nothing is said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: Option<u32>,
    /// DNS name or address that it carries, or must carry if it is there already; those of the one from before if nothing
    /// is said
    #[arg(long, value_name = "NAME")]
    pub name: Vec<String>,
    /// A certificate that is there already, and those of the authorities above it, in files on the node
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "key_file", conflicts_with_all = ["key", "days"])]
    pub from: Vec<PathBuf>,
    /// Take a chain that stops below its root: peers trust the authority where it stops
    #[arg(long, requires = "from")]
    pub without_issuers: bool,
    /// Its key, readable by the daemon alone
    #[arg(long, value_name = "FILE", requires = "from")]
    pub key_file: Option<PathBuf>,
}

/// `cert rotate activate`.
#[derive(Debug, Args)]
pub struct RotateActivate {
    /// Which certificates.
    #[command(flatten)]
    pub target: RotateTarget,
    /// Don't wait for this peer: it is called with the old certificate until it has the new one; may be repeated
    #[arg(long = "override", value_name = "PEER")]
    pub overridden: Vec<ClusterId>,
    /// The operator of this peer, which has no trust-announce, has added the new certificate; may be repeated
    #[arg(long, value_name = "PEER")]
    pub confirmed: Vec<ClusterId>,
}

/// `cert rotate confirm`.
#[derive(Debug, Args)]
pub struct RotateConfirm {
    /// Which certificates.
    #[command(flatten)]
    pub target: RotateTarget,
    /// The peers
    #[arg(value_name = "PEER", required = true)]
    pub peers: Vec<ClusterId>,
}

/// `cert rotate retire` and `cert rotate rollback`.
#[derive(Debug, Args)]
pub struct RotateStep {
    /// Which certificates.
    #[command(flatten)]
    pub target: RotateTarget,
}

/// `cert rotate forget`.
#[derive(Debug, Args)]
pub struct RotateForget {
    /// The nodes
    #[arg(value_name = "NODE", required = true)]
    pub nodes: Vec<String>,
    /// Ask nothing
    #[arg(long)]
    pub yes: bool,
}

/// Kind of a new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RotateKey {
    /// ECDSA on P-256
    P256,
    /// RSA of 2048 bits
    Rsa,
}

impl RotateKey {
    /// The word of the admin service.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::Rsa => "rsa",
        }
    }
}
