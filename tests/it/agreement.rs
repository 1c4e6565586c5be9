//! Two clusters that no longer agree on their sessions, since a store has lost something: they come to agree by
//! themselves, and nobody is stuck.

use std::{fs, time::Duration};

use emccd::{
    domain::session::{Role, State},
    lab::{Cluster, Hosting, Lab, Spec, member::Versions},
    wire::admin as pb,
};

use crate::{
    metrics::ask,
    nodes::claims::{database, texts},
    people::done,
    support::{
        self, binary, lab, log_in, log_in_at, log_out,
        rows::{rows, settled, tamper},
    },
};

/// What of two heartbeats and a pass; the age of rows is not waited for where a test says that they are old.
const SOON: Duration = Duration::from_secs(20);

/// Makes all rows as old as they must be to end for being lost.
const AGE: &str = "UPDATE sessions SET changed_at = changed_at - 30000";

/// Waits until something holds of a cluster's rows.
async fn until(cluster: &Cluster, what: &str, is_so: impl Fn(&rusqlite::Connection) -> bool) {
    support::until(SOON, format_args!("{}: {what}", cluster.id), async || {
        let is_so = tokio::task::block_in_place(|| is_so(&database(cluster)));
        support::holds(is_so, "that it isn't")
    })
    .await;
}

