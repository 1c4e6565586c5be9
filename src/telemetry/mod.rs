//! Logs: start-up of the subscriber, and errors with their whole chain on one line.

mod logging;

pub use logging::{Format, Logging};

/// The error and all its sources on one line, each said once.
#[must_use]
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}
