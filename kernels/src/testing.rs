//! What the property tests share: every back end of this CPU, random operands, comparison.
use proptest::prelude::*;

use crate::nonzeros::SEGMENT;
use crate::table::Tiled;
use crate::{Backend, Kernels, Nonzeros, Panels, panel_width, panels_len, with_modelled_tiles};
use std::ops::Range;
use std::sync::LazyLock;

/// The kernels of every back end that this CPU has.
pub(crate) fn all() -> impl Iterator<Item = &'static Kernels> {
    Backend::ALL.into_iter().filter_map(Kernels::of)
}

/// Kernels that multiply by tiles whatever the sizes: this CPU's, if it has tiles, and those with a model of tiles.
pub(crate) fn tiled() -> impl Iterator<Item = &'static Kernels> {
    static TILED: LazyLock<Vec<Kernels>> = LazyLock::new(|| {
        let kernels = [Some(with_modelled_tiles()), Kernels::of(Backend::Amx)];
        let always = |kernels: &Kernels| {
            let tiled = kernels.tiled.map(|tiled| Tiled { columns: 0, steps: 0, ..tiled });
            Kernels { tiled, ..*kernels }
        };
        kernels.into_iter().flatten().map(always).collect()
    });
    TILED.iter()
}

/// [`on`] every back end that this CPU has.
pub(crate) fn on_each(f: impl Fn(&Kernels) -> Vec<f32>) -> Vec<(Backend, Vec<f32>)> {
    on(all(), f)
}

/// Runs `f` on kernels and demands the same bits of all whose arithmetic is the same. Returns the result of each.
pub(crate) fn on<'a>(
    kernels: impl Iterator<Item = &'a Kernels>,
    f: impl Fn(&Kernels) -> Vec<f32>,
) -> Vec<(Backend, Vec<f32>)> {
    let mut results: Vec<(Backend, Vec<f32>)> = Vec::new();
    let arithmetic = |backend: Backend| (backend.arithmetic(), backend == Backend::Amx);
    for kernels in kernels {
        let (backend, result) = (kernels.backend(), f(kernels));
        for (other, expected) in results.iter().filter(|(other, _)| arithmetic(*other) == arithmetic(backend))
        {
            for (i, (x, y)) in result.iter().zip(expected).enumerate() {
                let same = x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
                assert!(same, "element {i}: {backend} has {x:e}, {other} {y:e}");
            }
        }
        results.push((backend, result));
    }
    results
}

/// Asserts `|x - y| <= tolerance * max(1, |y|)` for all elements.
pub(crate) fn assert_close(backend: Backend, x: &[f32], y: &[f64], tolerance: f64) {
    assert_eq!(x.len(), y.len());
    for (i, (&x, &y)) in x.iter().zip(y).enumerate() {
        let near = (f64::from(x) - y).abs() <= tolerance * y.abs().max(1.0);
        assert!(near, "element {i} on {backend}: {x:e} instead of {y:e}");
    }
}

/// `len` floats in -1..1, a fifth of them zero, from `seed`.
pub(crate) fn floats(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        // Knuth's MMIX multiplier; the upper half of the state is random enough for operands.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| if next() < -0.6 { 0.0 } else { next() }).collect()
}

/// `len` bytes of which `density` in a hundred are not zero, from `seed`.
pub(crate) fn bytes(len: usize, density: u64, seed: u64) -> Vec<u8> {
    let draws = floats(2 * len, seed).into_iter().map(|x| ((x + 1.0) * 12_345.0) as u64);
    let draws: Vec<u64> = draws.collect();
    draws
        .chunks_exact(2)
        .map(|pair| if pair[0] % 100 < density { (pair[1] % 255 + 1) as u8 } else { 0 })
        .collect()
}

/// A matrix in panels.
pub(crate) struct Dense(Vec<f32>);

impl Dense {
    pub(crate) fn panels(&self, rows: usize, cols: usize) -> Panels<'_> {
        Panels::new(&self.0, rows, cols, panel_width(cols))
    }
}

/// Bytes of rows of `k` columns, each a 255th: what is not zero of all of them, and all of some columns.
pub(crate) fn pixels(kernels: &Kernels, a: &[u8], k: usize, columns: &Range<usize>) -> (Nonzeros, Dense) {
    let (m, scale) = (a.len() / k, 1.0 / 255.0);
    let (mut matrix, mut dense) =
        (Nonzeros::with_room(m, k, scale), vec![f32::NAN; panels_len(m, columns.len())]);
    for (i, row) in a.chunks_exact(k).enumerate() {
        kernels.push_bytes(row, &mut matrix);
        kernels.pixels_to_panels(&row[columns.clone()], scale, &mut dense, m, i);
    }
    (matrix, Dense(dense))
}

/// Fewer columns than `most`, and a run of them that a sparse product takes.
pub(crate) fn run_of_columns(most: usize) -> impl Strategy<Value = (usize, Range<usize>)> {
    (1..most).prop_flat_map(|k| {
        let segments = k.div_ceil(SEGMENT);
        (0..segments).prop_flat_map(move |first| {
            (first + 1..=segments).prop_map(move |end| (k, first * SEGMENT..(end * SEGMENT).min(k)))
        })
    })
}

pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The row-major matrix `[m, n]` in panels.
pub(crate) fn to_panels(kernels: &Kernels, x: &[f32], m: usize, n: usize) -> Vec<f32> {
    let mut panels = vec![f32::NAN; panels_len(m, n)];
    for i in 0..m {
        kernels.row_to_panels(&x[i * n..(i + 1) * n], &mut panels, m, i);
    }
    panels
}

/// Ends of at most 9 runs that cover `m` rows, some of them empty.
pub(crate) fn leaves(m: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..=m, 0..9).prop_map(move |mut ends| {
        ends.push(m);
        ends.sort_unstable();
        ends
    })
}
