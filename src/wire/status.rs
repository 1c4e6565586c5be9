//! Refusals as gRPC statuses, and back.
//!
//! A refusal by a role carries a `google.rpc.ErrorInfo` of domain `emcc`; a refusal at the door, one of domain
//! `emcc.trust`. What carries neither comes from the transport or from something that is no emccd, and is never
//! taken for an answer about a user.

use std::{collections::HashMap, error::Error as _, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    clock::Timestamp,
    domain::{
        em_code::{EmCode, GrpcCode},
        ids::{ClusterId, Ref},
        refusal::{Detail, Refusal},
        rejection::Rejection,
        session::EndReason,
    },
    secret::Ticket,
};

/// The `ErrorInfo` domain of refusals by a role.
pub const DOMAIN: &str = "emcc";
/// The `ErrorInfo` domain of refusals of a connection.
pub const TRUST_DOMAIN: &str = "emcc.trust";
/// The reason when the session with the repeated id is over.
pub const SESSION_ENDED: &str = "SESSION_ENDED";
/// The reason when a session id comes again with other fields.
pub const ID_REUSED: &str = "ID_REUSED";

const EM_CODE: &str = "em_code";
const CLUSTER: &str = "cluster";
const REFERENCE: &str = "ref";
const END_REASON: &str = "end_reason";
const TICKET: &str = "ticket";
const FINGERPRINT: &str = "fingerprint";
const TIME: &str = "time";

/// What of a message goes over the wire, and what of a peer's is believed; in bytes.
const MESSAGE_MAX: usize = 512;
/// The longest wait that a peer can ask for.
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// A refusal for the wire. `cluster` is our own and is told when the refusal names no other.
#[must_use]
pub fn to_status(refusal: &Refusal, cluster: &ClusterId, reference: Ref) -> Status {
    let cluster = refusal.cluster.as_ref().unwrap_or(cluster);
    let mut metadata = HashMap::from([
        (EM_CODE.to_owned(), refusal.code.number().to_string()),
        (CLUSTER.to_owned(), cluster.to_string()),
        (REFERENCE.to_owned(), reference.compact()),
    ]);
    let (code, reason) = match refusal.detail {
        Detail::None | Detail::LacksLoginType | Detail::RetryAfter(_) => {
            (to_tonic(refusal.code.grpc_code()), refusal.code.name())
        }
        Detail::IdReused => (Code::InvalidArgument, ID_REUSED),
        Detail::Ticket(ref ticket) => {
            metadata.insert(TICKET.to_owned(), ticket.expose());
            (to_tonic(refusal.code.grpc_code()), refusal.code.name())
        }
        Detail::SessionEnded(why) => {
            metadata.insert(END_REASON.to_owned(), why.as_str().to_owned());
            (Code::Aborted, SESSION_ENDED)
        }
    };
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    if let Detail::RetryAfter(wait) = refusal.detail {
        details.set_retry_info(Some(wait));
    }
    Status::with_error_details(code, bounded(&refusal.cause), details)
}

/// What a peer's status means for us. Total: anything that can come over the wire is a refusal.
#[must_use]
pub fn from_status(status: &Status, peer: &ClusterId) -> Refusal {
    if let Some(rejection) = rejection_from_status(status) {
        return rejected(status, rejection, peer);
    }
    let details = status.get_error_details();
    let refusal = match details.error_info() {
        Some(info) if info.domain == DOMAIN => {
            let retry = details.retry_info().and_then(|info| info.retry_delay);
            by_role(status, &info.reason, &info.metadata, retry, peer)
        }
        _ => by_transport(status, peer),
    };
    refusal.by(peer.clone())
}

/// The one answer to every call on a connection that identifies no peer.
#[must_use]
pub fn rejection_status(rejection: Rejection, fingerprint: Option<&str>, now: Timestamp) -> Status {
    let mut metadata = HashMap::from([(TIME.to_owned(), now.to_string())]);
    if let Some(fingerprint) = fingerprint {
        metadata.insert(FINGERPRINT.to_owned(), fingerprint.to_owned());
    }
    let reason = rejection.as_str().to_ascii_uppercase();
    let details = ErrorDetails::with_error_info(reason, TRUST_DOMAIN, metadata);
    let message = format!(
        "this connection identifies no peer: {rejection}: {}",
        rejection.meaning()
    );
    Status::with_error_details(Code::Unauthenticated, message, details)
}

