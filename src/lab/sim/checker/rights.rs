//! S8: whoever lost the right has none.

use super::{
    super::{
        model::{Answer, Attempt, Model, STALL, Told},
        plan::{Cluster, What},
    },
    CUT, Checker, RIGHTS,
    during::troubled_ms,
    record::{Dump, Dumps, Row, are_linked},
};
use crate::domain::session::{Role, State};

impl Checker {
    /// Sessions that live though their right to was lost long ago.
    pub(super) fn without_right(&mut self, at_ms: u64, at: Cluster, dump: &Dump, model: &Model) {
        self.disabled
            .retain(|user, _| user.0 != at.0 || dump.disabled.contains(user));
        for user in &dump.disabled {
            self.disabled.entry(*user).or_insert(at_ms);
        }
        let trusts = |peer: Cluster| dump.peers.get(&peer).is_none_or(|regard| regard.trusted);
        self.distrusted
            .retain(|(of, peer), _| *of != at || !trusts(*peer));
        for peer in Cluster::all().filter(|peer| !trusts(*peer)) {
            self.distrusted.entry((at, peer)).or_insert(at_ms);
        }
        let is_long_ago =
            |since: u64| at_ms > since + RIGHTS + STALL + model.disturbed_ms(at, since, at_ms);
        for row in dump.rows.iter().filter(|row| row.lives()) {
            let user = row.user.filter(|_| row.role == Role::Home);
            // Somebody may have been enabled and disabled again between two looks.
            let disabled =
                user.and_then(|user| Some(model.set_ms(user).max(*self.disabled.get(&user)?)));
            if disabled.is_some_and(is_long_ago) {
                self.add(
                    "S8",
                    at_ms,
                    format!("{at}: its user is disabled since long: {row}"),
                );
            }
            // Trust is cut at once. A login that is refused for it is pending for a moment.
            let distrusted = self.distrusted.get(&(at, row.counterpart));
            let distrusted = distrusted.filter(|_| row.state != State::Pending);
            let distrusted =
                distrusted.map(|since| model.turned_ms(at, row.counterpart).max(*since));
            let is_cut = |since: u64| at_ms > since + STALL + troubled_ms(at, since, at_ms, model);
            if distrusted.is_some_and(is_cut) {
                self.add(
                    "S8",
                    at_ms,
                    format!("{at}: its peer is not trusted since long: {row}"),
                );
            }
        }
    }

    /// Sessions that a cluster has with another for a while after an operator was told that it is trusted no more.
    pub(super) fn without_trust(&mut self, at_ms: u64, dumps: &Dumps, model: &Model) {
        for (at, dump) in Cluster::all().zip(dumps) {
            for (peer, told, until) in revoked(at, model) {
                for row in dump.rows.iter().filter(|row| row.counterpart == peer) {
                    // A database of before may have lost it, and heard of it once more.
                    let first = dump
                        .moves
                        .iter()
                        .rfind(|one| one.is_of(row) && one.was.is_none());
                    // One that was under way may be written a moment later.
                    let since = first.map_or(0, |first| first.at_ms).max(told);
                    let over = dump.end_of(row).map_or(at_ms, |over| over.at_ms);
                    let lived_until = if row.lives() { at_ms } else { over }.min(until);
                    let patience = STALL + troubled_ms(at, since, lived_until, model);
                    if over > told {
                        self.judged("S8 sessions whose peer lost our trust");
                    }
                    if lived_until > since + patience {
                        let what = format!("{at}: its peer is not trusted since {told} ms: {row}");
                        self.add("S8", at_ms, what);
                    }
                }
            }
        }
    }

    /// Who was let in with a PIN that is none, or while disabled.
    pub(super) fn let_in(&mut self, model: &Model) {
        for attempt in &model.attempts {
            let at_ms = attempt.ended_ms.unwrap_or(attempt.began_ms);
            let (user, phone) = (attempt.user, attempt.phone);
            let is_in = attempt.told == Told::In;
            if is_in && !attempt.right_pin {
                self.add(
                    "S8",
                    at_ms,
                    format!("{user} was let in on {phone} with a wrong PIN"),
                );
            }
            let disabled = model.disabled_since(user, attempt.began_ms);
            let disabled = disabled.filter(|_| !model.was_enabled(user, attempt.began_ms, at_ms));
            if let Some(since) = disabled {
                self.judged("S8 logins of disabled users");
                if is_in {
                    let what =
                        format!("{user} was let in on {phone}, and is disabled since {since} ms");
                    self.add("S8", at_ms, what);
                }
            }
            self.shut_out(attempt, at_ms, model);
        }
    }

