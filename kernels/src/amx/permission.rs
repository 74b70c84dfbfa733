//! Whether this process may use the registers: the CPU, the operating system, and Linux, which has to be asked; and whether they pass a trial.
#![allow(unsafe_code)] // Reads a control register, calls the kernel, tries the registers.

use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::OnceLock;

use super::{Amx, trial};

/// What is missing for AMX with bf16; nothing where it may be used. The first call asks Linux for permission and tries the registers.
///
/// # Safety
/// The CPU must have AVX, and with it XGETBV.
pub(crate) unsafe fn missing() -> Option<String> {
    /// Bits of CPUID's leaf 7 in EDX.
    const FEATURES: [(&str, u32); 2] = [("amx-tile", 24), ("amx-bf16", 22)];
    /// Bits of XCR0: what the operating system keeps of each thread.
    const TILE_STATE: u64 = 0b11 << 17;

    // A CPU that has AVX-512 has leaf 7.
    let features = __cpuid_count(7, 0).edx;
    let lacking: Vec<&str> =
        FEATURES.into_iter().filter(|(_, bit)| features >> bit & 1 == 0).map(|(name, _)| name).collect();
    if !lacking.is_empty() {
        return Some(format!("the CPU lacks {}", lacking.join(", ")));
    }
    // SAFETY: the caller vouches for it.
    if unsafe { kept_state() } & TILE_STATE != TILE_STATE {
        return Some("the operating system does not keep the tiles of a thread".to_owned());
    }
    static UNUSABLE: OnceLock<Option<String>> = OnceLock::new();
    UNUSABLE.get_or_init(|| refused().or_else(failed)).clone()
}

/// What the trial has shown, of a CPU that has the instructions in a process that may use them.
fn failed() -> Option<String> {
    // SAFETY: so it is where `missing` has come to this.
    let is_passed = trial::is_passed(unsafe { Amx::new() });
    (!is_passed).then(|| "the CPU's tiles add up otherwise than the manual of TDPBF16PS says".to_owned())
}

/// XCR0.
#[target_feature(enable = "xsave")]
fn kept_state() -> u64 {
    // SAFETY: register 0 exists where the instruction does.
    unsafe { _xgetbv(0) }
}

/// Asks Linux to let this process use the tiles' state, from all of its threads; whatever it answers instead of a yes.
#[cfg(target_os = "linux")]
fn refused() -> Option<String> {
    /// Of `arch_prctl`, since Linux 5.16.
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;

    // SAFETY: this call takes no pointer.
    let answer = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    (answer != 0).then(|| {
        let error = std::io::Error::last_os_error();
        format!(
            "Linux does not permit the tiles: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA): {error}"
        )
    })
}

/// Elsewhere nobody has to be asked.
#[cfg(not(target_os = "linux"))]
fn refused() -> Option<String> {
    None
}
