//! Sessions of both roles, keyed by role, counterpart cluster and id.
//!
//! ```text
//! visiting:  pending ──▶ active ──▶ ending ──▶ ended        home:  active ──▶ ended
//! ```
//! Every change is a compare-and-set that only goes forward. `ended` rows stay as tombstones. Two unique
//! indexes hold what must always hold: one session per phone and role, one per base device.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    domain::{
        ids::{
            BaseDeviceName, ClusterId, DeviceName, LoginName, ProfileName, Ref, SessionId, UserId,
        },
        liveness::Incarnation,
        login::{HomeServices, LoginType},
        session::{EndReason, Initiator, Role, State},
    },
    store::{
        Transaction,
        error::Error,
        value::{Row, Value, fold},
    },
};

/// What our cluster knows of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The part we play in it.
    pub role: Role,
    /// The cluster on the other side; our own for a local login.
    pub counterpart: ClusterId,
    /// Its id.
    pub id: SessionId,
    /// Where it stands.
    pub state: State,
    /// The phone.
    pub device: DeviceName,
    /// The user at home, once known.
    pub user_id: Option<UserId>,
    /// What kind of name was typed.
    pub login_type: LoginType,
    /// The name that was typed.
    pub login_name: LoginName,
    /// The device profile in use, once known.
    pub profile: Option<ProfileName>,
    /// The base device that home holds for it.
    pub base_device: Option<BaseDeviceName>,
    /// What home answered.
    pub services: Option<HomeServices>,
    /// The attempt that made it.
    pub reference: Ref,
    /// When the row was made, by the wall clock.
    pub created_at: Timestamp,
    /// Until when an answer may come (`pending`) or the session lasts (`active`), in cluster time.
    pub deadline: Option<Timestamp>,
    /// Cluster time of the newest change of its state; its beginning is one.
    pub changed_at: Timestamp,
    /// When it ended, or began to, by the wall clock.
    pub ended_at: Option<Timestamp>,
    /// Why.
    pub end_reason: Option<EndReason>,
    /// Which side began the end.
    pub initiator: Option<Initiator>,
    /// Whether the counterpart has yet to acknowledge the end.
    pub owed: bool,
    /// Why the counterpart will not take the end that it is owed; none: it is not parked.
    pub parked: Option<String>,
    /// Since when it is parked, by the wall clock.
    pub parked_at: Option<Timestamp>,
}

/// Which sessions to list; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this role.
    pub role: Option<Role>,
    /// Shared with this cluster.
    pub counterpart: Option<ClusterId>,
    /// On this phone.
    pub device: Option<DeviceName>,
    /// Of this user.
    pub user_id: Option<UserId>,
    /// With this id, in whatever role.
    pub id: Option<SessionId>,
    /// Made by this attempt.
    pub reference: Option<Ref>,
    /// In one of these states; empty for any.
    pub states: Vec<State>,
    /// Only those whose end the counterpart has yet to acknowledge.
    pub owed: bool,
    /// Only those before this one in the order of [`list`].
    pub before: Option<Place>,
    /// At most so many; 1,000 when not given.
    pub limit: Option<u32>,
}

/// Where a row stands among all: by its time, then its id, then its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// When it was made.
    pub created_at: Timestamp,
    /// Its id.
    pub id: SessionId,
    /// Its role.
    pub role: Role,
}

/// The unique index that lets a phone have one session per role.
pub const ONE_PER_DEVICE: &str = "sessions_one_per_device";

/// The unique index that lets a base device be held by one session.
pub const ONE_PER_BASE_DEVICE: &str = "sessions_one_per_base_device";

const COLUMNS: &str = "role, counterpart, id, state, device, user_id, login_type, login_name, profile, base_device, services, reference, created_at, deadline, changed_at, ended_at, end_reason, initiator, owed, parked, parked_at";

/// How much later than home visiting ends a session whose time is over: home's word should come first, with its reason.
pub const AFTER_HOME: Duration = Duration::from_secs(60);

// Stands in for the facts of a session that we only ever heard the end of.
const UNKNOWN: &str = "-";

