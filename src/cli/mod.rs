//! Commands: run the daemon, or talk to one.

pub mod init;
