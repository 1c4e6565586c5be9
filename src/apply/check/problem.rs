//! What is wrong with files: told up to a bound, and counted beyond it. Pure.

use std::{fmt, sync::Arc};

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The kind and column, for example `user.extension`; empty when the file is neither TOML nor CSV.
    pub field: String,
    /// What is wrong, and what would be right. Never a PIN.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// All that is wrong. A file whose every line is wrong must not cost more memory than one that is right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    told: Vec<Problem>,
    bytes: usize,
    left_out: u64,
}

impl Problems {
    /// Takes one more, to tell or only to count.
    pub fn push(&mut self, problem: Problem) {
        let bytes = problem.field.len() + problem.message.len() + OF_EACH;
        if self.left_out > 0 || self.bytes + bytes > MAX_BYTES {
            self.left_out += 1;
        } else {
            self.bytes += bytes;
            self.told.push(problem);
        }
    }

    /// Takes all of the others.
    pub fn append(&mut self, others: Self) {
        for problem in others.told {
            self.push(problem);
        }
        self.left_out += others.left_out;
    }

    /// Those that are told.
    #[must_use]
    pub fn told(&self) -> &[Problem] {
        &self.told
    }

    /// How many more there are.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.left_out + u64::try_from(self.told.len()).unwrap_or(u64::MAX)
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Puts those that are told in an order.
    pub fn sort_by_key<K: Ord>(&mut self, key: impl FnMut(&Problem) -> K) {
        self.told.sort_by_cached_key(key);
    }
}

/// Room for the fixed part of one, and for its file's name where it is told.
const OF_EACH: usize = 96;

/// Some forty thousand of them.
const MAX_BYTES: usize = 6 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_they_are_counted() {
        let mut problems = Problems::default();
        for line in 0..200_000 {
            problems.push(Problem {
                file: "users.csv".into(),
                line,
                field: "user.extension".to_owned(),
                message: "it must be at most 50 bytes long".to_owned(),
            });
        }
        let mut all = Problems::default();
        all.append(problems.clone());
        all.append(problems.clone());
        assert_eq!((problems.count(), all.count()), (200_000, 400_000));
        let told = problems.told().len();
        assert!((20_000..60_000).contains(&told), "{told}");
        assert_eq!(all.told(), problems.told(), "the first are told");
        assert_eq!(all.left_out(), 400_000 - u64::try_from(told).unwrap());
    }
}
