//! Every row of the table, and what must never happen.

use proptest::{collection, prelude::*};

use super::*;

fn cluster(name: &str) -> ClusterId {
    ClusterId::new(name).unwrap()
}

fn asked(name: &str, answer: PeerAnswer) -> Asked {
    Asked {
        cluster: cluster(name),
        pattern_admits: false,
        answer,
    }
}

fn admitted(name: &str, answer: PeerAnswer) -> Asked {
    Asked {
        pattern_admits: true,
        ..asked(name, answer)
    }
}

fn silent() -> PeerAnswer {
    PeerAnswer::Silent("no proof for 9 s".to_owned())
}

fn refused() -> PeerAnswer {
    PeerAnswer::Refused("unknown_issuer".to_owned())
}

fn declined() -> PeerAnswer {
    PeerAnswer::Declined(EmCode::EmccNotAllowed, "not allowed there".to_owned())
}

fn incompatible() -> PeerAnswer {
    PeerAnswer::Incompatible("it speaks 1.0, upgrade it".to_owned())
}

fn unaskable() -> PeerAnswer {
    PeerAnswer::Unaskable("it speaks 2.0, upgrade this cluster".to_owned())
}

/// The code and the cause of a plain refusal.
fn refusal(located: Located) -> (EmCode, String) {
    match located {
        Located::Refused(refusal) => (refusal.code, refusal.cause),
        other => panic!("no refusal: {other:?}"),
    }
}

#[test]
fn the_sole_claimer_is_home_when_all_others_deny() {
    for login_type in LoginType::ALL {
        let answers = [
            asked("berlin", PeerAnswer::NotMine),
            asked("tokyo", PeerAnswer::Mine),
            asked("paris", PeerAnswer::NotMine),
        ];
        assert_eq!(
            decide(login_type, &answers),
            Located::Home(cluster("tokyo"))
        );
        assert_eq!(
            decide(login_type, &answers[1..2]),
            Located::Home(cluster("tokyo"))
        );
    }
}

#[test]
fn with_a_silent_peer_the_claimer_needs_a_pattern() {
    for (other, code) in [
        (silent(), EmCode::NoResponseFromRemoteHost),
        (refused(), EmCode::ServiceConnectionError),
        (unaskable(), EmCode::ServiceConnectionError),
        (declined(), EmCode::EmccNotAllowed),
    ] {
        let without = [
            asked("tokyo", PeerAnswer::Mine),
            asked("paris", other.clone()),
        ];
        let (found, cause) = refusal(decide(LoginType::Uid, &without));
        assert_eq!(found, code);
        assert!(
            cause.contains("tokyo") && cause.contains("paris ("),
            "{cause}"
        );

        let with = [
            admitted("tokyo", PeerAnswer::Mine),
            asked("paris", other.clone()),
        ];
        assert_eq!(
            decide(LoginType::Uid, &with),
            Located::Home(cluster("tokyo"))
        );

        // The silent one's own pattern is no evidence for the claimer.
        let wrong = [asked("tokyo", PeerAnswer::Mine), admitted("paris", other)];
        assert_eq!(refusal(decide(LoginType::Uid, &wrong)).0, code);
    }
}

#[test]
fn a_refusing_peer_weighs_more_than_a_silent_one() {
    for claim in [None, Some(asked("tokyo", PeerAnswer::Mine))] {
        let mut answers = vec![asked("paris", silent()), asked("rome", refused())];
        answers.extend(claim);
        let (code, cause) = refusal(decide(LoginType::Uid, &answers));
        assert_eq!(code, EmCode::ServiceConnectionError);
        assert!(cause.contains("paris (no proof for 9 s)"), "{cause}");
        assert!(cause.contains("rome (unknown_issuer)"), "{cause}");
    }
}

#[test]
fn who_serves_none_of_our_phones_is_named_and_weighs_least() {
    for (other, code) in [
        (silent(), EmCode::NoResponseFromRemoteHost),
        (refused(), EmCode::ServiceConnectionError),
        (unaskable(), EmCode::ErrorOnParsing),
    ] {
        let answers = [asked("rome", declined()), asked("paris", other)];
        let (found, cause) = refusal(decide(LoginType::Uid, &answers));
        assert_eq!(found, code);
        assert!(
            cause.ends_with("; not served by: rome (not allowed there)"),
            "{cause}"
        );
    }
    let unknown = PeerAnswer::Declined(EmCode::VisitingClusterUnknown, "no record".to_owned());
    let answers = [asked("rome", declined()), asked("paris", unknown)];
    let (found, _) = refusal(decide(LoginType::Uid, &answers));
    assert_eq!(found, EmCode::VisitingClusterUnknown);
}

#[test]
fn a_peer_of_an_older_version_does_not_count_against_a_claimer() {
    let answers = [
        asked("old", incompatible()),
        asked("tokyo", PeerAnswer::Mine),
    ];
    assert_eq!(
        decide(LoginType::Extension, &answers),
        Located::Home(cluster("tokyo"))
    );
}

