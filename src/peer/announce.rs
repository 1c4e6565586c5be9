//! Telling a peer which certificates an identity of ours has.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::time::timeout_at;
use tonic::Request;

use crate::{
    domain::{
        capability::TRUST_ANNOUNCE, ids::ClusterId, rejection::Rejection, rotation::Fingerprint,
    },
    peer::{
        Peers,
        attempt::new_reference,
        error::bounded,
        link::Failure,
        shared::{Live, now},
    },
    wire::{metadata, pb, status},
};

/// How long a peer may take: all of its nodes have to take it up before it answers.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Why a peer has not answered.
#[derive(Debug, thiserror::Error)]
pub enum Untold {
    /// No link to it is up.
    #[error("no link to it is up")]
    NotLinked,
    /// No node of it that is linked has the capability.
    #[error("it has no {TRUST_ANNOUNCE}")]
    Unable,
    /// It has refused the call, or it was lost.
    #[error("{0}")]
    Failed(String),
}

/// What became of one certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All of the peer's nodes have it.
    Loaded,
    /// It waits for the peer's operator.
    Waiting,
    /// It is not taken.
    Refused,
}

/// What a peer has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The highest sequence that it knows.
    pub sequence: u64,
    /// What became of each certificate, and why.
    pub outcomes: BTreeMap<Fingerprint, (Taken, String)>,
}

impl Peers {
    /// Whether that peer can be told of certificates; none while no link to it is up.
    #[must_use]
    pub fn can_be_told(&self, cluster: &ClusterId) -> Option<bool> {
        let lives = self.lives(cluster);
        (!lives.is_empty()).then(|| lives.iter().any(is_able))
    }

    /// Whether no link to that peer is up, and it says that it does not know what it is shown.
    #[must_use]
    pub fn is_unknown_to(&self, cluster: &ClusterId) -> bool {
        let Some(group) = self.group(cluster) else {
            return false;
        };
        let links = group.links();
        let is_unknown = |failure: &Failure| {
            failure.by_peer && failure.rejection == Some(Rejection::UnknownIssuer)
        };
        !links.iter().any(|link| link.is_up())
            && links
                .iter()
                .any(|link| link.link(|link| link.failure().is_some_and(is_unknown)))
    }

    /// Tells a peer, over any link whose node can be told, and waits until all of its nodes have taken it up.
    ///
    /// # Errors
    /// [`Untold`].
    pub async fn announce(
        &self,
        cluster: &ClusterId,
        message: pb::AnnounceRequest,
    ) -> Result<Answered, Untold> {
        let lives = self.lives(cluster);
        if lives.is_empty() {
            return Err(Untold::NotLinked);
        }
        let deadline = now() + PATIENCE;
        let mut last = Untold::Unable;
        for live in lives.iter().filter(|live| is_able(live)) {
            match self
                .announce_over(cluster, live, message.clone(), deadline)
                .await
            {
                Ok(answered) => return Ok(answered),
                Err(failed) => last = failed,
            }
            if now() >= deadline {
                break;
            }
        }
        Err(last)
    }

    async fn announce_over(
        &self,
        cluster: &ClusterId,
        live: &Live,
        message: pb::AnnounceRequest,
        deadline: Instant,
    ) -> Result<Answered, Untold> {
        let mut request = Request::new(message);
        let own = &self.config().cluster_id;
        metadata::write(
            request.metadata_mut(),
            own,
            live.facts.version,
            new_reference(&self.config().chance),
        );
        request.set_timeout(deadline.saturating_duration_since(now()));
        let mut client = live.client.clone();
        let answer = timeout_at(deadline.into(), client.announce(request)).await;
        match answer {
            Err(_) => Err(Untold::Failed("no answer in time".to_owned())),
            Ok(Err(refused)) => {
                let refusal = status::from_status(&refused, cluster);
                Err(Untold::Failed(bounded(&refusal.cause)))
            }
            Ok(Ok(answer)) => read(&answer.into_inner()),
        }
    }

    pub(super) fn lives(&self, cluster: &ClusterId) -> Vec<Live> {
        let links = self.group(cluster).map(|group| group.links());
        let links = links.iter().flat_map(|links| links.iter());
        links.filter_map(|link| link.live()).collect()
    }
}

fn is_able(live: &Live) -> bool {
    live.facts
        .capabilities
        .iter()
        .any(|told| told == TRUST_ANNOUNCE)
}

fn read(answer: &pb::AnnounceResponse) -> Result<Answered, Untold> {
    let mut outcomes = BTreeMap::new();
    for told in &answer.outcomes {
        let fingerprint = Fingerprint::try_from(&*told.fingerprint).map_err(|_| {
            Untold::Failed("its answer breaks the protocol: a fingerprint has 32 bytes".to_owned())
        })?;
        let taken = match told.outcome() {
            pb::AnnounceOutcome::Loaded => Taken::Loaded,
            pb::AnnounceOutcome::Waiting => Taken::Waiting,
            pb::AnnounceOutcome::Unspecified | pb::AnnounceOutcome::Refused => Taken::Refused,
        };
        outcomes.insert(fingerprint, (taken, bounded(&told.reason)));
    }
    Ok(Answered {
        sequence: answer.sequence,
        outcomes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(fingerprint: Vec<u8>, outcome: i32) -> pb::AnnouncedOutcome {
        pb::AnnouncedOutcome {
            fingerprint,
            outcome,
            reason: "why".to_owned(),
        }
    }

    #[test]
    fn an_answer_is_read_and_what_is_not_said_counts_as_not_taken() {
        let answer = pb::AnnounceResponse {
            sequence: 9,
            outcomes: (0..5)
                .map(|n| told(vec![u8::try_from(n).unwrap(); 32], n))
                .collect(),
        };
        let read = read(&answer).unwrap();
        let taken: Vec<_> = read.outcomes.values().map(|(taken, _)| *taken).collect();
        use Taken::{Loaded, Refused, Waiting};
        assert_eq!(taken, [Refused, Loaded, Waiting, Refused, Refused]);
        assert_eq!(read.sequence, 9);
    }

    #[test]
    fn an_answer_about_no_certificate_is_none() {
        let answer = pb::AnnounceResponse {
            sequence: 9,
            outcomes: vec![told(vec![1; 31], 1)],
        };
        assert!(read(&answer).unwrap_err().to_string().contains("32 bytes"));
    }
}
