//! EM codes: the numbers that a phone shows, with everything that is said about each. Pure.
//!
//! [`table`] is the one place where a code is described; the phone pages, the wire and `docs/em-codes.md` read
//! it.

mod table;

use std::fmt::Write as _;

pub use table::EmCode;

/// What stands in the table for one code.
#[derive(Clone, Copy, Debug)]
struct Row {
    name: &'static str,
    short: &'static str,
    login: &'static str,
    logout: &'static str,
    advice: &'static str,
    hint: &'static str,
    grpc: GrpcCode,
    raised: Raised,
}

/// The gRPC status code that a refusal travels under. The wire turns it into its own type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GrpcCode {
    /// `ALREADY_EXISTS`.
    AlreadyExists,
    /// `FAILED_PRECONDITION`.
    FailedPrecondition,
    /// `INTERNAL`.
    Internal,
    /// `INVALID_ARGUMENT`.
    InvalidArgument,
    /// `NOT_FOUND`.
    NotFound,
    /// `PERMISSION_DENIED`.
    PermissionDenied,
    /// `RESOURCE_EXHAUSTED`.
    ResourceExhausted,
    /// `UNAUTHENTICATED`.
    Unauthenticated,
    /// `UNAVAILABLE`.
    Unavailable,
    /// `UNKNOWN`.
    Unknown,
}

impl GrpcCode {
    /// The name in the gRPC documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Internal => "INTERNAL",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::NotFound => "NOT_FOUND",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// Whether this software ever shows a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// It does.
    Yes,
    /// It will, together with what the text names.
    Later(&'static str),
    /// It never will, for the reason in the text.
    Never(&'static str),
}

impl EmCode {
    /// The number on the phone.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The stable name, on the wire and in JSON: `USER_DOES_NOT_EXIST`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// What it means, in a few words.
    #[must_use]
    pub const fn short(self) -> &'static str {
        self.row().short
    }

    /// What the phone shows when a login ends so.
    #[must_use]
    pub fn login_text(self) -> String {
        self.row().login.to_owned()
    }

    /// What the phone shows when a logout ends so.
    #[must_use]
    pub fn logout_text(self) -> String {
        self.row().logout.to_owned()
    }

    /// What the user should do: the second line on the phone.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        self.row().advice
    }

    /// What the operator should look at, with a command to type.
    #[must_use]
    pub const fn operator_hint(self) -> &'static str {
        self.row().hint
    }

    /// The gRPC status code that a refusal with this code travels under.
    #[must_use]
    pub const fn grpc_code(self) -> GrpcCode {
        self.row().grpc
    }

    /// Whether this software ever shows it.
    #[must_use]
    pub const fn raised(self) -> Raised {
        self.row().raised
    }

    /// The code with this number.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.number() == number)
    }

    /// The code with this stable name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

/// The table as `docs/em-codes.md` has it.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(PAGE_HEAD);
    for code in EmCode::ALL {
        let row = code.row();
        let raised = match row.raised {
            Raised::Yes => "yes".to_owned(),
            Raised::Later(with) => format!("not yet: {with}"),
            Raised::Never(why) => format!("never: {why}"),
        };
        // Writing into a string can't fail.
        let _ = writeln!(
            page,
            "| {} | `{}` | {} | `{}` | `{}` | `{}` | {raised} |",
            code.number(),
            row.name,
            row.short,
            row.login,
            row.logout,
            row.grpc.name(),
        );
    }
    page.push_str(ADVICE_HEAD);
    for code in EmCode::ALL {
        let row = code.row();
        let _ = writeln!(
            page,
            "| {} | {} | {} |",
            code.number(),
            row.advice,
            row.hint
        );
    }
    page
}

const PAGE_HEAD: &str = "\
# EM codes

<!-- Generated from src/domain/em_code/table.rs. To bring it up to date:
     UPDATE_GOLDEN=1 cargo test --lib em_code -->

The number on the phone tells what went wrong. 0 to 47 come from the EM service, 201 to 216 from the EM
application. A number that is not listed is not in use.

Every code is shown as what it is: a silent peer is 40 and never \"user does not exist\".

| code | name | meaning | phone, login | phone, logout | gRPC status | raised |
|---|---|---|---|---|---|---|
";

const ADVICE_HEAD: &str = "
## What to do

The phone shows the advice below the text, and the reference of the attempt below that. The hint is for the
operator.

