//! One user, phone, base device or profile: added, changed, removed.

use std::collections::BTreeMap;

use crate::{
    cli::{
        args::{
            BaseAdd, BaseRemove, DeviceAdd, DeviceFields, DeviceRemove, DeviceSet, Global, Profile,
            ProfileFields, UserAdd, UserFields, UserRemove, UserSet,
        },
        client::{Client, answer, connect},
        confirm::confirm,
        failure::{Failure, Outcome},
        output::{Report, record, table, yes},
        phone::read_pin,
    },
    domain::ids::UserId,
    wire::admin as pb,
};

/// Columns by name, as a CSV file would have them.
pub(super) type Columns = BTreeMap<String, String>;

/// `user add`.
///
/// # Errors
/// What the daemon refuses.
pub async fn user_add(global: &Global, args: UserAdd) -> Outcome {
    let (columns, pin) = user_columns("cannot add the user", args.fields)?;
    put(global, "user", args.user_id.to_string(), true, columns, pin).await
}

/// `user set`.
///
/// # Errors
/// What the daemon refuses.
pub async fn user_set(global: &Global, args: UserSet) -> Outcome {
    let (columns, pin) = user_columns("cannot change the user", args.fields)?;
    put(
        global,
        "user",
        args.user_id.to_string(),
        false,
        columns,
        pin,
    )
    .await
}

/// `user remove`.
///
/// # Errors
/// What the daemon refuses, and a question that was answered with no.
pub async fn user_remove(global: &Global, args: UserRemove) -> Outcome {
    let question = "The user's PIN and device profiles go too. Remove the user?";
    remove(
        global,
        "user",
        args.user_id.to_string(),
        question,
        (args.yes, args.end_sessions),
    )
    .await
}

/// `device add`.
///
/// # Errors
/// What the daemon refuses.
pub async fn device_add(global: &Global, args: DeviceAdd) -> Outcome {
    let columns = device_columns(args.fields)?;
    put(
        global,
        "device",
        args.device.to_string(),
        true,
        columns,
        None,
    )
    .await
}

/// `device set`.
///
/// # Errors
/// What the daemon refuses.
pub async fn device_set(global: &Global, args: DeviceSet) -> Outcome {
    let columns = device_columns(args.fields)?;
    put(
        global,
        "device",
        args.device.to_string(),
        false,
        columns,
        None,
    )
    .await
}

/// `device remove`.
///
/// # Errors
/// What the daemon refuses, and a question that was answered with no.
pub async fn device_remove(global: &Global, args: DeviceRemove) -> Outcome {
    let question = "Nobody can log in on it then. Remove the phone?";
    remove(
        global,
        "device",
        args.device.to_string(),
        question,
        (args.yes, args.end_sessions),
    )
    .await
}

/// `base add`.
///
/// # Errors
/// What the daemon refuses.
pub async fn base_add(global: &Global, args: BaseAdd) -> Outcome {
    let mut columns = Columns::new();
    if let Some(count) = args.count {
        columns.insert("count".to_owned(), count.to_string());
    }
    put(
        global,
        "base-device",
        args.base.to_string(),
        true,
        columns,
        None,
    )
    .await
}

/// `base remove`.
///
/// # Errors
/// What the daemon refuses, and a question that was answered with no.
pub async fn base_remove(global: &Global, args: BaseRemove) -> Outcome {
    let question = "One user less can be on a foreign phone then. Remove the base device?";
    remove(
        global,
        "base-device",
        args.base.to_string(),
        question,
        (args.yes, args.end_sessions),
    )
    .await
}

/// `profile`.
///
/// # Errors
/// What the daemon refuses, and a question that was answered with no.
pub async fn profile(global: &Global, verb: Profile) -> Outcome {
    match verb {
        Profile::List { user } => {
            let mut client = connect(global).await?;
            let all = profiles(&mut client, user.map(Into::into)).await?;
            Ok(Report::new(profiles_text(&all), &all))
        }
        Profile::Show { profile } => {
            let mut client = connect(global).await?;
            let what = format!("cannot show the profile {profile}");
            let name = profile.to_string();
            let asked = client.get_profile(pb::GetProfileRequest { name }).await;
            let found = answer(what, asked)?.profile.unwrap_or_default();
            Ok(Report::new(profile_text(&found), &found))
        }
        Profile::Add(args) => {
            let (name, columns) = (
                args.profile.to_string(),
                profile_columns(Some(args.user), args.fields),
            );
            put(global, "profile", name, true, columns, None).await
        }
        Profile::Set(args) => {
            let (name, columns) = (
                args.profile.to_string(),
                profile_columns(args.user, args.fields),
            );
            put(global, "profile", name, false, columns, None).await
        }
        Profile::Remove(args) => {
            let question = "A session that has it keeps it to its end. Remove the profile?";
            remove(
                global,
                "profile",
                args.profile.to_string(),
                question,
                (args.yes, false),
            )
            .await
        }
    }
}

