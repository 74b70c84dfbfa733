//! Products of bytes by tiles against the specification, on the CPU's tiles and on a model of them.

use proptest::prelude::*;

use super::*;
use crate::fences::{Guard, Operands};
use crate::testing::{all, bits, bytes, floats, leaves, on, run_of_columns, tiled};
use crate::{naive, panel_width};

const SCALE: f32 = 1.0 / 255.0;

fn matrix(a: &[u8], k: usize) -> ByteTiles {
    let mut matrix = ByteTiles::with_room(a.len() / k, k, SCALE);
    a.chunks_exact(k).enumerate().for_each(|(i, row)| matrix.set_row(i, row));
    matrix
}

/// `a · b` of bytes `[m, k]` and panels of `b_rows` rows.
fn forward_of(
    kernels: &Kernels,
    (a, k): (&[u8], usize),
    b: &[f32],
    b_rows: usize,
    width: usize,
    finish: Finish<'_>,
) -> Vec<f32> {
    let mut a = matrix(a, k);
    let mut c = vec![f32::NAN; b.len() / (b_rows * width) * a.rows() * width];
    kernels.tile_rows(&mut a);
    kernels.matmul_bytes(&a, b, b_rows, width, finish, &mut c);
    c
}

/// What the bytes stand for, in f64 and without a rounding of the scale.
fn values(a: &[u8]) -> Vec<f32> {
    a.iter().map(|&byte| f32::from(byte)).collect()
}

/// What README.md proves: the most that a sum of `steps` tiles is off, by the sum of `|a|·|b|`, before it is scaled.
fn bound(products: f64, operands: f64, steps: usize) -> f64 {
    let (unit, least, steps) = (2.0_f64.powi(-24), f64::from(f32::MIN_POSITIVE), steps as f64);
    let relative = 1.01 * (16.0 + steps) + (16.0 + 3.0 * steps) / 250.0;
    relative * unit * products + 2.0 * least * operands + 99.0 * steps * least
}

