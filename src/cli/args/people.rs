//! `user`, `device`, `base` and `profile`: what can be typed about one record.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use crate::domain::ids::{BaseDeviceName, DeviceName, ProfileName, UserId};

/// `user add` and `user set`: what may be given.
#[derive(Debug, Args)]
pub struct UserFields {
    /// The name as people read it
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// The self-service user ID; '' for none
    #[arg(long, value_name = "ID")]
    pub self_service_id: Option<String>,
    /// The primary extension; '' for none
    #[arg(long, value_name = "NUMBER")]
    pub extension: Option<String>,
    /// Whether the user may log in at all
    #[arg(long, value_name = "BOOL")]
    pub enabled: Option<bool>,
    /// Whether the user may log in on phones of other clusters
    #[arg(long, value_name = "BOOL")]
    pub emcc: Option<bool>,
    /// The user's credential policy; '' for the one named default
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<String>,
    /// Ask for a PIN, or read it from standard input
    #[arg(long)]
    pub ask_pin: bool,
    /// File with the PIN on its first line
    #[arg(long, value_name = "FILE", conflicts_with = "ask_pin")]
    pub pin_file: Option<PathBuf>,
}

/// `user add`.
#[derive(Debug, Args)]
#[command(
    after_help = "A PIN is never an argument: others would see it. Without one the user can't log in yet.\n\n\
    Examples:\n  emccd user add anna --name 'Anna Berg' --extension 4711 --ask-pin\n  \
    emccd user add ben --pin-file pin.txt"
)]
pub struct UserAdd {
    /// User ID
    #[arg(value_name = "USER")]
    pub user_id: UserId,
    /// What the user is
    #[command(flatten)]
    pub fields: UserFields,
}

/// `user set`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("change").required(true).multiple(true).args([
        "name", "self_service_id", "extension", "enabled", "emcc", "policy", "ask_pin", "pin_file",
    ]),
    after_help = "What is not named stays.\n\nExamples:\n  emccd user set anna --enabled false\n  \
    emccd user set anna --ask-pin < pin.txt"
)]
pub struct UserSet {
    /// User ID
    #[arg(value_name = "USER")]
    pub user_id: UserId,
    /// What the user becomes
    #[command(flatten)]
    pub fields: UserFields,
}

/// `user remove`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  emccd user remove anna\n  emccd user remove anna --end-sessions"
)]
pub struct UserRemove {
    /// User ID
    #[arg(value_name = "USER")]
    pub user_id: UserId,
    /// End the sessions that need it first, on both clusters
    #[arg(long)]
    pub end_sessions: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `device add` and `device set`: what may be given.
#[derive(Debug, Args)]
pub struct DeviceFields {
    /// Its model, for example 8845
    #[arg(long, value_name = "TEXT")]
    pub model: Option<String>,
    /// How it speaks
    #[arg(long, value_name = "PROTOCOL", value_parser = ["SIP", "SCCP"])]
    pub protocol: Option<String>,
    /// Whether its signalling is secure
    #[arg(long, value_name = "MODE", value_parser = ["non-secure", "secure"])]
    pub security_mode: Option<String>,
    /// Whether its model can carry users of other clusters
    #[arg(long, value_name = "BOOL")]
    pub emcc: Option<bool>,
    /// Whether users may log in on it
    #[arg(long, value_name = "BOOL")]
    pub extension_mobility: Option<bool>,
    /// Its device pool; '' for none
    #[arg(long, value_name = "POOL")]
    pub device_pool: Option<String>,
    /// Its locale; '' for none
    #[arg(long, value_name = "LOCALE")]
    pub locale: Option<String>,
    /// Where it stands: a civic address field, for example country=DE; may be repeated, takes the place of all; ''
    /// for none
    #[arg(long, value_name = "FIELD=VALUE")]
    pub geolocation: Vec<String>,
    /// The same by the name of a geolocation; '' for none
    #[arg(long, value_name = "NAME", conflicts_with = "geolocation")]
    pub location: Option<String>,
    /// A phone service that it is subscribed to; may be repeated, takes the place of all; '' for none
    #[arg(long, value_name = "SERVICE")]
    pub service: Vec<String>,
}

/// `device add`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  emccd device add SEP00112233AABB --model 8845 --device-pool Berlin --geolocation country=DE"
)]
pub struct DeviceAdd {
    /// Device name
    #[arg(value_name = "DEVICE")]
    pub device: DeviceName,
    /// What the phone is
    #[command(flatten)]
    pub fields: DeviceFields,
}

