//! Sessions that end because a right was lost.

use super::*;
use crate::{
    home::revocation::{BATCH, end_found, look},
    store::{
        audit,
        claims::{self, Claim, Task},
        membership::Membership,
        parameters::{self as stored_parameters, Setting},
        trust_entries::{self, EntryKind, Source, TrustEntry},
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

/// The writer asks of those alone that a reader found; by then each may be another one's to end, or nobody's.
#[tokio::test]
async fn of_those_that_were_found_only_who_still_has_no_right_is_ended() {
    let world = world(4).await;
    let [gone, again, other, late] = [
        request("ana", "13579", "SEP1"),
        request("bob", "13579", "SEP2"),
        request("bob", "13579", "SEP3"),
        request("ana", "13579", "SEP4"),
    ];
    for login in [&gone, &again, &other, &late] {
        world.opens("tokyo", login).await;
    }
    let found = |all: &[&LoginRequest]| {
        let ids = all.iter().map(|login| login.session_id);
        ids.map(|id| (cluster("tokyo"), id)).collect::<Vec<_>>()
    };
    let claim = world.claim().await;
    let end = async |all: &[&LoginRequest]| {
        let found = found(all);
        end_found(&world.role, &claim, found)
            .await
            .unwrap()
            .unwrap()
    };
    world.user("ana", |u| u.enabled = false).await;
    let logout = logout_of(gone.session_id);
    world.role.logout(&from("tokyo"), logout).await.unwrap();
    assert_eq!(end(&[&gone, &again]).await, 0);
    let audit = async || {
        let read = |tx: &mut dyn Transaction| audit::list(tx, 100);
        let all = world.store.read(read).await.unwrap();
        let outcomes = all.into_iter().map(|entry| entry.outcome);
        outcomes.filter(|what| what.contains("ended")).count()
    };
    assert_eq!(audit().await, 0, "nothing was done, and nothing is said");
    // Ana's other one goes; bob's was not found.
    world.user("bob", |u| u.enabled = false).await;
    assert_eq!(end(&[&gone, &again, &late]).await, 2);
    assert_eq!(audit().await, 1);
    let state = world.state("tokyo", other.session_id).await;
    assert_eq!(state, Some(State::Active));
    assert_eq!(
        world.owed("tokyo").await,
        [again.session_id, late.session_id]
    );
    look(&world.role, &claim, &mut None).await.unwrap();
    let state = world.state("tokyo", other.session_id).await;
    assert_eq!(state, Some(State::Ended));
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

impl World {
    /// What is accepted from tokyo: nothing, after what there was has been revoked; or something again.
    async fn trusts_tokyo(&self, does: bool) {
        self.store
            .write(move |tx: &mut dyn Transaction| {
                let entry = TrustEntry {
                    cluster_id: cluster("tokyo"),
                    kind: EntryKind::Pinned,
                    fingerprint: [7; 32],
                    der: vec![7],
                    added_at: crate::clock::Timestamp::from_millis(1),
                    source: Source::Operator,
                    alias: None,
                };
                if does {
                    trust_entries::add(tx, &entry)?;
                } else {
                    trust_entries::revoke(
                        tx,
                        &entry.cluster_id,
                        &entry.fingerprint,
                        entry.added_at,
                    )?;
                }
                Ok::<_, store::Error>(())
            })
            .await
            .unwrap();
    }

    async fn visit(&self, id: SessionId) -> sessions::Session {
        let row = self.store.read(move |tx: &mut dyn Transaction| {
            sessions::get(tx, Role::Visiting, &cluster("tokyo"), id)
        });
        row.await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_peer_of_which_nothing_is_accepted_any_more_loses_what_is_shared_in_both_roles() {
    let world = world(4).await;
    world.trusts_tokyo(true).await;
    let [away, elsewhere, late] = [
        request("ana", "13579", "SEP1"),
        request("bob", "13579", "SEP2"),
        request("eve", "13579", "SEP3"),
    ];
    world.opens("tokyo", &away).await;
    world.opens("lima", &elsewhere).await;
    let visit = world.theirs_on("SEP9").await;
    let (claim, mut seen) = (world.claim().await, None);
    let look_again = async |seen: &mut _| look(&world.role, &claim, seen).await.unwrap();
    look_again(&mut seen).await;
    world.switch("off").await;
    world.trusts_tokyo(false).await;
    look_again(&mut seen).await;
    let state = world.state("tokyo", away.session_id).await;
    assert_eq!(state, Some(State::Active), "it was switched off");
    world.switch("on").await;
    look_again(&mut seen).await;
    let state = world.state("tokyo", away.session_id).await;
    assert_eq!(state, Some(State::Ended));
    assert_eq!(world.owed("tokyo").await, [away.session_id, visit]);
    let row = world.visit(visit).await;
    assert_eq!(
        (row.state, row.end_reason, row.owed),
        (State::Ended, Some(EndReason::Revoked), true)
    );
    let state = world.state("lima", elsewhere.session_id).await;
    assert_eq!(state, Some(State::Active));
    assert_eq!(world.held().await, 1);
    // One that comes over a connection from before, to a node that has not heard of it yet.
    assert_eq!(code(&world, "tokyo", &late).await, 38);
    assert_eq!(world.state("tokyo", late.session_id).await, None);
    world.trusts_tokyo(true).await;
    let again = request("eve", "13579", "SEP3");
    world.opens("tokyo", &again).await;
    look_again(&mut seen).await;
    let state = world.state("tokyo", again.session_id).await;
    assert_eq!(state, Some(State::Active));
}

#[tokio::test]
async fn what_can_not_be_ended_with_one_peer_keeps_no_user_who_lost_the_right() {
    let world = world(4).await;
    world.trusts_tokyo(true).await;
    let [damaged, elsewhere] = [
        request("ana", "13579", "SEP1"),
        request("bob", "13579", "SEP2"),
    ];
    world.opens("tokyo", &damaged).await;
    world.opens("lima", &elsewhere).await;
    world
        .store
        .write(|tx: &mut dyn Transaction| {
            let sql = "UPDATE sessions SET services = 'x' WHERE counterpart = 'tokyo'";
            tx.execute(sql, &[])
        })
        .await
        .unwrap();
    world.trusts_tokyo(false).await;
    world.user("bob", |u| u.enabled = false).await;
    let claim = world.claim().await;
    let looked = look(&world.role, &claim, &mut None).await;
    assert!(looked.is_err(), "a row of tokyo's can't be read");
    let state = world.state("lima", elsewhere.session_id).await;
    assert_eq!(state, Some(State::Ended));
}

#[tokio::test]
async fn what_is_shared_with_a_peer_that_accepts_nothing_of_ours_ends_where_nobody_is_linked() {
    let world = world(4).await;
    let away = request("ana", "13579", "SEP1");
    world.opens("tokyo", &away).await;
    let visit = world.theirs_on("SEP9").await;
    let (claim, tokyo) = (world.claim().await, cluster("tokyo"));
    let end = async || world.role.end_with_banisher(&tokyo, &claim).await.unwrap();
    assert_eq!(end().await, 0, "this node has a link");
    world.links.0.store(false, Ordering::SeqCst);
    world.switch("off").await;
    assert_eq!(end().await, 0, "it was switched off");
    world.switch("on").await;
    let lost = Claim {
        generation: 0,
        ..claim.clone()
    };
    let refused = world.role.end_with_banisher(&tokyo, &lost).await;
    assert!(refused.is_err(), "{refused:?}");
    let state = world.state("tokyo", away.session_id).await;
    assert_eq!(state, Some(State::Active), "the claim was another one's");
    assert_eq!(end().await, 2);
    assert_eq!(end().await, 0);
    assert_eq!(world.owed("tokyo").await, [away.session_id, visit]);
    assert_eq!(
        world.visit(visit).await.end_reason,
        Some(EndReason::Revoked)
    );
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
