//! Rotations on record: what operators and nodes do with them, each in one transaction with its gate and its audit entry,
//! and the proof by which peers take an announced certificate.

use std::collections::BTreeSet;

use crate::{
    clock::Timestamp,
    domain::{
        announcement::proof_text,
        ids::ClusterId,
        rotation::{
            Fingerprint, Name, Phase, Rotation, Told,
            gates::{self, Blocker, Named},
        },
    },
    store::{
        self, Transaction,
        audit::{self, Action},
        rotations::{self, Recipe, Row},
    },
    trust::{certificate::fingerprint_text, identity::Identity, proof},
};

/// Why a rotation does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] store::Error),
    /// There is none of this identity.
    #[error("no rotation of {0} is under way")]
    Missing(Name),
    /// A gate is shut.
    #[error("{name}: {}", told(.blockers))]
    Shut {
        /// Of which identity.
        name: Name,
        /// By what.
        blockers: Vec<Blocker>,
    },
}

fn told(blockers: &[Blocker]) -> String {
    let all: Vec<_> = blockers.iter().map(ToString::to_string).collect();
    all.join("; ")
}

/// Who does it, and when.
#[derive(Clone, Debug)]
pub struct Doer {
    /// An operator, or the node by itself.
    pub actor: String,
    /// Now.
    pub at: Timestamp,
}

impl Doer {
    /// The node itself.
    #[must_use]
    pub fn node(at: Timestamp) -> Self {
        Self {
            actor: "node".to_owned(),
            at,
        }
    }

    fn record(
        &self,
        tx: &mut dyn Transaction,
        action: Action,
        name: &Name,
        outcome: String,
    ) -> Result<(), store::Error> {
        audit::append(
            tx,
            &audit::Entry {
                at: self.at,
                actor: self.actor.clone(),
                action,
                subject: name.to_string(),
                outcome,
                reference: None,
            },
        )
    }
}

/// Has a new certificate made, which peers are told of beside the one that is shown.
///
/// # Errors
/// [`Error::Shut`] while the last one is not finished.
pub fn announce(
    tx: &mut dyn Transaction,
    name: &Name,
    recipe: &Recipe,
    automatic: bool,
    doer: &Doer,
) -> Result<Row, Error> {
    let last = rotations::get(tx, name)?;
    let last = last.map(|row| row.rotation);
    pass(name, gates::may_announce(last.as_ref()))?;
    rotations::forget_progress(tx, name)?;
    let row = Row {
        name: name.clone(),
        rotation: Rotation::requested(automatic, last.as_ref()),
        old_ends: None,
        recipe: recipe.clone(),
        problem: None,
        since: doer.at,
    };
    rotations::put(tx, &row)?;
    let how = if automatic {
        ", and goes on by itself"
    } else {
        ""
    };
    let outcome = format!("a new certificate is wanted{how}");
    doer.record(tx, Action::CertAnnounce, name, outcome)?;
    Ok(row)
}

/// The node has made the new certificate: from here on peers are told. `old_ends` is until when the one from before is
/// valid.
///
/// # Errors
/// [`Error::Missing`] when nobody wants it any more.
pub fn made(
    tx: &mut dyn Transaction,
    name: &Name,
    (old, old_ends): (Fingerprint, Timestamp),
    new: Fingerprint,
    doer: &Doer,
) -> Result<Row, Error> {
    let mut row = find(tx, name)?;
    if row.rotation.phase != Phase::Requested {
        return Err(Error::Missing(name.clone()));
    }
    let sequence = rotations::next_sequence(tx, row.rotation.sequence, doer.at)?;
    row.rotation.made(old, new, sequence);
    row.old_ends = Some(old_ends);
    keep(tx, &mut row, doer)?;
    let outcome = format!(
        "{} is announced beside {}",
        fingerprint_text(&new),
        fingerprint_text(&old)
    );
    doer.record(tx, Action::CertAnnounce, name, outcome)?;
    Ok(row)
}

/// Has the new certificate shown.
///
/// # Errors
/// [`Error::Missing`], and [`Error::Shut`] with each peer that holds it up.
pub fn activate(
    tx: &mut dyn Transaction,
    name: &Name,
    named: &Named,
    doer: &Doer,
) -> Result<Row, Error> {
    let mut row = find(tx, name)?;
    let peers = rotations::told(tx, name)?;
    pass(name, gates::may_activate(&row.rotation, &peers, named))?;
    keep_words(tx, &row, peers, named)?;
    rotations::meet(tx, name)?;
    row.rotation.activate();
    keep(tx, &mut row, doer)?;
    let new = text(row.rotation.new);
    let outcome = format!("{new} is shown from now on{}", words(named));
    doer.record(tx, Action::CertActivate, name, outcome)?;
    Ok(row)
}

