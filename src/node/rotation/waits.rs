//! When a peer is told again, and which certificate it is dialled with that refuses the one it should know. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    domain::{
        accepted::Accepted,
        ids::ClusterId,
        purpose::Purpose,
        rotation::{Name, Outcome},
    },
    peer::backoff::Backoff,
};

/// When a peer is told again that could not be.
const AGAIN: Duration = Duration::from_secs(3);
/// When one is told again at the latest that has not agreed.
const AGAIN_AT_LAST: Duration = Duration::from_secs(300);

/// A peer that is told, and under which number.
pub(super) type Telling = (Name, ClusterId, u64);

/// What a peer accepts from us, as it told last.
pub(super) type Mirror = Option<Arc<[Accepted]>>;

/// When each peer is told.
#[derive(Debug, Default)]
pub(super) struct Tellings(BTreeMap<Telling, Turn>);

#[derive(Debug)]
struct Turn {
    /// None while it is being told.
    at: Option<Instant>,
    backoff: Backoff,
    mirror: Mirror,
}

impl Tellings {
    /// Forgets all that are not to be told any more.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<Telling>) {
        self.0.retain(|key, _| wanted.contains(key));
    }

    /// Whether it is to be told now; then it is being told. One whose list has changed since is told at once: its operator
    /// may have agreed.
    pub(super) fn begin(&mut self, key: Telling, mirror: &Mirror, now: Instant) -> bool {
        let turn = self.0.entry(key).or_insert_with(|| Turn {
            at: Some(now),
            backoff: Backoff::new(AGAIN_AT_LAST),
            mirror: mirror.clone(),
        });
        let is_due = turn
            .at
            .is_some_and(|at| at <= now || turn.mirror != *mirror);
        if is_due {
            turn.at = None;
            turn.mirror.clone_from(mirror);
        }
        is_due
    }

    /// It has answered, or could not be told. Who has not agreed is asked ever more rarely.
    pub(super) fn answered(
        &mut self,
        key: &Telling,
        outcome: Option<Outcome>,
        now: Instant,
        random: u32,
    ) {
        let Some(turn) = self.0.get_mut(key) else {
            return;
        };
        let wait = match outcome {
            Some(Outcome::Waiting | Outcome::Refused) => turn.backoff.next_delay(random).max(AGAIN),
            _ => {
                turn.backoff.reset();
                AGAIN
            }
        };
        turn.at = Some(now + wait);
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().filter_map(|turn| turn.at).min()
    }
}

/// How long a certificate is tried before the other one is, at least.
const TRIED: Duration = Duration::from_secs(2);

/// The peers that refuse what the record has them shown.
#[derive(Debug, Default)]
pub(super) struct Turned(BTreeMap<(Purpose, ClusterId), Other>);

#[derive(Debug)]
struct Other {
    is_turned: bool,
    not_before: Instant,
    backoff: Backoff,
}

impl Turned {
    /// It says that it does not know what it is shown: the other one is tried, the more rarely the longer neither is known.
    pub(super) fn refused(
        &mut self,
        purpose: Purpose,
        cluster: &ClusterId,
        now: Instant,
        random: u32,
    ) {
        let other = self.0.entry((purpose, cluster.clone())).or_insert(Other {
            is_turned: false,
            not_before: now,
            backoff: Backoff::new(AGAIN_AT_LAST),
        });
        if other.not_before <= now {
            other.is_turned = !other.is_turned;
            other.not_before = now + other.backoff.next_delay(random).max(TRIED);
        }
    }

    /// What is on record holds for it again.
    pub(super) fn forgive(&mut self, purpose: Purpose, cluster: &ClusterId) {
        if let Some(other) = self.0.get_mut(&(purpose, cluster.clone())) {
            other.is_turned = false;
        }
    }

    /// There is only one certificate.
    pub(super) fn forget(&mut self, purpose: Purpose) {
        self.0.retain(|(of, _), _| *of != purpose);
    }

    pub(super) fn of(&self, purpose: Purpose) -> BTreeSet<ClusterId> {
        let turned = self.0.iter();
        let turned = turned.filter(|((of, _), other)| *of == purpose && other.is_turned);
        turned.map(|((_, cluster), _)| cluster.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::accepted::AcceptedKind;

    fn id(text: &str) -> ClusterId {
        ClusterId::new(text).unwrap()
    }

    #[test]
    fn who_does_not_agree_is_asked_ever_more_rarely_until_its_list_changes() {
        let name = Name {
            node: "n1".to_owned(),
            purpose: Purpose::Federation,
        };
        let key: Telling = (name, id("tokyo"), 7);
        let (mut tellings, mut now) = (Tellings::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..20 {
            assert!(tellings.begin(key.clone(), &None, now));
            // Until it has answered it is not told again.
            assert!(!tellings.begin(key.clone(), &None, now + AGAIN_AT_LAST));
            tellings.answered(&key, Some(Outcome::Waiting), now, u32::MAX);
            let next = tellings.next().unwrap();
            assert!(!tellings.begin(key.clone(), &None, next - Duration::from_millis(1)));
            pauses.push(next - now);
            now = next;
        }
        assert_eq!(pauses.first(), Some(&AGAIN));
        assert_eq!(pauses.last(), Some(&AGAIN_AT_LAST));
        assert!(pauses.is_sorted());
        // Its operator has agreed.
        assert!(tellings.begin(key.clone(), &None, now));
        tellings.answered(&key, Some(Outcome::Waiting), now, u32::MAX);
        let pinned = Accepted {
            fingerprint: [1; 32],
            kind: AcceptedKind::Pinned,
            until: None,
        };
        let list: Mirror = Some(Arc::from([pinned]));
        assert!(tellings.begin(key.clone(), &list, now));
        // One that could not be told is told soon.
        tellings.answered(&key, None, now, u32::MAX);
        assert_eq!(tellings.next(), Some(now + AGAIN));
        tellings.keep(&BTreeSet::new());
        assert_eq!(tellings.next(), None);
    }

    #[test]
    fn who_knows_neither_certificate_is_not_tried_without_a_pause() {
        let (of, tokyo) = (Purpose::Federation, id("tokyo"));
        let (mut turned, mut now) = (Turned::default(), Instant::now());
        let (mut turns, began) = (0, now);
        while now < began + Duration::from_secs(3_600) {
            let before = turned.of(of).contains(&tokyo);
            turned.refused(of, &tokyo, now, 0);
            turns += u32::from(turned.of(of).contains(&tokyo) != before);
            now += Duration::from_millis(100);
        }
        assert!((10..60).contains(&turns), "{turns}");
        assert!(turned.of(Purpose::FederationClient).is_empty());
        turned.forget(of);
        turned.refused(of, &tokyo, now, 0);
        assert_eq!(turned.of(of), BTreeSet::from([tokyo.clone()]));
        turned.forgive(of, &tokyo);
        assert!(turned.of(of).is_empty());
    }
}
