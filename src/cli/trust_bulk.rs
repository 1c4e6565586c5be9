//! `trust export` and `trust import`: many certificates at once, from and to a file of any format.

use std::path::Path;

use crate::{
    cli::{
        args::{Global, TrustExport, TrustImport},
        client::{Client, answer, connect},
        cluster::shown,
        confirm::confirm,
        failure::{Failure, Outcome},
        output::{Report, count, table, time},
        progress::{Form, Shown},
        stores,
        trust::list_text,
        trust_files::{format_for, write_out},
    },
    domain::ids::ClusterId,
    trust::{
        certificate::Certificate,
        formats::{
            Entry, Keys,
            place::{self, Kind, Place},
        },
    },
    wire::admin as pb,
};

/// Writes what this cluster shows, or trusts, or both, to a file.
///
/// # Errors
/// What the daemon refuses, and a file that can't be written.
pub(super) async fn export(global: &Global, args: &TrustExport) -> Outcome {
    let what = format!("cannot write {}", shown(&args.out));
    let mut client = connect(global).await?;
    let both = args.own == args.trusted;
    let asked = pb::ExportTrustRequest {
        own: both || args.own,
        trusted: both || args.trusted,
    };
    let mut pieces = answer(&*what, client.export_trust(asked).await)?;
    let mut entries = Vec::new();
    let mut unreported = Vec::new();
    while let Some(piece) = pieces
        .message()
        .await
        .map_err(|status| Failure::from_status(&*what, &status))?
    {
        unreported.extend(piece.unreported);
        for certificate in piece.certificates {
            entries.push(exported(&what, certificate)?);
        }
    }
    if entries.is_empty() {
        return Err(Failure::new(
            what,
            "there is no certificate to write",
            "make an identity with emccd cert new, or trust a peer with emccd trust add",
        ));
    }
    let format = format_for(args.format, &args.out);
    write_out(&what, &args.out, format, &entries, &args.password, None)?;
    let text = format!(
        "wrote {}: {} in {format}\n\nnext, at the others: emccd trust import {} --dry-run",
        shown(&args.out),
        count(entries.len(), "certificate"),
        shown(&args.out),
    );
    let written = serde_json::json!({
        "out": args.out,
        "format": format.as_str(),
        "certificates": entries.len(),
    });
    let report = Report::new(text, &written);
    Ok(match unreported.is_empty() {
        true => report,
        false => report.with_note(format!(
            "not in it: what {} shows, which has not put it on record",
            unreported.join(", ")
        )),
    })
}

fn exported(what: &str, certificate: pb::BulkCertificate) -> Outcome<Entry> {
    let broken = |why: String| Failure::new(what, why, "look at the daemon's log");
    let read = Certificate::from_der(&certificate.der).map_err(|e| broken(e.to_string()))?;
    let cluster = ClusterId::new(certificate.cluster_id)
        .map_err(|_| broken("a cluster ID is none".to_owned()))?;
    let kind = if certificate.kind == Kind::Anchor.as_str() {
        Kind::Anchor
    } else {
        Kind::Pinned
    };
    let name = match &*certificate.alias {
        "" => read.subject(),
        alias => alias,
    };
    let alias = place::alias(&cluster, kind, name);
    Ok(Entry::trusted(Some(alias), read))
}

/// Brings a file of certificates in, or tells what that would do.
///
/// # Errors
/// What the daemon refuses, and a file that can't be read.
pub(super) async fn import(global: &Global, args: &TrustImport) -> Outcome {
    let what = format!("cannot import {}", shown(&args.file));
    let certificates = certificates(&what, args)?;
    let mut client = connect(global).await?;
    let mut shown = Shown::new(Form::of(global));
    let dry = send(
        &mut client,
        &what,
        &certificates,
        (true, args.replace),
        &mut shown,
    )
    .await?;
    if args.dry_run {
        return Ok(Report::new(import_text(&dry, &args.file), &dry));
    }
    if !args.yes
        && let Some(question) = question(&dry)
    {
        confirm(&what, &question)?;
    }
    let done = send(
        &mut client,
        &what,
        &certificates,
        (false, args.replace),
        &mut shown,
    )
    .await?;
    Ok(Report::new(import_text(&done, &args.file), &done))
}

