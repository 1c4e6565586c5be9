//! Why a file of certificates was not taken, or not written. Pure.

use crate::trust::{self, formats::Format};

/// What is wrong with a file, by what its owner does next. No text has a byte of a key or of a password in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of its certificates can't be read.
    #[error("certificate {number} in it can't be read")]
    Certificate {
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong with it.
        #[source]
        cause: Box<trust::Error>,
    },
    /// It has been changed or cut short.
    #[error("the {format} file is damaged: {reason}; fetch it again from where it was made")]
    Damaged {
        /// What it is.
        format: Format,
        /// Where it breaks off.
        reason: String,
    },
    /// An alias doesn't fit the format.
    #[error(
        "the alias of {subject} can't be written to a {format} file: {reason}; give it another one"
    )]
    Alias {
        /// Whose alias.
        subject: String,
        /// What was to be written.
        format: Format,
        /// What is in the way.
        reason: &'static str,
    },
    /// A private key for a format, or a certificate more, that it has no place for.
    #[error("{what} has no place in a {format} file; choose another format")]
    NoPlace {
        /// What there was.
        what: &'static str,
        /// What was to be written.
        format: Format,
    },
    /// A key entry has a password of its own.
    #[error(
        "the key {alias} in it has a password of its own, and what was given is another one; name the file that holds it \
         under key-password-file"
    )]
    KeyPassword {
        /// Its alias.
        alias: String,
    },
    /// A private key can't be put into a store.
    #[error(
        "the private key can't be put into a key store; it must be RSA, ECDSA or Ed25519, in PEM"
    )]
    Key,
    /// There is nothing in it that we look for.
    #[error(
        "there is no certificate in it, in PEM, DER, PKCS#7, PKCS#12 or JKS{}",
        found(what)
    )]
    NoCertificate {
        /// What there is instead, where that is known.
        what: Option<String>,
    },
    /// It can hold no key with its certificates.
    #[error("it is {format} and no key store; give a PKCS#12 or a JKS file")]
    NoStore {
        /// What it is.
        format: Format,
    },
    /// A password was given for a store that has no seal, so anybody may have changed it.
    #[error(
        "a password was given, and the {format} file has no seal (MAC) that it could be checked with; give none if it \
         was meant to have none"
    )]
    NotSealed {
        /// What it is.
        format: Format,
    },
    /// It takes a password.
    #[error(
        "the {format} file is sealed with a password and none was given; name a file that holds it with \
         --password-file, or set EMCCD_STORE_PASSWORD"
    )]
    PasswordNeeded {
        /// What it is.
        format: Format,
    },
    /// It takes a password, and there is nobody to give one.
    #[error(
        "it is a {format} key store, and nothing says how to open it here; a node's identity is configured as \
         key-store, in place of certificate and key; for anything else write what is in it as PEM: emccd trust \
         consolidate FILE --drop-keys --out NEW.pem"
    )]
    Sealed {
        /// What it is.
        format: Format,
    },
    /// The password is no text.
    #[error("the password is not text in UTF-8")]
    PasswordNotText,
    /// A private key was found where only certificates belong.
    #[error("it holds a private key as well ({what}); give a file with certificates alone")]
    PrivateKey {
        /// Which one.
        what: String,
    },
    /// A private key is all that there is.
    #[error(
        "it holds a private key ({what}) and no certificate; give the file with the certificate"
    )]
    OnlyKey {
        /// Which one.
        what: String,
    },
    /// Written anew, a store would have lost certificates of another key.
    #[error(
        "the store can't be written anew without losing what may belong to another of its keys: {}; give the \
         identity a key store of its own, or put that key's chain in order first (keytool -importcert with the whole \
         chain)",
        .certificates.join("; ")
    )]
    WouldLose {
        /// Their subjects.
        certificates: Vec<String>,
    },
    /// A certificate request was found where only certificates belong.
    #[error(
        "it holds a certificate request (CSR); send it to your authority, and give the certificate that comes back"
    )]
    Request,
    /// A revocation list was found where only certificates belong.
    #[error(
        "it holds a revocation list (CRL), which is no certificate; give a file with certificates alone"
    )]
    RevocationList,
    /// It is a format, or uses a cipher, that we don't have.
    #[error("it is {what}, which can't be read here; {next}")]
    Unsupported {
        /// What it is.
        what: String,
        /// What its owner can do.
        next: &'static str,
    },
    /// No single key in a store is the one that is meant.
    #[error("{}", which(wanted.as_deref(), aliases))]
    WhichKey {
        /// The alias that was looked for.
        wanted: Option<String>,
        /// Those that have a key.
        aliases: Vec<String>,
    },
    /// The password is another one.
    #[error(
        "the password doesn't open the {format} file; if you are sure of it, the file was changed after it was made"
    )]
    WrongPassword {
        /// What it is.
        format: Format,
    },
}

fn which(wanted: Option<&str>, aliases: &[String]) -> String {
    let all = aliases.join(", ");
    match (wanted, aliases) {
        (_, []) => {
            "there is no private key in it; give the store that the key was made in".to_owned()
        }
        (None, _) => format!("there are several keys in it ({all}); name one with key-alias"),
        (Some(wanted), _) => format!(
            "no single key in it is called {wanted}; there are: {all}; name one of them with key-alias"
        ),
    }
}

fn found(what: &Option<String>) -> String {
    what.as_ref()
        .map_or_else(String::new, |what| format!(", but {what}"))
}
