//! Where a name is looked for, and who never hears of it.

use super::*;

#[tokio::test]
async fn the_search_answers_as_its_table_says_and_the_pin_goes_nowhere() {
    let silent = || Err(EmCode::NoResponseFromRemoteHost);
    let refused = || Err(EmCode::ServiceConnectionError);
    let declined = || Err(EmCode::EmccNotAllowed);
    let unaskable = || Err(EmCode::ErrorOnParsing);
    for (answers, expected) in [
        (vec![], 36),
        (vec![Ok(Ownership::NotMine), Ok(Ownership::NotMine)], 23),
        (vec![Ok(Ownership::NotMine), silent()], 40),
        (vec![Ok(Ownership::NotMine), refused()], 208),
        (vec![silent(), refused()], 208),
        (vec![Ok(Ownership::NotMine), unaskable()], 1),
        (vec![Ok(Ownership::Mine), unaskable()], 208),
        // It is up, and has no answer now: neither a no nor a refused connection.
        (vec![Ok(Ownership::Mine), Err(EmCode::Busy)], 40),
        (vec![Ok(Ownership::NotMine), Err(EmCode::DatabaseError)], 40),
        (vec![Ok(Ownership::NotMine), Err(EmCode::UnknownError)], 40),
        // A role that serves none of our phones says so itself, and nobody else's silence is told as its refusal.
        (vec![Ok(Ownership::NotMine), declined()], 38),
        (vec![declined(), declined()], 38),
        (vec![Err(EmCode::VisitingClusterUnknown)], 35),
        (vec![Err(EmCode::InvalidClusterId)], 42),
        (vec![declined(), Err(EmCode::VisitingClusterUnknown)], 35),
        (vec![Ok(Ownership::Mine), declined()], 38),
        (vec![silent(), declined()], 40),
        (vec![refused(), declined()], 208),
        (vec![unaskable(), declined()], 1),
        (vec![Ok(Ownership::Mine), Ok(Ownership::Mine)], 4),
        (vec![Ok(Ownership::Mine), silent()], 40),
        (vec![Ok(Ownership::Mine), refused()], 208),
        // Several users with one user ID are that cluster's fault; with one extension they are the field's life.
        (vec![Ok(Ownership::SeveralUsers), Ok(Ownership::NotMine)], 4),
    ] {
        let peers = answers
            .iter()
            .enumerate()
            .map(|(n, a)| Script::new(&format!("p{n}")).finding(*a))
            .collect();
        let world = world(peers).await;
        let failure = world.login("SEP1", "ana").await.unwrap_err();
        assert_eq!(failure.code.number(), expected, "{answers:?}: {failure}");
        assert_eq!(world.pins_sent(), 0, "{answers:?}");
        assert_eq!(
            world.role.phone_state("SEP1").await.unwrap(),
            PhoneState::Nobody
        );
    }
}

