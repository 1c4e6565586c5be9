//! Who calls: the peer that the connection's certificate identifies, and what the call says of itself.

use std::time::{Duration, Instant};

use tonic::{Extensions, Request, Status, metadata::MetadataMap};

use crate::{
    clock::Timestamp,
    domain::{
        em_code::EmCode,
        ids::{ClusterId, Ref},
        login::Context,
        refusal::Refusal,
        rejection::Rejection,
        version::{Version, VersionRange},
    },
    edge::listener::ConnIdentity,
    peer,
    trust::judge::Verdict,
    wire::{metadata, status},
};

/// How long a call may take that names no deadline, and the longest that one may name.
const DEADLINE_BOUNDS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// The caller of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Proven by its certificate, and not contradicted by the call.
    pub cluster: ClusterId,
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
    /// The present moment by the wall clock, told to callers that we refuse.
    pub wall: Timestamp,
    /// The same by the monotonic one.
    pub now: Instant,
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
            .unwrap_or_else(|| Ref::from_bits(rand::random()));
        let cluster = self.identified(request.extensions())?;
        match metadata::cluster_id(call) {
            Ok(claimed) if claimed.as_ref().is_none_or(|claimed| *claimed == cluster) => {}
            Ok(Some(claimed)) => {
                let cause = format!(
                    "the certificate identifies {cluster}, but the call says that it comes from {claimed}; \
                     mend with: emccd config show (cluster-id) on the calling node, emccd trust list here"
                );
                return Err(self.refuse(reference, &Refusal::new(EmCode::InvalidClusterId, cause)));
            }
            Ok(None) | Err(_) => {
                let cause = format!("the call of {cluster} has a malformed emcc-cluster-id");
                return Err(self.refuse(reference, &Refusal::new(EmCode::InvalidClusterId, cause)));
            }
        }
        Ok(Caller {
            cluster,
            // One that can't be read is sorted out by `admit`; `Hello` doesn't need it.
            version: metadata::version(call).unwrap_or(Version::V1_0),
            reference,
            deadline: self.now + time_left(call),
        })
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
        Err(self.refuse(
            caller.reference,
            &Refusal::new(EmCode::ErrorOnParsing, cause),
        ))
    }

    /// A refusal of ours as a status.
    #[must_use]
    pub fn refuse(&self, reference: Ref, refusal: &Refusal) -> Status {
        status::to_status(refusal, self.cluster_id, reference)
    }

    fn identified(&self, extensions: &Extensions) -> Result<ClusterId, Status> {
        // The listener answers unidentified connections itself; this is for a listener that doesn't.
        let Some(connection) = extensions.get::<ConnIdentity>() else {
            return Err(status::rejection_status(
                Rejection::NoClientCertificate,
                None,
                self.wall,
            ));
        };
        match &connection.verdict {
            Verdict::Peer(cluster) => Ok(cluster.clone()),
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
            deadline: self.deadline,
        }
    }
}

fn time_left(call: &MetadataMap) -> Duration {
    let (default, longest) = DEADLINE_BOUNDS;
    call.get(GRPC_TIMEOUT)
        .and_then(|value| value.to_str().ok())
        .and_then(grpc_timeout)
        .map_or(default, |named| named.min(longest))
}

/// The length in a `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_in_every_unit_and_bounded() {
        for (text, length) in [
            ("1500m", Some(Duration::from_millis(1_500))),
            ("2S", Some(Duration::from_secs(2))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            ("7u", Some(Duration::from_micros(7))),
            ("7n", Some(Duration::from_nanos(7))),
            ("123456789m", None),
            ("m", None),
            ("", None),
            ("-1S", None),
            ("1ü", None),
            ("5", None),
        ] {
            assert_eq!(grpc_timeout(text), length, "{text}");
        }
        let mut call = MetadataMap::new();
        assert_eq!(time_left(&call), DEADLINE_BOUNDS.0);
        call.insert(GRPC_TIMEOUT, "99999999H".parse().unwrap());
        assert_eq!(time_left(&call), DEADLINE_BOUNDS.1);
    }
}
