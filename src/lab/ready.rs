//! The line that lets any other program join a lab: where everything is, and the throw-away secrets. Pure.
//!
//! Its fields are a contract; `docs/lab.md` describes them.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    Lab,
    dataset::{Device, User},
};

/// The `ready` object.
#[derive(Debug, Serialize)]
pub struct Ready {
    step: &'static str,
    clusters: Vec<Cluster>,
}

#[derive(Debug, Serialize)]
struct Cluster {
    cluster_id: String,
    ca_file: PathBuf,
    nodes: Vec<Node>,
    client_identity: ClientIdentity,
    devices: Vec<Device>,
    users: Vec<User>,
    applications: Vec<Application>,
}

#[derive(Debug, Serialize)]
struct Node {
    name: String,
    federation: String,
    phone: String,
    admin_socket: PathBuf,
    config: PathBuf,
    metrics: String,
    pid: u32,
}

#[derive(Debug, Serialize)]
struct ClientIdentity {
    cert_file: PathBuf,
    key_file: PathBuf,
}

/// An application user of the EM API. There are none before the EM API is served.
#[derive(Debug, Serialize)]
struct Application {
    app_id: String,
    password: String,
}

impl Ready {
    /// Describes a running lab.
    #[must_use]
    pub fn of(lab: &Lab) -> Self {
        let clusters = lab
            .clusters
            .iter()
            .filter_map(|cluster| {
                let first = cluster.members.first()?;
                Some(Cluster {
                    cluster_id: cluster.id.to_string(),
                    ca_file: cluster.authority.file.clone(),
                    nodes: cluster
                        .members
                        .iter()
                        .map(|m| Node {
                            name: m.name.clone(),
                            federation: m.addresses.federation.clone(),
                            phone: m.addresses.phone.clone(),
                            admin_socket: m.addresses.admin.clone(),
                            config: m.config.clone(),
                            metrics: m.addresses.metrics.clone(),
                            pid: m.pid().unwrap_or_default(),
                        })
                        .collect(),
                    client_identity: ClientIdentity {
                        cert_file: first.federation_certificate.clone(),
                        key_file: first.federation_key.clone(),
                    },
                    devices: cluster.data.devices.clone(),
                    users: cluster.data.users.clone(),
                    applications: Vec::new(),
                })
            })
            .collect();
        Self {
            step: "ready",
            clusters,
        }
    }
}
