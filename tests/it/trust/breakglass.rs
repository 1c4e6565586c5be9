//! Every certificate has expired, one's own and the peers': the steps of the guide, typed as they stand there.

use std::{fs, path::Path, process::Command};

use super::*;
use crate::rotation::{request, step, until};

/// The fences below the heading, each as its lines.
fn fences(page: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let fences = section.split("\n```").skip(1).step_by(2);
    let lines = |fence: &str| fence.lines().skip(1).map(str::to_owned).collect();
    fences.map(lines).collect()
}

/// Types the lines at a node, whose files are elsewhere than the guide's. A line fails, unless it is there to look.
async fn type_all(at: &Cluster, lines: &[String], filled: &[(&str, &str)]) -> String {
    let node = at.member().unwrap();
    let binaries = support::binary().parent().unwrap().to_owned();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let mut said = String::new();
    for line in lines {
        let mut line = line.split(" #").next().unwrap().trim().to_owned();
        // In two steps, or one cluster's name would be taken for the other's.
        for (at, (word, _)) in filled.iter().enumerate() {
            line = line.replace(word, &format!("\u{1}{at}\u{1}"));
        }
        for (at, (_, value)) in filled.iter().enumerate() {
            line = line.replace(&format!("\u{1}{at}\u{1}"), value);
        }
        let (folder, config, path) = (node.folder.clone(), node.config.clone(), path.clone());
        let typed = line.clone();
        let output = tokio::task::spawn_blocking(move || {
            Command::new("sh")
                .args(["-c", &typed])
                .current_dir(folder)
                .env("PATH", path)
                .env("EMCCD_CONFIG", config)
                .env_remove("EMCCD_SOCKET")
                .output()
        });
        let output = output.await.unwrap().unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success() || line == "emccd doctor",
            "{}: {line}\n{out}\n{err}",
            at.id
        );
        said += &format!("$ {line}\n{out}\n");
    }
    said
}

#[tokio::test]
async fn with_every_certificate_expired_the_steps_of_the_guide_bring_the_link_back() {
    let lab = lab(2).await;
    let expired = prints(&lab).await;
    type_the_guide(lab, expired).await;
}

#[tokio::test]
async fn they_do_so_too_with_a_rotation_on_record_that_no_peer_has_heard_the_end_of() {
    let mut lab = lab(2).await;
    let berlin = &lab.clusters[0];
    step(berlin, request("announce", "all")).await.unwrap();
    until(berlin, "loaded", |all| {
        let accepts = |it: &pb::Rotation| it.peers.iter().all(|peer| peer.accepts);
        all.iter().any(|it| it.phase == "announced" && accepts(it))
    })
    .await;
    step(berlin, request("activate", "all")).await.unwrap();
    until(berlin, "shown", |all| {
        all.iter().any(|it| it.shown == it.new)
    })
    .await;
    let expired = prints(&lab).await;
    lab.clusters[1].member_mut().unwrap().stop().await;
    let berlin = &lab.clusters[0];
    until(berlin, "used no more", |all| {
        all.iter().any(|it| it.blockers.is_empty())
    })
    .await;
    step(berlin, request("retire", "all")).await.unwrap();
    until(berlin, "retired", |all| {
        all.iter()
            .any(|it| it.phase == "retired" && it.problem.is_none())
    })
    .await;
    type_the_guide(lab, expired).await;
}

/// What each cluster shows.
async fn prints(lab: &Lab) -> Vec<String> {
    let mut prints = Vec::new();
    for cluster in &lab.clusters {
        prints.push(fingerprint(&shown_by(cluster).await).to_owned());
    }
    prints
}

async fn type_the_guide(mut lab: Lab, expired: Vec<String>) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/certificates.md");
    let page = fs::read_to_string(page).unwrap();
    let [look, renew, exchange, tidy] = &fences(&page, "Break-glass: everything has expired")[..]
    else {
        panic!("the guide has other fences now")
    };
    // Half a year and more later, and everybody has been started anew since.
    for cluster in &mut lab.clusters {
        cluster
            .member()
            .unwrap()
            .clock
            .set_offset_millis(200 * DAY_MILLIS);
        restart(cluster).await;
    }
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let pairs = [(berlin, tokyo, &expired[1]), (tokyo, berlin, &expired[0])];
    for (us, them, old) in pairs {
        let node = us.member().unwrap();
        // All names that the old ones are for.
        let named = format!("{}.{}.test", node.name, us.id);
        let names = format!("localhost --name 127.0.0.1 --name {named}");
        let filled = [
            ("emcc.berlin.example", &*names),
            ("tokyo", them.id.as_str()),
            ("berlin", us.id.as_str()),
        ];
        let seen = type_all(us, look, &filled).await;
        assert!(seen.contains("expired"), "{seen}");
        assert!(!old.is_empty());
        type_all(us, renew, &filled).await;
        // The operators hand on the files.
        let theirs = them
            .member()
            .unwrap()
            .folder
            .join(format!("{}-new.pem", us.id));
        fs::copy(node.folder.join("new.pem"), theirs).unwrap();
    }
    for (us, them, old) in pairs {
        let filled = [("tokyo", them.id.as_str()), ("9F:86:…:0A", old.as_str())];
        type_all(us, exchange, &filled).await;
    }
    linked(berlin, tokyo).await;
    for (us, them, old) in pairs {
        let filled = [("tokyo", them.id.as_str()), ("9F:86:…:0A", old.as_str())];
        let seen = type_all(us, tidy, &filled).await;
        assert!(seen.contains("accepted"), "{seen}");
    }
    linked(berlin, tokyo).await;
    lab.shut_down().await;
}
