//! The Extension Mobility application: the pages that phones fetch.
//!
//! One path. A `GET` answers 200 with a phone object, whatever came of it: a phone shows no other status. A
//! `HEAD` never acts; it answers as the start page does. PINs travel in query strings because phones send
//! them so: nothing here logs a query, or a path that isn't ours.

mod failure;
mod login;
mod logout;
mod query;
mod xml;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin as BoxPin,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderValue, Method, StatusCode, header};
use tracing::{Instrument, info_span};

pub use self::query::{BaseUrl, InvalidBaseUrl, PATH};
use self::{
    failure::Act,
    query::{Asked, Query, Unreadable},
};
use crate::{
    domain::{
        em_code::EmCode,
        ids::{DeviceName, Ref},
        login::LoginType,
    },
    tasks::Tasks,
    visiting::{Caller, Failure, LoggedOut, LoginOutcome, PhoneChoice, PhoneLogin, PhoneState},
};

/// A future answer of a [`Desk`].
pub type Reply<'a, T> = BoxPin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// The role behind the pages.
pub trait Desk: Send + Sync {
    /// Who is on a phone. It changes nothing.
    fn phone_state<'a>(&'a self, device: &'a str) -> Reply<'a, PhoneState>;

    /// Logs a user in.
    fn login(&self, login: PhoneLogin) -> Reply<'_, LoginOutcome>;

    /// Goes on with a login whose user has chosen a device profile.
    fn choose(&self, choice: PhoneChoice) -> Reply<'_, LoginOutcome>;

    /// Logs out whoever is on the phone.
    fn logout<'a>(
        &'a self,
        device: &'a str,
        caller: Caller,
        reference: Ref,
    ) -> Reply<'a, LoggedOut>;

    /// Makes the id of a new attempt.
    fn new_ref(&self) -> Ref;

    /// Whether this node speaks a version that knows login types; otherwise they are ignored.
    fn knows_login_types(&self) -> bool;
}

/// What the pages are made from.
#[derive(Clone)]
pub struct Pages {
    /// The role behind them.
    pub desk: Arc<dyn Desk>,
    /// Where logins and logouts run, so that a phone that hangs up leaves no half of one.
    pub tasks: Tasks,
    /// Our own address in the URLs on the pages, where the phone's `Host` header doesn't serve. Its scheme
    /// is that of the listener.
    pub base_url: BaseUrl,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("base_url", &self.base_url)
            .finish_non_exhaustive()
    }
}

/// Makes the routes of one listener. The listener puts the phone's address into each request as
/// [`ConnectInfo`].
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route(PATH, any(serve))
        .fallback(unknown_path)
        .with_state(pages)
}

async fn unknown_path() -> Response {
    (StatusCode::NOT_FOUND, "there is no such page\n").into_response()
}

async fn serve(State(pages): State<Pages>, request: Request) -> Response {
    let mut query = Query::read(request.uri().query().unwrap_or_default());
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => {
            query.asked = Asked::Start;
            "HEAD"
        }
        _ => return method_not_allowed(),
    };
    let visit = Visit::new(pages, &request);
    // Cancelled with the connection; what changes state is spawned below.
    async move { page(visit.answer(query).await) }
        .instrument(info_span!("phone_request", method, path = PATH))
        .await
}

fn method_not_allowed() -> Response {
    let allow = [(header::ALLOW, HeaderValue::from_static("GET, HEAD"))];
    (StatusCode::METHOD_NOT_ALLOWED, allow, "only GET and HEAD\n").into_response()
}

fn page(xml: String) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/xml; charset=UTF-8"),
        ),
        // Keeps the page off the phone's Back key. Not the epoch: some models take that for no date.
        (
            header::EXPIRES,
            HeaderValue::from_static("Sat, 01 Jan 2000 00:00:00 GMT"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONTENT_LENGTH, HeaderValue::from(xml.len())),
    ];
    (headers, xml).into_response()
}

/// One request of a phone.
struct Visit {
    pages: Pages,
    base_url: BaseUrl,
    caller: Caller,
}

/// One request of a phone that has a name, and what its service URL says besides.
struct Phone {
    desk: Arc<dyn Desk>,
    tasks: Tasks,
    caller: Caller,
    device: DeviceName,
    emcc: bool,
    login_type: LoginType,
    start_url: String,
    logout_url: String,
    /// Of the page with the device profiles; what was chosen is put behind it.
    choice_url: String,
}

