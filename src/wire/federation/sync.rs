//! `SyncSessions`: what lives on each side, and how what lives on one side only stands on the other.
//!
//! The roles in all messages are those of the caller's cluster.

use crate::{
    domain::{
        agreement::{BUCKETS, Digest, Digests, IDS_AT_ONCE, Theirs},
        ids::SessionId,
        session::Role,
    },
    wire::{
        federation::login::{from_end_reason, to_end_reason},
        malformed::{self, Malformed},
        pb,
    },
};

/// Sessions of one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// The caller's.
    pub role: Role,
    /// In ascending order.
    pub ids: Vec<SessionId>,
    /// Of what lives: whether there are no more.
    pub last: bool,
}

/// One step of the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// What lives on its side.
    Begin(Box<Digests>),
    /// How do these stand?
    Query(Ids),
    /// These have ended on its side, as it was told.
    Settled(Ids),
}

/// One step of the called side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// What lives on its side.
    Begin(Box<Digests>),
    /// What lives there of the buckets that differ.
    Living(Ids),
    /// How what was asked for stands.
    Answers(Role, Vec<Theirs>),
}

impl From<&Asked> for pb::SyncSessionsRequest {
    fn from(asked: &Asked) -> Self {
        use pb::sync_sessions_request::Step;
        let step = match asked {
            Asked::Begin(digests) => Step::Begin(write_digests(digests)),
            Asked::Query(ids) => Step::Query(write_ids(ids)),
            Asked::Settled(ids) => Step::Settled(write_ids(ids)),
        };
        Self { step: Some(step) }
    }
}

impl TryFrom<pb::SyncSessionsRequest> for Asked {
    type Error = Malformed;

    fn try_from(message: pb::SyncSessionsRequest) -> Result<Self, Malformed> {
        use pb::sync_sessions_request::Step;
        match malformed::required("step", message.step)? {
            Step::Begin(digests) => Ok(Self::Begin(Box::new(read_digests(digests)?))),
            Step::Query(ids) => {
                let ids = read_ids("query.role", "query.ids", ids)?;
                if ids.ids.is_empty() {
                    return Err(Malformed::new("query.ids", "1 entry at least"));
                }
                Ok(Self::Query(ids))
            }
            Step::Settled(ids) => read_ids("settled.role", "settled.ids", ids).map(Self::Settled),
        }
    }
}

impl From<&Told> for pb::SyncSessionsResponse {
    fn from(told: &Told) -> Self {
        use pb::sync_sessions_response::Step;
        let step = match told {
            Told::Begin(digests) => Step::Begin(write_digests(digests)),
            Told::Living(ids) => Step::Living(write_ids(ids)),
            Told::Answers(role, answers) => Step::Answers(pb::SessionAnswers {
                role: from_role(*role).into(),
                answers: answers.iter().map(write_answer).collect(),
            }),
        };
        Self { step: Some(step) }
    }
}

impl TryFrom<pb::SyncSessionsResponse> for Told {
    type Error = Malformed;

    fn try_from(message: pb::SyncSessionsResponse) -> Result<Self, Malformed> {
        use pb::sync_sessions_response::Step;
        match malformed::required("step", message.step)? {
            Step::Begin(digests) => Ok(Self::Begin(Box::new(read_digests(digests)?))),
            Step::Living(ids) => read_ids("living.role", "living.ids", ids).map(Self::Living),
            Step::Answers(answers) => {
                let role = to_role("answers.role", answers.role)?;
                let answers =
                    malformed::list("answers.answers", answers.answers, IDS_AT_ONCE, |answer| {
                        read_answer(&answer)
                    })?;
                Ok(Self::Answers(role, answers))
            }
        }
    }
}

fn write_digests(digests: &Digests) -> pb::SessionDigests {
    let write = |role| {
        let digest = digests.of(role);
        pb::SessionDigest {
            role: from_role(role).into(),
            sums: digest.sums.to_vec(),
            counts: digest.counts.to_vec(),
        }
    };
    pb::SessionDigests {
        digests: vec![write(Role::Home), write(Role::Visiting)],
    }
}

