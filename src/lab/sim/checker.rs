//! Whether the rules of sessions hold: what the clusters have on record, against what was told. Pure.
//!
//! S1 one session per phone and role, and per user where that is asked for. S2 a base device is held by one session.
//! S3 what was asked twice is answered alike, and nothing lives again. S4 what was acknowledged is there, or ended for
//! a reason. S5 both sides agree. S6 nothing stays owed, and what is owed no more has been told. S7 sessions end when
//! their time is over, and not before. S8 whoever lost the right has none.

mod answers;
mod during;
mod moments;
mod record;
mod rights;
mod settled;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

pub(crate) use self::record::{Dump, Dumps, Row};
use self::{moments::Moment, record::Key};
use super::{
    model::Model,
    plan::{Cluster, Phone, Plan, User},
    tap::Call,
};
use crate::domain::session::State;

/// What a phone shows when all has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Nobody,
    Busy,
    In(User),
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wrong {
    /// `S1` to `S8`; or what else should not be.
    pub(crate) rule: &'static str,
    /// When it was seen.
    pub(crate) at_ms: u64,
    /// What is wrong.
    pub(crate) what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ms: {}", self.rule, self.at_ms, self.what)
    }
}

/// Watches a run.
#[derive(Clone, Debug)]
pub(crate) struct Checker {
    plan: Plan,
    /// How each row was last seen, and whether it was seen as a session.
    seen: BTreeMap<Key, State>,
    /// Rows that are sessions though their phones were told of a failure, and since when: what was asked for and is
    /// no longer waited for is carried out, and then what undoes it.
    late: BTreeMap<Key, u64>,
    /// How many changes of each cluster's sessions were looked at, and what there is by them.
    read: [usize; 3],
    there: [Moment; 3],
    /// Users who may not log in, and peers that are not trusted, since when.
    disabled: BTreeMap<User, u64>,
    distrusted: BTreeMap<(Cluster, Cluster), u64>,
    wrong: BTreeSet<Wrong>,
    judged: Counts,
}

/// How often something was met: what nobody meets is judged by no check.
pub(crate) type Counts = BTreeMap<String, usize>;

impl Checker {
    /// Nothing has been seen.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            seen: BTreeMap::new(),
            late: BTreeMap::new(),
            read: [0; 3],
            there: Default::default(),
            disabled: BTreeMap::new(),
            distrusted: BTreeMap::new(),
            wrong: BTreeSet::new(),
            judged: Counts::new(),
        }
    }

    /// Looks at what is on record while things happen.
    pub(crate) fn look(&mut self, at_ms: u64, dumps: &Dumps, model: &Model) {
        for (at, dump) in Cluster::all().zip(dumps) {
            self.one_each(at_ms, at, dump);
            self.forward_only(at_ms, at, dump, model);
            self.no_late_success(at_ms, at, dump, model);
            self.in_time(at_ms, at, dump, model);
            self.told_first(at_ms, at, dumps, model);
            self.without_right(at_ms, at, dump, model);
        }
        self.changes(dumps, model);
        self.told_of_removal(at_ms, dumps, model);
        self.told_of_the_disabled(at_ms, dumps, model);
        if let Some(healed) = self.healed_ms(model)
            && at_ms >= healed + AGREED
        {
            self.agreed(at_ms, dumps);
            self.paid(at_ms, dumps);
        }
    }

    /// Whether all was done, both sides agree, nothing is owed and nobody is in without a right: from here on nothing
    /// happens but by time.
    pub(crate) fn is_at_rest(&self, dumps: &Dumps, model: &Model) -> bool {
        model.over_ms().is_some() && self.strict(dumps).wrong.is_empty()
    }

    /// What would be wrong if all were to have settled by now.
    fn strict(&self, dumps: &Dumps) -> Self {
        // Long after the last change: nothing is excused for having happened just now.
        let long_after = u64::MAX / 2;
        let mut strict = Self::new(&self.plan);
        strict.agreed(long_after, dumps);
        strict.paid(long_after, dumps);
        strict.rightful(long_after, dumps);
        strict
    }

    /// A database became an older one: what was seen there before is no more.
    pub(crate) fn restored(&mut self, cluster: Cluster, dump: &Dump) {
        self.seen.retain(|key, _| key.0 != cluster);
        self.disabled.retain(|user, _| user.0 != cluster.0);
        self.distrusted.retain(|(at, _), _| *at != cluster);
        let place = usize::from(cluster.0);
        self.read[place] = dump.moves.len();
        self.there[place] = Moment::of(dump);
    }

    /// What is wrong after all has settled, and was before; and what was judged for it.
    pub(crate) fn finish(
        mut self,
        at_ms: u64,
        dumps: &Dumps,
        model: &Model,
        phones: &[(Phone, Shown)],
        calls: &[Call],
    ) -> (Vec<Wrong>, Counts) {
        self.look(at_ms, dumps, model);
        let healed = self.healed_ms(model);
        if healed.is_none_or(|healed| at_ms < healed + AGREED) {
            if !self.is_at_rest(dumps, model) {
                let what = "it ended before S5 and S6 were judged".to_owned();
                self.add("run", at_ms, what);
            }
            self.judged.append(&mut self.strict(dumps).judged);
        }
        self.answered_alike(at_ms, dumps, model, calls);
        self.acknowledged(at_ms, dumps, model);
        self.ended_as_told(at_ms, dumps, model);
        self.for_one_reason(at_ms, dumps, model);
        self.let_in(model);
        self.without_trust(at_ms, dumps, model);
        self.rightful(at_ms, dumps);
        self.shown(at_ms, dumps, phones);
        for one in dumps.iter().flat_map(|dump| &dump.moves) {
            if let (Some(State::Ended), Some(reason)) = (one.now, one.reason) {
                self.judged(&format!("{} {reason}", one.role));
            }
        }
        (self.wrong.into_iter().collect(), self.judged)
    }

    /// When all was mended and all was done; none while something goes on.
    fn healed_ms(&self, model: &Model) -> Option<u64> {
        let over = model.over_ms()?;
        Some(over.max(self.plan.healed_at_ms()))
    }

    fn judged(&mut self, what: &str) {
        *self.judged.entry(what.to_owned()).or_default() += 1;
    }

    fn add(&mut self, rule: &'static str, at_ms: u64, what: String) {
        // One row that stays wrong is told of once.
        if !self
            .wrong
            .iter()
            .any(|one| one.rule == rule && one.what == what)
        {
            self.wrong.insert(Wrong { rule, at_ms, what });
        }
    }
}

// Within which both sides agree once all is mended: two heartbeats, the deadline of a login and 30 s; and a moment for
// the disks.
const AGREED: u64 = 39_000 + 3_000;
// What home ends at the earliest so much before visiting would by itself.
const VISITING_LATER: u64 = 60_000;
// Within which a session ends whose time is over: 5 s. A slow disk comes on top; and where the node that watches died
// or stood still, as long as it takes to notice.
const EXPIRY: u64 = 5_000 + 4_000;
const TAKE_OVER: u64 = 9_000;
// A node may count on from a time of the cluster's that is as old as this.
const BEHIND: u64 = 3_000;
// How old a session is at least that is ended since the other side lacks it.
const OLD_ENOUGH: u64 = 30_000;
// Within which whoever loses the right is out.
const RIGHTS: u64 = 30_000;
// Within which the links of a peer are cut that is trusted no more: it is read again after 200 ms, and a second later
// where that failed.
const CUT: u64 = 2_000;

#[cfg(test)]
mod tests;
