//! What the phones and the operators of a simulated run were told: nothing else is known to the model. Pure.

use super::plan::{Cluster, Phone, User, What};
use crate::domain::{
    ids::Ref,
    session::{EndReason, Role},
};

/// What a phone was told of its login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The user is on the phone.
    In,
    /// The code that it shows.
    Failed(u16),
    /// To choose a profile.
    Choose,
    /// Nothing: its node died, or has not answered yet.
    Nothing,
}

/// A login that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) reference: Ref,
    pub(crate) phone: Phone,
    pub(crate) user: User,
    pub(crate) right_pin: bool,
    pub(crate) began_ms: u64,
    /// When it was told; none for those who were told nothing.
    pub(crate) ended_ms: Option<u64>,
    pub(crate) told: Told,
}

/// A logout that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logout {
    pub(crate) phone: Phone,
    pub(crate) began_ms: u64,
    /// When the phone was told of something, or its node died; none while it goes on.
    pub(crate) over_ms: Option<u64>,
    /// Whether it was told that somebody was logged out.
    pub(crate) is_done: bool,
}

/// Something else that was done, or broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) began_ms: u64,
    /// When it was over or mended; none while it goes on.
    pub(crate) ended_ms: Option<u64>,
    pub(crate) what: What,
    /// What whoever did it was told.
    pub(crate) answer: Answer,
    /// When that was, or their node died; none while they wait.
    pub(crate) answered_ms: Option<u64>,
    /// When it began to be taken back.
    pub(crate) undoing_ms: Option<u64>,
}

/// What an operator is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Of a failure, or nothing.
    Nothing,
    /// That there was nobody to do it to.
    Nobody,
    /// That it is done.
    Done,
}

impl Done {
    /// When whoever did it was told that what it is about is so.
    pub(crate) fn told_ms(&self) -> Option<u64> {
        self.answered_ms.filter(|_| self.answer != Answer::Nothing)
    }
}

/// All of that.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) logouts: Vec<Logout>,
    pub(crate) done: Vec<Done>,
}

impl Model {
    /// A login begins; the result is told of it later.
    pub(crate) fn login(
        &mut self,
        reference: Ref,
        phone: Phone,
        user: User,
        right_pin: bool,
        at_ms: u64,
    ) -> usize {
        self.attempts.push(Attempt {
            reference,
            phone,
            user,
            right_pin,
            began_ms: at_ms,
            ended_ms: None,
            told: Told::Nothing,
        });
        self.attempts.len() - 1
    }

    /// The phone is told.
    pub(crate) fn told(&mut self, attempt: usize, told: Told, at_ms: u64) {
        let attempt = &mut self.attempts[attempt];
        attempt.told = told;
        attempt.ended_ms = Some(at_ms);
    }

    /// A logout begins.
    pub(crate) fn logout(&mut self, phone: Phone, at_ms: u64) -> usize {
        self.logouts.push(Logout {
            phone,
            began_ms: at_ms,
            over_ms: None,
            is_done: false,
        });
        self.logouts.len() - 1
    }

    /// The phone is told that somebody is logged out, or of a failure, or will be told nothing.
    pub(crate) fn logged_out(&mut self, logout: usize, is_done: bool, at_ms: u64) {
        let logout = &mut self.logouts[logout];
        logout.over_ms = Some(at_ms);
        logout.is_done = is_done;
    }

    /// Something else begins.
    pub(crate) fn begin(&mut self, what: What, at_ms: u64) -> usize {
        self.done.push(Done {
            began_ms: at_ms,
            ended_ms: None,
            what,
            answer: Answer::Nothing,
            answered_ms: None,
            undoing_ms: None,
        });
        self.done.len() - 1
    }

    /// Whoever does it is told something, or will be told nothing.
    pub(crate) fn answered(&mut self, done: usize, answer: Answer, at_ms: u64) {
        let done = &mut self.done[done];
        (done.answer, done.answered_ms) = (answer, Some(at_ms));
    }

