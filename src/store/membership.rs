//! This node among those that share its store: it says that it lives, sees who else does, and takes up the work that
//! one node at a time does for all.
//!
//! [`Membership`] is the handle. Every two seconds the task behind it ([`Membership::keep`]) moves this node's beat in
//! [`nodes`] and those of its claims in [`claims`]; every second it looks at all of them. A node is alive while its beat
//! is seen to move ([`Pulses`]); a claim whose beat has stood still for six seconds is taken over by whoever wants it,
//! one that was given back at once.
//!
//! For others:
//! - [`Membership::living`] is a watch channel with the nodes that live, ourselves among them, in the order of their
//!   names, with the addresses that peers should dial. It moves when one comes, goes or changes, not with every beat.
//! - [`Membership::want`] asks for a task, [`Membership::held`] waits for it, [`Membership::let_go`] gives it back. Every
//!   effect of a task calls [`claims::check`] or [`claims::effect`] in its own transaction; that alone is what keeps two
//!   nodes from doing it, all else here is politeness.
//! - [`Membership::leave`] gives back everything and takes this node off the record; ending the task does so too.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tracing::{info, warn};

use crate::{
    chance::Chance,
    clock::{self, Clock, Timestamp},
    domain::liveness::{BEAT, Incarnation, Pulses, SILENCE},
    store::{
        Error, Store, Transaction,
        claims::{self, Claim, Standing, Task},
        nodes::{self, Beat, Node},
    },
    tasks::Tasks,
    watch,
};

/// How often the others are looked at: what was given back is taken up within this.
const LOOK: Duration = Duration::from_secs(1);
/// Without a round for this long others are about to take what we hold.
const DOUBT: Duration = SILENCE.saturating_sub(BEAT);
/// How long giving everything back may take at the end.
const LEAVE: Duration = Duration::from_secs(2);

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Its name.
    pub node: String,
    /// Which start of it this is: made anew at each, and what peers are told. Empty: one is drawn.
    pub instance: String,
    /// Where peers should dial it, the best first.
    pub addresses: Vec<String>,
    /// Its software and version.
    pub software: String,
}

/// A handle on this node's place in its cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Membership {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: Clock,
    me: Node,
    wanted: Mutex<BTreeSet<Task>>,
    /// Rung when a wish changes.
    ring: Notify,
    living: watch::Sender<Arc<Vec<Node>>>,
    held: watch::Sender<Arc<BTreeMap<Task, Claim>>>,
    /// Those on record that are silent, and where their beats stand.
    dead: watch::Sender<Arc<BTreeMap<Incarnation, i64>>>,
    /// Whether this run is off the record for good: it left.
    gone: AtomicBool,
    /// Whether another run stands under this node's name. This one then takes up nothing, until that one has gone or
    /// fallen silent.
    replaced: AtomicBool,
}

/// What the task remembers from look to look.
#[derive(Default)]
struct Watcher {
    nodes: Pulses<Incarnation, i64>,
    claims: Pulses<Task, (i64, i64)>,
    next_beat: Option<Instant>,
    last_round: Option<Instant>,
    complaint: Option<String>,
}

impl Membership {
    /// A run of a node. It is on record once it has [joined](Self::join).
    #[must_use]
    pub fn new(store: Store, clock: Clock, config: Config) -> Self {
        let me = Node {
            run: Incarnation {
                node: config.node,
                instance: Some(config.instance)
                    .filter(|given| !given.is_empty())
                    .unwrap_or_else(|| format!("{:016x}", Chance::system().u64())),
            },
            addresses: config.addresses,
            software: config.software,
            started_at: clock.now(),
            beat: 0,
        };
        Self {
            inner: Arc::new(Inner {
                store,
                clock,
                me,
                wanted: Mutex::default(),
                ring: Notify::new(),
                living: watch::Sender::new(Arc::new(Vec::new())),
                held: watch::Sender::new(Arc::new(BTreeMap::new())),
                dead: watch::Sender::new(Arc::new(BTreeMap::new())),
                gone: AtomicBool::new(false),
                replaced: AtomicBool::new(false),
            }),
        }
    }

    /// A node that is on no record, for tests that need no more than a name.
    #[cfg(test)]
    pub(crate) fn of(store: &Store) -> Self {
        let config = Config {
            node: "n1".to_owned(),
            ..Config::default()
        };
        Self::new(store.clone(), Clock::system(), config)
    }

