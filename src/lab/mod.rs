//! The lab: whole federations on one machine, with real sockets, real TLS and real databases.
//!
//! The same module is the command `emccd lab` and the harness of the integration tests. Nodes run in this
//! process or as child processes; each can be stopped, killed, paused, restarted, given another protocol
//! version or another certificate.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub mod admin;
pub mod authority;
pub mod between;
pub mod dataset;
mod held;
pub mod member;
pub mod phone;
pub mod ports;
pub mod proxy;
pub mod ready;
pub mod report;
pub mod run;
pub mod scenario;
#[cfg(test)]
mod sim;

use self::{
    admin::Admin,
    authority::ClusterAuthority,
    dataset::Dataset,
    member::{Member, Versions},
    ports::Ports,
};
use crate::{domain::ids::ClusterId, wire::admin as pb};

/// Where the nodes run.
#[derive(Clone, Debug, Default)]
pub enum Hosting {
    /// In this process.
    #[default]
    InProcess,
    /// Each in a process of its own.
    Processes {
        /// The `emccd` binary.
        binary: PathBuf,
    },
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Spec {
    /// How many clusters; named berlin, tokyo, lima, …
    pub clusters: usize,
    /// Nodes of each.
    pub nodes: usize,
    /// Where they run.
    pub hosting: Hosting,
    /// Folder with one `apply` file per cluster (`berlin.toml`, …) in place of the built-in data.
    pub data: Option<PathBuf>,
    /// Lines for every node's configuration, by section: what a test wants otherwise than the lab.
    pub settings: Vec<(String, String)>,
    /// Whether the clusters are made known to each other.
    pub paired: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            clusters: 2,
            nodes: 1,
            hosting: Hosting::InProcess,
            data: None,
            settings: Vec::new(),
            paired: true,
        }
    }
}

/// A running federation. Its folder goes when it is dropped.
#[derive(Debug)]
pub struct Lab {
    /// The clusters, in the order of their names' list.
    pub clusters: Vec<Cluster>,
    folder: tempfile::TempDir,
    /// Kept for the nodes, also while they are down.
    _ports: Ports,
}

/// One cluster of a lab.
#[derive(Debug)]
pub struct Cluster {
    /// Its ID.
    pub id: ClusterId,
    /// Its nodes.
    pub members: Vec<Member>,
    /// The authority that its certificates come from.
    pub authority: ClusterAuthority,
    /// What was applied to it.
    pub data: Dataset,
}

/// The first names; further clusters are numbered.
const NAMES: [&str; 6] = ["berlin", "tokyo", "lima", "oslo", "cairo", "quito"];

/// The ID of the cluster at `index`.
///
/// # Errors
/// Never for an index that a lab can have.
pub fn cluster_name(index: usize) -> Result<ClusterId> {
    let name = NAMES
        .get(index)
        .map_or_else(|| format!("cluster-{}", index + 1), |n| (*n).to_owned());
    Ok(ClusterId::new(name)?)
}

/// In the chain of an error: no node has been started yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cluster {0} could not be laid out")]
pub struct NotLaidOut(pub usize);

impl Lab {
    /// Builds and starts everything, applies the data and, where asked for, pairs every cluster with every other.
    ///
    /// # Errors
    /// What could not be made or started.
    pub async fn start(spec: &Spec) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("emccd-lab-")
            .tempdir()
            .context("no temporary folder")?;
        let mut ports = Ports::default();
        let mut clusters = Vec::new();
        for index in 0..spec.clusters {
            let built = Cluster::build(folder.path(), index, spec, &mut ports);
            clusters.push(built.with_context(|| NotLaidOut(index + 1))?);
        }
        ports.release();
        let mut lab = Self {
            clusters,
            folder,
            _ports: ports,
        };
        for cluster in &mut lab.clusters {
            cluster.start().await?;
        }
        if spec.paired {
            lab.pair_all().await?;
        }
        Ok(lab)
    }

    /// The lab's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The cluster at `index`.
    ///
    /// # Errors
    /// When the lab has no so many.
    pub fn cluster(&self, index: usize) -> Result<&Cluster> {
        self.clusters
            .get(index)
            .with_context(|| format!("the lab has no cluster {}", index + 1))
    }

    /// The cluster at `index`, to stop or change its nodes.
    ///
    /// # Errors
    /// When the lab has no so many.
    pub fn cluster_mut(&mut self, index: usize) -> Result<&mut Cluster> {
        self.clusters
            .get_mut(index)
            .with_context(|| format!("the lab has no cluster {}", index + 1))
    }

    /// Makes every cluster known to every other, and waits until all links are up.
    ///
    /// # Errors
    /// When a cluster refuses, or a link does not come up.
    pub async fn pair_all(&self) -> Result<()> {
        for cluster in &self.clusters {
            for other in self.clusters.iter().filter(|c| c.id != cluster.id) {
                cluster.trust(other).await?;
            }
        }
        for cluster in &self.clusters {
            for other in self.clusters.iter().filter(|c| c.id != cluster.id) {
                cluster.wait_linked(&other.id).await?;
                cluster.wait_all_up(&other.id).await?;
            }
        }
        Ok(())
    }

    /// Stops every node in an orderly way.
    pub async fn shut_down(mut self) {
        let members = self.clusters.iter_mut().flat_map(|c| &mut c.members);
        futures_util::future::join_all(members.map(Member::stop)).await;
    }
}

