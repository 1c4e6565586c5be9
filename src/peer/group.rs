//! All links to one peer: a peer is as well as the best of its nodes.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::{sync::Semaphore, time::timeout_at};

use crate::{
    domain::{
        address_list::means_near, capability::Traits, em_code::EmCode, ids::ClusterId,
        refusal::Refusal,
    },
    peer::{
        OutboundView,
        balance::{Budget, choose},
        error::{all_failures, bounded},
        inbound::InboundRecord,
        link::{Failure, FailureKind, Link, LinkState, Standing},
        shared::{Common, Giver, Live, Shared, lock, now},
        status::{LinkStatus, NodeStatus, best_state},
    },
};

/// How many searches and logins of one peer may be under way at once; others wait for one of these to end. A node
/// carries about what two cores can do: more of them there would only be late, and not leave what others need of the
/// 256 calls that one connection may carry.
const MAX_IN_FLIGHT: usize = 192;

/// How many ends of sessions. These have places of their own: an end frees what logins wait for.
const MAX_ENDS: usize = 32;

/// How many addresses of one peer have a link, the operator's first.
pub(super) const MAX_LINKS: usize = 16;

/// What a call needs of the node that gets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// It names a login type that 1.0 doesn't know.
    pub(super) login_types: bool,
    /// It is about a phone whose signalling is secure.
    pub(super) secure_config: bool,
}

impl Needs {
    fn are_met(self, live: &Live) -> bool {
        let facts = &live.facts;
        (!self.login_types || facts.version.knows_login_types())
            && (!self.secure_config || facts.traits().secure_config)
    }
}

/// Where a call was sent before.
#[derive(Debug, Default)]
pub(super) struct Tried {
    connections: Vec<(u64, u64)>,
    nodes: Vec<(String, String)>,
}

impl Tried {
    /// How often it was sent.
    pub(super) const fn times(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn add(&mut self, way: &Way) {
        self.connections.push((way.link.number, way.live.serial));
        let (name, instance) = way.live.facts.identity();
        self.nodes.push((name.to_owned(), instance.to_owned()));
    }

    fn has(&self, link: &Shared, live: &Live) -> bool {
        self.connections.contains(&(link.number, live.serial))
    }

    /// Whether it was sent to the node at the end of `way`, over whichever connection.
    pub(super) fn knows(&self, way: &Way) -> bool {
        self.has_node(way.live.facts.identity())
    }

    fn has_node(&self, (name, instance): (&str, &str)) -> bool {
        self.nodes.iter().any(|(n, i)| n == name && i == instance)
    }
}

/// A connection that a call goes over.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) link: Arc<Shared>,
    pub(super) live: Live,
}

impl Way {
    /// Whether both are the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        (self.link.number, self.live.serial) == (other.link.number, other.live.serial)
    }
}

/// What there is for a call now.
pub(super) enum Pick {
    /// This one.
    Way(Way),
    /// Nodes are up, and this one of them comes nearest to what the call needs.
    Lacking(Live),
    /// No node is up that was not tried.
    Nothing,
}

/// The links of one peer.
pub(super) struct Group {
    pub(super) common: Arc<Common>,
    pub(super) calls: Semaphore,
    pub(super) ends: Semaphore,
    /// For calls that are sent twice because a node is slow.
    budget: Mutex<Budget>,
    links: ArcSwap<Vec<Arc<Shared>>>,
    /// Why there will be none: the peer is disabled.
    closed: Option<Failure>,
}

impl Group {
    /// No links yet.
    pub(super) fn new(common: Arc<Common>, closed: Option<Failure>) -> Self {
        Self {
            common,
            calls: Semaphore::new(MAX_IN_FLIGHT),
            ends: Semaphore::new(MAX_ENDS),
            budget: Mutex::default(),
            links: ArcSwap::default(),
            closed,
        }
    }

    pub(super) fn cluster(&self) -> &ClusterId {
        &self.common.cluster
    }

    pub(super) fn links(&self) -> Arc<Vec<Arc<Shared>>> {
        self.links.load_full()
    }

