//! `pin` and `policy`: when users are locked out, and which PINs they may get.

use crate::{
    cli::{
        args::{Global, Pin, Policy, PolicyFields},
        client::{answer, connect},
        failure::{Failure, Outcome},
        output::{Report, record, table, time, yes},
        people::{Columns, put, remove},
    },
    wire::admin as pb,
};

/// `pin`.
///
/// # Errors
/// What the daemon refuses.
pub async fn pin(global: &Global, verb: Pin) -> Outcome {
    let Pin::Unlock { user } = verb;
    let mut client = connect(global).await?;
    let what = format!("cannot unlock the user {user}");
    let user_id = user.to_string();
    let asked = client.unlock_pin(pb::UnlockPinRequest { user_id }).await;
    let done = answer(what, asked)?;
    let before = done.before.clone().unwrap_or_default();
    Ok(Report::new(unlocked_text(user.as_str(), &before), &done))
}

fn unlocked_text(user: &str, before: &pb::PinState) -> String {
    match (&before.locked_until, before.failures) {
        (Some(until), _) => format!("unlocked {user}, who was locked until {}", time(until)),
        (None, 0) => format!("user {user} is not locked"),
        (None, count) => {
            format!("user {user} was not locked; {count} wrong PINs are forgotten")
        }
    }
}

/// Runs one of the verbs.
///
/// # Errors
/// What the daemon refuses, and a question that was answered with no.
pub async fn run(global: &Global, verb: Policy) -> Outcome {
    match verb {
        Policy::List => {
            let all = list(global, "cannot list the policies").await?;
            Ok(Report::new(list_text(&all), &all))
        }
        Policy::Show { policy } => {
            let what = format!("cannot show the policy {policy}");
            let all = list(global, &what).await?;
            match all.into_iter().find(|found| found.name == policy.as_str()) {
                Some(found) => Ok(Report::new(show_text(&found), &found)),
                None => Err(Failure::new(
                    what,
                    format!("there is no policy {policy}"),
                    "see what there is: emccd policy list",
                )),
            }
        }
        Policy::Add(args) => {
            let columns = columns(&args.fields);
            put(global, "policy", args.policy.into(), true, columns, None).await
        }
        Policy::Set(args) => {
            let columns = columns(&args.fields);
            put(global, "policy", args.policy.into(), false, columns, None).await
        }
        Policy::Remove(args) => {
            let question = "No user has it then. Remove the policy?";
            let how = (args.yes, false);
            remove(global, "policy", args.policy.into(), question, how).await
        }
    }
}

async fn list(global: &Global, what: &str) -> Outcome<Vec<pb::Policy>> {
    let mut client = connect(global).await?;
    let asked = client.list_policies(pb::ListPoliciesRequest {}).await;
    Ok(answer(what, asked)?.policies)
}

fn columns(fields: &PolicyFields) -> Columns {
    let numbers = [
        ("failures-before-lock", fields.failures_before_lock),
        ("failure-window", fields.failure_window),
        ("lock-duration", fields.lock_duration),
        ("min-length", fields.min_length),
        ("max-length", fields.max_length),
    ];
    let numbers = numbers
        .into_iter()
        .filter_map(|(name, number)| Some((name.to_owned(), number?.to_string())));
    let trivial = fields.trivial_check;
    let trivial = trivial.map(|flag| ("trivial-check".to_owned(), flag.to_string()));
    numbers.chain(trivial).collect()
}

fn lock(policy: &pb::Policy) -> String {
    match policy.failures_before_lock {
        0 => "never".to_owned(),
        count => format!(
            "{count} wrong PINs, {} min apart at most",
            policy.failure_window_minutes
        ),
    }
}

fn length(policy: &pb::Policy) -> String {
    format!("{} to {} digits", policy.min_length, policy.max_length)
}

fn lasts(policy: &pb::Policy) -> String {
    format!("{} min", policy.lock_duration_minutes)
}

fn list_text(all: &[pb::Policy]) -> String {
    let rows = all.iter().map(|policy| {
        [
            policy.name.clone(),
            lock(policy),
            lasts(policy),
            length(policy),
            yes(!policy.trivial_check),
        ]
    });
    table(
        [
            "POLICY",
            "LOCKED BY",
            "LOCKED FOR",
            "NEW PINS",
            "TRIVIAL PINS",
        ],
        rows.collect(),
    )
}

fn show_text(policy: &pb::Policy) -> String {
    record(&[
        ("policy", policy.name.clone()),
        ("locked by", lock(policy)),
        ("locked for", lasts(policy)),
        ("new PINs", length(policy)),
        ("trivial PINs allowed", yes(!policy.trivial_check)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(failures_before_lock: u32) -> pb::Policy {
        pb::Policy {
            name: "kiosk".to_owned(),
            failures_before_lock,
            failure_window_minutes: 30,
            lock_duration_minutes: 15,
            min_length: 4,
            max_length: 16,
            trivial_check: true,
        }
    }

    #[test]
    fn a_policy_is_told_in_words() {
        let text = list_text(&[policy(3), policy(0)]);
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[1].contains("3 wrong PINs, 30 min apart at most  15 min"),
            "{text}"
        );
        assert!(lines[2].contains("never"), "{text}");
        let text = show_text(&policy(3));
        assert!(text.contains("4 to 16 digits"), "{text}");
    }

    #[test]
    fn what_there_was_to_unlock_is_told() {
        let mut before = pb::PinState {
            is_set: true,
            ..pb::PinState::default()
        };
        assert_eq!(unlocked_text("anna", &before), "user anna is not locked");
        before.failures = 5;
        let forgotten = unlocked_text("anna", &before);
        assert!(
            forgotten.contains("5 wrong PINs are forgotten"),
            "{forgotten}"
        );
        before.locked_until = Some("2026-11-22T09:30:00.000Z".to_owned());
        let unlocked = unlocked_text("anna", &before);
        assert!(
            unlocked.starts_with("unlocked anna, who was locked until "),
            "{unlocked}"
        );
    }

    #[test]
    fn only_what_is_given_is_sent() {
        let fields = PolicyFields {
            failures_before_lock: Some(0),
            failure_window: None,
            lock_duration: None,
            min_length: Some(4),
            max_length: None,
            trivial_check: Some(false),
        };
        let sent: Vec<_> = columns(&fields).into_iter().collect();
        let sent: Vec<_> = sent
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(
            sent,
            [
                ("failures-before-lock", "0"),
                ("min-length", "4"),
                ("trivial-check", "false")
            ]
        );
    }
}