/// `device set`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("change").required(true).multiple(true).args([
        "model", "protocol", "security_mode", "emcc", "extension_mobility", "device_pool", "locale",
        "geolocation", "location", "service",
    ]),
    after_help = "What is not named stays.\n\nExample:\n  emccd device set SEP00112233AABB --extension-mobility false"
)]
pub struct DeviceSet {
    /// Device name
    #[arg(value_name = "DEVICE")]
    pub device: DeviceName,
    /// What the phone becomes
    #[command(flatten)]
    pub fields: DeviceFields,
}

/// `device remove`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  emccd device remove SEP00112233AABB")]
pub struct DeviceRemove {
    /// Device name
    #[arg(value_name = "DEVICE")]
    pub device: DeviceName,
    /// End the sessions that need it first, on both clusters
    #[arg(long)]
    pub end_sessions: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `base add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  emccd base add EMCC1\n  emccd base add EMCC --count 200")]
pub struct BaseAdd {
    /// Its name; with --count, what the numbers are put behind
    #[arg(value_name = "BASE")]
    pub base: BaseDeviceName,
    /// How many, numbered from 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub count: Option<u32>,
}

/// `base remove`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  emccd base remove EMCC1")]
pub struct BaseRemove {
    /// Its name
    #[arg(value_name = "BASE")]
    pub base: BaseDeviceName,
    /// End the sessions that need it first, on both clusters
    #[arg(long)]
    pub end_sessions: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `profile`.
#[derive(Debug, Subcommand)]
pub enum Profile {
    /// All device profiles, or those of one user
    #[command(after_help = "Examples:\n  emccd profile list\n  emccd profile list --user anna")]
    List {
        /// Only those of this user
        #[arg(long, value_name = "USER")]
        user: Option<UserId>,
    },
    /// One device profile
    #[command(after_help = "Example:\n  emccd profile show anna-desk")]
    Show {
        /// Its name
        #[arg(value_name = "PROFILE")]
        profile: ProfileName,
    },
    /// Add a device profile
    Add(ProfileAdd),
    /// Change a device profile; what is not named stays
    Set(ProfileSet),
    /// Remove a device profile; a session that has it keeps it to its end
    Remove(ProfileRemove),
}

/// `profile add`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  emccd profile add anna-desk --user anna --default true --line 4711=Anna --locale de_DE"
)]
pub struct ProfileAdd {
    /// Its name
    #[arg(value_name = "PROFILE")]
    pub profile: ProfileName,
    /// Whose it is
    #[arg(long, value_name = "USER")]
    pub user: UserId,
    /// What the profile makes of a phone
    #[command(flatten)]
    pub fields: ProfileFields,
}

/// `profile set`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("change").required(true).multiple(true).args([
        "user", "default", "line", "locale", "device_pool", "service",
    ]),
    after_help = "What is not named stays.\n\nExamples:\n  emccd profile set anna-desk --line 4711=Anna --line 4712=Team\n  \
    emccd profile set anna-desk --device-pool ''"
)]
pub struct ProfileSet {
    /// Its name
    #[arg(value_name = "PROFILE")]
    pub profile: ProfileName,
    /// Whose it is
    #[arg(long, value_name = "USER")]
    pub user: Option<UserId>,
    /// What the profile makes of a phone
    #[command(flatten)]
    pub fields: ProfileFields,
}

/// What a profile makes of a phone.
#[derive(Debug, Args)]
pub struct ProfileFields {
    /// Whether it is taken when the user chooses none
    #[arg(long, value_name = "BOOL")]
    pub default: Option<bool>,
    /// A line: its number, and the text beside the button; may be repeated, in the order of the buttons, and takes the
    /// place of all; '' for none
    #[arg(long, value_name = "NUMBER[=TEXT]")]
    pub line: Vec<String>,
    /// Locale; without it, and with '', the phone keeps its own
    #[arg(long, value_name = "LOCALE")]
    pub locale: Option<String>,
    /// The device pool when no roaming pool fits; '' for none
    #[arg(long, value_name = "POOL")]
    pub device_pool: Option<String>,
    /// A phone service that it is subscribed to; may be repeated, takes the place of all; '' for none
    #[arg(long, value_name = "SERVICE")]
    pub service: Vec<String>,
}

/// `profile remove`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  emccd profile remove anna-desk")]
pub struct ProfileRemove {
    /// Its name
    #[arg(value_name = "PROFILE")]
    pub profile: ProfileName,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}
