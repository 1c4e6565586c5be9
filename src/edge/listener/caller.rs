//! Who is at the other end of a federation connection, by the trust of this moment.

use std::{net::SocketAddr, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    clock::Timestamp,
    domain::{capability::Traits, ids::ClusterId},
    trust::{
        Snapshot, TrustStore,
        certificate::{Certificate, Fingerprint, fingerprint_of, fingerprint_text},
        judge::Verdict,
        refusals::{Novelty, Side},
    },
};

/// What every handler finds in the extensions of its request: who called, as the certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnIdentity {
    /// Address of the caller.
    pub remote: SocketAddr,
    /// The peer, or why there is none; handlers are reached by identified peers only.
    pub verdict: Verdict,
    /// Fingerprint of the caller's leaf.
    pub fingerprint: Option<String>,
    /// What it proved in the handshake, the leaf first; nothing when it showed no certificate.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// When the caller's leaf ends.
    pub leaf_not_after: Option<Timestamp>,
    /// What the node at the other end has told of itself on this connection.
    pub introduced: Introduced,
    /// Told when the caller is to begin another connection in place of this one.
    pub leaving: Leaving,
}

/// Cancelled when a caller is to begin another connection. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Leaving(CancellationToken);

impl Leaving {
    /// Has the caller told.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// The token itself.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.0.clone()
    }
}

impl PartialEq for Leaving {
    fn eq(&self, other: &Self) -> bool {
        self.0.is_cancelled() == other.0.is_cancelled()
    }
}

impl Eq for Leaving {}

/// What a node told of itself in `Hello`: two nodes of one peer may differ while it is upgraded. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Introduced(Arc<ArcSwapOption<Traits>>);

impl Introduced {
    /// It said `Hello`.
    pub fn told(&self, traits: Traits) {
        self.0.store(Some(Arc::new(traits)));
    }

    /// What it told last; none before its first `Hello`.
    #[must_use]
    pub fn traits(&self) -> Option<Traits> {
        self.0.load().as_deref().copied()
    }
}

impl PartialEq for Introduced {
    fn eq(&self, other: &Self) -> bool {
        self.traits() == other.traits()
    }
}

impl Eq for Introduced {}

impl ConnIdentity {
    /// The peer that called.
    #[must_use]
    pub fn peer(&self) -> Option<&ClusterId> {
        self.verdict.peer()
    }
}

/// One connection's chain and the newest judgement on it.
pub(super) struct Caller {
    trust: TrustStore,
    chain: Arc<[CertificateDer<'static>]>,
    judged: ArcSwap<Judged>,
    /// The certificate that we showed.
    own: Option<Fingerprint>,
}

struct Judged {
    generation: u64,
    identity: Arc<ConnIdentity>,
}

impl Caller {
    /// Judges the chain that a handshake proved.
    pub(super) fn new(
        trust: TrustStore,
        remote: SocketAddr,
        chain: Vec<CertificateDer<'static>>,
        own: Option<Fingerprint>,
    ) -> Self {
        let snapshot = trust.snapshot();
        let chain: Arc<[CertificateDer<'static>]> = chain.into();
        let leaf = chain.first();
        let identity = ConnIdentity {
            remote,
            verdict: snapshot.identify(&chain),
            fingerprint: leaf.map(|der| fingerprint_text(&fingerprint_of(der))),
            chain: Arc::clone(&chain),
            leaf_not_after: leaf
                .and_then(|der| Certificate::from_der(der).ok())
                .map(|leaf| leaf.not_after()),
            introduced: Introduced::default(),
            leaving: Leaving::default(),
        };
        if let Some(peer) = identity.peer() {
            trust.note_shown(peer, &chain);
        }
        let judged = Judged {
            generation: snapshot.generation(),
            identity: Arc::new(identity),
        };
        Self {
            trust,
            chain,
            judged: ArcSwap::from_pointee(judged),
            own,
        }
    }

    /// Whether we show another certificate by now than we did when it came.
    pub(super) fn is_out_of_date(&self) -> bool {
        let snapshot = self.trust.snapshot();
        let now = snapshot.identity().map(|own| own.leaf().fingerprint());
        self.own.is_some() && now.is_some() && self.own != now
    }

    /// Who it is by the trust and the time of this moment: it is judged again when either has moved on, so
    /// that not even a call in flight between two snapshots slips through.
    pub(super) fn identity(&self) -> Arc<ConnIdentity> {
        let judged = self.judged.load();
        let snapshot = self.trust.snapshot();
        let has_ended = judged.identity.peer().is_some()
            && judged
                .identity
                .leaf_not_after
                .is_some_and(|end| self.trust.clock().now() > end);
        if judged.generation == snapshot.generation() && !has_ended {
            return Arc::clone(&judged.identity);
        }
        self.judge(&judged.identity, &snapshot)
    }

    /// The same, judged now in any case: of the chain it is not only the leaf that ends one day.
    pub(super) fn judged_again(&self) -> Arc<ConnIdentity> {
        let judged = self.judged.load();
        self.judge(&judged.identity, &self.trust.snapshot())
    }

    fn judge(&self, last: &ConnIdentity, snapshot: &Snapshot) -> Arc<ConnIdentity> {
        let identity = Arc::new(ConnIdentity {
            verdict: snapshot.identify(&self.chain),
            ..last.clone()
        });
        let judged = Judged {
            generation: snapshot.generation(),
            identity: Arc::clone(&identity),
        };
        self.judged.store(Arc::new(judged));
        identity
    }

    pub(super) fn trust(&self) -> &TrustStore {
        &self.trust
    }
}

/// Remembers a refusal, and logs it unless the same one was logged a moment ago.
pub(super) fn report_refusal(
    trust: &TrustStore,
    side: Side,
    remote: SocketAddr,
    verdict: &Verdict,
) {
    let Verdict::Rejected {
        rejection,
        certificate,
        expectation,
        mend,
    } = verdict
    else {
        return;
    };
    let now = trust.clock().now();
    match trust.refusals().record(side, verdict, remote, now) {
        Novelty::New { muted: 0 } => {}
        Novelty::New { muted } => {
            warn!(
                muted,
                "suppressed {muted} lines about refused callers before this one"
            );
        }
        Novelty::Flood { is_first } => {
            if is_first {
                warn!(
                    "more refused callers than are logged in one second; the others are only counted"
                );
            }
            debug!(%remote, %rejection, "refused a caller among too many");
            return;
        }
        Novelty::Repeat => {
            debug!(%remote, %rejection, "refused the caller again");
            return;
        }
    }
    let subject = certificate.as_ref().map_or("", |leaf| leaf.subject());
    let fingerprint = certificate
        .as_ref()
        .map(Certificate::fingerprint_text)
        .unwrap_or_default();
    let dates = certificate
        .as_ref()
        .map(|leaf| format!("{} to {}", leaf.not_before(), leaf.not_after()));
    let valid = dates.unwrap_or_default();
    let story = match side {
        Side::Own => "the caller refused us",
        Side::Caller | Side::Answerer => "refused the caller",
    };
    warn!(
        %remote,
        %rejection,
        subject,
        fingerprint,
        valid,
        expectation,
        mend,
        "{story} at {remote}: {rejection}: {}",
        rejection.meaning()
    );
}
