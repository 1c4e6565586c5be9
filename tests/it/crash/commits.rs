//! A node is killed at each of its durable commits in turn: before one, when all is written and nothing stands, and after
//! one, when it stands and nobody has been told.
//!
//! Commits are counted from the start of the process, so that those of the start, of its heartbeats and of what it owes
//! are among them. A node is started to stop at the next number, goes through the journey until it stops, is killed, and
//! is held to what was told by the process that is started to stop at the number behind that; until one comes to the end
//! of the journey.

#![expect(
    clippy::print_stdout,
    reason = "how many commits there were is for whoever reads the test's output"
)]

use std::sync::Mutex;

use emccd::lab::member::Event;

use super::*;

/// Who goes through the journey, on which phone, and on which other one.
const USER: usize = 0;
const PHONE: usize = 0;
const OTHER: usize = 1;

/// When a session is over on both sides that one of them has ended, or whose time is over.
const OVER_WITHIN: Duration = Duration::from_secs(40);

/// More commits than a journey can have: heartbeats are among them.
const MOST: u64 = 400;

/// And fewer places than it has to stop at, for either side: two at each commit.
const FEWEST: u32 = 30;

/// What the phone was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    In(usize),
    Out,
    /// Nothing, since it was asked for something.
    Nothing,
}

struct Journey<'l> {
    lab: &'l Lab,
    told: &'l Mutex<Told>,
}

