//! The joining side: an operator brings an invitation, this node dials who made it, and sees it through.
//!
//! What was proved once is bound to this node's certificate and to the server's: it can be gone on with over a new
//! connection, without the secret, which is not kept.

use std::{collections::BTreeMap, future::Future, time::Duration};

use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tracing::{info, warn};

use super::{
    Error, Pairings, commit,
    dial::{self, Failed, Reached},
    note,
    proof::{ProofKey, View},
    token::Token,
    told,
};
use crate::{
    clock::Timestamp,
    domain::{
        address::HostPort,
        ids::ClusterId,
        pairing::{InvitationId, Side, State, Told, Unfit},
    },
    store::{
        Transaction,
        audit::Action,
        pairings::{self, Pairing},
    },
    tasks::Tasks,
    trust::{
        certificate::{Fingerprint, fingerprint_text},
        tls::provider,
    },
    wire::join as pb,
};

/// What an operator says when joining.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where others reach us; what our nodes say of themselves when there is none.
    pub addresses: Vec<HostPort>,
    /// What the other cluster is to know us by.
    pub name: String,
}

/// Between two attempts to see a pairing through, at first.
const PAUSE: Duration = Duration::from_millis(500);
/// The same, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long a call may take: the other side looks at all our addresses meanwhile.
const CALL: Duration = Duration::from_secs(60);

