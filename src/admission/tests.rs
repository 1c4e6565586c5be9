//! Whose turn it is, what the places hold, and that none is ever lost.

use std::{
    future::Future,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;

use super::*;
use crate::{admission::line::Party, domain::ids::ClusterId};

fn cluster(name: &str) -> Party {
    Party::Peer(ClusterId::new(name).unwrap())
}

fn from(party: Party, host: u8) -> Source {
    Source {
        party,
        network: Some(IpAddr::from([192, 0, 2, host])),
    }
}

fn a_source() -> impl Strategy<Value = Source> {
    let party = prop_oneof![
        Just(Party::Phones),
        Just(cluster("berlin")),
        Just(cluster("paris")),
    ];
    (party, 0..4u8).prop_map(|(party, host)| from(party, host))
}

fn lines() -> impl Strategy<Value = (Vec<Source>, usize)> {
    (prop::collection::vec(a_source(), 0..60), 0..30usize)
}

/// A line in which those sources wait, after some have been served.
fn line_of(sources: &[Source], served: usize) -> Line<(Source, usize)> {
    let mut line = Line::default();
    for (nth, source) in sources.iter().enumerate() {
        line.push(source, (source.clone(), nth));
    }
    for _ in 0..served {
        line.pop();
    }
    line
}

fn drain(mut line: Line<(Source, usize)>) -> Vec<(Source, usize)> {
    let length = line.len();
    let all: Vec<_> = std::iter::from_fn(|| line.pop()).collect();
    assert_eq!((all.len(), line.len()), (length, 0));
    all
}

/// How many of `all` are of each of the others while `mine` still waits, at most, for each one of it.
fn most_turns<K: PartialEq>(all: &[K], mine: &K, other: &K) -> usize {
    let mut since = 0;
    let mut most = 0;
    let end = all
        .iter()
        .rposition(|k| k == mine)
        .map_or(0, |last| last + 1);
    for k in &all[..end] {
        if k == mine {
            since = 0;
        } else if k == other {
            since += 1;
            most = most.max(since);
        }
    }
    most
}

proptest! {
    #[test]
    fn a_newcomer_waits_for_as_many_as_is_foretold((sources, served) in lines(), newcomer in a_source()) {
        let mut line = line_of(&sources, served);
        let foretold = line.ahead(&newcomer);
        line.push(&newcomer, (newcomer.clone(), usize::MAX));
        let place = drain(line).iter().position(|(_, nth)| *nth == usize::MAX);
        prop_assert_eq!(place, Some(foretold));
    }

    #[test]
    fn nobody_has_two_turns_while_another_waits_for_one((sources, served) in lines()) {
        let all: Vec<_> = drain(line_of(&sources, served)).into_iter().map(|(s, _)| s).collect();
        let parties: Vec<_> = all.iter().map(|s| s.party.clone()).collect();
        for mine in &parties {
            for other in &parties {
                if mine != other {
                    prop_assert!(most_turns(&parties, mine, other) <= 1, "{:?}", parties);
                }
            }
            let within: Vec<_> = all.iter().filter(|s| s.party == *mine).map(|s| s.network).collect();
            for a in &within {
                for b in &within {
                    if a != b {
                        prop_assert!(most_turns(&within, a, b) <= 1, "{:?}", within);
                    }
                }
            }
        }
    }

    #[test]
    fn nobody_is_lost_or_served_twice_and_each_source_is_served_in_order(
        (sources, _) in lines(),
        leaving in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut line = Line::default();
        let mut numbers: Vec<_> = sources
            .iter()
            .enumerate()
            .map(|(nth, source)| (line.push(source, (source.clone(), nth)), nth))
            .collect();
        for index in leaving {
            if numbers.is_empty() {
                break;
            }
            let (number, nth) = numbers.remove(index.index(numbers.len()));
            prop_assert_eq!(line.remove(&sources[nth], number), Some((sources[nth].clone(), nth)));
            prop_assert_eq!(line.remove(&sources[nth], number), None);
        }
        let served = drain(line);
        let mut nths: Vec<_> = served.iter().map(|(_, nth)| *nth).collect();
        for source in &sources {
            let own: Vec<_> = served.iter().filter(|(s, _)| s == source).map(|(_, n)| *n).collect();
            prop_assert!(own.is_sorted());
        }
        nths.sort_unstable();
        prop_assert_eq!(nths, numbers.into_iter().map(|(_, nth)| nth).collect::<Vec<_>>());
    }

    #[test]
    fn room_is_made_by_the_newest_of_who_has_most((sources, served) in lines(), newcomer in a_source()) {
        let mut line = line_of(&sources, served);
        let length = line.len();
        let before = drain(line_of(&sources, served));
        let count = |of: &dyn Fn(&Source) -> bool| before.iter().filter(|(s, _)| of(s)).count();
        match line.shed(&newcomer) {
            None => {
                // Nobody has more than the newcomer would have.
                let own_party = count(&|s| s.party == newcomer.party) + 1;
                let own = count(&|s| *s == newcomer) + 1;
                for (other, _) in &before {
                    prop_assert!(count(&|s| s.party == other.party) <= own_party);
                    if other.party == newcomer.party {
                        prop_assert!(count(&|s| s == other) <= own);
                    }
                }
            }
            Some((victim, nth)) => {
                prop_assert_eq!(line.len(), length - 1);
                prop_assert!(before.iter().all(|(s, other)| *s != victim || *other <= nth));
                for (other, _) in &before {
                    if other.party == victim.party {
                        prop_assert!(count(&|s| s == other) <= count(&|s| *s == victim));
                    }
                }
                // The newcomer takes no room from who has as little.
                let gained = count(&|s| *s == newcomer) + 1;
                let is_fair = if victim.party == newcomer.party {
                    count(&|s| *s == victim) > gained
                } else {
                    count(&|s| s.party == victim.party) > count(&|s| s.party == newcomer.party) + 1
                };
                prop_assert!(is_fair, "{:?} for {:?}", victim, newcomer);
            }
        }
    }
}

#[test]
fn operators_work_is_never_taken_out_to_make_room() {
    let mut line = Line::default();
    for nth in 0..9 {
        line.push(&Source::operators(), nth);
    }
    let newcomer = from(Party::Phones, 1);
    assert_eq!(line.shed(&newcomer), None);
    line.push(&newcomer, 9);
    assert_eq!(line.shed(&from(cluster("berlin"), 1)), None);
    assert_eq!(line.len(), 10);
}

type Entering = Pin<Box<dyn Future<Output = Result<Permit, Refused>>>>;

fn poll(entering: &mut Entering) -> Poll<Result<Permit, Refused>> {
    entering
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

fn enter(pool: &Pool, source: Source, deadline: Option<Instant>) -> Entering {
    let pool = pool.clone();
    Box::pin(async move { pool.enter(&source, deadline).await })
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(60))
}

fn pool(places: usize, line: usize) -> Pool {
    Pool::new(Config {
        places,
        line,
        alike: false,
    })
}

/// What happens to a pool.
#[derive(Clone, Debug)]
enum Event {
    Arrive(Source),
    GoAway(prop::sample::Index),
    Finish(prop::sample::Index),
    Look,
    Places(usize),
}

fn an_event() -> impl Strategy<Value = Event> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => a_source().prop_map(Event::Arrive),
        2 => index().prop_map(Event::GoAway),
        2 => index().prop_map(Event::Finish),
        1 => Just(Event::Look),
        1 => (1..5usize).prop_map(Event::Places),
    ]
}

