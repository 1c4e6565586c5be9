//! A peer announces its certificates: what is believed, by whose word, what replays, lies and old news change (nothing),
//! and that an answer means that every living node goes by it.

use std::time::Duration;

use emccd::{
    clock::Clock,
    domain::{
        announcement::{Announcement, Fingerprint, Proof, Proven, proof_text},
        em_code::EmCode,
    },
    lab::{Cluster, Hosting, Lab, Spec},
    trust::{
        certificate::fingerprint_text,
        make::{self, CertRequest, KeyKind, Made},
    },
    wire::{
        admin as pb, federation::encode_announcement, pb as wire, pb::AnnounceOutcome as Outcome,
    },
};
use rustls::{SignatureScheme, crypto::aws_lc_rs::sign::any_supported_type};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tonic::{Code, Status};

use crate::support::{
    binary, lab,
    raw_peer::{self, Client, call, client_showing, peer_client},
    rows::rows,
};

mod mirror;

const IDENTITY: &str = "tokyo-1/federation";

/// A certificate with its key, as the peer that announces it has them.
struct Held {
    der: Vec<u8>,
    key: PrivateKeyDer<'static>,
    parent: Option<Fingerprint>,
}

impl Held {
    fn made(made: &Made, parent: Option<Fingerprint>) -> Self {
        Self {
            der: made.certificate_der.clone(),
            key: PrivateKeyDer::from_pem_slice(made.key_pem.expose()).unwrap(),
            parent,
        }
    }

    /// What the cluster's first node shows.
    fn shown_by(cluster: &Cluster) -> Self {
        let node = cluster.member().unwrap();
        Self {
            der: CertificateDer::from_pem_file(&node.federation_certificate)
                .unwrap()
                .to_vec(),
            key: PrivateKeyDer::from_pem_file(&node.federation_key).unwrap(),
            parent: None,
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        emccd::trust::certificate::fingerprint_of(&self.der)
    }
}

fn another(name: &str, kind: KeyKind) -> Made {
    let names = vec![format!("{name}.example")];
    let request = CertRequest::new(name, names, kind, Clock::system().now(), 30);
    make::self_signed(&request).unwrap()
}

fn signed(key: &PrivateKeyDer<'static>, text: &[u8]) -> Proof {
    let key = any_supported_type(key).unwrap();
    let offered = [
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::RSA_PSS_SHA256,
    ];
    let signer = key.choose_scheme(&offered).unwrap();
    Proof {
        scheme: signer.scheme().into(),
        signature: signer.sign(text).unwrap(),
    }
}

/// Has `parent` vouch for the last of what was announced.
fn vouched(
    me: &Cluster,
    them: &Cluster,
    mut request: wire::AnnounceRequest,
    last: &Held,
    by: &Held,
) -> wire::AnnounceRequest {
    let text = proof_text(
        &me.id,
        &them.id,
        IDENTITY,
        request.sequence,
        &last.fingerprint(),
        last.parent.as_ref(),
    );
    let proof = signed(&by.key, &text);
    let told = request.certificates.last_mut().unwrap();
    told.parent_signature_scheme = proof.scheme.into();
    told.parent_signature = proof.signature;
    request
}

/// The announcement of an identity of `me` to `them`, each certificate proved with its own key.
fn announcement(
    me: &Cluster,
    them: &Cluster,
    sequence: u64,
    held: &[&Held],
) -> wire::AnnounceRequest {
    let proven = held.iter().map(|held| {
        let text = proof_text(
            &me.id,
            &them.id,
            IDENTITY,
            sequence,
            &held.fingerprint(),
            held.parent.as_ref(),
        );
        Proven {
            der: held.der.clone(),
            parent: held.parent,
            proof: signed(&held.key, &text),
            parent_proof: None,
        }
    });
    encode_announcement(&Announcement {
        identity: IDENTITY.to_owned(),
        sequence,
        certificates: proven.collect(),
    })
}

/// What became of each certificate.
fn outcomes(answer: &wire::AnnounceResponse) -> Vec<Outcome> {
    answer.outcomes.iter().map(|o| o.outcome()).collect()
}

struct Peers<'a> {
    me: &'a Cluster,
    them: &'a Cluster,
    client: Client,
}

