//! Hand-over: a new process takes the listening sockets of the one that runs, and that one ends when the new one serves.
//!
//! The new one waits at a socket of its own, in a folder that nobody else can enter, and asks over the admin socket,
//! where it is known by its user and the request is on record. The old one connects there and sends its listening
//! sockets; from then on both hold them, and no connection is refused. Until the new one has said that it serves the
//! old one goes on as before; if it never does, for good.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{UnixListener, UnixStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Error, sockets::Sockets};
use crate::{
    clock::Clock,
    config::Config,
    edge::admin::socket::Keep,
    store::{self, Store, Transaction, audit},
    tasks::Tasks,
    wire::{
        admin::{HandOverRequest, admin_service_client::AdminServiceClient},
        unix,
    },
};

/// How long each step between the two may take that waits for nothing but the other's attention.
const STEP: Duration = Duration::from_secs(5);
/// How long the new process may take until it serves: a large store is brought up to date meanwhile.
const START: Duration = Duration::from_secs(300);
/// What the new process says, and what the old one answers.
const SERVES: u8 = b'R';
const GO_ON: u8 = b'G';
const TOO_LATE: u8 = b'X';
/// More sockets than a node has.
const MAX_SOCKETS: usize = 8;
/// More than a list of them takes.
const MAX_LIST_BYTES: usize = 4_096;

/// What is sent with the sockets: their names in their order, and the path of the one for operators.
#[derive(Debug, Deserialize, Serialize)]
struct List {
    names: Vec<String>,
    admin: PathBuf,
}

const FEDERATION: &str = "federation";
const PHONE: &str = "phone";
const PHONE_PLAIN: &str = "phone-plain";
const ADMIN: &str = "admin";

/// The side of a process that may be succeeded. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct HandOver {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Second handles on the listening sockets; none once the node ends, so that they close with the doors.
    sockets: Mutex<Vec<(&'static str, OwnedFd)>>,
    admin: PathBuf,
    file: Keep,
    busy: AtomicBool,
    done: CancellationToken,
    store: Store,
    clock: Clock,
    tasks: Tasks,
}

impl HandOver {
    /// Keeps second handles on what `sockets` has.
    pub(super) fn new(
        sockets: &Sockets,
        store: Store,
        clock: Clock,
        tasks: Tasks,
    ) -> Result<Self, Error> {
        let failed = |_| Error::Broken("keeping a second handle on a socket");
        let again = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(failed);
        let mut all = vec![
            (FEDERATION, again(sockets.federation.as_fd())?),
            (PHONE, again(sockets.phone.as_fd())?),
        ];
        if let Some(plain) = &sockets.phone_plain {
            all.push((PHONE_PLAIN, again(plain.as_fd())?));
        }
        all.push((ADMIN, again(sockets.admin.as_fd())?));
        Ok(Self {
            inner: Arc::new(Inner {
                sockets: Mutex::new(all),
                admin: sockets.admin.path().to_owned(),
                file: sockets.admin.keep(),
                busy: AtomicBool::new(false),
                done: CancellationToken::new(),
                store,
                clock,
                tasks,
            }),
        })
    }

    /// Completes when a successor serves.
    pub(super) async fn done(&self) {
        self.inner.done.cancelled().await;
    }

    /// The node ends: its sockets close when its doors do.
    pub(super) fn close(&self) {
        let mut sockets = self
            .inner
            .sockets
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        sockets.clear();
    }

    /// Sends the sockets to whoever waits at `path`, and goes on waiting for its word.
    ///
    /// # Errors
    /// Why they were not sent, in words.
    pub(super) async fn send_to(&self, path: &Path, actor: &str) -> Result<(), String> {
        let inner = &self.inner;
        if inner.busy.swap(true, Ordering::AcqRel) {
            return Err("another process is taking over already".to_owned());
        }
        let sent = inner.send(path).await;
        match sent {
            Ok(stream) => {
                inner
                    .record(actor, "sent the listening sockets".to_owned())
                    .await;
                let (waiting, actor) = (Arc::clone(inner), actor.to_owned());
                inner.tasks.spawn("hand-over", async move {
                    waiting.wait(stream, &actor).await;
                });
                Ok(())
            }
            Err(cause) => {
                inner.busy.store(false, Ordering::Release);
                Err(cause)
            }
        }
    }
}

