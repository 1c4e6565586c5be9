//! Commands: run the daemon, or talk to one.

pub mod args;
pub mod failure;
pub mod output;
