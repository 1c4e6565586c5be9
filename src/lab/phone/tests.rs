//! The phone against the real pages, over real sockets, plain and with TLS.

use std::{convert::Infallible, net::SocketAddr, sync::Mutex};

use axum::Router;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    domain::{
        em_code::EmCode,
        ids::{ClusterId, ProfileName, Ref, UserId},
        login::HomeServices,
    },
    edge::phone::{BaseUrl, Desk, Pages, Reply, router},
    secret::Pin,
    tasks::Tasks,
    visiting::{
        Caller, Failure, LoggedIn, LoggedOut, LoginOutcome, PhoneChoice, PhoneLogin, PhoneState,
    },
};

/// One phone, one user, one PIN.
#[derive(Default)]
struct OneUser {
    on_the_phone: Mutex<Option<UserId>>,
}

impl OneUser {
    fn refuse<T>(code: EmCode, reference: Ref) -> Result<T, Failure> {
        Err(Failure {
            code,
            cause: "as told".to_owned(),
            reference,
            retry_after: None,
        })
    }
}

fn berlin() -> ClusterId {
    ClusterId::new("berlin").unwrap()
}

impl Desk for OneUser {
    fn phone_state<'a>(&'a self, _: &'a str) -> Reply<'a, PhoneState> {
        let user = self.on_the_phone.lock().unwrap().clone();
        Box::pin(async {
            Ok(match user {
                Some(user) => PhoneState::LoggedIn {
                    user,
                    home: berlin(),
                },
                None => PhoneState::Nobody,
            })
        })
    }

    fn choose(&self, choice: PhoneChoice) -> Reply<'_, LoginOutcome> {
        Box::pin(async move { Self::refuse(EmCode::AuthenticationError, choice.reference) })
    }

    fn login(&self, login: PhoneLogin) -> Reply<'_, LoginOutcome> {
        Box::pin(async move {
            let mut on_the_phone = self.on_the_phone.lock().unwrap();
            if on_the_phone.is_some() {
                return Self::refuse(EmCode::AnotherUserLoggedIn, login.reference);
            }
            if login.name != "anä & b" || login.pin.as_ref().map(Pin::expose) != Some("12#45") {
                return Self::refuse(EmCode::EmccAuthenticationError, login.reference);
            }
            let user_id = UserId::new("anä & b (9)").unwrap();
            *on_the_phone = Some(user_id.clone());
            let profile = ProfileName::new("udp").unwrap();
            Ok(LoggedIn {
                user_id: user_id.clone(),
                home: berlin(),
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
                reference: login.reference,
            }
            .into())
        })
    }

    fn logout<'a>(&'a self, _: &'a str, _: Caller, reference: Ref) -> Reply<'a, LoggedOut> {
        Box::pin(async move {
            match self.on_the_phone.lock().unwrap().take() {
                Some(user) => Ok(LoggedOut {
                    user,
                    home: berlin(),
                    acknowledged: true,
                }),
                None => Self::refuse(EmCode::NoUserLoggedIn, reference),
            }
        })
    }

    fn new_ref(&self) -> Ref {
        "7K3Q-9M2X".parse().unwrap()
    }

    fn knows_login_types(&self) -> bool {
        true
    }
}

struct Server {
    address: SocketAddr,
    tasks: Tasks,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::default();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let app = router(Pages {
            desk: Arc::new(OneUser::default()),
            tasks: tasks.clone(),
            base_url: BaseUrl::new(&format!("{scheme}://{address}")).unwrap(),
        });
        let connections = tasks.clone();
        tasks.spawn("test-server", async move {
            loop {
                let accepted = tokio::select! {
                    () = connections.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let ((stream, _), app, tls) = (accepted.unwrap(), app.clone(), tls.clone());
                connections.spawn("test-connection", async move {
                    let Some(tls) = tls else {
                        return serve(stream, app).await;
                    };
                    // A client that refuses our certificate ends the handshake.
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, app).await;
                    }
                });
            }
        });
        Self { address, tasks }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, app: Router) {
    let service = TowerToHyperService::new(tower::service_fn(
        move |request: http::Request<hyper::body::Incoming>| {
            let app = app.clone();
            async move {
                tower::ServiceExt::oneshot(app, request)
                    .await
                    .map_err(|e: Infallible| e)
            }
        },
    ));
    // How a connection ends is of no interest here.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A self-signed certificate as Tomcat makes them, which says that it is a CA.
fn tomcat_like(names: &[&str]) -> (rcgen::Certificate, CertificateParams, KeyPair) {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap(), params, key)
}

