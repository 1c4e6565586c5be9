//! What an operator types about rotations, and what has to be true of a federation when one is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use emccd::{
    domain::ids::ClusterId,
    lab::{Cluster, Lab, member::Member},
    wire::admin::{self as pb, admin_service_client::AdminServiceClient},
};
use serde_json::Value;
use tonic::transport::Channel;

use crate::support::{self, binary, set_parameter};

/// For a state to come about on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Types a command at a node; what it prints as JSON, or what it says where it refuses.
pub(crate) async fn type_at(member: &Member, line: &str) -> Result<Value, String> {
    let output = tokio::process::Command::new(binary())
        .arg("--socket")
        .arg(&member.addresses.admin)
        .arg("--json")
        .args(line.split(' '))
        .env_remove("EMCCD_SOCKET")
        .env_remove("EMCCD_CONFIG")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Waits until `look` finds what is wanted.
pub(super) async fn until<T>(what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    support::until(PATIENCE, what, look).await
}

/// The fingerprint of what a node shows to peers.
pub(crate) async fn shown(member: &Member) -> String {
    let request = pb::ListIdentitiesRequest {};
    let listed = member.admin().await.unwrap().identities(request).await;
    let listed = listed.unwrap().identities;
    let found = listed
        .iter()
        .find(|identity| identity.purpose == "federation");
    let certificate = found.and_then(|identity| identity.certificate.as_ref());
    certificate.unwrap().fingerprint.clone()
}

/// The fingerprints that `us` accepts from `them`, one by one.
pub(super) async fn accepted(us: &Cluster, them: &Cluster) -> BTreeSet<String> {
    let request = pb::ListTrustRequest::default();
    let listed = us.admin().await.unwrap().trust(request).await.unwrap();
    let pinned = listed
        .entries
        .into_iter()
        .filter(|e| e.cluster_id == them.id.as_str() && e.kind == "pinned");
    pinned
        .map(|entry| entry.certificate.unwrap().fingerprint)
        .collect()
}

/// Waits until `us` accepts from `them` what its nodes show and `beside`, and nothing else.
pub(super) async fn until_agreed(us: &Cluster, them: &Cluster, beside: &BTreeSet<String>) {
    let what = format!("{} accepts what {} shows", us.id, them.id);
    until(&what, async || {
        let mut wanted = beside.clone();
        for member in &them.members {
            wanted.insert(shown(member).await);
        }
        let accepted = accepted(us, them).await;
        if accepted == wanted {
            Ok(())
        } else {
            Err(format!("accepted {accepted:#?}, shown {wanted:#?}"))
        }
    })
    .await;
}

/// Every link of every node is up, both ways.
pub(super) async fn until_linked(lab: &Lab) {
    for us in &lab.clusters {
        for them in lab.clusters.iter().filter(|them| them.id != us.id) {
            us.wait_linked(&them.id).await.unwrap();
            us.wait_all_up(&them.id).await.unwrap();
        }
    }
}

/// The database of a node's cluster, to look into beside its nodes.
fn database(member: &Member) -> rusqlite::Connection {
    let database = rusqlite::Connection::open(member.folder.join("../emccd.db")).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    database
}

/// How far the rotation of the node's federation identity is; none when there is nothing on record.
pub(super) fn phase(member: &Member) -> Option<String> {
    use rusqlite::OptionalExtension as _;
    database(member)
        .query_row(
            "SELECT phase FROM rotations WHERE node = ?1 AND purpose = 'federation'",
            [&member.name],
            |row| row.get(0),
        )
        .optional()
        .unwrap()
}

/// What became of the last act of that kind, by the audit.
pub(super) fn last_in_audit(member: &Member, action: &str) -> String {
    database(member)
        .query_row(
            "SELECT outcome FROM audit WHERE action = ?1 ORDER BY seq DESC LIMIT 1",
            [action],
            |row| row.get(0),
        )
        .unwrap()
}

/// That nothing of any rotation is on record in the cluster.
pub(super) fn nothing_on_record(member: &Member) -> Result<(), String> {
    let database = database(member);
    let mut rows = database
        .prepare("SELECT node || ' ' || phase || ' ' || ifnull(problem, '') FROM rotations")
        .unwrap();
    let rows = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let rows: Vec<_> = rows.map(Result::unwrap).collect();
    if rows.is_empty() {
        Ok(())
    } else {
        Err(format!("{rows:?}"))
    }
}

/// That nothing stands in the way of the old certificate's end.
pub(super) async fn may_retire(member: &Member) -> Result<(), String> {
    let request = pb::ListRotationsRequest {};
    let listed = desk(member).await?.list_rotations(request).await.unwrap();
    let found = listed.into_inner().rotations;
    match found.iter().find(|rotation| rotation.node == member.name) {
        Some(rotation) if rotation.phase == "active" && rotation.blockers.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// Under which number a cluster was told last by another one.
pub(super) fn sequence_at(member: &Member, from: &ClusterId) -> i64 {
    database(member)
        .query_row(
            "SELECT ifnull(max(sequence), 0) FROM announced_identities WHERE cluster_id = ?1",
            [from.as_str()],
            |row| row.get(0),
        )
        .unwrap()
}

/// How many rows each table has, but for what only grows on purpose: the audit.
pub(super) fn rows_by_table(member: &Member) -> BTreeMap<String, i64> {
    let database = database(member);
    let mut names = database
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        .unwrap();
    let names = names.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let names: Vec<_> = names.map(Result::unwrap).collect();
    let count = |name: &String| {
        let sql = format!("SELECT count(*) FROM \"{name}\"");
        database.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    names
        .iter()
        .filter(|name| !name.starts_with("audit"))
        .map(|name| (name.clone(), count(name)))
        .collect()
}

/// That `db verify` finds a database whole.
pub(super) async fn verify(file: &Path) {
    let output = tokio::process::Command::new(binary())
        .args(["db", "verify"])
        .arg(file)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Has connections that rest on a certificate from before end at once.
pub(super) async fn hurry(lab: &Lab) {
    for cluster in &lab.clusters {
        set_parameter(cluster, "certificate-drain-time", "0").await;
    }
}

/// All calls of the admin service.
async fn desk(member: &Member) -> Result<AdminServiceClient<Channel>, String> {
    let connected = emccd::wire::unix::connect(&member.addresses.admin).await;
    connected
        .map(AdminServiceClient::new)
        .map_err(|error| error.to_string())
}

/// A step with the rotation of that node's federation identity.
fn step(member: &Member, step: &str) -> pb::StepRotationRequest {
    pb::StepRotationRequest {
        step: step.to_owned(),
        nodes: vec![member.name.clone()],
        purpose: "federation".to_owned(),
        ..pb::StepRotationRequest::default()
    }
}

/// Takes it, or gives what is said against it.
async fn take(member: &Member, step: pb::StepRotationRequest) -> Result<(), String> {
    let taken = desk(member).await?.step_rotation(step).await;
    taken
        .map(drop)
        .map_err(|status| status.message().to_owned())
}

/// How the next certificate comes about.
#[derive(Clone, Debug, Default)]
pub(super) struct How {
    /// The kind of key that is made.
    pub(super) key: Option<&'static str>,
    /// Where a certificate and its key are already.
    pub(super) files: Option<[PathBuf; 2]>,
}

/// Has a new certificate made and told, if the node lives long enough.
pub(super) async fn try_announce(member: &Member) -> Result<(), String> {
    take(member, step(member, "announce")).await
}

/// Has a new certificate made and told, and waits until it is made.
pub(super) async fn announce(member: &Member) {
    try_announce(member).await.unwrap();
    until("the new certificate is made", async || {
        match phase(member).as_deref() {
            Some("announced") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Has a new certificate made that goes all the way by itself.
pub(super) async fn announce_automatic(member: &Member, how: &How) {
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let files = how.files.as_ref();
    let announced = pb::StepRotationRequest {
        automatic: true,
        key: how.key.map(str::to_owned),
        may_lack_issuers: true,
        certificate_file: files.map(|[certificate, _]| text(certificate)),
        key_file: files.map(|[_, key]| text(key)),
        ..step(member, "announce")
    };
    take(member, announced).await.unwrap();
}

/// A whole rotation, as fast as it goes.
pub(super) async fn rotate(member: &Member) {
    announce_automatic(member, &How::default()).await;
    until("the rotation is over", async || nothing_on_record(member)).await;
}

/// Which peers a command names, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named<'a> {
    Nobody,
    /// Not waited for.
    Overridden(&'a str),
    /// It has the certificate by other ways.
    Confirmed(&'a str),
}

/// Has the new certificate shown.
pub(super) async fn activate(member: &Member, named: Named<'_>) -> Result<(), String> {
    let mut activated = step(member, "activate");
    match named {
        Named::Nobody => {}
        Named::Overridden(peer) => activated.overridden.push(peer.to_owned()),
        Named::Confirmed(peer) => activated.confirmed.push(peer.to_owned()),
    }
    take(member, activated).await
}

/// Says that a peer has it by other ways.
pub(super) async fn confirm(member: &Member, peer: &str) -> Result<(), String> {
    let mut confirmed = step(member, "confirm");
    confirmed.confirmed.push(peer.to_owned());
    take(member, confirmed).await
}

/// Has the old one go.
pub(super) async fn retire(member: &Member) -> Result<(), String> {
    take(member, step(member, "retire")).await
}

/// Takes it back.
pub(super) async fn roll_back(member: &Member) -> Result<(), String> {
    take(member, step(member, "rollback")).await
}

/// The new certificate of a node, in PEM, for peers that can't be told.
pub(super) fn next_certificate(member: &Member) -> String {
    let new: String = database(member)
        .query_row(
            "SELECT lower(hex(new_certificate)) FROM rotations
             WHERE node = ?1 AND purpose = 'federation'",
            [&member.name],
            |row| row.get(0),
        )
        .unwrap();
    let folder = member.folder.join("identities");
    std::fs::read_to_string(folder.join(format!("federation-{new}.pem"))).unwrap()
}

/// What lies in the folder of a node but is not the certificate that it shows, and its key.
pub(super) async fn left_over(member: &Member) -> Vec<String> {
    let own = shown(member).await.replace(':', "").to_lowercase();
    match std::fs::read_dir(member.folder.join("identities")) {
        Err(_) => Vec::new(),
        Ok(files) => files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.contains(&own))
            .collect(),
    }
}

/// That a node sees no difference between what it shows and what its peers accept, and nothing waits there.
pub(super) async fn no_difference(member: &Member) -> Result<(), String> {
    let status = type_at(member, "cluster status").await?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for peer in list(&status["peers"]) {
        let is_right = list(&peer["our_certificates"])
            .iter()
            .all(|ours| ours["standing"] == "accepted" && ours["note"].is_null())
            && list(&peer["accepts_otherwise"]).is_empty()
            && list(&peer["accepted"])
                .iter()
                .all(|accepted| accepted["kind"] != "waiting");
        if !is_right {
            return Err(peer.to_string());
        }
    }
    Ok(())
}
