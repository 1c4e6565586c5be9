use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::trust::fixtures::{Authority, Leaf, Spec, cluster};

const WHAT: Purpose = Purpose::Federation;

struct Node {
    dir: tempfile::TempDir,
    folder: IdentityFolder,
}

impl Node {
    /// A node with `leaf` in its configured files.
    fn with(leaf: &Leaf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = IdentityFiles {
            certificate: dir.path().join("federation.pem"),
            key: dir.path().join("federation.key"),
            store: None,
        };
        let node = Self {
            dir,
            folder: IdentityFolder::new([(WHAT, files)]),
        };
        node.put("federation.pem", leaf.pem().as_bytes());
        node.put("federation.key", leaf.key_pem().as_bytes());
        node
    }

    fn put(&self, name: &str, content: &[u8]) {
        make::replace(&self.dir.path().join(name), content, 0o600).unwrap();
    }

    fn write(&self, leaf: &Leaf) -> Fingerprint {
        let key = Secret::new(leaf.key_pem().into_bytes());
        self.folder
            .write(WHAT, leaf.pem().as_bytes(), &key)
            .unwrap()
    }

    /// Every file by its path below the node's, with its content.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for folder in [self.dir.path().to_owned(), self.dir.path().join(FOLDER)] {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    let name = path.strip_prefix(self.dir.path()).unwrap();
                    found.insert(name.to_owned(), fs::read(&path).unwrap());
                }
            }
        }
        found
    }
}

fn leaf(name: &str) -> Leaf {
    Spec::new(name).self_signed()
}

