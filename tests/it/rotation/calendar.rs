//! Certificates that are exchanged by the calendar: with all peers there, and with one that is silent until the end is
//! near.

use std::{path::PathBuf, time::Duration};

use emccd::{
    clock::Clock,
    lab::{Lab, member::Member},
    trust::make,
};

use super::operator::{self, How, accepted, announce_automatic, nothing_on_record, shown, until};
use crate::support::{lab, set_parameter};

const DAY: Duration = Duration::from_secs(86_400);

/// Has the node show a certificate of its own making that ends within half a day.
pub(super) async fn come_near_the_end(lab: &Lab, here: &Member, round: usize) -> String {
    let now = Clock::system().now();
    let asked = lab.clusters[0].authority.request(&here.name);
    let asked = asked.valid(now.minus(DAY * 30), now.plus(DAY / 2));
    let made = make::self_signed(&asked).unwrap();
    let file = |ending| -> PathBuf { lab.folder().join(format!("near-{round}.{ending}")) };
    make::write_public(&file("pem"), &made.certificate_pem).unwrap();
    make::write_private(&file("key"), &made.key_pem).unwrap();
    let how = How {
        files: Some([file("pem"), file("key")]),
        ..How::default()
    };
    announce_automatic(here, &how).await;
    until("it is shown", async || match shown(here).await {
        now if now == made.fingerprint_text() => nothing_on_record(here),
        now => Err(now),
    })
    .await;
    made.fingerprint_text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_near_its_end_is_exchanged_by_itself_and_a_silent_peer_is_named() {
    let mut lab = lab(2).await;
    operator::hurry(&lab).await;
    set_parameter(&lab.clusters[0], "certificate-renew-jitter", "0").await;
    let here = lab.clusters[0].member().unwrap();
    let ending = come_near_the_end(&lab, here, 0).await;
    // More than the last day is left for the peers.
    set_parameter(&lab.clusters[0], "certificate-renew-override-before", "0").await;
    set_parameter(&lab.clusters[0], "certificate-renew-before", "2").await;
    until("it is exchanged", async || match shown(here).await {
        now if now == ending => Err(now),
        _ => nothing_on_record(here),
    })
    .await;
    let renewed = shown(here).await;
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    assert!(accepted(tokyo, berlin).await.contains(&renewed));
    berlin.wait_linked(&tokyo.id).await.unwrap();

    // The same within the last day, and the peer is down.
    set_parameter(berlin, "certificate-renew-before", "0").await;
    let ending = come_near_the_end(&lab, here, 1).await;
    lab.clusters[1].member_mut().unwrap().stop().await;
    let (berlin, tokyo) = (&lab.clusters[0], lab.clusters[1].id.clone());
    set_parameter(berlin, "certificate-renew-override-before", "1").await;
    set_parameter(berlin, "certificate-renew-before", "2").await;
    let here = berlin.member().unwrap();
    until("it is shown without the peer", async || {
        match (shown(here).await, operator::phase(here).as_deref()) {
            (now, Some("active")) if now != ending => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let told = operator::last_in_audit(here, "cert.activate");
    assert!(
        told.ends_with(&format!("not waiting for {tokyo}")),
        "{told}"
    );
    let figure = "emccd_rotation_alarms{identity=\"federation\",reason=\"overridden\"} 1.0";
    until("it is an alarm", async || {
        let (_, text) = crate::metrics::ask(here, "/metrics").await;
        text.lines()
            .any(|line| line == figure)
            .then_some(())
            .ok_or(text)
    })
    .await;
    // It comes back, is told over the old one, and the rest goes by itself.
    let member = lab.clusters[1].member_mut().unwrap();
    member.start(&Default::default()).await.unwrap();
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let here = berlin.member().unwrap();
    until("it is over", async || nothing_on_record(here)).await;
    berlin.wait_linked(&tokyo.id).await.unwrap();
    tokyo.wait_linked(&berlin.id).await.unwrap();
    assert!(accepted(tokyo, berlin).await.contains(&shown(here).await));
    lab.shut_down().await;
}