impl Visit {
    fn new(pages: Pages, request: &Request) -> Self {
        let headers = request.headers();
        let host = match headers.get(header::HOST).map(HeaderValue::to_str) {
            Some(Ok(host)) => Some(host),
            _ => None,
        };
        let address = match request.extensions().get::<ConnectInfo<SocketAddr>>() {
            Some(ConnectInfo(remote)) => remote.ip().to_canonical(),
            // Nobody's address, which no list of trusted ones holds.
            None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        Self {
            base_url: pages.base_url.as_called(host),
            caller: Caller {
                address,
                via: headers.contains_key(header::VIA),
            },
            pages,
        }
    }

    async fn answer(self, query: Query) -> String {
        let act = match query.asked {
            Asked::Logout => Act::Logout,
            Asked::Start | Asked::Login { .. } | Asked::Choose { .. } => Act::Login,
        };
        let unreadable = query.unreadable;
        let asked = match self.phone(&query) {
            Ok(phone) => phone.answer(query.asked, unreadable).await,
            Err((code, cause)) => Err((self.failure(code, cause), None)),
        };
        asked.unwrap_or_else(|(failure, retry_url)| failure::page(act, &failure, retry_url))
    }

    /// What the query says of the phone; it fails where the service URL is wrong, whoever asks for what.
    fn phone(&self, query: &Query) -> Result<Phone, (EmCode, String)> {
        let device = match (query.device.as_deref().map(str::trim), query.unreadable) {
            (None, Some(unreadable)) => return Err(no_sense(unreadable)),
            (None | Some(""), _) => {
                let cause = "the request names no device".to_owned();
                return Err((EmCode::DeviceNameEmpty, cause));
            }
            (Some(device), _) => match DeviceName::new(device) {
                Ok(device) => device,
                Err(error) => return Err((EmCode::DeviceDoesNotExist, error.to_string())),
            },
        };
        let login_type = match query.login_type.as_deref() {
            // Whatever brought the phone here, whoever is on it must be able to leave.
            _ if matches!(query.asked, Asked::Logout) => None,
            Some(text) if self.pages.desk.knows_login_types() => match text.parse::<LoginType>() {
                Ok(login_type) => Some(login_type),
                Err(error) => return Err((EmCode::LoginTypeInvalid, error.to_string())),
            },
            _ => None,
        };
        Ok(Phone {
            desk: Arc::clone(&self.pages.desk),
            tasks: self.pages.tasks.clone(),
            caller: self.caller,
            emcc: query.emcc.unwrap_or(false),
            login_type: login_type.unwrap_or_default(),
            start_url: self.base_url.start(&device, query.emcc, login_type),
            logout_url: self.base_url.logout(&device, query.emcc),
            choice_url: self.base_url.start(&device, query.emcc, None),
            device,
        })
    }

    fn failure(&self, code: EmCode, cause: String) -> Failure {
        Failure {
            code,
            cause,
            reference: self.pages.desk.new_ref(),
            retry_after: None,
        }
    }
}

/// A page, or why there is none and where a retry leads.
type Answer = Result<String, (Failure, Option<String>)>;

impl Phone {
    async fn answer(self, asked: Asked, unreadable: Option<Unreadable>) -> Answer {
        let retry_url = self.start_url.clone();
        let answer = match (unreadable, asked) {
            (Some(unreadable), _) => {
                let (code, cause) = no_sense(unreadable);
                Err(self.refusal(code, cause).await)
            }
            (None, Asked::Start) => self.start().await,
            (None, Asked::Login { name, pin }) => self.login(name, pin).await,
            (None, Asked::Choose { ticket, entry }) => self.choose(ticket, entry).await,
            (None, Asked::Logout) => self.logout().await,
        };
        answer.map_err(|failure| (failure, Some(retry_url)))
    }

    /// The page that fits who is on the phone.
    async fn start(&self) -> Result<String, Failure> {
        match self.desk.phone_state(self.device.as_str()).await? {
            PhoneState::Nobody => Ok(self.login_form()),
            PhoneState::LoggedIn { user, home } => Ok(self.logout_question(&user, &home)),
            PhoneState::Busy => {
                let cause = "a login on this phone is under way and not yet decided".to_owned();
                Err(Failure {
                    retry_after: Some(RETRY),
                    ..self.failure(EmCode::Busy, cause)
                })
            }
        }
    }

    /// Refuses what was typed. The phone itself comes first: to one we don't know the answer is the same,
    /// whatever was typed.
    async fn refusal(&self, code: EmCode, cause: String) -> Failure {
        match self.desk.phone_state(self.device.as_str()).await {
            Err(failure) => failure,
            Ok(_) => self.failure(code, cause),
        }
    }

    fn failure(&self, code: EmCode, cause: String) -> Failure {
        Failure {
            code,
            cause,
            reference: self.desk.new_ref(),
            retry_after: None,
        }
    }
}

/// When a login that is under way may be decided.
const RETRY: Duration = Duration::from_secs(1);

fn no_sense(unreadable: Unreadable) -> (EmCode, String) {
    (EmCode::ErrorOnParsing, unreadable.to_string())
}
