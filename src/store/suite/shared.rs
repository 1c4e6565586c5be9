//! What is shared with a cluster, as it is compared.

use super::*;
use crate::{
    domain::agreement::{Digest, Digests, Ours, Theirs},
    store::shared,
};

/// Rows of both roles, with berlin and with others: 1 to 3 live, 4 is a login under way, 5 is over.
async fn fill(store: &Store) {
    store
        .write(|tx| {
            for n in 1..=5 {
                let state = match n {
                    4 => State::Pending,
                    5 => State::Ended,
                    _ => State::Active,
                };
                let row = session(Role::Visiting, n, &format!("SEP{n}"), state);
                let ended_at = (n == 5).then(|| at(9));
                let end_reason = (n == 5).then_some(EndReason::User);
                sessions::insert(
                    tx,
                    &Session {
                        ended_at,
                        end_reason,
                        ..row
                    },
                )?;
            }
            sessions::insert(tx, &session(Role::Home, 6, "SEP6", State::Active))?;
            let lima = Session {
                counterpart: cluster("lima"),
                ..session(Role::Visiting, 7, "SEP7", State::Active)
            };
            sessions::insert(tx, &lima)
        })
        .await
        .unwrap();
}

fn digest_of(ids: impl IntoIterator<Item = u8>) -> Digest {
    let mut digest = Digest::default();
    ids.into_iter().for_each(|n| digest.add(session_id(n)));
    digest
}

pub(in crate::store) async fn what_is_shared_with_a_cluster_is_told_by_role_and_page_and_nothing_else(
    store: &Store,
) {
    let nobody = |name: &'static str| store.read(move |tx| shared::is_any(tx, &cluster(name)));
    assert!(!nobody("berlin").await.unwrap());
    fill(store).await;
    for (name, expected) in [("berlin", true), ("lima", true), ("tokyo", false)] {
        assert_eq!(nobody(name).await.unwrap(), expected, "{name}");
    }
    // What has ended does not count, nor does what is shared with others.
    for (name, oldest) in [
        ("berlin", Some(1_001)),
        ("lima", Some(1_007)),
        ("tokyo", None),
    ] {
        let began = store.read(move |tx| shared::oldest(tx, &cluster(name)));
        assert_eq!(began.await.unwrap(), oldest.map(at), "{name}");
    }
    store
        .read::<_, Error>(|tx| {
            let berlin = cluster("berlin");
            let digests = Digests {
                home: digest_of([6]),
                visiting: digest_of(1..=4),
            };
            assert_eq!(shared::digests(tx, &berlin)?, digests);
            // Page by page, in their order, each once.
            let mut after = None;
            let mut all = Vec::new();
            loop {
                let page = shared::living_page(tx, Role::Visiting, &berlin, after, 3)?;
                let Some(last) = page.last() else { break };
                assert!(page.len() <= 3, "{page:?}");
                after = Some(last.id);
                all.extend(page);
            }
            let expected: Vec<_> = (1..=4)
                .map(|n| Ours {
                    role: Role::Visiting,
                    id: session_id(n),
                    state: if n == 4 {
                        State::Pending
                    } else {
                        State::Active
                    },
                    changed_at: at(1_000 + i64::from(n)),
                })
                .collect();
            assert_eq!(all, expected);
            // Those of some buckets.
            let buckets = digest_of(1..=4).differing(&digest_of([2]));
            let living = |tx: &mut dyn Transaction, after, limit| {
                shared::living_in(tx, Role::Visiting, &berlin, &buckets, after, limit)
            };
            let ids = |all: &[u8]| all.iter().map(|n| session_id(*n)).collect::<Vec<_>>();
            assert_eq!(living(tx, None, 2)?, (ids(&[1, 3]), true));
            assert_eq!(living(tx, Some(session_id(3)), 2)?, (ids(&[4]), false));
            assert_eq!(living(tx, None, 3)?, (ids(&[1, 3, 4]), false));
            let none = digest_of([1]).differing(&digest_of([1]));
            let of_none = shared::living_in(tx, Role::Visiting, &berlin, &none, None, 3)?;
            assert_eq!(of_none, (Vec::new(), false));
            // And how each stands, in the order of the question.
            let asked = ids(&[7, 5, 4, 1, 6]);
            assert_eq!(
                shared::standing_of(tx, Role::Visiting, &berlin, &asked)?,
                [
                    Theirs::Lacks,
                    Theirs::Ended(EndReason::User),
                    Theirs::Living,
                    Theirs::Living,
                    Theirs::Lacks,
                ]
            );
            Ok(())
        })
        .await
        .unwrap();
}

pub(in crate::store) async fn a_row_ends_as_told_once_and_never_while_a_login_is_under_way(
    store: &Store,
) {
    fill(store).await;
    set_cluster_time(store, at(50_000)).await;
    let ends = |n: u8| {
        store.write::<_, Error>(move |tx| {
            let ours = Ours {
                role: Role::Visiting,
                id: session_id(n),
                state: State::Active,
                changed_at: at(1),
            };
            let (reason, by) = (EndReason::Expired, Initiator::Home);
            shared::end_as_told(tx, &ours, &cluster("berlin"), reason, by, at(77))
        })
    };
    let before = ends(1).await.unwrap().unwrap();
    assert_eq!((before.id, before.state), (session_id(1), State::Active));
    let row = fetch(store, Role::Visiting, 1).await;
    assert_eq!(
        (
            row.state,
            row.end_reason,
            row.initiator,
            row.ended_at,
            row.owed
        ),
        (
            State::Ended,
            Some(EndReason::Expired),
            Some(Initiator::Home),
            Some(at(77)),
            false
        )
    );
    assert!(row.changed_at >= at(50_000), "{row:?}");
    // Twice, under way, over for another reason, not there, another cluster's.
    for n in [1, 4, 5, 6, 7] {
        assert_eq!(ends(n).await.unwrap(), None, "{n}");
    }
    assert_eq!(fetch(store, Role::Visiting, 4).await.state, State::Pending);
    let over = fetch(store, Role::Visiting, 5).await;
    assert_eq!(over.end_reason, Some(EndReason::User));
}