| code | advice to the user | hint to the operator |
|---|---|---|
";

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env, fs, path::Path};

    use super::*;

    fn screaming(variant: &str) -> String {
        let mut name = String::new();
        for (i, c) in variant.chars().enumerate() {
            if c.is_ascii_uppercase() && i > 0 {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
        name
    }

    #[test]
    fn the_document_is_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/em-codes.md");
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, markdown()).unwrap();
        }
        let document = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            document == markdown(),
            "docs/em-codes.md is not the table: UPDATE_GOLDEN=1 cargo test --lib em_code"
        );
    }

    #[test]
    fn every_row_is_complete() {
        for code in EmCode::ALL {
            let row = code.row();
            assert_eq!(row.name, screaming(&format!("{code:?}")));
            assert!(
                row.name.len() <= 63,
                "{code:?}: an ErrorInfo reason is at most 63 characters"
            );
            assert!(
                !row.short.is_empty() && !row.short.ends_with('.'),
                "{code:?}"
            );
            assert!(
                (10..=100).contains(&row.advice.chars().count()),
                "{code:?}: {}",
                row.advice
            );
            assert!(
                row.advice.ends_with('.') && row.hint.ends_with('.'),
                "{code:?}"
            );
            assert!(
                row.hint.contains("`emccd "),
                "{code:?}: a hint has a command to type"
            );
            assert!(
                row.login.is_ascii() && row.advice.is_ascii(),
                "{code:?}: old phones know ASCII"
            );
            assert!(
                row.login.len() <= 32,
                "{code:?}: a prompt has 32 characters"
            );
            assert!(
                !row.hint.contains('|') && !row.short.contains('|'),
                "{code:?}"
            );
        }
    }

    #[test]
    fn the_texts_carry_the_number_where_phones_have_always_shown_it() {
        for code in EmCode::ALL {
            let number = format!("({})", code.number());
            assert!(code.logout_text().ends_with(&number), "{code:?}");
            match code {
                EmCode::PinChangeRequired => {
                    assert_eq!(code.login_text(), "PIN change is required");
                }
                EmCode::ChangePin => assert_eq!(code.login_text(), "[209]-Change PIN"),
                _ => assert!(code.login_text().ends_with(&number), "{code:?}"),
            }
        }
    }

    #[test]
    fn the_spelling_is_what_users_have_in_their_hands() {
        for (number, text) in [
            (0, "Login is unavailable(0)"),
            (23, "Login is unavailable(23)"),
            (25, "Multi-Login Not Allowed (25)"),
            (37, "Login is Unavailable (37)"),
            (39, "Login is unavailable(39)"),
            (40, "Login is unavailable(40)"),
            (44, "Login is unavailable(44)"),
            (45, "Login is unsuccessful(45)"),
            (47, "DN has multiple users(47)"),
            (201, "Please try to login again (201)"),
            (202, "Please try to login again (202)"),
            (205, "Login is unavailable (205)"),
            (208, "Login is unavailable(208)"),
            (215, "LoginType invalid(215)"),
            (216, "DN has multiple users(216)"),
        ] {
            assert_eq!(EmCode::from_number(number).unwrap().login_text(), text);
        }
        assert_eq!(
            EmCode::NoUserLoggedIn.logout_text(),
            "Logout is unavailable(19)"
        );
    }

    #[test]
    fn numbers_and_names_are_unique_and_lead_back() {
        let numbers: BTreeSet<_> = EmCode::ALL.iter().map(|code| code.number()).collect();
        let names: BTreeSet<_> = EmCode::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(
            (numbers.len(), names.len()),
            (EmCode::ALL.len(), EmCode::ALL.len())
        );
        assert!(EmCode::ALL.is_sorted(), "the document goes up by number");
        for code in EmCode::ALL {
            assert_eq!(EmCode::from_number(code.number()), Some(*code));
            assert_eq!(EmCode::from_name(code.name()), Some(*code));
        }
        for number in [13, 24, 34, 48, 203, 206, 214, 217, u16::MAX] {
            assert_eq!(EmCode::from_number(number), None);
        }
        assert_eq!(EmCode::from_name("user_does_not_exist"), None);
    }

    #[test]
    fn codes_travel_under_their_status() {
        for (status, numbers) in [
            (GrpcCode::NotFound, &[23][..]),
            (GrpcCode::Unauthenticated, &[2, 42]),
            (
                GrpcCode::FailedPrecondition,
                &[1, 47, 41, 43, 45, 46, 4, 12],
            ),
            (GrpcCode::ResourceExhausted, &[26, 33]),
            (GrpcCode::AlreadyExists, &[18, 25, 37]),
            (GrpcCode::PermissionDenied, &[31, 35, 38]),
            (GrpcCode::Internal, &[6]),
            (GrpcCode::Unavailable, &[40, 208]),
            (GrpcCode::Unknown, &[0]),
        ] {
            for number in numbers {
                assert_eq!(
                    EmCode::from_number(*number).unwrap().grpc_code(),
                    status,
                    "{number}"
                );
            }
        }
    }
}
