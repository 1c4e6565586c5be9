//! The text of a configuration file, taken apart: known keys with their line, and what can't be a setting.
//!
//! It knows names and shapes only; what a value means is for the check.

use std::{collections::BTreeMap, fmt};

use serde::{Serialize as _, Serializer};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::config::{
    keys::{self, KEYS, MOVED, SECTIONS},
    problem::Problem,
};

/// A value as written. TOML has more kinds; none of our keys needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A list of strings.
    List(Vec<String>),
    /// A whole number.
    Number(i64),
    /// Something that no key takes, by the name of its type.
    Other(&'static str),
    /// A string.
    Text(String),
}

impl Value {
    /// Reads a literal as it stands on the right of `=`.
    #[must_use]
    pub fn from_literal(literal: &str) -> Self {
        DeValue::parse(literal).map_or(Self::Other("broken literal"), |v| Self::of(v.get_ref()))
    }

    fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
                .map_or(Self::Other("number of more than 64 bits"), Self::Number),
            DeValue::Array(items) => items
                .iter()
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .map_or(Self::Other("list of other things than strings"), Self::List),
            DeValue::Boolean(_) => Self::Other("boolean"),
            DeValue::Datetime(_) => Self::Other("date"),
            DeValue::Float(_) => Self::Other("fraction"),
            DeValue::Table(_) => Self::Other("table"),
        }
    }
}

/// A TOML literal as the text, number or list that it stands for.
pub(super) fn literal_as_value<S: Serializer>(
    literal: &Option<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match literal.as_deref().map(Value::from_literal) {
        None => serializer.serialize_none(),
        Some(Value::List(items)) => serializer.collect_seq(items),
        Some(Value::Number(number)) => serializer.serialize_i64(number),
        Some(Value::Text(text)) => serializer.serialize_str(&text),
        Some(Value::Other(_)) => literal.serialize(serializer),
    }
}

impl fmt::Display for Value {
    /// Writes it as TOML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|i| quoted(i)).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Self::Number(number) => write!(f, "{number}"),
            Self::Other(kind) => write!(f, "a {kind}"),
            Self::Text(text) => f.write_str(&quoted(text)),
        }
    }
}

/// A text as a TOML string.
#[must_use]
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A known key that the file gives.
#[derive(Clone, Debug)]
pub struct Given {
    /// Its line, from 1.
    pub line: usize,
    /// What stands on the right.
    pub value: Value,
}

/// The known keys of a file by full name, and what else was found in it.
#[derive(Debug, Default)]
pub struct Parsed {
    /// By full name.
    pub given: BTreeMap<&'static str, Given>,
    /// Syntax errors, or unknown keys.
    pub problems: Vec<Problem>,
}

/// Takes a text apart. Where the syntax is broken only that is reported, since the rest would be guesses.
#[must_use]
pub fn parse(text: &str) -> Parsed {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut parsed = Parsed::default();
    if errors.is_empty() {
        parsed.walk(text, "", table.get_ref());
        return parsed;
    }
    parsed.problems = errors
        .iter()
        .map(|e| {
            let line = e.span().map(|span| line_of(text, span.start));
            Problem::new("", format!("not TOML: {}", one_line(e.message()))).on_line(line)
        })
        .collect();
    parsed
}

impl Parsed {
    fn walk(&mut self, text: &str, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let line = line_of(text, name.span().start);
            let full = keys::join(section, name.get_ref());
            match (value.get_ref(), is_section(&full), keys::find(&full)) {
                (DeValue::Table(inner), true, _) => self.walk(text, &full, inner),
                (_, true, _) => self.problems.push(
                    Problem::new(&full, format!("must be a section, written [{full}]"))
                        .on_line(Some(line)),
                ),
                (_, false, Some(key)) => {
                    let value = Value::of(value.get_ref());
                    self.given.insert(key.name, Given { line, value });
                }
                (_, false, None) => self.problems.push(
                    moved(&full, line).unwrap_or_else(|| unknown(section, &full, line, value)),
                ),
            }
        }
    }
}

/// What is no setting of a node any more, with where it went.
fn moved(full: &str, line: usize) -> Option<Problem> {
    let (_, instead) = MOVED.iter().find(|(key, _)| *key == full)?;
    let next = format!("take the line out: {instead}");
    let problem = Problem::new(full, "is no setting of a node any more");
    Some(problem.on_line(Some(line)).with_suggestion(Some(next)))
}

/// The value is not shown: what stands under an unknown key may be a secret.
fn unknown(section: &str, full: &str, line: usize, value: &Spanned<DeValue<'_>>) -> Problem {
    let (what, suggestion) = if value.get_ref().is_table() {
        (
            "unknown section",
            nearest_section(full).map(|s| format!("did you mean [{s}]?")),
        )
    } else {
        (
            "unknown key",
            nearest_key(section, full).map(|k| format!("did you mean {k}?")),
        )
    };
    Problem::new(printable(full), what)
        .on_line(Some(line))
        .with_suggestion(suggestion)
}

