//! TOML text → rows. Pure.

use std::{collections::BTreeMap, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use zeroize::Zeroizing;

use super::{
    cell::{Cell, Raw, Refused, SecretText},
    columns::{Column, KINDS, Kind, Part, Shape},
    csv_file::Found,
    suggest::unknown,
};

/// Reads the text of a TOML file.
pub(super) fn read(text: &str, problems: &mut Vec<Found>) -> Vec<Raw> {
    let marks = |byte: &u8| matches!(byte, b'=' | b',' | b'[' | b'{' | b'\n');
    if text.as_bytes().iter().filter(|byte| marks(byte)).count() > MAX_MARKS {
        let message = "it holds too many values for a TOML file; give what there is many of as CSV";
        problems.push((1, String::new(), message.to_owned()));
        return Vec::new();
    }
    let lines = Lines::new(text);
    // All mistakes of a large file would cost a multiple of it.
    let (table, errors) = if text.len() <= LARGE {
        let (table, errors) = DeTable::parse_recoverable(text);
        (Some(table), errors)
    } else {
        match DeTable::parse(text) {
            Ok(table) => (Some(table), Vec::new()),
            Err(error) => (None, vec![error]),
        }
    };
    for error in &errors {
        let line = lines.of(&error.span().unwrap_or(0..0));
        problems.push((line, String::new(), error.message().to_owned()));
    }
    let Some(table) = table.filter(|_| errors.is_empty()) else {
        return Vec::new();
    };
    let mut reader = Reader {
        lines,
        problems,
        rows: Vec::new(),
    };
    for (name, value) in table.into_inner() {
        reader.table(&name, value);
    }
    // The keys of a table come in the order of their names.
    reader.rows.sort_by_key(|row| row.line);
    reader.problems.sort_by_key(|problem| problem.0);
    reader.rows
}

/// Of a larger file only the first mistake in its form is told.
const LARGE: usize = 4 * 1024 * 1024;

/// What begins a value or a line: parsed, each costs some hundred bytes. 300,000 users with hashes have half as many.
const MAX_MARKS: usize = 6_000_000;

struct Reader<'a> {
    lines: Lines,
    problems: &'a mut Vec<Found>,
    rows: Vec<Raw>,
}

impl Reader<'_> {
    fn problem(&mut self, line: usize, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push((line, field.into(), message.into()));
    }

    fn table(&mut self, name: &Spanned<std::borrow::Cow<'_, str>>, value: Spanned<DeValue<'_>>) {
        let line = self.lines.of(&name.span());
        let name: &str = name.get_ref();
        let Some(kind) = Kind::named(name) else {
            let known = KINDS.iter().map(|kind| kind.name);
            return self.problem(line, name, unknown("table", name, known));
        };
        let DeValue::Array(rows) = value.into_inner() else {
            return self.problem(line, name, format!("write it as [[{name}]]"));
        };
        for row in rows {
            let line = self.lines.of(&row.span());
            match row.into_inner() {
                DeValue::Table(cells) => self.row(kind, line, cells),
                _ => self.problem(line, name, format!("write it as [[{name}]]")),
            }
        }
    }

    fn row(&mut self, kind: &'static Kind, line: usize, cells: DeTable<'_>) {
        let mut raw = Raw::new(kind, line);
        let before = self.problems.len();
        let mut refused = Vec::new();
        for (key, value) in cells {
            let (at, name) = (self.lines.of(&key.span()), key.get_ref());
            let field = format!("{}.{name}", kind.name);
            let Some(place) = kind.position(name) else {
                let known = kind.columns.iter().map(|column| column.name);
                self.problem(at, field, unknown("column", name, known));
                continue;
            };
            let (Some(column), Some(slot)) = (kind.columns.get(place), raw.cells.get_mut(place))
            else {
                continue;
            };
            match cell(column, value.into_inner()) {
                Ok(cell) => *slot = Some(cell),
                Err(rule) => {
                    refused.push(column.name);
                    self.problems.push((at, field, rule));
                }
            }
        }
        for column in kind.columns {
            let place = kind.position(column.name);
            let cell = place.and_then(|place| raw.cells.get(place));
            let is_given = cell.is_some_and(Option::is_some) || refused.contains(&column.name);
            if column.default.is_none() && !is_given {
                refused.push(column.name);
                let field = format!("{}.{}", kind.name, column.name);
                self.problem(line, field, "it must be given");
            }
        }
        if self.problems.len() > before {
            raw.refused = Refused::Columns(refused);
        }
        self.rows.push(raw);
    }
}

/// A value in the shape of its column, or what it must be: never the value itself, which may be a PIN.
fn cell(column: &Column, value: DeValue<'_>) -> Result<Cell, String> {
    match column.shape {
        Shape::Flag => match value {
            DeValue::Boolean(flag) => Ok(Cell::Flag(flag)),
            other => Err(wrong(&other, "a boolean")),
        },
        Shape::Number => number(&value).map(|number| Cell::Number(Some(number))),
        Shape::Text => text(value).map(Cell::Text),
        Shape::Secret => text(value).map(|text| Cell::Secret(SecretText(Zeroizing::new(text)))),
        Shape::List => match value {
            DeValue::Array(list) => list
                .into_iter()
                .map(|entry| text(entry.into_inner()))
                .collect::<Result<_, _>>()
                .map(Cell::List),
            other => Err(wrong(&other, "a list of strings")),
        },
        Shape::Map => match value {
            DeValue::Table(map) => map
                .into_iter()
                .map(|(name, value)| {
                    Ok((name.into_inner().into_owned(), text(value.into_inner())?))
                })
                .collect::<Result<BTreeMap<_, _>, String>>()
                .map(Cell::Map),
            other => Err(wrong(&other, "a table of strings")),
        },
        Shape::Parts(shape) => match value {
            DeValue::Array(list) => list
                .into_iter()
                .map(|entry| parts(shape, entry.into_inner()))
                .collect::<Result<_, _>>()
                .map(Cell::Parts),
            other => Err(wrong(&other, "a list of tables")),
        },
    }
}

