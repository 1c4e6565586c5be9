//! Credential policies in files: PINs are held against them, and one that is in use stays.

use super::*;
use crate::{
    admission,
    apply::edit::{Edit, How},
    domain::{
        ids::PolicyName,
        policy::{BUILT_IN, Policy, Rules},
    },
};

impl World {
    async fn policies(&self) -> Vec<Policy> {
        let all = |tx: &mut dyn Transaction| policies::all(tx);
        self.store.read(all).await.unwrap()
    }

    async fn apply_and_prune(&self, text: &str) -> Result<Vec<Change>, Error> {
        let source = Source {
            name: "data.toml".to_owned(),
            text: text.to_owned().into(),
        };
        self.applier
            .apply(&[source], Mode::Write, Rest::Goes, "user root")
            .await
    }

    async fn edit_policy(
        &self,
        how: How,
        name: &str,
        columns: &[(&str, &str)],
    ) -> Result<(), Error> {
        let columns = columns.iter();
        let edit = Edit {
            kind: &columns::POLICY,
            name: name.to_owned(),
            how,
            columns: columns
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            pin: None,
        };
        self.applier.edit(edit, "user root").await.map(drop)
    }
}

fn policy(name: &str, rules: Rules) -> Policy {
    Policy {
        name: PolicyName::new(name).unwrap(),
        rules,
    }
}

#[tokio::test]
async fn a_pin_that_breaks_its_users_policy_is_refused_with_every_rule_and_without_the_pin() {
    let world = world();
    let text = "[[policy]]\nname = \"kiosk\"\nmin-length = 4\n\n\
                [[policy]]\nname = \"free\"\nmin-length = 8\ntrivial-check = false\n\n\
                [[user]]\nid = \"ana\"\npin = \"4711\"\nextension = \"4711\"\nname = \"Ana Berg\"\n\n\
                [[user]]\nid = \"bo\"\npin = \"1111\"\npolicy = \"kiosk\"\n\n\
                [[user]]\nid = \"cy\"\npin = \"1111111\"\npolicy = \"free\"\n\n\
                [[user]]\nid = \"dee\"\npin = \"246809\"\npolicy = \"nowhere\"\n\n\
                [[user]]\nid = \"eva\"\npin = \"2621\"\nname = \"Ana Berg\"\npolicy = \"kiosk\"\n\n\
                [[user]]\nid = \"fay\"\npin = \"5646\"\nname = \"John\"\npolicy = \"kiosk\"\n";
    let problems = world.problems(text).await;
    assert_eq!(
        problems,
        [
            "data.toml:10: user.pin: the policy default refuses it: it must have at least 6 digits (too_short); \
             the extension must not be in it (contains_extension)",
            "data.toml:16: user.pin: the policy kiosk refuses it: one digit must not stand more than twice in a row \
             (repeat_run); there must be three different digits at least (few_distinct); it must not be made of \
             groups that repeat (repeated_group)",
            "data.toml:21: user.pin: the policy free refuses it: it must have at least 8 digits (too_short)",
            "data.toml:26: user.policy: there is no policy nowhere",
            "data.toml:37: user.pin: the policy kiosk refuses it: it must not be the name on the keys of a phone \
             (name_keypad)",
        ]
    );
    assert_eq!(world.count_users().await, 0);
    assert_eq!(world.policies().await, [Policy::built_in()]);
}

#[tokio::test]
async fn the_stores_policy_counts_the_files_before_it_and_a_hash_is_not_looked_into() {
    let world = world();
    let user = |pin: &str, more: &str| format!("[[user]]\nid = \"ana\"\npin = \"{pin}\"\n{more}\n");
    let lax = "[[policy]]\nname = \"default\"\nmin-length = 4\ntrivial-check = false\n";
    assert_eq!(world.problems(&user("1234", "")).await.len(), 1);
    world
        .apply(&(user("1234", "") + lax), Mode::Write)
        .await
        .unwrap();
    world.apply(&user("4321", ""), Mode::Write).await.unwrap();
    // Naming the one of all others is naming none.
    let named = user("4321", "policy = \"default\"");
    let again = world.apply(&named, Mode::Write).await.unwrap();
    assert_eq!(actions(&again), [Action::Unchanged]);
    // The files' own policy counts before the store's, also for a PIN that the user has already.
    let strict = "[[policy]]\nname = \"default\"\n";
    assert_eq!(world.problems(&(user("4321", "") + strict)).await.len(), 1);
    // The hash of a PIN that no policy would let pass.
    let hash = {
        let pin = Pin::new("1".to_owned()).unwrap();
        let far = Instant::now() + Duration::from_secs(60);
        world.applier.credentials.hash(&pin, far).await.unwrap()
    };
    let hashed = format!("[[user]]\nid = \"ana\"\npin-hash = \"{}\"\n", hash.as_str());
    world.apply(&(hashed + strict), Mode::Write).await.unwrap();
    assert_eq!(world.policies().await, [Policy::built_in()]);
}

