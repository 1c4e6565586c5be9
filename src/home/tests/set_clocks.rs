//! Wrong PINs and locks under wall clocks that are set: they go by cluster time.

use super::{expiry::DAY_MS, *};
use crate::{domain::cluster_time::Reading, store::cluster_time};

/// A lock of the policy that holds where there is no other.
fn lock_ms() -> u64 {
    u64::try_from(BUILT_IN.lock().as_millis()).unwrap()
}

impl World {
    async fn guesses(&self, wrong: u32) {
        for _ in 0..wrong {
            let login = request("ana", "00000", "SEP1");
            assert_eq!(code(self, "tokyo", &login).await, 2);
        }
    }

    /// Until when the user is told to be locked; none when the right PIN is let in.
    async fn locked(&self) -> Option<crate::clock::Timestamp> {
        let right = request("ana", "13579", "SEP1");
        match self.role.login(&from("tokyo"), &right).await {
            Ok(_) => None,
            Err(Error::Locked { until, .. }) => Some(until),
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_wall_clock_that_is_set_lets_no_locked_user_in_and_keeps_nobody_out() {
    for by in [DAY_MS, -DAY_MS] {
        let world = world(1).await;
        // Nor does it give a guesser more than the limit.
        world.guesses(BUILT_IN.failures_before_lock - 1).await;
        world.role.clock.set_offset_millis(by);
        world.guesses(1).await;
        assert!(world.locked().await.is_some(), "{by}");
        world.role.clock.set_offset_millis(0);
        assert!(world.locked().await.is_some(), "{by}: back again");
        world.role.clock.set_offset_millis(by);
        world.time_goes_on(lock_ms() - 60_000).await;
        assert!(world.locked().await.is_some(), "{by}: a minute is left");
        world.time_goes_on(60_000).await;
        assert_eq!(world.locked().await, None, "{by}");
    }
}

/// Who reads of a lock reads it by the clock on the wall.
#[tokio::test]
async fn a_lock_is_told_in_wall_time() {
    let world = world(1).await;
    let wall = world.role.clock.now();
    world
        .store
        .write(move |tx: &mut dyn Transaction| {
            let at = wall.shifted(-DAY_MS);
            cluster_time::put(tx, Reading { at, wall })
        })
        .await
        .unwrap();
    world.guesses(BUILT_IN.failures_before_lock).await;
    let until = world.locked().await.unwrap();
    let left = until.since(wall);
    let whole = BUILT_IN.lock();
    assert!(
        (whole..whole + Duration::from_secs(60)).contains(&left),
        "{left:?}"
    );
    let audit = world
        .store
        .read(|tx| store::audit::list(tx, 10))
        .await
        .unwrap();
    let told = format!("locked until {until}");
    assert!(
        audit.iter().any(|entry| entry.outcome.contains(&told)),
        "{audit:?}"
    );
}
