//! The database: its schema, whether it is whole at a quick look, and whether somebody holds its lock.

use std::{path::Path, time::Duration};

use super::{Finding, disk};
use crate::{
    config::Config,
    store::{self, Glance},
    telemetry::error_chain,
};

/// How long the lock may be held before it is told: far longer than any transaction.
const PATIENCE: Duration = Duration::from_secs(2);

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
        return vec![if is_up {
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
        }];
    }
    let looked = tokio::task::spawn_blocking(move || {
        let held = store::is_lock_held(&path, PATIENCE);
        (store::glance(&path), held, disk::check(&path), path)
    });
    let Ok((glance, held, disk, path)) = looked.await else {
        return vec![Finding::error(
            "store",
            "looking at the database broke off",
            "emccd db verify FILE",
        )];
    };
    let mut found = vec![judge(&path, glance), disk];
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
                "fuser -v {}; a stopped process has to be continued (kill -CONT) or ended",
                path.with_extension("write").display()
            ),
        )),
        Err(cause) => found.push(Finding::warning(
            "store-lock",
            format!("whether the database is held can't be seen: {cause}"),
            "run emccd doctor as root, or as the daemon's own user",
        )),
    }
    found
}

fn judge(path: &Path, glance: Result<Glance, store::Error>) -> Finding {
    const ID: &str = "store";
    let file = path.display();
    let Glance { schema, problems } = match glance {
        Ok(glance) => glance,
        Err(cause) => {
            let hint = format!(
                "run emccd doctor as root, or as the daemon's own user; emccd db verify {file} tells more"
            );
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
        let hint = format!(
            "stop the daemon, put a backup in its place, and check that first: emccd db verify FILE (this one: emccd db verify {file})"
        );
        return Finding::error(
            ID,
            format!("{file} is damaged: {}", problems.join("; ")),
            hint,
        );
    }
    if schema.found < schema.known {
        let text = format!(
            "the schema of {file} is version {}; the next start brings it to {}",
            schema.found, schema.known
        );
        return Finding::warning(ID, text, format!("emccd db migrate {file} --dry-run"));
    }
    Finding::ok(
        ID,
        format!("{file} is whole at a quick look, schema {}", schema.found),
    )
}
