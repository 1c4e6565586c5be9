//! What every engine must do: tests as functions over a [`Store`], run by each engine's own tests.

use std::{
    collections::BTreeMap,
    sync::{Mutex, mpsc},
    time::Duration,
};

use futures_util::future::{join, join_all};

use crate::{
    clock::Timestamp,
    domain::{
        ids::{
            BaseDeviceName, ClusterId, DeviceName, DevicePoolName, LoginName, ProfileName, Ref,
            SessionId, UserId,
        },
        login::{CallManager, HomeServices, Line, LoginType, SecurityMode},
        session::{EndReason, Initiator, Role, State},
    },
    store::{
        Error, Store, Transaction,
        answers::{self, Answer},
        audit::{self, Entry, Fault},
        base_devices,
        credentials::{self, Phc},
        devices::{self, Device},
        hints, meta,
        peers::{self, Peer},
        pools::{self, DevicePool},
        profiles::{self, Profile},
        sessions::{self, Filter, Session},
        trust_entries::{self, EntryKind, TrustEntry},
        users::{self, User},
    },
};

/// Runs each test of the suite on a database of its own that `$open` makes.
macro_rules! run_suite {
    ($engine:ident, $open:expr, [$($test:ident),+ $(,)?]) => {
        mod $engine {
            $(#[tokio::test]
            async fn $test() {
                let (store, _keep) = $open;
                $crate::store::suite::$test(&store).await;
            })+
        }
    };
}
pub(super) use run_suite;

/// The tests, for [`run_suite`].
macro_rules! each_engine_must {
    ($engine:ident, $open:expr) => {
        $crate::store::suite::run_suite!(
            $engine,
            $open,
            [
                a_base_device_is_held_by_one_active_session,
                a_changed_missing_or_cut_off_audit_entry_is_found,
                a_failed_statement_undoes_itself_only,
                a_leaf_is_pinned_for_one_peer_only,
                a_panic_is_an_error_for_its_operation_only,
                a_phone_has_one_session_per_role,
                a_read_changes_nothing,
                a_tombstone_ends_what_is_known_and_what_is_not,
                answers_stay_as_first_given,
                commits_are_announced,
                concurrent_increments_are_not_lost,
                ends_are_owed_in_order_until_acknowledged,
                hints_follow_the_last_success,
                names_differ_by_more_than_case,
                only_overdue_pending_sessions_are_overdue,
                operations_that_wait_share_a_commit,
                records_come_back_as_written,
                sessions_are_listed_by_filter,
                setting_a_hash_forgets_failures,
                states_move_forward_only_from_where_they_are_expected,
                users_are_found_by_each_kind_of_name,
                what_fails_undoes_itself_and_not_its_neighbours,
            ]
        );
    };
}
pub(super) use each_engine_must;

pub(super) fn cluster(text: &str) -> ClusterId {
    ClusterId::new(text).unwrap()
}

pub(super) fn device_name(text: &str) -> DeviceName {
    DeviceName::new(text).unwrap()
}

pub(super) fn session_id(n: u8) -> SessionId {
    SessionId::from_bytes(&[n; 16]).unwrap()
}

pub(super) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn user_id(text: &str) -> UserId {
    UserId::new(text).unwrap()
}

fn name(text: &str) -> LoginName {
    LoginName::new(text).unwrap()
}

fn base(text: &str) -> BaseDeviceName {
    BaseDeviceName::new(text).unwrap()
}

fn user(id: &str, extension: Option<&str>, self_service: Option<&str>) -> User {
    User {
        user_id: user_id(id),
        self_service_id: self_service.map(name),
        primary_extension: extension.map(name),
        display_name: format!("{id} the user"),
        enabled: true,
        emcc_enabled: false,
    }
}

pub(super) fn session(role: Role, n: u8, device: &str, state: State) -> Session {
    Session {
        role,
        counterpart: cluster("berlin"),
        id: session_id(n),
        state,
        device: device_name(device),
        user_id: Some(user_id("Anna")),
        login_type: LoginType::Uid,
        login_name: name("anna"),
        profile: None,
        base_device: None,
        services: None,
        reference: Ref::from_bits(u64::from(n)),
        created_at: at(1_000 + i64::from(n)),
        deadline: None,
        ended_at: None,
        end_reason: None,
        initiator: None,
        owed: false,
    }
}

fn services() -> HomeServices {
    HomeServices {
        user_id: user_id("anna"),
        profile: ProfileName::new("Anna's profile").unwrap(),
        base_device: Some(base("EMCC001")),
        call_managers: vec![CallManager {
            host: "cm1".into(),
            priority: 0,
        }],
        tftp_servers: vec!["tftp1".into()],
        device_pool: None,
        lines: vec![],
        locale: Some("de_DE".into()),
        remaining: Some(Duration::from_secs(36_000)),
        reset: true,
        restart_reason: None,
    }
}

