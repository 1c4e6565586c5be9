//! What the store trusts, as bundles.

use std::collections::HashMap;

use super::{Error as TrustError, bundle::Bundle, certificate::Certificate, crl::Crl};
use crate::{
    domain::ids::ClusterId,
    store::{
        self, Transaction, crls, peers,
        trust_entries::{self, EntryKind},
    },
};

/// Why the stored trust can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] store::Error),
    /// What is stored is no certificate, or no revocation list.
    #[error("what is stored is no certificate, or no revocation list")]
    Trust(#[from] TrustError),
}

/// One bundle per peer record.
///
/// # Errors
/// [`Error`].
pub fn bundles(tx: &mut dyn Transaction) -> Result<Vec<Bundle>, Error> {
    let mut bundles: Vec<Bundle> = peers::list(tx)?
        .into_iter()
        .map(|peer| Bundle {
            node_names: peer.node_names,
            ignore_eku: peer.ignore_eku,
            ..Bundle::new(peer.cluster_id)
        })
        .collect();
    let places: HashMap<ClusterId, usize> = bundles
        .iter()
        .zip(0..)
        .map(|(bundle, place)| (bundle.cluster.clone(), place))
        .collect();
    let place = |cluster: &ClusterId| places.get(cluster).copied().unwrap_or(usize::MAX);
    for entry in trust_entries::list(tx)? {
        let Some(bundle) = bundles.get_mut(place(&entry.cluster_id)) else {
            continue;
        };
        let certificate = Certificate::from_der(&entry.der)?;
        match entry.kind {
            EntryKind::Pinned => bundle.pinned.push(certificate),
            EntryKind::Anchor => bundle.anchors.push(certificate),
        }
    }
    for revoked in trust_entries::revoked(tx)? {
        if let Some(bundle) = bundles.get_mut(place(&revoked.cluster_id)) {
            bundle.revoked.push(revoked.fingerprint);
        }
    }
    for stored in crls::list(tx)? {
        if let Some(bundle) = bundles.get_mut(place(&stored.cluster_id)) {
            let issuer = Certificate::from_der(&stored.issuer_der)?;
            let cluster = &stored.cluster_id;
            let crl = Crl::stored(&stored.der, issuer, cluster, stored.is_strict);
            bundle.crls.push(crl.map_err(TrustError::Crl)?);
        }
    }
    Ok(bundles)
}
