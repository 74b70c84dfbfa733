//! The rank that evaluates each checkpoint as it appears: a thread beside a training in this process, or a process of its own.

use crate::console::{self, Console, interrupts};
use crate::launched::Launched;
use crate::{cli, material};
use anyhow::{Context, Result, anyhow};
use muster::evaluator::Evaluator;
use muster::metrics::{Evaluated, EvaluationLog};
use muster::records::Records;
use muster::storage::Storage;
use muster_kernels::Kernels;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};

/// The number of SIGTERM: an evaluator that fails stops its training in order.
const SIGTERM: usize = 15;

/// The part of a rank that is alone in its process.
pub fn run_rank(options: &cli::Train, launched: &Launched) -> Result<ExitCode> {
    launched.start(1)?;
    // The others are told to end, and the launcher tells this one when they have.
    let _ignored = interrupts(launched.interrupt())?;
    let storage = Arc::new(Storage::from_environment()?);
    let (model, test) = material::of_evaluator(options, &storage)?;
    let (test, kernels) = (records(test.as_ref())?, Kernels::select()?);
    let threads = options.cluster.threads.unwrap_or(1);
    let evaluator = Evaluator::new((&storage, &options.model), (&model, kernels), test, threads);
    let log_dir = options.launch.log_dir.as_deref().or(launched.log_dir());
    let mut evaluator = logged(evaluator, &storage, log_dir)?;
    evaluator.follow(
        |time| launched.training_ends_within(time),
        |evaluated| {
            console::line(words(evaluated));
            launched.evaluated(evaluated.step);
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Does `train` while a thread evaluates. What goes wrong there becomes an `interrupt`, and is the error.
pub fn beside<T>(
    mut evaluator: Evaluator,
    (console, launched): (&Console, &Launched),
    interrupt: &AtomicUsize,
    train: impl FnOnce() -> T,
) -> Result<T> {
    let (ended, end) = channel::<()>();
    std::thread::scope(|scope| {
        let evaluating = scope.spawn(move || {
            let ends_within =
                |time| Ok::<_, anyhow::Error>(end.recv_timeout(time) != Err(RecvTimeoutError::Timeout));
            let each = |evaluated: &Evaluated| {
                console.line(words(evaluated));
                launched.evaluated(evaluated.step);
            };
            let done = catch_unwind(AssertUnwindSafe(|| evaluator.follow(ends_within, each)));
            let done = done.unwrap_or_else(|_| Err(anyhow!("a thread panicked; its message stands above")));
            if done.is_err() {
                interrupt.store(SIGTERM, Ordering::Relaxed);
            }
            done
        });
        let outcome = train();
        drop(ended);
        evaluating.join().expect("it catches its panics").context("the evaluator has failed")?;
        Ok(outcome)
    })
}

/// The records to evaluate on.
pub fn records(test: Option<&Records>) -> Result<&Records> {
    test.context(
        "--evaluator has nothing to evaluate on; name a test set with --test-images, or leave it out",
    )
}

/// With a log, if there is a directory for it.
pub fn logged<'a>(
    evaluator: Evaluator<'a>,
    storage: &Arc<Storage>,
    directory: Option<&Path>,
) -> Result<Evaluator<'a>> {
    let Some(directory) = directory else { return Ok(evaluator) };
    let log = EvaluationLog::open(storage, directory);
    Ok(evaluator.with_log(log.context("cannot begin to write evaluations; choose another --log-dir")?))
}

fn words(evaluated: &Evaluated) -> String {
    let Evaluated { step, loss, accuracy, .. } = evaluated;
    format!("evaluator: step {step}: test loss {loss:.4}, test accuracy {:.2} %", 100.0 * accuracy)
}
