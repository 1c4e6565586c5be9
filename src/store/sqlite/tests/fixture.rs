//! Stored data of each version, which every later one must open. `tests/fixtures/store/v1.sql` is a whole database
//! as text, with some of everything in it.
//!
//! `tests/tools/store-fixture` writes it anew, which is right only while its version has not been released. After
//! that the file stays as it is: what reads differently is mended in the code, and a new schema gets a new file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
};

use super::*;
use crate::{
    domain::{
        cluster_time::Reading,
        federation::LinkState,
        ids::{
            ApplicationId, BaseDeviceName, CallGroupName, ClusterId, DevicePoolName,
            GeolocationName, PolicyName, ProfileName, Ref, ServiceName,
        },
        liveness::Incarnation,
        login::{CallManager, HomeServices, Line, PhoneService, SecurityMode, ServiceMenu},
        pairing::{self, InvitationId, Side, Told, ToldAddress, ToldCertificate},
        policy::{BUILT_IN, Policy, Rules},
        purpose::Purpose,
        rotation::{self, Name, Outcome, Progress, Rotation, Word},
        session::{EndReason, Initiator, State},
    },
    secret::Secret,
    store::{
        self,
        announcements::{self, Announced, WaitingEntry},
        answers::Answer,
        applications::{self, Application},
        audit::{self, Entry},
        call_groups::{self, CallGroup},
        choices::{self, Choice},
        cluster_time,
        credentials::Phc,
        crls::{self, StoredCrl},
        devices::Device,
        geolocations::{self, Geolocation},
        imports, node_links,
        pairings::{self, Pairing},
        parameters::{self, Setting},
        peers::{self, Peer},
        phone_services, policies,
        pools::{self, DevicePool},
        profiles::Profile,
        rotations,
        sessions::Session,
        tickets,
        trust_entries::{self, EntryKind, Source, TrustEntry},
        users::User,
    },
};

/// Some of everything, as records.
struct Everything {
    user: User,
    profile: Profile,
    device: Device,
    pool: DevicePool,
    peer: Peer,
    setting: Setting,
    sessions: Vec<Session>,
    entries: Vec<TrustEntry>,
    answer: Answer,
    choice: Choice,
}

