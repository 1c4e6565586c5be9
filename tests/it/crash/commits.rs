//! A node is killed at each of its durable commits in turn: before one, when all is written and nothing stands, and after
//! one, when it stands and nobody has been told.
//!
//! Commits are counted from the start of the process, so that those of the start, of its heartbeats and of what it owes
//! are among them. A node is started to stop at the next number, goes through the journey until it stops, is killed, and
//! is held to what was told by the process that is started to stop at the number behind that; until one comes to the end
//! of the journey.
//!
//! How many commits there are differs from run to run, and which is which. So each by which a session of the journey goes
//! on is then stopped at by what it writes, on each of its sides, unless it was among those of the first round. Not on the
//! journey are a choice of profiles, and peers that are removed or not trusted any more.

#![expect(
    clippy::print_stdout,
    reason = "how many commits there were is for whoever reads the test's output"
)]

use std::{collections::BTreeSet, sync::Mutex};

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

/// What home writes of sessions on the journey.
const OF_HOME: [&str; 7] = [
    "home::login::commit",
    "home::logout::end_on_word",
    "home::logout::end::",
    "home::expiry::end_due",
    "home::revocation::end_found",
    "peer::outbox::Outbox::acknowledge",
    "agreement::Agreement>::end",
];

/// And visiting.
const OF_VISITING: [&str; 7] = [
    "visiting::login::open_pending",
    "visiting::login::activate",
    "visiting::login::give_up",
    "visiting::ends::logout",
    "visiting::ends::end::",
    "visiting::ends::end_from_home",
    "visiting::ends::acknowledge",
];

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
        let (home, visiting) = (&self.lab.clusters[HOME], &self.lab.clusters[VISITING]);
        let lives = |rows: &Rows| rows.sessions.iter().any(|s| s.state != State::Ended);
        until(
            OVER_WITHIN,
            format_args!("{what}: all is over"),
            async || {
                let (at_home, at_visiting) = (rows(home).await, rows(visiting).await);
                let is_over = !lives(&at_home) && !lives(&at_visiting);
                holds(is_over, (at_home.sessions, at_visiting.sessions))
            },
        )
        .await;
        self.tell(Told::Out);
    }

    /// Somebody types a PIN that is none.
    async fn guess(&self) {
        let user = self.lab.clusters[HOME].data.user(USER).unwrap();
        let (phone, device) = self.phone(PHONE);
        self.tell(Told::Nothing);
        let shown = phone.login_at_once(device, None, &user.user_id, "99999");
        if let Ok(shown) = shown.await {
            assert!(shown.em_code.is_some(), "{}", shown.text);
            self.tell(Told::Out);
        }
    }

    /// An operator of that side ends what is on the phone.
    async fn end_at(&self, side: usize) {
        self.tell(Told::Nothing);
        let cluster = &self.lab.clusters[side];
        let id = {
            let sessions = rows(cluster).await.sessions;
            let living = sessions.iter().find(|s| s.state == State::Active);
            living.expect("somebody is on the phone").id.to_string()
        };
        let which = Some(pb::logout_session_request::Which::Id(id));
        let ends = async {
            let request = pb::LogoutSessionRequest { which };
            cluster.admin().await?.logout(request).await?;
            anyhow::Ok(())
        };
        // A node that has come to its point says no more.
        if ends.await.is_ok() {
            self.until_over("an operator ends it").await;
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
        // What was begun before the node died may end a session between two looks.
        let what = format!("{when}: two looks that see the same");
        let (shared, pages) = until(3 * OVER_WITHIN, what, async || {
            let shared = settled(home, visiting).await;
            let mut pages = Vec::new();
            for number in [PHONE, OTHER] {
                let (phone, device) = self.phone(number);
                pages.push((number, phone.login_form(device, None).await.unwrap()));
            }
            let again = settled(home, visiting).await;
            holds(again == shared, (&again, &shared)).map(|()| (shared, pages))
        })
        .await;
        assert!(shared.len() <= 1, "{when}: {shared:?}");
        let mut on = None;
        for (number, page) in pages {
            let (_, device) = self.phone(number);
            let is_on = shared.iter().any(|s| s.device == device);
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
        self.guess().await;
        for side in [HOME, VISITING] {
            self.log_in(PHONE).await;
            self.end_at(side).await;
        }
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
    let rows = rows(cluster).await;
    rows.hold_invariants();
    assert_eq!(rows.users_in_twice(), Vec::<String>::new(), "{when}");
}

/// A federation whose nodes of one side are killed again and again, and what its phones were told.
struct Crashes {
    lab: Lab,
    victim: usize,
    told: Mutex<Told>,
    /// At what it was stopped: the side, and what was written.
    stops: Vec<(String, Vec<String>)>,
}

impl Crashes {
    async fn of(victim: usize) -> Self {
        let settings = vec![("login".to_owned(), "deadline = \"4s\"".to_owned())];
        let hosting = Hosting::Processes { binary: binary() };
        let lab = Lab::start(&Spec {
            hosting,
            settings,
            ..Spec::default()
        })
        .await
        .unwrap();
        let home = &lab.clusters[HOME];
        set_parameter(home, "multiple-login-behavior", "auto-logout").await;
        Self {
            lab,
            victim,
            told: Mutex::new(Told::Out),
            stops: Vec::new(),
        }
    }

    /// Kills the node where it stands, and has a new one go through the journey until it stops at that point; whether it
    /// came to one.
    async fn stops_at(&mut self, point: &str) -> bool {
        let member = self.lab.clusters[self.victim].member_mut().unwrap();
        member.kill().await.unwrap();
        is_whole(&self.lab.clusters[self.victim], point).await;
        let member = self.lab.clusters[self.victim].member_mut().unwrap();
        let mut event = member.begin(&Versions::stopping_at(point)).await.unwrap();
        if event == Event::Ready {
            let member = self.lab.clusters[self.victim].member().unwrap();
            let journey = Journey {
                lab: &self.lab,
                told: &self.told,
            };
            event = tokio::select! {
                stopped = member.next_event() => stopped.unwrap(),
                () = journey.go(point) => return false,
            };
        }
        let Event::StoppedAt { point, writes } = event else {
            panic!("{event:?} once more")
        };
        println!("{point}: {writes:?}");
        let side = point.split('.').nth(2).unwrap_or_default().to_owned();
        self.stops.push((side, writes));
        true
    }

    /// Those that it was stopped at on that side.
    fn missed<'p>(&self, parts: &[&'p str], side: &str) -> BTreeSet<&'p str> {
        let mut missed: BTreeSet<_> = parts.iter().copied().collect();
        let stops = self.stops.iter().filter(|(at, _)| at == side);
        for path in stops.flat_map(|(_, writes)| writes) {
            missed.retain(|part| !path.contains(part));
        }
        missed
    }
}

