//! What we accept from one peer. Pure.
//!
//! Every entry belongs to exactly one peer: what vouches for `berlin` is worth nothing for `tokyo`.

use std::collections::{HashMap, HashSet};

use crate::{
    domain::ids::ClusterId,
    trust::{
        Error,
        certificate::{Certificate, Fingerprint, fingerprint_text},
        crl::Crl,
    },
};

/// Everything that is trusted to speak for one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The peer.
    pub cluster: ClusterId,
    /// Leaves that are trusted by their fingerprint, whatever names they carry.
    pub pinned: Vec<Certificate>,
    /// Authorities whose leaves are trusted when one of their names is among `node_names`.
    pub anchors: Vec<Certificate>,
    /// DNS names and addresses of the peer's nodes, as the operator set them.
    pub node_names: Vec<String>,
    /// Whether the extended key usage of this peer's certificates is overlooked.
    pub ignore_eku: bool,
    /// Fingerprints of leaves that were trusted once and are remembered as revoked.
    pub revoked: Vec<Fingerprint>,
    /// What the peer's authorities have revoked.
    pub crls: Vec<Crl>,
}

/// In which role of TLS a certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// By the side that calls.
    Client,
    /// By the side that is called.
    Server,
}

impl Bundle {
    /// A bundle that accepts nothing.
    #[must_use]
    pub fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            pinned: Vec::new(),
            anchors: Vec::new(),
            node_names: Vec::new(),
            ignore_eku: false,
            revoked: Vec::new(),
            crls: Vec::new(),
        }
    }

    fn check_anchors(&self) -> Result<(), Error> {
        match self.anchors.iter().find(|anchor| !anchor.is_ca()) {
            Some(anchor) => Err(Error::NotAnAuthority {
                subject: anchor.subject().to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// A name of both, which an authority of both could vouch for.
    fn shared_name(&self, other: &Self) -> Option<&String> {
        let is_theirs = |name: &&String| {
            let mut theirs = other.node_names.iter();
            theirs.any(|their| their.eq_ignore_ascii_case(name))
        };
        self.node_names.iter().find(is_theirs)
    }
}

/// Checks a whole set of bundles: the same check before a change is stored and before it is published.
///
/// # Errors
/// [`Error::Conflict`] when a fingerprint, or a name under a shared anchor, would belong to two peers;
/// [`Error::NotAnAuthority`] and [`Error::PinnedAnchor`] when an anchor must not be one.
pub fn check(bundles: &[Bundle]) -> Result<(), Error> {
    // Each pin and each authority is looked at once: peers can have thousands.
    let mut pins: HashMap<Fingerprint, &ClusterId> = HashMap::new();
    for bundle in bundles {
        for pin in &bundle.pinned {
            let holder = pins.insert(pin.fingerprint(), &bundle.cluster);
            if let Some(first) = holder.filter(|holder| **holder != bundle.cluster) {
                return Err(conflict(pin.fingerprint_text(), first, &bundle.cluster));
            }
        }
    }
    let mut holders: HashMap<Fingerprint, Vec<&Bundle>> = HashMap::new();
    for bundle in bundles {
        bundle.check_anchors()?;
        for anchor in &bundle.anchors {
            let fingerprint = anchor.fingerprint();
            if pins.contains_key(&fingerprint) {
                let fingerprint = fingerprint_text(&fingerprint);
                return Err(Error::PinnedAnchor { fingerprint });
            }
            holders.entry(fingerprint).or_default().push(bundle);
        }
    }
    // Peers under one corporate authority share it, and mostly all of its authorities.
    let mut compared: HashSet<(&ClusterId, &ClusterId)> = HashSet::new();
    for sharing in holders.values() {
        for (at, first) in sharing.iter().enumerate() {
            for second in sharing.iter().skip(at + 1) {
                let (one, other) = (&first.cluster, &second.cluster);
                if one != other
                    && compared.insert((one, other))
                    && let Some(name) = first.shared_name(second)
                {
                    return Err(conflict(name.clone(), one, other));
                }
            }
        }
    }
    Ok(())
}

fn conflict(what: String, first: &ClusterId, second: &ClusterId) -> Error {
    Error::Conflict {
        what,
        first: first.clone(),
        second: second.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::fixtures::{Authority, Spec, bundle};

    #[test]
    fn one_fingerprint_belongs_to_one_peer() {
        let leaf = Spec::new("a.example").self_signed().certificate();
        let mut berlin = bundle("berlin");
        let mut tokyo = bundle("tokyo");
        berlin.pinned.push(leaf.clone());
        check(&[berlin.clone(), tokyo.clone()]).unwrap();
        tokyo.pinned.push(leaf);
        assert!(matches!(
            check(&[berlin, tokyo]),
            Err(Error::Conflict { .. })
        ));
    }

    #[test]
    fn a_name_under_a_shared_anchor_belongs_to_one_peer() {
        let authority = Authority::new("Corporate CA").certificate();
        let mut berlin = bundle("berlin");
        let mut tokyo = bundle("tokyo");
        berlin.anchors.push(authority.clone());
        tokyo.anchors.push(authority);
        berlin.node_names = vec!["n1.berlin.example".to_owned()];
        tokyo.node_names = vec!["n1.tokyo.example".to_owned()];
        check(&[berlin.clone(), tokyo.clone()]).unwrap();
        tokyo.node_names.push("N1.Berlin.example".to_owned());
        assert!(matches!(
            check(&[berlin, tokyo]),
            Err(Error::Conflict { .. })
        ));
    }

    #[test]
    fn an_anchor_must_be_an_authority_and_not_pinned() {
        let mut berlin = bundle("berlin");
        berlin
            .anchors
            .push(Spec::new("a.example").self_signed().certificate());
        assert!(matches!(
            check(&[berlin]),
            Err(Error::NotAnAuthority { .. })
        ));

        let tomcat = Spec::new("a.example").ca().self_signed().certificate();
        let mut berlin = bundle("berlin");
        let mut tokyo = bundle("tokyo");
        berlin.pinned.push(tomcat.clone());
        tokyo.anchors.push(tomcat);
        assert!(matches!(
            check(&[berlin, tokyo]),
            Err(Error::PinnedAnchor { .. })
        ));
    }
}
