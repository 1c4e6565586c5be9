//! `session`: who is on which phone, and the end of it.

use crate::{
    cli::{
        args::{Global, Session, SessionDrop, SessionList, SessionLogout, SessionRetry},
        client::{Client, answer, connect},
        confirm::confirm,
        failure::Outcome,
        output::{Report, count, record, table, time},
    },
    wire::admin::{self as pb, logout_session_request::Which, retry_session_request},
};

/// Runs one of the verbs.
///
/// # Errors
/// What the daemon refuses, and a question that was answered with no.
pub async fn run(global: &Global, verb: Session) -> Outcome {
    let mut client = connect(global).await?;
    match verb {
        Session::List(args) => list(&mut client, args).await,
        Session::Show { id } => {
            let what = format!("cannot show the session {id}");
            let found = answer(what, client.get_session(pb::GetSessionRequest { id }).await)?;
            let texts: Vec<_> = found.sessions.iter().map(session_text).collect();
            Ok(Report::new(texts.join("\n\n"), &found.sessions))
        }
        Session::Logout(args) => logout(&mut client, args).await,
        Session::Retry(args) => retry(&mut client, args).await,
        Session::Drop(args) => drop_debt(&mut client, args).await,
    }
}

async fn list(client: &mut Client, args: SessionList) -> Outcome {
    let mut query = pb::ListSessionsRequest {
        role: args.role,
        peer: args.peer.map(Into::into),
        device: args.device.map(Into::into),
        user_id: args.user.map(Into::into),
        include_ended: args.all,
        only_owed: args.owed,
        limit: 0,
        page_token: String::new(),
    };
    let mut sessions = Vec::new();
    let mut left = args.limit;
    while left > 0 {
        query.limit = left.min(PAGE);
        let asked = client.list_sessions(query.clone()).await;
        let page = answer("cannot list the sessions", asked)?;
        left = left.saturating_sub(u32::try_from(page.sessions.len()).unwrap_or(u32::MAX));
        sessions.extend(page.sessions);
        query.page_token = page.next_page_token;
        if query.page_token.is_empty() {
            break;
        }
    }
    let text = if args.owed {
        owed_text(&sessions)
    } else {
        list_text(&sessions)
    };
    let report = Report::new(text, &sessions);
    if query.page_token.is_empty() {
        return Ok(report);
    }
    Ok(report.with_note(format!(
        "only the newest {} are shown; there is more with a higher --limit, or narrow it down with --user, --device \
         or --peer",
        sessions.len()
    )))
}

async fn logout(client: &mut Client, args: SessionLogout) -> Outcome {
    let (what, which) = match args.device {
        Some(device) => (
            format!("cannot end the session on {device}"),
            Which::Device(device.into()),
        ),
        None => {
            // The command line has one of the two; the daemon would refuse an empty one.
            let id = args.id.unwrap_or_default();
            (format!("cannot end the session {id}"), Which::Id(id))
        }
    };
    if !args.yes {
        let question = question(client, &what, &which).await?;
        confirm(&what, &question)?;
    }
    let request = pb::LogoutSessionRequest { which: Some(which) };
    let ended = answer(what, client.logout_session(request).await)?;
    Ok(Report::new(ended_text(&ended), &ended))
}

async fn retry(client: &mut Client, args: SessionRetry) -> Outcome {
    use retry_session_request::Which;
    let (what, which) = match args.peer {
        Some(peer) => (
            format!("cannot tell {peer} again what it refused"),
            Which::Peer(peer.to_string()),
        ),
        None => {
            // The command line has one of the two; the daemon would refuse an empty one.
            let id = args.id.unwrap_or_default();
            (
                format!("cannot tell of the end of {id} again"),
                Which::Id(id),
            )
        }
    };
    let request = pb::RetrySessionRequest { which: Some(which) };
    let retried = answer(what, client.retry_session(request).await)?;
    Ok(Report::new(retried_text(&retried), &retried))
}

async fn drop_debt(client: &mut Client, args: SessionDrop) -> Outcome {
    let SessionDrop { id, yes } = args;
    let what = format!("cannot drop what is owed of {id}");
    if !yes {
        let query = pb::GetSessionRequest { id: id.clone() };
        let found = answer(&*what, client.get_session(query).await)?.sessions;
        let question = match found.iter().find(|session| session.owed) {
            Some(session) => format!(
                "Never tell {} that the session of {} on {} is over?",
                session.peer,
                session.user_id.as_ref().unwrap_or(&session.login_name),
                session.device
            ),
            // The daemon's own words tell best that nothing is owed.
            None => "Drop it?".to_owned(),
        };
        confirm(&what, &question)?;
    }
    let dropped = answer(
        what,
        client.drop_session(pb::DropSessionRequest { id }).await,
    )?;
    let peers: Vec<_> = dropped.sessions.iter().map(|s| s.peer.as_str()).collect();
    let text = format!(
        "{} will not be told that the session is over; there it ends when the two clusters next compare their sessions \
         (emccd cluster status shows whether they can), otherwise when its time is over or somebody ends it there",
        peers.join(" and ")
    );
    Ok(Report::new(text, &dropped))
}

