//! An operator's connection to a node of the lab: the same calls as the command line makes.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use tonic::transport::Channel;

use crate::{
    domain::ids::ClusterId,
    wire::admin::{self as pb, admin_service_client::AdminServiceClient},
};

/// The connection.
#[derive(Clone, Debug)]
pub struct Admin {
    client: AdminServiceClient<Channel>,
}

/// How long a state may take to come about. Long, for a busy machine; what is waited for usually takes
/// milliseconds.
const WAIT_LIMIT: Duration = Duration::from_secs(30);
/// How often a state is looked at while it is waited for.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(20);

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $response:ty = $call:ident;)+) => {
        $($(#[$doc])*
        ///
        /// # Errors
        /// What the node refused, in its own words.
        pub async fn $name(&mut self, request: $request) -> Result<$response> {
            match self.client.$call(request).await {
                Ok(response) => Ok(response.into_inner()),
                Err(status) => bail!("{}", status.message()),
            }
        })+
    };
}

impl Admin {
    /// Connects to the socket.
    ///
    /// # Errors
    /// When nobody answers on it.
    pub async fn connect(socket: &Path) -> Result<Self> {
        let channel = crate::wire::unix::connect(socket)
            .await
            .with_context(|| format!("nobody answers on {}", socket.display()))?;
        Ok(Self {
            client: AdminServiceClient::new(channel),
        })
    }

    calls! {
        /// Adds another cluster.
        add_cluster(pb::AddClusterRequest) -> pb::AddClusterResponse = add_cluster;
        /// Applies files.
        apply(pb::ApplyRequest) -> pb::ApplyResponse = apply;
        /// Writes a backup.
        back_up_store(pb::BackUpStoreRequest) -> pb::BackUpStoreResponse = back_up_store;
        /// What the cluster goes by.
        list_parameters(pb::ListParametersRequest) -> pb::ListParametersResponse = list_parameters;
        /// Sets a parameter.
        set_parameter(pb::SetParameterRequest) -> pb::SetParameterResponse = set_parameter;
        /// Both directions of every link.
        status(pb::GetClusterStatusRequest) -> pb::GetClusterStatusResponse = get_cluster_status;
        /// Puts the identity files in force.
        reload(pb::ReloadIdentitiesRequest) -> pb::ReloadIdentitiesResponse = reload_identities;
        /// The certificates that the node shows.
        identities(pb::ListIdentitiesRequest) -> pb::ListIdentitiesResponse = list_identities;
        /// Sessions of both roles.
        sessions(pb::ListSessionsRequest) -> pb::ListSessionsResponse = list_sessions;
        /// The pool of base devices.
        base_devices(pb::ListBaseDevicesRequest) -> pb::ListBaseDevicesResponse = list_base_devices;
        /// One user, with the state of the PIN.
        user(pb::GetUserRequest) -> pb::GetUserResponse = get_user;
        /// Ends a session.
        logout(pb::LogoutSessionRequest) -> pb::LogoutSessionResponse = logout_session;
        /// An operator's word on what waits.
        accept_trust(pb::AcceptTrustRequest) -> pb::AcceptTrustResponse = accept_trust;
        /// Adds trust.
        add_trust(pb::AddTrustRequest) -> pb::AddTrustResponse = add_trust;
        /// What is trusted.
        trust(pb::ListTrustRequest) -> pb::ListTrustResponse = list_trust;
        /// How trust stands on a given day.
        forecast(pb::ForecastTrustRequest) -> pb::ForecastTrustResponse = forecast_trust;
        /// Takes in revocation lists.
        add_crl(pb::AddCrlRequest) -> pb::AddCrlResponse = add_crl;
        /// The revocation lists in force.
        crls(pb::ListCrlsRequest) -> pb::ListCrlsResponse = list_crls;
        /// Takes revocation lists out of force.
        remove_crl(pb::RemoveCrlRequest) -> pb::RemoveCrlResponse = remove_crl;
        /// The certificates that are being exchanged.
        rotations(pb::ListRotationsRequest) -> pb::ListRotationsResponse = list_rotations;
        /// A step with some of them.
        step_rotation(pb::StepRotationRequest) -> pb::StepRotationResponse = step_rotation;
        /// Takes trust back.
        remove_trust(pb::RemoveTrustRequest) -> pb::RemoveTrustResponse = remove_trust;
        /// One session.
        session(pb::GetSessionRequest) -> pb::GetSessionResponse = get_session;
        /// Has ends told again that were refused.
        retry_session(pb::RetrySessionRequest) -> pb::RetrySessionResponse = retry_session;
        /// Forgets that an end is owed.
        drop_session(pb::DropSessionRequest) -> pb::DropSessionResponse = drop_session;
        /// Removes one record.
        remove_record(pb::RemoveRecordRequest) -> pb::RemoveRecordResponse = remove_record;
        /// Removes another cluster.
        remove_cluster(pb::RemoveClusterRequest) -> pb::RemoveClusterResponse = remove_cluster;
        /// Changes another cluster's record.
        set_cluster(pb::SetClusterRequest) -> pb::SetClusterResponse = set_cluster;
    }

