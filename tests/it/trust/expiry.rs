//! Certificates that near their end: what is told, once, and that the forecast comes true.

use std::{path::Path, process::Stdio};

use serde_json::Value;

use super::{anchors::under_one_authority, *};
use crate::support::{binary, lab_of_processes};

/// The command line against that node: exit code, and what it prints on both.
async fn emccd(config: &Path, line: &str) -> (i32, String) {
    let output = tokio::process::Command::new(binary())
        .arg("--config")
        .arg(config)
        .args(line.split(' '))
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    (output.status.code().unwrap(), text)
}

async fn json(config: &Path, line: &str) -> Value {
    let (code, text) = emccd(config, &format!("--json {line}")).await;
    assert_eq!(code, 0, "{line}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{line}: {e}: {text}"))
}

/// The lines of a node's log in which that certificate is told of.
fn told_of(log: &Path, leaf: &Made) -> Vec<String> {
    let fingerprint = leaf.fingerprint_text();
    let text = std::fs::read_to_string(log).unwrap();
    let lines = text.lines().filter(|line| line.contains("expire"));
    lines
        .filter(|line| line.contains(&fingerprint))
        .map(str::to_owned)
        .collect()
}

async fn until_told(log: &Path, leaf: &Made, times: usize) -> Vec<String> {
    support::until(Duration::from_secs(20), "it is told", async || {
        let told = told_of(log, leaf);
        support::holds(told.len() >= times, &told).map(|()| told)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nears_its_end_is_told_once_with_what_to_do() {
    let mut lab = lab_of_processes(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let member = berlin.member().unwrap();
    let (config, log) = (member.config.clone(), member.log_file());
    let ending = |node: &str, days| {
        let request = tokyo.authority.request(node);
        let request = request.valid(days_from_now(-1), days_from_now(days));
        tokyo.authority.sign(&request).unwrap()
    };
    let (soon, far) = (ending("node-7", 5), ending("node-8", 170));
    pin(berlin, tokyo, &soon).await;
    let told = until_told(&log, &soon, 1).await;
    for part in [
        "ERROR",
        "owner=tokyo",
        "purpose=\"pinned\"",
        "threshold=\"7\"",
        "pinned for tokyo",
        "emccd trust add tokyo --pin FILE",
    ] {
        assert!(told[0].contains(part), "{part}: {}", told[0]);
    }
    // Looked at again, and nothing more to say; a new process says it again.
    pin(berlin, tokyo, &far).await;
    let sooner = ending("node-9", 1);
    pin(berlin, tokyo, &sooner).await;
    until_told(&log, &sooner, 1).await;
    assert_eq!(told_of(&log, &soon).len(), 1);
    assert_eq!(told_of(&log, &far).len(), 0);

    // The command line, for people and for programs.
    let day = days_from_now(30).to_string();
    let then = json(&config, &format!("trust list tokyo --as-of {day}")).await;
    let state = |leaf: &Made| {
        let all = then["entries"].as_array().unwrap();
        let entry = all
            .iter()
            .find(|e| e["certificate"]["fingerprint"] == leaf.fingerprint_text().as_str());
        entry.unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (state(&soon), state(&far)),
        ("expired".into(), "accepted".into())
    );
    let (code, text) = emccd(&config, "trust list --as-of 2100-01-01").await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("as of 2100-01-01 23:59:59Z"), "{text}");
    assert!(
        text.contains("tokyo refuses our federation certificate"),
        "{text}"
    );
    assert!(
        text.contains("we refuse this certificate of tokyo"),
        "{text}"
    );
    let (code, text) = emccd(&config, "cert show --as-of 2100-01-01").await;
    assert!(code == 0 && text.contains("expired"), "{text}");
    let own = json(&config, &format!("cert show --as-of {day}")).await;
    assert_eq!(own["certificates"][0]["then"], "valid", "{own:#}");
    for (line, why) in [
        ("trust list --as-of 2027-02-30", "no such day"),
        ("trust list --as-of soon", "no date"),
        ("cert show --as-of 2027-01-01T00:00", "no moment"),
    ] {
        let (code, text) = emccd(&config, line).await;
        assert!(code == 2 && text.contains(why), "{line}: {text}");
    }
    let (code, text) = emccd(&config, "doctor --json").await;
    let found: Value = serde_json::from_str(&text).unwrap();
    let all = found["findings"].as_array().unwrap();
    let of: Vec<_> = all
        .iter()
        .filter(|f| f["id"] == "certificate-expiry")
        .collect();
    assert_eq!((code, of.len()), (0, 2), "{found:#}");
    assert_eq!(
        (&of[0]["level"], &of[0]["subject"]),
        (&"warning".into(), &"tokyo".into())
    );

    restart(&mut lab.clusters[0]).await;
    until_told(&log, &soon, 2).await;
    lab.shut_down().await;
}

/// What is told for a day, of one peer.
async fn forecast(
    us: &Cluster,
    them: &Cluster,
    at: Option<Timestamp>,
) -> pb::ForecastTrustResponse {
    let query = pb::ForecastTrustRequest {
        cluster_id: Some(them.id.to_string()),
        as_of: at.map(|at| at.to_string()),
    };
    us.admin().await.unwrap().forecast(query).await.unwrap()
}

fn parse(text: &str) -> Timestamp {
    Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

#[tokio::test]
async fn the_forecast_of_a_link_comes_true() {
    let (lab, ..) = under_one_authority().await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    // Tokyo's leaf is for a month, berlin's own for half a year; tokyo is known by its authority alone.
    let told = forecast(berlin, tokyo, Some(days_from_now(20))).await;
    assert!(told.breaks.is_empty(), "{told:#?}");
    let told = forecast(berlin, tokyo, Some(days_from_now(60))).await;
    let [one] = told.breaks.as_slice() else {
        panic!("{told:#?}")
    };
    assert_eq!(one.whose, "theirs");
    let shown = |told: &pb::ForecastTrustResponse| {
        let all = told.alarms.iter();
        let mut all = all.filter(|a| a.owner == "tokyo" && a.purpose == "shown");
        all.next().map(|alarm| alarm.threshold.clone())
    };
    assert_eq!(
        shown(&forecast(berlin, tokyo, None).await).as_deref(),
        Some("30")
    );

    // It comes about, at that moment and no sooner.
    let clock = &berlin.member().unwrap().clock;
    let ahead = parse(&one.at).as_millis() - now().as_millis();
    clock.set_offset_millis(ahead - 3_600_000);
    linked(berlin, tokyo).await;
    clock.set_offset_millis(ahead + 1);
    rejected(berlin, tokyo, Rejection::Expired).await;
    let told = forecast(berlin, tokyo, None).await;
    assert_eq!(shown(&told).as_deref(), Some("expired"));
    assert_eq!(told.breaks.len(), 1, "{told:#?}");
    lab.shut_down().await;
}
