//! What keeping many sessions true costs: `cargo bench --bench sessions`, or `-- exchange`, `-- expiry` for one of the
//! parts.
//!
//! Each part prints what it measured and what is wanted; where a figure is above that it exits with 1.

#![expect(
    clippy::print_stdout,
    reason = "what a bench measures goes to standard output"
)]

mod exchange;
mod expiry;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> Result<ExitCode> {
    let wanted = |part: &str| {
        let named: Vec<_> = std::env::args()
            .skip(1)
            .filter(|word| !word.starts_with('-'))
            .collect();
        named.is_empty() || named.iter().any(|name| name == part)
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let mut is_met = true;
    if wanted("exchange") {
        is_met &= runtime.block_on(exchange::run())?;
    }
    if wanted("expiry") {
        is_met &= runtime.block_on(expiry::run())?;
    }
    Ok(match is_met {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
