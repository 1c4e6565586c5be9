//! How a node's parts are put together.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
};
use tracing::{error, info, warn};

use super::{
    Addresses, Error, Node, Options, operations::NodeOperations, reload::Reloader,
    roles::FederationRoles, shutdown::Stages, witness::watch_audit,
};
use crate::{
    admission::Admission,
    apply::Applier,
    clock::Clock,
    config::{Config, PEPPER_BYTES},
    credentials::{self, Credentials, lockout},
    domain::{
        federation::Federation, ids::ClusterId, login::HomeCluster, parameters::Parameters,
        version::VersionRange,
    },
    edge::{admin, federation, listener, phone},
    fault::FaultPoints,
    home::{self, HomeRole, LocalHome},
    peer::{self, Peers, outbox::Outbox},
    secret::Secret,
    store::{
        self, Store, Transaction, audit,
        membership::{self, Membership},
        meta, retention,
    },
    tasks::Tasks,
    trust::TrustStore,
    visiting::{self, VisitingRole},
};

/// How many files a node may have open at a time, when all the places for connections are taken.
#[must_use]
pub fn most_files(config: &Config) -> u64 {
    /// The store, the log, links to peers, operators' commands, and what is opened for a moment.
    const OTHERS: usize = 512;
    let door = listener::Config::default();
    let listeners = 2 + usize::from(config.phone.plain_listen.is_some());
    let most = config.federation.max_connections
        + config.phone.max_connections
        + door.max_unidentified
        + listeners * door.max_pending
        + OTHERS;
    u64::try_from(most).unwrap_or(u64::MAX)
}

/// What the parts of a node share.
struct Core {
    config: Config,
    versions: VersionRange,
    clock: Clock,
    store: Store,
    credentials: Credentials,
    admission: Admission,
    pepper: Pepper,
    trust: TrustStore,
    peers: Peers,
    membership: Membership,
    reloader: Arc<Reloader>,
    /// Told when a debt to another cluster is made.
    owed: Arc<Notify>,
}

/// The roles, and what they know other clusters by.
struct AllRoles {
    home: HomeRole,
    visiting: VisitingRole,
    local: Arc<dyn HomeCluster>,
    others: Arc<dyn Federation>,
}

/// Starts a node. What it began before an error goes on until `stages` are cancelled.
pub(super) async fn start(
    config: Config,
    options: Options,
    stages: &Stages,
) -> Result<Node, Error> {
    let Options {
        versions,
        faults,
        clock,
    } = options;
    let store = open_store(&config).await?;
    claim_store(&store, &config.cluster_id).await?;
    let secret = read_pepper(&config.credentials.pepper_file)?;
    let audit_key = audit::Key::from_pepper(&secret);
    let credentials = Credentials::new(&credentials_config(&config), secret)?;
    let pepper = claim_pepper(&store, &credentials, &config.credentials.pepper_file).await?;
    store.seal_audit(audit_key).await?;
    let sockets = Sockets::bind(&config).await?;
    let addresses = sockets.addresses(&config)?;

    let trust = TrustStore::new(None, clock.clone());
    let peers = Peers::new(
        peer_config(&config, versions),
        trust.clone(),
        clock.clone(),
        stages.links.clone(),
    );
    let membership = Membership::new(
        store.clone(),
        clock.clone(),
        membership::Config {
            node: config.node.clone(),
            addresses: advertised(&config, addresses.federation),
            software: peers.config().software.clone(),
        },
    );
    membership.join().await?;
    let reloader = Reloader::new(&config, store.clone(), trust.clone(), peers.clone())?;
    let core = Core {
        reloader: Arc::new(reloader),
        owed: Arc::new(Notify::new()),
        config,
        versions,
        clock,
        store,
        credentials,
        admission: Admission::new(Parameters::default().maximum_concurrent_requests),
        pepper,
        trust,
        peers,
        membership,
    };
    core.reloader.refresh_parameters().await?;
    core.read_all().await;
    let roles = core.roles(faults, &stages.work);
    core.open_doors(sockets, &addresses, &roles, stages).await?;
    core.begin_tasks(roles, &stages.work);
    core.let_go_at_the_end(&stages.doors);
    info!(
        federation = %addresses.federation, phone = %addresses.phone, admin = %addresses.admin.display(),
        versions = %core.versions, "ready"
    );
    Ok(Node {
        addresses,
        stages: stages.clone(),
        reloader: core.reloader,
        grace: core.config.shutdown_grace,
    })
}

