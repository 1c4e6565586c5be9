//! PINs: hashing with Argon2id off the async threads, and the lock-out rule.
//!
//! A hash is bound to a pepper that lives in a file outside the database. At most one hash per worker runs at
//! a time; what could not finish by its deadline is refused at once instead of queued.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use tokio::sync::{Semaphore, watch};

pub mod error;
pub mod lockout;

pub use error::Error;

use crate::{
    secret::{Pin, Secret},
    store::credentials::Phc,
};

/// Settings of the hash and of the lock-out.
#[derive(Clone, Debug)]
pub struct Config {
    /// Memory of one hash, in KiB; 8 to 1,048,576. 19,456 is OWASP's figure for two passes.
    pub memory_kib: u32,
    /// Passes over the memory; at least 1.
    pub iterations: u32,
    /// Lanes of one hash; 1 unless the hashes come from elsewhere.
    pub parallelism: u32,
    /// Hashes that run at once; one per core is right.
    pub workers: usize,
    /// Hashes that may wait; more are refused.
    pub queue: usize,
    /// When a user is locked, and for how long.
    pub lockout: lockout::Rules,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            iterations: 2,
            parallelism: 1,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            queue: 1_024,
            lockout: lockout::Rules::default(),
        }
    }
}

/// Hashes and verifies PINs. Cheap to clone; clones share the queue.
#[derive(Clone)]
pub struct Credentials {
    inner: Arc<Inner>,
}

struct Inner {
    pepper: Secret,
    params: Params,
    lockout: lockout::Rules,
    workers: usize,
    queue: usize,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Length of recent hashes.
    recent: Mutex<Recent>,
    /// Memory of past hashes, for the next ones: 19 MiB are not asked of the allocator per login.
    memory: Mutex<Vec<Vec<Block>>>,
    /// Whether a PIN has matched its hash, and so the pepper is the right one.
    proven: watch::Sender<bool>,
    /// Verified in place of a credential that does not exist, so that its absence costs the same time.
    decoy: PasswordHash,
}

/// Length of a hash, in bytes.
const OUTPUT_BYTES: usize = 32;
/// Hashes from elsewhere may not cost more memory than this, in KiB.
const MAX_MEMORY_KIB: u32 = 1_048_576;
/// Nor more passes than this.
const MAX_ITERATIONS: u32 = 64;

impl Credentials {
    /// Takes the settings and the pepper.
    ///
    /// # Errors
    /// [`Error::Settings`] when Argon2id knows no such parameters.
    pub fn new(config: &Config, pepper: Secret) -> Result<Self, Error> {
        let params = Params::new(
            config.memory_kib,
            config.iterations,
            config.parallelism,
            Some(OUTPUT_BYTES),
        )
        .map_err(Error::Settings)?;
        let decoy = encode(&params, Salt::generate(), &[0; OUTPUT_BYTES])?;
        Ok(Self {
            inner: Arc::new(Inner {
                pepper,
                params,
                lockout: config.lockout,
                workers: config.workers.max(1),
                queue: config.queue,
                permits: Arc::new(Semaphore::new(config.workers.max(1))),
                waiting: AtomicUsize::new(0),
                recent: Mutex::new(Recent {
                    length: Duration::ZERO,
                    learned: Instant::now(),
                }),
                memory: Mutex::new(Vec::new()),
                proven: watch::Sender::new(false),
                decoy,
            }),
        })
    }

    /// When a user is locked, and for how long.
    #[must_use]
    pub fn lockout(&self) -> lockout::Rules {
        self.inner.lockout
    }

    /// Tells whether `pin` belongs to `stored`. It takes the same time when there is nothing stored.
    ///
    /// # Errors
    /// [`Error::Busy`] when it could not finish by `deadline`; [`Error::Stored`] when the stored text is no
    /// hash that we can check.
    pub async fn verify(
        &self,
        pin: &Pin,
        stored: Option<Phc>,
        deadline: Instant,
    ) -> Result<bool, Error> {
        self.check(pin, stored, Some(deadline)).await
    }

