//! The fixed tree that sums the micro-batches of a global batch.
#![allow(unsafe_code)] // Partial sums stay uninitialized until their level is reached; zeroing them would cost more than summing.

use std::mem::MaybeUninit;

use crate::simd::Simd;
use crate::tile::Block;

/// Levels of the tree; a batch of 65,535 micro-batches is far past any use.
const LEVELS: usize = 16;

/// Sums leaves level by level, leaf `2i` + leaf `2i + 1`, where an odd last one moves up.
///
/// It is a binary counter: `partial[l]` holds a complete subtree of `2^l` leaves where bit `l` of `leaves` is set,
/// so that only one sum a level is ever kept.
pub(crate) struct Tree<S: Simd, const MR: usize, const N: usize> {
    s: S,
    partial: [MaybeUninit<Block<S, MR, N>>; LEVELS],
    leaves: usize,
}

impl<S: Simd, const MR: usize, const N: usize> Tree<S, MR, N> {
    #[inline(always)]
    pub(crate) fn new(s: S) -> Self {
        Tree { s, partial: [const { MaybeUninit::uninit() }; LEVELS], leaves: 0 }
    }

    /// Adds the next leaf, which is not the last.
    #[inline(always)]
    pub(crate) fn push(&mut self, leaf: Block<S, MR, N>) {
        let mut sum = leaf;
        let mut level = 0;
        while self.leaves >> level & 1 == 1 {
            self.add(level, &mut sum);
            level += 1;
        }
        self.partial[level].write(sum);
        self.leaves += 1;
    }

    /// The sum of all leaves, of which `last` is the last: it moves up past every incomplete subtree.
    #[inline(always)]
    pub(crate) fn finish(&self, last: Block<S, MR, N>) -> Block<S, MR, N> {
        let mut sum = last;
        for level in 0..(usize::BITS - self.leaves.leading_zeros()) as usize {
            if self.leaves >> level & 1 == 1 {
                self.add(level, &mut sum);
            }
        }
        sum
    }

    /// `sum = partial[level] + sum`
    #[inline(always)]
    fn add(&self, level: usize, sum: &mut Block<S, MR, N>) {
        debug_assert!(self.leaves >> level & 1 == 1);
        // SAFETY: callers ask only for levels whose bit in `leaves` is set, and `push` writes a level before it
        // sets its bit.
        let partial = unsafe { self.partial[level].assume_init_ref() };
        for (sum, partial) in sum.iter_mut().zip(partial) {
            for (sum, &partial) in sum.iter_mut().zip(partial) {
                *sum = self.s.add(partial, *sum);
            }
        }
    }
}

/// Panics unless `leaves` are the ends of runs of rows that cover `m` rows in order.
pub(crate) fn check_leaves(leaves: &[usize], m: usize) {
    assert!(leaves.is_sorted(), "ends of micro-batches {leaves:?} must not decrease");
    assert_eq!(leaves.last().copied().unwrap_or(0), m, "end of the last micro-batch and rows");
    assert!(leaves.len() < 1 << LEVELS, "{} micro-batches, at most {} fit", leaves.len(), (1 << LEVELS) - 1);
}