impl Core {
    /// Puts in force what is valid; what is not is told, and keeps nobody from what is.
    async fn read_all(&self) {
        let reloader = &self.reloader;
        if let Err(problem) = reloader.reload_federation_identity() {
            error!(
                cause = crate::telemetry::error_chain(&problem),
                "the federation identity is not valid: peers can't be served until it is"
            );
        }
        if let Err(problem) = reloader.reload_phone_identity() {
            error!(
                cause = crate::telemetry::error_chain(&problem),
                "the phone identity is not valid: phones are refused until it is"
            );
        }
        if let Err(problem) = reloader.refresh_peers().await {
            error!(
                cause = crate::telemetry::error_chain(&problem),
                "the stored peers and their trust can't be used: no peer is served until they are mended"
            );
        }
    }

    fn roles(&self, faults: FaultPoints, tasks: &Tasks) -> AllRoles {
        let home = HomeRole::new(home::Parts {
            cluster: self.config.cluster_id.clone(),
            security_mode: self.config.federation.security_mode,
            store: self.store.clone(),
            credentials: self.credentials.clone(),
            admission: self.admission.clone(),
            clock: self.clock.clone(),
            faults: faults.clone(),
            parameters: self.reloader.parameters(),
            links: Arc::new(self.peers.clone()),
            owed: Arc::clone(&self.owed),
        });
        let local: Arc<dyn HomeCluster> = Arc::new(LocalHome(home.clone()));
        let others: Arc<dyn Federation> = Arc::new(self.peers.clone());
        let visiting = VisitingRole::new(visiting::Parts {
            config: visiting_config(&self.config, self.versions),
            store: self.store.clone(),
            clock: self.clock.clone(),
            local: Arc::clone(&local),
            federation: Arc::clone(&others),
            faults,
            parameters: self.reloader.parameters(),
            admission: self.admission.clone(),
            tasks: tasks.clone(),
            owed: Arc::clone(&self.owed),
        });
        AllRoles {
            home,
            visiting,
            local,
            others,
        }
    }

    async fn open_doors(
        &self,
        sockets: Sockets,
        addresses: &Addresses,
        roles: &AllRoles,
        stages: &Stages,
    ) -> Result<(), Error> {
        let (config, doors) = (&self.config, &stages.doors);
        let routes = federation::service(federation::Parts {
            roles: Arc::new(FederationRoles {
                home: roles.home.clone(),
                visiting: roles.visiting.clone(),
            }),
            peers: self.peers.clone(),
            refusals: self.trust.refusals().clone(),
            clock: self.clock.clone(),
            tasks: stages.work.clone(),
            drain: doors.token(),
        })
        .await?;
        let limits = |max_connections| listener::Config {
            drain_grace: config.shutdown_grace,
            ..listener::Config::for_connections(max_connections)
        };
        let door = listener::serve_federation(
            sockets.federation,
            self.trust.clone(),
            routes,
            doors.clone(),
            limits(config.federation.max_connections),
        );
        doors.spawn("federation listener", door);
        // Both listeners for phones take from the same places.
        let places = listener::Places::for_phones(
            config.phone.max_connections,
            config.phone.max_connections_per_address,
        );
        let limits = limits(config.phone.max_connections);
        let router = pages(&roles.visiting, &stages.work, "https", addresses.phone)?;
        let door = listener::serve_http(
            sockets.phone,
            Some(self.reloader.phone_tls()),
            router,
            doors.clone(),
            places.clone(),
            limits.clone(),
        );
        doors.spawn("phone listener", door);
        if let (Some(plain), Some(address)) = (sockets.phone_plain, addresses.phone_plain) {
            let router = pages(&roles.visiting, &stages.work, "http", address)?;
            let door = listener::serve_http(plain, None, router, doors.clone(), places, limits);
            doors.spawn("plain phone listener", door);
        }
        admin::serve(
            sockets.admin,
            self.admin_edge(roles, &stages.work),
            &stages.work,
        );
        Ok(())
    }

