//! The data of one cluster: the built-in set, or a folder's.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context as _, Result, bail};
use rand::RngExt as _;
use serde::Serialize;

use crate::{
    apply,
    domain::{
        ids::ClusterId,
        policy::{BUILT_IN, Person},
    },
};

/// What was applied to a cluster, and what a phone has to type.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The text that was applied.
    pub toml: String,
    /// Its users.
    pub users: Vec<User>,
    /// Its phones.
    pub devices: Vec<Device>,
    /// How many base devices it has.
    pub base_devices: usize,
}

/// A user, with the throw-away PIN.
#[derive(Clone, Debug, Serialize)]
pub struct User {
    /// User ID.
    pub user_id: String,
    /// Self-service user ID.
    pub self_service_id: Option<String>,
    /// Primary extension.
    pub primary_extension: Option<String>,
    /// The PIN in clear. It opens nothing but this lab.
    pub pin: String,
    /// Names of the user's device profiles.
    pub profiles: Vec<String>,
}

/// A phone.
#[derive(Clone, Debug, Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its model.
    pub model: String,
    /// Whether the model can take users of other clusters.
    pub emcc: bool,
    /// Whether Extension Mobility is enabled on it.
    pub em_enabled: bool,
}

/// First names of the users that stand alone; the next two share an extension.
const SINGLE: [&str; 6] = ["ana", "ben", "eva", "ida", "leo", "mia"];
const SHARED: [&str; 2] = ["tom", "uma"];
/// Fewer than there are users and phones, so that a lab can show the pool running dry.
const BASE_DEVICES: usize = 4;
const PHONES: usize = 8;

impl Dataset {
    /// The built-in set of the cluster at `index`.
    ///
    /// # Errors
    /// Never for a number of clusters that fits on a machine.
    pub fn built_in(index: usize, cluster: &ClusterId) -> Result<Self> {
        let number = index + 1;
        let mut toml =
            format!("# What the lab applied to cluster {cluster}. The PINs open nothing else.\n");
        writeln!(toml, "[[device-pool]]\nname = \"{cluster}\"")?;
        writeln!(
            toml,
            "call-managers = [{{ host = \"cucm1.{cluster}.test\", priority = 0 }}]"
        )?;
        writeln!(toml, "tftp-servers = [\"tftp1.{cluster}.test\"]")?;
        writeln!(toml, "geolocation = {{ country = \"{cluster}\" }}\n")?;
        let mut users = Vec::new();
        for (position, name) in SINGLE.iter().chain(&SHARED).enumerate() {
            let line = if position < SINGLE.len() {
                position + 1
            } else {
                SINGLE.len() + 1
            };
            let user = User {
                user_id: format!("{name}.{cluster}"),
                self_service_id: Some(format!("{name}@{cluster}.test")),
                primary_extension: Some(format!("{number}{line:03}")),
                pin: good_pin(&format!("{number}{line:03}")),
                profiles: vec![format!("{name}-{cluster}")],
            };
            write_user(&mut toml, &user, cluster)?;
            users.push(user);
        }
        let mut devices = Vec::new();
        for position in 1..=PHONES {
            devices.push(device(number, position, true, true));
        }
        devices.push(device(number, PHONES + 1, true, false));
        devices.push(device(number, PHONES + 2, false, true));
        for device in &devices {
            writeln!(
                toml,
                "[[device]]\nname = \"{}\"\nmodel = \"{}\"",
                device.name, device.model
            )?;
            writeln!(
                toml,
                "emcc = {}\nextension-mobility = {}",
                device.emcc, device.em_enabled
            )?;
            writeln!(
                toml,
                "device-pool = \"{cluster}\"\ngeolocation = {{ country = \"{cluster}\" }}\n"
            )?;
        }
        writeln!(
            toml,
            "[[base-device]]\nname = \"EMCC\"\ncount = {BASE_DEVICES}"
        )?;
        Ok(Self {
            toml,
            users,
            devices,
            base_devices: BASE_DEVICES,
        })
    }

