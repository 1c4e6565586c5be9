//! Every figure that is told: its name, what it counts, and by what. Pure.
//!
//! Labels are bounded: states, codes, and names of clusters that an operator has entered. Never a user, a phone or
//! anything that was typed.

use std::fmt::Write as _;

/// How a figure moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from the node's start.
    Counter,
    /// It is what it is now.
    Gauge,
    /// How many took how long.
    Histogram,
}

/// One figure.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name as it is told.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it counts, and the incumbent's name for it where it has one. It ends without a full stop.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident = $kind:ident $name:literal $labels:tt $help:literal;)+) => {
        $(#[doc = concat!("`", $name, "`.")] pub const $id: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            labels: &$labels,
            help: $help,
        };)+

        /// All of them, those that belong together side by side.
        pub const ALL: &[&Metric] = &[$(&$id),+];
    };
}

metrics! {
    REQUESTS_IN_PROGRESS = Gauge "emccd_requests_in_progress" []
        "HTTP requests of phones in flight now (RequestsInProgress)";
    REQUESTS_HANDLED = Counter "emccd_requests_handled_total" []
        "HTTP requests of phones answered so far; a login is one or two of them (RequestsHandled)";
    REQUESTS_THROTTLED = Counter "emccd_requests_throttled_total" ["kind"]
        "Logins and logouts refused with 26 because no place could be had in time (RequestsThrottled)";
    REQUESTS_ADMITTED = Counter "emccd_requests_admitted_total" ["kind"]
        "Logins and logouts that got a place";
    REQUESTS_RUNNING = Gauge "emccd_requests_running" ["kind"]
        "Logins and logouts that have a place now, of maximum-concurrent-requests of each kind";
    REQUESTS_WAITING = Gauge "emccd_requests_waiting" ["kind"]
        "Logins and logouts that wait for a place now";
    LOGINS = Counter "emccd_logins_total" ["role", "outcome"]
        "Logins attempted, on phones here (visiting) and of users of ours elsewhere (home), by outcome: success, \
         choice of a profile, or EM code (LoginsSuccessful, Total Login/LogoutRequestsAttempted)";
    LOGIN_DURATION = Histogram "emccd_login_duration_seconds" ["role"]
        "Time from a login's request to its answer";
    LOGOUTS = Counter "emccd_logouts_total" ["role", "by", "outcome"]
        "Ends of sessions that a phone here asked for (by phone) or another cluster told of (by peer), by the role that \
         we play, and by outcome: success or EM code (LogoutsSuccessful). Ends that this cluster decides by itself are \
         in the audit";
    PEER_CALLS = Counter "emccd_peer_calls_total" ["call"]
        "Calls of other clusters that reached a role (Total Number of EMCC Messages)";
    PIN_CHECKS_RUNNING = Gauge "emccd_pin_checks_running" []
        "PIN hashes being computed now";
    PIN_CHECKS_WAITING = Gauge "emccd_pin_checks_waiting" []
        "PIN hashes that wait for a core now";
    PIN_CHECKS = Counter "emccd_pin_checks_total" []
        "PIN hashes begun";
    PIN_CHECKS_REFUSED = Counter "emccd_pin_checks_refused_total" []
        "PIN hashes refused because they could not be done in time";
    SESSIONS = Gauge "emccd_sessions" ["role", "state", "remote"]
        "Living sessions of the cluster (pending and active), whichever node opened them; remote says whether another cluster takes \
         part (home: Number of Remote Devices, visiting: Total Number of Remote Users)";
    SESSIONS_OWED = Gauge "emccd_sessions_owed" []
        "Ends of sessions that other clusters are still to be told of";
    SESSIONS_PARKED = Gauge "emccd_sessions_parked" []
        "Those of emccd_sessions_owed that the other cluster refuses to hear of: a person has to look";
    SESSIONS_HELD_BACK = Gauge "emccd_sessions_held_back" ["peer"]
        "Ends of sessions that are held back for 30 s, since with them more than a fifth of those shared with the peer \
         would end at once; absent where none are";
    BASE_DEVICES = Gauge "emccd_base_devices" ["state"]
        "Base devices of the cluster, free and held by a session";
    LINK_UP = Gauge "emccd_link_up" ["peer"]
        "Whether this node's link to the peer is up; each node of a cluster has links of its own; absent for a peer that is \
         disabled";
    LINK_PROOF_AGE = Gauge "emccd_link_proof_age_seconds" ["peer"]
        "How long ago the peer last proved to this node that it lives; absent while this node's link is not up";
    LINK_INBOUND = Gauge "emccd_link_inbound" ["peer"]
        "Whether the peer holds a link to this node; absent for a peer that is disabled";
    LINK_CLOCK_OFFSET = Gauge "emccd_link_clock_offset_seconds" ["peer"]
        "The peer's clock minus ours, as told last";
    REFUSED_CONNECTIONS = Counter "emccd_refused_connections_total" ["side", "reason"]
        "Connections refused for their certificate: a caller's by us, an answerer's by us, or our own by a caller";
    TURNED_AWAY = Counter "emccd_turned_away_total" ["door", "bound"]
        "Connections closed and calls refused because a bound was reached: connections that are not past their \
         handshake, in all, of one address, of one peer, of strangers; calls of one peer that are begun and not \
         answered, or worked on, and ends of sessions that it tells of";
    CERTIFICATE_EXPIRY = Gauge "emccd_certificate_expiry_seconds" ["identity"]
        "Time until this node's certificate expires; negative afterwards, absent when there is none";
    CERTIFICATE_NOT_AFTER = Gauge "emccd_certificate_not_after_seconds" ["owner", "purpose"]
        "When, in Unix time, the first certificate ends of those that a cluster has for a purpose: ours that are shown \
         (by identity) and the issuers sent along (issuer); and of a peer those that are accepted (pinned, anchor), and \
         those it has shown to this node and no entry names (shown, shown-issuer)";
    ROTATION_ALARMS = Gauge "emccd_rotation_alarms" ["identity", "reason"]
        "Rotations of this node's certificates that need a person, absent where none does: the node's own problem (problem), \
         an authority that has to make the next one (authority), an exchange that is in the way of the next, which is due \
         (next), or how many peers hold it up: to be told by hand (manual), waiting for their operator (waiting), not taking \
         it (refused), not waited for and not back (overridden), silent for an hour (silent)";
    CRL_NEXT_UPDATE = Gauge "emccd_crl_next_update_seconds" ["peer"]
        "When, in Unix time, the first of the revocation lists is stale that count for the peer; absent where there is none";
    STORE_COMMITS = Counter "emccd_store_commits_total" []
        "Durable commits";
    STORE_COMMIT_FAILURES = Counter "emccd_store_commit_failures_total" []
        "Transactions that could not be written, as on a full disk; nothing of them stands";
    STORE_COMMIT_SECONDS = Counter "emccd_store_commit_seconds_total" []
        "Time spent in durable commits, all together";
    STORE_WRITES = Counter "emccd_store_writes_total" []
        "Write operations that stand and have changed something; many share a commit";
    STORE_READS = Counter "emccd_store_reads_total" []
        "Read operations";
    STORE_WAITING = Gauge "emccd_store_waiting" ["access"]
        "Operations that wait for the database now";
    STORE_LOCK_WAIT = Gauge "emccd_store_lock_wait_seconds" []
        "How long the writer has been waiting for another process to let go of the database; 0 when it isn't";
    READY = Gauge "emccd_ready" []
        "Whether /readyz says so";
    BUILD = Gauge "emccd_build_info" ["version"]
        "Always 1; the label has the version";
    UPTIME = Gauge "emccd_uptime_seconds" []
        "Time since the node was started";
    CLOCK_STEPS = Counter "emccd_clock_steps_total" []
        "How often this node's wall clock was set by more than a second, as its monotonic clock shows";
    RESIDENT_MEMORY = Gauge "process_resident_memory_bytes" []
        "Memory of the process that is in RAM";
    OPEN_FILES = Gauge "process_open_fds" []
        "Open files and sockets of the process";
}

