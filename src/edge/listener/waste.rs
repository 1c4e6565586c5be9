//! What a peer makes us do for nothing: calls that end without their answer having been taken.
//!
//! A call is wasted when it is never finished, taken back early, refused since too many are begun and not finished, or
//! when its answer is not read. What is late for our own slowness is not: a whole request that a role has had for most
//! of its time, or for a second. Honest peers waste a few: a node of theirs that dies. Each peer may waste some at once
//! and some a second; a whole call gives one back. Whoever has nothing left loses the connection that wasted the last,
//! and its new ones are served one at a time, when it has a connection's worth again.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};
use tracing::warn;

use crate::{clock, domain::ids::ClusterId};

/// How much a peer may waste.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// At once.
    pub(super) burst: u32,
    /// More in a second.
    pub(super) per_second: u32,
    /// What there must be before a connection is served that was opened while there was nothing.
    pub(super) resume: u32,
}

/// What is left of one peer's allowance. Pure: the time is told.
#[derive(Clone, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
    /// Nothing was left, and there is not enough again.
    is_out: bool,
    /// Our operator knows; until all is there again.
    is_told: bool,
    /// Of whom waits for enough.
    turn: Arc<Semaphore>,
}

/// What became of the allowance with one more wasted call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Enough,
    /// Nothing was left for this one, the first time since all was there.
    JustOut,
    Out,
}

impl Bucket {
    fn full(allowance: Allowance, now: Instant) -> Self {
        Self {
            left: f64::from(allowance.burst),
            at: now,
            is_out: false,
            is_told: false,
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    fn refill(&mut self, allowance: Allowance, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.give(allowance, passed * f64::from(allowance.per_second));
    }

    fn give(&mut self, allowance: Allowance, more: f64) {
        self.left = (self.left + more).min(f64::from(allowance.burst));
        if self.left >= f64::from(allowance.resume) {
            self.is_out = false;
        }
        if self.left >= f64::from(allowance.burst) {
            self.is_told = false;
        }
    }

    fn waste(&mut self, allowance: Allowance, now: Instant) -> Left {
        self.refill(allowance, now);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return if self.is_out { Left::Out } else { Left::Enough };
        }
        self.left = 0.0;
        self.is_out = true;
        if std::mem::replace(&mut self.is_told, true) {
            Left::Out
        } else {
            Left::JustOut
        }
    }

    /// How long until it may go on; nothing when it may.
    fn wait(&mut self, allowance: Allowance, now: Instant) -> Option<Duration> {
        self.refill(allowance, now);
        if !self.is_out {
            return None;
        }
        let lacking = (f64::from(allowance.resume) - self.left).max(0.0);
        let seconds = lacking / f64::from(allowance.per_second.max(1));
        // Never nothing: it is asked again after it.
        Some(Duration::from_secs_f64(seconds).max(Duration::from_millis(1)))
    }
}

/// The allowances of all peers. Peers are those that somebody trusts: they are few. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Allowances {
    each: Allowance,
    buckets: Arc<Mutex<BTreeMap<ClusterId, Bucket>>>,
}

impl Allowances {
    pub(super) fn new(each: Allowance) -> Self {
        Self {
            each,
            buckets: Arc::default(),
        }
    }

    /// When a connection of this peer may be served; nothing when it may be now.
    pub(super) fn wait(&self, peer: &ClusterId) -> Option<Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.get_mut(peer)?;
        bucket.wait(self.each, clock::instant())
    }

    /// Waits until a connection of this peer may be served, and for others that came before it.
    pub(super) async fn turn(&self, peer: &ClusterId) -> Option<OwnedSemaphorePermit> {
        let turn = self.queue(peer)?;
        if self.wait(peer).is_none() && turn.available_permits() > 0 {
            return None;
        }
        let turn = turn.acquire_owned().await.ok();
        while let Some(wait) = self.wait(peer) {
            tokio::time::sleep(wait).await;
        }
        turn
    }

    fn queue(&self, peer: &ClusterId) -> Option<Arc<Semaphore>> {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.get(peer).map(|bucket| Arc::clone(&bucket.turn))
    }

    fn waste(&self, peer: &ClusterId) -> Left {
        let now = clock::instant();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(peer.clone());
        let bucket = bucket.or_insert_with(|| Bucket::full(self.each, now));
        bucket.waste(self.each, now)
    }

    fn give_back(&self, peer: &ClusterId) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(peer) {
            bucket.give(self.each, 1.0);
        }
    }
}

