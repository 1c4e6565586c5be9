//! Which device profile, the tickets that stand in for a PIN, a PIN that must be changed, and security modes.

use super::{expiry::DAY_MS, *};
use crate::{
    clock::Timestamp,
    domain::{
        login::{ProfileChoice, TICKET_LIFE},
        version::Version,
    },
    secret::Ticket,
    store::audit,
};

impl World {
    async fn run(
        &self,
        mut change: impl FnMut(&mut dyn Transaction) -> Result<(), store::Error> + Send + 'static,
    ) {
        self.store
            .write(move |tx: &mut dyn Transaction| change(tx))
            .await
            .unwrap();
    }

    /// Gives ana these profiles and no others; `default` is her default one.
    async fn profiles(&self, names: &'static [&'static str], default: Option<&'static str>) {
        self.run(move |tx| {
            let ana = UserId::new("ana").unwrap();
            for old in profiles::for_user(tx, &ana)? {
                profiles::remove(tx, &old.name)?;
            }
            for name in names {
                let profile = Profile {
                    name: ProfileName::new(*name).unwrap(),
                    user_id: ana.clone(),
                    is_default: default == Some(*name),
                    lines: Vec::new(),
                    locale: None,
                    device_pool: None,
                    services: Vec::new(),
                };
                profiles::upsert(tx, &profile)?;
            }
            Ok(())
        })
        .await;
    }

    async fn asks(&self, caller: &str, request: &LoginRequest) -> ProfileChoice {
        match self.role.login(&from(caller), request).await.unwrap() {
            LoginAnswer::Choose(choice) => choice,
            LoginAnswer::Opened(services) => panic!("opened: {services:?}"),
        }
    }

    async fn must_change(&self) {
        self.run(|tx| {
            tx.execute("UPDATE credentials SET must_change = 1", &[])
                .map(drop)
        })
        .await;
    }

    async fn outcomes(&self) -> Vec<String> {
        let all = self
            .store
            .read(|tx: &mut dyn Transaction| audit::list(tx, 100))
            .await
            .unwrap();
        all.into_iter().map(|entry| entry.outcome).collect()
    }
}

/// The choice of `profile`, as a new submission.
fn chosen(ticket: &Ticket, profile: &str, device: &str) -> LoginRequest {
    LoginRequest {
        proof: Proof::Ticket(ticket.clone()),
        profile: Some(ProfileName::new(profile).unwrap()),
        ..request("ana", "00000", device)
    }
}

fn names(choice: &ProfileChoice) -> Vec<&str> {
    choice.profiles.iter().map(ProfileName::as_str).collect()
}

#[tokio::test]
async fn the_profile_is_the_default_one_the_only_one_or_asked_for() {
    for (profiles, default, expected) in [
        (&["desk"][..], None, Some("desk")),
        (&["desk", "lobby"], Some("lobby"), Some("lobby")),
        (&["desk", "lobby"], None, None),
    ] {
        for caller in ["tokyo", "berlin"] {
            let world = world(1).await;
            world.profiles(profiles, default).await;
            let login = request("ana", "13579", "SEP1");
            match expected {
                Some(name) => {
                    let services = world.opens(caller, &login).await;
                    assert_eq!(services.profile.as_str(), name, "{profiles:?} {default:?}");
                }
                None => {
                    let choice = world.asks(caller, &login).await;
                    assert_eq!(names(&choice), profiles);
                    assert_eq!(world.state(caller, login.session_id).await, None);
                    assert_eq!(world.held().await, 0, "nothing is open yet");
                }
            }
        }
    }
}

#[tokio::test]
async fn without_a_profile_it_is_12_for_a_visitor_and_205_here() {
    let world = world(1).await;
    world.profiles(&[], None).await;
    for (caller, expected) in [("tokyo", 12), ("berlin", 205)] {
        assert_eq!(
            code(&world, caller, &request("ana", "13579", "SEP1")).await,
            expected
        );
    }
}

#[tokio::test]
async fn a_caller_that_can_not_ask_gets_the_first_profile_by_name() {
    let world = world(1).await;
    world.profiles(&["lobby", "desk"], None).await;
    let mut old = from("tokyo");
    old.traits = Traits::default();
    let answer = world
        .role
        .login(&old, &request("ana", "13579", "SEP1"))
        .await
        .unwrap();
    let LoginAnswer::Opened(services) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(services.profile.as_str(), "desk");
}

