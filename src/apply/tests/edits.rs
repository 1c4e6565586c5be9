//! One record, changed by several at once.

use std::collections::BTreeMap;

use super::*;
use crate::{
    apply::edit::{Edit, How},
    store::users::User,
};

fn edit(how: How, columns: &[(&str, &str)], pin: Option<&str>) -> Edit {
    Edit {
        kind: &columns::USER,
        name: "ana".to_owned(),
        how,
        columns: columns
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>(),
        pin: pin.map(|pin| Pin::new(pin.to_owned()).unwrap()),
    }
}

async fn ana(world: &World) -> User {
    let found = world
        .store
        .read(|tx: &mut dyn Transaction| users::list(tx, None, 1_000))
        .await
        .unwrap();
    found
        .into_iter()
        .find(|u| u.user_id.as_str() == "ana")
        .unwrap()
}

async fn verifies(world: &World, pin: &str) -> bool {
    let hashes = world
        .store
        .read(|tx: &mut dyn Transaction| users::User::hashes(tx, &["ana".to_owned()]))
        .await
        .unwrap();
    let pin = Pin::new(pin.to_owned()).unwrap();
    let credentials = &world.applier.credentials;
    credentials
        .verify_in_turn(&pin, hashes["ana"].clone())
        .await
        .unwrap()
}

#[tokio::test]
async fn changes_of_one_record_at_once_are_all_there_afterwards() {
    let world = world();
    world.apply(GOOD, Mode::Write).await.unwrap();
    for round in 0..10 {
        let on = edit(How::Set, &[("enabled", "true")], None);
        world.applier.edit(on, "root").await.unwrap();
        let (pin, extension) = (format!("73915{round}"), format!("200{round}"));
        let with_pin = world
            .applier
            .edit(edit(How::Set, &[], Some(&pin)), "help desk");
        let off = edit(How::Set, &[("enabled", "false")], None);
        let off = world.applier.edit(off, "admin");
        let moved = edit(How::Set, &[("extension", &extension)], None);
        let moved = world.applier.edit(moved, "admin");
        let (with_pin, off, moved) = tokio::join!(with_pin, off, moved);
        with_pin.unwrap();
        off.unwrap();
        moved.unwrap();
        let ana = ana(&world).await;
        assert!(!ana.enabled, "round {round}");
        assert_eq!(ana.primary_extension.unwrap().as_str(), extension);
        assert!(verifies(&world, &pin).await, "round {round}");
    }
    let audit = world
        .store
        .read(|tx: &mut dyn Transaction| crate::store::audit::list(tx, 1_000))
        .await
        .unwrap();
    let of_desk: Vec<_> = audit.iter().filter(|e| e.actor == "help desk").collect();
    assert_eq!(of_desk.len(), 10);
    for entry in of_desk {
        assert!(
            !entry.outcome.contains("enabled"),
            "a new PIN enables nobody: {}",
            entry.outcome
        );
    }
}

#[tokio::test]
async fn of_two_who_add_the_same_one_is_refused() {
    let world = world();
    for round in 0..5 {
        let one = world
            .applier
            .edit(edit(How::Add, &[], Some("113352")), "one");
        let other = world
            .applier
            .edit(edit(How::Add, &[], Some("224468")), "other");
        let (one, other) = tokio::join!(one, other);
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
        let (pin, refused) = if one.is_ok() {
            ("113352", other)
        } else {
            ("224468", one)
        };
        assert!(matches!(refused, Err(Error::There(_))), "{refused:?}");
        assert!(verifies(&world, pin).await, "round {round}");
        let gone = "ana".parse().unwrap();
        world
            .store
            .write(move |tx: &mut dyn Transaction| users::remove(tx, &gone))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn what_was_made_from_another_state_is_not_written() {
    let world = world();
    world.apply(GOOD, Mode::Write).await.unwrap();
    let source = Source {
        name: "command line".to_owned(),
        text: "[[user]]\nid = \"ana\"\n".to_owned().into(),
    };
    let premise = Premise {
        kind: &columns::USER,
        name: "ana".to_owned(),
        there: None,
    };
    let refused = world
        .applier
        .apply_if(
            &[source],
            (Mode::Write, Rest::Stays),
            "root",
            Terms {
                premise: Some(premise),
                ..Terms::default()
            },
            &watch::Sender::new(Progress::begin()),
        )
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, Error::Moved(name) if name == "ana"),
        "{refused:?}"
    );
    assert!(ana(&world).await.primary_extension.is_some());
}
