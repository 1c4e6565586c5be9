//! The admin service on a Unix socket: what operators ask of a running node.

mod account;
pub mod roles;
pub mod socket;
