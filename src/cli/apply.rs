//! `apply`: brings the cluster's data to what files say.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read},
    path::Path,
};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    cli::{
        args::{self, Global},
        client::{Client, connect},
        cluster::shown,
        confirm::confirm_list,
        failure::{Failure, Outcome},
        output::{Report, clean, table},
        progress::{Form, Shown},
    },
    edge::admin::error::DOMAIN,
    wire::admin as pb,
};

/// Reads the files and hands them to the daemon. Where something would be deleted, it is asked first.
///
/// # Errors
/// Files that can't be read, and what the daemon refuses.
pub async fn run(global: &Global, args: &args::Apply) -> Outcome {
    let files = read_files(&args.files)?;
    let mut client = connect(global).await?;
    let form = Form::of(global);
    let mut how = How {
        dry_run: args.dry_run,
        prune: args.prune,
        removals: String::new(),
    };
    if args.prune && !args.dry_run && !args.yes {
        let trial = How {
            dry_run: true,
            ..how.clone()
        };
        let tried = send(&mut client, &files, &trial, form).await?;
        if let Some(question) = question(&tried) {
            confirm_list(UNCHANGED, &to_delete(&tried), &question)?;
        }
        // Nothing but what was shown.
        how.removals = tried.removals;
    }
    let applied = send(&mut client, &files, &how, form).await?;
    Ok(Report::new(applied_text(&applied), &applied))
}

/// How it is meant.
#[derive(Clone, Debug)]
struct How {
    dry_run: bool,
    prune: bool,
    /// What the trial told of what would be deleted.
    removals: String,
}

async fn send(
    client: &mut Client,
    files: &[pb::ApplyFile],
    how: &How,
    form: Form,
) -> Outcome<pb::ApplyResponse> {
    let pieces: Vec<_> = files
        .iter()
        .flat_map(pieces)
        .map(|(piece, continues)| pb::ApplyStreamRequest {
            piece: Some(piece),
            continues,
            dry_run: how.dry_run,
            prune: how.prune,
            removals: how.removals.clone(),
        })
        .collect();
    let dry_run = how.dry_run;
    let answered = client.apply_stream(tokio_stream::iter(pieces)).await;
    let mut told = answered
        .map_err(|status| failed(&status, dry_run))?
        .into_inner();
    let mut shown = Shown::new(form);
    let mut refusal = pb::ApplyRefusal::default();
    loop {
        let message = match told.message().await {
            Ok(Some(message)) => message,
            Ok(None) => {
                let ended = Status::unavailable("the daemon ended before it was done");
                return Err(failed(&ended, dry_run));
            }
            Err(status) => return Err(refused(refusal, failed(&status, dry_run))),
        };
        if let Some(applied) = message.applied {
            return Ok(applied);
        }
        if let Some(progress) = message.progress {
            shown.show(&progress);
        }
        if let Some(more) = message.refusal {
            (refusal.why, refusal.left_out) = (more.why, more.left_out);
            refusal.reasons.extend(more.reasons);
        }
    }
}

/// What an import has come to that ended with this status. Only a refusal by the daemon itself says that nothing was
/// changed: a connection that breaks says nothing, since the files may be in place by then.
fn failed(status: &Status, dry_run: bool) -> Failure {
    let is_refusal = status.get_details_error_info().is_some_and(|info| {
        info.domain == DOMAIN && !matches!(info.reason.as_str(), "STORE" | "TOO_SLOW")
    });
    if dry_run || is_refusal || status.code() == Code::Unimplemented {
        return Failure::from_status(UNCHANGED, status);
    }
    let failure = Failure::from_status(UNKNOWN, status);
    Failure::new(
        UNKNOWN,
        failure.why(),
        "apply again: what is in place already is not changed twice",
    )
}

const UNCHANGED: &str = "cannot apply the files; nothing was changed";

const UNKNOWN: &str = "it is not known whether the files are applied";

/// The same with every reason that was told, in place of those that a status has room for.
fn refused(refusal: pb::ApplyRefusal, failure: Failure) -> Failure {
    if refusal.reasons.is_empty() {
        return failure;
    }
    let mut why = format!("{}:\n{}", refusal.why, refusal.reasons.join("\n"));
    if refusal.left_out > 0 {
        let _ = write!(why, "\nand {} more", refusal.left_out);
    }
    Failure::new(failure.what(), why, failure.next()).with("problems", refusal.reasons)
}

/// A file in pieces that fit into messages, and whether each goes on with the one before.
fn pieces(file: &pb::ApplyFile) -> Vec<(pb::ApplyFile, bool)> {
    let (mut pieces, mut rest) = (Vec::new(), file.content.as_str());
    loop {
        let (piece, next) = rest.split_at(rest.floor_char_boundary(PIECE_BYTES));
        let piece = pb::ApplyFile {
            name: file.name.clone(),
            content: piece.to_owned(),
        };
        pieces.push((piece, !pieces.is_empty()));
        rest = next;
        if rest.is_empty() {
            return pieces;
        }
    }
}

