//! The audit: one chain of entries per node. Each entry's SHA-256 covers its fields and the hash of the one
//! before it; the head of each chain stands in a row of its own, moves in the same transaction, and is sealed with
//! a key that is in no database. Nodes note one another's heads in their own chains. So a changed, missing or
//! foreign entry is found, a chain that was cut off or written anew together with its head, and one that is gone.
//! Not found: everything brought back together to what it once was. For that a head is noted elsewhere ([`Noted`]).
//!
//! Entries hold what callers give them, in plain text: never a secret.

mod action;
mod seal;
mod verify;
mod witness;

pub use self::{
    action::{Action, Noun},
    seal::Key,
    verify::{AuditReport, Chain, Fault, Noted, verify},
    witness::{Witnessed, witness},
};

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

const COLUMNS: &str = "node, seq, at, actor, action, subject, outcome, reference, hash";

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
    let found = head(tx, &node)?;
    // What others have cut off or written anew is not made good by going on from there: no seal any more. Yet it goes on:
    // whoever can write one row could stop every login otherwise.
    let mut is_sound = match &found {
        Some(head) => head.is_sealed(tx.audit_key(), &node),
        None => tx.audit_key().is_none(),
    };
    let mut end = match found {
        Some(head) => head,
        None => last(tx, &node)?,
    };
    for entry in entries {
        let recorded = match link(tx, entry, &node, &end) {
            Err(Error::Unique { .. }) => {
                is_sound = false;
                let newest = last(tx, &node)?;
                link(tx, entry, &node, &newest)?
            }
            linked => linked?,
        };
        (end.seq, end.hash) = (recorded.seq, recorded.hash);
    }
    end.seal = tx
        .audit_key()
        .filter(|_| is_sound)
        .map(|key| key.seal(&node, end.seq, &end.hash).to_vec())
        .unwrap_or_default();
    put_head(tx, &node, &end)
}

/// Puts an entry behind `before`.
fn link(
    tx: &mut dyn Transaction,
    entry: &Entry,
    node: &str,
    before: &Head,
) -> Result<Recorded, Error> {
    let mut recorded = Recorded {
        node: node.to_owned(),
        seq: before.seq.saturating_add(1),
        at: entry.at,
        actor: entry.actor.clone(),
        action: entry.action.as_str().to_owned(),
        subject: entry.subject.clone(),
        outcome: entry.outcome.clone(),
        reference: entry.reference,
        hash: [0; 32],
    };
    recorded.hash = digest(&recorded, &before.hash);
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
    Ok(recorded)
}

/// The newest entry of a chain, in place of a head that is not its own.
fn last(tx: &mut dyn Transaction, node: &str) -> Result<Head, Error> {
    let newest = tx.query_one(
        "SELECT seq, hash FROM audit WHERE node = $1 ORDER BY seq DESC LIMIT 1",
        &[node.into()],
    )?;
    newest.map_or(Ok(Head::default()), |mut row| {
        Ok(Head {
            seq: row.int()?,
            hash: row.digest()?,
            seal: Vec::new(),
        })
    })
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
    /// Only those before this one.
    pub before: Option<Place>,
    /// How many at most.
    pub limit: u32,
}

/// Where an entry stands among all: by its time, then its number, then its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// When.
    pub at: Timestamp,
    /// Its number.
    pub seq: i64,
    /// Its node.
    pub node: String,
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
    if let Some(place) = &query.before {
        let first = args.len() + 1;
        args.extend([place.at.into(), place.seq.into(), (&place.node).into()]);
        let (at, seq, node) = (first, first + 1, first + 2);
        conditions.push(format!(
            "(at < ${at} OR (at = ${at} AND (seq < ${seq} OR (seq = ${seq} AND node > ${node}))))"
        ));
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

/// Where a chain ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Head {
    seq: i64,
    hash: [u8; 32],
    seal: Vec<u8>,
}

impl Head {
    /// Whether it bears the seal that it must have here; always where there is no key to tell.
    fn is_sealed(&self, key: Option<&Key>, node: &str) -> bool {
        key.is_none_or(|key| key.is_seal(&self.seal, node, self.seq, &self.hash))
    }
}

fn head(tx: &mut dyn Transaction, node: &str) -> Result<Option<Head>, Error> {
    tx.query_one(
        "SELECT seq, hash, seal FROM audit_heads WHERE node = $1",
        &[node.into()],
    )?
    .map(|mut row| {
        Ok(Head {
            seq: row.int()?,
            hash: row.digest()?,
            seal: row.blob()?,
        })
    })
    .transpose()
}

fn put_head(tx: &mut dyn Transaction, node: &str, head: &Head) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO audit_heads (node, seq, hash, seal) VALUES ($1, $2, $3, $4)
         ON CONFLICT (node) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, seal = excluded.seal",
        &[
            node.into(),
            head.seq.into(),
            (&head.hash).into(),
            head.seal.clone().into(),
        ],
    )?;
    Ok(())
}

/// Begins the chain of the node that runs the transaction, where it has none.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn begin(tx: &mut dyn Transaction) -> Result<(), Error> {
    let node = tx.node().to_owned();
    if head(tx, &node)?.is_some() {
        return Ok(());
    }
    let mut begun = Head::default();
    if let Some(key) = tx.audit_key() {
        begun.seal = key.seal(&node, begun.seq, &begun.hash).to_vec();
    }
    put_head(tx, &node, &begun)
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
    read(&mut row)
}

fn read(row: &mut Row) -> Result<Recorded, Error> {
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
