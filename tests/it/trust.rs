//! Who may speak for whom: refusals as both operators read them, clusters under one authority, false claims, users
//! claimed twice or by one alone, and certificates swapped while everything runs.

use std::{sync::Arc, time::Duration};

use emccd::{
    clock::{Clock, Timestamp},
    domain::rejection::Rejection,
    lab::{
        Cluster, Lab, Spec,
        member::Versions,
        phone::Shown,
        proxy::{Mode, Proxy},
    },
    trust::make::{self, Authority, CertRequest, KeyKind, Made, Usage},
    wire::{admin as pb, pb as wire, status::rejection_from_status},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    self, lab, living,
    raw_peer::{self, call, call_as, client_showing, peer_client},
    rows::rows,
};

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> Timestamp {
    Clock::system().now()
}

fn days_from_now(days: i64) -> Timestamp {
    let day = i64::try_from(DAY.as_millis()).unwrap();
    Timestamp::from_millis(now().as_millis() + days * day)
}

/// Clusters that run and don't know each other yet.
async fn strangers(clusters: usize, settings: &[(&str, &str)]) -> Lab {
    let settings = settings
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect();
    let spec = Spec {
        clusters,
        paired: false,
        settings,
        ..Spec::default()
    };
    Lab::start(&spec).await.unwrap()
}

fn record(id: &str, addresses: Vec<String>, node_names: &[&str]) -> pb::Cluster {
    pb::Cluster {
        cluster_id: id.to_owned(),
        enabled: true,
        allow_emcc: true,
        addresses,
        node_names: node_names.iter().map(|name| (*name).to_owned()).collect(),
        ..pb::Cluster::default()
    }
}

/// Adds a peer that is trusted by one kind of entry.
async fn add(us: &Cluster, cluster: pb::Cluster, kind: &str, pem: &str) -> Result<(), String> {
    let trust = pb::TrustMaterial {
        kind: kind.to_owned(),
        certificates: pem.as_bytes().to_vec(),
    };
    let request = pb::AddClusterRequest {
        cluster: Some(cluster),
        trust: Some(trust),
    };
    let added = us.admin().await.unwrap().add_cluster(request).await;
    added.map(drop).map_err(|error| error.to_string())
}

/// One more certificate that `us` accepts from `them`.
async fn pin(us: &Cluster, them: &Cluster, made: &Made) {
    let certificates = made.certificate_pem.clone().into_bytes();
    let trust = pb::TrustMaterial {
        kind: "pinned".to_owned(),
        certificates,
    };
    let request = pb::AddTrustRequest {
        cluster_id: them.id.to_string(),
        trust: Some(trust),
    };
    let added = us.admin().await.unwrap().add_trust(request).await.unwrap();
    assert_eq!(added.added.len(), 1);
}

/// Another certificate for the first node, from its own authority.
fn another(cluster: &Cluster) -> Made {
    let node = &cluster.member().unwrap().name;
    cluster
        .authority
        .sign(&cluster.authority.request(node))
        .unwrap()
}

/// Writes the certificate into the node's files and puts it in force; says why when that is refused.
async fn swap(cluster: &Cluster, made: &Made) -> Result<pb::ReloadIdentitiesResponse, String> {
    cluster.member().unwrap().install(made).unwrap();
    reload(cluster).await
}

async fn reload(cluster: &Cluster) -> Result<pb::ReloadIdentitiesResponse, String> {
    let mut admin = cluster.admin().await.unwrap();
    let reloaded = admin.reload(pb::ReloadIdentitiesRequest {}).await;
    reloaded.map_err(|error| error.to_string())
}

/// What the node shows to other clusters.
async fn shown_by(cluster: &Cluster) -> pb::Identity {
    let mut admin = cluster.admin().await.unwrap();
    let all = admin
        .identities(pb::ListIdentitiesRequest {})
        .await
        .unwrap()
        .identities;
    all.into_iter()
        .find(|identity| identity.purpose == "federation")
        .unwrap()
}

fn fingerprint(identity: &pb::Identity) -> &str {
    identity
        .certificate
        .as_ref()
        .map_or("none", |c| &*c.fingerprint)
}

/// The same node again; its connections are new.
async fn restart(cluster: &mut Cluster) {
    let member = cluster.member_mut().unwrap();
    member.stop().await;
    member.start(&Versions::default()).await.unwrap();
}

async fn linked(a: &Cluster, b: &Cluster) {
    a.wait_linked(&b.id).await.unwrap();
    b.wait_linked(&a.id).await.unwrap();
}

async fn door(cluster: &Cluster) -> Vec<pb::DoorRefusal> {
    let mut admin = cluster.admin().await.unwrap();
    admin
        .status(pb::GetClusterStatusRequest {})
        .await
        .unwrap()
        .refusals
}

/// Waits until `us` has given up on `them` for that reason, and gives what the operator of `us` reads.
async fn rejected(us: &Cluster, them: &Cluster, rejection: Rejection) -> pb::OutboundStatus {
    let is_so = |peer: &pb::PeerStatus| {
        let told = peer.outbound.as_ref().and_then(|o| o.rejection.as_deref());
        told == Some(rejection.as_str())
    };
    let seen = us
        .wait_status(&them.id, rejection.as_str(), is_so)
        .await
        .unwrap();
    let outbound = seen.outbound.unwrap();
    assert_eq!(outbound.state, "down");
    eprintln!(
        "SEEN by {} of {}: {:?}\n  HINT {:?}\n",
        us.id, them.id, outbound.reason, outbound.hint
    );
    // A reason without something to type about it is half of one.
    assert!(
        outbound
            .hint
            .as_ref()
            .is_some_and(|hint| hint.contains("emccd ")),
        "{outbound:?}"
    );
    outbound
}