    /// It begins to be taken back.
    pub(crate) fn undoes(&mut self, done: usize, at_ms: u64) {
        self.done[done].undoing_ms = Some(at_ms);
    }

    /// It is over, or mended.
    pub(crate) fn end(&mut self, done: usize, at_ms: u64) {
        self.done[done].ended_ms = Some(at_ms);
    }

    /// The newest attempt with that ref that had begun by then: a database of before gives out once more what it gave
    /// out since.
    pub(crate) fn attempt_by(&self, reference: Ref, at_ms: u64) -> Option<&Attempt> {
        let is_meant = |one: &&Attempt| one.reference == reference && one.began_ms <= at_ms;
        self.attempts.iter().rev().find(is_meant)
    }

    /// What else was going on at some moment since.
    pub(crate) fn since(&self, at_ms: u64) -> impl Iterator<Item = &What> {
        let goes_on = move |done: &&Done| done.ended_ms.is_none_or(|ended| ended >= at_ms);
        self.done.iter().filter(goes_on).map(|done| &done.what)
    }

    /// When all was over that was done or broken, so far; none while something goes on.
    pub(crate) fn over_ms(&self) -> Option<u64> {
        let mut ends = self.done.iter().map(|done| done.ended_ms);
        ends.try_fold(0, |latest, ended| ended.map(|ended| latest.max(ended)))
    }

    /// Whether a cluster's database became an older one since then.
    pub(crate) fn was_restored(&self, cluster: Cluster, since_ms: u64) -> bool {
        self.since(since_ms)
            .any(|what| matches!(what, What::Restore { cluster: one, .. } if *one == cluster))
    }

    /// When a cluster's database last became an older one, until then; 0 for never.
    pub(crate) fn restored_ms(&self, cluster: Cluster, by_ms: u64) -> u64 {
        let all = self.done.iter().filter(|done| {
            done.began_ms <= by_ms
                && matches!(done.what, What::Restore { cluster: one, .. } if one == cluster)
        });
        all.map(|done| done.began_ms).max().unwrap_or_default()
    }

    /// Whether what a cluster wrote at some moment between `from_ms` and `to_ms` may be lost: its database became what
    /// it was before.
    pub(crate) fn was_lost(&self, cluster: Cluster, from_ms: u64, to_ms: u64) -> bool {
        self.done.iter().any(|done| match done.what {
            What::Restore {
                cluster: one,
                age_ms,
                ..
            } => {
                let kept_until = done.began_ms.saturating_sub(age_ms);
                one == cluster && from_ms <= done.began_ms && to_ms >= kept_until
            }
            _ => false,
        })
    }

    /// Whether what was told of a login may be lost at one of the two clusters.
    pub(crate) fn was_forgotten(&self, attempt: &Attempt) -> bool {
        let told = attempt.ended_ms.unwrap_or(u64::MAX);
        [attempt.user.0, attempt.phone.0]
            .into_iter()
            .any(|one| self.was_lost(Cluster(one), attempt.began_ms, told))
    }

    /// Whether one of two clusters turned against the other since then.
    pub(crate) fn fell_out(&self, a: Cluster, b: Cluster, since_ms: u64) -> bool {
        self.since(since_ms).any(|what| are_apart(what, a, b))
    }

    /// How long something stood still or was broken at a cluster since then, in milliseconds.
    pub(crate) fn disturbed_ms(&self, cluster: Cluster, from_ms: u64, to_ms: u64) -> u64 {
        let is_there = |what: &What| match what {
            What::Crash { node, .. } | What::Pause { node, .. } => node.cluster() == cluster,
            What::Disk { cluster: one, .. } | What::Restore { cluster: one, .. } => *one == cluster,
            _ => false,
        };
        let all = self.done.iter().filter(|done| is_there(&done.what));
        all.map(|done| {
            let ended = done.ended_ms.unwrap_or(to_ms).min(to_ms);
            ended.saturating_sub(done.began_ms.max(from_ms))
        })
        .sum()
    }