fn everything() -> Everything {
    let pool = DevicePoolName::new("Berlin").unwrap();
    let place = BTreeMap::from([("country".to_owned(), "DE".to_owned())]);
    let services = HomeServices {
        user_id: UserId::new("anna").unwrap(),
        profile: ProfileName::new("anna-desk").unwrap(),
        base_device: Some(BaseDeviceName::new("EMCC1").unwrap()),
        call_managers: vec![CallManager {
            host: "cm1.berlin.example".into(),
            priority: 0,
        }],
        tftp_servers: vec!["tftp.berlin.example".into()],
        device_pool: Some(pool.clone()),
        lines: Vec::new(),
        locale: Some("de_DE".into()),
        remaining: Some(Duration::from_secs(36_000)),
        reset: false,
        restart_reason: None,
        phone_services: Vec::new(),
    };
    let session = |role, n: u8, device: &str, state| Session {
        role,
        counterpart: cluster("tokyo"),
        id: session_id(n),
        state,
        device: device_name(device),
        user_id: Some(UserId::new("anna").unwrap()),
        login_type: LoginType::Uid,
        login_name: LoginName::new("anna").unwrap(),
        profile: None,
        base_device: None,
        services: None,
        reference: Ref::from_bits(u64::from(n)),
        created_at: at(1_000 + i64::from(n)),
        deadline: None,
        changed_at: at(1_000 + i64::from(n)),
        ended_at: None,
        end_reason: None,
        initiator: None,
        owed: false,
        parked: None,
        parked_at: None,
    };
    let entry = |kind, n: u8| TrustEntry {
        cluster_id: cluster("tokyo"),
        kind,
        fingerprint: [n; 32],
        der: vec![0x30, n],
        added_at: at(7),
        source: Source::Operator,
        alias: Some("tokyo-1".into()),
    };
    Everything {
        user: User {
            user_id: UserId::new("anna").unwrap(),
            self_service_id: Some(LoginName::new("2001").unwrap()),
            primary_extension: Some(LoginName::new("4711").unwrap()),
            display_name: "Anna Ölçer".into(),
            enabled: true,
            emcc_enabled: true,
            policy: PolicyName::new("Kiosk").ok(),
        },
        profile: Profile {
            name: services.profile.clone(),
            user_id: UserId::new("anna").unwrap(),
            is_default: true,
            lines: vec![Line {
                index: 1,
                number: "4711".into(),
                label: "Anna".into(),
            }],
            locale: Some("de_DE".into()),
            device_pool: Some(pool.clone()),
            services: Vec::new(),
        },
        device: Device {
            name: device_name("SEP001122334455"),
            model: "8845".into(),
            protocol: "SIP".into(),
            security_mode: SecurityMode::Secure,
            emcc: true,
            em_enabled: true,
            device_pool: Some(pool.clone()),
            locale: Some("de_DE".into()),
            geolocation: place.clone(),
            location: None,
            services: Vec::new(),
        },
        pool: DevicePool {
            name: pool,
            geolocation: place,
            call_managers: services.call_managers.clone(),
            tftp_servers: services.tftp_servers.clone(),
            roaming: true,
            location: None,
            call_group: None,
        },
        peer: Peer {
            cluster_id: cluster("tokyo"),
            enabled: true,
            allow_emcc: true,
            addresses: vec!["emcc.tokyo.example:8444".into()],
            node_names: vec!["emcc.tokyo.example".into()],
            user_patterns: vec!["t*".into()],
            dn_patterns: vec!["81*".into()],
            ignore_eku: false,
            accept_announcements: crate::domain::announcement::Acceptance::default(),
            description: "the other one".into(),
        },
        setting: Setting {
            name: "maximum-concurrent-requests".into(),
            value: "128".into(),
            set_at: at(5),
            set_by: "root (uid 0)".into(),
        },
        sessions: vec![
            Session {
                base_device: services.base_device.clone(),
                profile: Some(services.profile.clone()),
                services: Some(services),
                ..session(Role::Home, 1, "SEPTOKYO", State::Active)
            },
            Session {
                deadline: Some(at(9_000)),
                user_id: None,
                ..session(Role::Visiting, 2, "SEP001122334455", State::Pending)
            },
            Session {
                ended_at: Some(at(8_000)),
                end_reason: Some(EndReason::Operator),
                initiator: Some(Initiator::Home),
                owed: true,
                parked: Some("it does not know us".into()),
                parked_at: Some(at(8_100)),
                ..session(Role::Home, 3, "SEPOTHER", State::Ended)
            },
        ],
        entries: vec![entry(EntryKind::Pinned, 1), entry(EntryKind::Anchor, 2)],
        answer: Answer {
            counterpart: cluster("tokyo"),
            id: session_id(3),
            digest: [3; 32],
            code: Some(33),
            cause: "no base device is free".into(),
            body: Vec::new(),
            kept_at: at(8_000),
        },
        choice: Choice {
            device: device_name("SEP001122334455"),
            hash: [5; 32],
            home: cluster("tokyo"),
            login_type: LoginType::Uid,
            login_name: LoginName::new("taro").unwrap(),
            as_typed: true,
            profiles: vec![ProfileName::new("taro-desk").unwrap()],
            expires_at: at(9_000),
        },
    }
}

fn waiting(all: &Everything) -> imports::Waiting {
    imports::Waiting {
        kind: "user",
        name: "anna".into(),
        audited: audit::Action::Set(audit::Noun::User),
        change: "changed: name = Anna".into(),
        action: imports::Action::Put,
        values: users::values(&all.user),
        phc: None,
    }
}

fn service() -> PhoneService {
    PhoneService {
        name: ServiceName::new("Menu").unwrap(),
        url: "https://canteen.example/".into(),
        menu: ServiceMenu::Services,
    }
}

