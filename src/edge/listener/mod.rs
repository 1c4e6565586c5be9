//! The doors: accept loops that end TLS themselves, so that identity and trust can change between handshakes.
//!
//! A federation connection is identified once its handshake is done and again on every new trust snapshot; it
//! ends when the judgement changes, when its certificate does, or when the node does. Whoever is not
//! identified gets one answer, the reason, and never reaches a role.
//!
//! Everything a stranger can cause is bounded: connections that are not past their handshake, those that are, their
//! time, headers, streams, log lines. So is what a peer can cause, that no broken one takes the places of the others.

mod accept;
mod call;
mod caller;
mod federation;
mod http;
mod joining;
mod limits;
mod received;
mod share;
mod turned;
mod waste;

pub(in crate::edge) use self::{
    accept::{PAUSE_AFTER_ERROR, concerns_one_connection},
    call::grpc_timeout,
    limits::MAX_CALL,
    share::{Share, Shares},
};
pub use self::{
    caller::{ConnIdentity, Introduced, Leaving},
    federation::{Comer, Door, Line, serve_federation},
    http::serve_http,
    joining::{JoiningDoor, Stranger},
    limits::{Config, Places},
    turned::{Bound, TurnedAway},
};

#[cfg(test)]
mod tests;
