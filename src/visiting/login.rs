//! Login at visiting: admission, the phone, the search, the pending row, home, and the row that says who is on it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::info;

use super::{
    Caller, Error, Inner, LoggedIn, LoginOutcome, PhoneChoice, PhoneLogin, choose, in_time,
    locate::{self, Hints, Home},
};
use crate::{
    admission::Kind,
    clock::{self, Timestamp},
    domain::{
        em_code::EmCode,
        ids::{ClusterId, DeviceName, LoginName, ProfileName, Ref, SessionId},
        locate::split_suffix,
        login::{
            DeviceFacts, FindUser, HomeCluster, HomeServices, LoginAnswer, LoginRequest, Proof,
            SecurityMode,
        },
        parameters::UnknownUserAnswer,
        refusal::{Detail, Refusal},
        security::{self, Side},
        session::{EndReason, Initiator, Role, State},
    },
    fault::{self, Bug},
    store::{
        Transaction, audit, debts,
        devices::{self, Device},
        hints, peers, pools,
        sessions::{self, Session},
    },
};

/// How many ended sessions a login may tell home of.
const MAX_SUPERSEDES: u32 = 64;

/// What the audit has of an answer whose row had ended by then.
pub(super) const TOO_LATE: &str = "the answer came too late; given up";

/// How much longer than its carrier waits a pending row stands. The carrier ends it itself, by its own measure; this is
/// for carriers that died, and other nodes' cluster time may be a little ahead.
const SLACK: Duration = Duration::from_secs(2);

/// What is left of the deadline for writing down an answer that came at the last moment.
const ANSWER_MARGIN: Duration = Duration::from_millis(200);

/// What a phone sends to log somebody in.
pub(super) enum Submission {
    /// The form.
    Typed(PhoneLogin),
    /// The page with the device profiles.
    Chosen(PhoneChoice),
}

impl Submission {
    const fn caller(&self) -> Caller {
        match self {
            Self::Typed(login) => login.caller,
            Self::Chosen(choice) => choice.caller,
        }
    }
}

/// A login whose parts are types.
pub(super) struct Attempt {
    pub(super) device: Device,
    pub(super) query: FindUser,
    /// Whether the query is what was typed: only of that it may be remembered whose it is.
    pub(super) as_typed: bool,
    pub(super) proof: Proof,
    pub(super) profile: Option<ProfileName>,
    pub(super) emcc: bool,
    pub(super) address: std::net::IpAddr,
    pub(super) reference: Ref,
    /// From the phone's request; every step takes from what is left of it.
    pub(super) deadline: Instant,
}

impl Attempt {
    /// Whether home knows the user by what was typed. A part of it may be somebody else's whole name.
    pub(super) fn is_known_as_typed(&self, home: &Home) -> bool {
        self.as_typed && self.query == home.query
    }
}

pub(super) async fn login(
    inner: &Inner,
    device: &str,
    reference: Ref,
    submission: Submission,
) -> Result<LoginOutcome, Error> {
    let outcome = attempt(inner, submission).await;
    // A refusal is logged where it ends, at the edge. It is on record when it ended a row; what any stranger can
    // cause without a PIN being checked is not, lest they fill the disk.
    if let Ok(LoginOutcome::LoggedIn(done)) = &outcome {
        info!(
            user = %done.user_id, peer.cluster_id = %done.home, device, r#ref = %reference,
            reset = done.services.reset, restart_reason = done.services.restart_reason,
            "user {} of cluster {} logged in on {device}", done.user_id, done.home
        );
    }
    outcome
}

