//! The pages against a desk that answers as told, through the router.

use std::{
    path::Path,
    sync::{Mutex, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use axum::body::Body;
use http_body_util::BodyExt;
use proptest::{
    prelude::{ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof},
    proptest,
};
use quick_xml::{Reader, events::Event};
use tokio::sync::Notify;
use tower::ServiceExt;

use super::*;
use crate::{
    domain::{
        ids::{ClusterId, ProfileName, UserId},
        login::HomeServices,
    },
    secret::{Pin, Ticket},
    visiting::{Choice, LoggedIn},
};

const CANARY: &str = "48151623";
const HOST: &str = "em.visiting.example:8443";

/// A desk that knows one phone, answers as told and remembers what was asked of it.
struct Fake {
    state: Result<PhoneState, EmCode>,
    login: Result<&'static str, EmCode>,
    retry_after: Option<Duration>,
    logout: Result<bool, EmCode>,
    knows_login_types: bool,
    asked: Mutex<Vec<String>>,
    logins_decided: AtomicUsize,
    reached: Notify,
    gate: Option<Notify>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            state: Ok(PhoneState::Nobody),
            login: Ok("ana"),
            retry_after: None,
            logout: Ok(true),
            knows_login_types: true,
            asked: Mutex::default(),
            logins_decided: AtomicUsize::new(0),
            reached: Notify::new(),
            gate: None,
        }
    }
}

impl Fake {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn acts(&self) -> Vec<String> {
        self.asked()
            .into_iter()
            .filter(|a| !a.starts_with("state"))
            .collect()
    }

    fn failure(&self, code: EmCode) -> Failure {
        Failure {
            code,
            cause: format!("the fake says {}", code.number()),
            reference: self.new_ref(),
            retry_after: self.retry_after,
        }
    }
}

fn logged_in(user: &str, reference: Ref) -> LoggedIn {
    let (user_id, profile) = (UserId::new(user).unwrap(), ProfileName::new("udp").unwrap());
    LoggedIn {
        user_id: user_id.clone(),
        home: ClusterId::new("berlin").unwrap(),
        profile: profile.clone(),
        services: HomeServices {
            user_id,
            profile,
            base_device: None,
            call_managers: vec![],
            tftp_servers: vec![],
            device_pool: None,
            lines: vec![],
            locale: None,
            remaining: None,
            reset: false,
            restart_reason: None,
            phone_services: Vec::new(),
        },
        reference,
    }
}

impl Desk for Fake {
    fn phone_state<'a>(&'a self, device: &'a str) -> Reply<'a, PhoneState> {
        self.note(format!("state {device}"));
        Box::pin(async { self.state.clone().map_err(|code| self.failure(code)) })
    }

    fn login(&self, login: PhoneLogin) -> Reply<'_, LoginOutcome> {
        self.note(format!(
            "login {} {} {} {} emcc={} from {} via={}",
            login.device,
            login.login_type,
            login.name,
            login.pin.as_ref().map_or("none", Pin::expose),
            login.emcc,
            login.caller.address,
            login.caller.via,
        ));
        Box::pin(async move {
            self.reached.notify_one();
            if let Some(gate) = &self.gate {
                gate.notified().await;
            }
            self.logins_decided.fetch_add(1, Ordering::SeqCst);
            match self.login {
                Ok("several") => Ok(LoginOutcome::Choose(Choice {
                    profiles: ["desk", "a <b> & c"]
                        .map(|name| ProfileName::new(name).unwrap())
                        .into(),
                    ticket: Ticket::from_bytes([0xC4; 16]),
                    reference: login.reference,
                })),
                Ok(user) => Ok(logged_in(user, login.reference).into()),
                Err(code) => Err(self.failure(code)),
            }
        })
    }

    fn choose(&self, choice: PhoneChoice) -> Reply<'_, LoginOutcome> {
        self.note(format!(
            "choose {} {} {} emcc={}",
            choice.device,
            choice
                .ticket
                .map_or_else(|| "none".to_owned(), |t| t.expose()),
            choice.entry,
            choice.emcc,
        ));
        Box::pin(async move {
            match self.login {
                Ok(user) => Ok(logged_in(user, choice.reference).into()),
                Err(code) => Err(self.failure(code)),
            }
        })
    }

    fn logout<'a>(&'a self, device: &'a str, _: Caller, _: Ref) -> Reply<'a, LoggedOut> {
        self.note(format!("logout {device}"));
        Box::pin(async {
            match self.logout {
                Ok(acknowledged) => Ok(LoggedOut {
                    user: UserId::new("ana").unwrap(),
                    home: ClusterId::new("berlin").unwrap(),
                    acknowledged,
                }),
                Err(code) => Err(self.failure(code)),
            }
        })
    }

    fn new_ref(&self) -> Ref {
        "7K3Q-9M2X".parse().unwrap()
    }

    fn knows_login_types(&self) -> bool {
        self.knows_login_types
    }
}

