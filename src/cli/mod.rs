//! Commands: run the daemon, or talk to one.

mod apply;
pub mod args;
mod as_of;
mod audit;
mod cert;
mod client;
mod cluster;
mod config;
mod confirm;
mod daemon;
mod db;
mod directory;
mod doctor;
mod export;
pub mod failure;
mod generate;
mod init;
pub mod output;
mod pair;
mod param;
mod people;
mod phone;
mod policy;
mod process;
mod progress;
mod rotate;
mod rotate_watch;
mod session;
mod stores;
mod trust;
mod trust_accept;
mod trust_bulk;
mod trust_crl;
mod trust_explain;
mod trust_files;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use clap::Parser as _;
use tokio::runtime::Runtime;

use self::{
    args::{Command, CommandLine},
    failure::{Failure, Outcome},
    output::Format,
};

/// Runs one command line, prints what it has to say, and gives the exit code: 0 done, 1 refused or failed,
/// 2 usage.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let wants_json = arguments.iter().any(|argument| argument == "--json");
    let command_line = match CommandLine::try_parse_from(arguments) {
        Ok(command_line) => command_line,
        // What is wrong elsewhere on the line can't have been parsed, so the word alone decides.
        Err(usage) if wants_json && usage.use_stderr() => {
            return complain(&Failure::from_usage(&usage), Format::Json);
        }
        Err(usage) => {
            // Help and version come this way too, and go to standard output.
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(USAGE));
        }
    };
    let command_line = CommandLine {
        global: command_line
            .global
            .with_environment(|name| std::env::var_os(name)),
        ..command_line
    };
    let format = Format::of(&command_line.global);
    let written = run(command_line).map(|report| {
        if let (Format::Json, Some(note)) = (format, &report.note) {
            // Nobody listens: the document is as good without.
            let _ = writeln!(io::stderr().lock(), "{note}");
        }
        let code = if report.fails {
            FAILED
        } else {
            ExitCode::SUCCESS
        };
        report
            .write(&mut io::stdout().lock(), format)
            .map(|()| code)
    });
    match written {
        Ok(Ok(code)) => code,
        // Whoever read our output has seen enough.
        Ok(Err(closed)) if closed.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Ok(Err(cause)) => complain(
            &Failure::from_error(
                "cannot write to standard output",
                &cause,
                "check where it goes",
            ),
            format,
        ),
        Err(failure) => complain(&failure, format),
    }
}

fn run(command_line: CommandLine) -> Outcome {
    /// How long what is left over may take to end.
    const LEFT_OVER: Duration = Duration::from_millis(250);
    let runtime = Runtime::new().map_err(|cause| {
        Failure::from_error(
            "cannot start",
            &cause,
            "check the limits on threads and files",
        )
    })?;
    let outcome = runtime.block_on(dispatch(command_line));
    // A read of standard input that nobody waits for any more ends when it likes.
    runtime.shutdown_timeout(LEFT_OVER);
    outcome
}

async fn dispatch(CommandLine { global, command }: CommandLine) -> Outcome {
    let global = &global;
    if global.wait.is_some() && !command.asks_a_daemon() {
        return Err(Failure::usage(
            "cannot wait for a daemon",
            "this command asks none",
            "leave --wait out",
        ));
    }
    match command {
        Command::Init(args) => init::run(args),
        Command::Run(args) => daemon::run(global, args).await,
        Command::Lab(args) => daemon::lab(global, args).await,
        Command::Config(verb) => config::run(global, &verb),
        Command::Apply(args) => apply::run(global, &args).await,
        Command::Export(args) => export::run(global, &args).await,
        Command::Cluster(verb) => cluster::run(global, verb).await,
        Command::Cert(verb) => cert::run(global, verb).await,
        Command::Trust(verb) => trust::run(global, verb).await,
        Command::User(verb) => directory::user(global, verb).await,
        Command::Device(verb) => directory::device(global, verb).await,
        Command::Base(verb) => directory::base(global, verb).await,
        Command::Pin(verb) => policy::pin(global, verb).await,
        Command::Policy(verb) => policy::run(global, verb).await,
        Command::Profile(verb) => people::profile(global, verb).await,
        Command::Completions { shell } => generate::completions(shell),
        Command::Man { out } => generate::man(&out),
        Command::Param(verb) => param::run(global, verb).await,
        Command::Session(verb) => session::run(global, verb).await,
        Command::Audit(verb) => audit::run(global, verb).await,
        Command::Db(verb) => db::run(global, verb).await,
        Command::Phone(verb) => phone::run(verb).await,
        Command::Doctor => doctor::run(global).await,
    }
}

fn complain(failure: &Failure, format: Format) -> ExitCode {
    // Nothing is left to tell it to when standard error is closed.
    let _ = match format {
        Format::Json => writeln!(io::stderr().lock(), "{}", failure.to_json()),
        Format::Text => writeln!(io::stderr().lock(), "{failure}"),
    };
    ExitCode::from(failure.exit_code())
}

/// What was asked for was done, and what it found is not as it should be.
const FAILED: ExitCode = ExitCode::FAILURE;

/// The command line itself is wrong.
const USAGE: u8 = 2;

#[cfg(test)]
mod tests;
