//! Setups that are really broken, without a daemon; and what a daemon might tell.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::*;
use crate::{
    clock::Clock,
    config::{
        example::Line,
        init::{self, InitOptions},
    },
    domain::ids::ClusterId,
    store::{self, Store},
};

const DAY_MILLIS: i64 = 86_400_000;

/// The folder of a node that has never run.
struct Node {
    dir: TempDir,
    config: PathBuf,
}

fn line(key: &'static str, value: &str) -> Line {
    Line::new(key, format!("\"{value}\""))
}

impl Node {
    fn new() -> Self {
        Self::with(Vec::new())
    }

    fn with(settings: Vec<Line>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut all = vec![
            line("federation.listen", "127.0.0.1:0"),
            line("phone.listen", "127.0.0.1:0"),
            line("metrics.listen", "127.0.0.1:0"),
        ];
        for setting in settings {
            all.retain(|other| other.key != setting.key);
            all.push(setting);
        }
        let options = InitOptions {
            cluster_id: ClusterId::new("munich").unwrap(),
            folder: dir.path().join("node"),
            port_base: init::DEFAULT_PORT_BASE,
            hosts: Vec::new(),
            settings: all,
            now: Clock::system().now(),
        };
        let config = init::create(&options).unwrap().config;
        Self { dir, config }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("node").join(name)
    }

    async fn examined(&self, days_from_now: i64) -> Vec<Finding> {
        let now = Clock::system().now().as_millis() + days_from_now * DAY_MILLIS;
        examine(
            &self.config,
            Timestamp::from_millis(now),
            async |_: &Config| Daemon::Down,
        )
        .await
    }

    /// The one error that there is, and what is told of it.
    async fn error(&self, days_from_now: i64) -> Finding {
        let found = self.examined(days_from_now).await;
        let mut errors: Vec<_> = found.iter().filter(|f| f.level == Level::Error).collect();
        assert_eq!(errors.len(), 1, "{found:#?}");
        assert!(!is_well(&found));
        errors.remove(0).clone()
    }
}

fn tells(finding: &Finding, id: &str, text: &str, hint: &str) {
    assert_eq!(finding.id, id, "{finding:?}");
    assert!(finding.text.contains(text), "{finding:?}");
    assert!(
        finding.hint.as_ref().is_some_and(|h| h.contains(hint)),
        "{finding:?}"
    );
}

#[tokio::test]
async fn a_new_node_is_well_and_does_not_run_yet() {
    let node = Node::new();
    let found = node.examined(0).await;
    assert!(is_well(&found), "{found:#?}");
    for (id, level) in [
        ("config", Level::Ok),
        ("federation-identity", Level::Ok),
        ("phone-identity", Level::Ok),
        ("pepper", Level::Ok),
        ("store", Level::Ok),
        ("daemon", Level::Warning),
    ] {
        let one = found.iter().find(|f| f.id == id);
        assert_eq!(one.map(|f| f.level), Some(level), "{id}: {found:#?}");
    }
    // What is not well says what to do.
    assert!(
        found
            .iter()
            .all(|f| (f.level == Level::Ok) == f.hint.is_none()),
        "{found:#?}"
    );
}

#[tokio::test]
async fn a_file_that_is_not_there_or_no_configuration_is_told_with_what_to_do() {
    let missing = Path::new("/nowhere/emccd.toml");
    let found = examine(missing, Timestamp::default(), async |_: &Config| {
        Daemon::Down
    })
    .await;
    tells(&found[0], "config", "/nowhere/emccd.toml", "emccd init");
    let node = Node::new();
    fs::write(&node.config, "version = 1\nclutser-id = \"x\"\n").unwrap();
    tells(
        &node.error(0).await,
        "config",
        "clutser-id",
        "emccd config check",
    );
}

