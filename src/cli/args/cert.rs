//! `cert`: what can be typed about what this node shows.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{day::day, rotate::Rotate};
use crate::{
    cli::args::StorePassword,
    clock::Timestamp,
    domain::purpose,
    trust::make::{KeyKind, Usage},
};

/// `cert`.
#[derive(Debug, Subcommand)]
pub enum Cert {
    /// Show the daemon's certificates, or those of a file
    #[command(
        after_help = "Examples:\n  emccd cert show\n  emccd cert show --all-nodes\n  emccd cert show tokyo.pem\n  emccd cert show keystore.p12 --password-file p12.password\n  emccd cert show --as-of 2027-03-31    which are still valid then"
    )]
    Show {
        /// A file in PEM, DER, PKCS#7, PKCS#12 or JKS; no daemon is asked, and keys in it are passed over
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Its password
        #[command(flatten)]
        password: StorePassword,
        /// Those of the other nodes of the cluster as well, as these have put on record
        #[arg(long, conflicts_with = "file")]
        all_nodes: bool,
        /// How they stand on that day
        #[arg(long, value_name = "DATE", value_parser = day)]
        as_of: Option<Timestamp>,
    },
    /// Exchange the nodes' certificates while peers go on trusting them
    #[command(subcommand)]
    Rotate(Rotate),
    /// Write a new key and a self-signed certificate; works without a daemon
    New(CertNew),
    /// Write a request for an authority to sign, and its key; works without a daemon
    Csr(Box<CertCsr>),
    /// Take an authority's answer: check it, complete its chain, and put it in use; works without a daemon
    Install(CertInstall),
    /// Have the daemon read its certificate files again; running calls go on
    #[command(after_help = "Example:\n  emccd cert reload")]
    Reload,
}

/// What a certificate shall say.
#[derive(Debug, Args)]
pub struct CertFields {
    /// What the certificate is for: peers want P-256, old phones know only RSA
    #[arg(long, value_enum, default_value_t = Purpose::Federation)]
    pub purpose: Purpose,
    /// Common name, by custom the cluster ID
    #[arg(long, value_name = "NAME")]
    pub common_name: String,
    /// DNS name or address that it carries; may be repeated, also for the other nodes of the cluster
    #[arg(long, value_name = "NAME", required = true)]
    pub name: Vec<String>,
    /// Kind of key; without it P-256 for peers, RSA-2048 for phones
    #[arg(long, value_enum, value_name = "KIND")]
    pub key: Option<Key>,
    /// What it may be used for; without it what the purpose needs: both for peers and for phones, client for
    /// federation-client
    #[arg(long, value_enum, value_name = "USAGE")]
    pub usage: Option<For>,
}

/// `cert new`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    emccd cert new --common-name berlin --name emcc.berlin.example --out new\n  \
    emccd cert new --common-name berlin --name emcc1.berlin.example --name emcc2.berlin.example --key p-384 --days 365 --out new\n\n\
    Writes new.pem and new.key. Give new.pem to the peers, then: emccd cert install new.pem")]
pub struct CertNew {
    /// What it shall say.
    #[command(flatten)]
    pub fields: CertFields,
    /// How long it is valid
    #[arg(long, value_name = "N", default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// Path of the two files without their endings .pem and .key; neither may exist
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
}

/// `cert csr`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    emccd cert csr --common-name berlin --name emcc.berlin.example --out next\n  \
    emccd cert csr --common-name berlin --name emcc.berlin.example --key-file next.key --out again\n\n\
    Writes next.csr for the authority, and next.key, which stays here. What the authority sends back: \
    emccd cert install ANSWER.pem --key-file next.key")]
