//! What the admin service needs from the rest of the node: the roles, the links, the identities.
//!
//! The service itself reads and writes records in the store. Everything that has an effect beyond the
//! store goes through [`Operations`], which the node's wiring implements.

use std::{future::Future, pin::Pin, sync::Arc};

use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::{
    apply::{Progress, edit::Edit},
    clock::Timestamp,
    domain::{
        address::HostPort,
        ids::{ClusterId, SessionId},
        parameters::Parameters,
        session::Role,
    },
    edge::admin::{error::Error, roles::Actor},
    trust::{certificate::Fingerprint, explain::Part, shown::Chain},
    watch,
    wire::admin as pb,
};

/// A future answer.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Which row of which session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionKey {
    /// Our part in it.
    pub role: Role,
    /// The other cluster; our own for a local login.
    pub counterpart: ClusterId,
    /// The session.
    pub id: SessionId,
}

/// A connection with a peer, and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The peer.
    pub cluster: ClusterId,
    /// Which one it is, in words.
    pub told: String,
    /// Fingerprints of what the peer showed, the leaf first.
    pub shown: Vec<Fingerprint>,
}

/// One input file of `apply`. It may hold PINs, so it has no `Debug`.
#[allow(missing_debug_implementations, reason = "the content may hold PINs")]
pub struct File {
    /// For messages.
    pub name: String,
    /// TOML; wiped when dropped.
    pub content: Zeroizing<String>,
}

/// What a running node can be asked for beyond its store.
///
/// Each is called only after the caller's role was checked. What changes something writes the audit entry,
/// in the name of the actor, in the transaction of the change.
pub trait Operations: Send + Sync + 'static {
    /// How we see each peer and what each says it sees of us. `owed_ends` is filled in afterwards.
    fn cluster_status(&self) -> Answer<'_, pb::GetClusterStatusResponse>;

    /// The certificates that this node shows, the federation's first.
    fn identities(&self) -> Answer<'_, Vec<pb::Identity>>;

    /// The certificates that this cluster shows to its peers, as they are written to a file for them.
    fn own_certificates(&self) -> Answer<'_, Vec<pb::BulkCertificate>>;

    /// The connections with peers that this node has now.
    fn live(&self) -> Vec<Live>;

    /// Reads the identity files again and publishes them; on any error the last good ones stay.
    fn reload_identities<'a>(&'a self, actor: &'a Actor) -> Answer<'a, Vec<pb::Identity>>;

    /// What is accepted at that moment, and what breaks until then, with one peer or with all.
    fn forecast(&self, cluster: Option<&ClusterId>, at: Timestamp) -> pb::ForecastTrustResponse;

    /// The chains that peers have shown to this node of late, and that were accepted.
    fn shown_by_peers(&self) -> Vec<Chain>;

    /// Peer records or trust entries have changed in the store. Answers once this node has loaded them,
    /// so that a command's next line finds them in force.
    fn peers_changed(&self) -> Answer<'_, ()>;

    /// Has a peer that is linked compare sessions with us now: one is over here of which nobody will tell it.
    fn ring(&self, cluster: &ClusterId);

    /// The parameters that this node goes by.
    fn parameters_in_force(&self) -> Arc<Parameters>;

    /// Parameters have changed in the store. Answers once this node has loaded them.
    fn parameters_changed(&self) -> Answer<'_, ()>;

    /// Ends a session for the reason `operator` and tells the other cluster. `true` when it has
    /// acknowledged; otherwise the end is owed and will be delivered.
    fn end_session<'a>(&'a self, key: &'a SessionKey, actor: &'a Actor) -> Answer<'a, bool>;

    /// Adds or changes one record.
    fn edit<'a>(&'a self, edit: Edit, actor: &'a Actor) -> Answer<'a, Vec<pb::ApplyCount>>;

    /// Ends all sessions shared with a peer that is to be removed, and waits until it knows, for a while. No session
    /// with it begins from then on. Refused where that can't be; then it is as it was.
    fn retire_peer<'a>(
        &'a self,
        cluster: &'a ClusterId,
        forget_owed: bool,
        actor: &'a Actor,
    ) -> Answer<'a, ()>;

    /// Lets sessions with a peer begin again that was to be removed and stays after all.
    fn keep_peer<'a>(&'a self, cluster: &'a ClusterId) -> Answer<'a, ()>;

    /// Has the link to a peer tried at once, and tells how it stands then. `owed_ends` is left open.
    fn refresh_cluster<'a>(&'a self, cluster: &'a ClusterId) -> Answer<'a, pb::PeerStatus>;

    /// Tells step by step why something is trusted or not; dials where that is asked for.
    fn explain_trust<'a>(&'a self, asked: &'a Explain) -> Answer<'a, Vec<Part>>;

    /// Sends this node's listening sockets to a new process of it, where that one waits, and has this node end once it
    /// serves. Answers when they were sent.
    fn hand_over<'a>(&'a self, asked: &'a pb::HandOverRequest, actor: &'a Actor) -> Answer<'a, ()>;

    /// Brings the cluster's data to what the files say, all or nothing, and tells how far it has come.
    fn apply<'a>(
        &'a self,
        files: Vec<File>,
        mode: ApplyMode,
        actor: &'a Actor,
        told: watch::Sender<Progress>,
    ) -> Answer<'a, pb::ApplyResponse>;
}

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explain {
    /// What is looked at.
    pub what: Explained,
    /// The peer that it must be of; none when any will do.
    pub wanted: Option<ClusterId>,
}

/// What can be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explained {
    /// What answers there.
    Address(HostPort),
    /// Both directions between this peer and us.
    Peer(ClusterId),
    /// A chain, the leaf first.
    Chain(Vec<CertificateDer<'static>>),
}

/// How `apply` is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyMode {
    /// Check and tell, and change nothing.
    pub dry_run: bool,
    /// Delete what no file names, of the kinds that the files hold.
    pub prune: bool,
    /// The digest of what may be deleted, where somebody was asked.
    pub removals: Option<String>,
}
