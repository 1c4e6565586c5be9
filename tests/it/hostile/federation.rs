//! The federation port: messages that are none, connections that are none, and too much of everything.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use emccd::{
    lab::{Cluster, Lab},
    wire::{admin, pb},
};
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{PATIENCE, assert_unharmed, log_of, victim};

const SERVICE: &str = "/emcc.federation.v1.FederationService";

/// Who dials: with the identity of a cluster's node, or with none.
fn tls_config(
    server: &Cluster,
    caller: Option<&Cluster>,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&server.authority.file).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match caller {
        None => config.with_no_client_auth(),
        Some(cluster) => {
            let node = cluster.member().unwrap();
            let chain = vec![CertificateDer::from_pem_file(&node.federation_certificate).unwrap()];
            let key = PrivateKeyDer::from_pem_file(&node.federation_key).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn tcp(server: &Cluster) -> TcpStream {
    TcpStream::connect(&server.member().unwrap().addresses.federation)
        .await
        .unwrap()
}

async fn dial(server: &Cluster, caller: Option<&Cluster>) -> TlsStream<TcpStream> {
    let connector = TlsConnector::from(Arc::new(tls_config(server, caller, &TLS13)));
    connector
        .connect(
            ServerName::try_from("127.0.0.1").unwrap(),
            tcp(server).await,
        )
        .await
        .unwrap()
}

/// A connection of the second cluster to the first that sends any bytes in any request.
struct Raw {
    send: SendRequest<Full<Bytes>>,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    http: u16,
    status: Option<Status>,
    body: Bytes,
}

impl Answer {
    fn status(&self) -> &Status {
        self.status
            .as_ref()
            .unwrap_or_else(|| panic!("no gRPC status: {self:?}"))
    }

    fn em_code(&self) -> Option<String> {
        self.status()
            .get_details_error_info()?
            .metadata
            .get("em_code")
            .cloned()
    }

    /// The message of a success.
    fn message<M: prost::Message + Default>(&self) -> M {
        assert_eq!(self.status().code(), Code::Ok, "{self:?}");
        M::decode(&self.body[5..]).unwrap()
    }
}

impl Raw {
    async fn connect(lab: &Lab) -> Self {
        let stream = dial(&lab.clusters[0], Some(&lab.clusters[1])).await;
        let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self { send }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        let what = format!("{} {}", request.method(), request.uri());
        let exchange = async {
            self.send.ready().await.unwrap();
            let answer = self.send.send_request(request).await.unwrap();
            let (head, body) = answer.into_parts();
            let collected = body.collect().await.unwrap();
            let status = Status::from_header_map(&head.headers)
                .or_else(|| collected.trailers().and_then(Status::from_header_map));
            Answer {
                http: head.status.as_u16(),
                status,
                body: collected.to_bytes(),
            }
        };
        timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| panic!("{what} was never answered"))
    }

    async fn call(&mut self, method: &str, body: impl Into<Bytes>) -> Answer {
        let body = body.into();
        self.send(request(method).body(Full::new(body)).unwrap())
            .await
    }

    /// A call with a message that is well formed as far as protobuf goes.
    async fn message(&mut self, method: &str, message: &impl prost::Message) -> Answer {
        self.call(method, frame(&message.encode_to_vec())).await
    }
}

fn request(method: &str) -> http::request::Builder {
    Request::post(format!("https://127.0.0.1{SERVICE}/{method}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header("te", "trailers")
        .header("emcc-version", "1.1")
}

/// A message as gRPC sends it: not compressed, its length, its bytes.
fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), message].concat()
}

fn find(name: &str) -> pb::FindUserRequest {
    pb::FindUserRequest {
        login_type: pb::LoginType::Uid.into(),
        name: name.to_owned(),
    }
}

/// A login of ana.berlin that would be good but for the change.
fn login(change: impl FnOnce(&mut pb::LoginRequest)) -> pb::LoginRequest {
    let mut login = pb::LoginRequest::default();
    login.session_id = uuid::Uuid::now_v7().as_bytes().to_vec();
    login.name = "ana.berlin".to_owned();
    login.pin = "48151623".to_owned();
    login.device = device("SEP001", "");
    change(&mut login);
    login
}

