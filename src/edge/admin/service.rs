//! The service itself: who calls, may they, and which part answers.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming, transport::server::UdsConnectInfo};
use tracing::info;

use crate::{
    apply::{
        Progress,
        columns::Kind,
        edit::{Edit, How},
    },
    clock::Clock,
    domain::ids::{BaseDeviceName, ClusterId, DeviceName, UserId},
    edge::admin::{
        acceptance, account, crls, debts, directory,
        error::Error,
        explain, export, import,
        operations::{ApplyMode, File, Live, Operations},
        other_nodes, pairings, parameters, peer_changes,
        peers::{self, Material},
        pins, policies, records, removals,
        roles::{Action, Actor, Groups},
        rotation,
        serve::MAX_APPLY_BYTES,
        sessions::{self, Which},
        trust_bulk,
        trust_removal::{self, Mode, Removal},
        views,
    },
    fault::FaultPoints,
    pairing::Pairings,
    secret::Pin,
    store::{self, Store},
    tasks::Tasks,
    trust::{
        certificate::{Fingerprint, read_fingerprint},
        crl,
    },
    watch,
    wire::admin::{self as pb, admin_service_server::AdminService},
};

/// What the admin service works with.
#[derive(Clone)]
pub struct AdminEdge {
    /// Our own cluster.
    pub cluster_id: ClusterId,
    /// This node.
    pub node: String,
    /// The database.
    pub store: Store,
    /// This node's clock.
    pub clock: Clock,
    /// Which Unix groups have which role.
    pub groups: Arc<Groups>,
    /// What goes beyond the database.
    pub operations: Arc<dyn Operations>,
    /// Where a test can stop this node.
    pub faults: FaultPoints,
    /// Invitations.
    pub pairings: Pairings,
    /// One place: large imports wait in nobody's memory.
    pub imports: Arc<Semaphore>,
    /// What goes on though its caller has gone away.
    pub tasks: Tasks,
}

impl std::fmt::Debug for AdminEdge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminEdge")
            .field("cluster_id", &self.cluster_id)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

impl AdminEdge {
    /// Finds out who calls and whether they may, and gives the message.
    async fn admit<T>(&self, action: Action, request: Request<T>) -> Result<(Actor, T), Status> {
        let uid = request
            .extensions()
            .get::<UdsConnectInfo>()
            .and_then(|connection| connection.peer_cred)
            .map(|credentials| credentials.uid());
        let Some(uid) = uid else {
            return Err(Error::refused(
                "the system does not tell who is calling",
                "use the socket from this machine",
            )
            .into_status());
        };
        let caller = account::look_up(uid).await;
        let actor = Actor::new(caller, account::own_uid(), &self.groups);
        if let Err(denied) = actor.check(action, &self.groups) {
            info!(actor = %actor, action = action.as_str(), "{denied}");
            return Err(Error::from(denied).into_status());
        }
        Ok((actor, request.into_inner()))
    }

    async fn own_fingerprints(&self) -> Result<Vec<String>, Error> {
        let identities = self.operations.identities().await?;
        let own = identities.into_iter().filter_map(|i| i.certificate);
        Ok(own.map(|certificate| certificate.fingerprint).collect())
    }

    async fn read_material(&self, material: &pb::TrustMaterial) -> Result<Material, Error> {
        let material = Material::read(material)?;
        material.check_foreign(&self.own_fingerprints().await?)?;
        Ok(material)
    }

    async fn status(&self) -> Result<pb::GetClusterStatusResponse, Error> {
        let mut status = self.operations.cluster_status().await?;
        let asked: Vec<_> = status
            .peers
            .iter()
            .map(|peer| ClusterId::new(&*peer.cluster_id).ok())
            .collect();
        let (all, agreements) = self
            .store
            .read(move |tx| {
                let now = tx.cluster_now()?;
                let mut agreements = Vec::with_capacity(asked.len());
                for peer in &asked {
                    agreements.push(match peer {
                        Some(peer) => {
                            let record = store::agreements::get(tx, peer)?;
                            let oldest = store::shared::oldest(tx, peer)?;
                            views::agreement(&record, oldest, now)
                        }
                        None => pb::SessionAgreement::default(),
                    });
                }
                Ok::<_, store::Error>((store::debts::creditors(tx)?, agreements))
            })
            .await?;
        for (peer, agreement) in status.peers.iter_mut().zip(agreements) {
            // What is on record of a peer that can't be asked is of before.
            if let Some(shown) = peer.agreement.as_mut().filter(|a| a.state != "unable") {
                *shown = agreement;
            }
            let owed = all
                .iter()
                .find(|owed| owed.counterpart.as_str() == peer.cluster_id);
            let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
            peer.owed_ends = owed.map_or(0, |owed| count(owed.ends));
            peer.parked_ends = owed.map_or(0, |owed| count(owed.parked));
        }
        Ok(status)
    }

