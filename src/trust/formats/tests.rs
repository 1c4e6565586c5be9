use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use crate::trust::fixtures::{Authority, Leaf, Spec};

fn read(bytes: &[u8], password: Option<&Secret>) -> Result<Contents, Error> {
    read_with(bytes, password, Keys::Open(None))
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

fn trusted(alias: &str, leaf: &Leaf) -> Entry {
    Entry::trusted(Some(alias.to_owned()), leaf.certificate())
}

/// A key entry with an issuer.
fn key_entry(alias: &str) -> Entry {
    let authority = Authority::new("An authority");
    let leaf = Spec::new("node.example").signed_by(&authority);
    Entry {
        alias: Some(alias.to_owned()),
        chain: vec![leaf.certificate(), authority.certificate()],
        key: Some(Secret::new(pkcs8(&leaf))),
    }
}

fn pkcs8(leaf: &Leaf) -> Vec<u8> {
    use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
    let key = PrivatePkcs8KeyDer::from_pem_slice(leaf.key_pem().as_bytes()).unwrap();
    key.secret_pkcs8_der().to_vec()
}

/// Alias, certificates and key of an entry.
type Fact = (Option<String>, Vec<Certificate>, Option<Vec<u8>>);

/// A file with its format and its password.
type Sample = (Format, Vec<u8>, Option<Secret>);

fn facts(entries: &[Entry]) -> Vec<Fact> {
    let fact = |entry: &Entry| {
        let key = entry.key.as_ref().map(|key| key.expose().to_vec());
        (entry.alias.clone(), entry.chain.clone(), key)
    };
    let mut facts: Vec<_> = entries.iter().map(fact).collect();
    facts.sort_by(|a, b| a.0.cmp(&b.0));
    facts
}

/// Stores and files of every format, each with its password.
fn samples() -> &'static [Sample] {
    static SAMPLES: OnceLock<Vec<Sample>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let leaf = Spec::new("a.example").self_signed();
        let one = [trusted("eins", &leaf)];
        let with_key = [trusted("eins", &leaf), key_entry("key")];
        Format::ALL
            .into_iter()
            .map(|format| {
                let password = format.takes_password().then(|| secret("Geheimnis"));
                let entries: &[Entry] = if format.takes_password() {
                    &with_key
                } else {
                    &one
                };
                let written = write(format, entries, password.as_ref()).unwrap();
                (format, written, password)
            })
            .collect()
    })
}

#[test]
fn stores_come_back_whole_with_their_aliases_and_keys() {
    let leaf = Spec::new("a.example").self_signed();
    let entries = [
        trusted("eins", &leaf),
        trusted("zürich 東京", &Spec::new("b.example").self_signed()),
        key_entry("key"),
    ];
    let password = secret("päßword");
    for format in [Format::Jks, Format::Pkcs12, Format::Pkcs12Legacy] {
        let written = write(format, &entries, Some(&password)).unwrap();
        let contents = read(&written, Some(&password)).unwrap();
        assert_eq!(contents.format.to_string(), format.to_string());
        assert_eq!(facts(&contents.entries), facts(&entries), "{format:?}");
        let told = read_trust(&written, Some(&password))
            .unwrap_err()
            .to_string();
        assert!(
            told.contains("private key") && told.contains("(key)"),
            "{told}"
        );
        let dropped = read_with(&written, Some(&password), Keys::Drop)
            .unwrap()
            .entries;
        assert!(dropped.len() == 3 && dropped.iter().all(|entry| entry.key.is_none()));
    }
}

#[test]
fn the_same_entries_in_any_order_make_the_same_bytes() {
    let (a, b) = (
        Spec::new("a.example").self_signed(),
        Spec::new("b.example").self_signed(),
    );
    let (one, two) = (trusted("one", &a), trusted("Two", &b));
    let key = key_entry("key");
    let password = secret("changeit");
    for format in [Format::Pem, Format::Pkcs7, Format::Jks] {
        let keys = if format == Format::Jks {
            vec![key.clone()]
        } else {
            vec![]
        };
        let first = [vec![one.clone(), two.clone()], keys.clone()].concat();
        let second = [keys, vec![two.clone(), one.clone(), one.clone()]].concat();
        let write = |entries: &[Entry]| write(format, entries, Some(&password)).unwrap();
        assert_eq!(write(&first), write(&second), "{format:?}");
        let read = read(&write(&first), Some(&password)).unwrap();
        assert_eq!(write(&read.entries), write(&first), "{format:?}");
    }
}

