//! How certificates and trust stand on a given day: `trust list --as-of`, `cert show --as-of`.

use serde::Serialize;

use crate::{
    cli::{
        args::Global,
        client::{answer, connect},
        failure::Outcome,
        output::{Report, count, table, time},
    },
    clock::Timestamp,
    domain::ids::ClusterId,
    trust::forecast::State,
    wire::admin as pb,
};

/// What is accepted on that day, and what breaks until then.
///
/// # Errors
/// What the daemon refuses.
pub(super) async fn trust(
    global: &Global,
    cluster_id: Option<ClusterId>,
    as_of: Timestamp,
) -> Outcome {
    let mut client = connect(global).await?;
    let asked = client.forecast_trust(pb::ForecastTrustRequest {
        cluster_id: cluster_id.map(Into::into),
        as_of: Some(as_of.to_string()),
    });
    let told = answer("cannot tell how trust stands on that day", asked.await)?;
    Ok(Report::new(trust_text(&told), &told))
}

fn trust_text(told: &pb::ForecastTrustResponse) -> String {
    let day = time(&told.as_of);
    if told.entries.is_empty() {
        return "nothing is trusted\n\nnext: emccd trust add ID --pin FILE".to_owned();
    }
    let rows = told.entries.iter().map(|entry| {
        let certificate = entry.certificate.clone().unwrap_or_default();
        [
            entry.cluster_id.clone(),
            entry.kind.clone(),
            certificate.subject,
            time(&certificate.not_before),
            time(&certificate.not_after),
            entry.state.replace('_', " "),
            certificate.fingerprint,
        ]
    });
    let rows = rows.collect();
    let head = [
        "PEER",
        "KIND",
        "SUBJECT",
        "VALID FROM",
        "VALID UNTIL",
        "THEN",
        "FINGERPRINT (SHA-256)",
    ];
    let mut text = format!("as of {day}:\n{}", table(head, rows));
    text += &stale_text(&told.crls);
    if told.breaks.is_empty() {
        return format!("{text}\n\nno link breaks until then");
    }
    text += &format!("\n\n{} until then:", count(told.breaks.len(), "break"));
    for one in &told.breaks {
        let certificate = one.certificate.clone().unwrap_or_default();
        text += &format!(
            "\n  {}, from {}: {} ({}, {})",
            one.cluster_id,
            time(&one.at),
            one.text,
            certificate.subject,
            certificate.fingerprint
        );
    }
    text
}

/// The revocation lists that are overdue by then.
fn stale_text(crls: &[pb::Crl]) -> String {
    let stale: Vec<_> = crls.iter().filter(|crl| crl.is_stale).collect();
    if stale.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\n\n{} stale by then, unless newer ones come before:",
        count(stale.len(), "revocation list")
    );
    for crl in stale {
        let issuer = crl.issuer.clone().unwrap_or_default().subject;
        let strict = match crl.is_strict {
            true => "strict: nothing of its authority is accepted",
            false => "it goes on counting",
        };
        text += &format!(
            "\n  {}, from {}: number {} of {issuer}; {strict}",
            crl.cluster_id,
            time(&crl.next_update),
            crl.number
        );
    }
    text
}

/// A certificate on that day.
#[derive(Debug, Serialize)]
pub(super) struct Then {
    subject: String,
    fingerprint: String,
    not_before: String,
    not_after: String,
    /// `valid`, `expired` or `not_yet_valid`.
    then: &'static str,
}

/// What a node or a file shows, on that day.
#[derive(Debug, Serialize)]
pub(super) struct ShownThen {
    as_of: String,
    certificates: Vec<Then>,
}

/// How certificates stand on that day, leaf or not.
pub(super) fn certificates(all: &[pb::Certificate], as_of: Timestamp) -> Report {
    let certificates = all
        .iter()
        .map(|certificate| Then {
            subject: certificate.subject.clone(),
            fingerprint: certificate.fingerprint.clone(),
            not_before: certificate.not_before.clone(),
            not_after: certificate.not_after.clone(),
            then: state(certificate, as_of),
        })
        .collect();
    let shown = ShownThen {
        as_of: as_of.to_string(),
        certificates,
    };
    let rows = shown.certificates.iter().map(|then| {
        [
            then.subject.clone(),
            time(&then.not_before),
            time(&then.not_after),
            then.then.replace('_', " "),
            then.fingerprint.clone(),
        ]
    });
    let head = [
        "SUBJECT",
        "VALID FROM",
        "VALID UNTIL",
        "THEN",
        "FINGERPRINT (SHA-256)",
    ];
    let text = format!(
        "as of {}:\n{}",
        time(&shown.as_of),
        table(head, rows.collect())
    );
    Report::new(text, &shown)
}

