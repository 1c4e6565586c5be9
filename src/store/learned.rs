//! Addresses that clusters tell one another: our own list, and what each peer told of its nodes.
//!
//! What a peer told stands apart from its record, which is the operator's alone; it goes with the record.

use std::collections::BTreeMap;

use crate::{
    domain::{address_list::AddressList, ids::ClusterId},
    store::{Transaction, error::Error, meta, peers, value::Value},
};

/// Where our own list stands.
const OWN: &str = "own-addresses";
/// Where that of a peer stands, with its cluster ID behind it.
const OF_PEER: &str = "learned-addresses ";

/// The list that we tell our peers.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn own(tx: &mut dyn Transaction) -> Result<AddressList, Error> {
    Ok(meta::get(tx, OWN)?
        .map(|text| read(&text))
        .unwrap_or_default())
}

/// Has us tell these addresses from now on; whether that is news. `now` is in milliseconds.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn tell(tx: &mut dyn Transaction, addresses: Vec<String>, now: i64) -> Result<bool, Error> {
    let Some(next) = own(tx)?.next(addresses, now) else {
        return Ok(false);
    };
    put(tx, OWN, &next)?;
    Ok(true)
}

/// Keeps what a peer told, if it is newer than what it told before and says something else, and there is a record of
/// that peer; whether it did.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn learn(
    tx: &mut dyn Transaction,
    cluster: &ClusterId,
    told: &AddressList,
) -> Result<bool, Error> {
    let key = key_of(cluster);
    let known = meta::get(tx, &key)?.map_or_else(AddressList::default, |text| read(&text));
    let is_news = told.replaces(known.sequence) && told.addresses != known.addresses;
    if !is_news || peers::get(tx, cluster)?.is_none() {
        return Ok(false);
    }
    put(tx, &key, told)?;
    meta::bump(tx, peers::REVISION)?;
    Ok(true)
}

/// What each peer has told.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn all(tx: &mut dyn Transaction) -> Result<BTreeMap<ClusterId, AddressList>, Error> {
    // Names have no character behind `~`.
    let rows = tx.query(
        "SELECT name, value FROM meta WHERE name >= $1 AND name < $2",
        &[OF_PEER.into(), "learned-addresses~".into()],
    )?;
    let mut all = BTreeMap::new();
    for mut row in rows {
        let (name, value) = (row.text()?, row.text()?);
        let cluster = name.strip_prefix(OF_PEER).unwrap_or_default();
        if let Ok(cluster) = ClusterId::new(cluster) {
            all.insert(cluster, read(&value));
        }
    }
    Ok(all)
}

/// Forgets what a peer told.
///
/// # Errors
/// [`Error`] when the store fails.
pub(super) fn forget(tx: &mut dyn Transaction, cluster: &ClusterId) -> Result<(), Error> {
    let key = key_of(cluster);
    tx.execute("DELETE FROM meta WHERE name = $1", &[(&key).into()])?;
    Ok(())
}

fn key_of(cluster: &ClusterId) -> String {
    format!("{OF_PEER}{cluster}")
}

fn put(tx: &mut dyn Transaction, key: &str, list: &AddressList) -> Result<(), Error> {
    let Value::Text(text) = Value::json(list)? else {
        return Ok(());
    };
    meta::put(tx, key, &text)
}

/// One that can't be read is none: it is told anew.
fn read(text: &str) -> AddressList {
    serde_json::from_str(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{self, Store, peers::Peer};

    fn cluster(id: &str) -> ClusterId {
        ClusterId::new(id).unwrap()
    }

    fn list(sequence: u64, addresses: &[&str]) -> AddressList {
        AddressList {
            sequence,
            addresses: addresses.iter().map(ToString::to_string).collect(),
        }
    }

    #[tokio::test]
    async fn what_a_peer_told_is_kept_until_it_tells_anew_or_its_record_goes() {
        let config = store::Config {
            url: "sqlite::memory:".to_owned(),
            node: "n1".to_owned(),
        };
        let store = Store::open(&config).unwrap();
        let done = store.write(|tx: &mut dyn Transaction| {
            let berlin = cluster("berlin");
            assert!(
                !learn(tx, &berlin, &list(9, &["a:1"]))?,
                "there is no record of it"
            );
            for id in ["berlin", "berlin2"] {
                let peer = Peer {
                    cluster_id: cluster(id),
                    enabled: true,
                    allow_emcc: true,
                    addresses: vec!["a:1".to_owned()],
                    node_names: Vec::new(),
                    user_patterns: Vec::new(),
                    dn_patterns: Vec::new(),
                    ignore_eku: false,
                    accept_announcements: crate::domain::announcement::Acceptance::default(),
                    description: String::new(),
                };
                peers::upsert(tx, &peer)?;
                assert!(learn(tx, &peer.cluster_id, &list(5, &["b:1"]))?);
            }
            let revision = meta::get(tx, peers::REVISION)?;
            // Told again, or from before: nothing changes, and no node looks.
            assert!(!learn(tx, &berlin, &list(5, &["c:1"]))?);
            assert!(!learn(tx, &berlin, &list(4, &[]))?);
            // The same under ever new numbers is no news either.
            for sequence in 6..1_000 {
                assert!(!learn(tx, &berlin, &list(sequence, &["b:1"]))?);
            }
            assert_eq!(meta::get(tx, peers::REVISION)?, revision);
            assert_eq!(all(tx)?.len(), 2);
            assert_eq!(all(tx)?[&berlin], list(5, &["b:1"]));
            assert!(learn(tx, &berlin, &list(6, &[]))?);
            assert_ne!(meta::get(tx, peers::REVISION)?, revision);
            assert_eq!(all(tx)?[&berlin], list(6, &[]));
            peers::remove(tx, &berlin)?;
            assert_eq!(
                all(tx)?.into_keys().collect::<Vec<_>>(),
                [cluster("berlin2")]
            );
            // Our own list is none of theirs.
            assert!(tell(tx, vec!["x:1".to_owned()], 7)?);
            assert!(!tell(tx, vec!["x:1".to_owned()], 8)?);
            assert_eq!(own(tx)?, list(7, &["x:1"]));
            assert_eq!(all(tx)?.len(), 1);
            Ok::<_, Error>(())
        });
        done.await.unwrap();
    }
}
