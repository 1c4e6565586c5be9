//! `FindUser`, `Login` and `Logout`.

use std::net::IpAddr;

use zeroize::Zeroizing;

use crate::{
    domain::{
        bounds::{GEOLOCATION_BYTES, GEOLOCATION_FIELDS, MODEL_BYTES, PROTOCOL_BYTES, SUPERSEDES},
        login::{
            DeviceFacts, FindUser, HomeServices, LoginAnswer, LoginRequest, LoginType,
            LogoutRequest, MAX_CHOICES, Ownership, ProfileChoice, Proof,
        },
        session::{EndReason, Initiator},
        version::Version,
    },
    secret::{Pin, Ticket},
    wire::{
        federation::link::{from_security_mode, to_security_mode},
        malformed::{self, Malformed},
        pb,
    },
};

const LOCALE_BYTES: usize = 255;

/// A question for a peer that speaks `version`.
#[must_use]
pub fn encode_find(query: &FindUser, version: Version) -> pb::FindUserRequest {
    pb::FindUserRequest {
        login_type: from_login_type(query.login_type, version).into(),
        name: query.name.to_string(),
    }
}

/// A question of a caller that speaks `version`.
///
/// # Errors
/// [`Malformed`] when it breaks the contract of that version.
pub fn decode_find(message: pb::FindUserRequest, version: Version) -> Result<FindUser, Malformed> {
    Ok(FindUser {
        login_type: to_login_type(message.login_type, version)?,
        name: malformed::name("name", message.name)?,
    })
}

/// A login for a peer that speaks `version`. The message wipes its copy of the PIN when it is dropped.
#[must_use]
pub fn encode_login(request: &LoginRequest, version: Version) -> pb::LoginRequest {
    let (pin, ticket) = match &request.proof {
        Proof::Pin(pin) => (pin.expose().to_owned(), String::new()),
        Proof::Ticket(ticket) => (String::new(), ticket.expose()),
        // Home refuses a login without a PIN as unreadable.
        Proof::Gone => (String::new(), String::new()),
    };
    pb::LoginRequest {
        session_id: request.session_id.as_bytes().to_vec(),
        login_type: from_login_type(request.user.login_type, version).into(),
        name: request.user.name.to_string(),
        pin,
        ticket,
        profile: request
            .profile
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        device: Some((&request.device).into()),
        geolocation: request.geolocation.clone(),
        supersedes: request
            .supersedes
            .iter()
            .map(|id| id.as_bytes().to_vec())
            .collect(),
    }
}

/// A login of a caller that speaks `version`. The PIN is moved, not copied.
///
/// # Errors
/// [`Malformed`] when it breaks the contract of that version.
pub fn decode_login(
    mut message: pb::LoginRequest,
    version: Version,
) -> Result<LoginRequest, Malformed> {
    let proof = proof(&mut message)?;
    let user = FindUser {
        login_type: to_login_type(message.login_type, version)?,
        name: malformed::name("name", std::mem::take(&mut message.name))?,
    };
    Ok(LoginRequest {
        session_id: malformed::session_id("session_id", &message.session_id)?,
        user,
        proof,
        profile: malformed::optional_name("profile", std::mem::take(&mut message.profile))?,
        device: malformed::required("device", message.device.take())?.try_into()?,
        geolocation: malformed::map(
            "geolocation",
            std::mem::take(&mut message.geolocation),
            GEOLOCATION_FIELDS,
            GEOLOCATION_BYTES,
        )?,
        supersedes: malformed::list(
            "supersedes",
            std::mem::take(&mut message.supersedes),
            SUPERSEDES,
            |id| malformed::session_id("supersedes", &id),
        )?,
    })
}

fn proof(message: &mut pb::LoginRequest) -> Result<Proof, Malformed> {
    let pin = std::mem::take(&mut message.pin);
    if !message.ticket.is_empty() {
        let ticket = Zeroizing::new(std::mem::take(&mut message.ticket));
        if !Zeroizing::new(pin).is_empty() {
            return Err(Malformed::new("ticket", "absent beside a PIN"));
        }
        return self::ticket("ticket", &ticket).map(Proof::Ticket);
    }
    Pin::new(pin).map(Proof::Pin).map_err(|_| {
        Malformed::new(
            "pin",
            "1 to 128 bytes, not blank, without control characters",
        )
    })
}

