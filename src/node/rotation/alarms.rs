//! Which of this node's rotations need a person, for figures.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::domain::{purpose::Purpose, rotation::alarms::Reason};

/// As the driver has found last.
#[derive(Debug, Default)]
pub(in crate::node) struct RotationAlarms(Mutex<BTreeMap<(Purpose, Reason), u64>>);

impl RotationAlarms {
    /// All of them: for each identity and reason how many peers, or one.
    pub(in crate::node) fn all(&self) -> BTreeMap<(Purpose, Reason), u64> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.clone()
    }

    /// What holds up the rotation of that purpose takes the place of what did before; what the calendar says stays.
    pub(super) fn set(&self, purpose: Purpose, found: BTreeMap<Reason, u64>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_calendar = [Reason::Authority, Reason::Next];
        all.retain(|(of, reason), _| *of != purpose || of_calendar.contains(reason));
        all.extend(
            found
                .into_iter()
                .map(|(reason, count)| ((purpose, reason), count)),
        );
    }

    /// Whether an authority has to make the next one.
    pub(super) fn set_authority(&self, purpose: Purpose, is_asked: bool) {
        self.by_calendar(purpose, Reason::Authority, is_asked);
    }

    /// Whether the last exchange is in the way of the next one.
    pub(super) fn set_next(&self, purpose: Purpose, is_held_up: bool) {
        self.by_calendar(purpose, Reason::Next, is_held_up);
    }

    fn by_calendar(&self, purpose: Purpose, reason: Reason, is_so: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_so {
            all.insert((purpose, reason), 1);
        } else {
            all.remove(&(purpose, reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_no_alarm_any_more() {
        let alarms = RotationAlarms::default();
        alarms.set_authority(Purpose::Federation, true);
        let found = BTreeMap::from([(Reason::Manual, 2), (Reason::Problem, 1)]);
        alarms.set(Purpose::Federation, found);
        assert_eq!(alarms.all().len(), 3);
        alarms.set(Purpose::Phone, BTreeMap::new());
        alarms.set(Purpose::Federation, BTreeMap::from([(Reason::Silent, 1)]));
        let left: Vec<_> = alarms.all().into_keys().map(|(_, reason)| reason).collect();
        assert_eq!(left, [Reason::Authority, Reason::Silent]);
        alarms.set_authority(Purpose::Federation, false);
        alarms.set(Purpose::Federation, BTreeMap::new());
        assert!(alarms.all().is_empty());
    }
}