/// Names who is on the phone, so that the wrong session isn't ended.
async fn question(client: &mut Client, what: &str, which: &Which) -> Outcome<String> {
    let found = match which {
        Which::Id(id) => {
            let query = pb::GetSessionRequest { id: id.clone() };
            answer(what, client.get_session(query).await)?.sessions
        }
        Which::Device(device) => {
            let query = pb::ListSessionsRequest {
                device: Some(device.clone()),
                ..pb::ListSessionsRequest::default()
            };
            answer(what, client.list_sessions(query).await)?.sessions
        }
    };
    Ok(match found.first() {
        Some(session) => format!(
            "End the session of {} on {} ({}, with {})?",
            session.user_id.as_ref().unwrap_or(&session.login_name),
            session.device,
            session.state,
            session.peer
        ),
        // The daemon's own words tell best that there is none.
        None => "End it?".to_owned(),
    })
}

/// Sessions as a table.
pub(super) fn list_text(sessions: &[pb::Session]) -> String {
    if sessions.is_empty() {
        return "no sessions".to_owned();
    }
    let rows = sessions.iter().map(|session| {
        let user = session.user_id.as_ref().unwrap_or(&session.login_name);
        let mut state = session.state.clone();
        if let Some(reason) = &session.end_reason {
            state += &format!(" ({reason})");
        }
        match (session.owed, &session.parked) {
            (true, Some(_)) => state += ", parked",
            (true, None) => state += ", owed",
            (false, _) => {}
        }
        [
            session.role.clone(),
            state,
            session.device.clone(),
            user.clone(),
            session.peer.clone(),
            time(&session.created_at),
            session.r#ref.clone(),
            session.id.clone(),
        ]
    });
    table(
        [
            "ROLE", "STATE", "DEVICE", "USER", "PEER", "SINCE", "REF", "ID",
        ],
        rows.collect(),
    )
}

/// Ends that other clusters have still to be told of, with why they have not been.
fn owed_text(sessions: &[pb::Session]) -> String {
    if sessions.is_empty() {
        return "nothing is owed".to_owned();
    }
    let rows = sessions.iter().map(|session| {
        let user = session.user_id.as_ref().unwrap_or(&session.login_name);
        [
            session.peer.clone(),
            session.role.clone(),
            session.end_reason.clone().unwrap_or_default(),
            session.device.clone(),
            user.clone(),
            session.ended_at.as_deref().map(time).unwrap_or_default(),
            session.id.clone(),
            session.owed_cause.clone().unwrap_or_default(),
        ]
    });
    table(
        [
            "OWED TO",
            "OUR ROLE",
            "ENDED BY",
            "DEVICE",
            "USER",
            "ENDED",
            "ID",
            "NOT TOLD BECAUSE",
        ],
        rows.collect(),
    )
}

fn retried_text(retried: &pb::RetrySessionResponse) -> String {
    if retried.unparked > 0 {
        let number = usize::try_from(retried.unparked).unwrap_or(usize::MAX);
        let ends = count(number, "refused end");
        return format!("tried again: {ends}; emccd session list --owed shows what comes of it");
    }
    let causes: Vec<_> = retried
        .sessions
        .iter()
        .filter_map(|session| {
            Some(format!(
                "{}: {}",
                session.peer,
                session.owed_cause.as_ref()?
            ))
        })
        .collect();
    if causes.is_empty() {
        return "nothing was refused".to_owned();
    }
    format!(
        "nothing was refused; what is owed is tried by itself\n{}",
        causes.join("\n")
    )
}

