//! `cert`: the certificates that this node shows.

mod install;
mod write;

use crate::{
    cli::{
        args::{Cert, Global},
        as_of,
        client::{answer, connect},
        cluster::shown,
        failure::Outcome,
        output::{Report, clean, record, time, yes},
        rotate, stores,
    },
    clock::Clock,
    edge::admin::views,
    trust::formats::{Contents, Keys},
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
            all_nodes: _,
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
            file: None,
            as_of,
            all_nodes,
            ..
        } => {
            let mut client = connect(global).await?;
            let asked = client.list_identities(pb::ListIdentitiesRequest {});
            let told = answer("cannot show the certificates", asked.await)?;
            if all_nodes && as_of.is_none() {
                return Ok(of_all_nodes(told));
            }
            let mut all = told.identities;
            all.extend(told.others.into_iter().filter(|_| all_nodes));
            if let Some(as_of) = as_of {
                let sent = all
                    .into_iter()
                    .flat_map(|i| i.certificate.into_iter().chain(i.chain));
                let report = as_of::certificates(&sent.collect::<Vec<_>>(), as_of);
                return Ok(match all_nodes {
                    true => with_unreported(report, &told.unreported),
                    false => report,
                });
            }
            Ok(Report::new(identities_text(&all), &all))
        }
        Cert::New(args) => write::new(&args, &Clock::system()),
        Cert::Csr(args) => write::csr(&args, &Clock::system()),
        Cert::Install(args) => install::run(global, &args, &Clock::system()).await,
        Cert::Rotate(verb) => rotate::run(global, verb).await,
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

/// What each node of the cluster shows, and which nodes have not said it.
fn of_all_nodes(told: pb::ListIdentitiesResponse) -> Report {
    let mut all = told.identities;
    all.extend(told.others);
    let texts = all.iter().map(|identity| {
        let of = std::slice::from_ref(identity);
        format!(
            "node         {}\n{}",
            clean(&identity.node),
            identities_text(of)
        )
    });
    let texts: Vec<_> = texts.collect();
    with_unreported(Report::new(texts.join("\n\n"), &all), &told.unreported)
}

fn with_unreported(report: Report, unreported: &[String]) -> Report {
    match unreported.is_empty() {
        true => report,
        false => report.with_note(format!(
            "not known of {}: it has not put on record what it shows",
            unreported.join(", ")
        )),
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

fn identities_text(all: &[pb::Identity]) -> String {
    let texts: Vec<_> = all
        .iter()
        .map(|identity| {
            let mut fields = vec![("shown to", shown_to(&identity.purpose).to_owned())];
            fields.extend(identity.file.clone().map(|file| ("file", file)));
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
    use super::*;

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
