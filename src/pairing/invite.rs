//! The inviting side: invitations are made by operators, and used by clusters that dial any of our nodes.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use tokio::time::Instant;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{
    Error, Pairings, commit, dial, note,
    proof::{ProofKey, View},
    token::{MAX_LEAVES, SECRET_BYTES, Token},
    told,
};
use crate::{
    clock::Timestamp,
    domain::{
        address::HostPort,
        pairing::{Attempt, Failed, InvitationId, MAX_FAILURES, Proved, Side, State, Told},
    },
    secret::Secret,
    store::{
        Transaction,
        audit::Action,
        pairings::{self, Pairing},
    },
    trust::{
        certificate::{Fingerprint, fingerprint_of, fingerprint_text},
        tls::provider,
    },
    wire::join as pb,
};

/// How long the longest invitation counts.
pub const MAX_MINUTES: u32 = 24 * 60;
/// How many may be open at a time.
const MAX_OPEN: usize = 32;
/// How long a question is held back whose answer is that nothing has changed.
const HELD: Duration = Duration::from_secs(8);

/// What an operator says of a new invitation.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How long it counts.
    pub minutes: u32,
    /// Where others reach us; what our nodes say of themselves when there is none.
    pub addresses: Vec<HostPort>,
    /// What the other cluster is to know us by.
    pub name: String,
}

/// Who has dialled us to join.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// The connection, as we see it.
    pub view: View,
    /// From where.
    pub remote: SocketAddr,
}

/// What the inviting operator is told when a second one comes; kept once.
const SOMEBODY_ELSE: &str = "somebody else came with this invitation";

/// A proof that somebody sent.
#[derive(Clone)]
struct Begun {
    guest: Guest,
    id: InvitationId,
    claimed: View,
    proof: Vec<u8>,
    now: Timestamp,
}

impl Begun {
    /// What follows from it; none when there is nothing to prove.
    fn outcome(
        &self,
        tx: &mut dyn Transaction,
    ) -> Result<Option<(Pairing, ProofKey, Proved)>, crate::store::Error> {
        let Some(pairing) = pairings::get(tx, Side::Inviting, self.id)? else {
            return Ok(None);
        };
        let Some(key) = &pairing.proof_key else {
            return Ok(None);
        };
        let key = ProofKey::from_bytes(key.expose());
        let attempt = Attempt {
            leaf: self.guest.view.caller_leaf,
            knows_secret: key.is_proof(Side::Joining, &self.claimed, &self.proof),
            same_connection: self.claimed == self.guest.view,
        };
        let proved = pairing.standing().prove(&attempt, self.now);
        Ok(Some((pairing, key, proved)))
    }

    /// The answer, where it changes nothing.
    fn foregone(&self, tx: &mut dyn Transaction) -> Result<Option<Turned>, crate::store::Error> {
        Ok(match self.outcome(tx)? {
            None | Some((_, _, Proved::NotOpen)) => Some(Turned::NotOpen),
            // The operator has been told of the first one that came too late.
            Some((pairing, _, Proved::Used)) if pairing.trouble.starts_with(SOMEBODY_ELSE) => {
                Some(Turned::Used)
            }
            Some(_) => None,
        })
    }
}

/// What an invitation says is to be found at its addresses: of each node what it shows, and then, as far as there is room,
/// what it will.
fn leaves_of(us: &Told) -> Vec<Fingerprint> {
    let servers = us.certificates.iter().filter(|c| c.purpose == "federation");
    let mut nodes = BTreeSet::new();
    let (first, more): (Vec<_>, Vec<_>) = servers.partition(|c| nodes.insert(c.node.as_str()));
    let all = first.into_iter().chain(more);
    all.map(|c| fingerprint_of(&c.der))
        .take(MAX_LEAVES)
        .collect()
}

