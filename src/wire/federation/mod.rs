//! The messages between clusters as values of the domain, and back.
//!
//! What is decoded is checked and bounded: a value that comes out of here keeps every rule of the contract.

mod announce;
mod link;
mod login;
mod services;
mod sync;

pub use announce::{
    decode_acknowledgement, decode_announcement, encode_acknowledgement, encode_announcement,
};
pub use link::{Beat, Hello};
pub use login::{decode_find, decode_login, encode_find, encode_login};
pub use sync::{Asked, Ids, Told};

/// The largest answer of a peer, in bytes: the bounds of all fields of a login's answer fit into it.
pub const MAX_ANSWER_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests;
