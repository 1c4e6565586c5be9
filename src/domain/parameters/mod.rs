//! The parameters of a cluster: what every node of it goes by, changed while they run. Pure.
//!
//! [`TABLE`] is the one list: name, kind and range, default, meaning and reason. Reading, printing, the command
//! line and `docs/parameters.md` come from it. [`Parameters`] is the same as types, for the code that acts on it.

mod kind;
mod page;
mod table;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

pub use self::{
    kind::Kind,
    page::markdown,
    table::{LeftOut, NOT_TAKEN_OVER, Parameter, TABLE},
};

/// What a cluster goes by. The default is the table's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Requests of each kind that one node works on at a time.
    pub maximum_concurrent_requests: u32,
    /// What becomes of a user's earlier session when they log in elsewhere.
    pub multiple_login_behavior: MultipleLoginBehavior,
    /// What that means when the earlier session's cluster can't be reached.
    pub multiple_login_unreachable: WhenUnreachable,
    /// Whether a local login ends by itself; see [`Parameters::intra_cluster_limit`].
    pub enforce_intra_cluster_maximum_login_time: bool,
    /// How long a local login may last; zero for no limit.
    pub intra_cluster_maximum_login_time: Duration,
    /// How long a login across clusters may last; zero for no limit.
    pub inter_cluster_maximum_login_time: Duration,
    /// Which civic address fields count when a roaming pool is chosen; none for all of them.
    pub emcc_geolocation_filter: Option<BTreeSet<String>>,
    /// Whether the address that a phone's request comes from is checked.
    pub validate_ip_address: bool,
    /// Addresses that may speak for any phone.
    pub trusted_ips: BTreeSet<IpAddr>,
    /// Whether a request may come through a proxy although addresses are checked.
    pub allow_proxy: bool,
    /// What a phone is told when nobody has the name that was typed.
    pub unknown_user_answer: UnknownUserAnswer,
    /// Whether sessions end when their user is disabled or their peer removed.
    pub end_sessions_on_revocation: bool,
    /// TFTP server for a phone that carries one of our users elsewhere; none for those of its device pool.
    pub default_tftp_server: Option<String>,
    /// The second one.
    pub backup_tftp_server: Option<String>,
    /// How many days before its end a certificate of ours is exchanged; zero for never.
    pub certificate_renew_before: u32,
    /// By how many days that may be later.
    pub certificate_renew_jitter: u32,
    /// How many days before its end silent peers are not waited for any more.
    pub certificate_renew_override_before: u32,
    /// Within how many seconds connections are begun anew after a certificate was exchanged.
    pub certificate_drain_time: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            maximum_concurrent_requests: 256,
            multiple_login_behavior: MultipleLoginBehavior::NotAllowed,
            multiple_login_unreachable: WhenUnreachable::TakeOver,
            enforce_intra_cluster_maximum_login_time: false,
            intra_cluster_maximum_login_time: Duration::from_secs(8 * 3_600),
            inter_cluster_maximum_login_time: Duration::from_secs(10 * 3_600),
            emcc_geolocation_filter: None,
            validate_ip_address: false,
            trusted_ips: BTreeSet::new(),
            allow_proxy: false,
            unknown_user_answer: UnknownUserAnswer::Unknown,
            end_sessions_on_revocation: true,
            default_tftp_server: None,
            backup_tftp_server: None,
            certificate_renew_before: 0,
            certificate_renew_jitter: 3,
            certificate_renew_override_before: 1,
            certificate_drain_time: 30,
        }
    }
}

/// What becomes of a user's earlier session when they log in elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultipleLoginBehavior {
    /// It stays; the user is on several phones.
    Allowed,
    /// It ends, and the new one begins.
    AutoLogout,
    /// It stays, and the new login is refused with EM code 25.
    NotAllowed,
}

/// What a phone is told when nobody has the name that was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownUserAnswer {
    /// The same as of a wrong PIN, in the same time.
    AsWrongPin,
    /// That there is no such user: EM code 23.
    Unknown,
}

