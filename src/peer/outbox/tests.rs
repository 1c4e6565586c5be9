//! Debts against scripted creditors.

use std::sync::Mutex;

use super::*;
use crate::{
    chance::Chance,
    clock::Timestamp,
    domain::{
        federation::Claim,
        ids::{DeviceName, LoginName, Ref},
        login::{Answer, FindUser, LoginAnswer, LoginRequest, LoginType, Ownership},
        refusal::Refusal,
        session::State,
    },
    store::sessions::Session,
};

/// A creditor that answers as it was told, and notes what reached it.
struct Script {
    name: ClusterId,
    /// Refused until told otherwise, with this code.
    refuses: Mutex<BTreeMap<SessionId, EmCode>>,
    /// Speaks itself, and not our link to it.
    in_person: bool,
    /// Never answers.
    hangs: bool,
    told: Mutex<Vec<SessionId>>,
}

impl Script {
    fn new(name: &str) -> Self {
        Self {
            name: cluster(name),
            refuses: Mutex::default(),
            in_person: true,
            hangs: false,
            told: Mutex::default(),
        }
    }

    fn refusing(self, n: u16, code: EmCode) -> Self {
        self.refuses.lock().unwrap().insert(id(n), code);
        self
    }

    fn hanging(self) -> Self {
        Self {
            hangs: true,
            ..self
        }
    }

    fn told(&self) -> Vec<SessionId> {
        self.told.lock().unwrap().clone()
    }
}

impl HomeCluster for Script {
    fn cluster_id(&self) -> &ClusterId {
        &self.name
    }
    fn find_user<'a>(&'a self, _: &'a Context, _: &'a FindUser) -> Answer<'a, Ownership> {
        panic!("debts are ends")
    }
    fn login<'a>(&'a self, _: &'a Context, _: &'a LoginRequest) -> Answer<'a, LoginAnswer> {
        panic!("debts are ends")
    }
    fn logout<'a>(&'a self, _: &'a Context, request: LogoutRequest) -> Answer<'a, EndReason> {
        self.told.lock().unwrap().push(request.session_id);
        let refused = self
            .refuses
            .lock()
            .unwrap()
            .get(&request.session_id)
            .copied();
        Box::pin(async move {
            if self.hangs {
                std::future::pending::<()>().await;
            }
            refused.map_or(Ok(request.reason), |code| {
                let refusal = Refusal::new(code, "as scripted");
                Err(if self.in_person {
                    refusal.by(self.name.clone())
                } else {
                    refusal
                })
            })
        })
    }
}

struct Peers(Vec<Arc<Script>>);

/// Links that are up, but for those to these; and who was rung for.
#[derive(Debug, Default)]
struct Up {
    down: Mutex<Vec<ClusterId>>,
    rung: Mutex<Vec<ClusterId>>,
    came_up: Mutex<BTreeMap<ClusterId, u64>>,
}

impl Links for Up {
    fn is_up(&self, cluster: &ClusterId) -> bool {
        !self.down.lock().unwrap().contains(cluster)
    }

    fn times_up(&self, cluster: &ClusterId) -> u64 {
        let came_up = self.came_up.lock().unwrap();
        came_up.get(cluster).copied().unwrap_or_default()
    }

    fn ring(&self, cluster: &ClusterId) {
        self.rung.lock().unwrap().push(cluster.clone());
    }
}

impl Federation for Peers {
    fn enabled(&self) -> Vec<Arc<dyn HomeCluster>> {
        self.0
            .iter()
            .map(|p| Arc::clone(p) as Arc<dyn HomeCluster>)
            .collect()
    }
    fn get(&self, cluster: &ClusterId) -> Option<Arc<dyn HomeCluster>> {
        self.enabled()
            .into_iter()
            .find(|p| p.cluster_id() == cluster)
    }
    fn claim(&self, _: &ClusterId, _: &FindUser) -> Claim {
        Claim::Unrestricted
    }
}