    /// The same for imports: it waits for its turn, however long that takes.
    ///
    /// # Errors
    /// [`Error::Stored`] when the stored text is no hash that we can check.
    pub async fn verify_in_turn(&self, pin: &Pin, stored: Phc) -> Result<bool, Error> {
        self.check(pin, Some(stored), None).await
    }

    async fn check(
        &self,
        pin: &Pin,
        stored: Option<Phc>,
        deadline: Option<Instant>,
    ) -> Result<bool, Error> {
        let known = stored.is_some();
        let parsed = match stored {
            Some(phc) => parse(&phc)?,
            None => self.inner.decoy.clone(),
        };
        let pin = pin.clone();
        let inner = Arc::clone(&self.inner);
        let matches = self
            .run(deadline, move || inner.matches(&pin, &parsed))
            .await??;
        let is_right = matches && known;
        if is_right {
            let proven = |proven: &mut bool| !std::mem::replace(proven, true);
            self.inner.proven.send_if_modified(proven);
        }
        Ok(is_right)
    }

    /// Waits until a PIN has matched its hash: then the pepper is the one that the hashes were made with. Cancel
    /// safe.
    pub async fn proven(&self) {
        let mut proven = self.inner.proven.subscribe();
        // We hold the sender.
        let _ = proven.wait_for(|proven| *proven).await;
    }

    /// Hashes a new PIN.
    ///
    /// # Errors
    /// [`Error::Busy`] when it could not finish by `deadline`.
    pub async fn hash(&self, pin: &Pin, deadline: Instant) -> Result<Phc, Error> {
        self.hash_by(pin, Some(deadline)).await
    }

    async fn hash_by(&self, pin: &Pin, deadline: Option<Instant>) -> Result<Phc, Error> {
        let pin = pin.clone();
        let inner = Arc::clone(&self.inner);
        self.run(deadline, move || inner.hash(&pin)).await?
    }

    /// A value that only this pepper gives, to tell later whether it is still the same. The pepper is as random as it
    /// is long, so that its keyed hash of a fixed text tells nothing of it, nor of any PIN.
    ///
    /// # Errors
    /// [`Error::Settings`] when Argon2id refuses.
    pub fn pepper_mark(&self) -> Result<String, Error> {
        let params = Params::new(8, 1, 1, Some(OUTPUT_BYTES)).map_err(Error::Settings)?;
        let fixed = b"emccd: which pepper is this?";
        let output = self.inner.digest(&params, fixed, fixed, OUTPUT_BYTES)?;
        Ok(output.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Hashes that run at once.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.inner.workers
    }

    /// Hashes many PINs on all workers, for imports; `done` is called after each with the number finished. Each
    /// waits for its turn, however long that takes.
    ///
    /// # Errors
    /// The first failure.
    pub async fn hash_all(
        &self,
        pins: Vec<Pin>,
        mut done: impl FnMut(usize),
    ) -> Result<Vec<Phc>, Error> {
        use futures_util::{StreamExt, TryStreamExt, stream};
        let mut finished = 0;
        stream::iter(
            pins.into_iter()
                .map(|pin| async move { self.hash_by(&pin, None).await }),
        )
        .buffered(self.inner.workers)
        .inspect_ok(|_| {
            finished += 1;
            done(finished);
        })
        .try_collect()
        .await
    }

    /// Runs one piece of hashing on a blocking thread, when its turn comes; without a deadline it waits for that as
    /// long as it takes.
    ///
    /// Dropped while it waits, it gives its place back; dropped later, the hash goes on and keeps its place and
    /// its worker until it is through, so that callers who go away start no more hashes than there are workers.
    async fn run<T: Send + 'static>(
        &self,
        deadline: Option<Instant>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let inner = &self.inner;
        let place = Inner::take_place(inner, deadline)?;
        let turn = Arc::clone(&inner.permits).acquire_owned();
        let permit = match deadline {
            None => turn.await,
            Some(deadline) => {
                let busy = || Error::Busy {
                    retry_after: inner.one_round(),
                };
                let turn = tokio::time::timeout_at(deadline.into(), turn).await;
                let permit = turn.map_err(|_| busy())?;
                // The wait may have taken longer than expected: a hash that ends too late is work for nobody, and
                // the next in the queue may still be in time.
                let now = Instant::now();
                let needed = if place.waited {
                    inner.recent(now)
                } else {
                    Duration::ZERO
                };
                if now + needed >= deadline {
                    return Err(busy());
                }
                permit
            }
        }
        .map_err(|_| Error::Stopped)?;
        tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let output = work();
            place.inner.learn(started.elapsed());
            drop((permit, place));
            output
        })
        .await
        .map_err(|_| Error::Stopped)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("params", &self.inner.params)
            .finish_non_exhaustive()
    }
}

