//! Why a pairing can't go on, in the words of whoever must act.

use crate::{
    domain::{
        ids::ClusterId,
        pairing::{InvitationId, Side, Unfit},
    },
    pairing::told::Malformed,
    store, trust,
};

/// Why a pairing was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such pairing.
    #[error("there is no invitation {id} that this cluster {}", match side { Side::Inviting => "made", Side::Joining => "was given" })]
    Missing {
        /// Our part in it.
        side: Side,
        /// Which one.
        id: InvitationId,
    },
    /// It is not where it would have to be for that.
    #[error("invitation {id} is {state}: {why}")]
    NotNow {
        /// Our part in it.
        side: Side,
        /// Which one.
        id: InvitationId,
        /// How far it has come.
        state: &'static str,
        /// What that means.
        why: String,
    },
    /// The token is past its end.
    #[error("the invitation of {cluster} has expired")]
    Expired {
        /// Who had invited.
        cluster: ClusterId,
    },
    /// Nobody has said where others reach us.
    #[error("no address is known at which another cluster reaches this one")]
    NoAddress,
    /// None of theirs is believed.
    #[error("none of the addresses that {cluster} told answers as one of its nodes")]
    NoneAnswers {
        /// Which cluster.
        cluster: String,
    },
    /// The operator read other words.
    #[error("the words differ: on this side they are `{ours}`")]
    WordsDiffer {
        /// What stands here.
        ours: String,
    },
    /// It is a peer.
    #[error("{0} is a peer already")]
    AlreadyPeer(ClusterId),
    /// The two can't be paired.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// A certificate of theirs is pinned for another peer.
    #[error("a certificate that it told is pinned for {0} already")]
    Taken(ClusterId),
    /// A certificate of theirs is another peer's already, by its authority and its names.
    #[error(
        "a certificate that it told is one of {by} by an authority that is trusted for that one: SHA-256 {fingerprint}"
    )]
    Vouched {
        /// Whose it is here.
        by: ClusterId,
        /// Which certificate.
        fingerprint: String,
    },
    /// A certificate of theirs was taken back here.
    #[error("a certificate of {cluster} was revoked here: SHA-256 {fingerprint}")]
    Revoked {
        /// Whose.
        cluster: ClusterId,
        /// Which certificate.
        fingerprint: String,
    },
    /// What they told breaks a rule.
    #[error("the other cluster told what can't be: {0}")]
    Malformed(#[from] Malformed),
    /// Nobody could be reached at any of the addresses.
    #[error("{cluster} could not be reached: {why}")]
    Unreachable {
        /// Whom.
        cluster: ClusterId,
        /// Each address with its reason.
        why: String,
    },
    /// It can be reached, and nobody may join now.
    #[error(
        "{cluster} at {address} is not open to anybody who joins: the invitation was used, taken back or has run out"
    )]
    Closed {
        /// Which cluster.
        cluster: ClusterId,
        /// Where.
        address: String,
    },
    /// Somebody else ends TLS.
    #[error(
        "{address} shows a certificate that is none of those in the invitation of {cluster}: something between ends \
         TLS, or another machine answers there (SHA-256 {shown})"
    )]
    Between {
        /// Who invited.
        cluster: ClusterId,
        /// Where.
        address: String,
        /// What is shown there.
        shown: String,
    },
    /// The other side says that the connection is not the same at both ends.
    #[error("{cluster} sees another connection than this node does: something between ends TLS")]
    Relayed {
        /// Who invited.
        cluster: ClusterId,
    },
    /// The other side does not know the secret.
    #[error("{address} could not prove that it made this invitation")]
    Impostor {
        /// Where.
        address: String,
    },
    /// The proof was not taken.
    #[error("{cluster} does not take this invitation: its secret is another one")]
    WrongSecret {
        /// Who invited.
        cluster: ClusterId,
    },
    /// It is used up, cancelled or expired over there.
    #[error("this invitation of {cluster} is not open any more")]
    NotOpen {
        /// Who invited.
        cluster: ClusterId,
    },
    /// Another cluster was first.
    #[error("this invitation of {cluster} was used already, by whoever showed another certificate")]
    Used {
        /// Who invited.
        cluster: ClusterId,
    },
    /// The other side refused or failed.
    #[error("{cluster} refused: {why}")]
    Refused {
        /// Who.
        cluster: ClusterId,
        /// In its own words.
        why: String,
    },
    /// The trust would not be one.
    #[error(transparent)]
    Trust(#[from] trust::Error),
    /// The store.
    #[error("the database refuses")]
    Store(#[source] store::Error),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::FingerprintTaken(cluster) => Self::Taken(cluster),
            other => Self::Store(other),
        }
    }
}

