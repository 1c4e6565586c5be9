//! Two nodes in one process: real sockets, real TLS, the real listener, and a fake home behind each.

mod calls;
mod links;
mod nodes;
mod probe;
mod rig;
mod sync;
