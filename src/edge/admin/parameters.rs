//! The cluster's parameters: what holds, who has set it, and changes of it.

use crate::{
    clock::Timestamp,
    domain::parameters::{self, Parameter, Parameters, TABLE},
    edge::admin::{error::Error, roles::Actor},
    store::{
        Store, Transaction,
        audit::{self, Action, Noun},
        parameters::{self as stored, Setting},
    },
    wire::admin as pb,
};

/// Every parameter, in the order of the table.
///
/// # Errors
/// [`Error::Store`].
pub async fn list(store: &Store, in_force: &Parameters) -> Result<Vec<pb::Parameter>, Error> {
    let set = store.read(|tx| stored::all(tx)).await?;
    let all = TABLE.iter().map(|parameter| {
        let setting = set.iter().find(|s| s.name == parameter.name);
        pb::Parameter {
            in_force: parameter.value(in_force),
            ..view(parameter, setting)
        }
    });
    Ok(all.collect())
}

/// Sets one; the value before it is the answer's. Setting it to what holds already changes nothing.
///
/// # Errors
/// [`Error::Refused`] when there is no such parameter or the value is none for it.
pub async fn set(
    store: &Store,
    request: pb::SetParameterRequest,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::SetParameterResponse, Error> {
    let parameter = find(&request.name)?;
    let value = parameter
        .canonical(&request.value)
        .map_err(|error| refused(&error))?;
    let setting = Setting {
        name: parameter.name.to_owned(),
        value,
        set_at: now,
        set_by: actor.to_string(),
    };
    store
        .write(move |tx| {
            let before = current(tx, parameter)?;
            let previous = view(parameter, before.as_ref()).value;
            if stored::set(tx, &setting)? {
                let outcome = format!("{}, before: {previous}", setting.value);
                record(tx, &setting, Action::Set(Noun::Param), outcome)?;
            }
            let stands = current(tx, parameter)?;
            Ok(pb::SetParameterResponse {
                parameter: Some(view(parameter, stands.as_ref())),
                previous,
            })
        })
        .await
}

/// Takes a setting back.
///
/// # Errors
/// [`Error::Refused`] when there is no such parameter.
pub async fn reset(
    store: &Store,
    request: pb::ResetParameterRequest,
    actor: &Actor,
    now: Timestamp,
) -> Result<pb::ResetParameterResponse, Error> {
    let parameter = find(&request.name)?;
    let setting = Setting {
        name: parameter.name.to_owned(),
        value: parameter.default.to_owned(),
        set_at: now,
        set_by: actor.to_string(),
    };
    store
        .write(move |tx| {
            let before = current(tx, parameter)?;
            let previous = view(parameter, before.as_ref()).value;
            let was_set = stored::reset(tx, parameter.name)?;
            if was_set {
                let outcome = format!("{}, the default, before: {previous}", setting.value);
                record(tx, &setting, Action::Remove(Noun::Param), outcome)?;
            }
            Ok(pb::ResetParameterResponse {
                parameter: Some(view(parameter, None)),
                previous,
                was_set,
            })
        })
        .await
}

/// The answer with what the node goes by.
pub fn seen_from_node(found: Option<pb::Parameter>, all: &Parameters) -> Option<pb::Parameter> {
    let mut found = found?;
    if let Ok(parameter) = find(&found.name) {
        found.in_force = parameter.value(all);
    }
    Some(found)
}

fn find(name: &str) -> Result<&'static Parameter, Error> {
    parameters::find(name).map_err(|error| refused(&error))
}

fn refused(error: &parameters::Error) -> Error {
    let next = match error {
        parameters::Error::LeftOut(_) | parameters::Error::Unknown { .. } => {
            "see what there is: emccd param list".to_owned()
        }
        parameters::Error::Value { name, .. } => {
            format!("see what it may be: emccd param show {name}")
        }
    };
    Error::refused(error.to_string(), next)
}

fn current(tx: &mut dyn Transaction, parameter: &Parameter) -> Result<Option<Setting>, Error> {
    let all = stored::all(tx)?;
    Ok(all.into_iter().find(|s| s.name == parameter.name))
}

fn record(
    tx: &mut dyn Transaction,
    setting: &Setting,
    action: Action,
    outcome: String,
) -> Result<(), Error> {
    let entry = audit::Entry {
        at: setting.set_at,
        actor: setting.set_by.clone(),
        action,
        subject: setting.name.clone(),
        outcome,
        reference: None,
    };
    Ok(audit::append(tx, &entry)?)
}

/// What holds: the default also where what is stored can't be used.
fn view(parameter: &Parameter, setting: Option<&Setting>) -> pb::Parameter {
    let usable = setting.and_then(|s| parameter.canonical(&s.value).ok().map(|value| (s, value)));
    pb::Parameter {
        name: parameter.name.to_owned(),
        value: usable
            .as_ref()
            .map_or_else(|| parameter.default.to_owned(), |(_, value)| value.clone()),
        default_value: parameter.default.to_owned(),
        set_at: usable.as_ref().map(|(s, _)| s.set_at.to_string()),
        set_by: usable.as_ref().map(|(s, _)| s.set_by.clone()),
        meaning: parameter.meaning.to_owned(),
        allowed: parameter.kind.allowed(),
        why: parameter.why.to_owned(),
        replaces: parameter.replaces.to_owned(),
        // Filled in by whoever knows the node.
        in_force: String::new(),
    }
}
