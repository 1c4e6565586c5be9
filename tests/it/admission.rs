//! More logins than a node works on at a time: some wait, and who can't be served is told when to come back.

use std::time::Duration;

use emccd::lab::{Hosting, Lab, Spec, member::Versions};

use crate::support::{binary, lab, log_in, log_out, set_parameter};

const HOME: usize = 0;
const VISITING: usize = 1;
const NAME: &str = "maximum-concurrent-requests";

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time_serves_all_who_come_at_once() {
    let lab = lab(2).await;
    for cluster in &lab.clusters {
        set_parameter(cluster, NAME, "1").await;
    }
    // Both ways, so that each cluster waits for the other one's only place.
    let all = futures_util::future::join_all((0..8).map(|n| {
        let (home, visiting) = if n % 2 == 0 {
            (HOME, VISITING)
        } else {
            (VISITING, HOME)
        };
        let lab = &lab;
        async move { log_in(lab, home, n / 2, visiting, n / 2).await }
    }));
    for shown in all.await {
        assert_eq!(shown.em_code, None, "{}", shown.text);
    }
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_without_a_place_is_26_on_the_phone_with_the_time_to_come_back() {
    let deadline = Duration::from_secs(4);
    let settings = vec![(
        "login".to_owned(),
        format!("deadline = \"{}s\"", deadline.as_secs()),
    )];
    let mut lab = Lab::start(&Spec {
        hosting: Hosting::Processes { binary: binary() },
        settings,
        ..Spec::default()
    })
    .await
    .unwrap();
    set_parameter(&lab.clusters[HOME], NAME, "1").await;
    // The first login takes the only place and never ends.
    let member = lab.clusters[HOME].member_mut().unwrap();
    member.stop().await;
    let stuck = Versions::stopping_at("home.login.received");
    member.start(&stuck).await.unwrap();
    let (home, visiting) = (lab.clusters[HOME].id.clone(), &lab.clusters[VISITING]);
    visiting.wait_linked(&home).await.unwrap();
    let first = log_in(&lab, HOME, 0, VISITING, 0).await;
    assert_eq!(first.em_code, Some(40), "{}", first.text);

    let second = log_in(&lab, HOME, 1, VISITING, 1).await;
    assert_eq!(second.em_code, Some(26), "{}", second.text);
    assert!(
        second.text.contains("Login is unavailable(26)"),
        "{}",
        second.text
    );
    assert!(second.text.contains("Try again in"), "{}", second.text);
    assert!(second.reference.is_some(), "{}", second.text);
    // Whom home has no place for can still be served elsewhere, and logouts are not held up.
    let own = log_in(&lab, VISITING, 0, VISITING, 2).await;
    assert_eq!(own.em_code, None, "{}", own.text);
    let out = log_out(&lab.clusters[VISITING], 2).await;
    assert_eq!(out.em_code, None, "{}", out.text);

    let member = lab.clusters[HOME].member_mut().unwrap();
    member.kill().await.unwrap();
    member.start(&Versions::default()).await.unwrap();
    lab.clusters[VISITING].wait_linked(&home).await.unwrap();
    let third = log_in(&lab, HOME, 1, VISITING, 1).await;
    assert_eq!(third.em_code, None, "{}", third.text);
    lab.shut_down().await;
}
