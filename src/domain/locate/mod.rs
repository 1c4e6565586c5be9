//! Which cluster is home: the decision over the peers' answers. Pure.

use crate::domain::{em_code::EmCode, ids::ClusterId, login::LoginType, refusal::Refusal};

/// What became of asking one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAnswer {
    /// It is home to exactly one such user.
    Mine,
    /// It has no such user.
    NotMine,
    /// The extension belongs to several of its users.
    SeveralUsers,
    /// It was not asked, since its version lacks the login type: no user of its own can be meant; why.
    Incompatible(String),
    /// It could not be asked, or did not understand the question: no version in common, or a message that one
    /// side can't read. The name may be its own for all that we know; why.
    Unaskable(String),
    /// Its role has said that it serves none of our phones: it has no record of us, or does not allow us; with which
    /// code, and why. Whose the name is it has not said.
    Declined(EmCode, String),
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

/// The two parts of `x@y` at its last `@`; none when one of them would be empty.
///
/// The whole string is looked up first. Only if it is nobody's and `y` is a known cluster does `x` count.
#[must_use]
pub fn split_suffix(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('@')
        .filter(|(user, cluster)| !user.is_empty() && !cluster.is_empty())
}

/// Decides over all enabled peers' answers; `asked` holds one entry per peer.
///
/// A peer whose patterns exclude the name may not own it: its entry is [`PeerAnswer::NotMine`] without asking.
#[must_use]
pub fn decide(login_type: LoginType, asked: &[Asked]) -> Located {
    let sorted = Sorted::new(asked);
    match sorted.claims.as_slice() {
        [] => Located::Refused(sorted.unclaimed(login_type)),
        [claim] => match claim.answer {
            PeerAnswer::SeveralUsers => Located::Refused(several_users(login_type, claim)),
            _ if sorted.open().next().is_none() || claim.pattern_admits => {
                Located::Home(claim.cluster.clone())
            }
            _ => Located::Refused(sorted.doubtful(login_type, claim)),
        },
        claims => ambiguous(login_type, claims),
    }
}

/// The outcome that no further answer is needed for, while some are outstanding: what is refused whatever the
/// others say. A sole claim is never such: another one may follow, and then the PIN must go to neither.
#[must_use]
pub fn early(login_type: LoginType, answered: &[Asked]) -> Option<Located> {
    let sorted = Sorted::new(answered);
    let enough = match sorted.claims.as_slice() {
        [] => false,
        [claim] => claim.answer == PeerAnswer::SeveralUsers,
        _ => true,
    };
    enough.then(|| decide(login_type, answered))
}

/// The entries by what they mean for the decision.
struct Sorted<'a> {
    /// It is theirs, once or several times.
    claims: Vec<&'a Asked>,
    /// It is not theirs.
    denials: Vec<&'a Asked>,
    /// They can't own what can't be asked of their version.
    incompatible: Vec<(&'a ClusterId, &'a str)>,
    /// They could not be asked, and may own the name.
    unaskable: Vec<(&'a ClusterId, &'a str)>,
    /// They serve none of our phones, each with its code.
    declined: Vec<(&'a ClusterId, &'a str)>,
    /// Of those the lowest code, so that the order in which they say it does not matter.
    declined_with: Option<EmCode>,
    /// They could not be reached, or turned our connection away.
    refused: Vec<(&'a ClusterId, &'a str)>,
    /// They said nothing.
    silent: Vec<(&'a ClusterId, &'a str)>,
}

impl<'a> Sorted<'a> {
    fn new(asked: &'a [Asked]) -> Self {
        let mut sorted = Self {
            claims: Vec::new(),
            denials: Vec::new(),
            incompatible: Vec::new(),
            unaskable: Vec::new(),
            declined: Vec::new(),
            declined_with: None,
            refused: Vec::new(),
            silent: Vec::new(),
        };
        for entry in asked {
            match &entry.answer {
                PeerAnswer::Mine | PeerAnswer::SeveralUsers => sorted.claims.push(entry),
                PeerAnswer::NotMine => sorted.denials.push(entry),
                PeerAnswer::Incompatible(why) => sorted.incompatible.push((&entry.cluster, why)),
                PeerAnswer::Unaskable(why) => sorted.unaskable.push((&entry.cluster, why)),
                PeerAnswer::Declined(code, why) => {
                    sorted.declined.push((&entry.cluster, why));
                    let lowest = sorted
                        .declined_with
                        .filter(|one| one.number() < code.number());
                    sorted.declined_with = lowest.or(Some(*code));
                }
                PeerAnswer::Refused(why) => sorted.refused.push((&entry.cluster, why)),
                PeerAnswer::Silent(why) => sorted.silent.push((&entry.cluster, why)),
            }
        }
        sorted
    }

