//! A node is killed, at each point and at any moment.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn home_is_killed_during_a_login() {
    let mut stage = Stage::set(2, HOME, VISITING, HOME).await;
    for point in ["home.login.received", "home.login.committed"] {
        stage.cut_login(point, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn home_is_killed_during_a_logout() {
    let mut stage = Stage::set(2, HOME, VISITING, HOME).await;
    for point in ["home.logout.received", "home.logout.committed"] {
        stage.cut_logout(point).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
pub(crate) async fn visiting_is_killed_during_a_login() {
    let mut stage = Stage::set(2, HOME, VISITING, VISITING).await;
    for (point, stands) in [
        ("visiting.login.pending", false),
        ("visiting.login.answered", false),
        ("visiting.login.committed", true),
    ] {
        stage.cut_login(point, stands).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn visiting_is_killed_during_a_logout() {
    let mut stage = Stage::set(2, HOME, VISITING, VISITING).await;
    for point in ["visiting.logout.ended", "visiting.logout.acknowledged"] {
        stage.cut_logout(point).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_killed_during_a_local_login() {
    let mut stage = Stage::set(1, HOME, HOME, HOME).await;
    for (point, stands) in [
        ("visiting.login.pending", false),
        ("home.login.received", false),
        ("home.login.committed", false),
        ("visiting.login.answered", false),
        ("visiting.login.committed", true),
    ] {
        stage.cut_login(point, stands).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_killed_during_a_local_logout() {
    let mut stage = Stage::set(1, HOME, HOME, HOME).await;
    for point in [
        "visiting.logout.ended",
        "home.logout.received",
        "home.logout.committed",
        "visiting.logout.acknowledged",
    ] {
        stage.cut_logout(point).await;
    }
}

/// What a phone was last told, or that it was told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    LoggedIn,
    LoggedOut,
    Nothing,
}

/// Logs in and out in turns on one phone, until something fails; tells what the phone heard last.
async fn work(
    phone: &Phone,
    device: &str,
    user: &emccd::lab::dataset::User,
    first: Told,
    done: &tokio::sync::Semaphore,
) -> Told {
    let mut told = first;
    loop {
        let next = if told == Told::LoggedIn {
            Told::LoggedOut
        } else {
            Told::LoggedIn
        };
        let shown = match next {
            Told::LoggedIn => {
                phone
                    .login_at_once(device, None, &user.user_id, &user.pin)
                    .await
            }
            _ => phone.logout(device).await,
        };
        match shown.map(|s| s.em_code) {
            // The phone is told at once; whoever waits for so many acknowledgements counts it.
            Ok(None) => {
                told = next;
                done.add_permits(1);
            }
            // The failure page comes after the row has ended.
            Ok(Some(_)) => return told,
            Err(_) => return Told::Nothing,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_phones_were_told_survives_kills_at_any_moment() {
    const PHONES: usize = 3;
    let mut stage = Stage::set(2, HOME, VISITING, VISITING).await;
    let users: Vec<_> = [0, 1, 3]
        .map(|n| stage.lab.clusters[HOME].data.user(n).unwrap().clone())
        .into();
    let devices: Vec<_> = [0, 1, 3].map(|n| stage.device(n).to_owned()).into();
    let mut told = [Told::LoggedOut; PHONES];
    let rounds = if is_long() { 60 } else { 6 };
    for round in 0..rounds {
        stage.victim = if round % 2 == 0 { VISITING } else { HOME };
        let phone = stage.phone();
        // Each round at another moment: after another number of acknowledgements.
        let acknowledgements = 7 + 5 * (round % 6) + round / 6;
        let done = tokio::sync::Semaphore::new(0);
        let works =
            join_all((0..PHONES).map(|n| work(&phone, &devices[n], &users[n], told[n], &done)));
        let member = stage.lab.clusters[stage.victim].member_mut().unwrap();
        let kill = async {
            let acknowledged =
                tokio::time::timeout(POINT_LIMIT, done.acquire_many(acknowledgements)).await;
            drop(acknowledged.expect("logins go on").unwrap());
            member.kill().await.unwrap();
        };
        let (heard, ()) = tokio::join!(works, kill);
        stage.restart_victim(&Versions::default()).await;
        stage.linked().await;
        let shared = settled(&stage.lab.clusters[HOME], &stage.lab.clusters[VISITING]).await;
        for n in 0..PHONES {
            let is_in = shared
                .iter()
                .any(|s| s.device == devices[n] && s.user == users[n].user_id);
            let expected = match heard[n] {
                Told::Nothing => is_in,
                told => told == Told::LoggedIn,
            };
            assert_eq!(
                is_in, expected,
                "round {round}: phone {n} was told {:?}; {shared:?}",
                heard[n]
            );
            told[n] = if is_in {
                Told::LoggedIn
            } else {
                Told::LoggedOut
            };
        }
        let old = stage.device(OLD).to_owned();
        assert!(
            shared.iter().any(|s| s.device == old),
            "round {round}: the old session"
        );
    }
}
