//! Wrong files at start: the daemon says what is wrong, why, and what to do next, and ends with 1; or, when only
//! its identity for peers is wrong, runs without them.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use emccd::{
    lab::{Cluster, member::Versions},
    wire::admin as pb,
};

use super::PATIENCE;
use crate::support::{binary, days_from_now, lab, log_in, log_out};

mod identity;

async fn emccd(arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(binary());
    // A node that does start ends with its input, at once.
    command
        .args(arguments)
        .env_remove("EMCCD_SOCKET")
        .env_remove("EMCCD_CONFIG")
        .stdin(Stdio::null());
    let run = command.kill_on_drop(true).output();
    tokio::time::timeout(3 * PATIENCE, run)
        .await
        .unwrap_or_else(|_| panic!("{arguments:?} does not end"))
        .unwrap()
}

/// What standard error ends with when a command was refused.
#[derive(Debug)]
struct Told {
    what: String,
    why: String,
    next: String,
    code: Option<i32>,
}

/// The three parts of a refusal, each there and each on its place.
fn told(output: &Output) -> Told {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(
        !stderr.contains("panicked") && !stderr.contains('\u{1b}'),
        "{stderr}"
    );
    let told = stderr.split("error: ").last().unwrap();
    let (what, rest) = told
        .split_once("\n  why:  ")
        .unwrap_or_else(|| panic!("no why: {stderr}"));
    let (why, next) = rest
        .split_once("\n  next: ")
        .unwrap_or_else(|| panic!("no next: {stderr}"));
    for part in [what, why, next] {
        assert!(!part.trim().is_empty(), "{stderr}");
    }
    Told {
        what: what.to_owned(),
        why: why.to_owned(),
        next: next.to_owned(),
        code: output.status.code(),
    }
}

/// A node's folder as `init` makes it, on any free ports.
struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("n");
        let made = emccd(&[
            "init",
            "--cluster-id",
            "berlin",
            "--dir",
            dir.to_str().unwrap(),
        ])
        .await;
        assert!(made.status.success(), "{made:?}");
        let this = Self { folder };
        this.edit(|text| {
            text.replace("0.0.0.0:8444", "127.0.0.1:0")
                .replace("0.0.0.0:8443", "127.0.0.1:0")
        });
        this
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("n").join(name)
    }

    fn config(&self) -> String {
        self.file("emccd.toml").to_str().unwrap().to_owned()
    }

    fn edit(&self, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.config()).unwrap();
        fs::write(self.config(), change(text)).unwrap();
    }

    async fn run(&self) -> Output {
        emccd(&["run", "--supervised", "--config", &self.config()]).await
    }

    async fn check(&self) -> Output {
        emccd(&["config", "check", "--config", &self.config()]).await
    }
}

