//! Logins while 10,000 sessions end at once.
//!
//! Two clusters share 10,000 sessions, and users of the first log in and out on phones of the second at a fixed rate.
//! After a while of that all the sessions end in the same second, in one of the [`Way`]s, and both sides have to know
//! of it. The p99 of the logins from that moment until the last end is known on both sides stands against the p99
//! of the while before; a login counts from the moment at which it should have begun. The sessions are put into the
//! databases beside the nodes, and made to end there in small transactions: what holds the nodes up should be their own.
//! Options: `--rounds=N`, `--rate=N`.

use std::{
    fmt::Write as _,
    fs::File,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use emccd::lab::{Lab, Spec, cluster_name, phone::Phone};
use futures_util::{StreamExt as _, stream};

/// Sessions that end at once.
const SESSIONS: u32 = 10_000;
/// Users, their phones, and logins that can be under way at a time.
const PHONES: usize = 512;
/// Connections of the phones.
const CONNECTIONS: usize = 32;
/// Of the base devices every sixth is nobody's.
const BASE_DEVICES: u32 = SESSIONS / 5 * 6;
/// How long the logins before are looked at.
const BEFORE: Duration = Duration::from_secs(10);
/// How long after the first logins that begins.
const WARM_UP: Duration = Duration::from_secs(2);
/// How often it is looked how far both sides are.
const LOOK: Duration = Duration::from_millis(50);
/// Sessions that are set in one transaction: those whose ids have the same second part.
const SET_AT_ONCE: u32 = 256;
/// How long the writers are left to the nodes after each.
const SET_REST: Duration = Duration::from_millis(10);
/// From the setting of the time of their ends until then.
const AHEAD: Duration = Duration::from_secs(5);
/// How much later visiting ends them by itself.
const AFTER_HOME: Duration = Duration::from_secs(60);
/// Until then all is over, on any machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the p99 may grow by: the median of the rounds counts.
const WANTED: f64 = 2.0;
/// How long after their time the last one may live at home, in any round.
const WITHIN: f64 = 5.0;
const PIN: &str = "135790";

/// How they end.
#[derive(Clone, Copy)]
enum Way {
    /// Their time is over.
    Expiry,
    /// They have ended at home, and visiting is owed the news.
    HomeOwes,
    /// The other way round.
    VisitingOwes,
}

impl Way {
    const ALL: [Self; 3] = [Self::Expiry, Self::HomeOwes, Self::VisitingOwes];

    const fn what(self) -> &'static str {
        match self {
            Self::Expiry => "their time is over",
            Self::HomeOwes => "home owes their ends",
            Self::VisitingOwes => "visiting owes their ends",
        }
    }

    /// What makes them end, in home's database and in visiting's. `at` is a moment of each one's cluster time.
    fn trigger(self, at: [i64; 2]) -> [Option<String>; 2] {
        let due = |at: i64, after: Duration| {
            let after = i64::try_from((AHEAD + after).as_millis()).unwrap_or(i64::MAX);
            Some(format!("deadline = {}", at.saturating_add(after)))
        };
        let owed =
            "state = 'ended', owed = 1, ended_at = 0, end_reason = 'expired', initiator = role,
            changed_at = (SELECT at FROM cluster_time) + PART";
        match self {
            Self::Expiry => [due(at[0], Duration::ZERO), due(at[1], AFTER_HOME)],
            Self::HomeOwes => [Some(owed.to_owned()), None],
            Self::VisitingOwes => [None, Some(owed.to_owned())],
        }
    }

    /// How they may stand at the end. With a login visiting names the newest ends that it owes, without their reasons: home
    /// has those on record as superseded, and home's reason counts.
    const fn reasons(self) -> &'static [&'static str] {
        match self {
            Self::Expiry | Self::HomeOwes => &["ended expired 0"],
            Self::VisitingOwes => &["ended expired 0", "ended superseded 0"],
        }
    }
}