    /// Whether a node of a cluster crashed between two moments.
    pub(crate) fn crashed(&self, cluster: Cluster, from_ms: u64, to_ms: u64) -> bool {
        self.done.iter().any(|done| {
            matches!(done.what, What::Crash { node, .. } if node.cluster() == cluster)
                && (from_ms..=to_ms).contains(&done.began_ms)
        })
    }

    /// When an operator was last at a user; 0 for never.
    pub(crate) fn set_ms(&self, user: User) -> u64 {
        self.newest_ms(|what| matches!(what, What::SetUser { user: one, .. } if *one == user))
    }

    /// When a cluster last took back its trust in another; 0 for never.
    pub(crate) fn turned_ms(&self, at: Cluster, peer: Cluster) -> u64 {
        self.newest_ms(|what| {
            matches!(what, What::RevokeTrust { at: one, peer: other, .. } if (*one, *other) == (at, peer))
        })
    }

    fn newest_ms(&self, is_meant: impl Fn(&What) -> bool) -> u64 {
        let all = self.done.iter().filter(|done| is_meant(&done.what));
        all.map(|done| done.began_ms).max().unwrap_or_default()
    }

    /// Whether anything else was broken, or anybody turned against somebody, from when that began until then.
    pub(crate) fn was_broken(&self, than: &Done, to_ms: u64) -> bool {
        let breaks = |what: &What| {
            let turns = matches!(
                what,
                What::RemovePeer { .. } | What::DisablePeer { .. } | What::RevokeTrust { .. }
            );
            turns || !what.is_work()
        };
        let from_ms = than.began_ms.saturating_sub(LATE_CALL);
        self.done
            .iter()
            .filter(|done| *done != than && breaks(&done.what))
            .any(|done| done.began_ms <= to_ms && done.ended_ms.is_none_or(|over| over >= from_ms))
    }

