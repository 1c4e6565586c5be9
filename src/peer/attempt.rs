//! One attempt at a link: a connection, then `Hello`, then `Watch`. Only when all three have been answered is
//! the link up: after a TLS 1.3 handshake alone the peer may still have refused us.
//!
//! A name that stands for several sockets is tried at one after another in short succession, without waiting for those
//! that say nothing; the first whose `Watch` is answered wins, and the others are dropped.

use std::{net::SocketAddr, time::Duration};

use rustls_pki_types::CertificateDer;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Request, Status, Streaming};

use crate::{
    chance::Chance,
    clock::{Clock, Timestamp},
    domain::{
        address_list::is_near_ip,
        em_code::EmCode,
        ids::{ClusterId, Ref},
        rejection::Rejection,
    },
    peer::{
        Config, Error, Sequences,
        connector::{Connection, Dialer, alert_rejection},
        error::bounded,
        link::{Facts, FailureKind},
        lookup::Lookups,
        race::{Race, race},
        shared::{Client, Probe},
        transport::Transport,
    },
    trust::{
        Snapshot, TrustStore,
        certificate::{fingerprint_of, fingerprint_text},
        mend::mend_ours,
    },
    wire::{
        federation::{Beat, Hello},
        metadata, pb, status,
    },
};

/// The most that a peer's answer may be, in bytes: home services with many lines are the largest.
pub(super) const MAX_ANSWER_BYTES: usize = crate::wire::federation::MAX_ANSWER_BYTES;

/// A link that is up.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) probe: Probe,
    pub(super) facts: Facts,
    pub(super) beats: Streaming<pb::WatchResponse>,
    /// What the peer showed.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Ends the connection under every call that still uses it.
    pub(super) cut: CancellationToken,
    /// An untrusted connection that this one replaced, and when it is to be cut; at the latest with this one.
    pub(super) replaced: Option<(Instant, DropGuard)>,
}

/// What an attempt takes.
pub(super) struct Attempt<'a> {
    pub(super) config: &'a Config,
    pub(super) clock: &'a Clock,
    /// How far what we tell has come.
    pub(super) told: Sequences,
    pub(super) cluster: &'a ClusterId,
    pub(super) trust: &'a TrustStore,
    pub(super) snapshot: &'a Snapshot,
    pub(super) lookups: &'a Lookups,
    pub(super) transport: &'a dyn Transport,
    /// Whether the address may lead to this machine or this wire.
    pub(super) may_be_near: bool,
    /// The peer called us: what hangs is begun afresh.
    pub(super) inbound: &'a Notify,
}

/// The time between the begins of two sockets of one name.
const STAGGER: Duration = Duration::from_millis(250);
/// How long a try may take before a call of the peer begins another beside it.
const FRESH_AFTER: Duration = Duration::from_millis(500);
/// The TLS handshake, `Hello` and `Watch`.
const HELLO_STEPS: u32 = 3;
/// How many of a name's addresses are tried.
const MAX_RESOLVED: u32 = 4;