    /// A login between two clusters that began when one of them had shut the other out.
    fn shut_out(&mut self, attempt: &Attempt, at_ms: u64, model: &Model) {
        let (home, visiting) = (Cluster(attempt.user.0), Cluster(attempt.phone.0));
        for (at, peer) in [(home, visiting), (visiting, home)] {
            for (what, told, until) in model.shut_out(at, peer) {
                let kind = match what {
                    What::RevokeTrust {
                        only_removed: true, ..
                    } => "S8 logins after trust was removed",
                    What::RevokeTrust { .. } => "S8 logins after trust was revoked",
                    What::DisablePeer { .. } => "S8 logins with disabled peers",
                    _ => "S8 logins with removed peers",
                };
                let patience = match what {
                    // Where the phone is each node cuts its links as soon as it has read of it.
                    What::RevokeTrust { .. } if at == visiting => {
                        CUT + model.disturbed_ms(at, told, attempt.began_ms)
                    }
                    _ => 0,
                };
                if attempt.began_ms <= told + patience || at_ms >= until {
                    continue;
                }
                self.judged(kind);
                if attempt.told == Told::In {
                    let what = format!(
                        "{} was let in on {}, and told at {told} ms was {what:?}",
                        attempt.user, attempt.phone
                    );
                    self.add("S8", at_ms, what);
                }
            }
        }
    }

    /// The other side of a peer that was removed while nothing was broken: it has been told first.
    pub(super) fn told_of_removal(&mut self, at_ms: u64, dumps: &Dumps, model: &Model) {
        for done in model.done.iter().filter(|done| done.answer == Answer::Done) {
            let What::RemovePeer { at, peer, .. } = done.what else {
                continue;
            };
            let told_by = done.began_ms + RIGHTS;
            if at_ms < told_by || model.was_broken(done, told_by) {
                continue;
            }
            self.judged("S8 peers told of a removal");
            let other = &dumps[usize::from(peer.0)];
            let all = [(Role::Home, at), (Role::Visiting, at)];
            for row in all
                .into_iter()
                .flat_map(|(role, with)| other.living(role, with))
            {
                let is_of_before = other
                    .login_of(row, model)
                    .and_then(|attempt| attempt.ended_ms)
                    .is_some_and(|ended| ended < done.began_ms);
                if is_of_before {
                    let what = format!("{peer} was removed by {at} and told nothing of it: {row}");
                    self.add("S8", at_ms, what);
                }
            }
        }
    }

    /// Where a user was disabled while nothing was broken, the phones that they were on have been told.
    pub(super) fn told_of_the_disabled(&mut self, at_ms: u64, dumps: &Dumps, model: &Model) {
        for done in model.done.iter().filter(|done| done.answer == Answer::Done) {
            let What::SetUser {
                user,
                enabled: false,
            } = done.what
            else {
                continue;
            };
            let told_by = done.began_ms + RIGHTS;
            // Who is enabled again at once may stay.
            let is_set_again = model.done.iter().any(|other| {
                let is_same = matches!(other.what, What::SetUser { user: one, .. } if one == user);
                is_same
                    && other != done
                    && other.began_ms <= told_by
                    && other.ended_ms.is_none_or(|over| over >= done.began_ms)
            });
            if at_ms < told_by || is_set_again || model.was_broken(done, told_by) {
                continue;
            }
            // What was told is forgotten in a database of before.
            if Cluster::all().any(|one| model.was_restored(one, done.began_ms)) {
                continue;
            }
            self.judged("S8 disabled users' phones");
            let home = Cluster(user.0);
            for (at, dump) in Cluster::all().zip(dumps) {
                if !are_linked(at, home, dumps) || model.fell_out(at, home, 0) {
                    continue;
                }
                let of_before = |row: &&Row| {
                    let login = dump.login_of(row, model);
                    let told = login.and_then(|login| login.ended_ms);
                    row.user == Some(user) && told.is_some_and(|told| told < done.began_ms)
                };
                if let Some(row) = dump.living(Role::Visiting, home).find(of_before) {
                    let what =
                        format!("{at}: its user was disabled at {} ms: {row}", done.began_ms);
                    self.add("S8", at_ms, what);
                }
            }
        }
    }

    /// Once all has settled.
    pub(super) fn rightful(&mut self, at_ms: u64, dumps: &Dumps) {
        for (at, dump) in Cluster::all().zip(dumps) {
            for row in dump.rows.iter().filter(|row| row.lives()) {
                let is_disabled = row.user.is_some_and(|user| dump.disabled.contains(&user));
                if row.role == Role::Home && is_disabled {
                    self.add("S8", at_ms, format!("{at}: its user is disabled: {row}"));
                }
                if row.counterpart == at {
                    continue;
                }
                match dump.peers.get(&row.counterpart) {
                    None => self.add("S8", at_ms, format!("{at}: its peer was removed: {row}")),
                    Some(regard) if !regard.trusted => {
                        self.add("S8", at_ms, format!("{at}: its peer is not trusted: {row}"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

/// Whom a cluster's operators were told to be trusted no more; since when, and until when that may have been taken back.
fn revoked(at: Cluster, model: &Model) -> impl Iterator<Item = (Cluster, u64, u64)> {
    let others = Cluster::all().filter(move |peer| *peer != at);
    others.flat_map(move |peer| {
        let all = model.shut_out(at, peer);
        let all = all.filter(|(what, ..)| matches!(what, What::RevokeTrust { .. }));
        all.map(move |(_, told, until)| (peer, told, until))
    })
}