    /// Why a session of an acknowledged login may have ended that way, as the phones and operators know it; none when
    /// nothing explains it. What was done only after it had ended explains nothing, and at the side that was asked what
    /// was over long before does not either.
    pub(crate) fn explains(&self, attempt: &Attempt, end: &End) -> Option<&'static str> {
        let (home, visiting) = (Cluster(attempt.user.0), Cluster(attempt.phone.0));
        let since = attempt.began_ms;
        if self.was_forgotten(attempt) {
            return Some("a database became an older one");
        }
        let ended = end.at_ms.unwrap_or(u64::MAX);
        // What had ended lives again in a database of before, and ends once more when the other side says so.
        let is_once_more = [home, visiting]
            .into_iter()
            .any(|one| self.was_restored(one, since));
        let soon_after = |over: Option<u64>, at: Cluster, more: u64| {
            let Some((over, ended)) = over.zip(end.at_ms) else {
                return true;
            };
            let patience = STALL + more + self.disturbed_ms(at, over, ended);
            is_once_more || ended <= over.saturating_add(patience)
        };
        let of_operators = |is_meant: &dyn Fn(&What) -> bool| {
            let goes_on = |done: &&Done| {
                done.ended_ms.is_none_or(|over| over >= since) && done.began_ms <= ended
            };
            self.done
                .iter()
                .filter(goes_on)
                .any(|done| is_meant(&done.what))
        };
        let fell_out = of_operators(&|what| are_apart(what, home, visiting));
        match end.reason {
            EndReason::User => self
                .logouts
                .iter()
                .any(|one| {
                    one.phone == attempt.phone
                        && one.began_ms <= ended
                        && one.over_ms.is_none_or(|over| over >= since)
                        // Home hears of it whenever it can be told.
                        && (end.role == Role::Home || soon_after(one.over_ms, visiting, 0))
                })
                .then_some("a logout"),
            EndReason::Operator => self
                .done
                .iter()
                .any(|done| {
                    let (at, role, is_meant) = match &done.what {
                        What::EndAtVisiting { phone, .. } => {
                            (visiting, Role::Visiting, *phone == attempt.phone)
                        }
                        What::EndAtHome { user, .. } => (home, Role::Home, *user == attempt.user),
                        What::RemoveBase { base, .. } => {
                            let held = end.base.as_ref();
                            let is_held = held.is_none_or(|held| *held == base.to_string());
                            (home, Role::Home, base.0 == home.0 && is_held)
                        }
                        _ => return false,
                    };
                    is_meant
                        && done.answer != Answer::Nobody
                        && done.began_ms <= ended
                        && done.answered_ms.is_none_or(|over| over >= since)
                        // The other side hears of it whenever it can be told.
                        && (end.role != role || soon_after(done.answered_ms, at, 0))
                })
                .then_some("an operator"),
            EndReason::Superseded => self
                .attempts
                .iter()
                .any(|other| {
                    let over = other.ended_ms.unwrap_or(other.began_ms + LOGIN_MS);
                    // One of before that comes once more, so late, begins anew where its home has forgotten it.
                    let comes_until = over + STALL + LATE_CALL + self.disturbed_ms(home, over, since);
                    let may_begin_anew = || {
                        Cluster(other.user.0) == home
                            && other.right_pin
                            && since <= comes_until
                            && self.was_lost(home, other.began_ms, over)
                    };
                    other.reference != attempt.reference
                        && (other.phone == attempt.phone || other.user == attempt.user)
                        && other.began_ms <= ended
                        && (other.ended_ms.is_none_or(|over| over >= since) || may_begin_anew())
                        && (end.role == Role::Visiting || soon_after(Some(over), home, LATE_CALL))
                })
                .then_some("another login"),
            EndReason::Expired => end.has_limit.then_some("its time was over"),
            EndReason::Revoked => of_operators(&|what| {
                matches!(what, What::SetUser { user, enabled: false } if *user == attempt.user)
            })
            .then_some("the user was disabled")
            .or_else(|| fell_out.then_some("the clusters fell out")),
            // What was acknowledged is given up by nobody, unless one of them had forgotten it.
            EndReason::Abandoned => fell_out.then_some("the clusters fell out"),
            EndReason::Refused => None,
        }
    }

    /// What was done and told at a cluster so that a peer is out, with its times: since when, and until when nobody may
    /// have taken that back.
    pub(crate) fn shut_out(
        &self,
        at: Cluster,
        peer: Cluster,
    ) -> impl Iterator<Item = (&What, u64, u64)> {
        let all = move || {
            let is_meant = move |done: &&Done| shuts_out(&done.what, at, peer);
            self.done.iter().filter(is_meant)
        };
        all().filter_map(move |done| {
            let since = done.told_ms()?;
            if self.was_restored(at, done.began_ms) {
                return None;
            }
            // What else was done to the same peer is taken back too, and that may be what counts.
            let undone = all().filter_map(|other| {
                let is_before = other.ended_ms.is_some_and(|over| over < done.began_ms);
                other.undoing_ms.filter(|_| !is_before)
            });
            Some((&done.what, since, undone.min().unwrap_or(u64::MAX)))
        })
    }

    /// Whether somebody has begun to enable a user between two moments.
    pub(crate) fn was_enabled(&self, user: User, from_ms: u64, to_ms: u64) -> bool {
        self.done.iter().any(|done| {
            matches!(done.what, What::SetUser { user: one, enabled: true } if one == user)
                && (from_ms..=to_ms).contains(&done.began_ms)
        })
    }

    /// Since when a user may not log in, as the operator was told; none where somebody may have changed that since, and
    /// where the cluster may have forgotten it.
    pub(crate) fn disabled_since(&self, user: User, at_ms: u64) -> Option<u64> {
        let of_user = self.done.iter().filter_map(|done| match done.what {
            What::SetUser { user: one, enabled } if one == user && done.began_ms <= at_ms => {
                Some((enabled, done))
            }
            _ => None,
        });
        let (enabled, last) = of_user.clone().next_back()?;
        let told = last
            .ended_ms
            .filter(|told| last.answer == Answer::Done && !enabled && *told <= at_ms)?;
        // One that was begun before, and may have come later.
        let is_unclear = of_user.into_iter().any(|(enabled, other)| {
            enabled
                && (other.answer != Answer::Done
                    || other.ended_ms.is_none_or(|over| over >= last.began_ms))
        });
        let home = Cluster(user.0);
        (!is_unclear && !self.was_restored(home, last.began_ms)).then_some(told)
    }
}

