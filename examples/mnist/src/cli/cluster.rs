//! The options of ranks and of what is between them.

use super::values::{FabricName, boolean, fabric, positive, seconds};
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, ValueEnum};

/// The ranks and how they work together.
#[derive(Args, Debug)]
#[command(next_help_heading = "Cluster")]
pub struct Cluster {
    /// Ranks: with one, it is server and worker at once; with more, rank 0 is the parameter server
    /// [default: those that mpirun or srun started, otherwise 1]
    #[arg(short = 'n', long, visible_alias = "cluster_size", value_name = "N", env = "MUSTER_WORLD_SIZE",
          hide_env = true, value_parser = positive::<usize>)]
    pub cluster_size: Option<usize>,
    /// Threads of each worker [default: the usable cores, divided by the workers]
    #[arg(long, value_name = "N", value_parser = positive::<usize>)]
    pub threads: Option<usize>,
    /// Every step is one global batch, divided among the workers (the default)
    #[arg(long, conflicts_with_all = ["asynchronous", "max_staleness"])]
    pub sync: bool,
    /// Every worker computes batches of its own, applied as they come
    #[arg(long = "async")]
    pub asynchronous: bool,
    /// The most updates that an asynchronous gradient may miss
    #[arg(long, value_name = "K")]
    pub max_staleness: Option<u64>,
    /// Let rank 0 compute gradients too, as it does anyway where there are two ranks in step; with all records in memory it computes whole
    /// steps by itself where that is faster
    #[arg(long)]
    pub server_trains: bool,
    /// Let the last rank do nothing but evaluate each checkpoint as it appears, and rank 0 not evaluate after each epoch
    #[arg(long, action = ArgAction::SetTrue, env = "MUSTER_EVALUATOR", hide_env = true,
          value_parser = FalseyValueParser::new())]
    pub evaluator: bool,
    /// Seconds that a rank waits for another before it takes it for stuck
    #[arg(long, default_value_t = 60.0, value_name = "SECS", value_parser = seconds)]
    pub step_timeout: f64,
    /// How gradients and weights travel between processes
    #[arg(long, default_value = "auto")]
    pub transport: TransportName,
    #[command(flatten)]
    pub fabric: FabricArgs,
}

/// Transports by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TransportName {
    /// The fastest that reaches all ranks
    Auto,
    /// Memory that the ranks of one node share
    Shared,
    /// Messages of MPI
    Messages,
    /// Memory within each node, messages from one leader a node
    Leaders,
    /// Memory that the other side gets by itself, through MPI's windows
    Rma,
}

/// What has to carry messages between processes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Cluster")]
pub struct FabricArgs {
    /// What has to carry MPI's messages: auto takes what MPI has selected; `require=NAME` fails unless that is NAME, such as ucx, tcp,
    /// rc_mlx5 or mlx5_0, or `rdma` for any RDMA device
    #[arg(long, value_name = "auto|require=NAME", value_parser = fabric)]
    pub fabric: Option<FabricName>,
    /// Require RDMA between ranks: the same as --fabric require=rdma
    #[arg(short = 'c', long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true", value_parser = boolean)]
    pub rdma: Option<bool>,
}

impl FabricArgs {
    /// Everything that has to carry the messages.
    pub fn required(&self) -> impl Iterator<Item = &str> {
        let named = match &self.fabric {
            Some(FabricName::Require(name)) => Some(name.as_str()),
            Some(FabricName::Auto) | None => None,
        };
        named.into_iter().chain((self.rdma == Some(true)).then_some("rdma"))
    }
}
