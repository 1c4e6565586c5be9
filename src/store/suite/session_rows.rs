//! What must always hold of sessions.

use super::*;
use crate::store::retention;

pub(in crate::store) async fn a_phone_has_one_session_per_role(store: &Store) {
    put(store, session(Role::Visiting, 1, "SEP1", State::Pending))
        .await
        .unwrap();
    let second = put(store, session(Role::Visiting, 2, "sep1", State::Active)).await;
    assert!(second.unwrap_err().is_unique(sessions::ONE_PER_DEVICE));
    // The other role, another phone and an end are not in the way.
    for row in [
        session(Role::Home, 1, "SEP1", State::Active),
        session(Role::Visiting, 3, "SEP2", State::Active),
        session(Role::Visiting, 4, "SEP1", State::Ended),
    ] {
        put(store, row).await.unwrap();
    }
    let mut elsewhere = session(Role::Home, 5, "SEP1", State::Active);
    elsewhere.counterpart = cluster("tokyo");
    let third = put(store, elsewhere).await;
    assert!(third.unwrap_err().is_unique(sessions::ONE_PER_DEVICE));
    let again = put(store, session(Role::Home, 1, "SEP9", State::Active)).await;
    assert!(again.unwrap_err().is_unique("sessions_pkey"));
    let pending_at_home = put(store, session(Role::Home, 6, "SEP6", State::Pending)).await;
    assert!(matches!(pending_at_home, Err(Error::Statement { .. })));
    let occupied = store
        .read(|tx| sessions::active_on_device(tx, Role::Visiting, &device_name("sep1")))
        .await;
    assert_eq!(occupied.unwrap().unwrap().id, session_id(1));
}

pub(in crate::store) async fn a_base_device_is_held_by_one_active_session(store: &Store) {
    store
        .write(|tx| {
            base_devices::upsert(tx, &base("EMCC1"))?;
            base_devices::upsert(tx, &base("EMCC2"))
        })
        .await
        .unwrap();
    let mut first = session(Role::Home, 1, "SEP1", State::Active);
    first.base_device = Some(base("EMCC1"));
    put(store, first.clone()).await.unwrap();
    let mut second = session(Role::Home, 2, "SEP2", State::Active);
    second.base_device = Some(base("emcc1"));
    let refused = put(store, second.clone()).await;
    assert!(
        refused
            .unwrap_err()
            .is_unique(sessions::ONE_PER_BASE_DEVICE)
    );
    // Another cluster's base device of that name, in our visiting row, is not ours.
    let mut elsewhere = session(Role::Visiting, 3, "SEP3", State::Active);
    elsewhere.base_device = Some(base("EMCC1"));
    put(store, elsewhere).await.unwrap();
    store
        .write::<_, Error>(move |tx| {
            assert_eq!(base_devices::next_free(tx)?, Some(base("EMCC2")));
            let among = base_devices::among(tx, &["emcc2".to_owned(), "emcc3".to_owned()])?;
            assert_eq!(among, [base("EMCC2")]);
            assert_eq!(
                base_devices::list(tx)?,
                [(base("EMCC1"), Some(session_id(1))), (base("EMCC2"), None)]
            );
            assert!(base_devices::remove(tx, &base("EMCC2"))?);
            assert_eq!(base_devices::next_free(tx)?, None);
            let end = Some((EndReason::User, Initiator::Visiting, at(5)));
            assert!(sessions::transition(
                tx,
                Role::Home,
                &cluster("berlin"),
                session_id(1),
                &[State::Active],
                State::Ended,
                end,
                false
            )?);
            assert_eq!(base_devices::next_free(tx)?, Some(base("EMCC1")));
            sessions::insert(tx, &second)
        })
        .await
        .unwrap();
}