/// All commits of one side, before and after each.
async fn crash_at_each_commit_of(victim: usize, parts: &[&str]) {
    let mut crashes = Crashes::of(victim).await;
    let mut points = (1..MOST).flat_map(|number| {
        let sides = ["before", "after"];
        sides.map(|side| format!("store.commit.{side}.{number}"))
    });
    while crashes
        .stops_at(&points.next().expect("the journey comes to its end"))
        .await
    {}
    println!("stopped at {} points", crashes.stops.len());
    for side in ["before", "after"] {
        for part in crashes.missed(parts, side) {
            let point = format!("store.commit.{side}.{part}");
            assert!(crashes.stops_at(&point).await, "never came to {point}");
        }
        assert_eq!(crashes.missed(parts, side), BTreeSet::new(), "{side}");
    }
    if victim == VISITING {
        // What the one before has left behind is ended by the next one as it starts.
        for side in ["before", "after"] {
            let began = "store.commit.after.visiting::login::open_pending";
            assert!(crashes.stops_at(began).await);
            let ends = format!("store.commit.{side}.visiting::pending::end_rows");
            assert!(crashes.stops_at(&ends).await, "never came to {ends}");
        }
    }
    // What the last one left behind is held to what was told, too.
    let end = format!("store.commit.before.{MOST}");
    assert!(
        !crashes.stops_at(&end).await,
        "the journey comes to its end"
    );
    nobody_panicked(&crashes.lab);
    crashes.lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn home_is_killed_at_each_of_its_commits() {
    crash_at_each_commit_of(HOME, &OF_HOME).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visiting_is_killed_at_each_of_its_commits() {
    crash_at_each_commit_of(VISITING, &OF_VISITING).await;
}