    fn admin_edge(&self, roles: &AllRoles, tasks: &Tasks) -> admin::AdminEdge {
        let config = &self.config;
        let operations = NodeOperations {
            cluster: config.cluster_id.clone(),
            node: config.node.clone(),
            versions: self.versions,
            clock: self.clock.clone(),
            applier: Applier {
                cluster: config.cluster_id.clone(),
                store: self.store.clone(),
                credentials: self.credentials.clone(),
                clock: self.clock.clone(),
            },
            trust: self.trust.clone(),
            peers: self.peers.clone(),
            reloader: Arc::clone(&self.reloader),
            home: roles.home.clone(),
            visiting: roles.visiting.clone(),
        };
        admin::AdminEdge {
            imports: Arc::new(Semaphore::new(1)),
            cluster_id: config.cluster_id.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            groups: Arc::new(groups(config)),
            operations: Arc::new(operations),
            tasks: tasks.clone(),
        }
    }

    /// Who waits for a place when the node begins to end is served as long as there is time for it, and told the
    /// truth while there is still time for that.
    fn let_go_at_the_end(&self, doors: &Tasks) {
        let (admission, grace) = (self.admission.clone(), self.config.shutdown_grace);
        let ending = doors.clone();
        doors.spawn("admission", async move {
            ending.cancelled().await;
            admission.close_at(Instant::now() + grace / 2);
        });
    }

    fn begin_tasks(&self, roles: AllRoles, tasks: &Tasks) {
        let (membership, keeping) = (self.membership.clone(), tasks.clone());
        tasks.spawn("membership", async move { membership.keep(&keeping).await });
        let up = Arc::new(Notify::new());
        let outbox = Outbox {
            cluster: self.config.cluster_id.clone(),
            store: self.store.clone(),
            local: roles.local,
            federation: roles.others,
            wake: Arc::clone(&self.owed),
            up: Arc::clone(&up),
            tasks: tasks.clone(),
            deadline: self.config.login.deadline,
        };
        tasks.spawn("outbox", outbox.run());
        let (home, watching) = (roles.home, tasks.clone());
        tasks.spawn("revocations", async move {
            home.watch_revocations(&watching).await;
        });
        let watching = watch_audit(self.store.clone(), self.clock.clone(), tasks.clone());
        tasks.spawn("audit heads", watching);
        spawn_watchers(tasks, roles.visiting, &self.reloader, &self.peers, up);
        if self.pepper == Pepper::Unproven {
            let (store, credentials) = (self.store.clone(), self.credentials.clone());
            let ended = tasks.clone();
            tasks.spawn("pepper mark", async move {
                mark_pepper(&store, &credentials, &ended).await;
            });
        }
        let (store, clock, ended) = (self.store.clone(), self.clock.clone(), tasks.clone());
        tasks.spawn("retention", async move {
            forget(&store, &clock, &ended).await;
        });
    }
}

/// The tasks that wait for something to happen.
fn spawn_watchers(
    tasks: &Tasks,
    visiting: VisitingRole,
    reloader: &Arc<Reloader>,
    peers: &Peers,
    up: Arc<Notify>,
) {
    let counting = visiting.clone();
    tasks.spawn("refs", async move { counting.keep_refs().await });
    tasks.spawn(
        "pending logins",
        async move { visiting.sweep_pending().await },
    );
    let (watcher, watching) = (Arc::clone(reloader), tasks.clone());
    tasks.spawn("store changes", async move {
        watcher.watch_store(&watching).await;
    });
    let (mut ups, waking) = (peers.on_up(), tasks.clone());
    tasks.spawn("links that come up", async move {
        loop {
            tokio::select! {
                biased;
                () = waking.cancelled() => return,
                _ = ups.next() => up.notify_one(),
            }
        }
    });
}

