//! The wall clock of one side jumps by a day, forward or back, in the midst of everything: a session, a login under way, one
//! that is never answered, an end that is owed, a user who is locked out. Nothing ends and nothing lasts longer for it,
//! and both sides say that the clocks are apart.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use emccd::{
    domain::session::{EndReason, State},
    lab::{
        Lab, Spec,
        between::{Between, Way},
        member::Versions,
        phone::Shown,
        proxy::Flow,
    },
};

use crate::{
    doctor::{doctor, of},
    support::{
        DAY_MILLIS, days_from_now, holds, lab_of_processes,
        rows::{rows, settled, tamper},
        until,
    },
};

const HOME: usize = 0;
const VISITING: usize = 1;

/// Users of home and phones of visiting, by number: who is on a phone all the time,
const OLD: usize = 0;
/// who logs in while the clock jumps,
const MOVING: usize = 1;
/// who logs out when home can't be told,
const OWED: usize = 2;
/// who wants the phone on which a login was never answered,
const NEXT: usize = 3;
/// and who has typed wrong PINs.
const LOCKED: usize = 4;

/// Of a login.
const DEADLINE: Duration = Duration::from_secs(4);
/// How much later than that a phone may be told, and be free: a debug build on a busy machine.
const SLACK: Duration = Duration::from_secs(4);
/// How much cluster time passes between a jump and a look: what runs by the clock has run by then.
const A_WHILE: i64 = 4_000;

struct Scene {
    lab: Lab,
    between: Between,
}

impl Scene {
    async fn set() -> Self {
        let lab = Lab::start(&Spec {
            paired: false,
            settings: vec![(
                "login".to_owned(),
                format!("deadline = \"{}ms\"", DEADLINE.as_millis()),
            )],
            ..Spec::default()
        })
        .await
        .unwrap();
        for cluster in &lab.clusters {
            // Valid also where yesterday is.
            let member = cluster.member().unwrap();
            let (from, to) = (days_from_now(-3), days_from_now(90));
            let request = cluster.authority.request(&member.name).valid(from, to);
            let made = cluster.authority.sign(&request).unwrap();
            member.install(&made).unwrap();
            let mut admin = member.admin().await.unwrap();
            let request = emccd::wire::admin::ReloadIdentitiesRequest::default();
            admin.reload(request).await.unwrap();
        }
        let between = Between::pair(&lab.clusters[HOME], &lab.clusters[VISITING])
            .await
            .unwrap();
        Self { lab, between }
    }

    async fn log_in(&self, user: usize, phone: usize) -> Shown {
        let pin = self.lab.clusters[HOME].data.user(user).unwrap().pin.clone();
        self.type_in(user, &pin, phone).await
    }

    async fn type_in(&self, user: usize, pin: &str, phone: usize) -> Shown {
        let user = self.lab.clusters[HOME].data.user(user).unwrap();
        let visiting = &self.lab.clusters[VISITING];
        let device = &visiting.data.phone(phone).unwrap().name;
        let browser = visiting.member().unwrap().phone().unwrap();
        browser
            .login_at_once(device, None, &user.user_id, pin)
            .await
            .unwrap()
    }

    async fn must_log_in(&self, user: usize, phone: usize, when: &str) {
        let shown = self.log_in(user, phone).await;
        assert_eq!(shown.em_code, None, "{when}: {}", shown.text);
    }

    async fn must_log_out(&self, phone: usize, when: &str) {
        let shown = crate::support::log_out(&self.lab.clusters[VISITING], phone).await;
        assert_eq!(shown.em_code, None, "{when}: {}", shown.text);
    }

    fn jump(&self, side: usize, millis: i64) {
        let member = self.lab.clusters[side].member().unwrap();
        member.clock.set_offset_millis(millis);
    }

    /// The phones that somebody is on, on both sides, once these agree.
    async fn phones(&self) -> Vec<usize> {
        let (home, visiting) = (&self.lab.clusters[HOME], &self.lab.clusters[VISITING]);
        let shared = settled(home, visiting).await;
        let number = |name: &str| {
            (0..8)
                .find(|n| visiting.data.phone(*n).unwrap().name == name)
                .unwrap()
        };
        let mut phones: Vec<_> = shared.iter().map(|s| number(&s.device)).collect();
        phones.sort_unstable();
        phones
    }

    async fn linked(&self) {
        for (us, them) in [(HOME, VISITING), (VISITING, HOME)] {
            let (us, them) = (&self.lab.clusters[us], &self.lab.clusters[them].id);
            us.wait_linked(them).await.unwrap();
        }
    }

