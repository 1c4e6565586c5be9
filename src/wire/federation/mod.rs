//! The messages between clusters as values of the domain, and back.
//!
//! What is decoded is checked and bounded: a value that comes out of here keeps every rule of the contract.

mod link;
mod login;
mod services;

pub use link::{Beat, Hello};
pub use login::{decode_find, decode_login, encode_find, encode_login};

#[cfg(test)]
mod tests;
