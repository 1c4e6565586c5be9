//! A lab that stays up: another program joins in with what `ready` says, and it ends when it should. And several
//! nodes of one cluster.

use std::path::PathBuf;

use emccd::lab::{
    Lab, Spec,
    phone::{Phone, Shown},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout},
};

use super::*;
use crate::support::{living, stranger::Client};

/// A lab that stays up.
struct Staying {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    ready: Value,
}

impl Staying {
    async fn start(arguments: &str) -> Self {
        let mut child = command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lab = Self {
            child,
            lines,
            ready: Value::Null,
        };
        lab.ready = lab.next().await;
        lab
    }

    async fn next(&mut self) -> Value {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.expect("no line came").unwrap().expect("the lab ended");
        serde_json::from_str(&line).unwrap()
    }

    /// Reads on until that step is done.
    async fn until(&mut self, last: &str) {
        loop {
            let step = self.next().await;
            assert_eq!(step["ok"], true, "{step}");
            if step["step"] == last {
                return;
            }
        }
    }

    fn close_input(&mut self) {
        drop(self.child.stdin.take().unwrap());
    }

    fn signal(&self, which: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), which).unwrap();
    }

    /// Waits until it has ended by itself: with 0, and with nothing left behind.
    async fn ended(mut self) {
        let status = timeout(ENDS, self.child.wait()).await;
        let status = status.expect("the lab did not end").unwrap();
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).await.unwrap();
        assert_eq!((status.code(), &*said), (Some(0), ""));
        for cluster in self.ready["clusters"].as_array().unwrap() {
            let ca_file = text(cluster, "ca_file");
            assert!(!Path::new(ca_file).exists(), "{ca_file} was left behind");
            for node in cluster["nodes"].as_array().unwrap() {
                let address: std::net::SocketAddr = text(node, "federation").parse().unwrap();
                let listening = std::net::TcpStream::connect(address);
                assert!(listening.is_err(), "somebody still listens on {address}");
            }
        }
    }
}

/// What a program finds in `ready` about one cluster.
struct Found {
    phones: Vec<Phone>,
    sockets: Vec<PathBuf>,
    device: String,
    user_id: String,
    pin: String,
}

fn found(ready: &Value, cluster: usize) -> Found {
    let cluster = &ready["clusters"][cluster];
    let ca = std::fs::read_to_string(text(cluster, "ca_file")).unwrap();
    let nodes = cluster["nodes"].as_array().unwrap();
    let devices = cluster["devices"].as_array().unwrap();
    let device = devices
        .iter()
        .find(|d| d["emcc"] == true && d["em_enabled"] == true)
        .unwrap();
    let user = &cluster["users"][0];
    Found {
        phones: nodes
            .iter()
            .map(|node| Phone::https(text(node, "phone"), &ca).unwrap())
            .collect(),
        sockets: nodes
            .iter()
            .map(|node| text(node, "admin_socket").into())
            .collect(),
        device: text(device, "name").to_owned(),
        user_id: text(user, "user_id").to_owned(),
        pin: text(user, "pin").to_owned(),
    }
}