fn read_digests(message: pb::SessionDigests) -> Result<Digests, Malformed> {
    let both = <[pb::SessionDigest; 2]>::try_from(message.digests);
    let wrong = || Malformed::new("begin.digests", "one for HOME, then one for VISITING");
    let [home, visiting] = both.map_err(|_| wrong())?;
    let role = |digest: &pb::SessionDigest| to_role("begin.digests.role", digest.role);
    if (role(&home)?, role(&visiting)?) != (Role::Home, Role::Visiting) {
        return Err(wrong());
    }
    Ok(Digests {
        home: read_digest(home)?,
        visiting: read_digest(visiting)?,
    })
}

fn read_digest(message: pb::SessionDigest) -> Result<Digest, Malformed> {
    let entries = || format!("{BUCKETS} entries");
    let sums = <[u64; BUCKETS]>::try_from(message.sums);
    let counts = <[u32; BUCKETS]>::try_from(message.counts);
    Ok(Digest {
        sums: sums.map_err(|_| Malformed::new("begin.digests.sums", entries()))?,
        counts: counts.map_err(|_| Malformed::new("begin.digests.counts", entries()))?,
    })
}

fn write_ids(ids: &Ids) -> pb::SessionIds {
    let bytes = ids.ids.iter().map(|id| id.as_bytes().to_vec());
    pb::SessionIds {
        role: from_role(ids.role).into(),
        ids: bytes.collect(),
        last: ids.last,
    }
}

fn read_ids(
    role: &'static str,
    field: &'static str,
    message: pb::SessionIds,
) -> Result<Ids, Malformed> {
    let role = to_role(role, message.role)?;
    let ids = malformed::list(field, message.ids, IDS_AT_ONCE, |id| {
        malformed::session_id(field, &id)
    })?;
    if !ids
        .iter()
        .zip(ids.iter().skip(1))
        .all(|(one, next)| one < next)
    {
        return Err(Malformed::new(field, "in ascending order, each once"));
    }
    Ok(Ids {
        role,
        ids,
        last: message.last,
    })
}

const fn from_role(role: Role) -> pb::SessionRole {
    match role {
        Role::Home => pb::SessionRole::Home,
        Role::Visiting => pb::SessionRole::Visiting,
    }
}

/// It says whose rows are meant: guessing could end the wrong ones.
fn to_role(field: &'static str, role: i32) -> Result<Role, Malformed> {
    match pb::SessionRole::try_from(role) {
        Ok(pb::SessionRole::Home) => Ok(Role::Home),
        Ok(pb::SessionRole::Visiting) => Ok(Role::Visiting),
        Ok(pb::SessionRole::Unspecified) | Err(_) => Err(Malformed::new(field, "HOME or VISITING")),
    }
}

fn write_answer(answer: &Theirs) -> pb::SessionAnswer {
    let (standing, reason) = match answer {
        Theirs::Living => (pb::Standing::Living, pb::EndReason::Unspecified),
        Theirs::Ended(reason) => (pb::Standing::Ended, from_end_reason(*reason)),
        Theirs::Lacks => (pb::Standing::Lacks, pb::EndReason::Unspecified),
    };
    pb::SessionAnswer {
        standing: standing.into(),
        reason: reason.into(),
    }
}

