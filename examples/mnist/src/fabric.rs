//! What carries the messages between processes, and the proof of it.

use crate::cli;
use anyhow::{Result, bail};
use muster_collective::fabric::{self, Counters};
use muster_collective::{Transport, World};
use std::collections::BTreeMap;
use std::path::Path;

/// Where Linux shows devices and their counters.
const SYS: &str = "/sys";

/// What was found at the start.
pub struct Found {
    /// In words; none where there are no messages of MPI.
    pub name: Option<String>,
    before: Counters,
}

impl Found {
    /// Looks at what MPI has selected, on all ranks together, and compares it with what is required.
    pub fn here(options: &cli::FabricArgs, world: Option<(&World, Transport)>) -> Result<Found> {
        let before = fabric::counters(Path::new(SYS));
        let required = options.required().next();
        let Some((world, transport)) = world else {
            if let Some(wanted) = required {
                bail!(
                    "{wanted} is required as the fabric between the ranks, but they are threads of one process, which send no \
                     messages; start the ranks with mpirun, or leave out --fabric and --rdma"
                );
            }
            return Ok(Found { name: None, before });
        };
        let ranks = world.fabric()?;
        let name = fabric::describe(&ranks);
        for wanted in options.required() {
            if transport == Transport::Shared {
                bail!(
                    "{wanted} is required as the fabric between the ranks, but what was found is memory that the ranks of one node \
                     share (MPI itself would use {name}); start the job on several nodes, force --transport messages, or leave out \
                     --fabric and --rdma"
                );
            }
            fabric::require(wanted, &ranks)?;
        }
        Ok(Found { name: Some(name), before })
    }

    /// How much the counters of all nodes have grown since; all ranks call this together.
    pub fn change(&self, world: Option<&World>) -> Result<Counters> {
        let own = fabric::change(&self.before, &fabric::counters(Path::new(SYS)));
        let Some(world) = world else { return Ok(BTreeMap::new()) };
        let places = world.roster().places();
        let lines = world.exchange(&serde_json::to_string(&own)?)?;
        let mut all = Counters::new();
        for (rank, line) in lines.iter().enumerate().filter(|(rank, _)| places[*rank].node == *rank) {
            let of_node: Counters = serde_json::from_str(line)?;
            all.extend(
                of_node.into_iter().map(|(name, grown)| (format!("{} {name}", places[rank].host), grown)),
            );
        }
        Ok(all)
    }

    /// Finds out whether the devices that were required have carried anything.
    pub fn prove(options: &cli::FabricArgs, grown: &Counters) -> Result<()> {
        let is_unused = !grown.is_empty() && grown.values().all(|&grown| grown == 0);
        if is_unused && options.required().any(|wanted| wanted == "rdma") {
            bail!(
                "RDMA is required, and its devices are open, but their counters did not change while the ranks trained: {grown:?}"
            );
        }
        Ok(())
    }
}
