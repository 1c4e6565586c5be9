//! The phone port: requests that no phone would send.

use std::{sync::Arc, time::Duration};

use emccd::lab::{Cluster, Lab, member::Member, phone};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{living, tls::client_config};

use super::{PATIENCE, assert_unharmed, log_of, victim};

const PATH: &str = "/emapp/EMAppServlet";

async fn tcp(node: &Member) -> TcpStream {
    TcpStream::connect(node.addresses.phone.strip_prefix("https://").unwrap())
        .await
        .unwrap()
}

async fn dial(node: &Member) -> TlsStream<TcpStream> {
    let config = client_config(&node.ca_file, None, rustls::DEFAULT_VERSIONS);
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp(node).await)
        .await
        .unwrap()
}

/// What came back on a connection of its own.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Sends bytes as they stand while it reads: the node may answer before it has read all of them.
async fn send(node: &Member, request: &[u8]) -> Answer {
    let (mut from, mut to) = tokio::io::split(dial(node).await);
    let sent = async {
        let _ = to.write_all(request).await;
        let _ = to.flush().await;
    };
    let mut received = Vec::new();
    let read = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            received.extend_from_slice(&buffer[..count]);
        }
    };
    timeout(PATIENCE, async { tokio::join!(sent, read) })
        .await
        .expect("the request was never answered");
    let text = String::from_utf8(received).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// One request with a query, and nothing behind it.
