//! `kill -9` at every step of login and logout, and what must hold afterwards.
//!
//! Whatever was killed and wherever: a phone has one session, a base device one holder; what a phone was told
//! stands; nothing stays undecided beyond its deadline; what is owed is delivered; the user can log in again at
//! once. And a request that comes again with its id gets the answer that it had, or hears that it is over.

use std::time::{Duration, Instant};

use emccd::{
    domain::{
        em_code::EmCode,
        refusal::Detail,
        session::{EndReason, Role, State},
    },
    lab::{
        Hosting, Lab, Spec,
        member::Versions,
        phone::{Phone, Shown},
    },
};
use futures_util::future::join_all;
use tonic::Code;

use crate::support::{
    binary, is_long, lab,
    raw_peer::{self, Client, call, peer_client},
    rows::{Rows, rows, settled},
};

/// Long enough for a login on a busy machine, short enough to wait for.
const DEADLINE: Duration = Duration::from_secs(4);
/// How long a node may take to come to a point: a debug build on a busy machine.
const POINT_LIMIT: Duration = Duration::from_secs(30);
/// How much later than its deadline an undecided login may be gone: the sweep's second, and a busy machine's.
const SWEEP_SLACK: Duration = Duration::from_secs(6);

/// The lab, who is killed, and where users and phones live. For a local login both clusters are one.
struct Stage {
    lab: Lab,
    home: usize,
    visiting: usize,
    victim: usize,
}

/// The user and the phone of every attempt that is cut off; the others are there to see what it leaves behind.
const CUT: usize = 0;
const SECOND: usize = 1;
/// Logged in before anybody is killed, on the phone of the same number: it must outlive everything.
const OLD: usize = 2;

impl Stage {
    async fn set(clusters: usize, home: usize, visiting: usize, victim: usize) -> Self {
        let settings = vec![
            (
                "login".to_owned(),
                format!("deadline = \"{}ms\"", DEADLINE.as_millis()),
            ),
            ("login".to_owned(), "find-deadline = \"3s\"".to_owned()),
        ];
        let hosting = Hosting::Processes { binary: binary() };
        let lab = Lab::start(&Spec {
            clusters,
            hosting,
            settings,
            ..Spec::default()
        })
        .await
        .unwrap();
        let stage = Self {
            lab,
            home,
            visiting,
            victim,
        };
        assert_eq!(stage.log_in(OLD, OLD).await.unwrap().em_code, None);
        stage
    }

    fn phone(&self) -> Phone {
        self.lab.clusters[self.visiting]
            .member()
            .unwrap()
            .phone()
            .unwrap()
    }

    fn device(&self, phone: usize) -> &str {
        &self.lab.clusters[self.visiting]
            .data
            .phone(phone)
            .unwrap()
            .name
    }

    async fn log_in(&self, user: usize, phone: usize) -> Result<Shown, emccd::lab::phone::Error> {
        let user = self.lab.clusters[self.home].data.user(user).unwrap();
        self.phone()
            .login_at_once(self.device(phone), None, &user.user_id, &user.pin)
            .await
    }

    async fn must_log_in(&self, user: usize, phone: usize, when: &str) {
        let shown = self
            .log_in(user, phone)
            .await
            .unwrap_or_else(|error| panic!("{when}: {error:?}"));
        assert_eq!(shown.em_code, None, "{when}: {}", shown.text);
    }

    async fn must_log_out(&self, phone: usize, when: &str) {
        let shown = self
            .phone()
            .logout(self.device(phone))
            .await
            .unwrap_or_else(|e| panic!("{when}: {e:?}"));
        assert_eq!(shown.em_code, None, "{when}: {}", shown.text);
    }

