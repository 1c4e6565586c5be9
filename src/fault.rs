//! Named points at which a test can stop a node for good, so that it can be killed exactly there; and faults that a
//! test can put into the product, to see that it would be noticed.
//!
//! A point does nothing unless the node was started with its name. Points are handed in per node: a process
//! with many nodes can stop one of them.
//!
//! Beside the points with names of their own, each durable commit of a node is two: `store.commit.before.N` and
//! `store.commit.after.N`, where N counts the commits that changed something since the store was opened, from 1. After
//! means durable, and answered to nobody. What is written is told with the point, as the paths of the operations; in
//! place of a number, a part of such a path means the first commit that it is in: `store.commit.after.login::activate`.

use std::{fmt, sync::Arc};

type Report = Arc<dyn Fn(&str, &[&str]) + Send + Sync>;

/// The points of one node.
#[derive(Clone, Default)]
pub struct FaultPoints {
    stop_at: Option<(Arc<str>, Report)>,
    /// The same, where it is a commit: these are passed too often to write out their names.
    commit: Option<(Side, Commit)>,
}

/// Where a node stops at a durable commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// All is written, nothing of it is durable.
    Before,
    /// All of it is durable, and nobody has been told.
    After,
}

/// Which commit.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Commit {
    /// By its number.
    Number(u64),
    /// The first that writes this.
    Of(Arc<str>),
}

impl FaultPoints {
    /// Every point is passed.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The node stops at `name`, after calling `report` with it and, at a commit, with what is written.
    pub fn stop_at(name: &str, report: impl Fn(&str, &[&str]) + Send + Sync + 'static) -> Self {
        Self {
            stop_at: Some((Arc::from(name), Arc::new(report))),
            commit: Commit::named(name),
        }
    }

    /// Passes the point `name`, or reports it and never returns.
    pub async fn pass(&self, name: &str) {
        if let Some((stop, report)) = &self.stop_at
            && **stop == *name
        {
            report(name, &[]);
            std::future::pending::<()>().await;
        }
    }

    /// The same for what runs on a thread that may be held up, such as the steps of one transaction.
    pub fn pass_here(&self, name: &str) {
        self.pass_writing(name, &[]);
    }

    fn pass_writing(&self, name: &str, writes: &[&str]) {
        if let Some((stop, report)) = &self.stop_at
            && **stop == *name
        {
            report(name, writes);
            loop {
                std::thread::park();
            }
        }
    }

    /// Whether one of the commits is meant: only then need it be known what they write.
    pub const fn is_at_commit(&self) -> bool {
        self.commit.is_some()
    }

    /// As [`FaultPoints::pass_here`], at a commit that makes the effects of these operations durable.
    pub fn pass_commit(&self, side: Side, number: u64, writes: &[&str]) {
        let is_it = match &self.commit {
            Some((at, Commit::Number(wanted))) => (*at, *wanted) == (side, number),
            Some((at, Commit::Of(part))) => {
                *at == side && writes.iter().any(|path| path.contains(&**part))
            }
            None => false,
        };
        if is_it && let Some((name, _)) = &self.stop_at {
            self.pass_writing(name, writes);
        }
    }
}

impl Commit {
    /// The commit of which a point's name tells.
    fn named(name: &str) -> Option<(Side, Self)> {
        let (side, which) = name.strip_prefix("store.commit.")?.split_once('.')?;
        let side = match side {
            "before" => Side::Before,
            "after" => Side::After,
            _ => return None,
        };
        let which = which
            .parse()
            .map_or_else(|_| Self::Of(Arc::from(which)), Self::Number);
        Some((side, which))
    }
}

impl fmt::Debug for FaultPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FaultPoints")
            .field(&self.stop_at.as_ref().map(|(name, _)| name))
            .finish()
    }
}

/// A fault that tests put into the product, to see that what watches over it would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bug {
    /// The outbox takes an end for delivered without a call.
    OutboxDropped,
    /// Where two sides disagree, what lives beats what has ended.
    ActiveBeatsEnded,
    /// A login's answer is waited for beyond the deadline, and makes a session of a row that is overdue or has ended.
    PendingPromotedLate,
    /// A login is let in under an id that has ended.
    LoginOnTombstone,
    /// A row that the other side lacks is ended however young it is.
    RowEndedTooYoung,
    /// A write is answered before it is durable.
    AckBeforeCommit,
    /// Sessions run out by the wall clock.
    ExpiryByWallClock,
}

/// Whether a test has put `bug` into the product that runs on this thread. Nobody can outside of tests.
#[cfg(not(test))]
#[inline]
#[must_use]
pub const fn has(_: Bug) -> bool {
    false
}

/// Whether a test has put `bug` into the product that runs on this thread.
#[cfg(test)]
#[must_use]
pub fn has(bug: Bug) -> bool {
    BUG.get() == Some(bug)
}

/// Puts a bug into the product that runs on this thread, until the result is dropped.
#[cfg(test)]
#[must_use]
pub(crate) fn with_bug(bug: Bug) -> Buggy {
    BUG.set(Some(bug));
    Buggy
}

/// See [`with_bug`].
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Buggy;

#[cfg(test)]
impl Drop for Buggy {
    fn drop(&mut self) {
        BUG.set(None);
    }
}

#[cfg(test)]
thread_local! {
    // A simulated federation runs on one thread, whatever the other tests of the process do.
    static BUG: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_told_from_its_name() {
        let of = |name| FaultPoints::stop_at(name, |_, _| {}).commit;
        let before = Some((Side::Before, Commit::Number(12)));
        assert_eq!(of("store.commit.before.12"), before);
        let after = Some((Side::After, Commit::Of(Arc::from("login::commit"))));
        assert_eq!(of("store.commit.after.login::commit"), after);
        assert_eq!(of("store.commit.beside.1"), None);
        assert_eq!(of("login.committed"), None);
    }

    #[test]
    fn a_bug_is_there_until_its_guard_is_dropped_and_on_no_other_thread() {
        assert!(!has(Bug::ExpiryByWallClock));
        let buggy = with_bug(Bug::ExpiryByWallClock);
        assert!(has(Bug::ExpiryByWallClock) && !has(Bug::OutboxDropped));
        let elsewhere = std::thread::spawn(|| has(Bug::ExpiryByWallClock));
        assert!(!elsewhere.join().unwrap());
        drop(buggy);
        assert!(!has(Bug::ExpiryByWallClock));
    }
}
