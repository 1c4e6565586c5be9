//! Certificates for tests: good, odd and deliberately bad ones, made on the spot.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use crate::{
    clock::{Clock, Timestamp},
    domain::ids::ClusterId,
    secret::Secret,
    trust::{bundle::Bundle, certificate::Certificate, identity::Identity},
};

/// What a certificate shall say.
#[derive(Clone, Debug)]
pub struct Spec(CertificateParams);

/// A certificate with its key.
#[derive(Debug)]
pub struct Leaf {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Spec {
    /// A leaf with this common name, the same DNS name, and valid from yesterday for a month.
    pub fn new(name: &str) -> Self {
        let names = if name.is_ascii() && !name.contains(char::is_control) {
            vec![name.to_owned()]
        } else {
            vec![]
        };
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        Self(params).valid_days(-1, 30)
    }

    pub fn without_names(mut self) -> Self {
        self.0.subject_alt_names.clear();
        self
    }

    pub fn dns(mut self, name: &str) -> Self {
        self.0
            .subject_alt_names
            .push(SanType::DnsName(name.try_into().unwrap()));
        self
    }

    pub fn ip(mut self, address: &str) -> Self {
        self.0
            .subject_alt_names
            .push(SanType::IpAddress(address.parse().unwrap()));
        self
    }

    pub fn valid_days(self, from: i64, to: i64) -> Self {
        self.valid_seconds(from * 86_400, to * 86_400)
    }

    /// Validity from now, in seconds.
    pub fn valid_seconds(mut self, from: i64, to: i64) -> Self {
        let now = Clock::system().now().as_millis() / 1_000;
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        self.0.not_before =
            epoch + std::time::Duration::from_secs((now + from).try_into().unwrap());
        self.0.not_after = epoch + std::time::Duration::from_secs((now + to).try_into().unwrap());
        self
    }

    /// Validity from one moment to another, whatever the time is.
    pub fn valid_between(mut self, from: Timestamp, to: Timestamp) -> Self {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let at = |moment: Timestamp| {
            let millis = u64::try_from(moment.as_millis()).unwrap();
            epoch + std::time::Duration::from_secs(millis / 1_000)
        };
        (self.0.not_before, self.0.not_after) = (at(from), at(to));
        self
    }

    pub fn eku(mut self, client: bool, server: bool) -> Self {
        let usages = [
            (client, ExtendedKeyUsagePurpose::ClientAuth),
            (server, ExtendedKeyUsagePurpose::ServerAuth),
        ];
        self.0.extended_key_usages = usages
            .into_iter()
            .filter(|(on, _)| *on)
            .map(|(_, usage)| usage)
            .collect();
        self
    }

    pub fn any_eku(mut self) -> Self {
        self.0.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
        self
    }

    pub fn ca(mut self) -> Self {
        self.0.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self.0.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        self
    }

    pub fn without_crl_sign(mut self) -> Self {
        self.0
            .key_usages
            .retain(|usage| *usage != KeyUsagePurpose::CrlSign);
        self
    }

    pub fn self_signed(self) -> Leaf {
        let key = KeyPair::generate().unwrap();
        Leaf {
            certificate: self.0.self_signed(&key).unwrap(),
            key,
        }
    }

    /// A certificate for a key whose public half alone is known.
    pub fn of_key(self, key: &rcgen::SubjectPublicKeyInfo, authority: &Authority) -> Certificate {
        let made = self.0.signed_by(key, &authority.0).unwrap();
        Certificate::from_der(made.der()).unwrap()
    }

    pub fn signed_by(self, authority: &Authority) -> Leaf {
        let key = KeyPair::generate().unwrap();
        Leaf {
            certificate: self.0.signed_by(&key, &authority.0).unwrap(),
            key,
        }
    }
}

impl Leaf {
    pub fn der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    pub fn certificate(&self) -> Certificate {
        Certificate::from_der(self.der()).unwrap()
    }

    pub fn identity(&self) -> Identity {
        self.identity_with(&[])
    }