proptest! {
    // A model of tiles takes long.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 10))]

    #[test]
    fn a_forward_product_is_within_its_bound(
        m in 1_usize..70, k in 1_usize..150, n in 1_usize..70, density in 0_u64..101, large: bool, seed: u64,
    ) {
        let (a, b) = (bytes(m * k, density, seed), floats(k * n, seed));
        let b: Vec<f32> = b.iter().zip(floats(k * n, seed ^ 1)).map(|(b, x)| if large { b * (20.0 * x).exp2() } else { *b }).collect();
        let width = panel_width(n);
        let of_b: Vec<f32> = b.iter().map(|b| b.abs()).collect();
        let (exact, products) = (naive::matmul(m, n, k, &values(&a), &b), naive::matmul(m, n, k, &values(&a), &of_b));
        on(tiled(), |kernels| {
            let panels = crate::testing::to_panels(kernels, &b, k, n);
            let c = forward_of(kernels, (&a, k), &panels, k, width, Finish::None);
            for i in 0..m {
                let operands: f64 = a[i * k..(i + 1) * k].iter().map(|&a| f64::from(a)).sum();
                for j in 0..n {
                    let (scale, at) = (f64::from(SCALE), i * n + j);
                    let sum = f64::from(c[(j / width * m + i) * width + j % width]);
                    let most = scale * bound(products[at], operands, k.div_ceil(DEPTH));
                    // The scaling rounds once more.
                    let most = most + 2.0_f64.powi(-24) * sum.abs();
                    let error = (sum - scale * exact[at]).abs();
                    assert!(error <= most, "({i}, {j}): {sum:e} is off by {error:e}, more than {most:e}");
                }
            }
            c
        });
    }

    #[test]
    fn a_gradient_is_within_its_bound(
        (m, leaves) in (1_usize..90).prop_flat_map(|m| (Just(m), leaves(m))), k in 1_usize..70, n in 1_usize..33, density in 0_u64..101, seed: u64,
    ) {
        let (a, d, width) = (bytes(m * k, density, seed), floats(m * n, seed), panel_width(n));
        let transposed = naive::transpose(m, k, &values(&a));
        let of_d: Vec<f32> = d.iter().map(|d| d.abs()).collect();
        let (exact, products) = (naive::matmul(k, n, m, &transposed, &d), naive::matmul(k, n, m, &transposed, &of_d));
        on(tiled(), |kernels| {
            let d = crate::testing::to_panels(kernels, &d, m, n);
            let (mut a, mut c) = (matrix(&a, k), vec![f32::NAN; k * width]);
            kernels.tile_columns(&mut a, &leaves);
            kernels.matmul_tn_bytes(&a, 0..k, 0..leaves.len(), &d, width, &mut c);
            // A term is in one micro-batch, which is scaled, and in as many additions as the tree has levels.
            let (steps, levels) = (m.div_ceil(DEPTH), 5.0);
            for p in 0..k {
                let operands: f64 = transposed[p * m..(p + 1) * m].iter().map(|&a| f64::from(a)).sum();
                for j in 0..n {
                    let (scale, at) = (f64::from(SCALE), p * n + j);
                    let sum = f64::from(c[p * width + j]);
                    let most = scale * (bound(products[at], operands, steps) + levels * 2.0_f64.powi(-24) * products[at]);
                    let error = (sum - scale * exact[at]).abs();
                    assert!(error <= most, "({p}, {j}): {sum:e} is off by {error:e}, more than {most:e}");
                }
            }
            c
        });
    }

    #[test]
    fn an_output_is_made_of_its_row_and_its_column_alone(
        m in 1_usize..70, k in 1_usize..150, panels in 1_usize..4, at in any::<prop::sample::Index>(), density in 0_u64..101, seed: u64,
    ) {
        let (a, b, row) = (bytes(m * k, density, seed), floats(panels * k * 32, seed), at.index(m));
        for kernels in tiled() {
            let all = forward_of(kernels, (&a, k), &b, k, 32, Finish::None);
            let one = forward_of(kernels, (&a[row * k..(row + 1) * k], k), &b, k, 32, Finish::None);
            for (panel, one) in one.chunks_exact(32).enumerate() {
                prop_assert_eq!(bits(&all[(panel * m + row) * 32..][..32]), bits(one));
            }
        }
    }

    #[test]
    fn a_gradient_is_the_tree_of_its_micro_batches(
        (m, ends) in (1_usize..90).prop_flat_map(|m| (Just(m), leaves(m))), (k, columns) in run_of_columns(100), density in 0_u64..101, seed: u64,
    ) {
        let (bytes, d) = (bytes(m * k, density, seed), floats(m * 32, seed));
        for kernels in tiled() {
            let mut a = matrix(&bytes, k);
            kernels.tile_columns(&mut a, &ends);
            let gradient = |leaves: Range<usize>, columns: Range<usize>| {
                let mut c = vec![f32::NAN; columns.len() * 32];
                kernels.matmul_tn_bytes(&a, columns, leaves, &d, 32, &mut c);
                c
            };
            // Level by level.
            let mut level: Vec<Vec<f32>> = (0..ends.len()).map(|leaf| gradient(leaf..leaf + 1, 0..k)).collect();
            while level.len() > 1 {
                level = level.chunks(2).map(|pair| match pair {
                    [a, b] => a.iter().zip(b).map(|(a, b)| a + b).collect(),
                    odd => odd[0].clone(),
                }).collect();
            }
            prop_assert_eq!(bits(&gradient(0..ends.len(), 0..k)), bits(&level[0]));
            let part = gradient(0..ends.len(), columns.clone());
            prop_assert_eq!(bits(&part), bits(&level[0][columns.start * 32..columns.end * 32]));
            // A micro-batch alone, among others of other rows.
            let last = ends.len() - 1;
            let first = last.checked_sub(1).map_or(0, |before| ends[before]);
            let mut alone = matrix(&bytes[first * k..], k);
            if first < m {
                kernels.tile_columns(&mut alone, &[m - first]);
                let mut c = vec![f32::NAN; k * 32];
                kernels.matmul_tn_bytes(&alone, 0..k, 0..1, &d[first * 32..], 32, &mut c);
                prop_assert_eq!(bits(&gradient(last..last + 1, 0..k)), bits(&c));
            }
        }
    }

    #[test]
    fn what_finishes_an_output_is_what_finishes_one_of_a_chain(
        m in 1_usize..40, k in 1_usize..40, n in 1_usize..70, kind in 0_usize..4, seed: u64,
    ) {
        let (width, panels, rows) = (panel_width(n), n.div_ceil(panel_width(n)), k + 1);
        let (a, b) = (bytes(m * k, 50, seed), floats(panels * rows * width, seed));
        let mask = floats(panels * m * width, seed ^ 1);
        // The bias is the last row of each panel.
        let bias = &b[k * width..];
        let finish = [Finish::None, Finish::Bias(bias), Finish::BiasRelu(bias), Finish::Mask(&mask)][kind];
        for kernels in tiled() {
            let finished = forward_of(kernels, (&a, k), &b, rows, width, finish);
            let expected: Vec<f32> = forward_of(kernels, (&a, k), &b, rows, width, Finish::None).into_iter().enumerate().map(|(at, x)| {
                let bias = b[(at / (m * width) * rows + k) * width + at % width];
                match kind {
                    0 => x,
                    1 => x + bias,
                    2 => (x + bias).max(0.0),
                    _ => if mask[at] > 0.0 { x } else { 0.0 },
                }
            }).collect();
            prop_assert_eq!(finished, expected);
        }
    }
}

