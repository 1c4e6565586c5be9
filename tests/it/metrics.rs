//! What a monitoring system sees of real nodes, over a real socket.

use std::{collections::BTreeMap, time::Duration};

use emccd::{
    lab::{Lab, member::Member},
    wire::admin as pb,
};
use regex::Regex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{self, lab, living, log_in, log_out};

/// How long what was done may take to show.
const SOON: Duration = Duration::from_secs(20);

const HOME: usize = 0;
const VISITING: usize = 1;

/// Asks the listener for figures.
async fn begin(member: &Member, path: &str) -> TcpStream {
    let address = member.addresses.metrics.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// What a path of it answers: status and body.
pub(crate) async fn ask(member: &Member, path: &str) -> (u16, String) {
    let mut stream = begin(member, path).await;
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .unwrap()
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// All samples by their name with labels, from a text that keeps the rules of the format.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let sample = Regex::new(
        r#"^([a-z][a-z0-9_]*)(\{[a-z_]+="[^"]*"(?:,[a-z_]+="[^"]*")*\})? (-?[0-9][0-9.e+-]*)$"#,
    )
    .unwrap();
    let mut families: Vec<String> = Vec::new();
    let mut samples = BTreeMap::new();
    let mut lines = text.lines();
    assert_eq!(lines.next_back(), Some("# EOF"));
    for line in lines {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            let family = described.split(' ').next().unwrap().to_owned();
            assert!(!families.contains(&family), "{family} is there twice");
            families.push(family);
        } else if !line.starts_with("# HELP ") {
            let parts = sample
                .captures(line)
                .unwrap_or_else(|| panic!("no sample: {line}"));
            let family = families.last().unwrap();
            assert!(
                parts[1].starts_with(family.as_str()),
                "{line} under {family}"
            );
            let name = format!("{}{}", &parts[1], parts.get(2).map_or("", |l| l.as_str()));
            let before = samples.insert(name, parts[3].parse().unwrap());
            assert_eq!(before, None, "{line}");
        }
    }
    samples
}