/// A pool under test, who waits and who has a place.
struct Scene {
    pool: Pool,
    places: usize,
    entering: Vec<Entering>,
    held: Vec<Permit>,
}

const LINE_OF_SCENE: usize = 6;

impl Scene {
    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(source) => {
                let mut entering = enter(&self.pool, source, soon());
                match poll(&mut entering) {
                    Poll::Pending => self.entering.push(entering),
                    Poll::Ready(Ok(permit)) => self.held.push(permit),
                    Poll::Ready(Err(refused)) => {
                        assert_eq!(self.pool.counts().waiting, LINE_OF_SCENE, "{refused}");
                    }
                }
            }
            Event::GoAway(index) if !self.entering.is_empty() => {
                drop(self.entering.swap_remove(index.index(self.entering.len())));
            }
            Event::Finish(index) if !self.held.is_empty() => {
                drop(self.held.swap_remove(index.index(self.held.len())));
            }
            Event::GoAway(_) | Event::Finish(_) => {}
            Event::Look => self.look(),
            Event::Places(places) => {
                self.places = places;
                self.pool.set_places(places);
            }
        }
        let counts = self.pool.counts();
        assert!(counts.waiting <= LINE_OF_SCENE, "{counts:?}");
        assert!(
            counts.waiting == 0 || counts.running >= self.places,
            "a place is free: {counts:?}"
        );
        assert!(counts.running >= self.held.len(), "{counts:?}");
    }

    /// Those who wait see what has become of them.
    fn look(&mut self) {
        let mut waiting = Vec::new();
        for mut entering in self.entering.drain(..) {
            match poll(&mut entering) {
                Poll::Pending => waiting.push(entering),
                Poll::Ready(Ok(permit)) => self.held.push(permit),
                // It made room for another.
                Poll::Ready(Err(refused)) => assert!(matches!(refused, Refused::Busy { .. })),
            }
        }
        self.entering = waiting;
    }
}

