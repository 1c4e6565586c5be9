//! How well-known protobuf types go into JSON: as people read them.

use serde::Serializer;

/// A timestamp as RFC 3339 in UTC with milliseconds, or null.
///
/// # Errors
/// Whatever the serializer says.
pub fn timestamp<S: Serializer>(
    value: &Option<prost_types::Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(&super::time::timestamp_from(value)),
        None => serializer.serialize_none(),
    }
}

/// A length in seconds, with fractions, or null.
///
/// # Errors
/// Whatever the serializer says.
pub fn duration<S: Serializer>(
    value: &Option<prost_types::Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.serialize_f64(super::time::duration_from(value).as_secs_f64()),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(
        write: impl FnOnce(&mut serde_json::Serializer<&mut Vec<u8>>) -> serde_json::Result<()>,
    ) -> String {
        let mut bytes = Vec::new();
        write(&mut serde_json::Serializer::new(&mut bytes)).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn times_are_readable_and_absent_ones_are_null() {
        let at = Some(prost_types::Timestamp {
            seconds: 1,
            nanos: 500_000_000,
        });
        assert_eq!(json(|s| timestamp(&at, s)), "\"1970-01-01T00:00:01.500Z\"");
        assert_eq!(json(|s| timestamp(&None, s)), "null");
        let length = Some(prost_types::Duration {
            seconds: 2,
            nanos: 500_000_000,
        });
        assert_eq!(json(|s| duration(&length, s)), "2.5");
        assert_eq!(json(|s| duration(&None, s)), "null");
    }
}