/// The calls of one connection of a peer. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Account {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    peer: ClusterId,
    allowances: Allowances,
    /// The peer has nothing left, and this connection has wasted the last.
    is_over: CancellationToken,
    /// Answers that wait for the peer to take them, by a number of ours, and since when.
    untaken: Mutex<BTreeMap<usize, Instant>>,
    next: AtomicUsize,
    /// Answers that went out.
    taken: Mutex<Recent>,
}

/// For how many seconds an answer that went out may lie unread at the other end, for all that we know. A caller that
/// is gone without a word is noticed within 8 s.
const OF_LATE: usize = 9;

/// How many answers went out of late, by the second. Pure: the time is told.
#[derive(Debug)]
struct Recent {
    since: Instant,
    /// Of each second, counted from `since`, how many.
    seconds: [(u64, u32); OF_LATE],
}

impl Recent {
    const fn new(since: Instant) -> Self {
        Self {
            since,
            seconds: [(0, 0); OF_LATE],
        }
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.since).as_secs()
    }

    fn add(&mut self, now: Instant) {
        let second = self.second(now);
        // Each second has the place of the one that is no longer of late.
        let place = usize::try_from(second % OF_LATE as u64).unwrap_or_default();
        let Some(slot) = self.seconds.get_mut(place) else {
            return;
        };
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 = slot.1.saturating_add(1);
    }

    fn count(&self, now: Instant) -> u32 {
        let now = self.second(now);
        let of_late = self.seconds.iter();
        let of_late = of_late.filter(|(second, _)| now.saturating_sub(*second) < OF_LATE as u64);
        of_late.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

impl Account {
    pub(super) fn new(peer: ClusterId, allowances: Allowances) -> Self {
        Self {
            inner: Arc::new(Inner {
                peer,
                allowances,
                is_over: CancellationToken::new(),
                untaken: Mutex::default(),
                next: AtomicUsize::default(),
                taken: Mutex::new(Recent::new(clock::instant())),
            }),
        }
    }

    /// Completes when the connection has to end.
    pub(super) async fn over(&self) {
        self.inner.is_over.cancelled().await;
    }

    /// The peer is told when it may call again, where it can be told.
    pub(super) fn retry(&self) -> Option<Duration> {
        let inner = &self.inner;
        inner.allowances.wait(&inner.peer)
    }

    /// Whether an answer waits for longer than this to be taken.
    pub(super) fn is_stalled(&self, longest: Duration) -> bool {
        let untaken = self.untaken();
        untaken.values().any(|since| clock::since(*since) > longest)
    }

    /// The connection was cut and not closed: whether its last answers were read nobody knows, so those that went out
    /// of late are taken for wasted, up to as many as it may have had under way.
    pub(super) fn cut(&self, most: u32) {
        self.cut_at(most, clock::instant());
    }

    fn cut_at(&self, most: u32, now: Instant) {
        let of_late = self.sent().count(now);
        for _ in 0..of_late.min(most) {
            self.wasted();
        }
    }

    /// A call that has come in: wasted unless its answer is taken.
    pub(super) fn call(&self) -> Call {
        Call {
            account: self.clone(),
            number: self.inner.next.fetch_add(1, Ordering::Relaxed),
            is_done: false,
            asked: None,
        }
    }

    fn wasted(&self) {
        let Inner { peer, .. } = self.inner.as_ref();
        let left = self.inner.allowances.waste(peer);
        if left == Left::Enough {
            return;
        }
        if left == Left::JustOut {
            let Allowance {
                burst, per_second, ..
            } = self.inner.allowances.each;
            warn!(
                peer.cluster_id = peer.as_str(),
                "{peer} has begun more calls whose answers it does not take than the {burst} at once and {per_second} a \
                 second that a peer may: its connections that go on with it are closed, and new ones wait"
            );
        }
        self.inner.is_over.cancel();
    }

    fn untaken(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Instant>> {
        let untaken = self.inner.untaken.lock();
        untaken.unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self) -> std::sync::MutexGuard<'_, Recent> {
        let taken = self.inner.taken.lock();
        taken.unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call, until its answer is taken. Dropped before, it was for nothing.
#[derive(Debug)]
pub(super) struct Call {
    account: Account,
    number: usize,
    is_done: bool,
    /// What a role has of it, until it answers.
    asked: Option<Asked>,
}

/// A request that a role has.
#[derive(Debug)]
struct Asked {
    since: Instant,
    /// From when on it is we who are slow.
    enough: Duration,
    /// Whether all of it has come.
    is_whole: Arc<AtomicBool>,
}

/// Whoever has waited for as long has not asked for nothing: roles answer in milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// Whoever gives less time than this does not mean to wait for an answer.
const HASTE: Duration = Duration::from_millis(40);

impl Asked {
    /// Late for our own slowness: nothing that the peer could help.
    fn is_ours(&self, now: Instant) -> bool {
        self.is_whole.load(Ordering::Acquire)
            && now.saturating_duration_since(self.since) >= self.enough
    }
}

impl Call {
    /// A role gets it, and has this much time for it; what is told is set when all of the request has come.
    ///
    /// The peer's clock for the same deadline may be a little ahead of ours, so three quarters of the time will do.
    pub(super) fn asked(&mut self, limit: Duration) -> Arc<AtomicBool> {
        let is_whole = Arc::<AtomicBool>::default();
        self.asked = Some(Asked {
            since: clock::instant(),
            enough: (limit * 3 / 4).clamp(HASTE, PATIENCE),
            is_whole: Arc::clone(&is_whole),
        });
        is_whole
    }

    /// The answer's body, which tells how far the peer has taken it.
    pub(super) fn answered(mut self, body: Body) -> Body {
        self.asked = None;
        if body.is_end_stream() {
            // All is in the head, which no window holds back: neither wasted nor worth anything.
            self.is_done = true;
            self.account.sent().add(clock::instant());
            return body;
        }
        self.peers_turn();
        Body::new(Answer { call: self, body })
    }

    /// The call was for nothing although it has an answer.
    pub(super) fn wasted(self) {
        drop(self);
    }

    fn peers_turn(&self) {
        self.account.untaken().insert(self.number, clock::instant());
    }

    fn our_turn(&self) {
        self.account.untaken().remove(&self.number);
    }

    fn taken(&mut self) {
        if !std::mem::replace(&mut self.is_done, true) {
            let inner = &self.account.inner;
            self.account.sent().add(clock::instant());
            inner.allowances.give_back(&inner.peer);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.our_turn();
        let asked = self.asked.as_ref();
        let is_ours = asked.is_some_and(|asked| asked.is_ours(clock::instant()));
        if !self.is_done && !is_ours {
            self.account.wasted();
        }
    }
}

/// The body of an answer. It is asked for more only when the peer has room for more.
struct Answer {
    call: Call,
    body: Body,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            // A stream without news: nothing that the peer could take. It has taken all that there was.
            Poll::Pending => {
                self.call.our_turn();
                self.call.taken();
            }
            Poll::Ready(Some(Ok(frame))) if !frame.is_trailers() && !self.body.is_end_stream() => {
                self.call.peers_turn();
            }
            Poll::Ready(_) => {
                self.call.our_turn();
                self.call.taken();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
