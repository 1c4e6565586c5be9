//! Files → rows, with every problem at once. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use self::checker::Checker;
use super::{
    Source,
    columns::{self, KINDS, Kind},
    csv_file, toml_file,
};
use crate::{
    domain::ids::{BaseDeviceName, ClusterId, DevicePoolName, LoginName, UserId},
    secret::Pin,
    store::{
        credentials::Phc, devices::Device, fold, peers::Peer, pools::DevicePool, profiles::Profile,
        users::User,
    },
};

mod checker;

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The kind and column, for example `user.extension`; empty when the file is neither TOML nor CSV.
    pub field: String,
    /// What is wrong, and what would be right. Never a PIN.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// A row and where it stands.
#[derive(Clone, Debug)]
pub struct Placed<T> {
    /// The row.
    pub value: T,
    /// Its file.
    pub file: String,
    /// Its first line.
    pub line: usize,
}

/// Everything the files hold.
#[derive(Debug, Default)]
pub struct Rows {
    /// The kinds that the files hold, also where they hold no row of them.
    pub kinds: BTreeSet<&'static str>,
    /// The names of all rows by kind, also of those that are refused; in lower case where case makes no difference.
    pub named: BTreeMap<&'static str, BTreeSet<String>>,
    /// Device pools.
    pub pools: Vec<Placed<DevicePool>>,
    /// Users.
    pub users: Vec<Placed<User>>,
    /// PINs in clear, taken out before anything is written.
    pub pins: BTreeMap<UserId, Pin>,
    /// Hashes that came as such.
    pub hashes: BTreeMap<UserId, Phc>,
    /// Device profiles.
    pub profiles: Vec<Placed<Profile>>,
    /// Phones.
    pub devices: Vec<Placed<Device>>,
    /// Base devices.
    pub base_devices: Vec<Placed<BaseDeviceName>>,
    /// Other clusters.
    pub peers: Vec<Placed<Peer>>,
}

/// What of the rows' references the store has already.
#[derive(Debug, Default)]
pub struct Known {
    /// Users, by their IDs in lower case.
    pub users: BTreeSet<String>,
    /// Device pools.
    pub pools: BTreeSet<DevicePoolName>,
    /// Who has the self-service user IDs that the files give out.
    pub self_service_ids: BTreeMap<LoginName, UserId>,
    /// Peers that an authority vouches for.
    pub anchored: BTreeSet<ClusterId>,
}

/// Why a PHC string is refused. What exactly is wrong with it might repeat a part of it.
const NO_HASH: &str = "it must be a PHC string that begins with $argon2id$ and has parameters that a login can \
                       afford, a salt and a hash";

/// The longest numbered run of base devices in one row.
const MAX_BASE_DEVICES: u32 = 30_000;

/// Base devices of one cluster, in all rows of all files.
const MAX_BASE_DEVICES_IN_ALL: usize = 60_000;

/// Reads all files of the cluster `own`.
///
/// # Errors
/// Every problem in every file.
pub fn check(sources: &[Source], own: &ClusterId) -> Result<Rows, Vec<Problem>> {
    let (rows, problems) = read(sources, own);
    if problems.is_empty() {
        Ok(rows)
    } else {
        Err(problems)
    }
}

/// The same, with the rows that are good beside the problems of the others.
#[must_use]
pub fn read(sources: &[Source], own: &ClusterId) -> (Rows, Vec<Problem>) {
    let mut rows = Rows::default();
    let mut problems = Vec::new();
    for source in sources {
        let mut found = Vec::new();
        let raws = if !source.is_csv() {
            toml_file::read(&source.text, &mut found)
        } else if let Some(kind) = Kind::of_csv_file(&source.name) {
            rows.kinds.insert(kind.name);
            csv_file::read(&source.text, kind, &mut found)
        } else {
            found.push((1, String::new(), no_kind()));
            Vec::new()
        };
        let placed = found.into_iter().map(|(line, field, message)| Problem {
            file: source.name.clone(),
            line,
            field,
            message,
        });
        problems.extend(placed);
        let mut checker = Checker {
            source,
            rows: &mut rows,
            problems: &mut problems,
        };
        for raw in raws {
            checker.row(raw);
        }
    }
    duplicates(&rows, &mut problems);
    for row in rows.peers.iter().filter(|row| row.value.cluster_id == *own) {
        problems.push(row.problem("peer.id", "it is this cluster's own ID".to_owned()));
    }
    (rows, problems)
}