fn entry(n: i64) -> Entry {
    Entry {
        at: at(n),
        actor: "phone SEP1".into(),
        action: "session.login",
        subject: "anna".into(),
        outcome: "done".into(),
        reference: Some(Ref::from_bits(7)),
    }
}

/// Adds one to a number under `key`: a read and a write that belong together.
pub(super) fn increment(tx: &mut dyn Transaction, key: &str) -> Result<i64, Error> {
    let value = meta::get(tx, key)?.map_or(0, |text| text.parse().unwrap()) + 1;
    meta::put(tx, key, &value.to_string())?;
    Ok(value)
}

async fn put(store: &Store, row: Session) -> Result<(), Error> {
    store.write(move |tx| sessions::insert(tx, &row)).await
}

async fn fetch(store: &Store, role: Role, n: u8) -> Session {
    store
        .read(move |tx| sessions::get(tx, role, &cluster("berlin"), session_id(n)))
        .await
        .unwrap()
        .unwrap()
}

pub(super) async fn records_come_back_as_written(store: &Store) {
    let place = BTreeMap::from([("country".to_owned(), "DE".to_owned())]);
    let pool_name = DevicePoolName::new("Berlin pool").unwrap();
    let anna = user("Anna", Some("4711"), Some("5000"));
    let device = Device {
        name: device_name("SEP001"),
        model: "Cisco 8845".into(),
        protocol: "SIP".into(),
        security_mode: SecurityMode::Secure,
        emcc: true,
        em_enabled: false,
        device_pool: Some(pool_name.clone()),
        geolocation: place.clone(),
    };
    let profile = Profile {
        name: ProfileName::new("Anna's profile").unwrap(),
        user_id: user_id("Anna"),
        is_default: true,
        lines: vec![Line {
            index: 1,
            number: "4711".into(),
            label: String::new(),
        }],
        locale: None,
        device_pool: Some(pool_name.clone()),
    };
    let pool = DevicePool {
        name: pool_name.clone(),
        geolocation: place,
        call_managers: services().call_managers,
        tftp_servers: vec!["tftp1".into()],
        roaming: true,
    };
    let peer = Peer {
        cluster_id: cluster("tokyo"),
        enabled: true,
        allow_emcc: false,
        addresses: vec!["t1:8444".into()],
        node_names: vec!["t1".into()],
        user_patterns: vec!["*@tokyo".into()],
        dn_patterns: vec!["81*".into()],
        ignore_eku: true,
        description: "far away".into(),
    };
    let mut whole = session(Role::Home, 1, "SEP001", State::Active);
    whole.profile = Some(profile.name.clone());
    whole.base_device = Some(base("EMCC001"));
    whole.services = Some(services());
    whole.deadline = Some(at(9));
    let written = (
        anna.clone(),
        device.clone(),
        profile.clone(),
        pool.clone(),
        peer.clone(),
        whole.clone(),
    );
    store
        .write(move |tx| {
            let (anna, device, profile, pool, peer, whole) = &written;
            users::upsert(tx, anna)?;
            devices::upsert(tx, device)?;
            profiles::upsert(tx, profile)?;
            pools::upsert(tx, pool)?;
            peers::upsert(tx, peer)?;
            sessions::insert(tx, whole)
        })
        .await
        .unwrap();
    store
        .read::<_, Error>(move |tx| {
            assert_eq!(users::get(tx, &anna.user_id)?.as_ref(), Some(&anna));
            assert_eq!(devices::get(tx, &device.name)?.as_ref(), Some(&device));
            assert_eq!(devices::list(tx, None, 10)?, vec![device.clone()]);
            assert_eq!(
                profiles::for_user(tx, &anna.user_id)?,
                vec![profile.clone()]
            );
            assert_eq!(profiles::list(tx)?, vec![profile.clone()]);
            assert_eq!(pools::get(tx, &pool_name)?.as_ref(), Some(&pool));
            assert_eq!(pools::list(tx)?.len(), 1);
            assert_eq!(peers::get(tx, &peer.cluster_id)?.as_ref(), Some(&peer));
            assert_eq!(peers::list(tx)?, vec![peer.clone()]);
            assert_eq!(
                sessions::get(tx, Role::Home, &whole.counterpart, whole.id)?.as_ref(),
                Some(&whole)
            );
            Ok(())
        })
        .await
        .unwrap();
    // What hangs on a user goes with them.
    store
        .write::<_, Error>(|tx| {
            assert!(users::remove(tx, &user_id("anna"))?);
            assert!(!users::remove(tx, &user_id("anna"))?);
            assert!(profiles::list(tx)?.is_empty());
            assert!(devices::remove(tx, &device_name("sep001"))?);
            assert!(peers::remove(tx, &cluster("tokyo"))?);
            assert!(pools::remove(
                tx,
                &DevicePoolName::new("Berlin pool").unwrap()
            )?);
            Ok(())
        })
        .await
        .unwrap();
}