/// How alike two names must be (0 to 1) for one to be offered for the other: a slip or two, no more.
const ALIKE: f64 = 0.8;

/// The key of the same section that was probably meant, or else the keys of that very name elsewhere.
fn nearest_key(section: &str, full: &str) -> Option<String> {
    let wanted = normal(keys::last(full));
    let here = KEYS
        .iter()
        .filter(|key| keys::section_of(key.name) == section)
        .map(|key| {
            (
                key.name,
                strsim::jaro_winkler(keys::last(key.name), &wanted),
            )
        })
        .filter(|(_, score)| *score >= ALIKE)
        .max_by(|a, b| a.1.total_cmp(&b.1));
    if let Some((name, _)) = here {
        return Some(name.to_owned());
    }
    let elsewhere: Vec<_> = KEYS
        .iter()
        .map(|key| key.name)
        .filter(|name| keys::last(name) == wanted)
        .collect();
    (!elsewhere.is_empty()).then(|| elsewhere.join(" or "))
}

fn nearest_section(full: &str) -> Option<&'static str> {
    let wanted = normal(full);
    SECTIONS
        .iter()
        .filter(|s| !s.name.is_empty())
        .map(|s| (s.name, strsim::jaro_winkler(s.name, &wanted)))
        .filter(|(_, score)| *score >= ALIKE)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(name, _)| name)
}

fn is_section(full: &str) -> bool {
    SECTIONS.iter().any(|s| s.name == full)
}

/// Names that people write with capitals or underscores are still recognised.
fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// A name from the file, safe to print on one line.
fn printable(name: &str) -> String {
    let safe: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
    if safe.is_empty() {
        "\"\"".to_owned()
    } else {
        safe
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.iter().filter(|b| **b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        parse(text)
            .problems
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn known_keys_are_found_with_their_line() {
        let parsed = parse("version = 1\n\n[login]\ndeadline = \"5s\"\n");
        let given = parsed.given.get("login.deadline").unwrap();
        assert_eq!(
            (given.line, &given.value),
            (4, &Value::Text("5s".to_owned()))
        );
        assert!(parsed.problems.is_empty());
    }

    #[test]
    fn dotted_and_inline_forms_are_the_same_keys() {
        for text in ["login.deadline = \"5s\"", "login = { deadline = \"5s\" }"] {
            assert!(parse(text).given.contains_key("login.deadline"), "{text}");
        }
    }

    #[test]
    fn an_unknown_key_gets_a_suggestion_and_its_value_is_not_shown() {
        assert_eq!(
            problems("[federation]\nheart-beat = \"hunter2\"\n"),
            ["line 2: federation.heart-beat: unknown key; did you mean federation.heartbeat?"]
        );
        assert_eq!(
            problems("cluster_id = \"a\""),
            ["line 1: cluster_id: unknown key; did you mean cluster-id?"]
        );
        assert_eq!(
            problems("heartbeat = \"5s\""),
            ["line 1: heartbeat: unknown key; did you mean federation.heartbeat?"]
        );
        assert_eq!(problems("zebra = 1"), ["line 1: zebra: unknown key"]);
    }

    #[test]
    fn an_unknown_section_is_reported_once() {
        assert_eq!(
            problems("[federetion]\nlisten = \"a\"\nheartbeat = 1\n"),
            ["line 1: federetion: unknown section; did you mean [federation]?"]
        );
    }

    #[test]
    fn a_section_must_be_a_table() {
        assert_eq!(
            problems("login = 5"),
            ["line 1: login: must be a section, written [login]"]
        );
    }

    #[test]
    fn broken_syntax_names_the_line() {
        let found = problems("version = 1\ncluster-id = \"a\n");
        assert!(
            found.iter().all(|p| p.starts_with("line 2: not TOML: ")),
            "{found:?}"
        );
        assert!(!found.is_empty());
        assert!(!problems("a = 1\na = 2\n").is_empty());
    }

    #[test]
    fn odd_values_are_told_by_their_type() {
        let value = |literal| Value::from_literal(literal);
        assert_eq!(value("0x10"), Value::Number(16));
        assert_eq!(value("1_000"), Value::Number(1000));
        assert_eq!(value("true"), Value::Other("boolean"));
        assert_eq!(value("1.5"), Value::Other("fraction"));
        assert_eq!(
            value("[1]"),
            Value::Other("list of other things than strings")
        );
        assert_eq!(
            value("99999999999999999999"),
            Value::Other("number of more than 64 bits")
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]a-z=\"\\n.{}0-9é ]{0,80}") {
            let _ = parse(&text);
        }
    }
}
