//! Carries out a plan: starts the nodes, does what the plan says at its time, and has the checker look.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    checker::{Checker, Counts, Dump, Dumps, Shown, Wrong},
    model::{Answer, Model, Told},
    net::{Arrived, Chain, Net, Pipe},
    panics,
    plan::{
        Cluster, NODES, Node, PHONES, Phone, Plan, SETTLED_MS, Settings, Step, USERS, User, What,
    },
    stage,
    tap::Tap,
};
use crate::{
    chance::Chance,
    clock::Clock,
    domain::{
        ids::{ClusterId, Ref, UserId},
        login::LoginType,
        version::VersionRange,
    },
    edge::listener::Line,
    node::bare::{Bare, BareConfig},
    peer::{
        self,
        transport::{Ask, Transport, Wire},
        untrusted,
    },
    secret::Pin,
    store::{
        self, base_devices,
        inline::{Disk, Snapshot, Trouble},
        peers, trust_entries,
    },
    tasks::Tasks,
    visiting::{Caller, LoginOutcome, PhoneLogin, PhoneState},
};

mod banished;
mod liveness;

/// How often the records are looked at while things happen.
const LOOK: Duration = Duration::from_secs(5);
/// When a node that could not start tries again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a login may take.
const LOGIN: Duration = Duration::from_secs(5);
/// What a user takes for a reason to try again: no answer, nobody reached, somebody busy.
const TRY_AGAIN: [u16; 4] = [6, 26, 40, 208];
/// No base device is free.
const NO_BASE: u16 = 33;
/// How often links say that they live.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long one that does not is taken for alive.
const DEAD_AFTER: Duration = Duration::from_millis(3_200);

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The rules that were broken.
    pub(crate) wrong: Vec<Wrong>,
    /// The same for two runs in which the same happened.
    pub(crate) trace: u64,
    /// How many logins succeeded, were refused and were never answered.
    pub(crate) told: [usize; 3],
    /// What was judged how often, and what sessions ended of.
    pub(crate) judged: Counts,
}

/// Carries out a plan, in a runtime of its own.
pub(crate) fn run(plan: &Plan) -> Outcome {
    // What all runs begin with is made outside of their time.
    let beginning = stage::beginning();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    // Inside: outside of the runtime it is the machine's time.
    let (mut outcome, panicked) =
        panics::noted(|| runtime.block_on(async { World::new(plan, beginning).carry_out().await }));
    runtime.shutdown_background();
    // A task that panics ends by itself: nobody else need notice.
    outcome.wrong.extend(panicked.into_iter().map(|what| Wrong {
        rule: "panic",
        at_ms: 0,
        what,
    }));
    outcome
}

/// How much longer than planned what was planned may take: a peer that is removed is told first, a login is tried
/// several times, and what is taken back waits for its node.
const OVERTIME_MS: u64 = 60_000;

/// A federation while it runs. Cheap to clone.
#[derive(Clone)]
struct World(Arc<Inner>);

struct Inner {
    plan: Plan,
    began: Instant,
    chance: Chance,
    net: Net,
    tap: Tap,
    disks: [Disk; 3],
    clocks: BTreeMap<Node, Clock>,
    pace: Pace,
    state: Mutex<State>,
    tasks: Tasks,
}

/// How links are held.
#[derive(Clone, Copy)]
struct Pace {
    heartbeat: Duration,
    dead_after: Duration,
}

/// Livelier than what is shipped: more happens in a run.
const LIVELY: Pace = Pace {
    heartbeat: HEARTBEAT,
    dead_after: DEAD_AFTER,
};

struct State {
    nodes: BTreeMap<Node, Place>,
    model: Model,
    checker: Checker,
    steps: usize,
    /// What is broken now, and by which step.
    broken: Vec<(u64, What)>,
    next: u64,
}

/// Where a node runs, or not.
#[derive(Default)]
struct Place {
    running: Option<Arc<Bare>>,
    /// How many reasons there are for it to be down.
    down: usize,
    /// Grows with each start and each crash.
    number: u64,
}

