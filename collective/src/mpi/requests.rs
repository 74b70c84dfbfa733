//! Transfers under way, which are polled: a call that waits would not leave the core to others.

#![allow(unsafe_code)] // Calls of C functions.

use super::call::{Comm, check};
use crate::Error;
use crate::wait::Patience;
use mpi::ffi;
use std::ffi::{c_int, c_void};

/// Floats that are got at a time at most: counts of MPI are `int`. 4 MiB lose nothing, and models of the tests are larger.
const CHUNK: usize = 1 << 20;

/// Transfers under way.
#[derive(Default)]
pub struct Requests {
    all: Vec<ffi::MPI_Request>,
    /// How many, from the first on, are known to be done.
    leading: usize,
}

// SAFETY: handles; one thread at a time uses them.
unsafe impl Send for Requests {}

impl Requests {
    /// A single one.
    pub fn of(
        call: &'static str,
        begin: impl FnOnce(*mut ffi::MPI_Request) -> c_int,
    ) -> Result<Requests, Error> {
        let mut requests = Requests::default();
        requests.add(call, begin)?;
        Ok(requests)
    }

    /// Waits until all of them are done.
    pub fn wait(mut self) -> Result<(), Error> {
        let mut patience = Patience::default();
        while !self.are_done()? {
            patience.pause();
        }
        Ok(())
    }

    fn add(
        &mut self,
        call: &'static str,
        begin: impl FnOnce(*mut ffi::MPI_Request) -> c_int,
    ) -> Result<(), Error> {
        // SAFETY: a constant of the library.
        let mut request = unsafe { ffi::RSMPI_REQUEST_NULL };
        check(call, begin(&mut request))?;
        self.all.push(request);
        Ok(())
    }

    /// Begins to send words.
    ///
    /// # Safety
    /// The words live and stay as they are until the requests are done.
    pub unsafe fn send_words(
        &mut self,
        comm: Comm,
        words: &[u64],
        to: usize,
        tag: c_int,
    ) -> Result<(), Error> {
        self.add("MPI_Isend", |request| {
            let (at, count) = (words.as_ptr().cast::<c_void>(), words.len() as c_int);
            // SAFETY: the caller keeps the words.
            unsafe { ffi::MPI_Isend(at, count, ffi::RSMPI_UINT64_T, to as c_int, tag, comm.0, request) }
        })
    }

    /// The same as a message that is done when the other side has begun to receive it.
    ///
    /// # Safety
    /// As for other words.
    pub unsafe fn send_words_until_received(
        &mut self,
        comm: Comm,
        words: &[u64],
        to: usize,
        tag: c_int,
    ) -> Result<(), Error> {
        self.add("MPI_Issend", |request| {
            let (at, count) = (words.as_ptr().cast::<c_void>(), words.len() as c_int);
            // SAFETY: the caller keeps the words.
            unsafe { ffi::MPI_Issend(at, count, ffi::RSMPI_UINT64_T, to as c_int, tag, comm.0, request) }
        })
    }

    /// Begins to receive at most as many words as fit.
    ///
    /// # Safety
    /// The words live, and nobody touches them, until the requests are done.
    pub unsafe fn receive_words(
        &mut self,
        comm: Comm,
        words: &mut [u64],
        from: usize,
        tag: c_int,
    ) -> Result<(), Error> {
        self.add("MPI_Irecv", |request| {
            let (at, count) = (words.as_mut_ptr().cast::<c_void>(), words.len() as c_int);
            // SAFETY: the caller keeps the words.
            unsafe { ffi::MPI_Irecv(at, count, ffi::RSMPI_UINT64_T, from as c_int, tag, comm.0, request) }
        })
    }

    /// Begins to send floats as one message.
    ///
    /// # Safety
    /// As for words.
    pub unsafe fn send_floats(
        &mut self,
        comm: Comm,
        floats: &[f32],
        to: usize,
        tag: c_int,
    ) -> Result<(), Error> {
        self.add("MPI_Isend", |request| {
            let (at, count) = (floats.as_ptr().cast::<c_void>(), floats.len() as c_int);
            // SAFETY: the caller keeps the floats.
            unsafe { ffi::MPI_Isend(at, count, ffi::RSMPI_FLOAT, to as c_int, tag, comm.0, request) }
        })
    }

    /// Begins to receive a message of at most as many floats as fit.
    ///
    /// # Safety
    /// As for words.
    pub unsafe fn receive_floats(
        &mut self,
        comm: Comm,
        floats: &mut [f32],
        from: usize,
        tag: c_int,
    ) -> Result<(), Error> {
        self.add("MPI_Irecv", |request| {
            let (at, count) = (floats.as_mut_ptr().cast::<c_void>(), floats.len() as c_int);
            // SAFETY: the caller keeps the floats.
            unsafe { ffi::MPI_Irecv(at, count, ffi::RSMPI_FLOAT, from as c_int, tag, comm.0, request) }
        })
    }

    /// Begins to get floats that lie `at` bytes after the beginning of a rank's window.
    ///
    /// # Safety
    /// As for words; the rank's window holds them, and they stay as they are.
    pub unsafe fn get_floats(
        &mut self,
        window: ffi::MPI_Win,
        floats: &mut [f32],
        from: usize,
        at: usize,
    ) -> Result<(), Error> {
        floats.chunks_mut(CHUNK).enumerate().try_for_each(|(index, chunk)| {
            self.add("MPI_Rget", |request| {
                let (to, count) = (chunk.as_mut_ptr().cast::<c_void>(), chunk.len() as c_int);
                let at = (at + size_of::<f32>() * CHUNK * index) as ffi::MPI_Aint;
                // SAFETY: the caller keeps the floats, and knows the window.
                unsafe {
                    let kind = ffi::RSMPI_FLOAT;
                    ffi::MPI_Rget(to, count, kind, from as c_int, at, count, kind, window, request)
                }
            })
        })
    }

    /// How many there are, until all of them are done.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// How many of them, from the first on, are done, with some progress for MPI.
    pub fn leading(&mut self) -> Result<usize, Error> {
        while let Some(request) = self.all.get_mut(self.leading) {
            let mut flag = 0;
            // SAFETY: a valid request; no status is wanted.
            check("MPI_Test", unsafe { ffi::MPI_Test(request, &mut flag, ffi::RSMPI_STATUS_IGNORE) })?;
            if flag == 0 {
                break;
            }
            self.leading += 1;
        }
        Ok(self.leading)
    }

    /// Whether all of them are done, with some progress for MPI. Done requests are forgotten.
    pub fn are_done(&mut self) -> Result<bool, Error> {
        if self.all.is_empty() {
            return Ok(true);
        }
        let (mut flag, count) = (0, self.all.len() as c_int);
        // SAFETY: valid requests; no statuses are wanted.
        check("MPI_Testall", unsafe {
            ffi::MPI_Testall(count, self.all.as_mut_ptr(), &mut flag, ffi::RSMPI_STATUSES_IGNORE)
        })?;
        if flag != 0 {
            self.all.clear();
            self.leading = 0;
        }
        Ok(flag != 0)
    }
}
