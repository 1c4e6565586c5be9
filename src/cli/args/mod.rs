//! What can be typed: one definition from which parsing and help come.

mod audit;
mod cert;
mod cluster;
mod crl;
mod day;
mod db;
mod param;
mod people;
mod policy;
mod rotate;
mod trust;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

pub use self::{
    audit::{Audit, AuditList, AuditVerify},
    cert::{Cert, CertCsr, CertFields, CertInstall, CertNew, For, Key, Purpose},
    cluster::{
        Cluster, ClusterAdd, ClusterInvite, ClusterJoin, ClusterRemove, ClusterSet, PairingVerbs,
    },
    crl::{TrustCrl, TrustCrlAdd, TrustCrlRemove},
    db::{Db, DbMigrate, DbVerify},
    param::{Param, ParamList, ParamSet},
    people::{
        BaseAdd, BaseRemove, DeviceAdd, DeviceFields, DeviceRemove, DeviceSet, Profile, ProfileAdd,
        ProfileFields, ProfileSet, UserAdd, UserFields, UserRemove, UserSet,
    },
    policy::{Pin, Policy, PolicyAdd, PolicyFields, PolicyRemove, PolicySet},
    rotate::{Rotate, RotateAnnounce, RotateTarget},
    trust::{
        RemovalMode, StorePassword, Trust, TrustAccept, TrustAdd, TrustConsolidate, TrustDiff,
        TrustExplain, TrustExport, TrustImport, TrustRemove,
    },
};
use crate::{
    apply::{columns, export::Format},
    config::units::parse_duration,
    domain::{
        ids::{ClusterId, DeviceName, LoginName, ProfileName, UserId},
        login::LoginType,
        version::Version,
    },
};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "emccd",
    version,
    about = "Extension Mobility across clusters: one login, any phone",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 refused or failed, 2 usage.\n\n\
        Examples:\n  \
        emccd init --cluster-id berlin --dir berlin\n  \
        emccd run --config berlin/emccd.toml\n  \
        emccd --config berlin/emccd.toml cluster status"
)]
pub struct CommandLine {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The heading in help under which they stand, apart from each command's own.
const EVERY_COMMAND: &str = "Options of every command";

/// What holds for every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = EVERY_COMMAND)]
pub struct Global {
    /// Admin socket of the daemon to talk to.
    #[arg(
        long,
        global = true,
        display_order = 900,
        value_name = "PATH",
        help = "Admin socket of the daemon to talk to; not given, it is that of --config, of the variable EMCCD_SOCKET, \
                of EMCCD_CONFIG, or /run/emccd/admin.sock: the first of these that there is"
    )]
    pub socket: Option<PathBuf>,
    /// Configuration file of the node.
    #[arg(
        long,
        global = true,
        display_order = 901,
        value_name = "FILE",
        help = "Configuration file of the node; not given, the variable EMCCD_CONFIG names it"
    )]
    pub config: Option<PathBuf>,
    /// Print one JSON document in place of text
    #[arg(long, global = true, display_order = 902)]
    pub json: bool,
    /// How long to wait for a daemon that is just starting, for example 30s; cluster status also waits for its links
    #[arg(long, global = true, display_order = 903, value_name = "TIME", value_parser = parse_duration)]
    pub wait: Option<Duration>,
}

