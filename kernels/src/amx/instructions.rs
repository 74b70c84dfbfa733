//! The instructions themselves. `core::arch` has them for nightly compilers only.
#![allow(unsafe_code)] // Instructions; that the CPU has them is what a value of `Amx` proves.

use std::arch::asm;

use super::{SIDE, Tile, Tiles};

/// Proof that the CPU has AMX-TILE and AMX-BF16, and that this thread's registers are configured; they are released when it goes.
pub(crate) struct Amx {
    /// Registers are a thread's own.
    _of_this_thread: std::marker::PhantomData<*const ()>,
}

/// The operand of LDTILECFG.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Instructions that may change the registers. The compiler has no instruction of its own that touches them, since no function is compiled
/// for AMX: so they keep what the last of these left there. It does not reorder them either, as none of them is `pure`.
macro_rules! tiles {
    ($($asm:tt)*) => {
        asm!(
            $($asm)*
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags),
        )
    };
}

impl Amx {
    /// All eight registers with 16 rows of 64 bytes, which are zero.
    ///
    /// # Safety
    /// The CPU must have AMX-TILE and AMX-BF16, and the operating system must permit this process to use them.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Amx {
        let config = Config {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: std::array::from_fn(|tile| if tile < 8 { size_of::<[u32; SIDE]>() as u16 } else { 0 }),
            rows: std::array::from_fn(|tile| if tile < 8 { SIDE as u8 } else { 0 }),
        };
        // SAFETY: the caller vouches for the instruction; it reads these 64 bytes.
        unsafe { tiles!("ldtilecfg [{}]", in(reg) &raw const config,) };
        Amx { _of_this_thread: std::marker::PhantomData }
    }
}

impl Drop for Amx {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: a value of `Amx` exists only where the CPU has the instruction. The operating system then has 8 KB less to save.
        unsafe { tiles!("tilerelease",) };
    }
}

// SAFETY of every block below: a value of `Amx` exists only where the CPU has AMX and its registers are configured, and pointers come from
// references to as many rows as are read or written.
impl Tiles for Amx {
    #[inline(always)]
    fn zero<const TILE: usize>(&mut self) {
        // SAFETY: see above.
        unsafe { tiles!("tilezero tmm{tile}", tile = const TILE,) };
    }
    #[inline(always)]
    fn load<const TILE: usize>(&mut self, from: &Tile) {
        let stride = size_of::<[u32; SIDE]>();
        // SAFETY: see above.
        unsafe {
            tiles!(
                "tileloadd tmm{tile}, [{from} + {stride}]",
                tile = const TILE, from = in(reg) from, stride = in(reg) stride,
            );
        }
    }
    #[inline(always)]
    fn multiply<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        // SAFETY: see above.
        unsafe {
            tiles!(
                "tdpbf16ps tmm{sum}, tmm{left}, tmm{right}",
                sum = const SUM, left = const LEFT, right = const RIGHT,
            );
        }
    }
    #[inline(always)]
    fn store<const TILE: usize>(&mut self, to: &mut [[f32; 2 * SIDE]; SIDE], col: usize) {
        assert!(col <= SIDE, "columns {col}.. of {}", 2 * SIDE);
        let (to, stride) = (to[0][col..].as_mut_ptr(), size_of_val(&to[0]));
        // SAFETY: see above.
        unsafe {
            tiles!(
                "tilestored [{to} + {stride}], tmm{tile}",
                tile = const TILE, to = in(reg) to, stride = in(reg) stride,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amx::Model;
    use crate::amx::trial::products;
    use crate::{Backend, Kernels};

    /// Listed as not on this machine where it is not.
    #[test]
    fn the_cpus_registers_are_those_of_the_model() {
        if Kernels::of(Backend::Amx).is_none() {
            return;
        }
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        // Exponents of both bf16 of a word: near each other; small, so that products, sums and operands are denormal; and all that are finite.
        for (least, count) in [(120, 16), (0, 4), (50, 20), (0, 255)] {
            for _ in 0..50 {
                let mut half = || next() & 0x807f | (least + next() % count) << 7;
                let mut word = || half() | half() << 16;
                let tiles = [(); 4].map(|()| Tile([(); SIDE].map(|()| [(); SIDE].map(|()| word()))));
                // SAFETY: the back end runs here.
                let registers = || unsafe { Amx::new() };
                let finite = |sums: [[u32; 2 * SIDE]; SIDE]| {
                    // A NaN is a NaN, whichever.
                    sums.map(|row| row.map(|x| if f32::from_bits(x).is_nan() { u32::MAX } else { x }))
                };
                let expected = finite(products::<0, 4, 6>(Model::new(), &tiles));
                assert_eq!(finite(products::<0, 4, 6>(registers(), &tiles)), expected);
                assert_eq!(finite(products::<7, 1, 3>(registers(), &tiles)), expected);
                assert_eq!(finite(products::<2, 5, 0>(registers(), &tiles)), expected);
            }
        }
    }
}
