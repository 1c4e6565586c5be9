//! Every node's certificate exchanged again and again while phones log in and out between all clusters.

use std::path::Path;

use emccd::{lab::authority, trust::make::KeyKind};

use super::*;

/// How long the rate is measured before anything changes.
const MEASURED: Duration = Duration::from_secs(8);

/// One round: every certificate of every cluster, all clusters at once.
fn rotate_all(lab: &Lab, line: impl Fn(&Cluster, usize) -> String + Sync) {
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            for cluster in &lab.clusters {
                let line = &line;
                scope.spawn(move || {
                    for node in 0..NODES {
                        type_in(cluster, node, &line(cluster, node));
                    }
                });
            }
        });
    });
}

/// A certificate that the cluster's authority has signed for a node, in files beside its own.
fn signed(cluster: &Cluster, node: usize, key: KeyKind) -> String {
    let member = &cluster.members[node];
    let mut request = cluster.authority.request(&member.name);
    request.key = key;
    let made = cluster.authority.sign(&request).unwrap();
    let (certificate, key) = (
        member.folder.join("next.pem"),
        member.folder.join("next.key"),
    );
    authority::write(&made, &certificate, &key).unwrap();
    let shown = |path: &Path| path.display().to_string();
    format!(
        "cert rotate run --wait 2m --from {} --key-file {}",
        shown(&certificate),
        shown(&key)
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotating_every_certificate_shows_no_phone_a_failure() {
    let mut lab = three_by_two().await;
    for cluster in &lab.clusters {
        tokio::task::block_in_place(|| type_in(cluster, 0, "param set certificate-drain-time 1"));
    }
    let (mut before, mut meanwhile) = (0.0, 0.0);
    let roamers = under_load(&mut lab, async |lab, done| {
        let rate = |since: Instant, at: usize| {
            let acknowledged = done.available_permits() - at;
            f64::from(u32::try_from(acknowledged).unwrap()) / since.elapsed().as_secs_f64()
        };
        let (since, at) = (Instant::now(), done.available_permits());
        tokio::time::sleep(MEASURED).await;
        before = rate(since, at);
        let (since, at) = (Instant::now(), done.available_permits());
        // Self-signed, signed by an authority, RSA, and P-256 again.
        rotate_all(lab, |_, _| {
            "cert rotate run --wait 2m --key p256".to_owned()
        });
        rotate_all(lab, |cluster, node| signed(cluster, node, KeyKind::P256));
        rotate_all(lab, |_, _| "cert rotate run --wait 2m --key rsa".to_owned());
        rotate_all(lab, |_, _| {
            "cert rotate run --wait 2m --key p256".to_owned()
        });
        meanwhile = rate(since, at);
        all_linked(lab).await;
    })
    .await;
    for roamer in &roamers {
        assert!(roamer.failures.is_empty(), "{:#?}", roamer.failures);
        assert!(roamer.unanswered.is_empty(), "{:#?}", roamer.unanswered);
    }
    println!("{before:.1} acknowledged a second before, {meanwhile:.1} while certificates changed");
    assert!(
        meanwhile >= 0.8 * before,
        "{meanwhile:.1} of {before:.1} a second"
    );
    what_was_told_stands(&lab, &roamers).await;
    for cluster in &lab.clusters {
        let mut admin = cluster.admin().await.unwrap();
        let entries = admin.trust(Default::default()).await.unwrap().entries;
        let pinned = entries
            .iter()
            .filter(|entry| entry.kind == "pinned")
            .count();
        assert_eq!(
            pinned,
            (CLUSTERS - 1) * NODES,
            "one for each node of each peer: {entries:#?}"
        );
    }
    lab.shut_down().await;
}