/// Adds a session.
///
/// # Errors
/// [`Error::Unique`] on [`ONE_PER_DEVICE`], on [`ONE_PER_BASE_DEVICE`] or on the key.
pub fn insert(tx: &mut dyn Transaction, session: &Session) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO sessions (role, counterpart, id, state, device, user_key, user_id, login_type, login_name,
           profile, base_device, services, reference, created_at, deadline, changed_at, ended_at, end_reason,
           initiator, owed, parked, parked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)",
        &[
            session.role.into(),
            (&session.counterpart).into(),
            session.id.into(),
            session.state.into(),
            (&session.device).into(),
            session.user_id.as_ref().map(|u| fold(u.as_str())).into(),
            session.user_id.as_ref().into(),
            session.login_type.into(),
            (&session.login_name).into(),
            session.profile.as_ref().into(),
            session.base_device.as_ref().into(),
            session.services.as_ref().map(Value::json).transpose()?.into(),
            session.reference.into(),
            session.created_at.into(),
            session.deadline.into(),
            session.changed_at.into(),
            session.ended_at.into(),
            session.end_reason.into(),
            session.initiator.into(),
            session.owed.into(),
            session.parked.as_deref().into(),
            session.parked_at.into(),
        ],
    )?;
    Ok(())
}

/// Adds a login of ours that is under way, with the run of the node that carries it: if that dies, the row is nobody's.
///
/// # Errors
/// As [`insert`].
pub fn insert_pending(
    tx: &mut dyn Transaction,
    session: &Session,
    carrier: &Incarnation,
) -> Result<(), Error> {
    insert(tx, session)?;
    tx.execute(
        "UPDATE sessions SET node = $1, instance = $2 WHERE role = $3 AND counterpart = $4 AND id = $5",
        &[
            (&carrier.node).into(),
            (&carrier.instance).into(),
            session.role.into(),
            (&session.counterpart).into(),
            session.id.into(),
        ],
    )?;
    Ok(())
}

/// The `pending` sessions that a run carries, the oldest first.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn carried_by(tx: &mut dyn Transaction, carrier: &Incarnation) -> Result<Vec<Session>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM sessions WHERE state = 'pending' AND node = $1 AND instance = $2 ORDER BY deadline, id"
    );
    records(
        tx,
        &sql,
        &[(&carrier.node).into(), (&carrier.instance).into()],
    )
}

/// One session.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(
    tx: &mut dyn Transaction,
    role: Role,
    counterpart: &ClusterId,
    id: SessionId,
) -> Result<Option<Session>, Error> {
    tx.query_one(
        &format!("SELECT {COLUMNS} FROM sessions WHERE role = $1 AND counterpart = $2 AND id = $3"),
        &[role.into(), counterpart.into(), id.into()],
    )?
    .map(record)
    .transpose()
}

/// The session that occupies a phone: `pending` or `active`, whatever its counterpart.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn active_on_device(
    tx: &mut dyn Transaction,
    role: Role,
    device: &DeviceName,
) -> Result<Option<Session>, Error> {
    tx.query_one(
        &format!(
            "SELECT {COLUMNS} FROM sessions
             WHERE role = $1 AND lower(device) = $2 AND state IN ('pending', 'active')"
        ),
        &[role.into(), fold(device.as_str()).into()],
    )?
    .map(record)
    .transpose()
}

/// The active sessions of one of our users, oldest first.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn active_of_user(tx: &mut dyn Transaction, user_id: &UserId) -> Result<Vec<Session>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM sessions
         WHERE role = 'home' AND state = 'active' AND user_key = $1 ORDER BY created_at, id"
    );
    records(tx, &sql, &[fold(user_id.as_str()).into()])
}

