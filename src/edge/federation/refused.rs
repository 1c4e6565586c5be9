//! What our own operator reads of calls that were refused here before any role had them.
//!
//! The caller is a peer by its certificate, and may be a broken one or a liar that calls without end: of each
//! peer and EM code there is one line a minute, and the next one counts those between. There are no more peers
//! than somebody has trusted.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use crate::{
    clock::Timestamp,
    domain::{
        ids::{ClusterId, Ref},
        refusal::Refusal,
    },
    trust::refusals::{Claim, RecentRefusals},
};

/// The refusals of calls on one node.
#[derive(Debug, Default)]
pub struct RefusalLog {
    refusals: RecentRefusals,
    lines: Mutex<BTreeMap<(ClusterId, u16), Line>>,
}

/// Whose call was refused.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The peer.
    pub cluster: &'a ClusterId,
    /// Where it called from.
    pub remote: SocketAddr,
    /// Fingerprint of its leaf.
    pub fingerprint: Option<&'a str>,
    /// The attempt.
    pub reference: Ref,
}

/// The last line of its kind.
#[derive(Debug)]
struct Line {
    at: Instant,
    muted: u64,
}

impl RefusalLog {
    /// How long a peer's refusals by one EM code are only counted after a line about one.
    const QUIET: Duration = Duration::from_secs(60);

    /// A log whose wrong claims are kept among the `refusals` that `cluster status` lists.
    #[must_use]
    pub fn new(refusals: RecentRefusals) -> Self {
        Self {
            refusals,
            lines: Mutex::default(),
        }
    }

    /// Tells of a refused call.
    pub fn refused(&self, told: &Told<'_>, now: Instant, refusal: &Refusal) {
        let (peer, code) = (told.cluster.as_str(), refusal.code.number());
        let Some(muted) = self.line(told.cluster, code, now) else {
            debug!(
                peer.cluster_id = peer,
                em_code = code,
                "refused a call of {peer} again"
            );
            return;
        };
        warn!(
            peer.cluster_id = peer,
            peer.address = %told.remote,
            em_code = code,
            r#ref = %told.reference,
            cause = refusal.cause,
            muted,
            "refused a call of {peer}: {}",
            refusal.code.name()
        );
    }

    /// Keeps that a caller says that it is somebody else.
    pub fn claimed(&self, told: &Told<'_>, wall: Timestamp, cause: &str, mend: &str) {
        let claim = Claim {
            remote: told.remote,
            fingerprint: told.fingerprint,
            cause,
            mend,
        };
        self.refusals.record_claim(claim, wall);
    }

    /// What the caller with this leaf says of itself is right by now.
    pub fn claim_accepted(&self, fingerprint: Option<&str>) {
        if let Some(fingerprint) = fingerprint {
            self.refusals.claim_accepted(fingerprint);
        }
    }

    /// How many were not told of since the last line, when another one is due.
    fn line(&self, cluster: &ClusterId, code: u16, now: Instant) -> Option<u64> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let last = lines.entry((cluster.clone(), code));
        let mut is_first = false;
        let line = last.or_insert_with(|| {
            is_first = true;
            Line { at: now, muted: 0 }
        });
        if !is_first && now.saturating_duration_since(line.at) < Self::QUIET {
            line.muted = line.muted.saturating_add(1);
            return None;
        }
        line.at = now;
        Some(std::mem::take(&mut line.muted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_and_code_has_one_line_a_minute_and_the_next_one_counts() {
        let log = RefusalLog::default();
        let id = |name| ClusterId::new(name).unwrap();
        let (berlin, tokyo) = (id("berlin"), id("tokyo"));
        let start = Instant::now();
        let second = |n| start + Duration::from_secs(n);
        assert_eq!(log.line(&berlin, 42, second(0)), Some(0));
        assert_eq!(log.line(&berlin, 42, second(0)), None);
        assert_eq!(log.line(&berlin, 42, second(59)), None);
        // Others have lines of their own.
        assert_eq!(log.line(&berlin, 26, second(1)), Some(0));
        assert_eq!(log.line(&tokyo, 42, second(1)), Some(0));
        assert_eq!(log.line(&berlin, 42, second(60)), Some(2));
        assert_eq!(log.line(&berlin, 42, second(61)), None);
        assert_eq!(log.line(&berlin, 42, second(120)), Some(1));
    }
}