    async fn add(
        &self,
        actor: &Actor,
        request: pb::AddClusterRequest,
    ) -> Result<pb::AddClusterResponse, Error> {
        let record = request
            .cluster
            .ok_or_else(|| Error::invalid("the record", "given"))?;
        let peer = peers::read_record(record)?;
        if peer.cluster_id == self.cluster_id {
            return Err(Error::refused(
                format!("{} is this cluster's own ID", self.cluster_id),
                "give the ID of the other cluster; its own emccd cluster status shows it",
            ));
        }
        let trust = match &request.trust {
            Some(material) => Some(self.read_material(material).await?),
            None => None,
        };
        let added = peers::add(&self.store, peer, trust, actor, self.clock.now()).await?;
        self.operations.peers_changed().await?;
        Ok(added)
    }

    async fn trust(
        &self,
        actor: &Actor,
        request: pb::AddTrustRequest,
    ) -> Result<pb::AddTrustResponse, Error> {
        let cluster = cluster_id(request.cluster_id)?;
        let now = self.clock.now();
        let added = match (request.trust, request.unrevoke) {
            (Some(material), None) => {
                let material = self.read_material(&material).await?;
                peers::add_trust(&self.store, cluster, material, actor, now).await?
            }
            (None, Some(revoked)) => {
                let fingerprint = fingerprint(&revoked)?;
                peer_changes::unrevoke(&self.store, cluster, fingerprint, actor, now).await?
            }
            _ => return Err(Error::invalid("the trust", "given, or what to unrevoke")),
        };
        self.operations.peers_changed().await?;
        Ok(added)
    }

    async fn set(
        &self,
        actor: &Actor,
        request: pb::SetClusterRequest,
    ) -> Result<pb::SetClusterResponse, Error> {
        let set = peer_changes::set(&self.store, request, actor, self.clock.now()).await?;
        self.operations.peers_changed().await?;
        Ok(set)
    }

    async fn set_one(
        &self,
        actor: &Actor,
        request: pb::SetParameterRequest,
    ) -> Result<pb::SetParameterResponse, Error> {
        let mut set = parameters::set(&self.store, request, actor, self.clock.now()).await?;
        self.operations.parameters_changed().await?;
        let in_force = self.operations.parameters_in_force();
        set.parameter = parameters::seen_from_node(set.parameter, &in_force);
        Ok(set)
    }

    async fn reset_one(
        &self,
        actor: &Actor,
        request: pb::ResetParameterRequest,
    ) -> Result<pb::ResetParameterResponse, Error> {
        let mut reset = parameters::reset(&self.store, request, actor, self.clock.now()).await?;
        self.operations.parameters_changed().await?;
        let in_force = self.operations.parameters_in_force();
        reset.parameter = parameters::seen_from_node(reset.parameter, &in_force);
        Ok(reset)
    }

    async fn put(
        &self,
        actor: &Actor,
        request: pb::PutRecordRequest,
    ) -> Result<pb::PutRecordResponse, Error> {
        let kinds = ["user", "device", "profile", "base-device", "policy"];
        let kind = Kind::named(&request.kind)
            .filter(|kind| kinds.contains(&kind.name))
            .ok_or_else(|| Error::invalid("the kind", kinds.join(", ")))?;
        let pin = request.pin.map(Pin::new).transpose();
        let edit = Edit {
            kind,
            name: request.name,
            how: if request.is_new { How::Add } else { How::Set },
            columns: request.columns,
            pin: pin.map_err(|error| Error::invalid("the PIN", error.to_string()))?,
        };
        let counts = self.operations.edit(edit, actor).await?;
        Ok(pb::PutRecordResponse {
            added: counts.iter().map(|count| count.added).sum(),
            changed: counts.iter().map(|count| count.changed).sum(),
        })
    }

    async fn remove_peer(
        &self,
        actor: &Actor,
        request: pb::RemoveClusterRequest,
    ) -> Result<pb::RemoveClusterResponse, Error> {
        let cluster = cluster_id(request.cluster_id.clone())?;
        self.operations
            .retire_peer(&cluster, request.forget_owed, actor)
            .await?;
        let now = self.clock.now();
        let removed = removals::remove_cluster(&self.store, request, actor, now).await;
        if removed.is_err() {
            self.operations.keep_peer(&cluster).await?;
        }
        let removed = removed?;
        self.operations.peers_changed().await?;
        Ok(removed)
    }

    async fn decide(
        &self,
        actor: &Actor,
        request: pb::AcceptTrustRequest,
    ) -> Result<pb::AcceptTrustResponse, Error> {
        let cluster = cluster_id(request.cluster_id)?;
        let which = request
            .fingerprint
            .as_deref()
            .map(fingerprint)
            .transpose()?;
        let shown = request.shown.map(|shown| {
            let all = shown.values.iter();
            all.map(|text| fingerprint(text)).collect()
        });
        let word = acceptance::Word {
            cluster,
            fingerprint: which,
            shown: shown.transpose()?,
            reject: request.reject,
        };
        let done = acceptance::decide(&self.store, word, actor, self.clock.now()).await?;
        self.operations.peers_changed().await?;
        Ok(done)
    }