impl Global {
    /// Fills in from the environment what was not typed: what is typed always wins, whichever of the two it is. A
    /// variable that is empty is none.
    #[must_use]
    pub fn with_environment(mut self, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let given = |name| {
            variable(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        if self.socket.is_none() && self.config.is_none() {
            self.socket = given("EMCCD_SOCKET");
        }
        if self.config.is_none() {
            self.config = given("EMCCD_CONFIG");
        }
        self
    }
}

/// Nouns, and the commands without one.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the configuration, identities and keys of a first node
    Init(Init),
    /// Run the daemon
    Run(Run),
    /// Run whole clusters on this machine and drive phones through logins and errors
    Lab(Lab),
    /// The configuration file
    #[command(subcommand)]
    Config(Config),
    /// Bring the cluster's data to what files say
    Apply(Apply),
    /// The cluster's data as files that apply takes
    Export(Export),
    /// Other clusters
    #[command(subcommand)]
    Cluster(Cluster),
    /// The certificates that this node shows
    #[command(subcommand)]
    Cert(Cert),
    /// The certificates that this cluster accepts from others
    #[command(subcommand)]
    Trust(Trust),
    /// Users of this cluster
    #[command(subcommand)]
    User(User),
    /// Phones of this cluster
    #[command(subcommand)]
    Device(Device),
    /// Device profiles: what a user's phone becomes
    #[command(subcommand)]
    Profile(Profile),
    /// PINs of users
    #[command(subcommand)]
    Pin(Pin),
    /// Credential policies: when users are locked out, and which PINs they may get
    #[command(subcommand)]
    Policy(Policy),
    /// The pool of base devices for users on foreign phones
    #[command(subcommand)]
    Base(Base),
    /// What the whole cluster goes by, with the defaults and their reasons
    #[command(subcommand)]
    Param(Param),
    /// Who is on which phone
    #[command(subcommand)]
    Session(Session),
    /// What was changed, by whom
    #[command(subcommand)]
    Audit(Audit),
    /// Backups of the database, and databases that no daemon has open
    #[command(subcommand)]
    Db(Db),
    /// Print what a shell needs to complete commands
    #[command(
        after_help = "Examples:\n  emccd completions bash > /etc/bash_completion.d/emccd\n  \
        emccd completions zsh > \"${fpath[1]}/_emccd\"\n  emccd completions fish > ~/.config/fish/completions/emccd.fish"
    )]
    Completions {
        /// Which shell
        #[arg(value_name = "SHELL", value_enum)]
        shell: ShellName,
    },
    /// Write a man page for every command
    #[command(after_help = "Example:\n  emccd man --out /usr/local/share/man/man1")]
    Man {
        /// Folder to write them to
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Act as a phone against any cluster's phone service
    #[command(subcommand)]
    Phone(Phone),
    /// Find out what is wrong with this node, running or not, and what mends it
    #[command(
        after_help = "Examples:\n  emccd doctor --config /etc/emccd/emccd.toml\n  emccd doctor --json\n\n\
            Ends with 0 when nothing is an error, otherwise with 1."
    )]
    Doctor,
}

impl Command {
    /// Whether it talks to a daemon over its admin socket.
    #[must_use]
    pub const fn asks_a_daemon(&self) -> bool {
        match self {
            Self::Init(_)
            | Self::Run(_)
            | Self::Lab(_)
            | Self::Config(_)
            | Self::Phone(_)
            | Self::Doctor
            | Self::Completions { .. }
            | Self::Man { .. } => false,
            Self::Db(verb) => matches!(verb, Db::Backup { .. }),
            Self::Trust(verb) => !matches!(verb, Trust::Consolidate(_) | Trust::Diff(_)),
            Self::Cert(verb) => !matches!(
                verb,
                Cert::New(_) | Cert::Csr(_) | Cert::Show { file: Some(_), .. }
            ),
            Self::Apply(_)
            | Self::Export(_)
            | Self::Cluster(_)
            | Self::User(_)
            | Self::Device(_)
            | Self::Base(_)
            | Self::Profile(_)
            | Self::Pin(_)
            | Self::Policy(_)
            | Self::Param(_)
            | Self::Audit(_)
            | Self::Session(_) => true,
        }
    }
}

/// Shells that can complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShellName {
    /// GNU Bash.
    Bash,
    /// The friendly one.
    Fish,
    /// The Z shell.
    Zsh,
}

/// `init`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  emccd init --cluster-id berlin --dir berlin --host emcc.berlin.example"
)]
pub struct Init {
    /// ID of the new cluster: 1 to 64 characters of A-Z a-z 0-9 . _ -
    #[arg(long, value_name = "ID")]
    pub cluster_id: ClusterId,
    /// Folder to make
    #[arg(long, value_name = "DIR", default_value = "emccd")]
    pub dir: PathBuf,
    /// Ports begin here: N+443 for phones, N+444 for peers, N+1464 for figures and health; default 8000
    #[arg(long, value_name = "N")]
    pub port_base: Option<u16>,
    /// Name or address under which phones and peers reach this node; may be repeated
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
}

