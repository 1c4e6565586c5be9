//! A home without a daemon: it stands at a cluster's address with that cluster's identity, claims every user, and
//! answers logins as a test likes.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use emccd::{
    clock::Clock,
    edge::listener::{Config, serve_federation},
    lab::Cluster,
    tasks::Tasks,
    trust::{TrustStore, bundle::Bundle, certificate::Certificate, identity::Identity},
    watch,
    wire::{
        pb::{
            self,
            federation_service_server::{FederationService, FederationServiceServer},
        },
        time::timestamp,
    },
};
use futures_util::{Stream, StreamExt as _};
use tokio::net::TcpListener;
use tokio_stream::wrappers::IntervalStream;
use tonic::{Request, Response, Status};

/// Makes the answer to a login.
type Answer = dyn Fn() -> Status + Send + Sync;

/// The home, while it stands.
pub(crate) struct RawHome {
    tasks: Tasks,
    logins: Arc<AtomicUsize>,
    ended: watch::Receiver<Vec<Vec<u8>>>,
}

impl RawHome {
    /// Takes the place of `home`, whose node must be off; `visiting` may call it, and is answered with `answer`
    /// whenever it asks for a login.
    pub(crate) async fn start(
        home: &Cluster,
        visiting: &Cluster,
        answer: impl Fn() -> Status + Send + Sync + 'static,
    ) -> Self {
        let (member, caller) = (home.member().unwrap(), visiting.member().unwrap());
        let identity =
            Identity::from_files(&member.federation_certificate, &member.federation_key).unwrap();
        let trust = TrustStore::new(Some(identity), Clock::system());
        let pem = std::fs::read(&caller.federation_certificate).unwrap();
        let bundle = Bundle {
            pinned: Certificate::read_all(&pem).unwrap(),
            ..Bundle::new(visiting.id.clone())
        };
        trust.publish_bundles(vec![bundle]).unwrap();
        let (tasks, logins) = (Tasks::default(), Arc::new(AtomicUsize::new(0)));
        let (ends, ended) = watch::channel(Vec::new());
        let service = FederationServiceServer::new(Service {
            cluster_id: home.id.to_string(),
            answer: Arc::new(answer),
            logins: Arc::clone(&logins),
            ends,
        });
        let listener = TcpListener::bind(&member.addresses.federation)
            .await
            .unwrap();
        let routes = tonic::service::Routes::new(service);
        let serve = serve_federation(listener, trust, routes, tasks.clone(), Config::default());
        tasks.spawn("raw home", serve);
        Self {
            tasks,
            logins,
            ended,
        }
    }

    /// How many logins it was asked for.
    pub(crate) fn logins(&self) -> usize {
        self.logins.load(Ordering::SeqCst)
    }

    /// Waits until it was told of so many ended sessions, and gives their ids.
    pub(crate) async fn wait_ended(&mut self, count: usize) -> Vec<Vec<u8>> {
        let limit = Duration::from_secs(20);
        let told = self.ended.wait_for(|ids| ids.len() >= count);
        let told = tokio::time::timeout(limit, told).await;
        told.expect("it was not told").unwrap().clone()
    }

    pub(crate) async fn stop(self) {
        self.tasks.shut_down(Duration::from_secs(5)).await;
    }
}

struct Service {
    cluster_id: String,
    answer: Arc<Answer>,
    logins: Arc<AtomicUsize>,
    ends: watch::Sender<Vec<Vec<u8>>>,
}

#[tonic::async_trait]
impl FederationService for Service {
    async fn hello(
        &self,
        request: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloResponse>, Status> {
        // It speaks whatever the caller speaks.
        Ok(Response::new(pb::HelloResponse {
            versions: request.into_inner().versions,
            cluster_id: self.cluster_id.clone(),
            node: "raw".to_owned(),
            now: Some(timestamp(Clock::system().now())),
            ..pb::HelloResponse::default()
        }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _request: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let beats = IntervalStream::new(tokio::time::interval(Duration::from_millis(200)));
        let beats = beats.enumerate().map(|(number, _)| {
            Ok(pb::WatchResponse {
                sequence: number as u64 + 1,
                now: Some(timestamp(Clock::system().now())),
                ..pb::WatchResponse::default()
            })
        });
        Ok(Response::new(Box::pin(beats)))
    }

    async fn find_user(
        &self,
        _request: Request<pb::FindUserRequest>,
    ) -> Result<Response<pb::FindUserResponse>, Status> {
        Ok(Response::new(pb::FindUserResponse {
            ownership: pb::Ownership::Mine.into(),
        }))
    }

    async fn login(
        &self,
        _request: Request<pb::LoginRequest>,
    ) -> Result<Response<pb::LoginResponse>, Status> {
        self.logins.fetch_add(1, Ordering::SeqCst);
        Err((self.answer)())
    }

    async fn announce(
        &self,
        _: Request<pb::AnnounceRequest>,
    ) -> Result<Response<pb::AnnounceResponse>, Status> {
        Err(Status::unimplemented("this home takes no announcements"))
    }

    type SyncSessionsStream =
        Pin<Box<dyn Stream<Item = Result<pb::SyncSessionsResponse, Status>> + Send>>;

    async fn sync_sessions(
        &self,
        _: Request<tonic::Streaming<pb::SyncSessionsRequest>>,
    ) -> Result<Response<Self::SyncSessionsStream>, Status> {
        Err(Status::unimplemented("this home tells nothing of sessions"))
    }

    async fn logout(
        &self,
        request: Request<pb::LogoutRequest>,
    ) -> Result<Response<pb::LogoutResponse>, Status> {
        let request = request.into_inner();
        self.ends.send_modify(|ids| ids.push(request.session_id));
        Ok(Response::new(pb::LogoutResponse {
            reason: request.reason,
        }))
    }
}