    /// Who is on which phone, once both sides agree; the old session among them is checked and left out.
    async fn agreed(&self, when: &str) -> Vec<(usize, usize)> {
        let (home, visiting) = (
            &self.lab.clusters[self.home],
            &self.lab.clusters[self.visiting],
        );
        let shared = settled(home, visiting).await;
        let number = |list: Vec<&str>, name: &str| {
            list.iter()
                .position(|n| *n == name)
                .unwrap_or_else(|| panic!("{when}: whose is {name}?"))
        };
        let users = || home.data.users.iter().map(|u| u.user_id.as_str()).collect();
        let phones = || (0..8).map(|n| self.device(n)).collect();
        let mut all: Vec<_> = shared
            .iter()
            .map(|s| (number(users(), &s.user), number(phones(), &s.device)))
            .collect();
        all.sort_unstable();
        let old = all.iter().position(|pair| *pair == (OLD, OLD));
        all.remove(old.unwrap_or_else(|| {
            panic!("{when}: what the phone was told has not survived: {all:?}")
        }));
        all
    }

    async fn restart_victim(&mut self, versions: &Versions) {
        let member = self.lab.clusters[self.victim].member_mut().unwrap();
        if member.is_running() {
            member.kill().await.unwrap();
        }
        member.start(versions).await.unwrap();
    }

    async fn linked(&self) {
        if self.home != self.visiting {
            let (home, visiting) = (
                &self.lab.clusters[self.home],
                &self.lab.clusters[self.visiting],
            );
            home.wait_linked(&visiting.id).await.unwrap();
            visiting.wait_linked(&home.id).await.unwrap();
        }
    }

    /// Does `act` while the victim is to stop at `point`, kills it there, and gives what the phone showed.
    async fn cut_off(
        &mut self,
        point: &str,
        act: impl AsyncFnOnce(&Phone, &str) -> Result<Shown, emccd::lab::phone::Error>,
    ) -> Option<Shown> {
        self.restart_victim(&Versions::stopping_at(point)).await;
        self.linked().await;
        let (phone, device) = (self.phone(), self.device(CUT).to_owned());
        let member = self.lab.clusters[self.victim].member_mut().unwrap();
        let kill = async {
            member.wait_stopped_at(point, POINT_LIMIT).await.unwrap();
            member.kill().await.unwrap();
        };
        let (shown, ()) = tokio::join!(act(&phone, &device), kill);
        self.rows_of_victim().await.hold_invariants();
        assert_eq!(
            shown.is_err(),
            self.victim == self.visiting,
            "{point}: the phone hears of a home's death only"
        );
        shown.ok()
    }

    async fn rows_of_victim(&self) -> Rows {
        rows(&self.lab.clusters[self.victim]).await
    }

    /// A login that is cut off at `point`. `stands`: visiting had made it durable, but could not say so.
    async fn cut_login(&mut self, point: &str, stands: bool) {
        let user = self.lab.clusters[self.home].data.user(CUT).unwrap().clone();
        let act = async |phone: &Phone, device: &str| {
            phone
                .login_at_once(device, None, &user.user_id, &user.pin)
                .await
        };
        let shown = self.cut_off(point, act).await;
        if let Some(shown) = shown {
            assert!(
                matches!(shown.em_code, Some(40 | 208)),
                "{point}: {}",
                shown.text
            );
            let told = rows(&self.lab.clusters[self.visiting]).await;
            assert!(
                told.sessions.iter().all(|s| s.state != State::Pending),
                "{point}: shown before it was ended"
            );
        }
        self.restart_victim(&Versions::default()).await;
        self.rows_of_victim().await.hold_invariants();
        self.must_log_in(
            CUT,
            SECOND,
            &format!("{point}: the user at once on another phone"),
        )
        .await;
        if stands {
            let taken = self.log_in(SECOND, CUT).await.unwrap();
            assert_eq!(taken.em_code, Some(18), "{point}: {}", taken.text);
            assert_eq!(
                self.agreed(point).await,
                [(CUT, CUT), (CUT, SECOND)],
                "{point}"
            );
        } else {
            self.free_in_time(point).await;
            assert_eq!(
                self.agreed(point).await,
                [(CUT, SECOND), (SECOND, CUT)],
                "{point}"
            );
        }
        for phone in [CUT, SECOND] {
            self.must_log_out(phone, point).await;
        }
        self.nobody_but_the_old(point).await;
    }

