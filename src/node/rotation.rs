//! Brings the rotations of this node's own identities on: makes certificates, shows them, tells peers, and ends what is
//! done.
//!
//! All that counts is in the store; each round looks at it anew and does what [`steps::next`] says. So it is all the same
//! whether the node was killed in between, or a command was given on another node.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use super::{Error, reload::Reloader};
use crate::{
    clock::{Clock, Timestamp},
    domain::{
        ids::ClusterId,
        purpose::Purpose,
        rotation::{
            Fingerprint, Name, Outcome, Rotation, Told,
            gates::{self, Named},
            schedule::{self, Due, Schedule, Shown},
            steps::{self, Linked, Local, Lost, Step},
            still_old,
        },
    },
    peer::{
        LinkState, Peers,
        announce::{Answered, Taken, Untold},
    },
    secret::Secret,
    store::{
        self, Store, Transaction,
        rotations::{self, Recipe, Row},
    },
    tasks::Tasks,
    telemetry::error_chain,
    trust::{
        InForce, TrustStore,
        certificate::{Name as CertificateName, fingerprint_text},
        folder::IdentityFolder,
        identity::Identity,
        in_use::Opened,
        install::{self, Files},
        make::{self, CertRequest, KeyKind},
        rotation::{self, Claim, Doer},
    },
    wire::pb,
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
}

/// A burst of changes is looked at once.
const SETTLE: Duration = Duration::from_millis(100);
/// How often it is looked when nothing changes.
const LOOK: Duration = Duration::from_secs(5);
/// When a peer is told again that could not be, or has not agreed.
const TELL_AGAIN: Duration = Duration::from_secs(3);
/// How many steps one round takes; more are taken in the next.
const MOST_STEPS: usize = 12;
/// How often the schedule is looked at.
const SCHEDULE: Duration = Duration::from_secs(30);
/// When people are asked again to go to an authority.
const ASK_AGAIN: Duration = Duration::from_secs(86_400);
/// A peer that says it has heard of later numbers than this far ahead of our clock is not believed.
const MOST_AHEAD: Duration = Duration::from_secs(86_400);
/// How long a certificate is valid whose predecessor does not say.
const DAYS: u32 = 825;

