//! Why visiting refuses, and the one EM code that each reason has.

use std::time::Duration;

use super::Failure;
use crate::{
    admission::Refused,
    domain::{
        em_code::EmCode,
        ids::{ClusterId, DeviceName, Ref, UserId},
        refusal::{Detail, Refusal},
        security::Mismatch,
    },
    store,
};

/// When to try again what was refused for the moment only.
const RETRY: Duration = Duration::from_secs(1);

/// Why a phone does not get what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too many requests are in progress here, or the node ends.
    #[error("{0}")]
    NotAdmitted(Refused),
    /// A login on this phone is not answered yet.
    #[error("a login on {0} is still in progress")]
    LoginInProgress(DeviceName),
    /// Addresses are checked, and the caller's is on no list.
    #[error("{0} is not among the trusted-ips, and validate-ip-address is on")]
    UntrustedAddress(std::net::IpAddr),
    /// Addresses are checked, and a proxy hides the caller's.
    #[error(
        "the request came through the proxy {0}; validate-ip-address is on and allow-proxy is off"
    )]
    ThroughProxy(std::net::IpAddr),
    /// The user ID or the PIN was left empty.
    #[error("the user ID or the PIN is blank")]
    Blank,
    /// No phone of that name.
    #[error("this cluster has no such phone")]
    DeviceUnknown,
    /// Extension Mobility is off on the phone.
    #[error("Extension Mobility is not enabled on {0}")]
    DeviceDisabled(DeviceName),
    /// Somebody is on the phone.
    #[error("{user} of cluster {home} is logged in on {device}")]
    Occupied {
        /// The phone.
        device: DeviceName,
        /// Who.
        user: String,
        /// Of which cluster.
        home: ClusterId,
    },
    /// The phone can't take a user of another cluster.
    #[error("{0} does not support logins of other clusters' users")]
    NotEmccCapable(DeviceName),
    /// The phone is secure, and this cluster or home can't serve such phones.
    #[error("{mismatch}; home is cluster {home}")]
    SecurityMode {
        /// What does not go together.
        mismatch: Mismatch,
        /// The home cluster.
        home: ClusterId,
    },
    /// What was typed can't be a user's name.
    #[error("the typed name can't be a user's")]
    ImpossibleName,
    /// There is no other cluster to ask.
    #[error(
        "the user is unknown here and no peer is enabled; see `emccd cluster list`, and add one with `emccd cluster add`"
    )]
    NoPeers,
    /// A cluster without a record wants to end a session.
    #[error(
        "cluster {0} is trusted but not configured here; add it with `emccd cluster add {0} --address HOST:PORT`"
    )]
    NoRecord(ClusterId),
    /// Home is being removed from our peers.
    #[error("cluster {0} is being removed from this one's peers; no login of its users begins")]
    PeerLeaves(ClusterId),
    /// The user's home was disabled or removed here since it was found, or had asked for a choice.
    #[error(
        "cluster {0} was found to be the user's home, and is no peer of this one any more, or disabled"
    )]
    PeerGone(ClusterId),
    /// All that was accepted of the user's home was taken back since it was found.
    #[error(
        "nothing that cluster {0} shows is accepted here any more, so no PIN is sent to it; what it shall show is \
         accepted with `emccd trust add {0} --pin FILE`"
    )]
    PeerDistrusted(ClusterId),
    /// The search for the home found none; the refusal says why.
    #[error("{}", .0.cause)]
    NotLocated(Refusal),
    /// Home refused, or could not be asked.
    #[error("{}", .0.cause)]
    Home(Refusal),
    /// Home's answer came after the login had been given up.
    #[error("the answer of cluster {0} came too late; the login was given up")]
    TooLate(ClusterId),
    /// The ticket of a choice belongs to nothing that this phone was asked, or to something too long ago.
    #[error("the ticket is wrong, or too old")]
    WrongTicket,
    /// Nobody is on the phone.
    #[error("nobody is logged in on {0}")]
    NobodyLoggedIn(DeviceName),
    /// No session with that id.
    #[error("no session with that id")]
    NoSession,
    /// The work broke off: a fault of ours, which the log has.
    #[error("the work broke off")]
    Broken,
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Stopped,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] store::Error),
    /// The store took longer than the request may take. What was asked of it is carried out later, or undone.
    #[error("the store gave no answer in time; perhaps another process holds its lock file")]
    StoreSlow,
}