/// The certificates of the file, each with whose it is.
fn certificates(what: &str, args: &TrustImport) -> Outcome<Vec<pb::BulkCertificate>> {
    let contents = stores::read(what, &args.file, &args.password, Keys::Refuse)?;
    let mut certificates = Vec::new();
    let mut nobodys = 0;
    for entry in contents.entries {
        let alias = entry.alias.unwrap_or_default();
        let place = Place::of_alias(&alias);
        let (cluster, kind) = match (&place, &args.cluster) {
            (Some(place), Some(only)) if !place.is_of(only) => continue,
            (Some(place), _) => (place.cluster().to_owned(), place.kind.as_str()),
            (None, Some(cluster)) => (cluster.to_string(), args.kind.as_str()),
            (None, None) => {
                nobodys += 1;
                continue;
            }
        };
        let name = match place {
            Some(_) => alias.splitn(3, '/').nth(2).unwrap_or_default(),
            None => &alias,
        };
        for certificate in entry.chain {
            certificates.push(pb::BulkCertificate {
                cluster_id: cluster.clone(),
                kind: kind.to_owned(),
                alias: name.to_owned(),
                der: certificate.der().to_vec(),
            });
        }
    }
    if nobodys > 0 {
        return Err(Failure::new(
            what,
            format!(
                "{} in it have no alias CLUSTER/KIND/NAME that says whose they are",
                count(nobodys, "certificate")
            ),
            "say whose they are: --cluster ID; or have the other side write the file with emccd trust export",
        ));
    }
    if let (true, Some(cluster)) = (certificates.is_empty(), &args.cluster) {
        return Err(Failure::new(
            what,
            format!("none of its certificates is of {cluster}"),
            "look at the aliases in it: emccd cert show FILE",
        ));
    }
    Ok(certificates)
}

async fn send(
    client: &mut Client,
    what: &str,
    certificates: &[pb::BulkCertificate],
    (dry_run, replace): (bool, bool),
    shown: &mut Shown,
) -> Outcome<pb::ImportedTrust> {
    let pieces: Vec<_> = certificates
        .chunks(IN_ONE_MESSAGE)
        .map(|some| pb::ImportTrustRequest {
            dry_run,
            replace,
            certificates: some.to_vec(),
        })
        .collect();
    let failed = |status: &tonic::Status| Failure::from_status(what, status);
    let answered = client.import_trust(tokio_stream::iter(pieces)).await;
    let mut told = answered.map_err(|status| failed(&status))?.into_inner();
    let mut imported = pb::ImportedTrust::default();
    while let Some(message) = told.message().await.map_err(|status| failed(&status))? {
        if let Some(progress) = &message.progress {
            shown.show(progress);
        }
        if let Some(done) = message.imported {
            imported.dry_run = done.dry_run;
            imported.passed_over.extend(done.passed_over);
            imported.unreported.extend(done.unreported);
            for peer in done.peers {
                match imported.peers.last_mut() {
                    Some(last) if last.cluster_id == peer.cluster_id => {
                        last.added.extend(peer.added);
                    }
                    _ => imported.peers.push(peer),
                }
            }
        }
    }
    Ok(imported)
}

/// What somebody should agree to: that something goes, or that a connection ends.
fn question(dry: &pb::ImportedTrust) -> Option<String> {
    let mut told = Vec::new();
    for peer in &dry.peers {
        for connection in &peer.connections {
            if connection.fate != GOES_ON {
                told.push(connection_text(connection));
            }
        }
        if !peer.replaced.is_empty() {
            let replaced = count(peer.replaced.len(), "certificate");
            told.push(format!(
                "{replaced} of {} will be trusted no more",
                peer.cluster_id
            ));
        }
        if !peer.unheard.is_empty() {
            told.push(unheard_text(peer));
        }
        if peer.enabled && peer.good == 0 {
            told.push(nothing_left(&peer.cluster_id));
        }
    }
    (!told.is_empty()).then(|| format!("{}. Import all the same?", told.join("; ")))
}