/// `run`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd run --config /etc/emccd/emccd.toml\n  \
        emccd run --config emccd.toml --protocol-max 1.0    speak the older protocol"
)]
pub struct Run {
    /// Lowest protocol version to speak
    #[arg(long, value_name = "V")]
    pub protocol_min: Option<Version>,
    /// Highest protocol version to speak
    #[arg(long, value_name = "V")]
    pub protocol_max: Option<Version>,
    /// Take the place of the process that runs with this configuration, and its sockets; without one just start
    #[arg(long)]
    pub take_over: bool,
    /// Stop for good at a named point, so that a test can kill the process exactly there
    #[arg(long, value_name = "POINT", hide = true)]
    pub stop_at: Option<String>,
    /// Tell on standard output, one JSON object a line, what happens; end when standard input does
    #[arg(long, hide = true)]
    pub supervised: bool,
}

/// `lab`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd lab --once              show everything and end with 0 if all was as expected\n  \
        emccd lab --clusters 3        keep three clusters up and print how to play with them"
)]
pub struct Lab {
    /// How many clusters
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub clusters: u8,
    /// How many nodes in each
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub nodes: u8,
    /// Go through the steps, then end: 0 when each was as expected, otherwise 1
    #[arg(long)]
    pub once: bool,
    /// Run each node as a process of its own
    #[arg(long)]
    pub processes: bool,
    /// Folder with users, phones and base devices in the format of apply; default: a built-in set
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// `config`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Check a file without starting anything
    #[command(after_help = "Example:\n  emccd config check --config emccd.toml")]
    Check,
    /// Show the settings in force, with the defaults filled in
    #[command(after_help = "Example:\n  emccd config show --config emccd.toml")]
    Show,
    /// Print a file with every setting explained
    #[command(after_help = "Example:\n  emccd config example > emccd.toml")]
    Example,
}

/// `apply`.
#[derive(Debug, Args)]
#[command(
    after_help = APPLY_EXAMPLES,
    after_long_help = format!("{APPLY_EXAMPLES}\n\n{}", columns::help())
)]
pub struct Apply {
    /// TOML files, and CSV files called after what they hold (users.csv); together at most 64 MiB; - is TOML from the input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Check, tell what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Delete what no file names, of the kinds that the files hold
    #[arg(long)]
    pub prune: bool,
    /// Delete without asking
    #[arg(long, requires = "prune")]
    pub yes: bool,
}

const APPLY_EXAMPLES: &str = "Examples:\n  emccd apply users.toml devices.csv --dry-run\n  emccd apply users.toml devices.csv\n  emccd apply users.csv --prune";

/// `export`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd export > data.toml\n  emccd export --format csv --out data"
)]
pub struct Export {
    /// toml or csv
    #[arg(long, value_name = "FORMAT", default_value = "toml", value_parser = parse_format)]
    pub format: Format,
    /// A folder to make, one file for each kind of record; - prints TOML
    #[arg(long, value_name = "DIR", default_value = "-")]
    pub out: PathBuf,
}

fn parse_format(word: &str) -> Result<Format, String> {
    Format::named(word).ok_or_else(|| "it must be toml or csv".to_owned())
}

/// `user`.
#[derive(Debug, Subcommand)]
pub enum User {
    /// All users
    #[command(after_help = "Example:\n  emccd user list")]
    List,
    /// One user with profiles, sessions and the state of the PIN
    #[command(after_help = "Example:\n  emccd user show anna")]
    Show {
        /// User ID
        #[arg(value_name = "USER")]
        user_id: UserId,
    },
    /// Add a user
    Add(UserAdd),
    /// Change a user; what is not named stays
    Set(UserSet),
    /// Remove a user who is on no phone
    Remove(UserRemove),
}

/// `device`.
#[derive(Debug, Subcommand)]
pub enum Device {
    /// All phones
    #[command(after_help = "Example:\n  emccd device list")]
    List,
    /// One phone and who is on it
    #[command(after_help = "Example:\n  emccd device show SEP00112233AABB")]
    Show {
        /// Device name
        #[arg(value_name = "DEVICE")]
        name: DeviceName,
    },
    /// Add a phone
    Add(DeviceAdd),
    /// Change a phone; what is not named stays
    Set(DeviceSet),
    /// Remove a phone that nobody is on
    Remove(DeviceRemove),
}