pub(super) async fn names_differ_by_more_than_case(store: &Store) {
    store
        .write::<_, Error>(|tx| {
            users::upsert(tx, &user("Anna", None, None))?;
            users::upsert(tx, &user("ANNA", None, None))?;
            users::upsert(tx, &user("Änne", None, None))?;
            users::upsert(tx, &user("änne", None, None))?;
            base_devices::upsert(tx, &base("EMCC1"))?;
            base_devices::upsert(tx, &base("emcc1"))
        })
        .await
        .unwrap();
    store
        .read::<_, Error>(|tx| {
            let ids: Vec<String> = users::list(tx, None, 10)?
                .into_iter()
                .map(|u| u.user_id.to_string())
                .collect();
            // ASCII only: what lies beyond is compared as it is.
            assert_eq!(ids, ["ANNA", "Änne", "änne"]);
            assert_eq!(
                users::list(tx, Some("Anna"), 1)?[0].user_id.as_str(),
                "Änne"
            );
            assert_eq!(base_devices::list(tx)?, [(base("EMCC1"), None)]);
            Ok(())
        })
        .await
        .unwrap();
}

pub(super) async fn users_are_found_by_each_kind_of_name(store: &Store) {
    store
        .write(|tx| {
            users::upsert(tx, &user("Anna", Some("4711"), Some("5000")))?;
            users::upsert(tx, &user("ben", Some("4711"), Some("5001")))
        })
        .await
        .unwrap();
    store
        .read::<_, Error>(|tx| {
            let mut found = |kind, text: &str| users::find(tx, kind, &name(text)).map(|u| u.len());
            assert_eq!(found(LoginType::Uid, "aNNa")?, 1);
            assert_eq!(found(LoginType::Uid, "4711")?, 0);
            assert_eq!(found(LoginType::SelfService, "5000")?, 1);
            assert_eq!(found(LoginType::SelfService, "anna")?, 0);
            assert_eq!(found(LoginType::Extension, "4711")?, 2);
            assert_eq!(found(LoginType::Extension, "47")?, 0);
            Ok(())
        })
        .await
        .unwrap();
    let taken = store
        .write(|tx| users::upsert(tx, &user("carl", None, Some("5000"))))
        .await
        .unwrap_err();
    assert!(taken.is_unique(users::SELF_SERVICE_ID), "{taken}");
}

pub(super) async fn setting_a_hash_forgets_failures(store: &Store) {
    let anna = user_id("anna");
    let stranger: Result<(), Error> = store
        .write(|tx| credentials::put_hash(tx, &user_id("anna"), &Phc::new("$1".into()), at(1)))
        .await;
    assert!(matches!(stranger, Err(Error::Statement { .. })));
    store
        .write::<_, Error>(move |tx| {
            users::upsert(tx, &user("anna", None, None))?;
            credentials::put_hash(tx, &anna, &Phc::new("$1".into()), at(1))?;
            let mut credential = credentials::get(tx, &anna)?.unwrap();
            assert!(!format!("{credential:?}").contains("$1"));
            credential.failures = 3;
            credential.locked_until = Some(at(99));
            credential.must_change = true;
            assert!(credentials::set_counters(tx, &credential)?);
            assert_eq!(credentials::get(tx, &anna)?.as_ref(), Some(&credential));
            credentials::put_hash(tx, &anna, &Phc::new("$2".into()), at(2))?;
            let fresh = credentials::get(tx, &anna)?.unwrap();
            assert_eq!(fresh.phc.as_str(), "$2");
            assert_eq!((fresh.failures, fresh.locked_until), (0, None));
            assert!(!fresh.must_change);
            Ok(())
        })
        .await
        .unwrap();
}