    async fn distrust(
        &self,
        actor: &Actor,
        request: pb::RemoveTrustRequest,
    ) -> Result<pb::RemoveTrustResponse, Error> {
        let cluster = cluster_id(request.cluster_id)?;
        let fingerprint = fingerprint(&request.fingerprint)?;
        let mode = Mode::named(&request.mode)
            .ok_or_else(|| Error::invalid("the mode", "refuse, unlink or cascade"))?;
        let live = self.live().await?;
        let now = self.clock.now();
        let removal = Removal {
            cluster,
            fingerprint,
            mode,
        };
        let removed = trust_removal::remove_trust(&self.store, removal, live, actor, now).await?;
        self.operations.peers_changed().await?;
        Ok(removed)
    }

    /// The connections of all nodes, and the nodes of which they are not known.
    async fn live(&self) -> Result<(Vec<Live>, Vec<String>), Error> {
        let others = other_nodes::connections(&self.store, &self.node).await?;
        let mut live = self.operations.live();
        live.extend(others.told);
        Ok((live, others.unreported))
    }

    async fn import_trust_of(
        &self,
        asked: trust_bulk::Asked,
        actor: &Actor,
        tell: watch::Sender<trust_bulk::Done>,
    ) -> Result<pb::ImportedTrust, Error> {
        let (live, unreported) = self.live().await?;
        let now = self.clock.now();
        let own = self.cluster_id.clone();
        let bringing = trust_bulk::Bringing {
            own,
            asked,
            live,
            faults: self.faults.clone(),
        };
        let imported = trust_bulk::import(&self.store, bringing, actor, now, tell).await?;
        if !imported.dry_run {
            self.operations.peers_changed().await?;
        }
        Ok(pb::ImportedTrust {
            unreported,
            ..imported
        })
    }

    fn by(&self, actor: &Actor) -> crls::By {
        crls::By {
            actor: actor.to_string(),
            now: self.clock.now(),
            shown: self.operations.shown_by_peers(),
        }
    }

    async fn take_crls(
        &self,
        actor: &Actor,
        request: pb::AddCrlRequest,
    ) -> Result<pb::AddCrlResponse, Error> {
        let cluster = cluster_id(request.cluster_id)?;
        let reading = tokio::task::spawn_blocking(move || crl::read(&request.file));
        let contents = match reading.await {
            Ok(read) => read.map_err(|error| crls::refused(&error))?,
            Err(_) => return Err(Error::refused("reading the file broke off", "try again")),
        };
        let (is_strict, by) = (request.is_strict, self.by(actor));
        let added = crls::add(&self.store, cluster, contents, is_strict, by).await?;
        self.operations.peers_changed().await?;
        Ok(added)
    }

    async fn drop_crls(
        &self,
        actor: &Actor,
        request: pb::RemoveCrlRequest,
    ) -> Result<pb::RemoveCrlResponse, Error> {
        let cluster = cluster_id(request.cluster_id)?;
        let issuer = request.issuer.as_deref().map(fingerprint).transpose()?;
        let removed = crls::remove(&self.store, cluster, issuer, self.by(actor)).await?;
        self.operations.peers_changed().await?;
        Ok(removed)
    }

    async fn end_session(
        &self,
        actor: &Actor,
        request: pb::LogoutSessionRequest,
    ) -> Result<pb::LogoutSessionResponse, Error> {
        use pb::logout_session_request::Which as Asked;
        let which = match request.which {
            Some(Asked::Id(id)) => Which::id_or_ref(&id)?,
            Some(Asked::Device(name)) => Which::Device(device_name(name)?),
            None => return Err(Error::invalid("the session", "named")),
        };
        let key = sessions::to_end(&self.store, which).await?;
        let acknowledged = self.operations.end_session(&key, actor).await?;
        let mut ended = [sessions::row(&self.store, key).await?];
        self.explain_debts(&mut ended).await?;
        let [session] = ended;
        Ok(pb::LogoutSessionResponse {
            session: Some(session),
            acknowledged,
        })
    }

    /// Puts to what is owed why it has not been told yet.
    async fn explain_debts(&self, sessions: &mut [pb::Session]) -> Result<(), Error> {
        if sessions.iter().any(|session| session.owed) {
            let status = self.operations.cluster_status().await?;
            debts::explain(sessions, &status);
        }
        Ok(())
    }