    /// The peers that may own the name for all that we know. An error is not an answer.
    fn open(&self) -> impl Iterator<Item = &(&'a ClusterId, &'a str)> {
        let open = self.unaskable.iter().chain(self.unanswered());
        open.chain(&self.declined)
    }

    /// Those of them that were asked and have not answered.
    fn unanswered(&self) -> impl Iterator<Item = &(&'a ClusterId, &'a str)> {
        self.refused.iter().chain(&self.silent)
    }

    fn open_code(&self) -> EmCode {
        if !self.refused.is_empty() || !self.unaskable.is_empty() {
            return EmCode::ServiceConnectionError;
        }
        // What may be otherwise in a minute comes before what an operator has to change.
        let declined = self.declined_with.filter(|_| self.silent.is_empty());
        declined.unwrap_or(EmCode::NoResponseFromRemoteHost)
    }

    fn unclaimed(&self, login_type: LoginType) -> Refusal {
        let what = noun(login_type);
        let has_open = self.unanswered().next().is_some();
        if !self.incompatible.is_empty() || !self.unaskable.is_empty() {
            let mut cause = format!(
                "no peer that could be asked has this {what}; not asked for the protocol version: {}",
                reasons(self.unaskable.iter().chain(&self.incompatible)),
            );
            if has_open {
                cause.push_str("; without an answer: ");
                cause.push_str(&reasons(self.unanswered()));
            }
            cause.push_str(&self.and_declined());
            return Refusal::new(EmCode::ErrorOnParsing, cause);
        }
        if has_open {
            let cause = format!(
                "no peer that answered has this {what}; without an answer: {}{}",
                reasons(self.unanswered()),
                self.and_declined(),
            );
            return Refusal::new(self.open_code(), cause);
        }
        if let Some(code) = self.declined_with {
            let cause = format!(
                "no peer that serves this cluster's phones has this {what}{}",
                self.and_declined()
            );
            return Refusal::new(code, cause);
        }
        if self.denials.is_empty() {
            let cause =
                format!("this {what} is not a local user's, and no peer is configured and enabled");
            return Refusal::new(EmCode::NoRemoteCluster, cause);
        }
        let peers = listed(self.denials.iter().map(|entry| entry.cluster.to_string()));
        let cause = format!("no cluster has this {what}; every peer answered: {peers}");
        Refusal::new(EmCode::UserDoesNotExist, cause)
    }

    /// The end of a sentence that names those who serve none of our phones, if there are any.
    fn and_declined(&self) -> String {
        if self.declined.is_empty() {
            return String::new();
        }
        format!("; not served by: {}", reasons(self.declined.iter()))
    }

    /// One claims, but another could be home as well: the PIN stays here.
    fn doubtful(&self, login_type: LoginType, claim: &Asked) -> Refusal {
        let cause = format!(
            "peer {} claims this {}, but no pattern of its record admits the name, and other peers gave no \
             answer: {}",
            claim.cluster,
            noun(login_type),
            reasons(self.open()),
        );
        Refusal::new(self.open_code(), cause)
    }
}

fn several_users(login_type: LoginType, claim: &Asked) -> Refusal {
    let cause = format!(
        "peer {} has several users with this {}",
        claim.cluster,
        noun(login_type)
    );
    Refusal::new(ambiguity_code(login_type), cause).by(claim.cluster.clone())
}

fn ambiguous(login_type: LoginType, claims: &[&Asked]) -> Located {
    let clusters: Vec<_> = claims.iter().map(|claim| claim.cluster.clone()).collect();
    let cause = format!(
        "peers {} all claim this {}; the PIN went to none of them",
        listed(clusters.iter().map(ToString::to_string)),
        noun(login_type),
    );
    Located::Ambiguous(clusters, Refusal::new(ambiguity_code(login_type), cause))
}

/// An extension can honestly belong to several; for the other names somebody is wrong.
const fn ambiguity_code(login_type: LoginType) -> EmCode {
    match login_type {
        LoginType::Extension => EmCode::DnHasMultipleUsersRemote,
        LoginType::Uid | LoginType::SelfService => EmCode::PolicyValidationError,
    }
}

const fn noun(login_type: LoginType) -> &'static str {
    match login_type {
        LoginType::Uid => "user ID",
        LoginType::SelfService => "self-service user ID",
        LoginType::Extension => "primary extension",
    }
}

fn reasons<'a>(entries: impl Iterator<Item = &'a (&'a ClusterId, &'a str)>) -> String {
    listed(entries.map(|(cluster, why)| format!("{cluster} ({why})")))
}

/// The first few: a cause is one sentence also with a thousand peers.
fn listed(items: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 8;
    let mut items: Vec<_> = items.collect();
    let more = items.len().saturating_sub(SHOWN);
    items.truncate(SHOWN);
    let mut text = items.join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}

#[cfg(test)]
mod tests;
