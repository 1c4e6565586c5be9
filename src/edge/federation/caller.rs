//! Who calls: the peer that the connection's certificate identifies, and what the call says of itself.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls_pki_types::CertificateDer;
use tonic::{Extensions, Request, Status, metadata::MetadataMap};

use crate::{
    chance::Chance,
    clock::Timestamp,
    domain::{
        capability::Traits,
        em_code::EmCode,
        ids::{ClusterId, Ref},
        login::Context,
        refusal::Refusal,
        rejection::Rejection,
        version::{Version, VersionRange},
    },
    edge::{
        federation::refused::{RefusalLog, Told},
        listener::{ConnIdentity, Introduced, Leaving, MAX_CALL, grpc_timeout},
    },
    peer,
    trust::{certificate::fingerprint_of, judge::Verdict},
    wire::{metadata, status},
};

/// How long a call may take that names no deadline, and the longest that one may name.
const DEADLINE_BOUNDS: (Duration, Duration) = (Duration::from_secs(10), MAX_CALL);

/// The caller of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Proven by its certificate, and not contradicted by the call.
    pub cluster: ClusterId,
    /// Where it called from.
    pub remote: SocketAddr,
    /// Fingerprint of the leaf that proves it.
    pub fingerprint: Option<String>,
    /// What proves it, the leaf first.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// What its node told of itself on this connection.
    pub introduced: Introduced,
    /// Whether it is to begin another connection.
    pub leaving: Leaving,
    /// What it speaks on this call.
    pub version: Version,
    /// The attempt; made here when the call names none.
    pub reference: Ref,
    /// When the answer is of no use any more.
    pub deadline: Instant,
}

/// What identifying needs to know of us.
#[derive(Clone, Copy, Debug)]
pub struct Door<'a> {
    /// Our own cluster.
    pub cluster_id: &'a ClusterId,
    /// What we speak.
    pub versions: VersionRange,
    /// Where our own operator reads of refusals.
    pub log: &'a RefusalLog,
    /// The present moment by the wall clock, told to callers that we refuse.
    pub wall: Timestamp,
    /// The same by the monotonic one.
    pub now: Instant,
    /// Makes a reference for who brought none.
    pub chance: &'a Chance,
}