fn somebody() -> Result<PhoneState, EmCode> {
    Ok(PhoneState::LoggedIn {
        user: UserId::new("ana@example.org").unwrap(),
        home: ClusterId::new("berlin").unwrap(),
    })
}

fn app(desk: &Arc<Fake>) -> Router {
    router(Pages {
        desk: Arc::<Fake>::clone(desk),
        tasks: Tasks::default(),
        base_url: BaseUrl::new("https://10.9.8.7:8443").unwrap(),
    })
}

fn request(method: &str, path_and_query: &str) -> Request {
    let remote = SocketAddr::from(([10, 0, 0, 7], 40_000));
    http::Request::builder()
        .method(method)
        .uri(path_and_query)
        .header(header::HOST, HOST)
        .extension(ConnectInfo(remote))
        .body(Body::empty())
        .unwrap()
}

async fn send(desk: &Arc<Fake>, request: Request) -> (http::response::Parts, String) {
    let (parts, body) = app(desk).oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn get(desk: &Arc<Fake>, query: &str) -> String {
    let (parts, body) = send(desk, request("GET", &format!("{PATH}?{query}"))).await;
    assert_eq!(parts.status, StatusCode::OK);
    assert_is_page(&body);
    body
}

/// Well-formed, a phone object, and within the phone's limits.
fn assert_is_page(xml: &str) {
    let mut reader = Reader::from_str(xml);
    let (mut path, mut seen, mut text) = (Vec::new(), Vec::new(), String::new());
    loop {
        match reader.read_event().unwrap_or_else(|e| panic!("{e}: {xml}")) {
            Event::Start(e) => {
                path.push(e.name().as_ref().to_owned());
                text.clear();
            }
            Event::End(_) => {
                let name = path.pop().unwrap();
                seen.push(name.clone());
                let max = match name.as_str() {
                    "Name" if path.last().is_some_and(|parent| parent == "MenuItem") => 64,
                    "Title" | "Prompt" | "Name" | "DisplayName" | "QueryStringParam" => 32,
                    "URL" => 256,
                    "Text" => 4_000,
                    _ => continue,
                };
                assert!(text.chars().count() <= max, "{name} too long: {text}");
            }
            Event::Text(t) => text.push_str(&t),
            Event::GeneralRef(_) => text.push('&'),
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(path.is_empty(), "unclosed: {xml}");
    assert!(seen.last().unwrap().starts_with("CiscoIPPhone"), "{xml}");
}

fn assert_golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/golden/phone")
        .join(format!("{name}.xml"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        actual,
        expected,
        "{}; UPDATE_GOLDEN=1 rewrites it",
        path.display()
    );
}

#[tokio::test]
async fn every_page_is_as_agreed() {
    let with = |change: fn(&mut Fake)| {
        let mut fake = Fake::default();
        change(&mut fake);
        fake
    };
    let nobody = || Fake::default();
    let typed = "device=SEP00112233AABB&EMCC=true&loginType=UID&userid=ana&seq=48151623";
    let pages: Vec<(&str, Fake, &str)> = vec![
        ("form", nobody(), "device=SEP00112233AABB&EMCC=true"),
        (
            "form_uid",
            nobody(),
            "device=SEP00112233AABB&EMCC=true&loginType=UID",
        ),
        (
            "form_sp",
            nobody(),
            "device=SEP00112233AABB&EMCC=false&loginType=SP",
        ),
        ("form_dn", nobody(), "device=SEP00112233AABB&loginType=DN"),
        (
            "form_of_1_0",
            with(|f| f.knows_login_types = false),
            "device=SEP00112233AABB&EMCC=true&loginType=XX",
        ),
        (
            "logout_question",
            with(|f| f.state = somebody()),
            "device=SEP00112233AABB&EMCC=true&loginType=UID",
        ),
        ("login_done", nobody(), typed),
        (
            "login_done_markup",
            with(|f| f.login = Ok("<b>&amp;]]>\"'")),
            typed,
        ),
        ("login_choice", with(|f| f.login = Ok("several")), typed),
        (
            "logout_done",
            nobody(),
            "device=SEP00112233AABB&doLogout=true",
        ),
        (
            "logout_owed",
            with(|f| f.logout = Ok(false)),
            "device=SEP00112233AABB&doLogout=true",
        ),
        (
            "logout_nobody",
            with(|f| f.logout = Err(EmCode::NoUserLoggedIn)),
            "device=SEP00112233AABB&EMCC=true&doLogout=true",
        ),
        (
            "login_unknown_user",
            with(|f| f.login = Err(EmCode::UserDoesNotExist)),
            typed,
        ),
        (
            "login_several_users",
            with(|f| f.login = Err(EmCode::DnHasMultipleUsersRemote)),
            "device=SEP00112233AABB&EMCC=true&loginType=DN&userid=2001&seq=48151623",
        ),
        (
            "login_too_busy",
            with(|f| {
                f.login = Err(EmCode::Busy);
                f.retry_after = Some(Duration::from_millis(1_200));
            }),
            typed,
        ),
        (
            "login_under_way",
            with(|f| f.state = Ok(PhoneState::Busy)),
            "device=SEP00112233AABB",
        ),
        ("no_device", nobody(), "EMCC=true"),
        ("no_device_logout", nobody(), "device=&doLogout=true"),
        (
            "bad_login_type",
            nobody(),
            "device=SEP00112233AABB&loginType=uid",
        ),
        (
            "blank_pin",
            nobody(),
            "device=SEP00112233AABB&userid=ana&seq=",
        ),
        (
            "name_too_long",
            nobody(),
            concat!(
                "device=SEP00112233AABB&seq=48151623&userid=",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            ),
        ),
        (
            "broken_utf8",
            nobody(),
            "device=SEP00112233AABB&userid=%FF&seq=48151623",
        ),
        (
            "unknown_device",
            with(|f| f.state = Err(EmCode::DeviceDoesNotExist)),
            "device=SEP00112233AABB",
        ),
    ];
    for (name, fake, query) in pages {
        assert_golden(name, &get(&Arc::new(fake), query).await);
    }
}

#[tokio::test]
async fn a_page_carries_the_headers_that_phones_need() {
    let desk = Arc::new(Fake::default());
    let (parts, body) = send(&desk, request("GET", &format!("{PATH}?device=SEP1"))).await;
    let header = |name: header::HeaderName| parts.headers[name].to_str().unwrap();
    assert_eq!(header(header::CONTENT_TYPE), "text/xml; charset=UTF-8");
    assert_eq!(header(header::EXPIRES), "Sat, 01 Jan 2000 00:00:00 GMT");
    assert_eq!(header(header::CONTENT_LENGTH), body.len().to_string());
}

#[tokio::test]
async fn what_was_chosen_reaches_the_desk_and_nothing_that_was_typed_is_on_the_way() {
    let desk = Arc::new(Fake {
        login: Ok("several"),
        ..Fake::default()
    });
    let typed = format!("device=SEP1&EMCC=true&loginType=DN&userid=2001&seq={CANARY}");
    let menu = get(&desk, &typed).await;
    assert!(!menu.contains(CANARY) && !menu.contains("2001"), "{menu}");
    let ticket = "c4".repeat(16);
    for (entry, asked) in [("1", "1".to_owned()), ("x", usize::MAX.to_string())] {
        let desk = Arc::new(Fake::default());
        let query = format!("device=SEP1&EMCC=true&ticket={ticket}&profile={entry}");
        let page = get(&desk, &query).await;
        assert!(page.contains("Login successful"), "{page}");
        assert_eq!(
            desk.acts(),
            [format!("choose SEP1 {ticket} {asked} emcc=true")]
        );
    }
    let wrong = Arc::new(Fake {
        login: Err(EmCode::AuthenticationError),
        ..Fake::default()
    });
    let page = get(&wrong, "device=SEP1&ticket=abc&profile=0").await;
    assert!(page.contains("Please try to login again (201)"), "{page}");
    assert_eq!(wrong.acts(), ["choose SEP1 none 0 emcc=false"]);
}

#[tokio::test]
async fn what_was_typed_reaches_the_desk() {
    let desk = Arc::new(Fake::default());
    let query = "device=SEP1&EMCC=true&loginType=SP&userid=+ana%40x%2By+&seq=12%2345";
    let mut request = request("GET", &format!("{PATH}?{query}"));
    request
        .headers_mut()
        .insert(header::VIA, HeaderValue::from_static("1.1 proxy"));
    send(&desk, request).await;
    assert_eq!(
        desk.asked(),
        ["login SEP1 SP ana@x+y 12#45 emcc=true from 10.0.0.7 via=true"]
    );

    let desk = Arc::new(Fake::default());
    get(&desk, "userid=ana&seq=1234&device=SEP1&EMCC=%23EMCC%23").await;
    assert_eq!(
        desk.asked(),
        ["login SEP1 UID ana 1234 emcc=false from 10.0.0.7 via=false"]
    );
}

#[tokio::test]
async fn an_old_node_ignores_the_login_type() {
    let desk = Arc::new(Fake {
        knows_login_types: false,
        ..Fake::default()
    });
    get(&desk, "device=SEP1&loginType=DN&userid=2001&seq=1234").await;
    assert_eq!(
        desk.asked(),
        ["login SEP1 UID 2001 1234 emcc=false from 10.0.0.7 via=false"]
    );
}

#[tokio::test]
async fn head_never_acts_and_answers_like_the_start_page() {
    let desk = Arc::new(Fake::default());
    let form = get(&desk, "device=SEP1").await;
    for rest in [
        "",
        "&userid=ana&seq=48151623",
        "&doLogout=true",
        "&userid=%FF",
    ] {
        let uri = format!("{PATH}?device=SEP1{rest}");
        let (parts, body) = send(&desk, request("HEAD", &uri)).await;
        assert_eq!((parts.status, body.as_str()), (StatusCode::OK, ""));
        if !rest.contains('%') {
            assert_eq!(
                parts.headers[header::CONTENT_LENGTH],
                form.len().to_string()
            );
        }
    }
    assert_eq!(desk.acts(), Vec::<String>::new());
}

#[tokio::test]
async fn other_methods_and_paths_are_refused_without_a_page() {
    let desk = Arc::new(Fake::default());
    let query = "device=SEP1&userid=ana&seq=48151623";
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let (parts, body) = send(&desk, request(method, &format!("{PATH}?{query}"))).await;
        assert_eq!(parts.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(parts.headers[header::ALLOW], "GET, HEAD");
        assert!(!body.contains(CANARY));
    }
    for path in [
        "/",
        "/emapp/emappservlet",
        "/emapp/EMAppServlet/",
        "/emapp/EMAppServlet%3Fx",
    ] {
        let (parts, body) = send(&desk, request("GET", &format!("{path}?{query}"))).await;
        assert_eq!(parts.status, StatusCode::NOT_FOUND, "{path}");
        assert!(
            parts.headers[header::CONTENT_TYPE]
                .to_str()
                .unwrap()
                .starts_with("text/plain")
        );
        assert!(!body.contains(CANARY));
    }
    assert_eq!(desk.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn an_unknown_phone_gets_one_answer_whatever_was_typed() {
    let desk = Arc::new(Fake {
        state: Err(EmCode::DeviceDoesNotExist),
        login: Err(EmCode::DeviceDoesNotExist),
        ..Fake::default()
    });
    let expected = get(&desk, "device=SEP1&userid=ana&seq=1234").await;
    assert!(expected.contains("(11)"), "{expected}");
    let long = "9".repeat(200);
    for rest in [
        "userid=&seq=",
        "userid=%FF&seq=1",
        &format!("userid=bob&seq={long}"),
    ] {
        assert_eq!(get(&desk, &format!("device=SEP1&{rest}")).await, expected);
    }
}

#[tokio::test]
async fn what_cannot_be_typed_never_reaches_the_desk() {
    let long = "x".repeat(129);
    let cases = [
        ("userid=ana", "(202)"),
        ("seq=1234", "(202)"),
        ("userid=+&seq=1234", "(202)"),
        ("userid=ana&seq=++", "(202)"),
        ("userid=a%00b&seq=1234", "(202)"),
        ("userid=ana&seq=12%0034", "(202)"),
        (&format!("userid={long}&seq=1234"), "(202)"),
        (&format!("userid=ana&seq={long}"), "(202)"),
        ("userid=ana&userid=bob&seq=1234", "(1)"),
        ("userid=ana&seq=%C3", "(1)"),
        ("userid=ana&seq=1234&doLogout=%80", "(1)"),
    ];
    for (typed, code) in cases {
        let desk = Arc::new(Fake::default());
        let body = get(&desk, &format!("device=SEP1&{typed}")).await;
        assert!(body.contains(code), "{typed}: {body}");
        assert_eq!(desk.acts(), Vec::<String>::new(), "{typed}");
    }
}

#[tokio::test]
async fn a_device_name_that_cannot_be_one_is_unknown() {
    let long = "S".repeat(65);
    for device in [
        "%3Cscript%3E",
        "SEP%00",
        "SEP%20X",
        "%23DEVICENAME%23",
        &long,
    ] {
        let desk = Arc::new(Fake::default());
        let body = get(&desk, &format!("device={device}&userid=ana&seq=1234")).await;
        assert!(body.contains("(11)"), "{device}: {body}");
        assert!(!body.contains("Retry"), "{device}: {body}");
        assert_eq!(desk.asked(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_query_beyond_all_measure_is_refused() {
    let desk = Arc::new(Fake::default());
    let body = get(&desk, &format!("device=SEP1&userid={}", "x".repeat(60_000))).await;
    assert!(body.contains("(1)"), "{body}");
    assert_eq!(desk.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_logout_heeds_no_login_type() {
    let desk = Arc::new(Fake::default());
    let body = get(&desk, "device=SEP1&loginType=XX&doLogout=true").await;
    assert!(body.contains("Logout successful"), "{body}");
    assert_eq!(desk.asked(), ["logout SEP1"]);
}

#[tokio::test]
async fn the_form_leads_back_by_the_name_the_phone_used_if_it_is_sane() {
    let desk = Arc::new(Fake::default());
    for (host, expected) in [
        ("192.0.2.1:8443", "<URL>https://192.0.2.1:8443/emapp/"),
        ("a/b", "<URL>https://10.9.8.7:8443/emapp/"),
        ("\"><x>", "<URL>https://10.9.8.7:8443/emapp/"),
        ("b\u{fc}ro", "<URL>https://10.9.8.7:8443/emapp/"),
    ] {
        let mut request = request("GET", &format!("{PATH}?device=SEP1"));
        let value = HeaderValue::from_bytes(host.as_bytes()).unwrap();
        request.headers_mut().insert(header::HOST, value);
        let (_, body) = send(&desk, request).await;
        assert!(body.contains(expected), "{host}: {body}");
    }
}

#[tokio::test]
async fn a_login_goes_on_when_the_phone_hangs_up() {
    let desk = Arc::new(Fake {
        gate: Some(Notify::new()),
        ..Fake::default()
    });
    let tasks = Tasks::default();
    let pages = Pages {
        desk: Arc::<Fake>::clone(&desk),
        tasks: tasks.clone(),
        base_url: BaseUrl::new("https://10.9.8.7").unwrap(),
    };
    let uri = format!("{PATH}?device=SEP1&userid=ana&seq=1234");
    let answer = router(pages).oneshot(request("GET", &uri));
    tokio::select! {
        biased;
        _ = answer => panic!("answered before the login was decided"),
        () = desk.reached.notified() => {}
    }
    assert_eq!(desk.logins_decided.load(Ordering::SeqCst), 0);
    desk.gate.as_ref().unwrap().notify_one();
    tasks.shut_down(Duration::from_secs(10)).await;
    assert_eq!(desk.logins_decided.load(Ordering::SeqCst), 1);
}

/// A desk whose login dies.
#[tokio::test]
async fn a_login_that_dies_is_an_error_page() {
    struct Dies(Fake);
    impl Desk for Dies {
        fn phone_state<'a>(&'a self, device: &'a str) -> Reply<'a, PhoneState> {
            self.0.phone_state(device)
        }
        fn login(&self, _: PhoneLogin) -> Reply<'_, LoginOutcome> {
            Box::pin(async { panic!("on purpose") })
        }
        fn choose(&self, _: PhoneChoice) -> Reply<'_, LoginOutcome> {
            Box::pin(async { panic!("on purpose") })
        }
        fn logout<'a>(&'a self, _: &'a str, _: Caller, _: Ref) -> Reply<'a, LoggedOut> {
            Box::pin(async { panic!("on purpose") })
        }
        fn new_ref(&self) -> Ref {
            self.0.new_ref()
        }
        fn knows_login_types(&self) -> bool {
            true
        }
    }
    for (rest, text) in [
        ("userid=ana&seq=1234", "Login is unavailable(0)"),
        ("ticket=abc&profile=0", "Login is unavailable(0)"),
        ("doLogout=true", "Logout is unavailable(0)"),
    ] {
        let pages = Pages {
            desk: Arc::new(Dies(Fake::default())),
            tasks: Tasks::default(),
            base_url: BaseUrl::new("https://10.9.8.7").unwrap(),
        };
        let request = request("GET", &format!("{PATH}?device=SEP1&{rest}"));
        let answer = router(pages).oneshot(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains(text));
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_pin_is_on_no_page_and_in_no_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let refused = Fake {
        login: Err(EmCode::EmccAuthenticationError),
        ..Fake::default()
    };
    for desk in [Fake::default(), refused].map(Arc::new) {
        for query in [
            "device=SEP1&userid=ana&seq=48151623",
            "device=SEP1&userid=&seq=48151623",
            "device=SEP1&userid=%FF&seq=48151623",
            "device=SEP1&userid=ana&seq=48151623&seq=48151623",
            "device=SEP1&userid=ana&seq=48151623%00",
            "device=SEP1&loginType=48151623&seq=48151623",
            "seq=48151623",
            "device=SEP1&seq=48151623&doLogout=true",
        ] {
            assert!(!get(&desk, query).await.contains(CANARY), "{query}");
            for path in [format!("{PATH}%3F{query}"), format!("/{query}")] {
                let (_, body) = send(&desk, request("GET", &path)).await;
                assert!(!body.contains(CANARY), "{path}");
            }
        }
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        log.contains("refused on the phone") && log.contains("phone_request"),
        "{log}"
    );
    assert!(!log.contains(CANARY), "{log}");
    assert!(!log.contains("userid"), "{log}");
}

fn percent_encoded(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("%{b:02X}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever stands in the query, the answer is a page, and only a well-formed submission acts.
    #[test]
    fn any_query_gets_a_page(
        raw in proptest::collection::vec(any::<u8>(), 0..200),
        fields in proptest::collection::vec(
            (
                prop::sample::select(vec!["device", "EMCC", "loginType", "userid", "seq", "doLogout", "x"]),
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..40).prop_map(|b| percent_encoded(&b)),
                    any::<String>().prop_map(|s| percent_encoded(s.as_bytes())),
                    prop::sample::select(vec!["true", "SEP1", "UID", "DN", "", "%", "%3Cb%3E", "+"])
                        .prop_map(str::to_owned),
                ],
            ),
            0..8,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let structured: Vec<String> = fields.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let desk = Arc::new(Fake::default());
        runtime.block_on(get(&desk, &structured.join("&")));
        runtime.block_on(get(&desk, &percent_encoded(&raw)));
        let mut uri = format!("{PATH}?").into_bytes();
        uri.extend_from_slice(&raw);
        if let Ok(uri) = http::Uri::try_from(uri) {
            let mut request = request("GET", PATH);
            *request.uri_mut() = uri;
            let (parts, body) = runtime.block_on(send(&desk, request));
            prop_assert_eq!(parts.status, StatusCode::OK);
            assert_is_page(&body);
        }
    }

    /// Whatever a user is called, the page stays well-formed and shows it.
    #[test]
    fn any_user_id_gets_a_page(name in "[^\\p{C}\\s][^\\p{Cc}]{0,20}[^\\p{C}\\s]") {
        if let Ok(user) = UserId::new(name) {
            let state = Ok(PhoneState::LoggedIn { user, home: ClusterId::new("berlin").unwrap() });
            let desk = Arc::new(Fake { state, ..Fake::default() });
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let body = runtime.block_on(get(&desk, "device=SEP1"));
            prop_assert!(body.contains("Log out of this phone?"));
        }
    }
}
