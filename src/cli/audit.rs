//! `audit`: what was changed, by whom, and whether that record is whole.

use std::time::Duration;

use crate::{
    cli::{
        args::{Audit, AuditList, AuditVerify, Global},
        client::{Client, answer, connect},
        failure::{Failure, Outcome},
        output::{Report, count, table, time},
    },
    clock::{Clock, Timestamp},
    config::units::parse_duration,
    wire::admin as pb,
};

/// Runs one of the verbs.
///
/// # Errors
/// What the daemon refuses, and a chain that is not whole.
pub async fn run(global: &Global, verb: Audit) -> Outcome {
    match verb {
        Audit::List(args) => {
            let since = args.since.as_deref().map(since).transpose()?;
            let mut client = connect(global).await?;
            list(&mut client, args, since).await
        }
        Audit::Verify(args) => {
            let mut client = connect(global).await?;
            verify(&mut client, &args).await
        }
    }
}

/// A time, or how long ago.
fn since(text: &str) -> Outcome<Timestamp> {
    since_at(text, Clock::system().now()).ok_or_else(|| {
        Failure::usage(
            "cannot list the audit",
            format!("{text} is neither a time nor a length of time"),
            "give --since 2026-11-22T09:30:00Z, or --since 2h",
        )
    })
}

fn since_at(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp::from_millis(time.as_millisecond()));
    }
    let length: Duration = parse_duration(text).ok()?;
    let millis = i64::try_from(length.as_millis()).ok()?;
    Some(Timestamp::from_millis(
        now.as_millis().saturating_sub(millis),
    ))
}

async fn list(client: &mut Client, args: AuditList, since: Option<Timestamp>) -> Outcome {
    let mut query = pb::ListAuditRequest {
        since: since.map(|at| at.to_string()),
        actor: args.actor,
        r#ref: args.r#ref.map(|r| r.to_string()),
        action: args.action,
        limit: 0,
        page_token: String::new(),
    };
    let mut entries = Vec::new();
    let mut left = args.limit;
    while left > 0 {
        query.limit = left.min(PAGE);
        let asked = client.list_audit(query.clone()).await;
        let page = answer("cannot list the audit", asked)?;
        left = left.saturating_sub(u32::try_from(page.entries.len()).unwrap_or(u32::MAX));
        entries.extend(page.entries);
        query.page_token = page.next_page_token;
        if query.page_token.is_empty() {
            break;
        }
    }
    let report = Report::new(list_text(&entries), &entries);
    if query.page_token.is_empty() {
        return Ok(report);
    }
    Ok(report.with_note(format!(
        "only the newest {} are shown; there is more with a higher --limit, or narrow it down with --since, --actor or \
         --action",
        entries.len()
    )))
}

/// Entries that one call gives.
const PAGE: u32 = 1_000;

fn list_text(entries: &[pb::AuditEntry]) -> String {
    if entries.is_empty() {
        return "no entries".to_owned();
    }
    let rows = entries.iter().map(|entry| {
        [
            time(&entry.at),
            entry.actor.clone(),
            entry.action.clone(),
            entry.subject.clone(),
            entry.outcome.clone(),
            entry.r#ref.clone().unwrap_or_default(),
            format!("{} {}", entry.node, entry.number),
        ]
    });
    table(
        [
            "AT", "ACTOR", "ACTION", "SUBJECT", "OUTCOME", "REF", "ENTRY",
        ],
        rows.collect(),
    )
}

async fn verify(client: &mut Client, args: &AuditVerify) -> Outcome {
    const WHAT: &str = "the audit is not whole";
    let asked = client
        .verify_audit(pb::VerifyAuditRequest {
            noted: args.noted.iter().map(ToString::to_string).collect(),
        })
        .await;
    let chains = answer("cannot check the audit", asked)?.chains;
    judge(WHAT, &chains)?;
    let entries: u64 = chains.iter().map(|chain| chain.entries).sum();
    let entries = usize::try_from(entries).unwrap_or(usize::MAX);
    let text = format!(
        "{}\n\nwhole: {} of {}",
        chains_text(&chains),
        match entries {
            1 => "1 entry".to_owned(),
            n => format!("{n} entries"),
        },
        count(chains.len(), "node")
    );
    Ok(Report::new(text, &chains))
}

/// Refuses chains of which one is broken, and says where.
pub(super) fn judge(what: &str, chains: &[pb::AuditChain]) -> Outcome<()> {
    let broken: Vec<_> = chains
        .iter()
        .filter_map(|chain| {
            let fault = chain.fault.as_ref()?;
            Some(format!("of node {}: {fault}", chain.node))
        })
        .collect();
    if broken.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        what,
        broken.join("; "),
        "somebody has written to the database past the daemon: keep it as it is, and compare it with a backup that \
         `emccd db verify FILE` finds whole",
    )
    .with(
        "chains",
        serde_json::to_value(chains).unwrap_or_default(),
    ))
}

fn chains_text(chains: &[pb::AuditChain]) -> String {
    let rows = chains.iter().map(|chain| {
        let state = chain.fault.clone().unwrap_or_else(|| "whole".to_owned());
        [
            chain.node.clone(),
            chain.entries.to_string(),
            state,
            chain.head.clone(),
        ]
    });
    table(["NODE", "ENTRIES", "STATE", "HEAD"], rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now = Timestamp::from_millis(10_000_000);
        assert_eq!(
            since_at("1970-01-01T00:00:05Z", now),
            Some(Timestamp::from_millis(5_000))
        );
        assert_eq!(since_at("2h", now), Some(Timestamp::from_millis(2_800_000)));
        for odd in ["", "yesterday", "2", "-2h", "2026-11-22"] {
            assert_eq!(since_at(odd, now), None, "{odd}");
        }
        assert_eq!(since("odd").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn the_first_broken_entry_of_each_node_is_named() {
        let chain = |node: &str, fault: Option<&str>| pb::AuditChain {
            node: node.to_owned(),
            entries: 2,
            fault: fault.map(str::to_owned),
            entry: fault.map(|_| 3),
            head: String::new(),
        };
        judge("cannot", &[chain("n1", None)]).unwrap();
        let told = judge(
            "cannot",
            &[
                chain("n1", None),
                chain("n2", Some("entry 3 does not match its hash")),
            ],
        )
        .unwrap_err();
        assert!(
            told.to_string()
                .contains("of node n2: entry 3 does not match its hash"),
            "{told}"
        );
    }
}
