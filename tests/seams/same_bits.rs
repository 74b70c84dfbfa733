//! The same options end with the same weights, bit for bit, on any number of ranks and threads.

use muster_tests::program::Sandbox;

/// Compares worlds of 1, 2, 3 and 5 ranks with 1, 2 and 3 threads each, under options that decide the weights.
#[track_caller]
fn same_on_every_world(options: &str) {
    let sandbox = Sandbox::new();
    let hash = |ranks: usize, threads: usize| {
        let world = format!("-n {ranks} --threads {threads} --no-resume -e 2 {options}");
        sandbox.hash(&world)
    };
    let expected = hash(1, 1);
    for ranks in [1, 2, 3, 5] {
        for threads in [1, 2, 3] {
            assert_eq!(hash(ranks, threads), expected, "{options}: {ranks} ranks of {threads} threads");
        }
    }
}

const OPTIMIZERS: [&str; 4] =
    ["--optimizer sgd --momentum 0", "--optimizer sgd", "--optimizer adagrad", "--optimizer adam"];

#[test]
fn softmax_regression() {
    OPTIMIZERS.iter().for_each(|optimizer| same_on_every_world(&format!("--hidden none {optimizer}")));
}

#[test]
fn one_hidden_layer() {
    OPTIMIZERS.iter().for_each(|optimizer| same_on_every_world(&format!("--hidden 128 {optimizer}")));
}

#[test]
fn two_hidden_layers() {
    OPTIMIZERS.iter().for_each(|optimizer| same_on_every_world(&format!("--hidden 100,50 {optimizer}")));
}

#[test]
fn an_odd_number_of_micro_batches() {
    same_on_every_world("--hidden 40 -b 37 --micro-batch 8");
}

#[test]
fn fewer_micro_batches_than_workers() {
    same_on_every_world("--hidden 40 -b 7");
}

#[test]
fn a_summed_loss_and_decay() {
    same_on_every_world("--hidden 40 --loss-reduction sum --learning-rate 0.001 --learning-rate-decay 0.5");
}

#[test]
fn other_seeds_and_batches_give_other_weights() {
    let sandbox = Sandbox::new();
    let mut hashes = ["", "--seed 2", "-b 50", "--micro-batch 16", "--learning-rate 0.2", "--optimizer adam"]
        .map(|option| sandbox.hash(&format!("--hidden 40 -e 2 --no-resume {option}")));
    hashes.sort_unstable();
    assert!(hashes.windows(2).all(|pair| pair[0] != pair[1]), "{hashes:?}");
}
