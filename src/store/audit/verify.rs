//! The check of all chains: each against itself, its head, the head's seal, what other nodes have seen of it, and what
//! was noted elsewhere.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::{Action, COLUMNS, Head, digest, head, read, witness};
use crate::store::{Transaction, error::Error};

/// What a check of all chains found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// One for each node, by name.
    pub chains: Vec<Chain>,
}

impl AuditReport {
    /// Whether every chain is whole.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.chains.iter().all(|chain| chain.fault.is_none())
    }
}

/// The state of one node's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Whose.
    pub node: String,
    /// Entries that are good, up to the first fault.
    pub entries: i64,
    /// The hash of the last of them.
    pub hash: [u8; 32],
    /// The first fault.
    pub fault: Option<Fault>,
}

impl Chain {
    /// What to note elsewhere, so that this chain can be held against it later.
    #[must_use]
    pub fn noted(&self) -> Noted {
        Noted {
            node: self.node.clone(),
            seq: self.entries,
            hash: self.hash,
        }
    }
}

/// What is wrong with a chain, and at which entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The entry, or the one before it, is not what was written.
    #[error("entry {0} does not match its hash")]
    Changed(i64),
    /// There is an entry before the first one.
    #[error("entry {0} was put before the first one")]
    Foreign(i64),
    /// There is nothing where something was.
    #[error("all its entries are gone, and the head with them")]
    Gone,
    /// The head's row is not that of the last entry.
    #[error("the head does not match entry {0}")]
    Head(i64),
    /// The entry is missing.
    #[error("entry {0} is missing")]
    Missing(i64),
    /// The entry is not the one that was noted elsewhere.
    #[error("entry {0} is not the one that was noted")]
    Noted(i64),
    /// The head has no good seal, so that the chain may have been cut off or written anew up to there.
    #[error("the head at entry {0} was not sealed with this cluster's pepper")]
    Seal(i64),
    /// The entry is not the one that another node saw there.
    #[error("entry {0} is not the one that another node saw there")]
    Witnessed(i64),
}

impl Fault {
    /// The entry it is about.
    #[must_use]
    pub const fn entry(self) -> i64 {
        match self {
            Self::Gone => 1,
            Self::Changed(entry)
            | Self::Foreign(entry)
            | Self::Head(entry)
            | Self::Missing(entry)
            | Self::Noted(entry)
            | Self::Seal(entry)
            | Self::Witnessed(entry) => entry,
        }
    }
}

/// A head as it was at some time: `NODE:NUMBER:HASH`, the hash in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Whose chain.
    pub node: String,
    /// The number of the entry.
    pub seq: i64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl fmt::Display for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.node, self.seq)?;
        self.hash
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text is no noted head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write NODE:NUMBER:HASH, as `emccd audit verify` shows it")]
pub struct NotNoted;

impl FromStr for Noted {
    type Err = NotNoted;

    fn from_str(text: &str) -> Result<Self, NotNoted> {
        let (node_and_seq, hex) = text.rsplit_once(':').ok_or(NotNoted)?;
        let (node, seq) = node_and_seq.rsplit_once(':').ok_or(NotNoted)?;
        let mut hash = [0; 32];
        if node.is_empty() || hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotNoted);
        }
        for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
            let digits = hex.get(at..at + 2).ok_or(NotNoted)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotNoted)?;
        }
        let seq = seq.parse().ok().filter(|seq| *seq >= 0).ok_or(NotNoted)?;
        Ok(Self {
            node: node.to_owned(),
            seq,
            hash,
        })
    }
}

// How many entries a check holds in memory at once.
const PAGE: u32 = 1_000;

/// Checks every chain from its first entry to its head, and against `noted`.
///
/// # Errors
/// [`Error`] when the store fails; a fault in a chain is no error.
pub fn verify(tx: &mut dyn Transaction, noted: &[Noted]) -> Result<AuditReport, Error> {
    // Whoever has been a node here has at least a head.
    let nodes = tx.query(
        "SELECT node FROM audit_heads UNION SELECT node FROM audit UNION SELECT name FROM nodes ORDER BY 1",
        &[],
    )?;
    let mut chains = BTreeMap::new();
    let mut faults = Vec::new();
    for mut row in nodes {
        let node = row.text()?;
        let chain = verify_chain(tx, node.clone(), &mut faults)?;
        chains.insert(node, chain);
    }
    for noted in noted {
        if !is_there(tx, noted)? {
            faults.push((noted.node.clone(), Fault::Noted(noted.seq)));
        }
    }
    if chains.is_empty() && tx.audit_key().is_some() {
        faults.push((tx.node().to_owned(), Fault::Gone));
    }
    for (node, fault) in faults {
        let chain = chains.entry(node.clone()).or_insert_with(|| Chain {
            node,
            entries: 0,
            hash: [0; 32],
            fault: None,
        });
        // What is wrong with a chain itself says more than that it isn't what somebody saw.
        if chain.fault.is_none() {
            chain.fault = Some(fault);
            chain.entries = chain.entries.min(fault.entry().saturating_sub(1).max(0));
        }
    }
    Ok(AuditReport {
        chains: chains.into_values().collect(),
    })
}

