//! Windows of MPI: memory that each rank exposes to the others.

#![allow(unsafe_code)] // Calls of C functions.

use super::call::{Comm, check};
use crate::{Error, Shared};
use mpi::ffi;
use std::ptr;
use std::sync::Arc;

/// A window, with an epoch for passive targets that lasts as long.
pub struct Window {
    window: ffi::MPI_Win,
    /// The first byte on a cache line.
    base: *mut u8,
    /// Bytes before that.
    offset: usize,
}

// SAFETY: the handle is used by the thread that joined the world alone; whoever reaches the memory orders that himself.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

/// Windows are only known to begin at the alignment of the largest C type.
const ALIGNMENT: usize = 64;

impl Window {
    /// Allocates `bytes` zeros of this rank's own that all ranks of `comm` can read; they call this together and meet before they do.
    pub fn expose(comm: &Comm, bytes: usize) -> Result<Window, Error> {
        // SAFETY: plain out parameters; the memory is as long as was asked for.
        unsafe {
            let (mut window, mut base) = (ffi::RSMPI_WIN_NULL, ptr::null_mut::<u8>());
            let (all, info) = ((bytes + ALIGNMENT) as ffi::MPI_Aint, ffi::RSMPI_INFO_NULL);
            let to = ptr::from_mut(&mut base).cast();
            check("MPI_Win_allocate", ffi::MPI_Win_allocate(all, 1, info, comm.0, to, &mut window))?;
            check("MPI_Win_lock_all", ffi::MPI_Win_lock_all(0, window))?;
            let offset = base.align_offset(ALIGNMENT);
            let base = base.add(offset);
            base.write_bytes(0, bytes);
            Ok(Window { window, base, offset })
        }
    }

    /// MPI's handle.
    pub fn handle(&self) -> ffi::MPI_Win {
        self.window
    }

    /// Bytes before the first byte on a cache line.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Makes this rank's writes to its memory and the others' view of it the same.
    pub fn sync(&self) -> Result<(), Error> {
        // SAFETY: a valid window with an open epoch.
        check("MPI_Win_sync", unsafe { ffi::MPI_Win_sync(self.window) })
    }

    /// Floats from byte `at` on, which no other buffer of this process has.
    pub fn floats(self: &Arc<Self>, at: usize, lengths: impl Iterator<Item = usize>) -> Arc<Shared> {
        // SAFETY: the caller has allocated them and stays within; they are zeros, and no other buffer has them.
        Arc::new(unsafe { Shared::over(self.base.add(at).cast(), lengths, Box::new(self.clone())) })
    }

    /// Gives it back, on all ranks together.
    pub fn free(mut self) -> Result<(), Error> {
        // SAFETY: a valid window, whose memory nobody borrows any more: this is its last owner.
        unsafe {
            check("MPI_Win_unlock_all", ffi::MPI_Win_unlock_all(self.window))?;
            check("MPI_Win_free", ffi::MPI_Win_free(&mut self.window))
        }
    }
}