/// One place among those that wait or run; given back when dropped.
struct Place {
    inner: Arc<Inner>,
    /// Whether there was no worker to spare when it was taken.
    waited: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Length of recent hashes, smoothed; zero before the first.
struct Recent {
    length: Duration,
    /// When the last of them ended.
    learned: Instant,
}

/// After this long without a hash, half as much of the estimate is believed: one that is out of date must not refuse
/// for ever, and refusing must not make it smaller, or a rush talks itself into the queue.
const HALF_LIFE: Duration = Duration::from_secs(10);

impl Inner {
    fn take_place(inner: &Arc<Self>, deadline: Option<Instant>) -> Result<Place, Error> {
        let ahead = inner.waiting.fetch_add(1, Ordering::AcqRel);
        let place = Place {
            inner: Arc::clone(inner),
            waited: ahead >= inner.workers,
        };
        // With a worker to spare, trying costs nobody anything, whatever recent hashes took.
        let Some(deadline) = deadline.filter(|_| place.waited) else {
            return Ok(place);
        };
        let now = Instant::now();
        // Those ahead, and its own.
        let rounds = u32::try_from(ahead / inner.workers + 1).unwrap_or(u32::MAX);
        let expected = inner.recent(now).saturating_mul(rounds);
        let is_full = ahead >= inner.queue.saturating_add(inner.workers);
        if is_full || expected > deadline.saturating_duration_since(now) {
            return Err(Error::Busy {
                retry_after: expected.max(inner.one_round()),
            });
        }
        Ok(place)
    }

    /// What a hash is expected to take.
    fn recent(&self, now: Instant) -> Duration {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.saturating_duration_since(recent.learned);
        let halvings = u32::try_from(age.as_secs() / HALF_LIFE.as_secs()).unwrap_or(u32::MAX);
        recent.length / 2_u32.saturating_pow(halvings)
    }

    /// Counts the length of one more hash into the estimate: a quarter of it is the newest.
    fn learn(&self, took: Duration) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.length = if recent.length.is_zero() {
            took
        } else {
            recent.length / 4 * 3 + took / 4
        };
        recent.learned = Instant::now();
    }

    fn one_round(&self) -> Duration {
        self.recent(Instant::now()).max(Duration::from_millis(100))
    }

    fn matches(&self, pin: &Pin, stored: &PasswordHash) -> Result<bool, Error> {
        let (params, salt, expected) = parts(stored)?;
        let computed = self.compute(&params, pin, salt.as_ref(), expected.len())?;
        // Output compares in constant time.
        Ok(Output::new(&computed).is_ok_and(|computed| computed == *expected))
    }

    fn hash(&self, pin: &Pin) -> Result<Phc, Error> {
        let salt = Salt::generate();
        let output = self.compute(&self.params, pin, salt.as_ref(), OUTPUT_BYTES)?;
        Ok(Phc::new(encode(&self.params, salt, &output)?.to_string()))
    }

    fn compute(
        &self,
        params: &Params,
        pin: &Pin,
        salt: &[u8],
        length: usize,
    ) -> Result<Vec<u8>, Error> {
        self.digest(params, pin.expose().as_bytes(), salt, length)
    }