impl Inner {
    async fn send(&self, path: &Path) -> Result<UnixStream, String> {
        let said = |cause: io::Error| format!("{}: {cause}", path.display());
        let stream = timeout(STEP, UnixStream::connect(path))
            .await
            .map_err(|_| format!("{}: no answer", path.display()))?
            .map_err(said)?;
        let uid = stream.peer_cred().map_err(said)?.uid();
        if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
            return Err(format!("{} is another user's", path.display()));
        }
        let sockets: Vec<(&'static str, OwnedFd)> = {
            let kept = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
            let again = kept.iter().map(|(name, fd)| Ok((*name, fd.try_clone()?)));
            again.collect::<io::Result<_>>().map_err(said)?
        };
        if sockets.is_empty() {
            return Err("this node is shutting down".to_owned());
        }
        let list = List {
            names: sockets.iter().map(|(name, _)| (*name).to_owned()).collect(),
            admin: self.admin.clone(),
        };
        let bytes = serde_json::to_vec(&list).map_err(|cause| cause.to_string())?;
        let sending = async {
            loop {
                stream.writable().await?;
                let sent = stream.try_io(Interest::WRITABLE, || {
                    let handles: Vec<_> = sockets.iter().map(|(_, fd)| fd.as_fd()).collect();
                    let mut space =
                        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
                    let mut control = SendAncillaryBuffer::new(&mut space);
                    if !control.push(SendAncillaryMessage::ScmRights(&handles)) {
                        return Err(io::Error::other("too many sockets"));
                    }
                    let bytes = [IoSlice::new(&bytes)];
                    Ok(sendmsg(&stream, &bytes, &mut control, SendFlags::NOSIGNAL)?)
                });
                match sent {
                    Err(full) if full.kind() == io::ErrorKind::WouldBlock => {}
                    sent => return sent,
                }
            }
        };
        let sent = timeout(STEP, sending).await;
        match sent {
            Ok(Ok(count)) if count == bytes.len() => Ok(stream),
            Ok(Ok(_)) => Err("the list of sockets was cut off".to_owned()),
            Ok(Err(cause)) => Err(said(cause)),
            Err(_) => Err(format!("{}: it takes nothing", path.display())),
        }
    }

    /// Waits for the successor's word; without it all stays as it is.
    async fn wait(&self, mut stream: UnixStream, actor: &str) {
        let word = tokio::select! {
            // It would have nothing to take over from.
            () = self.tasks.cancelled() => return,
            word = timeout(START, stream.read_u8()) => word,
        };
        let outcome = match word {
            Ok(Ok(SERVES)) => {
                let _gone = stream.write_all(&[GO_ON]).await;
                self.record(actor, "the new process serves, this one ends".to_owned())
                    .await;
                info!("another process has taken over");
                self.file.keep(true);
                self.done.cancel();
                return;
            }
            Ok(_) => "the new process did not start; this one goes on",
            Err(_) => {
                let _gone = stream.write_all(&[TOO_LATE]).await;
                "the new process was not ready in time; this one goes on"
            }
        };
        warn!("{outcome}");
        self.record(actor, outcome.to_owned()).await;
        self.busy.store(false, Ordering::Release);
    }

    async fn record(&self, actor: &str, outcome: String) {
        let (at, actor) = (self.clock.now(), actor.to_owned());
        let recorded = self.store.write(move |tx: &mut dyn Transaction| {
            let entry = audit::Entry {
                at,
                actor: actor.clone(),
                action: audit::Action::NodeHandOver,
                subject: tx.node().to_owned(),
                outcome: outcome.clone(),
                reference: None,
            };
            audit::append(tx, &entry)?;
            Ok::<_, store::Error>(())
        });
        if let Err(cause) = recorded.await {
            warn!(%cause, "the hand-over could not be put on record");
        }
    }
}

/// Listening sockets from the process before.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    pub(super) federation: Option<OwnedFd>,
    pub(super) phone: Option<OwnedFd>,
    pub(super) phone_plain: Option<OwnedFd>,
    pub(super) admin: Option<(PathBuf, OwnedFd)>,
}

/// The process before, which goes on until it is told that we serve.
#[derive(Debug)]
pub(super) struct Predecessor {
    stream: UnixStream,
    /// Its listening sockets.
    pub(super) sockets: Inherited,
}

