//! Home's order and S1 to S4 at one cluster, on an in-memory store.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use uuid::Uuid;

use super::{
    desk::{Checked, Proven},
    *,
};
use crate::{
    admission::{Kind, Party, Source},
    chance::Chance,
    clock::Timestamp,
    domain::{
        em_code::EmCode,
        ids::{BaseDeviceName, DeviceName, LoginName, PolicyName, ProfileName, Ref, UserId},
        login::{DeviceFacts, HomeServices, LoginType, Proof, SecurityMode},
        parameters::{MultipleLoginBehavior, UnknownUserAnswer},
        policy::{BUILT_IN, Policy, Rules},
        refusal::Detail,
        session::{Initiator, Role, State},
    },
    secret::{Pin, Secret},
    store::{
        base_devices, credentials as stored,
        devices::{self, Device},
        peers::{self, Peer},
        policies,
        profiles::{self, Profile},
        sessions,
        trust_entries::{self, EntryKind, Source as TrustSource, TrustEntry},
        users::User,
    },
};

/// Logins of other clusters at a time.
const PLACES: u32 = 4;

pub(crate) struct World {
    pub(crate) role: HomeRole,
    store: Store,
    links: Arc<AllLinks>,
}

impl World {
    /// Its home role, able to no more than that.
    pub(crate) fn held_to(self, traits: Traits) -> HomeRole {
        HomeRole {
            traits,
            ..self.role
        }
    }

    /// Another node of the cluster: the store is the same, its places and its line of PIN checks are its own.
    fn another_node(&self) -> HomeRole {
        HomeRole {
            credentials: Credentials::new(&cheap(), Secret::new(vec![1; 32])).unwrap(),
            admission: Admission::new(PLACES),
            ..self.role.clone()
        }
    }
}

/// One worker, and the cheapest hash.
fn cheap() -> crate::credentials::Config {
    crate::credentials::Config {
        memory_kib: 8,
        iterations: 1,
        workers: 1,
        ..crate::credentials::Config::default()
    }
}

fn cluster(name: &str) -> ClusterId {
    ClusterId::new(name).unwrap()
}

fn user(id: &str, extension: &str) -> User {
    User {
        user_id: UserId::new(id).unwrap(),
        self_service_id: Some(LoginName::new(format!("{id}-self")).unwrap()),
        primary_extension: Some(LoginName::new(extension).unwrap()),
        display_name: id.to_owned(),
        enabled: true,
        emcc_enabled: true,
        policy: None,
    }
}

fn peer(name: &str, enabled: bool) -> Peer {
    Peer {
        cluster_id: cluster(name),
        enabled,
        allow_emcc: true,
        addresses: Vec::new(),
        node_names: Vec::new(),
        user_patterns: Vec::new(),
        dn_patterns: Vec::new(),
        ignore_eku: false,
        accept_announcements: crate::domain::announcement::Acceptance::default(),
        description: String::new(),
    }
}

/// What is accepted from a peer: the certificate of that number.
fn pinned(name: &str, n: u8) -> TrustEntry {
    TrustEntry {
        cluster_id: cluster(name),
        kind: EntryKind::Pinned,
        fingerprint: [n; 32],
        der: vec![n],
        added_at: Timestamp::from_millis(1),
        source: TrustSource::Operator,
        alias: None,
    }
}

/// Every other cluster can be told of anything, or none.
#[derive(Debug)]
struct AllLinks(AtomicBool);

