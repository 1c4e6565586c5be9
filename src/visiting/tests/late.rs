//! Answers that come too late, and a store that does: the phone is told in time, and nothing is left behind.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    sync::mpsc,
};

use super::*;

const DEADLINE: Duration = Duration::from_millis(700);

/// A home whose answer to a login waits for the gate.
fn gated() -> (Script, Arc<Notify>) {
    let gate = Arc::new(Notify::new());
    let mut home = Script::new("berlin").finding(Ok(Ownership::Mine));
    home.gate = Some(Arc::clone(&gate));
    (home, gate)
}

async fn until_home_is_asked(world: &World) {
    while world.pins_sent() == 0 {
        tokio::task::yield_now().await;
    }
}

/// Whatever was asked of the store before is done.
async fn settled(world: &World) {
    world
        .store
        .write(|_: &mut dyn Transaction| Ok::<_, store::Error>(()))
        .await
        .unwrap();
}

async fn rows_on(world: &World, device: &str) -> Vec<State> {
    let filter = sessions::Filter {
        device: Some(DeviceName::new(device).unwrap()),
        ..sessions::Filter::default()
    };
    let rows = world
        .store
        .read(move |tx: &mut dyn Transaction| sessions::list(tx, &filter))
        .await
        .unwrap();
    rows.into_iter().map(|row| row.state).collect()
}

#[tokio::test]
async fn a_success_after_the_deadline_is_discarded_and_home_is_owed_the_end() {
    let (home, gate) = gated();
    let world = world(vec![home]).await;
    let late = async {
        until_home_is_asked(&world).await;
        world.time_goes_on(60_000).await;
        gate.notify_one();
    };
    let (failure, ()) = tokio::join!(world.login("SEP1", "ana"), late);
    let failure = failure.unwrap_err();
    assert_eq!(failure.code.number(), 40, "{failure}");
    assert!(failure.cause.contains("too late"), "{failure}");
    assert_eq!(rows_on(&world, "SEP1").await, [State::Ended]);
    assert_eq!(world.owed("berlin").await, 1);
    assert_eq!(world.audit().await, ["the answer came too late; given up"]);
}

/// A day forth or back: the login under way goes on, the phone is busy meanwhile, and the session lasts as long as it may.
#[tokio::test]
async fn a_wall_clock_that_is_set_ends_no_login_under_way_and_prolongs_none() {
    const DAY_MS: i64 = 86_400_000;
    for by in [DAY_MS, -DAY_MS] {
        let (home, gate) = gated();
        let world = world(vec![home]).await;
        let setting = async {
            until_home_is_asked(&world).await;
            world.clock.set_offset_millis(by);
            assert!(!world.free("SEP1").await, "{by}");
            pending::end_abandoned(&world.role.inner, &BTreeMap::new(), None)
                .await
                .unwrap();
            gate.notify_one();
        };
        let (done, ()) = tokio::join!(world.login("SEP1", "ana"), setting);
        let done = done.unwrap();
        let sep1 = DeviceName::new("SEP1").unwrap();
        let (row, now) = world
            .store
            .read(move |tx: &mut dyn Transaction| {
                let row = sessions::active_on_device(tx, Role::Visiting, &sep1)?;
                Ok::<_, store::Error>((row.unwrap(), tx.cluster_now()?))
            })
            .await
            .unwrap();
        assert_eq!(row.state, State::Active);
        let lasts = row.deadline.map(|until| until.since(now));
        let may = done
            .services
            .remaining
            .map(|left| left + sessions::AFTER_HOME);
        assert_eq!(lasts.is_some(), may.is_some());
        if let (Some(lasts), Some(may)) = (lasts, may) {
            assert!(
                lasts <= may && lasts + Duration::from_secs(60) > may,
                "{lasts:?}"
            );
        }
    }
}

/// A pending row whose carrier died stands until its deadline, whatever the wall clock says then.
#[tokio::test]
async fn a_wall_clock_set_back_keeps_no_dead_login_on_a_phone() {
    let mut silent = Script::new("berlin").finding(Ok(Ownership::Mine));
    silent.silent = true;
    let world = world(vec![silent]).await;
    let dying = async {
        until_home_is_asked(&world).await;
        world.clock.set_offset_millis(-86_400_000);
    };
    tokio::select! {
        biased;
        _ = world.login("SEP1", "ana") => panic!("home is silent"),
        () = dying => {}
    }
    world.time_goes_on(60_000).await;
    assert!(world.free("SEP1").await, "overdue");
    pending::end_abandoned(&world.role.inner, &BTreeMap::new(), None)
        .await
        .unwrap();
    assert_eq!(rows_on(&world, "SEP1").await, [State::Ended]);
}

