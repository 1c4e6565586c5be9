//! What a file of data may hold: one table of kinds and their columns. Reading, `export`, `--help` and
//! `docs/data.md` all follow it. Pure.

use std::fmt::Write as _;

use crate::store::audit::Noun;

/// One kind of row.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The name of its table in TOML, and of its CSV file in the singular.
    pub name: &'static str,
    /// What the audit calls it.
    pub noun: Noun,
    /// What its CSV file is called by `export`.
    pub plural: &'static str,
    /// What such a row is.
    pub about: &'static str,
    /// Whether names that differ in ASCII case only are one.
    pub ignores_case: bool,
    /// Its columns. The first one names the row.
    pub columns: &'static [Column],
}

/// One column.
#[derive(Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, in both formats.
    pub name: &'static str,
    /// What it holds.
    pub shape: Shape,
    /// What stands for a cell that is not given, as it is written in CSV; none where it must be given.
    pub default: Option<&'static str>,
    /// What it means.
    pub about: &'static str,
}

/// What a cell holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `true` or `false`.
    Flag,
    /// Texts.
    List,
    /// Texts by name.
    Map,
    /// A whole number from 0.
    Number,
    /// Small tables of these parts.
    Parts(&'static [Part]),
    /// Text that is never shown.
    Secret,
    /// Text.
    Text,
}

/// One part of a small table.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Whether it is a whole number; text otherwise.
    pub is_number: bool,
    /// Whether it must be given.
    pub is_required: bool,
}

const fn must(name: &'static str, shape: Shape, about: &'static str) -> Column {
    Column {
        name,
        shape,
        default: None,
        about,
    }
}

const fn may(
    name: &'static str,
    shape: Shape,
    default: &'static str,
    about: &'static str,
) -> Column {
    Column {
        name,
        shape,
        default: Some(default),
        about,
    }
}

const fn part(name: &'static str, is_number: bool, is_required: bool) -> Part {
    Part {
        name,
        is_number,
        is_required,
    }
}

/// Places.
pub const GEOLOCATION: Kind = Kind {
    name: "geolocation",
    noun: Noun::Geolocation,
    plural: "geolocations",
    about: "A place that phones and device pools name. Which of its fields count for the roaming pool says the \
            parameter `emcc-geolocation-filter`.",
    ignores_case: false,
    columns: &[
        must("name", Shape::Text, "Its name, unique."),
        may("fields", Shape::Map, "", "Civic address fields by name."),
    ],
};

/// Call-control groups.
pub const CALL_GROUP: Kind = Kind {
    name: "call-control-group",
    noun: Noun::CallGroup,
    plural: "call-control-groups",
    about: "Call-control servers that device pools name: what a login answers comes from them.",
    ignores_case: false,
    columns: &[
        must("name", Shape::Text, "Its name, unique."),
        may(
            "members",
            MANAGERS,
            "",
            "Hosts, each with a priority from 0, tried first, to 4.",
        ),
    ],
};

/// Phone services.
pub const PHONE_SERVICE: Kind = Kind {
    name: "phone-service",
    noun: Noun::PhoneService,
    plural: "phone-services",
    about: "A page that a phone can open. A login's answer carries those of the profile, whatever the cluster.",
    ignores_case: false,
    columns: &[
        must("name", Shape::Text, "Its name, as phones show it, unique."),
        must("url", Shape::Text, "Where it is, `http://` or `https://`."),
        may(
            "menu",
            Shape::Text,
            "services",
            "The button that leads to it: `services`, `directories` or `messages`.",
        ),
    ],
};

const MANAGERS: Shape = Shape::Parts(&[part("host", false, true), part("priority", true, true)]);

/// Device pools.
pub const DEVICE_POOL: Kind = Kind {
    name: "device-pool",
    noun: Noun::Pool,
    plural: "device-pools",
    about: "Where a phone finds its call control.",
    ignores_case: false,
    columns: &[
        must("name", Shape::Text, "Its name, unique."),
        may(
            "call-managers",
            MANAGERS,
            "",
            "Call-control servers of its own: hosts, each with a priority from 0, tried first, to 4.",
        ),
        may(
            "call-control-group",
            Shape::Text,
            "",
            "In place of `call-managers`: the name of a call-control group.",
        ),
        may(
            "tftp-servers",
            Shape::List,
            "",
            "TFTP servers, first one first.",
        ),
        may(
            "geolocation",
            Shape::Map,
            "",
            "The place it is for: civic address fields by name.",
        ),
        may(
            "location",
            Shape::Text,
            "",
            "In place of `geolocation`: the name of a geolocation.",
        ),
        may(
            "roaming",
            Shape::Flag,
            "false",
            "Whether it may be chosen for a phone of another cluster.",
        ),
    ],
};

