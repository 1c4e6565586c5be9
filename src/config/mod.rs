//! The configuration of one node: `emccd.toml` in, a checked [`Config`] out.
//!
//! A [`Config`] that exists is consistent: ranges hold, listeners don't clash, paths are absolute. All problems
//! of a file are told at once. Nothing secret is in here: secrets are named by the path of their file.
//! Whether those files are there and fit for use is asked separately, by [`check_files`].

mod check;
pub mod example;
mod file;
mod files;
pub mod init;
pub mod keys;
mod problem;
pub mod units;
mod values;

use std::{
    io::Read as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

pub use crate::config::{
    files::{PEPPER_BYTES, check_files},
    problem::{Problem, Problems},
};
pub use crate::trust::folder::IdentityFiles;
use crate::{
    domain::{address::HostPort, ids::ClusterId, login::SecurityMode, purpose::Purpose},
    trust::folder::IdentityFolder,
};

/// The name that a configuration file has by custom.
pub const FILE_NAME: &str = "emccd.toml";

/// Everything that belongs to one node.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from, absolute.
    pub file: PathBuf,
    /// The folder of that file, absolute; relative paths in it were taken from there.
    pub folder: PathBuf,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The node's name, unique in the cluster.
    pub node: String,
    /// How long work in progress may take to finish at the end.
    pub shutdown_grace: Duration,
    /// The listener for other clusters and the links to them.
    pub federation: Federation,
    /// What we show to other clusters.
    pub identity: IdentityFiles,
    /// What we show to those that we call, where it is something else.
    pub client_identity: Option<IdentityFiles>,
    /// The listener for phones.
    pub phone: Phone,
    /// The socket for the command line.
    pub admin: Admin,
    /// Figures and health.
    pub metrics: Metrics,
    /// Where revocation lists are taken from, if from anywhere.
    pub crl_folder: Option<PathBuf>,
    /// The database.
    pub store: Store,
    /// PIN hashing.
    pub credentials: Credentials,
    /// Limits of one login.
    pub login: Login,
    /// What is written to standard error.
    pub log: Log,
    settings: Vec<Setting>,
}

/// `[federation]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Federation {
    /// Where to listen; port 0 is any free one.
    pub listen: SocketAddr,
    /// Where other clusters should dial this node; empty for where it listens.
    pub advertise: Vec<HostPort>,
    /// How often a proof of life is sent.
    pub heartbeat: Duration,
    /// Without a proof for this long a link is down; longer than the heartbeat.
    pub dead_after: Duration,
    /// How long one attempt on one address may take.
    pub connect_timeout: Duration,
    /// The longest pause between attempts.
    pub reconnect_cap: Duration,
    /// Security mode of the cluster.
    pub security_mode: SecurityMode,
    /// How many inbound connections are served at a time.
    pub max_connections: usize,
}

/// `[phone]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phone {
    /// Where to listen for HTTPS; port 0 is any free one.
    pub listen: SocketAddr,
    /// Where to listen for plain HTTP, if at all.
    pub plain_listen: Option<SocketAddr>,
    /// What is shown to phones.
    pub identity: IdentityFiles,
    /// How many connections are served at a time, on both listeners together.
    pub max_connections: usize,
    /// How many of them may come from one address, or from one IPv6 /64.
    pub max_connections_per_address: usize,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The Unix socket, at most 107 bytes long.
    pub socket: PathBuf,
    /// Who may do what.
    pub groups: Groups,
}

/// `[admin.groups]`: names of Unix groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// May do everything.
    pub admin: Vec<String>,
    /// May change certificates and trust.
    pub certificates: Vec<String>,
    /// May end sessions.
    pub help_desk: Vec<String>,
    /// May look.
    pub viewer: Vec<String>,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where to serve figures and health, if at all; port 0 is any free one.
    pub listen: Option<SocketAddr>,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// `sqlite:` and an absolute path, or `sqlite::memory:`.
    pub url: String,
}

impl Store {
    /// The file of the database, when it has one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.url
            .strip_prefix("sqlite:")
            .filter(|path| *path != ":memory:")
            .map(Path::new)
    }
}

/// `[credentials]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// 32 random bytes.
    pub pepper_file: PathBuf,
    /// Memory of one Argon2id hash, in KiB.
    pub memory_kib: u32,
    /// Passes of one Argon2id hash.
    pub iterations: u32,
    /// Lanes of one Argon2id hash.
    pub parallelism: u32,
    /// How many checks may wait.
    pub queue: usize,
}

/// `[login]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// From the phone's request to the answer.
    pub deadline: Duration,
    /// How much of it the search for the home may take.
    pub find_deadline: Duration,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// One setting as it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The full name of the key.
    pub key: &'static str,
    /// The value in TOML, paths made absolute; none when the key has no value. In JSON it is what it stands for.
    #[serde(serialize_with = "file::literal_as_value")]
    pub value: Option<String>,
    /// Whether it is what would hold without being written.
    pub default: bool,
    /// Its line in the file, where the file gives it.
    pub line: Option<usize>,
}

impl Config {
    /// All identities of the node, by what they are for.
    #[must_use]
    pub fn identity_folder(&self) -> IdentityFolder {
        let mut places = vec![
            (Purpose::Federation, self.identity.clone()),
            (Purpose::Phone, self.phone.identity.clone()),
        ];
        let client = self.client_identity.clone();
        places.extend(client.map(|files| (Purpose::FederationClient, files)));
        IdentityFolder::new(places)
    }

    /// Every setting, in the order of the file, defaults included. Nothing in it is secret.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// The settings in force as a file that would give the same.
    #[must_use]
    pub fn show(&self) -> String {
        example::show(&self.settings)
    }
}

/// Reads and checks a file.
///
/// # Errors
/// [`Problems`] with everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let text = read(path)?;
    parse(&text, path)
}

/// Checks a text as if it stood in the file `path`, which is not read.
///
/// # Errors
/// [`Problems`] with everything that is wrong with it.
pub fn parse(text: &str, path: &Path) -> Result<Config, Problems> {
    let host = host_name();
    check::check(text, path, host.as_deref())
}

/// The name of this machine, where it has one that others could use.
#[must_use]
pub fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    crate::domain::address::is_host(&name).then_some(name)
}

/// No real file comes near; a wrong path to something huge must not fill the memory.
const MAX_FILE_BYTES: u64 = 1 << 20;

fn read(path: &Path) -> Result<String, Problems> {
    let refuse = |problem| Problems::new(path, vec![problem]);
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|e| {
            let mend = "`emccd init` writes one, `emccd config example` shows one".to_owned();
            refuse(Problem::new("", format!("can't be read: {e}")).with_suggestion(Some(mend)))
        })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let reason = "is larger than 1 MiB, which no configuration is";
        return Err(refuse(Problem::new("", reason)));
    }
    String::from_utf8(bytes).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let before = e.as_bytes().get(..valid).unwrap_or_default();
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        refuse(Problem::new("", "is not UTF-8").on_line(Some(line)))
    })
}

#[cfg(test)]
mod tests;
