//! What a command prints: text for people and one JSON document for programs, from the same answer.
//! Never a colour, so that a pipe and a terminal see the same.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::cli::args::Global;

/// What a command has to say once it is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// For people; without the last line's end.
    pub text: String,
    /// For programs.
    pub json: serde_json::Value,
    /// Whether what was found is a failure, although it could be told.
    pub fails: bool,
    /// What programs must know of the document and is not in it: it goes to standard error.
    pub note: Option<String>,
}

impl Report {
    /// Text and the answer that it was made from.
    pub fn new(text: impl Into<String>, answer: &impl Serialize) -> Self {
        // Nothing that we serialise has keys that are no strings, so this can't fail.
        let json = serde_json::to_value(answer).unwrap_or_default();
        Self {
            text: text.into(),
            json,
            fails: false,
            note: None,
        }
    }

    /// The same, for something that is not as it should be.
    #[must_use]
    pub fn failing(mut self) -> Self {
        self.fails = true;
        self
    }

    /// The same with a remark: below the text, and beside the document.
    #[must_use]
    pub fn with_note(mut self, note: String) -> Self {
        self.text = format!("{}\n\n{note}", self.text.trim_end_matches('\n'));
        self.note = Some(note);
        self
    }

    /// Writes the one or the other.
    ///
    /// # Errors
    /// When `out` does.
    pub fn write(&self, out: &mut dyn Write, format: Format) -> io::Result<()> {
        match format {
            // The command has said everything itself.
            _ if self.text.is_empty() && self.json.is_null() => Ok(()),
            Format::Json => {
                serde_json::to_writer_pretty(&mut *out, &self.json)?;
                writeln!(out)
            }
            Format::Text if self.text.is_empty() => Ok(()),
            Format::Text => writeln!(out, "{}", self.text.trim_end_matches('\n')),
        }?;
        out.flush()
    }
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON document.
    Json,
    /// Text.
    Text,
}

impl Format {
    /// The one that was asked for.
    #[must_use]
    pub const fn of(global: &Global) -> Self {
        if global.json { Self::Json } else { Self::Text }
    }
}

/// A table without lines: headings in capitals, columns two blanks apart, `-` for what is not there.
#[must_use]
pub fn table<const N: usize>(headings: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headings);
    for row in rows {
        table.add_row(row.map(|cell| match clean(&cell) {
            cell if cell.is_empty() => "-".to_owned(),
            cell => cell,
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    trim_line_ends(&table.to_string())
}

/// Names and values below one another, for one record.
#[must_use]
pub fn record(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<_> = fields
        .iter()
        .map(|(name, value)| {
            let value = if value.is_empty() { "-" } else { value };
            format!("{name:width$}  {}", clean(value))
        })
        .collect();
    lines.join("\n")
}

/// Text from elsewhere, made harmless: a terminal obeys control characters, and directions that turn
/// round hide what stands there.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let obeyed = c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
            let (escaped, plain) = if obeyed {
                (Some(c.escape_unicode()), None)
            } else {
                (None, Some(c))
            };
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// The same, line by line.
#[must_use]
pub fn clean_lines(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// `2026-11-22T09:30:00.123Z` as `2026-11-22 09:30:00Z`. What is no such time stays as it is.
#[must_use]
pub fn time(rfc3339: &str) -> String {
    match rfc3339.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => rfc3339.to_owned(),
    }
}

/// An age as people say it, in the two largest units.
#[must_use]
pub fn age(millis: u64) -> String {
    let seconds = millis / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..=9 => format!("{}.{} s", seconds, millis % 1_000 / 100),
        10..=59 => format!("{seconds} s"),
        60..=3_599 => format!("{minutes} min {} s", seconds % 60),
        3_600..=86_399 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// `yes` or `no`.
#[must_use]
pub fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// `1 user`, `2 users`.
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{s}")
}

fn trim_line_ends(text: &str) -> String {
    text.lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_plain_text() {
        let text = table(
            ["NAME", "STATE"],
            vec![
                ["berlin".to_owned(), "up".to_owned()],
                ["t".to_owned(), String::new()],
            ],
        );
        assert_eq!(text, "NAME    STATE\nberlin  up\nt       -");
    }

    #[test]
    fn cells_cannot_drive_the_terminal_or_break_the_row() {
        let text = table(["NAME"], vec![["a\u{1b}[31m\nb\u{202e}".to_owned()]]);
        assert_eq!(text, "NAME\na\\u{1b}[31m\\u{a}b\\u{202e}");
    }

    #[test]
    fn a_record_lines_up() {
        let text = record(&[("user", "anna".to_owned()), ("extension", String::new())]);
        assert_eq!(text, "user       anna\nextension  -");
    }

    #[test]
    fn ages_read_as_people_say_them() {
        for (millis, text) in [
            (0, "0.0 s"),
            (850, "0.8 s"),
            (9_999, "9.9 s"),
            (42_000, "42 s"),
            (61_000, "1 min 1 s"),
            (7_260_000, "2 h 1 min"),
            (180_000_000, "2 d 2 h"),
        ] {
            assert_eq!(age(millis), text);
        }
    }

    #[test]
    fn times_lose_their_milliseconds() {
        assert_eq!(time("2026-11-22T09:30:00.123Z"), "2026-11-22 09:30:00Z");
        assert_eq!(time("soon"), "soon");
    }

    #[test]
    fn json_is_one_document() {
        let mut out = Vec::new();
        let report = Report::new("1 thing", &vec![1]);
        report.write(&mut out, Format::Json).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<u8>>(&out).unwrap(), [1]);
        out.clear();
        report.write(&mut out, Format::Text).unwrap();
        assert_eq!(out, b"1 thing\n");
    }
}
