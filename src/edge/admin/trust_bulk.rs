//! Many certificates at once: what this cluster shows and trusts, written out, and a file of them brought in.
//!
//! An import compares first, with the same code for a dry run and for the real one; then one transaction brings
//! everything in, or nothing.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    pin::Pin,
    time::Duration,
};

use futures_util::stream;
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    edge::admin::{
        error::Error,
        operations::Live,
        peers::{bundles, check_names},
        roles::Actor,
        views,
    },
    store::{
        Store, Transaction,
        audit::{self, Action, Noun},
        peers::{self, Peer},
        trust_entries::{self, EntryKind, Source, TrustEntry},
    },
    trust::{
        bundle::{self, Bundle},
        certificate::{Certificate, Fingerprint, fingerprint_text},
        impact::{self, Fate},
    },
    wire::admin as pb,
};

/// What an operator hands in.
#[derive(Debug)]
pub struct Asked {
    dry_run: bool,
    replace: bool,
    certificates: Vec<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    cluster: String,
    kind: EntryKind,
    alias: Option<String>,
    certificate: Certificate,
}

impl Asked {
    /// Puts the pieces together. How it is meant stands in the first one.
    ///
    /// # Errors
    /// When there are too many, when one is no certificate, or when they don't arrive.
    pub async fn collect(
        mut pieces: impl Stream<Item = Result<pb::ImportTrustRequest, Status>> + Unpin,
        pause: Duration,
    ) -> Result<Self, Error> {
        let unfinished = |why: &str| {
            let why = format!("the certificates did not arrive whole: {why}");
            Error::refused(why, "nothing was changed; import again")
        };
        let mut asked: Option<Self> = None;
        loop {
            let next = tokio::time::timeout(pause, pieces.next()).await;
            let Some(piece) = next.map_err(|_| unfinished("nothing came for a while"))? else {
                break;
            };
            let piece = piece.map_err(|status| unfinished(status.message()))?;
            let all = asked.get_or_insert_with(|| Self {
                dry_run: piece.dry_run,
                replace: piece.replace,
                certificates: Vec::new(),
            });
            if all.certificates.len() + piece.certificates.len() > MOST {
                return Err(Error::invalid("the certificates", "at most 50,000 at once"));
            }
            for certificate in piece.certificates {
                all.certificates.push(Wanted::read(certificate)?);
            }
            // Reading certificates is work; others get their turn between two pieces.
            tokio::task::yield_now().await;
        }
        asked
            .filter(|all| !all.certificates.is_empty())
            .ok_or_else(|| Error::invalid("the certificates", "one at least"))
    }
}

impl Wanted {
    fn read(asked: pb::BulkCertificate) -> Result<Self, Error> {
        let kind = [EntryKind::Pinned, EntryKind::Anchor]
            .into_iter()
            .find(|kind| kind.as_str() == asked.kind)
            .ok_or_else(|| Error::invalid("the kind of trust", "pinned or anchor"))?;
        Ok(Self {
            cluster: asked.cluster_id,
            kind,
            alias: Some(asked.alias).filter(|alias| !alias.is_empty()),
            certificate: Certificate::from_der(&asked.der)?,
        })
    }
}

/// How many entries are in, and of how many.
pub type Done = (u64, u64);

/// What the caller of an import reads: how far it is, and at last what was done.
pub type Told = Pin<Box<dyn Stream<Item = Result<pb::ImportTrustResponse, Status>> + Send>>;

/// What is to be brought in, and where.
#[derive(Debug)]
pub struct Bringing {
    /// Our own cluster.
    pub own: ClusterId,
    /// The certificates, and how.
    pub asked: Asked,
    /// What connections rest on now.
    pub live: Vec<Live>,
}

/// Brings certificates in, or tells what that would do.
///
/// # Errors
/// [`Error::Trust`] when two peers could pass for each other, [`Error::Refused`] when an authority has no names to
/// vouch for, or when none of the certificates is of a peer of ours. Nothing is changed then.
pub async fn import(
    store: &Store,
    bringing: Bringing,
    actor: &Actor,
    now: Timestamp,
    tell: watch::Sender<Done>,
) -> Result<pb::ImportedTrust, Error> {
    let Bringing { own, asked, live } = bringing;
    let actor = actor.to_string();
    if asked.dry_run {
        let plan =
            move |tx: &mut dyn Transaction| Plan::make(tx, &own, &asked)?.told(&live, now, true);
        return store.read(plan).await;
    }
    store
        .write(move |tx| {
            let plan = Plan::make(tx, &own, &asked)?;
            plan.carry_out(tx, &actor, now, &tell)?;
            plan.told(&live, now, false)
        })
        .await
}

