//! A node without sockets, files and threads, for simulations: the roles, the links, the door for peers and all that
//! goes on beside them, put together as the daemon's are. What carries its links and what is durable of it is handed in.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustls_pki_types::CertificateDer;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    clock_steps::ClockSteps,
    reload::{follow, parameters_in_force, peers_in_force, revision_of},
    roles::FederationRoles,
    session_tasks::{SessionParts, begin_session_tasks},
};
use crate::{
    admission::Admission,
    chance::Chance,
    clock::Clock,
    credentials::{self, Credentials},
    domain::{
        capability::Traits,
        federation::Federation,
        ids::{BaseDeviceName, ClusterId, DeviceName, UserId},
        login::{HomeCluster, SecurityMode},
        parameters::Parameters,
        session::{Role, State},
        version::VersionRange,
    },
    edge::{
        federation::{self, Roles},
        listener::{self, Comer, Door, Line, TurnedAway},
        metrics::Metrics,
    },
    fault::FaultPoints,
    home::{self, HomeRole, Leaving, LocalHome},
    peer::{self, Peers, transport::Transport},
    secret::Secret,
    store::{
        self, Store, Transaction, base_devices, cluster_time,
        inline::{Disk, Power, Schedule},
        learned,
        membership::{self, Membership},
        parameters, peers, sessions, trust_entries, users,
    },
    tasks::Tasks,
    trust::{TrustStore, certificate::Fingerprint, identity::Identity, receive::Receiver},
    visiting::{self, VisitingRole},
};

/// Stands between a door and the roles behind it.
pub(crate) type Tap = Box<dyn FnOnce(Arc<dyn Roles>, &Tasks) -> Arc<dyn Roles> + Send>;

/// What a bare node is made of.
pub(crate) struct BareConfig {
    /// Its cluster.
    pub(crate) cluster: ClusterId,
    /// Its name.
    pub(crate) node: String,
    /// Where peers should dial it.
    pub(crate) addresses: Vec<String>,
    /// What is durable of its cluster.
    pub(crate) disk: Disk,
    /// Its wall clock.
    pub(crate) clock: Clock,
    /// All that it decides by lot; another one at each start.
    pub(crate) chance: Chance,
    /// What it shows.
    pub(crate) identity: Identity,
    /// What carries its links.
    pub(crate) transport: Arc<dyn Transport>,
    /// What stands between its door and its roles.
    pub(crate) tap: Tap,
    /// The contract's versions that it speaks.
    pub(crate) versions: VersionRange,
    /// How long a login may take.
    pub(crate) login_deadline: Duration,
    /// How often links say that they live.
    pub(crate) heartbeat: Duration,
    /// How long one that doesn't is taken for alive.
    pub(crate) dead_after: Duration,
}

/// A node that runs.
pub(crate) struct Bare {
    pub(crate) home: HomeRole,
    pub(crate) visiting: VisitingRole,
    /// Cancelled the moment that it crashes.
    pub(crate) gone: CancellationToken,
    store: Store,
    power: Power,
    clock: Clock,
    trust: TrustStore,
    door: Arc<Door>,
    tasks: Tasks,
    own: Fingerprint,
    /// Its links.
    pub(crate) links: Peers,
}

impl Bare {
    /// Starts it, as the daemon starts.
    ///
    /// # Errors
    /// [`Error`] when its store does not let it.
    pub(crate) async fn start(config: BareConfig) -> Result<Self, Error> {
        let tasks = Tasks::default();
        let chance = config.chance.clone();
        let schedule = Schedule::common(chance.fork("disk"));
        let (store, power) = Store::on(&config.disk, &config.node, schedule);
        let started = Self::put_together(config, store, &power, &tasks).await;
        if started.is_err() {
            tasks.abort_all();
            power.cut();
        }
        started
    }