pub(in crate::store) async fn states_move_forward_only_from_where_they_are_expected(store: &Store) {
    let berlin = cluster("berlin");
    put(store, session(Role::Visiting, 1, "SEP1", State::Pending))
        .await
        .unwrap();
    store
        .write::<_, Error>(move |tx| {
            let id = session_id(1);
            let mut go = |from: &[State], to, end| {
                sessions::transition(tx, Role::Visiting, &berlin, id, from, to, end, true)
            };
            let end = Some((EndReason::User, Initiator::Visiting, at(7)));
            assert!(!go(&[State::Active], State::Ending, end)?);
            assert!(!go(&[], State::Ended, end)?);
            assert!(go(&[State::Pending, State::Active], State::Ending, end)?);
            // Backwards and in place never match.
            assert!(!go(&[State::Ending], State::Active, None)?);
            assert!(!go(&[State::Ending], State::Ending, None)?);
            assert!(go(&[State::Ending], State::Ended, None)?);
            assert!(!go(&[State::Ending, State::Ended], State::Ended, None)?);
            assert!(!sessions::activate(
                tx,
                Role::Visiting,
                &berlin,
                id,
                &user_id("anna"),
                None,
                &services(),
            )?);
            Ok(())
        })
        .await
        .unwrap();
    let ended = fetch(store, Role::Visiting, 1).await;
    assert_eq!(ended.state, State::Ended);
    assert_eq!(ended.end_reason, Some(EndReason::User));
    assert_eq!(ended.ended_at, Some(at(7)));
    assert!(ended.owed);

    let mut pending = session(Role::Visiting, 2, "SEP1", State::Pending);
    pending.user_id = None;
    pending.deadline = Some(at(50));
    put(store, pending).await.unwrap();
    set_cluster_time(store, at(1_000)).await;
    let activated = store
        .write(|tx| {
            let profile = services().profile;
            sessions::activate(
                tx,
                Role::Visiting,
                &cluster("berlin"),
                session_id(2),
                &user_id("Anna"),
                Some(&profile),
                &services(),
            )
        })
        .await;
    assert!(activated.unwrap());
    let active = fetch(store, Role::Visiting, 2).await;
    assert_eq!(active.state, State::Active);
    assert_eq!(active.user_id, Some(user_id("Anna")));
    assert_eq!(active.base_device, Some(base("EMCC001")));
    assert_eq!(active.services, Some(services()));
    let lasts = active.deadline.map(|until| until.since(active.changed_at));
    assert!(active.changed_at >= at(1_000) && active.changed_at < at(600_000));
    let remaining = services().remaining.unwrap();
    assert_eq!(
        lasts,
        Some(remaining + sessions::AFTER_HOME),
        "ten hours after it began, and home has the first word"
    );
}

pub(in crate::store) async fn a_tombstone_ends_what_is_known_and_what_is_not(store: &Store) {
    put(store, session(Role::Home, 1, "SEP1", State::Active))
        .await
        .unwrap();
    store
        .write::<_, Error>(|tx| {
            let mut bury = |n, reason, when| {
                let berlin = cluster("berlin");
                let id = session_id(n);
                let by = Initiator::Visiting;
                sessions::tombstone(tx, Role::Home, &berlin, id, reason, by, at(when))
            };
            assert!(bury(1, EndReason::Superseded, 5)?);
            assert!(bury(2, EndReason::Abandoned, 6)?);
            assert!(!bury(1, EndReason::User, 7)?);
            assert!(!bury(2, EndReason::User, 7)?);
            assert_eq!(
                sessions::active_on_device(tx, Role::Home, &device_name("SEP1"))?,
                None
            );
            Ok(())
        })
        .await
        .unwrap();
    let known = fetch(store, Role::Home, 1).await;
    assert_eq!(known.device, device_name("SEP1"));
    assert_eq!(known.end_reason, Some(EndReason::Superseded));
    assert_eq!(known.ended_at, Some(at(5)));
    let unknown = fetch(store, Role::Home, 2).await;
    assert_eq!(unknown.state, State::Ended);
    assert_eq!(unknown.end_reason, Some(EndReason::Abandoned));
    // A login under the id of a tombstone runs into it.
    let late = put(store, session(Role::Home, 2, "SEP2", State::Active)).await;
    assert!(late.unwrap_err().is_unique("sessions_pkey"));
}

