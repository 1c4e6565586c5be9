use super::*;
use crate::{
    clock::Clock,
    trust::fixtures::{Authority, Leaf, Spec, anchored, bundle, cluster, pinned},
};

fn judged(bundles: &[Bundle], chain: &[&CertificateDer<'static>], direction: Direction) -> Verdict {
    let chain: Vec<CertificateDer<'static>> = chain.iter().map(|&der| der.clone()).collect();
    judge(bundles, &chain, direction, Clock::system().now())
}

fn as_client(bundles: &[Bundle], leaf: &Leaf) -> Result<String, Rejection> {
    outcome(&judged(bundles, &[leaf.der()], Direction::Client))
}

fn as_server(bundles: &[Bundle], leaf: &Leaf) -> Result<String, Rejection> {
    outcome(&judged(bundles, &[leaf.der()], Direction::Server))
}

fn outcome(verdict: &Verdict) -> Result<String, Rejection> {
    match verdict {
        Verdict::Peer(cluster) => Ok(cluster.to_string()),
        Verdict::Rejected { rejection, .. } => Err(*rejection),
    }
}

fn berlin() -> Result<String, Rejection> {
    Ok("berlin".to_owned())
}

#[test]
fn a_pin_decides_by_fingerprint_whatever_the_names_and_ca_flag_say() {
    for spec in [
        Spec::new("anything.example"),
        Spec::new("Tomcat").ca(),
        Spec::new("nameless").without_names(),
        Spec::new("a.example").eku(true, true),
        Spec::new("a.example").any_eku(),
    ] {
        let leaf = spec.self_signed();
        let bundles = [bundle("tokyo"), pinned("berlin", &leaf)];
        assert_eq!(as_client(&bundles, &leaf), berlin());
        assert_eq!(as_server(&bundles, &leaf), berlin());
    }
}

#[test]
fn a_pin_of_an_issued_leaf_needs_no_issuer() {
    let leaf = Spec::new("a.example").signed_by(&Authority::new("Their CA"));
    assert_eq!(as_client(&[pinned("berlin", &leaf)], &leaf), berlin());
}

#[test]
fn the_same_subject_under_another_key_is_nobody() {
    let (leaf, twin) = (
        Spec::new("a.example").self_signed(),
        Spec::new("a.example").self_signed(),
    );
    assert_eq!(
        as_client(&[pinned("berlin", &leaf)], &twin),
        Err(Rejection::UnknownIssuer)
    );
}

#[test]
fn a_pinned_certificate_vouches_for_no_other() {
    let tomcat = Spec::new("Tomcat").ca().self_signed();
    let minting = Authority::of_leaf(&tomcat, Spec::new("Tomcat").ca());
    let minted = Spec::new("n1.berlin.example").signed_by(&minting);
    let mut bundle = pinned("berlin", &tomcat);
    bundle.node_names = vec!["n1.berlin.example".to_owned()];
    let verdict = judged(&[bundle], &[minted.der(), tomcat.der()], Direction::Client);
    assert_eq!(outcome(&verdict), Err(Rejection::UnknownIssuer));
}

#[test]
fn dates_of_a_pinned_leaf_count() {
    let expired = Spec::new("a.example").valid_days(-20, -10).self_signed();
    let early = Spec::new("b.example").valid_days(10, 20).self_signed();
    assert_eq!(
        as_client(&[pinned("berlin", &expired)], &expired),
        Err(Rejection::Expired)
    );
    assert_eq!(
        as_server(&[pinned("berlin", &early)], &early),
        Err(Rejection::NotYetValid)
    );
}

#[test]
fn a_stated_usage_counts_per_direction_unless_it_is_overlooked() {
    let leaf = Spec::new("a.example").eku(false, true).self_signed();
    let mut bundle = pinned("berlin", &leaf);
    assert_eq!(as_server(&[bundle.clone()], &leaf), berlin());
    assert_eq!(
        as_client(&[bundle.clone()], &leaf),
        Err(Rejection::WrongEku)
    );
    bundle.ignore_eku = true;
    assert_eq!(as_client(&[bundle], &leaf), berlin());

    let authority = Authority::new("CA");
    let leaf = Spec::new("n1.berlin.example")
        .eku(false, true)
        .signed_by(&authority);
    let mut bundle = anchored("berlin", &authority, &["n1.berlin.example"]);
    assert_eq!(as_server(&[bundle.clone()], &leaf), berlin());
    assert_eq!(
        as_client(&[bundle.clone()], &leaf),
        Err(Rejection::WrongEku)
    );
    bundle.ignore_eku = true;
    assert_eq!(as_client(&[bundle], &leaf), berlin());
}

#[test]
fn an_anchor_vouches_for_the_names_that_the_operator_set() {
    let authority = Authority::new("CA");
    let bundles = [anchored(
        "berlin",
        &authority,
        &["N1.Berlin.example", "192.0.2.7"],
    )];
    for (spec, expected) in [
        (Spec::new("n1.berlin.example"), berlin()),
        (Spec::new("x").without_names().ip("192.0.2.7"), berlin()),
        (
            Spec::new("x").without_names().dns("*.berlin.example"),
            berlin(),
        ),
        (Spec::new("n1.berlin.example").any_eku(), berlin()),
        (Spec::new("n2.berlin.example"), Err(Rejection::WrongName)),
        (
            Spec::new("x").without_names().ip("192.0.2.8"),
            Err(Rejection::WrongName),
        ),
        // The common name is no name.
        (
            Spec::new("n1.berlin.example").without_names(),
            Err(Rejection::WrongName),
        ),
    ] {
        let leaf = spec.clone().signed_by(&authority);
        assert_eq!(as_client(&bundles, &leaf), expected, "{spec:?}");
    }
}

#[test]
fn an_anchor_without_node_names_vouches_for_nobody() {
    let authority = Authority::new("CA");
    let leaf = Spec::new("n1.berlin.example").signed_by(&authority);
    let verdict = judged(
        &[anchored("berlin", &authority, &[])],
        &[leaf.der()],
        Direction::Client,
    );
    let Verdict::Rejected {
        rejection,
        expectation,
        mend,
        ..
    } = verdict
    else {
        panic!()
    };
    assert_eq!(rejection, Rejection::WrongName);
    assert!(
        expectation.contains("none is set; it carries n1.berlin.example"),
        "{expectation}"
    );
    assert!(
        mend.starts_with("emccd cluster set berlin --node-name "),
        "{mend}"
    );
}

#[test]
fn an_anchor_of_one_peer_is_worth_nothing_for_another() {
    let (ours, theirs) = (Authority::new("Berlin CA"), Authority::new("Tokyo CA"));
    let bundles = [
        anchored("berlin", &ours, &["n1.berlin.example"]),
        anchored("tokyo", &theirs, &["n1.tokyo.example"]),
    ];
    let forged = Spec::new("n1.berlin.example").signed_by(&theirs);
    assert_eq!(as_client(&bundles, &forged), Err(Rejection::WrongName));
    let stranger = Spec::new("n1.berlin.example").signed_by(&Authority::new("Berlin CA"));
    assert_eq!(
        as_client(&bundles, &stranger),
        Err(Rejection::UnknownIssuer)
    );
    let good = Spec::new("n1.berlin.example").signed_by(&ours);
    assert_eq!(as_client(&bundles, &good), berlin());
}

#[test]
fn peers_can_share_an_anchor() {
    let authority = Authority::new("Corporate CA");
    let bundles = [
        anchored("tokyo", &authority, &["n1.tokyo.example"]),
        anchored("berlin", &authority, &["n1.berlin.example"]),
    ];
    let leaf = Spec::new("n1.berlin.example").signed_by(&authority);
    assert_eq!(as_client(&bundles, &leaf), berlin());
    let both = Spec::new("n1.berlin.example")
        .dns("n1.tokyo.example")
        .signed_by(&authority);
    assert_eq!(as_client(&bundles, &both), Err(Rejection::Ambiguous));
    let neither = Spec::new("n1.paris.example").signed_by(&authority);
    assert_eq!(as_client(&bundles, &neither), Err(Rejection::WrongName));
    // Of two objections, that of the peer which is meant is told.
    let expired = Spec::new("n1.berlin.example")
        .valid_days(-20, -10)
        .signed_by(&authority);
    let verdict = judged(&bundles, &[expired.der()], Direction::Client);
    assert_eq!(outcome(&verdict), Err(Rejection::Expired));
    assert!(matches!(verdict, Verdict::Rejected { mend, .. } if mend.contains("trust add berlin")));
}

#[test]
fn a_pin_and_another_peers_anchor_are_ambiguous() {
    let authority = Authority::new("CA");
    let leaf = Spec::new("n1.berlin.example").signed_by(&authority);
    let bundles = [
        pinned("tokyo", &leaf),
        anchored("berlin", &authority, &["n1.berlin.example"]),
    ];
    assert_eq!(as_client(&bundles, &leaf), Err(Rejection::Ambiguous));
    assert_eq!(
        outcome(&judge_dialled(
            &bundles,
            &cluster("berlin"),
            &[leaf.der().clone()],
            Clock::system().now()
        )),
        Err(Rejection::Ambiguous)
    );
}

#[test]
fn intermediates_that_were_presented_are_used() {
    let root = Authority::new("Root");
    let issuing = Authority::under("Issuing", &root);
    let leaf = Spec::new("n1.berlin.example").signed_by(&issuing);
    let bundles = [anchored("berlin", &root, &["n1.berlin.example"])];
    let with = judged(&bundles, &[leaf.der(), issuing.der()], Direction::Client);
    assert_eq!(outcome(&with), berlin());
    assert_eq!(as_client(&bundles, &leaf), Err(Rejection::UnknownIssuer));
    // A leaf can't pose as an issuer.
    let posing = Authority::of_leaf(&leaf, Spec::new("n1.berlin.example"));
    let minted = Spec::new("n1.berlin.example").signed_by(&posing);
    let chain = [minted.der(), leaf.der(), issuing.der()];
    assert_eq!(
        outcome(&judged(&bundles, &chain, Direction::Client)),
        Err(Rejection::UnknownIssuer)
    );
}

#[test]
fn expiry_under_an_anchor_is_told_apart_from_an_unknown_issuer() {
    let authority = Authority::new("CA");
    let bundles = [anchored("berlin", &authority, &["n1.berlin.example"])];
    let expired = Spec::new("n1.berlin.example").valid_days(-20, -10);
    // The authority is younger than this leaf; its own dates are looked at as of today.
    assert_eq!(
        as_client(&bundles, &expired.clone().signed_by(&authority)),
        Err(Rejection::Expired)
    );
    let early = Spec::new("n1.berlin.example")
        .valid_days(10, 20)
        .signed_by(&authority);
    assert_eq!(as_client(&bundles, &early), Err(Rejection::NotYetValid));
    // Whoever isn't known here learns nothing about dates.
    let stranger = expired.signed_by(&Authority::new("CA"));
    assert_eq!(
        as_client(&bundles, &stranger),
        Err(Rejection::UnknownIssuer)
    );
}

#[test]
fn an_anchor_or_intermediate_that_expired_vouches_for_nobody() {
    let old = Authority::with(Spec::new("Old CA").without_names().valid_days(-20, -10));
    let leaf = Spec::new("n1.berlin.example").signed_by(&old);
    assert_eq!(
        as_client(&[anchored("berlin", &old, &["n1.berlin.example"])], &leaf),
        Err(Rejection::Expired)
    );
}

#[test]
fn revoked_leaves_are_told_so_and_stay_out() {
    let leaf = Spec::new("a.example").self_signed();
    let mut berlin_bundle = bundle("berlin");
    berlin_bundle.revoked.push(leaf.certificate().fingerprint());
    assert_eq!(
        as_client(&[berlin_bundle.clone()], &leaf),
        Err(Rejection::Revoked)
    );
    berlin_bundle.pinned.push(leaf.certificate());
    assert_eq!(
        as_client(&[berlin_bundle.clone()], &leaf),
        Err(Rejection::Revoked)
    );
    // It was berlin that lost it; another peer it was given to afterwards has it.
    berlin_bundle.pinned.clear();
    assert_eq!(
        as_client(&[berlin_bundle, pinned("tokyo", &leaf)], &leaf),
        Ok("tokyo".to_owned())
    );
}

/// As a client, and where tokyo was dialled.
fn both_ways(bundles: &[Bundle], leaf: &Leaf) -> [Result<String, Rejection>; 2] {
    let now = Clock::system().now();
    let chain = [leaf.der().clone()];
    let dialled = judge_dialled(bundles, &cluster("tokyo"), &chain, now);
    [as_client(bundles, leaf), outcome(&dialled)]
}

#[test]
fn what_was_revoked_for_one_peer_by_a_slip_does_not_cut_another() {
    let authority = Authority::new("Shared CA");
    let leaf = Spec::new("n1.tokyo.example").signed_by(&authority);
    let tokyo = anchored("tokyo", &authority, &["n1.tokyo.example"]);
    let berlin = anchored("berlin", &authority, &["n1.berlin.example"]);
    for mut other in [bundle("berlin"), berlin] {
        other.revoked.push(leaf.certificate().fingerprint());
        for bundles in [[other.clone(), tokyo.clone()], [tokyo.clone(), other]] {
            let [called, dialled] = both_ways(&bundles, &leaf);
            assert_eq!(called, Ok("tokyo".to_owned()));
            assert_eq!(dialled, Ok("tokyo".to_owned()));
        }
    }
}

#[test]
fn a_leaf_with_the_names_of_two_peers_is_not_the_other_one_by_being_revoked_for_the_first() {
    let authority = Authority::new("Shared CA");
    let leaf = Spec::new("n1.tokyo.example").signed_by(&authority);
    let mut tokyo = anchored("tokyo", &authority, &["n1.tokyo.example"]);
    let mut berlin = anchored("berlin", &authority, &["n1.tokyo.example"]);
    let before = [berlin.clone(), tokyo.clone()];
    let refused = |rejection| [Err(rejection), Err(rejection)];
    assert_eq!(both_ways(&before, &leaf), refused(Rejection::Ambiguous));
    berlin.revoked.push(leaf.certificate().fingerprint());
    for bundles in [
        [berlin.clone(), tokyo.clone()],
        [tokyo.clone(), berlin.clone()],
    ] {
        assert_eq!(both_ways(&bundles, &leaf), refused(Rejection::Revoked));
    }
    // Whoever pins it says whose it is.
    tokyo.pinned.push(leaf.certificate());
    let [called, dialled] = both_ways(&[berlin, tokyo], &leaf);
    assert_eq!(
        (called, dialled),
        (Ok("tokyo".to_owned()), Ok("tokyo".to_owned()))
    );
}

#[test]
fn dialling_demands_the_peer_that_was_meant() {
    let (a, b) = (
        Spec::new("a.example").self_signed(),
        Spec::new("b.example").self_signed(),
    );
    let bundles = [pinned("berlin", &a), pinned("tokyo", &b)];
    let dial = |leaf: &Leaf| {
        let now = Clock::system().now();
        judge_dialled(&bundles, &cluster("berlin"), &[leaf.der().clone()], now)
    };
    assert_eq!(outcome(&dial(&a)), berlin());
    assert_eq!(outcome(&dial(&b)), Err(Rejection::WrongCluster));
    let stranger = dial(&Spec::new("c.example").self_signed());
    let Verdict::Rejected {
        rejection,
        mend,
        certificate,
        ..
    } = stranger
    else {
        panic!()
    };
    assert_eq!(rejection, Rejection::UnknownIssuer);
    assert!(
        mend.starts_with("emccd trust add berlin --pin FILE"),
        "{mend}"
    );
    assert_eq!(certificate.unwrap().subject(), "CN=c.example");
}

#[test]
fn no_certificate_and_an_unreadable_one_are_refused() {
    let nobody: [&CertificateDer<'static>; 0] = [];
    assert_eq!(
        outcome(&judged(&[], &nobody, Direction::Client)),
        Err(Rejection::NoClientCertificate)
    );
    let garbage = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
    assert_eq!(
        outcome(&judged(&[], &[&garbage], Direction::Client)),
        Err(Rejection::UnknownIssuer)
    );
}

#[test]
fn an_anchor_shown_as_a_leaf_is_refused_with_a_hint() {
    let authority = Authority::new("n1.berlin.example");
    let bundles = [anchored("berlin", &authority, &["n1.berlin.example"])];
    let verdict = judged(&bundles, &[authority.der()], Direction::Client);
    let Verdict::Rejected {
        rejection,
        expectation,
        ..
    } = verdict
    else {
        panic!()
    };
    assert_eq!(rejection, Rejection::UnknownIssuer);
    assert!(expectation.contains("must be pinned"), "{expectation}");
}
