//! `trust consolidate` and `trust diff`: files of certificates put together and compared, without a daemon.
//!
//! An alias `CLUSTER/KIND/NAME`, as `trust export` writes it, says whose the certificate is; the same certificate is
//! then kept once for each of them, otherwise once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    cli::{
        args::{StorePassword, TrustConsolidate, TrustDiff},
        cluster::shown,
        failure::{Failure, Outcome},
        output::{Report, count, table, time},
        stores,
    },
    edge::admin::views,
    secret::Secret,
    trust::{
        certificate::{Certificate, Fingerprint},
        formats::{self, Entry, Format, Keys, place::Place},
        make,
    },
    wire::admin as pb,
};

/// Which certificate, and of whom.
type Key = (Fingerprint, Option<Place>);

/// Puts the certificates of several files into one.
///
/// # Errors
/// Files that can't be read or written, and keys among the certificates.
pub(super) fn consolidate(args: &TrustConsolidate) -> Outcome {
    let what = format!("cannot write {}", shown(&args.out));
    let keys = if args.drop_keys {
        Keys::Drop
    } else {
        Keys::Refuse
    };
    let mut all: Vec<Entry> = Vec::new();
    let mut seen: HashMap<Key, usize> = HashMap::new();
    let mut files = Vec::new();
    for file in &args.files {
        let contents = stores::read(&what, file, &args.password, keys)?;
        let mut row = FileRow {
            file: file.clone(),
            format: contents.format.as_str(),
            certificates: 0,
            new: 0,
        };
        for entry in singly(contents.entries) {
            row.certificates += 1;
            let Some(key) = key_of(&entry) else { continue };
            if seen.contains_key(&key) {
                continue;
            }
            row.new += 1;
            seen.insert(key, all.len());
            all.push(entry);
        }
        files.push(row);
    }
    // Where somebody says whose a certificate is, the one that says nothing adds nothing.
    let placed: HashSet<Fingerprint> = seen
        .keys()
        .filter(|(_, place)| place.is_some())
        .map(|(fingerprint, _)| *fingerprint)
        .collect();
    all.retain(|entry| {
        key_of(entry)
            .is_none_or(|(fingerprint, place)| place.is_some() || !placed.contains(&fingerprint))
    });
    let format = format_for(args.format, &args.out);
    write_out(
        &what,
        &args.out,
        format,
        &all,
        &args.password,
        args.out_password_file.as_deref(),
    )?;
    let rows = files.iter().map(|row| {
        [
            shown(&row.file),
            row.format.to_owned(),
            row.certificates.to_string(),
            row.new.to_string(),
        ]
    });
    let text = format!(
        "{}\n\nwrote {}: {} in {format}\n\nnext: emccd trust import {} --dry-run",
        table(["FILE", "FORMAT", "CERTIFICATES", "NEW"], rows.collect()),
        shown(&args.out),
        count(all.len(), "certificate"),
        shown(&args.out),
    );
    let written = Consolidated {
        out: args.out.clone(),
        format: format.as_str(),
        certificates: all.len(),
        files,
    };
    Ok(Report::new(text, &written))
}

