//! Named points at which a test can stop a node for good, so that it can be killed exactly there.
//!
//! A point does nothing unless the node was started with its name. Points are handed in per node: a process
//! with many nodes can stop one of them.

use std::{fmt, sync::Arc};

type Report = Arc<dyn Fn(&str) + Send + Sync>;

/// The points of one node.
#[derive(Clone, Default)]
pub struct FaultPoints {
    stop_at: Option<(Arc<str>, Report)>,
}

impl FaultPoints {
    /// Every point is passed.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The node stops at `name`, after calling `report` with it.
    pub fn stop_at(name: &str, report: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self {
            stop_at: Some((Arc::from(name), Arc::new(report))),
        }
    }

    /// Passes the point `name`, or reports it and never returns.
    pub async fn pass(&self, name: &str) {
        if let Some((stop, report)) = &self.stop_at
            && **stop == *name
        {
            report(name);
            std::future::pending::<()>().await;
        }
    }

    /// The same for what runs on a thread that may be held up, such as the steps of one transaction.
    pub fn pass_here(&self, name: &str) {
        if let Some((stop, report)) = &self.stop_at
            && **stop == *name
        {
            report(name);
            loop {
                std::thread::park();
            }
        }
    }
}

impl fmt::Debug for FaultPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FaultPoints")
            .field(&self.stop_at.as_ref().map(|(name, _)| name))
            .finish()
    }
}
