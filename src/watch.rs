//! One value and everybody who waits for it to change.
//!
//! What tokio's channel of this name does, with one difference: who waits is woken in the order in which they began to
//! wait. Tokio's picks the order by chance, from a generator that can't be handed in, so that no run of a node could
//! ever be repeated.

use std::{
    fmt,
    ops::Deref,
    pin::pin,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

/// Makes a value, and one who waits.
pub fn channel<T>(first: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(first);
    let receiver = sender.subscribe();
    (sender, receiver)
}

/// Changes the value. Clones change the same one.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// Sees the value, and when it changes. Clones have seen what it has.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// The value, which does not change for as long as this is held: never over an await.
pub struct Ref<'a, T>(RwLockReadGuard<'a, T>);

/// Nobody is left who could change the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody is left who could change it")]
pub struct Closed;

/// Nobody is left who would see the value, which is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody is left who would see it")]
pub struct Unseen<T>(pub T);

struct Shared<T> {
    value: RwLock<T>,
    /// Grows by one with each change, while `value` is locked.
    version: AtomicU64,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    /// The value has changed, or the last sender has gone.
    changed: Notify,
    /// The last receiver has gone.
    left: Notify,
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn is_closed(&self) -> bool {
        self.senders.load(Ordering::Acquire) == 0
    }

    async fn changed_since(&self, seen: &mut u64) -> Result<(), Closed> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let now = self.version();
            if *seen != now {
                *seen = now;
                return Ok(());
            }
            if self.is_closed() {
                return Err(Closed);
            }
            changed.await;
        }
    }
}

impl<T> Sender<T> {
    /// A value that nobody sees yet.
    #[must_use]
    pub fn new(first: T) -> Self {
        Self {
            shared: Arc::new(Shared {
                value: RwLock::new(first),
                version: AtomicU64::new(0),
                senders: AtomicUsize::new(1),
                receivers: AtomicUsize::new(0),
                changed: Notify::new(),
                left: Notify::new(),
            }),
        }
    }

    /// Sets the value, if anybody sees it.
    ///
    /// # Errors
    /// [`Unseen`], with the value, when nobody does; then it is not set.
    pub fn send(&self, value: T) -> Result<(), Unseen<T>> {
        if self.receiver_count() == 0 {
            return Err(Unseen(value));
        }
        self.send_replace(value);
        Ok(())
    }

    /// Sets the value, and gives the one before.
    pub fn send_replace(&self, mut value: T) -> T {
        self.send_modify(|old| std::mem::swap(old, &mut value));
        value
    }

    /// Changes the value.
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// Changes the value; who waits is told when `modify` says that it did.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let mut value = self
            .shared
            .value
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let is_news = modify(&mut value);
        if is_news {
            self.shared.version.fetch_add(1, Ordering::Release);
        }
        drop(value);
        if is_news {
            self.shared.changed.notify_waiters();
        }
        is_news
    }

    /// The value as it is.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.read())
    }

    /// One more who waits; it has seen the value as it is.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        self.shared.receivers.fetch_add(1, Ordering::AcqRel);
        Receiver {
            shared: Arc::clone(&self.shared),
            seen: self.shared.version(),
        }
    }

    /// How many see the value.
    #[must_use]
    pub fn receiver_count(&self) -> usize {
        self.shared.receivers.load(Ordering::Acquire)
    }

    /// Whether nobody sees the value.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.receiver_count() == 0
    }

    /// Completes when nobody sees the value any more. Cancel safe.
    pub async fn closed(&self) {
        loop {
            let mut left = pin!(self.shared.left.notified());
            left.as_mut().enable();
            if self.is_closed() {
                return;
            }
            left.await;
        }
    }
}

impl<T> Receiver<T> {
    /// The value as it is. It still counts as unseen.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.read())
    }

    /// The value as it is, which counts as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.read();
        // No change falls between the two: the value is locked.
        self.seen = self.shared.version();
        Ref(value)
    }

    /// Whether it has changed since it was seen.
    ///
    /// # Errors
    /// [`Closed`] when nobody is left who could change it.
    pub fn has_changed(&self) -> Result<bool, Closed> {
        match self.shared.is_closed() {
            true => Err(Closed),
            false => Ok(self.seen != self.shared.version()),
        }
    }

    /// The value as it is counts as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.version();
    }

    /// The value as it is counts as not seen.
    pub fn mark_changed(&mut self) {
        self.seen = self.shared.version().wrapping_sub(1);
    }

    /// Completes when the value is another than the one that was seen, which then counts as seen. Cancel safe.
    ///
    /// # Errors
    /// [`Closed`] when nobody is left who could change it, and it has been seen.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        self.shared.changed_since(&mut self.seen).await
    }

    /// Completes when the value is as `wanted`, which counts as seen. Cancel safe.
    ///
    /// # Errors
    /// [`Closed`] when nobody is left who could make it so.
    pub async fn wait_for(
        &mut self,
        mut wanted: impl FnMut(&T) -> bool,
    ) -> Result<Ref<'_, T>, Closed> {
        let (shared, seen) = (&*self.shared, &mut self.seen);
        loop {
            let was_closed = shared.is_closed();
            {
                let value = shared.read();
                *seen = shared.version();
                if wanted(&value) {
                    return Ok(Ref(value));
                }
            }
            if was_closed {
                return Err(Closed);
            }
            // The end of the last sender shows at the top.
            let _ = shared.changed_since(seen).await;
        }
    }
}

