//! Commands against the admin service over a real Unix socket, with a store in memory and a node that only
//! pretends.

mod data;
mod debts;
mod hints;
mod params;
mod records;

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use clap::Parser as _;
use tempfile::TempDir;

use super::*;
use crate::{
    apply::edit::Edit,
    cli::output::Report,
    clock::{Clock, Timestamp},
    domain::{
        ids::{ClusterId, Ref, SessionId},
        login::{LoginType, SecurityMode},
        parameters::Parameters,
        rejection::Rejection,
        session::{EndReason, Initiator, Role, State},
    },
    edge::admin::{
        AdminEdge,
        error::Error,
        operations::{Answer, ApplyMode, Explain, File, Live, Operations, SessionKey},
        roles::{Actor, Groups},
        serve,
        socket::{self, AdminSocket},
    },
    fault::FaultPoints,
    pairing::{self, Pairings},
    store::{self, Store, announcements, audit, base_devices, devices, sessions, users},
    tasks::Tasks,
    trust::{
        TrustStore,
        explain::{Part, Step},
        folder::IdentityFolder,
        make::{self, CertRequest, KeyKind, Made},
        shown::Chain,
    },
    wire::admin::{self as pb, admin_service_server::AdminService},
};

/// A node with a real admin socket and nothing behind it but a store.
struct Node {
    dir: TempDir,
    store: Store,
    edge: AdminEdge,
    tasks: Tasks,
    changes: Arc<AtomicUsize>,
    /// Whether the node fails to take up peers.
    cannot_follow: Arc<AtomicBool>,
    /// Which peers were rung.
    rung: Arc<Mutex<Vec<ClusterId>>>,
}

struct Pretender {
    store: Store,
    own: Made,
    rung: Arc<Mutex<Vec<ClusterId>>>,
    changes: Arc<AtomicUsize>,
    cannot_follow: Arc<AtomicBool>,
}

impl Operations for Pretender {
    fn cluster_status(&self) -> Answer<'_, pb::GetClusterStatusResponse> {
        Box::pin(async {
            Ok(pb::GetClusterStatusResponse {
                cluster_id: "berlin".to_owned(),
                node: "b1".to_owned(),
                peers: vec![pb::PeerStatus {
                    cluster_id: "tokyo".to_owned(),
                    ..pb::PeerStatus::default()
                }],
                ..pb::GetClusterStatusResponse::default()
            })
        })
    }

    fn identities(&self) -> Answer<'_, Vec<pb::Identity>> {
        let certificate = pb::Certificate {
            subject: "CN=berlin".to_owned(),
            fingerprint: self.own.fingerprint_text(),
            ..pb::Certificate::default()
        };
        Box::pin(std::future::ready(Ok(vec![pb::Identity {
            purpose: "federation".to_owned(),
            certificate: Some(certificate),
            ..pb::Identity::default()
        }])))
    }

    fn own_certificates(&self) -> Answer<'_, Vec<pb::BulkCertificate>> {
        Box::pin(std::future::ready(Ok(vec![pb::BulkCertificate {
            cluster_id: "berlin".to_owned(),
            kind: "pinned".to_owned(),
            alias: "b1/federation".to_owned(),
            der: self.own.certificate_der.clone(),
        }])))
    }

    fn live(&self) -> Vec<Live> {
        Vec::new()
    }

    fn reload_identities<'a>(&'a self, _: &'a Actor) -> Answer<'a, Vec<pb::Identity>> {
        let refused = Error::refused("the key is another certificate's", "give its own key");
        Box::pin(std::future::ready(Err(refused)))
    }

    fn forecast(&self, _: Option<&ClusterId>, at: Timestamp) -> pb::ForecastTrustResponse {
        pb::ForecastTrustResponse {
            as_of: at.to_string(),
            ..pb::ForecastTrustResponse::default()
        }
    }

    fn shown_by_peers(&self) -> Vec<Chain> {
        Vec::new()
    }

    fn ring(&self, cluster: &ClusterId) {
        self.rung.lock().unwrap().push(cluster.clone());
    }

    fn peers_changed(&self) -> Answer<'_, ()> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        let follows = if self.cannot_follow.load(Ordering::SeqCst) {
            Err(Error::refused("the trust store is locked", "unlock it"))
        } else {
            Ok(())
        };
        Box::pin(std::future::ready(follows))
    }

    fn parameters_in_force(&self) -> Arc<Parameters> {
        Arc::default()
    }

    fn parameters_changed(&self) -> Answer<'_, ()> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(Ok(())))
    }

    fn end_session<'a>(&'a self, key: &'a SessionKey, _: &'a Actor) -> Answer<'a, bool> {
        Box::pin(async move {
            let key = key.clone();
            self.store
                .write(move |tx| {
                    let end = Some((EndReason::Operator, Initiator::Visiting, NOW));
                    let live = [State::Pending, State::Active, State::Ending];
                    let (role, peer) = (key.role, &key.counterpart);
                    sessions::transition(tx, role, peer, key.id, &live, State::Ended, end, true)
                })
                .await?;
            Ok(false)
        })
    }

    fn edit<'a>(&'a self, edit: Edit, _: &'a Actor) -> Answer<'a, Vec<pb::ApplyCount>> {
        let count = pb::ApplyCount {
            kind: edit.kind.name.to_owned(),
            added: 1,
            ..pb::ApplyCount::default()
        };
        Box::pin(std::future::ready(Ok(vec![count])))
    }

    fn retire_peer<'a>(&'a self, _: &'a ClusterId, _: bool, _: &'a Actor) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn keep_peer<'a>(&'a self, _: &'a ClusterId) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn refresh_cluster<'a>(&'a self, cluster: &'a ClusterId) -> Answer<'a, pb::PeerStatus> {
        let outbound = pb::OutboundStatus {
            state: "down".to_owned(),
            reason: Some("nobody answers".to_owned()),
            ..pb::OutboundStatus::default()
        };
        Box::pin(std::future::ready(Ok(pb::PeerStatus {
            cluster_id: cluster.to_string(),
            outbound: Some(outbound),
            ..pb::PeerStatus::default()
        })))
    }

    fn explain_trust<'a>(&'a self, asked: &'a Explain) -> Answer<'a, Vec<Part>> {
        let mut part = Part::new("the way there");
        part.steps.push(Step::good("asked", format!("{asked:?}")));
        if asked
            .wanted
            .as_ref()
            .is_some_and(|id| id.as_str() == "paris")
        {
            let why = Some(Rejection::WrongCluster);
            part.steps
                .push(Step::bad("verdict", why, "of another peer").with(["a detail".to_owned()]));
            part.mend = Some("emccd cluster list".to_owned());
        }
        Box::pin(std::future::ready(Ok(vec![part])))
    }

    fn hand_over<'a>(&'a self, _: &'a pb::HandOverRequest, _: &'a Actor) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn apply<'a>(
        &'a self,
        files: Vec<File>,
        mode: ApplyMode,
        _: &'a Actor,
        _: crate::watch::Sender<crate::apply::Progress>,
    ) -> Answer<'a, pb::ApplyResponse> {
        let added = if mode.dry_run { 0 } else { files.len() };
        let has_peers = files.iter().any(|file| file.content.contains("[[peer]]"));
        let count = pb::ApplyCount {
            kind: if has_peers { "peer" } else { "user" }.to_owned(),
            added: u32::try_from(added).unwrap(),
            // As if the store had two that no file names.
            removed: if mode.prune { 2 } else { 0 },
            ..pb::ApplyCount::default()
        };
        Box::pin(std::future::ready(Ok(pb::ApplyResponse {
            counts: vec![count],
            dry_run: mode.dry_run,
            ..pb::ApplyResponse::default()
        })))
    }
}

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