    /// Has it see these live, for tests that don't wait for beats.
    #[cfg(test)]
    pub(crate) fn sees(&self, living: Vec<Node>) {
        self.inner.living.send_replace(Arc::new(living));
    }

    /// A node that is alone on its store, on record and looking after its claims until `tasks` end.
    #[cfg(test)]
    pub(crate) async fn alone(store: &Store, tasks: &Tasks) -> Self {
        let member = Self::of(store);
        if let Err(error) = member.join().await {
            warn!(cause = %error, "not on record");
        }
        let (keeper, ends) = (member.clone(), tasks.clone());
        tasks.spawn("membership", async move { keeper.keep(&ends).await });
        member
    }

    /// Which run of which node this is.
    #[must_use]
    pub fn run(&self) -> &Incarnation {
        &self.inner.me.run
    }

    /// What this run puts on record of itself.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.inner.me
    }

    /// Goes on record, in the place of another run of the same name, and frees what that one held; which it was. A run
    /// that was replaced does so again when it knows that the other one has ended.
    ///
    /// # Errors
    /// [`Error`] when the store fails.
    pub async fn join(&self) -> Result<Option<Incarnation>, Error> {
        if self.inner.gone.load(Ordering::Acquire) {
            return Ok(None);
        }
        let (me, now) = (self.inner.me.clone(), self.inner.clock.now());
        let before = self
            .inner
            .store
            .write(move |tx: &mut dyn Transaction| register(tx, &me, now))
            .await?;
        self.inner.replaced.store(false, Ordering::Release);
        self.inner.ring.notify_one();
        self.inner
            .living
            .send_replace(Arc::new(vec![self.inner.me.clone()]));
        Ok(before)
    }

    /// Beats, looks at the others and takes what is wanted, until the node shuts down; then leaves.
    pub async fn keep(&self, tasks: &Tasks) {
        let mut watcher = Watcher::default();
        loop {
            let round = tokio::select! {
                biased;
                () = tasks.cancelled() => break,
                round = self.inner.round(&mut watcher) => round,
            };
            self.inner.tell(&mut watcher, round);
            tokio::select! {
                biased;
                () = tasks.cancelled() => break,
                () = self.inner.ring.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        self.leave().await;
    }

    /// Gives back all claims, so that others take them at once, and takes this node off the record. What it still does
    /// as a holder changes nothing any more.
    pub async fn leave(&self) {
        let inner = &self.inner;
        if inner.gone.swap(true, Ordering::AcqRel) {
            return;
        }
        inner.held.send_replace(Arc::new(BTreeMap::new()));
        let (run, now) = (inner.me.run.clone(), inner.clock.now());
        let left = inner.store.write(move |tx: &mut dyn Transaction| {
            claims::release_all(tx, &run, "the node stops", now)?;
            nodes::remove(tx, &run)
        });
        match tokio::time::timeout(LEAVE, left).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(
                cause = %error,
                "the node could not be taken off the record; the others take over within seconds"
            ),
            Err(_) => warn!("the store is stuck; the others take over within seconds"),
        }
    }

    /// The nodes that live, ourselves among them, by name.
    #[must_use]
    pub fn living(&self) -> watch::Receiver<Arc<Vec<Node>>> {
        self.inner.living.subscribe()
    }

    /// The runs on record that have been silent for too long, and the beat at which each has stood still. It is as old
    /// as the last look: whoever acts on it sees in its own transaction whether that beat still stands.
    #[must_use]
    pub fn dead(&self) -> Arc<BTreeMap<Incarnation, i64>> {
        Arc::clone(&self.inner.dead.borrow())
    }

    /// Has runs taken for dead, at these beats, until the next look.
    #[cfg(test)]
    pub(crate) fn take_for_dead(&self, dead: BTreeMap<Incarnation, i64>) {
        self.inner.dead.send_replace(Arc::new(dead));
    }

    /// Asks for a task, until it is [let go](Self::let_go).
    pub fn want(&self, task: &Task) {
        if self.inner.wanted().insert(task.clone()) {
            self.inner.ring.notify_one();
        }
    }

    /// Gives a task back, or no longer asks for it.
    pub fn let_go(&self, task: &Task) {
        if self.inner.wanted().remove(task) {
            self.inner.ring.notify_one();
        }
    }

    /// The claim on a task, if we hold it.
    #[must_use]
    pub fn claim(&self, task: &Task) -> Option<Claim> {
        self.inner.held.borrow().get(task).cloned()
    }

    /// Moves when a claim is taken or lost.
    #[must_use]
    pub fn claims(&self) -> watch::Receiver<Arc<BTreeMap<Task, Claim>>> {
        self.inner.held.subscribe()
    }

    /// Asks for a task and waits until we hold it. Cancel safe.
    pub async fn held(&self, task: &Task) -> Claim {
        self.want(task);
        let mut held = self.claims();
        loop {
            if let Some(claim) = held.borrow_and_update().get(task) {
                return claim.clone();
            }
            // The sender is ours, so this does not fail.
            if held.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until a claim is no longer ours. Cancel safe.
    pub async fn lost(&self, claim: &Claim) {
        let mut held = self.claims();
        let _ = held
            .wait_for(|held| held.get(&claim.task) != Some(claim))
            .await;
    }
}

impl Inner {
    fn wanted(&self) -> MutexGuard<'_, BTreeSet<Task>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn round(&self, watcher: &mut Watcher) -> Result<(), Error> {
        let began = clock::instant();
        if !self.gone.load(Ordering::Acquire) && watcher.next_beat.is_none_or(|next| next <= began)
        {
            self.beat().await?;
            watcher.next_beat = Some(began + BEAT);
        }
        let looked = clock::instant();
        let (nodes, standing) = self
            .store
            .read(|tx: &mut dyn Transaction| Ok::<_, Error>((nodes::all(tx)?, claims::all(tx)?)))
            .await?;
        let beats = nodes.iter().map(|node| (node.run.clone(), node.beat));
        watcher.nodes.look(looked, beats);
        self.come_back(&watcher.nodes, &nodes).await?;
        let beats = standing
            .iter()
            .map(|s| (s.task.clone(), (s.generation, s.beat)));
        watcher.claims.look(looked, beats);
        self.publish_living(&watcher.nodes, nodes);
        let held = self.take_and_release(watcher, standing).await?;
        self.publish_held(held);
        watcher.last_round = Some(began);
        Ok(())
    }

    /// Says that we live.
    async fn beat(&self) -> Result<(), Error> {
        let (me, now) = (self.me.clone(), self.clock.now());
        let beat = self
            .store
            .write(move |tx: &mut dyn Transaction| {
                let beat = nodes::beat(tx, &me.run)?;
                match beat {
                    Beat::Kept => {
                        claims::beat(tx, &me.run)?;
                    }
                    Beat::Gone => {
                        register(tx, &me, now)?;
                    }
                    Beat::Replaced => {}
                }
                Ok::<_, Error>(beat)
            })
            .await?;
        self.notice(beat == Beat::Replaced);
        if beat == Beat::Gone {
            warn!("this node was off the record; it is on record again");
        }
        Ok(())
    }

    fn notice(&self, is_replaced: bool) {
        let was_replaced = self.replaced.swap(is_replaced, Ordering::AcqRel);
        if is_replaced && !was_replaced {
            warn!(
                "another process runs under this node's name on this store: this one takes up no work for the cluster \
                 as long as that one lives"
            );
        }
    }

    /// Takes up nothing beside another run under our name; goes on record again when that one is dead.
    async fn come_back(
        &self,
        pulses: &Pulses<Incarnation, i64>,
        nodes: &[Node],
    ) -> Result<(), Error> {
        let stands = nodes.iter().find(|node| node.run.node == self.me.run.node);
        let Some(other) = stands.filter(|stands| stands.run != self.me.run) else {
            return Ok(());
        };
        self.notice(true);
        if self.gone.load(Ordering::Acquire) || !pulses.is_dead(&other.run) {
            return Ok(());
        }
        let (me, dead, now) = (self.me.clone(), other.clone(), self.clock.now());
        let is_back = self
            .store
            .write(move |tx: &mut dyn Transaction| {
                let stands = nodes::get(tx, &me.run.node)?;
                let is_silent =
                    stands.is_some_and(|now| now.run == dead.run && now.beat == dead.beat);
                if is_silent {
                    register(tx, &me, now)?;
                }
                Ok::<_, Error>(is_silent)
            })
            .await?;
        if is_back {
            self.replaced.store(false, Ordering::Release);
            // What the dead run held is free at the next look.
            self.ring.notify_one();
            warn!("the process that had replaced this one is dead: this one is on record again");
        }
        Ok(())
    }

    fn publish_living(&self, pulses: &Pulses<Incarnation, i64>, nodes: Vec<Node>) {
        let dead = nodes.iter().filter(|node| pulses.is_dead(&node.run));
        let dead = dead.map(|node| (node.run.clone(), node.beat)).collect();
        self.dead.send_replace(Arc::new(dead));
        let living: Vec<Node> = nodes
            .into_iter()
            .filter(|node| pulses.is_alive(&node.run))
            .collect();
        self.living.send_if_modified(|before| {
            let is_same = before.len() == living.len()
                && before.iter().zip(&living).all(|(a, b)| {
                    a.run == b.run && a.addresses == b.addresses && a.software == b.software
                });
            if !is_same {
                *before = Arc::new(living);
            }
            !is_same
        });
    }

    /// Takes what is wanted and free, or whose holder is silent; gives back what is no longer wanted. What we hold
    /// then.
    async fn take_and_release(
        &self,
        watcher: &Watcher,
        standing: Vec<Standing>,
    ) -> Result<BTreeMap<Task, Claim>, Error> {
        if self.gone.load(Ordering::Acquire) || self.replaced.load(Ordering::Acquire) {
            return Ok(BTreeMap::new());
        }
        let wanted = self.wanted().clone();
        let mut held = BTreeMap::new();
        let (mut wishes, mut unwanted) = (Vec::new(), Vec::new());
        let mut known = BTreeSet::new();
        for row in standing {
            known.insert(row.task.clone());
            let is_wanted = wanted.contains(&row.task);
            match &row.holder {
                Some(holder) if *holder == self.me.run => {
                    let claim = Claim {
                        task: row.task.clone(),
                        generation: row.generation,
                        holder: holder.clone(),
                    };
                    if is_wanted {
                        held.insert(row.task, claim);
                    } else {
                        unwanted.push(claim);
                    }
                }
                Some(_) if is_wanted && watcher.claims.is_dead(&row.task) => {
                    wishes.push((row.task.clone(), Some(row)));
                }
                None if is_wanted => wishes.push((row.task.clone(), Some(row))),
                Some(_) | None => {}
            }
        }
        let unknown = wanted.into_iter().filter(|task| !known.contains(task));
        wishes.extend(unknown.map(|task| (task, None)));
        if wishes.is_empty() && unwanted.is_empty() {
            return Ok(held);
        }
        let (run, now) = (self.me.run.clone(), self.clock.now());
        let taken = self
            .store
            .write(move |tx: &mut dyn Transaction| {
                for claim in &unwanted {
                    claims::release(tx, claim, "others may have it", now)?;
                }
                let mut taken = Vec::new();
                for (task, seen) in &wishes {
                    taken.extend(claims::take(tx, task, seen.as_ref(), &run, now)?);
                }
                Ok::<_, Error>(taken)
            })
            .await?;
        for claim in taken {
            info!(task = %claim.task, generation = claim.generation, "this node now does \"{}\" for the cluster", claim.task);
            held.insert(claim.task.clone(), claim);
        }
        Ok(held)
    }

    fn publish_held(&self, held: BTreeMap<Task, Claim>) {
        self.held.send_if_modified(|before| {
            for lost in before.values().filter(|c| held.get(&c.task) != Some(c)) {
                info!(task = %lost.task, generation = lost.generation, "this node no longer does \"{}\"", lost.task);
            }
            let is_same = **before == held;
            if !is_same {
                *before = Arc::new(held);
            }
            !is_same
        });
    }

    /// One complaint per cause; and nothing is held for sure when no round has been made for long.
    fn tell(&self, watcher: &mut Watcher, round: Result<(), Error>) {
        let cause = match round {
            Ok(()) => {
                watcher.complaint = None;
                return;
            }
            Err(error) => crate::telemetry::error_chain(&error),
        };
        if watcher
            .last_round
            .is_none_or(|last| clock::since(last) > DOUBT)
        {
            self.publish_held(BTreeMap::new());
        }
        if watcher.complaint.as_ref() != Some(&cause) {
            warn!(
                cause,
                "this node could not tell the others that it lives; it tries again"
            );
            watcher.complaint = Some(cause);
        }
    }
}

/// Puts a run on record, and frees what other runs of its node held; which one stood there.
fn register(
    tx: &mut dyn Transaction,
    me: &Node,
    now: Timestamp,
) -> Result<Option<Incarnation>, Error> {
    let before = nodes::register(tx, me)?;
    claims::release_replaced(tx, &me.run, now)?;
    Ok(before)
}

#[cfg(test)]
mod tests;
