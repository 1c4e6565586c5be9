use proptest::prelude::*;

use super::*;
use crate::{
    clock::Clock,
    trust::fixtures::{Authority, Leaf, Spec, anchored, bundle, cluster, pinned},
};

fn explained(
    bundles: &[Bundle],
    chain: &[&CertificateDer<'static>],
    direction: Direction,
    wanted: Option<&str>,
) -> Explained {
    let chain: Vec<_> = chain.iter().map(|&der| der.clone()).collect();
    let wanted = wanted.map(cluster);
    let case = Case {
        bundles,
        chain: &chain,
        direction,
        wanted: wanted.as_ref(),
        now: Clock::system().now(),
    };
    case.explain()
}

fn step<'a>(explained: &'a Explained, name: &str) -> &'a Step {
    let found = explained.steps.iter().find(|step| step.name == name);
    found.unwrap_or_else(|| panic!("no step {name}: {explained:#?}"))
}

#[test]
fn what_is_accepted_has_every_fact_and_no_bad_step() {
    let leaf = Spec::new("n1.berlin.example").eku(true, true).self_signed();
    let seen = explained(
        &[bundle("tokyo"), pinned("berlin", &leaf)],
        &[leaf.der()],
        Direction::Server,
        Some("berlin"),
    );
    assert_eq!(seen.verdict, Verdict::Peer(cluster("berlin")));
    assert!(
        seen.steps.iter().all(|step| step.mark != Mark::Bad),
        "{seen:#?}"
    );
    let shown = step(&seen, "certificate");
    assert_eq!(shown.text, "CN=n1.berlin.example");
    for part in [
        "issuer CN=",
        "names n1.berlin",
        "valid ",
        "key EC 256",
        "SHA-256 ",
    ] {
        assert!(
            shown.details.iter().any(|line| line.starts_with(part)),
            "{part}: {shown:?}"
        );
    }
    let entries = step(&seen, "entries");
    let it = "it is this certificate";
    assert!(
        entries.details.iter().any(|line| line.ends_with(it)),
        "{entries:?}"
    );
    assert!(
        entries.details.last().unwrap().starts_with("1 other peers"),
        "{entries:?}"
    );
    assert!(step(&seen, "verdict").text.ends_with("berlin"));
}

#[test]
fn a_renewed_certificate_is_told_from_an_unknown_one() {
    let (old, new) = (
        Spec::new("tokyo").self_signed(),
        Spec::new("tokyo").self_signed(),
    );
    let seen = explained(
        &[pinned("tokyo", &old)],
        &[new.der()],
        Direction::Client,
        None,
    );
    let entries = step(&seen, "entries");
    assert_eq!(entries.rejection, Some(Rejection::UnknownIssuer));
    let told = "another certificate under the same name";
    assert!(
        entries.details.iter().any(|line| line.contains(told)),
        "{entries:?}"
    );
}

#[test]
fn an_anchor_says_why_it_does_not_vouch() {
    let (root, twin) = (Authority::new("Root"), Authority::new("Root"));
    let issuing = Authority::under("Issuing", &root);
    let leaf = Spec::new("n1.berlin.example").signed_by(&issuing);
    let berlin = anchored("berlin", &root, &["n1.berlin.example"]);
    let say = |bundle: &Bundle, chain: &[&CertificateDer<'static>]| {
        let seen = explained(std::slice::from_ref(bundle), chain, Direction::Client, None);
        step(&seen, "entries").details.join("\n")
    };
    let short = say(&berlin, &[leaf.der()]);
    assert!(
        short.contains("ends at the issuer CN=Issuing; what leads"),
        "{short}"
    );
    let other = anchored("berlin", &twin, &["n1.berlin.example"]);
    let forged = say(&other, &[leaf.der(), issuing.der()]);
    assert!(forged.contains("no signature is its"), "{forged}");
    let whole = say(&berlin, &[leaf.der(), issuing.der()]);
    assert!(whole.contains("the chain builds to it"), "{whole}");
    let named = anchored("berlin", &root, &["n2.berlin.example"]);
    let seen = explained(
        &[named],
        &[leaf.der(), issuing.der()],
        Direction::Client,
        None,
    );
    let names = step(&seen, "names");
    assert_eq!(names.rejection, Some(Rejection::WrongName));
    assert!(
        names.text.contains("carries n1.berlin") && names.text.contains("n2.berlin"),
        "{names:?}"
    );
}