    /// The sessions at home that live.
    fn live_at_home(&self) -> BTreeSet<String> {
        let sql = "SELECT id FROM sessions WHERE role = 'home' AND state = 'active'";
        read(&self.lab.clusters[HOME], sql).into_iter().collect()
    }

    /// Waits until home has been asked by a login, whose answer is on its way: for a session beside those of `before`.
    async fn until_asked(&self, before: &BTreeSet<String>) {
        until(DEADLINE, "home is asked", async || {
            let living = self.live_at_home();
            holds(!living.is_subset(before), &living)
        })
        .await;
    }

    /// Waits until some cluster time has passed at both.
    async fn a_while(&self) {
        let mut since = Vec::new();
        for cluster in &self.lab.clusters {
            since.push(cluster_time(cluster));
        }
        for (cluster, since) in self.lab.clusters.iter().zip(since) {
            until(Duration::from_secs(20), "time goes on", async || {
                let now = cluster_time(cluster);
                holds(now >= since + A_WHILE, now)
            })
            .await;
        }
    }
}

/// One column of a cluster's database.
fn read<T: rusqlite::types::FromSql>(cluster: &emccd::lab::Cluster, sql: &str) -> Vec<T> {
    let file = cluster.member().unwrap().folder.join("../emccd.db");
    tokio::task::block_in_place(|| {
        let database = rusqlite::Connection::open(file).unwrap();
        database.busy_timeout(Duration::from_secs(10)).unwrap();
        let mut statement = database.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    })
}

/// The cluster's own time, as it is on record.
fn cluster_time(cluster: &emccd::lab::Cluster) -> i64 {
    read(cluster, "SELECT at FROM cluster_time")[0]
}

/// A clock jumps while a login is under way, and once more while one is that gets no answer.
async fn logins_go_on(scene: &Scene, side: usize, by: i64, when: &str) {
    // The phone's cluster knows whose the user is: only the login itself is asked for.
    scene.must_log_in(MOVING, MOVING, when).await;
    scene.must_log_out(MOVING, when).await;
    let before = scene.live_at_home();
    scene.between.cut(Way::There, Flow::Held);
    let jumps = async {
        scene.until_asked(&before).await;
        scene.jump(side, by);
        scene.between.heal();
    };
    let (shown, ()) = tokio::join!(scene.log_in(MOVING, MOVING), jumps);
    assert_eq!(shown.em_code, None, "{when}: {}", shown.text);
    scene.jump(side, 0);
    scene.must_log_out(MOVING, when).await;
    scene.linked().await;

    let before = scene.live_at_home();
    scene.between.cut(Way::There, Flow::Lost);
    let began = Instant::now();
    let jumps = async {
        scene.until_asked(&before).await;
        scene.jump(side, by);
    };
    let (shown, ()) = tokio::join!(scene.log_in(MOVING, MOVING), jumps);
    assert!(
        matches!(shown.em_code, Some(40 | 208)),
        "{when}: {}",
        shown.text
    );
    assert!(
        began.elapsed() < DEADLINE + SLACK,
        "{when}: {:?}",
        began.elapsed()
    );
    scene.between.heal();
    scene.must_log_in(NEXT, MOVING, when).await;
    scene.must_log_out(MOVING, when).await;
    scene.jump(side, 0);
    assert_eq!(scene.phones().await, [OLD], "{when}");
    scene.linked().await;
}

/// A clock jumps while home is owed an end.
async fn what_is_owed_is_told(scene: &Scene, side: usize, by: i64, when: &str) {
    scene.must_log_in(OWED, OWED, when).await;
    scene.between.refuse();
    scene.must_log_out(OWED, when).await;
    scene.jump(side, by);
    scene.a_while().await;
    let at_visiting = rows(&scene.lab.clusters[VISITING]).await;
    let owed = at_visiting.sessions.iter().filter(|s| s.owed).count();
    assert_eq!(owed, 1, "{when}: {:?}", at_visiting.sessions);
    scene.between.heal();
    assert_eq!(scene.phones().await, [OLD], "{when}");
    scene.linked().await;
}

/// A clock jumps while a user is locked out: that lets nobody in, and keeps nobody out when the time is over.
async fn a_lock_lasts_as_long_as_it_may(scene: &Scene, side: usize, by: i64, when: &str) {
    // The policy that holds where there is no other: five wrong PINs, a quarter of an hour.
    for _ in 0..5 {
        let shown = scene.type_in(LOCKED, "00000", LOCKED).await;
        assert_eq!(shown.em_code, Some(2), "{when}: {}", shown.text);
    }
    for by in [by, 0, by] {
        scene.jump(side, by);
        let shown = scene.log_in(LOCKED, LOCKED).await;
        assert_eq!(shown.em_code, Some(2), "{when}: {}", shown.text);
    }
    tamper(
        &scene.lab.clusters[HOME],
        "UPDATE cluster_time SET at = at + 16 * 60 * 1000",
    )
    .await;
    scene.must_log_in(LOCKED, LOCKED, when).await;
    scene.must_log_out(LOCKED, when).await;
    scene.jump(side, 0);
    assert_eq!(scene.phones().await, [OLD], "{when}");
}