fn parts(shape: &[Part], value: DeValue<'_>) -> Result<Vec<String>, String> {
    let mut table = match value {
        DeValue::Table(table) => table,
        other => return Err(wrong(&other, "a table")),
    };
    let mut found = Vec::with_capacity(shape.len());
    for part in shape {
        found.push(match table.remove(part.name).map(Spanned::into_inner) {
            Some(value) if part.is_number => number(&value)
                .map_err(|rule| format!("{}: {rule}", part.name))?
                .to_string(),
            Some(value) => text(value).map_err(|rule| format!("{}: {rule}", part.name))?,
            None if part.is_required => return Err(format!("{} must be given", part.name)),
            None => String::new(),
        });
    }
    match table.keys().next() {
        None => Ok(found),
        Some(odd) => {
            let known = shape.iter().map(|part| part.name);
            Err(format!(
                "{}: {}",
                odd.get_ref(),
                unknown("part", odd.get_ref(), known)
            ))
        }
    }
}

fn text(value: DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.into_owned()),
        other => Err(format!("{}; put it in quotes", wrong(&other, "a string"))),
    }
}

fn number(value: &DeValue<'_>) -> Result<u32, String> {
    let rule = || format!("it must be a whole number from 0 to {}", u32::MAX);
    match value {
        DeValue::Integer(digits) => {
            u32::from_str_radix(digits.as_str(), digits.radix()).map_err(|_| rule())
        }
        other => Err(wrong(other, "an integer")),
    }
}

fn wrong(value: &DeValue<'_>, expected: &str) -> String {
    format!("it is {}, expected {expected}", value.type_str())
}

/// Where the lines of a text begin, so that the line of a place is found without counting from the front.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(after.map(|(place, _)| place + 1).collect())
    }

    /// The line that a span begins in, from 1.
    fn of(&self, span: &Range<usize>) -> usize {
        self.0.partition_point(|start| *start <= span.start) + 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_place_is_in_the_line_that_begins_last_before_it() {
        let lines = Lines::new("a\n\nbc\n");
        let found: Vec<_> = (0..7).map(|place| lines.of(&(place..place))).collect();
        assert_eq!(found, [1, 1, 2, 3, 3, 3, 4]);
        assert_eq!(Lines::new("").of(&(0..0)), 1);
    }

    #[test]
    fn what_is_wrong_is_told_with_line_and_field_and_all_at_once() {
        let text = "[[user]]\nid = 4711\nemcc = \"yes\"\nextention = \"1\"\n\n[usr]\n\n[[profile]]\nname = \"p\"\n\
                    lines = [{ index = 1 }]\n\n[[profile]]\nname = \"q\"\nuser = \"u\"\n\
                    lines = [{ index = 1, number = \"1\", labe = \"x\" }]\n\n[device]\nname = \"d\"\n";
        let mut problems = Vec::new();
        let rows = read(text, &mut problems);
        assert!(
            rows.len() == 3 && rows.iter().all(|row| row.refused != Refused::Nothing),
            "{rows:?}"
        );
        let told: Vec<_> = problems.iter().map(|(l, f, m)| (*l, &**f, &**m)).collect();
        assert_eq!(
            told,
            [
                (
                    2,
                    "user.id",
                    "it is integer, expected a string; put it in quotes"
                ),
                (3, "user.emcc", "it is string, expected a boolean"),
                (
                    4,
                    "user.extention",
                    "there is no such column; did you mean `extension`?"
                ),
                (6, "usr", "there is no such table; did you mean `user`?"),
                (8, "profile.user", "it must be given"),
                (10, "profile.lines", "number must be given"),
                (
                    15,
                    "profile.lines",
                    "labe: there is no such part; did you mean `label`?"
                ),
                (17, "device", "write it as [[device]]"),
            ]
        );
    }

    #[test]
    fn a_file_whose_every_byte_is_a_mistake_is_told_in_few_words() {
        for (text, few) in [
            ("]\n".repeat(LARGE / 2 + 1), 1),
            ("=".repeat(MAX_MARKS + 1), 1),
        ] {
            let mut problems = Vec::new();
            assert!(read(&text, &mut problems).is_empty());
            assert_eq!(problems.len(), few);
        }
    }

    #[test]
    fn a_text_that_is_no_toml_is_told_with_its_lines() {
        let mut problems = Vec::new();
        assert!(read("[[user]]\nid = \n[[device]]\nname \n", &mut problems).is_empty());
        let lines: Vec<_> = problems.iter().map(|problem| problem.0).collect();
        assert!(lines.contains(&2) && lines.contains(&4), "{problems:?}");
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(\\[\\[user\\]\\]\n|id = |\"a\"|[={}\\[\\],1\n\"'#.])*") {
            read(&text, &mut Vec::new());
        }
    }
}
