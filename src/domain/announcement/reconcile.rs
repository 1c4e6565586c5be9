//! What an announcement does to what we accept from the peer that made it. Pure.
//!
//! The identity's pinned entries become the same as what was announced, and nothing else changes: authorities, names,
//! other clusters and what other identities call their own are never touched. What is decided depends on what stands and
//! what was asked alone, so that a repeat finds everything done and an older one changes nothing.
//!
//! An entry is taken away only where something of the identity stays in its place, so that a peer that we accepted
//! something of is never left with nothing; and never the one that the call itself rests on.

use std::collections::{BTreeMap, BTreeSet};

use super::{Acceptance, Fingerprint, MAX_IDENTITIES, Outcome};
use crate::domain::ids::ClusterId;

/// What stands of one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Certificates that are accepted by their fingerprint.
    pub pinned: BTreeSet<Fingerprint>,
    /// Certificates that wait for an operator.
    pub waiting: BTreeSet<Fingerprint>,
    /// Certificates that were taken back.
    pub revoked: BTreeSet<Fingerprint>,
    /// The newest of each identity.
    pub identities: BTreeMap<String, Newest>,
    /// Of the certificates that are announced: those that another peer's record pins.
    pub elsewhere: BTreeMap<Fingerprint, ClusterId>,
    /// Of the certificates that are announced: those that are accepted as authorities, from whomever.
    pub authorities: BTreeSet<Fingerprint>,
}

/// The newest announcement of an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Newest {
    /// Its number.
    pub sequence: u64,
    /// What tells what was announced under that number.
    pub digest: [u8; 32],
    /// What of it is accepted or waits.
    pub own: BTreeSet<Fingerprint>,
}

/// An announcement, its proofs verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Node and purpose.
    pub identity: String,
    /// Its number.
    pub sequence: u64,
    /// What tells its certificates from any others.
    pub digest: [u8; 32],
    /// Its certificates, each once.
    pub certificates: Vec<Candidate>,
    /// The certificate of the connection that it came over.
    pub connection: Fingerprint,
}

/// A certificate of an announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// SHA-256 of it.
    pub fingerprint: Fingerprint,
    /// The one whose key was proved to vouch for it; what is only said to be its parent is none. Whoever stole one key
    /// would name another certificate, so that revoking the stolen one leaves what it announced.
    pub parent: Option<Fingerprint>,
    /// Whether it would be accepted where it is shown.
    pub fitness: Fitness,
}

/// Whether a certificate would be accepted where it is shown, once it is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// It would.
    Fit,
    /// Not before some moment; when.
    NotYet(String),
    /// It would not, whatever anybody agrees to; why.
    Never(String),
}

/// One step. They are taken in order, all or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An identity of which nothing is left makes room.
    Forget(String),
    /// A certificate is accepted, on the word of another one.
    Pin(Fingerprint, Option<Fingerprint>),
    /// A certificate waits for an operator, on the word of another one.
    Wait(Fingerprint, Option<Fingerprint>),
    /// A certificate is accepted no more.
    Remove(Fingerprint),
    /// A certificate waits no more.
    Unwait(Fingerprint),
    /// This is the newest of the identity.
    Keep(String, Newest),
}

/// What becomes of an announcement that is not refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciled {
    /// The highest number that is known of the identity. Above that of the request: nothing changes.
    pub sequence: u64,
    /// What is to be done; nothing where all stands as it was announced.
    pub changes: Vec<Change>,
    /// One for each certificate, in their order; none where nothing changes for a higher number is known.
    pub outcomes: Vec<(Fingerprint, Outcome)>,
}

/// Why an announcement changes nothing and is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It takes the certificate away that the call's own connection rests on.
    RestsOn(Fingerprint),
    /// The same number was announced with other certificates.
    OtherContent(u64),
    /// As many identities are known as may be.
    TooManyIdentities,
}

/// What an announcement of a peer does to what we accept from it.
///
/// # Errors
/// [`Refused`].
pub fn reconcile(
    standing: &Standing,
    policy: Acceptance,
    request: &Request,
) -> Result<Reconciled, Refused> {
    let mut changes = Vec::new();
    let known = standing.identities.get(&request.identity);
    match known {
        Some(newest) if newest.sequence > request.sequence => {
            return Ok(Reconciled {
                sequence: newest.sequence,
                changes,
                outcomes: Vec::new(),
            });
        }
        Some(newest) if newest.sequence == request.sequence && newest.digest != request.digest => {
            return Err(Refused::OtherContent(newest.sequence));
        }
        Some(_) => {}
        None => changes.extend(room(standing)?),
    }

    let mut outcomes = Vec::new();
    let mut own = BTreeSet::new();
    let mut is_loaded = false;
    for candidate in &request.certificates {
        let fingerprint = candidate.fingerprint;
        let (outcome, change) = take(standing, policy, request, candidate);
        is_loaded |= outcome == Outcome::Loaded;
        let stands = match &change {
            Some(Change::Pin(..) | Change::Wait(..)) => true,
            Some(_) => false,
            None => {
                standing.pinned.contains(&fingerprint) || standing.waiting.contains(&fingerprint)
            }
        };
        if stands {
            own.insert(fingerprint);
        }
        changes.extend(change);
        outcomes.push((fingerprint, outcome));
    }

    for fingerprint in known.iter().flat_map(|newest| &newest.own) {
        if own.contains(fingerprint) {
            continue;
        }
        let is_shared = standing.identities.iter().any(|(identity, other)| {
            *identity != request.identity && other.own.contains(fingerprint)
        });
        if is_shared {
            continue;
        }
        if standing.pinned.contains(fingerprint) {
            if !is_loaded {
                // Nothing of the identity would be left.
                own.insert(*fingerprint);
            } else if *fingerprint == request.connection {
                return Err(Refused::RestsOn(*fingerprint));
            } else {
                changes.push(Change::Remove(*fingerprint));
            }
        }
        if standing.waiting.contains(fingerprint)
            && !changes.contains(&Change::Unwait(*fingerprint))
        {
            changes.push(Change::Unwait(*fingerprint));
        }
    }

    let newest = Newest {
        sequence: request.sequence,
        digest: request.digest,
        own,
    };
    if known != Some(&newest) {
        changes.push(Change::Keep(request.identity.clone(), newest));
    }
    Ok(Reconciled {
        sequence: request.sequence,
        changes,
        outcomes,
    })
}

