//! Why a peer can't be reached, in words for an operator and as a kind for the caller.

use std::{error::Error as StdError, io, time::Duration};

use crate::{
    domain::{ids::ClusterId, rejection::Rejection, version::VersionRange},
    peer::link::{Failure, FailureKind},
};

/// What went wrong on the way to a peer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator has to give the peer an address.
    #[error(
        "no address is set for {cluster}; mend with: emccd cluster set {cluster} --address HOST:PORT"
    )]
    NoAddress {
        /// Which peer.
        cluster: ClusterId,
    },
    /// The operator wants no link to the peer.
    #[error("{cluster} is disabled here; mend with: emccd cluster set {cluster} --enabled true")]
    Disabled {
        /// Which peer.
        cluster: ClusterId,
    },
    /// This node can't show who it is.
    #[error(
        "this node has no valid federation identity; mend with: emccd cert show, emccd cert new"
    )]
    NoIdentity,
    /// The operator has to correct the address or the name service.
    #[error("{address}: the host name has no address")]
    Unresolved {
        /// As configured.
        address: String,
        /// The name service's words, when it had any.
        source: Option<io::Error>,
    },
    /// Only the operator may send us there.
    #[error(
        "{address}: the peer told this name, and it leads to this machine or its own network link: not dialled"
    )]
    Near {
        /// As told.
        address: String,
    },
    /// The network, or the machine there, said no.
    #[error(
        "{address}: no connection; is emccd running there, and is this its federation listener?"
    )]
    Unreachable {
        /// As configured.
        address: String,
        /// The system's words.
        source: io::Error,
    },
    /// Nothing came back.
    #[error("{address}: no answer to {step} within {} ms", waited.as_millis())]
    Silent {
        /// As configured.
        address: String,
        /// What was waited for.
        step: &'static str,
        /// For how long.
        waited: Duration,
    },
    /// We don't accept what the other side showed.
    #[error("{address}: we refuse its certificate ({rejection}): {detail}")]
    WeRefuse {
        /// As configured.
        address: String,
        /// Why.
        rejection: Rejection,
        /// What was shown, what was expected and what mends it.
        detail: String,
    },
    /// The other side doesn't accept what we showed.
    #[error("{address}: {cluster} refuses our certificate ({rejection}): {detail}")]
    PeerRefuses {
        /// As configured.
        address: String,
        /// Which peer.
        cluster: ClusterId,
        /// Why.
        rejection: Rejection,
        /// What we showed and what mends it.
        detail: String,
    },
    /// The other side is another cluster than the record says.
    #[error(
        "{address} answers as cluster {found}, not {cluster}; mend with: emccd cluster list, \
         emccd cluster set {cluster} --address HOST:PORT"
    )]
    WrongCluster {
        /// As configured.
        address: String,
        /// Whom we meant.
        cluster: ClusterId,
        /// Who answered.
        found: ClusterId,
    },
    /// The handshake failed for another reason than trust.
    #[error("{address}: the TLS handshake failed{hint}")]
    Tls {
        /// As configured.
        address: String,
        /// The reason, when it is one of the set.
        rejection: Option<Rejection>,
        /// What mends it, or nothing.
        hint: &'static str,
        /// The other words.
        source: io::Error,
    },
    /// One side has to be upgraded.
    #[error("{}", no_common_version(cluster, *ours, *theirs))]
    Incompatible {
        /// Which peer.
        cluster: ClusterId,
        /// What we speak.
        ours: VersionRange,
        /// What it speaks.
        theirs: VersionRange,
    },
    /// The peer answered something that isn't the protocol.
    #[error("{address}: {step} was answered with {what}")]
    Broken {
        /// As configured.
        address: String,
        /// What was called.
        step: &'static str,
        /// What is wrong with the answer.
        what: String,
    },
    /// The peer, or the connection, refused a call.
    #[error("{address}: {step} failed: {what}")]
    Call {
        /// As configured.
        address: String,
        /// What was called.
        step: &'static str,
        /// Whether nobody answered or somebody refused.
        kind: FailureKind,
        /// The refusal.
        what: String,
    },
    /// The peer closed the link.
    #[error("{address}: the peer ended the link")]
    Ended {
        /// As configured.
        address: String,
    },
}

