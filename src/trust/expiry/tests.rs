use proptest::prelude::*;

use super::*;
use crate::{
    clock::Clock,
    trust::fixtures::{Spec, bundle},
};

const DAY_MS: i64 = 86_400_000;

fn at(days: f64) -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "days of a test")]
    Timestamp::from_millis((days * 86_400_000.0) as i64)
}

fn watched(part: Part, is_succeeded: bool) -> Watched {
    Watched {
        owner: ClusterId::new("tokyo").unwrap(),
        part,
        certificate: Spec::new("a.example").self_signed().certificate(),
        is_succeeded,
    }
}

/// So many days before the end of the certificate, negative ones after it.
fn before_end(watched: &Watched, days: i64) -> Timestamp {
    let end = watched.certificate.not_after().as_millis();
    Timestamp::from_millis(end - days * DAY_MS)
}

#[test]
fn each_threshold_begins_where_it_says() {
    let end = at(1_000.0);
    for (left, stage) in [
        (90.001, None),
        (90.0, Some(Stage::Within(90))),
        (30.001, Some(Stage::Within(90))),
        (30.0, Some(Stage::Within(30))),
        (14.001, Some(Stage::Within(30))),
        (14.0, Some(Stage::Within(14))),
        (7.0, Some(Stage::Within(7))),
        (1.001, Some(Stage::Within(7))),
        (1.0, Some(Stage::Within(1))),
        (0.0, Some(Stage::Within(1))),
        (-0.001, Some(Stage::Expired)),
        (-400.0, Some(Stage::Expired)),
    ] {
        assert_eq!(Stage::of(end, at(1_000.0 - left)), stage, "{left}");
    }
}

#[test]
fn each_threshold_is_told_once_and_the_clock_is_told_when_to_look_again() {
    let one = watched(Part::Pinned, false);
    let all = [one.clone()];
    let mut told = Told::default();
    let mut now = before_end(&one, 100);
    let mut stages = Vec::new();
    loop {
        let (due, next) = told.look(&all, now);
        stages.extend(due.into_iter().map(|alarm| alarm.stage));
        let (again, _) = told.look(&all, now);
        assert!(again.is_empty(), "{again:?}");
        match next {
            Some(next) => {
                assert!(next > now);
                now = next;
            }
            None => break,
        }
    }
    let expected = [
        Stage::Within(90),
        Stage::Within(30),
        Stage::Within(14),
        Stage::Within(7),
        Stage::Within(1),
        Stage::Expired,
    ];
    assert_eq!(stages, expected);
}

#[test]
fn after_a_start_the_present_threshold_alone_is_told() {
    let one = watched(Part::Anchor, false);
    let (due, next) = Told::default().look(std::slice::from_ref(&one), before_end(&one, 10));
    let [alarm] = due.as_slice() else {
        panic!("{due:?}")
    };
    assert_eq!(alarm.stage, Stage::Within(14));
    assert_eq!(next, Some(before_end(&one, 7)));
    let (due, next) = Told::default().look(std::slice::from_ref(&one), before_end(&one, -3));
    assert_eq!((due[0].stage, next), (Stage::Expired, None));
}

#[test]
fn what_was_replaced_is_forgotten_and_a_clock_that_is_set_back_tells_again() {
    let one = watched(Part::Pinned, false);
    let all = [one.clone()];
    let mut told = Told::default();
    assert_eq!(told.look(&all, before_end(&one, -1)).0.len(), 1);
    assert_eq!(told.look(&all, before_end(&one, 200)).0.len(), 0);
    assert_eq!(told.look(&all, before_end(&one, -1)).0.len(), 1);
    assert_eq!(told.look(&[], before_end(&one, -1)).0.len(), 0);
    assert_eq!(told.look(&all, before_end(&one, -1)).0.len(), 1);
}