/// Each reason that a certificate can be refused for, as a case.
fn refused() -> Vec<(Rejection, Explained)> {
    let leaf = Spec::new("a.example").self_signed();
    let late = Spec::new("a.example").valid_days(-20, -10).self_signed();
    let early = Spec::new("a.example").valid_days(10, 20).self_signed();
    let server = Spec::new("a.example").eku(false, true).self_signed();
    let authority = Authority::new("CA");
    let issued = Spec::new("a.example").signed_by(&authority);
    let mut revoking = pinned("berlin", &leaf);
    revoking.revoked.push(leaf.certificate().fingerprint());
    let both = [
        pinned("tokyo", &issued),
        anchored("berlin", &authority, &["a.example"]),
    ];
    let one = |bundles: &[Bundle], leaf: &Leaf, wanted| {
        explained(bundles, &[leaf.der()], Direction::Client, wanted)
    };
    vec![
        (Rejection::Ambiguous, one(&both, &issued, None)),
        (
            Rejection::Expired,
            one(&[pinned("berlin", &late)], &late, None),
        ),
        (
            Rejection::NoClientCertificate,
            explained(&[pinned("berlin", &late)], &[], Direction::Client, None),
        ),
        (
            Rejection::NotYetValid,
            one(&[pinned("berlin", &early)], &early, None),
        ),
        (Rejection::Revoked, one(&[revoking], &leaf, None)),
        (
            Rejection::UnknownIssuer,
            one(&[bundle("berlin")], &leaf, Some("berlin")),
        ),
        (
            Rejection::WrongCluster,
            one(
                &[pinned("berlin", &leaf), bundle("tokyo")],
                &leaf,
                Some("tokyo"),
            ),
        ),
        (
            Rejection::WrongEku,
            one(&[pinned("berlin", &server)], &server, None),
        ),
        (
            Rejection::WrongName,
            one(
                &[anchored("berlin", &authority, &["b.example"])],
                &issued,
                None,
            ),
        ),
    ]
}

#[test]
fn each_reason_has_a_step_of_its_own_before_the_verdict_and_what_mends_it() {
    for (rejection, seen) in refused() {
        assert_eq!(seen.verdict.rejection(), Some(rejection), "{seen:#?}");
        let (verdict, before) = seen.steps.split_last().unwrap();
        assert_eq!(verdict.rejection, Some(rejection));
        assert!(verdict.text.contains(rejection.meaning()), "{verdict:?}");
        let why = before.iter().find(|step| step.rejection == Some(rejection));
        assert!(
            why.is_some_and(|step| step.mark == Mark::Bad),
            "{rejection}: {before:#?}"
        );
        let mut part = Part::new("it");
        part.judged(seen);
        assert!(!part.holds());
        assert_eq!(part.rejection(), Some(rejection));
        assert!(part.mend.is_some());
    }
}

#[test]
fn a_caller_that_is_another_peer_than_the_wanted_one_is_refused_in_both_directions() {
    let leaf = Spec::new("a.example").self_signed();
    let bundles = [pinned("berlin", &leaf), bundle("tokyo")];
    for direction in [Direction::Client, Direction::Server] {
        let seen = explained(&bundles, &[leaf.der()], direction, Some("tokyo"));
        assert_eq!(seen.verdict.rejection(), Some(Rejection::WrongCluster));
        let seen = explained(&bundles, &[leaf.der()], direction, Some("berlin"));
        assert_eq!(seen.verdict.rejection(), None);
    }
}

#[test]
fn many_entries_and_long_chains_are_bounded() {
    let leaf = Spec::new("a.example").self_signed();
    let mut berlin = bundle("berlin");
    for n in 0..40 {
        berlin.pinned.push(
            Spec::new(&format!("n{n}.example"))
                .self_signed()
                .certificate(),
        );
    }
    let chain = vec![leaf.der(); 40];
    let seen = explained(&[berlin], &chain, Direction::Client, Some("berlin"));
    let lines: usize = seen.steps.iter().map(|step| 1 + step.details.len()).sum();
    assert!(lines < 100, "{lines} lines");
    assert!(
        step(&seen, "entries")
            .details
            .last()
            .unwrap()
            .contains("28 more")
    );
}

