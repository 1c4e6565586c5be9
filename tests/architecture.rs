//! Keeps the house in order: arrows point down, pure files stay pure, every file says what it is for, and no
//! banned crate is in the graph. Reads source only; nothing is started.
//!
//! The rules are the tables at the top. The checker proves itself on bad snippets at the bottom: a checker that
//! finds nothing would otherwise look like a tidy house.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test code outside of test functions: a panic is how it fails"
)]

#[path = "architecture/paths.rs"]
mod paths;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use paths::{Named, Source};

/// The rows, top to bottom. A module names modules of lower rows only, and never a sibling in its own.
const ROWS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["lab"],
    &["doctor"],
    &["node"],
    &["config"],
    &["edge"],
    &["visiting"],
    &["home"],
    &["apply"],
    &["peer", "credentials", "pairing"],
    &["admission"],
    &["trust"],
    &["store", "wire"],
    &["domain"],
    &["telemetry"],
    &["chance"],
    &["clock", "secret", "tasks", "fault", "watch"],
];

/// Arrows that are allowed although they do not point down: from, to, why. One that is not used any more fails.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Rooms side by side within a module that must not name one another, and the ones that all of them may name.
const ROOMS: &[(&str, &[&str])] = &[("edge", &["listener"])];

/// Crates that only these modules may name.
const KEPT_IN: &[(&str, &[&str])] = &[
    ("rusqlite", &["store"]),
    ("refinery", &["store"]),
    ("clap", &["main", "cli"]),
    ("indicatif", &["cli"]),
];

/// The modules that are pure as a whole. Any other file is when its module comment says `Pure.`
const PURE_MODULES: &[&str] = &["domain"];

/// What a pure file must not name. A path is meant with everything below it.
const IMPURE: &[&str] = &[
    "axum",
    "hyper",
    "hyper_util",
    "rand",
    "reqwest",
    "rusqlite",
    "tokio",
    "tokio_rustls",
    "tokio_stream",
    "tokio_util",
    "tonic",
    "tonic_health",
    "tonic_prost",
    "tonic_reflection",
    "tonic_types",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "std::env",
    "std::fs",
    "std::io::stdin",
    "std::net",
    "std::os::unix::net",
    "std::process",
    "std::thread",
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "uuid::Uuid::now_v7",
    "crate::clock::Clock",
    "crate::clock::instant",
    "crate::clock::since",
    "crate::tasks",
    "crate::watch",
];

/// What would keep a run of nodes from being repeated: the path, what is named instead, and who may name it all the
/// same. Files of tests may, where the last says so.
const UNREPEATABLE: &[(&str, &str, &[&str], InTests)] = &[
    (
        "std::time::Instant::now",
        "clock::instant, which the timers of a test can be made to agree with",
        &[
            "cli/",
            "lab/",
            "doctor/",
            // Threads of their own, whose waits no timer of the runtime knows of.
            "store/sqlite/locks.rs",
            "store/sqlite/offline.rs",
            "store/sqlite/writer.rs",
        ],
        InTests::May,
    ),
    (
        ELAPSED,
        "clock::since",
        &[
            "cli/",
            "lab/",
            "doctor/",
            "store/sqlite/locks.rs",
            "store/sqlite/offline.rs",
            "store/sqlite/writer.rs",
        ],
        InTests::May,
    ),
    (
        "rand::random",
        "chance::Chance",
        &[
            "cli/",
            "lab/",
            "doctor/",
            "chance.rs",
            "config/",
            "pairing/",
            "node/mod.rs",
            "node/rotation.rs",
        ],
        InTests::May,
    ),
    (
        "rand::rng",
        "chance::Chance",
        &["lab/", "chance.rs"],
        InTests::May,
    ),
    (
        "uuid::Uuid::now_v7",
        "chance::Chance::id",
        &[],
        InTests::May,
    ),
    (
        "tokio::sync::watch",
        "crate::watch, which wakes in the order of waiting",
        &[],
        InTests::Not,
    ),
    (
        "std::collections::HashMap",
        "BTreeMap, which is gone through in the same order each time",
        MAY_HASH,
        InTests::May,
    ),
    (
        "std::collections::HashSet",
        "BTreeSet, which is gone through in the same order each time",
        MAY_HASH,
        InTests::May,
    ),
];

/// Who looks things up in a map and never goes through it, or carries no session.
const MAY_HASH: &[&str] = &[
    "cli/",
    "lab/",
    "edge/admin/",
    "edge/federation/budget.rs",
    "store/trust_entries.rs",
    "trust/",
    "wire/status.rs",
];