fn certificate(name: &str) -> Made {
    let names = vec![name.to_owned()];
    let now = Clock::system().now();
    make::self_signed(&CertRequest::new(name, names, KeyKind::P256, now, 30)).unwrap()
}

fn authority(name: &str) -> Made {
    let now = Clock::system().now();
    let request = CertRequest::new(name, Vec::new(), KeyKind::P256, now, 30);
    make::ca(&request).unwrap().made().clone()
}

impl Node {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&store::Config {
            url: "sqlite::memory:".to_owned(),
            node: "b1".to_owned(),
        })
        .unwrap();
        let own = certificate("berlin");
        fs::write(dir.path().join("own.pem"), &own.certificate_pem).unwrap();
        let changes = Arc::new(AtomicUsize::new(0));
        let cannot_follow = Arc::new(AtomicBool::new(false));
        let rung: Arc<Mutex<Vec<ClusterId>>> = Arc::default();
        let operations = Arc::new(Pretender {
            store: store.clone(),
            own,
            rung: Arc::clone(&rung),
            changes: changes.clone(),
            cannot_follow: cannot_follow.clone(),
        });
        let edge = AdminEdge {
            pairings: Pairings::new(pairing::Parts {
                cluster: "berlin".parse().unwrap(),
                node: "node-1".to_owned(),
                software: String::new(),
                versions: String::new(),
                security_mode: "non-secure",
                store: store.clone(),
                trust: TrustStore::new(None, Clock::system()),
                folder: IdentityFolder::new([]),
                clock: Clock::system(),
                faults: FaultPoints::none(),
            }),
            imports: Arc::new(tokio::sync::Semaphore::new(1)),
            cluster_id: "berlin".parse().unwrap(),
            node: "berlin-1".to_owned(),
            store: store.clone(),
            clock: Clock::system(),
            groups: Arc::new(Groups::default()),
            operations,
            faults: FaultPoints::none(),
            tasks: Tasks::default(),
        };
        let config = socket::Config {
            path: dir.path().join("admin.sock"),
            group: "no-such-group".to_owned(),
        };
        let tasks = Tasks::default();
        serve(
            AdminSocket::bind(&config).await.unwrap(),
            edge.clone(),
            &tasks,
        );
        Self {
            dir,
            store,
            edge,
            tasks,
            changes,
            cannot_follow,
            rung,
        }
    }

    /// Types a command; a relative file is taken from the node's folder.
    async fn try_type(&self, line: &str) -> Outcome {
        let words = line
            .split_whitespace()
            .map(|word| match word.strip_prefix('@') {
                Some(file) => self.file(file).display().to_string(),
                None => word.to_owned(),
            });
        let socket = self.file("admin.sock").display().to_string();
        let line = ["emccd".to_owned(), "--socket".to_owned(), socket]
            .into_iter()
            .chain(words);
        dispatch(CommandLine::try_parse_from(line).unwrap()).await
    }

    async fn type_in(&self, line: &str) -> Report {
        self.try_type(line)
            .await
            .unwrap_or_else(|failure| panic!("{line}\n{failure}"))
    }

    async fn refused(&self, line: &str) -> String {
        match self.try_type(line).await {
            Ok(report) => panic!("{line}\n{}", report.text),
            Err(failure) => failure.to_string(),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.file(name), content).unwrap();
    }

    async fn audit(&self) -> Vec<(String, String, String)> {
        let all = self.store.read(|tx| audit::list(tx, 100)).await.unwrap();
        all.into_iter()
            .map(|entry| (entry.action, entry.subject, entry.actor))
            .collect()
    }

    async fn end(self) {
        self.tasks.shut_down(Duration::from_secs(5)).await;
        assert!(
            !self.file("admin.sock").exists(),
            "the socket was left behind"
        );
    }
}

