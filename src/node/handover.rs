//! Hand-over: a new process takes the listening sockets of the one that runs, and that one ends when the new one serves.
//!
//! The new one waits at a socket of its own, in a folder that nobody else can enter, and asks over the admin socket,
//! where it is known by its user and the request is on record. The old one connects there and sends its listening
//! sockets; from then on both hold them, and no connection is refused. Until the new one has said that it serves the
//! old one goes on as before; if it never does, for good.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::UnixStream,
    sync::oneshot,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Error, sockets::Sockets};
use crate::{
    clock::Clock,
    config::Config,
    edge::admin::socket::Keep,
    store::{self, Store, Transaction, audit, membership::Membership},
    tasks::Tasks,
};

mod successor;

pub(super) use successor::{Inherited, Predecessor};

/// How long each step between the two may take that waits for nothing but the other's attention.
const STEP: Duration = Duration::from_secs(5);
/// How long the new process may take until it is ready: it reads keys, peers and trust meanwhile, and may wait for the
/// store.
const START: Duration = Duration::from_secs(300);
/// The new process could serve. It has changed nothing so far.
const READY: u8 = b'R';
/// The old one is there to be replaced: the new one goes on record and opens its doors.
const GO_ON: u8 = b'G';
/// The old one has waited for too long, and goes on.
const TOO_LATE: u8 = b'X';
/// The new one serves.
const OPEN: u8 = b'O';
/// More sockets than a node has.
const MAX_SOCKETS: usize = 8;
/// More than a list of them takes.
const MAX_LIST_BYTES: usize = 4_096;

/// How many characters of somebody else's words stand in ours.
const MAX_SAID: usize = 200;

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
const METRICS: &str = "metrics";

/// Which node of which cluster, on which store: only a process of the same succeeds one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whose {
    pub(super) cluster: String,
    pub(super) node: String,
    /// As [`store::mark`] says it; empty where there is none yet.
    pub(super) store: String,
}

impl Whose {
    /// A process with this configuration, now.
    pub(super) fn of(config: &Config) -> Self {
        Self {
            cluster: config.cluster_id.to_string(),
            node: config.node.clone(),
            store: store::mark(&config.store.url).unwrap_or_default(),
        }
    }

    /// Why `other` is no process of this node, if it is none.
    fn differs(&self, other: &Self) -> Option<String> {
        if (&self.cluster, &self.node) != (&other.cluster, &other.node) {
            return Some(format!(
                "it is node {} of {}, and the new process is node {} of {}",
                self.node,
                self.cluster,
                bounded(&other.node),
                bounded(&other.cluster)
            ));
        }
        (self.store.is_empty() || self.store != other.store).then(|| {
            "the new process names another store than the one that this node has open".to_owned()
        })
    }
}

/// As much as a sentence takes of what somebody else says.
fn bounded(text: &str) -> String {
    text.chars().take(MAX_SAID).collect()
}

/// Somebody wants the sockets.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    /// Where the new process waits.
    pub(super) to: &'a Path,
    /// Who it says that it is.
    pub(super) by: Whose,
    /// Whose process it is, as in the audit.
    pub(super) actor: &'a str,
    /// Whether that is root or this process's own user.
    pub(super) is_owner: bool,
}

/// The side of a process that may be succeeded. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct HandOver {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    whose: Whose,
    /// Second handles on the listening sockets; none once the node ends, so that they close with the doors.
    sockets: Mutex<Vec<(&'static str, OwnedFd)>>,
    admin: PathBuf,
    file: Keep,
    busy: AtomicBool,
    done: CancellationToken,
    store: Store,
    membership: Membership,
    clock: Clock,
    tasks: Tasks,
    /// How long a successor may take until it is ready.
    patience: Duration,
}

/// The right to talk to a successor, which one task at a time has.
struct Turn(Arc<Inner>);

