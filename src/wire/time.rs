//! Times and lengths between protobuf and our own types. Total: what is out of range is brought into it.

use std::time::Duration;

use crate::clock::Timestamp;

/// A wall-clock time for the wire.
#[must_use]
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let millis = at.as_millis();
    prost_types::Timestamp {
        seconds: millis.div_euclid(1_000),
        nanos: i32::try_from(millis.rem_euclid(1_000) * 1_000_000).unwrap_or(0),
    }
}

/// A wall-clock time from the wire, to the millisecond.
#[must_use]
pub fn timestamp_from(at: &prost_types::Timestamp) -> Timestamp {
    let millis = at.seconds.saturating_mul(1_000);
    Timestamp::from_millis(millis.saturating_add(i64::from(at.nanos / 1_000_000)))
}

/// A length for the wire.
#[must_use]
pub fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(length.subsec_nanos()).unwrap_or(0),
    }
}

/// A length from the wire; a negative one is zero.
#[must_use]
pub fn duration_from(length: &prost_types::Duration) -> Duration {
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(length.seconds), u32::try_from(length.nanos))
    else {
        return Duration::ZERO;
    };
    Duration::new(seconds, nanos.min(999_999_999))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_survives_the_way(millis in -4_000_000_000_000i64..4_000_000_000_000) {
            let at = Timestamp::from_millis(millis);
            prop_assert_eq!(timestamp_from(&timestamp(at)), at);
        }

        #[test]
        fn a_length_survives_the_way(seconds in 0u64..=i64::MAX as u64, nanos in 0u32..1_000_000_000) {
            let length = Duration::new(seconds, nanos);
            prop_assert_eq!(duration_from(&duration(length)), length);
        }

        #[test]
        fn nothing_from_the_wire_panics(seconds: i64, nanos: i32) {
            let _ = timestamp_from(&prost_types::Timestamp { seconds, nanos }).to_string();
            let _ = duration_from(&prost_types::Duration { seconds, nanos });
        }
    }

    #[test]
    fn a_negative_length_is_none() {
        let length = prost_types::Duration {
            seconds: -1,
            nanos: 0,
        };
        assert_eq!(duration_from(&length), Duration::ZERO);
    }
}