pub(super) async fn a_phone_has_one_session_per_role(store: &Store) {
    put(store, session(Role::Visiting, 1, "SEP1", State::Pending))
        .await
        .unwrap();
    let second = put(store, session(Role::Visiting, 2, "sep1", State::Active)).await;
    assert!(second.unwrap_err().is_unique(sessions::ONE_PER_DEVICE));
    // The other role, another phone and an end are not in the way.
    for row in [
        session(Role::Home, 1, "SEP1", State::Active),
        session(Role::Visiting, 3, "SEP2", State::Active),
        session(Role::Visiting, 4, "SEP1", State::Ended),
    ] {
        put(store, row).await.unwrap();
    }
    let mut elsewhere = session(Role::Home, 5, "SEP1", State::Active);
    elsewhere.counterpart = cluster("tokyo");
    let third = put(store, elsewhere).await;
    assert!(third.unwrap_err().is_unique(sessions::ONE_PER_DEVICE));
    let again = put(store, session(Role::Home, 1, "SEP9", State::Active)).await;
    assert!(again.unwrap_err().is_unique("sessions_pkey"));
    let pending_at_home = put(store, session(Role::Home, 6, "SEP6", State::Pending)).await;
    assert!(matches!(pending_at_home, Err(Error::Statement { .. })));
    let occupied = store
        .read(|tx| sessions::active_on_device(tx, Role::Visiting, &device_name("sep1")))
        .await;
    assert_eq!(occupied.unwrap().unwrap().id, session_id(1));
}

pub(super) async fn a_base_device_is_held_by_one_active_session(store: &Store) {
    store
        .write(|tx| {
            base_devices::upsert(tx, &base("EMCC1"))?;
            base_devices::upsert(tx, &base("EMCC2"))
        })
        .await
        .unwrap();
    let mut first = session(Role::Home, 1, "SEP1", State::Active);
    first.base_device = Some(base("EMCC1"));
    put(store, first.clone()).await.unwrap();
    let mut second = session(Role::Home, 2, "SEP2", State::Active);
    second.base_device = Some(base("emcc1"));
    let refused = put(store, second.clone()).await;
    assert!(
        refused
            .unwrap_err()
            .is_unique(sessions::ONE_PER_BASE_DEVICE)
    );
    // Another cluster's base device of that name, in our visiting row, is not ours.
    let mut elsewhere = session(Role::Visiting, 3, "SEP3", State::Active);
    elsewhere.base_device = Some(base("EMCC1"));
    put(store, elsewhere).await.unwrap();
    store
        .write::<_, Error>(move |tx| {
            assert_eq!(base_devices::first_free(tx)?, Some(base("EMCC2")));
            assert_eq!(
                base_devices::list(tx)?,
                [(base("EMCC1"), Some(session_id(1))), (base("EMCC2"), None)]
            );
            assert!(base_devices::remove(tx, &base("EMCC2"))?);
            assert_eq!(base_devices::first_free(tx)?, None);
            let end = Some((EndReason::User, Initiator::Visiting, at(5)));
            assert!(sessions::transition(
                tx,
                Role::Home,
                &cluster("berlin"),
                session_id(1),
                &[State::Active],
                State::Ended,
                end,
                false
            )?);
            assert_eq!(base_devices::first_free(tx)?, Some(base("EMCC1")));
            sessions::insert(tx, &second)
        })
        .await
        .unwrap();
}

pub(super) async fn states_move_forward_only_from_where_they_are_expected(store: &Store) {
    let berlin = cluster("berlin");
    put(store, session(Role::Visiting, 1, "SEP1", State::Pending))
        .await
        .unwrap();
    store
        .write::<_, Error>(move |tx| {
            let id = session_id(1);
            let mut go = |from: &[State], to, end| {
                sessions::transition(tx, Role::Visiting, &berlin, id, from, to, end, true)
            };
            let end = Some((EndReason::User, Initiator::Visiting, at(7)));
            assert!(!go(&[State::Active], State::Ending, end)?);
            assert!(!go(&[], State::Ended, end)?);
            assert!(go(&[State::Pending, State::Active], State::Ending, end)?);
            // Backwards and in place never match.
            assert!(!go(&[State::Ending], State::Active, None)?);
            assert!(!go(&[State::Ending], State::Ending, None)?);
            assert!(go(&[State::Ending], State::Ended, None)?);
            assert!(!go(&[State::Ending, State::Ended], State::Ended, None)?);
            assert!(!sessions::activate(
                tx,
                Role::Visiting,
                &berlin,
                id,
                &user_id("anna"),
                None,
                &services()
            )?);
            Ok(())
        })
        .await
        .unwrap();
    let ended = fetch(store, Role::Visiting, 1).await;
    assert_eq!(ended.state, State::Ended);
    assert_eq!(ended.end_reason, Some(EndReason::User));
    assert_eq!(ended.ended_at, Some(at(7)));
    assert!(ended.owed);

    let mut pending = session(Role::Visiting, 2, "SEP1", State::Pending);
    pending.user_id = None;
    pending.deadline = Some(at(50));
    put(store, pending).await.unwrap();
    let activated = store
        .write(|tx| {
            let profile = services().profile;
            sessions::activate(
                tx,
                Role::Visiting,
                &cluster("berlin"),
                session_id(2),
                &user_id("Anna"),
                Some(&profile),
                &services(),
            )
        })
        .await;
    assert!(activated.unwrap());
    let active = fetch(store, Role::Visiting, 2).await;
    assert_eq!(active.state, State::Active);
    assert_eq!(active.user_id, Some(user_id("Anna")));
    assert_eq!(active.base_device, Some(base("EMCC001")));
    assert_eq!(active.services, Some(services()));
    assert_eq!(active.deadline, None);
}

