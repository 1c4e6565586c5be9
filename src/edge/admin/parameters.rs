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
    let unknown = set.iter().filter(|s| find(&s.name).is_err());
    Ok(all.chain(unknown.map(of_another_version)).collect())
}

/// What is stored of a parameter that this version does not have.
fn of_another_version(setting: &Setting) -> pb::Parameter {
    pb::Parameter {
        name: setting.name.clone(),
        set_at: Some(setting.set_at.to_string()),
        set_by: Some(setting.set_by.clone()),
        meaning: "This version does not know it; emccd param reset takes it away.".to_owned(),
        stored: Some(setting.value.clone()),
        ..pb::Parameter::default()
    }
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
                warning: shuts_all_out(tx)?,
            })
        })
        .await
}

/// Two values that are good by themselves, and together refuse every phone.
fn shuts_all_out(tx: &mut dyn Transaction) -> Result<Option<String>, Error> {
    let all = stored::all(tx)?;
    let holds = |name: &str| {
        let setting = all.iter().find(|setting| setting.name == name);
        find(name).map(|parameter| view(parameter, setting).value)
    };
    let nobody = holds("validate-ip-address")? == "on" && holds("trusted-ips")? == "none";
    Ok(nobody.then(|| {
        "every phone of this cluster is refused now: validate-ip-address is on, and trusted-ips names nobody; name \
         them with emccd param set trusted-ips"
            .to_owned()
    }))
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
    let parameter = match find(&request.name) {
        Ok(parameter) => parameter,
        Err(unknown) => return forget(store, request.name, actor, now, unknown).await,
    };
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
                warning: shuts_all_out(tx)?,
            })
        })
        .await
}

/// Takes away what is stored of a parameter that this version does not have.
async fn forget(
    store: &Store,
    name: String,
    actor: &Actor,
    now: Timestamp,
    unknown: Error,
) -> Result<pb::ResetParameterResponse, Error> {
    let actor = actor.to_string();
    let found = store
        .write(move |tx| {
            let all = stored::all(tx)?;
            let Some(found) = all.into_iter().find(|setting| setting.name == name) else {
                return Ok::<_, Error>(None);
            };
            stored::reset(tx, &name)?;
            let by = Setting {
                set_at: now,
                set_by: actor.clone(),
                ..found.clone()
            };
            let outcome = format!(
                "taken away: this version does not know it; before: {}",
                found.value
            );
            record(tx, &by, Action::Remove(Noun::Param), outcome)?;
            Ok(Some(found))
        })
        .await?;
    let found = found.ok_or(unknown)?;
    Ok(pb::ResetParameterResponse {
        previous: found.value.clone(),
        parameter: Some(pb::Parameter {
            name: found.name,
            ..pb::Parameter::default()
        }),
        was_set: true,
        warning: None,
    })
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

/// What holds: the default also where what is stored can't be used; that is told beside it.
fn view(parameter: &Parameter, setting: Option<&Setting>) -> pb::Parameter {
    let usable = setting.and_then(|s| parameter.canonical(&s.value).ok());
    let stored = setting.filter(|_| usable.is_none());
    pb::Parameter {
        name: parameter.name.to_owned(),
        stored: stored.map(|s| s.value.clone()),
        value: usable.unwrap_or_else(|| parameter.default.to_owned()),
        default_value: parameter.default.to_owned(),
        set_at: setting.map(|s| s.set_at.to_string()),
        set_by: setting.map(|s| s.set_by.clone()),
        meaning: parameter.meaning.to_owned(),
        allowed: parameter.kind.allowed(),
        why: parameter.why.to_owned(),
        replaces: parameter.replaces.to_owned(),
        // Filled in by whoever knows the node.
        in_force: String::new(),
    }
}
