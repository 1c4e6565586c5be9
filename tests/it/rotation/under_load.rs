//! Rotations while people log in and out: nobody notices, and it hardly gets slower.

use std::{collections::BTreeSet, time::Duration};

use emccd::{
    lab::{Cluster, Hosting, Lab, Spec, member::Member},
    trust::{certificate::Certificate, make},
    wire::admin as pb,
};

use super::{
    load::{Load, Rate},
    operator::{self, How, accepted, shown, until, until_agreed, until_linked},
};
use crate::support::{binary, is_long};

/// How long it is looked on between rotations.
const STEADY: Duration = Duration::from_millis(1_500);
/// How often all of them are done at most: where the cores are others' too, one time alone says little of the pace.
const MOST: usize = 3;
/// Which share of the pace between rotations is left during them.
const SHARE: f64 = 0.8;

/// What the nodes are to show next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// What an authority has signed.
    Signed,
    /// An RSA key.
    Rsa,
    /// A P-256 key again.
    P256,
}

/// Three clusters of two nodes that sign for themselves.
async fn of_their_own_hands() -> Lab {
    let lab = Lab::start(&Spec {
        clusters: 3,
        nodes: 2,
        hosting: Hosting::Processes { binary: binary() },
        paired: false,
        ..Spec::default()
    })
    .await
    .unwrap();
    for cluster in &lab.clusters {
        for member in &cluster.members {
            let asked = cluster.authority.request(&member.name);
            let made = make::self_signed(&asked).unwrap();
            member.install(&made).unwrap();
            let mut admin = member.admin().await.unwrap();
            admin.reload(pb::ReloadIdentitiesRequest {}).await.unwrap();
        }
    }
    lab.pair_all().await.unwrap();
    lab
}

/// Has both nodes of a cluster exchange their certificates, and waits until nothing is left to be done.
async fn rotate(cluster: &Cluster, next: Next) {
    let key = |kind| How {
        key: Some(kind),
        ..How::default()
    };
    for member in &cluster.members {
        let how = match next {
            Next::Signed => signed(cluster, member),
            Next::Rsa => key("rsa"),
            Next::P256 => key("p256"),
        };
        operator::announce_automatic(member, &how).await;
    }
    let first = cluster.member().unwrap();
    let what = format!("{} has rotated to {next:?}", cluster.id);
    until(&what, async || {
        // Seldom: the looks are not to take the cores that are measured.
        tokio::time::sleep(Duration::from_millis(200)).await;
        operator::nothing_on_record(first)
    })
    .await;
}

/// What the cluster's authority has signed, in files of the node.
fn signed(cluster: &Cluster, member: &Member) -> How {
    let asked = cluster.authority.request(&member.name);
    let made = cluster.authority.sign(&asked).unwrap();
    let files = ["next.pem", "next.key"].map(|name| member.folder.join(name));
    let [certificate, key] = &files;
    emccd::lab::authority::write(&made, certificate, key).unwrap();
    How {
        files: Some(files),
        ..How::default()
    }
}

/// That a node shows what it was to show.
fn check(member: &Member, next: Next) {
    let pem = std::fs::read(&member.federation_certificate).unwrap();
    let leaf = &Certificate::read_all(&pem).unwrap()[0];
    let is_self_signed = leaf.issuer() == leaf.subject();
    assert_eq!(is_self_signed, next != Next::Signed, "{leaf:?}");
    let der = x509_parser::parse_x509_certificate(leaf.der()).unwrap().1;
    let parsed = der.public_key().parsed().unwrap();
    let is_rsa = matches!(parsed, x509_parser::public_key::PublicKey::RSA(_));
    assert_eq!(is_rsa, next == Next::Rsa, "{leaf:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_identity_is_rotated_three_times_and_nobody_notices() {
    let lab = of_their_own_hands().await;
    operator::hurry(&lab).await;
    let load = Load::begin(&lab).await;
    // What is pinned beside what the nodes show is the programs'.
    let mut beside = Vec::new();
    for us in &lab.clusters {
        for them in lab.clusters.iter().filter(|them| them.id != us.id) {
            let mut accepted = accepted(us, them).await;
            for member in &them.members {
                assert!(accepted.remove(&shown(member).await));
            }
            beside.push((us, them, accepted));
        }
    }
    load.rate_during(tokio::time::sleep(STEADY)).await;
    let (mut calm, mut busy) = (Rate::default(), Rate::default());
    for turn in 1..=MOST {
        for next in [Next::Signed, Next::Rsa, Next::P256] {
            let before = all_shown(&lab).await;
            for cluster in &lab.clusters {
                let (between, ()) = load.rate_during(tokio::time::sleep(STEADY)).await;
                let (during, ()) = load.rate_during(rotate(cluster, next)).await;
                println!(
                    "{} to {next:?} in {:?}: {:.0}/s after {:.0}/s; {} failures",
                    cluster.id,
                    during.took,
                    during.per_second(),
                    between.per_second(),
                    load.failures().len()
                );
                (calm, busy) = (calm + between, busy + during);
            }
            assert!(before.is_disjoint(&all_shown(&lab).await));
            for member in lab.clusters.iter().flat_map(|c| &c.members) {
                check(member, next);
            }
            for (us, them, beside) in &beside {
                until_agreed(us, them, beside).await;
            }
        }
        let (last, ()) = load.rate_during(tokio::time::sleep(STEADY)).await;
        calm = calm + last;
        if !is_long() && turn < MOST && busy.per_second() >= SHARE * calm.per_second() {
            break;
        }
    }
    let done = load.end().await;
    let share = busy.per_second() / calm.per_second();
    println!(
        "{done:?}; {:.0}/s in {:?} of rotations, {:.0}/s in {:?} between them: {share:.2}",
        busy.per_second(),
        busy.took,
        calm.per_second(),
        calm.took
    );
    assert!(share >= SHARE, "{share}");
    until_linked(&lab).await;
    lab.shut_down().await;
}

/// What all nodes show.
async fn all_shown(lab: &Lab) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for member in lab.clusters.iter().flat_map(|cluster| &cluster.members) {
        all.insert(shown(member).await);
    }
    all
}
