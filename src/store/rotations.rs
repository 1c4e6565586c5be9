//! Identities whose certificate is being exchanged, and how far each peer has come.
//!
//! A row is there from when somebody wants the exchange until nothing is left to be done. Whoever changes one reads it in
//! the same transaction.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    domain::{
        ids::ClusterId,
        purpose::Purpose,
        rotation::{Name, Phase, Progress, Rotation, Told},
    },
    store::{
        Transaction,
        error::Error,
        meta, peers,
        value::{Row as StoredRow, Value},
    },
};

/// How the new certificate is to be made. What is not said is as in the certificate from before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The kind of key: `p256` or `rsa`.
    pub key: Option<String>,
    /// How many days it is valid.
    pub days: Option<u32>,
    /// The names that it is for.
    #[serde(default)]
    pub names: Vec<String>,
    /// Files on the node with a certificate that is there already, and its key.
    pub files: Option<(String, String)>,
    /// Files on the node with the certificates of those who signed it.
    #[serde(default)]
    pub issuers: Vec<String>,
    /// Whether its chain may end below its root.
    #[serde(default)]
    pub may_lack_issuers: bool,
}

/// One rotation on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Of which identity.
    pub name: Name,
    /// How far it has come.
    pub rotation: Rotation,
    /// When the old certificate's validity ends; none until the new one is made.
    pub old_ends: Option<Timestamp>,
    /// How the new one is made.
    pub recipe: Recipe,
    /// Why the node can't go on, if it can't.
    pub problem: Option<String>,
    /// Since when it is in its phase.
    pub since: Timestamp,
}

impl Row {
    /// Whether the old certificate's validity is over.
    #[must_use]
    pub fn old_has_ended(&self, now: Timestamp) -> bool {
        self.old_ends.is_some_and(|ends| ends < now)
    }
}

const COLUMNS: &str = "node, purpose, phase, old_certificate, new_certificate, sequence, automatic, settled, shown, in_use, old_ends, recipe, problem, since";

/// Where the number stands under which peers were told last.
const SEQUENCE: &str = "announcement-sequence";

/// The next number for telling peers: above all before, and above `known`. By the clock (`now`, in milliseconds), so that
/// a database from before does not use one twice.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn next_sequence(tx: &mut dyn Transaction, known: u64, now: Timestamp) -> Result<u64, Error> {
    let last = meta::get(tx, SEQUENCE)?.and_then(|text| text.parse::<u64>().ok());
    let last = last.unwrap_or(0).max(known);
    let next = u64::try_from(now.as_millis())
        .unwrap_or(0)
        .max(last.saturating_add(1));
    meta::put(tx, SEQUENCE, &next.to_string())?;
    Ok(next)
}

/// All that are on record, by node and purpose.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn all(tx: &mut dyn Transaction) -> Result<Vec<Row>, Error> {
    let rows = tx.query(
        &format!("SELECT {COLUMNS} FROM rotations ORDER BY node, purpose"),
        &[],
    )?;
    rows.into_iter().map(record).collect()
}

/// That of one identity.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(tx: &mut dyn Transaction, name: &Name) -> Result<Option<Row>, Error> {
    tx.query_one(
        &format!("SELECT {COLUMNS} FROM rotations WHERE node = $1 AND purpose = $2"),
        &[(&name.node).into(), name.purpose.as_str().into()],
    )?
    .map(record)
    .transpose()
}

/// Puts one on record, or in place of the one that is.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put(tx: &mut dyn Transaction, row: &Row) -> Result<(), Error> {
    let Rotation {
        phase,
        old,
        new,
        sequence,
        automatic,
        settled,
        shown,
        in_use,
    } = &row.rotation;
    tx.execute(
        "INSERT INTO rotations (node, purpose, phase, old_certificate, new_certificate, sequence, automatic, settled,
           shown, in_use, old_ends, recipe, problem, since)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
         ON CONFLICT (node, purpose) DO UPDATE SET phase = excluded.phase,
           old_certificate = excluded.old_certificate, new_certificate = excluded.new_certificate,
           sequence = excluded.sequence, automatic = excluded.automatic, settled = excluded.settled,
           shown = excluded.shown, in_use = excluded.in_use, old_ends = excluded.old_ends,
           recipe = excluded.recipe, problem = excluded.problem, since = excluded.since",
        &[
            (&row.name.node).into(),
            row.name.purpose.as_str().into(),
            phase.as_str().into(),
            old.as_ref().into(),
            new.as_ref().into(),
            number(*sequence),
            (*automatic).into(),
            (*settled).into(),
            shown.as_ref().into(),
            in_use.as_ref().map(Value::json).transpose()?.into(),
            row.old_ends.into(),
            Value::json(&row.recipe)?,
            row.problem.clone().into(),
            row.since.into(),
        ],
    )?;
    Ok(())
}

