//! Visiting's order, the search for the home, and the row that says who is on a phone, against scripted homes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::*;

mod choices;
mod late;
mod names;
mod secure;

use crate::{
    chance::Chance,
    domain::{
        cluster_time::Reading,
        em_code::EmCode,
        federation::Claim,
        ids::{DevicePoolName, ProfileName, UserId},
        login::{
            Answer, FindUser, HomeServices, LoginAnswer, LoginRequest, LoginType, Ownership,
            ProfileChoice, Proof, SecurityMode,
        },
        parameters::Parameters,
        refusal::{Detail, Refusal},
        session::Initiator,
    },
    home::HomeRole,
    secret::Pin,
    store::{
        self, audit, cluster_time,
        devices::Device,
        peers, pools,
        trust_entries::{self, EntryKind, TrustEntry},
    },
};

/// A home cluster that answers as it was told, and counts what reached it.
struct Script {
    name: ClusterId,
    find: Mutex<Option<Result<Ownership, Refusal>>>,
    login: Mutex<Option<Result<(), Refusal>>>,
    /// Who answers a login in its place, and what our `Hello` told it of us.
    real: Option<(HomeRole, Traits)>,
    /// What it asks whoever comes with a PIN.
    choice: Mutex<Option<ProfileChoice>>,
    traits: Mutex<Option<Traits>>,
    /// It is no peer any more.
    gone: AtomicBool,
    /// Where the phone of the newest login stands.
    place: Mutex<BTreeMap<String, String>>,
    /// The profile of the newest login.
    profile: Mutex<Option<ProfileName>>,
    /// Never answers a login.
    silent: bool,
    /// Answers a login when told so.
    gate: Option<Arc<Notify>>,
    /// The only name that is its own, whatever else it was told.
    owns: Option<&'static str>,
    claim: Mutex<Claim>,
    logins: AtomicUsize,
    finds: AtomicUsize,
    logouts: Mutex<Vec<SessionId>>,
    supersedes: Mutex<Vec<SessionId>>,
    refuse_logout: bool,
    /// It never answers a logout.
    mute: bool,
    /// The reason that it has on record for every end, whatever it is told.
    ended_for: Option<EndReason>,
}

impl Script {
    fn new(name: &str) -> Self {
        Self {
            name: cluster(name),
            find: Mutex::default(),
            login: Mutex::default(),
            real: None,
            choice: Mutex::default(),
            traits: Mutex::default(),
            gone: AtomicBool::default(),
            place: Mutex::default(),
            profile: Mutex::default(),
            silent: false,
            gate: None,
            owns: None,
            claim: Mutex::new(Claim::Unrestricted),
            logins: AtomicUsize::default(),
            finds: AtomicUsize::default(),
            logouts: Mutex::default(),
            supersedes: Mutex::default(),
            refuse_logout: false,
            mute: false,
            ended_for: None,
        }
    }
    fn finding(self, answer: Result<Ownership, EmCode>) -> Self {
        self.finding_exactly(answer.map_err(|code| Refusal::new(code, "as scripted")))
    }
    fn finding_exactly(self, answer: Result<Ownership, Refusal>) -> Self {
        *self.find.lock().unwrap() = Some(answer);
        self
    }
    fn refusing(self, refusal: Refusal) -> Self {
        *self.login.lock().unwrap() = Some(Err(refusal));
        self
    }
}

impl HomeCluster for Script {
    fn cluster_id(&self) -> &ClusterId {
        &self.name
    }

