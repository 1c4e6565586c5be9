//! Imports on their way: rows that wait, seen by nobody, until one transaction puts them in place.
//!
//! ```text
//! begin → add, add, … (short transactions) → put_… and finish (one transaction) → tell, tell, … (short again)
//! ```
//! What becomes of an import that nobody carries on: before `finish` it is forgotten, since it changed nothing;
//! behind it, what is left is told to the audit.

use crate::{
    clock::Timestamp,
    store::{
        Transaction, audit,
        credentials::Phc,
        error::Error,
        meta,
        users::REVOCATIONS,
        value::{Row, Value},
    },
};

/// The number that moves with every change of the data that files hold.
const REVISION: &str = "data-revision";

const NEXT: &str = "imports.next";

/// The kinds of records that are put in place all at once: their names, their tables, and the columns of their keys.
/// Of the others a cluster has few.
const AT_ONCE: [(&str, &str, &str); 4] = [
    ("user", "users", "user_key"),
    ("profile", "profiles", "name"),
    ("device", "devices", "device_key"),
    ("base-device", "base_devices", "base_device_key"),
];

/// Values of a row that waits, beside its key and a hash.
const VALUES: usize = 11;

/// What happens to a row that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is added, or takes the place of the one with its key.
    Put,
    /// It is deleted.
    Remove,
    /// It is written by whoever switches; it waits for the audit only.
    Tell,
}

impl Action {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Remove => "remove",
            Self::Tell => "tell",
        }
    }
}

/// A row that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// What kind of record.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What the audit calls what happens.
    pub audited: audit::Action,
    /// What it says of it.
    pub change: String,
    /// What happens to it.
    pub action: Action,
    /// Its key, and for [`Action::Put`] its other values, as its table's statement takes them.
    pub values: Vec<Value>,
    /// The hash of its secret, where that is set.
    pub phc: Option<Phc>,
}

/// Says that something changed that files hold.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn data_changed(tx: &mut dyn Transaction) -> Result<(), Error> {
    meta::bump(tx, REVISION)
}

/// The number that moves with every such change.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn revision(tx: &mut dyn Transaction) -> Result<Option<String>, Error> {
    meta::get(tx, REVISION)
}

/// Whether rows of a kind are put in place all at once.
#[must_use]
pub fn is_at_once(kind: &str) -> bool {
    AT_ONCE.iter().any(|(name, ..)| *name == kind)
}

/// Begins an import; its number.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn begin(tx: &mut dyn Transaction, actor: &str, now: Timestamp) -> Result<i64, Error> {
    let last = meta::get(tx, NEXT)?.and_then(|text| text.parse::<i64>().ok());
    let id = last.unwrap_or(0).saturating_add(1);
    meta::put(tx, NEXT, &id.to_string())?;
    let node = tx.node().to_owned();
    tx.execute(
        "INSERT INTO imports (id, node, actor, touched_at, is_done) VALUES ($1, $2, $3, $4, 0)",
        &[id.into(), node.into(), actor.into(), now.into()],
    )?;
    Ok(id)
}

/// Adds rows, the first of them as number `first`; false when the import is no longer there.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn add(
    tx: &mut dyn Transaction,
    import: i64,
    first: i64,
    rows: &[Waiting],
    now: Timestamp,
) -> Result<bool, Error> {
    let touched = tx.execute(
        "UPDATE imports SET touched_at = $1 WHERE id = $2 AND is_done = 0",
        &[now.into(), import.into()],
    )?;
    if touched == 0 {
        return Ok(false);
    }
    let columns: Vec<_> = (1..=VALUES).map(|n| format!("c{n}")).collect();
    let marks: Vec<_> = (1..=VALUES + 9).map(|n| format!("${n}")).collect();
    let sql = format!(
        "INSERT INTO import_rows (import, seq, kind, name, audited, change, action, key, phc, {})
         VALUES ({})",
        columns.join(", "),
        marks.join(", ")
    );
    for (seq, row) in (first..).zip(rows) {
        let mut values = row.values.iter().map(text);
        let mut args: Vec<Value> = vec![
            import.into(),
            seq.into(),
            row.kind.into(),
            (&row.name).into(),
            row.audited.as_str().into(),
            (&row.change).into(),
            row.action.as_str().into(),
            values.next().unwrap_or(Value::Null),
            row.phc.as_ref().map(Phc::as_str).into(),
        ];
        args.extend(values.by_ref().take(VALUES));
        args.resize(VALUES + 9, Value::Null);
        tx.execute(&sql, &args)?;
    }
    Ok(true)
}

/// All values wait as text.
fn text(value: &Value) -> Value {
    match value {
        Value::Int(number) => Value::Text(number.to_string()),
        other => other.clone(),
    }
}

/// Whether an import has this many rows and waits.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn is_whole(tx: &mut dyn Transaction, import: i64, rows: i64) -> Result<bool, Error> {
    let found = tx.query_one(
        "SELECT 1 FROM imports WHERE id = $1 AND is_done = 0
         AND (SELECT count(*) FROM import_rows WHERE import = $1) = $2",
        &[import.into(), rows.into()],
    )?;
    Ok(found.is_some())
}