#[tokio::test]
async fn a_key_or_a_pepper_that_others_can_read_is_an_error_with_its_chmod() {
    for (name, id) in [
        ("certs/federation.key", "federation-identity"),
        ("certs/phone.key", "phone-identity"),
        ("pepper.key", "pepper"),
    ] {
        let node = Node::new();
        let file = node.file(name);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let hint = format!("chmod 600 {}", file.canonicalize().unwrap().display());
        tells(&node.error(0).await, id, "", &hint);
    }
}

#[tokio::test]
async fn of_a_key_store_it_is_told_what_mends_that() {
    let node = Node::new();
    let made = std::process::Command::new("openssl")
        .args("pkcs12 -export -in phone.pem -inkey phone.key -out phone.p12".split(' '))
        .args(["-passout", "pass:changeit"])
        .current_dir(node.file("certs"))
        .output()
        .unwrap();
    assert!(made.status.success());
    let password = node.file("certs/phone.password");
    fs::write(&password, "changeit\n").unwrap();
    for file in [&password, &node.file("certs/phone.p12")] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let text = fs::read_to_string(&node.config).unwrap();
    let line = |line: &str| {
        let key = line.split(" = ").next().unwrap();
        match (key, line.contains("certs/phone")) {
            ("certificate", true) => "key-store = \"certs/phone.p12\"".to_owned(),
            ("key", true) => "key-store-password-file = \"certs/phone.password\"".to_owned(),
            _ => line.to_owned(),
        }
    };
    let lines: Vec<_> = text.lines().map(line).collect();
    fs::write(&node.config, lines.join("\n")).unwrap();
    let of_phones = |found: Vec<Finding>| found.into_iter().find(|f| f.id == "phone-identity");
    let well = of_phones(node.examined(0).await).unwrap();
    assert_eq!(well.level, Level::Ok, "{well:?}");

    // Nobody writes PEM over a store: the command does what is right for either.
    let config = config::load(&node.config).unwrap();
    let end = config.phone.identity.identity().unwrap();
    let end = end.leaf().not_after().as_millis() - Clock::system().now().as_millis();
    let soon = of_phones(node.examined(end / DAY_MILLIS - 3).await).unwrap();
    assert_eq!(soon.level, Level::Warning);
    let install = "emccd cert install --purpose phone FILE --now";
    tells(&soon, "phone-identity", "another", install);
    assert!(!soon.hint.unwrap().contains("phone.p12"));

    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    let hint = format!("chmod 600 {}", password.canonicalize().unwrap().display());
    tells(&node.error(0).await, "phone-identity", "password", &hint);
}

#[tokio::test]
async fn a_key_of_another_certificate_is_told() {
    let (node, other) = (Node::new(), Node::new());
    fs::copy(
        other.file("certs/federation.key"),
        node.file("certs/federation.key"),
    )
    .unwrap();
    tells(
        &node.error(0).await,
        "federation-identity",
        "key",
        "emccd cert new",
    );
    let node = Node::new();
    fs::remove_file(node.file("certs/phone.pem")).unwrap();
    tells(
        &node.error(0).await,
        "phone-identity",
        "no such file",
        "emccd cert new",
    );
}

#[tokio::test]
async fn a_certificate_is_warned_of_before_it_expires_and_an_error_afterwards() {
    let node = Node::new();
    let five_years = 5 * 365;
    let found = node.examined(five_years - 10).await;
    assert!(is_well(&found));
    for (id, purpose) in [
        ("federation-identity", ""),
        ("phone-identity", " --purpose phone"),
    ] {
        let soon = found.iter().find(|f| f.id == id).unwrap();
        assert_eq!(soon.level, Level::Warning);
        let next = format!("emccd cert install{purpose} FILE --now");
        tells(soon, id, "another ", &next);
    }
    let found = node.examined(five_years + 10).await;
    let expired: Vec<_> = found.iter().filter(|f| f.level == Level::Error).collect();
    assert_eq!(expired.len(), 2, "{found:#?}");
    tells(
        expired[0],
        "federation-identity",
        "expired",
        "emccd cert new --common-name munich",
    );
    tells(expired[1], "phone-identity", "expired", "--purpose phone");
}