/// Both sides say that the clocks are apart, and by how much.
async fn is_alarmed(scene: &Scene, when: &str) {
    let is_apart = |peer: &emccd::wire::admin::PeerStatus| {
        let outbound = peer.outbound.as_ref();
        outbound
            .and_then(|o| o.clock_offset_ms)
            .is_some_and(|ms| ms.abs() > DAY_MILLIS / 2)
    };
    for (us, them) in [(HOME, VISITING), (VISITING, HOME)] {
        let (us, them) = (&scene.lab.clusters[us], &scene.lab.clusters[them].id);
        us.wait_status(them, "known to be apart", is_apart)
            .await
            .unwrap();
        let (code, found) = doctor(&us.member().unwrap().config).await;
        assert_eq!(code, 1, "{when}: {found:#}");
        let clock = of(&found, "clock");
        assert!(
            clock.iter().any(|f| f["level"] == "error"),
            "{when}: {found:#}"
        );
    }
}

/// Yesterday prolongs nothing: once a session's hours have gone by it ends, on both sides.
async fn time_is_over_when_it_is(scene: &Scene) {
    scene.jump(HOME, -DAY_MILLIS);
    scene.a_while().await;
    assert_eq!(scene.phones().await, [OLD]);
    let ten_hours = "UPDATE cluster_time SET at = at + 10 * 3600 * 1000";
    tamper(&scene.lab.clusters[HOME], ten_hours).await;
    let name = &scene.lab.clusters[VISITING].data.phone(OLD).unwrap().name;
    for cluster in &scene.lab.clusters {
        let old = until(Duration::from_secs(30), "its time is over", async || {
            let all = rows(cluster).await;
            let mut old = all
                .sessions
                .into_iter()
                .filter(|s| s.device.as_str() == name);
            let old = old.next().unwrap();
            holds(old.state == State::Ended, &old).map(|()| old)
        })
        .await;
        assert_eq!(old.end_reason, Some(EndReason::Expired), "{old:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_by_a_day_ends_nothing_and_prolongs_nothing() {
    let scene = Scene::set().await;
    scene.must_log_in(OLD, OLD, "before").await;
    for side in [HOME, VISITING] {
        for by in [DAY_MILLIS, -DAY_MILLIS] {
            let when = format!("{by} ms at {}", scene.lab.clusters[side].id);
            logins_go_on(&scene, side, by, &when).await;
            a_lock_lasts_as_long_as_it_may(&scene, side, by, &when).await;
            what_is_owed_is_told(&scene, side, by, &when).await;
            // It is a day apart since then.
            is_alarmed(&scene, &when).await;
            assert_eq!(scene.phones().await, [OLD], "{when}");
            scene.jump(side, 0);
        }
    }
    time_is_over_when_it_is(&scene).await;
    scene.lab.shut_down().await;
}

/// What a day of wall time does to cluster time that is handed over from process to process: nothing. A process that
/// finds nobody before it goes by the wall clock, which is how the day is seen to be one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_over_asks_no_wall_clock() {
    // What the database has of the wall clock is a day old, whoever writes it when.
    const A_DAY_AGO: &str = "CREATE TRIGGER a_day_ago AFTER UPDATE ON cluster_time
        BEGIN UPDATE cluster_time SET wall = NEW.wall - 86400000; END;
        UPDATE cluster_time SET wall = wall";
    let mut lab = lab_of_processes(1).await;
    tamper(&lab.clusters[0], A_DAY_AGO).await;
    let began = cluster_time(&lab.clusters[0]);
    let config = lab.clusters[0].members[0].config.clone();
    lab.clusters[0].members[0].take_over(&config).await.unwrap();
    let goes_on = cluster_time(&lab.clusters[0]);
    assert!(goes_on < began + DAY_MILLIS / 2, "{began} to {goes_on}");
    lab.clusters[0].members[0].kill().await.unwrap();
    let member = lab.clusters[0].member_mut().unwrap();
    member.start(&Versions::default()).await.unwrap();
    let jumped = cluster_time(&lab.clusters[0]);
    assert!(jumped >= began + DAY_MILLIS, "{began} to {jumped}");
    lab.shut_down().await;
}
