//! Once a minute each node notes in its own audit how far those of the others go, and in the log how far its own goes:
//! a log that is collected elsewhere knows what no writer of the database can take back.

use std::{collections::BTreeMap, time::Duration};

use tracing::{error, info, warn};

use crate::{
    clock::Clock,
    store::{
        Store, Transaction,
        audit::{self, Noted},
    },
    tasks::Tasks,
    telemetry::error_chain,
};

const PERIOD: Duration = Duration::from_secs(60);

/// Looks now, and then every minute until the node shuts down.
pub(super) async fn watch_audit(store: Store, clock: Clock, tasks: Tasks) {
    let mut seen = BTreeMap::new();
    let mut own = None;
    let mut unsealed = Vec::new();
    loop {
        match look(&store, &clock, &seen).await {
            Ok(found) => {
                tell(&found, &own, &unsealed);
                (seen, own, unsealed) = (found.seen, found.own, found.unsealed);
            }
            Err(cause) => warn!(
                cause = error_chain(&cause),
                "the heads of the audit could not be noted; the next minute tries again"
            ),
        }
        tokio::select! {
            biased;
            () = tasks.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

async fn look(
    store: &Store,
    clock: &Clock,
    seen: &BTreeMap<String, i64>,
) -> Result<audit::Witnessed, crate::store::Error> {
    let (seen, now) = (seen.clone(), clock.now());
    store
        .write(move |tx: &mut dyn Transaction| audit::witness(tx, &seen, now))
        .await
}

fn tell(found: &audit::Witnessed, before: &Option<Noted>, unsealed: &[String]) {
    if let Some(own) = &found.own
        && Some(own) != before.as_ref()
    {
        info!(audit.head = %own, "the audit of this node goes to entry {}", own.seq);
    }
    for node in found
        .unsealed
        .iter()
        .filter(|node| !unsealed.contains(node))
    {
        error!(
            node,
            "the audit of node {node} has no good seal: somebody has written to the database past the daemon, or it ran \
             with another pepper; `emccd audit verify` says where"
        );
    }
}