async fn attempt(inner: &Inner, submission: Submission) -> Result<LoginOutcome, Error> {
    let deadline = inner.deadline();
    let caller = submission.caller();
    let _place = inner.admit(Kind::Login, caller, deadline).await?;
    check_caller(inner, caller)?;
    let request = match submission {
        Submission::Typed(request) => request,
        Submission::Chosen(request) => return choose::chosen(inner, request, deadline).await,
    };
    let attempt = check(inner, request, deadline).await?;
    match located(inner, &attempt).await {
        Err(error) if is_nobody(&error) && hides_unknown(inner) => {
            let named = named_peer(inner, &attempt);
            if let Some(cluster) = &named {
                // A phone that no user of that cluster may use tells so, whoever it is.
                judge_phone(inner, &attempt, cluster.as_ref())?;
            }
            // Our own home says of nobody what it says of a wrong PIN, after as long.
            let home = Home {
                cluster: Arc::clone(&inner.local),
                query: attempt.query.clone(),
                from_hint: false,
            };
            let refused = at_home(inner, &attempt, home).await;
            refused.map_err(|error| match error {
                // Who names another cluster gets the code of users there.
                Error::Home(refusal)
                    if refusal.code == EmCode::AuthenticationError && named.is_some() =>
                {
                    Error::Home(Refusal {
                        code: EmCode::EmccAuthenticationError,
                        ..refusal
                    })
                }
                other => other,
            })
        }
        other => other,
    }
}

/// The other cluster that was typed behind the name.
fn named_peer(inner: &Inner, attempt: &Attempt) -> Option<Arc<dyn HomeCluster>> {
    let (_, suffix) = split_suffix(attempt.query.name.as_str())?;
    let cluster = ClusterId::new(suffix).ok();
    let other = cluster.filter(|id| *id != inner.config.cluster)?;
    inner.home(&other)
}

/// Whether no cluster has the user.
fn is_nobody(error: &Error) -> bool {
    match error {
        Error::NoPeers => true,
        Error::NotLocated(refusal) | Error::Home(refusal) => {
            refusal.code == EmCode::UserDoesNotExist
        }
        _ => false,
    }
}

fn hides_unknown(inner: &Inner) -> bool {
    inner.parameters.load().unknown_user_answer == UnknownUserAnswer::AsWrongPin
}

/// The login at the home that is found.
async fn located(inner: &Inner, attempt: &Attempt) -> Result<LoginOutcome, Error> {
    let find = |hints| {
        locate::locate(
            inner,
            &attempt.query,
            attempt.reference,
            attempt.deadline,
            hints,
        )
    };
    let home = find(Hints::Use).await?;
    let hinted = home.from_hint;
    match at_home(inner, attempt, home).await {
        // The cache was wrong. Only an explicit "no such user" says so; silence never starts a search.
        Err(Error::Home(refusal)) if hinted && refusal.code == EmCode::UserDoesNotExist => {
            forget_hint(inner, attempt).await?;
            let home = find(Hints::Ignore).await?;
            at_home(inner, attempt, home).await
        }
        other => other,
    }
}

/// Where addresses are checked, the caller's is trusted, and no proxy stands between unless that is allowed.
pub(super) fn check_caller(inner: &Inner, caller: Caller) -> Result<(), Error> {
    let parameters = inner.parameters.load();
    let address = caller.address.to_canonical();
    if !parameters.validate_ip_address {
        Ok(())
    } else if caller.via && !parameters.allow_proxy {
        Err(Error::ThroughProxy(address))
    } else if parameters.trusted_ips.contains(&address) {
        Ok(())
    } else {
        Err(Error::UntrustedAddress(address))
    }
}

