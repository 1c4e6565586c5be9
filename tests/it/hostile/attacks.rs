//! Attackers in processes of their own, each with a tenth of a core: all of them leave four fifths of their rate
//! to others, strangers and peers alike, and memory stays within what the bounds on connections and streams come to.

#![expect(
    clippy::print_stderr,
    reason = "how much was left is for whoever reads the test's output"
)]

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use emccd::lab::{Cluster, Lab};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::{PATIENCE, assert_unharmed, log_of};
use crate::support::{lab_of_processes, python};

/// The first cluster is attacked, the second one is honest, the third one is a peer that attacks.
const VICTIM: usize = 0;
const HONEST: usize = 1;
const TRAITOR: usize = 2;

/// What an attacker does.
struct Attack {
    kind: &'static str,
    /// How much of it is its height.
    enough: usize,
    /// Whether it has the certificate of a peer.
    is_peer: bool,
}

const ATTACKS: [Attack; 5] = [
    Attack {
        kind: "idle",
        enough: 10_000,
        is_peer: false,
    },
    Attack {
        kind: "slow-loris",
        enough: 50,
        is_peer: false,
    },
    Attack {
        kind: "streams",
        enough: 20,
        is_peer: true,
    },
    Attack {
        kind: "resets",
        enough: 5,
        is_peer: true,
    },
    Attack {
        kind: "deaf",
        enough: 20,
        is_peer: true,
    },
];

/// From where they call: other addresses than that of the honest.
const SOURCES: [&str; 2] = ["127.0.0.2", "127.0.0.3"];

/// The share of their rate at which others are served at least.
const LEAST: f64 = 0.8;
/// What an attacker may use of a core, with what its start costs.
const MOST_CPU: f64 = 0.15;

/// How long is counted at a time: short, so that whatever else the machine does falls on both sides alike.
const WINDOW: Duration = Duration::from_millis(350);
/// How often without and with the attack.
const PAIRS: usize = 9;

/// What the victim may grow by. From two addresses: 512 connections on each of two listeners that are not past their
/// handshake and 512 of phones, of 64 KiB each (a TLS session and its buffers, the head of a request); from a peer 64
/// connections, 1,024 calls of 12 KiB each that are begun, and 256 answers of 1 KiB on each connection.
const MOST_GROWTH_KIB: u64 = (2 * 512 + 512 + 64) * 64 + 1_024 * 12 + 64 * 256;

struct Attacker {
    child: Child,
    says: Lines<BufReader<ChildStdout>>,
}

impl Attacker {
    /// Starts one, and waits until it is at its height; none where the system does not let it, which it says.
    async fn start(attack: &Attack, lab: &Lab) -> Option<Self> {
        let victim = &lab.clusters[VICTIM];
        let addresses = &victim.member().unwrap().addresses;
        let mut command = Command::new(python());
        command
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/tools/attacker.py"
            ))
            .arg(attack.kind)
            .args(["--phone", addresses.phone.trim_start_matches("https://")])
            .args(["--federation", &addresses.federation])
            .args(["--enough", &attack.enough.to_string()])
            .arg("--ca")
            .arg(&victim.authority.file);
        for source in SOURCES {
            command.args(["--source", source]);
        }
        if attack.is_peer {
            let traitor = lab.clusters[TRAITOR].member().unwrap();
            command.arg("--cert").arg(&traitor.federation_certificate);
            command.arg("--key").arg(&traitor.federation_key);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut says = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = timeout(PATIENCE * 2, says.next_line()).await;
        let first = first.expect("it never gets to its height").unwrap();
        match first.as_deref() {
            Some("ready") => Some(Self { child, says }),
            Some(why) if why.starts_with("this system") => {
                eprintln!("{} was not tried: {why}", attack.kind);
                None
            }
            other => panic!("{}: {other:?}", attack.kind),
        }
    }

    /// It stands still, and keeps what it has opened.
    fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap().try_into().unwrap());
        kill(pid, signal).unwrap();
    }

    /// Ends it; gives what it has done.
    async fn end(mut self) -> serde_json::Value {
        drop(self.child.stdin.take());
        let told = timeout(PATIENCE, self.says.next_line()).await;
        let told = told
            .expect("it never ends")
            .unwrap()
            .expect("it says nothing");
        serde_json::from_str(&told).unwrap()
    }
}