fn count(database: &rusqlite::Connection, sql: &str) -> i64 {
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

async fn is_in(home: &Cluster, user: usize, visiting: &Cluster, phone: usize) {
    let shown = log_in_at(home, user, visiting, phone).await;
    assert!(shown.em_code.is_none(), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_lost_in_either_store_ends_in_the_other() {
    let lab = lab(2).await;
    let (home, visiting) = (&lab.clusters[0], &lab.clusters[1]);
    for n in 0..4 {
        is_in(home, n, visiting, n).await;
    }
    let shared = settled(home, visiting).await;
    assert_eq!(shared.len(), 4);
    let phone = |n: usize| visiting.data.phone(n).unwrap().name.to_string();
    let lose = async |cluster: &Cluster, phone: String| {
        until(cluster, "lost", |database| {
            let sql = "DELETE FROM sessions WHERE device = $1";
            database.execute(sql, [&phone]).unwrap() == 1
        })
        .await;
    };
    // Home's row goes, and with it what held the base device; visiting's goes; and one that both had goes at both.
    lose(home, phone(0)).await;
    lose(visiting, phone(1)).await;
    lose(home, phone(2)).await;
    lose(visiting, phone(2)).await;
    for cluster in [home, visiting] {
        tamper(cluster, AGE).await;
    }
    let left = settled(home, visiting).await;
    let devices: Vec<_> = left.iter().map(|s| s.device.clone()).collect();
    assert_eq!(devices, [phone(3)]);
    assert_eq!(rows(home).await.held(), 1, "base devices are free again");
    // Each is told in the audit, with the cluster that has no record.
    for (cluster, other) in [(home, visiting), (visiting, home)] {
        let told = format!("{} has no record of it", other.id);
        let audit = rows(cluster).await.audit;
        let of_it = audit.iter().filter(|e| format!("{e:?}").contains(&told));
        assert_eq!(of_it.count(), 1, "{}: {audit:#?}", cluster.id);
    }
    // Nobody is locked out by what is gone.
    for n in 0..3 {
        is_in(home, n, visiting, n).await;
    }
    assert_eq!(settled(home, visiting).await.len(), 4);
    let status = done(home, "cluster status", "").await;
    assert!(status.contains("AGREED"), "{status}");
    lab.shut_down().await;
}

/// Phones' cluster knows that two sessions are over. Home refused to hear of the one, and of the other an operator has said
/// that it is not told: home comes and asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_was_refused_or_dropped_is_settled_by_comparing() {
    let lab = lab(2).await;
    let (home, visiting) = (&lab.clusters[0], &lab.clusters[1]);
    for n in 0..2 {
        is_in(home, n, visiting, n).await;
    }
    assert_eq!(settled(home, visiting).await.len(), 2);
    for (n, debt) in [
        (
            0,
            "owed = 1, parked = 'it has no record of us', parked_at = 1",
        ),
        (1, "owed = 0"),
    ] {
        let phone = visiting.data.phone(n).unwrap().name.to_string();
        let sql = format!(
            "UPDATE sessions SET state = 'ended', ended_at = created_at, end_reason = 'user', initiator = 'visiting',
               {debt} WHERE device = $1 AND state = 'active'"
        );
        until(visiting, "ended", |database| {
            database.execute(&sql, [&phone]).unwrap() == 1
        })
        .await;
    }
    assert_eq!(settled(home, visiting).await.len(), 0);
    let at_home = rows(home).await;
    assert_eq!(at_home.held(), 0, "base devices are free again");
    for row in at_home
        .sessions
        .iter()
        .chain(&rows(visiting).await.sessions)
    {
        assert_eq!(
            row.end_reason.map(|r| r.to_string()).as_deref(),
            Some("user")
        );
        assert_eq!((row.owed, &row.parked), (false, &None), "{row:?}");
    }
    lab.shut_down().await;
}

/// Home comes back as it was before a logout and a login, and nothing is done by hand. The rows are as old as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_restored_from_a_backup_comes_to_agree_within_its_bound() {
    let mut lab = lab(2).await;
    is_in(&lab.clusters[0], 0, &lab.clusters[1], 0).await;
    is_in(&lab.clusters[1], 0, &lab.clusters[0], 0).await;
    is_in(&lab.clusters[0], 1, &lab.clusters[1], 1).await;
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup.db");
    let request = pb::BackUpStoreRequest {
        path: backup.display().to_string(),
    };
    let mut admin = lab.clusters[0].admin().await.unwrap();
    admin.back_up_store(request).await.unwrap();
    // Ended since, begun since, on both ways.
    for (cluster, phone) in [(1, 0), (0, 0)] {
        let gone = log_out(&lab.clusters[cluster], phone).await;
        assert!(gone.em_code.is_none(), "{gone:?}");
    }
    is_in(&lab.clusters[0], 2, &lab.clusters[1], 2).await;
    is_in(&lab.clusters[1], 3, &lab.clusters[0], 3).await;

    let data = lab.clusters[0].member().unwrap().folder.join("..");
    lab.clusters[0].member_mut().unwrap().stop().await;
    for end in ["", "-wal", "-shm"] {
        let old = data.join(format!("emccd.db{end}"));
        if old.exists() {
            fs::rename(&old, folder.path().join(format!("old.db{end}"))).unwrap();
        }
    }
    fs::copy(&backup, data.join("emccd.db")).unwrap();
    let member = lab.clusters[0].member_mut().unwrap();
    member.start(&Versions::default()).await.unwrap();
    let (here, there) = (&lab.clusters[0], &lab.clusters[1]);
    here.wait_linked(&there.id).await.unwrap();
    there.wait_linked(&here.id).await.unwrap();
    let of_ours = settled(here, there).await;
    let phone = there.data.phone(1).unwrap().name.to_string();
    assert_eq!(
        of_ours.iter().map(|s| s.device.clone()).collect::<Vec<_>>(),
        [phone]
    );
    assert_eq!(settled(there, here).await.len(), 0);
    for (home, visiting) in [(here, there), (there, here)] {
        let reasons = rows(home).await;
        let ended = reasons
            .sessions
            .iter()
            .filter(|s| s.role == Role::Home && s.state == State::Ended);
        assert!(ended.count() > 0, "{reasons:?}");
        for n in [2, 3] {
            is_in(home, n, visiting, n).await;
        }
    }
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mass_end_is_held_back_shown_and_takes_place() {
    let lab = lab(2).await;
    let (here, there) = (&lab.clusters[0], &lab.clusters[1]);
    is_in(here, 0, there, 0).await;
    // What the other cluster would have lost with its database.
    let sql = format!(
        "INSERT INTO sessions (role, counterpart, id, state, device, login_type, login_name, reference, created_at,
           changed_at, owed)
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 60)
         SELECT 'home', '{}', printf('0192f0c1-2345-7abc-8def-%012x', n), 'active', 'SEPLOST' || n, 'UID', 'ana',
           '00000000', 0, 0, 0 FROM n",
        there.id
    );
    until(here, "filled", |database| {
        database.execute(&sql, []).unwrap() == 60
    })
    .await;
    let is_held = |peer: &pb::PeerStatus| {
        let agreement = peer.agreement.as_ref();
        agreement.is_some_and(|a| a.state == "held" && a.held_ends == 60)
    };
    here.wait_status(&there.id, "held back", is_held)
        .await
        .unwrap();
    let lost = "SELECT COUNT(*) FROM sessions WHERE state = 'active' AND device LIKE 'SEPLOST%'";
    assert_eq!(
        tokio::task::block_in_place(|| count(&database(here), lost)),
        60
    );
    let status = done(here, "cluster status", "").await;
    assert!(
        status.contains("held back") && status.contains("60 ends"),
        "{status}"
    );
    let json = done(here, "--json cluster status", "").await;
    assert!(
        json.contains("\"held_ends\": 60") || json.contains("\"held_ends\":60"),
        "{json}"
    );
    let (_, figures) = ask(here.member().unwrap(), "/metrics").await;
    let figure = format!("emccd_sessions_held_back{{peer=\"{}\"}} 60", there.id);
    assert!(figures.contains(&figure), "{figures}");
    // The 30 s are over.
    tamper(
        here,
        "UPDATE agreements SET held_since = held_since - 30000",
    )
    .await;
    until(here, "ended", |database| count(database, lost) == 0).await;
    let is_over = |peer: &pb::PeerStatus| {
        peer.agreement
            .as_ref()
            .is_some_and(|a| a.state != "held" && a.held_ends == 0)
    };
    here.wait_status(&there.id, "over", is_over).await.unwrap();
    // The one that lives on both sides was never touched.
    assert_eq!(settled(here, there).await.len(), 1);
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_the_capability_is_told_by_retries_and_that_is_shown() {
    let mut lab = lab(2).await;
    let old = lab.clusters[1].member_mut().unwrap();
    old.stop().await;
    old.start(&Versions::up_to(emccd::domain::version::Version::V1_0))
        .await
        .unwrap();
    let (here, there) = (&lab.clusters[0], &lab.clusters[1]);
    here.wait_linked(&there.id).await.unwrap();
    there.wait_linked(&here.id).await.unwrap();
    // To an old node that calls, a new one behaves as then as well.
    for (cluster, other) in [(here, there), (there, here)] {
        is_in(cluster, 0, other, 0).await;
    }
    let is_unable =
        |peer: &pb::PeerStatus| peer.agreement.as_ref().is_some_and(|a| a.state == "unable");
    here.wait_status(&there.id, "unable", is_unable)
        .await
        .unwrap();
    let status = done(here, "cluster status", "").await;
    let told = "no sync-sessions: ends are told by retries, what is lost ends by expiry";
    assert!(status.contains(told), "{status}");
    for cluster in [here, there] {
        let gone = log_out(cluster, 0).await;
        assert!(gone.em_code.is_none(), "{gone:?}");
    }
    assert_eq!(settled(here, there).await.len(), 0);
    assert_eq!(settled(there, here).await.len(), 0);
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_node_is_killed_that_compares_another_one_does() {
    let mut lab = Lab::start(&Spec {
        clusters: 2,
        nodes: 2,
        hosting: Hosting::Processes { binary: binary() },
        ..Spec::default()
    })
    .await
    .unwrap();
    for n in 0..2 {
        let shown = log_in(&lab, 0, n, 1, n).await;
        assert!(shown.em_code.is_none(), "{shown:?}");
    }
    let holder = |cluster: &Cluster| {
        let sql =
            "SELECT coalesce(node, ''), '', '' FROM claims WHERE task LIKE 'agreement with %'";
        let [node, ..] = texts(cluster, sql).into_iter().next()?;
        Some(node).filter(|node| !node.is_empty())
    };
    until(&lab.clusters[0], "claimed", |_| {
        holder(&lab.clusters[0]).is_some()
    })
    .await;
    let killed = holder(&lab.clusters[0]).unwrap();
    let home = &mut lab.clusters[0];
    let at = home
        .members
        .iter()
        .position(|member| member.name == killed)
        .unwrap();
    home.members[at].kill().await.unwrap();
    let (home, visiting) = (&lab.clusters[0], &lab.clusters[1]);
    let phone = visiting.data.phone(0).unwrap().name.to_string();
    until(visiting, "lost", |database| {
        let sql = "DELETE FROM sessions WHERE device = $1";
        database.execute(sql, [&phone]).unwrap() == 1
    })
    .await;
    tamper(home, AGE).await;
    assert_eq!(settled(home, visiting).await.len(), 1);
    assert_ne!(holder(home).unwrap(), killed);
    lab.shut_down().await;
}
