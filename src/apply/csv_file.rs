//! CSV text → rows. Pure.
//!
//! Cells are slices of the text or are wiped: one of them may be a PIN.

use std::{borrow::Cow, collections::BTreeSet};

use zeroize::Zeroize as _;

use super::{
    cell::{self, Raw, Refused},
    columns::Kind,
    suggest::closest,
};

/// What is wrong, before the file's name is known: the line, the column, the message.
pub(super) type Found = (usize, String, String);

/// Takes what is read as it is read, so that a file's rows are not in memory twice.
pub(super) trait Sink {
    /// Takes a problem.
    fn refuse(&mut self, found: Found);

    /// Takes a row; false when no more of them are read.
    fn row(&mut self, raw: Raw) -> bool;
}

/// Reads the text of a CSV file of this kind.
pub(super) fn read(text: &str, kind: &'static Kind, sink: &mut dyn Sink) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut records = Records::new(text);
    let Some((line, names)) = records.find(|(_, cells)| holds_something(cells)) else {
        let message = "the first line must name the columns".to_owned();
        return sink.refuse((1, String::new(), message));
    };
    let mut problems = Vec::new();
    let columns = header(kind, line, &names, &mut problems);
    if !problems.is_empty() {
        return problems.into_iter().for_each(|found| sink.refuse(found));
    }
    for (line, cells) in records.by_ref() {
        // Spreadsheets leave such lines at the end.
        if holds_something(&cells) {
            let raw = row(kind, &columns, line, cells, sink);
            if !sink.row(raw) {
                return;
            }
        }
    }
    if let Some(line) = records.open_quote {
        let message = "the `\"` that opens here is never closed";
        sink.refuse((line, String::new(), message.to_owned()));
    }
}

fn holds_something(cells: &[Cow<'_, str>]) -> bool {
    cells.len() >= MAX_CELLS || cells.iter().any(|cell| !cell.trim().is_empty())
}

/// Which column each place of a line is.
fn header(
    kind: &'static Kind,
    line: usize,
    names: &[Cow<'_, str>],
    problems: &mut Vec<Found>,
) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let mut columns = Vec::new();
    let mut found = Vec::new();
    for (number, name) in (1..).zip(names) {
        let name = name.trim().to_ascii_lowercase();
        match kind.position(&name) {
            None => found.push(no_column(kind, line, number, &name)),
            Some(place) if !seen.insert(place) => {
                let field = format!("{}.{name}", kind.name);
                found.push((line, field, "the column is named twice".to_owned()));
            }
            Some(place) => columns.push(place),
        }
    }
    if seen.is_empty() {
        let names: Vec<_> = kind.columns.iter().map(|column| column.name).collect();
        let message = format!(
            "the first line must name the columns, some of: {}",
            names.join(", ")
        );
        problems.push((line, kind.name.to_owned(), message));
        return columns;
    }
    problems.append(&mut found);
    for (place, column) in kind.columns.iter().enumerate() {
        if column.default.is_none() && !seen.contains(&place) {
            let field = format!("{}.{}", kind.name, column.name);
            problems.push((line, field, "the column must be there".to_owned()));
        }
    }
    columns
}

/// What to say of a name that no column has. It may be a PIN, where the first line is a row: so it is repeated only
/// where it is nearly a column's name.
fn no_column(kind: &Kind, line: usize, number: usize, name: &str) -> Found {
    let known = kind.columns.iter().map(|column| column.name);
    let is_word = |name: &str| {
        let mut letters = name.bytes();
        name.len() <= MAX_NAME_BYTES && letters.all(|b| b.is_ascii_lowercase() || b == b'-')
    };
    match Some(name)
        .filter(|name| is_word(name))
        .and_then(|name| closest(name, known))
    {
        Some(meant) => (
            line,
            format!("{}.{name}", kind.name),
            format!("there is no such column; did you mean `{meant}`?"),
        ),
        None => (
            line,
            kind.name.to_owned(),
            format!("there is no column with the name in cell {number} of the first line"),
        ),
    }
}

/// Longer than any column's name.
const MAX_NAME_BYTES: usize = 40;

fn row(
    kind: &'static Kind,
    columns: &[usize],
    line: usize,
    cells: Vec<Cow<'_, str>>,
    sink: &mut dyn Sink,
) -> Raw {
    let mut raw = Raw::new(kind, line);
    let is_whole = cells.len() == columns.len();
    if !is_whole {
        let message = format!(
            "there are {} cells, and the first line names {} columns",
            cells.len(),
            columns.len()
        );
        sink.refuse((line, kind.name.to_owned(), message));
    }
    let mut refused = Vec::new();
    for (place, cell) in columns.iter().zip(cells) {
        let (Some(column), Some(slot)) = (kind.columns.get(*place), raw.cells.get_mut(*place))
        else {
            continue;
        };
        let read = if cell.is_empty() {
            match column.default {
                Some(_) => Ok(None),
                None => Err("it must be given".to_owned()),
            }
        } else {
            cell::read_csv(column.shape, &cell).map(Some)
        };
        match read {
            Ok(read) => *slot = read,
            // Of a row that lacks a cell nobody knows which column each is.
            Err(_) if !is_whole => {}
            Err(rule) => {
                refused.push(column.name);
                sink.refuse((line, format!("{}.{}", kind.name, column.name), rule));
            }
        }
        wipe(cell);
    }
    raw.refused = match (is_whole, refused.is_empty()) {
        (false, _) => Refused::Whole,
        (true, true) => Refused::Nothing,
        (true, false) => Refused::Columns(refused),
    };
    raw
}

fn wipe(cell: Cow<'_, str>) {
    if let Cow::Owned(mut text) = cell {
        text.zeroize();
    }
}

/// The lines of cells, each with the number of the line that it begins in.
struct Records<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    separator: u8,
    /// Where a quote was opened that the text does not close.
    open_quote: Option<usize>,
}