/// Has the new certificate shown since the one from before has ended, whoever does not have it yet. None when it would not
/// help any more.
///
/// # Errors
/// [`Error::Missing`].
pub fn ended(tx: &mut dyn Transaction, name: &Name, doer: &Doer) -> Result<Option<Row>, Error> {
    let mut row = find(tx, name)?;
    let has_ended = row.old_has_ended(doer.at);
    if !has_ended || !row.rotation.is_held_by_the_old() {
        return Ok(None);
    }
    let peers = rotations::told(tx, name)?;
    let behind = peers.iter().filter(|p| !p.progress.accepts(&row.rotation));
    let named = Named {
        overridden: behind.map(|told| told.cluster.clone()).collect(),
        ..Named::default()
    };
    keep_words(tx, &row, peers, &named)?;
    rotations::meet(tx, name)?;
    row.rotation.ended();
    keep(tx, &mut row, doer)?;
    let (old, new) = (text(row.rotation.old), text(row.rotation.new));
    let outcome = format!("{old} has ended: {new} is shown{}", words(&named));
    doer.record(tx, Action::CertActivate, name, outcome)?;
    Ok(Some(row))
}

fn keep_words(
    tx: &mut dyn Transaction,
    row: &Row,
    mut peers: Vec<Told>,
    named: &Named,
) -> Result<(), store::Error> {
    gates::keep_words(&row.rotation, &mut peers, named);
    for told in peers.iter().filter(|told| told.progress.word.is_some()) {
        rotations::put_progress(tx, &row.name, told)?;
    }
    Ok(())
}

/// Takes an operator's word that peers have the new certificate by other ways.
///
/// # Errors
/// [`Error::Missing`], and [`Error::Shut`] for those that answer for themselves.
pub fn confirm(
    tx: &mut dyn Transaction,
    name: &Name,
    named: &Named,
    doer: &Doer,
) -> Result<Row, Error> {
    let row = find(tx, name)?;
    let peers = rotations::told(tx, name)?;
    pass(name, gates::may_confirm(&row.rotation, &peers, named))?;
    keep_words(tx, &row, peers, named)?;
    let outcome = format!("{}{}", text(row.rotation.new), words(named));
    doer.record(tx, Action::CertConfirm, name, outcome)?;
    Ok(row)
}

/// Has the old certificate go.
///
/// # Errors
/// [`Error::Missing`], and [`Error::Shut`] with each peer and each link that holds it up.
pub fn retire(tx: &mut dyn Transaction, name: &Name, doer: &Doer) -> Result<Row, Error> {
    let row = find(tx, name)?;
    let peers = rotations::told(tx, name)?;
    pass(name, gates::may_retire(name, &row.rotation, &peers))?;
    go(tx, row, &Named::default(), doer)
}

/// The same at the old certificate's end, without these peers.
///
/// # Errors
/// As [`retire`].
pub fn retire_without(
    tx: &mut dyn Transaction,
    name: &Name,
    without: &BTreeSet<ClusterId>,
    doer: &Doer,
) -> Result<Row, Error> {
    let row = find(tx, name)?;
    let peers = rotations::told(tx, name)?;
    let blockers = gates::may_retire_without(name, &row.rotation, &peers, without);
    pass(name, blockers)?;
    let named = Named {
        overridden: without.clone(),
        ..Named::default()
    };
    go(tx, row, &named, doer)
}

/// The old one goes.
fn go(tx: &mut dyn Transaction, mut row: Row, named: &Named, doer: &Doer) -> Result<Row, Error> {
    let sequence = rotations::next_sequence(tx, row.rotation.sequence, doer.at)?;
    row.rotation.retire(sequence);
    keep(tx, &mut row, doer)?;
    let outcome = format!("{} goes{}", text(row.rotation.old), words(named));
    doer.record(tx, Action::CertRetire, &row.name, outcome)?;
    Ok(row)
}

/// Has the old certificate shown again, and the new one go. None when nothing was announced yet.
///
/// # Errors
/// [`Error::Missing`], and [`Error::Shut`] once it is retired.
pub fn roll_back(tx: &mut dyn Transaction, name: &Name, doer: &Doer) -> Result<Option<Row>, Error> {
    let mut row = find(tx, name)?;
    let old_ended = row.old_has_ended(doer.at);
    let peers = rotations::told(tx, name)?;
    pass(name, gates::may_roll_back(&row.rotation, &peers, old_ended))?;
    let sequence = rotations::next_sequence(tx, row.rotation.sequence, doer.at)?;
    let goes = text(row.rotation.new);
    let goes_on = row.rotation.roll_back(sequence);
    if goes_on {
        keep(tx, &mut row, doer)?;
    } else {
        rotations::remove(tx, name)?;
    }
    let outcome = format!("{goes} goes, and the one from before is shown");
    doer.record(tx, Action::CertRollBack, name, outcome)?;
    Ok(goes_on.then_some(row))
}

