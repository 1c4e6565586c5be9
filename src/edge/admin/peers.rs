//! Peer records and what is trusted from each peer.
//!
//! A record and its first trust are one transaction, and so is the check that nothing in it would let two
//! peers pass for each other.

use std::collections::BTreeMap;

use crate::{
    clock::Timestamp,
    domain::{announcement::Acceptance, ids::ClusterId},
    edge::admin::{error::Error, roles::Actor, views},
    store::{
        Store, Transaction, announcements,
        audit::{self, Action, Noun},
        peers::{self, Peer},
        trust_entries::{self, EntryKind, Source, TrustEntry},
    },
    trust::{
        bundle::{self, Bundle},
        certificate::{Certificate, Fingerprint, fingerprint_text},
        impact::check_names,
        stored,
    },
    wire::admin as pb,
};

/// Certificates that an operator wants trusted, read and checked for what they are.
#[derive(Clone, Debug)]
pub struct Material {
    kind: EntryKind,
    certificates: Vec<Certificate>,
}

impl Material {
    /// Reads what came over the socket.
    ///
    /// # Errors
    /// [`Error::Trust`] when there is a private key or no certificate in it, [`Error::Invalid`] when the kind
    /// is none.
    pub fn read(material: &pb::TrustMaterial) -> Result<Self, Error> {
        let kind = [EntryKind::Pinned, EntryKind::Anchor]
            .into_iter()
            .find(|kind| kind.as_str() == material.kind)
            .ok_or_else(|| Error::invalid("the kind of trust", "pinned or anchor"))?;
        if material.certificates.len() > MAX_FILE_BYTES {
            return Err(Error::invalid(
                "the file of certificates",
                "at most 4 MiB; import more with emccd trust import",
            ));
        }
        let certificates = Certificate::read_all(&material.certificates)?;
        Ok(Self { kind, certificates })
    }

    /// Refuses one of our own certificates: to hand in the wrong one of two files is the usual mistake.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is there.
    pub fn check_foreign(&self, own: &[String]) -> Result<(), Error> {
        let is_own = |c: &&Certificate| own.contains(&c.fingerprint_text());
        match self.certificates.iter().find(is_own) {
            Some(ours) if self.kind == EntryKind::Pinned => Err(Error::refused(
                format!("{} is this node's own certificate", ours.subject()),
                "give the file with the other cluster's certificate",
            )),
            _ => Ok(()),
        }
    }

    fn fingerprints(&self) -> String {
        let all: Vec<_> = self
            .certificates
            .iter()
            .map(|c| format!("{} {}", self.kind.as_str(), c.fingerprint_text()))
            .collect();
        all.join(", ")
    }
}

/// A peer record as it came over the socket, checked.
///
/// # Errors
/// [`Error::Invalid`] with the first field that breaks its rule.
pub fn read_record(record: pb::Cluster) -> Result<Peer, Error> {
    let cluster_id = ClusterId::new(record.cluster_id)
        .map_err(|_| Error::invalid("the cluster ID", "1 to 64 characters of A-Z a-z 0-9 . _ -"))?;
    let peer = Peer {
        cluster_id,
        enabled: record.enabled,
        allow_emcc: record.allow_emcc,
        addresses: record.addresses,
        node_names: record.node_names,
        user_patterns: record.user_patterns,
        dn_patterns: record.dn_patterns,
        ignore_eku: record.ignore_eku,
        accept_announcements: read_acceptance(&record.accept_announcements)?,
        description: record.description,
    };
    match peer.broken_fields().into_iter().next() {
        None => Ok(peer),
        Some(broken) => Err(Error::invalid(
            match broken.field {
                "addresses" => "the addresses",
                "node-names" => "the node names",
                "user-patterns" => "the user patterns",
                "dn-patterns" => "the extension patterns",
                _ => "the description",
            },
            broken.rule,
        )),
    }
}

/// What becomes of announced certificates; the default when nothing is said.
fn read_acceptance(word: &str) -> Result<Acceptance, Error> {
    if word.is_empty() {
        return Ok(Acceptance::default());
    }
    word.parse()
        .map_err(|_| Error::invalid("accept-announcements", "auto, approve or off"))
}

/// All peer records.
///
/// # Errors
/// [`Error::Store`].
pub async fn list(store: &Store) -> Result<Vec<pb::Cluster>, Error> {
    let all = store.read(|tx| peers::list(tx)).await?;
    Ok(all.into_iter().map(views::cluster).collect())
}

