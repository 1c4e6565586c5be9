//! What an operator can type about a refusal. Pure.

use crate::domain::{ids::ClusterId, rejection::Rejection};

/// The command that mends a refusal, seen from the side that refused. `cluster` is the peer it is about, when
/// that is known.
#[must_use]
pub fn mend(rejection: Rejection, cluster: Option<&ClusterId>) -> String {
    let peer = cluster.map_or("CLUSTER", ClusterId::as_str);
    let pin = format!(
        "emccd trust add {peer} --pin FILE (its certificate; compare it with emccd cert show there)"
    );
    match rejection {
        Rejection::Ambiguous => {
            "emccd trust list, and take the certificate or its anchor from one \
                                 of the two peers: emccd trust remove ID --fingerprint HEX"
                .to_owned()
        }
        Rejection::Expired => format!("on the other side: emccd cert new; then here: {pin}"),
        Rejection::NoClientCertificate => {
            "on the other side: emccd cert show, and let the caller present that certificate"
                .to_owned()
        }
        Rejection::NotYetValid => "compare the clocks of both sides (timedatectl); if both are \
                                   right, on the other side: emccd cert new"
            .to_owned(),
        Rejection::Plaintext => "let the caller use TLS (https) on this port".to_owned(),
        Rejection::Revoked => {
            format!("if it is to be trusted again: emccd trust add {peer} --pin FILE")
        }
        Rejection::TlsVersion => "let the other side speak TLS 1.3".to_owned(),
        Rejection::UnknownIssuer => pin,
        Rejection::WrongCluster => format!(
            "emccd cluster list, and correct it: emccd cluster set {peer} --address HOST:PORT"
        ),
        Rejection::WrongEku => format!(
            "on the other side: emccd cert new (a node calls and is called with it); then here: {pin}; or overlook \
             it: emccd cluster set {peer} --ignore-eku true"
        ),
        Rejection::WrongName => format!(
            "emccd cluster set {peer} --node-name NAME, with a name that the certificate carries (give all \
             names of the peer's nodes: they replace the old ones)"
        ),
    }
}

/// What to look at when the link to `cluster` is down for trust, whichever side refused.
#[must_use]
pub fn mend_link(rejection: Rejection, cluster: &ClusterId) -> String {
    match rejection {
        Rejection::UnknownIssuer => format!(
            "compare `emccd cert show` of one side with `emccd trust list` of the other; then \
             `emccd trust add {cluster} --pin FILE` where it is missing"
        ),
        Rejection::WrongName => format!(
            "compare the names in `emccd cert show` of one side with the node names in `emccd cluster list` of the \
             other; then `emccd cluster set {cluster} --node-name NAME` where one is missing, with all names"
        ),
        Rejection::Expired | Rejection::NotYetValid => {
            "look at the dates with `emccd cert show` and at both clocks; `emccd cert new`, then `emccd cert reload`"
                .to_owned()
        }
        Rejection::WrongEku => format!(
            "the certificate is not for this direction; get another, or `emccd cluster set {cluster} --ignore-eku true`"
        ),
        Rejection::WrongCluster => format!(
            "the address leads to another cluster; see `emccd cluster list`, then \
             `emccd cluster set {cluster} --address HOST:PORT`"
        ),
        Rejection::NoClientCertificate => {
            "no certificate was shown; see `emccd cert show`".to_owned()
        }
        Rejection::Revoked => format!(
            "the certificate was revoked; get the new one and `emccd trust add {cluster} --pin FILE`"
        ),
        Rejection::Ambiguous => {
            "two peers' entries accept this certificate; see `emccd trust list`, then \
             `emccd trust remove ID --fingerprint HEX` for the one it is not of"
                .to_owned()
        }
        Rejection::Plaintext | Rejection::TlsVersion => format!(
            "what answers there is no federation listener; see `emccd cluster list`, then \
             `emccd cluster set {cluster} --address HOST:PORT`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_something_to_do_about_it() {
        let berlin = ClusterId::new("berlin").unwrap();
        for rejection in Rejection::ALL {
            assert!(!mend(rejection, None).is_empty());
            assert!(
                !mend(rejection, Some(&berlin)).contains("CLUSTER"),
                "{rejection}"
            );
        }
        assert!(
            mend(Rejection::UnknownIssuer, Some(&berlin))
                .starts_with("emccd trust add berlin --pin FILE")
        );
    }
}
