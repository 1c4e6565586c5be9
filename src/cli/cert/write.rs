//! `cert new` and `cert csr`: files of one's own.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::certificate_text;
use crate::{
    cli::{
        args::{CertCsr, CertFields, CertNew, Purpose},
        cluster::shown,
        failure::{Failure, Outcome},
        output::{Report, record},
        stores::read_certificates,
    },
    clock::Clock,
    domain::address::is_host,
    edge::admin::views,
    secret::Secret,
    trust::{
        keys,
        make::{self, CertRequest, Subject, Usage},
    },
    wire::admin as pb,
};

/// The files that `cert new` has written.
#[derive(Debug, Serialize)]
struct Written {
    certificate_file: PathBuf,
    key_file: PathBuf,
    certificate: pb::Certificate,
}

/// Writes a key and a certificate that it signs itself.
///
/// # Errors
/// Names that can't be, and files that are there or can't be written.
pub(super) fn new(args: &CertNew, clock: &Clock) -> Outcome {
    let what = "cannot make a new certificate";
    let request = request(what, &args.fields, args.days, clock)?;
    let (certificate_file, key_file) =
        (with_ending(&args.out, "pem"), with_ending(&args.out, "key"));
    must_be_new(what, &[&certificate_file, &key_file])?;
    let made = make::self_signed(&request).map_err(|cause| unmade(what, &cause))?;
    write_key(what, &key_file, &made.key_pem)?;
    write_public(what, &certificate_file, &made.certificate_pem)?;
    let read = read_certificates(what, &certificate_file)?;
    let certificate = read.first().map(views::certificate).unwrap_or_default();
    let file = shown(&certificate_file);
    let mut text = format!(
        "wrote {file} and {} (readable by you alone)\n\n{}\n\n",
        shown(&key_file),
        certificate_text(&certificate)
    );
    text += &match args.fields.purpose {
        Purpose::Federation => format!(
            "next: have the peers trust the new certificate (emccd trust add ID --pin {file}), then: emccd cert install {file}"
        ),
        Purpose::FederationClient => format!(
            "next: have the peers trust the new certificate (emccd trust add ID --pin {file}), then: emccd cert install {file} --purpose federation-client"
        ),
        Purpose::Phone => format!("next: emccd cert install {file} --purpose phone"),
    };
    let written = Written {
        certificate_file,
        key_file,
        certificate,
    };
    Ok(Report::new(text, &written))
}

/// The files that `cert csr` has written.
#[derive(Debug, Serialize)]
struct Asked {
    request_file: PathBuf,
    key_file: PathBuf,
    names: Vec<String>,
    usages: &'static [&'static str],
}

/// Writes a request, and its key unless that is there.
///
/// # Errors
/// As [`new`], and a key that can't be used.
pub(super) fn csr(args: &CertCsr, clock: &Clock) -> Outcome {
    let what = "cannot make a certificate request";
    // The days are the authority's business.
    let mut request = request(what, &args.fields, 1, clock)?;
    request.subject = Subject {
        organization: args.organization.clone(),
        unit: args.unit.clone(),
        locality: args.locality.clone(),
        state: args.state.clone(),
        country: args.country.clone(),
    };
    let request_file = with_ending(&args.out, "csr");
    let given = args.key_file.as_deref().map(keys::read_key).transpose();
    let given = given.map_err(|cause| {
        Failure::from_error(
            what,
            &cause,
            "give another --key-file, or none for a new key",
        )
    })?;
    let key_file = match &given {
        Some(key) => key.file.clone(),
        None => with_ending(&args.out, "key"),
    };
    match &given {
        Some(_) => must_be_new(what, &[&request_file])?,
        None => must_be_new(what, &[&request_file, &key_file])?,
    }
    let asked = make::ask(&request, given.as_ref().map(|key| &key.key_pem));
    let asked = asked.map_err(|cause| unmade(what, &cause))?;
    if given.is_none() {
        write_key(what, &key_file, &asked.key_pem)?;
    }
    write_public(what, &request_file, &asked.request_pem)?;
    let usages: &[&str] = match request.usage {
        Usage::Both => &["serverAuth", "clientAuth"],
        Usage::Client => &["clientAuth"],
        Usage::Server => &["serverAuth"],
        Usage::Unsaid => &[],
    };
    let purpose = match args.fields.purpose {
        Purpose::Federation => "",
        Purpose::FederationClient => " --purpose federation-client",
        Purpose::Phone => " --purpose phone",
    };
    let (request_shown, key_shown) = (shown(&request_file), shown(&key_file));
    let fields = record(&[
        ("request", request_shown.clone()),
        ("key", format!("{key_shown} (readable by you alone)")),
        ("names", args.fields.name.join(" ")),
        ("usage", usages.join(" ")),
    ]);
    let text = format!(
        "{fields}\n\nnext: send {request_shown} to the authority, never the key; have it keep the names and the usage. With its answer and its own certificates: emccd cert install ANSWER.pem CA.pem{purpose} --key-file {key_shown}"
    );
    let asked = Asked {
        request_file,
        key_file,
        names: args.fields.name.clone(),
        usages,
    };
    Ok(Report::new(text, &asked))
}

fn request(what: &str, fields: &CertFields, days: u32, clock: &Clock) -> Outcome<CertRequest> {
    if let Some(odd) = fields.name.iter().find(|name| !is_host(name)) {
        return Err(Failure::new(
            what,
            format!("{odd:?} is neither a DNS name nor an IP address"),
            "give each name by which others reach the node with a --name of its own",
        ));
    }
    let names = fields.name.clone();
    let request = CertRequest::new(&fields.common_name, names, fields.kind(), clock.now(), days);
    Ok(request.with_usage(fields.usage()))
}

