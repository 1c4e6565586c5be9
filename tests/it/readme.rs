//! What the README tells a newcomer to type, typed: the commands of its `sh` fence and nothing else.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::support::{binary, free_port_base};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The commands of the fence that begins with `sh`, one a line.
fn commands(readme: &str) -> Vec<String> {
    let (_, after) = readme
        .split_once("\n```sh\n")
        .expect("the README has an sh fence");
    let (fence, rest) = after.split_once("\n```\n").expect("the fence ends");
    assert!(!rest.contains("\n```sh\n"), "there is one sh fence");
    fence.lines().map(str::to_owned).collect()
}

/// Runs a script as a newcomer's shell would, in `folder`; what it started in the background ends with it.
fn run(folder: &Path, script: &str) -> Output {
    let binaries = binary().parent().unwrap().to_owned();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    // `timeout` ends the shell and what it started, should it hang.
    Command::new("timeout")
        .args(["120", "bash", "-c", script])
        .current_dir(folder)
        .env("PATH", path)
        .env_remove("EMCCD_SOCKET")
        .env_remove("EMCCD_CONFIG")
        .output()
        .unwrap()
}

#[test]
fn the_ten_commands_of_the_readme_federate_two_daemons() {
    let typed = commands(&fs::read_to_string(repository("README.md")).unwrap());
    assert!((1..=10).contains(&typed.len()), "{} commands", typed.len());
    assert!(
        !typed
            .iter()
            .any(|line| line.contains("&&") || line.contains(';')),
        "one command a line"
    );
    let munich = free_port_base();
    let tokyo = free_port_base();
    let moved = |line: &String| {
        line.replace("--port-base 8000", &format!("--port-base {munich}"))
            .replace("--port-base 9000", &format!("--port-base {tokyo}"))
            .replace("localhost:8444", &format!("localhost:{}", munich + 444))
            .replace("localhost:9444", &format!("localhost:{}", tokyo + 444))
            .replace("localhost:9443", &format!("localhost:{}", tokyo + 443))
    };
    let (last, before) = typed.split_last().unwrap();
    let before: Vec<_> = before.iter().map(moved).collect();
    let script = format!(
        "set -e\ntrap 'kill $(jobs -p); wait' EXIT\n{}\necho '=== the login'\n{}\necho '=== afterwards'\n\
         for cluster in munich tokyo; do\n  emccd --json --config demo/$cluster/emccd.toml cluster status\n  \
         emccd --config demo/$cluster/emccd.toml session list\ndone\n",
        before.join("\n"),
        moved(last),
    );

    let folder = tempfile::tempdir().unwrap();
    symlink(repository("docs"), folder.path().join("docs")).unwrap();
    let output = run(folder.path(), &script);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    let logs: String = ["munich", "tokyo"]
        .map(|name| {
            fs::read_to_string(folder.path().join(format!("demo/{name}.log"))).unwrap_or_default()
        })
        .concat();
    let told = format!("{script}\n--- out\n{out}\n--- err\n{err}\n--- logs\n{logs}");
    assert!(output.status.success(), "{}\n{told}", output.status);

    let (_, shown) = out.split_once("=== the login\n").expect(&told);
    let (login, afterwards) = shown.split_once("=== afterwards\n").expect(&told);
    let lines: Vec<_> = login.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "Extension Mobility",
            "Login successful",
            "User ID: anna",
            "Home cluster: munich"
        ],
        "{told}"
    );
    let reference = lines[4].strip_prefix("Ref: ").expect(&told);
    assert_eq!(
        afterwards.matches("\"state\": \"up\"").count(),
        2,
        "both say that the other is up\n{told}"
    );
    assert_eq!(
        afterwards.matches("\"watching\": true").count(),
        2,
        "both are seen by the other\n{told}"
    );
    for role in ["home", "visiting"] {
        assert!(
            afterwards.lines().any(|line| {
                line.starts_with(role) && line.contains("active") && line.contains(reference)
            }),
            "the session's {role} row\n{told}"
        );
    }
    assert!(
        afterwards.contains("\"refusals\": []"),
        "what was refused before both had been introduced is mended\n{told}"
    );
    assert!(
        !logs.contains('\u{1b}'),
        "a log file has no colours\n{told}"
    );
    assert!(
        !told.replace(&script, "").contains("24680"),
        "the PIN is nowhere\n{told}"
    );
}

#[test]
fn what_the_readme_names_is_there() {
    for page in [
        "README.md",
        "CONTRIBUTING.md",
        "docs/ARCHITECTURE.md",
        "docs/operating.md",
        "docs/testing.md",
        "certs/README.md",
    ] {
        let text = fs::read_to_string(repository(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
        let folder = repository(page).parent().unwrap().to_owned();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(folder.join(file).exists(), "{page} links to {link}");
        }
    }
}
