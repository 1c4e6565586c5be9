//! Why home refuses, and the one EM code that each reason has.

use std::time::Duration;

use crate::{
    admission::Refused,
    clock::Timestamp,
    domain::{
        em_code::EmCode,
        ids::{ClusterId, DeviceName, UserId},
        refusal::{Detail, Refusal},
        security,
        session::EndReason,
    },
    secret::Ticket,
    store,
};

/// When to try again what nothing better is known of.
const RETRY: Duration = Duration::from_secs(1);

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller has no record here: its trust is known, but nobody configured it.
    #[error(
        "cluster {0} is trusted but not configured here; add it with `emccd cluster add {0} --address HOST:PORT`"
    )]
    CallerUnknown(ClusterId),
    /// The caller is configured, but disabled or not allowed to log users in.
    #[error(
        "cluster {0} is not allowed to log users in here; allow it with `emccd cluster set {0} --enabled true --allow-emcc true`"
    )]
    CallerNotAllowed(ClusterId),
    /// What the caller is known by, or all that was accepted of it, was taken back while it was connected.
    #[error(
        "what cluster {0} shows is not accepted here any more; what it shall show is accepted with \
         `emccd trust add {0} --pin FILE`"
    )]
    CallerDistrusted(ClusterId),
    /// No user has that name.
    #[error("no user here has that name")]
    UserUnknown,
    /// The same, where that is not to be told from a wrong PIN.
    #[error("no user here has that name; answered as a wrong PIN")]
    UserHidden,
    /// Several users have that primary extension.
    #[error("that primary extension belongs to several users here")]
    SeveralUsers,
    /// The PIN is wrong, or there is none.
    #[error("wrong PIN for user {user} ({failures} counted{})", now_locked(*.locked))]
    WrongPin {
        /// Whose.
        user: UserId,
        /// How many failures are counted now.
        failures: u32,
        /// Until when the user is locked from now on, if this was the last failure that was allowed.
        locked: Option<Timestamp>,
    },
    /// The user is locked after too many wrong PINs.
    #[error("user {user} is locked until {until} after too many wrong PINs")]
    Locked {
        /// Whose.
        user: UserId,
        /// Until when.
        until: Timestamp,
    },
    /// The user is disabled.
    #[error("user {0} is disabled")]
    Disabled(UserId),
    /// A ticket that was never given out, was used before or is too old.
    #[error("wrong, used or expired ticket for user {0}")]
    WrongTicket(UserId),
    /// The PIN is right but has to be changed first.
    #[error("user {user} must change the PIN before the next login")]
    MustChangePin {
        /// Whose.
        user: UserId,
        /// Good for changing it, once.
        ticket: Ticket,
    },
    /// The user may not use phones of other clusters.
    #[error("user {0} is not enabled for EMCC")]
    EmccOff(UserId),
    /// The user has no device profile, or not the one that was chosen.
    #[error("user {0} has no such device profile")]
    NoProfile(UserId),
    /// The user is on another phone, and the policy lets them have one; or that phone's cluster can't be told to let
    /// them go.
    #[error("user {user} is on {device} of cluster {cluster}")]
    LoggedInElsewhere {
        /// Who.
        user: UserId,
        /// Where.
        device: DeviceName,
        /// Whose phone that is.
        cluster: ClusterId,
    },
    /// The phone's name is in use here already.
    #[error("device name {0} exists in this cluster, or is in use here for another one")]
    DuplicateDevice(DeviceName),
    /// The security modes of the phone and of both clusters don't go together.
    #[error("{0}")]
    SecurityMode(security::Mismatch),
    /// Every base device is held by a session.
    #[error("no EMCC base device is free; add some with `emccd apply`")]
    NoBaseDevice,
    /// The id was used before with other fields.
    #[error("the session id was used before with other fields")]
    IdReused,
    /// The session with this id is over.
    #[error("the session with this id has ended ({0})")]
    SessionEnded(EndReason),
    /// No session with that id.
    #[error("no session with that id")]
    NoSession,
    /// What an earlier attempt with this id was refused with.
    #[error("{}", .0.cause)]
    Repeated(Refusal),
    /// Too much is waiting.
    #[error("PIN checks are busy")]
    Busy(Duration),
    /// Too many logins of other clusters are in progress here.
    #[error("logins of other clusters are busy: {0}")]
    NotAdmitted(Refused),
    /// PINs can't be checked: the operator must act.
    #[error("the PIN could not be checked")]
    Credentials(#[source] crate::credentials::Error),
    /// The user's row changed while the PIN was checked, again and again.
    #[error("the user's record kept changing while the PIN was checked")]
    Contended,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] store::Error),
    /// Something that we hold can't be read as what it must be.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
}

/// What the last failure that was allowed has done; nothing for any other.
fn now_locked(until: Option<Timestamp>) -> String {
    until.map_or_else(String::new, |until| format!("; locked until {until}"))
}