async fn end_by_operator(world: &World) {
    let sep1 = DeviceName::new("SEP1").unwrap();
    let pending = world
        .store
        .read(move |tx: &mut dyn Transaction| sessions::active_on_device(tx, Role::Visiting, &sep1))
        .await;
    let id = pending.unwrap().unwrap().id;
    let ended = world.role.end(&cluster("berlin"), id, "user root").await;
    ended.unwrap();
}

#[tokio::test]
async fn a_success_for_a_row_that_has_ended_is_never_promoted() {
    let (home, gate) = gated();
    let world = world(vec![home]).await;
    let ending = async {
        until_home_is_asked(&world).await;
        end_by_operator(&world).await;
        gate.notify_one();
    };
    let (failure, ()) = tokio::join!(world.login("SEP1", "ana"), ending);
    assert_eq!(failure.unwrap_err().code.number(), 40);
    assert_eq!(rows_on(&world, "SEP1").await, [State::Ended]);
}

/// A store in a file, and the lock that another process could hold.
async fn shared_world(peers: Vec<Script>) -> (World, File, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("emccd.db");
    let url = format!("sqlite:{}", path.display());
    let world = world_on(&url, peers, Script::new("tokyo"), DEADLINE).await;
    let lock = OpenOptions::new()
        .write(true)
        .open(path.with_extension("write"))
        .unwrap();
    (world, lock, folder)
}

