//! A disk that is full, one that has turned read-only, and a database that another program has locked, under daemons
//! that serve: the phone says 6, the log, `emccd doctor` and `/readyz` say what and what to do, nothing is damaged, and
//! all is well again when the cause is gone.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use emccd::lab::{Cluster, Hosting, Lab, Spec, member::Versions, phone::Shown};
use serde_json::Value;

use crate::{
    doctor::{doctor, of},
    metrics::ask,
    support::{
        binary, holds, log_in_at, log_out,
        rows::{rows, settled},
        until,
    },
};

const HOME: usize = 0;
const VISITING: usize = 1;

/// Who tries in vain, and who is on the phone meanwhile.
const USER: usize = 0;
const OLD: usize = 2;

/// How soon a daemon is well again: it looks every two seconds, and a debug build on a busy machine is slow.
const SOON: Duration = Duration::from_secs(20);

/// Enough for the daemon, and more than `doctor` wants to be free.
const DISK: &str = "size=96m";

/// What is in the way, and how it is put there.
trait Trouble {
    /// From now on it is.
    fn begin(&mut self, cluster: &Cluster);
    /// And now no longer.
    fn end(&mut self, cluster: &Cluster);
}

fn database(cluster: &Cluster) -> PathBuf {
    let folder = cluster.member().unwrap().folder.clone();
    folder.parent().unwrap().join("emccd.db")
}

/// A file system of its own for a cluster's database, under the same path. The node's folder with its log stays where it
/// was. It is gone when dropped, whatever is still open in it.
struct Tmpfs {
    folder: PathBuf,
}

impl Tmpfs {
    /// Nothing where this process may not mount.
    fn under(cluster: &Cluster) -> Option<Self> {
        let folder = database(cluster).parent().unwrap().to_owned();
        let away = folder.with_extension("away");
        let node = cluster.member().unwrap().folder.clone();
        std::fs::rename(&folder, &away).unwrap();
        std::fs::create_dir(&folder).unwrap();
        if !run(
            "mount",
            &["-t", "tmpfs", "-o", DISK, "tmpfs", text(&folder)],
        ) {
            std::fs::remove_dir(&folder).unwrap();
            std::fs::rename(&away, &folder).unwrap();
            return None;
        }
        let mounted = Self { folder };
        for entry in std::fs::read_dir(&away).unwrap() {
            let entry = entry.unwrap();
            let there = mounted.folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                std::fs::create_dir(&there).unwrap();
            } else {
                std::fs::copy(entry.path(), &there).unwrap();
            }
        }
        let kept = away.join(node.file_name().unwrap());
        assert!(run("mount", &["--bind", text(&kept), text(&node)]));
        Some(mounted)
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Both of them, whether or not somebody still has a file open there.
        let below = std::fs::read_dir(&self.folder).into_iter().flatten();
        for entry in below.flatten().filter(|e| e.path().is_dir()) {
            run("umount", &["-l", text(&entry.path())]);
        }
        run("umount", &["-l", text(&self.folder)]);
    }
}

