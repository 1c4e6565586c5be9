//! What a cluster's database says of the work that one node at a time does.

use super::*;

/// What every cluster has somebody do at all times.
const ALWAYS: [&str; 3] = ["pending logins", "retention", "revocations"];
/// By the design, from the kill to the take.
const TAKEOVER: Duration = Duration::from_secs(10);

pub(crate) fn database(cluster: &Cluster) -> rusqlite::Connection {
    let file = cluster.member().unwrap().folder.join("../emccd.db");
    let database = rusqlite::Connection::open(file).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    database
}

/// The rows of a query of three texts.
pub(crate) fn texts(cluster: &Cluster, sql: &str) -> Vec<[String; 3]> {
    tokio::task::block_in_place(|| {
        let database = database(cluster);
        let mut statement = database.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]));
        rows.unwrap().map(Result::unwrap).collect()
    })
}

/// Waits until a node does all that is always done.
pub(super) async fn wait_taken_over(cluster: &Cluster, node: &str, killed: Instant) {
    let what = format!("{node} of {} has taken over", cluster.id);
    support::until(
        TAKEOVER.saturating_sub(killed.elapsed()),
        what,
        async || {
            let holders = texts(cluster, "SELECT task, coalesce(node, ''), '' FROM claims");
            let is_its = |task: &str| {
                holders
                    .iter()
                    .any(|[held, by, _]| held == task && by == node)
            };
            support::holds(ALWAYS.into_iter().all(is_its), &holders)
        },
    )
    .await;
}

/// In the order of the commits: each take is of the next generation, and whatever is done or given back is by the one
/// who took last. So no task was ever done by two nodes at a time, and no holder did anything after it had lost. The
/// number of what was done.
pub(super) async fn once_only(cluster: &Cluster) -> usize {
    let entries = texts(
        cluster,
        "SELECT action, subject, outcome FROM audit WHERE action LIKE 'claim%' ORDER BY rowid",
    );
    let mut last: std::collections::BTreeMap<&str, (u32, &str)> = Default::default();
    let (mut takes, mut effects) = (0, 0);
    for [action, task, outcome] in &entries {
        let (generation, rest) = outcome
            .strip_prefix("generation ")
            .and_then(|rest| rest.split_once(" of "))
            .unwrap_or_else(|| panic!("{outcome}"));
        let (owner, _) = rest
            .split_once("): ")
            .unwrap_or_else(|| panic!("{outcome}"));
        let now = (generation.parse::<u32>().unwrap(), owner);
        let before = last.get(task.as_str()).copied();
        if action == "claim.take" {
            let next = before.map_or(1, |(generation, _)| generation + 1);
            assert_eq!(now.0, next, "{}: {task}: {entries:#?}", cluster.id);
            last.insert(task.as_str(), now);
            takes += 1;
        } else {
            assert_eq!(
                Some(now),
                before,
                "{}: {action} {task}: {entries:#?}",
                cluster.id
            );
            effects += usize::from(action == "claim.effect");
        }
    }
    assert!(takes > ALWAYS.len(), "{}: {entries:#?}", cluster.id);
    effects
}
