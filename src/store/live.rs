//! The connections with peers that each node of this cluster has, as the node itself has put on record for its siblings.
//!
//! A record counts for the run that wrote it, and only while that run stands in [`nodes`].

use serde::{Deserialize, Serialize};

use crate::{
    domain::liveness::Incarnation,
    store::{Transaction, error::Error, meta, nodes, value::Value},
};

/// How many are told of one node; connections that rest on the same are one. Several times what a node has with a
/// thousand peers.
pub const MOST: usize = 16_384;

/// The connections of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Those that there was room for.
    pub told: Vec<Connection>,
    /// Whether there are more, of which nothing is known.
    pub are_more: bool,
}

/// Connections of one node that rest on the same certificates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Connection {
    /// The peer.
    pub cluster: String,
    /// Which one it is, in words.
    pub told: String,
    /// Fingerprints of what the peer showed, the leaf first.
    pub shown: Vec<[u8; 32]>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    instance: String,
    connections: Vec<Connection>,
    #[serde(default)]
    are_more: bool,
}

impl Connections {
    /// As many of them as are told, and whether that is all.
    #[must_use]
    pub fn of(all: impl IntoIterator<Item = Connection>) -> Self {
        let mut all = all.into_iter();
        let told = all.by_ref().take(MOST).collect();
        Self {
            told,
            are_more: all.next().is_some(),
        }
    }
}

/// Puts on record which connections a run has; false when the run is not on record itself.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put(
    tx: &mut dyn Transaction,
    run: &Incarnation,
    connections: &Connections,
) -> Result<bool, Error> {
    if nodes::get(tx, &run.node)?.is_none_or(|node| node.run != *run) {
        return Ok(false);
    }
    let record = Record {
        instance: run.instance.clone(),
        connections: connections.told.clone(),
        are_more: connections.are_more,
    };
    let Value::Text(text) = Value::json(&record)? else {
        return Ok(false);
    };
    meta::put(tx, &key_of(&run.node), &text)?;
    Ok(true)
}

/// What a run has put on record; none when it has said nothing.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn of(tx: &mut dyn Transaction, run: &Incarnation) -> Result<Option<Connections>, Error> {
    let text = meta::get(tx, &key_of(&run.node))?;
    // What can't be read is put on record anew by its node.
    let record = text.and_then(|text| serde_json::from_str::<Record>(&text).ok());
    let record = record.filter(|record| record.instance == run.instance);
    Ok(record.map(|record| Connections {
        told: record.connections,
        are_more: record.are_more,
    }))
}

fn key_of(node: &str) -> String {
    format!("live-connections {node}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Timestamp,
        store::{self, Store, nodes::Node},
    };

    #[tokio::test]
    async fn what_a_run_said_counts_for_that_run_alone() {
        let store = Store::open(&store::Config {
            url: "sqlite::memory:".to_owned(),
            node: "n1".to_owned(),
        })
        .unwrap();
        let run = |instance: &str| Incarnation {
            node: "n2".to_owned(),
            instance: instance.to_owned(),
        };
        let connection = Connection {
            cluster: "tokyo".to_owned(),
            told: "the link to tokyo".to_owned(),
            shown: vec![[7; 32]],
        };
        let done = store.write(move |tx: &mut dyn Transaction| {
            let told = Connections {
                told: vec![connection.clone()],
                are_more: true,
            };
            assert!(!put(tx, &run("a"), &told)?, "it is not on record");
            let node = |instance| Node {
                run: run(instance),
                addresses: Vec::new(),
                software: String::new(),
                started_at: Timestamp::from_millis(0),
                beat: 0,
            };
            nodes::register(tx, &node("a"))?;
            assert_eq!(of(tx, &run("a"))?, None);
            assert!(put(tx, &run("a"), &told)?);
            assert_eq!(of(tx, &run("a"))?, Some(told.clone()));
            nodes::register(tx, &node("b"))?;
            assert_eq!(of(tx, &run("b"))?, None, "another run has others");
            assert!(!put(tx, &run("a"), &told)?);
            Ok::<_, Error>(())
        });
        done.await.unwrap();
    }
}
