//! Announcements in any order, repeated, between what operators do.

use proptest::{collection::vec, prelude::*};

use super::*;

fn candidate(n: u8) -> Candidate {
    Candidate {
        fingerprint: [n; 32],
        parent: None,
        fitness: Fitness::Fit,
    }
}

/// An identity's whole set under a number, over a connection with certificate 1. Equal sets have equal digests.
fn announced(identity: &str, sequence: u64, certificates: &[u8]) -> Request {
    let mut digest = [0; 32];
    for (at, n) in digest.iter_mut().zip(certificates) {
        *at = *n;
    }
    Request {
        identity: identity.to_owned(),
        sequence,
        digest,
        certificates: certificates.iter().map(|n| candidate(*n)).collect(),
        connection: [1; 32],
    }
}

fn standing(pinned: &[u8]) -> Standing {
    Standing {
        pinned: pinned.iter().map(|n| [*n; 32]).collect(),
        ..Standing::default()
    }
}

fn take_all(standing: &mut Standing, policy: Acceptance, request: &Request) -> Reconciled {
    let done = reconcile(standing, policy, request).unwrap();
    standing.apply(&done.changes);
    done
}

fn words(done: &Reconciled) -> Vec<&'static str> {
    let word = |(_, outcome): &(Fingerprint, Outcome)| match outcome {
        Outcome::Loaded => "loaded",
        Outcome::Waiting(_) => "waiting",
        Outcome::Refused(_) => "refused",
    };
    done.outcomes.iter().map(word).collect()
}

fn pinned(standing: &Standing) -> Vec<u8> {
    standing.pinned.iter().map(|f| f[0]).collect()
}

#[test]
fn a_rotation_leaves_the_new_certificate_and_nothing_else() {
    let mut standing = standing(&[1, 9]);
    let (both, new) = (
        announced("n/federation", 5, &[1, 2]),
        Request {
            connection: [2; 32],
            ..announced("n/federation", 6, &[2])
        },
    );
    let done = take_all(&mut standing, Acceptance::Auto, &both);
    assert_eq!(words(&done), ["loaded", "loaded"]);
    assert_eq!(done.changes[0], Change::Pin([2; 32], Some([1; 32])));
    assert_eq!(pinned(&standing), [1, 2, 9]);
    // Told again, and the one before it late.
    let before = standing.clone();
    assert_eq!(
        take_all(&mut standing, Acceptance::Auto, &both).outcomes,
        done.outcomes
    );
    assert_eq!(standing, before);
    take_all(&mut standing, Acceptance::Auto, &new);
    assert_eq!(pinned(&standing), [2, 9]);
    let before = standing.clone();
    let late = take_all(&mut standing, Acceptance::Auto, &both);
    assert_eq!((late.sequence, late.outcomes.len()), (6, 0));
    assert_eq!(standing, before);
    // The same number with something else is no repeat.
    let other = announced("n/federation", 6, &[2, 3]);
    assert_eq!(
        reconcile(&standing, Acceptance::Auto, &other),
        Err(Refused::OtherContent(6))
    );
}

#[test]
fn what_the_call_rests_on_and_what_others_share_is_never_taken_away() {
    let mut standing = standing(&[1]);
    take_all(
        &mut standing,
        Acceptance::Auto,
        &announced("n/federation", 1, &[1, 2]),
    );
    let over_the_old = announced("n/federation", 2, &[2]);
    assert_eq!(
        reconcile(&standing, Acceptance::Auto, &over_the_old),
        Err(Refused::RestsOn([1; 32]))
    );
    // Another node has the same certificate: it stays until that one has let go of it too.
    take_all(
        &mut standing,
        Acceptance::Auto,
        &announced("m/federation", 3, &[1, 2]),
    );
    take_all(&mut standing, Acceptance::Auto, &over_the_old);
    assert_eq!(pinned(&standing), [1, 2]);
    let last = Request {
        connection: [2; 32],
        ..announced("m/federation", 4, &[2])
    };
    take_all(&mut standing, Acceptance::Auto, &last);
    assert_eq!(pinned(&standing), [2]);
}