/// Forgets what is older than it need be, once an hour. Several nodes doing so do no harm.
async fn forget(store: &Store, clock: &Clock, tasks: &Tasks) {
    const INTERVAL: Duration = Duration::from_secs(3_600);
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            biased;
            () = tasks.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let purged = tokio::select! {
            biased;
            () = tasks.cancelled() => return,
            purged = retention::purge(store, clock.now()) => purged,
        };
        match purged {
            Ok(0) => {}
            Ok(rows) => info!(
                rows,
                "forgot ended sessions and answers of more than 7 days ago"
            ),
            Err(error) => {
                error!(
                    cause = crate::telemetry::error_chain(&error),
                    "old sessions could not be forgotten"
                );
            }
        }
    }
}

async fn open_store(config: &Config) -> Result<Store, Error> {
    let settings = store::Config {
        url: config.store.url.clone(),
        node: config.node.clone(),
    };
    let opened = tokio::task::spawn_blocking(move || Store::open(&settings)).await;
    opened
        .map_err(|_| Error::Broken("opening the store"))?
        .map_err(Error::from)
}

/// A store belongs to one cluster: sessions of another one must not be taken for ours.
async fn claim_store(store: &Store, cluster: &ClusterId) -> Result<(), Error> {
    match claim(store, "cluster-id", cluster.to_string()).await? {
        Some(found) => Err(Error::OtherCluster {
            found,
            configured: cluster.clone(),
        }),
        None => Ok(()),
    }
}

/// What a store says of the pepper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pepper {
    /// It is the one that the PINs were hashed with, or there are none.
    Known,
    /// There are PINs, and nothing that tells with which pepper they were hashed.
    Unproven,
    /// They were hashed with another one.
    Other,
}

const PEPPER_MARK: &str = "pepper-mark";

/// And to one pepper, as soon as there is a PIN: with another one every PIN is wrong, and every user soon locked.
async fn claim_pepper(
    store: &Store,
    credentials: &Credentials,
    file: &Path,
) -> Result<Pepper, Error> {
    let ours = credentials.pepper_mark()?;
    let pepper = store
        .write(move |tx: &mut dyn Transaction| {
            let found = meta::get(tx, PEPPER_MARK)?;
            if found.as_ref() == Some(&ours) {
                return Ok(Pepper::Known);
            }
            if !store::credentials::any(tx)? {
                meta::put(tx, PEPPER_MARK, &ours)?;
                return Ok(Pepper::Known);
            }
            Ok::<_, store::Error>(match found {
                Some(_) => Pepper::Other,
                None => Pepper::Unproven,
            })
        })
        .await?;
    match pepper {
        Pepper::Known => {}
        Pepper::Unproven => warn!(
            file = %file.display(),
            "whether this is the pepper that the stored PINs were hashed with is known after the first right PIN; \
             until then another one would be taken as well, and every PIN be wrong"
        ),
        Pepper::Other => {
            return Err(Error::OtherPepper {
                path: file.to_owned(),
            });
        }
    }
    Ok(pepper)
}

/// Marks the store with the pepper once a PIN has matched.
async fn mark_pepper(store: &Store, credentials: &Credentials, tasks: &Tasks) {
    let marked = async {
        credentials.proven().await;
        let ours = credentials.pepper_mark()?;
        claim(store, PEPPER_MARK, ours).await?;
        Ok::<_, Error>(())
    };
    let marked = tokio::select! {
        biased;
        () = tasks.cancelled() => return,
        marked = marked => marked,
    };
    match marked {
        Ok(()) => info!("a PIN was right: the store belongs to this pepper now"),
        Err(error) => warn!(
            cause = crate::telemetry::error_chain(&error),
            "the store could not be marked with its pepper; the next start tries again"
        ),
    }
}

