//! What a monitoring system asks: figures, whether the node lives, and whether it can serve.
//!
//! What happens is counted here as it happens ([`Metrics`]); what is known elsewhere is looked at when somebody asks
//! ([`Probe`]). Each node has its own: nothing is counted for a process.

pub mod table;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, Uri, header};
use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, MetricEncoder, NoLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric as Encodable, Registry},
};
use serde::Serialize;
use tracing::error;

use self::table::{Kind, Metric};
use crate::{
    clock,
    domain::{em_code::EmCode, session::Role},
};

/// A future answer of a [`Probe`].
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Names and values of labels.
type Labels = Vec<(&'static str, String)>;

/// A figure that was looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Which.
    pub metric: &'static Metric,
    /// Values of its labels, in the order of the table.
    pub labels: Vec<String>,
    /// The figure.
    pub value: f64,
}

/// Why a node can't serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// For programs.
    pub id: &'static str,
    /// For people.
    pub text: String,
}

/// Which node answers: the port may be another one's than who asks expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// Its cluster.
    pub cluster: String,
    /// Its name there.
    pub node: String,
}

/// Looks at a node.
pub trait Probe: Send + Sync {
    /// Which.
    fn whose(&self) -> Whose;

    /// Why it can't serve; nothing when it can.
    fn reasons(&self) -> Reply<'_, Vec<Reason>>;

    /// The figures that are known elsewhere.
    fn readings(&self) -> Reply<'_, Vec<Reading>>;
}

/// Who wants a session to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Whoever is at the phone.
    Phone,
    /// Another cluster.
    Peer,
}

impl By {
    /// As it stands in metrics.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Phone => "phone",
            Self::Peer => "peer",
        }
    }
}

/// What came of a login or a logout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Success,
    /// The user is asked to choose.
    Choice,
    /// Refused.
    Refused(EmCode),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("success"),
            Self::Choice => f.write_str("choice"),
            Self::Refused(code) => write!(f, "{}", code.number()),
        }
    }
}

/// Counts what happens on one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    in_progress: Gauge,
    handled: Counter,
    logins: Family<Labels, Counter>,
    durations: Family<Labels, Histogram>,
    logouts: Family<Labels, Counter>,
    calls: Family<Labels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let in_progress = register(
            &mut registry,
            &table::REQUESTS_IN_PROGRESS,
            Gauge::default(),
        );
        let handled = register(&mut registry, &table::REQUESTS_HANDLED, Counter::default());
        let logins = register(&mut registry, &table::LOGINS, Family::default());
        // From a millisecond to eight seconds: no login takes longer than its deadline.
        let make: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 14));
        let durations = Family::new_with_constructor(make);
        let durations = register(&mut registry, &table::LOGIN_DURATION, durations);
        let logouts = register(&mut registry, &table::LOGOUTS, Family::default());
        let calls = register(&mut registry, &table::PEER_CALLS, Family::default());
        let metrics = Self {
            inner: Arc::new(Inner {
                registry,
                in_progress,
                handled,
                logins,
                durations,
                logouts,
                calls,
            }),
        };
        metrics.begin_series();
        metrics
    }
}

/// What logins come to most often, and what an alarm goes by.
const COMMON: [Outcome; 7] = [
    Outcome::Success,
    Outcome::Choice,
    Outcome::Refused(EmCode::EmccAuthenticationError),
    Outcome::Refused(EmCode::AuthenticationError),
    Outcome::Refused(EmCode::DatabaseError),
    Outcome::Refused(EmCode::Busy),
    Outcome::Refused(EmCode::UserDoesNotExist),
];

fn register<M: Encodable + Clone>(registry: &mut Registry, metric: &Metric, made: M) -> M {
    registry.register(metric.family(), metric.help, made.clone());
    made
}

impl Metrics {
    /// The growth of a counter shows from its second value on: those that alarms go by are told before anything has
    /// happened. Others begin with their first event.
    fn begin_series(&self) {
        let inner = &self.inner;
        for role in [Role::Home, Role::Visiting] {
            for outcome in COMMON {
                let labels = labelled(&table::LOGINS, [role.to_string(), outcome.to_string()]);
                drop(inner.logins.get_or_create(&labels));
            }
        }
        for (role, by) in [
            (Role::Visiting, By::Phone),
            (Role::Visiting, By::Peer),
            (Role::Home, By::Peer),
        ] {
            for outcome in [Outcome::Success, Outcome::Refused(EmCode::DatabaseError)] {
                drop(inner.logouts.get_or_create(&ends(role, by, outcome)));
            }
        }
        for call in ["find_user", "login", "logout", "sync_sessions"] {
            let labels = labelled(&table::PEER_CALLS, [call.to_owned()]);
            drop(inner.calls.get_or_create(&labels));
        }
    }

    /// A login that began at `began` has its answer.
    pub fn login(&self, role: Role, outcome: Outcome, began: Instant) {
        let took = clock::since(began).as_secs_f64();
        let labels = labelled(&table::LOGIN_DURATION, [role.to_string()]);
        self.inner.durations.get_or_create(&labels).observe(took);
        let labels = labelled(&table::LOGINS, [role.to_string(), outcome.to_string()]);
        self.inner.logins.get_or_create(&labels).inc();
    }

    /// A logout has its answer.
    pub fn logout(&self, role: Role, by: By, outcome: Outcome) {
        let labels = ends(role, by, outcome);
        self.inner.logouts.get_or_create(&labels).inc();
    }