/// Which nodes' connections are not known.
pub(super) fn not_looked_at(unreported: &[String]) -> String {
    match unreported.is_empty() {
        true => String::new(),
        false => format!(
            "\n\nnot looked at: the connections of {}, which has not put them on record",
            unreported.join(", ")
        ),
    }
}

fn nothing_left(cluster: &str) -> String {
    format!("there will be no link with {cluster}: nothing that is left of it is valid")
}

fn unheard_text(peer: &pb::TrustImpact) -> String {
    format!(
        "{} that {} announced on the word of what goes will wait for nobody any more: {}",
        count(peer.unheard.len(), "certificate"),
        peer.cluster_id,
        peer.unheard.join(", ")
    )
}

fn connection_text(connection: &pb::LiveConnection) -> String {
    let told = &connection.told;
    match &*connection.fate {
        GOES_ON if connection.until.is_empty() => format!("{told} goes on"),
        GOES_ON => format!(
            "{told} goes on, until {} at the longest",
            time(&connection.until)
        ),
        "may-end" => format!("{told} ends at once unless an authority vouches for it"),
        _ => format!("{told} ends at once"),
    }
}

fn import_text(imported: &pb::ImportedTrust, file: &Path) -> String {
    let rows = imported.peers.iter().map(|peer| {
        [
            peer.cluster_id.clone(),
            peer.added.len().to_string(),
            peer.kept.to_string(),
            peer.replaced.len().to_string(),
            peer.good.to_string(),
            time(&peer.good_until),
        ]
    });
    let headings = [
        "PEER",
        "ADDED",
        "KEPT",
        "REPLACED",
        "THEN VALID",
        "THE LAST UNTIL",
    ];
    let mut text = table(headings, rows.collect());
    for peer in &imported.peers {
        for (heading, entries) in [("added", &peer.added), ("replaced", &peer.replaced)] {
            if entries.is_empty() {
                continue;
            }
            let some = entries.get(..MOST_SHOWN).unwrap_or(entries);
            text += &format!(
                "\n\n{heading}, of {}:\n{}",
                peer.cluster_id,
                list_text(some)
            );
            if let Some(more) = entries
                .len()
                .checked_sub(MOST_SHOWN)
                .filter(|more| *more > 0)
            {
                text += &format!("\nand {more} more (all of them: --json)");
            }
        }
    }
    let mut connections: Vec<String> = Vec::new();
    for peer in &imported.peers {
        if peer.adopted > 0 {
            text += &format!(
                "\n\nof those that are kept, {} had announced {}; they are yours from now on",
                peer.cluster_id, peer.adopted
            );
        }
        if !peer.unheard.is_empty() {
            text += &format!("\n\n{}", unheard_text(peer));
        }
        connections.extend(peer.connections.iter().map(connection_text));
        if peer.enabled && peer.good == 0 {
            connections.push(nothing_left(&peer.cluster_id));
        }
    }
    if !connections.is_empty() {
        text += &format!("\n\nconnections:\n  {}", connections.join("\n  "));
    }
    text += &not_looked_at(&imported.unreported);
    for passed in &imported.passed_over {
        let why = match passed.is_own {
            true => "which is this cluster itself",
            false => "which is no peer of this cluster",
        };
        text += &format!(
            "\n\npassed over: {} of {}, {why}",
            count(
                usize::try_from(passed.certificates).unwrap_or(usize::MAX),
                "certificate"
            ),
            passed.cluster_id
        );
    }
    if imported.dry_run {
        text += &format!(
            "\n\nnothing was changed\n\nnext: emccd trust import {} without --dry-run",
            shown(file)
        );
    }
    text
}

const GOES_ON: &str = "goes-on";
/// In text; programs get all of them.
const MOST_SHOWN: usize = 20;
/// A message of a few hundred KiB.
const IN_ONE_MESSAGE: usize = 500;