/// Writes what a store belongs to into a new one; what stands there, if it is something else.
async fn claim(
    store: &Store,
    key: &'static str,
    ours: String,
) -> Result<Option<String>, store::Error> {
    store
        .write(move |tx: &mut dyn Transaction| {
            let found = meta::get(tx, key)?;
            if found.is_none() {
                meta::put(tx, key, &ours)?;
            }
            Ok::<_, store::Error>(found.filter(|found| *found != ours))
        })
        .await
}

pub(super) fn read_pepper(path: &Path) -> Result<Secret, Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |source| Error::Pepper {
        path: path.to_owned(),
        source,
    };
    let mode = std::fs::metadata(path)
        .map_err(failed)?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(Error::PepperReadable {
            path: path.to_owned(),
        });
    }
    let bytes = Secret::new(std::fs::read(path).map_err(failed)?);
    if bytes.expose().len() == PEPPER_BYTES {
        Ok(bytes)
    } else {
        Err(Error::PepperLength {
            path: path.to_owned(),
            length: bytes.expose().len(),
        })
    }
}

fn credentials_config(config: &Config) -> credentials::Config {
    let settings = &config.credentials;
    credentials::Config {
        memory_kib: settings.memory_kib,
        iterations: settings.iterations,
        parallelism: settings.parallelism,
        queue: settings.queue,
        lockout: lockout::Rules {
            failures_before_lock: settings.failures_before_lock,
            window: settings.failure_window,
            lock: settings.lock_duration,
        },
        ..credentials::Config::default()
    }
}

fn peer_config(config: &Config, versions: VersionRange) -> peer::Config {
    let settings = &config.federation;
    peer::Config {
        security_mode: settings.security_mode,
        versions,
        heartbeat: settings.heartbeat,
        dead_after: settings.dead_after,
        connect_timeout: settings.connect_timeout,
        backoff_cap: settings.reconnect_cap,
        ..peer::Config::new(config.cluster_id.clone(), config.node.clone())
    }
}

fn visiting_config(config: &Config, versions: VersionRange) -> visiting::Config {
    visiting::Config {
        cluster: config.cluster_id.clone(),
        login_deadline: config.login.deadline,
        find_deadline: config.login.find_deadline,
        newest_version: versions.max(),
    }
}

/// Where peers should dial this node: what the operator says, else where it listens, unless that is everywhere.
fn advertised(config: &Config, listening: SocketAddr) -> Vec<String> {
    let said = &config.federation.advertise;
    if said.is_empty() && !listening.ip().is_unspecified() {
        return vec![listening.to_string()];
    }
    said.iter().map(ToString::to_string).collect()
}

fn groups(config: &Config) -> admin::roles::Groups {
    let named = &config.admin.groups;
    admin::roles::Groups {
        admin: named.admin.clone(),
        certificates: named.certificates.clone(),
        help_desk: named.help_desk.clone(),
        viewer: named.viewer.clone(),
    }
}

fn pages(
    visiting: &VisitingRole,
    tasks: &Tasks,
    scheme: &str,
    address: SocketAddr,
) -> Result<axum::Router, Error> {
    let base_url = phone::BaseUrl::new(&format!("{scheme}://{address}"))
        .map_err(|_| Error::Broken("making the phone listener's URL"))?;
    Ok(phone::router(phone::Pages {
        desk: Arc::new(visiting.clone()),
        tasks: tasks.clone(),
        base_url,
    }))
}

/// All sockets of a node, bound.
struct Sockets {
    federation: TcpListener,
    phone: TcpListener,
    phone_plain: Option<TcpListener>,
    admin: admin::socket::AdminSocket,
}

impl Sockets {
    async fn bind(config: &Config) -> Result<Self, Error> {
        let socket = admin::socket::Config {
            path: config.admin.socket.clone(),
            group: admin::socket::Config::DEFAULT_GROUP.to_owned(),
        };
        Ok(Self {
            federation: bind("federation", config.federation.listen).await?,
            phone: bind("phone", config.phone.listen).await?,
            phone_plain: match config.phone.plain_listen {
                Some(address) => Some(bind("plain phone", address).await?),
                None => None,
            },
            admin: admin::socket::AdminSocket::bind(&socket).await?,
        })
    }