impl Metric {
    /// The name without what a counter's kind says already.
    #[must_use]
    pub fn family(&self) -> &'static str {
        self.name.strip_suffix("_total").unwrap_or(self.name)
    }
}

/// `docs/metrics.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = "# Figures\n\n\
        <!-- Rendered from src/edge/metrics/table.rs; `UPDATE_GOLDEN=1 cargo test --lib metrics` writes it anew. -->\n\n\
        Served by each node at `metrics.listen`, path `/metrics`, in the OpenMetrics text format, whatever format is asked for. Labels hold states, \
        codes and names of clusters, never users, phones or anything that was typed. Names in brackets are those of \
        the counters that Cisco Unified Communications Manager has for the same.\n\n\
        | name | kind | labels | what |\n|---|---|---|---|\n"
        .to_owned();
    for metric in ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<_> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "| `{}` | {kind} | {} | {} |",
            metric.name,
            labels.join(", "),
            metric.help
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;

    #[test]
    fn names_are_unique_and_follow_the_custom() {
        let names: BTreeSet<_> = ALL.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            let is_ours = metric.name.starts_with("emccd_") || metric.name.starts_with("process_");
            assert!(is_ours, "{}", metric.name);
            let is_counter = metric.kind == Kind::Counter;
            assert_eq!(
                metric.name.ends_with("_total"),
                is_counter,
                "{}",
                metric.name
            );
            assert!(!metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn the_page_is_what_the_table_gives() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, markdown()).unwrap();
        }
        let page = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            page,
            markdown(),
            "UPDATE_GOLDEN=1 writes docs/metrics.md anew"
        );
    }
}