#[test]
fn a_file_tells_of_its_structure_alone() {
    let now = Clock::system().now();
    let root = Authority::new("Root");
    let issuing = Authority::under("Issuing", &root);
    let leaf = Spec::new("a.example").eku(true, false).signed_by(&issuing);
    let told = |chain: &[&CertificateDer<'static>]| {
        let chain: Vec<_> = chain.iter().map(|&der| der.clone()).collect();
        file(&chain, now)
    };
    let chain = |part: &Part| {
        let step = part.steps.iter().find(|step| step.name == "chain");
        step.cloned().unwrap()
    };
    let whole = told(&[leaf.der(), issuing.der(), root.der()]);
    assert!(whole.holds() && whole.mend.is_none());
    assert!(chain(&whole).text.starts_with("whole"), "{whole:#?}");
    let short = told(&[leaf.der()]);
    assert!(
        short.holds() && chain(&short).text.contains("CN=Issuing"),
        "{short:#?}"
    );
    let server = short
        .steps
        .iter()
        .find(|step| step.name == "as server")
        .unwrap();
    assert_eq!(server.mark, Mark::Noted);
    let forged = told(&[leaf.der(), Authority::new("Issuing").der()]);
    assert!(
        !forged.holds() && chain(&forged).text.contains("another key of the same name"),
        "{forged:#?}"
    );
    assert!(forged.mend.is_some());
    // Signed by what is no authority: the signatures are right, and nobody says otherwise.
    let middle = Authority::signing_though_none("Middle", &root);
    let below = Spec::new("b.example").signed_by(&middle);
    let none = told(&[below.der(), middle.der(), root.der()]);
    let text = chain(&none).text;
    assert!(!none.holds() && none.mend.is_some(), "{none:#?}");
    assert!(
        text.contains("signatures are right") && text.ends_with("(CA:FALSE): CN=Middle"),
        "{text}"
    );
    let empty = told(&[]);
    assert!(!empty.holds() && empty.mend.is_some());
    let apart = told(&[leaf.der(), root.der()]);
    assert!(
        chain(&apart).text.starts_with("1 of the certificates"),
        "{apart:#?}"
    );
    let late = Spec::new("a.example").valid_days(-20, -10).self_signed();
    let late = told(&[late.der()]);
    assert_eq!(late.rejection(), Some(Rejection::Expired));
    assert!(
        late.mend
            .is_some_and(|mend| mend.contains("emccd cert new"))
    );
}

#[test]
fn what_a_list_says_is_told_as_that_and_what_was_done_by_hand_too() {
    let root = Authority::new("Root");
    let issuing = Authority::under("Issuing", &root);
    let leaf = Spec::new("n1.berlin.example").signed_by(&issuing);
    let list = |by: &Authority, revoked: &[&Certificate], days, is_strict| {
        let read = crate::trust::crl::read(&by.crl(7, revoked, days)).unwrap();
        let read = read.lists.into_iter().next().unwrap();
        let (anchors, others) = ([root.certificate()], [issuing.certificate()]);
        read.signed(&cluster("berlin"), &anchors, &others, is_strict)
            .unwrap()
    };
    let with = |crl| {
        let mut berlin = anchored("berlin", &root, &["n1.berlin.example"]);
        berlin.crls = vec![crl];
        berlin
    };
    // What another peer has taken back is not why this one refuses.
    let mut tokyo = bundle("tokyo");
    tokyo.revoked.push(leaf.certificate().fingerprint());
    let mut by_hand = anchored("berlin", &root, &["n1.berlin.example"]);
    by_hand.revoked.push(leaf.certificate().fingerprint());
    let revoking = list(&issuing, &[&leaf.certificate()], 10, false);
    let above = list(&root, &[&issuing.certificate()], 10, false);
    let stale = list(&issuing, &[], -1, true);
    for (berlin, said) in [
        (with(revoking), "number 7 of CN=Issuing has CN=n1.berlin"),
        (with(above), "number 7 of CN=Root has CN=Issuing"),
        (
            with(stale),
            "no list revokes it, but that of its authority is strict and stale",
        ),
        (by_hand, "it was revoked here for berlin"),
    ] {
        let is_list = said.contains("list") || said.contains("number");
        let bundles = [tokyo.clone(), berlin];
        for wanted in [None, Some("berlin")] {
            let chain = [leaf.der(), issuing.der()];
            let seen = explained(&bundles, &chain, Direction::Client, wanted);
            let revocation = step(&seen, "revocation");
            assert_eq!(revocation.rejection, Some(Rejection::Revoked));
            assert!(revocation.text.contains(said), "{said}: {revocation:?}");
            assert!(!revocation.text.contains("tokyo"), "{revocation:?}");
            // The anchor says the same, and not that all is well.
            let lines = step(&seen, "entries").details.join("\n");
            assert_eq!(
                lines.contains(&format!("but: {}", revocation.text)),
                is_list,
                "{lines}"
            );
        }
    }
}