fn device(name: &str, model: &str) -> Option<pb::Device> {
    let (name, model) = (name.to_owned(), model.to_owned());
    Some(pb::Device {
        name,
        model,
        ..pb::Device::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_are_answered_with_an_error() {
    let lab = victim().await;
    let mut raw = Raw::connect(&lab).await;
    let broken: [(&str, Vec<u8>); 9] = [
        ("nothing at all", vec![]),
        ("half of a length", vec![0, 0, 0]),
        (
            "a length and not all of its bytes",
            vec![0, 0, 0, 0, 100, 10, 3, b'a'],
        ),
        ("no protobuf", frame(&[0xff; 40])),
        ("a field longer than the message", frame(&[0x0a, 0x7f, 1])),
        ("a field cut off", frame(&[0x0a])),
        ("groups within groups", frame(&[0x0b; 10_000])),
        (
            "compressed, with no algorithm agreed",
            vec![1, 0, 0, 0, 2, 10, 0],
        ),
        ("4 GiB announced", vec![0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]),
    ];
    for method in ["Hello", "Watch", "FindUser", "Login", "Logout"] {
        for (what, body) in &broken {
            let answer = raw.call(method, body.clone()).await;
            let status = answer.status();
            let told = format!("{method}, {what}: {status:?}");
            let codes = [
                Code::Internal,
                Code::InvalidArgument,
                Code::OutOfRange,
                Code::Unimplemented,
            ];
            assert!(codes.contains(&status.code()), "{told}");
            assert!(!status.message().is_empty(), "{told}");
        }
        let answer = raw.call(method, frame(&vec![b'x'; 1 << 20])).await;
        assert_eq!(
            answer.status().code(),
            Code::OutOfRange,
            "{method}: {answer:?}"
        );
    }
    for broken in [&[0x12, 2, 0xc3, 0x28][..], &[0x10, 1]] {
        let answer = raw.call("FindUser", frame(broken)).await;
        assert_eq!(
            answer.status().code(),
            Code::Internal,
            "a name in no UTF-8, a number for a name: {answer:?}"
        );
    }
    // Not one of them has cost the connection.
    let answer = raw.message("FindUser", &find("ana.berlin")).await;
    let found: pb::FindUserResponse = answer.message();
    assert_eq!(found.ownership(), pb::Ownership::Mine);
    assert_unharmed(&lab).await;
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_version_adds_is_ignored_and_what_nobody_serves_is_unimplemented() {
    let lab = victim().await;
    let mut raw = Raw::connect(&lab).await;
    // Field 2047: a number, a text and a message within a message.
    let mut later = find("ana.berlin").encode_to_vec();
    for addition in [
        &[0xf8, 0x7f, 5][..],
        &[0xfa, 0x7f, 3, b'n', b'e', b'w'],
        &[0xfa, 0x7f, 4, 0x0a, 2, 8, 1],
    ] {
        later.extend_from_slice(addition);
    }
    let found: pb::FindUserResponse = raw.call("FindUser", frame(&later)).await.message();
    assert_eq!(found.ownership(), pb::Ownership::Mine);

    let body = frame(&find("ana.berlin").encode_to_vec());
    for method in ["ChangePin", "Nothing", "finduser", ""] {
        let answer = raw.call(method, body.clone()).await;
        assert_eq!(
            answer.status().code(),
            Code::Unimplemented,
            "{method}: {answer:?}"
        );
    }
    for path in [
        "/",
        "/emcc.admin.v1.AdminService/Apply",
        "/../../etc/passwd",
        "/%00/%ff",
        "//",
    ] {
        let request = Request::post(format!("https://127.0.0.1{path}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .body(Full::new(body.clone().into()))
            .unwrap();
        let answer = raw.send(request).await;
        assert_eq!(
            answer.status().code(),
            Code::Unimplemented,
            "{path}: {answer:?}"
        );
    }

    let shaped = |name: header::HeaderName, value: &[u8]| {
        let mut shaped = request("FindUser")
            .body(Full::new(Bytes::from(body.clone())))
            .unwrap();
        shaped
            .headers_mut()
            .insert(name, http::HeaderValue::from_bytes(value).unwrap());
        shaped
    };
    // Who speaks something else than gRPC is told so by the means of HTTP or of gRPC, and gets no answer.
    for content_type in ["text/plain", "application/json", "application/grpc-web"] {
        let answer = raw
            .send(shaped(header::CONTENT_TYPE, content_type.as_bytes()))
            .await;
        let is_served = answer.status.as_ref().is_some_and(|s| s.code() == Code::Ok);
        assert!(
            answer.http == 415 && !is_served,
            "{content_type}: {answer:?}"
        );
    }
    let mut get = shaped(header::CONTENT_TYPE, b"application/grpc");
    *get.method_mut() = http::Method::GET;
    let answer = raw.send(get).await;
    assert!(answer.http == 405, "{answer:?}");

    let odd = |name: &'static str| header::HeaderName::from_static(name);
    // A claim that can't be read is no claim of ours; a version that can't be read is no version.
    for (name, value, em_code) in [
        ("emcc-cluster-id", &b"\xff\xfe"[..], "42"),
        ("emcc-cluster-id", b"tokyo berlin", "42"),
        ("emcc-cluster-id", b"", "42"),
        ("emcc-version", b"one", "1"),
        ("emcc-version", b"1.1.1", "1"),
        ("emcc-version", b"99999999999999999999.0", "1"),
    ] {
        let answer = raw.send(shaped(odd(name), value)).await;
        assert_eq!(
            answer.em_code().as_deref(),
            Some(em_code),
            "{name} {value:?}: {answer:?}"
        );
    }
    // The reference is for people: a bad one is replaced, not refused. A deadline that can't be read is none.
    for (name, value) in [
        ("emcc-ref", &b"<script>"[..]),
        ("emcc-ref", b"\xff"),
        ("grpc-timeout", b"soon"),
        ("grpc-timeout", b"99999999999S"),
    ] {
        let found: pb::FindUserResponse = raw.send(shaped(odd(name), value)).await.message();
        assert_eq!(found.ownership(), pb::Ownership::Mine, "{name} {value:?}");
    }
    let answer = raw.send(shaped(odd("grpc-timeout"), b"0n")).await;
    assert_eq!(answer.status().code(), Code::DeadlineExceeded, "{answer:?}");
    assert_unharmed(&lab).await;
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_out_of_bounds_are_em_code_1_and_are_not_repeated() {
    let lab = victim().await;
    let mut raw = Raw::connect(&lab).await;
    let refused = |what: String, field: &str, answer: &Answer, secret: &str| {
        assert_eq!(answer.em_code().as_deref(), Some("1"), "{what}: {answer:?}");
        let status = answer.status();
        assert_eq!(
            status.code(),
            Code::FailedPrecondition,
            "{what}: {answer:?}"
        );
        assert!(status.message().contains(field), "{what}: {status:?}");
        assert!(
            secret.is_empty() || !status.message().contains(secret),
            "{what}: {status:?}"
        );
    };

    let long = "x".repeat(129);
    for name in [
        "",
        " ",
        " ana",
        "ana\0",
        "a\u{1b}[2Jb",
        "a\nb",
        &long,
        &"ü".repeat(65),
        &"y".repeat(60_000),
    ] {
        let what = format!("the name {name:.20?}");
        let secret = if name.trim().len() > 3 { name } else { "" };
        refused(
            what.clone(),
            "name",
            &raw.message("FindUser", &find(name)).await,
            secret,
        );
        refused(
            what,
            "name",
            &raw.message("Login", &login(|l| l.name = name.to_owned()))
                .await,
            secret,
        );
    }
    for length in [0, 1, 15, 17, 32, 10_000] {
        let session_id = vec![7; length];
        let what = format!("a session id of {length} bytes");
        let asked = login(|l| l.session_id.clone_from(&session_id));
        refused(
            what.clone(),
            "session_id",
            &raw.message("Login", &asked).await,
            "",
        );
        let asked = pb::LogoutRequest {
            session_id: session_id.clone(),
            reason: pb::EndReason::User.into(),
            initiator: pb::Initiator::Visiting.into(),
        };
        refused(
            what.clone(),
            "session_id",
            &raw.message("Logout", &asked).await,
            "",
        );
        let asked = login(|l| l.supersedes = vec![session_id]);
        refused(what, "supersedes", &raw.message("Login", &asked).await, "");
    }
    let odd = [
        ("pin", login(|l| l.pin = "4\0".repeat(4))),
        ("pin", login(|l| l.pin = "4".repeat(129))),
        ("pin", login(|l| l.pin = String::new())),
        ("device", login(|l| l.device = None)),
        ("device.name", login(|l| l.device = device("SEP 1;--", ""))),
        ("device.name", login(|l| l.device = device("", ""))),
        ("device.model", login(|l| l.device = device("SEP1", &long))),
        ("profile", login(|l| l.profile.clone_from(&long))),
        (
            "supersedes",
            login(|l| l.supersedes = vec![vec![7; 16]; 65]),
        ),
        ("login_type", login(|l| l.login_type = 77)),
        ("login_type", login(|l| l.login_type = -1)),
        (
            "geolocation",
            login(|l| l.geolocation = (0..25).map(|n| (format!("A{n}"), "x".to_owned())).collect()),
        ),
        (
            "geolocation",
            login(|l| l.geolocation = [("A1".to_owned(), long.clone())].into()),
        ),
    ];
    for (field, asked) in odd {
        let pin = asked.pin.clone();
        refused(
            format!("{field} of a login"),
            field,
            &raw.message("Login", &asked).await,
            &pin,
        );
    }
    let asked = pb::FindUserRequest {
        login_type: 77,
        ..find("ana.berlin")
    };
    refused(
        "a login type of the future".to_owned(),
        "login_type",
        &raw.message("FindUser", &asked).await,
        "",
    );
    let end = |reason, initiator| pb::LogoutRequest {
        session_id: vec![7; 16],
        reason,
        initiator,
    };
    for initiator in [0, 77] {
        let answer = raw.message("Logout", &end(1, initiator)).await;
        refused(format!("a logout by {initiator}"), "initiator", &answer, "");
    }
    // A reason that a later version has added is an end all the same.
    let ended: pb::LogoutResponse = raw.message("Logout", &end(77, 2)).await.message();
    assert_eq!(ended.reason(), pb::EndReason::Abandoned);
    for asked in [
        pb::HelloRequest {
            node: "n\u{1b}[31m".to_owned(),
            ..hello()
        },
        pb::HelloRequest {
            node: "n".repeat(256),
            ..hello()
        },
        pb::HelloRequest {
            software: "s".repeat(256),
            ..hello()
        },
        pb::HelloRequest {
            capabilities: vec!["c".to_owned(); 65],
            ..hello()
        },
        pb::HelloRequest {
            cluster_id: String::new(),
            ..hello()
        },
        pb::HelloRequest {
            cluster_id: "../tokyo".to_owned(),
            ..hello()
        },
    ] {
        let answer = raw.message("Hello", &asked).await;
        refused(format!("{asked:.60?}"), "must be", &answer, "");
    }
    // Nothing was begun by any of it.
    for cluster in &lab.clusters {
        assert!(
            cluster
                .admin()
                .await
                .unwrap()
                .living()
                .await
                .unwrap()
                .is_empty()
        );
    }
    assert!(
        !log_of(&lab.clusters[0]).contains("4\\u{0}4")
            && !log_of(&lab.clusters[0]).contains("48151623")
    );
    assert_unharmed(&lab).await;
    lab.shut_down().await;
}

fn hello() -> pb::HelloRequest {
    pb::HelloRequest {
        cluster_id: "tokyo".to_owned(),
        node: "n".to_owned(),
        ..pb::HelloRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_federation_connection_is_named_in_log_and_status() {
    let lab = victim().await;
    let berlin = &lab.clusters[0];
    for begin in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 100],
        b"\x80",
    ] {
        assert_closed(tcp(berlin).await, begin).await;
    }
    // What begins like TLS and is none afterwards, and what is empty, is closed without a word.
    for begin in [
        &[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5][..],
        &[0x16, 3, 1, 0xff, 0xff, 1],
        &[0x16],
    ] {
        assert_closed(tcp(berlin).await, begin).await;
    }
    let old = TlsConnector::from(Arc::new(tls_config(berlin, Some(&lab.clusters[1]), &TLS12)));
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let refused = old.connect(name, tcp(berlin).await).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .to_lowercase()
            .contains("protocolversion"),
        "{refused}"
    );

    let status = berlin
        .admin()
        .await
        .unwrap()
        .status(admin::GetClusterStatusRequest {})
        .await
        .unwrap();
    let log = log_of(berlin);
    for (word, hint) in [("plaintext", "https"), ("tls_version", "TLS 1.3")] {
        let told = status.refusals.iter().find(|r| r.rejection == word);
        let told = told.unwrap_or_else(|| panic!("{word}: {status:?}"));
        assert!(told.hint.contains(hint), "{told:?}");
        assert!(
            log.lines()
                .any(|l| l.contains("refused the caller") && l.contains(word)),
            "{word}:\n{log}"
        );
    }
    assert_unharmed(&lab).await;
    lab.shut_down().await;
}

/// That the node closes a connection that begins with these bytes.
async fn assert_closed(mut stream: TcpStream, begin: &[u8]) {
    stream.write_all(begin).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end as well.
    let ended = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "{begin:?}: the connection stays open");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_no_hindrance_to_others() {
    let lab = victim().await;
    let berlin = &lab.clusters[0];
    let (mut silent, mut strangers, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..200 {
        silent.push(tcp(berlin).await);
    }
    for _ in 0..100 {
        strangers.push(dial(berlin, None).await);
        peers.push(dial(berlin, Some(&lab.clusters[1])).await);
    }
    assert_unharmed(&lab).await;
    let mut raw = Raw::connect(&lab).await;
    let found: pb::FindUserResponse = raw.message("FindUser", &find("ana.berlin")).await.message();
    assert_eq!(found.ownership(), pb::Ownership::Mine);
    // Silence and strangers have an end; who is known may stay.
    for mut stream in silent {
        timeout(PATIENCE, stream.read(&mut [0; 16]))
            .await
            .expect("a silent connection stays open")
            .ok();
    }
    for mut stream in strangers {
        let ended = async { while matches!(stream.read(&mut [0; 256]).await, Ok(1..)) {} };
        timeout(PATIENCE, ended)
            .await
            .expect("a stranger's connection stays open");
    }
    drop(peers);
    assert_unharmed(&lab).await;
    lab.shut_down().await;
}

/// HTTP/2 by hand: the frames that no library would send.
mod frames {
    pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    pub const END_HEADERS: u8 = 4;

    pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    pub fn settings() -> Vec<u8> {
        frame(4, 0, 0, &[])
    }

    pub fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
        frame(1, flags, stream, block)
    }

    pub fn reset(stream: u32) -> Vec<u8> {
        frame(3, 0, stream, &8_u32.to_be_bytes())
    }

    /// One header after the other, none of them indexed, none of them compressed.
    pub fn block(headers: &[(&str, &str)]) -> Vec<u8> {
        let text = |t: &str| [&[u8::try_from(t.len()).unwrap()], t.as_bytes()].concat();
        headers
            .iter()
            .flat_map(|(name, value)| [vec![0], text(name), text(value)].concat())
            .collect()
    }

    pub fn call() -> Vec<u8> {
        block(&[
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "127.0.0.1"),
            (":path", "/emcc.federation.v1.FederationService/FindUser"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ])
    }
}

/// Sends all of it while it reads, until the node ends the connection; whether it said goodbye with a reason.
async fn flood(
    stream: TlsStream<TcpStream>,
    mut next: impl FnMut(u32) -> Option<Vec<u8>>,
) -> Option<u32> {
    let (mut from, mut to) = tokio::io::split(stream);
    let read = async {
        let mut answer = Vec::new();
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..count]);
        }
        answer
    };
    let write = async {
        let mut number = 0;
        while let Some(bytes) = next(number) {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
            number += 1;
        }
        // What was sent may still wait in the TLS session.
        let _ = to.flush().await;
    };
    let (answer, ()) = timeout(PATIENCE, async { tokio::join!(read, write) })
        .await
        .expect("the flood was never ended");
    goodbye(&answer)
}

/// The error of the last GOAWAY frame.
fn goodbye(mut answer: &[u8]) -> Option<u32> {
    let mut error = None;
    while let Some((head, rest)) = answer.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, rest) = rest.split_at_checked(length)?;
        if head[3] == 7 {
            error = payload
                .get(4..8)
                .map(|e| u32::from_be_bytes(e.try_into().unwrap()));
        }
        answer = rest;
    }
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_and_endless_headers_end_that_connection_only() {
    const ENHANCE_YOUR_CALM: u32 = 11;
    let lab = victim().await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let begin = || [frames::PREFACE, &frames::settings()].concat();
    let call = frames::call();

    let stream = dial(berlin, Some(tokyo)).await;
    let error = flood(stream, |n| {
        let id = 2 * n + 1;
        let one = [
            frames::headers(id, frames::END_HEADERS, &call),
            frames::reset(id),
        ]
        .concat();
        match n {
            0 => Some([begin(), one].concat()),
            1..100_000 => Some(one),
            _ => None,
        }
    });
    assert_eq!(error.await, Some(ENHANCE_YOUR_CALM));

    // A header block that is continued for ever.
    let more = frames::block(&[("x", &"y".repeat(100))]).repeat(100);
    let stream = dial(berlin, Some(tokyo)).await;
    let error = flood(stream, |n| match n {
        0 => Some([begin(), frames::headers(1, 0, &call)].concat()),
        1..10_000 => Some(frames::frame(9, 0, 1, &more)),
        _ => None,
    });
    assert!(error.await.is_some(), "ended without a reason");

    // No HTTP/2 at all: there is nobody to say goodbye to.
    let mut once = Some(b"no preface, but 24 bytes or more of something else".to_vec());
    flood(dial(berlin, Some(tokyo)).await, |_| once.take()).await;

    // Frames that come out of order, are too long, or belong to nothing.
    let odd = [
        [
            begin(),
            frames::frame(0, 0, 0, b"data of the connection itself"),
        ]
        .concat(),
        [
            begin(),
            frames::frame(0, 0, 1, b"data of a stream that was never opened"),
        ]
        .concat(),
        [begin(), frames::frame(9, 0, 1, b"continues nothing")].concat(),
        [
            begin(),
            frames::headers(1, frames::END_HEADERS, &[0xff; 50]),
        ]
        .concat(),
        [begin(), frames::headers(2, frames::END_HEADERS, &call)].concat(),
        [begin(), vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
        [begin(), frames::frame(8, 0, 0, &[0, 0, 0, 0])].concat(),
        [begin(), frames::frame(4, 0, 0, b"odd")].concat(),
    ];
    for bytes in odd {
        let stream = dial(berlin, Some(tokyo)).await;
        let mut once = Some(bytes.clone());
        let error = flood(stream, |_| once.take()).await;
        assert!(
            error.is_some_and(|e| e != 0),
            "{error:?} for {:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
    assert_unharmed(&lab).await;
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_are_refused_and_half_a_request_keeps_nobody_waiting() {
    let lab = victim().await;
    let mut raw = Raw::connect(&lab).await;
    let mut fat = request("FindUser")
        .body(Full::new(Bytes::from(frame(&[]))))
        .unwrap();
    for n in 0..200 {
        let name = header::HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap();
        fat.headers_mut()
            .insert(name, http::HeaderValue::from_str(&"y".repeat(100)).unwrap());
    }
    let sent = async {
        raw.send.ready().await.unwrap();
        raw.send.send_request(fat).await
    };
    match timeout(PATIENCE, sent)
        .await
        .expect("fat headers were never answered")
    {
        Ok(answer) => assert_eq!(answer.status().as_u16(), 431),
        // The stream alone may be reset as well.
        Err(error) => assert!(!error.is_timeout(), "{error}"),
    }
    // Calls that were begun and not finished: their senders wait, nobody else.
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let stream = dial(&lab.clusters[0], Some(&lab.clusters[1])).await;
        let (_, mut to) = tokio::io::split(stream);
        let mut begun = [frames::PREFACE, &frames::settings()].concat();
        for n in 0..50 {
            begun.extend(frames::headers(
                2 * n + 1,
                frames::END_HEADERS,
                &frames::call(),
            ));
        }
        to.write_all(&begun).await.unwrap();
        to.flush().await.unwrap();
        waiting.push(to);
    }
    tokio::time::timeout(Duration::from_secs(30), assert_unharmed(&lab))
        .await
        .unwrap();
    drop(waiting);
    lab.shut_down().await;
}
