//! PINs, private keys and the pepper are seen nowhere: in no log at the most talkative level, no error, no page, no
//! answer to an operator, no `Debug`, and not in the database.
//!
//! A federation of processes is driven through good, bad and broken requests. Then everything that it wrote or
//! answered is searched for every secret, as it is and in the forms in which programs print bytes.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use emccd::{
    domain::{ids::DeviceName, login::LoginType},
    lab::{Cluster, Hosting, Lab, Spec, dataset::User, member::Member},
    wire::{admin, pb},
};
use regex::bytes::{Regex, RegexBuilder};
use rustls_pki_types::{ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::support::{
    binary,
    raw_peer::{self, call, channel, peer_client},
    tls::client_config,
};

mod heard;
mod scanner;
mod scene;

use heard::{AsTheyAre, Heard, command, exchange, raw_http};
use scanner::{Scanner, base64, key_secrets};
use scene::{Scene, new_pin};

const HOME: usize = 0;
const VISITING: usize = 1;
const USERS: [&str; 4] = ["ana", "bob", "eva", "ida"];
const FORM: &str = "/emapp/EMAppServlet";

#[tokio::test(flavor = "multi_thread")]
async fn pins_keys_and_pepper_are_seen_nowhere() {
    let mut scene = Scene::set().await;
    let mut others = Vec::new();
    for cluster in &scene.lab.clusters {
        let member = cluster.member().unwrap();
        others.extend(key_secrets(member, &member.federation_key));
        others.extend(key_secrets(member, &member.folder.join("phone.key")));
        let pepper = std::fs::read(member.folder.join("../pepper")).unwrap();
        others.push((format!("the pepper of {}", cluster.id), pepper));
    }
    scene.phones().await;
    scene.broken_requests().await;
    scene.broken_calls().await;
    scene.operators().await;
    scene.phone_command().await;
    scene.keys().await;
    scene.figures().await;
    scene.process_lists();

    let Scene {
        mut lab,
        heard,
        pins,
        ..
    } = scene;
    for cluster in &mut lab.clusters {
        cluster.member_mut().unwrap().stop().await;
    }
    let (pins, others) = (Scanner::new(&pins), Scanner::new(&others));
    for cluster in &lab.clusters {
        let log = std::fs::read_to_string(cluster.member().unwrap().log_file()).unwrap();
        assert!(
            log.contains("TRACE") && log.contains("ana.berlin"),
            "the log tells too little to prove anything"
        );
    }
    // A PIN is nowhere at all; a key and the pepper are in their own files.
    let (mut findings, size) = pins.search(lab.folder(), &|_| false);
    assert!(size > 100_000, "only {size} bytes were written");
    let own =
        |path: &Path| path.extension().is_some_and(|e| e == "key") || path.ends_with("pepper");
    findings.extend(others.search(lab.folder(), &own).0);
    for (from, bytes) in heard.0.lock().unwrap().iter() {
        for scanner in [&pins, &others] {
            findings.extend(
                scanner
                    .find(bytes)
                    .map(|found| format!("answer to {from:.60}: {found}")),
            );
        }
    }
    assert!(
        findings.is_empty(),
        "{} secrets were seen:\n{}",
        findings.len(),
        findings.join("\n---\n")
    );

    // The same search finds what is there.
    let keys = others.search(lab.folder(), &|path| !own(path)).0;
    assert_eq!(
        keys.len(),
        6,
        "two keys and a pepper of each cluster: {keys:?}"
    );
}

#[test]
fn the_search_finds_a_planted_secret_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let (pin, key) = (new_pin(), rand::random::<[u8; 32]>());
    let scanner = Scanner::new(&[
        ("pin".to_owned(), pin.clone().into_bytes()),
        ("key".to_owned(), key.to_vec()),
    ]);
    let url = url::form_urlencoded::byte_serialize(pin.as_bytes()).collect::<String>();
    let mut planted = vec![
        format!("2030-01-01 INFO GET {FORM}?seq={url}&x").into_bytes(),
        format!("{:?}", pin.as_bytes()).into_bytes(),
        format!("{:?}", bytes::Bytes::copy_from_slice(&key)).into_bytes(),
        format!("Secret({key:02x?})")
            .replace(", ", " ")
            .into_bytes(),
        key.map(|b| format!("{b:02X}")).join(":").into_bytes(),
    ];
    for before in 0..4 {
        let text = [vec![7; before], key.to_vec(), vec![9; 5]].concat();
        planted.push(format!("value={}", base64(&text)).into_bytes());
        planted.push([b"\0\xff\xfe".as_slice(), &text].concat());
    }
    for (number, bytes) in planted.iter().enumerate() {
        assert!(
            scanner.find(bytes).is_some(),
            "not found: {}",
            String::from_utf8_lossy(bytes)
        );
        std::fs::create_dir_all(folder.path().join("deep")).unwrap();
        std::fs::write(folder.path().join(format!("deep/{number}.db")), bytes).unwrap();
    }
    assert_eq!(
        scanner.search(folder.path(), &|_| false).0.len(),
        planted.len()
    );
    for innocent in [
        "",
        "271828",
        &pin[1..],
        &base64(b"something else that is long enough to be encoded"),
    ] {
        assert_eq!(scanner.find(innocent.as_bytes()), None);
    }
    assert_eq!(base64(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw");
}

#[test]
fn no_debug_prints_a_pin_or_a_key() {
    use emccd::{
        domain::login::{DeviceFacts, FindUser, LoginRequest, Proof, SecurityMode},
        secret::{Pin, Secret},
    };
    let pin = new_pin();
    let scanner = Scanner::new(&[("pin".to_owned(), pin.clone().into_bytes())]);
    let typed = || Pin::new(pin.clone()).unwrap();
    let request = LoginRequest {
        session_id: raw_peer::new_id(),
        user: FindUser {
            login_type: LoginType::Uid,
            name: "ana".parse().unwrap(),
        },
        proof: Proof::Pin(typed()),
        profile: None,
        device: DeviceFacts {
            name: DeviceName::new("SEP1").unwrap(),
            model: String::new(),
            protocol: String::new(),
            security_mode: SecurityMode::NonSecure,
            locale: None,
            address: None,
        },
        geolocation: BTreeMap::new(),
        supersedes: Vec::new(),
    };
    let mut message = pb::LoginRequest::default();
    message.pin.clone_from(&pin);
    message.ticket.clone_from(&pin);
    let file = admin::ApplyFile {
        name: "users.toml".to_owned(),
        content: format!("pin = \"{pin}\""),
    };
    let exported = emccd::apply::export::Exported {
        file: "users.toml".to_owned(),
        rows: 1,
        text: pin.clone().into(),
    };
    let piece = admin::ExportResponse {
        content: pin.clone(),
        ..admin::ExportResponse::default()
    };
    let source = emccd::apply::Source {
        name: "users.toml".to_owned(),
        text: format!("pin = \"{pin}\"").into(),
    };
    let parts: [(&str, &dyn Debug); 8] = [
        ("Pin", &typed()),
        ("Secret", &Secret::new(pin.clone().into_bytes())),
        ("LoginRequest", &request),
        ("pb::LoginRequest", &message),
        ("ApplyFile", &file),
        ("Exported", &exported),
        ("ExportResponse", &piece),
        ("Source", &source),
    ];
    for (name, part) in parts {
        let printed = format!("{part:?}{part:#?}");
        assert_eq!(scanner.find(printed.as_bytes()), None, "{name}");
        assert!(!printed.is_empty());
    }
}