/// The phone exists, allows EM, and nobody is on it.
pub(super) async fn free_phone(
    inner: &Inner,
    device: String,
    deadline: Instant,
) -> Result<Device, Error> {
    let name = DeviceName::new(device).map_err(|_| Error::DeviceUnknown)?;
    // What a node that died has left behind stands in nobody's way: neither on this phone, nor at home, where what the
    // user began on another one may be a session by now. Home is told with this login.
    let dead = inner.membership.dead();
    if !inner.swept.has(&dead) {
        in_time(deadline, super::pending::end_abandoned(inner, &dead, None)).await?;
    }
    let (device, on_it, now) = {
        let name = name.clone();
        let read = move |tx: &mut dyn Transaction| {
            let mut device = devices::get(tx, &name)?.ok_or(Error::DeviceUnknown)?;
            // Where it stands is mostly said of its pool: nobody says it of each phone.
            if let (true, Some(pool)) = (device.geolocation.is_empty(), &device.device_pool) {
                let pool = pools::get(tx, pool)?;
                device.geolocation = pool.map(|pool| pool.geolocation).unwrap_or_default();
            }
            Ok::<_, Error>((
                device,
                sessions::active_on_device(tx, Role::Visiting, &name)?,
                tx.cluster_now()?,
            ))
        };
        inner.look_up(deadline, read).await?
    };
    if !device.em_enabled {
        return Err(Error::DeviceDisabled(device.name));
    }
    match on_it {
        Some(session)
            if session.state == State::Pending && session.deadline.is_some_and(|d| d <= now) =>
        {
            in_time(deadline, super::pending::end_abandoned(inner, &dead, None)).await?;
        }
        Some(session) => return Err(occupied(session)),
        None => {}
    }
    Ok(device)
}

/// The phone is free, and the texts become types.
async fn check(inner: &Inner, request: PhoneLogin, deadline: Instant) -> Result<Attempt, Error> {
    let device = free_phone(inner, request.device, deadline).await?;
    let pin = request.pin.ok_or(Error::Blank)?;
    if request.name.trim().is_empty() {
        return Err(Error::Blank);
    }
    let name = LoginName::new(request.name.trim()).map_err(|_| Error::ImpossibleName)?;
    Ok(Attempt {
        device,
        query: FindUser {
            login_type: request.login_type,
            name,
        },
        as_typed: true,
        proof: Proof::Pin(pin),
        profile: None,
        emcc: request.emcc,
        address: request.caller.address,
        reference: request.reference,
        deadline,
    })
}

fn occupied(session: Session) -> Error {
    if session.state == State::Pending {
        return Error::LoginInProgress(session.device);
    }
    Error::occupied(
        session.device,
        session.user_id.as_ref(),
        session.login_name.as_str(),
        session.counterpart,
    )
}

/// Asks one home cluster for a session, with the pending row before and the active row after.
pub(super) async fn at_home(
    inner: &Inner,
    attempt: &Attempt,
    home: Home,
) -> Result<LoginOutcome, Error> {
    let cluster = home.cluster.cluster_id().clone();
    if cluster != inner.config.cluster {
        judge_phone(inner, attempt, home.cluster.as_ref())?;
    }
    let id = inner.new_session_id();
    let supersedes = match open_pending(inner, attempt, &cluster, &home.query, id).await {
        Ok(supersedes) => supersedes,
        Err(error) => {
            take_back(inner, attempt, &cluster, id, &error).await;
            return Err(error);
        }
    };
    inner.faults.pass("visiting.login.pending").await;
    let answer = ask(inner, attempt, &home, id, supersedes).await;
    inner.faults.pass("visiting.login.answered").await;
    match answer {
        Ok(LoginAnswer::Opened(services)) => {
            let done = activate(inner, attempt, &home, id, *services).await;
            inner.faults.pass("visiting.login.committed").await;
            done.map(LoginOutcome::from)
        }
        Ok(LoginAnswer::Choose(choice)) => {
            let outcome = choose::ask_user(inner, attempt, &home, id, choice).await;
            inner.faults.pass("visiting.login.committed").await;
            outcome
        }
        Err(refusal) => {
            give_up(inner, attempt, &cluster, id, &refusal).await?;
            Err(Error::Home(refusal))
        }
    }
}

/// Whether the phone may be lent to users of that cluster.
///
/// An old home would not see what is wrong with a secure phone. One that we know nothing of yet is asked, and its own
/// mode is always its own to judge.
fn judge_phone(inner: &Inner, attempt: &Attempt, home: &dyn HomeCluster) -> Result<(), Error> {
    if !(attempt.emcc && attempt.device.emcc) {
        return Err(Error::NotEmccCapable(attempt.device.name.clone()));
    }
    let ours = inner.config.traits;
    let here = Side {
        mode: ours.security_mode,
        secure_config: ours.secure_config,
    };
    let there = Side {
        mode: SecurityMode::Secure,
        secure_config: home.traits().is_none_or(|told| told.secure_config),
    };
    let carried = security::judge(there, here, attempt.device.security_mode);
    carried.map(drop).map_err(|mismatch| Error::SecurityMode {
        mismatch,
        home: home.cluster_id().clone(),
    })
}