/// Why a peer refused the connection, if this status says so.
#[must_use]
pub fn rejection_from_status(status: &Status) -> Option<Rejection> {
    let info = status.get_details_error_info()?;
    if info.domain != TRUST_DOMAIN {
        return None;
    }
    let word = info.reason.to_ascii_lowercase();
    Rejection::ALL
        .into_iter()
        .find(|rejection| rejection.as_str() == word)
}

/// The time that a peer told with its refusal of the connection.
#[must_use]
pub fn rejection_time(status: &Status) -> Option<Timestamp> {
    let info = status.get_details_error_info()?;
    let told: jiff::Timestamp = info.metadata.get(TIME)?.parse().ok()?;
    (info.domain == TRUST_DOMAIN).then(|| Timestamp::from_millis(told.as_millisecond()))
}

/// The gRPC library's name for a code of the domain.
#[must_use]
pub const fn to_tonic(code: GrpcCode) -> Code {
    match code {
        GrpcCode::AlreadyExists => Code::AlreadyExists,
        GrpcCode::FailedPrecondition => Code::FailedPrecondition,
        GrpcCode::Internal => Code::Internal,
        GrpcCode::InvalidArgument => Code::InvalidArgument,
        GrpcCode::NotFound => Code::NotFound,
        GrpcCode::PermissionDenied => Code::PermissionDenied,
        GrpcCode::ResourceExhausted => Code::ResourceExhausted,
        GrpcCode::Unauthenticated => Code::Unauthenticated,
        GrpcCode::Unavailable => Code::Unavailable,
        GrpcCode::Unknown => Code::Unknown,
    }
}

fn rejected(status: &Status, rejection: Rejection, peer: &ClusterId) -> Refusal {
    let metadata = status
        .get_details_error_info()
        .map(|info| info.metadata)
        .unwrap_or_default();
    let told = |key: &str| {
        metadata
            .get(key)
            .map_or_else(|| "not told".to_owned(), |text| bounded(text))
    };
    let cause = format!(
        "peer {peer} refused our certificate: {rejection} (our fingerprint as it sees it: {}; its time: {})",
        told(FINGERPRINT),
        told(TIME),
    );
    Refusal::new(EmCode::ServiceConnectionError, cause).by(peer.clone())
}

fn by_role(
    status: &Status,
    reason: &str,
    metadata: &HashMap<String, String>,
    retry: Option<Duration>,
    peer: &ClusterId,
) -> Refusal {
    let number = metadata.get(EM_CODE).and_then(|text| text.parse().ok());
    let Some(code) = number
        .and_then(EmCode::from_number)
        .or_else(|| EmCode::from_name(reason))
    else {
        let cause = format!(
            "peer {peer} refused with a code that this version does not know: {}",
            bounded(reason)
        );
        return Refusal::new(EmCode::UnknownError, cause);
    };
    let detail = match reason {
        ID_REUSED => Detail::IdReused,
        SESSION_ENDED => {
            // A reason that a later version has added is still an end.
            let why = metadata.get(END_REASON).and_then(|word| word.parse().ok());
            Detail::SessionEnded(why.unwrap_or(EndReason::Abandoned))
        }
        _ if code == EmCode::PinChangeRequired => metadata
            .get(TICKET)
            .and_then(|text| Ticket::parse(text))
            .map_or(Detail::None, Detail::Ticket),
        _ => retry.map_or(Detail::None, |wait| Detail::RetryAfter(wait.min(RETRY_MAX))),
    };
    Refusal::new(code, bounded(status.message())).with_detail(detail)
}

