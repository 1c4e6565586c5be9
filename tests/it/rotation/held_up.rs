//! What holds a rotation up is named, and what is printed to lead on does.

use emccd::lab::Cluster;
use serde_json::Value;

use super::{
    all_loaded,
    operator::{type_at, until as wait_until},
    request, rotations, step, two_by_two, until,
};
use crate::support;
use emccd::wire::admin as pb;

/// What a command is refused with: why, and what to type.
async fn refused(cluster: &Cluster, line: &str) -> (String, String) {
    let said = type_at(cluster.member().unwrap(), line).await.unwrap_err();
    let begin = said.find('{').unwrap_or_else(|| panic!("{line}: {said}"));
    let said: Value = serde_json::from_str(&said[begin..]).unwrap();
    let part = |name: &str| said[name].as_str().unwrap().to_owned();
    (part("why"), part("next"))
}

/// The command in a text that has `part` in it.
fn command(text: &str, part: &str) -> String {
    let lines = text.split("emccd ").skip(1);
    let mut lines = lines.map(|rest| rest.split([';', '.', '\n']).next().unwrap().trim());
    let found = lines.find(|line| line.contains(part));
    found
        .unwrap_or_else(|| panic!("no {part}: {text}"))
        .to_owned()
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_peer_and_a_dead_node_are_named_and_what_is_printed_leads_on_without_them() {
    let mut lab = two_by_two().await;
    let (id, names) = {
        let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
        berlin.wait_all_up(&tokyo.id).await.unwrap();
        let names: Vec<_> = berlin.members.iter().map(|m| m.name.clone()).collect();
        (tokyo.id.to_string(), names)
    };
    let first = |lab: &emccd::lab::Lab| lab.clusters[0].member().unwrap().folder.clone();

    // What one node tells is of all of them.
    let berlin = &lab.clusters[0];
    wait_until("each node has said what it shows", async || {
        let all = type_at(berlin.member().unwrap(), "cert show --all-nodes").await?;
        let of = |name: &String| {
            let mut all = all.as_array().unwrap().iter();
            all.any(|it| it["node"] == **name && it["purpose"] == "federation")
        };
        names
            .iter()
            .all(of)
            .then_some(())
            .ok_or_else(|| all.to_string())
    })
    .await;
    let own = first(&lab).join("own.pem");
    let line = format!("trust export --own --out {}", own.display());
    let exported = type_at(berlin.member().unwrap(), &line).await.unwrap();
    assert_eq!(exported["certificates"], 2);
    let trusted = first(&lab).join("trusted.pem");
    let trusted = trusted.display();
    let line = format!("trust export --trusted --out {trusted}");
    type_at(berlin.member().unwrap(), &line).await.unwrap();
    wait_until("the other node's connections are told", async || {
        let line = format!("trust import {trusted} --dry-run");
        let told = type_at(berlin.member().unwrap(), &line).await?;
        let other = format!("{}: ", names[1]);
        (told.to_string().contains(&other) && told["unreported"].as_array().unwrap().is_empty())
            .then_some(())
            .ok_or_else(|| told.to_string())
    })
    .await;

    for member in &mut lab.clusters[1].members {
        member.stop().await;
    }
    let berlin = &lab.clusters[0];
    step(berlin, request("announce", "all")).await.unwrap();
    let made =
        |all: &[pb::Rotation]| all.len() == 2 && all.iter().all(|it| it.phase == "announced");
    until(berlin, "made", made).await;
    // Peers are to have what is announced, and nobody is shown it yet: so it is with the other node, too.
    wait_until("what each node has announced is exported", async || {
        let _ = std::fs::remove_file(&own);
        let line = format!("trust export --own --out {}", own.display());
        let exported = type_at(berlin.member().unwrap(), &line).await?;
        (exported["certificates"] == 4)
            .then_some(())
            .ok_or_else(|| exported.to_string())
    })
    .await;
    let shown = type_at(berlin.member().unwrap(), "cert show --all-nodes").await;
    let shown = shown.unwrap();
    for name in &names {
        let mut all = shown.as_array().unwrap().iter();
        let mut of_node = all.by_ref().filter(|it| it["node"] == **name);
        let is_of_peers = |it: &&Value| it["purpose"] != "phone";
        let of_node: Vec<_> = of_node.by_ref().filter(is_of_peers).collect();
        assert_eq!(of_node.len(), 1, "{name}: {shown}");
    }

    let line = format!("cert rotate forget {} --yes", names[1]);
    let (why, _) = refused(berlin, &line).await;
    has(&why, &["signs of life"]);

    // What is installed by hand now would not be shown.
    let member = berlin.member().unwrap();
    let asked = berlin.authority.request(&member.name);
    let signed = berlin.authority.sign(&asked).unwrap();
    let files = ["by-hand.pem", "by-hand.key"].map(|name| member.folder.join(name));
    emccd::lab::authority::write(&signed, &files[0], &files[1]).unwrap();
    let before = std::fs::read(&member.federation_certificate).unwrap();
    let line = format!(
        "--config {} cert install {} --key-file {} --without-issuers --now",
        member.config.display(),
        files[0].display(),
        files[1].display(),
    );
    let (why, next) = refused(berlin, &line).await;
    has(&why, &["is on record (announced)"]);
    has(&next, &["emccd cert rotate rollback --node"]);
    let after = std::fs::read(&member.federation_certificate).unwrap();
    assert_eq!(before, after);

    let (why, next) = refused(berlin, "cert rotate activate --node all").await;
    has(
        &why,
        &[&format!("{id} has not answered"), &names[0], &names[1]],
    );
    let overriding = command(&next, "--override");
    assert_eq!(
        overriding,
        format!("cert rotate activate --node all --override {id}")
    );

    lab.clusters[0].members[1].stop().await;
    let berlin = &lab.clusters[0];
    let member = berlin.member().unwrap();
    type_at(member, &format!("{overriding} --yes"))
        .await
        .unwrap();
    until(berlin, "shown", |all| {
        all.iter()
            .any(|it| it.node == names[0] && it.shown == it.new)
    })
    .await;
    let (why, next) = refused(berlin, "cert rotate retire --node all --yes").await;
    has(
        &why,
        &[
            &format!("{}/federation: {id} was not waited for", names[0]),
            &format!("{}/federation: the node does not show", names[1]),
        ],
    );
    let disable = command(&next, "--enabled false");
    assert_eq!(disable, format!("cluster set {id} --enabled false"));
    type_at(member, &disable).await.unwrap();
    let status = rotations(berlin).await;
    let of_dead = status.iter().find(|it| it.node == names[1]).unwrap();
    let forget = command(of_dead.next.as_ref().unwrap(), "forget");
    assert_eq!(forget, format!("cert rotate forget {}", names[1]));
    type_at(member, &format!("{forget} --yes")).await.unwrap();
    wait_until("it is retired", async || {
        type_at(member, "cert rotate retire --node all --yes").await
    })
    .await;
    until(berlin, "over", <[_]>::is_empty).await;
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_in_use_holds_up_the_end_and_a_peer_that_waits_the_beginning() {
    let lab = support::lab(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let member = berlin.member().unwrap();
    let approve = format!("cluster set {} --accept-announcements approve", berlin.id);
    type_at(tokyo.member().unwrap(), &approve).await.unwrap();

    // What comes from files is checked as what is installed.
    let signed = berlin
        .authority
        .sign(&berlin.authority.request(&member.name))
        .unwrap();
    let files = ["next.pem", "next.key"].map(|name| member.folder.join(name));
    emccd::lab::authority::write(&signed, &files[0], &files[1]).unwrap();
    let line = format!(
        "cert rotate announce --from {} --key-file {} --name other.example --without-issuers",
        files[0].display(),
        files[1].display()
    );
    type_at(member, &line).await.unwrap();
    let told = until(berlin, "told what is wrong", |all| {
        all.iter().any(|it| it.problem.is_some())
    });
    let problem = told.await[0].problem.clone().unwrap();
    has(&problem, &["it is not for other.example"]);
    step(berlin, request("rollback", "all")).await.unwrap();

    step(berlin, request("announce", "all")).await.unwrap();
    let new = until(berlin, "waiting", |all| {
        all.iter()
            .any(|it| it.peers.iter().any(|peer| peer.outcome == "waiting"))
    })
    .await[0]
        .new
        .clone()
        .unwrap();
    let hint = berlin
        .wait_status(&tokyo.id, "told that the next one waits", |peer| {
            let mut ours = peer.our_certificates.iter();
            ours.any(|ours| ours.is_next && ours.standing == "waiting" && ours.fingerprint == new)
        })
        .await
        .unwrap();
    let hint = hint
        .our_certificates
        .iter()
        .find(|ours| ours.is_next)
        .unwrap();
    assert_eq!(hint.node, member.name);
    let accept = command(hint.hint.as_ref().unwrap(), "trust accept");
    let (why, next) = refused(berlin, "cert rotate activate").await;
    has(
        &why,
        &[&format!("{} keeps it until its operator agrees", tokyo.id)],
    );
    has(&next, &[&format!("emccd trust accept {}", berlin.id)]);

    // Nobody agrees to what was not shown.
    let unseen = pb::AcceptTrustRequest {
        cluster_id: berlin.id.to_string(),
        shown: Some(pb::TextList {
            values: vec!["ab".repeat(32)],
        }),
        ..pb::AcceptTrustRequest::default()
    };
    let changed = tokyo.admin().await.unwrap().accept_trust(unseen).await;
    let changed = format!("{:#}", changed.unwrap_err());
    has(&changed, &["is not what was shown", &new]);
    type_at(tokyo.member().unwrap(), &accept).await.unwrap();
    until(berlin, "loaded", all_loaded).await;

    type_at(member, "cert rotate activate").await.unwrap();
    until(berlin, "shown", |all| {
        all.iter()
            .any(|it| it.shown == it.new && !it.in_use.is_empty())
    })
    .await;
    let (why, next) = refused(berlin, "cert rotate retire --yes").await;
    has(&why, &["in use: a connection of tokyo from"]);
    let drain = command(&next, "certificate-drain-time 0");
    type_at(member, &drain).await.unwrap();
    wait_until("it is retired", async || {
        type_at(member, "cert rotate retire --yes").await
    })
    .await;
    until(berlin, "over", <[_]>::is_empty).await;
    lab.shut_down().await;
}
