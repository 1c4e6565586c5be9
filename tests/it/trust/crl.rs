//! Revocation lists of a real authority, made with `openssl ca`: in force at once, in the right order, and strict where
//! that is wanted.

use std::{fs, path::Path, process::Command};

use super::*;

/// An authority as people keep one with `openssl ca`.
struct Ca {
    dir: tempfile::TempDir,
}

const SETTINGS: &str = "
[ca]
default_ca = d
[d]
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_days = 300
default_crl_days = 30
policy = p
unique_subject = no
copy_extensions = copy
crl_extensions = e
[p]
commonName = supplied
[e]
authorityKeyIdentifier = keyid
[delta]
authorityKeyIdentifier = keyid
2.5.29.27 = critical,DER:02:01:01
[req]
distinguished_name = dn
[dn]
[v3_ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
";

impl Ca {
    fn new(name: &str) -> Self {
        let ca = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::write(ca.path("openssl.cnf"), SETTINGS).unwrap();
        fs::write(ca.path("index.txt"), "").unwrap();
        fs::write(ca.path("serial"), "1000\n").unwrap();
        ca.next_number(1);
        let subject = format!("/CN={name}");
        ca.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "365",
            "-subj",
            &subject,
            "-config",
            "openssl.cnf",
            "-extensions",
            "v3_ca",
        ]);
        ca
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, args: &[&str]) {
        let run = Command::new("openssl")
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "openssl {args:?}: {told}");
    }

    fn pem(&self) -> String {
        fs::read_to_string(self.path("ca.pem")).unwrap()
    }

    fn issue(&self, name: &str) -> Made {
        let (subject, names) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name}"));
        self.openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "leaf.key",
            "-out",
            "leaf.csr",
            "-subj",
            &subject,
            "-addext",
            &names,
            "-config",
            "openssl.cnf",
        ]);
        self.openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-config",
            "openssl.cnf",
            "-in",
            "leaf.csr",
            "-out",
            "leaf.pem",
        ]);
        let pem = fs::read_to_string(self.path("leaf.pem")).unwrap();
        Made {
            certificate_der: CertificateDer::from_pem_slice(pem.as_bytes())
                .unwrap()
                .to_vec(),
            certificate_pem: pem,
            key_pem: emccd::secret::Secret::new(fs::read(self.path("leaf.key")).unwrap()),
        }
    }

    fn revoke(&self, leaf: &Made) {
        fs::write(self.path("gone.pem"), &leaf.certificate_pem).unwrap();
        self.openssl(&["ca", "-config", "openssl.cnf", "-revoke", "gone.pem"]);
    }

    /// Whatever was revoked is so no longer.
    fn forget(&self) {
        fs::write(self.path("index.txt"), "").unwrap();
    }

    fn next_number(&self, number: u8) {
        fs::write(self.path("crlnumber"), format!("{number:02X}\n")).unwrap();
    }

    /// The next list, in PEM.
    fn list(&self, more: &[&str]) -> Vec<u8> {
        let args = [
            &["ca", "-gencrl", "-config", "openssl.cnf", "-out", "ca.crl"],
            more,
        ];
        self.openssl(&args.concat());
        fs::read(self.path("ca.crl")).unwrap()
    }

    fn in_der(&self) -> Vec<u8> {
        self.openssl(&["crl", "-in", "ca.crl", "-outform", "DER", "-out", "ca.der"]);
        fs::read(self.path("ca.der")).unwrap()
    }
}

async fn crl(us: &Cluster, file: Vec<u8>, is_strict: bool) -> Result<pb::AddCrlResponse, String> {
    let request = pb::AddCrlRequest {
        cluster_id: "tokyo".to_owned(),
        file,
        is_strict: Some(is_strict),
    };
    let added = us.admin().await.unwrap().add_crl(request).await;
    added.map_err(|error| error.to_string())
}

async fn in_force(us: &Cluster) -> Vec<pb::Crl> {
    let mut admin = us.admin().await.unwrap();
    admin
        .crls(pb::ListCrlsRequest::default())
        .await
        .unwrap()
        .crls
}

async fn remove(us: &Cluster) {
    let request = pb::RemoveCrlRequest {
        cluster_id: "tokyo".to_owned(),
        issuer: None,
    };
    us.admin().await.unwrap().remove_crl(request).await.unwrap();
}