impl Attempt<'_> {
    /// Tries the address, and once more beside that try when the peer calls meanwhile.
    pub(super) async fn run(&self, address: &str) -> Result<Session, Error> {
        let limit = self.config.connect_timeout + self.one_name();
        let rules = Race {
            stagger: STAGGER,
            limit,
            afresh: Some((self.inbound, FRESH_AFTER)),
        };
        let outcome = race(&[()], rules, |()| self.one(address)).await;
        outcome.map_err(|errors| {
            let told = errors.into_iter().flatten().next();
            told.unwrap_or_else(|| silent(address, limit))
        })
    }

    /// One address as configured; a name may stand for several sockets.
    async fn one(&self, address: &str) -> Result<Session, Error> {
        let waited = self.config.connect_timeout;
        let mut sockets = timeout(waited, self.lookups.resolve(address))
            .await
            .map_err(|_| Error::Silent {
                address: address.to_owned(),
                step: "the name service",
                waited,
            })?
            .map_err(|source| unresolved(address, Some(source)))?;
        let found = sockets.len();
        sockets.retain(|socket| self.may_be_near || !is_near_ip(socket.ip()));
        if sockets.is_empty() && found > 0 {
            return Err(Error::Near {
                address: address.to_owned(),
            });
        }
        sockets.truncate(MAX_RESOLVED as usize);
        let limit = self.one_name();
        let rules = Race {
            stagger: STAGGER,
            limit,
            afresh: None,
        };
        let outcome = race(&sockets, rules, |socket| self.at(address, socket)).await;
        outcome.map_err(|errors| told(address, errors, limit))
    }

    /// How long all addresses of one name may take together. Each step of [`Attempt::at`] has a limit of its own:
    /// a peer that is slow at each of them and lives comes up.
    fn one_name(&self) -> Duration {
        let steps = self.config.connect_timeout + self.config.hello_timeout * HELLO_STEPS;
        STAGGER * MAX_RESOLVED + steps
    }

    async fn at(&self, address: &str, socket: SocketAddr) -> Result<Session, Error> {
        let dialer = Dialer {
            transport: self.transport,
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
        } = dialer.dial(address, socket).await?;
        let probe = Probe::new(channel.clone());
        let mut client = Client::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let mut facts = self.hello(&mut client, address).await?;
        facts.certificate = chain
            .first()
            .map(|leaf| fingerprint_text(&fingerprint_of(leaf)));
        let beats = self.watch(&mut client, address, &facts).await?;
        Ok(Session {
            client,
            probe,
            facts,
            beats,
            chain,
            cut,
            replaced: None,
        })
    }

    async fn hello(&self, client: &mut Client, address: &str) -> Result<Facts, Error> {
        const STEP: &str = "Hello";
        let sent = self.clock.now();
        let message = self.config.hello(sent, self.told);
        let mut request = Request::new(pb::HelloRequest::from(&message));
        metadata::write(
            request.metadata_mut(),
            &self.config.cluster_id,
            self.config.versions.min(),
            new_reference(&self.config.chance),
        );
        // The peer needn't work on an answer that nobody waits for. `Watch` carries none: it would bound the
        // whole stream and not only its begin.
        request.set_timeout(self.config.hello_timeout);
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
            instance: theirs.instance,
            software: theirs.software,
            address: address.to_owned(),
            clock_offset_ms: offset_ms(theirs.now, ours_then),
            security_mode: theirs.security_mode,
            capabilities: theirs.capabilities,
            certificate: None,
            shown: shown_to(self.snapshot, self.cluster),
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
            node: self.config.node.clone(),
        });
        metadata::write(
            request.metadata_mut(),
            &self.config.cluster_id,
            facts.version,
            new_reference(&self.config.chance),
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
        let (began, waited) = (Instant::now(), self.config.hello_timeout);
        // At the deadline several timers race; whichever wins, it was silence.
        let is_timer = |status: &Status| {
            matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded)
                && began.elapsed() >= waited
        };
        match timeout(waited, call).await {
            Ok(Err(status)) if !is_timer(&status) => Err(self.refused(step, address, &status)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(Error::Silent {
                address: address.to_owned(),
                step,
                waited,
            }),
        }
    }

    /// What the peer's refusal of a first call means. A trust refusal reaches us only here.
    fn refused(&self, step: &'static str, address: &str, status: &Status) -> Error {
        let rejection = status::rejection_from_status(status).or_else(|| alert_rejection(status));
        if let Some(rejection) = rejection {
            let shown = shown_to(self.snapshot, self.cluster);
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
            EmCode::VisitingClusterUnknown => FailureKind::Unconfigured,
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

/// What to tell when none of a name's addresses came up; none of `errors` for one that hung.
fn told(address: &str, errors: Vec<Option<Error>>, waited: Duration) -> Error {
    if errors.is_empty() {
        return unresolved(address, None);
    }
    // Where somebody answered, the operator learns more than where nobody did.
    let unanswered = |error: &Error| matches!(error, Error::Unreachable { .. });
    let told = errors.into_iter().flatten();
    told.min_by_key(|error| (error.kind() == FailureKind::Silent, unanswered(error)))
        .unwrap_or_else(|| silent(address, waited))
}

fn unresolved(address: &str, source: Option<std::io::Error>) -> Error {
    Error::Unresolved {
        address: address.to_owned(),
        source,
    }
}

fn silent(address: &str, waited: Duration) -> Error {
    Error::Silent {
        address: address.to_owned(),
        step: "the first calls",
        waited,
    }
}

/// What we showed, and what the operators of both sides can type about it.
fn there(rejection: Rejection, us: &ClusterId, peer: &ClusterId, shown: Option<String>) -> String {
    let shown = shown.map_or_else(
        || "we showed none".to_owned(),
        |fingerprint| format!("we showed SHA-256 {fingerprint}"),
    );
    let (meaning, mend) = (rejection.meaning(), mend_ours(rejection, us, peer));
    format!("{meaning}; {shown}; {mend}")
}

/// The fingerprint of the certificate that we show when we dial that peer.
pub(super) fn shown_to(snapshot: &Snapshot, peer: &ClusterId) -> Option<String> {
    snapshot
        .client_identity_for(peer)
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
pub(super) fn new_reference(chance: &Chance) -> Ref {
    crate::domain::refs::by_chance(chance.u64())
}

/// The bounds of the wire for a heartbeat interval.
pub(super) const HEARTBEAT_BOUNDS: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(60));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hangs_is_silent_and_has_an_address() {
        let told = |errors| told("berlin.example:8444", errors, Duration::from_secs(3));
        assert!(matches!(told(Vec::new()), Error::Unresolved { .. }));
        let hung = told(vec![None, None]);
        assert!(matches!(hung, Error::Silent { .. }), "{hung}");
        assert_eq!(hung.kind(), FailureKind::Silent);
        // Who says something is told rather than who doesn't.
        let ended = Error::Ended {
            address: "192.0.2.1:8444".to_owned(),
        };
        assert!(matches!(told(vec![None, Some(ended)]), Error::Ended { .. }));
    }
}