/// Credential policies.
pub const POLICY: Kind = Kind {
    name: "policy",
    noun: Noun::Policy,
    plural: "policies",
    about: "A credential policy: when wrong PINs lock its users out, and which PINs they may get. Users who name none \
            have the one named `default`, which is always there: a row changes it, and with `--prune` it is as built \
            in again when no row names it. A PIN in clear is held against it whenever it is given; a hash can't be.",
    ignores_case: false,
    columns: &[
        must("name", Shape::Text, "Its name, unique."),
        may(
            "failures-before-lock",
            Shape::Number,
            "5",
            "So many wrong PINs within the window lock a user out, 1 to 100; 0 never does.",
        ),
        may(
            "failure-window",
            Shape::Number,
            "30",
            "The window in minutes, 1 to 120, which begins anew with each wrong PIN.",
        ),
        may(
            "lock-duration",
            Shape::Number,
            "15",
            "How long a user stays locked out, in minutes, 1 to 1440.",
        ),
        may(
            "min-length",
            Shape::Number,
            "6",
            "The fewest digits of a new PIN, 4 to 20.",
        ),
        may(
            "max-length",
            Shape::Number,
            "16",
            "The most digits of a new PIN, `min-length` to 64.",
        ),
        may(
            "trivial-check",
            Shape::Flag,
            "true",
            "Whether a new PIN is refused that is easy to guess: runs, sequences, groups that repeat, keys in a line, \
             few digits, the extension, the name.",
        ),
    ],
};

/// Users.
pub const USER: Kind = Kind {
    name: "user",
    noun: Noun::User,
    plural: "users",
    about: "A person whose home this cluster is.",
    ignores_case: true,
    columns: &[
        must("id", Shape::Text, "The user ID, unique whatever its case."),
        may(
            "name",
            Shape::Text,
            "",
            "The name as people read it, one line.",
        ),
        may(
            "self-service-id",
            Shape::Text,
            "",
            "The self-service user ID, unique.",
        ),
        may(
            "extension",
            Shape::Text,
            "",
            "The primary extension; several users may share one.",
        ),
        may(
            "pin",
            Shape::Secret,
            "",
            "A PIN in clear, hashed on arrival; the user's policy must allow it. Not given, the PIN stays. Never \
             exported.",
        ),
        may(
            "pin-hash",
            Shape::Secret,
            "",
            "In place of `pin`: an Argon2id hash in PHC form, from an earlier export. No policy is asked: a hash doesn't \
             tell its PIN.",
        ),
        may(
            "enabled",
            Shape::Flag,
            "true",
            "Whether the user may log in at all.",
        ),
        may(
            "emcc",
            Shape::Flag,
            "true",
            "Whether the user may log in on phones of other clusters.",
        ),
        may(
            "policy",
            Shape::Text,
            "",
            "The name of the user's credential policy; not given, it is `default`.",
        ),
    ],
};

/// Device profiles.
pub const PROFILE: Kind = Kind {
    name: "profile",
    noun: Noun::Profile,
    plural: "profiles",
    about: "A device profile: what a user's phone becomes.",
    ignores_case: false,
    columns: &[
        must("name", Shape::Text, "Its name, unique."),
        must("user", Shape::Text, "The ID of the user whose it is."),
        may(
            "default",
            Shape::Flag,
            "false",
            "Whether it is taken when the user chooses none.",
        ),
        may(
            "lines",
            Shape::Parts(&[
                part("index", true, true),
                part("number", false, true),
                part("label", false, false),
            ]),
            "",
            "Lines: the button from 1, the directory number, and the text beside the button.",
        ),
        may(
            "locale",
            Shape::Text,
            "",
            "The locale; not given, the phone keeps its own.",
        ),
        may(
            "device-pool",
            Shape::Text,
            "",
            "The device pool when no roaming pool fits.",
        ),
        may(
            "services",
            Shape::List,
            "",
            "The phone services that it is subscribed to: names, in the order in which phones show them.",
        ),
    ],
};

