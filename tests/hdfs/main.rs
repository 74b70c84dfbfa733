//! Storage against a real HDFS whose nodes are killed, frozen and restarted meanwhile.

mod calm;
mod datanodes;
mod disturbances;
mod doctor;
mod namenode;
mod programs;
mod refusals;

use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use muster_tests::hdfs::Cluster;

/// A test: its name and what it does with the cluster, which it leaves as it found it, but for files.
type Test = (&'static str, fn(&Cluster));

/// One cluster serves all tests, one after the other, because starting it takes as long as most of them.
fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let tests = [
        calm::TESTS,
        datanodes::TESTS,
        disturbances::TESTS,
        doctor::TESTS,
        namenode::TESTS,
        programs::TESTS,
        refusals::TESTS,
    ]
    .concat();
    let cluster = (!arguments.list).then(|| Arc::new(Cluster::start()));
    let trials = tests.into_iter().map(|(name, test)| {
        let cluster = cluster.clone();
        Trial::test(name, move || {
            test(cluster.as_deref().expect("a listing runs nothing"));
            Ok(())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(cluster);
    conclusion.exit();
}

/// `len` bytes that no two seeds share.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(len).collect()
}
