//! PINs: hashing with Argon2id off the async threads, and the lock-out rule.
//!
//! A hash is bound to a pepper that lives in a file outside the database. At most one hash per worker runs at
//! a time; what could not finish by its deadline is refused at once instead of queued.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use tokio::sync::Semaphore;

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
    /// Length of recent hashes, smoothed, in microseconds; 0 before the first.
    recent_micros: AtomicU64,
    /// Memory of past hashes, for the next ones: 19 MiB are not asked of the allocator per login.
    memory: Mutex<Vec<Vec<Block>>>,
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
                recent_micros: AtomicU64::new(0),
                memory: Mutex::new(Vec::new()),
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
        Ok(matches && known)
    }

    /// Hashes a new PIN.
    ///
    /// # Errors
    /// [`Error::Busy`] when it could not finish by `deadline`.
    pub async fn hash(&self, pin: &Pin, deadline: Instant) -> Result<Phc, Error> {
        let pin = pin.clone();
        let inner = Arc::clone(&self.inner);
        self.run(deadline, move || inner.hash(&pin)).await?
    }

    /// Hashes that run at once.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.inner.workers
    }

    /// Hashes many PINs on all workers, for imports; `done` is called after each with the number finished.
    ///
    /// # Errors
    /// The first failure.
    pub async fn hash_all(
        &self,
        pins: Vec<Pin>,
        mut done: impl FnMut(usize),
    ) -> Result<Vec<Phc>, Error> {
        use futures_util::{StreamExt, TryStreamExt, stream};
        let far = Instant::now() + Duration::from_secs(86_400);
        let mut finished = 0;
        stream::iter(
            pins.into_iter()
                .map(|pin| async move { self.hash(&pin, far).await }),
        )
        .buffered(self.inner.workers)
        .inspect_ok(|_| {
            finished += 1;
            done(finished);
        })
        .try_collect()
        .await
    }

    /// Runs one piece of hashing on a blocking thread, when its turn comes.
    ///
    /// Dropped while it waits, it gives its place back; dropped later, the hash goes on and keeps its place and
    /// its worker until it is through, so that callers who go away start no more hashes than there are workers.
    async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let inner = &self.inner;
        let place = Inner::take_place(inner, deadline)?;
        let turn = Arc::clone(&inner.permits).acquire_owned();
        let permit = tokio::time::timeout_at(deadline.into(), turn)
            .await
            .map_err(|_| Error::Busy {
                retry_after: inner.one_round(),
            })?
            .map_err(|_| Error::Stopped)?;
        tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let output = work();
            place.0.learn(started.elapsed());
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
struct Place(Arc<Inner>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Inner {
    fn take_place(inner: &Arc<Self>, deadline: Instant) -> Result<Place, Error> {
        let ahead = inner.waiting.fetch_add(1, Ordering::AcqRel);
        let place = Place(Arc::clone(inner));
        // With a worker to spare, trying costs nobody anything, whatever recent hashes took.
        if ahead < inner.workers {
            return Ok(place);
        }
        let recent = inner.recent_micros.load(Ordering::Relaxed);
        let rounds = u32::try_from(ahead / inner.workers).unwrap_or(u32::MAX);
        let expected = Duration::from_micros(recent).saturating_mul(rounds);
        let left = deadline.saturating_duration_since(Instant::now());
        if ahead >= inner.queue.saturating_add(inner.workers) {
            return Err(Error::Busy {
                retry_after: expected.max(inner.one_round()),
            });
        }
        if expected > left {
            let retry_after = expected.max(inner.one_round());
            // The estimate alone refuses, and it may be out of date: it is believed less each time.
            inner.recent_micros.store(recent / 2, Ordering::Relaxed);
            return Err(Error::Busy { retry_after });
        }
        Ok(place)
    }

    /// Counts the length of one more hash into the estimate: a quarter of it is the newest.
    fn learn(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let before = self.recent_micros.load(Ordering::Relaxed);
        let now = if before == 0 {
            took
        } else {
            (before / 4).saturating_mul(3).saturating_add(took / 4)
        };
        // Two at once may lose one of them: it is an estimate.
        self.recent_micros.store(now.max(1), Ordering::Relaxed);
    }

    fn one_round(&self) -> Duration {
        Duration::from_micros(self.recent_micros.load(Ordering::Relaxed))
            .max(Duration::from_millis(100))
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
                argon.hash_password_into_with_memory(
                    pin.expose().as_bytes(),
                    salt,
                    &mut output,
                    blocks,
                )
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

    /// Occupies all workers until the senders are dropped.
    async fn occupy(credentials: &Credentials) -> Vec<std::sync::mpsc::Sender<()>> {
        let mut gates = Vec::new();
        for _ in 0..credentials.workers() {
            let (gate, opened) = std::sync::mpsc::channel::<()>();
            let (begin, begun) = tokio::sync::oneshot::channel();
            let work = credentials.run(soon(), move || {
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
        let recent = &credentials.inner.recent_micros;
        recent.store(5_000_000, Ordering::Relaxed);
        let deadline = || Instant::now() + Duration::from_secs(1);
        let refused = credentials.verify(&pin("1"), None, deadline()).await;
        assert!(
            matches!(refused, Err(Error::Busy { retry_after }) if retry_after == Duration::from_secs(5)),
            "{refused:?}"
        );
        assert_eq!(waiting(&credentials), 2, "its place is free again");
        assert_eq!(
            recent.load(Ordering::Relaxed),
            2_500_000,
            "and the estimate fades"
        );
        drop(gates);
    }

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let credentials = cheap();
        let gates = occupy(&credentials).await;
        let places: Vec<_> = (0..4)
            .map(|_| Inner::take_place(&credentials.inner, soon()).unwrap())
            .collect();
        let refused = credentials.verify(&pin("1"), None, soon()).await;
        assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        drop((places, gates));
        assert!(!credentials.verify(&pin("1"), None, soon()).await.unwrap());
    }

    #[tokio::test]
    async fn one_slow_hash_is_recovered_from() {
        let credentials = cheap();
        let recent = &credentials.inner.recent_micros;
        recent.store(60_000_000, Ordering::Relaxed);
        for _ in 0..20 {
            assert!(!credentials.verify(&pin("1"), None, soon()).await.unwrap());
        }
        assert!(recent.load(Ordering::Relaxed) < 10_000_000);
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
