//! `mnist inference`

use crate::console::{self, Console};
use crate::digests::Digests;
use crate::fabric::Found;
use crate::launched::Launched;
use crate::source::{self, CLASSES};
use crate::{cli, driver, fed, parts, ranks};
use anyhow::{Context, Result, anyhow, ensure};
use muster::dataset::Dataset;
use muster::inference::{Confusion, predict, read_model};
use muster::model::{Model, Tensors};
use muster::parts::output::Output;
use muster::parts::source::Source;
use muster::storage::Storage;
use muster::{Error, agree, checkpoint};
use muster_collective::{Transport, World};
use muster_kernels::Kernels;
use muster_launcher::message::Task;
use std::borrow::Borrow;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

/// How long a rank may be stopped until it is taken for stuck.
const STOPPED_MAX: Duration = Duration::from_secs(60);

/// Classifies digits and writes `label prediction` lines, a part for each part; without labels, `- prediction`. The ranks of a world
/// share the parts.
pub fn run(options: &cli::Inference) -> Result<ExitCode> {
    options.seed_mode.check("inference")?;
    if let Some(code) = driver::run(&options.launch, options.cluster_size, false)? {
        return Ok(code);
    }
    if let Some(code) = fed::inference(options)? {
        return Ok(code);
    }
    ranks::run((STOPPED_MAX, 0), |world| {
        let launched = Launched::register(Task::Inference, false, Kernels::select()?, None)?;
        let done = run_rank(options, world, &launched);
        launched.finish(done)
    })
}

