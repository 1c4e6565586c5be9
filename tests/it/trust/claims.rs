//! False claims: of another cluster's ID, and of a user.

use super::*;

#[tokio::test]
pub(crate) async fn a_peer_that_claims_another_cluster_s_id_gets_42_whatever_it_calls() {
    let lab = support::lab_of_processes(3).await;
    let (berlin, tokyo, lima) = (&lab.clusters[0], &lab.clusters[1], &lab.clusters[2]);
    // A user of berlin is on a phone of lima.
    let shown = log_in(berlin, 0, lima).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    let session = living(&lab, 0).await.remove(0);
    let id = emccd::domain::ids::SessionId::from_uuid(session.id.parse().unwrap());

    let mut tokyo_s = peer_client(tokyo, berlin);
    let user = berlin.data.user(1).unwrap();
    let query = wire::FindUserRequest {
        login_type: wire::LoginType::Uid.into(),
        name: user.user_id.clone(),
    };
    is_42(&tokyo_s.hello(call(lima, hello("lima"))).await.unwrap_err());
    is_42(
        &tokyo_s
            .watch(call(lima, wire::WatchRequest::default()))
            .await
            .unwrap_err(),
    );
    is_42(
        &tokyo_s
            .find_user(call(lima, query.clone()))
            .await
            .unwrap_err(),
    );
    let login = raw_peer::login(raw_peer::new_id(), user, "SEP0000000000AA");
    is_42(&tokyo_s.login(call(lima, login)).await.unwrap_err());
    is_42(
        &tokyo_s
            .logout(call(lima, raw_peer::logout(id)))
            .await
            .unwrap_err(),
    );
    // Also when only the introduction lies, and when nobody of that name is known.
    is_42(&tokyo_s.hello(call(tokyo, hello("lima"))).await.unwrap_err());
    let unknown = emccd::domain::ids::ClusterId::new("atlantis").unwrap();
    is_42(
        &tokyo_s
            .find_user(call_as(&unknown, query.clone()))
            .await
            .unwrap_err(),
    );
    let own = berlin.id.clone();
    is_42(
        &tokyo_s
            .find_user(call_as(&own, query.clone()))
            .await
            .unwrap_err(),
    );

    // Our own operator finds it, in the log and in the status, with what was claimed.
    let log = std::fs::read_to_string(berlin.member().unwrap().log_file()).unwrap();
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("refused a call of tokyo"))
        .collect();
    assert_eq!(told.len(), 1, "the others are counted:\n{log}");
    assert!(
        told[0].contains("42") && told[0].contains("comes from lima"),
        "{log}"
    );
    let wrong = wrong_claims(berlin).await;
    assert_eq!((wrong.len(), wrong[0].count), (1, 8), "{wrong:?}");
    assert_eq!(wrong[0].side, "caller");
    assert!(wrong[0].expectation.contains("tokyo"), "{wrong:?}");
    assert!(wrong[0].hint.contains("cluster-id"), "{wrong:?}");

    // As itself it may ask, and without any claim the certificate says who it is.
    tokyo_s.hello(call(tokyo, hello("tokyo"))).await.unwrap();
    assert_eq!(wrong_claims(berlin).await, []);
    tokyo_s.find_user(Request::new(query)).await.unwrap();
    // But what lima holds is not tokyo's to end.
    let ended = tokyo_s.logout(call(tokyo, raw_peer::logout(id))).await;
    let after = living(&lab, 0).await;
    assert_eq!(after.len(), 1, "{ended:?}: {after:?}");
    assert_eq!((&after[0].id, &*after[0].peer), (&session.id, "lima"));
    assert_eq!(living(&lab, 2).await.len(), 1);
    let audit = rows(berlin).await.audit;
    let logins = audit
        .iter()
        .filter(|entry| entry.action == "session.login")
        .count();
    assert_eq!(logins, 1, "{audit:#?}");
    log_out(lima).await;
    lab.shut_down().await;
}

/// What the status of a node says of callers that claimed to be somebody else.
async fn wrong_claims(cluster: &Cluster) -> Vec<pb::DoorRefusal> {
    let request = pb::GetClusterStatusRequest {};
    let status = cluster
        .admin()
        .await
        .unwrap()
        .status(request)
        .await
        .unwrap();
    let refusals = status.refusals.into_iter();
    refusals
        .filter(|r| r.rejection == "wrong_cluster")
        .collect()
}