/// What an import changes, by peer.
struct Plan<'a> {
    peers: BTreeMap<ClusterId, Changes<'a>>,
    /// Certificates of clusters that are no peers of ours, our own among them.
    passed_over: BTreeMap<String, u32>,
}

struct Changes<'a> {
    added: Vec<&'a Wanted>,
    kept: u32,
    removed: Vec<TrustEntry>,
    before: Bundle,
    after: Bundle,
    enabled: bool,
}

impl<'a> Plan<'a> {
    fn make(tx: &mut dyn Transaction, own: &ClusterId, asked: &'a Asked) -> Result<Self, Error> {
        let records = peers::list(tx)?;
        let mut all = bundles(tx)?;
        let mut entries: HashMap<ClusterId, Vec<TrustEntry>> = HashMap::new();
        for entry in trust_entries::list(tx)? {
            entries
                .entry(entry.cluster_id.clone())
                .or_default()
                .push(entry);
        }
        let mut plan = Self {
            peers: BTreeMap::new(),
            passed_over: BTreeMap::new(),
        };
        let by_name: HashMap<String, &Peer> = records
            .iter()
            .map(|peer| (peer.cluster_id.as_str().to_ascii_lowercase(), peer))
            .collect();
        let mut of_peers: BTreeMap<&ClusterId, (&Peer, Vec<&'a Wanted>)> = BTreeMap::new();
        for wanted in &asked.certificates {
            match by_name.get(&wanted.cluster.to_ascii_lowercase()) {
                Some(peer) if peer.cluster_id != *own => {
                    let (_, all) = of_peers
                        .entry(&peer.cluster_id)
                        .or_insert_with(|| (peer, Vec::new()));
                    all.push(wanted);
                }
                _ => *plan.passed_over.entry(wanted.cluster.clone()).or_default() += 1,
            }
        }
        for (cluster, (peer, wanted)) in of_peers {
            let theirs = entries.remove(cluster).unwrap_or_default();
            let Some(bundle) = all.iter_mut().find(|bundle| bundle.cluster == *cluster) else {
                continue;
            };
            let changes = Changes::of(peer, bundle, theirs, wanted, asked.replace)?;
            bundle.clone_from(&changes.after);
            plan.peers.insert(cluster.clone(), changes);
        }
        if plan.peers.is_empty() {
            let named: Vec<_> = plan.passed_over.keys().map(String::as_str).collect();
            return Err(Error::refused(
                format!(
                    "none of them is of a peer of this cluster; they are of {}",
                    named.join(", ")
                ),
                "add the peer first: emccd cluster add ID --address HOST:PORT; or say whose they are: --cluster ID",
            ));
        }
        bundle::check(&all)?;
        Ok(plan)
    }

    fn carry_out(
        &self,
        tx: &mut dyn Transaction,
        actor: &str,
        now: Timestamp,
        tell: &watch::Sender<Done>,
    ) -> Result<(), Error> {
        let of = self
            .peers
            .values()
            .map(|changes| changes.added.len() as u64)
            .sum();
        let mut done = 0;
        for (cluster, changes) in &self.peers {
            for removed in &changes.removed {
                trust_entries::remove(tx, cluster, &removed.fingerprint)?;
            }
            for wanted in &changes.added {
                trust_entries::add(tx, &wanted.entry(cluster, now))?;
                done += 1;
                if done % TELL_EVERY == 0 {
                    tell.send_replace((done, of));
                }
            }
            if changes.added.is_empty() && changes.removed.is_empty() {
                continue;
            }
            audit::append(
                tx,
                &audit::Entry {
                    at: now,
                    actor: actor.to_owned(),
                    action: Action::Add(Noun::Trust),
                    subject: cluster.to_string(),
                    outcome: changes.audited(),
                    reference: None,
                },
            )?;
        }
        Ok(())
    }

    fn told(
        &self,
        live: &[Live],
        now: Timestamp,
        dry_run: bool,
    ) -> Result<pb::ImportedTrust, Error> {
        let peers = self.peers.iter();
        let peers = peers.map(|(cluster, changes)| changes.told(cluster, live, now));
        let passed_over = self.passed_over.iter();
        Ok(pb::ImportedTrust {
            dry_run,
            peers: peers.collect::<Result<_, _>>()?,
            passed_over: passed_over
                .map(|(cluster, certificates)| pb::PassedOver {
                    cluster_id: cluster.clone(),
                    certificates: *certificates,
                })
                .collect(),
            unreported: Vec::new(),
        })
    }
}

impl<'a> Changes<'a> {
    fn of(
        peer: &Peer,
        before: &Bundle,
        entries: Vec<TrustEntry>,
        wanted: Vec<&'a Wanted>,
        replace: bool,
    ) -> Result<Self, Error> {
        type Key = (EntryKind, Fingerprint);
        let there: HashSet<Key> = entries.iter().map(|e| (e.kind, e.fingerprint)).collect();
        let mut asked: HashSet<Key> = HashSet::new();
        let mut after = before.clone();
        let (mut added, mut kept) = (Vec::new(), 0);
        for wanted in wanted {
            let key = (wanted.kind, wanted.certificate.fingerprint());
            if !asked.insert(key) {
                continue;
            }
            if there.contains(&key) {
                kept += 1;
                continue;
            }
            check_unrevoked(before, &wanted.certificate)?;
            match wanted.kind {
                EntryKind::Pinned => after.pinned.push(wanted.certificate.clone()),
                EntryKind::Anchor => {
                    check_names(peer)?;
                    after.anchors.push(wanted.certificate.clone());
                }
            }
            added.push(wanted);
        }
        let mut removed = Vec::new();
        if replace {
            let is_asked = |kind, certificate: &Certificate| {
                asked.contains(&(kind, certificate.fingerprint()))
            };
            after.pinned.retain(|pin| is_asked(EntryKind::Pinned, pin));
            after
                .anchors
                .retain(|anchor| is_asked(EntryKind::Anchor, anchor));
            removed = entries;
            removed.retain(|entry| !asked.contains(&(entry.kind, entry.fingerprint)));
        }
        Ok(Self {
            added,
            kept,
            removed,
            before: before.clone(),
            after,
            enabled: peer.enabled,
        })
    }