impl<'a> Records<'a> {
    fn new(text: &'a str) -> Self {
        let mut records = Self {
            text,
            at: 0,
            line: 1,
            separator: b',',
            open_quote: None,
        };
        let mut first = records.first_line();
        while first.trim().is_empty() && !records.rest().is_empty() {
            records.at += first.len();
            records.end_of_line();
            first = records.first_line();
        }
        // As spreadsheets say it.
        let declared = first
            .get(..4)
            .filter(|word| word.eq_ignore_ascii_case("sep="));
        let declared = declared.and_then(|_| first.get(4..)).map(str::as_bytes);
        if let Some([separator @ (b',' | b';' | b'\t')]) = declared {
            records.separator = *separator;
            records.at += first.len();
        } else if let Some(separator) = first.bytes().find(|b| matches!(b, b',' | b';' | b'\t')) {
            records.separator = separator;
        }
        records
    }

    fn first_line(&self) -> &'a str {
        self.rest().lines().next().unwrap_or_default()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Goes on behind an end of line, if one is here.
    fn end_of_line(&mut self) -> bool {
        let rest = self.rest();
        let length = if rest.starts_with("\r\n") {
            2
        } else {
            usize::from(rest.starts_with(['\n', '\r']))
        };
        self.at += length;
        self.line += usize::from(length > 0);
        length > 0
    }

    fn cell(&mut self) -> Cow<'a, str> {
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        let rest = self.rest();
        let ends = |b: u8| b == self.separator || matches!(b, b'\n' | b'\r');
        let length = rest.bytes().position(ends).unwrap_or(rest.len());
        self.at += length;
        Cow::Borrowed(rest.get(..length).unwrap_or_default())
    }

    /// A cell that stands in quotes, and what follows them up to the separator.
    fn quoted(&mut self) -> Cow<'a, str> {
        let opened = self.line;
        self.at += 1;
        // As large as it can get: text that moves to a larger place leaves a copy behind.
        let room = self.rest().find('"').unwrap_or_default();
        let mut cell = String::with_capacity(room);
        let mut is_plain = true;
        loop {
            let rest = self.rest();
            let Some(length) = rest.find('"') else {
                self.open_quote = Some(opened);
                self.at = self.text.len();
                return Cow::Borrowed("");
            };
            let piece = rest.get(..length).unwrap_or_default();
            self.line += piece.matches('\n').count();
            self.at += length + 1;
            let is_twice = self.rest().starts_with('"');
            if is_plain && !is_twice {
                let tail = self.unquoted_tail();
                if tail.is_empty() {
                    return Cow::Borrowed(piece);
                }
                return Cow::Owned([piece, tail].concat());
            }
            let mut longer = String::with_capacity(cell.len() + piece.len() + 1);
            longer.push_str(&cell);
            longer.push_str(piece);
            cell.zeroize();
            cell = longer;
            if is_twice {
                cell.push('"');
                self.at += 1;
                is_plain = false;
            } else {
                cell.push_str(self.unquoted_tail());
                return Cow::Owned(cell);
            }
        }
    }

    fn unquoted_tail(&mut self) -> &'a str {
        let rest = self.rest();
        let ends = |b: u8| b == self.separator || matches!(b, b'\n' | b'\r');
        let length = rest.bytes().position(ends).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (usize, Vec<Cow<'a, str>>);

    fn next(&mut self) -> Option<Self::Item> {
        // Blank lines are no rows.
        while self.end_of_line() {}
        if self.rest().is_empty() {
            return None;
        }
        let line = self.line;
        let mut cells = Vec::new();
        loop {
            let cell = self.cell();
            // No kind has so many columns, and a line of separators must not cost a multiple of itself.
            if cells.len() < MAX_CELLS {
                cells.push(cell);
            } else {
                wipe(cell);
            }
            if self.open_quote.is_some() {
                return None;
            }
            if self.rest().as_bytes().first() == Some(&self.separator) {
                self.at += 1;
            } else {
                self.end_of_line();
                return Some((line, cells));
            }
        }
    }
}