/// Writes the pending row, before the first byte leaves; gives what home must be told has ended.
async fn open_pending(
    inner: &Inner,
    attempt: &Attempt,
    home: &ClusterId,
    query: &FindUser,
    id: SessionId,
) -> Result<Vec<SessionId>, Error> {
    let clock = inner.clock.clone();
    let now = clock.now();
    let until = attempt.deadline;
    let row = Session {
        role: Role::Visiting,
        counterpart: home.clone(),
        id,
        state: State::Pending,
        device: attempt.device.name.clone(),
        user_id: None,
        login_type: query.login_type,
        login_name: query.name.clone(),
        profile: None,
        base_device: None,
        services: None,
        reference: attempt.reference,
        created_at: now,
        // Cluster time, once the transaction has its turn.
        deadline: None,
        changed_at: now,
        ended_at: None,
        end_reason: None,
        initiator: None,
        owed: false,
        parked: None,
        parked_at: None,
    };
    let (carrier, own) = (
        inner.membership.run().clone(),
        inner.local.cluster_id().clone(),
    );
    inner
        .write(attempt.deadline, move |tx: &mut dyn Transaction| {
            // The phone has been told that it failed: nothing may begin now.
            let left = until.saturating_duration_since(clock::instant());
            if left.is_zero() {
                return Err(Error::StoreSlow);
            }
            let began = tx.cluster_now()?;
            let row = Session {
                deadline: Some(began.plus(left).plus(SLACK)),
                changed_at: began,
                ..row.clone()
            };
            // Between the first look and now somebody else may have come.
            if let Some(session) = sessions::active_on_device(tx, Role::Visiting, &row.device)? {
                return Err(occupied(session));
            }
            if row.counterpart != own {
                // It was known when the user was found; nobody may begin with a peer that has gone since.
                let is_there = peers::get(tx, &row.counterpart)?.is_some_and(|peer| peer.enabled);
                if !is_there {
                    return Err(Error::PeerGone(row.counterpart.clone()));
                }
                if peers::is_leaving(tx, &row.counterpart, began)? {
                    return Err(Error::PeerLeaves(row.counterpart.clone()));
                }
                // This node may not have cut the link yet.
                if debts::is_distrusted(tx, &row.counterpart)? {
                    return Err(Error::PeerDistrusted(row.counterpart.clone()));
                }
            }
            sessions::insert_pending(tx, &row, &carrier)?;
            Ok(sessions::newest_owed(
                tx,
                Role::Visiting,
                &row.counterpart,
                MAX_SUPERSEDES,
            )?)
        })
        .await
}

/// Ends the row where it may yet come to be, behind it in the store's queue: the phone is about to be told that it
/// failed. Home has heard of nothing, and is owed nothing.
async fn take_back(
    inner: &Inner,
    attempt: &Attempt,
    home: &ClusterId,
    id: SessionId,
    error: &Error,
) {
    if !matches!(error, Error::StoreSlow) {
        return;
    }
    let (home, now) = (home.clone(), inner.clock.now());
    let entry = given_up(attempt, &home, error.to_string(), now);
    let ending = inner.write(attempt.deadline, move |tx: &mut dyn Transaction| {
        let end = Some((EndReason::Abandoned, Initiator::Visiting, now));
        let from = [State::Pending];
        if sessions::transition(
            tx,
            Role::Visiting,
            &home,
            id,
            &from,
            State::Ended,
            end,
            false,
        )? {
            audit::append(tx, &entry)?;
        }
        Ok::<_, Error>(())
    });
    // It is not waited for; what can't be written is at its deadline soon.
    drop(ending.await);
}

