//! Certificates exchanged by the thousand: written out, put together, looked at before they are brought in, and what
//! becomes of links by that.

use std::{
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
    wire::admin as pb,
};
use serde_json::Value;

use crate::support::{self, binary};

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

    desk.works(Some(here), "trust import new.pem --replace --yes")
        .await;
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

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_are_brought_in_all_at_once_or_not_at_all() {
    let hosting = Hosting::Processes { binary: binary() };
    let mut lab = Lab::start(&Spec {
        clusters: 1,
        hosting,
        ..Spec::default()
    })
    .await
    .unwrap();
    add_record(&lab.clusters[0], "lima").await;
    let desk = Desk::new();
    desk.write("many.pem", &many(10_000, "lima"));
    let import = "trust import many.pem --yes";

    // Killed at any moment, the node has none of them or all.
    for after_ms in [300, 900, 1_800] {
        let mut importing = desk.command(Some(&lab.clusters[0]), import);
        let mut importing = importing
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        let member = lab.clusters[0].member_mut().unwrap();
        member.kill().await.unwrap();
        importing.wait().unwrap();
        member.start(&Versions::default()).await.unwrap();
        let found = trusted(&lab.clusters[0]).await.len();
        assert!(
            matches!(found, 0 | 10_000),
            "killed after {after_ms} ms: {found}"
        );
    }

    let here = &lab.clusters[0];
    let began = Instant::now();
    desk.works(Some(here), import).await;
    let took = began.elapsed();
    println!("10,000 certificates were imported in {took:?}");
    // A build that is not optimised, on a machine that may have much else to do.
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert_eq!(trusted(here).await.len(), 10_000);
    let began = Instant::now();
    let again = desk.works(Some(here), &format!("{import} --dry-run")).await;
    println!("compared again in {:?}", began.elapsed());
    assert!(again.contains("10000"), "{again}");
    lab.shut_down().await;
}