/// Ends a rotation of which nothing can be shown any more: this one is, which is configured. Whether it was still where it
/// was when that was found.
///
/// # Errors
/// [`store::Error`] when the store fails.
pub fn give_up(
    tx: &mut dyn Transaction,
    as_of: &Row,
    configured: Fingerprint,
    doer: &Doer,
) -> Result<bool, store::Error> {
    let name = &as_of.name;
    let now = rotations::get(tx, name)?;
    if !now.is_some_and(|row| is_same(&row.rotation, &as_of.rotation)) {
        return Ok(false);
    }
    rotations::remove(tx, name)?;
    let outcome = format!(
        "given up ({}): {} can't be shown any more, and {} is, which is configured",
        as_of.rotation.phase,
        text(as_of.rotation.shows()),
        fingerprint_text(&configured)
    );
    doer.record(tx, Action::CertRollBack, name, outcome)?;
    Ok(true)
}

/// Whether it is where it was.
fn is_same(a: &Rotation, b: &Rotation) -> bool {
    (a.phase, a.sequence) == (b.phase, b.sequence)
}

/// Changes a rotation, if it is still where it was when that was decided; whether it was.
///
/// # Errors
/// [`Error::Store`].
pub fn change(
    tx: &mut dyn Transaction,
    as_of: &Row,
    change: impl FnOnce(&mut Row, u64),
    needs_sequence: bool,
    now: Timestamp,
) -> Result<bool, Error> {
    let Some(mut row) = rotations::get(tx, &as_of.name)? else {
        return Ok(false);
    };
    if !is_same(&row.rotation, &as_of.rotation) {
        return Ok(false);
    }
    let sequence = match needs_sequence {
        true => rotations::next_sequence(tx, row.rotation.sequence, now)?,
        false => row.rotation.sequence,
    };
    let before = row.clone();
    change(&mut row, sequence);
    if row != before {
        if row.rotation.phase != before.rotation.phase {
            row.since = now;
        }
        rotations::put(tx, &row)?;
    }
    Ok(true)
}

/// Keeps what a peer has said, if the rotation is still where it was when it was asked.
///
/// # Errors
/// [`Error::Store`].
pub fn progress(
    tx: &mut dyn Transaction,
    as_of: &Row,
    cluster: &ClusterId,
    change: impl FnOnce(&mut Told),
) -> Result<bool, Error> {
    let Some(row) = rotations::get(tx, &as_of.name)? else {
        return Ok(false);
    };
    if row.rotation.sequence != as_of.rotation.sequence {
        return Ok(false);
    }
    let peers = rotations::told(tx, &as_of.name)?;
    let Some(mut told) = peers.into_iter().find(|told| told.cluster == *cluster) else {
        return Ok(false);
    };
    let before = told.clone();
    change(&mut told);
    if told != before {
        rotations::put_progress(tx, &as_of.name, &told)?;
    }
    Ok(true)
}

fn find(tx: &mut dyn Transaction, name: &Name) -> Result<Row, Error> {
    rotations::get(tx, name)?.ok_or_else(|| Error::Missing(name.clone()))
}

fn keep(tx: &mut dyn Transaction, row: &mut Row, doer: &Doer) -> Result<(), Error> {
    row.since = doer.at;
    row.problem = None;
    Ok(rotations::put(tx, row)?)
}

fn pass(name: &Name, blockers: Vec<Blocker>) -> Result<(), Error> {
    if blockers.is_empty() {
        return Ok(());
    }
    Err(Error::Shut {
        name: name.clone(),
        blockers,
    })
}

fn text(of: Option<Fingerprint>) -> String {
    of.map_or_else(|| "nothing".to_owned(), |f| fingerprint_text(&f))
}

fn words(named: &Named) -> String {
    let list = |what: &str, ids: &BTreeSet<ClusterId>| {
        let ids: Vec<_> = ids.iter().map(ClusterId::as_str).collect();
        match ids.is_empty() {
            true => String::new(),
            false => format!("; {what} {}", ids.join(", ")),
        }
    };
    list("confirmed for", &named.confirmed) + &list("not waiting for", &named.overridden)
}

/// What a proof is over.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Who announces.
    pub from: &'a ClusterId,
    /// To whom.
    pub to: &'a ClusterId,
    /// Node and purpose.
    pub identity: &'a str,
    /// The number of the announcement.
    pub sequence: u64,
    /// The certificate.
    pub fingerprint: &'a Fingerprint,
    /// The one that it descends from; none for one that the called side knows.
    pub parent: Option<&'a Fingerprint>,
}

impl Claim<'_> {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        proof_text(
            self.from,
            self.to,
            self.identity,
            self.sequence,
            self.fingerprint,
            self.parent,
        )
    }

    /// The proof that the identity's key is ours, and the number of its scheme. None when its kind of key can't.
    #[must_use]
    pub fn sign(&self, identity: &Identity) -> Option<(u32, Vec<u8>)> {
        let (scheme, signature) = proof::sign(identity, &self.text())?;
        Some((scheme.into(), signature))
    }
}

#[cfg(test)]
mod tests;
