//! Pairings: invitations that we made, and those that we were given.
//!
//! What decides is [`crate::domain::pairing`]; here is what stays over a crash, and what all nodes see. The key that
//! checks proofs goes as soon as nothing more can come of an invitation.

use crate::{
    clock::Timestamp,
    domain::pairing::{InvitationId, Side, Standing, State, Told, ToldCertificate},
    secret::Secret,
    store::{
        Transaction,
        error::Error,
        meta, nodes,
        value::{Row, Value},
    },
};

/// One pairing, as this side has it.
#[derive(Clone, Debug)]
pub struct Pairing {
    /// Our part in it.
    pub side: Side,
    /// Which invitation.
    pub id: InvitationId,
    /// How far it has come.
    pub state: State,
    /// The node on which it was begun; a joining one is driven by it.
    pub node: String,
    /// Who began it.
    pub actor: String,
    /// What the other side is to know us by.
    pub name: String,
    /// The addresses of ours that the operator named.
    pub addresses: Vec<String>,
    /// Joining: those of theirs that the invitation has, the one that answered first.
    pub their_addresses: Vec<String>,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
    /// Inviting: what proofs are checked with, while there is something to prove.
    pub proof_key: Option<Secret>,
    /// Wrong proofs so far.
    pub failures: u32,
    /// The certificate that the joining side shows.
    pub bound_to: Option<[u8; 32]>,
    /// The certificate that the inviting side showed.
    pub server_leaf: Option<[u8; 32]>,
    /// Where the other side was seen.
    pub remote: String,
    /// What the operators compare.
    pub words: String,
    /// What the other side has told.
    pub told: Option<Told>,
    /// Who has confirmed on this side.
    pub confirmed_by: Option<String>,
    /// Whether certificates are added to a record that is there already.
    pub is_update: bool,
    /// Inviting: whether the other side's operator has confirmed.
    pub they_confirmed: bool,
    /// What an operator should know: the last thing that went wrong. Empty when nothing did.
    pub trouble: String,
}

impl Pairing {
    /// What is needed to decide on it.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            state: self.state,
            failures: self.failures,
            bound_to: self.bound_to,
            we_confirmed: self.confirmed_by.is_some(),
            they_confirmed: self.they_confirmed,
            expires_at: self.expires_at,
        }
    }
}

const COLUMNS: &str = "side, id, state, node, actor, name, addresses, their_addresses, created_at, expires_at, proof_key, failures, \
     bound_to, server_leaf, remote, words, told, confirmed_by, is_update, they_confirmed, trouble";

/// Keeps a pairing as it is now, in the place of what was known of it.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put(tx: &mut dyn Transaction, pairing: &Pairing) -> Result<(), Error> {
    // Whatever its way here was: once nothing can be proved any more, there is no key.
    let key = pairing
        .proof_key
        .as_ref()
        .filter(|_| pairing.state.is_under_way());
    tx.execute(
        &format!(
            "INSERT INTO pairings ({COLUMNS})
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
             ON CONFLICT (side, id) DO UPDATE SET
               state = excluded.state, node = excluded.node, actor = excluded.actor, name = excluded.name,
               addresses = excluded.addresses, their_addresses = excluded.their_addresses, created_at = excluded.created_at, expires_at = excluded.expires_at,
               proof_key = excluded.proof_key, failures = excluded.failures, bound_to = excluded.bound_to,
               server_leaf = excluded.server_leaf, remote = excluded.remote, words = excluded.words,
               told = excluded.told, confirmed_by = excluded.confirmed_by, is_update = excluded.is_update,
               they_confirmed = excluded.they_confirmed, trouble = excluded.trouble"
        ),
        &[
            pairing.side.as_str().into(),
            (&pairing.id.to_string()).into(),
            pairing.state.as_str().into(),
            (&pairing.node).into(),
            (&pairing.actor).into(),
            (&pairing.name).into(),
            Value::json(&pairing.addresses)?,
            Value::json(&pairing.their_addresses)?,
            pairing.created_at.into(),
            pairing.expires_at.into(),
            key.map(|key| key.expose().to_vec()).into(),
            pairing.failures.into(),
            pairing.bound_to.map(|leaf| leaf.to_vec()).into(),
            pairing.server_leaf.map(|leaf| leaf.to_vec()).into(),
            (&pairing.remote).into(),
            (&pairing.words).into(),
            match &pairing.told {
                Some(told) => Value::json(told)?,
                None => Value::Null,
            },
            pairing.confirmed_by.clone().into(),
            pairing.is_update.into(),
            pairing.they_confirmed.into(),
            (&pairing.trouble).into(),
        ],
    )?;
    Ok(())
}

/// One pairing.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(
    tx: &mut dyn Transaction,
    side: Side,
    id: InvitationId,
) -> Result<Option<Pairing>, Error> {
    tx.query_one(
        &format!("SELECT {COLUMNS} FROM pairings WHERE side = $1 AND id = $2"),
        &[side.as_str().into(), (&id.to_string()).into()],
    )?
    .map(record)
    .transpose()
}

