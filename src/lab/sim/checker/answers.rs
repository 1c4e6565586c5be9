//! S3, as those saw it who asked.

use std::collections::BTreeMap;

use super::{
    super::{
        model::{Attempt, Model, Told},
        plan::{Cluster, What},
        tap::{Answered, Asked, Call},
    },
    Checker,
    record::{Dumps, Row},
};
use crate::domain::{
    ids::SessionId,
    session::{Role, State},
};

impl Checker {
    /// Looks at what is on record right after a login was refused since its user is on another phone: not for a session
    /// that the phone's own cluster has given up and said so.
    pub(crate) fn refused_elsewhere(
        &mut self,
        at_ms: u64,
        attempt: &Attempt,
        dumps: &Dumps,
        model: &Model,
    ) {
        let (home, visiting) = (Cluster(attempt.user.0), Cluster(attempt.phone.0));
        let of_user: Vec<_> = dumps[usize::from(home.0)]
            .rows
            .iter()
            .filter(|row| row.lives() && row.role == Role::Home && row.user == Some(attempt.user))
            .collect();
        let is_ghost = |row: &&Row| {
            let other_side = dumps[usize::from(visiting.0)].row(Role::Visiting, home, row.id);
            let login = dumps[usize::from(home.0)].login_of(row, model);
            let was_told = login.is_some_and(|ghost| {
                matches!(ghost.told, Told::Failed(_))
                    && ghost.ended_ms.is_some_and(|ended| ended < attempt.began_ms)
            });
            row.counterpart == visiting
                && was_told
                && other_side.is_some_and(|row| row.state == State::Ended && row.owed)
        };
        if !of_user.is_empty() && of_user.iter().all(is_ghost) {
            let what = format!(
                "{} was locked out on {} by {}, of which its phone was told that it failed",
                attempt.user, attempt.phone, of_user[0]
            );
            self.add("S3", at_ms, what);
        }
    }

    /// S3, as the callers of other clusters saw it.
    pub(super) fn answered_alike(
        &mut self,
        at_ms: u64,
        dumps: &Dumps,
        model: &Model,
        calls: &[Call],
    ) {
        let mut of_one: BTreeMap<(Cluster, Cluster, SessionId), Vec<&Call>> = BTreeMap::new();
        for call in calls {
            let key = (call.callee, call.caller, call.id);
            of_one.entry(key).or_default().push(call);
        }
        for ((callee, caller, id), calls) in of_one {
            // A database of before knows nothing of what it answered since.
            if model.was_restored(callee, 0) || model.fell_out(callee, caller, 0) {
                continue;
            }
            self.nothing_opened_late(at_ms, (callee, caller, id), &calls, dumps);
            for (first, later) in calls.iter().flat_map(|first| {
                let is_later =
                    |later: &&&Call| first.ended.is_some_and(|ended| later.began > ended);
                calls
                    .iter()
                    .filter(is_later)
                    .map(move |later| (first, later))
            }) {
                let (Some(before), Some(after)) = (&first.answered, &later.answered) else {
                    continue;
                };
                // What a caller is told that may not ask is not kept.
                let may_ask = !was_disabled(callee, caller, model);
                let is_kept = |code: &u16| may_ask && !NOT_KEPT.contains(code);
                match (before, later.asked) {
                    (Answered::Opened(_), Asked::Login) => self.judged("S3 asked again"),
                    (Answered::Ended(_), _) => self.judged("S3 asked after the end was told"),
                    _ => {}
                }
                let is_of_logins = (first.asked, later.asked) == (Asked::Login, Asked::Login);
                let is_wrong = match (before, after) {
                    // Home's reason is the one that counts, on whatever question.
                    (Answered::Ended(a), Answered::Ended(b)) => a != b,
                    _ if later.asked != Asked::Login => false,
                    (Answered::Opened(a), Answered::Opened(b)) => a != b,
                    (Answered::Ended(_), Answered::Opened(_) | Answered::Choose) => true,
                    // It lives, or has ended: there is nothing to refuse.
                    (Answered::Opened(_), Answered::Refused(code)) => is_kept(code),
                    // What was refused once is so after a logout too.
                    (Answered::Ended(_), Answered::Refused(code)) => is_of_logins && is_kept(code),
                    (Answered::Refused(code), Answered::Opened(_)) => {
                        is_of_logins && !NOT_KEPT.contains(code)
                    }
                    (Answered::Refused(a), Answered::Refused(b)) => {
                        is_of_logins && a != b && is_kept(a) && is_kept(b)
                    }
                    _ => false,
                };
                if is_wrong {
                    let what = format!(
                        "{callee} answered {caller} about {id} first {before:?}, and later {after:?}"
                    );
                    self.add("S3", at_ms, what);
                }
            }
        }
    }
    /// S3: whoever asks after a session has ended is told so, however it ended.
    fn nothing_opened_late(
        &mut self,
        at_ms: u64,
        (callee, caller, id): (Cluster, Cluster, SessionId),
        calls: &[&Call],
        dumps: &Dumps,
    ) {
        let dump = &dumps[usize::from(callee.0)];
        let row = dump.row(Role::Home, caller, id);
        let Some(end) = row.and_then(|row| dump.end_of(row)) else {
            return;
        };
        let is_late = |call: &&&Call| call.asked == Asked::Login && call.began_ms > end.at_ms;
        for call in calls.iter().filter(is_late) {
            self.judged("S3 logins asked after the end");
            if matches!(call.answered, Some(Answered::Opened(_))) {
                let what = format!(
                    "{callee} answered {caller} at {} ms, and before there was this: {end}",
                    call.began_ms
                );
                self.add("S3", at_ms, what);
            }
        }
    }
}

/// Whether one of two clusters had the other disabled for a time.
fn was_disabled(a: Cluster, b: Cluster, model: &Model) -> bool {
    model.since(0).any(|what| match what {
        What::DisablePeer { at, peer, .. } => (*at, *peer) == (a, b) || (*at, *peer) == (b, a),
        _ => false,
    })
}

// Refusals that are not kept under the id of a login: what was refused so may come again.
const NOT_KEPT: [u16; 3] = [6, 26, 33];
