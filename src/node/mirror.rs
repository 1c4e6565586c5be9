//! What peers accept of our certificates, by what they told, in words and with the command that mends it: seen before a
//! handshake fails. Pure.

use crate::{
    clock::Timestamp,
    domain::{
        accepted::{AcceptedList, Standing},
        announcement::Fingerprint,
        ids::ClusterId,
        purpose::Purpose,
    },
    peer::LinkStatus,
    trust::{Snapshot, certificate::fingerprint_text, identity::Identity},
    wire::admin as pb,
};

/// From when on it is said that what a peer accepts ends.
const SOON_DAYS: i64 = 30;
const DAY_MILLIS: i64 = 86_400_000;

/// A certificate that a node of ours has announced and does not show yet.
#[derive(Clone, Debug)]
pub(super) struct Next {
    /// The node.
    pub node: String,
    /// What it is for.
    pub purpose: Purpose,
    /// It and what is sent with it, as far as that is known here.
    pub chain: Vec<Fingerprint>,
}

/// Who looks, and what is to come.
#[derive(Debug)]
pub(super) struct Ours<'a> {
    /// Our cluster.
    pub us: &'a ClusterId,
    /// This node.
    pub node: &'a str,
    /// What any node of ours has announced.
    pub next: &'a [Next],
}

/// How each certificate that this node shows to a peer stands with it, and each that a node of ours is to show next;
/// nothing where the peer has told nothing.
pub(super) fn ours(
    Ours { us, node, next }: &Ours<'_>,
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
            let told = told(us, &link.cluster, purpose, &chain, standing, now);
            pb::OurCertificate {
                node: (*node).to_owned(),
                ..told
            }
        })
        .chain(next.iter().map(|next| to_come(us, next, list)))
        .collect()
}

/// How one that is announced stands: who does not accept it yet would be cut off if it were shown now.
fn to_come(us: &ClusterId, next: &Next, list: &AcceptedList) -> pb::OurCertificate {
    let standing = list.standing(&next.chain);
    let fingerprint = next.chain.first().map(fingerprint_text).unwrap_or_default();
    let (node, purpose) = (&next.node, next.purpose);
    let it = format!("the certificate {fingerprint} that {node} is to show next");
    let (note, hint) = match standing {
        Standing::Accepted(_) | Standing::Vouched | Standing::NotTold => (None, None),
        Standing::Waiting => (
            Some(format!("{it} waits there for its operator")),
            Some(format!(
                "have its operator type: emccd trust accept {us} --fingerprint {fingerprint}"
            )),
        ),
        Standing::Revoked => (
            Some(format!("{it} was revoked there")),
            Some(format!(
                "announce another one: emccd cert rotate rollback --node {node} --purpose {purpose}, then emccd cert rotate \
                 announce --node {node} --purpose {purpose}"
            )),
        ),
        Standing::Unknown => (
            Some(format!("it does not accept yet {it}")),
            Some("what it has said to the announcement: emccd cert rotate status".to_owned()),
        ),
    };
    let until = match standing {
        Standing::Accepted(until) => until,
        _ => None,
    };
    pb::OurCertificate {
        purpose: purpose.to_string(),
        fingerprint,
        standing: standing.as_str().to_owned(),
        until: until.map(|until| until.to_string()),
        note,
        hint,
        is_next: true,
        node: node.clone(),
    }
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
                Some("emccd cert rotate announce, before it ends".to_owned()),
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
                "have its operator type: emccd trust add {us} --unrevoke {fingerprint}; or make another one (emccd cert rotate \
                 announce), have it added there (emccd trust add {us} --pin FILE), and show it to {peer} all the same: emccd \
                 cert rotate activate --override {peer}"
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
        ..pb::OurCertificate::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::accepted::{Accepted, AcceptedKind};

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
                "emccd cert rotate announce".to_owned(),
            ),
        ] {
            let told = told(standing);
            assert!(told.note.as_ref().unwrap().contains(note), "{told:?}");
            assert!(told.note.unwrap().contains(&text));
            assert!(told.hint.unwrap().contains(&hint));
        }
        let next = |kind| {
            let next = Next {
                node: "n2".to_owned(),
                purpose: Purpose::Federation,
                chain: vec![[0xab; 32]],
            };
            let entries = vec![
                Accepted {
                    fingerprint: [1; 32],
                    kind: AcceptedKind::Pinned,
                    until: None,
                },
                Accepted {
                    fingerprint: [0xab; 32],
                    kind,
                    until: None,
                },
            ];
            to_come(&id("berlin"), &next, &AcceptedList::new(1, entries))
        };
        for (kind, note, hint) in [
            (
                AcceptedKind::Waiting,
                "that n2 is to show next waits there",
                format!("emccd trust accept berlin --fingerprint {text}"),
            ),
            (
                AcceptedKind::Revoked,
                "was revoked there",
                "emccd cert rotate rollback --node n2".to_owned(),
            ),
        ] {
            let told = next(kind);
            assert!(told.note.unwrap().contains(note));
            assert!(told.hint.unwrap().contains(&hint));
            assert!(told.is_next && told.node == "n2");
        }
        assert_eq!(next(AcceptedKind::Pinned).note, None);
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