impl World {
    fn new(plan: &Plan, beginning: &stage::Beginning) -> Self {
        Self::at_pace(plan, beginning, LIVELY)
    }

    fn at_pace(plan: &Plan, beginning: &stage::Beginning, pace: Pace) -> Self {
        let chance = Chance::seeded(plan.seed);
        let net = Net::new(chance.fork("net"));
        let (least, most) = plan.settings.latency_ms;
        net.set_latency(least, most);
        let clocks = Node::all().map(|node| {
            let clock = Clock::simulated(stage::EPOCH);
            clock.set_offset_millis(plan.settings.skew_ms[node.place()]);
            (node, clock)
        });
        let state = State {
            nodes: Node::all().map(|node| (node, Place::default())).collect(),
            model: Model::default(),
            checker: Checker::new(plan),
            steps: 0,
            broken: Vec::new(),
            next: 0,
        };
        let disks = [0, 1, 2].map(|n| beginning.disk(Cluster(n), &plan.settings));
        disks.iter().for_each(Disk::begin_journal);
        Self(Arc::new(Inner {
            plan: plan.clone(),
            began: Instant::now(),
            tap: Tap::new(chance.fork("tap")),
            net,
            disks,
            clocks: clocks.collect(),
            pace,
            state: Mutex::new(state),
            tasks: Tasks::default(),
            chance,
        }))
    }

    async fn carry_out(self) -> Outcome {
        for node in Node::all() {
            self.start(node);
        }
        let (tasks, steps) = (self.0.tasks.clone(), self.0.plan.steps.clone());
        for step in steps {
            self.state().steps += 1;
            let world = self.clone();
            drop(tasks.spawn("step", async move {
                world.step(step).await;
                world.state().steps -= 1;
            }));
        }
        let healed = Duration::from_millis(self.0.plan.healed_at_ms());
        let mut next = LOOK;
        while next < self.end() {
            sleep_until(self.0.began + next).await;
            if self.look() && next > healed && self.0.plan.may_end_at_rest() {
                return self.finish().await;
            }
            next += LOOK;
        }
        sleep_until(self.0.began + self.end()).await;
        self.finish().await
    }

    /// When there has been time to settle: what takes longer than planned has its time afterwards, too.
    fn end(&self) -> Duration {
        let planned = self.0.plan.healed_at_ms();
        let latest = planned + OVERTIME_MS;
        let over = self.state().model.over_ms().unwrap_or(latest);
        Duration::from_millis(over.clamp(planned, latest) + SETTLED_MS)
    }

    /// Looks at what is on record; whether all has come to rest.
    fn look(&self) -> bool {
        let (dumps, at_ms) = (self.dumps(), self.now_ms());
        let mut state = self.state();
        let State {
            checker,
            model,
            steps,
            nodes,
            ..
        } = &mut *state;
        checker.look(at_ms, &dumps, model);
        // One that starts may take seconds to find out that nobody else has counted the time.
        let all_run = nodes.values().all(|place| place.running.is_some());
        *steps == 0 && all_run && checker.is_at_rest(&dumps, model)
    }

    async fn finish(self) -> Outcome {
        let (phones, unanswered) = self.pages().await;
        let (dumps, at_ms, calls) = (self.dumps(), self.now_ms(), self.0.tap.calls());
        // Whatever they come to, they are no part of what was looked at.
        let shut_out = self.last_logins(&dumps).await;
        let mut state = self.state();
        let checker = std::mem::replace(&mut state.checker, Checker::new(&self.0.plan));
        let model = state.model.clone();
        let left = state.steps;
        drop(state);
        for node in Node::all() {
            if let Some(bare) = self.state().nodes.get_mut(&node).unwrap().running.take() {
                bare.crash();
            }
        }
        self.0.tasks.abort_all();
        assert_eq!(left, 0, "steps are still under way at the end");
        let mut log = String::new();
        write!(log, "{} {model:?} {calls:?} {dumps:?}", self.0.net.trace()).unwrap();
        let is_told = |wanted: fn(&Told) -> bool| {
            let all = model.attempts.iter();
            all.filter(|attempt| wanted(&attempt.told)).count()
        };
        let (mut wrong, judged) = checker.finish(at_ms, &dumps, &model, &phones, &calls);
        wrong.extend(shut_out);
        wrong.extend(unanswered);
        Outcome {
            wrong,
            trace: Chance::seeded(0).fork(&log).u64(),
            told: [
                is_told(|told| *told == Told::In),
                is_told(|told| matches!(told, Told::Failed(_))),
                is_told(|told| *told == Told::Nothing),
            ],
            judged,
        }
    }