impl Links for AllLinks {
    fn is_up(&self, _: &ClusterId) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

pub(crate) async fn world(base_devices: usize) -> World {
    let store = Store::open(&store::Config {
        url: "sqlite::memory:".to_owned(),
        node: "n1".to_owned(),
    })
    .unwrap();
    let credentials = Credentials::new(&cheap(), Secret::new(vec![1; 32])).unwrap();
    let clock = Clock::system();
    let phc = credentials.hash(&pin("13579"), soon()).await.unwrap();
    let now = clock.now();
    store
        .write(move |tx: &mut dyn Transaction| {
            for who in [
                user("ana", "1001"),
                user("bob", "1002"),
                user("eve", "1002"),
            ] {
                users::upsert(tx, &who)?;
                stored::put_hash(tx, &who.user_id, &phc, now)?;
                profiles::upsert(
                    tx,
                    &Profile {
                        name: ProfileName::new(format!("{}-profile", who.user_id)).unwrap(),
                        user_id: who.user_id,
                        is_default: true,
                        lines: Vec::new(),
                        locale: None,
                        device_pool: None,
                        services: Vec::new(),
                    },
                )?;
            }
            for n in 1..=base_devices {
                base_devices::upsert(tx, &BaseDeviceName::new(format!("EMCC{n}")).unwrap())?;
            }
            for (n, name) in (7..).zip(["tokyo", "lima", "oslo"]) {
                peers::upsert(tx, &peer(name, name != "oslo"))?;
                trust_entries::add(tx, &pinned(name, n))?;
            }
            Ok::<_, store::Error>(())
        })
        .await
        .unwrap();
    let links = Arc::new(AllLinks(AtomicBool::new(true)));
    let role = HomeRole::new(Parts {
        cluster: cluster("berlin"),
        traits: Traits::ours(SecurityMode::NonSecure),
        store: store.clone(),
        credentials,
        admission: Admission::new(PLACES),
        clock,
        faults: FaultPoints::none(),
        parameters: parameters::Live::new(Parameters {
            maximum_concurrent_requests: PLACES,
            multiple_login_behavior: MultipleLoginBehavior::Allowed,
            ..Parameters::default()
        }),
        links: Arc::clone(&links) as Arc<dyn Links>,
        membership: Membership::of(&store),
        owed: Arc::new(Notify::new()),
        chance: Chance::system(),
    });
    World { role, store, links }
}

fn pin(text: &str) -> Pin {
    Pin::new(text.to_owned()).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub(crate) fn from(caller: &str) -> Context {
    Context {
        reference: Ref::from_bits(7),
        caller: cluster(caller),
        certificate: None,
        deadline: soon(),
        traits: Traits::ours(SecurityMode::NonSecure),
    }
}

pub(crate) fn request(name: &str, digits: &str, device: &str) -> LoginRequest {
    LoginRequest {
        session_id: SessionId::from_uuid(Uuid::now_v7()),
        user: FindUser {
            login_type: LoginType::Uid,
            name: LoginName::new(name).unwrap(),
        },
        proof: Proof::Pin(pin(digits)),
        profile: None,
        device: DeviceFacts {
            name: DeviceName::new(device).unwrap(),
            model: "CP-8841".to_owned(),
            protocol: "SIP".to_owned(),
            security_mode: SecurityMode::NonSecure,
            locale: None,
            address: None,
        },
        geolocation: BTreeMap::new(),
        supersedes: Vec::new(),
    }
}

fn logout_of(id: SessionId) -> LogoutRequest {
    LogoutRequest {
        session_id: id,
        reason: EndReason::User,
        initiator: Initiator::Visiting,
    }
}

async fn code(world: &World, caller: &str, request: &LoginRequest) -> u16 {
    let error = world.role.login(&from(caller), request).await.unwrap_err();
    error.em_code(caller == "berlin").number()
}

impl World {
    async fn opens(&self, caller: &str, request: &LoginRequest) -> HomeServices {
        match self.role.login(&from(caller), request).await.unwrap() {
            LoginAnswer::Opened(services) => *services,
            LoginAnswer::Choose(choice) => panic!("asked: {choice:?}"),
        }
    }

    async fn state(&self, caller: &str, id: SessionId) -> Option<State> {
        let caller = cluster(caller);
        self.store
            .read(move |tx: &mut dyn Transaction| {
                Ok::<_, store::Error>(sessions::get(tx, Role::Home, &caller, id)?.map(|s| s.state))
            })
            .await
            .unwrap()
    }

    async fn held(&self) -> usize {
        self.store
            .read(|tx: &mut dyn Transaction| base_devices::list(tx))
            .await
            .unwrap()
            .into_iter()
            .filter(|(_, session)| session.is_some())
            .count()
    }
}

#[tokio::test]
async fn a_login_holds_a_base_device_until_its_logout() {
    let world = world(1).await;
    let request = request("ana", "13579", "SEP1");
    let services = world.opens("tokyo", &request).await;
    assert_eq!(
        services.base_device,
        Some(BaseDeviceName::new("EMCC1").unwrap())
    );
    assert_eq!(world.held().await, 1);
    let reason = world
        .role
        .logout(&from("tokyo"), logout_of(request.session_id))
        .await
        .unwrap();
    assert_eq!((reason, world.held().await), (EndReason::User, 0));
}

#[tokio::test]
async fn a_login_whose_turn_at_the_store_comes_too_late_opens_nothing() {
    let world = world(1).await;
    let late = request("ana", "13579", "SEP1");
    let context = Context {
        deadline: Instant::now() + Duration::from_millis(500),
        ..from("tokyo")
    };
    // The writer is held until the deadline is over.
    let (begin, begun) = tokio::sync::oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (begin, released) = (
        std::sync::Mutex::new(Some(begin)),
        std::sync::Mutex::new(released),
    );
    let holding = world.store.write(move |_: &mut dyn Transaction| {
        let begin = begin.lock().unwrap().take();
        if let Some(begin) = begin {
            begin.send(()).unwrap();
            released.lock().unwrap().recv().unwrap();
        }
        Ok::<_, store::Error>(())
    });
    let (held, refused, ()) = tokio::join!(
        holding,
        async {
            begun.await.unwrap();
            world.role.login(&context, &late).await
        },
        async {
            tokio::time::sleep_until(context.deadline.into()).await;
            release.send(()).unwrap();
        }
    );
    held.unwrap();
    let refused = refused.unwrap_err();
    assert_eq!(refused.em_code(false), EmCode::Busy, "{refused}");
    assert_eq!(
        (
            world.state("tokyo", late.session_id).await,
            world.held().await
        ),
        (None, 0)
    );
    // The refusal is not kept: the same id may come again.
    world.role.login(&from("tokyo"), &late).await.unwrap();
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_and_after_the_end_never_success() {
    let world = world(2).await;
    let request = request("ana", "13579", "SEP1");
    let first = world.role.login(&from("tokyo"), &request).await.unwrap();
    assert_eq!(
        world.role.login(&from("tokyo"), &request).await.unwrap(),
        first
    );
    assert_eq!(world.held().await, 1, "the repeat opened nothing");
    world
        .role
        .logout(&from("tokyo"), logout_of(request.session_id))
        .await
        .unwrap();
    let ended = world
        .role
        .login(&from("tokyo"), &request)
        .await
        .unwrap_err()
        .to_refusal(false);
    assert_eq!(ended.detail, Detail::SessionEnded(EndReason::User));
}

#[tokio::test]
async fn an_id_with_other_fields_is_refused_and_a_pin_is_no_such_field() {
    let world = world(2).await;
    let first = request("ana", "13579", "SEP1");
    world.role.login(&from("tokyo"), &first).await.unwrap();
    let mut other = request("ana", "13579", "SEP2");
    other.session_id = first.session_id;
    assert!(matches!(
        world.role.login(&from("tokyo"), &other).await,
        Err(Error::IdReused)
    ));
    let mut other_pin = first.clone();
    other_pin.proof = Proof::Pin(pin("99999"));
    assert!(
        world.role.login(&from("tokyo"), &other_pin).await.is_ok(),
        "a repeat is not checked again"
    );
}

#[tokio::test]
async fn a_login_that_comes_after_its_logout_is_refused() {
    let world = world(1).await;
    let late = request("ana", "13579", "SEP1");
    world
        .role
        .logout(&from("tokyo"), logout_of(late.session_id))
        .await
        .unwrap();
    let refused = world.role.login(&from("tokyo"), &late).await.unwrap_err();
    assert!(
        matches!(refused, Error::SessionEnded(EndReason::User)),
        "{refused:?}"
    );
    assert_eq!(world.held().await, 0);
}

#[tokio::test]
async fn a_refusal_is_kept_under_its_id() {
    let world = world(1).await;
    let mut wrong = request("ana", "00000", "SEP1");
    assert_eq!(code(&world, "tokyo", &wrong).await, 2);
    wrong.proof = Proof::Pin(pin("13579"));
    assert_eq!(
        code(&world, "tokyo", &wrong).await,
        2,
        "the same id gets the same answer"
    );
}

#[tokio::test]
async fn each_check_has_its_code_for_a_peer_and_for_a_local_login() {
    let world = world(1).await;
    for (caller, name, digits, expected) in [
        ("tokyo", "nobody", "13579", 23),
        ("tokyo", "ana", "11111", 2),
        ("berlin", "ana", "11111", 201),
        ("berlin", "nobody", "13579", 23),
        ("paris", "ana", "13579", 35),
        ("oslo", "ana", "13579", 38),
    ] {
        assert_eq!(
            code(&world, caller, &request(name, digits, "SEP1")).await,
            expected,
            "{caller} {name}"
        );
    }
    for (caller, expected) in [("tokyo", 47), ("berlin", 216)] {
        let mut by_dn = request("1002", "13579", "SEP1");
        by_dn.user.login_type = LoginType::Extension;
        assert_eq!(code(&world, caller, &by_dn).await, expected);
    }
}

#[tokio::test]
async fn no_free_base_device_is_33_and_is_not_kept() {
    let world = world(1).await;
    world
        .role
        .login(&from("tokyo"), &request("ana", "13579", "SEP1"))
        .await
        .unwrap();
    let second = request("bob", "13579", "SEP2");
    assert_eq!(code(&world, "tokyo", &second).await, 33);
    let local = world
        .opens("berlin", &request("bob", "13579", "SEP3"))
        .await;
    assert_eq!(local.base_device, None, "a local login needs none");
}

#[tokio::test]
async fn superseded_sessions_end_even_if_the_login_is_refused() {
    let world = world(2).await;
    let first = request("ana", "13579", "SEP1");
    world.role.login(&from("tokyo"), &first).await.unwrap();
    let mut refused = request("nobody", "13579", "SEP1");
    refused.supersedes = vec![first.session_id];
    assert_eq!(code(&world, "tokyo", &refused).await, 23);
    assert_eq!(
        world.state("tokyo", first.session_id).await,
        Some(State::Ended)
    );
    assert_eq!(world.held().await, 0);
}

#[tokio::test]
async fn a_peer_ends_and_supersedes_only_its_own_sessions() {
    let world = world(2).await;
    let tokyos = request("ana", "13579", "SEP1");
    world.role.login(&from("tokyo"), &tokyos).await.unwrap();
    let mut limas = request("bob", "13579", "SEP2");
    limas.supersedes = vec![tokyos.session_id];
    world.role.login(&from("lima"), &limas).await.unwrap();
    world
        .role
        .logout(&from("lima"), logout_of(tokyos.session_id))
        .await
        .unwrap();
    assert_eq!(
        world.state("tokyo", tokyos.session_id).await,
        Some(State::Active)
    );
}

#[tokio::test]
async fn a_second_login_on_a_phone_ends_the_first() {
    let world = world(2).await;
    let first = request("ana", "13579", "SEP1");
    world.role.login(&from("tokyo"), &first).await.unwrap();
    world
        .role
        .login(&from("tokyo"), &request("bob", "13579", "SEP1"))
        .await
        .unwrap();
    assert_eq!(
        world.state("tokyo", first.session_id).await,
        Some(State::Ended)
    );
    assert_eq!(world.held().await, 1);
    assert_eq!(
        code(&world, "lima", &request("bob", "13579", "SEP1")).await,
        37,
        "the name is another cluster's"
    );
}

#[tokio::test]
async fn many_wrong_pins_at_once_count_no_further_than_the_lock() {
    let world = world(1).await;
    let wrong: Vec<_> = (0..256)
        .map(|n| request("ana", "00000", &format!("SEP{n}")))
        .collect();
    let context = from("tokyo");
    let codes = join_all(wrong.iter().map(|r| world.role.login(&context, r))).await;
    let mut counted = 0;
    for outcome in codes {
        let error = outcome.unwrap_err();
        assert_eq!(
            error.to_refusal(false).code,
            EmCode::EmccAuthenticationError
        );
        counted += u32::from(matches!(error, Error::WrongPin { .. }));
    }
    assert_eq!(counted, 5, "one lock's worth of guesses was judged");
    let right = request("ana", "13579", "SEP1");
    assert!(matches!(
        world.role.login(&context, &right).await,
        Err(Error::Locked { .. })
    ));
}

#[tokio::test]
async fn each_user_is_locked_by_the_policy_that_is_theirs() {
    let world = world(1).await;
    let rules = |failures_before_lock, lock_duration| Rules {
        failures_before_lock,
        lock_duration,
        ..BUILT_IN
    };
    world
        .store
        .write(move |tx: &mut dyn Transaction| {
            let strict = PolicyName::new("strict").unwrap();
            for (name, rules) in [
                (strict.clone(), rules(2, 60)),
                (PolicyName::of_all_others(), rules(3, 10)),
            ] {
                policies::upsert(tx, &Policy { name, rules })?;
            }
            let bob = User {
                policy: Some(strict),
                ..user("bob", "1002")
            };
            users::upsert(tx, &bob)
        })
        .await
        .unwrap();
    let context = from("tokyo");
    let begun = world.role.clock.now();
    for (name, limit, minutes) in [("bob", 2, 60), ("ana", 3, 10)] {
        for failures in 1..=limit {
            let wrong = request(name, "00000", "SEP1");
            let refused = world.role.login(&context, &wrong).await.unwrap_err();
            assert!(
                matches!(refused, Error::WrongPin { failures: counted, .. } if counted == failures),
                "{refused:?}"
            );
        }
        let audit = world
            .store
            .read(|tx| store::audit::list(tx, 1))
            .await
            .unwrap();
        let right = request(name, "13579", "SEP1");
        let Err(Error::Locked { until, .. }) = world.role.login(&context, &right).await else {
            panic!("{name} is not locked");
        };
        // The one that locked says so.
        let told = format!("wrong PIN for user {name} ({limit} counted; locked until {until})");
        assert_eq!(audit[0].outcome, told);
        let locked = until.since(begun);
        let whole = Duration::from_secs(minutes * 60);
        assert!(
            (whole..whole + Duration::from_secs(60)).contains(&locked),
            "{locked:?}"
        );
    }
}

/// Counts statements.
struct Counting<'t> {
    tx: &'t mut dyn Transaction,
    statements: u32,
}

impl Transaction for Counting<'_> {
    fn node(&self) -> &str {
        self.tx.node()
    }

    fn cluster_clock(&self) -> &store::cluster_time::ClusterClock {
        self.tx.cluster_clock()
    }

    fn query(&mut self, sql: &str, args: &[store::Value]) -> Result<Vec<store::Row>, store::Error> {
        self.statements += 1;
        self.tx.query(sql, args)
    }

    fn execute(&mut self, sql: &str, args: &[store::Value]) -> Result<u64, store::Error> {
        self.statements += 1;
        self.tx.execute(sql, args)
    }
}

/// Attempts under a lock are free and without number: a difference could be averaged out.
#[tokio::test]
async fn while_a_user_is_locked_a_right_pin_is_as_much_work_as_a_wrong_one() {
    let world = world(1).await;
    let context = from("tokyo");
    for _ in 0..5 {
        let wrong = request("ana", "00000", "SEP1");
        world.role.login(&context, &wrong).await.unwrap_err();
    }
    let mut work = Vec::new();
    for matches in [true, false] {
        let desk = login::desk(&world.role, &context, &request("ana", "13579", "SEP1"));
        let decided = world.store.write(move |tx: &mut dyn Transaction| {
            let user = UserId::new("ana").unwrap();
            let phc = stored::get(tx, &user)?.map(|credential| credential.phc);
            let proven = Proven::Pin(Checked { phc, matches });
            let tx = &mut Counting { tx, statements: 0 };
            let Err(refused) = desk.decide(tx, &proven, &mut false) else {
                panic!("the user is not locked");
            };
            desk.keep_refusal(tx, &refused)?;
            Ok::<_, Error>((tx.statements, refused.to_string()))
        });
        work.push(decided.await.unwrap());
    }
    assert!(work[0].1.contains("is locked until"), "{work:?}");
    assert_eq!(work[0], work[1]);
}

#[tokio::test]
async fn who_is_nobody_looks_like_a_wrong_pin_to_our_own_phones_where_that_is_asked_for() {
    let world = world(1).await;
    let nobody = || request("nobody", "13579", "SEP1");
    let ours = from("berlin");
    let told = world.role.login(&ours, &nobody()).await.unwrap_err();
    assert!(matches!(told, Error::UserUnknown), "{told:?}");
    world.role.parameters.publish(Parameters {
        unknown_user_answer: UnknownUserAnswer::AsWrongPin,
        ..(*world.role.parameters()).clone()
    });
    let hidden = world.role.login(&ours, &nobody()).await.unwrap_err();
    assert!(matches!(hidden, Error::UserHidden), "{hidden:?}");
    let wrong = request("ana", "00000", "SEP1");
    let wrong = world.role.login(&ours, &wrong).await.unwrap_err();
    assert!(matches!(wrong, Error::WrongPin { .. }), "{wrong:?}");
    assert_eq!(hidden.to_refusal(true), wrong.to_refusal(true));
    // Other clusters have to know whose a name is, and when that changes.
    let told = world
        .role
        .login(&from("tokyo"), &nobody())
        .await
        .unwrap_err();
    assert!(matches!(told, Error::UserUnknown), "{told:?}");
}

#[tokio::test]
async fn an_operator_ends_a_session_and_visiting_is_owed_the_news() {
    let world = world(1).await;
    let request = request("ana", "13579", "SEP1");
    world.role.login(&from("tokyo"), &request).await.unwrap();
    let ended = world
        .role
        .end(&cluster("tokyo"), request.session_id, "user root")
        .await
        .unwrap();
    assert_eq!(ended, Ended::Now { owed: true });
    let owed = world
        .store
        .read(|tx: &mut dyn Transaction| sessions::owed(tx, &cluster("tokyo"), 10))
        .await
        .unwrap();
    assert_eq!(
        owed.iter().map(|s| s.id).collect::<Vec<_>>(),
        [request.session_id]
    );
    let again = world
        .role
        .end(&cluster("tokyo"), request.session_id, "user root")
        .await
        .unwrap();
    assert_eq!(again, Ended::Before(EndReason::Operator));
}

#[tokio::test]
async fn find_user_tells_the_claim_and_nothing_else() {
    let world = world(0).await;
    let ask = |login_type, name: &str| FindUser {
        login_type,
        name: LoginName::new(name).unwrap(),
    };
    for (query, expected) in [
        (ask(LoginType::Uid, "ana"), Ownership::Mine),
        (ask(LoginType::SelfService, "ana-self"), Ownership::Mine),
        (ask(LoginType::Extension, "1001"), Ownership::Mine),
        (ask(LoginType::Extension, "1002"), Ownership::SeveralUsers),
        (ask(LoginType::Uid, "1001"), Ownership::NotMine),
    ] {
        assert_eq!(
            world.role.find_user(&from("tokyo"), &query).await.unwrap(),
            expected,
            "{query:?}"
        );
    }
    let refused = world
        .role
        .find_user(&from("paris"), &ask(LoginType::Uid, "ana"))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::CallerUnknown(_)));
}