    fn find_user<'a>(&'a self, _: &'a Context, query: &'a FindUser) -> Answer<'a, Ownership> {
        self.finds.fetch_add(1, Ordering::SeqCst);
        let answer = match self.owns {
            Some(name) if query.name.as_str() == name => Some(Ok(Ownership::Mine)),
            Some(_) => Some(Ok(Ownership::NotMine)),
            None => self.find.lock().unwrap().clone(),
        };
        Box::pin(async move { answer.unwrap_or(Ok(Ownership::NotMine)) })
    }

    fn login<'a>(
        &'a self,
        context: &'a Context,
        request: &'a LoginRequest,
    ) -> Answer<'a, LoginAnswer> {
        self.logins.fetch_add(1, Ordering::SeqCst);
        if let Some((role, traits)) = &self.real {
            let context = Context {
                traits: *traits,
                ..context.clone()
            };
            return Box::pin(async move {
                let answer = role.login(&context, request).await;
                answer.map_err(|error| error.to_refusal(false))
            });
        }
        *self.supersedes.lock().unwrap() = request.supersedes.clone();
        let answer = self.login.lock().unwrap().clone().unwrap_or(Ok(()));
        *self.place.lock().unwrap() = request.geolocation.clone();
        *self.profile.lock().unwrap() = request.profile.clone();
        let user = request.user.name.to_string();
        let choice = match request.proof {
            Proof::Pin(_) => self.choice.lock().unwrap().clone(),
            _ => None,
        };
        Box::pin(async move {
            if self.silent {
                std::future::pending::<()>().await;
            }
            if let Some(gate) = &self.gate {
                gate.notified().await;
            }
            answer.map(|()| match choice {
                Some(choice) => LoginAnswer::Choose(choice),
                None => services(&user).into(),
            })
        })
    }

    fn logout<'a>(&'a self, _: &'a Context, request: LogoutRequest) -> Answer<'a, EndReason> {
        self.logouts.lock().unwrap().push(request.session_id);
        let refused = self.refuse_logout;
        let reason = self.ended_for.unwrap_or(request.reason);
        Box::pin(async move {
            if self.mute {
                std::future::pending::<()>().await;
            }
            if refused {
                Err(Refusal::new(EmCode::ServiceConnectionError, "cut off"))
            } else {
                Ok(reason)
            }
        })
    }

    fn traits(&self) -> Option<Traits> {
        *self.traits.lock().unwrap()
    }
}

struct Peers(Vec<Arc<Script>>);

impl Federation for Peers {
    fn enabled(&self) -> Vec<Arc<dyn HomeCluster>> {
        let there = self.0.iter().filter(|p| !p.gone.load(Ordering::SeqCst));
        there
            .map(|p| Arc::clone(p) as Arc<dyn HomeCluster>)
            .collect()
    }
    fn get(&self, cluster: &ClusterId) -> Option<Arc<dyn HomeCluster>> {
        self.enabled()
            .into_iter()
            .find(|p| p.cluster_id() == cluster)
    }
    fn claim(&self, cluster: &ClusterId, _: &FindUser) -> Claim {
        self.0
            .iter()
            .find(|p| p.cluster_id() == cluster)
            .map_or(Claim::Excluded, |p| *p.claim.lock().unwrap())
    }
}

fn cluster(name: &str) -> ClusterId {
    ClusterId::new(name).unwrap()
}

fn services(user: &str) -> HomeServices {
    HomeServices {
        user_id: UserId::new(user).unwrap(),
        profile: ProfileName::new("p").unwrap(),
        base_device: None,
        call_managers: Vec::new(),
        tftp_servers: Vec::new(),
        device_pool: None,
        lines: Vec::new(),
        locale: None,
        remaining: None,
        reset: false,
        restart_reason: None,
        phone_services: Vec::new(),
    }
}

struct World {
    role: VisitingRole,
    store: Store,
    clock: Clock,
    parameters: parameters::Live,
    admission: Admission,
    local: Arc<Script>,
    peers: Vec<Arc<Script>>,
}

fn limit(requests: u32) -> Parameters {
    Parameters {
        maximum_concurrent_requests: requests,
        ..Parameters::default()
    }
}

async fn world(peers: Vec<Script>) -> World {
    world_with(peers, Script::new("tokyo"), Duration::from_secs(5)).await
}

async fn world_with(peers: Vec<Script>, local: Script, login_deadline: Duration) -> World {
    world_on("sqlite::memory:", peers, local, login_deadline).await
}

async fn world_on(url: &str, peers: Vec<Script>, local: Script, login_deadline: Duration) -> World {
    world_of(
        Traits::ours(SecurityMode::NonSecure),
        url,
        peers,
        local,
        login_deadline,
    )
    .await
}

