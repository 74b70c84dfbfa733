//! Whether a job could run: everything is tried, by a job whose ranks only register.

use crate::agent::Agent;
use crate::error::Error;
use crate::job::{Job, Processes};
use crate::message::Program;
use crate::notice::Notice;
use muster::doctor::Finding;
use muster::storage::Storage;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;

/// Tries a job, whose program is to call [`rank`], and looks at the paths that jobs will read or write.
pub fn examine(job: &Job, paths: &[PathBuf]) -> Vec<Finding> {
    let mut findings = Vec::new();
    match Processes::find(job.engine) {
        Ok(mut executor) => try_job(job, &mut executor, &mut findings),
        Err(error) => findings.push(bad(format!("engine {}: {error}", job.engine.name()))),
    }
    match Storage::from_environment() {
        Ok(storage) => findings.extend(muster::doctor::examine(&storage, paths)),
        Err(error) => findings.push(bad(error.to_string())),
    }
    findings
}

fn try_job(job: &Job, executor: &mut Processes, findings: &mut Vec<Finding>) {
    findings.push(good(format!("engine {}: {}", job.engine.name(), executor.describe())));
    let mut watch = |notice: &Notice| match notice {
        Notice::Listening(_) | Notice::Registered(..) => findings.push(good(notice.to_string())),
        Notice::Refused(_) | Notice::Waiting(_) => findings.push(bad(notice.to_string())),
        _ => {}
    };
    let tried = crate::run(job, executor, &AtomicUsize::new(0), &mut watch);
    findings.push(match tried {
        Ok(_) => good(format!("all {} ranks registered, began and ended", job.ranks)),
        Err(error) => bad(error.to_string()),
    });
}

/// What every rank of the job does that [`examine`] tries.
///
/// # Errors
/// If the launcher has not started this process, or is not reached.
pub fn rank() -> Result<(), Error> {
    let program = Program::training("muster", env!("CARGO_PKG_VERSION"), "none", None);
    let Some(agent) = Agent::of_this_process(program)? else {
        let what = "`muster rank` was started by hand".to_owned();
        return Err(Error::Usage { what, mend: "`muster doctor` runs it on every rank" });
    };
    agent.wait_for_start()?;
    agent.finish(Ok(()))
}

fn good(what: String) -> Finding {
    Finding { good: true, what }
}

fn bad(what: String) -> Finding {
    Finding { good: false, what }
}
