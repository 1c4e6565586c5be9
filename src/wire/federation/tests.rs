//! Every message survives the way as bytes; every bound is kept.

use std::{collections::BTreeMap, time::Duration};

use proptest::{collection, option, prelude::*};
use prost::Message;
use uuid::Uuid;

use super::*;
use crate::{
    clock::Timestamp,
    domain::{
        accepted::{Accepted, AcceptedKind, AcceptedList},
        address_list::AddressList,
        bounds,
        em_code::EmCode,
        ids::{
            BaseDeviceName, ClusterId, DeviceName, DevicePoolName, LoginName, ProfileName,
            ServiceName, SessionId, UserId,
        },
        login::{
            CallManager, DeviceFacts, FindUser, HomeServices, Line, LoginAnswer, LoginRequest,
            LoginType, LogoutRequest, Ownership, PhoneService, ProfileChoice, Proof, SecurityMode,
            ServiceMenu,
        },
        refusal::Refusal,
        session::{EndReason, Initiator},
        version::{Version, VersionRange},
    },
    secret::{Pin, Ticket},
    wire::{Malformed, pb},
};

/// A change of one message, for the tables below.
type Change<T> = fn(&mut T);

/// Through the bytes of the wire.
#[expect(clippy::needless_pass_by_value, reason = "what is sent is gone")]
fn sent<T: Message + Default>(message: T) -> T {
    T::decode(message.encode_to_vec().as_slice()).unwrap()
}

fn id(n: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(n))
}

fn login() -> LoginRequest {
    LoginRequest {
        session_id: id(7),
        user: FindUser {
            login_type: LoginType::Extension,
            name: LoginName::new("4711").unwrap(),
        },
        proof: Proof::Pin(Pin::new("48151623".to_owned()).unwrap()),
        profile: Some(ProfileName::new("alice desk").unwrap()),
        device: DeviceFacts {
            name: DeviceName::new("SEP00112233AABB").unwrap(),
            model: "8845".to_owned(),
            protocol: "SIP".to_owned(),
            security_mode: SecurityMode::Secure,
            locale: Some("de_DE".to_owned()),
            address: Some("2001:db8::7".parse().unwrap()),
        },
        geolocation: BTreeMap::from([("country".to_owned(), "DE".to_owned())]),
        supersedes: vec![id(1), id(2)],
    }
}

fn good() -> pb::LoginRequest {
    encode_login(&login(), Version::V1_1)
}

fn services() -> HomeServices {
    HomeServices {
        user_id: UserId::new("alice").unwrap(),
        profile: ProfileName::new("alice desk").unwrap(),
        base_device: Some(BaseDeviceName::new("EMCCBASE1").unwrap()),
        call_managers: vec![CallManager {
            host: "cucm1.example".to_owned(),
            priority: 4,
        }],
        tftp_servers: vec!["tftp.example".to_owned()],
        device_pool: Some(DevicePoolName::new("Roaming DE").unwrap()),
        lines: vec![Line {
            index: 1,
            number: "4711".to_owned(),
            label: "Alice".to_owned(),
        }],
        locale: Some("en_US".to_owned()),
        remaining: Some(Duration::from_millis(36_000_500)),
        reset: true,
        restart_reason: Some("other network locale".to_owned()),
        phone_services: ServiceMenu::ALL
            .map(|menu| PhoneService {
                name: ServiceName::new(menu.as_str()).unwrap(),
                url: "https://canteen.example/".to_owned(),
                menu,
            })
            .into(),
    }
}

fn hello() -> Hello {
    Hello {
        versions: VersionRange::SUPPORTED,
        capabilities: vec!["change-pin".to_owned()],
        cluster_id: ClusterId::new("berlin").unwrap(),
        node: "berlin-1".to_owned(),
        instance: "00c0ffee".to_owned(),
        software: "emccd 0.1.0".to_owned(),
        now: Timestamp::from_millis(1_700_000_000_123),
        security_mode: SecurityMode::Secure,
        trust_sequence: 3,
        address_sequence: 9,
    }
}

#[test]
fn a_login_survives_the_way() {
    let (before, after) = (login(), decode_login(sent(good()), Version::V1_1).unwrap());
    let (Proof::Pin(old), Proof::Pin(new)) = (&before.proof, &after.proof) else {
        panic!("the PIN is gone")
    };
    assert_eq!(old.expose(), new.expose());
    assert_eq!(before.session_id, after.session_id);
    assert_eq!(before.user, after.user);
    assert_eq!(before.profile, after.profile);
    assert_eq!(before.device, after.device);
    assert_eq!(before.geolocation, after.geolocation);
    assert_eq!(before.supersedes, after.supersedes);
}