/// The phone page for a user of `home` on a phone of `visiting`.
async fn log_in(home: &Cluster, user: usize, visiting: &Cluster) -> Shown {
    let user = home.data.user(user).unwrap();
    enter(visiting, "", &user.user_id, &user.pin).await
}

/// What a phone shows to a name and a PIN; `login_type` empty for none.
async fn enter(visiting: &Cluster, login_type: &str, name: &str, pin: &str) -> Shown {
    let device = &visiting.data.phone(0).unwrap().name;
    let login_type = emccd::domain::login::LoginType::ALL
        .into_iter()
        .find(|known| known.as_str() == login_type);
    let phone = visiting.member().unwrap().phone().unwrap();
    phone
        .login_at_once(device, login_type, name, pin)
        .await
        .unwrap()
}

async fn log_out(visiting: &Cluster) {
    let device = &visiting.data.phone(0).unwrap().name;
    let shown = visiting
        .member()
        .unwrap()
        .phone()
        .unwrap()
        .logout(device)
        .await
        .unwrap();
    assert_eq!(shown.headline(), "Logout successful", "{}", shown.body);
}

async fn works(home: &Cluster, visiting: &Cluster) {
    let shown = log_in(home, 0, visiting).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    log_out(visiting).await;
}

fn hello(claimed: &str) -> wire::HelloRequest {
    wire::HelloRequest {
        cluster_id: claimed.to_owned(),
        ..wire::HelloRequest::default()
    }
}

/// The refusal is EM code 42, in all the ways in which it is written on the wire.
fn is_42(status: &Status) {
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        (&*info.domain, &*info.reason),
        ("emcc", "INVALID_CLUSTER_ID")
    );
    assert_eq!(info.metadata.get("em_code").map(String::as_str), Some("42"));
    assert!(info.metadata.contains_key("ref"), "{info:?}");
    assert!(status.message().contains("identifies"), "{status:?}");
}

/// The refusal names this reason, the caller's own fingerprint and our time, and nothing of what we expect.
fn is_rejected(status: &Status, rejection: Rejection, shown: &Made) {
    assert_eq!(rejection_from_status(status), Some(rejection), "{status:?}");
    assert_eq!(status.code(), Code::Unauthenticated);
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        info.metadata.get("fingerprint"),
        Some(&shown.fingerprint_text())
    );
    assert!(info.metadata.contains_key("time"), "{info:?}");
    assert_eq!(info.metadata.len(), 2, "{info:?}");
    assert_eq!(
        status.message(),
        format!("this connection identifies no peer: {rejection}")
    );
}

/// The door's own record of it, with what would have been accepted and what mends it.
fn is_recorded(door: &[pb::DoorRefusal], side: &str, rejection: Rejection, shown: &Made) {
    let print = shown.fingerprint_text();
    let found = door.iter().find(|refusal| {
        refusal.side == side
            && refusal.rejection == rejection.as_str()
            && refusal.fingerprint.as_ref() == Some(&print)
    });
    let found = found.unwrap_or_else(|| panic!("no {rejection} of the {side} {print}: {door:#?}"));
    assert!(found.subject.is_some() && found.not_before.is_some() && found.not_after.is_some());
    assert!(
        !found.expectation.is_empty() && found.hint.contains("emccd "),
        "{found:?}"
    );
}

// --- one authority for several clusters ---------------------------------------------------------------------------

fn corporate_authority() -> Authority {
    make::ca(&CertRequest::new(
        "Corporate CA",
        Vec::new(),
        KeyKind::P256,
        now(),
        365,
    ))
    .unwrap()
}

fn corporate(authority: &Authority, names: &[&str]) -> Made {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let request = CertRequest::new(names[0].clone(), names, KeyKind::P256, now(), 30);
    make::signed_by(&request, authority).unwrap()
}

const TOKYO_NAME: &str = "emcc.tokyo.corp.test";
const LIMA_NAME: &str = "emcc.lima.corp.test";

/// Berlin trusts tokyo and lima by the authority that both have their certificates from.
async fn under_one_authority() -> (Lab, Authority, Made, Made) {
    let lab = strangers(3, &[]).await;
    let authority = corporate_authority();
    let [berlin, tokyo, lima] = lab.clusters.as_slice() else {
        panic!("three clusters")
    };
    let leaves = [
        corporate(&authority, &[TOKYO_NAME]),
        corporate(&authority, &[LIMA_NAME]),
    ];
    for (them, (leaf, name)) in [tokyo, lima]
        .into_iter()
        .zip(leaves.iter().zip([TOKYO_NAME, LIMA_NAME]))
    {
        swap(them, leaf).await.unwrap();
        them.trust(berlin).await.unwrap();
        let addresses = vec![them.member().unwrap().addresses.federation.clone()];
        // Names are compared as DNS does.
        let cluster = record(them.id.as_str(), addresses, &[&name.to_ascii_uppercase()]);
        add(berlin, cluster, "anchor", &authority.made().certificate_pem)
            .await
            .unwrap();
    }
    linked(berlin, tokyo).await;
    linked(berlin, lima).await;
    let [tokyo_leaf, lima_leaf] = leaves;
    (lab, authority, tokyo_leaf, lima_leaf)
}

