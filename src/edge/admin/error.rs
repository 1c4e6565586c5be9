//! Why the admin service refuses, by who must act, and the one mapping to a gRPC status.

use std::{collections::HashMap, error::Error as _};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::error;

use crate::{
    edge::admin::roles::Denied,
    store,
    trust::{self, impact::Refused},
};

/// The domain of the admin service's `ErrorInfo`.
pub const DOMAIN: &str = "emcc.admin";

/// Why a call was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller has not the role.
    #[error("{0}")]
    Denied(Denied),
    /// It is there already.
    #[error("{what} exists already")]
    Exists {
        /// What.
        what: String,
        /// What to do about it.
        next: String,
    },
    /// The caller sent what can't be.
    #[error("{field} must be {rule}")]
    Invalid {
        /// Which field, as the operator knows it.
        field: &'static str,
        /// What it must be.
        rule: String,
    },
    /// The state of things does not allow it.
    #[error("{why}")]
    Refused {
        /// Why not, in one sentence.
        why: String,
        /// What to do about it.
        next: String,
    },
    /// The same, for many reasons at once.
    #[error("{why}")]
    Listed {
        /// What is refused, in one sentence.
        why: String,
        /// Each reason, as many as are told.
        reasons: Vec<String>,
        /// How many more there are.
        left_out: u64,
        /// What to do about it.
        next: String,
    },
    /// No such thing.
    #[error("there is no {what}")]
    Missing {
        /// What was looked for.
        what: String,
        /// The command that shows what there is.
        list: &'static str,
    },
    /// Something that is needed does not answer; trying again may help.
    #[error("{why}")]
    Unavailable {
        /// What, in one sentence.
        why: String,
        /// What to do about it.
        next: String,
    },
    /// The answer took longer than a caller waits.
    #[error("it was not done within {seconds} s")]
    TooSlow {
        /// The limit.
        seconds: u64,
    },
    /// Trust material that can't be used.
    #[error(transparent)]
    Trust(#[from] trust::Error),
    /// The database.
    #[error("the database refuses")]
    Store(#[source] store::Error),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let next = match &refused {
            Refused::Revoked {
                cluster,
                fingerprint,
                ..
            } => format!(
                "take it out of the file; or, if it is to be trusted again, first: emccd trust add {cluster} \
                 --unrevoke {fingerprint}"
            ),
            Refused::NoNames { cluster } => format!(
                "name its nodes with: emccd cluster set {cluster} --node-name NAME (at cluster add: --node-name \
                 NAME), or pin their certificates"
            ),
        };
        Self::refused(refused.to_string(), next)
    }
}

