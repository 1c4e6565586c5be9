//! What is wrong with a configuration file: everything at once, each with its line and what would be right.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The line in the file, from 1; none when the key isn't there.
    pub line: Option<usize>,
    /// The full name of the key, for example `federation.heartbeat`; empty when it concerns the whole file.
    pub key: String,
    /// The value as it stands in the file; left out where it might hold a secret.
    pub value: Option<String>,
    /// What is wrong, as the end of a sentence that begins with the key.
    pub reason: String,
    /// What would be right.
    pub allowed: Option<String>,
    /// What to do instead.
    pub suggestion: Option<String>,
}

impl Problem {
    /// A problem of `key`, with nothing known but the reason.
    #[must_use]
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            line: None,
            key: key.into(),
            value: None,
            reason: reason.into(),
            allowed: None,
            suggestion: None,
        }
    }

    /// The same, on a line.
    #[must_use]
    pub const fn on_line(mut self, line: Option<usize>) -> Self {
        self.line = line;
        self
    }

    /// The same, with a value that may be shown.
    #[must_use]
    pub fn with_value(mut self, value: Option<String>) -> Self {
        self.value = value;
        self
    }

    /// The same, with what would be right.
    #[must_use]
    pub fn with_allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    /// The same, with what to do instead.
    #[must_use]
    pub fn with_suggestion(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            f.write_str(&self.key)?;
            if let Some(value) = &self.value {
                write!(f, " = {value}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.reason)?;
        if let Some(allowed) = &self.allowed {
            write!(f, " (allowed: {allowed})")?;
        }
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; {suggestion}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with one file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// The file.
    pub file: PathBuf,
    /// At least one.
    pub list: Vec<Problem>,
}

impl Problems {
    /// Sorts the problems by line; those without one come last.
    #[must_use]
    pub fn new(file: &Path, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|p| p.line.unwrap_or(usize::MAX));
        Self {
            file: file.to_owned(),
            list,
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.list.len() == 1 {
            "problem"
        } else {
            "problems"
        };
        write!(f, "{} has {} {noun}:", self.file.display(), self.list.len())?;
        for problem in &self.list {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
