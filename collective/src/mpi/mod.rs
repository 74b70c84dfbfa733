//! The ranks that mpirun, mpiexec or srun started, through MPI.
//!
//! - [`call`]: MPI's functions with their return codes; [`requests`]: transfers under way.
//! - [`selected`]: what it has selected to carry its messages.
//! - [`vigil`]: limits what is waited for outside of steps; [`roll`]: who has come, and who lives.
//! - [`watch`]: notices when a process of this node dies.
//! - [`memory`]: memory that the ranks of a node share; [`window`]: memory that a rank exposes to all others.
//! - [`messages`]: weights and gradients as messages, or got from memory that is [`exposed`].
//!
//! Only the thread that joined the world talks to MPI, and while it does something else one that gives signs of life. Waits poll, because
//! a blocking call would not leave the core to others.

mod call;
mod exposed;
mod memory;
mod messages;
mod requests;
mod roll;
mod selected;
mod vigil;
mod watch;
mod window;

use crate::board::Board;
use crate::end::{ServerEnd, Shape, WorkerEnd};
use crate::launched::Launched;
use crate::leaders::{LeaderWorker, LeadersServer, Upward};
use crate::link::{Server, Worker};
use crate::roster::Place;
use crate::{Error, Fabric, Roster, Transport};
use call::Comm;
use memory::Memory;
use messages::{MessageServer, MessageWorker};
use std::ops::Range;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vigil::{Calling, Vigil};
use watch::Watch;
use window::Window;

/// The ranks that a launcher started, this process among them.
pub struct World {
    /// All that the launcher started, those that were set aside among them.
    whole: Comm,
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
    /// When a rank of this node dies, or set-up or end wait for one that is stopped for longer than `limit`, `say` is told so in another
    /// thread, and the job ends.
    ///
    /// # Errors
    /// If launcher, MPI library and program do not fit together.
    pub fn join(limit: Duration, say: fn(&str)) -> Result<Option<World>, Error> {
        let Some(launched) = Launched::here().filter(|launched| launched.size != Some(1)) else {
            return Ok(None);
        };
        let library = call::library();
        check_library(&library)?;
        selected::prepare(&library)?;
        let vigil = Vigil::start(&launched, limit, say);
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
        vigil.know(comm)?;
        let (roster, word) = vigil.with(size, "to join the world", || {
            let lines = comm.exchange(&Place::here().line())?;
            let places = lines.iter().filter_map(|line| Place::of(line)).collect();
            let roster = Arc::new(Roster::of_processes(places));
            vigil.know_processes(&roster);
            let word = Memory::share(comm, roster.node(rank), size_of::<AtomicU32>())?;
            Ok((roster, Arc::new(word)))
        })?;
        let watch = Watch::start(rank, roster.clone(), word, say);
        let (whole, windows) = (comm, Mutex::default());
        Ok(Some(World { whole, comm, rank, roster, library, vigil, watch, windows }))
    }