proptest! {
    #[test]
    fn no_place_is_lost_or_given_twice_whoever_goes_away(events in prop::collection::vec(an_event(), 0..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut scene = Scene {
                pool: pool(2, LINE_OF_SCENE),
                places: 2,
                entering: Vec::new(),
                held: Vec::new(),
            };
            let mut most = 2;
            for event in events {
                if let Event::Places(places) = event {
                    most = most.max(places);
                }
                scene.happen(event);
                assert!(scene.pool.counts().running <= most);
            }
            scene.look();
            let Scene { pool, entering, held, .. } = scene;
            drop((entering, held));
            let counts = pool.counts();
            assert_eq!((counts.running, counts.waiting), (0, 0));
            pool.set_places(3);
            let mut all: Vec<_> = (0..4).map(|_| enter(&pool, from(Party::Phones, 1), soon())).collect();
            let taken: Vec<_> = all.iter_mut().map(poll).collect();
            let free = taken.iter().filter(|p| p.is_ready()).count();
            assert_eq!(free, 3);
        });
    }
}

#[tokio::test]
async fn a_thousand_of_one_source_delay_another_by_one_turn() {
    let pool = pool(1, 2_000);
    let held = pool.enter(&from(Party::Phones, 1), soon()).await.unwrap();
    let mut many: Vec<_> = (0..1_000)
        .map(|_| enter(&pool, from(Party::Phones, 1), soon()))
        .collect();
    assert!(many.iter_mut().all(|one| poll(one).is_pending()));
    let mut other = enter(&pool, from(Party::Phones, 2), soon());
    assert!(poll(&mut other).is_pending());
    drop(held);
    let first: Vec<_> = many
        .iter_mut()
        .filter_map(|one| match poll(one) {
            Poll::Ready(permit) => Some(permit.unwrap()),
            Poll::Pending => None,
        })
        .collect();
    assert_eq!(first.len(), 1);
    assert!(poll(&mut other).is_pending());
    drop(first);
    assert!(matches!(poll(&mut other), Poll::Ready(Ok(_))));
}

#[tokio::test]
async fn what_can_not_be_served_in_time_is_refused_at_once_with_the_time_that_the_line_takes() {
    let pool = pool(2, 100);
    pool.expect(Duration::from_secs(4));
    let source = from(Party::Phones, 1);
    let held = [
        pool.enter(&source, soon()).await.unwrap(),
        pool.enter(&source, soon()).await.unwrap(),
    ];
    // Places become free every two seconds.
    let deadline = Some(Instant::now() + Duration::from_millis(6_500));
    let mut waiting: Vec<_> = (0..3)
        .map(|_| enter(&pool, source.clone(), deadline))
        .collect();
    assert!(waiting.iter_mut().all(|one| poll(one).is_pending()));
    let mut fourth = enter(&pool, source.clone(), deadline);
    let Poll::Ready(Err(refused)) = poll(&mut fourth) else {
        panic!("it waits");
    };
    let eight = Duration::from_secs(8);
    assert_eq!(
        refused,
        Refused::Busy {
            places: 2,
            waiting: 3,
            retry_after: eight
        }
    );
    // Another source has its turn after the first of these.
    let mut other = enter(&pool, from(Party::Phones, 2), deadline);
    assert!(poll(&mut other).is_pending());
    assert_eq!(pool.counts().refused, 1);
    drop(held);
}

#[tokio::test]
async fn nobody_is_told_to_come_back_at_once_or_never() {
    let refused = |length| async move {
        let pool = pool(1, 0);
        let source = from(Party::Phones, 1);
        let _held = pool.enter(&source, soon()).await.unwrap();
        pool.expect(length);
        pool.enter(&source, soon()).await.unwrap_err().retry_after()
    };
    assert_eq!(refused(Duration::ZERO).await, Duration::from_millis(100));
    assert_eq!(
        refused(Duration::from_secs(7)).await,
        Duration::from_secs(7)
    );
    assert_eq!(
        refused(Duration::from_secs(7_000)).await,
        Duration::from_secs(60)
    );
}

#[tokio::test]
async fn who_waits_past_its_deadline_is_refused_and_leaves_the_line() {
    let pool = pool(1, 9);
    let source = from(Party::Phones, 1);
    let _held = pool.enter(&source, soon()).await.unwrap();
    let (began, patience) = (Instant::now(), Duration::from_secs(2));
    let refused = pool
        .enter(&source, Some(began + patience))
        .await
        .unwrap_err();
    assert!(matches!(refused, Refused::Busy { .. }), "{refused}");
    // There is time left for the answer, and it has waited for most of the rest.
    assert!(began.elapsed() >= patience / 2);
    assert_eq!((pool.counts().waiting, pool.counts().refused), (0, 1));
}