/// A status without a reason of ours. Never 23 and never 2: only a home says those.
fn by_transport(status: &Status, peer: &ClusterId) -> Refusal {
    let message = described(status);
    let (code, what) = match status.code() {
        Code::DeadlineExceeded => (EmCode::NoResponseFromRemoteHost, "did not answer in time"),
        Code::Cancelled if status.message().to_ascii_lowercase().contains("timeout") => {
            (EmCode::NoResponseFromRemoteHost, "did not answer in time")
        }
        Code::Unavailable | Code::Unknown | Code::Cancelled => {
            (EmCode::ServiceConnectionError, "could not be reached")
        }
        Code::Unauthenticated | Code::PermissionDenied => {
            (EmCode::ServiceConnectionError, "turned us away")
        }
        Code::ResourceExhausted => (EmCode::Busy, "is busy"),
        Code::Unimplemented | Code::InvalidArgument => {
            (EmCode::ErrorOnParsing, "did not understand the call")
        }
        Code::Ok
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss => (EmCode::UnknownError, "failed without a reason of ours"),
    };
    Refusal::new(code, format!("peer {peer} {what}: {message}"))
}

/// The message with the causes below it, which tell more than "transport error".
fn described(status: &Status) -> String {
    let mut text = if status.message().is_empty() {
        status.code().description().to_owned()
    } else {
        status.message().to_owned()
    };
    let mut source = status.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) && text.len() < MESSAGE_MAX {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    bounded(&text)
}