#[tokio::test]
async fn a_port_that_another_program_has_is_told_with_the_program() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let node = Node::with(vec![line("phone.listen", &address.to_string())]);
    let error = node.error(0).await;
    tells(
        &error,
        "port",
        &format!("{address} is taken by "),
        &format!("ss -tlnp 'sport = :{}'", address.port()),
    );
    assert_eq!(error.subject.as_deref(), Some("phone.listen"));
    drop(taken);
    assert!(is_well(&node.examined(0).await));
}

#[tokio::test]
async fn a_database_of_newer_software_and_one_that_is_none_are_told() {
    let node = Node::new();
    let file = node.file("emccd.db");
    let settings = store::Config {
        url: format!("sqlite:{}", file.display()),
        node: "n1".to_owned(),
    };
    let store = Store::open(&settings).unwrap();
    assert!(is_well(&node.examined(0).await));
    let later = store.write(|tx: &mut dyn store::Transaction| {
        let sql =
            "INSERT INTO refinery_schema_history VALUES (99, 'later', '2030-01-01T00:00:00Z', '1')";
        tx.execute(sql, &[])
    });
    later.await.unwrap();
    store.close();
    tells(
        &node.error(0).await,
        "store",
        "knows versions up to",
        "newer",
    );
    fs::write(
        &file,
        "this is no database at all, and long enough to be looked at\n".repeat(99),
    )
    .unwrap();
    tells(
        &node.error(0).await,
        "store",
        "can't be looked at",
        "emccd db verify",
    );
}

/// A node whose database has been made, and belongs to it.
async fn started(node: &Node) -> Store {
    let settings = store::Config {
        url: format!("sqlite:{}", node.file("emccd.db").display()),
        node: "n1".to_owned(),
    };
    let store = Store::open(&settings).unwrap();
    let mark = crate::node::pepper_mark(&config::load(&node.config).unwrap()).unwrap();
    let written = store.write(move |tx: &mut dyn store::Transaction| {
        store::meta::put(tx, store::meta::CLUSTER_ID, "munich")?;
        store::meta::put(tx, store::meta::PEPPER_MARK, &mark)
    });
    let _: () = written.await.unwrap();
    store
}

async fn give_a_pin(store: &Store) {
    let given = store.write(|tx: &mut dyn store::Transaction| {
        let user = store::users::User {
            user_id: crate::domain::ids::UserId::new("ana").unwrap(),
            self_service_id: None,
            primary_extension: None,
            display_name: String::new(),
            enabled: true,
            emcc_enabled: true,
            policy: None,
        };
        store::users::upsert(tx, &user)?;
        let phc = store::credentials::Phc::new(
            "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA".to_owned(),
        );
        store::credentials::put_hash(tx, &user.user_id, &phc, Timestamp::default())
    });
    let _: () = given.await.unwrap();
}

#[tokio::test]
async fn a_store_of_another_cluster_or_another_pepper_is_told_as_a_start_would() {
    let node = Node::new();
    let store = started(&node).await;
    assert!(is_well(&node.examined(0).await));
    // Without a PIN any pepper will do.
    let pepper = node.file("pepper.key");
    let right = fs::read(&pepper).unwrap();
    fs::write(&pepper, [7; 32]).unwrap();
    assert!(is_well(&node.examined(0).await));
    give_a_pin(&store).await;
    let wrong = node.error(0).await;
    tells(&wrong, "pepper", "were hashed with", "from a backup");
    let of_pepper = node.examined(0).await;
    assert_eq!(of_pepper.iter().filter(|f| f.id == "pepper").count(), 1);
    fs::write(&pepper, right).unwrap();
    assert!(is_well(&node.examined(0).await));
    let other = store.write(|tx: &mut dyn store::Transaction| {
        store::meta::put(tx, store::meta::CLUSTER_ID, "paris")
    });
    let _: () = other.await.unwrap();
    tells(
        &node.error(0).await,
        "store",
        "belongs to the cluster paris",
        "store.url",
    );
}