    /// What each phone shows, asked of each node of its cluster; and what does not answer though all is well.
    async fn pages(&self) -> (Vec<(Phone, Shown)>, Vec<Wrong>) {
        let (mut phones, mut wrong) = (Vec::new(), Vec::new());
        let at_ms = self.now_ms();
        let mut fails = |what| {
            let rule = "after";
            wrong.push(Wrong { rule, at_ms, what });
        };
        for node in Node::all() {
            let Some(bare) = self.running(node) else {
                fails(format!("{node} does not run"));
                continue;
            };
            for n in 0..PHONES {
                let phone = Phone(node.0, n);
                match bare.visiting.phone_state(&phone.to_string()).await {
                    Ok(state) => phones.push((phone, shown(&state))),
                    Err(failure) => fails(format!("{node} has no page for {phone}: {failure:?}")),
                }
            }
        }
        (phones, wrong)
    }

    /// Whether users can log in once all is well, on phones that nobody has touched: between every two clusters that
    /// know and trust each other one goes in, and out again.
    async fn last_logins(&self, dumps: &Dumps) -> Vec<Wrong> {
        let regards = |one: Cluster, other: Cluster| {
            let regard = dumps[usize::from(one.0)].peers.get(&other);
            regard.is_some_and(|regard| regard.enabled && regard.trusted)
        };
        // Without patterns of names all who may be home must be there to be asked.
        let has_all = |visiting: Cluster| {
            self.0.plan.settings.patterns
                || dumps[usize::from(visiting.0)]
                    .peers
                    .iter()
                    .all(|(other, regard)| {
                        !regard.enabled || (regards(visiting, *other) && regards(*other, visiting))
                    })
        };
        let mut wrong = Vec::new();
        for home in Cluster::all() {
            for visiting in Cluster::all() {
                let is_linked = home == visiting
                    || (regards(home, visiting) && regards(visiting, home) && has_all(visiting));
                // Each of its nodes has its turn.
                let node = Node(visiting.0, home.0 % NODES[usize::from(visiting.0)]);
                let Some(bare) = self.running(node) else {
                    continue;
                };
                let user = User(home.0, USERS + visiting.0);
                let phone = Phone(visiting.0, PHONES + home.0);
                if !is_linked {
                    continue;
                }
                let is_full = self.disk(home).with(|tx| {
                    let all = base_devices::list(tx).unwrap();
                    all.iter().all(|(_, holder)| holder.is_some())
                });
                let told = ask_in(&bare, phone, user, true, bare.visiting.new_ref()).await;
                let is_full = home != visiting && is_full;
                let out = match told {
                    Told::In => {
                        let (device, reference) = (phone.to_string(), bare.visiting.new_ref());
                        let out = bare.visiting.logout(&device, caller(phone), reference);
                        let failure = out.await.err();
                        failure.map(|failure| format!("out: {failure:?}"))
                    }
                    Told::Failed(NO_BASE) if is_full => None,
                    told => Some(format!("in: {told:?}")),
                };
                wrong.extend(out.map(|out| Wrong {
                    rule: "after",
                    at_ms: self.now_ms(),
                    what: format!("{user} could not log {out} on {phone} when all was well"),
                }));
            }
        }
        wrong
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap()
    }

    fn dumps(&self) -> Dumps {
        [0, 1, 2].map(|n| Dump::of(&self.0.disks[n]))
    }

    fn disk(&self, cluster: Cluster) -> &Disk {
        &self.0.disks[usize::from(cluster.0)]
    }

    fn running(&self, node: Node) -> Option<Arc<Bare>> {
        self.state().nodes[&node].running.clone()
    }

