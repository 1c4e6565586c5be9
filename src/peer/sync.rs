//! Asking a peer how the sessions stand that we share: one exchange over one connection to one of its nodes.

use std::{collections::BTreeMap, time::Instant};

use futures_util::stream;
use tokio::{sync::mpsc, time::timeout_at};
use tonic::{Request, Status, Streaming};

use crate::{
    domain::{
        agreement::{Digests, Theirs},
        capability::SYNC_SESSIONS,
        ids::{ClusterId, SessionId},
        session::Role,
    },
    peer::{
        Peers,
        attempt::new_reference,
        error::bounded,
        shared::{Live, now},
    },
    wire::{
        federation::{Asked, Ids, Told},
        metadata, pb, status,
    },
};

/// Why an exchange did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No link to it is up.
    #[error("no link to it is up")]
    NotLinked,
    /// No node of it that is linked has the capability.
    #[error("it has no {SYNC_SESSIONS}")]
    Unable,
    /// It has refused the call, or it was lost.
    #[error("{0}")]
    Failed(String),
    /// It answers something that breaks the protocol.
    #[error("its answer breaks the protocol: {0}")]
    Broken(String),
    /// It took too long.
    #[error("no answer in time")]
    Late,
}

/// What a pass asks of the other side, in this order.
pub(crate) trait Dialogue: Send {
    /// The next ids of a role that live there, of the buckets that differ; none after the last ones. Home comes first.
    fn living(
        &mut self,
        role: Role,
    ) -> impl Future<Output = Result<Option<Vec<SessionId>>, Error>> + Send;

    /// How these stand there, in their order.
    fn ask(
        &mut self,
        role: Role,
        ids: Vec<SessionId>,
    ) -> impl Future<Output = Result<Vec<Theirs>, Error>> + Send;

