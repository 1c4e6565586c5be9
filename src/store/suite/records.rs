//! What is written comes back, and is found by the right names.

use super::*;

pub(in crate::store) async fn records_come_back_as_written(store: &Store) {
    let place = BTreeMap::from([("country".to_owned(), "DE".to_owned())]);
    let pool_name = DevicePoolName::new("Berlin pool").unwrap();
    let anna = user("Anna", Some("4711"), Some("5000"));
    let device = Device {
        name: device_name("SEP001"),
        model: "Cisco 8845".into(),
        protocol: "SIP".into(),
        security_mode: SecurityMode::Secure,
        emcc: true,
        em_enabled: false,
        device_pool: Some(pool_name.clone()),
        locale: Some("de_DE".to_owned()),
        geolocation: place.clone(),
        location: None,
        services: Vec::new(),
    };
    let profile = Profile {
        name: ProfileName::new("Anna's profile").unwrap(),
        user_id: user_id("Anna"),
        is_default: true,
        lines: vec![Line {
            index: 1,
            number: "4711".into(),
            label: String::new(),
        }],
        locale: None,
        device_pool: Some(pool_name.clone()),
        services: Vec::new(),
    };
    let pool = DevicePool {
        name: pool_name.clone(),
        geolocation: place,
        call_managers: services().call_managers,
        tftp_servers: vec!["tftp1".into()],
        roaming: true,
        location: None,
        call_group: None,
    };
    let peer = Peer {
        cluster_id: cluster("tokyo"),
        enabled: true,
        allow_emcc: false,
        addresses: vec!["t1:8444".into()],
        node_names: vec!["t1".into()],
        user_patterns: vec!["*@tokyo".into()],
        dn_patterns: vec!["81*".into()],
        ignore_eku: true,
        accept_announcements: crate::domain::announcement::Acceptance::Approve,
        description: "far away".into(),
    };
    let mut whole = session(Role::Home, 1, "SEP001", State::Active);
    whole.profile = Some(profile.name.clone());
    whole.base_device = Some(base("EMCC001"));
    whole.services = Some(services());
    whole.deadline = Some(at(9));
    let written = (
        anna.clone(),
        device.clone(),
        profile.clone(),
        pool.clone(),
        peer.clone(),
        whole.clone(),
    );
    store
        .write(move |tx| {
            let (anna, device, profile, pool, peer, whole) = &written;
            users::upsert(tx, anna)?;
            devices::upsert(tx, device)?;
            profiles::upsert(tx, profile)?;
            pools::upsert(tx, pool)?;
            peers::upsert(tx, peer)?;
            sessions::insert(tx, whole)
        })
        .await
        .unwrap();
    store
        .read::<_, Error>(move |tx| {
            assert_eq!(users::get(tx, &anna.user_id)?.as_ref(), Some(&anna));
            assert_eq!(devices::get(tx, &device.name)?.as_ref(), Some(&device));
            assert_eq!(devices::list(tx, None, 10)?, vec![device.clone()]);
            assert_eq!(
                profiles::for_user(tx, &anna.user_id)?,
                vec![profile.clone()]
            );
            assert_eq!(profiles::list(tx)?, vec![profile.clone()]);
            assert_eq!(pools::get(tx, &pool_name)?.as_ref(), Some(&pool));
            assert_eq!(pools::list(tx)?.len(), 1);
            assert_eq!(peers::get(tx, &peer.cluster_id)?.as_ref(), Some(&peer));
            assert_eq!(peers::list(tx)?, vec![peer.clone()]);
            assert_eq!(
                sessions::get(tx, Role::Home, &whole.counterpart, whole.id)?.as_ref(),
                Some(&whole)
            );
            Ok(())
        })
        .await
        .unwrap();
    // What hangs on a user goes with them.
    store
        .write::<_, Error>(|tx| {
            assert!(users::remove(tx, &user_id("anna"))?);
            assert!(!users::remove(tx, &user_id("anna"))?);
            assert!(profiles::list(tx)?.is_empty());
            assert!(devices::remove(tx, &device_name("sep001"))?);
            assert!(peers::remove(tx, &cluster("tokyo"))?);
            assert!(pools::remove(
                tx,
                &DevicePoolName::new("Berlin pool").unwrap()
            )?);
            Ok(())
        })
        .await
        .unwrap();
}

