//! What a certificate that is there already has to be before a node shows it: checked against its key, its chain, its
//! names, its dates and its usage, in the same way whoever brings it.

use std::path::{Path, PathBuf};

use crate::{
    clock::Timestamp,
    domain::purpose::Purpose,
    secret::Secret,
    trust::{
        answer::{Answer, Mismatch, Wanted, complete},
        certificate::Certificate,
        folder::IdentityFolder,
        keys::{self, Key},
        make::pem,
    },
};

/// Why files are not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of them can't be read.
    #[error("{} can't be read", .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is in one of them is not what was expected.
    #[error("{} is of no use here", .file.display())]
    Content {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: crate::trust::Error,
    },
    /// It can't be shown.
    #[error("the certificate in the files can't be shown: {}", told(.0))]
    Mismatch(Vec<Mismatch>),
}

fn told(wrong: &[Mismatch]) -> String {
    let all: Vec<_> = wrong.iter().map(ToString::to_string).collect();
    all.join("; and ")
}

/// Files that hold a certificate and its key.
#[derive(Debug)]
pub struct Files<'a> {
    /// The certificate, and those of authorities, in any order.
    pub certificates: Vec<&'a Path>,
    /// The key.
    pub key: &'a Path,
    /// As in [`Brought`].
    pub names: &'a [String],
    /// As in [`Brought`].
    pub may_lack_issuers: bool,
}

impl Files<'_> {
    /// The chain in PEM, completed, and the key. Blocks.
    ///
    /// # Errors
    /// [`Error`], with everything that is wrong with them.
    pub fn read(
        &self,
        folder: &IdentityFolder,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<(Vec<u8>, Secret), Error> {
        let mut certificates = Vec::new();
        for path in &self.certificates {
            let file = || path.to_path_buf();
            let read = std::fs::read(path).map_err(|source| Error::File {
                file: file(),
                source,
            })?;
            let read = Certificate::read_all(&read).map_err(|source| Error::Content {
                file: file(),
                source,
            })?;
            certificates.extend(read);
        }
        // This tells what is wrong with the key, that others can read it included.
        let key = keys::read_key(self.key).map_err(|source| Error::Content {
            file: self.key.to_owned(),
            source,
        })?;
        let brought = Brought {
            certificates: &certificates,
            key: &key,
            names: self.names,
            may_lack_issuers: self.may_lack_issuers,
        };
        let answer = check(folder, purpose, &brought, now).map_err(Error::Mismatch)?;
        let chain: String = answer.chain.iter().map(|c| pem(c.der())).collect();
        Ok((chain.into_bytes(), key.key_pem))
    }
}

/// What is brought.
#[derive(Debug)]
pub struct Brought<'a> {
    /// Certificates in any order, those of authorities among them.
    pub certificates: &'a [Certificate],
    /// The key.
    pub key: &'a Key,
    /// Names that it must carry; if there are none those that its request asked for, else those of what is configured.
    pub names: &'a [String],
    /// Whether a chain is taken that ends below its root.
    pub may_lack_issuers: bool,
}

/// Whether it can be shown for that purpose, and with which chain.
///
/// # Errors
/// Every [`Mismatch`].
pub fn check(
    folder: &IdentityFolder,
    purpose: Purpose,
    brought: &Brought<'_>,
    now: Timestamp,
) -> Result<Answer, Vec<Mismatch>> {
    let names = if brought.names.is_empty() {
        let configured = || {
            let configured = folder.configured(purpose).ok()?;
            let names = configured.leaf().names().iter();
            Some(names.map(ToString::to_string).collect())
        };
        keys::names_asked_for(brought.key)
            .or_else(configured)
            .unwrap_or_default()
    } else {
        brought.names.to_vec()
    };
    let wanted = Wanted {
        public_key: &brought.key.public_key,
        names: &names,
        directions: folder.directions(purpose),
        may_lack_issuers: brought.may_lack_issuers,
        now,
    };
    complete(brought.certificates, &wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        trust::{
            fixtures::{Authority, Spec},
            folder::IdentityFiles,
            make,
        },
    };

    #[test]
    fn files_are_checked_as_what_is_installed_and_the_chain_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, content: String| {
            let path = dir.path().join(name);
            make::write_private(&path, &Secret::new(content.into_bytes())).unwrap();
            path
        };
        let files = IdentityFiles {
            certificate: dir.path().join("configured.pem"),
            key: dir.path().join("configured.key"),
            ..IdentityFiles::default()
        };
        let folder = IdentityFolder::new([(Purpose::Federation, files)]);
        let ca = Authority::new("CA");
        let leaf = Spec::new("a.example").dns("a.example").signed_by(&ca);
        let server = Spec::new("b")
            .dns("a.example")
            .eku(false, true)
            .signed_by(&ca);
        let old = Spec::new("c")
            .dns("a.example")
            .valid_days(-9, -1)
            .signed_by(&ca);
        let root = put("ca.pem", ca.pem());
        let key = put("leaf.key", leaf.key_pem());
        let certificate = put("leaf.pem", leaf.pem());
        let names = ["a.example".to_owned()];
        let read = |certificates: Vec<&Path>, key: &Path, names: &[String]| {
            let files = Files {
                certificates,
                key,
                names,
                may_lack_issuers: false,
            };
            files.read(&folder, Purpose::Federation, Clock::system().now())
        };
        // In any order, and without the root in what is sent.
        let (chain, _) = read(vec![&root, &certificate], &key, &names).unwrap();
        assert_eq!(Certificate::read_all(&chain).unwrap(), [leaf.certificate()]);

        let others = [("server", &server), ("old", &old)].map(|(name, leaf)| {
            let certificate = put(&format!("{name}.pem"), leaf.pem());
            (certificate, put(&format!("{name}.key"), leaf.key_pem()))
        });
        let other = ["b.example".to_owned()];
        for (certificates, key, names, part) in [
            (vec![&*certificate], &key, &names, "not complete"),
            (
                vec![&*certificate, &*root],
                &others[0].1,
                &names,
                "for that key",
            ),
            (
                vec![&*certificate, &*root],
                &key,
                &other,
                "not for b.example",
            ),
            (
                vec![&*others[0].0, &*root],
                &others[0].1,
                &names,
                "clientAuth",
            ),
            (
                vec![&*others[1].0, &*root],
                &others[1].1,
                &names,
                "expired at",
            ),
            (vec![&*key], &key, &names, "leaf.key is of no use"),
        ] {
            let refused = read(certificates, key, names).unwrap_err().to_string();
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }
}
