//! Many certificates at once: what this cluster shows and trusts, written out, and a file of them brought in.
//!
//! An import compares first, with the same code for a dry run and for the real one; then one transaction brings
//! everything in, or nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    pin::Pin,
    time::Duration,
};

use futures_util::stream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use crate::{
    clock::Timestamp,
    domain::ids::ClusterId,
    edge::admin::{error::Error, operations::Live, peers::bundles, roles::Actor, views},
    fault::FaultPoints,
    store::{
        Store, Transaction, announcements,
        audit::{self, Action, Noun},
        peers::{self, Peer},
        trust_entries::{self, EntryKind, Source, TrustEntry},
    },
    trust::{
        bundle,
        certificate::{Certificate, Fingerprint, fingerprint_text},
        impact::{self, Changes, Family, Fate, Wanted},
    },
    watch,
    wire::admin as pb,
};

/// What an operator hands in.
#[derive(Debug)]
pub struct Asked {
    dry_run: bool,
    replace: bool,
    /// Each with its cluster, as it is named in the file.
    certificates: Vec<(String, Wanted)>,
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
                all.certificates.push(wanted(certificate)?);
            }
            // Reading certificates is work; others get their turn between two pieces.
            tokio::task::yield_now().await;
        }
        asked
            .filter(|all| !all.certificates.is_empty())
            .ok_or_else(|| Error::invalid("the certificates", "one at least"))
    }
}

fn wanted(asked: pb::BulkCertificate) -> Result<(String, Wanted), Error> {
    let kind = [EntryKind::Pinned, EntryKind::Anchor]
        .into_iter()
        .find(|kind| kind.as_str() == asked.kind)
        .ok_or_else(|| Error::invalid("the kind of trust", "pinned or anchor"))?;
    let wanted = Wanted {
        kind,
        alias: Some(asked.alias).filter(|alias| !alias.is_empty()),
        certificate: Certificate::from_der(&asked.der)?,
    };
    Ok((asked.cluster_id, wanted))
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
    /// Where a test can stop it.
    pub faults: FaultPoints,
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
    let Bringing {
        own,
        asked,
        live,
        faults,
    } = bringing;
    let (actor, dry_run) = (actor.to_string(), asked.dry_run);
    if dry_run {
        let plan = store.read(move |tx| Plan::make(tx, &own, &asked)).await?;
        return Ok(plan.told(&live, now, dry_run));
    }
    faults.pass("trust-import.asked").await;
    let in_here = faults.clone();
    let plan = store
        .write(move |tx| {
            let plan = Plan::make(tx, &own, &asked)?;
            plan.carry_out(tx, &actor, now, &tell, &in_here)?;
            in_here.pass_here("trust-import.written");
            Ok::<_, Error>(plan)
        })
        .await?;
    faults.pass("trust-import.committed").await;
    Ok(plan.told(&live, now, dry_run))
}

/// What an import changes, by peer.
struct Plan {
    peers: BTreeMap<ClusterId, OfPeer>,
    /// Certificates of clusters that are no peers of ours, our own among them.
    passed_over: BTreeMap<String, u32>,
    own: ClusterId,
}

struct OfPeer {
    enabled: bool,
    changes: Changes,
    /// The entries from before that go.
    removed: Vec<TrustEntry>,
    /// Those that stay, and rest on somebody else's word until now.
    adopted: Vec<Wanted>,
}