impl<T: Default> Default for Sender<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.fetch_add(1, Ordering::AcqRel);
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, Ordering::AcqRel);
        Self {
            shared: Arc::clone(&self.shared),
            seen: self.seen,
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.changed.notify_waiters();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if self.shared.receivers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.left.notify_waiters();
        }
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&*self.borrow()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&*self.borrow()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Mutex, MutexGuard},
        time::Duration,
    };

    use futures_util::FutureExt as _;
    use tokio::task::{JoinSet, yield_now};

    use super::*;

    #[tokio::test]
    async fn a_change_is_seen_once() {
        let (sender, mut receiver) = channel(1);
        assert_eq!(receiver.has_changed(), Ok(false));
        assert!(receiver.changed().now_or_never().is_none());
        sender.send_replace(2);
        assert_eq!(receiver.has_changed(), Ok(true));
        assert_eq!(*receiver.borrow(), 2);
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert!(receiver.changed().now_or_never().is_none());
        assert!(!sender.send_if_modified(|_| false));
        assert!(receiver.changed().now_or_never().is_none());
        sender.send_modify(|value| *value += 1);
        assert_eq!(*receiver.borrow_and_update(), 3);
        assert!(receiver.changed().now_or_never().is_none());
        receiver.mark_changed();
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        sender.send_replace(4);
        receiver.mark_unchanged();
        assert!(receiver.changed().now_or_never().is_none());
    }

    #[tokio::test]
    async fn the_last_value_is_seen_before_the_end() {
        let (sender, mut receiver) = channel(1);
        let other = sender.clone();
        drop(sender);
        other.send_replace(2);
        drop(other);
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(receiver.changed().await, Err(Closed));
        assert_eq!(receiver.has_changed(), Err(Closed));
        assert_eq!(
            receiver.wait_for(|value| *value == 2).await.as_deref(),
            Ok(&2)
        );
        assert!(receiver.wait_for(|value| *value == 3).await.is_err());
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_a_change_and_by_the_end() {
        let (sender, receiver) = channel(0);
        let mut waiting = JoinSet::new();
        let mut one = receiver.clone();
        waiting.spawn(async move { one.wait_for(|value| *value == 2).await.map(|value| *value) });
        let mut one = receiver.clone();
        waiting.spawn(async move { one.wait_for(|value| *value == 9).await.map(|value| *value) });
        yield_now().await;
        sender.send_replace(1);
        yield_now().await;
        sender.send_replace(2);
        drop(sender);
        let mut told = waiting.join_all().await;
        told.sort_by_key(Result::is_err);
        assert_eq!(told, [Ok(2), Err(Closed)]);
    }

    #[tokio::test]
    async fn nobody_is_left_to_see_it() {
        let (sender, receiver) = channel(0);
        let other = receiver.clone();
        drop(receiver);
        assert!(sender.closed().now_or_never().is_none());
        assert_eq!(sender.send(1), Ok(()));
        let gone = tokio::time::timeout(Duration::from_secs(10), async {
            let (_, ()) = tokio::join!(sender.closed(), async { drop(other) });
        });
        gone.await.unwrap();
        assert!(sender.is_closed());
        assert_eq!(sender.send(2), Err(Unseen(2)));
        assert_eq!(*sender.borrow(), 1);
    }

    /// Many who wait for one change: the order in which they are woken is the one in which they began, each time.
    #[tokio::test]
    async fn who_waited_first_is_woken_first() {
        let (sender, receiver) = channel(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        fn held(woken: &Mutex<Vec<usize>>) -> MutexGuard<'_, Vec<usize>> {
            woken.lock().unwrap()
        }
        let mut waiting = JoinSet::new();
        let begun = Arc::new(AtomicUsize::new(0));
        for number in 0..64 {
            let (mut one, woken) = (receiver.clone(), Arc::clone(&woken));
            let begun = Arc::clone(&begun);
            waiting.spawn(async move {
                // The same step goes on to where it waits.
                begun.fetch_add(1, Ordering::Relaxed);
                while one.changed().await.is_ok() {
                    held(&woken).push(number);
                }
            });
        }
        // The runtime looks elsewhere now and then, so that one turn does not begin them all.
        while begun.load(Ordering::Relaxed) < 64 {
            yield_now().await;
        }
        for _ in 0..8 {
            sender.send_modify(|value| *value += 1);
            while held(&woken).len() < 64 {
                yield_now().await;
            }
            assert_eq!(*held(&woken), (0..64).collect::<Vec<_>>());
            held(&woken).clear();
        }
        drop(sender);
        waiting.join_all().await;
    }
}
