//! How much is done at a time, and whose turn is next.
//!
//! A [`Pool`] has places, and a bounded [`Line`](line::Line) of those who wait for one, in which clusters take turns,
//! and within each the networks that phones call from. What can't be served by its deadline is refused at once, with
//! a time after which it is worth trying again. PIN hashing waits in such a line too.
//!
//! A node has three pools, each with as many places as `maximum-concurrent-requests` says: for logins of its phones,
//! for logins that other clusters ask of it as home, and for logouts of its phones. They are apart because one waits
//! for another: a login at visiting holds its place while home works. Were these the same places, two clusters whose
//! users visit each other could each fill the other's with logins that wait for their own. And a logout frees what
//! others wait for, so that no number of logins may stand in its way.
//!
//! Nothing of this is asked by heartbeats, health, operators, searches for a user, or ends of sessions that another
//! cluster tells of: those are bounded by the calls that a peer may have under way, of which ends have some that are
//! theirs alone, and must not wait.

use std::{net::IpAddr, time::Instant};

pub mod line;
pub mod pool;
mod rate;

pub use self::{
    line::{Party, Source},
    pool::{Config, Counts, Permit, Pool, Refused},
};
use crate::trust::refusals::network;

/// How many may wait in one line: as many connections as a node takes from phones unless it is told otherwise. A line
/// entry is some hundred bytes.
const LINE: usize = 1_024;

impl Source {
    /// A phone of that party, which calls from there, as far as that is known.
    #[must_use]
    pub fn of(party: Party, address: Option<IpAddr>) -> Self {
        Self {
            party,
            network: address.map(network),
        }
    }

    /// Work of our own operators.
    #[must_use]
    pub const fn operators() -> Self {
        Self {
            party: Party::Operators,
            network: None,
        }
    }
}

/// What may be in progress at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A login on a phone of ours.
    Login,
    /// A logout on a phone of ours.
    Logout,
    /// A login of another cluster's phone, whose user is ours.
    Inbound,
}

impl Kind {
    /// The three.
    pub const ALL: [Self; 3] = [Self::Login, Self::Logout, Self::Inbound];

    /// As it stands in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Logout => "logout",
            Self::Inbound => "inbound",
        }
    }
}

/// The admission of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admission {
    logins: Pool,
    logouts: Pool,
    inbound: Pool,
}

impl Admission {
    /// With so many requests of each kind at a time.
    #[must_use]
    pub fn new(places: u32) -> Self {
        let pool = || {
            Pool::new(Config {
                places: count(places),
                line: LINE,
                // How long a login takes depends on the cluster that it asks.
                alike: false,
            })
        };
        Self {
            logins: pool(),
            logouts: pool(),
            inbound: pool(),
        }
    }

    /// Changes how many requests of each kind there may be at a time, also for those that wait. With fewer, those that
    /// are in progress stay so.
    pub fn set_places(&self, places: u32) {
        for kind in Kind::ALL {
            self.pool(kind).set_places(count(places));
        }
    }

    /// A place for a request, until it is dropped. Cancel safe.
    ///
    /// # Errors
    /// [`Refused`], at once where it is known that the request can't be served by its deadline.
    pub async fn enter(
        &self,
        kind: Kind,
        source: &Source,
        deadline: Instant,
    ) -> Result<Permit, Refused> {
        self.pool(kind).enter(source, Some(deadline)).await
    }

    /// From `at` on nobody waits any longer: the node ends.
    pub fn close_at(&self, at: Instant) {
        for kind in Kind::ALL {
            self.pool(kind).close_at(at);
        }
    }

    /// What one kind has done and does.
    #[must_use]
    pub fn counts(&self, kind: Kind) -> Counts {
        self.pool(kind).counts()
    }

    const fn pool(&self, kind: Kind) -> &Pool {
        match kind {
            Kind::Login => &self.logins,
            Kind::Logout => &self.logouts,
            Kind::Inbound => &self.inbound,
        }
    }
}

fn count(places: u32) -> usize {
    usize::try_from(places).unwrap_or(usize::MAX)
}
