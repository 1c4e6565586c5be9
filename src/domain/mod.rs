//! Rules and vocabulary. Pure and silent: no clock, socket, file or random source; it returns reasons, others
//! log them.

pub mod address;
pub mod address_list;
pub mod announcement;
pub mod bounds;
pub mod capability;
pub mod em_code;
pub mod federation;
pub mod geolocation;
pub mod ids;
pub mod liveness;
pub mod locate;
pub mod login;
pub mod multiple_login;
pub mod pairing;
pub mod parameters;
pub mod phase;
pub mod policy;
pub mod purpose;
pub mod refs;
pub mod refusal;
pub mod rejection;
pub mod restart;
pub mod security;
pub mod session;
pub mod version;
