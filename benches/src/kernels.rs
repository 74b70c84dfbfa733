//! The kernels on one thread, on the shapes of training, each under the roofline.

use muster_kernels::{Finish, Form, Kernels, Nonzeros, panel_width, panels_len};

use crate::measure::{Probe, billions};
use crate::products::{SHAPES, panels};
use crate::report::{Group, Unit};
use crate::suite::{Bench, Work};
use crate::trainer::random_images;

/// Squares from this edge on take too long for a round.
const EDGE_MAX: usize = 512;
/// Bytes of 256 that are not zero, as in MNIST.
pub const DENSITY: u64 = 49;
/// Operations that softmax, cross-entropy and its gradient take a logit: `exp` 25, and maximum, difference, sum, product, subtraction.
const SOFTMAX_FLOPS: usize = 30;
/// Weights of 784-128-10.
const WEIGHTS: usize = 101_770;
/// Bytes of a float.
const FLOAT: usize = size_of::<f32>();

/// All of them.
pub fn probes(bench: &Bench) -> Vec<Probe<'static>> {
    let mut probes = products(bench);
    probes.extend(products_of_bytes(bench));
    probes.push(softmax(bench));
    probes.extend(updates(bench));
    probes
}

fn probe(bench: &Bench, name: String, work: Work, run: impl FnMut() + 'static) -> Probe<'static> {
    Probe {
        group: Group::Kernels,
        name,
        unit: Unit::Gflops,
        limit: Some(bench.roofline(&work)),
        intensity: Some(work.intensity()),
        sample: billions(bench.sample, work.flops as f64, run),
    }
}

fn products(bench: &Bench) -> Vec<Probe<'static>> {
    let shapes = SHAPES.into_iter().filter(|(_, [m, ..])| *m <= EDGE_MAX || *m == 784);
    let product = |(form, size): (Form, [usize; 3])| {
        let [m, n, k] = size;
        let (read, written) = (FLOAT * (m * k + k * n), FLOAT * m * n);
        let work = Work { flops: 2 * m * n * k, read, set: read + written };
        probe(bench, format!("{form:?} {m}×{n}×{k}"), work, panels(bench.kernels, form, size))
    };
    shapes.map(product).collect()
}

/// The products of a first layer of 128 units whose input is bytes that are mostly zero. Only the others are counted.
fn products_of_bytes(bench: &Bench) -> [Probe<'static>; 2] {
    let (m, n, k, kernels): (_, _, _, &'static Kernels) = (100, 128, 784, bench.kernels);
    let (pixels, _) = random_images(m, k, 10, DENSITY);
    let non_zeros = pixels.iter().filter(|&&pixel| pixel > 0).count();
    let scale = 1.0 / 255.0;
    let (mut a, mut at) = (Nonzeros::with_room(m, k, scale), Nonzeros::with_room(k, m, scale));
    pixels.chunks_exact(k).for_each(|row| kernels.push_bytes(row, &mut a));
    at.transpose(&a, &[m]);
    let width = panel_width(n);
    let work = |from: usize, to: usize| {
        let read = m * k + FLOAT * from * n;
        Work { flops: 2 * non_zeros * n, read, set: read + FLOAT * to * n }
    };
    let (b, mut c) = (vec![0.5; panels_len(k, n)], vec![0.0; panels_len(m, n)]);
    let forward = move || {
        kernels.matmul_sparse(&a, 0..k, &b, k, width, Finish::None, &mut c);
    };
    let (d, mut dw) = (vec![0.5; panels_len(m, n)], vec![0.0; panels_len(k, n)]);
    let backward = move || {
        kernels.matmul_tn_by_columns(&at, 0..k, 0..1, &d, width, &mut dw, k);
    };
    [
        probe(bench, format!("NN {m}×{n}×{k}, bytes, 19 % not 0"), work(k, m), forward),
        probe(bench, format!("TN {k}×{n}×{m}, bytes, 19 % not 0"), work(m, k), backward),
    ]
}

fn softmax(bench: &Bench) -> Probe<'static> {
    let (m, classes, kernels): (_, _, &'static Kernels) = (100, 10, bench.kernels);
    let mut logits: Vec<f32> = (0..panels_len(m, classes)).map(|i| (i % 7) as f32).collect();
    let labels: Vec<u32> = (0..m).map(|i| (i % classes) as u32).collect();
    let (mut loss, mut predicted) = (vec![0.0; m], vec![0; m]);
    let bytes = FLOAT * logits.len();
    let work = Work { flops: SOFTMAX_FLOPS * m * classes, read: bytes, set: bytes };
    probe(bench, format!("softmax and loss {m}×{classes}"), work, move || {
        let scale = 1.0 / m as f32;
        kernels.softmax_cross_entropy(
            &mut logits,
            m,
            classes,
            &labels,
            scale,
            0.0,
            &mut loss,
            &mut predicted,
        );
    })
}

/// The update rules on the weights of 784-128-10; each reads the gradient, and reads and writes weights and slots.
fn updates(bench: &Bench) -> [Probe<'static>; 4] {
    let kernels: &'static Kernels = bench.kernels;
    let vector = || vec![1e-3_f32; WEIGHTS];
    let work = |flops: usize, slots: usize| {
        let bytes = FLOAT * WEIGHTS * (2 + slots);
        Work { flops: flops * WEIGHTS, read: bytes, set: bytes }
    };
    let name = |rule: &str| format!("{rule} of {WEIGHTS} weights");
    let (g, mut w) = (vector(), vector());
    let sgd = probe(bench, name("SGD"), work(2, 0), move || kernels.sgd(1e-3, &g, &mut w));
    let (g, mut v, mut w) = (vector(), vector(), vector());
    let momentum = move || kernels.momentum(1e-3, 0.9, &g, &mut v, &mut w);
    let momentum = probe(bench, name("momentum"), work(4, 1), momentum);
    let (g, mut acc, mut w) = (vector(), vector(), vector());
    let adagrad = move || kernels.adagrad(1e-3, &g, &mut acc, &mut w);
    let adagrad = probe(bench, name("Adagrad"), work(7, 1), adagrad);
    let (g, mut m, mut v, mut w) = (vector(), vector(), vector(), vector());
    let adam = move || kernels.adam(1e-3, 0.9, 0.999, 1e-8, &g, &mut m, &mut v, &mut w);
    [sgd, momentum, adagrad, probe(bench, name("Adam"), work(12, 2), adam)]
}
