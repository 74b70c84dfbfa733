//! `muster-peers [FILE [PART…]]`: kernels, training and reading csv beside their peers; a table, and JSON into FILE. Without parts all
//! of them, in one run: `reading`, `products`, `shared` (products on two threads), `softmax`, `training`, `competing` (the same beside
//! processes that want all cores but one).

mod blas;
mod c_trainer;
mod competitor;
mod products;
mod readers;
mod softmax;

use crate::blas::Blas;
use crate::c_trainer::CTrainer;
use crate::competitor::Competitors;
use crate::products::{Product, THREADS_REST, measure};
use muster_benches::measure::median;
use muster_benches::products::{SHAPES, SHARED};
use muster_benches::trainer::{Trainer, random_images};
use muster_kernels::{Form, Kernels};
use serde_json::{Value, json};
use std::path::Path;

/// Rounds that a median is taken over.
const ROUNDS: usize = 15;
/// The same where a round takes long: of large products, and where threads are given time to go to sleep.
const ROUNDS_OF_FEW: usize = 7;
/// Rows from which on products are large.
const LARGE: usize = 2048;
/// Steps that a rate is taken over.
const STEPS: u64 = 600;
/// The same beside other processes: a scheduler lets them run for milliseconds at a time, and threads take a while to find out.
const STEPS_BESIDE_OTHERS: u64 = 4 * STEPS;
/// As many images as MNIST's training set has.
const IMAGES: usize = 60_000;
/// Images that are written as csv: some megabytes of text.
const CSV_IMAGES: usize = 10_000;
const PIXELS: usize = 784;
const CLASSES: usize = 10;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let file = arguments.next();
    if file.as_deref() == Some(competitor::SPIN.as_ref()) {
        competitor::spin();
    }
    let wanted: Vec<_> = arguments.collect();
    let kernels = Kernels::select().unwrap_or_else(|error| panic!("{error}"));
    let blas: Vec<Blas> = [Blas::mkl(), Blas::openblas()].into_iter().flatten().collect();
    println!("kernels: {} ({})", kernels.backend(), kernels.backend().arithmetic());
    for blas in &blas {
        println!("{}: {}", blas.name, blas.version);
    }
    if blas.len() < 2 {
        println!("not on this machine: MKL or OpenBLAS (benches/peers/install.sh installs both)");
    }
    let parts: [(&str, &dyn Fn() -> Value); 6] = [
        ("reading", &read_beside_peers),
        ("products", &|| multiply_beside_peers(kernels, &blas, &SHAPES, 1)),
        ("shared", &|| multiply_beside_peers(kernels, &blas, &SHARED, 2)),
        ("softmax", &|| softmax_beside_peers(kernels)),
        ("training", &|| train_beside_peers(kernels, &blas)),
        ("competing", &|| train_beside_competitor(kernels, &blas)),
    ];
    if let Some(unknown) = wanted.iter().find(|wanted| parts.iter().all(|(part, _)| wanted != part)) {
        panic!("{}: parts are {}", unknown.display(), parts.map(|(part, _)| part).join(", "));
    }
    let mut report = serde_json::Map::new();
    for (part, measure) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == part) {
            report.insert(part.to_owned(), measure());
        }
    }
    if let Some(file) = file {
        let text = format!("{:#}\n", Value::Object(report));
        std::fs::write(&file, text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
}

/// Gigabytes of csv a second of our reader and of its peers.
fn read_beside_peers() -> Value {
    let (images, _) = mnist();
    let images = &images[..CSV_IMAGES * PIXELS];
    let reading = readers::measure(images, PIXELS, ROUNDS).unwrap_or_else(|error| panic!("{error}"));
    print!("\ncsv on one thread, GB/s (times ours / theirs):");
    for (name, rate) in &reading.rates {
        print!("  {name} {rate:.3} (×{:.1})", reading.ours_by_theirs[name]);
    }
    println!();
    if reading.rates.len() == 1 {
        println!("not on this machine: polars or pyarrow (benches/peers/install.sh installs both)");
    }
    json!({ "csv_gb_per_second": reading.rates, "ours_by_theirs": reading.ours_by_theirs })
}

/// Shares of the peak of our products and of the peers', in turns.
fn multiply_beside_peers(
    kernels: &Kernels,
    blas: &[Blas],
    shapes: &[(Form, [usize; 3])],
    threads: usize,
) -> Value {
    println!("\nmatrix products, threads: {threads}, % of their FMA peak");
    let measured = shapes.iter().map(|&(form, size)| {
        let rounds = if size[0] < LARGE && threads == 1 { ROUNDS } else { ROUNDS_OF_FEW };
        print_product(&measure(kernels, blas, form, size, threads, rounds))
    });
    measured.collect()
}

/// Nanoseconds an element of softmax, cross-entropy and its gradient.
fn softmax_beside_peers(kernels: &Kernels) -> Value {
    println!("\nsoftmax, cross-entropy and gradient on one thread, ns a logit");
    let shape = |[m, classes]: [usize; 2]| {
        let timings = softmax::measure(kernels, [m, classes], ROUNDS);
        print!("{:16}", format!("{m}×{classes}"));
        let mut nanoseconds = serde_json::Map::new();
        for timing in &timings {
            let each = 1e9 * timing.seconds / (m * classes) as f64;
            print!("  {} {each:.2}", timing.name);
            nanoseconds.insert(timing.name.clone(), json!(each));
        }
        println!();
        json!({ "m": m, "classes": classes, "nanoseconds_per_logit": nanoseconds })
    };
    softmax::SHAPES.into_iter().map(shape).collect()
}

fn print_product(product: &Product) -> Value {
    let [m, n, k] = product.size;
    print!("{:?} {:16}", product.form, format!("{m}×{n}×{k}"));
    let mut shares = serde_json::Map::new();
    for timing in &product.timings {
        let share = product.share(timing);
        print!("  {} {:5.1} ({:.1} µs)", timing.name, 100.0 * share, 1e6 * timing.seconds);
        shares.insert(
            timing.name.clone(),
            json!({ "peak_share": share, "microseconds": 1e6 * timing.seconds }),
        );
    }
    println!("  of {:.0} GFLOP/s", product.peak / 1e9);
    json!({
        "form": format!("{:?}", product.form), "m": m, "n": n, "k": k, "threads": product.threads,
        "peak_flops": product.peak, "contenders": shares,
    })
}

/// Images a second of our trainer and of a C programmer's over each BLAS, in turns, one thread and two.
fn train_beside_peers(kernels: &'static Kernels, blas: &[Blas]) -> Value {
    let mut results = Vec::new();
    for (data, (images, labels)) in [("MNIST", mnist()), ("no zeros", dense())] {
        println!(
            "\ntraining on {data}, thousand images/s at batch 100: one thread, two (times ours / theirs)"
        );
        for hidden in [&[][..], &[128], &[512, 512]] {
            let rates = training_rates(kernels, blas, hidden, (&images, &labels), STEPS);
            results.extend(print_training(data, hidden, blas, &rates));
        }
    }
    json!(results)
}

/// Images a second of our trainer, then of each peer, by threads and round.
fn training_rates(
    kernels: &'static Kernels,
    blas: &[Blas],
    hidden: &[usize],
    (images, labels): (&[u8], &[u8]),
    steps: u64,
) -> Vec<[Vec<f64>; 2]> {
    let ours =
        Trainer::new(kernels, hidden, CLASSES, images, labels).unwrap_or_else(|error| panic!("{error}"));
    let mut peers: Vec<CTrainer> =
        blas.iter().map(|blas| CTrainer::new(blas, hidden, CLASSES, images, labels)).collect();
    let mut rates = vec![[Vec::new(), Vec::new()]; 1 + peers.len()];
    for _ in 0..ROUNDS_OF_FEW {
        for threads in [1, 2] {
            // Each begins when the threads of the one before have given up their cores.
            std::thread::sleep(THREADS_REST);
            let rate = ours.images_per_second(threads, steps);
            rates[0][threads - 1].push(rate.unwrap_or_else(|error| panic!("{error}")));
            for (peer, rates) in peers.iter_mut().zip(&mut rates[1..]) {
                std::thread::sleep(THREADS_REST);
                rates[threads - 1].push(peer.images_per_second(threads, steps as usize / 4));
            }
        }
    }
    rates
}

/// What a second thread gains where other processes leave one core alone.
fn train_beside_competitor(kernels: &'static Kernels, blas: &[Blas]) -> Value {
    let count = std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1);
    println!("\ntraining on MNIST beside {count} that spin, thousand images/s: one thread, two (times one)");
    let (images, labels) = mnist();
    let mut results = Vec::new();
    for hidden in [&[][..], &[128]] {
        let competitors =
            Competitors::start(count).unwrap_or_else(|error| panic!("a process that spins: {error}"));
        let rates = training_rates(kernels, blas, hidden, (&images, &labels), STEPS_BESIDE_OTHERS);
        drop(competitors);
        print!("784-{hidden:?}-10:");
        for (name, [one, two]) in names(blas).zip(rates) {
            let gain = median(one.iter().zip(&two).map(|(one, two)| two / one).collect());
            let [one, two] = [median(one), median(two)];
            print!("  {name} {:.0}, {:.0} (×{gain:.2})", one / 1e3, two / 1e3);
            results.push(json!({
                "hidden": hidden, "trainer": name, "images_per_second": [one, two], "two_threads_by_one": gain,
            }));
        }
        println!();
    }
    json!(results)
}