    pub(super) fn budget(&self) -> MutexGuard<'_, Budget> {
        lock(&self.budget)
    }

    pub(super) fn inbound(&self) -> MutexGuard<'_, InboundRecord> {
        self.common.inbound()
    }

    /// Makes `addresses` the ones that have links, and `learned` behind them, which the peer told. New ones are made by
    /// `begin`; one that is up and whose address is gone stays until another one is up or all others have failed, so
    /// that no call is without a way.
    pub(super) fn set(
        &self,
        addresses: &[String],
        learned: &[String],
        begin: impl Fn(&str, Giver) -> Arc<Shared>,
    ) {
        if self.closed.is_some() {
            return;
        }
        let before = self.links();
        let mut links: Vec<Arc<Shared>> = Vec::new();
        let theirs = Giver::Peer {
            may_be_near: means_near(addresses),
        };
        let all = addresses.iter().map(|a| (a, Giver::Operator));
        for (address, giver) in all.chain(learned.iter().map(|a| (a, theirs))) {
            if links.len() >= MAX_LINKS || links.iter().any(|l| l.address == *address) {
                continue;
            }
            let known = before
                .iter()
                .find(|l| l.address == *address && !l.link(|link| link.is_closed()));
            let link = known.map_or_else(|| begin(address, giver), Arc::clone);
            link.retire(false);
            link.set_giver(giver);
            links.push(link);
        }
        for link in before.iter() {
            if links.iter().any(|l| l.number == link.number) {
                continue;
            }
            if link.is_up() {
                link.retire(true);
                links.push(Arc::clone(link));
            } else {
                link.stop.cancel();
            }
        }
        self.links.store(Arc::new(links));
        self.settle();
        self.common.announce();
    }

    /// Lets go of links whose address is gone once there is another one that is up. Calls under way finish on them.
    pub(super) fn settle(&self) {
        if self.staying().any(|l| l.is_up()) {
            self.let_go();
        }
    }

    /// The same once none of the others comes up: what the operator took away is not the peer any more.
    pub(super) fn settle_failed(&self) {
        let has_failed = |l: &Arc<Shared>| match l.link(Link::state) {
            LinkState::Down | LinkState::Incompatible => true,
            LinkState::Up | LinkState::Connecting => false,
        };
        if self.staying().all(|l| has_failed(&l)) {
            self.let_go();
        }
    }

    fn staying(&self) -> impl Iterator<Item = Arc<Shared>> + use<> {
        let links = self.links().to_vec().into_iter();
        links.filter(|l| !l.is_retiring())
    }

    fn let_go(&self) {
        let before = self.links.rcu(|links| {
            let staying = links.iter().filter(|l| !l.is_retiring()).cloned();
            staying.collect::<Vec<_>>()
        });
        let mut gone = false;
        for link in before.iter().filter(|l| l.is_retiring()) {
            link.stop.cancel();
            gone = true;
        }
        if gone {
            self.common.announce();
        }
    }

    /// Ends all links.
    pub(super) fn stop(&self) {
        for link in self.links().iter() {
            link.stop.cancel();
        }
    }

    /// Has all links tried at once that are not up.
    pub(super) fn dial_now(&self) {
        for link in self.links().iter().filter(|l| !l.is_up()) {
            link.wake.call.notify_one();
        }
    }

    /// The same after a call of the peer: it lives, and perhaps so does the node that was down.
    pub(super) fn peer_lives(&self) {
        for link in self.links().iter().filter(|l| !l.is_up()) {
            link.wake.inbound.notify_one();
        }
    }

    /// That of the best link.
    pub(super) fn state(&self) -> LinkState {
        let links = self.links();
        best_state(links.iter().map(|l| l.link(|link| link.state()))).unwrap_or(LinkState::Down)
    }

    pub(super) fn is_up(&self) -> bool {
        self.links().iter().any(|l| l.is_up())
    }

    /// What the peer has told of itself: as a caller, else on our own links.
    pub(super) fn traits_told(&self) -> Option<Traits> {
        let told = self.inbound().traits();
        told.or_else(|| self.traits())
    }

    /// What a call to it may count on: what any node that is up offers, since the call goes to that one; else what
    /// was told last.
    pub(super) fn traits(&self) -> Option<Traits> {
        let links = self.links();
        let told = |l: &Arc<Shared>| l.link(|link| link.facts().map(|f| f.traits()));
        let up = links.iter().filter(|l| l.is_up()).filter_map(told);
        let any = up.reduce(|one, other| Traits {
            profile_choice: one.profile_choice || other.profile_choice,
            secure_config: one.secure_config || other.secure_config,
            trust_announce: one.trust_announce || other.trust_announce,
            sync_sessions: one.sync_sessions || other.sync_sessions,
            ..one
        });
        any.or_else(|| self.inbound().traits())
            .or_else(|| links.iter().find_map(told))
    }

    /// What a call goes over that was sent to `tried` before.
    pub(super) fn pick(&self, tried: &Tried, needs: Needs) -> Pick {
        let links = self.links.load();
        let mut ways: Vec<(&Arc<Shared>, Live)> = Vec::with_capacity(links.len());
        let mut lacking = None;
        for link in links.iter() {
            let Some(live) = link.live().filter(|live| !tried.has(link, live)) else {
                continue;
            };
            if needs.are_met(&live) {
                ways.push((link, live));
            } else {
                lacking = Some(live);
            }
        }
        let candidates: Vec<_> = ways
            .iter()
            .map(|(link, live)| link.candidate(live, tried.has_node(live.facts.identity())))
            .collect();
        let chosen =
            choose(&candidates, self.common.chance.u32()).and_then(|place| ways.get(place));
        match (chosen, lacking) {
            (Some((link, live)), _) => Pick::Way(Way {
                link: Arc::clone(link),
                live: live.clone(),
            }),
            (None, Some(live)) => Pick::Lacking(live),
            (None, None) => Pick::Nothing,
        }
    }

    /// A way for a call. When there is none, all links are woken at once, and the outcome of attempts that begin now is
    /// waited for, at most until `deadline`.
    pub(super) async fn way(
        &self,
        deadline: Instant,
        tried: &Tried,
        needs: Needs,
    ) -> Result<Way, NoWay> {
        match self.pick(tried, needs) {
            Pick::Way(way) => return Ok(way),
            Pick::Lacking(live) => return Err(NoWay::Lacking(Box::new(live))),
            Pick::Nothing => {}
        }
        let mut ticks = self.common.ticks();
        let marks: Vec<(u64, u64)> = self
            .links()
            .iter()
            .map(|l| (l.number, l.link(|link| link.attempts_begun())))
            .collect();
        self.dial_now();
        loop {
            ticks.mark_unchanged();
            match self.pick(tried, needs) {
                Pick::Way(way) => return Ok(way),
                Pick::Lacking(live) => return Err(NoWay::Lacking(Box::new(live))),
                Pick::Nothing => {}
            }
            if let Some(failure) = self.hopeless(&marks, tried) {
                return Err(NoWay::Refused(refusal(&failure)));
            }
            if !matches!(
                timeout_at(deadline.into(), ticks.changed()).await,
                Ok(Ok(()))
            ) {
                return Err(NoWay::Refused(self.silent()));
            }
        }
    }

    /// Why no link will come up by the attempts that began after `marks`; none while one may.
    fn hopeless(&self, marks: &[(u64, u64)], tried: &Tried) -> Option<Failure> {
        if let Some(closed) = &self.closed {
            return Some(closed.clone());
        }
        let mut failures = Vec::new();
        for link in self.links().iter() {
            let of_link = marks.iter().find(|(number, _)| *number == link.number);
            let mark = of_link.map_or(0, |(_, mark)| *mark);
            let live = link.live();
            let was_tried = live.is_some_and(|live| tried.has(link, &live));
            let failure = link.link(|l| match l.standing(mark) {
                Standing::Failed(failure) => Some(failure.clone()),
                // It is up, and was of no use to this call.
                Standing::Up if was_tried => Some(Failure::new(
                    FailureKind::Refused,
                    format!("{}: the call failed", link.address),
                )),
                Standing::Up | Standing::Waiting => None,
            });
            failures.push(failure?);
        }
        Some(all_failures(self.cluster(), &failures))
    }

    /// Why it is not up; none while it is, or when nothing is known.
    pub(super) fn failure(&self) -> Option<Failure> {
        if let Some(closed) = &self.closed {
            return Some(closed.clone());
        }
        if self.is_up() {
            return None;
        }
        let links = self.links();
        let failures: Vec<_> = links
            .iter()
            .filter_map(|l| l.link(|link| link.failure().cloned()))
            .collect();
        let none_known = failures.is_empty() && !links.is_empty();
        (!none_known).then(|| all_failures(self.cluster(), &failures))
    }

    fn silent(&self) -> Refusal {
        let cluster = self.cluster();
        let cause = match self.failure() {
            Some(failure) => format!(
                "{cluster} did not answer in time; its link has been {}: {}",
                self.state().as_str(),
                failure.text
            ),
            None => format!("{cluster} did not answer in time"),
        };
        Refusal::new(EmCode::NoResponseFromRemoteHost, cause)
    }

    /// What our own links have to say to that node of the peer: whether it can be reached. Where none has led to it yet,
    /// whether any can; and which addresses can't, since one of them may be its own.
    pub(super) fn outbound_view(&self, node: &str) -> OutboundView {
        let now = now();
        let links = self.links();
        let leads_there = |l: &Arc<Shared>| {
            !node.is_empty() && l.link(|link| link.facts().is_some_and(|facts| facts.node == node))
        };
        let there: Vec<_> = links.iter().filter(|l| leads_there(l)).cloned().collect();
        let is_known = !there.is_empty();
        let asked = if is_known { there } else { links.to_vec() };
        let proof_age = asked
            .iter()
            .filter_map(|l| l.link(|link| link.proof_age(now)))
            .min();
        let down_reason = match (proof_age, is_known) {
            (Some(_), true) => String::new(),
            (Some(_), false) => match node.is_empty() {
                true => String::new(),
                false => unreached(&links),
            },
            (None, _) => self.why_down(&asked),
        };
        OutboundView {
            proof_age,
            down_reason: bounded(&down_reason),
        }
    }

    /// Why none of these is up, as the peer may know. Of addresses that it told us it hears nothing: it could have us try
    /// whom it likes, and tell it how that went.
    fn why_down(&self, links: &[Arc<Shared>]) -> String {
        if let Some(closed) = &self.closed {
            return closed.text.clone();
        }
        let given = links.iter().filter(|l| !l.is_learned());
        let failures: Vec<_> = given
            .filter_map(|l| l.link(|link| link.failure().cloned()))
            .collect();
        if failures.is_empty() && !links.is_empty() {
            let states = links.iter().map(|l| l.link(|link| link.state()));
            return best_state(states)
                .unwrap_or(LinkState::Down)
                .as_str()
                .to_owned();
        }
        all_failures(self.cluster(), &failures).text
    }

    pub(super) fn status(&self, enabled: bool) -> LinkStatus {
        let now = now();
        let links = self.links();
        let seen: Vec<_> = links.iter().map(|l| (l, l.view())).collect();
        let nodes = seen
            .iter()
            .map(|(l, (link, _))| {
                let conduct = l.conduct();
                NodeStatus {
                    learned: l.is_learned(),
                    overdue_for: conduct.overdue_for(now),
                    failing: conduct.failing(now),
                    accepted: l.accepts(),
                    ..NodeStatus::of(&l.address, link, l.is_draining(), now)
                }
            })
            .collect();
        let told = seen.iter().filter_map(|(_, (_, told))| told.as_ref());
        let inbound = self.inbound().view(told, now);
        LinkStatus::of(self.cluster(), enabled, nodes, self.failure(), inbound)
    }

    /// How often any of the links has come up.
    pub(super) fn times_up(&self) -> u64 {
        let times: &AtomicU64 = &self.common.times_up;
        times.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("cluster", self.cluster())
            .finish_non_exhaustive()
    }
}

