//! Everything that accepts a connection: decode, call a role, encode.

pub mod phone;