/// At most [`MESSAGE_MAX`] bytes on one line: what a peer says ends up in logs and on terminals.
fn bounded(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() + c.len_utf8() > MESSAGE_MAX {
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> ClusterId {
        ClusterId::new("berlin").unwrap()
    }

    fn reference() -> Ref {
        "7K3Q-9M2X".parse().unwrap()
    }

    fn there_and_back(refusal: &Refusal) -> Refusal {
        let status = to_status(refusal, &berlin(), reference());
        // Through the headers, as over the network.
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        from_status(&Status::from_header_map(&headers).unwrap(), &berlin())
    }

    #[test]
    fn every_code_survives_the_way() {
        for code in EmCode::ALL {
            let refusal = Refusal::new(*code, "user alice: no such profile");
            assert_eq!(there_and_back(&refusal), refusal.by(berlin()), "{code:?}");
        }
    }

    #[test]
    fn what_a_caller_can_act_on_survives_the_way() {
        let mut details = vec![
            Detail::IdReused,
            Detail::RetryAfter(Duration::from_millis(1500)),
        ];
        details.extend(
            EndReason::WORDS
                .iter()
                .map(|(why, _)| Detail::SessionEnded(*why)),
        );
        for detail in details {
            let refusal = Refusal::new(EmCode::PolicyValidationError, "no")
                .with_detail(detail)
                .by(berlin());
            assert_eq!(there_and_back(&refusal), refusal);
        }
        let ticket = Detail::Ticket(Ticket::from_bytes([7; 16]));
        let refusal = Refusal::new(EmCode::PinChangeRequired, "change it").with_detail(ticket);
        let refusal = refusal.by(berlin());
        assert_eq!(there_and_back(&refusal), refusal);
    }

    #[test]
    fn a_status_reads_as_the_contract_says() {
        let refusal = Refusal::new(EmCode::UserDoesNotExist, "no user bob");
        let status = to_status(&refusal, &berlin(), reference());
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            (status.code(), status.message()),
            (Code::NotFound, "no user bob")
        );
        assert_eq!(
            (info.domain.as_str(), info.reason.as_str()),
            ("emcc", "USER_DOES_NOT_EXIST")
        );
        assert_eq!(info.metadata["em_code"], "23");
        assert_eq!(info.metadata["cluster"], "berlin");
        assert_eq!(info.metadata["ref"], "7K3Q9M2X");

        let ended = refusal.with_detail(Detail::SessionEnded(EndReason::User));
        let status = to_status(&ended, &berlin(), reference());
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            (status.code(), info.reason.as_str()),
            (Code::Aborted, "SESSION_ENDED")
        );
        assert_eq!(info.metadata["end_reason"], "user");

        let reused = Refusal::new(EmCode::PolicyValidationError, "").with_detail(Detail::IdReused);
        let status = to_status(&reused, &berlin(), reference());
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            (status.code(), info.reason.as_str()),
            (Code::InvalidArgument, "ID_REUSED")
        );
        assert_eq!(info.metadata["em_code"], "4");
    }

    #[test]
    fn a_later_version_is_understood_as_far_as_it_can_be() {
        let details = ErrorDetails::with_error_info(
            "SOMETHING_NEW",
            DOMAIN,
            HashMap::from([("em_code".to_owned(), "99".to_owned())]),
        );
        let status = Status::with_error_details(Code::FailedPrecondition, "new", details);
        let refusal = from_status(&status, &berlin());
        assert_eq!(refusal.code, EmCode::UnknownError);
        assert!(refusal.cause.contains("SOMETHING_NEW"), "{}", refusal.cause);
    }

    #[test]
    fn transport_failures_are_208_or_40() {
        for (status, code) in [
            (
                Status::unavailable("connection refused"),
                EmCode::ServiceConnectionError,
            ),
            (
                Status::unknown("transport error"),
                EmCode::ServiceConnectionError,
            ),
            (
                Status::unauthenticated("who?"),
                EmCode::ServiceConnectionError,
            ),
            (
                Status::deadline_exceeded(""),
                EmCode::NoResponseFromRemoteHost,
            ),
            (
                Status::cancelled("Timeout expired"),
                EmCode::NoResponseFromRemoteHost,
            ),
            (Status::cancelled("reset"), EmCode::ServiceConnectionError),
            (Status::resource_exhausted(""), EmCode::Busy),
            (Status::unimplemented(""), EmCode::ErrorOnParsing),
        ] {
            let refusal = from_status(&status, &berlin());
            assert_eq!(refusal.code, code, "{status:?}");
            assert!(
                refusal.cause.starts_with("peer berlin "),
                "{}",
                refusal.cause
            );
            assert_eq!(refusal.cluster, Some(berlin()));
        }
    }

    #[test]
    fn a_bare_status_never_speaks_about_a_user() {
        for number in 0..=17 {
            let code = from_status(&Status::new(Code::from_i32(number), ""), &berlin()).code;
            assert!(
                !matches!(
                    code,
                    EmCode::UserDoesNotExist | EmCode::EmccAuthenticationError
                ),
                "{number}"
            );
        }
        let foreign = ErrorDetails::with_error_info("USER_DOES_NOT_EXIST", "envoy", HashMap::new());
        let status = Status::with_error_details(Code::NotFound, "", foreign);
        assert_eq!(from_status(&status, &berlin()).code, EmCode::UnknownError);
    }

    #[test]
    fn broken_details_are_a_bare_status() {
        let details = bytes::Bytes::from_static(b"\xff\xff\xff");
        let status = Status::with_details(Code::Unavailable, "gone", details);
        assert_eq!(
            from_status(&status, &berlin()).code,
            EmCode::ServiceConnectionError
        );
        assert_eq!(rejection_from_status(&status), None);
    }

    #[test]
    fn every_rejection_is_told_and_understood() {
        for rejection in Rejection::ALL {
            let status = rejection_status(rejection, Some("AB:CD"), Timestamp::from_millis(0));
            assert_eq!(status.code(), Code::Unauthenticated);
            assert_eq!(rejection_from_status(&status), Some(rejection));
            let refusal = from_status(&status, &berlin());
            assert_eq!(refusal.code, EmCode::ServiceConnectionError);
            for part in [
                "berlin",
                rejection.as_str(),
                "AB:CD",
                "1970-01-01T00:00:00.000Z",
            ] {
                assert!(refusal.cause.contains(part), "{}", refusal.cause);
            }
        }
        let role = to_status(&Refusal::new(EmCode::Busy, ""), &berlin(), reference());
        assert_eq!(rejection_from_status(&role), None);
    }

    #[test]
    fn what_a_peer_says_stays_on_one_line_and_short() {
        let refusal = Refusal::new(
            EmCode::UnknownError,
            format!("a\nb\u{1b}[31m{}", "ü".repeat(600)),
        );
        let cause = there_and_back(&refusal).cause;
        assert!(cause.starts_with("a b [31m"), "{cause}");
        assert!(cause.len() <= MESSAGE_MAX && !cause.chars().any(char::is_control));
    }

    #[test]
    fn a_peer_can_not_send_us_away_for_ever() {
        let forever = Detail::RetryAfter(Duration::from_secs(u64::from(u32::MAX)));
        let refusal = Refusal::new(EmCode::Busy, "").with_detail(forever);
        assert_eq!(
            there_and_back(&refusal).detail,
            Detail::RetryAfter(RETRY_MAX)
        );
    }
}
