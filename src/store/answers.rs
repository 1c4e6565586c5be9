//! Answers kept under the id of their request, so that a repeat gets what the first one got.

use crate::{
    clock::Timestamp,
    domain::ids::{ClusterId, SessionId},
    store::{Transaction, error::Error},
};

/// What a request was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who asked.
    pub counterpart: ClusterId,
    /// Under which id.
    pub id: SessionId,
    /// SHA-256 of the request's fields, PIN aside: the same id with other fields is refused.
    pub digest: [u8; 32],
    /// The EM code's number of a refusal; none for success.
    pub code: Option<i64>,
    /// The refusal's cause; no secrets.
    pub cause: String,
    /// The home services of a success, as JSON.
    pub body: Vec<u8>,
    /// When it was given.
    pub kept_at: Timestamp,
}

/// Keeps an answer; the first one under an id stays. Whether this was the first.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put(tx: &mut dyn Transaction, answer: &Answer) -> Result<bool, Error> {
    let kept = tx.execute(
        "INSERT INTO answers (counterpart, id, digest, code, cause, body, kept_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (counterpart, id) DO NOTHING",
        &[
            (&answer.counterpart).into(),
            answer.id.into(),
            (&answer.digest).into(),
            answer.code.into(),
            (&answer.cause).into(),
            answer.body.clone().into(),
            answer.kept_at.into(),
        ],
    )?;
    Ok(kept > 0)
}

/// The answer kept under an id.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(
    tx: &mut dyn Transaction,
    counterpart: &ClusterId,
    id: SessionId,
) -> Result<Option<Answer>, Error> {
    let row = tx.query_one(
        "SELECT counterpart, id, digest, code, cause, body, kept_at FROM answers
         WHERE counterpart = $1 AND id = $2",
        &[counterpart.into(), id.into()],
    )?;
    row.map(|mut row| {
        Ok(Answer {
            counterpart: row.parse()?,
            id: row.parse()?,
            digest: row.digest()?,
            code: row.opt_int()?,
            cause: row.text()?,
            body: row.blob()?,
            kept_at: row.time()?,
        })
    })
    .transpose()
}

/// Forgets answers given before `before` whose session does not live, at most `limit`; how many.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn purge(tx: &mut dyn Transaction, before: Timestamp, limit: u32) -> Result<u64, Error> {
    tx.execute(
        "DELETE FROM answers WHERE (counterpart, id) IN (
           SELECT a.counterpart, a.id FROM answers a WHERE a.kept_at < $1 AND NOT EXISTS (
             SELECT 1 FROM sessions s
             WHERE s.role = 'home' AND s.counterpart = a.counterpart AND s.id = a.id AND s.state <> 'ended')
           LIMIT $2)",
        &[before.into(), limit.into()],
    )
}
