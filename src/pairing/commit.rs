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
        bundle::{self, Bundle, Direction},
        certificate::{Certificate, Fingerprint, fingerprint_of, fingerprint_text},
        judge::judge_for,
        stored,
    },
};

/// Refuses a pairing that could not be committed as things stand now.
pub(super) fn check(
    tx: &mut dyn Transaction,
    them: &Told,
    cluster: &ClusterId,
    is_update: bool,
    now: Timestamp,
) -> Result<(), Error> {
    if them.believed().next().is_none() {
        let cluster = cluster.to_string();
        return Err(Error::NoneAnswers { cluster });
    }
    if !is_update && peers::get(tx, cluster)?.is_some() {
        return Err(Error::AlreadyPeer(cluster.clone()));
    }
    let theirs = told::fingerprints(them);
    for fingerprint in &theirs {
        if trust_entries::is_revoked(tx, cluster, fingerprint)? {
            let (cluster, fingerprint) = (cluster.clone(), fingerprint_text(fingerprint));
            return Err(Error::Revoked {
                cluster,
                fingerprint,
            });
        }
    }
    let taken = trust_entries::list(tx)?.into_iter().find(|entry| {
        entry.kind == EntryKind::Pinned
            && entry.cluster_id != *cluster
            && theirs.contains(&entry.fingerprint)
    });
    if let Some(entry) = taken {
        return Err(Error::Taken(entry.cluster_id));
    }
    let others = stored::bundles(tx)?.into_iter();
    let others = others.filter(|bundle| bundle.cluster != *cluster);
    match vouched(them, &others.collect::<Vec<_>>(), now) {
        Some((by, fingerprint)) => Err(Error::Vouched {
            by,
            fingerprint: fingerprint_text(&fingerprint),
        }),
        None => Ok(()),
    }
}

/// A certificate that an authority of another peer makes that one's: pinned as well it would be two peers', and be refused
/// as such. Who would accept it now or when its time comes counts.
fn vouched(them: &Told, others: &[Bundle], now: Timestamp) -> Option<(ClusterId, Fingerprint)> {
    let directions = [Direction::Server, Direction::Client];
    them.certificates.iter().find_map(|told| {
        let certificate = Certificate::from_der(&told.der).ok()?;
        let at = now.max(certificate.not_before());
        let chain = [certificate.der().clone()];
        let mut accepting = others.iter().filter(|bundle| {
            let judged = directions.map(|direction| judge_for(bundle, &chain, direction, at));
            judged.iter().any(|verdict| verdict.peer().is_some())
        });
        let by = accepting.next()?.cluster.clone();
        Some((by, certificate.fingerprint()))
    })
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
    check(tx, &them, &cluster, pairing.is_update, now)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        domain::pairing::ToldCertificate,
        trust::fixtures::{Authority, Leaf, Spec, bundle},
    };

    #[test]
    fn what_an_authority_makes_another_peer_s_is_not_pinned_beside_it() {
        let now = Clock::system().now();
        let (authority, stranger) = (Authority::new("Corporate CA"), Authority::new("Other CA"));
        let mut berlin = bundle("berlin");
        berlin.anchors.push(authority.certificate());
        berlin.node_names.push("n1.berlin.example".to_owned());
        let bundles = [bundle("lima"), berlin];
        let by = |leaf: Leaf| {
            let certificate = ToldCertificate {
                der: leaf.der().to_vec(),
                ..ToldCertificate::default()
            };
            let them = Told {
                certificates: vec![certificate],
                ..Told::default()
            };
            vouched(&them, &bundles, now).map(|(cluster, _)| cluster.to_string())
        };
        let spec = || Spec::new("n1.berlin.example");
        let berlin = Some("berlin".to_owned());
        assert_eq!(by(spec().signed_by(&authority)), berlin);
        assert_eq!(by(spec().eku(true, false).signed_by(&authority)), berlin);
        assert_eq!(by(spec().valid_days(2, 9).signed_by(&authority)), berlin);
        assert_eq!(by(spec().signed_by(&stranger)), None);
        assert_eq!(by(spec().self_signed()), None);
        let other = Spec::new("n1.tokyo.example").signed_by(&authority);
        assert_eq!(by(other), None, "the same authority, and another name");
    }
}
