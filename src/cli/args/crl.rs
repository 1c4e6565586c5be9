//! `trust crl`: what can be typed about revocation lists.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::trust::fingerprint;
use crate::{domain::ids::ClusterId, trust::certificate::Fingerprint};

/// `trust crl`.
#[derive(Debug, Subcommand)]
pub enum TrustCrl {
    /// Take in a list; live connections whose certificates it revokes end
    Add(TrustCrlAdd),
    /// The lists in force, of one peer or of all
    #[command(after_help = "Examples:\n  emccd trust crl list\n  emccd trust crl list tokyo")]
    List {
        /// One peer
        #[arg(value_name = "ID")]
        cluster_id: Option<ClusterId>,
    },
    /// Take a list out of force; what it revoked is accepted again
    Remove(TrustCrlRemove),
}

/// `trust crl add`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd trust crl add tokyo corporate-ca.crl\n  emccd trust crl add tokyo corporate-ca.crl --strict\n\nThe list must bear the signature of an authority that is accepted for the peer, or of one below it whose certificate stands in the file too. It replaces that authority's list before, if its number is higher. Pinned certificates are accepted whatever a list says: emccd trust remove takes them back."
)]
pub struct TrustCrlAdd {
    /// The peer
    #[arg(value_name = "ID")]
    pub cluster_id: ClusterId,
    /// The list as its authority publishes it, in PEM or DER
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Accept nothing from that authority while its list is stale; else a stale list goes on counting. As it was with
    /// the list before, unless given
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub strict: Option<bool>,
}

/// `trust crl remove`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd trust crl remove tokyo\n  emccd trust crl remove tokyo --issuer 9F:86:…:0A    of that authority alone, as emccd trust crl list shows it"
)]
pub struct TrustCrlRemove {
    /// The peer
    #[arg(value_name = "ID")]
    pub cluster_id: ClusterId,
    /// SHA-256 fingerprint of the authority whose list it is; without it all lists of the peer
    #[arg(long, value_name = "HEX", value_parser = fingerprint)]
    pub issuer: Option<Fingerprint>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}
