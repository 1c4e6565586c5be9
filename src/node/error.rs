//! Why a node does not start, or does not take what it was given.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use crate::{clock::Timestamp, credentials, domain::ids::ClusterId, edge, store, trust};

/// Which part, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The admin socket can't be opened.
    #[error("the admin socket can't be opened")]
    Admin(#[from] edge::admin::socket::Error),
    /// What the store holds of peers and trust can't be used.
    #[error("the stored trust can't be used")]
    StoredTrust(#[from] trust::stored::Error),
    /// A listener's address can't be bound.
    #[error("the {what} listener can't be opened on {address}")]
    Bind {
        /// Which listener.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Something that can't fail did: a bug.
    #[error("{0} failed")]
    Broken(&'static str),
    /// The PIN checks can't be set up.
    #[error("PIN checks can't be set up")]
    Credentials(#[from] credentials::Error),
    /// The federation service can't be built.
    #[error(transparent)]
    Federation(#[from] edge::federation::Error),
    /// An identity is not valid.
    #[error("the {what} identity is not valid")]
    Identity {
        /// Whose: the federation's or the phone listener's.
        what: &'static str,
        /// Why.
        source: trust::Error,
    },
    /// An identity is valid in itself and can't be put in force.
    #[error("the {what} identity can't be put in force")]
    Unpublished {
        /// Whose.
        what: &'static str,
        /// Why.
        source: Arc<trust::Error>,
    },
    /// A certificate is not valid now.
    #[error("the {what} certificate is valid from {from} until {until}, which is not now")]
    OutOfDate {
        /// Whose.
        what: &'static str,
        /// From when.
        from: Timestamp,
        /// Until when.
        until: Timestamp,
    },
    /// The database belongs to another cluster.
    #[error(
        "the store belongs to cluster {found}, the configuration says {configured}; name another store.url"
    )]
    OtherCluster {
        /// Whose it is.
        found: String,
        /// Who we are.
        configured: ClusterId,
    },
    /// The pepper can't be read.
    #[error("the pepper {} can't be read; without it no stored PIN can be checked", path.display())]
    Pepper {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The pepper has not the right length.
    #[error("the pepper {} has {length} bytes and must have 32; restore it from your copy", path.display())]
    PepperLength {
        /// Its file.
        path: PathBuf,
        /// What it has.
        length: usize,
    },
    /// Others than its owner can read the pepper.
    #[error("the pepper {0} can be read by others than its owner; run `chmod 600 {0}`", path.display())]
    PepperReadable {
        /// Its file.
        path: PathBuf,
    },
    /// The database can't be used.
    #[error("the store can't be used")]
    Store(#[from] store::Error),
}