fn ticket(field: &'static str, text: &str) -> Result<Ticket, Malformed> {
    Ticket::parse(text).ok_or_else(|| Malformed::new(field, "32 hexadecimal digits"))
}

impl From<&LoginAnswer> for pb::LoginResponse {
    fn from(answer: &LoginAnswer) -> Self {
        match answer {
            LoginAnswer::Opened(services) => Self {
                services: Some(services.as_ref().into()),
                choice: None,
            },
            LoginAnswer::Choose(choice) => Self {
                services: None,
                choice: Some(pb::ProfileChoice {
                    profiles: choice.profiles.iter().map(ToString::to_string).collect(),
                    ticket: choice.ticket.expose(),
                }),
            },
        }
    }
}

impl TryFrom<pb::LoginResponse> for LoginAnswer {
    type Error = Malformed;

    fn try_from(message: pb::LoginResponse) -> Result<Self, Malformed> {
        match (message.services, message.choice) {
            (Some(services), None) => Ok(HomeServices::try_from(services)?.into()),
            (None, Some(choice)) => choice.try_into().map(Self::Choose),
            _ => Err(Malformed::new(
                "services",
                "present, or choice, and not both",
            )),
        }
    }
}

impl TryFrom<pb::ProfileChoice> for ProfileChoice {
    type Error = Malformed;

    fn try_from(choice: pb::ProfileChoice) -> Result<Self, Malformed> {
        let text = Zeroizing::new(choice.ticket);
        let profiles = malformed::list("choice.profiles", choice.profiles, MAX_CHOICES, |name| {
            malformed::name("choice.profiles", name)
        })?;
        if profiles.is_empty() {
            return Err(Malformed::new("choice.profiles", "1 entry at least"));
        }
        Ok(Self {
            profiles,
            ticket: ticket("choice.ticket", &text)?,
        })
    }
}

/// At 1.0 the field does not exist: `UID` goes without it. The other types stay what they are, so that a peer
/// can only refuse them; callers don't send them there.
fn from_login_type(login_type: LoginType, version: Version) -> pb::LoginType {
    match login_type {
        LoginType::Uid if version.knows_login_types() => pb::LoginType::Uid,
        LoginType::Uid => pb::LoginType::Unspecified,
        LoginType::SelfService => pb::LoginType::Sp,
        LoginType::Extension => pb::LoginType::Dn,
    }
}

/// Who is looked up depends on it, so that an unknown type is refused and never guessed.
fn to_login_type(login_type: i32, version: Version) -> Result<LoginType, Malformed> {
    let told = match pb::LoginType::try_from(login_type) {
        Ok(pb::LoginType::Unspecified | pb::LoginType::Uid) => LoginType::Uid,
        Ok(pb::LoginType::Sp) => LoginType::SelfService,
        Ok(pb::LoginType::Dn) => LoginType::Extension,
        Err(_) => return Err(Malformed::new("login_type", "one of UID, SP, DN")),
    };
    if told == LoginType::Uid || version.knows_login_types() {
        Ok(told)
    } else {
        Err(Malformed::new(
            "login_type",
            format!("UID on a call of version {version}"),
        ))
    }
}

impl From<&DeviceFacts> for pb::Device {
    fn from(device: &DeviceFacts) -> Self {
        Self {
            name: device.name.to_string(),
            model: device.model.clone(),
            protocol: device.protocol.clone(),
            security_mode: from_security_mode(device.security_mode).into(),
            locale: device.locale.clone().unwrap_or_default(),
            address: device
                .address
                .map(|address| address.to_string())
                .unwrap_or_default(),
        }
    }
}

impl TryFrom<pb::Device> for DeviceFacts {
    type Error = Malformed;

    fn try_from(device: pb::Device) -> Result<Self, Malformed> {
        let address = match device.address.as_str() {
            "" => None,
            text => Some(text.parse::<IpAddr>().map_err(|_| {
                Malformed::new("device.address", "an IPv4 or IPv6 address, or empty")
            })?),
        };
        Ok(Self {
            name: malformed::name("device.name", device.name)?,
            model: malformed::text("device.model", device.model, MODEL_BYTES)?,
            protocol: malformed::text("device.protocol", device.protocol, PROTOCOL_BYTES)?,
            security_mode: to_security_mode(device.security_mode),
            locale: malformed::optional_text("device.locale", device.locale, LOCALE_BYTES)?,
            address,
        })
    }
}