const TWIN_PIN: &str = "90718253";

/// Gives both clusters a user of the same names, and a second one who shares the extension with nobody.
async fn twins(clusters: &[&Cluster]) {
    for cluster in clusters {
        let content = format!(
            "[[user]]\nid = \"twin\"\nself-service-id = \"twin@corp.test\"\nextension = \"7777\"\npin = \"{TWIN_PIN}\"\n\
             [[profile]]\nname = \"twin-{0}\"\nuser = \"twin\"\ndefault = true\ndevice-pool = \"{0}\"\n",
            cluster.id
        );
        let file = pb::ApplyFile {
            name: "twins.toml".to_owned(),
            content,
        };
        let request = pb::ApplyRequest {
            files: vec![file],
            ..pb::ApplyRequest::default()
        };
        cluster.admin().await.unwrap().apply(request).await.unwrap();
    }
}

/// No PIN was judged there, nor was anything kept of an attempt.
async fn never_asked(cluster: &Cluster, user_id: &str) {
    let rows = rows(cluster).await;
    assert!(
        rows.sessions.is_empty(),
        "{}: {:#?}",
        cluster.id,
        rows.sessions
    );
    let logins: Vec<_> = rows
        .audit
        .iter()
        .filter(|entry| entry.action.contains("login"))
        .collect();
    assert!(logins.is_empty(), "{}: {logins:#?}", cluster.id);
    let failures = failures(cluster, user_id).await;
    assert_eq!(failures, 0, "{}", cluster.id);
}

async fn failures(cluster: &Cluster, user_id: &str) -> u32 {
    let request = pb::GetUserRequest {
        user_id: user_id.to_owned(),
    };
    cluster
        .admin()
        .await
        .unwrap()
        .user(request)
        .await
        .unwrap()
        .pin
        .unwrap()
        .failures
}

#[tokio::test]
async fn a_user_whom_two_peers_claim_is_refused_and_the_pin_reaches_neither() {
    let lab = support::lab_of_processes(3).await;
    let (berlin, tokyo, lima) = (&lab.clusters[0], &lab.clusters[1], &lab.clusters[2]);
    twins(&[tokyo, lima]).await;
    let claims = [
        ("UID", "twin", 4),
        ("SP", "twin@corp.test", 4),
        ("DN", "7777", 47),
        ("UID", "TWIN", 4),
    ];
    for (login_type, name, code) in claims {
        // The right PIN would make a session, a wrong one would be counted.
        for pin in [TWIN_PIN, "1234567"] {
            let shown = enter(berlin, login_type, name, pin).await;
            assert_eq!(
                shown.em_code,
                Some(code),
                "{login_type} {name}: {}",
                shown.body
            );
            assert!(shown.reference.is_some(), "{}", shown.body);
        }
    }
    for home in [tokyo, lima] {
        never_asked(home, "twin").await;
    }
    assert!(rows(berlin).await.sessions.is_empty());

    let log = std::fs::read_to_string(berlin.member().unwrap().log_file()).unwrap();
    let alarms: Vec<_> = log
        .lines()
        .filter(|line| line.contains("home_ambiguous"))
        .collect();
    assert_eq!(alarms.len(), 2 * claims.len(), "{log}");
    for alarm in alarms {
        assert!(alarm.contains("lima") && alarm.contains("tokyo"), "{alarm}");
    }
    assert!(!log.contains(TWIN_PIN), "a PIN in the log");

    // The user can say which one is meant. That shows that what was looked at above can be there.
    let shown = enter(berlin, "UID", "twin@tokyo", TWIN_PIN).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    assert_eq!(rows(tokyo).await.sessions.len(), 1);
    log_out(berlin).await;
    let shown = enter(berlin, "UID", "twin@lima", "1234567").await;
    assert_eq!(shown.em_code, Some(2), "{}", shown.body);
    assert_eq!(failures(lima, "twin").await, 1);
    assert_eq!(failures(tokyo, "twin").await, 0);
    lab.shut_down().await;
}