impl From<trust::stored::Error> for Error {
    fn from(error: trust::stored::Error) -> Self {
        match error {
            trust::stored::Error::Store(error) => error.into(),
            trust::stored::Error::Trust(error) => Self::Trust(error),
        }
    }
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn next(&self) -> String {
        const ANEW: &str = "ask the other operator for a new invitation: emccd cluster invite";
        match self {
            Self::Missing { side, .. } | Self::NotNow { side, .. } => {
                format!("{} --list shows what there is", side.command())
            }
            Self::NoAddress => "name one with --address HOST:PORT, or set federation.advertise in \
                 the configuration of each node"
                .to_owned(),
            Self::NoneAnswers { .. } => "open the way to its nodes, or have its operator name the \
                 right addresses with --address HOST:PORT, and begin anew: cancel this with --cancel ID"
                .to_owned(),
            Self::WordsDiffer { .. } => "ask the other operator to read the words again; if they \
                 are others, somebody else is there: end it with --cancel ID"
                .to_owned(),
            Self::AlreadyPeer(cluster) => format!(
                "add its certificates to what is trusted with --update, or see emccd trust list {cluster}"
            ),
            Self::Unfit(Unfit::Ourselves(_)) => {
                "run emccd cluster join on the other cluster".to_owned()
            }
            Self::Unfit(Unfit::Unproven { .. }) => {
                "have its operator look whether that node runs, and put the same version on all \
                 of its nodes; then begin anew with a new invitation: emccd cluster invite"
                    .to_owned()
            }
            Self::Vouched { by, .. } => format!(
                "see emccd trust list {by}: let the names of its nodes stand for no others \
                 (emccd cluster set {by} --node-name NAME), or have the new cluster show another certificate"
            ),
            Self::Revoked {
                cluster,
                fingerprint,
            } => format!(
                "find out why; when it may be trusted again, type emccd trust add {cluster} \
                 --unrevoke {fingerprint} and confirm once more"
            ),
            Self::Unfit(_) | Self::Malformed(_) => {
                "have its operator look at emccd cert show there".to_owned()
            }
            Self::Taken(cluster) => format!("look at emccd trust list {cluster}"),
            Self::Unreachable { .. } => "check the addresses, the firewalls and that its daemon runs, \
                 then try again with the same invitation"
                .to_owned(),
            Self::Between { .. } | Self::Relayed { .. } => "find what ends TLS on the way (a proxy, \
                 a firewall that inspects) and take the connection around it; then ask for a new invitation"
                .to_owned(),
            Self::Impostor { .. }
            | Self::Expired { .. }
            | Self::Closed { .. }
            | Self::NotOpen { .. } => ANEW.to_owned(),
            Self::WrongSecret { .. } => {
                "paste the invitation again, whole; or ask for a new one".to_owned()
            }
            Self::Used { .. } => "somebody else may have the invitation: tell the other operator, \
                 who must not confirm, and ask for a new one"
                .to_owned(),
            Self::Refused { .. } => "ask the other operator what emccd cluster invite --list shows".to_owned(),
            Self::Trust(_) => "see who has it: emccd trust list".to_owned(),
            Self::Store(_) => "look at the daemon's log".to_owned(),
        }
    }
}
