//! Announced certificates: what waits, whose they are, on whose word they were taken, and who has them in force.

use std::collections::BTreeSet;

use super::*;
use crate::store::nodes::{self, Node};

fn entry(n: u8, source: Source) -> TrustEntry {
    TrustEntry {
        cluster_id: cluster("tokyo"),
        kind: EntryKind::Pinned,
        fingerprint: [n; 32],
        der: vec![0x30, n],
        added_at: at(1),
        source,
        alias: None,
    }
}

fn waits(n: u8) -> WaitingEntry {
    WaitingEntry {
        cluster_id: cluster("tokyo"),
        fingerprint: [n; 32],
        der: vec![0x30, n],
        since: at(2),
    }
}

fn newest(identity: &str, sequence: i64) -> Announced {
    Announced {
        identity: identity.to_owned(),
        sequence,
        digest: [9; 32],
        told_at: at(sequence),
    }
}

fn sources(tx: &mut dyn Transaction) -> Result<Vec<(u8, Source)>, Error> {
    let entries = trust_entries::of(tx, &cluster("tokyo"))?;
    Ok(entries
        .iter()
        .map(|e| (e.fingerprint[0], e.source))
        .collect())
}

pub(in crate::store) async fn a_certificate_goes_with_the_one_on_whose_word_it_was_taken(
    store: &Store,
) {
    let tokyo = cluster("tokyo");
    store
        .write::<_, Error>(move |tx| {
            // 1 → 2 → 3 waits; 1 → 4; 5 stands alone. 2 has been retired.
            assert!(trust_entries::add(tx, &entry(1, Source::Operator))?);
            for n in [2, 4] {
                assert!(trust_entries::add(tx, &entry(n, Source::Announced))?);
            }
            assert!(trust_entries::add(tx, &entry(5, Source::Paired))?);
            assert!(announcements::wait(tx, &waits(3))?);
            assert!(!announcements::wait(tx, &waits(3))?);
            for (child, parent) in [(2, 1), (3, 2), (4, 1)] {
                announcements::descend(tx, &tokyo, &[child; 32], &[parent; 32])?;
            }
            // The first word stays.
            announcements::descend(tx, &tokyo, &[4; 32], &[5; 32])?;
            assert!(trust_entries::remove(tx, &tokyo, &[2; 32])?);
            announcements::prune_lineage(tx, &tokyo)?;
            assert_eq!(
                announcements::descendants(tx, &tokyo, &[1; 32])?,
                [[2; 32], [3; 32], [4; 32]]
            );
            assert!(announcements::descendants(tx, &cluster("berlin"), &[1; 32])?.is_empty());
            // An operator's own word stands alone, and the name it gives stays.
            let named = TrustEntry {
                alias: Some("four".into()),
                ..entry(4, Source::Imported)
            };
            assert!(!trust_entries::add(tx, &named)?);
            assert!(!trust_entries::add(tx, &entry(4, Source::Announced))?);
            let mut entries = trust_entries::of(tx, &tokyo)?.into_iter();
            let four = entries.find(|e| e.fingerprint == [4; 32]).unwrap();
            assert_eq!(
                (four.source, four.alias.as_deref()),
                (Source::Imported, Some("four"))
            );

            let gone = trust_entries::revoke(tx, &tokyo, &[1; 32], at(7))?;
            assert!(gone.was_entry);
            assert_eq!(gone.descendants, [[2; 32], [3; 32]]);
            assert_eq!(sources(tx)?, [(4, Source::Imported), (5, Source::Paired)]);
            assert!(announcements::waiting(tx)?.is_empty());
            for n in [1, 2, 3] {
                assert!(trust_entries::is_revoked(tx, &tokyo, &[n; 32])?, "{n}");
            }
            // What is gone has no lineage left.
            announcements::prune_lineage(tx, &tokyo)?;
            assert!(announcements::lineage(tx, &tokyo)?.is_empty());

            // An authority takes along what was announced under it, and nothing of that is revoked.
            let authority = TrustEntry {
                kind: EntryKind::Anchor,
                ..entry(6, Source::Operator)
            };
            trust_entries::add(tx, &authority)?;
            trust_entries::add(tx, &entry(7, Source::Announced))?;
            announcements::descend(tx, &tokyo, &[7; 32], &[6; 32])?;
            let gone = trust_entries::withdraw(tx, &tokyo, &[6; 32])?;
            assert_eq!((gone.was_entry, gone.descendants), (true, vec![[7; 32]]));
            assert!(!trust_entries::is_revoked(tx, &tokyo, &[7; 32])?);
            assert_eq!(sources(tx)?.len(), 2);

            // A ring takes all of itself along, and ends.
            for (child, parent) in [(4, 5), (5, 4)] {
                announcements::descend(tx, &tokyo, &[child; 32], &[parent; 32])?;
            }
            announcements::prune_lineage(tx, &tokyo)?;
            let gone = trust_entries::revoke(tx, &tokyo, &[4; 32], at(8))?;
            assert_eq!((gone.was_entry, gone.descendants), (true, vec![[5; 32]]));
            Ok(())
        })
        .await
        .unwrap();
}

