//! What an operator can type about a refusal. Pure.

use crate::domain::{ids::ClusterId, rejection::Rejection};

/// The command that mends a refusal, seen from the side that refused. `cluster` is the peer it is about, when
/// that is known.
#[must_use]
pub fn mend(rejection: Rejection, cluster: Option<&ClusterId>) -> String {
    with_page(rejection, &here(rejection, cluster))
}

/// Where the whole page about a reason is.
#[must_use]
pub fn more(rejection: Rejection) -> String {
    format!("more: emccd trust explain {}", rejection.word())
}

fn with_page(rejection: Rejection, mend: &str) -> String {
    format!("{mend}; {}", more(rejection))
}

fn here(rejection: Rejection, cluster: Option<&ClusterId>) -> String {
    let peer = cluster.map_or("CLUSTER", ClusterId::as_str);
    let pin = format!(
        "emccd trust add {peer} --pin FILE (its certificate; compare it with emccd cert show there)"
    );
    match rejection {
        Rejection::Ambiguous => {
            "emccd trust list, and take the certificate or its anchor from the peer that it is not of: emccd trust \
             remove ID --fingerprint HEX; a certificate that was taken from one is then to be pinned for the other: \
             emccd trust add ID --pin FILE"
                .to_owned()
        }
        Rejection::Expired => {
            format!("on the other side: emccd cert new, emccd cert install FILE --now; then here: {pin}")
        }
        Rejection::NoClientCertificate => {
            "on the other side: emccd cert show, and let the caller present that certificate"
                .to_owned()
        }
        Rejection::NotYetValid => "compare the clocks of both sides (timedatectl); if both are \
                                   right, on the other side: emccd cert new, emccd cert install FILE --now"
            .to_owned(),
        Rejection::Plaintext => "let the caller use TLS (https) on this port".to_owned(),
        Rejection::Revoked => format!(
            "if it is to be trusted again: emccd trust add {peer} --unrevoke HEX (emccd trust list has its \
             fingerprint); or pin it, or the one that came after it: emccd trust add {peer} --pin FILE; if a list of its \
             authority has it (emccd trust crl list), only another certificate or a pin helps"
        ),
        Rejection::TlsVersion => "let the other side speak TLS 1.3".to_owned(),
        Rejection::UnknownIssuer => pin,
        Rejection::WrongCluster => format!(
            "emccd cluster list, and correct it: emccd cluster set {peer} --address HOST:PORT"
        ),
        Rejection::WrongEku => format!(
            "on the other side: emccd cert new, emccd cert install FILE --now (a node calls and is called with it); then here: {pin}; or overlook \
             it: emccd cluster set {peer} --ignore-eku true"
        ),
        Rejection::WrongName => format!(
            "emccd cluster set {peer} --node-name NAME, with a name that the certificate carries (give all \
             names of the peer's nodes: they replace the old ones)"
        ),
    }
}

/// The same seen from the side that was refused: what can be typed at `us`, and what only `peer` can type, who
/// refused.
#[must_use]
pub fn mend_ours(rejection: Rejection, us: &ClusterId, peer: &ClusterId) -> String {
    with_page(rejection, &ours(rejection, us, peer))
}

fn ours(rejection: Rejection, us: &ClusterId, peer: &ClusterId) -> String {
    let pin = format!(
        "emccd trust add {us} --pin FILE (our certificate; emccd cert show here has its fingerprint)"
    );
    match rejection {
        Rejection::Expired => {
            format!(
                "mend here with: emccd cert new, emccd cert install FILE --now; then on {peer}: {pin}"
            )
        }
        Rejection::WrongEku => format!(
            "mend here with: emccd cert new, emccd cert install FILE --now (a node calls and is called with one certificate); \
             then on {peer}: {pin}; or overlook it there: emccd cluster set {us} --ignore-eku true"
        ),
        Rejection::NotYetValid => {
            "compare the clocks of both sides (timedatectl); if both are right, mend here \
                                   with: emccd cert new, emccd cert install FILE --now"
                .to_owned()
        }
        Rejection::NoClientCertificate => {
            "mend here: emccd cert show names what this node shows, and why if it is nothing"
                .to_owned()
        }
        Rejection::UnknownIssuer => format!("mend on {peer} with: {pin}"),
        Rejection::Revoked => format!(
            "mend on {peer} with: {}; if its list is strict and stale there, with a newer one: emccd trust crl add {us} FILE",
            here(rejection, Some(us))
        ),
        Rejection::WrongName => format!(
            "mend on {peer} with: emccd cluster set {us} --node-name NAME, with a name that our certificate carries \
             (all names of our nodes: they replace the old ones)"
        ),
        Rejection::Ambiguous
        | Rejection::Plaintext
        | Rejection::TlsVersion
        | Rejection::WrongCluster => {
            format!("mend on {peer} with: {}", here(rejection, Some(us)))
        }
    }
}

