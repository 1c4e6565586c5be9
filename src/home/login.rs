//! Login at home: read, check the PIN off the database, then decide everything again in one transaction.

use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::{Error, HomeRole, decide};
use crate::{
    clock::Timestamp,
    credentials::{self, lockout},
    domain::{
        ids::{BaseDeviceName, ClusterId},
        login::{Context, HomeServices, LoginRequest, Proof},
        session::{EndReason, Initiator, Role, State},
    },
    store::{
        self, Transaction,
        answers::{self, Answer},
        audit, base_devices,
        credentials::{self as stored, Credential},
        devices, pools,
        profiles::Profile,
        sessions::{self, Session},
        users::User,
    },
};

/// When to come back to a node whose store was too slow for the deadline.
const RETRY_WHEN_LATE: Duration = Duration::from_secs(1);

/// How often a login starts anew because the PIN changed under it.
const ATTEMPTS: usize = 3;

pub(super) async fn login(
    role: &HomeRole,
    context: &Context,
    request: &LoginRequest,
) -> Result<HomeServices, Error> {
    role.faults.pass("home.login.received").await;
    let outcome = attempt(role, context, request).await;
    role.faults.pass("home.login.committed").await;
    match &outcome {
        Ok(services) => info!(
            user = %services.user_id, peer.cluster_id = %context.caller, device = %request.device.name,
            r#ref = %context.reference, "user {} logged in from cluster {}", services.user_id, context.caller
        ),
        Err(error) => warn!(
            peer.cluster_id = %context.caller, device = %request.device.name, r#ref = %context.reference,
            em_code = error.em_code(context.caller == role.cluster).number(),
            cause = crate::telemetry::error_chain(error),
            "login from cluster {} refused", context.caller
        ),
    }
    outcome
}