#[tokio::test]
async fn under_one_authority_the_name_decides_who_it_is() {
    let (mut lab, authority, tokyo_leaf, lima_leaf) = under_one_authority().await;
    works(&lab.clusters[1], &lab.clusters[0]).await;
    works(&lab.clusters[2], &lab.clusters[0]).await;

    let (berlin, tokyo, lima) = (&lab.clusters[0], &lab.clusters[1], &lab.clusters[2]);
    // Tokyo's own certificate, in lima's name.
    let mut client = client_showing(&tokyo_leaf, berlin);
    client.hello(call(tokyo, hello("tokyo"))).await.unwrap();
    is_42(&client.hello(call(lima, hello("lima"))).await.unwrap_err());
    // A name of the authority that nobody has here, a certificate without names, and one with both names.
    let nobody = corporate(&authority, &["emcc.oslo.corp.test"]);
    let greedy = corporate(&authority, &[TOKYO_NAME, LIMA_NAME]);
    for (leaf, rejection) in [
        (&nobody, Rejection::WrongName),
        (&greedy, Rejection::Ambiguous),
    ] {
        let refused = client_showing(leaf, berlin)
            .hello(call(lima, hello("lima")))
            .await;
        is_rejected(&refused.unwrap_err(), rejection, leaf);
        is_recorded(&door(berlin).await, "caller", rejection, leaf);
    }
    // The same name from another authority is worth nothing.
    let forged = corporate(&corporate_authority(), &[LIMA_NAME]);
    let refused = client_showing(&forged, berlin)
        .hello(call(lima, hello("lima")))
        .await;
    is_rejected(&refused.unwrap_err(), Rejection::UnknownIssuer, &forged);

    // Lima's node shows what was issued for tokyo.
    let before = rows(lima).await.sessions.len();
    swap(lima, &tokyo_leaf).await.unwrap();
    restart(&mut lab.clusters[2]).await;
    let (berlin, lima) = (&lab.clusters[0], &lab.clusters[2]);
    let seen = rejected(berlin, lima, Rejection::WrongCluster).await;
    let reason = seen.reason.unwrap();
    assert!(reason.contains("trusted for tokyo"), "{reason}");
    let is_told = |peer: &pb::PeerStatus| {
        let reason = peer.outbound.as_ref().and_then(|o| o.reason.clone());
        reason.is_some_and(|reason| reason.contains("the certificate identifies tokyo"))
    };
    let told = lima
        .wait_status(&berlin.id, "told that it is taken for tokyo", is_told)
        .await
        .unwrap();
    let reason = told.outbound.unwrap().reason.unwrap();
    assert!(
        reason.contains("42") && reason.contains("emccd config show"),
        "{reason}"
    );
    let shown = log_in(lima, 0, berlin).await;
    assert_eq!(shown.em_code, Some(208), "{}", shown.body);
    assert_eq!(rows(lima).await.sessions.len(), before);
    // The one whose certificate it is has not noticed.
    works(&lab.clusters[1], berlin).await;

    // A name that berlin was not told of: neither direction, and both know why.
    swap(lima, &nobody).await.unwrap();
    restart(&mut lab.clusters[2]).await;
    let (berlin, lima) = (&lab.clusters[0], &lab.clusters[2]);
    let seen = rejected(berlin, lima, Rejection::WrongName)
        .await
        .reason
        .unwrap();
    assert!(
        seen.contains("we refuse its certificate (wrong_name)"),
        "{seen}"
    );
    assert!(seen.contains("emcc.oslo.corp.test"), "{seen}");
    let told = rejected(lima, berlin, Rejection::WrongName)
        .await
        .reason
        .unwrap();
    assert!(
        told.contains("berlin refuses our certificate (wrong_name)"),
        "{told}"
    );
    is_recorded(&door(berlin).await, "caller", Rejection::WrongName, &nobody);
    is_recorded(
        &door(berlin).await,
        "answerer",
        Rejection::WrongName,
        &nobody,
    );

    swap(lima, &lima_leaf).await.unwrap();
    linked(berlin, lima).await;
    works(lima, berlin).await;
    lab.shut_down().await;
}