pub(super) async fn put(
    global: &Global,
    kind: &str,
    name: String,
    is_new: bool,
    columns: Columns,
    pin: Option<String>,
) -> Outcome {
    let verb = if is_new { "add" } else { "change" };
    let what = format!("cannot {verb} the {} {name}", spoken(kind));
    let gives_pin = pin.is_some();
    let wanted: Option<u32> = columns.get("count").and_then(|count| count.parse().ok());
    let request = pb::PutRecordRequest {
        kind: kind.to_owned(),
        name: name.clone(),
        is_new,
        columns,
        pin,
    };
    let mut client = connect(global).await?;
    let done = answer(what, client.put_record(request).await)?;
    let text = match (wanted, done.added, done.changed) {
        (Some(wanted), 0, _) => format!(
            "added none of {wanted} {}s: {name}1 to {name}{wanted} were there already",
            spoken(kind)
        ),
        (Some(wanted), added, _) if added < wanted => format!(
            "added {added} of {wanted} {}s: the others of {name}1 to {name}{wanted} were there already",
            spoken(kind)
        ),
        (Some(wanted), _, _) => {
            format!(
                "added {wanted} {}s, {name}1 to {name}{wanted}",
                spoken(kind)
            )
        }
        (_, 0, 0) if gives_pin => format!(
            "{} {name} is so already, with that PIN; it is let in again after too many wrong ones with: \
             emccd pin unlock {name}",
            spoken(kind)
        ),
        (_, 0, 0) => format!("{} {name} is so already", spoken(kind)),
        (_, 0, _) => format!("changed {} {name}", spoken(kind)),
        (_, 1, _) => format!("added {} {name}", spoken(kind)),
        (_, many, _) => format!("added {many} {}s", spoken(kind)),
    };
    Ok(Report::new(text, &done))
}

pub(super) async fn remove(
    global: &Global,
    kind: &str,
    name: String,
    question: &str,
    (sure, end_sessions): (bool, bool),
) -> Outcome {
    let what = format!("cannot remove the {} {name}", spoken(kind));
    let mut client = connect(global).await?;
    if !sure {
        confirm(&what, &format!("{name}: {question}"))?;
    }
    let request = pb::RemoveRecordRequest {
        kind: kind.to_owned(),
        name: name.clone(),
        end_sessions,
    };
    let done = answer(what, client.remove_record(request).await)?;
    Ok(Report::new(
        format!("removed {} {name}", spoken(kind)),
        &done,
    ))
}

fn spoken(kind: &str) -> &str {
    match kind {
        "base-device" => "base device",
        other => other,
    }
}

fn user_columns(what: &str, fields: UserFields) -> Outcome<(Columns, Option<String>)> {
    let mut columns = Columns::new();
    let mut give = |name: &str, value: Option<String>| {
        columns.extend(value.map(|value| (name.to_owned(), value)));
    };
    give("name", fields.name);
    give("self-service-id", fields.self_service_id);
    give("extension", fields.extension);
    give("enabled", fields.enabled.map(|b| b.to_string()));
    give("emcc", fields.emcc.map(|b| b.to_string()));
    give("policy", fields.policy);
    let pin = if fields.ask_pin || fields.pin_file.is_some() {
        let pin = read_pin(what, fields.pin_file.as_deref())?;
        Some(pin.expose().to_owned())
    } else {
        None
    };
    Ok((columns, pin))
}

fn device_columns(fields: DeviceFields) -> Outcome<Columns> {
    let mut columns = Columns::new();
    let mut give = |name: &str, value: Option<String>| {
        columns.extend(value.map(|value| (name.to_owned(), value)));
    };
    give("model", fields.model);
    give("protocol", fields.protocol);
    give("security-mode", fields.security_mode);
    give("emcc", fields.emcc.map(|b| b.to_string()));
    give(
        "extension-mobility",
        fields.extension_mobility.map(|b| b.to_string()),
    );
    give("device-pool", fields.device_pool);
    give("locale", fields.locale);
    if !fields.geolocation.is_empty() {
        let mut parts = Vec::new();
        // One that is empty is none: so they are taken away.
        for field in fields.geolocation.iter().filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').ok_or_else(|| {
                Failure::usage(
                    "the place can't be used",
                    format!("{field} is no FIELD=VALUE"),
                    "write it as in: --geolocation country=DE",
                )
            })?;
            parts.push(format!("{}={}", plain(name), plain(value)));
        }
        give("geolocation", Some(parts.join(";")));
        give("location", Some(String::new()));
    }
    if let Some(name) = fields.location {
        give("location", Some(name));
        give("geolocation", Some(String::new()));
    }
    give("services", subscription(&fields.service));
    Ok(columns)
}

