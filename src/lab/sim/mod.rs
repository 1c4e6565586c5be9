//! A whole federation on simulated time, without threads, sockets or files: what happens follows from a seed alone.
//!
//! A [`plan`] is drawn up from the seed: who logs in where, and what breaks when. The [`net`] and the disks
//! (`store::inline`) break accordingly, and the [`driver`] has everybody do their part. Afterwards the [`checker`] holds
//! what the clusters have on record against a [`model`] that has seen only what phones and operators were told.
//!
//! A seed that fails is printed with its plan, and is run again by
//! `EMCCD_SIM_SEED=n cargo test --lib sim::seeds::replay -- --nocapture`.

pub(crate) mod checker;
pub(crate) mod doors;
pub(crate) mod driver;
pub(crate) mod model;
pub(crate) mod net;
pub(crate) mod panics;
pub(crate) mod plan;
pub(crate) mod shrink;
pub(crate) mod stage;
pub(crate) mod tap;

mod seeds;