    async fn apply_files(
        &self,
        actor: &Actor,
        request: pb::ApplyRequest,
    ) -> Result<pb::ApplyResponse, Error> {
        let bytes: usize = request.files.iter().map(|file| file.content.len()).sum();
        if request.files.is_empty() || bytes > MAX_APPLY_BYTES {
            return Err(Error::invalid(
                "the files",
                "at least one, and together at most 4 MiB",
            ));
        }
        let files = request
            .files
            .into_iter()
            .map(|mut file| File {
                name: std::mem::take(&mut file.name),
                content: std::mem::take(&mut file.content).into(),
            })
            .collect();
        let mode = ApplyMode {
            dry_run: request.dry_run,
            prune: request.prune,
            removals: import::agreed(request.removals),
        };
        let told = watch::Sender::new(Progress::begin());
        import::apply(&*self.operations, files, mode, actor, told).await
    }
}

#[tonic::async_trait]
impl AdminService for AdminEdge {
    async fn get_cluster_status(
        &self,
        request: Request<pb::GetClusterStatusRequest>,
    ) -> Result<Response<pb::GetClusterStatusResponse>, Status> {
        self.admit(Action::View, request).await?;
        within(LOOK, self.status()).await
    }

    async fn list_clusters(
        &self,
        request: Request<pb::ListClustersRequest>,
    ) -> Result<Response<pb::ListClustersResponse>, Status> {
        self.admit(Action::View, request).await?;
        within(LOOK, async {
            let clusters = peers::list(&self.store).await?;
            Ok(pb::ListClustersResponse { clusters })
        })
        .await
    }

    async fn add_cluster(
        &self,
        request: Request<pb::AddClusterRequest>,
    ) -> Result<Response<pb::AddClusterResponse>, Status> {
        let (actor, request) = self.admit(Action::AddCluster, request).await?;
        within(CHANGE, self.add(&actor, request)).await
    }

    async fn set_cluster(
        &self,
        request: Request<pb::SetClusterRequest>,
    ) -> Result<Response<pb::SetClusterResponse>, Status> {
        let (actor, request) = self.admit(Action::SetCluster, request).await?;
        within(CHANGE, self.set(&actor, request)).await
    }

    async fn list_trust(
        &self,
        request: Request<pb::ListTrustRequest>,
    ) -> Result<Response<pb::ListTrustResponse>, Status> {
        let (_, query) = self.admit(Action::View, request).await?;
        within(LOOK, async {
            let cluster = query.cluster_id.map(cluster_id).transpose()?;
            let entries = peers::list_trust(&self.store, cluster).await?;
            Ok(pb::ListTrustResponse { entries })
        })
        .await
    }

    async fn accept_trust(
        &self,
        request: Request<pb::AcceptTrustRequest>,
    ) -> Result<Response<pb::AcceptTrustResponse>, Status> {
        let (actor, request) = self.admit(Action::AddTrust, request).await?;
        within(CHANGE, self.decide(&actor, request)).await
    }

    async fn forecast_trust(
        &self,
        request: Request<pb::ForecastTrustRequest>,
    ) -> Result<Response<pb::ForecastTrustResponse>, Status> {
        let (_, query) = self.admit(Action::View, request).await?;
        within(LOOK, async {
            let cluster = query.cluster_id.map(cluster_id).transpose()?;
            let at = match query.as_of {
                Some(text) => records::read_time(&text)?,
                None => self.clock.now(),
            };
            Ok(self.operations.forecast(cluster.as_ref(), at))
        })
        .await
    }

    async fn add_trust(
        &self,
        request: Request<pb::AddTrustRequest>,
    ) -> Result<Response<pb::AddTrustResponse>, Status> {
        let (actor, request) = self.admit(Action::AddTrust, request).await?;
        within(CHANGE, self.trust(&actor, request)).await
    }

    async fn remove_trust(
        &self,
        request: Request<pb::RemoveTrustRequest>,
    ) -> Result<Response<pb::RemoveTrustResponse>, Status> {
        let (actor, request) = self.admit(Action::RemoveTrust, request).await?;
        within(CHANGE, self.distrust(&actor, request)).await
    }

    async fn add_crl(
        &self,
        request: Request<pb::AddCrlRequest>,
    ) -> Result<Response<pb::AddCrlResponse>, Status> {
        let (actor, request) = self.admit(Action::AddTrust, request).await?;
        within(CHANGE, self.take_crls(&actor, request)).await
    }

    async fn list_crls(
        &self,
        request: Request<pb::ListCrlsRequest>,
    ) -> Result<Response<pb::ListCrlsResponse>, Status> {
        let (_, query) = self.admit(Action::View, request).await?;
        within(LOOK, async {
            let cluster = query.cluster_id.map(cluster_id).transpose()?;
            crls::list(&self.store, cluster, self.clock.now()).await
        })
        .await
    }

    async fn remove_crl(
        &self,
        request: Request<pb::RemoveCrlRequest>,
    ) -> Result<Response<pb::RemoveCrlResponse>, Status> {
        let (actor, request) = self.admit(Action::RemoveTrust, request).await?;
        within(CHANGE, self.drop_crls(&actor, request)).await
    }