fn policy() -> Policy {
    Policy {
        name: PolicyName::new("Kiosk").unwrap(),
        rules: Rules {
            min_length: 4,
            lock_duration: 60,
            ..BUILT_IN
        },
    }
}

fn fill(tx: &mut dyn Transaction) -> Result<(), Error> {
    let all = everything();
    meta::put(tx, "cluster-id", "berlin")?;
    cluster_time::put(tx, reading())?;
    tx.execute(
        "INSERT INTO agreements (cluster_id, passed_at, agreed_at, held_since, held_ends)
         VALUES ('tokyo', 7000, 6000, 6500, 80)",
        &[],
    )?;
    parameters::set(tx, &all.setting)?;
    geolocations::upsert(
        tx,
        &Geolocation {
            name: GeolocationName::new("Mitte").unwrap(),
            fields: all.pool.geolocation.clone(),
        },
    )?;
    call_groups::upsert(
        tx,
        &CallGroup {
            name: CallGroupName::new("North").unwrap(),
            members: all.pool.call_managers.clone(),
        },
    )?;
    phone_services::upsert(tx, &service())?;
    let application = Application {
        id: ApplicationId::new("crm").unwrap(),
        proxy: true,
    };
    applications::upsert(tx, &application)?;
    applications::put_hash(tx, &application.id, &Phc::new(PHC.into()))?;
    pools::upsert(tx, &all.pool)?;
    policies::upsert(tx, &policy())?;
    users::upsert(tx, &all.user)?;
    credentials::put_hash(tx, &all.user.user_id, &Phc::new(PHC.into()), at(6))?;
    credentials::set_counters(tx, &locked(&all))?;
    profiles::upsert(tx, &all.profile)?;
    devices::upsert(tx, &all.device)?;
    for name in ["EMCC1", "EMCC2"] {
        base_devices::upsert(tx, &BaseDeviceName::new(name).unwrap())?;
    }
    peers::upsert(tx, &all.peer)?;
    for entry in &all.entries {
        trust_entries::add(tx, entry)?;
    }
    trust_entries::revoke(tx, &revoked(), &[9; 32], at(4))?;
    crls::put(tx, &crl())?;
    fill_announcements(tx)?;
    pairings::put(tx, &pairing())?;
    for session in &all.sessions {
        sessions::insert(tx, session)?;
    }
    answers::put(tx, &all.answer)?;
    let import = imports::begin(tx, "root (uid 0)", at(7))?;
    imports::add(tx, import, 1, &[waiting(&all)], at(7))?;
    hints::put(
        tx,
        LoginType::Uid,
        &LoginName::new("taro").unwrap(),
        &cluster("tokyo"),
    )?;
    let why = tickets::Issue::First(all.answer.id);
    tickets::issue(tx, holder(&all), why, &[4; 32], at(9_000))?;
    choices::put(tx, &all.choice)?;
    let node = node();
    store::nodes::register(tx, &node)?;
    assert!(node_links::put(tx, &node.run, &node_link())?);
    let rotation = rotation();
    rotations::put(tx, &rotation)?;
    rotations::put_progress(tx, &rotation.name, &rotation_told())?;
    store::claims::take(
        tx,
        &store::claims::Task::retention(),
        None,
        &node.run,
        at(1),
    )?;
    for n in 2..=3 {
        audit::append(tx, &change(n))?;
    }
    Ok(())
}

fn reading() -> Reading {
    Reading {
        at: at(8_500),
        wall: at(8_400),
    }
}

fn waiting_entry() -> WaitingEntry {
    WaitingEntry {
        cluster_id: cluster("tokyo"),
        fingerprint: [3; 32],
        der: vec![0x30, 3],
        since: at(8),
    }
}

fn announced() -> Announced {
    Announced {
        identity: "tokyo-1/federation".into(),
        sequence: 12,
        digest: [6; 32],
        told_at: at(8),
    }
}

