//! Leaders without MPI: two nodes in the memory of one process, and a cable between them that copies, as messages do.

use super::*;
use crate::tree::subtrees;
use crate::{Roster, Server, Worker};
use std::thread;
use std::time::Duration;

const LENGTHS: [usize; 2] = [16, 48];
/// Micro-batches of a batch; the workers below hold subtrees of several levels of them.
const LEAVES: usize = 11;
/// The micro-batches of each worker. Those of the other node make up larger subtrees than any of its workers holds.
const SHARES: [Range<usize>; 5] = [0..1, 1..4, 4..5, 5..7, 7..11];
/// The workers of the server's node; the others are on the other one.
const NEAR: usize = 2;
const RANKS: [usize; 5] = [1, 2, 3, 4, 5];

fn shape(ranks: &[usize]) -> Shape<'_> {
    Shape {
        ranks,
        lengths: &LENGTHS,
        nodes: 3,
        nodes_of_leader: 4,
        leaves: LEAVES,
        copies: false,
        optimizer_slots: 0,
        step_timeout: Duration::from_millis(400),
    }
}

/// The server's side of the cable: weights are copied when they go out.
struct Outlet {
    cable: board::ServerEnd,
    weights: Arc<Shared>,
}

impl ServerEnd for Outlet {
    fn weights(&self) -> &Arc<Shared> {
        &self.weights
    }

    fn slots(&self) -> &[Arc<Shared>] {
        self.cable.slots()
    }

    fn copies(&self) -> &[Arc<Shared>] {
        &[]
    }

    fn arrival(&self, worker: usize) -> Result<Arrival, Error> {
        self.cable.arrival(worker)
    }

    fn take(&self, worker: usize, push: &mut Push) {
        self.cable.take(worker, push);
    }

    fn give(&self, worker: usize, order: Order) -> Result<(), Error> {
        self.cable.weights().write_all().copy_from_slice(&self.weights.read_all());
        self.cable.give(worker, order)
    }

    fn beat(&self) -> Result<(), Error> {
        self.cable.beat()
    }
}

/// The leader's side of the cable: weights are copied when they come in, gradients when they go out.
struct Inlet {
    cable: board::WorkerEnd,
    weights: Arc<Shared>,
}

impl WorkerEnd for Inlet {
    fn weights(&self) -> &Arc<Shared> {
        &self.weights
    }

    fn slot(&self) -> &Arc<Shared> {
        self.cable.slot()
    }

    fn order(&self) -> Result<(Arrival, Option<Order>), Error> {
        let (arrival, order) = self.cable.order()?;
        if order.is_some() {
            self.weights.write_all().copy_from_slice(&self.cable.weights().read_all());
        }
        Ok((arrival, order))
    }

    fn has_beaten(&self) -> Result<bool, Error> {
        self.cable.has_beaten()
    }

    fn push(&self, words: &[u64], nodes: usize) -> Result<(), Error> {
        self.cable.push(words, nodes)
    }

    fn fail(&self, reason: &str) {
        self.cable.fail(reason);
    }
}

impl Upward for Inlet {
    unsafe fn send(&self, words: &[u64], gradients: &mut dyn Iterator<Item = Ref<'_>>) -> Result<(), Error> {
        let mut sent = 0;
        for gradient in gradients {
            let blocks = sent * LENGTHS.len()..(sent + 1) * LENGTHS.len();
            self.cable.slot().write(blocks).copy_from_slice(&gradient);
            sent += 1;
        }
        self.cable.push(words, sent)
    }
}

/// Rank 0, and all workers.
fn world() -> (Server, Vec<Worker>) {
    let (near, far, leader) = (shape(&RANKS[..NEAR]), shape(&RANKS[NEAR..]), &RANKS[NEAR..=NEAR]);
    let whole = shape(&RANKS);
    let roster = Arc::new(Roster::of_threads(1 + RANKS.len()));
    let cable = Shape { nodes: whole.nodes_of_leader, ..shape(leader) };
    let (here, there, between) = (Board::here(&near), Board::here(&far), Board::here(&cable));
    let server = here.server(&near);
    let mut workers: Vec<Worker> = (0..NEAR)
        .map(|index| {
            let end = here.worker(&near, index, Some(&server));
            Worker::new(Box::new(end), roster.clone(), &whole, index, 0)
        })
        .collect();
    let outlet = Outlet { cable: between.server(&cable), weights: server.weights().clone() };
    let connect = |weights, _| {
        let cable = between.worker(&cable, 0, Some(&outlet.cable));
        Ok(Box::new(Inlet { cable, weights }) as Box<dyn Upward>)
    };
    let leader = LeaderWorker::new(&there, &far, connect).unwrap();
    let members: Vec<_> =
        (1..far.workers()).map(|index| there.worker(&far, index, Some(&leader.node))).collect();
    workers.push(Worker::new(Box::new(leader), roster.clone(), &whole, NEAR, 0));
    for (index, member) in members.into_iter().enumerate() {
        workers.push(Worker::new(Box::new(member), roster.clone(), &whole, NEAR + 1 + index, RANKS[NEAR]));
    }
    let server = LeadersServer::new(server, Box::new(outlet), std::slice::from_ref(&(NEAR..RANKS.len())));
    (Server::new(Box::new(server), roster, &whole), workers)
}

/// A micro-batch's gradient of one weight, whose sums round differently in every order.
fn gradient(leaf: usize, at: usize, weight: f32) -> f32 {
    1.0 / (1 + leaf * 7 + at) as f32 + weight * 0.1
}

