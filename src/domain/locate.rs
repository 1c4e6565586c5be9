//! Which cluster is home: the decision over the peers' answers. Pure.

use crate::domain::{ids::ClusterId, login::LoginType, refusal::Refusal};

/// What became of asking one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAnswer {
    /// It is home to exactly one such user.
    Mine,
    /// It has no such user.
    NotMine,
    /// The extension belongs to several of its users.
    SeveralUsers,
    /// It could not be asked for its version lacks the login type, or no version is in common; why.
    Incompatible(String),
    /// It refused: connection, TLS or trust; why.
    Refused(String),
    /// It did not answer in time; what we know of it.
    Silent(String),
}

/// One peer's answer, with what its record lets it claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which peer.
    pub cluster: ClusterId,
    /// Whether the peer's record has a pattern that admits the name.
    pub pattern_admits: bool,
    /// What it said.
    pub answer: PeerAnswer,
}

/// The outcome of the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// That peer is home; the PIN may go to it.
    Home(ClusterId),
    /// Nobody is, and the PIN goes nowhere.
    Refused(Refusal),
    /// Two or more peers claim the name: refused, with an alarm that names them.
    Ambiguous(Vec<ClusterId>, Refusal),
}

/// Decides over all enabled peers' answers; `asked` holds one entry per peer.
#[must_use]
pub fn decide(login_type: LoginType, asked: &[Asked]) -> Located {
    let _ = (login_type, asked);
    Located::Refused(Refusal::new(
        crate::domain::em_code::EmCode::UnknownError,
        "",
    ))
}