fn of(leaf: &Leaf) -> Fingerprint {
    leaf.certificate().fingerprint()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_written_is_found_by_its_fingerprint_and_readable_by_its_owner_alone() {
    let (old, new) = (leaf("old"), leaf("new"));
    let node = Node::with(&old);
    assert_eq!(node.write(&new), of(&new));
    assert_eq!(node.write(&new), of(&new), "twice is once");
    assert_eq!(mode(&node.folder.folder(WHAT).unwrap()), 0o700);
    for (name, _) in node.files() {
        let path = node.dir.path().join(&name);
        if path.extension().is_some_and(|e| e == "key") {
            assert_eq!(mode(&path), 0o600, "{}", name.display());
        }
    }
    for one in [&old, &new] {
        let found = node.folder.find(WHAT, &of(one)).unwrap();
        assert_eq!(found.leaf(), &one.certificate());
    }
    assert_eq!(
        node.folder.configured(WHAT).unwrap().leaf(),
        &old.certificate(),
        "writing changes nothing that is in force"
    );
    let listed: Vec<_> = node.folder.list(WHAT).unwrap();
    assert_eq!(listed, [old.certificate(), new.certificate()]);
}

#[test]
fn what_is_no_identity_is_not_written_and_what_is_not_there_is_told() {
    let (old, new, other) = (leaf("old"), leaf("new"), leaf("other"));
    let node = Node::with(&old);
    let key = Secret::new(other.key_pem().into_bytes());
    let refused = node.folder.write(WHAT, new.pem().as_bytes(), &key);
    assert!(matches!(refused, Err(Error::KeyMismatch { .. })));
    assert_eq!(node.files().len(), 2);
    let error = node.folder.find(WHAT, &of(&new)).unwrap_err();
    assert!(matches!(error, Error::NoSuchIdentity { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains(&new.certificate().fingerprint_text()),
        "{error}"
    );
    let error = node.folder.find(Purpose::Phone, &of(&old)).unwrap_err();
    assert!(matches!(error, Error::NotConfigured { .. }), "{error}");
}

#[test]
fn a_key_that_others_can_read_is_refused_wherever_it_lies() {
    let (old, new) = (leaf("old"), leaf("new"));
    let node = Node::with(&old);
    node.write(&new);
    let (_, key) = node.folder.names(WHAT, &of(&new)).unwrap();
    for path in [key, node.dir.path().join("federation.key")] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }
    for one in [&old, &new] {
        let error = node.folder.find(WHAT, &of(one)).unwrap_err();
        assert!(
            matches!(error, Error::KeyReadableByOthers { .. }),
            "{error}"
        );
    }
    assert!(node.folder.configured(WHAT).is_err());
}

#[test]
fn settling_swaps_the_pair_and_keeps_the_earlier_one_until_it_is_removed() {
    let (old, new) = (leaf("old"), leaf("new"));
    let node = Node::with(&old);
    node.write(&new);
    node.folder.settle(WHAT, &of(&new)).unwrap();
    let files = node.folder.files(WHAT).unwrap();
    let read = Identity::from_files(&files.certificate, &files.key).unwrap();
    assert_eq!(read.leaf(), &new.certificate());
    assert_eq!((mode(&files.certificate), mode(&files.key)), (0o644, 0o600));
    assert!(node.folder.find(WHAT, &of(&old)).is_ok());
    let settled = node.files();
    node.folder.settle(WHAT, &of(&new)).unwrap();
    assert_eq!(node.files(), settled, "once more changes nothing");

    assert!(node.folder.remove(WHAT, &of(&old)).unwrap());
    assert!(!node.folder.remove(WHAT, &of(&old)).unwrap());
    assert!(node.folder.find(WHAT, &of(&old)).is_err());
    // What is configured stays, whatever is removed.
    assert!(node.folder.remove(WHAT, &of(&new)).unwrap());
    assert!(node.folder.find(WHAT, &of(&new)).is_ok());
    assert_eq!(node.files().len(), 2, "nothing is left over");
}

/// The files that settling changes, each as it was before and as it is after: an interruption leaves any mixture, since
/// each is replaced in one step.
#[test]
fn every_state_that_an_interruption_leaves_has_both_and_is_completed_by_doing_it_again() {
    let (old, new) = (leaf("old"), leaf("new"));
    let node = Node::with(&old);
    node.write(&new);
    let before = node.files();
    node.folder.settle(WHAT, &of(&new)).unwrap();
    let after = node.files();
    let changed: Vec<_> = after
        .keys()
        .filter(|name| before.get(*name) != after.get(*name))
        .collect();
    assert_eq!(changed.len(), 4, "the backup's pair and the configured one");
    let is_configured = |name: &&PathBuf| !name.starts_with(FOLDER);
    for mixture in 0..1_u32 << changed.len() {
        let done: Vec<_> = changed
            .iter()
            .enumerate()
            .filter(|(at, _)| mixture & (1 << at) != 0)
            .map(|(_, name)| *name)
            .collect();
        let kept = done.len() - done.iter().filter(|n| is_configured(n)).count();
        if done.iter().any(is_configured) && kept < 2 {
            // The configured files are touched only when both backups are on the disk.
            continue;
        }
        let stopped = Node::with(&old);
        stopped.write(&new);
        for name in &done {
            stopped.put(name.to_str().unwrap(), &after[*name]);
        }
        stopped.put("identities/.new-abc123", b"half a fi");
        let state = format!("{done:?}");
        for one in [&old, &new] {
            let found = stopped.folder.find(WHAT, &of(one)).expect(&state);
            assert_eq!(found.leaf(), &one.certificate(), "{state}");
        }
        // A start in this state shows one or the other, and never fails.
        let starts = stopped.folder.configured(WHAT);
        let starts_with = starts.map(|identity| identity.leaf().clone());
        let expected = if done.iter().any(|name| name.ends_with("federation.pem")) {
            new.certificate()
        } else {
            old.certificate()
        };
        assert_eq!(starts_with.expect(&state), expected, "{state}");
        for target in [&new, &old, &new] {
            stopped.folder.settle(WHAT, &of(target)).expect(&state);
            let files = stopped.folder.files(WHAT).unwrap();
            let read = Identity::from_files(&files.certificate, &files.key).expect(&state);
            assert_eq!(read.leaf(), &target.certificate(), "{state}");
        }
        let leftover = stopped.files();
        assert_eq!(
            leftover
                .keys()
                .filter(|n| !n.ends_with(".new-abc123"))
                .count(),
            6,
            "{state}: {leftover:?}"
        );
    }
}

#[test]
fn what_can_not_be_read_is_not_taken_for_what_is_not_there() {
    let (old, new) = (leaf("old"), leaf("new"));
    let node = Node::with(&old);
    node.write(&new);
    // A folder where a file should be can't be read by anybody, root included.
    for file in ["federation.key", "federation.pem"] {
        let path = node.dir.path().join(file);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let error = node.folder.find(WHAT, &of(&old)).unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{error}");
        // What lies elsewhere is found all the same.
        assert!(node.folder.find(WHAT, &of(&new)).is_ok());
        fs::remove_dir(&path).unwrap();
        let error = node.folder.find(WHAT, &of(&old)).unwrap_err();
        assert!(matches!(error, Error::NoSuchIdentity { .. }), "{error}");
        node.put("federation.key", old.key_pem().as_bytes());
    }
}

#[test]
fn a_certificate_and_its_key_are_matched_whatever_their_names_are() {
    let (old, new) = (leaf("old"), leaf("new"));
    let node = Node::with(&old);
    node.write(&leaf("third"));
    node.put("identities/by-hand.pem", new.pem().as_bytes());
    assert!(matches!(
        node.folder.find(WHAT, &of(&new)),
        Err(Error::NoSuchIdentity { .. })
    ));
    node.put("identities/elsewhere.key", new.key_pem().as_bytes());
    node.put("identities/broken.key", b"nothing of use");
    node.put("identities/broken.pem", b"nothing of use");
    let found = node.folder.find(WHAT, &of(&new)).unwrap();
    assert_eq!(found.leaf(), &new.certificate());
}

#[test]
fn a_configured_key_that_fits_nothing_is_kept_before_it_is_replaced() {
    let (old, new, made) = (leaf("old"), leaf("new"), leaf("made"));
    let node = Node::with(&old);
    node.write(&new);
    // Somebody put a new key there; its certificate is still to come.
    node.put("federation.key", made.key_pem().as_bytes());
    node.folder.settle(WHAT, &of(&new)).unwrap();
    node.put("identities/made.pem", made.pem().as_bytes());
    let found = node.folder.find(WHAT, &of(&made)).unwrap();
    assert_eq!(found.leaf(), &made.certificate());
}

#[test]
fn what_is_kept_outlasts_the_configured_files() {
    let (old, by_hand) = (leaf("old"), leaf("by-hand"));
    let node = Node::with(&old);
    node.folder.keep_found(WHAT, &of(&old)).unwrap();
    node.put("federation.pem", by_hand.pem().as_bytes());
    node.put("federation.key", by_hand.key_pem().as_bytes());
    let found = node.folder.find(WHAT, &of(&old)).unwrap();
    assert_eq!(found.leaf(), &old.certificate());
    let configured = node.folder.configured(WHAT).unwrap();
    assert_eq!(configured.leaf(), &by_hand.certificate());
    let error = node
        .folder
        .keep_found(WHAT, &of(&leaf("gone")))
        .unwrap_err();
    assert!(matches!(error, Error::NoSuchIdentity { .. }), "{error}");
}

#[test]
fn a_chain_is_kept_whole() {
    let authority = Authority::new("CA");
    let (old, new) = (leaf("old"), Spec::new("new").signed_by(&authority));
    let node = Node::with(&old);
    let chain = format!("{}{}", new.pem(), authority.pem());
    let key = Secret::new(new.key_pem().into_bytes());
    node.folder.write(WHAT, chain.as_bytes(), &key).unwrap();
    node.folder.settle(WHAT, &of(&new)).unwrap();
    assert_eq!(node.folder.configured(WHAT).unwrap().chain().len(), 2);
}

#[test]
fn a_rotation_says_what_is_in_force_and_who_is_still_shown_the_old_one() {
    let (old, new) = (leaf("old"), leaf("new"));
    let node = Node::with(&old);
    node.write(&new);
    let steady = InForce::default();
    let shown = node.folder.federation(&steady, &steady).unwrap();
    assert_eq!(shown.server.leaf(), &old.certificate());
    assert!(shown.old_for.is_empty() && shown.client.is_none());
    let active = InForce {
        active: Some(of(&new)),
        old: Some(of(&old)),
        old_for: vec![cluster("lima")],
    };
    let shown = node.folder.federation(&active, &steady).unwrap();
    assert_eq!(shown.server.leaf(), &new.certificate());
    let [(peer, identity)] = &*shown.old_for else {
        panic!("{shown:?}")
    };
    assert_eq!(
        (peer, identity.leaf()),
        (&cluster("lima"), &old.certificate())
    );
    let gone = InForce {
        active: Some(of(&leaf("gone"))),
        ..active
    };
    let (purpose, error) = node.folder.federation(&gone, &steady).unwrap_err();
    assert_eq!(purpose, WHAT);
    assert!(matches!(error, Error::NoSuchIdentity { .. }), "{error}");
}

fn swept(folder: &IdentityFolder, node: &str, named: &BTreeSet<Fingerprint>) -> usize {
    let left_over = folder.left_over(WHAT, node).unwrap();
    folder.sweep(WHAT, left_over, named).unwrap()
}

#[test]
fn what_was_begun_and_is_named_by_nothing_is_swept_and_nothing_else_is() {
    let (shown, named) = (leaf("shown"), leaf("named"));
    let (installed, lost) = (leaf("installed"), leaf("lost"));
    let node = Node::with(&shown);
    node.write(&installed);
    let begin = |leaf: &Leaf| {
        let key = Secret::new(leaf.key_pem().into_bytes());
        let begun = node.folder.begin(WHAT, "n1", leaf.pem().as_bytes(), &key);
        assert_eq!(begun.unwrap().fingerprint, of(leaf));
    };
    for leaf in [&shown, &named, &installed, &lost] {
        begin(leaf);
        assert!(node.folder.find(WHAT, &of(leaf)).is_ok());
    }
    // Of another purpose in the same folder.
    node.put("identities/.federation-client-00.begun", b"");
    // A kill may have left a mark and a key without its certificate.
    let half = leaf("half");
    begin(&half);
    let (certificate, _) = node.folder.names(WHAT, &of(&half)).unwrap();
    fs::remove_file(certificate).unwrap();

    let rows = BTreeSet::from([of(&named)]);
    assert_eq!(swept(&node.folder, "n1", &rows), 2);
    for leaf in [&shown, &named, &installed] {
        assert!(node.folder.find(WHAT, &of(leaf)).is_ok());
    }
    for leaf in [&lost, &half] {
        let gone = node.folder.find(WHAT, &of(leaf)).unwrap_err();
        assert!(matches!(gone, Error::NoSuchIdentity { .. }), "{gone}");
    }
    // What was named once is no business of a later sweep.
    assert_eq!(swept(&node.folder, "n1", &BTreeSet::new()), 0);
    let left: Vec<_> = node.files().into_keys().collect();
    let marks = left.iter().filter(|f| f.to_string_lossy().ends_with(BEGUN));
    assert_eq!(marks.count(), 1, "{left:?}");
    let keys = left
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "key"));
    assert_eq!(keys.count(), 4, "{left:?}");
    // And one that is removed takes its mark along.
    begin(&lost);
    assert!(node.folder.remove(WHAT, &of(&lost)).unwrap());
    assert_eq!(swept(&node.folder, "n1", &BTreeSet::new()), 0);
}