/// What a login does whose user has an earlier session on a cluster that can't be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenUnreachable {
    /// Refuse it.
    Refuse,
    /// Let it begin; the old session ends here, and its end is owed to that cluster.
    TakeOver,
}

/// Why a parameter was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The incumbent has it, this software doesn't.
    #[error("{} is not taken over, because {}", .0.name, .0.why)]
    LeftOut(&'static LeftOut),
    /// No parameter has that name.
    #[error("there is no parameter {name}{}", did_you_mean(.suggestion))]
    Unknown {
        /// The name, safe to print.
        name: String,
        /// The one that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// The value is none for it.
    #[error("{name} {reason} (allowed: {allowed})")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What is wrong with the value, as the end of a sentence that begins with the name.
        reason: &'static str,
        /// What would be right.
        allowed: String,
    },
}

/// The parameter of that name.
///
/// # Errors
/// [`Error::Unknown`] with the name that was probably meant, [`Error::LeftOut`].
pub fn find(name: &str) -> Result<&'static Parameter, Error> {
    if let Some(found) = TABLE.iter().find(|p| p.name == name) {
        return Ok(found);
    }
    let wanted = normal(name);
    if let Some(left_out) = NOT_TAKEN_OVER.iter().find(|p| p.name == wanted) {
        return Err(Error::LeftOut(left_out));
    }
    Err(Error::Unknown {
        name: printable(name),
        suggestion: nearest(&wanted),
    })
}

impl Parameter {
    /// The value that `text` stands for, as it is kept.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn canonical(&self, text: &str) -> Result<String, Error> {
        let mut all = Parameters::default();
        self.put(&mut all, text)?;
        Ok(self.value(&all))
    }

    /// Puts the value that `text` stands for in its place.
    ///
    /// # Errors
    /// [`Error::Value`]; nothing was changed then.
    pub fn put(&self, all: &mut Parameters, text: &str) -> Result<(), Error> {
        self.kind
            .put(all, text.trim())
            .map_err(|reason| Error::Value {
                name: self.name,
                reason,
                allowed: self.kind.allowed(),
            })
    }

    /// Its value, as one would write it.
    #[must_use]
    pub fn value(&self, all: &Parameters) -> String {
        self.kind.value(all)
    }
}

impl Parameters {
    /// Makes them of what is stored. What can't be used is told, and its default holds.
    pub fn from_stored<'a>(
        stored: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (Self, Vec<Error>) {
        let (mut all, mut problems) = (Self::default(), Vec::new());
        for (name, value) in stored {
            let put = find(name).and_then(|parameter| parameter.put(&mut all, value));
            problems.extend(put.err());
        }
        (all, problems)
    }

    /// How long a local login may last; none where it may last for ever.
    #[must_use]
    pub fn intra_cluster_limit(&self) -> Option<Duration> {
        let limit = self.intra_cluster_maximum_login_time;
        (self.enforce_intra_cluster_maximum_login_time && !limit.is_zero()).then_some(limit)
    }

    /// How long a login across clusters may last; none where it may last for ever.
    #[must_use]
    pub fn inter_cluster_limit(&self) -> Option<Duration> {
        let limit = self.inter_cluster_maximum_login_time;
        (!limit.is_zero()).then_some(limit)
    }
}

/// How alike two names must be (0 to 1) for one to be offered for the other: a slip or two, no more.
const ALIKE: f64 = 0.85;

fn nearest(wanted: &str) -> Option<&'static str> {
    TABLE
        .iter()
        .map(|p| (p.name, strsim::jaro_winkler(p.name, wanted)))
        .filter(|(_, score)| *score >= ALIKE)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(name, _)| name)
}

/// Names as the incumbent's pages show them are recognised too.
fn normal(name: &str) -> String {
    name.trim()
        .to_ascii_lowercase()
        .replace(['_', ' '], "-")
        .chars()
        .take(MAX_NAME)
        .collect()
}

fn printable(name: &str) -> String {
    let safe: String = name
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_NAME)
        .collect();
    if safe.is_empty() {
        "\"\"".to_owned()
    } else {
        safe
    }
}

fn did_you_mean(suggestion: &Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// No name comes near; a message stays one line.
const MAX_NAME: usize = 100;
