//! What clusters tell one another of themselves, between the wire and the store: nothing is kept that could not be.
//! Pure.

use std::net::IpAddr;

use rustls::crypto::CryptoProvider;
use rustls_pki_types::CertificateDer;

use crate::{
    domain::{
        address::HostPort,
        address_list::MAX_ADDRESSES,
        bounds::is_line,
        ids::ClusterId,
        pairing::{Told, ToldAddress, ToldCertificate, Unfit, certificate_text},
    },
    trust::{
        certificate::{Certificate, Fingerprint, fingerprint_of, fingerprint_text},
        proof,
    },
    wire::join as pb,
};

/// The certificates of a whole cluster.
const MAX_CERTIFICATES: usize = 64;
/// One certificate.
const MAX_DER_BYTES: usize = 16 * 1024;
/// A signature of a certificate's key.
const MAX_SIGNATURE_BYTES: usize = 1024;
/// A line for people.
const MAX_LINE_BYTES: usize = 255;

/// What was told can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct Malformed {
    what: &'static str,
    rule: &'static str,
}

const fn malformed(what: &'static str, rule: &'static str) -> Malformed {
    Malformed { what, rule }
}

/// Reads what the other cluster told. Its addresses are not dialled yet.
///
/// # Errors
/// [`Malformed`] with the first field that breaks its rule.
pub fn read(cluster: pb::Cluster) -> Result<Told, Malformed> {
    ClusterId::new(cluster.cluster_id.as_str())
        .map_err(|_| malformed("the cluster ID", "1 to 64 characters of A-Z a-z 0-9 . _ -"))?;
    check_lines(&cluster)?;
    if cluster.addresses.len() > MAX_ADDRESSES {
        return Err(malformed("the addresses", "at most 16"));
    }
    if !(1..=MAX_CERTIFICATES).contains(&cluster.certificates.len()) {
        return Err(malformed("the certificates", "1 to 64"));
    }
    let mut told = Told {
        cluster_id: cluster.cluster_id,
        name: cluster.name.trim().to_owned(),
        software: cluster.software,
        versions: cluster.versions,
        security_mode: cluster.security_mode,
        ..Told::default()
    };
    for address in cluster.addresses {
        let address: HostPort = address
            .parse()
            .map_err(|_| malformed("an address", "HOST:PORT"))?;
        let address = address.to_string();
        if told.addresses.iter().all(|known| known.address != address) {
            told.addresses.push(ToldAddress {
                address,
                ..ToldAddress::default()
            });
        }
    }
    for certificate in cluster.certificates {
        let readable = certificate.der.len() <= MAX_DER_BYTES
            && Certificate::from_der(&certificate.der).is_ok();
        if !readable {
            return Err(malformed(
                "a certificate",
                "one X.509 certificate of at most 16 KiB",
            ));
        }
        let scheme = u16::try_from(certificate.signature_scheme).ok();
        let scheme = scheme.filter(|_| certificate.signature.len() <= MAX_SIGNATURE_BYTES);
        let Some(scheme) = scheme else {
            let rule = "made by a scheme of TLS, of at most 1 KiB";
            return Err(malformed("the proof of a certificate", rule));
        };
        if told.certificates.iter().all(|c| c.der != certificate.der) {
            told.certificates.push(ToldCertificate {
                node: certificate.node,
                purpose: certificate.purpose,
                der: certificate.der,
                scheme,
                signature: certificate.signature,
                is_only_told: false,
            });
        }
    }
    Ok(told)
}

fn check_lines(cluster: &pb::Cluster) -> Result<(), Malformed> {
    let own = [
        &cluster.name,
        &cluster.software,
        &cluster.versions,
        &cluster.security_mode,
    ];
    let of_nodes = cluster
        .certificates
        .iter()
        .flat_map(|c| [&c.node, &c.purpose]);
    let mut lines = own.into_iter().chain(of_nodes);
    if lines.all(|line| is_line(line, MAX_LINE_BYTES)) {
        Ok(())
    } else {
        Err(malformed("a text", "one line of at most 255 bytes"))
    }
}

/// What we tell of ourselves, as a message.
#[must_use]
pub fn message(told: &Told) -> pb::Cluster {
    pb::Cluster {
        cluster_id: told.cluster_id.clone(),
        name: told.name.clone(),
        software: told.software.clone(),
        versions: told.versions.clone(),
        security_mode: told.security_mode.clone(),
        addresses: told.addresses.iter().map(|a| a.address.clone()).collect(),
        certificates: told
            .certificates
            .iter()
            .map(|c| pb::Certificate {
                node: c.node.clone(),
                purpose: c.purpose.clone(),
                der: c.der.clone(),
                signature_scheme: c.scheme.into(),
                signature: c.signature.clone(),
            })
            .collect(),
    }
}

/// SHA-256 of what a cluster's nodes show.
#[must_use]
pub fn fingerprints(told: &Told) -> Vec<Fingerprint> {
    let all = told.certificates.iter();
    all.map(|certificate| fingerprint_of(&certificate.der))
        .collect()
}

