//! How far something has come, on standard error: a bar on a terminal, lines elsewhere, JSON lines for programs.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    cli::{args::Global, output::clean},
    wire::admin as pb,
};

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A bar that moves.
    Bar,
    /// An object in each line.
    Json,
    /// A line now and then.
    Lines,
}

impl Form {
    /// The one that fits.
    #[must_use]
    pub fn of(global: &Global) -> Self {
        if global.json {
            Self::Json
        } else if io::stderr().is_terminal() {
            Self::Bar
        } else {
            Self::Lines
        }
    }
}

/// What is shown.
#[derive(Debug)]
pub struct Shown {
    form: Form,
    began: Instant,
    bar: Option<ProgressBar>,
    /// The step that a line told last, and when.
    last: Option<(String, Instant)>,
}

impl Shown {
    /// Nothing yet.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            began: Instant::now(),
            bar: None,
            last: None,
        }
    }

    /// Shows a state.
    pub fn show(&mut self, progress: &pb::ApplyProgress) {
        match self.form {
            Form::Bar => self.move_bar(progress),
            // What is soon done needs no telling: scripts take anything on standard error for a fault.
            Form::Json | Form::Lines if self.began.elapsed() < QUIET => {}
            Form::Json => {
                if let Ok(line) = serde_json::to_string(progress) {
                    say(&line);
                }
            }
            Form::Lines => {
                if self.is_due(&progress.step, Instant::now()) {
                    say(&line(progress));
                }
            }
        }
    }

    fn move_bar(&mut self, progress: &pb::ApplyProgress) {
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{msg:40} {wide_bar} {pos}/{len}") {
                bar.set_style(style);
            }
            bar
        });
        bar.set_length(progress.of);
        bar.set_position(progress.done);
        let left = progress.left_ms.map_or_else(String::new, |left| {
            format!(", {} left", spoken(Duration::from_millis(left)))
        });
        bar.set_message(format!("{}{left}", clean(&progress.step)));
    }

    /// Each step, and a long one every few seconds.
    fn is_due(&mut self, step: &str, now: Instant) -> bool {
        let is_due = self.last.as_ref().is_none_or(|(last, at)| {
            last != step || now.saturating_duration_since(*at) >= BETWEEN_LINES
        });
        if is_due {
            self.last = Some((step.to_owned(), now));
        }
        is_due
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Nothing is told before, but on a terminal.
const QUIET: Duration = Duration::from_secs(2);

/// Between two lines of one step.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// Nobody may be listening, and that stops nothing.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// `hashing: 1200 of 100000, 4 min left`.
fn line(progress: &pb::ApplyProgress) -> String {
    let mut line = clean(&progress.step);
    if progress.of > 0 {
        line += &format!(": {} of {}", progress.done, progress.of);
    }
    if let Some(left) = progress.left_ms {
        line += &format!(", {} left", spoken(Duration::from_millis(left)));
    }
    line
}

fn spoken(length: Duration) -> String {
    match length.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_is_known() {
        let of = |step: &str, done, of, left_ms| pb::ApplyProgress {
            step: step.to_owned(),
            done,
            of,
            left_ms,
        };
        for (progress, expected) in [
            (of("comparing", 0, 0, None), "comparing"),
            (of("staging", 7, 9, Some(900)), "staging: 7 of 9, 0 s left"),
            (
                of("hashing", 1, 100, Some(119_000)),
                "hashing: 1 of 100, 119 s left",
            ),
            (
                of("hashing", 1, 100, Some(121_000)),
                "hashing: 1 of 100, 3 min left",
            ),
        ] {
            assert_eq!(line(&progress), expected);
        }
    }

    #[test]
    fn a_step_is_told_when_it_begins_and_then_now_and_then() {
        let mut shown = Shown::new(Form::Lines);
        let begin = Instant::now();
        let told: Vec<_> = [
            ("hashing", 0),
            ("hashing", 4),
            ("hashing", 5),
            ("hashing", 9),
            ("staging", 9),
        ]
        .into_iter()
        .map(|(step, after)| shown.is_due(step, begin + Duration::from_secs(after)))
        .collect();
        assert_eq!(told, [true, false, true, false, true]);
    }
}
