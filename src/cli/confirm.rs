//! Asking before something is done that can't be taken back.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::cli::{
    failure::{Failure, Outcome},
    output::clean,
};

/// Asks on the terminal. `what` is what can't be done when the answer is not yes.
///
/// # Errors
/// When it was answered with anything but yes, or there is nobody to ask.
pub(super) fn confirm(what: &str, question: &str) -> Outcome<()> {
    confirm_list(what, &[], question)
}

/// The same, with what it is about above the question.
///
/// # Errors
/// As [`confirm`].
pub(super) fn confirm_list(what: &str, lines: &[String], question: &str) -> Outcome<()> {
    let mut input = io::stdin().lock();
    let terminal = input.is_terminal();
    ask(
        what,
        (lines, question),
        terminal,
        &mut input,
        &mut io::stderr(),
    )
}

fn ask(
    what: &str,
    (lines, question): (&[String], &str),
    terminal: bool,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Outcome<()> {
    if !terminal {
        return Err(Failure::new(
            what,
            "it has to be confirmed, and there is no terminal to ask on",
            "add --yes",
        ));
    }
    for line in lines {
        let _ = writeln!(out, "{}", clean(line));
    }
    let mut line = String::new();
    let asked = write!(out, "{} [y/N] ", clean(question))
        .and_then(|()| out.flush())
        .and_then(|()| input.read_line(&mut line));
    match (asked, line.trim().to_ascii_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => Err(Failure::new(
            what,
            "it was not confirmed",
            "nothing was changed",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for (typed, confirmed) in [
            ("y\n", true),
            ("YES\n", true),
            ("\n", false),
            ("", false),
            ("n\n", false),
        ] {
            let mut shown = Vec::new();
            let asked = ask(
                "cannot",
                (&["- user bob".to_owned()], "Sure?"),
                true,
                &mut typed.as_bytes(),
                &mut shown,
            );
            assert_eq!(asked.is_ok(), confirmed, "{typed:?}");
            assert_eq!(shown, b"- user bob\nSure? [y/N] ");
        }
    }

    #[test]
    fn without_a_terminal_it_wants_the_option() {
        let refused = ask(
            "cannot",
            (&[], "Sure?"),
            false,
            &mut &b"y\n"[..],
            &mut Vec::new(),
        );
        assert!(refused.unwrap_err().to_string().contains("next: add --yes"));
    }
}
