//! The files that a configuration names: whether they are there, and fit for use.
//!
//! It is what a node looks at when it starts, so that a file that is good here is good there.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use crate::{
    clock::Timestamp,
    config::{Config, IdentityFiles, Problem, Problems, file::quoted},
    telemetry::error_chain,
    trust::{Error, Identities, identity::Identity},
};

/// Bytes of a pepper: as long as the hash that it goes into.
pub const PEPPER_BYTES: usize = 32;

/// Looks at every file and folder that a configuration names, as at `now`.
///
/// # Errors
/// [`Problems`] with each that is missing or not fit for use.
pub fn check_files(config: &Config, now: Timestamp) -> Result<(), Problems> {
    let mut found = Found {
        config,
        list: Vec::new(),
    };
    found.federation(now);
    let phone = &config.phone.identity;
    if let Some(identity) = found.identity("phone", phone)
        && let Err(error) = identity.check_server(now)
    {
        found.unfit(&certificate_key("phone", phone), &phone.certificate, &error);
    }
    found.pepper(&config.credentials.pepper_file);
    for (key, path) in [
        ("store.url", config.store.path()),
        ("admin.socket", Some(&*config.admin.socket)),
    ] {
        if let Some(folder) = path.and_then(Path::parent).filter(|f| !f.is_dir()) {
            let mend = format!("mkdir -p {}", folder.display());
            found.add(key, folder, "there is no such folder", Some(mend));
        }
    }
    if found.list.is_empty() {
        Ok(())
    } else {
        Err(Problems::new(&config.file, found.list))
    }
}

/// The key under which a section names the file with the certificate.
fn certificate_key(section: &str, files: &IdentityFiles) -> String {
    let last = match files.store {
        None => "certificate",
        Some(_) => "key-store",
    };
    format!("{section}.{last}")
}

struct Found<'a> {
    config: &'a Config,
    list: Vec<Problem>,
}

impl Found<'_> {
    fn add(&mut self, key: &str, path: &Path, what: &str, mend: Option<String>) {
        let line = self
            .config
            .settings
            .iter()
            .find(|s| s.key == key)
            .and_then(|s| s.line);
        let problem = Problem::new(key, what)
            .on_line(line)
            .with_value(Some(quoted(&path.to_string_lossy())))
            .with_suggestion(mend);
        self.list.push(problem);
    }

    fn unfit(&mut self, key: &str, path: &Path, error: &Error) {
        self.add(key, path, &error_chain(error), None);
    }

    fn is_there(&mut self, key: &str, path: &Path, mend: &str) -> bool {
        let is_there = path.is_file();
        if !is_there {
            self.add(key, path, "there is no such file", Some(mend.to_owned()));
        }
        is_there
    }

    fn federation(&mut self, now: Timestamp) {
        let config = self.config;
        let server = self.identity("identity", &config.identity);
        let client = config.client_identity.as_ref().map(|files| {
            let client = self.identity("identity.client", files);
            if let Some(Err(error)) = client.as_ref().map(|client| client.check_client(now)) {
                self.unfit(
                    &certificate_key("identity.client", files),
                    &files.certificate,
                    &error,
                );
            }
        });
        let checked = server.map(|server| match client {
            Some(()) => server.check_server(now),
            None => Identities::from(server).check(now),
        });
        if let Some(Err(error)) = checked {
            let files = &config.identity;
            self.unfit(
                &certificate_key("identity", files),
                &files.certificate,
                &error,
            );
        }
    }

    /// The identity that a section gives.
    fn identity(&mut self, section: &str, files: &IdentityFiles) -> Option<Identity> {
        const MEND: &str = "`emccd init` makes one in a new folder, `emccd cert new` one anywhere";
        const PASSWORD: &str =
            "put the store's password alone on the first line of that file, mode 0600";
        let certificate = certificate_key(section, files);
        let key = match files.store {
            None => format!("{section}.key"),
            Some(_) => certificate.clone(),
        };
        let mut needed = vec![(certificate.clone(), &files.certificate, MEND)];
        match &files.store {
            None => needed.push((key.clone(), &files.key, MEND)),
            Some(store) => {
                let password = store.password_file.iter();
                needed.extend(
                    password.map(|f| (format!("{section}.key-store-password-file"), f, PASSWORD)),
                );
                let key_password = store.key_password_file.iter();
                needed.extend(
                    key_password.map(|f| (format!("{section}.key-password-file"), f, PASSWORD)),
                );
            }
        }
        let mut are_there = true;
        for (key, file, mend) in &needed {
            are_there &= self.is_there(key, file, mend);
        }
        if !are_there {
            return None;
        }
        let error = match files.identity() {
            Ok(identity) => return Some(identity),
            Err(error) => error,
        };
        let of_file = match &error {
            Error::File { path, .. } | Error::KeyReadableByOthers { path, .. } => {
                needed.iter().find(|(_, file, _)| *file == path)
            }
            _ => None,
        };
        let (at, file) = match (of_file, &error) {
            (Some((key, file, _)), _) => (key, *file),
            (None, Error::KeyMismatch { .. } | Error::MalformedKey { .. }) => (&key, &files.key),
            (None, _) => (&certificate, &files.certificate),
        };
        self.unfit(at, file, &error);
        None
    }

    fn pepper(&mut self, path: &Path) {
        const KEY: &str = "credentials.pepper-file";
        let copy =
            "copy it from another node of the cluster; for a new cluster `emccd init` makes one";
        if !self.is_there(KEY, path, copy) {
            return;
        }
        let Ok(metadata) = path.metadata() else {
            return;
        };
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            let mend = format!("chmod 600 {}", path.display());
            self.add(
                KEY,
                path,
                &format!("can be read by others (mode {mode:04o})"),
                Some(mend),
            );
        }
        if metadata.len() != PEPPER_BYTES as u64 {
            let what = format!("has {} bytes and must have {PEPPER_BYTES}", metadata.len());
            self.add(KEY, path, &what, Some(copy.to_owned()));
        }
    }
}