/// Far below the bound for a message.
const PIECE_BYTES: usize = 256 * 1024;

/// The records that would be deleted, and the sessions that end with them, as far as they are worth reading before an
/// answer.
fn to_delete(tried: &pb::ApplyResponse) -> Vec<String> {
    let gone = tried
        .changes
        .iter()
        .filter(|change| change.action == "removed");
    let mut lines: Vec<_> = gone.take(MAX_SHOWN).map(change_text).collect();
    let total: u32 = tried.counts.iter().map(|count| count.removed).sum();
    let more = usize::try_from(total)
        .unwrap_or(usize::MAX)
        .saturating_sub(lines.len());
    if more > 0 {
        lines.push(format!("and {more} more; --dry-run shows them"));
    }
    lines
}

/// Half a screen.
const MAX_SHOWN: usize = 20;

/// What to ask before records are deleted.
fn question(tried: &pb::ApplyResponse) -> Option<String> {
    let gone: Vec<_> = tried
        .counts
        .iter()
        .filter(|count| count.removed > 0)
        .map(|count| format!("{} {}", count.removed, count.kind))
        .collect();
    let total: u32 = tried.counts.iter().map(|count| count.removed).sum();
    (total > 0).then(|| {
        format!(
            "Delete {total} records that no file names ({})?",
            gone.join(", ")
        )
    })
}

fn read_files(paths: &[impl AsRef<Path>]) -> Outcome<Vec<pb::ApplyFile>> {
    let mut left = MAX_BYTES;
    let mut files = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let what = format!("cannot read {}", shown(path));
        let mut bytes = Vec::new();
        open(path)
            .and_then(|file| file.take(left + 1).read_to_end(&mut bytes))
            .map_err(|cause| {
                Failure::new(
                    &what,
                    cause.to_string(),
                    "check the path and that you may read it",
                )
            })?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        left = left.checked_sub(length).ok_or_else(|| {
            Failure::new(
                &what,
                "the files hold more than 64 MiB together",
                "apply them in several steps: what is not named stays",
            )
        })?;
        let content = String::from_utf8(bytes).map_err(|cause| {
            let at = cause.utf8_error().valid_up_to();
            Failure::new(
                &what,
                format!("it is not UTF-8 at byte {at}"),
                "save it as UTF-8",
            )
        })?;
        files.push(pb::ApplyFile {
            name: shown(path),
            content,
        });
    }
    Ok(files)
}

/// A file, or what comes through a pipe.
fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    Ok(if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path)?)
    })
}

