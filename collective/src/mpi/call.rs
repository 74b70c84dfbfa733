//! MPI's functions with their return codes, which the safe calls of the crate `mpi` drop.

#![allow(unsafe_code)] // Calls of C functions.

use super::requests::Requests;
use crate::Error;
use mpi::ffi;
use std::ffi::{c_char, c_int};
use std::ptr;
use std::time::{Duration, Instant};

/// A communicator.
#[derive(Clone, Copy)]
pub struct Comm(pub ffi::MPI_Comm);

// SAFETY: a handle; one thread at a time uses it.
unsafe impl Send for Comm {}
// SAFETY: as above.
unsafe impl Sync for Comm {}

/// Whose header this is built with. The size of a communicator's handle tells: a pointer in Open MPI, a number in MPICH and everything that
/// shares its binary interface.
pub const BUILT_WITH: &str =
    if size_of::<ffi::MPI_Comm>() == size_of::<usize>() { "Open MPI" } else { "MPICH" };

/// An error, if a function's return code says so.
pub fn check(call: &'static str, code: c_int) -> Result<(), Error> {
    if code == ffi::MPI_SUCCESS as c_int {
        return Ok(());
    }
    let mut text = [0u8; 1024];
    let mut length = 0;
    // SAFETY: longer than MPI_MAX_ERROR_STRING of both libraries (256 and 512).
    unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &mut length) };
    let text = String::from_utf8_lossy(&text[..length.max(0) as usize]).into_owned();
    Err(Error::Mpi { call, text })
}

/// What the library says it is, its first line. It may be asked before MPI is initialized.
pub fn library() -> String {
    let text = library_text();
    let words: Vec<&str> = text.lines().next().unwrap_or("").split_whitespace().collect();
    words.join(" ").split(',').next().unwrap_or("").to_owned()
}

/// All that the library says of itself.
pub fn library_text() -> String {
    // SAFETY: a constant of the library; the buffer is of the length that it states.
    let text = unsafe {
        let mut text = vec![0u8; ffi::RSMPI_MAX_LIBRARY_VERSION_STRING as usize + 1];
        let mut length = 0;
        ffi::MPI_Get_library_version(text.as_mut_ptr().cast::<c_char>(), &mut length);
        text.truncate(length.max(0) as usize);
        text
    };
    String::from_utf8_lossy(&text).into_owned()
}

/// Initializes MPI for a process of which one thread at a time calls it, and returns the world; its errors are returned, not fatal.
pub fn initialize() -> Result<Comm, Error> {
    let mut provided = 0;
    // SAFETY: null stands for no arguments; the process initializes MPI once.
    unsafe {
        let code = ffi::MPI_Init_thread(
            ptr::null_mut(),
            ptr::null_mut(),
            ffi::RSMPI_THREAD_SERIALIZED,
            &mut provided,
        );
        check("MPI_Init_thread", code)?;
        if provided < ffi::RSMPI_THREAD_SERIALIZED {
            let text = "this MPI is built for programs without threads".to_owned();
            return Err(Error::Mpi { call: "MPI_Init_thread", text });
        }
        Comm(ffi::RSMPI_COMM_WORLD).returning_errors()
    }
}

/// Ends MPI.
pub fn finalize() -> Result<(), Error> {
    // SAFETY: MPI has been initialized, and nothing is under way but words that live for ever.
    check("MPI_Finalize", unsafe { ffi::MPI_Finalize() })
}

/// Ends the processes of all ranks while another thread is in a call of MPI that may never return: the last call of this process.
pub fn abort_beside() -> ! {
    // MPICH's launcher drops what it has not forwarded yet.
    std::thread::sleep(Duration::from_millis(200));
    // What the other thread holds may be waited for.
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(3));
        std::process::exit(1)
    });
    let (mut has_begun, mut has_ended) = (0, 0);
    // SAFETY: these may be asked at any time. Two threads in MPI are more than was asked of it, but without this call its launchers may
    // leave processes on other nodes behind, and to end is all that is left to do.
    unsafe {
        ffi::MPI_Initialized(&mut has_begun);
        ffi::MPI_Finalized(&mut has_ended);
        if has_begun != 0 && has_ended == 0 {
            ffi::MPI_Abort(ffi::RSMPI_COMM_WORLD, 1);
        }
    }
    if has_begun == 0 && BUILT_WITH == "MPICH" {
        // Its launcher leaves other nodes' ranks alone where one exits before MPI has begun, but not where a signal ends it.
        _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    std::process::exit(1)
}

impl Comm {
    fn returning_errors(self) -> Result<Comm, Error> {
        // SAFETY: a valid communicator.
        check("MPI_Comm_set_errhandler", unsafe {
            ffi::MPI_Comm_set_errhandler(self.0, ffi::RSMPI_ERRORS_RETURN)
        })?;
        Ok(self)
    }

    pub fn rank(self) -> Result<usize, Error> {
        let mut rank = 0;
        // SAFETY: a valid communicator.
        check("MPI_Comm_rank", unsafe { ffi::MPI_Comm_rank(self.0, &mut rank) })?;
        Ok(rank as usize)
    }

    pub fn size(self) -> Result<usize, Error> {
        let mut size = 0;
        // SAFETY: a valid communicator.
        check("MPI_Comm_size", unsafe { ffi::MPI_Comm_size(self.0, &mut size) })?;
        Ok(size as usize)
    }