impl Peers<'_> {
    async fn send(
        &mut self,
        request: &wire::AnnounceRequest,
    ) -> Result<wire::AnnounceResponse, Status> {
        let answer = self.client.announce(call(self.me, request.clone())).await;
        answer.map(tonic::Response::into_inner)
    }

    async fn announce(
        &mut self,
        sequence: u64,
        held: &[&Held],
    ) -> Result<wire::AnnounceResponse, Status> {
        let request = announcement(self.me, self.them, sequence, held);
        self.send(&request).await
    }

    fn code(&self, status: &Status) -> EmCode {
        raw_peer::refusal(status, self.them).code
    }

    /// What is accepted from the announcing cluster, what waits, and what was taken back.
    async fn trusted(&self) -> Vec<pb::TrustEntry> {
        let mut admin = self.them.admin().await.unwrap();
        let request = pb::ListTrustRequest {
            cluster_id: Some(self.me.id.to_string()),
        };
        admin.trust(request).await.unwrap().entries
    }

    async fn entry(&self, held: &Held) -> Option<pb::TrustEntry> {
        let fingerprint = fingerprint_text(&held.fingerprint());
        let is_it = |entry: &pb::TrustEntry| {
            let certificate = entry.certificate.as_ref().unwrap();
            certificate.fingerprint == fingerprint
        };
        self.trusted().await.into_iter().find(is_it)
    }

    async fn kind(&self, held: &Held) -> String {
        self.entry(held).await.map_or_else(String::new, |e| e.kind)
    }

    async fn set(&self, change: impl FnOnce(&mut pb::SetClusterRequest)) {
        let mut request = pb::SetClusterRequest {
            cluster_id: self.me.id.to_string(),
            ..pb::SetClusterRequest::default()
        };
        change(&mut request);
        let mut admin = self.them.admin().await.unwrap();
        admin.set_cluster(request).await.unwrap();
    }

    /// The operator's word on what waits: of one, or of all.
    async fn decide(
        &self,
        held: Option<&Held>,
        reject: bool,
    ) -> Result<pb::AcceptTrustResponse, String> {
        let request = pb::AcceptTrustRequest {
            cluster_id: self.me.id.to_string(),
            fingerprint: held.map(|held| fingerprint_text(&held.fingerprint())),
            reject,
            shown: None,
        };
        let mut admin = self.them.admin().await.unwrap();
        let done = admin.accept_trust(request).await;
        done.map_err(|error| error.to_string())
    }

    /// The operator adds a certificate.
    async fn add(&self, made: &Made) {
        let request = pb::AddTrustRequest {
            cluster_id: self.me.id.to_string(),
            trust: Some(pb::TrustMaterial {
                kind: "pinned".to_owned(),
                certificates: made.certificate_pem.clone().into_bytes(),
            }),
            unrevoke: None,
        };
        let mut admin = self.them.admin().await.unwrap();
        admin.add_trust(request).await.unwrap();
    }

    async fn remove(&self, held: &Held) -> pb::RemoveTrustResponse {
        let request = pb::RemoveTrustRequest {
            cluster_id: self.me.id.to_string(),
            fingerprint: fingerprint_text(&held.fingerprint()),
            mode: "cascade".to_owned(),
        };
        let mut admin = self.them.admin().await.unwrap();
        admin.remove_trust(request).await.unwrap()
    }
}