/// What [`paths`] says of a call of `.elapsed()`, in a file that names the standard library's `Instant`.
const ELAPSED: &str = "std::time::Instant::elapsed";

/// Whether tests may name it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InTests {
    May,
    Not,
}

/// Whose `select!`s may pick by chance: what they wait for has no part in what becomes of a session.
const MAY_PICK_BY_CHANCE: &[&str] = &["main.rs", "cli/", "doctor/", "lab/"];

/// And what of those may not.
const MAY_NOT_AFTER_ALL: &str = "lab/sim";

/// Exceptions to [`IMPURE`]: an address is a value, a socket is not.
const PURE_ALL_THE_SAME: &[&str] = &[
    "std::net::AddrParseError",
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::net::SocketAddr",
];

/// Everything that is wrong, one sentence each.
fn check(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut used = vec![false; EXCEPTIONS.len()];
    for source in sources {
        check_comment(source, &mut wrong);
        check_select(source, &mut wrong);
        if row_of(source.top()).is_none() && source.top() != "lib" {
            wrong.push(format!(
                "{}: {} stands in no row",
                source.file,
                source.top()
            ));
            continue;
        }
        for named in &source.named {
            check_arrow(source, named, &mut used, &mut wrong);
            check_rooms(source, named, &mut wrong);
            check_crate(source, named, &mut wrong);
            check_repeatable(source, named, &mut wrong);
            if is_pure(source) && !named.in_test {
                check_purity(source, named, &mut wrong);
            }
        }
    }
    for ((from, to, _), used) in EXCEPTIONS.iter().zip(used) {
        if !used {
            wrong.push(format!(
                "the exception {from} -> {to} is not needed any more"
            ));
        }
    }
    wrong
}

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

fn check_comment(source: &Source, wrong: &mut Vec<String>) {
    // What a `tests.rs` is for is said by the file that it tests.
    if source.file.ends_with("/tests.rs") {
        return;
    }
    if source.comment.trim().is_empty() || !source.text.starts_with("//!") {
        wrong.push(format!("{}: does not open with a //! comment", source.file));
    }
}

fn check_repeatable(source: &Source, named: &Named, wrong: &mut Vec<String>) {
    let path = named.path.join("::");
    for (banned, instead, exempt, in_tests) in UNREPEATABLE {
        let is_meant = path == *banned || path.starts_with(&format!("{banned}::"));
        let may = exempt.iter().any(|file| source.file.starts_with(file))
            || named.in_test && *in_tests == InTests::May;
        if is_meant && !may {
            wrong.push(format!(
                "{}: names {path}; what can be repeated names {instead}",
                source.file
            ));
        }
    }
}

/// A `select!` that looks at its branches in their order, each time.
fn check_select(source: &Source, wrong: &mut Vec<String>) {
    let may = MAY_PICK_BY_CHANCE
        .iter()
        .any(|file| source.file.starts_with(file));
    if may && !source.file.starts_with(MAY_NOT_AFTER_ALL) {
        return;
    }
    let mut parts = source.text.split("select! {");
    let mut line = parts.next().map_or(0, |text| text.matches('\n').count()) + 1;
    for behind in parts {
        if !behind.trim_start().starts_with("biased;") {
            wrong.push(format!(
                "{}:{line}: this select! picks by chance; let it begin with biased;",
                source.file
            ));
        }
        line += behind.matches('\n').count();
    }
}

fn check_arrow(source: &Source, named: &Named, used: &mut [bool], wrong: &mut Vec<String>) {
    let Some(to) = named.module() else { return };
    let from = source.top();
    // `lib.rs` declares the modules. `main` sees the library under its own name and comes above everything.
    if from == "lib" || from == to {
        return;
    }
    let (Some(above), Some(below)) = (row_of(from), row_of(to)) else {
        // Not a module: a macro or a re-export of lib.rs, which must not exist.
        wrong.push(format!(
            "{}: names crate::{to}, which is no module of a row",
            source.file
        ));
        return;
    };
    let exception = EXCEPTIONS
        .iter()
        .position(|(f, t, _)| *f == from && *t == to);
    if let Some(exception) = exception {
        used[exception] = true;
    } else if below <= above {
        let direction = if below == above { "sideways" } else { "up" };
        wrong.push(format!(
            "{}: {from} -> {to} points {direction} ({})",
            source.file,
            named.path.join("::")
        ));
    } else if to == "cli" && from != "main" {
        wrong.push(format!("{}: only main may name cli", source.file));
    }
}

