//! The conversation of two processes over a socket, without the processes.

use tokio::net::UnixListener;

use super::{
    successor::{Inherited, LEFT, Predecessor, clear_away, receive},
    *,
};

const STORE: &str = "file 1 of device 2";

fn whose(node: &str, store: &str) -> Whose {
    Whose {
        cluster: "tokyo".to_owned(),
        node: node.to_owned(),
        store: store.to_owned(),
    }
}

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
        whose: whose("n1", STORE),
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
    /// Asked by a new process of the same node.
    fn asked(&self) -> Asked<'_> {
        Asked {
            to: &self.path,
            by: whose("n1", STORE),
            actor: "test",
            is_owner: true,
        }
    }

    async fn send(&self) -> Result<(), String> {
        self.hand_over.send_to(&self.asked()).await
    }

    /// What the audit has of hand-overs, once it has so many entries.
    async fn audited(&self, count: usize) -> Vec<String> {
        let audited = async {
            loop {
                let store = &self.hand_over.inner.store;
                let read = store.read(|tx: &mut dyn Transaction| audit::list(tx, 100));
                let all = read.await.unwrap().into_iter();
                let told: Vec<String> = all
                    .filter(|entry| entry.action == "node.hand-over")
                    .map(|entry| entry.outcome)
                    .collect();
                if told.len() >= count {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(STEP, audited).await.unwrap()
    }

    /// A successor that has the sockets.
    async fn successor(&self) -> Predecessor {
        self.send().await.unwrap();
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
    old.send().await.unwrap();
    let again = old.send().await.unwrap_err();
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
    let late = old.send().await.unwrap_err();
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
    let mut asked = Box::pin(old.send());
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

#[test]
fn only_a_process_of_the_same_node_on_the_same_store_succeeds_one() {
    let old = whose("n1", STORE);
    assert_eq!(old.differs(&whose("n1", STORE)), None);
    let of_berlin = Whose {
        cluster: "berlin".to_owned(),
        ..whose("n1", STORE)
    };
    for (new, word) in [
        (whose("n2", STORE), "the new process is node n2 of tokyo"),
        (of_berlin, "the new process is node n1 of berlin"),
        (whose("n1", "file 3 of device 2"), "another store"),
        (whose("n1", ""), "another store"),
    ] {
        let said = old.differs(&new).unwrap();
        assert!(said.contains(word), "{said}");
    }
    // A store that no other process can have.
    assert!(whose("n1", "").differs(&whose("n1", "")).is_some());
    let long = old.differs(&whose(&"x".repeat(10_000), STORE)).unwrap();
    assert!(long.len() < 1_000, "{}", long.len());
}

#[tokio::test]
async fn who_is_refused_disturbs_nothing_and_is_on_record() {
    let old = old(START);
    let store = old.hand_over.inner.store.clone();
    store
        .seal_audit(audit::Key::from_pepper(&crate::secret::Secret::new(vec![
            1;
            32
        ])))
        .await
        .unwrap();
    for (asked, word) in [
        (
            Asked {
                is_owner: false,
                ..old.asked()
            },
            "the daemon's own user",
        ),
        (
            Asked {
                by: whose("n2", STORE),
                ..old.asked()
            },
            "node n2",
        ),
        (
            Asked {
                by: whose("n1", "file 3 of device 2"),
                ..old.asked()
            },
            "another store",
        ),
    ] {
        let refused = old.hand_over.send_to(&asked).await.unwrap_err();
        assert!(refused.contains(word), "{refused}");
        assert!(!old.hand_over.inner.file.keeps());
        assert!(!old.hand_over.inner.busy.load(Ordering::Acquire));
    }
    let told = old.audited(3).await;
    assert!(
        told.iter().all(|outcome| outcome.starts_with("refused: ")),
        "{told:?}"
    );
    let nobody = timeout(Duration::from_millis(50), old.waiting.accept()).await;
    assert!(nobody.is_err(), "somebody was sent the sockets");
    // And one while another one takes over.
    let new = old.successor().await;
    old.send().await.unwrap_err();
    let told = old.audited(5).await;
    assert!(
        told.iter()
            .any(|outcome| outcome.starts_with("refused: ") && outcome.contains("already")),
        "{told:?}"
    );
    drop(new);
}

#[tokio::test]
async fn what_killed_processes_left_is_cleared_away_and_nothing_else() {
    use std::{fs, os::unix::fs::DirBuilderExt, os::unix::net::UnixListener as Blocking};
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("beside");
    let at = |name: &str| folder.join(name);
    let make = |name: &str, mode| fs::DirBuilder::new().mode(mode).create(at(name)).unwrap();
    fs::create_dir(&folder).unwrap();
    let stays = [
        ".emccd-hFILE",
        ".emccd-hLIVE",
        ".emccd-hNONE",
        ".emccd-hlonger",
        ".hDEAD",
    ];
    for name in stays.iter().chain(&[".emccd-hDEAD"]) {
        make(name, 0o700);
    }
    make(".emccd-hOPEN", 0o755);
    for name in [".emccd-hDEAD", ".emccd-hOPEN", ".emccd-hlonger", ".hDEAD"] {
        drop(Blocking::bind(at(name).join("s")).unwrap());
    }
    fs::write(at(".emccd-hFILE").join("s"), "somebody's").unwrap();
    let _waits = UnixListener::bind(at(".emccd-hLIVE").join("s")).unwrap();
    let elsewhere = outer.path().join("elsewhere");
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&elsewhere)
        .unwrap();
    drop(Blocking::bind(elsewhere.join("s")).unwrap());
    std::os::unix::fs::symlink(&elsewhere, at(".emccd-hLINK")).unwrap();
    let left = || {
        let entries = fs::read_dir(&folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let before = left();
    // One that is being made does not answer yet.
    clear_away(&folder, LEFT).await;
    assert_eq!(left(), before);
    clear_away(&folder, Duration::ZERO).await;
    let mut but_the_dead_one = before;
    assert!(but_the_dead_one.remove(".emccd-hDEAD"));
    assert_eq!(left(), but_the_dead_one);
    assert!(elsewhere.join("s").exists() && at(".emccd-hFILE").join("s").exists());
}
