//! `trust`: the certificates that are accepted from other clusters.

use std::path::Path;

use crate::{
    cli::{
        args::{Global, RemovalMode, StorePassword, Trust, TrustRemove},
        as_of,
        client::{Client, answer, connect},
        confirm::confirm,
        failure::{Failure, Outcome},
        output::{Report, count, table, time},
        stores, trust_accept,
        trust_bulk::{self, not_looked_at},
        trust_crl, trust_explain, trust_files,
    },
    trust::{
        certificate::fingerprint_text,
        formats::{self, Format, Keys},
    },
    wire::admin as pb,
};

/// Runs one of the verbs.
///
/// # Errors
/// What the daemon refuses, and files that hold no certificate.
pub async fn run(global: &Global, verb: Trust) -> Outcome {
    match verb {
        Trust::Accept(args) => trust_accept::run(global, args).await,
        Trust::Add(args) => {
            let what = format!("cannot trust more from {}", args.cluster_id);
            let trust = match (&args.pin, &args.anchor) {
                (Some(file), _) => Some(material(&what, "pinned", file, &args.password)?),
                (None, Some(file)) => Some(material(&what, "anchor", file, &args.password)?),
                (None, None) => None,
            };
            let cluster_id = args.cluster_id.to_string();
            let mut client = connect(global).await?;
            let asked = client.add_trust(pb::AddTrustRequest {
                cluster_id,
                trust,
                unrevoke: args.unrevoke.as_ref().map(fingerprint_text),
            });
            let added = answer(what, asked.await)?;
            Ok(Report::new(added_text(&added), &added))
        }
        Trust::List {
            cluster_id,
            as_of: Some(as_of),
        } => as_of::trust(global, cluster_id, as_of).await,
        Trust::List {
            cluster_id,
            as_of: None,
        } => {
            let mut client = connect(global).await?;
            let asked = client.list_trust(pb::ListTrustRequest {
                cluster_id: cluster_id.map(Into::into),
            });
            let entries = answer("cannot list what is trusted", asked.await)?.entries;
            Ok(Report::new(list_text(&entries), &entries))
        }
        Trust::Explain(args) => trust_explain::run(global, args).await,
        Trust::Remove(args) => remove(global, args).await,
        Trust::Consolidate(args) => trust_files::consolidate(&args),
        Trust::Diff(args) => trust_files::diff(&args),
        Trust::Export(args) => trust_bulk::export(global, &args).await,
        Trust::Import(args) => trust_bulk::import(global, &args).await,
        Trust::Crl(verb) => trust_crl::run(global, verb).await,
    }
}

async fn remove(global: &Global, args: TrustRemove) -> Outcome {
    let cluster_id = args.cluster_id.to_string();
    let fingerprint = fingerprint_text(&args.fingerprint);
    let what = format!("cannot take trust from {cluster_id}");
    let mut client = connect(global).await?;
    if !args.yes {
        let asks = question(&mut client, &what, (&cluster_id, &fingerprint), args.mode);
        let question = asks.await?;
        confirm(&what, &question)?;
    }
    let asked = client.remove_trust(pb::RemoveTrustRequest {
        cluster_id: cluster_id.clone(),
        fingerprint: fingerprint.clone(),
        mode: args.mode.as_str().to_owned(),
    });
    let removed = answer(what, asked.await)?;
    let text = removed_text(&cluster_id, &fingerprint, &removed);
    Ok(Report::new(text, &removed))
}

/// Names the certificate and what hangs on it, so that the wrong one isn't removed.
async fn question(
    client: &mut Client,
    what: &str,
    (cluster_id, fingerprint): (&str, &str),
    mode: RemovalMode,
) -> Outcome<String> {
    let query = pb::ListTrustRequest {
        cluster_id: Some(cluster_id.to_owned()),
    };
    let entries = answer(what, client.list_trust(query).await)?.entries;
    Ok(question_text(cluster_id, fingerprint, &entries, mode))
}