/// `base`.
#[derive(Debug, Subcommand)]
pub enum Base {
    /// The whole pool and which session holds each
    #[command(after_help = "Example:\n  emccd base list")]
    List,
    /// One base device and the session that holds it
    #[command(after_help = "Example:\n  emccd base show BASE0001")]
    Show {
        /// Its name
        #[arg(value_name = "BASE")]
        name: String,
    },
    /// Add a base device, or many numbered ones
    Add(BaseAdd),
    /// Remove a base device that is free
    Remove(BaseRemove),
}

/// `session`.
#[derive(Debug, Subcommand)]
pub enum Session {
    /// Sessions of both roles, newest first
    List(SessionList),
    /// One session, also what its phone is to do (restart or reset) and why, and what the other cluster is still owed
    #[command(after_help = "Example:\n  emccd session show 7K3Q-9M2X")]
    Show {
        /// Its UUID, or the ref of the login
        #[arg(value_name = "ID")]
        id: String,
    },
    /// End a session, on both clusters
    Logout(SessionLogout),
    /// Tell another cluster again of ends that it refused to hear of
    Retry(SessionRetry),
    /// Forget that another cluster has still to be told of an end
    Drop(SessionDrop),
}

/// `session list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd session list\n  emccd session list --user anna --all --json\n  emccd session list --owed \
    --peer tokyo"
)]
pub struct SessionList {
    /// Only where we own the user (home) or the phone (visiting)
    #[arg(long, value_name = "ROLE", value_parser = ["home", "visiting"])]
    pub role: Option<String>,
    /// Only those shared with this cluster
    #[arg(long, value_name = "ID")]
    pub peer: Option<ClusterId>,
    /// Only those on this phone
    #[arg(long, value_name = "NAME")]
    pub device: Option<DeviceName>,
    /// Only those of this user
    #[arg(long, value_name = "USER")]
    pub user: Option<UserId>,
    /// Also those that are over
    #[arg(long)]
    pub all: bool,
    /// Only those whose end another cluster has still to be told of, and why it has not been
    #[arg(long)]
    pub owed: bool,
    /// How many at most, the newest of them
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// `session retry`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("which").required(true).args(["id", "peer"]),
    after_help = "Examples:\n  emccd session retry 7K3Q-9M2X\n  emccd session retry --peer tokyo"
)]
pub struct SessionRetry {
    /// Its UUID, or the ref of the login
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    /// All that this cluster refused
    #[arg(long, value_name = "ID")]
    pub peer: Option<ClusterId>,
}

/// `session drop`.
#[derive(Debug, Args)]
#[command(
    after_help = "The session is over here. At the other cluster it lives on until the two clusters next compare their \
    sessions; where they can't, until its time is over or somebody ends it there.\n\n\
    Example:\n  emccd session drop 7K3Q-9M2X --yes"
)]
pub struct SessionDrop {
    /// Its UUID, or the ref of the login
    #[arg(value_name = "ID")]
    pub id: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `session logout`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("which").required(true).args(["id", "device"]),
    after_help = "Examples:\n  emccd session logout 7K3Q-9M2X\n  emccd session logout --device SEP00112233AABB --yes"
)]
pub struct SessionLogout {
    /// Its UUID, or the ref of the login
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    /// The session on this phone
    #[arg(long, value_name = "NAME")]
    pub device: Option<DeviceName>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `phone`.
#[derive(Debug, Subcommand)]
pub enum Phone {
    /// Log a user in, as a phone would
    Login(PhoneLogin),
    /// Log out whoever is on the phone
    Logout(PhoneLogout),
}

/// Which phone service, and which phone.
#[derive(Clone, Debug, Args)]
pub struct PhoneTarget {
    /// Where the phone service is: scheme, host and port
    #[arg(value_name = "URL")]
    pub url: String,
    /// Name of the phone to be
    #[arg(long, value_name = "NAME")]
    pub device: DeviceName,
    /// PEM file with the certificate, or its authority, that the phone service shows
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// `phone login`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The PIN is asked for, or read from --pin-file or from standard input.\n\n\
    Example:\n  emccd phone login https://emcc.berlin.example:8443 --ca phone.pem --device SEP00112233AABB --user anna"
)]
pub struct PhoneLogin {
    /// Which phone service, and which phone
    #[command(flatten)]
    pub target: PhoneTarget,
    /// What the user types as user ID
    #[arg(long, value_name = "NAME")]
    pub user: LoginName,
    /// UID (user ID), SP (self-service user ID) or DN (extension); default: what the service takes it for
    #[arg(long, value_name = "TYPE")]
    pub login_type: Option<LoginType>,
    /// The device profile to choose where the phone asks for one
    #[arg(long, value_name = "NAME")]
    pub profile: Option<ProfileName>,
    /// File with the PIN on its first line
    #[arg(long, value_name = "FILE")]
    pub pin_file: Option<PathBuf>,
}