/// Puts other content, and another mode, in the place of a file; gives back what was there.
fn replace(file: &Path, content: &[u8], mode: u32) -> Vec<u8> {
    let before = fs::read(file).unwrap_or_default();
    let _ = fs::remove_file(file);
    fs::write(file, content).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_told_with_lines_and_suggestions() {
    let node = Folder::new().await;
    let good = fs::read_to_string(node.config()).unwrap();
    assert!(node.check().await.status.success());
    let line = |text: &str, part: &str| text.lines().position(|l| l.contains(part)).unwrap() + 1;

    node.edit(|text| {
        let text = text
            .replace("pepper-file", "peper-file")
            .replace("[admin]", "[amdin]");
        text.replace(
            "[federation]",
            "[federation]\nheart-beat = \"5s\"\nmax-connections = 0",
        )
    });
    let text = fs::read_to_string(node.config()).unwrap();
    for output in [node.check().await, node.run().await] {
        let told = told(&output);
        assert_eq!(
            (told.what.as_str(), told.code),
            ("the configuration can't be used", Some(1)),
            "{told:?}"
        );
        assert!(
            told.next.contains("emccd config check --config"),
            "{told:?}"
        );
        for wanted in [
            format!(
                "line {}: federation.heart-beat: unknown key; did you mean federation.heartbeat?",
                line(&text, "heart-beat")
            ),
            format!(
                "line {}: federation.max-connections = 0:",
                line(&text, "max-connections")
            ),
            format!(
                "line {}: amdin: unknown section; did you mean [admin]?",
                line(&text, "[amdin]")
            ),
            format!(
                "line {}: credentials.peper-file: unknown key; did you mean credentials.pepper-file?",
                line(&text, "peper-file")
            ),
        ] {
            assert!(
                told.why.contains(&wanted),
                "{wanted} is not in {}",
                told.why
            );
        }
        assert!(told.why.contains("has 4 problems"), "{}", told.why);
    }

    for (content, why) in [
        (&b""[..], "cluster-id: is missing"),
        (b"version = 1\ncluster-id = \"a\n", "line 2: not TOML"),
        (
            b"version = 1\ncluster-id = \"a\xff\"\n",
            "line 2: is not UTF-8",
        ),
        (
            b"version = 9\ncluster-id = \"a\"\n",
            "line 1: version = 9: was written for a newer emccd",
        ),
        (b"\0\0\0\0", "not TOML"),
    ] {
        fs::write(node.config(), content).unwrap();
        for output in [node.check().await, node.run().await] {
            let told = told(&output);
            assert!(
                told.why.contains(why) && told.code == Some(1),
                "{why} is not in {told:?}"
            );
        }
    }
    // A socket's path that no system takes: once too long as it stands, once only in full.
    for name in ["s".repeat(120), "s".repeat(100)] {
        fs::write(
            node.config(),
            good.replace("\"admin.sock\"", &format!("\"{name}\"")),
        )
        .unwrap();
        for output in [node.check().await, node.run().await] {
            let told = told(&output);
            assert!(
                told.why.contains("admin.socket: is ") && told.why.contains("can have 107"),
                "{told:?}"
            );
        }
    }
    let none = node.file("none.toml");
    let told_of_none = told(&emccd(&["run", "--config", none.to_str().unwrap()]).await);
    assert!(
        told_of_none.why.contains("can't be read") && told_of_none.why.contains("emccd init"),
        "{told_of_none:?}"
    );
    let told_of_nothing = told(&emccd(&["run"]).await);
    assert_eq!(told_of_nothing.code, Some(2), "{told_of_nothing:?}");
    assert!(
        told_of_nothing.next.contains("--config FILE"),
        "{told_of_nothing:?}"
    );
}

/// The error that a node logs when it runs all the same, without phones.
fn complained(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    let error = stderr
        .lines()
        .find(|l| l.contains("ERROR") && l.contains("phones are refused"));
    error
        .unwrap_or_else(|| panic!("no error: {stderr}"))
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn key_files_that_cannot_be_used_are_named_by_check_and_run() {
    let node = Folder::new().await;
    let (certificate, key) = (node.file("certs/phone.pem"), node.file("certs/phone.key"));
    let other = fs::read(node.file("certs/federation.key")).unwrap();
    let good = fs::read(&key).unwrap();
    let chmod = format!("chmod 600 {}", key.display());
    let cases: [(&str, Option<&[u8]>, u32, &str); 6] = [
        ("readable by others", Some(&good), 0o644, &chmod),
        ("readable by the group", Some(&good), 0o640, "mode 0640"),
        ("missing", None, 0, "phone.key"),
        (
            "garbage",
            Some(&[0xff; 300]),
            0o600,
            "there is no private key in PEM in it",
        ),
        (
            "empty",
            Some(b""),
            0o600,
            "there is no private key in PEM in it",
        ),
        (
            "another certificate's",
            Some(&other),
            0o600,
            "does not belong to the certificate",
        ),
    ];
    for (what, content, mode, why) in cases {
        match content {
            Some(content) => drop(replace(&key, content, mode)),
            None => fs::remove_file(&key).unwrap(),
        }
        let checked = told(&node.check().await);
        assert!(
            checked.why.contains("phone.key") && checked.why.contains("line "),
            "{what}: {checked:?}"
        );
        assert_eq!(checked.code, Some(1), "{what}: {checked:?}");
        let run = complained(&node.run().await);
        for text in [&checked.why, &run] {
            assert!(text.contains(why) || what == "missing", "{what}: {text}");
            let named = text.contains(key.to_str().unwrap());
            assert!(named, "{what}: which file? {text}");
        }
        // Nothing of the key is repeated.
        let secret = String::from_utf8_lossy(&good);
        let secret = secret.lines().nth(1).unwrap();
        assert!(!run.contains(secret) && !checked.why.contains(secret));
    }
    replace(&key, &good, 0o600);

    for (content, why) in [
        (&b"hello"[..], "there is no certificate in it"),
        (b"", "there is no certificate in it"),
        (&good, "it holds a private key"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "not a usable certificate",
        ),
    ] {
        let before = replace(&certificate, content, 0o644);
        for text in [told(&node.check().await).why, complained(&node.run().await)] {
            assert!(text.contains(why) && text.contains("phone.pem"), "{text}");
        }
        replace(&certificate, &before, 0o644);
    }

    let pepper = node.file("pepper.key");
    for (content, mode, why) in [
        (&[7; 32][..], 0o604, "chmod 600"),
        (b"short", 0o600, "has 5 bytes and must have 32"),
    ] {
        let before = replace(&pepper, content, mode);
        for told in [told(&node.check().await), told(&node.run().await)] {
            assert!(
                told.why.contains(why) && told.why.contains("pepper.key"),
                "{why}: {told:?}"
            );
        }
        replace(&pepper, &before, 0o600);
    }
    assert!(node.check().await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_ours_is_refused_in_words_and_left_as_it_is() {
    let node = Folder::new().await;
    let first = node.run().await;
    assert!(
        first.status.success(),
        "{}",
        String::from_utf8_lossy(&first.stderr)
    );

    let store = node.file("emccd.db");
    let sql = |text: &str| {
        rusqlite::Connection::open(&store)
            .unwrap()
            .execute_batch(text)
            .unwrap();
    };
    sql(
        "INSERT INTO refinery_schema_history SELECT 99, 'future', applied_on, checksum FROM refinery_schema_history",
    );
    let newer = told(&node.run().await);
    assert!(
        newer.why.contains("version 99") && newer.why.contains("knows versions up to"),
        "{newer:?}"
    );
    assert!(
        newer.next.contains("newer emccd") && newer.code == Some(1),
        "{newer:?}"
    );
    sql("DELETE FROM refinery_schema_history WHERE version = 99");

    node.edit(|text| text.replace("cluster-id = \"berlin\"", "cluster-id = \"tokyo\""));
    let other = told(&node.run().await);
    assert!(
        other.why.contains("belongs to cluster berlin") && other.why.contains("tokyo"),
        "{other:?}"
    );
    assert!(
        other.next.contains("store.url") && other.code == Some(1),
        "{other:?}"
    );
    node.edit(|text| text.replace("cluster-id = \"tokyo\"", "cluster-id = \"berlin\""));

    let garbage = node.file("garbage.db");
    fs::write(&garbage, [0x5a; 8192]).unwrap();
    node.edit(|text| text.replace("sqlite:emccd.db", "sqlite:garbage.db"));
    let no_database = told(&node.run().await);
    assert!(
        no_database.why.contains("garbage.db") && no_database.next.contains("store.url"),
        "{no_database:?}"
    );
    assert_eq!(fs::read(&garbage).unwrap(), [0x5a; 8192]);
    node.edit(|text| text.replace("sqlite:garbage.db", "sqlite:nowhere/emccd.db"));
    let nowhere = told(&node.run().await);
    assert!(
        nowhere.why.contains("nowhere") && nowhere.code == Some(1),
        "{nowhere:?}"
    );
    let checked = told(&node.check().await);
    assert!(
        checked.why.contains("there is no such folder"),
        "{checked:?}"
    );

    node.edit(|text| text.replace("sqlite:nowhere/emccd.db", "sqlite:emccd.db"));
    let again = node.run().await;
    assert!(
        again.status.success(),
        "{}",
        String::from_utf8_lossy(&again.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_already_is_named() {
    let node = Folder::new().await;
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    for (section, key) in [
        ("[federation]", "federation.listen"),
        ("[phone]", "phone.listen"),
    ] {
        let good = fs::read_to_string(node.config()).unwrap();
        node.edit(|text| {
            let (before, after) = text.split_once(section).unwrap();
            format!(
                "{before}{section}{}",
                after.replacen("127.0.0.1:0", &address.to_string(), 1)
            )
        });
        let told = told(&node.run().await);
        assert!(
            told.why.contains(&address.to_string()) && told.why.contains("in use"),
            "{told:?}"
        );
        assert!(
            told.next.contains(key) && told.next.contains(&address.port().to_string()),
            "{told:?}"
        );
        assert_eq!(told.code, Some(1), "{told:?}");
        fs::write(node.config(), good).unwrap();
    }
    // The socket of a node that runs, and a file that is no socket: neither is touched.
    let lab = lab(1).await;
    let socket = lab.clusters[0].member().unwrap().addresses.admin.clone();
    node.edit(|text| {
        text.replace(
            "\"admin.sock\"",
            &format!("{:?}", socket.display().to_string()),
        )
    });
    let answered = told(&node.run().await);
    assert!(
        answered.why.contains("another process answers"),
        "{answered:?}"
    );
    assert!(answered.next.contains("admin.socket"), "{answered:?}");
    lab.clusters[0]
        .admin()
        .await
        .unwrap()
        .status(pb::GetClusterStatusRequest {})
        .await
        .unwrap();
    let precious = node.file("precious");
    fs::write(&precious, "precious").unwrap();
    node.edit(|text| text.replace(&socket.display().to_string(), "precious"));
    let no_socket = told(&node.run().await);
    assert!(
        no_socket.why.contains("is not a socket") && no_socket.code == Some(1),
        "{no_socket:?}"
    );
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    lab.shut_down().await;
}