/// What becomes of one certificate.
fn take(
    standing: &Standing,
    policy: Acceptance,
    request: &Request,
    candidate: &Candidate,
) -> (Outcome, Option<Change>) {
    let fingerprint = candidate.fingerprint;
    let refused = |why: String| {
        let waits = standing.waiting.contains(&fingerprint);
        (
            Outcome::Refused(why),
            waits.then_some(Change::Unwait(fingerprint)),
        )
    };
    if standing.pinned.contains(&fingerprint) {
        // Whatever brought it here: what would be refused when it is shown must not be counted on.
        let outcome = match &candidate.fitness {
            Fitness::Fit => Outcome::Loaded,
            Fitness::NotYet(when) => Outcome::Waiting(when.clone()),
            Fitness::Never(why) => Outcome::Refused(why.clone()),
        };
        return (outcome, None);
    }
    if standing.revoked.contains(&fingerprint) {
        return refused("it was revoked, or rejected, by an operator here".to_owned());
    }
    if standing.elsewhere.contains_key(&fingerprint) {
        // Whose it is, is none of the caller's business.
        return refused("it is trusted here for another cluster already".to_owned());
    }
    if standing.authorities.contains(&fingerprint) {
        return refused(
            "it is trusted here as an authority; announce a certificate of a node".to_owned(),
        );
    }
    if let Fitness::Never(why) = &candidate.fitness {
        return refused(why.clone());
    }
    let parent = candidate
        .parent
        .filter(|parent| standing.pinned.contains(parent))
        .or(Some(request.connection))
        .filter(|parent| *parent != fingerprint);
    match (policy, &candidate.fitness) {
        // Nobody has to do anything: a repeat after that moment finds it fit.
        (Acceptance::Auto, Fitness::NotYet(when)) => (Outcome::Waiting(when.clone()), None),
        (Acceptance::Auto, _) => (Outcome::Loaded, Some(Change::Pin(fingerprint, parent))),
        (Acceptance::Approve, _) => {
            let is_new = !standing.waiting.contains(&fingerprint);
            (
                Outcome::Waiting("an operator there has to agree: emccd trust accept".to_owned()),
                is_new.then_some(Change::Wait(fingerprint, parent)),
            )
        }
        (Acceptance::Off, _) => refused(
            "announcements are not taken there (accept-announcements off): certificates are exchanged by hand"
                .to_owned(),
        ),
    }
}

/// Room for one more identity: one of which nothing is left may have to go, the first by name.
fn room(standing: &Standing) -> Result<Option<Change>, Refused> {
    if standing.identities.len() < MAX_IDENTITIES {
        return Ok(None);
    }
    let mut empty = standing
        .identities
        .iter()
        .filter(|(_, newest)| newest.own.is_empty());
    match empty.next() {
        Some((identity, _)) => Ok(Some(Change::Forget(identity.clone()))),
        None => Err(Refused::TooManyIdentities),
    }
}

#[cfg(test)]
impl Standing {
    /// What stands after these changes.
    pub(crate) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Forget(identity) => drop(self.identities.remove(identity)),
                Change::Pin(fingerprint, _) => {
                    self.pinned.insert(*fingerprint);
                    self.waiting.remove(fingerprint);
                }
                Change::Wait(fingerprint, _) => drop(self.waiting.insert(*fingerprint)),
                Change::Remove(fingerprint) => drop(self.pinned.remove(fingerprint)),
                Change::Unwait(fingerprint) => drop(self.waiting.remove(fingerprint)),
                Change::Keep(identity, newest) => {
                    drop(self.identities.insert(identity.clone(), newest.clone()));
                }
            }
        }
    }

    /// As an operator does it: gone and refused from then on, or trusted.
    pub(crate) fn revoke(&mut self, fingerprint: Fingerprint) {
        self.pinned.remove(&fingerprint);
        self.waiting.remove(&fingerprint);
        self.revoked.insert(fingerprint);
        for newest in self.identities.values_mut() {
            newest.own.remove(&fingerprint);
        }
    }

    /// As an operator does it.
    pub(crate) fn trust(&mut self, fingerprint: Fingerprint) {
        self.pinned.insert(fingerprint);
        self.waiting.remove(&fingerprint);
        self.revoked.remove(&fingerprint);
    }
}

#[cfg(test)]
mod tests;
