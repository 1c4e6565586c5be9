//! emccd: the open federation daemon for Extension Mobility Cross Cluster.
//!
//! The modules stand in rows; a module names only rows below its own (`tests/architecture.rs` holds this).

pub mod edge;

pub mod peer;

pub mod trust;

pub mod store;
pub mod wire;

pub mod domain;

pub mod clock;
pub mod fault;
pub mod secret;
pub mod tasks;