fn pairing() -> Pairing {
    Pairing {
        side: Side::Inviting,
        id: InvitationId([1, 2, 3, 4, 5, 6, 7, 8]),
        state: pairing::State::Told,
        node: "n1".into(),
        actor: "root (uid 0)".into(),
        name: "Berlin".into(),
        addresses: vec!["n1.berlin.example:8444".into()],
        their_addresses: Vec::new(),
        created_at: at(5),
        expires_at: at(1_800_005),
        proof_key: Some(Secret::new(vec![5; 32])),
        failures: 2,
        bound_to: Some([6; 32]),
        server_leaf: Some([7; 32]),
        remote: "192.0.2.7:40000".into(),
        words: "abandon ability able about above absent".into(),
        told: Some(Told {
            cluster_id: "lima".into(),
            name: "Lima".into(),
            addresses: vec![ToldAddress {
                address: "n1.lima.example:8444".into(),
                trouble: Some("connection refused".into()),
                warning: None,
            }],
            certificates: vec![ToldCertificate {
                node: "n1".into(),
                purpose: "federation".into(),
                der: vec![0x30, 4],
                scheme: 0x0403,
                signature: vec![9, 8],
                ..ToldCertificate::default()
            }],
            ..Told::default()
        }),
        confirmed_by: Some("anna (uid 1000)".into()),
        is_update: true,
        they_confirmed: false,
        trouble: "wrong proof 2 of 5".into(),
    }
}

fn fill_announcements(tx: &mut dyn Transaction) -> Result<(), Error> {
    let tokyo = cluster("tokyo");
    let own = BTreeSet::from([[1; 32], [3; 32]]);
    announcements::put(tx, &tokyo, &announced(), &own)?;
    announcements::wait(tx, &waiting_entry())?;
    announcements::descend(tx, &tokyo, &[3; 32], &[1; 32])
}

fn rotation() -> rotations::Row {
    let mut rotation = Rotation::requested(true, None);
    rotation.made([1; 32], [2; 32], 7);
    rotation.in_use = Some(vec!["the link to tokyo".into()]);
    rotations::Row {
        name: Name {
            node: "n1".into(),
            purpose: Purpose::Federation,
        },
        rotation,
        old_ends: Some(at(4)),
        recipe: rotations::Recipe::default(),
        problem: Some("no space".into()),
        since: at(3),
    }
}

fn rotation_told() -> rotation::Told {
    let mut progress = Progress::default();
    progress.answered(7, Outcome::Waiting, "ask Ana");
    progress.word = Some(Word::Overridden);
    rotation::Told {
        cluster: cluster("tokyo"),
        progress,
    }
}

fn node_link() -> [node_links::Link; 1] {
    [node_links::Link {
        cluster: cluster("tokyo"),
        state: LinkState::Down,
        since: at(2),
        reason: Some("connection refused".into()),
    }]
}

fn node() -> store::nodes::Node {
    store::nodes::Node {
        run: Incarnation {
            node: "n1".into(),
            instance: "00c0ffee".into(),
        },
        addresses: vec!["n1.berlin.example:8444".into()],
        software: "emccd 0.1.0".into(),
        started_at: at(3),
        beat: 12,
    }
}

fn holder(all: &Everything) -> tickets::Holder<'_> {
    tickets::Holder {
        caller: &all.peer.cluster_id,
        device: &all.device.name,
        user: &all.user.user_id,
        purpose: tickets::Purpose::ChooseProfile,
    }
}

fn change(n: i64) -> Entry {
    Entry {
        at: at(n),
        actor: "root (uid 0)".into(),
        action: audit::Action::Set(audit::Noun::Param),
        subject: "maximum-concurrent-requests".into(),
        outcome: "128, before: 256".into(),
        reference: Some(Ref::from_bits(7)),
    }
}

/// A user who has failed, is locked, and must change the PIN.
fn locked(all: &Everything) -> credentials::Credential {
    credentials::Credential {
        user_id: all.user.user_id.clone(),
        phc: Phc::new(PHC.into()),
        failures: 3,
        window_started: Some(at(7_000)),
        locked_until: Some(at(9_500)),
        must_change: true,
    }
}

