//! The allowance with a time that is told, and calls without a network.

use super::*;

const EACH: Allowance = Allowance {
    burst: 10,
    per_second: 2,
    resume: 4,
};

#[test]
fn who_wastes_more_than_it_may_is_out_until_it_has_enough_again() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut bucket = Bucket::full(EACH, start);
    for number in 0..10 {
        assert_eq!(bucket.waste(EACH, start), Left::Enough, "{number}");
    }
    assert_eq!(
        bucket.wait(EACH, start),
        None,
        "nothing left, but not beyond"
    );
    assert_eq!(bucket.waste(EACH, start), Left::JustOut);
    assert_eq!(bucket.waste(EACH, start), Left::Out);
    assert_eq!(bucket.wait(EACH, start), Some(Duration::from_secs(2)));
    // What comes back before there is enough is no new beginning.
    assert_eq!(bucket.waste(EACH, after(1)), Left::Out);
    assert!(bucket.wait(EACH, after(1)).is_some());
    assert_eq!(bucket.wait(EACH, after(3)), None);
    assert!(bucket.is_told, "the same episode");
    // A new episode, and never more than the burst.
    for _ in 0..10 {
        assert_eq!(bucket.waste(EACH, after(1_000)), Left::Enough);
    }
    assert_eq!(bucket.waste(EACH, after(1_000)), Left::JustOut);
}

#[test]
fn a_clock_that_steps_back_gives_nothing() {
    let start = Instant::now() + Duration::from_secs(60);
    let mut bucket = Bucket::full(EACH, start);
    for _ in 0..10 {
        bucket.waste(EACH, start);
    }
    let before = start.checked_sub(Duration::from_secs(30)).unwrap();
    assert_eq!(bucket.waste(EACH, before), Left::JustOut);
    assert_eq!(bucket.waste(EACH, start), Left::Out);
}

fn berlin() -> Account {
    Account::new(ClusterId::new("berlin").unwrap(), Allowances::new(EACH))
}

fn left(account: &Account) -> f64 {
    let buckets = account.inner.allowances.buckets.lock().unwrap();
    buckets
        .values()
        .next()
        .map_or(f64::NAN, |bucket| bucket.left)
}

fn answer() -> Body {
    Body::new(http_body_util::Full::new(Bytes::from_static(b"x")))
}

async fn read(body: Body) {
    http_body_util::BodyExt::collect(body).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_taken_gives_one_back() {
    let account = berlin();
    drop(account.call());
    drop(account.call());
    assert!(left(&account) < 9.0);
    read(account.call().answered(answer())).await;
    assert!(left(&account) >= 9.0);
    assert!(account.untaken().is_empty());
}

#[tokio::test]
async fn calls_without_end_that_are_given_up_end_the_connection_and_no_other_peers() {
    let account = berlin();
    let paris = Account::new(
        ClusterId::new("paris").unwrap(),
        account.inner.allowances.clone(),
    );
    for _ in 0..12 {
        // Unread, refused, taken back: all the same.
        drop(account.call().answered(answer()));
    }
    let out = account.clone();
    out.over().await;
    assert!(account.inner.is_over.is_cancelled());
    assert!(account.retry().is_some());
    paris.call().wasted();
    assert!(!paris.inner.is_over.is_cancelled());
    assert_eq!(paris.retry(), None);
}

#[tokio::test]
async fn what_went_out_just_before_a_cut_is_taken_for_wasted_up_to_what_may_be_under_way() {
    let account = berlin();
    for _ in 0..5 {
        let head_only = Body::empty();
        read(account.call().answered(head_only)).await;
    }
    assert!(left(&account).is_nan(), "nothing was wasted");
    account.cut(3);
    assert!((7.0..8.0).contains(&left(&account)));
}

#[tokio::test]
async fn what_went_out_long_before_a_cut_was_read() {
    let account = berlin();
    for _ in 0..300 {
        read(account.call().answered(answer())).await;
    }
    let later = |seconds| Instant::now() + Duration::from_secs(seconds);
    account.cut_at(256, later(10));
    account.cut_at(256, later(3_600));
    assert!(
        left(&account).is_nan(),
        "it has worked, and then it was idle"
    );
    account.cut_at(256, later(7));
    assert!(account.inner.is_over.is_cancelled());
}

#[test]
fn only_the_last_seconds_are_of_late() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut recent = Recent::new(start);
    assert_eq!(recent.count(start), 0);
    for second in 0..=20 {
        recent.add(after(second));
    }
    let counts = [20, 21, 27, 28, 29, 1_000].map(|second| recent.count(after(second)));
    assert_eq!(counts, [9, 8, 2, 1, 0, 0]);
    // A second takes the place of one that is long over.
    recent.add(after(1_000));
    recent.add(after(1_000));
    assert_eq!(recent.count(after(1_000)), 2);
}