/// What an operator reads about sessions through a socket of `ready`.
async fn sessions(socket: &Path) -> Vec<Value> {
    let output = Command::new(binary())
        .args(["session", "list", "--json", "--socket"])
        .arg(socket)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn another_program_joins_in_with_what_ready_says() {
    let mut lab = Staying::start("--json").await;
    lab.until(documented().last().unwrap()).await;
    let (home, visiting) = (found(&lab.ready, 0), found(&lab.ready, 1));
    let phone = &visiting.phones[0];
    let shown = phone
        .login(&visiting.device, None, &home.user_id, &home.pin)
        .await
        .unwrap();
    assert_eq!(shown.headline(), "Login successful", "{}", shown.body);
    for (socket, role) in [
        (&home.sockets[0], "home"),
        (&visiting.sockets[0], "visiting"),
    ] {
        let sessions = sessions(socket).await;
        assert_eq!(sessions.len(), 1, "{sessions:?}");
        assert_eq!(text(&sessions[0], "user_id"), home.user_id);
        assert_eq!(text(&sessions[0], "role"), role);
    }
    let shown = phone.logout(&visiting.device).await.unwrap();
    assert_eq!(shown.headline(), "Logout successful", "{}", shown.body);
    assert!(sessions(&home.sockets[0]).await.is_empty());
    lab.close_input();
    lab.ended().await;
}

/// Both ways round: `ready` makes a program a peer of any cluster, with what it says and nothing else.
#[tokio::test]
async fn a_foreign_peer_joins_in_with_what_ready_says() {
    let mut lab = Staying::start("--json").await;
    lab.until(documented().last().unwrap()).await;
    for (called, calling) in [(0, 1), (1, 0)] {
        let (called, calling) = (
            &lab.ready["clusters"][called],
            &lab.ready["clusters"][calling],
        );
        let node = &called["nodes"][0];
        let own = &calling["client_identity"];
        let client = Client::at(text(node, "federation"), Path::new(text(called, "ca_file")))
            .showing(
                Path::new(text(own, "cert_file")),
                Path::new(text(own, "key_file")),
            )
            .with("--version", "1.1");
        let peer = client.with("--cluster-id", text(calling, "cluster_id"));
        let hello = peer.call(&["hello"]).await;
        assert_eq!(
            hello["response"]["clusterId"], called["cluster_id"],
            "{hello}"
        );
        assert_eq!(hello["response"]["node"], node["name"], "{hello}");
        for (cluster, ownership) in [(called, "OWNERSHIP_MINE"), (calling, "OWNERSHIP_NOT_MINE")] {
            let user = &cluster["users"][0];
            for (name, login_type) in [("user_id", "UID"), ("self_service_id", "SP")] {
                let found = peer
                    .call(&["find-user", text(user, name), login_type])
                    .await;
                assert_eq!(found["response"]["ownership"], ownership, "{name}: {found}");
            }
        }
        // The identity is what counts: without it the same call is refused.
        let nobody = Client::at(text(node, "federation"), Path::new(text(called, "ca_file")))
            .showing_nothing()
            .with("--cluster-id", text(calling, "cluster_id"));
        let refused = nobody.call(&["hello"]).await;
        assert_eq!(
            refused["error_info"]["reason"], "NO_CLIENT_CERTIFICATE",
            "{refused}"
        );
    }
    lab.close_input();
    lab.ended().await;
}

#[tokio::test]
async fn it_ends_with_its_input_even_in_the_middle_of_its_steps() {
    let mut lab = Staying::start("--json --processes").await;
    lab.close_input();
    lab.ended().await;
}

#[tokio::test]
async fn it_ends_on_a_signal() {
    for which in [
        nix::sys::signal::Signal::SIGTERM,
        nix::sys::signal::Signal::SIGINT,
    ] {
        let mut lab = Staying::start("--json --clusters 1").await;
        lab.until(documented_alone().last().unwrap()).await;
        lab.signal(which);
        lab.ended().await;
    }
}

async fn log_in(lab: &Lab, node: usize, user: usize, device: &str) -> Shown {
    let (home, visiting) = (&lab.clusters[0], &lab.clusters[1]);
    let user = home.data.user(user).unwrap();
    let phone = visiting.members[node].phone().unwrap();
    phone
        .login(device, None, &user.user_id, &user.pin)
        .await
        .unwrap()
}

#[tokio::test]
async fn two_nodes_on_one_database_are_one_cluster() {
    let spec = Spec {
        nodes: 2,
        ..Spec::default()
    };
    let mut lab = Lab::start(&spec).await.unwrap();
    for (login, logout) in [(0, 1), (1, 0)] {
        let (device, other) = {
            let data = &lab.clusters[1].data;
            (
                data.phone(0).unwrap().name.clone(),
                data.phone(1).unwrap().name.clone(),
            )
        };
        let shown = log_in(&lab, login, 0, &device).await;
        assert_eq!(shown.em_code, None, "{}", shown.body);
        // The other node knows who is on the phone at once, and takes the user's next phone.
        let visiting = &lab.clusters[1];
        let question = visiting.members[logout]
            .phone()
            .unwrap()
            .login_form(&device, None)
            .await;
        assert_eq!(question.unwrap().prompt, "Log out?");
        let shown = log_in(&lab, logout, 1, &other).await;
        assert_eq!(shown.em_code, None, "{}", shown.body);
        for member in lab.clusters.iter().flat_map(|cluster| &cluster.members) {
            let living = member.admin().await.unwrap().living().await.unwrap();
            assert_eq!(living.len(), 2, "{}: {living:?}", member.name);
        }
        for (node, device) in [(logout, &device), (login, &other)] {
            let phone = visiting.members[node].phone().unwrap();
            let shown = phone.logout(device).await.unwrap();
            assert_eq!(shown.headline(), "Logout successful", "{}", shown.body);
        }
        assert!(living(&lab, 0).await.is_empty() && living(&lab, 1).await.is_empty());
    }
    // One of home's nodes ends: the other serves.
    let visiting = lab.clusters[1].id.clone();
    lab.clusters[0].members[0].stop().await;
    lab.clusters[0].members[1]
        .admin()
        .await
        .unwrap()
        .wait_status(&visiting, "up", |p| {
            p.outbound.as_ref().is_some_and(|o| o.state == "up")
        })
        .await
        .unwrap();
    let device = lab.clusters[1].data.phone(0).unwrap().name.clone();
    for node in [0, 1] {
        let shown = log_in(&lab, node, 0, &device).await;
        assert_eq!(shown.em_code, None, "by node {node}: {}", shown.body);
        let phone = lab.clusters[1].members[node].phone().unwrap();
        assert_eq!(
            phone.logout(&device).await.unwrap().headline(),
            "Logout successful"
        );
    }
    lab.shut_down().await;
}

#[tokio::test]
async fn the_lab_of_two_nodes_says_so() {
    let mut lab = Staying::start("--json --clusters 1 --nodes 2 --processes").await;
    check_ready(&lab.ready, 1, 2);
    // Until then the lab's users and phones are its own.
    lab.until("phone-disabled").await;
    let cluster = found(&lab.ready, 0);
    let shown = cluster.phones[0]
        .login_at_once("SEP000100000005", None, &cluster.user_id, &cluster.pin)
        .await
        .unwrap();
    assert_eq!(shown.em_code, None, "{}", shown.body);
    let shown = cluster.phones[1].logout("SEP000100000005").await.unwrap();
    assert_eq!(shown.headline(), "Logout successful", "{}", shown.body);
    lab.close_input();
    lab.ended().await;
}
