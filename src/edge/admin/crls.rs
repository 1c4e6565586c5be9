//! Revocation lists: taken in for a peer, listed, removed.
//!
//! That a list is newer than the one in force is looked at in the transaction that stores it.

use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    edge::admin::{
        error::Error,
        peers::{bundles, find},
        views,
    },
    store::{
        Store, Transaction,
        audit::{self, Action, Noun},
        crls::{self, StoredCrl},
    },
    trust::{
        bundle::Bundle,
        certificate::{Certificate, Fingerprint, fingerprint_of},
        crl::{self, Contents, Crl},
        shown::Chain,
    },
    wire::admin as pb,
};

/// What became of one list.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The list.
    pub crl: Crl,
    /// For which peer.
    pub cluster: ClusterId,
    /// Whether that changed anything.
    pub is_news: bool,
}

/// Who takes lists in, and by which authorities they may be signed besides the anchors.
#[derive(Clone, Debug)]
pub struct By {
    /// For the audit.
    pub actor: String,
    /// When.
    pub now: Timestamp,
    /// What peers have shown: their chains name authorities below the anchors.
    pub shown: Vec<Chain>,
}

/// Takes in every list of a file for one peer, or none. How strict a list is that is there stays, unless that is told.
///
/// # Errors
/// [`Error::Missing`] when there is no such peer, [`Error::Refused`] with why a list is not taken.
pub(super) async fn add(
    store: &Store,
    cluster: ClusterId,
    contents: Contents,
    is_strict: Option<bool>,
    by: By,
) -> Result<pb::AddCrlResponse, Error> {
    let (shown, now) = (by.shown.clone(), by.now);
    let all = store
        .write(move |tx| {
            find(tx, &cluster)?;
            let bundles = bundles(tx)?;
            let bundle = bundles.iter().find(|bundle| bundle.cluster == cluster);
            let bundle = bundle.ok_or_else(|| Error::missing(format!("peer {cluster}"), LIST))?;
            let mut all = Vec::new();
            for list in &contents.lists {
                let others = authorities(bundle, &contents, &by.shown);
                let signed = list
                    .clone()
                    .signed(&cluster, &bundle.anchors, &others, false);
                let crl = signed.map_err(|error| refused(&error))?;
                let crl = match is_strict {
                    Some(told) => crl.strict(told),
                    None => as_before(tx, &cluster, crl)?,
                };
                all.push(put(tx, &cluster, crl, &by)?.map_err(|error| refused(&error))?);
            }
            Ok::<_, Error>(all)
        })
        .await?;
    let (news, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|taken| taken.is_news);
    let revoked = |taken: &Taken| {
        let theirs = shown.iter().filter(|chain| chain.cluster == taken.cluster);
        let leaves = theirs.map(|chain| &chain.leaf);
        let revoked = leaves.filter(|leaf| taken.crl.revokes(leaf));
        revoked.map(views::certificate).collect::<Vec<_>>()
    };
    Ok(pb::AddCrlResponse {
        revoked_of_shown: news.iter().flat_map(revoked).collect(),
        added: news.iter().map(|taken| view(taken, now)).collect(),
        kept: kept.iter().map(|taken| view(taken, now)).collect(),
    })
}

/// Takes in the lists of a file for every peer whose authority has signed one; what is older than what is in force is
/// passed over. How strict a list is that is there stays.
///
/// # Errors
/// [`Error::Refused`] when no authority of any peer has signed one of them, or for a list that can't be told from the
/// one in force.
pub async fn take(store: &Store, contents: Contents, by: By) -> Result<Vec<Taken>, Error> {
    store
        .write(move |tx| {
            let bundles = bundles(tx)?;
            let mut all = Vec::new();
            for list in &contents.lists {
                let mut why = None;
                let mut is_signed = false;
                for bundle in &bundles {
                    let others = authorities(bundle, &contents, &by.shown);
                    let (cluster, anchors) = (&bundle.cluster, &bundle.anchors);
                    let crl = match list.clone().signed(cluster, anchors, &others, false) {
                        Ok(crl) => crl,
                        // A wrong signature says more than another authority.
                        Err(crl::Error::WrongIssuer { .. }) if why.is_some() => continue,
                        Err(error) => {
                            why = Some(error);
                            continue;
                        }
                    };
                    is_signed = true;
                    let crl = as_before(tx, cluster, crl)?;
                    match put(tx, cluster, crl, &by)? {
                        Ok(taken) => all.push(taken),
                        Err(crl::Error::Older { .. }) => {}
                        Err(error) => return Err(refused(&error)),
                    }
                }
                if let (false, Some(why)) = (is_signed, why) {
                    return Err(refused(&why));
                }
            }
            Ok(all)
        })
        .await
}

/// As strict as the list of that authority that is there.
fn as_before(tx: &mut dyn Transaction, cluster: &ClusterId, crl: Crl) -> Result<Crl, Error> {
    let there = crls::get(tx, cluster, &crl.issuer().key_hash())?;
    Ok(crl.strict(there.is_some_and(|there| there.is_strict)))
}

