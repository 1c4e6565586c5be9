//! What came of `apply`, for whoever asked for it.

use crate::{
    apply::{self, Action},
    edge::admin::error::Error,
    wire::admin as pb,
};

/// Counts by kind; of a trial also the records themselves, as many as fit into an answer.
pub(super) fn told(changes: &[apply::Change], dry_run: bool) -> pb::ApplyResponse {
    let mut response = pb::ApplyResponse {
        counts: counts(changes),
        dry_run,
        ..pb::ApplyResponse::default()
    };
    if !dry_run {
        return response;
    }
    response.removals = apply::removals(changes);
    let mut left = MAX_TOLD_BYTES;
    let differ = |change: &&apply::Change| change.action != Action::Unchanged;
    for change in changes.iter().filter(differ) {
        let fields = change.fields.iter();
        let bytes: usize = fields.map(|f| f.old.len() + f.new.len() + 64).sum();
        match left.checked_sub(bytes + change.name.len() + 64) {
            Some(rest) => {
                left = rest;
                response.changes.push(row(change));
            }
            None => {
                left = 0;
                response.changes_left_out += 1;
            }
        }
    }
    response
}

/// A quarter of what an answer may hold.
const MAX_TOLD_BYTES: usize = 4 * 1024 * 1024;

fn row(change: &apply::Change) -> pb::ApplyChange {
    let fields = change.fields.iter().map(|field| pb::ApplyField {
        name: field.name.to_owned(),
        before: field.old.clone(),
        after: field.new.clone(),
    });
    pb::ApplyChange {
        kind: change.kind.to_owned(),
        name: change.name.clone(),
        action: change.action.as_str().to_owned(),
        fields: fields.collect(),
    }
}

/// What an operator is told of one record that was not changed: it came from no file, and its columns are options.
pub(super) fn edit_error(error: apply::Error) -> Error {
    let problems = match error {
        apply::Error::Problems(problems) => problems,
        apply::Error::Column { column, reason } => {
            let option = match &*column {
                "lines" => "line",
                "services" => "service",
                other => other,
            };
            return Error::refused(
                format!("--{option}: {reason}; nothing was changed"),
                "correct it; the help of the command says what it may be",
            );
        }
        error => return self::error(error),
    };
    let told: Vec<_> = problems
        .told()
        .iter()
        .map(|problem| {
            let field = match &*problem.field {
                "user.id" | "profile.name" | "device.name" | "base-device.name" => "its name",
                "user.pin" | "user.pin-hash" => "the PIN",
                lines if lines.starts_with("profile.lines") => "--line",
                "profile.services" | "device.services" => "--service",
                other => match other.split_once('.') {
                    Some((_, column)) => return format!("--{column}: {}", problem.message),
                    None => return problem.message.clone(),
                },
            };
            format!("{field}: {}", problem.message)
        })
        .collect();
    let next = if told.iter().any(|told| told.contains("there is no ")) {
        "`emccd export` shows what there is; emccd apply FILE adds what no command does, such as device pools"
    } else {
        "correct it; the help of the command says what it may be"
    };
    Error::refused(format!("{}; nothing was changed", told.join("; ")), next)
}

/// What an operator is told of files that were not applied.
pub(super) fn error(error: apply::Error) -> Error {
    match error {
        apply::Error::Problems(problems) => Error::listed(
            format!("{}; nothing was changed", counted(problems.count())),
            problems.told().iter().map(ToString::to_string),
            problems.left_out(),
            "mend the lines and apply again; `emccd apply --dry-run` only checks",
        ),
        error @ apply::Error::Column { .. } => Error::refused(
            error.to_string(),
            "correct it; the help of the command says what it may be",
        ),
        apply::Error::There(what) => {
            let next = match what.split_once(' ') {
                Some(("base-device", _)) => "`emccd base list` shows what there is".to_owned(),
                Some((noun, name)) => format!("to change it: emccd {noun} set {name} …"),
                None => "`emccd export` shows what there is".to_owned(),
            };
            let what = what.replacen("base-device ", "base device ", 1);
            Error::Exists { what, next }
        }
        apply::Error::NotThere(what) => {
            let next = match what.split_once(' ') {
                Some((noun, name)) => format!("to add it: emccd {noun} add {name} …"),
                None => "`emccd export` shows what there is".to_owned(),
            };
            Error::refused(format!("there is no {what}"), next)
        }
        apply::Error::Kept(reasons) => Error::listed(
            "what is in use can't be deleted; nothing was changed",
            reasons,
            0,
            "end the sessions (`emccd session logout`), or name the records in the files",
        ),
        apply::Error::Store(error) => error.into(),
        apply::Error::Trust(error) => Error::refused(
            format!(
                "{}; nothing was changed",
                crate::telemetry::error_chain(&error)
            ),
            "`emccd trust list` shows which peer holds the certificate or the name",
        ),
        apply::Error::Credentials(error) => Error::refused(
            crate::telemetry::error_chain(&error),
            "nothing was changed; apply again",
        ),
        error @ apply::Error::NotAgreed => Error::refused(
            error.to_string(),
            "type the command again: it asks about what there is now",
        ),
        error @ apply::Error::Moved(_) => Error::Unavailable {
            why: error.to_string(),
            next: "type the command again".to_owned(),
        },
        error @ apply::Error::Unread => Error::refused(error.to_string(), "apply again"),
    }
}

fn counted(problems: u64) -> String {
    if problems == 1 {
        "the files have 1 problem".to_owned()
    } else {
        format!("the files have {problems} problems")
    }
}

fn counts(changes: &[apply::Change]) -> Vec<pb::ApplyCount> {
    let mut counts: Vec<pb::ApplyCount> = Vec::new();
    for change in changes {
        let index = counts
            .iter()
            .position(|c| c.kind == change.kind)
            .unwrap_or_else(|| {
                counts.push(pb::ApplyCount {
                    kind: change.kind.to_owned(),
                    ..pb::ApplyCount::default()
                });
                counts.len() - 1
            });
        let Some(count) = counts.get_mut(index) else {
            continue;
        };
        match change.action {
            Action::Added => count.added += 1,
            Action::Changed => count.changed += 1,
            Action::Removed => count.removed += 1,
            Action::Unchanged => count.unchanged += 1,
        }
    }
    counts
}
