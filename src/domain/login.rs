//! What a visiting cluster asks of a home cluster, and what it answers. Pure.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    net::IpAddr,
    pin::Pin as BoxPin,
    str::FromStr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    domain::{
        capability::Traits,
        ids::{
            BaseDeviceName, ClusterId, DeviceName, DevicePoolName, LoginName, ProfileName, Ref,
            ServiceName, SessionId, UserId,
        },
        refusal::Refusal,
        session::{EndReason, Initiator},
    },
    secret::{Pin, Ticket},
};

/// How long a ticket is good for.
pub const TICKET_LIFE: Duration = Duration::from_secs(120);

/// The most profiles that a user is asked to choose from: what a phone's menu holds.
pub const MAX_CHOICES: usize = 100;

/// What kind of name the user typed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum LoginType {
    /// User ID.
    #[default]
    #[serde(rename = "UID")]
    Uid,
    /// Self-service user ID.
    #[serde(rename = "SP")]
    SelfService,
    /// Primary extension.
    #[serde(rename = "DN")]
    Extension,
}

impl LoginType {
    /// The three, in the order of the documents.
    pub const ALL: [Self; 3] = [Self::Uid, Self::SelfService, Self::Extension];

    /// As it stands in a phone's service URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uid => "UID",
            Self::SelfService => "SP",
            Self::Extension => "DN",
        }
    }
}

impl fmt::Display for LoginType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A login type that is none of `UID`, `SP`, `DN`: EM code 215.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the login type is none of UID, SP, DN")]
pub struct UnknownLoginType;

impl FromStr for LoginType {
    type Err = UnknownLoginType;
    fn from_str(text: &str) -> Result<Self, UnknownLoginType> {
        Self::ALL
            .into_iter()
            .find(|t| t.as_str() == text)
            .ok_or(UnknownLoginType)
    }
}

/// Security mode of a cluster or a phone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecurityMode {
    /// Signalling is not encrypted.
    #[default]
    NonSecure,
    /// A cluster in mixed mode; a phone with authenticated or encrypted signalling.
    Secure,
}

impl SecurityMode {
    /// The word in the configuration and in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NonSecure => "non-secure",
            Self::Secure => "secure",
        }
    }
}

/// Is this name a user of yours? It carries no PIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindUser {
    /// What kind of name it is.
    pub login_type: LoginType,
    /// The name as typed.
    pub name: LoginName,
}

/// The answer to [`FindUser`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Exactly one such user lives there.
    Mine,
    /// No such user lives there.
    NotMine,
    /// The extension is the primary one of several users there.
    SeveralUsers,
}

/// What proves that the user is who they say.
#[derive(Clone, Debug)]
pub enum Proof {
    /// It has been checked, or is not needed: the PIN stays in memory no longer than its check.
    Gone,
    /// The PIN as typed.
    Pin(Pin),
    /// What home gave for a PIN that was right, so that it isn't sent again.
    Ticket(Ticket),
}

/// What home is told about the phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its name.
    pub name: DeviceName,
    /// Its model, at most 64 bytes.
    pub model: String,
    /// `SIP` or `SCCP`.
    pub protocol: String,
    /// Whether its signalling is secure.
    pub security_mode: SecurityMode,
    /// Its locale; none when that is not known.
    pub locale: Option<String>,
    /// Where it called from, as visiting saw it.
    pub address: Option<IpAddr>,
}

/// Open a session.
#[derive(Clone, Debug)]
pub struct LoginRequest {
    /// Made by visiting; a new submission is always a new id.
    pub session_id: SessionId,
    /// Whom, and how.
    pub user: FindUser,
    /// The PIN or its stand-in.
    pub proof: Proof,
    /// The device profile the user chose.
    pub profile: Option<ProfileName>,
    /// The phone.
    pub device: DeviceFacts,
    /// Civic address fields of the phone, by name.
    pub geolocation: BTreeMap<String, String>,
    /// Sessions that visiting has ended and home has not acknowledged, the newest 64.
    pub supersedes: Vec<SessionId>,
}

impl LoginRequest {
    /// The same without what proves the user: for what comes before and after the check.
    #[must_use]
    pub fn without_proof(&self) -> Self {
        Self {
            session_id: self.session_id,
            user: self.user.clone(),
            proof: Proof::Gone,
            profile: self.profile.clone(),
            device: self.device.clone(),
            geolocation: self.geolocation.clone(),
            supersedes: self.supersedes.clone(),
        }
    }
}

/// One call-control server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallManager {
    /// Host name or address.
    pub host: String,
    /// 0 is tried first, 4 last.
    pub priority: u8,
}

/// One line of a device profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// 1 is the first button.
    pub index: u32,
    /// Directory number.
    pub number: String,
    /// Text beside the button.
    #[serde(default)]
    pub label: String,
}

/// Which of a phone's buttons leads to a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceMenu {
    /// The services button.
    #[default]
    Services,
    /// The directories button.
    Directories,
    /// The messages button.
    Messages,
}

impl ServiceMenu {
    /// The three.
    pub const ALL: [Self; 3] = [Self::Services, Self::Directories, Self::Messages];

    /// The word in files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Directories => "directories",
            Self::Messages => "messages",
        }
    }

    /// The menu of that word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|menu| menu.as_str() == word)
    }
}