/// Moves a session forward if it stands in one of `from`; whether it did. States at or behind `to` never match.
///
/// With `end`, reason, initiator and time are written; without it, what is on record stays.
///
/// # Errors
/// [`Error::Unique`] when the new state is taken by another session.
#[expect(
    clippy::too_many_arguments,
    reason = "three are the key, as everywhere in this file"
)]
pub fn transition(
    tx: &mut dyn Transaction,
    role: Role,
    counterpart: &ClusterId,
    id: SessionId,
    from: &[State],
    to: State,
    end: Option<(EndReason, Initiator, Timestamp)>,
    owed: bool,
) -> Result<bool, Error> {
    let now = tx.cluster_now()?;
    let mut args: Vec<Value> = vec![
        to.into(),
        owed.into(),
        now.into(),
        end.map(|(reason, _, _)| reason).into(),
        end.map(|(_, initiator, _)| initiator).into(),
        end.map(|(_, _, at)| at).into(),
        role.into(),
        counterpart.into(),
        id.into(),
    ];
    let Some(states) = placeholders(&mut args, from.iter().copied().filter(|s| *s < to)) else {
        return Ok(false);
    };
    let moved = tx.execute(
        &format!(
            "UPDATE sessions SET state = $1, owed = $2, changed_at = $3, end_reason = COALESCE($4, end_reason),
               initiator = COALESCE($5, initiator), ended_at = COALESCE($6, ended_at)
             WHERE role = $7 AND counterpart = $8 AND id = $9 AND state IN ({states})"
        ),
        &args,
    )?;
    Ok(moved > 0)
}

/// Turns visiting's `pending` into `active` with what home answered; whether it was still `pending`.
/// The deadline of the answer is over with that; the session's own follows from the time that home gives it, and is
/// [`AFTER_HOME`].
///
/// # Errors
/// [`Error`] when the store fails.
#[expect(
    clippy::too_many_arguments,
    reason = "three are the key, as everywhere in this file"
)]
pub fn activate(
    tx: &mut dyn Transaction,
    role: Role,
    counterpart: &ClusterId,
    id: SessionId,
    user_id: &UserId,
    profile: Option<&ProfileName>,
    services: &HomeServices,
) -> Result<bool, Error> {
    let now = tx.cluster_now()?;
    let until = services
        .remaining
        .map(|remaining| now.plus(remaining).plus(AFTER_HOME));
    let moved = tx.execute(
        "UPDATE sessions SET state = 'active', user_key = $1, user_id = $2, profile = $3, base_device = $4,
           services = $5, deadline = $6, changed_at = $7
         WHERE role = $8 AND counterpart = $9 AND id = $10 AND state = 'pending'",
        &[
            fold(user_id.as_str()).into(),
            user_id.into(),
            profile.into(),
            services.base_device.as_ref().into(),
            Value::json(services)?,
            until.into(),
            now.into(),
            role.into(),
            counterpart.into(),
            id.into(),
        ],
    )?;
    Ok(moved > 0)
}

/// Whose users may not be logged in so any more: users that are gone or disabled, and on other clusters' phones those
/// that may not use them. `$1` is our own cluster.
const IS_REVOKED: &str = "role = 'home' AND state = 'active' AND NOT EXISTS (
           SELECT 1 FROM users u WHERE u.user_key = s.user_key AND u.enabled = 1
             AND (u.emcc_enabled = 1 OR s.counterpart = $1))";

/// Which of home's active sessions are of users who lost the right to them. That looks at all that are active: it is for
/// readers, and a writer asks [`get_revoked`].
///
/// # Errors
/// [`Error`] when the store fails.
pub fn revoked(
    tx: &mut dyn Transaction,
    own: &ClusterId,
    limit: u32,
) -> Result<Vec<(ClusterId, SessionId)>, Error> {
    let sql = format!("SELECT counterpart, id FROM sessions s WHERE {IS_REVOKED} LIMIT $2");
    tx.query(&sql, &[own.into(), limit.into()])?
        .into_iter()
        .map(|mut row| Ok((row.parse()?, row.parse()?)))
        .collect()
}

/// One of home's sessions, if it is still one of [`revoked`].
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get_revoked(
    tx: &mut dyn Transaction,
    own: &ClusterId,
    counterpart: &ClusterId,
    id: SessionId,
) -> Result<Option<Session>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM sessions s WHERE {IS_REVOKED} AND counterpart = $2 AND id = $3"
    );
    tx.query_one(&sql, &[own.into(), counterpart.into(), id.into()])?
        .map(record)
        .transpose()
}

/// The sessions that we share with a cluster and that live: home's first, each role's in the order of their ages.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn living_with(
    tx: &mut dyn Transaction,
    counterpart: &ClusterId,
    limit: u32,
) -> Result<Vec<Session>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM sessions s WHERE counterpart = $1 AND state <> 'ended'
         ORDER BY role, id LIMIT $2"
    );
    records(tx, &sql, &[counterpart.into(), limit.into()])
}

