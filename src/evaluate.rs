//! Forward passes over a whole data set, chunk by chunk.

use crate::batch::share;
use crate::dataset::Dataset;
use crate::error::Error;
use crate::model::Model;
use crate::pass::{Pass, Score, Workspace};
use crate::records::Records;
use crate::team::{self, Member};
use muster_collective::Shared;
use muster_kernels::Kernels;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::thread;

/// Records of a chunk: a multiple of every kernel's tile, few enough for the second-level cache.
pub const CHUNK: usize = 224;

/// Chunks that are read at once, while as many are used, where the records lie in parts: seven whole blocks.
const CHUNKS_READ: usize = 32;

/// Chunks in a data set of `records` records.
pub fn chunks(records: usize) -> usize {
    records.div_ceil(CHUNK)
}

/// The records of a chunk.
pub fn chunk_records(records: usize, chunk: usize) -> Range<usize> {
    chunk * CHUNK..((chunk + 1) * CHUNK).min(records)
}

/// Calls `each(chunk, pass)` after the forward pass over each of the given chunks, on the calling thread.
pub fn forward(
    (model, kernels, weights): (&Model, &Kernels, &Shared),
    dataset: &Dataset,
    chunks: Range<usize>,
    mut each: impl FnMut(usize, &mut Pass),
) {
    for run in split_by_rows(dataset.len(), chunks) {
        let rows = chunk_records(dataset.len(), run.start).len();
        let workspace = Workspace::new(model, rows);
        team::alone(|member| {
            let mut pass = Pass::new((model, kernels), &workspace, dataset.kind());
            for chunk in run.clone() {
                pass.load(member, chunk_records(dataset.len(), chunk).map(|record| (dataset, record)));
                pass.forward(member, weights, 0);
                each(chunk, &mut pass);
            }
        });
    }
}

/// Cuts a run of chunks where the number of rows changes: before a last chunk that is not full.
fn split_by_rows(records: usize, chunks: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let full = chunks.end.min(records / CHUNK).max(chunks.start);
    [chunks.start..full, full..chunks.end].into_iter().filter(|run| !run.is_empty())
}

/// Calls `each(dataset, chunk, first, pass)` after the forward pass over each of a member's chunks of all records: it is chunk `chunk` of
/// `dataset`, whose first chunk is chunk `first` of all.
///
/// # Errors
/// Why records could not be read.
pub fn forward_share(
    of: (&Model, &Kernels, &Shared),
    records: &Records,
    team: &Member,
    mut each: impl FnMut(&Dataset, usize, usize, &mut Pass),
) -> Result<(), Error> {
    let all = chunks(records.len());
    let blocks = match records {
        Records::Memory(dataset) => {
            let chunks = share(all, team.index(), team.count());
            forward(of, dataset, chunks, |chunk, pass| each(dataset, chunk, 0, pass));
            return Ok(());
        }
        Records::Blocks(blocks) => blocks,
        Records::Fed { .. } => unreachable!("what is fed is trained on"),
    };
    let (runs, records) = (team.share(all.div_ceil(CHUNKS_READ)), records.len());
    let chunks_of = |run: usize| run * CHUNKS_READ..all.min((run + 1) * CHUNKS_READ);
    thread::scope(|scope| {
        // The next run is read during the forward passes over this one.
        let read = |run| {
            let chunks = chunks_of(run);
            scope.spawn(move || blocks.read_range(chunks.start * CHUNK..records.min(chunks.end * CHUNK)))
        };
        let mut ahead = runs.clone().next().map(read);
        for run in runs.clone() {
            let reading = ahead.take().expect("the first run, and each after one, is read ahead");
            let dataset = reading.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            ahead = Some(run + 1).filter(|next| runs.contains(next)).map(read);
            let chunks = chunks_of(run);
            forward(of, &dataset, 0..chunks.len(), |chunk, pass| each(&dataset, chunk, chunks.start, pass));
        }
        Ok(())
    })
}

/// The score of a model on a labelled data set, found by a team.
pub struct Evaluation {
    scores: Mutex<Vec<Score>>,
    /// Why records could not be read.
    failed: Mutex<Option<String>>,
}

impl Evaluation {
    /// For a data set of `records` records.
    pub fn new(records: usize) -> Evaluation {
        Evaluation { scores: Mutex::new(vec![Score::default(); chunks(records)]), failed: Mutex::default() }
    }

    /// One member's share of the work.
    pub fn run(&self, of: (&Model, &Kernels, &Shared), records: &Records, team: &Member) {
        let done = forward_share(of, records, team, |dataset, chunk, first, pass| {
            pass.loss(1.0, 0.0);
            let score = pass.score(0..chunk_records(dataset.len(), chunk).len());
            self.scores.lock().expect("no panic while it is held")[first + chunk] = score;
        });
        if let Err(error) = done {
            *self.failed.lock().expect("no panic while it is held") = Some(error.to_string());
        }
    }

    /// The sum over all chunks, once every member is done: the same bits for any number of them.
    ///
    /// # Errors
    /// [`Error::Reading`].
    pub fn score(&self) -> Result<Score, Error> {
        match &*self.failed.lock().expect("no panic while it is held") {
            Some(text) => Err(Error::Reading { text: text.clone() }),
            None => Ok(self.scores.lock().expect("no panic while it is held").iter().sum()),
        }
    }
}

impl<'a> std::iter::Sum<&'a Score> for Score {
    fn sum<I: Iterator<Item = &'a Score>>(scores: I) -> Score {
        scores.fold(Score::default(), |a, b| Score { loss: a.loss + b.loss, hits: a.hits + b.hits })
    }
}
