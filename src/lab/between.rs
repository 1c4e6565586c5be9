//! All connections between two clusters of a lab, by way of relays that can be cut.

use anyhow::Result;

use super::{
    Cluster,
    proxy::{Flow, Mode, Proxy},
};

/// Which way is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What the first cluster sends to the second.
    There,
    /// What the second cluster sends to the first.
    Back,
    /// Both.
    Both,
}

/// The relays between two clusters: one before each node of either, for the nodes of the other. They end when dropped.
#[derive(Debug)]
pub struct Between {
    /// Before the nodes of the first cluster; the second one dials them.
    first: Vec<Proxy>,
    /// Before the nodes of the second cluster; the first one dials them.
    second: Vec<Proxy>,
}

impl Between {
    /// Makes two clusters that run and are not paired known to each other by way of relays, and waits until all links
    /// are up.
    ///
    /// # Errors
    /// When no port is free, a cluster refuses, or a link does not come up.
    pub async fn pair(first: &Cluster, second: &Cluster) -> Result<Self> {
        let between = Self {
            first: relays(first).await?,
            second: relays(second).await?,
        };
        first.trust_at(second, addresses(&between.second)).await?;
        second.trust_at(first, addresses(&between.first)).await?;
        for (us, them) in [(first, second), (second, first)] {
            us.wait_linked(&them.id).await?;
            us.wait_all_up(&them.id).await?;
        }
        Ok(between)
    }

    /// Cuts one way or both. Where one is cut the other one is open.
    pub fn cut(&self, way: Way, flow: Flow) {
        let (there, back) = match way {
            Way::There => (flow, Flow::Open),
            Way::Back => (Flow::Open, flow),
            Way::Both => (flow, flow),
        };
        // The cluster behind a relay is its far end.
        for relay in &self.first {
            relay.steer(back, there);
        }
        for relay in &self.second {
            relay.steer(there, back);
        }
    }

    /// Closes every connection, and every new one at once.
    pub fn refuse(&self) {
        for relay in self.all() {
            relay.set(Mode::Refuse);
        }
    }

    /// Resets the living connections; new ones are taken as before.
    pub fn kill(&self) {
        for relay in self.all() {
            relay.kill();
        }
    }

    /// Opens all ways.
    pub fn heal(&self) {
        for relay in self.all() {
            relay.set(Mode::Open);
        }
    }

    fn all(&self) -> impl Iterator<Item = &Proxy> {
        self.first.iter().chain(&self.second)
    }
}

async fn relays(cluster: &Cluster) -> Result<Vec<Proxy>> {
    let mut relays = Vec::new();
    for member in &cluster.members {
        relays.push(Proxy::start(member.addresses.federation.clone()).await?);
    }
    Ok(relays)
}

fn addresses(relays: &[Proxy]) -> Vec<String> {
    relays.iter().map(|r| r.address.to_string()).collect()
}
