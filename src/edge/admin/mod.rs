//! The admin service on a Unix socket: what operators ask of a running node.
//!
//! The caller is who the socket says it is; its Unix groups give it roles, and each call names the role that
//! it needs. Records are read and written here; what reaches beyond the database goes through
//! [`operations::Operations`]. It works with every certificate expired: this is how they are replaced.

mod acceptance;
mod account;
pub mod crls;
mod debts;
mod directory;
pub mod error;
pub mod explain;
pub mod export;
mod import;
pub mod operations;
mod other_nodes;
mod pairings;
mod parameters;
mod peer_changes;
pub mod peers;
mod pins;
pub mod policies;
mod records;
mod removals;
pub mod roles;
mod rotation;
pub mod rotation_next;
mod serve;
mod service;
mod sessions;
pub mod socket;
mod trust_bulk;
mod trust_removal;
pub mod views;

pub use self::{serve::serve, service::AdminEdge};
