//! What peers accept of our certificates, by what they told, in words and with the command that mends it: seen before a
//! handshake fails. Pure.

use crate::{
    clock::Timestamp,
    domain::{accepted::Standing, announcement::Fingerprint, ids::ClusterId},
    peer::LinkStatus,
    trust::{Snapshot, certificate::fingerprint_text, identity::Identity},
    wire::admin as pb,
};

/// From when on it is said that what a peer accepts ends.
const SOON_DAYS: i64 = 30;
const DAY_MILLIS: i64 = 86_400_000;

/// How each certificate that this node shows to a peer stands with it; nothing where the peer has told nothing.
pub(super) fn ours(
    us: &ClusterId,
    link: &LinkStatus,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Vec<pb::OurCertificate> {
    let Some(list) = link.accepted() else {
        return Vec::new();
    };
    let (server, client) = (
        snapshot.identity(),
        snapshot.client_identity_for(&link.cluster),
    );
    // Most nodes show one certificate in both directions.
    let other = client.filter(|client| {
        server.is_none_or(|server| server.leaf().fingerprint() != client.leaf().fingerprint())
    });
    let shown = server.map(|identity| ("federation", identity));
    let shown = shown
        .into_iter()
        .chain(other.map(|identity| ("federation-client", identity)));
    shown
        .map(|(purpose, identity)| {
            let chain = chain(identity);
            let standing = list.standing(&chain);
            told(us, &link.cluster, purpose, &chain, standing, now)
        })
        .collect()
}

/// All that a peer accepts from us, as it told.
pub(super) fn accepted(link: &LinkStatus) -> Vec<pb::AcceptedOfOurs> {
    let entries = link.accepted().map(|list| list.certificates.iter());
    let entries = entries.into_iter().flatten();
    entries
        .map(|entry| pb::AcceptedOfOurs {
            fingerprint: fingerprint_text(&entry.fingerprint),
            kind: entry.kind.as_str().to_owned(),
            until: entry.until.map(|until| until.to_string()),
        })
        .collect()
}

fn chain(identity: &Identity) -> Vec<Fingerprint> {
    let certificates = identity.chain().iter();
    certificates.map(|c| c.fingerprint()).collect()
}

fn told(
    us: &ClusterId,
    peer: &ClusterId,
    purpose: &str,
    chain: &[Fingerprint],
    standing: Standing,
    now: Timestamp,
) -> pb::OurCertificate {
    let fingerprint = chain.first().map(fingerprint_text).unwrap_or_default();
    let until = match standing {
        Standing::Accepted(until) => until,
        _ => None,
    };
    let (note, hint) = match standing {
        Standing::Accepted(Some(until))
            if until.as_millis().saturating_sub(now.as_millis()) < SOON_DAYS * DAY_MILLIS =>
        {
            (
                Some(format!(
                    "it accepts our certificate {fingerprint} until {until}"
                )),
                Some("emccd cert new, before it ends".to_owned()),
            )
        }
        Standing::Accepted(_) | Standing::Vouched | Standing::NotTold => (None, None),
        Standing::Waiting => (
            Some(format!(
                "our certificate {fingerprint} waits there for its operator, and is not accepted before"
            )),
            Some(format!(
                "have its operator type: emccd trust accept {us} --fingerprint {fingerprint}"
            )),
        ),
        Standing::Revoked => (
            Some(format!("our certificate {fingerprint} was revoked there")),
            Some(format!(
                "show it another one (emccd cert new), or have its operator type: emccd trust add {us} --unrevoke \
                 {fingerprint}"
            )),
        ),
        Standing::Unknown => (
            Some(format!("it does not accept our certificate {fingerprint}")),
            Some(format!(
                "give its operator the certificate (emccd cert show), to type on {peer}: emccd trust add {us} --pin FILE"
            )),
        ),
    };
    pb::OurCertificate {
        purpose: purpose.to_owned(),
        fingerprint,
        standing: standing.as_str().to_owned(),
        until: until.map(|until| until.to_string()),
        note,
        hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_in_which_a_certificate_is_not_accepted_has_words_and_a_command() {
        let id = |name| ClusterId::new(name).unwrap();
        let now = Timestamp::from_millis(0);
        let told = |standing| {
            told(
                &id("berlin"),
                &id("tokyo"),
                "federation",
                &[[0xab; 32]],
                standing,
                now,
            )
        };
        let text = fingerprint_text(&[0xab; 32]);
        for (standing, note, hint) in [
            (
                Standing::Waiting,
                "waits there",
                format!("emccd trust accept berlin --fingerprint {text}"),
            ),
            (
                Standing::Revoked,
                "revoked there",
                format!("emccd trust add berlin --unrevoke {text}"),
            ),
            (
                Standing::Unknown,
                "does not accept our certificate",
                "emccd trust add berlin --pin FILE".to_owned(),
            ),
            (
                Standing::Accepted(Some(Timestamp::from_millis(DAY_MILLIS))),
                "until 1970-01-02",
                "emccd cert new".to_owned(),
            ),
        ] {
            let told = told(standing);
            assert!(told.note.as_ref().unwrap().contains(note), "{told:?}");
            assert!(told.note.unwrap().contains(&text));
            assert!(told.hint.unwrap().contains(&hint));
        }
        for quiet in [
            Standing::Accepted(Some(Timestamp::from_millis(31 * DAY_MILLIS))),
            Standing::Accepted(None),
            Standing::Vouched,
            Standing::NotTold,
        ] {
            let told = told(quiet);
            assert_eq!((told.note, told.hint), (None, None));
            assert_eq!(told.standing, quiet.as_str());
        }
    }
}