const NODE: &str = "emcc.tokyo.corp.test";

/// Berlin knows tokyo by that authority; its leaf.
async fn known_by(ca: &Ca, settings: &[(&str, &str)]) -> (Lab, Made) {
    let lab = strangers(2, settings).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let leaf = ca.issue(NODE);
    swap(tokyo, &leaf).await.unwrap();
    tokyo.trust(berlin).await.unwrap();
    let addresses = vec![tokyo.member().unwrap().addresses.federation.clone()];
    let cluster = record("tokyo", addresses, &[NODE]);
    add(berlin, cluster, "anchor", &ca.pem()).await.unwrap();
    linked(berlin, tokyo).await;
    (lab, leaf)
}

#[tokio::test]
async fn what_an_authority_revokes_is_refused_at_once_and_a_newer_list_mends_it() {
    let ca = Ca::new("Corporate CA");
    let (lab, leaf) = known_by(&ca, &[]).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let empty = ca.list(&[]);
    let added = crl(berlin, empty.clone(), false).await.unwrap();
    assert_eq!((added.added.len(), added.revoked_of_shown.len()), (1, 0));
    linked(berlin, tokyo).await;
    works(tokyo, berlin).await;

    // The living link ends, and both sides say why.
    ca.revoke(&leaf);
    let added = crl(berlin, ca.list(&[]), false).await.unwrap();
    assert_eq!(added.added[0].revoked, 1);
    assert_eq!(
        added.revoked_of_shown[0].fingerprint,
        leaf.fingerprint_text()
    );
    let seen = rejected(berlin, tokyo, Rejection::Revoked).await;
    let reason = seen.reason.unwrap();
    assert!(reason.contains(&leaf.fingerprint_text()), "{reason}");
    let told = rejected(tokyo, berlin, Rejection::Revoked).await;
    let reason = told.reason.unwrap();
    assert!(
        reason.contains("berlin refuses our certificate (revoked)"),
        "{reason}"
    );
    let refused = door(berlin).await;
    let refused = refused
        .iter()
        .find(|r| r.side == "caller" && r.rejection == "revoked");
    let refused = refused.unwrap();
    let expectation = &refused.expectation;
    assert!(
        expectation.contains("the list number 2 of CN=Corporate CA"),
        "{expectation}"
    );
    assert!(
        refused.hint.contains("emccd trust add tokyo --pin"),
        "{}",
        refused.hint
    );

    // Older ones, others, and what is none: refused in words, and nothing changes.
    let other = Ca::new("Other CA");
    other.list(&[]);
    ca.next_number(9);
    let delta = ca.list(&["-crlexts", "delta"]);
    for (file, why) in [
        (
            empty,
            "number 1, and number 2 of that authority is in force",
        ),
        (
            other.in_der(),
            "no authority of tokyo here (they are: CN=Corporate CA)",
        ),
        (delta, "delta list"),
        (ca.pem().into_bytes(), "a certificate is no revocation list"),
        (
            fs::read(ca.path("ca.key")).unwrap(),
            "a private key is no revocation list",
        ),
        (b"hello".to_vec(), "is no revocation list"),
    ] {
        let refused = crl(berlin, file, false).await.unwrap_err();
        assert!(refused.contains(why), "{why}: {refused}");
    }
    ca.next_number(2);
    let same_number = ca.list(&["-crldays", "9"]);
    let refused = crl(berlin, same_number, false).await.unwrap_err();
    assert!(refused.contains("must not name two lists"), "{refused}");
    rejected(berlin, tokyo, Rejection::Revoked).await;

    // A pin names this very leaf, whatever the list says.
    pin(berlin, tokyo, &leaf).await;
    linked(berlin, tokyo).await;
    let request = pb::RemoveTrustRequest {
        cluster_id: "tokyo".to_owned(),
        fingerprint: leaf.fingerprint_text(),
        mode: "unlink".to_owned(),
    };
    let mut admin = berlin.admin().await.unwrap();
    admin.remove_trust(request).await.unwrap();
    let unrevoke = pb::AddTrustRequest {
        cluster_id: "tokyo".to_owned(),
        trust: None,
        unrevoke: Some(leaf.fingerprint_text()),
    };
    admin.add_trust(unrevoke).await.unwrap();
    rejected(berlin, tokyo, Rejection::Revoked).await;

    // A newer list without it, in DER.
    ca.forget();
    ca.next_number(0x0A);
    ca.list(&[]);
    crl(berlin, ca.in_der(), false).await.unwrap();
    linked(berlin, tokyo).await;
    works(tokyo, berlin).await;
    let listed = in_force(berlin).await;
    assert_eq!((listed.len(), &*listed[0].number), (1, "10"));
    remove(berlin).await;
    assert!(in_force(berlin).await.is_empty());
    linked(berlin, tokyo).await;
    lab.shut_down().await;
}