#[tokio::test]
async fn what_would_belong_to_two_peers_is_refused_when_it_is_configured() {
    let (lab, authority, tokyo_leaf, _) = under_one_authority().await;
    let berlin = &lab.clusters[0];
    let anchor = &authority.made().certificate_pem;
    let oslo = |names: &[&str]| record("oslo", vec!["127.0.0.1:9".to_owned()], names);
    let named = add(berlin, oslo(&["Emcc.Tokyo.corp.test"]), "anchor", anchor)
        .await
        .unwrap_err();
    assert!(
        named.contains("two peers") && named.contains("tokyo"),
        "{named}"
    );
    let nameless = add(berlin, oslo(&[]), "anchor", anchor).await.unwrap_err();
    assert!(nameless.contains("node names"), "{nameless}");
    let leaf = add(
        berlin,
        oslo(&[TOKYO_NAME]),
        "anchor",
        &tokyo_leaf.certificate_pem,
    )
    .await
    .unwrap_err();
    assert!(leaf.contains("pin it instead"), "{leaf}");
    let key = format!(
        "{anchor}{}",
        String::from_utf8_lossy(tokyo_leaf.key_pem.expose())
    );
    let key = add(berlin, oslo(&["o.test"]), "anchor", &key)
        .await
        .unwrap_err();
    assert!(
        key.contains("private key") && !key.contains("BEGIN"),
        "{key}"
    );
    // Pinned for tokyo, then for lima as well.
    let tokyo_s = another(&lab.clusters[1]);
    pin(berlin, &lab.clusters[1], &tokyo_s).await;
    let mut admin = berlin.admin().await.unwrap();
    let twice = pb::AddTrustRequest {
        cluster_id: "lima".to_owned(),
        trust: Some(pb::TrustMaterial {
            kind: "pinned".to_owned(),
            certificates: tokyo_s.certificate_pem.clone().into_bytes(),
        }),
    };
    let twice = admin.add_trust(twice).await.unwrap_err().to_string();
    assert!(twice.contains("tokyo"), "{twice}");
    // A name of tokyo's for lima, under the authority that they share.
    let renamed = pb::SetClusterRequest {
        cluster_id: "lima".to_owned(),
        node_names: Some(pb::TextList {
            values: vec![TOKYO_NAME.to_owned()],
        }),
        ..pb::SetClusterRequest::default()
    };
    let renamed = admin.set_cluster(renamed).await.unwrap_err().to_string();
    assert!(renamed.contains("two peers"), "{renamed}");
    eprintln!(
        "NAMED {named}\nNAMELESS {nameless}\nLEAF {leaf}\nKEY {key}\nTWICE {twice}\nRENAMED {renamed}"
    );
    let trust = admin.trust(pb::ListTrustRequest::default()).await.unwrap();
    let lima_s: Vec<_> = trust
        .entries
        .iter()
        .filter(|e| e.cluster_id == "lima")
        .collect();
    assert_eq!(lima_s.len(), 1, "{trust:?}");
    assert!(
        trust.entries.iter().all(|entry| entry.cluster_id != "oslo"),
        "{trust:?}"
    );
    let status = admin.status(pb::GetClusterStatusRequest {}).await.unwrap();
    assert!(
        status.peers.iter().all(|peer| peer.cluster_id != "oslo"),
        "{status:?}"
    );
    lab.shut_down().await;
}

// --- claims -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_peer_that_claims_another_cluster_s_id_gets_42_whatever_it_calls() {
    let lab = lab(3).await;
    let (berlin, tokyo, lima) = (&lab.clusters[0], &lab.clusters[1], &lab.clusters[2]);
    // A user of berlin is on a phone of lima.
    let shown = log_in(berlin, 0, lima).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    let session = living(&lab, 0).await.remove(0);
    let id = emccd::domain::ids::SessionId::from_uuid(session.id.parse().unwrap());

    let mut tokyo_s = peer_client(tokyo, berlin);
    let user = berlin.data.user(1).unwrap();
    let query = wire::FindUserRequest {
        login_type: wire::LoginType::Uid.into(),
        name: user.user_id.clone(),
    };
    is_42(&tokyo_s.hello(call(lima, hello("lima"))).await.unwrap_err());
    is_42(
        &tokyo_s
            .watch(call(lima, wire::WatchRequest::default()))
            .await
            .unwrap_err(),
    );
    is_42(
        &tokyo_s
            .find_user(call(lima, query.clone()))
            .await
            .unwrap_err(),
    );
    let login = raw_peer::login(raw_peer::new_id(), user, "SEP0000000000AA");
    is_42(&tokyo_s.login(call(lima, login)).await.unwrap_err());
    is_42(
        &tokyo_s
            .logout(call(lima, raw_peer::logout(id)))
            .await
            .unwrap_err(),
    );
    // Also when only the introduction lies, and when nobody of that name is known.
    is_42(&tokyo_s.hello(call(tokyo, hello("lima"))).await.unwrap_err());
    let unknown = emccd::domain::ids::ClusterId::new("atlantis").unwrap();
    is_42(
        &tokyo_s
            .find_user(call_as(&unknown, query.clone()))
            .await
            .unwrap_err(),
    );
    let own = berlin.id.clone();
    is_42(
        &tokyo_s
            .find_user(call_as(&own, query.clone()))
            .await
            .unwrap_err(),
    );

    // As itself it may ask, and without any claim the certificate says who it is.
    tokyo_s.hello(call(tokyo, hello("tokyo"))).await.unwrap();
    tokyo_s.find_user(Request::new(query)).await.unwrap();
    // But what lima holds is not tokyo's to end.
    let ended = tokyo_s.logout(call(tokyo, raw_peer::logout(id))).await;
    let after = living(&lab, 0).await;
    assert_eq!(after.len(), 1, "{ended:?}: {after:?}");
    assert_eq!((&after[0].id, &*after[0].peer), (&session.id, "lima"));
    assert_eq!(living(&lab, 2).await.len(), 1);
    let audit = rows(berlin).await.audit;
    let logins = audit.iter().filter(|entry| entry.action == "login").count();
    assert_eq!(logins, 1, "{audit:#?}");
    log_out(lima).await;
    lab.shut_down().await;
}

const TWIN_PIN: &str = "90718253";

/// Gives both clusters a user of the same names, and a second one who shares the extension with nobody.
async fn twins(clusters: &[&Cluster]) {
    for cluster in clusters {
        let content = format!(
            "[[user]]\nid = \"twin\"\nself-service-id = \"twin@corp.test\"\nextension = \"7777\"\npin = \"{TWIN_PIN}\"\n\
             [[profile]]\nname = \"twin-{0}\"\nuser = \"twin\"\ndefault = true\ndevice-pool = \"{0}\"\n",
            cluster.id
        );
        let file = pb::ApplyFile {
            name: "twins.toml".to_owned(),
            content,
        };
        let request = pb::ApplyRequest {
            files: vec![file],
            dry_run: false,
        };
        cluster.admin().await.unwrap().apply(request).await.unwrap();
    }
}

