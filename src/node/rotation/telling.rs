//! Tells peers of the certificates of an identity, and keeps what they say.

use std::time::Duration;

use tracing::warn;

use super::{Driver, Problem, key_of, waits::Telling};
use crate::{
    domain::{
        accepted::{AcceptedKind, AcceptedList, Standing},
        ids::ClusterId,
        rotation::{Outcome, Phase, Rotation},
    },
    peer::announce::{Answered, Taken, Untold},
    store::{
        Transaction,
        rotations::{self, Row},
    },
    telemetry::error_chain,
    trust::rotation::{self, Claim},
    wire::pb,
};

/// A peer that says it has heard of later numbers than this far ahead of our clock is not believed.
const MOST_AHEAD: Duration = Duration::from_secs(86_400);

impl Driver {
    /// Tells a peer, and keeps what it says; what that is, if it has answered.
    pub(super) async fn tell(&self, row: Row, cluster: ClusterId) -> (Telling, Option<Outcome>) {
        let key = key_of(&row, &cluster);
        let answer = match self.message(&row, &cluster).await {
            Ok(message) => self.peers.announce(&cluster, message).await,
            Err(problem) => Err(Untold::Failed(error_chain(&problem))),
        };
        let kept = match answer {
            Ok(answered) if answered.sequence > row.rotation.sequence => {
                let raised = self.raise(&row, &cluster, answered.sequence).await;
                raised.map(|()| None)
            }
            Ok(answered) => self.keep(&row, &cluster, answered).await.map(Some),
            Err(Untold::NotLinked | Untold::Unable) => Ok(None),
            Err(Untold::Failed(why)) => {
                let kept = self.keep_trouble(&row, &cluster, why).await;
                kept.map(|()| None)
            }
        };
        match kept {
            Ok(outcome) => (key, outcome),
            Err(problem) => {
                warn!(peer.cluster_id = %cluster, cause = error_chain(&problem), "what a peer answered could not be kept");
                (key, None)
            }
        }
    }

    async fn message(&self, row: &Row, to: &ClusterId) -> Result<pb::AnnounceRequest, Problem> {
        let (folder, row) = (self.reloader.folder().clone(), row.clone());
        let (from, to) = (self.cluster.clone(), to.clone());
        let made = tokio::task::spawn_blocking(move || {
            let identity = row.name.to_string();
            let mut certificates = Vec::new();
            for fingerprint in row.rotation.certificates() {
                let own = folder.find(row.name.purpose, &fingerprint)?;
                let is_new = Some(fingerprint) == row.rotation.new;
                let parent = row.rotation.old.filter(|_| is_new);
                let claim = Claim {
                    from: &from,
                    to: &to,
                    identity: &identity,
                    sequence: row.rotation.sequence,
                    fingerprint: &fingerprint,
                    parent: parent.as_ref(),
                };
                let (signature_scheme, signature) = claim.sign(&own).ok_or(Problem::Unsigned)?;
                // Where that key is gone the connection's certificate counts as the parent.
                let before = parent.and_then(|old| folder.find(row.name.purpose, &old).ok());
                let vouched = before.and_then(|before| claim.sign(&before));
                let (parent_signature_scheme, parent_signature) = vouched.unwrap_or_default();
                certificates.push(pb::AnnouncedCertificate {
                    der: own.leaf().der().to_vec(),
                    parent: parent.map(|parent| parent.to_vec()).unwrap_or_default(),
                    signature_scheme,
                    signature,
                    parent_signature_scheme,
                    parent_signature,
                });
            }
            Ok::<_, Problem>(pb::AnnounceRequest {
                identity,
                sequence: row.rotation.sequence,
                certificates,
            })
        });
        made.await.map_err(|_| Problem::Broken)?
    }