    async fn put_together(
        config: BareConfig,
        store: Store,
        power: &Power,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let BareConfig {
            cluster,
            clock,
            chance,
            ..
        } = config;
        let versions = config.versions;
        let trust = TrustStore::new(Some(config.identity.clone()), clock.clone());
        let settings = peer::Config {
            instance: format!("{:016x}", chance.u64()),
            heartbeat: config.heartbeat,
            dead_after: config.dead_after,
            chance: chance.fork("links"),
            versions,
            ..peer::Config::new(cluster.clone(), config.node.clone())
        };
        let links = Peers::over(
            settings,
            trust.clone(),
            clock.clone(),
            tasks.clone(),
            config.transport,
        );
        let membership = Membership::new(
            store.clone(),
            clock.clone(),
            membership::Config {
                node: config.node,
                instance: links.config().instance.clone(),
                addresses: config.addresses,
                software: links.config().software.clone(),
            },
        );
        let hashing = credentials::Config {
            memory_kib: 8,
            iterations: 1,
            workers: 4,
            inline: Some(chance.fork("hashing")),
            ..credentials::Config::default()
        };
        let credentials = Credentials::new(&hashing, Secret::new(PEPPER.to_vec()))?;
        let (live, admission) = (
            parameters::Live::new(Parameters::default()),
            Admission::new(Parameters::default().maximum_concurrent_requests),
        );
        let of_parameters = parameters_in_force(&store, &live, &admission).await?;
        let of_peers = peers_in_force(&store, &trust, &links).await?;
        let traits = Traits::of(SecurityMode::NonSecure, versions.max());
        let owed = Arc::new(Notify::new());
        let home = HomeRole::new(home::Parts {
            cluster: cluster.clone(),
            traits,
            store: store.clone(),
            credentials,
            admission: admission.clone(),
            clock: clock.clone(),
            faults: FaultPoints::none(),
            parameters: live.clone(),
            links: Arc::new(links.clone()),
            membership: membership.clone(),
            owed: Arc::clone(&owed),
            chance: chance.fork("home"),
        });
        let local: Arc<dyn HomeCluster> = Arc::new(LocalHome(home.clone()));
        let others: Arc<dyn Federation> = Arc::new(links.clone());
        let visiting = VisitingRole::new(visiting::Parts {
            config: visiting::Config {
                cluster: cluster.clone(),
                login_deadline: config.login_deadline,
                find_deadline: config.login_deadline / 2,
                newest_version: versions.max(),
                traits,
            },
            store: store.clone(),
            clock: clock.clone(),
            local: Arc::clone(&local),
            federation: Arc::clone(&others),
            faults: FaultPoints::none(),
            parameters: live.clone(),
            admission: admission.clone(),
            tasks: tasks.clone(),
            owed: Arc::clone(&owed),
            membership: membership.clone(),
            chance: chance.fork("visiting"),
        });
        let roles = Arc::new(FederationRoles {
            home: home.clone(),
            visiting: visiting.clone(),
            store: store.clone(),
            metrics: Metrics::default(),
            receiver: Receiver {
                cluster_id: cluster.clone(),
                store: store.clone(),
                membership: membership.clone(),
                trust: trust.clone(),
            },
        });
        let turned = TurnedAway::default();
        let routes = federation::service(federation::Parts {
            roles: (config.tap)(roles, tasks),
            peers: links.clone(),
            refusals: trust.refusals().clone(),
            clock: clock.clone(),
            tasks: tasks.clone(),
            drain: CancellationToken::new(),
            turned: turned.clone(),
        })
        .await?;
        let before = membership.join().await?;
        cluster_time::begin(&store, &membership.run().node, &clock, false).await?;
        if let Some(before) = before {
            drop(visiting.end_left_behind(&before).await);
        }
        let (kept, keeping) = (membership.clone(), tasks.clone());
        tasks.spawn("membership", async move { kept.keep(&keeping).await });
        let parts = SessionParts {
            cluster: cluster.clone(),
            store: store.clone(),
            clock: clock.clone(),
            chance: chance.fork("tasks"),
            membership,
            peers: links.clone(),
            home: home.clone(),
            visiting: visiting.clone(),
            local,
            others,
            owed,
            deadline: config.login_deadline,
            steps: ClockSteps::default(),
        };
        begin_session_tasks(parts, tasks);
        let followed = Followed {
            store: store.clone(),
            trust: trust.clone(),
            links: links.clone(),
            live: live.clone(),
            admission,
            of_peers: AtomicU64::new(of_peers),
            of_parameters: AtomicU64::new(of_parameters),
        };
        let following = tasks.clone();
        tasks.spawn("store changes", async move {
            follow(followed.store.changes(), &following, || followed.take_up()).await;
        });
        let limits = listener::Config {
            turned,
            parameters: live,
            chance: chance.fork("door"),
            ..listener::Config::default()
        };
        Ok(Self {
            home,
            visiting,
            gone: CancellationToken::new(),
            store,
            power: power.clone(),
            clock,
            door: Door::new(trust.clone(), routes, tasks.clone(), limits),
            trust,
            tasks: tasks.clone(),
            own: config.identity.leaf().fingerprint(),
            links,
        })
    }

