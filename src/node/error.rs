//! Why a node does not start, or does not take what it was given.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::{Uid, User};

use crate::{
    config::IdentityFiles,
    credentials,
    domain::{ids::ClusterId, purpose::Purpose},
    edge,
    edge::admin::socket,
    store, trust,
};

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
    #[error("the {what} identity ({files}) is not valid")]
    Identity {
        /// What it is for.
        what: Purpose,
        /// What it was read from.
        files: Box<IdentityFiles>,
        /// Why.
        source: trust::Error,
    },
    /// An identity is valid in itself and can't be put in force.
    #[error("the {what} identity ({files}) can't be put in force")]
    Unpublished {
        /// What it is for.
        what: Purpose,
        /// What it was read from.
        files: Box<IdentityFiles>,
        /// Why.
        source: trust::Error,
    },
    /// The pepper is not the one that the stored PINs were hashed with.
    #[error(
        "the pepper {} is not the one that the PINs in the store were hashed with: every PIN would be judged wrong",
        path.display()
    )]
    OtherPepper {
        /// Its file.
        path: PathBuf,
    },
    /// The database belongs to another cluster.
    #[error("the store belongs to cluster {found}, the configuration says {configured}")]
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
    /// The process before did not give way.
    #[error("the running process does not hand over: {0}")]
    HandOver(String),
    /// The database can't be used.
    #[error("the store can't be used")]
    Store(#[from] store::Error),
}

impl Error {
    /// What an operator can do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        const CHECK: &str = "`emccd config check` looks at the files";
        match self {
            Self::Admin(socket::Error::Answered(_)) => {
                "a node runs there already: stop it, or name another admin.socket".to_owned()
            }
            Self::Admin(socket::Error::NotASocket(_)) => {
                "move that file away, or name another admin.socket".to_owned()
            }
            Self::Admin(_) => "name another admin.socket, or mend its folder".to_owned(),
            Self::Bind { what, address, source } => {
                let key = match *what {
                    "plain phone" => "phone.plain-listen".to_owned(),
                    what => format!("{what}.listen"),
                };
                match source.kind() {
                    io::ErrorKind::AddrInUse => format!(
                        "stop what has the port (ss -ltnp sport = :{}), or change {key}; a node that is to be taken \
                         over from is found by the admin.socket that it was started with",
                        address.port()
                    ),
                    io::ErrorKind::AddrNotAvailable => {
                        format!("{key} must be an address of this machine (ip address)")
                    }
                    io::ErrorKind::PermissionDenied => {
                        format!("take a port from 1024 on in {key}, or give the process CAP_NET_BIND_SERVICE")
                    }
                    _ => format!("change {key}"),
                }
            }
            Self::Identity { .. } | Self::Unpublished { .. } => {
                format!("mend the files, or make new ones with `emccd cert new`; {CHECK}")
            }
            Self::OtherCluster { found, .. } => {
                format!("name another store.url, or {found} as cluster-id if that is this cluster")
            }
            Self::OtherPepper { .. } => {
                "put the right one into the file that credentials.pepper-file names, from another node or your copy, \
                 or name the store that belongs to this one; if it is lost for good, begin with a new store: \
                 `emccd apply` sets all PINs anew"
                    .to_owned()
            }
            Self::Pepper { .. } | Self::PepperLength { .. } | Self::PepperReadable { .. } => {
                format!("mend the file that credentials.pepper-file names, from another node or your copy; {CHECK}")
            }
            Self::HandOver(_) => {
                "the running process goes on; start this one as its user and with its cluster-id, node, store.url \
                 and admin.socket, or stop it and start this one without --take-over"
                    .to_owned()
            }
            Self::Store(store::Error::NewerSchema { .. }) => {
                "run the newer emccd, or restore a copy of the store from before it; nothing was changed".to_owned()
            }
            Self::Store(error) => error
                .file()
                .and_then(|file| not_ours(file, Uid::effective()))
                .unwrap_or_else(|| {
                "store.url must name a database of emccd, or a new file, on a local disk where this user may write"
                    .to_owned()
                }),
            Self::Broken(_) | Self::Credentials(_) | Self::Federation(_) | Self::StoredTrust(_) => {
                format!("mend it and start again; {CHECK}")
            }
        }
    }
}

/// What to do where a file, or the folder that it should be in, is another user's. Root may do anything with it.
fn not_ours(file: &Path, us: Uid) -> Option<String> {
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    let (there, metadata) = [Some(file), folder]
        .into_iter()
        .flatten()
        .find_map(|path| Some((path, path.metadata().ok()?)))?;
    let owner = Uid::from_raw(metadata.uid());
    if us.is_root() || owner == us {
        return None;
    }
    let name = |uid: Uid| {
        let user = User::from_uid(uid).ok().flatten();
        user.map_or_else(|| uid.to_string(), |user| user.name)
    };
    let (owner, us, path) = (name(owner), name(us), there.display());
    Some(if metadata.is_dir() {
        format!(
            "the folder {path} belongs to {owner}, and this process runs as {us}: run it as {owner}, or name a file \
             in store.url whose folder {us} may write to"
        )
    } else {
        format!(
            "{path} belongs to {owner}, and this process runs as {us}: run it as {owner}, or give it the file: chown \
             {us} {path}"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_of_another_user_is_named_with_what_gives_it_away() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("emccd.turn");
        fs::write(&file, "").unwrap();
        let owner = file.metadata().unwrap().uid();
        let other = Uid::from_raw(owner + 61_234);
        let told = not_ours(&file, other).unwrap();
        assert!(
            told.contains(&format!("chown {other} {}", file.display())),
            "{told}"
        );
        // Where it is not there yet it is the folder that matters, and no folder is given away.
        let told = not_ours(&dir.path().join("new.db"), other).unwrap();
        assert!(
            told.contains("the folder") && told.contains("store.url") && !told.contains("chown"),
            "{told}"
        );
        for (path, us) in [
            (&*file, Uid::from_raw(owner)),
            (&*file, Uid::from_raw(0)),
            (Path::new("/no/such/folder/x.db"), other),
        ] {
            assert_eq!(not_ours(path, us), None, "{}", path.display());
        }
    }

    #[test]
    fn the_advice_for_a_lock_names_the_store_where_the_owner_is_not_the_matter() {
        let error = Error::Store(store::Error::Lock {
            path: PathBuf::from("/no/such/folder/emccd.turn"),
            source: io::Error::from(io::ErrorKind::NotFound).into(),
        });
        assert!(error.advice().contains("store.url"), "{}", error.advice());
    }
}
