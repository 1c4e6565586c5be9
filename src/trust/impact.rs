//! What a change of trust does: to the entries of a peer, and to connections that live. Pure.
//!
//! Only what a connection has shown is known, by its fingerprints; where an authority was what let it in and some
//! authority stays, whether that one vouches too is found out when the connection is judged again.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    store::{announcements::descending, trust_entries::EntryKind},
    trust::{
        bundle::Bundle,
        certificate::{Certificate, Fingerprint, fingerprint_text},
    },
};

/// A certificate that is to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// As what.
    pub kind: EntryKind,
    /// Its name in the file that it came from.
    pub alias: Option<String>,
    /// The certificate.
    pub certificate: Certificate,
}

/// What is known of a peer's certificates beside the bundle.
#[derive(Clone, Debug, Default)]
pub struct Family {
    /// On whose word each one was taken.
    pub lineage: BTreeMap<Fingerprint, Fingerprint>,
    /// Those that were announced and wait for an operator.
    pub waiting: BTreeSet<Fingerprint>,
}

/// What bringing certificates in changes for one peer.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Those that are new.
    pub added: Vec<Wanted>,
    /// Those that are there already.
    pub kept: Vec<Wanted>,
    /// Those that go, since the new ones replace all others.
    pub removed: Vec<(EntryKind, Certificate)>,
    /// Those that wait no more, since they were announced on the word of one that goes.
    pub unheard: Vec<Fingerprint>,
    /// What was accepted before.
    pub before: Bundle,
    /// What is accepted then.
    pub after: Bundle,
}

/// Why a certificate is not brought in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It was taken back: one file among many must not undo that in passing.
    #[error("{subject} ({fingerprint}) was revoked for {cluster}")]
    Revoked {
        /// For whom.
        cluster: ClusterId,
        /// Whose certificate.
        subject: String,
        /// SHA-256 of it.
        fingerprint: String,
    },
    /// An authority would vouch for nothing.
    #[error("an authority vouches for node names, and the record of {cluster} has none")]
    NoNames {
        /// Whose record.
        cluster: ClusterId,
    },
}

impl Changes {
    /// Compares what one peer has with what is wanted for it; with `replace`, nothing else stays.
    ///
    /// # Errors
    /// [`Refused`] with the first certificate that must not be brought in.
    pub fn of(
        before: &Bundle,
        family: &Family,
        wanted: &[Wanted],
        replace: bool,
    ) -> Result<Self, Refused> {
        let there: HashSet<_> = entries(before)
            .map(|(kind, c)| (kind, c.fingerprint()))
            .collect();
        let revoked: HashSet<_> = before.revoked.iter().collect();
        let mut asked = HashSet::new();
        let mut after = before.clone();
        let (mut added, mut kept) = (Vec::new(), Vec::new());
        for wanted in wanted {
            let certificate = &wanted.certificate;
            let key = (wanted.kind, certificate.fingerprint());
            if !asked.insert(key) {
                continue;
            }
            if there.contains(&key) {
                kept.push(wanted.clone());
                continue;
            }
            if revoked.contains(&key.1) {
                return Err(Refused::Revoked {
                    cluster: before.cluster.clone(),
                    subject: certificate.subject().to_owned(),
                    fingerprint: certificate.fingerprint_text(),
                });
            }
            match wanted.kind {
                EntryKind::Pinned => after.pinned.push(certificate.clone()),
                EntryKind::Anchor => {
                    check_names(&before.cluster, &before.node_names)?;
                    after.anchors.push(certificate.clone());
                }
            }
            added.push(wanted.clone());
        }
        let mut changes = Self {
            added,
            kept,
            removed: Vec::new(),
            unheard: Vec::new(),
            before: before.clone(),
            after,
        };
        if replace {
            changes.replace(family, &asked);
        }
        Ok(changes)
    }

    fn replace(&mut self, family: &Family, asked: &HashSet<(EntryKind, Fingerprint)>) {
        let goes = |kind, c: &Certificate| !asked.contains(&(kind, c.fingerprint()));
        let gone = entries(&self.before).filter(|(kind, c)| goes(*kind, c));
        self.removed = gone.map(|(kind, c)| (kind, c.clone())).collect();
        let after = &mut self.after;
        after.pinned.retain(|c| !goes(EntryKind::Pinned, c));
        after.anchors.retain(|c| !goes(EntryKind::Anchor, c));
        // What is in the file rests on nobody else's word from now on.
        let asked: HashSet<_> = asked.iter().map(|(_, fingerprint)| fingerprint).collect();
        let mut lineage = family.lineage.clone();
        lineage.retain(|child, _| !asked.contains(child));
        let unheard = descending(&lineage, &self.gone()).into_iter();
        self.unheard = unheard
            .filter(|child| family.waiting.contains(child))
            .collect();
    }

    /// The certificates that go and don't stay as another kind.
    #[must_use]
    pub fn gone(&self) -> BTreeSet<Fingerprint> {
        self.removed.iter().map(|(_, c)| c.fingerprint()).collect()
    }

