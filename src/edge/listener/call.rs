//! One call on a federation connection: who may make it, and how long it may take.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tonic::{Code, Status, body::Body, service::Routes};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::ServiceExt;

use super::{
    Shares,
    caller::Caller,
    received::Received,
    turned::{Bound, TurnedAway},
    waste::Account,
};
use crate::{domain::ids::ClusterId, trust::judge::Verdict, wire::status::rejection_status};

/// The calls of each peer that have no answer yet, and the count of those that were too many.
#[derive(Clone)]
pub(super) struct Begun {
    pub(super) shares: Shares<ClusterId>,
    /// Of those: requests of which not all has come.
    pub(super) unfinished: Shares<ClusterId>,
    pub(super) turned: TurnedAway,
}

impl Begun {
    /// Whether a peer that has no place left fills most of them itself, with calls that it does not finish. Else it is
    /// we who do not answer.
    fn is_peers_doing(&self, peer: &ClusterId) -> bool {
        self.unfinished.held(peer) * 2 >= self.shares.held(peer)
    }
}

/// Answers a call. An unidentified caller gets the reason at once, whatever it asked for.
pub(super) async fn answer(
    caller: Arc<Caller>,
    routes: Routes,
    begun: Begun,
    account: Option<Account>,
    max_call: Duration,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let identity = caller.identity();
    if let Verdict::Rejected { rejection, .. } = &identity.verdict {
        let now = caller.trust().clock().now();
        return Ok(rejection_status(*rejection, identity.fingerprint.as_deref(), now).into_http());
    }
    // Wasted, unless its answer is taken: also when the caller takes it back, and this ends where it stands.
    let mut call = account.as_ref().map(Account::call);
    if let Some(refused) = refuse_foreign(&request) {
        return Ok(refused);
    }
    // Kept until the head of the answer is there; streams are counted by whoever serves them.
    let Some(_share) = identity.peer().and_then(|peer| begun.shares.take(peer)) else {
        begun.turned.add(Bound::Begun);
        let is_waste = identity
            .peer()
            .is_some_and(|peer| begun.is_peers_doing(peer));
        let wait = |account: Option<Account>| account.and_then(|account| account.retry());
        return Ok(match call {
            Some(call) if is_waste => {
                call.wasted();
                too_many(wait(account).unwrap_or(RETRY)).into_http()
            }
            Some(call) => {
                let refused = too_many(RETRY).into_http();
                refused.map(|body| call.answered(body))
            }
            None => too_many(RETRY).into_http(),
        });
    };
    let limit = grpc_timeout(request.headers()).map_or(max_call, |asked| asked.min(max_call));
    let is_whole = call.as_mut().map(|call| call.asked(limit));
    let unfinished = identity.peer().and_then(|peer| begun.unfinished.take(peer));
    let mut request = request.map(|body| Received::new(body, is_whole, unfinished));
    request.extensions_mut().insert(identity.as_ref().clone());
    // Only the head of the answer is waited for: a stream has begun by then and may go on.
    match tokio::time::timeout(limit, routes.oneshot(request)).await {
        Ok(answered) => answered.map(|answered| match call {
            Some(call) => answered.map(|body| call.answered(body)),
            None => answered,
        }),
        // Whose fault it is that there is no answer, the call knows.
        Err(_) => Ok(Status::deadline_exceeded("the call's deadline has passed").into_http()),
    }
}

/// When a peer may call again whose calls fill their bound.
pub(super) const RETRY: Duration = Duration::from_secs(1);

fn too_many(wait: Duration) -> Status {
    let cause = "too many calls of this peer are begun and not answered";
    let details = ErrorDetails::with_retry_info(Some(wait));
    Status::with_error_details(Code::ResourceExhausted, cause, details)
}

/// The one answer on a connection whose turn has not come.
pub(super) fn come_later(wait: Duration) -> Status {
    let cause = "this peer has begun more calls than it may without taking their answers";
    let details = ErrorDetails::with_retry_info(Some(wait));
    Status::with_error_details(Code::Unavailable, cause, details)
}

/// What is HTTP/2 but no gRPC is turned away by the means of HTTP: its sender would not understand a status.
fn refuse_foreign<B>(request: &Request<B>) -> Option<Response<Body>> {
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .map(HeaderValue::as_bytes);
    let is_grpc = content_type
        .and_then(|value| value.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')));
    let status = if request.method() != Method::POST {
        StatusCode::METHOD_NOT_ALLOWED
    } else if is_grpc {
        return None;
    } else {
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    };
    let mut refused = Response::new(Body::empty());
    *refused.status_mut() = status;
    Some(refused)
}

/// The `grpc-timeout` header: up to eight digits and a unit. A malformed one counts as absent.
pub(in crate::edge) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", text.parse().unwrap());
        grpc_timeout(&headers)
    }

    #[test]
    fn only_grpc_is_let_in() {
        let judged = |method: &str, content_type: Option<&str>| {
            let request = Request::builder().method(method);
            let request = match content_type {
                Some(value) => request.header(header::CONTENT_TYPE, value),
                None => request,
            };
            refuse_foreign(&request.body(()).unwrap()).map(|r| r.status().as_u16())
        };
        for content_type in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;x=y",
        ] {
            assert_eq!(judged("POST", Some(content_type)), None, "{content_type}");
            assert_eq!(
                judged("GET", Some(content_type)),
                Some(405),
                "{content_type}"
            );
        }
        for content_type in [
            None,
            Some(""),
            Some("text/plain"),
            Some("application/grpc-web"),
        ] {
            assert_eq!(judged("POST", content_type), Some(415), "{content_type:?}");
        }
    }

    #[test]
    fn deadlines_are_read_in_every_unit() {
        assert_eq!(parsed("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(parsed("3M"), Some(Duration::from_secs(180)));
        assert_eq!(parsed("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parsed("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parsed("99999999u"), Some(Duration::from_micros(99_999_999)));
        assert_eq!(parsed("7n"), Some(Duration::from_nanos(7)));
        assert_eq!(
            parsed("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3_600))
        );
    }

    #[test]
    fn malformed_deadlines_count_as_absent() {
        for text in [
            "",
            "S",
            "5",
            "5s",
            "-5S",
            "+5S",
            "123456789S",
            "5 S",
            "0x5S",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
        assert_eq!(grpc_timeout(&HeaderMap::new()), None);
    }
}
