//! What goes wrong on the command line, in three parts: what, why, what to do next.

use std::{error::Error, fmt};

use serde_json::Value;
use tonic::Status;
use tonic_types::StatusExt as _;

/// A command that was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    what: String,
    why: String,
    next: String,
    details: Vec<(&'static str, Value)>,
    exit_code: u8,
}

/// What a command comes to.
pub type Outcome<T = crate::cli::output::Report> = Result<T, Failure>;

impl Failure {
    /// The three parts. `what` completes "error: ", for example `cannot add the peer tokyo`.
    pub fn new(what: impl Into<String>, why: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: why.into(),
            next: next.into(),
            details: Vec::new(),
            exit_code: 1,
        }
    }

    /// The same where the command line itself is at fault.
    pub fn usage(what: impl Into<String>, why: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            exit_code: 2,
            ..Self::new(what, why, next)
        }
    }

    /// What the parser of the command line refuses; `why` is its message, without the help that it appends.
    #[must_use]
    pub fn from_usage(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let shows_help = clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        let why = if error.kind() == shows_help {
            "it names no command"
        } else {
            let end = ["\n\nUsage:", "\n\nFor more information"]
                .into_iter()
                .filter_map(|mark| text.find(mark))
                .min();
            let message = end.and_then(|end| text.get(..end)).unwrap_or(&text).trim();
            message.strip_prefix("error: ").unwrap_or(message)
        };
        Self::usage(
            "the command line can't be used",
            why,
            "--help after the command shows what can be typed",
        )
    }

    /// What could not be done.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Why.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.why
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> &str {
        &self.next
    }

    /// The same with a field of its own for programs, where people read it in the text.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.details.push((name, value.into()));
        self
    }

    /// The same three parts for a program, and what else it may want to know, as one object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let parts = [
            ("error", &self.what),
            ("why", &self.why),
            ("next", &self.next),
        ];
        let parts = parts.map(|(name, text)| (name.to_owned(), Value::from(text.as_str())));
        let details = self.details.iter();
        let details = details.map(|(name, value)| ((*name).to_owned(), value.clone()));
        parts.into_iter().chain(details).collect()
    }

    /// 1 refused or failed, 2 usage.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// The same for an error of ours: `why` is the error with its sources.
    pub fn from_error(what: impl Into<String>, error: &dyn Error, next: impl Into<String>) -> Self {
        Self::new(what, with_sources(error), next)
    }

    /// A refusal by the daemon, which says itself why and what to do.
    pub fn from_status(what: impl Into<String>, status: &Status) -> Self {
        let told = status
            .get_details_error_info()
            .and_then(|info| info.metadata.get("next").cloned());
        let next = told.unwrap_or_else(|| match status.code() {
            tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => {
                "look at the daemon's log: it did not answer in time".to_owned()
            }
            tonic::Code::Unimplemented => {
                "use the command of the version that the daemon runs".to_owned()
            }
            _ => "look at the daemon's log, and try again".to_owned(),
        });
        let why = match status.message() {
            "" => format!("the daemon answered {:?}", status.code()),
            message => message.to_owned(),
        };
        Self::new(what, why, next)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what, why, next, ..
        } = self;
        let clean = crate::cli::output::clean_lines;
        writeln!(f, "error: {}", clean(what))?;
        writeln!(f, "  why:  {}", clean(why).replace('\n', "\n        "))?;
        write!(f, "  next: {}", clean(next).replace('\n', "\n        "))
    }
}

impl Error for Failure {}

/// An error and its sources on one line.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, io};

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn it_has_three_parts() {
        let failure = Failure::new("cannot do it", "it is\nforbidden", "ask");
        assert_eq!(
            failure.to_string(),
            "error: cannot do it\n  why:  it is\n        forbidden\n  next: ask"
        );
        assert_eq!(
            failure.to_json().to_string(),
            r#"{"error":"cannot do it","next":"ask","why":"it is\nforbidden"}"#
        );
    }

    #[test]
    fn a_usage_error_is_an_object_too() {
        use crate::cli::args::CommandLine;
        use clap::Parser as _;

        for (line, part) in [
            (
                "emccd --json nonsense",
                "unrecognized subcommand 'nonsense'",
            ),
            ("emccd --json cluster", "it names no command"),
            ("emccd --json apply", "<FILE>..."),
            ("emccd lab --clusters 0 --json", "invalid value '0'"),
        ] {
            let usage = CommandLine::try_parse_from(line.split(' ')).unwrap_err();
            let failure = Failure::from_usage(&usage);
            assert_eq!(failure.exit_code(), 2, "{line}");
            let json = failure.to_json();
            let why = json["why"].as_str().unwrap();
            assert!(why.contains(part), "{line}: {why}");
            assert!(
                !why.contains("Usage:") && !why.contains("error:"),
                "{line}: {why}"
            );
        }
    }

    #[test]
    fn a_daemon_s_refusal_brings_its_own_advice() {
        let metadata = HashMap::from([("next".to_owned(), "add yourself".to_owned())]);
        let details = ErrorDetails::with_error_info("DENIED", "emcc.admin", metadata);
        let status =
            Status::with_error_details(tonic::Code::PermissionDenied, "you are nobody", details);
        assert_eq!(
            Failure::from_status("cannot look", &status),
            Failure::new("cannot look", "you are nobody", "add yourself")
        );
    }

    #[test]
    fn a_bare_status_still_says_something() {
        let text = Failure::from_status("cannot look", &Status::cancelled("")).to_string();
        assert!(text.contains("Cancelled") && text.contains("log"), "{text}");
    }

    #[test]
    fn sources_are_chained() {
        let source = io::Error::other("disk on fire");
        let error = crate::edge::admin::socket::Error::Io {
            step: "bind",
            path: "/x".into(),
            source,
        };
        let text = Failure::from_error("cannot start", &error, "-").to_string();
        assert!(
            text.contains("cannot bind the admin socket /x: disk on fire"),
            "{text}"
        );
    }

    #[test]
    fn what_a_peer_sent_cannot_drive_the_terminal() {
        let text = Failure::new("a", "\u{1b}[2Jgone", "b").to_string();
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
