//! What the tests stand on: nodes with a fake role, a raw client, and a proxy that can stop forwarding.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::client::ResolvesClientCert;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{
    clock::Clock,
    domain::{
        agreement::{Digests, Theirs},
        announcement::{Acknowledgement, Announcement},
        em_code::EmCode,
        ids::{ClusterId, DeviceName, LoginName, ProfileName, Ref, SessionId, UserId},
        login::{
            Answer, Context, DeviceFacts, FindUser, HomeCluster, HomeServices, LoginAnswer,
            LoginRequest, LoginType, LogoutRequest, Ownership, Proof, SecurityMode,
        },
        refusal::Refusal,
        session::{EndReason, Role},
        version::{Version, VersionRange},
    },
    edge::{
        federation::{
            Parts, Roles, service,
            sync::{PAGE, SyncReply, SyncStep},
        },
        listener,
    },
    peer::{self, LinkState, LinkStatus, Peers},
    secret::Pin,
    store::peers::Peer,
    tasks::Tasks,
    trust::{
        TrustStore,
        bundle::Bundle,
        fixtures::{Leaf, Spec, cluster, pinned},
        receive::Call,
    },
    watch,
};

/// Long enough for a loaded machine; nothing waits for it in vain.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const HEARTBEAT: Duration = Duration::from_millis(100);
pub const DEAD_AFTER: Duration = Duration::from_millis(800);

/// A home that knows everyone, or never answers.
#[derive(Debug, Default)]
pub struct FakeRoles {
    pub hangs: std::sync::atomic::AtomicBool,
    /// Ends of sessions are answered all the same.
    pub ends: std::sync::atomic::AtomicBool,
    pub calls: Mutex<Vec<&'static str>>,
    pub begun: AtomicUsize,
    pub finished: AtomicUsize,
    pub last: Mutex<Option<Context>>,
    pub refuses: Mutex<Option<EmCode>>,
    /// How long each call takes.
    pub takes: Mutex<Duration>,
    /// What is shared with each peer, by our role.
    pub shared: Mutex<Shared>,
    /// Whose debts were settled.
    pub settled: Mutex<Vec<(Role, SessionId)>>,
}

/// Sessions by counterpart, role and id.
pub type Shared = BTreeMap<(ClusterId, Role), BTreeMap<SessionId, Theirs>>;

impl FakeRoles {
    async fn called<T>(&self, name: &'static str, context: &Context, answer: T) -> T {
        self.calls.lock().unwrap().push(name);
        *self.last.lock().unwrap() = Some(context.clone());
        self.begun.fetch_add(1, Ordering::SeqCst);
        let takes = *self.takes.lock().unwrap();
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let is_exempt = name.starts_with("end") && self.ends.load(Ordering::SeqCst);
        while self.hangs.load(Ordering::SeqCst) && !is_exempt {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.finished.fetch_add(1, Ordering::SeqCst);
        answer
    }

    pub fn seen(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }
}

impl Roles for FakeRoles {
    fn sync<'a>(&'a self, context: &'a Context, step: SyncStep) -> Answer<'a, SyncReply> {
        Box::pin(async move {
            self.called("sync", context, ()).await;
            if let Some(code) = *self.refuses.lock().unwrap() {
                return Err(Refusal::new(code, "as the test wants it"));
            }
            let shared = self.shared.lock().unwrap();
            let rows = |role| {
                let rows = shared.get(&(context.caller.clone(), role));
                rows.cloned().unwrap_or_default()
            };
            let living = |role| {
                let rows = rows(role).into_iter();
                rows.filter(|(_, theirs)| *theirs == Theirs::Living)
                    .map(|(id, _)| id)
            };
            Ok(match step {
                SyncStep::Digests => {
                    let mut digests = Digests::default();
                    living(Role::Home).for_each(|id| digests.home.add(id));
                    living(Role::Visiting).for_each(|id| digests.visiting.add(id));
                    SyncReply::Digests(Box::new(digests))
                }
                SyncStep::Living {
                    role,
                    buckets,
                    after,
                } => {
                    let mut ids: Vec<_> = living(role)
                        .filter(|id| buckets.has(*id) && after.is_none_or(|after| *id > after))
                        .collect();
                    let more = ids.len() > PAGE;
                    ids.truncate(PAGE);
                    SyncReply::Living { ids, more }
                }
                SyncStep::Standing { role, ids } => {
                    let rows = rows(role);
                    let standing = |id| rows.get(id).copied().unwrap_or(Theirs::Lacks);
                    SyncReply::Standing(ids.iter().map(standing).collect())
                }
                SyncStep::Settled { role, ids } => {
                    let ids = ids.into_iter().map(|id| (role, id));
                    self.settled.lock().unwrap().extend(ids);
                    SyncReply::Settled
                }
            })
        })
    }

