//! Which connections this node has with peers, put on record for the other nodes of its cluster: whoever takes a
//! certificate away is told of the connections of all.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::sleep;
use tracing::debug;

use crate::{
    store::{
        self, Store, Transaction,
        live::{self, Connection, Connections},
        membership::Membership,
    },
    tasks::Tasks,
    trust::in_use::{InUse, Opened, Use},
};

/// The least time between two records: connections come and go.
const SPACING: Duration = Duration::from_secs(1);
/// How often the record is looked at without a reason: it went if this node was taken for dead.
const LOOK: Duration = Duration::from_secs(10);

/// Keeps the record true until the node shuts down.
pub(super) async fn tell(store: Store, membership: Membership, in_use: InUse, tasks: Tasks) {
    let telling = async {
        let mut changes = in_use.changes();
        loop {
            changes.mark_unchanged();
            let now = told(&in_use.all());
            if let Err(error) = record(&store, &membership, now).await {
                // It is tried again, and who asks meanwhile is told that it is not known.
                debug!(
                    cause = crate::telemetry::error_chain(&error),
                    "the connections of this node can't be put on record"
                );
            }
            sleep(SPACING).await;
            tokio::select! {
                biased;
                Ok(()) = changes.changed() => {}
                () = sleep(LOOK) => {}
            }
        }
    };
    tasks.token().run_until_cancelled(telling).await;
}

async fn record(
    store: &Store,
    membership: &Membership,
    now: Connections,
) -> Result<(), store::Error> {
    let run = membership.run().clone();
    let asked = run.clone();
    let before = store
        .read(move |tx: &mut dyn Transaction| live::of(tx, &asked))
        .await?;
    if before.as_ref() == Some(&now) {
        return Ok(());
    }
    store
        .write(move |tx: &mut dyn Transaction| live::put(tx, &run, &now))
        .await
        .map(drop)
}

/// Those that rest on the same are one. Where a peer's end is counts where we dial; where it calls from is another port
/// each time.
fn told(uses: &[Use]) -> Connections {
    let mut all = BTreeSet::new();
    for entry in uses {
        let told = match entry.opened {
            Opened::ByUs => entry.to_string(),
            Opened::ByPeer => format!("connections of {}", entry.cluster),
        };
        let connection = Connection {
            cluster: entry.cluster.to_string(),
            told,
            shown: entry.shown.clone(),
        };
        all.insert(connection);
    }
    Connections::of(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ClusterId;

    #[test]
    fn connections_that_rest_on_the_same_are_told_once() {
        let entry = |opened, port: u16, leaf| Use {
            opened,
            cluster: ClusterId::new("tokyo").unwrap(),
            address: format!("192.0.2.1:{port}"),
            own: None,
            shown: vec![[leaf; 32]],
        };
        let told = told(&[
            entry(Opened::ByPeer, 5001, 1),
            entry(Opened::ByPeer, 5002, 1),
            entry(Opened::ByPeer, 5003, 2),
            entry(Opened::ByUs, 8444, 1),
        ]);
        assert!(!told.are_more);
        let told = told.told.iter();
        let texts: Vec<_> = told.map(|c| (&*c.told, c.shown[0][0])).collect();
        assert_eq!(
            texts,
            [
                ("connections of tokyo", 1),
                ("connections of tokyo", 2),
                ("the link to tokyo at 192.0.2.1:8444", 1),
            ]
        );
    }

    #[test]
    fn what_there_is_no_room_for_is_not_passed_over_in_silence() {
        let links = |count: usize| -> Vec<_> {
            let link = |number: usize| Use {
                opened: Opened::ByUs,
                cluster: ClusterId::new("tokyo").unwrap(),
                address: format!("n{number}.tokyo.example:8444"),
                own: None,
                shown: vec![[7; 32]],
            };
            (0..count).map(link).collect()
        };
        // A thousand peers of two nodes, both ways, are far below.
        let all = told(&links(live::MOST));
        assert!(all.told.len() > 4_000 && !all.are_more);
        let some = told(&links(live::MOST + 1));
        assert_eq!(some.told.len(), live::MOST);
        assert!(some.are_more);
    }
}
