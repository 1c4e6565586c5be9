//! How much a door takes from strangers and from peers.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    joining::JoiningDoor,
    share::{Share, Shares},
    turned::TurnedAway,
    waste::{Allowance, Allowances},
};
use crate::{chance::Chance, domain::ids::ClusterId, store::parameters, trust::refusals::network};

/// The longest that a call may take until it is answered.
pub(in crate::edge) const MAX_CALL: Duration = Duration::from_secs(30);

/// The limits of one listener.
#[derive(Clone, Debug)]
pub struct Config {
    /// From the first byte awaited to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Connections that have not yet finished a handshake, silent ones included. Nothing queues among them: one
    /// that stalls holds its own place, and no turn that others wait for.
    pub max_pending: usize,
    /// The same from one network: a host that opens silent ones without end leaves the other places to others.
    pub max_pending_per_network: usize,
    /// Connections of identified peers, or of phones.
    pub max_connections: usize,
    /// Connections of one identified peer.
    pub max_connections_per_peer: usize,
    /// Connections of callers that were not identified. They are answered, and must not crowd out others.
    pub max_unidentified: usize,
    /// The same from one network.
    pub max_unidentified_per_network: usize,
    /// How long an unidentified caller may stay connected to hear the reason.
    pub unidentified_life: Duration,
    /// Longest time until a call is answered, whatever deadline it carries. Streams may go on afterwards.
    pub max_call: Duration,
    /// Calls at the same time on one connection.
    pub max_streams: u32,
    /// Calls of one identified peer that have no answer yet, on all its connections together: also those that were
    /// begun and never finished, which reach no role that would count them.
    pub max_begun_per_peer: usize,
    /// Calls whose answers one identified peer may not take: at once, and more in a second. Our own take them all but
    /// for those whose time is over.
    pub max_wasted_per_peer: (u32, u32),
    /// How long a new connection of a peer that has wasted what it may waits for its turn, before it is told to come
    /// again later: the peer must hear it while it still waits for an answer.
    pub turn_timeout: Duration,
    /// How long an answer may wait for the peer to take it; then the connection ends.
    pub answer_timeout: Duration,
    /// Longest time for the head of an HTTP/1.1 request, and between two requests of a connection.
    pub header_timeout: Duration,
    /// How often a live connection is judged again although trust has not changed: an issuer may have expired,
    /// and the wall clock can be set.
    pub look_again: Duration,
    /// How long calls may go on after the caller's certificate lost its trust.
    pub trust_grace: Duration,
    /// How long calls may go on after the node began to shut down.
    pub drain_grace: Duration,
    /// Cancelled a moment before the doors close: callers are told to go elsewhere.
    pub draining: CancellationToken,
    /// Counts who is turned away.
    pub turned: TurnedAway,
    /// How long connections have that rest on a certificate from before is one of them.
    pub parameters: parameters::Live,
    /// Where those go who come to join; nowhere when there is none.
    pub joining: Option<JoiningDoor>,
    /// Spreads what must not happen to all connections at once.
    pub chance: Chance,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // Refusals must reach both sides within 2 s, and answering takes no time of its own.
            handshake_timeout: Duration::from_millis(1_800),
            max_pending: 1_024,
            // Phones of a whole site may stand behind one address.
            max_pending_per_network: 256,
            max_connections: 4_096,
            // Each node of a peer holds one or two.
            max_connections_per_peer: MOST_PER_PEER,
            max_unidentified: 64,
            max_unidentified_per_network: 8,
            unidentified_life: Duration::from_secs(2),
            max_call: MAX_CALL,
            max_streams: 256,
            // Twice what the roles take of one peer.
            max_begun_per_peer: 1_024,
            max_wasted_per_peer: (1_000, 100),
            // A peer waits 1.5 s for the first answer on a connection.
            turn_timeout: Duration::from_secs(1),
            answer_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            look_again: Duration::from_secs(5),
            trust_grace: Duration::from_millis(500),
            drain_grace: Duration::from_secs(5),
            draining: CancellationToken::new(),
            turned: TurnedAway::default(),
            parameters: parameters::Live::default(),
            joining: None,
            chance: Chance::system(),
        }
    }
}

