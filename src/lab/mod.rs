//! Whole networks of clusters, and the phones in them, for tests and for the command line.

pub mod phone;
