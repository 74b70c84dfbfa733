//! Floats on cache lines of their own: a vector that lies in two lines takes twice as long to load and more to store.
#![allow(unsafe_code)] // An allocation that begins where it is told to, which no safe type of std offers.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice::{from_raw_parts, from_raw_parts_mut};

/// Floats of a cache line.
pub(crate) const LINE: usize = 16;
/// Bytes of a large page of x86-64, and of the least memory that is laid into such pages. Kernels go over all of it in orders of their own, and a
/// core keeps the addresses of some 70 pages at hand: in small ones of 4 KiB, a training step of 784-128-10 takes 4 % more time, and a
/// product of 2048³ 5 %.
const LARGE_PAGE: usize = 2 << 20;
const LARGE_FROM: usize = 256 << 10;

/// A fixed number of floats, of which the first begins a cache line; many of them begin a large page.
#[derive(Debug)]
pub struct Aligned {
    start: NonNull<f32>,
    len: usize,
    layout: Layout,
}

// SAFETY: it owns its floats, as a `Box<[f32]>` does.
unsafe impl Send for Aligned {}
// SAFETY: as above.
unsafe impl Sync for Aligned {}

impl Aligned {
    /// So many zeros.
    pub fn zeros(len: usize) -> Aligned {
        let layout = layout(len).expect("less than all memory");
        // SAFETY: the layout has a size, and room for the floats.
        unsafe {
            let Some(start) = NonNull::new(alloc(layout)) else { handle_alloc_error(layout) };
            // Before the first write, which zeroed memory may have behind it: then the pages are small.
            if layout.align() == LARGE_PAGE {
                advise(start, layout.size());
            }
            let start = start.cast::<f32>();
            start.write_bytes(0, len);
            Aligned { start, len, layout }
        }
    }

    /// Bytes that so many floats take at most; none if there are not as many addresses.
    pub fn bytes(len: usize) -> Option<usize> {
        layout(len).map(|layout| layout.size())
    }
}

/// Whole lines, or large pages.
fn layout(len: usize) -> Option<Layout> {
    let exact = Layout::array::<f32>(len.max(1)).ok()?;
    let align = if exact.size() < LARGE_FROM { LINE * size_of::<f32>() } else { LARGE_PAGE };
    Some(exact.align_to(align).ok()?.pad_to_align())
}

/// Asks for large pages; without them the memory is the same.
///
/// # Safety
/// The bytes must be whole pages of an allocation.
unsafe fn advise(start: NonNull<u8>, bytes: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: the caller vouches for the pages; how they are backed changes nothing of them.
    let _ = unsafe { rustix::mm::madvise(start.as_ptr().cast(), bytes, rustix::mm::Advice::LinuxHugepage) };
    #[cfg(not(target_os = "linux"))]
    let _ = (start, bytes);
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: it was allocated so.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) };
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: so many were written, and they are borrowed as `self` is.
        unsafe { from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_begin_a_line_and_many_of_them_a_large_page() {
        for (len, begins) in
            [(0, 64), (1, 64), (1000, 64), (LARGE_FROM / 4, LARGE_PAGE), (1 << 20, LARGE_PAGE)]
        {
            let mut aligned = Aligned::zeros(len);
            assert_eq!((aligned.len(), aligned.as_ptr().addr() % begins), (len, 0));
            assert!(aligned.iter().all(|&x| x == 0.0));
            aligned.fill(1.0);
            assert!(Aligned::bytes(len).unwrap() >= 4 * len);
        }
        assert_eq!(Aligned::bytes(usize::MAX / 4), None);
    }
}
