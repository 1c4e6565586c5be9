//! All or nothing, every problem at once, and nothing changed by the second time.

mod edits;
mod generated;
mod pins;
mod prune;
mod staged;

use super::*;
use crate::domain::policy::{BUILT_IN, Person};
use crate::{domain::ids::UserId, store::trust_entries};

const GOOD: &str = r#"
[[device-pool]]
name = "Hamburg"
call-managers = [{ host = "cucm1", priority = 1 }, { host = "cucm0", priority = 0 }]

[[user]]
id = "ana"
extension = "1001"
pin = "246809"

[[profile]]
name = "ana-1"
user = "ana"
default = true
device-pool = "Hamburg"
lines = [{ index = 1, number = "1001" }]

[[device]]
name = "SEP1"
model = "CP-8841"

[[base-device]]
name = "EMCC"
count = 3

[[peer]]
id = "tokyo"
addresses = ["tokyo.example:8444"]
"#;

struct World {
    store: Store,
    applier: Applier,
}

fn own() -> ClusterId {
    ClusterId::new("berlin").unwrap()
}

fn world() -> World {
    let store = Store::open(&store::Config {
        url: "sqlite::memory:".to_owned(),
        node: "n1".to_owned(),
    })
    .unwrap();
    let config = credentials::Config {
        memory_kib: 8,
        iterations: 1,
        ..credentials::Config::default()
    };
    let credentials = Credentials::new(&config, crate::secret::Secret::new(vec![1; 32])).unwrap();
    let applier = Applier {
        cluster: own(),
        store: store.clone(),
        credentials,
        clock: Clock::system(),
        at_once_from: AT_ONCE_FROM,
        tasks: Tasks::default(),
        faults: FaultPoints::none(),
    };
    World { store, applier }
}

impl World {
    async fn apply(&self, text: &str, mode: Mode) -> Result<Vec<Change>, Error> {
        let source = Source {
            name: "data.toml".to_owned(),
            text: text.to_owned().into(),
        };
        self.applier
            .apply(&[source], mode, Rest::Stays, "user root")
            .await
    }

    async fn problems(&self, text: &str) -> Vec<String> {
        match self.apply(text, Mode::Write).await {
            Err(Error::Problems(problems)) => {
                problems.told().iter().map(ToString::to_string).collect()
            }
            other => panic!("no problems but {other:?}"),
        }
    }

    async fn count_users(&self) -> usize {
        self.store
            .read(|tx: &mut dyn Transaction| users::list(tx, None, 1_000))
            .await
            .unwrap()
            .len()
    }
}

fn actions(changes: &[Change]) -> Vec<Action> {
    changes.iter().map(|c| c.action).collect()
}

#[tokio::test]
async fn a_file_is_applied_once_and_the_second_time_changes_nothing() {
    let world = world();
    let first = world.apply(GOOD, Mode::Write).await.unwrap();
    assert_eq!(first.len(), 8);
    assert!(
        actions(&first).iter().all(|a| *a == Action::Added),
        "{first:?}"
    );
    let again = world.apply(GOOD, Mode::Write).await.unwrap();
    assert!(
        actions(&again).iter().all(|a| *a == Action::Unchanged),
        "{again:?}"
    );
    let audited = world
        .store
        .read(|tx: &mut dyn Transaction| crate::store::audit::list(tx, 1_000))
        .await
        .unwrap()
        .len();
    assert_eq!(audited, 8, "what did not change leaves no trace");
}

#[tokio::test]
async fn a_changed_pin_is_a_change_of_the_user() {
    let world = world();
    world.apply(GOOD, Mode::Write).await.unwrap();
    let changed = world
        .apply(&GOOD.replace("246809", "135790"), Mode::Write)
        .await
        .unwrap();
    let of = |kind: &str| changed.iter().find(|c| c.kind == kind).unwrap().action;
    assert_eq!(
        (of("user"), of("profile")),
        (Action::Changed, Action::Unchanged)
    );
}

