//! What a cluster tells of itself: any of its nodes for all of them.
//!
//! Each node puts on record which certificates are its own, with the proof by their keys, which only it has: those that it
//! shows, and those that it has announced to its peers as the next ones. So a cluster that becomes a peer while a
//! certificate is being exchanged knows both, as all other peers do.

use tracing::debug;

use super::{Error, Pairings};
use crate::{
    domain::{
        address_list::MAX_ADDRESSES,
        pairing::{Told, ToldAddress, ToldCertificate, certificate_text},
        purpose::Purpose,
    },
    store::{self, Transaction, learned, pairings, rotations},
    trust::{
        self,
        certificate::{Fingerprint, fingerprint_of, fingerprint_text},
        folder::IdentityFolder,
        identity::Identity,
        proof,
    },
};

impl Pairings {
    /// Addresses that the operator named come first, then those of the nodes that live; of certificates there are those
    /// of every node on record.
    pub(super) async fn ourselves(&self, name: &str, named: &[String]) -> Result<Told, Error> {
        let parts = &self.0.parts;
        // What is in force here may be newer than what is on record.
        let mut certificates = self.publish().await?;
        if certificates.is_empty() {
            return Err(trust::Error::NoIdentity.into());
        }
        let read = |tx: &mut dyn Transaction| {
            Ok::<_, store::Error>((learned::own(tx)?, pairings::shown_by_nodes(tx)?))
        };
        let (own, of_nodes) = parts.store.read(read).await?;
        let mut addresses: Vec<String> = named.to_vec();
        for address in own.addresses {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() {
            return Err(Error::NoAddress);
        }
        let addresses = addresses.into_iter().map(|address| ToldAddress {
            address,
            ..ToldAddress::default()
        });
        let others = of_nodes.into_iter().filter(|c| c.node != parts.node);
        certificates.extend(others);
        Ok(Told {
            cluster_id: parts.cluster.to_string(),
            name: name.to_owned(),
            software: parts.software.clone(),
            versions: parts.versions.clone(),
            security_mode: parts.security_mode.to_owned(),
            addresses: addresses.collect(),
            certificates,
        })
    }

    /// Puts on record which certificates are this node's, where that is not there yet, and gives them. None while it has
    /// no usable identity.
    pub(super) async fn publish(&self) -> Result<Vec<ToldCertificate>, store::Error> {
        let shown = self.shown();
        if shown.is_empty() {
            return Ok(Vec::new());
        }
        let (store, node) = (&self.0.parts.store, self.0.parts.node.clone());
        let of = node.clone();
        let read = move |tx: &mut dyn Transaction| {
            let known = pairings::shown_by(tx, &of)?;
            Ok::<_, store::Error>((known, announced(tx, &of)?))
        };
        let (known, announced) = store.look_up(read).await?;
        let now: Vec<_> = shown.iter().map(Own::key).collect();
        let more = announced.into_iter().filter(|key| !now.contains(key));
        let more: Vec<_> = more.collect();
        let only_told = more.iter().map(|key| (*key, true));
        let wanted = now.iter().map(|key| (*key, false)).chain(only_told);
        let wanted: Vec<_> = wanted.collect();
        if is_whole(&known, &wanted) {
            return Ok(known);
        }
        let own = self.proven(known.clone(), shown, more).await;
        if own != known && !own.is_empty() {
            let kept = own.clone();
            let write =
                store.write(move |tx: &mut dyn Transaction| pairings::put_shown(tx, &node, &kept));
            write.await?;
        }
        Ok(own)
    }

    /// What this node shows; nothing while it has no usable identity.
    fn shown(&self) -> Vec<Own> {
        let snapshot = self.0.parts.trust.snapshot();
        let (Some(server), Some(client)) = (snapshot.identity(), snapshot.client_identity()) else {
            return Vec::new();
        };
        let own = |purpose, identity: &Identity| Own {
            purpose,
            identity: identity.clone(),
        };
        let mut shown = vec![own(Purpose::Federation, server)];
        if client.leaf() != server.leaf() {
            shown.push(own(Purpose::FederationClient, client));
        }
        shown
    }

    /// Those that are shown, and those that were announced as far as their keys are found, each with its proof.
    /// What is known stays as it is: a new proof of the same would be another one, and be written for nothing.
    async fn proven(
        &self,
        known: Vec<ToldCertificate>,
        shown: Vec<Own>,
        announced: Vec<Key>,
    ) -> Vec<ToldCertificate> {
        let parts = &self.0.parts;
        let (node, cluster) = (parts.node.clone(), parts.cluster.to_string());
        let folder = parts.folder.clone();
        let made = tokio::task::spawn_blocking(move || {
            let told = |key: Key, is_only_told| {
                let mut known = known.iter();
                let known = known.find(|told| key_of(told) == Some(key));
                let known = known.filter(|told| !told.signature.is_empty()).cloned();
                known.map(|known| ToldCertificate {
                    is_only_told,
                    ..known
                })
            };
            let shown = shown
                .iter()
                .map(|own| told(own.key(), false).unwrap_or_else(|| own.told(&node, &cluster)));
            let announced = announced.into_iter().filter_map(|key| {
                let found = || {
                    let told = found(&folder, key)?.told(&node, &cluster);
                    Some(ToldCertificate {
                        is_only_told: true,
                        ..told
                    })
                };
                told(key, true).or_else(found)
            });
            shown.chain(announced).collect()
        });
        made.await.unwrap_or_default()
    }
}

/// Which certificate, and what it is shown for.
type Key = (Purpose, Fingerprint);

/// An identity of this node.
struct Own {
    purpose: Purpose,
    identity: Identity,
}

impl Own {
    fn key(&self) -> Key {
        (self.purpose, self.identity.leaf().fingerprint())
    }

