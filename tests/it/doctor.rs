//! `emccd doctor` as an operator types it: with a daemon that is well, with a peer that is down, and without one.

use std::{path::Path, process::Stdio};

use serde_json::Value;

use crate::support::{binary, lab_of_processes};

/// Exit code and what it prints, as JSON.
pub(crate) async fn doctor(config: &Path) -> (i32, Value) {
    let output = tokio::process::Command::new(binary())
        .arg("--config")
        .arg(config)
        .args(["doctor", "--json"])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let found = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    (output.status.code().unwrap(), found)
}

/// What it finds under one name.
pub(crate) fn of<'a>(found: &'a Value, id: &str) -> Vec<&'a Value> {
    let all = found["findings"].as_array().unwrap();
    all.iter().filter(|f| f["id"] == id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_well_a_peer_that_is_down_and_no_daemon_at_all() {
    let mut lab = lab_of_processes(2).await;
    let config = lab.clusters[0].member().unwrap().config.clone();
    let tokyo = lab.clusters[1].id.clone();
    // What the peer last told of its own link is as old as its last heartbeat.
    let is_linked = |peer: &emccd::wire::admin::PeerStatus| {
        peer.inbound
            .as_ref()
            .is_some_and(|i| i.watching && i.peer_proof_age_ms.is_some())
    };
    lab.clusters[0]
        .wait_status(&tokyo, "up from both sides", is_linked)
        .await
        .unwrap();
    let (code, found) = doctor(&config).await;
    assert_eq!((code, &found["ok"]), (0, &true.into()), "{found:#}");
    for id in [
        "daemon",
        "link",
        "clock",
        "parameters",
        "store",
        "store-lock",
        "ready",
        "port",
    ] {
        let of = of(&found, id);
        assert!(!of.is_empty(), "{id}: {found:#}");
        assert!(of.iter().all(|f| f["level"] == "ok"), "{id}: {found:#}");
    }
    assert_eq!(of(&found, "port").len(), 3, "{found:#}");

    lab.clusters[1].member_mut().unwrap().stop().await;
    let is_down = |peer: &emccd::wire::admin::PeerStatus| {
        peer.outbound
            .as_ref()
            .is_some_and(|o| o.state != "up" && o.reason.is_some())
    };
    lab.clusters[0]
        .wait_status(&tokyo, "down", is_down)
        .await
        .unwrap();
    let (code, found) = doctor(&config).await;
    assert_eq!((code, &found["ok"]), (1, &false.into()), "{found:#}");
    let link = of(&found, "link")[0];
    assert_eq!(
        (&link["level"], &link["subject"]),
        (&"error".into(), &"tokyo".into()),
        "{link:#}"
    );
    assert!(
        link["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
        "{link:#}"
    );

    lab.clusters[0].member_mut().unwrap().stop().await;
    let (code, found) = doctor(&config).await;
    assert_eq!(code, 0, "{found:#}");
    let daemon = of(&found, "daemon")[0];
    assert_eq!(daemon["level"], "warning");
    assert!(
        daemon["hint"]
            .as_str()
            .unwrap()
            .starts_with("emccd run --config"),
        "{daemon:#}"
    );
    assert!(
        of(&found, "port")
            .iter()
            .all(|f| f["text"].as_str().unwrap().ends_with("is free")),
        "{found:#}"
    );
    lab.shut_down().await;
}