#[test]
fn what_waits_takes_nothing_away_until_it_is_agreed_to() {
    let mut standing = standing(&[1, 7]);
    let over_seven = |sequence, certificates: &[u8]| Request {
        connection: [7; 32],
        ..announced("n/federation", sequence, certificates)
    };
    take_all(&mut standing, Acceptance::Approve, &over_seven(1, &[1, 2]));
    let only_new = over_seven(2, &[2]);
    let done = take_all(&mut standing, Acceptance::Approve, &only_new);
    assert_eq!(words(&done), ["waiting"]);
    assert_eq!(pinned(&standing), [1, 7]);
    standing.trust([2; 32]);
    let done = take_all(&mut standing, Acceptance::Approve, &only_new);
    assert_eq!(words(&done), ["loaded"]);
    assert_eq!(pinned(&standing), [2, 7]);
    // What was announced no longer need not be agreed to.
    take_all(&mut standing, Acceptance::Approve, &over_seven(3, &[2, 3]));
    assert_eq!(standing.waiting.len(), 1);
    take_all(&mut standing, Acceptance::Approve, &over_seven(4, &[2]));
    assert!(standing.waiting.is_empty());
    // Nor what the operator takes no announcements of any more, or takes all of.
    take_all(&mut standing, Acceptance::Approve, &over_seven(5, &[2, 3]));
    let done = take_all(&mut standing, Acceptance::Off, &over_seven(5, &[2, 3]));
    assert_eq!(words(&done), ["loaded", "refused"]);
    assert!(standing.waiting.is_empty());
    let done = take_all(&mut standing, Acceptance::Auto, &over_seven(5, &[2, 3]));
    assert_eq!(words(&done), ["loaded", "loaded"]);
}

#[test]
fn what_was_taken_back_is_anothers_or_an_authority_is_refused() {
    let mut standing = Standing {
        revoked: BTreeSet::from([[2; 32]]),
        elsewhere: BTreeMap::from([([3; 32], ClusterId::new("tokyo").unwrap())]),
        authorities: BTreeSet::from([[4; 32]]),
        ..standing(&[1])
    };
    let done = take_all(
        &mut standing,
        Acceptance::Auto,
        &announced("n/federation", 1, &[2, 3, 4]),
    );
    assert_eq!(words(&done), ["refused"; 3]);
    assert!(
        done.outcomes
            .iter()
            .all(|(_, outcome)| matches!(outcome, Outcome::Refused(why) if !why.contains("tokyo")))
    );
    assert_eq!(pinned(&standing), [1]);
    let mut expired = announced("n/federation", 2, &[5]);
    expired.certificates[0].fitness = Fitness::Never("it has expired".to_owned());
    let done = take_all(&mut standing, Acceptance::Auto, &expired);
    assert_eq!(words(&done), ["refused"]);
}

#[test]
fn the_parent_is_one_that_we_trust_and_that_vouched_or_the_one_of_the_connection() {
    for (claimed, parent) in [
        (None, Some([1; 32])),
        (Some([8; 32]), Some([8; 32])),
        // Not trusted; its own child.
        (Some([5; 32]), Some([1; 32])),
        (Some([2; 32]), Some([1; 32])),
    ] {
        let mut request = announced("n/federation", 1, &[2]);
        request.certificates[0].parent = claimed;
        let done = reconcile(&standing(&[1, 8]), Acceptance::Auto, &request).unwrap();
        assert_eq!(done.changes[0], Change::Pin([2; 32], parent), "{claimed:?}");
    }
    // Under an authority the connection may show the very certificate that is announced.
    let itself = announced("n/federation", 1, &[1]);
    let done = reconcile(&standing(&[]), Acceptance::Auto, &itself).unwrap();
    assert_eq!(done.changes[0], Change::Pin([1; 32], None));
}