impl Error {
    /// What callers and operators are told.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure {
            kind: self.kind(),
            text: one_line(&with_sources(self), LOCAL_MAX),
            rejection: self.rejection(),
            by_peer: matches!(self, Self::PeerRefuses { .. }),
        }
    }

    /// Whether somebody said no, or nobody said anything.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Silent { .. } => FailureKind::Silent,
            Self::Unreachable { source, .. } if source.kind() == io::ErrorKind::TimedOut => {
                FailureKind::Silent
            }
            Self::Call { kind, .. } => *kind,
            Self::Incompatible { .. } => FailureKind::Incompatible,
            Self::NoAddress { .. }
            | Self::Disabled { .. }
            | Self::NoIdentity
            | Self::Unresolved { .. }
            | Self::Near { .. }
            | Self::Unreachable { .. }
            | Self::WeRefuse { .. }
            | Self::PeerRefuses { .. }
            | Self::WrongCluster { .. }
            | Self::Tls { .. }
            | Self::Broken { .. }
            | Self::Ended { .. } => FailureKind::Refused,
        }
    }

    /// The reason at the door, when trust was the cause.
    #[must_use]
    pub fn rejection(&self) -> Option<Rejection> {
        match self {
            Self::WeRefuse { rejection, .. } | Self::PeerRefuses { rejection, .. } => {
                Some(*rejection)
            }
            Self::WrongCluster { .. } => Some(Rejection::WrongCluster),
            Self::Tls { rejection, .. } => *rejection,
            Self::NoAddress { .. }
            | Self::Disabled { .. }
            | Self::NoIdentity
            | Self::Unresolved { .. }
            | Self::Near { .. }
            | Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::Incompatible { .. }
            | Self::Broken { .. }
            | Self::Call { .. }
            | Self::Ended { .. } => None,
        }
    }
}

/// What is told of a peer none of whose links is up: `failures` are theirs, in the order of the addresses.
pub(super) fn all_failures(cluster: &ClusterId, failures: &[Failure]) -> Failure {
    // One node that says "no version in common", or that it has no record of us, speaks for its cluster, and a refusal
    // is a more certain thing than silence.
    let weight = |kind: FailureKind| match kind {
        FailureKind::Incompatible => 0,
        FailureKind::Unconfigured => 1,
        FailureKind::Refused => 2,
        FailureKind::Silent => 3,
    };
    let kinds = failures.iter().map(|failure| failure.kind);
    let Some(kind) = kinds.min_by_key(|kind| weight(*kind)) else {
        let cluster = cluster.clone();
        return Error::NoAddress { cluster }.failure();
    };
    let mut texts: Vec<&str> = Vec::new();
    for failure in failures {
        // Two addresses of one cluster that speaks another version have one story to tell.
        if !texts.contains(&&*failure.text) {
            texts.push(&failure.text);
        }
    }
    Failure {
        kind,
        text: one_line(&texts.join("; "), LOCAL_MAX),
        rejection: failures.iter().find_map(|failure| failure.rejection),
        by_peer: failures.iter().any(|failure| failure.by_peer),
    }
}

/// Both ranges, and which side to upgrade.
#[must_use]
pub fn no_common_version(cluster: &ClusterId, ours: VersionRange, theirs: VersionRange) -> String {
    let upgrade = if ours.max() < theirs.min() {
        "upgrade this cluster, or raise its --protocol-max".to_owned()
    } else {
        format!("upgrade {cluster}, or raise its --protocol-max")
    };
    format!(
        "no protocol version in common with {cluster}: this cluster speaks {ours}, {cluster} speaks {theirs}; {upgrade}"
    )
}

