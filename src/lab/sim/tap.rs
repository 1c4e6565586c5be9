//! Listens in on what clusters ask of each other, lets some of it come late and some of it twice, and keeps what was
//! answered.
//!
//! It stands before the roles of a node. A call that comes twice comes to whatever of the cluster runs then: the node may
//! have been started anew in between, or it is another.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use super::{
    doors::Doors,
    plan::{Cluster, Node},
};
use crate::{
    chance::Chance,
    clock,
    domain::{
        announcement::{Acknowledgement, Announcement},
        ids::SessionId,
        login::{Answer, Context, FindUser, LoginAnswer, LoginRequest, LogoutRequest, Ownership},
        refusal::{Detail, Refusal},
        session::EndReason,
    },
    edge::federation::{
        Roles,
        sync::{SyncReply, SyncStep},
    },
    tasks::Tasks,
    trust::receive,
};

/// Stands between the clusters. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tap(Arc<Mutex<State>>);

struct State {
    chance: Chance,
    repeat: u64,
    delay: u64,
    doors: Doors<Running>,
    /// When the run began.
    since: Instant,
    /// Counts beginnings and ends.
    moment: u64,
    calls: Vec<Call>,
}

#[derive(Clone)]
struct Running {
    roles: Arc<dyn Roles>,
    tasks: Tasks,
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Login,
    Logout,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// A login succeeded; with all that the phone gets.
    Opened(String),
    /// The user has to choose.
    Choose,
    /// The session is over.
    Ended(EndReason),
    /// Refused with that code.
    Refused(u16),
}

/// A login or logout that one cluster asked of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) caller: Cluster,
    pub(crate) callee: Cluster,
    pub(crate) id: SessionId,
    pub(crate) asked: Asked,
    /// Places in the order of all beginnings and ends.
    pub(crate) began: u64,
    pub(crate) ended: Option<u64>,
    /// When it began.
    pub(crate) began_ms: u64,
    pub(crate) answered: Option<Answered>,
}

impl Tap {
    /// One through which everything passes as it is.
    pub(crate) fn new(chance: Chance) -> Self {
        Self(Arc::new(Mutex::new(State {
            chance,
            repeat: 0,
            delay: 0,
            doors: Doors::new(),
            since: Instant::now(),
            moment: 0,
            calls: Vec::new(),
        })))
    }

    /// From here on one call of `repeat` comes a second time, and one of `delay` comes late; none for 0.
    pub(crate) fn set(&self, repeat: u64, delay: u64) {
        let mut state = self.state();
        (state.repeat, state.delay) = (repeat, delay);
    }

    /// Stands before the roles of a node that starts.
    pub(crate) fn before(
        &self,
        (node, number): (Node, u64),
        roles: Arc<dyn Roles>,
        tasks: &Tasks,
    ) -> Arc<dyn Roles> {
        let running = Running {
            roles: Arc::clone(&roles),
            tasks: tasks.clone(),
        };
        self.state().doors.starts(node, number, running);
        Arc::new(Tapped {
            tap: self.clone(),
            node,
            roles,
        })
    }

    /// The node has opened its doors: calls may come to it.
    pub(crate) fn serves(&self, node: Node, number: u64) {
        self.state().doors.open(node, number);
    }

    /// A start came to nothing.
    pub(crate) fn fails(&self, node: Node, number: u64) {
        self.state().doors.fails(node, number);
    }

    /// The node is gone, and whatever start of it is under way is too late.
    pub(crate) fn gone(&self, node: Node) {
        self.state().doors.gone(node);
    }