    /// A file in the `apply` format; users without a PIN in clear can't be logged in by the lab.
    ///
    /// # Errors
    /// When the file can't be read, or has problems: all of them.
    pub fn read(path: &Path, cluster: &ClusterId) -> Result<Self> {
        let toml = std::fs::read_to_string(path).with_context(|| {
            format!(
                "{} can't be read; the lab wants one file per cluster",
                path.display()
            )
        })?;
        let source = apply::Source {
            name: path.display().to_string(),
            text: toml.clone().into(),
        };
        let rows = match apply::check::check(&[source], cluster) {
            Ok(rows) => rows,
            Err(problems) => {
                let lines: Vec<_> = problems.told().iter().map(ToString::to_string).collect();
                bail!("{}", lines.join("\n"));
            }
        };
        let users = rows
            .users
            .iter()
            .filter_map(|row| {
                let user = &row.value;
                Some(User {
                    user_id: user.user_id.to_string(),
                    self_service_id: user.self_service_id.as_ref().map(ToString::to_string),
                    primary_extension: user.primary_extension.as_ref().map(ToString::to_string),
                    pin: rows.pin_of(&user.user_id)?.expose().to_owned(),
                    profiles: rows
                        .profiles
                        .iter()
                        .filter(|p| p.value.user_id == user.user_id)
                        .map(|p| p.value.name.to_string())
                        .collect(),
                })
            })
            .collect();
        let devices = rows
            .devices
            .iter()
            .map(|row| Device {
                name: row.value.name.to_string(),
                model: row.value.model.clone(),
                emcc: row.value.emcc,
                em_enabled: row.value.em_enabled,
            })
            .collect();
        Ok(Self {
            toml,
            users,
            devices,
            base_devices: rows.base_devices.len(),
        })
    }

    /// The user at `index`.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn user(&self, index: usize) -> Result<&User> {
        self.users
            .get(index)
            .with_context(|| format!("the data has no user {}", index + 1))
    }

    /// The phone at `index` among those that take users of other clusters.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn phone(&self, index: usize) -> Result<&Device> {
        self.devices
            .iter()
            .filter(|d| d.emcc && d.em_enabled)
            .nth(index)
            .with_context(|| format!("the data has no phone {} with EMCC", index + 1))
    }

    /// A user whose primary extension is another user's, too.
    #[must_use]
    pub fn shared_extension(&self) -> Option<&User> {
        self.users.iter().find(|user| {
            user.primary_extension.is_some()
                && self
                    .users
                    .iter()
                    .filter(|other| other.primary_extension == user.primary_extension)
                    .count()
                    > 1
        })
    }
}

/// A PIN that the policy of a user with this extension allows.
fn good_pin(extension: &str) -> String {
    let user = Person {
        extension: Some(extension),
        name: "",
    };
    loop {
        let pin = format!("{:06}", rand::rng().random_range(0..1_000_000));
        if BUILT_IN.violations(&pin, &user).is_empty() {
            return pin;
        }
    }
}

fn device(cluster: usize, position: usize, emcc: bool, em_enabled: bool) -> Device {
    let model = if emcc { "CP-8841" } else { "CP-7940" };
    Device {
        name: format!("SEP{cluster:04X}{position:08X}"),
        model: model.to_owned(),
        emcc,
        em_enabled,
    }
}

fn write_user(toml: &mut String, user: &User, cluster: &ClusterId) -> Result<()> {
    writeln!(toml, "[[user]]\nid = \"{}\"", user.user_id)?;
    if let Some(id) = &user.self_service_id {
        writeln!(toml, "self-service-id = \"{id}\"")?;
    }
    let extension = user.primary_extension.as_deref().unwrap_or_default();
    writeln!(
        toml,
        "extension = \"{extension}\"\npin = \"{}\"\n",
        user.pin
    )?;
    for profile in &user.profiles {
        writeln!(
            toml,
            "[[profile]]\nname = \"{profile}\"\nuser = \"{}\"\ndefault = true",
            user.user_id
        )?;
        writeln!(toml, "device-pool = \"{cluster}\"")?;
        writeln!(
            toml,
            "lines = [{{ index = 1, number = \"{extension}\", label = \"{}\" }}]\n",
            user.user_id
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_set_is_a_valid_file_that_reads_back_as_itself() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("berlin.toml");
        let built = Dataset::built_in(0, &ClusterId::new("berlin").unwrap()).unwrap();
        std::fs::write(&file, &built.toml).unwrap();
        let read = Dataset::read(&file, &ClusterId::new("berlin").unwrap()).unwrap();
        assert_eq!(format!("{:?}", read.users), format!("{:?}", built.users));
        assert_eq!(
            format!("{:?}", read.devices),
            format!("{:?}", built.devices)
        );
        assert_eq!(read.base_devices, BASE_DEVICES);
        assert!(read.shared_extension().is_some());
    }

    #[test]
    fn no_two_clusters_share_a_name() {
        let sets: Vec<_> = (0..3)
            .map(|i| Dataset::built_in(i, &super::super::cluster_name(i).unwrap()).unwrap())
            .collect();
        let mut names: Vec<_> = sets
            .iter()
            .flat_map(|s| s.devices.iter().map(|d| d.name.clone()))
            .collect();
        names.extend(
            sets.iter()
                .flat_map(|s| s.users.iter().map(|u| u.user_id.clone())),
        );
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