    /// What is told of it in the audit: numbers, and what was taken away by name. What was added stands in the store, with
    /// the time of the entry.
    #[must_use]
    pub fn audited(&self) -> String {
        let named = |all: &mut dyn Iterator<Item = Fingerprint>| {
            let some = all.take(MOST_NAMED).map(|one| fingerprint_text(&one));
            some.collect::<Vec<_>>().join(", ")
        };
        let mut told = format!(
            "imported: {} added, {} kept",
            self.added.len(),
            self.kept.len()
        );
        if !self.removed.is_empty() {
            let mut all = self.removed.iter().map(|(_, c)| c.fingerprint());
            told += &format!(", {} replaced: {}", self.removed.len(), named(&mut all));
        }
        if !self.unheard.is_empty() {
            let mut all = self.unheard.iter().copied();
            let count = self.unheard.len();
            told += &format!(
                ", {count} announced on their word wait no more: {}",
                named(&mut all)
            );
        }
        told
    }
}

/// Refuses a peer whose record has no names that an authority could vouch for.
///
/// # Errors
/// [`Refused::NoNames`].
pub fn check_names(cluster: &ClusterId, node_names: &[String]) -> Result<(), Refused> {
    if node_names.is_empty() {
        let cluster = cluster.clone();
        return Err(Refused::NoNames { cluster });
    }
    Ok(())
}

/// What is accepted once a certificate is taken back: an authority goes, and a leaf is revoked, listed or not.
#[must_use]
pub fn without(before: &Bundle, unwanted: &Fingerprint) -> Bundle {
    let mut after = before.clone();
    let is_meant = |c: &Certificate| c.fingerprint() == *unwanted;
    after.pinned.retain(|pin| !is_meant(pin));
    after.anchors.retain(|anchor| !is_meant(anchor));
    if after.anchors.len() == before.anchors.len() && !after.revoked.contains(unwanted) {
        after.revoked.push(*unwanted);
    }
    after
}

/// Whether a change takes the last entry of a peer.
#[must_use]
pub fn takes_the_last(before: &Bundle, after: &Bundle) -> bool {
    entries(before).next().is_some() && entries(after).next().is_none()
}

fn entries(bundle: &Bundle) -> impl Iterator<Item = (EntryKind, &Certificate)> {
    let anchors = bundle.anchors.iter().map(|c| (EntryKind::Anchor, c));
    let pinned = bundle.pinned.iter().map(|c| (EntryKind::Pinned, c));
    anchors.chain(pinned)
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing accepts it any more.
    Ends,
    /// It goes on; until then at the longest, where that is known.
    GoesOn(Option<Timestamp>),
    /// It goes on only if an authority that stays vouches for it.
    MayEnd,
}

/// The fate of a connection that has shown these certificates, the leaf first, when `after` takes the place of
/// `before`.
#[must_use]
pub fn fate(shown: &[Fingerprint], before: &Bundle, after: &Bundle) -> Fate {
    let Some(leaf) = shown.first() else {
        return Fate::Ends;
    };
    let pinned = |bundle: &Bundle| find(&bundle.pinned, leaf).map(Certificate::not_after);
    if let Some(until) = pinned(after) {
        return Fate::GoesOn(Some(until));
    }
    if after.anchors.is_empty() || after.revoked.contains(leaf) {
        return Fate::Ends;
    }
    let stays = |anchor: &Certificate| find(&after.anchors, &anchor.fingerprint()).is_some();
    if pinned(before).is_none() && before.anchors.iter().all(stays) {
        return Fate::GoesOn(None);
    }
    Fate::MayEnd
}

/// How many entries of a bundle are good now, and until when the last of them is.
#[must_use]
pub fn left(bundle: &Bundle, now: Timestamp) -> (usize, Option<Timestamp>) {
    let all = bundle.pinned.iter().chain(&bundle.anchors);
    let good = all.filter(|certificate| now <= certificate.not_after());
    good.fold((0, None), |(count, until), certificate| {
        (count + 1, until.max(Some(certificate.not_after())))
    })
}

/// In one entry of the audit.
const MOST_NAMED: usize = 20;

