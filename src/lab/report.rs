//! What a lab prints: one line a step for people, one object a line for programs.

use serde::Serialize;

use crate::lab::phone::Shown;

/// What one step was, as a program reads it. Its fields are a contract; `docs/lab.md` describes them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// The step's name.
    pub step: String,
    /// Whether it went as expected.
    pub ok: bool,
    /// The EM code on the phone; null for success.
    pub em_code: Option<u16>,
    /// What the phone showed; null when the step has no phone.
    pub phone_text: Option<String>,
    /// The ref on the phone; null when no phone showed anything.
    pub r#ref: Option<String>,
    /// How long it took, in milliseconds.
    pub ms: f64,
    /// What people read below it: both clusters' state, and on a surprise what was expected.
    #[serde(skip)]
    pub notes: Vec<String>,
}

impl Step {
    /// A step in which a phone showed something.
    #[must_use]
    pub fn shown(name: &str, shown: &Shown) -> Self {
        Self {
            step: name.to_owned(),
            ok: true,
            em_code: shown.em_code,
            phone_text: Some(shown.headline().to_owned()),
            r#ref: shown.reference.clone(),
            ms: shown.ms(),
            notes: Vec::new(),
        }
    }

    /// A step without a phone.
    #[must_use]
    pub fn done(name: &str, elapsed: std::time::Duration) -> Self {
        Self {
            step: name.to_owned(),
            ok: true,
            em_code: None,
            phone_text: None,
            r#ref: None,
            ms: elapsed.as_secs_f64() * 1_000.0,
            notes: Vec::new(),
        }
    }

    /// The same, gone wrong.
    #[must_use]
    pub fn failed(mut self, why: impl Into<String>) -> Self {
        self.ok = false;
        self.notes.insert(0, why.into());
        self
    }
}

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A step as lines of output.
#[must_use]
pub fn render(step: &Step, style: Style) -> String {
    if style == Style::Json {
        return serde_json::to_string(step).unwrap_or_default();
    }
    let mark = if step.ok { "ok  " } else { "FAIL" };
    let mut text = format!("{mark}  {:<26} {:>9.1} ms", step.step, step.ms);
    if let Some(shown) = &step.phone_text {
        text.push_str(&format!("   phone: \"{shown}\""));
    }
    if let Some(reference) = &step.r#ref {
        text.push_str(&format!("  ref {reference}"));
    }
    for note in &step.notes {
        for line in note.lines() {
            text.push_str(&format!("\n          {line}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> Step {
        Step {
            step: "wrong-pin".to_owned(),
            ok: true,
            em_code: Some(2),
            phone_text: Some("Login is unavailable(2)".to_owned()),
            r#ref: Some("7K3Q-9M2X".to_owned()),
            ms: 12.25,
            notes: vec!["berlin: nobody".to_owned()],
        }
    }

    #[test]
    fn a_program_gets_the_contract_and_no_notes() {
        let object: serde_json::Value =
            serde_json::from_str(&render(&step(), Style::Json)).unwrap();
        assert_eq!(
            object,
            serde_json::json!({
                "step": "wrong-pin", "ok": true, "em_code": 2, "phone_text": "Login is unavailable(2)",
                "ref": "7K3Q-9M2X", "ms": 12.25
            })
        );
        let success = Step {
            em_code: None,
            r#ref: None,
            phone_text: None,
            ..step()
        };
        assert!(render(&success, Style::Json).contains("\"em_code\":null"));
    }

    #[test]
    fn people_get_what_the_phone_showed_and_what_the_clusters_hold() {
        let text = render(&step().failed("expected success"), Style::Text);
        assert!(text.starts_with("FAIL  wrong-pin"), "{text}");
        for part in [
            "Login is unavailable(2)",
            "7K3Q-9M2X",
            "expected success",
            "berlin: nobody",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
