//! The report of a run: what it was, and what came out.

use crate::asynchronous::Staleness;
use crate::cluster::{Mode, RankTimes};
use crate::conductor::Epoch;
use crate::mistakes::Mistake;
use crate::model::Model;
use crate::optimizer::Optimizer;
use crate::pass::Way;
use crate::records::Records;
use muster_kernels::Kernels;
use serde::{Deserialize, Serialize};

/// What `--report` writes, as JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of the program.
    pub version: &'static str,
    /// `mnist`, `synthetic` or `custom`.
    pub dataset: String,
    /// Digest of the training data.
    pub dataset_sha256: String,
    /// The update rule.
    pub optimizer: Optimizer,
    /// Of weights and order.
    pub seed: u64,
    /// Records of a global batch.
    pub batch_size: usize,
    /// The most records of a micro-batch.
    pub micro_batch: usize,
    /// Threads of rank 0, and of every rank that is a thread itself.
    pub threads: usize,
    /// Whose gradients make up a step.
    pub mode: Mode,
    /// Whether rank 0 computes gradients too.
    pub server_trains: bool,
    /// What lies between the ranks: `threads`, or the name of a transport between processes.
    pub transport: &'static str,
    /// The MPI library; none for ranks that are threads.
    pub mpi: Option<String>,
    /// What carried MPI's messages, in words; none for ranks that are threads.
    pub fabric: Option<String>,
    /// How much the counters of RDMA devices have grown on each node while it ran: `host device/port counter`.
    pub fabric_counters: muster_collective::fabric::Counters,
    /// How it was computed.
    pub kernels: KernelsUsed,
    /// Records trained on, over all runs.
    pub records: u64,
    /// What came out, and where the time went.
    #[serde(flatten)]
    pub results: Results,
}

/// As much of a report as is read again, to be shown. Reports of all versions have some of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Results {
    /// Inputs, hidden units of each layer, classes.
    pub model: Vec<usize>,
    /// Ranks, the server among them.
    pub world_size: usize,
    /// How many gradients of asynchronous training have missed how many updates.
    pub staleness: Staleness,
    /// Where the time of each rank went.
    pub ranks: Vec<RankTimes>,
    /// Steps done, over all runs of this training.
    pub steps: u64,
    /// The epochs that are complete.
    pub epochs: Vec<Epoch>,
    /// Share of the test records classified rightly at the end; none without a test set.
    pub test_accuracy: Option<f64>,
    /// How often test records of each class were given each class at the end: `[classes, classes]`, rows by label; empty without a test
    /// set.
    pub confusion: Vec<Vec<u64>>,
    /// The test records whose label the model finds least likely, of those that it gets wrong; the worst first.
    pub mistakes: Vec<Mistake>,
    /// Seconds that this run trained, evaluation and checkpoints not counted.
    pub train_seconds: f64,
    /// Records this run trained on, in a second of that.
    pub images_per_second: f64,
    /// Of the weights at the end; see [`crate::checkpoint::sha256`].
    pub weights_sha256: String,
}

/// How it was computed.
#[derive(Clone, Debug, Serialize)]
pub struct KernelsUsed {
    /// The instruction set.
    pub back_end: &'static str,
    /// How sums are ordered and rounded.
    pub arithmetic: &'static str,
    /// How the first layer reads its input.
    pub path: &'static str,
    /// Of the numbers.
    pub precision: &'static str,
}

impl KernelsUsed {
    /// That of a model with a table of kernels on a data set.
    pub fn of(model: &Model, kernels: &Kernels, records: &Records) -> KernelsUsed {
        let way = Way::of((model, kernels), records.kind());
        KernelsUsed {
            back_end: kernels.backend().name(),
            arithmetic: way.arithmetic(kernels),
            path: way.name(),
            precision: "f32",
        }
    }
}
