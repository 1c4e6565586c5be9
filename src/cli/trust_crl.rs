//! `trust crl`: revocation lists of the authorities that vouch for peers.

use std::{fs::File, io::Read as _};

use crate::{
    cli::{
        args::{Global, TrustCrl, TrustCrlAdd, TrustCrlRemove},
        client::{answer, connect},
        cluster::shown,
        confirm::confirm,
        failure::{Failure, Outcome},
        output::{Report, count, table, time},
    },
    trust::{
        certificate::fingerprint_text,
        crl::{self, MAX_BYTES},
    },
    wire::admin as pb,
};

/// Runs one of the verbs.
///
/// # Errors
/// What the daemon refuses, and files that hold no list.
pub(super) async fn run(global: &Global, verb: TrustCrl) -> Outcome {
    match verb {
        TrustCrl::Add(args) => add(global, args).await,
        TrustCrl::List { cluster_id } => {
            let mut client = connect(global).await?;
            let asked = client.list_crls(pb::ListCrlsRequest {
                cluster_id: cluster_id.map(Into::into),
            });
            let crls = answer("cannot list the revocation lists", asked.await)?.crls;
            Ok(Report::new(list_text(&crls), &crls))
        }
        TrustCrl::Remove(args) => remove(global, args).await,
    }
}

async fn add(global: &Global, args: TrustCrlAdd) -> Outcome {
    let what = format!("cannot take in a revocation list for {}", args.cluster_id);
    let mut file = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    let read = File::open(&args.file).and_then(|f| f.take(limit + 1).read_to_end(&mut file));
    if let Err(cause) = read {
        let why = format!("{}: {cause}", shown(&args.file));
        let next = "check the path and that you may read it";
        return Err(Failure::new(what, why, next));
    }
    // What is no list, and above all a private key, must not travel.
    if let Err(cause) = crl::read(&file) {
        let why = format!("{}: {cause}", shown(&args.file));
        let next = "look at the file with: openssl crl -noout -text -in FILE";
        return Err(Failure::new(what, why, next));
    }
    let mut client = connect(global).await?;
    let asked = client.add_crl(pb::AddCrlRequest {
        cluster_id: args.cluster_id.to_string(),
        file,
        is_strict: args.strict,
    });
    let added = answer(what, asked.await)?;
    Ok(Report::new(added_text(&added), &added))
}

fn added_text(added: &pb::AddCrlResponse) -> String {
    if added.added.is_empty() {
        return "nothing new: it is in force already".to_owned();
    }
    let mut text = format!("in force on every node:\n{}", list_text(&added.added));
    for certificate in &added.revoked_of_shown {
        text += &format!(
            "\nrevoked, and shown to this node of late: {} ({}); its connections end",
            certificate.subject, certificate.fingerprint
        );
    }
    text
}

async fn remove(global: &Global, args: TrustCrlRemove) -> Outcome {
    let cluster_id = args.cluster_id.to_string();
    let what = format!("cannot remove revocation lists of {cluster_id}");
    if !args.yes {
        let which = match args.issuer {
            Some(_) => "The list of that authority",
            None => "Every list",
        };
        confirm(
            &what,
            &format!(
                "{which} for {cluster_id} goes; certificates that it revokes are accepted again. Remove?"
            ),
        )?;
    }
    let mut client = connect(global).await?;
    let asked = client.remove_crl(pb::RemoveCrlRequest {
        cluster_id,
        issuer: args.issuer.as_ref().map(fingerprint_text),
    });
    let removed = answer(what, asked.await)?;
    let lists = count(removed.removed.len(), "list");
    let text = format!("removed {lists}; what was revoked by it is accepted again");
    Ok(Report::new(text, &removed))
}

fn list_text(crls: &[pb::Crl]) -> String {
    if crls.is_empty() {
        return "there is no revocation list\n\nnext: emccd trust crl add ID FILE".to_owned();
    }
    let rows = crls.iter().map(|crl| {
        let issuer = crl.issuer.clone().unwrap_or_default();
        let state = match (crl.is_stale, crl.is_strict) {
            (false, false) => "in force",
            (false, true) => "in force, strict",
            (true, false) => "stale, in force",
            (true, true) => "stale, strict: nothing of its authority is accepted",
        };
        [
            crl.cluster_id.clone(),
            issuer.subject,
            crl.number.clone(),
            crl.revoked.to_string(),
            time(&crl.this_update),
            time(&crl.next_update),
            state.to_owned(),
            issuer.fingerprint,
        ]
    });
    table(
        [
            "PEER",
            "AUTHORITY",
            "NUMBER",
            "REVOKED",
            "OF",
            "NEXT DUE",
            "STATE",
            "AUTHORITY'S FINGERPRINT (SHA-256)",
        ],
        rows.collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_a_table_with_their_state() {
        let crl = |is_stale, is_strict| pb::Crl {
            cluster_id: "tokyo".to_owned(),
            issuer: Some(pb::Certificate {
                subject: "CN=Corporate CA".to_owned(),
                fingerprint: "AB:CD".to_owned(),
                ..pb::Certificate::default()
            }),
            number: "7".to_owned(),
            this_update: "2026-01-01T00:00:00.000Z".to_owned(),
            next_update: "2026-02-01T00:00:00.000Z".to_owned(),
            is_stale,
            is_strict,
            revoked: 3,
            ..pb::Crl::default()
        };
        let text = list_text(&[crl(false, false)]);
        let row = "tokyo  CN=Corporate CA  7       3        2026-01-01 00:00:00Z  2026-02-01 00:00:00Z  in force  AB:CD";
        assert!(text.ends_with(row), "{text}");
        assert!(list_text(&[crl(true, false)]).contains("stale, in force"));
        assert!(list_text(&[crl(true, true)]).contains("nothing of its authority"));
        assert!(list_text(&[]).contains("next: emccd trust crl add"));
        assert!(added_text(&pb::AddCrlResponse::default()).contains("nothing new"));
    }
}
