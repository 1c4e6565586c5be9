//! Coming to agree with each peer on the sessions that we share: a pull, which mends our own rows and no others.
//!
//! Each enabled peer has a task of its own, and one node at a time works for a peer: it holds the claim on that (see
//! [`claims`]), and each end is written down under it. A pass is due when a link comes up, when the peer says that it
//! has ends for us which it could not deliver, and at least every two heartbeats. Where nothing of ours lives there is
//! nothing to mend, and nobody is asked.
//!
//! A pass reads what lives here, asks what lives there, and of what lives only here how it stands there; then it ends
//! what [`judge`] says. Ids are looked at page by page; in memory are those that live on one side only.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    Peers,
    shared::now,
    sync::{self, Dialogue},
};
use crate::{
    chance::Chance,
    clock::{Clock, Timestamp},
    domain::{
        agreement::{Buckets, Digests, IDS_AT_ONCE, OLD_ENOUGH, Ours, Pass, Verdict, guard, judge},
        federation::Links as _,
        ids::{ClusterId, SessionId},
        session::{EndReason, Initiator, Role, State},
    },
    fault::{self, Bug},
    store::{
        self, Store, Transaction,
        agreements::{self, Agreement as Record},
        audit,
        claims::{self, Claim, Task},
        membership::Membership,
        sessions::Session,
        shared,
    },
    tasks::Tasks,
    watch,
};

/// What the tasks are made of.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// Where our rows are.
    pub store: Store,
    /// Who is asked.
    pub peers: Peers,
    /// Our place among the nodes that could do this.
    pub membership: Membership,
    /// For the audit.
    pub clock: Clock,
    /// So that not all nodes look at the same moment.
    pub chance: Chance,
    /// Ends the tasks.
    pub tasks: Tasks,
}

/// How long one pass may take; what it has not come to is left to the next one.
const DEADLINE: Duration = Duration::from_secs(20);
/// The least time from one pass to the next, however often the peer rings.
const SPACING: Duration = Duration::from_secs(1);
/// The least of two heartbeats.
const LEAST: Duration = Duration::from_secs(2);
/// Ends of one transaction: the writer is held for milliseconds.
const ENDS_AT_ONCE: usize = 128;
/// How often it is put on record that nothing has changed.
const RECORD: Duration = Duration::from_secs(30);

/// What one peer's task listens to.
struct Serving {
    bell: Arc<Notify>,
    stop: CancellationToken,
    mark: Mark,
}

/// What has happened with a peer; another one is a reason for a pass.
type Mark = (u64, u64, bool);

/// What a pass came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// Rows that were ended.
    pub(super) ended: u64,
    /// Rows that the other side lacks and that are too young to end.
    pub(super) young: u64,
    /// A mass end was held back until then.
    pub(super) held: Option<Timestamp>,
}

/// Why a pass did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Exchange(#[from] sync::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What a pass begins with, of one state of the store.
pub(super) struct Start {
    pub(super) began: Timestamp,
    pub(super) digests: Digests,
    pub(super) before: Record,
}

/// A row of ours that is to end.
struct Ending {
    ours: Ours,
    /// The reason on the other side; none where it lacks the session.
    told: Option<EndReason>,
}

impl Agreement {
    /// Works until the node shuts down.
    pub async fn run(self) {
        let mut serving: BTreeMap<ClusterId, Serving> = BTreeMap::new();
        let mut changes = self.peers.changes();
        let mut claims = self.membership.claims();
        loop {
            changes.mark_unchanged();
            claims.mark_unchanged();
            self.serve_all(&mut serving);
            tokio::select! {
                biased;
                () = self.tasks.cancelled() => return,
                () = changed(&mut changes) => {}
                () = changed(&mut claims) => {}
            }
        }
    }

