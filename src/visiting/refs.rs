//! Refs without a write for each: a block of the cluster's numbers is always at hand, and the next one is fetched
//! before it is used up.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use tracing::warn;

use crate::{
    chance::Chance,
    domain::{
        ids::Ref,
        refs::{Scramble, by_chance},
    },
    store::{Error, Store, Transaction, refs},
    tasks::Tasks,
};

/// How many numbers a node takes at once: minutes of logins at full speed.
const BLOCK: u64 = 16_384;

/// How long to wait after the store could not give numbers.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes refs. Only arithmetic happens under the lock.
pub(super) struct Refs {
    state: Mutex<State>,
    short: Notify,
    chance: Chance,
}

struct State {
    scramble: Scramble,
    current: Range<u64>,
    next: Option<Range<u64>>,
}

impl Refs {
    pub(super) fn new(chance: Chance) -> Self {
        Self {
            state: Mutex::new(State {
                scramble: Scramble::new(0),
                current: 0..0,
                next: None,
            }),
            short: Notify::new(),
            chance,
        }
    }

    /// A ref that the cluster has not given out before; one by chance while there are no numbers.
    pub(super) fn take(&self) -> Ref {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.current.is_empty()
            && let Some(next) = state.next.take()
        {
            state.current = next;
        }
        if state.next.is_none() {
            self.short.notify_one();
        }
        match state.current.next() {
            Some(number) => state.scramble.counted(number),
            None => by_chance(self.chance.u64()),
        }
    }

    /// Takes a block of numbers from the store if none is in reserve.
    pub(super) async fn fill(&self, store: &Store) -> Result<(), Error> {
        let key = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.next.is_some() {
                return Ok(());
            }
            self.chance.u64()
        };
        let block = store
            .write(move |tx: &mut dyn Transaction| refs::take(tx, BLOCK, key))
            .await?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.scramble = Scramble::new(block.key);
        state.next = Some(block.numbers);
        Ok(())
    }
}

/// Keeps a block in reserve until the node shuts down.
pub(super) async fn keep_filled(refs: &Refs, store: &Store, tasks: &Tasks) {
    loop {
        // The store may be stuck, and then nobody needs the numbers.
        let filled = tokio::select! {
            biased;
            () = tasks.cancelled() => return,
            filled = refs.fill(store) => filled,
        };
        let pause = match filled {
            Ok(()) => None,
            Err(error) => {
                warn!(
                    cause = crate::telemetry::error_chain(&error),
                    "no numbers for refs could be had; refs are made by chance until then"
                );
                Some(PAUSE)
            }
        };
        let short = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => refs.short.notified().await,
            }
        };
        tokio::select! {
            biased;
            () = tasks.cancelled() => return,
            () = short => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn store() -> Store {
        Store::open(&crate::store::Config {
            url: "sqlite::memory:".to_owned(),
            node: "one".to_owned(),
        })
        .unwrap()
    }

    #[tokio::test]
    async fn nodes_of_one_cluster_never_give_out_the_same_ref() {
        let store = store();
        let nodes = [Refs::new(Chance::system()), Refs::new(Chance::system())];
        let mut given = BTreeSet::new();
        let mut count = 0;
        for _ in 0..3 {
            for node in &nodes {
                node.fill(&store).await.unwrap();
                for _ in 0..BLOCK {
                    count += 1;
                    given.insert(node.take());
                }
            }
        }
        assert_eq!(given.len(), count);
        assert!(given.iter().all(|r| *r < by_chance(0)), "all are counted");
    }

    #[tokio::test]
    async fn without_numbers_refs_are_by_chance_and_a_block_is_asked_for() {
        let refs = Refs::new(Chance::system());
        assert!(refs.take() >= by_chance(0));
        tokio::time::timeout(PAUSE, refs.short.notified())
            .await
            .expect("it says that it is short");
        let store = store();
        refs.fill(&store).await.unwrap();
        assert!(refs.take() < by_chance(0));
        // The block in use is not the reserve: the next one is asked for at once.
        tokio::time::timeout(PAUSE, refs.short.notified())
            .await
            .expect("it says that it has no reserve");
    }

    #[tokio::test]
    async fn a_store_that_is_stuck_does_not_hold_up_the_end() {
        let store = store();
        let (gate, opened) = std::sync::mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let mut begin = Some(begin);
        let stuck = store.write(move |_: &mut dyn Transaction| {
            let _ = begin.take().map(|begin| begin.send(()));
            let _ = opened.recv();
            Ok::<_, Error>(())
        });
        tokio::select! {
            biased;
            _ = begun => {}
            _ = stuck => panic!("it ended early"),
        }
        let (refs, tasks) = (Refs::new(Chance::system()), Tasks::default());
        let end = async {
            tokio::task::yield_now().await;
            tasks.token().cancel();
        };
        let both = async { tokio::join!(keep_filled(&refs, &store, &tasks), end) };
        tokio::time::timeout(Duration::from_secs(5), both)
            .await
            .expect("it ends while the store is stuck");
        drop(gate);
    }
}
