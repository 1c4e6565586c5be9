//! The federation port: messages that are none, of the future, or out of bounds.

use bytes::Bytes;
use emccd::wire::pb;
use http::{Request, header};
use http_body_util::Full;
use prost::Message as _;
use tonic::Code;

use super::{
    assert_unharmed, log_of,
    raw::{Answer, Raw, find, frame, request},
    victim,
};

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
