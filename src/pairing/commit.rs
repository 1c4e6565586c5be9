//! What both sides do once both operators have confirmed: trust, record and audit, in the transaction that says so.

use crate::{
    clock::Timestamp,
    domain::{
        address_list::MAX_ADDRESSES,
        announcement::Acceptance,
        ids::ClusterId,
        pairing::{State, Told},
    },
    pairing::{Error, told},
    store::{
        Transaction,
        audit::{self, Action, Noun},
        pairings::{self, Pairing},
        peers::{self, Peer},
        trust_entries::{self, EntryKind, Source, TrustEntry},
    },
    trust::{
        bundle,
        certificate::{fingerprint_of, fingerprint_text},
        stored,
    },
};

/// Refuses a pairing that could not be committed as things stand now.
pub(super) fn check(
    tx: &mut dyn Transaction,
    them: &Told,
    cluster: &ClusterId,
    is_update: bool,
) -> Result<(), Error> {
    if them.believed().next().is_none() {
        let cluster = cluster.to_string();
        return Err(Error::NoneAnswers { cluster });
    }
    if !is_update && peers::get(tx, cluster)?.is_some() {
        return Err(Error::AlreadyPeer(cluster.clone()));
    }
    let theirs = told::fingerprints(them);
    let taken = trust_entries::list(tx)?.into_iter().find(|entry| {
        entry.kind == EntryKind::Pinned
            && entry.cluster_id != *cluster
            && theirs.contains(&entry.fingerprint)
    });
    match taken {
        Some(entry) => Err(Error::Taken(entry.cluster_id)),
        None => Ok(()),
    }
}

/// Makes the other cluster a peer. When this fails the transaction must be given up.
pub(super) fn commit(
    tx: &mut dyn Transaction,
    pairing: &mut Pairing,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(them) = pairing.told.clone() else {
        return Err(not_now(
            pairing,
            "the other cluster has not told what it is",
        ));
    };
    let cluster = ClusterId::new(them.cluster_id.as_str())
        .map_err(|_| crate::domain::pairing::Unfit::Unnamed)?;
    check(tx, &them, &cluster, pairing.is_update)?;
    let before = peers::get(tx, &cluster)?;
    let action = match before {
        Some(_) => Action::Set(Noun::Cluster),
        None => Action::Add(Noun::Cluster),
    };
    let peer = record(before, &them, &cluster);
    peers::upsert(tx, &peer)?;
    let mut pins = Vec::new();
    for certificate in &them.certificates {
        let fingerprint = fingerprint_of(&certificate.der);
        let entry = TrustEntry {
            cluster_id: cluster.clone(),
            kind: EntryKind::Pinned,
            fingerprint,
            der: certificate.der.clone(),
            added_at: now,
            source: Source::Paired,
            alias: None,
        };
        trust_entries::add(tx, &entry)?;
        pins.push(format!("pinned {}", fingerprint_text(&fingerprint)));
    }
    bundle::check(&stored::bundles(tx)?)?;
    audit::append(
        tx,
        &audit::Entry {
            at: now,
            actor: pairing
                .confirmed_by
                .clone()
                .unwrap_or_else(|| pairing.actor.clone()),
            action,
            subject: cluster.to_string(),
            outcome: format!(
                "paired by invitation {} at {} with {}",
                pairing.id,
                peer.addresses.join(", "),
                pins.join(", ")
            ),
            reference: None,
        },
    )?;
    pairing.state = State::Committed;
    pairings::put(tx, pairing)?;
    Ok(())
}

/// Refuses what does not fit how far it has come.
pub(super) fn not_now(pairing: &Pairing, why: impl Into<String>) -> Error {
    Error::NotNow {
        side: pairing.side,
        id: pairing.id,
        state: pairing.state.as_str(),
        why: why.into(),
    }
}

/// The record with what was told; an operator's own settings stay.
fn record(before: Option<Peer>, them: &Told, cluster: &ClusterId) -> Peer {
    let mut peer = before.unwrap_or_else(|| Peer {
        cluster_id: cluster.clone(),
        enabled: true,
        allow_emcc: true,
        addresses: Vec::new(),
        node_names: Vec::new(),
        user_patterns: Vec::new(),
        dn_patterns: Vec::new(),
        ignore_eku: false,
        accept_announcements: Acceptance::default(),
        description: them.name.clone(),
    });
    for told in them.believed() {
        if peer.addresses.len() < MAX_ADDRESSES && !peer.addresses.contains(&told.address) {
            peer.addresses.push(told.address.clone());
        }
    }
    peer
}
