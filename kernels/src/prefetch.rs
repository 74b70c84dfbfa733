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
