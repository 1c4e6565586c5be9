//! One value of a row, and how it is written in TOML and in CSV. Pure.

use std::{collections::BTreeMap, fmt, fmt::Write as _};

use zeroize::Zeroizing;

use super::columns::{Kind, Part, Shape};

/// A value in the shape of its column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Yes or no.
    Flag(bool),
    /// Texts.
    List(Vec<String>),
    /// Texts by name.
    Map(BTreeMap<String, String>),
    /// A whole number; none where no number stands for "not given".
    Number(Option<u32>),
    /// Small tables: their parts in the order of the shape, numbers as their digits.
    Parts(Vec<Vec<String>>),
    /// A secret.
    Secret(SecretText),
    /// Text.
    Text(String),
}

/// Text that is wiped, and never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(pub Zeroizing<String>);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// A row as it was read: where it stands, and a cell for each column that was given.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Its kind.
    pub kind: &'static Kind,
    /// Its first line, from 1.
    pub line: usize,
    /// In the order of the kind's columns.
    pub cells: Vec<Option<Cell>>,
    /// What of it was refused already; its name still tells that there is such a row.
    pub refused: Refused,
}

/// What of a row was refused as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Refused {
    /// Nothing.
    #[default]
    Nothing,
    /// The cells of these columns, or something that is no column's.
    Columns(Vec<&'static str>),
    /// All of it: which cell is which column's can't be told.
    Whole,
}

impl Raw {
    /// A row with nothing in it yet.
    #[must_use]
    pub fn new(kind: &'static Kind, line: usize) -> Self {
        Self {
            kind,
            line,
            cells: vec![None; kind.columns.len()],
            refused: Refused::Nothing,
        }
    }

    /// Takes the cell of a column, or its default. `None` where it must be given and is not, or where it was
    /// refused and said so.
    pub fn take(&mut self, column: &str) -> Option<Cell> {
        let place = self.kind.position(column)?;
        if let Some(cell) = self.cells.get_mut(place).and_then(Option::take) {
            return Some(cell);
        }
        let column = self.kind.columns.get(place)?;
        read_csv(column.shape, column.default?).ok()
    }
}

/// Reads a cell as CSV has it.
///
/// # Errors
/// What it must be. Never the text itself.
pub fn read_csv(shape: Shape, text: &str) -> Result<Cell, String> {
    match shape {
        Shape::Text => Ok(Cell::Text(text.to_owned())),
        Shape::Secret => Ok(Cell::Secret(SecretText(Zeroizing::new(text.to_owned())))),
        Shape::Flag => match text {
            _ if text.eq_ignore_ascii_case("true") => Ok(Cell::Flag(true)),
            _ if text.eq_ignore_ascii_case("false") => Ok(Cell::Flag(false)),
            _ => Err("it must be true or false".to_owned()),
        },
        Shape::Number if text.is_empty() => Ok(Cell::Number(None)),
        Shape::Number => number(text).map(|n| Cell::Number(Some(n))),
        Shape::List => Ok(Cell::List(
            split(text, ';').into_iter().map(plain).collect(),
        )),
        Shape::Map => read_map(text),
        Shape::Parts(parts) => split(text, ';')
            .into_iter()
            .map(|entry| read_parts(parts, entry))
            .collect::<Result<_, _>>()
            .map(Cell::Parts),
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("it must be a whole number from 0 to {}", u32::MAX))
}

fn read_map(text: &str) -> Result<Cell, String> {
    let mut map = BTreeMap::new();
    for entry in split(text, ';') {
        let halves = split(entry, '=');
        let [name, value] = halves.as_slice() else {
            return Err("it must be name=value, with `;` between several".to_owned());
        };
        if map.insert(plain(name), plain(value)).is_some() {
            return Err("a name must not be given twice".to_owned());
        }
    }
    Ok(Cell::Map(map))
}

fn read_parts(parts: &[Part], entry: &str) -> Result<Vec<String>, String> {
    let given = split(entry, '|');
    let least = parts.iter().filter(|part| part.is_required).count();
    if given.len() < least || given.len() > parts.len() {
        let names: Vec<_> = parts.iter().map(|part| part.name).collect();
        return Err(format!(
            "an entry must be {}, with `;` between several",
            names.join("|")
        ));
    }
    let mut cells = Vec::with_capacity(parts.len());
    for (place, part) in parts.iter().enumerate() {
        let text = plain(given.get(place).copied().unwrap_or_default());
        if part.is_number {
            cells.push(
                number(&text)
                    .map_err(|rule| format!("{}: {rule}", part.name))?
                    .to_string(),
            );
        } else {
            cells.push(text);
        }
    }
    Ok(cells)
}

/// The pieces between separators that have no `\` before them; none of an empty text.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut pieces = Vec::new();
    if text.is_empty() {
        return pieces;
    }
    let (mut begin, mut is_plain) = (0, false);
    for (place, character) in text.char_indices() {
        if is_plain {
            is_plain = false;
        } else if character == '\\' {
            is_plain = true;
        } else if character == separator {
            pieces.push(text.get(begin..place).unwrap_or_default());
            begin = place + separator.len_utf8();
        }
    }
    pieces.push(text.get(begin..).unwrap_or_default());
    pieces
}

/// The text that an escaped one stands for.
fn plain(text: impl AsRef<str>) -> String {
    let mut out = String::with_capacity(text.as_ref().len());
    let mut is_plain = false;
    for character in text.as_ref().chars() {
        if character == '\\' && !is_plain {
            is_plain = true;
        } else {
            out.push(character);
            is_plain = false;
        }
    }
    out
}

