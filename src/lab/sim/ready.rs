//! What the clusters of a simulation can do: what they can't is not asked of them.

/// Whether sessions end whose time is over.
pub(crate) fn expires() -> bool {
    EXPIRES || all()
}

/// Whether clusters compare their sessions: without that a database of before is never brought up to date.
pub(crate) fn compares() -> bool {
    COMPARES || all()
}

/// Whether everything is asked of them all the same.
fn all() -> bool {
    std::env::var_os("EMCCD_SIM_ALL").is_some()
}

const EXPIRES: bool = false;
const COMPARES: bool = false;
