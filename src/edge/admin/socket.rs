//! The socket file: made with its final permissions in one step, and taken over only from a node that is gone.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::unistd::{Group, chown};
use tokio::net::{UnixListener, UnixStream};

/// Where the socket stands and who may open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The socket's path.
    pub path: PathBuf,
    /// The Unix group that gets the file when the daemon runs as root and the group exists.
    pub group: String,
}

impl Config {
    /// The path when nothing is configured.
    pub const DEFAULT_PATH: &'static str = "/run/emccd/admin.sock";
    /// The group when nothing is configured.
    pub const DEFAULT_GROUP: &'static str = "emccd";
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another node is running.
    #[error("another process answers on the admin socket {0}")]
    Answered(PathBuf),
    /// Something that is no socket stands in the way.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// The system allows only short paths for sockets.
    #[error("the admin socket's path {path} is longer than {max} bytes", max = MAX_PATH_BYTES)]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {step} the admin socket {path}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// With which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A bound socket. The file goes away with it, unless another node has replaced it meanwhile.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    file: SocketFile,
}

impl AdminSocket {
    /// Makes the socket. It must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error`] when another process answers there or the file system refuses.
    pub async fn bind(config: &Config) -> Result<Self, Error> {
        let path = &config.path;
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let bytes = |path: &Path| path.as_os_str().as_bytes().len();
        if bytes(path).max(bytes(parent) + FRESH_BYTES) > MAX_PATH_BYTES {
            return Err(Error::TooLong { path: path.clone() });
        }
        let failed = |step| {
            move |source| Error::Io {
                step,
                path: path.clone(),
                source,
            }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(failed("make the folder of"))?;
        check_vacant(path).await?;

        // In a folder that nobody else can enter the file gets its permissions before anyone can connect,
        // and the rename replaces a stale file without a moment in which there is none.
        let private = tempfile::Builder::new()
            .prefix(".s")
            .rand_bytes(4)
            .tempdir_in(parent)
            .map_err(failed("make a private folder for"))?;
        let fresh = private.path().join("s");
        let listener = UnixListener::bind(&fresh).map_err(failed("bind"))?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660))
            .map_err(failed("set the permissions of"))?;
        give_to_group(&fresh, &config.group).map_err(failed("set the group of"))?;
        let inode = fs::symlink_metadata(&fresh)
            .map_err(failed("look at"))?
            .ino();
        fs::rename(&fresh, path).map_err(failed("put in place"))?;
        let file = SocketFile {
            path: path.clone(),
            inode,
            keep: Keep::default(),
        };
        Ok(Self { listener, file })
    }

    /// The socket that another process made at `path`, and handed to this one. Its file stays until [`Keep`] says
    /// otherwise. It must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error`] when the file is gone, or the socket can't be used.
    pub fn adopt(path: &Path, listener: OwnedFd) -> Result<Self, Error> {
        let failed = |step| {
            move |source| Error::Io {
                step,
                path: path.to_owned(),
                source,
            }
        };
        let inode = fs::symlink_metadata(path).map_err(failed("look at"))?.ino();
        let listener = std::os::unix::net::UnixListener::from(listener);
        listener
            .set_nonblocking(true)
            .map_err(failed("take over"))?;
        let listener = UnixListener::from_std(listener).map_err(failed("take over"))?;
        let keep = Keep::default();
        keep.keep(true);
        let file = SocketFile {
            path: path.to_owned(),
            inode,
            keep,
        };
        Ok(Self { listener, file })
    }

    /// Decides whether the file stays behind.
    #[must_use]
    pub fn keep(&self) -> Keep {
        self.file.keep.clone()
    }

    /// Where it stands.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The listener, and the guard that removes the file when dropped.
    #[must_use]
    pub fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

impl AsFd for AdminSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Whether a socket's file stays behind when the node ends, because another process has the socket.
#[derive(Clone, Debug, Default)]
pub struct Keep(Arc<AtomicBool>);

impl Keep {
    /// It stays, or goes.
    pub fn keep(&self, keep: bool) {
        self.0.store(keep, Ordering::Release);
    }

