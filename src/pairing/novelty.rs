//! Which strangers were turned away lately: what repeats is not logged again and again. Whoever finds the door may knock as
//! often as it likes.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{clock::Timestamp, trust::refusals::network};

/// How long the same from the same network is no news.
const QUIET: Duration = Duration::from_secs(60);
/// How many are remembered; while there are as many, whoever else comes is not told of.
const MOST: usize = 64;

/// Networks with what they were told, and when that was logged.
#[derive(Default)]
pub(super) struct Novelties(Mutex<BTreeMap<(IpAddr, &'static str), Timestamp>>);

impl Novelties {
    /// Whether it is to be logged that somebody at that address was turned away for that reason.
    pub(super) fn is_news(&self, address: IpAddr, reason: &'static str, now: Timestamp) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.since(*at) < QUIET);
        let key = (network(address), reason);
        if told.contains_key(&key) || told.len() >= MOST {
            return false;
        }
        told.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_reason_is_news_once_a_minute_for_each_network_and_only_so_many_are_told() {
        let (told, now) = (Novelties::default(), Timestamp::from_millis(1_000_000));
        let from = |last: u8| IpAddr::from(Ipv4Addr::new(192, 0, 2, last));
        assert!(told.is_news(from(1), "not open", now));
        assert!(!told.is_news(from(1), "not open", now.plus(QUIET / 2)));
        assert!(told.is_news(from(1), "wrong proof", now));
        assert!(told.is_news(from(2), "not open", now));
        // What one host can choose freely makes it no other one.
        let of_one = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(told.is_news(of_one("2001:db8::1"), "not open", now));
        assert!(!told.is_news(of_one("2001:db8::2"), "not open", now));
        assert!(told.is_news(from(1), "not open", now.plus(QUIET)));
        let later = now.plus(QUIET * 3);
        let news = (0..=255).filter(|last| told.is_news(from(*last), "not open", later));
        assert_eq!(news.count(), MOST);
    }
}