    /// Serves a connection of somebody who has shown that chain.
    pub(crate) fn arrived<S: Line>(
        &self,
        stream: S,
        remote: SocketAddr,
        chain: Vec<CertificateDer<'static>>,
    ) {
        let comer = Comer {
            remote,
            chain,
            own: Some(self.own),
            generations: self.trust.subscribe(),
        };
        let door = Arc::clone(&self.door);
        self.tasks.spawn("federation connection", async move {
            door.connected(stream, comer, ()).await;
        });
    }

    /// Ends it where it stands: what it had not made durable never was.
    pub(crate) fn crash(&self) {
        self.gone.cancel();
        self.tasks.abort_all();
        self.power.cut();
    }

    /// Lets its disk stand still, or go on.
    pub(crate) fn hold(&self, is_held: bool) {
        self.power.hold(is_held);
    }

    /// An operator ends what is on a phone; whether something was.
    pub(crate) async fn end_at_visiting(&self, device: &str) -> Result<bool, String> {
        let device = DeviceName::new(device).unwrap();
        let found = self
            .store
            .read(move |tx: &mut dyn Transaction| {
                sessions::active_on_device(tx, Role::Visiting, &device)
            })
            .await
            .map_err(|error: store::Error| error.to_string())?;
        let Some(found) = found.filter(|session| session.state == State::Active) else {
            return Ok(false);
        };
        let ended = self.visiting.end(&found.counterpart, found.id, OPERATOR);
        ended.await.map_err(|error| error.to_string())?;
        Ok(true)
    }

    /// An operator ends all sessions of a user; how many.
    pub(crate) async fn end_at_home(&self, user: &str) -> Result<usize, String> {
        let user = UserId::new(user).unwrap();
        let found = self
            .store
            .read(move |tx: &mut dyn Transaction| sessions::active_of_user(tx, &user))
            .await
            .map_err(|error: store::Error| error.to_string())?;
        for session in &found {
            let ended = self.home.end(&session.counterpart, session.id, OPERATOR);
            ended.await.map_err(|error| error.to_string())?;
        }
        Ok(found.len())
    }

    /// An operator disables or enables a user.
    pub(crate) async fn set_user(&self, user: &str, enabled: bool) -> Result<(), String> {
        let user = UserId::new(user).unwrap();
        self.change(move |tx| {
            if let Some(found) = users::get(tx, &user)? {
                users::upsert(tx, &users::User { enabled, ..found })?;
            }
            Ok(())
        })
        .await
    }

    /// An operator removes a base device with the session that holds it; whether it is gone.
    pub(crate) async fn remove_base(&self, name: &str) -> Result<bool, String> {
        let name = BaseDeviceName::new(name).unwrap();
        let asked = name.clone();
        let holder = self
            .store
            .read(move |tx: &mut dyn Transaction| holder_of(tx, &asked))
            .await
            .map_err(|error: store::Error| error.to_string())?;
        if let Some((counterpart, id)) = holder {
            let ended = self.home.end(&counterpart, id, OPERATOR);
            ended.await.map_err(|error| error.to_string())?;
        }
        self.store
            .write(move |tx: &mut dyn Transaction| {
                // As the command does: somebody may have got it meanwhile.
                if holder_of(tx, &name)?.is_some() {
                    return Ok(false);
                }
                base_devices::remove(tx, &name)
            })
            .await
            .map_err(|error: store::Error| error.to_string())
    }