    /// Has a node run, as soon as it can.
    fn start(&self, node: Node) {
        let number = {
            let mut state = self.state();
            let place = state.nodes.get_mut(&node).unwrap();
            place.number += 1;
            place.number
        };
        let world = self.clone();
        drop(self.0.tasks.spawn("start of a node", async move {
            loop {
                if let Ok(bare) = world.begin(node, number).await {
                    return world.runs(node, number, bare);
                }
                sleep(AGAIN).await;
                if world.state().nodes[&node].number != number {
                    return;
                }
            }
        }));
    }

    /// A node has started: too late, if it was to crash meanwhile.
    fn runs(&self, node: Node, number: u64, bare: Bare) {
        let bare = Arc::new(bare);
        let is_late = {
            let mut state = self.state();
            let place = state.nodes.get_mut(&node).unwrap();
            let is_late = place.number != number;
            if !is_late {
                place.running = Some(Arc::clone(&bare));
            }
            is_late
        };
        if is_late {
            bare.crash();
            self.0.tap.gone(node);
        } else {
            self.open(node, bare);
        }
    }

    async fn begin(&self, node: Node, number: u64) -> Result<Bare, crate::node::Error> {
        let (tap, cluster) = (self.0.tap.clone(), node.cluster());
        let nonce = self.now_ms();
        Bare::start(BareConfig {
            cluster: ClusterId::new(cluster.to_string()).unwrap(),
            node: node.to_string(),
            addresses: vec![node.address().to_string()],
            disk: self.disk(cluster).clone(),
            clock: self.0.clocks[&node].clone(),
            chance: self.0.chance.fork(&format!("{node} {number} {nonce}")),
            identity: stage::beginning().identity(cluster).clone(),
            transport: Arc::new(SimTransport {
                net: self.0.net.clone(),
                node,
            }),
            tap: Box::new(move |roles, tasks| tap.before(node, roles, tasks)),
            versions: self.versions(cluster),
            login_deadline: LOGIN,
            heartbeat: self.0.pace.heartbeat,
            dead_after: self.0.pace.dead_after,
        })
        .await
    }

    /// An old cluster knows nothing that came with a later version: it compares no sessions.
    fn versions(&self, cluster: Cluster) -> VersionRange {
        match self.0.plan.settings.old {
            Some(old) if old == cluster => VersionRange::ONLY_1_0,
            _ => VersionRange::SUPPORTED,
        }
    }

    fn open(&self, node: Node, bare: Arc<Bare>) {
        let chain = stage::beginning().chain(node.cluster());
        let door = move |arrived: Arrived| {
            let Arrived {
                pipe,
                remote,
                chain,
            } = arrived;
            bare.arrived(pipe, remote, chain);
        };
        self.0.net.open(node.address(), chain, door);
    }

    fn crash(&self, node: Node) {
        let running = {
            let mut state = self.state();
            let place = state.nodes.get_mut(&node).unwrap();
            place.number += 1;
            place.down += 1;
            place.running.take()
        };
        if let Some(bare) = running {
            bare.crash();
        }
        self.0.tap.gone(node);
        self.0.net.crash(node.host());
    }

    fn revive(&self, node: Node) {
        let is_up = {
            let mut state = self.state();
            let place = state.nodes.get_mut(&node).unwrap();
            place.down -= 1;
            place.down == 0
        };
        if is_up {
            self.start(node);
        }
    }

    async fn step(&self, step: Step) {
        let at = self.0.began + Duration::from_millis(step.at_ms);
        if let What::Restore {
            cluster, age_ms, ..
        } = step.what
        {
            sleep_until(at - Duration::from_millis(age_ms)).await;
            let before = self.disk(cluster).snapshot();
            sleep_until(at).await;
            let done = self.begin_of(&step.what);
            for node in cluster.nodes() {
                self.crash(node);
            }
            self.restore(cluster, &before);
            self.pass(&step.what).await;
            for node in cluster.nodes() {
                self.revive(node);
            }
            return self.end_of(done);
        }
        sleep_until(at).await;
        match step.what {
            What::Login {
                phone,
                node,
                user,
                right_pin,
                patience,
            } => self.log_in(phone, node, user, right_pin, patience).await,
            What::Logout { phone, node } => self.log_out(phone, node).await,
            what if what.is_work() => {
                let done = self.begin_of(&what);
                self.operate(done, &what).await;
                self.end_of(done);
            }
            what => {
                let done = self.begin_of(&what);
                self.disturb(&what).await;
                self.end_of(done);
            }
        }
    }