fn a_session(id: u128, role: Role, peer: &str, device: &str) -> sessions::Session {
    let peer: ClusterId = peer.parse().unwrap();
    sessions::Session {
        role,
        counterpart: peer,
        id: SessionId::from_uuid(uuid::Uuid::from_u128(id)),
        state: State::Active,
        device: device.parse().unwrap(),
        user_id: Some("anna".parse().unwrap()),
        login_type: LoginType::Uid,
        login_name: "anna".parse().unwrap(),
        profile: None,
        base_device: None,
        services: None,
        reference: Ref::from_bits(u64::try_from(id).unwrap()),
        created_at: NOW,
        deadline: None,
        changed_at: Timestamp::from_millis(1),
        ended_at: None,
        end_reason: None,
        initiator: None,
        owed: false,
        parked: None,
        parked_at: None,
    }
}

async fn with_people(node: &Node) {
    node.store
        .write(|tx| {
            for n in 0..1_203 {
                users::upsert(
                    tx,
                    &users::User {
                        user_id: format!("user{n:04}").parse().unwrap(),
                        self_service_id: None,
                        primary_extension: None,
                        display_name: String::new(),
                        enabled: true,
                        emcc_enabled: true,
                        policy: None,
                    },
                )?;
            }
            devices::upsert(
                tx,
                &devices::Device {
                    name: "SEP1".parse().unwrap(),
                    model: "8845".to_owned(),
                    protocol: "SIP".to_owned(),
                    security_mode: SecurityMode::NonSecure,
                    emcc: true,
                    em_enabled: true,
                    device_pool: None,
                    locale: None,
                    geolocation: [("country".to_owned(), "DE".to_owned())].into(),
                    location: None,
                    services: Vec::new(),
                },
            )?;
            base_devices::upsert(tx, &"BASE1".parse().unwrap())?;
            sessions::insert(tx, &a_session(1, Role::Visiting, "tokyo", "SEP1"))?;
            sessions::insert(tx, &a_session(2, Role::Home, "tokyo", "SEP9"))
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_peer_is_added_with_its_trust_or_not_at_all() {
    let node = Node::start().await;
    let (tokyo, paris) = (certificate("tokyo"), certificate("paris"));
    node.write("tokyo.pem", &tokyo.certificate_pem);
    node.write("paris.pem", &paris.certificate_pem);
    let added = node
        .type_in("cluster add tokyo --address t.example:8444 --trust @tokyo.pem --user-pattern t*")
        .await;
    assert!(
        added.text.contains(&tokyo.fingerprint_text()),
        "{}",
        added.text
    );
    assert_eq!(node.changes.load(Ordering::SeqCst), 1);

    let again = node
        .refused("cluster add tokyo --address t.example:8444")
        .await;
    assert!(
        again.contains("exists already") && again.contains("emccd trust add tokyo"),
        "{again}"
    );
    let same = node
        .refused("cluster add osaka --address o.example:8444 --trust @tokyo.pem")
        .await;
    assert!(same.contains("tokyo") && same.contains("next: "), "{same}");
    let own = node
        .refused("cluster add osaka --address o.example:8444 --trust @own.pem")
        .await;
    assert!(own.contains("this node's own certificate"), "{own}");
    let us = node
        .refused("cluster add berlin --address b.example:8444")
        .await;
    assert!(us.contains("own ID"), "{us}");
    let leaf = node
        .refused("cluster add osaka --address o:1 --anchor @paris.pem --node-name o")
        .await;
    assert!(leaf.contains("not a certificate authority"), "{leaf}");

    let listed = node.type_in("cluster list").await;
    assert_eq!(listed.json.as_array().unwrap().len(), 1, "{}", listed.json);
    assert_eq!(listed.json[0]["user_patterns"][0], "t*");
    assert_eq!(node.changes.load(Ordering::SeqCst), 1);
    let audit = node.audit().await;
    assert_eq!(audit.len(), 1, "{audit:?}");
    assert_eq!((&*audit[0].0, &*audit[0].1), ("cluster.add", "tokyo"));
    assert!(audit[0].2.contains("(uid "), "{audit:?}");
    node.end().await;
}

#[tokio::test]
async fn trust_is_added_to_the_one_peer_it_is_for() {
    let node = Node::start().await;
    let (old, next) = (certificate("tokyo"), certificate("tokyo"));
    node.write("old.pem", &old.certificate_pem);
    node.write("next.pem", &next.certificate_pem);
    node.write("ca.pem", &authority("Corporate CA").certificate_pem);
    node.type_in("cluster add tokyo --address t:1 --trust @old.pem")
        .await;
    let added = node.type_in("trust add tokyo --pin @next.pem").await;
    assert_eq!(
        added.json["added"][0]["certificate"]["fingerprint"],
        next.fingerprint_text()
    );
    let again = node.type_in("trust add tokyo --pin @next.pem").await;
    assert_eq!(again.json["kept"], 1);
    let nobody = node.refused("trust add osaka --pin @next.pem").await;
    assert!(
        nobody.contains("no peer osaka") && nobody.contains("cluster list"),
        "{nobody}"
    );
    let nameless = node.refused("trust add tokyo --anchor @ca.pem").await;
    assert!(nameless.contains("node names"), "{nameless}");
    node.write(
        "key.pem",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    );
    let key = node.refused("trust add tokyo --pin @key.pem").await;
    assert!(key.contains("private key"), "{key}");
    let listed = node.type_in("trust list tokyo").await;
    assert_eq!(listed.json.as_array().unwrap().len(), 2);
    node.end().await;
}

#[tokio::test]
async fn a_record_changes_only_where_it_is_told_to() {
    let node = Node::start().await;
    node.type_in(
        "cluster add tokyo --address t:1 --user-pattern t* --dn-pattern 8* --description old",
    )
    .await;
    let set = node
        .type_in("cluster set tokyo --address a:1 --address b:2 --allow-emcc false --node-name n")
        .await;
    assert_eq!(
        set.json["changed"],
        serde_json::json!(["allow_emcc", "addresses", "node_names"])
    );
    assert!(set.text.contains("allow-emcc, addresses"), "{}", set.text);
    let listed = node.type_in("cluster list").await.json[0].clone();
    assert_eq!(listed["addresses"], serde_json::json!(["a:1", "b:2"]));
    assert_eq!(listed["allow_emcc"], false);
    assert_eq!(listed["enabled"], true);
    assert_eq!(listed["user_patterns"], serde_json::json!(["t*"]));
    assert_eq!(listed["description"], "old");
    assert_eq!(node.changes.load(Ordering::SeqCst), 2);

    let same = node.type_in("cluster set tokyo --description old").await;
    assert!(same.text.contains("so already"), "{}", same.text);
    let missing = node.refused("cluster set osaka --enabled false").await;
    assert!(
        missing.contains("no peer osaka") && missing.contains("cluster list"),
        "{missing}"
    );
    let address = node.refused("cluster set tokyo --address nonsense").await;
    assert!(address.contains("HOST:PORT"), "{address}");
    let audit = node.audit().await;
    assert_eq!(audit.len(), 2, "{audit:?}");
    // The newest comes first.
    assert_eq!((&*audit[0].0, &*audit[0].1), ("cluster.set", "tokyo"));
    node.end().await;
}

#[tokio::test]
async fn a_change_that_would_blur_two_peers_is_not_made() {
    let node = Node::start().await;
    node.write("ca.pem", &authority("Corporate CA").certificate_pem);
    for (peer, name) in [("tokyo", "t.example"), ("paris", "p.example")] {
        node.type_in(&format!(
            "cluster add {peer} --address {peer}:1 --anchor @ca.pem --node-name {name}"
        ))
        .await;
    }
    let taken = node
        .refused("cluster set paris --node-name p.example --node-name T.example")
        .await;
    assert!(
        taken.contains("tokyo") && taken.contains("paris"),
        "{taken}"
    );
    let socket = node.file("admin.sock").display().to_string();
    let line = [
        "emccd",
        "--socket",
        &socket,
        "cluster",
        "set",
        "paris",
        "--node-name",
        "",
    ];
    let nameless = dispatch(CommandLine::try_parse_from(line).unwrap()).await;
    let nameless = nameless.map(|r| r.text).unwrap_err().to_string();
    assert!(nameless.contains("has none"), "{nameless}");
    let line = [
        "emccd",
        "--socket",
        &socket,
        "cluster",
        "set",
        "paris",
        "--user-pattern",
        "",
    ];
    dispatch(CommandLine::try_parse_from(line).unwrap())
        .await
        .unwrap();
    let listed = node.type_in("cluster list").await.json;
    assert_eq!(listed[0]["node_names"], serde_json::json!(["p.example"]));
    node.end().await;
}

/// What goes with a certificate is named, and how many sessions end where nothing is left then.
#[tokio::test]
async fn what_was_announced_goes_with_its_certificate_and_sessions_with_the_last() {
    let node = Node::start().await;
    let (parent, child, alone) = (
        certificate("tokyo"),
        certificate("tokyo"),
        certificate("tokyo"),
    );
    node.write("parent.pem", &parent.certificate_pem);
    node.write("child.pem", &child.certificate_pem);
    node.write("alone.pem", &alone.certificate_pem);
    node.type_in("cluster add tokyo --address t:1 --trust @parent.pem")
        .await;
    node.type_in("trust add tokyo --pin @child.pem").await;
    let tokyo: ClusterId = "tokyo".parse().unwrap();
    let prints = (child.fingerprint(), parent.fingerprint());
    let put = node.store.write::<_, store::Error>(move |tx| {
        announcements::descend(tx, &tokyo, &prints.0, &prints.1)?;
        for n in [1, 2] {
            sessions::insert(tx, &a_session(n, Role::Home, "tokyo", &format!("SEP{n}")))?;
        }
        Ok(())
    });
    put.await.unwrap();
    let (parent, child) = (parent.fingerprint_text(), child.fingerprint_text());
    let remove = format!("trust remove tokyo --fingerprint {parent} --yes");
    for mode in ["refuse", "unlink"] {
        let refused = node.refused(&format!("{remove} --mode {mode}")).await;
        assert!(
            refused.contains(&format!(
                "would go as well: {child}; the 2 sessions shared with it would end"
            )) && refused.contains("--mode cascade"),
            "{refused}"
        );
    }
    node.type_in("param set end-sessions-on-revocation off")
        .await;
    let refused = node.refused(&remove).await;
    assert!(!refused.contains("shared with it"), "{refused}");
    node.type_in("param set end-sessions-on-revocation on")
        .await;
    // Another one stays.
    node.type_in("trust add tokyo --pin @alone.pem").await;
    let refused = node.refused(&remove).await;
    assert!(
        refused.contains(&child) && !refused.contains("shared with it"),
        "{refused}"
    );
    let gone = node.type_in(&format!("{remove} --mode cascade")).await;
    assert_eq!(
        (&gone.json["left"], &gone.json["sessions"]),
        (&serde_json::json!(1), &serde_json::json!(0)),
        "{}",
        gone.text
    );
    assert!(
        gone.text
            .contains(&format!("announced on its word: {child}")),
        "{}",
        gone.text
    );
    // The last one, and with it the sessions.
    let remove = format!(
        "trust remove tokyo --fingerprint {} --yes --mode cascade",
        alone.fingerprint_text()
    );
    let last = node.type_in(&remove).await;
    assert_eq!(
        (&last.json["left"], &last.json["sessions"]),
        (&serde_json::json!(0), &serde_json::json!(2)),
        "{}",
        last.text
    );
    assert!(
        last.text.contains("the 2 sessions shared with it end here"),
        "{}",
        last.text
    );
    node.end().await;
}

#[tokio::test]
async fn trust_is_taken_from_the_one_peer_and_only_once() {
    let node = Node::start().await;
    let (old, next) = (certificate("tokyo"), certificate("tokyo"));
    node.write("old.pem", &old.certificate_pem);
    node.write("next.pem", &next.certificate_pem);
    node.type_in("cluster add tokyo --address t:1 --trust @old.pem")
        .await;
    node.type_in("cluster add paris --address p:1").await;
    node.type_in("trust add tokyo --pin @next.pem").await;
    let bare = old.fingerprint_text().replace(':', "").to_lowercase();

    let other = node
        .refused(&format!("trust remove paris --fingerprint {bare} --yes"))
        .await;
    assert!(
        other.contains("there is no trust in") && other.contains("trust list"),
        "{other}"
    );
    let asked = node
        .refused(&format!("trust remove tokyo --fingerprint {bare}"))
        .await;
    assert!(asked.contains("--yes"), "{asked}");
    let before = node.changes.load(Ordering::SeqCst);
    let removed = node
        .type_in(&format!("trust remove tokyo --fingerprint {bare} --yes"))
        .await;
    assert!(
        removed.text.contains("CN=tokyo") && removed.text.contains("end"),
        "{}",
        removed.text
    );
    assert_eq!(removed.json["left"], 1);
    assert_eq!(
        removed.json["removed"][0]["certificate"]["fingerprint"],
        old.fingerprint_text()
    );
    assert_eq!(node.changes.load(Ordering::SeqCst), before + 1);
    let again = node
        .refused(&format!("trust remove tokyo --fingerprint {bare} --yes"))
        .await;
    assert!(again.contains("there is no trust in"), "{again}");
    let remove = format!(
        "trust remove tokyo --fingerprint {} --yes",
        next.fingerprint_text()
    );
    let refused = node.refused(&remove).await;
    assert!(
        refused.contains("no other entry") && refused.contains("--mode unlink"),
        "{refused}"
    );
    // What it shares would end, unless an operator has said that nothing ends so.
    assert!(!refused.contains("shared with it"), "{refused}");
    let insert = |n: u8| {
        node.store.write(move |tx| {
            sessions::insert(
                tx,
                &a_session(n.into(), Role::Home, "tokyo", &format!("SEP{n}")),
            )
        })
    };
    insert(1).await.unwrap();
    let refused = node.refused(&remove).await;
    assert!(
        refused.contains("the one session shared with it would end"),
        "{refused}"
    );
    insert(2).await.unwrap();
    let refused = node.refused(&remove).await;
    assert!(
        refused.contains("the 2 sessions shared with it would end"),
        "{refused}"
    );
    node.type_in("param set end-sessions-on-revocation off")
        .await;
    let refused = node.refused(&remove).await;
    assert!(!refused.contains("shared with it"), "{refused}");
    node.type_in("param set end-sessions-on-revocation on")
        .await;
    // Of a peer that is disabled nothing else ends.
    node.type_in("cluster set tokyo --enabled false").await;
    let refused = node.refused(&remove).await;
    assert!(
        refused.contains("no other entry; the 2 sessions shared with it would end"),
        "{refused}"
    );
    let last = node.type_in(&format!("{remove} --mode unlink")).await;
    assert!(
        last.text.contains("emccd trust add tokyo --pin FILE")
            && last.text.contains("the 2 sessions shared with it end here"),
        "{}",
        last.text
    );
    assert_eq!(last.json["sessions"], 2);
    // A slip: nothing is listed, and no authority vouches for anything of tokyo's.
    let unlisted = certificate("tokyo");
    node.write("unlisted.pem", &unlisted.certificate_pem);
    let print = unlisted.fingerprint_text();
    let remove = format!("trust remove tokyo --fingerprint {print} --yes");
    let slip = node.refused(&remove).await;
    assert!(slip.contains("there is no trust in"), "{slip}");
    // Not listed, but an authority may vouch for it; and taken back without a pin.
    node.write("ca.pem", &authority("Tokyo CA").certificate_pem);
    node.type_in("cluster set tokyo --node-name t.example")
        .await;
    node.type_in("trust add tokyo --anchor @ca.pem").await;
    let revoked = node.type_in(&remove).await;
    let unrevoke = format!("trust add tokyo --unrevoke {print}");
    assert!(
        revoked.text.contains("was not among") && revoked.text.contains(&unrevoke),
        "{}",
        revoked.text
    );
    assert_eq!(revoked.json["revoked"], true);
    let listed = node.type_in("trust list tokyo").await.text;
    let last = listed.lines().last().unwrap();
    assert!(
        last.contains("revoked") && last.contains(&print),
        "{listed}"
    );
    node.refused(&format!("trust add paris --unrevoke {print}"))
        .await;
    let before = node.changes.load(Ordering::SeqCst);
    let taken_back = node.type_in(&unrevoke).await;
    assert_eq!(taken_back.json["unrevoked"], 1);
    assert_eq!(node.changes.load(Ordering::SeqCst), before + 1);
    let listed = node.type_in("trust list tokyo").await.text;
    assert!(!listed.contains(&print), "{listed}");
    let again = node.refused(&unrevoke).await;
    assert!(again.contains("there is no revocation"), "{again}");
    // A pin takes it back as well.
    node.type_in(&remove).await;
    let added = node.type_in("trust add tokyo --pin @unlisted.pem").await;
    assert!(added.text.contains("1 had been revoked"), "{}", added.text);
    let removals = node.audit().await;
    assert_eq!(
        removals.iter().filter(|e| e.0 == "trust.remove").count(),
        4,
        "{removals:?}"
    );
    node.end().await;
}

#[tokio::test]
async fn one_authority_vouches_for_different_names_of_different_peers_only() {
    let node = Node::start().await;
    node.write("ca.pem", &authority("Corporate CA").certificate_pem);
    node.write("other.pem", &authority("Other CA").certificate_pem);
    let add = "cluster add";
    node.type_in(&format!(
        "{add} tokyo --address t:1 --anchor @ca.pem --node-name t.example"
    ))
    .await;
    node.type_in(&format!(
        "{add} paris --address p:1 --anchor @ca.pem --node-name p.example"
    ))
    .await;
    let taken = node
        .refused(&format!(
            "{add} osaka --address o:1 --anchor @ca.pem --node-name T.example"
        ))
        .await;
    assert!(
        taken.contains("tokyo") && taken.contains("osaka"),
        "{taken}"
    );
    node.type_in(&format!(
        "{add} osaka --address o:1 --anchor @other.pem --node-name t.example"
    ))
    .await;
    let listed = node.type_in("cluster list").await;
    assert_eq!(listed.json.as_array().unwrap().len(), 3);
    node.end().await;
}

#[tokio::test]
async fn long_lists_come_in_pages_and_arrive_whole() {
    let node = Node::start().await;
    with_people(&node).await;
    let users = node.type_in("user list").await;
    let users = users.json.as_array().unwrap();
    assert_eq!(users.len(), 1_203);
    assert_eq!(users[1_202]["user_id"], "user1202");
    node.end().await;
}

#[tokio::test]
async fn one_record_is_shown_with_what_hangs_on_it() {
    let node = Node::start().await;
    with_people(&node).await;
    let device = node.type_in("device show sep1").await;
    assert_eq!(device.json["device"]["name"], "SEP1");
    assert_eq!(device.json["session"]["peer"], "tokyo");
    assert!(device.text.contains("country=DE"), "{}", device.text);
    let base = node.type_in("base show BASE1").await;
    assert!(
        base.json["session"].is_null() && base.text.contains("free"),
        "{}",
        base.text
    );
    let user = node.type_in("user show USER0007").await;
    assert_eq!(user.json["user"]["user_id"], "user0007");
    assert_eq!(user.json["pin"]["is_set"], false);
    for (line, list) in [
        ("user show nobody", "emccd user list"),
        ("device show SEP7", "emccd device list"),
        ("base show BASE7", "emccd base list"),
        ("session show 7K3Q-9M2X", "emccd session list"),
    ] {
        let text = node.refused(line).await;
        assert!(
            text.contains("there is no ") && text.contains(list),
            "{text}"
        );
    }
    node.end().await;
}

#[tokio::test]
async fn every_session_can_be_reached() {
    let node = Node::start().await;
    node.store
        .write(|tx| {
            // All made at the same time; a local login's two have one id.
            (1..=600).try_for_each(|n| {
                let device = format!("SEP{n}");
                sessions::insert(tx, &a_session(n, Role::Home, "munich", &device))?;
                sessions::insert(tx, &a_session(n, Role::Visiting, "munich", &device))
            })
        })
        .await
        .unwrap();
    let some = node.type_in("session list").await;
    assert_eq!(some.json.as_array().unwrap().len(), 1_000);
    assert!(some.text.contains("only the newest 1000"));
    assert!(some.note.unwrap().contains("--limit"));
    let all = node.type_in("session list --limit 5000").await;
    assert_eq!(all.note, None);
    let found: Vec<_> = all
        .json
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            format!(
                "{}{}",
                row["device"].as_str().unwrap(),
                row["role"].as_str().unwrap()
            )
        })
        .collect();
    let expected: Vec<_> = (1..=600)
        .rev()
        .flat_map(|n| [format!("SEP{n}visiting"), format!("SEP{n}home")])
        .collect();
    assert_eq!(found, expected);
    node.end().await;
}

#[tokio::test]
async fn a_session_is_found_by_id_ref_and_phone_and_ended_once() {
    let node = Node::start().await;
    with_people(&node).await;
    let all = node.type_in("session list").await;
    assert_eq!(all.json.as_array().unwrap().len(), 2);
    let home = node.type_in("session list --role home").await;
    assert_eq!(home.json[0]["device"], "SEP9");
    let by_ref = node.type_in("session show 0000-0001").await;
    assert_eq!(by_ref.json[0]["role"], "visiting");

    let ended = node.type_in("session logout --device SEP1 --yes").await;
    assert_eq!(ended.json["session"]["state"], "ended");
    assert_eq!(ended.json["session"]["end_reason"], "operator");
    assert_eq!(ended.json["acknowledged"], false);
    let id = by_ref.json[0]["id"].as_str().unwrap();
    let again = node.refused(&format!("session logout {id} --yes")).await;
    assert!(
        again.contains("the session ended at") && again.contains("operator"),
        "{again}"
    );
    let nobody = node.refused("session logout --device SEP1 --yes").await;
    assert!(nobody.contains("there is no session on SEP1"), "{nobody}");
    let neither = node.refused("session logout what --yes").await;
    assert!(neither.contains("a UUID, or a ref"), "{neither}");
    let status = node.type_in("cluster status").await;
    assert_eq!(status.json["peers"][0]["owed_ends"], 1);
    node.end().await;
}

#[tokio::test]
async fn what_the_node_refuses_is_told_in_its_own_words() {
    let node = Node::start().await;
    let text = node.refused("cert reload").await;
    assert!(
        text.contains("why:  the key is another certificate's")
            && text.contains("next: give its own key"),
        "{text}"
    );
    node.end().await;
}

#[tokio::test]
async fn only_what_asks_a_daemon_can_wait_for_it() {
    let node = Node::start().await;
    for line in [
        "init --cluster-id berlin --dir @new",
        "run",
        "lab --once",
        "config example",
        "cert new --common-name a --name a --out @new",
        "cert csr --common-name a --name a --out @new",
        "cert show @own.pem",
        "phone logout https://h --device SEP1",
    ] {
        let failure = node
            .try_type(&format!("{line} --wait 1s"))
            .await
            .unwrap_err();
        assert_eq!(failure.exit_code(), 2, "{line}");
        assert!(
            failure.to_string().contains("leave --wait out"),
            "{line}: {failure}"
        );
    }
    assert!(!node.file("new").exists() && !node.file("new.pem").exists());
    node.type_in("cert show --wait 1s").await;
    node.type_in("cluster list --wait 1s").await;
    node.end().await;
}

#[tokio::test]
async fn files_are_applied_or_tried() {
    let node = Node::start().await;
    node.write("a.toml", "");
    let tried = node.type_in("apply @a.toml --dry-run").await;
    assert_eq!(
        (&tried.json["counts"][0]["added"], &tried.json["dry_run"]),
        (&0.into(), &true.into())
    );
    let applied = node.type_in("apply @a.toml @a.toml").await;
    assert_eq!(applied.json["counts"][0]["added"], 2);
    let unasked = node.refused("apply @a.toml --prune").await;
    assert!(unasked.contains("add --yes"), "{unasked}");
    let pruned = node.type_in("apply @a.toml --prune --yes").await;
    assert_eq!(pruned.json["counts"][0]["removed"], 2);
    // What is in place is applied, also where the node can't take it up at once.
    node.write("peers.toml", "[[peer]]\nid = \"tokyo\"\n");
    assert_eq!(
        node.type_in("apply @peers.toml").await.json["warnings"],
        serde_json::json!([])
    );
    node.cannot_follow.store(true, Ordering::SeqCst);
    let applied = node.type_in("apply @peers.toml").await;
    assert_eq!(applied.json["counts"][0]["added"], 1);
    let warned = "warning: the files are applied, and this node could not take up the peers at once: the trust store \
                  is locked";
    assert!(applied.text.contains(warned), "{}", applied.text);
    let changes = node.changes.load(Ordering::SeqCst);
    node.type_in("apply @peers.toml --dry-run").await;
    assert_eq!(node.changes.load(Ordering::SeqCst), changes);
    node.end().await;
}

#[test]
fn a_file_to_apply_may_hold_pins_and_is_not_printed() {
    let request = pb::ApplyRequest {
        files: vec![pb::ApplyFile {
            name: "a.toml".to_owned(),
            content: "pin = \"48151623\"".to_owned(),
        }],
        ..pb::ApplyRequest::default()
    };
    assert!(!format!("{request:?}").contains("4815"));
}

#[tokio::test]
async fn a_caller_whom_the_system_does_not_name_is_refused() {
    let node = Node::start().await;
    let request = tonic::Request::new(pb::ListClustersRequest {});
    let status = AdminService::list_clusters(&node.edge, request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert!(status.message().contains("who is calling"), "{status:?}");
    node.end().await;
}

#[tokio::test]
async fn a_request_beyond_the_bound_is_refused_and_the_service_goes_on() {
    let node = Node::start().await;
    let global = args::Global {
        socket: Some(node.file("admin.sock")),
        ..args::Global::default()
    };
    let mut client = client::connect(&global).await.unwrap();
    let file = |bytes: usize| pb::ApplyFile {
        name: "big".to_owned(),
        content: "#".repeat(bytes),
    };
    for bytes in [4 * 1024 * 1024 + 1, 8 * 1024 * 1024] {
        let request = pb::ApplyRequest {
            files: vec![file(bytes)],
            dry_run: true,
            ..pb::ApplyRequest::default()
        };
        let status = client.apply(request).await.unwrap_err();
        let refused = [
            tonic::Code::InvalidArgument,
            tonic::Code::OutOfRange,
            tonic::Code::ResourceExhausted,
        ];
        assert!(refused.contains(&status.code()), "{status:?}");
    }
    node.type_in("cluster list").await;
    node.end().await;
}

/// Every command that a message, a hint or the documentation tells people to type exists.
#[test]
fn no_text_names_a_command_that_does_not_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let pattern = regex::Regex::new(r"\bemccd ([a-z]+)(?: ([a-z-]+))?").unwrap();
    let command = <crate::cli::args::CommandLine as clap::CommandFactory>::command();
    let mut checked = 0;
    for path in spoken(root) {
        checked += names_known_commands(&pattern, &command, &path);
    }
    assert!(
        checked > 50,
        "only {checked} commands were found: the pattern is wrong"
    );
}

/// Every file in which people are told what to type.
fn spoken(root: &std::path::Path) -> Vec<PathBuf> {
    let mut files = vec![root.join("README.md")];
    let mut folders = ["src", "docs", "certs"]
        .map(|name| root.join(name))
        .to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs" || e == "md") {
                files.push(path);
            }
        }
    }
    files
}