/// Each node of a peer holds one or two.
const MOST_PER_PEER: usize = 64;

impl Config {
    /// The limits of a listener for `max_connections`, of which no peer gets so many that none is left to the
    /// others.
    #[must_use]
    pub fn for_connections(max_connections: usize) -> Self {
        Self {
            max_connections,
            // A link that is replaced needs two for a moment.
            max_connections_per_peer: (max_connections / 4).clamp(2, MOST_PER_PEER),
            ..Self::default()
        }
    }
}

/// Places that all callers share, and that no network takes alone. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    shares: Shares<IpAddr>,
    told: Arc<Mutex<Told>>,
    whose: Whose,
}

/// Whose connections take places, for the line about one that got none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whose {
    /// Who calls.
    pub(super) callers: &'static str,
    /// What bounds those of one network.
    pub(super) of_network: &'static str,
    /// What bounds all of them.
    pub(super) of_all: &'static str,
}

/// What was told of callers that got no place.
#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    muted: u64,
}

/// Why there is no place for a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Its network has its share.
    Network,
    /// All are taken.
    All,
}

/// How long callers that get no place are only counted after a line about one.
const QUIET: Duration = Duration::from_secs(60);

/// One of [`Places`], until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _one: OwnedSemaphorePermit,
    _share: Option<Share<IpAddr>>,
}

impl Places {
    /// Places for the connections of phones. Several listeners may share them.
    #[must_use]
    pub fn for_phones(max_connections: usize, max_per_network: usize) -> Self {
        Self::new(max_connections, max_per_network)
    }

    /// Places for whoever asks for figures and health: a handful.
    #[must_use]
    pub fn for_monitoring() -> Self {
        Self {
            whose: Whose {
                callers: "monitoring",
                of_network: "16, half of what there are",
                of_all: "32",
            },
            ..Self::new(32, 16)
        }
    }

    /// Places for those who come to join and have proved nothing yet: a handful.
    #[must_use]
    pub fn for_joining() -> Self {
        Self {
            whose: Whose {
                callers: "clusters that join",
                of_network: "4, half of what there are",
                of_all: "8",
            },
            ..Self::new(8, 4)
        }
    }

    /// Whose they are.
    pub(super) const fn whose(&self) -> Whose {
        self.whose
    }

    fn new(most: usize, most_per_network: usize) -> Self {
        Self {
            free: semaphore(most),
            shares: Shares::new(most_per_network),
            told: Arc::default(),
            whose: Whose {
                callers: "phones",
                of_network: "phone.max-connections-per-address",
                of_all: "phone.max-connections",
            },
        }
    }

    /// One for a caller from there, unless there is none left, or none for its network.
    pub(super) fn take(&self, from: IpAddr) -> Result<Place, Full> {
        let share = match from.to_canonical() {
            // A proxy on this machine stands for all who come through it.
            from if is_this_host(from) => None,
            from => Some(self.shares.take(&network(from)).ok_or(Full::Network)?),
        };
        let one = Arc::clone(&self.free).try_acquire_owned();
        Ok(Place {
            _one: one.map_err(|_| Full::All)?,
            _share: share,
        })
    }

    /// Whether a caller that got no place is worth a line now: once a minute. It counts those that were not, and
    /// gives how many there were since the last line.
    pub(super) fn tell(&self, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.at.is_some_and(|at| now < at + QUIET) {
            told.muted = told.muted.saturating_add(1);
            return None;
        }
        told.at = Some(now);
        Some(std::mem::take(&mut told.muted))
    }
}

/// The address by which programs of this machine call each other; all the other loopback addresses are as good
/// as anybody's.
fn is_this_host(address: IpAddr) -> bool {
    address == std::net::Ipv4Addr::LOCALHOST || address == std::net::Ipv6Addr::LOCALHOST
}

fn semaphore(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)))
}