    async fn explain_trust(
        &self,
        request: Request<pb::ExplainTrustRequest>,
    ) -> Result<Response<pb::ExplainTrustResponse>, Status> {
        let (_, request) = self.admit(Action::ExplainTrust, request).await?;
        within(EXPLAIN, explain::trust(&*self.operations, request)).await
    }

    async fn list_identities(
        &self,
        request: Request<pb::ListIdentitiesRequest>,
    ) -> Result<Response<pb::ListIdentitiesResponse>, Status> {
        self.admit(Action::View, request).await?;
        within(LOOK, async {
            let identities = self.operations.identities().await?;
            let others = other_nodes::identities(&self.store, &self.node).await?;
            Ok(pb::ListIdentitiesResponse {
                identities,
                others: others.told,
                unreported: others.unreported,
            })
        })
        .await
    }

    async fn reload_identities(
        &self,
        request: Request<pb::ReloadIdentitiesRequest>,
    ) -> Result<Response<pb::ReloadIdentitiesResponse>, Status> {
        let (actor, _) = self.admit(Action::ReloadIdentities, request).await?;
        within(CHANGE, async {
            let identities = self.operations.reload_identities(&actor).await?;
            Ok(pb::ReloadIdentitiesResponse { identities })
        })
        .await
    }

    async fn list_rotations(
        &self,
        request: Request<pb::ListRotationsRequest>,
    ) -> Result<Response<pb::ListRotationsResponse>, Status> {
        self.admit(Action::View, request).await?;
        within(LOOK, async {
            let rotations = rotation::list(&self.store, &self.cluster_id).await?;
            Ok(pb::ListRotationsResponse { rotations })
        })
        .await
    }

    async fn step_rotation(
        &self,
        request: Request<pb::StepRotationRequest>,
    ) -> Result<Response<pb::StepRotationResponse>, Status> {
        let (actor, request) = self.admit(Action::RotateCertificates, request).await?;
        let now = self.clock.now();
        within(
            CHANGE,
            rotation::step(
                &self.store,
                (&self.cluster_id, &self.node),
                request,
                &actor,
                now,
            ),
        )
        .await
    }

    async fn list_users(
        &self,
        request: Request<pb::ListUsersRequest>,
    ) -> Result<Response<pb::ListUsersResponse>, Status> {
        let (_, query) = self.admit(Action::View, request).await?;
        within(LOOK, directory::list_users(&self.store, query)).await
    }

    async fn get_user(
        &self,
        request: Request<pb::GetUserRequest>,
    ) -> Result<Response<pb::GetUserResponse>, Status> {
        let (_, query) = self.admit(Action::View, request).await?;
        within(LOOK, async {
            let user = user_id(query.user_id)?;
            let own = self.cluster_id.clone();
            directory::get_user(&self.store, own, user).await
        })
        .await
    }

    async fn list_devices(
        &self,
        request: Request<pb::ListDevicesRequest>,
    ) -> Result<Response<pb::ListDevicesResponse>, Status> {
        let (_, query) = self.admit(Action::View, request).await?;
        within(LOOK, directory::list_devices(&self.store, query)).await
    }

    async fn get_device(
        &self,
        request: Request<pb::GetDeviceRequest>,
    ) -> Result<Response<pb::GetDeviceResponse>, Status> {
        let (_, query) = self.admit(Action::View, request).await?;
        within(LOOK, async {
            directory::get_device(&self.store, device_name(query.name)?).await
        })
        .await
    }

    async fn list_base_devices(
        &self,
        request: Request<pb::ListBaseDevicesRequest>,
    ) -> Result<Response<pb::ListBaseDevicesResponse>, Status> {
        self.admit(Action::View, request).await?;
        within(LOOK, async {
            let base_devices = directory::list_base_devices(&self.store).await?;
            Ok(pb::ListBaseDevicesResponse { base_devices })
        })
        .await
    }

    async fn get_base_device(
        &self,
        request: Request<pb::GetBaseDeviceRequest>,
    ) -> Result<Response<pb::GetBaseDeviceResponse>, Status> {
        let (_, query) = self.admit(Action::View, request).await?;
        within(LOOK, async {
            let name = BaseDeviceName::new(query.name).map_err(|_| {
                Error::invalid("the base device", "1 to 64 characters of A-Z a-z 0-9 . _ -")
            })?;
            directory::get_base_device(&self.store, name).await
        })
        .await
    }

    async fn list_parameters(
        &self,
        request: Request<pb::ListParametersRequest>,
    ) -> Result<Response<pb::ListParametersResponse>, Status> {
        self.admit(Action::View, request).await?;
        within(LOOK, async {
            let parameters =
                parameters::list(&self.store, &self.operations.parameters_in_force()).await?;
            Ok(pb::ListParametersResponse { parameters })
        })
        .await
    }