impl Cluster {
    fn build(folder: &Path, index: usize, spec: &Spec, ports: &mut Ports) -> Result<Self> {
        let id = cluster_name(index)?;
        let home = folder.join(id.as_str());
        std::fs::create_dir_all(&home)?;
        let authority = ClusterAuthority::create(&id, &home)?;
        let data = match &spec.data {
            None => Dataset::built_in(index, &id)?,
            Some(folder) => Dataset::read(&folder.join(format!("{id}.toml")), &id)?,
        };
        let members = (1..=spec.nodes)
            .map(|number| Member::lay_out(&home, &id, number, spec, &authority, ports))
            .collect::<Result<_>>()?;
        Ok(Self {
            id,
            members,
            authority,
            data,
        })
    }

    async fn start(&mut self) -> Result<()> {
        for member in &mut self.members {
            member.start(&Versions::default()).await?;
        }
        let file = pb::ApplyFile {
            name: format!("{}.toml", self.id),
            content: self.data.toml.clone(),
        };
        let request = pb::ApplyRequest {
            files: vec![file],
            ..pb::ApplyRequest::default()
        };
        self.admin()
            .await?
            .apply(request)
            .await
            .context("the data could not be applied")?;
        Ok(())
    }

    /// The first node.
    ///
    /// # Errors
    /// When there is none.
    pub fn member(&self) -> Result<&Member> {
        self.members
            .first()
            .with_context(|| format!("cluster {} has no nodes", self.id))
    }

    /// The first node, to stop or change it.
    ///
    /// # Errors
    /// When there is none.
    pub fn member_mut(&mut self) -> Result<&mut Member> {
        let id = self.id.clone();
        self.members
            .first_mut()
            .with_context(|| format!("cluster {id} has no nodes"))
    }

    /// An operator's connection to the first node.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn admin(&self) -> Result<Admin> {
        self.member()?.admin().await
    }

    /// Makes `other` known here: its nodes' addresses and their certificates.
    ///
    /// # Errors
    /// When this cluster refuses.
    pub async fn trust(&self, other: &Self) -> Result<()> {
        self.trust_at(
            other,
            other
                .members
                .iter()
                .map(|m| m.addresses.federation.clone())
                .collect(),
        )
        .await
    }

    /// The same by way of other addresses, for example a proxy's.
    ///
    /// # Errors
    /// When this cluster refuses.
    pub async fn trust_at(&self, other: &Self, addresses: Vec<String>) -> Result<()> {
        let mut pem = String::new();
        for member in &other.members {
            pem.push_str(&std::fs::read_to_string(&member.federation_certificate)?);
        }
        let request = pb::AddClusterRequest {
            cluster: Some(pb::Cluster {
                cluster_id: other.id.to_string(),
                enabled: true,
                allow_emcc: true,
                addresses,
                description: "paired by the lab".to_owned(),
                ..pb::Cluster::default()
            }),
            trust: Some(pb::TrustMaterial {
                kind: "pinned".to_owned(),
                certificates: pem.into_bytes(),
            }),
        };
        self.admin()
            .await?
            .add_cluster(request)
            .await
            .with_context(|| format!("cluster {} did not take cluster {}", self.id, other.id))?;
        Ok(())
    }

    /// Waits until the link to `other` is up in both directions.
    ///
    /// # Errors
    /// When it does not come up in time; the message has the last state.
    pub async fn wait_linked(&self, other: &ClusterId) -> Result<()> {
        self.wait_status(other, "up in both directions", |peer| {
            let up = peer.outbound.as_ref().is_some_and(|o| o.state == "up");
            up && peer.inbound.as_ref().is_some_and(|i| i.watching)
        })
        .await
        .map(drop)
    }

    /// Waits until every node here that runs has its own link to `other`; only one of them may be called by it.
    ///
    /// # Errors
    /// When one does not come up in time; the message has the last state.
    pub async fn wait_all_up(&self, other: &ClusterId) -> Result<()> {
        let is_up = |peer: &pb::PeerStatus| peer.outbound.as_ref().is_some_and(|o| o.state == "up");
        for member in self.members.iter().filter(|member| member.is_running()) {
            let seen = member.admin().await?.wait_status(other, "up", is_up).await;
            seen.with_context(|| format!("seen from {} of cluster {}", member.name, self.id))?;
        }
        Ok(())
    }

    /// Waits until the first node has seen so many nodes of its cluster alive, itself included.
    ///
    /// # Errors
    /// When it does not in time; the message has the last state.
    pub async fn wait_living(&self, nodes: usize) -> Result<()> {
        let mut admin = self.admin().await?;
        admin
            .wait_living(nodes)
            .await
            .with_context(|| format!("seen from cluster {}", self.id))
    }

    /// Waits until this cluster's status of `other` satisfies `wanted`, and gives it.
    ///
    /// # Errors
    /// When it does not in time; the message has the last state.
    pub async fn wait_status(
        &self,
        other: &ClusterId,
        what: &str,
        wanted: impl Fn(&pb::PeerStatus) -> bool,
    ) -> Result<pb::PeerStatus> {
        let mut admin = self.admin().await?;
        admin
            .wait_status(other, what, wanted)
            .await
            .with_context(|| format!("seen from cluster {}", self.id))
    }
}
