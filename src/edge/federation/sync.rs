//! `SyncSessions`: a peer that mends its own rows asks how the sessions stand here that we share.
//!
//! Nothing is made before the caller takes what was made before, and nothing of a session but its id, its standing and
//! the reason of its end is told.

use std::{pin::Pin, sync::Arc};

use futures_util::stream::{self, Stream, StreamExt};
use tokio::time::timeout_at;
use tonic::{Status, Streaming};

use crate::{
    clock::{self, Clock},
    domain::{
        agreement::{Buckets, Digests, IDS_AT_ONCE, Theirs},
        em_code::EmCode,
        ids::{ClusterId, SessionId},
        login::Context,
        refusal::Refusal,
        session::Role,
    },
    edge::{
        federation::{
            Roles,
            caller::{Caller, Door},
            refused::RefusalLog,
        },
        listener::Share,
    },
    peer::Peers,
    wire::{
        federation::{Asked, Ids, Told},
        pb,
    },
};

/// The steps of one exchange.
pub type Steps = Pin<Box<dyn Stream<Item = Result<pb::SyncSessionsResponse, Status>> + Send>>;

/// What of the sessions that we share with the caller is asked for, or told. All roles are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncStep {
    /// What lives, summed up.
    Digests,
    /// The next ids that live of some buckets.
    Living {
        /// Of which role.
        role: Role,
        /// Of which buckets.
        buckets: Buckets,
        /// Behind which one.
        after: Option<SessionId>,
    },
    /// How these stand.
    Standing {
        /// Of which role.
        role: Role,
        /// Which.
        ids: Vec<SessionId>,
    },
    /// The caller knows of the ends of these.
    Settled {
        /// Of which role.
        role: Role,
        /// Which.
        ids: Vec<SessionId>,
    },
}

/// The answer to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncReply {
    /// To [`SyncStep::Digests`].
    Digests(Box<Digests>),
    /// To [`SyncStep::Living`].
    Living {
        /// At most [`IDS_AT_ONCE`], in ascending order.
        ids: Vec<SessionId>,
        /// Whether there may be more behind them.
        more: bool,
    },
    /// To [`SyncStep::Standing`], in the order of its ids.
    Standing(Vec<Theirs>),
    /// To [`SyncStep::Settled`].
    Settled,
}

/// One exchange, as long as it lasts.
pub(super) struct Conversation {
    pub(super) caller: Caller,
    pub(super) context: Context,
    pub(super) incoming: Streaming<pb::SyncSessionsRequest>,
    pub(super) roles: Arc<dyn Roles>,
    /// For our own settings.
    pub(super) peers: Peers,
    pub(super) clock: Clock,
    pub(super) log: Arc<RefusalLog>,
    /// Its place among those of the caller.
    pub(super) place: Share<ClusterId>,
}

/// What comes next. The roles in here are the caller's, as on the wire.
enum Next {
    /// The caller's digests.
    Begin,
    /// Our page of this role.
    Living {
        role: Role,
        after: Option<SessionId>,
        buckets: [Buckets; 2],
    },
    /// What the caller asks.
    Listen,
    /// Nothing.
    Over,
}

/// Why an exchange breaks off.
enum Broken {
    Refused(Refusal),
    Status(Status),
}

impl From<Refusal> for Broken {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Conversation {
    /// Our steps, each made when it can be sent.
    pub(super) fn steps(self) -> Steps {
        Box::pin(stream::unfold(
            (self, Next::Begin),
            |(mut talk, next)| async move {
                if let Next::Over = next {
                    return None;
                }
                let deadline = talk.caller.deadline;
                match timeout_at(deadline.into(), talk.step(next)).await {
                    Ok(Ok((Some(told), next))) => {
                        Some((Ok(pb::SyncSessionsResponse::from(&told)), (talk, next)))
                    }
                    Ok(Ok((None, _))) => None,
                    Ok(Err(broken)) => {
                        let status = talk.status(broken);
                        Some((Err(status), (talk, Next::Over)))
                    }
                    Err(_) => {
                        let status =
                            Status::deadline_exceeded("the deadline of the exchange has passed");
                        Some((Err(status), (talk, Next::Over)))
                    }
                }
            },
        ))
    }

    async fn step(&mut self, next: Next) -> Result<(Option<Told>, Next), Broken> {
        match next {
            Next::Begin => self.begin().await,
            Next::Living {
                role,
                after,
                buckets,
            } => self.living(role, after, buckets).await,
            Next::Listen => self.listen().await,
            Next::Over => Ok((None, Next::Over)),
        }
    }

