//! What is wrong with a node, and the command that mends it: checks with stable ids, on three levels.
//!
//! What can be seen without a daemon is looked at here (the configuration, its files, the database, the ports); what
//! only a running one knows is handed in, and judged.

mod database;
mod disk;
mod files;
mod live;
mod ports;

#[cfg(test)]
mod tests;

use std::path::Path;

use serde::Serialize;

use crate::{
    clock::Timestamp,
    config::{self, Config},
    node,
    wire::admin as pb,
};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and will not for ever or not in every case.
    Warning,
    /// Something does not work.
    Error,
}

impl Level {
    /// The word that is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name, which does not change between versions.
    pub id: &'static str,
    /// Which of several it is about: a peer, a port.
    pub subject: Option<String>,
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to type, or to do; none where all is well.
    pub hint: Option<String>,
}

impl Finding {
    fn ok(id: &'static str, text: impl Into<String>) -> Self {
        Self {
            id,
            subject: None,
            level: Level::Ok,
            text: text.into(),
            hint: None,
        }
    }

    fn warning(id: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            hint: Some(hint.into()),
            ..Self::ok(id, text)
        }
    }

    fn error(id: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            level: Level::Error,
            ..Self::warning(id, text, hint)
        }
    }

    fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }
}

/// What a running daemon has told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Its links.
    pub status: pb::GetClusterStatusResponse,
    /// The certificates in force.
    pub identities: pb::ListIdentitiesResponse,
    /// How trust stands now.
    pub trust: pb::ForecastTrustResponse,
    /// What the cluster goes by.
    pub parameters: pb::ListParametersResponse,
    /// The certificates that are being exchanged.
    pub rotations: pb::ListRotationsResponse,
}

/// Whether there is a daemon.
#[derive(Clone, Debug)]
pub enum Daemon {
    /// None answers at the socket.
    Down,
    /// One is there, and can't be asked: why, and what to do.
    Silent {
        /// Why.
        why: String,
        /// What to do.
        hint: String,
    },
    /// It has answered.
    Up(Box<Told>),
}

/// Looks at the node that the configuration in `file` describes, as at `now`. The daemon is asked by the caller, once
/// the configuration has told where.
pub async fn examine(
    file: &Path,
    now: Timestamp,
    ask: impl AsyncFnOnce(&Config) -> Daemon,
) -> Vec<Finding> {
    let config = match config::load(file) {
        Ok(config) => config,
        Err(problems) => return vec![files::unreadable(file, &problems)],
    };
    let mut found = vec![Finding::ok("config", format!("{} is good", file.display()))];
    found.extend(files::check(&config, now));
    let daemon = ask(&config).await;
    let is_up = !matches!(daemon, Daemon::Down);
    let of_database = database::check(&config, is_up).await;
    if of_database.iter().any(|f| f.id == "pepper") {
        // A pepper whose file is good, and which is the wrong one.
        found.retain(|f| f.id != "pepper");
    }
    found.extend(of_database);
    found.extend(ports::check(&config, is_up).await);
    found.push(file_limit(&config));
    found.extend(live::check(&config, &daemon));
    found
}

/// Whether the system lets the daemon have as many files as its bounds on connections may come to need.
fn file_limit(config: &Config) -> Finding {
    use nix::sys::resource::{Resource, getrlimit};
    const ID: &str = "file-limit";
    let most = node::most_files(config);
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard < most => Finding::warning(
            ID,
            format!("{hard} files may be open at a time, and up to {most} may be needed"),
            format!(
                "set LimitNOFILE={most} for the service, or lower phone.max-connections and federation.max-connections"
            ),
        ),
        Ok((_, hard)) => Finding::ok(
            ID,
            format!("{hard} files may be open at a time; up to {most} may be needed"),
        ),
        Err(cause) => Finding::warning(
            ID,
            format!("the limit of open files can't be read: {cause}"),
            "ulimit -Hn",
        ),
    }
}

/// Whether nothing at all is an error.
#[must_use]
pub fn is_well(found: &[Finding]) -> bool {
    found.iter().all(|finding| finding.level != Level::Error)
}
