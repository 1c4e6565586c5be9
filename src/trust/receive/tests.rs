//! What an announcement may still do when trust was taken back while its connection lived.

use super::*;
use crate::{
    domain::announcement::{
        Acceptance,
        reconcile::{Candidate, Fitness},
    },
    store::peers::Peer,
    trust::fixtures::Spec,
};

fn tokyo() -> ClusterId {
    ClusterId::new("tokyo").unwrap()
}

fn entry(certificate: &Certificate, kind: EntryKind) -> TrustEntry {
    TrustEntry {
        cluster_id: tokyo(),
        kind,
        fingerprint: certificate.fingerprint(),
        der: certificate.der().to_vec(),
        added_at: Timestamp::from_millis(1),
        source: Source::Operator,
        alias: None,
    }
}

fn certificate(name: &str) -> Certificate {
    Spec::new(name).self_signed().identity().leaf().clone()
}

/// An announcement of one certificate over a connection with another.
fn announcing(next: &Certificate, connection: &Certificate) -> Work {
    Work {
        cluster: tokyo(),
        reference: Ref::from_bits(7),
        authority: None,
        request: Request {
            identity: "tokyo-1/federation".to_owned(),
            sequence: 1,
            digest: [1; 32],
            certificates: vec![Candidate {
                fingerprint: next.fingerprint(),
                parent: Some(connection.fingerprint()),
                fitness: Fitness::Fit,
            }],
            connection: connection.fingerprint(),
        },
        certificates: vec![next.clone()],
        now: Timestamp::from_millis(2),
    }
}

/// What a connection rests on that was judged before an operator did `undo` at another node: whether what it announces
/// then is taken, and which entries there are afterwards.
async fn taken(
    entries: Vec<TrustEntry>,
    undo: impl FnOnce(&mut dyn Transaction) + Clone + Send + 'static,
    work: Work,
) -> (Result<bool, Error>, usize) {
    let store = Store::open(&store::Config {
        url: "sqlite::memory:".to_owned(),
        node: "n1".to_owned(),
    })
    .unwrap();
    let readied = store.write(move |tx: &mut dyn Transaction| {
        let peer = Peer {
            cluster_id: tokyo(),
            enabled: true,
            allow_emcc: true,
            addresses: Vec::new(),
            node_names: Vec::new(),
            user_patterns: Vec::new(),
            dn_patterns: Vec::new(),
            ignore_eku: false,
            accept_announcements: Acceptance::Auto,
            description: String::new(),
        };
        peers::upsert(tx, &peer)?;
        for entry in &entries {
            trust_entries::add(tx, entry)?;
        }
        undo.clone()(tx);
        Ok::<_, store::Error>(())
    });
    readied.await.unwrap();
    let took = store
        .write(move |tx: &mut dyn Transaction| work.take(tx))
        .await;
    let left = store
        .read(|tx: &mut dyn Transaction| trust_entries::of(tx, &tokyo()))
        .await
        .unwrap();
    (
        took.map(|stored| !stored.done.changes.is_empty()),
        left.len(),
    )
}

#[tokio::test]
async fn what_a_revoked_key_announces_is_not_taken_before_its_connection_is_cut() {
    let [shown, other, next] = ["a.tokyo", "b.tokyo", "c.tokyo"].map(certificate);
    let both = || {
        [&shown, &other]
            .map(|one| entry(one, EntryKind::Pinned))
            .to_vec()
    };
    let work = announcing(&next, &shown);
    let (took, entries) = taken(both(), |_| (), work.clone()).await;
    assert_eq!((took.unwrap(), entries), (true, 3));
    let key = shown.fingerprint();
    let revoke = move |tx: &mut dyn Transaction| {
        trust_entries::revoke(tx, &tokyo(), &key, Timestamp::from_millis(2)).unwrap();
    };
    let (took, entries) = taken(both(), revoke, work).await;
    let refused = took.unwrap_err();
    assert!(matches!(refused, Error::CallerDistrusted(_)), "{refused}");
    assert_eq!(refused.to_refusal().code, EmCode::EmccNotAllowed);
    assert_eq!(entries, 1, "what goes with the key comes by it no more");
}

#[tokio::test]
async fn whose_authority_is_gone_announces_nothing_though_something_else_is_accepted() {
    let [authority, shown, next] = ["ca.tokyo", "a.tokyo", "c.tokyo"].map(certificate);
    let only = || vec![entry(&authority, EntryKind::Anchor)];
    let other = entry(&certificate("b.tokyo"), EntryKind::Pinned);
    let ca = authority.fingerprint();
    let work = Work {
        authority: Some(ca),
        ..announcing(&next, &shown)
    };
    let (took, entries) = taken(only(), |_| (), work.clone()).await;
    assert_eq!((took.unwrap(), entries), (true, 2));
    let remove = move |tx: &mut dyn Transaction| {
        trust_entries::withdraw(tx, &tokyo(), &ca).unwrap();
    };
    let both = vec![entry(&authority, EntryKind::Anchor), other];
    let (took, entries) = taken(both, remove, work.clone()).await;
    let refused = took.unwrap_err();
    assert!(matches!(refused, Error::CallerDistrusted(_)), "{refused}");
    assert_eq!(
        entries, 1,
        "what rested on the authority leaves nothing behind"
    );
    let (took, entries) = taken(only(), remove, work).await;
    let refused = took.unwrap_err();
    assert!(matches!(refused, Error::CallerDistrusted(_)), "{refused}");
    assert_eq!(entries, 0, "nothing brings trust back but an operator");
}
