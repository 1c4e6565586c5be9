//! One attempt at a link: the addresses in turn, then `Hello`, then `Watch`. Only when all three have been
//! answered is the link up: after a TLS 1.3 handshake alone the peer may still have refused us.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use crate::{
    clock::{Clock, Timestamp},
    domain::{
        em_code::EmCode,
        ids::{ClusterId, Ref},
        rejection::Rejection,
    },
    peer::{
        Config, Error,
        connector::{Connection, Dialer, alert_rejection},
        error::bounded,
        link::{Facts, FailureKind},
        shared::Client,
    },
    trust::{Snapshot, TrustStore, mend::mend},
    wire::{
        federation::{Beat, Hello},
        metadata, pb, status,
    },
};

/// The most that a peer's answer may be, in bytes: home services with many lines are the largest.
pub(super) const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// A link that is up.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) facts: Facts,
    pub(super) beats: Streaming<pb::WatchResponse>,
    /// The place of its address among those configured.
    pub(super) index: usize,
    /// What the peer showed.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Ends the connection under every call that still uses it.
    pub(super) cut: CancellationToken,
}

/// What an attempt takes.
pub(super) struct Attempt<'a> {
    pub(super) config: &'a Config,
    pub(super) clock: &'a Clock,
    pub(super) cluster: &'a ClusterId,
    pub(super) trust: &'a TrustStore,
    pub(super) snapshot: &'a Snapshot,
}

impl Attempt<'_> {
    /// Tries every address once, beginning with the one at `first`.
    pub(super) async fn run(&self, addresses: &[String], first: usize) -> Result<Session, Error> {
        let mut errors = Vec::new();
        let in_turn = addresses.iter().enumerate();
        for (index, address) in in_turn.cycle().skip(first).take(addresses.len()) {
            match self.one(address, index).await {
                Ok(session) => return Ok(session),
                Err(error) => errors.push(error),
            }
        }
        Err(match (errors.len(), errors.pop()) {
            (_, None) => Error::NoAddress {
                cluster: self.cluster.clone(),
            },
            (1, Some(error)) => error,
            (_, Some(last)) => {
                errors.push(last);
                Error::All { errors }
            }
        })
    }

    async fn one(&self, address: &str, index: usize) -> Result<Session, Error> {
        let dialer = Dialer {
            cluster: self.cluster,
            trust: self.trust,
            snapshot: self.snapshot,
            connect_timeout: self.config.connect_timeout,
            handshake_timeout: self.config.hello_timeout,
        };
        let Connection {
            channel,
            chain,
            cut,
        } = dialer.dial(address).await?;
        let mut client = Client::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let facts = self.hello(&mut client, address).await?;
        let beats = self.watch(&mut client, address, &facts).await?;
        Ok(Session {
            client,
            facts,
            beats,
            index,
            chain,
            cut,
        })
    }

    async fn hello(&self, client: &mut Client, address: &str) -> Result<Facts, Error> {
        const STEP: &str = "Hello";
        let sent = self.clock.now();
        let message = self.config.hello(sent);
        let mut request = Request::new(pb::HelloRequest::from(&message));
        metadata::write(
            request.metadata_mut(),
            &self.config.cluster_id,
            self.config.versions.min(),
            new_reference(),
        );
        let answer = self
            .within(STEP, address, client.hello(request))
            .await?
            .into_inner();
        let received = self.clock.now();
        let theirs = Hello::try_from(answer).map_err(|malformed| Error::Broken {
            address: address.to_owned(),
            step: STEP,
            what: malformed.to_string(),
        })?;
        if theirs.cluster_id != *self.cluster {
            return Err(Error::WrongCluster {
                address: address.to_owned(),
                cluster: self.cluster.clone(),
                found: theirs.cluster_id,
            });
        }
        let ours = self.config.versions;
        let Some(version) = ours.highest_common(theirs.versions) else {
            return Err(Error::Incompatible {
                cluster: self.cluster.clone(),
                ours,
                theirs: theirs.versions,
            });
        };
        // The peer read its clock about half way between our two readings.
        let ours_then = sent.plus(received.since(sent) / 2);
        Ok(Facts {
            version,
            versions: theirs.versions,
            node: theirs.node,
            software: theirs.software,
            address: address.to_owned(),
            clock_offset_ms: offset_ms(theirs.now, ours_then),
            security_mode: theirs.security_mode,
            capabilities: theirs.capabilities,
        })
    }

    async fn watch(
        &self,
        client: &mut Client,
        address: &str,
        facts: &Facts,
    ) -> Result<Streaming<pb::WatchResponse>, Error> {
        let mut request = Request::new(pb::WatchRequest {
            heartbeat: Some(crate::wire::time::duration(self.config.heartbeat)),
        });
        metadata::write(
            request.metadata_mut(),
            &self.config.cluster_id,
            facts.version,
            new_reference(),
        );
        let answer = self.within("Watch", address, client.watch(request)).await?;
        Ok(answer.into_inner())
    }

    async fn within<T>(
        &self,
        step: &'static str,
        address: &str,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Error> {
        match timeout(self.config.hello_timeout, call).await {
            Ok(outcome) => outcome.map_err(|status| self.refused(step, address, &status)),
            Err(_) => Err(Error::Silent {
                address: address.to_owned(),
                step,
                waited: self.config.hello_timeout,
            }),
        }
    }

    /// What the peer's refusal of a first call means. A trust refusal reaches us only here.
    fn refused(&self, step: &'static str, address: &str, status: &Status) -> Error {
        let rejection = status::rejection_from_status(status).or_else(|| alert_rejection(status));
        if let Some(rejection) = rejection {
            let shown = shown_by(self.snapshot);
            return Error::PeerRefuses {
                address: address.to_owned(),
                cluster: self.cluster.clone(),
                rejection,
                detail: there(rejection, &self.config.cluster_id, self.cluster, shown),
            };
        }
        let refusal = status::from_status(status, self.cluster);
        let kind = match refusal.code {
            EmCode::NoResponseFromRemoteHost => FailureKind::Silent,
            _ => FailureKind::Refused,
        };
        Error::Call {
            address: address.to_owned(),
            step,
            kind,
            what: bounded(&refusal.to_string()),
        }
    }
}

/// What we showed, and what the other side's operator can type about it.
fn there(rejection: Rejection, us: &ClusterId, peer: &ClusterId, shown: Option<String>) -> String {
    let shown = shown.map_or_else(
        || "we showed none".to_owned(),
        |fingerprint| format!("we showed SHA-256 {fingerprint}"),
    );
    format!(
        "{shown}; mend on {peer} with: {}",
        mend(rejection, Some(us))
    )
}

/// The fingerprint of the certificate that we show when we dial.
pub(super) fn shown_by(snapshot: &Snapshot) -> Option<String> {
    snapshot
        .identity()
        .map(|identity| identity.leaf().fingerprint_text())
}

/// A peer's wall clock minus ours.
pub(super) fn offset_ms(theirs: Timestamp, ours: Timestamp) -> i64 {
    theirs.as_millis().saturating_sub(ours.as_millis())
}

/// How far off the peer's clock is by a heartbeat: the way it took is neglected.
pub(super) fn offset_of(beat: &Beat, clock: &Clock) -> i64 {
    offset_ms(beat.now, clock.now())
}

/// A reference for a call that belongs to no attempt of a user.
pub(super) fn new_reference() -> Ref {
    Ref::from_bits(rand::random())
}

/// The bounds of the wire for a heartbeat interval.
pub(super) const HEARTBEAT_BOUNDS: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(60));