#[test]
fn an_alarm_says_whose_since_when_and_what_to_type() {
    let alarm = |part, is_succeeded, days| {
        let watched = watched(part, is_succeeded);
        let now = before_end(&watched, days);
        alarms(&[watched], now).remove(0)
    };
    for (part, whose, next) in [
        (Part::Own("federation"), "our federation", "emccd cert new"),
        (Part::Own("phone"), "our phone", "--purpose phone"),
        (Part::OwnIssuer, "we send along", "emccd cert reload"),
        (
            Part::Pinned,
            "pinned for tokyo",
            "emccd trust add tokyo --pin",
        ),
        (
            Part::Anchor,
            "vouches for tokyo",
            "emccd trust add tokyo --anchor",
        ),
        (Part::Shown, "tokyo shows", "on tokyo"),
        (Part::ShownIssuer, "tokyo sends along", "on tokyo"),
    ] {
        let alarm = alarm(part, false, 5);
        let (text, to_type) = (alarm.text(), alarm.next());
        assert!(text.contains(whose), "{text}");
        assert!(text.contains("CN=a.example"), "{text}");
        assert!(text.contains("in 5 days"), "{text}");
        assert!(to_type.contains(next), "{to_type}");
        assert!(alarm.is_pressing());
    }
    let late = alarm(Part::Pinned, false, -3);
    assert!(late.text().contains("3 days ago"), "{}", late.text());
    assert_eq!(late.stage.word(), "expired");
    assert!(!alarm(Part::Pinned, false, 10).is_pressing());
    let leftover = alarm(Part::Pinned, true, -3);
    assert!(!leftover.is_pressing());
    assert!(leftover.text().contains("outlives"), "{}", leftover.text());
    let fingerprint = leftover.watched.certificate.fingerprint_text();
    let removal = format!("emccd trust remove tokyo --fingerprint {fingerprint}");
    assert!(leftover.next().contains(&removal));
}

#[test]
fn an_old_pin_beside_its_successor_is_a_leftover_unless_it_is_still_shown() {
    let ending = |name: &str, days| {
        let spec = Spec::new(name).valid_days(-1, days);
        spec.self_signed().certificate()
    };
    let (old, new, other) = (
        ending("a.example", 5),
        ending("a.example", 300),
        ending("b.example", 5),
    );
    let mut tokyo = bundle("tokyo");
    tokyo.pinned = vec![old.clone(), new, other];
    let succeeded = |shown: &[Chain]| {
        let all = peers(std::slice::from_ref(&tokyo), shown, Clock::system().now());
        let is_leftover = |w: &Watched| w.is_succeeded.then(|| w.certificate.clone());
        all.iter().filter_map(is_leftover).collect::<Vec<_>>()
    };
    assert_eq!(succeeded(&[]), std::slice::from_ref(&old));
    let chain = Chain {
        cluster: tokyo.cluster.clone(),
        leaf: old,
        issuers: Vec::new(),
    };
    assert!(succeeded(&[chain]).is_empty());
}

#[test]
fn what_is_shown_counts_where_no_entry_names_it() {
    use crate::trust::fixtures::Authority;
    let anchor = Authority::new("CA");
    let between = Authority::under("Between", &anchor);
    let mut tokyo = bundle("tokyo");
    tokyo.anchors.push(anchor.certificate());
    tokyo.node_names = vec!["a.example".to_owned(), "b.example".to_owned()];
    let leaf = Spec::new("a.example").signed_by(&between).certificate();
    let chain = |cluster: &str, leaf: &Certificate| Chain {
        cluster: ClusterId::new(cluster).unwrap(),
        leaf: leaf.clone(),
        issuers: vec![between.certificate(), anchor.certificate()],
    };
    let second = Spec::new("b.example").signed_by(&between).certificate();
    let shown = [
        chain("tokyo", &leaf),
        chain("tokyo", &second),
        chain("gone", &leaf),
    ];
    let all = peers(&[tokyo], &shown, Clock::system().now());
    let parts: Vec<_> = all.iter().map(|w| (w.part, &w.certificate)).collect();
    let (anchor, between) = (anchor.certificate(), between.certificate());
    let expected = [
        (Part::Anchor, &anchor),
        (Part::Shown, &leaf),
        (Part::ShownIssuer, &between),
        (Part::Shown, &second),
    ];
    assert_eq!(parts, expected);
}

