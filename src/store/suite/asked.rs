//! What must always hold of tickets, and of what phones were asked to choose from.

use super::*;
use crate::{
    secret::Ticket,
    store::{
        choices::{self, Choice},
        retention,
        tickets::{self, Holder, Issue, Purpose},
    },
};

fn phc(n: u8) -> Phc {
    Phc::new(format!("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ${n}"))
}

/// What [`try_ticket`] changes of the holder.
#[derive(Clone, Copy, Default)]
struct Other {
    caller: Option<&'static str>,
    device: Option<&'static str>,
    user: Option<&'static str>,
    purpose: Option<Purpose>,
    hash: Option<[u8; 32]>,
}

fn try_ticket(tx: &mut dyn Transaction, other: Other, now: i64) -> Result<bool, Error> {
    let holder = Holder {
        caller: &cluster(other.caller.unwrap_or("tokyo")),
        device: &device_name(other.device.unwrap_or("sep1")),
        user: &user_id(other.user.unwrap_or("ANNA")),
        purpose: other.purpose.unwrap_or(Purpose::ChooseProfile),
    };
    tickets::redeem(tx, holder, &other.hash.unwrap_or([1; 32]), at(now))
}

fn issue(tx: &mut dyn Transaction, hash: [u8; 32]) -> Result<(), Error> {
    issue_for(tx, Issue::First(session_id(1)), hash, 2_000)
}

fn issue_for(
    tx: &mut dyn Transaction,
    why: Issue,
    hash: [u8; 32],
    until: i64,
) -> Result<(), Error> {
    let holder = Holder {
        caller: &cluster("tokyo"),
        device: &device_name("SEP1"),
        user: &user_id("anna"),
        purpose: Purpose::ChooseProfile,
    };
    tickets::issue(tx, holder, why, &hash, at(until))
}

pub(in crate::store) async fn a_ticket_is_good_once_for_its_holder_until_it_is_old_or_another_pin_is_set(
    store: &Store,
) {
    let hash = tickets::hash_of(&Ticket::from_bytes([1; 16]));
    assert_ne!(hash, tickets::hash_of(&Ticket::from_bytes([2; 16])));
    store
        .write::<_, Error>(|tx| {
            for id in ["anna", "bob"] {
                users::upsert(tx, &user(id, None, None))?;
                credentials::put_hash(tx, &user_id(id), &phc(1), at(500))?;
            }
            issue(tx, [1; 32])?;
            let none = Other::default();
            for other in [
                Other {
                    caller: Some("lima"),
                    ..none
                },
                Other {
                    device: Some("SEP2"),
                    ..none
                },
                Other {
                    user: Some("bob"),
                    ..none
                },
                Other {
                    purpose: Some(Purpose::ChangePin),
                    ..none
                },
                Other {
                    hash: Some([2; 32]),
                    ..none
                },
            ] {
                assert!(!try_ticket(tx, other, 1_500)?);
            }
            assert!(!try_ticket(tx, none, 2_000)?, "it is old");
            assert!(try_ticket(tx, none, 1_999)?);
            assert!(!try_ticket(tx, none, 1_999)?, "it was used");

            // A new one voids the one before.
            issue(tx, [3; 32])?;
            issue(tx, [1; 32])?;
            assert!(!try_ticket(
                tx,
                Other {
                    hash: Some([3; 32]),
                    ..none
                },
                1_500
            )?);

            // Answers to one login beside each other each have a good one, of which one is used.
            let other = |n: u8| Other {
                hash: Some([n; 32]),
                ..none
            };
            for used in [1, 3] {
                issue(tx, [1; 32])?;
                issue_for(tx, Issue::Again(session_id(1)), [3; 32], 2_000)?;
                assert!(try_ticket(tx, other(used), 1_500)?);
                assert!(!try_ticket(tx, other(1), 1_500)? && !try_ticket(tx, other(3), 1_500)?);
            }
            // A late answer to a login does not take the ticket of the next one, and repeats have an end.
            issue_for(tx, Issue::First(session_id(2)), [9; 32], 2_100)?;
            for n in 20..50 {
                issue_for(tx, Issue::Again(session_id(1)), [n; 32], 2_000)?;
            }
            let rows = tx.query("SELECT hash FROM tickets", &[])?;
            assert_eq!(rows.len(), 8);
            assert!(try_ticket(tx, other(9), 1_500)?);
            issue(tx, [1; 32])?;

            // So does a new PIN of this user, whatever the clock of who sets it says.
            credentials::put_hash(tx, &user_id("bob"), &phc(2), at(5_000))?;
            credentials::put_hash(tx, &user_id("anna"), &phc(2), at(10))?;
            assert!(!try_ticket(tx, none, 1_500)?);
            issue(tx, [1; 32])?;
            assert!(try_ticket(tx, none, 1_500)?);

            issue(tx, [1; 32])?;
            users::remove(tx, &user_id("anna"))?;
            assert!(!try_ticket(tx, none, 1_500)?);
            Ok(())
        })
        .await
        .unwrap();
}

pub(in crate::store) async fn a_choice_is_that_of_the_phones_newest_page_until_it_is_old(
    store: &Store,
) {
    let choice = |device: &str, n: u8, until: i64| Choice {
        device: device_name(device),
        hash: [n; 32],
        home: cluster("tokyo"),
        login_type: LoginType::SelfService,
        login_name: name("anna"),
        as_typed: n == 1,
        profiles: vec![ProfileName::new("desk").unwrap()],
        expires_at: at(until),
    };
    let (old, new, other) = (
        choice("SEP1", 1, 2_000),
        choice("SEP1", 2, 3_000_000),
        choice("SEP2", 1, 4_000_000),
    );
    store
        .write::<_, Error>(move |tx| {
            let sep1 = device_name("SEP1");
            choices::put(tx, &old)?;
            choices::put(tx, &other)?;
            assert_eq!(
                choices::get(tx, &sep1, &[1; 32], at(1_999))?,
                Some(old.clone())
            );
            assert_eq!(choices::get(tx, &sep1, &[1; 32], at(2_000))?, None);
            choices::put(tx, &new)?;
            assert_eq!(choices::get(tx, &sep1, &[1; 32], at(1_000))?, None);
            assert_eq!(
                choices::get(tx, &sep1, &[2; 32], at(1_000))?,
                Some(new.clone())
            );
            users::upsert(tx, &user("anna", None, None))?;
            issue(tx, [1; 32])
        })
        .await
        .unwrap();
    let claim = to_forget(store).await;
    // The ticket is good until 2,000, the choices until 3,000,000 and 4,000,000, in cluster time.
    for (now, gone) in [
        (-1_000_000, 0),
        (2_000, 1),
        (3_000_000, 1),
        (4_000_000, 1),
        (5_000_000, 0),
    ] {
        set_cluster_time(store, at(now)).await;
        let purged = retention::purge(store, &claim, at(9_000_000)).await;
        assert_eq!(purged.unwrap(), gone, "{now}");
    }
}
