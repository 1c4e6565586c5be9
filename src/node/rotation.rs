//! Brings the rotations of this node's own identities on: makes certificates, shows them, tells peers, and ends what is
//! done.
//!
//! All that counts is in the store; each round looks at it anew and does what [`steps::next`] says. So it is all the same
//! whether the node was killed in between, or a command was given on another node.

mod alarms;
mod calendar;
mod making;
mod start;
mod telling;
mod waits;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use self::waits::{Telling, Tellings, Turned};
pub(super) use self::{
    alarms::RotationAlarms,
    start::{in_force, replaced_by},
};
use super::{Error, reload::Reloader};
use crate::{
    clock::Clock,
    domain::{
        ids::ClusterId,
        purpose::Purpose,
        rotation::{
            Fingerprint, Name, Phase, Rotation, Told, alarms as reasons,
            gates::{self, Named},
            steps::{self, Linked, Local, Lost, Step},
            still_old,
        },
    },
    fault::FaultPoints,
    peer::{LinkState, Peers},
    store::{
        self, Store, Transaction,
        rotations::{self, Row},
    },
    tasks::Tasks,
    telemetry::error_chain,
    trust::{
        InForce, TrustStore,
        certificate::fingerprint_text,
        folder::IdentityFolder,
        identity::Identity,
        in_use::Opened,
        install, make,
        rotation::{self, Doer},
    },
};

/// What a node needs to exchange its own certificates.
pub(super) struct Driver {
    pub(super) cluster: ClusterId,
    pub(super) node: String,
    pub(super) store: Store,
    pub(super) trust: TrustStore,
    pub(super) peers: Peers,
    pub(super) reloader: Arc<Reloader>,
    pub(super) clock: Clock,
    pub(super) faults: FaultPoints,
    pub(super) memory: Memory,
}

/// What a driver remembers between its rounds. Nothing rests on it: after a start it is found anew.
#[derive(Debug, Default)]
pub(super) struct Memory {
    turned: Mutex<Turned>,
    news: News,
    reported: Mutex<BTreeMap<Name, Instant>>,
}

/// What was told last of what can't go on, so that each thing is told once.
#[derive(Debug, Default)]
struct News(Mutex<BTreeMap<String, String>>);

impl News {
    fn is_news(&self, of: &str, text: &str) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(of.to_owned(), text.to_owned()).as_deref() != Some(text)
    }

    fn is_over(&self, of: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(of);
    }
}

/// A burst of changes is looked at once.
const SETTLE: Duration = Duration::from_millis(100);
/// How often it is looked when nothing changes.
const LOOK: Duration = Duration::from_secs(5);
/// How many steps one round takes; more are taken in the next.
const MOST_STEPS: usize = 12;
/// How often the schedule is looked at.
const SCHEDULE: Duration = Duration::from_secs(10);
/// How many connections are on record that rest on a certificate, one by one.
const MOST_LINKS: usize = 20;
/// How often it is put on record that there are other ones.
const REPORT_AGAIN: Duration = Duration::from_secs(5);

impl Driver {
    /// Goes on until the node ends.
    pub(super) async fn run(self, tasks: Tasks) {
        let rounds = self.rounds();
        tokio::select! {
            biased;
            () = tasks.cancelled() => {}
            () = rounds => {}
        }
    }

