//! What can be seen of a node from outside: whether it can serve, and its figures.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    clock_steps::ClockSteps,
    expiry::Certificates,
    reload::{Reloader, Shown},
};
use crate::{
    admission::{Admission, Kind},
    clock::{self, Clock, Timestamp},
    credentials::Credentials,
    domain::{
        ids::{ClusterId, Ref},
        phase::Phase,
        purpose::Purpose,
        session::Role,
    },
    edge::{
        listener::{self, Bound, TurnedAway},
        metrics::{
            self, By, Metrics, Outcome, Probe, Reading, Reason, Reply, Whose,
            table::{self, Metric},
        },
        phone::{self, Desk},
    },
    peer::{LinkState, LinkStatus, Peers},
    store::{self, Store, Transaction, counts},
    tasks::Tasks,
    trust::{TrustStore, refusals::Side},
    visiting::{
        Caller, Failure, LoggedOut, LoginOutcome, PhoneChoice, PhoneLogin, PhoneState, VisitingRole,
    },
    watch,
};

/// The doors that must be open, by the names of their tasks.
const DOORS: [&str; 2] = ["federation listener", "phone listener"];

/// How old counts of the cluster's rows may be: whoever asks more often gets the same again.
const COUNT_AGAIN: Duration = Duration::from_secs(10);

/// How long the database may take to say that it can be written.
const STORE_PATIENCE: Duration = Duration::from_secs(1);

/// How old that answer may be.
const PROBE_AGAIN: Duration = Duration::from_secs(1);

/// A node, to be looked at.
pub(super) struct Sight {
    pub(super) cluster: ClusterId,
    pub(super) clock: Clock,
    pub(super) store: Store,
    pub(super) credentials: Credentials,
    pub(super) admission: Admission,
    pub(super) trust: TrustStore,
    pub(super) peers: Peers,
    pub(super) reloader: Arc<Reloader>,
    pub(super) certificates: Certificates,
    pub(super) phase: watch::Receiver<Phase>,
    /// Cancelled when another process serves in this one's place.
    pub(super) succeeded: CancellationToken,
    /// What accepts from outside.
    pub(super) doors: Tasks,
    pub(super) started: Instant,
    pub(super) counted: tokio::sync::Mutex<Option<(Instant, counts::Counts)>>,
    pub(super) probed: Probed,
    pub(super) turned: Turned,
    pub(super) steps: ClockSteps,
}

/// Who was turned away at the doors.
#[derive(Clone, Debug, Default)]
pub(super) struct Turned {
    pub(super) federation: TurnedAway,
    pub(super) phone: TurnedAway,
}

impl Turned {
    fn read(&self, all: &mut Readings) {
        for (door, turned) in [("federation", &self.federation), ("phone", &self.phone)] {
            for bound in Bound::ALL {
                let is_phones = matches!(
                    bound,
                    Bound::Handshakes | Bound::Connections | Bound::Address
                );
                let is_there = match door {
                    "phone" => is_phones,
                    _ => bound != Bound::Address,
                };
                if is_there {
                    let labels = [door, bound.as_str()];
                    all.add(&table::TURNED_AWAY, &labels, float(turned.count(bound)));
                }
            }
        }
    }
}

/// The look whether the database can be written that began last: one at a time, whoever asks and goes away meanwhile.
#[derive(Default)]
pub(super) struct Probed(Mutex<Option<(Instant, Probing)>>);

/// Why it can't be, as told to all who asked meanwhile.
type Probing = Shared<BoxFuture<'static, Option<String>>>;

impl Probed {
    /// The one that is under way or has just ended, or a new one.
    fn probe(&self, store: &Store) -> Probing {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((began, probing)) = &*last
            && (clock::since(*began) < PROBE_AGAIN || probing.clone().now_or_never().is_none())
        {
            return probing.clone();
        }
        let store = store.clone();
        let probing = async move {
            // It takes the writer's turn and changes nothing.
            let written = store.write(|_: &mut dyn Transaction| Ok::<_, store::Error>(()));
            let failed = written.await.err();
            failed.map(|error| crate::telemetry::error_chain(&error))
        };
        let probing = probing.boxed().shared();
        *last = Some((clock::instant(), probing.clone()));
        probing
    }
}

impl Probe for Sight {
    fn whose(&self) -> Whose {
        Whose {
            cluster: self.cluster.to_string(),
            node: self.peers.config().node.clone(),
        }
    }