#[tokio::test]
async fn what_is_announced_is_believed_by_its_proof_and_old_news_change_nothing() {
    let lab = lab(3).await;
    let (berlin, tokyo, lima) = (&lab.clusters[0], &lab.clusters[1], &lab.clusters[2]);
    let mut peers = Peers {
        me: tokyo,
        them: berlin,
        client: peer_client(tokyo, berlin),
    };
    let old = Held::shown_by(tokyo);
    let made = another("t-next", KeyKind::Rsa2048);
    let next = Held::made(&made, Some(old.fingerprint()));
    let before = peers.trusted().await;

    // Proofs that are none: of another number, of another cluster, by another key.
    let good = announcement(tokyo, berlin, 7, &[&old, &next]);
    let mut of_another_number = good.clone();
    of_another_number.sequence = 8;
    let mut by_another_key = good.clone();
    by_another_key.certificates[1].signature = good.certificates[0].signature.clone();
    by_another_key.certificates[1].signature_scheme = good.certificates[0].signature_scheme;
    let mut another_parent = good.clone();
    another_parent.certificates[1].parent = vec![7; 32];
    let for_another = announcement(tokyo, lima, 7, &[&old, &next]);
    for wrong in [
        of_another_number,
        by_another_key,
        another_parent,
        for_another,
    ] {
        let refused = peers.send(&wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        assert!(refused.message().contains("is not proved"), "{refused:?}");
    }
    let mut no_certificate = good.clone();
    no_certificate.certificates[0].der = b"nonsense".to_vec();
    let refused = peers.send(&no_certificate).await.unwrap_err();
    assert_eq!(peers.code(&refused), EmCode::ErrorOnParsing);
    // Nothing could be announced above it, not even by whom the certificates are.
    let refused = peers.announce(u64::MAX >> 1, &[&old, &next]).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("clock"), "{refused:?}");
    let tomorrow = Clock::system().now().plus(Duration::from_hours(25));
    let tomorrow = u64::try_from(tomorrow.as_millis()).unwrap();
    let refused = peers.announce(tomorrow, &[&old, &next]).await.unwrap_err();
    assert!(refused.message().contains("clock"), "{refused:?}");
    assert_eq!(peers.trusted().await, before);

    // The real one, and its copies; then older news, and the same number with something else.
    let answer = peers.send(&good).await.unwrap();
    assert_eq!(outcomes(&answer), [Outcome::Loaded; 2]);
    let entry = peers.entry(&next).await.unwrap();
    assert_eq!((&*entry.kind, &*entry.source), ("pinned", "announced"));
    assert_eq!(entry.identities, [IDENTITY]);
    assert_eq!(entry.parent, fingerprint_text(&old.fingerprint()));
    let of_old = peers.entry(&old).await.unwrap();
    assert_eq!(of_old.identities, [IDENTITY]);
    assert_eq!(of_old.parent, "");
    let mut with_next = client_showing(&made, berlin);
    let hello = wire::HelloRequest {
        cluster_id: tokyo.id.to_string(),
        ..wire::HelloRequest::default()
    };
    let told = with_next.hello(call(tokyo, hello)).await.unwrap();
    let told = told.into_inner().capabilities;
    assert!(told.iter().any(|c| c == "trust-announce"), "{told:?}");
    let trusted = peers.trusted().await;
    assert_eq!(peers.send(&good).await.unwrap(), answer);
    let late = peers.announce(6, &[&old]).await.unwrap();
    assert_eq!((late.sequence, late.outcomes.len()), (7, 0));
    let other = peers.announce(7, &[&old]).await.unwrap_err();
    assert_eq!(other.code(), Code::FailedPrecondition);
    assert!(other.message().contains("number 7"), "{other:?}");
    assert_eq!(peers.trusted().await, trusted);

    // The certificate that the call rests on stays; over a connection with the next one it goes.
    let cut = peers.announce(8, &[&next]).await.unwrap_err();
    assert!(cut.message().contains("own connection"), "{cut:?}");
    assert_eq!(peers.trusted().await, trusted);
    peers.client = with_next;
    let answer = peers.announce(8, &[&next]).await.unwrap();
    assert_eq!(outcomes(&answer), [Outcome::Loaded]);
    assert_eq!(peers.kind(&old).await, "");

    // A parent that nobody trusts is the one of the connection. What is another cluster's is refused.
    let third = Held::made(&another("t-third", KeyKind::P256), Some([7; 32]));
    let of_lima = Held::shown_by(lima);
    let answer = peers.announce(9, &[&next, &third, &of_lima]).await.unwrap();
    let refused = [Outcome::Loaded, Outcome::Loaded, Outcome::Refused];
    assert_eq!(outcomes(&answer), refused);
    assert!(!answer.outcomes[2].reason.contains("lima"), "{answer:?}");
    let entry = peers.entry(&third).await.unwrap();
    assert_eq!(entry.parent, fingerprint_text(&next.fingerprint()));

    // The first one was stolen: what came by its word goes with it, also what came by theirs, though its own entry is
    // long gone; and it does not come back.
    let gone = peers.remove(&old).await;
    let mut expected = [&next, &third].map(|held| fingerprint_text(&held.fingerprint()));
    expected.sort();
    assert_eq!(
        (gone.removed.len(), gone.descendants),
        (0, expected.to_vec())
    );
    for held in [&old, &next, &third] {
        assert_eq!(peers.kind(held).await, "revoked");
    }
    let audit = rows(berlin).await.audit;
    let told: Vec<_> = audit
        .iter()
        .filter(|entry| entry.action == "trust.announce")
        .collect();
    assert_eq!(told.len(), 3, "{told:#?}");
    lab.shut_down().await;
}

