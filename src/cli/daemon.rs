//! `run` and `lab`: what does not talk to a daemon but is one.

use crate::cli::{
    args::{self, Global},
    config,
    failure::{Failure, Outcome},
    output::{Format, Report},
};

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// A configuration that can't be used, and a node that can't start.
pub async fn run(global: &Global, args: args::Run) -> Outcome {
    let Some(file) = global.config.as_deref() else {
        return Err(Failure::usage(
            "cannot run a node",
            "no configuration is named",
            "name it: emccd run --config FILE; emccd init makes one",
        ));
    };
    let config = config::load(file)?;
    let _ = (config, args);
    Err(Failure::new(
        "cannot run a node",
        "the node is not wired yet",
        "-",
    ))
}

/// Runs the lab.
///
/// # Errors
/// A lab that can't start, and with `--once` a step that was not as expected.
pub async fn lab(global: &Global, args: args::Lab) -> Outcome {
    let format = Format::of(global);
    let _ = (format, args, Report::new("", &()));
    Err(Failure::new(
        "cannot run a lab",
        "the lab is not wired yet",
        "-",
    ))
}