#[test]
fn a_ticket_goes_in_place_of_the_pin() {
    let mut before = login();
    before.proof = Proof::Ticket(Ticket::from_bytes([9; 16]));
    let message = sent(encode_login(&before, Version::V1_1));
    assert!(message.pin.is_empty());
    let after = decode_login(message, Version::V1_1).unwrap();
    let Proof::Ticket(ticket) = after.proof else {
        panic!("the ticket is gone")
    };
    assert_eq!(ticket, Ticket::from_bytes([9; 16]));
}

#[test]
fn a_choice_survives_the_way_and_is_bounded() {
    let choice = |names: usize| ProfileChoice {
        profiles: (0..names)
            .map(|n| ProfileName::new(format!("profile {n}")).unwrap())
            .collect(),
        ticket: Ticket::from_bytes([9; 16]),
    };
    for names in [1, 2, 100] {
        let answer = LoginAnswer::Choose(choice(names));
        let message = sent(pb::LoginResponse::from(&answer));
        assert_eq!(LoginAnswer::try_from(message), Ok(answer));
    }
    let broken: [(&str, Change<pb::LoginResponse>); 5] = [
        ("services", |m| {
            m.services = Some(pb::HomeServices::default());
        }),
        ("choice.profiles", |m| {
            m.choice.as_mut().unwrap().profiles.clear();
        }),
        ("choice.profiles", |m| {
            m.choice.as_mut().unwrap().profiles = vec!["p".to_owned(); 101];
        }),
        ("choice.profiles", |m| {
            m.choice.as_mut().unwrap().profiles[0] = "a\nb".to_owned();
        }),
        ("choice.ticket", |m| {
            m.choice.as_mut().unwrap().ticket.truncate(31);
        }),
    ];
    for (field, change) in broken {
        let mut message = pb::LoginResponse::from(&LoginAnswer::Choose(choice(2)));
        change(&mut message);
        assert_eq!(LoginAnswer::try_from(message).unwrap_err().field, field);
    }
}

#[test]
fn a_bare_login_has_no_profile_and_no_address() {
    let mut message = good();
    message.profile.clear();
    message.geolocation.clear();
    message.supersedes.clear();
    message.device.as_mut().unwrap().address.clear();
    let request = decode_login(message, Version::V1_1).unwrap();
    assert_eq!((request.profile, request.device.address), (None, None));
}

#[test]
fn a_login_that_breaks_a_rule_is_refused_by_field() {
    let cases: [(&str, Change<pb::LoginRequest>); 24] = [
        ("session_id", |m| m.session_id.truncate(15)),
        ("session_id", |m| m.session_id.clear()),
        ("login_type", |m| m.login_type = 9),
        ("name", |m| m.name.clear()),
        ("name", |m| m.name = "x".repeat(129)),
        ("name", |m| m.name = "al\0ice".to_owned()),
        ("pin", |m| m.pin.clear()),
        ("pin", |m| m.pin = "9".repeat(129)),
        ("ticket", |m| m.ticket = "abc".to_owned()),
        ("ticket", |m| m.ticket = "0a".repeat(16)),
        ("ticket", |m| {
            m.pin.clear();
            m.ticket = "0g".repeat(16);
        }),
        ("profile", |m| m.profile = "p".repeat(129)),
        ("device", |m| m.device = None),
        ("device.name", |m| m.device.as_mut().unwrap().name.clear()),
        ("device.name", |m| {
            m.device.as_mut().unwrap().name = "a b".to_owned();
        }),
        ("device.model", |m| {
            m.device.as_mut().unwrap().model = "m".repeat(65);
        }),
        ("device.protocol", |m| {
            m.device.as_mut().unwrap().protocol = "S".repeat(17);
        }),
        ("device.address", |m| {
            m.device.as_mut().unwrap().address = "here".to_owned();
        }),
        ("geolocation", |m| {
            m.geolocation = (0..25).map(|n| (format!("A{n}"), String::new())).collect();
        }),
        ("geolocation", |m| {
            drop(m.geolocation.insert("k".repeat(65), String::new()));
        }),
        ("geolocation", |m| {
            drop(m.geolocation.insert("A1".to_owned(), "v".repeat(65)));
        }),
        ("geolocation", |m| {
            drop(m.geolocation.insert(String::new(), "v".to_owned()));
        }),
        ("supersedes", |m| m.supersedes = vec![vec![0; 16]; 65]),
        ("supersedes", |m| m.supersedes.push(vec![0; 17])),
    ];
    for (field, change) in cases {
        let mut message = good();
        change(&mut message);
        let malformed = decode_login(message, Version::V1_1).unwrap_err();
        assert_eq!(malformed.field, field, "{malformed}");
        assert!(!malformed.to_string().contains("4815"), "{malformed}");
        assert_eq!(Refusal::from(malformed).code, EmCode::ErrorOnParsing);
    }
}

