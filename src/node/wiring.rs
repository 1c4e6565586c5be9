//! How a node's parts are put together.

use std::{net::SocketAddr, path::Path, sync::Arc};

use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
};
use tracing::{error, info, warn};

use super::{
    Addresses, Error, Node, Options,
    clock_steps::ClockSteps,
    crl_folder,
    expiry::{self, Certificates},
    handover::{HandOver, Inherited, Predecessor, Whose},
    live,
    operations::NodeOperations,
    reload::Reloader,
    roles::FederationRoles,
    rotation,
    session_tasks::{SessionParts, begin_session_tasks},
    shutdown::Stages,
    sight::{self, CountedDesk, Sight, Turned},
    sockets::Sockets,
    witness::watch_audit,
};
use crate::{
    admission::Admission,
    apply::{self, Applier},
    chance::Chance,
    clock::{self, Clock},
    config::{Config, PEPPER_BYTES},
    credentials::{self, Credentials},
    domain::{
        capability::Traits, federation::Federation, ids::ClusterId, liveness::Incarnation,
        login::HomeCluster, parameters::Parameters, version::VersionRange,
    },
    edge::{
        admin, federation, join,
        listener::{self, TurnedAway},
        metrics::Metrics,
        phone,
    },
    fault::FaultPoints,
    home::{self, HomeRole, LocalHome},
    pairing::{self, Pairings},
    peer::{self, Peers},
    secret::Secret,
    store::{
        self, Store, Transaction, audit, cluster_time,
        membership::{self, Membership},
        meta,
    },
    tasks::Tasks,
    trust::{TrustStore, receive::Receiver},
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
    metrics: Metrics,
    turned: Turned,
    pepper: Pepper,
    trust: TrustStore,
    peers: Peers,
    pairings: Pairings,
    membership: Membership,
    hand_over: HandOver,
    reloader: Arc<Reloader>,
    faults: FaultPoints,
    chance: Chance,
    /// Told when a debt to another cluster is made.
    owed: Arc<Notify>,
    steps: ClockSteps,
}

/// The roles, and what they know other clusters by.
struct AllRoles {
    home: HomeRole,
    visiting: VisitingRole,
    local: Arc<dyn HomeCluster>,
    others: Arc<dyn Federation>,
}

