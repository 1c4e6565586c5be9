//! What a cluster tells of itself: any of its nodes for all of them.

use super::{Error, Pairings};
use crate::{
    domain::{
        address_list::MAX_ADDRESSES,
        pairing::{Told, ToldAddress, ToldCertificate},
    },
    store::{self, Transaction, learned, pairings},
    trust::{self, identity::Identity},
};

impl Pairings {
    /// Addresses that the operator named come first, then those of the nodes that live; of certificates there are those
    /// of every node on record.
    pub(super) async fn ourselves(&self, name: &str, named: &[String]) -> Result<Told, Error> {
        let parts = &self.0.parts;
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
        // What is in force here may be newer than what is on record.
        let mut certificates = self.shown_here().ok_or(trust::Error::NoIdentity)?;
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

    /// Puts on record what this node shows, where that is not there yet.
    pub(super) async fn publish(&self) -> Result<(), store::Error> {
        let Some(shown) = self.shown_here() else {
            return Ok(());
        };
        let (store, node) = (&self.0.parts.store, self.0.parts.node.clone());
        let known = node.clone();
        let known = store
            .look_up(move |tx: &mut dyn Transaction| pairings::shown_by(tx, &known))
            .await?;
        if known == shown {
            return Ok(());
        }
        let write =
            store.write(move |tx: &mut dyn Transaction| pairings::put_shown(tx, &node, &shown));
        write.await
    }

    /// What this node shows; nothing while it has no usable identity.
    fn shown_here(&self) -> Option<Vec<ToldCertificate>> {
        let snapshot = self.0.parts.trust.snapshot();
        let (server, client) = (snapshot.identity()?, snapshot.client_identity()?);
        let certificate = |purpose: &str, identity: &Identity| ToldCertificate {
            node: self.0.parts.node.clone(),
            purpose: purpose.to_owned(),
            der: identity.leaf().der().to_vec(),
        };
        let mut shown = vec![certificate("federation", server)];
        if client.leaf() != server.leaf() {
            shown.push(certificate("federation-client", client));
        }
        Some(shown)
    }
}
