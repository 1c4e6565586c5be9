//! Watches when certificates end: ours, what we accept from peers, and what they show.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;
use tracing::{error, warn};

use super::reload::Reloader;
use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    edge::admin::views,
    tasks::Tasks,
    trust::{
        TrustStore,
        bundle::Bundle,
        certificate::{Fingerprint, fingerprint_of},
        crl::{self, Crl},
        expiry::{self, Alarm, Told, Watched},
        forecast,
    },
    watch,
    wire::admin as pb,
};

/// A clock may be set, and then the next threshold is nearer than it was: it is looked at again by then. A look costs
/// next to nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// All certificates that matter to a node. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Certificates {
    cluster: ClusterId,
    trust: TrustStore,
    reloader: Arc<Reloader>,
}

impl Certificates {
    pub(super) fn new(cluster: ClusterId, trust: TrustStore, reloader: Arc<Reloader>) -> Self {
        Self {
            cluster,
            trust,
            reloader,
        }
    }

    fn own(&self) -> Vec<Watched> {
        let mut all: Vec<Watched> = Vec::new();
        for shown in self.reloader.shown() {
            let chain = shown.identity.iter().flat_map(|i| i.chain()).cloned();
            let chain: Vec<_> = chain.collect();
            let more = expiry::own(&self.cluster, shown.purpose.as_str(), &chain);
            // Identities of one authority send the same issuers along.
            all.extend(
                more.into_iter()
                    .filter(|watched| !all.contains(watched))
                    .collect::<Vec<_>>(),
            );
        }
        all
    }

    /// All of them.
    pub(super) fn watched(&self) -> Vec<Watched> {
        let (mut all, snapshot) = (self.own(), self.trust.snapshot());
        let (shown, now) = (self.trust.shown_of_late(), self.trust.clock().now());
        all.extend(expiry::peers(snapshot.bundles(), &shown, now));
        all
    }

    /// For each owner and kind the moment at which the first of its certificates ends.
    pub(super) fn first_ends(&self) -> BTreeMap<(ClusterId, &'static str), Timestamp> {
        let mut ends = BTreeMap::new();
        for watched in self.watched() {
            let end = watched.certificate.not_after();
            let first = ends
                .entry((watched.owner, watched.part.as_str()))
                .or_insert(end);
            *first = (*first).min(end);
        }
        ends
    }

    /// For each peer the moment at which the first of its authorities' revocation lists is stale.
    pub(super) fn first_stale(&self) -> Vec<(ClusterId, Timestamp)> {
        let snapshot = self.trust.snapshot();
        let first = |bundle: &Bundle| {
            let due = bundle.crls.iter().map(Crl::next_update).min();
            due.map(|due| (bundle.cluster.clone(), due))
        };
        snapshot.bundles().iter().filter_map(first).collect()
    }

    /// What is accepted at `at`, and what breaks until then, with one peer or with all.
    pub(super) fn forecast(
        &self,
        cluster: Option<&ClusterId>,
        at: Timestamp,
    ) -> pb::ForecastTrustResponse {
        let snapshot = self.trust.snapshot();
        let is_wanted = |id: &ClusterId| cluster.is_none_or(|wanted| wanted == id);
        let bundles: Vec<_> = snapshot
            .bundles()
            .iter()
            .filter(|bundle| is_wanted(&bundle.cluster))
            .cloned()
            .collect();
        let shown = self.trust.shown_of_late();
        let mut watched = self.own();
        let told = forecast::forecast(&bundles, &shown, &watched, at);
        let now = self.trust.clock().now();
        watched.extend(expiry::peers(&bundles, &shown, now));
        pb::ForecastTrustResponse {
            as_of: at.to_string(),
            entries: told.entries.iter().map(views::forecast_entry).collect(),
            breaks: told.breaks.iter().map(views::forecast_break).collect(),
            crls: bundles
                .iter()
                .flat_map(|bundle| {
                    bundle
                        .crls
                        .iter()
                        .map(|crl| views::crl(&bundle.cluster, crl, at))
                })
                .collect(),
            alarms: expiry::alarms(&watched, at)
                .iter()
                .map(views::certificate_alarm)
                .collect(),
        }
    }
}

/// Tells of each certificate that comes to a threshold, until the node shuts down.
pub(super) async fn watch(certificates: Certificates, tasks: Tasks) {
    let watching = watch_on(&certificates);
    tasks.token().run_until_cancelled(watching).await;
}

async fn watch_on(certificates: &Certificates) {
    let mut trust = certificates.trust.subscribe();
    let mut shown = certificates.trust.newly_shown();
    let mut phone = certificates.reloader.phone_reloads();
    let mut told = Told::default();
    let mut stale = BTreeSet::new();
    loop {
        trust.mark_unchanged();
        shown.mark_unchanged();
        phone.mark_unchanged();
        let now = certificates.trust.clock().now();
        let (due, next) = told.look(&certificates.watched(), now);
        for alarm in due {
            tell(&alarm);
        }
        let next = [next, tell_stale(certificates, &mut stale, now)];
        let next = next.into_iter().flatten().min();
        let wait = next.map_or(LOOK_AGAIN, |next| next.since(now).min(LOOK_AGAIN));
        tokio::select! {
            biased;
            () = changed(&mut trust) => {}
            () = changed(&mut shown) => {}
            () = changed(&mut phone) => {}
            () = sleep(wait) => {}
        }
    }
}

/// Tells once of each list that is stale; when the next one will be.
fn tell_stale(
    certificates: &Certificates,
    told: &mut BTreeSet<(ClusterId, Fingerprint)>,
    now: Timestamp,
) -> Option<Timestamp> {
    let snapshot = certificates.trust.snapshot();
    let mut stale = BTreeSet::new();
    let mut next = None;
    for bundle in snapshot.bundles() {
        for crl in &bundle.crls {
            if !crl.is_stale(now) {
                let due = crl.next_update().plus(Duration::from_millis(1));
                next = next.map_or(Some(due), |next: Timestamp| Some(next.min(due)));
                continue;
            }
            let key = (bundle.cluster.clone(), fingerprint_of(crl.der()));
            if !told.contains(&key) {
                error!(
                    peer = %bundle.cluster,
                    issuer = crl.issuer().subject(),
                    number = crl.number(),
                    next_update = %crl.next_update(),
                    strict = crl.is_strict(),
                    next = crl::mend_stale(&bundle.cluster),
                    "{}", crl.stale_alarm()
                );
            }
            stale.insert(key);
        }
    }
    *told = stale;
    next
}

/// The sender lives as long as the node.
async fn changed<T>(changes: &mut watch::Receiver<T>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn tell(alarm: &Alarm) {
    let watched = &alarm.watched;
    let certificate = &watched.certificate;
    macro_rules! at_level {
        ($level:ident) => {
            $level!(
                owner = %watched.owner,
                purpose = watched.part.as_str(),
                subject = certificate.subject(),
                fingerprint = certificate.fingerprint_text(),
                not_after = %certificate.not_after(),
                threshold = alarm.stage.word(),
                next = alarm.next(),
                "{}", alarm.text()
            )
        };
    }
    if alarm.is_pressing() {
        at_level!(error);
    } else {
        at_level!(warn);
    }
}
