//! Several tries at the same thing, begun one after another: the first that succeeds wins.

use std::{collections::VecDeque, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// How a race is run.
pub(super) struct Race<'a> {
    /// The time between the begins of two tries, unless one fails before.
    pub(super) stagger: Duration,
    /// When those give up that have neither failed nor succeeded.
    pub(super) limit: Duration,
    /// What begins all of them once more, beside those that hang; not until they have run for so long.
    pub(super) afresh: Option<(&'a Notify, Duration)>,
}

/// Runs `begin` on all of `what`. When none succeeds, gives the last error of each; none for one that hung.
/// Losers are dropped where they are.
pub(super) async fn race<I, T, E, F>(
    what: &[I],
    rules: Race<'_>,
    begin: impl Fn(I) -> F,
) -> Result<T, Vec<Option<E>>>
where
    I: Copy,
    F: Future<Output = Result<T, E>>,
{
    let started = Instant::now();
    let mut errors: Vec<Option<E>> = what.iter().map(|_| None).collect();
    let mut waiting: VecDeque<(usize, I)> = what.iter().copied().enumerate().collect();
    let mut tries = FuturesUnordered::new();
    let mut next = started;
    let mut round = started;
    // Consumed only when it is acted on: what comes too late is for whoever waits next.
    let mut woken = false;
    while !(waiting.is_empty() && tries.is_empty()) {
        tokio::select! {
            biased;
            Some((place, outcome)) = tries.next() => match outcome {
                Ok(won) => return Ok(won),
                Err(error) => {
                    if let Some(slot) = errors.get_mut(place) {
                        *slot = Some(error);
                    }
                    next = Instant::now();
                }
            },
            () = sleep_until(started + rules.limit) => break,
            () = sleep_until(next), if !waiting.is_empty() => {
                if let Some((place, one)) = waiting.pop_front() {
                    let running = begin(one);
                    tries.push(async move { (place, running.await) });
                }
                next = Instant::now() + rules.stagger;
            }
            () = called(rules.afresh), if !woken => woken = true,
            () = later(round, rules.afresh), if woken => {
                woken = false;
                round = Instant::now();
                next = round;
                waiting = what.iter().copied().enumerate().collect();
            }
        }
    }
    if let (true, Some((notify, _))) = (woken, rules.afresh) {
        notify.notify_one();
    }
    Err(errors)
}

async fn called(afresh: Option<(&Notify, Duration)>) {
    match afresh {
        Some((notify, _)) => notify.notified().await,
        None => std::future::pending().await,
    }
}

async fn later(round: Instant, afresh: Option<(&Notify, Duration)>) {
    match afresh {
        Some((_, after)) => sleep_until(round + after).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        future::pending,
    };

    use tokio::time::sleep;

    use super::*;

    const STAGGER: Duration = Duration::from_millis(40);
    const LIMIT: Duration = Duration::from_millis(400);
    /// What a busy machine may take for nothing.
    const SLACK: Duration = Duration::from_millis(250);

    fn assert_took(began: Instant, least: Duration) {
        let took = began.elapsed();
        assert!(least <= took && took < least + SLACK, "{took:?}");
    }

    fn rules() -> Race<'static> {
        Race {
            stagger: STAGGER,
            limit: LIMIT,
            afresh: None,
        }
    }

    #[tokio::test]
    async fn those_that_hang_cost_the_stagger_and_no_more() {
        let began = Instant::now();
        let won = race(&[0, 1, 2, 3], rules(), |n| async move {
            if n < 3 {
                pending::<()>().await;
            }
            Ok::<_, ()>(n)
        });
        assert_eq!(won.await, Ok(3));
        assert_took(began, STAGGER * 3);
    }

    #[tokio::test]
    async fn a_failure_begins_the_next_at_once_and_the_first_success_wins() {
        let begun = RefCell::new(Vec::new());
        let rules = Race {
            stagger: Duration::from_secs(3_600),
            limit: Duration::from_secs(3_600),
            afresh: None,
        };
        let won = race(&[0, 1, 2], rules, |n| {
            begun.borrow_mut().push(n);
            async move {
                match n {
                    0 => Err(()),
                    1 => {
                        sleep(STAGGER).await;
                        Ok(n)
                    }
                    _ => Ok(n),
                }
            }
        });
        assert_eq!(won.await, Ok(1));
        assert_eq!(*begun.borrow(), [0, 1]);
    }

    #[tokio::test]
    async fn all_give_up_at_the_limit_and_each_tells_its_error() {
        let began = Instant::now();
        let lost = race(&[0, 1], rules(), |n| async move {
            if n == 1 {
                pending::<()>().await;
            }
            Err::<(), _>(n)
        });
        assert_eq!(lost.await, Err(vec![Some(0), None]));
        assert_took(began, LIMIT);
        let none: [u8; 0] = [];
        let lost = race(&none, rules(), |_| async { Err::<(), ()>(()) });
        assert_eq!(lost.await, Err(Vec::new()));
    }

    #[tokio::test]
    async fn a_call_begins_afresh_what_hangs_but_not_what_was_just_begun() {
        let notify = Notify::new();
        let after = LIMIT / 4;
        let rules = || Race {
            afresh: Some((&notify, after)),
            ..rules()
        };
        let began = Instant::now();
        let count = Cell::new(0);
        notify.notify_one();
        let won = race(&[()], rules(), |()| {
            count.set(count.get() + 1);
            let nth = count.get();
            async move {
                if nth == 1 {
                    pending::<()>().await;
                }
                Ok::<_, ()>(nth)
            }
        });
        assert_eq!(won.await, Ok(2));
        assert_took(began, after);

        // One that came too late to be acted on is kept for the pause that follows.
        notify.notify_one();
        let lost = race(&[()], rules(), |()| async {
            tokio::task::yield_now().await;
            Err::<(), _>(())
        });
        assert_eq!(lost.await, Err(vec![Some(())]));
        let kept = tokio::time::timeout(Duration::ZERO, notify.notified());
        assert!(kept.await.is_ok());
    }
}