/// Phones.
pub const DEVICE: Kind = Kind {
    name: "device",
    noun: Noun::Device,
    plural: "devices",
    about: "A phone of this cluster.",
    ignores_case: true,
    columns: &[
        must(
            "name",
            Shape::Text,
            "Its name, for example `SEP00112233AABB`, unique whatever its case.",
        ),
        may("model", Shape::Text, "", "Its model."),
        may("protocol", Shape::Text, "SIP", "`SIP` or `SCCP`."),
        may(
            "security-mode",
            Shape::Text,
            "non-secure",
            "`non-secure` or `secure`.",
        ),
        may(
            "emcc",
            Shape::Flag,
            "true",
            "Whether its model can carry users of other clusters.",
        ),
        may(
            "extension-mobility",
            Shape::Flag,
            "true",
            "Whether users may log in on it.",
        ),
        may("device-pool", Shape::Text, "", "Its device pool."),
        may(
            "locale",
            Shape::Text,
            "",
            "Its locale; a visitor whose profile has another one is told to reset it.",
        ),
        may(
            "geolocation",
            Shape::Map,
            "",
            "Where it stands: civic address fields by name. Where neither this nor `location` is given, it stands \
             where its device pool does.",
        ),
        may(
            "location",
            Shape::Text,
            "",
            "In place of `geolocation`: the name of a geolocation.",
        ),
        may(
            "services",
            Shape::List,
            "",
            "The phone services that it is subscribed to while nobody is logged in: kept, and not handed out yet.",
        ),
    ],
};

/// Base devices.
pub const BASE_DEVICE: Kind = Kind {
    name: "base-device",
    noun: Noun::Base,
    plural: "base-devices",
    about: "A slot of the pool that users on foreign phones hold, or many numbered ones.",
    ignores_case: true,
    columns: &[
        must(
            "name",
            Shape::Text,
            "Its name, unique whatever its case; with `count`, what the numbers are put behind.",
        ),
        may(
            "count",
            Shape::Number,
            "",
            "How many, numbered from 1. Exports name each one.",
        ),
    ],
};

/// Programs.
pub const APPLICATION_USER: Kind = Kind {
    name: "application-user",
    noun: Noun::Application,
    plural: "application-users",
    about: "A program that signs in by itself. Kept for the interface for programs, which is not served yet.",
    ignores_case: true,
    columns: &[
        must("id", Shape::Text, "Its ID, unique whatever its case."),
        may(
            "password",
            Shape::Secret,
            "",
            "A password in clear, hashed on arrival. Not given, the password stays. Never exported.",
        ),
        may(
            "password-hash",
            Shape::Secret,
            "",
            "In place of `password`: an Argon2id hash in PHC form, from an earlier export.",
        ),
        may(
            "authentication-proxy",
            Shape::Flag,
            "false",
            "Whether it may act for any user on any phone.",
        ),
    ],
};

/// Parameters.
pub const PARAMETER: Kind = Kind {
    name: "parameter",
    noun: Noun::Param,
    plural: "parameters",
    about: "A parameter of the cluster that is set. [parameters.md](parameters.md) lists them. Those that are not \
            set have their defaults, and with `--prune` those that no row names have them again.",
    ignores_case: false,
    columns: &[
        must("name", Shape::Text, "Its name."),
        must(
            "value",
            Shape::Text,
            "Its value, as `emccd param set` takes it.",
        ),
    ],
};

