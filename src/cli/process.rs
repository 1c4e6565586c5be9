//! What a daemon asks of the system for its own process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

/// No memory of ours goes to a file when we crash: it holds keys, the pepper, and PINs for a moment. Nor may other
/// processes of the same user look into it.
pub(super) fn forbid_dumps() {
    if let Err(cause) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        warn!(%cause, "core dumps can't be forbidden; set LimitCORE=0 for the service");
    }
    #[cfg(target_os = "linux")]
    if let Err(cause) = nix::sys::prctl::set_dumpable(false) {
        warn!(%cause, "this process can't be kept from being dumped");
    }
}

/// Takes all the file descriptors that the system lets us have, and says so when `most` may come to be needed and
/// that is less.
pub(super) fn raise_file_limit(most: u64) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
            info!(from = soft, to = hard, "raised the limit of open files");
        }
        Ok(hard)
    });
    match raised {
        Ok(limit) if limit >= most => {}
        Ok(limit) => warn!(
            limit,
            most,
            "the connections that may be open at a time need more files than this process may open; raise \
             LimitNOFILE of the service, or lower phone.max-connections and federation.max-connections"
        ),
        Err(cause) => warn!(%cause, most, "the limit of open files can't be raised"),
    }
}
