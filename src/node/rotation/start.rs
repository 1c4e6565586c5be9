//! What is shown from the start, before any rotation is driven.

use std::collections::BTreeMap;

use tracing::error;

use super::making::check;
use crate::{
    clock::Timestamp,
    domain::{
        purpose::Purpose,
        rotation::{Fingerprint, still_old},
    },
    store::{
        self, Store, Transaction,
        rotations::{self, Row},
    },
    telemetry::error_chain,
    trust::{self, InForce, certificate::fingerprint_text, folder::IdentityFolder},
};

/// What the rotations on record say is to be shown, before anything is; what is not there is left out. Where it can't be
/// shown the other certificate of the rotation is, if that can: a node with none in force is cut off from everybody.
pub(in crate::node) async fn in_force(
    store: &Store,
    node: &str,
    folder: &IdentityFolder,
    now: Timestamp,
) -> Result<BTreeMap<Purpose, InForce>, store::Error> {
    let of = node.to_owned();
    let found = store.read(move |tx: &mut dyn Transaction| {
        let mut found = Vec::new();
        for row in rotations::all(tx)? {
            if row.name.node == of {
                let peers = rotations::told(tx, &row.name)?;
                found.push((row, peers));
            }
        }
        Ok::<_, store::Error>(found)
    });
    let (found, folder) = (found.await?, folder.clone());
    let chosen = tokio::task::spawn_blocking(move || {
        let mut all = BTreeMap::new();
        for (row, peers) in found {
            let old_ended = row.old_has_ended(now);
            let old_for = still_old(&row.rotation, &peers, &Default::default(), old_ended);
            if let Some(configured) = replaced_by(&row, &folder, now) {
                // The driver ends it.
                error!(
                    identity = %row.name, certificate = fingerprint_text(&configured),
                    "ALARM: no certificate of the rotation on record can be shown: the one that is configured is"
                );
            } else if let Some(active) = choose(&row, &folder, now) {
                // One that is not there must not keep the other one from being shown.
                let purpose = row.name.purpose;
                let has_old = |old| folder.find(purpose, &old).is_ok();
                let is_meant =
                    Some(active) == row.rotation.shows() && row.rotation.old.is_some_and(has_old);
                let in_force = InForce {
                    active: Some(active),
                    old: row.rotation.old,
                    old_for: if is_meant { old_for } else { Vec::new() },
                };
                all.insert(row.name.purpose, in_force);
            }
        }
        all
    });
    // What broke down is left out: what is configured is shown.
    Ok(chosen.await.unwrap_or_default())
}

/// The configured certificate that a rotation gives way to, if it does. Blocks.
pub(in crate::node) fn replaced_by(
    row: &Row,
    folder: &IdentityFolder,
    now: Timestamp,
) -> Option<Fingerprint> {
    let purpose = row.name.purpose;
    let fits = |of: Fingerprint| match folder.find(purpose, &of) {
        Ok(identity) => check(folder, purpose, &identity, now).is_ok(),
        // What can't be read now may be good.
        Err(error) => !matches!(error, trust::Error::NoSuchIdentity { .. }),
    };
    let configured = || {
        let configured = folder.configured(purpose).ok()?;
        check(folder, purpose, &configured, now).ok()?;
        Some(configured.leaf().fingerprint())
    };
    row.rotation.gives_way(fits, configured)
}

/// Which certificate of a rotation is shown: the one that is meant, or the other one where that can't be. Blocks.
fn choose(row: &Row, folder: &IdentityFolder, now: Timestamp) -> Option<[u8; 32]> {
    let (purpose, rotation) = (row.name.purpose, &row.rotation);
    let meant = rotation.shows()?;
    let outcome = |of: &[u8; 32]| {
        let found = folder.find(purpose, of);
        found.and_then(|identity| check(folder, purpose, &identity, now))
    };
    let problem = match outcome(&meant) {
        Ok(()) => return Some(meant),
        Err(problem) => problem,
    };
    let mut both = [rotation.old, rotation.new].into_iter().flatten();
    let other = both.find(|of| *of != meant && outcome(of).is_ok());
    match &other {
        Some(other) => error!(
            identity = %row.name, cause = error_chain(&problem), certificate = fingerprint_text(other),
            "ALARM: the certificate that a rotation has in use can't be shown: the other one of the rotation is"
        ),
        None => error!(
            identity = %row.name, cause = error_chain(&problem),
            "ALARM: no certificate of the rotation that is under way can be shown"
        ),
    }
    // With neither, what is wrong with the one that is meant is told where it is read.
    other.or_else(|| folder.find(purpose, &meant).is_ok().then_some(meant))
}