/// Adds a peer with its first trust.
///
/// # Errors
/// [`Error::Exists`] when there is such a record, [`Error::Trust`] when the trust would let two peers pass for
/// each other, [`Error::Refused`] when the material does not fit the record.
pub async fn add(
    store: &Store,
    peer: Peer,
    trust: Option<Material>,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::AddClusterResponse, Error> {
    let actor = actor.to_string();
    store
        .write(move |tx| {
            if peers::get(tx, &peer.cluster_id)?.is_some() {
                let id = &peer.cluster_id;
                return Err(Error::Exists {
                    what: format!("the peer {id}"),
                    next: format!(
                        "change it with: emccd cluster set {id} --address HOST:PORT; trust another certificate of it \
                         with: emccd trust add {id} --pin FILE"
                    ),
                });
            }
            peers::upsert(tx, &peer)?;
            let mut outcome = format!("added at {}", peer.addresses.join(", "));
            if let Some(material) = &trust {
                insert(tx, &peer, material, now)?;
                outcome = format!("{outcome} with {}", material.fingerprints());
            }
            let entries = entries_of(tx, &peer.cluster_id)?;
            audit::append(
                tx,
                &audit::Entry {
                    at: now,
                    actor: actor.clone(),
                    action: Action::Add(Noun::Cluster),
                    subject: peer.cluster_id.to_string(),
                    outcome,
                    reference: None,
                },
            )?;
            Ok(pb::AddClusterResponse {
                cluster: Some(views::cluster(peer.clone())),
                trust: entries,
            })
        })
        .await
}

/// The trust entries of one peer, or of all, then what waits, and then what was revoked.
///
/// # Errors
/// [`Error::Missing`] when there is no such peer.
pub async fn list_trust(
    store: &Store,
    cluster: Option<ClusterId>,
) -> Result<Vec<pb::TrustEntry>, Error> {
    store
        .read(move |tx| {
            if let Some(id) = &cluster {
                find(tx, id)?;
            }
            let is_asked = |id: &ClusterId| cluster.as_ref().is_none_or(|asked| asked == id);
            let entries: Vec<_> = trust_entries::list(tx)?;
            let waiting = announcements::waiting(tx)?;
            let revoked = trust_entries::revoked(tx)?;
            let origins = Origins::read(tx)?;
            let entries = entries.iter().filter(|entry| is_asked(&entry.cluster_id));
            let waiting = waiting.iter().filter(|entry| is_asked(&entry.cluster_id));
            let revoked = revoked.iter().filter(|entry| is_asked(&entry.cluster_id));
            entries
                .map(views::trust_entry)
                .chain(waiting.map(views::waiting_entry))
                .map(|entry| Ok(origins.tell(entry?)))
                .chain(revoked.map(|entry| Ok(views::revoked_entry(entry))))
                .collect()
        })
        .await
}

/// What peers said of their own certificates, by peer and fingerprint as they are shown.
pub(super) struct Origins {
    identities: BTreeMap<(String, String), Vec<String>>,
    parents: BTreeMap<(String, String), String>,
}

impl Origins {
    pub(super) fn read(tx: &mut dyn Transaction) -> Result<Self, Error> {
        let mut identities = BTreeMap::<_, Vec<_>>::new();
        for label in announcements::labels(tx)? {
            let key = (
                label.cluster_id.to_string(),
                fingerprint_text(&label.fingerprint),
            );
            identities.entry(key).or_default().push(label.identity);
        }
        let parents = announcements::lineages(tx)?
            .into_iter()
            .map(|((cluster, child), parent)| {
                let key = (cluster.to_string(), fingerprint_text(&child));
                (key, fingerprint_text(&parent))
            })
            .collect();
        Ok(Self {
            identities,
            parents,
        })
    }

    pub(super) fn tell(&self, entry: pb::TrustEntry) -> pb::TrustEntry {
        let fingerprint = entry.certificate.as_ref().map(|c| c.fingerprint.clone());
        let key = (entry.cluster_id.clone(), fingerprint.unwrap_or_default());
        pb::TrustEntry {
            identities: self.identities.get(&key).cloned().unwrap_or_default(),
            parent: self.parents.get(&key).cloned().unwrap_or_default(),
            ..entry
        }
    }
}

/// Adds trust to a peer.
///
/// # Errors
/// [`Error::Missing`] when there is no such peer, otherwise as [`add`].
pub async fn add_trust(
    store: &Store,
    cluster: ClusterId,
    material: Material,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::AddTrustResponse, Error> {
    let actor = actor.to_string();
    store
        .write(move |tx| {
            let peer = find(tx, &cluster)?;
            let mut unrevoked = 0;
            for certificate in &material.certificates {
                let fingerprint = certificate.fingerprint();
                if trust_entries::is_revoked(tx, &cluster, &fingerprint)? {
                    unrevoked += 1;
                }
            }
            let added = insert(tx, &peer, &material, now)?;
            if !added.is_empty() {
                let again = match unrevoked {
                    0 => String::new(),
                    n => format!("; {n} of them had been revoked"),
                };
                audit::append(
                    tx,
                    &audit::Entry {
                        at: now,
                        actor: actor.clone(),
                        action: Action::Add(Noun::Trust),
                        subject: cluster.to_string(),
                        outcome: format!("added {}{again}", material.fingerprints()),
                        reference: None,
                    },
                )?;
            }
            let kept = material.certificates.len().saturating_sub(added.len());
            Ok(pb::AddTrustResponse {
                added,
                kept: u32::try_from(kept).unwrap_or(u32::MAX),
                unrevoked,
            })
        })
        .await
}

/// What the store trusts, one bundle per peer record.
pub(super) fn bundles(tx: &mut dyn Transaction) -> Result<Vec<Bundle>, Error> {
    stored::bundles(tx).map_err(|error| match error {
        stored::Error::Store(error) => Error::Store(error),
        stored::Error::Trust(error) => Error::Trust(error),
    })
}

/// Adds what is not there yet, and gives it. The transaction must be given up when this fails.
fn insert(
    tx: &mut dyn Transaction,
    peer: &Peer,
    material: &Material,
    now: Timestamp,
) -> Result<Vec<pb::TrustEntry>, Error> {
    if material.kind == EntryKind::Anchor {
        check_names(&peer.cluster_id, &peer.node_names)?;
    }
    let mut added = Vec::new();
    for certificate in &material.certificates {
        let fingerprint: Fingerprint = certificate.fingerprint();
        let entry = TrustEntry {
            cluster_id: peer.cluster_id.clone(),
            kind: material.kind,
            fingerprint,
            der: certificate.der().to_vec(),
            added_at: now,
            source: Source::Operator,
            alias: None,
        };
        if trust_entries::add(tx, &entry)? {
            added.push(views::trust_entry(&entry)?);
        }
    }
    bundle::check(&bundles(tx)?)?;
    Ok(added)
}

pub(super) fn find(tx: &mut dyn Transaction, cluster: &ClusterId) -> Result<Peer, Error> {
    peers::get(tx, cluster)?
        .ok_or_else(|| Error::missing(format!("peer {cluster}"), "emccd cluster list"))
}

pub(super) fn entries_of(
    tx: &mut dyn Transaction,
    cluster: &ClusterId,
) -> Result<Vec<pb::TrustEntry>, Error> {
    trust_entries::list(tx)?
        .iter()
        .filter(|entry| entry.cluster_id == *cluster)
        .map(views::trust_entry)
        .collect()
}

/// A few thousand certificates, and no more than a request may hold.
const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_breaks_a_rule_is_refused_by_its_field() {
        let good = pb::Cluster {
            cluster_id: "tokyo".to_owned(),
            addresses: vec!["a:1".to_owned()],
            ..pb::Cluster::default()
        };
        read_record(good.clone()).unwrap();
        type Breaking = Box<dyn Fn(&mut pb::Cluster)>;
        let broken: [(&str, Breaking); 6] = [
            ("the cluster ID", Box::new(|c| c.cluster_id = "a/b".into())),
            ("the addresses", Box::new(|c| c.addresses.clear())),
            (
                "the addresses",
                Box::new(|c| c.addresses = vec!["a".into()]),
            ),
            (
                "the node names",
                Box::new(|c| c.node_names = vec![String::new()]),
            ),
            (
                "the user patterns",
                Box::new(|c| c.user_patterns = vec!["a\nb".into()]),
            ),
            (
                "the description",
                Box::new(|c| c.description = "x".repeat(256)),
            ),
        ];
        for (field, break_it) in broken {
            let mut record = good.clone();
            break_it(&mut record);
            let error = read_record(record).unwrap_err().to_string();
            assert!(error.starts_with(field), "{field}: {error}");
        }
    }
}