    /// Another user gets the phone, at the latest when the deadline of the login that was cut off has passed.
    async fn free_in_time(&self, point: &str) {
        let began = Instant::now();
        loop {
            let shown = self.log_in(SECOND, CUT).await.unwrap();
            if shown.em_code.is_none() {
                return;
            }
            assert_eq!(shown.em_code, Some(26), "{point}: {}", shown.text);
            assert!(
                began.elapsed() < DEADLINE + SWEEP_SLACK,
                "{point}: the phone is still taken: {}",
                shown.text
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A logout that is cut off at `point`.
    async fn cut_logout(&mut self, point: &str) {
        self.must_log_in(CUT, CUT, point).await;
        let id = {
            let shared = rows(&self.lab.clusters[self.visiting]).await;
            let row = shared.sessions.iter().find(|s| {
                s.state == State::Active
                    && s.role == Role::Visiting
                    && s.device.as_str() == self.device(CUT)
            });
            row.unwrap().id
        };
        let shown = self
            .cut_off(point, async |phone: &Phone, device: &str| {
                phone.logout(device).await
            })
            .await;
        if let Some(shown) = shown {
            assert_eq!(
                shown.em_code, None,
                "{point}: home's silence is not the phone's: {}",
                shown.text
            );
        }
        self.restart_victim(&Versions::default()).await;
        self.rows_of_victim().await.hold_invariants();
        self.must_log_in(
            CUT,
            SECOND,
            &format!("{point}: the user at once on another phone"),
        )
        .await;
        self.must_log_in(
            SECOND,
            CUT,
            &format!("{point}: another user at once on that phone"),
        )
        .await;
        assert_eq!(
            self.agreed(point).await,
            [(CUT, SECOND), (SECOND, CUT)],
            "{point}"
        );
        for (cluster, role) in [(self.home, Role::Home), (self.visiting, Role::Visiting)] {
            let after = rows(&self.lab.clusters[cluster]).await;
            let row = after
                .session(role, id)
                .unwrap_or_else(|| panic!("{point}: no tombstone at {role}"));
            // The next login may have told home first, and its list of ended sessions has no reasons.
            let known = row.end_reason == Some(EndReason::User)
                || (role == Role::Home && row.end_reason == Some(EndReason::Superseded));
            assert!(row.state == State::Ended && known, "{point}: {row:?}");
        }
        for phone in [CUT, SECOND] {
            self.must_log_out(phone, point).await;
        }
        self.nobody_but_the_old(point).await;
    }

    async fn nobody_but_the_old(&self, point: &str) {
        assert_eq!(self.agreed(point).await, [], "{point}");
        let held = rows(&self.lab.clusters[self.home]).await.held();
        assert_eq!(
            held,
            usize::from(self.home != self.visiting),
            "{point}: base devices held"
        );
    }
}

const HOME: usize = 0;
const VISITING: usize = 1;

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
async fn visiting_is_killed_during_a_login() {
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

/// The phone of raw logins: none that a cluster of the lab has.
const DEVICE: &str = "SEPFFFFFFFFFFFF";

/// The code and the detail of a refusal.
fn refused<T: std::fmt::Debug>(
    answer: Result<T, tonic::Status>,
    lab: &Lab,
) -> (Code, EmCode, Detail) {
    let status = answer.unwrap_err();
    let refusal = raw_peer::refusal(&status, &lab.clusters[HOME]);
    (status.code(), refusal.code, refusal.detail)
}

async fn held(lab: &Lab) -> usize {
    let rows = rows(&lab.clusters[HOME]).await;
    rows.hold_invariants();
    rows.held()
}

fn cluster_b(lab: &Lab) -> Client {
    peer_client(&lab.clusters[VISITING], &lab.clusters[HOME])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_first_answer_while_the_session_is_active_and_its_end_afterwards() {
    let lab = lab(2).await;
    let (b, user) = (
        &lab.clusters[VISITING],
        lab.clusters[HOME].data.user(0).unwrap().clone(),
    );
    let mut client = cluster_b(&lab);
    let id = raw_peer::new_id();
    let request = raw_peer::login(id, &user, DEVICE);

    let first = client
        .login(call(b, request.clone()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first.services.as_ref().unwrap().user_id, user.user_id);
    let repeats = join_all((0..16).map(|_| {
        let (mut client, request) = (client.clone(), call(b, request.clone()));
        async move { client.login(request).await.unwrap().into_inner() }
    }));
    assert!(repeats.await.iter().all(|repeat| *repeat == first));
    let mut other_pin = request.clone();
    other_pin.pin = "00".to_owned();
    assert_eq!(
        client.login(call(b, other_pin)).await.unwrap().into_inner(),
        first,
        "the PIN is not part of it"
    );
    assert_eq!(held(&lab).await, 1);

    let mut changed: Vec<_> = (0..5).map(|_| request.clone()).collect();
    changed[0].name = lab.clusters[HOME].data.user(1).unwrap().user_id.clone();
    changed[1].profile = "another".to_owned();
    changed[2].device.as_mut().unwrap().name = "SEPFFFFFFFFFFFE".to_owned();
    changed[3].device.as_mut().unwrap().address = "192.0.2.1".to_owned();
    changed[4]
        .geolocation
        .insert("country".to_owned(), "JP".to_owned());
    for changed in changed {
        let answer = refused(client.login(call(b, changed)).await, &lab);
        assert_eq!(
            answer,
            (
                Code::InvalidArgument,
                EmCode::PolicyValidationError,
                Detail::IdReused
            )
        );
    }
    assert_eq!(
        client
            .login(call(b, request.clone()))
            .await
            .unwrap()
            .into_inner(),
        first,
        "and it lives on"
    );

    let end = client
        .logout(call(b, raw_peer::logout(id)))
        .await
        .unwrap()
        .into_inner();
    let mut again = raw_peer::logout(id);
    again.reason = emccd::wire::pb::EndReason::Operator.into();
    assert_eq!(
        client.logout(call(b, again)).await.unwrap().into_inner(),
        end,
        "the first reason stays on record"
    );
    let (code, _, detail) = refused(client.login(call(b, request)).await, &lab);
    assert_eq!(
        (code, detail),
        (Code::Aborted, Detail::SessionEnded(EndReason::User))
    );
    assert_eq!(held(&lab).await, 0);
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_login_sent_many_times_at_once_is_one_session() {
    let lab = lab(2).await;
    let (b, user) = (
        &lab.clusters[VISITING],
        lab.clusters[HOME].data.user(0).unwrap().clone(),
    );
    let client = cluster_b(&lab);
    let request = raw_peer::login(raw_peer::new_id(), &user, DEVICE);
    let answers = join_all((0..32).map(|_| {
        let (mut client, request) = (client.clone(), call(b, request.clone()));
        async move { client.login(request).await.unwrap().into_inner() }
    }))
    .await;
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let rows = rows(&lab.clusters[HOME]).await;
    rows.hold_invariants();
    assert_eq!((rows.sessions.len(), rows.held()), (1, 1));
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_kept_under_the_id_but_not_the_want_of_a_base_device() {
    let lab = lab(2).await;
    let (home, b) = (&lab.clusters[HOME], &lab.clusters[VISITING]);
    let mut client = cluster_b(&lab);
    let user = home.data.user(0).unwrap();

    let refused_once = raw_peer::new_id();
    let mut wrong = raw_peer::login(refused_once, user, DEVICE);
    wrong.pin.push('0');
    for pin in [wrong.pin.clone(), wrong.pin.clone(), user.pin.clone()] {
        let mut repeat = wrong.clone();
        repeat.pin = pin;
        let (code, em_code, _) = refused(client.login(call(b, repeat)).await, &lab);
        assert_eq!(
            (code, em_code),
            (Code::Unauthenticated, EmCode::EmccAuthenticationError)
        );
    }
    let request = emccd::wire::admin::GetUserRequest {
        user_id: user.user_id.clone(),
    };
    let pin = home
        .admin()
        .await
        .unwrap()
        .user(request)
        .await
        .unwrap()
        .pin
        .unwrap();
    assert_eq!(pin.failures, 1, "a repeat is no second guess");

    let mut taken = Vec::new();
    for n in 0..home.data.base_devices {
        let id = raw_peer::new_id();
        let login = raw_peer::login(
            id,
            home.data.user(n).unwrap(),
            &format!("SEPFFFFFFFFFF{n:02}"),
        );
        client.login(call(b, login)).await.unwrap();
        taken.push(id);
    }
    let one_more = raw_peer::login(raw_peer::new_id(), home.data.user(5).unwrap(), DEVICE);
    let (code, em_code, _) = refused(client.login(call(b, one_more.clone())).await, &lab);
    assert_eq!(
        (code, em_code),
        (Code::ResourceExhausted, EmCode::NoFreeBaseDevice)
    );
    client
        .logout(call(b, raw_peer::logout(taken[0])))
        .await
        .unwrap();
    client
        .login(call(b, one_more))
        .await
        .expect("33 is not kept: the same id may find a base device later");
    assert_eq!(held(&lab).await, home.data.base_devices);
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_that_overtakes_its_login_wins_and_what_is_superseded_ends_even_if_the_login_is_refused()
 {
    let lab = lab(2).await;
    let (home, b) = (&lab.clusters[HOME], &lab.clusters[VISITING]);
    let (mut client, user) = (cluster_b(&lab), home.data.user(0).unwrap());

    let late = raw_peer::new_id();
    client
        .logout(call(b, raw_peer::logout(late)))
        .await
        .unwrap();
    for _ in 0..2 {
        let (code, _, detail) = refused(
            client
                .login(call(b, raw_peer::login(late, user, DEVICE)))
                .await,
            &lab,
        );
        assert_eq!(
            (code, detail),
            (Code::Aborted, Detail::SessionEnded(EndReason::User))
        );
    }
    assert_eq!(held(&lab).await, 0);

    let earlier = raw_peer::new_id();
    client
        .login(call(b, raw_peer::login(earlier, user, DEVICE)))
        .await
        .unwrap();
    let mut wrong = raw_peer::login(raw_peer::new_id(), user, "SEPFFFFFFFFFFFE");
    wrong.pin.push('0');
    wrong.supersedes = vec![earlier.as_bytes().to_vec()];
    let (_, em_code, _) = refused(client.login(call(b, wrong)).await, &lab);
    assert_eq!(em_code, EmCode::EmccAuthenticationError);
    let after = rows(home).await;
    let ended = after.session(Role::Home, earlier).unwrap();
    assert_eq!(
        (ended.state, ended.end_reason),
        (State::Ended, Some(EndReason::Superseded))
    );
    assert_eq!(after.held(), 0);
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_can_touch_only_its_own_sessions() {
    let lab = lab(3).await;
    let (home, b, c) = (
        &lab.clusters[HOME],
        &lab.clusters[VISITING],
        &lab.clusters[2],
    );
    let (mut of_b, mut of_c) = (cluster_b(&lab), peer_client(c, home));
    let user = home.data.user(0).unwrap();
    let id = raw_peer::new_id();
    let request = raw_peer::login(id, user, DEVICE);
    let first = of_b
        .login(call(b, request.clone()))
        .await
        .unwrap()
        .into_inner();

    of_c.logout(call(c, raw_peer::logout(id)))
        .await
        .expect("an unknown id is never refused");
    let mut superseding = raw_peer::login(
        raw_peer::new_id(),
        home.data.user(1).unwrap(),
        "SEPFFFFFFFFFFFE",
    );
    superseding.supersedes = vec![id.as_bytes().to_vec()];
    of_c.login(call(c, superseding)).await.unwrap();
    let (_, em_code, _) = refused(
        of_c.login(call(c, raw_peer::login(raw_peer::new_id(), user, DEVICE)))
            .await,
        &lab,
    );
    assert_eq!(em_code, EmCode::DuplicateDeviceName, "nor take its phone");

    assert_eq!(
        of_b.login(call(b, request)).await.unwrap().into_inner(),
        first,
        "b's session lives"
    );
    assert_eq!(held(&lab).await, 2);
    lab.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_after_a_crash_of_home_gets_what_was_decided_before_it() {
    let hosting = Hosting::Processes { binary: binary() };
    let mut lab = Lab::start(&Spec {
        hosting,
        ..Spec::default()
    })
    .await
    .unwrap();
    let user = lab.clusters[HOME].data.user(0).unwrap().clone();
    for (point, decided) in [
        ("home.login.received", false),
        ("home.login.committed", true),
    ] {
        let id = raw_peer::new_id();
        let request = raw_peer::login(id, &user, DEVICE);
        let cut = crash(&mut lab, point, async |client: &mut Client, b| {
            client.login(call(b, request.clone())).await.map(drop)
        });
        cut.await.expect_err("a dead node answers nothing");
        let found = rows(&lab.clusters[HOME]).await;
        found.hold_invariants();
        assert_eq!(found.session(Role::Home, id).is_some(), decided, "{point}");
        let (b, mut client) = (&lab.clusters[VISITING], cluster_b(&lab));
        let answer = client
            .login(call(b, request.clone()))
            .await
            .unwrap()
            .into_inner();
        let base = answer.services.as_ref().unwrap().base_device.clone();
        if let Some(before) = found.session(Role::Home, id) {
            assert_eq!(
                before.base_device.as_ref().unwrap().as_str(),
                base,
                "{point}: the first answer"
            );
        }
        assert_eq!(
            client
                .login(call(b, request.clone()))
                .await
                .unwrap()
                .into_inner(),
            answer
        );
        assert_eq!(held(&lab).await, 1, "{point}");
        let mut changed = request.clone();
        changed.profile = "another".to_owned();
        assert_eq!(
            refused(client.login(call(b, changed)).await, &lab).2,
            Detail::IdReused,
            "{point}"
        );

        for point in ["home.logout.received", "home.logout.committed"] {
            let cut = crash(&mut lab, point, async |client: &mut Client, b| {
                client.logout(call(b, raw_peer::logout(id))).await.map(drop)
            });
            cut.await.expect_err("a dead node answers nothing");
            let expected = usize::from(point == "home.logout.received");
            assert_eq!(held(&lab).await, expected, "{point}");
        }
        let (b, mut client) = (&lab.clusters[VISITING], cluster_b(&lab));
        client.logout(call(b, raw_peer::logout(id))).await.unwrap();
        let (code, _, detail) = refused(client.login(call(b, request)).await, &lab);
        assert_eq!(
            (code, detail),
            (Code::Aborted, Detail::SessionEnded(EndReason::User)),
            "{point}"
        );
        assert_eq!(held(&lab).await, 0, "{point}");

        // A tombstone of an id that never was survives too.
        let late = raw_peer::new_id();
        client
            .logout(call(b, raw_peer::logout(late)))
            .await
            .unwrap();
        lab.clusters[HOME]
            .member_mut()
            .unwrap()
            .kill()
            .await
            .unwrap();
        lab.clusters[HOME]
            .member_mut()
            .unwrap()
            .start(&Versions::default())
            .await
            .unwrap();
        let b = &lab.clusters[VISITING];
        let (code, ..) = refused(
            cluster_b(&lab)
                .login(call(b, raw_peer::login(late, &user, DEVICE)))
                .await,
            &lab,
        );
        assert_eq!(code, Code::Aborted, "{point}: a login after its logout");
    }
    lab.shut_down().await;
}

/// Has home stop at `point` while `act` calls it, kills it there and starts it again.
async fn crash(
    lab: &mut Lab,
    point: &str,
    act: impl AsyncFnOnce(&mut Client, &emccd::lab::Cluster) -> Result<(), tonic::Status>,
) -> Result<(), tonic::Status> {
    let (home, others) = lab.clusters.split_at_mut(VISITING);
    let member = home[HOME].member_mut().unwrap();
    member.kill().await.unwrap();
    member.start(&Versions::stopping_at(point)).await.unwrap();
    let mut client = peer_client(&others[0], &home[HOME]);
    let member = home[HOME].member_mut().unwrap();
    let kill = async {
        member.wait_stopped_at(point, POINT_LIMIT).await.unwrap();
        member.kill().await.unwrap();
    };
    let (outcome, ()) = tokio::join!(act(&mut client, &others[0]), kill);
    home[HOME]
        .member_mut()
        .unwrap()
        .start(&Versions::default())
        .await
        .unwrap();
    outcome
}
