//! The audit and the backup: what was changed, and a copy of everything.

use std::{
    path::{Path, PathBuf},
    str::FromStr as _,
};

use crate::{
    clock::Timestamp,
    domain::ids::Ref,
    edge::admin::{directory::page_size, error::Error, roles::Actor, views},
    store::{
        Store, Transaction,
        audit::{self, Query},
    },
    wire::admin as pb,
};

/// The entries that a query lets through.
///
/// # Errors
/// [`Error::Invalid`] when the query names what can't be.
pub async fn list(
    store: &Store,
    query: pb::ListAuditRequest,
) -> Result<pb::ListAuditResponse, Error> {
    let limit = page_size(query.limit)?;
    let query = Query {
        since: query.since.map(|text| read_time(&text)).transpose()?,
        actor: short("the actor", query.actor)?,
        action: short("the action", query.action)?,
        reference: query
            .r#ref
            .map(|text| Ref::from_str(&text))
            .transpose()
            .map_err(|e| Error::invalid("the ref", e.rule()))?,
        limit: limit.saturating_add(1),
    };
    let mut found = store.read(move |tx| audit::search(tx, &query)).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let truncated = found.len() > limit;
    found.truncate(limit);
    Ok(pb::ListAuditResponse {
        entries: found.into_iter().map(views::audit_entry).collect(),
        truncated,
    })
}

/// The state of every node's chain.
///
/// # Errors
/// [`Error::Store`].
pub async fn verify(store: &Store) -> Result<pb::VerifyAuditResponse, Error> {
    let report = store.verify().await?;
    Ok(pb::VerifyAuditResponse {
        chains: report.chains.iter().map(views::audit_chain).collect(),
    })
}

/// Writes a backup, then the entry about it, which so stands in the next one.
///
/// # Errors
/// [`Error::Invalid`] when the path is not absolute, [`Error::Refused`] when the file can't be made.
pub async fn back_up(
    store: &Store,
    request: pb::BackUpStoreRequest,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::BackUpStoreResponse, Error> {
    if !Path::new(&request.path).is_absolute() {
        return Err(Error::invalid("the path of the backup", "absolute"));
    }
    let saved = store.back_up(PathBuf::from(request.path)).await?;
    let entry = audit::Entry {
        at: now,
        actor: actor.to_string(),
        action: "db.backup",
        subject: saved.path.display().to_string(),
        outcome: format!("wrote {} bytes", saved.bytes),
        reference: None,
    };
    store
        .write(move |tx: &mut dyn Transaction| audit::append(tx, &entry))
        .await?;
    Ok(pb::BackUpStoreResponse {
        path: saved.path.display().to_string(),
        bytes: saved.bytes,
        schema: u32::try_from(saved.schema).unwrap_or(0),
    })
}

fn read_time(text: &str) -> Result<Timestamp, Error> {
    let time = text.parse::<jiff::Timestamp>();
    time.map(|t| Timestamp::from_millis(t.as_millisecond()))
        .map_err(|_| Error::invalid("the time", "RFC 3339, for example 2026-11-22T09:30:00Z"))
}

fn short(field: &'static str, text: Option<String>) -> Result<Option<String>, Error> {
    match text {
        Some(text) if text.len() > MOST_BYTES => Err(Error::invalid(field, "at most 128 bytes")),
        text => Ok(text),
    }
}

/// No actor and no action has more.
const MOST_BYTES: usize = 128;