/// What berlin's record of tokyo lets it claim.
async fn set_patterns(berlin: &Cluster, users: &[&str], extensions: &[&str]) {
    let list = |texts: &[&str]| pb::TextList {
        values: texts.iter().map(|t| (*t).to_owned()).collect(),
    };
    let request = pb::SetClusterRequest {
        cluster_id: "tokyo".to_owned(),
        user_patterns: Some(list(users)),
        dn_patterns: Some(list(extensions)),
        ..pb::SetClusterRequest::default()
    };
    berlin
        .admin()
        .await
        .unwrap()
        .set_cluster(request)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_sole_claimer_gets_the_pin_only_if_all_others_answered_or_a_pattern_admits_the_name() {
    let lab = strangers(3, &[("login", "find-deadline = \"800ms\"")]).await;
    let (berlin, tokyo, lima) = (&lab.clusters[0], &lab.clusters[1], &lab.clusters[2]);
    let proxy = Proxy::start(lima.member().unwrap().addresses.federation.clone())
        .await
        .unwrap();
    berlin.trust(tokyo).await.unwrap();
    berlin
        .trust_at(lima, vec![proxy.address.to_string()])
        .await
        .unwrap();
    tokyo.trust(berlin).await.unwrap();
    lima.trust(berlin).await.unwrap();
    linked(berlin, tokyo).await;
    linked(berlin, lima).await;

    let ana = tokyo.data.user(0).unwrap();
    let extension = ana.primary_extension.as_deref().unwrap();
    let by_extension = |pin: &'static str| enter(berlin, "DN", extension, pin);
    for (mode, codes) in [
        (Mode::Swallow, [Some(40), Some(40)]),
        (Mode::Refuse, [Some(208), Some(208)]),
    ] {
        proxy.set(mode);
        if mode == Mode::Refuse {
            let is_down = |p: &pb::PeerStatus| {
                let reason = p.outbound.as_ref().and_then(|o| o.reason.clone());
                p.outbound.as_ref().is_some_and(|o| o.state == "down") && reason.is_some()
            };
            berlin
                .wait_status(&lima.id, "refused", is_down)
                .await
                .unwrap();
        }
        // Once while the link still counts as up, once when its silence was noticed.
        for (round, code) in codes.into_iter().enumerate() {
            if round == 1 {
                let is_down =
                    |p: &pb::PeerStatus| p.outbound.as_ref().is_some_and(|o| o.state == "down");
                berlin.wait_status(&lima.id, "down", is_down).await.unwrap();
            }
            let shown = enter(berlin, "UID", &ana.user_id, &ana.pin).await;
            assert_eq!(shown.em_code, code, "{mode:?} {round}: {}", shown.body);
            let shown = by_extension("1234567").await;
            assert_eq!(shown.em_code, code, "{mode:?} {round}: {}", shown.body);
        }
        never_asked(tokyo, &ana.user_id).await;
    }

    // With a pattern for its user IDs tokyo is believed, but for its extensions it is not.
    set_patterns(berlin, &["*.tokyo"], &[]).await;
    for mode in [Mode::Refuse, Mode::Swallow] {
        proxy.set(mode);
        let shown = enter(
            berlin,
            "UID",
            &tokyo.data.user(1).unwrap().user_id,
            "1234567",
        )
        .await;
        assert_eq!(shown.em_code, Some(2), "{mode:?}: {}", shown.body);
        let shown = by_extension("1234567").await;
        assert!(
            matches!(shown.em_code, Some(40 | 208)),
            "{mode:?}: {}",
            shown.body
        );
    }
    assert_eq!(failures(tokyo, &ana.user_id).await, 0);
    let shown = enter(berlin, "UID", &ana.user_id, &ana.pin).await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    log_out(berlin).await;

    // A pattern that does not admit the name: tokyo may not even claim it.
    set_patterns(berlin, &["*.osaka"], &[]).await;
    let before = rows(tokyo).await.audit.len();
    let shown = enter(
        berlin,
        "UID",
        &tokyo.data.user(2).unwrap().user_id,
        &tokyo.data.user(2).unwrap().pin,
    )
    .await;
    assert!(matches!(shown.em_code, Some(40 | 208)), "{}", shown.body);
    assert_eq!(rows(tokyo).await.audit.len(), before);

    // Everybody answers: no pattern is needed.
    set_patterns(berlin, &[], &[]).await;
    proxy.set(Mode::Open);
    linked(berlin, lima).await;
    let eva = tokyo.data.user(3).unwrap();
    let shown = enter(
        berlin,
        "DN",
        eva.primary_extension.as_deref().unwrap(),
        &eva.pin,
    )
    .await;
    assert_eq!(shown.em_code, None, "{}", shown.body);
    log_out(berlin).await;
    lab.shut_down().await;
}
