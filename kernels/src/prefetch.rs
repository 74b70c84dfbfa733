//! Asking for memory before it is needed.
#![allow(unsafe_code)] // The instruction takes an address.

/// Starts to bring `bytes` into the cache; a hint that changes nothing else. Records of a shuffled batch lie all over the data set, and
/// a core that waits for each of them in turn spends a tenth of a training step waiting.
#[inline]
pub fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch may take any address, and SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// Starts to bring `floats` into the cache, to be written: another core that has read them gives them up meanwhile. Stores alone wait for that one
/// after the other.
#[inline]
pub fn prefetch_to_write(floats: &[f32]) {
    floats.chunks(16).for_each(|line| line_to_write(line.as_ptr()));
}

/// The line at `address`, which may be any.
#[inline(always)]
pub(crate) fn line_to_write(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch may take any address; a CPU that does not know this one takes it for one that does nothing.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