impl Turn {
    fn begin(inner: &Arc<Inner>) -> Option<Self> {
        let is_free = !inner.busy.swap(true, Ordering::AcqRel);
        is_free.then(|| Self(Arc::clone(inner)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

impl HandOver {
    /// Keeps second handles on what `sockets` has.
    pub(super) fn new(
        whose: Whose,
        sockets: &Sockets,
        store: Store,
        membership: Membership,
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
        if let Some(metrics) = &sockets.metrics {
            all.push((METRICS, again(metrics.as_fd())?));
        }
        all.push((ADMIN, again(sockets.admin.as_fd())?));
        Ok(Self {
            inner: Arc::new(Inner {
                whose,
                sockets: Mutex::new(all),
                admin: sockets.admin.path().to_owned(),
                file: sockets.admin.keep(),
                busy: AtomicBool::new(false),
                done: CancellationToken::new(),
                store,
                membership,
                clock,
                tasks,
                patience: START,
            }),
        })
    }

    /// Completes when a successor serves.
    pub(super) async fn done(&self) {
        self.inner.done.cancelled().await;
    }

    /// Cancelled when a successor serves.
    pub(super) fn succeeded(&self) -> CancellationToken {
        self.inner.done.clone()
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

    /// Sends the sockets to whom `asked` names, and goes on waiting for its word, also when the caller no longer waits
    /// for the answer.
    ///
    /// # Errors
    /// Why they were not sent, in words. It is on record, and nothing else has changed.
    pub(super) async fn send_to(&self, asked: &Asked<'_>) -> Result<(), String> {
        let sent = self.begin(asked).await;
        if let Err(why) = &sent {
            // The audit may wait for the store; whoever asked does not.
            let (inner, actor) = (Arc::clone(&self.inner), asked.actor.to_owned());
            let outcome = format!("refused: {}", bounded(why));
            self.inner.tasks.spawn("hand-over on record", async move {
                inner.record(&actor, outcome).await;
            });
        }
        sent
    }

    async fn begin(&self, asked: &Asked<'_>) -> Result<(), String> {
        if !asked.is_owner {
            return Err("only root and the daemon's own user may take over from it".to_owned());
        }
        if let Some(difference) = self.inner.whose.differs(&asked.by) {
            return Err(difference);
        }
        let Some(turn) = Turn::begin(&self.inner) else {
            return Err("another process is taking over already".to_owned());
        };
        let (told, sent) = oneshot::channel();
        let (path, actor) = (asked.to.to_owned(), asked.actor.to_owned());
        self.inner.tasks.spawn("hand-over", async move {
            hand_over(turn, &path, &actor, told).await;
        });
        let gone = |_| Err("this node is shutting down".to_owned());
        sent.await.unwrap_or_else(gone)
    }
}

async fn hand_over(
    turn: Turn,
    path: &Path,
    actor: &str,
    told: oneshot::Sender<Result<(), String>>,
) {
    let inner = Arc::clone(&turn.0);
    // From here on the file is that of another process too, and it stays even if this one is stopped in the middle.
    inner.file.keep(true);
    let mut stream = match inner.send(path).await {
        Ok(stream) => stream,
        Err(cause) => {
            inner.file.keep(false);
            drop(turn);
            let _gone = told.send(Err(cause));
            return;
        }
    };
    let _gone = told.send(Ok(()));
    // The audit may wait for the store; the successor does not.
    let (recording, who) = (Arc::clone(&inner), actor.to_owned());
    let recorded = inner.tasks.spawn("hand-over on record", async move {
        recording
            .record(&who, "sent the listening sockets".to_owned())
            .await;
    });
    let outcome = tokio::select! {
        biased;
        // The successor has nothing to take over from, and finds that the connection ends.
        () = inner.tasks.cancelled() => return,
        outcome = inner.talk(&mut stream) => outcome,
    };
    let outcome = match outcome {
        Ok(()) => {
            info!("another process has taken over");
            inner.done.cancel();
            "the new process serves, this one ends"
        }
        Err(outcome) => {
            inner.file.keep(false);
            drop(turn);
            warn!("{outcome}");
            outcome
        }
    };
    let _panicked = recorded.await;
    inner.record(actor, outcome.to_owned()).await;
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

    /// Waits until the successor serves; what came of it when it does not. Then all stays as it is.
    async fn talk(&self, stream: &mut UnixStream) -> Result<(), &'static str> {
        match timeout(self.patience, stream.read_u8()).await {
            Ok(Ok(READY)) => {}
            Ok(_) => return Err("the new process did not start; this one goes on"),
            Err(_) => {
                let _gone = stream.write_all(&[TOO_LATE]).await;
                return Err("the new process was not ready in time; this one goes on");
            }
        }
        let _gone = stream.write_all(&[GO_ON]).await;
        // From here on it may open its doors at any moment, for as long as it lives.
        if let Ok(OPEN) = stream.read_u8().await {
            return Ok(());
        }
        // It may be on record as this node's run by now.
        if let Err(error) = self.membership.join().await {
            warn!(
                cause = %error,
                "this node could not be put on record again; it tries again"
            );
        }
        Err("the new process ended before it served; this one goes on")
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

#[cfg(test)]
mod tests;