/// About one of a peer's entries, or about a certificate that is none.
fn question_text(
    cluster_id: &str,
    fingerprint: &str,
    entries: &[pb::TrustEntry],
    mode: RemovalMode,
) -> String {
    let is_accepted = |entry: &pb::TrustEntry| matches!(&*entry.kind, "pinned" | "anchor");
    let entry = entries.iter().find(|entry| {
        let certificate = entry.certificate.as_ref();
        entry.kind != "revoked" && certificate.is_some_and(|c| c.fingerprint == fingerprint)
    });
    let accepted = entries.iter().filter(|entry| is_accepted(entry)).count();
    let ends = format!(
        "there will be no link with {cluster_id}, and the sessions shared with it end, unless \
         end-sessions-on-revocation is off."
    );
    let more = match (entry.is_some_and(is_accepted), accepted, mode) {
        (true, 1, _) => format!(" It is the last one: {ends}"),
        (_, _, RemovalMode::Cascade) => format!(
            " What {cluster_id} announced on its word goes with it; where nothing is left then, {ends}"
        ),
        _ => String::new(),
    };
    let Some(entry) = entry else {
        // Vouched for by an authority at most; or a slip, which the daemon's own words tell best.
        return format!(
            "It is not among the certificates that are trusted from {cluster_id}.{more} Revoke it, so that no \
             authority's word for it as one of {cluster_id} counts?"
        );
    };
    let subject = entry.certificate.clone().unwrap_or_default().subject;
    let ends = match &*entry.kind {
        "anchor" => "Live connections whose certificates it vouches for end.",
        "waiting" => "It waits to be accepted, and will wait no more.",
        _ => "Live connections of that certificate end.",
    };
    format!(
        "{ends}{more} Trust {subject} ({}) of {cluster_id} no more?",
        entry.kind
    )
}

fn removed_text(cluster_id: &str, fingerprint: &str, removed: &pb::RemoveTrustResponse) -> String {
    let subjects: Vec<_> = removed
        .removed
        .iter()
        .map(|entry| entry.certificate.clone().unwrap_or_default().subject)
        .collect();
    let mut text = if subjects.is_empty() {
        format!(
            "{fingerprint} was not among the certificates that are trusted from {cluster_id}; it is revoked for \
             {cluster_id}: if it was not meant, take that back with `emccd trust add {cluster_id} --unrevoke \
             {fingerprint}`"
        )
    } else {
        format!(
            "{} of {cluster_id} is trusted no more; live connections that rest on it end",
            subjects.join(", ")
        )
    };
    text += &not_looked_at(&removed.unreported);
    if !removed.descendants.is_empty() {
        text += &format!(
            "\nwith it goes what had been announced on its word: {}",
            removed.descendants.join(", ")
        );
    }
    if removed.revoked {
        text += &format!(
            "\nrevoked: no authority's word for it counts; `emccd trust add {cluster_id} --unrevoke HEX` takes that back"
        );
    }
    match removed.left {
        0 => {
            let ended = match usize::try_from(removed.sessions).unwrap_or(usize::MAX) {
                0 => String::new(),
                1 => ": the session shared with it ends here; it is told when there is trust again"
                    .to_owned(),
                many => format!(
                    ": the {many} sessions shared with it end here; it is told when there is trust again"
                ),
            };
            format!(
                "{text}\nnothing is trusted from {cluster_id} now{ended}\n\nnext: emccd trust add {cluster_id} --pin FILE"
            )
        }
        left => {
            let left = count(usize::try_from(left).unwrap_or(usize::MAX), "certificate");
            format!("{text}\nleft: {left}")
        }
    }
}

/// Reads a file of certificates for the daemon, which gets them alone, in PEM. What is no certificate, and above all a
/// private key, is refused here already: it must not travel, not even over a socket.
pub(super) fn material(
    what: &str,
    kind: &str,
    file: &Path,
    password: &StorePassword,
) -> Outcome<pb::TrustMaterial> {
    let contents = stores::read(what, file, password, Keys::Refuse)?;
    let certificates = formats::write(Format::Pem, &contents.entries, None);
    Ok(pb::TrustMaterial {
        kind: kind.to_owned(),
        certificates: certificates
            .map_err(|cause| Failure::from_error(what, &cause, "give another file"))?,
    })
}

