//! PINs: hashing with Argon2id off the async threads, and the lock-out rule.
//!
//! A hash is bound to a pepper that lives in a file outside the database. At most one hash per worker runs at
//! a time; those that wait stand in a line of [`admission`](crate::admission), where everybody gets a turn. What
//! could not finish by its deadline is refused at once instead of queued.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};

pub mod error;
pub mod lockout;

pub use error::Error;

use crate::{
    admission::{self, Counts, Permit, Pool, Refused, Source},
    chance::Chance,
    secret::{Pin, Secret},
    store::credentials::Phc,
    watch,
};

/// Settings of the hash.
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
    /// Hashes that may wait. Beyond that the newest of whoever has most waiting is refused.
    pub queue: usize,
    /// Hashes on the task that asks, after a while that is drawn from here, in place of a thread's work: for
    /// simulations, whose time is not the machine's.
    pub inline: Option<Chance>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            iterations: 2,
            parallelism: 1,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            queue: 1_024,
            inline: None,
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
    workers: usize,
    inline: Option<Chance>,
    /// A place for each worker, and the line of those who wait for one.
    pool: Pool,
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
/// What a hash takes where it is simulated.
const INLINE_MILLIS: std::ops::Range<u64> = 5..60;
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
        let workers = config.workers.max(1);
        Ok(Self {
            inner: Arc::new(Inner {
                pepper,
                params,
                workers,
                inline: config.inline.clone(),
                pool: Pool::new(admission::Config {
                    places: workers,
                    line: config.queue,
                    // One hash is as long as another.
                    alike: true,
                }),
                memory: Mutex::new(Vec::new()),
                proven: watch::Sender::new(false),
                decoy,
            }),
        })
    }

    /// Tells whether `pin` belongs to `stored`, on behalf of `source`. It takes the same time when there is nothing
    /// stored.
    ///
    /// # Errors
    /// [`Error::Busy`] when it could not finish by `deadline`; [`Error::Stored`] when the stored text is no
    /// hash that we can check.
    pub async fn verify(
        &self,
        pin: &Pin,
        stored: Option<Phc>,
        source: &Source,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let turn = self.turn(source, deadline).await?;
        self.verify_at(turn, pin, stored).await
    }

    /// Waits in the line for a worker. Between this and [`Credentials::verify_at`] a caller can look whether the check
    /// is still wanted; what it does meanwhile keeps a worker waiting. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Busy`] when a hash could not finish by `deadline`.
    pub async fn turn(&self, source: &Source, deadline: Instant) -> Result<Turn, Error> {
        self.enter(source, Some(deadline)).await
    }

    /// [`Credentials::verify`] for who has waited for a worker.
    ///
    /// # Errors
    /// [`Error::Stored`] when the stored text is no hash that we can check.
    pub async fn verify_at(
        &self,
        turn: Turn,
        pin: &Pin,
        stored: Option<Phc>,
    ) -> Result<bool, Error> {
        let known = stored.is_some();
        let parsed = match stored {
            Some(phc) => parse(&phc)?,
            None => self.inner.decoy.clone(),
        };
        let pin = pin.clone();
        let inner = Arc::clone(&self.inner);
        let matches = turn.run(move || inner.matches(&pin, &parsed)).await??;
        let is_right = matches && known;
        if is_right {
            let proven = |proven: &mut bool| !std::mem::replace(proven, true);
            self.inner.proven.send_if_modified(proven);
        }
        Ok(is_right)
    }

    /// The same for imports: it waits for its turn, however long that takes.
    ///
    /// # Errors
    /// [`Error::Stored`] when the stored text is no hash that we can check.
    pub async fn verify_in_turn(&self, pin: &Pin, stored: Phc) -> Result<bool, Error> {
        let turn = self.enter(&Source::operators(), None).await?;
        self.verify_at(turn, pin, Some(stored)).await
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
        self.run(&Source::operators(), deadline, move || inner.hash(&pin))
            .await?
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

    /// Hashes that run, that wait, and that were refused.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.pool.counts()
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

    /// Runs one piece of hashing when its turn comes.
    async fn run<T: Send + 'static>(
        &self,
        source: &Source,
        deadline: Option<Instant>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.enter(source, deadline).await?.run(work).await
    }

    /// Waits for a worker; without a deadline as long as it takes.
    async fn enter(&self, source: &Source, deadline: Option<Instant>) -> Result<Turn, Error> {
        let entered = self.inner.pool.enter(source, deadline).await;
        entered
            .map(|_permit| Turn {
                _permit,
                inline: self.inner.inline.clone(),
            })
            .map_err(|refused| match refused {
                Refused::Busy { retry_after, .. } => Error::Busy { retry_after },
                Refused::Closed => Error::Stopped,
            })
    }
}

