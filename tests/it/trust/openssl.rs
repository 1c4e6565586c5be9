//! The certificates of `certs/generate.sh`, good and bad ones: what each is worth in each direction. They are made
//! by another program than ours, and some as Tomcat makes them.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use emccd::{
    domain::ids::ClusterId,
    secret::Secret,
    trust::{
        TrustStore, bundle::Bundle, certificate::Certificate, identity::Identity, judge::Verdict,
        verifier::VerdictSlot,
    },
};
use rustls_pki_types::ServerName;
use x509_parser::{prelude::FromDer as _, public_key::PublicKey};

use super::*;
use crate::support::trust_more;

/// The peer that a certificate speaks for, or why it speaks for none.
type Worth = Result<&'static str, Rejection>;

/// The letters of the certificates' names are these three peers.
const A: Worth = Ok("tokyo");
const B: Worth = Ok("lima");
const C: Worth = Ok("oslo");
const PEERS: [(&str, &str); 3] = [("tokyo", "a"), ("lima", "b"), ("oslo", "c")];

const EXPIRED: Worth = Err(Rejection::Expired);
const FUTURE: Worth = Err(Rejection::NotYetValid);
const UNKNOWN: Worth = Err(Rejection::UnknownIssuer);
const NAME: Worth = Err(Rejection::WrongName);
const EKU: Worth = Err(Rejection::WrongEku);

/// Every row of the manifest, in its order: shown by a caller, and by a server that is called. The corporate
/// authority is an anchor for each peer, under the name of its node; self-signed ones are pinned.
const ROWS: [(&str, Worth, Worth); 29] = [
    ("corp-ca", UNKNOWN, UNKNOWN),
    ("other-ca", UNKNOWN, UNKNOWN),
    ("corp-intermediate", UNKNOWN, UNKNOWN),
    ("corp-a", A, A),
    ("corp-b", B, B),
    ("corp-c", C, C),
    ("corp-rsa-a", A, A),
    ("corp-no-eku-a", A, A),
    ("corp-ip-a", A, A),
    ("corp-wildcard-a", A, A),
    ("corp-below-a", A, A),
    ("corp-expired-a", EXPIRED, EXPIRED),
    ("corp-future-a", FUTURE, FUTURE),
    ("corp-client-a", A, EKU),
    ("corp-server-a", EKU, A),
    ("corp-wrong-name-a", NAME, NAME),
    ("corp-no-name-a", NAME, NAME),
    ("other-a", UNKNOWN, UNKNOWN),
    ("tomcat-a", A, A),
    ("tomcat-b", B, B),
    ("tomcat-p256-a", A, A),
    ("tomcat-expired-a", EXPIRED, EXPIRED),
    ("tomcat-future-a", FUTURE, FUTURE),
    ("tomcat-client-a", A, EKU),
    ("tomcat-server-a", EKU, A),
    ("minted-by-tomcat-a", UNKNOWN, UNKNOWN),
    ("plain-a", A, A),
    ("plain-b", B, B),
    ("plain-bare-a", A, A),
];

/// The folder of the certificates, made when they are not there yet or have aged.
fn made_by_the_script() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openssl");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/certs/generate.sh");
    let run = std::process::Command::new(script)
        .arg(&folder)
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    folder
}

fn read(folder: &Path, file: &str) -> String {
    let file = folder.join(file);
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// The chain that a server with that certificate sends, and the key.
fn shown(folder: &Path, name: &str) -> Made {
    with_chain(folder, name, read(folder, &format!("{name}.chain.pem")))
}

fn with_chain(folder: &Path, name: &str, chain: String) -> Made {
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    Made {
        certificate_der: leaf.to_vec(),
        certificate_pem: chain,
        key_pem: Secret::new(read(folder, &format!("{name}.key")).into_bytes()),
    }
}

/// What berlin pins for a peer: everything self-signed that carries its letter.
fn pins(letter: &str) -> impl Iterator<Item = &'static str> {
    let end = format!("-{letter}");
    let names = ROWS.iter().map(|(name, ..)| *name);
    names.filter(move |name| {
        (name.starts_with("tomcat-") || name.starts_with("plain-")) && name.ends_with(&end)
    })
}

