//! What broken programs, attackers and tired operators send: each gets a clear error, nobody else notices.

use std::time::Duration;

use emccd::lab::{Cluster, Lab};

use crate::support::{lab_of_processes, log_in, log_out};

mod attacks;
mod connections;
mod messages;
mod pages;
mod raw;
mod start;

/// Two clusters in processes of their own, so that each has a log to look at. The first one is attacked.
async fn victim() -> Lab {
    lab_of_processes(2).await
}

/// How long anything may take on a busy machine before it counts as never.
const PATIENCE: Duration = Duration::from_secs(20);

/// After an attack, or during it: logins in both directions as before, and nothing has panicked.
async fn assert_unharmed(lab: &Lab) {
    for (home, visiting) in [(0, 1), (1, 0)] {
        let shown = log_in(lab, home, 0, visiting, 0).await;
        assert_eq!(
            (shown.headline(), shown.em_code),
            ("Login successful", None),
            "{}",
            shown.text
        );
        let shown = log_out(&lab.clusters[visiting], 0).await;
        assert_eq!(shown.headline(), "Logout successful", "{}", shown.text);
    }
    for cluster in &lab.clusters {
        let log = log_of(cluster);
        assert!(!log.contains("panicked"), "{log}");
    }
}

fn log_of(cluster: &Cluster) -> String {
    std::fs::read_to_string(cluster.member().unwrap().log_file()).unwrap()
}
