//! Homes that ask which device profile: what is remembered of it, and what becomes of the choice.

use super::*;
use crate::secret::Ticket;

fn profile(name: &str) -> ProfileName {
    ProfileName::new(name).unwrap()
}

/// A home that asks whoever comes with a PIN.
fn asking(name: &str) -> Script {
    let home = Script::new(name).finding(Ok(Ownership::Mine));
    *home.choice.lock().unwrap() = Some(ProfileChoice {
        profiles: vec![profile("desk"), profile("lobby")],
        ticket: Ticket::from_bytes([7; 16]),
    });
    home
}

impl World {
    async fn asked(&self, device: &str, name: &str) -> Result<Choice, Failure> {
        match self.role.login(self.submission(device, name)).await? {
            LoginOutcome::Choose(choice) => Ok(choice),
            LoginOutcome::LoggedIn(done) => panic!("not asked: {done:?}"),
        }
    }

    fn choice(&self, device: &str, ticket: &Ticket, entry: usize) -> PhoneChoice {
        PhoneChoice {
            device: device.to_owned(),
            ticket: Some(ticket.clone()),
            entry,
            emcc: true,
            caller: caller(),
            reference: self.role.new_ref(),
        }
    }

    async fn choose(&self, choice: PhoneChoice) -> Result<LoggedIn, u16> {
        match self.role.choose(choice).await {
            Ok(LoginOutcome::LoggedIn(done)) => Ok(*done),
            Ok(LoginOutcome::Choose(choice)) => panic!("asked again: {choice:?}"),
            Err(failure) => Err(failure.code.number()),
        }
    }

    async fn log_out(&self, device: &str) {
        let reference = self.role.new_ref();
        self.role.logout(device, caller(), reference).await.unwrap();
    }

    fn asked_of(&self, peer: usize) -> usize {
        self.peers[peer].finds.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_choice_of_who_named_the_cluster_says_nothing_of_the_bare_name() {
    let (mut berlin, mut lima) = (asking("berlin"), Script::new("lima"));
    (berlin.owns, lima.owns) = (Some("ana"), Some("ana"));
    let world = world(vec![berlin, lima]).await;
    let asked = world.asked("SEP1", "ana@berlin").await.unwrap();
    let chosen = world.choice("SEP1", &asked.ticket, 1);
    assert_eq!(world.choose(chosen).await.unwrap().home, cluster("berlin"));
    world.log_out("SEP1").await;
    let sent = world.pins_sent();
    assert_eq!(world.code("SEP1", "ana").await, 4, "both claim it");
    assert_eq!(world.pins_sent(), sent, "a PIN went somewhere");
}

#[tokio::test]
async fn a_choice_of_who_typed_the_whole_name_is_remembered() {
    let world = world(vec![asking("berlin"), Script::new("lima")]).await;
    let asked = world.asked("SEP1", "ana").await.unwrap();
    let chosen = world.choice("SEP1", &asked.ticket, 1);
    let done = world.choose(chosen).await.unwrap();
    assert_eq!(
        (done.home.as_str(), done.user_id.as_str()),
        ("berlin", "ana")
    );
    let wanted = world.peers[0].profile.lock().unwrap().clone();
    assert_eq!(wanted, Some(profile("lobby")));
    assert_eq!(world.asked_of(1), 1);
    world.asked("SEP2", "ana").await.unwrap();
    assert_eq!(world.asked_of(1), 1, "the second login asked nobody");
}

#[tokio::test]
async fn a_choice_that_can_not_be_is_refused_and_reaches_no_home() {
    let world = world(vec![asking("berlin")]).await;
    let ticket = world.asked("SEP1", "ana").await.unwrap().ticket;
    let sent = world.pins_sent();
    let good = world.choice("SEP1", &ticket, 0);
    let mut none = good.clone();
    none.ticket = None;
    let mut local_only = good.clone();
    local_only.emcc = false;
    let other = Ticket::from_bytes([8; 16]);
    for (choice, code) in [
        (none, 201),
        (local_only, 213),
        (world.choice("SEP1", &ticket, 2), 201),
        (world.choice("SEP1", &other, 0), 201),
        (world.choice("SEP2", &ticket, 0), 201),
        (world.choice("SEP404", &ticket, 0), 11),
        (world.choice("SEPOFF", &ticket, 0), 22),
    ] {
        assert_eq!(world.choose(choice).await.unwrap_err(), code);
    }
    world.parameters.publish(Parameters {
        validate_ip_address: true,
        ..Parameters::default()
    });
    assert_eq!(world.choose(good.clone()).await.unwrap_err(), 28);
    world.parameters.publish(Parameters::default());

    world.peers[0].gone.store(true, Ordering::SeqCst);
    let gone = world.role.choose(good.clone()).await.unwrap_err();
    assert_eq!(gone.code.number(), 38);
    assert!(gone.cause.contains("berlin"), "{gone}");
    world.peers[0].gone.store(false, Ordering::SeqCst);
    assert_eq!(world.pins_sent(), sent);

    // As long as it is of use, whatever the wall clock says; and no longer.
    world.clock.set_offset_millis(86_400_000);
    world.choose(good.clone()).await.unwrap();
    assert_eq!(
        world.choose(good).await.unwrap_err(),
        18,
        "the phone is taken"
    );
}

#[tokio::test]
async fn a_choice_that_is_too_old_is_refused_whatever_the_wall_clock_says() {
    for by in [86_400_000, -86_400_000] {
        let world = world(vec![asking("berlin")]).await;
        let ticket = world.asked("SEP1", "ana").await.unwrap().ticket;
        let sent = world.pins_sent();
        world.clock.set_offset_millis(by);
        world.time_goes_on(120_000).await;
        let late = world.choice("SEP1", &ticket, 0);
        assert_eq!(world.choose(late).await.unwrap_err(), 201, "{by}");
        assert_eq!(world.pins_sent(), sent, "{by}");
    }
}

#[tokio::test]
async fn a_choice_is_remembered_of_the_newest_page_only() {
    let world = world(vec![asking("berlin")]).await;
    let first = world.asked("SEP1", "ana").await.unwrap().ticket;
    world.peers[0]
        .choice
        .lock()
        .unwrap()
        .as_mut()
        .unwrap()
        .ticket = Ticket::from_bytes([9; 16]);
    let second = world.asked("SEP1", "ana").await.unwrap().ticket;
    let old = world.choice("SEP1", &first, 0);
    assert_eq!(world.choose(old).await.unwrap_err(), 201);
    let new = world.choice("SEP1", &second, 0);
    world.choose(new).await.unwrap();
}
