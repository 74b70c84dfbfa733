//! Operands between pages that may not be touched.
#![allow(unsafe_code)] // Maps pages, and takes the access to two of them away.

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::ffi::c_void;
use std::mem::size_of_val;
use std::ptr::null_mut;

/// Of every x86-64 and most others; pages that are larger are multiples of it, and then mprotect says so.
const PAGE: usize = 4096;

/// At which end of an operand the page lies that may not be touched at once; behind the other end lies one, too, up to a page away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Guard {
    Before,
    Behind,
}

/// Pages between two that may not be touched.
struct Fenced {
    start: *mut c_void,
    length: usize,
}

impl Fenced {
    fn new(bytes: usize) -> Fenced {
        let length = bytes.next_multiple_of(PAGE) + 2 * PAGE;
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping, wherever there is room.
        let start = unsafe { mmap_anonymous(null_mut(), length, access, flags) }.expect("memory");
        for at in [0, length - PAGE] {
            // SAFETY: a page of this mapping, which nothing refers to yet.
            unsafe { mprotect(start.byte_add(at), PAGE, MprotectFlags::empty()) }.expect("whole pages");
        }
        Fenced { start, length }
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: this mapping; `Operands` outlives all slices in it.
        unsafe { munmap(self.start, self.length) }.expect("it is mapped");
    }
}

/// Where the operands of a kernel lie.
pub(crate) struct Operands {
    guard: Guard,
    fences: std::cell::RefCell<Vec<Fenced>>,
}

impl Operands {
    pub(crate) fn new(guard: Guard) -> Operands {
        Operands { guard, fences: Default::default() }
    }

    /// A copy of `values` beside a guard.
    #[expect(clippy::mut_from_ref, reason = "every slice has pages of its own")]
    pub(crate) fn put<T: Copy>(&self, values: &[T]) -> &mut [T] {
        let bytes = size_of_val(values);
        let fence = Fenced::new(bytes);
        let offset = match self.guard {
            Guard::Before => PAGE,
            Guard::Behind => fence.length - PAGE - bytes,
        };
        // SAFETY: `offset` and `bytes` lie between the guards; pages are aligned, and so is their end less a whole number of `T`,
        // whose sizes are multiples of their alignments. Nothing else refers to these pages, which live as long as `self`.
        let slice = unsafe {
            let start = fence.start.byte_add(offset).cast::<T>();
            start.copy_from_nonoverlapping(values.as_ptr(), values.len());
            std::slice::from_raw_parts_mut(start, values.len())
        };
        self.fences.borrow_mut().push(fence);
        slice
    }

    /// `len` floats beside a guard.
    pub(crate) fn floats(&self, len: usize) -> &mut [f32] {
        self.put(&(0..len).map(|i| (i * 37 % 101) as f32 / 50.5 - 1.0).collect::<Vec<_>>())
    }
}