#[tokio::test]
async fn who_announces_chooses_no_parent_whose_key_it_has_not() {
    let lab = lab(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let mut peers = Peers {
        me: tokyo,
        them: berlin,
        client: peer_client(tokyo, berlin),
    };
    // Of another node, added by an operator.
    let (stolen, made) = (Held::shown_by(tokyo), another("t-2", KeyKind::P256));
    let other = Held::made(&made, None);
    peers.add(&made).await;
    let said = Held::made(
        &another("t-thief", KeyKind::P256),
        Some(other.fingerprint()),
    );
    let proved = Held::made(&another("t-next", KeyKind::P256), Some(other.fingerprint()));
    let request = announcement(tokyo, berlin, 1, &[&stolen, &other, &said]);
    let by_another = vouched(tokyo, berlin, request.clone(), &said, &stolen);
    let refused = peers.send(&by_another).await.unwrap_err();
    assert!(refused.message().contains("is not proved"), "{refused:?}");
    let answer = peers.send(&request).await.unwrap();
    assert_eq!(outcomes(&answer), [Outcome::Loaded; 3]);
    let request = announcement(tokyo, berlin, 2, &[&stolen, &other, &said, &proved]);
    let request = vouched(tokyo, berlin, request, &proved, &other);
    let answer = peers.send(&request).await.unwrap();
    assert_eq!(outcomes(&answer), [Outcome::Loaded; 4]);
    for (held, parent) in [(&said, &stolen), (&proved, &other)] {
        let entry = peers.entry(held).await.unwrap();
        assert_eq!(entry.parent, fingerprint_text(&parent.fingerprint()));
    }

    // To retire is not to revoke: nothing goes with it. What is revoked later takes along what came by its word.
    peers.client = client_showing(&made, berlin);
    let left = [&other, &said, &proved];
    let answer = peers.announce(3, &left).await.unwrap();
    assert_eq!(outcomes(&answer), [Outcome::Loaded; 3]);
    assert_eq!(peers.kind(&stolen).await, "");
    assert_eq!(peers.kind(&said).await, "pinned");
    let gone = peers.remove(&stolen).await;
    assert_eq!(gone.descendants, [fingerprint_text(&said.fingerprint())]);
    assert_eq!(peers.kind(&proved).await, "pinned");
    let gone = peers.remove(&other).await;
    assert_eq!(gone.descendants, [fingerprint_text(&proved.fingerprint())]);
    lab.shut_down().await;
}

#[tokio::test]
async fn what_would_be_refused_when_it_is_shown_is_not_acknowledged_and_what_is_early_waits() {
    let lab = lab(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let mut peers = Peers {
        me: tokyo,
        them: berlin,
        client: peer_client(tokyo, berlin),
    };
    let old = Held::shown_by(tokyo);
    let now = Clock::system().now();
    let hours = |n: u64| now.plus(Duration::from_hours(n));
    let names = vec!["t-late.example".to_owned()];
    let request = CertRequest::new("t-late", names, KeyKind::P256, now, 30);
    let late = make::self_signed(&request.valid(hours(2), hours(48))).unwrap();
    let late = Held::made(&late, Some(old.fingerprint()));
    let answer = peers.announce(1, &[&old, &late]).await.unwrap();
    assert_eq!(outcomes(&answer), [Outcome::Loaded, Outcome::Waiting]);
    assert!(
        answer.outcomes[1].reason.contains("it is valid from"),
        "{answer:?}"
    );
    // No operator has anything to do.
    assert_eq!(peers.kind(&late).await, "");
    let clock = &berlin.member().unwrap().clock;
    clock.set_offset_millis(3 * 3_600_000);
    let answer = peers.announce(1, &[&old, &late]).await.unwrap();
    assert_eq!(outcomes(&answer), [Outcome::Loaded; 2]);
    assert_eq!(peers.kind(&late).await, "pinned");
    // Nor is it counted on where it is pinned already, and would be refused.
    clock.set_offset_millis(0);
    let answer = peers.announce(1, &[&old, &late]).await.unwrap();
    assert_eq!(outcomes(&answer), [Outcome::Loaded, Outcome::Waiting]);

    // Old news without end cost nothing but an answer: from some number on, when to come again.
    let mut refused = None;
    for _ in 0..200 {
        if let Err(status) = peers.announce(1, &[&old, &late]).await {
            refused = Some(status);
            break;
        }
    }
    let refused = refused.unwrap();
    assert_eq!(peers.code(&refused), EmCode::Busy, "{refused:?}");
    assert!(refused.message().contains("too often"), "{refused:?}");
    lab.shut_down().await;
}

#[tokio::test]
async fn the_peer_s_record_says_what_becomes_of_announcements() {
    let lab = lab(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let mut peers = Peers {
        me: tokyo,
        them: berlin,
        client: peer_client(tokyo, berlin),
    };
    let old = Held::shown_by(tokyo);
    let next = Held::made(&another("t-next", KeyKind::P256), None);
    let both = announcement(tokyo, berlin, 3, &[&old, &next]);

    peers
        .set(|r| r.accept_announcements = Some("off".to_owned()))
        .await;
    let answer = peers.send(&both).await.unwrap();
    assert_eq!(outcomes(&answer), [Outcome::Loaded, Outcome::Refused]);
    assert!(
        answer.outcomes[1]
            .reason
            .contains("accept-announcements off")
    );
    assert_eq!(peers.kind(&next).await, "");

    peers
        .set(|r| r.accept_announcements = Some("approve".to_owned()))
        .await;
    let answer = peers.send(&both).await.unwrap();
    assert_eq!(outcomes(&answer), [Outcome::Loaded, Outcome::Waiting]);
    assert_eq!(peers.kind(&next).await, "waiting");
    // What waits takes nothing away.
    let answer = peers.announce(4, &[&next]).await.unwrap();
    assert_eq!(outcomes(&answer), [Outcome::Waiting]);
    assert_eq!(peers.kind(&old).await, "pinned");

    peers.set(|r| r.enabled = Some(false)).await;
    let answer = peers.announce(5, &[&next]).await.unwrap_err();
    assert_eq!(answer.code(), Code::PermissionDenied);
    assert_eq!(peers.code(&answer), EmCode::EmccNotAllowed);
    peers.set(|r| r.enabled = Some(true)).await;

    // The operator agrees to one, and never to the other.
    let third = Held::made(&another("t-third", KeyKind::P256), None);
    let all = [&old, &next, &third];
    let answer = peers.announce(6, &all).await.unwrap();
    assert_eq!(outcomes(&answer)[1..], [Outcome::Waiting; 2]);
    peers.decide(Some(&next), false).await.unwrap();
    assert_eq!(peers.kind(&next).await, "pinned");
    peers.decide(None, true).await.unwrap();
    assert_eq!(peers.kind(&third).await, "revoked");
    let none = peers.decide(None, false).await.unwrap_err();
    assert!(none.contains("that waits"), "{none}");
    let answer = peers.announce(6, &all).await.unwrap();
    let decided = [Outcome::Loaded, Outcome::Loaded, Outcome::Refused];
    assert_eq!(outcomes(&answer), decided);

    peers
        .set(|r| r.accept_announcements = Some("auto".to_owned()))
        .await;
    let fourth = Held::made(&another("t-fourth", KeyKind::P256), None);
    let answer = peers.announce(7, &[&old, &next, &fourth]).await.unwrap();
    assert_eq!(outcomes(&answer), [Outcome::Loaded; 3]);
    // What was agreed to still rests on the word of the one that announced it.
    let gone = peers.remove(&old).await;
    assert_eq!(gone.descendants.len(), 2, "{gone:?}");
    assert_eq!(peers.kind(&next).await, "revoked");
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::disallowed_methods,
    reason = "the question is asked beside what is done to who is asked"
)]
async fn an_answer_means_that_every_living_node_goes_by_it_and_a_killed_one_leaves_the_store_whole()
{
    let spec = Spec {
        clusters: 2,
        nodes: 2,
        hosting: Hosting::Processes { binary: binary() },
        ..Spec::default()
    };
    let mut lab = Lab::start(&spec).await.unwrap();
    let (old, made) = (
        Held::shown_by(&lab.clusters[1]),
        another("t-next", KeyKind::P256),
    );
    let next = Held::made(&made, Some(old.fingerprint()));
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let both = announcement(tokyo, berlin, 3, &[&old, &next]);
    let mut peers = Peers {
        me: tokyo,
        them: berlin,
        client: peer_client(tokyo, berlin),
    };
    // Only whom the answering node has seen alive is waited for.
    berlin.wait_living(2).await.unwrap();
    crate::nodes::two::stand_still(berlin, &berlin.members[1]).await;
    let mut hurried = call(tokyo, both.clone());
    hurried.set_timeout(Duration::from_millis(2_500));
    let refused = peers.client.announce(hurried).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let name = &berlin.members[1].name;
    assert!(refused.message().contains(name), "{refused:?}");

    // Killed while it waits for the one that stands still, then asked again.
    let mut waiting = peer_client(tokyo, berlin);
    let request = call(tokyo, both.clone());
    let asked = tokio::spawn(async move { waiting.announce(request).await });
    tokio::time::timeout(Duration::from_secs(20), async {
        while peers.kind(&next).await != "pinned" {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let versions = emccd::lab::member::Versions::default();
    let berlin = lab.cluster_mut(0).unwrap();
    berlin.members[0].kill().await.unwrap();
    asked.await.unwrap().unwrap_err();
    berlin.members[1].resume().unwrap();
    berlin.members[0].start(&versions).await.unwrap();
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let mut peers = Peers {
        me: tokyo,
        them: berlin,
        client: peer_client(tokyo, berlin),
    };
    let answer = peers.send(&both).await.unwrap();
    assert_eq!(outcomes(&answer), [Outcome::Loaded; 2]);
    assert_eq!(peers.trusted().await.len(), 3);
    lab.shut_down().await;
}
