//! Debts that are parked, and peers that are distrusted.

use super::*;
use crate::store::{
    debts::{self, Owed},
    peers::{self, Peer},
    trust_entries::{self, EntryKind, Source, TrustEntry},
};

async fn owed(store: &Store) -> (Vec<Owed>, Vec<SessionId>) {
    store
        .read::<_, Error>(|tx| {
            let to_tell = debts::to_tell(tx, &cluster("berlin"), 10)?;
            let to_tell = to_tell.into_iter().map(|debt| debt.id).collect();
            Ok((debts::creditors(tx)?, to_tell))
        })
        .await
        .unwrap()
}

async fn write<T: Send + 'static>(
    store: &Store,
    change: impl Fn(&mut dyn Transaction) -> Result<T, Error> + Send + 'static,
) -> T {
    store.write(change).await.unwrap()
}

pub(in crate::store) async fn what_is_refused_is_parked_until_it_is_tried_again_or_told_or_dropped(
    store: &Store,
) {
    for n in 1..=3 {
        let mut row = session(Role::Home, n, &format!("SEP{n}"), State::Ended);
        (row.ended_at, row.owed) = (Some(at(i64::from(n))), n < 3);
        put(store, row).await.unwrap();
    }
    let park = |n: u8| {
        write(store, move |tx| {
            let id = session_id(n);
            debts::park(
                tx,
                Role::Home,
                &cluster("berlin"),
                id,
                &"x".repeat(900),
                at(9),
            )
        })
    };
    assert!(park(1).await);
    assert!(!park(3).await, "nothing is owed");
    let all = |ends, parked| {
        vec![Owed {
            counterpart: cluster("berlin"),
            ends,
            parked,
            newest: Some(at(1_002)),
        }]
    };
    assert_eq!(owed(store).await, (all(2, 1), vec![session_id(2)]));
    let row = fetch(store, Role::Home, 1).await;
    assert_eq!(row.parked.unwrap().len(), 500, "a peer's words are bounded");
    assert_eq!((row.parked_at, row.owed), (Some(at(9)), true));
    let count = |tx: &mut dyn Transaction| debts::parked_of(tx, &cluster("berlin"));
    assert_eq!(store.read(count).await.unwrap(), 1);
    let listed = store
        .read(|tx| {
            let filter = Filter {
                owed: true,
                ..Filter::default()
            };
            sessions::list(tx, &filter)
        })
        .await
        .unwrap();
    assert_eq!(listed.len(), 2);

    // One, and all.
    let unpark = |n: u8| {
        write(store, move |tx| {
            debts::unpark(tx, Role::Home, &cluster("berlin"), session_id(n))
        })
    };
    assert!(unpark(1).await && !unpark(1).await);
    assert_eq!(owed(store).await.1, [session_id(1), session_id(2)]);
    for n in [1, 2] {
        park(n).await;
    }
    assert_eq!(owed(store).await, (all(2, 2), vec![]));
    let all_again = |tx: &mut dyn Transaction| debts::unpark_all(tx, &cluster("berlin"));
    assert_eq!(write(store, all_again).await, 2);
    assert_eq!(write(store, all_again).await, 0);

    // What is parked can be told all the same, and dropped: then nothing of it is left.
    for n in [1, 2] {
        park(n).await;
    }
    let told = |tx: &mut dyn Transaction| {
        sessions::acknowledge(tx, Role::Home, &cluster("berlin"), session_id(1))
    };
    assert!(write(store, told).await);
    let forget =
        |tx: &mut dyn Transaction| debts::forget(tx, Role::Home, &cluster("berlin"), session_id(2));
    assert!(write(store, forget).await);
    assert!(!write(store, forget).await);
    assert_eq!(owed(store).await, (vec![], vec![]));
    for n in [1, 2] {
        let row = fetch(store, Role::Home, n).await;
        assert_eq!((row.owed, row.parked, row.parked_at), (false, None, None));
    }
}

pub(in crate::store) async fn who_shares_sessions_and_of_whom_nothing_is_accepted_is_distrusted(
    store: &Store,
) {
    let entry = |n: u8, kind| TrustEntry {
        cluster_id: cluster("berlin"),
        kind,
        fingerprint: [n; 32],
        der: vec![n],
        added_at: at(1),
        source: Source::Operator,
        alias: None,
    };
    write(store, move |tx| {
        let peer = Peer {
            cluster_id: cluster("berlin"),
            enabled: true,
            allow_emcc: true,
            addresses: Vec::new(),
            node_names: Vec::new(),
            user_patterns: Vec::new(),
            dn_patterns: Vec::new(),
            ignore_eku: false,
            accept_announcements: crate::domain::announcement::Acceptance::default(),
            description: String::new(),
        };
        peers::upsert(tx, &peer)?;
        for n in [1, 2] {
            trust_entries::add(tx, &entry(n, EntryKind::Pinned))?;
        }
        Ok(())
    })
    .await;
    let distrusted = async || store.read(|tx| debts::distrusted(tx)).await.unwrap();
    let revoke = |n: u8| {
        write(store, move |tx| {
            trust_entries::revoke(tx, &cluster("berlin"), &[n; 32], at(2)).map(drop)
        })
    };
    put(store, session(Role::Visiting, 1, "SEP1", State::Active))
        .await
        .unwrap();
    assert_eq!(distrusted().await, []);
    revoke(1).await;
    assert_eq!(distrusted().await, [], "something is accepted still");
    revoke(2).await;
    assert_eq!(distrusted().await, [cluster("berlin")]);
    // An authority is removed and not revoked, and nothing else is remembered as revoked either.
    write(store, move |tx| {
        for n in [1, 2] {
            trust_entries::unrevoke(tx, &cluster("berlin"), &[n; 32])?;
        }
        trust_entries::add(tx, &entry(3, EntryKind::Anchor)).map(drop)
    })
    .await;
    assert_eq!(distrusted().await, [], "an authority vouches for it");
    let remove = |tx: &mut dyn Transaction| {
        trust_entries::withdraw(tx, &cluster("berlin"), &[3; 32]).map(drop)
    };
    write(store, remove).await;
    assert_eq!(distrusted().await, [cluster("berlin")]);
    write(store, |tx| {
        sessions::transition(
            tx,
            Role::Visiting,
            &cluster("berlin"),
            session_id(1),
            &[State::Active],
            State::Ended,
            None,
            true,
        )
    })
    .await;
    assert_eq!(distrusted().await, [], "it shares nothing that lives");
}
