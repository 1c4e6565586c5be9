//! Who we are: a certificate chain and the key that goes with it, read from files and checked.
//!
//! The key's bytes are wiped as soon as the signing key is made from them; nothing gives them out again.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
};

use rustls::{crypto::aws_lc_rs::sign::any_supported_type, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    secret::Secret,
    trust::{
        Error,
        bundle::{Bundle, Direction},
        certificate::Certificate,
        judge::{Verdict, judge_for},
    },
};

/// Our own certificate with its key. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    chain: Arc<[Certificate]>,
    leaf: Certificate,
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads a certificate chain, leaf first, and a private key from PEM files. The key file must be
    /// readable by its owner alone.
    ///
    /// # Errors
    /// What is wrong with which file, and when the key is another certificate's.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let certificate_pem = read(certificate, Readers::Anyone)?;
        let key_pem = read(key, Readers::OwnerOnly)?;
        Self::from_pem(certificate_pem.expose(), &key_pem)
    }

    /// Reads a certificate chain, leaf first, and a private key from PEM texts.
    ///
    /// # Errors
    /// What is wrong with which of them, and when the key is another certificate's.
    pub fn from_pem(certificate_pem: &[u8], key_pem: &Secret) -> Result<Self, Error> {
        let chain = Certificate::read_all(certificate_pem)?;
        let Some(leaf) = chain.first().cloned() else {
            return Err(Error::MalformedCertificate {
                reason: "there is none".to_owned(),
            });
        };
        let is_broken = chain
            .windows(2)
            .any(|pair| matches!(pair, [child, issuer] if !child.names_issuer(issuer)));
        if is_broken {
            let reason =
                "the chain is out of order: each certificate must be followed by its issuer"
                    .to_owned();
            return Err(Error::MalformedCertificate { reason });
        }
        let ders: Vec<CertificateDer<'static>> = chain
            .iter()
            .map(|certificate| certificate.der().clone())
            .collect();
        let key = CertifiedKey::new(ders, signing_key(key_pem)?);
        if key.keys_match().is_err() {
            return Err(Error::KeyMismatch {
                subject: leaf.subject().to_owned(),
            });
        }
        Ok(Self {
            chain: chain.into(),
            leaf,
            key: Arc::new(key),
        })
    }

    /// Checks it as a peer that pinned it would: dates, and usages in both directions, since nodes call and
    /// are called with the same identity.
    ///
    /// # Errors
    /// [`Error::SelfCheck`] with the reason that a peer would give.
    pub fn check(&self, now: Timestamp) -> Result<(), Error> {
        self.check_as(&[Direction::Client, Direction::Server], now)
    }

    /// Checks it as far as a server that only phones call must be: dates, and the usage of a server.
    ///
    /// # Errors
    /// [`Error::SelfCheck`] with the reason that a caller would give.
    pub fn check_server(&self, now: Timestamp) -> Result<(), Error> {
        self.check_as(&[Direction::Server], now)
    }

    /// Checks it as far as one that is shown to those that we call must be: dates, and the usage of a client.
    ///
    /// # Errors
    /// [`Error::SelfCheck`] with the reason that the called would give.
    pub fn check_client(&self, now: Timestamp) -> Result<(), Error> {
        self.check_as(&[Direction::Client], now)
    }

    fn check_as(&self, directions: &[Direction], now: Timestamp) -> Result<(), Error> {
        // The name is of no account: the bundle is made for this one judgement.
        let Ok(ourselves) = ClusterId::new("self") else {
            return Ok(());
        };
        let bundle = Bundle {
            pinned: vec![self.leaf.clone()],
            ..Bundle::new(ourselves)
        };
        for &direction in directions {
            if let Verdict::Rejected {
                rejection,
                expectation,
                ..
            } = judge_for(&bundle, &self.key.cert, direction, now)
            {
                return Err(Error::SelfCheck {
                    rejection,
                    expectation,
                });
            }
        }
        Ok(())
    }

    /// The certificate that names us.
    #[must_use]
    pub fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// The leaf and the issuers that are sent along.
    #[must_use]
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("leaf", &self.leaf)
            .finish_non_exhaustive()
    }
}

/// The public half of a private key in PEM: its `SubjectPublicKeyInfo` in DER.
///
/// # Errors
/// [`Error::MalformedKey`].
pub fn public_key(key_pem: &Secret) -> Result<Vec<u8>, Error> {
    let key = signing_key(key_pem)?;
    let public = key.public_key();
    Ok(public.map(|der| der.to_vec()).unwrap_or_default())
}

fn signing_key(key_pem: &Secret) -> Result<Arc<dyn rustls::sign::SigningKey>, Error> {
    let text = String::from_utf8_lossy(key_pem.expose());
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || text.contains("Proc-Type: 4,ENCRYPTED")
    {
        return Err(Error::MalformedKey {
            reason: "it is encrypted; store it without a password, mode 0600",
        });
    }
    let der = PrivateKeyDer::from_pem_slice(key_pem.expose()).map_err(|_| Error::MalformedKey {
        reason: "there is no private key in PEM in it",
    })?;
    let key = any_supported_type(&der).map_err(|_| Error::MalformedKey {
        reason: "its kind is not known (RSA, ECDSA and Ed25519 are)",
    });
    wipe(der);
    key
}

/// The parser's own copy of the key must not stay in freed memory.
fn wipe(der: PrivateKeyDer<'static>) {
    use zeroize::Zeroize;
    let mut der = der;
    der.zeroize();
}