/// Who may have signed a list besides the anchors.
fn authorities(bundle: &Bundle, contents: &Contents, shown: &[Chain]) -> Vec<Certificate> {
    let theirs = shown.iter().filter(|chain| chain.cluster == bundle.cluster);
    let sent = theirs.flat_map(|chain| &chain.issuers);
    contents.certificates.iter().chain(sent).cloned().collect()
}

/// Stores a list with its entry of the audit, unless it is there.
fn put(
    tx: &mut dyn Transaction,
    cluster: &ClusterId,
    crl: Crl,
    by: &By,
) -> Result<Result<Taken, crl::Error>, Error> {
    let issuer_key = crl.issuer().key_hash();
    let mut is_news = true;
    if let Some(there) = crls::get(tx, cluster, &issuer_key)? {
        if let Err(error) = crl.succeeds(&there.number, &there.der) {
            return Ok(Err(error));
        }
        is_news = there.der != crl.der() || there.is_strict != crl.is_strict();
    }
    if is_news {
        let stored = StoredCrl {
            cluster_id: cluster.clone(),
            issuer_key,
            issuer_der: crl.issuer().der().to_vec(),
            number: crl.number().to_owned(),
            this_update: crl.this_update(),
            next_update: crl.next_update(),
            is_strict: crl.is_strict(),
            added_at: by.now,
            der: crl.der().to_vec(),
        };
        crls::put(tx, &stored)?;
        let strict = if crl.is_strict() { ", strict" } else { "" };
        audit::append(
            tx,
            &audit::Entry {
                at: by.now,
                actor: by.actor.clone(),
                action: Action::Add(Noun::Trust),
                subject: cluster.to_string(),
                outcome: format!(
                    "revocation list number {} of {}, {} revoked{strict}",
                    crl.number(),
                    crl.issuer().subject(),
                    crl.revoked()
                ),
                reference: None,
            },
        )?;
    }
    Ok(Ok(Taken {
        crl,
        cluster: cluster.clone(),
        is_news,
    }))
}

/// The lists of one peer, or of all.
///
/// # Errors
/// [`Error::Store`], and when what is stored can't be read.
pub(super) async fn list(
    store: &Store,
    cluster: Option<ClusterId>,
    now: Timestamp,
) -> Result<pb::ListCrlsResponse, Error> {
    let all = store.read(|tx| crls::list(tx)).await?;
    let wanted = all
        .into_iter()
        .filter(|crl| cluster.as_ref().is_none_or(|id| *id == crl.cluster_id));
    let crls: Result<Vec<_>, Error> = wanted.map(|crl| stored(&crl, now)).collect();
    Ok(pb::ListCrlsResponse { crls: crls? })
}

/// Removes the list of one authority, or all lists of a peer. A list that can't be read goes as well: it would be in
/// the way of every change of trust.
///
/// # Errors
/// [`Error::Missing`] when there is none.
pub(super) async fn remove(
    store: &Store,
    cluster: ClusterId,
    issuer: Option<Fingerprint>,
    by: By,
) -> Result<pb::RemoveCrlResponse, Error> {
    store
        .write(move |tx| {
            let mut removed = Vec::new();
            let is_it = |crl: &StoredCrl| {
                crl.cluster_id == cluster
                    && issuer.is_none_or(|wanted| wanted == fingerprint_of(&crl.issuer_der))
            };
            for crl in crls::list(tx)?.into_iter().filter(is_it) {
                crls::remove(tx, &cluster, &crl.issuer_key)?;
                removed.push(stored(&crl, by.now).unwrap_or_else(|_| by_columns(&crl, by.now)));
            }
            if removed.is_empty() {
                return Err(Error::missing(
                    format!("such a revocation list of {cluster}"),
                    LIST,
                ));
            }
            let numbers: Vec<_> = removed.iter().map(|crl| crl.number.as_str()).collect();
            audit::append(
                tx,
                &audit::Entry {
                    at: by.now,
                    actor: by.actor.clone(),
                    action: Action::Remove(Noun::Trust),
                    subject: cluster.to_string(),
                    outcome: format!("removed revocation lists: number {}", numbers.join(", ")),
                    reference: None,
                },
            )?;
            Ok(pb::RemoveCrlResponse { removed })
        })
        .await
}

/// Where one can see what there is.
const LIST: &str = "emccd trust crl list";

/// Why a list is not taken, as an operator is told.
pub(super) fn refused(error: &crl::Error) -> Error {
    let next = match &error {
        crl::Error::WrongIssuer { .. } => "emccd trust list shows the authorities of each peer",
        crl::Error::Older { .. } | crl::Error::Differs { .. } => {
            "emccd trust crl list shows what is in force; to begin anew: emccd trust crl remove CLUSTER"
        }
        _ => "look at the file with: openssl crl -noout -text -in FILE",
    };
    Error::refused(error.to_string(), next)
}

