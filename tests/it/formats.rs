//! Stores of certificates, with `keytool` and `openssl` as the judges: what they make is read, and what we write they
//! read, with the same aliases and fingerprints.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use emccd::{
    secret::Secret,
    trust::{
        certificate::Certificate,
        formats::{self, Contents, Entry, Error, Format, Keys},
    },
};

use crate::support::binary;

const PASSWORD: &str = "geheim-123";
const UNICODE: &str = "zürich-東京";

/// A folder with certificates and keys that openssl made.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(bench.path("password"), PASSWORD).unwrap();
        for (name, serial) in [("tokyo", "7"), ("lima", "-5")] {
            let subject = format!("/CN={name}.example/O=Zürich");
            bench.openssl(&format!(
                "req -x509 -utf8 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.pem \
                 -days 30 -set_serial {serial} -subj {subject}"
            ));
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn certificate(&self, name: &str) -> Certificate {
        let pem = self.bytes(&format!("{name}.pem"));
        Certificate::read_all(&pem).unwrap().remove(0)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Runs openssl in the folder with these words, and gives what it prints.
    fn openssl(&self, words: &str) -> String {
        self.run("openssl", words.split(' '))
    }

    /// Runs keytool on a store in the folder, in English and without a password on the command line.
    fn keytool(&self, words: &str) -> String {
        let java = [
            "-J-Duser.language=en",
            "-J-Dfile.encoding=UTF-8",
            "-J-Dstdout.encoding=UTF-8",
            "-J-XX:+UseSerialGC",
            "-J-XX:TieredStopAtLevel=1",
        ];
        self.run("keytool", java.into_iter().chain(words.split(' ')))
    }

    fn run<'a>(&self, program: &str, words: impl IntoIterator<Item = &'a str>) -> String {
        let mut command = Command::new(program);
        command.args(words).env("LC_ALL", "C.UTF-8");
        let output = command.current_dir(self.folder.path()).output();
        let output = output
            .unwrap_or_else(|error| panic!("{program}: {error}; run `tests/run --tools` once"));
        let text = told(&output);
        assert!(output.status.success(), "{command:?}: {text}");
        text
    }

    /// Runs our program.
    fn emccd(&self, words: &str) -> (bool, String) {
        let mut command = Command::new(binary());
        command
            .args(words.split(' '))
            .env_remove("EMCCD_STORE_PASSWORD");
        let output = command.current_dir(self.folder.path()).output().unwrap();
        (output.status.success(), told(&output))
    }

    fn read(&self, name: &str) -> Contents {
        formats::read_with(&self.bytes(name), Some(&password()), Keys::Open(None)).unwrap()
    }

    fn refused(&self, name: &str, password: Option<&str>) -> Error {
        let password = password.map(|text| Secret::new(text.as_bytes().to_vec()));
        formats::read_trust(&self.bytes(name), password.as_ref()).unwrap_err()
    }
}