    /// Their number, and what was taken away by name: what was added stands in the store, with the time of the entry.
    fn audited(&self) -> String {
        let mut told = format!("imported: {} added, {} kept", self.added.len(), self.kept);
        if !self.removed.is_empty() {
            let all = self.removed.iter().take(MOST_NAMED);
            let all: Vec<_> = all
                .map(|entry| fingerprint_text(&entry.fingerprint))
                .collect();
            told = format!(
                "{told}, {} replaced: {}",
                self.removed.len(),
                all.join(", ")
            );
        }
        told
    }

    fn told(
        &self,
        cluster: &ClusterId,
        live: &[Live],
        now: Timestamp,
    ) -> Result<pb::TrustImpact, Error> {
        let (left, until) = impact::left(&self.after, now);
        let added = self
            .added
            .iter()
            .map(|wanted| views::trust_entry(&wanted.entry(cluster, now)));
        let removed = self.removed.iter().map(views::trust_entry);
        let theirs = live.iter().filter(|live| live.cluster == *cluster);
        Ok(pb::TrustImpact {
            cluster_id: cluster.to_string(),
            enabled: self.enabled,
            added: added.collect::<Result<_, _>>()?,
            kept: self.kept,
            replaced: removed.collect::<Result<_, _>>()?,
            good: u32::try_from(left).unwrap_or(u32::MAX),
            good_until: until.map(|until| until.to_string()).unwrap_or_default(),
            connections: theirs.map(|live| self.connection(live)).collect(),
        })
    }