    /// Begins the tasks of peers that came, ends those of peers that went, and rings where there is a reason.
    fn serve_all(&self, serving: &mut BTreeMap<ClusterId, Serving>) {
        let marks = self.peers.marks();
        serving.retain(|cluster, serving| {
            let stays = marks.contains_key(cluster);
            if !stays {
                serving.stop.cancel();
            }
            stays
        });
        for (cluster, (up, rung)) in marks {
            let is_ours = self.membership.claim(&Task::agreement(&cluster)).is_some();
            let mark = (up, rung, is_ours);
            let one = serving.entry(cluster.clone()).or_insert_with(|| {
                let (bell, stop) = (Arc::new(Notify::new()), self.tasks.token().child_token());
                let task = self.clone().serve(cluster, Arc::clone(&bell), stop.clone());
                self.tasks.spawn("agreement with a cluster", task);
                Serving {
                    bell,
                    stop,
                    mark: Mark::default(),
                }
            });
            if one.mark != mark {
                one.mark = mark;
                one.bell.notify_one();
            }
        }
    }

    /// Works for one peer until it goes, or the node shuts down.
    async fn serve(self, cluster: ClusterId, bell: Arc<Notify>, stop: CancellationToken) {
        let mut complaint = None;
        let mut soonest = Instant::now();
        let mut latest = soonest + self.period();
        loop {
            let due = async {
                tokio::select! {
                    biased;
                    () = bell.notified() => sleep_until(soonest).await,
                    () = sleep_until(latest) => {}
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = due => {}
            }
            let pause = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                pause = self.round(&cluster, &mut complaint) => pause,
            };
            soonest = Instant::now() + SPACING;
            latest = Instant::now() + pause.max(SPACING);
        }
        self.membership.let_go(&Task::agreement(&cluster));
    }

    /// Less than two heartbeats, and not the same on all nodes.
    fn period(&self) -> Duration {
        let most = (self.peers.config().heartbeat * 2).max(LEAST);
        most.mul_f64(0.1f64.mul_add(-self.chance.unit(), 0.95))
    }

    /// One pass, if it is ours to do; when the next one is due.
    async fn round(&self, cluster: &ClusterId, complaint: &mut Option<String>) -> Duration {
        let period = self.period();
        let task = Task::agreement(cluster);
        // Where we can't ask it is left to others. A connection that is being replaced is no such case.
        if !self.peers.is_up(cluster) || self.peers.can_sync(cluster) == Some(false) {
            self.membership.let_go(&task);
            return period;
        }
        match self.is_any(cluster).await {
            Ok(true) => self.membership.want(&task),
            Ok(false) => return period,
            Err(error) => {
                complain(cluster, complaint, &error.into());
                return period;
            }
        }
        let Some(claim) = self.membership.claim(&task) else {
            // Whoever waits is rung when it comes.
            return period;
        };
        let began = Instant::now();
        match self.ask(cluster, &claim).await {
            Ok(passed) => {
                *complaint = None;
                tell(cluster, passed, Instant::now().duration_since(began));
                match (passed.held, self.now().await) {
                    (Some(until), Ok(now)) => period.min(until.since(now)),
                    _ => period,
                }
            }
            // Whoever has taken over does what is left.
            Err(Failed::Store(store::Error::ClaimLost { .. })) => period,
            Err(failed) => {
                complain(cluster, complaint, &failed);
                SPACING
            }
        }
    }

    /// Whether there is anything to compare: something of ours lives, or is on record as held back.
    async fn is_any(&self, cluster: &ClusterId) -> Result<bool, store::Error> {
        let cluster = cluster.clone();
        self.store
            .read(move |tx: &mut dyn Transaction| {
                let is_held = agreements::get(tx, &cluster)?.held_since.is_some();
                Ok(is_held || shared::is_any(tx, &cluster)?)
            })
            .await
    }

    async fn ask(&self, cluster: &ClusterId, claim: &Claim) -> Result<Passed, Failed> {
        let start = self.start(cluster).await?;
        let deadline = now() + DEADLINE;
        let begun = self.peers.exchange(cluster, &start.digests, deadline).await;
        let (exchange, theirs) = begun?;
        self.pass(cluster, claim, start, &theirs, exchange).await
    }

