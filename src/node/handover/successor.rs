//! The side of the process that succeeds another one: it asks for the sockets, gets ready, and tells when it serves.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{UnixListener, UnixStream},
    time::timeout,
};
use tracing::warn;

use super::{
    ADMIN, FEDERATION, GO_ON, List, MAX_LIST_BYTES, MAX_SOCKETS, METRICS, OPEN, PHONE, PHONE_PLAIN,
    READY, STEP, TOO_LATE, Whose,
};
use crate::{
    config::Config,
    node::Error,
    wire::{
        admin::{HandOverRequest, admin_service_client::AdminServiceClient},
        unix,
    },
};

/// Listening sockets from the process before.
#[derive(Debug, Default)]
pub(in crate::node) struct Inherited {
    pub(in crate::node) federation: Option<OwnedFd>,
    pub(in crate::node) phone: Option<OwnedFd>,
    pub(in crate::node) phone_plain: Option<OwnedFd>,
    pub(in crate::node) admin: Option<(PathBuf, OwnedFd)>,
    pub(in crate::node) metrics: Option<OwnedFd>,
}

/// The process before, which goes on until it is told that we serve.
#[derive(Debug)]
pub(in crate::node) struct Predecessor {
    pub(super) stream: UnixStream,
    /// Its listening sockets.
    pub(in crate::node) sockets: Inherited,
}

impl Predecessor {
    /// Asks the process at the configured admin socket for its listening sockets; none when there is no process.
    ///
    /// # Errors
    /// [`Error::HandOver`] when there is one that does not give them.
    pub(in crate::node) async fn ask(config: &Config) -> Result<Option<Self>, Error> {
        let path = &config.admin.socket;
        let user = match timeout(STEP, UnixStream::connect(path)).await {
            Ok(Ok(probe)) => probe.peer_cred().map(|of| of.uid()),
            Ok(Err(cause)) if is_absent(&cause) => return Ok(None),
            Ok(Err(cause)) => return Err(refused("the admin socket can't be opened", &cause)),
            Err(_) => {
                return Err(Error::HandOver(
                    "the running process does not answer on its admin socket".to_owned(),
                ));
            }
        };
        let user = user.map_err(|cause| refused("its user can't be found out", &cause))?;
        let ours = nix::unistd::geteuid().as_raw();
        if user != ours {
            // What root makes in the store's folder that user could not write.
            return Err(Error::HandOver(format!(
                "it runs as uid {user}, and this process as uid {ours}"
            )));
        }
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        clear_away(folder, LEFT).await;
        let own = tempfile::Builder::new()
            .prefix(PREFIX)
            .rand_bytes(RANDOM)
            .tempdir_in(folder)
            .map_err(|cause| refused("no private folder beside the admin socket", &cause))?;
        let waiting_at = own.path().join("s");
        let listener = UnixListener::bind(&waiting_at)
            .map_err(|cause| refused("no socket to wait at", &cause))?;
        let channel = unix::connect(path)
            .await
            .map_err(|cause| refused("the admin socket can't be used", &cause))?;
        let whose = Whose::of(config);
        let request = HandOverRequest {
            socket: waiting_at.to_string_lossy().into_owned(),
            cluster_id: whose.cluster,
            node: whose.node,
            store: whose.store,
        };
        let mut client = AdminServiceClient::new(channel);
        match timeout(STEP * 3, client.hand_over(request)).await {
            Ok(Ok(_)) => {}
            Ok(Err(status)) => return Err(Error::HandOver(status.message().to_owned())),
            Err(_) => {
                return Err(Error::HandOver(
                    "the running process does not answer".to_owned(),
                ));
            }
        }
        let taken = timeout(STEP, async {
            loop {
                let (stream, _) = listener.accept().await?;
                match receive(&stream).await {
                    // Somebody looked whether we live, and hung up.
                    Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => {}
                    sockets => {
                        let sockets = sockets?;
                        break Ok::<_, io::Error>(Self { stream, sockets });
                    }
                }
            }
        });
        match taken.await {
            Ok(Ok(predecessor)) => Ok(Some(predecessor)),
            Ok(Err(cause)) => Err(refused("its sockets could not be received", &cause)),
            Err(_) => Err(Error::HandOver("it sent no sockets".to_owned())),
        }
    }