    /// Whether it stays.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Removes the socket's file when dropped, if it is still ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
    keep: Keep,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if ours && !self.keep.keeps() {
            // Nothing is lost when it stays: the next start sees that nobody answers.
            let _ = fs::remove_file(&self.path);
        }
    }
}

async fn check_vacant(path: &Path) -> Result<(), Error> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(Error::Io {
                step: "look at",
                path: path.to_owned(),
                source,
            });
        }
    };
    if !found.file_type().is_socket() {
        return Err(Error::NotASocket(path.to_owned()));
    }
    // A connection that hangs has someone on the other end: a full queue of a process that is stopped.
    match tokio::time::timeout(ANSWER_WITHIN, UnixStream::connect(path)).await {
        Ok(Err(refused)) if refused.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(Err(gone)) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Err(source)) => Err(Error::Io {
            step: "ask who is on",
            path: path.to_owned(),
            source,
        }),
        Ok(Ok(_)) | Err(_) => Err(Error::Answered(path.to_owned())),
    }
}

/// Only root can give a file to a group it is not in; without root the owner alone gets in, who is admin.
fn give_to_group(path: &Path, group: &str) -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    match Group::from_name(group) {
        Ok(Some(group)) => chown(path, None, Some(group.gid)).map_err(io::Error::from),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// `sun_path` holds 108 bytes with its NUL.
const MAX_PATH_BYTES: usize = 107;

/// A slash, `.s` and four random characters, and `/s`: where the file is first bound.
const FRESH_BYTES: usize = 9;

/// Connecting to a socket on the same machine takes microseconds when someone listens.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn config(path: PathBuf) -> Config {
        Config {
            path,
            group: "no-such-group".to_owned(),
        }
    }

    #[tokio::test]
    async fn it_makes_its_folder_and_lets_only_owner_and_group_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/emccd/admin.sock");
        let socket = AdminSocket::bind(&config(path.clone())).await.unwrap();
        let found = fs::metadata(&path).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o777, 0o660);
        UnixStream::connect(socket.path()).await.unwrap();
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[tokio::test]
    async fn the_file_goes_away_with_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(AdminSocket::bind(&config(path.clone())).await.unwrap());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        // The standard library's listener leaves its file behind, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = AdminSocket::bind(&config(path.clone())).await.unwrap();
        UnixStream::connect(socket.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_on_which_someone_answers_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let first = AdminSocket::bind(&config(path.clone())).await.unwrap();
        let second = AdminSocket::bind(&config(path.clone())).await;
        assert!(matches!(second, Err(Error::Answered(p)) if p == path));
        UnixStream::connect(first.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        let refused = AdminSocket::bind(&config(path.clone())).await;
        assert!(matches!(refused, Err(Error::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_successor_s_file_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let first = AdminSocket::bind(&config(path.clone())).await.unwrap();
        fs::remove_file(&path).unwrap();
        let second = AdminSocket::bind(&config(path.clone())).await.unwrap();
        drop(first);
        UnixStream::connect(second.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_is_handed_on_stays_reachable_until_its_last_owner_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let first = AdminSocket::bind(&config(path.clone())).await.unwrap();
        let handed = first.as_fd().try_clone_to_owned().unwrap();
        let second = AdminSocket::adopt(&path, handed).unwrap();
        first.keep().keep(true);
        drop(first);
        UnixStream::connect(&path).await.unwrap();
        second.keep().keep(false);
        drop(second);
        assert!(!path.exists());
        // One whose taking over failed removes nothing.
        let first = AdminSocket::bind(&config(path.clone())).await.unwrap();
        let handed = first.as_fd().try_clone_to_owned().unwrap();
        drop(AdminSocket::adopt(&path, handed).unwrap());
        UnixStream::connect(first.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d".repeat(100));
        let refused = AdminSocket::bind(&config(path)).await.unwrap_err();
        assert!(matches!(refused, Error::TooLong { .. }), "{refused}");
    }
}
