//! What an operator says to certificates that a peer announced and that wait: accepted, or rejected for good.

use std::collections::BTreeSet;

use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    edge::admin::{
        error::Error,
        peers::{Origins, bundles, find},
        roles::Actor,
        views,
    },
    store::{
        Store, Transaction,
        announcements::{self, WaitingEntry},
        audit::{self, Action, Noun},
        trust_entries::{self, EntryKind, Source, TrustEntry},
    },
    trust::{
        bundle,
        certificate::{Fingerprint, fingerprint_text},
    },
    wire::admin as pb,
};

/// What an operator says.
#[derive(Clone, Debug)]
pub(super) struct Word {
    /// Of which peer.
    pub cluster: ClusterId,
    /// Of which certificate; none for all that wait.
    pub fingerprint: Option<Fingerprint>,
    /// What the operator has seen; none when nothing was shown.
    pub shown: Option<BTreeSet<Fingerprint>>,
    /// Whether it is rejected.
    pub reject: bool,
}

/// Accepts what waits of a peer, all or one, or rejects it: then it is revoked, and announcing it again is of no use.
///
/// # Errors
/// [`Error::Missing`] when there is no such peer, or nothing of it waits; [`Error::Refused`] when what waits is not what
/// the operator was shown; [`Error::Trust`] when two peers could then pass for each other.
pub(super) async fn decide(
    store: &Store,
    word: Word,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::AcceptTrustResponse, Error> {
    let actor = actor.to_string();
    store
        .write(move |tx| {
            let Word {
                cluster,
                fingerprint,
                shown: seen,
                reject,
            } = word.clone();
            find(tx, &cluster)?;
            let mut waiting = announcements::waiting(tx)?;
            waiting.retain(|entry| {
                entry.cluster_id == cluster && fingerprint.is_none_or(|f| f == entry.fingerprint)
            });
            if waiting.is_empty() {
                let what = fingerprint.map_or_else(
                    || format!("certificate of {cluster} that waits"),
                    |f| {
                        format!(
                            "certificate {} of {cluster} that waits",
                            fingerprint_text(&f)
                        )
                    },
                );
                return Err(Error::missing(what, "emccd trust list"));
            }
            unchanged(&cluster, seen.as_ref(), &waiting, reject)?;
            let origins = Origins::read(tx)?;
            let shown = waiting
                .iter()
                .map(|entry| Ok(origins.tell(views::waiting_entry(entry)?)))
                .collect::<Result<Vec<_>, Error>>()?;
            for entry in &waiting {
                if reject {
                    trust_entries::revoke(tx, &cluster, &entry.fingerprint, now)?;
                } else {
                    accept(tx, entry, now)?;
                }
            }
            bundle::check(&bundles(tx)?)?;
            let told: Vec<_> = waiting
                .iter()
                .map(|entry| fingerprint_text(&entry.fingerprint))
                .collect();
            let told = told.join(", ");
            let (action, outcome) = match reject {
                true => (
                    Action::Remove(Noun::Trust),
                    format!("rejected and revoked what was announced: {told}"),
                ),
                false => (
                    Action::Add(Noun::Trust),
                    format!("accepted what was announced: pinned {told}"),
                ),
            };
            audit::append(
                tx,
                &audit::Entry {
                    at: now,
                    actor: actor.clone(),
                    action,
                    subject: cluster.to_string(),
                    outcome,
                    reference: None,
                },
            )?;
            let kind = if reject { "revoked" } else { "pinned" };
            Ok(pb::AcceptTrustResponse {
                entries: shown
                    .into_iter()
                    .map(|entry| pb::TrustEntry {
                        kind: kind.to_owned(),
                        ..entry
                    })
                    .collect(),
            })
        })
        .await
}

/// Nobody agrees to what they have not seen.
fn unchanged(
    cluster: &ClusterId,
    seen: Option<&BTreeSet<Fingerprint>>,
    waiting: &[WaitingEntry],
    reject: bool,
) -> Result<(), Error> {
    let now: BTreeSet<_> = waiting.iter().map(|entry| entry.fingerprint).collect();
    let Some(seen) = seen.filter(|seen| **seen != now) else {
        return Ok(());
    };
    let list = |which: Vec<&Fingerprint>| {
        let texts: Vec<_> = which.into_iter().map(fingerprint_text).collect();
        texts.join(", ")
    };
    let mut changed = Vec::new();
    let new: Vec<_> = now.difference(seen).collect();
    if !new.is_empty() {
        changed.push(format!("{} came since", list(new)));
    }
    let gone: Vec<_> = seen.difference(&now).collect();
    if !gone.is_empty() {
        changed.push(format!("{} waits no more", list(gone)));
    }
    let how = if reject { " --reject" } else { "" };
    Err(Error::refused(
        format!(
            "what waits of {cluster} is not what was shown: {}",
            changed.join("; ")
        ),
        format!("look at it again: emccd trust accept {cluster}{how}"),
    ))
}

/// It is pinned, and still rests on the word of the one that it was announced by.
fn accept(tx: &mut dyn Transaction, entry: &WaitingEntry, now: Timestamp) -> Result<(), Error> {
    let entry = TrustEntry {
        cluster_id: entry.cluster_id.clone(),
        kind: EntryKind::Pinned,
        fingerprint: entry.fingerprint,
        der: entry.der.clone(),
        added_at: now,
        source: Source::Announced,
        alias: None,
    };
    trust_entries::add(tx, &entry)?;
    Ok(())
}