    fn connection(&self, live: &Live) -> pb::LiveConnection {
        let (fate, until) = match impact::fate(&live.shown, &self.before, &self.after) {
            Fate::Ends => ("ends", None),
            Fate::MayEnd => ("may-end", None),
            Fate::GoesOn(until) => ("goes-on", until),
        };
        let leaf = live.shown.first();
        pb::LiveConnection {
            told: live.told.clone(),
            fingerprint: leaf.map(fingerprint_text).unwrap_or_default(),
            fate: fate.to_owned(),
            until: until.map(|until| until.to_string()).unwrap_or_default(),
        }
    }
}

impl Wanted {
    fn entry(&self, cluster: &ClusterId, now: Timestamp) -> TrustEntry {
        TrustEntry {
            cluster_id: cluster.clone(),
            kind: self.kind,
            fingerprint: self.certificate.fingerprint(),
            der: self.certificate.der().to_vec(),
            added_at: now,
            source: Source::Imported,
            alias: self.alias.clone(),
        }
    }
}

/// An import whose caller listens.
enum Import {
    UnderWay(Importing, watch::Receiver<Done>),
    /// It is over, and these are the last messages.
    Over(std::vec::IntoIter<Result<pb::ImportTrustResponse, Status>>),
}

/// An import on its way.
pub type Importing = Pin<Box<dyn Future<Output = Result<pb::ImportedTrust, Error>> + Send>>;

/// How far an import is, some times a second, and at last what was done. It is one transaction: a caller who goes away
/// has changed all or nothing.
pub fn told(importing: Importing, progress: watch::Receiver<Done>) -> Told {
    let state = Import::UnderWay(importing, progress);
    Box::pin(stream::unfold(state, |state| async move {
        let mut last = match state {
            Import::Over(last) => last,
            Import::UnderWay(mut importing, mut progress) => tokio::select! {
                biased;
                done = &mut importing => last_messages(done).into_iter(),
                progressed = next(&mut progress) => {
                    let message = pb::ImportTrustResponse {
                        progress: Some(progressed),
                        ..pb::ImportTrustResponse::default()
                    };
                    return Some((Ok(message), Import::UnderWay(importing, progress)));
                }
            },
        };
        last.next().map(|message| (message, Import::Over(last)))
    }))
}

/// What was done. A message has room for some thousand entries; the next ones go on with the last peer.
fn last_messages(
    done: Result<pb::ImportedTrust, Error>,
) -> Vec<Result<pb::ImportTrustResponse, Status>> {
    let mut imported = match done {
        Ok(imported) => imported,
        Err(error) => return vec![Err(error.into_status())],
    };
    let peers = std::mem::take(&mut imported.peers);
    let message = |imported| pb::ImportTrustResponse {
        imported: Some(imported),
        ..pb::ImportTrustResponse::default()
    };
    let dry_run = imported.dry_run;
    let mut messages = vec![Ok(message(imported))];
    for mut peer in peers {
        let added = std::mem::take(&mut peer.added);
        let cluster_id = peer.cluster_id.clone();
        let mut pieces = added.chunks(IN_ONE_MESSAGE);
        peer.added = pieces.next().unwrap_or_default().to_vec();
        let more = pieces.map(|more| pb::TrustImpact {
            cluster_id: cluster_id.clone(),
            added: more.to_vec(),
            ..pb::TrustImpact::default()
        });
        messages.extend(std::iter::once(peer).chain(more).map(|peer| {
            Ok(message(pb::ImportedTrust {
                dry_run,
                peers: vec![peer],
                ..pb::ImportedTrust::default()
            }))
        }));
    }
    messages
}

/// The next state that is worth telling.
async fn next(progress: &mut watch::Receiver<Done>) -> pb::ApplyProgress {
    tokio::time::sleep(PACE).await;
    if progress.changed().await.is_err() {
        // It is over: the answer is on its way.
        std::future::pending::<()>().await;
    }
    let (done, of) = *progress.borrow_and_update();
    pb::ApplyProgress {
        step: "switching".to_owned(),
        done,
        of,
        left_ms: None,
    }
}

/// Refuses what was taken back: one file among many must not undo that in passing.
fn check_unrevoked(bundle: &Bundle, certificate: &Certificate) -> Result<(), Error> {
    if !bundle.revoked.contains(&certificate.fingerprint()) {
        return Ok(());
    }
    let (cluster, fingerprint) = (&bundle.cluster, certificate.fingerprint_text());
    Err(Error::refused(
        format!(
            "{} ({fingerprint}) was revoked for {cluster}",
            certificate.subject()
        ),
        format!(
            "take it out of the file; or, if it is to be trusted again, first: emccd trust add {cluster} --unrevoke \
             {fingerprint}"
        ),
    ))
}

/// Certificates, some at a time.
pub type Exported = Pin<Box<dyn Stream<Item = Result<pb::ExportTrustResponse, Status>> + Send>>;

/// Puts certificates into messages. The first one names the nodes of which there are none.
pub fn exported(all: &[pb::BulkCertificate], mut unreported: Vec<String>) -> Exported {
    let messages: Vec<_> = all
        .chunks(IN_ONE_MESSAGE)
        .map(|some| {
            Ok(pb::ExportTrustResponse {
                certificates: some.to_vec(),
                unreported: std::mem::take(&mut unreported),
            })
        })
        .collect();
    Box::pin(tokio_stream::iter(messages))
}

/// What this cluster trusts.
///
/// # Errors
/// [`Error::Store`].
pub async fn trusted(store: &Store) -> Result<Vec<pb::BulkCertificate>, Error> {
    let entries = store.read(|tx| trust_entries::list(tx)).await?;
    let told = |entry: TrustEntry| pb::BulkCertificate {
        cluster_id: entry.cluster_id.into(),
        kind: entry.kind.as_str().to_owned(),
        alias: entry.alias.unwrap_or_default(),
        der: entry.der,
    };
    Ok(entries.into_iter().map(told).collect())
}

/// Three times what one federation of a thousand clusters has.
const MOST: usize = 50_000;
/// In one entry of the audit.
const MOST_NAMED: usize = 20;
const TELL_EVERY: u64 = 256;
/// Entries: one or two MiB.
const IN_ONE_MESSAGE: usize = 2_000;
/// Between two messages on how far it is.
const PACE: Duration = Duration::from_millis(200);
