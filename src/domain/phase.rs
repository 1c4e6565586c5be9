//! Where a node is in its life. Pure.

/// What others may ask of a node now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not all of its parts are there.
    #[default]
    Starting,
    /// All of it.
    Serving,
    /// It finishes what it has, and wants nothing new.
    Draining,
}

impl Phase {
    /// Whether new work may be sent to it.
    #[must_use]
    pub const fn is_ready(self) -> bool {
        matches!(self, Self::Serving)
    }

    /// The stable word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}
