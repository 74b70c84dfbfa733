//! A whole job: attempt after attempt, until one of them ends well.

use crate::driver::{Driver, Outcome};
use crate::error::Error;
use crate::job::{Executor, Job};
use crate::job_file::JobFile;
use crate::message::Task;
use crate::notice::Notice;
use std::sync::atomic::AtomicUsize;

/// Runs a job, with as many restarts as its limits allow. `interrupt` becomes a signal's number when one comes; `watch` is told what
/// happens. The processes end with the thread that calls this.
///
/// # Errors
/// The first thing that went wrong in the last attempt.
pub fn run(
    job: &Job,
    executor: &mut dyn Executor,
    interrupt: &AtomicUsize,
    watch: &mut dyn FnMut(&Notice),
) -> Result<Outcome, Error> {
    let mut driver = Driver::listen(job, interrupt, watch)?;
    let _file = JobFile::create(&driver)?;
    attempts(&mut driver, executor)
}

/// Attempt after attempt, as many as the job allows.
pub(crate) fn attempts(driver: &mut Driver, executor: &mut dyn Executor) -> Result<Outcome, Error> {
    let mut attempt = 0;
    loop {
        match phases(driver, executor, attempt) {
            Err(error @ (Error::Rank(_) | Error::Engine { .. })) if attempt < driver.job.limits.restarts => {
                (driver.watch)(&Notice::Restarting(error.to_string()));
                attempt += 1;
            }
            end => return end,
        }
    }
}

/// One attempt: reserve, start, train or infer, shut down.
fn phases(driver: &mut Driver, executor: &mut dyn Executor, attempt: u32) -> Result<Outcome, Error> {
    let reserved = driver.reserve(executor, attempt)?;
    let started = reserved.start()?;
    let finished = match started.task() {
        Task::Train => started.train()?,
        Task::Inference => started.inference()?,
    };
    finished.shutdown()
}