#[test]
fn aliases_that_java_takes_for_one_get_numbers() {
    let leaves: Vec<_> = (0..3)
        .map(|_| Spec::new("a.example").self_signed())
        .collect();
    let mut entries: Vec<_> = leaves.iter().map(|leaf| trusted("Node", leaf)).collect();
    entries[1].alias = Some("NODE".to_owned());
    entries.push(Entry::trusted(None, leaves[0].certificate()));
    entries.push(trusted("  a\nb ", &leaves[1]));
    let password = secret("changeit");
    let written = write(Format::Jks, &entries, Some(&password)).unwrap();
    let aliases: Vec<_> = read(&written, Some(&password)).unwrap().entries;
    let aliases: Vec<_> = aliases
        .iter()
        .map(|entry| entry.alias.as_deref().unwrap())
        .collect();
    assert_eq!(
        aliases,
        ["a\u{FFFD}b", "cn=a.example", "node", "node#2", "node#3"]
    );
}

#[test]
fn a_wrong_password_is_told_apart_from_damage_and_from_none() {
    for (format, bytes, password) in samples() {
        let Some(password) = password else { continue };
        let told = |bytes: &[u8], password: Option<&str>| {
            let password = password.map(secret);
            read(bytes, password.as_ref()).unwrap_err()
        };
        for wrong in ["geheimnis", "", "x"] {
            let told = told(bytes, Some(wrong));
            assert!(
                matches!(told, Error::WrongPassword { .. }),
                "{format:?}: {told}"
            );
        }
        let none = told(bytes, None);
        assert!(
            matches!(none, Error::PasswordNeeded { .. }),
            "{format:?}: {none}"
        );
        let cut = &bytes[..bytes.len() / 2];
        let cut = read(cut, Some(password)).unwrap_err();
        assert!(
            !matches!(cut, Error::WrongPassword { .. }),
            "{format:?}: {cut}"
        );
        let mut changed = bytes.clone();
        let last = changed.len() - 3;
        changed[last] ^= 1;
        let changed = read(&changed, Some(password)).unwrap_err();
        assert!(
            !matches!(changed, Error::WrongPassword { .. }),
            "{format:?}: {changed}"
        );
        let bytes = Secret::new(vec![0xFF, 0xFE]);
        let told = read(&samples()[5].1, Some(&bytes)).unwrap_err();
        assert!(matches!(told, Error::PasswordNotText), "{told}");
    }
}

/// A store with one round for each key, so that many passwords can be tried, and its parts.
struct Quick {
    store: Vec<u8>,
    seal: Vec<u8>,
    certificates: Vec<u8>,
    key: Vec<u8>,
}

const QUICK: &str = "Geheimnis";

fn quick_store() -> Quick {
    let leaf = Spec::new("a.example").self_signed();
    let certificate = p12_keystore::Certificate::from_der(leaf.der()).unwrap();
    let key = p12_keystore::PrivateKey::from_der(&pkcs8(&leaf)).unwrap();
    let chain = p12_keystore::PrivateKeyChain::new(b"1".to_vec(), key, vec![certificate]);
    let mut store = p12_keystore::KeyStore::new();
    store.add_entry("eins", p12_keystore::KeyStoreEntry::PrivateKeyChain(chain));
    let writer = store.writer(QUICK).encryption_iterations(1);
    let store = writer.mac_iterations(1).write().unwrap();

    let of = |bytes, tag| asn1::only(bytes, tag).unwrap().content;
    let [_, content, seal] = &asn1::children(of(&store, asn1::SEQUENCE)).unwrap()[..] else {
        panic!("it has other parts")
    };
    let [_, octets] = &asn1::children(content.content).unwrap()[..] else {
        panic!("it has other content")
    };
    let safes = of(of(octets.content, asn1::OCTET_STRING), asn1::SEQUENCE);
    let [certificates, key] = &asn1::children(safes).unwrap()[..] else {
        panic!("it has other safes")
    };
    Quick {
        seal: seal.whole.to_vec(),
        certificates: certificates.whole.to_vec(),
        key: key.whole.to_vec(),
        store,
    }
}