/// No PIN was judged there, nor was anything kept of an attempt.
async fn never_asked(cluster: &Cluster, user_id: &str) {
    let rows = rows(cluster).await;
    assert!(
        rows.sessions.is_empty(),
        "{}: {:#?}",
        cluster.id,
        rows.sessions
    );
    let logins: Vec<_> = rows
        .audit
        .iter()
        .filter(|entry| entry.action.contains("login"))
        .collect();
    assert!(logins.is_empty(), "{}: {logins:#?}", cluster.id);
    let failures = failures(cluster, user_id).await;
    assert_eq!(failures, 0, "{}", cluster.id);
}

async fn failures(cluster: &Cluster, user_id: &str) -> u32 {
    let request = pb::GetUserRequest {
        user_id: user_id.to_owned(),
    };
    cluster
        .admin()
        .await
        .unwrap()
        .user(request)
        .await
        .unwrap()
        .pin
        .unwrap()
        .failures
}

#[tokio::test]
async fn a_user_whom_two_peers_claim_is_refused_and_the_pin_reaches_neither() {
    let lab = support::lab_of_processes(3).await;
    let (berlin, tokyo, lima) = (&lab.clusters[0], &lab.clusters[1], &lab.clusters[2]);
    twins(&[tokyo, lima]).await;
    let claims = [
        ("UID", "twin", 4),
        ("SP", "twin@corp.test", 4),
        ("DN", "7777", 47),
        ("UID", "TWIN", 4),
    ];
    for (login_type, name, code) in claims {
        // The right PIN would make a session, a wrong one would be counted.
        for pin in [TWIN_PIN, "1234567"] {
            let shown = enter(berlin, login_type, name, pin).await;
            assert_eq!(
                shown.em_code,
                Some(code),
                "{login_type} {name}: {}",
                shown.body
            );
            assert!(shown.reference.is_some(), "{}", shown.body);
        }
    }
    for home in [tokyo, lima] {
        never_asked(home, "twin").await;
    }
    assert!(rows(berlin).await.sessions.is_empty());

    let log = std::fs::read_to_string(berlin.member().unwrap().log_file()).unwrap();
    let alarms: Vec<_> = log
        .lines()
        .filter(|line| line.contains("home_ambiguous"))
        .collect();
    assert_eq!(alarms.len(), 2 * claims.len(), "{log}");
    for alarm in alarms {
        assert!(alarm.contains("lima") && alarm.contains("tokyo"), "{alarm}");
    }
    assert!(!log.contains(TWIN_PIN), "a PIN in the log");

    // The user can say which one is meant. That shows that what was looked at above can be there.
    let shown = enter(berlin, "UID", "twin@tokyo", TWIN_PIN).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    assert_eq!(rows(tokyo).await.sessions.len(), 1);
    log_out(berlin).await;
    let shown = enter(berlin, "UID", "twin@lima", "1234567").await;
    assert_eq!(shown.em_code, Some(2), "{}", shown.body);
    assert_eq!(failures(lima, "twin").await, 1);
    assert_eq!(failures(tokyo, "twin").await, 0);
    lab.shut_down().await;
}