pub(super) async fn a_tombstone_ends_what_is_known_and_what_is_not(store: &Store) {
    put(store, session(Role::Home, 1, "SEP1", State::Active))
        .await
        .unwrap();
    store
        .write::<_, Error>(|tx| {
            let mut bury = |n, reason, when| {
                let berlin = cluster("berlin");
                let id = session_id(n);
                let by = Initiator::Visiting;
                sessions::tombstone(tx, Role::Home, &berlin, id, reason, by, at(when))
            };
            assert!(bury(1, EndReason::Superseded, 5)?);
            assert!(bury(2, EndReason::Abandoned, 6)?);
            assert!(!bury(1, EndReason::User, 7)?);
            assert!(!bury(2, EndReason::User, 7)?);
            assert_eq!(
                sessions::active_on_device(tx, Role::Home, &device_name("SEP1"))?,
                None
            );
            Ok(())
        })
        .await
        .unwrap();
    let known = fetch(store, Role::Home, 1).await;
    assert_eq!(known.device, device_name("SEP1"));
    assert_eq!(known.end_reason, Some(EndReason::Superseded));
    assert_eq!(known.ended_at, Some(at(5)));
    let unknown = fetch(store, Role::Home, 2).await;
    assert_eq!(unknown.state, State::Ended);
    assert_eq!(unknown.end_reason, Some(EndReason::Abandoned));
    // A login under the id of a tombstone runs into it.
    let late = put(store, session(Role::Home, 2, "SEP2", State::Active)).await;
    assert!(late.unwrap_err().is_unique("sessions_pkey"));
}

pub(super) async fn answers_stay_as_first_given(store: &Store) {
    let first = Answer {
        counterpart: cluster("berlin"),
        id: session_id(1),
        digest: [7; 32],
        code: Some(33),
        cause: "no base device is free".into(),
        body: vec![],
    };
    let kept = first.clone();
    store
        .write::<_, Error>(move |tx| {
            assert!(answers::put(tx, &kept)?);
            let mut other = kept.clone();
            other.code = None;
            assert!(!answers::put(tx, &other)?);
            other.counterpart = cluster("tokyo");
            assert!(answers::put(tx, &other)?);
            Ok(())
        })
        .await
        .unwrap();
    store
        .read::<_, Error>(move |tx| {
            let found = answers::get(tx, &cluster("berlin"), session_id(1))?;
            assert_eq!(found.as_ref(), Some(&first));
            assert_eq!(answers::get(tx, &cluster("berlin"), session_id(2))?, None);
            Ok(())
        })
        .await
        .unwrap();
}

pub(super) async fn ends_are_owed_in_order_until_acknowledged(store: &Store) {
    for (n, ended_at) in [(1, 30), (2, 10), (3, 20)] {
        let mut row = session(Role::Visiting, n, "SEP1", State::Ended);
        row.ended_at = Some(at(ended_at));
        row.owed = true;
        put(store, row).await.unwrap();
    }
    let mut other = session(Role::Home, 4, "SEP4", State::Ended);
    other.counterpart = cluster("tokyo");
    other.owed = true;
    put(store, other).await.unwrap();
    store
        .write::<_, Error>(|tx| {
            let berlin = cluster("berlin");
            let ids = |rows: Vec<Session>| rows.into_iter().map(|s| s.id).collect::<Vec<_>>();
            let all = [session_id(2), session_id(3), session_id(1)];
            assert_eq!(ids(sessions::owed(tx, &berlin, 10)?), all);
            assert_eq!(ids(sessions::owed(tx, &berlin, 2)?), all[..2]);
            assert_eq!(
                sessions::newest_owed(tx, Role::Visiting, &berlin, 2)?,
                [session_id(1), session_id(3)]
            );
            assert!(sessions::newest_owed(tx, Role::Home, &berlin, 2)?.is_empty());
            assert_eq!(
                sessions::counterparts_owed(tx)?,
                [berlin.clone(), cluster("tokyo")]
            );
            assert!(sessions::acknowledge(
                tx,
                Role::Visiting,
                &berlin,
                session_id(2)
            )?);
            assert!(!sessions::acknowledge(
                tx,
                Role::Visiting,
                &berlin,
                session_id(2)
            )?);
            assert_eq!(ids(sessions::owed(tx, &berlin, 10)?), all[1..]);
            Ok(())
        })
        .await
        .unwrap();
}