impl From<Ownership> for pb::FindUserResponse {
    fn from(ownership: Ownership) -> Self {
        let ownership = match ownership {
            Ownership::Mine => pb::Ownership::Mine,
            Ownership::NotMine => pb::Ownership::NotMine,
            Ownership::SeveralUsers => pb::Ownership::SeveralUsers,
        };
        Self {
            ownership: ownership.into(),
        }
    }
}

impl TryFrom<pb::FindUserResponse> for Ownership {
    type Error = Malformed;

    fn try_from(message: pb::FindUserResponse) -> Result<Self, Malformed> {
        match pb::Ownership::try_from(message.ownership) {
            Ok(pb::Ownership::Mine) => Ok(Self::Mine),
            Ok(pb::Ownership::NotMine) => Ok(Self::NotMine),
            Ok(pb::Ownership::SeveralUsers) => Ok(Self::SeveralUsers),
            Ok(pb::Ownership::Unspecified) | Err(_) => Err(Malformed::new(
                "ownership",
                "NOT_MINE, MINE or SEVERAL_USERS",
            )),
        }
    }
}

impl From<LogoutRequest> for pb::LogoutRequest {
    fn from(request: LogoutRequest) -> Self {
        let initiator = match request.initiator {
            Initiator::Home => pb::Initiator::Home,
            Initiator::Visiting => pb::Initiator::Visiting,
        };
        Self {
            session_id: request.session_id.as_bytes().to_vec(),
            reason: from_end_reason(request.reason).into(),
            initiator: initiator.into(),
        }
    }
}

impl From<&LogoutRequest> for pb::LogoutRequest {
    fn from(request: &LogoutRequest) -> Self {
        Self::from(*request)
    }
}

impl TryFrom<pb::LogoutRequest> for LogoutRequest {
    type Error = Malformed;

    fn try_from(message: pb::LogoutRequest) -> Result<Self, Malformed> {
        // It says whose row is meant: guessing could end the wrong one.
        let initiator = match pb::Initiator::try_from(message.initiator) {
            Ok(pb::Initiator::Home) => Initiator::Home,
            Ok(pb::Initiator::Visiting) => Initiator::Visiting,
            Ok(pb::Initiator::Unspecified) | Err(_) => {
                return Err(Malformed::new("initiator", "HOME or VISITING"));
            }
        };
        Ok(Self {
            session_id: malformed::session_id("session_id", &message.session_id)?,
            reason: to_end_reason(message.reason),
            initiator,
        })
    }
}

impl From<EndReason> for pb::LogoutResponse {
    fn from(reason: EndReason) -> Self {
        Self {
            reason: from_end_reason(reason).into(),
        }
    }
}

impl TryFrom<pb::LogoutResponse> for EndReason {
    type Error = Malformed;

    fn try_from(message: pb::LogoutResponse) -> Result<Self, Malformed> {
        Ok(to_end_reason(message.reason))
    }
}

pub(super) const fn from_end_reason(reason: EndReason) -> pb::EndReason {
    match reason {
        EndReason::Abandoned => pb::EndReason::Abandoned,
        EndReason::Expired => pb::EndReason::Expired,
        EndReason::Operator => pb::EndReason::Operator,
        EndReason::Refused => pb::EndReason::Refused,
        EndReason::Revoked => pb::EndReason::Revoked,
        EndReason::Superseded => pb::EndReason::Superseded,
        EndReason::User => pb::EndReason::User,
    }
}

/// An end is an end: a reason that isn't told or known is never a ground to refuse it.
pub(super) fn to_end_reason(reason: i32) -> EndReason {
    match pb::EndReason::try_from(reason) {
        Ok(pb::EndReason::Expired) => EndReason::Expired,
        Ok(pb::EndReason::Operator) => EndReason::Operator,
        Ok(pb::EndReason::Refused) => EndReason::Refused,
        Ok(pb::EndReason::Revoked) => EndReason::Revoked,
        Ok(pb::EndReason::Superseded) => EndReason::Superseded,
        Ok(pb::EndReason::User) => EndReason::User,
        Ok(pb::EndReason::Abandoned | pb::EndReason::Unspecified) | Err(_) => EndReason::Abandoned,
    }
}
