//! The program itself: what it prints where, and how it ends.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use emccd::store::{self, Store, audit};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{binary, free_port_base, is_long};

/// A cluster of one node in a folder, made and run as an operator would.
struct Daemon {
    folder: TempDir,
    port_base: u16,
    process: Child,
}

impl Daemon {
    fn start() -> Self {
        Self::start_after(":")
    }

    /// After a command of the shell that sets what the process inherits.
    fn start_after(command: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port_base = free_port_base();
        let base = port_base.to_string();
        let init = [
            "init",
            "--cluster-id",
            "munich",
            "--dir",
            "node",
            "--port-base",
            &base,
        ];
        ok(&emccd(folder.path(), &init, ""));
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new("sh")
            .args(["-c", &format!("{command}; exec \"$0\" \"$@\"")])
            .arg(binary())
            .args(["run", "--config", "node/emccd.toml"])
            .current_dir(folder.path())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Self {
            folder,
            port_base,
            process,
        };
        daemon.done("cluster status --wait 60s");
        daemon
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Types a command; `{phone}` is the phone service's URL and certificate.
    fn command(&self, line: &str, input: &str) -> Output {
        let phone = format!(
            "https://localhost:{} --ca node/certs/phone.pem",
            self.port_base + 443
        );
        let line = line.replace("{phone}", &phone);
        let words = ["--config", "node/emccd.toml"];
        let words: Vec<_> = words.into_iter().chain(line.split(' ')).collect();
        emccd(self.folder.path(), &words, input)
    }

    fn done(&self, line: &str) -> String {
        ok(&self.command(line, ""))
    }

    fn refused(&self, line: &str, input: &str) -> String {
        refused(&self.command(line, input), 1)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn emccd(folder: &Path, words: &[&str], input: &str) -> Output {
    let mut process = Command::new(binary())
        .args(words)
        .current_dir(folder)
        .env_remove("EMCCD_SOCKET")
        .env_remove("EMCCD_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    // Most commands don't read it, and may be gone by now.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    process.wait_with_output().unwrap()
}

fn ok(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    assert_eq!(error, "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A failure is told on standard error, what, why and what to do next, and nowhere else.
fn refused(output: &Output, code: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
    assert!(error.starts_with("error: "), "{error}");
    error
}

#[test]
fn exit_codes_and_failures_are_as_promised() {
    let folder = tempfile::tempdir().unwrap();
    let at = |words: &[&str]| emccd(folder.path(), words, "");
    for usage in [
        &["nonsense"][..],
        &["cluster", "add"],
        &["session", "list", "--role", "guest"],
    ] {
        assert_eq!(at(usage).status.code(), Some(2), "{usage:?}");
        let as_json = at(&[usage, &["--json"]].concat());
        assert_eq!(as_json.status.code(), Some(2), "{usage:?}");
        assert!(as_json.stdout.is_empty(), "{usage:?}");
        let failure: Value = serde_json::from_slice(&as_json.stderr).unwrap();
        assert!(failure["why"].is_string(), "{failure}");
    }
    assert!(refused(&at(&["run"]), 2).contains("next: name it: emccd run --config FILE"));
    let missing = refused(&at(&["run", "--config", "none.toml"]), 1);
    assert!(missing.contains("`emccd init` writes one"), "{missing}");
    let nobody = ["--socket", "none.sock", "cluster", "status"];
    assert!(refused(&at(&nobody), 1).contains("no daemon runs with it"));
    let as_json = at(&[&nobody[..], &["--json"]].concat());
    let failure: Value = serde_json::from_slice(&as_json.stderr).unwrap();
    for part in ["error", "why", "next"] {
        assert!(
            failure[part].as_str().is_some_and(|t| !t.is_empty()),
            "{failure}"
        );
    }
    assert!(ok(&at(&["--help"])).contains("Exit codes: 0 done, 1 refused or failed, 2 usage."));
    ok(&at(&["init", "--cluster-id", "a", "--dir", "a"]));
    let again = refused(&at(&["init", "--cluster-id", "a", "--dir", "a"]), 1);
    assert!(again.contains("init overwrites nothing"), "{again}");
    ok(&at(&["config", "check", "--config", "a/emccd.toml"]));
    // Which of two daemons a command means: the typed one, whatever a variable says.
    ok(&at(&["init", "--cluster-id", "b", "--dir", "b"]));
    let asked = |variables: &[(&str, &str)], words: &[&str]| {
        let output = Command::new(binary())
            .args(words)
            .current_dir(folder.path())
            .env_remove("EMCCD_SOCKET")
            .env_remove("EMCCD_CONFIG")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        refused(&output, 1)
    };
    let told = asked(
        &[
            ("EMCCD_SOCKET", "b/admin.sock"),
            ("EMCCD_CONFIG", "b/emccd.toml"),
        ],
        &[
            "--config",
            "a/emccd.toml",
            "param",
            "set",
            "allow-proxy",
            "on",
        ],
    );
    assert!(told.contains("a/admin.sock"), "{told}");
    let told = asked(
        &[("EMCCD_SOCKET", ""), ("EMCCD_CONFIG", "b/emccd.toml")],
        &["cluster", "status"],
    );
    assert!(told.contains("b/admin.sock"), "{told}");
    std::fs::remove_file(folder.path().join("a/pepper.key")).unwrap();
    let broken = refused(&at(&["config", "check", "--config", "a/emccd.toml"]), 1);
    assert!(broken.contains("credentials.pepper-file"), "{broken}");
}

#[test]
fn a_phone_can_be_played_from_the_command_line() {
    let daemon = Daemon::start();
    let user =
        "[[user]]\nid = \"anna\"\npin = \"481516\"\n[[profile]]\nname = \"p\"\nuser = \"anna\"\n";
    let broken = format!("{user}[[device]]\nname = \"SEP 1\"\n");
    std::fs::write(daemon.file("broken.toml"), broken).unwrap();
    let problem = daemon.refused("apply broken.toml", "");
    assert!(
        problem.contains("the files have 1 problem; nothing was changed"),
        "{problem}"
    );
    assert!(problem.contains("broken.toml:7: device.name"), "{problem}");
    std::fs::write(
        daemon.file("good.toml"),
        format!("{user}[[device]]\nname = \"SEP1\"\n"),
    )
    .unwrap();
    daemon.done("apply good.toml");

    let login = "phone login {phone} --device SEP1 --user anna";
    let wrong = daemon.refused(login, "16234\n");
    assert!(
        wrong.contains("EM code 201") && wrong.contains("next: look for the ref"),
        "{wrong}"
    );
    let shown = ok(&daemon.command(login, "481516\n"));
    assert!(shown.contains("Login successful\nUser ID: anna"), "{shown}");
    let taken = daemon.refused(login, "481516\n");
    assert!(
        taken.contains("somebody is logged in on it already"),
        "{taken}"
    );
    let shown = daemon.done("phone logout {phone} --device SEP1");
    assert!(shown.contains("Logout successful"), "{shown}");
    let nobody = daemon.refused("session logout --device SEP1 --yes", "");
    assert!(nobody.contains("there is no session on SEP1"), "{nobody}");
    let told = [problem, wrong, shown, taken, nobody].concat();
    assert!(!told.contains("48151") && !told.contains("16234"), "{told}");
}

#[test]
fn a_certificate_is_replaced_while_running_and_the_audit_says_by_whom() {
    let daemon = Daemon::start();
    let before: Value = serde_json::from_str(&daemon.done("cert show --json")).unwrap();
    daemon.done("cert new --common-name munich --name localhost --out new");
    let to = |ending: &str| daemon.file(&format!("node/certs/federation.{ending}"));
    std::fs::copy(daemon.file("new.pem"), to("pem")).unwrap();
    let half = daemon.refused("cert reload", "");
    assert!(
        half.contains("does not belong to the certificate"),
        "{half}"
    );
    let kept: Value = serde_json::from_str(&daemon.done("cert show --json")).unwrap();
    assert_eq!(kept[0]["certificate"], before[0]["certificate"]);
    std::fs::copy(daemon.file("new.key"), to("key")).unwrap();
    let now: Value = serde_json::from_str(&daemon.done("cert reload --json")).unwrap();
    assert_eq!(now[0]["certificate"]["subject"], "CN=munich");

    let store = Store::open(&store::Config {
        url: format!("sqlite:{}", daemon.file("node/emccd.db").display()),
        node: "reader".to_owned(),
    })
    .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let all = runtime
        .block_on(store.read(|tx| audit::list(tx, 100)))
        .unwrap();
    let reloads: Vec<_> = all.iter().filter(|e| e.action == "cert.reload").collect();
    assert_eq!(reloads.len(), 2, "{all:?}");
    assert!(
        reloads.iter().all(|e| e.actor.contains("uid ")),
        "{reloads:?}"
    );
    let fingerprint = now[0]["certificate"]["fingerprint"].as_str().unwrap();
    let begins = |with: &str| {
        reloads
            .iter()
            .filter(|e| e.outcome.starts_with(with))
            .count()
    };
    assert_eq!(
        (begins("refused: "), begins("in force: ")),
        (1, 1),
        "{reloads:?}"
    );
    let done = reloads
        .iter()
        .find(|e| e.outcome.starts_with("in force: "))
        .unwrap();
    assert!(done.outcome.contains(fingerprint), "{done:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_daemon_leaves_no_core_dump_and_takes_the_open_files_it_may_have() {
    let daemon = Daemon::start_after("ulimit -S -n 256; ulimit -S -c unlimited");
    let limits = format!("/proc/{}/limits", daemon.process.id());
    let limits = std::fs::read_to_string(limits).unwrap();
    let of = |name: &str| -> Vec<String> {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        let words = line.unwrap().split_whitespace().take(2);
        words.map(ToOwned::to_owned).collect()
    };
    assert_eq!(of("Max core file size"), ["0", "0"], "{limits}");
    let files = of("Max open files");
    assert_eq!(files[0], files[1], "{limits}");
}

#[test]
fn a_daemon_ends_though_reading_again_waits_for_the_store() {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    let mut daemon = Daemon::start();
    let config = std::fs::read_to_string(daemon.file("node/emccd.toml")).unwrap();
    let url = config
        .lines()
        .find_map(|line| line.trim().strip_prefix("url = \"sqlite:"))
        .unwrap_or_else(|| panic!("{config}"));
    let database = daemon.file("node").join(url.trim_end_matches('"'));
    let lock = std::fs::File::open(database.with_extension("write")).unwrap();
    lock.lock().unwrap();
    let pid = Pid::from_raw(i32::try_from(daemon.process.id()).unwrap());
    kill(pid, Signal::SIGHUP).unwrap();
    // What is read again has to be written to the audit, and that hangs by now.
    until(|| {
        let log = std::fs::read_to_string(daemon.file("log")).unwrap();
        log.contains("holds the store's write lock")
    });
    kill(pid, Signal::SIGTERM).unwrap();
    let mut status = None;
    until(|| {
        status = daemon.process.try_wait().unwrap();
        status.is_some()
    });
    let log = std::fs::read_to_string(daemon.file("log")).unwrap();
    assert!(status.unwrap().success(), "{log}");
    assert!(log.contains("asked to end"), "{log}");
    drop(lock);
}

#[expect(
    clippy::disallowed_methods,
    reason = "another process tells of nothing: its log and its end are looked at"
)]
fn until(mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < std::time::Duration::from_secs(30));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn what_one_daemon_exports_makes_another_one_the_same() {
    let (from, to) = (Daemon::start(), Daemon::start());
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/munich.toml");
    from.done(&format!("apply {}", example.display()));
    let data = from.done("export");
    assert!(
        data.contains("pin-hash = ") && !data.contains("246809"),
        "{data}"
    );
    from.done("export --format csv --out data");
    let csv = from.file("data");
    let mut files: Vec<_> = std::fs::read_dir(csv)
        .unwrap()
        .map(|entry| entry.unwrap().path().display().to_string())
        .collect();
    files.sort();
    to.done(&format!("apply {}", files.join(" ")));
    assert_eq!(to.done("export"), data);
    std::fs::write(from.file("data.toml"), &data).unwrap();
    let again = from.done("--json apply data.toml");
    let again: Value = serde_json::from_str(&again).unwrap();
    for count in again["counts"].as_array().unwrap() {
        assert_eq!((&count["added"], &count["changed"]), (&0.into(), &0.into()));
    }
}

#[test]
fn a_file_larger_than_a_message_is_applied_and_exported_again() {
    let daemon = Daemon::start();
    // A measure of 30 s belongs to a release build; this one only has to hold everything.
    let users = if is_long() { 100_000 } else { 20_000 };
    let mut text = "id,name,self-service-id,extension\n".to_owned();
    for number in 0..users {
        let name = "x".repeat(200);
        text += &format!("user{number:06},{name},self{number}@munich.example,{number}\n");
    }
    assert!(text.len() > 4 * 1024 * 1024);
    // A slip in every row: each is told, and what to do.
    let broken: String = (0..20_000).map(|n| format!("user{n:06},maybe\n")).collect();
    std::fs::write(daemon.file("users-1.csv"), format!("id,emcc\n{broken}")).unwrap();
    for line in ["apply users-1.csv", "--json apply users-1.csv"] {
        let output = daemon.command(line, "");
        assert_eq!(output.status.code(), Some(1), "{line}");
        let told = String::from_utf8(output.stderr).unwrap();
        for part in [
            "cannot apply the files; nothing was changed",
            "the files have 20000 problems; nothing was changed:",
            "users-1.csv:2: user.emcc: it must be true or false",
            "users-1.csv:20001: user.emcc: it must be true or false",
            "mend the lines and apply again",
        ] {
            assert!(told.contains(part), "{line}: {part}: {told:.2000}");
        }
    }
    // Nor does the largest file of such rows cost the node its memory.
    let broken = format!("id,name\n{}", "a\n".repeat(30_000_000));
    std::fs::write(daemon.file("users-2.csv"), broken).unwrap();
    let told = daemon.refused("apply users-2.csv", "");
    assert!(told.contains("the files have 600002 problems") && told.contains(" more\n"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.process.id())).unwrap();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak < 1_000_000, "{peak} KiB");
    // What is typed can come through a pipe.
    ok(&daemon.command("apply -", "[[user]]\nid = \"piped\"\n"));
    daemon.done("user remove piped --yes");
    std::fs::write(daemon.file("users.csv"), &text).unwrap();
    let began = std::time::Instant::now();
    let applied = daemon.command("--json apply users.csv", "");
    eprintln!("{users} users took {:?}", began.elapsed());
    assert!(applied.status.success(), "{applied:?}");
    // How far it had come, where that took a while.
    for line in String::from_utf8(applied.stderr).unwrap().lines() {
        let progress: Value = serde_json::from_str(line).unwrap();
        assert!(
            progress["step"].is_string() && progress["done"].as_u64() <= progress["of"].as_u64()
        );
    }
    let applied = String::from_utf8(applied.stdout).unwrap();
    let applied: Value = serde_json::from_str(&applied).unwrap();
    assert_eq!(applied["counts"][0]["added"], users);
    daemon.done("export --format csv --out data");
    let exported = std::fs::read_to_string(daemon.file("data").join("users.csv")).unwrap();
    assert_eq!(exported.lines().count(), users + 1);
}

/// Runs `openssl` in a folder, and gives what it printed.
fn openssl(folder: &Path, line: &str) -> String {
    let run = Command::new("openssl")
        .args(line.split(' '))
        .current_dir(folder)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "openssl {line}: {error}");
    String::from_utf8_lossy(&run.stdout).into_owned()
}

#[test]
fn an_authority_signs_a_request_and_its_answer_is_put_in_use_while_running() {
    let daemon = Daemon::start();
    let folder = daemon.folder.path();
    let authority = "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n";
    std::fs::write(daemon.file("ca.ext"), authority).unwrap();
    for line in [
        "req -newkey rsa:2048 -nodes -keyout root.key -out root.csr -subj /CN=Root",
        "x509 -req -in root.csr -signkey root.key -days 30 -extfile ca.ext -out root.pem",
        "req -newkey rsa:2048 -nodes -keyout mid.key -out mid.csr -subj /CN=Issuing",
        "x509 -req -in mid.csr -CA root.pem -CAkey root.key -CAcreateserial -days 30 -extfile ca.ext -out mid.pem",
    ] {
        openssl(folder, line);
    }
    let before: Value = serde_json::from_str(&daemon.done("cert show --json")).unwrap();
    for (key, printed) in [("p-384", "ASN1 OID: secp384r1"), ("rsa-3072", "(3072 bit)")] {
        let fields =
            "--common-name munich --name localhost --name 127.0.0.1 --organization Example";
        let asked = daemon.done(&format!("cert csr {fields} --key {key} --out {key}"));
        assert!(asked.contains("never the key"), "{asked}");
        let text = openssl(folder, &format!("req -in {key}.csr -verify -noout -text"));
        for part in [
            printed,
            "O = Example, CN = munich",
            "DNS:localhost, IP Address:127.0.0.1",
            "TLS Web Server Authentication, TLS Web Client Authentication",
            "CA:FALSE",
        ] {
            let text = text.replace("O=", "O = ").replace("CN=", "CN = ");
            assert!(text.contains(part), "{part}: {text}");
        }
        openssl(
            folder,
            &format!(
                "x509 -req -in {key}.csr -CA mid.pem -CAkey mid.key -CAcreateserial -days 20 -copy_extensions copy -out {key}.pem"
            ),
        );
        let half = daemon.refused(&format!("cert install {key}.pem mid.pem"), "");
        assert!(
            half.contains("CN=Root") && half.contains("not complete"),
            "{half}"
        );
        let installed = daemon.done(&format!("cert install root.pem {key}.pem mid.pem --json"));
        let installed: Value = serde_json::from_str(&installed).unwrap();
        assert_eq!(installed["state"], "in-force", "{installed}");
        let shown: Value = serde_json::from_str(&daemon.done("cert show --json")).unwrap();
        let print = openssl(
            folder,
            &format!("x509 -in {key}.pem -noout -fingerprint -sha256"),
        );
        let fingerprint = shown[0]["certificate"]["fingerprint"].as_str().unwrap();
        assert!(
            print.trim_end().ends_with(fingerprint),
            "{print} {fingerprint}"
        );
        assert_eq!(shown[0]["chain"][0]["subject"], "CN=Issuing", "{shown}");
        let key_file = daemon.file("node/certs/federation.key");
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&key_file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    // The ones from before are kept, and can be put in use again.
    let first = before[0]["certificate"]["fingerprint"].as_str().unwrap();
    let first = first.replace(':', "").to_lowercase();
    let again = format!("node/certs/identities/federation-{first}.pem");
    daemon.done(&format!("cert install {again}"));
    let shown: Value = serde_json::from_str(&daemon.done("cert show --json")).unwrap();
    assert_eq!(shown[0]["certificate"], before[0]["certificate"]);
}
