//! Sessions whose time is over, on time that is moved by hand, under wall clocks that are set.

use super::*;
use crate::{
    clock::{self, Timestamp},
    domain::{cluster_time::Reading, session::EndReason},
    home::expiry::{BATCH, look},
    store::{
        claims::{self, Claim, Task},
        cluster_time,
        inline::{Disk, Schedule},
        membership::Membership,
        sessions::Session,
    },
    tasks::Tasks,
};

const HOUR_MS: u64 = 3_600_000;
pub(super) const DAY_MS: i64 = 86_400_000;
/// What parameters give a session on a phone of another cluster when nobody sets them.
const LIMIT_MS: u64 = 10 * HOUR_MS;

impl World {
    async fn claim_of_expiry(&self) -> Claim {
        let run = Membership::of(&self.store).run().clone();
        let clock = self.role.clock.clone();
        self.store
            .write(move |tx: &mut dyn Transaction| {
                cluster_time::put(tx, Reading::first(clock.now()))?;
                claims::take(tx, &Task::expiry(), None, &run, clock.now())
            })
            .await
            .unwrap()
            .unwrap()
    }

    /// Cluster time is further by so much at once.
    pub(super) async fn time_goes_on(&self, by_ms: u64) {
        self.store
            .write(move |tx: &mut dyn Transaction| {
                let at = tx.cluster_now()?.plus(Duration::from_millis(by_ms));
                cluster_time::put(tx, Reading::first(at))
            })
            .await
            .unwrap();
    }

    async fn row(&self, role: Role, with: &str, id: SessionId) -> Session {
        let with = cluster(with);
        self.store
            .read(move |tx: &mut dyn Transaction| sessions::get(tx, role, &with, id))
            .await
            .unwrap()
            .unwrap()
    }

