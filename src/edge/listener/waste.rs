//! What a peer makes us do for nothing: calls that end without their answer having been taken.
//!
//! A call is wasted when it is taken back, refused since too many are begun, not finished in its time, or when its
//! answer is not read. Honest peers waste a few: a deadline, a node of theirs that dies. Each peer may waste some at
//! once and some a second; a whole call gives one back. Whoever has nothing left loses the connection that wasted the
//! last, and its new ones are served one at a time, when it has a connection's worth again.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
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

use crate::domain::ids::ClusterId;

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
        bucket.wait(self.each, Instant::now())
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
        let now = Instant::now();
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
    taken: AtomicUsize,
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
                taken: AtomicUsize::default(),
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
        untaken.values().any(|since| since.elapsed() > longest)
    }

    /// The connection was cut and not closed: how many of its last answers were read nobody knows, so as many are
    /// taken for wasted as it may have had under way.
    pub(super) fn cut(&self, most: u32) {
        let taken = self.inner.taken.load(Ordering::Relaxed);
        for _ in 0..taken.min(usize::try_from(most).unwrap_or(usize::MAX)) {
            self.wasted();
        }
    }

    /// A call that has come in: wasted unless its answer is taken.
    pub(super) fn call(&self) -> Call {
        Call {
            account: self.clone(),
            number: self.inner.next.fetch_add(1, Ordering::Relaxed),
            is_done: false,
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
}

/// One call, until its answer is taken. Dropped before, it was for nothing.
#[derive(Debug)]
pub(super) struct Call {
    account: Account,
    number: usize,
    is_done: bool,
}

impl Call {
    /// The answer's body, which tells how far the peer has taken it.
    pub(super) fn answered(mut self, body: Body) -> Body {
        if body.is_end_stream() {
            // All is in the head, which no window holds back: neither wasted nor worth anything.
            self.is_done = true;
            self.account.inner.taken.fetch_add(1, Ordering::Relaxed);
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
        self.account.untaken().insert(self.number, Instant::now());
    }

    fn our_turn(&self) {
        self.account.untaken().remove(&self.number);
    }

    fn taken(&mut self) {
        if !std::mem::replace(&mut self.is_done, true) {
            let inner = &self.account.inner;
            inner.taken.fetch_add(1, Ordering::Relaxed);
            inner.allowances.give_back(&inner.peer);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.our_turn();
        if !self.is_done {
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
mod tests {
    use super::*;

    const EACH: Allowance = Allowance {
        burst: 10,
        per_second: 2,
        resume: 4,
    };

    #[test]
    fn who_wastes_more_than_it_may_is_out_until_it_has_enough_again() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut bucket = Bucket::full(EACH, start);
        for number in 0..10 {
            assert_eq!(bucket.waste(EACH, start), Left::Enough, "{number}");
        }
        assert_eq!(
            bucket.wait(EACH, start),
            None,
            "nothing left, but not beyond"
        );
        assert_eq!(bucket.waste(EACH, start), Left::JustOut);
        assert_eq!(bucket.waste(EACH, start), Left::Out);
        assert_eq!(bucket.wait(EACH, start), Some(Duration::from_secs(2)));
        // What comes back before there is enough is no new beginning.
        assert_eq!(bucket.waste(EACH, after(1)), Left::Out);
        assert!(bucket.wait(EACH, after(1)).is_some());
        assert_eq!(bucket.wait(EACH, after(3)), None);
        assert!(bucket.is_told, "the same episode");
        // A new episode, and never more than the burst.
        for _ in 0..10 {
            assert_eq!(bucket.waste(EACH, after(1_000)), Left::Enough);
        }
        assert_eq!(bucket.waste(EACH, after(1_000)), Left::JustOut);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let start = Instant::now() + Duration::from_secs(60);
        let mut bucket = Bucket::full(EACH, start);
        for _ in 0..10 {
            bucket.waste(EACH, start);
        }
        let before = start.checked_sub(Duration::from_secs(30)).unwrap();
        assert_eq!(bucket.waste(EACH, before), Left::JustOut);
        assert_eq!(bucket.waste(EACH, start), Left::Out);
    }

    fn berlin() -> Account {
        Account::new(ClusterId::new("berlin").unwrap(), Allowances::new(EACH))
    }

    fn left(account: &Account) -> f64 {
        let buckets = account.inner.allowances.buckets.lock().unwrap();
        buckets
            .values()
            .next()
            .map_or(f64::NAN, |bucket| bucket.left)
    }

    fn answer() -> Body {
        Body::new(http_body_util::Full::new(Bytes::from_static(b"x")))
    }

    async fn read(body: Body) {
        http_body_util::BodyExt::collect(body).await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_that_is_taken_gives_one_back() {
        let account = berlin();
        drop(account.call());
        drop(account.call());
        assert!(left(&account) < 9.0);
        read(account.call().answered(answer())).await;
        assert!(left(&account) >= 9.0);
        assert!(account.untaken().is_empty());
    }

    #[tokio::test]
    async fn calls_without_end_that_are_given_up_end_the_connection_and_no_other_peers() {
        let account = berlin();
        let paris = Account::new(
            ClusterId::new("paris").unwrap(),
            account.inner.allowances.clone(),
        );
        for _ in 0..12 {
            // Unread, refused, taken back: all the same.
            drop(account.call().answered(answer()));
        }
        let out = account.clone();
        out.over().await;
        assert!(account.inner.is_over.is_cancelled());
        assert!(account.retry().is_some());
        paris.call().wasted();
        assert!(!paris.inner.is_over.is_cancelled());
        assert_eq!(paris.retry(), None);
    }

    #[tokio::test]
    async fn what_was_answered_before_a_cut_is_taken_for_wasted_up_to_what_may_be_under_way() {
        let account = berlin();
        for _ in 0..5 {
            let head_only = Body::empty();
            read(account.call().answered(head_only)).await;
        }
        assert!(left(&account).is_nan(), "nothing was wasted");
        account.cut(3);
        assert!((7.0..8.0).contains(&left(&account)));
    }

    #[tokio::test]
    async fn who_has_nothing_left_waits_for_its_turn() {
        let account = berlin();
        let peer = account.inner.peer.clone();
        let allowances = account.inner.allowances.clone();
        assert!(allowances.turn(&peer).await.is_none(), "nobody waits");
        for _ in 0..11 {
            drop(account.call());
        }
        let (first, second) = (allowances.turn(&peer), allowances.turn(&peer));
        let both = tokio::time::timeout(Duration::from_millis(50), async {
            tokio::join!(first, second);
        });
        assert!(both.await.is_err());
        for _ in 0..4 {
            allowances.give_back(&peer);
        }
        assert!(allowances.turn(&peer).await.is_none());
    }

    #[test]
    fn an_answer_that_nobody_takes_is_seen() {
        let account = berlin();
        let body = account.call().answered(answer());
        assert!(account.is_stalled(Duration::ZERO));
        assert!(!account.is_stalled(Duration::from_secs(60)));
        drop(body);
        assert!(!account.is_stalled(Duration::ZERO));
    }

    #[tokio::test]
    async fn a_stream_without_news_is_not_stalled_and_no_waste() {
        let account = berlin();
        let silent = http_body_util::StreamBody::new(futures_util::stream::pending::<
            Result<Frame<Bytes>, Status>,
        >());
        let mut body = account.call().answered(Body::new(silent));
        assert!(account.is_stalled(Duration::ZERO));
        std::future::poll_fn(|context| {
            assert!(Pin::new(&mut body).poll_frame(context).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(!account.is_stalled(Duration::ZERO));
        drop(body);
        assert!(left(&account).is_nan(), "nothing was wasted");
    }
}
