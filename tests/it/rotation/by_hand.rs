//! Files that are put in the configured place by hand while a rotation is on record.

use emccd::lab::{Lab, member::Versions};

use super::{
    operator::{last_in_audit, phase, shown, type_at},
    request, step, until,
};
use crate::support;

/// Stops the first node of that cluster, and starts it again.
async fn restarted(lab: &mut Lab, cluster: usize) {
    let member = lab.clusters[cluster].member_mut().unwrap();
    member.stop().await;
    member.start(&Versions::default()).await.unwrap();
}

/// Writes another certificate over the configured one.
fn write_over(lab: &Lab) {
    let berlin = &lab.clusters[0];
    let member = berlin.member().unwrap();
    let asked = berlin.authority.request(&member.name);
    let by_hand = berlin.authority.sign(&asked).unwrap();
    member.install(&by_hand).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_over_by_hand_meanwhile_is_not_taken_up_and_nothing_is_lost() {
    let mut lab = support::lab(2).await;
    lab.clusters[1].member_mut().unwrap().stop().await;
    let before = shown(lab.clusters[0].member().unwrap()).await;
    step(&lab.clusters[0], request("announce", "all"))
        .await
        .unwrap();
    until(&lab.clusters[0], "made", |all| {
        all.iter().any(|it| it.phase == "announced")
    })
    .await;
    write_over(&lab);
    for round in ["while it runs", "after a start"] {
        let member = lab.clusters[0].member().unwrap();
        let refused = type_at(member, "cert reload").await.unwrap_err();
        assert!(refused.contains("on record (announced)"), "{refused}");
        assert_eq!(shown(member).await, before, "{round}");
        let told = last_in_audit(member, "cert.reload");
        assert!(
            told.starts_with("refused: ") && told.contains(&format!("federation {before}")),
            "{told}"
        );
        assert_eq!(phase(member).as_deref(), Some("announced"), "{round}");
        restarted(&mut lab, 0).await;
    }
    let member = lab.clusters[0].member().unwrap();
    assert_eq!(shown(member).await, before);
    type_at(member, "cert rotate rollback --yes").await.unwrap();
    restarted(&mut lab, 1).await;
    until(&lab.clusters[0], "over", <[_]>::is_empty).await;
    assert_eq!(shown(lab.clusters[0].member().unwrap()).await, before);
    super::linked(&lab).await;
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_nowhere_any_more_is_not_exchanged_until_the_files_are_taken_up_or_it_is_given_up()
 {
    let lab = support::lab(1).await;
    let berlin = &lab.clusters[0];
    let member = berlin.member().unwrap();
    let before = shown(member).await;
    write_over(&lab);
    step(berlin, request("announce", "all")).await.unwrap();
    until(berlin, "told to be nowhere", |all| {
        all.iter().any(|it| {
            let told = it.problem.as_deref().unwrap_or_default();
            it.phase == "requested" && told.contains("emccd cert reload")
        })
    })
    .await;
    assert_eq!(shown(member).await, before);
    type_at(member, "cert reload").await.unwrap();
    let taken_up = shown(member).await;
    assert_ne!(taken_up, before);
    until(berlin, "announced", |all| {
        all.iter()
            .any(|it| it.phase == "announced" && it.problem.is_none())
    })
    .await;
    assert_eq!(shown(member).await, taken_up);
    lab.shut_down().await;
}
