//! The mirror: which certificates a cluster accepts from the one that it tells this to, and what that means for what the
//! other one shows. Pure.

use std::sync::Arc;

use crate::{clock::Timestamp, domain::announcement::Fingerprint};

/// How many entries are told, those that were added last.
pub const MAX_ACCEPTED: usize = 64;

/// What an entry vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AcceptedKind {
    /// That certificate.
    Pinned,
    /// What that authority has signed.
    Anchor,
    /// That certificate, once an operator has agreed.
    Waiting,
    /// That certificate no more.
    Revoked,
}

impl AcceptedKind {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Anchor => "anchor",
            Self::Waiting => "waiting",
            Self::Revoked => "revoked",
        }
    }
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// As what.
    pub kind: AcceptedKind,
    /// When its validity ends.
    pub until: Option<Timestamp>,
}

/// What a cluster accepts from one other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptedList {
    /// Grows with each change of what the cluster accepts from anybody.
    pub sequence: u64,
    /// The entries.
    pub certificates: Arc<[Accepted]>,
}

/// How a certificate of ours stands with a peer that told what it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is accepted, until then.
    Accepted(Option<Timestamp>),
    /// An authority of its chain is accepted, or may be: the peer has authorities whose certificates are not in it.
    Vouched,
    /// An operator there has to agree.
    Waiting,
    /// It was taken back there.
    Revoked,
    /// It is not accepted.
    Unknown,
    /// The peer has told of its newest entries only, and it is not among those.
    NotTold,
}

impl Standing {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Vouched => "vouched",
            Self::Waiting => "waiting",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
            Self::NotTold => "not-told",
        }
    }
}

impl AcceptedList {
    /// The list of these, cut to what is told: what is accepted or waits comes before what was taken back.
    #[must_use]
    pub fn new(sequence: u64, mut certificates: Vec<Accepted>) -> Self {
        certificates.sort_by_key(|accepted| accepted.kind == AcceptedKind::Revoked);
        certificates.truncate(MAX_ACCEPTED);
        Self {
            sequence,
            certificates: certificates.into(),
        }
    }

    /// How a chain of ours, the leaf first, stands with who told this.
    #[must_use]
    pub fn standing(&self, chain: &[Fingerprint]) -> Standing {
        let Some((leaf, issuers)) = chain.split_first() else {
            return Standing::Unknown;
        };
        let of_leaf = |kind| {
            let mut entries = self.certificates.iter();
            entries.find(move |entry| entry.kind == kind && entry.fingerprint == *leaf)
        };
        let anchors = || {
            let entries = self.certificates.iter();
            entries.filter(|entry| entry.kind == AcceptedKind::Anchor)
        };
        if of_leaf(AcceptedKind::Revoked).is_some() {
            return Standing::Revoked;
        }
        if let Some(entry) = of_leaf(AcceptedKind::Pinned) {
            return Standing::Accepted(entry.until);
        }
        if anchors().any(|anchor| issuers.contains(&anchor.fingerprint)) {
            return Standing::Vouched;
        }
        if of_leaf(AcceptedKind::Waiting).is_some() {
            return Standing::Waiting;
        }
        // A root is not in a chain that is shown.
        if anchors().next().is_some() {
            return Standing::Vouched;
        }
        if self.certificates.len() >= MAX_ACCEPTED {
            return Standing::NotTold;
        }
        Standing::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u8, kind: AcceptedKind) -> Accepted {
        Accepted {
            fingerprint: [n; 32],
            kind,
            until: Some(Timestamp::from_millis(i64::from(n))),
        }
    }

    #[test]
    fn a_chain_stands_as_its_leaf_does_and_then_as_its_authorities() {
        use AcceptedKind::{Anchor, Pinned, Revoked, Waiting};
        let list = |entries: &[(u8, AcceptedKind)]| {
            let entries = entries.iter().map(|(n, kind)| entry(*n, *kind));
            AcceptedList::new(3, entries.collect())
        };
        let until = Standing::Accepted(Some(Timestamp::from_millis(1)));
        for (entries, chain, expected) in [
            (vec![(1, Pinned)], vec![1], until),
            (vec![(1, Pinned)], vec![2], Standing::Unknown),
            (vec![(1, Pinned)], vec![2, 1], Standing::Unknown),
            (vec![], vec![1], Standing::Unknown),
            (vec![(1, Pinned)], vec![], Standing::Unknown),
            (vec![(1, Waiting)], vec![1], Standing::Waiting),
            (vec![(1, Waiting), (1, Pinned)], vec![1], until),
            (vec![(1, Revoked)], vec![1], Standing::Revoked),
            (
                vec![(9, Anchor), (1, Revoked)],
                vec![1, 9],
                Standing::Revoked,
            ),
            (vec![(9, Anchor)], vec![1, 9], Standing::Vouched),
            (vec![(9, Anchor)], vec![1], Standing::Vouched),
            (vec![(9, Anchor), (1, Waiting)], vec![1], Standing::Waiting),
        ] {
            let chain: Vec<_> = chain.into_iter().map(|n| [n; 32]).collect();
            assert_eq!(list(&entries).standing(&chain), expected, "{entries:?}");
        }
    }

    #[test]
    fn what_was_taken_back_is_left_out_first_and_a_list_that_was_cut_says_nothing_of_others() {
        let mut entries: Vec<_> = (0..70).map(|n| entry(n, AcceptedKind::Revoked)).collect();
        entries.push(entry(100, AcceptedKind::Pinned));
        let list = AcceptedList::new(1, entries);
        assert_eq!(list.certificates.len(), MAX_ACCEPTED);
        assert!(matches!(list.standing(&[[100; 32]]), Standing::Accepted(_)));
        assert_eq!(list.standing(&[[69; 32]]), Standing::NotTold);
    }
}
