//! Files → rows, with every problem at once. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
};

use self::checker::Checker;
use super::{
    Rest, Source,
    columns::{self, KINDS, Kind},
    csv_file::{self, Sink as _},
    item::{Item, for_every_kind},
    toml_file,
};
use crate::{
    domain::{
        ids::{BaseDeviceName, ClusterId, LoginName, UserId},
        login::PhoneService,
        policy::{Person, Policy, Rules},
    },
    secret::Pin,
    store::{
        applications::Application, call_groups::CallGroup, credentials::Phc, devices::Device,
        geolocations::Geolocation, parameters::Setting, peers::Peer, pools::DevicePool,
        profiles::Profile, users::User,
    },
};

mod checker;
mod problem;

pub use problem::{Problem, Problems};

/// A row and where it stands.
#[derive(Clone, Debug)]
pub struct Placed<T> {
    /// The row.
    pub value: T,
    /// Its file.
    pub file: Arc<str>,
    /// Its first line.
    pub line: usize,
}

/// Everything the files hold.
#[derive(Debug, Default)]
pub struct Rows {
    /// How many there are, those included that are refused.
    pub count: usize,
    /// The kinds that the files hold, also where they hold no row of them.
    pub kinds: BTreeSet<&'static str>,
    /// The names of all rows by kind, also of those that are refused; in lower case where case makes no difference.
    pub named: BTreeMap<&'static str, BTreeSet<String>>,
    /// Geolocations.
    pub geolocations: Vec<Placed<Geolocation>>,
    /// Call-control groups.
    pub call_groups: Vec<Placed<CallGroup>>,
    /// Phone services.
    pub phone_services: Vec<Placed<PhoneService>>,
    /// Device pools.
    pub pools: Vec<Placed<DevicePool>>,
    /// Credential policies.
    pub policies: Vec<Placed<Policy>>,
    /// Users.
    pub users: Vec<Placed<User>>,
    /// PINs and passwords in clear, taken out before anything is written.
    pub secrets: Secrets<Pin>,
    /// Hashes that came as such.
    pub hashes: Secrets<Phc>,
    /// Device profiles.
    pub profiles: Vec<Placed<Profile>>,
    /// Phones.
    pub devices: Vec<Placed<Device>>,
    /// Base devices.
    pub base_devices: Vec<Placed<BaseDeviceName>>,
    /// Application users.
    pub applications: Vec<Placed<Application>>,
    /// Other clusters.
    pub peers: Vec<Placed<Peer>>,
    /// Parameters that are set.
    pub parameters: Vec<Placed<Setting>>,
}

/// Secrets by the record that each is for.
pub type Secrets<T> = BTreeMap<Whose, T>;

/// Which record a secret is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose {
    /// Its kind.
    pub kind: &'static str,
    /// Its key.
    pub key: String,
}

impl Whose {
    /// The record of a kind with that name.
    #[must_use]
    pub fn named(kind: &'static Kind, name: &str) -> Self {
        Self {
            kind: kind.name,
            key: kind.key(name),
        }
    }
}

impl Rows {
    /// The PIN in clear that the files have for a user.
    #[must_use]
    pub fn pin_of(&self, user: &UserId) -> Option<&Pin> {
        let whose = Whose::named(&columns::USER, user.as_str());
        self.secrets.get(&whose)
    }
}

