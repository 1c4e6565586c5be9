//! What operators ask of a running node beyond its records.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use super::{
    applied,
    clock_steps::ClockSteps,
    expiry::Certificates,
    explaining::Explainer,
    handover::{Asked, HandOver, Whose},
    mirror::{self, Next},
    reload::{Reloader, Shown},
    siblings::Siblings,
};
use crate::{
    apply::{Applier, Mode, Progress, Rest, Source, edit::Edit},
    clock::{self, Clock, Timestamp},
    domain::{
        federation::Links as _, ids::ClusterId, parameters::Parameters, purpose::Purpose,
        session::Role, version::VersionRange,
    },
    edge::admin::{
        error::Error,
        operations::{Answer, ApplyMode, Explain, File, Live, Operations, SessionKey},
        roles::Actor,
        views,
    },
    home::{self, HomeRole},
    peer::{LinkState, LinkStatus, NodeStatus, Peers},
    store::{
        self, Store, Transaction, announcements, membership::Membership, trust_entries::EntryKind,
    },
    trust::{TrustStore, explain::Part, mend::mend_link, refusals::Refused, shown::Chain},
    visiting::{self, VisitingRole},
    watch,
    wire::admin as pb,
};

#[derive(Debug)]
pub(super) struct NodeOperations {
    pub(super) cluster: ClusterId,
    pub(super) node: String,
    pub(super) versions: VersionRange,
    pub(super) clock: Clock,
    pub(super) store: Store,
    pub(super) membership: Membership,
    pub(super) applier: Applier,
    pub(super) trust: TrustStore,
    pub(super) peers: Peers,
    pub(super) hand_over: HandOver,
    pub(super) reloader: Arc<Reloader>,
    pub(super) certificates: Certificates,
    pub(super) home: HomeRole,
    pub(super) visiting: VisitingRole,
    pub(super) steps: ClockSteps,
}