impl World {
    async fn add_device(&self, name: &str) {
        let device = Device {
            name: DeviceName::new(name).unwrap(),
            model: "CP-8841".to_owned(),
            protocol: "SIP".to_owned(),
            security_mode: SecurityMode::NonSecure,
            emcc: true,
            em_enabled: true,
            device_pool: None,
            locale: None,
            geolocation: BTreeMap::new(),
            location: None,
            services: Vec::new(),
        };
        self.store
            .write(move |tx: &mut dyn Transaction| devices::upsert(tx, &device))
            .await
            .unwrap();
    }

    async fn owed(&self, to: &str) -> Vec<SessionId> {
        let to = cluster(to);
        self.store
            .read(move |tx: &mut dyn Transaction| sessions::owed(tx, &to, 10))
            .await
            .unwrap()
            .into_iter()
            .map(|owed| owed.id)
            .collect()
    }
}

#[tokio::test]
async fn an_earlier_session_of_the_phone_ends_although_its_name_is_then_refused() {
    let world = world(2).await;
    let first = request("ana", "13579", "SEP1");
    world.role.login(&from("tokyo"), &first).await.unwrap();
    world.add_device("SEP1").await;
    assert_eq!(
        code(&world, "tokyo", &request("ana", "13579", "SEP1")).await,
        37
    );
    assert_eq!(
        world.state("tokyo", first.session_id).await,
        Some(State::Ended)
    );
    assert_eq!(world.owed("tokyo").await, [first.session_id]);
    tokio::time::timeout(Duration::from_secs(5), world.role.owed.notified())
        .await
        .expect("the debt is announced");
}