impl Plan {
    fn make(tx: &mut dyn Transaction, own: &ClusterId, asked: &Asked) -> Result<Self, Error> {
        let records = peers::list(tx)?;
        let mut all = bundles(tx)?;
        let mut plan = Self {
            peers: BTreeMap::new(),
            passed_over: BTreeMap::new(),
            own: own.clone(),
        };
        let by_name: HashMap<String, &Peer> = records
            .iter()
            .map(|peer| (peer.cluster_id.as_str().to_ascii_lowercase(), peer))
            .collect();
        let mut of_peers: BTreeMap<&ClusterId, (&Peer, Vec<Wanted>)> = BTreeMap::new();
        for (cluster, wanted) in &asked.certificates {
            match by_name.get(&cluster.to_ascii_lowercase()) {
                Some(peer) if peer.cluster_id != *own => {
                    let (_, all) = of_peers
                        .entry(&peer.cluster_id)
                        .or_insert_with(|| (peer, Vec::new()));
                    all.push(wanted.clone());
                }
                _ => *plan.passed_over.entry(cluster.clone()).or_default() += 1,
            }
        }
        let mut waiting: HashMap<ClusterId, BTreeSet<Fingerprint>> = HashMap::new();
        for entry in announcements::waiting(tx)? {
            let of_peer = waiting.entry(entry.cluster_id).or_default();
            of_peer.insert(entry.fingerprint);
        }
        for (cluster, (peer, wanted)) in of_peers {
            let Some(bundle) = all.iter_mut().find(|bundle| bundle.cluster == *cluster) else {
                continue;
            };
            let family = Family {
                lineage: announcements::lineage(tx, cluster)?,
                waiting: waiting.remove(cluster).unwrap_or_default(),
            };
            let changes = Changes::of(bundle, &family, &wanted, asked.replace)?;
            bundle.clone_from(&changes.after);
            let of_peer = OfPeer::new(tx, peer, changes, &family)?;
            plan.peers.insert(cluster.clone(), of_peer);
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
        faults: &FaultPoints,
    ) -> Result<(), Error> {
        let added = |of_peer: &OfPeer| of_peer.changes.added.len() as u64;
        let of = self.peers.values().map(added).sum();
        let mut before = 0;
        tell.send_replace((before, of));
        for (cluster, of_peer) in &self.peers {
            let changes = &of_peer.changes;
            let entries = |all: &[Wanted]| -> Vec<_> {
                all.iter().map(|one| entry(one, cluster, now)).collect()
            };
            // What is in the file goes with none that goes.
            trust_entries::add_all(tx, cluster, &entries(&of_peer.adopted), |_| {})?;
            if !changes.removed.is_empty() {
                trust_entries::withdraw_all(tx, cluster, &changes.gone())?;
                faults.pass_here("trust-import.replaced");
            }
            trust_entries::add_all(tx, cluster, &entries(&changes.added), |done| {
                if done.is_multiple_of(TELL_EVERY) {
                    tell.send_replace((before + done, of));
                    faults.pass_here("trust-import.some-written");
                }
            })?;
            before += added(of_peer);
            if changes.added.is_empty() && changes.removed.is_empty() && of_peer.adopted.is_empty()
            {
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
        tell.send_replace((of, of));
        Ok(())
    }

    fn told(&self, live: &[Live], now: Timestamp, dry_run: bool) -> pb::ImportedTrust {
        let peers = self.peers.iter();
        let passed_over = self.passed_over.iter();
        pb::ImportedTrust {
            dry_run,
            peers: peers
                .map(|(cluster, of_peer)| of_peer.told(cluster, live, now))
                .collect(),
            passed_over: passed_over
                .map(|(cluster, certificates)| pb::PassedOver {
                    cluster_id: cluster.clone(),
                    certificates: *certificates,
                    is_own: cluster.eq_ignore_ascii_case(self.own.as_str()),
                })
                .collect(),
            unreported: Vec::new(),
        }
    }
}

impl OfPeer {
    fn new(
        tx: &mut dyn Transaction,
        peer: &Peer,
        changes: Changes,
        family: &Family,
    ) -> Result<Self, Error> {
        let mut entries = trust_entries::of(tx, &peer.cluster_id)?;
        let is_announced: HashSet<Fingerprint> = entries
            .iter()
            .filter(|entry| entry.source == Source::Announced)
            .map(|entry| entry.fingerprint)
            .collect();
        let rests = |wanted: &&Wanted| {
            let fingerprint = wanted.certificate.fingerprint();
            is_announced.contains(&fingerprint)
                || family.lineage.contains_key(&fingerprint)
                || family.waiting.contains(&fingerprint)
        };
        let adopted = changes.kept.iter().filter(rests).cloned().collect();
        let gone: HashSet<_> = changes
            .removed
            .iter()
            .map(|(kind, certificate)| (*kind, certificate.fingerprint()))
            .collect();
        entries.retain(|entry| gone.contains(&(entry.kind, entry.fingerprint)));
        Ok(Self {
            enabled: peer.enabled,
            changes,
            removed: entries,
            adopted,
        })
    }

    fn told(&self, cluster: &ClusterId, live: &[Live], now: Timestamp) -> pb::TrustImpact {
        let changes = &self.changes;
        let (left, until) = impact::left(&changes.after, now);
        let added = changes
            .added
            .iter()
            .map(|wanted| views::trust_entry_of(&entry(wanted, cluster, now), &wanted.certificate));
        let certificates: HashMap<_, _> = changes
            .removed
            .iter()
            .map(|(_, certificate)| (certificate.fingerprint(), certificate))
            .collect();
        let removed = self.removed.iter().filter_map(|entry| {
            let certificate = certificates.get(&entry.fingerprint)?;
            Some(views::trust_entry_of(entry, certificate))
        });
        let theirs = live.iter().filter(|live| live.cluster == *cluster);
        pb::TrustImpact {
            cluster_id: cluster.to_string(),
            enabled: self.enabled,
            added: added.collect(),
            kept: u32::try_from(changes.kept.len()).unwrap_or(u32::MAX),
            replaced: removed.collect(),
            good: u32::try_from(left).unwrap_or(u32::MAX),
            good_until: until.map(|until| until.to_string()).unwrap_or_default(),
            connections: theirs.map(|live| self.connection(live)).collect(),
            unheard: changes.unheard.iter().map(fingerprint_text).collect(),
            adopted: u32::try_from(self.adopted.len()).unwrap_or(u32::MAX),
        }
    }

    fn connection(&self, live: &Live) -> pb::LiveConnection {
        let (before, after) = (&self.changes.before, &self.changes.after);
        let (fate, until) = match impact::fate(&live.shown, before, after) {
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

fn entry(wanted: &Wanted, cluster: &ClusterId, now: Timestamp) -> TrustEntry {
    TrustEntry {
        cluster_id: cluster.clone(),
        kind: wanted.kind,
        fingerprint: wanted.certificate.fingerprint(),
        der: wanted.certificate.der().to_vec(),
        added_at: now,
        source: Source::Imported,
        alias: wanted.alias.clone(),
    }
}

/// An import whose caller listens.
enum Import {
    /// With how far it is, and whether that was told before.
    UnderWay(Importing, watch::Receiver<Done>, bool),
    /// It is over, and these are the last messages.
    Over(std::vec::IntoIter<Result<pb::ImportTrustResponse, Status>>),
}

/// An import on its way.
pub type Importing = Pin<Box<dyn Future<Output = Result<pb::ImportedTrust, Error>> + Send>>;

/// How far an import is, some times a second, and at last what was done. It is one transaction: a caller who goes away
/// has changed all or nothing.
pub fn told(importing: Importing, progress: watch::Receiver<Done>) -> Told {
    let state = Import::UnderWay(importing, progress, false);
    Box::pin(stream::unfold(state, |state| async move {
        let mut last = match state {
            Import::Over(last) => last,
            Import::UnderWay(mut importing, mut progress, is_told) => tokio::select! {
                biased;
                done = &mut importing => last_messages(done).into_iter(),
                progressed = next(&mut progress, is_told) => {
                    let message = pb::ImportTrustResponse {
                        progress: Some(progressed),
                        ..pb::ImportTrustResponse::default()
                    };
                    return Some((Ok(message), Import::UnderWay(importing, progress, true)));
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

/// The next state that is worth telling: the first one at once.
async fn next(progress: &mut watch::Receiver<Done>, is_told: bool) -> pb::ApplyProgress {
    if is_told {
        tokio::time::sleep(PACE).await;
    }
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
const TELL_EVERY: u64 = 256;
/// Entries: one or two MiB.
const IN_ONE_MESSAGE: usize = 2_000;
/// Between two messages on how far it is.
const PACE: Duration = Duration::from_millis(200);
#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        edge::admin::roles::{Account, Groups},
        store,
        trust::fixtures::{Spec, cluster},
    };

    #[tokio::test]
    async fn what_the_file_has_stays_though_it_came_by_the_word_of_what_goes() {
        let store = Store::open(&store::Config {
            url: "sqlite::memory:".to_owned(),
            node: "n1".to_owned(),
        })
        .unwrap();
        let now = Clock::system().now();
        let of = |name: &str| Spec::new(name).self_signed().certificate();
        let (old, next, waits) = (of("old"), of("next"), of("waits"));
        let entry = |certificate: &Certificate, source| TrustEntry {
            cluster_id: cluster("tokyo"),
            kind: EntryKind::Pinned,
            fingerprint: certificate.fingerprint(),
            der: certificate.der().to_vec(),
            added_at: now,
            source,
            alias: None,
        };
        let entries = [
            entry(&old, Source::Operator),
            entry(&next, Source::Announced),
        ];
        let (old, waits) = (old.fingerprint(), waits);
        let (child, waiting) = (next.fingerprint(), waits.fingerprint());
        let waits = announcements::WaitingEntry {
            cluster_id: cluster("tokyo"),
            fingerprint: waiting,
            der: waits.der().to_vec(),
            since: now,
        };
        let put = store.write(move |tx| {
            let peer = Peer {
                cluster_id: cluster("tokyo"),
                enabled: true,
                allow_emcc: true,
                addresses: Vec::new(),
                node_names: Vec::new(),
                user_patterns: Vec::new(),
                dn_patterns: Vec::new(),
                ignore_eku: false,
                accept_announcements: crate::domain::announcement::Acceptance::default(),
                description: String::new(),
            };
            peers::upsert(tx, &peer)?;
            for entry in &entries {
                trust_entries::add(tx, entry)?;
            }
            announcements::wait(tx, &waits)?;
            announcements::descend(tx, &cluster("tokyo"), &child, &old)?;
            announcements::descend(tx, &cluster("tokyo"), &waiting, &old)
        });
        let _: () = put.await.unwrap();

        let account = Account {
            uid: 0,
            name: None,
            groups: BTreeSet::new(),
        };
        let actor = Actor::new(account, 0, &Groups::default());
        let wanted = Wanted {
            kind: EntryKind::Pinned,
            alias: None,
            certificate: next,
        };
        let bringing = Bringing {
            own: cluster("berlin"),
            asked: Asked {
                dry_run: false,
                replace: true,
                certificates: vec![("tokyo".to_owned(), wanted)],
            },
            live: Vec::new(),
            faults: FaultPoints::default(),
        };
        let (tell, _told) = watch::channel(Done::default());
        let imported = import(&store, bringing, &actor, now, tell).await.unwrap();
        let peer = &imported.peers[0];
        assert_eq!((peer.kept, peer.adopted, peer.replaced.len()), (1, 1, 1));
        assert_eq!(peer.unheard, [fingerprint_text(&waiting)]);
        let left = store.read(move |tx| {
            let descendants = announcements::descendants(tx, &cluster("tokyo"), &old)?;
            let left = trust_entries::of(tx, &cluster("tokyo"))?;
            Ok::<_, store::Error>((left, descendants, announcements::waiting(tx)?))
        });
        let (left, descendants, waits) = left.await.unwrap();
        let left: Vec<_> = left.iter().map(|e| (e.fingerprint, e.source)).collect();
        assert_eq!(left, [(child, Source::Imported)]);
        assert!(!descendants.contains(&child) && waits.is_empty());
    }
}