/// A few certificates of every sort; a case picks among them.
struct Pool {
    leaves: Vec<Leaf>,
    authorities: Vec<Authority>,
}

fn pool() -> &'static Pool {
    static POOL: std::sync::OnceLock<Pool> = std::sync::OnceLock::new();
    POOL.get_or_init(|| {
        let authorities = vec![
            Authority::new("CA"),
            Authority::new("CA"),
            Authority::with(Spec::new("Old CA").without_names().valid_days(-20, -10)),
        ];
        let specs = [
            Spec::new("a.example"),
            Spec::new("b.example").eku(false, true),
            Spec::new("a.example").eku(true, false),
            Spec::new("a.example").valid_days(-20, -10),
            Spec::new("b.example").valid_days(10, 20),
            Spec::new("a.example").dns("b.example"),
        ];
        let mut leaves = Vec::new();
        for spec in specs {
            for authority in &authorities {
                leaves.push(spec.clone().signed_by(authority));
            }
            leaves.push(spec.self_signed());
        }
        Pool {
            leaves,
            authorities,
        }
    })
}

fn any_bundle(id: &'static str) -> impl Strategy<Value = Bundle> {
    let leaves = || prop::collection::vec(0..24_usize, 0..4);
    let anchors = prop::collection::vec(0..3_usize, 0..3);
    let names = prop::sample::subsequence(vec!["a.example", "b.example"], 0..=2);
    (leaves(), anchors, leaves(), names, any::<bool>()).prop_map(
        move |(pinned, anchors, revoked, names, ignore_eku)| {
            let leaf = |at: usize| pool().leaves[at].certificate();
            Bundle {
                pinned: pinned.into_iter().map(leaf).collect(),
                anchors: anchors
                    .into_iter()
                    .map(|at| pool().authorities[at].certificate())
                    .collect(),
                revoked: revoked
                    .into_iter()
                    .map(|at| leaf(at).fingerprint())
                    .collect(),
                node_names: names.into_iter().map(ToOwned::to_owned).collect(),
                ignore_eku,
                ..bundle(id)
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn an_explanation_never_says_otherwise_than_the_door(
        berlin in any_bundle("berlin"),
        tokyo in any_bundle("tokyo"),
        leaf in 0..24_usize,
        with in prop::option::of(0..3_usize),
        server in any::<bool>(),
        wanted in prop::option::of(prop::sample::select(vec!["berlin", "tokyo", "paris"])),
    ) {
        let bundles = [berlin, tokyo];
        let mut chain = vec![pool().leaves[leaf].der().clone()];
        chain.extend(with.map(|at| pool().authorities[at].der().clone()));
        let direction = if server { Direction::Server } else { Direction::Client };
        let now = Clock::system().now();
        let wanted = wanted.map(cluster);
        let case = Case { bundles: &bundles, chain: &chain, direction, wanted: wanted.as_ref(), now };
        let seen = case.explain();
        // Asked here without the explanation's own way to it.
        let door = match (&wanted, direction) {
            (Some(wanted), Direction::Server) => crate::trust::judge::judge_dialled(&bundles, wanted, &chain, now),
            (Some(wanted), Direction::Client) => judge_as(&bundles, wanted, &chain, direction, now),
            (None, _) => judge(&bundles, &chain, direction, now),
        };
        prop_assert_eq!(&seen.verdict, &door);
        let bad: Vec<_> = seen.steps.iter().filter(|step| step.mark == Mark::Bad).collect();
        match door.rejection() {
            None => prop_assert!(bad.is_empty(), "{:#?}", seen),
            // The verdict, and a step before it that leads there.
            Some(why) => prop_assert!(
                bad.iter().filter(|step| step.rejection == Some(why)).count() >= 2,
                "{} {:#?}", why, seen
            ),
        }
    }
}
