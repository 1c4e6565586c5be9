//! Stores made by `keytool` and `openssl`; `keytool` is also the judge of what we write.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use super::*;
use crate::{
    domain::purpose::Purpose,
    trust::{
        certificate::Certificate,
        fixtures::{Authority, Leaf, Spec},
        folder::{IdentityFiles, IdentityFolder},
    },
};

const PASSWORD: &str = "changeit";
/// The second key's own, which is in none of our files.
const OTHERS: &str = "of-the-other-key";
const WHAT: Purpose = Purpose::Phone;

fn run(folder: &Path, program: &str, line: &str) -> String {
    let run = Command::new(program)
        .args(line.split(' '))
        .current_dir(folder)
        .output()
        .unwrap();
    let told = [&*run.stdout, &*run.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(run.status.success(), "{program} {line}: {told}");
    told
}

fn keytool(folder: &Path, line: &str) -> String {
    let line = format!("{line} -storepass {PASSWORD} -J-XX:TieredStopAtLevel=1");
    run(folder, "keytool", &line)
}

fn close(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn put(path: &Path, text: &str) {
    make::replace(path, text.as_bytes(), 0o600).unwrap();
}

/// A store as Tomcat's installers make them: two keys and a trusted certificate.
fn tomcat(folder: &Path, kind: &str) -> IdentityFiles {
    let base = format!("-keystore tomcat.store -storetype {kind}");
    for (alias, key) in [
        ("tomcat", "RSA -keysize 2048"),
        ("other", "EC -groupname secp256r1"),
    ] {
        let of_key = match (kind, alias) {
            ("JKS", "other") => format!(" -keypass {OTHERS}"),
            _ => String::new(),
        };
        let made =
            format!("-genkeypair -alias {alias} -keyalg {key} -dname CN={alias} -validity 30");
        keytool(folder, &format!("{made} {base}{of_key}"));
    }
    let peer = Spec::new("peer").self_signed().pem();
    fs::write(folder.join("peer.pem"), peer).unwrap();
    keytool(
        folder,
        &format!("-importcert -noprompt -alias peer -file peer.pem {base}"),
    );
    let path = folder.join("tomcat.store");
    close(&path);
    let password = folder.join("password");
    put(&password, &format!("{PASSWORD}\r\nnot this line\n"));
    IdentityFiles {
        certificate: path.clone(),
        key: path,
        store: Some(KeyStore {
            password_file: Some(password),
            key_password_file: None,
            alias: Some("Tomcat".to_owned()),
        }),
    }
}

fn folder_of(files: &IdentityFiles) -> IdentityFolder {
    IdentityFolder::new([(WHAT, files.clone())])
}

fn with_store(files: &IdentityFiles, change: impl FnOnce(&mut KeyStore)) -> IdentityFolder {
    let mut files = files.clone();
    change(files.store.as_mut().unwrap());
    folder_of(&files)
}

/// A certificate with its issuer, kept beside the store.
fn next(folder: &IdentityFolder) -> Leaf {
    let ca = Authority::new("CA");
    let leaf = Spec::new("next").signed_by(&ca);
    let chain = format!("{}{}", leaf.pem(), ca.pem());
    let key = Secret::new(leaf.key_pem().into_bytes());
    folder.write(WHAT, chain.as_bytes(), &key).unwrap();
    leaf
}

fn configured(folder: &IdentityFolder) -> Certificate {
    folder.configured(WHAT).unwrap().leaf().clone()
}

#[test]
fn an_identity_in_a_store_is_read_replaced_and_the_rest_of_the_store_stays() {
    for kind in ["JKS", "PKCS12"] {
        let dir = tempfile::tempdir().unwrap();
        let files = tomcat(dir.path(), kind);
        let folder = folder_of(&files);
        let before = configured(&folder);
        assert_eq!(before.subject(), "CN=tomcat", "{kind}");
        assert!(folder.key_in_store(WHAT).unwrap().is_some());
        assert!(folder.key_files(WHAT).unwrap().is_empty());

        let leaf = next(&folder);
        let wanted = leaf.certificate().fingerprint();
        folder.settle(WHAT, &wanted).unwrap();
        let written = fs::read(&files.certificate).unwrap();
        folder.settle(WHAT, &wanted).unwrap();
        assert_eq!(fs::read(&files.certificate).unwrap(), written, "{kind}");
        let now = folder.configured(WHAT).unwrap();
        assert_eq!(now.leaf(), &leaf.certificate(), "{kind}");
        assert!(folder.find(WHAT, &before.fingerprint()).is_ok());
        let mode = files.certificate.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let listed = keytool(dir.path(), "-list -v -keystore tomcat.store");
        for (part, count) in [
            ("Entry type: PrivateKeyEntry", 2),
            ("Entry type: trustedCertEntry", 1),
            ("Alias name: tomcat", 1),
            ("Alias name: other", 1),
            (&*leaf.certificate().fingerprint_text(), 1),
            (&*before.fingerprint_text(), 0),
        ] {
            let found = listed.matches(part).count();
            assert_eq!(found, count, "{kind} {part}: {listed}");
        }
        // Java opens the key as well, and the other one with its own password.
        for (alias, password) in [("tomcat", PASSWORD), ("other", OTHERS)] {
            let of_key = match kind {
                "JKS" => format!(" -keypass {password}"),
                _ => String::new(),
            };
            let line = format!("-certreq -alias {alias} -keystore tomcat.store{of_key}");
            assert!(keytool(dir.path(), &line).contains("BEGIN NEW CERTIFICATE REQUEST"));
        }
        folder.settle(WHAT, &before.fingerprint()).unwrap();
        assert_eq!(configured(&folder), before);
    }
}

#[test]
fn a_key_with_a_password_of_its_own_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let files = tomcat(dir.path(), "JKS");
    let password = dir.path().join("key-password");
    put(&password, OTHERS);
    let other = |store: &mut KeyStore| store.alias = Some("other".to_owned());
    let error = with_store(&files, other).configured(WHAT).unwrap_err();
    let told = crate::telemetry::error_chain(&error);
    assert!(told.contains("key-password-file"), "{told}");
    let folder = with_store(&files, |store| {
        other(store);
        store.key_password_file = Some(password);
    });
    assert_eq!(configured(&folder).subject(), "CN=other");
    let leaf = next(&folder);
    let wanted = leaf.certificate().fingerprint();
    folder.settle(WHAT, &wanted).unwrap();
    assert_eq!(configured(&folder), leaf.certificate());
    let line = format!("-certreq -alias other -keystore tomcat.store -keypass {OTHERS}");
    assert!(keytool(dir.path(), &line).contains("BEGIN NEW CERTIFICATE REQUEST"));
    assert_eq!(configured(&folder_of(&files)).subject(), "CN=tomcat");
}

/// A store with two keys, each with a certificate of an authority that signs by `hash`.
fn signed(folder: &Path, hash: &str) -> IdentityFiles {
    let base = "-keystore signed.p12 -storetype PKCS12";
    keytool(
        folder,
        &format!("-genkeypair -alias ca -keyalg RSA -sigalg {hash} -dname CN=ca -ext bc:c {base}"),
    );
    run(
        folder,
        "keytool",
        &format!("-exportcert -rfc -alias ca -file ca.pem {base} -storepass {PASSWORD}"),
    );
    for alias in ["tomcat", "other"] {
        let of_store = format!("-keystore {alias}.p12 -storetype PKCS12");
        for line in [
            format!("-genkeypair -alias {alias} -keyalg RSA -dname CN={alias} {of_store}"),
            format!("-certreq -alias {alias} -file {alias}.csr {of_store}"),
            format!(
                "-gencert -rfc -alias ca -sigalg {hash} -infile {alias}.csr -outfile {alias}.pem {base}"
            ),
        ] {
            keytool(folder, &line);
        }
        let chain = ["ca.pem", &format!("{alias}.pem")].map(|f| fs::read(folder.join(f)).unwrap());
        fs::write(folder.join("chain.pem"), chain.concat()).unwrap();
        let line = format!("-importcert -noprompt -alias {alias} -file chain.pem {of_store}");
        keytool(folder, &line);
    }
    let line = format!(
        "-importkeystore -noprompt -srckeystore other.p12 -srcstorepass {PASSWORD} -destkeystore tomcat.p12 \
         -deststorepass {PASSWORD}"
    );
    run(folder, "keytool", &line);
    let path = folder.join("tomcat.p12");
    close(&path);
    let password = folder.join("password");
    put(&password, PASSWORD);
    IdentityFiles {
        certificate: path.clone(),
        key: path,
        store: Some(KeyStore {
            password_file: Some(password),
            key_password_file: None,
            alias: Some("tomcat".to_owned()),
        }),
    }
}

#[test]
fn chains_of_other_keys_stay_whatever_they_are_signed_with() {
    for hash in ["SHA1withRSA", "SHA256withRSA"] {
        let dir = tempfile::tempdir().unwrap();
        let files = signed(dir.path(), hash);
        let folder = folder_of(&files);
        assert_eq!(configured(&folder).subject(), "CN=tomcat");
        let leaf = next(&folder);
        folder
            .settle(WHAT, &leaf.certificate().fingerprint())
            .unwrap();
        assert_eq!(configured(&folder), leaf.certificate());
        let listed = keytool(dir.path(), "-list -v -alias other -keystore tomcat.p12");
        for part in ["Certificate chain length: 2", "Owner: CN=ca"] {
            assert!(listed.contains(part), "{hash} {part}: {listed}");
        }
    }
}

#[test]
fn what_another_key_may_need_is_not_written_away() {
    use p12_keystore::{Certificate as Bag, KeyStore as Store, KeyStoreEntry, PrivateKeyChain};
    let authority = Authority::new("CA");
    let ours = Spec::new("ours").signed_by(&authority);
    let other = Spec::new("other").signed_by(&authority);
    // Nothing tells which of the two of that name has signed it; and here neither has.
    let namesake = Authority::new("CA");
    let key = |leaf: &Leaf| {
        use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
        let key = PrivatePkcs8KeyDer::from_pem_slice(leaf.key_pem().as_bytes()).unwrap();
        p12_keystore::PrivateKey::from_der(key.secret_pkcs8_der()).unwrap()
    };
    let entry = |id: u8, leaf: &Leaf, chain: &[Certificate]| {
        let bags = chain.iter().map(|c| Bag::from_der(c.der()).unwrap());
        let chain = PrivateKeyChain::new(vec![id], key(leaf), bags.collect::<Vec<_>>());
        KeyStoreEntry::PrivateKeyChain(chain)
    };
    for (issuer, is_lost) in [(&namesake, true), (&authority, false)] {
        let mut store = Store::new();
        store.add_entry("ours", entry(1, &ours, &[ours.certificate()]));
        let chain = [other.certificate(), issuer.certificate()];
        store.add_entry("other", entry(2, &other, &chain));
        let bytes = store.writer(PASSWORD).write().unwrap();
        let password = Secret::new(PASSWORD.as_bytes().to_vec());
        let meant = Meant {
            password: Some(&password),
            key_password: None,
            alias: Some("ours"),
        };
        let leaf = Spec::new("next").self_signed();
        let key = Secret::new(leaf.key_pem().into_bytes());
        let written = formats::with_key(&bytes, &meant, &[leaf.certificate()], &key);
        match is_lost {
            true => {
                let told = written.unwrap_err().to_string();
                assert!(
                    told.contains("without losing") && told.contains("CN=CA"),
                    "{told}"
                );
            }
            false => {
                let read = formats::read_with(
                    written.unwrap().expose(),
                    Some(&password),
                    formats::Keys::Drop,
                );
                let read = read.unwrap();
                assert_eq!(read.certificates().len(), 3);
            }
        }
    }
}

#[test]
fn stores_of_openssl_keep_their_ciphers_and_trust_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let leaf = Spec::new("a").self_signed();
    fs::write(dir.path().join("a.pem"), leaf.pem() + &leaf.key_pem()).unwrap();
    // It stands beside, and is neither an issuer nor trusted.
    fs::write(dir.path().join("b.pem"), Spec::new("a").self_signed().pem()).unwrap();
    for (ciphers, told) in [
        ("", "PBES2"),
        (" -legacy", "pbeWithSHA1And3-KeyTripleDES-CBC"),
    ] {
        let line =
            format!("pkcs12 -export -in a.pem -certfile b.pem -out a.p12 -passout pass:{PASSWORD}");
        run(dir.path(), "openssl", &(line + ciphers));
        let path = dir.path().join("a.p12");
        close(&path);
        let password = dir.path().join("password");
        put(&password, PASSWORD);
        let folder = folder_of(&IdentityFiles {
            certificate: path.clone(),
            key: path,
            store: Some(KeyStore {
                password_file: Some(password),
                ..KeyStore::default()
            }),
        });
        assert_eq!(
            folder.configured(WHAT).unwrap().chain(),
            [leaf.certificate()]
        );
        let leaf = next(&folder);
        folder
            .settle(WHAT, &leaf.certificate().fingerprint())
            .unwrap();
        assert_eq!(configured(&folder), leaf.certificate());
        let line = format!("pkcs12 -info -legacy -noout -in a.p12 -passin pass:{PASSWORD}");
        let info = run(dir.path(), "openssl", &line);
        assert!(info.contains(told), "{info}");
        let listed = keytool(dir.path(), "-list -keystore a.p12");
        assert!(!listed.contains("trustedCertEntry"), "{listed}");
    }
}

