//! Where a cluster's nodes can be dialled, as clusters tell one another. Pure.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::address::HostPort;

/// How many addresses a list holds: as many as an operator may give.
pub const MAX_ADDRESSES: usize = 16;
/// How far ahead of our clock the sequence of a list may be, in milliseconds: a day.
const MOST_AHEAD: u64 = 86_400_000;
/// How long one may be, in bytes: the longest name, a colon and a port.
pub const MAX_ADDRESS_BYTES: usize = 260;

/// A list with its place among those that the cluster has told before and will tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressList {
    /// Grows with each change; 0 when there has never been a list.
    pub sequence: u64,
    /// `host:port` each, the best first.
    pub addresses: Vec<String>,
}

impl AddressList {
    /// Whether this takes the place of `known`. An older one, or the same told again, never does, whatever it says.
    #[must_use]
    pub const fn replaces(&self, known: u64) -> bool {
        self.sequence > known
    }

    /// Whether it stands further ahead of our clock than clocks differ, and would outlive every list that follows it.
    /// `now` is the time in milliseconds.
    #[must_use]
    pub fn is_ahead_of(&self, now: i64) -> bool {
        self.sequence > u64::try_from(now).unwrap_or(0).saturating_add(MOST_AHEAD)
    }

    /// The list that follows this one with `addresses`, cut to what a list holds; none when it says the same. `now` is
    /// the time in milliseconds: a store that was put back from a backup goes on behind what was told meanwhile.
    #[must_use]
    pub fn next(&self, mut addresses: Vec<String>, now: i64) -> Option<Self> {
        addresses.retain(|address| address.len() <= MAX_ADDRESS_BYTES);
        let mut seen: Vec<String> = Vec::new();
        for address in addresses {
            if seen.len() < MAX_ADDRESSES && !seen.contains(&address) {
                seen.push(address);
            }
        }
        let sequence = u64::try_from(now)
            .unwrap_or(0)
            .max(self.sequence.saturating_add(1));
        (seen != self.addresses).then_some(Self {
            sequence,
            addresses: seen,
        })
    }

    /// What of it is dialled beside the operator's own addresses: what can be an address, is not among them, and leads
    /// to no place that only the sender can mean. Who gave an address of this machine gets others of it as well.
    #[must_use]
    pub fn beside(&self, operators: &[String]) -> Vec<String> {
        let near_is_meant = means_near(operators);
        let mut all: Vec<String> = Vec::new();
        for address in self.addresses.iter().take(MAX_ADDRESSES) {
            let fits = address.parse::<HostPort>().is_ok()
                && (near_is_meant || !is_near(address))
                && !operators.contains(address)
                && !all.contains(address);
            if fits {
                all.push(address.clone());
            }
        }
        all
    }
}

/// Whether an operator gave an address of this machine or this wire: what the peer tells may then lead there as well.
#[must_use]
pub fn means_near(operators: &[String]) -> bool {
    operators.iter().any(|address| is_near(address))
}

/// Whether an address is this machine, this wire, or nobody in particular, as it is written. Where a name leads is seen
/// when it is looked up.
fn is_near(address: &str) -> bool {
    let Ok(address) = address.parse::<HostPort>() else {
        return false;
    };
    match address.host.parse::<IpAddr>() {
        Ok(ip) => is_near_ip(ip),
        Err(_) => address.host.eq_ignore_ascii_case("localhost"),
    }
}

/// The same of what a name led to.
#[must_use]
pub fn is_near_ip(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.to_ipv4_mapped().is_some()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(sequence: u64, addresses: &[&str]) -> AddressList {
        AddressList {
            sequence,
            addresses: addresses.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn only_a_newer_list_replaces_one() {
        for (sequence, known, replaces) in
            [(1, 0, true), (5, 5, false), (4, 5, false), (6, 5, true)]
        {
            assert_eq!(list(sequence, &["a:1"]).replaces(known), replaces);
        }
    }

    #[test]
    fn a_list_from_the_far_future_is_told_from_one_of_a_fast_clock() {
        let day = 86_400_000;
        for (sequence, now, is_ahead) in [
            (7, 0, false),
            (9_000, 9_000, false),
            (9_000 + day, 9_000, false),
            (9_001 + day, 9_000, true),
            (u64::MAX, 9_000, true),
            (u64::MAX, i64::MAX, true),
            (day, -5, false),
        ] {
            assert_eq!(
                list(sequence, &[]).is_ahead_of(now),
                is_ahead,
                "{sequence} {now}"
            );
        }
    }

    #[test]
    fn a_list_moves_on_only_when_it_says_something_else() {
        let told = list(7, &["a:1"]);
        assert_eq!(told.next(vec!["a:1".into(), "a:1".into()], 9_000), None);
        let next = told.next(vec!["a:1".into(), "b:1".into()], 9_000).unwrap();
        assert_eq!(next, list(9_000, &["a:1", "b:1"]));
        // A clock that was set back holds up nothing.
        assert_eq!(next.next(vec![], 8_000).unwrap(), list(9_001, &[]));
        let many = (0..40).map(|n| format!("a:{}", n + 1)).collect();
        let many = told.next(many, 9_000).unwrap();
        assert_eq!(many.addresses.len(), MAX_ADDRESSES);
        let long = told.next(vec![format!("{}:1", "x".repeat(300))], 9_000);
        assert_eq!(long.unwrap().addresses.len(), 0);
    }

    #[test]
    fn what_is_learned_stands_beside_what_the_operator_gave() {
        let told = list(
            1,
            &[
                "n1.example:8444",
                "n2.example:8444",
                "n2.example:8444",
                "127.0.0.1:22",
                "localhost:22",
                "[::1]:22",
                "169.254.169.254:80",
                "[fe80::1]:22",
                "[::ffff:127.0.0.1]:22",
                "0.0.0.0:22",
                "not an address",
            ],
        );
        let given = ["n1.example:8444".to_owned()];
        assert_eq!(told.beside(&given), ["n2.example:8444"]);
        let here = ["127.0.0.1:8444".to_owned()];
        assert_eq!(list(1, &["127.0.0.1:22"]).beside(&here), ["127.0.0.1:22"]);
        assert!(list(1, &["127.0.0.1:8444"]).beside(&here).is_empty());
    }
}
