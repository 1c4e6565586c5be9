//! The audit and the backup: what was changed, and a copy of everything.

use std::{path::PathBuf, str::FromStr as _};

use crate::{
    clock::{Clock, Timestamp},
    domain::ids::Ref,
    edge::admin::{directory::page_size, error::Error, roles::Actor, views},
    store::{
        self, Store, Transaction,
        audit::{self, Noted, Place, Query},
    },
    tasks::Tasks,
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
        before: (!query.page_token.is_empty())
            .then(|| read_place(&query.page_token))
            .transpose()?,
        limit: limit.saturating_add(1),
    };
    let mut found = store.read(move |tx| audit::search(tx, &query)).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let truncated = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| truncated);
    let next_page_token = last.map_or_else(String::new, |entry| {
        format!("{}:{}:{}", entry.at.as_millis(), entry.seq, entry.node)
    });
    Ok(pb::ListAuditResponse {
        next_page_token,
        entries: found.into_iter().map(views::audit_entry).collect(),
        truncated,
    })
}

/// The state of every node's chain.
///
/// # Errors
/// [`Error::Store`], and [`Error::Invalid`] when what was noted can't be.
pub async fn verify(
    store: &Store,
    request: pb::VerifyAuditRequest,
) -> Result<pb::VerifyAuditResponse, Error> {
    let noted: Vec<Noted> = request
        .noted
        .iter()
        .take(MOST_NOTED)
        .map(|text| text.parse())
        .collect::<Result<_, _>>()
        .map_err(|_| Error::invalid("a noted head", "NODE:NUMBER:HASH"))?;
    let report = store.read(move |tx| audit::verify(tx, &noted)).await?;
    Ok(pb::VerifyAuditResponse {
        chains: report.chains.iter().map(views::audit_chain).collect(),
    })
}

/// Writes a backup. That it began is in the audit before a byte is copied, and so in the copy as well; what came of
/// it follows. Both also where the caller goes away meanwhile.
///
/// # Errors
/// [`Error::Invalid`] when the path is not absolute, [`Error::Refused`] when the file can't be made.
pub async fn back_up(
    store: &Store,
    request: pb::BackUpStoreRequest,
    actor: &Actor,
    clock: &Clock,
    tasks: &Tasks,
) -> Result<pb::BackUpStoreResponse, Error> {
    let path = PathBuf::from(request.path);
    if !path.is_absolute() {
        return Err(Error::invalid("the path of the backup", "absolute"));
    }
    let (store, actor, clock) = (store.clone(), actor.to_string(), clock.clone());
    let copying = tasks.spawn("backup", async move {
        let record = |outcome: String| {
            let entry = audit::Entry {
                at: clock.now(),
                actor: actor.clone(),
                action: audit::Action::DbBackup,
                subject: path.display().to_string(),
                outcome,
                reference: None,
            };
            store.write(move |tx: &mut dyn Transaction| audit::append(tx, &entry))
        };
        record("begun".to_owned()).await?;
        let saved = store.back_up(path.clone()).await;
        record(match &saved {
            Ok(saved) => format!("wrote {} bytes", saved.bytes),
            Err(error) => format!("failed: {}", crate::telemetry::error_chain(error)),
        })
        .await?;
        saved
    });
    let saved = copying.await.unwrap_or(Err(store::Error::Panicked))?;
    Ok(pb::BackUpStoreResponse {
        path: saved.path.display().to_string(),
        bytes: saved.bytes,
        schema: u32::try_from(saved.schema).unwrap_or(0),
    })
}

fn read_place(token: &str) -> Result<Place, Error> {
    let mut parts = token.splitn(3, ':');
    let mut number = || parts.next().and_then(|part| part.parse::<i64>().ok());
    let place = number().zip(number());
    place
        .zip(parts.next())
        .map(|((at, seq), node)| Place {
            at: Timestamp::from_millis(at),
            seq,
            node: node.to_owned(),
        })
        .ok_or_else(|| Error::invalid("the page token", "that of the answer before"))
}

pub(super) fn read_time(text: &str) -> Result<Timestamp, Error> {
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

/// Heads that one call may hold the chains against.
const MOST_NOTED: usize = 100;

/// No actor and no action has more.
const MOST_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path, time::Duration};

    use super::*;
    use crate::edge::admin::roles::{Account, Groups};

    fn root() -> Actor {
        let account = Account {
            uid: 0,
            name: Some("root".to_owned()),
            groups: BTreeSet::new(),
        };
        Actor::new(account, 0, &Groups::default())
    }

    fn open(path: &Path) -> Store {
        Store::open(&store::Config {
            url: format!("sqlite:{}", path.display()),
            node: "n1".to_owned(),
        })
        .unwrap()
    }

    async fn told(store: &Store) -> Vec<String> {
        let all = store.read(|tx| audit::list(tx, 10)).await.unwrap();
        all.into_iter()
            .map(|entry| format!("{}: {}", entry.action, entry.outcome))
            .collect()
    }

    #[test]
    fn a_page_token_is_that_of_an_answer() {
        let place = read_place("12:7:n1:a").unwrap();
        assert_eq!(
            (place.at.as_millis(), place.seq, &*place.node),
            (12, 7, "n1:a")
        );
        for odd in ["1", "1:x:n1", "1:2"] {
            assert!(read_place(odd).is_err(), "{odd}");
        }
    }

    #[tokio::test]
    async fn a_backup_is_on_record_though_nobody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("live.db"));
        let (clock, tasks) = (Clock::system(), Tasks::default());
        let path = dir.path().join("copy.db");
        let request = |path: &Path| pb::BackUpStoreRequest {
            path: path.display().to_string(),
        };
        let actor = root();
        {
            let mut copying = Box::pin(back_up(&store, request(&path), &actor, &clock, &tasks));
            // The caller hangs up as soon as the work has begun.
            assert!(futures_util::poll!(&mut copying).is_pending());
        }
        tasks.shut_down(Duration::from_secs(60)).await;
        assert!(path.exists());
        let bytes = path.metadata().unwrap().len();
        assert_eq!(
            told(&store).await,
            [
                format!("db.backup: wrote {bytes} bytes"),
                "db.backup: begun".to_owned()
            ]
        );
        // Who finds the copy finds in it who made it.
        assert_eq!(told(&open(&path)).await, ["db.backup: begun"]);

        let tasks = Tasks::default();
        let again = back_up(&store, request(&path), &actor, &clock, &tasks).await;
        assert!(again.is_err());
        let newest = told(&store).await.swap_remove(0);
        assert!(newest.starts_with("db.backup: failed: "), "{newest}");
    }
}
