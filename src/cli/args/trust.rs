//! `trust`: what can be typed about what is accepted from others.

use std::path::PathBuf;

use clap::{
    Args, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};

use super::{crl::TrustCrl, day::day};
use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    trust::{
        certificate::{Fingerprint, read_fingerprint},
        formats::Format,
    },
};

/// `trust`.
#[derive(Debug, Subcommand)]
pub enum Trust {
    /// Accept certificates that a peer announced and that wait, or reject them
    Accept(TrustAccept),
    /// Accept more certificates from a peer
    Add(TrustAdd),
    /// Say step by step why something is trusted or not, and what mends it
    Explain(TrustExplain),
    /// What is accepted, from one peer or from all, what waits, and what was revoked
    #[command(
        after_help = "Examples:\n  emccd trust list\n  emccd trust list tokyo\n  emccd trust list --as-of 2027-03-31    what is accepted then, and what breaks until then"
    )]
    List {
        /// One peer
        #[arg(value_name = "ID")]
        cluster_id: Option<ClusterId>,
        /// How it stands on that day, if nothing is changed until then
        #[arg(long, value_name = "DATE", value_parser = day)]
        as_of: Option<Timestamp>,
    },
    /// Put the certificates of several files into one, each once; works without a daemon
    Consolidate(TrustConsolidate),
    /// What two files of certificates don't have in common; works without a daemon
    Diff(TrustDiff),
    /// Write the certificates that this cluster shows, and those that it accepts, to a file for others
    Export(TrustExport),
    /// Accept the certificates of a file from the peers that they are of: all of them, or none
    Import(TrustImport),
    /// Accept a certificate from a peer no more; connections that live on it end, and a leaf is revoked
    Remove(TrustRemove),
    /// Revocation lists of the authorities that vouch for peers
    #[command(subcommand)]
    Crl(TrustCrl),
}

/// `trust accept`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd trust accept tokyo    shows what waits, and asks\n  \
    emccd trust accept tokyo --fingerprint 9F:86:…:0A\n  \
    emccd trust accept tokyo --reject\n\n\
    Certificates of a peer wait where its record says so: emccd cluster set tokyo --accept-announcements approve"
)]
pub struct TrustAccept {
    /// The peer
    #[arg(value_name = "ID")]
    pub cluster_id: ClusterId,
    /// SHA-256 fingerprint of the one that is meant; all that wait when it is not given
    #[arg(long, value_name = "HEX", value_parser = fingerprint)]
    pub fingerprint: Option<Fingerprint>,
    /// Revoke it instead, so that it can't be announced again
    #[arg(long)]
    pub reject: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `trust remove`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  emccd trust remove tokyo --fingerprint 9F:86:…:0A    as emccd trust list tokyo shows it\n\nA leaf is revoked for that peer by it, also one that only the peer's authority vouches for. To take that back: emccd trust add ID --unrevoke HEX"
)]
pub struct TrustRemove {
    /// The peer
    #[arg(value_name = "ID")]
    pub cluster_id: ClusterId,
    /// SHA-256 fingerprint of the certificate, in hex with colons or without
    #[arg(long, value_name = "HEX", value_parser = fingerprint)]
    pub fingerprint: Fingerprint,
    /// What may go with it
    #[arg(long, value_enum, default_value_t = RemovalMode::Refuse)]
    pub mode: RemovalMode,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// What may go with a certificate that is accepted no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RemovalMode {
    /// Nothing: not a live connection, not the last entry of a peer that is enabled or shares sessions, nothing announced on its word
    Refuse,
    /// Connections that live on it, and the peer's last entry, with which the sessions shared with it end, unless end-sessions-on-revocation is off
    Unlink,
    /// Also what the peer announced on its word, and on the word of that; with the last entry sessions end as for unlink
    Cascade,
}

impl RemovalMode {
    /// Its name in requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Unlink => "unlink",
            Self::Cascade => "cascade",
        }
    }
}

/// `trust export`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd trust export --own --out berlin.pem\n  \
    emccd trust export --out all.p12 --password-file p12.password\n\n\
    Aliases say whose each certificate is: CLUSTER/KIND/NAME. Give the file to the others, who put several together \
    with trust consolidate, look with trust import --dry-run, and import."
)]
pub struct TrustExport {
    /// The file to write; it may not be there yet
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Those that this cluster shows; with neither of the two, both
    #[arg(long)]
    pub own: bool,
    /// Those that this cluster accepts from others
    #[arg(long)]
    pub trusted: bool,
    /// Its format; the ending of its name says it otherwise, and PEM it is where that says nothing
    #[arg(long, value_parser = format_parser())]
    pub format: Option<Format>,
    /// The password of what is written
    #[command(flatten)]
    pub password: StorePassword,
}

/// `trust import`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd trust import all.pem --dry-run\n  emccd trust import all.pem\n  \
    emccd trust import tomcat-trust.jks --cluster tokyo --password-file jks.password\n\n\
    Aliases CLUSTER/KIND/NAME, as trust export writes them, say whose a certificate is. Those of clusters that are no \
    peers of this one are passed over, its own too."
)]
pub struct TrustImport {
    /// File in PEM, DER, PKCS#7, PKCS#12 or JKS
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Of this peer alone; also those are of it that say nothing of whose they are
    #[arg(long, value_name = "ID")]
    pub cluster: Option<ClusterId>,
    /// As what those are accepted that don't say
    #[arg(long, value_enum, default_value_t = ImportKind::Pinned)]
    pub kind: ImportKind,
    /// Accept nothing else any more from the peers that are in it
    #[arg(long)]
    pub replace: bool,
    /// Tell what would be added, kept and replaced, and what becomes of connections; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// The password of FILE
    #[command(flatten)]
    pub password: StorePassword,
}