/// Who may be able to read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Readers {
    Anyone,
    OwnerOnly,
}

pub(super) fn read(path: &Path, readers: Readers) -> Result<Secret, Error> {
    /// Far more than any chain; a wrong path must not fill the memory.
    const MAX_BYTES: u64 = 1024 * 1024;
    let failed = |source: io::Error| Error::File {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if readers == Readers::OwnerOnly && mode & 0o077 != 0 {
        return Err(Error::KeyReadableByOthers {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Vec::new();
    let outcome = file.take(MAX_BYTES).read_to_end(&mut bytes);
    let bytes = Secret::new(bytes);
    outcome.map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::OpenOptionsExt};

    use super::*;
    use crate::{
        clock::Clock,
        domain::rejection::Rejection,
        trust::fixtures::{Authority, Leaf, Spec},
    };

    fn write(dir: &tempfile::TempDir, name: &str, mode: u32, text: &str) -> std::path::PathBuf {
        use std::io::Write;
        let path = dir.path().join(name);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.set_permissions(fs::Permissions::from_mode(mode))
            .unwrap();
        path
    }

    fn from_leaf(leaf: &Leaf, key: &Leaf) -> Result<Identity, Error> {
        Identity::from_pem(
            leaf.pem().as_bytes(),
            &Secret::new(key.key_pem().into_bytes()),
        )
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let leaf = Spec::new("a.example").self_signed();
        let certificate = write(&dir, "a.pem", 0o644, &leaf.pem());
        for mode in [0o644, 0o640, 0o604] {
            let key = write(&dir, &format!("a-{mode:o}.key"), mode, &leaf.key_pem());
            let error = Identity::from_files(&certificate, &key).unwrap_err();
            assert!(
                error.to_string().contains(&format!("mode 0{mode:o}")),
                "{error}"
            );
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        let key = write(&dir, "a.key", 0o600, &leaf.key_pem());
        let identity = Identity::from_files(&certificate, &key).unwrap();
        assert_eq!(identity.leaf(), &leaf.certificate());
    }

    #[test]
    fn another_certificates_key_is_refused() {
        let (a, b) = (
            Spec::new("a.example").self_signed(),
            Spec::new("b.example").self_signed(),
        );
        assert!(matches!(from_leaf(&a, &b), Err(Error::KeyMismatch { .. })));
    }

    #[test]
    fn garbage_says_which_file_and_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let leaf = Spec::new("a.example").self_signed();
        let (good, key) = (
            write(&dir, "a.pem", 0o644, &leaf.pem()),
            write(&dir, "a.key", 0o600, &leaf.key_pem()),
        );
        let garbage = write(&dir, "garbage", 0o600, "not a PEM text");
        let absent = dir.path().join("absent");
        let error = Identity::from_files(&absent, &key).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
        assert!(matches!(
            Identity::from_files(&garbage, &key),
            Err(Error::Format(_))
        ));
        let error = Identity::from_files(&good, &garbage).unwrap_err();
        assert_eq!(
            error.to_string(),
            "not a usable private key: there is no private key in PEM in it"
        );
        let encrypted =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let error =
            Identity::from_pem(leaf.pem().as_bytes(), &Secret::new(encrypted.into())).unwrap_err();
        assert!(error.to_string().contains("encrypted"), "{error}");
    }

    #[test]
    fn a_chain_must_be_in_order() {
        let authority = Authority::new("CA");
        let leaf = Spec::new("a.example").signed_by(&authority);
        let key = || Secret::new(leaf.key_pem().into_bytes());
        let chain = format!("{}{}", leaf.pem(), authority.pem());
        assert_eq!(
            Identity::from_pem(chain.as_bytes(), &key())
                .unwrap()
                .chain()
                .len(),
            2
        );
        let stranger = format!("{}{}", leaf.pem(), Authority::new("Other CA").pem());
        assert!(matches!(
            Identity::from_pem(stranger.as_bytes(), &key()),
            Err(Error::MalformedCertificate { .. })
        ));
    }

    #[test]
    fn what_a_peer_would_refuse_fails_the_self_check() {
        let now = Clock::system().now();
        let check = |spec: Spec| {
            let leaf = spec.self_signed();
            match from_leaf(&leaf, &leaf).unwrap().check(now) {
                Ok(()) => None,
                Err(Error::SelfCheck { rejection, .. }) => Some(rejection),
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(check(Spec::new("a.example")), None);
        assert_eq!(check(Spec::new("a.example").ca()), None);
        assert_eq!(check(Spec::new("a.example").eku(true, true)), None);
        assert_eq!(
            check(Spec::new("a.example").valid_days(-20, -10)),
            Some(Rejection::Expired)
        );
        assert_eq!(
            check(Spec::new("a.example").valid_days(10, 20)),
            Some(Rejection::NotYetValid)
        );
        assert_eq!(
            check(Spec::new("a.example").eku(false, true)),
            Some(Rejection::WrongEku)
        );
    }

    #[test]
    fn neither_the_key_nor_its_file_can_be_printed() {
        let leaf = Spec::new("a.example").self_signed();
        let identity = from_leaf(&leaf, &leaf).unwrap();
        let key_line = leaf.key_pem().lines().nth(1).unwrap().to_owned();
        assert!(!format!("{identity:?}").contains(&key_line));
        assert!(!format!("{identity:?}").to_lowercase().contains("key"));
    }
}
