//! Where a name was at home when it last logged in.

use crate::{
    domain::{
        ids::{ClusterId, LoginName},
        login::LoginType,
    },
    store::{Transaction, error::Error, value::fold},
};

/// The cluster a name was last at home in.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn get(
    tx: &mut dyn Transaction,
    login_type: LoginType,
    name: &LoginName,
) -> Result<Option<ClusterId>, Error> {
    tx.query_one(
        "SELECT cluster_id FROM hints WHERE login_type = $1 AND name_key = $2",
        &[login_type.into(), name_key(login_type, name).into()],
    )?
    .map(|mut row| row.parse())
    .transpose()
}

/// Remembers where a name is at home.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn put(
    tx: &mut dyn Transaction,
    login_type: LoginType,
    name: &LoginName,
    cluster_id: &ClusterId,
) -> Result<(), Error> {
    // A hint that is already right costs no write.
    tx.execute(
        "INSERT INTO hints (login_type, name_key, cluster_id) VALUES ($1, $2, $3)
         ON CONFLICT (login_type, name_key) DO UPDATE SET cluster_id = excluded.cluster_id
         WHERE hints.cluster_id <> excluded.cluster_id",
        &[
            login_type.into(),
            name_key(login_type, name).into(),
            cluster_id.into(),
        ],
    )?;
    Ok(())
}

/// Forgets where a name was at home; whether anything was known.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn forget(
    tx: &mut dyn Transaction,
    login_type: LoginType,
    name: &LoginName,
) -> Result<bool, Error> {
    let forgotten = tx.execute(
        "DELETE FROM hints WHERE login_type = $1 AND name_key = $2",
        &[login_type.into(), name_key(login_type, name).into()],
    )?;
    Ok(forgotten > 0)
}

/// Forgets every hint that leads to a cluster; how many.
///
/// # Errors
/// [`Error`] when the store fails.
pub fn forget_cluster(tx: &mut dyn Transaction, cluster: &ClusterId) -> Result<u64, Error> {
    tx.execute("DELETE FROM hints WHERE cluster_id = $1", &[cluster.into()])
}

/// User IDs are one whatever their case; the other kinds are taken as typed.
fn name_key(login_type: LoginType, name: &LoginName) -> String {
    match login_type {
        LoginType::Uid => fold(name.as_str()),
        LoginType::SelfService | LoginType::Extension => name.as_str().to_owned(),
    }
}
