//! What the other nodes of this cluster have put on record of themselves: the certificates that they show to peers, and
//! their connections.

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
    /// Those that have not.
    pub unreported: Vec<String>,
}

/// What the other nodes show to peers.
///
/// # Errors
/// [`Error::Store`].
pub(super) async fn identities(store: &Store, own: &str) -> Result<Others<pb::Identity>, Error> {
    let Others { told, unreported } = shown(store, own).await?;
    let told = told.into_iter().filter_map(|shown| {
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

/// The same as they are written to a file for peers.
///
/// # Errors
/// [`Error::Store`].
pub(super) async fn certificates(
    store: &Store,
    (us, own): (&ClusterId, &str),
) -> Result<Others<pb::BulkCertificate>, Error> {
    let Others { told, unreported } = shown(store, own).await?;
    let told = told.into_iter().map(|shown| pb::BulkCertificate {
        cluster_id: us.to_string(),
        kind: EntryKind::Pinned.as_str().to_owned(),
        alias: format!("{}/{}", shown.node, shown.purpose),
        der: shown.der,
    });
    Ok(Others {
        told: told.collect(),
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
                let Some(connections) = live::of(tx, &node.run)? else {
                    unreported.push(node.run.node);
                    continue;
                };
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

async fn shown(
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