/// Measures, prints, and tells whether all is as wanted.
pub(crate) async fn run() -> Result<bool> {
    let (rounds, rate) = (option("--rounds=", 5)?, option("--rate=", 100)?);
    ensure!(
        rounds > 0 && rate > 0,
        "--rounds and --rate take at least 1"
    );
    let field = Field::start().await?;
    let mut is_met = true;
    let mut number = 0;
    for way in Way::ALL {
        let mut taken = Vec::new();
        for _ in 0..rounds {
            match field.round(number, way, rate).await {
                Ok(round) => taken.push(round),
                Err(cause) => {
                    is_met = false;
                    println!("{}: a round has failed: {cause:#}", way.what());
                    field.clear(number).await?;
                }
            }
            number += 1;
        }
        if !taken.is_empty() {
            is_met &= report(way, rate, &taken);
        }
    }
    field.lab.shut_down().await;
    Ok(is_met)
}

/// Prints what a way came to, and tells whether that is as wanted.
fn report(way: Way, rate: u32, taken: &[Round]) -> bool {
    let of = |value: fn(&Round) -> f64| middle(taken.iter().map(value));
    let ratio = of(Round::ratio);
    let refused: u32 = taken.iter().map(|round| round.refused).sum();
    println!(
        "{SESSIONS} sessions at once, {}, beside {rate} logins/s ({} rounds: median, lowest to highest): p99 of logins \
         {} ms against {} ms before; ratio {}; wanted: at most {WANTED}; known on both sides after {} s; refused \
         logins: {refused}; wanted: none",
        way.what(),
        taken.len(),
        spread(of(|r| millis(r.during))),
        spread(of(|r| millis(r.before))),
        spread(ratio),
        spread(of(|r| r.known.as_secs_f64())),
    );
    let mut is_met = ratio.1 <= WANTED && refused == 0;
    if matches!(way, Way::Expiry) {
        let ended = of(|r| r.ended.as_secs_f64());
        println!(
            "  the last one ended at home {} s after its time; wanted: at most {WITHIN}",
            spread(ended)
        );
        is_met &= ended.2 <= WITHIN;
    }
    is_met
}

fn option(name: &str, otherwise: u32) -> Result<u32> {
    let given = std::env::args().find_map(|word| word.strip_prefix(name).map(str::to_owned));
    given
        .map_or(Ok(otherwise), |n| n.parse())
        .with_context(|| format!("{name}N takes a whole number"))
}

/// What one round came to.
struct Round {
    before: Duration,
    during: Duration,
    /// From the moment of their ends until none lives at home.
    ended: Duration,
    /// Until then both sides know of all.
    known: Duration,
    /// Logins and logouts that came to nothing.
    refused: u32,
}

impl Round {
    fn ratio(&self) -> f64 {
        millis(self.during) / millis(self.before)
    }
}

/// The clusters under measurement.
struct Field {
    lab: Lab,
    phones: Vec<Phone>,
    /// Home's database and visiting's, each with the other's ID.
    stores: [Beside; 2],
}

/// A database beside its node.
#[derive(Clone)]
struct Beside {
    file: PathBuf,
    role: &'static str,
    other: String,
}

/// Whether of a round's sessions any live in a database, and whether the end of any is owed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Standing {
    any_lives: bool,
    any_owed: bool,
}