/// As what a certificate is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImportKind {
    /// An authority that vouches for the peer's node names
    Anchor,
    /// Exactly this certificate
    Pinned,
}

impl ImportKind {
    /// Its name in requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Pinned => "pinned",
        }
    }
}

pub(super) fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    read_fingerprint(text).ok_or_else(|| {
        "a SHA-256 fingerprint is 64 hex digits, with colons between each two or without; emccd trust list shows it"
            .to_owned()
    })
}

/// `trust add`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd trust add tokyo --pin tokyo-new.pem\n  \
    emccd trust add tokyo --anchor corporate-ca.pem\n  \
    emccd trust add tokyo --pin tomcat-trust.jks --password-file jks.password\n  \
    emccd trust add tokyo --unrevoke 9F:86:…:0A    takes back what trust remove revoked, and pins nothing",
    group(clap::ArgGroup::new("what").required(true))
)]
pub struct TrustAdd {
    /// The peer
    #[arg(value_name = "ID")]
    pub cluster_id: ClusterId,
    /// File with certificates of its nodes, in PEM, DER, PKCS#7, PKCS#12 or JKS: exactly these are accepted
    #[arg(long, value_name = "FILE", group = "what")]
    pub pin: Option<PathBuf>,
    /// File with its certificate authority, in any of these formats, which vouches for the node names of the peer's record
    #[arg(long, value_name = "FILE", group = "what")]
    pub anchor: Option<PathBuf>,
    /// SHA-256 fingerprint of a certificate that is revoked no longer; nothing is trusted by that alone
    #[arg(long, value_name = "HEX", value_parser = fingerprint, group = "what")]
    pub unrevoke: Option<Fingerprint>,
    /// The password of FILE
    #[command(flatten)]
    pub password: StorePassword,
}

/// `trust consolidate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd trust consolidate berlin.pem tokyo.p7b lima.jks --out all.pem --password-file jks.password\n  \
    emccd trust consolidate all.pem --out all.jks --out-password-file new.password\n\n\
    What a file is, its content tells. Aliases are kept; those of trust export say whose a certificate is."
)]
pub struct TrustConsolidate {
    /// Files in PEM, DER, PKCS#7, PKCS#12 or JKS
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The file to write; it may not be there yet
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Its format; the ending of its name says it otherwise, and PEM it is where that says nothing
    #[arg(long, value_parser = format_parser())]
    pub format: Option<Format>,
    /// Leave private keys out that are in the files; without this they are an error
    #[arg(long)]
    pub drop_keys: bool,
    /// The password of the files that have one
    #[command(flatten)]
    pub password: StorePassword,
    /// File with the password of what is written; that of the files otherwise
    #[arg(long, value_name = "FILE")]
    pub out_password_file: Option<PathBuf>,
}

/// `trust diff`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  emccd trust diff sent.pem received.jks --password-file jks.password\n\n\
    Ends with 0 when both hold the same certificates for the same clusters, otherwise with 1."
)]
pub struct TrustDiff {
    /// One file
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// The other one
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// The password of those that have one
    #[command(flatten)]
    pub password: StorePassword,
}

fn format_parser() -> impl TypedValueParser<Value = Format> {
    let named = |name: &str| {
        Format::ALL
            .into_iter()
            .find(|format| format.as_str() == name)
    };
    PossibleValuesParser::new(Format::ALL.map(Format::as_str))
        .try_map(move |name| named(&name).ok_or("no such format"))
}

/// The password of a store of certificates; never an argument, which every user of the machine could see.
#[derive(Debug, Default, Args)]
pub struct StorePassword {
    /// File with the password of a PKCS#12 or JKS store on its first line; else `EMCCD_STORE_PASSWORD` counts, or it is
    /// asked for
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// `trust explain`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd trust explain tokyo    a peer: each of its addresses, and the way from it to us\n  \
    emccd trust explain n1.tokyo.example:8444    what answers there, of whichever peer\n  \
    emccd trust explain n1.tokyo.example:8444 --as tokyo\n  \
    emccd trust explain tokyo.pem --as tokyo    a certificate, as if it were shown; without a daemon the file alone\n  \
    emccd trust explain unknown-issuer    what a reason means, from the log or from cluster status\n\n\
    Ends with 0 when it would be accepted, and with 1 when not."
)]
pub struct TrustExplain {
    /// An address HOST:PORT, a file of certificates, the ID of a peer, or a reason such as unknown-issuer
    #[arg(value_name = "WHAT")]
    pub what: String,
    /// The peer that the address or the file must be of; without it, any peer's will do
    #[arg(long = "as", value_name = "ID")]
    pub wanted: Option<ClusterId>,
    /// The password of a file that has one
    #[command(flatten)]
    pub password: StorePassword,
}