fn check_rooms(source: &Source, named: &Named, wrong: &mut Vec<String>) {
    for (house, shared) in ROOMS {
        let (Some(from), Some(to)) = (source.room_in(house), named.room_in(house)) else {
            continue;
        };
        // A path that ends in the room's own house may be an item of its mod.rs, which is everyone's.
        if from != to && source.is_room(house, to) && !shared.contains(&to) {
            wrong.push(format!(
                "{}: {house}::{from} -> {house}::{to} points sideways",
                source.file
            ));
        }
    }
}

fn check_crate(source: &Source, named: &Named, wrong: &mut Vec<String>) {
    for (name, rooms) in KEPT_IN {
        if named.path.first().is_some_and(|first| first == name) && !rooms.contains(&source.top()) {
            wrong.push(format!(
                "{}: {name} is named outside {}",
                source.file,
                rooms.join(", ")
            ));
        }
    }
}

fn is_pure(source: &Source) -> bool {
    PURE_MODULES.contains(&source.top())
        || source
            .comment
            .split_whitespace()
            .any(|word| word == "Pure.")
}

fn check_purity(source: &Source, named: &Named, wrong: &mut Vec<String>) {
    let path = named.path.join("::");
    // `std` and `core` are the same house.
    let path = path
        .strip_prefix("core::")
        .map_or_else(|| path.clone(), |rest| format!("std::{rest}"));
    let lies_below = |parent: &&str| path == **parent || path.starts_with(&format!("{parent}::"));
    // `use std::net;` alone names no socket yet: what is then taken from it is seen by itself.
    let only_the_room = path == "std::net";
    if IMPURE.iter().any(lies_below) && !PURE_ALL_THE_SAME.iter().any(lies_below) && !only_the_room
    {
        wrong.push(format!("{}: a pure file names {path}", source.file));
    }
}

// ---- the tree as it is ------------------------------------------------------------------------------------------

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|file| {
            let name = file.strip_prefix(&src).unwrap().display().to_string();
            (name, fs::read_to_string(file).unwrap())
        })
        .collect();
    paths::read_all(&texts)
}

#[test]
fn the_house_is_in_order() {
    let sources = sources();
    assert!(sources.len() > 5, "the sources were not found");
    let wrong = check(&sources);
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn lib_lists_the_modules_in_the_order_of_the_rows() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let listed: Vec<usize> = text
        .lines()
        .filter_map(|line| {
            let line = line.trim().strip_suffix(';')?;
            let name = line
                .strip_prefix("pub mod ")
                .or_else(|| line.strip_prefix("mod "))?;
            Some(row_of(name).unwrap_or_else(|| panic!("{name} stands in no row")))
        })
        .collect();
    assert!(!listed.is_empty());
    assert!(
        listed.is_sorted(),
        "lib.rs lists its modules out of order: rows {listed:?}"
    );
}

#[test]
fn tests_and_benches_say_what_they_are_for() {
    let mut files = vec![root().join("build.rs")];
    rust_files(&root().join("tests"), &mut files);
    rust_files(&root().join("benches"), &mut files);
    let silent: Vec<_> = files
        .iter()
        .filter(|file| !fs::read_to_string(file).unwrap().starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "no //! comment at the top: {silent:?}");
}

/// What a merge leaves where two sides wrote in one place, and is committed by accident.
fn has_conflict_mark(text: &str) -> bool {
    let marks = ["<", ">"].map(|mark| mark.repeat(7) + " ");
    let is_one = |line: &str| marks.iter().any(|mark| line.starts_with(mark));
    text.lines().any(is_one)
}