impl Predecessor {
    /// Asks the process at the configured admin socket for its listening sockets; none when there is no process.
    ///
    /// # Errors
    /// [`Error::HandOver`] when there is one that does not give them.
    pub(super) async fn ask(config: &Config) -> Result<Option<Self>, Error> {
        let path = &config.admin.socket;
        match timeout(STEP, UnixStream::connect(path)).await {
            Ok(Ok(_)) => {}
            Ok(Err(cause)) if is_absent(&cause) => return Ok(None),
            Ok(Err(cause)) => return Err(refused("the admin socket can't be opened", &cause)),
            Err(_) => {
                return Err(Error::HandOver(
                    "the running process does not answer on its admin socket".to_owned(),
                ));
            }
        }
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let own = tempfile::Builder::new()
            .prefix(".h")
            .rand_bytes(4)
            .tempdir_in(folder)
            .map_err(|cause| refused("no private folder beside the admin socket", &cause))?;
        let waiting_at = own.path().join("s");
        let listener = UnixListener::bind(&waiting_at)
            .map_err(|cause| refused("no socket to wait at", &cause))?;
        let channel = unix::connect(path)
            .await
            .map_err(|cause| refused("the admin socket can't be used", &cause))?;
        let request = HandOverRequest {
            socket: waiting_at.to_string_lossy().into_owned(),
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
            let (stream, _) = listener.accept().await?;
            let sockets = receive(&stream).await?;
            Ok::<_, io::Error>(Self { stream, sockets })
        });
        match taken.await {
            Ok(Ok(predecessor)) => Ok(Some(predecessor)),
            Ok(Err(cause)) => Err(refused("its sockets could not be received", &cause)),
            Err(_) => Err(Error::HandOver("it sent no sockets".to_owned())),
        }
    }

    /// Tells it that we serve, so that it ends.
    ///
    /// # Errors
    /// [`Error::HandOver`] when it has given us up: it goes on, and we must not.
    pub(super) async fn serving(mut self) -> Result<(), Error> {
        let told = timeout(STEP, async {
            self.stream.write_all(&[SERVES]).await?;
            self.stream.read_u8().await
        });
        match told.await {
            Ok(Ok(TOO_LATE)) => Err(Error::HandOver(
                "the running process had given this one up, and goes on".to_owned(),
            )),
            Ok(Ok(_)) => Ok(()),
            // It is gone, or stopped: nobody else serves.
            Ok(Err(_)) | Err(_) => {
                warn!("the process before did not answer at the end; it is left alone");
                Ok(())
            }
        }
    }
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

async fn receive(stream: &UnixStream) -> io::Result<Inherited> {
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
            ADMIN => all.admin = Some((list.admin.clone(), handle)),
            // Of a later version; it closes.
            _ => {}
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_sent_is_the_same_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let waiting = UnixListener::bind(&path).unwrap();
        let config = store::Config {
            url: "sqlite::memory:".to_owned(),
            node: "n1".to_owned(),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Inner {
            sockets: Mutex::new(vec![(FEDERATION, listener.into())]),
            admin: PathBuf::from("/run/x"),
            file: Keep::default(),
            busy: AtomicBool::new(false),
            done: CancellationToken::new(),
            store: Store::open(&config).unwrap(),
            clock: Clock::system(),
            tasks: Tasks::default(),
        };
        let old = HandOver {
            inner: Arc::new(inner),
        };
        // One that goes away without a word leaves all as it was.
        old.send_to(&path, "test").await.unwrap();
        assert!(
            old.send_to(&path, "test")
                .await
                .unwrap_err()
                .contains("already")
        );
        drop(waiting.accept().await.unwrap());
        while old.inner.busy.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!old.inner.done.is_cancelled());
        old.send_to(&path, "test").await.unwrap();
        let (stream, _) = waiting.accept().await.unwrap();
        let sockets = receive(&stream).await.unwrap();
        assert!(sockets.phone.is_none() && sockets.admin.is_none());
        let taken = std::net::TcpListener::from(sockets.federation.unwrap());
        assert_eq!(taken.local_addr().unwrap(), address);
        let new = Predecessor {
            stream,
            sockets: Inherited::default(),
        };
        new.serving().await.unwrap();
        timeout(STEP, old.done()).await.unwrap();
        old.close();
        // The old process's handle is closed, and the socket is not.
        let near = std::net::TcpStream::connect(address).unwrap();
        let (_, from) = taken.accept().unwrap();
        assert_eq!(from, near.local_addr().unwrap());
        old.inner.busy.store(false, Ordering::Release);
        let late = old.send_to(&path, "test").await.unwrap_err();
        assert!(late.contains("shutting down"), "{late}");
    }
}