#[test]
fn what_another_node_has_begun_in_the_same_folder_is_left_to_it() {
    let shown = leaf("shown");
    let first = Node::with(&shown);
    let other = |name: &str| first.dir.path().join(name);
    let second = IdentityFolder::new([(
        WHAT,
        IdentityFiles {
            certificate: other("second.pem"),
            key: other("second.key"),
            store: None,
        },
    )]);
    let own = leaf("second");
    first.put("second.pem", own.pem().as_bytes());
    first.put("second.key", own.key_pem().as_bytes());
    let begin = |folder: &IdentityFolder, node, leaf: &Leaf| {
        let key = Secret::new(leaf.key_pem().into_bytes());
        folder
            .begin(WHAT, node, leaf.pem().as_bytes(), &key)
            .unwrap()
    };
    let nothing = BTreeSet::new();
    let (one, two) = (leaf("one"), leaf("two"));
    drop(begin(&first.folder, "n1", &one));
    drop(begin(&second, "n2", &two));
    // Whoever is done first looks for what is left over, and so does a neighbour that starts.
    let rows = BTreeSet::from([of(&one)]);
    assert_eq!(swept(&first.folder, "n1", &rows), 0);
    assert_eq!(swept(&first.folder, "n1", &nothing), 0);
    assert!(second.find(WHAT, &of(&two)).is_ok());
    assert_eq!(swept(&second, "n2", &nothing), 1);
    assert!(second.find(WHAT, &of(&two)).is_err());
    assert!(first.folder.find(WHAT, &of(&one)).is_ok());
    // What both have begun goes with the last of them.
    let both = leaf("both");
    drop(begin(&first.folder, "n1", &both));
    drop(begin(&second, "n2", &both));
    assert_eq!(swept(&first.folder, "n1", &nothing), 0);
    assert!(second.find(WHAT, &of(&both)).is_ok());
    assert_eq!(swept(&second, "n2", &nothing), 1);
    // A node that hands over is two processes for a while: what one is at is not taken away by the other, and what it lets
    // go of after the other has looked is none of what the other found.
    let held = begin(&first.folder, "n1", &both);
    let before = first.folder.left_over(WHAT, "n1").unwrap();
    drop(held);
    assert_eq!(first.folder.sweep(WHAT, before, &nothing).unwrap(), 0);
    assert!(first.folder.find(WHAT, &of(&both)).is_ok());
    // What one has found the other does not take away meanwhile.
    let found = first.folder.left_over(WHAT, "n1").unwrap();
    assert_eq!(swept(&first.folder, "n1", &nothing), 0);
    assert_eq!(first.folder.sweep(WHAT, found, &nothing).unwrap(), 1);
}
