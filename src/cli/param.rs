//! `param`: what the whole cluster goes by.

use crate::{
    cli::{
        args::{Global, Param, ParamSet},
        client::{Client, answer, connect},
        failure::{Failure, Outcome},
        output::{Report, record, table, time},
    },
    domain::parameters,
    wire::admin as pb,
};

/// Runs one of the verbs.
///
/// # Errors
/// What the daemon refuses, and a name that is no parameter's.
pub async fn run(global: &Global, verb: Param) -> Outcome {
    let mut client = connect(global).await?;
    match verb {
        Param::List(args) => {
            let mut all = list(&mut client, "cannot list the parameters").await?;
            all.retain(|parameter| parameter.set_at.is_some() || !args.set);
            Ok(Report::new(list_text(&all), &all))
        }
        Param::Show { name } => show(&mut client, &name).await,
        Param::Set(args) => set(&mut client, args).await,
        Param::Reset { name } => reset(&mut client, name).await,
    }
}

async fn list(client: &mut Client, what: &str) -> Outcome<Vec<pb::Parameter>> {
    let asked = client.list_parameters(pb::ListParametersRequest {}).await;
    Ok(answer(what, asked)?.parameters)
}

async fn show(client: &mut Client, name: &str) -> Outcome {
    let what = format!("cannot show the parameter {name}");
    let all = list(client, &what).await?;
    match all.into_iter().find(|parameter| parameter.name == name) {
        Some(found) => Ok(Report::new(show_text(&found), &found)),
        None => Err(unknown(what, name)),
    }
}

/// The daemon doesn't have it; what is known of it here says why.
fn unknown(what: String, name: &str) -> Failure {
    let why = match parameters::find(name) {
        Ok(_) => "the daemon is of a version that does not have it".to_owned(),
        Err(error) => error.to_string(),
    };
    Failure::new(what, why, "see what there is: emccd param list")
}

async fn set(client: &mut Client, args: ParamSet) -> Outcome {
    let ParamSet { name, value } = args;
    let what = format!("cannot set {name}");
    let asked = client.set_parameter(pb::SetParameterRequest { name, value });
    let done = answer(what, asked.await)?;
    let now = done.parameter.clone().unwrap_or_default();
    let text = changed_text(&now, &done.previous);
    Ok(Report::new(warned(text, done.warning.as_deref()), &done))
}

async fn reset(client: &mut Client, name: String) -> Outcome {
    let what = format!("cannot reset {name}");
    let asked = client.reset_parameter(pb::ResetParameterRequest { name });
    let done = answer(what, asked.await)?;
    let now = done.parameter.clone().unwrap_or_default();
    let text = if done.was_set {
        changed_text(&now, &done.previous)
    } else {
        format!("{} was not set; its default is {}", now.name, now.value)
    };
    Ok(Report::new(warned(text, done.warning.as_deref()), &done))
}

fn warned(text: String, warning: Option<&str>) -> String {
    match warning {
        Some(warning) => format!("{text}\n\nwarning: {warning}"),
        None => text,
    }
}

fn changed_text(now: &pb::Parameter, previous: &str) -> String {
    let pb::Parameter { name, value, .. } = now;
    if now.allowed.is_empty() {
        return format!("{name} is taken away; it was {previous}");
    }
    if previous == value {
        return format!("{name} is {value}, as before");
    }
    format!("{name} is {value} now; it was {previous}\nin force on every node within a second")
}

fn where_set(parameter: &pb::Parameter) -> String {
    match (&parameter.set_by, &parameter.set_at) {
        (Some(by), Some(at)) => match &parameter.stored {
            Some(stored) => format!("to {stored}, not usable here, by {by}, {}", time(at)),
            None => format!("by {by}, {}", time(at)),
        },
        _ => "default".to_owned(),
    }
}

fn list_text(all: &[pb::Parameter]) -> String {
    if all.is_empty() {
        return "no parameter is set; the defaults hold\n\nnext: emccd param list".to_owned();
    }
    let rows = all.iter().map(|parameter| {
        [
            parameter.name.clone(),
            parameter.value.clone(),
            parameter.default_value.clone(),
            where_set(parameter),
        ]
    });
    table(["NAME", "VALUE", "DEFAULT", "SET"], rows.collect())
}

fn show_text(parameter: &pb::Parameter) -> String {
    if parameter.allowed.is_empty() {
        let name = parameter.name.clone();
        let fields = [("parameter", name), ("set", where_set(parameter))];
        return format!("{}\n\n{}", record(&fields), parameter.meaning);
    }
    let mut fields = vec![
        ("parameter", parameter.name.clone()),
        ("value", parameter.value.clone()),
        ("set", where_set(parameter)),
        (
            "default",
            format!("{}, because {}", parameter.default_value, parameter.why),
        ),
        ("allowed", parameter.allowed.clone()),
    ];
    if parameter.in_force != parameter.value {
        fields.push(("this node still has", parameter.in_force.clone()));
    }
    if !parameter.replaces.is_empty() {
        fields.push(("replaces", parameter.replaces.clone()));
    }
    format!("{}\n\n{}", record(&fields), parameter.meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter() -> pb::Parameter {
        pb::Parameter {
            name: "allow-proxy".to_owned(),
            value: "on".to_owned(),
            default_value: "off".to_owned(),
            set_at: Some("2026-11-22T09:30:00.000Z".to_owned()),
            set_by: Some("root".to_owned()),
            meaning: "Whether.".to_owned(),
            allowed: "on, off".to_owned(),
            why: "it is so".to_owned(),
            replaces: String::new(),
            in_force: "on".to_owned(),
            stored: None,
        }
    }

    #[test]
    fn the_list_says_what_is_set_by_whom() {
        let other = pb::Parameter {
            name: "trusted-ips".to_owned(),
            value: "none".to_owned(),
            default_value: "none".to_owned(),
            set_at: None,
            set_by: None,
            ..parameter()
        };
        assert_eq!(
            list_text(&[parameter(), other]),
            "\
NAME         VALUE  DEFAULT  SET
allow-proxy  on     off      by root, 2026-11-22 09:30:00Z
trusted-ips  none   none     default"
        );
        assert!(list_text(&[]).contains("the defaults hold"));
    }

    #[test]
    fn a_change_says_what_it_was() {
        let text = changed_text(&parameter(), "off");
        assert!(text.starts_with("allow-proxy is on now; it was off"));
        assert_eq!(
            changed_text(&parameter(), "on"),
            "allow-proxy is on, as before"
        );
    }

    #[test]
    fn what_is_shown_has_the_reason() {
        let text = show_text(&parameter());
        assert!(text.contains("default    off, because it is so"), "{text}");
        assert!(!text.contains("replaces"), "{text}");
    }
}
