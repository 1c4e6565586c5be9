//! How much a door takes from strangers and from peers.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

/// The limits of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// From the first byte awaited to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Connections that have not yet finished a handshake, silent ones included.
    pub max_pending: usize,
    /// Handshakes being computed at the same time. Silent connections don't count.
    pub max_handshakes: usize,
    /// Connections of identified peers, or of phones.
    pub max_connections: usize,
    /// Connections of callers that were not identified. They are answered, and must not crowd out others.
    pub max_unidentified: usize,
    /// How long an unidentified caller may stay connected to hear the reason.
    pub unidentified_life: Duration,
    /// Longest time until a call is answered, whatever deadline it carries. Streams may go on afterwards.
    pub max_call: Duration,
    /// Calls at the same time on one connection.
    pub max_streams: u32,
    /// Longest time for the head of an HTTP/1.1 request, and between two requests of a connection.
    pub header_timeout: Duration,
    /// How long calls may go on after the caller's certificate lost its trust.
    pub trust_grace: Duration,
    /// How long calls may go on after the node began to shut down.
    pub drain_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // Refusals must reach both sides within 2 s, and answering takes no time of its own.
            handshake_timeout: Duration::from_millis(1_800),
            max_pending: 1_024,
            // A handshake costs below a millisecond of one core; more at once only wait for each other.
            max_handshakes: 128,
            max_connections: 4_096,
            max_unidentified: 64,
            unidentified_life: Duration::from_secs(2),
            max_call: Duration::from_secs(30),
            max_streams: 256,
            header_timeout: Duration::from_secs(10),
            trust_grace: Duration::from_millis(500),
            drain_grace: Duration::from_secs(5),
        }
    }
}

/// The counters of one listener.
pub(super) struct Slots {
    pub(super) pending: Arc<Semaphore>,
    pub(super) handshakes: Arc<Semaphore>,
    pub(super) connections: Arc<Semaphore>,
    pub(super) unidentified: Arc<Semaphore>,
}

impl Slots {
    pub(super) fn new(config: &Config) -> Self {
        let slots = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self {
            pending: slots(config.max_pending),
            handshakes: slots(config.max_handshakes),
            connections: slots(config.max_connections),
            unidentified: slots(config.max_unidentified),
        }
    }
}