/// Relative to what is added up, root mean square.
#[test]
fn the_error_is_smaller_than_that_of_a_chain() {
    let (m, n, k) = (16, 32, 784);
    let (a, b) = (bytes(m * k, 60, 1), floats(k * n, 2));
    let of_b: Vec<f32> = b.iter().map(|b| b.abs()).collect();
    let (exact, products) =
        (naive::matmul(m, n, k, &values(&a), &b), naive::matmul(m, n, k, &values(&a), &of_b));
    let error = |c: Vec<f32>| {
        let error = |((c, exact), products): ((&f32, &f64), &f64)| {
            ((f64::from(*c) / f64::from(SCALE) - exact) / products).powi(2)
        };
        c.iter().zip(&exact).zip(&products).map(error).sum::<f64>().sqrt()
    };
    let chain = {
        let kernels = all().find(|kernels| kernels.tiled.is_none()).expect("wide runs everywhere");
        let (_, dense) = crate::testing::pixels(kernels, &a, k, &(0..k));
        let mut c = vec![0.0; m * n];
        kernels.matmul_panel(dense.panels(m, k), &b, n, crate::Start::Zero, Finish::None, &mut c);
        error(c)
    };
    for kernels in tiled() {
        let tiles = error(forward_of(kernels, (&a, k), &b, k, n, Finish::None));
        assert!(tiles < chain / 2.0, "{tiles:e}, a chain {chain:e}");
    }
}

#[test]
fn a_weight_that_is_not_finite_leaves_no_number_where_its_byte_is_not_zero() {
    for kernels in tiled() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut b = vec![1.0; 40 * 16];
            b[5 * 16 + 3] = value;
            let mut a = [0_u8; 2 * 40];
            (a[5], a[6], a[46]) = (7, 1, 1);
            let c = forward_of(kernels, (&a, 40), &b, 40, 16, Finish::BiasRelu(&[0.0; 16]));
            assert!(c[3].is_nan(), "{value}: {}", c[3]);
            assert_eq!(c[4], 8.0 * SCALE);
        }
    }
}

#[test]
fn nothing_beside_the_operands_is_touched() {
    for (kernels, guard) in tiled().flat_map(|kernels| [Guard::Before, Guard::Behind].map(|g| (kernels, g))) {
        let at = Operands::new(guard);
        for (m, k, width) in [(1, 1, 16), (15, 31, 32), (33, 32, 16), (40, 67, 32)] {
            let mut a = ByteTiles::with_room(m, k, SCALE);
            for i in 0..m {
                a.set_row(i, at.put(&bytes(k, 60, i as u64)));
            }
            kernels.tile_rows(&mut a);
            kernels.tile_columns(&mut a, &[m / 2, m]);
            let (b, c) = (at.floats((k + 1) * width), at.floats(m * width));
            kernels.matmul_bytes(&a, b, k + 1, width, Finish::BiasRelu(at.floats(width)), c);
            kernels.matmul_bytes(&a, b, k + 1, width, Finish::Mask(at.floats(m * width)), c);
            kernels.matmul_tn_bytes(&a, 0..k, 0..2, at.floats(m * width), width, at.floats(k * width));
        }
    }
}

#[test]
#[should_panic(expected = "kernels with tiles")]
fn kernels_without_tiles_are_refused() {
    let kernels = all().find(|kernels| !kernels.multiplies_bytes_by_tiles()).expect("wide runs everywhere");
    forward_of(kernels, (&[1], 1), &[0.0; 16], 1, 16, Finish::None);
}