fn node_names(letter: &str) -> Vec<String> {
    let mut names = vec![format!("node1.{letter}.test")];
    // For the certificate that is made out to an address.
    names.extend((letter == "a").then(|| "127.0.0.1".to_owned()));
    names
}

/// Gives berlin that trust, by command.
async fn configure(berlin: &Cluster, folder: &Path) {
    let anchor = read(folder, "corp-ca.pem");
    for (peer, letter) in PEERS {
        let names = node_names(letter);
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let cluster = record(peer, vec!["127.0.0.1:9".to_owned()], &names);
        add(berlin, cluster, "anchor", &anchor).await.unwrap();
        let peer = ClusterId::new(peer).unwrap();
        for pin in pins(letter) {
            let pem = read(folder, &format!("{pin}.pem"));
            trust_more(berlin, &peer, "pinned", &pem).await;
        }
    }
}

/// The same trust for a dialler of our own.
fn dialler(berlin: &Cluster, folder: &Path) -> TrustStore {
    let certificate = |name: &str| {
        let pem = read(folder, &format!("{name}.pem"));
        Certificate::read_all(pem.as_bytes()).unwrap().remove(0)
    };
    let bundles = PEERS.map(|(peer, letter)| Bundle {
        pinned: pins(letter).map(certificate).collect(),
        anchors: vec![certificate("corp-ca")],
        node_names: node_names(letter),
        ..Bundle::new(ClusterId::new(peer).unwrap())
    });
    let node = berlin.member().unwrap();
    let identity = Identity::from_files(&node.federation_certificate, &node.federation_key);
    let trust = TrustStore::new(Some(identity.unwrap()), Clock::system());
    trust.publish_bundles(bundles.into()).unwrap();
    trust
}

/// Calls berlin's node with a certificate, and looks at what it makes of it.
async fn as_caller(berlin: &Cluster, what: &str, made: &Made, worth: Worth) {
    let mut client = client_showing(made, berlin);
    for (peer, _) in PEERS {
        let claimed = ClusterId::new(peer).unwrap();
        let answer = client.hello(call_as(&claimed, hello(peer))).await;
        match (worth, answer) {
            (Ok(of), Ok(_)) => assert_eq!(of, peer, "{what} passes for {peer}"),
            (Ok(of), Err(refusal)) => {
                assert_ne!(of, peer, "{what} of {of} is refused: {refusal:?}");
                is_42(&refusal);
            }
            (Err(rejection), Err(refusal)) => is_rejected(&refusal, rejection, made),
            (Err(rejection), Ok(_)) => {
                panic!("{what} should be refused ({rejection}), and passes for {peer}")
            }
        }
    }
}

/// Dials a server that shows a certificate, as each peer.
async fn as_answerer(trust: &TrustStore, what: &str, made: &Made, worth: Worth) {
    let (address, serving) = server_showing(made).await;
    for (peer, _) in PEERS {
        let wanted = ClusterId::new(peer).unwrap();
        let slot = VerdictSlot::default();
        let config = trust.snapshot().client_config(&wanted, Arc::clone(&slot));
        let tcp = tokio::net::TcpStream::connect(&address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config.unwrap()));
        let connected = connector.connect(name, tcp).await;
        let verdict = slot.lock().unwrap().take().expect("a verdict");
        let expected = match worth {
            Ok(of) if of == peer => {
                assert!(connected.is_ok(), "{what} of {of}: {connected:?}");
                assert_eq!(verdict, Verdict::Peer(wanted), "{what}");
                continue;
            }
            Ok(_) => Rejection::WrongCluster,
            Err(rejection) => rejection,
        };
        assert!(connected.is_err(), "{what} passes for {peer}");
        // What is wrong with a certificate of tokyo's says nothing to one who means lima.
        if worth.is_ok() || peer == "tokyo" {
            assert_eq!(verdict.rejection(), Some(expected), "{what} as {peer}");
        }
    }
    serving.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_certificate_of_the_script_is_worth_what_its_row_says_in_each_direction() {
    let folder = made_by_the_script();
    let lab = strangers(1, &[]).await;
    let berlin = &lab.clusters[0];
    configure(berlin, &folder).await;
    let trust = dialler(berlin, &folder);
    for (name, caller, answerer) in ROWS {
        let made = shown(&folder, name);
        as_caller(berlin, name, &made, caller).await;
        as_answerer(&trust, name, &made, answerer).await;
    }
    // With the certificate above it, which is pinned and says that it is an authority, it is no better.
    let chain = ["minted-by-tomcat-a.pem", "tomcat-p256-a.pem"];
    let chain = chain.map(|file| read(&folder, file)).concat();
    let minted = with_chain(&folder, "minted-by-tomcat-a", chain);
    // And without the one between it and the anchor, a good one is worth nothing.
    let alone = read(&folder, "corp-below-a.pem");
    let alone = with_chain(&folder, "corp-below-a", alone);
    for (what, made) in [("a minted chain", minted), ("half a chain", alone)] {
        as_caller(berlin, what, &made, UNKNOWN).await;
        as_answerer(&trust, what, &made, UNKNOWN).await;
    }
    lab.shut_down().await;
}