#[test]
fn what_is_not_valid_yet_waits_for_its_time_and_what_never_is_counts_for_nothing() {
    let with = |sequence, n: u8, fitness: Fitness| {
        let mut request = announced("n/federation", sequence, &[1, n]);
        request.certificates[1].fitness = fitness;
        request
    };
    let early = || Fitness::NotYet("it is valid from tomorrow".to_owned());
    let mut standing = standing(&[1, 9]);
    let done = take_all(&mut standing, Acceptance::Auto, &with(1, 2, early()));
    assert_eq!(words(&done), ["loaded", "waiting"]);
    let when = Outcome::Waiting("it is valid from tomorrow".to_owned());
    assert_eq!(done.outcomes[1].1, when);
    // No operator has anything to do: its time comes, and the repeat finds it fit.
    assert_eq!((pinned(&standing), standing.waiting.len()), (vec![1, 9], 0));
    let done = take_all(&mut standing, Acceptance::Auto, &with(1, 2, Fitness::Fit));
    assert_eq!(words(&done), ["loaded"; 2]);
    assert_eq!(pinned(&standing), [1, 2, 9]);
    // Where operators have a say they can have it before; what they agreed to is still not to be counted on.
    let done = take_all(&mut standing, Acceptance::Approve, &with(2, 3, early()));
    assert_eq!(words(&done), ["loaded", "waiting"]);
    assert_eq!(standing.waiting.len(), 1);
    standing.trust([3; 32]);
    let alone = |fitness| {
        let mut request = announced("n/federation", 3, &[3]);
        request.connection = [9; 32];
        request.certificates[0].fitness = fitness;
        request
    };
    for fitness in [early(), Fitness::Never("it is for servers only".to_owned())] {
        let is_early = fitness == early();
        let done = take_all(&mut standing, Acceptance::Approve, &alone(fitness));
        assert_eq!(words(&done), [if is_early { "waiting" } else { "refused" }]);
        // Nothing of the identity goes in its favour.
        assert!(standing.pinned.contains(&[1; 32]) && standing.pinned.contains(&[3; 32]));
    }
    let done = take_all(&mut standing, Acceptance::Approve, &alone(Fitness::Fit));
    assert_eq!(words(&done), ["loaded"]);
    assert_eq!(pinned(&standing), [3, 9]);
}

#[test]
fn only_so_many_identities_are_kept_and_those_with_nothing_left_make_room() {
    let mut standing = standing(&[1]);
    for n in 0..MAX_IDENTITIES {
        let request = announced(&format!("n{n:02}/federation"), 1, &[1]);
        take_all(&mut standing, Acceptance::Auto, &request);
    }
    let more = announced("one-more/federation", 1, &[1]);
    assert_eq!(
        reconcile(&standing, Acceptance::Auto, &more),
        Err(Refused::TooManyIdentities)
    );
    standing
        .identities
        .get_mut("n07/federation")
        .unwrap()
        .own
        .clear();
    let done = take_all(&mut standing, Acceptance::Auto, &more);
    assert_eq!(done.changes[0], Change::Forget("n07/federation".to_owned()));
    assert_eq!(standing.identities.len(), MAX_IDENTITIES);
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    /// One of the announcements arrives, over a connection with that certificate.
    Arrives(usize, u8),
    Revoked(u8),
    Trusted(u8),
    Policy(Acceptance),
}

fn event() -> impl Strategy<Value = Event> {
    let acceptance = prop_oneof![
        3 => Just(Acceptance::Auto),
        1 => Just(Acceptance::Approve),
        1 => Just(Acceptance::Off)
    ];
    prop_oneof![
        12 => (any::<prop::sample::Index>(), 0..8u8)
            .prop_map(|(which, connection)| Event::Arrives(which.index(64), connection)),
        1 => (0..8u8).prop_map(Event::Revoked),
        1 => (0..8u8).prop_map(Event::Trusted),
        1 => acceptance.prop_map(Event::Policy),
    ]
}

prop_compose! {
    /// Announcements of three identities; of each, numbers grow.
    fn announcements()(sets in vec((0..3usize, prop::collection::btree_set(0..8u8, 1..4)), 1..12)) -> Vec<Request> {
        let names = ["a/federation", "a/federation-client", "b/federation"];
        sets.into_iter()
            .zip(1..)
            .map(|((who, set), sequence)| {
                let set: Vec<_> = set.into_iter().collect();
                announced(names[who], sequence, &set)
            })
            .collect()
    }
}

