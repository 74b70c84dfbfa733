//! What a process says of itself when it registers, and where its ranks take records.

use crate::channel::Sender;
use crate::environment::Environment;
use crate::error::Error;
use crate::feed::Inlet;
use crate::feed::spec::FeedSpec;
use crate::hosts::this_host;
use crate::message::{Program, Registration};
use std::collections::BTreeMap;

/// That of this process, which runs `ranks`, of which those of `inlets` take records.
pub(super) fn registration(
    environment: &Environment,
    ranks: &[usize],
    program: Program,
    inlets: &BTreeMap<usize, Inlet>,
) -> Registration {
    let listener = |rank| inlets.get(rank).map(Inlet::address);
    let data_listeners = program.feed.iter().flat_map(|_| ranks.iter().map(listener)).collect();
    Registration {
        ranks: ranks.to_owned(),
        attempt: environment.attempt,
        host: this_host(),
        pid: std::process::id(),
        program,
        cpu_features: cpu_features(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        data_listeners,
    }
}

/// Opens a listener for each rank that takes records, where the driver can reach it: at this end's address of the connection to it.
pub(super) fn listen(
    sender: &Sender,
    environment: &Environment,
    ranks: &[usize],
    feed: &FeedSpec,
) -> Result<BTreeMap<usize, Inlet>, Error> {
    let host = sender.local_address()?.ip();
    let trainers = environment.trainers();
    let takes = |&&rank: &&usize| (first_rank(feed, trainers)..trainers).contains(&rank);
    ranks
        .iter()
        .filter(takes)
        .map(|&rank| Ok((rank, Inlet::listen(host, environment.key.clone())?)))
        .collect()
}

/// The first rank that takes records; alone in its world, the server does.
pub(super) fn first_rank(feed: &FeedSpec, trainers: usize) -> usize {
    if trainers == 1 { 0 } else { feed.first_rank }
}

/// Instruction sets that matter to the kernels.
fn cpu_features() -> Vec<String> {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let known: [(&str, bool); 0] = [];
    known.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
}