    fn reasons(&self) -> Reply<'_, Vec<Reason>> {
        Box::pin(async {
            let mut reasons = Vec::new();
            let phase = *self.phase.borrow();
            match phase {
                // What is asked is whether the node can serve. Its new process can.
                _ if self.succeeded.is_cancelled() => {}
                Phase::Starting => reasons.push(reason("starting", "the node is starting")),
                Phase::Draining => reasons.push(reason("draining", "the node is shutting down")),
                Phase::Serving => {
                    let closed = DOORS.iter().filter(|door| self.doors.count(door) == 0);
                    reasons.extend(
                        closed.map(|door| reason("listeners", format!("the {door} has ended"))),
                    );
                }
            }
            reasons.extend(self.reloader.shown().iter().filter_map(|s| self.unfit(s)));
            reasons.extend(self.unwritable().await);
            reasons
        })
    }

    fn readings(&self) -> Reply<'_, Vec<Reading>> {
        Box::pin(async {
            let mut all = Readings::default();
            self.read_requests(&mut all);
            self.read_links(&mut all);
            self.read_store(&mut all);
            self.turned.read(&mut all);
            self.read_process(&mut all);
            if let Some(counts) = self.rows().await {
                read_rows(&counts, &mut all);
            }
            all.0
        })
    }
}

fn reason(id: &'static str, text: impl Into<String>) -> Reason {
    Reason {
        id,
        text: text.into(),
    }
}

#[derive(Default)]
struct Readings(Vec<Reading>);

impl Readings {
    fn add(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        self.0.push(Reading {
            metric,
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            value,
        });
    }
}

/// Exact up to 2^53, far beyond what is counted here.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures are told as floating point numbers"
)]
const fn float(count: u64) -> f64 {
    count as f64
}

fn size(count: usize) -> f64 {
    float(u64::try_from(count).unwrap_or(u64::MAX))
}

fn rows(count: i64) -> f64 {
    float(u64::try_from(count).unwrap_or_default())
}