    fn digest(
        &self,
        params: &Params,
        text: &[u8],
        salt: &[u8],
        length: usize,
    ) -> Result<Vec<u8>, Error> {
        let blocks = params.block_count();
        let mut memory = self
            .memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default();
        if memory.len() < blocks {
            memory.resize(blocks, Block::default());
        }
        let argon = Argon2::new_with_secret(
            self.pepper.expose(),
            Algorithm::Argon2id,
            Version::V0x13,
            params.clone(),
        )
        .map_err(Error::Settings)?;
        let mut output = vec![0; length];
        let result = memory
            .get_mut(..blocks)
            .ok_or(argon2::Error::MemoryTooLittle)
            .and_then(|blocks| {
                argon.hash_password_into_with_memory(text, salt, &mut output, blocks)
            });
        self.memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(memory);
        result.map_err(Error::Settings)?;
        Ok(output)
    }
}

/// Whether a hash that comes from elsewhere is one that a login can check: its form, its algorithm, its cost.
///
/// # Errors
/// [`Error::Stored`] with the rule that it breaks; nothing of the hash itself.
pub fn check_hash(phc: &Phc) -> Result<(), Error> {
    parts(&parse(phc)?).map(drop)
}

fn parse(phc: &Phc) -> Result<PasswordHash, Error> {
    PasswordHash::new(phc.as_str()).map_err(|e| Error::Stored(e.to_string()))
}

/// What a check computes with, if it may.
fn parts(stored: &PasswordHash) -> Result<(Params, &Salt, &Output), Error> {
    if stored.algorithm != Algorithm::Argon2id.ident() {
        return Err(Error::Stored("its algorithm is not argon2id".to_owned()));
    }
    let params = Params::try_from(stored).map_err(|e| Error::Stored(e.to_string()))?;
    if params.m_cost() > MAX_MEMORY_KIB || params.t_cost() > MAX_ITERATIONS {
        return Err(Error::Stored(
            "its cost is beyond what a login may take".to_owned(),
        ));
    }
    let (Some(salt), Some(expected)) = (&stored.salt, &stored.hash) else {
        return Err(Error::Stored("it lacks its salt or its output".to_owned()));
    };
    Ok((params, salt, expected))
}

