//! `run` and `lab`: what does not talk to a daemon but is one.

use std::{
    io::{self, Write as _},
    pin::pin,
};

use futures_util::future::OptionFuture;
use tokio::{
    io::AsyncReadExt as _,
    signal::unix::{Signal, SignalKind, signal},
};
use tracing::{error, info, warn};

use crate::{
    cli::{
        args::{self, Global},
        config,
        failure::{Failure, Outcome},
        output::{Format, Report},
        process,
    },
    clock::Clock,
    config::LogFormat,
    domain::version::VersionRange,
    fault::FaultPoints,
    lab::{
        NotLaidOut,
        member::Event,
        report::Style,
        run::{self as lab_run, Options as LabOptions},
    },
    node::{self, Node, Options},
    telemetry::{self, Logging},
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
    let logging = Logging {
        format: match config.log.format {
            LogFormat::Json => telemetry::Format::Json,
            LogFormat::Text => telemetry::Format::Text,
        },
        // The migrations say themselves that the schema is new, in words for developers.
        filter: format!("{},refinery_core=warn", config.log.level),
    };
    logging
        .start()
        .map_err(|cause| Failure::from_error("cannot start the log", &cause, "see log.level"))?;
    process::forbid_dumps();
    process::raise_file_limit(node::most_files(&config));
    let options = Options {
        versions: versions(&args)?,
        faults: args
            .stop_at
            .as_deref()
            .map_or_else(FaultPoints::none, |point| {
                FaultPoints::stop_at(point, |point, writes| {
                    tell(&Event::StoppedAt {
                        point: point.to_owned(),
                        writes: writes.iter().map(|&path| path.to_owned()).collect(),
                    });
                })
            }),
        clock: Clock::system(),
        take_over: args.take_over,
    };
    let mut signals = Signals::new()?;
    let mut hangup = listen(SignalKind::hangup())?;
    let ended = tokio::select! {
        biased;
        started = Node::start(config, options) => Ok(started),
        signal = signals.end() => Err(signal),
    };
    let node = match ended {
        Ok(started) => started
            .map_err(|cause| Failure::from_error("cannot run a node", &cause, cause.advice()))?,
        Err(signal) => {
            info!(signal, "asked to end before it served");
            return Ok(Report::new("", &()));
        }
    };
    if args.supervised {
        tell(&Event::Ready);
    }
    until_ended(&node, &mut signals, &mut hangup, args.supervised).await;
    tokio::select! {
        () = node.shut_down() => Ok(Report::new("", &())),
        again = signals.end() => {
            warn!(signal = again, "asked again: ending at once");
            Ok(Report::new("", &()))
        }
    }
}

/// Completes when the daemon is to end. Reading again waits for the store as long as that takes, and nobody who ends
/// us waits for it.
async fn until_ended(node: &Node, signals: &mut Signals, hangup: &mut Signal, supervised: bool) {
    let mut reload = pin!(OptionFuture::from(None));
    let mut is_reading = false;
    loop {
        tokio::select! {
            ended = signals.end() => {
                info!(signal = ended, "asked to end");
                return;
            }
            () = node.handed_over() => return,
            _ = hangup.recv(), if !is_reading => {
                is_reading = true;
                reload.set(Some(node.reload()).into());
            }
            Some(outcome) = reload.as_mut(), if is_reading => {
                is_reading = false;
                match outcome {
                    Ok(()) => info!("identities, peers and trust were read again"),
                    Err(cause) => error!(
                        cause = telemetry::error_chain(&cause),
                        "reading again failed; what was in force stays"
                    ),
                }
            }
            () = input_ended(), if supervised => return,
        }
    }
}

fn versions(args: &args::Run) -> Result<VersionRange, Failure> {
    let supported = VersionRange::SUPPORTED;
    let min = args.protocol_min.unwrap_or_else(|| supported.min());
    let max = args.protocol_max.unwrap_or_else(|| supported.max());
    VersionRange::new(min, max)
        .filter(|range| supported.contains(range.min()) && supported.contains(range.max()))
        .ok_or_else(|| {
            Failure::usage(
                "cannot run a node",
                format!(
                    "versions {min} to {max} are not within {supported}, which this software speaks"
                ),
                "leave --protocol-min and --protocol-max out, or narrow them",
            )
        })
}

/// One event for whoever supervises us. Whoever has gone away needs none.
fn tell(event: &Event) {
    let Ok(line) = serde_json::to_string(event) else {
        return;
    };
    let mut out = io::stdout().lock();
    let _gone = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Completes when standard input does.
async fn input_ended() {
    let mut input = tokio::io::stdin();
    let mut buffer = [0; 256];
    while matches!(input.read(&mut buffer).await, Ok(1..)) {}
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|cause| {
        Failure::from_error(
            "cannot listen to signals",
            &cause,
            "check the limits of the process",
        )
    })
}

/// The signals that end us.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Runs the lab.
///
/// # Errors
/// A lab that can't start, and with `--once` a step that was not as expected.
pub async fn lab(global: &Global, args: args::Lab) -> Outcome {
    // The nodes' own lines would drown the steps; EMCCD_LOG asks for them.
    let filter = std::env::var("EMCCD_LOG").unwrap_or_else(|_| "off".to_owned());
    Logging {
        format: telemetry::Format::Text,
        filter,
    }
    .start()
    .map_err(|cause| Failure::from_error("cannot start the log", &cause, "see EMCCD_LOG"))?;
    let processes = if args.processes {
        let binary = std::env::current_exe().map_err(|cause| {
            Failure::from_error(
                "cannot run nodes as processes",
                &cause,
                "run the lab without --processes",
            )
        })?;
        Some(binary)
    } else {
        None
    };
    let options = LabOptions {
        clusters: args.clusters.into(),
        nodes: args.nodes.into(),
        once: args.once,
        style: if Format::of(global) == Format::Json {
            Style::Json
        } else {
            Style::Text
        },
        processes,
        data: args.data,
    };
    let mut signals = Signals::new()?;
    let stays = !args.once;
    let ended = async move {
        tokio::select! {
            _ = signals.end() => {}
            // With --once standard input means nothing: it is closed in a build.
            () = input_ended(), if stays => {}
        }
    };
    let mut out = io::stdout();
    match lab_run::run(&options, &mut out, ended).await {
        Ok(lab_run::Outcome::Interrupted) => Err(Failure::new(
            "the lab was interrupted",
            "it was asked to end before all steps were carried out",
            "run it again and let it end by itself",
        )),
        Ok(lab_run::Outcome::AsExpected) => Ok(Report::new("", &())),
        Ok(lab_run::Outcome::Surprises(count)) => Err(Failure::new(
            "the lab met surprises",
            match count {
                1 => "1 step was not as expected".to_owned(),
                count => format!("{count} steps were not as expected"),
            },
            match options.style {
                Style::Text => "see FAIL above; EMCCD_LOG=info shows what the nodes said",
                Style::Json => {
                    "without --json it says what was expected; EMCCD_LOG=info shows what the nodes said"
                }
            },
        )),
        Err(cause) => Err(Failure::new(
            "cannot run the lab",
            format!("{cause:#}"),
            if cause.downcast_ref::<NotLaidOut>().is_none() {
                "EMCCD_LOG=info shows what the nodes said"
            } else if options.data.is_some() {
                "give --data a folder with one good file per cluster: berlin.toml, tokyo.toml and so on"
            } else {
                "check that files can be made in the temporary folder"
            },
        )),
    }
}
