//! A refusal: the EM code for the phone, the cause for the operator. Pure.

use std::{fmt, time::Duration};

use crate::{
    domain::{em_code::EmCode, ids::ClusterId, session::EndReason},
    secret::Ticket,
};

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the phone shows.
    pub code: EmCode,
    /// What the operator reads: one sentence without secrets; it may name peers and certificates.
    pub cause: String,
    /// The cluster that refused, when it was not our own.
    pub cluster: Option<ClusterId>,
    /// What else a caller can act on.
    pub detail: Detail,
    /// Whether copies of the request went to other nodes that do not know of this refusal, so that one of them may yet
    /// do what was asked.
    pub is_one_of_several: bool,
}

/// What a caller can act on besides the code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Nothing.
    #[default]
    None,
    /// The session id was used before with other fields.
    IdReused,
    /// The peer was not asked at all: its version lacks the login type. This never comes from a peer.
    LacksLoginType,
    /// Try again after this long.
    RetryAfter(Duration),
    /// The session with this id is over.
    SessionEnded(EndReason),
    /// The PIN was right and must be changed: good for doing so once.
    Ticket(Ticket),
}

impl Refusal {
    /// A refusal by our own cluster.
    #[must_use]
    pub fn new(code: EmCode, cause: impl Into<String>) -> Self {
        Self {
            code,
            cause: cause.into(),
            cluster: None,
            detail: Detail::None,
            is_one_of_several: false,
        }
    }

    /// The same with something to act on.
    #[must_use]
    pub fn with_detail(mut self, detail: Detail) -> Self {
        self.detail = detail;
        self
    }

    /// The same, by another cluster.
    #[must_use]
    pub fn by(mut self, cluster: ClusterId) -> Self {
        self.cluster = Some(cluster);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EM code {}: {}", self.code.number(), self.cause)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_number_and_cause() {
        let tokyo = ClusterId::new("tokyo").unwrap();
        let refusal = Refusal::new(EmCode::Busy, "256 requests are under way")
            .with_detail(Detail::RetryAfter(Duration::from_secs(1)))
            .by(tokyo.clone());
        assert_eq!(
            refusal.to_string(),
            "EM code 26: 256 requests are under way"
        );
        assert_eq!(refusal.cluster, Some(tokyo));
        assert_eq!(refusal.detail, Detail::RetryAfter(Duration::from_secs(1)));
    }
}
