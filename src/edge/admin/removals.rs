//! Users, phones, base devices, profiles, policies and peers taken away. Nobody who is on a phone loses the record below
//! them: what still carries a session is refused, with what to do first.

use crate::{
    clock::Timestamp,
    domain::{
        ids::{BaseDeviceName, ClusterId, DeviceName, ProfileName, UserId},
        session::Role,
    },
    edge::admin::{
        error::Error, operations::SessionKey, peers::find, policies, roles::Actor, views,
    },
    store::{
        self, Store, Transaction, announcements,
        audit::{self, Action, Noun},
        base_devices, crls, devices, hints, peers, profiles, sessions, trust_entries, users,
    },
    wire::admin as pb,
};

/// Removes a record by its kind and name.
///
/// # Errors
/// [`Error::Missing`] when there is none, [`Error::Refused`] while a session needs it.
pub async fn remove(
    store: &Store,
    request: pb::RemoveRecordRequest,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::RemoveRecordResponse, Error> {
    let actor = actor.to_string();
    store
        .write(move |tx| {
            let name = &request.name;
            let (noun, removed) = match &*request.kind {
                "user" => (Noun::User, user(tx, name)?),
                "device" => (Noun::Device, device(tx, name)?),
                "base-device" => (Noun::Base, base_device(tx, name)?),
                "profile" => (Noun::Profile, profile(tx, name)?),
                "policy" => (Noun::Policy, policies::remove(tx, name)?),
                _ => {
                    return Err(Error::invalid(
                        "the kind",
                        "user, device, base-device, profile or policy",
                    ));
                }
            };
            if !removed {
                let list = match &*request.kind {
                    "user" => "emccd user list",
                    "device" => "emccd device list",
                    "base-device" => "emccd base list",
                    "policy" => "emccd policy list",
                    _ => "emccd profile list",
                };
                return Err(Error::missing(
                    format!("{} {name}", request.kind.replace('-', " ")),
                    list,
                ));
            }
            let entry = audit::Entry {
                at: now,
                actor: actor.clone(),
                action: Action::Remove(noun),
                subject: name.clone(),
                outcome: "removed".to_owned(),
                reference: None,
            };
            audit::append(tx, &entry)?;
            Ok(pb::RemoveRecordResponse {})
        })
        .await
}

/// The sessions that stand in the way of removing a record.
///
/// # Errors
/// [`Error::Invalid`] when it can't be one.
pub async fn sessions(
    store: &Store,
    request: &pb::RemoveRecordRequest,
) -> Result<Vec<SessionKey>, Error> {
    let (kind, name) = (request.kind.clone(), request.name.clone());
    store
        .read(move |tx| {
            let found = match &*kind {
                "user" => {
                    let id =
                        UserId::new(&*name).map_err(|e| Error::invalid("the user", e.rule()))?;
                    sessions::active_of_user(tx, &id)?
                }
                "device" => {
                    let device = DeviceName::new(&*name)
                        .map_err(|e| Error::invalid("the device", e.rule()))?;
                    let found = sessions::active_on_device(tx, Role::Visiting, &device)?;
                    found.into_iter().collect()
                }
                "base-device" => {
                    let holders = base_devices::list(tx)?.into_iter();
                    let mut holders =
                        holders.filter(|(of, _)| of.as_str().eq_ignore_ascii_case(&name));
                    let filter = sessions::Filter {
                        role: Some(Role::Home),
                        id: holders.next().and_then(|(_, session)| session),
                        ..sessions::Filter::default()
                    };
                    match filter.id {
                        Some(_) => sessions::list(tx, &filter)?,
                        None => Vec::new(),
                    }
                }
                _ => Vec::new(),
            };
            Ok(found
                .into_iter()
                .map(|session| SessionKey {
                    role: session.role,
                    counterpart: session.counterpart,
                    id: session.id,
                })
                .collect())
        })
        .await
}

fn user(tx: &mut dyn Transaction, name: &str) -> Result<bool, Error> {
    let id = UserId::new(name).map_err(|e| Error::invalid("the user", e.rule()))?;
    if let Some(session) = sessions::active_of_user(tx, &id)?.first() {
        return Err(Error::refused(
            format!("{id} is on the phone {}", session.device),
            format!("end it with the user: emccd user remove {id} --end-sessions"),
        ));
    }
    Ok(users::remove(tx, &id)?)
}

fn device(tx: &mut dyn Transaction, name: &str) -> Result<bool, Error> {
    let name = DeviceName::new(name).map_err(|e| Error::invalid("the device", e.rule()))?;
    if let Some(session) = sessions::active_on_device(tx, Role::Visiting, &name)? {
        return Err(Error::refused(
            format!("{} is on the phone {name}", session.login_name),
            format!("end it with the device: emccd device remove {name} --end-sessions"),
        ));
    }
    Ok(devices::remove(tx, &name)?)
}

fn base_device(tx: &mut dyn Transaction, name: &str) -> Result<bool, Error> {
    let name =
        BaseDeviceName::new(name).map_err(|e| Error::invalid("the base device", e.rule()))?;
    let holder = base_devices::list(tx)?
        .into_iter()
        .find(|(found, _)| found.as_str().eq_ignore_ascii_case(name.as_str()));
    if let Some((_, Some(session))) = holder {
        return Err(Error::refused(
            format!("the session {session} holds {name}"),
            format!("end it with the base device: emccd base remove {name} --end-sessions"),
        ));
    }
    Ok(base_devices::remove(tx, &name)?)
}

fn profile(tx: &mut dyn Transaction, name: &str) -> Result<bool, Error> {
    let name = ProfileName::new(name).map_err(|e| Error::invalid("the profile", e.rule()))?;
    Ok(profiles::remove(tx, &name)?)
}

/// Removes a peer, its trust and the hints that lead to it.
///
/// # Errors
/// [`Error::Missing`] when there is none, [`Error::Refused`] while sessions with it live, or it is owed ends that
/// nobody has agreed to forget.
pub async fn remove_cluster(
    store: &Store,
    request: pb::RemoveClusterRequest,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::RemoveClusterResponse, Error> {
    let actor = actor.to_string();
    let id = ClusterId::new(request.cluster_id)
        .map_err(|_| Error::invalid("the cluster ID", "1 to 64 characters of A-Z a-z 0-9 . _ -"))?;
    store
        .write(move |tx| {
            let peer = find(tx, &id)?;
            refuse_while_sessions_live(tx, &id)?;
            let forgotten = forget_debts(tx, &id, request.forget_owed)?;
            let mut trust = 0;
            for entry in trust_entries::of(tx, &id)? {
                if trust_entries::remove(tx, &id, &entry.fingerprint)? {
                    trust += 1;
                }
            }
            crls::remove_all(tx, &id)?;
            announcements::forget(tx, &id)?;
            hints::forget_cluster(tx, &id)?;
            peers::remove(tx, &id)?;
            let entry = audit::Entry {
                at: now,
                actor: actor.clone(),
                action: Action::Remove(Noun::Cluster),
                subject: id.to_string(),
                outcome: format!("removed, with {trust} trusted; {forgotten} owed ends forgotten"),
                reference: None,
            };
            audit::append(tx, &entry)?;
            Ok(pb::RemoveClusterResponse {
                cluster: Some(views::cluster(peer)),
                trust_removed: trust,
                ends_forgotten: forgotten,
            })
        })
        .await
}

fn refuse_while_sessions_live(tx: &mut dyn Transaction, id: &ClusterId) -> Result<(), Error> {
    match sessions::shared_with(tx, id)?.0 {
        0 => Ok(()),
        living => Err(Error::refused(
            format!("{living} sessions with {id} are not over"),
            format!(
                "remove it again; or end them with emccd session logout, which emccd session list --peer {id} names"
            ),
        )),
    }
}

/// What a removed peer is owed will never be delivered.
fn forget_debts(tx: &mut dyn Transaction, id: &ClusterId, forget: bool) -> Result<u32, Error> {
    let (_, count) = sessions::shared_with(tx, id)?;
    if count > 0 && !forget {
        return Err(Error::refused(
            format!("{id} has still to be told of the end of {count} sessions"),
            format!(
                "wait until its link is up and they are delivered (emccd cluster status), or remove it with: emccd \
                 cluster remove {id} --forget-owed"
            ),
        ));
    }
    Ok(if count > 0 {
        sessions::forget_owed(tx, id)?
    } else {
        0
    })
}

/// One page of profiles, of one user or of all.
///
/// # Errors
/// [`Error::Invalid`] when the page is too large or the user is none.
pub async fn list_profiles(
    store: &Store,
    query: pb::ListProfilesRequest,
) -> Result<pb::ListProfilesResponse, Error> {
    let size = crate::edge::admin::directory::page_size(query.page_size)?;
    let user = query
        .user_id
        .map(UserId::new)
        .transpose()
        .map_err(|e| Error::invalid("the user", e.rule()))?;
    let after = query.page_token;
    let whole = user.is_some();
    let found = store
        .read(move |tx| match &user {
            Some(user) => profiles::for_user(tx, user),
            None => profiles::page(tx, &after, size),
        })
        .await?;
    let is_full = u32::try_from(found.len()).is_ok_and(|n| n >= size) && !whole;
    let last = found.last().filter(|_| is_full);
    Ok(pb::ListProfilesResponse {
        next_page_token: last.map(|p| p.name.to_string()).unwrap_or_default(),
        profiles: found.into_iter().map(views::profile).collect(),
    })
}

/// One profile.
///
/// # Errors
/// [`Error::Missing`] when there is none.
pub async fn get_profile(store: &Store, name: String) -> Result<pb::GetProfileResponse, Error> {
    let missing = Error::missing(format!("profile {name}"), "emccd profile list");
    let found = store
        .read::<_, store::Error>(move |tx| profiles::among(tx, std::slice::from_ref(&name)))
        .await?;
    let found = found.into_iter().next().ok_or(missing)?;
    Ok(pb::GetProfileResponse {
        profile: Some(views::profile(found)),
    })
}