/// The error and all its sources on one line.
pub(super) fn with_sources(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let words = inner.to_string();
        // Wrappers like to repeat what they wrap.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = inner.source();
    }
    text
}

/// What this node keeps of a reason, in bytes: with several addresses each has its own, and what mends it
/// stands at the end.
const LOCAL_MAX: usize = 4096;
/// What the protocol allows of a reason, in bytes.
const WIRE_MAX: usize = 512;

/// Cuts a text that comes from a peer, or goes to one, to the length that the protocol allows a reason.
#[must_use]
pub fn bounded(text: &str) -> String {
    one_line(text, WIRE_MAX)
}

fn one_line(text: &str, most: usize) -> String {
    let mut text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.len() > most {
        let ellipsis = '…';
        let mut end = most - ellipsis.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push(ellipsis);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::version::Version;

    fn berlin() -> ClusterId {
        ClusterId::new("berlin").unwrap()
    }

    fn only(text: &str) -> VersionRange {
        let version: Version = text.parse().unwrap();
        VersionRange::new(version, version).unwrap()
    }

    #[test]
    fn no_common_version_names_both_ranges_and_the_older_side() {
        let old_us = no_common_version(&berlin(), only("1.0"), only("1.1"));
        assert!(
            old_us.contains("this cluster speaks 1.0, berlin speaks 1.1"),
            "{old_us}"
        );
        assert!(old_us.contains("upgrade this cluster"), "{old_us}");
        let old_peer = no_common_version(&berlin(), only("1.1"), only("1.0"));
        assert!(old_peer.contains("upgrade berlin"), "{old_peer}");
    }

    #[test]
    fn of_several_addresses_a_refusal_outweighs_silence() {
        let silent = || Error::Silent {
            address: "a:1".to_owned(),
            step: "the connection",
            waited: Duration::from_secs(1),
        };
        let refused = Error::Unreachable {
            address: "b:1".to_owned(),
            source: io::ErrorKind::ConnectionRefused.into(),
        };
        let told = |errors: &[Error]| {
            let failures: Vec<_> = errors.iter().map(Error::failure).collect();
            all_failures(&berlin(), &failures)
        };
        assert_eq!(told(&[silent(), silent()]).kind, FailureKind::Silent);
        let both = told(&[silent(), refused]);
        assert_eq!(both.kind, FailureKind::Refused);
        assert!(
            both.text.contains("a:1") && both.text.contains("b:1"),
            "{}",
            both.text
        );
        assert!(both.text.contains("connection refused"), "{}", both.text);
        let none = told(&[]);
        assert!(none.text.contains("no address is set"), "{}", none.text);
    }

    #[test]
    fn what_mends_it_is_kept_for_the_operator_however_long_the_reason() {
        let refused = |address: &str| {
            Error::WeRefuse {
                address: address.to_owned(),
                rejection: Rejection::UnknownIssuer,
                detail: format!("{}; mend with: emccd trust add berlin", "x".repeat(500)),
            }
            .failure()
        };
        let failure = all_failures(&berlin(), &[refused("a:1"), refused("b:1")]);
        assert!(
            failure.text.ends_with("mend with: emccd trust add berlin"),
            "{}",
            failure.text
        );
        assert_eq!(failure.rejection, Some(Rejection::UnknownIssuer));
        let endless: Vec<_> = (0..100).map(|n| refused(&format!("a:{n}"))).collect();
        assert!(all_failures(&berlin(), &endless).text.len() <= LOCAL_MAX);
    }

    #[test]
    fn a_long_or_hostile_text_is_cut_to_one_line() {
        let text = bounded(&format!("a\nb{}", "ü".repeat(600)));
        assert!(text.len() <= 512 && text.starts_with("a b") && text.ends_with('…'));
    }
}
