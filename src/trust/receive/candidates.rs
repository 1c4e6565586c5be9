//! What an announcement comes to, before it is decided on: on whose word each certificate is taken, and whether it would
//! be accepted where it is shown. Pure.

use std::collections::BTreeSet;

use super::Call;
use crate::{
    clock::Timestamp,
    domain::{
        announcement::{
            Announcement,
            reconcile::{Candidate, Fitness, Request},
        },
        purpose::Purpose,
        rejection::Rejection,
    },
    trust::{
        bundle::{Bundle, Direction},
        certificate::{Certificate, Fingerprint, fingerprint_of},
        judge::judge_for,
    },
};

/// A certificate whose key is proved, and the one whose key vouches for it.
pub(super) struct Told {
    pub(super) certificate: Certificate,
    pub(super) parent: Option<Fingerprint>,
}

/// The authority that vouches for the call's connection, if one does.
pub(super) fn authority(bundle: &Bundle, call: &Call, now: Timestamp) -> Option<Fingerprint> {
    let vouches = |anchor: &&Certificate| {
        let alone = Bundle {
            pinned: Vec::new(),
            anchors: vec![Certificate::clone(anchor)],
            ..bundle.clone()
        };
        judge_for(&alone, &call.chain, Direction::Client, now)
            .peer()
            .is_some()
    };
    let mut anchors = bundle.anchors.iter();
    anchors.find(vouches).map(Certificate::fingerprint)
}

/// In which directions an identity is shown. What is shown to those that call us is also shown to those that we call,
/// unless there is another one for that: then this very call shows another one.
fn directions(identity: &str, calls: bool) -> Vec<Direction> {
    let purpose = identity
        .rsplit_once('/')
        .and_then(|(_, name)| Purpose::from_name(name));
    let serves = purpose == Some(Purpose::Federation);
    let calls = calls || purpose == Some(Purpose::FederationClient);
    let both = [(serves, Direction::Server), (calls, Direction::Client)];
    both.into_iter()
        .filter_map(|(is_so, direction)| is_so.then_some(direction))
        .collect()
}

/// Whether a certificate would be accepted as one that is pinned, by the same judgement as when it is shown.
fn fitness(
    certificate: &Certificate,
    bundle: &Bundle,
    directions: &[Direction],
    now: Timestamp,
) -> Fitness {
    let pinned = Bundle {
        pinned: vec![certificate.clone()],
        ignore_eku: bundle.ignore_eku,
        ..Bundle::new(bundle.cluster.clone())
    };
    let (begins, ends) = (certificate.not_before(), certificate.not_after());
    let chain = [certificate.der().clone()];
    // What its time does not mend counts more than that its time has not come.
    let at = now.max(begins);
    for direction in directions {
        let verdict = judge_for(&pinned, &chain, *direction, at);
        match (verdict.rejection(), direction) {
            (None, _) => {}
            (Some(Rejection::Expired), _) => {
                return Fitness::Never(format!("it expired at {ends}"));
            }
            (Some(Rejection::WrongEku), Direction::Client) => {
                return Fitness::Never(
                    "its extended key usage has no clientAuth, and it is shown to those that are called"
                        .to_owned(),
                );
            }
            (Some(Rejection::WrongEku), Direction::Server) => {
                return Fitness::Never(
                    "its extended key usage has no serverAuth, and it is shown to those that call"
                        .to_owned(),
                );
            }
            (Some(other), _) => {
                return Fitness::Never(format!("it would be refused ({})", other.as_str()));
            }
        }
    }
    if ends < now {
        return Fitness::Never(format!("it expired at {ends}"));
    }
    if now < begins {
        return Fitness::NotYet(format!(
            "it is valid from {begins} on, and it is {now} here: it is taken when it is announced after that"
        ));
    }
    Fitness::Fit
}

/// What is to be decided on.
pub(super) fn request_of(
    announcement: &Announcement,
    told: &[Told],
    connection: Fingerprint,
    bundle: &Bundle,
    now: Timestamp,
) -> Request {
    let fingerprints = told.iter().map(|one| one.certificate.fingerprint());
    let fingerprints: BTreeSet<_> = fingerprints.collect();
    let directions = directions(&announcement.identity, fingerprints.contains(&connection));
    let candidates = told.iter().map(|one| Candidate {
        fingerprint: one.certificate.fingerprint(),
        parent: one.parent,
        fitness: fitness(&one.certificate, bundle, &directions, now),
    });
    Request {
        identity: announcement.identity.clone(),
        sequence: announcement.sequence,
        // In one order, whatever the order in which they are told.
        digest: fingerprint_of(&Vec::from_iter(fingerprints).concat()),
        certificates: candidates.collect(),
        connection,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        trust::fixtures::{Spec, bundle},
    };

    #[test]
    fn an_identity_is_judged_in_the_directions_that_it_is_shown_in() {
        use Direction::{Client, Server};
        for (identity, calls, expected) in [
            ("n/federation", true, vec![Server, Client]),
            // Another one is shown to those that are called, as this call shows.
            ("n/federation", false, vec![Server]),
            ("n/federation-client", false, vec![Client]),
            ("n/federation-client", true, vec![Client]),
            ("a/b/federation", false, vec![Server]),
            ("something", true, vec![Client]),
            ("something", false, vec![]),
        ] {
            assert_eq!(directions(identity, calls), expected, "{identity} {calls}");
        }
    }

    #[test]
    fn what_would_be_refused_when_it_is_shown_is_not_fit() {
        let now = Clock::system().now();
        let spec = || Spec::new("n1.example");
        let both = [Direction::Server, Direction::Client];
        let mut berlin = bundle("berlin");
        let fits = |bundle: &Bundle, spec: Spec, directions: &[Direction]| {
            fitness(&spec.self_signed().certificate(), bundle, directions, now)
        };
        assert_eq!(fits(&berlin, spec(), &both), Fitness::Fit);
        let for_servers = || spec().eku(false, true);
        assert_eq!(fits(&berlin, for_servers(), &both[..1]), Fitness::Fit);
        for (spec, what) in [
            (for_servers(), "no clientAuth"),
            (spec().eku(true, false), "no serverAuth"),
            (spec().valid_days(-9, -1), "it expired at"),
            // Its time does not make it one for callers.
            (for_servers().valid_days(1, 9), "no clientAuth"),
        ] {
            let Fitness::Never(why) = fits(&berlin, spec, &both) else {
                panic!("{what}");
            };
            assert!(why.contains(what), "{why}");
        }
        for directions in [&both[..], &[]] {
            let early = fits(&berlin, spec().valid_days(1, 9), directions);
            let Fitness::NotYet(when) = early else {
                panic!("{early:?}");
            };
            assert!(when.contains("it is valid from"), "{when}");
            let late = fits(&berlin, spec().valid_days(-9, -1), directions);
            assert!(matches!(late, Fitness::Never(_)), "{late:?}");
        }
        berlin.ignore_eku = true;
        assert_eq!(fits(&berlin, for_servers(), &both), Fitness::Fit);
    }
}