impl Operations for NodeOperations {
    fn cluster_status(&self) -> Answer<'_, pb::GetClusterStatusResponse> {
        Box::pin(async move {
            let (siblings, waiting) = (self.siblings().await?, self.waiting().await?);
            let next = self.announced().await?;
            let down = self.reloader.federation_down();
            let peers = self.peers.status();
            Ok(pb::GetClusterStatusResponse {
                cluster_id: self.cluster.to_string(),
                node: self.node.clone(),
                software: self.peers.config().software.clone(),
                versions: self.versions.to_string(),
                now: self.clock.now().to_string(),
                federation_hint: down.as_ref().map(|_| {
                    "mend the files that `emccd cert show` names, then run `emccd cert reload`"
                        .to_owned()
                }),
                federation_down_reason: down,
                peers: peers
                    .iter()
                    .map(|link| self.peer_status(link, &siblings, &waiting, &next))
                    .collect(),
                nodes: siblings.nodes(),
                clock_step: self.steps.told(clock::instant()),
                refusals: self
                    .trust
                    .refusals()
                    .list()
                    .into_iter()
                    .map(refusal)
                    .collect(),
            })
        })
    }

    fn identities(&self) -> Answer<'_, Vec<pb::Identity>> {
        let shown = self.told();
        Box::pin(async move { Ok(shown) })
    }

    fn own_certificates(&self) -> Answer<'_, Vec<pb::BulkCertificate>> {
        let shown = self.reloader.shown().into_iter();
        let to_peers = shown.filter(|shown| shown.purpose != Purpose::Phone);
        let told = to_peers.filter_map(|shown| {
            Some(pb::BulkCertificate {
                cluster_id: self.cluster.to_string(),
                kind: EntryKind::Pinned.as_str().to_owned(),
                alias: format!("{}/{}", self.node, shown.purpose),
                der: shown.identity?.leaf().der().to_vec(),
            })
        });
        let told = told.collect();
        Box::pin(async move { Ok(told) })
    }

    fn live(&self) -> Vec<Live> {
        let uses = self.trust.in_use().all().into_iter();
        uses.map(|used| Live {
            told: used.to_string(),
            cluster: used.cluster,
            shown: used.shown,
        })
        .collect()
    }

    fn reload_identities<'a>(&'a self, actor: &'a Actor) -> Answer<'a, Vec<pb::Identity>> {
        Box::pin(async move {
            let actor = actor.to_string();
            if let Err(refused) = self.check_files(&actor).await {
                let why = crate::telemetry::error_chain(&refused);
                self.reloader.audit(&actor, Err(why)).await?;
                return Err(refused);
            }
            // Both are read, whatever becomes of the first.
            let federation = self.reloader.reload_federation_identity();
            let phone = self.reloader.reload_phone_identity();
            let outcome = federation.and(phone);
            let told = outcome
                .as_ref()
                .map_err(|error| crate::telemetry::error_chain(error));
            self.reloader.audit(&actor, told.copied()).await?;
            match outcome {
                Ok(()) => Ok(self.told()),
                Err(error) => Err(Error::refused(
                    format!(
                        "{}; the last good one stays in force",
                        crate::telemetry::error_chain(&error)
                    ),
                    "mend the files that `emccd cert show` names, then run `emccd cert reload` again",
                )),
            }
        })
    }

    fn forecast(&self, cluster: Option<&ClusterId>, at: Timestamp) -> pb::ForecastTrustResponse {
        self.certificates.forecast(cluster, at)
    }

    fn shown_by_peers(&self) -> Vec<Chain> {
        self.trust.shown_of_late()
    }

    fn peers_changed(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.reloader.refresh_peers().await.map_err(|error| {
                Error::refused(
                    crate::telemetry::error_chain(&error),
                    "the last good peers stay in force",
                )
            })
        })
    }

    fn ring(&self, cluster: &ClusterId) {
        self.peers.ring(cluster);
    }

    fn parameters_in_force(&self) -> Arc<Parameters> {
        self.reloader.parameters().load()
    }

    fn parameters_changed(&self) -> Answer<'_, ()> {
        Box::pin(async move { Ok(self.reloader.refresh_parameters().await?) })
    }

    fn end_session<'a>(&'a self, key: &'a SessionKey, actor: &'a Actor) -> Answer<'a, bool> {
        Box::pin(async move {
            let actor = actor.to_string();
            match key.role {
                Role::Visiting => match self.visiting.end(&key.counterpart, key.id, &actor).await {
                    Ok(ended) => Ok(ended.acknowledged),
                    Err(visiting::Error::Store(error)) => Err(error.into()),
                    Err(visiting::Error::StoreSlow) => Err(crate::store::Error::Busy.into()),
                    Err(error) => Err(Error::refused(
                        error.to_string(),
                        "`emccd session list` shows what there is",
                    )),
                },
                Role::Home => match self.home.end(&key.counterpart, key.id, &actor).await {
                    Ok(home::Ended::Now { owed }) => Ok(!owed),
                    Ok(home::Ended::Before(_)) => Ok(true),
                    Err(home::Error::Store(error)) => Err(error.into()),
                    Err(error) => Err(Error::refused(
                        error.to_string(),
                        "`emccd session list` shows what there is",
                    )),
                },
            }
        })
    }

    fn edit<'a>(&'a self, edit: Edit, actor: &'a Actor) -> Answer<'a, Vec<pb::ApplyCount>> {
        Box::pin(async move {
            let changes = self.applier.edit(edit, &actor.to_string()).await;
            let changes = changes.map_err(applied::edit_error)?;
            Ok(applied::told(&changes, false).counts)
        })
    }

    fn retire_peer<'a>(
        &'a self,
        cluster: &'a ClusterId,
        forget_owed: bool,
        actor: &'a Actor,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let leaving = home::Leaving {
                cluster: cluster.clone(),
                actor: actor.to_string(),
                within: RETIRE,
                forget_owed,
            };
            self.home
                .retire_peer(&leaving)
                .await
                .map(drop)
                .map_err(stays)
        })
    }

    fn keep_peer<'a>(&'a self, cluster: &'a ClusterId) -> Answer<'a, ()> {
        Box::pin(async move {
            self.home.keep_peer(cluster).await;
            Ok(())
        })
    }

    fn refresh_cluster<'a>(&'a self, cluster: &'a ClusterId) -> Answer<'a, pb::PeerStatus> {
        Box::pin(async move {
            let missing = || Error::missing(format!("peer {cluster}"), "emccd cluster list");
            self.peers_changed().await?;
            if !self.peers.dial_now(cluster) {
                return Err(missing());
            }
            let deadline = clock::instant() + REFRESH;
            let is_it = |link: &&LinkStatus| link.cluster == *cluster;
            let settled = |all: &[LinkStatus]| {
                let link = all.iter().find(is_it);
                link.is_none_or(|link| !link.enabled || link.outbound == LinkState::Up)
            };
            self.peers.wait_for(settled, deadline).await;
            let (siblings, waiting) = (self.siblings().await?, self.waiting().await?);
            let next = self.announced().await?;
            let all = self.peers.status();
            let link = all.iter().find(is_it).ok_or_else(missing)?;
            Ok(self.peer_status(link, &siblings, &waiting, &next))
        })
    }

    fn explain_trust<'a>(&'a self, asked: &'a Explain) -> Answer<'a, Vec<Part>> {
        let shown = self.reloader.shown().into_iter();
        let own = shown.filter_map(|shown| shown.identity);
        let explainer = Explainer {
            clock: &self.clock,
            trust: &self.trust,
            peers: &self.peers,
            own: own
                .map(|identity| identity.leaf().fingerprint_text())
                .collect(),
        };
        Box::pin(async move { explainer.explain(asked).await })
    }

    fn hand_over<'a>(&'a self, asked: &'a pb::HandOverRequest, actor: &'a Actor) -> Answer<'a, ()> {
        Box::pin(async move {
            let asked = Asked {
                to: Path::new(&asked.socket),
                by: Whose {
                    cluster: asked.cluster_id.clone(),
                    node: asked.node.clone(),
                    store: asked.store.clone(),
                },
                actor: &actor.to_string(),
                // The new process has the keys: it is not enough that somebody may change records.
                is_owner: actor.owns_the_node(),
            };
            let sent = self.hand_over.send_to(&asked).await;
            sent.map_err(|why| {
                Error::refused(why, "this node goes on; look at its log and try again")
            })
        })
    }

    fn apply<'a>(
        &'a self,
        files: Vec<File>,
        mode: ApplyMode,
        actor: &'a Actor,
        told: watch::Sender<Progress>,
    ) -> Answer<'a, pb::ApplyResponse> {
        Box::pin(async move {
            let sources: Vec<Source> = files
                .into_iter()
                .map(|file| Source {
                    name: file.name,
                    text: file.content,
                })
                .collect();
            let how = if mode.dry_run {
                Mode::DryRun
            } else {
                Mode::Write
            };
            let rest = if mode.prune { Rest::Goes } else { Rest::Stays };
            let actor = actor.to_string();
            let changes = self
                .applier
                .apply_agreed(&sources, (how, rest), mode.removals, &actor, &told)
                .await
                .map_err(applied::error)?;
            Ok(applied::told(&changes, mode.dry_run))
        })
    }
}

