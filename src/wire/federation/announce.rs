//! `Announce`: the certificates of one identity, and what became of each.

use std::collections::BTreeSet;

use crate::{
    domain::announcement::{
        Acknowledgement, Announcement, Fingerprint, MAX_CERTIFICATES, Outcome, Proof, Proven,
    },
    wire::{
        malformed::{self, Malformed},
        pb,
    },
};

const IDENTITY_BYTES: usize = 255;
const CERTIFICATE_BYTES: usize = 12 * 1024;
const SIGNATURE_BYTES: usize = 1024;
const REASON_BYTES: usize = 512;

/// For the wire.
#[must_use]
pub fn encode_announcement(announcement: &Announcement) -> pb::AnnounceRequest {
    let certificates = announcement.certificates.iter();
    pb::AnnounceRequest {
        identity: announcement.identity.clone(),
        sequence: announcement.sequence,
        certificates: certificates
            .map(|proven| {
                let vouched = proven.parent_proof.as_ref();
                pb::AnnouncedCertificate {
                    der: proven.der.clone(),
                    parent: proven.parent.map(Vec::from).unwrap_or_default(),
                    signature_scheme: proven.proof.scheme.into(),
                    signature: proven.proof.signature.clone(),
                    parent_signature_scheme: vouched.map_or(0, |proof| proof.scheme.into()),
                    parent_signature: vouched
                        .map_or_else(Vec::new, |proof| proof.signature.clone()),
                }
            })
            .collect(),
    }
}

/// From the wire.
///
/// # Errors
/// [`Malformed`]; also for more certificates than an identity has, and for one that is there twice.
pub fn decode_announcement(message: pb::AnnounceRequest) -> Result<Announcement, Malformed> {
    let identity = malformed::text("identity", message.identity, IDENTITY_BYTES)?;
    if identity.is_empty() {
        return Err(Malformed::new("identity", "node and purpose"));
    }
    // What a store can hold; 0 is for what was never announced.
    if message.sequence == 0 || i64::try_from(message.sequence).is_err() {
        return Err(Malformed::new("sequence", "1 to 2^63 - 1"));
    }
    let certificates = malformed::list(
        "certificates",
        message.certificates,
        MAX_CERTIFICATES,
        proven,
    )?;
    let different: BTreeSet<_> = certificates.iter().map(|proven| &proven.der).collect();
    if certificates.is_empty() || different.len() != certificates.len() {
        return Err(Malformed::new("certificates", "one at least, each once"));
    }
    Ok(Announcement {
        identity,
        sequence: message.sequence,
        certificates,
    })
}

fn proven(message: pb::AnnouncedCertificate) -> Result<Proven, Malformed> {
    let parent = match message.parent.is_empty() {
        true => None,
        false => Some(fingerprint("certificates.parent", &message.parent)?),
    };
    let parent_proof = match (message.parent_signature.is_empty(), parent) {
        (true, _) => None,
        (false, Some(_)) => Some(Proof {
            scheme: scheme(
                "certificates.parent_signature_scheme",
                message.parent_signature_scheme,
            )?,
            signature: bytes(
                "certificates.parent_signature",
                message.parent_signature,
                SIGNATURE_BYTES,
            )?,
        }),
        (false, None) => {
            let rule = "empty where no parent is named";
            return Err(Malformed::new("certificates.parent_signature", rule));
        }
    };
    Ok(Proven {
        der: bytes("certificates.der", message.der, CERTIFICATE_BYTES)?,
        parent,
        proof: Proof {
            scheme: scheme("certificates.signature_scheme", message.signature_scheme)?,
            signature: bytes("certificates.signature", message.signature, SIGNATURE_BYTES)?,
        },
        parent_proof,
    })
}

fn scheme(field: &'static str, number: u32) -> Result<u16, Malformed> {
    u16::try_from(number).map_err(|_| Malformed::new(field, "one of TLS"))
}

/// The answer, for the wire.
#[must_use]
pub fn encode_acknowledgement(answer: &Acknowledgement) -> pb::AnnounceResponse {
    let outcomes = answer.outcomes.iter().map(|(fingerprint, outcome)| {
        let (word, reason) = match outcome {
            Outcome::Loaded => (pb::AnnounceOutcome::Loaded, ""),
            Outcome::Waiting(why) => (pb::AnnounceOutcome::Waiting, why.as_str()),
            Outcome::Refused(why) => (pb::AnnounceOutcome::Refused, why.as_str()),
        };
        pb::AnnouncedOutcome {
            fingerprint: fingerprint.to_vec(),
            outcome: word.into(),
            reason: reason
                .get(..reason.floor_char_boundary(REASON_BYTES))
                .unwrap_or_default()
                .to_owned(),
        }
    });
    pb::AnnounceResponse {
        sequence: answer.sequence,
        outcomes: outcomes.collect(),
    }
}