#[tokio::test]
async fn a_stale_list_goes_on_counting_and_a_strict_one_closes_the_door() {
    let ca = Ca::new("Corporate CA");
    let (lab, leaf) = known_by(&ca, &[]).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let list = ca.list(&[]);
    crl(berlin, list.clone(), false).await.unwrap();
    let clock = &berlin.member().unwrap().clock;
    clock.set_offset_millis(40 * DAY_MILLIS);
    linked(berlin, tokyo).await;
    let stale = in_force(berlin).await;
    assert!(stale[0].is_stale && !stale[0].is_strict, "{stale:?}");
    let query = pb::ForecastTrustRequest::default();
    let told = berlin.admin().await.unwrap().forecast(query).await.unwrap();
    assert!(told.crls[0].is_stale, "{told:?}");

    crl(berlin, list, true).await.unwrap();
    let seen = rejected(berlin, tokyo, Rejection::Revoked).await;
    let reason = seen.reason.unwrap();
    assert!(reason.contains(&leaf.fingerprint_text()), "{reason}");
    let refused = door(berlin).await;
    let refused = refused.iter().find(|r| r.rejection == "revoked").unwrap();
    assert!(refused.expectation.contains("is stale"), "{refused:?}");
    assert!(
        refused
            .hint
            .contains("emccd trust crl add tokyo FILE (it stays strict"),
        "{refused:?}"
    );
    rejected(tokyo, berlin, Rejection::Revoked).await;
    // What is printed mends it, and it stays strict.
    let file = berlin.member().unwrap().folder.join("newer.crl");
    fs::write(&file, ca.list(&["-crldays", "90"])).unwrap();
    let typed = typed::type_at(berlin, "trust explain tokyo").await;
    assert!(
        typed.out.contains("no list revokes it, but"),
        "nothing was revoked: {typed:?}"
    );
    let next = typed.out.lines().last().unwrap();
    let file = file.display().to_string();
    let line = typed::printed(next, "trust crl add", &[("FILE", &file)]);
    typed::works_at(berlin, &line).await;
    assert!(in_force(berlin).await[0].is_strict);
    linked(berlin, tokyo).await;
    clock.set_offset_millis(0);
    lab.shut_down().await;
}

/// As programs put files in place that others read.
fn put(folder: &Path, name: &str, content: &[u8]) {
    let partial = folder.join(".partial");
    fs::write(&partial, content).unwrap();
    fs::rename(partial, folder.join(name)).unwrap();
}

#[tokio::test]
async fn lists_that_appear_in_the_folder_are_taken_in() {
    let ca = Ca::new("Corporate CA");
    let (lab, leaf) = known_by(&ca, &[("trust", "crl-folder = \"crls\"")]).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let folder = berlin.member().unwrap().folder.join("crls");
    fs::create_dir(&folder).unwrap();
    put(&folder, "broken.crl", b"no list at all");
    let other = Ca::new("Other CA");
    put(&folder, "other.crl", &other.list(&[]));
    ca.revoke(&leaf);
    put(&folder, "corporate.crl", &ca.list(&[]));
    rejected(berlin, tokyo, Rejection::Revoked).await;
    rejected(tokyo, berlin, Rejection::Revoked).await;
    ca.forget();
    put(&folder, "corporate.crl", &ca.list(&[]));
    linked(berlin, tokyo).await;
    let listed = in_force(berlin).await;
    assert_eq!((listed.len(), &*listed[0].number), (1, "2"));
    lab.shut_down().await;
}
