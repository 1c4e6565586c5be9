//! One login at home inside its transaction: the checks in home's order, and what comes of them.

use std::sync::Arc;

use super::{
    Error,
    decide::{self, Chosen, Repeat},
    reach::Reach,
};
use crate::{
    clock::Timestamp,
    credentials::lockout,
    domain::{
        capability::Traits,
        ids::{BaseDeviceName, ClusterId, DevicePoolName, ProfileName},
        login::{
            CallManager, Context, HomeServices, LoginAnswer, LoginRequest, ProfileChoice,
            TICKET_LIFE,
        },
        multiple_login::{self, Verdict},
        parameters::Parameters,
        policy::BUILT_IN,
        restart,
        security::{self, Side},
        session::{EndReason, Initiator, Role, State},
    },
    secret::Ticket,
    store::{
        self, Transaction,
        answers::{self, Answer},
        audit, base_devices, cluster_time,
        credentials::{self as stored, Credential},
        devices, phone_services, policies,
        pools::{self, DevicePool},
        profiles::Profile,
        sessions::{self, Session},
        tickets::{self, Holder, Issue, Purpose},
        users::User,
    },
};

/// A PIN that was checked against a hash.
#[derive(Clone)]
pub(super) struct Checked {
    pub(super) phc: Option<stored::Phc>,
    pub(super) matches: bool,
}

/// What a phone gets of a device pool.
#[derive(Default)]
struct Pool {
    name: Option<DevicePoolName>,
    call_managers: Vec<CallManager>,
    tftp_servers: Vec<String>,
}

/// The refusal of a user who is locked until then, in cluster time; it is read as wall time.
fn locked(tx: &mut dyn Transaction, user: &User, until: Timestamp) -> Result<Error, store::Error> {
    Ok(Error::Locked {
        user: user.user_id.clone(),
        until: cluster_time::to_wall(tx, until)?,
    })
}

/// What is known of the user's proof before the transaction.
#[derive(Clone)]
pub(super) enum Proven {
    /// It was not looked at: there was nobody to check it for.
    Nothing,
    /// A PIN, checked.
    Pin(Checked),
    /// The hash of a ticket; whether it is good is in the store.
    Ticket([u8; 32]),
}

/// One login inside its transaction. It can run again: it changes nothing outside the store.
pub(super) struct Desk {
    pub(super) own: ClusterId,
    pub(super) traits: Traits,
    pub(super) context: Context,
    pub(super) request: LoginRequest,
    pub(super) now: Timestamp,
    pub(super) parameters: Arc<Parameters>,
    /// The pool for where the phone stands.
    pub(super) roaming: Option<Box<DevicePool>>,
    pub(super) reach: Reach,
    /// For the answer that carries one.
    pub(super) ticket: Ticket,
}

impl Desk {
    fn is_local(&self) -> bool {
        self.own == self.context.caller
    }