async fn world_of(
    traits: Traits,
    url: &str,
    peers: Vec<Script>,
    local: Script,
    login_deadline: Duration,
) -> World {
    let names: Vec<_> = peers.iter().map(|peer| peer.name.clone()).collect();
    let store = Store::open(&store::Config {
        url: url.to_owned(),
        node: "n1".to_owned(),
    })
    .unwrap();
    let clock = Clock::system();
    store
        .write(move |tx: &mut dyn Transaction| {
            for (n, name) in (1..).zip(&names) {
                peers::upsert(tx, &record(name.as_str()))?;
                trust_entries::add(tx, &pinned(name, n))?;
            }
            for (name, em_enabled, emcc) in [
                ("SEPSEC", true, true),
                ("SEP1", true, true),
                ("SEP2", true, true),
                ("SEPOFF", false, true),
                ("SEPOLD", true, false),
            ] {
                devices::upsert(
                    tx,
                    &Device {
                        name: DeviceName::new(name).unwrap(),
                        model: "CP-8841".to_owned(),
                        protocol: "SIP".to_owned(),
                        security_mode: match name {
                            "SEPSEC" => SecurityMode::Secure,
                            _ => SecurityMode::NonSecure,
                        },
                        emcc,
                        em_enabled,
                        device_pool: None,
                        locale: None,
                        geolocation: BTreeMap::new(),
                        location: None,
                        services: Vec::new(),
                    },
                )?;
            }
            Ok::<_, store::Error>(())
        })
        .await
        .unwrap();
    let local = Arc::new(local);
    let (parameters, admission) = (parameters::Live::new(limit(2)), Admission::new(2));
    let peers: Vec<_> = peers.into_iter().map(Arc::new).collect();
    let tasks = Tasks::default();
    let role = VisitingRole::new(Parts {
        config: Config {
            cluster: cluster("tokyo"),
            login_deadline,
            find_deadline: Duration::from_millis(500),
            newest_version: Version::CURRENT,
            traits,
        },
        store: store.clone(),
        clock: clock.clone(),
        local: Arc::clone(&local) as Arc<dyn HomeCluster>,
        federation: Arc::new(Peers(peers.clone())),
        faults: FaultPoints::none(),
        parameters: parameters.clone(),
        admission: admission.clone(),
        membership: Membership::of(&store),
        tasks,
        owed: Arc::new(Notify::new()),
        chance: Chance::system(),
    });
    World {
        role,
        store,
        clock,
        parameters,
        admission,
        local,
        peers,
    }
}

impl World {
    fn submission(&self, device: &str, name: &str) -> PhoneLogin {
        PhoneLogin {
            device: device.to_owned(),
            login_type: LoginType::Uid,
            name: name.to_owned(),
            pin: Some(Pin::new("13579".to_owned()).unwrap()),
            emcc: true,
            caller: caller(),
            reference: self.role.new_ref(),
        }
    }

    async fn login(&self, device: &str, name: &str) -> Result<LoggedIn, Failure> {
        match self.role.login(self.submission(device, name)).await? {
            LoginOutcome::LoggedIn(done) => Ok(*done),
            LoginOutcome::Choose(choice) => panic!("asked: {choice:?}"),
        }
    }

    /// Cluster time is further by so much at once.
    async fn time_goes_on(&self, by_ms: u64) {
        self.store
            .write(move |tx: &mut dyn Transaction| {
                let at = tx.cluster_now()?.plus(Duration::from_millis(by_ms));
                cluster_time::put(tx, Reading::first(at))
            })
            .await
            .unwrap();
    }

    async fn code(&self, device: &str, name: &str) -> u16 {
        self.login(device, name).await.unwrap_err().code.number()
    }

    async fn owed(&self, to: &str) -> usize {
        let to = cluster(to);
        self.store
            .read(move |tx: &mut dyn Transaction| sessions::owed(tx, &to, 100))
            .await
            .unwrap()
            .len()
    }

    /// What the audit says of each login, the newest first.
    async fn audit(&self) -> Vec<String> {
        let all = self
            .store
            .read(|tx: &mut dyn Transaction| audit::list(tx, 100))
            .await
            .unwrap();
        all.into_iter().map(|entry| entry.outcome).collect()
    }

    async fn free(&self, device: &str) -> bool {
        self.role.phone_state(device).await.unwrap() == PhoneState::Nobody
    }

    fn pins_sent(&self) -> usize {
        self.peers
            .iter()
            .map(|p| p.logins.load(Ordering::SeqCst))
            .sum()
    }
}

const fn caller() -> Caller {
    Caller {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        via: false,
    }
}

