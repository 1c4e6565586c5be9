//! Strangers become peers: by the commands that operators type, with each way in which it must not come about, with
//! something in between, and with either side killed on the way.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use emccd::{
    lab::{Cluster, Hosting, Lab, Spec},
    pairing::token::Token,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    time::timeout,
};

use crate::support::{self, binary, log_in_at};

mod between;
mod crash;
mod proved;
mod refused;

/// How long something may take that usually takes a moment, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Clusters that run and don't know each other.
async fn strangers(clusters: usize, nodes: usize, hosting: Hosting) -> Lab {
    let spec = Spec {
        clusters,
        nodes,
        hosting,
        paired: false,
        ..Spec::default()
    };
    Lab::start(&spec).await.unwrap()
}

fn socket(cluster: &Cluster) -> String {
    let socket = &cluster.member().unwrap().addresses.admin;
    socket.to_str().unwrap().to_owned()
}

fn address(cluster: &Cluster) -> &str {
    &cluster.member().unwrap().addresses.federation
}

/// Types a command at a cluster; nobody is at the terminal.
async fn typed(cluster: &Cluster, words: &[&str], input: &str) -> Output {
    let mut child = Command::new(binary())
        .args(["--socket", &socket(cluster)])
        .args(words)
        .env_remove("EMCCD_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Most commands don't read it, and may be gone by now.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    timeout(LIMIT, child.wait_with_output())
        .await
        .unwrap()
        .unwrap()
}

/// The same, for its document.
async fn json(cluster: &Cluster, words: &[&str], input: &str) -> Value {
    let output = typed(cluster, &[words, &["--json"]].concat(), input).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The same, for what it complains of.
async fn refused(cluster: &Cluster, words: &[&str], input: &str) -> String {
    let output = typed(cluster, words, input).await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words:?}: {error}");
    assert!(error.contains("  next: "), "{error}");
    error
}

/// An invitation, and its ID.
async fn invited(cluster: &Cluster, more: &[&str]) -> (String, String) {
    let words = [
        "cluster",
        "invite",
        "--no-wait",
        "--address",
        address(cluster),
    ];
    let made = json(cluster, &[&words, more].concat(), "").await;
    let text = made["invitation"].as_str().unwrap().to_owned();
    let id = made["pairing"]["id"].as_str().unwrap().to_owned();
    (text, id)
}

/// Words of `cluster join` that come back as soon as there are words to compare.
fn join_words(cluster: &Cluster) -> [&str; 5] {
    [
        "cluster",
        "join",
        "--no-wait",
        "--address",
        address(cluster),
    ]
}

/// How one pairing stands.
async fn standing(cluster: &Cluster, verb: &str, id: &str) -> Value {
    let all = json(cluster, &["cluster", verb, "--list"], "").await;
    let all = all.as_array().unwrap();
    all.iter().find(|one| one["id"] == id).unwrap().clone()
}

/// Waits until it stands so.
async fn until(cluster: &Cluster, verb: &str, id: &str, state: &str) -> Value {
    support::until(LIMIT, format_args!("{verb} {id}: {state}"), async || {
        let now = standing(cluster, verb, id).await;
        support::holds(now["state"] == state, &now).map(|()| now)
    })
    .await
}

/// Has an operator confirm that the other one has read these words, and not wait.
async fn confirmed(cluster: &Cluster, verb: &str, id: &str, words: &str) {
    let line = [
        "cluster",
        verb,
        "--confirm",
        id,
        "--no-wait",
        "--yes",
        "--words",
        words,
    ];
    json(cluster, &line, "").await;
}

/// An operator at a terminal.
struct Operator {
    process: Child,
    screen: String,
}

impl Operator {
    fn types(cluster: &Cluster, words: &str) -> Self {
        let line = format!(
            "{} --socket {} {words}",
            binary().display(),
            socket(cluster)
        );
        let process = Command::new("script")
            .args(["-qefc", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            process,
            screen: String::new(),
        }
    }

    /// What stands on the screen, once `text` does.
    async fn sees(&mut self, text: &str) -> String {
        let looking = async {
            while !self.screen.contains(text) {
                let mut piece = [0; 4096];
                let out = self.process.stdout.as_mut().unwrap();
                let read = out.read(&mut piece).await.unwrap();
                assert_ne!(read, 0, "{}", self.screen);
                self.screen += &String::from_utf8_lossy(&piece[..read]);
            }
        };
        assert!(timeout(LIMIT, looking).await.is_ok(), "{}", self.screen);
        self.screen.clone()
    }

    async fn answers(&mut self, text: &str) {
        let stdin = self.process.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).await.unwrap();
        stdin.flush().await.unwrap();
    }

    async fn outcome(mut self) -> String {
        let mut rest = String::new();
        let out = self.process.stdout.as_mut().unwrap();
        timeout(LIMIT, out.read_to_string(&mut rest))
            .await
            .unwrap()
            .unwrap();
        let status = timeout(LIMIT, self.process.wait()).await.unwrap().unwrap();
        self.screen += &rest;
        assert!(status.success(), "{}", self.screen);
        self.screen
    }
}

fn words_on(screen: &str) -> String {
    let line = screen.lines().find_map(|line| line.strip_prefix("words: "));
    line.unwrap().trim().to_owned()
}

/// A line of a terminal, cut by nothing.
fn invitation_on(screen: &str) -> String {
    let line = screen.lines().find(|line| line.starts_with("emcc1-"));
    line.unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_become_peers_when_both_operators_confirm() {
    let lab = strangers(2, 1, Hosting::InProcess).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    // Nobody has said where others reach it.
    let nowhere = refused(berlin, &["cluster", "invite", "--no-wait"], "").await;
    assert!(nowhere.contains("--address HOST:PORT"), "{nowhere}");
    let invite = format!(
        "cluster invite --name Berlin --address {} --address 127.0.0.1:9",
        address(berlin)
    );
    let mut inviting = Operator::types(berlin, &invite);
    let screen = inviting.sees("Waiting for it").await;
    let text = invitation_on(&screen);
    let join = format!("cluster join --name Tokyo --address {}", address(tokyo));
    let mut joining = Operator::types(tokyo, &join);
    joining.sees("Paste the invitation").await;
    joining.answers(&format!("{text}\n")).await;
    let (here, there) = (inviting.sees("[y/N]").await, joining.sees("[y/N]").await);
    assert_eq!(words_on(&here), words_on(&there));
    for screen in [&here, &there] {
        assert!(screen.contains("a loopback address"), "{screen}");
    }
    assert!(there.contains("127.0.0.1:9: NOT BELIEVED"), "{there}");
    assert!(here.contains("Tokyo") && there.contains("Berlin"));
    // One of them alone changes nothing.
    joining.answers("y\n").await;
    joining.sees("Waiting for the other operator").await;
    for cluster in [berlin, tokyo] {
        let peers = json(cluster, &["cluster", "list"], "").await;
        assert_eq!(peers.as_array().unwrap().len(), 0);
    }
    inviting.answers("y\n").await;
    for operator in [inviting, joining] {
        let screen = operator.outcome().await;
        assert!(
            screen.contains("the link is up in both directions"),
            "{screen}"
        );
    }
    let peers = json(tokyo, &["cluster", "list"], "").await;
    assert_eq!(peers[0]["addresses"], serde_json::json!([address(berlin)]));
    assert_eq!(peers[0]["description"], "Berlin");
    berlin.wait_linked(&tokyo.id).await.unwrap();
    let shown = log_in_at(berlin, 0, tokyo, 0).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    // The secret is in no row and no file; what stays says who did what.
    let audit = json(berlin, &["audit", "list"], "").await.to_string();
    for action in [
        "pairing.invite",
        "pairing.join",
        "pairing.confirm",
        "cluster.add",
    ] {
        assert!(audit.contains(action), "{audit}");
    }
    // It is used up.
    let again = refused(tokyo, &join_words(tokyo), &text).await;
    assert!(
        again.contains("not open") || again.contains("used"),
        "{again}"
    );
}

/// Each node of each cluster is known to all of the other one: what one node tells, it tells for all.
#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_of_both_clusters_are_paired_at_once() {
    let lab = strangers(2, 2, Hosting::InProcess).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let second = |cluster: &Cluster| cluster.members[1].addresses.federation.clone();
    let (text, id) = invited(berlin, &["--address", &second(berlin)]).await;
    // The first address leads nowhere any more: another node is as good.
    let mut token = Token::read(&text).unwrap();
    assert_eq!(token.leaves.len(), 2);
    token.addresses[0] = "127.0.0.1:9".parse().unwrap();
    let mut join = join_words(tokyo).to_vec();
    let other = second(tokyo);
    join.extend(["--address", &other]);
    join.push("--json");
    // The other node takes a moment to hear of the invitation.
    let joined = support::until(LIMIT, "open to who joins", async || {
        let output = typed(tokyo, &join, &token.text()).await;
        let error = String::from_utf8_lossy(&output.stderr);
        support::holds(!error.contains("is not open to anybody who joins"), &error)?;
        assert!(output.status.success(), "{error}");
        Ok(serde_json::from_slice::<Value>(&output.stdout).unwrap())
    })
    .await;
    let words = joined["words"].as_str().unwrap();
    for (cluster, verb) in [(berlin, "invite"), (tokyo, "join")] {
        let seen = until(cluster, verb, &id, "told").await;
        assert_eq!(seen["certificates"].as_array().unwrap().len(), 2, "{seen}");
        for address in seen["addresses"].as_array().unwrap() {
            assert_eq!(address["trouble"], Value::Null, "{seen}");
        }
        confirmed(cluster, verb, &id, words).await;
    }
    until(tokyo, "join", &id, "done").await;
    berlin.wait_all_up(&tokyo.id).await.unwrap();
    tokyo.wait_all_up(&berlin.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_told_to_be_one_and_takes_more_certificates_when_asked() {
    let lab = strangers(2, 1, Hosting::InProcess).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    for update in [false, true] {
        let (text, id) = invited(berlin, &[]).await;
        let joined = json(tokyo, &join_words(tokyo), &text).await;
        assert_eq!(joined["is_peer"], update, "{joined}");
        let words = joined["words"].as_str().unwrap();
        let mut more = vec!["--no-wait"];
        if update {
            for (cluster, verb) in [(berlin, "invite"), (tokyo, "join")] {
                let line = ["cluster", verb, "--confirm", &id, "--yes", "--words", words];
                let told = refused(cluster, &line, "").await;
                assert!(told.contains("is a peer already"), "{told}");
                assert!(told.contains("--update"), "{told}");
            }
            more.push("--update");
        }
        let line = [
            "cluster",
            "invite",
            "--confirm",
            &id,
            "--yes",
            "--words",
            words,
        ];
        json(berlin, &[&line[..], &more].concat(), "").await;
        let line = [
            "cluster",
            "join",
            "--confirm",
            &id,
            "--yes",
            "--words",
            words,
        ];
        json(tokyo, &[&line[..], &more].concat(), "").await;
        until(berlin, "invite", &id, "done").await;
        until(tokyo, "join", &id, "done").await;
    }
    berlin.wait_linked(&tokyo.id).await.unwrap();
}