#[tokio::test]
async fn only_a_version_without_the_login_type_leaves_a_sole_claimer_alone() {
    let lacks =
        Refusal::new(EmCode::ErrorOnParsing, "it is old").with_detail(Detail::LacksLoginType);
    let world = world(vec![
        Script::new("berlin").finding(Ok(Ownership::Mine)),
        Script::new("rome").finding_exactly(Err(lacks)),
    ])
    .await;
    assert_eq!(
        world.login("SEP1", "ana").await.unwrap().home,
        cluster("berlin")
    );
    assert_eq!(world.peers[1].logins.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_pattern_lets_a_sole_claimer_win_while_another_is_silent() {
    let claimer = Script::new("berlin").finding(Ok(Ownership::Mine));
    *claimer.claim.lock().unwrap() = Claim::Admitted;
    let world = world(vec![
        claimer,
        Script::new("lima").finding(Err(EmCode::NoResponseFromRemoteHost)),
    ])
    .await;
    assert_eq!(
        world.login("SEP1", "ana").await.unwrap().home,
        cluster("berlin")
    );
    assert_eq!(world.peers[1].logins.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_hint_saves_the_search_and_is_dropped_only_on_23() {
    let world = world(vec![
        Script::new("berlin").finding(Ok(Ownership::Mine)),
        Script::new("lima").finding(Ok(Ownership::NotMine)),
    ])
    .await;
    world.login("SEP1", "ana").await.unwrap();
    let finds = world.peers[1].finds.load(Ordering::SeqCst);
    world.login("SEP2", "ana").await.unwrap();
    assert_eq!(
        world.peers[1].finds.load(Ordering::SeqCst),
        finds,
        "the second login asked nobody"
    );
    for device in ["SEP1", "SEP2"] {
        world
            .role
            .logout(device, caller(), world.role.new_ref())
            .await
            .unwrap();
    }

    let silence = Refusal::new(EmCode::NoResponseFromRemoteHost, "cut off");
    *world.peers[0].login.lock().unwrap() = Some(Err(silence));
    assert_eq!(world.code("SEP1", "ana").await, 40);
    assert_eq!(
        world.peers[1].finds.load(Ordering::SeqCst),
        finds,
        "silence starts no search"
    );

    *world.peers[0].login.lock().unwrap() =
        Some(Err(Refusal::new(EmCode::UserDoesNotExist, "moved")));
    *world.peers[0].find.lock().unwrap() = Some(Ok(Ownership::NotMine));
    *world.peers[1].find.lock().unwrap() = Some(Ok(Ownership::Mine));
    assert_eq!(
        world.login("SEP1", "ana").await.unwrap().home,
        cluster("lima")
    );
}

#[tokio::test]
async fn a_name_with_a_known_suffix_goes_there_only() {
    let world = world(vec![
        Script::new("berlin").finding(Ok(Ownership::Mine)),
        Script::new("lima").finding(Ok(Ownership::Mine)),
    ])
    .await;
    assert_eq!(
        world.login("SEP1", "ana@lima").await.unwrap().home,
        cluster("lima")
    );
    assert_eq!(world.peers[0].finds.load(Ordering::SeqCst), 0);
    *world.peers[1].find.lock().unwrap() = Some(Ok(Ownership::NotMine));
    assert_eq!(world.code("SEP2", "bob@lima").await, 23);
    assert_eq!(world.peers[0].finds.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_extension_of_several_users_is_47() {
    let world = world(vec![
        Script::new("berlin").finding(Ok(Ownership::SeveralUsers)),
        Script::new("lima"),
    ])
    .await;
    let mut by_extension = world.submission("SEP1", "1007");
    by_extension.login_type = LoginType::Extension;
    assert_eq!(
        world
            .role
            .login(by_extension)
            .await
            .unwrap_err()
            .code
            .number(),
        47
    );
    assert_eq!(world.pins_sent(), 0);
}

#[tokio::test]
async fn a_peer_whose_patterns_exclude_the_name_is_not_asked() {
    let excluded = Script::new("lima").finding(Ok(Ownership::Mine));
    *excluded.claim.lock().unwrap() = Claim::Excluded;
    let world = world(vec![
        Script::new("berlin").finding(Ok(Ownership::Mine)),
        excluded,
    ])
    .await;
    assert_eq!(
        world.login("SEP1", "ana").await.unwrap().home,
        cluster("berlin")
    );
    assert_eq!(world.peers[1].finds.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_suffix_of_our_own_stays_here() {
    let mut local = Script::new("tokyo");
    local.owns = Some("ana");
    let berlin = Script::new("berlin").finding(Ok(Ownership::Mine));
    let world = world_with(vec![berlin], local, Duration::from_secs(5)).await;
    let done = world.login("SEP1", "ana@tokyo").await.unwrap();
    assert_eq!(
        (done.home.as_str(), done.user_id.as_str()),
        ("tokyo", "ana")
    );
    assert_eq!(world.code("SEP2", "bob@tokyo").await, 23);
    assert_eq!(world.peers[0].finds.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_suffix_counts_for_nothing_where_a_pattern_excludes_the_name() {
    let lima = Script::new("lima").finding(Ok(Ownership::Mine));
    *lima.claim.lock().unwrap() = Claim::Excluded;
    let world = world(vec![lima]).await;
    assert_eq!(world.code("SEP1", "ana@lima").await, 23);
    assert_eq!(world.peers[0].finds.load(Ordering::SeqCst), 0);
    assert_eq!(world.pins_sent(), 0);
}

#[tokio::test]
async fn a_hint_counts_for_nothing_once_a_pattern_excludes_the_name() {
    let world = world(vec![Script::new("berlin").finding(Ok(Ownership::Mine))]).await;
    world.login("SEP1", "ana").await.unwrap();
    *world.peers[0].claim.lock().unwrap() = Claim::Excluded;
    assert_eq!(world.code("SEP2", "ana").await, 23);
    assert_eq!(world.pins_sent(), 1, "the login before");
}
