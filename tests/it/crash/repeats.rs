//! What comes again with its id, or too late, also after a crash.

use super::*;

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
    let (user, other) = (home.data.user(0).unwrap(), home.data.user(2).unwrap());
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
        of_c.login(call(c, raw_peer::login(raw_peer::new_id(), other, DEVICE)))
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