/// Entries as a table.
pub(super) fn list_text(entries: &[pb::TrustEntry]) -> String {
    if entries.is_empty() {
        return "nothing is trusted\n\nnext: emccd trust add ID --pin FILE".to_owned();
    }
    let rows = entries.iter().map(|entry| {
        let certificate = entry.certificate.clone().unwrap_or_default();
        let known = |text: String| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                text
            }
        };
        [
            entry.cluster_id.clone(),
            entry.kind.clone(),
            known(entry.source.clone()),
            known(entry.alias.clone()),
            known(certificate.subject),
            known(time(&certificate.not_after)),
            certificate.fingerprint,
        ]
    });
    let table = table(
        [
            "PEER",
            "KIND",
            "SOURCE",
            "ALIAS",
            "SUBJECT",
            "VALID UNTIL",
            "FINGERPRINT (SHA-256)",
        ],
        rows.collect(),
    );
    let notes: String = entries.iter().filter_map(origin_text).collect();
    match notes.is_empty() {
        true => table,
        false => format!("{table}\n{notes}").trim_end().to_owned(),
    }
}

/// What the peer said of a certificate of its own, and on whose word that was taken.
fn origin_text(entry: &pb::TrustEntry) -> Option<String> {
    if entry.identities.is_empty() && entry.parent.is_empty() {
        return None;
    }
    let fingerprint = &entry.certificate.as_ref()?.fingerprint;
    let mut text = format!("\n{}: {fingerprint}\n", entry.cluster_id);
    if !entry.identities.is_empty() {
        text += &format!("  announced as that of {}\n", entry.identities.join(", "));
    }
    if !entry.parent.is_empty() {
        text += &format!(
            "  on the word of {}: revoking that one takes it along\n",
            entry.parent
        );
    }
    Some(text)
}

