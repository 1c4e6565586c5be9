//! A whole federation on simulated time, without threads, sockets or files: what happens follows from a seed alone.
//!
//! A [`plan`] is drawn up from the seed: who logs in where, and what breaks when. The [`net`] and the disks
//! (`store::inline`) break accordingly. Afterwards the [`checker`] holds what the clusters have on record against a
//! [`model`] that has seen only what phones and operators were told.

pub(crate) mod checker;
pub(crate) mod model;
pub(crate) mod net;
pub(crate) mod plan;
pub(crate) mod shrink;
pub(crate) mod tap;