pub(in crate::store) async fn names_differ_by_more_than_case(store: &Store) {
    store
        .write::<_, Error>(|tx| {
            users::upsert(tx, &user("Anna", None, None))?;
            users::upsert(tx, &user("ANNA", None, None))?;
            users::upsert(tx, &user("Änne", None, None))?;
            users::upsert(tx, &user("änne", None, None))?;
            base_devices::upsert(tx, &base("EMCC1"))?;
            base_devices::upsert(tx, &base("emcc1"))
        })
        .await
        .unwrap();
    store
        .read::<_, Error>(|tx| {
            let ids: Vec<String> = users::list(tx, None, 10)?
                .into_iter()
                .map(|u| u.user_id.to_string())
                .collect();
            // ASCII only: what lies beyond is compared as it is.
            assert_eq!(ids, ["ANNA", "Änne", "änne"]);
            assert_eq!(
                users::list(tx, Some("Anna"), 1)?[0].user_id.as_str(),
                "Änne"
            );
            assert_eq!(base_devices::list(tx)?, [(base("EMCC1"), None)]);
            Ok(())
        })
        .await
        .unwrap();
}

pub(in crate::store) async fn users_are_found_by_each_kind_of_name(store: &Store) {
    store
        .write(|tx| {
            users::upsert(tx, &user("Anna", Some("4711"), Some("5000")))?;
            users::upsert(tx, &user("ben", Some("4711"), Some("5001")))
        })
        .await
        .unwrap();
    store
        .read::<_, Error>(|tx| {
            let mut found = |kind, text: &str| users::find(tx, kind, &name(text)).map(|u| u.len());
            assert_eq!(found(LoginType::Uid, "aNNa")?, 1);
            assert_eq!(found(LoginType::Uid, "4711")?, 0);
            assert_eq!(found(LoginType::SelfService, "5000")?, 1);
            assert_eq!(found(LoginType::SelfService, "anna")?, 0);
            assert_eq!(found(LoginType::Extension, "4711")?, 2);
            assert_eq!(found(LoginType::Extension, "47")?, 0);
            Ok(())
        })
        .await
        .unwrap();
    let taken = store
        .write(|tx| users::upsert(tx, &user("carl", None, Some("5000"))))
        .await
        .unwrap_err();
    assert!(taken.is_unique(users::SELF_SERVICE_ID), "{taken}");
}

pub(in crate::store) async fn setting_a_hash_forgets_failures(store: &Store) {
    let anna = user_id("anna");
    let stranger: Result<(), Error> = store
        .write(|tx| credentials::put_hash(tx, &user_id("anna"), &Phc::new("$1".into()), at(1)))
        .await;
    assert!(matches!(stranger, Err(Error::Statement { .. })));
    store
        .write::<_, Error>(move |tx| {
            users::upsert(tx, &user("anna", None, None))?;
            credentials::put_hash(tx, &anna, &Phc::new("$1".into()), at(1))?;
            let mut credential = credentials::get(tx, &anna)?.unwrap();
            assert!(!format!("{credential:?}").contains("$1"));
            credential.failures = 3;
            credential.locked_until = Some(at(99));
            credential.must_change = true;
            assert!(credentials::set_counters(tx, &credential)?);
            assert_eq!(credentials::get(tx, &anna)?.as_ref(), Some(&credential));
            credentials::put_hash(tx, &anna, &Phc::new("$2".into()), at(2))?;
            let fresh = credentials::get(tx, &anna)?.unwrap();
            assert_eq!(fresh.phc.as_str(), "$2");
            assert_eq!((fresh.failures, fresh.locked_until), (0, None));
            assert!(!fresh.must_change);
            Ok(())
        })
        .await
        .unwrap();
}

pub(in crate::store) async fn answers_stay_as_first_given(store: &Store) {
    let first = Answer {
        counterpart: cluster("berlin"),
        id: session_id(1),
        digest: [7; 32],
        code: Some(33),
        cause: "no base device is free".into(),
        body: vec![],
        kept_at: at(1),
    };
    let kept = first.clone();
    store
        .write::<_, Error>(move |tx| {
            assert!(answers::put(tx, &kept)?);
            let mut other = kept.clone();
            other.code = None;
            assert!(!answers::put(tx, &other)?);
            other.counterpart = cluster("tokyo");
            assert!(answers::put(tx, &other)?);
            Ok(())
        })
        .await
        .unwrap();
    store
        .read::<_, Error>(move |tx| {
            let found = answers::get(tx, &cluster("berlin"), session_id(1))?;
            assert_eq!(found.as_ref(), Some(&first));
            assert_eq!(answers::get(tx, &cluster("berlin"), session_id(2))?, None);
            Ok(())
        })
        .await
        .unwrap();
}