fn told(output: &Output) -> String {
    let both = [&*output.stdout, &*output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn password() -> Secret {
    Secret::new(PASSWORD.as_bytes().to_vec())
}

/// Alias, fingerprints and whether there is a key, for each entry.
fn facts(contents: &Contents) -> Vec<(String, Vec<String>, bool)> {
    let fact = |entry: &Entry| {
        let fingerprints = entry.chain.iter().map(Certificate::fingerprint_text);
        let alias = entry.alias.clone().unwrap_or_default();
        (alias, fingerprints.collect(), entry.key.is_some())
    };
    let mut facts: Vec<_> = contents.entries.iter().map(fact).collect();
    facts.sort();
    facts
}

fn fact(alias: &str, certificate: &Certificate, has_key: bool) -> (String, Vec<String>, bool) {
    (
        alias.to_owned(),
        vec![certificate.fingerprint_text()],
        has_key,
    )
}

#[test]
fn stores_of_keytool_are_read_with_every_alias_and_key() {
    let bench = Bench::new();
    let store = "-keystore made.jks -storepass:file password -noprompt";
    bench.keytool(&format!(
        "-genkeypair -storetype JKS {store} -alias node -keyalg EC -groupname secp256r1 -dname CN=node.example"
    ));
    bench.keytool(&format!("-importcert {store} -alias tokyo -file tokyo.pem"));
    bench.keytool(&format!(
        "-importcert {store} -alias {UNICODE} -file lima.pem"
    ));
    let to = "-importkeystore -srckeystore made.jks -srcstorepass:file password -deststorepass:file password -noprompt";
    bench.keytool(&format!(
        "{to} -destkeystore made.p12 -deststoretype PKCS12"
    ));
    bench.keytool(&format!(
        "-J-Dkeystore.pkcs12.legacy {to} -destkeystore legacy.p12 -deststoretype PKCS12"
    ));
    bench.keytool(&format!(
        "{to} -destkeystore made.jceks -deststoretype JCEKS"
    ));

    let java = bench.read("made.jks");
    assert_eq!(java.format, Format::Jks);
    let node = java
        .entries
        .iter()
        .find(|entry| entry.key.is_some())
        .unwrap();
    let mut expected = vec![
        fact("node", &node.chain[0], true),
        fact("tokyo", &bench.certificate("tokyo"), false),
        fact(UNICODE, &bench.certificate("lima"), false),
    ];
    expected.sort();
    for name in ["made.jks", "made.p12", "legacy.p12"] {
        assert_eq!(facts(&bench.read(name)), expected, "{name}");
        let key = |contents: Contents| contents.entries.into_iter().find_map(|entry| entry.key);
        let (key, first) = (key(bench.read(name)).unwrap(), node.key.as_ref().unwrap());
        assert_eq!(
            key.expose(),
            first.expose(),
            "{name}: the key is another one"
        );

        let wrong = bench.refused(name, Some("geheim-124"));
        assert!(
            matches!(wrong, Error::WrongPassword { .. }),
            "{name}: {wrong}"
        );
        let none = bench.refused(name, None);
        assert!(
            matches!(none, Error::PasswordNeeded { .. }),
            "{name}: {none}"
        );
        let with_key = bench.refused(name, Some(PASSWORD)).to_string();
        assert!(
            with_key.contains("private key") && with_key.contains("(node)"),
            "{with_key}"
        );
        let mut bytes = bench.bytes(name);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        let damaged = formats::read_with(&bytes, Some(&password()), Keys::Open(None)).unwrap_err();
        assert!(
            !matches!(damaged, Error::WrongPassword { .. }),
            "{name}: {damaged}"
        );
    }
    let jceks = bench.refused("made.jceks", Some(PASSWORD)).to_string();
    assert!(jceks.contains("JCEKS"), "{jceks}");

    // Through the program: keys stay closed, and the password is nowhere on the command line.
    let (is_shown, text) = bench.emccd("cert show made.p12 --password-file password");
    assert!(is_shown, "{text}");
    for word in [
        "tokyo",
        UNICODE,
        "node.example",
        &*bench.certificate("lima").fingerprint_text(),
    ] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
    let (is_shown, text) = bench.emccd("cert show made.jks");
    assert!(!is_shown && text.contains("--password-file"), "{text}");
}

#[test]
fn what_we_write_is_listed_by_keytool_and_read_by_openssl() {
    let bench = Bench::new();
    let (tokyo, lima) = (bench.certificate("tokyo"), bench.certificate("lima"));
    bench.openssl("pkcs8 -topk8 -nocrypt -in tokyo.key -outform DER -out tokyo.p8");
    let key = Entry {
        alias: Some("node".to_owned()),
        chain: vec![tokyo.clone()],
        key: Some(Secret::new(bench.bytes("tokyo.p8"))),
    };
    let entries = [
        Entry::trusted(Some("tokyo/pinned/1".to_owned()), tokyo.clone()),
        Entry::trusted(Some(UNICODE.to_owned()), lima.clone()),
        key,
    ];
    for (format, name) in [
        (Format::Jks, "ours.jks"),
        (Format::Pkcs12, "ours.p12"),
        (Format::Pkcs12Legacy, "legacy.p12"),
    ] {
        bench.write(
            name,
            &formats::write(format, &entries, Some(&password())).unwrap(),
        );
        let listed = bench.keytool(&format!(
            "-list -v -keystore {name} -storepass:file password"
        ));
        let count = |word: &str| listed.matches(word).count();
        assert_eq!(count("Entry type: trustedCertEntry"), 2, "{listed}");
        assert_eq!(count("Entry type: PrivateKeyEntry"), 1, "{listed}");
        for alias in ["tokyo/pinned/1", UNICODE, "node"] {
            assert_eq!(count(&format!("Alias name: {alias}\n")), 1, "{listed}");
        }
        assert_eq!(count(&tokyo.fingerprint_text()), 2, "{listed}");
        assert_eq!(count(&lima.fingerprint_text()), 1, "{listed}");
    }
    // Java opens the key that we protected, and what it makes of it is the same.
    bench.keytool(
        "-importkeystore -srckeystore ours.jks -srcstorepass:file password -destkeystore again.p12 \
         -deststoretype PKCS12 -deststorepass:file password -noprompt",
    );
    let sorted = facts(&Contents {
        format: Format::Jks,
        entries: entries.to_vec(),
    });
    assert_eq!(facts(&bench.read("again.p12")), sorted);

    for (name, legacy) in [("ours.p12", ""), ("legacy.p12", " -legacy")] {
        let from = format!("pkcs12 -in {name} -passin file:password -nodes{legacy}");
        bench.openssl(&format!("{from} -nokeys -out read.pem"));
        let read = formats::read_trust(&bench.bytes("read.pem"), None).unwrap();
        // Openssl prints one byte of each character of a name, so that of the other one is lost on its way.
        let mut named = read.entries.iter();
        let tokyo_named = Some("tokyo/pinned/1");
        let has_tokyo =
            named.any(|entry| entry.alias.as_deref() == tokyo_named && entry.chain[0] == tokyo);
        assert!(has_tokyo && read.certificates().contains(&lima), "{read:?}");
        bench.openssl(&format!("{from} -nocerts -out read.key"));
        bench.openssl("pkcs8 -topk8 -nocrypt -in read.key -outform DER -out read.p8");
        assert_eq!(bench.bytes("read.p8"), bench.bytes("tokyo.p8"));
    }
    let trusted = &entries[..2];
    bench.write(
        "ours.pem",
        &formats::write(Format::Pem, trusted, None).unwrap(),
    );
    bench.write(
        "ours.p7b",
        &formats::write(Format::Pkcs7, trusted, None).unwrap(),
    );
    bench.write(
        "ours.der",
        &formats::write(Format::Der, &trusted[..1], None).unwrap(),
    );
    let printed = bench.openssl("pkcs7 -inform DER -in ours.p7b -print_certs");
    let mut printed = Certificate::read_all(printed.as_bytes()).unwrap();
    printed.sort_by_key(|certificate| *certificate == lima);
    assert_eq!(printed, [tokyo.clone(), lima.clone()]);
    bench.openssl("crl2pkcs7 -nocrl -certfile ours.pem -out again.p7b");
    let mut again = formats::read_trust(&bench.bytes("again.p7b"), None)
        .unwrap()
        .certificates();
    again.sort_by_key(|certificate| *certificate == lima);
    assert_eq!(again, [tokyo.clone(), lima]);
    let printed = bench.openssl("x509 -inform DER -in ours.der -noout -fingerprint -sha256");
    assert!(printed.contains(&tokyo.fingerprint_text()), "{printed}");
}

#[test]
fn stores_and_files_of_openssl_are_read_or_refused_for_what_they_are() {
    let bench = Bench::new();
    let (tokyo, lima) = (bench.certificate("tokyo"), bench.certificate("lima"));
    let export = "pkcs12 -export -in tokyo.pem -inkey tokyo.key -name node -passout";
    bench.openssl(&format!("{export} file:password -out modern.p12"));
    bench.openssl(&format!("{export} file:password -legacy -out legacy.p12"));
    bench.openssl(&format!("{export} pass: -out empty.p12"));
    for name in ["modern.p12", "legacy.p12"] {
        assert_eq!(
            facts(&bench.read(name)),
            [fact("node", &tokyo, true)],
            "{name}"
        );
        let wrong = bench.refused(name, Some(""));
        assert!(
            matches!(wrong, Error::WrongPassword { .. }),
            "{name}: {wrong}"
        );
    }
    let empty = Secret::new(Vec::new());
    for password in [None, Some(&empty)] {
        let read =
            formats::read_with(&bench.bytes("empty.p12"), password, Keys::Open(None)).unwrap();
        assert_eq!(facts(&read), [fact("node", &tokyo, true)]);
    }
    // Java would show nothing in this one: no attribute says that it is trusted.
    let both = [bench.bytes("tokyo.pem"), bench.bytes("lima.pem")].concat();
    bench.write("both.pem", &both);
    bench.openssl("pkcs12 -export -nokeys -in both.pem -out nokeys.p12 -passout file:password");
    assert_eq!(
        bench.read("nokeys.p12").certificates(),
        [tokyo.clone(), lima]
    );
    bench.openssl(
        "pkcs12 -export -nokeys -nomac -certpbe NONE -in both.pem -out open.p12 -passout file:password",
    );
    let open = formats::read_trust(&bench.bytes("open.p12"), None).unwrap();
    assert_eq!(open.certificates().len(), 2);
    let unsealed = bench.refused("open.p12", Some(PASSWORD));
    assert!(matches!(unsealed, Error::NotSealed { .. }), "{unsealed}");
    // Any password opens what is not encrypted: only the seal tells of it.
    bench.openssl(
        "pkcs12 -export -nokeys -certpbe NONE -in both.pem -out plain.p12 -passout file:password",
    );
    assert_eq!(bench.read("plain.p12").certificates().len(), 2);
    let wrong = bench.refused("plain.p12", Some("falsch"));
    assert!(matches!(wrong, Error::WrongPassword { .. }), "{wrong}");
    let none = bench.refused("plain.p12", None);
    assert!(matches!(none, Error::PasswordNeeded { .. }), "{none}");
    bench.openssl(
        "pkcs12 -export -nokeys -nomac -certpbe AES-256-CBC -in both.pem -out loose.p12 -passout file:password",
    );
    for password in [None, Some(PASSWORD), Some("falsch")] {
        let told = bench.refused("loose.p12", password);
        assert!(
            matches!(&told, Error::Unsupported { what, .. } if what.contains("no seal")),
            "{told}"
        );
    }

    bench.openssl("x509 -in tokyo.pem -trustout -setalias tokyo -out trusted.pem");
    bench.openssl("req -new -key tokyo.key -subj /CN=v1.example -out request.pem");
    bench.openssl("x509 -req -in request.pem -signkey tokyo.key -days 9 -out v1.pem");
    for name in ["tokyo.pem", "lima.pem", "trusted.pem", "v1.pem"] {
        assert_eq!(bench.read(name).entries.len(), 1, "{name}");
    }
    bench.openssl("req -in request.pem -outform DER -out request.der");
    bench.openssl("pkcs8 -topk8 -in tokyo.key -passout file:password -out encrypted.key");
    bench.openssl(
        "pkcs8 -topk8 -in tokyo.key -passout file:password -outform DER -out encrypted.der",
    );
    bench.openssl("ec -in tokyo.key -outform DER -out ec.der");
    bench.write("index.txt", b"");
    bench.write(
        "ca.cnf",
        b"[ca]\ndefault_ca = a\n[a]\ndatabase = index.txt\ndefault_md = sha256\ndefault_crl_days = 1\n",
    );
    bench.openssl("ca -gencrl -config ca.cnf -keyfile tokyo.key -cert tokyo.pem -out list.pem");
    bench.openssl("crl -in list.pem -outform DER -out list.der");
    bench.openssl("crl2pkcs7 -in list.pem -certfile tokyo.pem -out list.p7b");
    for (name, word) in [
        ("tokyo.key", "private key"),
        ("encrypted.key", "private key"),
        ("encrypted.der", "private key"),
        ("ec.der", "private key"),
        ("request.pem", "CSR"),
        ("request.der", "CSR"),
        ("list.pem", "CRL"),
        ("list.der", "CRL"),
        ("list.p7b", "CRL"),
        ("modern.p12", "private key"),
    ] {
        let told = bench.refused(name, Some(PASSWORD)).to_string();
        assert!(told.contains(word), "{name}: {told}");
    }
    // Keys are passed over where only certificates are shown.
    let dropped = formats::read_with(&bench.bytes("modern.p12"), Some(&password()), Keys::Drop);
    assert_eq!(facts(&dropped.unwrap()), [fact("node", &tokyo, false)]);
    let (is_shown, text) = bench.emccd("cert show request.pem");
    assert!(
        !is_shown && text.contains("CSR") && text.contains("next:"),
        "{text}"
    );
}
