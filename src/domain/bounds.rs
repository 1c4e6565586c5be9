//! How long and how many things may be: what a file of data may hold is what the wire can carry, and the largest
//! answer fits into a message. Pure.

/// Call-control servers of a device pool, and TFTP servers.
pub const SERVERS: usize = 64;
/// Lines of a device profile. A phone with every key module has some hundred buttons.
pub const LINES: usize = 256;
/// Bytes of a text: a host, a number, a label, a locale.
pub const TEXT_BYTES: usize = 255;
/// Phone services that a profile or a phone is subscribed to.
pub const SERVICES: usize = 64;
/// Bytes of a phone service's address: what phones take.
pub const URL_BYTES: usize = 256;
/// Bytes of the reason why a phone must restart.
pub const REASON_BYTES: usize = 512;
/// The last priority of a call-control group; 0 is the first.
pub const PRIORITY: u8 = 4;
/// Bytes of a phone's model.
pub const MODEL_BYTES: usize = 64;
/// Bytes of a phone's protocol.
pub const PROTOCOL_BYTES: usize = 16;
/// Fields of a civic address.
pub const GEOLOCATION_FIELDS: usize = 24;
/// Bytes of a civic field's name, and of its value.
pub const GEOLOCATION_BYTES: usize = 64;
/// Sessions that one login may supersede.
pub const SUPERSEDES: usize = 64;

/// Whether a text is one line of at most `max` bytes; it may be empty.
#[must_use]
pub fn is_line(text: &str, max: usize) -> bool {
    text.len() <= max && !text.chars().any(char::is_control)
}
