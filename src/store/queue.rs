//! A bounded queue between tasks and the threads of an engine.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Why an item was not taken; it comes back.
pub(super) enum Refused<T> {
    Closed(T),
    Full(T),
}

/// What waiting for an item gave.
pub(super) enum Popped<T> {
    /// The queue was closed and is empty.
    Closed,
    /// Nothing came in time.
    Idle,
    Item(T),
}

/// Items in order, at most `capacity` of them.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                closed: false,
            }),
            arrived: Condvar::new(),
            capacity,
        }
    }

    /// Takes an item if there is room. Never waits for room.
    pub(super) fn push(&self, item: T) -> Result<(), Refused<T>> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed(item));
        }
        if state.items.len() >= self.capacity {
            return Err(Refused::Full(item));
        }
        state.items.push_back(item);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for an item, at most `patience`.
    pub(super) fn pop(&self, patience: Duration) -> Popped<T> {
        let (mut state, _) = self
            .arrived
            .wait_timeout_while(self.lock(), patience, |state| {
                state.items.is_empty() && !state.closed
            })
            .unwrap_or_else(PoisonError::into_inner);
        match state.items.pop_front() {
            Some(item) => Popped::Item(item),
            None if state.closed => Popped::Closed,
            None => Popped::Idle,
        }
    }

    /// How many items wait.
    pub(super) fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// An item that is already there.
    pub(super) fn try_pop(&self) -> Option<T> {
        self.lock().items.pop_front()
    }

    /// Whether it takes no more items.
    #[cfg(test)]
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Takes no more items; those that wait are still given out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    // No code that can panic runs under the lock, so a poisoned state is a good one.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_gives_the_item_back() {
        let queue = Queue::new(1);
        assert!(queue.push(1).is_ok());
        assert!(matches!(queue.push(2), Err(Refused::Full(2))));
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_gives_out_what_it_has() {
        let queue = Queue::new(4);
        assert!(queue.push(1).is_ok());
        queue.close();
        assert!(matches!(queue.push(2), Err(Refused::Closed(2))));
        assert!(matches!(queue.pop(Duration::ZERO), Popped::Item(1)));
        assert!(matches!(queue.pop(Duration::ZERO), Popped::Closed));
    }

    #[test]
    fn waiting_ends_without_an_item() {
        let queue = Queue::<u8>::new(1);
        assert!(matches!(queue.pop(Duration::ZERO), Popped::Idle));
    }
}