/// Services as a cell; none where nothing was given. One that is empty is none: so they are taken away.
fn subscription(services: &[String]) -> Option<String> {
    let names = services.iter().filter(|name| !name.is_empty());
    let names: Vec<_> = names.map(|name| plain(name)).collect();
    (!services.is_empty()).then(|| names.join(";"))
}

fn profile_columns(user: Option<UserId>, args: ProfileFields) -> Columns {
    let mut columns = Columns::new();
    let mut give = |name: &str, value: Option<String>| {
        columns.extend(value.map(|value| (name.to_owned(), value)));
    };
    give("user", user.map(|user| user.to_string()));
    give("default", args.default.map(|b| b.to_string()));
    give("locale", args.locale);
    give("device-pool", args.device_pool);
    give("services", subscription(&args.service));
    if !args.line.is_empty() {
        // One that is empty is none: so they are taken away.
        let lines = args.line.iter().filter(|line| !line.is_empty());
        let lines = (1..).zip(lines).map(|(index, line): (u32, _)| {
            let (number, label) = line.split_once('=').unwrap_or((line, ""));
            format!("{index}|{}|{}", plain(number), plain(label))
        });
        give("lines", Some(lines.collect::<Vec<_>>().join(";")));
    }
    columns
}

/// A text in which nothing separates.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, ';' | '|' | '=' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

async fn profiles(client: &mut Client, user_id: Option<String>) -> Outcome<Vec<pb::Profile>> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let query = pb::ListProfilesRequest {
            page_size: 0,
            page_token,
            user_id: user_id.clone(),
        };
        let page = answer(
            "cannot list the profiles",
            client.list_profiles(query).await,
        )?;
        all.extend(page.profiles);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

fn numbers(profile: &pb::Profile) -> String {
    let numbers: Vec<_> = profile.lines.iter().map(|line| &*line.number).collect();
    numbers.join(" ")
}

fn profiles_text(all: &[pb::Profile]) -> String {
    if all.is_empty() {
        return "no profiles\n\nnext: emccd profile add PROFILE --user USER".to_owned();
    }
    let rows = all.iter().map(|profile| {
        [
            profile.name.clone(),
            profile.user_id.clone(),
            yes(profile.is_default),
            numbers(profile),
            profile.device_pool.clone().unwrap_or_default(),
            profile.locale.clone().unwrap_or_default(),
        ]
    });
    table(
        [
            "PROFILE",
            "USER",
            "DEFAULT",
            "LINES",
            "DEVICE POOL",
            "LOCALE",
        ],
        rows.collect(),
    )
}

fn profile_text(profile: &pb::Profile) -> String {
    let lines: Vec<_> = profile
        .lines
        .iter()
        .map(|line| format!("{}: {} {}", line.index, line.number, line.label))
        .collect();
    record(&[
        ("profile", profile.name.clone()),
        ("user", profile.user_id.clone()),
        ("default", yes(profile.is_default)),
        ("lines", lines.join(", ")),
        (
            "device pool",
            profile.device_pool.clone().unwrap_or_default(),
        ),
        ("locale", profile.locale.clone().unwrap_or_default()),
        ("services", profile.services.join(", ")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_separate_is_plain_text() {
        assert_eq!(plain("a;b|c=d\\e"), "a\\;b\\|c\\=d\\\\e");
        let fields = ProfileFields {
            default: Some(true),
            line: vec!["4711=Anna; home".to_owned(), "4712".to_owned()],
            locale: None,
            device_pool: None,
            service: vec!["News".to_owned(), "Menu;x".to_owned()],
        };
        let columns = profile_columns(Some("anna".parse().unwrap()), fields);
        assert_eq!(columns["lines"], "1|4711|Anna\\; home;2|4712|");
        assert_eq!(columns["services"], "News;Menu\\;x");
        assert_eq!(columns["default"], "true");
        assert_eq!(subscription(&[]), None);
        assert_eq!(subscription(&[String::new()]), Some(String::new()));
    }
}
