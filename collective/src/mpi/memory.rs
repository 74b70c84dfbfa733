//! Memory that the ranks of a node share: one of them makes it, and the others map it through its file descriptor there.
//!
//! MPI has windows for this. They come and go in rounds of messages, in each of which every rank waits for all others without leaving its core
//! to them: four ranks on two cores spent more of their time there than in MPI's own beginning.

#![allow(unsafe_code)] // Memory that other processes write, too.

use super::call::Comm;
use crate::Error;
use crate::board::Board;
use crate::end::Shape;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// Zeros at first. It is gone when the last process that maps it is.
pub struct Memory(MmapRaw);

impl Memory {
    /// `bytes` that rank `first` makes, for all who name it and the same number. All ranks of `comm` call this together.
    ///
    /// # Errors
    /// What has kept a rank from it; all ranks get the same error.
    pub fn share(comm: Comm, first: usize, bytes: usize) -> Result<Memory, Error> {
        let own = if comm.rank()? == first { Some(make(bytes)) } else { None };
        let name = own.as_ref().and_then(|made| made.as_ref().ok()).map_or(String::new(), name);
        let names = comm.exchange(&name)?;
        let file = own.unwrap_or_else(|| OpenOptions::new().read(true).write(true).open(&names[first]));
        let map = file.and_then(|file| Ok((MmapOptions::new().len(bytes).map_raw(&file)?, file)));
        let failed = map.as_ref().err().map_or(String::new(), ToString::to_string);
        // The first rank's file stays open until all have opened it.
        let failures = comm.exchange(&failed)?;
        match (map, failures.iter().position(|failure| !failure.is_empty())) {
            (Ok((map, _file)), None) => Ok(Memory(map)),
            (_, rank) => {
                let rank = rank.unwrap_or(first);
                let cause = &failures[rank];
                let reason =
                    format!("rank {rank} cannot share {bytes} bytes with the ranks of its node: {cause}");
                Err(Error::Failed { reason })
            }
        }
    }

    /// Its first word, for memory of one word.
    pub fn word(&self) -> &AtomicU32 {
        // SAFETY: a page's beginning, which is 0 at first and reached only through this.
        unsafe { AtomicU32::from_ptr(self.0.as_mut_ptr().cast()) }
    }

    /// A board over memory that was shared for its shape, which all ranks compute from what they have agreed on.
    pub fn board(self: &Arc<Memory>, shape: &Shape) -> Arc<Board> {
        // SAFETY: it has the board's bytes, from a page's beginning on; they are zero and reached only through boards of this shape.
        unsafe { Board::over(self.0.as_mut_ptr(), shape, self.clone()) }
    }
}

fn make(bytes: usize) -> io::Result<File> {
    let file = File::from(memfd_create("muster", MemfdFlags::CLOEXEC)?);
    file.set_len(bytes as u64)?;
    Ok(file)
}

/// The path by which other processes of this node open a file of this one.
fn name(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}