/// `phone logout`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Example:\n  emccd phone logout https://emcc.berlin.example:8443 --ca phone.pem --device SEP00112233AABB"
)]
pub struct PhoneLogout {
    /// Which phone service, and which phone
    #[command(flatten)]
    pub target: PhoneTarget,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_valid() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_and_every_last_one_an_example() {
        fn visit(command: &mut clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command.render_long_help().to_string();
            assert!(help.contains("Usage:"), "{path}");
            assert!(command.get_about().is_some(), "{path} says nothing");
            if command.has_subcommands() {
                for sub in command.get_subcommands_mut() {
                    visit(sub, &path);
                }
            } else {
                assert!(help.contains("Example"), "{path} has no example");
                assert!(help.contains("emccd "), "{path} has no example");
            }
        }
        let mut command = CommandLine::command();
        command.build();
        visit(&mut command, "");
    }

    #[test]
    fn the_documented_lines_parse() {
        for line in [
            "emccd init --cluster-id berlin --dir d --port-base 9000 --host a --host b",
            "emccd run --config f --protocol-min 1.0 --protocol-max 1.1 --stop-at x",
            "emccd lab --clusters 3 --nodes 2 --once --json --processes --data d",
            "emccd config check --config f",
            "emccd config show --json",
            "emccd config example",
            "emccd apply a.toml b.toml --dry-run",
            "emccd apply a.csv --prune --yes",
            "emccd export",
            "emccd export --format csv --out d",
            "emccd cluster status --socket s",
            "emccd cluster list",
            "emccd cluster add tokyo --address a:1 --address b:2 --trust t.pem --user-pattern a* --dn-pattern 8*",
            "emccd cluster add tokyo --address a:1 --anchor t.pem --node-name n --description hello",
            "emccd cert new --common-name berlin --name a --out new",
            "emccd cert show",
            "emccd cert show f.pem",
            "emccd cert reload",
            "emccd trust add tokyo --pin f",
            "emccd trust add tokyo --anchor f",
            "emccd trust list tokyo",
            "emccd trust remove tokyo --fingerprint 00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff --yes",
            "emccd cluster set tokyo --address a:1 --address b:2 --node-name n --user-pattern a* --dn-pattern 8*",
            "emccd cluster set tokyo --enabled true --allow-emcc false --ignore-eku true --description hello",
            "emccd user show anna",
            "emccd device show SEP00112233AABB",
            "emccd base list",
            "emccd param list --set",
            "emccd param show allow-proxy",
            "emccd param set allow-proxy on",
            "emccd param set maximum-concurrent-requests -1",
            "emccd param reset allow-proxy",
            "emccd audit list --since 2h --actor anna --ref 7K3Q-9M2X --action param --limit 5",
            "emccd audit verify",
            "emccd user add anna --name Anna --self-service-id 1 --extension 2 --enabled true --emcc false --ask-pin",
            "emccd user set anna --pin-file p",
            "emccd user remove anna --yes",
            "emccd device add SEP1 --model 8845 --protocol SIP --security-mode secure --emcc true",
            "emccd device set SEP1 --extension-mobility false --device-pool Berlin --geolocation country=DE",
            "emccd device remove SEP1 --yes",
            "emccd base add EMCC --count 20",
            "emccd base remove EMCC1 --yes",
            "emccd profile list --user anna",
            "emccd profile show p",
            "emccd profile add p --user anna --default true --line 4711=Anna --line 4712 --locale de_DE --device-pool B",
            "emccd profile remove p --yes",
            "emccd cluster remove tokyo --forget-owed --yes",
            "emccd cluster refresh tokyo",
            "emccd completions bash",
            "emccd man --out d",
            "emccd db backup f",
            "emccd db verify f",
            "emccd db migrate f --dry-run",
            "emccd db migrate --config f",
            "emccd session list --role home --peer tokyo --device d --user u --all --owed",
            "emccd session retry 7K3Q-9M2X",
            "emccd session retry --peer tokyo",
            "emccd session drop 7K3Q-9M2X --yes",
            "emccd session logout 7K3Q-9M2X --yes",
            "emccd session logout --device SEP1",
            "emccd phone login https://h --device SEP1 --user anna --login-type DN --pin-file p",
            "emccd phone logout https://h --device SEP1",
            "emccd --json user list",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}\n{error}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        use ErrorKind::*;
        for (line, kind) in [
            ("emccd frobnicate", InvalidSubcommand),
            ("emccd init", MissingRequiredArgument),
            ("emccd init --cluster-id a/b", ValueValidation),
            ("emccd run --protocol-max one", ValueValidation),
            ("emccd lab --clusters 0", ValueValidation),
            ("emccd apply", MissingRequiredArgument),
            ("emccd apply a.csv --yes", MissingRequiredArgument),
            ("emccd export --format xml", ValueValidation),
            ("emccd cluster add tokyo", MissingRequiredArgument),
            (
                "emccd cluster add t --address a:1 --anchor f",
                MissingRequiredArgument,
            ),
            (
                "emccd cluster add t --address a:1 --trust f --anchor f --node-name n",
                ArgumentConflict,
            ),
            ("emccd cluster set tokyo", MissingRequiredArgument),
            ("emccd cluster set tokyo --enabled", InvalidValue),
            ("emccd cluster set tokyo --enabled maybe", InvalidValue),
            ("emccd cluster set tokyo --trust f", UnknownArgument),
            ("emccd trust remove tokyo", MissingRequiredArgument),
            (
                "emccd trust remove tokyo --fingerprint AB:CD",
                ValueValidation,
            ),
            ("emccd trust add tokyo", MissingRequiredArgument),
            ("emccd trust add tokyo --pin f --anchor f", ArgumentConflict),
            ("emccd param set allow-proxy", MissingRequiredArgument),
            ("emccd audit list --limit 0", ValueValidation),
            ("emccd audit list --ref nothing", ValueValidation),
            ("emccd user set anna", MissingRequiredArgument),
            ("emccd user add anna --pin 1234", UnknownArgument),
            (
                "emccd user add anna --ask-pin --pin-file f",
                ArgumentConflict,
            ),
            ("emccd user set anna --enabled perhaps", InvalidValue),
            ("emccd device set SEP1", MissingRequiredArgument),
            ("emccd device add SEP1 --protocol H323", InvalidValue),
            ("emccd base add EMCC --count 0", ValueValidation),
            ("emccd profile add p", MissingRequiredArgument),
            ("emccd completions tcsh", InvalidValue),
            ("emccd man", MissingRequiredArgument),
            ("emccd db backup", MissingRequiredArgument),
            ("emccd db verify", MissingRequiredArgument),
            ("emccd param reset", MissingRequiredArgument),
            ("emccd session logout", MissingRequiredArgument),
            ("emccd session logout X --device SEP1", ArgumentConflict),
            ("emccd session list --role guest", InvalidValue),
            ("emccd session retry", MissingRequiredArgument),
            ("emccd session retry X --peer tokyo", ArgumentConflict),
            ("emccd session drop", MissingRequiredArgument),
            (
                "emccd phone login https://h --device d --user u --login-type XX",
                ValueValidation,
            ),
            (
                "emccd phone login https://h --device d --user u --pin 1234",
                UnknownArgument,
            ),
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.kind(), kind, "{line}\n{error}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
