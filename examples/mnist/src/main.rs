//! `mnist`: trains and serves MNIST classifiers with muster.

mod cli;
mod console;
mod digests;
mod doctor;
mod driver;
mod evaluator;
mod fabric;
mod fed;
mod fetch;
mod inference;
mod launched;
mod material;
mod memory;
mod parts;
mod plan;
mod prepare;
mod ranks;
mod recipe;
mod settings;
mod source;
mod synthetic;
mod tensorboard;
mod train;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut cli = cli::Cli::parse_from(cli::normalized(std::env::args_os()));
    let done = match &mut cli.command {
        cli::Command::Train(options) => train::run(options),
        cli::Command::Inference(options) => inference::run(options),
        cli::Command::Prepare(options) => prepare::run(options),
        cli::Command::Doctor(options) => doctor::run(options),
        cli::Command::Fetch(options) => fetch_to(options),
        cli::Command::Completions { shell } => completions(*shell),
        cli::Command::Man { directory } => man(directory),
    };
    done.unwrap_or_else(|error| {
        console::remark(format_args!("mnist: {error:#}"));
        ExitCode::FAILURE
    })
}

fn fetch_to(options: &cli::Fetch) -> anyhow::Result<ExitCode> {
    let to = options.to.clone().unwrap_or_else(|| source::cache_dir(&|text| console::remark(text)));
    fetch::fetch(&to, &|text| console::remark(text))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what a shell needs to complete this command's options.
fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::Cli::command(), "mnist", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a manual page for the command and for each of its subcommands.
fn man(directory: &Path) -> anyhow::Result<ExitCode> {
    let written = clap_mangen::generate_to(cli::Cli::command(), directory);
    written.with_context(|| format!("cannot write manual pages into {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}