#[tokio::test]
async fn a_remote_login_occupies_the_phone_until_its_logout() {
    let world = world(vec![Script::new("berlin").finding(Ok(Ownership::Mine))]).await;
    let done = world.login("SEP1", "ana").await.unwrap();
    assert_eq!(
        (done.home.as_str(), done.user_id.as_str()),
        ("berlin", "ana")
    );
    assert_eq!(
        world.role.phone_state("sep1").await.unwrap(),
        PhoneState::LoggedIn {
            user: UserId::new("ana").unwrap(),
            home: cluster("berlin")
        }
    );
    assert_eq!(world.code("SEP1", "bob").await, 18);
    let out = world
        .role
        .logout("SEP1", caller(), world.role.new_ref())
        .await
        .unwrap();
    assert!(out.acknowledged);
    assert_eq!(
        world.role.phone_state("SEP1").await.unwrap(),
        PhoneState::Nobody
    );
    assert_eq!(world.owed("berlin").await, 0);
    let nobody = world
        .role
        .logout("SEP1", caller(), world.role.new_ref())
        .await
        .unwrap_err();
    assert_eq!(nobody.code.number(), 19);
}

#[tokio::test]
async fn the_phone_is_checked_before_anybody_is_asked() {
    let world = world(vec![Script::new("berlin").finding(Ok(Ownership::Mine))]).await;
    assert_eq!(world.code("SEP404", "ana").await, 11);
    assert_eq!(world.code("bad name\u{0}", "ana").await, 11);
    assert_eq!(world.code("SEPOFF", "ana").await, 22);
    assert_eq!(world.code("SEP1", "  ").await, 202);
    let mut blank = world.submission("SEP1", "ana");
    blank.pin = None;
    assert_eq!(
        world.role.login(blank).await.unwrap_err().code.number(),
        202
    );
    assert_eq!(world.peers[0].finds.load(Ordering::SeqCst), 0);
    assert_eq!(
        world.code("SEPOLD", "ana").await,
        213,
        "the model can't take another cluster's user"
    );
    assert_eq!(world.pins_sent(), 0);
}

