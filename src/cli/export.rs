//! `export`: the cluster's data as files that `apply` takes.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use serde_json::json;

use crate::{
    apply::export::Format,
    cli::{
        args::{self, Global},
        client::{answer, connect},
        cluster::shown,
        failure::{Failure, Outcome},
        output::{Report, table},
    },
    wire::admin as pb,
};

/// One file of an export.
#[derive(Default)]
struct File {
    name: String,
    records: u64,
    content: String,
}

/// Asks the daemon for everything, and prints it or writes it into a folder.
///
/// # Errors
/// A folder that can't be taken, and what the daemon refuses.
pub async fn run(global: &Global, args: &args::Export) -> Outcome {
    let folder = (args.out != Path::new("-")).then_some(&*args.out);
    if folder.is_none() && args.format == Format::Csv {
        return Err(Failure::usage(
            "cannot print CSV",
            "each kind of record has a file of its own",
            "name a folder: --out DIR",
        ));
    }
    if let Some(folder) = folder {
        make_folder(folder).map_err(|cause| unwritable(folder, &cause))?;
    }
    let mut client = connect(global).await?;
    let what = "cannot export the data";
    let request = pb::ExportRequest {
        format: args.format.as_str().to_owned(),
    };
    let mut pieces = answer(what, client.export(request).await)?;
    let mut files: Vec<File> = Vec::new();
    while let Some(piece) = pieces
        .message()
        .await
        .map_err(|status| Failure::from_status(what, &status))?
    {
        match files.last_mut() {
            Some(file) if file.name == piece.file => file.content += &piece.content,
            _ => files.push(File {
                name: piece.file,
                records: piece.records,
                content: piece.content,
            }),
        }
    }
    match folder {
        None => Ok(printed(args.format, &files)),
        Some(folder) => {
            for file in &files {
                let path = folder.join(&file.name);
                write(&path, &file.content).map_err(|cause| unwritable(&path, &cause))?;
            }
            Ok(written(folder, args.format, &files))
        }
    }
}

fn printed(format: Format, files: &[File]) -> Report {
    let texts: Vec<_> = files.iter().map(|file| file.content.as_str()).collect();
    let listed: Vec<_> = files
        .iter()
        .map(|f| json!({ "file": f.name, "records": f.records, "content": f.content }))
        .collect();
    let text = if files.is_empty() {
        "# there is nothing to export".to_owned()
    } else {
        texts.join("\n")
    };
    Report::new(text, &json!({ "format": format.as_str(), "files": listed }))
}

fn written(folder: &Path, format: Format, files: &[File]) -> Report {
    let path = |file: &File| shown(&folder.join(&file.name));
    let rows = files
        .iter()
        .map(|file| [path(file), file.records.to_string()])
        .collect();
    let listed: Vec<_> = files
        .iter()
        .map(|f| json!({ "file": f.name, "records": f.records, "path": path(f) }))
        .collect();
    let text = if files.is_empty() {
        "there is nothing to export".to_owned()
    } else {
        table(["FILE", "RECORDS"], rows)
            + "\n\nhashes of PINs may be in there: keep the folder to yourself"
    };
    Report::new(text, &json!({ "format": format.as_str(), "files": listed }))
}

/// Makes the folder, or takes one with nothing in it: what an earlier export left there would be applied with this
/// one.
fn make_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::read_dir(folder)?.next().is_some() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            Ok(())
        }
        other => other,
    }
}

fn write(path: &Path, content: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

fn unwritable(path: &Path, cause: &io::Error) -> Failure {
    let next = match cause.kind() {
        io::ErrorKind::DirectoryNotEmpty => "name a folder that is empty or not there yet",
        _ => "check the path, the permissions and the free space",
    };
    Failure::new(
        format!("cannot write {}", shown(path)),
        cause.to_string(),
        next,
    )
}