fn key() -> audit::Key {
    audit::Key::from_pepper(&crate::secret::Secret::new(vec![7; 32]))
}

fn crl() -> StoredCrl {
    StoredCrl {
        cluster_id: ClusterId::new("tokyo").unwrap(),
        issuer_key: [5; 32],
        issuer_der: vec![0x30, 2],
        number: "7".to_owned(),
        this_update: at(8),
        next_update: at(9),
        is_strict: true,
        added_at: at(10),
        der: vec![0x30, 5],
    }
}

fn revoked() -> ClusterId {
    cluster("tokyo")
}

/// What stands for a hash: nothing checks a PIN against it.
const PHC: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$aGFzaA";

/// The newest schema that a release has: fixtures up to it are never written again.
const RELEASED: i64 = 0;

fn file(version: i64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/store/v{version}.sql"))
}

/// A whole database as text.
fn dump(connection: &Connection) -> String {
    let texts = |sql: &str| -> Vec<(String, String)> {
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.unwrap().map(Result::unwrap).collect()
    };
    let mut out = "-- Made by tests/tools/store-fixture. Once its version is released it is never changed again.\n\
                   PRAGMA foreign_keys = OFF;\nBEGIN;\n"
        .to_owned();
    let tables = texts("SELECT name, sql FROM sqlite_schema WHERE type = 'table' ORDER BY rowid");
    for (name, sql) in &tables {
        let _ = writeln!(out, "{sql};");
        let columns = texts(&format!("SELECT name, '' FROM pragma_table_info('{name}')"));
        let quoted: Vec<_> = columns.iter().map(|(c, _)| format!("quote({c})")).collect();
        let rows = texts(&format!(
            "SELECT {}, '' FROM {name} ORDER BY rowid",
            quoted.join(" || ', ' || ")
        ));
        for (values, _) in rows {
            let _ = writeln!(out, "INSERT INTO {name} VALUES ({values});");
        }
    }
    for (_, sql) in texts(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL ORDER BY rowid",
    ) {
        let _ = writeln!(out, "{sql};");
    }
    out + "COMMIT;\n"
}

async fn write_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = Store::open(&config(&path)).unwrap();
    store.seal_audit(key()).await.unwrap();
    store.write(fill).await.unwrap();
    store.close();
    // A second node, so that there are two chains.
    let second = Store::open(&Config {
        node: "n2".into(),
        ..config(&path)
    })
    .unwrap();
    second.seal_audit(key()).await.unwrap();
    second
        .write(|tx| audit::append(tx, &change(4)))
        .await
        .unwrap();
    second.close();
    let known = store::schema(&path).unwrap().found;
    assert!(
        known > RELEASED,
        "version {known} is released: its fixture stays as it is, and a new schema is a new migration"
    );
    fs::write(file(known), dump(&Connection::open(&path).unwrap())).unwrap();
}