    pub fn identity_with(&self, issuers: &[&Authority]) -> Identity {
        let issuers: String = issuers.iter().map(|issuer| issuer.pem()).collect();
        let pem = format!("{}{issuers}", self.pem());
        Identity::from_pem(pem.as_bytes(), &Secret::new(self.key_pem().into_bytes())).unwrap()
    }
}

impl Authority {
    pub fn new(name: &str) -> Self {
        Self::with(Spec::new(name).without_names())
    }

    pub fn with(spec: Spec) -> Self {
        Self(CertifiedIssuer::self_signed(spec.ca().0, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn under(name: &str, parent: &Self) -> Self {
        let spec = Spec::new(name).without_names().ca();
        Self(CertifiedIssuer::signed_by(spec.0, KeyPair::generate().unwrap(), &parent.0).unwrap())
    }

    /// Somebody who signs without being an authority.
    pub fn without_ca(name: &str) -> Self {
        let spec = Spec::new(name).without_names();
        Self(CertifiedIssuer::self_signed(spec.0, KeyPair::generate().unwrap()).unwrap())
    }

    /// What signs, and says that it is none (CA:FALSE).
    pub fn signing_though_none(name: &str, parent: &Self) -> Self {
        let mut spec = Spec::new(name).without_names().ca();
        spec.0.is_ca = IsCa::ExplicitNoCa;
        Self(CertifiedIssuer::signed_by(spec.0, KeyPair::generate().unwrap(), &parent.0).unwrap())
    }

    /// An authority that signs with the key of a leaf which was never meant to be one.
    pub fn of_leaf(leaf: &Leaf, spec: Spec) -> Self {
        let key = KeyPair::from_pem(&leaf.key_pem()).unwrap();
        Self(CertifiedIssuer::self_signed(spec.0, key).unwrap())
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        self.0.der()
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn certificate(&self) -> Certificate {
        Certificate::from_der(self.der()).unwrap()
    }

    /// A revocation list of that number, of yesterday, whose successor is due in so many days.
    pub fn crl(&self, number: u64, revoked: &[&Certificate], days: i64) -> Vec<u8> {
        self.crl_and_pem(number, revoked, days).0
    }

    /// The same in DER and in PEM.
    pub fn crl_and_pem(
        &self,
        number: u64,
        revoked: &[&Certificate],
        days: i64,
    ) -> (Vec<u8>, String) {
        let day = std::time::Duration::from_secs(86_400);
        let now = rcgen::date_time_ymd(1970, 1, 1)
            + std::time::Duration::from_millis(Clock::system().now().as_millis().unsigned_abs());
        let ahead = day * u32::try_from(days.unsigned_abs()).unwrap();
        let next_update = if days < 0 { now - ahead } else { now + ahead };
        let revoked_certs = revoked
            .iter()
            .map(|certificate| {
                let read = webpki::EndEntityCert::try_from(certificate.der()).unwrap();
                RevokedCertParams {
                    serial_number: SerialNumber::from_slice(read.serial()),
                    revocation_time: now - day,
                    reason_code: None,
                    invalidity_date: None,
                }
            })
            .collect();
        let params = CertificateRevocationListParams {
            this_update: now - day * 100,
            next_update,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = params.signed_by(&self.0).unwrap();
        (crl.der().to_vec(), crl.pem().unwrap())
    }
}

pub fn cluster(id: &str) -> ClusterId {
    ClusterId::new(id).unwrap()
}

pub fn bundle(id: &str) -> Bundle {
    Bundle::new(cluster(id))
}

/// A bundle with one pin.
pub fn pinned(id: &str, leaf: &Leaf) -> Bundle {
    Bundle {
        pinned: vec![leaf.certificate()],
        ..bundle(id)
    }
}

/// A bundle with one anchor and node names.
pub fn anchored(id: &str, authority: &Authority, names: &[&str]) -> Bundle {
    let node_names = names.iter().map(|&name| name.to_owned()).collect();
    Bundle {
        anchors: vec![authority.certificate()],
        node_names,
        ..bundle(id)
    }
}
