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
    ///
    /// What a file's names make of it is cut, so that one is always told: without any, nothing would be wrong.
    pub fn push(&mut self, mut problem: Problem) {
        cut(&mut problem.field, MAX_FIELD);
        cut(&mut problem.message, MAX_MESSAGE);
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
        self.count() == 0
    }

    /// Puts those that are told in an order.
    pub fn sort_by_key<K: Ord>(&mut self, key: impl FnMut(&Problem) -> K) {
        self.told.sort_by_cached_key(key);
    }
}

/// Shortens a text that is longer, at the end of a character.
fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
        text.shrink_to_fit();
    }
}

/// How long a kind and column are told, in bytes: more than any of ours has.
const MAX_FIELD: usize = 200;
/// How much of what is wrong is told, in bytes: the longest list of rules of a policy fits.
const MAX_MESSAGE: usize = 4_096;

/// Room for the fixed part of one, and for its file's name where it is told.
const OF_EACH: usize = 96;

/// Some forty thousand of them.
const MAX_BYTES: usize = 6 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_longer_than_all_may_be_is_told_too() {
        let mut problems = Problems::default();
        assert!(problems.is_empty());
        let long = "ä".repeat(MAX_BYTES);
        for (field, message) in [(&*long, "unknown"), ("user.id", &*long), ("", "short")] {
            problems.push(Problem {
                file: "users.toml".into(),
                line: 1,
                field: field.to_owned(),
                message: message.to_owned(),
            });
            assert!(!problems.is_empty());
        }
        let told: Vec<_> = problems
            .told()
            .iter()
            .map(|p| (p.field.chars().count(), p.message.chars().count()))
            .collect();
        assert_eq!(told, [(101, 7), (7, 2_049), (0, 5)]);
        // Also where none of them could be told.
        let counted = Problems {
            left_out: 1,
            ..Problems::default()
        };
        assert!(!counted.is_empty());
    }

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
