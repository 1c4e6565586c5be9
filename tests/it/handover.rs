//! Nodes that stop gently, and nodes that take over from one another, while people log in: nobody notices.

use std::time::{Duration, Instant};

use emccd::{
    lab::{Cluster, Lab, Spec, member::Versions, phone::Phone},
    wire::admin::{self as pb, admin_service_client::AdminServiceClient},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::support::{holds, lab_of_processes, until};

/// How long the load runs on after the last event: what broke then shows by now.
const AFTER: Duration = Duration::from_millis(500);

/// Longer than any step may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// People who log in and out without a pause.
struct Load {
    stop: CancellationToken,
    people: JoinSet<Result<usize, String>>,
}

impl Load {
    /// `people` users of `home` on as many phones of `visiting`, all at `node` of it.
    fn begin(home: &Cluster, visiting: &Cluster, node: usize, people: usize) -> Self {
        let stop = CancellationToken::new();
        let mut all = JoinSet::new();
        for number in 0..people {
            let user = home.data.user(number).unwrap();
            let (name, pin) = (user.user_id.clone(), user.pin.clone());
            let device = visiting.data.phone(number).unwrap().name.clone();
            let phone = visiting.members[node].phone().unwrap();
            all.spawn(person(phone, device, name, pin, stop.clone()));
        }
        Self { stop, people: all }
    }

    /// How many logins there were. Each that failed, and each logout, fails the test.
    async fn end(self) -> usize {
        tokio::time::sleep(AFTER).await;
        self.stop.cancel();
        let counts: Result<Vec<usize>, String> = self.people.join_all().await.into_iter().collect();
        counts.unwrap().into_iter().sum()
    }
}

async fn person(
    phone: Phone,
    device: String,
    name: String,
    pin: String,
    stop: CancellationToken,
) -> Result<usize, String> {
    let mut logins = 0;
    while !stop.is_cancelled() {
        let began = Instant::now();
        let failed = |what: &str, cause: String| {
            format!(
                "login {logins} of {name}: {what} after {:?}: {cause}",
                began.elapsed()
            )
        };
        match phone.login_at_once(&device, None, &name, &pin).await {
            Ok(shown) if shown.em_code.is_none() => {}
            Ok(shown) => return Err(failed("refused", shown.text)),
            Err(error) => return Err(failed("no page", format!("{error:?}"))),
        }
        match phone.logout(&device).await {
            Ok(shown) if shown.em_code.is_none() => {}
            Ok(shown) => return Err(failed("logout refused", shown.text)),
            Err(error) => return Err(failed("no page at logout", format!("{error:?}"))),
        }
        logins += 1;
    }
    Ok(logins)
}

/// Whoever asks a node again and again whether it can serve, over connections of its own and over one that it keeps.
struct Balancer {
    stop: CancellationToken,
    asking: JoinSet<Result<usize, String>>,
}

impl Balancer {
    fn begin(metrics: &str) -> Self {
        let address = metrics.trim_start_matches("http://").to_owned();
        let stop = CancellationToken::new();
        let mut asking = JoinSet::new();
        for keeps in [false, true] {
            let (address, stop) = (address.clone(), stop.clone());
            asking.spawn(async move {
                let (mut answers, mut kept) = (0, None);
                while !stop.is_cancelled() {
                    let mut stream = match kept.take() {
                        Some(stream) => stream,
                        None => TcpStream::connect(&address)
                            .await
                            .map_err(|error| format!("after {answers}: {error}"))?,
                    };
                    let closes = is_ready(&mut stream)
                        .await
                        .map_err(|said| format!("after {answers}: {said}"))?;
                    kept = (keeps && !closes).then_some(stream);
                    answers += 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok(answers)
            });
        }
        Self { stop, asking }
    }

    /// Whatever was not 200 fails the test.
    async fn end(self) {
        self.stop.cancel();
        for answers in self.asking.join_all().await {
            assert!(answers.unwrap() > 10);
        }
    }
}

/// Asks for `/readyz`, and whether the other side then wants no more on this connection; what was said if not "ready".
async fn is_ready(stream: &mut TcpStream) -> Result<bool, String> {
    let request = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";
    stream
        .write_all(request)
        .await
        .map_err(|error| error.to_string())?;
    let (mut answer, mut part) = (String::new(), [0; 1_024]);
    while !answer.ends_with("\r\n\r\nready\n") {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut part)).await;
        match read.map_err(|_| "silence".to_owned())? {
            Ok(0) | Err(_) => return Err(answer),
            Ok(count) => answer.push_str(&String::from_utf8_lossy(&part[..count])),
        }
        if answer.contains("not ready") {
            return Err(answer);
        }
    }
    Ok(answer.to_lowercase().contains("connection: close"))
}