    /// What lives here, and how far we were.
    pub(super) async fn start(&self, cluster: &ClusterId) -> Result<Start, store::Error> {
        let cluster = cluster.clone();
        self.store
            .read(move |tx: &mut dyn Transaction| {
                Ok(Start {
                    // Before the other side reads its rows: what is younger than this is young.
                    began: tx.cluster_now()?,
                    digests: shared::digests(tx, &cluster)?,
                    before: agreements::get(tx, &cluster)?,
                })
            })
            .await
    }

    async fn now(&self) -> Result<Timestamp, store::Error> {
        self.store
            .read(|tx: &mut dyn Transaction| tx.cluster_now())
            .await
    }

    /// Compares, asks, judges and ends.
    pub(super) async fn pass(
        &self,
        cluster: &ClusterId,
        claim: &Claim,
        start: Start,
        theirs: &Digests,
        mut dialogue: impl Dialogue,
    ) -> Result<Passed, Failed> {
        let mut missing = Vec::new();
        for role in [Role::Home, Role::Visiting] {
            let buckets = start.digests.of(role).differing(theirs.of(role));
            self.missing(cluster, role, &buckets, &mut dialogue, &mut missing)
                .await?;
        }
        let (endings, young) = judged(&missing, start.began, &mut dialogue).await?;
        drop(missing);
        let ends = u64::try_from(endings.len()).unwrap_or(u64::MAX);
        let at = self.now().await?;
        let shared = start.digests.total();
        let held_before = start.before.held_since;
        if let Pass::Hold { until } = guard(ends, shared, held_before, at) {
            self.hold(cluster, claim, &start.before, (ends, shared), until)
                .await?;
            dialogue.finish().await?;
            let held = Some(until);
            return Ok(Passed {
                held,
                young,
                ..Passed::default()
            });
        }
        let ended = self
            .end_all(cluster, claim, &endings, &mut dialogue)
            .await?;
        dialogue.finish().await?;
        let agrees = endings.is_empty() && young == 0;
        self.record(cluster, claim, start.before, agrees).await?;
        Ok(Passed {
            ended,
            young,
            held: None,
        })
    }

    /// Adds our rows of these buckets that the other side does not name. A login under way is nothing to mend.
    async fn missing(
        &self,
        cluster: &ClusterId,
        role: Role,
        buckets: &Buckets,
        dialogue: &mut impl Dialogue,
        missing: &mut Vec<Ours>,
    ) -> Result<(), Failed> {
        let mut theirs = Theirs::default();
        let mut after = None;
        while !buckets.is_empty() {
            let of = cluster.clone();
            let page = self
                .store
                .read(move |tx: &mut dyn Transaction| {
                    shared::living_page(tx, role, &of, after, shared::PAGE)
                })
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for ours in page.into_iter().filter(|ours| buckets.has(ours.id)) {
                let lives_there = theirs.has(ours.id, role, dialogue).await?;
                if !lives_there && ours.state != State::Pending {
                    missing.push(ours);
                }
            }
        }
        theirs.skip(role, dialogue).await?;
        Ok(())
    }

    /// Ends them, batch by batch, and says so to the other side of those that it told the end of; how many.
    async fn end_all(
        &self,
        cluster: &ClusterId,
        claim: &Claim,
        endings: &[Ending],
        dialogue: &mut impl Dialogue,
    ) -> Result<u64, Failed> {
        let mut total = 0;
        for batch in endings.chunks(ENDS_AT_ONCE) {
            let ended = self.end(cluster, claim, batch).await?;
            total += u64::try_from(ended.len()).unwrap_or(u64::MAX);
            for role in [Role::Home, Role::Visiting] {
                let told = ended
                    .iter()
                    .filter(|(ours, is_told)| *is_told && ours.role == role);
                let ids: Vec<_> = told.map(|(ours, _)| ours.id).collect();
                if !ids.is_empty() {
                    dialogue.settled(role, ids).await?;
                }
            }
        }
        Ok(total)
    }