impl Error {
    /// The EM code.
    #[must_use]
    pub const fn em_code(&self) -> EmCode {
        match self {
            Self::NotAdmitted(_) | Self::LoginInProgress(_) | Self::Stopped => EmCode::Busy,
            Self::UntrustedAddress(_) => EmCode::UntrustedIp,
            Self::ThroughProxy(_) => EmCode::ProxyNotAllowed,
            Self::Blank => EmCode::BlankUserIdOrPin,
            Self::WrongTicket => EmCode::AuthenticationError,
            Self::Broken => EmCode::UnknownError,
            Self::DeviceUnknown => EmCode::DeviceDoesNotExist,
            Self::DeviceDisabled(_) => EmCode::DeviceLogonDisabled,
            Self::Occupied { .. } => EmCode::AnotherUserLoggedIn,
            Self::NotEmccCapable(_) => EmCode::DeviceDoesNotSupportEmcc,
            Self::SecurityMode { mismatch, .. } => mismatch.em_code(),
            Self::NoRecord(_) => EmCode::VisitingClusterUnknown,
            Self::ImpossibleName => EmCode::UserDoesNotExist,
            Self::PeerLeaves(_) | Self::PeerGone(_) => EmCode::EmccNotAllowed,
            // As it is told from then on, by the link that is cut.
            Self::PeerDistrusted(_) => EmCode::ServiceConnectionError,
            Self::NoPeers => EmCode::NoRemoteCluster,
            // The answer was lost on the way, and the session ended before it was asked for again: the clusters agree,
            // and the next attempt has an id of its own.
            Self::Home(Refusal {
                detail: Detail::SessionEnded(_),
                ..
            }) => EmCode::Busy,
            Self::NotLocated(refusal) | Self::Home(refusal) => refusal.code,
            Self::TooLate(_) => EmCode::NoResponseFromRemoteHost,
            Self::NobodyLoggedIn(_) | Self::NoSession => EmCode::NoUserLoggedIn,
            Self::Store(store::Error::Busy) | Self::StoreSlow => EmCode::Busy,
            Self::Store(_) => EmCode::DatabaseError,
        }
    }

    /// What a peer is told that asked for something here. What failed inside is for our own log.
    #[must_use]
    pub fn to_refusal(&self) -> Refusal {
        let cause = match self {
            Self::Store(store::Error::Busy) | Self::StoreSlow => {
                "the visiting cluster is busy".to_owned()
            }
            Self::Store(_) => {
                "the visiting cluster's database failed; its log has the cause".to_owned()
            }
            other => other.to_string(),
        };
        let code = self.em_code();
        let detail = if code == EmCode::Busy {
            Detail::RetryAfter(RETRY)
        } else {
            Detail::None
        };
        Refusal::new(code, cause).with_detail(detail)
    }

    /// What the edge renders.
    #[must_use]
    pub fn into_failure(self, reference: Ref) -> Failure {
        let retry_after = match &self {
            Self::NotAdmitted(refused) => Some(refused.retry_after()),
            Self::LoginInProgress(_)
            | Self::Stopped
            | Self::Store(store::Error::Busy)
            | Self::StoreSlow => Some(RETRY),
            Self::NotLocated(refusal) | Self::Home(refusal) => match refusal.detail {
                Detail::RetryAfter(after) => Some(after),
                Detail::SessionEnded(_) => Some(RETRY),
                Detail::None | Detail::IdReused | Detail::LacksLoginType | Detail::Ticket(_) => {
                    None
                }
            },
            _ => None,
        };
        let cause = match &self {
            Self::Home(refusal) | Self::NotLocated(refusal) => refusal.cause.clone(),
            other => crate::telemetry::error_chain(other),
        };
        Failure {
            code: self.em_code(),
            cause,
            reference,
            retry_after,
        }
    }

    /// The user on the phone, for the error text.
    pub(super) fn occupied(
        device: DeviceName,
        user: Option<&UserId>,
        typed: &str,
        home: ClusterId,
    ) -> Self {
        let user = user.map_or_else(|| typed.to_owned(), ToString::to_string);
        Self::Occupied { device, user, home }
    }
}

impl From<store::Error> for Error {
    fn from(source: store::Error) -> Self {
        Self::Store(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::session::EndReason;

    #[test]
    fn a_peer_is_told_the_code_and_nothing_of_what_we_are_made_of() {
        let failed = Error::Store(store::Error::Unsupported("SELECT secret")).to_refusal();
        assert_eq!(
            (failed.code, &failed.detail),
            (EmCode::DatabaseError, &Detail::None)
        );
        assert!(!failed.cause.contains("SELECT"), "{failed}");
        let busy = Error::Store(store::Error::Busy).to_refusal();
        assert_eq!(
            (busy.code, busy.detail),
            (EmCode::Busy, Detail::RetryAfter(RETRY))
        );
    }

    #[test]
    fn whose_session_ended_before_its_answer_came_is_told_to_try_again() {
        let ended = Refusal::new(EmCode::PolicyValidationError, "it has ended: superseded")
            .with_detail(Detail::SessionEnded(EndReason::Superseded));
        let failure = Error::Home(ended).into_failure(Ref::from_bits(1));
        assert_eq!(
            (failure.code, failure.retry_after),
            (EmCode::Busy, Some(RETRY))
        );
        assert!(failure.cause.contains("superseded"), "{}", failure.cause);
        let reused = Refusal::new(EmCode::PolicyValidationError, "reused");
        let failure =
            Error::Home(reused.with_detail(Detail::IdReused)).into_failure(Ref::from_bits(1));
        assert_eq!(
            (failure.code, failure.retry_after),
            (EmCode::PolicyValidationError, None)
        );
    }
}