fn encode(params: &Params, salt: Salt, output: &[u8]) -> Result<PasswordHash, Error> {
    Ok(PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(params).map_err(|e| Error::Stored(e.to_string()))?,
        salt: Some(salt),
        hash: Some(Output::new(output).map_err(|e| Error::Stored(e.to_string()))?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> Credentials {
        let config = Config {
            memory_kib: 8,
            iterations: 1,
            workers: 2,
            queue: 4,
            ..Config::default()
        };
        Credentials::new(&config, Secret::new(vec![7; 32])).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn pin(text: &str) -> Pin {
        Pin::new(text.to_owned()).unwrap()
    }

    #[tokio::test]
    async fn a_pin_verifies_against_its_own_hash_only() {
        let credentials = cheap();
        let phc = credentials.hash(&pin("90210"), soon()).await.unwrap();
        check_hash(&phc).unwrap();
        assert!(
            credentials
                .verify(&pin("90210"), Some(phc.clone()), soon())
                .await
                .unwrap()
        );
        assert!(
            !credentials
                .verify(&pin("90211"), Some(phc), soon())
                .await
                .unwrap()
        );
        assert!(
            !credentials
                .verify(&pin("90210"), None, soon())
                .await
                .unwrap()
        );
    }

    #[tokio::test]
    async fn the_pepper_is_part_of_the_hash() {
        let phc = cheap().hash(&pin("90210"), soon()).await.unwrap();
        let config = Config {
            memory_kib: 8,
            iterations: 1,
            ..Config::default()
        };
        let other = Credentials::new(&config, Secret::new(vec![8; 32])).unwrap();
        assert!(
            !other
                .verify(&pin("90210"), Some(phc), soon())
                .await
                .unwrap()
        );
    }

    #[test]
    fn a_pepper_is_known_again_whatever_the_settings_and_not_told() {
        let mark = |pepper: u8, memory_kib| {
            let config = Config {
                memory_kib,
                iterations: 1,
                ..Config::default()
            };
            let credentials = Credentials::new(&config, Secret::new(vec![pepper; 32])).unwrap();
            credentials.pepper_mark().unwrap()
        };
        assert_eq!(mark(7, 8), mark(7, 64));
        assert_ne!(mark(7, 8), mark(8, 8));
        assert!(!mark(7, 8).contains("0707"));
    }

    /// Occupies all workers until the senders are dropped.
    async fn occupy(credentials: &Credentials) -> Vec<std::sync::mpsc::Sender<()>> {
        let mut gates = Vec::new();
        for _ in 0..credentials.workers() {
            let (gate, opened) = std::sync::mpsc::channel::<()>();
            let (begin, begun) = tokio::sync::oneshot::channel();
            let work = credentials.run(Some(soon()), move || {
                let _ = begin.send(());
                let _ = opened.recv();
            });
            // The caller goes away once the work has begun.
            tokio::select! {
                biased;
                () = async { begun.await.unwrap() } => {}
                _ = work => panic!("it ended early"),
            }
            gates.push(gate);
        }
        gates
    }

    fn waiting(credentials: &Credentials) -> usize {
        credentials.inner.waiting.load(Ordering::Acquire)
    }

    #[tokio::test]
    async fn what_cannot_finish_in_time_is_refused_at_once() {
        let credentials = cheap();
        let gates = occupy(&credentials).await;
        expect(&credentials, Duration::from_secs(5));
        let deadline = || Instant::now() + Duration::from_secs(1);
        let refused = credentials.verify(&pin("1"), None, deadline()).await;
        assert!(
            matches!(refused, Err(Error::Busy { retry_after }) if retry_after == Duration::from_secs(10)),
            "{refused:?}"
        );
        assert_eq!(waiting(&credentials), 2, "its place is free again");
        drop(gates);
    }

    /// As if recent hashes had taken so long.
    fn expect(credentials: &Credentials, length: Duration) {
        let mut recent = credentials.inner.recent.lock().unwrap();
        (recent.length, recent.learned) = (length, Instant::now());
    }

    #[tokio::test]
    async fn a_rush_is_admitted_as_far_as_it_can_be_served_and_no_further() {
        let config = Config {
            memory_kib: 8,
            iterations: 1,
            workers: 2,
            queue: 1_024,
            ..Config::default()
        };
        let credentials = Credentials::new(&config, Secret::new(vec![7; 32])).unwrap();
        expect(&credentials, Duration::from_secs(1));
        // Two at a time make 100 rounds of a second.
        let deadline = Some(Instant::now() + Duration::from_millis(100_900));
        let places: Vec<_> = (0..512)
            .map(|_| Inner::take_place(&credentials.inner, deadline).ok())
            .collect();
        let admitted: Vec<_> = places.iter().map(Option::is_some).collect();
        assert!(admitted[..200].iter().all(|a| *a), "{admitted:?}");
        assert!(!admitted[200..].iter().any(|a| *a), "{admitted:?}");
        // An import is not in a hurry.
        Inner::take_place(&credentials.inner, None).unwrap();
    }

    #[tokio::test]
    async fn an_estimate_fades_with_time_and_not_by_refusing() {
        let credentials = cheap();
        let inner = &credentials.inner;
        expect(&credentials, Duration::from_secs(8));
        let at = |secs| Instant::now() + Duration::from_secs(secs);
        assert_eq!(inner.recent(at(5)), Duration::from_secs(8));
        assert_eq!(inner.recent(at(25)), Duration::from_secs(2));
        assert!(inner.recent(at(10_000_000)) < Duration::from_micros(1));
    }

    #[tokio::test]
    async fn who_waited_too_long_is_refused_instead_of_hashed_for_nothing() {
        let credentials = cheap();
        let gates = occupy(&credentials).await;
        let ran = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mark = Arc::clone(&ran);
        let late = credentials.run(Some(soon()), move || mark.store(true, Ordering::SeqCst));
        let in_turn = credentials.run(None, || ());
        let (late, in_turn, ()) = tokio::join!(biased; late, in_turn, async {
            // Both wait by now; the hashes ahead of them turn out to be slow ones.
            expect(&credentials, Duration::from_secs(600));
            drop(gates);
        });
        assert!(matches!(late, Err(Error::Busy { .. })), "{late:?}");
        assert!(!ran.load(Ordering::SeqCst));
        in_turn.unwrap();
    }

    #[tokio::test]
    async fn what_is_late_from_the_start_is_refused() {
        let outcome = cheap().verify(&pin("1"), None, Instant::now()).await;
        assert!(matches!(outcome, Err(Error::Busy { .. })), "{outcome:?}");
    }

    #[tokio::test]
    async fn an_import_waits_where_a_login_is_refused() {
        let credentials = cheap();
        let phc = credentials.hash(&pin("1"), soon()).await.unwrap();
        let gates = occupy(&credentials).await;
        let places: Vec<_> = (0..4)
            .map(|_| Inner::take_place(&credentials.inner, Some(soon())).unwrap())
            .collect();
        let pin = pin("1");
        let (same, ()) = tokio::join!(biased; credentials.verify_in_turn(&pin, phc), async {
            drop((places, gates));
        });
        assert!(same.unwrap());
    }

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let credentials = cheap();
        let gates = occupy(&credentials).await;
        let places: Vec<_> = (0..4)
            .map(|_| Inner::take_place(&credentials.inner, Some(soon())).unwrap())
            .collect();
        let refused = credentials.verify(&pin("1"), None, soon()).await;
        assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        drop((places, gates));
        assert!(!credentials.verify(&pin("1"), None, soon()).await.unwrap());
    }

    #[tokio::test]
    async fn one_slow_hash_is_recovered_from() {
        let credentials = cheap();
        expect(&credentials, Duration::from_secs(60));
        for _ in 0..20 {
            assert!(!credentials.verify(&pin("1"), None, soon()).await.unwrap());
        }
        assert!(credentials.inner.recent(Instant::now()) < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_caller_who_goes_away_leaves_the_worker_occupied_until_the_hash_is_through() {
        let credentials = cheap();
        let gates = occupy(&credentials).await;
        assert_eq!(waiting(&credentials), 2);
        assert_eq!(credentials.inner.permits.available_permits(), 0);
        drop(gates);
        assert!(!credentials.verify(&pin("1"), None, soon()).await.unwrap());
        let all = u32::try_from(credentials.workers()).unwrap();
        drop(credentials.inner.permits.acquire_many(all).await.unwrap());
    }

    #[tokio::test]
    async fn a_stored_text_that_is_no_hash_is_an_error_and_not_a_wrong_pin() {
        for text in [
            "",
            "x",
            "$argon2i$v=19$m=8,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=4294967295,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            let outcome = cheap()
                .verify(&pin("1"), Some(Phc::new(text.to_owned())), soon())
                .await;
            assert!(
                matches!(outcome, Err(Error::Stored(_))),
                "{text}: {outcome:?}"
            );
            assert!(
                matches!(
                    check_hash(&Phc::new(text.to_owned())),
                    Err(Error::Stored(_))
                ),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn many_pins_are_hashed_in_order() {
        let credentials = cheap();
        let mut seen = Vec::new();
        let hashes = credentials
            .hash_all((0..9).map(|n| pin(&format!("77{n}"))).collect(), |n| {
                seen.push(n);
            })
            .await
            .unwrap();
        assert_eq!(seen, (1..=9).collect::<Vec<_>>());
        for (n, phc) in hashes.into_iter().enumerate() {
            assert!(
                credentials
                    .verify(&pin(&format!("77{n}")), Some(phc), soon())
                    .await
                    .unwrap()
            );
        }
    }
}