#[tokio::test]
async fn files_that_can_not_be_written_are_told() {
    let node = Node::new();
    started(&node).await.close();
    let lock = node.file("emccd.write");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    // As a start finds it.
    let settings = store::Config {
        url: format!("sqlite:{}", node.file("emccd.db").display()),
        node: "n1".to_owned(),
    };
    Store::open(&settings).unwrap_err();
    tells(&node.error(0).await, "store-lock", "directory", "ls -l");
}

#[tokio::test]
async fn a_damaged_database_is_told_with_how_to_bring_back_a_backup() {
    let node = Node::new();
    started(&node).await.close();
    fs::write(node.file("emccd.db"), "no database\n".repeat(999)).unwrap();
    let hint = "put a backup in its place";
    tells(&node.error(0).await, "store", "can't be looked at", hint);
}

/// Answers whoever asks at a port, until it is dropped.
fn answering(answer: &'static str) -> (std::net::SocketAddr, TcpListener) {
    use std::io::{Read as _, Write as _};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, kept) = (
        listener.local_addr().unwrap(),
        listener.try_clone().unwrap(),
    );
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut asked = [0; 1_024];
            let _ = stream.read(&mut asked);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, kept)
}

#[tokio::test]
async fn what_holds_the_port_for_figures_is_not_taken_for_the_daemon() {
    const OURS: &str = "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\":false,\"cluster\":\"munich\",\
        \"node\":\"n7\",\"reasons\":[{\"id\":\"store\",\"text\":\"the disk is full\"}]}\n";
    let examined = async |answer, node_name: &str| {
        let (address, _kept) = answering(answer);
        let node = Node::with(vec![
            line("metrics.listen", &address.to_string()),
            line("node", node_name),
        ]);
        examine(&node.config, Clock::system().now(), async |_: &Config| {
            Daemon::Up(Box::default())
        })
        .await
    };
    for foreign in [
        "HTTP/1.1 200 OK\r\n\r\n<!DOCTYPE HTML>\n<html lang=\"en\">\n<head>\n",
        "HTTP/1.1 404 Not Found\r\n\r\nnot found\n",
        "HTTP/1.1 200 OK\r\n\r\nready\n",
        "220 mail.example ESMTP\r\n",
        OURS,
    ] {
        let found = examined(foreign, "n1").await;
        assert!(
            found.iter().all(|f| f.id != "ready"),
            "{foreign}: {found:#?}"
        );
        let port = found
            .iter()
            .find(|f| f.subject.as_deref() == Some("metrics.listen"));
        let port = port.unwrap();
        assert_eq!(port.level, Level::Warning, "{port:?}");
        tells(port, "port", "no figures of this node", "metrics.listen");
    }
    // The same answer from the node that is meant.
    let found = examined(OURS, "n7").await;
    let ready = found.iter().find(|f| f.id == "ready").unwrap();
    assert_eq!(
        (ready.level, &*ready.text),
        (Level::Error, "store: the disk is full")
    );
}

#[tokio::test]
async fn a_database_that_somebody_holds_is_told() {
    let node = Node::new();
    let file = node.file("emccd.db");
    let settings = store::Config {
        url: format!("sqlite:{}", file.display()),
        node: "n1".to_owned(),
    };
    Store::open(&settings).unwrap().close();
    let held = fs::File::open(file.with_extension("write")).unwrap();
    held.lock().unwrap();
    tells(&node.error(0).await, "store-lock", "write lock", "fuser -v");
}

fn up(told: Told) -> Vec<Finding> {
    let node = Node::new();
    let config = config::load(&node.config).unwrap();
    let status = pb::GetClusterStatusResponse {
        cluster_id: "munich".to_owned(),
        node: config.node.clone(),
        ..told.status
    };
    live::check(&config, &Daemon::Up(Box::new(Told { status, ..told })))
}

