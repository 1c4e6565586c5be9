//! The disk that the database is on: what is left of it.

use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::Finding;

const ID: &str = "disk";

/// Below this a daemon is about to stop: its log of changes may grow to twice as much before it is taken over.
const LEAST: u64 = 64 << 20;
/// Below this, and below the part that [`PART`] says, there is time to do something about it.
const SOON: u64 = 4 << 30;
/// A twentieth.
const PART: u64 = 20;

/// Looks at the folder of the database.
pub(super) fn check(database: &Path) -> Finding {
    let folder = match database.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    match statvfs(folder) {
        Ok(disk) => {
            // What root alone may use is nothing to a daemon.
            let size = disk.fragment_size();
            let bytes = |blocks: u64| blocks.saturating_mul(size);
            judge(folder, bytes(disk.blocks_available()), bytes(disk.blocks()))
        }
        Err(cause) => Finding::warning(
            ID,
            format!(
                "what is left on the disk of {} can't be seen: {cause}",
                folder.display()
            ),
            format!("df {}", folder.display()),
        ),
    }
}

fn judge(folder: &Path, free: u64, all: u64) -> Finding {
    let text = format!(
        "{} MiB of {} MiB are free where the database is ({})",
        free >> 20,
        all >> 20,
        folder.display()
    );
    let hint = format!(
        "make room on that disk; du -h {} tells what is there",
        folder.display()
    );
    if free < LEAST {
        let text = format!("{text}: on a full disk every login is refused (6)");
        Finding::error(ID, text, hint)
    } else if free < SOON && free < all / PART {
        Finding::warning(ID, text, hint)
    } else {
        Finding::ok(ID, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn what_is_left_is_judged_by_itself_and_as_a_part() {
        const MIB: u64 = 1 << 20;
        for (free, all, level) in [
            (0, 20 * MIB, Level::Error),
            (63 * MIB, 100 * MIB, Level::Error),
            (64 * MIB, 100 * MIB, Level::Ok),
            (200 * MIB, 10_000 * MIB, Level::Warning),
            (600 * MIB, 10_000 * MIB, Level::Ok),
            // A twentieth of a large disk is plenty.
            (5_000 * MIB, 1_000_000 * MIB, Level::Ok),
        ] {
            let found = judge(Path::new("/var/lib/emccd"), free, all);
            assert_eq!(found.level, level, "{found:?}");
            assert_eq!(found.hint.is_none(), level == Level::Ok);
        }
    }

    #[test]
    fn a_real_folder_is_looked_at_and_one_that_is_gone_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let found = check(&dir.path().join("emccd.db"));
        assert!(found.text.contains("MiB are free"), "{found:?}");
        let gone = check(Path::new("/nowhere/at/all/emccd.db"));
        assert!(gone.text.contains("can't be seen"), "{gone:?}");
    }
}