/// What answers behind each door.
struct Doors {
    federation: tonic::service::Routes,
    phone: axum::Router,
    phone_plain: Option<axum::Router>,
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
        take_over,
    } = options;
    // Before the store is touched: bringing its schema up to date is the business of whoever may take over.
    let mut predecessor = match take_over {
        true => Predecessor::ask(&config).await?,
        false => None,
    };
    let inherited = match &mut predecessor {
        Some(before) => Some(Sockets::open(&config, std::mem::take(&mut before.sockets)).await?),
        None => None,
    };
    let store = open_store(&config, faults.clone()).await?;
    claim_store(&store, &config.cluster_id).await?;
    let secret = read_pepper(&config.credentials.pepper_file)?;
    let audit_key = audit::Key::from_pepper(&secret);
    let credentials = Credentials::new(&credentials_config(&config), secret)?;
    let pepper = claim_pepper(&store, &credentials, &config.credentials.pepper_file).await?;
    store.seal_audit(audit_key).await?;
    let sockets = match inherited {
        Some(sockets) => sockets,
        None => Sockets::open(&config, Inherited::default()).await?,
    };
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
            instance: peers.config().instance.clone(),
            addresses: advertised(&config, addresses.federation),
            software: peers.config().software.clone(),
        },
    );
    let hand_over = HandOver::new(
        Whose::of(&config),
        &sockets,
        store.clone(),
        membership.clone(),
        clock.clone(),
        stages.work.clone(),
    )?;
    let socket_file = sockets.admin.keep();
    let admission = Admission::new(Parameters::default().maximum_concurrent_requests);
    let (of_store, of_trust) = (store.clone(), trust.clone());
    let reloader = Reloader::new(
        &config,
        of_store,
        of_trust,
        peers.clone(),
        membership.clone(),
        admission.clone(),
    )?;
    let pairings = Pairings::new(pairing::Parts {
        cluster: config.cluster_id.clone(),
        node: config.node.clone(),
        software: peers.config().software.clone(),
        versions: versions.to_string(),
        security_mode: config.federation.security_mode.as_str(),
        store: store.clone(),
        trust: trust.clone(),
        folder: reloader.folder().clone(),
        clock: clock.clone(),
        faults: faults.clone(),
    });
    let chance = peers.config().chance.clone();
    let core = Core {
        reloader: Arc::new(reloader),
        owed: Arc::new(Notify::new()),
        steps: ClockSteps::default(),
        config,
        versions,
        clock,
        store,
        credentials,
        admission,
        metrics: Metrics::default(),
        turned: Turned::default(),
        pepper,
        trust,
        peers,
        pairings,
        membership,
        hand_over,
        faults: faults.clone(),
        chance,
    };
    core.reloader.refresh_parameters().await?;
    let rotated = rotation::in_force(
        &core.store,
        &core.config.node,
        core.reloader.folder(),
        core.clock.now(),
    );
    core.reloader.begin_with(rotated.await?);
    core.read_all().await;
    let roles = core.roles(faults.clone(), &stages.work);
    let doors = core.doors(&addresses, &roles, stages).await?;
    // What may fail has not. From here on this is the node, unless the process before says otherwise; that one serves
    // until the doors are open.
    if let Some(before) = &mut predecessor {
        faults.pass("take-over.prepared").await;
        before.ready().await?;
    }
    let takes_over = predecessor.is_some();
    let before = core.join(takes_over).await?;
    cluster_time::begin(&core.store, &core.config.node, &core.clock, takes_over).await?;
    if takes_over {
        // One that hands over still carries its logins to their end.
        faults.pass("take-over.joined").await;
    } else if let Some(before) = before {
        core.end_left_behind(&roles.visiting, &before).await;
    }
    let window = core.open_doors(sockets, doors, &roles, stages);
    stages.serving();
    core.open_window(window, stages);
    core.stand(&stages.standing);
    core.begin_tasks(roles, &stages.work);
    if let Some(before) = predecessor {
        socket_file.keep(false);
        before.serves().await;
        info!("took over from the process before");
    }
    core.let_go_at_the_end(&stages.doors);
    info!(
        federation = %addresses.federation, phone = %addresses.phone, admin = %addresses.admin.display(),
        versions = %core.versions, "ready"
    );
    Ok(Node {
        addresses,
        stages: stages.clone(),
        reloader: core.reloader,
        hand_over: core.hand_over,
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
        if let Err(problem) = self.pairings.look().await {
            error!(
                cause = crate::telemetry::error_chain(&problem),
                "invitations can't be looked at yet; nobody can join until they are"
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
            traits: own_traits(&self.config, self.versions),
            store: self.store.clone(),
            credentials: self.credentials.clone(),
            admission: self.admission.clone(),
            clock: self.clock.clone(),
            faults: faults.clone(),
            parameters: self.reloader.parameters(),
            links: Arc::new(self.peers.clone()),
            membership: self.membership.clone(),
            owed: Arc::clone(&self.owed),
            chance: self.chance.clone(),
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
            membership: self.membership.clone(),
            chance: self.chance.clone(),
        });
        AllRoles {
            home,
            visiting,
            local,
            others,
        }
    }

    /// What the run left behind that stood on record is over, whatever kept it from saying so: one that ends by itself
    /// is off the record before its admin socket closes, and so before another one can start.
    async fn end_left_behind(&self, visiting: &VisitingRole, before: &Incarnation) {
        if let Err(error) = visiting.end_left_behind(before).await {
            warn!(
                cause = crate::telemetry::error_chain(&error),
                "logins that the last run left behind could not be ended; they are at their deadline"
            );
        }
    }

    /// Goes on record. A successor that can't does so as soon as the store lets it: nobody else serves.
    async fn join(&self, is_successor: bool) -> Result<Option<Incarnation>, Error> {
        match self.membership.join().await {
            Err(error) if is_successor => {
                warn!(
                    cause = crate::telemetry::error_chain(&error),
                    "this node is not on record yet; it tries again"
                );
                Ok(None)
            }
            joined => Ok(joined?),
        }
    }

    /// All that answers behind the doors, as far as it may fail.
    async fn doors(
        &self,
        addresses: &Addresses,
        roles: &AllRoles,
        stages: &Stages,
    ) -> Result<Doors, Error> {
        let federation = federation::service(federation::Parts {
            roles: Arc::new(FederationRoles {
                home: roles.home.clone(),
                visiting: roles.visiting.clone(),
                metrics: self.metrics.clone(),
                receiver: Receiver {
                    cluster_id: self.config.cluster_id.clone(),
                    store: self.store.clone(),
                    membership: self.membership.clone(),
                    trust: self.trust.clone(),
                },
                store: self.store.clone(),
            }),
            peers: self.peers.clone(),
            refusals: self.trust.refusals().clone(),
            clock: self.clock.clone(),
            tasks: stages.work.clone(),
            drain: stages.drain.clone(),
            turned: self.turned.federation.clone(),
        })
        .await?;
        let pages = |scheme, address| self.pages(&roles.visiting, &stages.work, scheme, address);
        let plain = addresses.phone_plain;
        Ok(Doors {
            federation,
            phone: pages("https", addresses.phone)?,
            phone_plain: plain.map(|address| pages("http", address)).transpose()?,
        })
    }

    /// Opens them; what is left of the sockets is the one for figures and health.
    fn open_doors(
        &self,
        sockets: Sockets,
        behind: Doors,
        roles: &AllRoles,
        stages: &Stages,
    ) -> Option<TcpListener> {
        let (config, doors) = (&self.config, &stages.doors);
        let limits = |max_connections, turned: &TurnedAway| listener::Config {
            drain_grace: config.shutdown_grace,
            draining: stages.drain.clone(),
            turned: turned.clone(),
            parameters: self.reloader.parameters(),
            chance: self.chance.clone(),
            ..listener::Config::for_connections(max_connections)
        };
        let door = listener::serve_federation(
            sockets.federation,
            self.trust.clone(),
            behind.federation,
            doors.clone(),
            listener::Config {
                joining: Some(join::door(self.pairings.clone())),
                ..limits(config.federation.max_connections, &self.turned.federation)
            },
        );
        doors.spawn("federation listener", door);
        // Both listeners for phones take from the same places.
        let places = listener::Places::for_phones(
            config.phone.max_connections,
            config.phone.max_connections_per_address,
        );
        let limits = limits(config.phone.max_connections, &self.turned.phone);
        let door = listener::serve_http(
            sockets.phone,
            Some(self.reloader.phone_tls()),
            behind.phone,
            doors.clone(),
            places.clone(),
            limits.clone(),
        );
        doors.spawn("phone listener", door);
        if let (Some(plain), Some(router)) = (sockets.phone_plain, behind.phone_plain) {
            let door = listener::serve_http(plain, None, router, doors.clone(), places, limits);
            doors.spawn("plain phone listener", door);
        }
        admin::serve(
            sockets.admin,
            self.admin_edge(roles, &stages.work),
            &stages.work,
        );
        sockets.metrics
    }

    fn pages(
        &self,
        visiting: &VisitingRole,
        tasks: &Tasks,
        scheme: &str,
        address: SocketAddr,
    ) -> Result<axum::Router, Error> {
        let base_url = phone::BaseUrl::new(&format!("{scheme}://{address}"))
            .map_err(|_| Error::Broken("making the phone listener's URL"))?;
        let routes = phone::router(phone::Pages {
            desk: Arc::new(CountedDesk {
                role: visiting.clone(),
                metrics: self.metrics.clone(),
            }),
            tasks: tasks.clone(),
            base_url,
        });
        Ok(self.metrics.counting(routes))
    }

    fn admin_edge(&self, roles: &AllRoles, tasks: &Tasks) -> admin::AdminEdge {
        let config = &self.config;
        let operations = NodeOperations {
            cluster: config.cluster_id.clone(),
            node: config.node.clone(),
            versions: self.versions,
            clock: self.clock.clone(),
            store: self.store.clone(),
            membership: self.membership.clone(),
            applier: self.applier(tasks),
            trust: self.trust.clone(),
            peers: self.peers.clone(),
            hand_over: self.hand_over.clone(),
            reloader: Arc::clone(&self.reloader),
            certificates: self.certificates(),
            home: roles.home.clone(),
            visiting: roles.visiting.clone(),
            steps: self.steps.clone(),
        };
        admin::AdminEdge {
            pairings: self.pairings.clone(),
            imports: Arc::new(Semaphore::new(1)),
            cluster_id: config.cluster_id.clone(),
            node: config.node.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            groups: Arc::new(groups(config)),
            operations: Arc::new(operations),
            faults: self.faults.clone(),
            tasks: tasks.clone(),
        }
    }

    /// Figures and health. It outlives the doors, to say that they are closing; but not the hand-over, since from then
    /// on the successor answers for the node.
    fn open_window(&self, listener: Option<TcpListener>, stages: &Stages) {
        let Some(address) = self.config.metrics.listen else {
            return;
        };
        let sight = Sight {
            cluster: self.config.cluster_id.clone(),
            clock: self.clock.clone(),
            store: self.store.clone(),
            credentials: self.credentials.clone(),
            admission: self.admission.clone(),
            trust: self.trust.clone(),
            peers: self.peers.clone(),
            reloader: Arc::clone(&self.reloader),
            certificates: self.certificates(),
            phase: stages.phase(),
            succeeded: self.hand_over.succeeded(),
            doors: stages.doors.clone(),
            started: clock::instant(),
            counted: tokio::sync::Mutex::default(),
            probed: sight::Probed::default(),
            turned: self.turned.clone(),
            steps: self.steps.clone(),
        };
        let listener = listener.ok_or(address);
        sight::open_window(listener, self.metrics.clone(), sight, &stages.work);
    }

    /// Who waits for a place when the node begins to end is served as long as there is time for it, and told the
    /// truth while there is still time for that.
    fn let_go_at_the_end(&self, doors: &Tasks) {
        let (admission, grace) = (self.admission.clone(), self.config.shutdown_grace);
        let ending = doors.clone();
        doors.spawn("admission", async move {
            ending.cancelled().await;
            admission.close_at(clock::instant() + grace / 2);
        });
    }

    fn applier(&self, tasks: &Tasks) -> Applier {
        Applier {
            cluster: self.config.cluster_id.clone(),
            store: self.store.clone(),
            credentials: self.credentials.clone(),
            clock: self.clock.clone(),
            at_once_from: apply::AT_ONCE_FROM,
            tasks: tasks.clone(),
            faults: self.faults.clone(),
        }
    }

    fn certificates(&self) -> Certificates {
        let (trust, reloader) = (self.trust.clone(), Arc::clone(&self.reloader));
        Certificates::new(self.config.cluster_id.clone(), trust, reloader)
    }

    /// Keeps the node on record.
    fn stand(&self, standing: &Tasks) {
        let (membership, keeping) = (self.membership.clone(), standing.clone());
        standing.spawn("membership", async move { membership.keep(&keeping).await });
    }

    fn begin_tasks(&self, roles: AllRoles, tasks: &Tasks) {
        let parts = SessionParts {
            cluster: self.config.cluster_id.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            chance: self.chance.clone(),
            membership: self.membership.clone(),
            peers: self.peers.clone(),
            home: roles.home,
            visiting: roles.visiting,
            local: roles.local,
            others: roles.others,
            owed: Arc::clone(&self.owed),
            deadline: self.config.login.deadline,
            steps: self.steps.clone(),
        };
        begin_session_tasks(parts, tasks);
        let telling = live::tell(
            self.store.clone(),
            self.membership.clone(),
            self.trust.in_use().clone(),
            tasks.clone(),
        );
        tasks.spawn("connections on record", telling);
        let rotations = rotation::Driver {
            cluster: self.config.cluster_id.clone(),
            node: self.config.node.clone(),
            store: self.store.clone(),
            trust: self.trust.clone(),
            peers: self.peers.clone(),
            reloader: Arc::clone(&self.reloader),
            clock: self.clock.clone(),
            faults: self.faults.clone(),
            memory: rotation::Memory::default(),
        };
        tasks.spawn("rotations", rotations.run(tasks.clone()));
        let (pairings, watching) = (self.pairings.clone(), tasks.clone());
        tasks.spawn("pairings", async move { pairings.keep(&watching).await });
        let watching = expiry::watch(self.certificates(), tasks.clone());
        tasks.spawn("ends of certificates", watching);
        if let Some(folder) = &self.config.crl_folder {
            let (store, trust) = (self.store.clone(), self.trust.clone());
            let clock = self.clock.clone();
            let watching = crl_folder::watch(folder.clone(), store, trust, clock, tasks.clone());
            tasks.spawn("folder of revocation lists", watching);
        }
        let watching = watch_audit(self.store.clone(), self.clock.clone(), tasks.clone());
        tasks.spawn("audit heads", watching);
        let (watcher, watching) = (Arc::clone(&self.reloader), tasks.clone());
        tasks.spawn("store changes", async move {
            watcher.watch_store(&watching).await;
        });
        if self.pepper == Pepper::Unproven {
            let (store, credentials) = (self.store.clone(), self.credentials.clone());
            let ended = tasks.clone();
            tasks.spawn("pepper mark", async move {
                mark_pepper(&store, &credentials, &ended).await;
            });
        }
        let (applier, membership) = (self.applier(tasks), self.membership.clone());
        tasks.spawn("imports left over", async move {
            let dead = || {
                membership
                    .dead()
                    .keys()
                    .map(|run| run.node.clone())
                    .collect()
            };
            applier.keep_swept(dead).await;
        });
    }
}

