//! Home asks which device profile: what the phone shows is remembered, and the choice goes to that home with its ticket
//! in place of the PIN.

use std::time::Instant;

use super::{
    Choice, Error, Inner, LoginOutcome, PhoneChoice,
    locate::Home,
    login::{Attempt, TOO_LATE, at_home, free_phone, in_force, is_overdue},
};
use crate::{
    domain::{
        ids::SessionId,
        login::{FindUser, ProfileChoice, Proof, TICKET_LIFE},
        session::{EndReason, Initiator, Role, State},
    },
    store::{Transaction, audit, choices, sessions, tickets},
};

/// Goes on where the user had to choose: to the home that asked, with its ticket instead of the PIN.
pub(super) async fn chosen(
    inner: &Inner,
    request: PhoneChoice,
    deadline: Instant,
) -> Result<LoginOutcome, Error> {
    let device = free_phone(inner, request.device, deadline).await?;
    let ticket = request.ticket.ok_or(Error::WrongTicket)?;
    let (name, hash) = (device.name.clone(), tickets::hash_of(&ticket));
    let choice = inner
        .look_up(deadline, move |tx: &mut dyn Transaction| {
            let now = tx.cluster_now()?;
            choices::get(tx, &name, &hash, now)?.ok_or(Error::WrongTicket)
        })
        .await?;
    let profile = choice.profiles.into_iter().nth(request.entry);
    let query = FindUser {
        login_type: choice.login_type,
        name: choice.login_name,
    };
    let home = Home {
        cluster: inner
            .home(&choice.home)
            .ok_or(Error::PeerGone(choice.home))?,
        query: query.clone(),
        from_hint: false,
    };
    let attempt = Attempt {
        device,
        query,
        as_typed: choice.as_typed,
        proof: Proof::Ticket(ticket),
        profile: Some(profile.ok_or(Error::WrongTicket)?),
        emcc: request.emcc,
        address: request.caller.address,
        reference: request.reference,
        deadline,
    };
    at_home(inner, &attempt, home).await
}

/// Home wants to know which profile: nobody is on the phone, and what it is shown is remembered.
pub(super) async fn ask_user(
    inner: &Inner,
    attempt: &Attempt,
    home: &Home,
    id: SessionId,
    choice: ProfileChoice,
) -> Result<LoginOutcome, Error> {
    let clock = inner.clock.clone();
    let (cluster, reference) = (home.cluster.cluster_id(), attempt.reference);
    let (device, name, home_in) = (
        attempt.device.name.clone(),
        home.query.name.clone(),
        cluster.clone(),
    );
    let as_typed = attempt.is_known_as_typed(home);
    let (login_type, profiles) = (home.query.login_type, choice.profiles.clone());
    let hash = tickets::hash_of(&choice.ticket);
    let until = attempt.deadline;
    let asked = inner
        .write(attempt.deadline, move |tx: &mut dyn Transaction| {
            // Read here: the transaction may have waited for its turn.
            let now = clock.now();
            let entry = |outcome: &str| audit::Entry {
                at: now,
                actor: format!("phone {device}"),
                action: audit::Action::SessionLogin,
                subject: format!("{name} of {home_in} on {device}"),
                outcome: outcome.to_owned(),
                reference: Some(reference),
            };
            if is_overdue(tx, &home_in, id, until, &entry(TOO_LATE))? {
                return Ok(false);
            }
            let end = Some((EndReason::Refused, Initiator::Visiting, now));
            if !sessions::transition(
                tx,
                Role::Visiting,
                &home_in,
                id,
                &[State::Pending],
                State::Ended,
                end,
                false,
            )? {
                return Ok::<_, Error>(false);
            }
            let shown = choices::Choice {
                device: device.clone(),
                hash,
                home: home_in.clone(),
                login_type,
                login_name: name.clone(),
                as_typed,
                profiles: profiles.clone(),
                expires_at: tx.cluster_now()?.plus(TICKET_LIFE),
            };
            choices::put(tx, &shown)?;
            audit::append(tx, &entry("asked which device profile"))?;
            Ok(true)
        })
        .await;
    in_force(inner, attempt, cluster, id, asked).await?;
    Ok(LoginOutcome::Choose(Choice {
        profiles: choice.profiles,
        ticket: choice.ticket,
        reference,
    }))
}