/// Why a guest is refused. It is told no more than it may know.
#[derive(Debug, thiserror::Error)]
pub enum Turned {
    /// Nothing is open under that ID, for whatever reason.
    #[error(
        "this invitation is not open; the operator who made it sees why with: emccd cluster invite --list"
    )]
    NotOpen,
    /// The proof is wrong.
    #[error("the proof is wrong: it was not made with the secret of this invitation")]
    WrongProof,
    /// It was made for another connection.
    #[error("the proof was made for another connection: something between ends TLS")]
    Relayed,
    /// Right, and too late.
    #[error("this invitation was used already, by a cluster that showed another certificate")]
    Used,
    /// It has proved nothing.
    #[error("this invitation is not bound to the certificate that was shown")]
    NotBound,
    /// What it told can't be.
    #[error("{0}")]
    Unfit(String),
    /// We failed.
    #[error("the inviting cluster failed; try again")]
    Failed(#[source] Error),
}

impl Turned {
    /// What is news once for each network; none for what is our own fault, and told as such.
    const fn word(&self) -> Option<&'static str> {
        match self {
            Self::NotOpen => Some("not open"),
            Self::WrongProof => Some("wrong proof"),
            Self::Relayed => Some("relayed"),
            Self::Used => Some("used"),
            Self::NotBound => Some("not bound"),
            Self::Unfit(_) => Some("unfit"),
            Self::Failed(_) => None,
        }
    }
}

impl From<Error> for Turned {
    fn from(error: Error) -> Self {
        match error {
            Error::Unfit(_) | Error::Malformed(_) => Self::Unfit(error.to_string()),
            other => Self::Failed(other),
        }
    }
}