/// Other clusters.
pub const PEER: Kind = Kind {
    name: "peer",
    noun: Noun::Cluster,
    plural: "peers",
    about: "Another cluster. What is trusted from it is set with `emccd trust`.",
    ignores_case: false,
    columns: &[
        must("id", Shape::Text, "Its cluster ID."),
        must("addresses", Shape::List, "`host:port`, each; one at least."),
        may(
            "node-names",
            Shape::List,
            "",
            "Names that its certificates may carry where an authority vouches for them.",
        ),
        may(
            "user-patterns",
            Shape::List,
            "",
            "Patterns (`*`, `?`) of the user IDs that it may claim.",
        ),
        may(
            "dn-patterns",
            Shape::List,
            "",
            "Patterns of the extensions that it may claim.",
        ),
        may("enabled", Shape::Flag, "true", "Whether we talk to it."),
        may(
            "allow-emcc",
            Shape::Flag,
            "true",
            "Whether its phones may carry our users.",
        ),
        may(
            "ignore-eku",
            Shape::Flag,
            "false",
            "Whether its certificates' extended key usage is disregarded.",
        ),
        may(
            "accept-announcements",
            Shape::Text,
            "auto",
            "What becomes of certificates that it announces as its next ones: `auto`, they are trusted at once; \
             `approve`, they wait for `emccd trust accept`; `off`, they are refused.",
        ),
        may("description", Shape::Text, "", "One line for people."),
    ],
};

/// Every kind. A kind stands below those that its rows name.
pub const KINDS: [&Kind; 12] = [
    &GEOLOCATION,
    &CALL_GROUP,
    &PHONE_SERVICE,
    &DEVICE_POOL,
    &POLICY,
    &USER,
    &PROFILE,
    &DEVICE,
    &BASE_DEVICE,
    &APPLICATION_USER,
    &PEER,
    &PARAMETER,
];

impl Kind {
    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.into_iter().find(|kind| kind.name == name)
    }

    /// The kind that a CSV file holds, by the file's name: the kind's in singular or plural, and then the ending
    /// or a `-`, `_` or `.` with anything behind it.
    #[must_use]
    pub fn of_csv_file(file: &str) -> Option<&'static Self> {
        let base = file.rsplit('/').next().unwrap_or(file).to_ascii_lowercase();
        let matches = |name: &str| {
            base.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['.', '-', '_']))
        };
        KINDS
            .into_iter()
            .filter(|kind| matches(kind.name) || matches(kind.plural))
            .max_by_key(|kind| kind.name.len())
    }

    /// Where a column stands.
    #[must_use]
    pub fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == column)
    }
}

impl Shape {
    fn about(self) -> String {
        match self {
            Self::Flag => "`true` or `false`".to_owned(),
            Self::List => "list of texts".to_owned(),
            Self::Map => "texts by name".to_owned(),
            Self::Number => "whole number".to_owned(),
            Self::Secret | Self::Text => "text".to_owned(),
            Self::Parts(parts) => {
                let names: Vec<_> = parts.iter().map(|part| part.name).collect();
                format!("tables of {}", names.join(", "))
            }
        }
    }

    fn in_toml(self) -> String {
        match self {
            Self::Flag => "true".to_owned(),
            Self::List => "[\"a\", \"b\"]".to_owned(),
            Self::Map => "{ country = \"DE\", A3 = \"Berlin\" }".to_owned(),
            Self::Number => "20".to_owned(),
            Self::Secret | Self::Text => "\"a\"".to_owned(),
            Self::Parts(parts) => {
                let value = |part: &Part| if part.is_number { "1" } else { "\"a\"" };
                let parts: Vec<_> = parts
                    .iter()
                    .map(|part| format!("{} = {}", part.name, value(part)))
                    .collect();
                format!("[{{ {} }}]", parts.join(", "))
            }
        }
    }

    fn in_csv(self) -> String {
        match self {
            Self::Flag => "true".to_owned(),
            Self::List => "a;b".to_owned(),
            Self::Map => "country=DE;A3=Berlin".to_owned(),
            Self::Number => "20".to_owned(),
            Self::Secret | Self::Text => "a".to_owned(),
            Self::Parts(parts) => {
                let value = |part: &Part| if part.is_number { "1" } else { "a" };
                let parts: Vec<_> = parts.iter().map(value).collect();
                parts.join("|")
            }
        }
    }
}

/// The kinds and their columns, for `--help`.
#[must_use]
pub fn help() -> String {
    let mut out = "Kinds of rows, and their columns (* must be given):".to_owned();
    for kind in KINDS {
        let names: Vec<_> = kind
            .columns
            .iter()
            .map(|c| format!("{}{}", c.name, if c.default.is_none() { "*" } else { "" }))
            .collect();
        let _ = write!(out, "\n  {}: {}", kind.name, names.join(", "));
    }
    out
}

