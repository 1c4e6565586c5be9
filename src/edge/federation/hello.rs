//! `Hello`: who we are and what we speak, told to every identified caller. It has no side effect.

use crate::{clock::Timestamp, domain::ids::ClusterId, peer, wire::federation::Hello};

/// The answer to a caller that introduced itself as `theirs`, and was identified as `caller`.
///
/// It is given also when there is no version in common: the caller's operator needs both ranges.
///
/// # Errors
/// The cause of an EM code 42 when the introduction contradicts the certificate.
pub fn answer(
    config: &peer::Config,
    caller: &ClusterId,
    theirs: &Hello,
    now: Timestamp,
    told: peer::Sequences,
) -> Result<Hello, String> {
    if theirs.cluster_id == *caller {
        return Ok(config.hello(now, told));
    }
    Err(format!(
        "the certificate identifies {caller}, but the caller introduces itself as {}",
        theirs.cluster_id
    ))
}