#[tokio::test]
async fn the_ticket_opens_the_session_once() {
    for (caller, wrong) in [("tokyo", 2), ("berlin", 201)] {
        let world = world(2).await;
        world.profiles(&["desk", "lobby"], None).await;
        let choice = world.asks(caller, &request("ana", "13579", "SEP1")).await;
        let login = chosen(&choice.ticket, "lobby", "SEP1");
        let services = world.opens(caller, &login).await;
        assert_eq!(services.profile.as_str(), "lobby");
        // The same submission gets its first answer again; another one gets none.
        assert_eq!(world.opens(caller, &login).await, services);
        let again = chosen(&choice.ticket, "desk", "SEP1");
        assert_eq!(code(&world, caller, &again).await, wrong);
        assert!(world.outcomes().await[0].contains("wrong, used or expired ticket"));
    }
}

#[tokio::test]
async fn a_ticket_is_good_for_one_user_phone_and_caller_and_not_for_long() {
    let world = world(4).await;
    world.profiles(&["desk", "lobby"], None).await;
    let choice = world.asks("tokyo", &request("ana", "13579", "SEP1")).await;
    let good = || chosen(&choice.ticket, "desk", "SEP1");
    let bob = LoginRequest {
        user: request("bob", "00000", "SEP1").user,
        ..good()
    };
    let made_up = chosen(&Ticket::from_bytes([1; 16]), "desk", "SEP1");
    let elsewhere = chosen(&choice.ticket, "desk", "SEP2");
    for (caller, login, why) in [
        ("tokyo", bob, "another user"),
        ("tokyo", elsewhere, "another phone"),
        ("lima", good(), "another caller"),
        ("berlin", good(), "another caller"),
        ("tokyo", made_up, "never given out"),
    ] {
        let expected = if caller == "berlin" { 201 } else { 2 };
        assert_eq!(code(&world, caller, &login).await, expected, "{why}");
    }
    // A wall clock that is set makes it no older, and no younger.
    let life = u64::try_from(TICKET_LIFE.as_millis()).unwrap();
    for by in [DAY_MS, -DAY_MS] {
        let login = request("ana", "13579", "SEP1");
        let in_time = world.asks("tokyo", &login).await.ticket;
        world.role.clock.set_offset_millis(by);
        world.time_goes_on(life - 60_000).await;
        let login = chosen(&in_time, "desk", "SEP1");
        world.opens("tokyo", &login).await;
        let login = request("ana", "13579", "SEP1");
        let late = world.asks("tokyo", &login).await.ticket;
        world.role.clock.set_offset_millis(0);
        world.time_goes_on(life).await;
        let login = chosen(&late, "desk", "SEP1");
        assert_eq!(code(&world, "tokyo", &login).await, 2, "too late: {by}");
    }
}

#[tokio::test]
async fn wrong_tickets_lock_nobody_and_a_ticket_opens_no_locked_or_disabled_account() {
    let world = world(2).await;
    world.profiles(&["desk", "lobby"], None).await;
    for _ in 0..20 {
        let wrong = chosen(&Ticket::from_bytes([1; 16]), "desk", "SEP1");
        assert_eq!(code(&world, "tokyo", &wrong).await, 2);
    }
    let choice = world.asks("tokyo", &request("ana", "13579", "SEP1")).await;
    for _ in 0..5 {
        assert_eq!(
            code(&world, "tokyo", &request("ana", "00000", "SEP9")).await,
            2
        );
    }
    let login = chosen(&choice.ticket, "desk", "SEP1");
    let error = world.role.login(&from("tokyo"), &login).await.unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error:?}");
}

#[tokio::test]
async fn a_changed_pin_voids_the_ticket() {
    let world = world(1).await;
    world.profiles(&["desk", "lobby"], None).await;
    let choice = world.asks("tokyo", &request("ana", "13579", "SEP1")).await;
    world
        .run(|tx| {
            // The clock of who sets it is behind.
            let ana = UserId::new("ana").unwrap();
            let phc = stored::get(tx, &ana)?.unwrap().phc;
            stored::put_hash(tx, &ana, &phc, Timestamp::from_millis(0))
        })
        .await;
    let login = chosen(&choice.ticket, "desk", "SEP1");
    assert_eq!(code(&world, "tokyo", &login).await, 2);
}

