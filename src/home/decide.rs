//! The checks of home's order that only read: who calls, who the user is, which profile, what a repeat gets.

use sha2::{Digest, Sha256};

use super::Error;
use crate::{
    domain::{
        em_code::EmCode,
        ids::{ClusterId, ProfileName, UserId},
        login::{Context, FindUser, HomeServices, LoginRequest, MAX_CHOICES},
        parameters::{Parameters, UnknownUserAnswer},
        refusal::Refusal,
        session::{EndReason, Role, State},
    },
    fault::{self, Bug},
    store::{
        Transaction, answers, debts, peers,
        profiles::{self, Profile},
        sessions::{self, Session},
        trust_entries, users,
        users::User,
    },
};

/// The caller is our own cluster, or a peer that is configured, enabled, allowed, trusted, and not about to be removed.
pub(super) fn admit_caller(
    tx: &mut dyn Transaction,
    own: &ClusterId,
    context: &Context,
) -> Result<(), Error> {
    let caller = &context.caller;
    if own == caller {
        return Ok(());
    }
    match peers::get(tx, caller)? {
        None => Err(Error::CallerUnknown(caller.clone())),
        Some(peer) if !peer.enabled || !peer.allow_emcc => {
            Err(Error::CallerNotAllowed(caller.clone()))
        }
        Some(_) => {
            let now = tx.cluster_now()?;
            if peers::is_leaving(tx, caller, now)? {
                return Err(Error::CallerNotAllowed(caller.clone()));
            }
            // Its connections are cut when this node hears of it; another node of ours may have been told first.
            let is_revoked = match &context.certificate {
                Some(leaf) => trust_entries::is_revoked(tx, caller, leaf)?,
                None => false,
            };
            if is_revoked || debts::is_distrusted(tx, caller)? {
                return Err(Error::CallerDistrusted(caller.clone()));
            }
            Ok(())
        }
    }
}

/// The one user that is meant, where an unknown one may have to look like a wrong PIN.
pub(super) fn one_user_or_hidden(
    tx: &mut dyn Transaction,
    query: &FindUser,
    hides: bool,
) -> Result<User, Error> {
    one_user(tx, query).map_err(|error| match error {
        Error::UserUnknown if hides => Error::UserHidden,
        other => other,
    })
}

/// Whether a caller is not to learn that there is no such user. Other clusters are: they ask whose a name is, and
/// remember it.
pub(super) fn hides_unknown(own: &ClusterId, caller: &ClusterId, parameters: &Parameters) -> bool {
    own == caller && parameters.unknown_user_answer == UnknownUserAnswer::AsWrongPin
}

/// The one user that is meant.
pub(super) fn one_user(tx: &mut dyn Transaction, query: &FindUser) -> Result<User, Error> {
    let mut found = users::find(tx, query.login_type, &query.name)?;
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(Error::UserUnknown),
        (Some(user), true) => Ok(user),
        (Some(_), false) => Err(Error::SeveralUsers),
    }
}

/// Which profile it shall be.
pub(super) enum Chosen {
    One(Box<Profile>),
    Several(Vec<ProfileName>),
}

/// The profile that was chosen, else the default one, else the only one. Where there are several, the user is
/// asked, or gets the first by name where the caller can't ask.
pub(super) fn profile(
    tx: &mut dyn Transaction,
    user: &UserId,
    chosen: Option<&ProfileName>,
    may_choose: bool,
) -> Result<Chosen, Error> {
    let mut all = profiles::for_user(tx, user)?;
    if chosen.is_none() && may_choose && all.len() > 1 && !all.iter().any(|p| p.is_default) {
        let names = all.into_iter().map(|p| p.name).take(MAX_CHOICES);
        return Ok(Chosen::Several(names.collect()));
    }
    let index = match chosen {
        Some(name) => all.iter().position(|p| p.name == *name),
        None => {
            all.iter()
                .position(|p| p.is_default)
                .or(if all.is_empty() { None } else { Some(0) })
        }
    };
    index
        .map(|i| Chosen::One(Box::new(all.swap_remove(i))))
        .ok_or_else(|| Error::NoProfile(user.clone()))
}