impl NodeOperations {
    /// The certificates of this node.
    fn told(&self) -> Vec<pb::Identity> {
        let shown = self.reloader.shown().into_iter();
        shown.map(|shown| identity(&self.node, shown)).collect()
    }

    /// How many certificates of each peer wait for an operator.
    async fn waiting(&self) -> Result<BTreeMap<ClusterId, u32>, store::Error> {
        let entries = self
            .store
            .read(|tx: &mut dyn Transaction| announcements::waiting(tx))
            .await?;
        let mut waiting = BTreeMap::new();
        for entry in entries {
            *waiting.entry(entry.cluster_id).or_default() += 1;
        }
        Ok(waiting)
    }

    fn peer_status(
        &self,
        link: &LinkStatus,
        siblings: &Siblings,
        waiting: &BTreeMap<ClusterId, u32>,
        next: &[Next],
    ) -> pb::PeerStatus {
        let snapshot = self.trust.snapshot();
        let ours = mirror::Ours {
            us: &self.cluster,
            node: &self.node,
            next,
        };
        let otherwise = link.accepts_otherwise().into_iter();
        pb::PeerStatus {
            our_certificates: mirror::ours(&ours, link, &snapshot, self.clock.now()),
            accepts_otherwise: otherwise
                .map(|node| node.node.clone().unwrap_or_else(|| node.address.clone()))
                .collect(),
            accepted: mirror::accepted(link),
            waiting: waiting.get(&link.cluster).copied().unwrap_or_default(),
            agreement: self.agreement(link),
            ..peer_status(link, siblings)
        }
    }

    /// Whether the peer can be asked about sessions; what the store has of it is filled in afterwards.
    fn agreement(&self, link: &LinkStatus) -> Option<pb::SessionAgreement> {
        let is_unable = self.peers.can_sync(&link.cluster) == Some(false);
        let state = if is_unable { "unable" } else { "unknown" };
        link.enabled.then(|| pb::SessionAgreement {
            state: state.to_owned(),
            ..pb::SessionAgreement::default()
        })
    }

    async fn siblings(&self) -> Result<Siblings, store::Error> {
        Siblings::look(&self.store, &self.membership, &self.clock).await
    }
}