    /// What its answer comes to, on record from now on.
    async fn keep(
        &self,
        row: &Row,
        cluster: &ClusterId,
        answered: Answered,
    ) -> Result<Outcome, Problem> {
        let (as_of, of) = (row.clone(), cluster.clone());
        let mirror = self.mirror(cluster);
        let kept = self.store.write(move |tx: &mut dyn Transaction| {
            let mut outcome = Outcome::Silent;
            rotation::progress(tx, &as_of, &of, |told| {
                let progress = &mut told.progress;
                let said = verdict(&as_of.rotation, &answered, progress.newcomer);
                let said = stands(&as_of.rotation, said, mirror.as_ref());
                outcome = said.0;
                progress.answered(as_of.rotation.sequence, outcome, said.1);
            })?;
            Ok::<_, rotation::Error>(outcome)
        });
        let outcome = kept.await?;
        if outcome == Outcome::Loaded {
            self.turned().forgive(row.name.purpose, cluster);
        }
        Ok(outcome)
    }

    /// What a peer accepts from us, as it told last.
    pub(super) fn mirror(&self, cluster: &ClusterId) -> Option<AcceptedList> {
        let links = self.peers.status();
        let link = links.iter().find(|link| link.cluster == *cluster)?;
        link.accepted().cloned()
    }

    /// It has not answered, and this is why; what it has said before still counts.
    async fn keep_trouble(
        &self,
        row: &Row,
        cluster: &ClusterId,
        why: String,
    ) -> Result<(), Problem> {
        let (row, of) = (row.clone(), cluster.clone());
        let kept = self.store.write(move |tx: &mut dyn Transaction| {
            rotation::progress(tx, &row, &of, |told| {
                if !told.progress.has_answered(&row.rotation) {
                    told.progress.detail.clone_from(&why);
                }
            })
        });
        kept.await?;
        Ok(())
    }

    /// The peer has heard of a later number than is on record here: the store is one from before. From here on a number
    /// above that one counts.
    async fn raise(&self, row: &Row, cluster: &ClusterId, known: u64) -> Result<(), Problem> {
        let now = self.clock.now();
        let bound = u64::try_from(now.plus(MOST_AHEAD).as_millis()).unwrap_or(0);
        if known > bound {
            let why = "it knows of a number far ahead of this node's clock; one of the two clocks is wrong";
            return self.keep_trouble(row, cluster, why.to_owned()).await;
        }
        warn!(peer.cluster_id = %cluster, known, "a peer has heard of later certificates than this store knows of");
        let row = row.clone();
        let raised = self.store.write(move |tx: &mut dyn Transaction| {
            rotations::next_sequence(tx, known, now)?;
            rotation::change(
                tx,
                &row,
                |row, sequence| row.rotation.sequence = sequence,
                true,
                now,
            )
        });
        raised.await?;
        Ok(())
    }
}

/// What a peer's answer comes to. Of two certificates the new one counts: the one from before it takes in any case, as
/// long as it takes our connections, perhaps for its authority's sake and not as a certificate of its own. For one that
/// became a peer since, that may be the other way round.
fn verdict(rotation: &Rotation, answered: &Answered, is_newcomer: bool) -> (Outcome, String) {
    let mut counts = rotation.certificates();
    if !is_newcomer {
        counts.drain(..counts.len().saturating_sub(1));
    }
    let said = counts
        .iter()
        .map(|counts| match answered.outcomes.get(counts) {
            Some((Taken::Loaded, _)) => (Outcome::Loaded, String::new()),
            Some((Taken::Waiting, why)) => (Outcome::Waiting, why.clone()),
            Some((Taken::Refused, why)) => (Outcome::Refused, why.clone()),
            None => (Outcome::Refused, "its answer does not say".to_owned()),
        });
    // Silent, loaded, waiting, refused: the worst of them.
    said.max_by_key(|(outcome, _)| *outcome)
        .unwrap_or_else(|| (Outcome::Refused, "there is nothing to be told".to_owned()))
}

