//! The database: its schema, whether it is whole at a quick look, and whether somebody holds its lock.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    unistd::{AccessFlags, access},
};

use super::{Finding, disk};
use crate::{
    config::Config,
    node,
    store::{self, Glance},
    telemetry::error_chain,
};

/// How long the lock may be held before it is told: far longer than any transaction.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long looking at the pages may take.
const LOOK: Duration = Duration::from_secs(5);

const AS_WHOM: &str = "run emccd doctor as root, or as the daemon's own user";

/// Looks at it, also while a daemon has it open.
pub(super) async fn check(config: &Config, is_up: bool) -> Vec<Finding> {
    let Some(path) = config.store.path().map(Path::to_owned) else {
        let text = "the database is in memory, and ends with the daemon";
        return vec![Finding::warning(
            "store",
            text,
            "set store.url to sqlite: and a path for more than a trial",
        )];
    };
    if !path.exists() {
        let mut found = writable(&path, is_up);
        found.push(if is_up {
            let hint = "restart the daemon with the configuration that it was started with";
            Finding::error(
                "store",
                format!("{} is gone, although a daemon runs", path.display()),
                hint,
            )
        } else {
            Finding::ok(
                "store",
                format!("{} is made at the first start", path.display()),
            )
        });
        return found;
    }
    let looked = tokio::task::spawn_blocking(move || {
        let held = store::is_lock_held(&path, PATIENCE);
        (store::glance(&path, LOOK), held, disk::check(&path), path)
    });
    let Ok((glance, held, disk, path)) = looked.await else {
        return vec![Finding::error(
            "store",
            "looking at the database broke off",
            "emccd db verify FILE",
        )];
    };
    let mut found = Vec::new();
    if let Ok(glance) = &glance {
        found.extend(belongs(config, &path, glance));
    }
    found.extend([judge(&path, glance), disk]);
    found.extend(writable(&path, is_up));
    match held {
        Ok(false) => found.push(Finding::ok(
            "store-lock",
            "nobody holds the database for long",
        )),
        Ok(true) => found.push(Finding::error(
            "store-lock",
            format!(
                "a process has held the database's write lock for {} s",
                PATIENCE.as_secs()
            ),
            format!(
                "fuser -v {} {}; a stopped process has to be continued (kill -CONT) or ended, and no other program \
                 belongs there",
                path.with_extension("write").display(),
                path.display()
            ),
        )),
        Err(cause) => {
            let text = format!("whether the database is held can't be seen: {cause}");
            found.push(if cause.kind() == ErrorKind::PermissionDenied {
                Finding::warning("store-lock", text, AS_WHOM)
            } else {
                let hint = format!("ls -l {}", path.with_extension("write").display());
                Finding::error("store-lock", text, hint)
            });
        }
    }
    found
}

/// Whether the database is that of this cluster and this pepper. A daemon does not start with any other.
fn belongs(config: &Config, path: &Path, glance: &Glance) -> Vec<Finding> {
    let file = path.display();
    let mut found = Vec::new();
    if let Some(theirs) = &glance.cluster
        && *theirs != config.cluster_id.as_str()
    {
        let text = format!(
            "{file} belongs to the cluster {theirs}, and the configuration is that of {}",
            config.cluster_id
        );
        let hint =
            "set store.url to another file, or cluster-id to the cluster that the file belongs to";
        found.push(Finding::error("store", text, hint));
    }
    // A file that is no pepper is told of already.
    if let (Some(mark), Ok(ours)) = (&glance.pepper_mark, node::pepper_mark(config))
        && *mark != ours
    {
        let pepper = config.credentials.pepper_file.display();
        found.push(Finding::error(
            "pepper",
            format!("{pepper} is not the pepper that the PINs in {file} were hashed with"),
            format!(
                "put the right one there, from another node of the cluster or from a backup ({pepper})"
            ),
        ));
    }
    found
}

/// Whether what a daemon writes can be written: files that are there, and the folder, in which it makes others.
fn writable(path: &Path, is_up: bool) -> Vec<Finding> {
    let mut all = vec![path.to_owned()];
    all.extend(store::side_files(path));
    all.retain(|file| file.exists());
    all.extend(path.parent().map(|folder| match folder {
        folder if folder == Path::new("") => PathBuf::from("."),
        folder => folder.to_owned(),
    }));
    let refused = all.iter().filter_map(|file| {
        let refused = access(file, AccessFlags::W_OK).err()?;
        Some(unwritable(file, refused, is_up))
    });
    // They have one cause, mostly.
    refused.take(1).collect()
}

fn unwritable(file: &Path, cause: Errno, is_up: bool) -> Finding {
    const ID: &str = "store";
    let text = format!("{} can't be written: {}", file.display(), cause.desc());
    match cause {
        // The daemon may be somebody else who can; one that runs does.
        Errno::EACCES | Errno::EPERM if is_up => Finding::warning(ID, text, AS_WHOM),
        Errno::EACCES | Errno::EPERM => {
            let hint = format!(
                "{AS_WHOM}; its owner is whom ls -l {} names",
                file.display()
            );
            Finding::error(ID, text, hint)
        }
        Errno::EROFS => Finding::error(
            ID,
            text,
            format!(
                "findmnt -T {} tells which file system that is; mount it for writing",
                file.display()
            ),
        ),
        _ => Finding::error(ID, text, format!("ls -ld {}", file.display())),
    }
}

fn judge(path: &Path, glance: Result<Glance, store::Error>) -> Finding {
    const ID: &str = "store";
    let file = path.display();
    let restore = format!(
        "stop the daemon, put a backup in its place, and check that first: emccd db verify FILE (this one: emccd db verify {file})"
    );
    let Glance {
        schema,
        problems,
        is_cut_short,
        ..
    } = match glance {
        Ok(glance) => glance,
        Err(cause) => {
            let hint = if cause.is_damage() {
                restore
            } else {
                format!("{AS_WHOM}; emccd db verify {file} tells more")
            };
            return Finding::error(
                ID,
                format!("{file} can't be looked at: {}", error_chain(&cause)),
                hint,
            );
        }
    };
    if schema.found > schema.known {
        let text = format!(
            "the schema of {file} is version {}, and this emccd knows versions up to {}",
            schema.found, schema.known
        );
        return Finding::error(
            ID,
            text,
            "start the newer software again, or restore a backup from before",
        );
    }
    if !problems.is_empty() {
        return Finding::error(
            ID,
            format!("{file} is damaged: {}", problems.join("; ")),
            restore,
        );
    }
    if schema.found < schema.known {
        let text = format!(
            "the schema of {file} is version {}; the next start brings it to {}",
            schema.found, schema.known
        );
        return Finding::warning(ID, text, format!("emccd db migrate {file} --dry-run"));
    }
    if is_cut_short {
        let text = format!(
            "{file} is too large for a quick look; schema {}",
            schema.found
        );
        return Finding::warning(
            ID,
            text,
            format!("emccd db verify {file} looks at all of it"),
        );
    }
    Finding::ok(
        ID,
        format!("{file} is whole at a quick look, schema {}", schema.found),
    )
}
