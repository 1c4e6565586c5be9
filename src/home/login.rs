//! Login at home: read, check the PIN off the database, then decide everything again in one transaction.

use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::{
    Error, HomeRole, decide,
    desk::{Checked, Desk, Proven},
    reach::Reach,
};
use crate::{
    admission::{Kind, Party, Permit, Source},
    clock, credentials,
    domain::{
        geolocation,
        login::{Context, HomeServices, LoginAnswer, LoginRequest, Proof},
        parameters::Parameters,
    },
    secret::Ticket,
    store::{
        Transaction, credentials as stored,
        pools::{self, DevicePool},
        tickets,
    },
};

/// When to come back to a node whose store was too slow for the deadline.
const RETRY_WHEN_LATE: Duration = Duration::from_secs(1);

/// What was looked up so long ago is looked up again before a PIN is hashed: no copy of a request comes sooner.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// How often a login starts anew because the PIN changed under it.
const ATTEMPTS: usize = 3;

pub(super) async fn login(
    role: &HomeRole,
    context: &Context,
    request: &LoginRequest,
) -> Result<LoginAnswer, Error> {
    let outcome = attempt(role, context, request).await;
    role.faults.pass("home.login.committed").await;
    match &outcome {
        Ok(LoginAnswer::Choose(choice)) => info!(
            peer.cluster_id = %context.caller, device = %request.device.name, r#ref = %context.reference,
            "a user from cluster {} is asked which of {} device profiles to use",
            context.caller, choice.profiles.len()
        ),
        Ok(LoginAnswer::Opened(services)) => info!(
            user = %services.user_id, peer.cluster_id = %context.caller, device = %request.device.name,
            r#ref = %context.reference, reset = services.reset, restart_reason = services.restart_reason,
            "user {} logged in from cluster {}", services.user_id, context.caller
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

/// A place for a login that a peer asks for; our own phones' have theirs at visiting.
async fn admit(
    role: &HomeRole,
    context: &Context,
    request: &LoginRequest,
) -> Result<Option<Permit>, Error> {
    if context.caller == role.cluster {
        return Ok(None);
    }
    let source = source(role, context, request);
    let entered = role
        .admission
        .enter(Kind::Inbound, &source, context.deadline);
    entered.await.map(Some).map_err(Error::NotAdmitted)
}

async fn attempt(
    role: &HomeRole,
    context: &Context,
    request: &LoginRequest,
) -> Result<LoginAnswer, Error> {
    let first = look_up_and_end(role, context, request).await?;
    // What is known of an id is told without a place: a copy of the request may hold one, or may have done all.
    let _place = if first.is_known() {
        None
    } else {
        admit(role, context, request).await?
    };
    role.faults.pass("home.login.received").await;
    let mut first = Some(first);
    for _ in 0..ATTEMPTS {
        let mut looked = match first.take() {
            Some(looked) => looked,
            None => look_up_and_end(role, context, request).await?,
        };
        let pool = looked.take_pool();
        let proven = match prove(role, context, request, looked).await? {
            Proved::Repeat(services) => {
                supersede_only(role, context, request).await?;
                return Ok(LoginAnswer::Opened(services));
            }
            Proved::So(proven) => proven,
        };
        match commit(role, context, request, proven, pool).await? {
            Committed::Answered(answer) => return Ok(answer),
            Committed::Refused(error) => return Err(*error),
            Committed::PinChanged => {
                debug!(r#ref = %context.reference, "the PIN changed under a login; checking again");
            }
        }
    }
    Err(Error::Contended)
}

/// What a look at the store said, and when.
struct Looked {
    at: Instant,
    says: LookedUp,
}

impl Looked {
    /// Whether the id was answered before.
    const fn is_known(&self) -> bool {
        match &self.says {
            LookedUp::Repeat(_) => true,
            LookedUp::User { is_repeat, .. } => *is_repeat,
            LookedUp::Refused => false,
        }
    }

    fn take_pool(&mut self) -> Option<Box<DevicePool>> {
        match &mut self.says {
            LookedUp::User { roaming, .. } => roaming.take(),
            LookedUp::Repeat(_) | LookedUp::Refused => None,
        }
    }
}

/// What a look at the store says.
enum LookedUp {
    /// The id was answered before, and the session lives.
    Repeat(Box<HomeServices>),
    /// Refused whatever the PIN; the transaction will say why, and keep it.
    Refused,
    /// There is a user, and perhaps a hash.
    User {
        phc: Option<stored::Phc>,
        /// The pool for where a visitor's phone stands, if there is one.
        roaming: Option<Box<DevicePool>>,
        /// The id was answered before with a question, which is asked again if the PIN is right again.
        is_repeat: bool,
    },
}

/// What is known of the proof.
enum Proved {
    /// The id was answered before, and the session lives.
    Repeat(Box<HomeServices>),
    /// This is for the transaction to judge.
    So(Proven),
}

/// Checks the PIN, off the database. A ticket is for the transaction alone, which also takes it back.
///
/// Who waited in the line of PIN checks looks again before the hash: by then another node may have answered a copy of
/// this request, and the hash would be for nobody.
async fn prove(
    role: &HomeRole,
    context: &Context,
    request: &LoginRequest,
    looked: Looked,
) -> Result<Proved, Error> {
    let mut phc = match looked.says {
        LookedUp::Repeat(services) => return Ok(Proved::Repeat(services)),
        LookedUp::Refused => return Ok(Proved::So(Proven::Nothing)),
        LookedUp::User { phc, .. } => phc,
    };
    let pin = match &request.proof {
        Proof::Pin(pin) => pin,
        Proof::Ticket(ticket) => {
            return Ok(Proved::So(Proven::Ticket(tickets::hash_of(ticket))));
        }
        Proof::Gone => return Err(Error::Damaged("a login without a PIN".to_owned())),
    };
    let source = source(role, context, request);
    let turn = match role.credentials.turn(&source, context.deadline).await {
        Ok(turn) => turn,
        Err(error) => return not_proved(role, context, request, error).await,
    };
    if clock::since(looked.at) >= LOOK_AGAIN_AFTER {
        match look_up_and_end(role, context, request).await?.says {
            LookedUp::Repeat(services) => return Ok(Proved::Repeat(services)),
            LookedUp::Refused => return Ok(Proved::So(Proven::Nothing)),
            LookedUp::User { phc: newest, .. } => phc = newest,
        }
    }
    let checked = role.credentials.verify_at(turn, pin, phc.clone()).await;
    match checked {
        Ok(matches) => Ok(Proved::So(Proven::Pin(Checked { phc, matches }))),
        Err(error) => not_proved(role, context, request, error).await,
    }
}

async fn not_proved(
    role: &HomeRole,
    context: &Context,
    request: &LoginRequest,
    error: credentials::Error,
) -> Result<Proved, Error> {
    supersede_only(role, context, request).await?;
    Err(match error {
        credentials::Error::Busy { retry_after } => Error::Busy(retry_after),
        other => Error::Credentials(other),
    })
}

/// Looks at the store. Where that settles it, the superseded sessions end all the same: a repeat may know of more
/// of them than the first one did.
async fn look_up_and_end(
    role: &HomeRole,
    context: &Context,
    request: &LoginRequest,
) -> Result<Looked, Error> {
    let at = clock::instant();
    match look_up(role, context, request).await {
        Ok(says) => Ok(Looked { at, says }),
        Err(Error::Store(error)) => Err(Error::Store(error)),
        Err(error) => {
            supersede_only(role, context, request).await?;
            Err(error)
        }
    }
}

/// On whose behalf: our own phones' or a peer's.
fn source(role: &HomeRole, context: &Context, request: &LoginRequest) -> Source {
    let party = if context.caller == role.cluster {
        Party::Phones
    } else {
        Party::Peer(context.caller.clone())
    };
    Source::of(party, request.device.address)
}

async fn look_up(
    role: &HomeRole,
    context: &Context,
    request: &LoginRequest,
) -> Result<LookedUp, Error> {
    let (own, context, request) = (
        role.cluster.clone(),
        context.clone(),
        request.without_proof(),
    );
    let parameters = role.parameters();
    role.store
        .look_up(move |tx: &mut dyn Transaction| {
            let caller = &context.caller;
            let is_repeat = match decide::replay(tx, caller, &request)? {
                decide::Repeat::Opened(services) => return Ok(LookedUp::Repeat(services)),
                decide::Repeat::Asked | decide::Repeat::MustChange => true,
                decide::Repeat::New => false,
            };
            match decide::admit_caller(tx, &own, &context) {
                Ok(()) => {}
                Err(unknown @ Error::CallerUnknown(_)) => return Err(unknown),
                Err(_) => return Ok(LookedUp::Refused),
            }
            let hides = decide::hides_unknown(&own, caller, &parameters);
            match decide::one_user_or_hidden(tx, &request.user, hides) {
                Ok(user) => Ok(LookedUp::User {
                    phc: stored::get(tx, &user.user_id)?.map(|c| c.phc),
                    roaming: roaming_pool(tx, own == *caller, &parameters, &request)?,
                    is_repeat,
                }),
                // There is no hash, and one is computed all the same.
                Err(Error::UserHidden) => Ok(LookedUp::User {
                    phc: None,
                    roaming: None,
                    is_repeat,
                }),
                Err(Error::Store(error)) => Err(Error::Store(error)),
                Err(_) => Ok(LookedUp::Refused),
            }
        })
        .await
}

/// The pool for where a visitor's phone stands. Chosen here, since it takes a look at all of them: the writer has
/// better to do.
fn roaming_pool(
    tx: &mut dyn Transaction,
    is_local: bool,
    parameters: &Parameters,
    request: &LoginRequest,
) -> Result<Option<Box<DevicePool>>, Error> {
    let place = &request.geolocation;
    if is_local || place.is_empty() {
        return Ok(None);
    }
    let filter = parameters.emcc_geolocation_filter.as_ref();
    let all = pools::roaming(tx)?;
    let best = geolocation::best(filter, place, &all, |p| (p.name.as_str(), &p.geolocation));
    Ok(best.cloned().map(Box::new))
}

/// What the transaction did.
enum Committed {
    Answered(LoginAnswer),
    Refused(Box<Error>),
    /// The user's hash is no longer the one that was checked.
    PinChanged,
}

async fn commit(
    role: &HomeRole,
    context: &Context,
    request: &LoginRequest,
    proven: Proven,
    roaming: Option<Box<DevicePool>>,
) -> Result<Committed, Error> {
    let desk = Desk {
        roaming,
        ..desk(role, context, request)
    };
    let owed = std::sync::Arc::clone(&role.owed);
    let deadline = context.deadline;
    let committed = role
        .store
        .write(move |tx: &mut dyn Transaction| {
            desk.supersede(tx)?;
            // Nobody waits for the answer any more: a session now would only have to be ended again.
            if clock::instant() >= deadline {
                let late = Error::Busy(RETRY_WHEN_LATE);
                return Ok((Committed::Refused(Box::new(late)), false));
            }
            let mut owes = false;
            let outcome = desk.decide(tx, &proven, &mut owes);
            let committed = match outcome {
                Ok(Some(answer)) => Committed::Answered(answer),
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
    let desk = desk(role, context, request);
    role.store
        .write(move |tx: &mut dyn Transaction| desk.supersede(tx))
        .await
}

pub(super) fn desk(role: &HomeRole, context: &Context, request: &LoginRequest) -> Desk {
    Desk {
        own: role.cluster.clone(),
        traits: role.traits,
        context: context.clone(),
        request: request.without_proof(),
        now: role.clock.now(),
        roaming: None,
        parameters: role.parameters(),
        reach: Reach::now(role),
        // Made here, since the transaction may run again.
        ticket: Ticket::from_bytes(role.chance.bytes()),
    }
}
