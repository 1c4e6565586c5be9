//! The conversation of two processes over a socket, without the processes.

use tokio::net::UnixListener;

use super::{
    successor::{Inherited, Predecessor, receive},
    *,
};

/// One that may be succeeded, with the socket at which a successor waits.
struct Old {
    hand_over: HandOver,
    waiting: UnixListener,
    path: PathBuf,
    address: std::net::SocketAddr,
    _folder: tempfile::TempDir,
}

fn old(patience: Duration) -> Old {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let waiting = UnixListener::bind(&path).unwrap();
    let store = Store::open(&store::Config {
        url: "sqlite::memory:".to_owned(),
        node: "n1".to_owned(),
    })
    .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let inner = Inner {
        sockets: Mutex::new(vec![(FEDERATION, listener.into())]),
        admin: PathBuf::from("/run/x"),
        file: Keep::default(),
        busy: AtomicBool::new(false),
        done: CancellationToken::new(),
        membership: Membership::of(&store),
        store,
        clock: Clock::system(),
        tasks: Tasks::default(),
        patience,
    };
    Old {
        hand_over: HandOver {
            inner: Arc::new(inner),
        },
        waiting,
        path,
        address,
        _folder: folder,
    }
}

impl Old {
    /// A successor that has the sockets.
    async fn successor(&self) -> Predecessor {
        self.hand_over.send_to(&self.path, "test").await.unwrap();
        let (stream, _) = self.waiting.accept().await.unwrap();
        let sockets = receive(&stream).await.unwrap();
        Predecessor { stream, sockets }
    }

    /// Waits until nobody takes over.
    async fn is_alone(&self) {
        let alone = async {
            while self.hand_over.inner.busy.load(Ordering::Acquire) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(STEP, alone).await.unwrap();
    }

    fn is_succeeded(&self) -> bool {
        self.hand_over.inner.done.is_cancelled()
    }
}

#[tokio::test]
async fn a_socket_that_was_sent_is_the_same_socket() {
    let old = old(START);
    // One that goes away without a word leaves all as it was.
    old.hand_over.send_to(&old.path, "test").await.unwrap();
    let again = old.hand_over.send_to(&old.path, "test").await.unwrap_err();
    assert!(again.contains("already"), "{again}");
    assert!(old.hand_over.inner.file.keeps());
    drop(old.waiting.accept().await.unwrap());
    old.is_alone().await;
    assert!(!old.is_succeeded() && !old.hand_over.inner.file.keeps());

    let mut new = old.successor().await;
    assert!(new.sockets.phone.is_none() && new.sockets.admin.is_none());
    let Inherited { federation, .. } = std::mem::take(&mut new.sockets);
    let taken = std::net::TcpListener::from(federation.unwrap());
    assert_eq!(taken.local_addr().unwrap(), old.address);
    new.ready().await.unwrap();
    assert!(!old.is_succeeded(), "its doors are still closed");
    new.serves().await;
    timeout(STEP, old.hand_over.done()).await.unwrap();
    assert!(old.hand_over.inner.file.keeps());
    old.hand_over.close();
    // The old process's handle is closed, and the socket is not.
    let near = std::net::TcpStream::connect(old.address).unwrap();
    let (_, from) = taken.accept().unwrap();
    assert_eq!(from, near.local_addr().unwrap());
    old.is_alone().await;
    let late = old.hand_over.send_to(&old.path, "test").await.unwrap_err();
    assert!(late.contains("shutting down"), "{late}");
}

#[tokio::test]
async fn a_successor_that_comes_too_late_hears_it_and_gives_up() {
    let old = old(Duration::from_millis(20));
    let mut new = old.successor().await;
    old.is_alone().await;
    let error = new.ready().await.unwrap_err();
    assert!(error.to_string().contains("given this one up"), "{error}");
    assert!(!old.is_succeeded());
}

#[tokio::test]
async fn one_that_was_stopped_in_the_middle_is_succeeded_and_leaves_the_socket_s_file() {
    let old = old(START);
    let mut new = old.successor().await;
    old.hand_over.inner.tasks.cancel();
    old.is_alone().await;
    new.ready().await.unwrap();
    new.serves().await;
    assert!(old.hand_over.inner.file.keeps());
}

#[tokio::test]
async fn a_successor_that_ends_before_it_serves_leaves_the_old_run_on_record() {
    let old = old(START);
    let inner = &old.hand_over.inner;
    inner.membership.join().await.unwrap();
    let mut new = old.successor().await;
    new.ready().await.unwrap();
    let run = Membership::of(&inner.store);
    run.join().await.unwrap();
    drop(new);
    old.is_alone().await;
    assert!(!old.is_succeeded());
    let stands = inner
        .store
        .read(|tx: &mut dyn Transaction| store::nodes::get(tx, "n1"))
        .await
        .unwrap();
    assert_eq!(&stands.unwrap().run, inner.membership.run());
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_way_free_for_the_next() {
    let old = old(START);
    let mut asked = Box::pin(old.hand_over.send_to(&old.path, "test"));
    std::future::poll_fn(|cx| {
        assert!(asked.as_mut().poll(cx).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    drop(asked);
    drop(old.waiting.accept().await.unwrap());
    old.is_alone().await;
    old.successor().await;
}
