//! What a training takes of memory, by what, computed before any of it is allocated.

use crate::ranks;
use anyhow::{Result, ensure};
use muster::cluster::Mode;
use muster::gradient::Share;
use muster::model::Model;
use muster::records::Records;
use muster::train::Recipe;
use muster_collective::World;
use muster_kernels::Aligned;
use muster_launcher::memory;
use std::path::Path;

/// Bytes by what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need(pub Vec<(&'static str, u128)>);

/// The ranks of a job, as far as memory goes.
#[derive(Clone, Copy, Debug)]
pub struct Ranks {
    /// All of them.
    pub size: usize,
    /// Whether rank 0 computes gradients too.
    pub server_trains: bool,
    /// Whose gradients make up a step.
    pub mode: Mode,
}

impl Need {
    /// Bytes in all.
    pub fn bytes(&self) -> u128 {
        self.0.iter().map(|(_, bytes)| bytes).sum()
    }

    fn with(mut self, other: Need) -> Need {
        self.0.extend(other.0);
        self
    }

    /// The bytes by what they are for, the most first: `weights 12 MiB, gradients 24 MiB`.
    fn words(&self) -> String {
        let mut sums: Vec<(&str, u128)> = Vec::new();
        for &(what, bytes) in &self.0 {
            match sums.iter_mut().find(|(known, _)| *known == what) {
                Some((_, sum)) => *sum += bytes,
                None => sums.push((what, bytes)),
            }
        }
        sums.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
        let words: Vec<String> = sums.iter().map(|(what, bytes)| format!("{what} {}", mib(*bytes))).collect();
        words.join(", ")
    }
}

impl Ranks {
    /// Ranks that compute gradients.
    fn workers(self) -> usize {
        (self.size - usize::from(!self.server_trains)).max(1)
    }

    fn is_worker(self, rank: usize) -> bool {
        rank > 0 || self.server_trains || self.size == 1
    }

    /// What `rank` takes for itself. What lies between server and workers counts as the server's.
    pub fn need(self, rank: usize, model: &Model, recipe: &Recipe) -> Need {
        let mut need = Need::default();
        if rank == 0 {
            need = need.with(self.server(model, recipe));
        }
        if self.is_worker(rank) {
            let values: u128 = model.widths().iter().map(|&width| width as u128).sum();
            let rows = match self.mode {
                Mode::Sync => recipe.batch_size.div_ceil(self.workers()),
                Mode::Async { .. } => recipe.batch_size,
            };
            // Rank 0 may take whole steps by itself, too.
            let is_whole = rank == 0 && self.size > 1 && self.mode == Mode::Sync;
            let rows = rows + if is_whole { recipe.batch_size } else { 0 };
            // The values of all layers and their derivatives.
            need.0.push(("activations", 8 * values * rows as u128));
        }
        need
    }

    /// What is held, while it is used, of records that are read again and again: by one process, or by so many of a world on one node.
    fn windows(self, train: &Records, processes: Option<usize>) -> Need {
        let Records::Blocks(_) = train else { return Need::default() };
        let all = u128::from(train.bytes());
        let held = match (processes, self.mode) {
            (None, _) => all,
            (Some(processes), Mode::Async { .. }) => all * processes as u128,
            (Some(processes), Mode::Sync) => {
                all * processes.min(self.workers()) as u128 / self.workers() as u128
            }
        };
        Need(vec![("windows of the records", held)])
    }

    /// What rank 0 keeps.
    fn server(self, model: &Model, recipe: &Recipe) -> Need {
        let (once, slots) = (parameters_bytes(model), recipe.optimizer.slots().len() as u128);
        let floats = usize::try_from(once / size_of::<f32>() as u128).ok();
        let rest = floats.and_then(Aligned::bytes).map_or(0, |bytes| bytes as u128 - once);
        let leaves = recipe.batch_size.div_ceil(recipe.micro_batch);
        let workers = self.workers();
        let (index, seats) = match self.mode {
            Mode::Sync => (0..workers, workers),
            Mode::Async { .. } => (0..1, 1),
        };
        let most = index.map(|index| Share::new(recipe.batch_size, leaves, index, seats).nodes.len()).max();
        let gradients = workers as u128 * most.unwrap_or(1).max(1) as u128;
        let copies = if self.mode == Mode::Sync || self.size == 1 { 0 } else { workers as u128 };
        let needs = [
            ("weights", once),
            ("the optimizer's slots", slots * once),
            ("gradients", gradients * once),
            ("the workers' copies of the weights", copies * once),
            ("a copy for the checkpoint", (1 + slots) * once),
            ("the rest of their pages", (1 + slots + gradients + copies) * rest),
        ];
        Need(needs.into_iter().filter(|(_, bytes)| *bytes > 0).collect())
    }
}

/// Finds out whether a training fits into the memory of this node, which its ranks share: an allocation that Linux grants and cannot
/// back ends the process without a word. Data that fit `--cache-mib` are in memory already.
pub fn check(
    model: &Model,
    recipe: &Recipe,
    train: &Records,
    ranks: Ranks,
    world: Option<&World>,
) -> Result<()> {
    let Some(available) = memory::available(Path::new("/")) else { return Ok(()) };
    let here = ranks::of_this_node(ranks.size, world);
    let count = here.len();
    let need = here.into_iter().map(|rank| ranks.need(rank, model, recipe)).fold(Need::default(), Need::with);
    let need = need.with(ranks.windows(train, world.map(|_| count)));
    fits(&need, available.into(), model, recipe, count)
}