proptest! {
    #[test]
    fn whatever_arrives_in_whatever_order(
        requests in announcements(),
        first in prop::collection::btree_set(0..8u8, 1..4),
        events in vec(event(), 0..40),
    ) {
        let first: Vec<_> = first.into_iter().collect();
        let mut standing = standing(&first);
        let mut policy = Acceptance::Auto;
        let mut highest = BTreeMap::<String, u64>::new();
        for event in events {
            let (which, connection) = match event {
                Event::Revoked(n) => {
                    standing.revoke([n; 32]);
                    continue;
                }
                Event::Trusted(n) => {
                    standing.trust([n; 32]);
                    continue;
                }
                Event::Policy(new) => {
                    policy = new;
                    continue;
                }
                Event::Arrives(which, connection) => (which % requests.len(), connection),
            };
            let request = Request { connection: [connection; 32], ..requests[which].clone() };
            let before = standing.clone();
            let known = highest.get(&request.identity).copied().unwrap_or(0);
            let Ok(done) = reconcile(&standing, policy, &request) else {
                continue;
            };
            standing.apply(&done.changes);
            if request.sequence < known {
                // An older one changes nothing, and is told which is newest.
                prop_assert_eq!(&standing, &before);
                prop_assert_eq!((done.sequence, done.outcomes.len()), (known, 0));
                continue;
            }
            highest.insert(request.identity.clone(), request.sequence);
            prop_assert_eq!(done.outcomes.len(), request.certificates.len());
            // Nobody is locked out: not the caller, not the peer.
            prop_assert!(!before.pinned.contains(&request.connection) || standing.pinned.contains(&request.connection));
            prop_assert!(before.pinned.is_empty() || !standing.pinned.is_empty());
            // What others call their own, what nobody does, and what was taken back stay as they are.
            for (identity, newest) in &before.identities {
                if *identity != request.identity {
                    prop_assert_eq!(standing.identities.get(identity), Some(newest));
                    for own in &newest.own {
                        prop_assert_eq!(before.pinned.contains(own), standing.pinned.contains(own) && before.pinned.contains(own));
                    }
                }
            }
            let was_own = before.identities.get(&request.identity).map(|n| n.own.clone()).unwrap_or_default();
            for gone in before.pinned.difference(&standing.pinned) {
                prop_assert!(was_own.contains(gone));
            }
            prop_assert_eq!(&standing.revoked, &before.revoked);
            prop_assert!(standing.pinned.is_disjoint(&standing.waiting));
            prop_assert!(standing.pinned.is_disjoint(&standing.revoked));
            // Only what was announced is new, and only what stands is called its own.
            for new in standing.pinned.difference(&before.pinned) {
                prop_assert!(request.certificates.iter().any(|c| c.fingerprint == *new));
            }
            let own = &standing.identities[&request.identity].own;
            prop_assert!(own.iter().all(|f| standing.pinned.contains(f) || standing.waiting.contains(f)));
            // A repeat finds everything done.
            let again = reconcile(&standing, policy, &request).unwrap();
            prop_assert_eq!(again.changes, vec![]);
            prop_assert_eq!(again.outcomes, done.outcomes);
        }
    }

    #[test]
    fn the_newest_of_each_identity_is_what_is_left(requests in announcements(), order in vec(any::<prop::sample::Index>(), 0..30)) {
        // Nothing is taken back, all is taken; the connection rests on something else.
        let mut standing = standing(&[100]);
        let everything = (0..requests.len()).chain(order.iter().map(|index| index.index(requests.len())));
        for which in everything {
            let request = Request { connection: [100; 32], ..requests[which].clone() };
            take_all(&mut standing, Acceptance::Auto, &request);
        }
        let mut expected = BTreeSet::from([[100; 32]]);
        for request in &requests {
            let newest = requests.iter().filter(|r| r.identity == request.identity).max_by_key(|r| r.sequence).unwrap();
            expected.extend(newest.certificates.iter().map(|c| c.fingerprint));
        }
        prop_assert_eq!(standing.pinned, expected);
        prop_assert!(standing.waiting.is_empty());
    }
}
