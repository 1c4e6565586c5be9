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
        Rejection::Ambiguous => "emccd trust list, and leave the certificate or its anchor with \
                                 one of the two peers only"
            .to_owned(),
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
            "emccd cluster list, and correct the addresses of {peer}: emccd apply FILE, with all of \
             its record under [[peer]]"
        ),
        Rejection::WrongEku => format!(
            "on the other side: emccd cert new (a node calls and is called with it); then here: {pin}"
        ),
        Rejection::WrongName => format!(
            "if the certificate is of {peer} indeed, add a name that it carries to the node-names: \
             emccd apply FILE, with all of its record (emccd cluster list) under [[peer]]"
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