    /// The sessions that live, newest first.
    ///
    /// # Errors
    /// What the node refused.
    pub async fn living(&mut self) -> Result<Vec<pb::Session>> {
        Ok(self
            .sessions(pb::ListSessionsRequest::default())
            .await?
            .sessions)
    }

    /// The sessions whose end the other cluster has still to acknowledge.
    ///
    /// # Errors
    /// What the node refused.
    pub async fn owed(&mut self) -> Result<Vec<pb::Session>> {
        let owed = pb::ListSessionsRequest {
            only_owed: true,
            ..pb::ListSessionsRequest::default()
        };
        Ok(self.sessions(owed).await?.sessions)
    }

    /// The base devices that a session holds.
    ///
    /// # Errors
    /// What the node refused.
    pub async fn held(&mut self) -> Result<Vec<pb::BaseDevice>> {
        let all = self
            .base_devices(pb::ListBaseDevicesRequest {})
            .await?
            .base_devices;
        Ok(all.into_iter().filter(|b| b.session_id.is_some()).collect())
    }

    /// Waits until so many nodes of the cluster have been seen alive by the one that is asked.
    ///
    /// # Errors
    /// When they have not in time; the message has the last state.
    pub async fn wait_living(&mut self, nodes: usize) -> Result<()> {
        let began = tokio::time::Instant::now();
        loop {
            let status = self.status(pb::GetClusterStatusRequest {}).await?;
            if status.nodes.iter().filter(|node| node.lives).count() == nodes {
                return Ok(());
            }
            if began.elapsed() > WAIT_LIMIT {
                let seen = status.nodes;
                bail!("{nodes} nodes were not alive within {WAIT_LIMIT:?}; last seen: {seen:?}");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until the status of `other` satisfies `wanted`, and gives it.
    ///
    /// # Errors
    /// When it does not in time; the message has the last state.
    pub async fn wait_status(
        &mut self,
        other: &ClusterId,
        what: &str,
        wanted: impl Fn(&pb::PeerStatus) -> bool,
    ) -> Result<pb::PeerStatus> {
        let began = tokio::time::Instant::now();
        loop {
            let status = self.status(pb::GetClusterStatusRequest {}).await?;
            let peer = status
                .peers
                .into_iter()
                .find(|p| p.cluster_id == other.as_str());
            match peer {
                Some(peer) if wanted(&peer) => return Ok(peer),
                last if began.elapsed() > WAIT_LIMIT => {
                    bail!(
                        "cluster {other} was not {what} within {WAIT_LIMIT:?}; last seen: {last:?}"
                    )
                }
                _ => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }
}