pub(super) async fn only_overdue_pending_sessions_are_overdue(store: &Store) {
    for (n, state, deadline) in [
        (1, State::Pending, Some(20)),
        (2, State::Pending, Some(10)),
        (3, State::Pending, Some(21)),
        (4, State::Pending, None),
        (5, State::Active, Some(1)),
        (6, State::Ended, Some(1)),
    ] {
        let mut row = session(Role::Visiting, n, &format!("SEP{n}"), state);
        row.deadline = deadline.map(at);
        put(store, row).await.unwrap();
    }
    let overdue = store
        .read(|tx| sessions::overdue_pending(tx, at(20)))
        .await
        .unwrap();
    let ids: Vec<_> = overdue.into_iter().map(|s| s.id).collect();
    assert_eq!(ids, [session_id(2), session_id(1)]);
}

pub(super) async fn sessions_are_listed_by_filter(store: &Store) {
    for row in [
        session(Role::Home, 1, "SEP1", State::Active),
        session(Role::Visiting, 1, "SEP1", State::Active),
        session(Role::Visiting, 2, "SEP2", State::Ended),
    ] {
        put(store, row).await.unwrap();
    }
    let mut foreign = session(Role::Visiting, 3, "SEP3", State::Active);
    foreign.counterpart = cluster("tokyo");
    foreign.user_id = None;
    put(store, foreign).await.unwrap();
    store
        .read::<_, Error>(|tx| {
            let all = Filter::default();
            let filters = [
                (all.clone(), vec![3, 2, 1, 1]),
                (
                    Filter {
                        role: Some(Role::Visiting),
                        limit: Some(2),
                        ..all.clone()
                    },
                    vec![3, 2],
                ),
                (
                    Filter {
                        device: Some(device_name("sep1")),
                        states: vec![State::Active],
                        ..all.clone()
                    },
                    vec![1, 1],
                ),
                (
                    Filter {
                        user_id: Some(user_id("ANNA")),
                        states: vec![State::Ended, State::Ending],
                        ..all.clone()
                    },
                    vec![2],
                ),
                (
                    Filter {
                        counterpart: Some(cluster("tokyo")),
                        ..all.clone()
                    },
                    vec![3],
                ),
                (
                    Filter {
                        id: Some(session_id(1)),
                        role: Some(Role::Home),
                        ..all.clone()
                    },
                    vec![1],
                ),
                (
                    Filter {
                        reference: Some(Ref::from_bits(2)),
                        ..all
                    },
                    vec![2],
                ),
            ];
            for (filter, expected) in filters {
                let found: Vec<_> = sessions::list(tx, &filter)?
                    .into_iter()
                    .map(|s| s.id)
                    .collect();
                let expected: Vec<_> = expected.into_iter().map(session_id).collect();
                assert_eq!(found, expected, "{filter:?}");
            }
            let of_anna = sessions::active_of_user(tx, &user_id("anna"))?;
            assert_eq!(of_anna.len(), 1);
            assert_eq!(of_anna[0].role, Role::Home);
            Ok(())
        })
        .await
        .unwrap();
}