#[tokio::test]
async fn a_repeat_is_asked_again_if_the_pin_is_right_again_and_either_answers_ticket_opens_once() {
    for used in [0, 1] {
        let world = world(1).await;
        world.profiles(&["desk", "lobby"], None).await;
        let first = request("ana", "13579", "SEP1");
        let one = world.asks("tokyo", &first).await;
        // Also where the user has only one profile by now: an id that was asked about opens nothing.
        world.profiles(&["desk"], None).await;
        let other = world.asks("tokyo", &first).await;
        assert_ne!(one.ticket, other.ticket);
        let mut wrong = first.clone();
        wrong.proof = Proof::Pin(pin("00000"));
        assert_eq!(code(&world, "tokyo", &wrong).await, 2);
        let tickets = [&one.ticket, &other.ticket];
        world
            .opens("tokyo", &chosen(tickets[used], "desk", "SEP1"))
            .await;
        for ticket in tickets {
            assert_eq!(
                code(&world, "tokyo", &chosen(ticket, "desk", "SEP1")).await,
                2
            );
        }
    }
}

#[tokio::test]
async fn another_login_voids_the_ticket_of_the_one_before_and_a_late_copy_of_that_one_takes_nothing()
 {
    let world = world(1).await;
    world.profiles(&["desk", "lobby"], None).await;
    let first = request("ana", "13579", "SEP1");
    let old = world.asks("tokyo", &first).await;
    let new = world.asks("tokyo", &request("ana", "13579", "SEP1")).await;
    world.asks("tokyo", &first).await;
    let voided = chosen(&old.ticket, "desk", "SEP1");
    assert_eq!(code(&world, "tokyo", &voided).await, 2);
    world
        .opens("tokyo", &chosen(&new.ticket, "desk", "SEP1"))
        .await;
}

/// Sessions and kept answers are forgotten table by table: an answer may be there for a while without its session. It was
/// opened once, and is no question that was asked.
#[tokio::test]
async fn a_repeat_of_a_login_whose_session_is_forgotten_already_opens_and_asks_nothing() {
    let world = world(1).await;
    world.profiles(&["desk", "lobby"], Some("desk")).await;
    let login = request("ana", "13579", "SEP1");
    world.opens("tokyo", &login).await;
    world
        .run(|tx| tx.execute("DELETE FROM sessions", &[]).map(drop))
        .await;
    let refused = world.role.login(&from("tokyo"), &login).await.unwrap_err();
    assert!(
        matches!(
            refused,
            Error::SessionEnded(crate::domain::session::EndReason::Abandoned)
        ),
        "{refused:?}"
    );
    assert_eq!(world.state("tokyo", login.session_id).await, None);
    assert_eq!(world.held().await, 0);
}

/// Two nodes of one cluster on one store.
#[tokio::test]
async fn two_copies_of_a_login_at_two_nodes_ask_the_user_and_either_ticket_is_good() {
    for used in [0, 1] {
        let world = world(1).await;
        world.profiles(&["desk", "lobby"], None).await;
        let second = world.another_node();
        let login = request("ana", "13579", "SEP1");
        let context = from("tokyo");
        let (a, b) = tokio::join!(
            world.role.login(&context, &login),
            second.login(&context, &login)
        );
        let tickets: Vec<_> = [a, b]
            .into_iter()
            .map(|answer| match answer.unwrap() {
                LoginAnswer::Choose(choice) => choice.ticket,
                LoginAnswer::Opened(services) => panic!("opened: {services:?}"),
            })
            .collect();
        let login = chosen(&tickets[used], "desk", "SEP1");
        let answer = second.login(&context, &login).await.unwrap();
        assert!(matches!(answer, LoginAnswer::Opened(_)), "{answer:?}");
    }
}

#[tokio::test]
async fn a_profile_that_is_not_the_users_is_12() {
    let world = world(1).await;
    world.profiles(&["desk", "lobby"], None).await;
    let choice = world.asks("tokyo", &request("ana", "13579", "SEP1")).await;
    let login = chosen(&choice.ticket, "bob-profile", "SEP1");
    assert_eq!(code(&world, "tokyo", &login).await, 12);
}