    async fn set_parameter(
        &self,
        request: Request<pb::SetParameterRequest>,
    ) -> Result<Response<pb::SetParameterResponse>, Status> {
        let (actor, request) = self.admit(Action::SetParameter, request).await?;
        within(CHANGE, self.set_one(&actor, request)).await
    }

    async fn reset_parameter(
        &self,
        request: Request<pb::ResetParameterRequest>,
    ) -> Result<Response<pb::ResetParameterResponse>, Status> {
        let (actor, request) = self.admit(Action::ResetParameter, request).await?;
        within(CHANGE, self.reset_one(&actor, request)).await
    }

    async fn list_sessions(
        &self,
        request: Request<pb::ListSessionsRequest>,
    ) -> Result<Response<pb::ListSessionsResponse>, Status> {
        let (_, query) = self.admit(Action::View, request).await?;
        within(LOOK, async {
            let mut found = sessions::list(&self.store, query).await?;
            self.explain_debts(&mut found.sessions).await?;
            Ok(found)
        })
        .await
    }

    async fn get_session(
        &self,
        request: Request<pb::GetSessionRequest>,
    ) -> Result<Response<pb::GetSessionResponse>, Status> {
        let (_, query) = self.admit(Action::View, request).await?;
        within(LOOK, async {
            let which = Which::id_or_ref(&query.id)?;
            let mut sessions = sessions::get(&self.store, which).await?;
            self.explain_debts(&mut sessions).await?;
            Ok(pb::GetSessionResponse { sessions })
        })
        .await
    }

    async fn logout_session(
        &self,
        request: Request<pb::LogoutSessionRequest>,
    ) -> Result<Response<pb::LogoutSessionResponse>, Status> {
        let (actor, request) = self.admit(Action::LogoutSession, request).await?;
        within(CHANGE, self.end_session(&actor, request)).await
    }

    async fn retry_session(
        &self,
        request: Request<pb::RetrySessionRequest>,
    ) -> Result<Response<pb::RetrySessionResponse>, Status> {
        let (actor, request) = self.admit(Action::RetrySession, request).await?;
        within(CHANGE, async {
            let now = self.clock.now();
            let mut retried = debts::retry(&self.store, request, &actor, now).await?;
            self.explain_debts(&mut retried.sessions).await?;
            Ok(retried)
        })
        .await
    }

    async fn drop_session(
        &self,
        request: Request<pb::DropSessionRequest>,
    ) -> Result<Response<pb::DropSessionResponse>, Status> {
        let (actor, request) = self.admit(Action::DropSession, request).await?;
        within(CHANGE, async {
            let now = self.clock.now();
            let dropped = debts::drop_one(&self.store, request, &actor, now).await?;
            // Nobody brings it to them any more: they may come and ask, at once where there is a link.
            let peers = dropped.sessions.iter();
            let peers = peers.filter_map(|session| ClusterId::new(&*session.peer).ok());
            for peer in peers.filter(|peer| *peer != self.cluster_id) {
                self.operations.ring(&peer);
            }
            Ok(dropped)
        })
        .await
    }

    async fn unlock_pin(
        &self,
        request: Request<pb::UnlockPinRequest>,
    ) -> Result<Response<pb::UnlockPinResponse>, Status> {
        let (actor, request) = self.admit(Action::UnlockPin, request).await?;
        within(CHANGE, async {
            let user = user_id(request.user_id)?;
            pins::unlock(&self.store, user, &actor, self.clock.now()).await
        })
        .await
    }

    async fn remove_cluster(
        &self,
        request: Request<pb::RemoveClusterRequest>,
    ) -> Result<Response<pb::RemoveClusterResponse>, Status> {
        let (actor, request) = self.admit(Action::RemoveCluster, request).await?;
        within(REMOVE, self.remove_peer(&actor, request)).await
    }

    async fn refresh_cluster(
        &self,
        request: Request<pb::RefreshClusterRequest>,
    ) -> Result<Response<pb::RefreshClusterResponse>, Status> {
        let (_, request) = self.admit(Action::RefreshCluster, request).await?;
        within(CHANGE, async {
            let cluster = cluster_id(request.cluster_id)?;
            let peer = self.operations.refresh_cluster(&cluster).await?;
            Ok(pb::RefreshClusterResponse { peer: Some(peer) })
        })
        .await
    }

    async fn invite_cluster(
        &self,
        request: Request<pb::InviteClusterRequest>,
    ) -> Result<Response<pb::InviteClusterResponse>, Status> {
        let (actor, request) = self.admit(Action::InviteCluster, request).await?;
        within(CHANGE, pairings::invite(&self.pairings, request, &actor)).await
    }

    async fn join_cluster(
        &self,
        request: Request<pb::JoinClusterRequest>,
    ) -> Result<Response<pb::JoinClusterResponse>, Status> {
        let (actor, request) = self.admit(Action::JoinCluster, request).await?;
        within(JOIN, pairings::join(&self.pairings, request, &actor)).await
    }