fn acceptor(certificate: &rcgen::Certificate, key: &KeyPair) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn a_user_logs_in_and_out() {
    let server = Server::start(None).await;
    let phone = Phone::plain(&format!("http://{}", server.address)).unwrap();
    let form = phone
        .login_form("SEP1", Some(LoginType::Extension))
        .await
        .unwrap();
    assert!(form.is_form());
    assert_eq!(form.inputs.len(), 2);
    let expected = format!(
        "http://{}/emapp/EMAppServlet?device=SEP1&EMCC=true&loginType=DN",
        server.address
    );
    assert_eq!(form.url.as_deref(), Some(expected.as_str()));

    let shown = phone.login("SEP1", None, "anä & b", "12#45").await.unwrap();
    assert_eq!(
        (shown.status, shown.object.as_str()),
        (200, "CiscoIPPhoneText")
    );
    assert_eq!(shown.headline(), "Login successful");
    assert!(
        shown
            .text
            .contains("User ID: anä & b (9)\nHome cluster: berlin")
    );
    assert_eq!(
        (shown.em_code, shown.reference.as_deref()),
        (None, Some("7K3Q-9M2X"))
    );
    assert!(shown.ms() > 0.0);

    let question = phone.login("SEP1", None, "anä & b", "12#45").await.unwrap();
    assert_eq!(question.prompt, "Log out?");
    let second = phone
        .login_at_once("SEP1", None, "anä & b", "12#45")
        .await
        .unwrap();
    assert_eq!(second.em_code, Some(18));

    let shown = phone.logout("SEP1").await.unwrap();
    assert_eq!(shown.headline(), "Logout successful");
    let shown = phone.logout("SEP1").await.unwrap();
    assert_eq!(shown.em_code, Some(19));
}

#[tokio::test]
async fn a_refusal_is_shown_with_its_code_and_ref() {
    let server = Server::start(None).await;
    let phone = Phone::plain(&format!("http://{}/", server.address)).unwrap();
    let shown = phone.login("SEP1", None, "anä & b", "9999").await.unwrap();
    assert_eq!(
        (shown.em_code, shown.reference.as_deref()),
        (Some(2), Some("7K3Q-9M2X"))
    );
    assert_eq!(shown.headline(), "Login is unavailable(2)");
    let again = phone.press(&shown, "Retry").await.unwrap();
    assert!(again.is_form());
    assert!(phone.press(&shown, "Exit").await.is_err());
    assert!(phone.fill_in(&shown, &["x"]).await.is_err());

    let broken = phone
        .raw_get("/emapp/EMAppServlet?device=SEP1&userid=%FF%00&seq=1")
        .await
        .unwrap();
    assert_eq!(broken.em_code, Some(1));
    let missing = phone.raw_get("/nothing").await.unwrap();
    assert_eq!(
        (missing.status, missing.object.as_str(), missing.em_code),
        (404, "", None)
    );
    let head = phone
        .head("/emapp/EMAppServlet?device=SEP1&EMCC=true&userid=x&seq=1")
        .await
        .unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(head.content_length, Some(again.body.len() as u64));
}