impl Field {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for index in 0..2 {
            let name = format!("{}.toml", cluster_name(index)?);
            std::fs::write(folder.path().join(name), dataset(index)?)?;
        }
        let settings = [
            ("log", "level = \"error\""),
            ("credentials", "memory-kib = 8"),
            ("credentials", "iterations = 1"),
        ];
        let lab = Lab::start(&Spec {
            data: Some(folder.path().to_owned()),
            settings: settings
                .map(|(section, line)| (section.to_owned(), line.to_owned()))
                .into(),
            ..Spec::default()
        })
        .await?;
        let phones = (0..CONNECTIONS)
            .map(|_| lab.cluster(1)?.member()?.phone())
            .collect::<Result<_>>()?;
        let beside = |index: usize, role| -> Result<Beside> {
            let cluster = lab.cluster(index)?;
            Ok(Beside {
                file: cluster.member()?.folder.join("../emccd.db"),
                role,
                other: lab.cluster(1 - index)?.id.to_string(),
            })
        };
        let stores = [beside(0, "home")?, beside(1, "visiting")?];
        Ok(Self {
            lab,
            phones,
            stores,
        })
    }

    async fn round(&self, number: u32, way: Way, rate: u32) -> Result<Round> {
        for store in &self.stores {
            store
                .on(move |store, database| store.fill(database, number))
                .await?;
        }
        let load = Load::default();
        let (logins, watched) = tokio::join!(self.logins(&load, rate), async {
            let watched = self.watch(number, way).await;
            load.is_over.store(true, Ordering::Release);
            watched
        });
        let watched = watched?;
        logins?;
        self.check(number, way).await?;
        let taken = load
            .taken
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let p99 = |from: Instant, until: Instant| {
            let mut took: Vec<_> = taken
                .iter()
                .filter(|(due, _)| (from..until).contains(due))
                .map(|(_, took)| *took)
                .collect();
            took.sort_unstable();
            took.get(took.len() * 99 / 100)
                .copied()
                .context("no logins in that time")
        };
        Ok(Round {
            before: p99(watched.began, watched.triggered)?,
            during: p99(watched.first, watched.known)?,
            ended: watched.ended - watched.first,
            known: watched.known - watched.first,
            refused: load.refused.into_inner(),
        })
    }

    /// All have ended, and both sides have the same reasons on record.
    async fn check(&self, number: u32, way: Way) -> Result<()> {
        let mut found = Vec::new();
        for store in &self.stores {
            let reasons = store
                .on(move |store, database| store.reasons(database, number))
                .await?;
            let all: u32 = reasons.iter().map(|(_, count)| count).sum();
            let is_right = |reason: &str| way.reasons().contains(&reason);
            ensure!(
                all == SESSIONS && reasons.iter().all(|(reason, _)| is_right(reason)),
                "in {}: {reasons:?}",
                store.file.display()
            );
            found.push(reasons);
        }
        ensure!(
            found.iter().all(|one| Some(one) == found.first()),
            "the two sides have different reasons: {found:?}"
        );
        Ok(())
    }

    /// Forgets the sessions of a round that has failed: they hold base devices.
    async fn clear(&self, number: u32) -> Result<()> {
        for store in &self.stores {
            store
                .on(move |store, database| {
                    let sql = format!("DELETE FROM sessions WHERE {}", store.those(number));
                    Ok(database.execute(&sql, ())?)
                })
                .await?;
        }
        Ok(())
    }

    /// Users log in and out, each at its time, whether earlier ones are through or not, until the load is over.
    async fn logins(&self, load: &Load, rate: u32) -> Result<()> {
        let gap = Duration::from_secs(1) / rate;
        let began = tokio::time::Instant::now();
        let mut all = stream::iter(0_u32..)
            .take_while(|_| std::future::ready(!load.is_over.load(Ordering::Acquire)))
            .map(|n| async move {
                let due = began + gap * n;
                tokio::time::sleep_until(due).await;
                if load.is_over.load(Ordering::Acquire) {
                    return Ok(());
                }
                let number = usize::try_from(n)? % PHONES;
                let phone = self.phones.get(number % CONNECTIONS).context("no phones")?;
                let (device, user) = (format!("SEP1{number:08}"), format!("u{number}.0"));
                let shown = phone.login_at_once(&device, None, &user, PIN).await?;
                if shown.em_code.is_some() {
                    load.refused(&shown.text);
                }
                let login = (due.into_std(), due.elapsed());
                load.taken
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(login);
                let path = format!("/emapp/EMAppServlet?device={device}&doLogout=true");
                let shown = phone.raw_get(&path).await?;
                if shown.em_code.is_some() {
                    load.refused(&shown.text);
                }
                Ok::<_, anyhow::Error>(())
            })
            .buffer_unordered(PHONES);
        while let Some(outcome) = all.next().await {
            outcome?;
        }
        Ok(())
    }

    /// Has them end after a while, and watches both sides until all is known.
    async fn watch(&self, number: u32, way: Way) -> Result<Watched> {
        tokio::time::sleep(WARM_UP).await;
        let began = Instant::now();
        tokio::time::sleep(BEFORE).await;
        let triggered = Instant::now();
        let mut first = triggered;
        let mut at = [0; 2];
        if matches!(way, Way::Expiry) {
            for (at, store) in at.iter_mut().zip(&self.stores).rev() {
                (*at, first) = store.tick().await?;
            }
            first += AHEAD;
        }
        for (store, trigger) in self.stores.iter().zip(way.trigger(at)) {
            if let Some(set) = trigger {
                store.set(number, &set).await?;
            }
        }
        ensure!(
            matches!(way, Way::HomeOwes | Way::VisitingOwes) || Instant::now() < first,
            "their time was over before it was set"
        );
        let mut ended = None;
        loop {
            let now = Instant::now();
            ensure!(
                now - triggered < PATIENCE,
                "sessions are left after {} s",
                PATIENCE.as_secs()
            );
            let mut standing = Vec::new();
            for store in &self.stores {
                standing.push(
                    store
                        .on(move |store, database| store.standing(database, number))
                        .await?,
                );
            }
            if standing.first().is_some_and(|home| !home.any_lives) {
                ended.get_or_insert(now);
            }
            if standing.iter().all(|s| !s.any_lives && !s.any_owed) {
                return Ok(Watched {
                    began,
                    triggered,
                    first,
                    ended: ended.unwrap_or(now).max(first),
                    known: now,
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The moments of a round.
struct Watched {
    began: Instant,
    triggered: Instant,
    first: Instant,
    ended: Instant,
    known: Instant,
}

/// Logins that go on, each with when it should have begun and how long it took from there.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    taken: Mutex<Vec<(Instant, Duration)>>,
    refused: AtomicU32,
}

impl Load {
    /// Counts one that came to nothing; says of the first what was shown.
    fn refused(&self, shown: &str) {
        if self.refused.fetch_add(1, Ordering::Relaxed) == 0 {
            println!("a phone showed: {shown}");
        }
    }
}

impl Beside {
    /// Works on the database, on a thread that may wait for it.
    async fn on<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self, &rusqlite::Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || {
            let database = rusqlite::Connection::open(&store.file)?;
            database.busy_timeout(Duration::from_secs(30))?;
            work(&store, &database)
        })
        .await?
    }

    /// Puts the sessions of a round there: of one user, who may have many; no limit ends them. They are young: until both
    /// sides have them, the nodes would end others that one side lacks.
    fn fill(&self, database: &rusqlite::Connection, number: u32) -> Result<()> {
        let filled = database.execute(
            "INSERT INTO sessions (role, counterpart, id, state, device, user_key, user_id, login_type, login_name,
               base_device, reference, created_at, changed_at, owed)
             WITH RECURSIVE numbered(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbered WHERE n < $1),
               held(n, name) AS (
                 SELECT row_number() OVER (ORDER BY name), name FROM (
                   SELECT name, row_number() OVER (ORDER BY base_device_key) AS place FROM base_devices)
                 WHERE place % 6 > 0)
             SELECT $2, $3, printf('0192f0%02x-%04x-7abc-8def-%012x', $4, n / 256, n * 2654435761 % 281474976710656),
               'active', printf('SEP9%02d%06d', $4, n), 'many.0', 'many.0', 'UID', 'many.0', held.name, '00000000', 0,
               (SELECT at FROM cluster_time), 0
             FROM numbered LEFT JOIN held USING (n)",
            (SESSIONS, self.role, &self.other, number),
        )?;
        ensure!(filled == usize::try_from(SESSIONS)?, "{filled} rows");
        Ok(())
    }

    /// The next reading of cluster time that its node puts on record, and when that was.
    async fn tick(&self) -> Result<(i64, Instant)> {
        self.on(|_, database| {
            let read = || -> Result<i64> {
                Ok(database.query_row("SELECT at FROM cluster_time", (), |row| row.get(0))?)
            };
            let (before, began) = (read()?, Instant::now());
            loop {
                let at = read()?;
                if at != before {
                    return Ok((at, Instant::now()));
                }
                ensure!(began.elapsed() < PATIENCE, "cluster time stands still");
                std::thread::park_timeout(Duration::from_millis(5));
            }
        })
        .await
    }

    /// Sets something of all sessions of a round, few at a time; `PART` in it is the number of those.
    async fn set(&self, number: u32, what: &str) -> Result<()> {
        let what = what.to_owned();
        let set = self
            .on(move |store, database| {
                let mut set = 0;
                for part in 0..=SESSIONS / SET_AT_ONCE {
                    let what = what.replace("PART", &part.to_string());
                    let sql = format!(
                        "UPDATE sessions SET {what} WHERE {} AND id >= '0192f0{number:02x}-{part:04x}-'
                           AND id < '0192f0{number:02x}-{:04x}-'",
                        store.those(number),
                        part + 1
                    );
                    let turn = store.turn()?;
                    set += database.execute(&sql, ())?;
                    drop(turn);
                    std::thread::park_timeout(SET_REST);
                }
                Ok(set)
            })
            .await?;
        ensure!(set == usize::try_from(SESSIONS)?, "{set} rows");
        Ok(())
    }

    /// Waits for its turn to write as nodes do: SQLite's own waiting sleeps and tries again, and theirs would, too.
    fn turn(&self) -> Result<File> {
        let open = |ending| {
            File::options()
                .write(true)
                .open(self.file.with_extension(ending))
        };
        let (turn, write) = (open("turn")?, open("write")?);
        turn.lock()?;
        write.lock()?;
        Ok(write)
    }

    /// By indexes that hold little else: what looks costs next to nothing.
    fn standing(&self, database: &rusqlite::Connection, number: u32) -> Result<Standing> {
        let is_any = |index: &str, what: &str| {
            let sql = format!(
                "SELECT EXISTS (SELECT 1 FROM sessions INDEXED BY {index} WHERE {what} AND {})",
                self.those(number)
            );
            database.query_row(&sql, (), |row| row.get(0))
        };
        Ok(Standing {
            any_lives: is_any("sessions_shared", "state <> 'ended'")?,
            any_owed: is_any("sessions_owed", "owed = 1")?,
        })
    }

    /// How they stand, and how many do so.
    fn reasons(&self, database: &rusqlite::Connection, number: u32) -> Result<Vec<(String, u32)>> {
        let sql = format!(
            "SELECT state || ' ' || coalesce(end_reason, '-') || ' ' || owed, count(*) FROM sessions WHERE {} GROUP BY 1",
            self.those(number)
        );
        let mut statement = database.prepare(&sql)?;
        let found = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// The sessions of a round.
    fn those(&self, number: u32) -> String {
        let Self { role, other, .. } = self;
        let (from, until) = (
            format!("0192f0{number:02x}"),
            format!("0192f0{:02x}", number + 1),
        );
        format!("role = '{role}' AND counterpart = '{other}' AND id >= '{from}' AND id < '{until}'")
    }
}

fn dataset(index: usize) -> Result<String> {
    let mut toml = format!("[[user]]\nid = \"many.{index}\"\n");
    for number in 0..PHONES {
        writeln!(
            toml,
            "[[user]]\nid = \"u{number}.{index}\"\npin = \"{PIN}\"\n\
             [[profile]]\nname = \"p{number}.{index}\"\nuser = \"u{number}.{index}\"\ndefault = true\n\
             [[device]]\nname = \"SEP{index}{number:08}\"\nmodel = \"CP-8841\""
        )?;
    }
    writeln!(
        toml,
        "[[base-device]]\nname = \"EMCC\"\ncount = {BASE_DEVICES}"
    )?;
    Ok(toml)
}

fn millis(length: Duration) -> f64 {
    length.as_secs_f64() * 1_000.0
}

/// The lowest, the middle one, the highest.
fn middle(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut sorted: Vec<_> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
    (
        at(0),
        at(sorted.len() / 2),
        at(sorted.len().saturating_sub(1)),
    )
}

fn spread((low, middle, high): (f64, f64, f64)) -> String {
    format!("{middle:.2} ({low:.2} to {high:.2})")
}