fn peer(state: &str, offset_ms: i64) -> pb::PeerStatus {
    pb::PeerStatus {
        cluster_id: "tokyo".to_owned(),
        enabled: true,
        outbound: Some(pb::OutboundStatus {
            state: state.to_owned(),
            reason: (state != "up").then(|| "connection refused".to_owned()),
            hint: (state != "up").then(|| "start it".to_owned()),
            clock_offset_ms: Some(offset_ms),
            ..pb::OutboundStatus::default()
        }),
        inbound: Some(pb::InboundStatus {
            watching: true,
            ..pb::InboundStatus::default()
        }),
        owed_ends: 2,
        ..pb::PeerStatus::default()
    }
}

#[test]
fn a_rotation_that_is_held_up_is_told_with_the_way_on() {
    let rotation = |problem: Option<&str>, blockers: &[&str]| Told {
        rotations: pb::ListRotationsResponse {
            rotations: vec![pb::Rotation {
                node: "n2".to_owned(),
                purpose: "federation".to_owned(),
                phase: "active".to_owned(),
                problem: problem.map(str::to_owned),
                blockers: blockers.iter().map(|b| (*b).to_owned()).collect(),
                next: Some("emccd cert rotate confirm tokyo".to_owned()),
                ..pb::Rotation::default()
            }],
        },
        ..Told::default()
    };
    let found = |told| {
        let found = up(told);
        found.into_iter().find(|f| f.id == "rotation").unwrap()
    };
    assert_eq!(found(rotation(None, &[])).level, Level::Ok);
    let held_up = found(rotation(None, &["tokyo can't be told"]));
    assert_eq!(
        (held_up.level, held_up.subject.as_deref()),
        (Level::Warning, Some("n2"))
    );
    assert!(
        held_up.text.contains("tokyo can't be told"),
        "{}",
        held_up.text
    );
    assert!(held_up.hint.unwrap().contains("rotate confirm tokyo"));
    let broken = found(rotation(Some("no space is left"), &["tokyo can't be told"]));
    assert_eq!(broken.level, Level::Error);
    assert!(broken.text.contains("no space is left"), "{}", broken.text);
}

fn levels(told: Told) -> Vec<(&'static str, Level)> {
    let found = up(told);
    found.iter().map(|f| (f.id, f.level)).collect()
}

#[test]
fn links_clocks_and_debts_are_judged() {
    let with = |peers: Vec<pb::PeerStatus>| Told {
        status: pb::GetClusterStatusResponse {
            peers,
            ..pb::GetClusterStatusResponse::default()
        },
        ..Told::default()
    };
    let well = [
        ("daemon", Level::Ok),
        ("link", Level::Ok),
        ("clock", Level::Ok),
        ("certificate-expiry", Level::Ok),
        ("parameters", Level::Ok),
    ];
    assert_eq!(levels(with(vec![peer("up", -900)])), well);
    let apart = levels(with(vec![peer("up", -2_000)]));
    assert!(apart.contains(&("clock", Level::Warning)), "{apart:?}");
    let wrong = up(with(vec![peer("up", 3_600_000)]));
    let clock = wrong.iter().find(|f| f.id == "clock").unwrap();
    tells(clock, "clock", "3600.000 s ahead of ours", "timedatectl");
    assert_eq!(
        (clock.level, clock.subject.as_deref()),
        (Level::Error, Some("tokyo"))
    );
    let down = up(with(vec![peer("down", 0)]));
    let link = down.iter().find(|f| f.id == "link").unwrap();
    tells(link, "link", "connection refused", "start it");
    assert!(
        down.iter()
            .any(|f| f.id == "owed" && f.level == Level::Warning)
    );
    let none = levels(with(Vec::new()));
    assert!(none.contains(&("link", Level::Warning)), "{none:?}");
    let mut disabled = peer("disabled", 0);
    disabled.enabled = false;
    assert!(is_well(&up(with(vec![disabled]))));
}