impl Pairings {
    /// Uses an invitation: proves to know its secret, and has each side tell the other what it is. Where that was done
    /// before, gives what came of it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn join(&self, token: &Token, wanted: Wanted, actor: &str) -> Result<Pairing, Error> {
        let (id, cluster) = (token.id, &token.cluster);
        if *cluster == self.0.parts.cluster {
            return Err(Unfit::Ourselves(cluster.clone()).into());
        }
        if let Some(pairing) = self.joined(id).await?
            && matches!(pairing.state, State::Proven | State::Told)
        {
            return self.exchange_if_due(pairing).await;
        }
        if self.now() >= token.expires_at {
            let cluster = cluster.clone();
            return Err(Error::Expired { cluster });
        }
        let named: Vec<String> = wanted.addresses.iter().map(ToString::to_string).collect();
        // What can't be said later is found out before the invitation is used.
        self.ourselves(&wanted.name, &named).await?;
        let (address, mut reached) = self.reach(cluster, &token.addresses).await?;
        let key = ProofKey::derive(&token.secret, cluster, id);
        prove(token, &key, &address, &mut reached).await?;
        self.0.parts.faults.pass("pairing.joined").await;
        let mut theirs: Vec<String> = token.addresses.iter().map(ToString::to_string).collect();
        theirs.retain(|other| *other != address);
        theirs.insert(0, address);
        let now = self.now();
        let pairing = Pairing {
            side: Side::Joining,
            id,
            state: State::Proven,
            node: self.0.parts.node.clone(),
            actor: actor.to_owned(),
            name: wanted.name,
            addresses: named,
            their_addresses: theirs,
            created_at: now,
            expires_at: token.expires_at,
            proof_key: None,
            failures: 0,
            bound_to: Some(reached.view.caller_leaf),
            server_leaf: Some(reached.view.server_leaf),
            remote: reached.remote.to_string(),
            words: key.words(&reached.view),
            // Of what it will tell, its name is known.
            told: Some(Told {
                cluster_id: cluster.to_string(),
                ..Told::default()
            }),
            confirmed_by: None,
            is_update: false,
            they_confirmed: false,
            trouble: String::new(),
        };
        let kept = pairing.clone();
        let outcome = format!("used to join {cluster}");
        let write = self.0.parts.store.write(move |tx: &mut dyn Transaction| {
            let outcome = outcome.clone();
            note(tx, &kept, Action::PairingJoin, &kept.actor, outcome, now)?;
            pairings::put(tx, &kept)?;
            Ok::<_, Error>(())
        });
        write.await?;
        self.0.parts.faults.pass("pairing.kept").await;
        self.exchange_over(pairing, cluster, reached).await
    }

    async fn joined(&self, id: InvitationId) -> Result<Option<Pairing>, Error> {
        let read = move |tx: &mut dyn Transaction| Ok(pairings::get(tx, Side::Joining, id)?);
        self.0.parts.store.read(read).await
    }

    /// Dials one address after the other until one answers as a cluster that can be joined.
    async fn reach(
        &self,
        cluster: &ClusterId,
        addresses: &[HostPort],
    ) -> Result<(String, Reached), Error> {
        let snapshot = self.0.parts.trust.snapshot();
        let mut whys = Vec::new();
        let mut closed = None;
        for address in addresses {
            match dial::join(&snapshot, address).await {
                Ok(reached) => return Ok((address.to_string(), reached)),
                Err(Failed::NoIdentity(error)) => return Err(error.into()),
                Err(failed) => {
                    if matches!(failed, Failed::Closed) {
                        closed = Some(address.to_string());
                    }
                    whys.push(format!("{address}: {failed}"));
                }
            }
        }
        let cluster = cluster.clone();
        Err(match closed {
            Some(address) => Error::Closed { cluster, address },
            None => Error::Unreachable {
                cluster,
                why: whys.join("; "),
            },
        })
    }

    async fn exchange_if_due(&self, pairing: Pairing) -> Result<Pairing, Error> {
        if pairing.state != State::Proven {
            return Ok(pairing);
        }
        let (cluster, reached) = self.reach_again(&pairing).await?;
        self.exchange_over(pairing, &cluster, reached).await
    }

    /// A new connection to who was proved to have made the invitation: to the same certificate, or one that it told.
    async fn reach_again(&self, pairing: &Pairing) -> Result<(ClusterId, Reached), Error> {
        let told = pairing.told.as_ref();
        let cluster = told.and_then(|told| ClusterId::new(told.cluster_id.as_str()).ok());
        let cluster = cluster.ok_or(Unfit::Unnamed)?;
        let addresses = pairing.their_addresses.iter();
        let addresses: Vec<HostPort> = addresses.filter_map(|a| a.parse().ok()).collect();
        let (address, reached) = self.reach(&cluster, &addresses).await?;
        let mut known: Vec<Fingerprint> = told.map(told::fingerprints).unwrap_or_default();
        known.extend(pairing.server_leaf);
        if !known.contains(&reached.view.server_leaf) {
            let shown = fingerprint_text(&reached.view.server_leaf);
            return Err(Error::Between {
                cluster,
                address,
                shown,
            });
        }
        Ok((cluster, reached))
    }

    async fn exchange_over(
        &self,
        pairing: Pairing,
        cluster: &ClusterId,
        mut reached: Reached,
    ) -> Result<Pairing, Error> {
        let us = self.ourselves(&pairing.name, &pairing.addresses).await?;
        let request = pb::ExchangeRequest {
            invitation_id: pairing.id.0.to_vec(),
            cluster: Some(told::message(&us)),
        };
        let answer = within(reached.client.exchange(request)).await;
        let answer = answer.map_err(|status| refused(cluster, &status))?;
        let them = answer.into_inner().cluster.unwrap_or_default();
        let mut them = told::read(them)?;
        let is_it = them.cluster_id == cluster.as_str();
        let fit = if is_it {
            told::check(&provider(), &them, &reached.view.server_leaf, &us).map(drop)
        } else {
            Err(Unfit::Another(cluster.clone(), them.cluster_id.clone()))
        };
        if let Err(unfit) = fit {
            self.end_joining(pairing.id, unfit.to_string()).await?;
            return Err(unfit.into());
        }
        // The address that was dialled is one of theirs, whatever they say themselves.
        let mut addresses: Vec<String> = pairing
            .their_addresses
            .first()
            .cloned()
            .into_iter()
            .collect();
        for told in &them.addresses {
            if !addresses.contains(&told.address) {
                addresses.push(told.address.clone());
            }
        }
        let snapshot = self.0.parts.trust.snapshot();
        let leaves = told::fingerprints(&them);
        them.addresses = dial::look_at_all(&snapshot, addresses, &leaves).await;
        let id = pairing.id;
        let write = self.0.parts.store.write(move |tx: &mut dyn Transaction| {
            let side = Side::Joining;
            let mut pairing = pairings::get(tx, side, id)?.ok_or(Error::Missing { side, id })?;
            if pairing.state == State::Proven {
                pairing.told = Some(them.clone());
                pairing.state = State::Told;
                pairings::put(tx, &pairing)?;
            }
            Ok::<_, Error>(pairing)
        });
        write.await
    }

    /// Sees through what was begun on this node, whatever came between, each pairing by itself: one that is slow holds up
    /// no other.
    pub(super) async fn finish_all(&self, tasks: &Tasks) {
        let mut changes = self.0.parts.store.changes();
        let mut running: BTreeMap<InvitationId, JoinHandle<()>> = BTreeMap::new();
        loop {
            changes.mark_unchanged();
            running.retain(|_, task| !task.is_finished());
            match self.due().await {
                Ok(due) => {
                    for pairing in due {
                        let id = pairing.id;
                        running.entry(id).or_insert_with(|| {
                            let (this, stop) = (self.clone(), tasks.clone());
                            tasks.spawn("pairing", async move {
                                tokio::select! {
                                    biased;
                                    () = stop.cancelled() => {}
                                    () = this.see_through(pairing) => {}
                                }
                            })
                        });
                    }
                }
                Err(error) => warn!(
                    cause = crate::telemetry::error_chain(&error),
                    "pairings could not be looked at"
                ),
            }
            tokio::select! {
                biased;
                () = self.0.decided.notified() => continue,
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                // For one that ended while something of it became due.
                () = tokio::time::sleep(LONGEST_PAUSE) => {}
            }
            tokio::select! {
                biased;
                () = self.0.decided.notified() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Goes on with one pairing until this node has nothing more to do for it.
    async fn see_through(&self, mut pairing: Pairing) {
        let mut pause = PAUSE;
        loop {
            let has_failed = self.finish(pairing.clone()).await.is_err();
            // A store that fails is asked again.
            if let Ok(now) = self.still_due(pairing.id).await {
                let Some(now) = now else { return };
                pairing = now;
            }
            let (wait, next) = paced(has_failed, pause);
            pause = next;
            tokio::time::sleep(wait).await;
        }
    }

    /// What this node has to go on with.
    async fn due(&self) -> Result<Vec<Pairing>, Error> {
        let (node, now) = (self.0.parts.node.clone(), self.now());
        let read = move |tx: &mut dyn Transaction| {
            let mut due = pairings::list(tx, Side::Joining)?;
            due.retain(|pairing| is_due(pairing, &node, now));
            Ok(due)
        };
        self.0.parts.store.read(read).await
    }

    async fn still_due(&self, id: InvitationId) -> Result<Option<Pairing>, Error> {
        let now = self.now();
        let pairing = self.joined(id).await?;
        Ok(pairing.filter(|pairing| is_due(pairing, &self.0.parts.node, now)))
    }

    /// One step on the way of one pairing. Waits for as long as the other side holds its answer back.
    async fn finish(&self, pairing: Pairing) -> Result<(), Error> {
        let id = pairing.id;
        let done = self.step(pairing).await;
        if let Err(error) = &done {
            let why = crate::telemetry::error_chain(error);
            self.trouble(id, why).await?;
        }
        done
    }

    async fn step(&self, pairing: Pairing) -> Result<(), Error> {
        if pairing.state == State::Proven {
            return self.exchange_if_due(pairing).await.map(drop);
        }
        let (cluster, mut reached) = match self.reach_again(&pairing).await {
            Ok(reached) => reached,
            // Whoever is not open has nothing to hear any more.
            Err(Error::Closed { .. }) if pairing.state == State::Committed => {
                return self.done(pairing.id).await;
            }
            Err(error) => return Err(error),
        };
        if pairing.state == State::Committed {
            self.conclude_with(&cluster, &mut reached, pairing.id, pb::Decision::Committed)
                .await?;
            return self.done(pairing.id).await;
        }
        let decision = pb::Decision::Confirmed;
        let outcome = self.conclude_with(&cluster, &mut reached, pairing.id, decision);
        match outcome.await? {
            pb::Outcome::Committed => {
                self.0.parts.faults.pass("pairing.agreed").await;
                if let Err(error) = self.commit_joined(pairing.id).await {
                    self.tell_stuck(&cluster, &mut reached, pairing.id, &error)
                        .await;
                    return Err(error);
                }
                self.0.parts.faults.pass("pairing.followed").await;
                // The rest of the way, at once.
                let decision = pb::Decision::Committed;
                self.conclude_with(&cluster, &mut reached, pairing.id, decision)
                    .await?;
                self.done(pairing.id).await
            }
            pb::Outcome::Ended => {
                let why = "the inviting side did not confirm, or its time was over".to_owned();
                self.end_joining(pairing.id, why).await
            }
            pb::Outcome::Waiting | pb::Outcome::Unspecified => Ok(()),
        }
    }

    async fn conclude_with(
        &self,
        cluster: &ClusterId,
        reached: &mut Reached,
        id: InvitationId,
        decision: pb::Decision,
    ) -> Result<pb::Outcome, Error> {
        let request = pb::ConcludeRequest {
            invitation_id: id.0.to_vec(),
            decision: decision.into(),
            reason: String::new(),
        };
        let answer = within(reached.client.conclude(request)).await;
        let answer = answer.map_err(|status| refused(cluster, &status))?;
        Ok(answer.into_inner().outcome())
    }

    /// Tells the inviting side, which has committed, why we can't follow: its operator has a peer that has not got it as
    /// one. It is tried again, and told again, as long as that is so.
    async fn tell_stuck(
        &self,
        cluster: &ClusterId,
        reached: &mut Reached,
        id: InvitationId,
        why: &Error,
    ) {
        let request = pb::ConcludeRequest {
            invitation_id: id.0.to_vec(),
            decision: pb::Decision::CannotFollow.into(),
            reason: reason(why),
        };
        if let Err(status) = within(reached.client.conclude(request)).await {
            info!(
                cause = crate::telemetry::error_chain(&refused(cluster, &status)),
                "the inviting side could not be told that this one can't follow it"
            );
        }
    }

    /// Tells the other side that our operator did not confirm, as well as it can be.
    pub(super) async fn tell_refused(&self, pairing: &Pairing) {
        let told = async {
            let (cluster, mut reached) = self.reach_again(pairing).await?;
            let refused = pb::Decision::Refused;
            self.conclude_with(&cluster, &mut reached, pairing.id, refused)
                .await
        };
        if let Err(error) = told.await {
            info!(
                cause = crate::telemetry::error_chain(&error),
                "the inviting side could not be told that the pairing is refused; its invitation runs out"
            );
        }
    }

    async fn commit_joined(&self, id: InvitationId) -> Result<(), Error> {
        let now = self.now();
        let write = self.0.parts.store.write(move |tx: &mut dyn Transaction| {
            let side = Side::Joining;
            let mut pairing = pairings::get(tx, side, id)?.ok_or(Error::Missing { side, id })?;
            if pairing.state != State::Told {
                return Ok(());
            }
            // It was no peer when it was confirmed; whatever was added since stays.
            pairing.is_update = true;
            commit::commit(tx, &mut pairing, now)
        });
        write.await
    }

    async fn done(&self, id: InvitationId) -> Result<(), Error> {
        self.change(id, |pairing| {
            if pairing.state == State::Committed {
                pairing.state = State::Done;
                pairing.trouble.clear();
            }
        })
        .await
    }

    async fn end_joining(&self, id: InvitationId, why: String) -> Result<(), Error> {
        self.change(id, move |pairing| {
            if pairing.state.is_under_way() {
                pairing.state = State::Refused;
                pairing.trouble.clone_from(&why);
            }
        })
        .await
    }

    async fn trouble(&self, id: InvitationId, why: String) -> Result<(), Error> {
        self.change(id, move |pairing| pairing.trouble.clone_from(&why))
            .await
    }

    async fn change(
        &self,
        id: InvitationId,
        change: impl Fn(&mut Pairing) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let now = self.now();
        let write = self.0.parts.store.write(move |tx: &mut dyn Transaction| {
            let Some(before) = pairings::get(tx, Side::Joining, id)? else {
                return Ok(());
            };
            let mut pairing = before.clone();
            change(&mut pairing);
            let has_ended = before.state.is_under_way() && pairing.state == State::Refused;
            if has_ended {
                let (actor, why) = (pairing.actor.clone(), pairing.trouble.clone());
                note(tx, &pairing, Action::PairingEnd, &actor, why, now)?;
            }
            if (before.state, &before.trouble) != (pairing.state, &pairing.trouble) {
                pairings::put(tx, &pairing)?;
            }
            Ok::<_, Error>(())
        });
        write.await
    }
}

/// Whether a node has to go on with a pairing.
fn is_due(pairing: &Pairing, node: &str, now: Timestamp) -> bool {
    let is_due = match pairing.state {
        State::Proven => now < pairing.expires_at,
        State::Told => pairing.confirmed_by.is_some(),
        State::Committed => {
            now.since(pairing.expires_at).as_millis()
                < u128::try_from(pairings::KEPT_MILLIS).unwrap_or(0)
        }
        _ => false,
    };
    is_due && pairing.node == node
}

/// How long to wait before the next step, and at least before the one after it, should that fail. The other side is
/// believed to hold its answer back, and never relied on to.
fn paced(has_failed: bool, pause: Duration) -> (Duration, Duration) {
    if has_failed {
        (pause, (pause * 2).min(LONGEST_PAUSE))
    } else {
        (PAUSE, PAUSE)
    }
}

/// An error as one short line, for another cluster's operator. Who else is a peer here is none of its business.
fn reason(why: &Error) -> String {
    const MOST: usize = 255;
    let text = match why {
        Error::Store(_) => "its database refuses".to_owned(),
        Error::Taken(_) | Error::Vouched { .. } | Error::Trust(_) => {
            "one of this cluster's certificates is trusted there for another cluster".to_owned()
        }
        Error::Revoked { fingerprint, .. } => {
            format!("this cluster's certificate SHA-256 {fingerprint} was revoked there")
        }
        why => why.to_string(),
    };
    let line: String = text.chars().filter(|c| !c.is_control()).collect();
    let end = line.floor_char_boundary(MOST);
    line.get(..end).unwrap_or_default().to_owned()
}

/// Proves that we know the secret, and has the other side prove it.
async fn prove(
    token: &Token,
    key: &ProofKey,
    address: &str,
    reached: &mut Reached,
) -> Result<(), Error> {
    let view = reached.view;
    let cluster = &token.cluster;
    let request = pb::BeginRequest {
        invitation_id: token.id.0.to_vec(),
        view: Some(message(&view)),
        proof: key.prove(Side::Joining, &view),
    };
    let answer = within(reached.client.begin(request)).await;
    if !token.leaves.contains(&view.server_leaf) {
        // It was asked all the same: where something stands between, the inviting side hears of it that way.
        return Err(Error::Between {
            cluster: cluster.clone(),
            address: address.to_owned(),
            shown: fingerprint_text(&view.server_leaf),
        });
    }
    let answer = answer.map_err(|status| refused(cluster, &status))?;
    let proof = answer.into_inner().proof;
    if !key.is_proof(Side::Inviting, &view, &proof) {
        let address = address.to_owned();
        return Err(Error::Impostor { address });
    }
    Ok(())
}

fn message(view: &View) -> pb::View {
    pb::View {
        exporter: view.exporter.to_vec(),
        caller_leaf: view.caller_leaf.to_vec(),
        server_leaf: view.server_leaf.to_vec(),
    }
}

async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let called = tokio::time::timeout(CALL, call).await;
    called.unwrap_or_else(|_| Err(Status::deadline_exceeded("it did not answer in time")))
}

/// What the other side's status means.
fn refused(cluster: &ClusterId, status: &Status) -> Error {
    let cluster = cluster.clone();
    match status.code() {
        Code::Unauthenticated => Error::WrongSecret { cluster },
        Code::Aborted => Error::Relayed { cluster },
        Code::AlreadyExists => Error::Used { cluster },
        Code::FailedPrecondition | Code::PermissionDenied => Error::NotOpen { cluster },
        _ => {
            let why: String = status
                .message()
                .chars()
                .filter(|c| !c.is_control())
                .take(300)
                .collect();
            Error::Refused { cluster, why }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_follows_at_once_whatever_the_other_side_answers() {
        let mut pause = PAUSE;
        let mut waits = Vec::new();
        for has_failed in [true, true, true, true, true, true, true, false, false, true] {
            let (wait, next) = paced(has_failed, pause);
            assert!(wait >= PAUSE && wait <= LONGEST_PAUSE, "{wait:?}");
            waits.push(wait);
            pause = next;
        }
        assert_eq!(waits[1], PAUSE * 2);
        assert_eq!(waits[6], LONGEST_PAUSE);
        assert_eq!(waits[7..], [PAUSE; 3]);
    }

    #[test]
    fn what_another_operator_is_told_is_one_line_and_names_no_other_peer() {
        let taken = reason(&Error::Taken(ClusterId::new("lima").unwrap()));
        assert!(
            taken.contains("for another cluster") && !taken.contains("lima"),
            "{taken}"
        );
        let long = Error::Refused {
            cluster: ClusterId::new("lima").unwrap(),
            why: "ü\n".repeat(400),
        };
        let line = reason(&long);
        assert!(line.len() <= 255 && !line.contains('\n'), "{line}");
    }
}
