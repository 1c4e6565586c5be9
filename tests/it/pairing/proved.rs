//! Which certificates a pairing pins: those whose keys were proved, all of a rotation's, none that was taken back; and what
//! becomes of it where one side can't follow the other.

use emccd::{
    domain::pairing::{Side, certificate_text},
    pairing::proof::{EXPORTER_LABEL, ProofKey, View},
    trust::certificate::fingerprint_of,
    wire::join::{self as pb, join_service_client::JoinServiceClient},
};
use rustls::{SignatureScheme, crypto::aws_lc_rs::sign::any_supported_type};
use tonic::Code;

use super::{
    between::{JOIN, channel_over, dialled, made},
    *,
};
use crate::support::tls::identity_made;

/// The fingerprints that a cluster has pinned for another one.
async fn pinned(us: &Cluster, them: &str) -> Vec<String> {
    let trusted = json(us, &["trust", "list", them], "").await;
    let entries = trusted.as_array().unwrap().iter();
    let pinned = entries.filter(|entry| entry["kind"] == "pinned");
    let print = |entry: &Value| {
        entry["certificate"]["fingerprint"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    pinned.map(print).collect()
}

/// Both operators confirm, and it is seen through.
async fn agreed(berlin: &Cluster, tokyo: &Cluster, id: &str, words: &str) {
    confirmed(berlin, "invite", id, words).await;
    confirmed(tokyo, "join", id, words).await;
    until(berlin, "invite", id, "done").await;
    until(tokyo, "join", id, "done").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_whose_key_was_not_proved_is_none_of_who_tells_it() {
    let lab = strangers(1, 1, Hosting::InProcess).await;
    let berlin = &lab.clusters[0];
    let (lima, own) = (made("lima"), made("tokyo"));
    let (_, key) = identity_made(&own);
    let key = any_supported_type(&key).unwrap();
    let signer = key
        .choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256])
        .unwrap();
    // Without a proof, and with one by the key that it has.
    let text = certificate_text("tokyo", &fingerprint_of(&lima.certificate_der));
    for signature in [Vec::new(), signer.sign(&text).unwrap()] {
        let (text, id) = invited(berlin, &[]).await;
        let token = Token::read(&text).unwrap();
        let tls = dialled(berlin, &own, JOIN).await.unwrap();
        let (_, session) = tls.get_ref();
        let shown = &session.peer_certificates().unwrap()[0];
        let view = View {
            exporter: session
                .export_keying_material([0; 32], EXPORTER_LABEL, None)
                .unwrap(),
            caller_leaf: fingerprint_of(&own.certificate_der),
            server_leaf: fingerprint_of(shown),
        };
        let proof = ProofKey::derive(&token.secret, &token.cluster, token.id);
        let mut join = JoinServiceClient::new(channel_over(tls).await);
        let begun = pb::BeginRequest {
            invitation_id: token.id.0.to_vec(),
            view: Some(pb::View {
                exporter: view.exporter.to_vec(),
                caller_leaf: view.caller_leaf.to_vec(),
                server_leaf: view.server_leaf.to_vec(),
            }),
            proof: proof.prove(Side::Joining, &view),
        };
        join.begin(begun).await.unwrap();
        let certificate = |der: &[u8], signature: Vec<u8>| pb::Certificate {
            node: "n1".to_owned(),
            purpose: "federation".to_owned(),
            der: der.to_vec(),
            signature_scheme: u16::from(signer.scheme()).into(),
            signature,
        };
        let told = pb::ExchangeRequest {
            invitation_id: token.id.0.to_vec(),
            cluster: Some(pb::Cluster {
                cluster_id: "tokyo".to_owned(),
                addresses: vec!["127.0.0.1:9".to_owned()],
                certificates: vec![
                    certificate(&own.certificate_der, Vec::new()),
                    certificate(&lima.certificate_der, signature),
                ],
                ..pb::Cluster::default()
            }),
        };
        let turned = join.exchange(told).await.unwrap_err();
        assert_eq!(turned.code(), Code::InvalidArgument, "{turned:?}");
        assert!(turned.message().contains("has not proved"), "{turned:?}");
        let ended = standing(berlin, "invite", &id).await;
        assert_eq!(ended["state"], "refused", "{ended}");
        let trouble = ended["trouble"].as_str().unwrap();
        assert!(trouble.contains("has not proved"), "{trouble}");
    }
}

/// A cluster that becomes a peer while a certificate is exchanged accepts both, and so is never cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_under_way_is_told_whole() {
    let lab = strangers(2, 1, Hosting::InProcess).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    json(berlin, &["cert", "rotate", "announce", "--yes"], "").await;
    // The node makes the new certificate in its own time, and what it puts on record is told.
    let told = async {
        loop {
            let (text, id) = invited(berlin, &[]).await;
            if Token::read(&text).unwrap().leaves.len() == 2 {
                return (text, id);
            }
            json(berlin, &["cluster", "invite", "--cancel", &id], "").await;
        }
    };
    let (text, id) = timeout(LIMIT, told).await.unwrap();
    let joined = json(tokyo, &join_words(tokyo), &text).await;
    assert_eq!(joined["certificates"].as_array().unwrap().len(), 2);
    agreed(berlin, tokyo, &id, joined["words"].as_str().unwrap()).await;
    assert_eq!(pinned(tokyo, berlin.id.as_str()).await.len(), 2);
    assert_eq!(pinned(berlin, tokyo.id.as_str()).await.len(), 1);
    berlin.wait_linked(&tokyo.id).await.unwrap();
    tokyo.wait_linked(&berlin.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_is_not_trusted_again_unless_the_operator_names_it() {
    let lab = strangers(2, 1, Hosting::InProcess).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let (text, id) = invited(berlin, &[]).await;
    let joined = json(tokyo, &join_words(tokyo), &text).await;
    agreed(berlin, tokyo, &id, joined["words"].as_str().unwrap()).await;
    let of_tokyo = pinned(berlin, tokyo.id.as_str()).await.remove(0);
    let peer = tokyo.id.as_str();
    let line = ["trust", "remove", peer, "--fingerprint", &of_tokyo];
    let how = ["--mode", "unlink", "--yes"];
    json(berlin, &[&line[..], &how].concat(), "").await;
    // It stays revoked whatever becomes of the records.
    let line = ["cluster", "remove", peer, "--forget-owed", "--yes"];
    json(berlin, &line, "").await;
    let line = [
        "cluster",
        "remove",
        berlin.id.as_str(),
        "--forget-owed",
        "--yes",
    ];
    json(tokyo, &line, "").await;

    let (text, id) = invited(berlin, &[]).await;
    let joined = json(tokyo, &join_words(tokyo), &text).await;
    let words = joined["words"].as_str().unwrap();
    let line = [
        "cluster",
        "invite",
        "--confirm",
        &id,
        "--yes",
        "--words",
        words,
    ];
    let told = refused(berlin, &line, "").await;
    assert!(told.contains("was revoked here"), "{told}");
    let mend = format!("emccd trust add {peer} --unrevoke {of_tokyo}");
    assert!(told.contains(&mend), "{told}");
    assert_eq!(standing(berlin, "invite", &id).await["state"], "told");
    let named = json(berlin, &["trust", "add", peer, "--unrevoke", &of_tokyo], "").await;
    assert_eq!(named["unrevoked"], 1, "{named}");
    agreed(berlin, tokyo, &id, words).await;
    assert_eq!(pinned(berlin, peer).await, [of_tokyo]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_can_t_follow_says_so_and_follows_when_it_can() {
    let lab = strangers(2, 1, Hosting::InProcess).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let (text, id) = invited(berlin, &[]).await;
    // One of its addresses is nobody's here.
    let private = ["--address", "10.255.255.1:9"];
    let joined = json(tokyo, &[&join_words(tokyo)[..], &private].concat(), &text).await;
    let words = joined["words"].as_str().unwrap();
    let seen = standing(berlin, "invite", &id).await;
    let addresses = seen["addresses"].as_array().unwrap();
    let of = |text: &str| {
        addresses
            .iter()
            .find(|told| told["address"] == text)
            .unwrap()
    };
    let warning = |told: &Value| told["warning"].as_str().unwrap_or_default().to_owned();
    let private = of("10.255.255.1:9");
    assert!(warning(private).contains("a private address"), "{seen}");
    assert_ne!(private["trouble"], Value::Null, "{seen}");
    let real = of(address(tokyo));
    assert!(warning(real).contains("a loopback address"), "{seen}");
    assert_eq!(real["trouble"], Value::Null, "{seen}");

    // The joining operator confirms, and then has the other one's certificate be somebody else's.
    confirmed(tokyo, "join", &id, words).await;
    let certificate = berlin.member().unwrap().federation_certificate.clone();
    let file = certificate.to_str().unwrap();
    let line = [
        "cluster",
        "add",
        "lima",
        "--address",
        "127.0.0.1:9",
        "--trust",
        file,
    ];
    json(tokyo, &line, "").await;
    confirmed(berlin, "invite", &id, words).await;
    let told = async {
        loop {
            let now = standing(berlin, "invite", &id).await;
            let trouble = now["trouble"].as_str().unwrap().to_owned();
            if !trouble.is_empty() {
                return (now["state"].clone(), trouble);
            }
        }
    };
    let (state, trouble) = timeout(LIMIT, told).await.unwrap();
    assert_eq!(state, "committed");
    let undo = format!("emccd cluster remove {}", tokyo.id);
    assert!(
        trouble.contains("can't make this cluster one yet"),
        "{trouble}"
    );
    assert!(
        trouble.contains(&undo) && !trouble.contains("lima"),
        "{trouble}"
    );
    // What is believed is stored, and nothing else.
    let peers = json(berlin, &["cluster", "list"], "").await;
    assert_eq!(peers[0]["addresses"], serde_json::json!([address(tokyo)]));
    json(tokyo, &["cluster", "remove", "lima", "--yes"], "").await;
    until(tokyo, "join", &id, "done").await;
    let done = until(berlin, "invite", &id, "done").await;
    assert_eq!(done["trouble"], "", "{done}");
    berlin.wait_linked(&tokyo.id).await.unwrap();
}