/// The answer, from the wire. What it says of a certificate that is not known here as one of three is a refusal.
///
/// # Errors
/// [`Malformed`].
pub fn decode_acknowledgement(message: pb::AnnounceResponse) -> Result<Acknowledgement, Malformed> {
    let outcomes = malformed::list("outcomes", message.outcomes, MAX_CERTIFICATES, |told| {
        let reason = malformed::text("outcomes.reason", told.reason, REASON_BYTES)?;
        let outcome = match pb::AnnounceOutcome::try_from(told.outcome) {
            Ok(pb::AnnounceOutcome::Loaded) => Outcome::Loaded,
            Ok(pb::AnnounceOutcome::Waiting) => Outcome::Waiting(reason),
            Ok(pb::AnnounceOutcome::Refused | pb::AnnounceOutcome::Unspecified) | Err(_) => {
                Outcome::Refused(reason)
            }
        };
        Ok((
            fingerprint("outcomes.fingerprint", &told.fingerprint)?,
            outcome,
        ))
    })?;
    Ok(Acknowledgement {
        sequence: message.sequence,
        outcomes,
    })
}

pub(super) fn fingerprint(field: &'static str, bytes: &[u8]) -> Result<Fingerprint, Malformed> {
    bytes
        .try_into()
        .map_err(|_| Malformed::new(field, "32 bytes"))
}

fn bytes(field: &'static str, bytes: Vec<u8>, most: usize) -> Result<Vec<u8>, Malformed> {
    if (1..=most).contains(&bytes.len()) {
        return Ok(bytes);
    }
    Err(Malformed::new(field, format!("1 to {most} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement() -> Announcement {
        let proof = |n: u8| Proof {
            scheme: 0x0403,
            signature: vec![n, 2, 3],
        };
        let certificate = |n: u8, parent: Option<Fingerprint>| Proven {
            der: vec![n; 40],
            parent,
            proof: proof(n),
            parent_proof: parent.map(|_| proof(9)),
        };
        Announcement {
            identity: "berlin-1/federation".to_owned(),
            sequence: 12,
            certificates: vec![certificate(1, None), certificate(2, Some([1; 32]))],
        }
    }

    #[test]
    fn an_announcement_and_its_answer_come_back_as_they_were_sent() {
        let sent = announcement();
        assert_eq!(
            decode_announcement(encode_announcement(&sent)).unwrap(),
            sent
        );
        let answer = Acknowledgement {
            sequence: 13,
            outcomes: vec![
                ([1; 32], Outcome::Loaded),
                ([2; 32], Outcome::Waiting("by policy".to_owned())),
                ([3; 32], Outcome::Refused("revoked".to_owned())),
            ],
        };
        let message = encode_acknowledgement(&answer);
        assert_eq!(decode_acknowledgement(message.clone()).unwrap(), answer);
        let mut later = message;
        later.outcomes[0].outcome = 77;
        let read = decode_acknowledgement(later).unwrap();
        assert!(matches!(read.outcomes[0].1, Outcome::Refused(_)));
    }

    #[test]
    fn what_breaks_a_bound_is_refused_by_its_field() {
        type Breaking = fn(&mut pb::AnnounceRequest);
        let broken: [(&str, Breaking); 14] = [
            ("identity", |m| m.identity.clear()),
            ("identity", |m| m.identity = "a\nb".to_owned()),
            ("identity", |m| m.identity = "x".repeat(256)),
            ("sequence", |m| m.sequence = 0),
            ("sequence", |m| m.sequence = u64::MAX),
            ("certificates", |m| m.certificates.clear()),
            ("certificates", |m| {
                let again = m.certificates[0].clone();
                m.certificates.push(again);
            }),
            ("certificates", |m| {
                m.certificates = (0..5)
                    .map(|n| pb::AnnouncedCertificate {
                        der: vec![n],
                        ..m.certificates[0].clone()
                    })
                    .collect();
            }),
            ("certificates.der", |m| {
                m.certificates[0].der = vec![0; 12 * 1024 + 1];
            }),
            ("certificates.parent", |m| {
                m.certificates[0].parent = vec![0; 31];
            }),
            ("certificates.signature", |m| {
                m.certificates[1].signature = vec![0; 1025];
            }),
            ("certificates.parent_signature", |m| {
                m.certificates[1].parent_signature = vec![0; 1025];
            }),
            ("certificates.parent_signature", |m| {
                m.certificates[0].parent_signature = vec![0];
            }),
            ("certificates.parent_signature_scheme", |m| {
                m.certificates[1].parent_signature_scheme = 0x1_0000;
            }),
        ];
        for (field, break_it) in broken {
            let mut message = encode_announcement(&announcement());
            break_it(&mut message);
            let malformed = decode_announcement(message).unwrap_err();
            assert_eq!(malformed.field, field);
        }
    }
}
