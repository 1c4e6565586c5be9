//! Everything that is proven over real sockets, real TLS and real databases: one binary, a module per topic.
//!
//! The networks are the lab's. Each test has its own, in its own folder, on its own ports.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is the report"
)]

mod support;

mod admission;
mod agreement;
mod announce;
mod answers;
mod backup;
mod bulk;
mod carried;
mod chaos;
mod clock;
mod codes;
mod crash;
mod disk;
mod doctor;
mod ends;
mod faults;
mod formats;
mod ghost;
mod guessing;
mod handover;
mod hostile;
mod imports;
mod key_stores;
mod lab;
mod liveness;
mod metrics;
mod nodes;
mod pairing;
mod parameters;
mod peers;
mod people;
mod plain;
mod program;
mod python_client;
mod readme;
mod rotation;
mod secrets;
mod silence;
mod tomcat;
mod trust;
mod versions;