fn no_kind() -> String {
    let names: Vec<_> = KINDS.iter().map(|kind| kind.plural).collect();
    format!(
        "the name of a CSV file says what it holds: one of {}, then .csv, or something more behind a dash",
        names.join(", ")
    )
}

/// Says which rows name a user or a pool that is neither in the files nor in the store.
#[must_use]
pub fn check_references(rows: &Rows, known: &Known) -> Vec<Problem> {
    let mut problems = Vec::new();
    let nothing = BTreeSet::new();
    let named = |kind: &Kind| rows.named.get(kind.name).unwrap_or(&nothing);
    let (users, pools) = (named(&columns::USER), named(&columns::DEVICE_POOL));
    let is_user = |id: &UserId| {
        let key = fold(id.as_str());
        users.contains(&key) || known.users.contains(&key)
    };
    let is_pool =
        |name: &DevicePoolName| pools.contains(name.as_str()) || known.pools.contains(name);
    for row in &rows.profiles {
        if !is_user(&row.value.user_id) {
            problems.push(row.problem(
                "profile.user",
                format!("there is no user {}", row.value.user_id),
            ));
        }
        if let Some(pool) = row.value.device_pool.as_ref().filter(|p| !is_pool(p)) {
            problems.push(row.problem(
                "profile.device-pool",
                format!("there is no device pool {pool}"),
            ));
        }
    }
    for row in &rows.devices {
        if let Some(pool) = row.value.device_pool.as_ref().filter(|p| !is_pool(p)) {
            problems.push(row.problem(
                "device.device-pool",
                format!("there is no device pool {pool}"),
            ));
        }
    }
    self_service_ids(rows, known, &mut problems);
    for row in &rows.peers {
        if row.value.node_names.is_empty() && known.anchored.contains(&row.value.cluster_id) {
            let rule =
                "there must be one at least: an authority vouches for this peer's node names";
            problems.push(row.problem("peer.node-names", rule.to_owned()));
        }
    }
    problems
}

/// Self-service user IDs of users who are not in the files, and so keep theirs.
fn self_service_ids(rows: &Rows, known: &Known, problems: &mut Vec<Problem>) {
    let key = |id: &UserId| id.as_str().to_ascii_lowercase();
    let in_files: BTreeSet<_> = rows.users.iter().map(|u| key(&u.value.user_id)).collect();
    for row in &rows.users {
        let Some(id) = &row.value.self_service_id else {
            continue;
        };
        if let Some(holder) = known.self_service_ids.get(id)
            && !in_files.contains(&key(holder))
        {
            problems.push(row.problem(
                "user.self-service-id",
                format!("the user {holder} has it already"),
            ));
        }
    }
}

impl<T> Placed<T> {
    fn problem(&self, field: &str, message: String) -> Problem {
        Problem {
            file: self.file.clone(),
            line: self.line,
            field: field.to_owned(),
            message,
        }
    }
}

fn duplicates(rows: &Rows, problems: &mut Vec<Problem>) {
    fn of<T, K: Ord>(
        rows: &[Placed<T>],
        field: &str,
        key: impl Fn(&T) -> K,
        problems: &mut Vec<Problem>,
    ) {
        of_those(rows, field, |row| Some(key(row)), problems);
    }
    fn of_those<T, K: Ord>(
        rows: &[Placed<T>],
        field: &str,
        key: impl Fn(&T) -> Option<K>,
        problems: &mut Vec<Problem>,
    ) {
        let mut seen: BTreeMap<K, (String, usize)> = BTreeMap::new();
        for row in rows {
            let here = (row.file.clone(), row.line);
            let Some(key) = key(&row.value) else {
                continue;
            };
            if let Some((file, line)) = seen.insert(key, here) {
                problems.push(row.problem(field, format!("it stands in {file}:{line} already")));
            }
        }
    }
    of(
        &rows.pools,
        "device-pool.name",
        |r| r.name.clone(),
        problems,
    );
    of(
        &rows.users,
        "user.id",
        |r| r.user_id.as_str().to_ascii_lowercase(),
        problems,
    );
    of_those(
        &rows.users,
        "user.self-service-id",
        |r| r.self_service_id.clone(),
        problems,
    );
    of(&rows.profiles, "profile.name", |r| r.name.clone(), problems);
    of(
        &rows.devices,
        "device.name",
        |r| r.name.as_str().to_ascii_lowercase(),
        problems,
    );
    of(
        &rows.base_devices,
        "base-device.name",
        |r| r.as_str().to_ascii_lowercase(),
        problems,
    );
    of(&rows.peers, "peer.id", |r| r.cluster_id.clone(), problems);
}
