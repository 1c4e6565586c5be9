//! How much a door takes from strangers and from peers.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::share::Shares;

/// The longest that a call may take until it is answered.
pub(in crate::edge) const MAX_CALL: Duration = Duration::from_secs(30);

/// The limits of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// From the first byte awaited to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Connections that have not yet finished a handshake, silent ones included. Nothing queues among them: one
    /// that stalls holds its own place, and no turn that others wait for.
    pub max_pending: usize,
    /// Connections of identified peers, or of phones.
    pub max_connections: usize,
    /// Connections of one identified peer.
    pub max_connections_per_peer: usize,
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
    /// How often a live connection is judged again although trust has not changed: an issuer may have expired,
    /// and the wall clock can be set.
    pub look_again: Duration,
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
            max_connections: 4_096,
            // Each node of a peer holds one or two.
            max_connections_per_peer: 64,
            max_unidentified: 64,
            unidentified_life: Duration::from_secs(2),
            max_call: MAX_CALL,
            max_streams: 256,
            header_timeout: Duration::from_secs(10),
            look_again: Duration::from_secs(5),
            trust_grace: Duration::from_millis(500),
            drain_grace: Duration::from_secs(5),
        }
    }
}

/// The counters of one listener.
pub(super) struct Slots {
    pub(super) pending: Arc<Semaphore>,
    pub(super) connections: Arc<Semaphore>,
    pub(super) peers: Shares,
    pub(super) unidentified: Arc<Semaphore>,
}

impl Slots {
    pub(super) fn new(config: &Config) -> Self {
        let slots = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self {
            pending: slots(config.max_pending),
            connections: slots(config.max_connections),
            peers: Shares::new(config.max_connections_per_peer),
            unidentified: slots(config.max_unidentified),
        }
    }
}
