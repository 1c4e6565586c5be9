use std::time::Duration;

use proptest::prelude::*;
use rustls_pki_types::CertificateDer;

use super::*;
use crate::{
    clock::Clock,
    domain::rejection::Rejection,
    trust::{
        bundle::{Bundle, Direction},
        fixtures::{Authority, Leaf, Spec, anchored, cluster},
        judge::{Verdict, judge},
    },
};

const NAME: &str = "node-1.tokyo.example";

fn now() -> Timestamp {
    Clock::system().now()
}

fn leaf(authority: &Authority) -> Leaf {
    Spec::new(NAME).signed_by(authority)
}

fn one(der: &[u8]) -> Unsigned {
    read(der).unwrap().lists.remove(0)
}

fn signed(der: &[u8], by: &Authority) -> Result<Crl, Error> {
    one(der).signed(&cluster("tokyo"), &[by.certificate()], &[], false)
}

fn judged(bundles: &[Bundle], chain: &[&CertificateDer<'static>], at: Timestamp) -> Verdict {
    let chain: Vec<_> = chain.iter().map(|der| (*der).clone()).collect();
    judge(bundles, &chain, Direction::Client, at)
}

fn with(mut bundle: Bundle, crls: Vec<Crl>) -> Bundle {
    bundle.crls = crls;
    bundle
}

fn why(verdict: &Verdict) -> (Rejection, String, String) {
    match verdict {
        Verdict::Rejected {
            rejection,
            expectation,
            mend,
            ..
        } => (*rejection, expectation.clone(), mend.clone()),
        Verdict::Peer(peer) => panic!("it is {peer}"),
    }
}

#[test]
fn a_list_is_read_in_pem_and_der_and_told_by_what_it_says() {
    let authority = Authority::new("CA");
    let revoked = leaf(&authority).certificate();
    let (der, pem) = authority.crl_and_pem(300, &[&revoked], 10);
    let pem = format!(
        "what stands around counts for nothing\n{pem}{}",
        authority.pem()
    );
    let contents = read(pem.as_bytes()).unwrap();
    assert_eq!(contents.certificates, [authority.certificate()]);
    for list in [one(&der), contents.lists[0].clone()] {
        let crl = list.signed(&cluster("tokyo"), &[authority.certificate()], &[], true);
        let crl = crl.unwrap();
        assert_eq!((crl.number(), crl.revoked(), crl.der()), ("300", 1, &*der));
        assert_eq!(crl.issuer(), &authority.certificate());
        assert!(crl.is_strict() && crl.this_update() < now() && crl.next_update() > now());
        assert!(crl.revokes(&revoked));
        assert!(!crl.revokes(&leaf(&authority).certificate()));
        assert!(!crl.is_stale(crl.next_update()));
        assert!(crl.is_stale(crl.next_update().plus(Duration::from_millis(1))));
    }
}

#[test]
fn what_is_no_list_says_what_it_is() {
    let authority = Authority::new("CA");
    let leaf = leaf(&authority);
    let (der, pem) = authority.crl_and_pem(1, &[], 10);
    let cut = &der[..der.len() - 9];
    let mut longer = der.clone();
    longer.push(0);
    let key = leaf.key_pem() + &pem;
    for (bytes, word) in [
        (leaf.pem().as_bytes(), "a certificate is no"),
        (leaf.der().as_ref(), "a certificate is no"),
        (key.as_bytes(), "a private key is no"),
        (b"hello", "the file is no"),
        (b"", "the file is no"),
        (&[0x30, 3, 1, 1, 1], "can't be read"),
        (cut, "can't be read"),
        (&longer, "can't be read"),
        (&vec![b'a'; MAX_BYTES + 1], "larger than 3 MiB"),
        (
            b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
            "can't be read",
        ),
    ] {
        let text = read(bytes).unwrap_err().to_string();
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn only_an_authority_of_the_peer_or_one_below_it_may_sign() {
    let (anchor, stranger) = (Authority::new("CA"), Authority::new("Other CA"));
    signed(&anchor.crl(1, &[], 10), &anchor).unwrap();
    let wrong = signed(&stranger.crl(1, &[], 10), &anchor).unwrap_err();
    let text = wrong.to_string();
    for part in ["CN=Other CA", "tokyo", "CN=CA"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let namesake = Authority::new("CA");
    let forged = signed(&namesake.crl(1, &[], 10), &anchor).unwrap_err();
    assert!(matches!(forged, Error::BadSignature { .. }), "{forged}");
    let mut changed = anchor.crl(1, &[], 10);
    *changed.last_mut().unwrap() ^= 1;
    let changed = signed(&changed, &anchor).unwrap_err();
    assert!(matches!(changed, Error::BadSignature { .. }), "{changed}");

    // One below it, whose certificate is at hand; and one that only says that it is.
    let between = Authority::under("Between", &anchor);
    let below = Authority::under("Below", &between);
    let others = [below.certificate(), between.certificate()];
    let tokyo = cluster("tokyo");
    for authority in [&between, &below] {
        let list = one(&authority.crl(1, &[], 10));
        let crl = list.signed(&tokyo, &[anchor.certificate()], &others, false);
        assert_eq!(crl.unwrap().issuer(), &authority.certificate());
    }
    let elsewhere = Authority::under("Between", &stranger);
    let list = one(&elsewhere.crl(1, &[], 10));
    let refused = list.signed(
        &tokyo,
        &[anchor.certificate()],
        &[elsewhere.certificate()],
        false,
    );
    assert!(matches!(refused, Err(Error::WrongIssuer { .. })));

    // The same key and name, and a certificate that does not let it sign lists.
    let key = Spec::new("CA").without_names().ca().self_signed();
    let may = Authority::of_leaf(&key, Spec::new("CA").without_names().ca());
    let may_not = Spec::new("CA").without_names().ca().without_crl_sign();
    let may_not = Authority::of_leaf(&key, may_not);
    let refused = signed(&may.crl(1, &[], 10), &may_not).unwrap_err();
    assert!(matches!(refused, Error::NotASigner { .. }), "{refused}");
}

#[test]
fn a_list_gives_way_to_a_higher_number_only() {
    let authority = Authority::new("CA");
    let revoked = leaf(&authority).certificate();
    let crl = |number, revoked: &[&Certificate]| {
        signed(&authority.crl(number, revoked, 10), &authority).unwrap()
    };
    let nine = crl(9, &[]);
    let follows = |new: &Crl, old: &Crl| new.succeeds(old.number(), old.der());
    follows(&crl(10, &[]), &nine).unwrap();
    follows(&nine, &nine).unwrap();
    assert_eq!(
        follows(&nine, &crl(10, &[])),
        Err(Error::Older {
            number: "9".to_owned(),
            in_force: "10".to_owned()
        })
    );
    let other = follows(&crl(9, &[&revoked]), &nine);
    assert!(matches!(other, Err(Error::Differs { .. })));
}

#[test]
fn what_a_list_has_is_refused_and_nothing_else() {
    let authority = Authority::new("CA");
    let (bad, good) = (leaf(&authority), leaf(&authority));
    let der = authority.crl(7, &[&bad.certificate()], 10);
    let crl = signed(&der, &authority).unwrap();
    let tokyo = with(anchored("tokyo", &authority, &[NAME]), vec![crl]);
    let bundles = [tokyo.clone()];
    let (rejection, expectation, mend) = why(&judged(&bundles, &[bad.der()], now()));
    assert_eq!(rejection, Rejection::Revoked);
    for part in ["number 7", "CN=CA", &bad.certificate().fingerprint_text()] {
        assert!(expectation.contains(part), "{part}: {expectation}");
    }
    assert!(mend.contains("emccd trust add tokyo --pin"), "{mend}");
    assert!(judged(&bundles, &[good.der()], now()).peer().is_some());
    // Of another peer under the same authority nothing was said.
    let lima = anchored("lima", &authority, &[NAME]);
    let verdict = judged(std::slice::from_ref(&lima), &[bad.der()], now());
    assert_eq!(verdict.peer(), Some(&lima.cluster));
    // One who was two peers by its names is not the other one by losing the first.
    let verdict = judged(&[tokyo.clone(), lima], &[bad.der()], now());
    assert_eq!(verdict.rejection(), Some(Rejection::Revoked));
    // A pin names this very leaf.
    let mut pinned = tokyo;
    pinned.pinned.push(bad.certificate());
    assert!(judged(&[pinned], &[bad.der()], now()).peer().is_some());
}

#[test]
fn authorities_that_vouch_for_one_another_cost_no_time() {
    let key = Spec::new("Loop").self_signed();
    let ring = || Authority::of_leaf(&key, Spec::new("Loop").without_names().ca());
    let others: Vec<_> = (0..14).map(|_| ring().certificate()).collect();
    let list = one(&ring().crl(1, &[], 10));
    let anchors = [Authority::new("CA").certificate()];
    // Every way through them would be looked at for hours.
    let refused = list.signed(&cluster("tokyo"), &anchors, &others, false);
    assert!(matches!(refused, Err(Error::WrongIssuer { .. })));
}

#[test]
fn an_authority_between_can_be_revoked_and_can_revoke() {
    let anchor = Authority::new("CA");
    let between = Authority::under("Between", &anchor);
    let leaf = leaf(&between);
    let chain = [leaf.der(), between.der()];
    let tokyo = || anchored("tokyo", &anchor, &[NAME]);
    let judged = |crls| judged(&[with(tokyo(), crls)], &chain, now());
    let crl = |authority: &Authority, revoked: &[&Certificate]| {
        let list = one(&authority.crl(1, revoked, 10));
        let anchors = [anchor.certificate()];
        let others = [between.certificate()];
        list.signed(&cluster("tokyo"), &anchors, &others, false)
            .unwrap()
    };
    assert!(
        judged(vec![crl(&anchor, &[]), crl(&between, &[])])
            .peer()
            .is_some()
    );
    let by_anchor = judged(vec![crl(&anchor, &[&between.certificate()])]);
    assert!(why(&by_anchor).1.contains("CN=Between"), "{by_anchor:?}");
    let by_between = judged(vec![crl(&between, &[&leaf.certificate()])]);
    assert!(why(&by_between).1.contains(NAME), "{by_between:?}");
}

#[test]
fn authorities_that_share_a_name_are_told_apart_by_their_keys() {
    let (old, new) = (Authority::new("CA"), Authority::new("CA"));
    let leaf = leaf(&new);
    let mut tokyo = anchored("tokyo", &new, &[NAME]);
    tokyo.anchors.insert(0, old.certificate());
    let of_old = signed(&old.crl(1, &[&leaf.certificate()], 10), &old).unwrap();
    let of_new = signed(&new.crl(1, &[], 10), &new).unwrap();
    let told = |crls| judged(&[with(tokyo.clone(), crls)], &[leaf.der()], now());
    assert!(told(vec![of_old.clone()]).peer().is_some());
    assert!(told(vec![of_old.clone(), of_new]).peer().is_some());
    let of_new = signed(&new.crl(2, &[&leaf.certificate()], 10), &new).unwrap();
    assert_eq!(
        told(vec![of_old, of_new]).rejection(),
        Some(Rejection::Revoked)
    );
}

#[test]
fn a_stale_list_goes_on_counting_and_a_strict_one_lets_nobody_in() {
    let authority = Authority::new("CA");
    let (bad, good) = (leaf(&authority), leaf(&authority));
    let der = authority.crl(7, &[&bad.certificate()], -2);
    let crl = signed(&der, &authority).unwrap();
    let judged = |crl: Crl, leaf: &Leaf| {
        let tokyo = with(anchored("tokyo", &authority, &[NAME]), vec![crl]);
        judged(&[tokyo], &[leaf.der()], now())
    };
    assert!(judged(crl.clone(), &good).peer().is_some());
    assert_eq!(
        judged(crl.clone(), &bad).rejection(),
        Some(Rejection::Revoked)
    );
    let strict = crl.strict(true);
    let (rejection, expectation, mend) = why(&judged(strict.clone(), &good));
    assert_eq!(rejection, Rejection::Revoked);
    assert!(expectation.contains("is stale"), "{expectation}");
    assert!(
        mend.contains("emccd trust crl add tokyo FILE (it stays strict"),
        "{mend}"
    );
    // What it has is said of those that it has.
    assert!(why(&judged(strict, &bad)).1.contains("number 7"));
    let newer = signed(&authority.crl(8, &[], 10), &authority).unwrap();
    assert!(judged(newer.strict(true), &bad).peer().is_some());
}

proptest! {
    #[test]
    fn arbitrary_and_damaged_lists_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        drop(read(&bytes));
        let _ = sample().0.signed(&bytes);
        let (authority, list) = sample();
        let mut list = list.clone();
        for (at, byte) in damage {
            let at = at.index(list.len());
            list[at] = byte;
        }
        if let Ok(mut read) = read(&list) {
            // Whatever is damaged, it is not what was signed.
            let list = read.lists.remove(0);
            let is_whole = list.der == sample().1;
            let signed = list.signed(&cluster("tokyo"), std::slice::from_ref(authority), &[], false);
            prop_assert_eq!(signed.is_ok(), is_whole);
        }
    }
}

fn sample() -> &'static (Certificate, Vec<u8>) {
    static SAMPLE: std::sync::OnceLock<(Certificate, Vec<u8>)> = std::sync::OnceLock::new();
    SAMPLE.get_or_init(|| {
        let authority = Authority::new("CA");
        let revoked = leaf(&authority).certificate();
        let list = authority.crl(1, &[&revoked], 10);
        (authority.certificate(), list)
    })
}
