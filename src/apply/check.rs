//! Files → rows, with every problem at once. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
};

use toml::Spanned;

use super::{Source, file};
use crate::{
    credentials,
    domain::{
        bounds::{self, is_line},
        ids::{
            BaseDeviceName, ClusterId, DeviceName, DevicePoolName, InvalidName, LoginName,
            ProfileName, UserId,
        },
        login::Line,
    },
    secret::Pin,
    store::{
        credentials::Phc, devices::Device, peers::Peer, pools::DevicePool, profiles::Profile,
        users::User,
    },
};

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The table and field, for example `user.extension`; empty when the file is no TOML.
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

impl Rows {
    /// The same without what is secret, for a look into the store.
    #[must_use]
    pub fn clone_without_pins(&self) -> Self {
        Self {
            users: self.users.clone(),
            profiles: self.profiles.clone(),
            peers: self.peers.clone(),
            devices: self.devices.clone(),
            ..Self::default()
        }
    }
}

/// What of the rows' references the store has already.
#[derive(Debug, Default)]
pub struct Known {
    /// Users.
    pub users: BTreeSet<UserId>,
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
    let mut rows = Rows::default();
    let mut problems = Vec::new();
    for source in sources {
        match toml::from_str::<file::File>(&source.text) {
            Ok(file) => {
                let mut checker = Checker {
                    source,
                    lines: Lines::new(&source.text),
                    rows: &mut rows,
                    problems: &mut problems,
                };
                checker.file(file);
            }
            Err(error) => problems.push(Problem {
                file: source.name.clone(),
                line: Lines::new(&source.text).of(&error.span().unwrap_or(0..0)),
                field: String::new(),
                message: without_value(error.message()),
            }),
        }
    }
    duplicates(&rows, &mut problems);
    for row in rows.peers.iter().filter(|row| row.value.cluster_id == *own) {
        problems.push(row.problem("peer.id", "it is this cluster's own ID".to_owned()));
    }
    if problems.is_empty() {
        Ok(rows)
    } else {
        Err(problems)
    }
}

/// A parser's message without the value that it complains of, which may be a PIN: `pin = 24680` is the usual slip.
fn without_value(message: &str) -> String {
    let Some((complaint, expected)) = message.rsplit_once(", expected ") else {
        return message.to_owned();
    };
    let kind = ["invalid type: ", "invalid value: ", "unknown variant "]
        .iter()
        .find_map(|start| complaint.strip_prefix(start));
    let Some(kind) = kind else {
        return message.to_owned();
    };
    // What is left of `integer `24680`` or `string "24680"`: the kind alone.
    let kind = kind.split(['`', '"']).next().unwrap_or_default().trim();
    let kind = if kind.is_empty() {
        "another word"
    } else {
        kind
    };
    let hint = if expected == "a string" {
        "; put it in quotes"
    } else {
        ""
    };
    format!("it is {kind}, expected {expected}{hint}")
}

