//! emccd: the open federation daemon for Extension Mobility Cross Cluster.
//!
//! The modules stand in rows; a module names only rows below its own (`tests/architecture.rs` holds this).
//! `docs/ARCHITECTURE.md` has the picture and the journeys; `node` is where everything is put together.

pub mod cli;

pub mod lab;

pub mod doctor;

pub mod node;

pub mod config;

pub mod edge;

pub mod visiting;

pub mod home;

pub mod apply;

pub mod credentials;
pub mod pairing;
pub mod peer;

pub mod admission;

pub mod trust;

pub mod store;
pub mod wire;

pub mod domain;

pub mod telemetry;

pub mod chance;

pub mod clock;
pub mod fault;
pub mod secret;
pub mod tasks;
pub mod watch;