/// Whether that entry is in its chain. The beginning of a chain always is.
fn is_there(tx: &mut dyn Transaction, noted: &Noted) -> Result<bool, Error> {
    if noted.seq == 0 {
        return Ok(noted.hash == [0; 32]);
    }
    let found = tx.query_one(
        "SELECT hash FROM audit WHERE node = $1 AND seq = $2",
        &[(&noted.node).into(), noted.seq.into()],
    )?;
    Ok(match found {
        Some(mut row) => row.digest()? == noted.hash,
        None => false,
    })
}

/// The first fault of one chain by itself; what its good entries have seen of others and is not so goes to `others`.
fn verify_chain(
    tx: &mut dyn Transaction,
    node: String,
    others: &mut Vec<(String, Fault)>,
) -> Result<Chain, Error> {
    let head = head(tx, &node)?;
    let mut chain = Chain {
        node,
        entries: 0,
        hash: [0; 32],
        fault: None,
    };
    let first = tx.query_one(
        "SELECT min(seq) FROM audit WHERE node = $1 HAVING min(seq) < 1",
        &[(&chain.node).into()],
    )?;
    if let Some(mut first) = first {
        chain.fault = Some(Fault::Foreign(first.int()?));
        return Ok(chain);
    }
    loop {
        let page = tx.query(
            &format!(
                "SELECT {COLUMNS}, reference FROM audit WHERE node = $1 AND seq > $2 ORDER BY seq LIMIT $3"
            ),
            &[(&chain.node).into(), chain.entries.into(), PAGE.into()],
        )?;
        if page.is_empty() {
            break;
        }
        for mut row in page {
            let next = chain.entries.saturating_add(1);
            let entry = match read(&mut row) {
                Ok(entry) => entry,
                // An entry that can't even be read is not what was written.
                Err(Error::Stored { .. }) => {
                    chain.fault = Some(Fault::Changed(next));
                    return Ok(chain);
                }
                Err(other) => return Err(other),
            };
            // In another spelling it is the same ref, and yet is not found by it.
            let written = entry.reference.map(|reference| reference.compact());
            chain.fault = if entry.seq != next {
                Some(Fault::Missing(next))
            } else if entry.hash != digest(&entry, &chain.hash) || row.opt_text()? != written {
                Some(Fault::Changed(next))
            } else {
                None
            };
            if chain.fault.is_some() {
                return Ok(chain);
            }
            (chain.entries, chain.hash) = (entry.seq, entry.hash);
            if entry.action == Action::AuditWitness.as_str()
                && let Some(seen) = witness::seen(&entry)
                && !is_there(tx, &seen)?
            {
                others.push((seen.node, Fault::Witnessed(seen.seq)));
            }
        }
    }
    chain.fault = judge_head(head.as_ref(), &chain, tx);
    Ok(chain)
}

fn judge_head(head: Option<&Head>, chain: &Chain, tx: &dyn Transaction) -> Option<Fault> {
    match head {
        None if chain.entries == 0 => Some(Fault::Gone),
        None => Some(Fault::Head(chain.entries)),
        Some(head) if head.seq > chain.entries => {
            Some(Fault::Missing(chain.entries.saturating_add(1)))
        }
        Some(head) if (head.seq, head.hash) != (chain.entries, chain.hash) => {
            Some(Fault::Head(chain.entries))
        }
        Some(head) if !head.is_sealed(tx.audit_key(), &chain.node) => {
            Some(Fault::Seal(chain.entries))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noted_head_is_read_as_it_is_written() {
        let noted = Noted {
            node: "n1:a".to_owned(),
            seq: 17,
            hash: [0xa5; 32],
        };
        assert_eq!(noted.to_string().parse(), Ok(noted));
        let hash = "ab".repeat(32);
        for odd in [
            String::new(),
            "n1:17".to_owned(),
            format!(":17:{hash}"),
            format!("n1:-1:{hash}"),
            format!("n1:x:{hash}"),
            format!("n1:17:{hash}0"),
            format!("n1:17:{}", "+b".repeat(32)),
        ] {
            assert_eq!(odd.parse::<Noted>(), Err(NotNoted), "{odd}");
        }
    }
}
