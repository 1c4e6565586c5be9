//! What may be taken from a peer's announcements of its certificates. Pure.

use std::{fmt, str::FromStr};

/// What becomes of a certificate that a peer announces as the next one of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Acceptance {
    /// It is trusted at once: the peer has proved its key, over a link that we trust.
    #[default]
    Auto,
    /// It waits until an operator of ours agrees.
    Approve,
    /// It is refused: certificates are exchanged by hand.
    Off,
}

impl Acceptance {
    /// Every word that [`str::parse`] takes, for usage and refusals.
    pub const WORDS: [&'static str; 3] = ["auto", "approve", "off"];

    /// The word in the store, in tables and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Approve => "approve",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Acceptance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is none of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must be auto, approve or off")]
pub struct NoAcceptance;

impl FromStr for Acceptance {
    type Err = NoAcceptance;

    fn from_str(word: &str) -> Result<Self, NoAcceptance> {
        [Self::Auto, Self::Approve, Self::Off]
            .into_iter()
            .find(|acceptance| acceptance.as_str() == word)
            .ok_or(NoAcceptance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_read_as_it_is_written_and_no_other() {
        for word in Acceptance::WORDS {
            assert_eq!(word.parse::<Acceptance>().unwrap().as_str(), word);
        }
        for odd in ["", "Auto", "on", "auto "] {
            assert_eq!(odd.parse::<Acceptance>(), Err(NoAcceptance), "{odd}");
        }
    }
}
