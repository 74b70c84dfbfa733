//! Copies of blocks of the operands, as the micro-kernel reads them fastest.
#![allow(unsafe_code)] // Views are pointers; `Product` has checked what lies behind them.

use std::array::from_fn;

use super::product::View;
use crate::aligned::Aligned;
use crate::simd::{LANES, Simd};

/// Rows that are not there.
static ZEROS: [f32; LANES] = [0.0; LANES];

/// Memory that is kept from product to product.
pub(super) struct Buffer(Aligned);

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer(Aligned::zeros(0))
    }
}

impl Buffer {
    /// `len` floats of whatever.
    pub(super) fn get(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len {
            // What was there goes first.
            self.0 = Aligned::zeros(0);
            self.0 = Aligned::zeros(len);
        }
        &mut self.0[..len]
    }
}

/// The elements `[n, k]` of `view` as a panel `[k][width]`, `n` at most `width`; lanes past `n` become zero.
#[inline(always)]
pub(crate) fn pack_panel<S: Simd>(s: S, view: View, n: usize, k: usize, width: usize, to: &mut [f32]) {
    // SAFETY: a view holds the elements that it is asked for.
    unsafe {
        if view.along_k {
            transposed(s, view, n, k, width, to);
        } else {
            rows(s, view, n, k, width, to);
        }
    }
}

/// [`pack_panel`] of a view whose rows go along it.
#[inline(always)]
unsafe fn rows<S: Simd>(s: S, view: View, n: usize, k: usize, width: usize, to: &mut [f32]) {
    for (p, to) in to.chunks_exact_mut(width).enumerate().take(k) {
        let (to, _) = to.as_chunks_mut::<LANES>();
        for (v, to) in to.iter_mut().enumerate() {
            let lanes = LANES.min(n.saturating_sub(v * LANES));
            // SAFETY: the caller vouches for `n` elements.
            let from = unsafe { view.row(v * LANES, p, lanes) };
            *to = s.to_array(load(s, from));
        }
    }
}

/// [`pack_panel`] of a view whose rows go along the chain: blocks of 16×16 are transposed in registers.
#[inline(always)]
unsafe fn transposed<S: Simd>(s: S, view: View, n: usize, k: usize, width: usize, to: &mut [f32]) {
    for lane in (0..width).step_by(LANES) {
        let rows = LANES.min(n.saturating_sub(lane));
        for p in (0..k).step_by(LANES) {
            let depth = LANES.min(k - p);
            let (to, _) = to[p * width + lane..].as_chunks_mut::<LANES>();
            // SAFETY: the caller vouches for `n` elements of `k`.
            unsafe {
                // Loops of constant length keep the block in registers.
                if depth == LANES {
                    let rows =
                        from_fn(|j| if j < rows { &*view.element(lane + j, p).cast() } else { &ZEROS });
                    s.for_each_column(rows, |j, column| to[j * width / LANES] = s.to_array(column));
                } else {
                    let part = |j| {
                        if j < rows { s.load_part(view.row(lane + j, p, depth), 0.0) } else { s.splat(0.0) }
                    };
                    let columns = s.transpose(from_fn(part));
                    for (j, &column) in columns.iter().enumerate().take(depth) {
                        to[j * width / LANES] = s.to_array(column);
                    }
                }
            }
        }
    }
}

/// At most 16 floats; the other lanes become zero.
#[inline(always)]
fn load<S: Simd>(s: S, from: &[f32]) -> S::V {
    match from.first_chunk() {
        Some(from) => s.load(from),
        None => s.load_part(from, 0.0),
    }
}
