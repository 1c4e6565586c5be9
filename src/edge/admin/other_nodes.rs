//! What the other nodes of this cluster have put on record of themselves: the certificates that they show to peers,
//! those that they have announced, and their connections.

use crate::{
    domain::ids::ClusterId,
    edge::admin::{error::Error, operations::Live, views},
    store::{Store, Transaction, live, nodes, pairings, trust_entries::EntryKind},
    trust::certificate::Certificate,
    wire::admin as pb,
};

/// Something of each node that has said it.
#[derive(Debug)]
pub(super) struct Others<T> {
    /// All of it.
    pub told: Vec<T>,
    /// Those that have not, or not all.
    pub unreported: Vec<String>,
}

/// What the other nodes show to peers.
///
/// # Errors
/// [`Error::Store`].
pub(super) async fn identities(store: &Store, own: &str) -> Result<Others<pb::Identity>, Error> {
    let Others { told, unreported } = told(store, own).await?;
    let shown = told.into_iter().filter(|told| !told.is_only_told);
    let told = shown.filter_map(|shown| {
        let certificate = Certificate::from_der(&shown.der).ok()?;
        Some(pb::Identity {
            purpose: shown.purpose,
            certificate: Some(views::certificate(&certificate)),
            node: shown.node,
            ..pb::Identity::default()
        })
    });
    Ok(Others {
        told: told.collect(),
        unreported,
    })
}

/// What peers are to have of this cluster, as it is written to a file for them: what its nodes show, and what they have
/// announced, for a peer that replaces what it has with the file must not lose that. What this node shows is given; of
/// it, too, the rest stands on record.
///
/// # Errors
/// [`Error::Store`].
pub(super) async fn certificates(
    store: &Store,
    (us, own): (&ClusterId, &str),
    shown: Vec<pb::BulkCertificate>,
) -> Result<Others<pb::BulkCertificate>, Error> {
    let Others { told, unreported } = told(store, own).await?;
    let node = own.to_owned();
    let ours = store
        .read(move |tx: &mut dyn Transaction| pairings::shown_by(tx, &node))
        .await?;
    let mut all = shown;
    let announced = ours.into_iter().filter(|told| told.is_only_told);
    for told in announced.chain(told) {
        let certificate = pb::BulkCertificate {
            cluster_id: us.to_string(),
            kind: EntryKind::Pinned.as_str().to_owned(),
            alias: format!("{}/{}", told.node, told.purpose),
            der: told.der,
        };
        if all.iter().all(|one| one.der != certificate.der) {
            all.push(certificate);
        }
    }
    Ok(Others {
        told: all,
        unreported,
    })
}

/// The connections of the other nodes.
///
/// # Errors
/// [`Error::Store`].
pub(super) async fn connections(store: &Store, own: &str) -> Result<Others<Live>, Error> {
    let own = own.to_owned();
    store
        .read(move |tx: &mut dyn Transaction| {
            let (mut told, mut unreported) = (Vec::new(), Vec::new());
            for node in nodes::all(tx)?.into_iter().filter(|n| n.run.node != own) {
                let connections = live::of(tx, &node.run)?;
                if connections.as_ref().is_none_or(|all| all.are_more) {
                    unreported.push(node.run.node.clone());
                }
                let connections = connections.unwrap_or_default().told;
                told.extend(connections.into_iter().filter_map(|connection| {
                    Some(Live {
                        cluster: ClusterId::new(connection.cluster).ok()?,
                        told: format!("{}: {}", node.run.node, connection.told),
                        shown: connection.shown,
                    })
                }));
            }
            Ok(Others { told, unreported })
        })
        .await
}

async fn told(
    store: &Store,
    own: &str,
) -> Result<Others<crate::domain::pairing::ToldCertificate>, Error> {
    let own = own.to_owned();
    store
        .read(move |tx: &mut dyn Transaction| {
            let (mut told, mut unreported) = (Vec::new(), Vec::new());
            for node in nodes::all(tx)?.into_iter().filter(|n| n.run.node != own) {
                let shown = pairings::shown_by(tx, &node.run.node)?;
                if shown.is_empty() {
                    unreported.push(node.run.node);
                }
                told.extend(shown);
            }
            Ok(Others { told, unreported })
        })
        .await
}
