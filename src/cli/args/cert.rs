//! `cert`: what can be typed about what this node shows.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::day::day;
use super::rotate::Rotate;
use crate::{cli::args::StorePassword, clock::Timestamp};

/// `cert`.
#[derive(Debug, Subcommand)]
pub enum Cert {
    /// Show the daemon's certificates, or those of a file
    #[command(
        after_help = "Examples:\n  emccd cert show\n  emccd cert show tokyo.pem\n  emccd cert show keystore.p12 --password-file p12.password\n  emccd cert show --as-of 2027-03-31    which are still valid then"
    )]
    Show {
        /// A file in PEM, DER, PKCS#7, PKCS#12 or JKS; no daemon is asked, and keys in it are passed over
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Its password
        #[command(flatten)]
        password: StorePassword,
        /// How they stand on that day
        #[arg(long, value_name = "DATE", value_parser = day)]
        as_of: Option<Timestamp>,
    },
    /// Exchange the nodes' certificates while peers go on trusting them
    #[command(subcommand)]
    Rotate(Rotate),
    /// Write a new key and a self-signed certificate; works without a daemon
    New(CertNew),
    /// Have the daemon read its certificate files again; running calls go on
    #[command(after_help = "Example:\n  emccd cert reload")]
    Reload,
}

/// `cert new`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    emccd cert new --common-name berlin --name emcc.berlin.example --out new\n\n\
    Writes new.pem and new.key. Give new.pem to the peers, put both files where the configuration has \
    the old ones, then: emccd cert reload")]
pub struct CertNew {
    /// What the certificate is for: peers want P-256, old phones know only RSA
    #[arg(long, value_enum, default_value_t = Purpose::Federation)]
    pub purpose: Purpose,
    /// Common name, by custom the cluster ID
    #[arg(long, value_name = "NAME")]
    pub common_name: String,
    /// DNS name or address that it carries; may be repeated
    #[arg(long, value_name = "NAME", required = true)]
    pub name: Vec<String>,
    /// How long it is valid
    #[arg(long, value_name = "N", default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// Path of the two files without their endings .pem and .key; neither may exist
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
}

/// What an identity is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// Shown to peers, in both directions.
    Federation,
    /// Shown to the peers that this node calls, where it has a certificate of its own for that.
    FederationClient,
    /// Shown to phones and to programs.
    Phone,
}
