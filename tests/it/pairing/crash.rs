//! Either side killed at each point of a pairing: then there is nothing, or it is finished.

use emccd::lab::member::Versions;

use super::*;

/// Which cluster is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Inviting,
    Joining,
}

impl Victim {
    const fn index(self) -> usize {
        match self {
            Self::Inviting => 0,
            Self::Joining => 1,
        }
    }
}

/// Starts the victim again, so that it stops at `point` for good; or at none.
async fn start(lab: &mut Lab, victim: Victim, point: Option<&str>) {
    let member = lab.clusters[victim.index()].member_mut().unwrap();
    if member.is_running() {
        member.stop().await;
    }
    let versions = point.map_or_else(Versions::default, Versions::stopping_at);
    member.start(&versions).await.unwrap();
}

/// Waits until the victim is at the point, kills it there, and starts it again as ever.
async fn killed(lab: &mut Lab, victim: Victim, point: &str) {
    let member = lab.clusters[victim.index()].member_mut().unwrap();
    member.wait_stopped_at(point, LIMIT).await.unwrap();
    member.kill().await.unwrap();
    start(lab, victim, None).await;
}

async fn peers_of(cluster: &Cluster) -> usize {
    let peers = json(cluster, &["cluster", "list"], "").await;
    peers.as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_before_the_words_costs_no_invitation() {
    let hosting = Hosting::Processes { binary: binary() };
    let mut lab = strangers(2, 1, hosting).await;
    for (victim, point) in [
        (Victim::Inviting, "pairing.proven"),
        (Victim::Joining, "pairing.joined"),
        (Victim::Inviting, "pairing.told"),
        (Victim::Joining, "pairing.kept"),
    ] {
        start(&mut lab, victim, Some(point)).await;
        let (text, id) = invited(&lab.clusters[0], &[]).await;
        let tokyo = &lab.clusters[1];
        let socket = socket(tokyo);
        let join = join_words(tokyo).map(str::to_owned);
        let mut command = Command::new(binary());
        command
            .args(["--socket", &socket])
            .args(join)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut joining = command.spawn().unwrap();
        let mut stdin = joining.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).await.unwrap();
        drop(stdin);
        killed(&mut lab, victim, point).await;
        // Its daemon or the other one is gone under it.
        timeout(LIMIT, joining.wait()).await.unwrap().unwrap();
        let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
        // The same line once more, whether it went on by itself meanwhile or not.
        let joined = json(tokyo, &join_words(tokyo), &text).await;
        let seen = until(berlin, "invite", &id, "told").await;
        assert_eq!(joined["words"], seen["words"], "{point}");
        assert!(!seen["words"].as_str().unwrap().is_empty());
        assert_eq!((peers_of(berlin).await, peers_of(tokyo).await), (0, 0));
        json(tokyo, &["cluster", "join", "--cancel", &id], "").await;
        until(berlin, "invite", &id, "refused").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_after_both_have_confirmed_is_made_good_by_itself() {
    let hosting = Hosting::Processes { binary: binary() };
    let mut lab = strangers(2, 1, hosting).await;
    for (victim, point) in [
        (Victim::Inviting, "pairing.committed"),
        (Victim::Joining, "pairing.agreed"),
        (Victim::Joining, "pairing.followed"),
    ] {
        start(&mut lab, victim, Some(point)).await;
        let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
        let (text, id) = invited(berlin, &[]).await;
        let joined = json(tokyo, &join_words(tokyo), &text).await;
        let words = joined["words"].as_str().unwrap();
        confirmed(berlin, "invite", &id, words).await;
        assert_eq!((peers_of(berlin).await, peers_of(tokyo).await), (0, 0));
        confirmed(tokyo, "join", &id, words).await;
        killed(&mut lab, victim, point).await;
        let (berlin, tokyo) = (&lab.clusters[0], &lab.clusters[1]);
        until(tokyo, "join", &id, "done").await;
        until(berlin, "invite", &id, "done").await;
        berlin.wait_linked(&tokyo.id).await.unwrap();
        tokyo.wait_linked(&berlin.id).await.unwrap();
        for (us, them) in [(berlin, tokyo), (tokyo, berlin)] {
            let trusted = json(us, &["trust", "list"], "").await;
            assert_eq!(trusted.as_array().unwrap().len(), 1, "{point}: {trusted}");
            assert_eq!(trusted[0]["kind"], "pinned");
            let id = them.id.to_string();
            json(
                us,
                &["cluster", "remove", &id, "--forget-owed", "--yes"],
                "",
            )
            .await;
        }
    }
}