/// Cells of one line that are looked at.
const MAX_CELLS: usize = 256;

/// Writes one line of cells.
pub(super) fn write_line<'a>(out: &mut String, cells: impl Iterator<Item = &'a str>) {
    for (place, cell) in cells.enumerate() {
        if place > 0 {
            out.push(',');
        }
        let must_quote = cell.contains([',', ';', '\t', '"', '\n', '\r'])
            || cell.trim() != cell
            || cell.starts_with('\u{feff}');
        if must_quote {
            out.push('"');
            for (place, piece) in cell.split('"').enumerate() {
                if place > 0 {
                    out.push_str("\"\"");
                }
                out.push_str(piece);
            }
            out.push('"');
        } else {
            out.push_str(cell);
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{
        super::{cell::Cell, columns},
        *,
    };

    fn records(text: &str) -> Vec<(usize, Vec<String>)> {
        Records::new(text)
            .map(|(line, cells)| (line, cells.into_iter().map(Cow::into_owned).collect()))
            .collect()
    }

    #[derive(Default)]
    struct Kept {
        problems: Vec<Found>,
        rows: Vec<Raw>,
    }

    impl Sink for Kept {
        fn refuse(&mut self, found: Found) {
            self.problems.push(found);
        }

        fn row(&mut self, raw: Raw) -> bool {
            self.rows.push(raw);
            self.rows.len() < 100
        }
    }

    fn all(text: &str) -> Kept {
        let mut kept = Kept::default();
        read(text, &columns::USER, &mut kept);
        kept
    }

    fn found(text: &str) -> Vec<Found> {
        all(text).problems
    }

    #[test]
    fn no_more_rows_are_read_than_are_taken() {
        let text = format!("id\n{}\"", "a\n".repeat(1_000));
        let kept = all(&text);
        assert_eq!((kept.rows.len(), kept.problems), (100, vec![]));
    }

    #[test]
    fn a_line_of_separators_is_one_problem_and_few_cells() {
        let text = format!("id,name\n{}x\n", ",".repeat(100_000));
        let kept = all(&text);
        assert_eq!(kept.problems.len(), 1);
        assert_eq!(kept.rows[0].refused, Refused::Whole);
        assert!(found(&format!("id{}", ",".repeat(100_000))).len() <= MAX_CELLS);
    }

    #[test]
    fn what_spreadsheets_write_around_rows_is_no_row() {
        for text in [
            "\n\r\nid;name\nana;Ana\n",
            "  \nid;name\nana;Ana\n;\n; \n\n",
            "sep=;\r\nid;name\r\nana;Ana\r\n;\r\n",
            "\u{feff}SEP=\t\nid\tname\nana\tAna\n\t",
            ";\nid;name\nana;Ana",
        ] {
            let kept = all(text);
            assert_eq!((kept.problems, kept.rows.len()), (vec![], 1), "{text:?}");
            assert_eq!(kept.rows[0].cells[1], Some(Cell::Text("Ana".to_owned())));
        }
        assert_eq!(found("sep=;\nid;name\n;Ana\n")[0].0, 3, "lines are counted");
        assert_eq!(found("sep=x\n")[0].1, "user", "another separator is none");
    }

    #[test]
    fn lines_are_counted_over_quotes_blank_lines_and_either_end_of_line() {
        let text = "a,b\r\n\r\n1,\"x\ny\"\n2,\"say \"\"hi\"\"\"\n\n3,";
        let cells = |list: [&str; 2]| list.map(str::to_owned).to_vec();
        assert_eq!(
            records(text),
            [
                (1, cells(["a", "b"])),
                (3, cells(["1", "x\ny"])),
                (5, cells(["2", "say \"hi\""])),
                (7, cells(["3", ""])),
            ]
        );
    }

    #[test]
    fn the_first_line_says_what_separates() {
        for text in ["id;name\nana;A,B\n", "id\tname\nana\tA,B\n"] {
            let Kept { problems, rows } = all(text);
            assert_eq!(problems, []);
            assert_eq!(rows[0].cells[1], Some(Cell::Text("A,B".to_owned())));
        }
    }

    #[test]
    fn a_spreadsheet_may_write_a_mark_first_and_flags_in_capitals() {
        let Kept { problems, rows } = all("\u{feff}ID,emcc\r\nana,FALSE\r\n");
        assert_eq!(problems, []);
        assert_eq!(rows[0].cells[7], Some(Cell::Flag(false)));
    }

    #[test]
    fn what_is_wrong_is_told_with_line_and_column_and_all_at_once() {
        for (text, expected) in [
            ("", vec![(1, "", "the first line must name the columns")]),
            (
                "name,pinn,name\n",
                vec![
                    (
                        1,
                        "user.pinn",
                        "there is no such column; did you mean `pin`?",
                    ),
                    (1, "user.name", "the column is named twice"),
                    (1, "user.id", "the column must be there"),
                ],
            ),
            (
                "id,emcc\nana\nbob,maybe\n,true\ncy,false,1\n",
                vec![
                    (
                        2,
                        "user",
                        "there are 1 cells, and the first line names 2 columns",
                    ),
                    (3, "user.emcc", "it must be true or false"),
                    (4, "user.id", "it must be given"),
                    (
                        5,
                        "user",
                        "there are 3 cells, and the first line names 2 columns",
                    ),
                ],
            ),
            (
                "id,name\nana,x\nbob,\"y\ncy,z\n",
                vec![(3, "", "the `\"` that opens here is never closed")],
            ),
        ] {
            let told: Vec<_> = found(text);
            let told: Vec<_> = told.iter().map(|(l, f, m)| (*l, &**f, &**m)).collect();
            assert_eq!(told, expected, "{text}");
        }
    }

    /// The first cells may be a PIN's or a hash's.
    #[test]
    fn a_file_without_a_first_line_of_names_is_refused_and_no_cell_is_repeated() {
        let long = format!("id,{}\n", "pin-hash".repeat(1_000));
        for (text, expected) in [
            (
                "ana,Anna Ant,24680\n",
                "user: the first line must name the columns, some of: id, ",
            ),
            (
                "24680\n",
                "user: the first line must name the columns, some of: id, ",
            ),
            (
                "id,24680,pinhash\n",
                "user: there is no column with the name in cell 2 of the first line; \
                 user.pinhash: there is no such column; did you mean `pin-hash`?",
            ),
            (
                "id,$argon2id$v=19$m=19456$24680\n",
                "user: there is no column with the name in cell 2 of the first line",
            ),
            (
                &long,
                "user: there is no column with the name in cell 2 of the first line",
            ),
        ] {
            let told: Vec<_> = found(text)
                .into_iter()
                .map(|(_, field, message)| format!("{field}: {message}"))
                .collect();
            let told = told.join("; ");
            assert!(
                told.starts_with(expected) && told.len() < 300,
                "{text}: {told}"
            );
            assert!(!told.contains("24680") && !told.contains("Ant"), "{told}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(lines in vec(vec("[a,;\"\n\r\t \u{e9}|=\\\\]{0,6}", 2), 1..6)) {
            // A first line of our own: it tells the separator.
            let mut text = "x,y\n".to_owned();
            for line in &lines {
                write_line(&mut text, line.iter().map(String::as_str));
            }
            let read: Vec<_> = records(&text).into_iter().skip(1).map(|(_, cells)| cells).collect();
            prop_assert_eq!(read, lines);
        }

        #[test]
        fn no_text_is_too_odd(text in "(?s).{0,60}") {
            found(&text);
        }
    }
}
