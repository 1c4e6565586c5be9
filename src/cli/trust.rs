//! `trust`: the certificates that are accepted from other clusters.

use std::{fs::File, io::Read, path::Path};

use crate::{
    cli::{
        args::{Global, Trust},
        client::{answer, connect},
        cluster::shown,
        failure::{Failure, Outcome},
        output::{Report, count, table, time},
    },
    trust::certificate::Certificate,
    wire::admin as pb,
};

/// Runs one of the verbs.
///
/// # Errors
/// What the daemon refuses, and files that hold no certificate.
pub async fn run(global: &Global, verb: Trust) -> Outcome {
    match verb {
        Trust::Add(args) => {
            let what = format!("cannot trust more from {}", args.cluster_id);
            let trust = match (&args.pin, &args.anchor) {
                (Some(file), _) => Some(material(&what, "pinned", file)?),
                (None, Some(file)) => Some(material(&what, "anchor", file)?),
                (None, None) => None,
            };
            let cluster_id = args.cluster_id.to_string();
            let mut client = connect(global).await?;
            let asked = client.add_trust(pb::AddTrustRequest { cluster_id, trust });
            let added = answer(what, asked.await)?;
            Ok(Report::new(added_text(&added), &added))
        }
        Trust::List { cluster_id } => {
            let mut client = connect(global).await?;
            let asked = client.list_trust(pb::ListTrustRequest {
                cluster_id: cluster_id.map(Into::into),
            });
            let entries = answer("cannot list what is trusted", asked.await)?.entries;
            Ok(Report::new(list_text(&entries), &entries))
        }
    }
}

/// Reads a file of certificates for the daemon. What is no certificate, and above all a private key, is
/// refused here already: it must not travel, not even over a socket.
pub(super) fn material(what: &str, kind: &str, file: &Path) -> Outcome<pb::TrustMaterial> {
    let certificates = read_certificates(what, file)?;
    let pem: String = certificates.iter().map(|c| to_pem(c.der())).collect();
    Ok(pb::TrustMaterial {
        kind: kind.to_owned(),
        pem,
    })
}

/// The certificates of a file, in PEM or one in DER.
pub(super) fn read_certificates(what: &str, file: &Path) -> Outcome<Vec<Certificate>> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|f| f.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    if let Err(cause) = read {
        let next = "check the path and that you may read it";
        let why = format!("{}: {cause}", shown(file));
        return Err(Failure::new(what, why, next));
    }
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(Failure::new(
            what,
            format!("{} is larger than 48 KiB", shown(file)),
            "give a file with certificates alone",
        ));
    }
    Certificate::read_all(&bytes).map_err(|cause| {
        Failure::from_error(
            what,
            &InFile { file: shown(file), cause },
            "give a PEM file with certificates alone: lines from BEGIN CERTIFICATE to END CERTIFICATE",
        )
    })
}

#[derive(Debug, thiserror::Error)]
#[error("{file}")]
struct InFile {
    file: String,
    #[source]
    cause: crate::trust::Error,
}

/// Entries as a table.
pub(super) fn list_text(entries: &[pb::TrustEntry]) -> String {
    if entries.is_empty() {
        return "nothing is trusted\n\nnext: emccd trust add ID --pin FILE".to_owned();
    }
    let rows = entries.iter().map(|entry| {
        let certificate = entry.certificate.clone().unwrap_or_default();
        [
            entry.cluster_id.clone(),
            entry.kind.clone(),
            certificate.subject,
            time(&certificate.not_after),
            certificate.fingerprint,
        ]
    });
    table(
        ["PEER", "KIND", "SUBJECT", "VALID UNTIL", "FINGERPRINT (SHA-256)"],
        rows.collect(),
    )
}

fn added_text(added: &pb::AddTrustResponse) -> String {
    let mut text = match added.added.len() {
        0 => "nothing new".to_owned(),
        n => format!("added {}", count(n, "certificate")),
    };
    if added.kept > 0 {
        text += &format!(", {} trusted already", added.kept);
    }
    if !added.added.is_empty() {
        text += "\n";
        text += &list_text(&added.added);
    }
    text
}

/// Lines of 64 characters between the two that everyone knows.
pub(super) fn to_pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut column = 0;
    for group in der.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4usize {
            let index = usize::try_from(bits >> (18 - 6 * at) & 63).unwrap_or(0);
            let digit = BASE64.get(index).copied().unwrap_or(b'=');
            text.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
        column += 4;
        if column == 64 {
            text.push('\n');
            column = 0;
        }
    }
    if column > 0 {
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// As PEM this is still below what the daemon takes.
const MAX_FILE_BYTES: u64 = 48 * 1024;

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::{
        clock::Clock,
        trust::make::{self, CertRequest, KeyKind},
    };

    fn leaf() -> Certificate {
        let names = vec!["a.example".to_owned()];
        let request = CertRequest::new("a", names, KeyKind::P256, Clock::system().now(), 30);
        Certificate::from_der(&make::self_signed(&request).unwrap().certificate_der).unwrap()
    }

    fn file(dir: &tempfile::TempDir, content: &[u8]) -> PathBuf {
        let path = dir.path().join("f.pem");
        fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn what_is_written_as_pem_reads_back() {
        let leaf = leaf();
        let read = Certificate::read_all(to_pem(leaf.der()).as_bytes()).unwrap();
        assert_eq!(read, [leaf]);
        for length in 0..9u8 {
            let bytes: Vec<_> = (0..length).collect();
            let text = to_pem(&bytes);
            let padded = text.lines().nth(1).map_or(0, str::len);
            assert_eq!(padded % 4, 0, "{length}: {text}");
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
            (&[b'a'; 50_000][..], "larger than"),
        ] {
            let path = file(&dir, content);
            let text = material("cannot", "pinned", &path).unwrap_err().to_string();
            assert!(text.contains(word) && text.contains("next: "), "{text}");
        }
        let missing = dir.path().join("none.pem");
        let text = material("cannot", "pinned", &missing).unwrap_err().to_string();
        assert!(text.contains("none.pem") && text.contains("No such file"), "{text}");
    }

    #[test]
    fn a_certificate_beside_its_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let both = to_pem(leaf().der()) + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let path = file(&dir, both.as_bytes());
        let text = material("cannot", "pinned", &path).unwrap_err().to_string();
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
            added_at: String::new(),
        }];
        assert_eq!(
            list_text(&entries),
            "PEER   KIND    SUBJECT   VALID UNTIL           FINGERPRINT (SHA-256)\n\
             tokyo  pinned  CN=tokyo  2028-01-01 00:00:00Z  AB:CD"
        );
        let added = pb::AddTrustResponse { added: Vec::new(), kept: 1 };
        assert_eq!(added_text(&added), "nothing new, 1 trusted already");
    }
}