#[tokio::test]
async fn local_users_win_and_no_peer_hears_of_them() {
    let local = Script::new("tokyo").finding(Ok(Ownership::Mine));
    let world = world_with(
        vec![Script::new("berlin").finding(Ok(Ownership::Mine))],
        local,
        Duration::from_secs(5),
    )
    .await;
    assert_eq!(
        world.login("SEPOLD", "ana").await.unwrap().home,
        cluster("tokyo")
    );
    assert_eq!(world.peers[0].finds.load(Ordering::SeqCst), 0);
    assert_eq!(world.local.logins.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn refusals_that_home_does_not_keep_leave_a_debt_and_the_others_none() {
    for (code, is_one_of_several, owed) in [
        (2, false, 0),
        (23, false, 0),
        (31, false, 0),
        (1, false, 0),
        // Another node may have done what this one could not read.
        (1, true, 1),
        (6, false, 1),
        (26, false, 1),
        (33, false, 1),
        (208, false, 1),
        (40, false, 1),
    ] {
        let refusal = Refusal {
            is_one_of_several,
            ..Refusal::new(EmCode::from_number(code).unwrap(), "as scripted")
        };
        let world = world(vec![
            Script::new("berlin")
                .finding(Ok(Ownership::Mine))
                .refusing(refusal),
        ])
        .await;
        // After 23 from a home that just claimed the user there is nothing more to ask.
        assert_eq!(world.code("SEP1", "ana").await, code);
        assert_eq!(world.owed("berlin").await, owed, "code {code}");
        assert_eq!(
            world.role.phone_state("SEP1").await.unwrap(),
            PhoneState::Nobody
        );
    }
}

#[tokio::test]
async fn what_is_owed_goes_along_with_the_next_login() {
    let refusal =
        Refusal::new(EmCode::Busy, "busy").with_detail(Detail::RetryAfter(Duration::from_secs(3)));
    let world = world(vec![
        Script::new("berlin")
            .finding(Ok(Ownership::Mine))
            .refusing(refusal),
    ])
    .await;
    let busy = world.login("SEP1", "ana").await.unwrap_err();
    assert_eq!(busy.retry_after, Some(Duration::from_secs(3)));
    *world.peers[0].login.lock().unwrap() = None;
    world.login("SEP1", "ana").await.unwrap();
    assert_eq!(world.peers[0].supersedes.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn no_login_begins_at_a_peer_that_is_being_removed() {
    let berlin = Script::new("berlin").finding(Ok(Ownership::Mine));
    let world = world(vec![berlin]).await;
    let until = world.clock.now().plus(Duration::from_secs(60));
    let mark = |until| {
        world.store.write(move |tx: &mut dyn Transaction| {
            peers::set_leaving(tx, &cluster("berlin"), until)?;
            // Who changes the record meanwhile takes no mark away.
            peers::upsert(tx, &record("berlin"))
        })
    };
    mark(Some(until)).await.unwrap();
    let refused = world.login("SEP1", "ana").await.unwrap_err();
    assert_eq!(refused.code.number(), 38);
    assert!(refused.cause.contains("removed"), "{refused}");
    assert_eq!(world.pins_sent(), 0);
    assert!(world.free("SEP1").await);
    mark(None).await.unwrap();
    world.login("SEP1", "ana").await.unwrap();
}

/// An operator of ours takes all trust in it back while a login is under way: no PIN goes there.
#[tokio::test]
async fn no_login_begins_at_a_peer_of_which_nothing_is_accepted_any_more() {
    let berlin = Script::new("berlin").finding(Ok(Ownership::Mine));
    let world = world(vec![berlin]).await;
    let withdraw = |tx: &mut dyn Transaction| {
        trust_entries::withdraw(tx, &cluster("berlin"), &[1; 32]).map(drop)
    };
    world.store.write(withdraw).await.unwrap();
    let refused = world.login("SEP1", "ana").await.unwrap_err();
    assert_eq!(refused.code.number(), 208, "{refused}");
    assert!(
        refused.cause.contains("emccd trust add berlin"),
        "{refused}"
    );
    assert_eq!(world.pins_sent(), 0);
    assert!(world.free("SEP1").await);
    let accept = |tx: &mut dyn Transaction| trust_entries::add(tx, &pinned(&cluster("berlin"), 1));
    world.store.write(accept).await.unwrap();
    world.login("SEP1", "ana").await.unwrap();
}

#[tokio::test]
async fn no_login_begins_at_a_peer_that_is_gone_since_it_was_found() {
    let berlin = Script::new("berlin").finding(Ok(Ownership::Mine));
    let world = world(vec![berlin]).await;
    for disabled in [true, false] {
        world
            .store
            .write(move |tx: &mut dyn Transaction| {
                let mut gone = record("berlin");
                gone.enabled = !disabled;
                peers::upsert(tx, &gone)?;
                if !disabled {
                    peers::remove(tx, &gone.cluster_id)?;
                }
                Ok::<_, store::Error>(())
            })
            .await
            .unwrap();
        let refused = world.login("SEP1", "ana").await.unwrap_err();
        assert_eq!(refused.code.number(), 38, "{refused}");
        assert_eq!(world.pins_sent(), 0);
        assert!(world.free("SEP1").await);
    }
}

/// What is accepted from a peer: the certificate of that number.
fn pinned(name: &ClusterId, n: u8) -> TrustEntry {
    TrustEntry {
        cluster_id: name.clone(),
        kind: EntryKind::Pinned,
        fingerprint: [n; 32],
        der: vec![n],
        added_at: crate::clock::Timestamp::from_millis(1),
        source: trust_entries::Source::Operator,
        alias: None,
    }
}

fn record(name: &str) -> peers::Peer {
    peers::Peer {
        cluster_id: cluster(name),
        enabled: true,
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

#[tokio::test]
async fn silence_of_home_is_40_the_phone_is_free_again_and_home_is_owed() {
    let mut silent = Script::new("berlin").finding(Ok(Ownership::Mine));
    silent.silent = true;
    let world = world_with(
        vec![silent],
        Script::new("tokyo"),
        Duration::from_millis(400),
    )
    .await;
    let racing = world.role.login(world.submission("SEP1", "ana"));
    let other = async {
        // While the first is pending the phone is busy; the event is the login having reached home.
        while world.pins_sent() == 0 {
            tokio::task::yield_now().await;
        }
        (
            world.role.phone_state("SEP1").await.unwrap(),
            world.code("SEP1", "bob").await,
        )
    };
    let (first, (state, second)) = tokio::join!(racing, other);
    assert_eq!((state, second), (PhoneState::Busy, 26));
    assert_eq!(first.unwrap_err().code.number(), 40);
    assert_eq!(
        world.role.phone_state("SEP1").await.unwrap(),
        PhoneState::Nobody
    );
    assert_eq!(world.owed("berlin").await, 1);
}

/// A world whose requests take no longer than that.
async fn brief() -> World {
    world_with(
        vec![Script::new("berlin").finding(Ok(Ownership::Mine))],
        Script::new("tokyo"),
        Duration::from_millis(400),
    )
    .await
}

impl World {
    /// Somebody else's request, in progress until it is dropped.
    async fn in_progress(&self, kind: Kind) -> Permit {
        let source = Source::of(Party::Phones, Some([198, 51, 100, 7].into()));
        let soon = Instant::now() + Duration::from_secs(60);
        let entered = self.admission.enter(kind, &source, soon);
        entered.await.unwrap()
    }
}

#[tokio::test]
async fn beyond_the_limit_of_requests_one_waits_and_then_it_is_26_with_a_time() {
    let world = brief().await;
    let first = world.in_progress(Kind::Login).await;
    let second = world.in_progress(Kind::Login).await;
    // Admission comes first: nothing is looked at, and no PIN goes anywhere.
    let refused = world.login("SEPNONE", "ana").await.unwrap_err();
    assert_eq!(refused.code, EmCode::Busy);
    assert!(refused.retry_after.is_some(), "{refused:?}");
    assert!(refused.cause.contains("all 2 places"), "{refused}");
    assert_eq!(world.pins_sent(), 0);
    // One that waits gets the place that becomes free.
    let (waited, ()) = tokio::join!(biased; world.code("SEPNONE", "ana"), async {
        drop(first);
    });
    assert_eq!(waited, 11);
    drop(second);
    let counts = world.admission.counts(Kind::Login);
    assert_eq!((counts.running, counts.waiting, counts.refused), (0, 0, 1));
}

#[tokio::test]
async fn another_limit_holds_for_the_next_request() {
    let world = brief().await;
    let _held = world.in_progress(Kind::Login).await;
    // The phone is not known, which is looked at only when there is a place.
    let mut codes = vec![world.code("SEPNONE", "ana").await];
    for requests in [1, 2] {
        world.admission.set_places(requests);
        codes.push(world.code("SEPNONE", "ana").await);
    }
    assert_eq!(codes, [11, 26, 11]);
}

#[tokio::test]
async fn a_logout_waits_behind_logouts_only() {
    let world = brief().await;
    let logins = (
        world.in_progress(Kind::Login).await,
        world.in_progress(Kind::Login).await,
        world.in_progress(Kind::Inbound).await,
    );
    let logout = || world.role.logout("SEP1", caller(), world.role.new_ref());
    assert_eq!(logout().await.unwrap_err().code, EmCode::NoUserLoggedIn);
    let logouts = (
        world.in_progress(Kind::Logout).await,
        world.in_progress(Kind::Logout).await,
    );
    let refused = logout().await.unwrap_err();
    assert_eq!(refused.code, EmCode::Busy);
    assert!(refused.retry_after.is_some());
    drop((logins, logouts));
}

#[tokio::test]
async fn a_home_that_never_answers_a_logout_holds_up_no_other_one() {
    let mut mute = Script::new("berlin").finding(Ok(Ownership::Mine));
    mute.mute = true;
    let limit = Duration::from_secs(2);
    let world = world_with(vec![mute], Script::new("tokyo"), limit).await;
    for (device, user) in [("SEP1", "ana"), ("SEP2", "bob")] {
        world.login(device, user).await.unwrap();
    }
    world.admission.set_places(1);
    let logout = |device| world.role.logout(device, caller(), world.role.new_ref());
    let began = Instant::now();
    let (first, second) = tokio::join!(logout("SEP1"), logout("SEP2"));
    assert!(!first.unwrap().acknowledged && !second.unwrap().acknowledged);
    // The line, the end and the telling have one deadline together.
    assert!(began.elapsed() < limit * 2);
    assert_eq!(world.owed("berlin").await, 2);
}

#[tokio::test]
async fn a_login_that_waits_when_the_node_ends_is_told_so() {
    let world = brief().await;
    let held = (
        world.in_progress(Kind::Login).await,
        world.in_progress(Kind::Login).await,
    );
    let (refused, ()) = tokio::join!(biased; world.login("SEP1", "ana"), async {
        world.admission.close_at(Instant::now());
    });
    let refused = refused.unwrap_err();
    assert_eq!(refused.code, EmCode::Busy);
    assert!(refused.cause.contains("shutting down"), "{refused}");
    assert!(refused.retry_after.is_some());
    drop(held);
}

#[tokio::test]
async fn a_logout_that_home_can_not_be_told_is_owed() {
    let mut cut = Script::new("berlin").finding(Ok(Ownership::Mine));
    cut.refuse_logout = true;
    let world = world(vec![cut]).await;
    world.login("SEP1", "ana").await.unwrap();
    let out = world
        .role
        .logout("SEP1", caller(), world.role.new_ref())
        .await
        .unwrap();
    assert!(!out.acknowledged);
    assert_eq!(
        world.role.phone_state("SEP1").await.unwrap(),
        PhoneState::Nobody,
        "the phone is free all the same"
    );
    assert_eq!(world.owed("berlin").await, 1);
}

#[tokio::test]
async fn home_ends_only_its_own_session_and_a_late_answer_finds_the_tombstone() {
    let world = world(vec![
        Script::new("berlin").finding(Ok(Ownership::Mine)),
        Script::new("lima"),
    ])
    .await;
    world.login("SEP1", "ana").await.unwrap();
    let id = world
        .store
        .read(|tx: &mut dyn Transaction| {
            sessions::active_on_device(tx, Role::Visiting, &DeviceName::new("SEP1").unwrap())
        })
        .await
        .unwrap()
        .unwrap()
        .id;
    let request = LogoutRequest {
        session_id: id,
        reason: EndReason::Operator,
        initiator: Initiator::Home,
    };
    let of = |name: &str| Context {
        caller: cluster(name),
        ..world
            .role
            .inner
            .context(world.role.new_ref(), Duration::from_secs(5))
    };
    world
        .role
        .end_from_home(&of("lima"), request)
        .await
        .unwrap();
    assert!(matches!(
        world.role.phone_state("SEP1").await.unwrap(),
        PhoneState::LoggedIn { .. }
    ));
    world
        .role
        .end_from_home(&of("berlin"), request)
        .await
        .unwrap();
    assert_eq!(
        world.role.phone_state("SEP1").await.unwrap(),
        PhoneState::Nobody
    );
    assert_eq!(
        world.owed("berlin").await,
        0,
        "home knows: it said so itself"
    );
}

#[tokio::test]
async fn what_a_stranger_can_cause_without_a_pin_being_checked_fills_no_audit() {
    let nobody = world(vec![Script::new("berlin")]).await;
    assert_eq!(nobody.code("SEP404", "ana").await, 11);
    assert_eq!(nobody.code("SEPOFF", "ana").await, 22);
    assert_eq!(nobody.code("SEP1", "ana").await, 23);
    assert_eq!(nobody.code("SEP1", "a\u{7}").await, 23);
    assert!(nobody.audit().await.is_empty());
    let alone = world(Vec::new()).await;
    assert_eq!(alone.code("SEP1", "ana").await, 36);
    assert!(alone.audit().await.is_empty());
    let taken = world(vec![Script::new("berlin").finding(Ok(Ownership::Mine))]).await;
    taken.login("SEP1", "ana").await.unwrap();
    assert_eq!(taken.code("SEP1", "bob").await, 18);
    assert_eq!(taken.code("SEPOLD", "bob").await, 213);
    assert_eq!(taken.audit().await, ["success"]);
}

#[tokio::test]
async fn looking_at_a_phone_changes_nothing() {
    let mut silent = Script::new("berlin").finding(Ok(Ownership::Mine));
    silent.silent = true;
    let world = world(vec![silent]).await;
    let looking = async {
        while world.pins_sent() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!world.free("SEP1").await);
        world.time_goes_on(60_000).await;
        let before = world.store.stats().writes;
        assert!(world.free("SEP1").await, "overdue");
        assert_eq!(world.store.stats().writes, before);
        // The next login ends it first; home is owed it.
        *world.peers[0].find.lock().unwrap() = None;
        assert_eq!(world.code("SEP1", "bob").await, 23);
        assert_eq!(world.owed("berlin").await, 1);
    };
    tokio::select! {
        biased;
        _ = world.login("SEP1", "ana") => panic!("home is silent"),
        () = looking => {}
    }
}

#[tokio::test]
async fn where_addresses_are_checked_only_trusted_callers_are_heard() {
    let world = world(vec![Script::new("berlin").finding(Ok(Ownership::Mine))]).await;
    let from = |trusted: &[IpAddr], allow_proxy: bool| Parameters {
        validate_ip_address: true,
        trusted_ips: trusted.iter().copied().collect(),
        allow_proxy,
        ..Parameters::default()
    };
    let (here, there) = (caller().address, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
    let log_out = async |caller: Caller| {
        let outcome = world
            .role
            .logout("SEP1", caller, world.role.new_ref())
            .await;
        outcome.map_err(|failure| failure.code.number())
    };
    // The phone's name tells nothing to who is not heard.
    world.parameters.publish(from(&[there], true));
    assert_eq!(world.code("SEPNONE", "ana").await, 28);
    assert_eq!(world.code("SEP1", "ana").await, 28);
    assert_eq!(log_out(caller()).await.unwrap_err(), 28);
    assert_eq!(world.pins_sent(), 0);

    world.parameters.publish(from(&[here, there], false));
    let mapped = Caller {
        address: IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()),
        via: false,
    };
    let proxied = Caller {
        via: true,
        ..caller()
    };
    assert_eq!(log_out(proxied).await.unwrap_err(), 30);
    assert_eq!(log_out(mapped).await.unwrap_err(), 19, "it is heard");
    world.login("SEP1", "ana").await.unwrap();
    world.parameters.publish(from(&[here], true));
    log_out(proxied).await.unwrap();
    world.parameters.publish(Parameters::default());
    assert_eq!(log_out(proxied).await.unwrap_err(), 19);
}

#[tokio::test]
async fn a_cluster_without_a_record_ends_nothing_and_leaves_no_rows() {
    let world = world(vec![Script::new("berlin")]).await;
    let context = Context {
        caller: cluster("paris"),
        ..world
            .role
            .inner
            .context(world.role.new_ref(), Duration::from_secs(5))
    };
    for _ in 0..20 {
        let request = LogoutRequest {
            session_id: world.role.inner.new_session_id(),
            reason: EndReason::Operator,
            initiator: Initiator::Home,
        };
        let refused = world.role.end_from_home(&context, request).await;
        let refusal = refused.unwrap_err().to_refusal();
        assert_eq!(refusal.code, EmCode::VisitingClusterUnknown);
    }
    let all = sessions::Filter::default();
    let rows = world
        .store
        .read(move |tx: &mut dyn Transaction| sessions::list(tx, &all))
        .await;
    assert!(rows.unwrap().is_empty() && world.audit().await.is_empty());
}

#[tokio::test]
async fn home_is_told_where_the_phone_stands_by_itself_or_by_its_pool() {
    let world = world(vec![Script::new("berlin").finding(Ok(Ownership::Mine))]).await;
    let place = |country: &str| BTreeMap::from([("country".to_owned(), country.to_owned())]);
    let stands = |own: BTreeMap<String, String>, pool: Option<&'static str>| {
        let store = world.store.clone();
        async move {
            store
                .write(move |tx: &mut dyn Transaction| {
                    let sep1 = DeviceName::new("SEP1").unwrap();
                    let mut device = devices::get(tx, &sep1)?.unwrap();
                    device.geolocation = own.clone();
                    device.device_pool = pool.map(|name| DevicePoolName::new(name).unwrap());
                    devices::upsert(tx, &device)
                })
                .await
                .unwrap();
        }
    };
    let fields = place("JP");
    world
        .store
        .write(move |tx: &mut dyn Transaction| {
            let pool = pools::DevicePool {
                name: DevicePoolName::new("Tokyo").unwrap(),
                geolocation: fields.clone(),
                location: None,
                call_managers: Vec::new(),
                call_group: None,
                tftp_servers: Vec::new(),
                roaming: false,
            };
            pools::upsert(tx, &pool)
        })
        .await
        .unwrap();
    for (own, pool, told) in [
        (BTreeMap::new(), None, BTreeMap::new()),
        (BTreeMap::new(), Some("Tokyo"), place("JP")),
        (place("DE"), Some("Tokyo"), place("DE")),
        (place("DE"), None, place("DE")),
        (BTreeMap::new(), Some("Gone"), BTreeMap::new()),
    ] {
        stands(own, pool).await;
        world.login("SEP1", "ana").await.unwrap();
        assert_eq!(*world.peers[0].place.lock().unwrap(), told, "{pool:?}");
        let reference = world.role.new_ref();
        world
            .role
            .logout("SEP1", caller(), reference)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn of_two_reasons_for_an_end_that_of_home_stays() {
    let mut berlin = Script::new("berlin").finding(Ok(Ownership::Mine));
    berlin.ended_for = Some(EndReason::Superseded);
    let world = world(vec![berlin]).await;
    world.login("SEP1", "ana").await.unwrap();
    let reference = world.role.new_ref();
    world
        .role
        .logout("SEP1", caller(), reference)
        .await
        .unwrap();
    let all = sessions::Filter::default();
    let rows = world
        .store
        .read(move |tx: &mut dyn Transaction| sessions::list(tx, &all))
        .await
        .unwrap();
    let reasons: Vec<_> = rows.iter().map(|row| row.end_reason).collect();
    assert_eq!(reasons, [Some(EndReason::Superseded)]);
}
