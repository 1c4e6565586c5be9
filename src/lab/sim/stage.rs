//! What every simulated run begins with: users, phones, base devices, peers and certificates. Made once per process,
//! outside of simulated time.

use std::{
    collections::BTreeMap,
    sync::OnceLock,
    time::{Duration, Instant},
};

use super::{
    net::Chain,
    plan::{BASES, Base, Cluster, KEPT_OUT, Node, PHONES, Phone, Settings, USERS, User},
};
use crate::{
    clock::{self, Timestamp},
    credentials::{self, Credentials},
    domain::{
        announcement::Acceptance,
        ids::{BaseDeviceName, ClusterId, DeviceName, ProfileName, UserId},
        login::SecurityMode,
    },
    node::bare::PEPPER,
    secret::{Pin, Secret},
    store::{
        Transaction, base_devices,
        credentials::{self as stored, Phc},
        devices::{self, Device},
        inline::Disk,
        parameters::{self, Setting},
        peers::{self, Peer},
        profiles::{self, Profile},
        trust_entries::{self, EntryKind, Source, TrustEntry},
        users,
    },
    trust::{fixtures::Spec, identity::Identity},
};

/// What wall clocks show when a run begins, but for what they are wrong by: the first of January 2026.
pub(crate) const EPOCH: Timestamp = Timestamp::from_millis(1_767_225_600_000);
/// Everybody's PIN.
pub(crate) const PIN: &str = "13579";

/// What runs begin with.
pub(crate) struct Beginning {
    identities: [Identity; 3],
    disks: [Disk; 3],
}

/// Made at the first call.
pub(crate) fn beginning() -> &'static Beginning {
    static BEGINNING: OnceLock<Beginning> = OnceLock::new();
    BEGINNING.get_or_init(Beginning::make)
}

impl Beginning {
    fn make() -> Self {
        let year = Duration::from_hours(24 * 365);
        let identities = [0, 1, 2].map(|n| {
            Spec::new(&Cluster(n).to_string())
                .valid_between(EPOCH.minus(year), EPOCH.plus(year * 5))
                .self_signed()
                .identity()
        });
        let phc = hash();
        let disks = [0, 1, 2].map(|n| {
            let disk = Disk::new();
            disk.with(|tx| {
                fill(tx, Cluster(n), &phc);
                for other in Cluster::all().filter(|other| other.0 != n) {
                    let entry = entry(other, &identities[usize::from(other.0)]);
                    assert!(trust_entries::add(tx, &entry).unwrap());
                }
            });
            disk
        });
        Self { identities, disks }
    }

    /// What a cluster's nodes show.
    pub(crate) fn identity(&self, cluster: Cluster) -> &Identity {
        &self.identities[usize::from(cluster.0)]
    }

    /// The same, as it goes over the wire.
    pub(crate) fn chain(&self, cluster: Cluster) -> Chain {
        ders(self.identity(cluster))
    }

    /// A disk for a run.
    pub(crate) fn disk(&self, cluster: Cluster, settings: &Settings) -> Disk {
        let disk = self.disks[usize::from(cluster.0)].copy();
        disk.with(|tx| {
            for other in Cluster::all().filter(|other| *other != cluster) {
                peers::upsert(tx, &peer(other, settings)).unwrap();
            }
            let second = settings.second[usize::from(cluster.0)].as_str();
            set(tx, "multiple-login-behavior", second);
            if let Some(minutes) = settings.limit_minutes {
                set(
                    tx,
                    "inter-cluster-maximum-login-time",
                    &format!("0:{minutes:02}"),
                );
            } else {
                set(tx, "inter-cluster-maximum-login-time", "0:00");
            }
        });
        disk
    }
}

/// The certificates of an identity.
pub(crate) fn ders(identity: &Identity) -> Chain {
    let chain = identity.chain().iter();
    chain
        .map(|certificate| certificate.der().to_vec().into())
        .collect()
}

/// The record of a peer.
pub(crate) fn peer(cluster: Cluster, settings: &Settings) -> Peer {
    Peer {
        cluster_id: id(cluster),
        enabled: true,
        allow_emcc: true,
        addresses: cluster
            .nodes()
            .map(|node: Node| node.address().to_string())
            .collect(),
        node_names: Vec::new(),
        user_patterns: match settings.patterns {
            true => vec![format!("*-{cluster}")],
            false => Vec::new(),
        },
        dn_patterns: Vec::new(),
        ignore_eku: false,
        accept_announcements: Acceptance::default(),
        description: String::new(),
    }
}

/// What is trusted of a peer.
pub(crate) fn trusted(cluster: Cluster) -> TrustEntry {
    entry(cluster, beginning().identity(cluster))
}

fn entry(cluster: Cluster, identity: &Identity) -> TrustEntry {
    let leaf = identity.leaf();
    TrustEntry {
        cluster_id: id(cluster),
        kind: EntryKind::Pinned,
        fingerprint: leaf.fingerprint(),
        der: leaf.der().to_vec(),
        added_at: EPOCH,
        source: Source::Operator,
        alias: None,
    }
}

fn id(cluster: Cluster) -> ClusterId {
    ClusterId::new(cluster.to_string()).unwrap()
}

fn set(tx: &mut dyn Transaction, name: &str, value: &str) {
    let setting = Setting {
        name: name.to_owned(),
        value: value.to_owned(),
        set_at: EPOCH,
        set_by: "operator".to_owned(),
    };
    parameters::set(tx, &setting).unwrap();
}

/// A PIN's hash as it is stored: nothing of a run depends on its salt.
fn hash() -> Phc {
    let config = credentials::Config {
        memory_kib: 8,
        iterations: 1,
        ..credentials::Config::default()
    };
    let credentials = Credentials::new(&config, Secret::new(PEPPER.to_vec())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let deadline: Instant = clock::instant() + Duration::from_secs(60);
    runtime
        .block_on(credentials.hash(&Pin::new(PIN.to_owned()).unwrap(), deadline))
        .unwrap()
}

fn fill(tx: &mut dyn Transaction, cluster: Cluster, phc: &Phc) {
    for n in 0..USERS + KEPT_OUT {
        let user_id = UserId::new(User(cluster.0, n).to_string()).unwrap();
        let user = users::User {
            user_id: user_id.clone(),
            self_service_id: None,
            primary_extension: None,
            display_name: String::new(),
            enabled: true,
            emcc_enabled: true,
            policy: None,
        };
        users::upsert(tx, &user).unwrap();
        stored::put_hash(tx, &user_id, phc, EPOCH).unwrap();
        let profile = Profile {
            name: ProfileName::new(format!("{user_id}-profile")).unwrap(),
            user_id,
            is_default: true,
            lines: Vec::new(),
            locale: None,
            device_pool: None,
            services: Vec::new(),
        };
        profiles::upsert(tx, &profile).unwrap();
    }
    for n in 0..PHONES + KEPT_OUT {
        let device = Device {
            name: DeviceName::new(Phone(cluster.0, n).to_string()).unwrap(),
            model: "CP-8841".to_owned(),
            protocol: "SIP".to_owned(),
            security_mode: SecurityMode::NonSecure,
            emcc: true,
            em_enabled: true,
            device_pool: None,
            locale: None,
            geolocation: BTreeMap::new(),
            location: None,
            services: Vec::new(),
        };
        devices::upsert(tx, &device).unwrap();
    }
    for n in 0..BASES {
        let name = BaseDeviceName::new(Base(cluster.0, n).to_string()).unwrap();
        base_devices::upsert(tx, &name).unwrap();
    }
}