/// Logins and logouts of a user of `home` on a phone of `visiting`, one after the other until the time is over.
async fn work(home: &Cluster, visiting: &Cluster, number: usize, until: Instant) -> usize {
    let user = home.data.user(number).unwrap();
    let device = &visiting.data.phone(number).unwrap().name;
    let mut done = 0;
    while Instant::now() < until {
        let phone = visiting.member().unwrap().phone().unwrap();
        let shown = phone
            .login_at_once(device, None, &user.user_id, &user.pin)
            .await;
        if shown.is_ok_and(|shown| shown.em_code.is_none()) {
            done += 1;
        }
        // Whoever was not let in tries again, as people do.
        let _ = phone.logout(device).await;
    }
    done
}

/// Logins in a second, in both directions.
async fn rate(lab: &Lab) -> f64 {
    let (victim, honest) = (&lab.clusters[VICTIM], &lab.clusters[HONEST]);
    let began = Instant::now();
    let until = began + WINDOW;
    let (one, two, three, four) = tokio::join!(
        work(victim, honest, 0, until),
        work(victim, honest, 1, until),
        work(honest, victim, 2, until),
        work(honest, victim, 3, until)
    );
    #[expect(clippy::cast_precision_loss, reason = "some hundred")]
    let done = (one + two + three + four) as f64;
    done / began.elapsed().as_secs_f64()
}

fn median(of: &[f64]) -> f64 {
    let mut of = of.to_vec();
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// The most memory that a process has had, in KiB.
fn peak_kib(lab: &Lab) -> u64 {
    let pid = lab.clusters[VICTIM].member().unwrap().pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The rate with the attack by that without, in windows side by side; which of them is the first changes.
async fn shares(attack: &Attack, lab: &Lab) -> Option<Vec<f64>> {
    let attacker = Attacker::start(attack, lab).await?;
    let mut shares = Vec::new();
    for pair in 0..PAIRS {
        let (calm, under) = if pair % 2 == 0 {
            let under = rate(lab).await;
            attacker.pause();
            (rate(lab).await, under)
        } else {
            attacker.pause();
            let calm = rate(lab).await;
            attacker.go_on();
            (calm, rate(lab).await)
        };
        attacker.go_on();
        // Without a login in a window the machine has done nothing that could be compared.
        if calm > 0.0 {
            shares.push(under / calm);
        }
    }
    let told = attacker.end().await;
    let used = told["cpu"].as_f64().unwrap() / told["seconds"].as_f64().unwrap();
    assert!(
        used < MOST_CPU,
        "{} used {used} of a core: {told}",
        attack.kind
    );
    eprintln!("{}: {told}", attack.kind);
    Some(shares)
}

#[tokio::test(flavor = "multi_thread")]
async fn attackers_with_a_tenth_of_a_core_each_stop_nobody_and_fill_no_memory() {
    let lab = lab_of_processes(3).await;
    // Whatever is needed once, is there by then.
    rate(&lab).await;
    let before = peak_kib(&lab);
    for attack in &ATTACKS {
        let mut all = Vec::new();
        // A machine with other work on it is measured again, and then all counts, also what comes after a good round.
        for round in 0..4 {
            let Some(more) = shares(attack, &lab).await else {
                break;
            };
            all.extend(more);
            if round == 0 && median(&all) >= LEAST {
                break;
            }
        }
        let grown = peak_kib(&lab) - before;
        assert!(grown < MOST_GROWTH_KIB, "{}: {grown} KiB", attack.kind);
        if all.is_empty() {
            // Only the ten thousand connections may be more than a system lets a process have.
            assert_eq!(attack.kind, "idle", "{} was not measured", attack.kind);
            continue;
        }
        let share = median(&all);
        eprintln!(
            "{}: {share:.2} of the rate ({all:.2?}), {grown} KiB more",
            attack.kind
        );
        assert!(
            share >= LEAST,
            "{}: {share:.2} of the rate: {all:.2?}",
            attack.kind
        );
    }
    assert_unharmed(&lab).await;
    let log = log_of(&lab.clusters[VICTIM]);
    assert!(log.len() < 4 << 20, "the log has {} bytes", log.len());
    lab.shut_down().await;
}