    /// What was asked and answered so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn began(&self, context: &Context, node: Node, id: SessionId, asked: Asked) -> usize {
        let mut state = self.state();
        let call = Call {
            caller: Cluster::named(context.caller.as_str()).unwrap(),
            callee: node.cluster(),
            id,
            asked,
            began: state.next_moment(),
            ended: None,
            began_ms: u64::try_from(state.since.elapsed().as_millis()).unwrap(),
            answered: None,
        };
        state.calls.push(call);
        state.calls.len() - 1
    }

    fn ended(&self, call: usize, answered: Answered) {
        let mut state = self.state();
        let moment = state.next_moment();
        let call = &mut state.calls[call];
        call.ended = Some(moment);
        call.answered = Some(answered);
    }

    /// How late a call comes; none when it comes at once.
    fn draw_delay(&self) -> Option<Duration> {
        let state = self.state();
        let is_late = state.chance.one_in(state.delay);
        is_late.then(|| Duration::from_millis(state.chance.range(1..4_000)))
    }

    /// How long after it a call comes again; none when it does not.
    fn draw_repeat(&self) -> Option<Duration> {
        let state = self.state();
        let is_repeated = state.chance.one_in(state.repeat);
        is_repeated.then(|| Duration::from_millis(state.chance.range(0..20_000)))
    }

    /// What runs there now of the cluster of a node: the callers of a call that comes twice choose anew.
    fn any_running(&self, node: Node) -> Option<(Node, Running)> {
        let state = self.state();
        let all: Vec<_> = state.doors.of(node.cluster()).collect();
        let chosen = state.chance.range(0..u64::try_from(all.len()).unwrap());
        let (node, running) = all.get(usize::try_from(chosen).unwrap())?;
        Some((*node, (*running).clone()))
    }

    /// Asks the same again later, of what runs there then.
    fn again<F>(
        &self,
        node: Node,
        context: &Context,
        ask: impl FnOnce(Self, (Node, Running), Context) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(after) = self.draw_repeat() else {
            return;
        };
        let (tap, mut context) = (self.clone(), context.clone());
        let left = context.deadline.saturating_duration_since(clock::instant());
        let later = async move {
            sleep(after).await;
            if let Some((node, running)) = tap.any_running(node) {
                context.deadline = clock::instant() + left;
                let tasks = running.tasks.clone();
                drop(tasks.spawn("a call again", ask(tap, (node, running), context)));
            }
        };
        drop(Handle::current().spawn(later));
    }

    async fn login(
        &self,
        node: Node,
        roles: &Arc<dyn Roles>,
        context: &Context,
        request: &LoginRequest,
    ) -> Result<LoginAnswer, Refusal> {
        let call = self.began(context, node, request.session_id, Asked::Login);
        let answer = roles.login(context, request).await;
        self.ended(call, login_answered(&answer));
        answer
    }

    async fn logout(
        &self,
        node: Node,
        roles: &Arc<dyn Roles>,
        context: &Context,
        request: LogoutRequest,
        is_home: bool,
    ) -> Result<EndReason, Refusal> {
        // What a home cluster ends at visiting is another row than the one that logins are about.
        let call = is_home.then(|| self.began(context, node, request.session_id, Asked::Logout));
        let answer = if is_home {
            roles.end_from_visiting(context, request).await
        } else {
            roles.end_from_home(context, request).await
        };
        if let Some(call) = call {
            let answered = match &answer {
                Ok(reason) => Answered::Ended(*reason),
                Err(refusal) => Answered::Refused(refusal.code.number()),
            };
            self.ended(call, answered);
        }
        answer
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap")
    }
}

impl State {
    fn next_moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }
}

fn login_answered(answer: &Result<LoginAnswer, Refusal>) -> Answered {
    match answer {
        Ok(LoginAnswer::Opened(services)) => {
            // What is left of its time runs down from answer to answer.
            let mut services = services.clone();
            services.remaining = None;
            Answered::Opened(format!("{services:?}"))
        }
        Ok(LoginAnswer::Choose(_)) => Answered::Choose,
        Err(refusal) => match refusal.detail {
            Detail::SessionEnded(reason) => Answered::Ended(reason),
            _ => Answered::Refused(refusal.code.number()),
        },
    }
}

/// The roles of a node behind the tap.
struct Tapped {
    tap: Tap,
    node: Node,
    roles: Arc<dyn Roles>,
}

impl Tapped {
    async fn wait(&self) {
        if let Some(delay) = self.tap.draw_delay() {
            sleep(delay).await;
        }
    }

    fn ended<'a>(
        &'a self,
        context: &'a Context,
        request: LogoutRequest,
        is_home: bool,
    ) -> Answer<'a, EndReason> {
        Box::pin(async move {
            let node = self.node;
            self.tap.again(
                node,
                context,
                move |tap, (node, running), context| async move {
                    drop(
                        tap.logout(node, &running.roles, &context, request, is_home)
                            .await,
                    );
                },
            );
            self.wait().await;
            self.tap
                .logout(node, &self.roles, context, request, is_home)
                .await
        })
    }
}

impl Roles for Tapped {
    fn find_user<'a>(&'a self, context: &'a Context, query: &'a FindUser) -> Answer<'a, Ownership> {
        Box::pin(async move {
            self.wait().await;
            self.roles.find_user(context, query).await
        })
    }

    fn login<'a>(
        &'a self,
        context: &'a Context,
        request: &'a LoginRequest,
    ) -> Answer<'a, LoginAnswer> {
        Box::pin(async move {
            let (node, copy) = (self.node, request.clone());
            self.tap.again(
                node,
                context,
                move |tap, (node, running), context| async move {
                    drop(tap.login(node, &running.roles, &context, &copy).await);
                },
            );
            self.wait().await;
            self.tap.login(node, &self.roles, context, request).await
        })
    }

    fn end_from_visiting<'a>(
        &'a self,
        context: &'a Context,
        request: LogoutRequest,
    ) -> Answer<'a, EndReason> {
        self.ended(context, request, true)
    }

    fn announced<'a>(
        &'a self,
        call: &'a receive::Call,
        announcement: &'a Announcement,
    ) -> Answer<'a, Acknowledgement> {
        self.roles.announced(call, announcement)
    }

    fn sync<'a>(&'a self, context: &'a Context, step: SyncStep) -> Answer<'a, SyncReply> {
        Box::pin(async move {
            self.wait().await;
            self.roles.sync(context, step).await
        })
    }

    fn end_from_home<'a>(
        &'a self,
        context: &'a Context,
        request: LogoutRequest,
    ) -> Answer<'a, EndReason> {
        self.ended(context, request, false)
    }
}
