//! Why something is trusted or not: what is asked comes in, the steps go out.

use rustls_pki_types::CertificateDer;

use crate::{
    domain::{address::HostPort, ids::ClusterId},
    edge::admin::{
        error::Error,
        operations::{Explain, Explained, Operations},
    },
    trust::explain::{Part, Step},
    wire::admin::{self as pb, explain_trust_request::What},
};

/// Asks the node and tells what it found.
///
/// # Errors
/// [`Error::Invalid`] when the question is none, and what the node refuses.
pub async fn trust(
    operations: &dyn Operations,
    request: pb::ExplainTrustRequest,
) -> Result<pb::ExplainTrustResponse, Error> {
    let asked = read(request)?;
    let parts = operations.explain_trust(&asked).await?;
    let parts = parts.into_iter().map(part).collect();
    Ok(pb::ExplainTrustResponse { parts })
}

fn read(request: pb::ExplainTrustRequest) -> Result<Explain, Error> {
    let cluster = |id: String| {
        ClusterId::new(id).map_err(|_| {
            Error::invalid("the cluster ID", "1 to 64 characters of A-Z a-z 0-9 . _ -")
        })
    };
    let what = match request.what {
        Some(What::Address(text)) => {
            let address: HostPort = text
                .parse()
                .map_err(|_| Error::invalid("the address", "a host and a port"))?;
            Explained::Address(address)
        }
        Some(What::ClusterId(id)) => Explained::Peer(cluster(id)?),
        Some(What::Chain(chain)) => {
            let (count, bytes) = (
                chain.certificates.len(),
                chain.certificates.iter().map(Vec::len).sum::<usize>(),
            );
            if count == 0 || count > MAX_CHAIN || bytes > MAX_CHAIN_BYTES {
                return Err(Error::invalid(
                    "the chain",
                    "1 to 16 certificates and at most 64 KiB",
                ));
            }
            let chain = chain.certificates.into_iter().map(CertificateDer::from);
            Explained::Chain(chain.collect())
        }
        None => return Err(Error::invalid("what to explain", "given")),
    };
    let wanted = request.as_cluster_id.map(cluster).transpose()?;
    Ok(Explain { what, wanted })
}

/// A part as it is told, here and by who explains without a node.
#[must_use]
pub fn part(part: Part) -> pb::TrustPart {
    pb::TrustPart {
        holds: part.holds(),
        rejection: part.rejection().map(|r| r.as_str().to_owned()),
        title: part.title,
        steps: part.steps.into_iter().map(step).collect(),
        mend: part.mend,
    }
}

fn step(step: Step) -> pb::TrustStep {
    pb::TrustStep {
        name: step.name.to_owned(),
        mark: step.mark.as_str().to_owned(),
        text: step.text,
        details: step.details,
        rejection: step.rejection.map(|r| r.as_str().to_owned()),
    }
}

/// Far more than any chain has.
const MAX_CHAIN: usize = 16;
const MAX_CHAIN_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_one_thing_within_bounds() {
        let ask = |what| {
            read(pb::ExplainTrustRequest {
                what,
                as_cluster_id: None,
            })
        };
        let chain = |certificates| What::Chain(pb::CertificateChain { certificates });
        assert!(matches!(
            ask(Some(What::Address("t.example:8444".into())))
                .unwrap()
                .what,
            Explained::Address(_)
        ));
        assert!(matches!(
            ask(Some(chain(vec![vec![0x30]]))).unwrap().what,
            Explained::Chain(_)
        ));
        for bad in [
            None,
            Some(What::Address("t.example".into())),
            Some(What::Address("t.example:99999".into())),
            Some(What::ClusterId("a/b".into())),
            Some(chain(vec![])),
            Some(chain(vec![vec![0; 40_000]; 2])),
            Some(chain(vec![vec![0]; 17])),
        ] {
            let refused = ask(bad.clone());
            assert!(matches!(refused, Err(Error::Invalid { .. })), "{bad:?}");
        }
    }
}