#[test]
fn several_users_at_one_peer_is_47_for_an_extension() {
    for others in [
        vec![],
        vec![asked("a", PeerAnswer::NotMine)],
        vec![asked("a", silent())],
    ] {
        let mut answers = vec![admitted("tokyo", PeerAnswer::SeveralUsers)];
        answers.extend(others);
        let located = decide(LoginType::Extension, &answers);
        let Located::Refused(refusal) = located else {
            panic!("{located:?}")
        };
        assert_eq!(refusal.code, EmCode::DnHasMultipleUsersRemote);
        assert_eq!(refusal.cluster, Some(cluster("tokyo")));
        assert!(refusal.cause.contains("tokyo"), "{}", refusal.cause);
    }
}

#[test]
fn two_claims_are_refused_with_both_names() {
    for (login_type, code) in [
        (LoginType::Uid, EmCode::PolicyValidationError),
        (LoginType::SelfService, EmCode::PolicyValidationError),
        (LoginType::Extension, EmCode::DnHasMultipleUsersRemote),
    ] {
        for second in [PeerAnswer::Mine, PeerAnswer::SeveralUsers] {
            let answers = [
                admitted("tokyo", PeerAnswer::Mine),
                asked("paris", PeerAnswer::NotMine),
                asked("rome", second),
            ];
            let located = decide(login_type, &answers);
            let Located::Ambiguous(names, refusal) = located else {
                panic!("{located:?}")
            };
            assert_eq!(names, [cluster("tokyo"), cluster("rome")]);
            assert_eq!(refusal.code, code);
            assert!(refusal.cause.contains("tokyo, rome"), "{}", refusal.cause);
        }
    }
}

#[test]
fn nobody_has_the_user_only_when_everybody_said_so() {
    let answers = [
        asked("tokyo", PeerAnswer::NotMine),
        asked("paris", PeerAnswer::NotMine),
    ];
    let (code, cause) = refusal(decide(LoginType::Uid, &answers));
    assert_eq!(code, EmCode::UserDoesNotExist);
    assert!(cause.contains("tokyo, paris"), "{cause}");

    for (other, code) in [
        (silent(), EmCode::NoResponseFromRemoteHost),
        (refused(), EmCode::ServiceConnectionError),
        (declined(), EmCode::EmccNotAllowed),
        (incompatible(), EmCode::ErrorOnParsing),
        (unaskable(), EmCode::ErrorOnParsing),
    ] {
        let answers = [asked("tokyo", PeerAnswer::NotMine), asked("paris", other)];
        let (found, cause) = refusal(decide(LoginType::Uid, &answers));
        assert_eq!(found, code);
        assert!(
            cause.contains("paris (") && !cause.contains("tokyo"),
            "{cause}"
        );
    }
}

#[test]
fn a_version_that_lacks_the_login_type_is_code_1_and_named() {
    let answers = [asked("old", incompatible()), asked("paris", silent())];
    let (code, cause) = refusal(decide(LoginType::Extension, &answers));
    assert_eq!(code, EmCode::ErrorOnParsing);
    assert!(cause.contains("old (it speaks 1.0, upgrade it)"), "{cause}");
    assert!(cause.contains("paris (no proof for 9 s)"), "{cause}");
}

#[test]
fn whoever_could_not_be_asked_is_named_once_and_apart_from_the_silent() {
    let answers = [
        asked("old", incompatible()),
        asked("rome", unaskable()),
        asked("paris", silent()),
    ];
    let (code, cause) = refusal(decide(LoginType::Extension, &answers));
    assert_eq!(code, EmCode::ErrorOnParsing);
    let (version, silence) = cause.split_once("; without an answer: ").unwrap();
    assert!(
        version.contains("old (") && version.contains("rome (it speaks 2.0"),
        "{cause}"
    );
    assert_eq!(silence, "paris (no proof for 9 s)");
}

#[test]
fn without_peers_it_is_36() {
    assert_eq!(
        refusal(decide(LoginType::Uid, &[])).0,
        EmCode::NoRemoteCluster
    );
}

#[test]
fn a_cause_stays_a_sentence_with_a_thousand_peers() {
    let answers: Vec<_> = (0..1000)
        .map(|n| asked(&format!("c{n}"), PeerAnswer::NotMine))
        .collect();
    let (_, cause) = refusal(decide(LoginType::Uid, &answers));
    assert!(
        cause.contains("c7 and 992 more") && cause.len() < 200,
        "{cause}"
    );
}

