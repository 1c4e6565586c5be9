//! Peers: the clusters we federate with.

use crate::{
    clock::Timestamp,
    domain::{address::HostPort, announcement::Acceptance, bounds::is_line, ids::ClusterId},
    store::{
        Transaction, agreements, batch,
        error::Error,
        imports, learned, meta,
        value::{Row, Value},
    },
};

/// A cluster record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which cluster.
    pub cluster_id: ClusterId,
    /// Whether we talk to it.
    pub enabled: bool,
    /// Whether its phones may carry our users.
    pub allow_emcc: bool,
    /// Where it listens: `host:port` each.
    pub addresses: Vec<String>,
    /// Names its certificates may carry under an anchor.
    pub node_names: Vec<String>,
    /// Patterns of user IDs it may claim alone.
    pub user_patterns: Vec<String>,
    /// Patterns of extensions it may claim alone.
    pub dn_patterns: Vec<String>,
    /// Whether its certificates' extended key usage is disregarded.
    pub ignore_eku: bool,
    /// What becomes of certificates that it announces.
    pub accept_announcements: Acceptance,
    /// For people.
    pub description: String,
}

/// A field of a record that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenField {
    /// The field.
    pub field: &'static str,
    /// What it must be.
    pub rule: String,
}

/// The nodes of one cluster.
const MAX_ADDRESSES: usize = 16;
/// Names or patterns of one peer.
const MAX_NAMES: usize = 64;
/// The longest DNS name.
const MAX_NAME_BYTES: usize = 253;
/// One line for people.
const MAX_DESCRIPTION_BYTES: usize = 255;

impl Peer {
    /// What of it breaks a rule. One check for all records that come from outside, so that what one way let in is
    /// not refused by another when something else of it is changed.
    #[must_use]
    pub fn broken_fields(&self) -> Vec<BrokenField> {
        let mut broken = Vec::new();
        if !(1..=MAX_ADDRESSES).contains(&self.addresses.len()) {
            broken.push(BrokenField {
                field: "addresses",
                rule: format!("1 to {MAX_ADDRESSES}"),
            });
        }
        let is_odd = |a: &&String| a.parse::<HostPort>().is_err();
        if let Some(odd) = self.addresses.iter().find(is_odd) {
            let odd: String = odd.escape_debug().take(300).collect();
            broken.push(BrokenField {
                field: "addresses",
                rule: format!(
                    "HOST:PORT each, for example emcc.tokyo.example:8444 or [2001:db8::7]:8444; `{odd}` is not"
                ),
            });
        }
        for (field, texts) in [
            ("node-names", &self.node_names),
            ("user-patterns", &self.user_patterns),
            ("dn-patterns", &self.dn_patterns),
        ] {
            let fits = |t: &String| !t.is_empty() && t.trim() == t && is_line(t, MAX_NAME_BYTES);
            if texts.len() > MAX_NAMES || !texts.iter().all(fits) {
                broken.push(BrokenField {
                    field,
                    rule: format!(
                        "at most {MAX_NAMES}, each 1 to {MAX_NAME_BYTES} bytes without blanks around them or control \
                         characters"
                    ),
                });
            }
        }
        let description = &self.description;
        if description.trim() != description || !is_line(description, MAX_DESCRIPTION_BYTES) {
            broken.push(BrokenField {
                field: "description",
                rule: format!(
                    "at most {MAX_DESCRIPTION_BYTES} bytes without blanks around it or control characters"
                ),
            });
        }
        broken
    }

    /// The fields that differ from an earlier record.
    #[must_use]
    pub fn changes_since(&self, earlier: &Self) -> Vec<FieldChange> {
        let fields = earlier.fields().into_iter().zip(self.fields());
        fields
            .filter(|((_, before), (_, after))| before != after)
            .map(|((_, before), (name, after))| FieldChange {
                name,
                before,
                after,
            })
            .collect()
    }

    fn fields(&self) -> [(&'static str, String); 9] {
        [
            ("enabled", self.enabled.to_string()),
            ("allow_emcc", self.allow_emcc.to_string()),
            ("addresses", format!("{:?}", self.addresses)),
            ("node_names", format!("{:?}", self.node_names)),
            ("user_patterns", format!("{:?}", self.user_patterns)),
            ("dn_patterns", format!("{:?}", self.dn_patterns)),
            ("ignore_eku", self.ignore_eku.to_string()),
            (
                "accept_announcements",
                self.accept_announcements.to_string(),
            ),
            ("description", format!("{:?}", self.description)),
        ]
    }
}

/// A field that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    /// Its name.
    pub name: &'static str,
    /// What it was.
    pub before: String,
    /// What it is.
    pub after: String,
}

/// Changes of fields in one line, for the audit.
#[must_use]
pub fn told(changes: &[FieldChange]) -> String {
    let told: Vec<_> = changes
        .iter()
        .map(|field| format!("{} = {}, before: {}", field.name, field.after, field.before))
        .collect();
    told.join("; ")
}