pub(in crate::store) async fn announcements_are_kept_by_identity_until_they_are_forgotten(
    store: &Store,
) {
    let tokyo = cluster("tokyo");
    store
        .write::<_, Error>(move |tx| {
            let both = BTreeSet::from([[1; 32], [2; 32]]);
            let second = BTreeSet::from([[2; 32]]);
            announcements::put(tx, &tokyo, &newest("a/federation", 4), &both)?;
            announcements::put(tx, &tokyo, &newest("b/federation", 5), &both)?;
            announcements::put(tx, &tokyo, &newest("a/federation", 6), &second)?;
            assert_eq!(
                announcements::identities(tx, &tokyo)?,
                [newest("a/federation", 6), newest("b/federation", 5)]
            );
            let labels = announcements::labels_of(tx, &tokyo)?;
            let told: Vec<_> = labels
                .iter()
                .map(|label| (&*label.identity, label.fingerprint[0]))
                .collect();
            assert_eq!(
                told,
                [
                    ("a/federation", 2),
                    ("b/federation", 1),
                    ("b/federation", 2)
                ]
            );
            assert_eq!(announcements::labels(tx)?, labels);
            assert!(announcements::labels_of(tx, &cluster("berlin"))?.is_empty());

            // What an operator adds waits no more; what is taken back is nobody's.
            announcements::wait(tx, &waits(1))?;
            trust_entries::add(tx, &entry(1, Source::Operator))?;
            assert!(announcements::waiting(tx)?.is_empty());
            trust_entries::revoke(tx, &tokyo, &[1; 32], at(9))?;
            assert_eq!(announcements::labels(tx)?.len(), 2);

            announcements::forget_identity(tx, &tokyo, "a/federation")?;
            assert_eq!(announcements::labels(tx)?.len(), 1);
            announcements::wait(tx, &waits(3))?;
            announcements::descend(tx, &tokyo, &[3; 32], &[2; 32])?;
            announcements::forget(tx, &tokyo)?;
            assert!(announcements::identities(tx, &tokyo)?.is_empty());
            assert!(announcements::labels(tx)?.is_empty());
            assert!(announcements::waiting(tx)?.is_empty());
            assert!(announcements::lineages(tx)?.is_empty());
            Ok(())
        })
        .await
        .unwrap();
}

pub(in crate::store) async fn each_run_of_a_node_tells_which_trust_it_has_in_force(store: &Store) {
    let node = |name: &str, instance: &str| Node {
        run: Incarnation {
            node: name.to_owned(),
            instance: instance.to_owned(),
        },
        addresses: Vec::new(),
        software: "emccd".into(),
        started_at: at(1),
        beat: 1,
    };
    store
        .write::<_, Error>(move |tx| {
            let (a, b) = (node("a", "1"), node("b", "1"));
            nodes::register(tx, &a)?;
            nodes::register(tx, &b)?;
            let behind = |tx: &mut dyn Transaction, revision| {
                let runs = nodes::behind_trust(tx, revision)?;
                Ok::<_, Error>(runs.into_iter().map(|run| run.node).collect::<Vec<_>>())
            };
            assert_eq!(behind(tx, 0)?, ["a", "b"]);
            assert!(nodes::set_loaded_trust(tx, &a.run, 7)?);
            assert!(nodes::set_loaded_trust(tx, &b.run, 6)?);
            assert_eq!(behind(tx, 6)?, [""; 0]);
            assert_eq!(behind(tx, 7)?, ["b"]);
            // Another run of the node has loaded nothing yet, and the one before it can't say so.
            nodes::register(tx, &node("a", "2"))?;
            assert!(!nodes::set_loaded_trust(tx, &a.run, 9)?);
            assert_eq!(behind(tx, 6)?, ["a"]);
            Ok(())
        })
        .await
        .unwrap();
}
