//! `cert`: the certificates that this node shows.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{
    cli::{
        args::{Cert, CertNew, Global, Purpose},
        as_of,
        client::{answer, connect},
        cluster::shown,
        failure::{Failure, Outcome},
        output::{Report, record, time, yes},
        rotate, stores,
    },
    clock::Clock,
    domain::address::is_host,
    edge::admin::views,
    trust::{
        certificate::Certificate,
        formats::{Contents, Keys},
        make::{self, CertRequest, KeyKind, Usage},
    },
    wire::admin as pb,
};

/// Runs one of the verbs.
///
/// # Errors
/// What the daemon refuses, and files that can't be read or written.
pub async fn run(global: &Global, verb: Cert) -> Outcome {
    match verb {
        Cert::Show {
            file: Some(file),
            as_of,
            password,
        } => {
            let what = format!("cannot show {}", shown(&file));
            let read = stores::read(&what, &file, &password, Keys::Drop)?;
            if let Some(as_of) = as_of {
                let read = read.certificates();
                let all: Vec<_> = read.iter().map(views::certificate).collect();
                return Ok(as_of::certificates(&all, as_of));
            }
            Ok(contents_report(&read))
        }
        Cert::Show {
            file: None, as_of, ..
        } => {
            let mut client = connect(global).await?;
            let asked = client.list_identities(pb::ListIdentitiesRequest {});
            let all = answer("cannot show the certificates", asked.await)?.identities;
            if let Some(as_of) = as_of {
                let sent = all
                    .into_iter()
                    .flat_map(|i| i.certificate.into_iter().chain(i.chain));
                return Ok(as_of::certificates(&sent.collect::<Vec<_>>(), as_of));
            }
            Ok(Report::new(identities_text(&all), &all))
        }
        Cert::Rotate(verb) => rotate::run(global, verb).await,
        Cert::New(args) => new(&args, &Clock::system()),
        Cert::Reload => {
            let mut client = connect(global).await?;
            let asked = client.reload_identities(pb::ReloadIdentitiesRequest {});
            let what = "cannot use the certificate files; those from before stay in use";
            let all = answer(what, asked.await)?.identities;
            let text = format!("in use from now on:\n\n{}", identities_text(&all));
            Ok(Report::new(text, &all))
        }
    }
}

/// Every certificate of a file, in its order, under the names that it has there.
fn contents_report(contents: &Contents) -> Report {
    let mut all = Vec::new();
    let mut texts = Vec::new();
    for entry in &contents.entries {
        for certificate in &entry.chain {
            let certificate = views::certificate(certificate);
            let mut fields = certificate_fields(&certificate);
            if let Some(alias) = &entry.alias {
                fields.insert(0, ("alias", alias.clone()));
            }
            texts.push(record(&fields));
            all.push(certificate);
        }
    }
    Report::new(texts.join("\n\n"), &all)
}

/// The files that `cert new` has written.
#[derive(Debug, Serialize)]
struct Written {
    certificate_file: PathBuf,
    key_file: PathBuf,
    certificate: pb::Certificate,
}

fn new(args: &CertNew, clock: &Clock) -> Outcome {
    let what = "cannot make a new certificate";
    if let Some(odd) = args.name.iter().find(|name| !is_host(name)) {
        return Err(Failure::new(
            what,
            format!("{odd:?} is neither a DNS name nor an IP address"),
            "give each name by which others reach the node with a --name of its own",
        ));
    }
    let kind = match args.purpose {
        Purpose::Federation | Purpose::FederationClient => KeyKind::P256,
        Purpose::Phone => KeyKind::Rsa2048,
    };
    let request = CertRequest::new(
        &args.common_name,
        args.name.clone(),
        kind,
        clock.now(),
        args.days,
    )
    .with_usage(match args.purpose {
        Purpose::FederationClient => Usage::Client,
        Purpose::Federation | Purpose::Phone => Usage::Both,
    });
    let made = make::self_signed(&request)
        .map_err(|cause| Failure::from_error(what, &cause, "correct the names and try again"))?;
    let certificate_file = with_ending(&args.out, "pem");
    let key_file = with_ending(&args.out, "key");
    for file in [&certificate_file, &key_file] {
        if file.symlink_metadata().is_ok() {
            return Err(Failure::new(
                what,
                format!(
                    "{} is there already, and no key is ever overwritten",
                    shown(file)
                ),
                "give another path with --out",
            ));
        }
    }
    let unwritable = |file: &Path| {
        let why = shown(file);
        move |cause| {
            Failure::new(
                what,
                format!("{why}: {cause}"),
                "check the folder and its permissions",
            )
        }
    };
    make::write_private(&key_file, &made.key_pem).map_err(unwritable(&key_file))?;
    make::write_public(&certificate_file, &made.certificate_pem)
        .map_err(unwritable(&certificate_file))?;
    let certificate = Certificate::from_der(&made.certificate_der);
    let certificate = certificate
        .as_ref()
        .map(views::certificate)
        .unwrap_or_default();
    let mut text = format!(
        "wrote {} and {} (readable by you alone)\n\n{}\n\n",
        shown(&certificate_file),
        shown(&key_file),
        certificate_text(&certificate)
    );
    text += match args.purpose {
        Purpose::Federation => {
            "next: have the peers trust the new certificate (emccd trust add ID --pin FILE), put both files where the configuration has them ([identity]; emccd cert show names them), then: emccd cert reload"
        }
        Purpose::FederationClient => {
            "next: have the peers trust the new certificate (emccd trust add ID --pin FILE), put both files where the configuration has them ([identity.client]; emccd cert show names them), then: emccd cert reload"
        }
        Purpose::Phone => {
            "next: put both files where the configuration has them ([phone]; emccd cert show names them), then: emccd cert reload"
        }
    };
    let written = Written {
        certificate_file,
        key_file,
        certificate,
    };
    Ok(Report::new(text, &written))
}

