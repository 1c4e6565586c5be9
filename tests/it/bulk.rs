//! Certificates exchanged by the thousand: written out, put together, looked at before they are brought in, and what
//! becomes of links by that.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use emccd::{
    clock::Clock,
    lab::{Cluster, Hosting, Lab, Spec, member::Versions},
    trust::{
        certificate::Certificate,
        formats::{self, Entry, Format},
        make::{self, CertRequest, KeyKind},
    },
    wire::admin::{self as pb, admin_service_client::AdminServiceClient},
};
use serde_json::Value;

use crate::support::{self, binary};

/// For a node to come to a point on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The program, used by an operator of one cluster, in a folder with a password file.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), "geheim-123\n").unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, at: Option<&Cluster>, words: &str) -> Command {
        let mut command = Command::new(binary());
        command
            .args(words.split(' '))
            .current_dir(self.folder.path());
        command
            .env_remove("EMCCD_STORE_PASSWORD")
            .stdin(Stdio::null());
        if let Some(cluster) = at {
            command.arg("--socket").arg(socket(cluster));
        }
        command
    }

    /// What it prints, and whether it was content.
    async fn type_in(&self, at: Option<&Cluster>, words: &str) -> (bool, String) {
        let mut command = self.command(at, words);
        let run = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = run.await.unwrap();
        let both = [&*output.stdout, &*output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&both).into_owned(),
        )
    }

    async fn works(&self, at: Option<&Cluster>, words: &str) -> String {
        let (is_good, text) = self.type_in(at, words).await;
        assert!(is_good, "{words}: {text}");
        text
    }

    async fn json(&self, at: &Cluster, words: &str) -> Value {
        let text = self.works(Some(at), &format!("{words} --json")).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words}: {error} in {text}"))
    }

    fn write(&self, name: &str, entries: &[Entry]) {
        let written = formats::write(Format::Pem, entries, None).unwrap();
        std::fs::write(self.path(name), written).unwrap();
    }
}

fn socket(cluster: &Cluster) -> PathBuf {
    cluster.member().unwrap().addresses.admin.clone()
}

fn entry(alias: &str, name: &str) -> Entry {
    let names = vec![name.to_owned()];
    let request = CertRequest::new(name, names, KeyKind::P256, Clock::system().now(), 30);
    let made = make::self_signed(&request).unwrap();
    let certificate = Certificate::from_der(&made.certificate_der).unwrap();
    Entry::trusted(Some(alias.to_owned()), certificate)
}