#[test]
fn a_whole_request_that_has_waited_long_enough_is_our_own_doing() {
    let account = berlin();
    for (limit, enough) in [(50, 40), (400, 300), (1_500, 1_000), (30_000, 1_000)] {
        let mut call = account.call();
        let is_whole = call.asked(Duration::from_millis(limit));
        let asked = call.asked.as_ref().unwrap();
        let after = |milliseconds| asked.since + Duration::from_millis(milliseconds);
        assert!(!asked.is_ours(after(limit)), "never finished");
        is_whole.store(true, Ordering::Release);
        assert!(!asked.is_ours(after(enough - 1)), "taken back early");
        assert!(asked.is_ours(after(enough)));
        call.is_done = true;
    }
    // Nobody waits for an answer for 1 ms.
    let mut call = account.call();
    call.asked(Duration::from_millis(1))
        .store(true, Ordering::Release);
    let asked = call.asked.as_ref().unwrap();
    assert!(!asked.is_ours(asked.since + Duration::from_millis(1)));
    drop(call);
    assert!(left(&account) < 10.0);
}

#[test]
fn an_answer_that_is_not_read_is_no_slowness_of_ours() {
    let account = berlin();
    let mut call = account.call();
    call.asked(Duration::ZERO).store(true, Ordering::Release);
    if let Some(asked) = &mut call.asked {
        asked.enough = Duration::ZERO;
    }
    drop(call.answered(answer()));
    assert!(left(&account) < 10.0);
}

#[tokio::test]
async fn who_has_nothing_left_waits_for_its_turn() {
    let account = berlin();
    let peer = account.inner.peer.clone();
    let allowances = account.inner.allowances.clone();
    assert!(allowances.turn(&peer).await.is_none(), "nobody waits");
    for _ in 0..11 {
        drop(account.call());
    }
    let (first, second) = (allowances.turn(&peer), allowances.turn(&peer));
    let both = tokio::time::timeout(Duration::from_millis(50), async {
        tokio::join!(first, second);
    });
    assert!(both.await.is_err());
    for _ in 0..4 {
        allowances.give_back(&peer);
    }
    assert!(allowances.turn(&peer).await.is_none());
}

#[test]
fn an_answer_that_nobody_takes_is_seen() {
    let account = berlin();
    let body = account.call().answered(answer());
    assert!(account.is_stalled(Duration::ZERO));
    assert!(!account.is_stalled(Duration::from_secs(60)));
    drop(body);
    assert!(!account.is_stalled(Duration::ZERO));
}

#[tokio::test]
async fn a_stream_without_news_is_not_stalled_and_no_waste() {
    let account = berlin();
    let silent = http_body_util::StreamBody::new(futures_util::stream::pending::<
        Result<Frame<Bytes>, Status>,
    >());
    let mut body = account.call().answered(Body::new(silent));
    assert!(account.is_stalled(Duration::ZERO));
    std::future::poll_fn(|context| {
        assert!(Pin::new(&mut body).poll_frame(context).is_pending());
        Poll::Ready(())
    })
    .await;
    assert!(!account.is_stalled(Duration::ZERO));
    drop(body);
    assert!(left(&account).is_nan(), "nothing was wasted");
}
