//! Names to sockets. The system's lookup blocks a thread and can't be given up: for each name there is at most
//! one under way, and a later attempt waits for the one that an earlier one began.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::{FutureExt, Shared};
use tokio::time::Instant;

type Sockets = Result<Vec<SocketAddr>, Arc<io::Error>>;
type Lookup = Shared<Pin<Box<dyn Future<Output = Sockets> + Send>>>;

/// How old the begin of a lookup may be whose outcome is used.
const FRESH: Duration = Duration::from_secs(10);

/// The lookups of one link.
pub(super) struct Lookups {
    fresh: Duration,
    under_way: Mutex<BTreeMap<String, (Instant, Lookup)>>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self {
            fresh: FRESH,
            under_way: Mutex::default(),
        }
    }
}

impl Lookups {
    /// Where `address` (`host:port`) leads. Cancel safe: what is under way is found by the next one who asks.
    pub(super) async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(literal) = address.parse() {
            return Ok(vec![literal]);
        }
        let name = address.to_owned();
        self.resolve_by(address, || {
            Box::pin(async move { Ok(tokio::net::lookup_host(name).await?.collect()) })
        })
        .await
    }

    async fn resolve_by(
        &self,
        address: &str,
        begin: impl FnOnce() -> Pin<Box<dyn Future<Output = Sockets> + Send>>,
    ) -> io::Result<Vec<SocketAddr>> {
        let lookup = {
            let mut under_way = self.under_way();
            // One that ended while nobody waited may tell of times long gone.
            under_way.retain(|_, (begun, lookup)| {
                begun.elapsed() < self.fresh || lookup.clone().now_or_never().is_none()
            });
            under_way
                .entry(address.to_owned())
                .or_insert_with(|| (Instant::now(), begin().shared()))
                .1
                .clone()
        };
        let outcome = lookup.clone().await;
        self.under_way()
            .retain(|_, (_, other)| !other.ptr_eq(&lookup));
        outcome.map_err(|source| io::Error::new(source.kind(), source))
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeMap<String, (Instant, Lookup)>> {
        // A map of futures is whole even if a holder panicked.
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{sync::Semaphore, time::timeout};

    use super::*;

    const NAME: &str = "berlin.example:8444";

    /// A name service that answers when it is let, and counts.
    #[derive(Default)]
    struct Names {
        asked: AtomicUsize,
    }

    impl Names {
        fn ask(
            &self,
            gate: &Arc<Semaphore>,
        ) -> Pin<Box<dyn Future<Output = Sockets> + Send + 'static>> {
            let nth = self.asked.fetch_add(1, Ordering::Relaxed);
            let gate = Arc::clone(gate);
            Box::pin(async move {
                gate.acquire().await.unwrap().forget();
                Ok(vec![SocketAddr::from((
                    [192, 0, 2, 1],
                    u16::try_from(nth).unwrap(),
                ))])
            })
        }
    }

    #[tokio::test]
    async fn later_attempts_wait_for_the_lookup_of_an_earlier_one() {
        let (lookups, names) = (Lookups::default(), Names::default());
        let gate = Arc::new(Semaphore::new(0));
        for _ in 0..5 {
            let asked = lookups.resolve_by(NAME, || names.ask(&gate));
            assert!(timeout(Duration::from_millis(5), asked).await.is_err());
        }
        assert_eq!(names.asked.load(Ordering::Relaxed), 1);
        gate.add_permits(1);
        let found = lookups.resolve_by(NAME, || names.ask(&gate)).await.unwrap();
        assert_eq!(found[0].port(), 0, "the first lookup's answer");
        // It has been used up: who asks next gets a new one.
        gate.add_permits(1);
        let found = lookups.resolve_by(NAME, || names.ask(&gate)).await.unwrap();
        assert_eq!(found[0].port(), 1);
        assert!(lookups.under_way().is_empty());
    }

    #[tokio::test]
    async fn an_answer_from_long_ago_is_not_used() {
        let names = Names::default();
        let lookups = Lookups {
            fresh: Duration::ZERO,
            ..Lookups::default()
        };
        let gate = Arc::new(Semaphore::new(0));
        let asked = lookups.resolve_by(NAME, || names.ask(&gate));
        assert!(timeout(Duration::from_millis(5), asked).await.is_err());
        gate.add_permits(2);
        let found = lookups.resolve_by(NAME, || names.ask(&gate)).await.unwrap();
        assert_eq!(found[0].port(), 1);
    }

    #[tokio::test]
    async fn a_literal_address_is_not_looked_up() {
        let lookups = Lookups::default();
        for literal in ["192.0.2.7:8444", "[2001:db8::7]:8444"] {
            // It is there at the first poll: nobody else was asked.
            let found = lookups.resolve(literal).now_or_never().unwrap().unwrap();
            assert_eq!(found, [literal.parse().unwrap()]);
        }
    }
}