fn find<'a>(all: &'a [Certificate], wanted: &Fingerprint) -> Option<&'a Certificate> {
    all.iter()
        .find(|certificate| certificate.fingerprint() == *wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::fixtures::{Authority, Spec, anchored, bundle, pinned};

    #[test]
    fn a_connection_ends_with_what_it_rests_on() {
        let (old, new) = (
            Spec::new("o.example").self_signed(),
            Spec::new("n.example").self_signed(),
        );
        let shown = [old.certificate().fingerprint()];
        let before = pinned("tokyo", &old);
        let both = Bundle {
            pinned: vec![old.certificate(), new.certificate()],
            ..before.clone()
        };
        let until = Fate::GoesOn(Some(old.certificate().not_after()));
        assert_eq!(fate(&shown, &before, &both), until);
        assert_eq!(fate(&shown, &before, &pinned("tokyo", &new)), Fate::Ends);
        assert_eq!(fate(&shown, &before, &bundle("tokyo")), Fate::Ends);
        assert_eq!(fate(&[], &before, &both), Fate::Ends);

        let (authority, other) = (Authority::new("One"), Authority::new("Two"));
        let by_anchor = anchored("tokyo", &authority, &["o.example"]);
        let more = Bundle {
            anchors: vec![authority.certificate(), other.certificate()],
            ..by_anchor.clone()
        };
        let revoked = Bundle {
            revoked: shown.to_vec(),
            ..more.clone()
        };
        assert_eq!(fate(&shown, &by_anchor, &more), Fate::GoesOn(None));
        assert_eq!(fate(&shown, &more, &by_anchor), Fate::MayEnd);
        assert_eq!(fate(&shown, &before, &by_anchor), Fate::MayEnd);
        assert_eq!(fate(&shown, &by_anchor, &revoked), Fate::Ends);
    }

    fn wanted(kind: EntryKind, certificate: &Certificate) -> Wanted {
        Wanted {
            kind,
            alias: None,
            certificate: certificate.clone(),
        }
    }

    #[test]
    fn an_import_adds_keeps_and_replaces_what_it_says() {
        let leaf = |name: &str| Spec::new(name).self_signed();
        let (old, kept, new) = (leaf("old"), leaf("kept"), leaf("new"));
        let before = Bundle {
            pinned: vec![old.certificate(), kept.certificate()],
            ..bundle("tokyo")
        };
        let of = |leaf: &crate::trust::fixtures::Leaf| leaf.certificate();
        let asked: Vec<_> = [&kept, &new, &new]
            .map(|leaf| wanted(EntryKind::Pinned, &of(leaf)))
            .to_vec();
        let beside = Changes::of(&before, &Family::default(), &asked, false).unwrap();
        assert_eq!(beside.added, asked[1..2]);
        assert_eq!(beside.kept, asked[..1]);
        assert!(beside.removed.is_empty());
        assert_eq!(beside.after.pinned, [of(&old), of(&kept), of(&new)]);
        assert_eq!(beside.audited(), "imported: 1 added, 1 kept");

        // Announced on the word of the one that goes: one waits, one is in the file, one is long gone.
        let waits = [1; 32];
        let parent = of(&old).fingerprint();
        let family = Family {
            lineage: [waits, of(&kept).fingerprint(), [2; 32]]
                .map(|child| (child, parent))
                .into(),
            waiting: [waits, [3; 32]].into(),
        };
        let replaced = Changes::of(&before, &family, &asked, true).unwrap();
        assert_eq!(replaced.removed, [(EntryKind::Pinned, of(&old))]);
        assert_eq!(replaced.unheard, [waits]);
        assert_eq!(replaced.after.pinned, [of(&kept), of(&new)]);
        let told = replaced.audited();
        assert!(told.contains(&of(&old).fingerprint_text()), "{told}");
        assert!(told.contains("1 announced on their word"), "{told}");
    }

    #[test]
    fn what_was_revoked_and_authorities_without_names_are_not_brought_in() {
        let leaf = Spec::new("a.example").self_signed().certificate();
        let before = Bundle {
            revoked: vec![leaf.fingerprint()],
            ..bundle("tokyo")
        };
        let refused = |kind, certificate: &Certificate| {
            let asked = [wanted(kind, certificate)];
            Changes::of(&before, &Family::default(), &asked, false).unwrap_err()
        };
        let revoked = refused(EntryKind::Pinned, &leaf);
        assert!(matches!(revoked, Refused::Revoked { .. }), "{revoked}");
        let authority = Authority::new("CA").certificate();
        let nameless = refused(EntryKind::Anchor, &authority);
        assert!(matches!(nameless, Refused::NoNames { .. }), "{nameless}");
    }

    #[test]
    fn taking_back_revokes_a_leaf_and_only_removes_an_authority() {
        let (authority, leaf) = (Authority::new("CA"), Spec::new("a.example").self_signed());
        let both = Bundle {
            pinned: vec![leaf.certificate()],
            ..anchored("tokyo", &authority, &["a.example"])
        };
        let shown = leaf.certificate().fingerprint();
        let after = without(&both, &shown);
        assert_eq!((after.pinned.len(), &*after.revoked), (0, &[shown][..]));
        assert!(!takes_the_last(&both, &after));
        let last = without(&after, &authority.certificate().fingerprint());
        assert!(last.anchors.is_empty() && last.revoked == after.revoked);
        assert!(takes_the_last(&after, &last) && !takes_the_last(&last, &last));
    }

    #[test]
    fn what_is_left_counts_only_while_it_is_good() {
        let good = Spec::new("a.example").self_signed();
        let over = Spec::new("b.example").valid_days(-9, -1).self_signed();
        let both = Bundle {
            pinned: vec![good.certificate(), over.certificate()],
            ..bundle("tokyo")
        };
        let until = good.certificate().not_after();
        let now = crate::clock::Clock::system().now();
        assert_eq!(left(&both, now), (1, Some(until)));
        assert_eq!(left(&bundle("tokyo"), now), (0, None));
    }
}
