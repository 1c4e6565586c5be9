//! Whose a certificate is, and as what it is meant, as an alias can say it: `CLUSTER/KIND/NAME`. Pure.
//!
//! Stores know nothing of clusters, but every one of them keeps aliases. Java makes them lower case, so whoever looks
//! a cluster up compares without case.

use std::fmt;

use crate::domain::ids::ClusterId;

/// Whose, and as what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The cluster, in lower case.
    cluster: String,
    /// As what its peers shall take it.
    pub kind: Kind,
}

/// As what a certificate is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An authority.
    Anchor,
    /// A leaf that is pinned.
    Pinned,
}

impl Kind {
    /// The word in an alias.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Pinned => "pinned",
        }
    }
}

impl Place {
    /// What an alias says; `None` when it says nothing of this kind.
    #[must_use]
    pub fn of_alias(alias: &str) -> Option<Self> {
        let mut parts = alias.splitn(3, '/');
        let cluster = ClusterId::new(parts.next()?).ok()?;
        let kind = match parts.next()?.to_ascii_lowercase().as_str() {
            "anchor" => Kind::Anchor,
            "pinned" => Kind::Pinned,
            _ => return None,
        };
        Some(Self::new(&cluster, kind))
    }

    /// Of this cluster, as this.
    #[must_use]
    pub fn new(cluster: &ClusterId, kind: Kind) -> Self {
        Self {
            cluster: cluster.as_str().to_ascii_lowercase(),
            kind,
        }
    }

    /// Whether it is of this cluster.
    #[must_use]
    pub fn is_of(&self, cluster: &ClusterId) -> bool {
        self.cluster.eq_ignore_ascii_case(cluster.as_str())
    }

    /// The cluster, in lower case.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }
}

/// An alias that says whose a certificate is, and a name for people.
#[must_use]
pub fn alias(cluster: &ClusterId, kind: Kind, name: &str) -> String {
    format!("{cluster}/{}/{name}", kind.as_str())
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.kind.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_in_any_case() {
        let berlin = ClusterId::new("Berlin").unwrap();
        let alias = alias(&berlin, Kind::Anchor, "CN=a/b");
        assert_eq!(alias, "Berlin/anchor/CN=a/b");
        let place = Place::new(&berlin, Kind::Anchor);
        for alias in [
            alias.clone(),
            alias.to_lowercase(),
            alias.to_uppercase(),
            "berlin/anchor".into(),
        ] {
            assert_eq!(Place::of_alias(&alias), Some(place.clone()), "{alias}");
        }
        assert!(place.is_of(&berlin) && place.to_string() == "berlin/anchor");
        for other in [
            "",
            "berlin",
            "berlin/",
            "berlin/leaf/x",
            "/pinned/x",
            "a b/pinned/x",
            "node 1",
        ] {
            assert_eq!(Place::of_alias(other), None, "{other}");
        }
    }
}