    async fn list_pairings(
        &self,
        request: Request<pb::ListPairingsRequest>,
    ) -> Result<Response<pb::ListPairingsResponse>, Status> {
        let (_, query) = self.admit(Action::View, request).await?;
        within(LOOK, pairings::list(&self.pairings, &query)).await
    }

    async fn get_pairing(
        &self,
        request: Request<pb::GetPairingRequest>,
    ) -> Result<Response<pb::GetPairingResponse>, Status> {
        let (_, query) = self.admit(Action::View, request).await?;
        within(CHANGE, pairings::get(&self.pairings, &query)).await
    }

    async fn confirm_pairing(
        &self,
        request: Request<pb::ConfirmPairingRequest>,
    ) -> Result<Response<pb::ConfirmPairingResponse>, Status> {
        let (actor, request) = self.admit(Action::ConfirmPairing, request).await?;
        within(CHANGE, pairings::confirm(&self.pairings, request, &actor)).await
    }

    async fn cancel_pairing(
        &self,
        request: Request<pb::CancelPairingRequest>,
    ) -> Result<Response<pb::CancelPairingResponse>, Status> {
        let (actor, request) = self.admit(Action::CancelPairing, request).await?;
        within(CHANGE, pairings::cancel(&self.pairings, &request, &actor)).await
    }

    async fn hand_over(
        &self,
        request: Request<pb::HandOverRequest>,
    ) -> Result<Response<pb::HandOverResponse>, Status> {
        let (actor, request) = self.admit(Action::HandOver, request).await?;
        within(CHANGE, async {
            self.operations.hand_over(&request, &actor).await?;
            Ok(pb::HandOverResponse {})
        })
        .await
    }

    async fn list_profiles(
        &self,
        request: Request<pb::ListProfilesRequest>,
    ) -> Result<Response<pb::ListProfilesResponse>, Status> {
        let (_, query) = self.admit(Action::View, request).await?;
        within(LOOK, removals::list_profiles(&self.store, query)).await
    }

    async fn get_profile(
        &self,
        request: Request<pb::GetProfileRequest>,
    ) -> Result<Response<pb::GetProfileResponse>, Status> {
        let (_, query) = self.admit(Action::View, request).await?;
        within(LOOK, removals::get_profile(&self.store, query.name)).await
    }

    async fn list_policies(
        &self,
        request: Request<pb::ListPoliciesRequest>,
    ) -> Result<Response<pb::ListPoliciesResponse>, Status> {
        self.admit(Action::View, request).await?;
        within(LOOK, async {
            let policies = policies::list(&self.store).await?;
            Ok(pb::ListPoliciesResponse { policies })
        })
        .await
    }

    async fn put_record(
        &self,
        request: Request<pb::PutRecordRequest>,
    ) -> Result<Response<pb::PutRecordResponse>, Status> {
        let (actor, request) = self.admit(Action::PutRecord, request).await?;
        within(APPLY, self.put(&actor, request)).await
    }

    async fn remove_record(
        &self,
        request: Request<pb::RemoveRecordRequest>,
    ) -> Result<Response<pb::RemoveRecordResponse>, Status> {
        let (actor, request) = self.admit(Action::RemoveRecord, request).await?;
        let now = self.clock.now();
        within(CHANGE, async {
            if request.end_sessions {
                for key in removals::sessions(&self.store, &request).await? {
                    self.operations.end_session(&key, &actor).await?;
                }
            }
            removals::remove(&self.store, request, &actor, now).await
        })
        .await
    }

    async fn list_audit(
        &self,
        request: Request<pb::ListAuditRequest>,
    ) -> Result<Response<pb::ListAuditResponse>, Status> {
        let (_, query) = self.admit(Action::View, request).await?;
        within(LOOK, records::list(&self.store, query)).await
    }

    async fn verify_audit(
        &self,
        request: Request<pb::VerifyAuditRequest>,
    ) -> Result<Response<pb::VerifyAuditResponse>, Status> {
        let (_, request) = self.admit(Action::View, request).await?;
        within(WHOLE_STORE, records::verify(&self.store, request)).await
    }

    async fn back_up_store(
        &self,
        request: Request<pb::BackUpStoreRequest>,
    ) -> Result<Response<pb::BackUpStoreResponse>, Status> {
        let (actor, request) = self.admit(Action::BackUp, request).await?;
        within(
            WHOLE_STORE,
            records::back_up(&self.store, request, &actor, &self.clock, &self.tasks),
        )
        .await
    }

    async fn apply(
        &self,
        request: Request<pb::ApplyRequest>,
    ) -> Result<Response<pb::ApplyResponse>, Status> {
        let (actor, request) = self.admit(Action::Apply, request).await?;
        within(APPLY, self.apply_files(&actor, request)).await
    }