#[tokio::test]
async fn the_one_of_all_others_is_always_there_and_one_in_use_stays() {
    let world = world();
    let users = "[[user]]\nid = \"ana\"\npolicy = \"kiosk\"\n[[user]]\nid = \"bo\"\n";
    let both = "[[policy]]\nname = \"default\"\nlock-duration = 60\n[[policy]]\nname = \"kiosk\"\n";
    let first = world
        .apply(&format!("{users}{both}"), Mode::Write)
        .await
        .unwrap();
    let default = first.iter().find(|c| c.name == "default").unwrap();
    let fields: Vec<_> = default
        .fields
        .iter()
        .map(|f| (f.name, &*f.old, &*f.new))
        .collect();
    assert_eq!(
        (default.action, fields),
        (Action::Changed, vec![("lock-duration", "15", "60")])
    );
    let longer = Rules {
        lock_duration: 60,
        ..BUILT_IN
    };
    let expected = [policy("default", longer), policy("kiosk", BUILT_IN)];
    assert_eq!(world.policies().await, expected);
    // Who names it keeps it, in the files and in the store.
    let only_default = "[[policy]]\nname = \"default\"\n";
    let Err(Error::Kept(reasons)) = world.apply_and_prune(only_default).await else {
        panic!("a policy in use went");
    };
    assert_eq!(reasons, ["policy kiosk: user ana names it"]);
    let Err(Error::Problems(problems)) = world
        .apply_and_prune(&format!("{users}{only_default}"))
        .await
    else {
        panic!("a policy in use went");
    };
    assert!(
        problems.told()[0].message.contains("no policy kiosk"),
        "{problems:?}"
    );
    assert_eq!(world.policies().await, expected);
    // Nobody names it any more: it goes, and the other one is as built in.
    let gone = world
        .apply_and_prune(
            "[[user]]\nid = \"ana\"\n[[user]]\nid = \"bo\"\n[[policy]]\nname = \"new\"\n",
        )
        .await
        .unwrap();
    let removed: Vec<_> = gone
        .iter()
        .filter(|c| c.action == Action::Removed)
        .collect();
    let removed: Vec<_> = removed.iter().map(|c| (c.kind, &*c.name)).collect();
    assert_eq!(removed, [("policy", "default"), ("policy", "kiosk")]);
    assert_eq!(
        world.policies().await,
        [Policy::built_in(), policy("new", BUILT_IN)]
    );
}

#[tokio::test]
async fn one_policy_is_changed_by_itself_and_numbers_out_of_range_are_refused() {
    let world = world();
    let twice = world.edit_policy(How::Add, "default", &[]).await;
    assert!(matches!(twice, Err(Error::There(_))), "{twice:?}");
    let none = world
        .edit_policy(How::Set, "kiosk", &[("min-length", "4")])
        .await;
    assert!(matches!(none, Err(Error::NotThere(_))), "{none:?}");
    world
        .edit_policy(How::Set, "default", &[("max-length", "8")])
        .await
        .unwrap();
    world
        .edit_policy(How::Set, "default", &[("failures-before-lock", "0")])
        .await
        .unwrap();
    let changed = Rules {
        max_length: 8,
        failures_before_lock: 0,
        ..BUILT_IN
    };
    assert_eq!(world.policies().await, [policy("default", changed)]);
    let broken = world
        .edit_policy(
            How::Set,
            "default",
            &[("min-length", "9"), ("lock-duration", "0")],
        )
        .await;
    let Err(Error::Problems(problems)) = broken else {
        panic!("{broken:?}");
    };
    let told: Vec<_> = problems
        .told()
        .iter()
        .map(|p| format!("{}: {}", p.field, p.message))
        .collect();
    assert_eq!(
        told,
        [
            "policy.lock-duration: it must be 1 to 1440",
            "policy.max-length: it must be 9 to 64"
        ]
    );
    assert_eq!(world.policies().await, [policy("default", changed)]);
}

/// The way that files go: they are held against the policies, then wait for their hashes; meanwhile a policy changes.
#[tokio::test]
async fn pins_that_were_held_against_other_policies_are_not_written() {
    let world = world();
    let busy = async || {
        let far = Instant::now() + Duration::from_secs(60);
        let mut turns = Vec::new();
        for _ in 0..world.applier.credentials.workers() {
            let us = admission::Source::operators();
            let turn = world.applier.credentials.turn(&us, far);
            turns.push(turn.await.unwrap());
        }
        turns
    };
    let files = [Source {
        name: "data.toml".to_owned(),
        text: "[[user]]\nid = \"ana\"\npin = \"246809\"\n"
            .to_owned()
            .into(),
    }];
    for (changes, written) in [(true, 0), (false, 1)] {
        let workers = busy().await;
        let told = watch::Sender::new(Progress::begin());
        let mut hears = told.subscribe();
        let how = (Mode::Write, Rest::Stays);
        let apply = world
            .applier
            .apply_telling(&files, how.0, how.1, "user root", &told);
        let change = async {
            let hashing = |progress: &Progress| progress.step == Step::Hashing;
            hears.wait_for(hashing).await.unwrap();
            if changes {
                let longer = policy(
                    "default",
                    Rules {
                        min_length: 7,
                        ..BUILT_IN
                    },
                );
                let put = move |tx: &mut dyn Transaction| policies::upsert(tx, &longer);
                world.store.write(put).await.unwrap();
            }
            drop(workers);
        };
        let (applied, ()) = tokio::join!(apply, change);
        if changes {
            assert!(matches!(applied, Err(Error::Moved(_))), "{applied:?}");
            world
                .edit_policy(How::Set, "default", &[("min-length", "6")])
                .await
                .unwrap();
        } else {
            assert!(applied.is_ok(), "{applied:?}");
        }
        assert_eq!(world.count_users().await, written);
    }
}
