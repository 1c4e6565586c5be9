//! Finds the private key that a certificate was made for, among files.

use std::path::{Path, PathBuf};

use crate::{
    secret::Secret,
    trust::{
        Error,
        answer::{is_for_key, names_asked},
        certificate::Certificate,
        folder::files_in,
        identity::{Readers, public_key, read},
    },
};

/// A private key as it lies in a file.
#[derive(Debug)]
pub struct Key {
    /// The file.
    pub file: PathBuf,
    /// Its content.
    pub key_pem: Secret,
    /// The public half: `SubjectPublicKeyInfo` in DER.
    pub public_key: Vec<u8>,
}

/// Reads a private key in PEM from a file that its owner alone can read.
///
/// # Errors
/// [`Error::File`], [`Error::KeyReadableByOthers`] and [`Error::MalformedKey`].
pub fn read_key(file: &Path) -> Result<Key, Error> {
    let key_pem = read(file, Readers::OwnerOnly)?;
    Ok(Key {
        file: file.to_owned(),
        public_key: public_key(&key_pem)?,
        key_pem,
    })
}

/// The first of these files that holds the key of one of these certificates; of an authority's own only when there is
/// no other, since an authority on this machine may have its key beside its certificate.
///
/// # Errors
/// [`Error::KeyReadableByOthers`] when there is none, and one of the files could not be looked at for that.
pub fn key_of(certificates: &[Certificate], files: &[PathBuf]) -> Result<Option<Key>, Error> {
    let (mut open, mut of_authority) = (None, None);
    for file in files {
        let key = match read_key(file) {
            Ok(key) => key,
            Err(error @ Error::KeyReadableByOthers { .. }) => {
                open = open.or(Some(error));
                continue;
            }
            Err(_) => continue,
        };
        let mut its = certificates
            .iter()
            .filter(|c| is_for_key(c, &key.public_key));
        match its.next() {
            Some(certificate) if certificate.is_ca() => of_authority = of_authority.or(Some(key)),
            Some(_) => return Ok(Some(key)),
            None => {}
        }
    }
    match (of_authority, open) {
        (Some(key), _) => Ok(Some(key)),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(None),
    }
}

/// The keys that lie in the same folders as these files.
#[must_use]
pub fn keys_beside(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders: Vec<_> = files.iter().map(|file| folder_of(file)).collect();
    folders.dedup();
    folders
        .into_iter()
        .flat_map(|folder| files_in(folder, "", ".key").unwrap_or_default())
        .collect()
}

/// The names that were asked for with that key, if a request for it lies beside it.
#[must_use]
pub fn names_asked_for(key: &Key) -> Option<Vec<String>> {
    let requests = files_in(folder_of(&key.file), "", ".csr").unwrap_or_default();
    requests.iter().find_map(|file| {
        let request = read(file, Readers::Anyone).ok()?;
        names_asked(request.expose(), &key.public_key)
    })
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{
        fixtures::Spec,
        make::{replace, write_private},
    };

    #[test]
    fn a_key_is_found_by_what_it_is_and_one_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let (a, b) = (Spec::new("a").self_signed(), Spec::new("b").self_signed());
        let secret = |text: String| Secret::new(text.into_bytes());
        write_private(&file("one.key"), &secret(b.key_pem())).unwrap();
        write_private(&file("junk.key"), &secret("junk".to_owned())).unwrap();
        write_private(&file("two.key"), &secret(a.key_pem())).unwrap();
        let beside = keys_beside(&[file("a.pem"), file("b.pem")]);
        assert_eq!(beside, [file("junk.key"), file("one.key"), file("two.key")]);
        let found = key_of(&[a.certificate()], &beside).unwrap().unwrap();
        assert_eq!(found.file, file("two.key"));
        assert!(!format!("{found:?}").contains("PRIVATE"));
        assert_eq!(names_asked_for(&found), None);

        replace(&file("two.key"), a.key_pem().as_bytes(), 0o640).unwrap();
        let refused = key_of(&[a.certificate()], &beside).unwrap_err();
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
        assert!(key_of(&[b.certificate()], &beside).unwrap().is_some());
        let ca = Spec::new("CA").ca().self_signed();
        write_private(&file("aaa.key"), &secret(ca.key_pem())).unwrap();
        let (both, keys) = (
            [ca.certificate(), b.certificate()],
            [file("aaa.key"), file("one.key")],
        );
        assert_eq!(key_of(&both, &keys).unwrap().unwrap().file, file("one.key"));
        assert!(key_of(&both[..1], &keys).unwrap().is_some());
        let stranger = Spec::new("c").self_signed().certificate();
        assert!(key_of(&[stranger], &[file("one.key")]).unwrap().is_none());
    }
}
