//! Files in, settings or problems out; and the rendered pages against the ones in the repository.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use super::*;
use crate::{
    clock::Timestamp,
    config::keys::{KEYS, Key, Preset},
};

const NOW: Timestamp = Timestamp::from_millis(1_780_000_000_000);

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn checked(text: &str) -> Result<Config, Problems> {
    check::check(text, Path::new("/etc/emccd/emccd.toml"), Some("host-7"))
}

fn refused(text: &str) -> Vec<String> {
    let problems = checked(text).unwrap_err();
    problems.list.iter().map(ToString::to_string).collect()
}

const MINIMAL: &str = "version = 1\ncluster-id = \"munich\"\n";

/// Compares with a file of the repository, or writes it when `UPDATE_GOLDEN` is set.
fn assert_golden(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, actual).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(
        expected == actual,
        "{} differs; UPDATE_GOLDEN=1 writes it anew\n--- expected\n{expected}\n--- actual\n{actual}",
        path.display()
    );
}

#[test]
fn two_lines_are_enough() {
    let config = checked(MINIMAL).unwrap();
    assert_eq!(config.node, "host-7");
    assert_eq!(config.federation.listen, "0.0.0.0:8444".parse().unwrap());
    assert_eq!(config.federation.dead_after, Duration::from_secs(8));
    assert_eq!(config.phone.plain_listen, None);
    assert_eq!(config.store.url, "sqlite:/etc/emccd/emccd.db");
    assert_eq!(config.store.path(), Some(Path::new("/etc/emccd/emccd.db")));
    assert_eq!(
        config.identity.key,
        Path::new("/etc/emccd/certs/federation.key")
    );
    assert_eq!(config.admin.groups, Groups::default());
}

#[test]
fn the_check_looks_at_every_key_of_the_list_and_no_other() {
    let config = checked(MINIMAL).unwrap();
    let seen: Vec<_> = config.settings.iter().map(|s| s.key).collect();
    let listed: Vec<_> = KEYS.iter().map(|k| k.name).collect();
    assert_eq!(seen, listed);
}

#[test]
fn the_example_loads_to_the_defaults_also_with_its_comments_switched_on() {
    let example = example::example();
    let all_on: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let defaults = checked(MINIMAL).unwrap().show();
    assert_eq!(checked(&example).unwrap().show(), defaults);
    let config = checked(&all_on).unwrap();
    assert_eq!(config.show(), defaults);
    let not_given: Vec<_> = config
        .settings
        .iter()
        .filter(|s| s.line.is_none())
        .map(|s| s.key)
        .collect();
    let otherwise: Vec<_> = KEYS
        .iter()
        .filter(|k| matches!(k.preset, Preset::Otherwise { .. }))
        .map(|k| k.name)
        .collect();
    assert_eq!(
        not_given, otherwise,
        "every other key stands in the example"
    );
}

#[test]
fn the_reference_page_is_up_to_date() {
    assert_golden(&repository("docs/config.md"), &example::reference());
}

#[test]
fn what_is_shown_loads_to_the_same() {
    let text = fs::read_to_string(repository("tests/data/config/valid/every-key.toml")).unwrap();
    let config = checked(&text).unwrap();
    for setting in &config.settings {
        // One way of giving an identity excludes the other one.
        let is_apart = is_of_store(setting.key) || is_of_files(setting.key);
        assert!(setting.line.is_some() || is_apart, "{}", setting.key);
    }
    let again = checked(&config.show()).unwrap();
    assert_eq!(again.show(), config.show());
}

/// Whether a key gives an identity in a key store.
fn is_of_store(name: &str) -> bool {
    keys::last(name).starts_with("key-")
}

/// Whether a key gives an identity in files of PEM.
fn is_of_files(name: &str) -> bool {
    matches!(keys::last(name), "certificate" | "key")
}

#[test]
fn an_identity_is_two_files_or_a_key_store() {
    let config = checked(&format!(
        "{MINIMAL}[identity]\nkey-store = \"a.p12\"\n[identity.client]\nkey-store = \"b.jks\"\n\
         key-store-password-file = \"b.password\"\nkey-password-file = \"b.key\"\nkey-alias = \"tomcat\"\n"
    ))
    .unwrap();
    assert_eq!(config.identity.to_string(), "/etc/emccd/a.p12");
    let client = config.client_identity.unwrap();
    assert_eq!(client.to_string(), "tomcat in /etc/emccd/b.jks");
    let store = client.store.unwrap();
    let password = store.password_file.unwrap();
    assert_eq!(password, Path::new("/etc/emccd/b.password"));
    assert!(config.phone.identity.store.is_none());
    for (lines, told) in [
        (
            "[identity]\nkey-store = \"a.p12\"\nkey = \"a.key\"\n",
            "is given, and so is identity.key-store",
        ),
        (
            "[phone]\nkey-alias = \"tomcat\"\n",
            "is of no use without phone.key-store",
        ),
        (
            "[identity.client]\nkey-store-password-file = \"a\"\n",
            "is of no use without identity.client.key-store",
        ),
        (
            "[phone]\nkey-store = \"a\"\nkey-alias = \"\"\n",
            "is no alias",
        ),
    ] {
        let problems = refused(&format!("{MINIMAL}{lines}"));
        assert!(
            problems.len() == 1 && problems[0].contains(told),
            "{problems:?}"
        );
    }
}