    /// These have ended here, as was told.
    fn settled(
        &mut self,
        role: Role,
        ids: Vec<SessionId>,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Waits until all that was told is taken up there.
    fn finish(self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// An exchange that has begun.
#[derive(Debug)]
pub struct Exchange {
    cluster: ClusterId,
    steps: mpsc::Sender<pb::SyncSessionsRequest>,
    answers: Streaming<pb::SyncSessionsResponse>,
    deadline: Instant,
    /// Of each role, the last id that was told to live, and whether all were told.
    told: BTreeMap<Role, (Option<SessionId>, bool)>,
}

impl Peers {
    /// Whether that peer tells of sessions; none while no link to it is up.
    #[must_use]
    pub fn can_sync(&self, cluster: &ClusterId) -> Option<bool> {
        let lives = self.lives(cluster);
        (!lives.is_empty()).then(|| lives.iter().any(is_able))
    }

    /// Begins an exchange over any link whose node can: what lives there comes with it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn exchange(
        &self,
        cluster: &ClusterId,
        ours: &Digests,
        deadline: Instant,
    ) -> Result<(Exchange, Box<Digests>), Error> {
        let lives = self.lives(cluster);
        if lives.is_empty() {
            return Err(Error::NotLinked);
        }
        let mut last = Error::Unable;
        for live in lives.iter().filter(|live| is_able(live)) {
            match self.exchange_over(cluster, live, ours, deadline).await {
                Ok(begun) => return Ok(begun),
                Err(failed) => last = failed,
            }
            if now() >= deadline {
                break;
            }
        }
        Err(last)
    }

    async fn exchange_over(
        &self,
        cluster: &ClusterId,
        live: &Live,
        ours: &Digests,
        deadline: Instant,
    ) -> Result<(Exchange, Box<Digests>), Error> {
        let (steps, queue) = mpsc::channel(1);
        let outgoing = stream::unfold(queue, |mut queue| async move {
            let step = queue.recv().await?;
            Some((step, queue))
        });
        let mut request = Request::new(outgoing);
        metadata::write(
            request.metadata_mut(),
            &self.config().cluster_id,
            live.facts.version,
            new_reference(&self.config().chance),
        );
        request.set_timeout(deadline.saturating_duration_since(now()));
        let begin = Asked::Begin(Box::new(ours.clone()));
        steps
            .try_send(pb::SyncSessionsRequest::from(&begin))
            .map_err(|_| Error::Failed("the exchange could not begin".to_owned()))?;
        let mut client = live.client.clone();
        let answers = timeout_at(deadline.into(), client.sync_sessions(request)).await;
        let answers = answers
            .map_err(|_| Error::Late)?
            .map_err(|refused| failed(&refused, cluster))?
            .into_inner();
        let mut exchange = Exchange {
            cluster: cluster.clone(),
            steps,
            answers,
            deadline,
            told: BTreeMap::new(),
        };
        match exchange.told().await? {
            Some(Told::Begin(theirs)) => Ok((exchange, theirs)),
            _ => Err(out_of_order("begin")),
        }
    }
}

fn is_able(live: &Live) -> bool {
    live.facts.traits().sync_sessions
}

fn failed(status: &Status, cluster: &ClusterId) -> Error {
    let refusal = status::from_status(status, cluster);
    Error::Failed(bounded(&refusal.cause))
}

fn out_of_order(awaited: &str) -> Error {
    Error::Broken(format!("something else than {awaited} came"))
}

impl Exchange {
    /// What the peer tells next; none at the end.
    async fn told(&mut self) -> Result<Option<Told>, Error> {
        let message = timeout_at(self.deadline.into(), self.answers.message()).await;
        let message = message
            .map_err(|_| Error::Late)?
            .map_err(|status| failed(&status, &self.cluster))?;
        let told = message.map(Told::try_from).transpose();
        told.map_err(|malformed| Error::Broken(malformed.to_string()))
    }

    async fn tell(&mut self, asked: &Asked) -> Result<(), Error> {
        let step = pb::SyncSessionsRequest::from(asked);
        let sent = timeout_at(self.deadline.into(), self.steps.send(step)).await;
        if sent.map_err(|_| Error::Late)?.is_ok() {
            return Ok(());
        }
        // The peer has ended it, and says why.
        match self.told().await? {
            None => Err(Error::Failed("the peer ended the exchange".to_owned())),
            Some(_) => Err(out_of_order("the end")),
        }
    }
}

impl Dialogue for Exchange {
    async fn living(&mut self, role: Role) -> Result<Option<Vec<SessionId>>, Error> {
        let (before, is_all) = self.told.get(&role).copied().unwrap_or_default();
        if is_all {
            return Ok(None);
        }
        let Some(Told::Living(Ids {
            role: of,
            ids,
            last,
        })) = self.told().await?
        else {
            return Err(out_of_order("what lives"));
        };
        if of != role {
            return Err(out_of_order("what lives of this role"));
        }
        // Within a message they are in order already.
        if ids
            .first()
            .is_some_and(|first| before.is_some_and(|before| *first <= before))
        {
            return Err(Error::Broken("ids must be in ascending order".to_owned()));
        }
        if ids.is_empty() && !last {
            return Err(Error::Broken(
                "a page before the last must not be empty".to_owned(),
            ));
        }
        self.told
            .insert(role, (ids.last().copied().or(before), last));
        Ok(Some(ids))
    }

    async fn ask(&mut self, role: Role, ids: Vec<SessionId>) -> Result<Vec<Theirs>, Error> {
        let asked = ids.len();
        let last = false;
        self.tell(&Asked::Query(Ids { role, ids, last })).await?;
        match self.told().await? {
            Some(Told::Answers(of, answers)) if of == role && answers.len() == asked => Ok(answers),
            Some(Told::Answers(..)) => Err(Error::Broken(
                "there must be one answer for each id that was asked for".to_owned(),
            )),
            _ => Err(out_of_order("the answers")),
        }
    }

    async fn settled(&mut self, role: Role, ids: Vec<SessionId>) -> Result<(), Error> {
        let last = false;
        self.tell(&Asked::Settled(Ids { role, ids, last })).await
    }

    async fn finish(mut self) -> Result<(), Error> {
        // Closes our side: the peer ends its own when it has taken all.
        let (closed, _) = mpsc::channel(1);
        self.steps = closed;
        match self.told().await? {
            None => Ok(()),
            Some(_) => Err(out_of_order("the end")),
        }
    }
}
