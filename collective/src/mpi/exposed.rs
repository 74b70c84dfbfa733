//! Memory of every rank that the others read by themselves: a plain window of MPI with passive targets.
//!
//! A short message says that something can be fetched; weights and gradients are then got from where they were computed, which on a
//! fabric with native RMA takes no processor there. Gets are requests that are polled, for a flush would wait for a stopped rank for ever.

#![allow(unsafe_code)] // MPI writes to buffers after the call that lent them has returned.

use super::call::Comm;
use super::requests::Requests;
use super::window::Window;
use crate::{Error, Shared};
use std::sync::Arc;

/// This rank's memory, and where that of the others begins.
pub struct Exposed {
    window: Arc<Window>,
    /// Bytes before the first float of each rank.
    offsets: Vec<usize>,
}

impl Exposed {
    /// Exposes so many floats, all of them zero; all ranks of `comm` call this together.
    pub fn new(comm: Comm, floats: usize) -> Result<Exposed, Error> {
        let window = Arc::new(Window::expose(&comm, size_of::<f32>() * floats)?);
        let offsets = comm.exchange(&window.offset().to_string())?;
        let offset = |text: &String| text.parse().expect("a number of the same program");
        Ok(Exposed { window, offsets: offsets.iter().map(offset).collect() })
    }

    /// The window, which has to be freed by all ranks together.
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// Blocks of these lengths from float `first` on, which no other buffer of this process has.
    pub fn buffer(&self, first: usize, lengths: impl Iterator<Item = usize>) -> Arc<Shared> {
        self.window.floats(size_of::<f32>() * first, lengths)
    }

    /// Makes what this rank has written visible to those who get it.
    pub fn publish(&self) -> Result<(), Error> {
        self.window.sync()
    }

    /// Begins to get the floats that a rank exposes from its float `first` on.
    ///
    /// # Safety
    /// The floats live, and nobody touches them, until the requests are done; nor does the rank write to its own.
    pub unsafe fn get(
        &self,
        requests: &mut Requests,
        floats: &mut [f32],
        rank: usize,
        first: usize,
    ) -> Result<(), Error> {
        let at = self.offsets[rank] + size_of::<f32>() * first;
        // SAFETY: the caller keeps the floats; the other rank's window holds as many from there on.
        unsafe { requests.get_floats(self.window.handle(), floats, rank, at) }
    }
}
