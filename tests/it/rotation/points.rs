//! A node that is killed at each point at which files and store say different things: the store is whole, the link comes
//! back, the rotation ends, and nothing is left over.

use std::{collections::BTreeSet, time::Duration};

use emccd::lab::{Lab, member::Versions};

use super::operator::{
    self, How, Named, nothing_on_record, shown, until, until_agreed, until_linked,
};
use crate::support::lab_of_processes;

const LIMIT: Duration = Duration::from_secs(60);

/// Points on the way to a new certificate.
const FORWARD: [&str; 7] = [
    "rotation.written",
    "rotation.made",
    "rotation.activated",
    "rotation.shown",
    "rotation.retired",
    "rotation.settling",
    "rotation.settled",
];
/// Points on the way back.
const BACK: [&str; 3] = [
    "rotation.rolled-back",
    "rotation.settling",
    "rotation.settled",
];

/// Starts the node again, so that it stops at `point` for good; or at none.
async fn start(lab: &mut Lab, point: Option<&str>) {
    let member = lab.clusters[0].member_mut().unwrap();
    if member.is_running() {
        member.stop().await;
    }
    let versions = point.map_or_else(Versions::default, Versions::stopping_at);
    member.start(&versions).await.unwrap();
}

/// Waits until it is at the point, kills it there, and starts it again as ever.
async fn killed(lab: &mut Lab, point: &str) {
    let member = lab.clusters[0].member_mut().unwrap();
    member.wait_stopped_at(point, LIMIT).await.unwrap();
    member.kill().await.unwrap();
    let file = member.folder.join("../emccd.db");
    operator::verify(&file).await;
    start(lab, None).await;
}

async fn is_whole(lab: &Lab, point: &str) {
    let here = lab.clusters[0].member().unwrap();
    until(point, async || nothing_on_record(here)).await;
    until_linked(lab).await;
    let (ours, theirs) = (&lab.clusters[0], &lab.clusters[1]);
    until_agreed(theirs, ours, &BTreeSet::new()).await;
    assert_eq!(
        operator::left_over(here).await,
        Vec::<String>::new(),
        "{point}"
    );
    let folder = here.folder.join("identities");
    let marks: Vec<_> = std::fs::read_dir(folder)
        .map(|all| all.map(|file| file.unwrap().file_name()).collect())
        .unwrap_or_default();
    let marks = marks
        .iter()
        .filter(|name| name.to_string_lossy().starts_with('.'));
    assert_eq!(marks.count(), 0, "{point}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_between_its_files_and_its_store_goes_on_and_leaves_nothing_over() {
    let mut lab = lab_of_processes(2).await;
    operator::hurry(&lab).await;
    for point in FORWARD {
        let before = shown(lab.clusters[0].member().unwrap()).await;
        start(&mut lab, Some(point)).await;
        until_linked(&lab).await;
        operator::announce_automatic(lab.clusters[0].member().unwrap(), &How::default()).await;
        killed(&mut lab, point).await;
        is_whole(&lab, point).await;
        assert_ne!(
            shown(lab.clusters[0].member().unwrap()).await,
            before,
            "{point}"
        );
    }
    for point in BACK {
        let before = shown(lab.clusters[0].member().unwrap()).await;
        start(&mut lab, Some(point)).await;
        until_linked(&lab).await;
        let here = lab.clusters[0].member().unwrap();
        operator::announce(here).await;
        until(point, async || {
            operator::activate(here, Named::Nobody).await
        })
        .await;
        until(point, async || match shown(here).await {
            now if now == before => Err(now),
            _ => Ok(()),
        })
        .await;
        operator::roll_back(here).await.unwrap();
        killed(&mut lab, point).await;
        is_whole(&lab, point).await;
        assert_eq!(
            shown(lab.clusters[0].member().unwrap()).await,
            before,
            "{point}"
        );
    }
    lab.shut_down().await;
}
