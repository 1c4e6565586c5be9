//! `trust`: what can be typed about what is accepted from others.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{crl::TrustCrl, day::day};
use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    trust::certificate::{Fingerprint, read_fingerprint},
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
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
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
    emccd trust add tokyo --unrevoke 9F:86:…:0A    takes back what trust remove revoked, and pins nothing",
    group(clap::ArgGroup::new("what").required(true))
)]
pub struct TrustAdd {
    /// The peer
    #[arg(value_name = "ID")]
    pub cluster_id: ClusterId,
    /// PEM file with certificates of its nodes: exactly these are accepted
    #[arg(long, value_name = "FILE", group = "what")]
    pub pin: Option<PathBuf>,
    /// PEM file with its certificate authority, which vouches for the node names of the peer's record
    #[arg(long, value_name = "FILE", group = "what")]
    pub anchor: Option<PathBuf>,
    /// SHA-256 fingerprint of a certificate that is revoked no longer; nothing is trusted by that alone
    #[arg(long, value_name = "HEX", value_parser = fingerprint, group = "what")]
    pub unrevoke: Option<Fingerprint>,
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
}