fn all_nodes_up(peer: &pb::PeerStatus) -> bool {
    peer.nodes.len() == 2 && peer.nodes.iter().all(|node| node.state == "up")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_of_a_home_cluster_is_stopped_in_turn_and_no_login_fails() {
    let mut lab = Lab::start(&Spec {
        nodes: 2,
        ..Spec::default()
    })
    .await
    .unwrap();
    let berlin = lab.clusters[0].id.clone();
    lab.clusters[1]
        .wait_status(&berlin, "up with both nodes", all_nodes_up)
        .await
        .unwrap();
    let load = Load::begin(&lab.clusters[0], &lab.clusters[1], 0, 4);
    for node in 0..2 {
        lab.clusters[0].members[node].stop().await;
        lab.clusters[0].members[node]
            .start(&Versions::default())
            .await
            .unwrap();
        lab.clusters[1]
            .wait_status(&berlin, "up with both nodes again", all_nodes_up)
            .await
            .unwrap();
    }
    let logins = load.end().await;
    assert!(logins >= 8, "{logins}");
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_the_operator_did_not_name_is_learned_and_remembered() {
    let mut lab = Lab::start(&Spec {
        nodes: 2,
        paired: false,
        ..Spec::default()
    })
    .await
    .unwrap();
    for member in &mut lab.clusters[0].members {
        // Loopback addresses are told to nobody unless the operator says so.
        member.stop().await;
        let text = std::fs::read_to_string(&member.config).unwrap();
        let address = &member.addresses.federation;
        let said = format!("[federation]\nadvertise = [\"{address}\"]");
        std::fs::write(&member.config, text.replace("[federation]", &said)).unwrap();
        member.start(&Versions::default()).await.unwrap();
    }
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let named = berlin.members[0].addresses.federation.clone();
    let unnamed = berlin.members[1].addresses.federation.clone();
    berlin.trust(tokyo).await.unwrap();
    tokyo.trust_at(berlin, vec![named.clone()]).await.unwrap();
    let learned = |peer: &pb::PeerStatus| {
        all_nodes_up(peer)
            && peer.nodes.iter().any(|n| n.address == named && !n.learned)
            && peer.nodes.iter().any(|n| n.address == unnamed && n.learned)
    };
    let id = berlin.id.clone();
    tokyo
        .wait_status(&id, "up with both nodes", learned)
        .await
        .unwrap();
    // The record is the operator's alone.
    let mut admin = client(tokyo).await;
    let clusters = admin
        .list_clusters(pb::ListClustersRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(clusters.clusters[0].addresses, std::slice::from_ref(&named));
    // It is known without being told anew: the node that told it is gone.
    for node in 0..2 {
        lab.clusters[1].members[node].stop().await;
    }
    lab.clusters[0].members[0].stop().await;
    for node in 0..2 {
        lab.clusters[1].members[node]
            .start(&Versions::default())
            .await
            .unwrap();
    }
    lab.clusters[1]
        .wait_status(&id, "up by what was learned", |peer| {
            let up = |n: &&pb::PeerNode| n.address == unnamed && n.state == "up" && n.learned;
            peer.nodes.iter().find(up).is_some()
        })
        .await
        .unwrap();
    lab.shut_down().await;
}

/// All calls of the admin service.
async fn client(cluster: &Cluster) -> AdminServiceClient<Channel> {
    let socket = &cluster.member().unwrap().addresses.admin;
    AdminServiceClient::new(emccd::wire::unix::connect(socket).await.unwrap())
}

/// What came of each action of that name, by the audit of a cluster.
async fn audited(cluster: &Cluster, action: &str) -> Vec<String> {
    let request = pb::ListAuditRequest {
        action: Some(action.to_owned()),
        ..pb::ListAuditRequest::default()
    };
    let mut admin = client(cluster).await;
    let entries = admin
        .list_audit(request)
        .await
        .unwrap()
        .into_inner()
        .entries;
    entries.into_iter().map(|entry| entry.outcome).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_processes_take_over_while_people_log_in_and_no_login_fails() {
    let mut lab = lab_of_processes(2).await;
    let load = Load::begin(&lab.clusters[0], &lab.clusters[1], 0, 4);
    let balancer = Balancer::begin(&lab.clusters[1].members[0].addresses.metrics);
    for _ in 0..2 {
        for cluster in [1, 0] {
            let member = &mut lab.clusters[cluster].members[0];
            let (config, before) = (member.config.clone(), member.pid());
            member.take_over(&config).await.unwrap();
            assert_ne!(member.pid(), before);
            assert!(member.addresses.admin.exists());
        }
    }
    balancer.end().await;
    // One that fails after it has the sockets: the port of its plain listener is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let member = &mut lab.clusters[1].members[0];
    let text = std::fs::read_to_string(&member.config).unwrap();
    let plain = format!(
        "[phone]\nplain-listen = \"{}\"",
        taken.local_addr().unwrap()
    );
    let bad = member.config.with_file_name("bad.toml");
    std::fs::write(&bad, text.replace("[phone]", &plain)).unwrap();
    let before = member.pid();
    let failed = member.take_over(&bad).await.unwrap_err();
    assert!(
        format!("{failed:#}").contains("the new process ended"),
        "{failed:#}"
    );
    assert_eq!(member.pid(), before);
    // Whoever is not this node on this store is refused, and touches nothing.
    let elsewhere = member.config.with_file_name("elsewhere.db");
    let url = text.lines().find(|l| l.starts_with("url = ")).unwrap();
    let other_store = format!("url = \"sqlite:{}\"", elsewhere.display());
    let node = text.lines().find(|l| l.starts_with("node = ")).unwrap();
    for (changed, word) in [
        (text.replace(node, "node = \"n7\""), "is node n7 of"),
        (
            text.replace("cluster-id = \"", "cluster-id = \"not-"),
            "of not-",
        ),
        (text.replace(url, &other_store), "another store"),
    ] {
        assert_ne!(changed, text);
        std::fs::write(&bad, changed).unwrap();
        let refused = format!("{:#}", member.take_over(&bad).await.unwrap_err());
        assert!(refused.contains(word), "{word}: {refused}");
    }
    assert!(
        !elsewhere.exists(),
        "a store was made for a refused process"
    );
    assert_eq!(member.pid(), before);
    let logins = load.end().await;
    assert!(logins >= 8, "{logins}");
    let told = audited(&lab.clusters[1], "node.hand-over").await;
    let count = |word: &str| told.iter().filter(|outcome| outcome.contains(word)).count();
    assert_eq!(
        (count("sent the"), count("this one ends")),
        (3, 2),
        "{told:?}"
    );
    assert_eq!(
        (count("did not start"), count("refused: ")),
        (1, 3),
        "{told:?}"
    );
    // And once more, after one that failed.
    let config = lab.clusters[1].members[0].config.clone();
    lab.clusters[1].members[0].take_over(&config).await.unwrap();
    lab.shut_down().await;
}

/// A new process of `member` that is to take over, stopped at that point.
async fn successor_at(config: &std::path::Path, point: &str) -> tokio::process::Child {
    let mut child = tokio::process::Command::new(crate::support::binary())
        .args(["run", "--take-over", "--stop-at", point, "--config"])
        .arg(config)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut events = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let said = tokio::time::timeout(PATIENCE, events.next_line()).await;
    let said = said.unwrap().unwrap().unwrap();
    assert!(said.contains(point), "{said}");
    child
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_is_stopped_before_it_serves_changes_nothing() {
    let mut lab = lab_of_processes(2).await;
    let load = Load::begin(&lab.clusters[0], &lab.clusters[1], 0, 2);
    let (config, before) = {
        let member = &lab.clusters[1].members[0];
        (member.config.clone(), member.pid())
    };
    // Asked to end while it gets ready, and another one beside it; killed then, and when it is on record already.
    let mut new = successor_at(&config, "take-over.prepared").await;
    let second = lab.clusters[1].members[0].take_over(&config).await;
    let second = format!("{:#}", second.unwrap_err());
    assert!(second.contains("is taking over already"), "{second}");
    told(&lab.clusters[1], "refused: ", 1).await;
    let pid = nix::unistd::Pid::from_raw(new.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = tokio::time::timeout(PATIENCE, new.wait()).await.unwrap();
    assert!(ended.unwrap().success());
    told(&lab.clusters[1], "did not start", 1).await;
    let mut new = successor_at(&config, "take-over.prepared").await;
    new.kill().await.unwrap();
    told(&lab.clusters[1], "did not start", 2).await;
    successor_at(&config, "take-over.joined")
        .await
        .kill()
        .await
        .unwrap();
    told(&lab.clusters[1], "before it served", 1).await;
    let logins = load.end().await;
    assert!(logins >= 2, "{logins}");
    assert_eq!(lab.clusters[1].members[0].pid(), before);
    lab.clusters[1].members[0].take_over(&config).await.unwrap();
    lab.shut_down().await;
}

/// Waits until the audit says so of so many hand-overs.
async fn told(cluster: &Cluster, word: &str, count: usize) {
    until(PATIENCE, format_args!("{count} times {word}"), async || {
        let told = audited(cluster, "node.hand-over").await;
        let found = told.iter().filter(|outcome| outcome.contains(word)).count();
        holds(found == count, &told)
    })
    .await;
}