#[test]
fn only_a_refusal_comes_early() {
    let sure = [admitted("tokyo", PeerAnswer::Mine)];
    assert_eq!(early(LoginType::Uid, &[]), None);
    assert_eq!(
        early(LoginType::Uid, &sure),
        None,
        "another claim may follow"
    );
    let two = [sure[0].clone(), asked("rome", PeerAnswer::Mine)];
    assert!(matches!(
        early(LoginType::Uid, &two),
        Some(Located::Ambiguous(..))
    ));
    let several = [asked("tokyo", PeerAnswer::SeveralUsers)];
    assert!(matches!(
        early(LoginType::Extension, &several),
        Some(Located::Refused(_))
    ));
    let denial = [asked("tokyo", PeerAnswer::NotMine)];
    assert_eq!(early(LoginType::Uid, &denial), None);
}

#[test]
fn a_suffix_is_what_follows_the_last_at_sign() {
    assert_eq!(split_suffix("alice@berlin"), Some(("alice", "berlin")));
    assert_eq!(
        split_suffix("alice@example.com@berlin"),
        Some(("alice@example.com", "berlin"))
    );
    for name in ["alice", "@berlin", "alice@", "@", ""] {
        assert_eq!(split_suffix(name), None, "{name}");
    }
}

fn any_answer() -> impl Strategy<Value = PeerAnswer> {
    prop_oneof![
        2 => Just(PeerAnswer::Mine),
        6 => Just(PeerAnswer::NotMine),
        1 => Just(PeerAnswer::SeveralUsers),
        1 => Just(incompatible()),
        1 => Just(unaskable()),
        1 => Just(refused()),
        1 => Just(declined()),
        1 => Just(PeerAnswer::Declined(EmCode::VisitingClusterUnknown, "no record".to_owned())),
        1 => Just(silent()),
    ]
}

fn any_asked() -> impl Strategy<Value = Vec<Asked>> {
    collection::vec((any_answer(), any::<bool>()), 0..6).prop_map(|answers| {
        answers
            .into_iter()
            .enumerate()
            .map(|(n, (answer, pattern_admits))| Asked {
                cluster: cluster(&format!("c{n}")),
                pattern_admits,
                answer,
            })
            .collect()
    })
}

fn any_login_type() -> impl Strategy<Value = LoginType> {
    proptest::sample::select(LoginType::ALL.to_vec())
}

proptest! {
    #[test]
    fn the_pin_goes_only_where_it_may(login_type in any_login_type(), answers in any_asked()) {
        // Whatever said neither yes nor no, but for a version that knows no such login type.
        let is_open = |a: &Asked| {
            !matches!(
                a.answer,
                PeerAnswer::Mine
                    | PeerAnswer::NotMine
                    | PeerAnswer::SeveralUsers
                    | PeerAnswer::Incompatible(_)
            )
        };
        let claims = |a: &&Asked| matches!(a.answer, PeerAnswer::Mine | PeerAnswer::SeveralUsers);
        match decide(login_type, &answers) {
            Located::Home(home) => {
                let claimers: Vec<_> = answers.iter().filter(claims).collect();
                prop_assert_eq!(claimers.len(), 1);
                prop_assert_eq!(&claimers[0].cluster, &home);
                prop_assert_eq!(&claimers[0].answer, &PeerAnswer::Mine);
                prop_assert!(claimers[0].pattern_admits || !answers.iter().any(is_open));
            }
            Located::Ambiguous(names, _) => {
                prop_assert!(names.len() >= 2);
                prop_assert_eq!(names.len(), answers.iter().filter(claims).count());
            }
            Located::Refused(refusal) => {
                prop_assert!(!refusal.cause.is_empty());
                prop_assert_eq!(
                    refusal.code == EmCode::UserDoesNotExist,
                    !answers.is_empty() && answers.iter().all(|a| a.answer == PeerAnswer::NotMine)
                );
                prop_assert_eq!(refusal.code == EmCode::NoRemoteCluster, answers.is_empty());
            }
        }
    }

    #[test]
    fn the_order_of_the_answers_does_not_matter(
        login_type in any_login_type(),
        answers in any_asked(),
    ) {
        let mut reversed = answers.clone();
        reversed.reverse();
        let essence = |located| match located {
            Located::Home(home) => (Some(home), None, 1),
            Located::Refused(refusal) => (None, Some(refusal.code), 0),
            Located::Ambiguous(names, refusal) => (None, Some(refusal.code), names.len()),
        };
        prop_assert_eq!(
            essence(decide(login_type, &answers)),
            essence(decide(login_type, &reversed))
        );
    }

    #[test]
    fn what_comes_early_sends_the_pin_nowhere_and_nothing_later_would(
        login_type in any_login_type(),
        answers in any_asked(),
        late in any_asked(),
    ) {
        if let Some(located) = early(login_type, &answers) {
            prop_assert!(!matches!(located, Located::Home(_)));
            let all: Vec<_> = answers.into_iter().chain(late).collect();
            prop_assert!(!matches!(decide(login_type, &all), Located::Home(_)));
        }
    }
}
