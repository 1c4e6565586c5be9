//! The subscriber: text or JSON lines on standard error, filtered by level.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct Logging {
    /// How a line looks.
    pub format: Format,
    /// A level (`info`) or a filter (`emccd=debug,info`).
    pub filter: String,
}

/// A filter that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("the log level `{filter}` is none of error, warn, info, debug, trace, and no filter")]
pub struct InvalidFilter {
    filter: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

impl Logging {
    /// Installs the subscriber for this process; does nothing when there is one already (many nodes, one
    /// process).
    ///
    /// # Errors
    /// [`InvalidFilter`] when the level can't be read.
    pub fn start(&self) -> Result<(), InvalidFilter> {
        // Without a filter the TLS and HTTP/2 libraries would write whole handshakes at trace level.
        let filter = EnvFilter::try_new(&self.filter).map_err(|source| InvalidFilter {
            filter: self.filter.clone(),
            source,
        })?;
        let registry = tracing_subscriber::registry().with(filter);
        // In a file colours are noise, and break every search.
        let colours = std::io::stderr().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
        let _already_there = match self.format {
            Format::Text => registry.with(lines.with_target(false)).try_init(),
            Format::Json => registry.with(lines.json()).try_init(),
        };
        Ok(())
    }
}