#[tokio::test]
async fn a_pin_that_must_be_changed_is_41_or_209_with_a_ticket_and_only_when_it_is_right() {
    for (caller, wrong, expected) in [("tokyo", 2, 41), ("berlin", 201, 209)] {
        let world = world(1).await;
        world.must_change().await;
        assert_eq!(
            code(&world, caller, &request("ana", "00000", "SEP1")).await,
            wrong
        );
        let right = request("ana", "13579", "SEP1");
        let mut tickets = Vec::new();
        for _ in 0..2 {
            let refused = world.role.login(&from(caller), &right).await.unwrap_err();
            let refusal = refused.to_refusal(caller == "berlin");
            assert_eq!(refusal.code.number(), expected);
            let Detail::Ticket(ticket) = refusal.detail else {
                panic!("{refusal:?}")
            };
            tickets.push(ticket);
        }
        assert_ne!(tickets[0], tickets[1], "each answer has its own");
        let mut repeat = right.clone();
        repeat.proof = Proof::Pin(pin("00000"));
        assert_eq!(code(&world, caller, &repeat).await, wrong);
        // It is for a new PIN, and opens no session.
        let login = chosen(&tickets[1], "ana-profile", "SEP1");
        assert_eq!(code(&world, caller, &login).await, wrong);
    }
}

#[tokio::test]
async fn a_late_copy_of_a_login_that_visiting_gave_up_is_told_so_and_not_to_change_the_pin() {
    for (caller, expected) in [("tokyo", 41), ("berlin", 209)] {
        let world = world(1).await;
        world.must_change().await;
        let given_up = request("ana", "13579", "SEP1");
        assert_eq!(code(&world, caller, &given_up).await, expected);
        let logout = logout_of(given_up.session_id);
        world.role.logout(&from(caller), logout).await.unwrap();
        let late = world.role.login(&from(caller), &given_up).await;
        let refusal = late.unwrap_err().to_refusal(caller == "berlin");
        assert_eq!(refusal.detail, Detail::SessionEnded(logout.reason));
        // It stands in the way of no other login.
        let next = request("ana", "13579", "SEP1");
        assert_eq!(code(&world, caller, &next).await, expected);
    }
}

#[tokio::test]
async fn security_modes_are_judged_by_what_hello_told_and_not_for_our_own_phones() {
    let secure = |name: &str| {
        let mut login = request("ana", "13579", name);
        login.device.security_mode = SecurityMode::Secure;
        login
    };
    let told = |mode, secure_config| Traits {
        security_mode: mode,
        secure_config,
        profile_choice: true,
        trust_announce: true,
        sync_sessions: true,
    };
    let world = world(1).await;
    for (traits, expected) in [
        (told(SecurityMode::NonSecure, true), 43),
        (told(SecurityMode::Secure, false), 45),
        (told(SecurityMode::Secure, true), 46),
    ] {
        let mut caller = from("tokyo");
        caller.traits = traits;
        let refused = world
            .role
            .login(&caller, &secure("SEP1"))
            .await
            .unwrap_err();
        assert_eq!(refused.em_code(false).number(), expected, "{traits:?}");
        assert_eq!(world.held().await, 0);
    }
    world.opens("berlin", &secure("SEP1")).await;
}

#[tokio::test]
async fn a_node_that_is_held_back_offers_nothing_that_it_does_not_tell() {
    let mut world = world(2).await;
    world.role.traits = Traits::of(SecurityMode::Secure, Version::V1_0);
    world.profiles(&["lobby", "desk"], None).await;
    let services = world.opens("tokyo", &request("ana", "13579", "SEP1")).await;
    assert_eq!(
        services.profile.as_str(),
        "desk",
        "it has no choice to offer"
    );
    let mut secure = request("bob", "13579", "SEP2");
    secure.device.security_mode = SecurityMode::Secure;
    let mut caller = from("tokyo");
    caller.traits = Traits::ours(SecurityMode::Secure);
    let refused = world.role.login(&caller, &secure).await.unwrap_err();
    assert_eq!(refused.em_code(false).number(), 45);
    // Nothing of this goes over the wire for a phone of its own.
    world.asks("berlin", &request("ana", "13579", "SEP3")).await;
}
