//! Values that must never be seen: they cannot be printed, serialised or compared with `==`, and they
//! are wiped when dropped.

use std::fmt;

use zeroize::Zeroizing;

/// Bytes or text that must not leave memory by accident.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one call that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A PIN as typed: at most [`Pin::MAX_BYTES`] bytes, not empty, no control characters.
///
/// It is in memory only while it is being checked.
#[derive(Clone)]
pub struct Pin(Zeroizing<String>);

/// Why a text is no PIN. It says nothing of the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Nothing was typed.
    #[error("the PIN is blank")]
    Blank,
    /// It holds a control character or is longer than [`Pin::MAX_BYTES`].
    #[error("the PIN is longer than {max} bytes or holds a control character", max = Pin::MAX_BYTES)]
    Malformed,
}

impl Pin {
    /// The wire's bound, in bytes. Policies are stricter.
    pub const MAX_BYTES: usize = 128;

    /// Takes a PIN as typed.
    ///
    /// # Errors
    /// [`PinError`] when it is blank or can't be one.
    pub fn new(text: String) -> Result<Self, PinError> {
        let text = Zeroizing::new(text);
        if text.trim().is_empty() {
            return Err(PinError::Blank);
        }
        if text.len() > Self::MAX_BYTES || text.chars().any(char::is_control) {
            return Err(PinError::Malformed);
        }
        Ok(Self(text))
    }

    /// The digits, for the hash and for the one home cluster.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_kind_can_be_printed() {
        let pin = Pin::new("48151623".to_owned()).unwrap();
        let secret = Secret::new(b"48151623".to_vec());
        assert!(!format!("{pin:?}{secret:?}").contains("4815"));
    }

    #[test]
    fn a_blank_or_broken_pin_is_refused() {
        assert_eq!(Pin::new("  ".to_owned()).unwrap_err(), PinError::Blank);
        assert_eq!(
            Pin::new("12\u{0}34".to_owned()).unwrap_err(),
            PinError::Malformed
        );
        assert_eq!(Pin::new("1".repeat(129)).unwrap_err(), PinError::Malformed);
    }
}