async fn attempt(
    role: &HomeRole,
    context: &Context,
    request: &LoginRequest,
) -> Result<HomeServices, Error> {
    for _ in 0..ATTEMPTS {
        let looked_up = match look_up(role, context, request).await {
            Ok(looked_up) => looked_up,
            Err(Error::Store(error)) => return Err(Error::Store(error)),
            // A repeat may know of more ends than the first one did.
            Err(error) => {
                supersede_only(role, context, request).await?;
                return Err(error);
            }
        };
        let checked = match looked_up {
            LookedUp::Repeat(services) => {
                supersede_only(role, context, request).await?;
                return Ok(*services);
            }
            LookedUp::Refused => None,
            LookedUp::User { phc } => {
                let Proof::Pin(pin) = &request.proof else {
                    return Err(Error::Damaged("a login without a PIN".to_owned()));
                };
                let matches = match role
                    .credentials
                    .verify(pin, phc.clone(), context.deadline)
                    .await
                {
                    Ok(matches) => matches,
                    Err(error) => {
                        supersede_only(role, context, request).await?;
                        return Err(match error {
                            credentials::Error::Busy { retry_after } => Error::Busy(retry_after),
                            other => Error::Credentials(other),
                        });
                    }
                };
                Some(Checked { phc, matches })
            }
        };
        match commit(role, context, request, checked).await? {
            Committed::Opened(services) => return Ok(*services),
            Committed::Refused(error) => return Err(*error),
            Committed::PinChanged => {
                debug!(r#ref = %context.reference, "the PIN changed under a login; checking again");
            }
        }
    }
    Err(Error::Contended)
}

/// What the first look says.
enum LookedUp {
    /// The id was answered before.
    Repeat(Box<HomeServices>),
    /// Refused whatever the PIN; the transaction will say why, and keep it.
    Refused,
    /// There is a user, and perhaps a hash.
    User { phc: Option<stored::Phc> },
}

/// A PIN that was checked against a hash.
#[derive(Clone)]
struct Checked {
    phc: Option<stored::Phc>,
    matches: bool,
}

async fn look_up(
    role: &HomeRole,
    context: &Context,
    request: &LoginRequest,
) -> Result<LookedUp, Error> {
    let (own, caller, request) = (
        role.cluster.clone(),
        context.caller.clone(),
        request.without_proof(),
    );
    role.store
        .look_up(move |tx: &mut dyn Transaction| {
            if let Some(services) = decide::replay(tx, &caller, &request)? {
                return Ok(LookedUp::Repeat(Box::new(services)));
            }
            if decide::admit_caller(tx, &own, &caller).is_err() {
                return Ok(LookedUp::Refused);
            }
            match decide::one_user(tx, &request.user) {
                Ok(user) => Ok(LookedUp::User {
                    phc: stored::get(tx, &user.user_id)?.map(|c| c.phc),
                }),
                Err(Error::Store(error)) => Err(Error::Store(error)),
                Err(_) => Ok(LookedUp::Refused),
            }
        })
        .await
}

/// What the transaction did.
enum Committed {
    Opened(Box<HomeServices>),
    Refused(Box<Error>),
    /// The user's hash is no longer the one that was checked.
    PinChanged,
}

async fn commit(
    role: &HomeRole,
    context: &Context,
    request: &LoginRequest,
    checked: Option<Checked>,
) -> Result<Committed, Error> {
    let desk = Desk {
        own: role.cluster.clone(),
        context: context.clone(),
        request: request.without_proof(),
        now: role.clock.now(),
        rules: role.credentials.lockout(),
    };
    let owed = std::sync::Arc::clone(&role.owed);
    let deadline = context.deadline;
    let committed = role
        .store
        .write(move |tx: &mut dyn Transaction| {
            desk.supersede(tx)?;
            // Nobody waits for the answer any more: a session now would only have to be ended again.
            if Instant::now() >= deadline {
                let late = Error::Busy(RETRY_WHEN_LATE);
                return Ok((Committed::Refused(Box::new(late)), false));
            }
            let mut owes = false;
            let outcome = desk.decide(tx, checked.as_ref(), &mut owes);
            let committed = match outcome {
                Ok(Some(services)) => Committed::Opened(Box::new(services)),
                Ok(None) => Committed::PinChanged,
                Err(Error::Store(error)) => return Err(Error::Store(error)),
                Err(error) => {
                    desk.keep_refusal(tx, &error)?;
                    Committed::Refused(Box::new(error))
                }
            };
            Ok((committed, owes))
        })
        .await;
    let (committed, owes) = committed?;
    if owes {
        owed.notify_one();
    }
    Ok(committed)
}

/// Ends the superseded sessions although the login itself could not be decided.
async fn supersede_only(
    role: &HomeRole,
    context: &Context,
    request: &LoginRequest,
) -> Result<(), Error> {
    if request.supersedes.is_empty() {
        return Ok(());
    }
    let desk = Desk {
        own: role.cluster.clone(),
        context: context.clone(),
        request: request.without_proof(),
        now: role.clock.now(),
        rules: role.credentials.lockout(),
    };
    role.store
        .write(move |tx: &mut dyn Transaction| desk.supersede(tx))
        .await
}

/// One login inside its transaction. It can run again: it changes nothing outside the store.
struct Desk {
    own: ClusterId,
    context: Context,
    request: LoginRequest,
    now: Timestamp,
    rules: lockout::Rules,
}

impl Desk {
    fn is_local(&self) -> bool {
        self.own == self.context.caller
    }

    /// Tombstones what visiting has ended. Only rows of this caller are touched.
    fn supersede(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        // An id that a peer may not use is not for it to end either.
        if !self.is_local() && store::peers::get(tx, &self.context.caller)?.is_none() {
            return Ok(());
        }
        for id in self
            .request
            .supersedes
            .iter()
            .filter(|id| **id != self.request.session_id)
        {
            let ended = sessions::tombstone(
                tx,
                Role::Home,
                &self.context.caller,
                *id,
                EndReason::Superseded,
                Initiator::Visiting,
                self.now,
            )?;
            if ended {
                self.record_as(
                    tx,
                    "logout",
                    format!("session {id}"),
                    EndReason::Superseded.as_str(),
                )?;
            }
        }
        Ok(())
    }

    /// The checks in home's order, then the session. None: the hash is no longer the one that was checked.
    /// `owes` tells whether a peer is now owed the end of an earlier session, also where the login is refused.
    fn decide(
        &self,
        tx: &mut dyn Transaction,
        checked: Option<&Checked>,
        owes: &mut bool,
    ) -> Result<Option<HomeServices>, Error> {
        let caller = &self.context.caller;
        if let Some(services) = decide::replay(tx, caller, &self.request)? {
            return Ok(Some(services));
        }
        decide::admit_caller(tx, &self.own, caller)?;
        let user = decide::one_user(tx, &self.request.user)?;
        let credential = stored::get(tx, &user.user_id)?;
        // A user that appeared, or a PIN that was set, since the first look: check again.
        let Some(checked) = checked else {
            return Ok(None);
        };
        if credential.as_ref().map(|c| &c.phc) != checked.phc.as_ref() {
            return Ok(None);
        }
        self.judge_pin(tx, &user, credential, checked.matches)?;
        if !self.is_local() && !user.emcc_enabled {
            return Err(Error::EmccOff(user.user_id));
        }
        let profile = decide::profile(tx, &user.user_id, self.request.profile.as_ref())?;
        self.clear_device(tx, owes)?;
        let base_device = self.base_device(tx)?;
        let services = self.open(tx, &user, profile, base_device)?;
        Ok(Some(services))
    }

    /// Lock-out, per-user state and the PIN. A failure is counted in this same transaction.
    fn judge_pin(
        &self,
        tx: &mut dyn Transaction,
        user: &User,
        credential: Option<Credential>,
        matches: bool,
    ) -> Result<(), Error> {
        if !user.enabled {
            return Err(Error::Disabled(user.user_id.clone()));
        }
        let Some(mut row) = credential else {
            return Err(Error::WrongPin {
                user: user.user_id.clone(),
                failures: 0,
            });
        };
        let before = row.clone();
        let outcome = lockout::decide(&mut row, matches, self.now, self.rules);
        if row != before {
            stored::set_counters(tx, &row)?;
        }
        match outcome {
            lockout::Outcome::Locked { until } => Err(Error::Locked {
                user: user.user_id.clone(),
                until,
            }),
            lockout::Outcome::Wrong { failures } => Err(Error::WrongPin {
                user: user.user_id.clone(),
                failures,
            }),
            lockout::Outcome::Right if row.must_change => {
                Err(Error::MustChangePin(user.user_id.clone()))
            }
            lockout::Outcome::Right => Ok(()),
        }
    }

    /// The caller's earlier session on the phone ends here, also when the login is refused for what follows. A
    /// phone of that name elsewhere refuses the login of a visitor; our own phone has more right to its name than
    /// a visitor's, whose session then ends.
    fn clear_device(&self, tx: &mut dyn Transaction, owes: &mut bool) -> Result<(), Error> {
        let name = &self.request.device.name;
        if let Some(earlier) = sessions::active_on_device(tx, Role::Home, name)? {
            if !self.is_local() && earlier.counterpart != self.context.caller {
                return Err(Error::DuplicateDevice(name.clone()));
            }
            let owed = earlier.counterpart != self.own;
            sessions::transition(
                tx,
                Role::Home,
                &earlier.counterpart,
                earlier.id,
                &[State::Active],
                State::Ended,
                Some((EndReason::Superseded, Initiator::Home, self.now)),
                owed,
            )?;
            let subject = format!("{} on {}", earlier.login_name, earlier.device);
            self.record_as(tx, "logout", subject, EndReason::Superseded.as_str())?;
            *owes |= owed;
        }
        if !self.is_local() && devices::get(tx, name)?.is_some() {
            return Err(Error::DuplicateDevice(name.clone()));
        }
        Ok(())
    }

    fn base_device(&self, tx: &mut dyn Transaction) -> Result<Option<BaseDeviceName>, Error> {
        if self.is_local() {
            return Ok(None);
        }
        base_devices::next_free(tx)?
            .map(Some)
            .ok_or(Error::NoBaseDevice)
    }

    fn open(
        &self,
        tx: &mut dyn Transaction,
        user: &User,
        profile: Profile,
        base_device: Option<BaseDeviceName>,
    ) -> Result<HomeServices, Error> {
        let pool = match &profile.device_pool {
            Some(name) => pools::get(tx, name)?,
            None => None,
        };
        let (mut call_managers, tftp_servers) = pool
            .map(|p| (p.call_managers, p.tftp_servers))
            .unwrap_or_default();
        call_managers.sort_by_key(|c| c.priority);
        let services = HomeServices {
            user_id: user.user_id.clone(),
            profile: profile.name.clone(),
            base_device: base_device.clone(),
            call_managers,
            tftp_servers,
            device_pool: profile.device_pool,
            lines: profile.lines,
            locale: profile.locale,
            remaining: None,
            reset: false,
            restart_reason: None,
        };
        sessions::insert(
            tx,
            &Session {
                role: Role::Home,
                counterpart: self.context.caller.clone(),
                id: self.request.session_id,
                state: State::Active,
                device: self.request.device.name.clone(),
                user_id: Some(user.user_id.clone()),
                login_type: self.request.user.login_type,
                login_name: self.request.user.name.clone(),
                profile: Some(profile.name),
                base_device,
                services: Some(services.clone()),
                reference: self.context.reference,
                created_at: self.now,
                deadline: None,
                ended_at: None,
                end_reason: None,
                initiator: None,
                owed: false,
            },
        )?;
        let body = serde_json::to_vec(&services).map_err(|e| Error::Damaged(e.to_string()))?;
        self.keep(tx, None, String::new(), body)?;
        self.record(tx, "success")?;
        Ok(services)
    }

    fn keep_refusal(&self, tx: &mut dyn Transaction, error: &Error) -> Result<(), Error> {
        if error.is_kept() {
            let refusal = error.to_refusal(self.is_local());
            self.keep(
                tx,
                Some(i64::from(refusal.code.number())),
                refusal.cause,
                Vec::new(),
            )?;
        }
        if !matches!(error, Error::Repeated(_)) {
            self.record(tx, &error.to_string())?;
        }
        Ok(())
    }

    fn keep(
        &self,
        tx: &mut dyn Transaction,
        code: Option<i64>,
        cause: String,
        body: Vec<u8>,
    ) -> Result<(), Error> {
        answers::put(
            tx,
            &Answer {
                counterpart: self.context.caller.clone(),
                id: self.request.session_id,
                digest: decide::digest(&self.request),
                code,
                cause,
                body,
                kept_at: self.now,
            },
        )?;
        Ok(())
    }

    fn record(&self, tx: &mut dyn Transaction, outcome: &str) -> Result<(), Error> {
        let subject = format!("{} on {}", self.request.user.name, self.request.device.name);
        self.record_as(tx, "login", subject, outcome)
    }

    fn record_as(
        &self,
        tx: &mut dyn Transaction,
        action: &'static str,
        subject: String,
        outcome: &str,
    ) -> Result<(), Error> {
        audit::append(
            tx,
            &audit::Entry {
                at: self.now,
                actor: format!("cluster {}", self.context.caller),
                action,
                subject,
                outcome: outcome.to_owned(),
                reference: Some(self.context.reference),
            },
        )?;
        Ok(())
    }
}
