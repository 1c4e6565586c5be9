//! What the README tells a newcomer to type, typed: the commands that federate two daemons, and those that look at
//! them and tidy up.

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

/// The commands of the fence behind it that looks at the session and tidies up.
fn afterwards(readme: &str) -> Vec<String> {
    let (_, after) = readme
        .split_once("\n```\nemccd session list ")
        .expect("the README has a fence that begins with the sessions");
    let (fence, _) = after.split_once("\n```\n").expect("the fence ends");
    format!("emccd session list {fence}")
        .lines()
        .map(str::to_owned)
        .collect()
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
    let readme = fs::read_to_string(repository("README.md")).unwrap();
    let typed = commands(&readme);
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
    // The second fence, command for command; before the last one tidies up, a look at what is left.
    let later: Vec<_> = afterwards(&readme).iter().map(moved).collect();
    let [list, base, logout, tidy] = &later[..] else {
        panic!("the second fence has other commands now: {later:?}")
    };
    let script = format!(
        "set -e\ntrap 'cp demo/*.log . || true; kill $(jobs -p) || true; wait' EXIT\n{}\n\
         echo '=== the login'\n{}\necho '=== afterwards'\n\
         for cluster in munich tokyo; do\n  emccd --json --config demo/$cluster/emccd.toml cluster status\n  \
         emccd --config demo/$cluster/emccd.toml session list\ndone\n\
         echo '=== the sessions'\n{list}\necho '=== the base devices'\n{base}\n\
         echo '=== the logout'\n{logout}\necho '=== nobody'\n\
         for cluster in munich tokyo; do\n  emccd --json --config demo/$cluster/emccd.toml session list\ndone\n\
         cp demo/*.log .\necho '=== the end'\n{tidy}\ntest ! -e demo\necho tidy\n",
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
            fs::read_to_string(folder.path().join(format!("{name}.log"))).unwrap_or_default()
        })
        .concat();
    let told = format!("{script}\n--- out\n{out}\n--- err\n{err}\n--- logs\n{logs}");
    assert!(output.status.success(), "{}\n{told}", output.status);

    let (_, shown) = out.split_once("=== the login\n").expect(&told);
    let (login, afterwards) = shown.split_once("=== afterwards\n").expect(&told);
    let (afterwards, later) = afterwards.split_once("=== the sessions\n").expect(&told);
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
    // Of the cluster, of its one node, and of our one node.
    assert_eq!(
        afterwards.matches("\"state\": \"up\"").count(),
        6,
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
    let (sessions, later) = later.split_once("=== the base devices\n").expect(&told);
    let (base, later) = later.split_once("=== the logout\n").expect(&told);
    let (logout, later) = later.split_once("=== nobody\n").expect(&told);
    let (left, end) = later.split_once("=== the end\n").expect(&told);
    assert!(
        sessions.contains("anna") && sessions.contains(reference),
        "{told}"
    );
    let taken = base.lines().skip(1).filter(|line| !line.ends_with("free"));
    assert_eq!(taken.count(), 1, "{told}");
    let logout: Vec<_> = logout.lines().take(2).collect();
    assert_eq!(
        logout,
        ["Extension Mobility", "Logout successful"],
        "{told}"
    );
    assert_eq!(left, "[]\n[]\n", "{told}");
    assert_eq!(end, "tidy\n", "{told}");
    assert!(!logs.is_empty(), "{told}");
    assert!(
        !logs.contains('\u{1b}'),
        "a log file has no colours\n{told}"
    );
    assert!(
        !told.replace(&script, "").contains("246809"),
        "the PIN is nowhere\n{told}"
    );
}

#[test]
fn what_the_pages_link_to_is_there() {
    let pages: Vec<_> = [
        "",
        "docs",
        "docs/adr",
        "docs/refusals",
        "certs",
        "src",
        "tests",
    ]
    .into_iter()
    .flat_map(|folder| fs::read_dir(repository(folder)).unwrap())
    .map(|entry| entry.unwrap().path())
    .filter(|path| path.extension().is_some_and(|end| end == "md"))
    .collect();
    for known in [
        "README.md",
        "docs/lab.md",
        "docs/config.md",
        "docs/em-codes.md",
    ] {
        assert!(pages.contains(&repository(known)), "{known}");
    }
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let (folder, page) = (page.parent().unwrap(), page.display());
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
