//! Two nodes of one cluster, each a process: what is changed at one is in force at the other, and one that stands still
//! loses its work and does nothing under what it lost.

use std::collections::BTreeMap;

use emccd::{
    lab::{admin::Admin, member::Member},
    wire::admin as pb,
};

use super::{claims::texts, *};
use crate::support::{self, log_in};

const HOME: usize = 0;
const VISITING: usize = 1;

/// By the design: a change is in force at every node.
const IN_FORCE: Duration = Duration::from_secs(1);
/// What calls under way are given when trust is taken back.
const GRACE: Duration = Duration::from_millis(500);
const ROUNDS: usize = 3;
/// How long anything may take at most: a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A change of a peer, made at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Disabled,
    Enabled,
    OneAddress,
    AllAddresses,
    Distrusted,
    Trusted,
}

impl Change {
    const ALL: [Self; 6] = [
        Self::Disabled,
        Self::Enabled,
        Self::OneAddress,
        Self::AllAddresses,
        Self::Distrusted,
        Self::Trusted,
    ];

    /// Makes it; when the last word of it was given.
    async fn make(self, here: &mut Admin, peer: &Cluster) -> Instant {
        let began = Instant::now();
        let cluster_id = peer.id.to_string();
        let addresses = peer.members.iter().map(|m| m.addresses.federation.clone());
        let record = match self {
            Self::Disabled | Self::Enabled => pb::SetClusterRequest {
                cluster_id,
                enabled: Some(self == Self::Enabled),
                ..pb::SetClusterRequest::default()
            },
            Self::OneAddress | Self::AllAddresses => {
                let count = if self == Self::OneAddress { 1 } else { NODES };
                pb::SetClusterRequest {
                    cluster_id,
                    addresses: Some(pb::TextList {
                        values: addresses.take(count).collect(),
                    }),
                    ..pb::SetClusterRequest::default()
                }
            }
            Self::Distrusted => return distrust(here, cluster_id).await,
            Self::Trusted => return trust(here, peer).await,
        };
        here.set_cluster(record).await.unwrap();
        began
    }

    fn is_in_force(self, peer: &pb::PeerStatus) -> bool {
        let state = peer.outbound.as_ref().map(|o| o.state.as_str());
        let is_up = state == Some("up");
        match self {
            Self::Disabled => state == Some("disabled"),
            Self::Enabled | Self::Trusted => is_up,
            Self::OneAddress => peer.nodes.len() == 1,
            Self::AllAddresses => peer.nodes.len() == NODES,
            // Both ways: the link of ours, and theirs to us.
            Self::Distrusted => !is_up && !peer.inbound.as_ref().is_some_and(|i| i.watching),
        }
    }
}

async fn distrust(here: &mut Admin, cluster_id: String) -> Instant {
    let query = pb::ListTrustRequest {
        cluster_id: Some(cluster_id.clone()),
    };
    let entries = here.trust(query).await.unwrap().entries;
    let accepted = entries.into_iter().filter(|entry| entry.kind == "pinned");
    let mut began = Instant::now();
    for entry in accepted {
        began = Instant::now();
        let request = pb::RemoveTrustRequest {
            cluster_id: cluster_id.clone(),
            fingerprint: entry.certificate.unwrap().fingerprint,
            mode: "unlink".to_owned(),
        };
        here.remove_trust(request).await.unwrap();
    }
    began
}

async fn trust(here: &mut Admin, peer: &Cluster) -> Instant {
    let read = |member: &Member| std::fs::read_to_string(&member.federation_certificate).unwrap();
    let certificates: String = peer.members.iter().map(read).collect();
    let request = pb::AddTrustRequest {
        cluster_id: peer.id.to_string(),
        trust: Some(pb::TrustMaterial {
            kind: "pinned".to_owned(),
            certificates: certificates.into_bytes(),
        }),
        unrevoke: None,
    };
    let began = Instant::now();
    let added = here.add_trust(request).await.unwrap().added;
    assert_eq!(added.len(), NODES);
    began
}

