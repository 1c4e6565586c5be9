//! Invitations, those that we made and those that we were given: what operators say to them.

use std::time::Duration;

use crate::{
    domain::{
        address::HostPort,
        address_list::MAX_ADDRESSES,
        bounds::is_line,
        pairing::{InvitationId, Side, State, ToldAddress},
    },
    edge::admin::{error::Error, roles::Actor, views},
    pairing::{
        self, Confirmation, Pairings, Seen,
        invite::{self, MAX_MINUTES},
        join,
        token::Token,
    },
    secret::Secret,
    trust::certificate::Certificate,
    wire::admin as pb,
};

/// The longest that an answer is held back.
const HELD: Duration = Duration::from_secs(10);

impl From<pairing::Error> for Error {
    fn from(error: pairing::Error) -> Self {
        match error {
            pairing::Error::Store(error) => error.into(),
            pairing::Error::Trust(error) => Self::Trust(error),
            other => Self::refused(crate::telemetry::error_chain(&other), other.next()),
        }
    }
}

/// Makes an invitation.
///
/// # Errors
/// [`Error::Invalid`] with the first field that breaks its rule, and what keeps it from being made.
pub(super) async fn invite(
    pairings: &Pairings,
    request: pb::InviteClusterRequest,
    actor: &Actor,
) -> Result<pb::InviteClusterResponse, Error> {
    if !(1..=MAX_MINUTES).contains(&request.minutes) {
        return Err(Error::invalid("the minutes", "1 to 1440"));
    }
    let wanted = invite::Wanted {
        minutes: request.minutes,
        addresses: addresses(&request.addresses)?,
        name: name(request.name)?,
    };
    let (pairing, text) = pairings.invite(wanted, &actor.to_string()).await?;
    let is_peer = false;
    Ok(pb::InviteClusterResponse {
        invitation_secret: text.to_string(),
        pairing: Some(view(Seen { pairing, is_peer })),
    })
}

/// Uses an invitation.
///
/// # Errors
/// What keeps it from being used.
pub(super) async fn join(
    pairings: &Pairings,
    mut request: pb::JoinClusterRequest,
    actor: &Actor,
) -> Result<pb::JoinClusterResponse, Error> {
    let text = Secret::new(std::mem::take(&mut request.invitation_secret).into_bytes());
    let token = std::str::from_utf8(text.expose())
        .ok()
        .and_then(|text| Token::read(text).ok());
    let token = token.ok_or_else(|| {
        Error::invalid(
            "the invitation",
            "whole, as `emccd cluster invite` printed it",
        )
    })?;
    let wanted = join::Wanted {
        addresses: addresses(&request.addresses)?,
        name: name(std::mem::take(&mut request.name))?,
    };
    let pairing = pairings.join(&token, wanted, &actor.to_string()).await?;
    let seen = pairings.get(Side::Joining, pairing.id, None, Duration::ZERO);
    Ok(pb::JoinClusterResponse {
        pairing: Some(view(seen.await?)),
    })
}

/// The pairings of one side.
///
/// # Errors
/// [`Error::Store`].
pub(super) async fn list(
    pairings: &Pairings,
    request: &pb::ListPairingsRequest,
) -> Result<pb::ListPairingsResponse, Error> {
    let all = pairings.list(side(&request.side)?).await?;
    let pairings = all.into_iter().map(view).collect();
    Ok(pb::ListPairingsResponse { pairings })
}

/// One pairing, perhaps later.
///
/// # Errors
/// [`Error::Refused`] when there is no such pairing.
pub(super) async fn get(
    pairings: &Pairings,
    request: &pb::GetPairingRequest,
) -> Result<pb::GetPairingResponse, Error> {
    let (side, id) = (side(&request.side)?, id(&request.id)?);
    let known = request.known_state.as_deref();
    let known: Option<State> = known.and_then(|word| word.parse().ok());
    let within = Duration::from_millis(request.wait_ms).min(HELD);
    let seen = pairings.get(side, id, known, within).await?;
    let pairing = Some(view(seen));
    Ok(pb::GetPairingResponse { pairing })
}