#[test]
fn a_store_that_can_not_be_used_says_why_and_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let files = tomcat(dir.path(), "PKCS12");
    let wrong = dir.path().join("wrong");
    put(&wrong, "swordfish-9\n");
    let alias = |alias: Option<&str>| {
        let alias = alias.map(str::to_owned);
        with_store(&files, |store| store.alias = alias)
    };
    let password = |file| with_store(&files, |store| store.password_file = file);
    for (folder, part) in [
        (alias(None), "several keys in it (tomcat, other)"),
        (
            alias(Some("peer")),
            "no single key in it is called peer; there are: tomcat, other",
        ),
        (password(Some(wrong)), "the password doesn't open"),
        (password(None), "key-store-password-file"),
        (password(Some(dir.path().join("absent"))), "absent"),
    ] {
        let error = folder.configured(WHAT).unwrap_err();
        let told = crate::telemetry::error_chain(&error);
        assert!(told.contains(part), "{part}: {told}");
        assert!(
            !told.contains("swordfish") && !told.contains(PASSWORD),
            "{told}"
        );
    }
    let folder = folder_of(&files);
    for path in [&files.certificate, &dir.path().join("password")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = folder.configured(WHAT).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        close(path);
    }
    // A store that is broken hides no identity that is kept beside it, and is not written over.
    let leaf = next(&folder);
    put(&files.certificate, &Spec::new("a").self_signed().pem());
    let wanted = leaf.certificate().fingerprint();
    assert!(folder.find(WHAT, &wanted).is_ok());
    let error = folder.settle(WHAT, &wanted).unwrap_err();
    let told = crate::telemetry::error_chain(&error);
    assert!(told.contains("no key store"), "{told}");
}
