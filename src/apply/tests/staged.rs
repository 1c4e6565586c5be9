//! Many rows: they wait where nobody sees them, and all of them are there at once.

use std::{path::Path, time::Duration};

use super::*;
use crate::{
    domain::policy::{BUILT_IN, Person},
    store::{
        audit, imports,
        sessions::{self, Session},
        users::User,
    },
};

/// In a file, where reading and writing go on side by side.
fn world_in(dir: &Path) -> World {
    let store = Store::open(&store::Config {
        url: format!("sqlite:{}", dir.join("emccd.db").display()),
        node: "n1".to_owned(),
    })
    .unwrap();
    let mut world = world();
    world.applier.store = store.clone();
    world.applier.at_once_from = 0;
    world.store = store;
    world
}

fn users_file(count: usize, extension: &str) -> Source {
    let mut text = "id,self-service-id,extension\n".to_owned();
    for number in 0..count {
        text += &format!("user{number:05},self{number},{extension}\n");
    }
    Source {
        name: "users.csv".to_owned(),
        text: text.into(),
    }
}

impl World {
    async fn begun(&self) -> Vec<imports::Begun> {
        let list = |tx: &mut dyn Transaction| imports::list(tx);
        self.store.read(list).await.unwrap()
    }

    async fn waiting(&self) -> usize {
        let count = |tx: &mut dyn Transaction| {
            let rows = tx.query("SELECT seq FROM import_rows", &[])?;
            Ok::<_, store::Error>(rows.len())
        };
        self.store.read(count).await.unwrap()
    }

    async fn audited(&self) -> Vec<audit::Recorded> {
        let list = |tx: &mut dyn Transaction| audit::list(tx, 100_000);
        self.store.read(list).await.unwrap()
    }
}

/// A login's two transactions, in miniature.
async fn log_in(store: &Store, number: u8) {
    let mut session: Session = super::prune::session(
        crate::domain::session::Role::Home,
        &format!("SEPFAR{number}"),
    );
    session.id = crate::domain::ids::SessionId::from_bytes(&[number; 16]).unwrap();
    session.user_id = None;
    store
        .write(move |tx: &mut dyn Transaction| sessions::insert(tx, &session))
        .await
        .unwrap();
}

/// Runs an import until it is at a step.
async fn until(told: &mut watch::Receiver<Progress>, step: Step) {
    told.wait_for(|progress| progress.step == step && (progress.done > 0 || progress.of == 0))
        .await
        .unwrap();
}

#[tokio::test]
async fn logins_get_through_while_rows_wait_and_nobody_sees_them() {
    let dir = tempfile::tempdir().unwrap();
    let world = world_in(dir.path());
    let files = [users_file(6_000, "1")];
    let (tell, mut told) = watch::channel(Progress::begin());
    let importing =
        world
            .applier
            .apply_telling(&files, Mode::Write, Rest::Stays, "user root", &tell);
    let meanwhile = async {
        until(&mut told, Step::Staging).await;
        for number in 1..=4 {
            log_in(&world.store, number).await;
        }
        (world.count_users().await, world.begun().await.len())
    };
    tokio::pin!(importing);
    // Four commits of others are through, and the import is not.
    let seen = tokio::select! {
        biased;
        seen = meanwhile => seen,
        done = &mut importing => panic!("the import was first: {:?}", done.map(|c| c.len())),
    };
    assert_eq!(seen, (0, 1));
    assert_eq!(importing.await.unwrap().len(), 6_000);
    let all = |tx: &mut dyn Transaction| users::list(tx, None, 10_000);
    assert_eq!(world.store.read(all).await.unwrap().len(), 6_000);
    assert_eq!((world.begun().await.len(), world.waiting().await), (0, 0));
    // The audit has the whole, and each.
    let audited = world.audited().await;
    assert_eq!(audited.len(), 6_001);
    let import = audited.iter().find(|r| r.action == "data.import").unwrap();
    assert_eq!(import.outcome, "6000 user added; each follows");
    assert!(
        audited.iter().any(|r| {
            (&*r.action, &*r.subject, &*r.outcome) == ("user.add", "user05999", "added")
        })
    );
    assert!(world.store.verify().await.unwrap().is_intact());
}

#[tokio::test]
async fn an_import_that_is_broken_off_changed_nothing_and_its_rest_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let world = world_in(dir.path());
    let files = [users_file(3_000, "1")];
    for step in [Step::Comparing, Step::Staging] {
        let (tell, mut told) = watch::channel(Progress::begin());
        let importing =
            world
                .applier
                .apply_telling(&files, Mode::Write, Rest::Stays, "user root", &tell);
        tokio::select! {
            biased;
            () = until(&mut told, step) => {}
            done = importing => panic!("it was done: {:?}", done.map(|c| c.len())),
        }
        assert_eq!(world.count_users().await, 0);
    }
    assert_eq!(world.begun().await.len(), 1);
    assert!(world.waiting().await >= 1_000);
    // While it might still go on, it is left alone; the next start of the node knows better.
    world.applier.sweep(false, &[]).await.unwrap();
    assert_eq!(world.begun().await.len(), 1);
    world.applier.sweep(true, &[]).await.unwrap();
    assert_eq!((world.begun().await.len(), world.waiting().await), (0, 0));
    assert_eq!(world.audited().await, []);
}