    fn announced<'a>(
        &'a self,
        _: &'a Call,
        announcement: &'a Announcement,
    ) -> Answer<'a, Acknowledgement> {
        Box::pin(async move {
            Ok(Acknowledgement {
                sequence: announcement.sequence,
                outcomes: Vec::new(),
            })
        })
    }

    fn find_user<'a>(&'a self, context: &'a Context, _: &'a FindUser) -> Answer<'a, Ownership> {
        Box::pin(async move { Ok(self.called("find_user", context, Ownership::Mine).await) })
    }

    fn login<'a>(&'a self, context: &'a Context, _: &'a LoginRequest) -> Answer<'a, LoginAnswer> {
        Box::pin(async move {
            let answer = self.called("login", context, services().into()).await;
            match *self.refuses.lock().unwrap() {
                Some(code) => Err(Refusal::new(code, "as the test wants it")),
                None => Ok(answer),
            }
        })
    }

    fn end_from_visiting<'a>(
        &'a self,
        context: &'a Context,
        request: LogoutRequest,
    ) -> Answer<'a, EndReason> {
        Box::pin(async move {
            Ok(self
                .called("end_from_visiting", context, request.reason)
                .await)
        })
    }

    fn end_from_home<'a>(
        &'a self,
        context: &'a Context,
        request: LogoutRequest,
    ) -> Answer<'a, EndReason> {
        Box::pin(async move { Ok(self.called("end_from_home", context, request.reason).await) })
    }
}

fn services() -> HomeServices {
    HomeServices {
        user_id: UserId::new("ada").unwrap(),
        profile: ProfileName::new("ada-desk").unwrap(),
        base_device: None,
        call_managers: Vec::new(),
        tftp_servers: vec!["192.0.2.1".to_owned()],
        device_pool: None,
        lines: Vec::new(),
        locale: None,
        remaining: Some(Duration::from_secs(36_000)),
        reset: false,
        restart_reason: None,
        phone_services: Vec::new(),
    }
}

/// One node.
#[derive(Debug)]
pub struct Node {
    pub id: ClusterId,
    pub leaf: Leaf,
    pub trust: TrustStore,
    pub peers: Peers,
    pub roles: Arc<FakeRoles>,
    pub tasks: Tasks,
    pub drain: CancellationToken,
    pub address: SocketAddr,
    listener: Mutex<Option<TcpListener>>,
}

impl Node {
    /// A node that has bound its port but doesn't serve yet.
    pub async fn new(id: &str) -> Self {
        Self::with(id, |_| {}).await
    }

    pub async fn speaking(id: &str, min: Version, max: Version) -> Self {
        Self::with(id, |config| {
            config.versions = VersionRange::new(min, max).unwrap();
        })
        .await
    }

    pub async fn with(id: &str, adjust: impl FnOnce(&mut peer::Config)) -> Self {
        let (clock, tasks) = (Clock::system(), Tasks::default());
        let leaf = Spec::new(&format!("{id}-1.example")).self_signed();
        let trust = TrustStore::new(Some(leaf.identity()), clock.clone());
        let mut config = peer::Config::new(cluster(id), format!("{id}-1"));
        config.heartbeat = HEARTBEAT;
        config.dead_after = DEAD_AFTER;
        adjust(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            id: cluster(id),
            peers: Peers::new(config, trust.clone(), clock, tasks.clone()),
            leaf,
            trust,
            roles: Arc::default(),
            tasks,
            drain: CancellationToken::new(),
            address: listener.local_addr().unwrap(),
            listener: Mutex::new(Some(listener)),
        }
    }