const COLUMNS: &str = "cluster_id, enabled, allow_emcc, addresses, node_names, user_patterns, dn_patterns, ignore_eku, accept_announcements, description";

/// Where the number stands that moves with every change of peers and of what is trusted.
pub const REVISION: &str = "peers-revision";

/// Adds a peer or replaces the one with the same cluster ID.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn upsert(tx: &mut dyn Transaction, peer: &Peer) -> Result<(), Error> {
    meta::bump(tx, REVISION)?;
    tx.execute(
        "INSERT INTO peers (cluster_id, enabled, allow_emcc, addresses, node_names, user_patterns, dn_patterns, ignore_eku, accept_announcements, description)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (cluster_id) DO UPDATE SET
           enabled = excluded.enabled, allow_emcc = excluded.allow_emcc, addresses = excluded.addresses,
           node_names = excluded.node_names, user_patterns = excluded.user_patterns,
           dn_patterns = excluded.dn_patterns, ignore_eku = excluded.ignore_eku,
           accept_announcements = excluded.accept_announcements, description = excluded.description",
        &[
            (&peer.cluster_id).into(),
            peer.enabled.into(),
            peer.allow_emcc.into(),
            Value::json(&peer.addresses)?,
            Value::json(&peer.node_names)?,
            Value::json(&peer.user_patterns)?,
            Value::json(&peer.dn_patterns)?,
            peer.ignore_eku.into(),
            peer.accept_announcements.as_str().into(),
            (&peer.description).into(),
        ],
    )?;
    imports::data_changed(tx)
}

/// Marks a peer as one that is being removed, until a time at which the mark lapses; or takes the mark back. Whether
/// there is such a peer. A change of its record leaves the mark as it is.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn set_leaving(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    until: Option<Timestamp>,
) -> Result<bool, Error> {
    let marked = tx.execute(
        "UPDATE peers SET leaving_until = $1 WHERE cluster_id = $2",
        &[until.into(), cluster_id.into()],
    )?;
    Ok(marked > 0)
}

/// Whether a peer is being removed: no session with it begins.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn is_leaving(
    tx: &mut dyn Transaction,
    cluster_id: &ClusterId,
    now: Timestamp,
) -> Result<bool, Error> {
    let marked = tx.query_one(
        "SELECT 1 FROM peers WHERE cluster_id = $1 AND leaving_until > $2",
        &[cluster_id.into(), now.into()],
    )?;
    Ok(marked.is_some())
}

/// The peer with this cluster ID.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(tx: &mut dyn Transaction, cluster_id: &ClusterId) -> Result<Option<Peer>, Error> {
    tx.query_one(
        &format!("SELECT {COLUMNS} FROM peers WHERE cluster_id = $1"),
        &[cluster_id.into()],
    )?
    .map(record)
    .transpose()
}

/// The peers whose cluster IDs are among `ids`; in no order.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn among(tx: &mut dyn Transaction, ids: &[String]) -> Result<Vec<Peer>, Error> {
    let select = format!("SELECT {COLUMNS} FROM peers");
    batch::among(tx, &select, "cluster_id", ids, record)
}

/// At most `limit` peers by cluster ID, from the first one behind `after`.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn page(tx: &mut dyn Transaction, after: &str, limit: u32) -> Result<Vec<Peer>, Error> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM peers WHERE cluster_id > $1 ORDER BY cluster_id LIMIT $2"),
        &[after.into(), limit.into()],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// All peers by cluster ID.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn list(tx: &mut dyn Transaction) -> Result<Vec<Peer>, Error> {
    tx.query(
        &format!("SELECT {COLUMNS} FROM peers ORDER BY cluster_id"),
        &[],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// Removes a peer, with the addresses that it told and what it said to our rotations: if it is added again it is another
/// one. Whether there was one. Its trust entries and sessions are left to the caller.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, cluster_id: &ClusterId) -> Result<bool, Error> {
    meta::bump(tx, REVISION)?;
    learned::forget(tx, cluster_id)?;
    agreements::remove(tx, cluster_id)?;
    tx.execute(
        "DELETE FROM rotation_peers WHERE cluster_id = $1",
        &[cluster_id.into()],
    )?;
    let removed = tx.execute(
        "DELETE FROM peers WHERE cluster_id = $1",
        &[cluster_id.into()],
    )?;
    imports::data_changed(tx)?;
    Ok(removed > 0)
}

fn record(mut row: Row) -> Result<Peer, Error> {
    Ok(Peer {
        cluster_id: row.parse()?,
        enabled: row.flag()?,
        allow_emcc: row.flag()?,
        addresses: row.json()?,
        node_names: row.json()?,
        user_patterns: row.json()?,
        dn_patterns: row.json()?,
        ignore_eku: row.flag()?,
        accept_announcements: row.parse()?,
        description: row.text()?,
    })
}