/// Whoever asked for it leaves at a step from which it can't be stopped: it is carried on to its end.
#[tokio::test]
async fn an_import_that_is_in_place_needs_its_caller_no_longer() {
    for step in [Step::Switching, Step::Recording] {
        let dir = tempfile::tempdir().unwrap();
        let world = world_in(dir.path());
        let files = [users_file(3_000, "1")];
        let (tell, mut told) = watch::channel(Progress::begin());
        {
            let how = (Mode::Write, Rest::Stays);
            let importing = world
                .applier
                .apply_telling(&files, how.0, how.1, "user root", &tell);
            tokio::select! {
                biased;
                () = until(&mut told, step) => {}
                done = importing => panic!("it was done: {:?}", done.map(|c| c.len())),
            }
        }
        drop(tell);
        // The task has the last sender.
        while told.changed().await.is_ok() {}
        assert_eq!(world.audited().await.len(), 3_001, "{step:?}");
        assert_eq!((world.begun().await.len(), world.waiting().await), (0, 0));
        assert!(world.store.verify().await.unwrap().is_intact());
    }
}

/// What a node that ends in the middle leaves, it finds when it starts, and the others when it is dead.
#[tokio::test]
async fn an_import_that_is_in_place_is_told_to_the_audit_also_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let world = world_in(dir.path());
    let files = [users_file(3_000, "1")];
    // A node that shuts down tells no more.
    world.applier.tasks.cancel();
    let applied = world
        .applier
        .apply(&files, Mode::Write, Rest::Stays, "user root");
    assert_eq!(applied.await.unwrap().len(), 3_000);
    assert_eq!(
        (world.begun().await.len(), world.waiting().await),
        (1, 3_000)
    );
    let other = Store::open(&store::Config {
        url: format!("sqlite:{}", dir.path().join("emccd.db").display()),
        node: "n2".to_owned(),
    })
    .unwrap();
    let applier = Applier {
        store: other,
        tasks: Tasks::default(),
        ..world.applier.clone()
    };
    let dead = std::sync::Mutex::new(Vec::new());
    applier.sweep(true, &[]).await.unwrap();
    assert_eq!(world.waiting().await, 3_000, "it may live");
    dead.lock().unwrap().push("n1".to_owned());
    // Both come to an end when the other one's node is told to end.
    let swept = applier.keep_swept(|| dead.lock().unwrap().clone());
    let seen = async {
        while world.waiting().await > 0 {
            tokio::task::yield_now().await;
        }
        applier.tasks.cancel();
    };
    tokio::join!(swept, seen);
    assert_eq!(world.audited().await.len(), 3_001);
    assert_eq!(world.begun().await.len(), 0);
    assert!(world.store.verify().await.unwrap().is_intact());
}

/// Staging takes longest: it is not done anew for each edit by somebody else.
#[tokio::test]
async fn what_waits_is_used_again_where_others_have_changed_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let world = world_in(dir.path());
    let files = [users_file(6_000, "1")];
    let (tell, mut told) = watch::channel(Progress::begin());
    let importing =
        world
            .applier
            .apply_telling(&files, Mode::Write, Rest::Stays, "user root", &tell);
    let editing = async {
        until(&mut told, Step::Staging).await;
        let other = User {
            user_id: UserId::new("other").unwrap(),
            self_service_id: None,
            primary_extension: None,
            display_name: "Somebody else".to_owned(),
            enabled: true,
            emcc_enabled: true,
            policy: None,
        };
        let put = move |tx: &mut dyn Transaction| users::upsert(tx, &other);
        world.store.write(put).await.unwrap();
    };
    let (changes, ()) = tokio::join!(importing, editing);
    assert_eq!(changes.unwrap().len(), 6_000);
    let audited = world.audited().await;
    let import = audited.iter().find(|r| r.action == "data.import").unwrap();
    assert_eq!(import.subject, "1", "it is the first one that waited");
    assert_eq!(audited.len(), 6_001);
    assert_eq!((world.begun().await.len(), world.waiting().await), (0, 0));
}

#[tokio::test]
async fn what_others_change_meanwhile_is_compared_again() {
    let dir = tempfile::tempdir().unwrap();
    let world = world_in(dir.path());
    world
        .apply(&user_row("bob", "other"), Mode::Write)
        .await
        .unwrap();
    let files = [users_file(3_000, "1")];
    let (tell, mut told) = watch::channel(Progress::begin());
    let importing =
        world
            .applier
            .apply_telling(&files, Mode::Write, Rest::Stays, "user root", &tell);
    let meanwhile = async {
        until(&mut told, Step::Staging).await;
        let user = User {
            user_id: UserId::new("USER00007").unwrap(),
            self_service_id: None,
            primary_extension: None,
            display_name: "Seven".to_owned(),
            enabled: false,
            emcc_enabled: true,
            policy: None,
        };
        let put = move |tx: &mut dyn Transaction| users::upsert(tx, &user);
        world.store.write(put).await.unwrap();
    };
    let (changes, ()) = tokio::join!(importing, meanwhile);
    let changes = changes.unwrap();
    let seven = changes.iter().find(|c| c.name == "user00007").unwrap();
    assert_eq!(seven.action, Action::Changed, "it was compared anew");
    assert_eq!((world.begun().await.len(), world.waiting().await), (0, 0));
    let again = world
        .applier
        .apply(&files, Mode::Write, Rest::Goes, "user root")
        .await
        .unwrap();
    let others: Vec<_> = again
        .iter()
        .filter(|c| c.action != Action::Unchanged)
        .map(|c| (&*c.name, c.action))
        .collect();
    assert_eq!(others, [("bob", Action::Removed)]);
}