#[tokio::test]
async fn a_phone_is_told_in_time_that_the_store_is_stuck_and_nothing_is_left() {
    let berlin = Script::new("berlin").finding(Ok(Ownership::Mine));
    let (world, lock, _folder) = shared_world(vec![berlin]).await;
    lock.lock().unwrap();
    let began = Instant::now();
    let failure = world.login("SEP1", "ana").await.unwrap_err();
    assert!(began.elapsed() < DEADLINE * 3, "{:?}", began.elapsed());
    assert_eq!(failure.code.number(), 26, "{failure}");
    assert_eq!(failure.retry_after, Some(Duration::from_secs(1)));
    // Not one place is taken by those that wait no more.
    for _ in 0..3 {
        let failure = world.login("SEP1", "ana").await.unwrap_err();
        assert!(failure.cause.contains("lock"), "{failure}");
    }
    lock.unlock().unwrap();
    settled(&world).await;
    assert_eq!(rows_on(&world, "SEP1").await, []);
    assert_eq!(world.pins_sent(), 0);
    world.login("SEP1", "ana").await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_stuck_when_home_answers_leaves_the_phone_free_and_home_owed() {
    let (home, gate) = gated();
    let (world, lock, _folder) = shared_world(vec![home]).await;
    let stuck = async {
        until_home_is_asked(&world).await;
        lock.lock().unwrap();
        gate.notify_one();
    };
    let (failure, ()) = tokio::join!(world.login("SEP1", "ana"), stuck);
    assert_eq!(failure.unwrap_err().code.number(), 26);
    lock.unlock().unwrap();
    settled(&world).await;
    assert_eq!(rows_on(&world, "SEP1").await, [State::Ended]);
    assert!(world.free("SEP1").await);
    assert_eq!(world.owed("berlin").await, 1);
}

#[tokio::test]
async fn a_logout_that_the_store_is_too_slow_for_is_answered_and_carried_out() {
    let berlin = Script::new("berlin").finding(Ok(Ownership::Mine));
    let (world, lock, _folder) = shared_world(vec![berlin]).await;
    world.login("SEP1", "ana").await.unwrap();
    lock.lock().unwrap();
    let reference = world.role.new_ref();
    let failure = world
        .role
        .logout("SEP1", caller(), reference)
        .await
        .unwrap_err();
    assert_eq!(failure.code.number(), 26, "{failure}");
    lock.unlock().unwrap();
    settled(&world).await;
    assert!(world.free("SEP1").await);
    assert_eq!(world.owed("berlin").await, 1);
}

#[tokio::test]
async fn a_logout_that_comes_too_late_ends_nobodys_session_that_began_since() {
    let berlin = Script::new("berlin").finding(Ok(Ownership::Mine));
    let (world, lock, _folder) = shared_world(vec![berlin]).await;
    world.login("SEP1", "ana").await.unwrap();
    // As if another node had let them in after the logout failed.
    let later = "UPDATE sessions SET changed_at = changed_at + 60000";
    let began = world
        .store
        .write(move |tx: &mut dyn Transaction| tx.execute(later, &[]));
    began.await.unwrap();
    lock.lock().unwrap();
    let reference = world.role.new_ref();
    let failure = world.role.logout("SEP1", caller(), reference).await;
    assert_eq!(failure.unwrap_err().code.number(), 26);
    lock.unlock().unwrap();
    settled(&world).await;
    assert!(!world.free("SEP1").await);
    assert_eq!(world.owed("berlin").await, 0);
    // One that is in time ends it.
    let reference = world.role.new_ref();
    world
        .role
        .logout("SEP1", caller(), reference)
        .await
        .unwrap();
    assert!(world.free("SEP1").await);
}

/// The row becomes active in time, and its commit comes after the phone was told that it failed.
#[tokio::test]
async fn a_commit_that_comes_too_late_is_taken_back() {
    let (home, gate) = gated();
    let (world, _lock, _folder) = shared_world(vec![home]).await;
    let (open_first, first) = mpsc::channel::<()>();
    let (open_second, second) = mpsc::channel::<()>();
    let (started, in_store) = mpsc::channel::<()>();
    let hold = |wait: mpsc::Receiver<()>| {
        let started = started.clone();
        world.store.write(move |_: &mut dyn Transaction| {
            let _ = started.send(());
            let _ = wait.recv();
            Ok::<_, store::Error>(())
        })
    };
    // The first keeps the writer busy until the activation and the second stand in its queue. These two then
    // share a commit, which waits for the second; the first is in it too, or in one of its own.
    let steps = async {
        until_home_is_asked(&world).await;
        let mut one = std::pin::pin!(hold(first));
        assert!(futures_util::poll!(&mut one).is_pending());
        while in_store.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        gate.notify_one();
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        let mut two = std::pin::pin!(hold(second));
        assert!(futures_util::poll!(&mut two).is_pending());
        open_first.send(()).unwrap();
        while in_store.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
    };
    let (failure, ()) = tokio::join!(world.login("SEP1", "ana"), steps);
    assert_eq!(failure.unwrap_err().code.number(), 26);
    open_second.send(()).unwrap();
    settled(&world).await;
    let audit = world.audit().await;
    assert!(audit.contains(&"success".to_owned()), "{audit:?}");
    assert_eq!(rows_on(&world, "SEP1").await, [State::Ended]);
    assert!(world.free("SEP1").await);
    assert_eq!(world.owed("berlin").await, 1);
}

/// The pending row is made in time, and its commit comes after the phone was told that it failed.
#[tokio::test]
async fn a_login_whose_beginning_comes_too_late_is_over_before_anybody_asks() {
    let berlin = Script::new("berlin").finding(Ok(Ownership::Mine));
    let (world, _lock, _folder) = shared_world(vec![berlin]).await;
    let (open_first, first) = mpsc::channel::<()>();
    let (open_second, second) = mpsc::channel::<()>();
    let (started, in_store) = mpsc::channel::<()>();
    let hold = |wait: mpsc::Receiver<()>| {
        let started = started.clone();
        world.store.write(move |_: &mut dyn Transaction| {
            let _ = started.send(());
            let _ = wait.recv();
            Ok::<_, store::Error>(())
        })
    };
    let until_in_store = async || {
        while in_store.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
    };
    // The first keeps the writer busy until the row stands in its queue, and the second keeps the commit that has it.
    let mut one = std::pin::pin!(hold(first));
    assert!(futures_util::poll!(&mut one).is_pending());
    until_in_store().await;
    let steps = async {
        while world.store.stats().waiting_writes == 0 {
            tokio::task::yield_now().await;
        }
        let mut two = std::pin::pin!(hold(second));
        assert!(futures_util::poll!(&mut two).is_pending());
        open_first.send(()).unwrap();
        until_in_store().await;
    };
    let (failure, ()) = tokio::join!(world.login("SEP1", "ana"), steps);
    assert_eq!(failure.unwrap_err().code.number(), 26);
    open_second.send(()).unwrap();
    settled(&world).await;
    assert_eq!(rows_on(&world, "SEP1").await, [State::Ended]);
    assert!(world.free("SEP1").await);
    assert_eq!(world.pins_sent(), 0);
    assert_eq!(world.owed("berlin").await, 0, "it never heard of it");
    world.login("SEP1", "ana").await.unwrap();
}

/// A gated home that asks which profile.
fn gated_asking() -> (Script, Arc<Notify>) {
    let (home, gate) = gated();
    *home.choice.lock().unwrap() = Some(ProfileChoice {
        profiles: vec![ProfileName::new("desk").unwrap()],
        ticket: crate::secret::Ticket::from_bytes([7; 16]),
    });
    (home, gate)
}

/// What the phone would bring back for that page.
async fn chosen(world: &World) -> u16 {
    let choice = PhoneChoice {
        device: "SEP1".to_owned(),
        ticket: Some(crate::secret::Ticket::from_bytes([7; 16])),
        entry: 0,
        emcc: true,
        caller: caller(),
        reference: world.role.new_ref(),
    };
    let failure = world.role.choose(choice).await.unwrap_err();
    failure.code.number()
}

#[tokio::test]
async fn a_question_after_the_deadline_is_not_shown() {
    let (home, gate) = gated_asking();
    let world = world(vec![home]).await;
    let late = async {
        until_home_is_asked(&world).await;
        world.time_goes_on(60_000).await;
        gate.notify_one();
    };
    let (failure, ()) = tokio::join!(world.login("SEP1", "ana"), late);
    assert_eq!(failure.unwrap_err().code.number(), 40);
    assert_eq!(rows_on(&world, "SEP1").await, [State::Ended]);
    assert_eq!(world.audit().await, ["the answer came too late; given up"]);
    assert_eq!(chosen(&world).await, 201, "nothing is remembered of it");
}

#[tokio::test]
async fn a_question_for_a_login_that_an_operator_has_ended_is_not_shown() {
    let (home, gate) = gated_asking();
    let world = world(vec![home]).await;
    let ending = async {
        until_home_is_asked(&world).await;
        end_by_operator(&world).await;
        gate.notify_one();
    };
    let (failure, ()) = tokio::join!(world.login("SEP1", "ana"), ending);
    assert_eq!(failure.unwrap_err().code.number(), 40);
    assert_eq!(rows_on(&world, "SEP1").await, [State::Ended]);
    assert_eq!(chosen(&world).await, 201, "nothing is remembered of it");
}

#[tokio::test]
async fn a_store_that_is_stuck_when_home_asks_leaves_the_phone_free() {
    let (home, gate) = gated_asking();
    let (world, lock, _folder) = shared_world(vec![home]).await;
    let stuck = async {
        until_home_is_asked(&world).await;
        lock.lock().unwrap();
        gate.notify_one();
    };
    let (failure, ()) = tokio::join!(world.login("SEP1", "ana"), stuck);
    assert_eq!(failure.unwrap_err().code.number(), 26);
    lock.unlock().unwrap();
    settled(&world).await;
    assert_eq!(rows_on(&world, "SEP1").await, [State::Ended]);
    assert!(world.free("SEP1").await);
}

/// What comes of a login while `meanwhile` happens, once home has been asked.
async fn login_while(
    world: &World,
    gate: &Notify,
    meanwhile: impl AsyncFnOnce(&Incarnation),
) -> Result<(), u32> {
    let carrier = world.role.inner.membership.run().clone();
    let happens = async {
        until_home_is_asked(world).await;
        meanwhile(&carrier).await;
        gate.notify_one();
    };
    let (shown, ()) = tokio::join!(world.login("SEP1", "ana"), happens);
    shown
        .map(drop)
        .map_err(|failure| u32::from(failure.code.number()))
}

#[tokio::test]
async fn a_start_gives_up_the_logins_of_the_run_that_stood_on_record_and_of_no_other() {
    let (home, gate) = gated();
    let own = world(vec![home]).await;
    // It drains, off the record; what stood there since has died.
    let drains = login_while(&own, &gate, async |carrier: &Incarnation| {
        let since = Incarnation {
            instance: "another".to_owned(),
            ..carrier.clone()
        };
        own.role.end_left_behind(&since).await.unwrap();
    });
    assert_eq!(drains.await, Ok(()));
    let (home, gate) = gated();
    let own = world(vec![home]).await;
    let was_killed = login_while(&own, &gate, async |carrier: &Incarnation| {
        own.role.end_left_behind(carrier).await.unwrap();
    });
    assert_eq!(was_killed.await, Err(40));
}

#[tokio::test]
async fn a_run_that_has_beaten_since_it_was_taken_for_dead_keeps_its_logins() {
    for (beats, outcome) in [(1, Ok(())), (0, Err(40))] {
        let (home, gate) = gated();
        let own = world(vec![home]).await;
        let inner = &own.role.inner;
        inner.membership.join().await.unwrap();
        let seen = login_while(&own, &gate, async |carrier: &Incarnation| {
            let dead = [(carrier.clone(), 0)].into();
            for _ in 0..beats {
                let run = carrier.clone();
                let beat = inner
                    .store
                    .write(move |tx: &mut dyn Transaction| store::nodes::beat(tx, &run));
                beat.await.unwrap();
            }
            pending::end_abandoned(inner, &dead, None).await.unwrap();
        });
        assert_eq!(seen.await, outcome);
    }
}

/// Its node died in the midst of the login. Who tries again at another one, on that phone or on another, is not in the way
/// of what was left behind: home is told with the login that it is over.
#[tokio::test]
async fn what_a_dead_node_has_left_behind_is_over_for_the_next_login() {
    for device in ["SEP1", "SEP2"] {
        let (home, gate) = gated();
        let own = world(vec![home]).await;
        let membership = &own.role.inner.membership;
        membership.join().await.unwrap();
        let next = async {
            until_home_is_asked(&own).await;
            membership.take_for_dead([(membership.run().clone(), 0)].into());
            let answers = async {
                while own.pins_sent() < 2 {
                    tokio::task::yield_now().await;
                }
                let told = own.peers[0].supersedes.lock().unwrap().len();
                loop {
                    gate.notify_one();
                    tokio::task::yield_now().await;
                    if rows_on(&own, device).await.contains(&State::Active) {
                        return told;
                    }
                }
            };
            tokio::join!(own.login(device, "ana"), answers)
        };
        let (left, (next, told)) = tokio::join!(own.login("SEP1", "ana"), next);
        assert_eq!(left.unwrap_err().code.number(), 40, "{device}");
        next.unwrap();
        assert_eq!(told, 1, "{device}: home is told of the one that was left");
        assert!(!own.free(device).await, "{device}");
    }
}

/// A dead run begins nothing while its beat stands: who meets it later need not look through what is under way.
#[tokio::test]
async fn what_a_dead_node_has_left_behind_is_looked_for_once_for_each_beat_of_it() {
    let berlin = Script::new("berlin").finding(Ok(Ownership::Mine));
    let own = world(vec![berlin]).await;
    let membership = &own.role.inner.membership;
    let run = Incarnation {
        node: "n2".to_owned(),
        instance: "b".to_owned(),
    };
    let node = store::nodes::Node {
        run: run.clone(),
        ..membership.node().clone()
    };
    let registering = own
        .store
        .write(move |tx: &mut dyn Transaction| store::nodes::register(tx, &node));
    registering.await.unwrap();
    let carries = async |device: &'static str| {
        let run = run.clone();
        let begun = own.store.write(move |tx: &mut dyn Transaction| {
            let now = tx.cluster_now()?;
            let row = sessions::Session {
                role: Role::Visiting,
                counterpart: cluster("berlin"),
                id: SessionId::from_uuid(uuid::Uuid::now_v7()),
                state: State::Pending,
                device: DeviceName::new(device).unwrap(),
                user_id: None,
                login_type: LoginType::Uid,
                login_name: crate::domain::ids::LoginName::new("bob").unwrap(),
                profile: None,
                base_device: None,
                services: None,
                reference: Ref::from_bits(1),
                created_at: now,
                deadline: Some(now.plus(Duration::from_secs(60))),
                changed_at: now,
                ended_at: None,
                end_reason: None,
                initiator: None,
                owed: false,
                parked: None,
                parked_at: None,
            };
            sessions::insert_pending(tx, &row, &run)
        });
        begun.await.unwrap();
    };
    let logs_in = async |beat| {
        membership.take_for_dead([(run.clone(), beat)].into());
        own.login("SEP1", "ana").await.unwrap();
        let reference = own.role.new_ref();
        let out = own.role.logout("SEP1", caller(), reference).await;
        out.unwrap();
    };
    carries("SEP2").await;
    logs_in(0).await;
    assert_eq!(rows_on(&own, "SEP2").await, [State::Ended]);
    // As nothing of it can come to be: so it shows that nobody looks.
    carries("SEP2").await;
    logs_in(0).await;
    assert!(!own.free("SEP2").await);
    // It lived on, and died anew.
    let beaten = run.clone();
    let beat = own
        .store
        .write(move |tx: &mut dyn Transaction| store::nodes::beat(tx, &beaten));
    beat.await.unwrap();
    logs_in(1).await;
    assert!(own.free("SEP2").await);
    // And whoever sweeps looks each time.
    carries("SEP2").await;
    let dead = [(run.clone(), 1)].into();
    pending::end_abandoned(&own.role.inner, &dead, None)
        .await
        .unwrap();
    assert!(own.free("SEP2").await);
}