fn fits(need: &Need, available: u128, model: &Model, recipe: &Recipe, ranks: usize) -> Result<()> {
    ensure!(
        need.bytes() <= available,
        "a model of {} parameters at --batch-size {} needs {} of memory for {ranks} ranks here ({}), of which {} are available; \
         choose fewer units with --hidden, fewer ranks, or a node with more memory",
        model.parameters(),
        recipe.batch_size,
        mib(need.bytes()),
        need.words(),
        mib(available)
    );
    Ok(())
}

/// One set of parameters as it lies in memory.
pub fn parameters_bytes(model: &Model) -> u128 {
    4 * model.block_lengths().iter().map(|&length| length as u128).sum::<u128>()
}

/// Bytes for people.
fn mib(bytes: u128) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster::optimizer::Optimizer;
    use muster::parts::Format;
    use muster::parts::source::{Location, Source};
    use muster::storage::Storage;
    use muster::train::Reduction;

    fn recipe() -> Recipe {
        Recipe {
            seed: 1,
            batch_size: 100,
            micro_batch: 32,
            optimizer: Optimizer::ADAM,
            learning_rate: 0.1,
            learning_rate_decay: 1.0,
            loss_reduction: Reduction::Mean,
            probability_floor: 0.0,
        }
    }

    #[test]
    fn every_rank_s_need_is_named() {
        let (model, recipe) = (Model::new(&[784, 1000, 10]), recipe());
        let once = parameters_bytes(&model);
        assert!(once >= 4 * 795_010);
        let ranks = |size, server_trains, mode| Ranks { size, server_trains, mode };
        let bytes = |ranks: Ranks, rank, what: &str| {
            ranks.need(rank, &model, &recipe).0.iter().find(|need| need.0 == what).map(|need| need.1)
        };
        let sync = ranks(3, false, Mode::Sync);
        assert_eq!(bytes(sync, 0, "the optimizer's slots"), Some(2 * once));
        assert_eq!(
            bytes(sync, 0, "gradients"),
            Some(2 * once),
            "two workers with a subtree of two leaves each"
        );
        assert_eq!(bytes(sync, 0, "activations"), None);
        assert_eq!(bytes(sync, 1, "activations"), Some(8 * 1794 * 50));
        assert_eq!(bytes(sync, 1, "weights"), None);
        let both = ranks(2, true, Mode::Sync);
        assert_eq!(bytes(both, 0, "activations"), Some(8 * 1794 * 150), "its share and whole batches");
        assert_eq!(bytes(both, 1, "activations"), Some(8 * 1794 * 50));
        let lone = ranks(1, false, Mode::Sync);
        assert_eq!(bytes(lone, 0, "gradients"), Some(once));
        assert_eq!(bytes(lone, 0, "activations"), Some(8 * 1794 * 100));
        let copies = ranks(4, true, Mode::Async { max_staleness: None });
        assert_eq!(bytes(copies, 0, "the workers' copies of the weights"), Some(4 * once));
    }

    #[test]
    fn windows_count_once_for_every_process_that_reads_all_of_them() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("part-00000"), "1|0,9\n2|3,4\n").unwrap();
        let open = |limit| {
            let location = Location {
                format: Format::Csv2,
                features: directory.path(),
                labels: None,
                labels_required: true,
            };
            let source = Source::find(&Storage::from_environment().unwrap(), location, &[2], 10).unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            Records::of_parts(directory.path(), source, Some(1.0), limit, pool).unwrap()
        };
        let (memory, blocks) = (open(u64::MAX), open(0));
        let all = 3 * 2 * (2 + 4);
        let of = |mode, processes| {
            Ranks { size: 5, server_trains: false, mode }.windows(&blocks, processes).bytes()
        };
        assert_eq!(of(Mode::Sync, None), all, "threads share them");
        assert_eq!(of(Mode::Sync, Some(2)), all / 2, "each of four workers reads a quarter");
        assert_eq!(of(Mode::Sync, Some(5)), all, "the server reads nothing");
        assert_eq!(of(Mode::Async { max_staleness: None }, Some(2)), 2 * all);
        let sync = Ranks { size: 5, server_trains: false, mode: Mode::Sync };
        assert_eq!(sync.windows(&memory, None), Need::default());
    }

    #[test]
    fn what_does_not_fit_is_told_with_what_it_is_for() {
        let (model, recipe) = (Model::new(&[784, 1000, 10]), recipe());
        let need = Ranks { size: 2, server_trains: false, mode: Mode::Sync }.need(0, &model, &recipe);
        fits(&need, need.bytes(), &model, &recipe, 2).unwrap();
        let error = fits(&need, need.bytes() - 1, &model, &recipe, 2).unwrap_err().to_string();
        for part in
            ["795010 parameters", "2 ranks", "the optimizer's slots 7 MiB", "gradients", "MiB are available"]
        {
            assert!(error.contains(part), "no {part:?} in {error}");
        }
    }

    #[test]
    fn absurd_models_overflow_nothing() {
        let model = Model::new(&[784, 1_000_000, 1_000_000, 10]);
        let need = Ranks { size: 1024, server_trains: true, mode: Mode::Sync }.need(0, &model, &recipe());
        assert!(need.bytes() > 1 << 45);
    }
}