    /// Another cluster has called.
    pub fn peer_call(&self, call: &'static str) {
        let labels = labelled(&table::PEER_CALLS, [call.to_owned()]);
        self.inner.calls.get_or_create(&labels).inc();
    }

    /// The same routes, whose requests are counted.
    pub fn counting(&self, routes: Router) -> Router {
        routes.layer(from_fn_with_state(self.clone(), count))
    }

    /// All figures as text.
    fn text(&self, readings: Vec<Reading>) -> Result<String, fmt::Error> {
        let mut looked_up = Registry::default();
        looked_up.register_collector(Box::new(Readings(readings)));
        let mut text = String::new();
        encode_registry(&mut text, &self.inner.registry)?;
        encode_registry(&mut text, &looked_up)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

fn ends(role: Role, by: By, outcome: Outcome) -> Labels {
    let by = by.as_str().to_owned();
    labelled(&table::LOGOUTS, [role.to_string(), by, outcome.to_string()])
}

fn labelled<const N: usize>(metric: &Metric, values: [String; N]) -> Labels {
    metric.labels.iter().copied().zip(values).collect()
}

/// One request in flight, until it is dropped: also when the phone hangs up.
struct InFlight(Metrics);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.inner.in_progress.dec();
    }
}

async fn count(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    metrics.inner.in_progress.inc();
    let in_flight = InFlight(metrics.clone());
    let response = next.run(request).await;
    metrics.inner.handled.inc();
    drop(in_flight);
    response
}

/// Figures that were looked up, as the encoder wants them.
#[derive(Debug)]
struct Readings(Vec<Reading>);

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in table::ALL {
            let mut all = self.0.iter().filter(|r| r.metric == *metric).peekable();
            if all.peek().is_none() {
                continue;
            }
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge | Kind::Histogram => MetricType::Gauge,
            };
            // With the full stop that the registry gives to its own.
            let help = format!("{}.", metric.help);
            let mut family = encoder.encode_descriptor(metric.family(), &help, None, kind)?;
            for reading in all {
                let values = reading.labels.iter().cloned();
                let labels: Labels = metric.labels.iter().copied().zip(values).collect();
                if labels.is_empty() {
                    encode(&mut family, metric.kind, reading.value)?;
                } else {
                    let mut one = family.encode_family(&labels)?;
                    encode(&mut one, metric.kind, reading.value)?;
                }
            }
        }
        Ok(())
    }
}

fn encode(to: &mut MetricEncoder<'_>, kind: Kind, value: f64) -> Result<(), fmt::Error> {
    match kind {
        Kind::Counter => to.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        Kind::Gauge | Kind::Histogram => to.encode_gauge(&value),
    }
}

/// Who answers.
#[derive(Clone)]
struct Window {
    metrics: Metrics,
    probe: Arc<dyn Probe>,
}

/// How long looking may take: who asks gives up soon after.
const PATIENCE: Duration = Duration::from_secs(3);

/// The routes of the listener.
pub fn router(metrics: Metrics, probe: Arc<dyn Probe>) -> Router {
    Router::new()
        .route("/metrics", get(figures))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(no_such_page)
        .with_state(Window { metrics, probe })
}

async fn no_such_page() -> Response {
    let known = "there is no such page; try /metrics, /healthz or /readyz\n";
    (StatusCode::NOT_FOUND, known).into_response()
}

async fn healthz() -> &'static str {
    "alive\n"
}

async fn figures(State(window): State<Window>) -> Response {
    // What can't be looked up in time is absent; what was counted is not.
    let looked_up = tokio::time::timeout(PATIENCE, async {
        let mut readings = window.probe.readings().await;
        let is_ready = window.probe.reasons().await.is_empty();
        readings.push(Reading {
            metric: &table::READY,
            labels: Vec::new(),
            value: f64::from(u8::from(is_ready)),
        });
        readings
    });
    match window.metrics.text(looked_up.await.unwrap_or_default()) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(fmt::Error) => {
            error!("the figures could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    cluster: String,
    node: String,
    reasons: Vec<Reason>,
}

async fn readyz(State(window): State<Window>, uri: Uri, headers: HeaderMap) -> Response {
    let asked = tokio::time::timeout(PATIENCE, window.probe.reasons()).await;
    let reasons = asked.unwrap_or_else(|_| {
        vec![Reason {
            id: "slow",
            text: format!("looking took longer than {} s", PATIENCE.as_secs()),
        }]
    });
    let Whose { cluster, node } = window.probe.whose();
    let readiness = Readiness {
        ready: reasons.is_empty(),
        cluster,
        node,
        reasons,
    };
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    if wants_json(&uri, &headers) {
        let kind = [(header::CONTENT_TYPE, "application/json")];
        let text = serde_json::to_string(&readiness).unwrap_or_default();
        return (status, kind, text + "\n").into_response();
    }
    let mut text = if readiness.ready {
        "ready\n"
    } else {
        "not ready\n"
    }
    .to_owned();
    for Reason { id, text: why } in &readiness.reasons {
        text.push_str(&format!("{id}: {why}\n"));
    }
    (status, text).into_response()
}

fn wants_json(uri: &Uri, headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    accepted.is_some_and(|kinds| kinds.contains("application/json"))
        || uri
            .query()
            .is_some_and(|query| query.contains("format=json"))
}