/// How many sessions we share with a cluster that live, and of how many ends it has yet to be told; both roles.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn shared_with(tx: &mut dyn Transaction, counterpart: &ClusterId) -> Result<(u64, u64), Error> {
    let mut count = |sql: &str| {
        let row = tx.query_one(sql, &[counterpart.into()])?;
        let count = row.map(|mut row| row.int()).transpose()?.unwrap_or(0);
        Ok::<_, Error>(u64::try_from(count).unwrap_or(0))
    };
    let living =
        count("SELECT count(*) FROM sessions s WHERE counterpart = $1 AND state <> 'ended'")?;
    let owed = count("SELECT count(*) FROM sessions s WHERE counterpart = $1 AND owed = 1")?;
    Ok((living, owed))
}

/// Ends one of home's active sessions here; whether its visiting cluster is owed the news. Of a local login both
/// rows are ours, and end together.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn end_at_home(
    tx: &mut dyn Transaction,
    own: &ClusterId,
    session: &Session,
    reason: EndReason,
    now: Timestamp,
) -> Result<bool, Error> {
    let end = Some((reason, Initiator::Home, now));
    let (counterpart, id) = (&session.counterpart, session.id);
    let is_local = counterpart == own;
    let ended = transition(
        tx,
        Role::Home,
        counterpart,
        id,
        &[State::Active],
        State::Ended,
        end,
        !is_local,
    )?;
    if is_local {
        let living = [State::Pending, State::Active, State::Ending];
        transition(
            tx,
            Role::Visiting,
            own,
            id,
            &living,
            State::Ended,
            end,
            false,
        )?;
    }
    Ok(ended && !is_local)
}

/// Ends a session that lives, in the role in which it is held here; another cluster is owed the news. Whether it was
/// this that ended it: true for home's, while visiting's of a local login has ended with home's already.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn end_here(
    tx: &mut dyn Transaction,
    own: &ClusterId,
    session: &Session,
    reason: EndReason,
    now: Timestamp,
) -> Result<bool, Error> {
    if session.role == Role::Home {
        end_at_home(tx, own, session, reason, now)?;
        return Ok(true);
    }
    transition(
        tx,
        Role::Visiting,
        &session.counterpart,
        session.id,
        &[State::Pending, State::Active, State::Ending],
        State::Ended,
        Some((reason, Initiator::Visiting, now)),
        session.counterpart != *own,
    )
}

/// Ends a session whatever its state, also one that we never heard of; whether this ended it. What an `ended`
/// row has on record stays. Nobody is owed such an end, so it must be the counterpart's own word.
///
/// # Errors
/// [`Error`] when the store fails.
#[expect(
    clippy::too_many_arguments,
    reason = "three are the key, as everywhere in this file"
)]
pub fn tombstone(
    tx: &mut dyn Transaction,
    role: Role,
    counterpart: &ClusterId,
    id: SessionId,
    reason: EndReason,
    initiator: Initiator,
    now: Timestamp,
) -> Result<bool, Error> {
    let changed_at = tx.cluster_now()?;
    let ended = tx.execute(
        "INSERT INTO sessions (role, counterpart, id, state, device, login_type, login_name, reference,
           created_at, changed_at, ended_at, end_reason, initiator, owed)
         VALUES ($1, $2, $3, 'ended', $4, $5, $6, $7, $8, $9, $10, $11, $12, 0)
         ON CONFLICT (role, counterpart, id) DO UPDATE SET
           state = excluded.state, changed_at = excluded.changed_at, ended_at = excluded.ended_at,
           end_reason = excluded.end_reason, initiator = excluded.initiator, owed = excluded.owed
         WHERE sessions.state <> 'ended'",
        &[
            role.into(),
            counterpart.into(),
            id.into(),
            UNKNOWN.into(),
            LoginType::Uid.into(),
            UNKNOWN.into(),
            Ref::from_bits(0).into(),
            now.into(),
            changed_at.into(),
            now.into(),
            reason.into(),
            initiator.into(),
        ],
    )?;
    Ok(ended > 0)
}

