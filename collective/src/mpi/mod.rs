//! The ranks that mpirun, mpiexec or srun started, through MPI.
//!
//! - [`call`]: MPI's functions with their return codes.
//! - [`selected`]: what it has selected to carry its messages.
//! - [`vigil`]: limits what is waited for outside of steps.
//! - [`watch`]: notices when a process of this node dies.
//! - [`window`]: memory that the ranks of a node share.
//! - [`messages`]: weights and gradients as messages.
//!
//! Only the thread that joined the world talks to MPI. Waits poll, because a blocking call would not leave the core to others.

mod call;
mod messages;
mod selected;
mod vigil;
mod watch;
mod window;

pub use messages::{MessageServer, MessageWorker};

use crate::board::Board;
use crate::launched::Launched;
use crate::link::{Server, ServerEnd, Shape, Worker, WorkerEnd};
use crate::roster::Place;
use crate::{Error, Fabric, Roster, Transport};
use call::Comm;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vigil::Vigil;
use watch::Watch;
use window::Window;

/// The ranks that a launcher started, this process among them.
pub struct World {
    comm: Comm,
    rank: usize,
    roster: Arc<Roster>,
    library: String,
    vigil: Vigil,
    watch: Watch,
    windows: Mutex<Vec<Arc<Window>>>,
}

impl World {
    /// Joins the world that a launcher started this process in; none when it was started on its own or as the only one.
    /// `on_loss` is called in another thread when a rank of this node dies, and when set-up or end wait for one that is stopped for
    /// longer than `limit`.
    ///
    /// # Errors
    /// If launcher, MPI library and program do not fit together.
    pub fn join(limit: Duration, on_loss: fn(&str) -> !) -> Result<Option<World>, Error> {
        let Some(launched) = Launched::here().filter(|launched| launched.size != Some(1)) else {
            return Ok(None);
        };
        let library = call::library();
        check_library(&library)?;
        selected::ask_ucx()?;
        let vigil = Vigil::start(&launched, limit, on_loss);
        let comm = vigil.during("while MPI begins", call::initialize)?;
        let (rank, size) = (comm.rank()?, comm.size()?);
        if size != launched.size.unwrap_or(size) {
            call::finalize()?;
            let (launcher, expected) = (launched.launcher, launched.size.unwrap_or(0));
            return Err(Error::OtherLauncher { launcher, expected, found: size, library });
        }
        if size == 1 {
            call::finalize()?;
            return Ok(None);
        }
        let (roster, flag) = vigil.during("to join the world", || {
            let neighbours = comm.of_node()?;
            let node = neighbours.lowest(rank)?;
            comm.roll_call(|missing| vigil.misses(missing))?;
            let lines = comm.exchange(&Place::here(node).line())?;
            let places = lines.iter().filter_map(|line| Place::of(line)).collect();
            let roster = Arc::new(Roster::of_processes(places));
            vigil.know(&roster);
            let flag = Arc::new(Window::allocate(&neighbours, node == rank, 1)?);
            comm.exchange("")?;
            Ok((roster, flag))
        })?;
        let watch = Watch::start(rank, roster.clone(), flag, on_loss);
        Ok(Some(World { comm, rank, roster, library, vigil, watch, windows: Mutex::default() }))
    }

    /// This process's rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// All ranks.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// What the MPI library says it is.
    pub fn library(&self) -> &str {
        &self.library
    }

