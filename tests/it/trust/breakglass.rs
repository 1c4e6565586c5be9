//! Every certificate has expired, one's own and the peers': the steps of the guide, typed as they stand there.

use std::{fs, path::Path, process::Command};

use super::*;

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
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/certificates.md");
    let page = fs::read_to_string(page).unwrap();
    let [look, renew, exchange, tidy] = &fences(&page, "Break-glass: everything has expired")[..]
    else {
        panic!("the guide has other fences now")
    };
    let mut lab = lab(2).await;
    let expired: Vec<_> = {
        let mut prints = Vec::new();
        for cluster in &lab.clusters {
            prints.push(fingerprint(&shown_by(cluster).await).to_owned());
        }
        prints
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
        let (certificate, key) = (
            node.federation_certificate.display().to_string(),
            node.federation_key.display().to_string(),
        );
        let phone = |ending: &str| {
            node.folder
                .join(format!("phone.{ending}"))
                .display()
                .to_string()
        };
        let (phone_certificate, phone_key) = (phone("pem"), phone("key"));
        let filled = [
            ("/etc/emccd/phone.pem", &*phone_certificate),
            ("/etc/emccd/phone.key", &*phone_key),
            ("/etc/emccd/federation.pem", &*certificate),
            ("/etc/emccd/federation.key", &*key),
            ("emcc.berlin.example", "localhost"),
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