pub(in crate::store) async fn a_leaf_is_pinned_for_one_peer_only(store: &Store) {
    let pinned = |peer: &str| TrustEntry {
        cluster_id: cluster(peer),
        kind: EntryKind::Pinned,
        fingerprint: [1; 32],
        der: vec![0x30, 0x00],
        added_at: at(1),
        source: Source::Operator,
        alias: None,
    };
    let (berlin, tokyo) = (pinned("berlin"), pinned("tokyo"));
    store
        .write::<_, Error>(move |tx| {
            assert!(trust_entries::add(tx, &berlin)?);
            assert!(!trust_entries::add(tx, &berlin)?);
            let taken = trust_entries::add(tx, &tokyo).unwrap_err();
            assert!(
                matches!(&taken, Error::FingerprintTaken(by) if by.as_str() == "berlin"),
                "{taken}"
            );
            // A CA may vouch for the nodes of several peers.
            for peer in ["berlin", "tokyo"] {
                let anchor = TrustEntry {
                    kind: EntryKind::Anchor,
                    ..pinned(peer)
                };
                assert!(trust_entries::add(tx, &anchor)?);
            }
            assert_eq!(trust_entries::list(tx)?.len(), 3);
            let gone = trust_entries::revoke(tx, &berlin.cluster_id, &[1; 32], at(5))?;
            assert!(gone.was_entry && gone.descendants.is_empty());
            assert_eq!(trust_entries::list(tx)?.len(), 1);
            assert_eq!(trust_entries::revoked(tx)?[0].revoked_at, at(5));
            assert!(trust_entries::is_revoked(tx, &berlin.cluster_id, &[1; 32])?);
            assert!(!trust_entries::is_revoked(tx, &tokyo.cluster_id, &[1; 32])?);
            assert!(!trust_entries::remove(tx, &berlin.cluster_id, &[1; 32])?);
            // Trusting it again takes that back.
            assert!(trust_entries::add(tx, &berlin)?);
            assert!(trust_entries::revoked(tx)?.is_empty());
            assert_eq!(trust_entries::list(tx)?[0], berlin);
            // And so does forgetting it, which trusts nothing.
            trust_entries::revoke(tx, &berlin.cluster_id, &[1; 32], at(6))?;
            assert!(!trust_entries::unrevoke(tx, &tokyo.cluster_id, &[1; 32])?);
            assert!(trust_entries::unrevoke(tx, &berlin.cluster_id, &[1; 32])?);
            assert!(trust_entries::revoked(tx)?.is_empty());
            assert_eq!(trust_entries::list(tx)?.len(), 1);
            Ok(())
        })
        .await
        .unwrap();
}

pub(in crate::store) async fn hints_follow_the_last_success(store: &Store) {
    store
        .write::<_, Error>(|tx| {
            let (uid, dn) = (LoginType::Uid, LoginType::Extension);
            hints::put(tx, uid, &name("Anna"), &cluster("berlin"))?;
            hints::put(tx, uid, &name("anna"), &cluster("tokyo"))?;
            assert_eq!(hints::get(tx, uid, &name("ANNA"))?, Some(cluster("tokyo")));
            assert_eq!(hints::get(tx, dn, &name("anna"))?, None);
            assert!(hints::forget(tx, uid, &name("aNNA"))?);
            assert!(!hints::forget(tx, uid, &name("anna"))?);
            assert_eq!(hints::get(tx, uid, &name("anna"))?, None);
            Ok(())
        })
        .await
        .unwrap();
}

