//! Everything that accepts a connection: decode, call a role, encode. Nothing is decided here.

pub mod federation;
pub mod listener;