    /// Ends one batch, as far as it still lives; what was ended, and whether the other side told of it.
    async fn end(
        &self,
        cluster: &ClusterId,
        claim: &Claim,
        batch: &[Ending],
    ) -> Result<Vec<(Ours, bool)>, store::Error> {
        let (cluster, claim, now) = (cluster.clone(), claim.clone(), self.clock.now());
        let batch: Vec<_> = batch.iter().map(|e| (e.ours, e.told)).collect();
        self.store
            .write(move |tx: &mut dyn Transaction| {
                let mut ended = Vec::with_capacity(batch.len());
                for (ours, told) in &batch {
                    let reason = told.unwrap_or(EndReason::Abandoned);
                    let initiator = initiator(ours.role, told.is_some());
                    let before = shared::end_as_told(tx, ours, &cluster, reason, initiator, now)?;
                    if let Some(before) = before {
                        audit::append(tx, &entry(&before, reason, told.is_some(), now))?;
                        ended.push((*ours, told.is_some()));
                    }
                }
                if !ended.is_empty() {
                    let what = format!("ended {} sessions to agree", ended.len());
                    claims::effect(tx, &claim, &what, now)?;
                }
                Ok(ended)
            })
            .await
    }

    /// Puts on record that a mass end is held back. Whoever takes over goes by it.
    async fn hold(
        &self,
        cluster: &ClusterId,
        claim: &Claim,
        before: &Record,
        (ends, shared): (u64, u64),
        until: Timestamp,
    ) -> Result<(), store::Error> {
        let since = until.minus(crate::domain::agreement::HOLD);
        if before.held_since != Some(since) {
            error!(
                alarm = "sessions_mass_end", peer.cluster_id = %cluster, ends, shared,
                "to agree with cluster {cluster}, {ends} of {shared} shared sessions would end at once: this is held \
                 back for 30 s; if {cluster} has lost its database, or was restored from a backup, nothing need be done"
            );
        }
        let record = Record {
            held_since: Some(since),
            held_ends: u32::try_from(ends).unwrap_or(u32::MAX),
            ..before.clone()
        };
        let (cluster, claim) = (cluster.clone(), claim.clone());
        let (now, news) = (self.clock.now(), before.held_since != Some(since));
        self.store
            .write(move |tx: &mut dyn Transaction| {
                agreements::put(tx, &cluster, &record)?;
                if news {
                    let what = format!("held back the end of {ends} of {shared} sessions");
                    return claims::effect(tx, &claim, &what, now);
                }
                claims::check(tx, &claim)
            })
            .await
    }

    /// Puts on record that a pass came to its end; not each time where nothing changes.
    async fn record(
        &self,
        cluster: &ClusterId,
        claim: &Claim,
        before: Record,
        agrees: bool,
    ) -> Result<(), store::Error> {
        let at = self.now().await?;
        let agreed_at = if agrees { Some(at) } else { before.agreed_at };
        let record = Record {
            passed_at: Some(at),
            agreed_at,
            held_since: None,
            held_ends: 0,
        };
        let agreed_before = before.agreed_at.is_some() && before.agreed_at == before.passed_at;
        let is_recent = before
            .passed_at
            .is_some_and(|passed| at.since(passed) < RECORD);
        if before.held_since.is_none() && agreed_before == agrees && is_recent {
            return Ok(());
        }
        let (cluster, claim) = (cluster.clone(), claim.clone());
        self.store
            .write(move |tx: &mut dyn Transaction| {
                claims::check(tx, &claim)?;
                agreements::put(tx, &cluster, &record)
            })
            .await
    }
}

/// What lives on the other side of one role, as far as it was told and not looked at.
#[derive(Default)]
struct Theirs {
    page: VecDeque<SessionId>,
    is_over: bool,
}

impl Theirs {
    /// Whether the other side named this one. Ids are asked for in ascending order.
    async fn has(
        &mut self,
        id: SessionId,
        role: Role,
        dialogue: &mut impl Dialogue,
    ) -> Result<bool, sync::Error> {
        loop {
            match self.page.front() {
                Some(first) if *first < id => {
                    self.page.pop_front();
                }
                Some(first) => return Ok(*first == id),
                None if self.is_over => return Ok(false),
                None => self.turn(role, dialogue).await?,
            }
        }
    }

