//! The nodes' certificates exchanged while peers go on trusting them: announced, activated, retired, rolled back, with
//! every peer there, and with one that comes back later.

mod by_hand;
mod calendar;
mod ends;
mod held_up;
mod kills;
mod load;
mod many;
mod matrix;
mod newcomers;
pub(crate) mod operator;
mod points;
mod under_load;

use std::{collections::BTreeSet, time::Duration};

use emccd::{
    lab::{Cluster, Lab, Spec},
    wire::admin as pb,
};

use crate::support::{self, log_in};

/// A debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

async fn two_by_two() -> Lab {
    let lab = Lab::start(&Spec {
        clusters: 2,
        nodes: 2,
        ..Spec::default()
    })
    .await
    .unwrap();
    for cluster in &lab.clusters {
        drain_at_once(cluster).await;
    }
    lab
}

pub(crate) async fn drain_at_once(cluster: &Cluster) {
    let request = pb::SetParameterRequest {
        name: "certificate-drain-time".to_owned(),
        value: "0".to_owned(),
    };
    let mut admin = cluster.admin().await.unwrap();
    admin.set_parameter(request).await.unwrap();
}

pub(crate) fn request(step: &str, nodes: &str) -> pb::StepRotationRequest {
    pb::StepRotationRequest {
        step: step.to_owned(),
        nodes: vec![nodes.to_owned()],
        purpose: "federation".to_owned(),
        ..pb::StepRotationRequest::default()
    }
}

pub(crate) async fn step(
    cluster: &Cluster,
    request: pb::StepRotationRequest,
) -> Result<Vec<pb::Rotation>, String> {
    let mut admin = cluster.admin().await.unwrap();
    let done = admin.step_rotation(request).await;
    done.map(|done| done.rotations)
        .map_err(|error| format!("{error:#}"))
}

async fn rotations(cluster: &Cluster) -> Vec<pb::Rotation> {
    let mut admin = cluster.admin().await.unwrap();
    let asked = admin.rotations(pb::ListRotationsRequest {}).await;
    asked.unwrap().rotations
}

pub(crate) async fn until(
    cluster: &Cluster,
    what: &str,
    is_so: impl Fn(&[pb::Rotation]) -> bool,
) -> Vec<pb::Rotation> {
    support::until(LIMIT, format_args!("{}: {what}", cluster.id), async || {
        let all = rotations(cluster).await;
        support::holds(is_so(&all), &all).map(|()| all)
    })
    .await
}

fn all_loaded(all: &[pb::Rotation]) -> bool {
    let has = |it: &pb::Rotation| it.peers.iter().all(|peer| peer.accepts);
    !all.is_empty() && all.iter().all(|it| it.phase != "requested" && has(it))
}

fn all_free(all: &[pb::Rotation]) -> bool {
    all.iter()
        .all(|it| it.phase == "active" && it.shown == it.new && it.blockers.is_empty())
}

/// What `at` accepts from `of`.
async fn accepted(at: &Cluster, of: &Cluster) -> BTreeSet<String> {
    let query = pb::ListTrustRequest {
        cluster_id: Some(of.id.to_string()),
    };
    let entries = at
        .admin()
        .await
        .unwrap()
        .trust(query)
        .await
        .unwrap()
        .entries;
    let pinned = entries.into_iter().filter(|entry| entry.kind == "pinned");
    pinned
        .map(|entry| entry.certificate.unwrap().fingerprint)
        .collect()
}

/// What the nodes of a cluster show to peers.
async fn shown(cluster: &Cluster) -> BTreeSet<String> {
    let mut shown = BTreeSet::new();
    for member in cluster.members.iter().filter(|member| member.is_running()) {
        let mut admin = member.admin().await.unwrap();
        let identities = admin
            .identities(pb::ListIdentitiesRequest {})
            .await
            .unwrap()
            .identities;
        shown.insert(identities[0].certificate.clone().unwrap().fingerprint);
    }
    shown
}

