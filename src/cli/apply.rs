//! `apply`: brings the cluster's data to what files say.

use std::{fs::File, io::Read, path::Path};

use crate::{
    cli::{
        args::{self, Global},
        client::{answer, connect},
        cluster::shown,
        failure::{Failure, Outcome},
        output::{Report, table},
    },
    wire::admin as pb,
};

/// Reads the files and hands them to the daemon.
///
/// # Errors
/// Files that can't be read, and what the daemon refuses.
pub async fn run(global: &Global, args: &args::Apply) -> Outcome {
    let files = read_files(&args.files)?;
    let request = pb::ApplyRequest {
        files,
        dry_run: args.dry_run,
    };
    let mut client = connect(global).await?;
    let applied = answer(
        "cannot apply the files; nothing was changed",
        client.apply(request).await,
    )?;
    Ok(Report::new(applied_text(&applied), &applied))
}

fn read_files(paths: &[impl AsRef<Path>]) -> Outcome<Vec<pb::ApplyFile>> {
    let mut left = MAX_BYTES;
    let mut files = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let what = format!("cannot read {}", shown(path));
        let mut bytes = Vec::new();
        File::open(path)
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
                "the files hold more than 4 MiB together",
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

fn applied_text(applied: &pb::ApplyResponse) -> String {
    let rows = applied.counts.iter().map(|count| {
        [
            count.kind.clone(),
            count.added.to_string(),
            count.changed.to_string(),
            count.unchanged.to_string(),
        ]
    });
    let mut text = table(["KIND", "ADDED", "CHANGED", "UNCHANGED"], rows.collect());
    if applied.dry_run {
        text += "\n\nnothing was changed: this was a trial\nnext: the same without --dry-run";
    }
    text
}

/// The daemon's bound for one request.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_that_cannot_be_are_refused_before_they_travel() {
        let dir = tempfile::tempdir().unwrap();
        let big = dir.path().join("big.toml");
        fs::write(&big, vec![b'#'; 3 * 1024 * 1024]).unwrap();
        let odd = dir.path().join("odd.toml");
        fs::write(&odd, b"a = \xff").unwrap();
        let missing = dir.path().join("none.toml");
        for (paths, word) in [
            (vec![&big, &big], "more than 4 MiB"),
            (vec![&odd], "not UTF-8 at byte 4"),
            (vec![&missing], "No such file"),
        ] {
            let text = read_files(&paths).unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(read_files(&[&big]).unwrap().len(), 1);
    }

    #[test]
    fn counts_are_a_table() {
        let applied = pb::ApplyResponse {
            counts: vec![pb::ApplyCount {
                kind: "user".to_owned(),
                added: 2,
                changed: 1,
                unchanged: 40,
            }],
            dry_run: true,
        };
        let expected = "\
KIND  ADDED  CHANGED  UNCHANGED
user  2      1        40

nothing was changed: this was a trial
next: the same without --dry-run";
        assert_eq!(applied_text(&applied), expected);
    }
}
