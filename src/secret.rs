//! Values that must never be seen: they cannot be printed or serialised, PINs cannot be compared with `==`, and they
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

/// What stands in for a PIN once: made by home, good for one use on one phone, for a short time.
#[derive(Clone)]
pub struct Ticket(Zeroizing<[u8; 16]>);

impl Ticket {
    /// Its length as text: two hexadecimal digits a byte.
    pub const CHARS: usize = 32;

    /// A ticket of these random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The ticket that a text stands for; none where it stands for none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != Self::CHARS || !text.is_ascii() {
            return None;
        }
        let mut bytes = Zeroizing::new([0; 16]);
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |place: usize| char::from(*pair.get(place)?).to_digit(16);
            *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
        }
        Some(Self(bytes))
    }

    /// Its text, for the one page or message that carries it.
    #[must_use]
    pub fn expose(&self) -> String {
        use fmt::Write as _;
        self.0
            .iter()
            .fold(String::with_capacity(Self::CHARS), |mut text, byte| {
                // Writing into a string can't fail.
                let _ = write!(text, "{byte:02x}");
                text
            })
    }

    /// The bytes, for their hash: that is all that is ever stored of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(…)")
    }
}

/// For answers that are compared as a whole. It takes the same time wherever they differ.
impl PartialEq for Ticket {
    fn eq(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(other.0.iter());
        differing.fold(0, |all, (ours, theirs)| all | (ours ^ theirs)) == 0
    }
}

impl Eq for Ticket {}

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
    fn a_ticket_reads_back_from_its_text_and_is_not_printed() {
        let ticket = Ticket::from_bytes([0xA7; 16]);
        assert_eq!(ticket.expose(), "a7".repeat(16));
        assert_eq!(Ticket::parse(&ticket.expose()), Some(ticket.clone()));
        assert_ne!(ticket, Ticket::from_bytes([0xA6; 16]));
        assert!(!format!("{ticket:?}").contains("a7"));
        let long = "a7".repeat(17);
        for odd in [
            "",
            "a7",
            &long,
            &"+7".repeat(16),
            &"g7".repeat(16),
            &"ü".repeat(16),
        ] {
            assert_eq!(Ticket::parse(odd), None, "{odd}");
        }
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
