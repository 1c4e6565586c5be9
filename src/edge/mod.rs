//! Everything that accepts a connection: decode, call a role, encode.

pub mod admin;
pub mod federation;
pub mod join;
pub mod listener;
pub mod metrics;
pub mod phone;