/// Forgets ends of before `before`, in cluster time, that nobody is owed any more, at most `limit`; how many.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn purge(tx: &mut dyn Transaction, before: Timestamp, limit: u32) -> Result<u64, Error> {
    tx.execute(
        "DELETE FROM sessions WHERE (role, counterpart, id) IN (
           SELECT role, counterpart, id FROM sessions
           WHERE state = 'ended' AND owed = 0 AND changed_at < $1 LIMIT $2)",
        &[before.into(), limit.into()],
    )
}

/// The end of a session as another cluster is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debt {
    /// The part we play in the session.
    pub role: Role,
    /// Its id.
    pub id: SessionId,
    /// The attempt that made it.
    pub reference: Ref,
    /// Why it ended.
    pub reason: Option<EndReason>,
}

/// Ends that a cluster has not acknowledged, of both roles, in the order they happened.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn owed(
    tx: &mut dyn Transaction,
    counterpart: &ClusterId,
    limit: u32,
) -> Result<Vec<Debt>, Error> {
    tx.query(
        "SELECT role, id, reference, end_reason FROM sessions WHERE owed = 1 AND counterpart = $1
         ORDER BY changed_at, id LIMIT $2",
        &[counterpart.into(), limit.into()],
    )?
    .into_iter()
    .map(|mut row| {
        Ok(Debt {
            role: row.parse()?,
            id: row.parse()?,
            reference: row.parse()?,
            reason: row.opt_parse()?,
        })
    })
    .collect()
}

/// The clusters that have not acknowledged all ends.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn counterparts_owed(tx: &mut dyn Transaction) -> Result<Vec<ClusterId>, Error> {
    tx.query(
        "SELECT DISTINCT counterpart FROM sessions WHERE owed = 1 ORDER BY counterpart",
        &[],
    )?
    .into_iter()
    .map(|mut row| row.parse())
    .collect()
}

/// Forgets that a cluster has still to be told of ends; of how many.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn forget_owed(tx: &mut dyn Transaction, counterpart: &ClusterId) -> Result<u32, Error> {
    let forgotten = tx.execute(
        "UPDATE sessions SET owed = 0, parked = NULL, parked_at = NULL WHERE owed = 1 AND counterpart = $1",
        &[counterpart.into()],
    )?;
    Ok(u32::try_from(forgotten).unwrap_or(u32::MAX))
}

/// Records that the counterpart knows of the end; whether that was owed.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn acknowledge(
    tx: &mut dyn Transaction,
    role: Role,
    counterpart: &ClusterId,
    id: SessionId,
) -> Result<bool, Error> {
    let acknowledged = tx.execute(
        "UPDATE sessions SET owed = 0, parked = NULL, parked_at = NULL
         WHERE role = $1 AND counterpart = $2 AND id = $3 AND owed = 1",
        &[role.into(), counterpart.into(), id.into()],
    )?;
    Ok(acknowledged > 0)
}

/// As [`acknowledge`], with the reason that the counterpart has on record: of two reasons home's counts.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn acknowledge_as(
    tx: &mut dyn Transaction,
    role: Role,
    counterpart: &ClusterId,
    id: SessionId,
    theirs: EndReason,
) -> Result<bool, Error> {
    let acknowledged = tx.execute(
        "UPDATE sessions SET owed = 0, parked = NULL, parked_at = NULL,
           end_reason = CASE WHEN role = 'visiting' THEN $1 ELSE end_reason END
         WHERE role = $2 AND counterpart = $3 AND id = $4 AND owed = 1",
        &[theirs.into(), role.into(), counterpart.into(), id.into()],
    )?;
    Ok(acknowledged > 0)
}

/// The ids of the newest ends that a cluster has not acknowledged, newest first.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn newest_owed(
    tx: &mut dyn Transaction,
    role: Role,
    counterpart: &ClusterId,
    limit: u32,
) -> Result<Vec<SessionId>, Error> {
    tx.query(
        "SELECT id FROM sessions WHERE owed = 1 AND role = $1 AND counterpart = $2
         ORDER BY changed_at DESC, id DESC LIMIT $3",
        &[role.into(), counterpart.into(), limit.into()],
    )?
    .into_iter()
    .map(|mut row| row.parse())
    .collect()
}

