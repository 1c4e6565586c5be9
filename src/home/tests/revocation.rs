//! Sessions that end because a right was lost.

use super::{retirement::leaving, *};
use crate::{
    home::revocation::{BATCH, REST, end_batch, end_found, look},
    store::{
        audit,
        claims::{self, Claim, Task},
        inline::{Disk, Schedule},
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
        let pin = pinned("tokyo", 7);
        if does {
            self.trusts(pin).await;
        } else {
            self.revokes(pin).await;
        }
    }

    async fn trusts(&self, entry: TrustEntry) {
        let add = move |tx: &mut dyn Transaction| trust_entries::add(tx, &entry);
        self.store.write(add).await.unwrap();
    }

    async fn revokes(&self, entry: TrustEntry) {
        let TrustEntry {
            cluster_id,
            fingerprint,
            added_at,
            ..
        } = entry;
        let revoke = move |tx: &mut dyn Transaction| {
            trust_entries::revoke(tx, &cluster_id, &fingerprint, added_at).map(drop)
        };
        self.store.write(revoke).await.unwrap();
    }

    pub(super) async fn visit(&self, id: SessionId) -> sessions::Session {
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

/// An authority is removed and not revoked: its peer is distrusted all the same once there is nothing else.
#[tokio::test]
async fn a_peer_whose_only_authority_is_removed_loses_what_is_shared() {
    let world = world(4).await;
    let authority = TrustEntry {
        kind: EntryKind::Anchor,
        ..pinned("tokyo", 9)
    };
    let ca = authority.fingerprint;
    world.trusts(authority).await;
    world.trusts_tokyo(false).await;
    let away = request("ana", "13579", "SEP1");
    world.opens("tokyo", &away).await;
    let (claim, mut seen) = (world.claim().await, None);
    look(&world.role, &claim, &mut seen).await.unwrap();
    let state = world.state("tokyo", away.session_id).await;
    assert_eq!(state, Some(State::Active), "the authority vouches for it");
    // The operator took back that the pin was revoked: what is remembered as revoked plays no part.
    world
        .store
        .write(move |tx: &mut dyn Transaction| {
            trust_entries::unrevoke(tx, &cluster("tokyo"), &[7; 32])?;
            trust_entries::withdraw(tx, &cluster("tokyo"), &ca).map(drop)
        })
        .await
        .unwrap();
    look(&world.role, &claim, &mut seen).await.unwrap();
    let state = world.state("tokyo", away.session_id).await;
    assert_eq!(state, Some(State::Ended));
    assert_eq!(world.owed("tokyo").await, [away.session_id]);
    let late = request("eve", "13579", "SEP3");
    assert_eq!(code(&world, "tokyo", &late).await, 38);
}

/// Of a peer with two certificates one is revoked, by another node of ours: who is connected by it gets in no more,
/// and who is by the other does.
#[tokio::test]
async fn who_is_known_by_a_revoked_certificate_is_refused_before_its_connection_is_cut() {
    let world = world(4).await;
    world.trusts(pinned("tokyo", 77)).await;
    world.trusts_tokyo(false).await;
    let by = |n: u8| Context {
        certificate: Some([n; 32]),
        ..from("tokyo")
    };
    let asked = FindUser {
        login_type: LoginType::Uid,
        name: LoginName::new("ana").unwrap(),
    };
    let login = request("ana", "13579", "SEP1");
    let refused = world.role.login(&by(7), &login).await.unwrap_err();
    assert!(matches!(refused, Error::CallerDistrusted(_)), "{refused:?}");
    let refused = world.role.find_user(&by(7), &asked).await.unwrap_err();
    assert!(matches!(refused, Error::CallerDistrusted(_)), "{refused:?}");
    assert_eq!(world.state("tokyo", login.session_id).await, None);
    let found = world.role.find_user(&by(77), &asked).await.unwrap();
    assert_eq!(found, Ownership::Mine);
    let again = request("ana", "13579", "SEP1");
    world.role.login(&by(77), &again).await.unwrap();
    // The same bytes, revoked for another peer, say nothing of this one.
    world.revokes(pinned("lima", 77)).await;
    assert_eq!(
        world.role.find_user(&by(77), &asked).await.unwrap(),
        Ownership::Mine
    );
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

impl World {
    /// That many sessions at phones of tokyo, numbered from 1, of a user who is gone.
    async fn of_nobody(&self, many: u32) {
        self.store
            .write(move |tx: &mut dyn Transaction| {
                let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
                    INSERT INTO sessions (role, counterpart, id, state, device, user_key, user_id, login_type,
                      login_name, reference, created_at, changed_at, owed)
                    SELECT 'home', 'tokyo', lower(printf('00000000-0000-7000-8000-%012x', i)), 'active', 'SEP' || i,
                      'gone', 'gone', 'UID', 'gone', printf('%08X', i), i, i, 0 FROM n";
                tx.execute(sql, &[many.into()])
            })
            .await
            .unwrap();
    }

    /// How many live at phones of tokyo, and of how many ends it is owed the news.
    async fn with_tokyo(&self) -> (u64, u64) {
        let shared = |tx: &mut dyn Transaction| sessions::shared_with(tx, &cluster("tokyo"));
        self.store.read(shared).await.unwrap()
    }
}

fn numbered(range: std::ops::RangeInclusive<u32>) -> Vec<(ClusterId, SessionId)> {
    range
        .map(|n| {
            (
                cluster("tokyo"),
                SessionId::from_uuid(Uuid::from_u64_pair(0x7000, 0x8000 << 48 | u64::from(n))),
            )
        })
        .collect()
}

#[tokio::test]
async fn more_sessions_than_one_batch_end_in_one_look() {
    let world = world(1).await;
    world.of_nobody(BATCH + 1).await;
    let claim = world.claim().await;
    look(&world.role, &claim, &mut None).await.unwrap();
    assert_eq!(world.with_tokyo().await, (0, u64::from(BATCH) + 1));
}

/// What a reader found may have ended before the writer comes to it, all of it: there may be more behind it.
#[tokio::test]
async fn a_full_batch_of_which_nothing_is_left_to_end_is_not_the_last() {
    let world = world(1).await;
    world.of_nobody(BATCH + 1).await;
    let claim = world.claim().await;
    let end = async |found| end_batch(&world.role, &claim, found).await.unwrap();
    assert!(end(numbered(1..=BATCH)).await);
    assert_eq!(world.with_tokyo().await, (1, u64::from(BATCH)));
    assert!(end(numbered(1..=BATCH)).await, "others may be behind them");
    assert_eq!(world.with_tokyo().await, (1, u64::from(BATCH)));
    assert!(
        !end(numbered(2..=BATCH)).await,
        "there were no more to be found"
    );
    world.switch("off").await;
    assert!(!end(numbered(1..=BATCH)).await, "it was switched off");
}

/// On simulated time: all that passes is what the disk takes, a moment, and the rests.
#[tokio::test]
async fn between_two_batches_of_a_mass_end_the_writer_is_left_to_others() {
    let world = world(1).await;
    world.links.0.store(false, Ordering::SeqCst);
    tokio::time::pause();
    for way in ["users", "ours", "theirs", "removal"] {
        let disk = Disk::new();
        let (store, power) = Store::on(&disk, "n1", Schedule::prompt());
        let world = World {
            role: HomeRole {
                store: store.clone(),
                ..world.role.clone()
            },
            store,
            links: Arc::clone(&world.links),
        };
        world
            .store
            .write(move |tx: &mut dyn Transaction| {
                peers::upsert(tx, &peer("tokyo", true))?;
                // Their user has the right to them, unless it is that which is lost.
                if way != "users" {
                    users::upsert(tx, &user("gone", "1003"))?;
                }
                match way {
                    "ours" => Ok(true),
                    _ => trust_entries::add(tx, &pinned("tokyo", 7)),
                }
            })
            .await
            .unwrap();
        world.of_nobody(2 * BATCH + 1).await;
        let claim = world.claim().await;
        disk.begin_journal();
        match way {
            "users" | "ours" => look(&world.role, &claim, &mut None).await.unwrap(),
            "theirs" => {
                let tokyo = cluster("tokyo");
                let ended = world.role.end_with_banisher(&tokyo, &claim).await.unwrap();
                assert_eq!(ended, u64::from(2 * BATCH + 1));
            }
            _ => {
                let leaving = leaving(WITHIN, true);
                let retired = world.role.retire_peer(&leaving).await.unwrap();
                assert_eq!(retired.ended, u64::from(2 * BATCH + 1));
            }
        }
        let ends: Vec<_> = disk.journal().iter().map(|one| one.at_ms).collect();
        let batches: Vec<_> = ends.chunk_by(|a, b| a == b).map(|one| one[0]).collect();
        assert_eq!((ends.len(), batches.len()), (2 * BATCH as usize + 1, 3));
        let rest = u64::try_from(REST.as_millis()).unwrap();
        for pair in batches.windows(2) {
            let rested = pair[1] - pair[0];
            assert!((rest..rest + 5).contains(&rested), "{way}: {rested} ms");
        }
        power.cut();
    }
}
