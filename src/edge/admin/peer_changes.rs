//! What mends a peer that is there already: its record changed field by field, and trust taken back.
//!
//! Each is one transaction with the check that no two peers could then pass for each other, and with its
//! audit entry.

use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    edge::admin::{
        error::Error,
        peers::{bundles, find, read_record},
        roles::Actor,
        views,
    },
    store::{
        Store,
        audit::{self, Action, Noun},
        peers, trust_entries,
    },
    trust::{
        bundle,
        certificate::{Fingerprint, fingerprint_text},
        impact::check_names,
    },
    wire::admin as pb,
};

/// Changes the fields of a peer record that are given.
///
/// # Errors
/// [`Error::Missing`] when there is no such peer, [`Error::Invalid`] when a field would break its rule,
/// [`Error::Refused`] when an anchor would be left without names, [`Error::Trust`] when two peers could then pass
/// for each other.
pub(super) async fn set(
    store: &Store,
    request: pb::SetClusterRequest,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::SetClusterResponse, Error> {
    let id = ClusterId::new(request.cluster_id.as_str())
        .map_err(|_| Error::invalid("the cluster ID", "1 to 64 characters of A-Z a-z 0-9 . _ -"))?;
    let actor = actor.to_string();
    store
        .write(move |tx| {
            let before = find(tx, &id)?;
            let after = read_record(overlaid(views::cluster(before.clone()), request.clone()))?;
            let changes = after.changes_since(&before);
            if !changes.is_empty() {
                peers::upsert(tx, &after)?;
                if trust_entries::has_anchor(tx, &id)? {
                    check_names(&after.cluster_id, &after.node_names)?;
                }
                bundle::check(&bundles(tx)?)?;
                audit::append(
                    tx,
                    &audit::Entry {
                        at: now,
                        actor: actor.clone(),
                        action: Action::Set(Noun::Cluster),
                        subject: id.to_string(),
                        outcome: format!("set {}", peers::told(&changes)),
                        reference: None,
                    },
                )?;
            }
            Ok(pb::SetClusterResponse {
                cluster: Some(views::cluster(after)),
                changed: changes
                    .into_iter()
                    .map(|field| field.name.to_owned())
                    .collect(),
            })
        })
        .await
}

/// Takes a revocation back. What no entry vouches for is not trusted by that.
///
/// # Errors
/// [`Error::Missing`] when there is no such peer, or no such revocation of it.
pub(super) async fn unrevoke(
    store: &Store,
    cluster: ClusterId,
    fingerprint: Fingerprint,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::AddTrustResponse, Error> {
    let actor = actor.to_string();
    store
        .write(move |tx| {
            let text = fingerprint_text(&fingerprint);
            // It outlives the peer's record, and may stand in the way of making it a peer again.
            if !trust_entries::unrevoke(tx, &cluster, &fingerprint)? {
                find(tx, &cluster)?;
                return Err(Error::missing(
                    format!("revocation of {text} for the peer {cluster}"),
                    "emccd trust list",
                ));
            }
            audit::append(
                tx,
                &audit::Entry {
                    at: now,
                    actor: actor.clone(),
                    action: Action::Add(Noun::Trust),
                    subject: cluster.to_string(),
                    outcome: format!("took back that {text} was revoked"),
                    reference: None,
                },
            )?;
            Ok(pb::AddTrustResponse {
                unrevoked: 1,
                ..pb::AddTrustResponse::default()
            })
        })
        .await
}

/// The record with what the request gives in place of what stood there.
fn overlaid(record: pb::Cluster, request: pb::SetClusterRequest) -> pb::Cluster {
    let list = |given: Option<pb::TextList>, old| given.map_or(old, |list| list.values);
    pb::Cluster {
        cluster_id: record.cluster_id,
        enabled: request.enabled.unwrap_or(record.enabled),
        allow_emcc: request.allow_emcc.unwrap_or(record.allow_emcc),
        addresses: list(request.addresses, record.addresses),
        node_names: list(request.node_names, record.node_names),
        user_patterns: list(request.user_patterns, record.user_patterns),
        dn_patterns: list(request.dn_patterns, record.dn_patterns),
        ignore_eku: request.ignore_eku.unwrap_or(record.ignore_eku),
        accept_announcements: request
            .accept_announcements
            .unwrap_or(record.accept_announcements),
        description: request.description.unwrap_or(record.description),
    }
}
