//! The launcher as a library: `mnist train --cluster-size 4 --engine mpirun` and `--input-mode feed` start and feed the ranks themselves.

use crate::{cli, console, fed};
use anyhow::{Result, bail};
use muster_collective::launched;
use muster_launcher::control::Ports;
use muster_launcher::driver::Outcome;
use muster_launcher::engine::EngineName;
use muster_launcher::hosts;
use muster_launcher::job::{Input, Job, Limits, Processes};
use muster_launcher::notice::Notice;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Runs this very command on its ranks and watches it, if the options ask for that and nobody else does it already.
pub fn run(options: &cli::Launch, ranks: Option<usize>, evaluator: bool) -> Result<Option<ExitCode>> {
    let is_started = std::env::var_os("MUSTER_DRIVER").is_some();
    let hosts = hosts::given(options.hosts.as_deref(), options.hostfile.as_deref())?;
    let is_alone = options.engine.is_none() && hosts.is_empty() && fed::input(options)? == Input::Program;
    if is_started || is_alone {
        return Ok(None);
    }
    if launched::Launched::here().is_some() {
        bail!("these ranks were started by mpirun or srun, where nobody feeds them; use `muster run --feed`");
    }
    let mut program = vec![std::env::current_exe()?.into_os_string()];
    program.extend(std::env::args_os().skip(1));
    let engine = options.engine.unwrap_or(EngineName::Auto).engine(!hosts.is_empty());
    let job = Job {
        program,
        ranks: ranks.unwrap_or(1 + usize::from(evaluator)),
        hosts,
        engine,
        bind: None,
        ports: Ports(0, 0),
        evaluator,
        input: Input::Program,
        faults: Vec::new(),
        log_dir: options.log_dir.clone(),
        limits: Limits { restarts: options.max_restarts, ..Limits::default() },
    };
    job.check()?;
    let interrupt = console::interrupts(Arc::new(AtomicUsize::new(0)))?;
    let mut watch = |notice: &Notice| match notice {
        Notice::Fed(_)
        | Notice::Scored(_)
        | Notice::Refused(_)
        | Notice::Restarting(_)
        | Notice::Waiting(_) => {
            console::remark(format_args!("mnist: {notice}"));
        }
        _ => {}
    };
    Ok(Some(match muster_launcher::run(&job, &mut Processes::find(engine)?, &interrupt, &mut watch)? {
        Outcome::Finished => ExitCode::SUCCESS,
        Outcome::Stopped(signal) => ExitCode::from(128 + signal as u8),
    }))
}
