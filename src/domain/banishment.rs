//! When a peer that has taken back what it accepted from us has said so for long enough: the sessions that are shared
//! with it are over there, and end here too. Pure: what is heard and the time are handed in.

use std::time::{Duration, Instant};

/// For how long a peer must say nothing but "revoked".
pub const AFTER: Duration = Duration::from_secs(300);

/// How far two hearings may lie apart. Whoever did not listen for longer (a process that stood still) does not know what
/// was said meanwhile, and begins anew.
pub const HEARD_WITHIN: Duration = Duration::from_secs(30);

/// What is heard of a peer at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It refuses our certificate as revoked, over connections whose other end we have accepted as the peer's; none of
    /// its nodes says otherwise.
    Revoked,
    /// Something else, or nothing.
    Other,
    /// There is a link, in one direction or the other.
    Linked,
}

/// One peer, as it is listened to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Watch {
    /// Notes what is heard; whether the peer has said nothing but "revoked" for long enough.
    pub fn heard(&mut self, heard: Heard, now: Instant) -> bool {
        let listened = self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) <= HEARD_WITHIN);
        self.last = Some(now);
        self.since = match heard {
            Heard::Other | Heard::Linked => None,
            Heard::Revoked => self.since.filter(|_| listened).or(Some(now)),
        };
        self.since
            .is_some_and(|since| now.saturating_duration_since(since) >= AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Listens every 5 s; after how many seconds it is enough.
    fn enough(says: impl Fn(u64) -> Option<Heard>, until: u64) -> Option<u64> {
        let (begin, mut watch) = (Instant::now(), Watch::default());
        (0..=until).step_by(5).find(|second| {
            let now = begin + Duration::from_secs(*second);
            says(*second).is_some_and(|heard| watch.heard(heard, now))
        })
    }

    #[test]
    fn five_minutes_of_nothing_but_revoked_are_enough() {
        assert_eq!(enough(|_| Some(Heard::Revoked), 900), Some(300));
        assert_eq!(enough(|_| Some(Heard::Other), 900), None);
        assert_eq!(enough(|_| Some(Heard::Linked), 900), None);
    }

    #[test]
    fn any_other_word_or_a_link_begins_the_time_anew() {
        for between in [Heard::Other, Heard::Linked] {
            let says = |second| {
                Some(match second {
                    295 => between,
                    _ => Heard::Revoked,
                })
            };
            assert_eq!(enough(says, 900), Some(600), "{between:?}");
        }
    }

    #[test]
    fn who_did_not_listen_does_not_know_what_was_said_meanwhile() {
        let stood_still = |second| (!(100..140).contains(&second)).then_some(Heard::Revoked);
        assert_eq!(enough(stood_still, 900), Some(440));
        let for_a_moment = |second| (!(100..125).contains(&second)).then_some(Heard::Revoked);
        assert_eq!(enough(for_a_moment, 900), Some(300));
    }
}