#[tokio::test]
async fn our_own_phone_takes_its_name_back_from_a_visitors() {
    let world = world(2).await;
    let visitors = request("ana", "13579", "SEP1");
    world.role.login(&from("tokyo"), &visitors).await.unwrap();
    world.add_device("SEP1").await;
    world
        .role
        .login(&from("berlin"), &request("bob", "13579", "SEP1"))
        .await
        .unwrap();
    assert_eq!(
        world.state("tokyo", visitors.session_id).await,
        Some(State::Ended)
    );
    assert_eq!(world.owed("tokyo").await, [visitors.session_id]);
    // Not the other way round: a visitor's phone gets no name that one of ours uses.
    assert_eq!(
        code(&world, "tokyo", &request("ana", "13579", "SEP1")).await,
        37
    );
}

#[tokio::test]
async fn a_repeat_is_heard_on_what_has_ended_meanwhile() {
    let world = world(3).await;
    let (one, two) = (
        request("ana", "13579", "SEP1"),
        request("ana", "13579", "SEP2"),
    );
    for earlier in [&one, &two] {
        world.role.login(&from("tokyo"), earlier).await.unwrap();
    }
    let mut repeated = request("bob", "13579", "SEP3");
    world.role.login(&from("tokyo"), &repeated).await.unwrap();
    repeated.supersedes = vec![one.session_id];
    world.role.login(&from("tokyo"), &repeated).await.unwrap();
    assert_eq!(
        world.state("tokyo", one.session_id).await,
        Some(State::Ended)
    );
    // So it is with a repeat that is refused again.
    let mut refused = request("ana", "00000", "SEP4");
    assert_eq!(code(&world, "tokyo", &refused).await, 2);
    refused.supersedes = vec![two.session_id];
    assert_eq!(code(&world, "tokyo", &refused).await, 2);
    assert_eq!(
        world.state("tokyo", two.session_id).await,
        Some(State::Ended)
    );
    assert_eq!(
        world.state("tokyo", repeated.session_id).await,
        Some(State::Active)
    );
}

