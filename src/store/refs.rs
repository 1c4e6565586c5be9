//! The count behind the refs of a cluster: nodes take numbers in blocks, so that a ref costs no write.

use crate::store::{Transaction, error::Error, meta};

const NEXT: &str = "refs.next";
const KEY: &str = "refs.key";

/// Numbers that are one node's alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The numbers.
    pub numbers: std::ops::Range<u64>,
    /// The key of the cluster's refs.
    pub key: u64,
}

/// Takes the next `count` numbers. What a node does not use of them is lost, and does no harm. `key` becomes the
/// cluster's if it has none.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn take(tx: &mut dyn Transaction, count: u64, key: u64) -> Result<Block, Error> {
    let key = match number(tx, KEY)? {
        Some(key) => key,
        None => {
            meta::put(tx, KEY, &key.to_string())?;
            key
        }
    };
    let first = number(tx, NEXT)?.unwrap_or(0);
    let end = first.saturating_add(count);
    meta::put(tx, NEXT, &end.to_string())?;
    Ok(Block {
        numbers: first..end,
        key,
    })
}

fn number(tx: &mut dyn Transaction, name: &str) -> Result<Option<u64>, Error> {
    Ok(meta::get(tx, name)?.and_then(|text| text.parse().ok()))
}
