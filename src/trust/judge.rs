//! Which one peer a presented chain speaks for, or why none. Pure: the rustls verifiers and the listener only
//! forward to it, and it can be asked again whenever trust or time has moved on.
//!
//! That the other side holds the leaf's key is proven by the handshake, not here.

use rustls_pki_types::CertificateDer;

use crate::{
    clock::Timestamp,
    domain::{ids::ClusterId, rejection::Rejection},
    trust::{
        bundle::{Bundle, Direction},
        certificate::Certificate,
        crl::{self, Crl},
        mend::mend,
        path::{Path, Presented, Revocation, in_time},
    },
};

/// The judgement on a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It speaks for this peer and no other.
    Peer(ClusterId),
    /// It speaks for nobody.
    Rejected {
        /// The reason, which both sides are told.
        rejection: Rejection,
        /// The leaf, when there is one that can be read.
        certificate: Option<Certificate>,
        /// What would have been accepted; for our own log only, since it names peers and names.
        expectation: String,
        /// What the operator can type.
        mend: String,
    },
}

impl Verdict {
    /// The peer that was identified.
    #[must_use]
    pub fn peer(&self) -> Option<&ClusterId> {
        match self {
            Self::Peer(cluster) => Some(cluster),
            Self::Rejected { .. } => None,
        }
    }

    /// The reason why none was.
    #[must_use]
    pub fn rejection(&self) -> Option<Rejection> {
        match self {
            Self::Peer(_) => None,
            Self::Rejected { rejection, .. } => Some(*rejection),
        }
    }

    /// Whether both say the same about the other side: the same peer, or the same reason.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.peer() == other.peer() && self.rejection() == other.rejection()
    }

    /// A rejection with the command that mends it.
    #[must_use]
    pub fn rejected(
        rejection: Rejection,
        certificate: Option<Certificate>,
        expectation: impl Into<String>,
        cluster: Option<&ClusterId>,
    ) -> Self {
        let mend = mend(rejection, cluster);
        Self::Rejected {
            rejection,
            certificate,
            expectation: expectation.into(),
            mend,
        }
    }
}

