//! Sessions that end because a right was lost, or because a peer leaves.

use super::*;
use crate::{
    store::{audit, membership::Membership},
    tasks::Tasks,
};

const WITHIN: Duration = Duration::from_secs(10);

impl World {
    async fn user(&self, id: &str, change: fn(&mut User)) {
        let mut who = user(id, if id == "ana" { "1001" } else { "1002" });
        change(&mut who);
        self.store
            .write(move |tx: &mut dyn Transaction| users::upsert(tx, &who))
            .await
            .unwrap();
    }

    /// Waits until a session has ended.
    async fn until_ended(&self, caller: &str, id: SessionId) {
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
async fn a_peer_that_leaves_is_told_of_every_end_first() {
    let world = world(4).await;
    let (theirs, local) = (
        request("ana", "13579", "SEP1"),
        request("bob", "13579", "SEP2"),
    );
    world.opens("tokyo", &theirs).await;
    world.opens("berlin", &local).await;
    let (tokyo, store) = (cluster("tokyo"), world.store.clone());
    // The peer hears of it as soon as somebody tells it.
    let telling = async {
        world.until_ended("tokyo", theirs.session_id).await;
        let id = theirs.session_id;
        store
            .write(move |tx: &mut dyn Transaction| {
                sessions::acknowledge(tx, Role::Home, &cluster("tokyo"), id)
            })
            .await
            .unwrap();
    };
    let leaving = world.role.retire_peer(&tokyo, "user root", WITHIN);
    let (retired, ()) = tokio::join!(leaving, telling);
    let expected = Retired {
        ended: 1,
        delivered: true,
    };
    assert_eq!(retired.unwrap(), expected);
    assert_eq!(
        world.state("berlin", local.session_id).await,
        Some(State::Active)
    );
    assert_eq!(
        code(&world, "tokyo", &request("ana", "13579", "SEP1")).await,
        38,
        "no login is taken from it any more"
    );
    let all = world
        .store
        .read(|tx: &mut dyn Transaction| audit::list(tx, 100))
        .await
        .unwrap();
    let who: Vec<_> = all.iter().filter(|e| e.outcome == "revoked").collect();
    assert_eq!(who.len(), 1);
    assert_eq!(who[0].actor, "user root");
}

#[tokio::test]
async fn a_peer_that_can_not_be_told_holds_up_its_removal_no_longer_than_allowed() {
    let world = world(1).await;
    let login = request("ana", "13579", "SEP1");
    world.opens("tokyo", &login).await;
    let retired = world
        .role
        .retire_peer(&cluster("tokyo"), "user root", Duration::from_millis(50))
        .await
        .unwrap();
    let expected = Retired {
        ended: 1,
        delivered: false,
    };
    assert_eq!(retired, expected);
    assert_eq!(world.owed("tokyo").await, [login.session_id]);
    let unknown = world
        .role
        .retire_peer(&cluster("paris"), "user root", WITHIN)
        .await
        .unwrap_err();
    assert!(matches!(unknown, Error::CallerUnknown(_)), "{unknown:?}");
}