/// The reference page, `docs/data.md`.
#[must_use]
pub fn reference() -> String {
    let mut out = "# Data\n\n\
        <!-- Rendered from src/apply/columns.rs; `UPDATE_GOLDEN=1 cargo test --lib apply` writes it anew. -->\n\n\
        What belongs to the cluster is in the store. `emccd apply FILE...` brings it to what files say, and \
        `emccd export` gives files that say what is there: applied to an empty cluster they make the same again. \
        How the two are used is in [operating.md](operating.md).\n\n\
        A file is TOML, or CSV when its name ends in `.csv`; one command may take both. A row is replaced as a \
        whole: a column that is not given has its default, except that a user without `pin` and `pin-hash` keeps \
        the PIN, and an application user the password. What no file names stays, unless `--prune` is given: then it goes, of those kinds that a file holds. All problems of all files are told at once, each with file, line and \
        column.\n\n\
        **TOML.** A row is a table `[[kind]]`, for example `[[user]]`; one file may hold several kinds. Unknown \
        tables and columns are errors.\n\n\
        **CSV.** A file holds one kind, and its name says which: the kind, or its plural, before the ending or \
        before a `-`, `_` or `.`: `users.csv`, `user-munich.csv`, `device-pools_2026.csv`. The first line names \
        the columns, in any order; those that are left out have their defaults, and so has an empty cell. Cells \
        are separated by `,`, `;` or tabs, whichever comes first in that line; a line `sep=;` before it says so too. \
        Lines that are blank, and rows whose cells are all empty, are no rows. A cell with a separator, a `\"` or \
        an end of line in it stands in `\"`, with each `\"` of its own twice. The text is UTF-8. Within a cell, \
        entries are separated by `;`, the parts of an entry by `|`, and a name and its value by `=`; a `\\` before \
        any of these, or before another `\\`, makes it a plain character.\n\n\
        | shape | in TOML | in CSV |\n|---|---|---|\n"
        .to_owned();
    let mut shapes: Vec<Shape> = Vec::new();
    for column in KINDS.iter().flat_map(|kind| kind.columns) {
        if column.shape != Shape::Secret && !shapes.contains(&column.shape) {
            shapes.push(column.shape);
        }
    }
    shapes.sort_by_key(|shape| shape.about());
    for shape in shapes {
        let csv = shape.in_csv().replace('|', "\\|");
        let _ = writeln!(
            out,
            "| {} | `{}` | `{csv}` |",
            shape.about(),
            shape.in_toml()
        );
    }
    for kind in KINDS {
        let _ = write!(
            out,
            "\n## `[[{}]]`, `{}.csv`\n\n{}\n\n| column | holds | default | meaning |\n|---|---|---|---|\n",
            kind.name, kind.plural, kind.about
        );
        for column in kind.columns {
            let default = match column.default {
                None => "must be given".to_owned(),
                Some("") => "none".to_owned(),
                Some(text) => format!("`{text}`"),
            };
            let _ = writeln!(
                out,
                "| `{}` | {} | {default} | {} |",
                column.name,
                column.shape.about(),
                column.about
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_reference_page_is_this_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/data.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, reference()).unwrap();
        }
        assert!(
            fs::read_to_string(&path).unwrap_or_default() == reference(),
            "docs/data.md differs; UPDATE_GOLDEN=1 writes it anew"
        );
    }

    #[test]
    fn a_csv_file_is_told_by_its_name() {
        for (file, kind) in [
            ("users.csv", Some("user")),
            ("/tmp/x/User.CSV", Some("user")),
            ("devices-munich.csv", Some("device")),
            ("device-pools.csv", Some("device-pool")),
            ("device-pool_a.csv", Some("device-pool")),
            ("base-devices.2026.csv", Some("base-device")),
            ("usersx.csv", None),
            ("my-users.csv", None),
            (".csv", None),
        ] {
            assert_eq!(Kind::of_csv_file(file).map(|k| k.name), kind, "{file}");
        }
    }

    #[test]
    fn names_are_told_apart_and_the_first_column_names_the_row() {
        for (place, kind) in KINDS.iter().enumerate() {
            assert_eq!(KINDS.iter().position(|k| k.name == kind.name), Some(place));
            assert_eq!(kind.columns[0].default, None, "{}", kind.name);
            for (place, column) in kind.columns.iter().enumerate() {
                assert_eq!(kind.position(column.name), Some(place));
            }
        }
    }
}