fn session_text(session: &pb::Session) -> String {
    let pb::Session { role, peer, .. } = session;
    let time_of = |at: &Option<String>| at.as_deref().map(time).unwrap_or_default();
    let mut fields = vec![
        ("session", session.id.clone()),
        ("our role", role.clone()),
        ("other cluster", peer.clone()),
        ("state", session.state.clone()),
        ("device", session.device.clone()),
        ("user", session.user_id.clone().unwrap_or_default()),
        (
            "typed",
            format!("{} {}", session.login_type, session.login_name),
        ),
        ("profile", session.profile.clone().unwrap_or_default()),
        (
            "base device",
            session.base_device.clone().unwrap_or_default(),
        ),
        ("ref", session.r#ref.clone()),
        ("since", time(&session.created_at)),
    ];
    if let Some(reason) = &session.restart_reason {
        let what = if session.reset { "reset" } else { "restart" };
        fields.push(("phone is to", format!("{what}: {reason}")));
    }
    if session.deadline.is_some() {
        fields.push(("deadline", time_of(&session.deadline)));
    }
    if session.ended_at.is_some() {
        let reason = session.end_reason.clone().unwrap_or_default();
        let by = session.initiator.clone().unwrap_or_default();
        fields.push(("ended", time_of(&session.ended_at)));
        fields.push(("reason", format!("{reason}, by {by}")));
        let owed = if session.owed {
            peer.clone()
        } else {
            "nobody".to_owned()
        };
        fields.push(("still to be told", owed));
    }
    if let Some(cause) = &session.owed_cause {
        fields.push(("not told because", cause.clone()));
    }
    if session.parked_at.is_some() {
        fields.push(("parked since", time_of(&session.parked_at)));
    }
    record(&fields)
}

fn ended_text(ended: &pb::LogoutSessionResponse) -> String {
    let session = ended.session.clone().unwrap_or_default();
    let user = session.user_id.unwrap_or(session.login_name);
    let told = if ended.acknowledged {
        format!("{} has acknowledged", session.peer)
    } else {
        let cause = session.owed_cause.map(|cause| format!(" ({cause})"));
        format!(
            "{} will be told as soon as its link is up{}",
            session.peer,
            cause.unwrap_or_default()
        )
    };
    format!("ended the session of {user} on {}: {told}", session.device)
}

/// Sessions that one call gives.
const PAGE: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> pb::Session {
        pb::Session {
            id: "0190-1".to_owned(),
            role: "visiting".to_owned(),
            peer: "berlin".to_owned(),
            state: "active".to_owned(),
            device: "SEP1".to_owned(),
            user_id: Some("anna".to_owned()),
            login_type: "DN".to_owned(),
            login_name: "2001".to_owned(),
            r#ref: "7K3Q-9M2X".to_owned(),
            created_at: "2026-11-22T09:30:00.000Z".to_owned(),
            ..pb::Session::default()
        }
    }

    #[test]
    fn sessions_are_a_table() {
        let ended = pb::Session {
            state: "ended".to_owned(),
            end_reason: Some("operator".to_owned()),
            user_id: None,
            owed: true,
            ..session()
        };
        assert_eq!(
            list_text(&[session(), ended]),
            "\
ROLE      STATE                   DEVICE  USER  PEER    SINCE                 REF        ID
visiting  active                  SEP1    anna  berlin  2026-11-22 09:30:00Z  7K3Q-9M2X  0190-1
visiting  ended (operator), owed  SEP1    2001  berlin  2026-11-22 09:30:00Z  7K3Q-9M2X  0190-1"
        );
    }

    #[test]
    fn a_session_says_what_its_phone_is_to_do_and_why_once_home_has_told_it() {
        assert!(!session_text(&session()).contains("phone is to"));
        for (reset, what) in [(true, "reset"), (false, "restart")] {
            let told = pb::Session {
                reset,
                restart_reason: Some("the locale differs".to_owned()),
                ..session()
            };
            let text = session_text(&told);
            let line = text.lines().find(|line| line.starts_with("phone is to"));
            let said = format!("{what}: the locale differs");
            assert!(line.unwrap().ends_with(&said), "{text}");
        }
    }

    #[test]
    fn what_is_owed_is_listed_with_whom_and_why_not_yet() {
        assert_eq!(owed_text(&[]), "nothing is owed");
        let ended = pb::Session {
            state: "ended".to_owned(),
            end_reason: Some("revoked".to_owned()),
            ended_at: Some("2026-11-22T10:00:00.000Z".to_owned()),
            owed: true,
            parked: Some("it has no record of us".to_owned()),
            owed_cause: Some("parked: it has no record of us".to_owned()),
            ..session()
        };
        assert_eq!(
            owed_text(std::slice::from_ref(&ended)),
            "\
OWED TO  OUR ROLE  ENDED BY  DEVICE  USER  ENDED                 ID      NOT TOLD BECAUSE
berlin   visiting  revoked   SEP1    anna  2026-11-22 10:00:00Z  0190-1  parked: it has no record of us"
        );
        assert!(list_text(std::slice::from_ref(&ended)).contains("ended (revoked), parked"));
        let text = session_text(&ended);
        for line in [
            "still to be told  berlin",
            "not told because  parked: it has no record of us",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let told = pb::Session {
            owed: false,
            parked: None,
            owed_cause: None,
            ..ended
        };
        assert!(session_text(&told).contains("still to be told  nobody"));
    }

    #[test]
    fn an_end_that_is_owed_says_so() {
        let ended = pb::LogoutSessionResponse {
            session: Some(session()),
            acknowledged: false,
        };
        assert_eq!(
            ended_text(&ended),
            "ended the session of anna on SEP1: berlin will be told as soon as its link is up"
        );
    }
}
