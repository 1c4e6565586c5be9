//! The cluster's parameters: the rows of those that somebody has set, and the values in force on this node.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{
    clock::Timestamp,
    domain::parameters::Parameters,
    store::{Transaction, error::Error, imports, meta, value::Row},
};

/// A parameter that somebody has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value, as [`Parameter::canonical`](crate::domain::parameters::Parameter::canonical) gives it.
    pub value: String,
    /// When it was set.
    pub set_at: Timestamp,
    /// By whom.
    pub set_by: String,
}

/// Where the number stands that moves with every change of a parameter.
pub const REVISION: &str = "parameters-revision";

/// All that were set, by name.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn all(tx: &mut dyn Transaction) -> Result<Vec<Setting>, Error> {
    tx.query(
        "SELECT name, value, set_at, set_by FROM parameters ORDER BY name",
        &[],
    )?
    .into_iter()
    .map(record)
    .collect()
}

/// What one is set to; none while its default holds.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(tx: &mut dyn Transaction, name: &str) -> Result<Option<String>, Error> {
    tx.query_one(
        "SELECT value FROM parameters WHERE name = $1",
        &[name.into()],
    )?
    .map(|mut row| row.text())
    .transpose()
}

/// Whether sessions end when a right to them is lost, as the store has it: what a node goes by may be older than the
/// change that it is asked for.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn ends_sessions_on_revocation(tx: &mut dyn Transaction) -> Result<bool, Error> {
    const NAME: &str = "end-sessions-on-revocation";
    let set = get(tx, NAME)?;
    let (stored, _) = Parameters::from_stored(set.iter().map(|value| (NAME, value.as_str())));
    Ok(stored.end_sessions_on_revocation)
}

/// Sets a parameter; whether its value is another one than before. Setting it to what it is changes nothing,
/// neither the time nor the name beside it.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn set(tx: &mut dyn Transaction, setting: &Setting) -> Result<bool, Error> {
    if get(tx, &setting.name)?.as_ref() == Some(&setting.value) {
        return Ok(false);
    }
    meta::bump(tx, REVISION)?;
    imports::data_changed(tx)?;
    tx.execute(
        "INSERT INTO parameters (name, value, set_at, set_by) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name) DO UPDATE SET
           value = excluded.value, set_at = excluded.set_at, set_by = excluded.set_by",
        &[
            (&setting.name).into(),
            (&setting.value).into(),
            setting.set_at.into(),
            (&setting.set_by).into(),
        ],
    )?;
    Ok(true)
}

/// Takes a setting back, so that the default holds; whether there was one.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn reset(tx: &mut dyn Transaction, name: &str) -> Result<bool, Error> {
    let removed = tx.execute("DELETE FROM parameters WHERE name = $1", &[name.into()])?;
    if removed > 0 {
        meta::bump(tx, REVISION)?;
        imports::data_changed(tx)?;
    }
    Ok(removed > 0)
}

/// Whether the sessions of a user end who is removed, as it stands in the store.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn ends_sessions(tx: &mut dyn Transaction) -> Result<bool, Error> {
    let all = all(tx)?;
    let stored = all.iter().map(|s| (s.name.as_str(), s.value.as_str()));
    Ok(Parameters::from_stored(stored).0.end_sessions_on_revocation)
}

/// The parameters in force on one node. Cheap to clone; all clones see the same.
#[derive(Clone, Debug, Default)]
pub struct Live {
    now: Arc<ArcSwap<Parameters>>,
}

impl Live {
    /// With these in force.
    #[must_use]
    pub fn new(parameters: Parameters) -> Self {
        Self {
            now: Arc::new(ArcSwap::from_pointee(parameters)),
        }
    }

    /// Those in force. Whoever takes several decisions for one request looks once.
    #[must_use]
    pub fn load(&self) -> Arc<Parameters> {
        self.now.load_full()
    }

    /// Puts others in force, for whoever looks from now on.
    pub fn publish(&self, parameters: Parameters) {
        self.now.store(Arc::new(parameters));
    }
}

fn record(mut row: Row) -> Result<Setting, Error> {
    Ok(Setting {
        name: row.text()?,
        value: row.text()?,
        set_at: row.time()?,
        set_by: row.text()?,
    })
}
