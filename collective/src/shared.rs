//! One flat f32 buffer that threads borrow by blocks.
//!
//! Parameters, gradients and activations are each one buffer; every thread writes its own blocks and reads those of others.
//! Barriers and counters order these phases; [`Shared`] checks at run time that they did, as `RefCell` does for one
//! thread: a block is borrowed once for writing or any number of times for reading, and a conflict is a panic.

#![allow(unsafe_code)] // Threads write disjoint blocks of one contiguous allocation, which no safe type of std offers.

use muster_kernels::Aligned;
use std::ops::{Deref, DerefMut, Range};
use std::sync::atomic::{AtomicU32, Ordering};

/// A block's state while it is borrowed for writing; every other value counts its readers.
const WRITING: u32 = u32::MAX;

/// One cache line a flag, so that threads that borrow neighbouring blocks do not share one.
#[derive(Default)]
#[repr(align(64))]
struct State(AtomicU32);

/// A flat buffer of f32, cut into blocks that are borrowed one by one or as a run of neighbours.
pub struct Shared {
    data: *mut f32,
    /// Block `b` is `bounds[b]..bounds[b + 1]`.
    bounds: Box<[usize]>,
    states: Box<[State]>,
    /// Keeps what `data` points to.
    _owner: Box<dyn std::any::Any + Send + Sync>,
}

// SAFETY: the data is only reached through `Ref` and `RefMut`, whose block states allow either one writer or readers; acquire and
// release on the states order the accesses of successive borrowers.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Blocks borrowed for reading.
pub struct Ref<'a> {
    shared: &'a Shared,
    blocks: Range<usize>,
}

/// Blocks borrowed for writing.
pub struct RefMut<'a> {
    shared: &'a Shared,
    blocks: Range<usize>,
}

impl Shared {
    /// Zeros, [`Aligned`], in blocks of the given lengths (in floats).
    pub fn new(lengths: impl IntoIterator<Item = usize>) -> Shared {
        let bounds = bounds(lengths);
        let mut owner = Aligned::zeros(bounds[bounds.len() - 1]);
        Shared { data: owner.as_mut_ptr(), states: states(&bounds), bounds, _owner: Box::new(owner) }
    }

    /// The same over memory that somebody else allocated, such as an MPI window.
    ///
    /// # Safety
    /// `data` points to at least the sum of `lengths` initialized floats that live as long as `owner` and are reached by this
    /// process through this value alone; other processes keep to the protocol of the transport.
    pub unsafe fn over(
        data: *mut f32,
        lengths: impl IntoIterator<Item = usize>,
        owner: Box<dyn std::any::Any + Send + Sync>,
    ) -> Shared {
        let bounds = bounds(lengths);
        Shared { data, states: states(&bounds), bounds, _owner: owner }
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.states.len()
    }

    /// Where blocks lie in the flat buffer, in floats.
    pub fn range(&self, blocks: Range<usize>) -> Range<usize> {
        self.bounds[blocks.start]..self.bounds[blocks.end]
    }

    /// Borrows neighbouring blocks for reading.
    ///
    /// # Panics
    /// If one of them is being written.
    #[inline]
    pub fn read(&self, blocks: Range<usize>) -> Ref<'_> {
        for b in blocks.clone() {
            let before = self.states[b].0.fetch_add(1, Ordering::Acquire);
            assert!(before < WRITING - 1, "block {b} is read while another thread writes it");
        }
        Ref { shared: self, blocks }
    }

    /// Borrows the blocks in which these floats lie for reading; also where the first of them begins.
    ///
    /// # Panics
    /// As [`Shared::read`].
    pub fn around(&self, floats: &Range<usize>) -> (Ref<'_>, usize) {
        let first = self.bounds.partition_point(|&bound| bound <= floats.start) - 1;
        let end = self.bounds.partition_point(|&bound| bound < floats.end);
        (self.read(first..end.max(first)), self.bounds[first])
    }

    /// Borrows neighbouring blocks for writing.
    ///
    /// # Panics
    /// If one of them is borrowed.
    #[inline]
    pub fn write(&self, blocks: Range<usize>) -> RefMut<'_> {
        for b in blocks.clone() {
            let free = self.states[b].0.compare_exchange(0, WRITING, Ordering::Acquire, Ordering::Relaxed);
            assert!(free.is_ok(), "block {b} is written while another thread holds it");
        }
        RefMut { shared: self, blocks }
    }

    /// The whole buffer for reading.
    pub fn read_all(&self) -> Ref<'_> {
        self.read(0..self.blocks())
    }

    /// The whole buffer for writing.
    pub fn write_all(&self) -> RefMut<'_> {
        self.write(0..self.blocks())
    }
}

fn bounds(lengths: impl IntoIterator<Item = usize>) -> Box<[usize]> {
    let ends = lengths.into_iter().scan(0, |end, length| {
        *end = length.checked_add(*end).expect("less than all memory");
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

fn states(bounds: &[usize]) -> Box<[State]> {
    bounds.iter().skip(1).map(|_| State::default()).collect()
}

impl Deref for Ref<'_> {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        let range = self.shared.range(self.blocks.clone());
        // SAFETY: inside the allocation; these blocks are counted as read, so that nobody writes them while this value lives.
        unsafe { std::slice::from_raw_parts(self.shared.data.add(range.start), range.len()) }
    }
}

impl Deref for RefMut<'_> {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        let range = self.shared.range(self.blocks.clone());
        // SAFETY: inside the allocation; these blocks are marked as written by this value alone.
        unsafe { std::slice::from_raw_parts(self.shared.data.add(range.start), range.len()) }
    }
}

impl DerefMut for RefMut<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [f32] {
        let range = self.shared.range(self.blocks.clone());
        // SAFETY: inside the allocation; these blocks are marked as written by this value alone.
        unsafe { std::slice::from_raw_parts_mut(self.shared.data.add(range.start), range.len()) }
    }
}

impl Drop for Ref<'_> {
    #[inline]
    fn drop(&mut self) {
        for b in self.blocks.clone() {
            self.shared.states[b].0.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Drop for RefMut<'_> {
    #[inline]
    fn drop(&mut self) {
        for b in self.blocks.clone() {
            self.shared.states[b].0.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_disjoint_and_neighbours_are_contiguous() {
        let shared = Shared::new([16, 32, 16]);
        {
            let (mut a, mut b) = (shared.write(0..1), shared.write(1..3));
            a.fill(1.0);
            b.fill(2.0);
            assert_eq!((a.len(), b.len()), (16, 48));
        }
        assert_eq!(shared.read_all()[15..17], [1.0, 2.0]);
        assert_eq!(shared.range(1..2), 16..48);
        assert_eq!(shared.read_all().as_ptr() as usize % 64, 0);
    }

    #[test]
    fn floats_are_read_while_blocks_around_theirs_are_written() {
        let shared = Shared::new([16, 32, 16]);
        let _others = (shared.write(0..1), shared.write(2..3));
        for floats in [16..48, 17..18] {
            let (blocks, start) = shared.around(&floats);
            assert_eq!((blocks.len(), start), (32, 16));
        }
    }

    #[test]
    #[should_panic(expected = "block 1 is read while another thread writes it")]
    fn reading_what_is_written_is_a_panic() {
        let shared = Shared::new([16, 16]);
        let _writer = shared.write(1..2);
        let _reader = shared.read(0..2);
    }

    #[test]
    #[should_panic(expected = "block 0 is written while another thread holds it")]
    fn writing_what_is_read_is_a_panic() {
        let shared = Shared::new([16, 16]);
        let _reader = shared.read(0..1);
        let _writer = shared.write_all();
    }
}