fn yes(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

impl Sight {
    /// Why an identity can't be shown, if it can't.
    fn unfit(&self, shown: &Shown) -> Option<Reason> {
        let id = match shown.purpose {
            Purpose::Federation => "federation-identity",
            Purpose::FederationClient => "federation-client-identity",
            Purpose::Phone => "phone-identity",
        };
        let Some(identity) = &shown.identity else {
            let problem = shown.problem.as_deref().unwrap_or("there is none");
            return Some(reason(
                id,
                format!("no {} identity is in force: {problem}", shown.purpose),
            ));
        };
        let now = self.clock.now();
        let checked = match shown.purpose {
            Purpose::FederationClient => identity.check_client(now),
            Purpose::Federation | Purpose::Phone => identity.check_server(now),
        };
        let problem = checked.err()?;
        Some(reason(id, crate::telemetry::error_chain(&problem)))
    }

    async fn unwritable(&self) -> Option<Reason> {
        // An empty transaction needs no room on the disk; what was really to be written does.
        if let Some(error) = self.store.failing() {
            let cause = crate::telemetry::error_chain(&error);
            let advice = error.advice().map(|what| format!(": {what}"));
            return Some(reason(
                "store",
                format!(
                    "what was written last did not reach the disk: {cause}{}",
                    advice.unwrap_or_default()
                ),
            ));
        }
        let probing = self.probed.probe(&self.store);
        match tokio::time::timeout(STORE_PATIENCE, probing).await {
            Ok(None) => None,
            Ok(Some(cause)) => Some(reason("store", cause)),
            Err(_) => Some(reason(
                "store",
                format!(
                    "the store could not be written within {} s",
                    STORE_PATIENCE.as_secs()
                ),
            )),
        }
    }

    fn read_requests(&self, all: &mut Readings) {
        for kind in Kind::ALL {
            let (counts, labels) = (self.admission.counts(kind), [kind.as_str()]);
            all.add(&table::REQUESTS_THROTTLED, &labels, float(counts.refused));
            all.add(&table::REQUESTS_ADMITTED, &labels, float(counts.admitted));
            all.add(&table::REQUESTS_RUNNING, &labels, size(counts.running));
            all.add(&table::REQUESTS_WAITING, &labels, size(counts.waiting));
        }
        let pins = self.credentials.counts();
        all.add(&table::PIN_CHECKS_RUNNING, &[], size(pins.running));
        all.add(&table::PIN_CHECKS_WAITING, &[], size(pins.waiting));
        all.add(&table::PIN_CHECKS, &[], float(pins.admitted));
        all.add(&table::PIN_CHECKS_REFUSED, &[], float(pins.refused));
    }

    fn read_links(&self, all: &mut Readings) {
        for status in self.peers.status() {
            read_link(&status, all);
        }
        for (side, rejection, count) in self.trust.refusals().counts() {
            let labels = [Side::as_str(side), rejection.as_str()];
            all.add(&table::REFUSED_CONNECTIONS, &labels, float(count));
        }
        let now = self.clock.now().as_millis();
        for shown in self.reloader.shown() {
            if let Some(identity) = shown.identity {
                let left = identity.leaf().not_after().as_millis().saturating_sub(now);
                let seconds = float(left.unsigned_abs()) / 1_000.0;
                let seconds = if left < 0 { -seconds } else { seconds };
                all.add(
                    &table::CERTIFICATE_EXPIRY,
                    &[shown.purpose.as_str()],
                    seconds,
                );
            }
        }
        let seconds = |moment: Timestamp| {
            float(u64::try_from(moment.as_millis()).unwrap_or_default()) / 1_000.0
        };
        for ((owner, purpose), end) in self.certificates.first_ends() {
            let labels = [owner.as_str(), purpose];
            all.add(&table::CERTIFICATE_NOT_AFTER, &labels, seconds(end));
        }
        for ((purpose, reason), count) in self.reloader.rotation_alarms().all() {
            let labels = [purpose.as_str(), reason.as_str()];
            all.add(&table::ROTATION_ALARMS, &labels, float(count));
        }
        for (peer, due) in self.certificates.first_stale() {
            all.add(&table::CRL_NEXT_UPDATE, &[peer.as_str()], seconds(due));
        }
    }

    fn read_store(&self, all: &mut Readings) {
        let stats = self.store.stats();
        all.add(&table::STORE_COMMITS, &[], float(stats.commits));
        let failures = float(stats.commit_failures);
        all.add(&table::STORE_COMMIT_FAILURES, &[], failures);
        all.add(
            &table::STORE_COMMIT_SECONDS,
            &[],
            stats.commit_time.as_secs_f64(),
        );
        all.add(&table::STORE_WRITES, &[], float(stats.writes));
        all.add(&table::STORE_READS, &[], float(stats.reads));
        all.add(
            &table::STORE_WAITING,
            &["write"],
            size(stats.waiting_writes),
        );
        all.add(&table::STORE_WAITING, &["read"], size(stats.waiting_reads));
        all.add(&table::STORE_LOCK_WAIT, &[], stats.lock_wait.as_secs_f64());
    }

    fn read_process(&self, all: &mut Readings) {
        all.add(&table::BUILD, &[env!("CARGO_PKG_VERSION")], 1.0);
        all.add(
            &table::UPTIME,
            &[],
            clock::since(self.started).as_secs_f64(),
        );
        let steps = float(self.steps.count());
        all.add(&table::CLOCK_STEPS, &[], steps);
        if let Some(bytes) = resident_bytes() {
            all.add(&table::RESIDENT_MEMORY, &[], float(bytes));
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            all.add(&table::OPEN_FILES, &[], size(files.count()));
        }
    }

    /// What the cluster's rows come to, not older than [`COUNT_AGAIN`].
    async fn rows(&self) -> Option<counts::Counts> {
        let mut counted = self.counted.lock().await;
        if let Some((at, counts)) = &*counted
            && clock::since(*at) < COUNT_AGAIN
        {
            return Some(counts.clone());
        }
        let own = self.cluster.clone();
        let read = self
            .store
            .read(move |tx: &mut dyn Transaction| counts::living(tx, &own));
        match tokio::time::timeout(STORE_PATIENCE, read).await {
            Ok(Ok(counts)) => {
                *counted = Some((clock::instant(), counts.clone()));
                Some(counts)
            }
            // Better no figure than an old one.
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

fn read_link(status: &LinkStatus, all: &mut Readings) {
    // Nobody is to be woken for a link that an operator has taken down.
    if !status.enabled {
        return;
    }
    let peer = [status.cluster.as_str()];
    all.add(
        &table::LINK_UP,
        &peer,
        yes(status.outbound == LinkState::Up),
    );
    all.add(&table::LINK_INBOUND, &peer, yes(status.inbound.watching));
    if let Some(age) = status.proof_age {
        all.add(&table::LINK_PROOF_AGE, &peer, age.as_secs_f64());
    }
    if let Some(millis) = status.clock_offset_ms {
        let seconds = float(millis.unsigned_abs()) / 1_000.0;
        let seconds = if millis < 0 { -seconds } else { seconds };
        all.add(&table::LINK_CLOCK_OFFSET, &peer, seconds);
    }
}

fn read_rows(counts: &counts::Counts, all: &mut Readings) {
    for (role, state, is_remote, count) in &counts.sessions {
        let labels = [
            role.as_str(),
            state.as_str(),
            if *is_remote { "yes" } else { "no" },
        ];
        all.add(&table::SESSIONS, &labels, rows(*count));
    }
    all.add(&table::SESSIONS_OWED, &[], rows(counts.owed));
    all.add(&table::SESSIONS_PARKED, &[], rows(counts.parked));
    for (peer, ends) in &counts.held_back {
        all.add(
            &table::SESSIONS_HELD_BACK,
            &[peer.as_str()],
            f64::from(*ends),
        );
    }
    all.add(&table::BASE_DEVICES, &["held"], rows(counts.held));
    let free = counts.base_devices.saturating_sub(counts.held);
    all.add(&table::BASE_DEVICES, &["free"], rows(free));
}

/// Memory of this process that is in RAM, as the kernel tells it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

/// Serves figures and health, until the node has ended or another process answers for it. Where only an address is
/// given it is taken, and the node does without until it is free: a port for monitoring must keep nobody from logging
/// in.
pub(super) fn open_window(
    listener: Result<TcpListener, SocketAddr>,
    metrics: Metrics,
    sight: Sight,
    tasks: &Tasks,
) {
    /// How often a port that is taken is tried again.
    const AGAIN: Duration = Duration::from_secs(1);
    let succeeded = sight.succeeded.clone();
    let router = metrics::router(metrics, Arc::new(sight));
    let draining = succeeded.clone();
    let serve = move |listener, router, tasks: Tasks| {
        let (places, limits) = (
            listener::Places::for_monitoring(),
            // A successor has the socket too, and answers whoever comes from then on.
            listener::Config {
                draining,
                ..listener::Config::default()
            },
        );
        listener::serve_http(listener, None, router, tasks, places, limits)
    };
    match listener {
        Ok(listener) => {
            tasks.spawn("metrics listener", serve(listener, router, tasks.clone()));
        }
        Err(address) => {
            let ending = tasks.clone();
            tasks.spawn("metrics listener", async move {
                loop {
                    tokio::select! {
                        biased;
                        () = ending.cancelled() => return,
                        () = succeeded.cancelled() => return,
                        () = tokio::time::sleep(AGAIN) => {}
                    }
                    if let Ok(listener) = TcpListener::bind(address).await {
                        info!(%address, "figures and health are served now");
                        return serve(listener, router, ending).await;
                    }
                }
            });
        }
    }
}

/// The visiting role as the pages ask for it, with what comes of it counted.
pub(super) struct CountedDesk {
    pub(super) role: VisitingRole,
    pub(super) metrics: Metrics,
}

impl CountedDesk {
    async fn counted(
        &self,
        login: impl Future<Output = Result<LoginOutcome, Failure>> + Send,
    ) -> Result<LoginOutcome, Failure> {
        let began = clock::instant();
        let outcome = login.await;
        let what = match &outcome {
            Ok(LoginOutcome::LoggedIn(_)) => Outcome::Success,
            Ok(LoginOutcome::Choose(_)) => Outcome::Choice,
            Err(failure) => Outcome::Refused(failure.code),
        };
        self.metrics.login(Role::Visiting, what, began);
        outcome
    }
}

impl Desk for CountedDesk {
    fn phone_state<'a>(&'a self, device: &'a str) -> phone::Reply<'a, PhoneState> {
        Box::pin(self.role.phone_state(device))
    }

    fn login(&self, login: PhoneLogin) -> phone::Reply<'_, LoginOutcome> {
        Box::pin(self.counted(self.role.login(login)))
    }

    fn choose(&self, choice: PhoneChoice) -> phone::Reply<'_, LoginOutcome> {
        Box::pin(self.counted(self.role.choose(choice)))
    }

    fn logout<'a>(
        &'a self,
        device: &'a str,
        caller: Caller,
        reference: Ref,
    ) -> phone::Reply<'a, LoggedOut> {
        Box::pin(async move {
            let outcome = self.role.logout(device, caller, reference).await;
            let what = match &outcome {
                Ok(_) => Outcome::Success,
                Err(failure) => Outcome::Refused(failure.code),
            };
            self.metrics.logout(Role::Visiting, By::Phone, what);
            outcome
        })
    }

    fn new_ref(&self) -> Ref {
        self.role.new_ref()
    }

    fn knows_login_types(&self) -> bool {
        self.role.knows_login_types()
    }
}
