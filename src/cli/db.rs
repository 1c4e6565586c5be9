//! `db`: backups, and databases that no daemon has open.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::{
    cli::{
        args::{Db, DbMigrate, DbVerify, Global},
        audit,
        client::{answer, connect},
        cluster::shown,
        config,
        failure::{Failure, Outcome},
        output::{Report, record},
    },
    edge::admin::views,
    node,
    store::{self, Check, Inspection, Schema},
    wire::admin as pb,
};

/// Runs one of the verbs.
///
/// # Errors
/// What the daemon refuses, and a file that is not whole.
pub async fn run(global: &Global, verb: Db) -> Outcome {
    match verb {
        Db::Backup { file } => backup(global, &file).await,
        Db::Verify(args) => verify(&args),
        Db::Migrate(args) => migrate(global, args),
    }
}

async fn backup(global: &Global, file: &Path) -> Outcome {
    let what = format!("cannot write the backup {}", shown(file));
    // The daemon stands in another folder.
    let path = std::path::absolute(file)
        .ok()
        .and_then(|path| path.to_str().map(str::to_owned))
        .ok_or_else(|| {
            Failure::new(
                &what,
                "its path is not UTF-8",
                "name another file: emccd db backup FILE",
            )
        })?;
    let mut client = connect(global).await?;
    let saved = answer(
        what,
        client.back_up_store(pb::BackUpStoreRequest { path }).await,
    )?;
    let text = format!(
        "wrote {} ({} KiB, schema {})\n\nnext: emccd db verify {}",
        saved.path,
        saved.bytes.div_ceil(1_024),
        saved.schema,
        saved.path
    );
    Ok(Report::new(text, &saved))
}

fn verify(args: &DbVerify) -> Outcome {
    let file = &*args.file;
    let what = format!("cannot check {}", shown(file));
    let key = args.pepper_file.as_deref().map(node::read_audit_key);
    let key = key.transpose().map_err(|cause| {
        Failure::from_error(
            &what,
            &cause,
            "name the pepper of the cluster whose database it is",
        )
    })?;
    let check = Check {
        key,
        noted: args.noted.clone(),
    };
    let found = store::inspect(file, &check).map_err(|e| unreadable(&what, &e))?;
    let chains: Vec<_> = found
        .audit
        .iter()
        .flat_map(|report| &report.chains)
        .map(views::audit_chain)
        .collect();
    if let Some(problem) = found.schema.problem()
        && found.problems.iter().all(|found| *found == problem)
    {
        let Schema {
            found: has, known, ..
        } = found.schema;
        let next = if has == 0 {
            "name a database of this program, such as emccd db backup FILE writes"
        } else if has > known {
            "check it with the version that wrote it, or a newer one; its pages and references are good"
        } else {
            "migrate a copy of it with emccd db migrate FILE, and check that; its pages and references are good"
        };
        return Err(Failure::new(&what, problem, next));
    }
    if !found.problems.is_empty() {
        return Err(Failure::new(
            format!("{} is not whole", shown(file)),
            found.problems.join("; "),
            "use another backup; this file is not fit to be restored",
        )
        .with("problems", found.problems.clone()));
    }
    audit::judge(
        &format!("the audit in {} is not whole", shown(file)),
        &chains,
    )?;
    let answer = json!({
        "file": shown(file),
        "ok": true,
        "cluster_id": found.cluster,
        "schema": found.schema.found,
        "rows": found.counts.iter().map(|(table, count)| ((*table).to_owned(), json!(count)))
            .collect::<serde_json::Map<_, _>>(),
        "chains": chains,
        "seals_checked": check.key.is_some(),
    });
    let mut text = whole_text(file, &found);
    if check.key.is_none() {
        text += "\n\nthe seals of the audit were not looked at: give the cluster's pepper with --pepper-file";
    }
    Ok(Report::new(text, &answer))
}

fn whole_text(file: &Path, found: &Inspection) -> String {
    let mut fields = vec![
        ("file", shown(file)),
        ("cluster", found.cluster.clone().unwrap_or_default()),
        ("schema", found.schema.found.to_string()),
    ];
    for (table, count) in &found.counts {
        fields.push((table, count.to_string()));
    }
    format!("{}\n\nwhole, and so is its audit", record(&fields))
}

fn migrate(global: &Global, args: DbMigrate) -> Outcome {
    let file = match (args.file, &global.config) {
        (Some(file), _) => file,
        (None, Some(config)) => database_of(config)?,
        (None, None) => {
            return Err(Failure::usage(
                "cannot migrate a database",
                "no file is named",
                "name it: emccd db migrate FILE, or the configuration that names it with --config",
            ));
        }
    };
    let what = format!("cannot migrate {}", shown(&file));
    let before = store::schema(&file).map_err(|e| unreadable(&what, &e))?;
    if before.found > before.known {
        let error = store::Error::NewerSchema {
            found: before.found,
            known: before.known,
        };
        return Err(Failure::new(
            what,
            error.to_string(),
            "nothing was changed; there is no way back but a backup from before the newer version",
        ));
    }
    if before.found == 0 {
        return Err(Failure::new(
            what,
            "it is no database of emccd; nothing was changed",
            "name another file; a new database needs no migration, the first start of the daemon makes it",
        ));
    }
    let done = !args.dry_run && !before.missing.is_empty();
    if done {
        store::migrate(&file).map_err(|e| unreadable(&what, &e))?;
    }
    let answer = json!({
        "file": shown(&file),
        "found": before.found,
        "known": before.known,
        "missing": before.missing,
        "done": done,
    });
    Ok(Report::new(migrate_text(&file, &before, done), &answer))
}

fn database_of(config: &Path) -> Outcome<PathBuf> {
    let loaded = config::load(config)?;
    loaded.store.path().map(Path::to_owned).ok_or_else(|| {
        Failure::new(
            "cannot migrate a database",
            "the configuration names a store without a file",
            "name the file: emccd db migrate FILE",
        )
    })
}

fn migrate_text(file: &Path, before: &Schema, done: bool) -> String {
    let file = shown(file);
    match (before.missing.is_empty(), done) {
        (true, _) => format!(
            "{file} has schema {}, which is that of this version",
            before.found
        ),
        (false, true) => format!(
            "{file} had schema {} and has {} now: {}",
            before.found,
            before.known,
            before.missing.join(", ")
        ),
        (false, false) => format!(
            "{file} has schema {}; a start of this version brings it to {}: {}\n\nnothing was changed: this was a \
             trial\nnext: a backup, then the same without --dry-run",
            before.found,
            before.known,
            before.missing.join(", ")
        ),
    }
}

fn unreadable(what: &str, error: &store::Error) -> Failure {
    Failure::from_error(
        what,
        error,
        "name a database of this program that this user may read, such as emccd db backup FILE writes",
    )
}