/// An operator has compared the words.
///
/// # Errors
/// What stands against it.
pub(super) async fn confirm(
    pairings: &Pairings,
    request: pb::ConfirmPairingRequest,
    actor: &Actor,
) -> Result<pb::ConfirmPairingResponse, Error> {
    let (side, id) = (side(&request.side)?, id(&request.id)?);
    let confirmation = Confirmation {
        words: request.words,
        is_update: request.update,
    };
    let actor = actor.to_string();
    let confirmed = pairings.confirm(side, id, confirmation, &actor).await?;
    let pairing = Some(view(confirmed));
    Ok(pb::ConfirmPairingResponse { pairing })
}

/// An operator takes a pairing back.
///
/// # Errors
/// [`Error::Refused`] when it has come too far.
pub(super) async fn cancel(
    pairings: &Pairings,
    request: &pb::CancelPairingRequest,
    actor: &Actor,
) -> Result<pb::CancelPairingResponse, Error> {
    let (side, id) = (side(&request.side)?, id(&request.id)?);
    let cancelled = pairings.cancel(side, id, &actor.to_string()).await?;
    let pairing = Some(view(cancelled));
    Ok(pb::CancelPairingResponse { pairing })
}

fn side(word: &str) -> Result<Side, Error> {
    let side = word.parse();
    side.map_err(|_| Error::invalid("the side", "inviting or joining"))
}

fn id(text: &str) -> Result<InvitationId, Error> {
    let id = text.parse();
    id.map_err(|_| Error::invalid("the invitation's ID", "16 hexadecimal digits"))
}

fn name(name: String) -> Result<String, Error> {
    if name.trim() == name && is_line(&name, 255) {
        return Ok(name);
    }
    let rule = "one line of at most 255 bytes without blanks around it";
    Err(Error::invalid("the name", rule))
}

fn addresses(all: &[String]) -> Result<Vec<HostPort>, Error> {
    if all.len() > MAX_ADDRESSES {
        return Err(Error::invalid("the addresses", "at most 16"));
    }
    let rule = "HOST:PORT each, for example emcc.tokyo.example:8444 or [2001:db8::7]:8444";
    let read = all.iter().map(|address| address.parse());
    let read: Result<_, _> = read.collect();
    read.map_err(|_| Error::invalid("the addresses", rule))
}

fn view(seen: Seen) -> pb::Pairing {
    let Seen { pairing, is_peer } = seen;
    let has_words = !matches!(pairing.state, State::Open | State::Proven);
    let told = pairing.told.unwrap_or_default();
    let certificates = told.certificates.iter();
    let certificates = certificates.filter_map(|c| Certificate::from_der(&c.der).ok());
    pb::Pairing {
        id: pairing.id.to_string(),
        side: pairing.side.as_str().to_owned(),
        state: pairing.state.as_str().to_owned(),
        node: pairing.node,
        actor: pairing.actor,
        created_at: pairing.created_at.to_string(),
        expires_at: pairing.expires_at.to_string(),
        failures: pairing.failures,
        remote: pairing.remote,
        words: if has_words {
            pairing.words
        } else {
            String::new()
        },
        confirmed_by: pairing.confirmed_by,
        they_confirmed: pairing.they_confirmed,
        trouble: pairing.trouble,
        certificates: certificates.map(|c| views::certificate(&c)).collect(),
        addresses: told.addresses.into_iter().map(address).collect(),
        cluster_id: told.cluster_id,
        name: told.name,
        software: told.software,
        versions: told.versions,
        security_mode: told.security_mode,
        is_peer,
    }
}

fn address(told: ToldAddress) -> pb::PairingAddress {
    pb::PairingAddress {
        address: told.address,
        trouble: told.trouble,
        warning: told.warning,
    }
}