/// How a session ended, at one side.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) reason: EndReason,
    /// Of the side.
    pub(crate) role: Role,
    /// When, if that is known.
    pub(crate) at_ms: Option<u64>,
    /// Whether sessions last for a limited time.
    pub(crate) has_limit: bool,
    /// The base device that home held for it, where that is known.
    pub(crate) base: Option<String>,
}

/// Whether a cluster refuses another's logins once that is done, until it is taken back.
fn shuts_out(what: &What, at: Cluster, peer: Cluster) -> bool {
    match what {
        What::RemovePeer {
            at: one,
            peer: other,
            ..
        }
        | What::RevokeTrust {
            at: one,
            peer: other,
            ..
        }
        | What::DisablePeer {
            at: one,
            peer: other,
            ..
        } => (*one, *other) == (at, peer),
        _ => false,
    }
}

/// Whether one of two clusters turned against the other so.
fn are_apart(what: &What, a: Cluster, b: Cluster) -> bool {
    match what {
        What::RemovePeer { at, peer, .. } | What::RevokeTrust { at, peer, .. } => {
            (*at, *peer) == (a, b) || (*at, *peer) == (b, a)
        }
        _ => false,
    }
}

/// What is written may take that long where a disk stalls, and what undoes it as long again.
pub(super) const STALL: u64 = 8_000;
/// How long a login may take.
pub(super) const LOGIN_MS: u64 = 5_000;
/// A call may come late, and once more later still.
const LATE_CALL: u64 = 25_000;

#[cfg(test)]
mod tests {
    use super::*;

    const PHONE: Phone = Phone(0, 1);
    const USER: User = User(1, 2);

    fn model() -> Model {
        let mut model = Model::default();
        let one = model.login(Ref::from_bits(1), PHONE, USER, true, 1_000);
        model.told(one, Told::In, 1_200);
        model
    }

    fn explained(model: &Model, reason: EndReason) -> bool {
        explained_at(model, reason, Role::Visiting, None)
    }

    fn explained_at(model: &Model, reason: EndReason, role: Role, at_ms: Option<u64>) -> bool {
        let end = End {
            reason,
            role,
            at_ms,
            has_limit: false,
            base: Some("EMCC10".into()),
        };
        model.explains(&model.attempts[0], &end).is_some()
    }

    #[test]
    fn nothing_explains_an_end_where_nothing_was_done() {
        let model = model();
        for (reason, _) in EndReason::WORDS {
            assert!(!explained(&model, *reason), "{reason}");
        }
    }