#[tokio::test]
async fn many_rows_hand_over_change_go_and_are_taken_back_as_few_do() {
    let dir = tempfile::tempdir().unwrap();
    let world = world_in(dir.path());
    let hash = {
        let pin = Pin::new("246809".to_owned()).unwrap();
        let far = Instant::now() + Duration::from_secs(60);
        world.applier.credentials.hash(&pin, far).await.unwrap()
    };
    let row = |id: &str, own: &str, more: &str| {
        format!("[[user]]\nid = \"{id}\"\nself-service-id = \"{own}\"\n{more}\n")
    };
    let with_hash = format!("pin-hash = \"{}\"", hash.as_str());
    let first = row("a", "x", &with_hash) + &row("b", "y", "") + &row("c", "z", "");
    let whole = first
        + "[[device]]\nname = \"SEP1\"\n[[base-device]]\nname = \"E\"\ncount = 3\n\
                         [[profile]]\nname = \"p\"\nuser = \"A\"\n";
    let told = world.apply(&whole, Mode::DryRun).await.unwrap();
    assert_eq!((world.count_users().await, world.waiting().await), (0, 0));
    assert_eq!(world.apply(&whole, Mode::Write).await.unwrap(), told);
    let ana = world
        .store
        .read(|tx: &mut dyn Transaction| stored::get(tx, &UserId::new("A").unwrap()));
    assert_eq!(ana.await.unwrap().unwrap().phc, hash);
    // Two swap, one goes and leaves its own to a new one.
    let second = row("a", "y", "enabled = false") + &row("b", "x", "") + &row("d", "z", "");
    let source = Source {
        name: "data.toml".to_owned(),
        text: second.into(),
    };
    let changes = world
        .applier
        .apply(&[source], Mode::Write, Rest::Goes, "user root")
        .await
        .unwrap();
    let told: Vec<_> = changes.iter().map(|c| (&*c.name, c.action)).collect();
    assert_eq!(
        told,
        [
            ("a", Action::Changed),
            ("b", Action::Changed),
            ("d", Action::Added),
            ("c", Action::Removed)
        ]
    );
    let revocations = |tx: &mut dyn Transaction| store::meta::get(tx, users::REVOCATIONS);
    assert_eq!(
        world.store.read(revocations).await.unwrap().as_deref(),
        Some("2"),
        "one is disabled, one is gone"
    );
}

/// Hashes of an import take their turn with those of logins.
#[tokio::test]
async fn a_login_is_checked_while_pins_are_hashed() {
    let mut world = world();
    let config = credentials::Config {
        memory_kib: 8,
        iterations: 1,
        workers: 1,
        ..credentials::Config::default()
    };
    let shared = Credentials::new(&config, crate::secret::Secret::new(vec![1; 32])).unwrap();
    world.applier.credentials = shared.clone();
    let pin = Pin::new("246809".to_owned()).unwrap();
    let far = Instant::now() + Duration::from_secs(60);
    let known = shared.hash(&pin, far).await.unwrap();
    let pins = (100_000..).map(|n: u32| n.to_string());
    let good = pins.filter(|pin| BUILT_IN.violations(pin, &Person::default()).is_empty());
    let text: String = (0..400)
        .zip(good)
        .map(|(n, pin)| format!("[[user]]\nid = \"u{n}\"\npin = \"{pin}\"\n"))
        .collect();
    let files = [Source {
        name: "data.toml".to_owned(),
        text: text.into(),
    }];
    let (tell, mut told) = watch::channel(Progress::begin());
    let phone = crate::admission::Source::of(crate::admission::Party::Phones, None);
    let importing =
        world
            .applier
            .apply_telling(&files, Mode::Write, Rest::Stays, "user root", &tell);
    let meanwhile = async {
        until(&mut told, Step::Hashing).await;
        for _ in 0..3 {
            let stored = Some(known.clone());
            assert!(shared.verify(&pin, stored, &phone, far).await.unwrap());
        }
        *told.borrow()
    };
    tokio::pin!(importing);
    let progress = tokio::select! {
        biased;
        progress = meanwhile => progress,
        done = &mut importing => panic!("the import was first: {:?}", done.map(|c| c.len())),
    };
    assert_eq!((progress.step, progress.of), (Step::Hashing, 400));
    assert!(progress.left(Instant::now()).is_some());
    assert_eq!(importing.await.unwrap().len(), 400);
}