#[test]
fn samples_are_accepted_and_are_not_the_defaults() {
    for key in KEYS {
        if !matches!(key.preset, Preset::Otherwise { .. }) {
            continue;
        }
        // Some of a section belong together.
        let mut text = MINIMAL.to_owned();
        let is_beside = |k: &&Key| {
            let is_apart = (is_of_store(k.name) && is_of_files(key.name))
                || (is_of_files(k.name) && !is_of_files(key.name));
            keys::section_of(k.name) == keys::section_of(key.name) && !is_apart
        };
        for beside in KEYS.iter().filter(is_beside) {
            if let Preset::Otherwise { sample, .. } = beside.preset {
                text.push_str(&format!("{} = {sample}\n", beside.name));
            }
        }
        let config = checked(&text).unwrap();
        assert!(
            config
                .settings
                .iter()
                .any(|s| s.key == key.name && !s.default),
            "{}",
            key.name
        );
    }
}

#[test]
fn valid_files_are_shown_as_recorded() {
    for (text, path) in cases("valid") {
        let config = checked(&text).unwrap_or_else(|p| panic!("{}: {p}", path.display()));
        assert_golden(&path.with_extension("shown"), &config.show());
    }
}

#[test]
fn invalid_files_are_refused_as_recorded() {
    for (text, path) in cases("invalid") {
        let problems = checked(&text).expect_err(&path.display().to_string());
        assert_golden(&path.with_extension("message"), &format!("{problems}\n"));
    }
}

fn cases(folder: &str) -> Vec<(String, PathBuf)> {
    let folder = repository("tests/data/config").join(folder);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} holds no cases", folder.display());
    paths
        .into_iter()
        .map(|path| (fs::read_to_string(&path).unwrap(), path))
        .collect()
}

#[test]
fn every_kind_refuses_every_wrong_type() {
    let wrong = [
        "true",
        "1.5",
        "1979-05-27",
        "[1]",
        "{ a = 1 }",
        "-1",
        "\"\"",
        "\"\\u0000\"",
    ];
    for key in KEYS {
        for literal in wrong {
            let mut text = String::new();
            for needed in ["version = 1", "cluster-id = \"munich\""] {
                if !needed.starts_with(&format!("{} ", key.name)) {
                    text.push_str(&format!("{needed}\n"));
                }
            }
            text.push_str(&format!("{} = {literal}\n", key.name));
            let found = refused(&text);
            assert!(
                found.iter().any(|p| p.contains(key.name)),
                "{text}{found:?}"
            );
        }
    }
}

#[test]
fn values_that_may_be_secret_are_not_repeated() {
    let text = format!(
        "{MINIMAL}store.url = \"postgres://emccd:hunter2@db/emccd\"\ncredentials.pepper = \"hunter2\"\n\
         credentials.pepper-file = [\"hunter2\"]\nidentity.key = \"\"\"\nhunter2\nhunter2\n\"\"\"\n"
    );
    let found = refused(&text);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
}

#[test]
fn a_store_is_a_plain_path() {
    for odd in [
        "sqlite:",
        "sqlite:///tmp/a.db",
        "sqlite:a.db?mode=ro",
        "a.db",
        "mysql:a",
    ] {
        let found = refused(&format!("{MINIMAL}store.url = \"{odd}\"\n"));
        assert!(
            found[0].starts_with("line 3: store.url: "),
            "{odd}: {found:?}"
        );
    }
}

#[test]
fn the_host_name_fills_in_only_where_it_is_a_good_name() {
    let at = |host| check::check(MINIMAL, Path::new("/x/emccd.toml"), host).unwrap();
    assert_eq!(at(None).node, "node-1");
    assert_eq!(at(Some("localhost")).node, "node-1");
    assert_eq!(at(Some("a.example.org")).node, "a.example.org");
    let long = "a.".repeat(60) + "org";
    assert_eq!(at(Some(&long)).node, "node-1");
}

