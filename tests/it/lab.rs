//! The lab as outside programs meet it: the objects on its output, how it ends, and that `ready` is all that a
//! program needs to join in. `docs/lab.md` is the contract.

mod staying;

use std::{path::Path, process::Stdio, time::Duration};

use emccd::lab::{cluster_name, dataset::Dataset};
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use crate::support::binary;

/// For a whole lab on a busy machine; nothing waits for it in vain.
const PATIENCE: Duration = Duration::from_secs(180);
/// For a lab to end once it was told to.
const ENDS: Duration = Duration::from_secs(30);

/// What a lab that ended by itself left.
struct Ended {
    code: Option<i32>,
    lines: Vec<String>,
    stderr: String,
}

impl Ended {
    fn objects(&self) -> Vec<Value> {
        let parsed = self.lines.iter().map(|line| serde_json::from_str(line));
        parsed
            .collect::<Result<_, _>>()
            .unwrap_or_else(|e| panic!("{e}: {:#?}", self.lines))
    }
}

fn command(arguments: &str) -> Command {
    let mut command = Command::new(binary());
    command
        .arg("lab")
        .args(arguments.split_whitespace())
        .env_remove("EMCCD_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A lab that ends by itself, with nothing on its standard input.
async fn once(mut command: Command) -> Ended {
    let output = timeout(PATIENCE, command.output()).await;
    let output = output.expect("the lab did not end").unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    Ended {
        code: output.status.code(),
        lines: stdout.lines().map(str::to_owned).collect(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The names in the table of steps, in its order.
fn documented() -> Vec<String> {
    let page = include_str!("../../docs/lab.md");
    let (_, steps) = page.split_once("### The steps").unwrap();
    let name = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    steps.lines().filter_map(name).collect()
}

/// The names that the page gives for a lab of one cluster.
fn documented_alone() -> Vec<String> {
    let page = include_str!("../../docs/lab.md");
    let (_, list) = page.rsplit_once("A lab of one cluster: ").unwrap();
    let names = list.trim().trim_end_matches('.').split(", ");
    names
        .map(|name| name.trim_matches('`').to_owned())
        .collect()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value
        .as_object()
        .unwrap_or_else(|| panic!("not an object: {value}"))
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

/// The elements of an array that must not be empty, each with exactly `fields`.
fn each<'a>(value: &'a Value, name: &str, fields: &[&str]) -> &'a [Value] {
    let all = value[name]
        .as_array()
        .unwrap_or_else(|| panic!("{name} in {value}"));
    assert!(!all.is_empty(), "{name} is empty in {value}");
    for one in all {
        assert_eq!(keys(one), fields, "{name}");
    }
    all
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} is no text in {value}"))
}

fn is_text_or_null(value: &Value) -> bool {
    value.is_string() || value.is_null()
}

/// `ready` has exactly the fields of the contract, and they are of use.
fn check_ready(ready: &Value, clusters: usize, nodes: usize) {
    assert_eq!(keys(ready), ["clusters", "step"]);
    assert_eq!(ready["step"], "ready");
    let fields = [
        "applications",
        "ca_file",
        "client_identity",
        "cluster_id",
        "devices",
        "nodes",
        "users",
    ];
    let all = each(ready, "clusters", &fields);
    assert_eq!(all.len(), clusters);
    for (index, cluster) in all.iter().enumerate() {
        assert_eq!(
            text(cluster, "cluster_id"),
            cluster_name(index).unwrap().as_str()
        );
        assert!(
            Path::new(text(cluster, "ca_file")).is_absolute(),
            "{cluster}"
        );
        let node_fields = [
            "admin_socket",
            "config",
            "federation",
            "metrics",
            "name",
            "phone",
            "pid",
        ];
        assert_eq!(each(cluster, "nodes", &node_fields).len(), nodes);
        for node in each(cluster, "nodes", &node_fields) {
            node["federation"]
                .as_str()
                .and_then(|at| at.parse::<std::net::SocketAddr>().ok())
                .unwrap_or_else(|| panic!("{node}"));
            assert!(
                text(node, "phone").starts_with("https://127.0.0.1:"),
                "{node}"
            );
            assert!(
                text(node, "metrics").starts_with("http://127.0.0.1:"),
                "{node}"
            );
            assert!(node["pid"].as_u64().is_some_and(|pid| pid > 0), "{node}");
            for file in ["admin_socket", "config"] {
                assert!(Path::new(text(node, file)).is_absolute(), "{node}");
            }
        }
        let identity = &cluster["client_identity"];
        assert_eq!(keys(identity), ["cert_file", "key_file"]);
        for device in each(cluster, "devices", &["em_enabled", "emcc", "model", "name"]) {
            assert!(device["emcc"].is_boolean() && device["em_enabled"].is_boolean());
            assert!(!text(device, "name").is_empty() && !text(device, "model").is_empty());
        }
        let user_fields = [
            "pin",
            "primary_extension",
            "profiles",
            "self_service_id",
            "user_id",
        ];
        for user in each(cluster, "users", &user_fields) {
            assert!(!text(user, "user_id").is_empty() && !text(user, "pin").is_empty());
            assert!(is_text_or_null(&user["self_service_id"]), "{user}");
            assert!(is_text_or_null(&user["primary_extension"]), "{user}");
            assert!(
                user["profiles"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(Value::is_string)
            );
        }
        for application in cluster["applications"].as_array().unwrap() {
            assert_eq!(keys(application), ["app_id", "password"]);
        }
    }
}

/// Each step has exactly the fields of the contract, and went as expected.
fn check_steps(steps: &[Value], expected: &[String]) {
    let names: Vec<_> = steps
        .iter()
        .map(|step| text(step, "step").to_owned())
        .collect();
    assert_eq!(names, expected, "docs/lab.md against what the lab does");
    for step in steps {
        assert_eq!(
            keys(step),
            ["em_code", "ms", "ok", "phone_text", "ref", "step"]
        );
        assert_eq!(step["ok"], true, "{step}");
        assert!(
            step["em_code"].is_null() || step["em_code"].is_u64(),
            "{step}"
        );
        assert!(step["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{step}");
        assert!(!text(step, "phone_text").is_empty(), "{step}");
        if let Some(code) = step["em_code"].as_u64() {
            assert!(
                text(step, "phone_text").contains(&format!("({code})")),
                "{step}"
            );
            let reference = text(step, "ref");
            assert!(
                reference.len() == 9 && reference.as_bytes()[4] == b'-',
                "{step}"
            );
        }
        assert!(is_text_or_null(&step["ref"]), "{step}");
    }
}

/// The codes that the page has in its second column, by name.
fn check_codes(steps: &[Value]) {
    let page = include_str!("../../docs/lab.md");
    for step in steps {
        let begin = format!("| `{}` | ", text(step, "step"));
        let line = page.lines().find(|line| line.starts_with(&begin)).unwrap();
        let codes = line[begin.len()..].split('|').next().unwrap();
        let codes: Vec<u64> = codes
            .split(" or ")
            .filter_map(|c| c.trim().parse().ok())
            .collect();
        match step["em_code"].as_u64() {
            Some(code) => assert!(codes.contains(&code), "{line}: {step}"),
            None => assert!(codes.is_empty(), "{line}: {step}"),
        }
    }
}

async fn shows_everything(arguments: &str) {
    let ended = once(command(arguments)).await;
    assert_eq!(ended.code, Some(0), "{:#?}\n{}", ended.lines, ended.stderr);
    assert_eq!(ended.stderr, "");
    let objects = ended.objects();
    check_ready(&objects[0], 2, 1);
    check_steps(&objects[1..], &documented());
    check_codes(&objects[1..]);
}

#[tokio::test]
async fn once_shows_every_documented_step_and_ends_with_0() {
    shows_everything("--once --json").await;
}

#[tokio::test]
async fn once_does_so_with_processes_too() {
    shows_everything("--once --json --processes").await;
}

#[tokio::test]
async fn a_single_cluster_shows_the_local_steps() {
    let ended = once(command("--once --json --clusters 1")).await;
    assert_eq!(ended.code, Some(0), "{:#?}\n{}", ended.lines, ended.stderr);
    let objects = ended.objects();
    check_ready(&objects[0], 1, 1);
    check_steps(&objects[1..], &documented_alone());
    check_codes(&objects[1..]);
}

/// The output for people, cut at each step: its name, and the lines of it.
fn read_by_people(lines: &[String]) -> Vec<(String, Vec<String>)> {
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    for line in lines {
        match (line.strip_prefix("ok  "), steps.last_mut()) {
            (Some(rest), _) => {
                let name = rest.split_whitespace().next().unwrap();
                steps.push((name.to_owned(), vec![line.clone()]));
            }
            (None, Some((_, lines))) if line.starts_with("   ") => lines.push(line.clone()),
            (None, _) => panic!("{line:?} belongs to no step that went well: {lines:#?}"),
        }
    }
    steps
}

#[tokio::test]
async fn people_read_the_same_with_what_the_clusters_hold() {
    let ended = once(command("--once")).await;
    assert_eq!(
        (ended.code, &*ended.stderr),
        (Some(0), ""),
        "{:#?}",
        ended.lines
    );
    let steps = read_by_people(&ended.lines);
    let names: Vec<_> = steps.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names[0], "ready");
    assert_eq!(names[1..], documented());
    let said = |name: &str| {
        let (_, lines) = steps.iter().find(|(step, _)| step == name).unwrap();
        lines.join("\n")
    };
    for (name, lines) in &steps[1..] {
        assert!(lines[0].contains("phone: \""), "{lines:#?}");
        for cluster in ["berlin", "tokyo"] {
            if (name.as_str(), cluster) == ("peer-down", "berlin") {
                continue;
            }
            let begin = format!("{cluster}: ");
            let held = lines.iter().any(|line| {
                line.trim_start().starts_with(&begin) && line.ends_with(" base devices held")
            });
            assert!(held, "{begin} in {lines:#?}");
        }
    }
    let login = said("uid-login");
    for part in [
        "berlin: active home of ana.berlin on SEP",
        "with tokyo; 1 of 4 base devices held",
        "tokyo: active visiting of ana.berlin on SEP",
        "with berlin; 0 of 4 base devices held",
    ] {
        assert!(login.contains(part), "{part} in {login}");
    }
    for (name, sayings) in [
        (
            "no-common-version",
            &["tokyo says of berlin: ", "berlin says of tokyo: "][..],
        ),
        ("peer-down", &["tokyo says of berlin: "]),
        (
            "peer-untrusted",
            &["tokyo says of berlin: ", "berlin says of tokyo: "],
        ),
    ] {
        let text = said(name);
        for saying in sayings {
            assert!(text.contains(saying), "{saying} in {text}");
        }
    }
    for advice in ["tokyo advises: ", "berlin advises: "] {
        let text = said("peer-untrusted");
        assert!(text.contains(advice), "{advice} in {text}");
    }
}

/// A folder with data for one cluster in which no phone has Extension Mobility off.
fn data_that_surprises(folder: &Path) {
    let built_in = Dataset::built_in(0, &cluster_name(0).unwrap())
        .unwrap()
        .toml;
    let changed = built_in.replace("extension-mobility = false", "extension-mobility = true");
    assert_ne!(changed, built_in);
    std::fs::write(folder.join("berlin.toml"), changed).unwrap();
}

#[tokio::test]
async fn a_step_that_goes_wrong_is_said_and_ends_with_1() {
    let folder = tempfile::tempdir().unwrap();
    data_that_surprises(folder.path());
    for style in ["--json", ""] {
        let mut lab = command(&format!("--once --clusters 1 {style}"));
        lab.arg("--data").arg(folder.path());
        let ended = once(lab).await;
        assert_eq!(ended.code, Some(1), "{:#?}\n{}", ended.lines, ended.stderr);
        assert!(
            ended.stderr.contains("1 step was not as expected"),
            "{}",
            ended.stderr
        );
        if style == "--json" {
            let objects = ended.objects();
            let last = objects.last().unwrap();
            assert_eq!(
                keys(last),
                ["em_code", "ms", "ok", "phone_text", "ref", "step"]
            );
            assert_eq!(
                (&last["step"], &last["ok"]),
                (&"phone-disabled".into(), &false.into())
            );
            assert!(
                last["phone_text"].is_null() && last["em_code"].is_null(),
                "{last}"
            );
            assert!(
                objects[1..objects.len() - 1]
                    .iter()
                    .all(|step| step["ok"] == true)
            );
        } else {
            let output = ended.lines.join("\n");
            assert!(output.contains("FAIL  phone-disabled"), "{output}");
            assert!(
                output.contains("no phone of the data has Extension Mobility off"),
                "{output}"
            );
        }
    }
}

#[tokio::test]
async fn data_that_can_t_be_used_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let berlin = folder.path().join("berlin.toml");
    let lab = || {
        let mut lab = command("--once --clusters 1");
        lab.arg("--data").arg(folder.path());
        lab
    };
    let missing = once(lab()).await;
    assert_eq!(
        (missing.code, missing.lines.len()),
        (Some(1), 0),
        "{}",
        missing.stderr
    );
    assert!(!missing.stderr.contains("EMCCD_LOG"), "{}", missing.stderr);
    for part in [
        "berlin.toml",
        "one file per cluster",
        "No such file",
        "--data",
    ] {
        assert!(
            missing.stderr.contains(part),
            "{part} in {}",
            missing.stderr
        );
    }
    std::fs::write(&berlin, "[[user]]\nid = \"ana\"\nextention = \"1\"\n").unwrap();
    let broken = once(lab()).await;
    assert_eq!(
        (broken.code, broken.lines.len()),
        (Some(1), 0),
        "{}",
        broken.stderr
    );
    assert!(broken.stderr.contains("extention"), "{}", broken.stderr);
    assert!(broken.stderr.contains("berlin.toml"), "{}", broken.stderr);
}

#[tokio::test]
async fn a_number_that_no_lab_can_have_is_a_usage_error() {
    for arguments in [
        "--clusters 0",
        "--nodes 0",
        "--clusters 17",
        "--clusters two",
    ] {
        let ended = once(command(arguments)).await;
        assert_eq!(ended.code, Some(2), "{arguments}: {}", ended.stderr);
        assert!(
            ended.stderr.contains("--help"),
            "{arguments}: {}",
            ended.stderr
        );
    }
}
