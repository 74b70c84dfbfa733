//! What products are computed with: buffers that are kept from one to the next, and threads.
#![allow(unsafe_code)] // Blocks of C are computed at the same time.

use std::time::{Duration, Instant};

use super::blocks::Buffers;
use super::helpers::{self, Helper};
use super::product::Product;
use crate::simd::LANES;

/// Operations from which on a helper that is awake is worth asking: two microseconds of one core.
const SHARED_FLOPS: usize = 500_000;
/// Operations from which on waking one is: the call takes some microseconds, the helper begins 50 later.
const WOKEN_FLOPS: usize = 10_000_000;
/// After time has been lost, products are computed alone for so many times as long: two threads lose a thirtieth to one at most.
const ALONE_AFTER: u32 = 30;
/// Rows or columns that take as long as it takes to copy the other operand for them.
const COPYING: usize = 5;
/// Columns of the widest panel: blocks are multiples of it wide.
const PANEL: usize = 2 * LANES;

/// Computes a product, or a block of it, on one thread.
pub(super) type Multiply<'a> = dyn Fn(&Product<'_>, &mut Buffers) + Sync + 'a;

/// Buffers for the operands of products, and the threads that compute them.
///
/// What they compute does not depend on how many they are. Threads beyond the caller's sleep when there is nothing to do.
pub struct Workspace {
    buffers: Buffers,
    helpers: Vec<Helper>,
    /// Until when helpers are not asked.
    alone_until: Option<Instant>,
}

impl Workspace {
    /// For `threads` threads, the caller's among them; at most 64.
    pub fn new(threads: usize) -> Workspace {
        assert!((1..=64).contains(&threads), "{threads} threads");
        let helpers = (1..threads).map(|_| Helper::start()).collect();
        Workspace { buffers: Buffers::default(), helpers, alone_until: None }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        1 + self.helpers.len()
    }

    /// Computes `product`, each thread a block of it by `multiply`.
    pub(super) fn multiply(&mut self, multiply: &Multiply<'_>, product: &Product<'_>) {
        let Product { m, n, .. } = *product;
        let (height, width) = block_size(self.threads(), m, n);
        let (down, across) = (m.div_ceil(height), n.div_ceil(width));
        if down * across == 1 || product.flops() < SHARED_FLOPS || self.is_alone() {
            return multiply(product, &mut self.buffers);
        }
        let block = |item: usize, buffers: &mut Buffers| {
            let (i, j) = (item / across * height, item % across * width);
            // SAFETY: every item is another block.
            let block = unsafe { product.block(i..m.min(i + height), j..n.min(j + width)) };
            multiply(&block, buffers);
        };
        let wake = product.flops() >= WOKEN_FLOPS;
        let helpers = &self.helpers[..down * across - 1];
        let lost = helpers::run(helpers, wake, &block, &mut self.buffers);
        if lost > Duration::ZERO {
            self.alone_until = Some(Instant::now() + ALONE_AFTER * lost);
        }
    }

    fn is_alone(&mut self) -> bool {
        if self.alone_until.is_some_and(|until| Instant::now() >= until) {
            self.alone_until = None;
        }
        self.alone_until.is_some()
    }
}

/// Height and width of blocks that cut `[m, n]` into at most `threads`, such that the largest one takes as little time as can be.
fn block_size(threads: usize, m: usize, n: usize) -> (usize, usize) {
    let sizes = (1..=threads)
        .filter(|down| threads.is_multiple_of(*down))
        .map(|down| (m.div_ceil(down).max(1), n.div_ceil(threads / down).next_multiple_of(PANEL).max(1)));
    let time = |&(height, width): &(usize, usize)| (height.min(m) + COPYING) * (width.min(n) + COPYING);
    sizes.min_by_key(time).expect("one block is a way")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_cut_where_the_longer_side_is() {
        assert_eq!(block_size(1, 100, 128), (100, 128));
        assert_eq!(block_size(2, 100, 128), (100, 64));
        assert_eq!(block_size(2, 512, 32), (256, 32));
        assert_eq!(block_size(4, 512, 512), (256, 256));
        assert_eq!(block_size(3, 1, 10), (1, 32));
    }
}