#[test]
fn the_bounds_themselves_are_allowed() {
    let mut message = good();
    message.name = "x".repeat(128);
    message.pin = "9".repeat(128);
    message.geolocation = (0..24)
        .map(|n| (format!("{n:064}"), "v".repeat(64)))
        .collect();
    message.supersedes = vec![vec![0; 16]; 64];
    decode_login(message, Version::V1_1).unwrap();
}

#[test]
fn at_1_0_there_is_only_the_user_id() {
    let find = |login_type| FindUser {
        login_type,
        name: LoginName::new("4711").unwrap(),
    };
    let uid = encode_find(&find(LoginType::Uid), Version::V1_0);
    assert_eq!(uid.login_type, i32::from(pb::LoginType::Unspecified));
    assert_eq!(decode_find(uid, Version::V1_0), Ok(find(LoginType::Uid)));
    for login_type in [LoginType::SelfService, LoginType::Extension] {
        let malformed =
            decode_find(encode_find(&find(login_type), Version::V1_0), Version::V1_0).unwrap_err();
        assert_eq!(malformed.field, "login_type");
        let malformed = decode_login(good(), Version::V1_0).unwrap_err();
        assert_eq!(malformed.field, "login_type");
    }
}

#[test]
fn since_1_1_there_are_three() {
    for login_type in LoginType::ALL {
        let query = FindUser {
            login_type,
            name: LoginName::new("a@b").unwrap(),
        };
        let message = sent(encode_find(&query, Version::V1_1));
        assert_ne!(message.login_type, i32::from(pb::LoginType::Unspecified));
        assert_eq!(decode_find(message, Version::V1_1), Ok(query));
    }
    let silent = pb::FindUserRequest {
        login_type: 0,
        name: "alice".to_owned(),
    };
    assert_eq!(
        decode_find(silent, Version::V1_1).unwrap().login_type,
        LoginType::Uid
    );
}

#[test]
fn ownership_survives_and_silence_is_no_answer() {
    for ownership in [Ownership::Mine, Ownership::NotMine, Ownership::SeveralUsers] {
        assert_eq!(
            Ownership::try_from(sent(pb::FindUserResponse::from(ownership))),
            Ok(ownership)
        );
    }
    for unknown in [0, 4, -1] {
        assert!(Ownership::try_from(pb::FindUserResponse { ownership: unknown }).is_err());
    }
}

#[test]
fn services_survive_the_way() {
    let bare = HomeServices {
        base_device: None,
        call_managers: Vec::new(),
        tftp_servers: Vec::new(),
        device_pool: None,
        lines: Vec::new(),
        locale: None,
        remaining: None,
        reset: false,
        restart_reason: None,
        ..services()
    };
    for services in [services(), bare] {
        let message = sent(pb::LoginResponse::from(&LoginAnswer::from(
            services.clone(),
        )));
        assert_eq!(LoginAnswer::try_from(message), Ok(services.into()));
    }
}

#[test]
fn services_that_break_a_rule_are_refused_by_field() {
    let cases: [(&str, Change<pb::HomeServices>); 14] = [
        ("user_id", |m| m.user_id.clear()),
        ("profile", |m| m.profile.clear()),
        ("base_device", |m| m.base_device = "a b".to_owned()),
        ("call_managers.priority", |m| {
            m.call_managers[0].priority = 5;
        }),
        ("call_managers.priority", |m| {
            m.call_managers[0].priority = u32::MAX;
        }),
        ("phone_services.name", |m| m.phone_services[0].name.clear()),
        ("phone_services.url", |m| {
            m.phone_services[0].url = "x".repeat(257);
        }),
        ("phone_services", |m| {
            m.phone_services = vec![pb::PhoneService::default(); 65];
        }),
        ("call_managers", |m| {
            m.call_managers = vec![pb::CallManager::default(); 65];
        }),
        ("tftp_servers", |m| m.tftp_servers = vec!["t".repeat(256)]),
        ("lines.index", |m| m.lines[0].index = 0),
        ("lines", |m| m.lines = vec![m.lines[0].clone(); 257]),
        ("locale", |m| m.locale = "en\nUS".to_owned()),
        ("restart_reason", |m| m.restart_reason = "r".repeat(513)),
    ];
    for (field, change) in cases {
        let mut message = pb::HomeServices::from(&services());
        change(&mut message);
        assert_eq!(HomeServices::try_from(message).unwrap_err().field, field);
    }
    let nothing = LoginAnswer::try_from(pb::LoginResponse::default());
    assert_eq!(nothing.unwrap_err().field, "services");
}