fn unmade(what: &str, cause: &make::Error) -> Failure {
    Failure::from_error(what, cause, "correct the names and try again")
}

fn must_be_new(what: &str, files: &[&Path]) -> Outcome<()> {
    match files.iter().find(|file| file.symlink_metadata().is_ok()) {
        None => Ok(()),
        Some(file) => Err(Failure::new(
            what,
            format!(
                "{} is there already, and no key is ever overwritten",
                shown(file)
            ),
            "give another path with --out",
        )),
    }
}

fn write_key(what: &str, file: &Path, key_pem: &Secret) -> Outcome<()> {
    make::write_private(file, key_pem).map_err(|cause| unwritable(what, file, &cause))
}

fn write_public(what: &str, file: &Path, text: &str) -> Outcome<()> {
    make::write_public(file, text).map_err(|cause| unwritable(what, file, &cause))
}

fn unwritable(what: &str, file: &Path, cause: &std::io::Error) -> Failure {
    Failure::new(
        what,
        format!("{}: {cause}", shown(file)),
        "check the folder and its permissions",
    )
}

/// Appended rather than replaced: `node.example` is a name, not a file with an ending.
fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::{cli::args::Key, trust::answer::names_asked};

    fn fields() -> CertFields {
        CertFields {
            purpose: Purpose::Federation,
            common_name: "berlin".to_owned(),
            name: vec!["emcc.berlin.example".to_owned(), "10.0.0.7".to_owned()],
            key: None,
            usage: None,
        }
    }

    fn args(out: PathBuf) -> CertNew {
        CertNew {
            fields: fields(),
            days: 30,
            out,
        }
    }

    fn csr_args(out: PathBuf, key_file: Option<PathBuf>) -> CertCsr {
        CertCsr {
            fields: fields(),
            key_file,
            organization: Some("Example".to_owned()),
            unit: None,
            locality: None,
            state: None,
            country: Some("DE".to_owned()),
            out,
        }
    }

    fn mode(file: &Path) -> u32 {
        fs::metadata(file).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_certificate_comes_with_a_key_that_only_its_owner_reads() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("node.example");
        let report = new(&args(out), &Clock::system()).unwrap();
        let key = dir.path().join("node.example.key");
        assert_eq!(mode(&key), 0o600);
        let names = report.json["certificate"]["names"].clone();
        assert_eq!(
            names,
            serde_json::json!(["emcc.berlin.example", "10.0.0.7"])
        );
        assert!(
            report.text.contains("next: ") && report.text.contains("cert install"),
            "{}",
            report.text
        );
        let shown = report.text + &report.json.to_string();
        let secret = fs::read_to_string(&key).unwrap();
        let body = secret.lines().nth(1).unwrap();
        assert!(!shown.contains(body), "the key was printed");
    }

    #[test]
    fn each_kind_of_key_and_each_purpose_makes_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let cases = [
            (Purpose::Federation, None, Some((true, true))),
            (
                Purpose::FederationClient,
                Some(Key::P384),
                Some((true, false)),
            ),
            (Purpose::Phone, None, Some((true, true))),
        ];
        for (at, (purpose, key, usages)) in cases.into_iter().enumerate() {
            let mut args = args(dir.path().join(at.to_string()));
            (args.fields.purpose, args.fields.key) = (purpose, key);
            new(&args, &Clock::system()).unwrap();
            let file = dir.path().join(format!("{at}.pem"));
            let read = read_certificates("", &file).unwrap();
            let [made] = &*read else { panic!("{read:?}") };
            assert!(!made.is_ca());
            assert_eq!(made.usages().map(|u| (u.client, u.server)), usages);
        }
    }

    #[test]
    fn a_request_is_for_a_new_key_or_for_one_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let report = csr(&csr_args(file("one"), None), &Clock::system()).unwrap();
        assert_eq!(mode(&file("one.key")), 0o600);
        let again = csr_args(file("two"), Some(file("one.key")));
        csr(&again, &Clock::system()).unwrap();
        assert!(!file("two.key").exists());
        let key = keys::read_key(&file("one.key")).unwrap();
        for request in ["one.csr", "two.csr"] {
            let text = fs::read(file(request)).unwrap();
            assert_eq!(names_asked(&text, &key.public_key), Some(fields().name));
        }
        let body = String::from_utf8_lossy(key.key_pem.expose()).into_owned();
        let body = body.lines().nth(1).unwrap().to_owned();
        let told = report.text + &report.json.to_string();
        assert!(
            told.contains("never the key") && !told.contains(&body),
            "{told}"
        );

        fs::set_permissions(file("one.key"), fs::Permissions::from_mode(0o644)).unwrap();
        let open = csr_args(file("three"), Some(file("one.key")));
        let refused = csr(&open, &Clock::system()).unwrap_err().to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
        assert!(!file("three.csr").exists());
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("node");
        fs::write(dir.path().join("node.key"), "precious").unwrap();
        let refusals = [
            new(&args(out.clone()), &Clock::system()),
            csr(&csr_args(out, None), &Clock::system()),
        ];
        for refused in refusals {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("is there already"), "{refused}");
        }
        assert!(!dir.path().join("node.pem").exists());
        assert!(!dir.path().join("node.csr").exists());
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
            args.fields.name = vec!["localhost".to_owned(), odd.to_owned()];
            let refused = new(&args, &Clock::system()).unwrap_err().to_string();
            assert!(
                refused.contains("neither a DNS name") && refused.contains("--name"),
                "{refused}"
            );
        }
    }
}
