use super::*;
use crate::{
    clock::Clock,
    trust::{
        fixtures::{Authority, Leaf, Spec},
        identity::public_key,
        make::{self, CertRequest, KeyKind},
    },
};

const BOTH: &[Direction] = &[Direction::Server, Direction::Client];

fn key_of(leaf: &Leaf) -> Vec<u8> {
    public_key(&crate::secret::Secret::new(leaf.key_pem().into_bytes())).unwrap()
}

/// What the answer to the request of `leaf` comes to, with no names wanted.
fn answer(given: &[Certificate], leaf: &Leaf) -> Result<Answer, Vec<Mismatch>> {
    of(given, leaf, &[], BOTH)
}

fn of(
    given: &[Certificate],
    leaf: &Leaf,
    names: &[&str],
    directions: &[Direction],
) -> Result<Answer, Vec<Mismatch>> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let wanted = Wanted {
        public_key: &key_of(leaf),
        names: &names,
        directions,
        may_lack_issuers: false,
        now: Clock::system().now(),
    };
    complete(given, &wanted)
}

struct Hierarchy {
    root: Authority,
    issuing: Authority,
    leaf: Leaf,
}

fn hierarchy(spec: Spec) -> Hierarchy {
    let root = Authority::new("Root");
    let issuing = Authority::under("Issuing", &root);
    let leaf = spec.signed_by(&issuing);
    Hierarchy {
        root,
        issuing,
        leaf,
    }
}

#[test]
fn a_chain_is_put_in_order_from_files_in_any_order_and_without_the_root() {
    let Hierarchy {
        root,
        issuing,
        leaf,
    } = hierarchy(Spec::new("a.example"));
    let stranger = Authority::new("Stranger").certificate();
    let (root, issuing, ours) = (
        root.certificate(),
        issuing.certificate(),
        leaf.certificate(),
    );
    let mut given = vec![
        stranger.clone(),
        root.clone(),
        ours.clone(),
        issuing.clone(),
    ];
    given.push(ours.clone());
    for _ in 0..given.len() {
        given.rotate_left(1);
        let answer = answer(&given, &leaf).unwrap();
        assert_eq!(answer.chain, [ours.clone(), issuing.clone()]);
        assert_eq!(answer.root, Some(root.clone()));
        assert_eq!(answer.unused, std::slice::from_ref(&stranger));
    }
}

#[test]
fn one_that_signed_itself_stands_alone() {
    let leaf = Spec::new("a.example").self_signed();
    let answer = answer(&[leaf.certificate()], &leaf).unwrap();
    assert_eq!(answer.chain, [leaf.certificate()]);
    assert_eq!(answer.root, None);
}

#[test]
fn an_incomplete_chain_names_who_is_missing_and_is_taken_only_when_asked() {
    let Hierarchy {
        root,
        issuing,
        leaf,
    } = hierarchy(Spec::new("a.example"));
    for given in [
        vec![leaf.certificate()],
        vec![leaf.certificate(), root.certificate()],
        vec![leaf.certificate(), issuing.certificate()],
    ] {
        let wrong = answer(&given, &leaf).unwrap_err();
        let [Mismatch::NoIssuer { issuer, .. }] = &*wrong else {
            panic!("{wrong:?}")
        };
        let missing = if given.len() == 2 && given[1] == issuing.certificate() {
            "CN=Root"
        } else {
            "CN=Issuing"
        };
        assert_eq!(issuer, missing);
        let key = key_of(&leaf);
        let lenient = Wanted {
            public_key: &key,
            names: &[],
            directions: BOTH,
            may_lack_issuers: true,
            now: Clock::system().now(),
        };
        assert!(complete(&given, &lenient).is_ok());
    }
}

#[test]
fn a_namesake_of_the_issuer_is_told_apart() {
    let Hierarchy { root, leaf, .. } = hierarchy(Spec::new("a.example"));
    let namesake = Authority::under("Issuing", &root);
    let given = [
        leaf.certificate(),
        namesake.certificate(),
        root.certificate(),
    ];
    let wrong = answer(&given, &leaf).unwrap_err();
    assert!(matches!(&*wrong, [Mismatch::NotSigned { issuer, .. }] if issuer == "CN=Issuing"));
}

#[test]
fn the_answer_to_another_request_is_refused() {
    let (ours, other) = (hierarchy(Spec::new("a")), hierarchy(Spec::new("b")));
    let given = [other.leaf.certificate(), other.issuing.certificate()];
    let wrong = answer(&given, &ours.leaf).unwrap_err();
    assert!(
        matches!(&*wrong, [Mismatch::AnotherKey { subjects }] if subjects == "CN=b; CN=Issuing"),
        "{wrong:?}"
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let spec = Spec::new("a.example").eku(false, true).valid_days(-20, -10);
    let Hierarchy {
        root,
        issuing,
        leaf,
    } = hierarchy(spec);
    let given = [
        leaf.certificate(),
        issuing.certificate(),
        root.certificate(),
    ];
    let wrong = of(&given, &leaf, &["a.example", "b.example", "10.0.0.7"], BOTH).unwrap_err();
    let told: Vec<_> = wrong.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 4, "{told:#?}");
    for part in [
        "CN=a.example expired at",
        "not for b.example (it is for a.example)",
        "not for 10.0.0.7",
        "clientAuth as well",
    ] {
        assert!(
            told.iter().any(|text| text.contains(part)),
            "{part}: {told:#?}"
        );
    }
    let later = hierarchy(Spec::new("a.example").valid_days(10, 20));
    let given = [
        later.leaf.certificate(),
        later.issuing.certificate(),
        later.root.certificate(),
    ];
    let wrong = answer(&given, &later.leaf).unwrap_err();
    assert!(
        matches!(&*wrong, [Mismatch::NotYetValid { .. }]),
        "{wrong:?}"
    );
}