    /// Gives every rank every rank's text.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn exchange(&self, text: &str) -> Result<Vec<String>, Error> {
        self.vigil.during("to exchange what they have", || {
            self.comm.roll_call(|missing| self.vigil.misses(missing))?;
            self.comm.exchange(text)
        })
    }

    /// The same after work that may take one rank much longer than another.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn exchange_after_work(&self, text: &str) -> Result<Vec<String>, Error> {
        self.vigil.after_work("to be done", || {
            self.comm.roll_call(|missing| self.vigil.misses(missing))?;
            self.comm.exchange(text)
        })
    }

    /// What carries the messages of each rank; all ranks call this together.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn fabric(&self) -> Result<Vec<Fabric>, Error> {
        let own = selected::fabric(&self.library, self.roster.nodes())?;
        Ok(self.exchange(&own.line())?.iter().map(|line| Fabric::of(line)).collect())
    }

    /// The transport to use, if `wanted` is none in particular the fastest.
    ///
    /// # Errors
    /// If the wanted one cannot be had.
    pub fn transport(&self, wanted: Option<Transport>) -> Result<Transport, Error> {
        let nodes = self.roster.nodes();
        match wanted {
            Some(Transport::Shared) if nodes > 1 => {
                let reason = format!("the ranks are on {nodes} nodes, which have no memory in common");
                Err(Error::Unavailable { transport: Transport::Shared, reason })
            }
            Some(transport) => Ok(transport),
            None if nodes > 1 => Ok(Transport::Messages),
            None => Ok(Transport::Shared),
        }
    }

    /// Rank 0's end of a link to all workers; the other ranks call [`World::worker`] at the same time.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn server(&self, shape: &Shape, transport: Transport) -> Result<Server, Error> {
        let end = match transport {
            Transport::Shared => ServerEnd::Board(self.board(shape)?.server(shape)),
            Transport::Messages => ServerEnd::Messages(MessageServer::new(self.duplicate()?, shape)),
        };
        Ok(Server::new(end, self.roster.clone(), shape))
    }

    /// Another rank's end.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn worker(&self, shape: &Shape, transport: Transport) -> Result<Worker, Error> {
        let index = self.rank - shape.first_rank;
        let end = match transport {
            Transport::Shared => WorkerEnd::Board(self.board(shape)?.worker(shape, index, None)),
            Transport::Messages => WorkerEnd::Messages(MessageWorker::new(self.duplicate()?, shape)?),
        };
        Ok(Worker::new(end, self.roster.clone(), shape, index))
    }

    /// A board in memory that all ranks map, zeroed.
    fn board(&self, shape: &Shape) -> Result<Arc<Board>, Error> {
        let window = self.set_up(|| Window::allocate(&self.comm, self.rank == 0, Board::bytes(shape)))?;
        let window = Arc::new(window);
        self.windows.lock().expect("no panic while it is held").push(window.clone());
        self.exchange("")?;
        Ok(window::board(&window, shape))
    }

    fn duplicate(&self) -> Result<Comm, Error> {
        self.set_up(|| self.comm.duplicate())
    }

    /// Does what all ranks do together before the first step. Whoever is missing at its beginning can be named.
    fn set_up<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.vigil.during("to set up the transport", || {
            self.comm.roll_call(|missing| self.vigil.misses(missing))?;
            work()
        })
    }

    /// Waits for all ranks and ends MPI. What links have lent is gone by then.
    ///
    /// # Errors
    /// If MPI fails.
    ///
    /// # Panics
    /// If a link or its buffers still live.
    pub fn leave(self) -> Result<(), Error> {
        self.watch.announce_end();
        self.exchange_after_work("")?;
        let World { vigil, watch, windows, .. } = self;
        let mut windows = windows.into_inner().expect("no panic while it is held");
        windows.insert(0, watch.stop());
        vigil.during("to end", || {
            for window in windows {
                Arc::into_inner(window).expect("no link outlives its world").free()?;
            }
            call::finalize()
        })
    }

    /// Ends the processes of all ranks.
    pub fn abort(&self) -> ! {
        self.watch.announce_end();
        self.comm.abort()
    }
}

/// The size of a communicator handle tells what the program was built with: a pointer in Open MPI, a number in MPICH and
/// everything that shares its binary interface.
fn check_library(found: &str) -> Result<(), Error> {
    let built = if size_of::<mpi::ffi::MPI_Comm>() == size_of::<usize>() { "Open MPI" } else { "MPICH" };
    if found.starts_with("Open MPI") == (built == "Open MPI") {
        return Ok(());
    }
    Err(Error::OtherLibrary { built, found: found.to_owned() })
}
