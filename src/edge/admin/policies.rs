//! Credential policies, for looking, and one taken away.

use crate::{
    domain::{ids::PolicyName, policy::Policy},
    edge::admin::error::Error,
    store::{Store, Transaction, policies},
    wire::admin as pb,
};

/// Every policy.
///
/// # Errors
/// [`Error::Store`].
pub async fn list(store: &Store) -> Result<Vec<pb::Policy>, Error> {
    let all = store.read(|tx| policies::all(tx)).await?;
    Ok(all.into_iter().map(view).collect())
}

/// Removes a policy that nobody has; whether there was one.
///
/// # Errors
/// [`Error::Refused`] for the one of all others, and where users have it.
pub(super) fn remove(tx: &mut dyn Transaction, name: &str) -> Result<bool, Error> {
    let name = PolicyName::new(name).map_err(|e| Error::invalid("the policy", e.rule()))?;
    if name.is_of_all_others() {
        return Err(Error::refused(
            format!("{name} goes for all users who have no policy of their own"),
            format!("change what it says: emccd policy set {name} --help"),
        ));
    }
    if let Some((first, count)) = policies::holders(tx, name.as_str())? {
        return Err(Error::refused(
            format!("{count} users have it; the first is {first}"),
            format!("give each of them another one: emccd user set {first} --policy ''"),
        ));
    }
    Ok(policies::remove(tx, name.as_str())?)
}

fn view(policy: Policy) -> pb::Policy {
    let rules = policy.rules;
    pb::Policy {
        name: policy.name.into(),
        failures_before_lock: rules.failures_before_lock,
        failure_window_minutes: rules.failure_window,
        lock_duration_minutes: rules.lock_duration,
        min_length: rules.min_length,
        max_length: rules.max_length,
        trivial_check: rules.trivial_check,
    }
}
