//! Nodes note one another's heads in their own chains: a chain that was cut off, with its head and a seal from before, is
//! not what others have seen.

use std::collections::BTreeMap;

use super::{Action, Entry, Noted, Recorded, append, head};
use crate::{
    clock::Timestamp,
    store::{Transaction, error::Error},
};

/// What one look at the heads found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witnessed {
    /// Where this node's own chain stands afterwards.
    pub own: Option<Noted>,
    /// Nodes whose heads have no good seal, in their order.
    pub unsealed: Vec<String>,
    /// The newest heads of the others that are noted, for the next look.
    pub seen: BTreeMap<String, i64>,
}

/// Notes the heads of all other nodes that have moved on since `seen`. That others have noted heads themselves is no
/// reason to note theirs: it would go on for ever.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn witness(
    tx: &mut dyn Transaction,
    seen: &BTreeMap<String, i64>,
    now: Timestamp,
) -> Result<Witnessed, Error> {
    let me = tx.node().to_owned();
    let mut found = Witnessed {
        own: None,
        unsealed: Vec::new(),
        seen: seen.clone(),
    };
    for mut row in tx.query("SELECT node FROM audit_heads ORDER BY node", &[])? {
        let node = row.text()?;
        let Some(head) = head(tx, &node)? else {
            continue;
        };
        if !head.is_sealed(tx.audit_key(), &node) {
            found.unsealed.push(node);
            continue;
        }
        let before = found.seen.get(&node).copied().unwrap_or_default();
        if node == me || head.seq == before || !has_news(tx, &node, before)? {
            continue;
        }
        let noted = Noted {
            node,
            seq: head.seq,
            hash: head.hash,
        };
        append(
            tx,
            &Entry {
                at: now,
                actor: format!("node {me}"),
                action: Action::AuditWitness,
                subject: noted.node.clone(),
                outcome: noted.to_string(),
                reference: None,
            },
        )?;
        found.seen.insert(noted.node, noted.seq);
    }
    found.own = head(tx, &me)?.map(|head| Noted {
        node: me,
        seq: head.seq,
        hash: head.hash,
    });
    Ok(found)
}

/// Whether there is anything after that entry but what was noted of others.
fn has_news(tx: &mut dyn Transaction, node: &str, after: i64) -> Result<bool, Error> {
    let news = tx.query_one(
        "SELECT 1 FROM audit WHERE node = $1 AND seq > $2 AND action <> $3 LIMIT 1",
        &[
            node.into(),
            after.into(),
            Action::AuditWitness.as_str().into(),
        ],
    )?;
    Ok(news.is_some())
}

/// What an entry of such a look says.
pub(super) fn seen(entry: &Recorded) -> Option<Noted> {
    entry.outcome.parse().ok()
}
