//! `mnist inference`

use crate::cli;
use crate::console::{self, Console};
use crate::launched::Launched;
use crate::parts;
use crate::source::{self, CLASSES, SCALE};
use anyhow::{Context, Result, ensure};
use muster::Error;
use muster::dataset::Dataset;
use muster::inference::{Confusion, predict, read_model};
use muster::model::{Model, Tensors};
use muster::parts::output::Output;
use muster::parts::source::Source;
use muster::storage::Storage;
use muster_kernels::Kernels;
use muster_launcher::message::Task;
use std::path::Path;
use std::process::ExitCode;

/// Classifies digits and writes `label prediction` lines, a part for each part; without labels, `- prediction`.
pub fn run(options: &cli::Inference) -> Result<ExitCode> {
    options.data.later.refuse()?;
    options.seed_mode.check("inference")?;
    ensure!(
        options.cluster_size == 1,
        "--cluster-size {} in inference is not built yet in this version; leave it out",
        options.cluster_size
    );
    let storage = Storage::from_environment()?;
    let kernels = Kernels::select()?;
    let launched = Launched::register(Task::Inference, kernels)?;
    let done = run_here(options, kernels, &storage, &launched);
    launched.finish(done)
}

fn run_here(
    options: &cli::Inference,
    kernels: &'static Kernels,
    storage: &Storage,
    launched: &Launched,
) -> Result<ExitCode> {
    let (model, weights) = read_model(storage, &options.model)?;
    let output = begin(storage, options)?;
    let input = Input::open(storage, &options.data)?;
    let widths = model.widths();
    ensure!(
        widths[0] == input.width() && widths[widths.len() - 1] == CLASSES,
        "the model {} takes {} features and gives {} classes, but {} has {} features and {} classes; choose another --model",
        options.model.display(),
        widths[0],
        widths[widths.len() - 1],
        input.path().display(),
        input.width(),
        CLASSES,
    );
    launched.start(1)?;
    let console = Console::new(0, "");
    console.line(format_args!("{} ===== Start", console::now()));
    let mut classifier =
        Classifier { model, weights, kernels, output, records: 0, confusion: Confusion::new(CLASSES) };
    match &input {
        Input::Idx(dataset) => classifier.classify(0, Some(dataset))?,
        Input::Parts(source, path) => parts::for_each(source, options.data.readers, |part, rows| {
            let empty = rows.features.is_empty();
            let dataset = (!empty).then(|| Dataset::from_rows(path, rows, SCALE, source.shape(), CLASSES));
            classifier.classify(part, dataset.transpose()?.as_ref())
        })?,
    }
    let Classifier { output, records, confusion, .. } = classifier;
    output.finish(Path::new(""))?;
    output.commit()?;
    show(&console, &confusion);
    console.line(format_args!("{records} predictions in {}", options.output.display()));
    console.line(format_args!("{} ===== Stop", console::now()));
    Ok(ExitCode::SUCCESS)
}

/// Finds out at once whether the output can be written, before anything is computed.
fn begin<'a>(storage: &'a Storage, options: &cli::Inference) -> Result<Output<'a>> {
    match Output::begin(storage, &options.output, options.overwrite) {
        Err(error @ Error::Io { .. }) => Err(error).with_context(|| {
            format!("cannot write to {}; choose another --output", options.output.display())
        }),
        output => Ok(output?),
    }
}

/// What is to be classified.
enum Input<'a> {
    /// Digits in memory, which count as one part.
    Idx(Dataset),
    /// Parts, and the directory that they lie in.
    Parts(Source, &'a Path),
}

impl<'a> Input<'a> {
    fn open(storage: &'a Storage, data: &'a cli::Data) -> Result<Input<'a>> {
        if let Some(images) = &data.images {
            let source = parts::find(storage, data.format(), (images, data.labels.as_deref()), false)?;
            return Ok(Input::Parts(source, images));
        }
        let mnist = source::open(data.data.as_deref(), &|text| console::remark(text))?;
        if let Some(warning) = &mnist.warning {
            console::remark(warning);
        }
        Ok(Input::Idx(mnist.into_inference()))
    }

    fn width(&self) -> usize {
        match self {
            Input::Idx(dataset) => dataset.width(),
            Input::Parts(source, _) => source.shape().iter().product(),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Input::Idx(dataset) => dataset.path(),
            Input::Parts(_, path) => path,
        }
    }
}

/// A model at work, and what came out so far.
struct Classifier<'a> {
    model: Model,
    weights: Vec<Tensors>,
    kernels: &'a Kernels,
    output: Output<'a>,
    records: usize,
    confusion: Confusion,
}

impl Classifier<'_> {
    /// Writes the predictions of one part; an empty one has no data set.
    fn classify(&mut self, part: usize, dataset: Option<&Dataset>) -> Result<()> {
        let predictions =
            dataset.map_or(Vec::new(), |dataset| predict(&self.model, self.kernels, &self.weights, dataset));
        let labels = dataset.and_then(Dataset::labels);
        let label = |record: usize| labels.map_or("-".to_owned(), |labels| labels[record].to_string());
        let path = format!("part-{part:05}");
        self.output.write_part(Path::new(&path), predictions.len() as u64, &|out| {
            let mut lines = predictions.iter().enumerate();
            lines.try_for_each(|(record, prediction)| writeln!(out, "{} {prediction}", label(record)))
        })?;
        self.confusion.add(labels.unwrap_or_default(), &predictions);
        self.records += predictions.len();
        Ok(())
    }
}

/// Prints how right the predictions are, where there were labels.
fn show(console: &Console, confusion: &Confusion) {
    let Some(accuracy) = confusion.accuracy() else { return };
    console.line(format_args!("accuracy {:.2} %", 100.0 * accuracy));
    let header: String = (0..CLASSES).map(|class| format!("{class:>6}")).collect();
    console.line(format_args!("label \\ prediction\n     {header}"));
    for (class, row) in confusion.rows().enumerate() {
        let row: String = row.iter().map(|count| format!("{count:>6}")).collect();
        console.line(format_args!("{class:>5}{row}"));
    }
}