    pub fn parts(&self) -> Parts {
        Parts {
            roles: Arc::clone(&self.roles) as Arc<dyn Roles>,
            peers: self.peers.clone(),
            refusals: self.trust.refusals().clone(),
            clock: self.trust.clock().clone(),
            tasks: self.tasks.clone(),
            drain: self.drain.clone(),
            turned: listener::TurnedAway::default(),
        }
    }

    /// Begins to serve.
    pub async fn serve(&self) {
        self.serve_as(self.parts()).await;
    }

    pub async fn serve_as(&self, parts: Parts) {
        let routes = service(parts).await.unwrap();
        let socket = self.listener.lock().unwrap().take().unwrap();
        let serving = listener::serve_federation(
            socket,
            self.trust.clone(),
            routes,
            self.tasks.clone(),
            listener::Config::default(),
        );
        self.tasks.spawn("test listener", serving);
    }

    pub fn trusts(&self, others: &[&Self]) {
        let bundles: Vec<Bundle> = others
            .iter()
            .map(|o| pinned(o.id.as_str(), &o.leaf))
            .collect();
        self.trust.publish_bundles(bundles).unwrap();
    }

    pub fn dials(&self, other: &Self, address: SocketAddr) {
        self.peers.set(vec![record(&other.id, address)]);
    }

    pub fn home(&self, other: &Self) -> Arc<dyn HomeCluster> {
        self.peers.get(&other.id).unwrap()
    }

    pub fn status(&self) -> LinkStatus {
        self.peers.status().remove(0)
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&LinkStatus) -> bool) -> LinkStatus {
        let deadline = Instant::now() + PATIENCE;
        let reached = self
            .peers
            .wait_for(|all| all.iter().any(&holds), deadline)
            .await;
        assert!(reached, "never {what}: {:?}", self.peers.status());
        assert!(Instant::now() < deadline, "{what}, but nobody was woken");
        self.status()
    }

    pub async fn until_up(&self) -> LinkStatus {
        self.until("up", |s| s.outbound == LinkState::Up).await
    }

    pub async fn until_down(&self) -> LinkStatus {
        self.until("down", |s| s.outbound == LinkState::Down).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// Two nodes that serve, trust and dial each other.
pub async fn pair() -> (Node, Node) {
    linked(Node::new("tokyo").await, Node::new("berlin").await).await
}

pub async fn linked(a: Node, b: Node) -> (Node, Node) {
    a.trusts(&[&b]);
    b.trusts(&[&a]);
    a.serve().await;
    b.serve().await;
    a.dials(&b, b.address);
    b.dials(&a, a.address);
    (a, b)
}

/// What is trusted of a cluster with these nodes.
pub fn cluster_of(nodes: &[&Node]) -> Bundle {
    let mut bundle = pinned(nodes[0].id.as_str(), &nodes[0].leaf);
    let others = nodes.iter().skip(1).map(|node| node.leaf.certificate());
    bundle.pinned.extend(others);
    bundle
}

pub fn record(id: &ClusterId, address: SocketAddr) -> Peer {
    Peer {
        cluster_id: id.clone(),
        enabled: true,
        allow_emcc: true,
        addresses: vec![address.to_string()],
        node_names: Vec::new(),
        user_patterns: Vec::new(),
        dn_patterns: Vec::new(),
        ignore_eku: false,
        accept_announcements: crate::domain::announcement::Acceptance::default(),
        description: String::new(),
    }
}

pub fn context(caller: &Node, length: Duration) -> Context {
    Context {
        reference: "7K3Q-9M2X".parse::<Ref>().unwrap(),
        caller: caller.id.clone(),
        certificate: None,
        deadline: Instant::now() + length,
        traits: crate::domain::capability::Traits::default(),
    }
}

pub fn find(login_type: LoginType) -> FindUser {
    FindUser {
        login_type,
        name: LoginName::new("ada").unwrap(),
    }
}

pub fn login(login_type: LoginType) -> LoginRequest {
    LoginRequest {
        session_id: SessionId::from_uuid(uuid::Uuid::now_v7()),
        user: find(login_type),
        proof: Proof::Pin(Pin::new("24680".to_owned()).unwrap()),
        profile: None,
        device: DeviceFacts {
            name: DeviceName::new("SEP00112233AABB").unwrap(),
            model: "8845".to_owned(),
            protocol: "SIP".to_owned(),
            security_mode: SecurityMode::NonSecure,
            locale: None,
            address: None,
        },
        geolocation: [].into(),
        supersedes: Vec::new(),
    }
}

/// A channel of our own making to `server`, with what `client` trusts and shows.
pub async fn channel(client: &Node, server: &Node, certificate: Shown) -> Channel {
    let mut config = client
        .trust
        .snapshot()
        .client_config(&server.id, Arc::default())
        .unwrap();
    if certificate == Shown::Nothing {
        config.client_auth_cert_resolver = Arc::new(Nothing);
    }
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let name = "127.0.0.1".try_into().unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .unwrap();
    let stream = Mutex::new(Some(hyper_util::rt::TokioIo::new(tls)));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.lock().unwrap().take();
        std::future::ready(stream.ok_or_else(|| std::io::Error::other("used")))
    });
    Endpoint::from_static("http://server")
        .origin(Uri::from_static("https://server"))
        .connect_with_connector(connector)
        .await
        .unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Own,
    Nothing,
}