/// The sum of a subtree, level by level.
fn sum(node: Node, at: usize, weight: f32) -> f32 {
    let mut level: Vec<f32> = node.span(LEAVES).map(|leaf| gradient(leaf, at, weight)).collect();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| if let [a, b] = pair { a + b } else { pair[0] }).collect();
    }
    level[0]
}

/// What a worker does with an order.
fn compute(worker: &Worker, index: usize) -> Push {
    let nodes = subtrees(SHARES[index].clone(), LEAVES);
    let weights = worker.weights().read_all();
    for (n, &node) in nodes.iter().enumerate() {
        let mut slot = worker.slot().write(n * LENGTHS.len()..(n + 1) * LENGTHS.len());
        slot.iter_mut().enumerate().for_each(|(at, float)| *float = sum(node, at, weights[at]));
    }
    let losses = SHARES[index].clone().map(|leaf| leaf as f64).collect();
    let hits = SHARES[index].clone().map(|leaf| leaf as u32).collect();
    Push { leaves: LEAVES, nodes, losses, hits }
}

/// Orders a step and adds all that comes to the weights, by the tree; returns the pushes of those that the server hears.
fn serve(server: &Server, step: u64) -> Vec<Push> {
    server.publish(Order::Compute(step)).unwrap();
    let mut pushes = vec![Push::default(); server.others().len()];
    for (&worker, push) in server.others().iter().zip(&mut pushes) {
        server.collect(worker, push).unwrap();
    }
    let slots: Vec<_> = server.others().iter().map(|&worker| server.slots()[worker].read_all()).collect();
    let parts = pushes
        .iter()
        .zip(&slots)
        .flat_map(|(push, slot)| push.nodes.iter().copied().zip(slot.chunks(LENGTHS.iter().sum())));
    let parts: Vec<_> = parts.collect();
    let add_assign =
        |sum: &mut [f32], part: &[f32]| sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    let add = |sum: &mut [f32], a: &[f32], b: &[f32]| {
        sum.copy_from_slice(a);
        add_assign(sum, b);
    };
    let mut summer = tree::Summer::new(LEAVES);
    let total = summer.sum(parts.iter().map(|part| part.0), |i| parts[i].1, add, add_assign);
    add_assign(&mut server.weights().write_all(), total);
    pushes
}

#[test]
fn a_leader_sends_the_sums_of_its_node_and_the_bits_are_those_of_one_process() {
    let (server, workers) = world();
    assert_eq!(server.others(), [0, 1, NEAR], "the leader speaks for those behind it");
    thread::scope(|scope| {
        for (index, worker) in workers.iter().enumerate() {
            scope.spawn(move || {
                while let Order::Compute(_) = worker.pull().unwrap() {
                    worker.push(&compute(worker, index)).unwrap();
                }
            });
        }
        let mut expected = [0.0; LENGTHS[0] + LENGTHS[1]];
        for step in 0..50 {
            let pushes = serve(&server, step);
            assert_eq!(pushes[2].nodes, subtrees(SHARES[NEAR].start..LEAVES, LEAVES));
            assert!(
                pushes.iter().flat_map(|push| &push.losses).copied().eq((0..LEAVES).map(|leaf| leaf as f64))
            );
            assert!(pushes.iter().flat_map(|push| &push.hits).copied().eq(0..LEAVES as u32));
            let root = subtrees(0..LEAVES, LEAVES)[0];
            let step = |(at, weight): (usize, &mut f32)| *weight += sum(root, at, *weight);
            expected.iter_mut().enumerate().for_each(step);
            assert_eq!(server.weights().read_all()[..], expected);
        }
        server.stop().unwrap();
    });
}

#[test]
fn a_rank_behind_a_leader_that_does_not_go_on_is_named_by_the_leader() {
    let (server, workers) = world();
    server.publish(Order::Compute(0)).unwrap();
    for (index, worker) in workers.iter().enumerate() {
        worker.pull().unwrap();
        if ![NEAR, 4].contains(&index) {
            worker.push(&compute(worker, index)).unwrap();
        }
    }
    let error = workers[NEAR].push(&compute(&workers[NEAR], NEAR)).unwrap_err();
    assert!(error.to_string().starts_with("rank 5 has sent nothing"), "{error}");
    workers[NEAR].fail(&error.to_string());
    let error = workers[3].pull().unwrap_err();
    assert!(error.to_string().contains("rank 5 has sent nothing"), "the node hears of it: {error}");
}

#[test]
fn a_leader_that_does_not_go_on_is_named_by_both_sides() {
    let (server, workers) = world();
    server.publish(Order::Compute(0)).unwrap();
    let error = server.collect(NEAR, &mut Push::default()).unwrap_err();
    assert!(error.to_string().starts_with("rank 3 has sent nothing"), "{error}");
    let error = workers[3].pull().unwrap_err();
    assert!(error.to_string().starts_with("rank 3 has sent nothing"), "{error}");
}

#[test]
fn signs_of_life_of_the_server_reach_those_behind_the_leader() {
    let (server, workers) = world();
    thread::scope(|scope| {
        let pulls: Vec<_> = workers.iter().map(|worker| scope.spawn(|| worker.pull())).collect();
        // A worker's limit is a second.
        server.pausing(|| thread::sleep(Duration::from_millis(2500)));
        server.publish(Order::Compute(7)).unwrap();
        pulls.into_iter().for_each(|pull| assert_eq!(pull.join().unwrap(), Ok(Order::Compute(7))));
    });
}
