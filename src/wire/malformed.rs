//! What a message of the wire must keep to before it becomes a value of the domain.

use std::collections::BTreeMap;

use crate::domain::{
    bounds::is_line,
    em_code::EmCode,
    ids::{InvalidName, SessionId},
    refusal::Refusal,
};

/// A message that breaks the contract: which field, and the rule. It never repeats the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the field {field} must be {rule}")]
pub struct Malformed {
    /// The field, as it is called in the proto.
    pub field: &'static str,
    /// What it must be.
    pub rule: String,
}

impl Malformed {
    /// A broken rule.
    #[must_use]
    pub fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self {
            field,
            rule: rule.into(),
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::new(
            EmCode::ErrorOnParsing,
            format!("the request is malformed: {malformed}"),
        )
    }
}

/// A name of the domain.
pub(super) fn name<T>(field: &'static str, text: String) -> Result<T, Malformed>
where
    T: TryFrom<String, Error = InvalidName>,
{
    T::try_from(text).map_err(|invalid| Malformed::new(field, invalid.rule()))
}

/// A name of the domain, or none for the empty text.
pub(super) fn optional_name<T>(field: &'static str, text: String) -> Result<Option<T>, Malformed>
where
    T: TryFrom<String, Error = InvalidName>,
{
    if text.is_empty() {
        Ok(None)
    } else {
        name(field, text).map(Some)
    }
}

/// A text of at most `max` bytes without control characters; it may be empty.
pub(super) fn text(field: &'static str, text: String, max: usize) -> Result<String, Malformed> {
    if is_line(&text, max) {
        return Ok(text);
    }
    Err(Malformed::new(
        field,
        format!("at most {max} bytes of text without control characters"),
    ))
}

/// The same, and none for the empty text.
pub(super) fn optional_text(
    field: &'static str,
    value: String,
    max: usize,
) -> Result<Option<String>, Malformed> {
    Ok(Some(text(field, value, max)?).filter(|value| !value.is_empty()))
}

/// A message that must be there.
pub(super) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, Malformed> {
    value.ok_or_else(|| Malformed::new(field, "present"))
}

/// A list of at most `max` entries, each turned by `turn`.
pub(super) fn list<T, U>(
    field: &'static str,
    values: Vec<T>,
    max: usize,
    turn: impl FnMut(T) -> Result<U, Malformed>,
) -> Result<Vec<U>, Malformed> {
    if values.len() > max {
        return Err(Malformed::new(field, format!("at most {max} entries")));
    }
    values.into_iter().map(turn).collect()
}

/// A map of at most `max_entries` with keys and values of at most `max_bytes`.
pub(super) fn map(
    field: &'static str,
    values: BTreeMap<String, String>,
    max_entries: usize,
    max_bytes: usize,
) -> Result<BTreeMap<String, String>, Malformed> {
    if values.len() > max_entries {
        return Err(Malformed::new(
            field,
            format!("at most {max_entries} entries"),
        ));
    }
    for (key, value) in &values {
        if key.is_empty() || !is_line(key, max_bytes) || !is_line(value, max_bytes) {
            let rule = format!(
                "a map of names to texts of at most {max_bytes} bytes each without control characters"
            );
            return Err(Malformed::new(field, rule));
        }
    }
    Ok(values)
}

/// A session id.
pub(super) fn session_id(field: &'static str, bytes: &[u8]) -> Result<SessionId, Malformed> {
    SessionId::from_bytes(bytes).ok_or_else(|| Malformed::new(field, "a UUID of 16 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_em_code_1_and_repeats_nothing_of_the_value() {
        let malformed = text("device.model", "secret\n".to_owned(), 64).unwrap_err();
        let refusal = Refusal::from(malformed);
        assert_eq!(refusal.code, EmCode::ErrorOnParsing);
        assert!(refusal.cause.contains("device.model"), "{}", refusal.cause);
        assert!(!refusal.cause.contains("secret"), "{}", refusal.cause);
    }

    #[test]
    fn bounds_count_bytes_and_are_inclusive() {
        assert!(text("f", "ü".repeat(32), 64).is_ok());
        assert!(text("f", "ü".repeat(33), 64).is_err());
        assert_eq!(optional_text("f", String::new(), 64), Ok(None));
        assert!(list("f", vec![(); 64], 64, Ok).is_ok());
        assert!(list("f", vec![(); 65], 64, Ok).is_err());
    }
}