/// Why there is no way for a call.
pub(super) enum NoWay {
    /// This node comes nearest to what it needs.
    Lacking(Box<Live>),
    /// As the caller is told.
    Refused(Refusal),
}

/// Which of the operator's addresses have never led to any node, and why; empty when there are none.
fn unreached(links: &[Arc<Shared>]) -> String {
    let given: Vec<_> = links.iter().filter(|l| !l.is_learned()).collect();
    let why: Vec<_> = given
        .iter()
        .filter_map(|l| {
            l.link(|link| {
                let failure = link.failure().filter(|_| link.facts().is_none())?;
                Some(failure.text.clone())
            })
        })
        .collect();
    if why.is_empty() {
        return String::new();
    }
    format!(
        "{} of your {} addresses can't be reached: {}",
        why.len(),
        given.len(),
        why.join("; ")
    )
}

fn refusal(failure: &Failure) -> Refusal {
    let code = match failure.kind {
        FailureKind::Incompatible => EmCode::ErrorOnParsing,
        FailureKind::Unconfigured => EmCode::VisitingClusterUnknown,
        FailureKind::Refused => EmCode::ServiceConnectionError,
        FailureKind::Silent => EmCode::NoResponseFromRemoteHost,
    };
    Refusal::new(code, failure.text.clone())
}
