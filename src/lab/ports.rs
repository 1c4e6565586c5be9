//! Free loopback ports for nodes that must keep theirs over a restart.
//!
//! Each is kept for its lab by a lock on a file in the temporary folder, also while its node is down: other labs, in
//! this process or another, don't take it. They come from below the range that the system takes for outgoing connections, so that nobody takes a port
//! between its choice and its use; each is held bound until all are chosen.

use std::{
    fs::{File, TryLockError},
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use anyhow::{Result, bail};
use rand::RngExt as _;

/// Chosen ports, kept until this is dropped.
#[derive(Debug, Default)]
pub struct Ports {
    bound: Vec<TcpListener>,
    locks: Vec<File>,
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
            let Some(lock) = lock(port)? else {
                continue;
            };
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                let address = listener.local_addr()?;
                self.bound.push(listener);
                self.locks.push(lock);
                return Ok(address);
            }
        }
        bail!(
            "no free loopback port between {} and {}",
            RANGE.start,
            RANGE.end
        )
    }

    /// Lets the nodes bind them; they stay kept.
    pub fn release(&mut self) {
        self.bound.clear();
    }
}

/// The lock of a port, unless another lab has it. The system frees it with the process.
fn lock(port: u16) -> Result<Option<File>> {
    let folder = std::env::temp_dir().join("emccd-lab-ports");
    std::fs::create_dir_all(&folder)?;
    let file = File::create(folder.join(port.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error.into()),
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
        ports.release();
        for address in &taken {
            TcpListener::bind(address).unwrap();
            assert!(
                lock(address.port()).unwrap().is_none(),
                "another lab could take it"
            );
        }
        drop(ports);
        let first = taken.first().unwrap().port();
        assert!(
            lock(first).unwrap().is_some(),
            "nobody could take it any more"
        );
    }
}