fn added_text(added: &pb::AddTrustResponse) -> String {
    let mut text = match added.added.len() {
        // Asked for by its fingerprint.
        0 if added.kept == 0 && added.unrevoked > 0 => {
            return "revoked no longer; trusted if it is pinned or an authority vouches for it"
                .to_owned();
        }
        0 => "nothing new".to_owned(),
        n => format!("added {}", count(n, "certificate")),
    };
    if added.kept > 0 {
        text += &format!(", {} trusted already", added.kept);
    }
    if added.unrevoked > 0 {
        text += &format!(", {} had been revoked and no longer is", added.unrevoked);
    }
    if !added.added.is_empty() {
        text += "\n";
        text += &list_text(&added.added);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::{
        clock::Clock,
        trust::{
            certificate::Certificate,
            make::{self, CertRequest, KeyKind, Made},
        },
    };

    fn leaf() -> Made {
        let names = vec!["a.example".to_owned()];
        let request = CertRequest::new("a", names, KeyKind::P256, Clock::system().now(), 30);
        make::self_signed(&request).unwrap()
    }

    fn material(file: &Path) -> Outcome<pb::TrustMaterial> {
        super::material("cannot", "pinned", file, &StorePassword::default())
    }

    fn file(dir: &tempfile::TempDir, content: &[u8]) -> PathBuf {
        let path = dir.path().join("f.pem");
        fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn certificates_of_any_format_are_handed_in_alone() {
        let dir = tempfile::tempdir().unwrap();
        let made = leaf();
        let with_talk = format!("from tokyo\n{}", made.certificate_pem);
        for content in [with_talk.as_bytes(), &made.certificate_der] {
            let path = file(&dir, content);
            let handed_in = material(&path).unwrap().certificates;
            assert!(!String::from_utf8_lossy(&handed_in).contains("from tokyo"));
            let read = Certificate::read_all(&handed_in).unwrap();
            assert_eq!(read[0].fingerprint(), made.fingerprint());
        }
    }

    #[test]
    fn a_file_that_is_no_trust_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (content, word) in [
            (&b"hello"[..], "no certificate"),
            (&b""[..], "no certificate"),
            (&key[..], "private key"),
            (&[b'a'; 70_000][..], "no certificate"),
        ] {
            let path = file(&dir, content);
            let text = material(&path).unwrap_err().to_string();
            assert!(text.contains(word) && text.contains("next: "), "{text}");
        }
        let missing = dir.path().join("none.pem");
        let text = material(&missing).unwrap_err().to_string();
        assert!(
            text.contains("none.pem") && text.contains("No such file"),
            "{text}"
        );
    }

    #[test]
    fn a_certificate_beside_its_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let both = leaf().certificate_pem
            + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let path = file(&dir, both.as_bytes());
        let text = material(&path).unwrap_err().to_string();
        assert!(text.contains("private key"), "{text}");
    }

    #[test]
    fn entries_are_a_table() {
        let entries = [pb::TrustEntry {
            cluster_id: "tokyo".to_owned(),
            kind: "pinned".to_owned(),
            certificate: Some(pb::Certificate {
                subject: "CN=tokyo".to_owned(),
                not_after: "2028-01-01T00:00:00.000Z".to_owned(),
                fingerprint: "AB:CD".to_owned(),
                ..pb::Certificate::default()
            }),
            source: "operator".to_owned(),
            ..pb::TrustEntry::default()
        }];
        assert_eq!(
            list_text(&entries),
            "PEER   KIND    SOURCE    ALIAS  SUBJECT   VALID UNTIL           FINGERPRINT (SHA-256)\n\
             tokyo  pinned  operator  -      CN=tokyo  2028-01-01 00:00:00Z  AB:CD"
        );
        let [mut announced] = entries;
        announced.source = "announced".to_owned();
        announced.identities = vec!["t1/federation".to_owned(), "t2/federation".to_owned()];
        announced.parent = "12:34".to_owned();
        let text = list_text(&[announced]);
        let notes = "\n\ntokyo: AB:CD\n  announced as that of t1/federation, t2/federation\n  on the word of 12:34: \
                     revoking that one takes it along";
        assert!(text.ends_with(notes), "{text}");
        let added = pb::AddTrustResponse {
            kept: 1,
            ..pb::AddTrustResponse::default()
        };
        assert_eq!(added_text(&added), "nothing new, 1 trusted already");
    }

    #[test]
    fn the_question_says_what_ends() {
        let entry = |kind: &str, fingerprint: &str| pb::TrustEntry {
            kind: kind.to_owned(),
            certificate: Some(pb::Certificate {
                subject: format!("CN={fingerprint}"),
                fingerprint: fingerprint.to_owned(),
                ..pb::Certificate::default()
            }),
            ..pb::TrustEntry::default()
        };
        let all = [
            entry("pinned", "a"),
            entry("anchor", "b"),
            entry("waiting", "c"),
            entry("revoked", "d"),
        ];
        let [a, _, c, d] = all.clone();
        let question = |of, entries: &[_], mode| question_text("tokyo", of, entries, mode);
        assert_eq!(
            question("a", &all, RemovalMode::Unlink),
            "Live connections of that certificate end. Trust CN=a (pinned) of tokyo no more?"
        );
        let cascade = question("a", &all, RemovalMode::Cascade);
        assert!(
            cascade.contains("on its word goes with it") && cascade.contains("sessions shared"),
            "{cascade}"
        );
        let last = question("b", &all[1..], RemovalMode::Refuse);
        assert!(
            last.contains("vouches for end") && last.contains("no link"),
            "{last}"
        );
        // What waits or is revoked is not accepted.
        let last = question("a", &[a, c, d], RemovalMode::Unlink);
        assert!(last.contains("last one"), "{last}");
        let waits = question("c", &all[1..], RemovalMode::Refuse);
        assert_eq!(
            waits,
            "It waits to be accepted, and will wait no more. Trust CN=c (waiting) of tokyo no more?"
        );
        for unknown in ["d", "e"] {
            let unknown = question(unknown, &all, RemovalMode::Refuse);
            assert!(
                unknown.contains("not among")
                    && unknown.contains("Revoke it")
                    && !unknown.contains("sessions"),
                "{unknown}"
            );
        }
        let unknown = question("e", &all[1..], RemovalMode::Cascade);
        assert!(
            unknown.contains("on its word goes with it") && !unknown.contains("last one"),
            "{unknown}"
        );
    }
}