/// Takes one off the record, with what peers have said to it; whether it was there.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn remove(tx: &mut dyn Transaction, name: &Name) -> Result<bool, Error> {
    forget_progress(tx, name)?;
    let removed = tx.execute(
        "DELETE FROM rotations WHERE node = $1 AND purpose = $2",
        &[(&name.node).into(), name.purpose.as_str().into()],
    )?;
    Ok(removed > 0)
}

/// The enabled peers, each with how far it has come; none for what peers don't see. Of whom nothing is on record while the
/// new certificate is shown has become a peer since.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn told(tx: &mut dyn Transaction, name: &Name) -> Result<Vec<Told>, Error> {
    if name.purpose == Purpose::Phone {
        return Ok(Vec::new());
    }
    let phase = tx.query_one(
        "SELECT phase FROM rotations WHERE node = $1 AND purpose = $2",
        &[(&name.node).into(), name.purpose.as_str().into()],
    )?;
    let phase: Option<Phase> = phase.map(|mut row| row.parse()).transpose()?;
    let new = Progress {
        newcomer: phase == Some(Phase::Active),
        ..Progress::default()
    };
    let mut known = on_record(tx, name)?;
    let enabled = peers::list(tx)?.into_iter().filter(|peer| peer.enabled);
    let told = enabled.map(|peer| Told {
        progress: known
            .remove(&peer.cluster_id)
            .unwrap_or_else(|| new.clone()),
        cluster: peer.cluster_id,
    });
    Ok(told.collect())
}

/// Puts every peer on record, disabled ones too: who is not, after this, has become one since.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn meet(tx: &mut dyn Transaction, name: &Name) -> Result<(), Error> {
    if name.purpose == Purpose::Phone {
        return Ok(());
    }
    let known = on_record(tx, name)?;
    for peer in peers::list(tx)? {
        if !known.contains_key(&peer.cluster_id) {
            let told = Told {
                cluster: peer.cluster_id,
                progress: Progress::default(),
            };
            put_progress(tx, name, &told)?;
        }
    }
    Ok(())
}

fn on_record(
    tx: &mut dyn Transaction,
    name: &Name,
) -> Result<BTreeMap<ClusterId, Progress>, Error> {
    let rows = tx.query(
        "SELECT cluster_id, sequence, outcome, detail, word, seen_out, seen_in, newcomer FROM rotation_peers
         WHERE node = $1 AND purpose = $2",
        &[(&name.node).into(), name.purpose.as_str().into()],
    )?;
    let mut known = BTreeMap::new();
    for mut row in rows {
        let cluster: ClusterId = row.parse()?;
        let progress = Progress {
            sequence: u64::try_from(row.int()?).unwrap_or(0),
            outcome: row.parse()?,
            detail: row.text()?,
            word: row.opt_parse()?,
            seen_out: row.flag()?,
            seen_in: row.flag()?,
            newcomer: row.flag()?,
        };
        known.insert(cluster, progress);
    }
    Ok(known)
}

/// Keeps how far a peer has come.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put_progress(tx: &mut dyn Transaction, name: &Name, told: &Told) -> Result<(), Error> {
    let Told { cluster, progress } = told;
    tx.execute(
        "INSERT INTO rotation_peers (node, purpose, cluster_id, sequence, outcome, detail, word, seen_out, seen_in, newcomer)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (node, purpose, cluster_id) DO UPDATE SET sequence = excluded.sequence,
           outcome = excluded.outcome, detail = excluded.detail, word = excluded.word,
           seen_out = excluded.seen_out, seen_in = excluded.seen_in, newcomer = excluded.newcomer",
        &[
            (&name.node).into(),
            name.purpose.as_str().into(),
            cluster.into(),
            number(progress.sequence),
            progress.outcome.as_str().into(),
            (&progress.detail).into(),
            progress.word.map(|word| word.as_str()).into(),
            progress.seen_out.into(),
            progress.seen_in.into(),
            progress.newcomer.into(),
        ],
    )?;
    Ok(())
}

/// Forgets what peers have said.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn forget_progress(tx: &mut dyn Transaction, name: &Name) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM rotation_peers WHERE node = $1 AND purpose = $2",
        &[(&name.node).into(), name.purpose.as_str().into()],
    )?;
    Ok(())
}

fn number(sequence: u64) -> Value {
    i64::try_from(sequence).unwrap_or(i64::MAX).into()
}