/// Words that follow the program's name where it is spoken of rather than typed.
const PROSE: [&str; 16] = [
    "init wrote",
    "is",
    "process",
    "and",
    "version",
    "daemon",
    "speaks",
    "running",
    "munich",
    "audit",
    "has",
    "knows",
    "frobnicate",
    "test",
    "tests",
    // The user and the group of that name.
    "emccd",
];

fn names_known_commands(
    pattern: &regex::Regex,
    root: &clap::Command,
    path: &std::path::Path,
) -> usize {
    let text = std::fs::read_to_string(path).unwrap();
    let mut count = 0;
    for found in pattern.captures_iter(&text) {
        let (noun, verb) = (&found[1], found.get(2).map_or("", |m| m.as_str()));
        if PROSE.contains(&noun) || PROSE.contains(&format!("{noun} {verb}").as_str()) {
            continue;
        }
        let known = root.find_subcommand(noun);
        assert!(
            known.is_some(),
            "{}: `emccd {noun}` is no command",
            path.display()
        );
        let verbs = known.unwrap();
        if verbs.has_subcommands() && !verb.is_empty() && !verb.starts_with('-') {
            assert!(
                verbs.find_subcommand(verb).is_some(),
                "{}: `emccd {noun} {verb}` is no command",
                path.display()
            );
        }
        count += 1;
    }
    count
}
