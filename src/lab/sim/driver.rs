//! Carries out a plan: starts the nodes, does what the plan says at its time, and has the checker look.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    checker::{Checker, Counts, Dump, Dumps, Wrong},
    model::{Model, Told},
    net::{Arrived, Net},
    panics,
    plan::{Cluster, Node, Phone, Plan, SETTLED_MS, Settings, User, What},
    stage,
    tap::Tap,
};
use crate::{
    chance::Chance,
    clock::Clock,
    domain::{ids::ClusterId, version::VersionRange},
    node::bare::{Bare, BareConfig},
    peer,
    store::{self, inline::Disk},
    tasks::Tasks,
};

mod banished;
mod ending;
mod liveness;
mod people;
mod transport;
mod troubles;

/// How often the records are looked at while things happen.
const LOOK: Duration = Duration::from_secs(5);
/// When a node that could not start tries again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a login may take.
const LOGIN: Duration = Duration::from_secs(5);
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
    run_and_hold(plan, drop)
}

/// The same, handing the federation to somebody before it begins: a test holds it for longer than its run.
fn run_and_hold(plan: &Plan, hold: impl FnOnce(World)) -> Outcome {
    // What all runs begin with is made outside of their time.
    let beginning = stage::beginning();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    // Inside: outside of the runtime it is the machine's time.
    let ((mut outcome, remains), panicked) = panics::noted(|| {
        runtime.block_on(async {
            let world = World::new(plan, beginning);
            // Who holds the federation holds its network.
            let remains = world.0.net.remains();
            hold(world.clone());
            (world.carry_out().await, remains)
        })
    });
    runtime.shutdown_background();
    // Fifty thousand of them would need more memory than there is.
    if remains() {
        outcome.wrong.push(Wrong {
            rule: "memory",
            at_ms: 0,
            what: "something holds the federation, or its network, when the run is over".to_owned(),
        });
    }
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
                world.0.tap.fails(node, number);
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
            self.0.tap.fails(node, number);
        } else {
            self.open(node, number, bare);
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
            transport: Arc::new(transport::SimTransport {
                net: self.0.net.clone(),
                node,
            }),
            tap: Box::new(move |roles, tasks| tap.before((node, number), roles, tasks)),
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

    fn open(&self, node: Node, number: u64, bare: Arc<Bare>) {
        let chain = stage::beginning().chain(node.cluster());
        let door = move |arrived: Arrived| {
            let Arrived {
                pipe,
                remote,
                chain,
            } = arrived;
            bare.arrived(pipe, remote, chain);
        };
        self.0.tap.serves(node, number);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_after_a_run_is_found() {
        let plan = Plan::of(1);
        let mut held = None;
        let outcome = run_and_hold(&plan, |world| held = Some(world));
        let rules: Vec<_> = outcome.wrong.iter().map(|one| one.rule).collect();
        assert_eq!(rules, ["memory"]);
        drop(held);
        assert!(run(&plan).wrong.is_empty());
    }
}