#[test]
fn what_is_done_with_is_told_no_more_and_what_has_ended_is() {
    use crate::trust::fixtures::Authority;
    let anchor = Authority::new("CA");
    let mut tokyo = bundle("tokyo");
    tokyo.anchors.push(anchor.certificate());
    tokyo.node_names.push("a.example".to_owned());
    let late = Spec::new("a.example").valid_days(-20, -2);
    let late = late.signed_by(&anchor).certificate();
    let shown = [Chain {
        cluster: tokyo.cluster.clone(),
        leaf: late.clone(),
        issuers: Vec::new(),
    }];
    let told = |tokyo: &Bundle| {
        let all = peers(std::slice::from_ref(tokyo), &shown, Clock::system().now());
        all.iter().filter(|w| w.part == Part::Shown).count()
    };
    assert_eq!(told(&tokyo), 1);
    let mut revoked = tokyo.clone();
    revoked.revoked.push(late.fingerprint());
    // It was pinned, and the pin is gone.
    let pinned_before = bundle("tokyo");
    let mut another_name = tokyo;
    another_name.node_names = vec!["b.example".to_owned()];
    // That it has ended says more than that its name is no longer set.
    assert_eq!(
        [told(&revoked), told(&pinned_before), told(&another_name)],
        [0, 0, 1]
    );
}

#[test]
fn our_chain_is_a_leaf_and_its_issuers() {
    let us = ClusterId::new("berlin").unwrap();
    let certificate = |name: &str| Spec::new(name).self_signed().certificate();
    let chain = [certificate("a"), certificate("b"), certificate("c")];
    let parts: Vec<_> = own(&us, "phone", &chain).iter().map(|w| w.part).collect();
    assert_eq!(
        parts,
        [Part::Own("phone"), Part::OwnIssuer, Part::OwnIssuer]
    );
    assert!(own(&us, "phone", &[]).is_empty());
}

proptest! {
    /// However time goes on, nothing is told twice, nothing is left out that was crossed, and nobody who looks
    /// only when told to is late.
    #[test]
    fn looking_when_told_to_misses_nothing(start in 0i64..120 * DAY_MS, steps in prop::collection::vec(0i64..40 * DAY_MS, 0..8)) {
        let one = watched_once();
        let end = one.certificate.not_after();
        let mut told = Told::default();
        let mut now = Timestamp::from_millis(end.as_millis() - start);
        let mut before: Option<u16> = None;
        let mut last_next = None;
        for step in std::iter::once(0).chain(steps) {
            now = Timestamp::from_millis(now.as_millis() + step);
            let (due, next) = told.look(std::slice::from_ref(one), now);
            let severity = Stage::of(end, now).map(Stage::severity);
            prop_assert!(severity >= before, "time makes no certificate younger");
            prop_assert_eq!(due.len(), usize::from(severity > before));
            if let Some(Some(moment)) = last_next {
                // Before that moment there was nothing to tell.
                prop_assert!(due.is_empty() || now >= moment);
            }
            prop_assert!(next.is_none_or(|next| next > now));
            prop_assert_eq!(next.is_none(), severity == Some(u16::MAX));
            before = severity;
            last_next = Some(next);
        }
    }
}

fn watched_once() -> &'static Watched {
    static ONE: std::sync::OnceLock<Watched> = std::sync::OnceLock::new();
    ONE.get_or_init(|| {
        assert!(Clock::system().now().as_millis() > 200 * DAY_MS);
        watched(Part::Pinned, false)
    })
}