pub(in crate::store) async fn a_changed_missing_or_cut_off_audit_entry_is_found(store: &Store) {
    store
        .write(|tx| (1..=5).try_for_each(|n| audit::append(tx, &entry(n))))
        .await
        .unwrap();
    let whole = store.verify().await.unwrap();
    assert!(whole.is_intact());
    assert_eq!(whole.chains[0].entries, 5);
    let newest = store.read(|tx| audit::list(tx, 2)).await.unwrap();
    assert_eq!(newest.iter().map(|e| e.seq).collect::<Vec<_>>(), [5, 4]);
    let attempt = store
        .read(|tx| audit::of_reference(tx, Ref::from_bits(7)))
        .await
        .unwrap();
    assert_eq!(attempt[0].at, at(1));

    // Each is done to the whole chain, looked at, and undone by the error.
    for (tampering, fault) in [
        (
            "UPDATE audit SET outcome = 'refused' WHERE seq = 3",
            Fault::Changed(3),
        ),
        ("UPDATE audit SET at = 99 WHERE seq = 5", Fault::Changed(5)),
        (
            "UPDATE audit SET reference = '0000000U' WHERE seq = 2",
            Fault::Changed(2),
        ),
        ("DELETE FROM audit WHERE seq = 1", Fault::Missing(1)),
        ("DELETE FROM audit WHERE seq = 4", Fault::Missing(4)),
        ("DELETE FROM audit WHERE seq = 5", Fault::Missing(5)),
        ("DELETE FROM audit", Fault::Missing(1)),
        (
            "INSERT INTO audit SELECT node, 0, at + 99, actor, action, subject, 'forged', reference, hash
             FROM audit WHERE seq = 3",
            Fault::Foreign(0),
        ),
        (
            "INSERT INTO audit SELECT 'aa', -5, at, actor, action, subject, 'forged', reference, hash
             FROM audit WHERE seq = 3",
            Fault::Foreign(-5),
        ),
        (
            "UPDATE audit SET reference = '0000-0007' WHERE seq = 4",
            Fault::Changed(4),
        ),
        ("DELETE FROM audit_heads", Fault::Head(5)),
        ("UPDATE audit_heads SET seq = 4", Fault::Head(5)),
    ] {
        let found = Mutex::new(None);
        let (tell, told) = mpsc::channel();
        let undone: Result<(), Error> = store
            .write(move |tx| {
                tx.execute(tampering, &[])?;
                let report = audit::verify(tx, &[])?;
                tell.send(report.chains[0].fault).unwrap();
                Err(Error::Busy)
            })
            .await;
        assert!(matches!(undone, Err(Error::Busy)));
        *found.lock().unwrap() = told.recv().unwrap();
        assert_eq!(*found.lock().unwrap(), Some(fault), "{tampering}");
    }
    assert!(store.verify().await.unwrap().is_intact());
}

pub(in crate::store) async fn a_chain_cut_off_with_its_head_is_found(store: &Store) {
    let key = Key::from_pepper(&Secret::new(vec![7; 32]));
    store.seal_audit(key).await.unwrap();
    let append = |n| store.write(move |tx| audit::append(tx, &entry(n)));
    for n in 1..=5 {
        append(n).await.unwrap();
    }
    let whole = store.verify().await.unwrap();
    assert!(whole.is_intact(), "{whole:?}");
    let noted = whole.chains[0].noted();

    // The head goes back with the entries, as far as somebody without the key can do it. Then the node goes on.
    let cut = "DELETE FROM audit WHERE seq > 3";
    let back = "UPDATE audit_heads SET seq = 3, hash = (SELECT hash FROM audit WHERE seq = 3)";
    for tampering in [
        vec![cut, back],
        vec![cut, "DELETE FROM audit_heads"],
        vec!["DELETE FROM audit", "DELETE FROM audit_heads"],
        vec!["UPDATE audit_heads SET seal = hash"],
    ] {
        for goes_on in [false, true] {
            let (tell, told) = mpsc::channel();
            let statements = tampering.clone();
            let undone: Result<(), Error> = store
                .write(move |tx| {
                    for sql in &statements {
                        tx.execute(sql, &[])?;
                    }
                    if goes_on {
                        audit::append(tx, &entry(4))?;
                        audit::append(tx, &entry(5))?;
                    }
                    tell.send(audit::verify(tx, &[])?).unwrap();
                    Err(Error::Busy)
                })
                .await;
            assert!(matches!(undone, Err(Error::Busy)));
            let report = told.recv().unwrap();
            assert!(!report.is_intact(), "{tampering:?} {goes_on}: {report:?}");
        }
    }

    // With a copy of an old head and its seal nothing in the database tells it, but what was noted elsewhere does.
    let (tell, told) = mpsc::channel();
    let undone: Result<(), Error> = store
        .write(move |tx| {
            tx.execute("CREATE TABLE kept AS SELECT * FROM audit_heads", &[])?;
            audit::append(tx, &entry(6))?;
            tx.execute("DELETE FROM audit WHERE seq > 5", &[])?;
            tx.execute("DELETE FROM audit_heads", &[])?;
            tx.execute("INSERT INTO audit_heads SELECT * FROM kept", &[])?;
            let later = Noted {
                seq: 6,
                ..noted.clone()
            };
            for noted in [&[][..], std::slice::from_ref(&noted), &[later]] {
                tell.send(audit::verify(tx, noted)?.chains.remove(0).fault)
                    .unwrap();
            }
            Err(Error::Busy)
        })
        .await;
    assert!(matches!(undone, Err(Error::Busy)), "{undone:?}");
    let faults: Vec<_> = told.iter().collect();
    assert_eq!(faults, [None, None, Some(Fault::Noted(6))]);
}

