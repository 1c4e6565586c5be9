//! PINs at the help desk: a lock that ends before its time.

use crate::{
    clock::Timestamp,
    credentials::lockout,
    domain::ids::UserId,
    edge::admin::{error::Error, roles::Actor, views},
    store::{
        Store,
        audit::{self, Action},
        cluster_time, credentials, policies, users,
    },
    wire::admin as pb,
};

/// Ends a user's lock, and forgets the wrong PINs counted so far; the PIN stays. Where there is neither, nothing is
/// written.
///
/// # Errors
/// [`Error::Missing`] when there is no such user, [`Error::Refused`] when the user has no PIN.
pub async fn unlock(
    store: &Store,
    user_id: UserId,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::UnlockPinResponse, Error> {
    let actor = actor.to_string();
    store
        .write(move |tx| {
            let user = users::get(tx, &user_id)?
                .ok_or_else(|| Error::missing(format!("user {user_id}"), "emccd user list"))?;
            let Some(mut row) = credentials::get(tx, &user.user_id)? else {
                return Err(Error::refused(
                    format!("user {} has no PIN", user.user_id),
                    format!("give them one: emccd user set {} --ask-pin", user.user_id),
                ));
            };
            let rules = policies::rules_of(tx, user.policy.as_ref())?;
            let (time, shift) = (tx.cluster_now()?, cluster_time::shift(tx)?);
            let before = views::pin_state(Some(&row), time, shift, rules);
            // Also what does not count yet: a lock that is too far ahead to be one would when its time comes near.
            let mut times = [row.locked_until, row.window_started].into_iter().flatten();
            let lies_ahead = times.any(|at| at > time);
            if before.failures > 0 || before.locked_until.is_some() || lies_ahead {
                lockout::clear(&mut row);
                credentials::set_counters(tx, &row)?;
                let was = match (&before.locked_until, before.failures) {
                    (Some(until), _) => format!("was locked until {until}"),
                    (None, 0) => {
                        "nothing counts yet; cleared is what was too far ahead to count".to_owned()
                    }
                    (None, failures) => format!("{failures} wrong PINs forgotten"),
                };
                let entry = audit::Entry {
                    at: now,
                    actor: actor.clone(),
                    action: Action::PinUnlock,
                    subject: user.user_id.to_string(),
                    outcome: was,
                    reference: None,
                };
                audit::append(tx, &entry)?;
            }
            Ok(pb::UnlockPinResponse {
                before: Some(before),
            })
        })
        .await
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;
    use crate::{
        domain::{cluster_time::Reading, policy::BUILT_IN},
        edge::admin::roles::{Account, Groups},
        store::{self, Transaction, credentials::Phc, users::User},
    };

    fn help_desk() -> Actor {
        let account = Account {
            uid: 1_000,
            name: Some("dora".to_owned()),
            groups: BTreeSet::new(),
        };
        Actor::new(account, 0, &Groups::default())
    }

    async fn store() -> Store {
        let store = Store::open(&store::Config {
            url: "sqlite::memory:".to_owned(),
            node: "n1".to_owned(),
        })
        .unwrap();
        let user = |id: &str| User {
            user_id: UserId::new(id).unwrap(),
            self_service_id: None,
            primary_extension: None,
            display_name: String::new(),
            enabled: true,
            emcc_enabled: true,
            policy: None,
        };
        let (ana, bo) = (user("Ana"), user("bo"));
        let fill = move |tx: &mut dyn Transaction| {
            users::upsert(tx, &ana)?;
            users::upsert(tx, &bo)?;
            let phc = Phc::new("hash".to_owned());
            credentials::put_hash(tx, &ana.user_id, &phc, Timestamp::default())
        };
        store.write(fill).await.unwrap();
        store
    }

    /// So many wrong PINs.
    async fn guess(store: &Store, count: u32, now: Timestamp) {
        let guess = move |tx: &mut dyn Transaction| {
            let user = UserId::new("ana").unwrap();
            let mut row = credentials::get(tx, &user)?.unwrap();
            for _ in 0..count {
                lockout::decide(&mut row, false, now, BUILT_IN);
            }
            credentials::set_counters(tx, &row)
        };
        assert!(store.write(guess).await.unwrap());
    }

    #[tokio::test]
    async fn an_unlocked_user_has_the_pin_as_before_and_the_audit_says_who_did_it() {
        let store = store().await;
        let now = Timestamp::default().plus(Duration::from_secs(86_400));
        let unlock = async |id: &str, now| {
            let user = UserId::new(id).unwrap();
            unlock(&store, user, &help_desk(), now).await
        };
        let time_is = async |at| {
            let put = move |tx: &mut dyn Transaction| cluster_time::put(tx, Reading::first(at));
            store.write(put).await.unwrap();
        };
        time_is(now).await;
        let state = async || {
            // Whoever has set the wall clock meanwhile changes nothing of it.
            let now = now.shifted(86_400_000);
            let answer = unlock("ana", now).await.unwrap();
            let before = answer.before.unwrap();
            (before.failures, before.locked_until.is_some())
        };
        guess(&store, 5, now).await;
        assert_eq!(state().await, (5, true));
        let look = |tx: &mut dyn Transaction| {
            let ana = credentials::get(tx, &UserId::new("ana").unwrap())?.unwrap();
            Ok::<_, store::Error>((ana, audit::list(tx, 10)?))
        };
        let (row, audit) = store.read(look).await.unwrap();
        assert_eq!(
            (row.failures, row.window_started, row.locked_until),
            (0, None, None)
        );
        assert_eq!(row.phc, Phc::new("hash".to_owned()));
        assert_eq!(audit.len(), 1);
        assert_eq!(audit[0].action, "pin.unlock");
        assert!(audit[0].actor.contains("dora"), "{audit:?}");
        assert_eq!(
            (&*audit[0].subject, &*audit[0].outcome),
            ("Ana", "was locked until 1970-01-02T00:15:00.000Z")
        );
        // Wrong ones that lock nobody yet are forgotten as well; nothing is nothing to record, nor is what is over.
        guess(&store, 2, now).await;
        assert_eq!(state().await, (2, false));
        assert_eq!(state().await, (0, false));
        guess(&store, 5, now).await;
        time_is(now.plus(Duration::from_secs(900))).await;
        assert_eq!(state().await, (0, false));
        assert_eq!(store.read(look).await.unwrap().1.len(), 2);
        // A row that is three days ahead would lock two days later.
        let days = |days: u64| now.plus(Duration::from_secs(days * 86_400));
        guess(&store, 5, days(3)).await;
        let locked = async |at| lockout::locked(&store.read(look).await.unwrap().0, at).is_some();
        assert!(!locked(now).await && locked(days(2)).await);
        assert_eq!(state().await, (0, false));
        assert!(!locked(days(2)).await);
        assert_eq!(store.read(look).await.unwrap().1.len(), 3);
        // Nobody, and somebody without a PIN.
        assert!(matches!(
            unlock("cy", now).await,
            Err(Error::Missing { .. })
        ));
        assert!(matches!(
            unlock("bo", now).await,
            Err(Error::Refused { .. })
        ));
    }
}