/// A running outbox; it ends with its value.
struct World {
    store: Store,
    wake: Arc<Notify>,
    up: Arc<Notify>,
    links: Arc<Up>,
    tasks: Tasks,
}

impl World {
    /// A link to that cluster has come up.
    fn comes_up(&self, name: &str) {
        let mut came_up = self.links.came_up.lock().unwrap();
        *came_up.entry(cluster(name)).or_default() += 1;
        drop(came_up);
        self.up.notify_one();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

fn cluster(name: &str) -> ClusterId {
    ClusterId::new(name).unwrap()
}

fn id(n: u16) -> SessionId {
    let [high, low] = n.to_be_bytes();
    let mut bytes = [7; 16];
    (bytes[14], bytes[15]) = (high, low);
    SessionId::from_bytes(&bytes).unwrap()
}

fn new_store() -> Store {
    Store::open(&store::Config {
        url: "sqlite::memory:".to_owned(),
        node: "n1".to_owned(),
    })
    .unwrap()
}

async fn start(store: &Store, creditors: &[&Arc<Script>], deadline: Duration) -> World {
    let (outbox, world) = outbox(store, creditors, deadline).await;
    world.tasks.spawn("outbox", outbox.run());
    world
}

async fn outbox(store: &Store, creditors: &[&Arc<Script>], deadline: Duration) -> (Outbox, World) {
    let world = World {
        store: store.clone(),
        wake: Arc::default(),
        up: Arc::default(),
        links: Arc::default(),
        tasks: Tasks::default(),
    };
    let outbox = Outbox {
        cluster: cluster("tokyo"),
        store: store.clone(),
        local: Arc::new(Script::new("tokyo")),
        federation: Arc::new(Peers(creditors.iter().map(|c| Arc::clone(c)).collect())),
        links: Arc::clone(&world.links) as Arc<dyn Links>,
        membership: Membership::alone(store, &world.tasks).await,
        clock: Clock::system(),
        wake: Arc::clone(&world.wake),
        up: Arc::clone(&world.up),
        tasks: world.tasks.clone(),
        deadline,
        chance: Chance::system(),
    };
    (outbox, world)
}

/// Puts ends on record that `to` is owed, in the order of their numbers.
async fn owe(store: &Store, to: &str, numbers: std::ops::Range<u16>) {
    let to = cluster(to);
    store
        .write(move |tx: &mut dyn Transaction| {
            for n in numbers.clone() {
                let ended = Session {
                    role: Role::Visiting,
                    counterpart: to.clone(),
                    id: id(n),
                    state: State::Ended,
                    device: DeviceName::new(format!("SEP{n}")).unwrap(),
                    user_id: None,
                    login_type: LoginType::Uid,
                    login_name: LoginName::new("ana").unwrap(),
                    profile: None,
                    base_device: None,
                    services: None,
                    reference: Ref::from_bits(1),
                    created_at: Timestamp::from_millis(1),
                    deadline: None,
                    changed_at: Timestamp::from_millis(i64::from(n)),
                    ended_at: Some(Timestamp::from_millis(1)),
                    end_reason: Some(EndReason::User),
                    initiator: Some(Initiator::Visiting),
                    owed: true,
                    parked: None,
                    parked_at: None,
                };
                sessions::insert(tx, &ended)?;
            }
            Ok::<_, store::Error>(())
        })
        .await
        .unwrap();
}

/// Waits until exactly these are owed.
async fn wait_owed(store: &Store, to: &str, numbers: &[u16]) {
    let wanted: Vec<_> = numbers.iter().map(|n| id(*n)).collect();
    let mut changes = store.changes();
    let settled = async {
        loop {
            changes.mark_unchanged();
            let to = cluster(to);
            let owed = store
                .read(move |tx: &mut dyn Transaction| sessions::owed(tx, &to, 10_000))
                .await
                .unwrap();
            if owed.iter().map(|s| s.id).collect::<Vec<_>>() == wanted {
                return;
            }
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled)
        .await
        .expect("the debts settle");
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn debts_are_delivered_in_order_and_over_several_batches() {
    let (store, berlin) = (new_store(), Arc::new(Script::new("berlin")));
    owe(&store, "berlin", 0..600).await;
    let _world = start(&store, &[&berlin], LONG).await;
    wait_owed(&store, "berlin", &[]).await;
    assert_eq!(berlin.told(), (0..600).map(id).collect::<Vec<_>>());
}

/// What stands in the row of an end, once it is parked.
async fn wait_parked(store: &Store, to: &str, n: u16) -> String {
    let mut changes = store.changes();
    let parked = async {
        loop {
            changes.mark_unchanged();
            let to = cluster(to);
            let row = store
                .read(move |tx: &mut dyn Transaction| sessions::get(tx, Role::Visiting, &to, id(n)))
                .await
                .unwrap();
            if let Some(cause) = row.and_then(|row| row.parked) {
                return cause;
            }
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), parked)
        .await
        .expect("it is parked")
}

fn times(creditor: &Script, n: u16) -> usize {
    let told = creditor.told();
    told.iter().filter(|told| **told == id(n)).count()
}

#[tokio::test]
async fn a_refused_debt_is_parked_holds_up_no_later_one_and_is_told_again_when_a_link_comes_up() {
    // The role's own word that it has no record of us is one that it may take back: it is parked as well, and not lost.
    for code in [EmCode::LogoutRequestError, EmCode::VisitingClusterUnknown] {
        let store = new_store();
        let berlin = Arc::new(Script::new("berlin").refusing(0, code));
        owe(&store, "berlin", 0..300).await;
        let world = start(&store, &[&berlin], LONG).await;
        wait_owed(&store, "berlin", &[0]).await;
        let cause = wait_parked(&store, "berlin", 0).await;
        assert!(cause.contains("as scripted"), "{cause}");
        // A debt made later goes past it too, without asking about it again.
        owe(&store, "berlin", 300..301).await;
        world.wake.notify_one();
        wait_owed(&store, "berlin", &[0]).await;
        assert_eq!(times(&berlin, 0), 1);
        berlin.refuses.lock().unwrap().clear();
        world.comes_up("berlin");
        wait_owed(&store, "berlin", &[]).await;
        assert_eq!(times(&berlin, 0), 2);
    }
}

#[tokio::test]
async fn what_is_parked_stays_so_over_a_restart_and_is_tried_once_for_each_link_up_or_word() {
    let store = new_store();
    let berlin = Arc::new(Script::new("berlin").refusing(0, EmCode::LogoutRequestError));
    owe(&store, "berlin", 0..1).await;
    let first = start(&store, &[&berlin], LONG).await;
    wait_parked(&store, "berlin", 0).await;
    first.tasks.shut_down(Duration::from_secs(20)).await;
    let second = start(&store, &[&berlin], LONG).await;
    owe(&store, "berlin", 1..2).await;
    second.wake.notify_one();
    wait_owed(&store, "berlin", &[0]).await;
    assert_eq!(times(&berlin, 0), 1, "a start is no reason");
    // An operator's word is, and so is a link: each of them once.
    for tried in 2..4 {
        if tried == 2 {
            store
                .write(|tx: &mut dyn Transaction| debts::unpark_all(tx, &cluster("berlin")))
                .await
                .unwrap();
        } else {
            second.comes_up("berlin");
        }
        let mut changes = store.changes();
        while times(&berlin, 0) < tried {
            tokio::time::timeout(Duration::from_secs(20), changes.changed())
                .await
                .expect("it is tried")
                .unwrap();
        }
        wait_parked(&store, "berlin", 0).await;
        assert_eq!(times(&berlin, 0), tried);
    }
    // Another cluster's link is none.
    second.comes_up("prague");
    owe(&store, "berlin", 2..3).await;
    second.wake.notify_one();
    wait_owed(&store, "berlin", &[0]).await;
    assert_eq!(times(&berlin, 0), 3);
}

#[tokio::test]
async fn who_can_not_be_told_is_rung_for_once_for_each_newest_debt() {
    let store = new_store();
    let refusing = Arc::new(Script::new("berlin").refusing(0, EmCode::LogoutRequestError));
    let away = Arc::new(Script::new("prague"));
    owe(&store, "berlin", 0..1).await;
    owe(&store, "prague", 10..11).await;
    let (outbox, world) = outbox(&store, &[&refusing, &away], LONG).await;
    world.links.down.lock().unwrap().push(cluster("prague"));
    let (bell, mut memory) = (Bell::default(), Memory::default());
    let see = async |memory: &mut Memory| {
        let owed = outbox.creditors().await.unwrap();
        *bell.owed.lock().unwrap() = owed
            .into_iter()
            .find(|o| o.counterpart == cluster("prague"));
        outbox.ring_for(&cluster("prague"), &bell, memory);
        world.links.rung.lock().unwrap().len()
    };
    assert_eq!(see(&mut memory).await, 1);
    assert_eq!(see(&mut memory).await, 1, "nothing is new");
    owe(&store, "prague", 11..12).await;
    assert_eq!(see(&mut memory).await, 2);
    // And who refuses: what is parked may be settled by asking.
    let task = Task::deliveries(&cluster("berlin"));
    let claim = outbox.membership.held(&task).await;
    let mut memory = Memory::default();
    let all = outbox
        .deliver_all(&cluster("berlin"), &claim, &mut memory)
        .await;
    assert!(!all.unwrap(), "one is parked");
}

#[tokio::test]
async fn a_whole_batch_that_is_refused_holds_up_nothing_behind_it() {
    let store = new_store();
    let berlin = Arc::new(Script::new("berlin"));
    let batch = u16::try_from(BATCH).unwrap();
    for n in 0..batch {
        let refuses = &mut berlin.refuses.lock().unwrap();
        refuses.insert(id(n), EmCode::LogoutRequestError);
    }
    owe(&store, "berlin", 0..batch + 1).await;
    let (outbox, _world) = outbox(&store, &[&berlin], LONG).await;
    let task = Task::deliveries(&cluster("berlin"));
    let claim = outbox.membership.held(&task).await;
    let mut memory = Memory::default();
    let all = outbox
        .deliver_all(&cluster("berlin"), &claim, &mut memory)
        .await;
    assert!(!all.unwrap(), "a batch is parked");
    assert_eq!(times(&berlin, batch), 1);
}

#[tokio::test]
async fn a_creditor_that_cannot_be_reached_or_fails_at_all_is_not_told_the_rest() {
    for (code, in_person) in [
        (EmCode::ServiceConnectionError, true),
        (EmCode::ErrorOnParsing, false),
        (EmCode::VisitingClusterUnknown, false),
        (EmCode::DatabaseError, true),
    ] {
        let store = new_store();
        let mut berlin = Script::new("berlin");
        berlin.in_person = in_person;
        for n in 0..100 {
            berlin = berlin.refusing(n, code);
        }
        let berlin = Arc::new(berlin);
        let prague = Arc::new(Script::new("prague"));
        owe(&store, "berlin", 0..100).await;
        let world = start(&store, &[&berlin, &prague], LONG).await;
        owe(&store, "prague", 200..201).await;
        world.wake.notify_one();
        wait_owed(&store, "prague", &[]).await;
        berlin.refuses.lock().unwrap().clear();
        world.comes_up("berlin");
        wait_owed(&store, "berlin", &[]).await;
        let before = berlin.told().len() - 100;
        assert!(
            (0..=IN_FLIGHT * 5).contains(&before),
            "{code:?}: {before} attempts while it was away"
        );
    }
}

#[tokio::test]
async fn a_creditor_that_fails_for_a_moment_is_told_again_soon() {
    let store = new_store();
    let failing = [
        ("berlin", EmCode::DatabaseError, true),
        ("prague", EmCode::UnknownError, true),
        ("rome", EmCode::ErrorOnParsing, true),
        ("oslo", EmCode::ErrorOnParsing, false),
    ];
    let mut creditors = Vec::new();
    for (name, code, in_person) in failing {
        let mut creditor = Script::new(name).refusing(0, code);
        creditor.in_person = in_person;
        creditors.push(Arc::new(creditor));
        owe(&store, name, 0..2).await;
    }
    let _world = start(&store, &creditors.iter().collect::<Vec<_>>(), LONG).await;
    // The other debt is delivered all the same, but for the link that is down.
    for name in ["berlin", "prague", "rome"] {
        wait_owed(&store, name, &[0]).await;
    }
    for creditor in &creditors {
        creditor.refuses.lock().unwrap().clear();
    }
    // No link comes up, and nothing is owed anew.
    for (name, ..) in failing {
        wait_owed(&store, name, &[]).await;
    }
}

#[tokio::test]
async fn what_was_never_tried_comes_before_what_always_fails_however_much_that_is() {
    let store = new_store();
    let failing = u16::try_from(BATCH).unwrap() + 50;
    owe(&store, "berlin", 0..failing + 2).await;
    let (outbox, _world) = outbox(&store, &[], LONG).await;
    let mut memory = Memory::default();
    for number in 0..failing {
        // Due again at once.
        memory.entry((Role::Visiting, id(number)));
    }
    let (owed, more) = outbox.owed(&cluster("berlin"), &mut memory).await.unwrap();
    let first: Vec<_> = owed.iter().take(3).map(|debt| debt.id).collect();
    assert_eq!(first, [id(failing), id(failing + 1), id(0)]);
    assert!(!more, "all of them were looked at");
}

#[test]
fn what_fails_is_put_off_ever_longer_up_to_a_limit() {
    let (mut memory, key) = (Memory::default(), (Role::Visiting, id(1)));
    let mut last = Duration::ZERO;
    for _ in 0..20 {
        memory.put_off(key, &Chance::system());
        last = memory.aside[&key].until - Instant::now();
        assert!(last <= RETRY_WITHIN);
    }
    assert!(last > RETRY_WITHIN / 3, "{last:?}");
}

#[tokio::test]
async fn a_creditor_that_hangs_delays_nobody_else() {
    let store = new_store();
    let berlin = Arc::new(Script::new("berlin").hanging());
    let prague = Arc::new(Script::new("prague"));
    owe(&store, "berlin", 0..20).await;
    let world = start(&store, &[&berlin, &prague], LONG).await;
    // Several rounds: the first may have been under way before the other one hung.
    for n in 100..105 {
        owe(&store, "prague", n..n + 1).await;
        world.wake.notify_one();
        wait_owed(&store, "prague", &[]).await;
    }
    assert!(berlin.told().len() <= IN_FLIGHT);
    assert_eq!(prague.told(), (100..105).map(id).collect::<Vec<_>>());
}

#[tokio::test]
async fn debts_outlive_the_outbox() {
    let store = new_store();
    let away = Arc::new(Script::new("berlin").hanging());
    owe(&store, "berlin", 0..3).await;
    let first = start(&store, &[&away], LONG).await;
    first.tasks.shut_down(Duration::from_secs(20)).await;
    wait_owed(&store, "berlin", &[0, 1, 2]).await;
    let back = Arc::new(Script::new("berlin"));
    let second = start(&store, &[&back], LONG).await;
    wait_owed(&second.store, "berlin", &[]).await;
    assert_eq!(back.told(), [id(0), id(1), id(2)]);
}
