//! `kill -9` at every step of login and logout, and what must hold afterwards.
//!
//! Whatever was killed and wherever: a phone has one session, a base device one holder; what a phone was told
//! stands; nothing stays undecided beyond its deadline; what is owed is delivered; the user can log in again at
//! once. And a request that comes again with its id gets the answer that it had, or hears that it is over.

use std::time::Duration;

use emccd::{
    domain::{
        em_code::EmCode,
        refusal::Detail,
        session::{EndReason, Role, State},
    },
    lab::{
        Hosting, Lab, Spec,
        member::Versions,
        phone::{Phone, Shown},
    },
    wire::admin as pb,
};
use futures_util::future::join_all;
use tonic::Code;

use crate::support::{
    binary, holds, is_long, lab, nobody_panicked,
    raw_peer::{self, Client, call, peer_client},
    rows::{Rows, rows, settled, tamper},
    set_parameter, until,
};

mod commits;
pub(crate) mod kills;
mod repeats;
mod stage;

use stage::{OLD, Stage};

/// Long enough for a login on a busy machine, short enough to wait for.
const DEADLINE: Duration = Duration::from_secs(4);
/// How long a node may take to come to a point: a debug build on a busy machine.
const POINT_LIMIT: Duration = Duration::from_secs(30);
/// How much later than its deadline an undecided login may be gone: the sweep's second, and a busy machine's.
const SWEEP_SLACK: Duration = Duration::from_secs(6);

const HOME: usize = 0;
const VISITING: usize = 1;