impl Door<'_> {
    /// The caller of `request`, if it may call at all. Its version is not looked at: that is what `Hello`
    /// is for.
    ///
    /// # Errors
    /// The status to answer with: a trust refusal, or EM code 42.
    pub fn greet<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let call = request.metadata();
        let reference = metadata::reference(call)
            .ok()
            .flatten()
            .unwrap_or_else(|| crate::domain::refs::by_chance(self.chance.u64()));
        let (connection, cluster) = self.identified(request.extensions())?;
        let caller = Caller {
            cluster: cluster.clone(),
            remote: connection.remote,
            fingerprint: connection.fingerprint.clone(),
            chain: Arc::clone(&connection.chain),
            introduced: connection.introduced.clone(),
            leaving: connection.leaving.clone(),
            // One that can't be read is sorted out by `admit`; `Hello` doesn't need it.
            version: metadata::version(call).unwrap_or(Version::V1_0),
            reference,
            deadline: self.now + time_left(call),
        };
        if cluster == self.cluster_id {
            // Whoever came by a certificate that is trusted for us must not speak as a peer of ours: sessions
            // of both roles would be its own.
            let cause = format!(
                "the certificate of the caller is trusted here for {cluster}, which is this cluster itself and \
                 no peer"
            );
            let mend =
                format!("emccd trust list {cluster}, emccd config show (cluster-id) on both sides");
            return Err(self.contradict(&caller, &cause, &mend));
        }
        let cause = match metadata::cluster_id(call) {
            Ok(None) => return Ok(caller),
            Ok(Some(claimed)) if claimed == *cluster => return Ok(caller),
            Ok(Some(claimed)) => format!(
                "the certificate identifies {cluster}, but the call says that it comes from {claimed}"
            ),
            Err(_) => format!("the call of {cluster} has a malformed emcc-cluster-id"),
        };
        Err(self.contradict(&caller, &cause, MEND_CLAIM))
    }

    /// The caller of `request`, speaking a version that we speak.
    ///
    /// # Errors
    /// As [`Door::greet`]; and EM code 1.
    pub fn admit<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = self.greet(request)?;
        let cause = match metadata::version(request.metadata()) {
            Ok(version) if self.versions.contains(version) => return Ok(caller),
            Ok(version) => {
                let theirs = VersionRange::new(version, version).unwrap_or(VersionRange::ONLY_1_0);
                peer::error::no_common_version(&caller.cluster, self.versions, theirs)
            }
            Err(unreadable) => unreadable.to_string(),
        };
        Err(self.refuse(&caller, &Refusal::new(EmCode::ErrorOnParsing, cause)))
    }

    /// The status for a caller that contradicts its certificate: EM code 42, which our operator finds in
    /// `cluster status` as well.
    #[must_use]
    pub fn contradict(&self, caller: &Caller, cause: &str, mend: &str) -> Status {
        self.log.claimed(&told(caller), self.wall, cause, mend);
        let refusal = Refusal::new(
            EmCode::InvalidClusterId,
            format!("{cause}; mend with: {mend}"),
        );
        self.refuse(caller, &refusal)
    }

    /// A refusal of ours as a status. Our operator reads of it.
    #[must_use]
    pub fn refuse(&self, caller: &Caller, refusal: &Refusal) -> Status {
        self.log.refused(&told(caller), self.now, refusal);
        self.relay(caller, refusal)
    }

    /// A refusal as a status, of which somebody else tells our operator.
    #[must_use]
    pub fn relay(&self, caller: &Caller, refusal: &Refusal) -> Status {
        status::to_status(refusal, self.cluster_id, caller.reference)
    }

    fn identified<'e>(
        &self,
        extensions: &'e Extensions,
    ) -> Result<(&'e ConnIdentity, &'e ClusterId), Status> {
        // The listener answers unidentified connections itself; this is for a listener that doesn't.
        let Some(connection) = extensions.get::<ConnIdentity>() else {
            return Err(status::rejection_status(
                Rejection::NoClientCertificate,
                None,
                self.wall,
            ));
        };
        match &connection.verdict {
            Verdict::Peer(cluster) => Ok((connection, cluster)),
            Verdict::Rejected { rejection, .. } => Err(status::rejection_status(
                *rejection,
                connection.fingerprint.as_deref(),
                self.wall,
            )),
        }
    }
}

impl Caller {
    /// What travels with the request into the roles.
    #[must_use]
    pub fn context(&self) -> Context {
        Context {
            reference: self.reference,
            caller: self.cluster.clone(),
            certificate: self.chain.first().map(|leaf| fingerprint_of(leaf)),
            deadline: self.deadline,
            traits: Traits::default(),
        }
    }
}

/// What an operator can type about a call that contradicts its certificate.
pub(super) const MEND_CLAIM: &str =
    "emccd config show (cluster-id) on the calling node, emccd trust list here";

fn told(caller: &Caller) -> Told<'_> {
    Told {
        cluster: &caller.cluster,
        remote: caller.remote,
        fingerprint: caller.fingerprint.as_deref(),
        reference: caller.reference,
    }
}

fn time_left(call: &MetadataMap) -> Duration {
    let (default, longest) = DEADLINE_BOUNDS;
    grpc_timeout(call.as_ref()).map_or(default, |named| named.min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_the_named_one_within_bounds() {
        let mut call = MetadataMap::new();
        assert_eq!(time_left(&call), DEADLINE_BOUNDS.0);
        for (named, left) in [
            ("1500m", Duration::from_millis(1_500)),
            ("99999999H", DEADLINE_BOUNDS.1),
            ("soon", DEADLINE_BOUNDS.0),
        ] {
            call.insert("grpc-timeout", named.parse().unwrap());
            assert_eq!(time_left(&call), left, "{named}");
        }
    }
}