/// What berlin's record of tokyo lets it claim.
async fn set_patterns(berlin: &Cluster, users: &[&str], extensions: &[&str]) {
    let list = |texts: &[&str]| pb::TextList {
        values: texts.iter().map(|t| (*t).to_owned()).collect(),
    };
    let request = pb::SetClusterRequest {
        cluster_id: "tokyo".to_owned(),
        user_patterns: Some(list(users)),
        dn_patterns: Some(list(extensions)),
        ..pb::SetClusterRequest::default()
    };
    berlin
        .admin()
        .await
        .unwrap()
        .set_cluster(request)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_sole_claimer_gets_the_pin_only_if_all_others_answered_or_a_pattern_admits_the_name() {
    let lab = strangers(3, &[("login", "find-deadline = \"800ms\"")]).await;
    let (berlin, tokyo, lima) = (&lab.clusters[0], &lab.clusters[1], &lab.clusters[2]);
    let proxy = Proxy::start(lima.member().unwrap().addresses.federation.clone())
        .await
        .unwrap();
    berlin.trust(tokyo).await.unwrap();
    berlin
        .trust_at(lima, vec![proxy.address.to_string()])
        .await
        .unwrap();
    tokyo.trust(berlin).await.unwrap();
    lima.trust(berlin).await.unwrap();
    linked(berlin, tokyo).await;
    linked(berlin, lima).await;

    let ana = tokyo.data.user(0).unwrap();
    let extension = ana.primary_extension.as_deref().unwrap();
    let by_extension = |pin: &'static str| enter(berlin, "DN", extension, pin);
    for (mode, codes) in [
        (Mode::Swallow, [Some(40), Some(40)]),
        (Mode::Refuse, [Some(208), Some(208)]),
    ] {
        proxy.set(mode);
        if mode == Mode::Refuse {
            let is_down = |p: &pb::PeerStatus| {
                let reason = p.outbound.as_ref().and_then(|o| o.reason.clone());
                p.outbound.as_ref().is_some_and(|o| o.state == "down") && reason.is_some()
            };
            berlin
                .wait_status(&lima.id, "refused", is_down)
                .await
                .unwrap();
        }
        // Once while the link still counts as up, once when its silence was noticed.
        for (round, code) in codes.into_iter().enumerate() {
            if round == 1 {
                let is_down =
                    |p: &pb::PeerStatus| p.outbound.as_ref().is_some_and(|o| o.state == "down");
                berlin.wait_status(&lima.id, "down", is_down).await.unwrap();
            }
            let shown = enter(berlin, "UID", &ana.user_id, &ana.pin).await;
            assert_eq!(shown.em_code, code, "{mode:?} {round}: {}", shown.body);
            let shown = by_extension("1234567").await;
            assert_eq!(shown.em_code, code, "{mode:?} {round}: {}", shown.body);
        }
        never_asked(tokyo, &ana.user_id).await;
    }

    // With a pattern for its user IDs tokyo is believed, but for its extensions it is not.
    set_patterns(berlin, &["*.tokyo"], &[]).await;
    for mode in [Mode::Refuse, Mode::Swallow] {
        proxy.set(mode);
        let shown = enter(
            berlin,
            "UID",
            &tokyo.data.user(1).unwrap().user_id,
            "1234567",
        )
        .await;
        assert_eq!(shown.em_code, Some(2), "{mode:?}: {}", shown.body);
        let shown = by_extension("1234567").await;
        assert!(
            matches!(shown.em_code, Some(40 | 208)),
            "{mode:?}: {}",
            shown.body
        );
    }
    assert_eq!(failures(tokyo, &ana.user_id).await, 0);
    let shown = enter(berlin, "UID", &ana.user_id, &ana.pin).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    log_out(berlin).await;

    // A pattern that does not admit the name: tokyo may not even claim it.
    set_patterns(berlin, &["*.osaka"], &[]).await;
    let before = rows(tokyo).await.audit.len();
    let shown = enter(
        berlin,
        "UID",
        &tokyo.data.user(2).unwrap().user_id,
        &tokyo.data.user(2).unwrap().pin,
    )
    .await;
    assert!(matches!(shown.em_code, Some(40 | 208)), "{}", shown.body);
    assert_eq!(rows(tokyo).await.audit.len(), before);

    // Everybody answers: no pattern is needed.
    set_patterns(berlin, &[], &[]).await;
    proxy.set(Mode::Open);
    linked(berlin, lima).await;
    let eva = tokyo.data.user(3).unwrap();
    let shown = enter(
        berlin,
        "DN",
        eva.primary_extension.as_deref().unwrap(),
        &eva.pin,
    )
    .await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    log_out(berlin).await;
    lab.shut_down().await;
}

// --- refusals, on both sides ---------------------------------------------------------------------------------------

#[tokio::test]
async fn a_refused_certificate_is_explained_on_both_sides_and_mended_without_a_restart() {
    let mut lab = strangers(2, &[]).await;
    // Berlin's own certificate outlives what its clock goes through here.
    let berlin = &lab.clusters[0];
    let long = berlin
        .authority
        .request("node-1")
        .valid(days_from_now(-400), days_from_now(400));
    swap(berlin, &berlin.authority.sign(&long).unwrap())
        .await
        .unwrap();
    let tokyo = &lab.clusters[1];
    berlin.trust(tokyo).await.unwrap();
    tokyo.trust(berlin).await.unwrap();
    linked(berlin, tokyo).await;
    works(tokyo, berlin).await;

    // Living links are cut when the certificate ends by berlin's clock, and come back by themselves.
    let shown = std::fs::read_to_string(&tokyo.member().unwrap().federation_certificate).unwrap();
    let certificate_der = CertificateDer::from_pem_slice(shown.as_bytes())
        .unwrap()
        .to_vec();
    let shown = Made {
        certificate_pem: shown,
        certificate_der,
        key_pem: emccd::secret::Secret::new(Vec::new()),
    };
    let clock = &berlin.member().unwrap().clock;
    let day = i64::try_from(DAY.as_millis()).unwrap();
    for (days, rejection) in [(31, Rejection::Expired), (-1, Rejection::NotYetValid)] {
        clock.set_offset_millis(days * day);
        let seen = rejected(berlin, tokyo, rejection).await;
        let reason = seen.reason.unwrap();
        assert!(
            reason.contains(&format!("we refuse its certificate ({rejection})")),
            "{reason}"
        );
        assert!(reason.contains(&shown.fingerprint_text()), "{reason}");
        let told = rejected(tokyo, berlin, rejection).await;
        let reason = told.reason.unwrap();
        assert!(
            reason.contains(&format!("berlin refuses our certificate ({rejection})")),
            "{reason}"
        );
        assert!(reason.contains("mend on berlin with: "), "{reason}");
        assert!(reason.contains(&shown.fingerprint_text()), "{reason}");
        is_recorded(&door(berlin).await, "caller", rejection, &shown);
        is_recorded(&door(berlin).await, "answerer", rejection, &shown);
        for (home, visiting) in [(tokyo, berlin), (berlin, tokyo)] {
            let shown = log_in(home, 0, visiting).await;
            assert_eq!(shown.em_code, Some(208), "{rejection}: {}", shown.body);
        }
    }
    clock.set_offset_millis(0);
    linked(berlin, tokyo).await;
    works(tokyo, berlin).await;

    // A certificate that berlin was not told of.
    let other = another(tokyo);
    swap(tokyo, &other).await.unwrap();
    rejected(tokyo, berlin, Rejection::UnknownIssuer).await;
    is_recorded(
        &door(berlin).await,
        "caller",
        Rejection::UnknownIssuer,
        &other,
    );
    restart(&mut lab.clusters[1]).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    rejected(berlin, tokyo, Rejection::UnknownIssuer).await;
    is_recorded(
        &door(berlin).await,
        "answerer",
        Rejection::UnknownIssuer,
        &other,
    );
    pin(berlin, tokyo, &other).await;
    linked(berlin, tokyo).await;
    works(tokyo, berlin).await;
    // What is mended is no longer complained about.
    let left = door(berlin).await;
    let print = other.fingerprint_text();
    assert!(
        left.iter()
            .all(|refusal| refusal.fingerprint.as_ref() != Some(&print)),
        "{left:#?}"
    );

    // Trust taken back: the living link is cut, and both say why.
    let request = pb::RemoveTrustRequest {
        cluster_id: tokyo.id.to_string(),
        fingerprint: print,
    };
    berlin
        .admin()
        .await
        .unwrap()
        .remove_trust(request)
        .await
        .unwrap();
    rejected(berlin, tokyo, Rejection::UnknownIssuer).await;
    rejected(tokyo, berlin, Rejection::UnknownIssuer).await;
    let shown = log_in(tokyo, 0, berlin).await;
    assert_eq!(shown.em_code, Some(208), "{}", shown.body);
    pin(berlin, tokyo, &other).await;
    linked(berlin, tokyo).await;
    lab.shut_down().await;
}

/// A server that shows a certificate, and nothing more.
async fn server_showing(made: &Made) -> (String, tokio::task::JoinHandle<()>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_slice_iter(made.certificate_pem.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(made.key_pem.expose()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // The caller ends the handshake, or not; either way there is nothing to serve.
            let _ended = acceptor.accept(tcp).await;
        }
    });
    (address, serving)
}