fn record(mut row: StoredRow) -> Result<Row, Error> {
    let node = row.text()?;
    let purpose = row.text()?;
    let name = Name {
        node,
        purpose: Purpose::from_name(&purpose).ok_or(Error::Stored {
            column: 1,
            expected: "what an identity is for",
        })?,
    };
    let rotation = Rotation {
        phase: row.parse()?,
        old: row.opt_digest()?,
        new: row.opt_digest()?,
        sequence: u64::try_from(row.int()?).unwrap_or(0),
        automatic: row.flag()?,
        settled: row.flag()?,
        shown: row.opt_digest()?,
        in_use: row.opt_json()?,
    };
    Ok(Row {
        name,
        rotation,
        old_ends: row.opt_time()?,
        recipe: row.json()?,
        problem: row.opt_text()?,
        since: row.time()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            announcement::Acceptance,
            rotation::{Outcome, Word},
        },
        store::{self, Store, peers::Peer},
    };

    fn name(purpose: Purpose) -> Name {
        Name {
            node: "n1".to_owned(),
            purpose,
        }
    }

    fn peer(id: &str, enabled: bool) -> Peer {
        Peer {
            cluster_id: ClusterId::new(id).unwrap(),
            enabled,
            allow_emcc: true,
            addresses: vec!["192.0.2.1:8444".to_owned()],
            node_names: Vec::new(),
            user_patterns: Vec::new(),
            dn_patterns: Vec::new(),
            ignore_eku: false,
            accept_announcements: Acceptance::Auto,
            description: String::new(),
        }
    }

    #[tokio::test]
    async fn a_rotation_is_kept_as_it_was_put_and_counts_the_enabled_peers() {
        let store = Store::open(&store::Config {
            url: "sqlite::memory:".to_owned(),
            node: "n1".to_owned(),
        })
        .unwrap();
        let done = store.write(|tx: &mut dyn Transaction| {
            let at = Timestamp::from_millis;
            let mut row = Row {
                name: name(Purpose::Federation),
                rotation: Rotation::requested(true, None),
                old_ends: None,
                recipe: Recipe::default(),
                problem: None,
                since: at(5),
            };
            put(tx, &row)?;
            assert_eq!(get(tx, &row.name)?, Some(row.clone()));
            assert_eq!(get(tx, &name(Purpose::Phone))?, None);
            row.rotation.made([1; 32], [2; 32], 7);
            row.old_ends = Some(at(9));
            row.rotation.in_use = Some(vec!["to tokyo".to_owned()]);
            row.recipe.files = Some(("a.pem".to_owned(), "a.key".to_owned()));
            row.problem = Some("no space".to_owned());
            put(tx, &row)?;
            assert_eq!(all(tx)?, [row.clone()]);
            assert_eq!(row.rotation.phase, Phase::Announced);

            for (id, enabled) in [("lima", true), ("oslo", false), ("tokyo", true)] {
                peers::upsert(tx, &peer(id, enabled))?;
            }
            let mut told = told(tx, &row.name)?;
            let ids: Vec<_> = told.iter().map(|t| t.cluster.as_str()).collect();
            assert_eq!(ids, ["lima", "tokyo"]);
            assert_eq!(told[1].progress, Progress::default());
            told[1].progress.answered(7, Outcome::Waiting, "ask Ana");
            told[1].progress.word = Some(Word::Overridden);
            put_progress(tx, &row.name, &told[1])?;
            assert_eq!(super::told(tx, &row.name)?, told);
            assert_eq!(super::told(tx, &name(Purpose::Phone))?, []);

            // Who is there when the new one comes to be shown is no newcomer, enabled or not.
            meet(tx, &row.name)?;
            row.rotation.activate();
            put(tx, &row)?;
            peers::upsert(tx, &peer("oslo", true))?;
            peers::upsert(tx, &peer("quito", true))?;
            let after = super::told(tx, &row.name)?;
            let new: Vec<_> = after.iter().filter(|t| t.progress.newcomer).collect();
            assert_eq!(new.len(), 1);
            assert_eq!(new[0].cluster.as_str(), "quito");
            assert_eq!(after.len(), 4);
            assert_eq!(after[3], told[1]);

            assert_eq!(next_sequence(tx, 0, at(1_000))?, 1_000);
            assert_eq!(next_sequence(tx, 0, at(1_000))?, 1_001);
            assert_eq!(next_sequence(tx, 5_000, at(1_000))?, 5_001);
            assert!(remove(tx, &row.name)? && !remove(tx, &row.name)?);
            let after = super::told(tx, &row.name)?;
            assert!(after.iter().all(|t| t.progress == Progress::default()));
            Ok::<_, Error>(())
        });
        done.await.unwrap();
    }
}
