//! `Hello`: who we are and what we speak, told to every identified caller. It has no side effect.

use crate::{
    clock::Timestamp,
    domain::{em_code::EmCode, ids::ClusterId, refusal::Refusal},
    peer,
    wire::federation::Hello,
};

/// The answer to a caller that introduced itself as `theirs`, and was identified as `caller`.
///
/// It is given also when there is no version in common: the caller's operator needs both ranges.
///
/// # Errors
/// EM code 42 when the introduction contradicts the certificate.
pub fn answer(
    config: &peer::Config,
    caller: &ClusterId,
    theirs: &Hello,
    now: Timestamp,
) -> Result<Hello, Refusal> {
    if theirs.cluster_id == *caller {
        return Ok(config.hello(now));
    }
    let cause = format!(
        "the certificate identifies {caller}, but the caller introduces itself as {}; mend with: emccd config \
         show (cluster-id) on the calling node, emccd trust list here",
        theirs.cluster_id
    );
    Err(Refusal::new(EmCode::InvalidClusterId, cause))
}