#[tokio::test]
async fn a_certificate_for_the_wrong_direction_is_refused_in_each() {
    let mut lab = lab(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let request = |usage| tokyo.authority.request("node-1").with_usage(usage);
    let only_server = tokyo.authority.sign(&request(Usage::Server)).unwrap();
    let only_client = tokyo.authority.sign(&request(Usage::Client)).unwrap();
    // As a caller: who is pinned is told the reason.
    let refused = client_showing(&only_server, berlin)
        .hello(call(tokyo, hello("tokyo")))
        .await;
    is_rejected(
        &refused.unwrap_err(),
        Rejection::UnknownIssuer,
        &only_server,
    );
    pin(berlin, tokyo, &only_server).await;
    let refused = client_showing(&only_server, berlin)
        .hello(call(tokyo, hello("tokyo")))
        .await;
    is_rejected(&refused.unwrap_err(), Rejection::WrongEku, &only_server);
    is_recorded(
        &door(berlin).await,
        "caller",
        Rejection::WrongEku,
        &only_server,
    );
    // As a server.
    let (address, serving) = server_showing(&only_client).await;
    let oslo = record("oslo", vec![address], &[]);
    add(berlin, oslo, "pinned", &only_client.certificate_pem)
        .await
        .unwrap();
    let oslo = emccd::domain::ids::ClusterId::new("oslo").unwrap();
    let is_so = |p: &pb::PeerStatus| {
        p.outbound
            .as_ref()
            .is_some_and(|o| o.rejection.as_deref() == Some("wrong_eku"))
    };
    let seen = berlin
        .wait_status(&oslo, "wrong_eku", is_so)
        .await
        .unwrap()
        .outbound
        .unwrap();
    let reason = seen.reason.unwrap();
    assert!(
        reason.contains("serverAuth") && reason.contains(&only_client.fingerprint_text()),
        "{reason}"
    );
    is_recorded(
        &door(berlin).await,
        "answerer",
        Rejection::WrongEku,
        &only_client,
    );
    serving.abort();
    // Or it would be asked whose user somebody is.
    let off = pb::SetClusterRequest {
        cluster_id: "oslo".to_owned(),
        enabled: Some(false),
        ..pb::SetClusterRequest::default()
    };
    let mut admin = berlin.admin().await.unwrap();
    admin.set_cluster(off).await.unwrap();

    // A node refuses to show such a thing: it calls and is called with one certificate.
    let before = shown_by(tokyo).await;
    let said = swap(tokyo, &only_server).await.unwrap_err();
    assert!(
        said.contains("wrong_eku") && said.contains("clientAuth"),
        "{said}"
    );
    assert!(said.contains("last good one stays"), "{said}");
    assert_eq!(fingerprint(&shown_by(tokyo).await), fingerprint(&before));
    works(tokyo, berlin).await;
    // With nothing good to keep it serves its own phones, and says what is wrong.
    restart(&mut lab.clusters[1]).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let mut admin = tokyo.admin().await.unwrap();
    let status = admin.status(pb::GetClusterStatusRequest {}).await.unwrap();
    let reason = status.federation_down_reason.unwrap();
    assert!(reason.contains("wrong_eku"), "{reason}");
    assert!(status.federation_hint.unwrap().contains("emccd cert"));
    let shown = log_in(tokyo, 0, tokyo).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    log_out(tokyo).await;
    let shown = log_in(tokyo, 0, berlin).await;
    assert!(matches!(shown.em_code, Some(40 | 208)), "{}", shown.body);
    let good = another(tokyo);
    pin(berlin, tokyo, &good).await;
    swap(tokyo, &good).await.unwrap();
    linked(berlin, tokyo).await;
    works(tokyo, berlin).await;
    lab.shut_down().await;
}

// --- swapped while everything runs ---------------------------------------------------------------------------------

#[tokio::test]
async fn a_certificate_is_swapped_under_living_sessions_and_broken_files_change_nothing() {
    let lab = lab(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let next = another(tokyo);
    pin(berlin, tokyo, &next).await;
    let shown = log_in(tokyo, 0, berlin).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    let reloaded = swap(tokyo, &next).await.unwrap();
    assert_eq!(
        fingerprint(&reloaded.identities[0]),
        next.fingerprint_text()
    );
    // Who calls from now on meets the new one, and the session goes on.
    peer_client(berlin, tokyo)
        .hello(call(berlin, hello("berlin")))
        .await
        .unwrap();
    log_out(berlin).await;
    linked(berlin, tokyo).await;
    assert!(living(&lab, 0).await.is_empty() && living(&lab, 1).await.is_empty());

    let member = tokyo.member().unwrap();
    let (certificate, key) = (&member.federation_certificate, &member.federation_key);
    let good = [
        std::fs::read(certificate).unwrap(),
        std::fs::read(key).unwrap(),
    ];
    let foreign = another(berlin);
    let expired = tokyo
        .authority
        .request("node-1")
        .valid(days_from_now(-9), days_from_now(-1));
    let expired = tokyo.authority.sign(&expired).unwrap();
    type Breaking<'a> = Box<dyn Fn() + 'a>;
    let open_to_all = || {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o644)).unwrap();
    };
    let broken: [(&str, &[&str], Breaking<'_>); 7] = [
        (
            "no certificate",
            &["no certificate in it"],
            Box::new(|| std::fs::write(certificate, "nonsense").unwrap()),
        ),
        (
            "half of one",
            &["PEM"],
            Box::new(|| std::fs::write(certificate, &good[0][..200]).unwrap()),
        ),
        (
            "no file",
            &["can't read", "No such file"],
            Box::new(|| std::fs::remove_file(certificate).unwrap()),
        ),
        (
            "no key",
            &["no private key"],
            Box::new(|| std::fs::write(key, "nonsense").unwrap()),
        ),
        (
            "another key",
            &["does not belong to the certificate"],
            Box::new(|| std::fs::write(key, foreign.key_pem.expose()).unwrap()),
        ),
        ("an open key", &["chmod 600"], Box::new(open_to_all)),
        (
            "an expired one",
            &["expired", "valid from"],
            Box::new(|| member.install(&expired).unwrap()),
        ),
    ];
    for (what, words, break_it) in broken {
        break_it();
        let said = reload(tokyo).await.unwrap_err();
        for word in words.iter().chain(&["the last good one stays in force"]) {
            assert!(said.contains(word), "{what}: {word:?} in {said}");
        }
        assert!(
            !said.contains("BEGIN") && !said.contains("nonsense"),
            "{what}: {said}"
        );
        let identity = shown_by(tokyo).await;
        assert_eq!(fingerprint(&identity), next.fingerprint_text(), "{what}");
        assert!(
            identity
                .problem
                .is_some_and(|problem| said.contains(&problem)),
            "{what}: {said}"
        );
        peer_client_of_good(berlin, tokyo, &next).await;
        member.install(&next).unwrap();
    }
    works(tokyo, berlin).await;
    reload(tokyo).await.unwrap();
    assert_eq!(shown_by(tokyo).await.problem, None);
    lab.shut_down().await;
}

/// Whoever calls `them` meets that certificate.
async fn peer_client_of_good(us: &Cluster, them: &Cluster, expected: &Made) {
    // The files may be broken: what the node shows is looked at on the wire.
    let tcp = tokio::net::TcpStream::connect(&them.member().unwrap().addresses.federation)
        .await
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&them.authority.file).unwrap())
        .unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = "localhost".try_into().unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .unwrap();
    let shown = tls.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    assert!(
        shown == expected.certificate_der,
        "{} meets another certificate of {}",
        us.id,
        them.id
    );
}