/// Appended rather than replaced: `node.example` is a name, not a file with an ending.
fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

fn identities_text(all: &[pb::Identity]) -> String {
    let texts: Vec<_> = all
        .iter()
        .map(|identity| {
            let mut fields = vec![
                ("shown to", shown_to(&identity.purpose).to_owned()),
                ("file", identity.file.clone().unwrap_or_default()),
            ];
            if let Some(certificate) = &identity.certificate {
                fields.extend(certificate_fields(certificate));
            }
            if !identity.chain.is_empty() {
                let subjects: Vec<_> = identity.chain.iter().map(|c| &*c.subject).collect();
                fields.push(("sent with it", subjects.join(" > ")));
            }
            if let Some(problem) = &identity.problem {
                fields.push(("problem", problem.clone()));
            }
            record(&fields)
        })
        .collect();
    texts.join("\n\n")
}

fn shown_to(purpose: &str) -> &str {
    match purpose {
        "federation" => "peers",
        "federation-client" => "peers that it calls",
        "phone" => "phones",
        other => other,
    }
}

fn certificate_text(certificate: &pb::Certificate) -> String {
    record(&certificate_fields(certificate))
}

fn certificate_fields(certificate: &pb::Certificate) -> Vec<(&'static str, String)> {
    vec![
        ("subject", certificate.subject.clone()),
        ("issuer", certificate.issuer.clone()),
        ("names", certificate.names.join(" ")),
        ("valid from", time(&certificate.not_before)),
        ("valid until", time(&certificate.not_after)),
        ("authority", yes(certificate.is_ca)),
        ("SHA-256", certificate.fingerprint.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn args(out: PathBuf) -> CertNew {
        CertNew {
            purpose: Purpose::Federation,
            common_name: "berlin".to_owned(),
            name: vec!["emcc.berlin.example".to_owned(), "10.0.0.7".to_owned()],
            days: 30,
            out,
        }
    }

    #[test]
    fn a_new_certificate_comes_with_a_key_that_only_its_owner_reads() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("node.example");
        let report = new(&args(out), &Clock::system()).unwrap();
        let key = dir.path().join("node.example.key");
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let names = report.json["certificate"]["names"].clone();
        assert_eq!(
            names,
            serde_json::json!(["emcc.berlin.example", "10.0.0.7"])
        );
        assert!(
            report.text.contains("next: ") && report.text.contains("cert reload"),
            "{}",
            report.text
        );
        let shown = report.text + &report.json.to_string();
        let secret = fs::read_to_string(&key).unwrap();
        let body = secret.lines().nth(1).unwrap();
        assert!(!shown.contains(body), "the key was printed");
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("node");
        fs::write(dir.path().join("node.key"), "precious").unwrap();
        let refused = new(&args(out), &Clock::system()).unwrap_err().to_string();
        assert!(refused.contains("is there already"), "{refused}");
        assert!(!dir.path().join("node.pem").exists());
        assert_eq!(
            fs::read_to_string(dir.path().join("node.key")).unwrap(),
            "precious"
        );
    }

    #[test]
    fn a_name_that_cannot_be_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut args = args(dir.path().join("node"));
        for odd in ["ä", "a b", "emcc.berlin.example:8444", "https://berlin", ""] {
            args.name = vec!["localhost".to_owned(), odd.to_owned()];
            let refused = new(&args, &Clock::system()).unwrap_err().to_string();
            assert!(
                refused.contains("neither a DNS name") && refused.contains("--name"),
                "{refused}"
            );
        }
    }

    #[test]
    fn identities_are_records() {
        let all = [pb::Identity {
            purpose: "federation".to_owned(),
            certificate: Some(pb::Certificate {
                subject: "CN=berlin".to_owned(),
                issuer: "CN=berlin".to_owned(),
                names: vec!["a".to_owned(), "b".to_owned()],
                not_before: "2026-01-01T00:00:00.000Z".to_owned(),
                not_after: "2028-01-01T00:00:00.000Z".to_owned(),
                fingerprint: "AB:CD".to_owned(),
                is_ca: false,
            }),
            file: Some("/etc/emccd/federation.pem".to_owned()),
            problem: Some("it expires in 5 days".to_owned()),
            ..pb::Identity::default()
        }];
        let expected = "\
shown to     peers
file         /etc/emccd/federation.pem
subject      CN=berlin
issuer       CN=berlin
names        a b
valid from   2026-01-01 00:00:00Z
valid until  2028-01-01 00:00:00Z
authority    no
SHA-256      AB:CD
problem      it expires in 5 days";
        assert_eq!(identities_text(&all), expected);
    }
}
