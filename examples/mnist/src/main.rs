//! `mnist`: trains and serves MNIST classifiers with muster.

mod cli;
mod console;
mod doctor;
mod driver;
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
mod source;
mod synthetic;
mod train;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse_from(cli::normalized(std::env::args_os()));
    let done = match &cli.command {
        cli::Command::Train(options) => train::run(options),
        cli::Command::Inference(options) => inference::run(options),
        cli::Command::Prepare(options) => prepare::run(options),
        cli::Command::Doctor(options) => doctor::run(options),
        cli::Command::Fetch(options) => fetch_to(options),
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