async fn changes_at_one_process_are_in_force_at_the_other(lab: &Lab) {
    let (cluster, peer) = (&lab.clusters[HOME], &lab.clusters[VISITING]);
    let mut here = cluster.members[0].admin().await.unwrap();
    let mut there = cluster.members[1].admin().await.unwrap();
    let mut took: BTreeMap<Change, Vec<Duration>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for change in Change::ALL {
            let began = change.make(&mut here, peer).await;
            let seen = |status: &pb::PeerStatus| change.is_in_force(status);
            let what = format!("{change:?}");
            there.wait_status(&peer.id, &what, seen).await.unwrap();
            took.entry(change).or_default().push(began.elapsed());
            // The next change begins from the same state at both.
            here.wait_status(&peer.id, &what, seen).await.unwrap();
        }
    }
    for (change, mut times) in took {
        // One of them may meet a machine that is busy with other tests.
        times.sort();
        let within = match change {
            Change::Distrusted => IN_FORCE + GRACE,
            _ => IN_FORCE,
        };
        assert!(times[ROUNDS / 2] < within, "{change:?}: {times:?}");
    }
}

/// A policy that is set at one process is what the other one goes by, from the next wrong PIN, and what both have
/// counted is one count.
async fn wrong_pins_at_both_are_counted_by_the_policy_set_at_one(lab: &Lab) {
    const ALLOWED: usize = 3;
    let home = &lab.clusters[HOME];
    let type_in = |node, line: &str| tokio::task::block_in_place(|| type_in(home, node, line));
    let enter = async |node: usize, phone: usize, user: &str, pin: &str| {
        let device = &home.data.phone(phone).unwrap().name;
        let browser = home.members[node].phone().unwrap();
        let shown = browser.login_at_once(device, None, user, pin).await;
        shown.unwrap().em_code
    };
    let judged = |user: &str| {
        let told = "SELECT outcome, '', '' FROM audit WHERE outcome LIKE 'wrong PIN for user ";
        texts(home, &format!("{told}{user} %' ORDER BY rowid"))
    };
    type_in(0, "policy set default --failures-before-lock 3");
    let [by_turns, at_once] = [3, 4].map(|number| home.data.user(number).unwrap());
    for node in [1, 0, 1] {
        let wrong = enter(node, 0, &by_turns.user_id, "000000").await;
        assert_eq!(wrong, Some(201));
    }
    let told = judged(&by_turns.user_id);
    assert_eq!(told.len(), ALLOWED, "{told:?}");
    assert!(told[2][0].contains("(3 counted; locked until "), "{told:?}");
    // At both at the same time; a node that has enough to do says so (26), and judges nothing.
    let began = Instant::now();
    let (mut answered, mut turned_away) = (0, 0);
    while answered <= 2 * ALLOWED {
        assert!(began.elapsed() < LIMIT, "{answered}");
        let guesses = (0..8).map(|n| enter(n % NODES, n % 4, &at_once.user_id, "000000"));
        for code in join_all(guesses).await {
            match code {
                Some(201) => answered += 1,
                Some(26) => turned_away += 1,
                other => panic!("{other:?} after {answered} and {turned_away}"),
            }
        }
    }
    assert_eq!(judged(&at_once.user_id).len(), ALLOWED);
    // Both are locked at both, until an operator of either says otherwise.
    for user in [by_turns, at_once] {
        for node in [0, 1] {
            assert_eq!(enter(node, 0, &user.user_id, &user.pin).await, Some(201));
        }
        type_in(1, &format!("pin unlock {}", user.user_id));
        assert_eq!(enter(0, 0, &user.user_id, &user.pin).await, None);
        let device = &home.data.phone(0).unwrap().name;
        let browser = home.members[1].phone().unwrap();
        assert_eq!(browser.logout(device).await.unwrap().em_code, None);
    }
    type_in(1, "policy set default --failures-before-lock 5");
}

/// Stops a process, though not within a transaction: on one file nobody else could write.
pub(crate) async fn stand_still(cluster: &Cluster, member: &Member) {
    support::until(
        LIMIT,
        "it stands still between two transactions",
        async || {
            member.pause().unwrap();
            let tried = tokio::task::block_in_place(|| {
                let database = claims::database(cluster);
                database
                    .busy_timeout(Duration::from_millis(500))
                    .and_then(|()| database.execute_batch("BEGIN IMMEDIATE; ROLLBACK"))
            });
            tried.map_err(|error| {
                member.resume().unwrap();
                error.to_string()
            })
        },
    )
    .await;
}

/// Waits until a query gives anything.
async fn until(cluster: &Cluster, sql: &str) {
    support::until(LIMIT, sql, async || {
        support::holds(!texts(cluster, sql).is_empty(), "nothing")
    })
    .await;
}