    async fn rounds(&self) {
        let mut changes = self.store.changes();
        let mut links = self.peers.changes();
        let mut uses = self.trust.in_use().changes();
        let mut telling = FuturesUnordered::new();
        let mut tellings = Tellings::default();
        let (mut schedule, mut schedule_at) = (None, Instant::now());
        let mut asked = BTreeMap::new();
        self.sweep_all().await;
        loop {
            changes.mark_unchanged();
            links.mark_unchanged();
            uses.mark_unchanged();
            let now_in_force = Some(self.schedule());
            if Instant::now() >= schedule_at || schedule != now_in_force {
                schedule_at = Instant::now() + SCHEDULE;
                schedule = now_in_force;
                if let Some(schedule) = &schedule {
                    self.keep_schedule(schedule, &mut asked).await;
                }
            }
            let wanted = self.round().await;
            tellings.keep(&wanted.iter().map(|(row, peer)| key_of(row, peer)).collect());
            for (row, cluster) in wanted {
                let mirror = self.mirror(&cluster).map(|list| list.certificates);
                if tellings.begin(key_of(&row, &cluster), &mirror, Instant::now().into_std()) {
                    telling.push(self.tell(row, cluster));
                }
            }
            let look_at = Instant::now() + LOOK;
            let look_at = tellings.next().map_or(look_at, |at| look_at.min(at.into()));
            tokio::select! {
                biased;
                Some((key, outcome)) = telling.next(), if !telling.is_empty() => {
                    let now = Instant::now().into_std();
                    tellings.answered(&key, outcome, now, rand::random());
                }
                Ok(()) = changes.changed() => {}
                Ok(()) = links.changed() => {}
                Ok(()) = uses.changed() => {}
                () = sleep_until(look_at) => {}
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// Does what can be done at once, and gives the peers that are to be told.
    async fn round(&self) -> Vec<(Row, ClusterId)> {
        let mut to_tell = Vec::new();
        let names = match self.unsteady().await {
            Ok(names) => names,
            Err(error) => {
                // The next change, or the next look, tries again.
                debug!(cause = error_chain(&error), "rotations can't be read");
                return to_tell;
            }
        };
        for name in names {
            for _ in 0..MOST_STEPS {
                match self.steps(&name).await {
                    Ok(Went { again: true, .. }) => {}
                    Ok(Went { tell, .. }) => {
                        self.memory.news.is_over(&name.to_string());
                        to_tell.extend(tell);
                        break;
                    }
                    Err(problem) => {
                        self.note_problem(&name, &error_chain(&problem)).await;
                        break;
                    }
                }
            }
        }
        to_tell
    }

    /// The identities of this node that are not steady, or not shown as such yet.
    async fn unsteady(&self) -> Result<BTreeSet<Name>, store::Error> {
        let read = |tx: &mut dyn Transaction| rotations::all(tx);
        let all = self.store.read(read).await?.into_iter().map(|row| row.name);
        let mut names: BTreeSet<Name> = all.filter(|name| name.node == self.node).collect();
        let shown = |purpose: &Purpose| self.reloader.in_force(*purpose) != InForce::default();
        names.extend(Purpose::ALL.into_iter().filter(shown).map(|purpose| Name {
            node: self.node.clone(),
            purpose,
        }));
        Ok(names)
    }

    async fn steps(&self, name: &Name) -> Result<Went, Problem> {
        let read = name.clone();
        let found = self.store.read(move |tx: &mut dyn Transaction| {
            let row = rotations::get(tx, &read)?;
            Ok::<_, store::Error>((row, rotations::told(tx, &read)?))
        });
        let (row, peers) = found.await?;
        let Some(row) = row else {
            self.alarms().set(name.purpose, BTreeMap::new());
            self.turned().forget(name.purpose);
            // It is steady: what is configured is shown.
            if self.reloader.in_force(name.purpose) != InForce::default() {
                self.show(name.purpose, InForce::default()).await?;
            }
            return Ok(Went::default());
        };
        let lasts = self.clock.now().since(row.since);
        let alarms = reasons::of(&row.rotation, &peers, row.problem.is_some(), lasts);
        self.alarms().set(name.purpose, alarms);
        let linked = self.linked(&row, &peers);
        self.turn(&row, &peers, &linked);
        let local = self.local(&row).await?;
        self.hold(&row, &local);
        let mut went = Went::default();
        for step in steps::next(&row.rotation, &peers, &linked, &local) {
            if let Step::Tell(cluster) = step {
                went.tell.push((row.clone(), cluster));
                continue;
            }
            went.again |= self.step(&row, step, &local).await?;
        }
        if row.problem.is_some() && !went.again {
            // All went well this time.
            self.change(&row, |row| row.problem = None).await?;
        }
        Ok(went)
    }

    /// Has peers that say that they do not know what they are shown be dialled with the other certificate of the rotation.
    fn turn(&self, row: &Row, peers: &[Told], linked: &[Linked]) {
        let purpose = row.name.purpose;
        let is_for_calls = match purpose {
            Purpose::FederationClient => true,
            Purpose::Federation => !self.has_client(),
            Purpose::Phone => false,
        };
        let mut turned = self.turned();
        // Once the old one has ended there is no other one to be dialled with.
        let old_ended = row.old_has_ended(self.clock.now());
        if row.rotation.phase != Phase::Active || !is_for_calls || old_ended {
            turned.forget(purpose);
            return;
        }
        let in_force = self.reloader.in_force(purpose);
        // A refusal of what is shown for want of something better says nothing of what is on record.
        let is_as_meant = in_force.active == row.rotation.shows()
            && in_force.old_for == still_old(&row.rotation, peers, &turned.of(purpose), old_ended);
        let links = linked.iter().zip(peers);
        for (link, told) in links {
            if is_as_meant && self.peers.is_unknown_to(&link.cluster) {
                let now = Instant::now().into_std();
                turned.refused(purpose, &link.cluster, now, rand::random());
            } else if link.seen_in && told.progress.is_called_with_new(&row.rotation) {
                // It calls us, and takes the new one that it refused before.
                turned.forgive(purpose, &link.cluster);
            }
        }
    }

    /// Has what is shown stay that, whatever the configured files come to hold while it is on record.
    fn hold(&self, row: &Row, local: &Local) {
        let purpose = row.name.purpose;
        let is_meant = row.rotation.shows().is_some() && row.rotation.shows() == local.shown;
        if is_meant && self.reloader.in_force(purpose) == InForce::default() {
            self.reloader.say(
                purpose,
                InForce {
                    active: local.shown,
                    old: row.rotation.old,
                    old_for: Vec::new(),
                },
            );
        }
    }

    fn turned(&self) -> MutexGuard<'_, Turned> {
        let turned = &self.memory.turned;
        turned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alarms(&self) -> &RotationAlarms {
        self.reloader.rotation_alarms()
    }

    /// Has that be shown. Reads files, and so does not do it on this thread.
    async fn show(&self, purpose: Purpose, in_force: InForce) -> Result<(), Problem> {
        let reloader = Arc::clone(&self.reloader);
        let shown = tokio::task::spawn_blocking(move || reloader.show(purpose, in_force));
        Ok(shown.await.map_err(|_| Problem::Broken)??)
    }

    /// Does one; whether what is on record is another now.
    async fn step(&self, row: &Row, step: Step, local: &Local) -> Result<bool, Problem> {
        let now = self.clock.now();
        debug!(identity = %row.name, ?step, "the next step of a rotation");
        match step {
            Step::Make => self.make(row).await.map(|()| true),
            Step::Lost(lost) => {
                let what = match lost {
                    Lost::Old => {
                        "the old certificate or its key is gone from this node: the new one is shown"
                    }
                    Lost::New => {
                        "the new certificate or its key is gone from this node: the old one is shown"
                    }
                    Lost::Both => {
                        "what a rotation has shown is gone from this node or has ended: what is configured is shown"
                    }
                };
                error!(identity = %row.name, "ALARM: {what}");
                self.lost(row.clone(), lost).await
            }
            Step::GiveUp(configured) => {
                let (of, doer) = (row.clone(), Doer::node(now));
                let given_up = self.store.write(move |tx: &mut dyn Transaction| {
                    rotation::give_up(tx, &of, configured, &doer)
                });
                let is_done = given_up.await?;
                if is_done {
                    tell_given_up(row, &configured);
                }
                Ok(is_done)
            }
            Step::Ended => {
                let (of, doer) = (row.name.clone(), Doer::node(now));
                let ended = self
                    .store
                    .write(move |tx: &mut dyn Transaction| rotation::ended(tx, &of, &doer));
                let is_done = ended.await?.is_some();
                if is_done {
                    error!(identity = %row.name, "ALARM: the certificate in use has ended: the next one is shown, whoever has it");
                }
                Ok(is_done)
            }
            Step::Show {
                certificate,
                old_for,
            } => {
                match row.rotation.phase {
                    Phase::Active => self.faults.pass("rotation.activated").await,
                    Phase::RollingBack => self.faults.pass("rotation.rolled-back").await,
                    _ => {}
                }
                let in_force = InForce {
                    active: Some(certificate),
                    old: row.rotation.old,
                    old_for,
                };
                self.show(row.name.purpose, in_force).await?;
                self.faults.pass("rotation.shown").await;
                info!(identity = %row.name, certificate = fingerprint_text(&certificate), "it is shown from now on");
                Ok(true)
            }
            Step::Report => {
                if !self.is_to_report(row, local) {
                    return Ok(false);
                }
                let (shown, in_use) = (local.shown, local.in_use.clone());
                let leaves = row.rotation.leaves().is_some();
                self.change(row, move |row| {
                    row.rotation.shown = shown;
                    row.rotation.in_use = leaves.then(|| in_use.clone());
                })
                .await
            }
            Step::Note(link) => {
                let (row, cluster) = (row.clone(), link.cluster.clone());
                let noted = self.store.write(move |tx: &mut dyn Transaction| {
                    rotation::progress(tx, &row, &cluster, |told| told.progress.note(&link))
                });
                Ok(noted.await?)
            }
            Step::Tell(_) => Ok(false),
            Step::Settle => self.settle(row).await,
            Step::Activate => {
                self.go_on(row, |tx, name, doer| {
                    rotation::activate(tx, name, &Named::default(), doer)
                })
                .await
            }
            Step::Retire => self.go_on(row, rotation::retire).await,
            Step::Finish => {
                let name = row.name.clone();
                let finished = self.store.write(move |tx: &mut dyn Transaction| {
                    let row = rotations::get(tx, &name)?;
                    let peers = rotations::told(tx, &name)?;
                    let is_done = row.is_some_and(|row| gates::is_finished(&row.rotation, &peers));
                    Ok::<_, store::Error>(is_done && rotations::remove(tx, &name)?)
                });
                if finished.await? {
                    info!(identity = %row.name, phase = %row.rotation.phase, at = %now, "the rotation is finished");
                }
                Ok(true)
            }
        }
    }

    async fn change(
        &self,
        row: &Row,
        mut change: impl FnMut(&mut Row) + Send + 'static,
    ) -> Result<bool, Problem> {
        let (row, now) = (row.clone(), self.clock.now());
        let done = self.store.write(move |tx: &mut dyn Transaction| {
            rotation::change(tx, &row, |row, _| change(row), false, now)
        });
        Ok(done.await?)
    }

    async fn lost(&self, row: Row, lost: Lost) -> Result<bool, Problem> {
        let now = self.clock.now();
        let done = self.store.write(move |tx: &mut dyn Transaction| {
            let mut goes_on = true;
            let change = |row: &mut Row, sequence| goes_on = row.rotation.lost(lost, sequence);
            rotation::change(tx, &row, change, true, now)?;
            if !goes_on {
                rotations::remove(tx, &row.name)?;
            }
            Ok::<_, rotation::Error>(())
        });
        done.await?;
        Ok(true)
    }

    /// A step of a rotation that goes on by itself. A gate that is shut is waited for.
    async fn go_on(
        &self,
        row: &Row,
        step: impl Fn(&mut dyn Transaction, &Name, &Doer) -> Result<Row, rotation::Error>
        + Send
        + 'static,
    ) -> Result<bool, Problem> {
        let (name, doer) = (row.name.clone(), Doer::node(self.clock.now()));
        let gone = self
            .store
            .write(move |tx: &mut dyn Transaction| step(tx, &name, &doer));
        match gone.await {
            Ok(row) => {
                info!(identity = %row.name, phase = %row.rotation.phase, "a rotation goes on by itself");
                Ok(true)
            }
            Err(rotation::Error::Shut { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Which connections rest on a certificate changes all the time where there are many; whether any does is what counts.
    fn is_to_report(&self, row: &Row, local: &Local) -> bool {
        let reported = &self.memory.reported;
        let mut reported = reported.lock().unwrap_or_else(PoisonError::into_inner);
        let before = row.rotation.in_use.as_ref();
        let is_the_same = row.rotation.shown == local.shown
            && before.is_some_and(|before| before.is_empty() == local.in_use.is_empty());
        let last = reported.get(&row.name);
        let is_early = last.is_some_and(|at| at.elapsed() < REPORT_AGAIN);
        if is_the_same && is_early {
            return false;
        }
        reported.insert(row.name.clone(), Instant::now());
        true
    }

    fn shown(&self, purpose: Purpose) -> Option<Identity> {
        let shown = self.reloader.shown().into_iter();
        shown
            .filter(|shown| shown.purpose == purpose)
            .find_map(|shown| shown.identity)
    }

    async fn local(&self, row: &Row) -> Result<Local, Problem> {
        let (folder, purpose) = (self.reloader.folder().clone(), row.name.purpose);
        let Rotation { old, new, .. } = row.rotation;
        let has = move |which: Option<Fingerprint>, folder: &IdentityFolder| {
            // What can't be read for another reason is not lost.
            which.is_some_and(|which| {
                !matches!(
                    folder.find(purpose, &which),
                    Err(crate::trust::Error::NoSuchIdentity { .. })
                )
            })
        };
        let (as_read, now) = (row.clone(), self.clock.now());
        let found = tokio::task::spawn_blocking(move || {
            // Of one that was gone back to before its next one was made, only the certificate itself says when it ends.
            let ends = as_read.old_ends.or_else(|| {
                let old = folder.find(purpose, &old?).ok()?;
                Some(old.leaf().not_after())
            });
            let old_ended = ends.is_some_and(|ends| ends < now);
            let replaced_by = replaced_by(&as_read, &folder, now);
            (has(old, &folder), has(new, &folder), old_ended, replaced_by)
        });
        let (has_old, has_new, old_ended, replaced_by) =
            found.await.map_err(|_| Problem::Broken)?;
        let in_use = match (row.rotation.leaves(), purpose.is_of_peers()) {
            (Some(leaves), true) => {
                let uses = self.trust.in_use().of_own(&leaves).into_iter();
                let of_purpose = uses.filter(|entry| match purpose {
                    Purpose::FederationClient => entry.opened == Opened::ByUs,
                    Purpose::Federation => !self.has_client() || entry.opened == Opened::ByPeer,
                    Purpose::Phone => false,
                });
                bounded(of_purpose.map(|entry| entry.to_string()).collect())
            }
            _ => Vec::new(),
        };
        Ok(Local {
            has_old,
            has_new,
            shown: self.shown(purpose).map(|shown| shown.leaf().fingerprint()),
            shown_old: self.reloader.in_force(purpose).old_for,
            in_use,
            old_ended,
            turned: self.turned().of(purpose),
            replaced_by,
        })
    }

    /// Whether those that we call are shown another identity than those that call us.
    fn has_client(&self) -> bool {
        self.reloader
            .folder()
            .files(Purpose::FederationClient)
            .is_some()
    }

    fn linked(&self, row: &Row, peers: &[Told]) -> Vec<Linked> {
        let new = row.rotation.new;
        let uses = new.map(|new| self.trust.in_use().of_own(&new));
        let uses = uses.unwrap_or_default();
        // In TLS 1.3 the caller is done before it is judged: only an answered Hello proves that it was let in. Who calls
        // us has judged by then.
        let seen_in = |cluster: &ClusterId| {
            uses.iter()
                .any(|entry| entry.cluster == *cluster && entry.opened == Opened::ByPeer)
        };
        let (links, new) = (self.peers.status(), new.map(|new| fingerprint_text(&new)));
        let seen_out = |cluster: &ClusterId| {
            let of_peer = links.iter().filter(|link| link.cluster == *cluster);
            of_peer
                .flat_map(|link| &link.nodes)
                .any(|node| node.state == LinkState::Up && new.is_some() && node.shown == new)
        };
        let given = row.name.purpose == Purpose::Federation && self.has_client();
        let linked = peers.iter().map(|told| Linked {
            cluster: told.cluster.clone(),
            can_be_told: self.peers.can_be_told(&told.cluster),
            seen_out: given || seen_out(&told.cluster),
            seen_in: seen_in(&told.cluster),
        });
        linked.collect()
    }

    /// Tells why a rotation can't go on, once.
    async fn note_problem(&self, name: &Name, problem: &str) {
        if self.memory.news.is_news(&name.to_string(), problem) {
            warn!(identity = %name, cause = problem, "a rotation can't go on; it is tried again");
        }
        let (of, text) = (name.clone(), problem.to_owned());
        let read = self
            .store
            .read(move |tx: &mut dyn Transaction| rotations::get(tx, &of));
        if let Ok(row) = read.await
            && row.is_none_or(|row| row.problem.as_ref() == Some(&text))
        {
            // It says so already; or what is configured can't be shown, of which there is no row.
            return;
        }
        let (of, text) = (name.clone(), problem.to_owned());
        let noted = self.store.write(move |tx: &mut dyn Transaction| {
            // Where there is none any more, what is configured can't be shown.
            if let Some(mut row) = rotations::get(tx, &of)? {
                row.problem = Some(text.clone());
                rotations::put(tx, &row)?;
            }
            Ok::<_, store::Error>(())
        });
        if noted.await.is_err() {
            // It is put on record by the next round that meets it.
            self.memory.news.is_over(&name.to_string());
        }
    }
}

/// Says that a rotation has ended otherwise than anybody wanted.
pub(super) fn tell_given_up(row: &Row, configured: &Fingerprint) {
    error!(
        identity = %row.name, phase = %row.rotation.phase, certificate = fingerprint_text(configured),
        "ALARM: a rotation is given up: nothing of it can be shown any more, and the certificate that is configured is; peers are not told of it"
    );
}

/// The first of them, and how many there are besides.
fn bounded(all: BTreeSet<String>) -> Vec<String> {
    let more = all.len().saturating_sub(MOST_LINKS);
    let mut told: Vec<_> = all.into_iter().take(MOST_LINKS).collect();
    if more > 0 {
        told.push(format!("{more} more"));
    }
    told
}

/// What came of looking at one identity.
#[derive(Default)]
struct Went {
    /// Something was done after which there may be more.
    again: bool,
    tell: Vec<(Row, ClusterId)>,
}

/// Why a rotation can't go on now.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("the store failed")]
    Store(#[from] store::Error),
    #[error(transparent)]
    Rotation(#[from] rotation::Error),
    #[error(transparent)]
    Node(#[from] Error),
    #[error(transparent)]
    Trust(#[from] crate::trust::Error),
    #[error("making the certificate failed")]
    Make(#[from] make::Error),
    #[error(transparent)]
    Files(#[from] install::Error),
    #[error("no identity is shown that could be exchanged; emccd cert show tells why")]
    NothingShown,
    #[error("the certificate in the files is the one that is shown already")]
    Same,
    #[error(
        "keys of its kind are not made here: emccd cert rotate announce takes another kind with --key, or files with --from"
    )]
    Kind,
    #[error(
        "the files hold another certificate than is shown, and that one lies nowhere: emccd cert reload takes up what they hold, emccd cert rotate rollback gives this up"
    )]
    InMemoryAlone,
    #[error("its kind of key can't sign the announcement")]
    Unsigned,
    #[error("a step broke down; its cause is in the log")]
    Broken,
}

fn key_of(row: &Row, cluster: &ClusterId) -> Telling {
    (row.name.clone(), cluster.clone(), row.rotation.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_connections_the_first_are_told_and_the_others_counted() {
        let of = |count: usize| (0..count).map(|n| format!("link {n:04}")).collect();
        assert_eq!(bounded(of(MOST_LINKS)).len(), MOST_LINKS);
        let told = bounded(of(5_000));
        assert_eq!(told.len(), MOST_LINKS + 1);
        assert_eq!(told.last().map(String::as_str), Some("4980 more"));
    }

    #[test]
    fn each_problem_is_news_once_until_it_is_over() {
        let news = News::default();
        assert!(news.is_news("a", "no space"));
        assert!(!news.is_news("a", "no space"));
        assert!(news.is_news("b", "no space") && news.is_news("a", "no key"));
        news.is_over("a");
        assert!(news.is_news("a", "no key"));
    }
}