    fn told(&self, node: &str, cluster: &str) -> ToldCertificate {
        let leaf = self.identity.leaf();
        let text = certificate_text(cluster, &leaf.fingerprint());
        let (scheme, signature) = proof::sign(&self.identity, &text).unwrap_or_default();
        ToldCertificate {
            node: node.to_owned(),
            purpose: self.purpose.to_string(),
            der: leaf.der().to_vec(),
            scheme,
            signature,
            is_only_told: false,
        }
    }
}

/// The certificates that peers are told of because one of them is to take the place of the other.
fn announced(tx: &mut dyn Transaction, node: &str) -> Result<Vec<Key>, store::Error> {
    let rows = rotations::all(tx)?.into_iter();
    let own = rows.filter(|row| row.name.node == node && row.name.purpose.is_of_peers());
    let keys = own.flat_map(|row| {
        let purpose = row.name.purpose;
        let certificates = row.rotation.certificates();
        certificates.into_iter().map(move |of| (purpose, of))
    });
    Ok(keys.collect())
}

fn found(folder: &IdentityFolder, (purpose, fingerprint): Key) -> Option<Own> {
    match folder.find(purpose, &fingerprint) {
        Ok(identity) => Some(Own { purpose, identity }),
        Err(error) => {
            // Whoever drives the rotation says so where people look, and goes on from there.
            debug!(
                cause = crate::telemetry::error_chain(&error),
                fingerprint = fingerprint_text(&fingerprint),
                "a certificate that was announced is not found, so that clusters that join are not told of it"
            );
            None
        }
    }
}

fn key_of(told: &ToldCertificate) -> Option<Key> {
    Some((
        Purpose::from_name(&told.purpose)?,
        fingerprint_of(&told.der),
    ))
}

/// Whether these and no others are on record, in this order, each with its proof, and as one that is only told where it
/// is.
fn is_whole(known: &[ToldCertificate], wanted: &[(Key, bool)]) -> bool {
    let has_proofs = known.iter().all(|told| !told.signature.is_empty());
    has_proofs
        && known
            .iter()
            .map(|told| Some((key_of(told)?, told.is_only_told)))
            .eq(wanted.iter().copied().map(Some))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_with_the_same_certificates_in_order_and_all_proofs() {
        let told = |purpose: Purpose, n: u8| ToldCertificate {
            node: "n1".to_owned(),
            purpose: purpose.to_string(),
            der: vec![n],
            scheme: 1,
            signature: vec![n],
            is_only_told: false,
        };
        let (server, client) = (Purpose::Federation, Purpose::FederationClient);
        let known = [told(server, 1), told(client, 2)];
        let wanted = [
            ((server, fingerprint_of(&[1])), false),
            ((client, fingerprint_of(&[2])), false),
        ];
        assert!(is_whole(&known, &wanted));
        assert!(!is_whole(&known[..1], &wanted));
        assert!(!is_whole(&known, &wanted[..1]));
        // What is shown has changed places with what was announced.
        assert!(!is_whole(&known, &[wanted[1], wanted[0]]));
        // What was announced is shown now.
        assert!(!is_whole(&known, &[wanted[0], (wanted[1].0, true)]));
        let mut bare = known.clone();
        bare[1].signature.clear();
        assert!(!is_whole(&bare, &wanted));
        let mut odd = known;
        odd[1].purpose = "something".to_owned();
        assert!(!is_whole(&odd, &wanted));
    }
}