fn stored(crl: &StoredCrl, now: Timestamp) -> Result<pb::Crl, Error> {
    let issuer = Certificate::from_der(&crl.issuer_der)?;
    let read = Crl::stored(&crl.der, issuer, &crl.cluster_id, crl.is_strict)
        .map_err(|error| refused(&error))?;
    Ok(pb::Crl {
        added_at: Some(crl.added_at.to_string()),
        ..view(
            &Taken {
                crl: read,
                cluster: crl.cluster_id.clone(),
                is_news: false,
            },
            now,
        )
    })
}

/// What the store says of a list, whatever its bytes are.
fn by_columns(crl: &StoredCrl, now: Timestamp) -> pb::Crl {
    let issuer = Certificate::from_der(&crl.issuer_der).ok();
    pb::Crl {
        cluster_id: crl.cluster_id.to_string(),
        issuer: issuer.as_ref().map(views::certificate),
        number: crl.number.clone(),
        this_update: crl.this_update.to_string(),
        next_update: crl.next_update.to_string(),
        is_strict: crl.is_strict,
        is_stale: now > crl.next_update,
        added_at: Some(crl.added_at.to_string()),
        ..pb::Crl::default()
    }
}

fn view(taken: &Taken, now: Timestamp) -> pb::Crl {
    views::crl(&taken.cluster, &taken.crl, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        store::{
            self, peers,
            trust_entries::{self, EntryKind, Source, TrustEntry},
        },
        trust::fixtures::{Authority, cluster},
    };

    fn by() -> By {
        By {
            actor: "a test".to_owned(),
            now: Clock::system().now(),
            shown: Vec::new(),
        }
    }

    /// A store that knows a peer by that authority.
    async fn knowing(id: &str, authority: &Authority) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&store::Config {
            url: format!("sqlite:{}", dir.path().join("emccd.db").display()),
            node: "n1".to_owned(),
        })
        .unwrap();
        let peer = peers::Peer {
            cluster_id: cluster(id),
            enabled: true,
            allow_emcc: true,
            addresses: Vec::new(),
            node_names: Vec::new(),
            user_patterns: Vec::new(),
            dn_patterns: Vec::new(),
            ignore_eku: false,
            accept_announcements: crate::domain::announcement::Acceptance::default(),
            description: String::new(),
        };
        let anchor = authority.certificate();
        let entry = TrustEntry {
            cluster_id: cluster(id),
            kind: EntryKind::Anchor,
            fingerprint: anchor.fingerprint(),
            der: anchor.der().to_vec(),
            added_at: by().now,
            source: Source::Operator,
            alias: None,
        };
        let put = store.write(move |tx| {
            peers::upsert(tx, &peer)?;
            trust_entries::add(tx, &entry)
        });
        put.await.unwrap();
        (dir, store)
    }

    #[tokio::test]
    async fn a_list_is_as_strict_as_the_one_before_unless_told() {
        let authority = Authority::new("CA");
        let (_dir, store) = knowing("tokyo", &authority).await;
        for (number, told, is) in [
            (1, None, false),
            (2, Some(true), true),
            (3, None, true),
            (4, Some(false), false),
            (5, None, false),
        ] {
            let contents = crl::read(&authority.crl(number, &[], 30)).unwrap();
            let added = add(&store, cluster("tokyo"), contents, told, by()).await;
            assert_eq!(added.unwrap().added[0].is_strict, is, "{number}");
        }
    }

    #[tokio::test]
    async fn a_list_that_can_not_be_read_can_be_removed_and_is_in_nobodys_way() {
        let authority = Authority::new("CA");
        let (_dir, store) = knowing("tokyo", &authority).await;
        let contents = crl::read(&authority.crl(1, &[], 30)).unwrap();
        add(&store, cluster("tokyo"), contents, None, by())
            .await
            .unwrap();
        let broken = store.write(|tx| {
            let mut broken = crls::list(tx)?.remove(0);
            broken.der.truncate(20);
            crls::put(tx, &broken)?;
            // And one of another peer, which is nothing to this one.
            let mut other = peers::list(tx)?.remove(0);
            other.cluster_id = cluster("lima");
            peers::upsert(tx, &other)?;
            broken.cluster_id = cluster("lima");
            broken.issuer_der.truncate(20);
            crls::put(tx, &broken)
        });
        broken.await.unwrap();
        let issuer = Some(authority.certificate().fingerprint());
        let removed = remove(&store, cluster("tokyo"), issuer, by())
            .await
            .unwrap();
        assert_eq!(removed.removed[0].number, "1");
        let left = store.read(|tx| crls::list(tx)).await.unwrap();
        assert_eq!(left.len(), 1);
        remove(&store, cluster("lima"), None, by()).await.unwrap();
        let left = store.read(|tx| crls::list(tx)).await.unwrap();
        assert_eq!(left, []);
    }
}