/// Refuses a cluster that can't be a peer of ours, whatever its operator says. `shown` is the certificate that it showed
/// itself: of that one the connection has proved the key, of each other one its own signature does.
///
/// # Errors
/// [`Unfit`].
pub fn check(
    provider: &CryptoProvider,
    them: &Told,
    shown: &Fingerprint,
    us: &Told,
) -> Result<ClusterId, Unfit> {
    let Ok(cluster) = ClusterId::new(them.cluster_id.as_str()) else {
        // What was read has a well-formed one.
        return Err(Unfit::Unnamed);
    };
    if them.cluster_id.eq_ignore_ascii_case(&us.cluster_id) {
        return Err(Unfit::Ourselves(cluster));
    }
    let theirs = fingerprints(them);
    let ours = fingerprints(us);
    if let Some(own) = theirs.iter().find(|theirs| ours.contains(theirs)) {
        let fingerprint = fingerprint_text(own);
        return Err(Unfit::Ours {
            cluster,
            fingerprint,
        });
    }
    if !theirs.contains(shown) {
        return Err(Unfit::NotItsOwn(cluster));
    }
    let unproven = them.certificates.iter().find(|certificate| {
        let fingerprint = fingerprint_of(&certificate.der);
        fingerprint != *shown && !is_proven(provider, &them.cluster_id, certificate, &fingerprint)
    });
    match unproven {
        Some(certificate) => Err(Unfit::Unproven {
            cluster,
            node: certificate.node.clone(),
            fingerprint: fingerprint_text(&fingerprint_of(&certificate.der)),
        }),
        None => Ok(cluster),
    }
}

fn is_proven(
    provider: &CryptoProvider,
    cluster_id: &str,
    certificate: &ToldCertificate,
    fingerprint: &Fingerprint,
) -> bool {
    let der = CertificateDer::from(certificate.der.as_slice());
    let text = certificate_text(cluster_id, fingerprint);
    proof::verify(
        provider,
        &der,
        certificate.scheme,
        &text,
        &certificate.signature,
    )
    .is_ok()
}

/// What an operator should know of an address that leads there; none where there is nothing.
#[must_use]
pub fn warning(ip: IpAddr) -> Option<&'static str> {
    let v4 = match ip.to_canonical() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    };
    let (is_loopback, is_link_local, is_private) = match (v4, ip) {
        (Some(ip), _) => (
            ip.is_loopback(),
            ip.is_link_local(),
            ip.is_private() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xC0 == 64),
        ),
        (None, IpAddr::V6(ip)) => (
            ip.is_loopback(),
            ip.is_unicast_link_local(),
            ip.is_unique_local(),
        ),
        (None, IpAddr::V4(_)) => (false, false, false),
    };
    if is_loopback {
        Some("a loopback address: it leads to the machine that dials it")
    } else if is_link_local {
        Some("a link-local address: it leads somewhere else on every network")
    } else if is_private {
        Some("a private address: make sure that both clusters mean the same network by it")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::{
        fixtures::{Leaf, Spec},
        tls::provider,
    };

    fn told(cluster: &str, leaf: &Leaf, proof_for: &str, by: &Leaf) -> ToldCertificate {
        let text = certificate_text(proof_for, &leaf.certificate().fingerprint());
        let (scheme, signature) = proof::sign(&by.identity(), &text).unwrap();
        ToldCertificate {
            node: format!("{cluster}-1"),
            purpose: "federation".to_owned(),
            der: leaf.der().to_vec(),
            scheme,
            signature,
            is_only_told: false,
        }
    }

    fn them(certificates: Vec<ToldCertificate>) -> Told {
        Told {
            cluster_id: "tokyo".to_owned(),
            certificates,
            ..Told::default()
        }
    }

    #[test]
    fn each_certificate_that_was_not_shown_is_proved_by_its_key_for_that_cluster() {
        let leaf = || Spec::new("n.tokyo.example").self_signed();
        let (shown, other, stranger) = (leaf(), leaf(), leaf());
        let us = Told {
            cluster_id: "berlin".to_owned(),
            ..Told::default()
        };
        let print = |leaf: &Leaf| leaf.certificate().fingerprint();
        let judged = |first: ToldCertificate, second: ToldCertificate| {
            check(&provider(), &them(vec![first, second]), &print(&shown), &us)
        };
        let bare = || ToldCertificate {
            signature: Vec::new(),
            scheme: 0,
            ..told("tokyo", &shown, "tokyo", &shown)
        };
        let good = told("tokyo", &other, "tokyo", &other);
        // The connection has proved the one that was shown.
        assert!(judged(bare(), good.clone()).is_ok());
        for unproven in [
            // As an attacker would: another's certificate, without its key.
            ToldCertificate {
                signature: Vec::new(),
                ..good.clone()
            },
            told("tokyo", &other, "tokyo", &stranger),
            // Told by somebody who has it from its owner.
            told("tokyo", &other, "lima", &other),
            ToldCertificate {
                der: stranger.der().to_vec(),
                ..good.clone()
            },
        ] {
            let refused = judged(bare(), unproven).unwrap_err();
            assert!(matches!(refused, Unfit::Unproven { .. }), "{refused}");
        }
        let ours = Told {
            certificates: vec![good.clone()],
            ..us.clone()
        };
        let both = them(vec![bare(), good]);
        let refused = check(&provider(), &both, &print(&shown), &ours).unwrap_err();
        assert!(matches!(refused, Unfit::Ours { .. }), "{refused}");
        let refused = check(&provider(), &both, &print(&stranger), &us).unwrap_err();
        assert!(matches!(refused, Unfit::NotItsOwn(_)), "{refused}");
    }

    #[test]
    fn a_proof_comes_back_as_it_was_told_and_has_bounds() {
        let leaf = Spec::new("n.tokyo.example").self_signed();
        let whole = them(vec![told("tokyo", &leaf, "tokyo", &leaf)]);
        assert_eq!(read(message(&whole)).unwrap(), whole);
        let mut long = message(&whole);
        long.certificates[0].signature = vec![0; MAX_SIGNATURE_BYTES + 1];
        assert!(read(long).is_err());
        let mut odd = message(&whole);
        odd.certificates[0].signature_scheme = 0x1_0000;
        assert!(read(odd).is_err());
    }
}
