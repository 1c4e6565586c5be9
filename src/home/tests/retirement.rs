//! Peers that are to be removed: what ends, who is told, and what stands in the way.

use super::{expiry::DAY_MS, revocation::WITHIN, *};
use crate::store::{audit, debts};

pub(super) fn leaving(within: Duration, forget_owed: bool) -> Leaving {
    Leaving {
        cluster: cluster("tokyo"),
        actor: "user root".to_owned(),
        within,
        forget_owed,
    }
}

impl World {
    /// One of tokyo's users on a phone of ours.
    pub(super) async fn theirs_on(&self, device: &'static str) -> SessionId {
        self.theirs_in(device, State::Active).await
    }

    pub(super) async fn theirs_in(&self, device: &'static str, state: State) -> SessionId {
        let id = SessionId::from_uuid(Uuid::now_v7());
        self.store
            .write(move |tx: &mut dyn Transaction| {
                let row = sessions::Session {
                    role: Role::Visiting,
                    counterpart: cluster("tokyo"),
                    id,
                    state,
                    device: DeviceName::new(device).unwrap(),
                    user_id: Some(UserId::new("taro").unwrap()),
                    login_type: LoginType::Uid,
                    login_name: LoginName::new("taro").unwrap(),
                    profile: None,
                    base_device: None,
                    services: None,
                    reference: Ref::from_bits(9),
                    created_at: crate::clock::Timestamp::from_millis(1),
                    deadline: None,
                    changed_at: crate::clock::Timestamp::from_millis(1),
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
        id
    }

    /// How many sessions with tokyo live, and of how many ends it has to be told.
    async fn shared(&self) -> (u64, u64) {
        self.store
            .read(|tx: &mut dyn Transaction| sessions::shared_with(tx, &cluster("tokyo")))
            .await
            .unwrap()
    }

    async fn tokyo_is_told(&self) {
        self.store
            .write(|tx: &mut dyn Transaction| {
                sessions::forget_owed(tx, &cluster("tokyo")).map(drop)
            })
            .await
            .unwrap();
    }
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
    world.theirs_on("SEP9").await;
    // The peer hears of it as soon as somebody tells it.
    let telling = async {
        world.until_ended("tokyo", theirs.session_id).await;
        let refused = code(&world, "tokyo", &request("eve", "13579", "SEP3")).await;
        assert_eq!(refused, 38, "it is leaving");
        assert_eq!(world.shared().await, (0, 2), "of both roles");
        world.tokyo_is_told().await;
    };
    let leave = leaving(WITHIN, false);
    let (retired, ()) = tokio::join!(world.role.retire_peer(&leave), telling);
    let expected = Retired {
        ended: 2,
        delivered: true,
    };
    assert_eq!(retired.unwrap(), expected);
    let here = world.state("berlin", local.session_id).await;
    assert_eq!(here, Some(State::Active));
    let again = request("ana", "13579", "SEP1");
    assert_eq!(code(&world, "tokyo", &again).await, 38, "until it is gone");
    let find = world.role.find_user(&from("tokyo"), &again.user).await;
    assert!(matches!(find, Err(Error::CallerNotAllowed(_))), "{find:?}");
    let all = world
        .store
        .read(|tx: &mut dyn Transaction| audit::list(tx, 100))
        .await
        .unwrap();
    let who = all.iter().filter(|e| e.outcome == "revoked");
    let who: Vec<_> = who.map(|e| &*e.actor).collect();
    assert_eq!(who, ["user root", "user root"]);
}

#[tokio::test]
async fn what_can_be_known_before_ends_nothing_and_bars_nobody() {
    let world = world(2).await;
    let login = request("ana", "13579", "SEP1");
    world.opens("tokyo", &login).await;
    let began = Instant::now();
    // Nobody can tell it.
    world.links.0.store(false, Ordering::SeqCst);
    let unreachable = world.role.retire_peer(&leaving(WITHIN, false)).await;
    let unreachable = unreachable.unwrap_err();
    assert!(
        matches!(unreachable, Stays::Unreachable { news: 1, .. }),
        "{unreachable:?}"
    );
    world.links.0.store(true, Ordering::SeqCst);
    // An operator does not want sessions to end by themselves, whatever may be forgotten.
    world.switch("off").await;
    for forget in [false, true] {
        let live = world.role.retire_peer(&leaving(WITHIN, forget)).await;
        let live = live.unwrap_err();
        assert!(
            matches!(live, Stays::SessionsLive { living: 1, .. }),
            "{live:?}"
        );
    }
    let unknown = Leaving {
        cluster: cluster("paris"),
        ..leaving(WITHIN, true)
    };
    let unknown = world.role.retire_peer(&unknown).await.unwrap_err();
    assert!(matches!(unknown, Stays::Unknown(_)), "{unknown:?}");
    assert!(began.elapsed() < WITHIN, "{:?}", began.elapsed());

    assert_eq!(world.shared().await, (1, 0));
    world.opens("tokyo", &request("bob", "13579", "SEP2")).await;
}

#[tokio::test]
async fn a_peer_that_does_not_say_that_it_knows_stays_and_may_log_users_in() {
    let world = world(1).await;
    let login = request("ana", "13579", "SEP1");
    world.opens("tokyo", &login).await;
    // Another node of ours could tell it, so that it is tried.
    world.links.0.store(false, Ordering::SeqCst);
    world.other_node(elsewhere::Other::LinkedElsewhere).await;
    let stays = world
        .role
        .retire_peer(&leaving(Duration::from_millis(50), false))
        .await
        .unwrap_err();
    let told = stays.to_string();
    assert!(
        matches!(
            stays,
            Stays::NotTold {
                ended: 1,
                owed: 1,
                ..
            }
        ),
        "{stays:?}"
    );
    assert!(told.contains("1 sessions with tokyo were ended"), "{told}");
    assert_eq!(world.owed("tokyo").await, [login.session_id]);
    world.opens("tokyo", &request("ana", "13579", "SEP1")).await;
}

#[tokio::test]
async fn where_it_may_go_untold_nobody_waits_for_a_link_that_is_down() {
    let world = world(1).await;
    world.opens("tokyo", &request("ana", "13579", "SEP1")).await;
    world.links.0.store(false, Ordering::SeqCst);
    let began = Instant::now();
    let retired = world.role.retire_peer(&leaving(WITHIN, true)).await;
    assert!(began.elapsed() < WITHIN, "{:?}", began.elapsed());
    let expected = Retired {
        ended: 1,
        delivered: false,
    };
    assert_eq!(retired.unwrap(), expected);
    // Whoever removes it may find that it stays.
    world.role.keep_peer(&cluster("tokyo")).await;
    world.opens("tokyo", &request("ana", "13579", "SEP1")).await;
}

#[tokio::test]
async fn a_mark_that_nobody_takes_back_lapses() {
    let world = world(1).await;
    world
        .role
        .retire_peer(&leaving(WITHIN, false))
        .await
        .unwrap();
    let login = request("ana", "13579", "SEP1");
    assert_eq!(code(&world, "tokyo", &login).await, 38);
    // Until then it counts, whatever the wall clock says; and no longer.
    for by in [DAY_MS, -DAY_MS] {
        world.role.clock.set_offset_millis(by);
        let login = request("ana", "13579", "SEP1");
        assert_eq!(code(&world, "tokyo", &login).await, 38, "{by}");
    }
    world.time_goes_on(60_000).await;
    world.opens("tokyo", &request("ana", "13579", "SEP1")).await;
}

#[tokio::test]
async fn what_the_peer_refused_is_told_once_more_before_it_goes() {
    let world = world(2).await;
    let login = request("ana", "13579", "SEP1");
    world.opens("tokyo", &login).await;
    world
        .role
        .end(&cluster("tokyo"), login.session_id, "user root")
        .await
        .unwrap();
    let id = login.session_id;
    world
        .store
        .write(move |tx: &mut dyn Transaction| {
            let at = crate::clock::Timestamp::from_millis(2);
            debts::park(tx, Role::Home, &cluster("tokyo"), id, "as scripted", at)
        })
        .await
        .unwrap();
    let refused = world
        .role
        .retire_peer(&leaving(Duration::ZERO, false))
        .await;
    assert!(
        matches!(refused, Err(Stays::NotTold { owed: 1, .. })),
        "{refused:?}"
    );
    let parked = world
        .store
        .read(|tx: &mut dyn Transaction| debts::parked_of(tx, &cluster("tokyo")))
        .await
        .unwrap();
    assert_eq!(parked, 0);
}

/// Also what is being opened on a phone of ours, and what somebody is being logged out of.
#[tokio::test]
async fn whatever_lives_with_a_peer_that_leaves_ends() {
    let world = world(1).await;
    world.links.0.store(false, Ordering::SeqCst);
    let states = [State::Pending, State::Active, State::Ending];
    let mut all = Vec::new();
    for (device, state) in ["SEP7", "SEP8", "SEP9"].into_iter().zip(states) {
        all.push(world.theirs_in(device, state).await);
    }
    let leaving = leaving(WITHIN, true);
    let retired = tokio::time::timeout(WITHIN * 2, world.role.retire_peer(&leaving)).await;
    let retired = retired.expect("it never comes to an end");
    assert_eq!(retired.unwrap().ended, 3);
    for id in all {
        let row = world.visit(id).await;
        assert_eq!((row.state, row.owed), (State::Ended, true), "{row:?}");
    }
}