    /// Takes the rest.
    async fn skip(&mut self, role: Role, dialogue: &mut impl Dialogue) -> Result<(), sync::Error> {
        while !self.is_over {
            self.turn(role, dialogue).await?;
        }
        Ok(())
    }

    async fn turn(&mut self, role: Role, dialogue: &mut impl Dialogue) -> Result<(), sync::Error> {
        match dialogue.living(role).await? {
            Some(ids) => self.page = ids.into(),
            None => self.is_over = true,
        }
        Ok(())
    }
}

/// Asks how they stand; what is to end, and how many are too young for that.
async fn judged(
    missing: &[Ours],
    began: Timestamp,
    dialogue: &mut impl Dialogue,
) -> Result<(Vec<Ending>, u64), sync::Error> {
    let (mut endings, mut young) = (Vec::new(), 0);
    let began = if fault::has(Bug::RowEndedTooYoung) {
        began.plus(OLD_ENOUGH)
    } else {
        began
    };
    for of_role in missing.chunk_by(|one, next| one.role == next.role) {
        for batch in of_role.chunks(IDS_AT_ONCE) {
            let Some(first) = batch.first() else { continue };
            let ids = batch.iter().map(|ours| ours.id).collect();
            let answers = dialogue.ask(first.role, ids).await?;
            for (ours, theirs) in batch.iter().zip(answers) {
                let told = match judge(ours, theirs, began) {
                    Verdict::End(_) if fault::has(Bug::ActiveBeatsEnded) => continue,
                    Verdict::End(reason) => Some(reason),
                    Verdict::EndAsLost => None,
                    Verdict::TooYoung => {
                        young += 1;
                        continue;
                    }
                    Verdict::Leave => continue,
                };
                endings.push(Ending { ours: *ours, told });
            }
        }
    }
    Ok((endings, young))
}

/// Who is on record as having begun the end: the other side, where it told of one.
const fn initiator(ours: Role, is_told: bool) -> Initiator {
    match (ours, is_told) {
        (Role::Home, false) | (Role::Visiting, true) => Initiator::Home,
        (Role::Visiting, false) | (Role::Home, true) => Initiator::Visiting,
    }
}

fn entry(session: &Session, reason: EndReason, is_told: bool, now: Timestamp) -> audit::Entry {
    let peer = &session.counterpart;
    let why = if is_told {
        format!("as {peer} has it on record")
    } else {
        format!("{peer} has no record of it")
    };
    audit::Entry {
        at: now,
        actor: format!("cluster {peer}"),
        action: audit::Action::SessionLogout,
        subject: match session.role {
            Role::Home => format!("{} on {}", session.login_name, session.device),
            Role::Visiting => format!("{} of {peer} on {}", session.login_name, session.device),
        },
        outcome: format!("{reason}: {why}"),
        reference: Some(session.reference),
    }
}

fn tell(cluster: &ClusterId, passed: Passed, took: Duration) {
    let Passed { ended, young, held } = passed;
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if ended > 0 {
        info!(
            peer.cluster_id = %cluster, ended, took_ms,
            "ended {ended} sessions that did not live at cluster {cluster} any more"
        );
    } else {
        debug!(
            peer.cluster_id = %cluster, young, held = held.is_some(), took_ms,
            "compared sessions with cluster {cluster}"
        );
    }
}

/// Once per cause, not per attempt.
fn complain(cluster: &ClusterId, complaint: &mut Option<String>, failed: &Failed) {
    let cause = crate::telemetry::error_chain(failed);
    if complaint.as_ref() != Some(&cause) {
        warn!(
            peer.cluster_id = %cluster, cause,
            "sessions could not be compared with cluster {cluster}; it is tried again"
        );
        *complaint = Some(cause);
    }
}

/// Waits for a change; for ever when there can be none any more.
async fn changed<T>(changes: &mut watch::Receiver<T>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
