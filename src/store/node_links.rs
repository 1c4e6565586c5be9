//! How the links of each node of this cluster stand, as the node itself has put on record for its siblings.
//!
//! A row counts for the run that wrote it, and only while that run's row stands in [`nodes`](super::nodes): it goes with
//! it. Whether the run still lives is not said here; who asks takes that from
//! [`Membership::living`](super::membership::Membership::living).

use std::collections::BTreeMap;

use crate::{
    clock::Timestamp,
    domain::{federation::LinkState, ids::ClusterId, liveness::Incarnation},
    store::{Transaction, batch, error::Error, nodes, value::Row},
};

/// How one node's link to one peer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The peer.
    pub cluster: ClusterId,
    /// The best of the node's links to it.
    pub state: LinkState,
    /// Since when, by the node's own clock.
    pub since: Timestamp,
    /// Why it isn't up; none while it is, or when nothing is known.
    pub reason: Option<String>,
}

/// Makes `links` all that is on record of that run, and of its node. Only what differs is written. False, and nothing is
/// changed, when the run is not on record itself: its node has left, or another run stands in its place.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put(tx: &mut dyn Transaction, run: &Incarnation, links: &[Link]) -> Result<bool, Error> {
    let Some(before) = of(tx, run)? else {
        return Ok(false);
    };
    tx.execute(
        "DELETE FROM node_links WHERE node = $1 AND instance <> $2",
        &[(&run.node).into(), (&run.instance).into()],
    )?;
    let mut before: BTreeMap<_, _> = before.into_iter().map(|l| (l.cluster.clone(), l)).collect();
    for link in links {
        if before.remove(&link.cluster).as_ref() == Some(link) {
            continue;
        }
        tx.execute(
            "INSERT INTO node_links (node, cluster_id, instance, state, since, reason) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (node, cluster_id) DO UPDATE SET state = excluded.state, since = excluded.since,
               reason = excluded.reason",
            &[
                (&run.node).into(),
                (&link.cluster).into(),
                (&run.instance).into(),
                link.state.into(),
                link.since.into(),
                link.reason.as_ref().into(),
            ],
        )?;
    }
    for cluster in before.keys() {
        tx.execute(
            "DELETE FROM node_links WHERE node = $1 AND cluster_id = $2",
            &[(&run.node).into(), cluster.into()],
        )?;
    }
    Ok(true)
}

/// What a run has put on record, by peer; none when it is not on record itself.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn of(tx: &mut dyn Transaction, run: &Incarnation) -> Result<Option<Vec<Link>>, Error> {
    if nodes::get(tx, &run.node)?.is_none_or(|node| node.run != *run) {
        return Ok(None);
    }
    let rows = tx.query(
        "SELECT cluster_id, state, since, reason FROM node_links WHERE node = $1 AND instance = $2",
        &[(&run.node).into(), (&run.instance).into()],
    )?;
    let mut links: Vec<Link> = rows.into_iter().map(link).collect::<Result<_, _>>()?;
    links.sort_by(|a, b| a.cluster.cmp(&b.cluster));
    Ok(Some(links))
}

/// What all runs that are on record have said, by node and peer.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn all(tx: &mut dyn Transaction) -> Result<Vec<(Incarnation, Link)>, Error> {
    tx.query(
        "SELECT l.node, l.instance, l.cluster_id, l.state, l.since, l.reason FROM node_links l
         JOIN nodes n ON n.name = l.node AND n.instance = l.instance ORDER BY l.node, l.cluster_id",
        &[],
    )?
    .into_iter()
    .map(|mut row| Ok((run(&mut row)?, link(row)?)))
    .collect()
}

/// The runs on record that say that their link to one of `clusters` is up, each with that one; in no order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn linked(
    tx: &mut dyn Transaction,
    clusters: &[ClusterId],
) -> Result<Vec<(Incarnation, ClusterId)>, Error> {
    let names: Vec<String> = clusters.iter().map(ToString::to_string).collect();
    batch::among(
        tx,
        "SELECT l.node, l.instance, l.cluster_id FROM node_links l
         JOIN nodes n ON n.name = l.node AND n.instance = l.instance AND l.state = 'up'",
        "l.cluster_id",
        &names,
        |mut row| Ok((run(&mut row)?, row.parse()?)),
    )
}