#[tokio::test]
async fn a_ten_megabyte_query_gets_an_answer_and_the_next_one_too() {
    let server = Server::start(None).await;
    let base = format!("http://{}", server.address);
    let head = format!(
        "GET /emapp/EMAppServlet?device=SEP1&userid={} HTTP/1.1\r\nHost: x\r\n\r\n",
        "x".repeat(10 << 20)
    );
    let mut stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let (mut read, mut write) = stream.split();
    // The server may close before it has read all of it.
    let sent = async {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut write, head.as_bytes()).await;
    };
    let mut answer = [0; 12];
    let received = tokio::io::AsyncReadExt::read_exact(&mut read, &mut answer);
    let (_, received) = tokio::join!(sent, received);
    received.unwrap();
    assert!(
        matches!(&answer, b"HTTP/1.1 414" | b"HTTP/1.1 431"),
        "{answer:?}"
    );
    let phone = Phone::plain(&base).unwrap();
    assert!(phone.login_form("SEP1", None).await.unwrap().is_form());
}

#[tokio::test]
async fn a_self_signed_server_is_known_by_its_certificate_alone() {
    let (certificate, _, key) = tomcat_like(&["elsewhere.example"]);
    let server = Server::start(Some(acceptor(&certificate, &key))).await;
    let base = format!("https://{}", server.address);
    let phone = Phone::https(&base, &certificate.pem()).unwrap();
    assert!(phone.login_form("SEP1", None).await.unwrap().is_form());

    let (other, _, _) = tomcat_like(&["127.0.0.1"]);
    let phone = Phone::https(&base, &other.pem()).unwrap();
    let error = phone
        .login_at_once("SEP1", None, "ana", "48151623")
        .await
        .unwrap_err();
    let chain = format!("{error:?} {error}");
    assert!(matches!(error, Error::Http(_)), "{chain}");
    assert!(!chain.contains("48151623"), "{chain}");
}

#[tokio::test]
async fn a_certificate_of_the_given_ca_must_name_the_host() {
    let (ca, params, ca_key) = tomcat_like(&["the CA"]);
    let issuer = Issuer::new(params, ca_key);
    for (name, is_accepted) in [("127.0.0.1", true), ("127.0.0.2", false)] {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let server = Server::start(Some(acceptor(&leaf, &key))).await;
        let phone = Phone::https(&format!("https://{}", server.address), &ca.pem()).unwrap();
        let form = phone.login_form("SEP1", None).await;
        assert_eq!(form.is_ok(), is_accepted, "{name}: {form:?}");
    }
}

#[test]
fn what_cannot_be_a_phone_is_refused() {
    let (certificate, ..) = tomcat_like(&["x"]);
    for base in ["", "10.0.0.1", "http://h", "https://h/path", "https://h?x"] {
        let phone = Phone::https(base, &certificate.pem());
        assert!(matches!(phone, Err(Error::BaseUrl)), "{base}");
    }
    assert!(matches!(Phone::plain("https://h"), Err(Error::BaseUrl)));
    for pem in [
        "",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    ] {
        let phone = Phone::https("https://h", pem);
        assert!(matches!(phone, Err(Error::Certificate(_))), "{pem}");
    }
}

#[test]
fn the_code_is_read_from_the_headline_alone() {
    for (headline, code) in [
        ("Login is unavailable(23)", Some(23)),
        ("Please try to login again (201)", Some(201)),
        ("[209]-Change PIN", Some(209)),
        ("Login successful", None),
        ("(x)", None),
    ] {
        assert_eq!(em_code_in(headline), code, "{headline}");
    }
    let page = "<CiscoIPPhoneText><Text>Login successful\nUser ID: (23)</Text></CiscoIPPhoneText>";
    assert_eq!(read_page(page).unwrap().em_code, None);
}

#[test]
fn a_page_that_is_not_well_formed_is_an_error() {
    for xml in ["", "<a>", "<a></b>", "<a/><", "<a>&nope;</a>"] {
        assert!(read_page(xml).is_err(), "{xml}");
    }
}
