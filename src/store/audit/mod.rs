//! The audit: one chain of entries per node. Each entry's SHA-256 covers its fields and the hash of the one
//! before it; the head of each chain stands in a row of its own and moves in the same transaction. So a changed,
//! missing or foreign entry is found, also at the end of a chain.
//!
//! Entries hold what callers give them, in plain text: never a secret.

mod action;

pub use self::action::{Action, Noun};

use sha2::{Digest, Sha256};

use crate::{
    clock::Timestamp,
    domain::ids::Ref,
    store::{
        Transaction,
        error::Error,
        value::{Row, Value, fold},
    },
};

/// Something that a person or a peer caused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// Who caused it.
    pub actor: String,
    /// What they did.
    pub action: Action,
    /// To what.
    pub subject: String,
    /// What came of it.
    pub outcome: String,
    /// The attempt it belongs to.
    pub reference: Option<Ref>,
}

/// An entry as it stands in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The node that wrote it.
    pub node: String,
    /// Its place in that node's chain, from 1.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// Who caused it.
    pub actor: String,
    /// What they did.
    pub action: String,
    /// To what.
    pub subject: String,
    /// What came of it.
    pub outcome: String,
    /// The attempt it belongs to.
    pub reference: Option<Ref>,
    /// Hash over all of this and the hash of the entry before.
    pub hash: [u8; 32],
}

/// What a check of all chains found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// One for each node, by name.
    pub chains: Vec<Chain>,
}

impl AuditReport {
    /// Whether every chain is whole.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.chains.iter().all(|chain| chain.fault.is_none())
    }
}

/// The state of one node's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Whose.
    pub node: String,
    /// Entries that are good, up to the first fault.
    pub entries: i64,
    /// The first fault.
    pub fault: Option<Fault>,
}

impl Fault {
    /// The entry it is about.
    #[must_use]
    pub const fn entry(self) -> i64 {
        match self {
            Self::Changed(entry) | Self::Head(entry) | Self::Missing(entry) => entry,
        }
    }
}

/// What is wrong with a chain, and at which entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The entry, or the one before it, is not what was written.
    #[error("entry {0} does not match its hash")]
    Changed(i64),
    /// The head's row is not that of the last entry.
    #[error("the head does not match entry {0}")]
    Head(i64),
    /// The entry is missing.
    #[error("entry {0} is missing")]
    Missing(i64),
}

const COLUMNS: &str = "node, seq, at, actor, action, subject, outcome, reference, hash";

// How many entries a check holds in memory at once.
const PAGE: u32 = 1_000;

/// Appends an entry to the chain of the node that runs the transaction.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn append(tx: &mut dyn Transaction, entry: &Entry) -> Result<(), Error> {
    append_all(tx, std::slice::from_ref(entry))
}

/// Appends entries, in their order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn append_all(tx: &mut dyn Transaction, entries: &[Entry]) -> Result<(), Error> {
    if entries.is_empty() {
        return Ok(());
    }
    let node = tx.node().to_owned();
    let (mut seq, mut hash) = head(tx, &node)?;
    for entry in entries {
        seq = seq.saturating_add(1);
        let mut recorded = Recorded {
            node: node.clone(),
            seq,
            at: entry.at,
            actor: entry.actor.clone(),
            action: entry.action.as_str().to_owned(),
            subject: entry.subject.clone(),
            outcome: entry.outcome.clone(),
            reference: entry.reference,
            hash: [0; 32],
        };
        hash = digest(&recorded, &hash);
        recorded.hash = hash;
        tx.execute(
            "INSERT INTO audit (node, seq, at, actor, action, subject, outcome, reference, hash)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            &[
                (&recorded.node).into(),
                recorded.seq.into(),
                recorded.at.into(),
                (&recorded.actor).into(),
                (&recorded.action).into(),
                (&recorded.subject).into(),
                (&recorded.outcome).into(),
                recorded.reference.into(),
                (&recorded.hash).into(),
            ],
        )?;
    }
    tx.execute(
        "INSERT INTO audit_heads (node, seq, hash) VALUES ($1, $2, $3)
         ON CONFLICT (node) DO UPDATE SET seq = excluded.seq, hash = excluded.hash",
        &[(&node).into(), seq.into(), (&hash).into()],
    )?;
    Ok(())
}

/// The newest entries of all nodes, newest first.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn list(tx: &mut dyn Transaction, limit: u32) -> Result<Vec<Recorded>, Error> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM audit ORDER BY at DESC, seq DESC, node LIMIT $1"),
        &[limit.into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// Which entries are asked for; what is not given doesn't narrow it down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// From then on.
    pub since: Option<Timestamp>,
    /// With this in the actor's name, in any case of ASCII letters.
    pub actor: Option<String>,
    /// With an action that begins so.
    pub action: Option<String>,
    /// Of this attempt.
    pub reference: Option<Ref>,
    /// How many at most.
    pub limit: u32,
}