fn escaped(out: &mut String, text: &str, special: &[char]) {
    for character in text.chars() {
        if character == '\\' || special.contains(&character) {
            out.push('\\');
        }
        out.push(character);
    }
}

/// Writes a cell as CSV has it, not yet quoted.
#[must_use]
pub fn csv(cell: &Cell) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::new());
    match cell {
        Cell::Flag(flag) => *out = flag.to_string(),
        Cell::Number(number) => *out = number.map(|n| n.to_string()).unwrap_or_default(),
        Cell::Text(text) => out.push_str(text),
        Cell::Secret(text) => out.push_str(&text.0),
        Cell::List(list) => {
            for (place, text) in list.iter().enumerate() {
                if place > 0 {
                    out.push(';');
                }
                escaped(&mut out, text, &[';']);
            }
        }
        Cell::Map(map) => {
            for (place, (name, value)) in map.iter().enumerate() {
                if place > 0 {
                    out.push(';');
                }
                escaped(&mut out, name, &[';', '=']);
                out.push('=');
                escaped(&mut out, value, &[';', '=']);
            }
        }
        Cell::Parts(entries) => {
            for (place, entry) in entries.iter().enumerate() {
                if place > 0 {
                    out.push(';');
                }
                for (place, text) in entry.iter().enumerate() {
                    if place > 0 {
                        out.push('|');
                    }
                    escaped(&mut out, text, &[';', '|']);
                }
            }
        }
    }
    out
}

/// Writes a cell as a TOML value.
pub fn toml(out: &mut String, shape: Shape, cell: &Cell) {
    match cell {
        Cell::Flag(flag) => {
            let _ = write!(out, "{flag}");
        }
        Cell::Number(number) => {
            let _ = write!(out, "{}", number.unwrap_or_default());
        }
        Cell::Text(text) => toml_text(out, text),
        Cell::Secret(text) => toml_text(out, &text.0),
        Cell::List(list) => separated(out, ('[', ']'), list, |out, text| toml_text(out, text)),
        Cell::Map(map) => {
            let entries: Vec<_> = map.iter().collect();
            separated(out, ('{', '}'), &entries, |out, (name, value)| {
                toml_text(out, name);
                out.push_str(" = ");
                toml_text(out, value);
            });
        }
        Cell::Parts(entries) => {
            let Shape::Parts(parts) = shape else { return };
            separated(out, ('[', ']'), entries, |out, entry| {
                let entry: Vec<_> = parts.iter().zip(entry).collect();
                separated(out, ('{', '}'), &entry, |out, (part, text)| {
                    let _ = write!(out, "{} = ", part.name);
                    if part.is_number {
                        out.push_str(text);
                    } else {
                        toml_text(out, text);
                    }
                });
            });
        }
    }
}

fn separated<T>(
    out: &mut String,
    (open, close): (char, char),
    entries: &[T],
    mut write: impl FnMut(&mut String, &T),
) {
    out.push(open);
    for (place, entry) in entries.iter().enumerate() {
        out.push_str(match (place, open) {
            (0, '{') => " ",
            (0, _) => "",
            _ => ", ",
        });
        write(out, entry);
    }
    if open == '{' && !entries.is_empty() {
        out.push(' ');
    }
    out.push(close);
}

fn toml_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            _ if character.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{super::columns::PROFILE, *};

    const LINE: Shape = PROFILE.columns[3].shape;

    #[test]
    fn escapes_make_plain_characters_of_separators() {
        assert_eq!(
            read_csv(Shape::List, r"a\;b;c\\;d"),
            Ok(Cell::List(vec!["a;b".into(), r"c\".into(), "d".into()]))
        );
        assert_eq!(
            read_csv(Shape::Map, r"a\=b=c;d="),
            Ok(Cell::Map(BTreeMap::from([
                ("a=b".into(), "c".into()),
                ("d".into(), String::new())
            ])))
        );
        assert_eq!(
            read_csv(LINE, "1|4100|Anna;02|4101"),
            Ok(Cell::Parts(vec![
                vec!["1".into(), "4100".into(), "Anna".into()],
                vec!["2".into(), "4101".into(), String::new()]
            ]))
        );
    }

    #[test]
    fn what_has_not_the_shape_is_refused_without_being_repeated() {
        for (shape, text) in [
            (Shape::Flag, "yes 24680"),
            (Shape::Number, "-24680"),
            (Shape::Number, "24680.5"),
            (Shape::Map, "24680"),
            (Shape::Map, "a=1;a=24680"),
            (LINE, "24680"),
            (LINE, "x24680|1"),
            (LINE, "1|2|3|24680"),
        ] {
            let rule = read_csv(shape, text).unwrap_err();
            assert!(
                rule.contains("must") && !rule.contains("24680"),
                "{text}: {rule}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_cell_can_be_read_back_from_csv(
            list in vec(".{1,8}", 0..4), map in proptest::collection::btree_map(".{1,4}", ".{0,4}", 0..4),
            lines in vec((any::<u32>(), ".{0,4}", ".{0,4}"), 0..4)
        ) {
            let lines = lines.into_iter().map(|(index, number, label)| vec![index.to_string(), number, label]);
            for (shape, cell) in [
                (Shape::List, Cell::List(list)),
                (Shape::Map, Cell::Map(map)),
                (LINE, Cell::Parts(lines.collect())),
            ] {
                prop_assert_eq!(read_csv(shape, &csv(&cell)), Ok(cell));
            }
        }
    }
}