#[test]
fn a_logout_survives_the_way() {
    for (reason, _) in EndReason::WORDS {
        for initiator in [Initiator::Home, Initiator::Visiting] {
            let request = LogoutRequest {
                session_id: id(9),
                reason: *reason,
                initiator,
            };
            assert_eq!(
                LogoutRequest::try_from(sent(pb::LogoutRequest::from(request))),
                Ok(request)
            );
        }
        assert_eq!(
            EndReason::try_from(sent(pb::LogoutResponse::from(*reason))),
            Ok(*reason)
        );
    }
}

#[test]
fn a_logout_needs_an_id_and_an_initiator_but_no_known_reason() {
    let good = pb::LogoutRequest {
        session_id: vec![1; 16],
        reason: 99,
        initiator: pb::Initiator::Visiting.into(),
    };
    assert_eq!(
        LogoutRequest::try_from(good.clone()).unwrap().reason,
        EndReason::Abandoned
    );
    let field = |message: pb::LogoutRequest| LogoutRequest::try_from(message).unwrap_err().field;
    assert_eq!(
        field(pb::LogoutRequest {
            session_id: vec![1; 3],
            ..good
        }),
        "session_id"
    );
    assert_eq!(
        field(pb::LogoutRequest {
            initiator: 0,
            ..good.clone()
        }),
        "initiator"
    );
    assert_eq!(
        field(pb::LogoutRequest {
            initiator: 3,
            ..good
        }),
        "initiator"
    );
}

#[test]
fn hello_survives_the_way_in_both_directions() {
    assert_eq!(
        Hello::try_from(sent(pb::HelloRequest::from(&hello()))),
        Ok(hello())
    );
    assert_eq!(
        Hello::try_from(sent(pb::HelloResponse::from(&hello()))),
        Ok(hello())
    );
}

#[test]
fn a_hello_that_says_little_speaks_1_0() {
    let message = pb::HelloRequest {
        cluster_id: "berlin".to_owned(),
        ..pb::HelloRequest::default()
    };
    let hello = Hello::try_from(message).unwrap();
    assert_eq!(hello.versions, VersionRange::ONLY_1_0);
    assert_eq!(hello.security_mode, SecurityMode::NonSecure);
    assert_eq!(hello.now, Timestamp::default());
}

#[test]
fn a_hello_that_breaks_a_rule_is_refused_by_field() {
    let cases: [(&str, Change<pb::HelloRequest>); 8] = [
        ("cluster_id", |m| m.cluster_id.clear()),
        ("cluster_id", |m| m.cluster_id = "c".repeat(65)),
        ("node", |m| m.node = "n".repeat(256)),
        ("software", |m| m.software = "\u{1b}[2J".to_owned()),
        ("capabilities", |m| {
            m.capabilities = vec!["c".to_owned(); 65];
        }),
        ("capabilities", |m| m.capabilities = vec!["c".repeat(65)]),
        ("versions.min", |m| m.versions.as_mut().unwrap().min = None),
        ("versions", |m| {
            m.versions.as_mut().unwrap().max = Some(pb::Version { major: 2, minor: 0 });
        }),
    ];
    for (field, change) in cases {
        let mut message = pb::HelloRequest::from(&hello());
        change(&mut message);
        assert_eq!(Hello::try_from(message).unwrap_err().field, field);
    }
}