#[test]
fn a_step_of_the_own_clock_is_a_warning_for_a_day() {
    let with = |step: Option<pb::ClockStep>| {
        let found = up(Told {
            status: pb::GetClusterStatusResponse {
                clock_step: step,
                ..pb::GetClusterStatusResponse::default()
            },
            ..Told::default()
        });
        found.into_iter().find(|f| f.id == "clock-step")
    };
    assert!(with(None).is_none());
    let step = |ago_ms| pb::ClockStep {
        by_ms: -3_600_250,
        shown: "2026-11-22T08:00:00Z".to_owned(),
        ago_ms,
        count: 2,
    };
    let new = with(Some(step(90_000))).unwrap();
    tells(
        &new,
        "clock-step",
        "set back by 3600.250 s, 90 s ago",
        "timedatectl",
    );
    assert!(new.text.ends_with("since its start: 2"), "{}", new.text);
    assert_eq!(new.level, Level::Warning);
    let old = with(Some(step(86_400_001))).unwrap();
    assert_eq!((old.level, old.hint), (Level::Ok, None));
}

#[test]
fn what_the_other_nodes_of_the_cluster_say_is_judged_too() {
    let own = |node: &str, state: &str, reason: Option<&str>| pb::OwnLink {
        node: node.to_owned(),
        answers: node == "m1",
        state: state.to_owned(),
        reason: reason.map(str::to_owned),
        state_age_ms: None,
    };
    let told = |state: &str, others: Vec<pb::OwnLink>| {
        let mut peer = peer(state, 0);
        peer.own_links = vec![own("m1", state, None)];
        peer.own_links.extend(others);
        let node = |own: &pb::OwnLink| pb::OwnNode {
            node: own.node.clone(),
            answers: own.answers,
            lives: own.state != "silent",
            ..pb::OwnNode::default()
        };
        let status = pb::GetClusterStatusResponse {
            nodes: peer.own_links.iter().map(node).collect(),
            peers: vec![peer],
            ..pb::GetClusterStatusResponse::default()
        };
        let found = up(Told {
            status,
            ..Told::default()
        });
        let wanted = found.into_iter().filter(|f| f.level != Level::Ok);
        wanted
            .map(|f| (f.id, f.subject, f.level, f.text, f.hint))
            .collect::<Vec<_>>()
    };
    assert_eq!(told("up", vec![own("m2", "up", None)]), []);
    let warned = told(
        "up",
        vec![
            own("m2", "down", Some("no route")),
            own("m3", "silent", None),
        ],
    );
    let (id, subject, level, text, hint) = &warned[0];
    assert_eq!(
        (*id, subject.as_deref(), *level),
        ("node", Some("m3"), Level::Warning)
    );
    assert!(text.contains("no signs of life"), "{text}");
    assert_eq!(hint.as_deref(), Some("on m3: emccd doctor"));
    let (id, subject, level, text, hint) = &warned[1];
    assert_eq!(
        (*id, subject.as_deref(), *level),
        ("link", Some("tokyo"), Level::Warning)
    );
    assert_eq!(text, "down at node m2: no route");
    assert_eq!(hint.as_deref(), Some("on m2: emccd doctor"));
    assert_eq!(warned.len(), 2);
    // What is owed is told by a node that can; where none can, that is said.
    for (other, ends, owed) in [
        ("up", "; linked to it: m2", false),
        ("down", "; no node of this cluster is linked to it", true),
    ] {
        let found = told("down", vec![own("m2", other, None)]);
        let (id, _, level, text, _) = &found[0];
        assert_eq!((*id, *level), ("link", Level::Error));
        assert_eq!(*text, format!("down: connection refused{ends}"));
        assert_eq!(found.iter().any(|f| f.0 == "owed"), owed, "{found:?}");
    }
}