    /// The same ranks, whose messages meet no others.
    pub fn duplicate(self) -> Result<Comm, Error> {
        // SAFETY: a valid communicator; all its ranks call this.
        unsafe {
            let mut comm = ffi::RSMPI_COMM_NULL;
            check("MPI_Comm_dup", ffi::MPI_Comm_dup(self.0, &mut comm))?;
            Comm(comm).returning_errors()
        }
    }

    /// The ranks for which this is the same, in their order.
    pub fn divide(self, part: bool) -> Result<Comm, Error> {
        // SAFETY: a valid communicator; all its ranks call this.
        unsafe {
            let mut comm = ffi::RSMPI_COMM_NULL;
            check("MPI_Comm_split", ffi::MPI_Comm_split(self.0, part.into(), 0, &mut comm))?;
            Comm(comm).returning_errors()
        }
    }

    /// Gives every rank every rank's text, by rank.
    pub fn exchange(self, text: &str) -> Result<Vec<String>, Error> {
        let size = self.size()?;
        let (length, mut lengths) = (i32::try_from(text.len()).expect("texts are short"), vec![0i32; size]);
        // SAFETY: a constant of the library.
        let kind = unsafe { ffi::RSMPI_INT32_T };
        Requests::of("MPI_Iallgather", |request| {
            let (from, to) = (ptr::from_ref(&length).cast(), lengths.as_mut_ptr().cast());
            // SAFETY: one i32 in, one from each rank out; both live until `wait` returns.
            unsafe { ffi::MPI_Iallgather(from, 1, kind, to, 1, kind, self.0, request) }
        })?
        .wait()?;
        let mut starts = vec![0i32; size];
        for rank in 1..size {
            starts[rank] = starts[rank - 1] + lengths[rank - 1];
        }
        // One byte more than needed, because the address of an empty vector is what Open MPI takes for MPI_IN_PLACE.
        let own = [text.as_bytes(), &[0]].concat();
        let mut bytes = vec![0u8; lengths.iter().sum::<i32>() as usize + 1];
        Requests::of("MPI_Iallgatherv", |request| {
            let (from, to) = (own.as_ptr().cast(), bytes.as_mut_ptr().cast());
            // SAFETY: lengths and starts lie within `bytes`; all of them live until `wait` returns.
            unsafe {
                let kind = ffi::RSMPI_UINT8_T;
                let (lengths, starts) = (lengths.as_ptr(), starts.as_ptr());
                ffi::MPI_Iallgatherv(from, length, kind, to, lengths, starts, kind, self.0, request)
            }
        })?
        .wait()?;
        let text = |(&start, &length): (&i32, &i32)| {
            String::from_utf8_lossy(&bytes[start as usize..][..length as usize]).into_owned()
        };
        Ok(starts.iter().zip(&lengths).map(text).collect())
    }

    /// How long a message of so many floats takes from rank 0 to rank 1 and back, a mean of so many `times` after a first one. Both call this.
    ///
    /// # Panics
    /// If this is another rank, or `times` is 0.
    pub fn round_trip(self, rank: usize, floats: usize, times: u64) -> Result<Duration, Error> {
        const TAG: c_int = 1;
        assert!(rank < 2 && times > 0, "{times} messages of rank {rank}");
        let (other, mut sent, mut received) = (1 - rank, vec![1.0; floats], vec![0.0; floats]);
        let mut start = Instant::now();
        for time in 0..=times {
            let (mut sending, mut receiving) = (Requests::default(), Requests::default());
            // SAFETY: both buffers stay as they are until the requests are done.
            unsafe {
                receiving.receive_floats(self, &mut received, other, TAG)?;
                if rank == 0 {
                    sending.send_floats(self, &sent, other, TAG)?;
                }
                receiving.wait()?;
                if rank == 1 {
                    std::mem::swap(&mut sent, &mut received);
                    sending.send_floats(self, &sent, other, TAG)?;
                }
            }
            sending.wait()?;
            if time == 0 {
                start = Instant::now();
            }
        }
        Ok(start.elapsed().div_f64(times as f64))
    }

    /// Receives a message without content, if one has come.
    pub fn take_empty(self, from: usize, tag: c_int) -> Result<bool, Error> {
        let (from, mut flag) = (from as c_int, 0);
        // SAFETY: plain out parameters, no statuses are wanted; a message of no words writes none.
        unsafe {
            let code = ffi::MPI_Iprobe(from, tag, self.0, &mut flag, ffi::RSMPI_STATUS_IGNORE);
            check("MPI_Iprobe", code)?;
            if flag != 0 {
                let (nowhere, kind) = (ptr::from_mut(&mut [0u64; 1]).cast(), ffi::RSMPI_UINT64_T);
                let code = ffi::MPI_Recv(nowhere, 0, kind, from, tag, self.0, ffi::RSMPI_STATUS_IGNORE);
                check("MPI_Recv", code)?;
            }
        }
        Ok(flag != 0)
    }

    /// Ends the processes of all ranks.
    pub fn abort(self) -> ! {
        // SAFETY: a valid communicator.
        unsafe { ffi::MPI_Abort(self.0, 1) };
        std::process::exit(1)
    }
}
