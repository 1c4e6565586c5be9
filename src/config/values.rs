//! Single values: from what stands in the file to a typed value, or the end of a sentence that says what is
//! wrong with it.

use std::{
    net::SocketAddr,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use crate::{
    config::{
        file::{Value, quoted},
        keys::{Key, Kind},
        units::parse_duration,
    },
    domain::{address::HostPort, ids::ClusterId},
};

/// Why a value is refused: the end of a sentence that begins with the key.
pub(super) type Wrong = String;

/// Reads a value; relative paths start from the folder.
pub(super) type Read<T> = fn(&Value, &Key, &Path) -> Result<T, Wrong>;

pub(super) fn alias(value: &Value, _: &Key, _: &Path) -> Result<String, Wrong> {
    let text = text(value)?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("is no alias".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn address(value: &Value, _: &Key, _: &Path) -> Result<SocketAddr, Wrong> {
    let text = text(value)?;
    text.parse().map_err(|_| match text.parse::<HostPort>() {
        Ok(_) => "must be an IP address, since a name may stand for several".to_owned(),
        Err(_) => "must be an IP address and a port".to_owned(),
    })
}

pub(super) fn address_or_off(
    value: &Value,
    key: &Key,
    folder: &Path,
) -> Result<Option<SocketAddr>, Wrong> {
    if *value == Value::Text("off".to_owned()) {
        return Ok(None);
    }
    address(value, key, folder).map(Some)
}

pub(super) fn addresses(value: &Value, _: &Key, _: &Path) -> Result<Vec<HostPort>, Wrong> {
    let read = |text: &String| {
        text.parse()
            .map_err(|_| format!("{} is no host with a port", quoted(text)))
    };
    list(value)?.iter().map(read).collect()
}

pub(super) fn cluster_id(value: &Value, _: &Key, _: &Path) -> Result<ClusterId, Wrong> {
    ClusterId::new(text(value)?).map_err(|_| "is no cluster ID".to_owned())
}

pub(super) fn count(value: &Value, key: &Key, _: &Path) -> Result<u32, Wrong> {
    let Value::Number(number) = value else {
        return Err(format!("must be a whole number{}", found(value)));
    };
    let Kind::Count(min, max) = key.kind else {
        return Err("is not counted".to_owned());
    };
    match u32::try_from(*number) {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ if key.name == "version" && *number > i64::from(max) => {
            Err("was written for a newer emccd, or is mistyped".to_owned())
        }
        _ => Err("is out of range".to_owned()),
    }
}

pub(super) fn duration(value: &Value, key: &Key, _: &Path) -> Result<Duration, Wrong> {
    let length = match value {
        Value::Number(_) => return Err("needs a unit and quotes, for example \"5s\"".to_owned()),
        other => parse_duration(text(other)?).map_err(|e| e.to_string())?,
    };
    match key.kind {
        Kind::Duration(min, max) if (min..=max).contains(&length) => Ok(length),
        _ => Err("is out of range".to_owned()),
    }
}

pub(super) fn groups(value: &Value, _: &Key, _: &Path) -> Result<Vec<String>, Wrong> {
    let names = list(value)?;
    let is_group = |name: &&String| {
        (1..=32).contains(&name.len())
            && !name.starts_with('-')
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-$@\\ ".contains(&b))
    };
    if let Some(odd) = names.iter().find(|name| !is_group(name)) {
        return Err(format!("{} is no name of a group", quoted(odd)));
    }
    Ok(names.to_vec())
}

pub(super) fn node(value: &Value, _: &Key, _: &Path) -> Result<String, Wrong> {
    let name = text(value)?;
    if is_node(name) {
        Ok(name.to_owned())
    } else {
        Err("is no node name".to_owned())
    }
}

pub(super) fn path(value: &Value, _: &Key, folder: &Path) -> Result<PathBuf, Wrong> {
    let path = text(value)?;
    if path.trim().is_empty() || path.contains(char::is_control) {
        return Err("must be a path".to_owned());
    }
    Ok(resolve(folder, path))
}

pub(super) fn store_url(value: &Value, _: &Key, folder: &Path) -> Result<String, Wrong> {
    let url = text(value)?;
    if let Some(path) = url.strip_prefix("sqlite:") {
        return match path {
            ":memory:" => Ok(url.to_owned()),
            "" => Err("names no file after sqlite:".to_owned()),
            odd if odd.starts_with("//") || odd.contains(|c: char| c.is_control() || c == '?') => {
                Err("must have a plain path after sqlite:, without // and ?".to_owned())
            }
            path => resolve(folder, path)
                .to_str()
                .map(|path| format!("sqlite:{path}"))
                .ok_or_else(|| "is in a folder whose name is not UTF-8".to_owned()),
        };
    }
    match url.split_once(':') {
        Some((scheme, _)) if scheme.starts_with("postgres") => {
            Err("names PostgreSQL, which this version doesn't have".to_owned())
        }
        _ => Err("must begin with sqlite:".to_owned()),
    }
}

pub(super) fn word(value: &Value, key: &Key, _: &Path) -> Result<&'static str, Wrong> {
    let word = text(value)?;
    let Kind::Word(words) = key.kind else {
        return Err("is no word of a list".to_owned());
    };
    let known = words.iter().find(|w| **w == word).copied();
    known.ok_or_else(|| "is none of the words".to_owned())
}

fn text(value: &Value) -> Result<&str, Wrong> {
    match value {
        Value::Text(text) => Ok(text),
        other => Err(format!("must be a text in quotes{}", found(other))),
    }
}

fn list(value: &Value) -> Result<&[String], Wrong> {
    match value {
        Value::List(items) => Ok(items),
        other => Err(format!(
            "must be a list of texts in brackets{}",
            found(other)
        )),
    }
}

/// What was found instead, where the value itself doesn't show it.
fn found(value: &Value) -> String {
    match value {
        Value::Other(kind) => format!(", not a {kind}"),
        Value::List(_) | Value::Number(_) | Value::Text(_) => String::new(),
    }
}

pub(super) fn is_node(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The path from `folder`, without `.` parts. `..` stays: behind a link it isn't the folder above.
fn resolve(folder: &Path, path: &str) -> PathBuf {
    folder
        .join(path)
        .components()
        .filter(|part| !matches!(part, Component::CurDir))
        .collect()
}