/// One process's part: all of it, or, of a world, that of its rank.
fn run_rank(options: &cli::Inference, world: Option<&World>, launched: &Launched) -> Result<ExitCode> {
    let size = ranks::size(options.cluster_size, 0, world);
    let (rank, storage) = (world.map_or(0, World::rank), Storage::from_environment()?);
    let digests = Digests::default();
    let prepare = || Work::prepare(options, rank, &storage, &digests);
    let work = ranks::in_turn(world, options.data.images.is_none(), &digests, prepare)?;
    let (size, work, output) = both(world, size, work, (&storage, &options.output))?;
    Found::here(&options.fabric, world.map(|world| (world, Transport::Messages)))?;
    launched.start(if world.is_some() { 1 } else { size })?;
    let console = Console::new(0, "");
    if rank == 0 {
        console.line(format_args!("{} ===== Start", console::now()));
    }
    let seats = world.map_or(1, |world| world.roster().len());
    let tally = work.run(options, world, (rank, seats), &output);
    let tallies = match world {
        None => vec![tally?],
        Some(world) => agree::gather(world, tally.map_err(|error| format!("{error:#}")))?,
    };
    if rank == 0 {
        end(options, &console, output, &tallies)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that all ranks are ready to do the same, and to write it to the same place.
fn both<'a>(
    world: Option<&World>,
    size: Result<usize>,
    work: Result<Work<'a>>,
    (storage, target): (&'a Storage, &Path),
) -> Result<(usize, Work<'a>, Output<'a>)> {
    let ready = size.and_then(|size| Ok((size, work?)));
    let mut staging = PathBuf::new();
    if let Some(world) = world {
        let told =
            |work: &Work| (work.output.as_ref().map(|output| output.staging().to_owned()), work.facts());
        let own = ready.as_ref().map(|(_, work)| told(work)).map_err(|error| format!("{error:#}"));
        let all = agree::gather(world, own)?;
        agree::same(&all.iter().map(|(_, facts)| facts.as_slice()).collect::<Vec<_>>())?;
        staging = all.into_iter().find_map(|(staging, _)| staging).expect("rank 0 has begun the output");
    }
    let (size, mut work) = ready?;
    let output = work.output.take().unwrap_or_else(|| Output::join(storage, target, &staging));
    Ok((size, work, output))
}

/// When all parts are there: says so, moves them to their place, and tells how right they are.
fn end(options: &cli::Inference, console: &Console, output: Output, tallies: &[Tally]) -> Result<()> {
    for part in tallies.iter().flat_map(|tally| &tally.0) {
        ensure!(
            output.has(&name(*part))?,
            "a rank has written {} to {}, but it is not there for rank 0; choose an --output that lies on storage of all nodes",
            name(*part).display(),
            options.output.display()
        );
    }
    output.finish(Path::new(""))?;
    output.commit()?;
    let (mut records, mut confusion) = (0, Confusion::new(CLASSES));
    for (_, of_rank, counts) in tallies {
        records += of_rank;
        confusion.merge(counts);
    }
    show(console, &confusion);
    console.line(format_args!("{records} predictions in {}", options.output.display()));
    console.line(format_args!("{} ===== Stop", console::now()));
    Ok(())
}

/// What a rank has done: its parts, their records, and how right their predictions are.
type Tally = (Vec<usize>, usize, Confusion);

/// The file of a part.
fn name(part: usize) -> PathBuf {
    format!("part-{part:05}").into()
}

/// Everything that an inference needs, checked before it begins.
struct Work<'a> {
    model: Model,
    weights: Vec<Tensors>,
    input: Input<'a>,
    /// Rank 0 begins it, and the others join.
    output: Option<Output<'a>>,
    digests: &'a Digests,
}

impl<'a> Work<'a> {
    fn prepare(
        options: &'a cli::Inference,
        rank: usize,
        storage: &'a Storage,
        digests: &'a Digests,
    ) -> Result<Work<'a>> {
        let (model, weights) = read_model(storage, &options.model)?;
        let output = if rank == 0 { Some(begin(storage, options)?) } else { None };
        let input = Input::open(storage, &options.data, digests)?;
        parts::check_model(&model, (input.width(), input.path()), &options.model)?;
        Ok(Work { model, weights, input, output, digests })
    }

    /// What has to be the same on all ranks.
    fn facts(&self) -> Vec<(String, String)> {
        let facts = [
            ("the version", env!("CARGO_PKG_VERSION").to_owned()),
            ("the program's digest", self.digests.program()),
            ("the model's weights", checkpoint::sha256(&self.weights)),
            ("the number of parts", self.input.parts().to_string()),
            ("the number of bytes", self.input.bytes().to_string()),
        ];
        facts.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    /// Classifies the parts of a rank: every `seats`-th, from its own number on.
    fn run(
        self,
        options: &cli::Inference,
        world: Option<&World>,
        (rank, seats): (usize, usize),
        output: &Output,
    ) -> Result<Tally> {
        let Work { model, weights, input, .. } = self;
        let share = world.map(|world| world.roster().share_of_cores(rank, ranks::usable_cores(), |_| true));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(share.unwrap_or(0)).build();
        let pool = pool.map_err(|error| anyhow!("cannot start the threads that classify ({error})"))?;
        let classifier = Classifier { model, weights, kernels: Kernels::select()?, pool, output };
        let parts: Vec<usize> = (rank..input.parts()).step_by(seats).collect();
        let (records, confusion) = match &input {
            Input::Idx(dataset) => {
                let mut tally = (0, Confusion::new(CLASSES));
                for &part in &parts {
                    classifier.classify(part, std::iter::once(Ok(dataset)), &mut tally)?;
                }
                tally
            }
            Input::Parts(source, path) => {
                let readers = options.data.readers.or(share).unwrap_or_else(ranks::usable_cores);
                classifier.classify_all((source, *path), &parts, readers)?
            }
        };
        Ok((parts, records, confusion))
    }
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
    fn open(storage: &'a Storage, data: &'a cli::Data, digests: &Digests) -> Result<Input<'a>> {
        if let Some(images) = &data.images {
            let source = parts::find(storage, data.format(), (images, data.labels.as_deref()), false)?;
            return Ok(Input::Parts(source, images));
        }
        let mnist = source::open(data.data.as_deref(), &|text| console::remark(text), digests)?;
        if let Some(warning) = &mnist.warning {
            console::remark(warning);
        }
        Ok(Input::Idx(mnist.into_inference()))
    }

    fn parts(&self) -> usize {
        match self {
            Input::Idx(_) => 1,
            Input::Parts(source, _) => source.parts().len(),
        }
    }

    /// Bytes of the records as they lie in storage or memory.
    fn bytes(&self) -> u64 {
        match self {
            Input::Idx(dataset) => (dataset.len() * dataset.width()) as u64,
            Input::Parts(source, _) => source.parts().iter().map(|part| part.features.bytes).sum(),
        }
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

/// A model at work.
struct Classifier<'a> {
    model: Model,
    weights: Vec<Tensors>,
    kernels: &'a Kernels,
    /// The threads that classify.
    pool: rayon::ThreadPool,
    output: &'a Output<'a>,
}

/// Records that were classified, and how right their predictions are.
type Counts = (usize, Confusion);

impl Classifier<'_> {
    /// Writes the predictions of some parts: as many at a time as there are readers, each of them piece by piece.
    fn classify_all(
        &self,
        (source, path): (&Source, &Path),
        parts: &[usize],
        readers: usize,
    ) -> Result<Counts> {
        let next = AtomicUsize::new(0);
        let read = || -> Result<Counts> {
            let mut counts = (0, Confusion::new(CLASSES));
            while let Some(&part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                let done = parts::pieces(source, part, path)
                    .and_then(|pieces| self.classify(part, pieces, &mut counts));
                // After an error no reader begins another part.
                done.inspect_err(|_| next.store(parts.len(), Ordering::Relaxed))?;
            }
            Ok(counts)
        };
        let of_readers: Vec<Result<Counts>> = thread::scope(|scope| {
            let readers: Vec<_> = (0..readers.min(parts.len())).map(|_| scope.spawn(read)).collect();
            let join =
                |reader: ScopedJoinHandle<_>| reader.join().unwrap_or_else(|panic| resume_unwind(panic));
            readers.into_iter().map(join).collect()
        });
        let mut all = (0, Confusion::new(CLASSES));
        for counts in of_readers {
            let (records, confusion) = counts?;
            all.0 += records;
            all.1.merge(&confusion);
        }
        Ok(all)
    }

    /// Writes the predictions of one part, of which a piece is in memory at a time, and counts them.
    fn classify<D: Borrow<Dataset>>(
        &self,
        part: usize,
        pieces: impl Iterator<Item = Result<D>>,
        (records, confusion): &mut Counts,
    ) -> Result<()> {
        let (mut labels, mut predictions) = (Vec::new(), Vec::new());
        for piece in pieces {
            let piece = piece?;
            let piece = piece.borrow();
            let of_piece = self.pool.install(|| predict(&self.model, self.kernels, &self.weights, piece));
            if let Some(of_records) = piece.labels() {
                confusion.add(of_records, &of_piece);
                labels.extend_from_slice(of_records);
            }
            predictions.extend(of_piece);
        }
        *records += predictions.len();
        let label = |record: usize| labels.get(record).map_or("-".to_owned(), u32::to_string);
        self.output.write_part(&name(part), predictions.len() as u64, &|out| {
            let mut lines = predictions.iter().enumerate();
            lines.try_for_each(|(record, prediction)| writeln!(out, "{} {prediction}", label(record)))
        })?;
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
