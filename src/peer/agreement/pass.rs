//! One pass: reads what lives here, asks what lives there, and of what lives only here how it stands there; then it ends
//! what [`judge`] says. Ids are looked at page by page; in memory are those that live on one side only.

use std::{collections::VecDeque, time::Duration};

use tracing::error;

use super::{
    Agreement, Failed, Passed,
    sync::{self, Dialogue},
};
use crate::{
    clock::Timestamp,
    domain::{
        agreement::{Buckets, Digests, IDS_AT_ONCE, OLD_ENOUGH, Ours, Pass, Verdict, guard, judge},
        ids::{ClusterId, SessionId},
        session::{EndReason, Initiator, Role, State},
    },
    fault::{self, Bug},
    store::{
        self, Transaction,
        agreements::{self, Agreement as Record},
        audit,
        claims::{self, Claim},
        sessions::Session,
        shared,
    },
};

/// Ends of one transaction: the writer is held for milliseconds.
const ENDS_AT_ONCE: usize = 128;
/// How often it is put on record that nothing has changed.
const RECORD: Duration = Duration::from_secs(30);

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

    pub(super) async fn now(&self) -> Result<Timestamp, store::Error> {
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
        // An end there that was on its way here is no doubt: at any moment of a busy day there are some.
        let agrees = young == 0 && endings.iter().all(|ending| ending.told.is_some());
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
                let mut entries = Vec::with_capacity(batch.len());
                for (ours, told) in &batch {
                    let reason = told.unwrap_or(EndReason::Abandoned);
                    let initiator = initiator(ours.role, told.is_some());
                    let before = shared::end_as_told(tx, ours, &cluster, reason, initiator, now)?;
                    if let Some(before) = before {
                        entries.push(entry(&before, reason, told.is_some(), now));
                        ended.push((*ours, told.is_some()));
                    }
                }
                audit::append_all(tx, &entries)?;
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