impl From<crate::store::Error> for Turned {
    fn from(error: crate::store::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Pairings {
    /// Makes an invitation, and the one text that stands for it.
    ///
    /// # Errors
    /// [`Error::NoAddress`], [`Error::NotNow`] when too many are open.
    pub async fn invite(
        &self,
        wanted: Wanted,
        actor: &str,
    ) -> Result<(Pairing, Zeroizing<String>), Error> {
        let named: Vec<String> = wanted.addresses.iter().map(ToString::to_string).collect();
        let us = self.ourselves(&wanted.name, &named).await?;
        let id = InvitationId(rand::random());
        let secret = Secret::new(rand::random::<[u8; SECRET_BYTES]>().to_vec());
        let key = ProofKey::derive(&secret, &self.0.parts.cluster, id);
        let now = self.now();
        let lasts = Duration::from_secs(60 * u64::from(wanted.minutes.clamp(1, MAX_MINUTES)));
        let pairing = Pairing {
            side: Side::Inviting,
            id,
            state: State::Open,
            node: self.0.parts.node.clone(),
            actor: actor.to_owned(),
            name: wanted.name,
            addresses: named,
            their_addresses: Vec::new(),
            created_at: now,
            expires_at: now.plus(lasts),
            proof_key: Some(key.bytes().clone()),
            failures: 0,
            bound_to: None,
            server_leaf: None,
            remote: String::new(),
            words: String::new(),
            told: None,
            confirmed_by: None,
            is_update: false,
            they_confirmed: false,
            trouble: String::new(),
        };
        let addresses = us.addresses.iter().filter_map(|a| a.address.parse().ok());
        let token = Token {
            id,
            cluster: self.0.parts.cluster.clone(),
            expires_at: pairing.expires_at,
            leaves: leaves_of(&us),
            addresses: addresses.collect(),
            secret,
        };
        let made = pairing.clone();
        let write = self.0.parts.store.write(move |tx: &mut dyn Transaction| {
            let open = pairings::list(tx, Side::Inviting)?;
            let is_live = |p: &&Pairing| p.state.is_under_way() && p.expires_at > now;
            if open.iter().filter(is_live).count() >= MAX_OPEN {
                let why = format!("{MAX_OPEN} invitations are open, and more can't be");
                return Err(commit::not_now(&pairing, why));
            }
            let until = pairing.expires_at;
            let outcome = format!("made, until {until}");
            let actor = pairing.actor.clone();
            note(tx, &pairing, Action::PairingInvite, &actor, outcome, now)?;
            pairings::put(tx, &pairing)?;
            Ok(())
        });
        write.await?;
        self.opened(made.expires_at);
        Ok((made, token.text()))
    }

    /// A guest proves that it was invited. Gives our own proof.
    ///
    /// # Errors
    /// [`Turned`].
    pub async fn begin(
        &self,
        guest: Guest,
        id: InvitationId,
        claimed: View,
        proof: Vec<u8>,
    ) -> Result<Vec<u8>, Turned> {
        let begun = Begun {
            guest,
            id,
            claimed,
            proof,
            now: self.now(),
        };
        let answer = self.judge(begun).await?;
        self.0.parts.faults.pass("pairing.proven").await;
        if let Err(turned) = &answer
            && let Some(word) = turned.word()
            && self.0.turned.is_news(guest.remote.ip(), word, self.now())
        {
            warn!(
                peer.address = %guest.remote, invitation = %id,
                "a cluster that wanted to join was refused: {turned}; more of that from its network is not told for a minute"
            );
        }
        answer
    }

    /// What comes of a proof. Whoever finds the door may send as many as it likes: only what changes something is a
    /// transaction that writes.
    async fn judge(&self, begun: Begun) -> Result<Result<Vec<u8>, Turned>, Turned> {
        let store = &self.0.parts.store;
        let look = begun.clone();
        let read = move |tx: &mut dyn Transaction| Ok::<_, Turned>(look.foregone(tx)?);
        if let Some(turned) = store.read(read).await? {
            return Ok(Err(turned));
        }
        let write = store.write(move |tx: &mut dyn Transaction| {
            let Begun {
                guest,
                claimed,
                now,
                ..
            } = &begun;
            let Some((mut pairing, key, proved)) = begun.outcome(tx)? else {
                return Ok(Err(Turned::NotOpen));
            };
            let answer = match proved {
                Proved::Bound => {
                    bind(tx, &mut pairing, &key, guest, *now)?;
                    Ok(key.prove(Side::Inviting, &guest.view))
                }
                Proved::Failed(failed) => {
                    fail(tx, &mut pairing, failed, guest, claimed, *now)?;
                    Err(if failed.is_relayed {
                        Turned::Relayed
                    } else {
                        Turned::WrongProof
                    })
                }
                Proved::Used => {
                    let trouble = format!(
                        "{SOMEBODY_ELSE}, from {} at {now}, and was told that it is used: \
                         confirm only when the words are the same at both sides",
                        guest.remote
                    );
                    tell(tx, &mut pairing, trouble, guest, *now)?;
                    Err(Turned::Used)
                }
                Proved::NotOpen => Err(Turned::NotOpen),
            };
            Ok::<_, Turned>(answer)
        });
        write.await
    }

    /// A guest tells what it is, and hears what we are.
    ///
    /// # Errors
    /// [`Turned`].
    pub async fn exchange(
        &self,
        guest: Guest,
        id: InvitationId,
        cluster: pb::Cluster,
    ) -> Result<pb::Cluster, Turned> {
        let pairing = self.bound(guest, id).await?;
        if !matches!(pairing.state, State::Proven | State::Told) {
            return Err(Turned::NotOpen);
        }
        let us = self.ourselves(&pairing.name, &pairing.addresses).await?;
        let read = told::read(cluster).map_err(Error::from);
        let fit = read.and_then(|them| {
            told::check(&provider(), &them, &guest.view.caller_leaf, &us)?;
            Ok(them)
        });
        let mut them = match fit {
            Ok(them) => them,
            Err(error) => {
                self.end(id, State::Refused, error.to_string()).await?;
                return Err(error.into());
            }
        };
        if pairing.state == State::Told {
            // It was answered before, and the answer was lost.
            return Ok(told::message(&us));
        }
        let snapshot = self.0.parts.trust.snapshot();
        let addresses: Vec<String> = them.addresses.into_iter().map(|a| a.address).collect();
        let leaves = them.certificates.iter();
        let leaves: Vec<_> = leaves.map(|c| fingerprint_of(&c.der)).collect();
        them.addresses = dial::look_at_all(&snapshot, addresses, &leaves).await;
        self.keep_told(guest, id, them).await?;
        self.0.parts.faults.pass("pairing.told").await;
        Ok(told::message(&us))
    }

    async fn keep_told(&self, guest: Guest, id: InvitationId, them: Told) -> Result<(), Turned> {
        let now = self.now();
        let write = self.0.parts.store.write(move |tx: &mut dyn Transaction| {
            let mut pairing = is_bound(tx, &guest, id)?;
            if pairing.state != State::Proven || now >= pairing.expires_at {
                return if pairing.state == State::Told {
                    Ok(())
                } else {
                    Err(Turned::NotOpen)
                };
            }
            pairing.told = Some(them.clone());
            pairing.state = State::Told;
            let outcome = format!("{} wants to join, from {}", them.cluster_id, guest.remote);
            let actor = format!("cluster {}", them.cluster_id);
            note(tx, &pairing, Action::PairingJoin, &actor, outcome, now)?;
            pairings::put(tx, &pairing)?;
            Ok(())
        });
        write.await
    }

    /// A guest tells what its operator decided, or why it can't follow, and asks what became of it.
    ///
    /// # Errors
    /// [`Turned`].
    pub async fn conclude(
        &self,
        guest: Guest,
        id: InvitationId,
        decision: pb::Decision,
        reason: String,
    ) -> Result<pb::Outcome, Turned> {
        let deadline = Instant::now() + HELD;
        let mut changes = self.0.parts.store.changes();
        let mut pairing = self.decide(guest, id, decision, reason).await?;
        if pairing.state == State::Committed {
            self.0.parts.faults.pass("pairing.committed").await;
        }
        loop {
            let outcome = match pairing.state {
                State::Committed | State::Done => pb::Outcome::Committed,
                state if state.is_under_way() && self.now() < pairing.expires_at => {
                    pb::Outcome::Waiting
                }
                _ => pb::Outcome::Ended,
            };
            if outcome != pb::Outcome::Waiting || Instant::now() >= deadline {
                return Ok(outcome);
            }
            // A store that is closed changes no more.
            let _ = tokio::time::timeout_at(deadline, changes.changed()).await;
            changes.mark_unchanged();
            pairing = self.bound(guest, id).await?;
        }
    }

    /// Takes the other operator's decision up; commits where that was the last one.
    async fn decide(
        &self,
        guest: Guest,
        id: InvitationId,
        decision: pb::Decision,
        reason: String,
    ) -> Result<Pairing, Turned> {
        let now = self.now();
        let write = self.0.parts.store.write(move |tx: &mut dyn Transaction| {
            let mut pairing = is_bound(tx, &guest, id)?;
            match (decision, pairing.state) {
                (pb::Decision::Confirmed, State::Told) if !pairing.they_confirmed => {
                    pairing.they_confirmed = true;
                    if pairing.standing().is_agreed(now) {
                        commit::commit(tx, &mut pairing, now)?;
                    } else {
                        pairings::put(tx, &pairing)?;
                    }
                }
                (pb::Decision::Refused, state) if state.is_under_way() => {
                    pairing.state = State::Refused;
                    "the other operator did not confirm".clone_into(&mut pairing.trouble);
                    let actor = actor_of(&pairing, &guest);
                    let outcome = pairing.trouble.clone();
                    note(tx, &pairing, Action::PairingEnd, &actor, outcome, now)?;
                    pairings::put(tx, &pairing)?;
                }
                (pb::Decision::CannotFollow, State::Committed) => {
                    let trouble = one_sided(&pairing, &reason);
                    if pairing.trouble != trouble {
                        tell(tx, &mut pairing, trouble, &guest, now)?;
                    }
                }
                (pb::Decision::Committed, State::Committed) => {
                    pairing.state = State::Done;
                    // What kept it from following is over.
                    pairing.trouble.clear();
                    pairings::put(tx, &pairing)?;
                }
                _ => {}
            }
            Ok::<_, Turned>(pairing)
        });
        match write.await {
            Err(Turned::Failed(Error::Store(error))) => Err(Turned::Failed(Error::Store(error))),
            Err(Turned::Failed(error)) => {
                // It was right when it was confirmed, and things have moved since.
                self.end(id, State::Refused, error.to_string()).await?;
                Ok(self.bound(guest, id).await?)
            }
            other => other,
        }
    }

    /// Whether a guest shows the certificate that an invitation is bound to.
    ///
    /// # Errors
    /// [`Turned::NotBound`] when it does not.
    pub async fn is_bound_to(&self, guest: Guest, id: InvitationId) -> Result<(), Turned> {
        self.bound(guest, id).await.map(drop)
    }

    async fn end(&self, id: InvitationId, state: State, trouble: String) -> Result<(), Error> {
        let now = self.now();
        let write = self.0.parts.store.write(move |tx: &mut dyn Transaction| {
            let Some(mut pairing) = pairings::get(tx, Side::Inviting, id)? else {
                return Ok(());
            };
            if !pairing.state.is_under_way() {
                return Ok(());
            }
            pairing.state = state;
            pairing.trouble.clone_from(&trouble);
            let actor = pairing.actor.clone();
            note(
                tx,
                &pairing,
                Action::PairingEnd,
                &actor,
                trouble.clone(),
                now,
            )?;
            pairings::put(tx, &pairing)
        });
        Ok(write.await?)
    }

    async fn bound(&self, guest: Guest, id: InvitationId) -> Result<Pairing, Turned> {
        let read = self
            .0
            .parts
            .store
            .read(move |tx: &mut dyn Transaction| is_bound(tx, &guest, id));
        read.await
    }
}

/// The pairing that a guest may speak of: the one that its certificate is bound to.
fn is_bound(tx: &mut dyn Transaction, guest: &Guest, id: InvitationId) -> Result<Pairing, Turned> {
    pairings::get(tx, Side::Inviting, id)?
        .filter(|pairing| pairing.standing().is_bound_to(&guest.view.caller_leaf))
        .ok_or(Turned::NotBound)
}

fn actor_of(pairing: &Pairing, guest: &Guest) -> String {
    match &pairing.told {
        Some(told) => format!("cluster {}", told.cluster_id),
        None => format!("a cluster at {}", guest.remote),
    }
}

/// What an operator reads who has a peer that has not got us as one.
fn one_sided(pairing: &Pairing, reason: &str) -> String {
    let cluster = match &pairing.told {
        Some(told) => told.cluster_id.as_str(),
        None => "the other cluster",
    };
    format!(
        "{cluster} is a peer here, and can't make this cluster one yet: {reason}; it tries again by itself, or undo it \
         here with: emccd cluster remove {cluster}"
    )
}

fn bind(
    tx: &mut dyn Transaction,
    pairing: &mut Pairing,
    key: &ProofKey,
    guest: &Guest,
    now: Timestamp,
) -> Result<(), crate::store::Error> {
    pairing.state = State::Proven;
    pairing.bound_to = Some(guest.view.caller_leaf);
    pairing.server_leaf = Some(guest.view.server_leaf);
    pairing.remote = guest.remote.to_string();
    pairing.words = key.words(&guest.view);
    let shown = fingerprint_text(&guest.view.caller_leaf);
    let outcome = format!("used from {}, by who shows {shown}", guest.remote);
    let actor = actor_of(pairing, guest);
    note(tx, pairing, Action::PairingJoin, &actor, outcome, now)?;
    info!(peer.address = %guest.remote, invitation = %pairing.id, "an invitation is used");
    pairings::put(tx, pairing)
}

fn fail(
    tx: &mut dyn Transaction,
    pairing: &mut Pairing,
    failed: Failed,
    guest: &Guest,
    claimed: &View,
    now: Timestamp,
) -> Result<(), crate::store::Error> {
    pairing.failures += 1;
    let what = if failed.is_relayed && claimed.server_leaf != guest.view.server_leaf {
        format!(
            "the other side was shown SHA-256 {}, which is not this cluster's: something between ends TLS",
            fingerprint_text(&claimed.server_leaf)
        )
    } else if failed.is_relayed {
        "the other side sees another connection: something between ends TLS".to_owned()
    } else {
        "its secret is another one".to_owned()
    };
    let mut trouble = format!(
        "wrong proof {} of {MAX_FAILURES}, from {}: {what}",
        pairing.failures, guest.remote
    );
    if failed.left == 0 {
        pairing.state = State::Burned;
        trouble += "; the invitation is burned: find out who tried, and make a new one";
    }
    tell(tx, pairing, trouble, guest, now)
}

fn tell(
    tx: &mut dyn Transaction,
    pairing: &mut Pairing,
    trouble: String,
    guest: &Guest,
    now: Timestamp,
) -> Result<(), crate::store::Error> {
    let actor = format!("a cluster at {}", guest.remote);
    note(
        tx,
        pairing,
        Action::PairingFail,
        &actor,
        trouble.clone(),
        now,
    )?;
    pairing.trouble = trouble;
    pairings::put(tx, pairing)
}
