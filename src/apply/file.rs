//! An `apply` file as written: TOML tables, unknown keys refused. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use crate::domain::login::{CallManager, Line, SecurityMode};

/// A whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct File {
    /// `[[device-pool]]`
    pub device_pool: Vec<Spanned<DevicePool>>,
    /// `[[user]]`
    pub user: Vec<Spanned<User>>,
    /// `[[profile]]`
    pub profile: Vec<Spanned<Profile>>,
    /// `[[device]]`
    pub device: Vec<Spanned<Device>>,
    /// `[[base-device]]`
    pub base_device: Vec<Spanned<BaseDevice>>,
    /// `[[peer]]`
    pub peer: Vec<Spanned<Peer>>,
}

/// A user of this cluster.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct User {
    /// User ID.
    pub id: String,
    /// Self-service user ID.
    pub self_service_id: Option<String>,
    /// Primary extension.
    pub extension: Option<String>,
    /// Name for display.
    #[serde(default)]
    pub name: String,
    /// PIN in clear; hashed before it is stored.
    pub pin: Option<String>,
    /// A PHC string, from an earlier export.
    pub pin_hash: Option<String>,
    /// Whether the user may log in at all.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether the user may log in on phones of other clusters.
    #[serde(default = "yes")]
    pub emcc: bool,
}

impl Drop for User {
    /// Wipes the PIN and the hash.
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.pin.zeroize();
        self.pin_hash.zeroize();
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A device profile.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// Whether it is used when none is chosen.
    #[serde(default)]
    pub default: bool,
    /// Lines.
    #[serde(default)]
    pub lines: Vec<Line>,
    /// Locale.
    pub locale: Option<String>,
    /// Device pool.
    pub device_pool: Option<String>,
}

/// A phone of this cluster.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its model.
    #[serde(default)]
    pub model: String,
    /// `SIP` or `SCCP`.
    #[serde(default = "sip")]
    pub protocol: String,
    /// Security mode.
    #[serde(default)]
    pub security_mode: SecurityMode,
    /// Whether the model can take users of other clusters.
    #[serde(default = "yes")]
    pub emcc: bool,
    /// Whether Extension Mobility is enabled on it.
    #[serde(default = "yes")]
    pub extension_mobility: bool,
    /// Device pool.
    pub device_pool: Option<String>,
    /// Locale.
    pub locale: Option<String>,
    /// Civic address, by field name.
    #[serde(default)]
    pub geolocation: BTreeMap<String, String>,
}

/// A device pool.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DevicePool {
    /// Its name.
    pub name: String,
    /// Call-control group.
    #[serde(default)]
    pub call_managers: Vec<CallManager>,
    /// TFTP servers, first one first.
    #[serde(default)]
    pub tftp_servers: Vec<String>,
    /// Civic address, by field name.
    #[serde(default)]
    pub geolocation: BTreeMap<String, String>,
    /// Whether it may be chosen as roaming device pool.
    #[serde(default)]
    pub roaming: bool,
}

/// One slot of the pool of base devices, or many numbered ones.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BaseDevice {
    /// Its name; with `count`, what the numbers are put behind.
    pub name: String,
    /// How many, numbered from 1.
    pub count: Option<u32>,
}

/// Another cluster.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Peer {
    /// Its cluster ID.
    pub id: String,
    /// `host:port`, each.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Names that its certificates may carry, where a CA vouches for them.
    #[serde(default)]
    pub node_names: Vec<String>,
    /// Patterns (`*`, `?`) of the user IDs that it may claim.
    #[serde(default)]
    pub user_patterns: Vec<String>,
    /// Patterns of the extensions that it may claim.
    #[serde(default)]
    pub dn_patterns: Vec<String>,
    /// Whether we talk to it.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether its phones may take our users.
    #[serde(default = "yes")]
    pub allow_emcc: bool,
    /// Whether its certificates' extended key usage is overlooked.
    #[serde(default)]
    pub ignore_eku: bool,
    /// For display.
    #[serde(default)]
    pub description: String,
}

const fn yes() -> bool {
    true
}

fn sip() -> String {
    "SIP".to_owned()
}