#[tokio::test]
async fn the_database_of_version_1_opens_and_holds_what_was_written() {
    if std::env::var_os("UPDATE_STORE_FIXTURE").is_some() {
        write_anew().await;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(&fs::read_to_string(file(1)).unwrap())
        .unwrap();
    every_table_has_a_row(&old);
    drop(old);
    assert_eq!(
        store::schema(&path).unwrap().found,
        1,
        "v1.sql must stay what version 1 wrote"
    );

    let store = Store::open(&config(&path)).expect(
        "the fixture does not open: while its version is not released, run tests/tools/store-fixture",
    );
    store.read::<_, Error>(check).await.unwrap();
    store.seal_audit(key()).await.unwrap();
    let report = store.verify().await.unwrap();
    assert!(report.is_intact(), "{report:?}");
    let entries: Vec<_> = report
        .chains
        .iter()
        .map(|chain| (&*chain.node, chain.entries))
        .collect();
    assert_eq!(entries, [("n1", 3), ("n2", 1)]);
    // It goes on from there.
    store
        .write(|tx| {
            let all = everything();
            assert!(tickets::redeem(tx, holder(&all), &[4; 32], at(8_500))?);
            audit::append(tx, &change(5))
        })
        .await
        .unwrap();
    store.close();
    let check = store::Check {
        key: Some(key()),
        noted: Vec::new(),
    };
    let found = store::inspect(&path, &check).unwrap();
    assert!(found.is_whole(), "{found:?}");
    assert_eq!(found.cluster.as_deref(), Some("berlin"));
}

fn every_table_has_a_row(connection: &Connection) {
    let mut statement = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .unwrap();
    let names = statement.query_map([], |row| row.get::<_, String>(0));
    for name in names.unwrap().map(Result::unwrap) {
        let sql = format!("SELECT count(*) FROM {name}");
        let rows: i64 = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
        assert!(rows > 0, "the fixture lacks a row of {name}");
    }
}

fn check(tx: &mut dyn Transaction) -> Result<(), Error> {
    let all = everything();
    assert_eq!(cluster_time::reading(tx)?, Some(reading()));
    assert_eq!(parameters::all(tx)?, [all.setting]);
    assert_eq!(pools::list(tx)?, [all.pool]);
    assert_eq!(users::list(tx, None, 10)?, std::slice::from_ref(&all.user));
    let credential = credentials::get(tx, &all.user.user_id)?.unwrap();
    assert_eq!(credential, locked(&everything()));
    assert_eq!(profiles::list(tx)?, [all.profile]);
    assert_eq!(devices::list(tx, None, 10)?, [all.device]);
    let held: Vec<_> = base_devices::list(tx)?
        .into_iter()
        .map(|(name, by)| (name.to_string(), by))
        .collect();
    assert_eq!(
        held,
        [
            ("EMCC1".to_owned(), Some(session_id(1))),
            ("EMCC2".to_owned(), None)
        ]
    );
    let stored = pairings::list(tx, Side::Inviting)?;
    assert_eq!(format!("{stored:?}"), format!("{:?}", [pairing()]));
    assert_eq!(stored[0].proof_key.as_ref().unwrap().expose(), [5; 32]);
    assert_eq!(peers::list(tx)?, [all.peer]);
    let mut entries = trust_entries::list(tx)?;
    entries.sort_by_key(|entry| entry.fingerprint);
    assert_eq!(entries, all.entries);
    let tokyo = cluster("tokyo");
    assert_eq!(announcements::waiting(tx)?, [waiting_entry()]);
    assert_eq!(announcements::identities(tx, &tokyo)?, [announced()]);
    assert_eq!(announcements::labels(tx)?.len(), 2);
    assert_eq!(announcements::descendants(tx, &tokyo, &[1; 32])?, [[3; 32]]);
    assert_eq!(crls::list(tx)?, [crl()]);
    assert_eq!(crls::get(tx, &crl().cluster_id, &[5; 32])?, Some(crl()));
    let gone = trust_entries::revoked(tx)?;
    assert_eq!((gone.len(), &gone[0].cluster_id), (1, &revoked()));
    for session in all.sessions {
        let found = sessions::get(tx, session.role, &session.counterpart, session.id)?;
        assert_eq!(found, Some(session));
    }
    assert_eq!(
        answers::get(tx, &cluster("tokyo"), session_id(3))?,
        Some(all.answer)
    );
    assert_eq!(
        choices::get(tx, &all.choice.device, &all.choice.hash, at(8_500))?,
        Some(all.choice)
    );
    assert_eq!(store::nodes::all(tx)?, [node()]);
    assert_eq!(node_links::of(tx, &node().run)?, Some(node_link().into()));
    assert_eq!(rotations::all(tx)?, [rotation()]);
    assert!(rotations::told(tx, &rotation().name)?.contains(&rotation_told()));
    let held = store::claims::held_by(tx, &node().run)?;
    assert_eq!(held.len(), 1);
    let taro = LoginName::new("taro").unwrap();
    assert_eq!(
        hints::get(tx, LoginType::Uid, &taro)?,
        Some(cluster("tokyo"))
    );
    Ok(())
}
