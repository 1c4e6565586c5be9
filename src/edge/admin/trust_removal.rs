//! A certificate taken out of what is accepted from a peer, and what may go with it.

use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    edge::admin::{
        error::Error,
        operations::Live,
        peers::{bundles, entries_of, find},
        roles::Actor,
    },
    store::{
        Store, Transaction, announcements,
        audit::{self, Action, Noun},
        parameters,
        peers::Peer,
        sessions,
        trust_entries::{self, EntryKind},
    },
    trust::{
        bundle,
        certificate::{Fingerprint, fingerprint_text},
        impact::{self, Fate},
    },
    wire::admin as pb,
};

/// What is to be taken away.
#[derive(Clone, Debug)]
pub(super) struct Removal {
    pub cluster: ClusterId,
    pub fingerprint: Fingerprint,
    pub mode: Mode,
}

/// What may go with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Connections, the peer's last entry, and what was announced on its word.
    Cascade,
    /// Nothing.
    Refuse,
    /// Connections and the peer's last entry.
    Unlink,
}

impl Mode {
    /// The one that a request names.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "" | "refuse" => Some(Self::Refuse),
            "cascade" => Some(Self::Cascade),
            "unlink" => Some(Self::Unlink),
            _ => None,
        }
    }
}

/// Takes a certificate out of what is accepted from a peer.
///
/// A pin is revoked, and so is a certificate that is not listed if an authority may vouch for it. An authority is
/// only removed: what it vouched for is then unknown, and revocations are of leaves.
///
/// # Errors
/// [`Error::Missing`] when there is no such peer, or when there is nothing to take from it; [`Error::Refused`] when
/// something rests on it that the mode leaves alone.
pub(super) async fn remove_trust(
    store: &Store,
    asked: Removal,
    (live, unreported): (Vec<Live>, Vec<String>),
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::RemoveTrustResponse, Error> {
    let actor = actor.to_string();
    store
        .write(move |tx| {
            let Removal {
                cluster,
                fingerprint,
                mode,
            } = &asked;
            let peer = find(tx, cluster)?;
            let text = fingerprint_text(fingerprint);
            let mut removed = entries_of(tx, cluster)?;
            removed.retain(|entry| {
                let certificate = entry.certificate.as_ref();
                certificate.is_some_and(|c| c.fingerprint == text)
            });
            let was_anchor = removed.iter().any(|e| e.kind == EntryKind::Anchor.as_str());
            // One that is long gone may have left others behind that were taken on its word.
            if !was_anchor
                && removed.is_empty()
                && announcements::descendants(tx, cluster, fingerprint)?.is_empty()
                && !is_waiting(tx, cluster, fingerprint)?
                && is_settled(tx, cluster, fingerprint)?
            {
                return Err(Error::missing(
                    format!("trust in {text} for the peer {cluster}"),
                    "emccd trust list",
                ));
            }
            check_use(tx, &peer, fingerprint, *mode, (&live, &unreported))?;
            let gone = if was_anchor {
                trust_entries::withdraw(tx, cluster, fingerprint)?
            } else {
                trust_entries::revoke(tx, cluster, fingerprint, now)?
            };
            let left = entries_of(tx, cluster)?.len();
            let sessions = if left == 0 { ending(tx, cluster)? } else { 0 };
            let descendants: Vec<_> = gone.descendants.iter().map(fingerprint_text).collect();
            bundle::check(&bundles(tx)?)?;
            audit::append(
                tx,
                &audit::Entry {
                    at: now,
                    actor: actor.clone(),
                    action: Action::Remove(Noun::Trust),
                    subject: cluster.to_string(),
                    outcome: removal_told(&text, was_anchor, removed.is_empty(), &descendants),
                    reference: None,
                },
            )?;
            Ok(pb::RemoveTrustResponse {
                removed,
                left: u32::try_from(left).unwrap_or(u32::MAX),
                revoked: !was_anchor,
                descendants,
                unreported: unreported.clone(),
                sessions,
            })
        })
        .await
}

fn removal_told(text: &str, was_anchor: bool, was_none: bool, descendants: &[String]) -> String {
    let what = match (was_anchor, was_none) {
        (true, _) => format!("removed {text}"),
        (false, false) => format!("removed and revoked {text}"),
        (false, true) => format!("revoked {text}"),
    };
    if descendants.is_empty() {
        return what;
    }
    format!(
        "{what}, and what had been announced on its word: {}",
        descendants.join(", ")
    )
}

/// Refuses to take what something rests on that the mode leaves alone, and names it.
fn check_use(
    tx: &mut dyn Transaction,
    peer: &Peer,
    fingerprint: &Fingerprint,
    mode: Mode,
    (live, unreported): (&[Live], &[String]),
) -> Result<(), Error> {
    if mode == Mode::Cascade {
        return Ok(());
    }
    let cluster = &peer.cluster_id;
    let descendants = announcements::descendants(tx, cluster, fingerprint)?;
    let text = fingerprint_text(fingerprint);
    if !descendants.is_empty() {
        let all: Vec<_> = descendants.iter().map(fingerprint_text).collect();
        let goes = |entry: &pb::TrustEntry| {
            let certificate = entry.certificate.as_ref();
            certificate.is_some_and(|c| c.fingerprint == text || all.contains(&c.fingerprint))
        };
        let sessions = match entries_of(tx, cluster)?.iter().all(goes) {
            true => ending_told(tx, cluster)?.unwrap_or_default(),
            false => String::new(),
        };
        return Err(Error::refused(
            format!(
                "what {cluster} announced on its word would go as well: {}{sessions}",
                all.join(", ")
            ),
            format!(
                "if that is meant: emccd trust remove {cluster} --fingerprint {text} --mode cascade"
            ),
        ));
    }
    if mode == Mode::Unlink {
        return Ok(());
    }
    let all = bundles(tx)?;
    let Some(before) = all.iter().find(|bundle| bundle.cluster == *cluster) else {
        return Ok(());
    };
    let after = impact::without(before, fingerprint);
    let ends = |live: &&Live| {
        live.cluster == *cluster
            && !matches!(impact::fate(&live.shown, before, &after), Fate::GoesOn(_))
    };
    let mut resting: Vec<_> = live
        .iter()
        .filter(ends)
        .map(|live| live.told.clone())
        .collect();
    if impact::takes_the_last(before, &after) {
        let sessions = ending_told(tx, cluster)?;
        match (peer.enabled, sessions) {
            (true, sessions) => resting.push(format!(
                "the peer {cluster}, which is enabled and has no other entry{}",
                sessions.unwrap_or_default()
            )),
            // Nothing else ends with a peer that is disabled.
            (false, Some(sessions)) => {
                resting.push(format!(
                    "the peer {cluster}, which has no other entry{sessions}"
                ));
            }
            (false, None) => {}
        }
    }
    if resting.is_empty() && peer.enabled && !unreported.is_empty() {
        return Err(Error::refused(
            format!(
                "whether a connection rests on it is not known of {}, which has not put all of its connections on \
                 record",
                unreported.join(", ")
            ),
            format!(
                "try again in some seconds, when it has; or end what rests on it: emccd trust remove {cluster} \
                 --fingerprint {text} --mode unlink"
            ),
        ));
    }
    if resting.is_empty() {
        return Ok(());
    }
    Err(Error::refused(
        format!("it is in use by {}", resting.join(", ")),
        format!(
            "have the peer show another certificate that is trusted here, or end them: emccd trust remove {cluster} \
             --fingerprint {text} --mode unlink"
        ),
    ))
}

/// How many sessions end with the last of what is accepted from a peer.
fn ending(tx: &mut dyn Transaction, cluster: &ClusterId) -> Result<u64, Error> {
    if !parameters::ends_sessions_on_revocation(tx)? {
        return Ok(0);
    }
    Ok(sessions::shared_with(tx, cluster)?.0)
}

/// The same in words; none where no session ends.
fn ending_told(tx: &mut dyn Transaction, cluster: &ClusterId) -> Result<Option<String>, Error> {
    Ok(match ending(tx, cluster)? {
        0 => None,
        1 => Some("; the one session shared with it would end".to_owned()),
        many => Some(format!("; the {many} sessions shared with it would end")),
    })
}

/// Whether a certificate was announced and waits for an operator.
fn is_waiting(
    tx: &mut dyn Transaction,
    cluster: &ClusterId,
    fingerprint: &Fingerprint,
) -> Result<bool, Error> {
    let mut waiting = announcements::waiting(tx)?.into_iter();
    Ok(waiting.any(|entry| entry.cluster_id == *cluster && entry.fingerprint == *fingerprint))
}

/// Whether there is nothing to take from `cluster`, of which the certificate is no entry: it is revoked already, or
/// is another peer's, or no authority vouches for anything of this one's.
fn is_settled(
    tx: &mut dyn Transaction,
    cluster: &ClusterId,
    fingerprint: &Fingerprint,
) -> Result<bool, Error> {
    let is_pin = |e: &trust_entries::TrustEntry| {
        e.kind == EntryKind::Pinned && e.fingerprint == *fingerprint
    };
    Ok(trust_entries::is_revoked(tx, cluster, fingerprint)?
        || !trust_entries::has_anchor(tx, cluster)?
        || trust_entries::list(tx)?.iter().any(is_pin))
}