    /// Tombstones what visiting has ended. Only rows of this caller are touched.
    pub(super) fn supersede(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        // An id that a peer may not use is not for it to end either.
        if !self.is_local() && store::peers::get(tx, &self.context.caller)?.is_none() {
            return Ok(());
        }
        let mut entries = Vec::new();
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
                entries.push(self.entry(
                    audit::Action::SessionLogout,
                    format!("session {id}"),
                    EndReason::Superseded.as_str(),
                ));
            }
        }
        // At once: after an outage there are many, and every login names some.
        audit::append_all(tx, &entries)?;
        Ok(())
    }

    /// The checks in home's order, then the session. None: the hash is no longer the one that was checked.
    /// `owes` tells whether a peer is now owed the end of an earlier session, also where the login is refused.
    pub(super) fn decide(
        &self,
        tx: &mut dyn Transaction,
        proven: &Proven,
        owes: &mut bool,
    ) -> Result<Option<LoginAnswer>, Error> {
        let caller = &self.context.caller;
        #[cfg(test)]
        if crate::fault::has(crate::fault::Bug::LoginOnTombstone) {
            crate::store::bugs::forget_ended(tx, caller, self.request.session_id)?;
        }
        let repeat = match decide::replay(tx, caller, &self.request)? {
            Repeat::Opened(services) => return Ok(Some(LoginAnswer::Opened(services))),
            repeat => repeat,
        };
        decide::admit_caller(tx, &self.own, &self.context)?;
        let hides = decide::hides_unknown(&self.own, caller, &self.parameters);
        let user = decide::one_user_or_hidden(tx, &self.request.user, hides)?;
        let credential = stored::get(tx, &user.user_id)?;
        let must_change = match proven {
            // A user that appeared, or a PIN that was set, since the first look: check again.
            Proven::Nothing => return Ok(None),
            Proven::Pin(checked) => {
                if credential.as_ref().map(|c| &c.phc) != checked.phc.as_ref() {
                    return Ok(None);
                }
                self.judge_pin(tx, &user, credential, checked.matches)?
            }
            Proven::Ticket(hash) => self.judge_ticket(tx, &user, credential, hash)?,
        };
        // A repeat is answered as the first was, with a ticket of its own; whichever answer arrives, its ticket is good.
        let why = match repeat {
            Repeat::New => Issue::First(self.request.session_id),
            _ => Issue::Again(self.request.session_id),
        };
        if repeat == Repeat::MustChange || (must_change && repeat == Repeat::New) {
            self.issue(tx, &user, Purpose::ChangePin, why)?;
            return Err(Error::MustChangePin {
                user: user.user_id,
                ticket: self.ticket.clone(),
            });
        }
        if !self.is_local() && !user.emcc_enabled {
            return Err(Error::EmccOff(user.user_id));
        }
        if repeat == Repeat::Asked {
            let names = decide::profile_names(tx, &user.user_id)?;
            return self.ask_which(tx, &user, names, why).map(Some);
        }
        let may_choose =
            self.context.traits.profile_choice && (self.is_local() || self.traits.profile_choice);
        let wanted = self.request.profile.as_ref();
        let profile = match decide::profile(tx, &user.user_id, wanted, may_choose)? {
            Chosen::One(profile) => *profile,
            Chosen::Several(names) => return self.ask_which(tx, &user, names, why).map(Some),
        };
        self.clear_device(tx, owes)?;
        let others = self.other_sessions(tx, &user)?;
        self.check_name(tx)?;
        self.judge_security()?;
        let base_device = self.make_room(tx, &others, owes)?;
        let services = self.open(tx, &user, profile, base_device)?;
        Ok(Some(services.into()))
    }

    /// Nothing is opened: the user is asked which profile it shall be, and gets a ticket instead of typing the PIN
    /// again.
    fn ask_which(
        &self,
        tx: &mut dyn Transaction,
        user: &User,
        profiles: Vec<ProfileName>,
        why: Issue,
    ) -> Result<LoginAnswer, Error> {
        self.issue(tx, user, Purpose::ChooseProfile, why)?;
        self.keep(tx, None, String::new(), Vec::new())?;
        self.record(tx, "asked which device profile")?;
        Ok(LoginAnswer::Choose(ProfileChoice {
            profiles,
            ticket: self.ticket.clone(),
        }))
    }

    fn issue(
        &self,
        tx: &mut dyn Transaction,
        user: &User,
        purpose: Purpose,
        why: Issue,
    ) -> Result<(), Error> {
        let hash = tickets::hash_of(&self.ticket);
        let until = tx.cluster_now()?.plus(TICKET_LIFE);
        tickets::issue(tx, self.holder(user, purpose), why, &hash, until)?;
        Ok(())
    }

    fn holder<'a>(&'a self, user: &'a User, purpose: Purpose) -> Holder<'a> {
        Holder {
            caller: &self.context.caller,
            device: &self.request.device.name,
            user: &user.user_id,
            purpose,
        }
    }

    /// The ticket instead of the PIN: the user's state counts all the same, and it is taken back with that. One that
    /// is wrong is no guess at a PIN, and counts for no lock.
    fn judge_ticket(
        &self,
        tx: &mut dyn Transaction,
        user: &User,
        credential: Option<Credential>,
        hash: &[u8; 32],
    ) -> Result<bool, Error> {
        let now = tx.cluster_now()?;
        let good = tickets::redeem(tx, self.holder(user, Purpose::ChooseProfile), hash, now)?;
        let Some(row) = credential.filter(|_| good) else {
            return Err(Error::WrongTicket(user.user_id.clone()));
        };
        if !user.enabled {
            return Err(Error::Disabled(user.user_id.clone()));
        }
        match lockout::locked(&row, now) {
            Some(until) => Err(locked(tx, user, until)?),
            None => Ok(row.must_change),
        }
    }

    /// Whether the security modes of both clusters and of the phone go together.
    fn judge_security(&self) -> Result<(), Error> {
        if self.is_local() {
            return Ok(());
        }
        let home = Side {
            mode: self.traits.security_mode,
            secure_config: self.traits.secure_config,
        };
        let visiting = Side {
            mode: self.context.traits.security_mode,
            secure_config: self.context.traits.secure_config,
        };
        let phone = self.request.device.security_mode;
        security::judge(home, visiting, phone)
            .map(drop)
            .map_err(Error::SecurityMode)
    }

    /// Lock-out, per-user state and the PIN; whether the PIN must be changed. A failure is counted in this same
    /// transaction.
    fn judge_pin(
        &self,
        tx: &mut dyn Transaction,
        user: &User,
        credential: Option<Credential>,
        matches: bool,
    ) -> Result<bool, Error> {
        if !user.enabled {
            return Err(Error::Disabled(user.user_id.clone()));
        }
        let Some(mut row) = credential else {
            return Err(Error::WrongPin {
                user: user.user_id.clone(),
                failures: 0,
                locked: None,
            });
        };
        let now = tx.cluster_now()?;
        let before = row.clone();
        // A PIN that is right is judged by no policy; and while the user is locked, a wrong one is no more work than it.
        let rules = if matches || lockout::locked(&row, now).is_some() {
            BUILT_IN
        } else {
            policies::rules_of(tx, user.policy.as_ref())?
        };
        let outcome = lockout::decide(&mut row, matches, now, rules);
        if row != before {
            stored::set_counters(tx, &row)?;
        }
        match outcome {
            lockout::Outcome::Locked { until } => Err(locked(tx, user, until)?),
            lockout::Outcome::Wrong { failures, locked } => Err(Error::WrongPin {
                user: user.user_id.clone(),
                failures,
                locked: match locked {
                    Some(until) => Some(cluster_time::to_wall(tx, until)?),
                    None => None,
                },
            }),
            lockout::Outcome::Right => Ok(row.must_change),
        }
    }

    /// The caller's earlier session on the phone ends here, also when the login is refused for what follows. Our own
    /// phone has more right to its name than a visitor's, whose session then ends.
    fn clear_device(&self, tx: &mut dyn Transaction, owes: &mut bool) -> Result<(), Error> {
        let name = &self.request.device.name;
        match sessions::active_on_device(tx, Role::Home, name)? {
            Some(earlier) if self.is_local() || earlier.counterpart == self.context.caller => {
                self.end(tx, &earlier, owes)
            }
            _ => Ok(()),
        }
    }

    /// A phone of that name elsewhere refuses the login of a visitor.
    fn check_name(&self, tx: &mut dyn Transaction) -> Result<(), Error> {
        let name = &self.request.device.name;
        if !self.is_local()
            && (sessions::active_on_device(tx, Role::Home, name)?.is_some()
                || devices::get(tx, name)?.is_some())
        {
            return Err(Error::DuplicateDevice(name.clone()));
        }
        Ok(())
    }

    /// The user's sessions on other phones that end when this one begins.
    fn other_sessions(&self, tx: &mut dyn Transaction, user: &User) -> Result<Vec<Session>, Error> {
        let earlier = sessions::active_of_user(tx, &user.user_id)?;
        // The caller is there: it has just called.
        let is_there = |there: &ClusterId| *there == self.own || *there == self.context.caller;
        let elsewhere = earlier.iter().map(|session| &session.counterpart);
        let elsewhere = elsewhere
            .filter(|there| !is_there(there))
            .cloned()
            .collect();
        let reached = self.reach.of(tx, elsewhere)?;
        let is_linked = |session: &Session| {
            let there = &session.counterpart;
            is_there(there) || reached.contains(there)
        };
        let verdict = multiple_login::judge(
            self.parameters.multiple_login_behavior,
            self.parameters.multiple_login_unreachable,
            earlier.iter().map(is_linked),
        );
        match (verdict, earlier.first()) {
            (Verdict::End, _) => Ok(earlier),
            (Verdict::Refuse, Some(session)) => Err(Error::LoggedInElsewhere {
                user: user.user_id.clone(),
                device: session.device.clone(),
                cluster: session.counterpart.clone(),
            }),
            (Verdict::Leave | Verdict::Refuse, _) => Ok(Vec::new()),
        }
    }

    /// Ends the other sessions and takes a base device, in the order in which nobody loses a session for a login
    /// that then finds no room.
    fn make_room(
        &self,
        tx: &mut dyn Transaction,
        others: &[Session],
        owes: &mut bool,
    ) -> Result<Option<BaseDeviceName>, Error> {
        let frees_one = others.iter().any(|session| session.base_device.is_some());
        let before = if frees_one {
            None
        } else {
            Some(self.base_device(tx)?)
        };
        for session in others {
            self.end(tx, session, owes)?;
        }
        match before {
            Some(base_device) => Ok(base_device),
            None => self.base_device(tx),
        }
    }

    /// Ends an earlier session for this one.
    fn end(
        &self,
        tx: &mut dyn Transaction,
        earlier: &Session,
        owes: &mut bool,
    ) -> Result<(), Error> {
        *owes |= sessions::end_at_home(tx, &self.own, earlier, EndReason::Superseded, self.now)?;
        let subject = format!("{} on {}", earlier.login_name, earlier.device);
        self.record_as(
            tx,
            audit::Action::SessionLogout,
            subject,
            EndReason::Superseded.as_str(),
        )
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
        let pool = self.pool(tx, &profile)?;
        let limit = if self.is_local() {
            self.parameters.intra_cluster_limit()
        } else {
            self.parameters.inter_cluster_limit()
        };
        let restart = restart::after_login(
            self.is_local(),
            self.request.device.locale.as_deref(),
            profile.locale.as_deref(),
        );
        let services = HomeServices {
            user_id: user.user_id.clone(),
            profile: profile.name.clone(),
            base_device: base_device.clone(),
            call_managers: pool.call_managers,
            tftp_servers: pool.tftp_servers,
            device_pool: pool.name,
            phone_services: phone_services::subscribed(tx, &profile.services)?,
            lines: profile.lines,
            locale: profile.locale,
            remaining: limit,
            reset: restart.reset,
            restart_reason: Some(restart.reason),
        };
        let began = tx.cluster_now()?;
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
                deadline: limit.map(|limit| began.plus(limit)),
                changed_at: began,
                ended_at: None,
                end_reason: None,
                initiator: None,
                owed: false,
                parked: None,
                parked_at: None,
            },
        )?;
        let body = serde_json::to_vec(&services).map_err(|e| Error::Damaged(e.to_string()))?;
        self.keep(tx, None, String::new(), body)?;
        self.record(tx, "success")?;
        Ok(services)
    }

    /// Where the phone finds its call control: for a visitor's phone the roaming pool for where it stands, else the
    /// profile's own. A phone that is carried elsewhere gets its configuration where the parameters say, if they do.
    fn pool(&self, tx: &mut dyn Transaction, profile: &Profile) -> Result<Pool, Error> {
        let parameters = &self.parameters;
        let mut chosen = self.roaming.as_deref().cloned();
        if let (None, Some(name)) = (&chosen, &profile.device_pool) {
            chosen = pools::get(tx, name)?;
        }
        let mut pool = match chosen {
            Some(chosen) => Pool {
                name: Some(chosen.name),
                call_managers: chosen.call_managers,
                tftp_servers: chosen.tftp_servers,
            },
            None => Pool {
                name: profile.device_pool.clone(),
                ..Pool::default()
            },
        };
        pool.call_managers.sort_by_key(|c| c.priority);
        if !self.is_local() {
            if let Some(server) = &parameters.default_tftp_server {
                pool.tftp_servers = vec![server.clone()];
            }
            // Whoever adds a backup takes nothing away.
            pool.tftp_servers
                .extend(parameters.backup_tftp_server.clone());
        }
        Ok(pool)
    }

    pub(super) fn keep_refusal(
        &self,
        tx: &mut dyn Transaction,
        error: &Error,
    ) -> Result<(), Error> {
        if error.is_kept() {
            let refusal = error.to_refusal(self.is_local());
            self.keep(
                tx,
                Some(i64::from(refusal.code.number())),
                refusal.cause,
                Vec::new(),
            )?;
        }
        if !matches!(error, Error::Repeated(_) | Error::CallerUnknown(_)) {
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
        let kept_at = tx.cluster_now()?;
        answers::put(
            tx,
            &Answer {
                counterpart: self.context.caller.clone(),
                id: self.request.session_id,
                digest: decide::digest(&self.request),
                code,
                cause,
                body,
                kept_at,
            },
        )?;
        Ok(())
    }

    fn record(&self, tx: &mut dyn Transaction, outcome: &str) -> Result<(), Error> {
        let subject = format!("{} on {}", self.request.user.name, self.request.device.name);
        self.record_as(tx, audit::Action::SessionLogin, subject, outcome)
    }

    fn record_as(
        &self,
        tx: &mut dyn Transaction,
        action: audit::Action,
        subject: String,
        outcome: &str,
    ) -> Result<(), Error> {
        audit::append(tx, &self.entry(action, subject, outcome))?;
        Ok(())
    }

    fn entry(&self, action: audit::Action, subject: String, outcome: &str) -> audit::Entry {
        audit::Entry {
            at: self.now,
            actor: format!("cluster {}", self.context.caller),
            action,
            subject,
            outcome: outcome.to_owned(),
            reference: Some(self.context.reference),
        }
    }
}