    /// An operator adds a base device.
    pub(crate) async fn add_base(&self, name: &str) -> Result<(), String> {
        let name = BaseDeviceName::new(name).unwrap();
        self.change(move |tx| base_devices::upsert(tx, &name)).await
    }

    /// An operator removes a peer, whether or not it can be told; whether it is gone.
    pub(crate) async fn remove_peer(&self, peer: &str) -> Result<bool, String> {
        let peer = ClusterId::new(peer).unwrap();
        let leaving = Leaving {
            cluster: peer.clone(),
            actor: OPERATOR.to_owned(),
            within: Duration::from_secs(5),
            forget_owed: true,
        };
        let retired = self.home.retire_peer(&leaving).await;
        retired.map_err(|error| error.to_string())?;
        let asked = peer.clone();
        let removed = self
            .store
            .write(move |tx: &mut dyn Transaction| {
                if sessions::shared_with(tx, &asked)?.0 > 0 {
                    return Ok(false);
                }
                sessions::forget_owed(tx, &asked)?;
                for entry in trust_entries::of(tx, &asked)? {
                    trust_entries::remove(tx, &asked, &entry.fingerprint)?;
                }
                peers::remove(tx, &asked)
            })
            .await
            .map_err(|error: store::Error| error.to_string());
        if removed != Ok(true) {
            self.home.keep_peer(&peer).await;
        }
        removed
    }

    /// An operator changes something of a peer's record, or of what is trusted of it.
    pub(crate) async fn change(
        &self,
        change: impl FnMut(&mut dyn Transaction) -> Result<(), store::Error> + Send + 'static,
    ) -> Result<(), String> {
        self.store
            .write(change)
            .await
            .map_err(|error: store::Error| error.to_string())
    }

    /// Its wall clock.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }
}

fn holder_of(
    tx: &mut dyn Transaction,
    name: &BaseDeviceName,
) -> Result<Option<(ClusterId, crate::domain::ids::SessionId)>, store::Error> {
    let holders = base_devices::list(tx)?;
    let held = holders.into_iter().find(|(of, _)| of == name);
    let Some((_, Some(id))) = held else {
        return Ok(None);
    };
    let filter = sessions::Filter {
        role: Some(Role::Home),
        id: Some(id),
        ..sessions::Filter::default()
    };
    let session = sessions::list(tx, &filter)?.into_iter().next();
    Ok(session.map(|session| (session.counterpart, session.id)))
}

/// What a node goes by, read again when it changes.
struct Followed {
    store: Store,
    trust: TrustStore,
    links: Peers,
    live: parameters::Live,
    admission: Admission,
    of_peers: AtomicU64,
    of_parameters: AtomicU64,
}

impl Followed {
    async fn take_up(&self) -> Result<(), Error> {
        let (of_peers, of_parameters, own) = self
            .store
            .read(|tx: &mut dyn Transaction| {
                let of_peers = revision_of(tx, peers::REVISION)?;
                let of_parameters = revision_of(tx, parameters::REVISION)?;
                Ok::<_, store::Error>((of_peers, of_parameters, learned::own(tx)?))
            })
            .await?;
        self.links.publish_addresses(own);
        if of_peers != self.of_peers.load(Ordering::Acquire) {
            let revision = peers_in_force(&self.store, &self.trust, &self.links).await?;
            self.of_peers.store(revision, Ordering::Release);
        }
        if of_parameters != self.of_parameters.load(Ordering::Acquire) {
            let revision = parameters_in_force(&self.store, &self.live, &self.admission).await?;
            self.of_parameters.store(revision, Ordering::Release);
        }
        Ok(())
    }
}

/// Who does what an operator does.
const OPERATOR: &str = "operator";

/// What all PINs of a simulation are hashed with.
pub(crate) const PEPPER: [u8; 32] = [7; 32];