pub(super) async fn a_leaf_is_pinned_for_one_peer_only(store: &Store) {
    let pinned = |peer: &str| TrustEntry {
        cluster_id: cluster(peer),
        kind: EntryKind::Pinned,
        fingerprint: [1; 32],
        der: vec![0x30, 0x00],
        added_at: at(1),
    };
    let (berlin, tokyo) = (pinned("berlin"), pinned("tokyo"));
    store
        .write::<_, Error>(move |tx| {
            assert!(trust_entries::add(tx, &berlin)?);
            assert!(!trust_entries::add(tx, &berlin)?);
            let taken = trust_entries::add(tx, &tokyo).unwrap_err();
            assert!(
                matches!(&taken, Error::FingerprintTaken(by) if by.as_str() == "berlin"),
                "{taken}"
            );
            // A CA may vouch for the nodes of several peers.
            for peer in ["berlin", "tokyo"] {
                let anchor = TrustEntry {
                    kind: EntryKind::Anchor,
                    ..pinned(peer)
                };
                assert!(trust_entries::add(tx, &anchor)?);
            }
            assert_eq!(trust_entries::list(tx)?.len(), 3);
            assert!(trust_entries::revoke(
                tx,
                &berlin.cluster_id,
                &[1; 32],
                at(5)
            )?);
            assert_eq!(trust_entries::list(tx)?.len(), 1);
            assert_eq!(trust_entries::revoked(tx)?[0].revoked_at, at(5));
            assert!(!trust_entries::remove(tx, &berlin.cluster_id, &[1; 32])?);
            // Trusting it again takes that back.
            assert!(trust_entries::add(tx, &berlin)?);
            assert!(trust_entries::revoked(tx)?.is_empty());
            assert_eq!(trust_entries::list(tx)?[0], berlin);
            Ok(())
        })
        .await
        .unwrap();
}

pub(super) async fn hints_follow_the_last_success(store: &Store) {
    store
        .write::<_, Error>(|tx| {
            let (uid, dn) = (LoginType::Uid, LoginType::Extension);
            hints::put(tx, uid, &name("Anna"), &cluster("berlin"))?;
            hints::put(tx, uid, &name("anna"), &cluster("tokyo"))?;
            assert_eq!(hints::get(tx, uid, &name("ANNA"))?, Some(cluster("tokyo")));
            assert_eq!(hints::get(tx, dn, &name("anna"))?, None);
            assert!(hints::forget(tx, uid, &name("aNNA"))?);
            assert!(!hints::forget(tx, uid, &name("anna"))?);
            assert_eq!(hints::get(tx, uid, &name("anna"))?, None);
            Ok(())
        })
        .await
        .unwrap();
}

pub(super) async fn a_changed_missing_or_cut_off_audit_entry_is_found(store: &Store) {
    store
        .write(|tx| (1..=5).try_for_each(|n| audit::append(tx, &entry(n))))
        .await
        .unwrap();
    let whole = store.verify().await.unwrap();
    assert!(whole.is_intact());
    assert_eq!(whole.chains[0].entries, 5);
    let newest = store.read(|tx| audit::list(tx, 2)).await.unwrap();
    assert_eq!(newest.iter().map(|e| e.seq).collect::<Vec<_>>(), [5, 4]);
    let attempt = store
        .read(|tx| audit::of_reference(tx, Ref::from_bits(7)))
        .await
        .unwrap();
    assert_eq!(attempt[0].at, at(1));

    // Each is done to the whole chain, looked at, and undone by the error.
    for (tampering, fault) in [
        (
            "UPDATE audit SET outcome = 'refused' WHERE seq = 3",
            Fault::Changed(3),
        ),
        ("UPDATE audit SET at = 99 WHERE seq = 5", Fault::Changed(5)),
        (
            "UPDATE audit SET reference = '0000000U' WHERE seq = 2",
            Fault::Changed(2),
        ),
        ("DELETE FROM audit WHERE seq = 1", Fault::Missing(1)),
        ("DELETE FROM audit WHERE seq = 4", Fault::Missing(4)),
        ("DELETE FROM audit WHERE seq = 5", Fault::Missing(5)),
        ("DELETE FROM audit", Fault::Missing(1)),
        ("DELETE FROM audit_heads", Fault::Head(5)),
        ("UPDATE audit_heads SET seq = 4", Fault::Head(5)),
    ] {
        let found = Mutex::new(None);
        let (tell, told) = mpsc::channel();
        let undone: Result<(), Error> = store
            .write(move |tx| {
                tx.execute(tampering, &[])?;
                let report = audit::verify(tx)?;
                tell.send(report.chains[0].fault).unwrap();
                Err(Error::Busy)
            })
            .await;
        assert!(matches!(undone, Err(Error::Busy)));
        *found.lock().unwrap() = told.recv().unwrap();
        assert_eq!(*found.lock().unwrap(), Some(fault), "{tampering}");
    }
    assert!(store.verify().await.unwrap().is_intact());
}

pub(super) async fn concurrent_increments_are_not_lost(store: &Store) {
    let all = join_all((0..200).map(|_| store.write(|tx| increment(tx, "n")))).await;
    let mut values: Vec<i64> = all.into_iter().map(Result::unwrap).collect();
    values.sort_unstable();
    assert_eq!(values, (1..=200).collect::<Vec<_>>());
}

