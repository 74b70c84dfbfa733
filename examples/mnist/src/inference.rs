//! `mnist inference`

use crate::cli;
use crate::console::{self, Console};
use crate::launched::Launched;
use crate::source;
use anyhow::{Context, Result, bail, ensure};
use muster::inference::{Confusion, predict, read_model};
use muster::storage::file;
use muster_kernels::Kernels;
use muster_launcher::message::Task;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// Classifies the test digits and writes `label prediction` lines; without labels, `- prediction`.
pub fn run(options: &cli::Inference) -> Result<ExitCode> {
    options.data.later.refuse()?;
    options.seed_mode.check("inference")?;
    ensure!(
        options.cluster_size == 1,
        "--cluster-size {} in inference is not built yet in this version; leave it out",
        options.cluster_size
    );
    let kernels = Kernels::select()?;
    let launched = Launched::register(Task::Inference, kernels)?;
    let done = run_here(options, kernels, &launched);
    launched.finish(done)
}

fn run_here(options: &cli::Inference, kernels: &Kernels, launched: &Launched) -> Result<ExitCode> {
    let (model, weights) = read_model(&options.model)?;
    let output = Output::create(&options.output, options.overwrite)?;
    let mnist = source::open(options.data.data.as_deref(), &|text| console::remark(text))?;
    if let Some(warning) = &mnist.warning {
        console::remark(warning);
    }
    let dataset = mnist.into_inference();
    let widths = model.widths();
    ensure!(
        widths[0] == dataset.width() && widths[widths.len() - 1] == source::CLASSES,
        "the model {} takes {} features and gives {} classes, but {} has {} features and {} classes; choose another --model",
        options.model.display(),
        widths[0],
        widths[widths.len() - 1],
        dataset.path().display(),
        dataset.width(),
        source::CLASSES,
    );
    launched.start(1)?;
    let console = Console::new(0);
    console.line(format_args!("{} ===== Start", console::now()));
    let predictions = predict(&model, kernels, &weights, &dataset);
    let label = |record| dataset.label(record).map_or("-".to_owned(), |label| label.to_string());
    output.write(
        predictions.iter().enumerate().map(|(record, prediction)| format!("{} {prediction}", label(record))),
    )?;
    if let Some(labels) = dataset.labels() {
        show(&console, &Confusion::new(source::CLASSES, labels, &predictions));
    }
    console.line(format_args!("{} predictions in {}", predictions.len(), options.output.display()));
    console.line(format_args!("{} ===== Stop", console::now()));
    Ok(ExitCode::SUCCESS)
}

fn show(console: &Console, confusion: &Confusion) {
    console.line(format_args!("accuracy {:.2} %", 100.0 * confusion.accuracy()));
    let header: String = (0..source::CLASSES).map(|class| format!("{class:>6}")).collect();
    console.line(format_args!("label \\ prediction\n     {header}"));
    for (class, row) in confusion.rows().enumerate() {
        let row: String = row.iter().map(|count| format!("{count:>6}")).collect();
        console.line(format_args!("{class:>5}{row}"));
    }
}

/// A directory of predictions, written under a temporary name beside its place until it is whole.
struct Output<'a> {
    path: &'a Path,
    temporary: tempfile::TempDir,
}

impl Output<'_> {
    /// Finds out at once whether the directory can be written, before anything is computed.
    fn create(path: &Path, overwrite: bool) -> Result<Output<'_>> {
        if path.exists() && !overwrite {
            bail!(
                "the output {} is there already; choose another --output, or replace it with --overwrite",
                path.display()
            );
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary = fs::create_dir_all(parent)
            .and_then(|()| tempfile::Builder::new().prefix(".tmp-").tempdir_in(parent))
            .with_context(|| format!("cannot write to {}; choose another --output", path.display()))?;
        Ok(Output { path, temporary })
    }

    fn write(self, lines: impl Iterator<Item = String>) -> Result<()> {
        let Output { path, temporary } = self;
        file::write_atomic(&temporary.path().join("part-00000"), |out| {
            lines.into_iter().try_for_each(|line| writeln!(out, "{line}"))
        })?;
        file::write_atomic(&temporary.path().join("_SUCCESS"), |_| Ok(()))?;
        if path.exists() {
            let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            removed.with_context(|| format!("cannot replace {}", path.display()))?;
        }
        fs::rename(temporary.path(), path)
            .with_context(|| format!("cannot rename the output to {}", path.display()))?;
        let _ = temporary.keep();
        Ok(())
    }
}