#[derive(Debug)]
struct Nothing;

impl ResolvesClientCert for Nothing {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// A TCP proxy that can stop forwarding without closing anything, as a cut cable does.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    forwards: watch::Sender<bool>,
    /// Ends the connections of now.
    connections: Arc<Mutex<CancellationToken>>,
    tasks: Tasks,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (forwards, receiver) = watch::channel(true);
        let tasks = Tasks::default();
        let inner = tasks.clone();
        let connections = Arc::new(Mutex::new(CancellationToken::new()));
        let living = Arc::clone(&connections);
        let accept = async move {
            while let Ok((inbound, _)) = listener.accept().await {
                let outbound = TcpStream::connect(target).await.unwrap();
                let ((ri, wi), (ro, wo)) = (inbound.into_split(), outbound.into_split());
                let lives = living.lock().unwrap().clone();
                for (name, from, to) in [("out", ri, wo), ("in", ro, wi)] {
                    let (lives, forwards) = (lives.clone(), receiver.clone());
                    inner.spawn(name, async move {
                        lives.run_until_cancelled(copy(from, to, forwards)).await;
                    });
                }
            }
        };
        let token = tasks.token();
        tasks.spawn(
            "proxy",
            async move { token.run_until_cancelled(accept).await },
        );
        Self {
            address,
            forwards,
            connections,
            tasks,
        }
    }

    /// Ends all connections; new ones are taken as before.
    pub fn reset(&self) {
        let before = std::mem::take(&mut *self.connections.lock().unwrap());
        before.cancel();
    }

    pub fn cut(&self) {
        self.forwards.send_replace(false);
    }

    pub fn heal(&self) {
        self.forwards.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut forwards: watch::Receiver<bool>,
) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if forwards.wait_for(|on| *on).await.is_err() || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// A relay that counts connections, and holds back what the far side says for so long.
pub async fn relay(to: SocketAddr, holds: Duration) -> (SocketAddr, Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, mut relays) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    let counted = Arc::clone(&count);
    relays.spawn(async move {
        let mut running = JoinSet::new();
        while let Ok((near, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let far = TcpStream::connect(to).await.unwrap();
            let ((mut near_in, mut near_out), (mut far_in, mut far_out)) =
                (near.into_split(), far.into_split());
            running.spawn(async move {
                let _closed = tokio::io::copy(&mut near_in, &mut far_out).await;
            });
            let (sender, mut receiver) = tokio::sync::mpsc::channel(256);
            running.spawn(async move {
                let mut buffer = vec![0; 16 * 1024];
                while let Ok(length @ 1..) = far_in.read(&mut buffer).await {
                    let chunk = (Instant::now() + holds, buffer[..length].to_vec());
                    sender.send(chunk).await.unwrap();
                }
            });
            running.spawn(async move {
                while let Some((when, bytes)) = receiver.recv().await {
                    tokio::time::sleep_until(when.into()).await;
                    if near_out.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, count, relays)
}
