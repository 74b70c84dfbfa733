//! `muster`: runs programs built on muster on a cluster.

mod cli;

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser};
use muster::console::{line, remark};
use muster::storage::{Storage, file};
use muster_benches::options::Options;
use muster_launcher::driver::Outcome;
use muster_launcher::job::Processes;
use muster_launcher::job_file::{self, Entry};
use muster_launcher::message::{Hello, Status};
use muster_launcher::plan::{self, Machine, Plan};
use muster_launcher::{Error, doctor, notice::Notice};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let done = match &cli.command {
        cli::Command::Run(options) => run(options),
        cli::Command::Plan(options) => show_plan(options),
        cli::Command::Bench(options) => bench(options),
        cli::Command::Doctor(options) => examine(options),
        cli::Command::Rank => doctor::rank().map(|()| ExitCode::SUCCESS).map_err(Into::into),
        cli::Command::Status => status(),
        cli::Command::Completions { shell } => completions(*shell),
        cli::Command::Man { directory } => man(directory),
        cli::Command::Stop { job } => stop(job.as_deref()),
        cli::Command::Report(options) => report(options),
    };
    done.unwrap_or_else(|error| {
        remark(format_args!("muster: {error:#}"));
        ExitCode::from(exit_code(&error))
    })
}

/// 2 for what was asked wrongly, 124 as `timeout` has it, 128 and the signal's number after a signal, else 1.
fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(muster_benches::Error::Usage(_)) = error.downcast_ref() {
        return 2;
    }
    match error.downcast_ref() {
        Some(Error::Usage { .. }) => 2,
        Some(Error::Timeout { .. }) => 124,
        Some(Error::Interrupted { signal }) => 128 + *signal as u8,
        _ => 1,
    }
}

fn run(options: &cli::Run) -> Result<ExitCode> {
    let job = options.job()?;
    let mut executor = Processes::find(job.engine)?;
    let interrupt = interrupts()?;
    let mut watch = |notice: &Notice| remark(format_args!("muster: {notice}"));
    Ok(match muster_launcher::run(&job, &mut executor, &interrupt, &mut watch)? {
        Outcome::Finished => ExitCode::SUCCESS,
        Outcome::Stopped(signal) => ExitCode::from(128 + signal as u8),
    })
}

fn show_plan(options: &cli::Plan) -> Result<ExitCode> {
    let job = options.place.job(options.program.clone())?;
    let program = plan::ask(&job)?;
    let Plan { lines, remarks, misfits } = plan::plan(&job, &program, Machine::this());
    lines.into_iter().for_each(line);
    remarks.iter().for_each(|text| line(format_args!("note: {text}")));
    misfits.iter().for_each(|text| line(format_args!("does not fit: {text}")));
    Ok(if misfits.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn bench(options: &Options) -> Result<ExitCode> {
    options.run()?;
    Ok(ExitCode::SUCCESS)
}

fn examine(options: &cli::Doctor) -> Result<ExitCode> {
    let findings = doctor::examine(&options.job()?, &options.paths);
    findings.iter().for_each(line);
    let good = findings.iter().all(|finding| finding.good);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A number that becomes that of the first signal; a second signal ends this process at once, and with it all others.
fn interrupts() -> Result<Arc<AtomicUsize>> {
    let interrupt = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, seen.clone())?;
        signal_hook::flag::register(signal, seen.clone())?;
        signal_hook::flag::register_usize(signal, interrupt.clone(), signal as usize)?;
    }
    Ok(interrupt)
}

fn status() -> Result<ExitCode> {
    let entries = job_file::list(&job_file::directory()?)?;
    if entries.is_empty() {
        line("no job runs");
    }
    for entry in entries {
        match entry.ask(&Hello::Status) {
            Ok(status) => show(&entry, &status),
            Err(error) => line(format_args!("{}  process {}: {error}", entry.job, entry.pid)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(entry: &Entry, status: &Status) {
    line(format_args!("{}  {}", entry.job, entry.program.join(" ")));
    line(format_args!(
        "  {}, {:.1} s, attempt {}, driver {} at {}",
        status.phase, status.seconds, status.attempt, entry.pid, entry.address
    ));
    for rank in &status.ranks {
        let place =
            rank.place.as_ref().map_or("not registered".to_owned(), |(host, pid)| format!("{host} {pid}"));
        let phase = format!("{:?}", rank.progress.phase).to_lowercase();
        line(format_args!(
            "  rank {:<4} {:<9} {place:<24} {phase:<10} step {:<8} {:.1} steps/s, heard {:.1} s ago",
            rank.rank,
            rank.role.name(),
            rank.progress.step,
            rank.rate,
            rank.silent_seconds
        ));
    }
    if !status.waits.is_empty() {
        line(format_args!("  {}", status.waits));
    }
}

fn stop(job: Option<&str>) -> Result<ExitCode> {
    let entries = job_file::list(&job_file::directory()?)?;
    let names = || entries.iter().map(|entry| entry.job.as_str()).collect::<Vec<_>>().join(", ");
    let chosen: Vec<&Entry> =
        entries.iter().filter(|entry| job.is_none_or(|name| entry.job == name)).collect();
    let [entry] = chosen[..] else {
        match (entries.len(), job) {
            (0, _) => bail!("no job runs"),
            (_, None) => bail!("several jobs run; name one of them: {}", names()),
            (_, Some(name)) => bail!("there is no job {name}; there are: {}", names()),
        }
    };
    entry.ask(&Hello::Stop)?;
    line(format_args!("{} was told to stop", entry.job));
    Ok(ExitCode::SUCCESS)
}

/// Prints what a shell needs to complete this command's options.
fn completions(shell: clap_complete::Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::Cli::command(), "muster", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a manual page for the command and for each of its subcommands.
fn man(directory: &Path) -> Result<ExitCode> {
    let written = clap_mangen::generate_to(cli::Cli::command(), directory);
    written.with_context(|| format!("cannot write manual pages into {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn report(options: &cli::Report) -> Result<ExitCode> {
    let storage = Storage::from_environment()?;
    let report = muster_launcher::report::report(&storage, &options.directories)?;
    report.remarks.iter().for_each(|text| remark(format_args!("note: {text}")));
    file::write_atomic(&options.output, |out| out.write_all(report.html.as_bytes()))?;
    line(format_args!("{}", options.output.display()));
    Ok(ExitCode::SUCCESS)
}