    #[test]
    fn each_end_is_explained_by_what_was_done_since_and_by_nothing_else() {
        let operator = What::EndAtVisiting {
            phone: Phone(0, 1),
            node: 0,
        };
        let elsewhere = What::EndAtVisiting {
            phone: Phone(0, 2),
            node: 0,
        };
        let disabled = What::SetUser {
            user: User(1, 2),
            enabled: false,
        };
        let restored = What::Restore {
            cluster: Cluster(1),
            age_ms: 900,
            for_ms: 1,
        };
        let removed = What::RemovePeer {
            at: Cluster(0),
            peer: Cluster(1),
            for_ms: None,
        };
        for (what, reason, is_explained) in [
            (&operator, EndReason::Operator, true),
            (&operator, EndReason::User, false),
            (&elsewhere, EndReason::Operator, false),
            (&disabled, EndReason::Revoked, true),
            (&disabled, EndReason::Abandoned, false),
            (&removed, EndReason::Revoked, true),
            (&removed, EndReason::Abandoned, true),
            (&restored, EndReason::Abandoned, true),
        ] {
            let mut model = model();
            let done = model.begin(what.clone(), 100);
            model.answered(done, Answer::Done, 900);
            model.end(done, 900);
            assert!(!explained(&model, reason), "before: {what:?}");
            let done = model.begin(what.clone(), 2_000);
            model.answered(done, Answer::Done, 2_100);
            model.end(done, 2_100);
            assert_eq!(explained(&model, reason), is_explained, "{what:?} {reason}");
            let at = |at_ms| explained_at(&model, reason, Role::Home, Some(at_ms));
            let always = matches!(what, What::Restore { .. });
            assert_eq!(at(1_900), is_explained && always, "it had ended: {what:?}");
            assert_eq!(at(2_050), is_explained, "{what:?}");
        }
    }

    #[test]
    fn a_ref_that_was_given_out_again_is_the_newer_attempts() {
        let mut model = model();
        model.login(Ref::from_bits(1), PHONE, User(1, 3), true, 9_000);
        let user = |attempt: Option<&Attempt>| attempt.map(|one| one.user);
        assert_eq!(
            user(model.attempt_by(Ref::from_bits(1), 9_000)),
            Some(User(1, 3))
        );
        assert_eq!(user(model.attempt_by(Ref::from_bits(1), 8_999)), Some(USER));
        assert_eq!(user(model.attempt_by(Ref::from_bits(1), 999)), None);
    }

    #[test]
    fn a_failed_logout_explains_what_ended_by_it_and_nothing_later() {
        let mut model = model();
        let logout = model.logout(PHONE, 2_000);
        model.logged_out(logout, false, 2_100);
        let at =
            |model: &Model, role, at_ms| explained_at(model, EndReason::User, role, Some(at_ms));
        for (role, at_ms, is_explained) in [
            (Role::Visiting, 1_900, false),
            (Role::Visiting, 2_050, true),
            (Role::Visiting, 9_000, true),
            (Role::Visiting, 40_000, false),
            (Role::Home, 1_900, false),
            (Role::Home, 40_000, true),
        ] {
            assert_eq!(at(&model, role, at_ms), is_explained, "{role} {at_ms}");
        }
        // A disk that stands still writes later.
        let node = super::super::plan::Node(0, 0);
        let pause = model.begin(What::Pause { node, for_ms: 1 }, 2_050);
        model.answered(pause, Answer::Done, 39_000);
        model.end(pause, 39_000);
        assert!(at(&model, Role::Visiting, 40_000));
    }

    #[test]
    fn a_database_of_before_forgets_what_was_told_since_and_nothing_older() {
        for (age_ms, is_forgotten) in [(8_700, false), (8_800, true), (9_500, true)] {
            let mut model = model();
            let what = What::Restore {
                cluster: Cluster(0),
                age_ms,
                for_ms: 1,
            };
            let done = model.begin(what, 10_000);
            model.answered(done, Answer::Done, 10_100);
            model.end(done, 10_100);
            assert_eq!(
                model.was_forgotten(&model.attempts[0]),
                is_forgotten,
                "{age_ms}"
            );
            assert_eq!(
                explained(&model, EndReason::Abandoned),
                is_forgotten,
                "{age_ms}"
            );
        }
    }