    async fn begin(&mut self) -> Result<(Option<Told>, Next), Broken> {
        let Some(Asked::Begin(theirs)) = self.asked().await? else {
            return Err(self.out_of_order("the first message must be begin"));
        };
        let SyncReply::Digests(ours) = self.ask(SyncStep::Digests).await? else {
            return Err(unfit());
        };
        let ours = Box::new(ours.turned());
        let buckets =
            [Role::Home, Role::Visiting].map(|role| ours.of(role).differing(theirs.of(role)));
        let next = Next::Living {
            role: Role::Home,
            after: None,
            buckets,
        };
        Ok((Some(Told::Begin(ours)), next))
    }

    async fn living(
        &self,
        role: Role,
        after: Option<SessionId>,
        buckets: [Buckets; 2],
    ) -> Result<(Option<Told>, Next), Broken> {
        let [home, visiting] = &buckets;
        let of_role = match role {
            Role::Home => home,
            Role::Visiting => visiting,
        };
        let step = SyncStep::Living {
            role: role.other(),
            buckets: of_role.clone(),
            after,
        };
        let SyncReply::Living { ids, more } = self.ask(step).await? else {
            return Err(unfit());
        };
        let next = match (more, role) {
            (true, _) => Next::Living {
                role,
                after: ids.last().copied().or(after),
                buckets,
            },
            (false, Role::Home) => Next::Living {
                role: Role::Visiting,
                after: None,
                buckets,
            },
            (false, Role::Visiting) => Next::Listen,
        };
        let last = !more;
        Ok((Some(Told::Living(Ids { role, ids, last })), next))
    }

    async fn listen(&mut self) -> Result<(Option<Told>, Next), Broken> {
        loop {
            match self.asked().await? {
                None => return Ok((None, Next::Over)),
                Some(Asked::Begin(_)) => {
                    return Err(self.out_of_order("begin comes once, and first"));
                }
                Some(Asked::Query(Ids { role, ids, .. })) => {
                    let asked = ids.len();
                    let (of, role) = (role, role.other());
                    return match self.ask(SyncStep::Standing { role, ids }).await? {
                        SyncReply::Standing(answers) if answers.len() == asked => {
                            Ok((Some(Told::Answers(of, answers)), Next::Listen))
                        }
                        _ => Err(unfit()),
                    };
                }
                Some(Asked::Settled(Ids { role, ids, .. })) => {
                    let role = role.other();
                    self.ask(SyncStep::Settled { role, ids }).await?;
                }
            }
        }
    }

    /// What the caller sends next; none when it has said all.
    async fn asked(&mut self) -> Result<Option<Asked>, Broken> {
        let message = self.incoming.message().await.map_err(Broken::Status)?;
        let asked = message.map(Asked::try_from).transpose();
        asked.map_err(|malformed| self.unreadable(&malformed.to_string()))
    }

    async fn ask(&self, step: SyncStep) -> Result<SyncReply, Refusal> {
        self.roles.sync(&self.context, step).await
    }

    fn out_of_order(&self, rule: &str) -> Broken {
        self.unreadable(rule)
    }

    fn unreadable(&self, rule: &str) -> Broken {
        let cause = format!(
            "a message of {} can't be taken: {rule}",
            self.caller.cluster
        );
        Broken::Refused(Refusal::new(EmCode::ErrorOnParsing, cause))
    }

    fn status(&self, broken: Broken) -> Status {
        let config = self.peers.config();
        let door = Door {
            cluster_id: &config.cluster_id,
            versions: config.versions,
            log: &self.log,
            wall: self.clock.now(),
            now: clock::instant(),
            chance: &config.chance,
        };
        match broken {
            Broken::Refused(refusal) => door.refuse(&self.caller, &refusal),
            Broken::Status(status) => status,
        }
    }
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation")
            .field("caller", &self.caller.cluster)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// A role that answers something else than it was asked for is a fault of ours.
fn unfit() -> Broken {
    Broken::Refused(Refusal::new(
        EmCode::UnknownError,
        "the exchange broke off here: a step was answered by another one",
    ))
}

/// The most ids of one page.
pub const PAGE: usize = IDS_AT_ONCE;

/// Ends the steps when the node ends its connections: a peer asks again, and elsewhere.
pub(super) fn until(steps: Steps, stop: tokio_util::sync::CancellationToken) -> Steps {
    Box::pin(steps.take_until(Box::pin(async move { stop.cancelled().await })))
}