/// The counters of the federation listener.
pub(super) struct Slots {
    pub(super) pending: Places,
    pub(super) connections: Arc<Semaphore>,
    pub(super) peers: Shares<ClusterId>,
    pub(super) begun: Shares<ClusterId>,
    /// Of those that are begun: requests of which not all has come.
    pub(super) unfinished: Shares<ClusterId>,
    pub(super) waste: Allowances,
    pub(super) unidentified: Places,
}

impl Slots {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            pending: pending(config),
            connections: semaphore(config.max_connections),
            peers: Shares::new(config.max_connections_per_peer),
            begun: Shares::new(config.max_begun_per_peer),
            unfinished: Shares::new(config.max_begun_per_peer),
            waste: Allowances::new(allowance(config)),
            unidentified: Places::new(config.max_unidentified, config.max_unidentified_per_network),
        }
    }
}

fn allowance(config: &Config) -> Allowance {
    let (burst, per_second) = config.max_wasted_per_peer;
    Allowance {
        burst,
        per_second,
        // What the next connection can waste at once.
        resume: config.max_streams.min(burst),
    }
}

/// Places for connections that are not past their handshake.
pub(super) fn pending(config: &Config) -> Places {
    Places::new(config.max_pending, config.max_pending_per_network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_network_takes_its_share_and_another_still_gets_in() {
        let places = Places::new(4, 2);
        let held = [
            places.take(ip("2001:db8::1")).unwrap(),
            places.take(ip("2001:db8::2")).unwrap(),
        ];
        assert_eq!(places.take(ip("2001:db8::3")).unwrap_err(), Full::Network);
        let other = places.take(ip("2001:db8:0:1::1")).unwrap();
        // An IPv4 address is one, however it is written.
        let last = places.take(ip("192.0.2.1")).unwrap();
        assert_eq!(places.take(ip("198.51.100.1")).unwrap_err(), Full::All);
        drop((held, other, last));
        let _first = places.take(ip("::ffff:192.0.2.1")).unwrap();
        let _second = places.take(ip("192.0.2.1")).unwrap();
        assert!(places.take(ip("192.0.2.1")).is_err());
    }

    #[test]
    fn what_gets_no_place_takes_no_share() {
        let places = Places::new(1, 1);
        let one = places.take(ip("192.0.2.1")).unwrap();
        assert!(places.take(ip("192.0.2.2")).is_err());
        drop(one);
        assert!(places.take(ip("192.0.2.2")).is_ok());
    }

    #[test]
    fn who_got_no_place_is_told_of_once_a_minute_and_counted() {
        let places = Places::for_phones(4, 3);
        let start = Instant::now();
        let after = |seconds| places.clone().tell(start + Duration::from_secs(seconds));
        assert_eq!(after(0), Some(0));
        assert_eq!((after(1), after(59)), (None, None));
        assert_eq!(after(60), Some(2));
        assert_eq!((after(119), after(120)), (None, Some(1)));
        // And the share is the configured one.
        let held: Vec<_> = (0..3)
            .map(|_| places.take(ip("192.0.2.1")).unwrap())
            .collect();
        assert_eq!(places.take(ip("192.0.2.1")).unwrap_err(), Full::Network);
        drop(held);
    }

    #[test]
    fn a_proxy_on_this_machine_is_no_single_caller() {
        let places = Places::new(3, 1);
        let held = [
            places.take(ip("127.0.0.1")).unwrap(),
            places.take(ip("::ffff:127.0.0.1")).unwrap(),
            places.take(ip("::1")).unwrap(),
        ];
        assert!(places.take(ip("::1")).is_err());
        drop(held);
    }

    #[test]
    fn no_peer_gets_all_connections_while_there_are_enough_for_two() {
        for (all, per_peer) in [(3, 2), (8, 2), (64, 16), (256, 64), (65_536, 64)] {
            let config = Config::for_connections(all);
            assert_eq!(config.max_connections_per_peer, per_peer, "{all}");
            assert!(config.max_connections_per_peer < all);
        }
    }
}