/// The `pending` sessions whose deadline is over at `now`, in cluster time, the longest overdue first.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn overdue_pending(tx: &mut dyn Transaction, now: Timestamp) -> Result<Vec<Session>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM sessions WHERE state = 'pending' AND deadline <= $1 ORDER BY deadline, id"
    );
    records(tx, &sql, &[now.into()])
}

/// The active sessions of a role whose time is over at `now`, in cluster time, the longest overdue first.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn due(
    tx: &mut dyn Transaction,
    role: Role,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Session>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM sessions s WHERE role = $1 AND state = 'active' AND deadline <= $2
         ORDER BY deadline LIMIT $3"
    );
    records(tx, &sql, &[role.into(), now.into(), limit.into()])
}

/// Sessions that a filter lets through, newest first.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn list(tx: &mut dyn Transaction, filter: &Filter) -> Result<Vec<Session>, Error> {
    let user_key = filter.user_id.as_ref().map(|u| fold(u.as_str()));
    let device_key = filter.device.as_ref().map(|d| fold(d.as_str()));
    let wanted: [(&str, Value); 6] = [
        ("role", filter.role.into()),
        ("counterpart", filter.counterpart.as_ref().into()),
        ("lower(device)", device_key.into()),
        ("user_key", user_key.into()),
        ("id", filter.id.into()),
        ("reference", filter.reference.into()),
    ];
    let mut args = Vec::new();
    let mut conditions = Vec::new();
    for (column, value) in wanted {
        if value != Value::Null {
            args.push(value);
            conditions.push(format!("{column} = ${}", args.len()));
        }
    }
    if let Some(states) = placeholders(&mut args, filter.states.iter().copied()) {
        conditions.push(format!("state IN ({states})"));
    }
    if filter.owed {
        conditions.push("owed = 1".to_owned());
    }
    if let Some(place) = filter.before {
        let at = args.len();
        args.extend([place.created_at.into(), place.id.into(), place.role.into()]);
        let (time, id, role) = (at + 1, at + 2, at + 3);
        conditions.push(format!(
            "(created_at, id, role) < (${time}, ${id}, ${role})"
        ));
    }
    if conditions.is_empty() {
        conditions.push("1 = 1".to_owned());
    }
    args.push(filter.limit.unwrap_or(1_000).into());
    // Few are owed: to sort them costs less than to look for them in the order of all.
    let first = if filter.owed { "+" } else { "" };
    let sql = format!(
        "SELECT {COLUMNS} FROM sessions WHERE {} ORDER BY {first}created_at DESC, id DESC, role DESC LIMIT ${}",
        conditions.join(" AND "),
        args.len()
    );
    records(tx, &sql, &args)
}

/// Appends values to `args` and gives their placeholders; none when there are no values.
fn placeholders(args: &mut Vec<Value>, states: impl Iterator<Item = State>) -> Option<String> {
    let marks: Vec<String> = states
        .map(|state| {
            args.push(state.into());
            format!("${}", args.len())
        })
        .collect();
    (!marks.is_empty()).then(|| marks.join(", "))
}

fn records(tx: &mut dyn Transaction, sql: &str, args: &[Value]) -> Result<Vec<Session>, Error> {
    tx.query(sql, args)?.into_iter().map(record).collect()
}

fn record(mut row: Row) -> Result<Session, Error> {
    Ok(Session {
        role: row.parse()?,
        counterpart: row.parse()?,
        id: row.parse()?,
        state: row.parse()?,
        device: row.parse()?,
        user_id: row.opt_parse()?,
        login_type: row.parse()?,
        login_name: row.parse()?,
        profile: row.opt_parse()?,
        base_device: row.opt_parse()?,
        services: row.opt_json()?,
        reference: row.parse()?,
        created_at: row.time()?,
        deadline: row.opt_time()?,
        changed_at: row.time()?,
        ended_at: row.opt_time()?,
        end_reason: row.opt_parse()?,
        initiator: row.opt_parse()?,
        owed: row.flag()?,
        parked: row.opt_text()?,
        parked_at: row.opt_time()?,
    })
}