/// Rows end by it: what is not known is refused and never guessed.
fn read_answer(message: &pb::SessionAnswer) -> Result<Theirs, Malformed> {
    match pb::Standing::try_from(message.standing) {
        Ok(pb::Standing::Living) => Ok(Theirs::Living),
        Ok(pb::Standing::Ended) => Ok(Theirs::Ended(to_end_reason(message.reason))),
        Ok(pb::Standing::Lacks) => Ok(Theirs::Lacks),
        Ok(pb::Standing::Unspecified) | Err(_) => Err(Malformed::new(
            "answers.answers.standing",
            "LIVING, ENDED or LACKS",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::session::EndReason;

    fn id(n: u16) -> SessionId {
        let mut bytes = [0u8; 16];
        bytes[14..].copy_from_slice(&n.to_be_bytes());
        SessionId::from_bytes(&bytes).unwrap()
    }

    fn ids(ids: impl IntoIterator<Item = u16>) -> Ids {
        Ids {
            role: Role::Visiting,
            ids: ids.into_iter().map(id).collect(),
            last: true,
        }
    }

    fn digests() -> Box<Digests> {
        let mut digests = Digests::default();
        (0..40).for_each(|n| digests.home.add(id(n)));
        (10..15).for_each(|n| digests.visiting.add(id(n)));
        Box::new(digests)
    }

    #[test]
    fn every_step_comes_back_as_it_was_sent() {
        let most = u16::try_from(IDS_AT_ONCE).unwrap();
        for step in [
            Asked::Begin(digests()),
            Asked::Query(ids(0..most)),
            Asked::Settled(ids([3, 5])),
        ] {
            let message = pb::SyncSessionsRequest::from(&step);
            assert_eq!(Asked::try_from(message).unwrap(), step);
        }
        let ended = EndReason::WORDS
            .iter()
            .map(|(reason, _)| Theirs::Ended(*reason));
        let answers = [Theirs::Living, Theirs::Lacks].into_iter().chain(ended);
        for step in [
            Told::Begin(digests()),
            Told::Living(ids([])),
            Told::Living(ids(0..most)),
            Told::Answers(Role::Home, answers.collect()),
        ] {
            let message = pb::SyncSessionsResponse::from(&step);
            assert_eq!(Told::try_from(message).unwrap(), step);
        }
    }

    #[test]
    fn a_full_message_is_within_the_bounds_of_both_sides() {
        use prost::Message as _;
        let most = u16::try_from(IDS_AT_ONCE).unwrap();
        let query = pb::SyncSessionsRequest::from(&Asked::Query(ids(0..most)));
        assert!(query.encoded_len() < 20 * 1024, "{}", query.encoded_len());
        let begin = pb::SyncSessionsRequest::from(&Asked::Begin(digests()));
        assert!(begin.encoded_len() < 8 * 1024, "{}", begin.encoded_len());
    }

    #[test]
    fn what_breaks_a_bound_is_refused_by_its_field() {
        fn query(
            change: impl FnOnce(&mut pb::SessionIds),
        ) -> Option<pb::sync_sessions_request::Step> {
            let mut ids = write_ids(&ids([3, 5]));
            change(&mut ids);
            Some(pb::sync_sessions_request::Step::Query(ids))
        }
        fn begin(
            change: impl FnOnce(&mut pb::SessionDigests),
        ) -> Option<pb::sync_sessions_request::Step> {
            let mut all = write_digests(&digests());
            change(&mut all);
            Some(pb::sync_sessions_request::Step::Begin(all))
        }
        let broken = [
            ("step", None),
            ("query.role", query(|m| m.role = 0)),
            ("query.role", query(|m| m.role = 3)),
            ("query.ids", query(|m| m.ids.clear())),
            ("query.ids", query(|m| m.ids[1].truncate(15))),
            ("query.ids", query(|m| m.ids[1].push(0))),
            ("query.ids", query(|m| m.ids.reverse())),
            ("query.ids", query(|m| m.ids[1] = m.ids[0].clone())),
            ("query.ids", query(|m| m.ids = vec![vec![0; 16]; 1_025])),
            ("begin.digests", begin(|m| m.digests.clear())),
            ("begin.digests", begin(|m| m.digests.reverse())),
            (
                "begin.digests",
                begin(|m| m.digests.push(pb::SessionDigest::default())),
            ),
            ("begin.digests.role", begin(|m| m.digests[0].role = 9)),
            (
                "begin.digests.sums",
                begin(|m| m.digests[0].sums.truncate(255)),
            ),
            (
                "begin.digests.counts",
                begin(|m| m.digests[1].counts.push(1)),
            ),
        ];
        for (field, step) in broken {
            let malformed = Asked::try_from(pb::SyncSessionsRequest { step }).unwrap_err();
            assert_eq!(malformed.field, field);
        }
    }

    #[test]
    fn an_answer_that_is_not_understood_is_none() {
        for (standing, answers) in [(0, 1), (4, 1), (1, IDS_AT_ONCE + 1)] {
            let answer = pb::SessionAnswer {
                standing,
                reason: 1,
            };
            let message = pb::SyncSessionsResponse {
                step: Some(pb::sync_sessions_response::Step::Answers(
                    pb::SessionAnswers {
                        role: 1,
                        answers: vec![answer; answers],
                    },
                )),
            };
            assert!(Told::try_from(message).is_err(), "{standing}");
        }
        assert!(Told::try_from(pb::SyncSessionsResponse { step: None }).is_err());
        // An end is an end, whatever the reason.
        let odd = pb::SessionAnswer {
            standing: 2,
            reason: 77,
        };
        assert_eq!(read_answer(&odd), Ok(Theirs::Ended(EndReason::Abandoned)));
    }
}