/// A worker for one hash: who holds this has waited in the line. Dropped, it is free for the next one.
#[derive(Debug)]
pub struct Turn {
    _permit: Permit,
    inline: Option<Chance>,
}

impl Turn {
    /// Runs one piece of hashing on a blocking thread.
    ///
    /// Dropped meanwhile, the hash goes on and keeps its worker until it is through, so that callers who go away start
    /// no more hashes than there are workers.
    async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        if let Some(chance) = &self.inline {
            tokio::time::sleep(Duration::from_millis(chance.range(INLINE_MILLIS))).await;
            return Ok(work());
        }
        tokio::task::spawn_blocking(move || {
            let output = work();
            drop(self);
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

impl Inner {
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
    use std::time::Duration;

    use super::*;
    use crate::{admission::Party, domain::ids::ClusterId};

    /// Users of our own cluster.
    fn here() -> Source {
        Source::of(Party::Phones, Some([192, 0, 2, 1].into()))
    }

    fn berlin() -> Source {
        Source::of(Party::Peer(ClusterId::new("berlin").unwrap()), None)
    }

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

    #[tokio::test(start_paused = true)]
    async fn in_a_simulation_a_hash_takes_simulated_time_and_no_thread() {
        let config = Config {
            memory_kib: 8,
            iterations: 1,
            workers: 1,
            inline: Some(Chance::seeded(1)),
            ..Config::default()
        };
        let credentials = Credentials::new(&config, Secret::new(vec![7; 32])).unwrap();
        let began = tokio::time::Instant::now();
        let phc = credentials.hash(&pin("12345"), soon()).await.unwrap();
        for (given, is_right) in [("12345", true), ("54321", false)] {
            let found = credentials
                .verify(&pin(given), Some(phc.clone()), &here(), soon())
                .await;
            assert_eq!(found.unwrap(), is_right);
        }
        let took = began.elapsed();
        assert!((15..180).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test]
    async fn a_pin_verifies_against_its_own_hash_only() {
        let credentials = cheap();
        let phc = credentials.hash(&pin("90210"), soon()).await.unwrap();
        check_hash(&phc).unwrap();
        assert!(
            credentials
                .verify(&pin("90210"), Some(phc.clone()), &here(), soon())
                .await
                .unwrap()
        );
        assert!(
            !credentials
                .verify(&pin("90211"), Some(phc), &here(), soon())
                .await
                .unwrap()
        );
        assert!(
            !credentials
                .verify(&pin("90210"), None, &here(), soon())
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
                .verify(&pin("90210"), Some(phc), &here(), soon())
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
        let (mut gates, source) = (Vec::new(), here());
        for _ in 0..credentials.workers() {
            let (gate, opened) = std::sync::mpsc::channel::<()>();
            let (begin, begun) = tokio::sync::oneshot::channel();
            let work = credentials.run(&source, Some(soon()), move || {
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

    #[tokio::test]
    async fn what_cannot_finish_in_time_is_refused_at_once() {
        let credentials = cheap();
        let gates = occupy(&credentials).await;
        credentials.inner.pool.expect(Duration::from_secs(4));
        let deadline = Instant::now() + Duration::from_secs(1);
        let refused = credentials.verify(&pin("1"), None, &here(), deadline).await;
        // Of two workers one is free after half a hash, and then there is its own.
        assert!(
            matches!(refused, Err(Error::Busy { retry_after }) if retry_after == Duration::from_secs(6)),
            "{refused:?}"
        );
        assert_eq!(credentials.counts().waiting, 0);
        drop(gates);
    }

    #[tokio::test]
    async fn who_waited_too_long_is_refused_instead_of_hashed_for_nothing() {
        let credentials = cheap();
        let gates = occupy(&credentials).await;
        let ran = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mark = Arc::clone(&ran);
        let source = here();
        let late = credentials.run(&source, Some(soon()), move || {
            mark.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let operators = Source::operators();
        let in_turn = credentials.run(&operators, None, || ());
        let (late, in_turn, ()) = tokio::join!(biased; late, in_turn, async {
            // Both wait by now; the hashes ahead of them turn out to be slow ones.
            credentials.inner.pool.expect(Duration::from_secs(600));
            drop(gates);
        });
        assert!(matches!(late, Err(Error::Busy { .. })), "{late:?}");
        assert!(!ran.load(std::sync::atomic::Ordering::SeqCst));
        in_turn.unwrap();
    }

    #[tokio::test]
    async fn what_is_late_from_the_start_is_refused() {
        let outcome = cheap()
            .verify(&pin("1"), None, &here(), Instant::now())
            .await;
        assert!(matches!(outcome, Err(Error::Busy { .. })), "{outcome:?}");
    }

    #[tokio::test]
    async fn an_import_waits_where_a_login_is_refused() {
        let credentials = cheap();
        let phc = credentials.hash(&pin("1"), soon()).await.unwrap();
        let gates = occupy(&credentials).await;
        credentials.inner.pool.expect(Duration::from_secs(60));
        let refused = credentials.verify(&pin("1"), None, &here(), soon()).await;
        assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        let pin = pin("1");
        let (same, ()) = tokio::join!(biased; credentials.verify_in_turn(&pin, phc), async {
            drop(gates);
        });
        assert!(same.unwrap());
    }

    /// A check that waits, and the name that it leaves behind when it is its turn: written by the worker, since who is
    /// woken first says nothing about who was served first.
    async fn waits(
        credentials: &Credentials,
        source: Source,
        name: &'static str,
        log: &Arc<Mutex<Vec<&'static str>>>,
    ) -> Result<(), Error> {
        let log = Arc::clone(log);
        let work = move || log.lock().unwrap().push(name);
        credentials.run(&source, Some(soon()), work).await
    }

    #[tokio::test]
    async fn a_peer_with_many_waiting_delays_the_first_of_another_by_a_turn_and_pays_for_a_full_queue()
     {
        let config = Config {
            memory_kib: 8,
            iterations: 1,
            workers: 1,
            queue: 4,
            ..Config::default()
        };
        let credentials = Credentials::new(&config, Secret::new(vec![7; 32])).unwrap();
        let gates = occupy(&credentials).await;
        let log = Arc::default();
        let (first, second, third, fourth, fifth, ours, ()) = tokio::join!(
            biased;
            waits(&credentials, berlin(), "berlin 1", &log),
            waits(&credentials, berlin(), "berlin 2", &log),
            waits(&credentials, berlin(), "berlin 3", &log),
            waits(&credentials, berlin(), "berlin 4", &log),
            // The queue is full, and it is theirs.
            waits(&credentials, berlin(), "berlin 5", &log),
            // It is full for them, and not for us.
            waits(&credentials, here(), "ours", &log),
            async { drop(gates) }
        );
        for (name, served) in [("1", first), ("2", second), ("3", third), ("ours", ours)] {
            assert!(served.is_ok(), "{name}: {served:?}");
        }
        for refused in [fourth, fifth] {
            assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        }
        let served = log.lock().unwrap().clone();
        assert_eq!(served, ["berlin 1", "ours", "berlin 2", "berlin 3"]);
        assert_eq!(credentials.counts().refused, 2);
    }

    #[tokio::test]
    async fn a_caller_who_goes_away_leaves_the_worker_occupied_until_the_hash_is_through() {
        let credentials = cheap();
        let gates = occupy(&credentials).await;
        assert_eq!(credentials.counts().running, 2);
        drop(gates);
        let checked = credentials.verify(&pin("1"), None, &here(), soon()).await;
        assert!(!checked.unwrap());
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
                .verify(&pin("1"), Some(Phc::new(text.to_owned())), &here(), soon())
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
                    .verify(&pin(&format!("77{n}")), Some(phc), &here(), soon())
                    .await
                    .unwrap()
            );
        }
    }
}