    /// What was done until then is looked at before it is forgotten.
    fn restore(&self, cluster: Cluster, before: &Snapshot) {
        let dumps = self.dumps();
        self.disk(cluster).restore(before);
        let dump = Dump::of(self.disk(cluster));
        let mut state = self.state();
        let State { checker, model, .. } = &mut *state;
        checker.changes(&dumps, model);
        checker.restored(cluster, &dump);
    }

    fn begin_of(&self, what: &What) -> usize {
        let now = self.now_ms();
        self.state().model.begin(what.clone(), now)
    }

    fn end_of(&self, done: usize) {
        let now = self.now_ms();
        self.state().model.end(done, now);
    }

    async fn pass(&self, what: &What) {
        sleep(Duration::from_millis(what.length_ms().unwrap_or_default())).await;
    }

    async fn log_in(&self, phone: Phone, node: u8, user: User, right_pin: bool, patience: u8) {
        let lots = self
            .0
            .chance
            .fork(&format!("{phone} {user} {}", self.now_ms()));
        for number in 0..=patience {
            // On the phone beside it every other time.
            let phone = Phone(phone.0, (phone.1 + number % 2) % PHONES);
            let told = self
                .try_log_in(phone, node, user, right_pin, number > 0)
                .await;
            if !matches!(told, Some(Told::Failed(code)) if TRY_AGAIN.contains(&code)) {
                return;
            }
            sleep(Duration::from_millis(lots.range(20..700))).await;
        }
    }

    async fn try_log_in(
        &self,
        phone: Phone,
        node: u8,
        user: User,
        right_pin: bool,
        is_again: bool,
    ) -> Option<Told> {
        let bare = self.running(Node(phone.0, node))?;
        let (reference, now) = (bare.visiting.new_ref(), self.now_ms());
        let before = is_again.then(|| self.dumps());
        let attempt = self
            .state()
            .model
            .login(reference, phone, user, right_pin, now);
        let told = tokio::select! {
            biased;
            () = bare.gone.cancelled() => return None,
            told = ask_in(&bare, phone, user, right_pin, reference) => told,
        };
        let is_elsewhere = told == Told::Failed(25);
        let (now, dumps) = (self.now_ms(), is_elsewhere.then(|| self.dumps()));
        let is_failed = matches!(told, Told::Failed(_));
        let there = is_failed.then(|| Dump::of(self.disk(Cluster(phone.0))));
        let mut state = self.state();
        let State { checker, model, .. } = &mut *state;
        model.told(attempt, told, now);
        let told = model.attempts[attempt].clone();
        if let Some(there) = &there {
            checker.ended_before_told(now, &told, there, model);
        }
        // What there was when it began tells of this login only where nobody else came with that name meanwhile.
        let is_alone = !model.attempts.iter().any(|other| {
            other.user == user
                && other.reference != reference
                && other.ended_ms.is_none_or(|ended| ended >= told.began_ms)
        });
        let before = before.filter(|_| is_elsewhere && is_alone);
        for dumps in before.iter().chain(&dumps) {
            checker.refused_elsewhere(now, &told, dumps, model);
        }
        Some(told.told)
    }

    async fn log_out(&self, phone: Phone, node: u8) {
        let Some(bare) = self.running(Node(phone.0, node)) else {
            return;
        };
        let (device, now) = (phone.to_string(), self.now_ms());
        let logout = self.state().model.logout(phone, now);
        let reference = bare.visiting.new_ref();
        let is_done = tokio::select! {
            biased;
            () = bare.gone.cancelled() => false,
            told = bare.visiting.logout(&device, caller(phone), reference) => told.is_ok(),
        };
        let now = self.now_ms();
        self.state().model.logged_out(logout, is_done, now);
    }