async fn ask(
    inner: &Inner,
    attempt: &Attempt,
    home: &Home,
    id: SessionId,
    supersedes: Vec<SessionId>,
) -> Result<LoginAnswer, Refusal> {
    let device = &attempt.device;
    let request = LoginRequest {
        session_id: id,
        user: home.query.clone(),
        proof: attempt.proof.clone(),
        profile: attempt.profile.clone(),
        device: DeviceFacts {
            name: device.name.clone(),
            model: device.model.clone(),
            protocol: device.protocol.clone(),
            security_mode: device.security_mode,
            locale: device.locale.clone(),
            address: Some(attempt.address),
        },
        geolocation: device.geolocation.clone(),
        supersedes,
    };
    // A little less than the pending row lives, so that an answer in time finds its row still pending.
    let length = attempt
        .deadline
        .saturating_duration_since(clock::instant())
        .saturating_sub(ANSWER_MARGIN);
    // With the bug, answers are taken that come after the deadline.
    let length = match fault::has(Bug::PendingPromotedLate) {
        true => length + SLACK,
        false => length,
    };
    let context = inner.context(attempt.reference, length);
    let cluster: &dyn HomeCluster = home.cluster.as_ref();
    match tokio::time::timeout_at(context.deadline.into(), cluster.login(&context, &request)).await
    {
        Ok(answer) => answer,
        Err(_) => Err(Refusal::new(
            EmCode::NoResponseFromRemoteHost,
            format!(
                "cluster {} did not answer within {} ms",
                cluster.cluster_id(),
                length.as_millis()
            ),
        )),
    }
}

/// The answer came: the row becomes active, unless it was given up meanwhile.
async fn activate(
    inner: &Inner,
    attempt: &Attempt,
    home: &Home,
    id: SessionId,
    services: HomeServices,
) -> Result<LoggedIn, Error> {
    let clock = inner.clock.clone();
    let cluster = home.cluster.cluster_id();
    let remember = *cluster != inner.config.cluster && attempt.is_known_as_typed(home);
    let (home_in, services_in, query, device, reference) = (
        cluster.clone(),
        services.clone(),
        attempt.query.clone(),
        attempt.device.name.clone(),
        attempt.reference,
    );
    let until = attempt.deadline;
    let active = inner
        .write(attempt.deadline, move |tx: &mut dyn Transaction| {
            let profile = Some(&services_in.profile);
            let entry = |at, outcome: &str| audit::Entry {
                at,
                actor: format!("phone {device}"),
                action: audit::Action::SessionLogin,
                subject: format!("{} of {home_in} on {device}", services_in.user_id),
                outcome: outcome.to_owned(),
                reference: Some(reference),
            };
            // Read here: the transaction may have waited for its turn.
            let now = clock.now();
            if is_overdue(tx, &home_in, id, until, &entry(now, TOO_LATE))? {
                return Ok(false);
            }
            if !sessions::activate(
                tx,
                Role::Visiting,
                &home_in,
                id,
                &services_in.user_id,
                profile,
                &services_in,
            )? {
                return Ok::<_, Error>(false);
            }
            if remember {
                hints::put(tx, query.login_type, &query.name, &home_in)?;
            }
            audit::append(tx, &entry(now, "success"))?;
            Ok(true)
        })
        .await;
    in_force(inner, attempt, cluster, id, active).await?;
    Ok(LoggedIn {
        user_id: services.user_id.clone(),
        home: cluster.clone(),
        profile: services.profile.clone(),
        services,
        reference: attempt.reference,
    })
}