/// What a node that lives moves on; none while it is not on record.
fn beat(cluster: &Cluster, member: &Member) -> Option<String> {
    let sql = "SELECT CAST(beat AS TEXT), '', '' FROM nodes WHERE name = ";
    let mut rows = texts(cluster, &format!("{sql} '{}'", member.name));
    rows.pop().map(|[beat, ..]| beat)
}

/// Takes the right to log in from a user at a node of home.
fn disable(lab: &Lab, user: usize, node: usize) {
    let home = &lab.clusters[HOME];
    let user = &home.data.user(user).unwrap().user_id;
    let line = format!("user set {user} --enabled false");
    tokio::task::block_in_place(|| type_in(home, node, &line));
}

/// Waits until a phone is nobody's, at its own cluster.
async fn until_free(lab: &Lab, phone: usize) {
    let device = &lab.clusters[VISITING].data.phone(phone).unwrap().name;
    let mut admin = lab.clusters[VISITING].admin().await.unwrap();
    support::until(LIMIT, format_args!("{device} is free"), async || {
        let living = admin.living().await.unwrap();
        support::holds(living.iter().all(|s| s.device != *device), &living)
    })
    .await;
}

async fn a_process_that_stands_still_loses_its_work_and_wakes_to_none(lab: &Lab) {
    let (home, visiting) = (&lab.clusters[HOME], &lab.clusters[VISITING]);
    let [old, new] = [&home.members[0], &home.members[1]];
    wait_taken_over(home, &old.name, Instant::now()).await;
    // It also holds the right to tell the other cluster of ends: that one has just been told of one.
    disabling_ends(lab, 0).await;
    let telling = format!(
        "SELECT task, '', '' FROM claims WHERE task = 'deliveries to {}' AND node = ",
        visiting.id
    );
    until(home, &format!("{telling} '{}'", old.name)).await;
    for number in [0, 1, 2] {
        let shown = log_in(lab, HOME, number, VISITING, number).await;
        assert_eq!(shown.em_code, None, "{}", shown.text);
    }

    // It stands still with an end on its way, that the other cluster answers only later.
    visiting.members.iter().for_each(|m| m.pause().unwrap());
    disable(lab, 0, 0);
    until(home, "SELECT id, '', '' FROM sessions WHERE owed = 1").await;
    stand_still(home, old).await;
    let stopped = Instant::now();
    let mark = texts(home, "SELECT CAST(max(rowid) AS TEXT), '', '' FROM audit");
    visiting.members.iter().for_each(|m| m.resume().unwrap());
    wait_taken_over(home, &new.name, stopped).await;
    until(home, &format!("{telling} '{}'", new.name)).await;
    until_free(lab, 0).await;
    disable(lab, 1, 1);
    until_free(lab, 1).await;

    // Awake again it beats, serves and changes data; the work stays with the other.
    let before = beat(home, old);
    old.resume().unwrap();
    support::until(
        LIMIT,
        format_args!("{} is on record again", old.name),
        async || {
            let now = beat(home, old);
            support::holds(now.is_some() && now != before, now)
        },
    )
    .await;
    disable(lab, 2, 0);
    until_free(lab, 2).await;
    until(
        home,
        "SELECT '', '', '' WHERE NOT EXISTS (SELECT 1 FROM sessions WHERE owed = 1)",
    )
    .await;

    assert!(once_only(home).await > 0);
    let since = format!(
        "SELECT action, subject, outcome FROM audit WHERE action LIKE 'claim%' AND rowid > {}",
        mark[0][0]
    );
    let since = texts(home, &since);
    let by_new = format!(" of {} (", new.name);
    assert!(
        since.iter().all(|entry| entry[2].contains(&by_new)),
        "{since:#?}"
    );
    let telling = format!("deliveries to {}", visiting.id);
    for task in [telling.as_str(), "revocations"] {
        let is_effect = |entry: &&[String; 3]| entry[0] == "claim.effect" && entry[1] == task;
        let effects = since.iter().filter(is_effect).count();
        assert!(effects > 0, "{task}: {since:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_of_one_cluster_share_what_is_changed_and_take_over_what_one_lets_lie() {
    let spec = Spec {
        clusters: 2,
        nodes: NODES,
        hosting: Hosting::Processes { binary: binary() },
        ..Spec::default()
    };
    let lab = Lab::start(&spec).await.unwrap();
    changes_at_one_process_are_in_force_at_the_other(&lab).await;
    wrong_pins_at_both_are_counted_by_the_policy_set_at_one(&lab).await;
    a_process_that_stands_still_loses_its_work_and_wakes_to_none(&lab).await;
    lab.shut_down().await;
}