#[test]
fn the_manifest_tells_what_was_made() {
    let folder = made_by_the_script();
    let manifest = read(&folder, "MANIFEST.tsv");
    let mut lines = manifest.lines();
    assert_eq!(
        lines.next().unwrap(),
        "name\tkey\tsigned_by\tca\teku\tnames\tvalid\tsha256"
    );
    let rows: Vec<Vec<_>> = lines.map(|line| line.split('\t').collect()).collect();
    let names: Vec<_> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names, ROWS.map(|(name, ..)| name), "a row without a test");
    for row in &rows {
        let [name, key, signed_by, ca, eku, alternative, valid, sha256] = row[..] else {
            panic!("{row:?}")
        };
        let pem = read(&folder, &format!("{name}.pem"));
        let made = Certificate::read_all(pem.as_bytes()).unwrap().remove(0);
        assert_eq!(made.fingerprint_text(), sha256, "{name}");
        assert_eq!(made.is_ca(), ca == "CA:TRUE", "{name}");
        assert_eq!(
            made.subject() == made.issuer(),
            signed_by == "self",
            "{name}"
        );
        let usages = made.usages().map(|usages| (usages.client, usages.server));
        let wanted = match eku {
            "both" => Some((true, true)),
            "client" => Some((true, false)),
            "server" => Some((false, true)),
            _ => None,
        };
        assert_eq!(usages, wanted, "{name}");
        let own: Vec<_> = made.names().iter().map(ToString::to_string).collect();
        let wanted = alternative.split_once(':').map(|(_, name)| name);
        assert_eq!(own, Vec::from_iter(wanted), "{name}");
        let is_valid = (made.not_before() <= now(), now() <= made.not_after());
        let wanted = (valid != "future", valid != "past");
        assert_eq!(is_valid, wanted, "{name}");
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(made.der()).unwrap();
        let is_rsa = match parsed.public_key().parsed().unwrap() {
            PublicKey::RSA(key) => key.key_size() == 2048,
            _ => false,
        };
        assert_eq!(is_rsa, key == "rsa2048", "{name}");
        let file = std::fs::metadata(folder.join(format!("{name}.key"))).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600, "{name}.key");
    }
    // Made once: the second time they are left as they are.
    assert_eq!(read(&made_by_the_script(), "MANIFEST.tsv"), manifest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_crosses_a_link_between_certificates_as_tomcat_makes_them() {
    let folder = made_by_the_script();
    let lab = strangers(2, &[]).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    for (cluster, name) in [(berlin, "tomcat-a"), (tokyo, "tomcat-b")] {
        let made = shown(&folder, name);
        swap(cluster, &made).await.unwrap();
        let in_force = shown_by(cluster).await;
        assert_eq!(fingerprint(&in_force), made.fingerprint_text());
    }
    berlin.trust(tokyo).await.unwrap();
    tokyo.trust(berlin).await.unwrap();
    linked(berlin, tokyo).await;
    works(tokyo, berlin).await;
    works(berlin, tokyo).await;
    lab.shut_down().await;
}