pub(crate) async fn linked(lab: &Lab) {
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    berlin.wait_all_up(&tokyo.id).await.unwrap();
    tokyo.wait_all_up(&berlin.id).await.unwrap();
    berlin.wait_linked(&tokyo.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_nodes_exchange_their_certificates_step_by_step_and_by_themselves() {
    let lab = two_by_two().await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let before = shown(berlin).await;
    assert_eq!(before.len(), 2);
    let refused = step(berlin, request("activate", "all")).await.unwrap_err();
    assert!(refused.contains("no rotation"), "{refused}");

    step(berlin, request("announce", "all")).await.unwrap();
    let announced = until(berlin, "announced", all_loaded).await;
    let new: BTreeSet<String> = announced.iter().filter_map(|it| it.new.clone()).collect();
    assert_eq!(announced.len(), 2);
    assert_eq!(shown(berlin).await, before, "the old ones stay in use");
    let both: BTreeSet<_> = before.union(&new).cloned().collect();
    assert_eq!(accepted(tokyo, berlin).await, both);
    let refused = step(berlin, request("retire", "all")).await.unwrap_err();
    assert!(refused.contains("needs active"), "{refused}");

    // Taken back, the new ones are gone everywhere.
    step(berlin, request("rollback", "all")).await.unwrap();
    until(berlin, "over", <[_]>::is_empty).await;
    assert_eq!(accepted(tokyo, berlin).await, before);

    step(berlin, request("announce", "all")).await.unwrap();
    let announced = until(berlin, "announced", all_loaded).await;
    let newer: BTreeSet<String> = announced.iter().filter_map(|it| it.new.clone()).collect();
    assert!(newer.is_disjoint(&new));
    step(berlin, request("activate", "all")).await.unwrap();
    until(berlin, "in use alone", all_free).await;
    assert_eq!(shown(berlin).await, newer);
    // From there, too, there is a way back.
    step(berlin, request("rollback", "all")).await.unwrap();
    until(berlin, "over", <[_]>::is_empty).await;
    assert_eq!(
        (shown(berlin).await, accepted(tokyo, berlin).await),
        (before.clone(), before.clone())
    );
    linked(&lab).await;

    // And once more, by themselves.
    let by_themselves = pb::StepRotationRequest {
        automatic: true,
        ..request("announce", "all")
    };
    step(berlin, by_themselves).await.unwrap();
    until(berlin, "over", <[_]>::is_empty).await;
    let now = shown(berlin).await;
    assert!(now.len() == 2 && now.is_disjoint(&before) && now.is_disjoint(&newer));
    assert_eq!(accepted(tokyo, berlin).await, now, "nothing is left over");
    linked(&lab).await;
    let answer = log_in(&lab, 0, 0, 1, 0).await;
    assert_eq!(answer.em_code, None, "{}", answer.body);
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_is_named_and_once_overridden_comes_back_and_learns() {
    let mut lab = two_by_two().await;
    for member in &mut lab.clusters[1].members {
        member.stop().await;
    }
    let (berlin, tokyo) = (&lab.clusters[0], lab.clusters[1].id.clone());
    let before = shown(berlin).await;
    step(berlin, request("announce", "all")).await.unwrap();
    let made = |all: &[pb::Rotation]| all.iter().all(|it| it.phase == "announced");
    until(berlin, "made", made).await;
    let refused = step(berlin, request("activate", "all")).await.unwrap_err();
    assert!(
        refused.contains(tokyo.as_str()) && refused.contains("has not answered"),
        "{refused}"
    );
    assert_eq!(shown(berlin).await, before);

    let overriding = pb::StepRotationRequest {
        overridden: vec![tokyo.to_string()],
        ..request("activate", "all")
    };
    step(berlin, overriding).await.unwrap();
    until(berlin, "shown", |all| {
        all.iter().all(|it| it.shown == it.new)
    })
    .await;
    let refused = step(berlin, request("retire", "all")).await.unwrap_err();
    assert!(
        refused.contains(tokyo.as_str()) && refused.contains("not waited for"),
        "{refused}"
    );

    for member in &mut lab.clusters[1].members {
        member.start(&Default::default()).await.unwrap();
    }
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    until(berlin, "in use alone", all_free).await;
    linked(&lab).await;
    step(berlin, request("retire", "all")).await.unwrap();
    until(berlin, "over", <[_]>::is_empty).await;
    assert_eq!(accepted(tokyo, berlin).await, shown(berlin).await);
    linked(&lab).await;
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_after_each_step_goes_on_where_it_was() {
    let mut lab = support::lab_of_processes(2).await;
    drain_at_once(&lab.clusters[0]).await;
    let before = shown(&lab.clusters[0]).await;
    for (verb, what) in [
        ("announce", "announced"),
        ("activate", "in use alone"),
        ("retire", "over"),
    ] {
        step(&lab.clusters[0], request(verb, "all")).await.unwrap();
        let member = lab.clusters[0].member_mut().unwrap();
        member.kill().await.unwrap();
        member.start(&Default::default()).await.unwrap();
        let berlin = &lab.clusters[0];
        until(berlin, what, |all| match verb {
            "announce" => all_loaded(all),
            "activate" => !all.is_empty() && all_free(all),
            _ => all.is_empty(),
        })
        .await;
        linked(&lab).await;
    }
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let now = shown(berlin).await;
    assert!(now.is_disjoint(&before));
    assert_eq!(accepted(tokyo, berlin).await, now);
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rotations_in_a_row_leave_one_entry_and_one_pair_of_files() {
    let rounds = if support::is_long() { 200 } else { 3 };
    let lab = support::lab(2).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    drain_at_once(berlin).await;
    let mut seen = shown(berlin).await;
    for round in 0..rounds {
        let by_itself = pb::StepRotationRequest {
            automatic: true,
            ..request("announce", "all")
        };
        step(berlin, by_itself).await.unwrap();
        until(berlin, "over", <[_]>::is_empty).await;
        let now = shown(berlin).await;
        assert!(seen.is_disjoint(&now), "round {round}");
        assert_eq!(accepted(tokyo, berlin).await, now, "round {round}");
        seen.extend(now);
    }
    let member = berlin.member().unwrap();
    let folder = member.federation_certificate.with_file_name("identities");
    let left: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    // The pair that is configured may lie there as well.
    assert!(left.len() <= 2, "{left:?}");
    linked(&lab).await;
    lab.shut_down().await;
}
