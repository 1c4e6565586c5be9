//! What the edges ask of the visiting role, and what it answers. Pure.

use std::{fmt, net::IpAddr, time::Duration};

use crate::{
    domain::{
        em_code::EmCode,
        ids::{ClusterId, ProfileName, Ref, UserId},
        login::{HomeServices, LoginType},
    },
    secret::{Pin, Ticket},
};

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The address at the other end of the connection.
    pub address: IpAddr,
    /// Whether a `Via` header says that a proxy stands between.
    pub via: bool,
}

/// Who is on a phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PhoneState {
    /// A login is under way and not yet decided.
    Busy,
    /// Somebody is logged in.
    LoggedIn {
        /// Who.
        user: UserId,
        /// The cluster that owns them.
        home: ClusterId,
    },
    /// Nobody.
    Nobody,
}

/// A submission of the login form.
#[derive(Clone, Debug)]
pub struct PhoneLogin {
    /// The phone's name as it came.
    pub device: String,
    /// What kind of name was typed.
    pub login_type: LoginType,
    /// The name as typed.
    pub name: String,
    /// The PIN as typed; none when it was left blank.
    pub pin: Option<Pin>,
    /// Whether the phone says that it can log in across clusters.
    pub emcc: bool,
    /// Where it came from.
    pub caller: Caller,
    /// The id of this attempt.
    pub reference: Ref,
}

/// A submission of the page that asks which device profile it shall be.
#[derive(Clone, Debug)]
pub struct PhoneChoice {
    /// The phone's name as it came.
    pub device: String,
    /// What home gave for the PIN; none when what came can't be one.
    pub ticket: Option<Ticket>,
    /// Which of the profiles, from 0.
    pub entry: usize,
    /// Whether the phone says that it can log in across clusters.
    pub emcc: bool,
    /// Where it came from.
    pub caller: Caller,
    /// The id of this attempt.
    pub reference: Ref,
}

/// What came of a login that was not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginOutcome {
    /// The user is on the phone.
    LoggedIn(Box<LoggedIn>),
    /// Nobody is: the user has to choose first.
    Choose(Choice),
}

impl From<LoggedIn> for LoginOutcome {
    fn from(done: LoggedIn) -> Self {
        Self::LoggedIn(Box::new(done))
    }
}

/// What the user has to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The device profiles, in the order in which a [`PhoneChoice`] counts them.
    pub profiles: Vec<ProfileName>,
    /// To be brought back with the choice.
    pub ticket: Ticket,
    /// The id of the attempt.
    pub reference: Ref,
}

/// A login that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedIn {
    /// The user at home, whatever was typed.
    pub user_id: UserId,
    /// The cluster that owns them; our own for a local login.
    pub home: ClusterId,
    /// The device profile in use.
    pub profile: ProfileName,
    /// What the phone gets from home.
    pub services: HomeServices,
    /// The id of the attempt.
    pub reference: Ref,
}

/// A logout that succeeded here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedOut {
    /// Who was on the phone.
    pub user: UserId,
    /// The cluster that owns them.
    pub home: ClusterId,
    /// Whether home has recorded the end too; otherwise it is owed and delivered later.
    pub acknowledged: bool,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the phone shows.
    pub code: EmCode,
    /// What the operator reads: one sentence without secrets.
    pub cause: String,
    /// The id of the attempt.
    pub reference: Ref,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EM code {}: {}", self.code.number(), self.cause)
    }
}

impl std::error::Error for Failure {}