/// Says which rows name a user or a pool that is neither in the files nor in the store.
#[must_use]
pub fn check_references(rows: &Rows, known: &Known) -> Vec<Problem> {
    let mut problems = Vec::new();
    let users: BTreeSet<_> = rows
        .users
        .iter()
        .map(|u| &u.value.user_id)
        .chain(&known.users)
        .collect();
    let pools: BTreeSet<_> = rows
        .pools
        .iter()
        .map(|p| &p.value.name)
        .chain(&known.pools)
        .collect();
    for row in &rows.profiles {
        if !users.contains(&row.value.user_id) {
            problems.push(row.problem(
                "profile.user",
                format!("there is no user {}", row.value.user_id),
            ));
        }
        if let Some(pool) = row
            .value
            .device_pool
            .as_ref()
            .filter(|p| !pools.contains(p))
        {
            problems.push(row.problem(
                "profile.device-pool",
                format!("there is no device pool {pool}"),
            ));
        }
    }
    for row in &rows.devices {
        if let Some(pool) = row
            .value
            .device_pool
            .as_ref()
            .filter(|p| !pools.contains(p))
        {
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

/// Where the lines of a text begin, so that the line of a place is found without counting from the front.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(after.map(|(place, _)| place + 1).collect())
    }

    /// The line that a span begins in, from 1.
    fn of(&self, span: &Range<usize>) -> usize {
        self.0.partition_point(|start| *start <= span.start) + 1
    }
}

struct Checker<'a> {
    source: &'a Source,
    lines: Lines,
    rows: &'a mut Rows,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn file(&mut self, file: file::File) {
        for row in file.device_pool {
            self.pool(row);
        }
        for row in file.user {
            self.user(row);
        }
        for row in file.profile {
            self.profile(row);
        }
        for row in file.device {
            self.device(row);
        }
        for row in file.base_device {
            self.base_device(row);
        }
        for row in file.peer {
            self.peer(row);
        }
    }

    fn problem(&mut self, line: usize, field: &str, message: impl fmt::Display) {
        self.problems.push(Problem {
            file: self.source.name.clone(),
            line,
            field: field.to_owned(),
            message: message.to_string(),
        });
    }

    fn name<T: std::str::FromStr<Err = InvalidName>>(
        &mut self,
        line: usize,
        field: &str,
        text: &str,
    ) -> Option<T> {
        text.parse()
            .map_err(|error| self.problem(line, field, error))
            .ok()
    }

    fn optional<T: std::str::FromStr<Err = InvalidName>>(
        &mut self,
        line: usize,
        field: &str,
        text: Option<&String>,
    ) -> Option<T> {
        text.and_then(|text| self.name(line, field, text))
    }

    fn place<T>(&self, line: usize, value: T) -> Placed<T> {
        Placed {
            value,
            file: self.source.name.clone(),
            line,
        }
    }

    fn line<T>(&self, row: Spanned<T>) -> (usize, T) {
        (self.lines.of(&row.span()), row.into_inner())
    }

    fn user(&mut self, row: Spanned<file::User>) {
        let (line, mut row) = self.line(row);
        let self_service_id =
            self.optional::<LoginName>(line, "user.self-service-id", row.self_service_id.as_ref());
        let primary_extension =
            self.optional::<LoginName>(line, "user.extension", row.extension.as_ref());
        let Some(user_id) = self.name::<UserId>(line, "user.id", &row.id) else {
            return;
        };
        match (row.pin.take(), row.pin_hash.take()) {
            (Some(pin), Some(_)) => {
                // Wiped by its type.
                drop(Pin::new(pin));
                self.problem(line, "user.pin", "give pin or pin-hash, not both");
            }
            (Some(pin), None) => match Pin::new(pin) {
                Ok(pin) => {
                    self.rows.pins.insert(user_id.clone(), pin);
                }
                Err(error) => self.problem(line, "user.pin", error),
            },
            (None, Some(hash)) => {
                let hash = Phc::new(hash);
                match credentials::check_hash(&hash) {
                    Ok(()) => drop(self.rows.hashes.insert(user_id.clone(), hash)),
                    Err(_) => self.problem(line, "user.pin-hash", NO_HASH),
                }
            }
            (None, None) => {}
        }
        let user = User {
            user_id,
            self_service_id,
            primary_extension,
            display_name: std::mem::take(&mut row.name),
            enabled: row.enabled,
            emcc_enabled: row.emcc,
        };
        let placed = self.place(line, user);
        self.rows.users.push(placed);
    }

    fn profile(&mut self, row: Spanned<file::Profile>) {
        let (line, row) = self.line(row);
        let name = self.name::<ProfileName>(line, "profile.name", &row.name);
        let user_id = self.name::<UserId>(line, "profile.user", &row.user);
        let device_pool =
            self.optional::<DevicePoolName>(line, "profile.device-pool", row.device_pool.as_ref());
        self.lines(line, &row.lines);
        if let Some(locale) = &row.locale {
            self.text(line, "profile.locale", locale, bounds::TEXT_BYTES);
        }
        let (Some(name), Some(user_id)) = (name, user_id) else {
            return;
        };
        let profile = Profile {
            name,
            user_id,
            is_default: row.default,
            lines: row.lines,
            locale: row.locale,
            device_pool,
        };
        let placed = self.place(line, profile);
        self.rows.profiles.push(placed);
    }

    /// A text that the wire must be able to carry.
    fn text(&mut self, line: usize, field: &str, text: &str, max: usize) {
        if !is_line(text, max) {
            let rule = format!("it must be at most {max} bytes long, without control characters");
            self.problem(line, field, rule);
        }
    }

    fn lines(&mut self, line: usize, lines: &[Line]) {
        if lines.len() > bounds::LINES {
            let rule = format!("there must be at most {}", bounds::LINES);
            self.problem(line, "profile.lines", rule);
        }
        for one in lines.iter().take(bounds::LINES) {
            if one.index == 0 {
                self.problem(
                    line,
                    "profile.lines.index",
                    "it must be 1 for the first button, and up",
                );
            }
            self.text(
                line,
                "profile.lines.number",
                &one.number,
                bounds::TEXT_BYTES,
            );
            self.text(line, "profile.lines.label", &one.label, bounds::TEXT_BYTES);
        }
    }

    fn servers<'a>(
        &mut self,
        line: usize,
        field: &str,
        hosts: impl ExactSizeIterator<Item = &'a String>,
    ) {
        if hosts.len() > bounds::SERVERS {
            self.problem(
                line,
                field,
                format!("there must be at most {}", bounds::SERVERS),
            );
        }
        for host in hosts.take(bounds::SERVERS) {
            self.text(line, field, host, bounds::TEXT_BYTES);
        }
    }

    fn device(&mut self, row: Spanned<file::Device>) {
        let (line, row) = self.line(row);
        if !matches!(row.protocol.as_str(), "SIP" | "SCCP") {
            self.problem(line, "device.protocol", "it must be SIP or SCCP");
        }
        self.text(line, "device.model", &row.model, bounds::MODEL_BYTES);
        if let Some(locale) = &row.locale {
            self.text(line, "device.locale", locale, bounds::TEXT_BYTES);
        }
        self.geolocation(line, "device.geolocation", &row.geolocation);
        let device_pool =
            self.optional::<DevicePoolName>(line, "device.device-pool", row.device_pool.as_ref());
        let Some(name) = self.name::<DeviceName>(line, "device.name", &row.name) else {
            return;
        };
        let device = Device {
            name,
            model: row.model,
            protocol: row.protocol,
            security_mode: row.security_mode,
            emcc: row.emcc,
            em_enabled: row.extension_mobility,
            device_pool,
            locale: row.locale,
            geolocation: row.geolocation,
        };
        let placed = self.place(line, device);
        self.rows.devices.push(placed);
    }

    fn geolocation(&mut self, line: usize, field: &str, fields: &BTreeMap<String, String>) {
        let (most, bytes) = (bounds::GEOLOCATION_FIELDS, bounds::GEOLOCATION_BYTES);
        let fits = |(name, value): (&String, &String)| {
            !name.is_empty() && is_line(name, bytes) && is_line(value, bytes)
        };
        if fields.len() > most || !fields.iter().all(fits) {
            let rule = format!(
                "at most {most} fields with a name, names and values at most {bytes} bytes long, without control \
                 characters"
            );
            self.problem(line, field, rule);
        }
    }

    fn pool(&mut self, row: Spanned<file::DevicePool>) {
        let (line, row) = self.line(row);
        if row
            .call_managers
            .iter()
            .any(|c| c.priority > bounds::PRIORITY)
        {
            let rule = format!("a priority is 0 to {}", bounds::PRIORITY);
            self.problem(line, "device-pool.call-managers", rule);
        }
        let hosts = row.call_managers.iter().map(|c| &c.host);
        self.servers(line, "device-pool.call-managers", hosts);
        self.servers(line, "device-pool.tftp-servers", row.tftp_servers.iter());
        self.geolocation(line, "device-pool.geolocation", &row.geolocation);
        let Some(name) = self.name::<DevicePoolName>(line, "device-pool.name", &row.name) else {
            return;
        };
        let pool = DevicePool {
            name,
            geolocation: row.geolocation,
            call_managers: row.call_managers,
            tftp_servers: row.tftp_servers,
            roaming: row.roaming,
        };
        let placed = self.place(line, pool);
        self.rows.pools.push(placed);
    }

    fn base_device(&mut self, row: Spanned<file::BaseDevice>) {
        let (line, row) = self.line(row);
        // Before the names are made: a file of some megabytes could count to billions.
        let wanted = usize::try_from(row.count.unwrap_or(1)).unwrap_or(usize::MAX);
        if self.rows.base_devices.len().saturating_add(wanted) > MAX_BASE_DEVICES_IN_ALL
            && row.count.is_none_or(|count| count <= MAX_BASE_DEVICES)
        {
            let rule = format!("a cluster has at most {MAX_BASE_DEVICES_IN_ALL} base devices");
            self.problem(line, "base-device", rule);
            return;
        }
        let names: Vec<String> = match row.count {
            None => vec![row.name],
            Some(count @ 1..=MAX_BASE_DEVICES) => {
                (1..=count).map(|n| format!("{}{n}", row.name)).collect()
            }
            Some(_) => {
                self.problem(
                    line,
                    "base-device.count",
                    format!("it must be 1 to {MAX_BASE_DEVICES}"),
                );
                return;
            }
        };
        for name in names {
            let Some(name) = self.name::<BaseDeviceName>(line, "base-device.name", &name) else {
                return;
            };
            let placed = self.place(line, name);
            self.rows.base_devices.push(placed);
        }
    }

    fn peer(&mut self, row: Spanned<file::Peer>) {
        let (line, row) = self.line(row);
        let Some(cluster_id) = self.name::<ClusterId>(line, "peer.id", &row.id) else {
            return;
        };
        let peer = Peer {
            cluster_id,
            enabled: row.enabled,
            allow_emcc: row.allow_emcc,
            addresses: row.addresses,
            node_names: row.node_names,
            user_patterns: row.user_patterns,
            dn_patterns: row.dn_patterns,
            ignore_eku: row.ignore_eku,
            description: row.description,
        };
        for broken in peer.broken_fields() {
            let field = format!("peer.{}", broken.field);
            self.problem(line, &field, format!("it must be {}", broken.rule));
        }
        let placed = self.place(line, peer);
        self.rows.peers.push(placed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_in_the_line_that_begins_last_before_it() {
        let lines = Lines::new("a\n\nbc\n");
        let found: Vec<_> = (0..7).map(|place| lines.of(&(place..place))).collect();
        assert_eq!(found, [1, 1, 2, 3, 3, 3, 4]);
        assert_eq!(Lines::new("").of(&(0..0)), 1);
    }
}
