//! The role that owns phones.

pub mod types;

pub use types::{Caller, Failure, LoggedIn, LoggedOut, PhoneLogin, PhoneState};