#[tokio::test]
async fn a_peer_whose_logins_fill_the_places_waits_and_our_own_phones_do_not() {
    let world = world(2).await;
    let source = Source::of(Party::Peer(cluster("lima")), None);
    let held = join_all((0..PLACES).map(|_| {
        let admission = world.role.admission.clone();
        let source = source.clone();
        async move { admission.enter(Kind::Inbound, &source, soon()).await }
    }));
    let held = held.await;
    assert!(held.iter().all(Result::is_ok));
    let mut hurried = from("tokyo");
    hurried.deadline = Instant::now() + Duration::from_millis(50);
    let login = request("ana", "13579", "SEP1");
    let refused = world.role.login(&hurried, &login).await.unwrap_err();
    assert!(matches!(refused, Error::NotAdmitted(_)), "{refused}");
    // What another node has answered is told without a place, and so is what it asks for once more.
    let second = world.another_node();
    let answered = request("ana", "13579", "SEP3");
    second.login(&from("tokyo"), &answered).await.unwrap();
    world.role.login(&from("tokyo"), &answered).await.unwrap();
    let wrong = request("ana", "00000", "SEP4");
    let refused_there = second.login(&from("tokyo"), &wrong).await.unwrap_err();
    assert!(matches!(refused_there, Error::WrongPin { .. }));
    assert_eq!(code(&world, "tokyo", &wrong).await, 2);
    let refusal = refused.to_refusal(false);
    assert_eq!(refusal.code, EmCode::Busy);
    assert!(
        matches!(refusal.detail, Detail::RetryAfter(_)),
        "{refusal:?}"
    );
    // Our own phones were admitted where they called.
    let own = request("bob", "13579", "SEP2");
    world.role.login(&from("berlin"), &own).await.unwrap();
    drop(held);
    // The refusal is not kept: the same id may come again.
    world.role.login(&from("tokyo"), &login).await.unwrap();
}