/// A phone service: a page that a phone can open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhoneService {
    /// Its name, as the phone shows it.
    pub name: ServiceName,
    /// Where it is.
    pub url: String,
    /// Which button leads to it.
    pub menu: ServiceMenu,
}

/// Everything the phone needs from home, in one answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeServices {
    /// The user at home, whatever was typed.
    pub user_id: UserId,
    /// The device profile in use.
    pub profile: ProfileName,
    /// The base device held for this session; none for a local login.
    pub base_device: Option<BaseDeviceName>,
    /// Call-control group, in order of priority.
    pub call_managers: Vec<CallManager>,
    /// TFTP servers, first one first.
    pub tftp_servers: Vec<String>,
    /// The roaming device pool, or the profile's own.
    pub device_pool: Option<DevicePoolName>,
    /// Lines of the profile.
    pub lines: Vec<Line>,
    /// Phone services that the profile is subscribed to, in its order.
    #[serde(default)]
    pub phone_services: Vec<PhoneService>,
    /// Locale, or none to leave the phone's own.
    pub locale: Option<String>,
    /// Time until home ends the session.
    pub remaining: Option<Duration>,
    /// Whether the phone has to reset rather than restart.
    pub reset: bool,
    /// Why the phone has to restart or reset.
    pub restart_reason: Option<String>,
}

/// The user has several device profiles, and none is the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileChoice {
    /// Their names, at most [`MAX_CHOICES`].
    pub profiles: Vec<ProfileName>,
    /// Stands in for the PIN when the user has chosen; good for [`TICKET_LIFE`], once, on the same phone.
    pub ticket: Ticket,
}

/// What home answers to a login that it does not refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginAnswer {
    /// The session is open.
    Opened(Box<HomeServices>),
    /// Nothing is open yet: the user has to choose.
    Choose(ProfileChoice),
}

impl From<HomeServices> for LoginAnswer {
    fn from(services: HomeServices) -> Self {
        Self::Opened(Box::new(services))
    }
}

/// End a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogoutRequest {
    /// Which.
    pub session_id: SessionId,
    /// Why.
    pub reason: EndReason,
    /// Which side began; tells which role's row is meant on the called side.
    pub initiator: Initiator,
}

/// What travels with every request, on both clusters.
#[derive(Clone, Debug)]
pub struct Context {
    /// The id of the attempt.
    pub reference: Ref,
    /// The cluster that asks; our own for a local login.
    pub caller: ClusterId,
    /// SHA-256 of the leaf certificate by which the caller is known; none for our own cluster, and for what we send.
    pub certificate: Option<[u8; 32]>,
    /// When the answer is of no use any more.
    pub deadline: Instant,
    /// What the caller has told of itself in its `Hello`.
    pub traits: Traits,
}

/// A future answer of a [`HomeCluster`].
pub type Answer<'a, T> = BoxPin<Box<dyn Future<Output = Result<T, Refusal>> + Send + 'a>>;

/// A home cluster, seen from visiting. Our own home role and every peer are one.
pub trait HomeCluster: Send + Sync {
    /// Which cluster it is.
    fn cluster_id(&self) -> &ClusterId;

    /// Asks whether a name is a user of that cluster.
    fn find_user<'a>(&'a self, context: &'a Context, query: &'a FindUser) -> Answer<'a, Ownership>;

    /// Opens a session there.
    fn login<'a>(
        &'a self,
        context: &'a Context,
        request: &'a LoginRequest,
    ) -> Answer<'a, LoginAnswer>;

    /// Ends a session there; the answer is the reason now on record.
    fn logout<'a>(&'a self, context: &'a Context, request: LogoutRequest) -> Answer<'a, EndReason>;

    /// What it has told of itself; none while that is not known, and of ourselves.
    fn traits(&self) -> Option<Traits> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_login_types_are_written_as_in_a_service_url() {
        for (login_type, word) in LoginType::ALL.into_iter().zip(["UID", "SP", "DN"]) {
            assert_eq!(login_type.to_string(), word);
            assert_eq!(word.parse(), Ok(login_type));
            assert_eq!(
                serde_json::to_string(&login_type).unwrap(),
                format!("\"{word}\"")
            );
        }
        assert_eq!(LoginType::default(), LoginType::Uid);
    }

    #[test]
    fn any_other_login_type_is_refused() {
        for text in ["", "uid", "Dn", "UID ", "XX", "UID,DN"] {
            assert_eq!(text.parse::<LoginType>(), Err(UnknownLoginType), "{text:?}");
        }
    }

    #[test]
    fn a_login_request_does_not_print_its_pin() {
        let request = LoginRequest {
            session_id: SessionId::from_bytes(&[7; 16]).unwrap(),
            user: FindUser {
                login_type: LoginType::Uid,
                name: LoginName::new("alice").unwrap(),
            },
            proof: Proof::Pin(Pin::new("48151623".to_owned()).unwrap()),
            profile: None,
            device: DeviceFacts {
                name: DeviceName::new("SEP00112233AABB").unwrap(),
                model: String::new(),
                protocol: "SIP".to_owned(),
                security_mode: SecurityMode::NonSecure,
                locale: None,
                address: None,
            },
            geolocation: BTreeMap::new(),
            supersedes: Vec::new(),
        };
        let text = format!("{request:?} {request:#?}");
        assert!(text.contains("alice") && !text.contains("4815"), "{text}");
    }
}