    /// What operators do, and take back after a time.
    async fn operate(&self, done: usize, what: &What) {
        let answer = self.ask_for(what).await;
        let now = self.now_ms();
        self.state().model.answered(done, answer, now);
        if what.length_ms().is_some() {
            self.pass(what).await;
            let now = self.now_ms();
            self.state().model.undoes(done, now);
            self.take_back(what).await;
        }
    }

    /// What operators do; what they were told.
    async fn ask_for(&self, what: &What) -> Answer {
        let is_done = |done: bool| if done { Answer::Done } else { Answer::Nothing };
        let told = match *what {
            What::EndAtVisiting { phone, node } => {
                let end = |bare: Arc<Bare>| async move {
                    match bare.end_at_visiting(&phone.to_string()).await {
                        Ok(true) => Answer::Done,
                        Ok(false) => Answer::Nobody,
                        Err(_) => Answer::Nothing,
                    }
                };
                self.at(Node(phone.0, node), end).await
            }
            What::EndAtHome { user, node } => {
                let end = |bare: Arc<Bare>| async move {
                    match bare.end_at_home(&user.to_string()).await {
                        Ok(0) => Answer::Nobody,
                        Ok(_) => Answer::Done,
                        Err(_) => Answer::Nothing,
                    }
                };
                self.at(Node(user.0, node), end).await
            }
            What::SetUser { user, enabled } => {
                let set = |bare: Arc<Bare>| async move {
                    is_done(bare.set_user(&user.to_string(), enabled).await.is_ok())
                };
                self.at(Node(user.0, 0), set).await
            }
            What::RemoveBase { base, .. } => {
                let remove = |bare: Arc<Bare>| async move {
                    is_done(bare.remove_base(&base.to_string()).await == Ok(true))
                };
                self.at(Node(base.0, 0), remove).await
            }
            What::RemovePeer { at, peer, .. } => {
                let remove = |bare: Arc<Bare>| async move {
                    is_done(bare.remove_peer(&peer.to_string()).await == Ok(true))
                };
                self.at(Node(at.0, 0), remove).await
            }
            What::DisablePeer { at, peer, .. } => {
                let disable =
                    |bare: Arc<Bare>| async move { is_done(enable(&bare, peer, false).await) };
                self.at(Node(at.0, 0), disable).await
            }
            What::RevokeTrust { at, peer, .. } => {
                let revoke = |bare: Arc<Bare>| async move { is_done(distrust(&bare, peer).await) };
                self.at(Node(at.0, 0), revoke).await
            }
            _ => None,
        };
        told.unwrap_or(Answer::Nothing)
    }

    /// Does it until it is done.
    async fn take_back(&self, what: &What) {
        match *what {
            What::RemoveBase { base, .. } => {
                let add =
                    |bare: Arc<Bare>| async move { bare.add_base(&base.to_string()).await.is_ok() };
                self.insist(Node(base.0, 0), add).await;
            }
            What::RemovePeer { at, peer, .. } => {
                let settings = &self.0.plan.settings;
                let add = |bare: Arc<Bare>| async move { accept(&bare, peer, settings).await };
                self.insist(Node(at.0, 0), add).await;
            }
            What::DisablePeer { at, peer, .. } => {
                let again = |bare: Arc<Bare>| async move { enable(&bare, peer, true).await };
                self.insist(Node(at.0, 0), again).await;
            }
            What::RevokeTrust { at, peer, .. } => {
                let again = |bare: Arc<Bare>| async move { trust_again(&bare, peer).await };
                self.insist(Node(at.0, 0), again).await;
            }
            _ => {}
        }
    }

    /// Asks a node, if it runs; none when it does not, or dies over it.
    async fn at<T, F: Future<Output = T> + Send>(
        &self,
        node: Node,
        ask: impl FnOnce(Arc<Bare>) -> F + Send,
    ) -> Option<T> {
        let bare = self.running(node)?;
        let gone = bare.gone.clone();
        tokio::select! {
            biased;
            () = gone.cancelled() => None,
            done = ask(bare) => Some(done),
        }
    }