#[tokio::test]
async fn what_is_late_from_the_start_gets_no_place_although_one_is_free() {
    let outcome = pool(1, 9)
        .enter(&from(Party::Phones, 1), Some(Instant::now()))
        .await;
    assert!(matches!(outcome, Err(Refused::Busy { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_node_that_ends_serves_who_it_can_and_lets_the_others_go() {
    let pool = pool(1, 9);
    let source = from(Party::Phones, 1);
    let held = pool.enter(&source, soon()).await.unwrap();
    let mut served = enter(&pool, source.clone(), soon());
    let mut let_go = enter(&pool, source.clone(), soon());
    assert!(poll(&mut served).is_pending() && poll(&mut let_go).is_pending());
    pool.close_at(Instant::now() + Duration::from_secs(60));
    assert!(poll(&mut served).is_pending() && poll(&mut let_go).is_pending());
    drop(held);
    let served = served.await.unwrap();
    // Sooner than it was said at first.
    pool.close_at(Instant::now());
    assert_eq!(let_go.await.unwrap_err(), Refused::Closed);
    assert_eq!(
        pool.enter(&source, soon()).await.unwrap_err(),
        Refused::Closed
    );
    // An operator's work, too, which has no deadline.
    assert_eq!(
        pool.enter(&Source::operators(), None).await.unwrap_err(),
        Refused::Closed
    );
    drop(served);
    // There is room, and whoever is here by now may still be served.
    drop(pool.enter(&source, soon()).await.unwrap());
}

#[tokio::test]
async fn more_places_are_given_to_who_waits_and_fewer_take_none_away() {
    let pool = pool(1, 9);
    let source = from(Party::Phones, 1);
    let first = pool.enter(&source, soon()).await.unwrap();
    let mut second = enter(&pool, source.clone(), soon());
    assert!(poll(&mut second).is_pending());
    pool.set_places(2);
    let second = second.await.unwrap();
    pool.set_places(1);
    let mut third = enter(&pool, source.clone(), soon());
    drop(first);
    assert!(
        poll(&mut third).is_pending(),
        "one is taken, and one is what there is"
    );
    drop(second);
    drop(third.await.unwrap());
}

#[tokio::test]
async fn the_kinds_have_places_of_their_own() {
    let admission = crate::admission::Admission::new(1);
    let source = from(Party::Phones, 1);
    let deadline = soon().unwrap();
    let mut held = Vec::new();
    for kind in crate::admission::Kind::ALL {
        held.push(admission.enter(kind, &source, deadline).await.unwrap());
        assert_eq!(admission.counts(kind).running, 1, "{}", kind.as_str());
    }
    let late = Instant::now() + Duration::from_millis(10);
    for kind in crate::admission::Kind::ALL {
        admission.enter(kind, &source, late).await.unwrap_err();
    }
    // Another limit holds for all of them, and for those that wait already.
    let waiting = crate::admission::Kind::ALL.map(|kind| {
        let (admission, source) = (admission.clone(), source.clone());
        let entering: Entering =
            Box::pin(async move { admission.enter(kind, &source, deadline).await });
        entering
    });
    let mut waiting = Vec::from(waiting);
    assert!(waiting.iter_mut().all(|one| poll(one).is_pending()));
    admission.set_places(2);
    for mut one in waiting {
        assert!(matches!(poll(&mut one), Poll::Ready(Ok(_))));
    }
}

#[tokio::test]
async fn who_holds_the_places_for_long_is_counted_in_before_it_is_through() {
    let pool = pool(1, 0);
    let source = from(Party::Phones, 1);
    let held = pool.enter(&source, soon()).await.unwrap();
    let began = Instant::now();
    pool.shared.state().began = began.checked_sub(Duration::from_secs(4)).unwrap();
    let refused = pool.enter(&source, soon()).await.unwrap_err();
    let retry = refused.retry_after();
    assert!((4..8).contains(&retry.as_secs()), "{retry:?}");
    drop(held);
}

#[tokio::test]
async fn whoever_comes_is_counted_once_and_no_count_ever_falls() {
    let pool = pool(1, 9);
    let source = from(Party::Phones, 1);
    let held = pool.enter(&source, soon()).await.unwrap();
    let mut gone = enter(&pool, source.clone(), soon());
    let mut late = enter(
        &pool,
        source.clone(),
        Some(Instant::now() + Duration::from_millis(20)),
    );
    assert!(poll(&mut gone).is_pending() && poll(&mut late).is_pending());
    // The first has its turn, and has not looked; the second gets it when that one goes away, and looks too late.
    drop(held);
    assert_eq!(pool.counts().admitted, 1);
    drop(gone);
    tokio::time::sleep(Duration::from_millis(40)).await;
    late.await.unwrap_err();
    drop(pool.enter(&source, soon()).await.unwrap());
    let counts = pool.counts();
    assert_eq!((counts.admitted, counts.refused), (2, 1));
    assert_eq!((counts.running, counts.waiting), (0, 0));
}
