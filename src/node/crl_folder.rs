//! Revocation lists from a folder: whatever fetches them from their authorities puts them there.
//!
//! Each node looks; the database decides which list is newer, so that it does not matter how many of them do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    clock::Clock,
    edge::{
        self,
        admin::crls::{self, By},
    },
    store::Store,
    tasks::Tasks,
    telemetry::error_chain,
    trust::{
        TrustStore,
        certificate::{Fingerprint, fingerprint_of},
        crl::{self, Contents, MAX_BYTES},
    },
};

/// How often the folder is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// More files than there are authorities; what is beyond is not looked at.
const MAX_FILES: usize = 256;

/// What a file is known by, without reading it.
type Mark = (Option<SystemTime>, u64);

/// A file that is new or has changed.
struct Changed {
    path: PathBuf,
    /// Of its content; of what is wrong where it has none.
    digest: Fingerprint,
    read: Result<Contents, String>,
    judged: Judged,
}

/// Whether it was the file's content that decided what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    Yes,
    /// It is looked at again, though nothing of it changes.
    No,
}

/// Takes lists in until the node shuts down.
pub(super) async fn watch(
    folder: PathBuf,
    store: Store,
    trust: TrustStore,
    clock: Clock,
    tasks: Tasks,
) {
    let watching = watch_on(&folder, &store, &trust, &clock);
    tasks.token().run_until_cancelled(watching).await;
}

async fn watch_on(folder: &Path, store: &Store, trust: &TrustStore, clock: &Clock) {
    let mut known = BTreeMap::new();
    let mut told = BTreeSet::new();
    let mut generation = trust.generation();
    let mut trouble = None;
    loop {
        // Another authority may be accepted by now.
        if std::mem::replace(&mut generation, trust.generation()) != trust.generation() {
            known.clear();
        }
        let (place, before) = (folder.to_owned(), std::mem::take(&mut known));
        let looked = tokio::task::spawn_blocking(move || look(&place, &before)).await;
        match looked {
            Ok(Ok((marks, changed))) => {
                known = marks;
                trouble = None;
                for file in changed {
                    let path = file.path.clone();
                    if take(file, store, trust, clock, &mut told).await == Judged::No {
                        known.remove(&path);
                    }
                }
            }
            Ok(Err(cause)) => {
                let cause = cause.to_string();
                if trouble.as_ref() != Some(&cause) {
                    warn!(
                        folder = %folder.display(), cause,
                        "the folder of revocation lists (trust.crl-folder) can't be read; it tries again"
                    );
                }
                trouble = Some(cause);
            }
            Err(_) => {}
        }
        sleep(LOOK).await;
    }
}

/// Reads what has changed since the marks were taken.
fn look(
    folder: &Path,
    before: &BTreeMap<PathBuf, Mark>,
) -> io::Result<(BTreeMap<PathBuf, Mark>, Vec<Changed>)> {
    let (mut marks, mut changed) = (BTreeMap::new(), Vec::new());
    for entry in fs::read_dir(folder)? {
        if marks.len() >= MAX_FILES {
            break;
        }
        // One that goes while it is looked at is no reason not to look at the others.
        let Ok(entry) = entry else { continue };
        let path = entry.path();
        let is_hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_hidden {
            continue;
        }
        let Ok(found) = fs::metadata(&path) else {
            continue;
        };
        if !found.is_file() {
            continue;
        }
        let mark = (found.modified().ok(), found.len());
        if before.get(&path) != Some(&mark) {
            changed.push(read(&path, found.len()));
        }
        marks.insert(path, mark);
    }
    changed.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((marks, changed))
}

fn read(path: &Path, length: u64) -> Changed {
    let path = path.to_owned();
    let is_large = length > u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    let bytes = match is_large {
        true => Err(crl::Error::TooLarge.to_string()),
        false => fs::read(&path).map_err(|cause| cause.to_string()),
    };
    match bytes {
        Ok(bytes) => Changed {
            path,
            digest: fingerprint_of(&bytes),
            read: crl::read(&bytes).map_err(|error| error.to_string()),
            judged: Judged::Yes,
        },
        Err(why) => Changed {
            digest: fingerprint_of(format!("{}: {why}", path.display()).as_bytes()),
            path,
            read: Err(why),
            // Its mode may be mended without its time; what is too large stays so.
            judged: if is_large { Judged::Yes } else { Judged::No },
        },
    }
}