/// Whether the deadline of a login that would go on now is over: `until`, by which its carrier goes, or the row's own.
/// Then its row has ended, and home is owed the news.
pub(super) fn is_overdue(
    tx: &mut dyn Transaction,
    home: &ClusterId,
    id: SessionId,
    until: Instant,
    late: &audit::Entry,
) -> Result<bool, Error> {
    #[cfg(test)]
    if fault::has(Bug::PendingPromotedLate) {
        crate::store::bugs::reopen(tx, home, id)?;
        return Ok(false);
    }
    let row = sessions::get(tx, Role::Visiting, home, id)?;
    let Some(row) = row.filter(|row| row.state == State::Pending) else {
        return Ok(false);
    };
    let now = tx.cluster_now()?;
    let is_over = row.deadline.is_some_and(|deadline| deadline <= now);
    if !is_over && clock::instant() < until {
        return Ok(false);
    }
    let end = Some((EndReason::Abandoned, Initiator::Visiting, late.at));
    if sessions::transition(
        tx,
        Role::Visiting,
        home,
        id,
        &[State::Pending],
        State::Ended,
        end,
        true,
    )? {
        audit::append(tx, late)?;
    }
    Ok(true)
}

/// What home's answer came to: `moved` says whether its row was still there for it. Whatever the phone is told has
/// failed takes it no more.
pub(super) async fn in_force(
    inner: &Inner,
    attempt: &Attempt,
    home: &ClusterId,
    id: SessionId,
    moved: Result<bool, Error>,
) -> Result<(), Error> {
    match moved {
        Ok(true) => Ok(()),
        Ok(false) => {
            // Its end is on record, and home is owed the news unless it ended the session itself.
            inner.owed.notify_one();
            Err(Error::TooLate(home.clone()))
        }
        Err(error) => {
            // Where the row may yet be moved, this stands behind it in the store's queue.
            let refusal = Refusal::new(error.em_code(), error.to_string());
            give_up(inner, attempt, home, id, &refusal).await?;
            Err(error)
        }
    }
}

/// Ends the row before the failure is shown, also one that became active too late. Home is owed the end where it may hold a session, or
/// will not keep its refusal.
async fn give_up(
    inner: &Inner,
    attempt: &Attempt,
    home: &ClusterId,
    id: SessionId,
    refusal: &Refusal,
) -> Result<(), Error> {
    let kept = match refusal.code {
        EmCode::DatabaseError
        | EmCode::Busy
        | EmCode::NoFreeBaseDevice
        | EmCode::NoResponseFromRemoteHost
        | EmCode::ServiceConnectionError
        | EmCode::UnknownError => false,
        _ => {
            !refusal.is_one_of_several
                && !matches!(refusal.detail, Detail::IdReused | Detail::SessionEnded(_))
        }
    };
    let reason = if kept {
        EndReason::Refused
    } else {
        EndReason::Abandoned
    };
    let (home, now) = (home.clone(), inner.clock.now());
    let entry = given_up(attempt, &home, refusal.to_string(), now);
    inner
        .write(attempt.deadline, move |tx: &mut dyn Transaction| {
            let end = Some((reason, Initiator::Visiting, now));
            sessions::transition(
                tx,
                Role::Visiting,
                &home,
                id,
                &[State::Pending, State::Active],
                State::Ended,
                end,
                !kept,
            )?;
            Ok::<_, Error>(audit::append(tx, &entry)?)
        })
        .await?;
    if !kept {
        inner.owed.notify_one();
    }
    Ok(())
}

/// What the audit has of a login that failed.
fn given_up(attempt: &Attempt, home: &ClusterId, outcome: String, at: Timestamp) -> audit::Entry {
    audit::Entry {
        at,
        actor: format!("phone {}", attempt.device.name),
        action: audit::Action::SessionLogin,
        subject: format!(
            "{} of {home} on {}",
            attempt.query.name, attempt.device.name
        ),
        outcome,
        reference: Some(attempt.reference),
    }
}

async fn forget_hint(inner: &Inner, attempt: &Attempt) -> Result<(), Error> {
    let (login_type, name) = (attempt.query.login_type, attempt.query.name.clone());
    inner
        .write(attempt.deadline, move |tx: &mut dyn Transaction| {
            Ok::<_, Error>(hints::forget(tx, login_type, &name)?)
        })
        .await?;
    Ok(())
}