/// The user's profiles, as many as a phone can show.
pub(super) fn profile_names(
    tx: &mut dyn Transaction,
    user: &UserId,
) -> Result<Vec<ProfileName>, Error> {
    let all = profiles::for_user(tx, user)?;
    Ok(all.into_iter().map(|p| p.name).take(MAX_CHOICES).collect())
}

/// What is known of a session id.
#[derive(PartialEq, Eq)]
pub(super) enum Repeat {
    /// It is new.
    New,
    /// The session lives: the first answer is given again.
    Opened(Box<HomeServices>),
    /// The user was asked for a profile, and is again if the PIN is right again.
    Asked,
    /// The user was told to change the PIN, and is again if it is right again.
    MustChange,
}

/// What a repeat of `request` gets: nothing when the id is new, the first answer while the session lives or
/// where it was refused, and otherwise that it has ended.
pub(super) fn replay(
    tx: &mut dyn Transaction,
    caller: &ClusterId,
    request: &LoginRequest,
) -> Result<Repeat, Error> {
    let kept = answers::get(tx, caller, request.session_id)?;
    if let Some(kept) = &kept
        && kept.digest != digest(request)
    {
        return Err(Error::IdReused);
    }
    let session = sessions::get(tx, Role::Home, caller, request.session_id)?;
    match (session, kept) {
        (Some(session), Some(kept)) if session.state == State::Active && kept.code.is_none() => {
            let services =
                serde_json::from_slice(&kept.body).map_err(|e| Error::Damaged(e.to_string()))?;
            Ok(Repeat::Opened(Box::new(services)))
        }
        (session, Some(kept)) if kept.code.is_some() => {
            let number = kept.code.and_then(|n| u16::try_from(n).ok());
            let code = number
                .and_then(EmCode::from_number)
                .unwrap_or(EmCode::UnknownError);
            let asks = matches!(code, EmCode::PinChangeRequired | EmCode::ChangePin);
            match session {
                // It would be a question of a login that visiting has given up, with a new ticket.
                Some(ended) if asks && ended.state == State::Ended => Err(ended_for(&ended)),
                _ if asks => Ok(Repeat::MustChange),
                _ => Err(Error::Repeated(Refusal::new(code, kept.cause))),
            }
        }
        (Some(_), _) if fault::has(Bug::LoginOnTombstone) => Ok(Repeat::New),
        (Some(session), _) => Err(ended_for(&session)),
        // The row of a session that was opened is forgotten before its answer now and then; there is one no more.
        (None, Some(kept)) if !kept.body.is_empty() => {
            Err(Error::SessionEnded(EndReason::Abandoned))
        }
        (None, Some(_)) => Ok(Repeat::Asked),
        (None, None) => Ok(Repeat::New),
    }
}

fn ended_for(session: &Session) -> Error {
    session.end_reason.map_or_else(
        || Error::Damaged("a session without answer".to_owned()),
        Error::SessionEnded,
    )
}

/// SHA-256 over every field of a login but the PIN and the list of superseded sessions, each with its length.
pub(super) fn digest(request: &LoginRequest) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(bytes);
    };
    field(request.user.login_type.as_str().as_bytes());
    field(request.user.name.as_str().as_bytes());
    field(
        request
            .profile
            .as_ref()
            .map_or("", |p| p.as_str())
            .as_bytes(),
    );
    let device = &request.device;
    field(device.name.as_str().as_bytes());
    field(device.model.as_bytes());
    field(device.protocol.as_bytes());
    field(format!("{:?}", device.security_mode).as_bytes());
    field(
        device
            .address
            .map(|a| a.to_string())
            .unwrap_or_default()
            .as_bytes(),
    );
    field(device.locale.as_deref().unwrap_or_default().as_bytes());
    for (name, value) in &request.geolocation {
        field(name.as_bytes());
        field(value.as_bytes());
    }
    hash.finalize().into()
}