/// All files below, without the repository's own and what it does not keep.
fn kept_files(folder: &Path, ignored: &[PathBuf], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if ignored.contains(&path) {
            continue;
        }
        if path.is_dir() {
            kept_files(&path, ignored, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn no_file_has_what_a_merge_left_behind() {
    let unkept = fs::read_to_string(root().join(".gitignore")).unwrap();
    let unkept = unkept.lines().filter_map(|line| line.strip_prefix('/'));
    let ignored: Vec<_> = unkept
        .chain([".git"])
        .map(|name| root().join(name))
        .collect();
    let mut files = Vec::new();
    kept_files(&root(), &ignored, &mut files);
    assert!(files.contains(&root().join("CHANGELOG.md")), "{files:?}");
    // What is no text has no lines to merge.
    let texts = files
        .iter()
        .filter_map(|file| Some((file, fs::read_to_string(file).ok()?)));
    let marked: Vec<_> = texts
        .filter(|(_, text)| has_conflict_mark(text))
        .map(|(file, _)| file)
        .collect();
    assert!(marked.is_empty(), "conflict marks: {marked:?}");
}

#[test]
fn conflict_marks_are_found_and_nothing_else_is_taken_for_one() {
    for (mark, tail) in [("<", " HEAD"), (">", " integ"), ("<", " ")] {
        let line = mark.repeat(7) + tail;
        assert!(has_conflict_mark(&line));
        assert!(has_conflict_mark(&format!("a\r\n{line}\r\nb\n")));
        assert!(!has_conflict_mark(&format!("a {line}")));
    }
    assert!(!has_conflict_mark(&"<".repeat(8)));
    assert!(!has_conflict_mark("======= \n>> a\n"));
}

// ---- dependencies -----------------------------------------------------------------------------------------------

/// `deny.toml` is enforced by cargo-deny, which takes minutes to install. Its bans are held here too.
#[test]
fn no_banned_crate_is_in_the_graph() {
    let deny: toml::Table = fs::read_to_string(root().join("deny.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let bans: Vec<&str> = deny["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ban| ban["crate"].as_str().unwrap())
        .collect();
    assert!(bans.contains(&"ring"), "the bans were not read: {bans:?}");
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .args(["--edges", "normal,build,dev", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(
        tree.contains("tokio v"),
        "cargo tree printed something else: {tree}"
    );
    let found = banned(&tree, &bans);
    assert!(found.is_empty(), "banned by deny.toml: {found:?}");
}

/// The lines of `cargo tree` (`name v1.2.3 …`) that a ban (`name` or `name:<1.2.3`) is meant for.
fn banned<'a>(tree: &'a str, bans: &[&str]) -> Vec<&'a str> {
    let mut found: Vec<&str> = tree
        .lines()
        .filter(|line| {
            let mut words = line.split_whitespace();
            let (Some(name), Some(version)) = (words.next(), words.next()) else {
                return false;
            };
            bans.iter().any(|ban| match ban.split_once(':') {
                None => *ban == name,
                Some((banned, bound)) => {
                    let bound = bound.strip_prefix('<').expect("a ban reads name:<version");
                    banned == name && number(version.trim_start_matches('v')) < number(bound)
                }
            })
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn number(version: &str) -> Vec<u64> {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    release
        .split('.')
        .map(|part| part.parse().expect("a version number"))
        .collect()
}

// ---- the checker itself -----------------------------------------------------------------------------------------

fn complaints(file: &str, text: &str) -> Vec<String> {
    let mut texts = vec![
        ("edge/mod.rs".to_owned(), "//! Edges.\n".to_owned()),
        ("edge/listener.rs".to_owned(), "//! Accepts.\n".to_owned()),
        ("edge/phone/mod.rs".to_owned(), "//! Phones.\n".to_owned()),
        (
            "edge/federation/mod.rs".to_owned(),
            "//! Peers.\n".to_owned(),
        ),
    ];
    texts.retain(|(name, _)| name != file);
    texts.push((file.to_owned(), text.to_owned()));
    check(&paths::read_all(&texts))
}

#[track_caller]
fn accepts(file: &str, text: &str) {
    assert_eq!(complaints(file, text), Vec::<String>::new());
}

#[track_caller]
fn refuses(file: &str, text: &str, because: &str) {
    let found = complaints(file, text);
    assert!(
        found.iter().any(|complaint| complaint.contains(because)),
        "expected a complaint with {because:?}, got {found:?}"
    );
}

#[test]
fn arrows_down_are_accepted() {
    accepts(
        "home/mod.rs",
        "//! x\nuse crate::{domain::ids::ClusterId, store, peer::Peers};",
    );
    accepts("cli/mod.rs", "//! x\nuse crate::lab::Lab;");
    accepts("main.rs", "//! x\nfn main() { emccd::cli::run() }");
    accepts(
        "home/login.rs",
        "//! x\nuse super::HomeRole;\nuse crate::home::error::Error;",
    );
}

#[test]
fn arrows_up_are_refused() {
    refuses(
        "domain/ids.rs",
        "//! x\nuse crate::store::Store;",
        "domain -> store points up",
    );
    refuses(
        "peer/mod.rs",
        "//! x\nfn f(_: &crate::home::HomeRole) {}",
        "peer -> home points up",
    );
    refuses(
        "store/mod.rs",
        "//! x\nuse crate::{domain, trust as t};",
        "store -> trust points up",
    );
    refuses(
        "lab/mod.rs",
        "//! x\nuse crate::cli::init;",
        "lab -> cli points up",
    );
    refuses(
        "node/mod.rs",
        "//! x\nuse super::lab::Lab;",
        "node -> lab points up",
    );
    refuses(
        "home/a/b.rs",
        "//! x\nuse super::super::super::edge;",
        "home -> edge points up",
    );
}

#[test]
fn arrows_sideways_are_refused() {
    refuses(
        "store/mod.rs",
        "//! x\nuse crate::wire::pb;",
        "store -> wire points sideways",
    );
    refuses(
        "peer/mod.rs",
        "//! x\nuse crate::credentials;",
        "peer -> credentials points sideways",
    );
    refuses(
        "clock.rs",
        "//! x\nuse crate::tasks::Tasks;",
        "clock -> tasks points sideways",
    );
}

#[test]
fn arrows_are_found_wherever_they_hide() {
    let up = "domain -> edge points up";
    refuses(
        "domain/a.rs",
        "//! x\nfn f() { println!(\"{}\", crate::edge::X); }",
        up,
    );
    refuses(
        "domain/a.rs",
        "//! x\nmacro_rules! m { () => { $crate::edge::x() } }",
        up,
    );
    refuses(
        "domain/a.rs",
        "//! x\n#[serde(with = \"crate::edge::x\")]\nstruct S;",
        up,
    );
    refuses("domain/a.rs", "//! x\nimpl crate::edge::T for S {}", up);
    refuses(
        "domain/a.rs",
        "//! x\nuse crate::{domain::{ids, em_code}, edge::{self, y}};",
        up,
    );
    refuses("domain/a.rs", "//! x\nuse crate::{*, edge::*};", up);
    refuses(
        "domain/a.rs",
        "//! x\nmod inner { use super::super::super::edge::X; }",
        up,
    );
    refuses(
        "domain/a.rs",
        "//! x\nfn f() { vec![super::super::edge::X]; }",
        up,
    );
    refuses(
        "domain/a.rs",
        "//! x\n#[cfg(test)]\nmod tests { use crate::edge::X; }",
        up,
    );
}

#[test]
fn a_name_in_a_comment_is_no_arrow() {
    accepts(
        "domain/a.rs",
        "//! x\n/// See [`crate::edge`].\n// crate::edge\npub struct S;",
    );
}

#[test]
fn unknown_modules_are_refused() {
    refuses("util.rs", "//! x\n", "util stands in no row");
    refuses(
        "home/mod.rs",
        "//! x\nuse crate::util::x;",
        "crate::util, which is no module",
    );
}

#[test]
fn rooms_of_the_edge_do_not_name_each_other() {
    let sideways = "edge::phone -> edge::federation points sideways";
    refuses(
        "edge/phone/login.rs",
        "//! x\nuse crate::edge::federation::X;",
        sideways,
    );
    refuses(
        "edge/phone/login.rs",
        "//! x\nuse super::super::federation::X;",
        sideways,
    );
    refuses(
        "edge/phone/mod.rs",
        "//! x\nuse crate::edge;\nfn f() { edge::federation::f() }",
        sideways,
    );
    accepts(
        "edge/phone/mod.rs",
        "//! x\nuse crate::edge::{listener::Config, phone::login, Word};",
    );
    accepts(
        "edge/mod.rs",
        "//! x\nuse crate::edge::{phone, federation};",
    );
    refuses(
        "edge/listener.rs",
        "//! x\nuse super::phone;",
        "edge::listener -> edge::phone",
    );
}

#[test]
fn sql_stays_in_the_store() {
    refuses(
        "home/mod.rs",
        "//! x\nuse rusqlite::Connection;",
        "rusqlite is named outside store",
    );
    accepts("store/sqlite.rs", "//! x\nuse rusqlite::Connection;");
}

#[test]
fn pure_files_name_nothing_impure() {
    let pure = "//! Rules. Pure.\n";
    for (line, path) in [
        ("use tokio::sync::Notify;", "tokio::sync::Notify"),
        ("use std::{fmt, fs};", "std::fs"),
        ("use std::net::{IpAddr, TcpStream};", "std::net::TcpStream"),
        ("use std::net::*;", "std::net::*"),
        (
            "use std::net;\nfn f(_: net::UdpSocket) {}",
            "std::net::UdpSocket",
        ),
        (
            "use std::time::Instant;\nfn f() { Instant::now(); }",
            "std::time::Instant::now",
        ),
        (
            "fn f() { assert!(std::time::SystemTime::now() > t); }",
            "std::time::SystemTime::now",
        ),
        (
            "use crate::clock::{Clock, Timestamp};",
            "crate::clock::Clock",
        ),
        ("fn f(_: &tonic::Status) {}", "tonic::Status"),
    ] {
        refuses(
            "trust/judge.rs",
            &format!("{pure}{line}"),
            &format!("pure file names {path}"),
        );
        refuses(
            "domain/a.rs",
            &format!("//! x\n{line}"),
            &format!("pure file names {path}"),
        );
        // The same line is nobody's business in a file that does not claim to be pure.
        accepts("cli/tls.rs", &format!("//! Shell, not pure.\n{line}"));
    }
}

#[test]
fn what_is_pure_is_accepted_as_pure() {
    accepts(
        "domain/a.rs",
        "//! x\nuse std::{net::{IpAddr, SocketAddr}, time::Instant};\nuse crate::clock::Timestamp;",
    );
    // A golden file has to be read by somebody.
    accepts(
        "domain/a.rs",
        "//! x\n#[cfg(test)]\nmod tests { use std::fs; }",
    );
    accepts("domain/a/tests.rs", "//! x\nuse std::fs;");
}

#[test]
fn what_can_not_be_repeated_is_refused() {
    let now = "//! x\nuse std::time::Instant;\nfn f() { Instant::now(); }";
    refuses("home/a.rs", now, "names std::time::Instant::now");
    accepts("cli/a.rs", now);
    accepts("store/sqlite/locks.rs", now);
    accepts("home/a/tests.rs", now);
    accepts(
        "home/a.rs",
        "//! x\nuse tokio::time::Instant;\nfn f() { Instant::now().elapsed(); }",
    );
    refuses(
        "home/a.rs",
        "//! x\nuse std::time::Instant;\nfn f(at: Instant) { at.elapsed(); }",
        "names std::time::Instant::elapsed",
    );
    accepts(
        "home/a.rs",
        "//! x\nuse std::time::Instant;\n#[cfg(test)]\nmod tests { fn f(at: Instant) { at.elapsed(); } }",
    );
    for file in ["home/a.rs", "home/a/tests.rs", "lab/a.rs"] {
        refuses(
            file,
            "//! x\nuse tokio::sync::{Notify, watch};",
            "names tokio::sync::watch",
        );
    }
    accepts("home/a.rs", "//! x\nuse crate::watch;");
    refuses(
        "home/a.rs",
        "//! x\nfn f() -> u8 { rand::random() }",
        "names rand::random",
    );
    refuses(
        "home/a.rs",
        "//! x\nuse uuid::Uuid;\nfn f() { Uuid::now_v7(); }",
        "names uuid::Uuid::now_v7",
    );
    let map = "//! x\nuse std::collections::{BTreeSet, HashMap};";
    refuses("home/a.rs", map, "names std::collections::HashMap");
    accepts("trust/a.rs", map);
}

#[test]
fn a_select_that_picks_by_chance_is_refused() {
    let text =
        |first: &str| format!("//! x\n\nfn f() {{ tokio::select! {{\n{first} a = b => c }} }}");
    refuses("peer/a.rs", &text(""), "peer/a.rs:3: this select! picks");
    refuses("lab/sim/a.rs", &text(""), "picks by chance");
    accepts("peer/a.rs", &text("biased;"));
    accepts("lab/a.rs", &text(""));
}

#[test]
fn files_without_a_comment_are_refused() {
    refuses("home/mod.rs", "fn f() {}", "does not open with");
    refuses("home/mod.rs", "// no\nfn f() {}", "does not open with");
    refuses("home/mod.rs", "//!\nfn f() {}", "does not open with");
    accepts("home/tests.rs", "fn f() {}");
}

#[test]
fn bans_are_matched_by_name_and_by_version() {
    let tree = "ring v0.17.14\nrustls v0.23.44\nh2 v0.4.16\nrustls-webpki v0.103.9 (*)\n";
    let bans = [
        "ring",
        "rustls:<0.23.45",
        "h2:<0.4.16",
        "rustls-webpki:<0.103.13",
        "rsa",
    ];
    assert_eq!(
        banned(tree, &bans),
        [
            "ring v0.17.14",
            "rustls v0.23.44",
            "rustls-webpki v0.103.9 (*)"
        ]
    );
}
