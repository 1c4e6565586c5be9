//! Sessions that end because a right was lost.

use super::*;
use crate::{
    home::revocation::{BATCH, look},
    store::{
        claims::{self, Claim, Task},
        membership::Membership,
        parameters::{self as stored_parameters, Setting},
    },
    tasks::Tasks,
};

pub(super) const WITHIN: Duration = Duration::from_secs(10);

impl World {
    async fn user(&self, id: &str, change: fn(&mut User)) {
        let mut who = user(id, if id == "ana" { "1001" } else { "1002" });
        change(&mut who);
        self.store
            .write(move |tx: &mut dyn Transaction| users::upsert(tx, &who))
            .await
            .unwrap();
    }

    /// Sets whether sessions end with the right to them, in the store alone: what the node goes by stays behind.
    pub(super) async fn switch(&self, value: &'static str) {
        self.store
            .write(move |tx: &mut dyn Transaction| {
                let setting = Setting {
                    name: "end-sessions-on-revocation".to_owned(),
                    value: value.to_owned(),
                    set_at: crate::clock::Timestamp::from_millis(1),
                    set_by: "user root".to_owned(),
                };
                stored_parameters::set(tx, &setting)
            })
            .await
            .unwrap();
    }

    /// The right to sweep.
    async fn claim(&self) -> Claim {
        let run = Membership::of(&self.store).run().clone();
        self.store
            .write(move |tx: &mut dyn Transaction| {
                let now = crate::clock::Timestamp::from_millis(1);
                claims::take(tx, &Task::revocations(), None, &run, now)
            })
            .await
            .unwrap()
            .unwrap()
    }

    /// Waits until a session has ended.
    pub(super) async fn until_ended(&self, caller: &str, id: SessionId) {
        let mut changes = self.store.changes();
        let ended = async {
            while self.state(caller, id).await != Some(State::Ended) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(WITHIN, ended)
            .await
            .expect("it has not ended");
    }
}

#[tokio::test]
async fn who_loses_a_right_loses_the_sessions_that_need_it_and_no_others() {
    let world = world(4).await;
    let tasks = Tasks::default();
    let (role, stop) = (world.role.clone(), tasks.clone());
    let membership = Membership::alone(&world.store, &tasks).await;
    tasks.spawn("revocations", async move {
        role.watch_revocations(&membership, &stop).await;
    });
    let [away, here, other] = [
        request("ana", "13579", "SEP1"),
        request("ana", "13579", "SEP2"),
        request("bob", "13579", "SEP3"),
    ];
    world.opens("tokyo", &away).await;
    world.opens("berlin", &here).await;
    world.opens("tokyo", &other).await;
    world.user("ana", |u| u.emcc_enabled = false).await;
    world.until_ended("tokyo", away.session_id).await;
    assert_eq!(world.owed("tokyo").await, [away.session_id]);
    let state = world.state("berlin", here.session_id).await;
    assert_eq!(
        state,
        Some(State::Active),
        "no right to roam is needed here"
    );
    world.user("ana", |u| u.enabled = false).await;
    world.until_ended("berlin", here.session_id).await;
    let state = world.state("tokyo", other.session_id).await;
    assert_eq!(state, Some(State::Active));
    // A user that is gone has no sessions either.
    world
        .store
        .write(|tx: &mut dyn Transaction| users::remove(tx, &UserId::new("bob").unwrap()))
        .await
        .unwrap();
    world.until_ended("tokyo", other.session_id).await;
    assert_eq!(world.held().await, 0);
    tasks.shut_down(WITHIN).await;
}

#[tokio::test]
async fn what_the_store_says_of_the_switch_counts_also_before_the_node_goes_by_it() {
    let world = world(4).await;
    assert!(world.role.parameters().end_sessions_on_revocation);
    let login = request("ana", "13579", "SEP1");
    world.opens("tokyo", &login).await;
    world.switch("off").await;
    world.user("ana", |u| u.enabled = false).await;
    let mut seen = None;
    let claim = world.claim().await;
    let look_again = async |seen: &mut _| look(&world.role, &claim, seen).await.unwrap();
    look_again(&mut seen).await;
    look_again(&mut seen).await;
    let state = world.state("tokyo", login.session_id).await;
    assert_eq!(state, Some(State::Active), "it was switched off");
    // Switched on it looks at once, though no user has changed since.
    world.switch("on").await;
    look_again(&mut seen).await;
    let state = world.state("tokyo", login.session_id).await;
    assert_eq!(state, Some(State::Ended));
}

#[tokio::test]
async fn more_sessions_than_one_batch_end_in_one_look() {
    let world = world(1).await;
    let many = BATCH + 1;
    world
        .store
        .write(move |tx: &mut dyn Transaction| {
            let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
                INSERT INTO sessions (role, counterpart, id, state, device, user_key, user_id, login_type, login_name,
                  reference, created_at, changed_at, owed)
                SELECT 'home', 'tokyo', lower(printf('00000000-0000-7000-8000-%012x', i)), 'active', 'SEP' || i,
                  'gone', 'gone', 'UID', 'gone', printf('%08X', i), i, i, 0 FROM n";
            tx.execute(sql, &[many.into()])
        })
        .await
        .unwrap();
    let claim = world.claim().await;
    look(&world.role, &claim, &mut None).await.unwrap();
    let (living, owed) = world
        .store
        .read(|tx: &mut dyn Transaction| sessions::shared_with(tx, &cluster("tokyo")))
        .await
        .unwrap();
    assert_eq!((living, owed), (0, u64::from(many)));
}