/// Lets `operations` wait behind one that ends when all are there, so that they share its commit.
async fn run_together<T>(store: &Store, operations: impl Future<Output = T>) -> T {
    let (release, released) = mpsc::channel::<()>();
    let blocked = store.write::<(), Error>(move |_| {
        let _ = released.recv();
        Ok(())
    });
    // Polled from left to right: by the time the last one runs, all are in the queue.
    let ((_, result), ()) = join(join(blocked, operations), async { drop(release) }).await;
    result
}

pub(super) async fn operations_that_wait_share_a_commit(store: &Store) {
    let before = store.stats();
    let writes = join_all((0..200).map(|_| store.write(|tx| increment(tx, "n"))));
    run_together(store, writes).await;
    let after = store.stats();
    let (writes, commits) = (after.writes - before.writes, after.commits - before.commits);
    assert_eq!(writes, 201);
    assert!(
        commits < writes / 10,
        "{commits} commits of {writes} writes"
    );
}

pub(super) async fn what_fails_undoes_itself_and_not_its_neighbours(store: &Store) {
    let operations = join_all((0..10).map(|n| {
        store.write(move |tx| {
            increment(tx, "n")?;
            meta::put(tx, &format!("by {n}"), "")?;
            if n % 2 == 0 { Ok(()) } else { Err(Error::Busy) }
        })
    }));
    let before = store.stats().commits;
    let results = run_together(store, operations).await;
    assert_eq!(store.stats().commits, before + 1);
    for (n, result) in results.into_iter().enumerate() {
        assert_eq!(result.is_ok(), n % 2 == 0);
        let kept: Result<_, Error> = store
            .read(move |tx| meta::get(tx, &format!("by {n}")))
            .await;
        assert_eq!(kept.unwrap().is_some(), n % 2 == 0);
    }
    let total: Result<_, Error> = store.read(|tx| meta::get(tx, "n")).await;
    assert_eq!(total.unwrap().as_deref(), Some("5"));
}

pub(super) async fn a_panic_is_an_error_for_its_operation_only(store: &Store) {
    let operations = join_all((0..3).map(|n| {
        store.write(move |tx| {
            let value = increment(tx, "n")?;
            assert!(n != 1, "this panic is meant");
            Ok::<_, Error>(value)
        })
    }));
    let results = run_together(store, operations).await;
    assert!(matches!(
        results.as_slice(),
        [Ok(1), Err(Error::Panicked), Ok(2)]
    ));
    let read: Result<(), Error> = store.read(|_| panic!("this panic is meant")).await;
    assert!(matches!(read, Err(Error::Panicked)));
    assert_eq!(
        store.write(|tx| increment(tx, "n")).await.unwrap(),
        3,
        "the store goes on"
    );
}

pub(super) async fn a_failed_statement_undoes_itself_only(store: &Store) {
    store
        .write::<_, Error>(|tx| {
            sessions::insert(tx, &session(Role::Visiting, 1, "SEP1", State::Active))?;
            let refused = sessions::insert(tx, &session(Role::Visiting, 2, "SEP1", State::Active));
            assert!(refused.is_err());
            let broken = tx.execute("UPDATE nothing SET at = $1", &[1i64.into()]);
            assert!(matches!(broken, Err(Error::Statement { .. })));
            let miscounted = tx.execute("DELETE FROM meta WHERE name = $1", &[]);
            assert!(matches!(miscounted, Err(Error::Statement { .. })));
            meta::put(tx, "went on", "yes")
        })
        .await
        .unwrap();
    assert_eq!(fetch(store, Role::Visiting, 1).await.id, session_id(1));
    let went_on: Result<_, Error> = store.read(|tx| meta::get(tx, "went on")).await;
    assert!(went_on.unwrap().is_some());
}

pub(super) async fn a_read_changes_nothing(store: &Store) {
    let refused = store.read(|tx| meta::put(tx, "a", "1")).await;
    assert!(matches!(refused, Err(Error::Statement { .. })));
    store.write(|tx| meta::put(tx, "b", "1")).await.unwrap();
    let a: Result<_, Error> = store.read(|tx| meta::get(tx, "a")).await;
    assert_eq!(a.unwrap(), None);
}

pub(super) async fn commits_are_announced(store: &Store) {
    let mut changes = store.changes();
    changes.mark_unchanged();
    store.write(|tx| meta::put(tx, "a", "1")).await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let _: Option<String> = store.write(|tx| meta::get(tx, "a")).await.unwrap_or(None);
    let failed: Result<(), Error> = store
        .write(|tx| {
            meta::put(tx, "a", "2")?;
            Err(Error::Busy)
        })
        .await;
    assert!(failed.is_err());
    assert!(
        !changes.has_changed().unwrap(),
        "what changed nothing is not announced"
    );
}