/// Why a peer is not removed, and what to do first.
fn stays(why: home::Stays) -> Error {
    let told = why.to_string();
    let next = match why {
        home::Stays::Store(error) => return error.into(),
        home::Stays::Unknown(cluster) => {
            return Error::missing(format!("peer {cluster}"), "emccd cluster list");
        }
        home::Stays::SessionsLive { cluster, .. } => format!(
            "let none of its phones in with: emccd cluster set {cluster} --allow-emcc false; end them with emccd \
             session logout, which emccd session list --peer {cluster} names; or have them end with: emccd param set \
             end-sessions-on-revocation on"
        ),
        home::Stays::Unreachable { cluster, .. } => format!(
            "mend the link first, with emccd cluster refresh {cluster}; or end them here and forget to tell it, with: \
             emccd cluster remove {cluster} --forget-owed"
        ),
        home::Stays::NotTold { cluster, .. } => format!(
            "remove it again when emccd cluster status owes it nothing; or forget to tell it, with: emccd cluster \
             remove {cluster} --forget-owed"
        ),
    };
    Error::refused(told, next)
}

/// How long a peer may take to learn that its sessions are over.
const RETIRE: Duration = Duration::from_secs(30);

/// Long enough for a peer to answer that is there, and for the reason why one is not.
const REFRESH: Duration = Duration::from_secs(8);

pub(super) fn millis(length: std::time::Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

fn peer_status(link: &LinkStatus, siblings: &Siblings) -> pb::PeerStatus {
    // A link that nobody wants is not one that failed.
    let state = if link.enabled {
        link.outbound.as_str()
    } else {
        "disabled"
    };
    pb::PeerStatus {
        cluster_id: link.cluster.to_string(),
        enabled: link.enabled,
        outbound: Some(pb::OutboundStatus {
            state: state.to_owned(),
            state_age_ms: millis(link.since),
            proof_age_ms: link.proof_age.map(millis),
            version: link.version.map(|v| v.to_string()),
            node: link.node.clone(),
            software: link.software.clone(),
            address: link.address.clone(),
            reason: link.last_error.clone(),
            rejection: link.rejection.map(|r| r.as_str().to_owned()),
            hint: link
                .rejection
                .map(|rejection| mend_link(rejection, &link.cluster)),
            clock_offset_ms: link.clock_offset_ms,
        }),
        inbound: Some(pb::InboundStatus {
            watching: link.inbound.watching,
            last_seen_age_ms: link.inbound.last_seen_age.map(millis),
            peer_proof_age_ms: link.inbound.reverse_proof_age.map(millis),
            peer_down_reason: link.inbound.reverse_down_reason.clone(),
        }),
        owed_ends: 0,
        nodes: link.nodes.iter().map(peer_node).collect(),
        own_links: siblings.links(link),
        ..pb::PeerStatus::default()
    }
}

fn peer_node(node: &NodeStatus) -> pb::PeerNode {
    let state = if node.draining {
        "draining"
    } else {
        node.state.as_str()
    };
    let told = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    pb::PeerNode {
        address: node.address.clone(),
        state: state.to_owned(),
        state_age_ms: millis(node.since),
        proof_age_ms: node.proof_age.map(millis),
        node: told(&node.node),
        software: told(&node.software),
        version: node.version.map(|version| version.to_string()),
        reason: node.trouble(),
        instance: told(&node.instance),
        learned: node.learned,
    }
}

fn refusal(refused: Refused) -> pb::DoorRefusal {
    pb::DoorRefusal {
        at: refused.at.to_string(),
        remote: refused.remote.to_string(),
        rejection: refused.rejection.as_str().to_owned(),
        subject: refused.subject,
        fingerprint: refused.fingerprint,
        not_before: refused.valid.map(|(from, _)| from.to_string()),
        not_after: refused.valid.map(|(_, to)| to.to_string()),
        side: refused.side.as_str().to_owned(),
        expectation: refused.expectation,
        hint: refused.mend,
        count: refused.count,
    }
}

fn identity(node: &str, shown: Shown) -> pb::Identity {
    pb::Identity {
        node: node.to_owned(),
        purpose: shown.purpose.to_string(),
        certificate: shown
            .identity
            .as_ref()
            .map(|i| views::certificate(i.leaf())),
        chain: shown
            .identity
            .as_ref()
            .map(|i| i.chain().iter().skip(1).map(views::certificate).collect())
            .unwrap_or_default(),
        file: Some(shown.files.certificate.display().to_string()),
        problem: shown.problem,
    }
}