    type ApplyStreamStream = import::Told;

    async fn apply_stream(
        &self,
        request: Request<Streaming<pb::ApplyStreamRequest>>,
    ) -> Result<Response<Self::ApplyStreamStream>, Status> {
        let (actor, pieces) = self.admit(Action::Apply, request).await?;
        within(APPLY, async {
            let place = Arc::clone(&self.imports);
            let place = place.try_acquire_owned().map_err(|_| Error::Unavailable {
                why: "another import is under way".to_owned(),
                next: "try again when it is done".to_owned(),
            })?;
            let (files, mode) = import::collect(pieces, import::PAUSE).await?;
            let (tell, told) = watch::channel(Progress::begin());
            let (operations, moves) = (Arc::clone(&self.operations), told.clone());
            let applying = async move {
                let _place = place;
                let applying = import::apply(&*operations, files, mode, &actor, tell);
                import::while_it_moves(applying, moves, import::STANDSTILL).await
            };
            Ok(import::told(applying, told))
        })
        .await
    }

    type ExportTrustStream = trust_bulk::Exported;

    async fn export_trust(
        &self,
        request: Request<pb::ExportTrustRequest>,
    ) -> Result<Response<Self::ExportTrustStream>, Status> {
        let (_, request) = self.admit(Action::View, request).await?;
        within(EXPORT, async {
            let (mut all, mut unreported) = (Vec::new(), Vec::new());
            if request.own {
                let shown = self.operations.own_certificates().await?;
                let whose = (&self.cluster_id, &*self.node);
                let own = other_nodes::certificates(&self.store, whose, shown).await?;
                all.extend(own.told);
                unreported = own.unreported;
            }
            if request.trusted {
                all.extend(trust_bulk::trusted(&self.store).await?);
            }
            Ok(trust_bulk::exported(&all, unreported))
        })
        .await
    }

    type ImportTrustStream = trust_bulk::Told;

    async fn import_trust(
        &self,
        request: Request<Streaming<pb::ImportTrustRequest>>,
    ) -> Result<Response<Self::ImportTrustStream>, Status> {
        let (actor, pieces) = self.admit(Action::AddTrust, request).await?;
        within(APPLY, async {
            let asked = trust_bulk::Asked::collect(pieces, import::PAUSE).await?;
            let (tell, progress) = watch::channel((0, 0));
            let edge = self.clone();
            let importing = async move { edge.import_trust_of(asked, &actor, tell).await };
            Ok(trust_bulk::told(Box::pin(importing), progress))
        })
        .await
    }

    type ExportStream = export::Pieces;

    async fn export(
        &self,
        request: Request<pb::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let (actor, request) = self.admit(Action::Export, request).await?;
        let now = self.clock.now();
        within(EXPORT, export::all(&self.store, &request, &actor, now)).await
    }
}

/// Gives an answer, or gives up waiting for it.
async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<Response<T>, Status> {
    let seconds = limit.as_secs();
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or(Err(Error::TooSlow { seconds }))
        .map(Response::new)
        .map_err(Error::into_status)
}

fn fingerprint(text: &str) -> Result<Fingerprint, Error> {
    read_fingerprint(text)
        .ok_or_else(|| Error::invalid("the fingerprint", "64 hex digits, colons between or not"))
}

fn cluster_id(text: String) -> Result<ClusterId, Error> {
    ClusterId::new(text)
        .map_err(|_| Error::invalid("the cluster ID", "1 to 64 characters of A-Z a-z 0-9 . _ -"))
}

fn user_id(text: String) -> Result<UserId, Error> {
    UserId::new(text).map_err(|_| Error::invalid("the user ID", "1 to 128 bytes of text"))
}

fn device_name(text: String) -> Result<DeviceName, Error> {
    DeviceName::new(text)
        .map_err(|_| Error::invalid("the device", "1 to 64 characters of A-Z a-z 0-9 . _ -"))
}

/// Reading from the database and from memory.
const LOOK: Duration = Duration::from_secs(10);

/// Room for several addresses, each of which says nothing at several steps.
const EXPLAIN: Duration = Duration::from_secs(40);

/// Room for the other cluster to answer within the login deadline.
const CHANGE: Duration = Duration::from_secs(20);

/// Room for a peer to learn that its sessions are over.
const REMOVE: Duration = Duration::from_secs(45);

/// Room to dial every address of the other cluster, and for it to dial ours.
const JOIN: Duration = Duration::from_secs(120);

/// Every row is read.
const WHOLE_STORE: Duration = Duration::from_secs(10 * 60);

/// PINs are hashed on the way, as many as fit into one message. Beyond that files come in pieces, without a limit on the
/// whole.
const APPLY: Duration = Duration::from_secs(15 * 60);

/// All records of the largest cluster are read and written down.
const EXPORT: Duration = Duration::from_secs(60);
