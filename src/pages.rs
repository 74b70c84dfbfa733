//! Memory in large pages.
//!
//! A shuffled batch takes its records from all over the data set, and with pages of 4 KiB nearly every one of them from a page whose address the
//! core has to look up, on a virtual machine twice over. In large pages a step takes less time, and so does the first use of the memory.

#![allow(unsafe_code)] // Advice on memory that nothing has been written to.

use rustix::mm::{Advice, madvise};
use std::collections::TryReserveError;

/// Bytes of a large page on x86-64; of another size they would be advised of a part of the memory.
const PAGE: usize = 2 << 20;

/// Makes room for exactly so many more elements, which the system is asked to back by large pages.
///
/// # Errors
/// If there is not as much memory.
pub fn reserve<T>(vec: &mut Vec<T>, additional: usize) -> Result<(), TryReserveError> {
    vec.try_reserve_exact(additional)?;
    let spare = vec.spare_capacity_mut();
    let skipped = spare.as_ptr().addr().next_multiple_of(PAGE) - spare.as_ptr().addr();
    let bytes = size_of_val(spare).saturating_sub(skipped) / PAGE * PAGE;
    if bytes > 0 {
        let start = spare.as_mut_ptr().wrapping_byte_add(skipped);
        // Without it they are small ones.
        // SAFETY: whole pages of the spare capacity; how they are backed changes nothing of them.
        let _ = unsafe { madvise(start.cast(), bytes, Advice::LinuxHugepage) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_what_was_asked() {
        for (len, additional) in [(0, 0), (3, 5), (1000, 3 * PAGE)] {
            let mut vec = vec![1u16; len];
            reserve(&mut vec, additional).unwrap();
            let (room, at) = (vec.capacity(), vec.as_ptr());
            assert!(room >= len + additional);
            vec.resize(len + additional, 2);
            assert_eq!((vec.capacity(), vec.as_ptr()), (room, at), "it did not move");
            assert!(vec[..len].iter().all(|&x| x == 1) && vec[len..].iter().all(|&x| x == 2));
        }
        assert!(reserve(&mut Vec::<u8>::new(), usize::MAX / 4).is_err());
    }
}
