//! The error page: the EM text, what the user should do, and the ref to quote.

use tracing::info;

use super::xml::{SoftKey, TextPage};
use crate::{
    domain::{em_code::EmCode, ids::Ref},
    visiting::Failure,
};

/// What was asked for; the texts differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The start page, or a login.
    Login,
    /// A logout.
    Logout,
}

/// The page for a failure. Its cause is for the log alone.
pub fn page(act: Act, failure: &Failure, retry_url: Option<String>) -> String {
    let Failure {
        code,
        cause,
        reference,
        retry_after,
    } = failure;
    info!(em_code = code.number(), r#ref = %reference, cause = %cause, "refused on the phone");
    let (prompt, text) = match act {
        Act::Login => ("Not logged in", code.login_text()),
        Act::Logout => ("Not logged out", code.logout_text()),
    };
    let mut lines = vec![text, code.advice().to_owned()];
    if let Some(wait) = retry_after {
        let seconds = wait.as_millis().div_ceil(1_000).max(1);
        lines.push(format!("Try again in {seconds} s."));
    }
    lines.push(format!("Ref: {reference}"));
    let keys = match retry_url {
        Some(url) => vec![
            SoftKey::new(1, "Retry", url),
            SoftKey::new(2, "Exit", "SoftKey:Exit"),
        ],
        None => vec![SoftKey::new(1, "Exit", "SoftKey:Exit")],
    };
    TextPage::new(prompt, &lines, keys).to_xml()
}

/// The failure of an attempt whose task ended without an answer: a bug of ours.
pub fn lost(reference: Ref) -> Failure {
    Failure {
        code: EmCode::UnknownError,
        cause: "the attempt ended without an answer".to_owned(),
        reference,
        retry_after: None,
    }
}
