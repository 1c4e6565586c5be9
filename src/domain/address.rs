//! Addresses by name. Pure.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::Serialize;

/// A host, by name or IP address, and a port: `node1.example.org:8444`, `[2001:db8::1]:8444`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct HostPort {
    /// A DNS name, or an IP address without brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

/// A text that is no `host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a host and a port, for example node1.example.org:8444")]
pub struct InvalidHostPort;

impl FromStr for HostPort {
    type Err = InvalidHostPort;
    fn from_str(text: &str) -> Result<Self, InvalidHostPort> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidHostPort)?;
        let port = parse_port(port).ok_or(InvalidHostPort)?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(inner) if matches!(inner.parse(), Ok(IpAddr::V6(_))) => inner,
            Some(_) => return Err(InvalidHostPort),
            None if is_host(host) && !host.contains(':') => host,
            None => return Err(InvalidHostPort),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl From<HostPort> for String {
    fn from(address: HostPort) -> Self {
        address.to_string()
    }
}

/// Whether `text` is an IP address or a DNS name (labels of letters, digits and inner dashes).
#[must_use]
pub fn is_host(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    // A last label of digits only would be read as a broken IPv4 address by others.
    let numeric_end = text
        .rsplit('.')
        .next()
        .is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label) && !numeric_end
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for good in [
            "node1.example.org:8444",
            "10.0.0.1:1",
            "[2001:db8::1]:8444",
            "localhost:65535",
        ] {
            let parsed: HostPort = good.parse().unwrap();
            assert_eq!(parsed.to_string(), good);
        }
        for bad in [
            "node1",
            "node1:",
            ":8444",
            "node1:0",
            "node1:65536",
            "node1:+5",
            "2001:db8::1:8444",
            "[node1]:8444",
            "a b:1",
            "-a:1",
            "https://node1:8444",
            "10.0.0.256:1",
            "[::1]x:1",
        ] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<HostPort>();
        }
    }
}