fn run(row: &mut Row) -> Result<Incarnation, Error> {
    Ok(Incarnation {
        node: row.text()?,
        instance: row.text()?,
    })
}

fn link(mut row: Row) -> Result<Link, Error> {
    Ok(Link {
        cluster: row.parse()?,
        state: row.parse()?,
        since: row.time()?,
        reason: row.opt_text()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{self, Store, nodes::Node};

    fn node(name: &str, instance: &str) -> Node {
        Node {
            run: Incarnation {
                node: name.to_owned(),
                instance: instance.to_owned(),
            },
            addresses: Vec::new(),
            software: String::new(),
            started_at: Timestamp::from_millis(1),
            beat: 0,
        }
    }

    fn to(cluster: &str, state: LinkState, since: i64) -> Link {
        Link {
            cluster: ClusterId::new(cluster).unwrap(),
            state,
            since: Timestamp::from_millis(since),
            reason: (state != LinkState::Up).then(|| "connection refused".to_owned()),
        }
    }

    fn those(found: Vec<(Incarnation, ClusterId)>) -> Vec<String> {
        let mut found: Vec<_> = found
            .into_iter()
            .map(|(run, cluster)| format!("{} {cluster}", run.node))
            .collect();
        found.sort();
        found
    }

    #[tokio::test]
    async fn what_a_run_says_counts_as_long_as_it_is_on_record_and_goes_with_its_node() {
        use LinkState::{Down, Up};
        let config = store::Config {
            url: "sqlite::memory:".to_owned(),
            node: "n1".to_owned(),
        };
        let store = Store::open(&config).unwrap();
        let done = store.write(|tx: &mut dyn Transaction| {
            let (one, two) = (node("n1", "a"), node("n2", "b"));
            assert!(
                !put(tx, &one.run, &[to("tokyo", Up, 1)])?,
                "it is not on record itself"
            );
            assert_eq!((of(tx, &one.run)?, all(tx)?), (None, Vec::new()));
            for n in [&one, &two] {
                nodes::register(tx, n)?;
            }
            assert!(put(
                tx,
                &one.run,
                &[to("paris", Down, 2), to("tokyo", Up, 3)]
            )?);
            assert!(put(tx, &two.run, &[to("lima", Up, 4), to("paris", Up, 5)])?);
            let asked = ["lima", "oslo", "paris", "tokyo"].map(|id| ClusterId::new(id).unwrap());
            assert_eq!(
                those(linked(tx, &asked)?),
                ["n1 tokyo", "n2 lima", "n2 paris"]
            );
            assert_eq!(those(linked(tx, &asked[3..])?), ["n1 tokyo"]);
            assert_eq!(linked(tx, &[])?, []);

            // What is not named goes, and what has changed is another one.
            assert!(put(tx, &two.run, &[to("paris", Down, 6)])?);
            assert_eq!(of(tx, &two.run)?, Some(vec![to("paris", Down, 6)]));
            assert_eq!(those(linked(tx, &asked)?), ["n1 tokyo"]);
            assert_eq!(all(tx)?.len(), 3);

            // Another run of the node has said nothing yet, and the one before says nothing that counts any more.
            let next = node("n1", "c");
            nodes::register(tx, &next)?;
            assert_eq!(of(tx, &next.run)?, Some(Vec::new()));
            assert_eq!((linked(tx, &asked)?, all(tx)?.len()), (Vec::new(), 1));
            assert!(!put(tx, &one.run, &[to("tokyo", Up, 7)])?);
            assert!(put(tx, &next.run, &[to("lima", Up, 8)])?);
            assert_eq!(of(tx, &next.run)?, Some(vec![to("lima", Up, 8)]));
            assert_eq!(those(linked(tx, &asked)?), ["n1 lima"]);

            nodes::remove(tx, &next.run)?;
            assert_eq!(all(tx)?, [(two.run.clone(), to("paris", Down, 6))]);
            nodes::register(tx, &next)?;
            assert_eq!(
                of(tx, &next.run)?,
                Some(Vec::new()),
                "its links went with it"
            );
            Ok::<_, Error>(())
        });
        done.await.unwrap();
    }
}