impl Trouble for Tmpfs {
    fn begin(&mut self, _: &Cluster) {
        let mut file = std::fs::File::create(self.filler()).unwrap();
        let block = vec![1; 1 << 16];
        let full = loop {
            if let Err(error) = std::io::Write::write_all(&mut file, &block) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn end(&mut self, _: &Cluster) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

/// What the disk says to whoever writes to the database, in daemons that go by `tests/tools/disk.c`.
struct Says(nix::errno::Errno);

impl Trouble for Says {
    fn begin(&mut self, cluster: &Cluster) {
        let says = (self.0 as i32).to_string();
        let (there, new) = (flag(cluster), flag(cluster).with_extension("new"));
        std::fs::write(&new, says).unwrap();
        std::fs::rename(new, there).unwrap();
    }

    fn end(&mut self, cluster: &Cluster) {
        std::fs::remove_file(flag(cluster)).unwrap();
    }
}

fn flag(cluster: &Cluster) -> PathBuf {
    database(cluster).with_file_name("disk-says")
}

/// Another program's transaction.
#[derive(Default)]
struct Locked(Option<rusqlite::Connection>);

impl Trouble for Locked {
    fn begin(&mut self, cluster: &Cluster) {
        let other = rusqlite::Connection::open(database(cluster)).unwrap();
        other.busy_timeout(Duration::from_secs(10)).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        self.0 = Some(other);
    }

    fn end(&mut self, _: &Cluster) {
        let other = self.0.take().unwrap();
        other.execute_batch("ROLLBACK").unwrap();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[expect(
    clippy::print_stderr,
    reason = "why a tool failed is for whoever reads the test's output"
)]
fn run(program: &str, args: &[&str]) -> bool {
    let output = Command::new(program).args(args).output().unwrap();
    if !output.status.success() {
        eprintln!(
            "{program} {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    output.status.success()
}

/// Two paired clusters, each a process, somebody on a phone of each; with what the disk says in the daemons' own hands
/// where `shimmed` has the folder for it.
async fn scene(shimmed: Option<&Path>) -> Lab {
    let binary = shimmed.map_or_else(binary, shim);
    let lab = Lab::start(&Spec {
        hosting: Hosting::Processes { binary },
        ..Spec::default()
    })
    .await
    .unwrap();
    let (home, visiting) = (&lab.clusters[HOME], &lab.clusters[VISITING]);
    must(&log_in_at(home, OLD, visiting, OLD).await);
    lab
}

/// A program that starts the daemon with the disk of `tests/tools/disk.c`.
fn shim(folder: &Path) -> PathBuf {
    let (library, program) = (folder.join("disk.so"), folder.join("emccd"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/disk.c");
    let built = [
        "-shared",
        "-fPIC",
        "-O1",
        "-o",
        text(&library),
        source,
        "-ldl",
    ];
    assert!(run("cc", &built), "a C compiler makes the disk");
    let script = format!(
        "#!/bin/sh\nLD_PRELOAD='{}' exec '{}' \"$@\"\n",
        library.display(),
        binary().display()
    );
    std::fs::write(&program, script).unwrap();
    assert!(run("chmod", &["755", text(&program)]));
    program
}

fn must(shown: &Shown) {
    assert_eq!(shown.em_code, None, "{}", shown.text);
}

/// A clear text, and a ref to find it in the log by.
fn is_6(shown: &Shown) {
    assert_eq!(shown.em_code, Some(6), "{}", shown.text);
    assert!(shown.reference.is_some(), "{}", shown.text);
    assert!(shown.text.contains("unavailable(6)"), "{}", shown.text);
}

/// Waits until the daemon says that it can serve, or can't; gives what it says.
async fn until_ready(cluster: &Cluster, ready: bool) -> String {
    until(SOON, format_args!("ready: {ready}"), async || {
        let (status, body) = ask(cluster.member().unwrap(), "/readyz").await;
        holds((status == 200) == ready, (status, &body)).map(|()| body)
    })
    .await
}

/// The engine finds the file whole, and so does `emccd` the audit.
async fn is_whole(cluster: &Cluster) {
    let file = database(cluster);
    let look = move || {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let database = rusqlite::Connection::open_with_flags(file, flags).unwrap();
        database.busy_timeout(Duration::from_secs(10)).unwrap();
        let sql = "PRAGMA integrity_check";
        let found = database.query_row(sql, [], |row| row.get::<_, String>(0));
        found.unwrap()
    };
    assert_eq!(tokio::task::spawn_blocking(look).await.unwrap(), "ok");
    let socket = &cluster.member().unwrap().addresses.admin;
    let output = tokio::process::Command::new(binary())
        .arg("--socket")
        .arg(socket)
        .args(["audit", "verify"])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    rows(cluster).await.hold_invariants();
}

/// What the trouble is to look like.
struct Looks {
    /// In the log, in `/readyz` and in what `doctor` finds about it.
    cause: &'static str,
    advice: &'static str,
    /// What else `doctor` finds wrong.
    finding: Option<&'static str>,
}

/// The cluster's database is in trouble, and well again afterwards.
async fn goes_through(lab: &Lab, victim: usize, trouble: &mut dyn Trouble, looks: &Looks) {
    let (home, visiting) = (&lab.clusters[HOME], &lab.clusters[VISITING]);
    let cluster = &lab.clusters[victim];
    let member = cluster.member().unwrap();
    trouble.begin(cluster);

    is_6(&log_in_at(home, USER, visiting, USER).await);
    let said = until_ready(cluster, false).await;
    assert!(
        said.contains(looks.cause) && said.contains(looks.advice),
        "{said}"
    );
    let (code, found) = doctor(&member.config).await;
    assert_eq!(code, 1, "{found:#}");
    let is_told = |found: &Value, id: &str| {
        let of = of(found, id);
        let told = of.iter().find(|f| f["level"] == "error");
        let told = told.unwrap_or_else(|| panic!("{id}: {found:#}"));
        assert!(
            told["hint"].as_str().is_some_and(|h| !h.is_empty()),
            "{told:#}"
        );
        told["text"].to_string()
    };
    assert!(is_told(&found, "ready").contains(looks.cause), "{found:#}");
    if let Some(id) = looks.finding {
        is_told(&found, id);
    }
    // Who is on a phone is seen all the time, and stays there.
    if victim == VISITING {
        let shown = log_out(visiting, OLD).await;
        assert_eq!(shown.em_code, Some(6), "{}", shown.text);
    }
    is_6(&log_in_at(home, USER, visiting, USER).await);
    let log = std::fs::read_to_string(member.log_file()).unwrap();
    for word in ["the database can't be written", looks.cause, looks.advice] {
        assert!(log.contains(word), "{word}: {log}");
    }

    trouble.end(cluster);
    until_ready(cluster, true).await;
    is_whole(cluster).await;
    must(&log_in_at(home, USER, visiting, USER).await);
    let shared = settled(home, visiting).await;
    assert_eq!(shared.len(), 2, "{shared:?}");
    must(&log_out(visiting, USER).await);
    assert_eq!(settled(home, visiting).await.len(), 1);
    let log = std::fs::read_to_string(member.log_file()).unwrap();
    assert!(log.contains("the database can be written again"), "{log}");
}

/// Whether both clusters' databases came onto disks of their own.
async fn on_disks_of_their_own(lab: &mut Lab) -> Option<Vec<Tmpfs>> {
    let mut disks = Vec::new();
    for cluster in &mut lab.clusters {
        cluster.member_mut().unwrap().stop().await;
        let disk = Tmpfs::under(cluster);
        let member = cluster.member_mut().unwrap();
        member.start(&Versions::default()).await.unwrap();
        disks.push(disk?);
    }
    let (home, visiting) = (&lab.clusters[HOME], &lab.clusters[VISITING]);
    home.wait_linked(&visiting.id).await.unwrap();
    visiting.wait_linked(&home.id).await.unwrap();
    Some(disks)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_6_on_the_phone_and_all_is_well_when_there_is_room() {
    const FULL: Looks = Looks {
        cause: "full",
        advice: "make room",
        finding: None,
    };
    let mut lab = scene(None).await;
    let Some(mut disks) = on_disks_of_their_own(&mut lab).await else {
        println!(
            "NOT on a real full disk: only root can mount one. The daemon's writes are refused by tests/tools/disk.c \
             instead."
        );
        lab.shut_down().await;
        let folder = tempfile::tempdir().unwrap();
        let lab = scene(Some(folder.path())).await;
        for victim in [VISITING, HOME] {
            let mut full = Says(nix::errno::Errno::ENOSPC);
            goes_through(&lab, victim, &mut full, &FULL).await;
        }
        return lab.shut_down().await;
    };
    let looks = Looks {
        finding: Some("disk"),
        ..FULL
    };
    for victim in [VISITING, HOME] {
        goes_through(&lab, victim, &mut disks[victim], &looks).await;
    }
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_turns_read_only_is_6_on_the_phone_and_all_is_well_when_it_is_writable() {
    let folder = tempfile::tempdir().unwrap();
    let lab = scene(Some(folder.path())).await;
    let looks = Looks {
        cause: "disk I/O error",
        advice: "mounted for writing",
        finding: None,
    };
    for victim in [VISITING, HOME] {
        let mut read_only = Says(nix::errno::Errno::EROFS);
        goes_through(&lab, victim, &mut read_only, &looks).await;
    }
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_another_program_has_locked_is_6_on_the_phone_and_all_is_well_when_it_lets_go()
 {
    let lab = scene(None).await;
    let looks = Looks {
        cause: "database is locked",
        advice: "fuser",
        finding: Some("store-lock"),
    };
    for victim in [VISITING, HOME] {
        goes_through(&lab, victim, &mut Locked::default(), &looks).await;
    }
    lab.shut_down().await;
}