fn in_data(content: &[u8]) -> Vec<u8> {
    let octets = asn1::element(asn1::OCTET_STRING, &[content]);
    let content = asn1::element(asn1::CONTEXT_0, &[&octets]);
    asn1::element(
        asn1::SEQUENCE,
        &[b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x07\x01", &content],
    )
}

/// A store of these parts, with that seal or none.
fn store_of(safes: &[&[u8]], seal: &[u8]) -> Vec<u8> {
    let content = in_data(&asn1::element(asn1::SEQUENCE, safes));
    asn1::element(asn1::SEQUENCE, &[&[asn1::INTEGER, 1, 3], &content, seal])
}

/// Of so many wrong passwords some make bytes that end as they should, of certificates and of keys.
#[test]
fn no_wrong_password_is_told_as_damage() {
    use p12_keystore::error::Error as P12;
    let quick = quick_store();
    assert!(read(&quick.store, Some(&secret(QUICK))).is_ok());
    // With the key before the certificates, as Java writes it. The seal is another one's now, and with a wrong password
    // it is so anyway.
    let parts = [&*quick.key, &*quick.certificates];
    let turned = store_of(&parts, &quick.seal);
    let told = read(&turned, Some(&secret(QUICK))).unwrap_err();
    assert!(matches!(told, Error::Damaged { .. }), "{told}");
    let (mut no_der, mut no_key) = (0, 0);
    for (store, parts) in [(&quick.store, [parts[1], parts[0]]), (&turned, parts)] {
        let unsealed = store_of(&parts, b"");
        for wrong in 0..5_000 {
            let wrong = wrong.to_string();
            match p12_keystore::Pkcs12Archive::from_pkcs12(&unsealed, &wrong).unwrap_err() {
                P12::DerError(_) => no_der += 1,
                P12::InvalidPrivateKey => no_key += 1,
                _ => {}
            }
            let told = read(store, Some(&secret(&wrong))).unwrap_err();
            assert!(
                matches!(told, Error::WrongPassword { .. }),
                "{wrong}: {told}"
            );
        }
    }
    assert!(no_der > 0 && no_key > 0, "{no_der} {no_key}");
    // The library takes none of these for a password.
    let told = read(&quick.store, Some(&secret("\u{1F511}"))).unwrap_err();
    assert!(matches!(told, Error::Unsupported { .. }), "{told}");
}

/// The same with other salts for what passwords are made into.
fn salted(store: &[u8], n: u16) -> Vec<u8> {
    const PBKDF2: &[u8] = b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x05\x0C";
    let mut salted = store.to_vec();
    let found = store.windows(PBKDF2.len()).enumerate();
    for (at, _) in found.filter(|(_, name)| *name == PBKDF2) {
        // Its parameters, and the salt in them.
        let at = at + PBKDF2.len();
        assert_eq!(
            (store[at], store[at + 2]),
            (asn1::SEQUENCE, asn1::OCTET_STRING)
        );
        salted[at + 4..at + 6].copy_from_slice(&n.to_be_bytes());
    }
    assert_ne!(salted, store);
    salted
}

/// Whatever the empty password makes of it, and whichever is given.
#[test]
fn what_is_encrypted_and_has_no_seal_is_refused_as_that() {
    use p12_keystore::error::Error as P12;
    let quick = quick_store();
    let (mut no_der, mut no_key) = (0, 0);
    for safe in [&*quick.certificates, &*quick.key] {
        let store = store_of(&[safe], b"");
        for password in [QUICK, "x"] {
            let told = read(&store, Some(&secret(password))).unwrap_err();
            assert!(told.to_string().contains("no seal"), "{told}");
        }
        for n in 0..5_000 {
            let store = salted(&store, n);
            match p12_keystore::Pkcs12Archive::from_pkcs12(&store, "").unwrap_err() {
                P12::DerError(_) => no_der += 1,
                P12::InvalidPrivateKey => no_key += 1,
                _ => {}
            }
            let told = read(&store, None).unwrap_err();
            assert!(
                matches!(told, Error::Unsupported { .. }) && told.to_string().contains("no seal"),
                "{n}: {told}"
            );
        }
    }
    assert!(no_der > 0 && no_key > 0, "{no_der} {no_key}");
}

#[test]
fn no_password_and_an_empty_one_are_two_things() {
    let leaf = Spec::new("a.example").self_signed();
    for format in [Format::Jks, Format::Pkcs12] {
        let empty = secret("");
        let written = write(format, &[trusted("a", &leaf)], Some(&empty)).unwrap();
        assert_eq!(read(&written, Some(&empty)).unwrap().entries.len(), 1);
        let told = write(format, &[trusted("a", &leaf)], None).unwrap_err();
        assert!(matches!(told, Error::PasswordNeeded { .. }), "{told}");
    }
}

#[test]
fn a_store_without_a_seal_is_not_believed_on_a_password() {
    let leaf = Spec::new("a.example").self_signed();
    let alias = asn1::element(0x1E, &[b"\x00a"]);
    let name = asn1::element(asn1::SET, &[&alias]);
    let name = asn1::element(
        asn1::SEQUENCE,
        &[b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x09\x14", &name],
    );
    let octets = asn1::element(asn1::OCTET_STRING, &[leaf.der()]);
    let value = asn1::element(asn1::CONTEXT_0, &[&octets]);
    let bag = asn1::element(
        asn1::SEQUENCE,
        &[b"\x06\x0A\x2A\x86\x48\x86\xF7\x0D\x01\x09\x16\x01", &value],
    );
    let bag = asn1::element(asn1::CONTEXT_0, &[&bag]);
    let names = asn1::element(asn1::SET, &[&name]);
    let bag = asn1::element(
        asn1::SEQUENCE,
        &[
            b"\x06\x0B\x2A\x86\x48\x86\xF7\x0D\x01\x0C\x0A\x01\x03",
            &bag,
            &names,
        ],
    );
    let store = store_of(&[&in_data(&asn1::element(asn1::SEQUENCE, &[&bag]))], b"");
    let contents = read_trust(&store, None).unwrap();
    assert_eq!(contents.format, Format::Pkcs12);
    assert_eq!(contents.entries[0].alias.as_deref(), Some("a"));
    assert_eq!(contents.certificates(), [leaf.certificate()]);
    let told = read_trust(&store, Some(&secret("x"))).unwrap_err();
    assert!(matches!(told, Error::NotSealed { .. }), "{told}");
    // Broken, with nothing in it encrypted.
    let told = read_trust(&store_of(&[&in_data(b"\x30\x05")], b""), None).unwrap_err();
    assert!(matches!(told, Error::Damaged { .. }), "{told}");
}

#[test]
fn a_key_with_a_password_of_its_own_opens_with_that() {
    let entry = key_entry("key");
    let (store, own) = (secret("store password"), secret("key password"));
    // A store whose key was written with the other password, sealed anew.
    let written = write(Format::Jks, std::slice::from_ref(&entry), Some(&own)).unwrap();
    let body = &written[..written.len() - 20];
    let sealed = jks::sealed(body, &store);
    let told = read(&sealed, Some(&store)).unwrap_err();
    assert!(
        matches!(&told, Error::KeyPassword { alias } if alias == "key"),
        "{told}"
    );
    let contents = read_with(&sealed, Some(&store), Keys::Open(Some(&own))).unwrap();
    assert_eq!(facts(&contents.entries), facts(&[entry]));
    // The other way round: the key opens with the store's after all.
    read_with(&written, Some(&own), Keys::Open(Some(&store))).unwrap();
}

#[test]
fn text_before_a_block_may_begin_with_any_character() {
    let leaf = Spec::new("a.example").self_signed();
    let text = format!("0: Certificate\n{}", leaf.pem());
    let contents = read(text.as_bytes(), None).unwrap();
    assert_eq!(contents.certificates(), [leaf.certificate()]);
    let numbered: Vec<_> = (0..3_000).map(|n| n.to_string()).collect();
    assert!(numbered.iter().all(|n| read(n.as_bytes(), None).is_err()));
}

#[test]
fn what_a_format_has_no_place_for_is_told() {
    let (a, b) = (
        Spec::new("a.example").self_signed(),
        Spec::new("b.example").self_signed(),
    );
    let two = [trusted("a", &a), trusted("b", &b)];
    assert_eq!(
        write(Format::Der, &two[..1], None).unwrap(),
        a.der().to_vec()
    );
    assert!(matches!(
        write(Format::Der, &two, None),
        Err(Error::NoPlace { .. })
    ));
    assert!(matches!(
        write(Format::Der, &[], None),
        Err(Error::NoCertificate { .. })
    ));
    for format in [Format::Pem, Format::Der, Format::Pkcs7] {
        let told = write(format, &[key_entry("k")], None).unwrap_err();
        assert!(matches!(told, Error::NoPlace { .. }), "{told}");
    }
    let beyond = [trusted("\u{1F600}", &a)];
    let told = write(Format::Pkcs12, &beyond, Some(&secret("x"))).unwrap_err();
    assert!(matches!(told, Error::Alias { .. }), "{told}");
    let long = [trusted(&"x".repeat(70_000), &a)];
    let told = write(Format::Jks, &long, Some(&secret("x"))).unwrap_err();
    assert!(matches!(told, Error::Alias { .. }), "{told}");
    let beyond = write(Format::Jks, &beyond, Some(&secret("x"))).unwrap();
    let read = read(&beyond, Some(&secret("x"))).unwrap();
    assert_eq!(read.entries[0].alias.as_deref(), Some("\u{1F600}"));
}

#[test]
fn what_is_no_certificate_is_told_apart_in_der_too() {
    use rcgen::{CertificateParams, KeyPair};
    let leaf = Spec::new("a.example").self_signed();
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let told = |bytes: &[u8]| read_trust(bytes, None).unwrap_err();
    assert!(matches!(told(request.der()), Error::Request));
    assert!(matches!(told(&pkcs8(&leaf)), Error::OnlyKey { .. }));
    let pem = told(leaf.key_pem().as_bytes());
    assert!(matches!(pem, Error::OnlyKey { .. }), "{pem}");
    assert!(pem.to_string().contains("no certificate"), "{pem}");
    for both in [leaf.key_pem() + &leaf.pem(), leaf.pem() + &leaf.key_pem()] {
        let both = told(both.as_bytes());
        assert!(matches!(both, Error::PrivateKey { .. }), "{both}");
    }
    assert!(matches!(told(&revocation_list()), Error::RevocationList));
    let rsa = asn1::element(asn1::SEQUENCE, &[&[2, 1, 0], &[2, 1, 7], &[2, 1, 3]]);
    let ec = asn1::element(asn1::SEQUENCE, &[&[2, 1, 1], &[4, 1, 7]]);
    let encrypted = asn1::element(asn1::SEQUENCE, &[&[0x30, 0], &[4, 1, 7]]);
    for key in [rsa, ec, encrypted] {
        assert!(
            matches!(told(&key), Error::OnlyKey { .. }),
            "{}",
            told(&key)
        );
    }
    let public = asn1::element(asn1::SEQUENCE, &[&[0x30, 0], &[3, 1, 0]]);
    for (bytes, word) in [
        (&b""[..], "nothing at all"),
        (b"hello", "no certificate"),
        (b"\xCE\xCE\xCE\xCE\0\0\0\x02", "JCEKS"),
        (b"\x30\x80\x02\x01\x03", "BER"),
        (b"\x30\x03\x06\x01\x2A", "no certificate"),
        (&public, "no certificate"),
        (b"0", "certificate 1"),
    ] {
        let told = told(bytes).to_string();
        assert!(told.contains(word), "{told}");
    }
}

fn revocation_list() -> Vec<u8> {
    use rcgen::{
        CertificateRevocationListParams, KeyIdMethod, KeyPair, SerialNumber, date_time_ymd,
    };
    let key = KeyPair::generate().unwrap();
    let mut issuer = rcgen::CertificateParams::default();
    issuer.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    issuer.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
    let issuer = rcgen::Issuer::new(issuer, key);
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2027, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(&issuer).unwrap().der().to_vec()
}

#[test]
fn odd_certificates_are_taken_as_they_are() {
    let plain = Spec::new("odd.example").self_signed();
    let serial = plain.der().windows(3).position(|w| w[..2] == [0x02, 0x14]);
    let mut negative = plain.der().to_vec();
    if let Some(at) = serial {
        negative[at + 2] = 0x80;
    }
    let name = plain
        .der()
        .windows(11)
        .position(|w| w == b"odd.example")
        .unwrap();
    let mut latin = plain.der().to_vec();
    latin[name] = 0xFC;
    // The second one is the subject, or the alternative name.
    let twin = Spec::new("odd.example").self_signed();
    let odd: Vec<Entry> = [negative, latin, plain.der().to_vec(), twin.der().to_vec()]
        .iter()
        .map(|der| Entry::trusted(None, Certificate::from_der(der).unwrap()))
        .collect();
    for format in [Format::Pem, Format::Pkcs7, Format::Pkcs12, Format::Jks] {
        let password = secret("changeit");
        let written = write(format, &odd, Some(&password)).unwrap();
        let given = format.takes_password().then_some(&password);
        let mut came = read_trust(&written, given).unwrap().certificates();
        let mut went: Vec<_> = odd.iter().map(|entry| entry.chain[0].clone()).collect();
        came.sort_by_key(Certificate::fingerprint);
        went.sort_by_key(Certificate::fingerprint);
        assert_eq!(came, went, "{format:?}");
    }
}

#[test]
fn a_long_chain_comes_back_in_its_order() {
    let mut authorities = vec![Authority::new("Root")];
    for depth in 0..40 {
        let above = authorities.last().unwrap();
        let next = Authority::under(&format!("Authority {depth}"), above);
        authorities.push(next);
    }
    let leaf = Spec::new("deep.example").signed_by(authorities.last().unwrap());
    let mut chain = vec![leaf.certificate()];
    chain.extend(authorities.iter().rev().map(Authority::certificate));
    let entry = Entry {
        alias: Some("deep".to_owned()),
        chain,
        key: Some(Secret::new(pkcs8(&leaf))),
    };
    let password = secret("changeit");
    for format in [Format::Jks, Format::Pkcs12] {
        let written = write(format, std::slice::from_ref(&entry), Some(&password)).unwrap();
        let came = read(&written, Some(&password)).unwrap();
        assert_eq!(facts(&came.entries), facts(std::slice::from_ref(&entry)));
    }
}

#[test]
fn thousands_of_one_name_are_numbered_without_looking_at_each_again() {
    let (mut names, mut numbers, mut looks) = (BTreeSet::new(), HashMap::new(), 0);
    let mut aliases = BTreeSet::new();
    const ALL: usize = 5_000;
    for number in 0..ALL {
        let alias = if number % 2 == 0 { "tomcat" } else { "Tomcat" };
        let unique = unique(alias.to_owned(), &mut numbers, |name| {
            looks += 1;
            names.insert(name)
        });
        aliases.insert(unique.to_lowercase());
    }
    assert_eq!(aliases.len(), ALL);
    assert!(looks <= 2 * ALL, "{looks}");
}

#[test]
fn a_namesake_is_nobodys_issuer() {
    // Certificates of one name that signed themselves, as each renewal of Tomcat's makes one.
    let leaf = Spec::new("berlin").self_signed();
    let namesakes: Vec<_> = (0..3).map(|_| Spec::new("berlin").self_signed()).collect();
    let (root, twin) = (Authority::new("Root"), Authority::new("Root"));
    let signed = Spec::new("tokyo").signed_by(&root);
    let store = |leaf: &Leaf, beside: &[Certificate]| {
        let alias = "key";
        let key = p12_keystore::PrivateKey::from_der(&pkcs8(leaf)).unwrap();
        let mut chain = vec![leaf.certificate()];
        chain.extend_from_slice(beside);
        let bags = chain
            .iter()
            .map(|c| p12_keystore::Certificate::from_der(c.der()).unwrap());
        let chain = p12_keystore::PrivateKeyChain::new(vec![1], key, bags.collect::<Vec<_>>());
        let mut store = p12_keystore::KeyStore::new();
        store.add_entry(alias, p12_keystore::KeyStoreEntry::PrivateKeyChain(chain));
        let written = store.writer("changeit").write().unwrap();
        read(&written, Some(&secret("changeit"))).unwrap().entries
    };
    let beside: Vec<_> = namesakes.iter().map(Leaf::certificate).collect();
    let entries = store(&leaf, &beside);
    assert_eq!(entries[0].chain, [leaf.certificate()]);
    assert_eq!(
        entries.len(),
        1 + beside.len(),
        "each is an entry of its own"
    );
    let entries = store(&signed, &[twin.certificate(), root.certificate()]);
    assert_eq!(entries[0].chain, [signed.certificate(), root.certificate()]);
    assert_eq!(entries[1].chain, [twin.certificate()]);
}

#[test]
fn nothing_is_made_of_lengths_that_the_file_claims() {
    // Two thousand million entries, an alias of 64 KiB, a key and a certificate of 4 GiB, as many in its chain.
    let hostile: [&[u8]; 5] = [
        b"",
        b"\0\0\0\x02\xFF\xFF",
        b"\0\0\0\x01\0\x01aTIMETIME\xFF\xFF\xFF\xFF",
        b"\0\0\0\x01\0\x01aTIMETIME\0\0\0\0\xFF\xFF\xFF\xFF",
        b"\0\0\0\x02\0\x01aTIMETIME\0\x05X.509\xFF\xFF\xFF\xFF",
    ];
    let password = secret("changeit");
    for entry in hostile {
        let body = [&b"\xFE\xED\xFE\xED\0\0\0\x02\x7F\xFF\xFF\xFF"[..], entry].concat();
        for bytes in [
            jks::sealed(&body, &password),
            [&body[..], &[0; 20]].concat(),
        ] {
            let told = read(&bytes, Some(&password)).unwrap_err();
            assert!(matches!(told, Error::Damaged { .. }), "{told}");
        }
    }
    for (body, word) in [
        (&b"\xFE\xED\xFE\xED\0\0\0\x03\0\0\0\0"[..], "version 3"),
        (b"\xFE\xED\xFE\xED\0\0\0\x02\0\0\0\0x", "last entry"),
        (
            b"\xFE\xED\xFE\xED\0\0\0\x02\0\0\0\x01\0\0\0\x07\0\0TIMETIME",
            "kind 7",
        ),
        (
            b"\xFE\xED\xFE\xED\0\0\0\x02\0\0\0\x01\0\0\0\x02\0\x01\xFFTIMETIME",
            "alias",
        ),
        (
            b"\xFE\xED\xFE\xED\0\0\0\x02\0\0\0\x01\0\0\0\x02\0\x01aTIMETIME\0\x03PGP\0\0\0\0",
            "PGP",
        ),
    ] {
        let told = read(&jks::sealed(body, &password), Some(&password)).unwrap_err();
        assert!(told.to_string().contains(word), "{told}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), front in 0..5_usize) {
        let fronts: [&[u8]; 5] = [
            b"",
            b"\xFE\xED\xFE\xED\0\0\0\x02\0\0\0\x01",
            b"-----BEGIN CERTIFICATE-----\n",
            b"\x30\x82\x01\x00",
            b"\x30\x82\x01\x00\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x07\x02\xA0",
        ];
        let bytes = [fronts[front], &bytes].concat();
        let password = secret("x");
        drop(read(&bytes, None));
        drop(read(&bytes, Some(&password)));
        let sealed = jks::sealed(&bytes, &password);
        drop(read(&sealed, Some(&password)));
    }

    #[test]
    fn damaged_files_never_panic(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (format, bytes, password) = which.get(samples());
        let mut bytes = bytes.clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        drop(read(&bytes, password.as_ref()));
        if *format == Format::Jks && bytes.len() > 20 {
            // Past the digest too.
            let password = secret("Geheimnis");
            drop(read(&jks::sealed(&bytes[..bytes.len() - 20], &password), Some(&password)));
        }
    }

    #[test]
    fn any_alias_comes_back_from_a_java_store(alias in "\\PC{1,20}") {
        let Some(clean) = clean_alias(&alias) else { return Ok(()) };
        static LEAF: OnceLock<Certificate> = OnceLock::new();
        let leaf = LEAF.get_or_init(|| Spec::new("a.example").self_signed().certificate());
        let entry = Entry::trusted(Some(alias), leaf.clone());
        let password = secret("changeit");
        for format in [Format::Jks, Format::Pem] {
            let written = write(format, std::slice::from_ref(&entry), Some(&password)).unwrap();
            let given = format.takes_password().then_some(&password);
            let came = read(&written, given).unwrap().entries.remove(0).alias;
            let went = if format == Format::Jks { clean.to_lowercase() } else { clean.clone() };
            prop_assert_eq!(came, Some(went));
        }
    }
}