/// A peer that is being told, and under which number.
type Telling = (Name, ClusterId, u64);

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
        let mut told: BTreeMap<Telling, Instant> = BTreeMap::new();
        let mut schedule_at = Instant::now();
        let mut asked = BTreeMap::new();
        loop {
            changes.mark_unchanged();
            links.mark_unchanged();
            uses.mark_unchanged();
            if Instant::now() >= schedule_at {
                schedule_at = Instant::now() + SCHEDULE;
                self.keep_schedule(&mut asked).await;
            }
            let wanted = self.round().await;
            told.retain(|key, _| {
                wanted
                    .iter()
                    .any(|(row, cluster)| *key == key_of(row, cluster))
            });
            for (row, cluster) in wanted {
                let key = key_of(&row, &cluster);
                if told.get(&key).is_none_or(|at| *at <= Instant::now()) {
                    // Until it has answered it is not told again.
                    told.insert(key, Instant::now() + LOOK * 10);
                    telling.push(self.tell(row, cluster));
                }
            }
            let soonest = told.values().min().copied();
            let look_at = Instant::now() + LOOK;
            let look_at = soonest.map_or(look_at, |at| at.min(look_at));
            tokio::select! {
                Some(key) = telling.next(), if !telling.is_empty() => {
                    told.insert(key, Instant::now() + TELL_AGAIN);
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
            // It is steady: what is configured is shown.
            if self.reloader.in_force(name.purpose) != InForce::default() {
                self.reloader.show(name.purpose, InForce::default())?;
            }
            return Ok(Went::default());
        };
        let local = self.local(&row).await?;
        let linked = self.linked(&row, &peers);
        let mut went = Went::default();
        for step in steps::next(&row.rotation, &peers, &linked, &local) {
            if let Step::Tell(cluster) = step {
                went.tell.push((row.clone(), cluster));
                continue;
            }
            went.again |= self.step(&row, step, &local).await?;
        }
        Ok(went)
    }

    /// Does one; whether what is on record is another now.
    async fn step(&self, row: &Row, step: Step, local: &Local) -> Result<bool, Problem> {
        let now = self.clock.now();
        debug!(identity = %row.name, ?step, "the next step of a rotation");
        match step {
            Step::Make => self.make(row).await.map(|()| true),
            Step::Lost(lost) => {
                let what = match lost {
                    Lost::Old => "the old certificate or its key is",
                    Lost::New => "the new certificate or its key is",
                    Lost::Both => "both certificates or their keys are",
                };
                error!(identity = %row.name, "{what} gone from this node: what is left is shown");
                self.lost(row.clone(), lost).await
            }
            Step::Show {
                certificate,
                old_for,
            } => {
                let in_force = InForce {
                    active: Some(certificate),
                    old: row.rotation.old,
                    old_for,
                };
                self.reloader.show(row.name.purpose, in_force)?;
                info!(identity = %row.name, certificate = fingerprint_text(&certificate), "it is shown from now on");
                Ok(true)
            }
            Step::Report => {
                let (shown, in_use) = (local.shown, local.in_use.clone());
                let leaves = row.rotation.leaves().is_some();
                self.change(row, move |row| {
                    row.problem = None;
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

    async fn settle(&self, row: &Row) -> Result<bool, Problem> {
        let Some(keep) = row.rotation.shows() else {
            return Ok(false);
        };
        let (folder, purpose) = (self.reloader.folder().clone(), row.name.purpose);
        let goes = row.rotation.leaves();
        let settled = tokio::task::spawn_blocking(move || {
            folder.settle(purpose, &keep)?;
            if let Some(goes) = goes {
                folder.remove(purpose, &goes)?;
            }
            Ok::<_, crate::trust::Error>(())
        });
        settled.await.map_err(|_| Problem::Broken)??;
        self.change(row, |row| row.rotation.settled = true).await
    }

    async fn make(&self, row: &Row) -> Result<(), Problem> {
        let purpose = row.name.purpose;
        let before = self.shown(purpose).ok_or(Problem::NothingShown)?;
        let old = before.leaf().fingerprint();
        let ends = before.leaf().not_after();
        let (folder, recipe, now) = (
            self.reloader.folder().clone(),
            row.recipe.clone(),
            self.clock.now(),
        );
        let made =
            tokio::task::spawn_blocking(move || write_new(&folder, purpose, &before, &recipe, now));
        let new = made.await.map_err(|_| Problem::Broken)??;
        if new == old {
            return Err(Problem::Same);
        }
        let (name, doer) = (row.name.clone(), Doer::node(now));
        let announced = self.store.write(move |tx: &mut dyn Transaction| {
            rotation::made(tx, &name, (old, ends), new, &doer)
        });
        if let Err(error) = announced.await {
            // Nobody wants it any more: no key is left lying about.
            self.reloader.folder().remove(purpose, &new)?;
            return Err(error.into());
        }
        info!(identity = %row.name, certificate = fingerprint_text(&new), "a new certificate is announced");
        Ok(())
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
        let found = tokio::task::spawn_blocking(move || (has(old, &folder), has(new, &folder)));
        let (has_old, has_new) = found.await.map_err(|_| Problem::Broken)?;
        let in_use = match (row.rotation.leaves(), purpose.is_of_peers()) {
            (Some(leaves), true) => {
                let uses = self.trust.in_use().of_own(&leaves).into_iter();
                let of_purpose = uses.filter(|entry| match purpose {
                    Purpose::FederationClient => entry.opened == Opened::ByUs,
                    Purpose::Federation => !self.has_client() || entry.opened == Opened::ByPeer,
                    Purpose::Phone => false,
                });
                let told: BTreeSet<_> = of_purpose.map(|entry| entry.to_string()).collect();
                told.into_iter().collect()
            }
            _ => Vec::new(),
        };
        Ok(Local {
            has_old,
            has_new,
            shown: self.shown(purpose).map(|shown| shown.leaf().fingerprint()),
            shown_old: self.reloader.in_force(purpose).old_for,
            in_use,
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

    /// Tells a peer, and keeps what it says.
    async fn tell(&self, row: Row, cluster: ClusterId) -> Telling {
        let key = key_of(&row, &cluster);
        let answer = match self.message(&row, &cluster).await {
            Ok(message) => self.peers.announce(&cluster, message).await,
            Err(problem) => Err(Untold::Failed(error_chain(&problem))),
        };
        let kept = match answer {
            Ok(answered) if answered.sequence > row.rotation.sequence => {
                self.raise(&row, &cluster, answered.sequence).await
            }
            Ok(answered) => {
                let (outcome, why) = verdict(&row.rotation, &answered);
                self.keep(&row, &cluster, outcome, why).await
            }
            Err(Untold::NotLinked | Untold::Unable) => Ok(()),
            Err(Untold::Failed(why)) => self.keep_trouble(&row, &cluster, why).await,
        };
        if let Err(problem) = kept {
            warn!(peer.cluster_id = %cluster, cause = error_chain(&problem), "what a peer answered could not be kept");
        }
        key
    }

    async fn message(&self, row: &Row, to: &ClusterId) -> Result<pb::AnnounceRequest, Problem> {
        let (folder, row) = (self.reloader.folder().clone(), row.clone());
        let (from, to) = (self.cluster.clone(), to.clone());
        let made = tokio::task::spawn_blocking(move || {
            let identity = row.name.to_string();
            let mut certificates = Vec::new();
            for fingerprint in row.rotation.certificates() {
                let own = folder.find(row.name.purpose, &fingerprint)?;
                let is_new = Some(fingerprint) == row.rotation.new;
                let parent = row.rotation.old.filter(|_| is_new);
                let claim = Claim {
                    from: &from,
                    to: &to,
                    identity: &identity,
                    sequence: row.rotation.sequence,
                    fingerprint: &fingerprint,
                    parent: parent.as_ref(),
                };
                let (signature_scheme, signature) = claim.sign(&own).ok_or(Problem::Unsigned)?;
                // Where that key is gone the connection's certificate counts as the parent.
                let before = parent.and_then(|old| folder.find(row.name.purpose, &old).ok());
                let vouched = before.and_then(|before| claim.sign(&before));
                let (parent_signature_scheme, parent_signature) = vouched.unwrap_or_default();
                certificates.push(pb::AnnouncedCertificate {
                    der: own.leaf().der().to_vec(),
                    parent: parent.map(|parent| parent.to_vec()).unwrap_or_default(),
                    signature_scheme,
                    signature,
                    parent_signature_scheme,
                    parent_signature,
                });
            }
            Ok::<_, Problem>(pb::AnnounceRequest {
                identity,
                sequence: row.rotation.sequence,
                certificates,
            })
        });
        made.await.map_err(|_| Problem::Broken)?
    }

    async fn keep(
        &self,
        row: &Row,
        cluster: &ClusterId,
        outcome: Outcome,
        why: String,
    ) -> Result<(), Problem> {
        let (row, of) = (row.clone(), cluster.clone());
        let sequence = row.rotation.sequence;
        let kept = self.store.write(move |tx: &mut dyn Transaction| {
            rotation::progress(tx, &row, &of, |told| {
                told.progress.answered(sequence, outcome, why.clone());
            })
        });
        kept.await?;
        Ok(())
    }

    /// It has not answered, and this is why; what it has said before still counts.
    async fn keep_trouble(
        &self,
        row: &Row,
        cluster: &ClusterId,
        why: String,
    ) -> Result<(), Problem> {
        let (row, of) = (row.clone(), cluster.clone());
        let kept = self.store.write(move |tx: &mut dyn Transaction| {
            rotation::progress(tx, &row, &of, |told| {
                if !told.progress.has_answered(&row.rotation) {
                    told.progress.detail.clone_from(&why);
                }
            })
        });
        kept.await?;
        Ok(())
    }

    /// The peer has heard of a later number than is on record here: the store is one from before. From here on a number
    /// above that one counts.
    async fn raise(&self, row: &Row, cluster: &ClusterId, known: u64) -> Result<(), Problem> {
        let now = self.clock.now();
        let bound = u64::try_from(now.plus(MOST_AHEAD).as_millis()).unwrap_or(0);
        if known > bound {
            let why = "it knows of a number far ahead of this node's clock; one of the two clocks is wrong";
            return self.keep_trouble(row, cluster, why.to_owned()).await;
        }
        warn!(peer.cluster_id = %cluster, known, "a peer has heard of later certificates than this store knows of");
        let row = row.clone();
        let raised = self.store.write(move |tx: &mut dyn Transaction| {
            rotations::next_sequence(tx, known, now)?;
            rotation::change(
                tx,
                &row,
                |row, sequence| row.rotation.sequence = sequence,
                true,
                now,
            )
        });
        raised.await?;
        Ok(())
    }

    async fn note_problem(&self, name: &Name, problem: &str) {
        let (of, text) = (name.clone(), problem.to_owned());
        let noted = self.store.write(move |tx: &mut dyn Transaction| {
            let Some(mut row) = rotations::get(tx, &of)? else {
                return Ok(false);
            };
            let is_news = row.problem.as_ref() != Some(&text);
            if is_news {
                row.problem = Some(text.clone());
                rotations::put(tx, &row)?;
            }
            Ok::<_, store::Error>(is_news)
        });
        // What can't be kept either is told by the next round.
        if let Ok(true) = noted.await {
            warn!(identity = %name, cause = problem, "a rotation can't go on; it is tried again");
        }
    }

    /// What is due by the calendar. `asked` is when people were last asked to go to an authority.
    async fn keep_schedule(&self, asked: &mut BTreeMap<Name, Instant>) {
        let parameters = self.reloader.parameters().load();
        let days = |n: u32| Duration::from_secs(86_400) * n;
        let schedule = Schedule {
            renew_before: days(parameters.certificate_renew_before),
            jitter: days(parameters.certificate_renew_jitter),
            override_before: days(parameters.certificate_renew_override_before),
        };
        if schedule.renew_before.is_zero() {
            return;
        }
        for shown in self.reloader.shown() {
            let Some(identity) = shown.identity else {
                continue;
            };
            // Phones can't be told of the next one, so no gate would hold it back.
            if !shown.purpose.is_of_peers() {
                continue;
            }
            let name = Name {
                node: self.node.clone(),
                purpose: shown.purpose,
            };
            if let Err(problem) = self.keep_to(&schedule, &name, &identity, asked).await {
                warn!(identity = %name, cause = error_chain(&problem), "the schedule of certificates could not be kept");
            }
        }
    }

    async fn keep_to(
        &self,
        schedule: &Schedule,
        name: &Name,
        identity: &Identity,
        asked: &mut BTreeMap<Name, Instant>,
    ) -> Result<(), Problem> {
        let leaf = identity.leaf();
        let shown = Shown {
            fingerprint: leaf.fingerprint(),
            not_after: leaf.not_after(),
            is_self_signed: leaf.subject() == leaf.issuer(),
        };
        let read = name.clone();
        let found = self.store.read(move |tx: &mut dyn Transaction| {
            Ok::<_, store::Error>((rotations::get(tx, &read)?, rotations::told(tx, &read)?))
        });
        let (row, peers) = found.await?;
        let (now, of) = (self.clock.now(), name.clone());
        let rotation = row.as_ref().map(|row| &row.rotation);
        match schedule::due(schedule, now, &shown, rotation, &peers) {
            Due::Nothing => {}
            Due::AskAuthority => {
                let before = asked.get(name);
                if before.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
                    asked.insert(name.clone(), Instant::now());
                    warn!(
                        identity = %name, not_after = %shown.not_after,
                        "ALARM: it is time for a new certificate from the authority: emccd cert rotate announce --from FILE --key-file FILE takes it"
                    );
                }
            }
            Due::Announce => {
                let announced = self.store.write(move |tx: &mut dyn Transaction| {
                    rotation::announce(tx, &of, &Recipe::default(), true, &Doer::node(now))
                });
                announced.await?;
                info!(identity = %name, not_after = %shown.not_after, "it is time for a new certificate");
            }
            Due::ActivateWithout(behind) => {
                let named = Named {
                    overridden: behind.iter().cloned().collect(),
                    ..Named::default()
                };
                let activated = self.store.write(move |tx: &mut dyn Transaction| {
                    rotation::activate(tx, &of, &named, &Doer::node(now))
                });
                activated.await?;
                let behind: Vec<_> = behind.iter().map(ClusterId::as_str).collect();
                if behind.is_empty() {
                    warn!(
                        identity = %name, not_after = %shown.not_after,
                        "ALARM: the certificate ends soon, and the next one lay ready with all peers: it is shown now"
                    );
                    return Ok(());
                }
                warn!(
                    identity = %name, peers = behind.join(", "), not_after = %shown.not_after,
                    "ALARM: the certificate ends soon, and these peers have not said that they have the next one: it is \
                     shown without them"
                );
            }
        }
        Ok(())
    }
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
    #[error("its kind of key can't sign the announcement")]
    Unsigned,
    #[error("a step broke down; its cause is in the log")]
    Broken,
}

fn key_of(row: &Row, cluster: &ClusterId) -> Telling {
    (row.name.clone(), cluster.clone(), row.rotation.sequence)
}

/// What a peer's answer comes to. Of two certificates the new one counts: the one from before it takes in any case, as
/// long as it takes our connections, perhaps for its authority's sake and not as a certificate of its own.
fn verdict(rotation: &Rotation, answered: &Answered) -> (Outcome, String) {
    let counts = rotation.certificates().last().copied();
    match counts.and_then(|counts| answered.outcomes.get(&counts)) {
        Some((Taken::Loaded, _)) => (Outcome::Loaded, String::new()),
        Some((Taken::Waiting, why)) => (Outcome::Waiting, why.clone()),
        Some((Taken::Refused, why)) => (Outcome::Refused, why.clone()),
        None => (Outcome::Refused, "its answer does not say".to_owned()),
    }
}

/// Makes the new certificate, or takes it from the files, and keeps it in the folder. Blocks.
fn write_new(
    folder: &IdentityFolder,
    purpose: Purpose,
    before: &Identity,
    recipe: &Recipe,
    now: Timestamp,
) -> Result<Fingerprint, Problem> {
    let (chain, key) = match &recipe.files {
        Some((certificate, key)) => {
            let others = recipe.issuers.iter().map(Path::new);
            let files = Files {
                certificates: std::iter::once(Path::new(certificate))
                    .chain(others)
                    .collect(),
                key: Path::new(key),
                names: &recipe.names,
                may_lack_issuers: recipe.may_lack_issuers,
            };
            files.read(folder, purpose, now)?
        }
        None => {
            let made = make::self_signed(&request(purpose, before, recipe, now))?;
            (made.certificate_pem.into_bytes(), made.key_pem)
        }
    };
    let identity = Identity::from_pem(&chain, &key)?;
    match purpose {
        Purpose::Federation if folder.files(Purpose::FederationClient).is_none() => {
            identity.check(now)?;
        }
        Purpose::Federation | Purpose::Phone => identity.check_server(now)?,
        Purpose::FederationClient => identity.check_client(now)?,
    }
    Ok(folder.write(purpose, &chain, &key)?)
}

fn request(purpose: Purpose, before: &Identity, recipe: &Recipe, now: Timestamp) -> CertRequest {
    let leaf = before.leaf();
    let subject = leaf.subject();
    let named = subject
        .split(',')
        .find_map(|part| part.trim().strip_prefix("CN="));
    let names = if recipe.names.is_empty() {
        leaf.names().iter().map(name_text).collect()
    } else {
        recipe.names.clone()
    };
    let kind = match (recipe.key.as_deref(), purpose) {
        (Some("rsa"), _) | (None, Purpose::Phone) => KeyKind::Rsa2048,
        _ => KeyKind::P256,
    };
    let valid = leaf.not_after().since(leaf.not_before()).as_secs() / 86_400;
    let as_before = u32::try_from(valid)
        .ok()
        .filter(|days| (1..=3_650).contains(days));
    let days = recipe.days.or(as_before).unwrap_or(DAYS);
    CertRequest::new(named.unwrap_or(subject), names, kind, now, days)
}

fn name_text(name: &CertificateName) -> String {
    name.to_string()
}

/// What the rotations on record say is to be shown, before anything is; what is not there is left out.
pub(super) async fn in_force(
    store: &Store,
    node: &str,
    folder: &IdentityFolder,
) -> Result<BTreeMap<Purpose, InForce>, store::Error> {
    let of = node.to_owned();
    let found = store.read(move |tx: &mut dyn Transaction| {
        let mut found = Vec::new();
        for row in rotations::all(tx)?
            .into_iter()
            .filter(|row| row.name.node == of)
        {
            let peers = rotations::told(tx, &row.name)?;
            found.push((row, peers));
        }
        Ok::<_, store::Error>(found)
    });
    let mut all = BTreeMap::new();
    for (row, peers) in found.await? {
        let purpose = row.name.purpose;
        let shows = row.rotation.shows();
        let Some(active) = shows.filter(|shows| folder.find(purpose, shows).is_ok()) else {
            continue;
        };
        let in_force = InForce {
            active: Some(active),
            old: row.rotation.old,
            old_for: still_old(&row.rotation, &peers),
        };
        all.insert(purpose, in_force);
    }
    Ok(all)
}