    #[test]
    fn who_is_disabled_is_so_until_somebody_may_have_enabled_them() {
        let set = |model: &mut Model, enabled, from_ms, to_ms| {
            let done = model.begin(
                What::SetUser {
                    user: USER,
                    enabled,
                },
                from_ms,
            );
            model.answered(done, Answer::Done, to_ms);
            model.end(done, to_ms);
        };
        let mut model = model();
        set(&mut model, false, 2_000, 2_100);
        assert_eq!(model.disabled_since(USER, 2_050), None);
        assert_eq!(model.disabled_since(USER, 3_000), Some(2_100));
        assert_eq!(model.disabled_since(User(1, 3), 3_000), None);
        let mut both = model.clone();
        set(&mut both, true, 2_050, 2_200);
        assert_eq!(both.disabled_since(USER, 3_000), None);
        set(&mut model, true, 4_000, 4_100);
        assert_eq!(model.disabled_since(USER, 3_000), Some(2_100));
        assert_eq!(model.disabled_since(USER, 4_000), None);
    }

    #[test]
    fn a_logout_and_a_later_login_explain_ends_too() {
        let mut logged_out = model();
        logged_out.logout(PHONE, 3_000);
        assert!(explained(&logged_out, EndReason::User));
        let mut again = model();
        again.login(Ref::from_bits(2), Phone(2, 0), USER, true, 3_000);
        assert!(explained(&again, EndReason::Superseded));
        let mut another = model();
        another.login(Ref::from_bits(2), Phone(2, 0), User(1, 3), true, 3_000);
        assert!(!explained(&another, EndReason::Superseded));
    }

    #[test]
    fn a_login_of_before_explains_an_end_only_where_its_home_has_forgotten_it() {
        let home = Cluster(USER.0);
        // Who had logged in before with which PIN, which database became so much older, and when it ended where.
        let explained = |user, right_pin, cluster, age_ms, since, (role, ended)| {
            let mut model = Model::default();
            let before = model.login(Ref::from_bits(1), PHONE, user, right_pin, 1_000);
            model.told(before, Told::In, 1_200);
            let what = What::Restore {
                cluster,
                age_ms,
                for_ms: 1,
            };
            let done = model.begin(what, 3_000);
            model.answered(done, Answer::Done, 3_100);
            model.end(done, 3_100);
            let later = model.login(Ref::from_bits(2), PHONE, USER, true, since);
            model.told(later, Told::In, since + 200);
            let end = End {
                reason: EndReason::Superseded,
                role,
                at_ms: Some(ended),
                has_limit: false,
                base: None,
            };
            model.explains(&model.attempts[1], &end).is_some()
        };
        let (at_home, visiting) = ((Role::Home, 9_000), (Role::Visiting, 9_000));
        let forgets = 2_000;
        assert!(explained(USER, true, home, forgets, 4_000, at_home));
        assert!(explained(USER, true, home, forgets, 4_000, visiting));
        assert!(
            !explained(USER, true, home, 1_700, 4_000, at_home),
            "it knows of it"
        );
        assert!(
            !explained(USER, true, Cluster(2), forgets, 4_000, at_home),
            "who has forgotten is no home"
        );
        assert!(
            !explained(USER, false, home, forgets, 4_000, at_home),
            "no PIN opens it"
        );
        let elsewhere = User(2, 2);
        assert!(
            !explained(elsewhere, true, home, forgets, 4_000, visiting),
            "its home knows of it"
        );
        let too_late = 1_200 + STALL + LATE_CALL + 1_000;
        for role in [Role::Home, Role::Visiting] {
            let end = (role, too_late + 2_000);
            assert!(
                !explained(USER, true, home, forgets, too_late, end),
                "no call comes so late"
            );
        }
    }

    #[test]
    fn what_is_broken_is_counted_where_it_is() {
        let mut model = model();
        let node = super::super::plan::Node(1, 0);
        let what = What::Crash { node, for_ms: 1 };
        let done = model.begin(what, 5_000);
        model.answered(done, Answer::Done, 8_000);
        model.end(done, 8_000);
        assert_eq!(model.disturbed_ms(Cluster(1), 0, 10_000), 3_000);
        assert_eq!(model.disturbed_ms(Cluster(1), 6_000, 7_000), 1_000);
        assert_eq!(model.disturbed_ms(Cluster(0), 0, 10_000), 0);
    }
}
