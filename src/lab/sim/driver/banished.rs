//! What takes longer than a run that is drawn: a peer that says nothing but "revoked" for five minutes.

use super::{
    super::{
        checker::Row,
        plan::{Second, Settings},
    },
    people::{distrust, trust_again},
    *,
};
use crate::domain::{
    banishment::AFTER,
    session::{EndReason, Initiator, Role, State},
};

/// The phones' cluster: two nodes, either of which may hear it and either of which may end what is shared.
const PHONES_OF: Cluster = Cluster(0);
/// Whose user is on one of them.
const HOME: Cluster = Cluster(1);
/// A third one, which has nothing to do with it.
const OTHER: Cluster = Cluster(2);

/// How long links take to come up, and nodes to see that they are down.
const LINKS: Duration = Duration::from_secs(15);
/// How late after the five minutes what is shared may end: both listen every five seconds, and take the claim to it.
const LATE: Duration = Duration::from_secs(15);

fn plan() -> Plan {
    Plan {
        seed: 7,
        settings: Settings {
            troubled_ms: 0,
            patterns: false,
            limit_minutes: None,
            second: [Second::NotAllowed; 3],
            skew_ms: [0; 4],
            old: None,
            latency_ms: (1, 5),
        },
        steps: Vec::new(),
    }
}

impl World {
    /// What that cluster has on record of the sessions that it shares with the other.
    fn shared(&self, at: Cluster, with: Cluster, role: Role) -> Vec<Row> {
        let mut rows = Dump::of(self.disk(at)).rows;
        rows.retain(|row| row.counterpart == with && row.role == role);
        rows
    }

    fn lives(&self, at: Cluster, with: Cluster, role: Role) -> bool {
        let rows = self.shared(at, with, role);
        rows.iter().any(|row| row.state != State::Ended)
    }

    async fn is_banished(&self) {
        for node in Node::all() {
            self.start(node);
        }
        sleep(LINKS).await;
        self.log_in(Phone(0, 0), 0, User(1, 0), true, 0).await;
        self.log_in(Phone(0, 1), 1, User(2, 0), true, 0).await;
        for (home, with) in [(HOME, PHONES_OF), (OTHER, PHONES_OF)] {
            assert!(self.lives(home, with, Role::Home), "{home}");
            assert!(self.lives(with, home, Role::Visiting), "{home}");
        }
        let home = self.running(Node(HOME.0, 0)).unwrap();
        // Nobody can be told of the end that comes with it: the ways are down until the nodes go by it.
        let there = Node(HOME.0, 0).host();
        for node in PHONES_OF.nodes() {
            for host in [there, node.host()] {
                self.0.net.refuse(host, true);
            }
            self.0.net.kill(there, node.host());
        }
        assert!(distrust(&home, PHONES_OF, false).await);
        sleep(LINKS).await;
        self.0.net.heal();
        let began = Instant::now();
        sleep(LINKS).await;
        assert!(
            !self.lives(HOME, PHONES_OF, Role::Home),
            "home ends it at once"
        );
        // For as long as that may be a mistake which is put right, nothing ends where the phone is.
        sleep_until(began + AFTER - Duration::from_secs(1)).await;
        let shared = self.shared(PHONES_OF, HOME, Role::Visiting);
        assert!(self.lives(PHONES_OF, HOME, Role::Visiting), "{shared:?}");
        sleep_until(began + LINKS + AFTER + LATE).await;
        let ended = self.shared(PHONES_OF, HOME, Role::Visiting);
        let [row] = &ended[..] else {
            panic!("{ended:?}")
        };
        assert_eq!(
            (row.state, row.reason, row.initiator),
            (
                State::Ended,
                Some(EndReason::Revoked),
                Some(Initiator::Visiting)
            ),
            "{row:?}"
        );
        assert!(row.owed, "it is told when there is trust again");
        assert!(
            self.lives(PHONES_OF, OTHER, Role::Visiting),
            "nobody else's"
        );
        assert!(trust_again(&home, PHONES_OF).await);
        sleep(LINKS * 4).await;
        for (at, with, role) in [
            (HOME, PHONES_OF, Role::Home),
            (PHONES_OF, HOME, Role::Visiting),
        ] {
            let rows = self.shared(at, with, role);
            assert!(rows.iter().all(|row| !row.owed), "{at}: {rows:?}");
        }
        for node in Node::all() {
            self.crash(node);
        }
        self.0.tasks.abort_all();
    }
}

#[test]
fn five_minutes_of_nothing_but_revoked_end_what_is_shared() {
    let beginning = stage::beginning();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { World::new(&plan(), beginning).is_banished().await });
    runtime.shutdown_background();
}