/// Judges a chain against everything we trust.
#[must_use]
pub fn judge(
    bundles: &[Bundle],
    chain: &[CertificateDer<'_>],
    direction: Direction,
    now: Timestamp,
) -> Verdict {
    let Some(mut presented) = Presented::new(chain) else {
        return unreadable(chain, direction);
    };
    let mut accepting: Vec<&ClusterId> = Vec::new();
    let mut nearest: Option<Objection> = None;
    let mut lost: Option<Objection> = None;
    for bundle in bundles {
        match assess(bundle, &mut presented, direction, now) {
            Ok(()) if accepting.contains(&&bundle.cluster) => {}
            Ok(()) => accepting.push(&bundle.cluster),
            Err(objection) if objection.rejection == Rejection::Revoked => {
                // What its authority has revoked was accepted but for that.
                if objection.by_list.is_some()
                    || vouched(bundle, &mut presented, direction, now).is_ok()
                {
                    lost = Some(objection);
                } else {
                    nearest.get_or_insert(objection);
                }
            }
            // Which peer an unknown certificate should have been of, nobody can tell.
            Err(objection) if objection.nearness == Nearness::Unrelated => {}
            Err(objection) => {
                if nearest
                    .as_ref()
                    .is_none_or(|n| n.nearness < objection.nearness)
                {
                    nearest = Some(objection);
                }
            }
        }
    }
    // A revocation counts for its own peer alone. But one who was two peers by its names is not the other one by
    // losing the first; only a pin, which names this very leaf, makes it so.
    let is_pinned = |bundle: &Bundle| bundle.pinned.contains(&presented.leaf);
    if let Some(objection) = lost
        && !bundles
            .iter()
            .any(|bundle| accepting.contains(&&bundle.cluster) && is_pinned(bundle))
    {
        return objection.into_verdict(&presented.leaf);
    }
    match accepting.as_slice() {
        [] => nearest.map_or_else(
            || unknown(&presented.leaf, None),
            |o| o.into_verdict(&presented.leaf),
        ),
        [one] => Verdict::Peer((*one).clone()),
        [first, second, ..] => Verdict::rejected(
            Rejection::Ambiguous,
            Some(presented.leaf.clone()),
            format!("entries of one peer only; those of {first} and of {second} accept it"),
            Some(first),
        ),
    }
}

/// Judges a chain against what we trust for one peer, as if there were no other.
#[must_use]
pub fn judge_for(
    bundle: &Bundle,
    chain: &[CertificateDer<'_>],
    direction: Direction,
    now: Timestamp,
) -> Verdict {
    let Some(mut presented) = Presented::new(chain) else {
        return unreadable(chain, direction);
    };
    match assess(bundle, &mut presented, direction, now) {
        Ok(()) => Verdict::Peer(bundle.cluster.clone()),
        Err(objection) => objection.into_verdict(&presented.leaf),
    }
}

/// Judges the chain of a server that we dialled as `wanted`: it must be that peer, and no other as well.
#[must_use]
pub fn judge_dialled(
    bundles: &[Bundle],
    wanted: &ClusterId,
    chain: &[CertificateDer<'_>],
    now: Timestamp,
) -> Verdict {
    judge_as(bundles, wanted, chain, Direction::Server, now)
}

/// Judges a chain that must be that of `wanted`, and of no other peer as well.
#[must_use]
pub fn judge_as(
    bundles: &[Bundle],
    wanted: &ClusterId,
    chain: &[CertificateDer<'_>],
    direction: Direction,
    now: Timestamp,
) -> Verdict {
    let overall = judge(bundles, chain, direction, now);
    match &overall {
        Verdict::Peer(found) if found == wanted => overall,
        Verdict::Peer(found) => Verdict::rejected(
            Rejection::WrongCluster,
            Presented::new(chain).map(|presented| presented.leaf),
            format!("a certificate of {wanted}; this one is trusted for {found}"),
            Some(wanted),
        ),
        Verdict::Rejected {
            rejection: Rejection::Ambiguous,
            ..
        } => overall,
        // The reason of the peer that was meant is worth more than that of another one.
        Verdict::Rejected { .. } => match bundles.iter().find(|bundle| bundle.cluster == *wanted) {
            Some(bundle) => match judge_for(bundle, chain, direction, now) {
                // Alone it would do, but what another peer's bundle says of it counts more.
                Verdict::Peer(_) => overall,
                reason @ Verdict::Rejected { .. } => reason,
            },
            None => match Presented::new(chain) {
                Some(presented) => unknown(&presented.leaf, Some(wanted)),
                None => overall,
            },
        },
    }
}

/// Why one peer's bundle does not accept a chain.
pub(super) struct Objection {
    pub(super) rejection: Rejection,
    pub(super) nearness: Nearness,
    pub(super) expectation: String,
    cluster: ClusterId,
    /// What a revocation list says, where that is what it is for.
    pub(super) by_list: Option<ByList>,
}

/// What is said by a list.
pub(super) struct ByList {
    /// What was found.
    pub(super) found: String,
    /// What mends it, which is not what mends a revocation by hand.
    mend: String,
}

/// How much a chain has to do with a peer: of several objections the nearest is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nearness {
    /// Nothing of this peer vouches for it.
    Unrelated,
    /// An anchor vouches for it, but its names are others.
    OtherName,
    /// An anchor vouches for it, and its names are the peer's.
    OwnName,
    /// The leaf itself is listed.
    Listed,
}

impl Objection {
    fn new(bundle: &Bundle, rejection: Rejection, nearness: Nearness, expectation: String) -> Self {
        Self {
            rejection,
            nearness,
            expectation,
            cluster: bundle.cluster.clone(),
            by_list: None,
        }
    }

    fn into_verdict(self, leaf: &Certificate) -> Verdict {
        match (self.nearness, self.by_list) {
            (Nearness::Unrelated, _) => unknown(leaf, Some(&self.cluster)),
            (_, Some(by_list)) => Verdict::Rejected {
                rejection: self.rejection,
                certificate: Some(leaf.clone()),
                expectation: self.expectation,
                mend: by_list.mend,
            },
            (_, None) => {
                let leaf = Some(leaf.clone());
                Verdict::rejected(self.rejection, leaf, self.expectation, Some(&self.cluster))
            }
        }
    }
}

fn revoked(bundle: &Bundle, leaf: &Certificate) -> Option<Objection> {
    if !bundle.revoked.contains(&leaf.fingerprint()) {
        return None;
    }
    let expectation = format!(
        "another certificate of {}: this one was revoked",
        bundle.cluster
    );
    Some(Objection::new(
        bundle,
        Rejection::Revoked,
        Nearness::Listed,
        expectation,
    ))
}

/// What one peer's bundle says of a chain.
pub(super) fn assess(
    bundle: &Bundle,
    presented: &mut Presented,
    direction: Direction,
    now: Timestamp,
) -> Result<(), Objection> {
    match revoked(bundle, &presented.leaf) {
        Some(objection) => Err(objection),
        None => vouched(bundle, presented, direction, now),
    }
}

/// The same, whatever was revoked.
fn vouched(
    bundle: &Bundle,
    presented: &mut Presented,
    direction: Direction,
    now: Timestamp,
) -> Result<(), Objection> {
    if bundle.pinned.contains(&presented.leaf) {
        return assess_pinned(bundle, &presented.leaf, direction, now);
    }
    if bundle.anchors.contains(&presented.leaf) {
        let expectation =
            "a leaf; this certificate is an anchor here, and to be shown itself it must be pinned"
                .to_owned();
        return Err(Objection::new(
            bundle,
            Rejection::UnknownIssuer,
            Nearness::Listed,
            expectation,
        ));
    }
    let mut nearest: Option<Objection> = None;
    for anchor in &bundle.anchors {
        let path = presented.path_to(anchor, direction, now);
        let assessed = assess_path(bundle, anchor, &presented.leaf, path, direction)
            .and_then(|()| assess_lists(bundle, anchor, presented, now));
        match assessed {
            Ok(()) => return Ok(()),
            Err(objection) => {
                if nearest
                    .as_ref()
                    .is_none_or(|n| n.nearness < objection.nearness)
                {
                    nearest = Some(objection);
                }
            }
        }
    }
    Err(nearest.unwrap_or_else(|| unrelated(bundle)))
}

/// The fingerprint has decided; dates always count, and the usage where it is stated.
fn assess_pinned(
    bundle: &Bundle,
    leaf: &Certificate,
    direction: Direction,
    now: Timestamp,
) -> Result<(), Objection> {
    let (rejection, expectation) = match in_time(leaf, now) {
        Path::Expired => (Rejection::Expired, dates(leaf)),
        Path::NotYetValid => (Rejection::NotYetValid, dates(leaf)),
        _ if bundle.ignore_eku || allows(leaf, direction) => return Ok(()),
        _ => (Rejection::WrongEku, usage(direction)),
    };
    Err(Objection::new(
        bundle,
        rejection,
        Nearness::Listed,
        expectation,
    ))
}

/// What one anchor of a bundle says of a leaf whose chain stands to it as `path` tells.
pub(super) fn assess_path(
    bundle: &Bundle,
    anchor: &Certificate,
    leaf: &Certificate,
    path: Path,
    direction: Direction,
) -> Result<(), Objection> {
    let is_named = bundle.node_names.iter().any(|wanted| leaf.is_for(wanted));
    let (rejection, expectation) = match path {
        Path::None => return Err(unrelated(bundle)),
        Path::Expired => (Rejection::Expired, chain_dates(leaf, anchor)),
        Path::NotYetValid => (Rejection::NotYetValid, chain_dates(leaf, anchor)),
        Path::WrongEku if !bundle.ignore_eku => (Rejection::WrongEku, usage(direction)),
        Path::WrongEku | Path::Valid if is_named => return Ok(()),
        Path::WrongEku | Path::Valid => (Rejection::WrongName, wanted_names(bundle, leaf)),
    };
    let nearness = if is_named {
        Nearness::OwnName
    } else {
        Nearness::OtherName
    };
    Err(Objection::new(bundle, rejection, nearness, expectation))
}

/// Of a chain that is accepted: what the lists of the peer's authorities say of it.
pub(super) fn assess_lists(
    bundle: &Bundle,
    anchor: &Certificate,
    presented: &Presented,
    now: Timestamp,
) -> Result<(), Objection> {
    let cluster = &bundle.cluster;
    let (expectation, found, mend) = match presented.revocation(anchor, &bundle.crls, now) {
        None => return Ok(()),
        Some(Revocation::Listed(by)) => {
            let (expectation, found) = listed(by);
            (expectation, found, crl::mend_listed(cluster))
        }
        Some(Revocation::Stale(crl)) => (
            crl.stale_text(),
            format!(
                "no list revokes it, but that of its authority is strict and stale: number {} of {}, the next one was due \
                 at {}",
                crl.number(),
                crl.issuer().subject(),
                crl.next_update()
            ),
            crl::mend_stale(cluster),
        ),
    };
    let (rejection, nearness) = (Rejection::Revoked, Nearness::OwnName);
    Err(Objection {
        by_list: Some(ByList { found, mend }),
        ..Objection::new(bundle, rejection, nearness, expectation)
    })
}

/// What was expected, and what was found.
fn listed(by: Option<(&Crl, Certificate)>) -> (String, String) {
    let Some((crl, certificate)) = by else {
        let found = "the lists of its authorities can't be used";
        return (
            format!("a chain whose revocation can be looked up; {found}"),
            found.to_owned(),
        );
    };
    let found = format!(
        "the list number {} of {} has {} ({})",
        crl.number(),
        crl.issuer().subject(),
        certificate.subject(),
        certificate.fingerprint_text()
    );
    (
        format!("a chain that its authorities have not revoked: {found}"),
        found,
    )
}

fn unrelated(bundle: &Bundle) -> Objection {
    Objection::new(
        bundle,
        Rejection::UnknownIssuer,
        Nearness::Unrelated,
        String::new(),
    )
}

fn unknown(leaf: &Certificate, cluster: Option<&ClusterId>) -> Verdict {
    let expectation = format!(
        "a certificate that is pinned, or issued by an anchor; this one says that its issuer is {}",
        leaf.issuer()
    );
    Verdict::rejected(
        Rejection::UnknownIssuer,
        Some(leaf.clone()),
        expectation,
        cluster,
    )
}

fn unreadable(chain: &[CertificateDer<'_>], direction: Direction) -> Verdict {
    if chain.is_empty() && direction == Direction::Client {
        let expectation = "a client certificate; none was shown";
        return Verdict::rejected(Rejection::NoClientCertificate, None, expectation, None);
    }
    Verdict::rejected(
        Rejection::UnknownIssuer,
        None,
        "a certificate that can be read",
        None,
    )
}

pub(super) fn allows(leaf: &Certificate, direction: Direction) -> bool {
    leaf.usages().is_none_or(|usages| match direction {
        Direction::Client => usages.client,
        Direction::Server => usages.server,
    })
}

fn usage(direction: Direction) -> String {
    match direction {
        Direction::Client => "an extended key usage with clientAuth, or none at all".to_owned(),
        Direction::Server => "an extended key usage with serverAuth, or none at all".to_owned(),
    }
}

fn dates(leaf: &Certificate) -> String {
    format!(
        "one that is valid by this node's clock; this one is valid from {} to {}",
        leaf.not_before(),
        leaf.not_after()
    )
}

fn chain_dates(leaf: &Certificate, anchor: &Certificate) -> String {
    let anchor_dates = format!(
        "its issuer {} from {} to {}",
        anchor.subject(),
        anchor.not_before(),
        anchor.not_after()
    );
    format!("{}, {anchor_dates}", dates(leaf))
}

fn wanted_names(bundle: &Bundle, leaf: &Certificate) -> String {
    let shown: Vec<String> = leaf
        .names()
        .iter()
        .take(8)
        .map(ToString::to_string)
        .collect();
    let shown = if shown.is_empty() {
        "none".to_owned()
    } else {
        shown.join(", ")
    };
    let cluster = &bundle.cluster;
    if bundle.node_names.is_empty() {
        return format!("a node name of {cluster}, but none is set; it carries {shown}");
    }
    format!(
        "one of the node names of {cluster} ({}); it carries {shown}",
        bundle.node_names.join(", ")
    )
}

#[cfg(test)]
mod tests;