async fn trusted(cluster: &Cluster) -> Vec<pb::TrustEntry> {
    let mut admin = cluster.admin().await.unwrap();
    let mut entries = admin
        .trust(pb::ListTrustRequest::default())
        .await
        .unwrap()
        .entries;
    entries.retain(|entry| entry.kind != "revoked");
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_put_together_and_compared_without_a_daemon() {
    let desk = Desk::new();
    let (one, two) = (
        entry("berlin/pinned/b1", "b1.example"),
        entry("two", "t1.example"),
    );
    desk.write("one.pem", std::slice::from_ref(&one));
    desk.write("both.pem", &[two.clone(), one.clone()]);
    // The same without a word of whose it is, and in lower case as Java has it.
    let nobodys = Entry::trusted(None, one.chain[0].clone());
    desk.write("nobodys.pem", &[nobodys]);
    let put = "trust consolidate nobodys.pem one.pem both.pem one.pem";
    let told = desk
        .works(
            None,
            &format!("{put} --out all.jks --out-password-file password"),
        )
        .await;
    assert!(
        told.contains("wrote all.jks: 2 certificates in JKS"),
        "{told}"
    );
    desk.works(None, &format!("{put} --out a.pem")).await;
    desk.works(None, "trust consolidate both.pem nobodys.pem --out b.pem")
        .await;
    let read = |name: &str| std::fs::read(desk.path(name)).unwrap();
    assert_eq!(
        read("a.pem"),
        read("b.pem"),
        "the same certificates make the same file"
    );
    let same = desk
        .works(None, "trust diff a.pem all.jks --password-file password")
        .await;
    assert!(
        same.contains("no difference") && same.contains("2 certificates"),
        "{same}"
    );

    let (is_same, text) = desk.type_in(None, "trust diff one.pem a.pem").await;
    let fingerprint = two.chain[0].fingerprint_text();
    assert!(
        !is_same && text.contains("in both: 1") && text.contains(&fingerprint),
        "{text}"
    );
    for (words, told) in [
        ("trust consolidate one.pem --out a.pem", "File exists"),
        ("trust consolidate one.pem --out new.p12", "--password-file"),
        ("trust consolidate all.jks --out new.pem", "--password-file"),
        (
            "trust consolidate both.pem --out new.der",
            "more than one certificate",
        ),
        ("trust consolidate none.pem --out new.pem", "No such file"),
    ] {
        let (is_good, text) = desk.type_in(None, words).await;
        assert!(!is_good && text.contains(told), "{words}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_tells_before_it_does_what_becomes_of_links() {
    let lab = support::lab(2).await;
    let (here, there) = (&lab.clusters[0], &lab.clusters[1]);
    here.wait_all_up(&there.id).await.unwrap();
    let desk = Desk::new();
    let (us, them) = (here.id.to_string(), there.id.to_string());
    desk.works(Some(here), "trust export --own --out us.pem")
        .await;
    desk.works(
        Some(there),
        "trust export --own --out them.jks --password-file password",
    )
    .await;
    desk.works(
        None,
        "trust consolidate us.pem them.jks --out all.p12 --password-file password",
    )
    .await;

    // What everybody has already.
    let import = "trust import all.p12 --password-file password --dry-run";
    let dry = desk.json(here, import).await;
    let peer = &dry["peers"][0];
    assert_eq!(
        (&peer["cluster_id"], &peer["kept"]),
        (&Value::from(&*them), &Value::from(1))
    );
    assert_eq!(peer["added"], Value::Array(vec![]));
    assert_eq!(dry["passed_over"][0]["cluster_id"], Value::from(&*us));
    assert_eq!(dry["passed_over"][0]["is_own"], true);
    let text = desk.works(Some(here), import).await;
    let passed = format!("passed over: 1 certificate of {us}, which is this cluster itself");
    assert!(text.contains(&passed), "{text}");
    let link = &peer["connections"][0];
    assert_eq!(link["fate"], "goes-on", "{dry}");
    assert_eq!(link["until"], peer["good_until"], "{dry}");

    // Another one in its place would end the link: it is told, it is asked, and nothing happens by itself.
    desk.write(
        "new.pem",
        &[entry(&format!("{them}/pinned/new"), "new.example")],
    );
    let before = trusted(here).await;
    let text = desk
        .works(Some(here), "trust import new.pem --replace --dry-run")
        .await;
    for word in [
        "ends at once",
        "the link to",
        "nothing was changed",
        "replaced, of",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let (is_done, text) = desk
        .type_in(Some(here), "trust import new.pem --replace")
        .await;
    assert!(!is_done && text.contains("--yes"), "{text}");
    assert_eq!(trusted(here).await, before);
    // Beside the old one it does no harm, and needs no question.
    let text = desk.works(Some(here), "trust import new.pem").await;
    assert!(text.contains("goes on, until"), "{text}");
    assert_eq!(trusted(here).await.len(), 2);
    here.wait_all_up(&there.id).await.unwrap();

    // What a link rests on is not removed by a slip; what nothing rests on is.
    let old = before[0].certificate.as_ref().unwrap().fingerprint.clone();
    let all = trusted(here).await;
    let new = all.iter().find(|entry| **entry != before[0]).unwrap();
    assert_eq!((&*new.source, &*new.alias), ("imported", "new"));
    let new = new.certificate.as_ref().unwrap().fingerprint.clone();
    let remove =
        |fingerprint: &str| format!("trust remove {them} --fingerprint {fingerprint} --yes");
    let (is_done, text) = desk.type_in(Some(here), &remove(&old)).await;
    assert!(
        !is_done && text.contains("in use by") && text.contains("--mode unlink"),
        "{text}"
    );
    desk.works(Some(here), &remove(&new)).await;
    let (is_done, text) = desk.type_in(Some(here), &remove(&old)).await;
    assert!(!is_done && text.contains("no other entry"), "{text}");

    // What was taken back does not come back in passing.
    let import = "trust import new.pem --replace --yes";
    let (is_done, text) = desk.type_in(Some(here), import).await;
    assert!(!is_done && text.contains("was revoked for"), "{text}");
    let unrevoke = format!("trust add {them} --unrevoke {new}");
    assert!(text.contains(&unrevoke), "{text}");
    desk.works(Some(here), &unrevoke).await;
    desk.works(Some(here), import).await;
    let state = |peer: &pb::PeerStatus| peer.outbound.clone().unwrap_or_default().state;
    here.wait_status(&there.id, "cut", |peer| state(peer) != "up")
        .await
        .unwrap();
    let back = desk
        .works(Some(here), "trust import them.jks --password-file password")
        .await;
    assert!(back.contains(&old), "{back}");
    here.wait_all_up(&there.id).await.unwrap();
    let audit = desk
        .works(Some(here), "audit list --action trust.add")
        .await;
    assert!(
        audit.contains("imported: 1 added, 0 kept, 1 replaced"),
        "{audit}"
    );

    for (words, told) in [
        ("trust import us.pem --dry-run", "none of them is of a peer"),
        (
            "trust import us.pem --cluster lima",
            "none of its certificates is of lima",
        ),
        ("trust import password", "no certificate"),
    ] {
        let (is_good, text) = desk.type_in(Some(here), words).await;
        assert!(!is_good && text.contains(told), "{words}: {text}");
    }
    lab.shut_down().await;
}

/// So many certificates of one key, each with a name of its own, in a PEM file of this cluster.
fn many(count: usize, cluster: &str) -> Vec<Entry> {
    let key = rcgen::KeyPair::generate().unwrap();
    let one = |number: usize| {
        let name = format!("n{number}.{cluster}.example");
        let mut params = rcgen::CertificateParams::new(vec![name.clone()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, &*name);
        let certificate = params.self_signed(&key).unwrap();
        let certificate = Certificate::from_der(certificate.der()).unwrap();
        Entry::trusted(Some(format!("{cluster}/pinned/{name}")), certificate)
    };
    (0..count).map(one).collect()
}

async fn add_record(cluster: &Cluster, id: &str) {
    let mut admin = cluster.admin().await.unwrap();
    let record = pb::Cluster {
        cluster_id: id.to_owned(),
        addresses: vec!["192.0.2.1:8444".to_owned()],
        ..pb::Cluster::default()
    };
    let request = pb::AddClusterRequest {
        cluster: Some(record),
        trust: None,
    };
    admin.add_cluster(request).await.unwrap();
}

/// A node of one cluster, in a process of its own, with a record of lima.
async fn one_process() -> Lab {
    let hosting = Hosting::Processes { binary: binary() };
    let lab = Lab::start(&Spec {
        clusters: 1,
        hosting,
        ..Spec::default()
    })
    .await
    .unwrap();
    add_record(&lab.clusters[0], "lima").await;
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_point_of_an_import_leaves_all_of_it_or_nothing() {
    let mut lab = one_process().await;
    let desk = Desk::new();
    let old = entry("lima/pinned/old", "old.lima.example");
    desk.write("old.pem", std::slice::from_ref(&old));
    let new = many(600, "lima");
    desk.write("new.pem", &new);
    let names = |entries: &[Entry]| -> BTreeSet<String> {
        let all = entries.iter().map(|entry| &entry.chain[0]);
        all.map(Certificate::fingerprint_text).collect()
    };
    desk.works(Some(&lab.clusters[0]), "trust import old.pem")
        .await;
    for (point, is_done) in [
        ("trust-import.asked", false),
        ("trust-import.replaced", false),
        ("trust-import.some-written", false),
        ("trust-import.written", false),
        ("trust-import.committed", true),
    ] {
        let member = lab.clusters[0].member_mut().unwrap();
        member.stop().await;
        member.start(&Versions::stopping_at(point)).await.unwrap();
        let import = "trust import new.pem --replace --yes";
        let mut importing = desk.command(Some(&lab.clusters[0]), import);
        let mut importing = importing
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let member = lab.clusters[0].member_mut().unwrap();
        member.wait_stopped_at(point, LIMIT).await.unwrap();
        member.kill().await.unwrap();
        let ended = tokio::task::spawn_blocking(move || importing.wait().unwrap());
        assert!(!ended.await.unwrap().success(), "{point}");
        member.start(&Versions::default()).await.unwrap();
        let found = trusted(&lab.clusters[0]).await;
        let found: BTreeSet<String> = found
            .into_iter()
            .map(|entry| entry.certificate.unwrap().fingerprint)
            .collect();
        let wanted = if is_done {
            &new[..]
        } else {
            std::slice::from_ref(&old)
        };
        assert!(found == names(wanted), "{point}: {} are there", found.len());
        // Whole means that the audit says so, too.
        let audit = desk
            .works(Some(&lab.clusters[0]), "audit list --action trust.add")
            .await;
        assert_eq!(audit.contains("600 added"), is_done, "{point}: {audit}");
    }
    let verified = desk.works(Some(&lab.clusters[0]), "audit verify").await;
    assert!(!verified.contains("fault"), "{verified}");
    lab.shut_down().await;
}

/// How far an import tells to be, message by message, and what it did at last.
async fn followed(cluster: &Cluster, entries: &[Entry]) -> (Vec<(u64, u64)>, usize) {
    let certificate = |entry: &Entry| pb::BulkCertificate {
        cluster_id: "lima".to_owned(),
        kind: "pinned".to_owned(),
        alias: String::new(),
        der: entry.chain[0].der().to_vec(),
    };
    let pieces: Vec<_> = entries
        .chunks(500)
        .map(|some| pb::ImportTrustRequest {
            certificates: some.iter().map(certificate).collect(),
            ..pb::ImportTrustRequest::default()
        })
        .collect();
    let channel = emccd::wire::unix::connect(&socket(cluster)).await.unwrap();
    let mut client = AdminServiceClient::new(channel);
    let told = client.import_trust(tokio_stream::iter(pieces)).await;
    let mut told = told.unwrap().into_inner();
    let (mut progress, mut added) = (Vec::new(), 0);
    while let Some(message) = told.message().await.unwrap() {
        progress.extend(message.progress.map(|at| (at.done, at.of)));
        let peers = message.imported.into_iter().flat_map(|done| done.peers);
        added += peers.map(|peer| peer.added.len()).sum::<usize>();
    }
    (progress, added)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_are_brought_in_at_once_and_tell_how_far_they_are() {
    let lab = one_process().await;
    let here = &lab.clusters[0];
    let all = many(10_000, "lima");
    let began = Instant::now();
    let (progress, added) = followed(here, &all).await;
    println!("10,000 certificates were imported in {:?}", began.elapsed());
    assert_eq!(added, 10_000);
    // It is told before anything is in, and never goes back.
    assert!(!progress.is_empty(), "nothing was told");
    assert!(progress.is_sorted(), "{progress:?}");
    assert!(
        progress
            .iter()
            .all(|(done, of)| done <= of && *of == 10_000)
    );
    assert_eq!(trusted(here).await.len(), 10_000);

    // Once more changes nothing, and is shown to people who watch.
    let desk = Desk::new();
    desk.write("many.pem", &all);
    let again = desk.json(here, "trust import many.pem --dry-run").await;
    assert_eq!(again["peers"][0]["kept"], Value::from(10_000), "{again}");
    assert_eq!(again["peers"][0]["added"], Value::Array(vec![]));
    lab.shut_down().await;
}