#[test]
fn a_port_of_the_systems_choice_clashes_with_nothing() {
    let text = format!(
        "{MINIMAL}federation.listen = \"127.0.0.1:0\"\nphone.listen = \"127.0.0.1:0\"\n\
         phone.plain-listen = \"127.0.0.1:0\"\n"
    );
    let config = checked(&text).unwrap();
    assert!(config.phone.plain_listen.is_some());
}

#[test]
fn a_socket_path_that_linux_cannot_take_is_refused() {
    let long = "d/".repeat(60);
    let found = refused(&format!("{MINIMAL}admin.socket = \"{long}admin.sock\"\n"));
    assert!(
        found[0].contains("admin.socket: is 141 bytes long"),
        "{found:?}"
    );
}

#[test]
fn files_that_are_missing_are_named_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let text =
        format!("{MINIMAL}credentials.pepper-file = \"salt\"\nadmin.socket = \"run/admin.sock\"\n");
    fs::write(&path, &text).unwrap();
    let config = load(&path).unwrap();
    let problems = check_files(&config, NOW).unwrap_err();
    let keys: Vec<_> = problems
        .list
        .iter()
        .map(|p| (p.line, p.key.as_str()))
        .collect();
    let expected = [
        (Some(3), "credentials.pepper-file"),
        (Some(4), "admin.socket"),
        (None, "identity.certificate"),
        (None, "identity.key"),
        (None, "phone.certificate"),
        (None, "phone.key"),
    ];
    assert_eq!(keys, expected);
    let salt = folder.path().join("salt");
    assert!(
        problems.to_string().contains(&*salt.to_string_lossy()),
        "{problems}"
    );
}

/// A fresh node's folder and its configuration.
fn fresh() -> (tempfile::TempDir, Config) {
    let parent = tempfile::tempdir().unwrap();
    let options = init::InitOptions {
        cluster_id: ClusterId::new("munich").unwrap(),
        folder: parent.path().join("munich"),
        port_base: init::DEFAULT_PORT_BASE,
        hosts: vec!["localhost".to_owned()],
        settings: Vec::new(),
        now: NOW,
    };
    let config = load(&init::create(&options).unwrap().config).unwrap();
    (parent, config)
}

#[test]
fn files_that_are_not_fit_for_use_are_named_with_what_is_wrong() {
    let (_parent, config) = fresh();
    assert_eq!(check_files(&config, NOW), Ok(()));
    let told = |now| check_files(&config, now).unwrap_err().to_string();
    let later = NOW.plus(Duration::from_secs(100 * 365 * 86_400));
    let text = told(later);
    assert!(
        text.contains("identity.certificate") && text.contains("expired"),
        "{text}"
    );

    assert!(text.contains("phone.certificate = "), "{text}");

    let identity = &config.identity;
    fs::set_permissions(&identity.key, fs::Permissions::from_mode(0o644)).unwrap();
    fs::copy(
        &config.phone.identity.certificate,
        folder_file(&config, "other.pem"),
    )
    .unwrap();
    fs::write(&config.phone.identity.certificate, "no certificate").unwrap();
    fs::write(&config.credentials.pepper_file, "short").unwrap();
    let text = told(NOW);
    for part in [
        "has 3 problems",
        "identity.key = ",
        "chmod 600",
        "phone.certificate = ",
        "there is no certificate in it",
        "credentials.pepper-file = ",
        "has 5 bytes and must have 32",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }

    // A key that is another certificate's is the key's problem.
    fs::set_permissions(&identity.key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(folder_file(&config, "other.pem"), &identity.certificate).unwrap();
    let text = told(NOW);
    assert!(
        text.contains("identity.key = ") && text.contains("does not belong"),
        "{text}"
    );
}

fn folder_file(config: &Config, name: &str) -> PathBuf {
    config.folder.join(name)
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let text = |problems: Problems| problems.to_string();
    assert!(text(load(&path).unwrap_err()).contains("can't be read"));
    fs::write(&path, b"version = 1\n# caf\xe9\n").unwrap();
    assert!(text(load(&path).unwrap_err()).contains("line 2: is not UTF-8"));
    fs::write(&path, "# x\n".repeat(300_000)).unwrap();
    assert!(text(load(&path).unwrap_err()).contains("larger than 1 MiB"));
    assert!(load(folder.path()).is_err());
}

#[test]
fn the_folder_is_absolute_also_for_a_relative_path() {
    let config = parse(MINIMAL, Path::new("emccd.toml")).unwrap();
    assert!(config.folder.is_absolute() && config.file.is_absolute());
    assert_eq!(config.folder, std::env::current_dir().unwrap());
}