    /// Says that we could serve. On `Ok` this is the node, if it then says that it [serves](Self::serves).
    ///
    /// # Errors
    /// [`Error::HandOver`] when the process before goes on, and we must not.
    pub(in crate::node) async fn ready(&mut self) -> Result<(), Error> {
        let failed = |why: &str| Err(Error::HandOver(why.to_owned()));
        // What it said before it hung up can be read even when nothing can be written any more.
        let _gone = timeout(STEP, self.stream.write_all(&[READY])).await;
        match timeout(STEP, self.stream.read_u8()).await {
            Ok(Ok(GO_ON)) => Ok(()),
            Ok(Ok(TOO_LATE)) => failed("the running process had given this one up, and goes on"),
            Ok(Ok(_)) => failed("the running process said something unknown, and goes on"),
            Ok(Err(_)) => {
                warn!("the process before has ended by itself meanwhile");
                Ok(())
            }
            Err(_) => failed("the running process does not answer any more"),
        }
    }

    /// Tells it that the doors are open, so that it ends.
    pub(in crate::node) async fn serves(mut self) {
        let _gone = timeout(STEP, self.stream.write_all(&[OPEN])).await;
    }
}

/// How the names of the folders begin in which new processes wait.
const PREFIX: &str = ".emccd-h";
/// How many characters follow.
const RANDOM: usize = 4;
/// How old a socket must be to have been left: one that is just being made does not answer yet either.
pub(super) const LEFT: Duration = Duration::from_secs(10);

/// Removes what new processes left that were killed while they waited: folders as we make them, in which nobody answers.
pub(super) async fn clear_away(folder: &Path, older: Duration) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let socket = entry.path().join("s");
        if !is_ours(&entry, &socket, older) {
            continue;
        }
        let answer = timeout(STEP, UnixStream::connect(&socket)).await;
        if let Ok(Err(cause)) = answer
            && cause.kind() == io::ErrorKind::ConnectionRefused
        {
            let _others = std::fs::remove_file(&socket);
            let _not_empty = std::fs::remove_dir(entry.path());
        }
    }
}

/// Whether nothing but a new process can have made this: by its name, owner and mode, and what is in it. Links are not
/// followed.
fn is_ours(entry: &std::fs::DirEntry, socket: &Path, older: Duration) -> bool {
    let is_named = entry
        .file_name()
        .to_str()
        .and_then(|name| name.strip_prefix(PREFIX))
        .is_some_and(|rest| rest.len() == RANDOM);
    let (Ok(folder), Ok(socket)) = (entry.metadata(), socket.symlink_metadata()) else {
        return false;
    };
    let is_left = socket
        .modified()
        .is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= older));
    is_named
        && folder.is_dir()
        && folder.uid() == nix::unistd::geteuid().as_raw()
        && folder.mode() & 0o777 == 0o700
        && socket.file_type().is_socket()
        && is_left
}

fn is_absent(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn refused(what: &str, cause: &(dyn std::error::Error + 'static)) -> Error {
    Error::HandOver(format!("{what}: {}", crate::telemetry::error_chain(cause)))
}

pub(super) async fn receive(stream: &UnixStream) -> io::Result<Inherited> {
    let mut bytes = vec![0; MAX_LIST_BYTES];
    let mut handles: Vec<OwnedFd> = Vec::new();
    let count = loop {
        stream.readable().await?;
        let received = stream.try_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut bytes)];
            let received = recvmsg(stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(sent) = message {
                    handles.extend(sent);
                }
            }
            Ok(received.bytes)
        });
        match received {
            Err(empty) if empty.kind() == io::ErrorKind::WouldBlock => {}
            received => break received?,
        }
    };
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    bytes.truncate(count);
    let list: List = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    if list.names.len() != handles.len() {
        return Err(io::Error::other("not as many sockets as were named"));
    }
    let mut all = Inherited::default();
    for (name, handle) in list.names.iter().zip(handles) {
        match &**name {
            FEDERATION => all.federation = Some(handle),
            PHONE => all.phone = Some(handle),
            PHONE_PLAIN => all.phone_plain = Some(handle),
            METRICS => all.metrics = Some(handle),
            ADMIN => all.admin = Some((list.admin.clone(), handle)),
            // Of a later version; it closes.
            _ => {}
        }
    }
    Ok(all)
}