#[test]
fn a_beat_survives_the_way_and_is_bounded() {
    let up = Beat {
        sequence: 1,
        now: Timestamp::from_millis(5),
        reverse_proof_age: Some(Duration::from_millis(1250)),
        reverse_down_reason: String::new(),
        draining: false,
        addresses: None,
        accepted: None,
        session_ends: 0,
    };
    let down = Beat {
        reverse_proof_age: None,
        reverse_down_reason: "connection refused".to_owned(),
        draining: true,
        session_ends: 77,
        addresses: Some(AddressList {
            sequence: 9,
            addresses: vec!["berlin-1.example:8444".to_owned()],
        }),
        accepted: Some(AcceptedList {
            sequence: 7,
            certificates: [
                (AcceptedKind::Pinned, Some(Timestamp::from_millis(9_000))),
                (AcceptedKind::Anchor, Some(Timestamp::from_millis(8_000))),
                (AcceptedKind::Waiting, None),
                (AcceptedKind::Revoked, None),
            ]
            .map(|(kind, until)| Accepted {
                fingerprint: [3; 32],
                kind,
                until,
            })
            .into(),
        }),
        ..up
    };
    for beat in [up.clone(), down] {
        assert_eq!(
            Beat::try_from(sent(pb::WatchResponse::from(&beat))),
            Ok(beat)
        );
    }
    for addresses in [vec!["a:1".to_owned(); 17], vec!["a".repeat(261)]] {
        let mut message = pb::WatchResponse::from(&up);
        let sequence = 1;
        message.addresses = Some(pb::AddressList {
            sequence,
            addresses,
        });
        let refused: Result<Beat, Malformed> = Beat::try_from(message);
        assert_eq!(refused.unwrap_err().field, "addresses");
    }
    let entry = |fingerprint, kind: i32| pb::AcceptedCertificate {
        fingerprint,
        kind,
        until: None,
    };
    let pinned = pb::AcceptedKind::Pinned.into();
    for (certificates, kept) in [
        (vec![entry(vec![0; 31], pinned)], None),
        (vec![entry(vec![0; 32], pinned); 65], None),
        // Of a kind that is not known here, or of none.
        (vec![entry(vec![0; 32], 77), entry(vec![], 0)], Some(0)),
        (vec![entry(vec![0; 32], pinned); 64], Some(64)),
    ] {
        let mut message = pb::WatchResponse::from(&up);
        message.accepted = Some(pb::AcceptedCertificates {
            sequence: 1,
            certificates,
        });
        let read: Result<Beat, Malformed> = Beat::try_from(message);
        let found = read
            .map(|beat| beat.accepted.map(|list| list.certificates.len()))
            .unwrap_or_default();
        assert_eq!(found, kept);
    }
    let mut message = pb::WatchResponse::from(up);
    message.reverse_down_reason = "r".repeat(513);
    let expected: Result<Beat, Malformed> = Beat::try_from(message);
    assert_eq!(expected.unwrap_err().field, "reverse_down_reason");
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_decodes_keeps_the_rules(
        bytes in collection::vec(any::<u8>(), 0..256),
        minor in 0u32..3,
    ) {
        let version = Version { major: 1, minor };
        if let Ok(message) = pb::LoginRequest::decode(bytes.as_slice())
            && let Ok(request) = decode_login(message, version)
        {
            prop_assert!(request.geolocation.len() <= 24 && request.supersedes.len() <= 64);
        }
        if let Ok(message) = pb::HelloRequest::decode(bytes.as_slice()) {
            let _ = Hello::try_from(message);
        }
        if let Ok(message) = pb::LoginResponse::decode(bytes.as_slice()) {
            let _ = LoginAnswer::try_from(message);
        }
    }

    #[test]
    fn any_login_fields_are_taken_whole_or_not_at_all(
        name in ".{0,140}",
        pin in option::of("[0-9 ]{0,140}"),
        model in ".{0,70}",
        login_type in -1i32..6,
    ) {
        let mut message = good();
        message.name.clone_from(&name);
        message.pin = pin.unwrap_or_default();
        message.device.as_mut().unwrap().model.clone_from(&model);
        message.login_type = login_type;
        if let Ok(request) = decode_login(message, Version::V1_1) {
            prop_assert_eq!(request.user.name.as_str(), name.as_str());
            prop_assert_eq!(request.device.model, model);
            prop_assert!((0..=3).contains(&login_type));
        }
    }
}

#[test]
fn the_largest_answer_fits_into_a_message() {
    let text = "x".repeat(bounds::TEXT_BYTES);
    let name = "x".repeat(128);
    let mut largest = pb::HomeServices {
        user_id: name.clone(),
        profile: name.clone(),
        base_device: name.clone(),
        device_pool: name,
        tftp_servers: vec![text.clone(); bounds::SERVERS],
        locale: text.clone(),
        restart_reason: "x".repeat(bounds::REASON_BYTES),
        ..pb::HomeServices::default()
    };
    largest.call_managers = vec![
        pb::CallManager {
            host: text.clone(),
            priority: 4
        };
        bounds::SERVERS
    ];
    largest.phone_services = vec![
        pb::PhoneService {
            name: "x".repeat(64),
            url: "x".repeat(bounds::URL_BYTES),
            menu: 3
        };
        bounds::SERVICES
    ];
    largest.lines = vec![
        pb::Line {
            index: u32::MAX,
            number: text.clone(),
            label: text
        };
        bounds::LINES
    ];
    let bytes = prost::Message::encoded_len(&pb::LoginResponse {
        services: Some(largest),
        choice: None,
    });
    assert!(bytes < super::MAX_ANSWER_BYTES, "{bytes}");
}
