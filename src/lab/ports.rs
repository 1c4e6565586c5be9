//! Free loopback ports for nodes that must keep theirs over a restart.
//!
//! They come from below the range that the system takes for outgoing connections, so that nobody takes a port
//! between its choice and its use; each is held bound until all are chosen.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, bail};
use rand::RngExt as _;

/// Chosen ports, held until this is dropped.
#[derive(Debug, Default)]
pub struct Ports {
    held: Vec<TcpListener>,
}

/// Linux gives outgoing connections ports from 32,768 on; below 10,000 well-known services live.
const RANGE: std::ops::Range<u16> = 10_000..32_000;
const ATTEMPTS: usize = 1_000;

impl Ports {
    /// Chooses one.
    ///
    /// # Errors
    /// When no port is free.
    pub fn take(&mut self) -> Result<SocketAddr> {
        for _ in 0..ATTEMPTS {
            let port = rand::rng().random_range(RANGE);
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                let address = listener.local_addr()?;
                self.held.push(listener);
                return Ok(address);
            }
        }
        bail!(
            "no free loopback port between {} and {}",
            RANGE.start,
            RANGE.end
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_and_all_are_free_afterwards() {
        let mut ports = Ports::default();
        let taken: std::collections::BTreeSet<_> = (0..50).map(|_| ports.take().unwrap()).collect();
        assert_eq!(taken.len(), 50);
        drop(ports);
        for address in taken {
            TcpListener::bind(address).unwrap();
        }
    }
}
