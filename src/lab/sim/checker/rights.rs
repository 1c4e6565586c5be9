//! S8: whoever lost the right has none.

use super::{
    super::{
        model::{Model, STALL, Told},
        plan::{Cluster, What},
    },
    Checker, RIGHTS,
    record::{Dump, Dumps},
};
use crate::domain::session::Role;

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
            let distrusted = self.distrusted.get(&(at, row.counterpart));
            let distrusted =
                distrusted.map(|since| model.turned_ms(at, row.counterpart).max(*since));
            if distrusted.is_some_and(is_long_ago) {
                self.add(
                    "S8",
                    at_ms,
                    format!("{at}: its peer is not trusted since long: {row}"),
                );
            }
        }
    }

    /// Who was let in with a PIN that is none, or while disabled.
    pub(super) fn let_in(&mut self, model: &Model) {
        for attempt in model.attempts.iter().filter(|one| one.told == Told::In) {
            let at_ms = attempt.ended_ms.unwrap_or(attempt.began_ms);
            let (user, phone) = (attempt.user, attempt.phone);
            if !attempt.right_pin {
                self.add(
                    "S8",
                    at_ms,
                    format!("{user} was let in on {phone} with a wrong PIN"),
                );
            }
            if let Some(since) = model.disabled_since(user, attempt.began_ms) {
                let what =
                    format!("{user} was let in on {phone}, and is disabled since {since} ms");
                self.add("S8", at_ms, what);
            }
        }
    }

    /// The other side of a peer that was removed while nothing was broken: it has been told first.
    pub(super) fn told_of_removal(&mut self, at_ms: u64, dumps: &Dumps, model: &Model) {
        for done in model.done.iter().filter(|done| done.acknowledged) {
            let What::RemovePeer { at, peer, .. } = done.what else {
                continue;
            };
            let told_by = done.began_ms + RIGHTS;
            if at_ms < told_by || model.was_broken(done, told_by) {
                continue;
            }
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
