//! `pin` and `policy`: what can be typed about credential policies.

use clap::{ArgGroup, Args, Subcommand};

use crate::domain::ids::{PolicyName, UserId};

/// `pin`.
#[derive(Debug, Subcommand)]
pub enum Pin {
    /// Let a user who is locked out try again, with the PIN that they have
    #[command(
        after_help = "Wrong PINs counted so far are forgotten. A new PIN does the same: emccd user set anna --ask-pin\n\n\
        Example:\n  emccd pin unlock anna"
    )]
    Unlock {
        /// User ID
        #[arg(value_name = "USER")]
        user: UserId,
    },
}

/// `policy`.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Every policy; users who have none of their own have the one named default
    #[command(after_help = "Example:\n  emccd policy list")]
    List,
    /// One policy
    #[command(after_help = "Example:\n  emccd policy show default")]
    Show {
        /// Its name
        #[arg(value_name = "POLICY")]
        policy: PolicyName,
    },
    /// Add a policy
    Add(PolicyAdd),
    /// Change a policy, which counts from the next wrong PIN and for the next new one; what is not named stays
    Set(PolicySet),
    /// Remove a policy that no user has
    Remove(PolicyRemove),
}

/// `policy add` and `policy set`: what may be given.
#[derive(Debug, Args)]
pub struct PolicyFields {
    /// So many wrong PINs within the window lock a user out, 1 to 100; 0 never does
    #[arg(long, value_name = "N")]
    pub failures_before_lock: Option<u32>,
    /// The window in minutes, 1 to 120, which begins anew with each wrong PIN
    #[arg(long, value_name = "MINUTES")]
    pub failure_window: Option<u32>,
    /// How long a user stays locked out, in minutes, 1 to 1440
    #[arg(long, value_name = "MINUTES")]
    pub lock_duration: Option<u32>,
    /// The fewest digits of a new PIN, 4 to 20
    #[arg(long, value_name = "N")]
    pub min_length: Option<u32>,
    /// The most digits of a new PIN, up to 64
    #[arg(long, value_name = "N")]
    pub max_length: Option<u32>,
    /// Whether a new PIN is refused that is easy to guess
    #[arg(long, value_name = "BOOL")]
    pub trivial_check: Option<bool>,
}

/// `policy add`.
#[derive(Debug, Args)]
#[command(
    after_help = "What is not named is as built in: emccd policy show default, where nobody has changed it.\n\n\
    Examples:\n  emccd policy add kiosk --min-length 4 --failures-before-lock 3\n  emccd user set lobby --policy kiosk"
)]
pub struct PolicyAdd {
    /// Its name
    #[arg(value_name = "POLICY")]
    pub policy: PolicyName,
    /// What it says
    #[command(flatten)]
    pub fields: PolicyFields,
}

/// `policy set`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("change").required(true).multiple(true).args([
        "failures_before_lock", "failure_window", "lock_duration", "min_length", "max_length", "trivial_check",
    ]),
    after_help = "PINs that users have stay good, whatever it says.\n\n\
    Example:\n  emccd policy set default --failures-before-lock 3 --lock-duration 60"
)]
pub struct PolicySet {
    /// Its name
    #[arg(value_name = "POLICY")]
    pub policy: PolicyName,
    /// What it says then
    #[command(flatten)]
    pub fields: PolicyFields,
}

/// `policy remove`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  emccd policy remove kiosk")]
pub struct PolicyRemove {
    /// Its name
    #[arg(value_name = "POLICY")]
    pub policy: PolicyName,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}
