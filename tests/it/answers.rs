//! What a second login and a lost right do to the session that is there, across clusters.

use std::time::Duration;

use emccd::{
    lab::{Cluster, Lab, member::Versions},
    wire::admin as pb,
};

use crate::support::{lab, living, log_in, set_parameter as set, until_living};

const HOME: usize = 0;
const FIRST: usize = 1;
const SECOND: usize = 2;

/// How soon a linked cluster hears of an end.
const SOON: Duration = Duration::from_secs(2);

/// Logs in, once: a parameter is in force before the node that was asked to set it answers.
async fn logs_in(lab: &Lab, visiting: usize, code: Option<u16>) {
    let shown = log_in(lab, HOME, 0, visiting, 0).await;
    assert_eq!(shown.em_code, code, "{}", shown.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_moves_from_phone_to_phone_by_policy_with_the_first_cluster_linked_and_cut_off() {
    let mut lab = lab(3).await;
    let home = &lab.clusters[HOME];
    logs_in(&lab, FIRST, None).await;
    logs_in(&lab, SECOND, Some(25)).await;
    set(home, "multiple-login-behavior", "auto-logout").await;
    set(home, "multiple-login-unreachable", "refuse").await;
    logs_in(&lab, SECOND, None).await;
    until_living(&lab, FIRST, 0, SOON).await;
    // Cut off: the second cluster is stopped with the user on its phone.
    let gone = lab.clusters[SECOND].id.clone();
    lab.clusters[SECOND].member_mut().unwrap().stop().await;
    let down = |peer: &pb::PeerStatus| peer.outbound.as_ref().is_some_and(|o| o.state != "up");
    let home = &lab.clusters[HOME];
    home.wait_status(&gone, "down", down).await.unwrap();
    logs_in(&lab, FIRST, Some(25)).await;
    set(home, "multiple-login-unreachable", "take-over").await;
    logs_in(&lab, FIRST, None).await;
    assert_eq!(living(&lab, HOME).await.len(), 1);
    let held = home.admin().await.unwrap().held().await.unwrap();
    assert_eq!(held.len(), 1, "{held:?}");
    // What it is owed it hears when it is back.
    let member = lab.clusters[SECOND].member_mut().unwrap();
    member.start(&Versions::default()).await.unwrap();
    until_living(&lab, SECOND, 0, Duration::from_secs(30)).await;
    assert_eq!(living(&lab, FIRST).await.len(), 1);
    set(&lab.clusters[HOME], "multiple-login-behavior", "allowed").await;
    lab.clusters[HOME].wait_linked(&gone).await.unwrap();
    logs_in(&lab, SECOND, None).await;
    assert_eq!(living(&lab, HOME).await.len(), 2);
    lab.shut_down().await;
}

/// Changes one line of the user's record, and gives what was applied.
async fn with_user(cluster: &Cluster, more: &str) {
    let id = &cluster.data.user(0).unwrap().user_id;
    let file = pb::ApplyFile {
        name: "user.toml".to_owned(),
        content: format!("[[user]]\nid = \"{id}\"\n{more}\n"),
    };
    let request = pb::ApplyRequest {
        files: vec![file],
        ..pb::ApplyRequest::default()
    };
    cluster.admin().await.unwrap().apply(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_the_right_is_off_the_phone_within_two_seconds() {
    let lab = lab(2).await;
    let home = &lab.clusters[HOME];
    for (lost, code) in [("enabled = false", 2), ("emcc = false", 31)] {
        logs_in(&lab, FIRST, None).await;
        with_user(home, lost).await;
        until_living(&lab, FIRST, 0, SOON).await;
        assert!(living(&lab, HOME).await.is_empty());
        let shown = log_in(&lab, HOME, 0, FIRST, 0).await;
        assert_eq!(shown.em_code, Some(code), "{}", shown.body);
        with_user(home, "enabled = true").await;
    }
    // At home the right to roam is not needed: when the visited phone is free again, the session there has stayed.
    set(home, "multiple-login-behavior", "allowed").await;
    let user = home.data.user(0).unwrap();
    let phone = home.member().unwrap().phone().unwrap();
    let device = &home.data.phone(0).unwrap().name;
    let shown = phone.login(device, None, &user.user_id, &user.pin).await;
    assert_eq!(shown.unwrap().em_code, None);
    logs_in(&lab, FIRST, None).await;
    assert_eq!(living(&lab, HOME).await.len(), 2 + 1);
    with_user(home, "emcc = false").await;
    until_living(&lab, FIRST, 0, SOON).await;
    assert_eq!(living(&lab, HOME).await.len(), 2);
    with_user(home, "enabled = false").await;
    until_living(&lab, HOME, 0, SOON).await;
    // Switched off, a session outlives the right to it, and ends when it is switched on, without another word.
    with_user(home, "enabled = true").await;
    set(home, "end-sessions-on-revocation", "off").await;
    logs_in(&lab, FIRST, None).await;
    with_user(home, "enabled = false").await;
    let refused = log_in(&lab, HOME, 0, FIRST, 1).await;
    assert_eq!(refused.em_code, Some(2), "{}", refused.body);
    assert_eq!(living(&lab, FIRST).await.len(), 1);
    set(home, "end-sessions-on-revocation", "on").await;
    until_living(&lab, FIRST, 0, SOON).await;
    lab.shut_down().await;
}