/// What of the rows' references the store has already.
#[derive(Debug, Default)]
pub struct Known {
    /// Of the records that the rows name, the keys of those that are there, by kind.
    pub there: BTreeMap<&'static str, BTreeSet<String>>,
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

/// Rows of all files together: 100,000 users, a profile and a phone for each, and as many again.
const MAX_ROWS: usize = 600_000;

/// Reads all files of the cluster `own`.
///
/// # Errors
/// Every problem in every file.
pub fn check(sources: &[Source], own: &ClusterId) -> Result<Rows, Problems> {
    let (rows, problems) = read(sources, own);
    if problems.is_empty() {
        Ok(rows)
    } else {
        Err(problems)
    }
}

/// The same, with the rows that are good beside the problems of the others.
#[must_use]
pub fn read(sources: &[Source], own: &ClusterId) -> (Rows, Problems) {
    let mut rows = Rows::default();
    let mut problems = Problems::default();
    for source in sources {
        let file: Arc<str> = source.name.as_str().into();
        let mut checker = Checker::new(file, &mut rows, &mut problems);
        if !source.is_csv() {
            let mut found = Vec::new();
            let raws = toml_file::read(&source.text, &mut found);
            found.into_iter().for_each(|found| checker.refuse(found));
            for raw in raws {
                if !checker.row(raw) {
                    break;
                }
            }
        } else if let Some(kind) = Kind::of_csv_file(&source.name) {
            checker.holds(kind);
            csv_file::read(&source.text, kind, &mut checker);
        } else {
            checker.refuse((1, String::new(), no_kind()));
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

/// Says which PINs the policies of their users refuse, each with every rule that it breaks. `there` are the store's
/// policies; where the files have the same ones, or `rest` goes, the files' count.
#[must_use]
pub fn check_pins(rows: &Rows, secrets: &Secrets<Pin>, there: &[Policy], rest: Rest) -> Problems {
    let built_in = Policy::built_in();
    let is_pruned = rest == Rest::Goes && rows.kinds.contains(columns::POLICY.name);
    let there = there.iter().filter(|_| !is_pruned);
    let files = rows.policies.iter().map(|row| &row.value);
    // The last one of a name stands.
    let policies: BTreeMap<&str, &Rules> = std::iter::once(&built_in)
        .chain(there)
        .chain(files)
        .map(|policy| (policy.name.as_str(), &policy.rules))
        .collect();
    let (mut problems, mut seen) = (Problems::default(), BTreeSet::new());
    // Of a user who stands in the files twice, which is told as that, the last PIN is kept.
    for row in rows.users.iter().rev() {
        let user = &row.value;
        let whose = Whose::named(&columns::USER, user.user_id.as_str());
        if !seen.insert(whose.key.clone()) {
            continue;
        }
        let name = user.policy.as_ref().unwrap_or(&built_in.name);
        // A policy that there is not is told as that.
        let (Some(pin), Some(rules)) = (secrets.get(&whose), policies.get(name.as_str())) else {
            continue;
        };
        let person = Person {
            extension: user.primary_extension.as_ref().map(LoginName::as_str),
            name: &user.display_name,
        };
        let broken = rules.violations(pin.expose(), &person);
        if !broken.is_empty() {
            let broken: Vec<_> = broken.iter().map(ToString::to_string).collect();
            let rule = format!("the policy {name} refuses it: {}", broken.join("; "));
            problems.push(row.problem("user.pin", rule));
        }
    }
    problems
}

/// Says which rows name a record that is neither in the files nor in the store.
#[must_use]
pub fn check_references(rows: &Rows, known: &Known) -> Problems {
    let mut problems = Problems::default();
    let _: Result<(), Infallible> = (|| {
        for_every_kind!(missing(rows, known, &mut problems));
        Ok(())
    })();
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

fn missing<T: Item>(rows: &Rows, known: &Known, problems: &mut Problems) -> Result<(), Infallible> {
    let has = |all: &BTreeMap<_, BTreeSet<String>>, kind: &Kind, key: &String| {
        all.get(kind.name).is_some_and(|keys| keys.contains(key))
    };
    for row in T::rows(rows) {
        for named in row.value.names() {
            let key = named.kind.key(&named.name);
            if !has(&rows.named, named.kind, &key) && !has(&known.there, named.kind, &key) {
                let field = format!("{}.{}", T::KIND.name, named.column);
                let what = named.kind.name.replace('-', " ");
                problems.push(row.problem(&field, format!("there is no {what} {}", named.name)));
            }
        }
    }
    Ok(())
}

/// Self-service user IDs of users who are not in the files, and so keep theirs.
fn self_service_ids(rows: &Rows, known: &Known, problems: &mut Problems) {
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
            file: Arc::clone(&self.file),
            line: self.line,
            field: field.to_owned(),
            message,
        }
    }
}

fn duplicates(rows: &Rows, problems: &mut Problems) {
    let _: Result<(), Infallible> = (|| {
        for_every_kind!(twice(rows, problems));
        Ok(())
    })();
    let id = |user: &User| user.self_service_id.as_ref().map(ToString::to_string);
    same(&rows.users, "user.self-service-id", id, problems);
}

fn twice<T: Item>(rows: &Rows, problems: &mut Problems) -> Result<(), Infallible> {
    let column = T::KIND.columns.first().map_or("", |column| column.name);
    let field = format!("{}.{column}", T::KIND.name);
    same(T::rows(rows), &field, |row| Some(row.key()), problems);
    Ok(())
}

fn same<T>(
    rows: &[Placed<T>],
    field: &str,
    key: impl Fn(&T) -> Option<String>,
    problems: &mut Problems,
) {
    let mut seen: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for row in rows {
        let Some(key) = key(&row.value) else {
            continue;
        };
        if let Some((file, line)) = seen.insert(key, (&row.file, row.line)) {
            problems.push(row.problem(field, format!("it stands in {file}:{line} already")));
        }
    }
}