/// The newest entries of all nodes that are asked for, newest first.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn search(tx: &mut dyn Transaction, query: &Query) -> Result<Vec<Recorded>, Error> {
    let mut conditions = vec!["1 = 1".to_owned()];
    let mut args: Vec<Value> = Vec::new();
    let mut narrow = |condition: &str, arg: Value| {
        args.push(arg);
        conditions.push(condition.replace('?', &format!("${}", args.len())));
    };
    if let Some(since) = query.since {
        narrow("at >= ?", since.into());
    }
    if let Some(reference) = query.reference {
        narrow("reference = ?", reference.into());
    }
    if let Some(actor) = &query.actor {
        let pattern = format!("%{}%", escaped(&fold(actor)));
        narrow("lower(actor) LIKE ? ESCAPE '!'", pattern.into());
    }
    if let Some(action) = &query.action {
        narrow(
            "action LIKE ? ESCAPE '!'",
            format!("{}%", escaped(action)).into(),
        );
    }
    args.push(query.limit.into());
    let sql = format!(
        "SELECT {COLUMNS} FROM audit WHERE {} ORDER BY at DESC, seq DESC, node LIMIT ${}",
        conditions.join(" AND "),
        args.len()
    );
    tx.query(&sql, &args)?.into_iter().map(record).collect()
}

/// A text in which LIKE finds itself only.
fn escaped(text: &str) -> String {
    text.replace('!', "!!")
        .replace('%', "!%")
        .replace('_', "!_")
}

/// The entries of one attempt, oldest first.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn of_reference(tx: &mut dyn Transaction, reference: Ref) -> Result<Vec<Recorded>, Error> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM audit WHERE reference = $1 ORDER BY at, seq, node"),
        &[reference.into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// Checks every chain from its first entry to its head.
///
/// # Errors
/// [`Error`] when the store fails; a fault in a chain is no error.
pub fn verify(tx: &mut dyn Transaction) -> Result<AuditReport, Error> {
    let nodes = tx.query(
        "SELECT node FROM audit_heads UNION SELECT node FROM audit ORDER BY node",
        &[],
    )?;
    let mut chains = Vec::with_capacity(nodes.len());
    for mut node in nodes {
        chains.push(verify_chain(tx, node.text()?)?);
    }
    Ok(AuditReport { chains })
}

fn verify_chain(tx: &mut dyn Transaction, node: String) -> Result<Chain, Error> {
    let head = head(tx, &node)?;
    let mut last = (0i64, [0u8; 32]);
    loop {
        let page = tx.query(
            &format!(
                "SELECT {COLUMNS} FROM audit WHERE node = $1 AND seq > $2 ORDER BY seq LIMIT $3"
            ),
            &[(&node).into(), last.0.into(), PAGE.into()],
        )?;
        if page.is_empty() {
            break;
        }
        for row in page {
            let next = last.0.saturating_add(1);
            // An entry that can't even be read is not what was written.
            let fault = match record(row) {
                Ok(entry) if entry.seq != next => Some(Fault::Missing(next)),
                Ok(entry) if entry.hash == digest(&entry, &last.1) => {
                    last = (entry.seq, entry.hash);
                    None
                }
                Ok(_) | Err(Error::Stored { .. }) => Some(Fault::Changed(next)),
                Err(other) => return Err(other),
            };
            if fault.is_some() {
                return Ok(Chain {
                    node,
                    entries: last.0,
                    fault,
                });
            }
        }
    }
    let fault = match head {
        head if head == last => None,
        (seq, _) if seq > last.0 => Some(Fault::Missing(last.0.saturating_add(1))),
        _ => Some(Fault::Head(last.0)),
    };
    Ok(Chain {
        node,
        entries: last.0,
        fault,
    })
}

fn head(tx: &mut dyn Transaction, node: &str) -> Result<(i64, [u8; 32]), Error> {
    tx.query_one(
        "SELECT seq, hash FROM audit_heads WHERE node = $1",
        &[node.into()],
    )?
    .map_or(Ok((0, [0; 32])), |mut row| Ok((row.int()?, row.digest()?)))
}

/// Every field goes in with its length before it, so that no two entries have one form.
fn digest(entry: &Recorded, before: &[u8; 32]) -> [u8; 32] {
    let reference = entry.reference.map(Ref::compact).unwrap_or_default();
    let mut hash = Sha256::new();
    let fields: [&[u8]; 10] = [
        b"emccd audit 1",
        entry.node.as_bytes(),
        &entry.seq.to_be_bytes(),
        &entry.at.as_millis().to_be_bytes(),
        entry.actor.as_bytes(),
        entry.action.as_bytes(),
        entry.subject.as_bytes(),
        entry.outcome.as_bytes(),
        reference.as_bytes(),
        before,
    ];
    for field in fields {
        hash.update(u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}

fn record(mut row: Row) -> Result<Recorded, Error> {
    Ok(Recorded {
        node: row.text()?,
        seq: row.int()?,
        at: row.time()?,
        actor: row.text()?,
        action: row.text()?,
        subject: row.text()?,
        outcome: row.text()?,
        reference: row.opt_parse()?,
        hash: row.digest()?,
    })
}
