//! Training throughput on random images as sparse as MNIST, on one thread and on all, beside the multiply-adds that it needs.

use std::rc::Rc;
use std::time::Duration;

use crate::Error;
use crate::kernels::DENSITY;
use crate::measure::{Limit, Probe, steps};
use crate::report::{Group, Unit};
use crate::suite::Bench;
use crate::trainer::{BATCH, Trainer, random_images};

/// The models: softmax regression, one hidden layer, two.
const HIDDEN: [&[usize]; 3] = [&[], &[128], &[512, 512]];
/// Pixels of an image, and classes.
pub const SHAPE: (usize, usize) = (784, 10);
/// Images that are drawn: more than the second-level cache holds, so that they come as they do in a large data set.
pub const IMAGES: usize = 10_000;
/// Steps that tell how many fill a sample.
pub const TRIAL: u64 = 10;

/// All of them.
///
/// # Errors
/// If a model cannot be trained.
pub fn probes(bench: &Bench) -> Result<Vec<Probe<'static>>, Error> {
    let (images, labels) = random_images(IMAGES, SHAPE.0, SHAPE.1, DENSITY);
    let non_zeros = images.iter().filter(|&&pixel| pixel > 0).count() as f64 / IMAGES as f64;
    let mut probes = Vec::new();
    for hidden in HIDDEN {
        let trainer = Rc::new(Trainer::new(bench.kernels, hidden, SHAPE.1, &images, &labels)?);
        for threads in bench.thread_counts() {
            let (trainer, time) = (trainer.clone(), bench.sample);
            let name = format!("{}, {}", model(hidden), counted(threads, "thread"));
            let run = move |steps| Ok(trainer.images_per_second(threads, steps)?);
            let sample = steps(TRIAL, move |rate| steps_of(time, rate), run);
            let limit = Limit::Times(bench.peak_name(threads), 1e9 / flops(hidden, non_zeros));
            probes.push(Probe {
                group: Group::Training,
                name,
                unit: Unit::Records,
                limit: Some(limit),
                intensity: None,
                sample,
            });
        }
    }
    Ok(probes)
}

/// As many steps as fill a sample at `rate` images a second.
pub fn steps_of(sample: Duration, rate: f64) -> u64 {
    ((rate * sample.as_secs_f64() / BATCH as f64) as u64).max(TRIAL)
}

/// `784-128-10`
pub fn model(hidden: &[usize]) -> String {
    let widths = [&[SHAPE.0], hidden, &[SHAPE.1]].concat();
    widths.iter().map(usize::to_string).collect::<Vec<_>>().join("-")
}

/// `1 thread`, `2 threads`
pub fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Multiply-adds of the three products of each layer, as two operations each: the first layer has no input gradient, and visits only
/// the pixels that are not 0.
fn flops(hidden: &[usize], non_zeros: f64) -> f64 {
    let widths = [hidden, &[SHAPE.1]].concat();
    let first = 2.0 * 2.0 * non_zeros * widths[0] as f64;
    first + widths.windows(2).map(|layer| 3.0 * 2.0 * (layer[0] * layer[1]) as f64).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_those_of_the_products() {
        assert_eq!(flops(&[], 784.0), 4.0 * 784.0 * 10.0);
        assert_eq!(flops(&[128], 100.0), 4.0 * 100.0 * 128.0 + 6.0 * 128.0 * 10.0);
        assert_eq!(model(&[512, 512]), "784-512-512-10");
        assert_eq!([1, 2].map(|count| counted(count, "worker")), ["1 worker", "2 workers"]);
    }
}
