//! What an identity of a node is for.

use std::fmt;

/// What an identity is for. A node has one of each, save that most have none for calling alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Shown to peers: to those that call us, and to those that we call unless there is one for that.
    Federation,
    /// Shown to the peers that we call, where it is another than the one for those that call us.
    FederationClient,
    /// Shown to phones and to programs.
    Phone,
}

impl Purpose {
    /// All of them, the federation's first.
    pub const ALL: [Self; 3] = [Self::Federation, Self::FederationClient, Self::Phone];

    /// Its name in files, in the store and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Federation => "federation",
            Self::FederationClient => "federation-client",
            Self::Phone => "phone",
        }
    }

    /// Whether peers see it.
    #[must_use]
    pub const fn is_of_peers(self) -> bool {
        !matches!(self, Self::Phone)
    }

    /// The purpose of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|purpose| purpose.as_str() == name)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_goes_by_its_name() {
        for purpose in Purpose::ALL {
            assert_eq!(Purpose::from_name(&purpose.to_string()), Some(purpose));
        }
        assert_eq!(Purpose::from_name("Federation"), None);
    }
}
