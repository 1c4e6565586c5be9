//! How soon a dead peer is seen, and a healed one used, with the pace that is shipped; exact, as no machine's speed is in
//! it. Daemons over real sockets have it in `tests/it/liveness.rs`, with what a busy machine takes on top.

use super::{
    super::{net::Cut, plan::Second},
    people::{ask_in, caller},
    *,
};
use crate::domain::federation::LinkState;

/// Whose phones are used.
const HERE: Node = Node(1, 0);
/// Whose users visit, and whose node dies.
const THERE: Node = Node(2, 0);

const SEEN_DEAD: Duration = Duration::from_secs(10);
const USABLE: Duration = Duration::from_secs(2);
/// What an answer may come after a deadline, at the latency of these runs.
const MOMENT: Duration = Duration::from_millis(100);
/// What a login takes at that latency.
const VISIT: Duration = Duration::from_millis(500);
/// How long links take to come up in the beginning.
const LINKS: Duration = Duration::from_secs(5);

/// How a peer dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// Its node is killed, and starts again.
    Killed,
    /// Nothing comes through, in either direction; connections are gone without a word.
    Lost,
    /// Nothing comes through, and all of it comes in the end.
    Stuck,
    /// It stands still with its disk.
    Stopped,
}

fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        settings: Settings {
            troubled_ms: 0,
            patterns: true,
            limit_minutes: None,
            second: [Second::Allowed; 3],
            skew_ms: [0; 4],
            old: None,
            latency_ms: (1, 20),
        },
        steps: Vec::new(),
    }
}

impl World {
    /// How long until the link has that state; nothing where it takes longer than `limit`.
    async fn until(&self, is_up: bool, limit: Duration) -> Option<Duration> {
        let (began, here) = (Instant::now(), self.running(HERE).unwrap());
        let there = ClusterId::new(THERE.cluster().to_string()).unwrap();
        let is_so = here.links.wait_for(
            |all| {
                let link = all.iter().find(|link| link.cluster == there).unwrap();
                (link.outbound == LinkState::Up) == is_up
            },
            (began + limit).into_std(),
        );
        is_so.await.then(|| began.elapsed())
    }

    /// A visitor's login, and how long it took. Whoever got in leaves again.
    async fn visit(&self, phone: u8) -> (Told, Duration) {
        let (began, here) = (Instant::now(), self.running(HERE).unwrap());
        let (phone, user) = (Phone(HERE.0, phone), User(THERE.0, phone));
        let told = ask_in(&here, phone, user, true, here.visiting.new_ref()).await;
        let took = began.elapsed();
        if told == Told::In {
            let (device, reference) = (phone.to_string(), here.visiting.new_ref());
            let out = here.visiting.logout(&device, caller(phone), reference);
            out.await.unwrap();
        }
        (told, took)
    }

    async fn die(&self, death: Death) -> Vec<u64> {
        let (net, here, there) = (&self.0.net, HERE.host(), THERE.host());
        match death {
            Death::Killed => {
                self.crash(THERE);
                Vec::new()
            }
            Death::Lost | Death::Stuck => {
                let how = match death {
                    Death::Lost => Cut::Dropped,
                    _ => Cut::Held,
                };
                [(here, there), (there, here)]
                    .map(|(from, to)| net.cut(from, to, how))
                    .to_vec()
            }
            Death::Stopped => {
                net.hold(there, true);
                self.running(THERE).unwrap().hold(true);
                Vec::new()
            }
        }
    }

    async fn live(&self, death: Death, cuts: Vec<u64>) {
        match death {
            Death::Killed => self.revive(THERE),
            Death::Lost | Death::Stuck => cuts.into_iter().for_each(|cut| self.0.net.mend(cut)),
            Death::Stopped => {
                self.0.net.hold(THERE.host(), false);
                self.running(THERE).unwrap().hold(false);
            }
        }
    }

    async fn dies_and_lives(&self, death: Death, phase: Duration, dead: Duration) {
        for node in Node::all() {
            self.start(node);
        }
        sleep(LINKS + phase).await;
        assert_eq!(self.visit(0).await.0, Told::In, "{death:?}");

        let cuts = self.die(death).await;
        let began = Instant::now();
        // From the moment of the death on, and when it is long known.
        let asked = async {
            while began.elapsed() + LOGIN < dead {
                let (told, took) = self.visit(1).await;
                assert!(matches!(told, Told::Failed(_)), "{death:?}: {told:?}");
                assert!(took <= LOGIN + MOMENT, "{death:?}: {took:?}");
            }
        };
        let (seen, ()) = tokio::join!(self.until(false, SEEN_DEAD), asked);
        assert!(seen.is_some(), "{death:?} was not seen in time");
        sleep_until(began + dead).await;

        self.live(death, cuts).await;
        let healed = Instant::now();
        let up = self.until(true, USABLE).await;
        assert!(up.is_some(), "{death:?}: not linked again in time");
        let (told, _) = self.visit(2).await;
        let used = healed.elapsed();
        assert_eq!(told, Told::In, "{death:?}, {used:?} after");
        assert!(used <= USABLE + VISIT, "{death:?}: {used:?}");
        for node in Node::all() {
            self.crash(node);
        }
        self.0.tasks.abort_all();
    }
}

#[test]
fn a_dead_peer_is_seen_and_a_healed_one_used_in_time() {
    let beginning = stage::beginning();
    let shipped = peer::Config::new(ClusterId::new("any").unwrap(), "any");
    let pace = Pace {
        heartbeat: shipped.heartbeat,
        dead_after: shipped.dead_after,
    };
    for seed in 0..5 {
        let lots = Chance::seeded(seed);
        for death in [Death::Killed, Death::Lost, Death::Stuck, Death::Stopped] {
            let phase = Duration::from_millis(lots.range(0..5_000));
            let dead = Duration::from_millis(lots.range(15_000..60_000));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let world = World::at_pace(&plan(seed), beginning, pace);
                world.dies_and_lives(death, phase, dead).await;
            });
            runtime.shutdown_background();
        }
    }
}
