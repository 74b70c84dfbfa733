//! `muster-benches [FILE]`: kernels and training beside their peers, in one run; a table, and JSON into FILE.

use muster_benches::blas::Blas;
use muster_benches::c_trainer::CTrainer;
use muster_benches::measure::median;
use muster_benches::products::{Product, SHAPES, measure};
use muster_kernels::Kernels;
use serde_json::{Value, json};

/// Rounds that a median is taken over.
const ROUNDS: usize = 15;
/// Images like MNIST's training set: as many, and four of five pixels are zero.
const IMAGES: usize = 60_000;
const PIXELS: usize = 784;

fn main() {
    let kernels = Kernels::select().unwrap_or_else(|error| panic!("{error}"));
    let blas: Vec<Blas> = [Blas::mkl(), Blas::openblas()].into_iter().flatten().collect();
    println!("kernels: {} ({})", kernels.backend(), kernels.backend().arithmetic());
    for blas in &blas {
        println!("{}: {}", blas.name, blas.version);
    }
    if blas.len() < 2 {
        println!("not on this machine: MKL or OpenBLAS (benches/peers.sh installs both)");
    }
    println!("\nmatrix products on one thread, % of the FMA peak");
    let products: Vec<Value> = SHAPES
        .into_iter()
        .map(|(form, size)| print_product(&measure(kernels, &blas, form, size, ROUNDS)))
        .collect();
    let training = blas.first().map(train_peer);
    if let Some(file) = std::env::args_os().nth(1) {
        let report = json!({ "products": products, "c_trainer": training });
        std::fs::write(&file, format!("{report:#}\n")).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
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
        "form": format!("{:?}", product.form), "m": m, "n": n, "k": k, "peak_flops": product.peak,
        "contenders": shares,
    })
}

/// Images a second of the C trainer, one thread and two.
fn train_peer(blas: &Blas) -> Value {
    let images: Vec<u8> =
        (0..IMAGES * PIXELS).map(|i| if i * 31 % 5 == 0 { (i % 251) as u8 } else { 0 }).collect();
    let labels: Vec<u8> = (0..IMAGES).map(|i| (i * 7 % 10) as u8).collect();
    println!("\nC trainer over {}, thousand images/s at batch 100", blas.name);
    let mut results = Vec::new();
    for hidden in [&[128][..], &[512, 512]] {
        let mut trainer = CTrainer::new(blas, hidden, 10, &images, &labels);
        let steps = 200 / hidden.len();
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (threads, rates) in (1..).zip(&mut rates) {
                rates.push(trainer.images_per_second(threads, steps));
            }
        }
        let [one, two] = rates.map(median);
        println!("784-{hidden:?}-10: one thread {:.1}, two {:.1}", one / 1e3, two / 1e3);
        results.push(json!({ "hidden": hidden, "blas": blas.name, "one_thread": one, "two_threads": two }));
    }
    json!(results)
}