/// What two files have that the other one hasn't; it fails when they differ.
///
/// # Errors
/// Files that can't be read.
pub(super) fn diff(args: &TrustDiff) -> Outcome {
    let what = format!("cannot compare {} and {}", shown(&args.a), shown(&args.b));
    let read = |file: &Path| -> Outcome<BTreeMap<Key, Entry>> {
        let contents = stores::read(&what, file, &args.password, Keys::Drop)?;
        let entries = singly(contents.entries);
        Ok(entries
            .filter_map(|entry| Some((key_of(&entry)?, entry)))
            .collect())
    };
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let mut rows = Vec::new();
    let mut differing =
        |only: &'static str, these: &BTreeMap<Key, Entry>, others: &BTreeMap<Key, Entry>| {
            for (key, entry) in these {
                if !others.contains_key(key)
                    && let Some(certificate) = entry.chain.first()
                {
                    rows.push(DiffRow {
                        only_in: only,
                        alias: entry.alias.clone(),
                        certificate: views::certificate(certificate),
                    });
                }
            }
        };
    differing("a", &a, &b);
    differing("b", &b, &a);
    let same = a.keys().filter(|key| b.contains_key(*key)).count();
    let lines = rows.iter().map(|row| {
        [
            row.only_in.to_owned(),
            row.alias.clone().unwrap_or_default(),
            row.certificate.subject.clone(),
            time(&row.certificate.not_after),
            row.certificate.fingerprint.clone(),
        ]
    });
    let headings = [
        "ONLY IN",
        "ALIAS",
        "SUBJECT",
        "VALID UNTIL",
        "FINGERPRINT (SHA-256)",
    ];
    let in_both = format!("in both: {}", count(same, "certificate"));
    if rows.is_empty() {
        return Ok(Report::new(
            format!("no difference\n{in_both}"),
            &Diff {
                same,
                differing: rows,
            },
        ));
    }
    let text = format!(
        "a: {}\nb: {}\n\n{}\n\n{in_both}",
        shown(&args.a),
        shown(&args.b),
        table(headings, lines.collect())
    );
    Ok(Report::new(
        text,
        &Diff {
            same,
            differing: rows,
        },
    )
    .failing())
}

/// Writes a store or a file of certificates; what is there already is never overwritten.
pub(super) fn write_out(
    what: &str,
    out: &Path,
    format: Format,
    entries: &[Entry],
    password: &StorePassword,
    own_password: Option<&Path>,
) -> Outcome<()> {
    let password = match own_password {
        Some(file) => {
            let of_file = StorePassword {
                password_file: Some(file.to_owned()),
            };
            stores::given(what, &of_file)?
        }
        None if format.takes_password() => stores::given(what, password)?,
        None => None,
    };
    let is_short = |password: &Secret| password.expose().len() < SHORTEST_OF_JAVA;
    if format.takes_password() && password.as_ref().is_some_and(is_short) {
        return Err(Failure::new(
            what,
            format!("Java takes no password of less than {SHORTEST_OF_JAVA} characters"),
            "choose a longer one",
        ));
    }
    let written = formats::write(format, entries, password.as_ref()).map_err(|cause| {
        Failure::from_error(
            what,
            &cause,
            "choose another format with --format, or name a password file",
        )
    })?;
    make::write_public(out, &written).map_err(|cause| {
        Failure::new(
            what,
            format!("{}: {cause}", shown(out)),
            "give a path that is not there yet, in a folder that you may write to",
        )
    })
}

/// What was asked for, or what the file's ending says; text otherwise.
pub(super) fn format_for(asked: Option<Format>, out: &Path) -> Format {
    let ending = out.extension().and_then(|ending| ending.to_str());
    asked.unwrap_or(match ending {
        Some("der") => Format::Der,
        Some("jks") => Format::Jks,
        Some("p12" | "pfx") => Format::Pkcs12,
        Some("p7b" | "p7c") => Format::Pkcs7,
        _ => Format::Pem,
    })
}

/// Each certificate as an entry of its own, also those of a key.
fn singly(entries: Vec<Entry>) -> impl Iterator<Item = Entry> {
    entries.into_iter().flat_map(|entry| {
        let alias = entry.alias;
        let single = move |certificate: Certificate| Entry::trusted(alias.clone(), certificate);
        entry.chain.into_iter().map(single)
    })
}

fn key_of(entry: &Entry) -> Option<Key> {
    let certificate = entry.chain.first()?;
    let place = entry.alias.as_deref().and_then(Place::of_alias);
    Some((certificate.fingerprint(), place))
}

#[derive(Debug, Serialize)]
struct FileRow {
    file: PathBuf,
    format: &'static str,
    certificates: usize,
    new: usize,
}

#[derive(Debug, Serialize)]
struct Consolidated {
    out: PathBuf,
    format: &'static str,
    certificates: usize,
    files: Vec<FileRow>,
}

#[derive(Debug, Serialize)]
struct Diff {
    same: usize,
    differing: Vec<DiffRow>,
}

#[derive(Debug, Serialize)]
struct DiffRow {
    only_in: &'static str,
    alias: Option<String>,
    certificate: pb::Certificate,
}

const SHORTEST_OF_JAVA: usize = 6;
