//! `trust`: what can be typed about what is accepted from others.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{
    domain::ids::ClusterId,
    trust::certificate::{Fingerprint, read_fingerprint},
};

/// `trust`.
#[derive(Debug, Subcommand)]
pub enum Trust {
    /// Accept more certificates from a peer
    Add(TrustAdd),
    /// What is accepted, from one peer or from all, and what was revoked
    #[command(after_help = "Examples:\n  emccd trust list\n  emccd trust list tokyo")]
    List {
        /// One peer
        #[arg(value_name = "ID")]
        cluster_id: Option<ClusterId>,
    },
    /// Accept a certificate from a peer no more; connections that live on it end, and a leaf is revoked
    Remove(TrustRemove),
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

fn fingerprint(text: &str) -> Result<Fingerprint, String> {
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

/// The password of a store of certificates; never an argument, which every user of the machine could see.
#[derive(Debug, Default, Args)]
pub struct StorePassword {
    /// File with the password of a PKCS#12 or JKS store on its first line; else EMCCD_STORE_PASSWORD counts, or it is
    /// asked for
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}
