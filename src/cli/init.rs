//! `emccd init`: the first files of a node. The making itself is in [`config::init`](crate::config::init), where
//! the lab can reach it too.

pub use crate::config::init::{
    Created, DEFAULT_PORT_BASE, Error, InitOptions, MAX_PORT_BASE, create,
};
