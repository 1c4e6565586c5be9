//! The federation port: connections that are none, and too much of everything.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use emccd::wire::{admin, pb};
use http::header;
use http_body_util::Full;
use rustls::version::TLS12;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::lab_of_processes;

use super::{
    PATIENCE, assert_unharmed, log_of,
    raw::{Raw, dial, find, frame, request, tcp, tls_config},
    victim,
};

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
    let lab = lab_of_processes(3).await;
    let (berlin, tokyo, lima) = (&lab.clusters[0], &lab.clusters[1], &lab.clusters[2]);
    let (mut silent, mut strangers, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..200 {
        silent.push(tcp(berlin).await);
    }
    // One peer takes all of its own share and more; what it has beyond that is closed.
    for _ in 0..100 {
        strangers.push(dial(berlin, None).await);
        peers.push(dial(berlin, Some(tokyo)).await);
    }
    // Its link, which was there before, and the other peer's new connections are none the worse for it.
    assert_unharmed(&lab).await;
    let mut raw = Raw::connect_as(berlin, lima).await;
    let found: pb::FindUserResponse = raw.message("FindUser", &find("ana.berlin")).await.message();
    assert_eq!(found.ownership(), pb::Ownership::Mine);
    // Silence and strangers have an end.
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