impl Error {
    /// A field that breaks its rule.
    pub fn invalid(field: &'static str, rule: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            rule: rule.into(),
        }
    }

    /// Something that is not there; `list` is the command that shows what is.
    pub fn missing(what: impl Into<String>, list: &'static str) -> Self {
        Self::Missing {
            what: what.into(),
            list,
        }
    }

    /// A refusal by the state of things.
    pub fn refused(why: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Refused {
            why: why.into(),
            next: next.into(),
        }
    }

    /// Many reasons at once, of which a caller is told what fits; `more` are not even among them.
    pub fn listed(
        why: impl Into<String>,
        all: impl IntoIterator<Item = String>,
        more: u64,
        next: impl Into<String>,
    ) -> Self {
        let (mut reasons, mut left, mut left_out) = (Vec::new(), MAX_LISTED_BYTES, more);
        for reason in all {
            match left.checked_sub(reason.len()).filter(|_| left_out == more) {
                Some(rest) => {
                    left = rest;
                    reasons.push(reason);
                }
                None => left_out += 1,
            }
        }
        Self::Listed {
            why: why.into(),
            reasons,
            left_out,
            next: next.into(),
        }
    }

    /// Why, with the first of many reasons: a status has little room.
    fn why(&self) -> String {
        let Self::Listed {
            why,
            reasons,
            left_out,
            ..
        } = self
        else {
            return self.to_string();
        };
        let mut text = format!("{why}:");
        let mut told = 0_u64;
        for reason in reasons {
            if text.len() + reason.len() > MAX_WHY_BYTES {
                break;
            }
            text.push('\n');
            text.push_str(reason);
            told += 1;
        }
        let all = u64::try_from(reasons.len()).unwrap_or(u64::MAX);
        let more = all.saturating_add(*left_out).saturating_sub(told);
        if more > 0 {
            text.push_str(&format!("\nand {more} more"));
        }
        text
    }

    const fn code(&self) -> Code {
        match self {
            Self::Denied(_) => Code::PermissionDenied,
            Self::Exists { .. } => Code::AlreadyExists,
            Self::Invalid { .. } | Self::Trust(_) => Code::InvalidArgument,
            Self::Refused { .. } | Self::Listed { .. } => Code::FailedPrecondition,
            Self::Missing { .. } => Code::NotFound,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::TooSlow { .. } => Code::DeadlineExceeded,
            Self::Store(_) => Code::Internal,
        }
    }

    const fn reason(&self) -> &'static str {
        match self {
            Self::Denied(_) => "ROLE_MISSING",
            Self::Exists { .. } => "EXISTS",
            Self::Invalid { .. } => "INVALID",
            Self::Refused { .. } | Self::Listed { .. } => "REFUSED",
            Self::Missing { .. } => "MISSING",
            Self::Unavailable { .. } => "UNAVAILABLE",
            Self::TooSlow { .. } => "TOO_SLOW",
            Self::Trust(_) => "TRUST",
            Self::Store(_) => "STORE",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::Denied(denied) => denied.next(),
            Self::Exists { next, .. }
            | Self::Refused { next, .. }
            | Self::Listed { next, .. }
            | Self::Unavailable { next, .. } => next.clone(),
            Self::Invalid { .. } => "correct it and try again".to_owned(),
            Self::Missing { list, .. } => format!("see what there is: {list}"),
            Self::TooSlow { .. } => {
                "look at the daemon's log; it may still be done, so look before you try again"
                    .to_owned()
            }
            Self::Trust(trust::Error::Conflict { .. }) => {
                "see who has it: emccd trust list".to_owned()
            }
            Self::Trust(trust::Error::NotAnAuthority { .. }) => {
                "give the authority's own certificate, or pin this one with --pin (at cluster add: --trust)"
                    .to_owned()
            }
            Self::Trust(_) => {
                "look at the file with: emccd cert show FILE".to_owned()
            }
            Self::Store(_) => {
                "look at the daemon's log, at the free space and at the permissions of the database"
                    .to_owned()
            }
        }
    }

    /// The status that the caller gets. What is our own fault is logged here, where it ends.
    #[must_use]
    pub fn into_status(self) -> Status {
        let mut why = self.why();
        let mut source = self.source();
        while let Some(cause) = source {
            why.push_str(": ");
            why.push_str(&cause.to_string());
            source = cause.source();
        }
        if matches!(self, Self::Store(_)) {
            error!(cause = %why, "an admin call failed");
        }
        // It travels in a header, and once more in the details beside it.
        if why.len() > MAX_WHY_BYTES {
            why.truncate(why.floor_char_boundary(MAX_WHY_BYTES));
            why.push('\u{2026}');
        }
        let metadata = HashMap::from([("next".to_owned(), self.next())]);
        let details = ErrorDetails::with_error_info(self.reason(), DOMAIN, metadata);
        Status::with_error_details(self.code(), why, details)
    }
}

/// What a status says at most. Headers hold 16 KiB together, and there it is twice, each octet as up to three.
const MAX_WHY_BYTES: usize = 2 * 1024;

/// A quarter of what an answer may hold.
const MAX_LISTED_BYTES: usize = 4 * 1024 * 1024;

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::FingerprintTaken(owner) => Self::Refused {
                why: format!("the certificate is pinned for the peer {owner} already"),
                next: format!("see what is trusted from it: emccd trust list {owner}"),
            },
            store::Error::Backup { path, source } => Self::Refused {
                why: format!("{} can't be written: {source}", path.display()),
                next: "name a file that is not there yet, in a folder of this machine where the daemon may write"
                    .to_owned(),
            },
            store::Error::Unsupported(why) => Self::Refused {
                why: why.to_owned(),
                next: "give the node a store.url with a file".to_owned(),
            },
            store::Error::Busy => Self::Unavailable {
                why: "too many operations are waiting for the database".to_owned(),
                next: "try again in a moment".to_owned(),
            },
            other => Self::Store(other),
        }
    }
}