impl Journey<'_> {
    fn tell(&self, told: Told) {
        *self.told.lock().unwrap() = told;
    }

    fn phone(&self, number: usize) -> (Phone, &str) {
        let visiting = &self.lab.clusters[VISITING];
        let phone = visiting.member().unwrap().phone().unwrap();
        (phone, &visiting.data.phone(number).unwrap().name)
    }

    async fn log_in(&self, number: usize) {
        let user = self.lab.clusters[HOME].data.user(USER).unwrap();
        let (phone, device) = self.phone(number);
        self.tell(Told::Nothing);
        let shown = phone.login_at_once(device, None, &user.user_id, &user.pin);
        // A node that has come to its point says no more.
        if let Ok(shown) = shown.await {
            assert_eq!(shown.em_code, None, "{}", shown.text);
            self.tell(Told::In(number));
        }
    }

    async fn log_out(&self, number: usize) {
        let (phone, device) = self.phone(number);
        self.tell(Told::Nothing);
        if let Ok(shown) = phone.logout(device).await {
            assert_eq!(shown.em_code, None, "{}", shown.text);
            self.tell(Told::Out);
        }
    }

    /// The user may no longer, until they may again; whatever session they have is over.
    async fn disable(&self) {
        self.tell(Told::Nothing);
        if self.enable(false).await.is_ok() {
            self.until_over("its user is disabled").await;
        }
    }

    /// Fails where the node has come to its point.
    async fn enable(&self, enabled: bool) -> anyhow::Result<()> {
        let home = &self.lab.clusters[HOME];
        let user = &home.data.user(USER)?.user_id;
        let file = pb::ApplyFile {
            name: "user.toml".to_owned(),
            content: format!("[[user]]\nid = \"{user}\"\nenabled = {enabled}\n"),
        };
        let request = pb::ApplyRequest {
            files: vec![file],
            ..pb::ApplyRequest::default()
        };
        home.admin().await?.apply(request).await?;
        Ok(())
    }

    /// Waits until nobody is on the phone, and nobody at home thinks so.
    async fn until_over(&self, what: &str) {
        let began = Instant::now();
        let (home, visiting) = (&self.lab.clusters[HOME], &self.lab.clusters[VISITING]);
        let lives = |rows: &Rows| rows.sessions.iter().any(|s| s.state != State::Ended);
        loop {
            let (at_home, at_visiting) = (rows(home).await, rows(visiting).await);
            if !lives(&at_home) && !lives(&at_visiting) {
                return self.tell(Told::Out);
            }
            assert!(
                began.elapsed() < OVER_WITHIN,
                "{what}: {:?}, {:?}",
                at_home.sessions,
                at_visiting.sessions
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The session's time is over at home, and visiting hears of it.
    async fn expire(&self) {
        self.tell(Told::Nothing);
        let sql = "UPDATE sessions SET deadline = 1 WHERE role = 'home' AND state = 'active'";
        tamper(&self.lab.clusters[HOME], sql).await;
        self.until_over("its time is over").await;
    }

    /// One side has ended the session, and has lost that it owes the news: the other one asks.
    async fn agree(&self) {
        self.tell(Told::Nothing);
        let sql =
            "UPDATE sessions SET state = 'ended', end_reason = 'user', initiator = 'visiting',
             ended_at = created_at WHERE role = 'visiting' AND state = 'active'";
        tamper(&self.lab.clusters[VISITING], sql).await;
        self.until_over("it has ended on one side").await;
    }

    /// What the last process left behind: both sides agree, on what the phones were told, and each phone's page is about
    /// that. The phone that somebody is on.
    async fn holds(&self, when: &str) -> Option<usize> {
        let (home, visiting) = (&self.lab.clusters[HOME], &self.lab.clusters[VISITING]);
        home.wait_linked(&visiting.id).await.unwrap();
        visiting.wait_linked(&home.id).await.unwrap();
        let shared = settled(home, visiting).await;
        assert!(shared.len() <= 1, "{when}: {shared:?}");
        let mut on = None;
        for number in [PHONE, OTHER] {
            let (phone, device) = self.phone(number);
            let is_on = shared.iter().any(|s| s.device == device);
            let page = phone.login_form(device, None).await.unwrap();
            assert_eq!(page.is_form(), !is_on, "{when}: {}", page.body);
            on = on.or_else(|| is_on.then_some(number));
        }
        assert_eq!(on.is_some(), !shared.is_empty(), "{when}: {shared:?}");
        match *self.told.lock().unwrap() {
            Told::Nothing => {}
            Told::In(number) => assert_eq!(on, Some(number), "{when}: {shared:?}"),
            Told::Out => assert_eq!(on, None, "{when}: {shared:?}"),
        }
        on
    }

    /// From nobody on the phones to nobody on the phones.
    async fn go(&self, when: &str) {
        if let Some(number) = self.holds(when).await {
            self.log_out(number).await;
        }
        if self.enable(true).await.is_err() {
            return std::future::pending().await;
        }
        self.log_in(PHONE).await;
        self.log_out(PHONE).await;
        self.log_in(PHONE).await;
        self.expire().await;
        self.log_in(PHONE).await;
        self.agree().await;
        // The first session makes way for the second.
        self.log_in(PHONE).await;
        self.log_in(OTHER).await;
        self.disable().await;
        self.holds(when).await;
    }
}

/// The file is whole as the dead process left it, and nobody has looked at it since.
async fn is_whole(cluster: &emccd::lab::Cluster, when: &str) {
    let file = cluster.member().unwrap().folder.join("../emccd.db");
    let look = move || {
        let database = rusqlite::Connection::open(file).unwrap();
        let sql = "PRAGMA integrity_check";
        database.query_row(sql, [], |row| row.get::<_, String>(0))
    };
    let found = tokio::task::spawn_blocking(look).await.unwrap();
    assert_eq!(found.unwrap(), "ok", "{when}");
    rows(cluster).await.hold_invariants();
}

/// All commits of one side, before and after each.
async fn crash_at_each_commit_of(victim: usize) {
    let settings = vec![("login".to_owned(), "deadline = \"4s\"".to_owned())];
    let hosting = Hosting::Processes { binary: binary() };
    let mut lab = Lab::start(&Spec {
        hosting,
        settings,
        ..Spec::default()
    })
    .await
    .unwrap();
    set_parameter(
        &lab.clusters[HOME],
        "multiple-login-behavior",
        "auto-logout",
    )
    .await;
    let told = Mutex::new(Told::Out);
    let mut points = (1..MOST).flat_map(|number| {
        let sides = ["before", "after"];
        sides.map(|side| format!("store.commit.{side}.{number}"))
    });
    let (mut stops, mut is_over) = (0, false);
    while !is_over {
        let point = points.next().expect("the journey comes to its end");
        let member = lab.clusters[victim].member_mut().unwrap();
        member.kill().await.unwrap();
        is_whole(&lab.clusters[victim], &point).await;
        let member = lab.clusters[victim].member_mut().unwrap();
        let began = member.begin(&Versions::stopping_at(&point)).await.unwrap();
        if began == Event::Ready {
            let member = lab.clusters[victim].member().unwrap();
            let journey = Journey {
                lab: &lab,
                told: &told,
            };
            tokio::select! {
                stopped = member.next_event() => drop(stopped.unwrap()),
                () = journey.go(&point) => is_over = true,
            }
        }
        stops += u32::from(!is_over);
    }
    println!("stopped at {stops} points");
    assert!(stops >= FEWEST, "{stops}");
    nobody_panicked(&lab);
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn home_is_killed_at_each_of_its_commits() {
    crash_at_each_commit_of(HOME).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visiting_is_killed_at_each_of_its_commits() {
    crash_at_each_commit_of(VISITING).await;
}