fn state(certificate: &pb::Certificate, at: Timestamp) -> &'static str {
    let moment = |text: &str, unknown: i64| {
        let time = text.parse::<jiff::Timestamp>().ok();
        Timestamp::from_millis(time.map_or(unknown, jiff::Timestamp::as_millisecond))
    };
    let begin = moment(&certificate.not_before, i64::MIN);
    let end = moment(&certificate.not_after, i64::MAX);
    match State::between(begin, end, at) {
        // Nobody is asked whether it is accepted.
        State::Accepted => "valid",
        state => state.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> pb::Certificate {
        pb::Certificate {
            subject: "CN=tokyo".to_owned(),
            not_before: "2026-01-01T00:00:00.000Z".to_owned(),
            not_after: "2028-01-01T00:00:00.000Z".to_owned(),
            fingerprint: "AB:CD".to_owned(),
            ..pb::Certificate::default()
        }
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    #[test]
    fn a_certificate_is_told_by_its_dates() {
        for (day, then) in [
            ("2025-12-31T23:59:59Z", "not_yet_valid"),
            ("2026-01-01T00:00:00Z", "valid"),
            ("2028-01-01T00:00:00Z", "valid"),
            ("2028-01-01T00:00:00.001Z", "expired"),
        ] {
            assert_eq!(state(&certificate(), at(day)), then, "{day}");
        }
        let report = certificates(&[certificate()], at("2028-03-01T00:00:00Z"));
        assert_eq!(
            report.text,
            "as of 2028-03-01 00:00:00Z:\n\
             SUBJECT   VALID FROM            VALID UNTIL           THEN     FINGERPRINT (SHA-256)\n\
             CN=tokyo  2026-01-01 00:00:00Z  2028-01-01 00:00:00Z  expired  AB:CD"
        );
        assert_eq!(report.json["certificates"][0]["then"], "expired");
    }

    #[test]
    fn trust_is_a_table_and_below_it_what_breaks() {
        let mut told = pb::ForecastTrustResponse {
            as_of: "2028-03-01T00:00:00.000Z".to_owned(),
            entries: vec![pb::ForecastEntry {
                cluster_id: "tokyo".to_owned(),
                kind: "pinned".to_owned(),
                certificate: Some(certificate()),
                state: "not_yet_valid".to_owned(),
            }],
            ..pb::ForecastTrustResponse::default()
        };
        let text = trust_text(&told);
        assert!(text.contains("not yet valid  AB:CD"), "{text}");
        assert!(text.ends_with("no link breaks until then"), "{text}");
        told.breaks.push(pb::ForecastBreak {
            cluster_id: "tokyo".to_owned(),
            whose: "theirs".to_owned(),
            certificate: Some(certificate()),
            at: "2028-01-01T00:00:00.001Z".to_owned(),
            text: "we refuse this certificate of tokyo as expired".to_owned(),
        });
        let text = trust_text(&told);
        let end = "1 break until then:\n  tokyo, from 2028-01-01 00:00:00Z: we refuse this certificate of tokyo as expired \
                   (CN=tokyo, AB:CD)";
        assert!(text.ends_with(end), "{text}");
        // A list that is stale by then stands between.
        assert!(!text.contains("revocation list"), "{text}");
        told.crls.push(pb::Crl {
            cluster_id: "tokyo".to_owned(),
            number: "7".to_owned(),
            issuer: Some(certificate()),
            next_update: "2027-01-01T00:00:00.000Z".to_owned(),
            is_stale: true,
            is_strict: true,
            ..pb::Crl::default()
        });
        let stale = "1 revocation list stale by then, unless newer ones come before:\n  tokyo, from 2027-01-01 00:00:00Z: \
                     number 7 of CN=tokyo; strict: nothing of its authority is accepted\n\n1 break";
        let text = trust_text(&told);
        assert!(text.contains(stale), "{text}");
        told.entries.clear();
        assert!(trust_text(&told).contains("next: emccd trust add"));
    }
}
