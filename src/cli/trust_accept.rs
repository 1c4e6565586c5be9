//! `trust accept`: an operator's word on certificates that a peer announced.

use crate::{
    cli::{
        args::{Global, TrustAccept},
        client::{answer, connect},
        confirm::confirm,
        failure::Outcome,
        output::{Report, count},
        trust::list_text,
    },
    trust::certificate::fingerprint_text,
    wire::admin as pb,
};

/// Accepts or rejects what waits.
///
/// # Errors
/// What the daemon refuses, and a question that is not answered with yes.
pub(super) async fn run(global: &Global, args: TrustAccept) -> Outcome {
    let cluster_id = args.cluster_id.to_string();
    let what = match args.reject {
        true => format!("cannot reject what {cluster_id} announced"),
        false => format!("cannot accept what {cluster_id} announced"),
    };
    let fingerprint = args.fingerprint.as_ref().map(fingerprint_text);
    let mut client = connect(global).await?;
    let mut seen = None;
    // Who has typed the fingerprint has compared it.
    if !args.yes && (args.reject || fingerprint.is_none()) {
        let query = pb::ListTrustRequest {
            cluster_id: Some(cluster_id.clone()),
        };
        let mut entries = answer(&what, client.list_trust(query).await)?.entries;
        entries.retain(|entry| {
            let shown = entry.certificate.as_ref().map(|c| &c.fingerprint);
            entry.kind == "waiting" && (fingerprint.is_none() || fingerprint.as_ref() == shown)
        });
        if !entries.is_empty() {
            confirm(&what, &question(&cluster_id, args.reject, &entries))?;
        }
        // What comes while somebody reads is not agreed to.
        let certificates = entries.into_iter().filter_map(|entry| entry.certificate);
        seen = Some(pb::TextList {
            values: certificates.map(|c| c.fingerprint).collect(),
        });
    }
    let asked = client.accept_trust(pb::AcceptTrustRequest {
        cluster_id: cluster_id.clone(),
        fingerprint,
        reject: args.reject,
        shown: seen,
    });
    let done = answer(what, asked.await)?;
    Ok(Report::new(
        done_text(&cluster_id, args.reject, &done),
        &done,
    ))
}

fn question(cluster_id: &str, reject: bool, entries: &[pb::TrustEntry]) -> String {
    let list = list_text(entries);
    let it = count(entries.len(), "certificate");
    match reject {
        true => format!(
            "{list}\n\nWhat is rejected is revoked: {cluster_id} can't announce it again. Reject {it}?"
        ),
        false => format!(
            "{list}\n\nCompare the fingerprints with those that the operator of {cluster_id} reads from `emccd cert \
             show`. Accept {it}?"
        ),
    }
}

fn done_text(cluster_id: &str, reject: bool, done: &pb::AcceptTrustResponse) -> String {
    let it = count(done.entries.len(), "certificate");
    let fingerprints: Vec<_> = done
        .entries
        .iter()
        .filter_map(|entry| entry.certificate.as_ref())
        .map(|certificate| format!("  {}", certificate.fingerprint))
        .collect();
    let list = fingerprints.join("\n");
    match reject {
        true => format!(
            "rejected {it} of {cluster_id}:\n{list}\nrevoked; `emccd trust add {cluster_id} --unrevoke HEX` takes \
             that back"
        ),
        false => {
            format!("accepted {it} of {cluster_id}:\n{list}\n{cluster_id} is told over the link")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_shows_what_is_agreed_to_and_the_answer_what_was_done() {
        let entry = pb::TrustEntry {
            cluster_id: "tokyo".to_owned(),
            kind: "waiting".to_owned(),
            certificate: Some(pb::Certificate {
                fingerprint: "AB:CD".to_owned(),
                ..pb::Certificate::default()
            }),
            ..pb::TrustEntry::default()
        };
        let accept = question("tokyo", false, std::slice::from_ref(&entry));
        assert!(
            accept.contains("AB:CD") && accept.ends_with("Accept 1 certificate?"),
            "{accept}"
        );
        let reject = question("tokyo", true, std::slice::from_ref(&entry));
        assert!(reject.ends_with("Reject 1 certificate?"), "{reject}");
        let done = pb::AcceptTrustResponse {
            entries: vec![entry],
        };
        let accepted = done_text("tokyo", false, &done);
        assert!(
            accepted.starts_with("accepted 1 certificate of tokyo:\n  AB:CD\n"),
            "{accepted}"
        );
        let rejected = done_text("tokyo", true, &done);
        assert!(rejected.contains("--unrevoke"), "{rejected}");
    }
}