    /// Leaves the last `count` ranks out of everything but [`World::leave`] and [`World::abort`]: they go their own ways, and the world is
    /// that of the others. All ranks call this together.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn set_aside(self, count: usize) -> Result<World, Error> {
        let left = self.roster.len().saturating_sub(count);
        let comm = self.set_up(|| self.comm.divide(self.rank < left))?;
        let roster = Arc::new(Roster::of_processes(self.roster.places()[..left].to_vec()));
        Ok(World { comm, roster, ..self })
    }

    /// Whether this process was set aside.
    pub fn is_aside(&self) -> bool {
        self.rank >= self.roster.len()
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
        self.vigil.with(self.roster.len(), "to exchange what they have", || self.comm.exchange(text))
    }

    /// The same after work that may take one rank much longer than another.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn exchange_after_work(&self, text: &str) -> Result<Vec<String>, Error> {
        self.vigil.after_work(self.roster.len(), "to be done", || self.comm.exchange(text))
    }

    /// How long a message of so many floats takes from rank 0 to rank 1 and back, a mean of so many `times` after a first one, with nothing done
    /// between: what MPI itself takes. Both call this together.
    ///
    /// # Errors
    /// If MPI fails.
    ///
    /// # Panics
    /// If this is another rank, or `times` is 0.
    pub fn round_trip(&self, floats: usize, times: u64) -> Result<Duration, Error> {
        let _calling = self.vigil.calling();
        self.comm.round_trip(self.rank, floats, times)
    }

    /// What carries the messages of each rank; all ranks call this together.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn fabric(&self) -> Result<Vec<Fabric>, Error> {
        let own = self
            .vigil
            .during("to know the fabric", || selected::fabric(&self.library, self.roster.nodes()))?;
        Ok(self.exchange(&own.line())?.iter().map(|line| Fabric::of(line)).collect())
    }

    /// The transport to use, if `wanted` is none in particular the fastest; all ranks call this together. Leaders add up the gradients of
    /// one step, which is what synchronous training has; where each node has one rank, they would have nothing to add up.
    ///
    /// # Errors
    /// If the wanted one cannot be had.
    pub fn transport(&self, wanted: Option<Transport>, is_sync: bool) -> Result<Transport, Error> {
        let nodes = self.roster.nodes();
        let unavailable = |transport, reason| Err(Error::Unavailable { transport, reason });
        match wanted {
            Some(Transport::Shared) if nodes > 1 => unavailable(
                Transport::Shared,
                format!("the ranks are on {nodes} nodes, which have no memory in common"),
            ),
            Some(Transport::Leaders) if !is_sync => unavailable(
                Transport::Leaders,
                "gradients of asynchronous training are applied one by one, not added up".to_owned(),
            ),
            Some(transport) => Ok(transport),
            None if nodes == 1 => Ok(Transport::Shared),
            None if nodes == self.roster.len() && self.fabric()?.iter().all(Fabric::has_native_rma) => {
                Ok(Transport::Rma)
            }
            None if is_sync => Ok(Transport::Leaders),
            None => Ok(Transport::Messages),
        }
    }

    /// Rank 0's end of a link to all workers; the other ranks call [`World::worker`] at the same time.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn server(&self, shape: &Shape, transport: Transport) -> Result<Server, Error> {
        let end: Box<dyn ServerEnd> = match transport {
            Transport::Shared => Box::new(self.board(shape)?.server(shape)),
            Transport::Messages => {
                Box::new(MessageServer::new(self.duplicate()?, shape, None, |rank| self.is_near(rank)))
            }
            Transport::Leaders => Box::new(self.leaders(shape)?),
            Transport::Rma => {
                let calling = self.vigil.calling();
                let end = self.set_up(|| {
                    MessageServer::exposing((self.comm.duplicate()?, calling), shape).map_err(without_windows)
                })?;
                self.keep(end.window());
                Box::new(end)
            }
        };
        Ok(Server::new(end, self.roster.clone(), shape))
    }

    /// Another rank's end.
    ///
    /// # Errors
    /// If MPI fails.
    ///
    /// # Panics
    /// If this rank is not one of the workers.
    pub fn worker(&self, shape: &Shape, transport: Transport) -> Result<Worker, Error> {
        let index = shape.ranks.iter().position(|&rank| rank == self.rank).expect("a worker of the shape");
        let mut from = 0;
        let end: Box<dyn WorkerEnd> = match transport {
            Transport::Shared => Box::new(self.board(shape)?.worker(shape, index, None)),
            Transport::Messages => {
                let (weights, slot) = (messages::buffer(shape, 1), messages::buffer(shape, shape.nodes));
                let is_near = self.is_near(self.rank);
                Box::new(MessageWorker::new(self.duplicate()?, shape, (weights, slot), is_near)?)
            }
            Transport::Leaders => {
                let node = self.node_of(shape, self.rank);
                from = if self.roster.node(self.rank) == 0 { 0 } else { shape.ranks[node.start] };
                self.led(&Shape { ranks: &shape.ranks[node.clone()], ..*shape }, index - node.start)?
            }
            Transport::Rma => {
                let calling = self.vigil.calling();
                let end = self.set_up(|| {
                    let private = (self.comm.duplicate()?, calling);
                    MessageWorker::exposing(private, shape, index).map_err(without_windows)
                })?;
                self.keep(end.window());
                Box::new(end)
            }
        };
        Ok(Worker::new(end, self.roster.clone(), shape, index, from))
    }

    /// The server's end towards its own node and the leaders of the others.
    fn leaders(&self, shape: &Shape) -> Result<LeadersServer, Error> {
        let own = self.node_of(shape, 0);
        let near = Shape { ranks: &shape.ranks[own.clone()], ..*shape };
        let near = self.board(&near)?.server(&near);
        let mut nodes = Vec::new();
        let mut next = own.end;
        while next < shape.workers() {
            nodes.push(self.node_of(shape, shape.ranks[next]));
            next = nodes[nodes.len() - 1].end;
        }
        let leaders: Vec<usize> = nodes.iter().map(|node| shape.ranks[node.start]).collect();
        let far = Shape { ranks: &leaders, nodes: shape.nodes_of_leader, ..*shape };
        let far = MessageServer::new(self.duplicate()?, &far, Some(near.weights().clone()), |_| false);
        Ok(LeadersServer::new(near, Box::new(far), &nodes))
    }

    /// The end of worker `index` of a node whose workers are those of `shape`.
    fn led(&self, shape: &Shape, index: usize) -> Result<Box<dyn WorkerEnd>, Error> {
        let board = self.board(shape)?;
        let comm = self.duplicate()?;
        if self.roster.node(self.rank) != self.rank {
            return Ok(Box::new(board.worker(shape, index, None)));
        }
        let upward = Shape { nodes: shape.nodes_of_leader, ..*shape };
        let connect = |weights, slot| {
            let end = MessageWorker::new(comm, &upward, (weights, slot), false)?;
            Ok(Box::new(end) as Box<dyn Upward>)
        };
        Ok(Box::new(LeaderWorker::new(&board, shape, connect)?))
    }

    /// Whether a rank is on the node of rank 0.
    fn is_near(&self, rank: usize) -> bool {
        self.roster.node(rank) == self.roster.node(0)
    }

    /// The workers of a shape that are on the node of a rank; they are neighbours.
    fn node_of(&self, shape: &Shape, rank: usize) -> Range<usize> {
        let node = self.roster.node(rank);
        let is_there = |&worker: &usize| self.roster.node(shape.ranks[worker]) == node;
        let first = (0..shape.workers()).find(is_there).unwrap_or(0);
        first..first + (first..shape.workers()).take_while(is_there).count()
    }

    /// A board in memory that the ranks of this node share.
    fn board(&self, shape: &Shape) -> Result<Arc<Board>, Error> {
        let node = self.roster.node(self.rank);
        let memory = self.set_up(|| Memory::share(self.comm, node, Board::bytes(shape)))?;
        Ok(Arc::new(memory).board(shape))
    }

    /// Keeps a window until all ranks leave.
    fn keep(&self, window: Option<&Arc<Window>>) {
        self.windows.lock().expect("no panic while it is held").extend(window.cloned());
    }

    /// The same ranks for the messages of a link, and what it keeps while it calls MPI.
    fn duplicate(&self) -> Result<(Comm, Calling), Error> {
        let calling = self.vigil.calling();
        Ok((self.set_up(|| self.comm.duplicate())?, calling))
    }

    /// Does what all ranks do together before the first step.
    fn set_up<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.vigil.with(self.roster.len(), "to set up the transport", work)
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
        let (all, is_aside) = (self.whole.size()?, self.is_aside());
        let World { rank, roster, library, vigil, watch, windows, .. } = self;
        let windows = windows.into_inner().expect("no panic while it is held");
        if !windows.is_empty() {
            let mut windows = windows
                .into_iter()
                .map(|window| Arc::into_inner(window).expect("no link outlives its world"));
            vigil.after_work(roster.len(), "to be done", || windows.try_for_each(Window::free))?;
        }
        vigil.at_last(all, is_aside, || {
            // From having heard that all have come to MPI's end, no rank calls MPI; rank 0 waits, where it has to, until the others do.
            watch.will_only_end();
            if rank == 0 && selected::rank_0_has_to_end_last(&library) {
                watch.wait_for_others();
            }
            watch.stop();
            call::finalize()
        })
    }

    /// Ends the processes of all ranks.
    pub fn abort(&self) -> ! {
        self.watch.announce_end();
        self.vigil.silence();
        self.whole.abort()
    }
}

/// What it means that no memory could be exposed.
fn without_windows(error: Error) -> Error {
    let reason = format!("{error}; MPI may have nothing that reads memory over this fabric");
    Error::Unavailable { transport: Transport::Rma, reason }
}

/// Whether the library found is the one built with.
fn check_library(found: &str) -> Result<(), Error> {
    if found.starts_with("Open MPI") == (call::BUILT_WITH == "Open MPI") {
        return Ok(());
    }
    Err(Error::OtherLibrary { built: call::BUILT_WITH, found: found.to_owned() })
}