#[test]
fn a_usage_counts_only_for_the_directions_it_is_wanted_for() {
    let (server, client) = (&[Direction::Server][..], &[Direction::Client][..]);
    let leaf = Spec::new("a").eku(false, true).self_signed();
    let given = [leaf.certificate()];
    assert!(of(&given, &leaf, &[], server).is_ok());
    let wrong = of(&given, &leaf, &[], client).unwrap_err();
    assert!(
        matches!(&*wrong, [Mismatch::Usage { side: "client", .. }]),
        "{wrong:?}"
    );
}

#[test]
fn of_two_answers_for_one_key_the_newer_counts() {
    let ca = Authority::new("CA");
    let request = CertRequest::new(
        "a",
        vec!["a".into()],
        KeyKind::P256,
        Clock::system().now(),
        9,
    );
    let asked = make::ask(&request, None).unwrap();
    let again = make::ask(&request, Some(&asked.key_pem)).unwrap();
    assert_eq!(again.key_pem.expose(), asked.key_pem.expose());
    let public = public_key(&asked.key_pem).unwrap();
    let sign = |from| {
        let key = rcgen::SubjectPublicKeyInfo::from_der(&public).unwrap();
        Spec::new("a").valid_days(from, 30).of_key(&key, &ca)
    };
    let (older, newer) = (sign(-9), sign(-3));
    let wanted = Wanted {
        public_key: &public,
        names: &["a".to_owned()],
        directions: BOTH,
        may_lack_issuers: false,
        now: Clock::system().now(),
    };
    let given = [newer.clone(), ca.certificate(), older.clone()];
    let answer = complete(&given, &wanted).unwrap();
    assert_eq!(answer.chain, [newer]);
    assert_eq!(answer.unused, [older]);
}

#[test]
fn a_request_says_which_names_it_asked_for() {
    let names = ["a.example.org", "*.b.example", "10.0.0.7", "2001:db8::7"];
    let names: Vec<String> = names.map(ToOwned::to_owned).into();
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048] {
        let request = CertRequest::new("a", names.clone(), kind, Clock::system().now(), 9);
        let asked = make::ask(&request, None).unwrap();
        let public = public_key(&asked.key_pem).unwrap();
        let told = names_asked(asked.request_pem.as_bytes(), &public);
        assert_eq!(told.as_ref(), Some(&names), "{kind:?}");
        let mut other = public.clone();
        other.reverse();
        assert_eq!(names_asked(asked.request_pem.as_bytes(), &other), None);
    }
    assert_eq!(names_asked(b"not a request", &[]), None);
}

#[test]
fn a_leaf_with_its_issuers_name_is_not_its_own_root() {
    let authority = Authority::new("berlin");
    let leaf = Spec::new("berlin").signed_by(&authority);
    let wrong = answer(&[leaf.certificate()], &leaf).unwrap_err();
    assert!(matches!(&*wrong, [Mismatch::NoIssuer { .. }]), "{wrong:?}");
    let found = answer(&[leaf.certificate(), authority.certificate()], &leaf).unwrap();
    assert_eq!(found.root, Some(authority.certificate()));
    assert!(found.unused.is_empty());
    // An authority with a new key, vouched for by the old one.
    let rolled = Authority::under("berlin", &authority);
    let leaf = Spec::new("a.example").signed_by(&rolled);
    let given = [
        leaf.certificate(),
        rolled.certificate(),
        authority.certificate(),
    ];
    let found = answer(&given, &leaf).unwrap();
    assert_eq!(found.chain, given[..2]);
    assert_eq!(found.root, Some(authority.certificate()));
}

#[test]
fn who_is_no_authority_and_where_nobody_follows_is_told() {
    let lowly = Authority::without_ca("Lowly");
    let leaf = Spec::new("a.example").signed_by(&lowly);
    let wrong = answer(&[leaf.certificate(), lowly.certificate()], &leaf).unwrap_err();
    let [Mismatch::NoAuthority { issuer, .. }] = &*wrong else {
        panic!("{wrong:?}")
    };
    assert_eq!(issuer, "CN=Lowly");

    let mut authorities = vec![Authority::new("Root")];
    for depth in 0..MAX_DEPTH {
        let name = format!("Authority {depth}");
        authorities.push(Authority::under(&name, authorities.last().unwrap()));
    }
    let leaf = Spec::new("a.example").signed_by(authorities.last().unwrap());
    let mut given: Vec<_> = authorities.iter().map(Authority::certificate).collect();
    given.push(leaf.certificate());
    let wrong = answer(&given, &leaf).unwrap_err();
    assert!(matches!(&*wrong, [Mismatch::TooDeep { .. }]), "{wrong:?}");
}