async fn ask(node: &Member, method: &str, query: &str) -> Answer {
    let request =
        format!("{method} {PATH}?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    send(node, request.as_bytes()).await
}

/// The second cluster's phone port is attacked; the users are the first one's.
fn node(lab: &Lab) -> &Member {
    lab.clusters[1].member().unwrap()
}

fn device(lab: &Lab) -> &str {
    &lab.clusters[1].data.phone(0).unwrap().name
}

/// The query of a login that would succeed.
fn full_login(lab: &Lab) -> String {
    let user = lab.clusters[0].data.user(0).unwrap();
    format!(
        "device={}&EMCC=true&userid={}&seq={}",
        device(lab),
        user.user_id,
        user.pin
    )
}

async fn assert_nobody_is_logged_in(lab: &Lab) {
    for cluster in 0..lab.clusters.len() {
        let living = living(lab, cluster).await;
        assert!(living.is_empty(), "{living:?}");
    }
}

fn assert_nothing_typed_is_in_the_log(cluster: &Cluster, typed: &[&str]) {
    let log = log_of(cluster);
    for typed in typed {
        assert!(!log.contains(typed), "{typed} is in the log:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_make_no_sense_get_a_page_that_says_so() {
    let lab = victim().await;
    let name = device(&lab);
    let login = |user: &str| format!("device={name}&EMCC=true&userid={user}&seq=48151623");
    let long = "x".repeat(129);
    for (query, em_code, what) in [
        (login("%FF%FE"), 1, "broken UTF-8"),
        (login("%C3%28"), 1, "broken UTF-8"),
        (login("ana%00.berlin"), 202, "a NUL"),
        (login("ana%0d%0aX-Injected:1"), 202, "a line's end"),
        (login("%1b[2J"), 202, "an escape"),
        (login(&long), 202, "129 bytes"),
        (login("a&userid=b"), 1, "a name twice"),
        (login("a&seq=1"), 1, "a PIN twice"),
        (login("a&device=SEP9"), 11, "a device twice"),
        (login("a&loginType=XX"), 215, "an unknown login type"),
        (
            format!("device={name}&EMCC=true&userid=ana.berlin&seq=%00"),
            202,
            "a NUL for a PIN",
        ),
        (
            format!("device=%00&EMCC=true&{}", login("a")),
            1,
            "two devices, one a NUL",
        ),
        (
            "device=../../etc&userid=a&seq=48151623".to_owned(),
            11,
            "a path for a device",
        ),
        ("&&&===&&%".to_owned(), 207, "nothing"),
        (
            format!("{}&padding={}", login("a"), "x".repeat(5_000)),
            1,
            "5 kB",
        ),
    ] {
        let answer = ask(node(&lab), "GET", &query).await;
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        let page =
            phone::read_page(&answer.body).unwrap_or_else(|e| panic!("{what}: {e}: {answer:?}"));
        assert_eq!(page.em_code, Some(em_code), "{what}: {page:?}");
        assert!(
            page.reference.is_some() && page.text.lines().count() >= 3,
            "{what}: {page:?}"
        );
        assert!(
            !answer.body.contains("48151623") && !answer.head.contains("X-Injected"),
            "{what}: {answer:?}"
        );
    }
    assert_nobody_is_logged_in(&lab).await;
    assert_nothing_typed_is_in_the_log(&lab.clusters[1], &["48151623"]);
    assert_unharmed(&lab).await;
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn markup_in_names_comes_back_as_text_or_not_at_all() {
    let lab = victim().await;
    for typed in [
        "<b>bold</b>",
        "\"/><SoftKeyItem>",
        "&amp;&lt;&#0;",
        "]]>",
        "<?xml version='1.0'?>",
        "<!--",
        "'",
    ] {
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("device", device(&lab)),
                ("EMCC", "true"),
                ("userid", typed),
                ("seq", "48151623"),
            ])
            .finish();
        let answer = ask(node(&lab), "GET", &query).await;
        let page = phone::read_page(&answer.body).unwrap();
        assert_eq!(page.em_code, Some(23), "{typed}: {page:?}");
        assert!(
            !answer.body.contains("<b>") && !answer.body.contains("<!--"),
            "{answer:?}"
        );
        assert!(
            !page.softkeys.is_empty() && page.softkeys.iter().all(|k| !k.url.contains(typed)),
            "{page:?}"
        );
    }
    // The form leads where the phone came from, whatever the Host header says it was.
    for host in ["evil\"><x", "a b", "x/../y", &"h".repeat(5_000)] {
        let request = format!(
            "GET {PATH}?device={} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
            device(&lab)
        );
        let answer = send(node(&lab), request.as_bytes()).await;
        if answer.status == 200 {
            let page = phone::read_page(&answer.body).unwrap();
            assert!(
                page.url.unwrap().starts_with(&node(&lab).addresses.phone),
                "{host:.20}: {answer:?}"
            );
        } else {
            assert_eq!(answer.status, 400, "{host:.20}: {answer:?}");
        }
    }
    assert_unharmed(&lab).await;
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_get_acts() {
    let lab = victim().await;
    let login = full_login(&lab);
    let answer = ask(node(&lab), "HEAD", &login).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, ""),
        "{answer:?}"
    );
    for method in [
        "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "LOGIN", "get",
    ] {
        let answer = ask(node(&lab), method, &login).await;
        assert_eq!(answer.status, 405, "{method}: {answer:?}");
        assert!(
            answer.head.to_lowercase().contains("allow: get, head"),
            "{method}: {answer:?}"
        );
    }
    // A form's body is no query.
    let form = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{login}",
        login.len()
    );
    assert_eq!(send(node(&lab), form.as_bytes()).await.status, 405);
    assert_nobody_is_logged_in(&lab).await;

    // The same words in a GET do log in, or all of this would show nothing; and a HEAD logs nobody out.
    let answer = ask(node(&lab), "GET", &login).await;
    assert!(answer.body.contains("Login successful"), "{answer:?}");
    ask(
        node(&lab),
        "HEAD",
        &format!("device={}&EMCC=true&doLogout=true", device(&lab)),
    )
    .await;
    assert_eq!(living(&lab, 0).await.len(), 1);
    let answer = ask(
        node(&lab),
        "GET",
        &format!("device={}&EMCC=true&doLogout=true", device(&lab)),
    )
    .await;
    assert!(answer.body.contains("Logout successful"), "{answer:?}");
    let pin = lab.clusters[0].data.user(0).unwrap().pin.clone();
    assert_nothing_typed_is_in_the_log(&lab.clusters[1], &[&format!("seq={pin}"), "userid="]);
    assert_unharmed(&lab).await;
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_ended_and_what_is_too_long_is_refused() {
    let lab = victim().await;
    let (head, tail) = (
        format!("GET {PATH}?device=SEP1&userid="),
        " HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    let huge = [head.as_bytes(), &vec![b'x'; 10 << 20], tail.as_bytes()].concat();
    let answer = send(node(&lab), &huge).await;
    assert!(matches!(answer.status, 414 | 431), "{answer:?}");
    let mut headers = String::from("GET / HTTP/1.1\r\nHost: x\r\n");
    for n in 0..100 {
        headers += &format!("X-{n}: y\r\n");
    }
    let answer = send(node(&lab), format!("{headers}\r\n").as_bytes()).await;
    assert_eq!(answer.status, 431, "{answer:?}");
    for odd in [
        &b"GET /emapp/EMAppServlet?device=\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"[..],
        b"GET /\0 HTTP/1.1\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
    ] {
        let answer = send(node(&lab), odd).await;
        assert!((400..500).contains(&answer.status), "{odd:?}: {answer:?}");
    }

    // Below HTTP: no TLS, or what only begins like it.
    let mut plain = tcp(node(&lab)).await;
    plain
        .write_all(format!("GET {PATH}?device=SEP1 HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, plain.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"),
        "{answer}"
    );
    for garbage in [&[0xff; 64][..], &[0x16, 3, 1, 0, 4, 9, 9, 9, 9], b"\0"] {
        let mut stream = tcp(node(&lab)).await;
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{garbage:?}: the connection stays open");
    }
    assert_unharmed(&lab).await;
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_requests_keep_nobody_else_waiting() {
    let lab = victim().await;
    let mut slow = Vec::new();
    for n in 0..100 {
        let begun = format!("GET {PATH}?device=SEP{n}");
        let mut stream = dial(node(&lab)).await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        slow.push(stream);
    }
    let silent: Vec<_> = futures_util::future::join_all((0..100).map(|_| tcp(node(&lab)))).await;
    assert_unharmed(&lab).await;
    // They have an end of their own: ten seconds for a request's head, less for a handshake.
    for mut stream in silent {
        timeout(PATIENCE, stream.read(&mut [0; 16]))
            .await
            .expect("a silent connection stays open")
            .ok();
    }
    for mut stream in slow {
        let ended = async { while matches!(stream.read(&mut [0; 256]).await, Ok(1..)) {} };
        timeout(PATIENCE + Duration::from_secs(10), ended)
            .await
            .expect("a slow request stays open");
    }
    lab.shut_down().await;
}