    fn addresses(&self, config: &Config) -> Result<Addresses, Error> {
        let local = |listener: &TcpListener| {
            listener
                .local_addr()
                .map_err(|_| Error::Broken("reading a socket's address"))
        };
        Ok(Addresses {
            federation: local(&self.federation)?,
            phone: local(&self.phone)?,
            phone_plain: self.phone_plain.as_ref().map(local).transpose()?,
            admin: config.admin.socket.clone(),
        })
    }
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Bind {
            what,
            address,
            source,
        })
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::{
        admission::Source,
        domain::ids::UserId,
        secret::Pin,
        store::{
            credentials::Phc,
            users::{self, User},
        },
    };

    const FILE: &str = "/etc/emccd/pepper.key";

    fn store() -> Store {
        Store::open(&store::Config {
            url: "sqlite::memory:".to_owned(),
            node: "n1".to_owned(),
        })
        .unwrap()
    }

    fn with_pepper(byte: u8) -> Credentials {
        let config = credentials::Config {
            memory_kib: 8,
            iterations: 1,
            ..credentials::Config::default()
        };
        Credentials::new(&config, Secret::new(vec![byte; PEPPER_BYTES])).unwrap()
    }

    fn pin() -> Pin {
        Pin::new("90210".to_owned()).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// One user with a PIN, hashed with that pepper.
    async fn give_a_pin(store: &Store, credentials: &Credentials) -> Phc {
        let phc = credentials.hash(&pin(), soon()).await.unwrap();
        let (hash, now) = (phc.clone(), Clock::system().now());
        store
            .write(move |tx: &mut dyn Transaction| {
                let user = User {
                    user_id: UserId::new("ana").unwrap(),
                    self_service_id: None,
                    primary_extension: None,
                    display_name: String::new(),
                    enabled: true,
                    emcc_enabled: true,
                };
                users::upsert(tx, &user)?;
                store::credentials::put_hash(tx, &user.user_id, &hash, now)
            })
            .await
            .unwrap();
        phc
    }

    async fn claimed(store: &Store, byte: u8) -> Result<Pepper, Error> {
        claim_pepper(store, &with_pepper(byte), Path::new(FILE)).await
    }

    #[tokio::test]
    async fn a_store_with_pins_takes_one_pepper_only() {
        let store = store();
        // Nothing depends on a pepper yet.
        for pepper in [2, 1, 1] {
            assert_eq!(claimed(&store, pepper).await.unwrap(), Pepper::Known);
        }
        give_a_pin(&store, &with_pepper(1)).await;
        let other = claimed(&store, 2).await.unwrap_err();
        let text = format!("{other}; {}", other.advice());
        for part in [FILE, "every PIN", "credentials.pepper-file"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert_eq!(claimed(&store, 1).await.unwrap(), Pepper::Known);
    }

    #[tokio::test]
    async fn an_unmarked_store_with_pins_is_marked_by_the_first_right_one() {
        let (store, right) = (store(), with_pepper(1));
        let phc = give_a_pin(&store, &right).await;
        for pepper in [2, 1] {
            assert_eq!(claimed(&store, pepper).await.unwrap(), Pepper::Unproven);
        }
        let wrong = with_pepper(2);
        assert!(
            !wrong
                .verify(&pin(), Some(phc.clone()), &Source::operators(), soon())
                .await
                .unwrap()
        );
        assert!(
            !right
                .verify(&pin(), None, &Source::operators(), soon())
                .await
                .unwrap()
        );
        for unproven in [&wrong, &right] {
            let waited = tokio::time::timeout(Duration::from_millis(50), unproven.proven()).await;
            waited.expect_err("no PIN has matched");
        }
        assert!(
            right
                .verify(&pin(), Some(phc), &Source::operators(), soon())
                .await
                .unwrap()
        );
        mark_pepper(&store, &right, &Tasks::default()).await;
        assert_eq!(claimed(&store, 1).await.unwrap(), Pepper::Known);
        claimed(&store, 2).await.unwrap_err();
    }
}
