//! What the phones and the operators of a simulated run were told: nothing else is known to the model. Pure.

use super::plan::{Cluster, Phone, User, What};
use crate::{domain::ids::Ref, domain::session::Role};

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
    /// When the phone was told that somebody was logged out.
    pub(crate) done_ms: Option<u64>,
}

/// Something else that was done, or broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) began_ms: u64,
    /// When it was over or mended; none while it goes on.
    pub(crate) ended_ms: Option<u64>,
    pub(crate) what: What,
    /// Whether whoever did it was told that it is done.
    pub(crate) acknowledged: bool,
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
    pub(crate) fn login(&mut self, reference: Ref, phone: Phone, user: User, at_ms: u64) -> usize {
        self.attempts.push(Attempt {
            reference,
            phone,
            user,
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
            done_ms: None,
        });
        self.logouts.len() - 1
    }

    /// The phone is told that somebody is logged out.
    pub(crate) fn logged_out(&mut self, logout: usize, at_ms: u64) {
        self.logouts[logout].done_ms = Some(at_ms);
    }

    /// Something else begins.
    pub(crate) fn begin(&mut self, what: What, at_ms: u64) -> usize {
        self.done.push(Done {
            began_ms: at_ms,
            ended_ms: None,
            what,
            acknowledged: false,
        });
        self.done.len() - 1
    }

    /// It is over, or mended.
    pub(crate) fn end(&mut self, done: usize, acknowledged: bool, at_ms: u64) {
        let done = &mut self.done[done];
        done.ended_ms = Some(at_ms);
        done.acknowledged |= acknowledged;
    }

    /// The attempt with that ref.
    pub(crate) fn attempt(&self, reference: Ref) -> Option<&Attempt> {
        self.attempts.iter().find(|one| one.reference == reference)
    }

    /// What else was going on at some moment since.
    pub(crate) fn since(&self, at_ms: u64) -> impl Iterator<Item = &What> {
        let goes_on = move |done: &&Done| done.ended_ms.is_none_or(|ended| ended >= at_ms);
        self.done.iter().filter(goes_on).map(|done| &done.what)
    }

    /// Whether a cluster's database became an older one since then.
    pub(crate) fn was_restored(&self, cluster: Cluster, since_ms: u64) -> bool {
        self.since(since_ms)
            .any(|what| matches!(what, What::Restore { cluster: one, .. } if *one == cluster))
    }

    /// Whether one of two clusters turned against the other since then.
    pub(crate) fn fell_out(&self, a: Cluster, b: Cluster, since_ms: u64) -> bool {
        self.since(since_ms).any(|what| match what {
            What::RemovePeer { at, peer, .. } | What::RevokeTrust { at, peer, .. } => {
                (*at, *peer) == (a, b) || (*at, *peer) == (b, a)
            }
            _ => false,
        })
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

    /// Why a session of an acknowledged login may have ended that way, as the phones and operators know it; none when
    /// nothing explains it.
    pub(crate) fn explains(
        &self,
        attempt: &Attempt,
        reason: crate::domain::session::EndReason,
        role: Role,
        has_limit: bool,
    ) -> Option<&'static str> {
        use crate::domain::session::EndReason;
        let (home, visiting) = (Cluster(attempt.user.0), Cluster(attempt.phone.0));
        let since = attempt.began_ms;
        if self.was_restored(home, since) || self.was_restored(visiting, since) {
            return Some("a database became an older one");
        }
        let others_go_on = |other: &&Attempt| {
            other.reference != attempt.reference
                && other.ended_ms.is_none_or(|ended| ended >= since)
                && (other.phone == attempt.phone || other.user == attempt.user)
        };
        match reason {
            EndReason::User => self
                .logouts
                .iter()
                .any(|one| one.phone == attempt.phone && one.done_ms.is_none_or(|at| at >= since))
                .then_some("a logout"),
            EndReason::Operator => self
                .since(since)
                .any(|what| match what {
                    What::EndAtVisiting { phone, .. } => *phone == attempt.phone,
                    What::EndAtHome { user, .. } => *user == attempt.user,
                    What::RemoveBase { base, .. } => base.0 == home.0,
                    _ => false,
                })
                .then_some("an operator"),
            EndReason::Superseded => self
                .attempts
                .iter()
                .any(|other| others_go_on(&other))
                .then_some("another login"),
            EndReason::Expired => has_limit.then_some("its time was over"),
            EndReason::Revoked => self
                .since(since)
                .any(|what| {
                    matches!(what, What::SetUser { user, enabled: false } if *user == attempt.user)
                })
                .then_some("the user was disabled")
                .or_else(|| {
                    self.fell_out(home, visiting, since)
                        .then_some("the clusters fell out")
                }),
            // What was acknowledged is given up by nobody, unless one of them had forgotten it.
            EndReason::Abandoned => self
                .fell_out(home, visiting, since)
                .then_some("the clusters fell out"),
            EndReason::Refused => {
                let _ = role;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::session::EndReason;

    fn model() -> Model {
        let mut model = Model::default();
        let one = model.login(Ref::from_bits(1), Phone(0, 1), User(1, 2), 1_000);
        model.told(one, Told::In, 1_200);
        model
    }

    fn explained(model: &Model, reason: EndReason) -> bool {
        model
            .explains(&model.attempts[0], reason, Role::Home, false)
            .is_some()
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
            age_ms: 1,
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
            model.end(done, true, 900);
            assert!(!explained(&model, reason), "before: {what:?}");
            let done = model.begin(what.clone(), 2_000);
            model.end(done, true, 2_100);
            assert_eq!(explained(&model, reason), is_explained, "{what:?} {reason}");
        }
    }

    #[test]
    fn a_logout_and_a_later_login_explain_ends_too() {
        let mut logged_out = model();
        logged_out.logout(Phone(0, 1), 3_000);
        assert!(explained(&logged_out, EndReason::User));
        let mut again = model();
        again.login(Ref::from_bits(2), Phone(2, 0), User(1, 2), 3_000);
        assert!(explained(&again, EndReason::Superseded));
        let mut another = model();
        another.login(Ref::from_bits(2), Phone(2, 0), User(1, 3), 3_000);
        assert!(!explained(&another, EndReason::Superseded));
    }

    #[test]
    fn what_is_broken_is_counted_where_it_is() {
        let mut model = model();
        let node = super::super::plan::Node(1, 0);
        let what = What::Crash { node, for_ms: 1 };
        let done = model.begin(what, 5_000);
        model.end(done, true, 8_000);
        assert_eq!(model.disturbed_ms(Cluster(1), 0, 10_000), 3_000);
        assert_eq!(model.disturbed_ms(Cluster(1), 6_000, 7_000), 1_000);
        assert_eq!(model.disturbed_ms(Cluster(0), 0, 10_000), 0);
    }
}
