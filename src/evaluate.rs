//! Forward passes over a whole data set, chunk by chunk.

use crate::batch::share;
use crate::dataset::Dataset;
use crate::model::Model;
use crate::pass::{Pass, Score, Workspace};
use crate::team::{self, Member};
use muster_collective::Shared;
use muster_kernels::Kernels;
use std::ops::Range;
use std::sync::Mutex;

/// Records of a chunk: a multiple of every kernel's tile, few enough for the second-level cache.
pub const CHUNK: usize = 224;

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
        let mut pass = Pass::new(model, kernels, &workspace, dataset);
        team::alone(|member| {
            for chunk in run.clone() {
                pass.load(dataset, chunk_records(dataset.len(), chunk));
                pass.forward(member, weights);
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

/// The score of a model on a labelled data set, found by a team.
pub struct Evaluation {
    scores: Mutex<Vec<Score>>,
}

impl Evaluation {
    /// For a data set of `records` records.
    pub fn new(records: usize) -> Evaluation {
        Evaluation { scores: Mutex::new(vec![Score::default(); chunks(records)]) }
    }

    /// One member's share of the work.
    pub fn run(&self, of: (&Model, &Kernels, &Shared), dataset: &Dataset, team: &Member) {
        let chunks = share(chunks(dataset.len()), team.index(), team.count());
        forward(of, dataset, chunks, |chunk, pass| {
            pass.loss(1.0, 0.0);
            let score = pass.score(0..chunk_records(dataset.len(), chunk).len());
            self.scores.lock().expect("no panic while it is held")[chunk] = score;
        });
    }

    /// The sum over all chunks, once every member is done: the same bits for any number of them.
    pub fn score(&self) -> Score {
        self.scores.lock().expect("no panic while it is held").iter().sum()
    }
}

impl<'a> std::iter::Sum<&'a Score> for Score {
    fn sum<I: Iterator<Item = &'a Score>>(scores: I) -> Score {
        scores.fold(Score::default(), |a, b| Score { loss: a.loss + b.loss, hits: a.hits + b.hits })
    }
}