fn applied_text(applied: &pb::ApplyResponse) -> String {
    let mut text = String::new();
    for change in &applied.changes {
        let _ = writeln!(text, "{}", change_text(change));
    }
    if applied.changes_left_out > 0 {
        let _ = writeln!(text, "and {} more", applied.changes_left_out);
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let rows = applied.counts.iter().map(|count| {
        [
            count.kind.clone(),
            count.added.to_string(),
            count.changed.to_string(),
            count.removed.to_string(),
            count.unchanged.to_string(),
        ]
    });
    if applied.counts.is_empty() {
        text += "the files hold no rows: there is nothing to change";
    } else {
        text += &table(
            ["KIND", "ADDED", "CHANGED", "REMOVED", "UNCHANGED"],
            rows.collect(),
        );
    }
    for warning in &applied.warnings {
        let _ = write!(text, "\n\nwarning: {}", clean(warning));
    }
    if applied.dry_run {
        text += "\n\nnothing was changed: this was a trial\nnext: the same without --dry-run";
    }
    text
}

/// `+ user anna`, `- user bob`, `~ user cy: extension: 1001 → 1002, PIN set`.
fn change_text(change: &pb::ApplyChange) -> String {
    let mark = match change.action.as_str() {
        "added" => '+',
        "removed" => '-',
        _ => '~',
    };
    let value = |text: &str| {
        if text.is_empty() {
            "nothing".to_owned()
        } else {
            clean(text)
        }
    };
    let fields: Vec<_> = change
        .fields
        .iter()
        .map(|field| match field.name.as_str() {
            "pin" => "PIN set".to_owned(),
            "password" => "password set".to_owned(),
            "session" => format!("the session on {} ends", clean(&field.before)),
            name => format!(
                "{}: {} \u{2192} {}",
                clean(name),
                value(&field.before),
                value(&field.after)
            ),
        })
        .collect();
    let mut text = format!("{mark} {} {}", clean(&change.kind), clean(&change.name));
    if !fields.is_empty() {
        text += ": ";
        text += &fields.join(", ");
    }
    text
}

/// The daemon's bound for one import.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fs};

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn files_that_cannot_be_are_refused_before_they_travel() {
        let dir = tempfile::tempdir().unwrap();
        let big = dir.path().join("big.toml");
        let file = fs::File::create(&big).unwrap();
        file.set_len(40 * 1024 * 1024).unwrap();
        let odd = dir.path().join("odd.toml");
        fs::write(&odd, b"a = \xff").unwrap();
        let missing = dir.path().join("none.toml");
        for (paths, word) in [
            (vec![&big, &big], "more than 64 MiB"),
            (vec![&odd], "not UTF-8 at byte 4"),
            (vec![&missing], "No such file"),
        ] {
            let text = read_files(&paths).unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        }
        let read = read_files(&[&big]).unwrap();
        assert_eq!(read.len(), 1);
        let pieces = pieces(&read[0]);
        assert_eq!(pieces.len(), 160);
        assert!(pieces.iter().skip(1).all(|(_, continues)| *continues) && !pieces[0].1);
    }

    fn change(action: &str, name: &str, fields: &[[&str; 3]]) -> pb::ApplyChange {
        let field = |[name, before, after]: &[&str; 3]| pb::ApplyField {
            name: (*name).to_owned(),
            before: (*before).to_owned(),
            after: (*after).to_owned(),
        };
        pb::ApplyChange {
            kind: "user".to_owned(),
            name: name.to_owned(),
            action: action.to_owned(),
            fields: fields.iter().map(field).collect(),
        }
    }

    #[test]
    fn only_the_daemon_s_own_refusal_says_that_nothing_was_changed() {
        let told = |reason: &str, domain: &str| {
            let details = ErrorDetails::with_error_info(reason, domain, HashMap::new());
            Status::with_error_details(Code::FailedPrecondition, "no", details)
        };
        for (status, what) in [
            (told("REFUSED", DOMAIN), UNCHANGED),
            (told("DENIED", DOMAIN), UNCHANGED),
            (Status::unimplemented("unknown method"), UNCHANGED),
            // After the one transaction these may come as well.
            (told("STORE", DOMAIN), UNKNOWN),
            (told("TOO_SLOW", DOMAIN), UNKNOWN),
            (told("REFUSED", "elsewhere"), UNKNOWN),
            (
                Status::unknown("h2 protocol error: connection reset"),
                UNKNOWN,
            ),
            (Status::unavailable("the daemon ended"), UNKNOWN),
        ] {
            let failure = failed(&status, false);
            assert_eq!(failure.what(), what, "{status:?}");
            let says_again = failure.next().contains("apply again");
            assert_eq!(says_again, what == UNKNOWN, "{failure}");
            assert_eq!(
                failed(&status, true).what(),
                UNCHANGED,
                "a trial changes nothing"
            );
        }
    }

    #[test]
    fn a_trial_tells_each_change_and_the_counts() {
        let count = pb::ApplyCount {
            kind: "user".to_owned(),
            added: 2,
            changed: 1,
            unchanged: 40,
            removed: 1,
        };
        let applied = pb::ApplyResponse {
            counts: vec![count],
            dry_run: true,
            changes: vec![
                change("added", "anna", &[["pin", "", "set"]]),
                change("removed", "bob", &[]),
                change(
                    "changed",
                    "cy",
                    &[["extension", "", "1002"], ["name", "Cy\u{1b}", ""]],
                ),
            ],
            changes_left_out: 1,
            warnings: Vec::new(),
            removals: "abc".to_owned(),
        };
        let expected = "\
+ user anna: PIN set
- user bob
~ user cy: extension: nothing \u{2192} 1002, name: Cy\\u{1b} \u{2192} nothing
and 1 more

KIND  ADDED  CHANGED  REMOVED  UNCHANGED
user  2      1        1        40

nothing was changed: this was a trial
next: the same without --dry-run";
        assert_eq!(applied_text(&applied), expected);
        assert_eq!(
            question(&applied).unwrap(),
            "Delete 1 records that no file names (1 user)?"
        );
        assert_eq!(question(&pb::ApplyResponse::default()), None);
        let nothing = applied_text(&pb::ApplyResponse::default());
        assert!(nothing.starts_with("the files hold no rows"), "{nothing}");
        assert_eq!(to_delete(&applied), ["- user bob"]);
        let gone = change("removed", "cy", &[["session", "SEP1 of tokyo", ""]]);
        let many = pb::ApplyResponse {
            counts: vec![pb::ApplyCount {
                removed: 500,
                ..pb::ApplyCount::default()
            }],
            changes: vec![gone; 30],
            ..pb::ApplyResponse::default()
        };
        let lines = to_delete(&many);
        assert_eq!(lines[0], "- user cy: the session on SEP1 of tokyo ends");
        assert_eq!(
            (lines.len(), &*lines[20]),
            (21, "and 480 more; --dry-run shows them")
        );
    }
}