async fn open_store(config: &Config, points: FaultPoints) -> Result<Store, Error> {
    let settings = store::Config {
        url: config.store.url.clone(),
        node: config.node.clone(),
    };
    let opened = tokio::task::spawn_blocking(move || Store::open_with(&settings, points)).await;
    opened
        .map_err(|_| Error::Broken("opening the store"))?
        .map_err(Error::from)
}

/// A store belongs to one cluster: sessions of another one must not be taken for ours.
async fn claim_store(store: &Store, cluster: &ClusterId) -> Result<(), Error> {
    match claim(store, meta::CLUSTER_ID, cluster.to_string()).await? {
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

/// And to one pepper, as soon as there is a PIN: with another one every PIN is wrong, and every user soon locked.
async fn claim_pepper(
    store: &Store,
    credentials: &Credentials,
    file: &Path,
) -> Result<Pepper, Error> {
    let ours = credentials.pepper_mark()?;
    let pepper = store
        .write(move |tx: &mut dyn Transaction| {
            let found = meta::get(tx, meta::PEPPER_MARK)?;
            if found.as_ref() == Some(&ours) {
                return Ok(Pepper::Known);
            }
            if !store::credentials::any(tx)? {
                meta::put(tx, meta::PEPPER_MARK, &ours)?;
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
        claim(store, meta::PEPPER_MARK, ours).await?;
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

/// What a store with PINs of this node's pepper is marked with.
pub(super) fn pepper_mark(config: &Config) -> Result<String, Error> {
    let secret = read_pepper(&config.credentials.pepper_file)?;
    Ok(Credentials::new(&credentials_config(config), secret)?.pepper_mark()?)
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
        traits: own_traits(config, versions),
    }
}

/// What this node tells of itself.
fn own_traits(config: &Config, versions: VersionRange) -> Traits {
    Traits::of(config.federation.security_mode, versions.max())
}

/// Where peers should dial this node: what the operator says, else where it listens, unless that is everywhere, or
/// reached from this machine alone.
fn advertised(config: &Config, listening: SocketAddr) -> Vec<String> {
    let said = &config.federation.advertise;
    let ip = listening.ip();
    if said.is_empty() && !ip.is_unspecified() && !ip.is_loopback() {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    fn soon() -> std::time::Instant {
        clock::instant() + Duration::from_secs(60)
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
                    policy: None,
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