/// A copy of a login waits for its PIN check while another node answers: its hash would be for nobody.
#[tokio::test]
async fn a_copy_that_was_answered_while_it_waited_is_not_hashed() {
    let world = world(1).await;
    let (source, login) = (
        Source::of(Party::Phones, None),
        request("ana", "13579", "SEP1"),
    );
    let worker = world.role.credentials.turn(&source, soon()).await.unwrap();
    let context = from("tokyo");
    let copy = world.role.login(&context, &login);
    let answer = async {
        while world.role.credentials.counts().waiting == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let second = world.another_node();
        let answer = second.login(&from("tokyo"), &login).await.unwrap();
        // The hash that is on record by now can't be checked: who hashed all the same would fail.
        world
            .store
            .write(|tx: &mut dyn Transaction| {
                tx.execute("UPDATE credentials SET phc = 'none'", &[])
            })
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(25)).await;
        drop(worker);
        answer
    };
    let (copied, answered) = tokio::join!(copy, answer);
    assert_eq!(copied.unwrap(), answered);
    assert_eq!(world.held().await, 1);
}

#[test]
fn what_is_busy_says_when_to_come_back_and_what_failed_says_nothing_of_us() {
    for busy in [Error::Contended, Error::Store(store::Error::Busy)] {
        let refusal = busy.to_refusal(false);
        assert_eq!(refusal.code, EmCode::Busy);
        assert_eq!(refusal.detail, Detail::RetryAfter(Duration::from_secs(1)));
        assert!(refusal.cause.contains("busy"), "{refusal}");
    }
    let failed = Error::Store(store::Error::Unsupported("SELECT secret")).to_refusal(false);
    assert_eq!(failed.code, EmCode::DatabaseError);
    assert!(!failed.cause.contains("SELECT"), "{failed}");
}

mod elsewhere;
mod expiry;
mod profiles_and_tickets;
mod retirement;
mod revocation;
mod set_clocks;

#[tokio::test]
async fn a_caller_without_a_record_leaves_no_rows() {
    let world = world(1).await;
    for n in 0..20 {
        let mut login = request("ana", "13579", &format!("SEP{n}"));
        login.supersedes = vec![SessionId::from_uuid(Uuid::now_v7())];
        assert_eq!(code(&world, "paris", &login).await, 35);
        let logout = logout_of(login.session_id);
        let refused = world.role.logout(&from("paris"), logout).await;
        assert!(
            matches!(refused, Err(Error::CallerUnknown(_))),
            "{refused:?}"
        );
    }
    let mut rows = Vec::new();
    for table in ["answers", "audit", "sessions", "tickets"] {
        let count = move |tx: &mut dyn Transaction| {
            let row = tx.query_one(&format!("SELECT count(*) FROM {table}"), &[])?;
            row.unwrap().int()
        };
        rows.push(world.store.read(count).await.unwrap());
    }
    assert_eq!(rows, [0, 0, 0, 0]);
}
