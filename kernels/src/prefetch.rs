//! Asking for memory before it is needed.
#![allow(unsafe_code)] // The instruction takes an address.

use std::cell::Cell;
use std::ptr::null;

use crate::aligned::LINE;

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

/// Memory that is brought into the second-level cache little by little, while something else is computed.
pub(crate) struct Ahead {
    at: Cell<*const f32>,
    /// Lines that are still to come.
    lines: Cell<usize>,
    /// Steps of the computation from one [`Ahead::ask`] to the next.
    pub(crate) every: usize,
}

/// Lines that are asked for at a time.
const LINES: usize = 2;

impl Ahead {
    pub(crate) fn nothing() -> Ahead {
        Ahead { at: Cell::new(null()), lines: Cell::new(0), every: usize::MAX }
    }

    /// While a computation of so many `steps` goes on.
    pub(crate) fn of(floats: &[f32], steps: usize) -> Ahead {
        let lines = floats.len().div_ceil(LINE);
        // Asking shall not take longer than the steps.
        let every = (steps * LINES / lines.max(1)).max(4);
        Ahead { at: Cell::new(floats.as_ptr()), lines: Cell::new(lines), every }
    }

    /// Asks for the next lines.
    #[inline(always)]
    pub(crate) fn ask(&self) {
        if self.lines.get() == 0 {
            return;
        }
        let at = self.at.get();
        #[cfg(target_arch = "x86_64")]
        for line in 0..LINES {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(line * LINE).cast()) };
        }
        self.at.set(at.wrapping_add(LINES * LINE));
        self.lines.set(self.lines.get().saturating_sub(LINES));
    }
}