    /// One of tokyo's users, or our own, on a phone of ours, for so long.
    async fn on_our_phone(&self, home: &'static str, id: SessionId, left_ms: u64) {
        self.store
            .write(move |tx: &mut dyn Transaction| {
                let now = tx.cluster_now()?;
                let row = Session {
                    role: Role::Visiting,
                    counterpart: cluster(home),
                    id,
                    state: State::Active,
                    device: DeviceName::new("SEP9").unwrap(),
                    user_id: Some(UserId::new("taro").unwrap()),
                    login_type: LoginType::Uid,
                    login_name: LoginName::new("taro").unwrap(),
                    profile: None,
                    base_device: None,
                    services: None,
                    reference: Ref::from_bits(9),
                    created_at: now,
                    deadline: Some(now.plus(Duration::from_millis(left_ms))),
                    changed_at: now,
                    ended_at: None,
                    end_reason: None,
                    initiator: None,
                    owed: false,
                    parked: None,
                    parked_at: None,
                };
                sessions::insert(tx, &row)
            })
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_session_ends_when_its_time_is_over_and_not_when_a_wall_clock_is_set() {
    let world = world(1).await;
    let claim = world.claim_of_expiry().await;
    let login = request("ana", "13579", "SEP1");
    let services = world.opens("tokyo", &login).await;
    assert_eq!(services.remaining, Some(Duration::from_millis(LIMIT_MS)));
    let id = login.session_id;
    // Nothing ends early.
    for by in [DAY_MS, -DAY_MS] {
        world.role.clock.set_offset_millis(by);
        assert_eq!(
            look(&world.role, &claim, &mut None, BATCH)
                .await
                .unwrap()
                .ended,
            0
        );
        assert_eq!(world.state("tokyo", id).await, Some(State::Active), "{by}");
    }
    world.time_goes_on(LIMIT_MS - 60_000).await;
    assert_eq!(
        look(&world.role, &claim, &mut None, BATCH)
            .await
            .unwrap()
            .ended,
        0
    );
    // Nothing is prolonged: the clock is a day behind still.
    world.time_goes_on(60_000).await;
    assert_eq!(
        look(&world.role, &claim, &mut None, BATCH)
            .await
            .unwrap()
            .ended,
        1
    );
    let row = world.row(Role::Home, "tokyo", id).await;
    assert_eq!(row.end_reason, Some(EndReason::Expired));
    assert_eq!((row.state, row.owed), (State::Ended, true));
    assert_eq!(row.initiator, Some(Initiator::Home));
    assert_eq!(world.held().await, 0, "the base device is free");
    assert_eq!(
        look(&world.role, &claim, &mut None, BATCH)
            .await
            .unwrap()
            .ended,
        0
    );
    let last = world
        .store
        .read(|tx: &mut dyn Transaction| crate::store::audit::list(tx, 10))
        .await
        .unwrap();
    assert!(
        last.iter().any(|entry| entry.outcome == "expired"),
        "{last:?}"
    );
}

#[tokio::test]
async fn visiting_ends_its_row_by_itself_and_owes_home_the_end() {
    let world = world(1).await;
    let claim = world.claim_of_expiry().await;
    let id = SessionId::from_uuid(Uuid::now_v7());
    world.on_our_phone("tokyo", id, 30_000).await;
    world.time_goes_on(20_000).await;
    assert_eq!(
        look(&world.role, &claim, &mut None, BATCH)
            .await
            .unwrap()
            .ended,
        0
    );
    world.time_goes_on(10_000).await;
    assert_eq!(
        look(&world.role, &claim, &mut None, BATCH)
            .await
            .unwrap()
            .ended,
        1
    );
    let row = world.row(Role::Visiting, "tokyo", id).await;
    assert_eq!(row.end_reason, Some(EndReason::Expired));
    assert_eq!((row.state, row.owed), (State::Ended, true));
    assert_eq!(row.initiator, Some(Initiator::Visiting));
}

#[tokio::test]
async fn both_rows_of_a_local_login_end_together_where_its_time_is_enforced() {
    let world = world(1).await;
    world.role.parameters.publish(Parameters {
        enforce_intra_cluster_maximum_login_time: true,
        ..Parameters::default()
    });
    let claim = world.claim_of_expiry().await;
    let login = request("ana", "13579", "SEP9");
    let services = world.opens("berlin", &login).await;
    let left = services.remaining.unwrap() + sessions::AFTER_HOME;
    let left = u64::try_from(left.as_millis()).unwrap();
    world.on_our_phone("berlin", login.session_id, left).await;
    world.time_goes_on(8 * HOUR_MS).await;
    assert_eq!(
        look(&world.role, &claim, &mut None, BATCH)
            .await
            .unwrap()
            .ended,
        1
    );
    for role in [Role::Home, Role::Visiting] {
        let row = world.row(role, "berlin", login.session_id).await;
        assert_eq!(row.end_reason, Some(EndReason::Expired));
        assert_eq!((row.state, row.owed), (State::Ended, false), "{role}");
    }
}

/// So many sessions of ana's on phones of tokyo's, all due at one moment.
fn due_at(tx: &mut dyn Transaction, many: u32, at: Timestamp) -> Result<u64, store::Error> {
    let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
        INSERT INTO sessions (role, counterpart, id, state, device, user_key, user_id, login_type, login_name,
          reference, created_at, changed_at, deadline, owed)
        SELECT 'home', 'tokyo', lower(printf('00000000-0000-7000-8000-%012x', i)), 'active', 'SEP' || i,
          'ana', 'ana', 'UID', 'ana', printf('%08X', i), i, i, $2, 0 FROM n";
    tx.execute(sql, &[many.into(), at.into()])
}

#[tokio::test]
async fn what_is_due_at_once_ends_within_seconds_and_only_under_the_claim() {
    let world = world(1).await;
    let claim = world.claim_of_expiry().await;
    let many = 5 * BATCH;
    world
        .store
        .write(move |tx: &mut dyn Transaction| {
            let now = tx.cluster_now()?;
            due_at(tx, many, now)
        })
        .await
        .unwrap();
    let lost = Claim {
        generation: 0,
        ..claim.clone()
    };
    let refused = look(&world.role, &lost, &mut None, BATCH)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, Error::Store(store::Error::ClaimLost { .. })),
        "{refused}"
    );
    let first = look(&world.role, &claim, &mut None, BATCH).await.unwrap();
    assert_eq!(first.ended, usize::try_from(BATCH).unwrap());
    // The task itself takes the rest, once the claim is its own.
    world
        .store
        .write(move |tx: &mut dyn Transaction| {
            claims::release(tx, &claim, "for the test", Timestamp::from_millis(1))
        })
        .await
        .unwrap();
    let tasks = Tasks::default();
    let membership = Membership::alone(&world.store, &tasks).await;
    let (role, stop) = (world.role.clone(), tasks.clone());
    tasks.spawn("expiry", async move {
        role.watch_expiry(&membership, &stop).await;
    });
    let mut changes = world.store.changes();
    let all_ended = async {
        loop {
            let living = world
                .store
                .read(|tx: &mut dyn Transaction| sessions::shared_with(tx, &cluster("tokyo")))
                .await
                .unwrap();
            if living == (0, u64::from(many)) {
                return;
            }
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_ended)
        .await
        .expect("they have not ended");
    tasks.shut_down(Duration::from_secs(10)).await;
}

/// On simulated time: all that passes is what the disk takes and what expiry waits for.
#[tokio::test]
async fn ten_thousand_that_are_due_at_one_second_end_within_five() {
    const MANY: u32 = 10_000;
    let world = world(1).await;
    tokio::time::pause();
    for (slowest, seed) in [(3, 1), (30, 2), (50, 3)] {
        let disk = Disk::new();
        let schedule = Schedule {
            before: Duration::from_millis(slowest),
            after: Duration::from_millis(slowest),
            stalls: 0,
            ..Schedule::common(Chance::seeded(seed))
        };
        let (store, power) = Store::on(&disk, "n1", schedule);
        let role = HomeRole {
            store: store.clone(),
            ..world.role.clone()
        };
        cluster_time::begin(&store, "n1", &role.clock, false)
            .await
            .unwrap();
        let tasks = Tasks::default();
        let membership = Membership::alone(&store, &tasks).await;
        let now = store
            .read(|tx: &mut dyn Transaction| tx.cluster_now())
            .await
            .unwrap();
        let due = clock::instant() + Duration::from_secs(10);
        disk.with(|tx| due_at(tx, MANY, now.plus(Duration::from_secs(10))))
            .unwrap();
        let stop = tasks.clone();
        tasks.spawn("expiry", async move {
            role.watch_expiry(&membership, &stop).await;
        });
        let mut changes = store.changes();
        loop {
            let (living, _) = disk
                .with(|tx| sessions::shared_with(tx, &cluster("tokyo")))
                .unwrap();
            if living == 0 {
                break;
            }
            assert!(living == u64::from(MANY) || clock::instant() >= due);
            changes.changed().await.unwrap();
        }
        let took = clock::since(due);
        assert!(took <= Duration::from_secs(5), "{slowest} ms: {took:?}");
        power.cut();
        tasks.shut_down(Duration::from_secs(10)).await;
    }
}