/// All of one side, the oldest first.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn list(tx: &mut dyn Transaction, side: Side) -> Result<Vec<Pairing>, Error> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM pairings WHERE side = $1 ORDER BY created_at, id"),
        &[side.as_str().into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// What a node of ours shows to other clusters, as it has put on record. Such a value of the cluster stands among the
/// single ones: each node writes its own, and nobody looks for one certificate there.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn shown_by(tx: &mut dyn Transaction, node: &str) -> Result<Vec<ToldCertificate>, Error> {
    let text = meta::get(tx, &key_of(node))?;
    // What can't be read is put on record anew by its node.
    Ok(text
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default())
}

/// Puts on record what a node of ours shows.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put_shown(
    tx: &mut dyn Transaction,
    node: &str,
    shown: &[ToldCertificate],
) -> Result<(), Error> {
    let Value::Text(text) = Value::json(shown)? else {
        return Ok(());
    };
    meta::put(tx, &key_of(node), &text)
}

/// What the nodes on record show. A node that ended or died is none of them.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn shown_by_nodes(tx: &mut dyn Transaction) -> Result<Vec<ToldCertificate>, Error> {
    let mut all = Vec::new();
    for node in nodes::all(tx)? {
        all.extend(shown_by(tx, &node.run.node)?);
    }
    Ok(all)
}

fn key_of(node: &str) -> String {
    format!("shown-certificates {node}")
}

/// Until when somebody may have something to say about an invitation of ours, or ask what became of it, or look whether
/// we are where we say; none when there is nothing to say.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn open_until(tx: &mut dyn Transaction) -> Result<Option<Timestamp>, Error> {
    let latest = tx.query_one(
        "SELECT MAX(CASE WHEN state = 'committed' THEN expires_at + $1
                         WHEN state IN ('refused', 'cancelled', 'expired') THEN expires_at + $2
                         ELSE expires_at END)
         FROM pairings
         WHERE state IN ('open', 'proven', 'told')
           OR (side = 'inviting' AND state = 'committed')
           OR (side = 'inviting' AND state IN ('refused', 'cancelled', 'expired') AND bound_to IS NOT NULL)",
        &[KEPT_MILLIS.into(), TOLD_MILLIS.into()],
    )?;
    match latest {
        Some(mut row) => row.opt_time(),
        None => Ok(None),
    }
}

/// Whether [`sweep`] would change anything.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn is_any_due(tx: &mut dyn Transaction, now: Timestamp) -> Result<bool, Error> {
    let due = tx.query_one(
        "SELECT 1 FROM pairings WHERE (state IN ('open', 'proven', 'told') AND expires_at <= $1) OR expires_at <= $2 LIMIT 1",
        &[now.into(), long_before(now).into()],
    )?;
    Ok(due.is_some())
}

/// Ends what ran out, and forgets what has been over for long; how many rows changed.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn sweep(tx: &mut dyn Transaction, now: Timestamp) -> Result<u64, Error> {
    let ended = tx.execute(
        "UPDATE pairings SET state = 'expired', proof_key = NULL
         WHERE expires_at <= $1 AND (state IN ('open', 'proven') OR (state = 'told' AND side = 'inviting')
           OR (state = 'told' AND confirmed_by IS NULL))",
        &[now.into()],
    )?;
    // Who has confirmed and never heard again: the other side remembers for as long.
    let long_ago = now.as_millis().saturating_sub(KEPT_MILLIS);
    let long_ago = Timestamp::from_millis(long_ago);
    let lost = tx.execute(
        "UPDATE pairings SET state = 'lost' WHERE expires_at <= $1 AND state = 'told'",
        &[long_ago.into()],
    )?;
    let forgotten = tx.execute(
        "DELETE FROM pairings WHERE expires_at <= $1",
        &[long_before(now).into()],
    )?;
    Ok(ended + lost + forgotten)
}

/// How long after the end of an invitation the outcome can still be asked for: a day.
pub const KEPT_MILLIS: i64 = 86_400_000;

/// How long after it the other side can still ask about one that led to nothing: it asks again and again.
const TOLD_MILLIS: i64 = 10 * 60_000;

/// How long after that it is still shown: a week.
const FORGOTTEN_MILLIS: i64 = 7 * 86_400_000;

fn long_before(now: Timestamp) -> Timestamp {
    Timestamp::from_millis(
        now.as_millis()
            .saturating_sub(KEPT_MILLIS + FORGOTTEN_MILLIS),
    )
}

fn record(mut row: Row) -> Result<Pairing, Error> {
    let digest = |bytes: Option<Vec<u8>>, column| match bytes {
        None => Ok(None),
        Some(bytes) => bytes.try_into().map(Some).map_err(|_| Error::Stored {
            column,
            expected: "32 bytes",
        }),
    };
    Ok(Pairing {
        side: row.parse()?,
        id: row.parse()?,
        state: row.parse()?,
        node: row.text()?,
        actor: row.text()?,
        name: row.text()?,
        addresses: row.json()?,
        their_addresses: row.json()?,
        created_at: row.time()?,
        expires_at: row.time()?,
        proof_key: row.opt_blob()?.map(Secret::new),
        failures: row.count()?,
        bound_to: digest(row.opt_blob()?, 12)?,
        server_leaf: digest(row.opt_blob()?, 13)?,
        remote: row.text()?,
        words: row.text()?,
        told: row.opt_json()?,
        confirmed_by: row.opt_text()?,
        is_update: row.flag()?,
        they_confirmed: row.flag()?,
        trouble: row.text()?,
    })
}
