//! What can be wrong with certificates, keys and trust, by who must act: the operator, nearly always.

use std::{io, path::PathBuf};

use crate::{
    domain::{ids::ClusterId, purpose::Purpose, rejection::Rejection},
    trust::{crl, formats},
};

/// Why trust material was not taken. The last good one stays in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator configured two peers that one certificate could both speak for.
    #[error(
        "{what} would speak for two peers, {first} and {second}; trust it for one of them only"
    )]
    Conflict {
        /// The fingerprint or the name that both would own.
        what: String,
        /// One peer.
        first: ClusterId,
        /// The other.
        second: ClusterId,
    },
    /// What was handed in as certificates is something else, or can't be read.
    #[error(transparent)]
    Format(#[from] formats::Error),
    /// A revocation list is not taken, or what is stored of one was changed.
    #[error(transparent)]
    Crl(#[from] crl::Error),
    /// A file can't be read.
    #[error("can't read {}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The private key is another certificate's.
    #[error("the private key does not belong to the certificate {subject}")]
    KeyMismatch {
        /// Subject of the certificate.
        subject: String,
    },
    /// Others on this machine may read the private key.
    #[error("{} can be read by others (mode {mode:04o}); type: chmod 600 {}", path.display(), path.display())]
    KeyReadableByOthers {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key store can't be opened, or has not the key that is meant.
    #[error("can't take the identity from the key store {}", path.display())]
    KeyStore {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: Box<formats::Error>,
    },
    /// A key store is sealed, and no password is configured.
    #[error(
        "the key store {} is sealed with a password; put it alone on the first line of a file of mode 0600, and name \
         that file under key-store-password-file",
        path.display()
    )]
    KeyStorePassword {
        /// Its file.
        path: PathBuf,
    },
    /// An identity or a trust entry holds no certificate that can be read.
    #[error("not a usable certificate: {reason}")]
    MalformedCertificate {
        /// What is wrong with it.
        reason: String,
    },
    /// The private key can't be used.
    #[error("not a usable private key: {reason}")]
    MalformedKey {
        /// What is wrong with it, without a byte of it.
        reason: &'static str,
    },
    /// This node has no identity, so it can neither call nor be called.
    #[error("this node has no usable identity; make one with emccd cert new")]
    NoIdentity,
    /// A trust anchor that is no certificate authority.
    #[error("{subject} is not a certificate authority, so it can't be an anchor; pin it instead")]
    NotAnAuthority {
        /// Subject of the certificate.
        subject: String,
    },
    /// A pinned certificate was also given as an anchor: its key could then vouch for any name.
    #[error("{fingerprint} is pinned, so it can't be an anchor as well")]
    PinnedAnchor {
        /// Fingerprint of the certificate.
        fingerprint: String,
    },
    /// No identity of that purpose is configured.
    #[error("no {purpose} identity is configured")]
    NotConfigured {
        /// What it would be for.
        purpose: Purpose,
    },
    /// No certificate with that fingerprint is there together with its key.
    #[error("no {purpose} certificate {fingerprint} with its key is among the configured files or in {}", folder.display())]
    NoSuchIdentity {
        /// What it would be for.
        purpose: Purpose,
        /// Its fingerprint.
        fingerprint: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// It can't be shown in both directions, and there is no other.
    #[error(
        "it is for {} alone, and peers are shown it in both directions; take one for both, or configure one for calling \
         peers under [identity.client]",
        if *for_servers { "servers" } else { "clients" }
    )]
    OneDirection {
        /// Which one it is for.
        for_servers: bool,
    },
    /// Our own verifier would refuse the identity.
    #[error("whoever is shown it would refuse it as {rejection}; expected is {expectation}")]
    SelfCheck {
        /// The reason a peer would give.
        rejection: Rejection,
        /// What should have been.
        expectation: String,
    },
    /// The TLS library refuses to work with it.
    #[error("the TLS settings can't be made")]
    Tls(#[source] rustls::Error),
    /// A file can't be written.
    #[error("can't write {}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