pub(in crate::store) async fn ends_are_owed_in_order_until_acknowledged(store: &Store) {
    // By cluster time, whatever wall clocks said.
    for (n, changed_at, ended_at) in [(1, 30, 5), (2, 10, 90), (3, 20, 7)] {
        let mut row = session(Role::Visiting, n, "SEP1", State::Ended);
        row.changed_at = at(changed_at);
        row.ended_at = Some(at(ended_at));
        row.owed = true;
        put(store, row).await.unwrap();
    }
    let mut other = session(Role::Home, 4, "SEP4", State::Ended);
    other.counterpart = cluster("tokyo");
    other.owed = true;
    put(store, other).await.unwrap();
    store
        .write::<_, Error>(|tx| {
            let berlin = cluster("berlin");
            let ids = |debts: Vec<Debt>| debts.into_iter().map(|d| d.id).collect::<Vec<_>>();
            let all = [session_id(2), session_id(3), session_id(1)];
            assert_eq!(ids(sessions::owed(tx, &berlin, 10)?), all);
            assert_eq!(ids(sessions::owed(tx, &berlin, 2)?), all[..2]);
            assert_eq!(
                sessions::newest_owed(tx, Role::Visiting, &berlin, 2)?,
                [session_id(1), session_id(3)]
            );
            assert!(sessions::newest_owed(tx, Role::Home, &berlin, 2)?.is_empty());
            assert_eq!(
                sessions::counterparts_owed(tx)?,
                [berlin.clone(), cluster("tokyo")]
            );
            assert!(sessions::acknowledge(
                tx,
                Role::Visiting,
                &berlin,
                session_id(2)
            )?);
            assert!(!sessions::acknowledge(
                tx,
                Role::Visiting,
                &berlin,
                session_id(2)
            )?);
            assert_eq!(ids(sessions::owed(tx, &berlin, 10)?), all[1..]);
            Ok(())
        })
        .await
        .unwrap();
}

pub(in crate::store) async fn only_overdue_pending_sessions_are_overdue(store: &Store) {
    for (n, state, deadline) in [
        (1, State::Pending, Some(20)),
        (2, State::Pending, Some(10)),
        (3, State::Pending, Some(21)),
        (4, State::Pending, None),
        (5, State::Active, Some(1)),
        (6, State::Ended, Some(1)),
    ] {
        let mut row = session(Role::Visiting, n, &format!("SEP{n}"), state);
        row.deadline = deadline.map(at);
        put(store, row).await.unwrap();
    }
    let overdue = store
        .read(|tx| sessions::overdue_pending(tx, at(20)))
        .await
        .unwrap();
    let ids: Vec<_> = overdue.into_iter().map(|s| s.id).collect();
    assert_eq!(ids, [session_id(2), session_id(1)]);
}

pub(in crate::store) async fn sessions_are_listed_by_filter(store: &Store) {
    for row in [
        session(Role::Home, 1, "SEP1", State::Active),
        session(Role::Visiting, 1, "SEP1", State::Active),
        session(Role::Visiting, 2, "SEP2", State::Ended),
    ] {
        put(store, row).await.unwrap();
    }
    let mut foreign = session(Role::Visiting, 3, "SEP3", State::Active);
    foreign.counterpart = cluster("tokyo");
    foreign.user_id = None;
    put(store, foreign).await.unwrap();
    store
        .read::<_, Error>(|tx| {
            let all = Filter::default();
            let filters = [
                (all.clone(), vec![3, 2, 1, 1]),
                (
                    Filter {
                        role: Some(Role::Visiting),
                        limit: Some(2),
                        ..all.clone()
                    },
                    vec![3, 2],
                ),
                (
                    Filter {
                        device: Some(device_name("sep1")),
                        states: vec![State::Active],
                        ..all.clone()
                    },
                    vec![1, 1],
                ),
                (
                    Filter {
                        user_id: Some(user_id("ANNA")),
                        states: vec![State::Ended, State::Ending],
                        ..all.clone()
                    },
                    vec![2],
                ),
                (
                    Filter {
                        counterpart: Some(cluster("tokyo")),
                        ..all.clone()
                    },
                    vec![3],
                ),
                (
                    Filter {
                        id: Some(session_id(1)),
                        role: Some(Role::Home),
                        ..all.clone()
                    },
                    vec![1],
                ),
                (
                    Filter {
                        reference: Some(Ref::from_bits(2)),
                        ..all
                    },
                    vec![2],
                ),
            ];
            for (filter, expected) in filters {
                let found: Vec<_> = sessions::list(tx, &filter)?
                    .into_iter()
                    .map(|s| s.id)
                    .collect();
                let expected: Vec<_> = expected.into_iter().map(session_id).collect();
                assert_eq!(found, expected, "{filter:?}");
            }
            let of_anna = sessions::active_of_user(tx, &user_id("anna"))?;
            assert_eq!(of_anna.len(), 1);
            assert_eq!(of_anna[0].role, Role::Home);
            Ok(())
        })
        .await
        .unwrap();
}

