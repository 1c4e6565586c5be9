//! Files of certificates as people have them: read with their passwords, whatever the format.

use std::{
    env,
    fs::File,
    io::{self, BufReader, IsTerminal as _, Read as _},
    path::Path,
};

use crate::{
    cli::{
        args::StorePassword,
        cluster::shown,
        failure::{Failure, Outcome},
        phone::first_line,
    },
    secret::Secret,
    trust::{
        certificate::Certificate,
        formats::{self, Contents, Error, Keys},
    },
};

/// Reads a file. Its password comes from a file, from the environment, or is asked for where somebody can type it.
pub(super) fn read(
    what: &str,
    file: &Path,
    password: &StorePassword,
    keys: Keys<'_>,
) -> Outcome<Contents> {
    let bytes = bytes_of(what, file)?;
    let given = given(what, password)?;
    let mut contents = formats::read_with(&bytes, given.as_ref(), keys);
    if matches!(contents, Err(Error::PasswordNeeded { .. })) && io::stdin().is_terminal() {
        let typed = typed(what, file)?;
        contents = formats::read_with(&bytes, Some(&typed), keys);
    }
    contents.map_err(|cause| {
        let next = next(&cause);
        Failure::from_error(
            what,
            &InFile {
                file: shown(file),
                cause,
            },
            next,
        )
    })
}

/// The certificates of a file of which nothing else is wanted.
pub(super) fn read_certificates(what: &str, file: &Path) -> Outcome<Vec<Certificate>> {
    let contents = read(what, file, &StorePassword::default(), Keys::Refuse)?;
    Ok(contents.certificates())
}

/// The password that was given, if one was: by `--password-file`, else by the environment.
pub(super) fn given(what: &str, password: &StorePassword) -> Outcome<Option<Secret>> {
    let Some(file) = &password.password_file else {
        // Bytes that are no text are told as such by whoever reads the store.
        let set = env::var_os("EMCCD_STORE_PASSWORD");
        return Ok(set.map(|set| Secret::new(set.into_encoded_bytes())));
    };
    let line = File::open(file).and_then(|file| first_line(&mut BufReader::new(file)));
    let line = line.map_err(|cause| {
        Failure::new(
            what,
            format!("{}: {cause}", shown(file)),
            "put the password alone on the first line of a file that you may read",
        )
    })?;
    Ok(Some(Secret::new(line.into_bytes())))
}

fn typed(what: &str, file: &Path) -> Outcome<Secret> {
    let typed = rpassword::prompt_password(format!("Password of {}: ", shown(file)));
    let typed = typed.map_err(|cause| {
        Failure::new(
            what,
            format!("no password: {cause}"),
            "give it with --password-file FILE, or type it when asked",
        )
    })?;
    Ok(Secret::new(typed.into_bytes()))
}

fn bytes_of(what: &str, file: &Path) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|f| f.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    if let Err(cause) = read {
        return Err(Failure::new(
            what,
            format!("{}: {cause}", shown(file)),
            "check the path and that you may read it",
        ));
    }
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(Failure::new(
            what,
            format!("{} is larger than 64 MiB", shown(file)),
            "give a file with certificates alone",
        ));
    }
    Ok(bytes)
}

fn next(cause: &Error) -> &'static str {
    match cause {
        Error::OnlyKey { .. } => {
            "keys stay where they are: give the file with the certificate that belongs to it"
        }
        Error::PrivateKey { .. } => {
            "keys stay where they are: write its certificates alone with emccd trust consolidate FILE --drop-keys \
             --out NEW"
        }
        Error::PasswordNeeded { .. } | Error::WrongPassword { .. } | Error::PasswordNotText => {
            "put the store's password alone on the first line of a file and name it with --password-file"
        }
        Error::NotSealed { .. } => "leave the password out, if you know who made the file",
        _ => {
            "give a file with certificates: PEM, with lines from BEGIN CERTIFICATE to END CERTIFICATE, DER, PKCS#7, \
             PKCS#12 or JKS"
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{file}")]
struct InFile {
    file: String,
    #[source]
    cause: Error,
}

/// Sixty thousand certificates.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