#[test]
fn ends_that_a_peer_refuses_to_hear_of_are_told_also_over_a_link() {
    let seen = |owed_ends, parked_ends| {
        let status = pb::GetClusterStatusResponse {
            peers: vec![pb::PeerStatus {
                owed_ends,
                parked_ends,
                ..peer("up", 0)
            }],
            ..pb::GetClusterStatusResponse::default()
        };
        let found = up(Told {
            status,
            ..Told::default()
        });
        let about = found
            .into_iter()
            .filter(|f| matches!(f.id, "owed" | "parked"));
        about.collect::<Vec<_>>()
    };
    assert!(seen(3, 0).is_empty());
    let found = seen(3, 1);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].id, found[0].level), ("parked", Level::Warning));
    assert_eq!(
        found[0].text,
        "tokyo refuses to hear of ends of sessions: 1"
    );
}

#[test]
fn a_daemon_of_another_node_and_one_that_is_silent_are_errors() {
    let node = Node::new();
    let config = config::load(&node.config).unwrap();
    let found = live::check(&config, &Daemon::Up(Box::default()));
    assert!(
        found
            .iter()
            .any(|f| f.id == "daemon" && f.level == Level::Error),
        "{found:?}"
    );
    let silent = Daemon::Silent {
        why: "it was stopped".to_owned(),
        hint: "kill -CONT".to_owned(),
    };
    tells(
        &live::check(&config, &silent)[0],
        "daemon",
        "stopped",
        "kill -CONT",
    );
}

#[test]
fn parameters_that_shut_everybody_out_are_an_error() {
    let parameter = |name: &str, value: &str| pb::Parameter {
        name: name.to_owned(),
        value: value.to_owned(),
        in_force: value.to_owned(),
        ..pb::Parameter::default()
    };
    let told = |trusted: &str| Told {
        parameters: pb::ListParametersResponse {
            parameters: vec![
                parameter("validate-ip-address", "on"),
                parameter("trusted-ips", trusted),
            ],
        },
        ..Told::default()
    };
    assert!(levels(told("none")).contains(&("parameters", Level::Error)));
    assert!(levels(told("192.0.2.1")).contains(&("parameters", Level::Ok)));
}

#[test]
fn certificates_that_end_and_lists_that_are_stale_are_told_by_how_much_they_matter() {
    let alarm = |owner: &str, threshold: &str, is_pressing| pb::CertificateAlarm {
        owner: owner.to_owned(),
        threshold: threshold.to_owned(),
        is_pressing,
        text: format!("ends ({threshold})"),
        next: "emccd trust add tokyo --pin FILE".to_owned(),
        ..pb::CertificateAlarm::default()
    };
    let crl = |is_stale, is_strict| pb::Crl {
        cluster_id: "tokyo".to_owned(),
        number: "7".to_owned(),
        is_stale,
        is_strict,
        ..pb::Crl::default()
    };
    let told = |alarms, crls| Told {
        trust: pb::ForecastTrustResponse {
            alarms,
            crls,
            ..pb::ForecastTrustResponse::default()
        },
        ..Told::default()
    };
    let of = |told: Told, id: &str| {
        let found = up(told).into_iter().filter(|f| f.id == id);
        found.map(|f| (f.level, f.subject)).collect::<Vec<_>>()
    };
    let tokyo = || Some("tokyo".to_owned());
    let alarms = vec![
        // Its own files tell of those.
        alarm("munich", "expired", true),
        alarm("tokyo", "expired", true),
        alarm("tokyo", "expired", false),
        alarm("tokyo", "1", true),
        alarm("tokyo", "90", false),
    ];
    let levels = [Level::Error, Level::Warning, Level::Warning, Level::Warning];
    assert_eq!(
        of(told(alarms, Vec::new()), "certificate-expiry"),
        levels.map(|level| (level, tokyo()))
    );
    for (crl, level) in [
        (crl(false, true), Level::Ok),
        (crl(true, false), Level::Warning),
        (crl(true, true), Level::Error),
    ] {
        assert_eq!(of(told(Vec::new(), vec![crl]), "crl"), [(level, tokyo())]);
    }
}