pub struct CertCsr {
    /// What it shall say.
    #[command(flatten)]
    pub fields: CertFields,
    /// A key that is there, in PEM, in place of a new one
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    pub key_file: Option<PathBuf>,
    /// Organization (O), where the authority wants one
    #[arg(long, value_name = "NAME")]
    pub organization: Option<String>,
    /// Organizational unit (OU)
    #[arg(long, value_name = "NAME")]
    pub unit: Option<String>,
    /// Town (L)
    #[arg(long, value_name = "NAME")]
    pub locality: Option<String>,
    /// State or province (ST)
    #[arg(long, value_name = "NAME")]
    pub state: Option<String>,
    /// Country (C), two letters
    #[arg(long, value_name = "CODE", value_parser = country)]
    pub country: Option<String>,
    /// Path of the two files without their endings .csr and .key; neither may exist
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
}

/// `cert install`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    emccd cert install answer.pem ca.pem\n  \
    emccd cert install answer.pem --key-file next.key --now\n\n\
    The files may hold certificates in any order: the one for the key is found, and its chain is put together from the \
    others. Nothing is changed unless key, chain, dates, names and usage are right. Where a running node has peers, a \
    certificate for them is kept beside the one in use, since every peer must trust it first; --now puts it in use at \
    once. The one from before stays in the folder identities/ beside the configured files.")]
pub struct CertInstall {
    /// Certificates: the answer, and those of the authority
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// What the certificate is for
    #[arg(long, value_enum, default_value_t = Purpose::Federation)]
    pub purpose: Purpose,
    /// The key; without it the one that fits is looked for beside the files, in identities/ and at its configured place
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Name that it must carry, in place of those that the request asked for; may be repeated
    #[arg(long, value_name = "NAME")]
    pub name: Vec<String>,
    /// Take a chain that stops below its root: peers trust the authority where it stops
    #[arg(long)]
    pub without_issuers: bool,
    /// Put it in use at once, whatever the peers trust
    #[arg(long, conflicts_with = "next")]
    pub now: bool,
    /// Keep it beside the one in use, to be put in use later
    #[arg(long)]
    pub next: bool,
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

impl From<Purpose> for purpose::Purpose {
    fn from(typed: Purpose) -> Self {
        match typed {
            Purpose::Federation => Self::Federation,
            Purpose::FederationClient => Self::FederationClient,
            Purpose::Phone => Self::Phone,
        }
    }
}

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Key {
    /// ECDSA on P-256.
    #[value(name = "p-256")]
    P256,
    /// ECDSA on P-384.
    #[value(name = "p-384")]
    P384,
    /// RSA of 2048 bits.
    #[value(name = "rsa-2048")]
    Rsa2048,
    /// RSA of 3072 bits.
    #[value(name = "rsa-3072")]
    Rsa3072,
    /// RSA of 4096 bits.
    #[value(name = "rsa-4096")]
    Rsa4096,
}

impl From<Key> for KeyKind {
    fn from(typed: Key) -> Self {
        match typed {
            Key::P256 => Self::P256,
            Key::P384 => Self::P384,
            Key::Rsa2048 => Self::Rsa2048,
            Key::Rsa3072 => Self::Rsa3072,
            Key::Rsa4096 => Self::Rsa4096,
        }
    }
}

/// An extended key usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum For {
    /// serverAuth and clientAuth.
    Both,
    /// clientAuth.
    Client,
    /// serverAuth.
    Server,
}

impl CertFields {
    /// The kind of key, as asked or as the purpose wants it.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        match (self.key, self.purpose) {
            (Some(key), _) => key.into(),
            (None, Purpose::Phone) => KeyKind::Rsa2048,
            (None, Purpose::Federation | Purpose::FederationClient) => KeyKind::P256,
        }
    }

    /// What it may be used for, as asked or as the purpose wants it.
    #[must_use]
    pub fn usage(&self) -> Usage {
        match (self.usage, self.purpose) {
            (Some(For::Client), _) | (None, Purpose::FederationClient) => Usage::Client,
            (Some(For::Server), _) => Usage::Server,
            (Some(For::Both), _) | (None, Purpose::Federation | Purpose::Phone) => Usage::Both,
        }
    }
}

fn country(text: &str) -> Result<String, String> {
    if text.len() == 2 && text.chars().all(|c| c.is_ascii_alphabetic()) {
        Ok(text.to_ascii_uppercase())
    } else {
        Err("a country is two letters, for example DE".to_owned())
    }
}