#[tokio::test]
async fn a_dry_run_tells_the_same_and_writes_nothing() {
    let world = world();
    let told = world.apply(GOOD, Mode::DryRun).await.unwrap();
    assert_eq!(world.count_users().await, 0);
    assert_eq!(told, world.apply(GOOD, Mode::Write).await.unwrap());
    let told = world
        .apply(&GOOD.replace("246809", "135790"), Mode::DryRun)
        .await
        .unwrap();
    assert_eq!(
        told.iter().filter(|c| c.action == Action::Changed).count(),
        1
    );
}

#[tokio::test]
async fn every_problem_is_told_at_once_with_its_line_and_nothing_is_written() {
    let world = world();
    let problems = world
        .problems(
            "[[user]]\nid = \"ana\"\npin = \"1\"\npin-hash = \"$argon2id$x\"\n\n[[user]]\nid = \"ANA\"\n\n\
             [[device]]\nname = \"SEP 1\"\nprotocol = \"MGCP\"\n\n[[peer]]\nid = \"tokyo\"\naddresses = [\"tokyo\"]\n",
        )
        .await;
    let text = problems.join("\n");
    for part in [
        "data.toml:1: user.pin: give pin or pin-hash",
        "data.toml:6: user.id: it stands in data.toml:1 already",
        "data.toml:9: device.protocol",
        "data.toml:9: device.name",
        "data.toml:13: peer.addresses: it must be HOST:PORT each",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(world.count_users().await, 0);
}

#[tokio::test]
async fn a_row_must_not_name_what_is_neither_in_the_files_nor_in_the_store() {
    let world = world();
    let profile = "[[profile]]\nname = \"p\"\nuser = \"nobody\"\ndevice-pool = \"nowhere\"\n";
    let problems = world.problems(profile).await.join("\n");
    assert!(problems.contains("there is no user nobody"), "{problems}");
    assert!(
        problems.contains("there is no device pool nowhere"),
        "{problems}"
    );
    world.apply(GOOD, Mode::Write).await.unwrap();
    let known = profile
        .replace("nobody", "ana")
        .replace("nowhere", "Hamburg");
    assert_eq!(
        actions(&world.apply(&known, Mode::Write).await.unwrap()),
        [Action::Added]
    );
}

#[tokio::test]
async fn an_unknown_key_is_named_with_its_line() {
    let problems = world()
        .problems("[[user]]\nid = \"ana\"\nextention = \"1001\"\n")
        .await;
    assert!(
        problems[0].contains("data.toml:3") && problems[0].contains("extention"),
        "{problems:?}"
    );
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_not_repeated_since_it_may_be_a_pin() {
    for (line, message) in [
        (
            "pin = 246809",
            "it is integer, expected a string; put it in quotes",
        ),
        (
            "pin = 246809.5",
            "it is float, expected a string; put it in quotes",
        ),
        (
            "pin = [246809]",
            "it is array, expected a string; put it in quotes",
        ),
        (
            "pin-hash = 246809",
            "it is integer, expected a string; put it in quotes",
        ),
        ("enabled = \"246809\"", "it is string, expected a boolean"),
        (
            "enabled = \"2, expected 246809\"",
            "it is string, expected a boolean",
        ),
        (
            "pin-hash = \"246809\"",
            "user.pin-hash: it must be a PHC string that begins with $argon2id$",
        ),
        (
            "pin-hash = \"$argon2id$246809\"",
            "user.pin-hash: it must be a PHC string that begins with $argon2id$",
        ),
    ] {
        let problems = world()
            .problems(&format!("[[user]]\nid = \"ana\"\n{line}\n"))
            .await;
        assert_eq!(problems.len(), 1, "{line}: {problems:?}");
        assert!(problems[0].contains(message), "{line}: {}", problems[0]);
        assert!(!problems[0].contains("2468"), "{line}: {}", problems[0]);
    }
    let variant = "[[device]]\nname = \"SEP1\"\nsecurity-mode = \"246809\"\n";
    let problems = world().problems(variant).await;
    assert!(
        problems[0].contains("it must be non-secure or secure") && !problems[0].contains("246809"),
        "{problems:?}"
    );
}

#[tokio::test]
async fn a_hash_from_elsewhere_is_taken_if_a_login_can_check_it() {
    let world = world();
    let far = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let hash = world
        .applier
        .credentials
        .hash(&crate::secret::Pin::new("246809".to_owned()).unwrap(), far)
        .await
        .unwrap();
    let user = |hash: &str| format!("[[user]]\nid = \"ana\"\npin-hash = \"{hash}\"\n");
    let costly = hash.as_str().replace("m=8", "m=99999999");
    assert_eq!(world.problems(&user(&costly)).await.len(), 1);
    assert_eq!(
        actions(
            &world
                .apply(&user(hash.as_str()), Mode::Write)
                .await
                .unwrap()
        ),
        [Action::Added]
    );
}

#[tokio::test]
async fn a_pin_that_can_not_be_checked_at_once_is_waited_for_and_a_locked_user_stays_locked() {
    let mut world = world();
    world.apply(GOOD, Mode::Write).await.unwrap();
    let (ana, locked) = (UserId::new("ana").unwrap(), Clock::system().now());
    let row = {
        let ana = ana.clone();
        move |tx: &mut dyn Transaction| Ok::<_, store::Error>(stored::get(tx, &ana)?.unwrap())
    };
    let mut before = world.store.read(row.clone()).await.unwrap();
    (before.failures, before.locked_until) = (5, Some(locked));
    let counters = before.clone();
    world
        .store
        .write(move |tx: &mut dyn Transaction| stored::set_counters(tx, &counters))
        .await
        .unwrap();
    // The only worker is at work for a while, and nobody may queue.
    let config = credentials::Config {
        memory_kib: 8,
        iterations: 1,
        workers: 1,
        queue: 0,
        ..credentials::Config::default()
    };
    let busy = Credentials::new(&config, crate::secret::Secret::new(vec![1; 32])).unwrap();
    world.applier.credentials = busy.clone();
    let costly = before.phc.as_str().replace("m=8,t=1", "m=16384,t=16");
    assert_ne!(costly, before.phc.as_str());
    let pin = crate::secret::Pin::new("1".to_owned()).unwrap();
    let (_, again) = tokio::join!(
        biased;
        busy.verify_in_turn(&pin, stored::Phc::new(costly)),
        world.apply(GOOD, Mode::Write)
    );
    assert!(
        actions(&again.unwrap())
            .iter()
            .all(|a| *a == Action::Unchanged)
    );
    assert_eq!(world.store.read(row).await.unwrap(), before);
}

#[test]
fn a_pin_is_in_no_debug_print_and_in_no_problem() {
    let source = Source {
        name: "f".to_owned(),
        text: "[[user]]\nid = \"a b\\u0000\"\npin = \"246809\"\n"
            .to_owned()
            .into(),
    };
    assert!(!format!("{source:?}").contains("246809"));
    let problems = check::check(&[source], &own()).unwrap_err();
    assert!(!format!("{problems:?}").contains("246809"));
    let good = Source {
        name: "f".to_owned(),
        text: GOOD.to_owned().into(),
    };
    let rows = check::check(&[good], &own()).unwrap();
    assert!(!format!("{rows:?}").contains("246809"));
    assert!(rows.pin_of(&UserId::new("ana").unwrap()).is_some());
}

#[tokio::test]
async fn our_own_id_is_no_peer() {
    let problems = world()
        .problems("[[peer]]\nid = \"berlin\"\naddresses = [\"a:1\"]\n")
        .await;
    assert!(
        problems[0].contains("this cluster's own ID"),
        "{problems:?}"
    );
}

/// Also of a row that has one cell of a wrong shape.
#[tokio::test]
async fn all_that_is_wrong_with_a_row_is_told_at_once() {
    let long = "1".repeat(600);
    let csv = |name: &str, text: String| Source {
        name: name.to_owned(),
        text: text.into(),
    };
    let files = [
        csv(
            "users.csv",
            format!("id,extension,emcc\n ana,{long},maybe\n"),
        ),
        csv(
            "peers.csv",
            "id,enabled,addresses\n a,maybe,nowhere\n".to_owned(),
        ),
        csv("base-devices.csv", "name,count\na b,99999\n".to_owned()),
        // Which cell is whose can't be told here, and so no more is.
        csv("profiles.csv", "name,user\np,anna,24680\n".to_owned()),
    ];
    let Err(problems) = check::check(&files, &own()) else {
        panic!("nothing is wrong");
    };
    let fields: Vec<_> = problems.told().iter().map(|p| &*p.field).collect();
    assert_eq!(
        fields,
        [
            "user.emcc",
            "user.extension",
            "user.id",
            "peer.enabled",
            "peer.id",
            "peer.addresses",
            "base-device.count",
            "base-device.name",
            "profile"
        ]
    );
    let (rows, _) = check::read(&files, &own());
    assert_eq!((rows.users.len(), rows.count), (0, 4));
    assert!(rows.users.is_empty() && rows.peers.is_empty() && rows.base_devices.is_empty());
}

/// A wrong separator in a large file makes a problem of every row.
#[test]
fn a_large_file_of_broken_rows_costs_little() {
    let rows = 650_000;
    let source = Source {
        name: "users.csv".to_owned(),
        text: format!("id,name\n{}", "a\n".repeat(rows)).into(),
    };
    let (found, problems) = check::read(&[source], &own());
    // One of each row, of the first one too many as well, and that it is too many.
    assert_eq!((found.count, problems.count()), (600_000, 600_002));
    assert!(problems.told().len() < 60_000 && found.users.is_empty());
}

/// A trial says which PINs would be set; hashing them for that would cost minutes.
#[tokio::test]
async fn a_trial_hashes_nothing() {
    let world = world();
    let pins = (100_000..).map(|n: u32| n.to_string());
    let good = pins.filter(|pin| BUILT_IN.violations(pin, &Person::default()).is_empty());
    let good: Vec<_> = good.take(100).collect();
    let users = |pins: &[String]| -> String {
        let row = |(n, pin)| format!("[[user]]\nid = \"u{n}\"\npin = \"{pin}\"\n");
        pins.iter().enumerate().map(row).collect()
    };
    let (first, second) = (users(&good[..50]), users(&good[50..]));
    let before = world.applier.credentials.counts().admitted;
    let hashed = || world.applier.credentials.counts().admitted - before;
    let tried = world.apply(&first, Mode::DryRun).await.unwrap();
    assert_eq!(hashed(), 0);
    assert!(
        tried
            .iter()
            .all(|c| c.fields.iter().any(|f| f.name == "pin"))
    );
    assert_eq!(world.apply(&first, Mode::Write).await.unwrap(), tried);
    assert_eq!(hashed(), 50);
    // PINs that are there are compared, and that is all.
    let tried = world.apply(&second, Mode::DryRun).await.unwrap();
    assert_eq!(
        (actions(&tried), hashed()),
        (vec![Action::Changed; 50], 100)
    );
    let tried = world.apply(&first, Mode::DryRun).await.unwrap();
    assert_eq!(
        (actions(&tried), hashed()),
        (vec![Action::Unchanged; 50], 150)
    );
}

fn user_row(id: &str, self_service_id: &str) -> String {
    format!("[[user]]\nid = \"{id}\"\nself-service-id = \"{self_service_id}\"\n")
}

#[tokio::test]
async fn a_self_service_id_of_another_user_is_a_problem_with_its_line() {
    let world = world();
    let twice = user_row("a", "x") + &user_row("b", "x");
    assert_eq!(
        world.problems(&twice).await,
        ["data.toml:4: user.self-service-id: it stands in data.toml:1 already"]
    );
    assert_eq!(world.count_users().await, 0);
    world.apply(&user_row("a", "x"), Mode::Write).await.unwrap();
    let taken = world.apply(&user_row("b", "x"), Mode::DryRun).await;
    let Err(Error::Problems(problems)) = taken else {
        panic!("no problems but {taken:?}");
    };
    assert_eq!(
        problems.told()[0].to_string(),
        "data.toml:1: user.self-service-id: the user a has it already"
    );
    assert_eq!(world.count_users().await, 1);
}

#[tokio::test]
async fn two_users_may_swap_their_self_service_ids() {
    let world = world();
    let before = user_row("a", "x") + &user_row("b", "y");
    world.apply(&before, Mode::Write).await.unwrap();
    for after in [
        user_row("a", "y") + &user_row("b", "x"),
        user_row("c", "x") + "[[user]]\nid = \"b\"\n",
    ] {
        let changes = world.apply(&after, Mode::Write).await.unwrap();
        assert!(
            !actions(&changes).contains(&Action::Unchanged),
            "{changes:?}"
        );
        let again = world.apply(&after, Mode::Write).await.unwrap();
        assert!(
            actions(&again).iter().all(|a| *a == Action::Unchanged),
            "{again:?}"
        );
    }
}

#[tokio::test]
async fn what_the_wire_refuses_is_refused_here_already() {
    let profile = |rest: &str| format!("[[profile]]\nname = \"p\"\nuser = \"ana\"\n{rest}\n");
    let pool = |rest: &str| format!("[[device-pool]]\nname = \"p\"\n{rest}\n");
    let device = |rest: &str| format!("[[device]]\nname = \"SEP1\"\n{rest}\n");
    let long = "x".repeat(256);
    let line = "{ index = 1, number = \"1\" }, ";
    for (text, field) in [
        (
            profile("lines = [{ index = 0, number = \"1\" }]"),
            "profile.lines.index",
        ),
        (
            profile(&format!("lines = [{{ index = 1, number = \"{long}\" }}]")),
            "profile.lines.number",
        ),
        (
            profile("lines = [{ index = 1, number = \"\" }]"),
            "profile.lines.number",
        ),
        (
            profile("lines = [{ index = 1, number = \"1\", label = \"a\\nb\" }]"),
            "profile.lines.label",
        ),
        (
            profile(&format!("lines = [{}]", line.repeat(257))),
            "profile.lines",
        ),
        (profile("locale = \"en\\u0000\""), "profile.locale"),
        (
            pool(&format!("tftp-servers = [{}]", "\"t\", ".repeat(65))),
            "device-pool.tftp-servers",
        ),
        (
            pool(&format!("tftp-servers = [\"{long}\"]")),
            "device-pool.tftp-servers",
        ),
        (
            pool(&format!(
                "call-managers = [{{ host = \"{long}\", priority = 0 }}]"
            )),
            "device-pool.call-managers",
        ),
        (
            pool("geolocation = { \"\" = \"x\" }"),
            "device-pool.geolocation",
        ),
        (
            device("geolocation = { A1 = \"a\\tb\" }"),
            "device.geolocation",
        ),
        (device("model = \"CP\\n\""), "device.model"),
    ] {
        let text = text + "[[user]]\nid = \"ana\"\n";
        let problems = world().problems(&text).await;
        assert!(
            problems
                .iter()
                .all(|p| p.starts_with(&format!("data.toml:1: {field}: "))),
            "{field}: {problems:?}"
        );
    }
    // And the most that fits does fit.
    let most = profile(&format!("lines = [{}]", line.repeat(256)));
    let world = world();
    world.apply(GOOD, Mode::Write).await.unwrap();
    world.apply(&most, Mode::Write).await.unwrap();
}

#[test]
fn base_devices_are_counted_before_they_are_made() {
    let rows = |rows: u32, count: u32| -> String {
        let row = |n| format!("[[base-device]]\nname = \"E{n}-\"\ncount = {count}\n");
        (0..rows).map(row).collect()
    };
    let of = |text: String| {
        let name = "data.toml".to_owned();
        check::check(
            &[Source {
                name,
                text: text.into(),
            }],
            &own(),
        )
    };
    assert_eq!(of(rows(2, 30_000)).unwrap().base_devices.len(), 60_000);
    let problems = of(rows(1_000, 30_000)).unwrap_err();
    assert_eq!(problems.count(), 998);
    assert!(
        problems.told()[0]
            .to_string()
            .starts_with("data.toml:7: base-device: a cluster has at most 60000"),
        "{}",
        problems.told()[0]
    );
}

#[tokio::test]
async fn a_peer_keeps_the_rules_of_the_command_line() {
    let peer = |rest: &str| format!("[[peer]]\nid = \"tokyo\"\naddresses = [\"t:1\"]\n{rest}\n");
    let many = |n: usize| "\"t:1\", ".repeat(n);
    for (text, field) in [
        (peer("").replace("t:1", "tokyo::8444"), "peer.addresses"),
        (peer("").replace("\"t:1\"", &many(17)), "peer.addresses"),
        (peer("node-names = [\"\"]"), "peer.node-names"),
        (
            peer(&format!("user-patterns = [{}]", "\"a*\", ".repeat(65))),
            "peer.user-patterns",
        ),
        (peer("dn-patterns = [\"1\\n\"]"), "peer.dn-patterns"),
        (peer("description = \"a\\u0007b\""), "peer.description"),
    ] {
        let problems = world().problems(&text).await;
        assert!(
            problems.len() == 1 && problems[0].starts_with(&format!("data.toml:1: {field}: ")),
            "{field}: {problems:?}"
        );
    }
}

#[tokio::test]
async fn a_peer_that_an_authority_vouches_for_keeps_a_node_name() {
    let world = world();
    world.apply(GOOD, Mode::Write).await.unwrap();
    world
        .store
        .write(|tx: &mut dyn Transaction| {
            trust_entries::add(
                tx,
                &trust_entries::TrustEntry {
                    cluster_id: ClusterId::new("tokyo").unwrap(),
                    kind: trust_entries::EntryKind::Anchor,
                    fingerprint: [1; 32],
                    der: vec![0x30, 0x00],
                    added_at: Clock::system().now(),
                    source: trust_entries::Source::Operator,
                    alias: None,
                },
            )
        })
        .await
        .unwrap();
    let nameless = "[[peer]]\nid = \"tokyo\"\naddresses = [\"t:1\"]\n";
    let problems = world.problems(nameless).await;
    assert!(
        problems[0].contains("data.toml:1: peer.node-names"),
        "{problems:?}"
    );
}

#[tokio::test]
async fn the_audit_says_what_of_a_peer_changed_and_that_a_pin_was_set() {
    let world = world();
    world.apply(GOOD, Mode::Write).await.unwrap();
    let changed = GOOD
        .replace("tokyo.example:8444", "new.example:8444")
        .replace("246809", "135790");
    world.apply(&changed, Mode::Write).await.unwrap();
    let moved = changed.replace("extension = \"1001\"", "extension = \"1002\"");
    world.apply(&moved, Mode::Write).await.unwrap();
    let gone = changed.replace("extension = \"1001\"", "");
    world.apply(&gone, Mode::Write).await.unwrap();
    let audited = world
        .store
        .read(|tx: &mut dyn Transaction| crate::store::audit::list(tx, 1_000))
        .await
        .unwrap();
    let outcomes = |subject: &str| -> Vec<String> {
        let of = audited.iter().filter(|r| r.subject == subject);
        of.map(|r| r.outcome.clone()).collect()
    };
    let mut peer = outcomes("tokyo");
    peer.sort();
    assert_eq!(
        peer,
        [
            "added: at tokyo.example:8444",
            "changed: addresses = [\"new.example:8444\"], before: [\"tokyo.example:8444\"]"
        ]
    );
    let mut user = outcomes("ana");
    user.sort();
    assert_eq!(
        user,
        [
            "added: PIN set",
            "changed: PIN set",
            "changed: extension = 1002, before: 1001",
            "changed: extension = nothing, before: 1002",
        ]
    );
}

#[tokio::test]
async fn a_peer_has_an_address() {
    let nowhere = "[[peer]]\nid = \"tokyo\"\n";
    let Err(Error::Problems(problems)) = world().apply(nowhere, Mode::DryRun).await else {
        panic!("a peer without an address was taken");
    };
    assert_eq!(problems.told()[0].field, "peer.addresses");
}