/// The same where a caller refused our certificate by a TLS alert: who it was, it did not say.
#[must_use]
pub fn mend_called(rejection: Rejection) -> String {
    let pin = "on the calling side: emccd trust add CLUSTER --pin FILE (our certificate; compare it with emccd cert \
               show here)";
    let text = match rejection {
        Rejection::Expired => format!(
            "look at both clocks (timedatectl); if they are right: emccd cert new, emccd cert install FILE --now here; then {pin}"
        ),
        Rejection::WrongEku => {
            format!("emccd cert show here, and get a certificate that is for servers as well; then {pin}")
        }
        Rejection::WrongName => {
            "on the calling side: emccd trust explain with our address; it says whether a name is missing (emccd \
             cluster set CLUSTER --node-name NAME) or the address leads to another cluster (emccd cluster set CLUSTER \
             --address HOST:PORT)"
                .to_owned()
        }
        Rejection::Ambiguous => {
            "on the calling side: emccd trust list, and take our certificate from the peer that it is not of: emccd \
             trust remove ID --fingerprint HEX"
                .to_owned()
        }
        Rejection::Revoked => format!(
            "{pin}; or, on the calling side, emccd trust crl list tells whether a list of our authority has it, or is stale and \
             strict: emccd trust crl add CLUSTER FILE"
        ),
        Rejection::TlsVersion => "let the caller speak TLS 1.3".to_owned(),
        _ => pin.to_owned(),
    };
    with_page(rejection, &text)
}

/// What to look at when the link to `cluster` is down for trust, whichever side refused.
#[must_use]
pub fn mend_link(rejection: Rejection, cluster: &ClusterId) -> String {
    with_page(rejection, &link(rejection, cluster))
}

fn link(rejection: Rejection, cluster: &ClusterId) -> String {
    match rejection {
        Rejection::UnknownIssuer => {
            "compare `emccd cert show` of the side that is refused with `emccd trust list` of the side that refuses; \
             what is missing is added there: `emccd trust add ID --pin FILE`"
                .to_owned()
        }
        Rejection::WrongName => {
            "compare the names in `emccd cert show` of the side that is refused with the node names in \
             `emccd cluster list` of the side that refuses; what is missing is set there, with all names: \
             `emccd cluster set ID --node-name NAME`"
                .to_owned()
        }
        Rejection::Expired | Rejection::NotYetValid => {
            "look at the dates with `emccd cert show` and at both clocks; then on the side that is refused: \
             `emccd cert new`, `emccd cert install FILE --now`"
                .to_owned()
        }
        Rejection::WrongEku => {
            "the certificate is not for this direction: get another on the side that is refused, or overlook it on \
             the side that refuses: `emccd cluster set ID --ignore-eku true`"
                .to_owned()
        }
        Rejection::WrongCluster => format!(
            "the address leads to another cluster; see `emccd cluster list`, then \
             `emccd cluster set {cluster} --address HOST:PORT`"
        ),
        Rejection::NoClientCertificate => {
            "no certificate was shown; see `emccd cert show`".to_owned()
        }
        Rejection::Revoked => {
            "the certificate was revoked; the side that refuses takes the new one: `emccd trust add ID --pin FILE`, or \
             the old one again: `emccd trust add ID --unrevoke HEX`; if a list of its authority has it, or is strict and \
             stale (`emccd trust crl list` there), a pin or a newer list helps: `emccd trust crl add ID FILE`"
                .to_owned()
        }
        Rejection::Ambiguous => {
            "two peers' entries accept this certificate; on the side that refuses see `emccd trust list`, then \
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
    fn who_was_refused_is_told_what_each_side_types() {
        let (us, peer) = (
            ClusterId::new("tokyo").unwrap(),
            ClusterId::new("berlin").unwrap(),
        );
        for rejection in Rejection::ALL {
            let text = mend_ours(rejection, &us, &peer);
            assert!(!text.contains("the other side:"), "{text}");
            // Berlin is where something is typed; it is never what is typed about.
            assert!(
                !text.contains("add berlin") && !text.contains("set berlin"),
                "{text}"
            );
        }
        let expired = mend_ours(Rejection::Expired, &us, &peer);
        assert!(
            expired.starts_with("mend here with: emccd cert new"),
            "{expired}"
        );
        assert!(
            expired.contains("then on berlin: emccd trust add tokyo"),
            "{expired}"
        );
    }

    #[test]
    fn every_reason_has_something_to_do_about_it() {
        let berlin = ClusterId::new("berlin").unwrap();
        let tokyo = ClusterId::new("tokyo").unwrap();
        for rejection in Rejection::ALL {
            assert!(
                !mend(rejection, Some(&berlin)).contains("CLUSTER"),
                "{rejection}"
            );
            for text in [
                mend(rejection, None),
                mend_ours(rejection, &tokyo, &berlin),
                mend_link(rejection, &berlin),
                mend_called(rejection),
            ] {
                let page = format!("; {}", more(rejection));
                let (first, rest) = text.split_once(&page).unwrap();
                assert!(!first.is_empty() && rest.is_empty(), "{text}");
            }
        }
        assert!(
            mend(Rejection::UnknownIssuer, Some(&berlin))
                .starts_with("emccd trust add berlin --pin FILE")
        );
    }
}