async fn scrape(lab: &Lab, cluster: usize) -> BTreeMap<String, f64> {
    let (status, text) = ask(lab.clusters[cluster].member().unwrap(), "/metrics").await;
    assert_eq!(status, 200, "{text}");
    parse(&text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_move_with_real_logins() {
    let lab = lab(2).await;
    let before = scrape(&lab, VISITING).await;
    assert_eq!(before["emccd_ready"], 1.0);
    // What has not happened yet is told all the same, so that its first time shows.
    for name in [
        "emccd_logins_total{role=\"visiting\",outcome=\"26\"}",
        "emccd_peer_calls_total{call=\"login\"}",
        "emccd_sessions{role=\"home\",state=\"active\",remote=\"yes\"}",
        "emccd_store_commit_failures_total",
    ] {
        assert_eq!(before.get(name), Some(&0.0), "{name} in {before:#?}");
    }
    assert_eq!(before["emccd_link_up{peer=\"berlin\"}"], 1.0);
    assert!(before["emccd_link_proof_age_seconds{peer=\"berlin\"}"] < 20.0);
    assert_eq!(
        before["emccd_requests_throttled_total{kind=\"login\"}"],
        0.0
    );

    let shown = log_in(&lab, HOME, 0, VISITING, 0).await;
    assert_eq!(shown.em_code, None, "{}", shown.text);
    let (user, device) = (
        &lab.clusters[HOME].data.user(1).unwrap().user_id,
        &lab.clusters[VISITING].data.phone(1).unwrap().name,
    );
    let phone = lab.clusters[VISITING].member().unwrap().phone().unwrap();
    let wrong = phone
        .login_at_once(device, None, user, "000111")
        .await
        .unwrap();
    assert_eq!(wrong.em_code, Some(2), "{}", wrong.text);

    let visiting = scrape(&lab, VISITING).await;
    let home = scrape(&lab, HOME).await;
    for (figures, role) in [(&visiting, "visiting"), (&home, "home")] {
        for outcome in ["success", "2"] {
            let name = format!("emccd_logins_total{{role=\"{role}\",outcome=\"{outcome}\"}}");
            assert_eq!(figures.get(&name), Some(&1.0), "{name} in {figures:#?}");
        }
        let name = format!("emccd_login_duration_seconds_count{{role=\"{role}\"}}");
        assert_eq!(figures[&name], 2.0);
        assert!(figures["emccd_store_commits_total"] > 0.0);
        assert!(figures["emccd_store_commit_seconds_total"] > 0.0);
        assert!(figures["emccd_certificate_expiry_seconds{identity=\"federation\"}"] > 3_600.0);
        assert!(figures["emccd_certificate_expiry_seconds{identity=\"phone\"}"] > 3_600.0);
        assert!(figures["process_resident_memory_bytes"] > 1e6);
    }
    assert_eq!(visiting["emccd_requests_handled_total"], 2.0);
    assert_eq!(visiting["emccd_requests_in_progress"], 0.0);
    assert_eq!(
        visiting["emccd_requests_admitted_total{kind=\"login\"}"],
        2.0
    );
    assert_eq!(home["emccd_requests_admitted_total{kind=\"inbound\"}"], 2.0);
    assert_eq!(home["emccd_peer_calls_total{call=\"login\"}"], 2.0);
    // A right PIN and a wrong one.
    assert!(home["emccd_pin_checks_total"] >= 2.0);
    // Rows are counted every ten seconds; home was not asked before.
    let session = "emccd_sessions{role=\"home\",state=\"active\",remote=\"yes\"}";
    assert_eq!(home.get(session), Some(&1.0), "{home:#?}");
    assert_eq!(home["emccd_base_devices{state=\"held\"}"], 1.0);

    log_out(&lab.clusters[VISITING], 0).await;
    let after = scrape(&lab, VISITING).await;
    assert_eq!(
        after["emccd_logouts_total{role=\"visiting\",by=\"phone\",outcome=\"success\"}"],
        1.0
    );
    let told = "emccd_logouts_total{role=\"home\",by=\"peer\",outcome=\"success\"}";
    assert_eq!(scrape(&lab, HOME).await[told], 1.0);
    an_end_by_home_counts_for_the_role_that_is_played(&lab).await;
    a_peer_that_is_disabled_has_no_link_to_be_up(&lab).await;
    lab.shut_down().await;
}

async fn an_end_by_home_counts_for_the_role_that_is_played(lab: &Lab) {
    let shown = log_in(lab, HOME, 1, VISITING, 1).await;
    assert_eq!(shown.em_code, None, "{}", shown.text);
    let session = living(lab, HOME).await.remove(0);
    let request = pb::LogoutSessionRequest {
        which: Some(pb::logout_session_request::Which::Id(session.id)),
    };
    let mut admin = lab.clusters[HOME].admin().await.unwrap();
    admin.logout(request).await.unwrap();
    let told =
        |role| format!("emccd_logouts_total{{role=\"{role}\",by=\"peer\",outcome=\"success\"}}");
    // Visiting is told a moment later.
    let visiting = support::until(SOON, "visiting counts it", async || {
        let visiting = scrape(lab, VISITING).await;
        let counted = visiting[&told("visiting")];
        support::holds(counted == 1.0, counted).map(|()| visiting)
    })
    .await;
    let home = scrape(lab, HOME).await;
    assert_eq!((visiting[&told("home")], home[&told("home")]), (0.0, 1.0));
}

async fn a_peer_that_is_disabled_has_no_link_to_be_up(lab: &Lab) {
    let request = pb::SetClusterRequest {
        cluster_id: lab.clusters[HOME].id.to_string(),
        enabled: Some(false),
        ..pb::SetClusterRequest::default()
    };
    let mut admin = lab.clusters[VISITING].admin().await.unwrap();
    admin.set_cluster(request).await.unwrap();
    let is_off = |peer: &pb::PeerStatus| {
        let outbound = peer.outbound.as_ref();
        outbound.is_some_and(|o| o.state == "disabled")
    };
    lab.clusters[VISITING]
        .wait_status(&lab.clusters[HOME].id, "disabled", is_off)
        .await
        .unwrap();
    let figures = scrape(lab, VISITING).await;
    let links: Vec<_> = figures
        .keys()
        .filter(|n| n.starts_with("emccd_link_"))
        .collect();
    assert_eq!(links, [""; 0]);
}

/// Every change is given up, as on a full disk; what reads, or writes nothing, is not.
async fn a_disk_that_is_full(lab: &Lab, member: &Member) {
    const FAILURES: &str = "emccd_store_commit_failures_total";
    let database = || rusqlite::Connection::open(lab.folder().join("berlin/emccd.db")).unwrap();
    let writes = "emccd_store_writes_total";
    let before = scrape(lab, 0).await;
    for _ in 0..50 {
        assert_eq!(ask(member, "/readyz").await.0, 200);
    }
    assert!(scrape(lab, 0).await[writes] < before[writes] + 20.0);
    assert_eq!(before[FAILURES], 0.0);
    let full = "CREATE TRIGGER full BEFORE UPDATE ON nodes
        BEGIN SELECT RAISE(ROLLBACK, 'database or disk is full'); END";
    database().execute_batch(full).unwrap();
    // A node's beat is written every two seconds.
    let told = until(member, 503).await;
    assert!(
        told.contains("store: what was written last did not reach the disk"),
        "{told}"
    );
    let figures = scrape(lab, 0).await;
    assert_eq!(figures["emccd_ready"], 0.0);
    assert!(figures[FAILURES] >= 1.0);
    assert_eq!(ask(member, "/healthz").await.0, 200);
    database().execute_batch("DROP TRIGGER full").unwrap();
    until(member, 200).await;
}

/// What `/readyz` says once it answers with that status.
async fn until(member: &Member, status: u16) -> String {
    support::until(SOON, format_args!("{status}"), async || {
        let (found, text) = ask(member, "/readyz").await;
        support::holds(found == status, (found, &text)).map(|()| text)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_can_not_serve_is_not_ready_and_says_why() {
    let lab = lab(1).await;
    let member = lab.clusters[0].member().unwrap();
    assert_eq!(ask(member, "/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(ask(member, "/healthz").await, (200, "alive\n".to_owned()));

    // Another program holds the database.
    let lock = std::fs::File::open(lab.folder().join("berlin/emccd.write")).unwrap();
    lock.lock().unwrap();
    let text = until(member, 503).await;
    assert!(
        text.contains("store: the store could not be written"),
        "{text}"
    );
    let held = scrape(&lab, 0).await;
    assert!(held["emccd_store_lock_wait_seconds"] > 0.5);
    // However many ask and hang up, the writer has one of them to answer.
    for _ in 0..100 {
        drop(begin(member, "/readyz").await);
    }
    let waiting = "emccd_store_waiting{access=\"write\"}";
    let after = scrape(&lab, 0).await[waiting];
    assert!(after < held[waiting] + 20.0, "{after} wait");
    lock.unlock().unwrap();
    until(member, 200).await;

    a_disk_that_is_full(&lab, member).await;

    // Its certificates have run out.
    member
        .clock
        .set_offset_millis(50 * 365 * crate::support::DAY_MILLIS);
    let (status, text) = ask(member, "/readyz?format=json").await;
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &told["ready"]), (503, &false.into()));
    let ids: Vec<_> = told["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["id"])
        .collect();
    assert_eq!(ids, ["federation-identity", "phone-identity"], "{told}");
    let figures = scrape(&lab, 0).await;
    assert_eq!(figures["emccd_ready"], 0.0);
    assert!(figures["emccd_certificate_expiry_seconds{identity=\"federation\"}"] < 0.0);
    assert_eq!(ask(member, "/healthz").await.0, 200);
    member.clock.set_offset_millis(0);
    assert_eq!(ask(member, "/readyz").await.0, 200);
    lab.shut_down().await;
}
