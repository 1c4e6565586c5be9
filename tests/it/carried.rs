//! What a visitor's phone is told by home, as the operators of both clusters see it: whose call control it gets by where
//! it stands, and whether it is to restart or to reset, and why.

use emccd::{domain::session::Role, lab::Cluster, wire::admin as pb};
use serde_json::Value;

use crate::{
    people::done,
    support::{lab_of_processes, rows::rows},
};

/// Phones, where each stands and what it speaks, with the pool and what it is to do.
const PHONES: [(&str, &str, &str, bool); 4] = [
    // Nothing of its own: where its device pool is.
    (
        "SEPFLOOR",
        "device-pool = \"floor\"\nlocale = \"ja_JP\"",
        "roam-jp",
        true,
    ),
    // The pool's place by name.
    ("SEPHALL", "device-pool = \"hall\"", "roam-pe", false),
    // Its own place goes before that of its pool.
    (
        "SEPDESK",
        "device-pool = \"floor\"\ngeolocation = { country = \"PE\" }\nlocale = \"DE_de\"",
        "roam-pe",
        false,
    ),
    // Nobody knows where it stands.
    ("SEPLOST", "device-pool = \"cellar\"", "own", false),
];

const HOME: &str = r#"
[[device-pool]]
name = "own"

[[device-pool]]
name = "roam-jp"
roaming = true
geolocation = { country = "JP" }

[[device-pool]]
name = "roam-pe"
roaming = true
geolocation = { country = "PE" }

[[user]]
id = "uwe"
pin = "246809"

[[profile]]
name = "uwe-desk"
user = "uwe"
device-pool = "own"
locale = "de_DE"
"#;

const VISITING: &str = r#"
[[geolocation]]
name = "callao"
fields = { country = "PE", A1 = "Callao" }

[[device-pool]]
name = "floor"
geolocation = { country = "JP" }

[[device-pool]]
name = "hall"
location = "callao"

[[device-pool]]
name = "cellar"
"#;

async fn apply(cluster: &Cluster, content: String) {
    let file = pb::ApplyFile {
        name: "data.toml".to_owned(),
        content,
    };
    let request = pb::ApplyRequest {
        files: vec![file],
        ..pb::ApplyRequest::default()
    };
    cluster.admin().await.unwrap().apply(request).await.unwrap();
}

/// The session on a phone, as the command line of a cluster has it: one object, and the text of `session show`.
async fn shown(cluster: &Cluster, device: &str) -> (Value, String) {
    let line = format!("session list --device {device} --json");
    let listed: Value = serde_json::from_str(&done(cluster, &line, "").await).unwrap();
    let session = listed.as_array().unwrap()[0].clone();
    let id = session["id"].as_str().unwrap();
    (
        session.clone(),
        done(cluster, &format!("session show {id}"), "").await,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visited_phone_gets_the_pool_of_where_it_stands_and_both_sides_see_what_it_is_to_do() {
    let lab = lab_of_processes(2).await;
    let (home, visiting) = (&lab.clusters[0], &lab.clusters[1]);
    apply(home, HOME.to_owned()).await;
    let devices =
        PHONES.map(|(name, more, ..)| format!("\n[[device]]\nname = \"{name}\"\n{more}\n"));
    apply(visiting, VISITING.to_owned() + &devices.concat()).await;
    let browser = visiting.member().unwrap().phone().unwrap();
    for (device, _, pool, reset) in PHONES {
        let told = browser.login_at_once(device, None, "uwe", "246809").await;
        let told = told.unwrap();
        assert_eq!(told.em_code, None, "{device}: {}", told.body);
        for (cluster, role) in [(home, Role::Home), (visiting, Role::Visiting)] {
            let rows = rows(cluster).await;
            let row = rows
                .sessions
                .iter()
                .find(|row| row.device.as_str() == device);
            let row = row.unwrap();
            assert_eq!(row.role, role);
            let given = row.services.as_ref().unwrap().device_pool.as_ref();
            assert_eq!(given.unwrap().as_str(), pool, "{device} at {}", cluster.id);

            let (listed, text) = shown(cluster, device).await;
            assert_eq!(listed["reset"], reset, "{listed}");
            let why = listed["restart_reason"].as_str().unwrap();
            let names_both = why.contains("ja_JP") && why.contains("de_DE");
            assert_eq!(names_both, reset, "{listed}");
            let what = if reset { "reset" } else { "restart" };
            assert!(text.contains(&format!("{what}: {why}")), "{text}");
            let log = std::fs::read_to_string(cluster.member().unwrap().log_file()).unwrap();
            let reference = listed["ref"].as_str().unwrap();
            let is_told = |line: &str| line.contains(reference) && line.contains(why);
            assert!(log.lines().any(is_told), "{reference}: {log}");
        }
        browser.logout(device).await.unwrap();
    }
    lab.shut_down().await;
}