impl Error {
    /// Whether the caller is none that may ask, whatever it asked.
    #[must_use]
    pub const fn is_admission(&self) -> bool {
        matches!(
            self,
            Self::CallerUnknown(_) | Self::CallerNotAllowed(_) | Self::CallerDistrusted(_)
        )
    }

    /// The EM code, which for a local login differs where the documents have two codes for one thing.
    #[must_use]
    pub const fn em_code(&self, local: bool) -> EmCode {
        match self {
            Self::CallerUnknown(_) => EmCode::VisitingClusterUnknown,
            Self::CallerNotAllowed(_) | Self::CallerDistrusted(_) => EmCode::EmccNotAllowed,
            Self::UserUnknown => EmCode::UserDoesNotExist,
            Self::SeveralUsers if local => EmCode::DnHasMultipleUsers,
            Self::SeveralUsers => EmCode::DnHasMultipleUsersRemote,
            Self::WrongPin { .. }
            | Self::UserHidden
            | Self::Locked { .. }
            | Self::Disabled(_)
            | Self::WrongTicket(_)
                if local =>
            {
                EmCode::AuthenticationError
            }
            Self::WrongPin { .. }
            | Self::UserHidden
            | Self::Locked { .. }
            | Self::Disabled(_)
            | Self::WrongTicket(_) => EmCode::EmccAuthenticationError,
            Self::MustChangePin { .. } if local => EmCode::ChangePin,
            Self::MustChangePin { .. } => EmCode::PinChangeRequired,
            Self::SecurityMode(mismatch) => mismatch.em_code(),
            Self::EmccOff(_) => EmCode::EmccNotActivatedForUser,
            Self::NoProfile(_) if local => EmCode::UserProfileAbsent,
            Self::NoProfile(_) => EmCode::DeviceProfileNotFound,
            Self::LoggedInElsewhere { .. } => EmCode::UserLoggedInElsewhere,
            Self::DuplicateDevice(_) => EmCode::DuplicateDeviceName,
            Self::NoBaseDevice => EmCode::NoFreeBaseDevice,
            Self::IdReused => EmCode::PolicyValidationError,
            Self::SessionEnded(_) => EmCode::PolicyValidationError,
            Self::NoSession => EmCode::NoUserLoggedIn,
            Self::Repeated(refusal) => refusal.code,
            Self::Busy(_) | Self::NotAdmitted(_) | Self::Contended => EmCode::Busy,
            Self::Store(store::Error::Busy) => EmCode::Busy,
            Self::Credentials(_) | Self::Store(_) | Self::Damaged(_) => EmCode::DatabaseError,
        }
    }

    /// The refusal that a caller gets. Causes within one class read alike for a peer: that a user is locked or
    /// disabled is for our own log and audit.
    #[must_use]
    pub fn to_refusal(&self, local: bool) -> Refusal {
        if let Self::Repeated(refusal) = self {
            return refusal.clone();
        }
        let code = self.em_code(local);
        let cause = match self {
            Self::WrongPin { .. }
            | Self::UserHidden
            | Self::Locked { .. }
            | Self::Disabled(_)
            | Self::WrongTicket(_) => {
                "the home cluster did not accept the user ID and PIN".to_owned()
            }
            Self::MustChangePin { .. } => {
                "the PIN must be changed before the next login".to_owned()
            }
            Self::LoggedInElsewhere { .. } => "the user is on another phone".to_owned(),
            Self::EmccOff(_) => "the user is not enabled for EMCC at home".to_owned(),
            Self::NoProfile(_) => "the user has no such device profile at home".to_owned(),
            Self::Contended | Self::Store(store::Error::Busy) => {
                "the home cluster is busy".to_owned()
            }
            Self::Credentials(_) | Self::Store(_) | Self::Damaged(_) => {
                "the cluster's database or credential store failed; its log has the cause"
                    .to_owned()
            }
            _ => self.to_string(),
        };
        let detail = match self {
            Self::IdReused => Detail::IdReused,
            Self::MustChangePin { ticket, .. } => Detail::Ticket(ticket.clone()),
            Self::SessionEnded(reason) => Detail::SessionEnded(*reason),
            Self::Busy(after) => Detail::RetryAfter(*after),
            Self::NotAdmitted(refused) => Detail::RetryAfter(refused.retry_after()),
            Self::Contended | Self::Store(store::Error::Busy) => Detail::RetryAfter(RETRY),
            _ => Detail::None,
        };
        Refusal::new(code, cause).with_detail(detail)
    }

    /// Whether the answer is kept under the session's id, so that a repeat gets it again. A caller that is no peer gets
    /// no row of ours: it could fill the disk.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        !matches!(
            self,
            Self::Busy(_)
                | Self::CallerUnknown(_)
                | Self::NotAdmitted(_)
                | Self::Contended
                | Self::Credentials(_)
                | Self::Damaged(_)
                | Self::IdReused
                | Self::NoBaseDevice
                | Self::Repeated(_)
                | Self::SessionEnded(_)
                | Self::Store(_)
        )
    }
}
