//! Nodes that are killed in the middle of a rotation, on either side: the store is whole, the link comes back, and the
//! rotation can be finished or taken back.

use std::{collections::BTreeSet, time::Duration};

use emccd::{
    lab::{Lab, member::Versions},
    trust::make::{self, KeyKind},
    wire::admin as pb,
};
use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng};

use super::operator::{self, Named, accepted, shown, until, until_agreed, until_linked};
use crate::support::{is_long, lab_of_processes, rows::rows};

/// What is under way when the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Announce,
    Activate,
    Retire,
    RollBack,
    /// The peer's operator adds trust.
    Import,
}

const ACTS: [Act; 5] = [
    Act::Announce,
    Act::Activate,
    Act::Retire,
    Act::RollBack,
    Act::Import,
];

/// The cluster that rotates, and its peer.
const OURS: usize = 0;
const THEIRS: usize = 1;

/// Longest time from the beginning of an act to the kill.
const MOMENTS: Duration = Duration::from_millis(250);

async fn kill_and_start(lab: &mut Lab, victim: usize) {
    let member = lab.clusters[victim].member_mut().unwrap();
    member.kill().await.unwrap();
    // Whole, and its audit too, before any node has looked at it again.
    rows(&lab.clusters[victim]).await;
    let file = lab.clusters[victim]
        .member()
        .unwrap()
        .folder
        .join("../emccd.db");
    operator::verify(&file).await;
    let member = lab.clusters[victim].member_mut().unwrap();
    member.start(&Versions::default()).await.unwrap();
}

async fn begin(lab: &Lab, act: Act) {
    let here = lab.clusters[OURS].member().unwrap();
    match act {
        // What the killed node does not answer any more is nobody's fault.
        Act::Announce => drop(operator::try_announce(here).await),
        Act::Activate => drop(operator::activate(here, Named::Nobody).await),
        Act::Retire => drop(operator::retire(here).await),
        Act::RollBack => drop(operator::roll_back(here).await),
        Act::Import => {
            let file = lab.folder().join("more.pem");
            let line = format!("trust add berlin --pin {}", file.display());
            drop(operator::type_at(lab.clusters[THEIRS].member().unwrap(), &line).await);
        }
    }
}

/// Brings a rotation to where `act` is the next step.
async fn come_to(lab: &Lab, act: Act, is_active: bool) {
    let here = lab.clusters[OURS].member().unwrap();
    match act {
        Act::Announce => {}
        Act::Import => {
            let authority = &lab.clusters[OURS].authority;
            let mut pem = String::new();
            for _ in 0..20 {
                let asked = authority.request("node-1");
                assert_eq!(asked.key, KeyKind::P256);
                pem.push_str(&make::self_signed(&asked).unwrap().certificate_pem);
            }
            std::fs::write(lab.folder().join("more.pem"), pem).unwrap();
        }
        Act::Activate | Act::Retire | Act::RollBack => {
            operator::announce(here).await;
            if act == Act::Retire || act == Act::RollBack && is_active {
                until("it is activated", async || {
                    operator::activate(here, Named::Nobody).await
                })
                .await;
            }
            if act == Act::Retire {
                until("it may be retired", async || {
                    operator::may_retire(here).await
                })
                .await;
            }
        }
    }
}

/// Finishes what is under way, or takes it back.
async fn come_to_rest(lab: &Lab, goes_on: bool) {
    let here = lab.clusters[OURS].member().unwrap();
    until("the rotation is over", async || {
        match operator::phase(here).as_deref() {
            None => Ok(()),
            Some("announced") if goes_on => Err(format!(
                "{:?}",
                operator::activate(here, Named::Nobody).await
            )),
            Some("active") if goes_on => Err(format!("{:?}", operator::retire(here).await)),
            Some("requested" | "announced" | "active") => {
                Err(format!("{:?}", operator::roll_back(here).await))
            }
            Some(phase) => Err(phase.to_owned()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_at_whatever_moment_the_rotation_can_be_finished() {
    let seed: u64 = rand::rng().next_u64();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut lab = lab_of_processes(2).await;
    operator::hurry(&lab).await;
    let rounds = if is_long() { 100 } else { 10 };
    for round in 0..rounds {
        // Each act with each victim before any is met again.
        let act = ACTS[round % ACTS.len()];
        let victim = match act {
            Act::Import => THEIRS,
            _ => (round / ACTS.len() + round) % 2,
        };
        let (is_active, goes_on) = (random.random_bool(0.5), random.random_bool(0.5));
        let moment = MOMENTS.mul_f64(random.random());
        let what = format!("seed {seed}, round {round}: {act:?}, kill {victim} after {moment:?}");
        println!("{what}; {is_active} {goes_on}");
        come_to(&lab, act, is_active).await;
        let acting = begin(&lab, act);
        // Some are over by then, and what they began goes on.
        let _ = tokio::time::timeout(moment, acting).await;
        kill_and_start(&mut lab, victim).await;
        until_linked(&lab).await;
        come_to_rest(&lab, goes_on).await;
        let (ours, theirs) = (&lab.clusters[OURS], &lab.clusters[THEIRS]);
        if act == Act::Import {
            let more = accepted(theirs, ours).await.len();
            assert!(
                more == 1 || more == 21,
                "{what}: {more} are accepted: half an import"
            );
            remove_more(&lab).await;
        }
        until_agreed(theirs, ours, &BTreeSet::new()).await;
        until_agreed(ours, theirs, &BTreeSet::new()).await;
        until_linked(&lab).await;
        for cluster in [ours, theirs] {
            let left = operator::left_over(cluster.member().unwrap()).await;
            assert_eq!(left, Vec::<String>::new(), "{what}");
        }
    }
    lab.shut_down().await;
}

/// Takes back what was imported.
async fn remove_more(lab: &Lab) {
    let (ours, theirs) = (&lab.clusters[OURS], &lab.clusters[THEIRS]);
    let keep = shown(ours.member().unwrap()).await;
    let mut admin = theirs.admin().await.unwrap();
    for fingerprint in accepted(theirs, ours).await {
        if fingerprint != keep {
            let request = pb::RemoveTrustRequest {
                cluster_id: ours.id.to_string(),
                fingerprint: fingerprint.replace(':', "").to_lowercase(),
                mode: "unlink".to_owned(),
            };
            admin.remove_trust(request).await.unwrap();
        }
    }
}
