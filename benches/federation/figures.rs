//! Figures over rounds, and how they are printed.

use std::{fmt::Write as _, time::Duration};

/// So many rounds make a figure that can be compared.
const COUNTING: usize = 5;

/// Figures in the order in which they were taken first.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Figure>);

#[derive(Debug)]
struct Figure {
    id: &'static str,
    what: &'static str,
    unit: &'static str,
    values: Vec<f64>,
}

impl Figures {
    /// Adds one value.
    pub(crate) fn put(
        &mut self,
        id: &'static str,
        what: &'static str,
        unit: &'static str,
        value: f64,
    ) {
        match self.0.iter_mut().find(|f| f.id == id) {
            Some(figure) => figure.values.push(value),
            None => self.0.push(Figure {
                id,
                what,
                unit,
                values: vec![value],
            }),
        }
    }

    /// Adds all values of another round.
    pub(crate) fn add(&mut self, round: Self) {
        for figure in round.0 {
            for value in figure.values {
                self.put(figure.id, figure.what, figure.unit, value);
            }
        }
    }

    /// A table for people.
    pub(crate) fn text(&self) -> String {
        let rounds = self.0.first().map_or(0, |f| f.values.len());
        let mut text =
            format!("median of {rounds} rounds, taken in turn in one run (lowest to highest)\n");
        if rounds < COUNTING {
            let _infallible = writeln!(
                text,
                "fewer than {COUNTING} rounds are for trying things out: don't quote these figures"
            );
        }
        for figure in &self.0 {
            let (low, middle, high) = spread(&figure.values);
            let _infallible = writeln!(
                text,
                "{:<52} {:>12.3} {:<4} ({low:.3} to {high:.3})",
                figure.what, middle, figure.unit
            );
        }
        text
    }

    /// One object for programs.
    pub(crate) fn json(&self) -> String {
        let object: serde_json::Map<_, _> = self
            .0
            .iter()
            .map(|figure| {
                let (low, middle, high) = spread(&figure.values);
                let value = serde_json::json!({
                    "what": figure.what, "unit": figure.unit, "median": middle, "min": low, "max": high,
                });
                (figure.id.to_owned(), value)
            })
            .collect();
        serde_json::Value::Object(object).to_string()
    }
}

fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    (
        at(0),
        at(sorted.len() / 2),
        at(sorted.len().saturating_sub(1)),
    )
}

/// The value below which `percent` of the sorted values lie.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or_default()
}