    /// Asks it until it is done.
    async fn insist<F: Future<Output = bool> + Send>(
        &self,
        node: Node,
        ask: impl Fn(Arc<Bare>) -> F + Send + Sync,
    ) {
        while self.at(node, &ask).await != Some(true) {
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// What breaks, until it is mended. Where two steps break one thing, it is whole when the last of them is over.
    async fn disturb(&self, what: &What) {
        let net = &self.0.net;
        match what {
            What::Cut {
                from,
                to,
                how,
                both,
                whole,
                ..
            } => {
                let mut cuts = Vec::new();
                for (one, other) in pairs(*from, *to, *whole) {
                    cuts.push(net.cut(one.host(), other.host(), *how));
                    if *both {
                        cuts.push(net.cut(other.host(), one.host(), *how));
                    }
                }
                self.pass(what).await;
                cuts.into_iter().for_each(|cut| net.mend(cut));
            }
            What::Kill { a, b } => net.kill(a.host(), b.host()),
            What::Crash { node, .. } => {
                self.crash(*node);
                self.pass(what).await;
                self.revive(*node);
            }
            What::Clock { node, offset_ms } => {
                let skew = self.0.plan.settings.skew_ms[node.place()];
                self.0.clocks[node].set_offset_millis(skew + offset_ms);
            }
            _ => {
                let number = {
                    let mut state = self.state();
                    state.next += 1;
                    let number = state.next;
                    state.broken.push((number, what.clone()));
                    number
                };
                self.set(what);
                self.pass(what).await;
                self.state().broken.retain(|(one, _)| *one != number);
                self.set(what);
            }
        }
    }

    /// Sets what a step has broken or mended as all that is broken now would have it; the latest wins.
    fn set(&self, what: &What) {
        let (net, broken) = (&self.0.net, self.state().broken.clone());
        let mut latest = broken.iter().rev().map(|(_, what)| what);
        match what {
            What::Refuse { node, .. } => {
                let refuses = latest
                    .any(|what| matches!(what, What::Refuse { node: one, .. } if one == node));
                net.refuse(node.host(), refuses);
            }
            What::Latency { .. } => {
                let (least, most) = self.0.plan.settings.latency_ms;
                let now = latest.find_map(|what| match what {
                    What::Latency { most_ms, .. } => Some((1, *most_ms)),
                    _ => None,
                });
                let (least, most) = now.unwrap_or((least, most));
                net.set_latency(least, most);
            }
            What::Mischief { .. } => {
                let now = latest.find_map(|what| match what {
                    What::Mischief { repeat, delay, .. } => Some((*repeat, *delay)),
                    _ => None,
                });
                let (repeat, delay) = now.unwrap_or_default();
                self.0.tap.set(repeat, delay);
            }
            What::Pause { node, .. } => {
                let is_held =
                    latest.any(|what| matches!(what, What::Pause { node: one, .. } if one == node));
                net.hold(node.host(), is_held);
                if let Some(bare) = self.running(*node) {
                    bare.hold(is_held);
                }
            }
            What::Disk { cluster, .. } => {
                let now = latest.find_map(|what| match what {
                    What::Disk {
                        cluster: one,
                        trouble,
                        ..
                    } if one == cluster => Some(*trouble),
                    _ => None,
                });
                self.disk(*cluster)
                    .set_trouble(now.unwrap_or(Trouble::None));
            }
            _ => panic!("{what:?} breaks nothing"),
        }
    }
}

/// The two nodes, or all of their clusters.
fn pairs(from: Node, to: Node, whole: bool) -> Vec<(Node, Node)> {
    if !whole {
        return vec![(from, to)];
    }
    let all = from.cluster().nodes();
    all.flat_map(|one| to.cluster().nodes().map(move |other| (one, other)))
        .collect()
}

/// Types name and PIN on a phone.
async fn ask_in(bare: &Bare, phone: Phone, user: User, right_pin: bool, reference: Ref) -> Told {
    let request = PhoneLogin {
        device: phone.to_string(),
        login_type: LoginType::Uid,
        name: user.to_string(),
        pin: Some(Pin::new(if right_pin { stage::PIN } else { "99999" }.to_owned()).unwrap()),
        emcc: true,
        caller: caller(phone),
        reference,
    };
    match bare.visiting.login(request).await {
        Ok(LoginOutcome::LoggedIn(_)) => Told::In,
        Ok(LoginOutcome::Choose(_)) => Told::Choose,
        Err(failure) => Told::Failed(failure.code.number()),
    }
}

fn shown(state: &PhoneState) -> Shown {
    match state {
        PhoneState::Nobody => Shown::Nobody,
        PhoneState::Busy => Shown::Busy,
        PhoneState::LoggedIn { user, .. } => Shown::In(named(user)),
    }
}

fn named(user: &UserId) -> User {
    User::named(user.as_str()).unwrap()
}

fn caller(phone: Phone) -> Caller {
    Caller {
        address: std::net::Ipv4Addr::new(10, 9, phone.0, phone.1).into(),
        via: false,
    }
}

async fn accept(bare: &Bare, peer: Cluster, settings: &Settings) -> bool {
    let (record, entry) = (stage::peer(peer, settings), stage::trusted(peer));
    let added = bare.change(move |tx| {
        peers::upsert(tx, &record)?;
        trust_entries::add(tx, &entry)?;
        Ok(())
    });
    added.await.is_ok()
}

async fn enable(bare: &Bare, peer: Cluster, enabled: bool) -> bool {
    let id = ClusterId::new(peer.to_string()).unwrap();
    let changed = bare.change(move |tx| {
        // One that was removed meanwhile stays so.
        match peers::get(tx, &id)? {
            Some(record) => peers::upsert(tx, &peers::Peer { enabled, ..record }),
            None => Ok(()),
        }
    });
    changed.await.is_ok()
}

async fn distrust(bare: &Bare, peer: Cluster) -> bool {
    let (entry, now) = (stage::trusted(peer), bare.clock().now());
    let changed = bare.change(move |tx| {
        trust_entries::revoke(tx, &entry.cluster_id, &entry.fingerprint, now)?;
        Ok::<_, store::Error>(())
    });
    changed.await.is_ok()
}

async fn trust_again(bare: &Bare, peer: Cluster) -> bool {
    let entry = stage::trusted(peer);
    let changed = bare.change(move |tx| {
        trust_entries::unrevoke(tx, &entry.cluster_id, &entry.fingerprint)?;
        if peers::get(tx, &entry.cluster_id)?.is_some() {
            trust_entries::add(tx, &entry)?;
        }
        Ok(())
    });
    changed.await.is_ok()
}

/// Links over the simulated network.
struct SimTransport {
    net: Net,
    node: Node,
}

impl Transport for SimTransport {
    fn dial<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, Result<Wire, peer::Error>> {
        Box::pin(async move {
            let shown: Chain = ask
                .snapshot
                .client_identity_for(ask.cluster)
                .map(stage::ders)
                .unwrap_or_default();
            let waited = ask.connect_timeout + ask.handshake_timeout;
            let address = ask.address.to_owned();
            let (pipe, chain) =
                match timeout(waited, self.net.dial(self.node.host(), shown, ask.socket)).await {
                    Ok(Ok(connected)) => connected,
                    Ok(Err(source)) => return Err(peer::Error::Unreachable { address, source }),
                    Err(_) => {
                        return Err(peer::Error::Silent {
                            address,
                            step: "the connection",
                            waited,
                        });
                    }
                };
            let verdict = ask.snapshot.identify_dialled(ask.cluster, &chain);
            if let Some(error) = untrusted(ask.address, verdict) {
                return Err(error);
            }
            Ok(Wire {
                stream: Box::new(pipe),
                chain,
            })
        })
    }
}

impl Line for Pipe {
    fn hung_up(&self) -> impl Future<Output = ()> + Send {
        // A caller that waits for its turn gives up by itself.
        std::future::pending()
    }
}
