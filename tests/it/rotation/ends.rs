//! What must not be lost on the way: the way to a peer when the certificate from before has ended, the proof that a peer
//! takes the new one, and a neighbour's key.

use std::{fs, time::Duration};

use emccd::{
    domain::version::Version,
    lab::{Hosting, Lab, Spec, member::Versions},
    wire::admin as pb,
};

use super::{
    calendar::come_near_the_end,
    operator::{self, Named, nothing_on_record, phase, shown, until},
};
use crate::support::{binary, lab};

const LIMIT: Duration = Duration::from_secs(60);
const DAY_MILLIS: i64 = 86_400_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_left_out_is_called_with_the_new_one_once_the_old_one_has_ended() {
    let mut lab = lab(2).await;
    operator::hurry(&lab).await;
    let ending = come_near_the_end(&lab, lab.clusters[0].member().unwrap(), 0).await;
    lab.clusters[1].member_mut().unwrap().stop().await;
    let tokyo = lab.clusters[1].id.to_string();
    let here = lab.clusters[0].member().unwrap();
    operator::announce(here).await;
    operator::activate(here, Named::Overridden(&tokyo))
        .await
        .unwrap();
    until("the new one is shown", async || match shown(here).await {
        now if now == ending => Err(now),
        _ => Ok(()),
    })
    .await;
    for cluster in &lab.clusters {
        cluster
            .member()
            .unwrap()
            .clock
            .set_offset_millis(DAY_MILLIS);
    }
    let member = lab.clusters[1].member_mut().unwrap();
    member.start(&Versions::default()).await.unwrap();
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    let here = berlin.member().unwrap();
    let added = pb::AddTrustRequest {
        cluster_id: berlin.id.to_string(),
        trust: Some(pb::TrustMaterial {
            kind: "pinned".to_owned(),
            certificates: operator::next_certificate(here).into_bytes(),
        }),
        unrevoke: None,
    };
    tokyo.admin().await.unwrap().add_trust(added).await.unwrap();
    berlin.wait_linked(&tokyo.id).await.unwrap();
    until("the old one goes", async || operator::retire(here).await).await;
    until("it is over", async || nothing_on_record(here)).await;
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_false_word_for_a_peer_without_a_voice_does_not_let_the_old_one_go() {
    let old = Versions::up_to(Version::V1_0);
    let mut lab = lab(2).await;
    operator::hurry(&lab).await;
    let member = lab.clusters[1].member_mut().unwrap();
    member.stop().await;
    member.start(&old).await.unwrap();
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    berlin.wait_linked(&tokyo.id).await.unwrap();
    let here = berlin.member().unwrap();
    let before = shown(here).await;
    operator::announce(here).await;
    until("it is known to have no voice", async || {
        operator::activate(here, Named::Confirmed(tokyo.id.as_str())).await
    })
    .await;
    until("the new one is shown", async || match shown(here).await {
        now if now == before => Err(now),
        _ => Ok(()),
    })
    .await;
    // It refuses what it does not know, after our side is done with the handshake; then it is called with the old one.
    let member = lab.clusters[1].member_mut().unwrap();
    member.stop().await;
    member.start(&old).await.unwrap();
    let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
    berlin.wait_all_up(&tokyo.id).await.unwrap();
    let refused = operator::retire(berlin.member().unwrap()).await;
    let refused = refused.unwrap_err();
    assert!(
        refused.contains("has not been seen to accept a connection of ours"),
        "{refused}"
    );
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_one_folder_between_them_leave_each_others_new_keys_alone() {
    let mut lab = Lab::start(&Spec {
        clusters: 1,
        nodes: 2,
        hosting: Hosting::Processes { binary: binary() },
        ..Spec::default()
    })
    .await
    .unwrap();
    operator::hurry(&lab).await;
    let shared = tempfile::tempdir().unwrap();
    let shared = shared.path();
    for (member, point) in lab.clusters[0].members.iter_mut().zip([
        Versions::default(),
        Versions::stopping_at("rotation.written"),
    ]) {
        member.stop().await;
        let mut config = fs::read_to_string(&member.config).unwrap();
        for ending in ["pem", "key"] {
            let file = shared.join(format!("{}.{ending}", member.name));
            fs::copy(member.folder.join(format!("federation.{ending}")), &file).unwrap();
            let configured = format!("\"federation.{ending}\"");
            assert!(config.contains(&configured), "{config}");
            config = config.replace(&configured, &format!("\"{}\"", file.display()));
        }
        fs::write(&member.config, config).unwrap();
        member.start(&point).await.unwrap();
    }
    // Those in use are kept there as well before they are exchanged.
    let mut in_use = Vec::new();
    for member in &lab.clusters[0].members {
        in_use.push(shown(member).await.replace(':', "").to_lowercase());
    }
    let new_keys = || -> Vec<_> {
        let all = fs::read_dir(shared.join("identities")).unwrap();
        let all = all.map(|file| file.unwrap().path());
        all.filter(|file| file.extension().is_some_and(|ending| ending == "key"))
            .filter(|file| !in_use.iter().any(|of| file.to_string_lossy().contains(of)))
            .collect()
    };
    // One has written its new key, and not said so yet, when the other makes its own and looks for what is left over.
    let second = &mut lab.clusters[0].members[1];
    operator::try_announce(second).await.unwrap();
    second
        .wait_stopped_at("rotation.written", LIMIT)
        .await
        .unwrap();
    let written = new_keys();
    assert_eq!(written.len(), 1, "{written:?}");
    let first = &lab.clusters[0].members[0];
    let before = shown(first).await;
    operator::announce(first).await;
    operator::activate(first, Named::Nobody).await.unwrap();
    until("its own is shown", async || match shown(first).await {
        now if now == before => Err(now),
        _ => Ok(()),
    })
    .await;
    assert!(written[0].exists(), "{:?}", new_keys());
    // Killed there, the other takes its own away, and makes another one.
    let second = &mut lab.clusters[0].members[1];
    second.kill().await.unwrap();
    second.start(&Versions::default()).await.unwrap();
    let second = &lab.clusters[0].members[1];
    until("it is announced", async || match phase(second) {
        Some(phase) if phase == "announced" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    until("what was left over is gone", async || {
        let gone = !written[0].exists() && new_keys().len() == 2;
        gone.then_some(())
            .ok_or_else(|| format!("{:?}", new_keys()))
    })
    .await;
    lab.shut_down().await;
}
