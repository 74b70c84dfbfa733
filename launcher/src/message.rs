//! What driver, ranks and `muster status` say to each other: JSON in frames of a [`crate::channel`].

use crate::channel::{Receiver, Sender};
use crate::error::Error;
use crate::feed::spec::FeedSpec;
use muster::feed::Facts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::net::SocketAddr;

/// The largest message, in bytes: a cluster's specification of some thousand ranks.
pub const MESSAGE_MAX: usize = 4 << 20;

/// The first message of whoever connects to the driver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Hello {
    /// A process that runs ranks.
    Register(Box<Registration>),
    /// `muster status`: answered by a [`Status`].
    Status,
    /// `muster stop`: answered by a [`Status`]; the job ends as after Ctrl-C.
    Stop,
}

/// What a process says of itself and its ranks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// Its ranks: one, or all of them where ranks are threads.
    pub ranks: Vec<usize>,
    /// Which attempt it was started for.
    pub attempt: u32,
    /// Name of its host.
    pub host: String,
    /// Process id there.
    pub pid: u32,
    /// What the program says.
    pub program: Program,
    /// Instruction sets of the CPU.
    pub cpu_features: Vec<String>,
    /// Cores that the process may use.
    pub cores: usize,
    /// Where each of its ranks takes records, if it does; empty where there is nothing to be fed with.
    #[serde(default)]
    pub data_listeners: Vec<Option<SocketAddr>>,
}

/// What a program says of itself when it registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its version; the same on all ranks.
    pub version: String,
    /// The kernels' back end.
    pub kernels: String,
    /// What it is going to do.
    pub task: Task,
    /// Whether its last rank does nothing but evaluate checkpoints.
    #[serde(default)]
    pub evaluates: bool,
    /// What it is to be fed with; without it, it reads its records itself.
    #[serde(default)]
    pub feed: Option<FeedSpec>,
}

impl Program {
    /// One that trains; `kernels` names their back end.
    pub fn training(name: &str, version: &str, kernels: &str, feed: Option<FeedSpec>) -> Program {
        let [name, version, kernels] = [name, version, kernels].map(str::to_owned);
        Program { name, version, kernels, task: Task::Train, evaluates: false, feed }
    }
}

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// It trains a model.
    Train,
    /// It classifies records.
    Inference,
}

/// What a rank does in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Keeps the weights: rank 0.
    Ps,
    /// The first worker: it also writes checkpoints and logs where the server does not.
    Chief,
    /// Computes gradients.
    Worker,
    /// Evaluates checkpoints: the last rank, if the job has one.
    Evaluator,
}

impl Role {
    /// The role of `rank` in a world of `world_size`; of one rank that trains alone, chief and server at once.
    pub fn of(rank: usize, world_size: usize, evaluator: bool) -> Role {
        let trainers = world_size - usize::from(evaluator);
        match rank {
            _ if rank >= trainers => Role::Evaluator,
            0 if trainers > 1 => Role::Ps,
            0 | 1 => Role::Chief,
            _ => Role::Worker,
        }
    }

    /// When it is released at the end: workers first, the server last.
    pub fn order(self) -> usize {
        match self {
            Role::Worker | Role::Chief => 0,
            Role::Evaluator => 1,
            Role::Ps => 2,
        }
    }

    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Role::Ps => "ps",
            Role::Chief => "chief",
            Role::Worker => "worker",
            Role::Evaluator => "evaluator",
        }
    }
}

/// One rank, as all others know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its number.
    pub rank: usize,
    /// What it does.
    pub role: Role,
    /// Its host's name.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// Where it takes records in feed mode.
    pub data_listener: Option<SocketAddr>,
}

/// The cluster, once all ranks are there: by rank.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// All ranks.
    pub nodes: Vec<Node>,
}

/// What a rank is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It gets ready: opens data, connects.
    #[default]
    Starting,
    /// It takes steps.
    Training,
    /// It evaluates the model.
    Evaluating,
    /// It writes a checkpoint.
    Saving,
    /// It classifies records.
    Inferring,
    /// It has done its work.
    Done,
}

/// How far a rank is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Steps (or records in inference) done.
    pub step: u64,
}

/// From a process to the driver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToDriver {
    /// A sign of life: how far each of the process's ranks is, in the order of its registration.
    Beat(Vec<Progress>),
    /// A rank has done its work; `Err` says why it could not.
    Done {
        /// Which.
        rank: usize,
        /// How it ended.
        result: Result<(), String>,
        /// What it has classified.
        #[serde(default)]
        score: Score,
    },
}

/// How right an inference was, as far as its records had labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Records with a label.
    pub labelled: u64,
    /// Those that were given theirs.
    pub right: u64,
}

/// From the driver to a process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToRank {
    /// The registration was not taken.
    Refused(String),
    /// All ranks are there.
    Reserved(ClusterSpec),
    /// Begin; with what is known of the records that the ranks will be fed with.
    Start(Option<Facts>),
    /// A sign of life.
    Beat,
    /// End after this step, with a checkpoint.
    Stop,
    /// End at once: the job has failed.
    Abort,
    /// To the evaluator: the others have trained, no checkpoint will follow.
    Trained,
    /// Nothing more is wanted: end.
    Release,
}

/// What `muster status` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the launcher.
    pub phase: String,
    /// From 0.
    pub attempt: u32,
    /// Seconds since the job began.
    pub seconds: f64,
    /// By rank.
    pub ranks: Vec<RankStatus>,
    /// Who waits for whom, in words; empty if nobody waits.
    pub waits: String,
}

/// One rank in a [`Status`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankStatus {
    /// Its number.
    pub rank: usize,
    /// What it does in the cluster.
    pub role: Role,
    /// Host and process; none before it has registered.
    pub place: Option<(String, u32)>,
    /// How far it is.
    pub progress: Progress,
    /// Steps a second, over the last heartbeats.
    pub rate: f64,
    /// Seconds since its last sign of life.
    pub silent_seconds: f64,
}

/// Sends a message.
pub(crate) fn send<M: Serialize>(sender: &mut Sender, message: &M) -> io::Result<()> {
    sender.send(&[&serde_json::to_vec(message).expect("messages have a JSON form")])
}

/// The next message; none at the end of the connection.
///
/// # Errors
/// If the connection breaks, or what comes is no message of this kind.
pub fn receive<M: DeserializeOwned, R: Read>(receiver: &mut Receiver<R>) -> Result<Option<M>, Error> {
    let mut payload = Vec::new();
    if !receiver.receive(&mut payload).map_err(Error::io("receive from", "the other side"))? {
        return Ok(None);
    }
    decode(&payload).map(Some)
}

/// A message out of a frame's payload.
///
/// # Errors
/// If it is no message of this kind.
pub fn decode<M: DeserializeOwned>(payload: &[u8]) -> Result<M, Error> {
    serde_json::from_slice(payload).map_err(|error| Error::Protocol {
        peer: "the other side".to_owned(),
        found: format!("no message of this version ({error})"),
    })
}
