//! Secure phones: what visiting finds by itself, and what home then says.

use super::*;
use crate::{
    domain::security::table::{ROWS, Row},
    home::{self, HomeRole},
};

fn traits((security_mode, secure_config): (SecurityMode, bool)) -> Traits {
    Traits {
        security_mode,
        secure_config,
        profile_choice: secure_config,
        trust_announce: secure_config,
        sync_sessions: secure_config,
    }
}

/// A home of that kind, with the caller that a row is about.
async fn home_of(row: &Row) -> HomeRole {
    home::tests::world(1).await.held_to(traits(row.home))
}

/// What a phone gets at a visiting cluster that knows what home has told, or nothing of it yet.
async fn through_both(row: &Row, is_known: bool) -> (Option<u16>, usize) {
    let berlin = Script {
        real: Some((home_of(row).await, traits(row.visiting))),
        ..Script::new("berlin").finding(Ok(Ownership::Mine))
    };
    *berlin.traits.lock().unwrap() = is_known.then(|| traits(row.home));
    let (url, local) = ("sqlite::memory:", Script::new("tokyo"));
    let ours = traits(row.visiting);
    let world = world_of(ours, url, vec![berlin], local, Duration::from_secs(5)).await;
    let device = match row.phone {
        SecurityMode::Secure => "SEPSEC",
        SecurityMode::NonSecure => "SEP1",
    };
    let outcome = world.login(device, "ana").await;
    let code = outcome.err().map(|failure| failure.code.number());
    assert_eq!(world.free(device).await, code.is_some(), "{row:?}");
    (code, world.pins_sent())
}

#[tokio::test]
async fn the_incumbents_table_row_by_row_through_both_roles() {
    for row in ROWS {
        let code = row.expected.err();
        // Visiting asks where it finds nothing itself; a home that it knows nothing of answers in its place.
        let by_itself = code == Some(45);
        let (known, asked) = through_both(&row, true).await;
        assert_eq!((known, asked), (code, usize::from(!by_itself)), "{row:?}");
        let is_old = !row.visiting.1;
        let (unknown, asked) = through_both(&row, false).await;
        let by_itself = by_itself && is_old;
        assert_eq!((unknown, asked), (code, usize::from(!by_itself)), "{row:?}");
        // Home goes by what the caller has told, whatever that one finds.
        let role = home_of(&row).await;
        let mut asked = home::tests::request("ana", "13579", "SEP1");
        asked.device.security_mode = row.phone;
        let caller = Context {
            traits: traits(row.visiting),
            ..home::tests::from("tokyo")
        };
        let answer = role.login(&caller, &asked).await;
        let refused = answer.err().map(|error| error.em_code(false).number());
        assert_eq!(refused, code, "home alone: {row:?}");
    }
}

#[tokio::test]
async fn a_secure_phone_is_judged_by_both_sides_before_its_user_is_and_home_judges_its_own_mode() {
    let old = Traits::default();
    let able = Traits::ours(SecurityMode::NonSecure);
    for (mode, told, expected) in [
        // What an upgrade of home would only lead to comes first.
        (SecurityMode::NonSecure, Some(old), Some(43)),
        (SecurityMode::NonSecure, Some(able), Some(43)),
        (SecurityMode::NonSecure, None, Some(43)),
        (SecurityMode::Secure, Some(old), Some(45)),
        (SecurityMode::Secure, Some(able), None),
        (SecurityMode::Secure, None, None),
    ] {
        let berlin = Script::new("berlin").finding(Ok(Ownership::Mine));
        *berlin.traits.lock().unwrap() = told;
        let (url, local) = ("sqlite::memory:", Script::new("tokyo"));
        let ours = Traits::ours(mode);
        let world = world_of(ours, url, vec![berlin], local, Duration::from_secs(5)).await;
        let outcome = world.login("SEPSEC", "ana").await;
        let code = outcome.err().map(|failure| failure.code.number());
        assert_eq!(code, expected, "{mode:?} {told:?}");
        let asked = world.pins_sent();
        assert_eq!(asked, usize::from(expected.is_none()), "{mode:?} {told:?}");
        world.login("SEP1", "ana").await.unwrap();
    }
}
