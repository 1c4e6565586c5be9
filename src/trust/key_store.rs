//! Key stores as Tomcat has them, PKCS#12 or JKS, as the place of an identity: certificate, chain and key are one entry
//! of a file that may hold others, and that is sealed with a password.

use std::path::{Path, PathBuf};

use crate::{
    secret::Secret,
    trust::{
        Error,
        folder::Pair,
        formats::{self, Meant},
        identity::{Identity, Readers, read},
        make,
    },
};

/// How a key store is opened, and which of its keys is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyStore {
    /// A file with the store's password on its first line, that its owner alone can read; none for a store without one.
    pub password_file: Option<PathBuf>,
    /// The same for the key, where that has a password of its own.
    pub key_password_file: Option<PathBuf>,
    /// The entry with the key; the only one that has a key when none is named.
    pub alias: Option<String>,
}

impl KeyStore {
    /// The identity that is meant.
    pub(super) fn pair(&self, file: &Path) -> Result<Pair, Error> {
        let bytes = read(file, Readers::OwnerOnly)?;
        let entry = self.opened(file, |meant| formats::key_of(bytes.expose(), meant))?;
        let key = entry.key.as_ref().map(Secret::expose).unwrap_or_default();
        let key_pem = make::key_pem(key);
        // A root is not sent along; a certificate that signed itself alone is.
        let sent = match &*entry.chain {
            [rest @ .., last] if !rest.is_empty() && last.is_root() => rest,
            all => all,
        };
        let chain_pem: String = sent.iter().map(|c| make::pem(c.der())).collect();
        let identity = Identity::from_pem(chain_pem.as_bytes(), &key_pem)?;
        Ok(Pair {
            chain_pem: chain_pem.into_bytes(),
            key_pem,
            identity,
        })
    }

    /// The store's new content: another identity in the place of the one that is meant, everything else as it was.
    pub(super) fn with(&self, file: &Path, next: &Pair) -> Result<Secret, Error> {
        let bytes = read(file, Readers::OwnerOnly)?;
        let chain = next.identity.chain();
        self.opened(file, |meant| {
            formats::with_key(bytes.expose(), meant, chain, &next.key_pem)
        })
    }

    fn opened<T>(
        &self,
        file: &Path,
        with: impl FnOnce(&Meant<'_>) -> Result<T, formats::Error>,
    ) -> Result<T, Error> {
        let password = self.password_file.as_deref().map(first_line).transpose()?;
        let key_password = self.key_password_file.as_deref().map(first_line);
        let key_password = key_password.transpose()?;
        let meant = Meant {
            password: password.as_ref(),
            key_password: key_password.as_ref(),
            alias: self.alias.as_deref(),
        };
        with(&meant).map_err(|cause| {
            let path = file.to_owned();
            match cause {
                // What is said elsewhere of options and variables is no help here.
                formats::Error::PasswordNeeded { .. } => Error::KeyStorePassword { path },
                cause => Error::KeyStore {
                    path,
                    cause: Box::new(cause),
                },
            }
        })
    }
}

fn first_line(file: &Path) -> Result<Secret, Error> {
    let content = read(file, Readers::OwnerOnly)?;
    let mut lines = content.expose().split(|byte| *byte == b'\n');
    let line = lines.next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Ok(Secret::new(line.to_vec()))
}

#[cfg(test)]
mod tests;