/// Puts the rows of one kind in place: `into` is the statement up to its values, which are those of the waiting rows
/// that `values` names, and `replace` is the rest of it.
pub(super) fn put(
    tx: &mut dyn Transaction,
    import: i64,
    kind: &str,
    [into, values, replace]: [&str; 3],
) -> Result<(), Error> {
    tx.execute(
        &format!(
            "{into} SELECT key, {values} FROM import_rows
             WHERE import = $1 AND kind = $2 AND action = 'put' ORDER BY key {replace}"
        ),
        &[import.into(), kind.into()],
    )?;
    data_changed(tx)
}

/// Deletes the records of one kind that go.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, import: i64, kind: &str) -> Result<(), Error> {
    let Some((_, table, key)) = AT_ONCE.iter().find(|(name, ..)| *name == kind) else {
        return Ok(());
    };
    let removed = tx.execute(
        &format!(
            "DELETE FROM {table} WHERE {key} IN (
               SELECT key FROM import_rows WHERE import = $1 AND kind = $2 AND action = 'remove')"
        ),
        &[import.into(), kind.into()],
    )?;
    if removed > 0 {
        data_changed(tx)?;
        if kind == "user" {
            meta::bump(tx, REVOCATIONS)?;
        }
    }
    Ok(())
}

/// Says that everything is in place. In the same transaction as what put it there.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn finish(tx: &mut dyn Transaction, import: i64, now: Timestamp) -> Result<(), Error> {
    tx.execute(
        "UPDATE imports SET is_done = 1, touched_at = $1 WHERE id = $2",
        &[now.into(), import.into()],
    )?;
    Ok(())
}

/// Tells the audit of at most `limit` rows of an import that is done; how many. With none left the import is gone.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn tell(tx: &mut dyn Transaction, import: i64, limit: u32) -> Result<u32, Error> {
    // Whoever tells of the same import waits here, and then finds what is left.
    tx.execute(
        "UPDATE imports SET is_done = 1 WHERE id = $1 AND is_done = 1",
        &[import.into()],
    )?;
    let Some(mut row) = tx.query_one(
        "SELECT actor, touched_at FROM imports WHERE id = $1 AND is_done = 1",
        &[import.into()],
    )?
    else {
        return Ok(0);
    };
    let (actor, at) = (row.text()?, row.time()?);
    let rows = tx.query(
        "SELECT seq, audited, name, change FROM import_rows WHERE import = $1 ORDER BY seq LIMIT $2",
        &[import.into(), limit.into()],
    )?;
    let (mut last, mut told) = (0, 0);
    let mut entries = Vec::with_capacity(rows.len());
    for mut row in rows {
        last = row.int()?;
        told += 1;
        entries.push(audit::Entry {
            at,
            actor: actor.clone(),
            // Words that were ever written stay.
            action: audit::Action::named(&row.text()?).unwrap_or(audit::Action::DataImport),
            subject: row.text()?,
            outcome: row.text()?,
            reference: None,
        });
    }
    audit::append_all(tx, &entries)?;
    tx.execute(
        "DELETE FROM import_rows WHERE import = $1 AND seq <= $2",
        &[import.into(), last.into()],
    )?;
    if told < limit {
        tx.execute("DELETE FROM imports WHERE id = $1", &[import.into()])?;
    }
    Ok(told)
}

/// Deletes at most `limit` rows of an import that changed nothing; how many. With none left the import is gone.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn forget(tx: &mut dyn Transaction, import: i64, limit: u32) -> Result<u64, Error> {
    let deleted = tx.execute(
        "DELETE FROM import_rows WHERE import = $1 AND seq IN (
           SELECT seq FROM import_rows WHERE import = $1 ORDER BY seq LIMIT $2)
         AND EXISTS (SELECT 1 FROM imports WHERE id = $1 AND is_done = 0)",
        &[import.into(), limit.into()],
    )?;
    if deleted < u64::from(limit) {
        tx.execute(
            "DELETE FROM imports WHERE id = $1 AND is_done = 0",
            &[import.into()],
        )?;
    }
    Ok(deleted)
}

/// An import that somebody began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its number.
    pub id: i64,
    /// The node that began it.
    pub node: String,
    /// When it last got on.
    pub touched_at: Timestamp,
    /// Whether everything is in place, and only the audit is not told of all yet.
    pub is_done: bool,
}

/// Every import that is not over.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn list(tx: &mut dyn Transaction) -> Result<Vec<Begun>, Error> {
    tx.query(
        "SELECT id, node, touched_at, is_done FROM imports ORDER BY id",
        &[],
    )?
    .into_iter()
    .map(|mut row: Row| {
        Ok(Begun {
            id: row.int()?,
            node: row.text()?,
            touched_at: row.time()?,
            is_done: row.flag()?,
        })
    })
    .collect()
}