/// The trainers: ours, then the peers.
fn names(blas: &[Blas]) -> impl Iterator<Item = &'static str> {
    std::iter::once("muster").chain(blas.iter().map(|blas| blas.name))
}

fn print_training(data: &str, hidden: &[usize], blas: &[Blas], rates: &[[Vec<f64>; 2]]) -> Vec<Value> {
    let mut results = Vec::new();
    print!("784-{hidden:?}-10:");
    for (name, rates_of) in names(blas).zip(rates) {
        let of = |threads: usize| median(rates_of[threads - 1].clone());
        let ratio = |threads: usize| {
            let pairs = rates[0][threads - 1].iter().zip(&rates_of[threads - 1]);
            median(pairs.map(|(ours, theirs)| ours / theirs).collect())
        };
        print!("  {name} {:.0}, {:.0} (×{:.2}, ×{:.2})", of(1) / 1e3, of(2) / 1e3, ratio(1), ratio(2));
        results.push(json!({
            "data": data, "hidden": hidden, "trainer": name, "images_per_second": [of(1), of(2)],
            "ours_by_theirs": [ratio(1), ratio(2)],
        }));
    }
    println!();
    results
}

/// MNIST's training set from the cache; where that is empty, as many images with as many zeros.
fn mnist() -> (Vec<u8>, Vec<u8>) {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from);
    let cache = cache.or_else(|| Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let file = |name: &str| std::fs::read(cache.as_ref()?.join("muster/mnist").join(name)).ok();
    match (file("train-images-idx3-ubyte"), file("train-labels-idx1-ubyte")) {
        (Some(images), Some(labels)) => (images[16..].to_vec(), labels[8..].to_vec()),
        _ => {
            println!("not in the cache: MNIST (mnist fetch); random pixels of the same density stand for it");
            random_images(IMAGES, PIXELS, CLASSES, 49)
        }
    }
}

fn dense() -> (Vec<u8>, Vec<u8>) {
    random_images(IMAGES, PIXELS, CLASSES, 256)
}

/// The repository, where `benches/peers/install.sh` installs peers under `target`.
fn root() -> &'static Path {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR"));
    peers.ancestors().nth(2).expect("this package is benches/peers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_looked_for_where_they_are_installed() {
        let script = std::fs::read_to_string(root().join("benches/peers/install.sh")).unwrap();
        for place in ["target/peers/venv", "target/peers/openblas"] {
            assert!(script.contains(place), "{place}");
        }
        assert!(root().join("benches/peers/read_csv.py").is_file());
    }
}
