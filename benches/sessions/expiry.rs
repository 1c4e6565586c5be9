//! Logins while 10,000 sessions end at once.
//!
//! Two clusters share 10,000 sessions, and users of the first log in and out on phones of the second at a fixed rate.
//! After a while of that all the sessions end in the same second, in one of the [`Way`]s, and both sides have to know
//! of it. The p99 of the logins from the first end until the last one is known on both sides stands against the p99
//! of the while before; a login counts from the moment at which it should have begun. The sessions are put into the
//! databases beside the nodes. Options: `--rounds=N`, `--rate=N`.

use std::{
    fmt::Write as _,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
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
/// Until then all is over, on any machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the p99 may grow by: the median of the rounds counts.
const WANTED: f64 = 2.0;
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

    /// What makes them end, in home's database and in visiting's. The row of cluster time is two seconds old at most.
    const fn trigger(self) -> [Option<&'static str>; 2] {
        const DUE: &str = "deadline = (SELECT at FROM cluster_time) + 3000";
        const DUE_THERE: &str = "deadline = (SELECT at FROM cluster_time) + 63000";
        const OWED: &str =
            "state = 'ended', owed = 1, ended_at = 0, end_reason = 'expired', initiator = role,
            changed_at = (SELECT at FROM cluster_time)";
        match self {
            Self::Expiry => [Some(DUE), Some(DUE_THERE)],
            Self::HomeOwes => [Some(OWED), None],
            Self::VisitingOwes => [None, Some(OWED)],
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
            taken.push(field.round(number, way, rate).await?);
            number += 1;
        }
        let ratio = middle(taken.iter().map(Round::ratio));
        is_met &= ratio.1 <= WANTED;
        let of = |value: fn(&Round) -> f64| spread(middle(taken.iter().map(value)));
        println!(
            "{SESSIONS} sessions at once, {}, beside {rate} logins/s ({rounds} rounds: median, lowest to highest): p99 \
             of logins {} ms against {} ms before; ratio {}; wanted: at most {WANTED}; ended here after {} s, known on \
             both sides after {} s",
            way.what(),
            of(|r| millis(r.during)),
            of(|r| millis(r.before)),
            spread(ratio),
            of(|r| r.ended.as_secs_f64()),
            of(|r| r.known.as_secs_f64()),
        );
    }
    field.lab.shut_down().await;
    Ok(is_met)
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
    /// From the first end until all have ended where they end first.
    ended: Duration,
    /// Until then both sides know of all.
    known: Duration,
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

/// How far a database is: of the round's sessions, those that live and those whose end is owed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Standing {
    living: u32,
    owed: u32,
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
        for store in &self.stores {
            store
                .on(move |store, database| store.check(database, number))
                .await?;
        }
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
        })
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
                ensure!(shown.em_code.is_none(), "login {n} showed {}", shown.text);
                let login = (due.into_std(), due.elapsed());
                load.taken
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(login);
                let path = format!("/emapp/EMAppServlet?device={device}&doLogout=true");
                let shown = phone.raw_get(&path).await?;
                ensure!(shown.em_code.is_none(), "logout {n} showed {}", shown.text);
                Ok(())
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
        for (store, trigger) in self.stores.iter().zip(way.trigger()) {
            if let Some(set) = trigger {
                store
                    .on(move |store, database| store.set(database, number, set))
                    .await?;
            }
        }
        let mut start = None;
        let (mut first, mut ended) = (None, None);
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
            let start = start.get_or_insert_with(|| standing.clone());
            if *start != standing {
                first.get_or_insert(now - LOOK);
            }
            let living =
                |standing: &[Standing]| standing.iter().map(|s| s.living).collect::<Vec<_>>();
            if living(&standing).contains(&0) {
                ended.get_or_insert(now);
            }
            if standing.iter().all(|s| (s.living, s.owed) == (0, 0)) {
                let first = first.context("they had ended before it was looked")?;
                let ended = ended.unwrap_or(now);
                return Ok(Watched {
                    began,
                    triggered,
                    first,
                    ended: ended.max(first),
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

    /// Puts the sessions of a round there: of one user, who may have many; no limit ends them.
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
               0, 0
             FROM numbered LEFT JOIN held USING (n)",
            (SESSIONS, self.role, &self.other, number),
        )?;
        ensure!(filled == usize::try_from(SESSIONS)?, "{filled} rows");
        Ok(())
    }

    fn set(&self, database: &rusqlite::Connection, number: u32, what: &str) -> Result<()> {
        let sql = format!("UPDATE sessions SET {what} WHERE {}", self.those(number));
        let set = database.execute(&sql, ())?;
        ensure!(set == usize::try_from(SESSIONS)?, "{set} rows");
        Ok(())
    }

    fn standing(&self, database: &rusqlite::Connection, number: u32) -> Result<Standing> {
        let count = |what: &str| {
            let sql = format!(
                "SELECT count(*) FROM sessions WHERE {what} AND {}",
                self.those(number)
            );
            database.query_row(&sql, (), |row| row.get(0))
        };
        Ok(Standing {
            living: count("state <> 'ended'")?,
            owed: count("owed = 1")?,
        })
    }

    /// All have ended, and for the right reason.
    fn check(&self, database: &rusqlite::Connection, number: u32) -> Result<()> {
        let sql = format!(
            "SELECT state || ' ' || coalesce(end_reason, '-') || ' ' || owed, count(*) FROM sessions WHERE {} GROUP BY 1",
            self.those(number)
        );
        let mut statement = database.prepare(&sql)?;
        let found = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let found: Vec<(String, u32)> = found.collect::<Result<_, _>>()?;
        let wanted = [("ended expired 0".to_owned(), SESSIONS)];
        ensure!(found == wanted, "in {}: {found:?}", self.file.display());
        Ok(())
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
