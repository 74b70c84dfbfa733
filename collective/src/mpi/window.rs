//! Memory that the ranks of a node share, as one window of MPI.

#![allow(unsafe_code)] // Calls of C functions.

use super::call::{Comm, check};
use crate::Error;
use crate::board::Board;
use crate::link::Shape;
use mpi::ffi;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The memory of one window, all of it allocated by the first rank, which fills it with zeros.
pub struct Window {
    window: ffi::MPI_Win,
    base: *mut u8,
}

// SAFETY: the handle is used by the thread that joined the world alone; whoever reaches the memory orders that himself.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

/// Windows are only known to begin at the alignment of the largest C type.
const ALIGNMENT: usize = 64;

impl Window {
    /// Allocates a window of `bytes` bytes for all ranks of `comm`, who call this together and meet before they use it.
    pub fn allocate(comm: &Comm, is_first: bool, bytes: usize) -> Result<Window, Error> {
        let own = if is_first { bytes + ALIGNMENT } else { 0 };
        // SAFETY: plain out parameters; the epoch that `lock_all` opens lasts as long as the window.
        unsafe {
            let (mut window, mut base) = (ffi::RSMPI_WIN_NULL, ptr::null_mut::<u8>());
            let info = ffi::RSMPI_INFO_NULL;
            let to = ptr::from_mut(&mut base).cast();
            let code = ffi::MPI_Win_allocate_shared(own as ffi::MPI_Aint, 1, info, comm.0, to, &mut window);
            check("MPI_Win_allocate_shared", code)?;
            let (mut size, mut unit) = (0, 0);
            let to = ptr::from_mut(&mut base).cast();
            check("MPI_Win_shared_query", ffi::MPI_Win_shared_query(window, 0, &mut size, &mut unit, to))?;
            check("MPI_Win_lock_all", ffi::MPI_Win_lock_all(0, window))?;
            // Every process maps the window at a page of its own choice, so that all of them skip the same number of bytes.
            let base = base.add(base.align_offset(ALIGNMENT));
            if is_first {
                base.write_bytes(0, bytes);
            }
            Ok(Window { window, base })
        }
    }

    /// A flag at its start, for windows that hold nothing else.
    pub fn flag(&self) -> &AtomicBool {
        // SAFETY: at least one byte, which is 0 at first and reached only through this.
        unsafe { AtomicBool::from_ptr(self.base.cast()) }
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

/// A board over a window that was allocated for its shape, which all ranks compute from what they have agreed on.
pub fn board(window: &Arc<Window>, shape: &Shape) -> Arc<Board> {
    // SAFETY: the window has the board's bytes from an aligned address on; they are zero and reached only through boards of this shape.
    unsafe { Board::over(window.base, shape, window.clone()) }
}