#[tokio::test]
async fn sighup_swaps_the_certificate_of_a_process_and_keeps_the_last_good_one() {
    let lab = support::lab_of_processes(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let member = tokyo.member().unwrap();
    let hang_up = || {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(member.pid().unwrap()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    };
    let next = another(tokyo);
    pin(berlin, tokyo, &next).await;
    let shown = log_in(tokyo, 0, berlin).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    member.install(&next).unwrap();
    hang_up();
    wait_identity(tokyo, |identity| {
        fingerprint(identity) == next.fingerprint_text()
    })
    .await;
    peer_client_of_good(berlin, tokyo, &next).await;
    log_out(berlin).await;
    linked(berlin, tokyo).await;

    std::fs::write(&member.federation_certificate, "nonsense").unwrap();
    hang_up();
    let kept = wait_identity(tokyo, |identity| identity.problem.is_some()).await;
    assert_eq!(fingerprint(&kept), next.fingerprint_text());
    peer_client_of_good(berlin, tokyo, &next).await;
    linked(berlin, tokyo).await;
    works(tokyo, berlin).await;
    let log = std::fs::read_to_string(member.log_file()).unwrap();
    let told = log
        .lines()
        .find(|line| line.contains("reading again failed"));
    let told = told.unwrap_or_else(|| panic!("{log}"));
    assert!(
        told.contains("what was in force stays") && told.contains("certificate"),
        "{told}"
    );

    member.install(&next).unwrap();
    hang_up();
    wait_identity(tokyo, |identity| identity.problem.is_none()).await;
    lab.shut_down().await;
}

async fn wait_identity(cluster: &Cluster, wanted: impl Fn(&pb::Identity) -> bool) -> pb::Identity {
    let began = std::time::Instant::now();
    loop {
        let identity = shown_by(cluster).await;
        if wanted(&identity) {
            return identity;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{identity:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
