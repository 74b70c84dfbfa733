//! `push-pull TRANSPORT [WORKERS]`: microseconds of one push and pull, median and fastest tenth, for gradients of several sizes.
//!
//! The transport is `threads`, or one between the processes that mpirun started. Every worker announces a gradient and waits for the next
//! weights; the server adds the gradients up and updates, as it does in training. What workers compute is left out, so that a
//! gradient in memory is not written anew.

use muster_collective::tree::{CHUNK, Node, Summer};
use muster_collective::{Order, Push, Server, Shape, Transport, Worker, World, link};
use muster_kernels::Kernels;
use std::time::{Duration, Instant};

/// Floats of a model: 784–10, 784–128–10 and 784–512–512–10, as training lays them out.
const SIZES: [usize; 3] = [7_850, 101_770, 669_706];
/// Pushes and pulls that a median is taken over, and those before that.
const ROUNDS: u64 = 2000;
const WARM_UP: u64 = 200;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().expect("a transport").as_str();
    let transports = [Transport::Shared, Transport::Messages, Transport::Leaders, Transport::Rma];
    let transport = transports.into_iter().find(|transport| transport.name() == name);
    let world = World::join(|reason| panic!("{reason}")).expect("a world, or none");
    let count = arguments.get(1).map_or(1, |count| count.parse().expect("a number of workers"));
    let ranks: Vec<usize> = match &world {
        Some(world) => world.roster().by_node(1),
        None => (1..=count).collect(),
    };
    for floats in SIZES {
        let lengths = [floats];
        let shape = Shape {
            ranks: &ranks,
            lengths: &lengths,
            nodes: 1,
            nodes_of_leader: ranks.len(),
            leaves: ranks.len(),
            copies: false,
            step_timeout: Duration::from_secs(60),
        };
        match (&world, transport) {
            (Some(world), Some(transport)) if world.rank() == 0 => {
                serve(&world.server(&shape, transport).expect("a link"), name);
            }
            (Some(world), Some(transport)) => work(&world.worker(&shape, transport).expect("a link")),
            _ => {
                let (server, workers) = link::threads(&shape);
                std::thread::scope(|scope| {
                    workers.iter().for_each(|worker| _ = scope.spawn(|| work(worker)));
                    serve(&server, "threads");
                });
            }
        }
    }
    if let Some(world) = world {
        world.leave().expect("MPI ends");
    }
}

/// Answers every order with the same gradient.
fn work(worker: &Worker) {
    let mut push = Push::default();
    while let Order::Compute(leaf) = worker.pull().expect("the server is well") {
        // The first orders number the workers; each of them holds one leaf.
        if push.nodes.is_empty() {
            push.nodes.push(Node { level: 0, index: leaf as usize });
            worker.slot().write_all().fill(1e-3);
        }
        worker.push(&push).expect("the server is well");
    }
}

fn serve(server: &Server, name: &str) {
    let kernels = Kernels::select().unwrap_or_else(|error| panic!("{error}"));
    let workers = server.others();
    let mut pushes = vec![Push::default(); workers.len()];
    let mut summer = Summer::new(workers.len());
    for &worker in workers {
        server.give(worker, Order::Compute(worker as u64)).expect("MPI sends");
    }
    let collect = |pushes: &mut Vec<Push>| {
        let mut each = workers.iter().zip(pushes);
        each.try_for_each(|(&worker, push)| server.collect(worker, push)).expect("the workers are well");
    };
    collect(&mut pushes);
    let mut micros = Vec::new();
    for round in 0..WARM_UP + ROUNDS {
        let since = Instant::now();
        update(server, kernels, &pushes, &mut summer);
        server.publish(Order::Compute(round)).expect("MPI sends");
        collect(&mut pushes);
        if round >= WARM_UP {
            micros.push(1e6 * since.elapsed().as_secs_f64());
        }
    }
    server.stop().expect("MPI sends");
    micros.sort_by(f64::total_cmp);
    let (kilobytes, n) = (4e-3 * server.weights().range(0..1).len() as f64, micros.len());
    let (fast, mid) = (micros[n / 10], micros[n / 2]);
    let count = workers.len();
    println!("{name:8} {count} workers {kilobytes:6.0} KB  {mid:7.1} µs, the fastest tenth {fast:7.1}");
}

/// Adds the gradients up and applies them.
fn update(server: &Server, kernels: &Kernels, pushes: &[Push], summer: &mut Summer) {
    let slots: Vec<_> = server.others().iter().map(|&worker| server.slots()[worker].read_all()).collect();
    let mut weights = server.weights().write_all();
    let mut gradient = [0.0; CHUNK];
    for (at, weights) in weights.chunks_mut(CHUNK).enumerate() {
        let (gradient, begin) = (&mut gradient[..weights.len()], at * CHUNK);
        let parts =
            pushes.iter().zip(&slots).map(|(push, slot)| (push.nodes[0], &slot[begin..][..weights.len()]));
        summer.sum(parts, |sum, part| kernels.add_assign(sum, part), gradient);
        kernels.sgd(0.01, gradient, weights);
    }
}