pub(in crate::store) async fn a_chain_that_another_node_has_seen_can_not_go_back(store: &Store) {
    let key = Key::from_pepper(&Secret::new(vec![7; 32]));
    store.seal_audit(key.clone()).await.unwrap();
    let report = store
        .write::<_, Error>(move |tx| {
            // As if another node had written two entries here.
            for n in 1..=2 {
                audit::append(tx, &entry(n))?;
            }
            let sql = "UPDATE audit_heads SET node = 'n0', seal = $1";
            let head = tx.query_one("SELECT hash FROM audit_heads", &[])?;
            let hash = head.unwrap().digest()?;
            tx.execute("UPDATE audit SET node = 'n0'", &[])?;
            tx.execute(sql, &[key.seal("n0", 2, &hash).to_vec().into()])?;
            audit::begin(tx)?;
            let first = audit::witness(tx, &BTreeMap::new(), at(9))?;
            assert_eq!(first.seen, BTreeMap::from([("n0".to_owned(), 2)]));
            assert_eq!(first.unsealed, Vec::<String>::new());
            // Nothing new: nothing is noted.
            let second = audit::witness(tx, &first.seen, at(10))?;
            assert_eq!((&second.own, &second.seen), (&first.own, &first.seen));
            // The other chain is what its entries no longer hash to; what counts here is what was seen of it.
            let before = audit::verify(tx, &[])?;
            tx.execute("DELETE FROM audit WHERE node = 'n0' AND seq > 1", &[])?;
            tx.execute("DELETE FROM audit_heads WHERE node = 'n0'", &[])?;
            tx.execute("DELETE FROM audit WHERE node = 'n0'", &[])?;
            Ok((before, audit::verify(tx, &[])?))
        })
        .await
        .unwrap();
    let of = |report: &AuditReport, node: &str| {
        let found = report.chains.iter().find(|chain| chain.node == node);
        found.unwrap().fault
    };
    assert_eq!(of(&report.0, "n1"), None);
    assert_eq!(of(&report.1, "n0"), Some(Fault::Witnessed(2)));
    assert_eq!(of(&report.1, "n1"), None);
}

pub(in crate::store) async fn parameters_move_their_number_only_when_they_change(store: &Store) {
    let setting = |value: &str, millis: i64| Setting {
        name: "maximum-concurrent-requests".to_owned(),
        value: value.to_owned(),
        set_at: at(millis),
        set_by: "root".to_owned(),
    };
    store
        .write::<_, Error>(move |tx| {
            let number = |tx: &mut dyn Transaction| meta::get(tx, parameters::REVISION);
            assert_eq!((parameters::all(tx)?, number(tx)?), (vec![], None));
            assert!(parameters::set(tx, &setting("7", 1))?);
            let after_first = number(tx)?;
            assert!(after_first.is_some());
            // The same again is no change, and keeps who made it and when.
            assert!(!parameters::set(tx, &setting("7", 2))?);
            assert_eq!(number(tx)?, after_first);
            assert_eq!(parameters::all(tx)?, [setting("7", 1)]);
            assert!(parameters::set(tx, &setting("8", 3))?);
            let after_second = number(tx)?;
            assert_ne!(after_second, after_first);
            assert_eq!(parameters::all(tx)?, [setting("8", 3)]);
            assert!(parameters::reset(tx, "maximum-concurrent-requests")?);
            let after_third = number(tx)?;
            assert_ne!(after_third, after_second);
            assert!(!parameters::reset(tx, "maximum-concurrent-requests")?);
            assert_eq!((parameters::all(tx)?, number(tx)?), (vec![], after_third));
            Ok(())
        })
        .await
        .unwrap();
}