/// The same beside what the peer accepts anyway. After a step back it is asked to have no more than it had before: one
/// that takes no announcements has that, if its list says so.
fn stands(
    rotation: &Rotation,
    said: (Outcome, String),
    mirror: Option<&AcceptedList>,
) -> (Outcome, String) {
    let (Phase::RollingBack, Outcome::Refused, Some(mirror), Some(old)) =
        (rotation.phase, said.0, mirror, rotation.old)
    else {
        return said;
    };
    let has_old = matches!(
        mirror.standing(&[old]),
        Standing::Accepted(_) | Standing::Vouched
    );
    let has_new = mirror.certificates.iter().any(|entry| {
        Some(entry.fingerprint) == rotation.new && entry.kind != AcceptedKind::Revoked
    });
    if has_old && !has_new {
        (Outcome::Loaded, said.1)
    } else {
        said
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::accepted::Accepted;

    const OLD: [u8; 32] = [1; 32];
    const NEW: [u8; 32] = [2; 32];

    fn announced() -> Rotation {
        let mut rotation = Rotation::requested(false, None);
        rotation.made(OLD, NEW, 7);
        rotation
    }

    fn answer(old: Taken, new: Taken) -> Answered {
        Answered {
            sequence: 7,
            outcomes: BTreeMap::from([(OLD, (old, "o".to_owned())), (NEW, (new, "n".to_owned()))]),
        }
    }

    #[test]
    fn who_became_a_peer_since_has_to_have_both_and_all_others_the_new_one() {
        use Taken::{Loaded, Refused, Waiting};
        for (old, new, known, newcomer) in [
            (Loaded, Loaded, Outcome::Loaded, Outcome::Loaded),
            (Refused, Loaded, Outcome::Loaded, Outcome::Refused),
            (Waiting, Loaded, Outcome::Loaded, Outcome::Waiting),
            (Loaded, Waiting, Outcome::Waiting, Outcome::Waiting),
            (Waiting, Refused, Outcome::Refused, Outcome::Refused),
        ] {
            let answered = answer(old, new);
            assert_eq!(verdict(&announced(), &answered, false).0, known);
            assert_eq!(verdict(&announced(), &answered, true).0, newcomer);
        }
        let nothing = Answered {
            sequence: 7,
            outcomes: BTreeMap::new(),
        };
        assert_eq!(verdict(&announced(), &nothing, false).0, Outcome::Refused);
    }

    #[test]
    fn after_a_step_back_a_refusal_counts_for_nothing_where_the_old_one_is_accepted_anyway() {
        let entry = |fingerprint, kind| Accepted {
            fingerprint,
            kind,
            until: None,
        };
        let list = |entries: &[Accepted]| AcceptedList::new(1, entries.to_vec());
        let mut back = announced();
        back.roll_back(8);
        let refused = || (Outcome::Refused, "off".to_owned());
        use AcceptedKind::{Anchor, Pinned, Revoked};
        for (mirror, expected) in [
            (None, Outcome::Refused),
            (Some(list(&[])), Outcome::Refused),
            (Some(list(&[entry(OLD, Pinned)])), Outcome::Loaded),
            (Some(list(&[entry([9; 32], Anchor)])), Outcome::Loaded),
            (
                Some(list(&[entry(OLD, Pinned), entry(NEW, Pinned)])),
                Outcome::Refused,
            ),
            (
                Some(list(&[entry(OLD, Pinned), entry(NEW, Revoked)])),
                Outcome::Loaded,
            ),
            (
                Some(list(&[entry([9; 32], Anchor), entry(OLD, Revoked)])),
                Outcome::Refused,
            ),
        ] {
            assert_eq!(
                stands(&back, refused(), mirror.as_ref()).0,
                expected,
                "{mirror:?}"
            );
        }
        let mirror = list(&[entry(OLD, Pinned)]);
        assert_eq!(
            stands(&announced(), refused(), Some(&mirror)).0,
            Outcome::Refused
        );
        let waits = (Outcome::Waiting, String::new());
        assert_eq!(stands(&back, waits, Some(&mirror)).0, Outcome::Waiting);
    }
}
