//! Sessions: looking at them, and which row an operator means by an end.

use std::str::FromStr;

use crate::{
    clock::Timestamp,
    domain::{
        ids::{ClusterId, DeviceName, Ref, SessionId, UserId},
        session::Role,
    },
    edge::admin::{
        directory::{LIVE, page_size},
        error::Error,
        operations::SessionKey,
        views,
    },
    store::{
        self, Store, Transaction, cluster_time,
        sessions::{self, Filter, Place, Session},
    },
    wire::admin as pb,
};

/// How an operator names a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// By its id.
    Id(SessionId),
    /// By the phone it is on.
    Device(DeviceName),
    /// By the attempt that made it.
    Reference(Ref),
}

impl Which {
    /// Reads a UUID or a ref.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is neither.
    pub fn id_or_ref(text: &str) -> Result<Self, Error> {
        SessionId::from_str(text)
            .map(Self::Id)
            .or_else(|_| Ref::from_str(text).map(Self::Reference))
            .map_err(|_| {
                Error::invalid(
                    "the session",
                    "a UUID, or a ref such as 7K3Q-9M2X; emccd session list shows both",
                )
            })
    }

    fn filter(&self) -> Filter {
        let mut filter = Filter::default();
        match self {
            Self::Id(id) => filter.id = Some(*id),
            Self::Device(device) => filter.device = Some(device.clone()),
            Self::Reference(reference) => filter.reference = Some(*reference),
        }
        filter
    }

    fn missing(&self) -> Error {
        let what = match self {
            Self::Id(id) => format!("session {id}"),
            Self::Device(device) => format!("session on {device}"),
            Self::Reference(reference) => format!("session of the attempt {reference}"),
        };
        Error::missing(what, "emccd session list --all")
    }
}

/// The sessions that a query lets through.
///
/// # Errors
/// [`Error::Invalid`] when the query names what can't be.
pub async fn list(
    store: &Store,
    query: pb::ListSessionsRequest,
) -> Result<pb::ListSessionsResponse, Error> {
    let limit = page_size(query.limit)?;
    let filter = Filter {
        role: read("the role", query.role, Role::from_str)?,
        counterpart: read("the peer", query.peer, ClusterId::from_str)?,
        device: read("the device", query.device, DeviceName::from_str)?,
        user_id: read("the user", query.user_id, UserId::from_str)?,
        owed: query.only_owed,
        states: if query.include_ended || query.only_owed {
            Vec::new()
        } else {
            LIVE.to_vec()
        },
        before: (!query.page_token.is_empty())
            .then(|| read_place(&query.page_token))
            .transpose()?,
        limit: Some(limit.saturating_add(1)),
        ..Filter::default()
    };
    let found = store.read(move |tx| shown(tx, &filter)).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let truncated = found.len() > limit;
    let last = limit.checked_sub(1).and_then(|last| found.get(last));
    let next_page_token = last
        .filter(|_| truncated)
        .map_or_else(String::new, place_of);
    Ok(pb::ListSessionsResponse {
        truncated,
        next_page_token,
        sessions: found.iter().take(limit).map(views::session).collect(),
    })
}

fn place_of(session: &Session) -> String {
    let at = session.created_at.as_millis();
    format!("{at}:{}:{}", session.id, session.role.as_str())
}

fn read_place(token: &str) -> Result<Place, Error> {
    let read = || {
        let mut parts = token.split(':');
        let place = Place {
            created_at: Timestamp::from_millis(parts.next()?.parse().ok()?),
            id: parts.next()?.parse().ok()?,
            role: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(place)
    };
    read().ok_or_else(|| Error::invalid("the page token", "that of the answer before"))
}

/// Every row of one session.
///
/// # Errors
/// [`Error::Missing`] when there is none.
pub async fn get(store: &Store, which: Which) -> Result<Vec<pb::Session>, Error> {
    let found = rows_of(store, &which).await?;
    Ok(found.iter().map(views::session).collect())
}

/// The row through which a session is to be ended.
///
/// # Errors
/// [`Error::Missing`] when there is none, [`Error::Refused`] when it is over.
pub async fn to_end(store: &Store, which: Which) -> Result<SessionKey, Error> {
    let found = rows(store, &which).await?;
    match decide_row(&found) {
        Some(row) => Ok(SessionKey {
            role: row.role,
            counterpart: row.counterpart.clone(),
            id: row.id,
        }),
        None => match (found.first(), &which) {
            (Some(over), Which::Id(_) | Which::Reference(_)) => {
                let ended = over.ended_at.map(|at| at.to_string()).unwrap_or_default();
                let reason = over.end_reason.map_or("unknown", |reason| reason.as_str());
                Err(Error::refused(
                    format!("the session ended at {ended} (reason: {reason})"),
                    "there is nothing left to do",
                ))
            }
            _ => Err(which.missing()),
        },
    }
}

/// The row as it stands now.
///
/// # Errors
/// [`Error::Missing`] when it is gone.
pub async fn row(store: &Store, key: SessionKey) -> Result<pb::Session, Error> {
    let missing = Which::Id(key.id).missing();
    let found = store
        .read(move |tx| {
            let row = sessions::get(tx, key.role, &key.counterpart, key.id)?;
            as_wall_time(tx, row)
        })
        .await?;
    found.map(|row| views::session(&row)).ok_or(missing)
}

/// Where we have both rows, visiting's: its role ends the phone's side too.
fn decide_row(found: &[Session]) -> Option<&Session> {
    let live = || found.iter().filter(|row| LIVE.contains(&row.state));
    live()
        .find(|row| row.role == Role::Visiting)
        .or_else(|| live().next())
}

/// Every row of one session.
///
/// # Errors
/// [`Error::Missing`] when there is none.
pub(super) async fn rows_of(store: &Store, which: &Which) -> Result<Vec<Session>, Error> {
    let found = rows(store, which).await?;
    if found.is_empty() {
        return Err(which.missing());
    }
    Ok(found)
}

async fn rows(store: &Store, which: &Which) -> Result<Vec<Session>, Error> {
    let filter = which.filter();
    Ok(store.read(move |tx| shown(tx, &filter)).await?)
}

/// Sessions that a filter lets through, as people read them.
pub(super) fn shown(
    tx: &mut dyn Transaction,
    filter: &Filter,
) -> Result<Vec<Session>, store::Error> {
    let found = sessions::list(tx, filter)?;
    as_wall_time(tx, found)
}

/// Deadlines are in cluster time: as wall time, by how the two stand to each other now.
pub(super) fn as_wall_time<S>(tx: &mut dyn Transaction, mut found: S) -> Result<S, store::Error>
where
    for<'s> &'s mut S: IntoIterator<Item = &'s mut Session>,
{
    let shift = cluster_time::shift(tx)?;
    for session in &mut found {
        session.deadline = session.deadline.map(|deadline| deadline.shifted(shift));
    }
    Ok(found)
}

fn read<T, E: ToString>(
    field: &'static str,
    text: Option<String>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, Error> {
    text.map(|text| parse(&text))
        .transpose()
        .map_err(|rule| Error::invalid(field, rule.to_string()))
}