async fn take(
    file: Changed,
    store: &Store,
    trust: &TrustStore,
    clock: &Clock,
    told: &mut BTreeSet<Fingerprint>,
) -> Judged {
    let by = By {
        actor: "trust.crl-folder".to_owned(),
        now: clock.now(),
        shown: trust.shown_of_late(),
    };
    let mut judged = file.judged;
    let taken = match file.read {
        Ok(contents) => crls::take(store, contents, by).await.map_err(|error| {
            if let edge::admin::error::Error::Store(_) = error {
                judged = Judged::No;
            }
            error_chain(&error)
        }),
        Err(why) => Err(why),
    };
    match taken {
        Ok(all) => {
            told.remove(&file.digest);
            for taken in all.iter().filter(|taken| taken.is_news) {
                info!(
                    peer = %taken.cluster, number = taken.crl.number(),
                    issuer = taken.crl.issuer().subject(), file = %file.path.display(),
                    "a revocation list was taken in"
                );
            }
        }
        Err(cause) => {
            if told.insert(file.digest) {
                warn!(
                    file = %file.path.display(), cause,
                    "a file in the folder of revocation lists is not taken in; those in force stay"
                );
            }
        }
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_or_has_changed_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("a.crl", "no list");
        write(".b.crl.partial", "half a list");
        fs::create_dir(dir.path().join("folder")).unwrap();
        let (marks, changed) = look(dir.path(), &BTreeMap::new()).unwrap();
        let [one] = changed.as_slice() else {
            panic!("{}", changed.len())
        };
        assert_eq!(one.path, dir.path().join("a.crl"));
        assert!(
            one.read
                .as_ref()
                .unwrap_err()
                .contains("no revocation list")
        );
        let (marks, changed) = look(dir.path(), &marks).unwrap();
        assert!(changed.is_empty());
        write("a.crl", "another text");
        // What is no list takes no list's place.
        for number in 0..2 * MAX_FILES {
            write(&format!(".{number}.partial"), "");
        }
        let (_, changed) = look(dir.path(), &marks).unwrap();
        assert_ne!(changed[0].digest, one.digest);
        assert!(look(&dir.path().join("gone"), &BTreeMap::new()).is_err());
    }

    #[test]
    fn what_could_not_be_read_is_looked_at_again_and_what_is_too_large_is_not() {
        let dir = tempfile::tempdir().unwrap();
        // A file that can be opened, and not be read from its begin.
        let broken = dir.path().join("broken.crl");
        std::os::unix::fs::symlink("/proc/self/mem", &broken).unwrap();
        let large = fs::File::create(dir.path().join("large.crl")).unwrap();
        large.set_len(MAX_BYTES as u64 + 1).unwrap();
        fs::write(dir.path().join("text.crl"), "no list").unwrap();
        let (_, changed) = look(dir.path(), &BTreeMap::new()).unwrap();
        let judged: Vec<_> = changed.iter().map(|file| file.judged).collect();
        assert_eq!(judged, [Judged::No, Judged::Yes, Judged::Yes]);
    }

    #[tokio::test]
    async fn what_the_database_did_not_take_is_brought_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&crate::store::Config {
            url: format!("sqlite:{}", dir.path().join("emccd.db").display()),
            node: "n1".to_owned(),
        })
        .unwrap();
        let trust = TrustStore::new(None, Clock::system());
        let list = crate::trust::fixtures::Authority::new("CA").crl(1, &[], 30);
        fs::write(dir.path().join("a.crl"), list).unwrap();
        let mut told = BTreeSet::new();
        // No peer has that authority: that is the file's own fault, and is judged.
        for (is_open, wanted) in [(true, Judged::Yes), (false, Judged::No)] {
            if !is_open {
                store.clone().close();
            }
            let file = read(&dir.path().join("a.crl"), 1);
            let judged = take(file, &store, &trust, &Clock::system(), &mut told).await;
            assert_eq!(judged, wanted);
        }
    }
}