pub(in crate::store) async fn old_ends_and_their_answers_are_forgotten_and_nothing_else(
    store: &Store,
) {
    let old = at(1_000);
    let kept_ms = i64::try_from(retention::KEPT.as_millis()).unwrap();
    let now = at(kept_ms + 2_000);
    let recent = at(3_000);
    let ended = |n: u8, when: Timestamp, owed: bool| {
        let mut row = session(Role::Home, n, &format!("SEP{n}"), State::Ended);
        (row.changed_at, row.owed) = (when, owed);
        row
    };
    for row in [
        ended(1, old, false),
        ended(2, old, true),
        ended(3, recent, false),
        session(Role::Home, 4, "SEP4", State::Active),
    ] {
        put(store, row).await.unwrap();
    }
    store
        .write::<_, Error>(move |tx| {
            // The last one's session was never opened: it was refused.
            for n in [1, 4, 5] {
                let answer = answers::Answer {
                    counterpart: cluster("berlin"),
                    id: session_id(n),
                    digest: [0; 32],
                    code: None,
                    cause: String::new(),
                    body: Vec::new(),
                    kept_at: old,
                };
                answers::put(tx, &answer)?;
            }
            Ok(())
        })
        .await
        .unwrap();
    set_cluster_time(store, now).await;
    let claim = to_forget(store).await;
    let lost = claims::Claim {
        generation: 0,
        ..claim.clone()
    };
    let refused = retention::purge(store, &lost, now).await.unwrap_err();
    assert!(matches!(refused, Error::ClaimLost { .. }), "{refused}");
    assert_eq!(retention::purge(store, &claim, now).await.unwrap(), 3);
    let left = store
        .read::<_, Error>(|tx| {
            let mut left = Vec::new();
            for n in 1..=5 {
                let row = sessions::get(tx, Role::Home, &cluster("berlin"), session_id(n))?;
                let answer = answers::get(tx, &cluster("berlin"), session_id(n))?;
                left.push((row.is_some(), answer.is_some()));
            }
            Ok(left)
        })
        .await
        .unwrap();
    // Of the old ones: what is still owed, and what lives together with its answer.
    let expected = [
        (false, false),
        (true, false),
        (true, false),
        (true, true),
        (false, false),
    ];
    assert_eq!(left, expected);
}

pub(in crate::store) async fn base_devices_are_given_out_in_turn(store: &Store) {
    let given = store
        .write::<_, Error>(|tx| {
            for name in ["EMCC1", "EMCC2", "EMCC3"] {
                base_devices::upsert(tx, &base(name))?;
            }
            let mut holds_the_second = session(Role::Home, 1, "SEP1", State::Active);
            holds_the_second.base_device = Some(base("emcc2"));
            sessions::insert(tx, &holds_the_second)?;
            (0..3)
                .map(|_| base_devices::next_free(tx))
                .collect::<Result<Vec<_>, _>>()
        })
        .await
        .unwrap();
    let names: Vec<_> = given.into_iter().flatten().collect();
    assert_eq!(names, [base("EMCC1"), base("EMCC3"), base("EMCC1")]);
}
