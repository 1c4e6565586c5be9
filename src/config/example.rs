//! Writes configuration: the example with every key, `docs/config.md`, the settings in force, a first file.
//!
//! All of it is rendered from [`keys`](crate::config::keys); nothing about a key is written twice.

use std::fmt::Write as _;

use crate::config::{
    Setting,
    keys::{self, KEYS, Key, Preset, SECTIONS, Section},
};

/// A line of a first configuration file.
#[derive(Clone, Debug)]
pub struct Line {
    /// The full name of the key.
    pub key: &'static str,
    /// Its value, in TOML.
    pub value: String,
    /// Whether it is in force, or stands there as a comment to be switched on.
    pub active: bool,
}

impl Line {
    /// A setting in force.
    #[must_use]
    pub fn new(key: &'static str, value: impl Into<String>) -> Self {
        Self {
            key,
            value: value.into(),
            active: true,
        }
    }

    /// A setting that somebody may switch on.
    #[must_use]
    pub fn commented_out(key: &'static str, value: impl Into<String>) -> Self {
        Self {
            key,
            value: value.into(),
            active: false,
        }
    }
}

/// The example file: every key with its meaning; what has a default stands there as a comment.
#[must_use]
pub fn example() -> String {
    let mut out =
        "# emccd.toml: what belongs to one node. A line that begins with # and a key shows what \
                   holds\n# without it. Relative paths start from the folder of this file.\n"
            .to_owned();
    for section in SECTIONS {
        out.push('\n');
        wrap(&mut out, "# ", section.about);
        open(&mut out, section);
        for key in keys_of(section) {
            out.push('\n');
            explain(&mut out, key);
        }
    }
    out
}

/// The reference page, `docs/config.md`.
#[must_use]
pub fn reference() -> String {
    let mut out = "# Configuration\n\n\
        <!-- Rendered from src/config/keys.rs; `UPDATE_GOLDEN=1 cargo test --lib config` writes it anew. -->\n\n\
        `emccd.toml` holds what belongs to one node. What belongs to the cluster (users, devices, peers, \
        policies) is in the store.\n\n\
        - `emccd config check --config FILE` tells everything that is wrong with a file, each with its line, \
        without starting anything.\n\
        - `emccd config show --config FILE` prints the settings in force, defaults included.\n\
        - `emccd config example` prints a file with every key.\n\n\
        Lengths of time need a unit: `ms`, `s`, `min`, `h`, `d`. Relative \
        paths start from the folder of the file. Unknown keys are errors. Secrets are never in the file, only \
        the paths of the files that hold them.\n"
        .to_owned();
    for section in SECTIONS {
        let title = match section.name {
            "" => "At the top of the file".to_owned(),
            name => format!("`[{name}]`"),
        };
        let _ = write!(out, "\n## {title}\n\n{}\n", section.about);
        for key in keys_of(section) {
            describe(&mut out, key);
        }
    }
    out
}

/// The settings in force, as a file that would give the same.
#[must_use]
pub fn show(settings: &[Setting]) -> String {
    let mut out = String::new();
    for section in SECTIONS {
        let here = || {
            settings
                .iter()
                .filter(|s| keys::section_of(s.key) == section.name)
        };
        if here().next().is_none() {
            continue;
        }
        if !out.is_empty() {
            out.push('\n');
        }
        open(&mut out, section);
        for setting in here() {
            let name = keys::last(setting.key);
            let _ = match (&setting.value, setting.default) {
                (Some(value), true) => writeln!(out, "{name} = {value}  # default"),
                (Some(value), false) => writeln!(out, "{name} = {value}"),
                (None, _) => writeln!(out, "# {name} is not set"),
            };
        }
    }
    out
}

/// A short file of the given lines, each with its meaning; for a first node.
#[must_use]
pub fn compose(heading: &str, lines: &[Line]) -> String {
    let mut out = String::new();
    wrap(&mut out, "# ", heading);
    for section in SECTIONS {
        let here = || {
            lines
                .iter()
                .filter(|l| keys::section_of(l.key) == section.name)
        };
        if here().next().is_none() {
            continue;
        }
        out.push('\n');
        open(&mut out, section);
        for line in here() {
            if let Some(key) = keys::find(line.key) {
                wrap(&mut out, "# ", first_sentence(key.meaning));
            }
            let off = if line.active { "" } else { "#" };
            let _ = writeln!(out, "{off}{} = {}", keys::last(line.key), line.value);
        }
    }
    out
}

/// Where lines of comments are broken.
const WIDTH: usize = 100;

fn keys_of(section: &Section) -> impl Iterator<Item = &'static Key> {
    let name = section.name;
    KEYS.iter()
        .filter(move |key| keys::section_of(key.name) == name)
}

fn open(out: &mut String, section: &Section) {
    if !section.name.is_empty() {
        let _ = writeln!(out, "[{}]", section.name);
    }
}

fn explain(out: &mut String, key: &Key) {
    wrap(out, "# ", key.meaning);
    wrap(out, "# ", &format!("Allowed: {}.", key.kind.allowed()));
    let name = keys::last(key.name);
    let _ = match key.preset {
        Preset::Required { sample } => writeln!(out, "{name} = {sample}"),
        Preset::Is(literal) => {
            wrap(
                out,
                "# ",
                &format!("Default: {literal}, because {}.", key.why),
            );
            writeln!(out, "#{name} = {literal}")
        }
        Preset::Otherwise { text, sample } => {
            wrap(out, "# ", &format!("Default: {text}, because {}.", key.why));
            writeln!(out, "# {name} = {sample}")
        }
    };
}

fn describe(out: &mut String, key: &Key) {
    let default = match key.preset {
        Preset::Required { sample } => format!("none, it must be given; for example `{sample}`"),
        Preset::Is(literal) => format!("`{literal}`, because {}", key.why),
        Preset::Otherwise { text, sample } => {
            format!("{text}, because {}; for example `{sample}`", key.why)
        }
    };
    let _ = write!(
        out,
        "\n### `{}`\n\n{}\n\n- Default: {default}\n- Allowed: {}\n- Changes while running: {}\n- \
         Since: 0.1.0\n",
        key.name,
        key.meaning,
        key.kind.allowed(),
        key.change.text(),
    );
}

fn first_sentence(text: &str) -> &str {
    text.find(". ")
        .and_then(|end| text.get(..=end))
        .unwrap_or(text)
}

fn wrap(out: &mut String, prefix: &str, text: &str) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && prefix.len() + line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(out, "{prefix}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(out, "{prefix}{line}");
}
