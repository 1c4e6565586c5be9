//! A Python gRPC client that holds no copy of our protos: it knows reflection, a client certificate and the names
//! of the metadata keys.

use std::path::{Path, PathBuf};

use emccd::{
    clock::Clock,
    lab::{Cluster, Hosting, Lab, Spec, authority, member::Member},
    trust::{
        certificate::Certificate,
        make::{CertRequest, Made},
    },
    wire::admin as pb,
};
use serde_json::{Value, json};

use crate::support::{binary, days_from_now, lab, lab_of_processes, pin, stranger::Client};

fn claim(answer: &Value) -> &str {
    answer["response"]["ownership"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
}

/// That a role refused, with this EM code.
fn assert_refused(answer: &Value, status: &str, reason: &str, em_code: &str) {
    assert_eq!(answer["code"], status, "{answer}");
    assert_eq!(answer["error_info"]["domain"], "emcc", "{answer}");
    assert_eq!(answer["error_info"]["reason"], reason, "{answer}");
    assert_eq!(
        answer["error_info"]["metadata"]["em_code"], em_code,
        "{answer}"
    );
    assert_eq!(
        answer["error_info"]["metadata"]["cluster"], "berlin",
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_with_reflection_alone_says_hello_and_asks_for_users() {
    let lab = lab(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let old = Client::of(berlin).being(tokyo);
    let new = Client::of(berlin)
        .being(tokyo)
        .with("--version", "1.1")
        .with("--ref", "7K3Q9M2X");
    let ana = berlin.data.user(0).unwrap().clone();
    let extension = ana.primary_extension.clone().unwrap();
    let shared = berlin
        .data
        .shared_extension()
        .unwrap()
        .primary_extension
        .clone()
        .unwrap();

    let hello = new.call(&["hello"]).await;
    assert_eq!(hello["response"]["clusterId"], "berlin", "{hello}");
    assert_eq!(hello["response"]["node"], "node-1", "{hello}");
    let speaks = json!({"min": {"major": 1, "minor": 0}, "max": {"major": 1, "minor": 1}});
    assert_eq!(hello["response"]["versions"], speaks, "{hello}");
    // Told also to a caller with which we have no version in common, or its operator could not know.
    let hello = old.call(&["hello", "--speaks", "3.0", "3.7"]).await;
    assert_eq!(hello["response"]["versions"], speaks, "{hello}");

    for (client, name, login_type, wanted) in [
        (&old, ana.user_id.as_str(), None, "OWNERSHIP_MINE"),
        (&old, ana.user_id.as_str(), Some("UID"), "OWNERSHIP_MINE"),
        (&old, "nobody.anywhere", None, "OWNERSHIP_NOT_MINE"),
        (&new, &extension, Some("DN"), "OWNERSHIP_MINE"),
        (&new, &shared, Some("DN"), "OWNERSHIP_SEVERAL_USERS"),
        (&new, "99999", Some("DN"), "OWNERSHIP_NOT_MINE"),
        (
            &new,
            ana.self_service_id.as_deref().unwrap(),
            Some("SP"),
            "OWNERSHIP_MINE",
        ),
    ] {
        let arguments: Vec<_> = ["find-user", name].into_iter().chain(login_type).collect();
        let answer = client.call(&arguments).await;
        assert_eq!(claim(&answer), wanted, "{name} {login_type:?}");
    }

    // A call that names no version speaks 1.0, which knows user IDs only.
    for client in [
        &old,
        &Client::of(berlin).being(tokyo).with("--version", "1.0"),
    ] {
        let answer = client.call(&["find-user", &extension, "DN"]).await;
        assert_refused(&answer, "FAILED_PRECONDITION", "ERROR_ON_PARSING", "1");
        assert!(
            answer["details"].as_str().unwrap().contains("1.0"),
            "{answer}"
        );
    }
    let future = Client::of(berlin).being(tokyo).with("--version", "9.0");
    let answer = future.call(&["find-user", &ana.user_id]).await;
    assert_refused(&answer, "FAILED_PRECONDITION", "ERROR_ON_PARSING", "1");
    let told = answer["details"].as_str().unwrap();
    assert!(
        told.contains("9.0") && told.contains("1.0 to 1.1") && told.contains("upgrade"),
        "{told}"
    );

    let answer = new
        .call(&["health", "emcc.federation.v1.FederationService"])
        .await;
    assert_eq!(answer["response"]["status"], "SERVING", "{answer}");
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_reflection_list_federation_and_health_and_no_more() {
    let lab = lab(2).await;
    let client = |version| {
        Client::of(&lab.clusters[0])
            .being(&lab.clusters[1])
            .with("--reflection", version)
    };
    let listed =
        json!({"services": ["emcc.federation.v1.FederationService", "grpc.health.v1.Health"]});
    for version in ["v1", "v1alpha"] {
        let client = client(version);
        let answer = client.call(&["list-services"]).await;
        assert_eq!(answer["response"], listed, "{version}: {answer}");
        // The descriptors are complete, too: a message is built from them.
        let answer = client.call(&["find-user", "nobody.anywhere"]).await;
        assert_eq!(claim(&answer), "OWNERSHIP_NOT_MINE", "{version}");
    }
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_claims_to_be_another_cluster_gets_42() {
    let lab = lab_of_processes(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let node = tokyo.member().unwrap();
    let liar = |claimed| {
        let client = Client::of(berlin).showing(&node.federation_certificate, &node.federation_key);
        client
            .with("--cluster-id", claimed)
            .with("--ref", "7K3Q9M2X")
    };
    for claimed in ["berlin", "lima", "no such id!"] {
        let answer = liar(claimed).call(&["find-user", "ana.berlin"]).await;
        assert_refused(&answer, "UNAUTHENTICATED", "INVALID_CLUSTER_ID", "42");
        assert_eq!(
            answer["error_info"]["metadata"]["ref"], "7K3Q9M2X",
            "{answer}"
        );
        let answer = liar(claimed).call(&["hello"]).await;
        assert_refused(&answer, "UNAUTHENTICATED", "INVALID_CLUSTER_ID", "42");
    }
    // Without a claim the certificate alone identifies; what is said inside of Hello has to agree all the same.
    let silent = Client::of(berlin).showing(&node.federation_certificate, &node.federation_key);
    assert_eq!(
        claim(&silent.call(&["find-user", "ana.berlin"]).await),
        "OWNERSHIP_MINE"
    );
    let introduced = json!({"clusterId": "lima", "node": "n", "software": "s"}).to_string();
    let answer = silent.call(&["call", "Hello", &introduced]).await;
    assert_refused(&answer, "UNAUTHENTICATED", "INVALID_CLUSTER_ID", "42");
    // Our log has the reason as well, with the ref that the caller was told.
    let log = std::fs::read_to_string(berlin.member().unwrap().log_file()).unwrap();
    let told = log
        .lines()
        .find(|line| line.contains("refused a call of tokyo"));
    let told = told.unwrap_or_else(|| panic!("{log}"));
    for word in ["INVALID_CLUSTER_ID", "comes from berlin", "7K3Q-9M2X"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    lab.shut_down().await;
}

/// A certificate for the client, in files.
struct Shown {
    certificate: PathBuf,
    key: PathBuf,
    fingerprint: String,
}

fn write(made: &Made, folder: &Path, name: &str) -> Shown {
    let (certificate, key) = (
        folder.join(format!("{name}.pem")),
        folder.join(format!("{name}.key")),
    );
    authority::write(made, &certificate, &key).unwrap();
    Shown {
        certificate,
        key,
        fingerprint: made.fingerprint_text(),
    }
}

fn shown_by(node: &Member) -> Shown {
    let pem = std::fs::read(&node.federation_certificate).unwrap();
    Shown {
        certificate: node.federation_certificate.clone(),
        key: node.federation_key.clone(),
        fingerprint: Certificate::read_all(&pem).unwrap()[0].fingerprint_text(),
    }
}

/// A certificate of tokyo that is valid from and to so many days from now, and pinned at berlin where asked for.
async fn dated(lab: &Lab, name: &str, days: (i64, i64), pinned: bool) -> Shown {
    let tokyo = &lab.clusters[1];
    let request: CertRequest = tokyo
        .authority
        .request(name)
        .valid(days_from_now(days.0), days_from_now(days.1));
    let made = tokyo.authority.sign(&request).unwrap();
    if pinned {
        pin(&lab.clusters[0], tokyo, &made).await;
    }
    write(&made, lab.folder(), name)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_identified_gets_the_reason_and_so_do_we() {
    let hosting = Hosting::Processes { binary: binary() };
    let lab = Lab::start(&Spec {
        clusters: 3,
        hosting,
        paired: false,
        ..Spec::default()
    })
    .await
    .unwrap();
    let (berlin, tokyo, lima) = (&lab.clusters[0], &lab.clusters[1], &lab.clusters[2]);
    berlin.trust(tokyo).await.unwrap();
    tokyo.trust(berlin).await.unwrap();
    berlin.wait_linked(&tokyo.id).await.unwrap();

    // Dates are told only of a certificate that we know: to anyone else it is simply unknown.
    let cases = [
        ("NO_CLIENT_CERTIFICATE", None),
        ("UNKNOWN_ISSUER", Some(shown_by(lima.member().unwrap()))),
        ("EXPIRED", Some(dated(&lab, "old", (-20, -10), true).await)),
        (
            "NOT_YET_VALID",
            Some(dated(&lab, "new", (10, 20), true).await),
        ),
        (
            "UNKNOWN_ISSUER",
            Some(dated(&lab, "old-and-unknown", (-20, -10), false).await),
        ),
    ];
    for (reason, shown) in &cases {
        let client = Client::of(berlin).with("--cluster-id", tokyo.id.as_str());
        let client = match shown {
            Some(shown) => client.showing(&shown.certificate, &shown.key),
            None => client.showing_nothing(),
        };
        // Whatever is called; one reason is enough to show that.
        let calls = [
            &["find-user", "ana.berlin"][..],
            &["hello"],
            &["list-services"],
            &["health"],
        ];
        let all = if shown.is_none() { calls.len() } else { 1 };
        for call in &calls[..all] {
            let answer = client.call(call).await;
            assert_eq!(answer["code"], "UNAUTHENTICATED", "{reason}: {answer}");
            let info = &answer["error_info"];
            assert_eq!(
                (&info["domain"], &info["reason"]),
                (&json!("emcc.trust"), &json!(reason)),
                "{answer}"
            );
            let told = info["metadata"].as_object().unwrap();
            let fingerprint = shown.as_ref().map(|s| json!(s.fingerprint));
            assert_eq!(told.get("fingerprint"), fingerprint.as_ref(), "{answer}");
            let time: jiff::Timestamp = told["time"].as_str().unwrap().parse().unwrap();
            let off = Clock::system().now().as_millis() - time.as_millisecond();
            assert!(off.abs() < 60_000, "{off} ms: {answer}");
            // Nothing else: neither who would be accepted, nor that there is anybody.
            assert_eq!(told.len(), 1 + usize::from(shown.is_some()), "{answer}");
            assert!(!answer.to_string().contains("tokyo"), "{answer}");
        }
    }

    let log = std::fs::read_to_string(berlin.member().unwrap().log_file()).unwrap();
    let status = berlin
        .admin()
        .await
        .unwrap()
        .status(pb::GetClusterStatusRequest {})
        .await
        .unwrap();
    let printed = printed_status(berlin).await;
    for (reason, shown) in &cases {
        let word = reason.to_lowercase();
        let fingerprint = shown.as_ref().map(|s| s.fingerprint.clone());
        let is_this = |r: &&pb::DoorRefusal| r.rejection == word && r.fingerprint == fingerprint;
        let refusal = status
            .refusals
            .iter()
            .find(is_this)
            .unwrap_or_else(|| panic!("{reason}: {status:?}"));
        assert!(
            !refusal.expectation.is_empty() && !refusal.hint.is_empty(),
            "{refusal:?}"
        );
        assert_eq!(refusal.not_after.is_some(), shown.is_some(), "{refusal:?}");

        let about = fingerprint.clone().unwrap_or_else(|| word.clone());
        let line = log
            .lines()
            .find(|l| l.contains("refused the caller") && l.contains(&about));
        let line = line.unwrap_or_else(|| panic!("{reason} is not in the log:\n{log}"));
        for part in [&word, &refusal.expectation, &refusal.hint] {
            assert!(line.contains(part.as_str()), "{part:?} is not in: {line}");
        }
        for part in [&word, &refusal.hint, &about] {
            assert!(
                printed.contains(part.as_str()),
                "{part:?} is not in:\n{printed}"
            );
        }
    }
    lab.shut_down().await;
}

/// What `cluster status` prints.
async fn printed_status(cluster: &Cluster) -> String {
    let socket = &cluster.member().unwrap().addresses.admin;
    let run = tokio::process::Command::new(binary())
        .args(["cluster", "status", "--socket"])
        .arg(socket)
        .output();
    let output = run.await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
