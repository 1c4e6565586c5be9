//! Users, phones and base devices, for looking.

use crate::{
    domain::{
        ids::{BaseDeviceName, ClusterId, DeviceName, SessionId, UserId},
        session::{Role, State},
    },
    edge::admin::{
        error::Error,
        sessions::{as_wall_time, shown},
        views,
    },
    store::{
        Store, Transaction, base_devices, cluster_time, credentials, devices, policies, profiles,
        sessions::{self, Filter},
        users,
    },
    wire::admin as pb,
};

/// States in which a session is not over.
pub(super) const LIVE: [State; 3] = [State::Pending, State::Active, State::Ending];

/// One page of users.
///
/// # Errors
/// [`Error::Invalid`] when the page is too large.
pub async fn list_users(
    store: &Store,
    query: pb::ListUsersRequest,
) -> Result<pb::ListUsersResponse, Error> {
    let size = page_size(query.page_size)?;
    let after = query.page_token;
    let found = store
        .read(move |tx| {
            users::list(
                tx,
                Some(&after).filter(|a| !a.is_empty()).map(|a| &**a),
                size,
            )
        })
        .await?;
    let last = found.last().map(|user| user.user_id.to_string());
    Ok(pb::ListUsersResponse {
        next_page_token: next_token(found.len(), size, last),
        users: found.into_iter().map(views::user).collect(),
    })
}

/// One user.
///
/// # Errors
/// [`Error::Missing`] when there is none.
pub async fn get_user(
    store: &Store,
    own: ClusterId,
    user_id: UserId,
) -> Result<pb::GetUserResponse, Error> {
    store
        .read(move |tx| {
            let user = users::get(tx, &user_id)?
                .ok_or_else(|| Error::missing(format!("user {user_id}"), "emccd user list"))?;
            let profiles = profiles::for_user(tx, &user.user_id)?;
            let credential = credentials::get(tx, &user.user_id)?;
            let rules = policies::rules_of(tx, user.policy.as_ref())?;
            let (now, shift) = (tx.cluster_now()?, cluster_time::shift(tx)?);
            let filter = Filter {
                user_id: Some(user.user_id.clone()),
                states: LIVE.to_vec(),
                ..Filter::default()
            };
            // Another cluster's user of the same ID on one of our phones is someone else.
            let sessions = shown(tx, &filter)?
                .into_iter()
                .filter(|s| s.role == Role::Home || s.counterpart == own);
            Ok(pb::GetUserResponse {
                profiles: profiles.into_iter().map(views::profile).collect(),
                pin: Some(views::pin_state(credential.as_ref(), now, shift, rules)),
                sessions: sessions.map(|s| views::session(&s)).collect(),
                user: Some(views::user(user)),
            })
        })
        .await
}

/// One page of phones.
///
/// # Errors
/// [`Error::Invalid`] when the page is too large.
pub async fn list_devices(
    store: &Store,
    query: pb::ListDevicesRequest,
) -> Result<pb::ListDevicesResponse, Error> {
    let size = page_size(query.page_size)?;
    let after = query.page_token;
    let found = store
        .read(move |tx| {
            devices::list(
                tx,
                Some(&after).filter(|a| !a.is_empty()).map(|a| &**a),
                size,
            )
        })
        .await?;
    let last = found.last().map(|device| device.name.to_string());
    Ok(pb::ListDevicesResponse {
        next_page_token: next_token(found.len(), size, last),
        devices: found.into_iter().map(views::device).collect(),
    })
}

/// One phone.
///
/// # Errors
/// [`Error::Missing`] when there is none.
pub async fn get_device(store: &Store, name: DeviceName) -> Result<pb::GetDeviceResponse, Error> {
    store
        .read(move |tx| {
            let device = devices::get(tx, &name)?
                .ok_or_else(|| Error::missing(format!("device {name}"), "emccd device list"))?;
            let session = sessions::active_on_device(tx, Role::Visiting, &device.name)?;
            let session = as_wall_time(tx, session)?;
            Ok(pb::GetDeviceResponse {
                device: Some(views::device(device)),
                session: session.map(|s| views::session(&s)),
            })
        })
        .await
}

/// The pool.
///
/// # Errors
/// [`Error::Store`].
pub async fn list_base_devices(store: &Store) -> Result<Vec<pb::BaseDevice>, Error> {
    let all = store.read(|tx| base_devices::list(tx)).await?;
    Ok(all.into_iter().map(base_device).collect())
}

/// One base device.
///
/// # Errors
/// [`Error::Missing`] when there is none.
pub async fn get_base_device(
    store: &Store,
    name: BaseDeviceName,
) -> Result<pb::GetBaseDeviceResponse, Error> {
    store
        .read(move |tx| {
            let found = base_devices::list(tx)?
                .into_iter()
                .find(|(found, _)| found.as_str().eq_ignore_ascii_case(name.as_str()))
                .ok_or_else(|| Error::missing(format!("base device {name}"), "emccd base list"))?;
            let session = found.1.map(|id| holder(tx, id)).transpose()?.flatten();
            Ok(pb::GetBaseDeviceResponse {
                base_device: Some(base_device(found)),
                session,
            })
        })
        .await
}

fn holder(tx: &mut dyn Transaction, id: SessionId) -> Result<Option<pb::Session>, Error> {
    let filter = Filter {
        role: Some(Role::Home),
        id: Some(id),
        states: LIVE.to_vec(),
        ..Filter::default()
    };
    Ok(shown(tx, &filter)?.first().map(views::session))
}

fn base_device((name, session): (BaseDeviceName, Option<SessionId>)) -> pb::BaseDevice {
    pb::BaseDevice {
        name: name.into(),
        session_id: session.map(|id| id.to_string()),
    }
}

pub(super) fn page_size(asked: u32) -> Result<u32, Error> {
    match asked {
        0 => Ok(DEFAULT_PAGE),
        1..=MAX_PAGE => Ok(asked),
        _ => Err(Error::invalid("the page size", "1 to 1000")),
    }
}

/// A full page may have a successor; one that is not full has none.
fn next_token(found: usize, size: u32, last: Option<String>) -> String {
    let full = u32::try_from(found).is_ok_and(|found| found >= size);
    last.filter(|_| full).unwrap_or_default()
}

/// A few hundred KiB of users.
const DEFAULT_PAGE: u32 = 500;

/// Keeps an answer far below its bound, and the reader short.
const MAX_PAGE: u32 = 1_000;
