//! `mnist doctor`

use crate::cli;
use crate::console::Console;
use anyhow::Result;
use muster::doctor::examine;
use muster::storage::Storage;
use std::process::ExitCode;

/// Prints a line for each thing that a run needs; the exit code is 1 when one of them is wrong.
pub fn run(options: &cli::Doctor) -> Result<ExitCode> {
    let console = Console::new(0, "");
    let findings = examine(&Storage::from_environment()?, &options.paths);
    findings.iter().for_each(|finding| console.line(finding));
    let good = findings.iter().all(|finding| finding.good);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
