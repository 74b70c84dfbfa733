//! What stands in for MPI in a build without the cargo feature `mpi`: there is no world to be part of.

use crate::launched::Launched;
use crate::{Error, Fabric, Roster, Server, Shape, Transport, Worker};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// The ranks that a launcher started: never, in this build.
pub struct World(Infallible);

impl World {
    /// Finds out whether a launcher started this process, as one of several.
    ///
    /// # Errors
    /// If so.
    pub fn join(_limit: Duration, _say: fn(&str)) -> Result<Option<World>, Error> {
        match Launched::here() {
            Some(Launched { size: Some(1), .. }) | None => Ok(None),
            Some(Launched { launcher, size, .. }) => Err(Error::WithoutMpi { launcher, size }),
        }
    }

    /// Leaves the last ranks out of what the others do.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn set_aside(self, _count: usize) -> Result<World, Error> {
        match self.0 {}
    }

    /// Whether this process was set aside.
    pub fn is_aside(&self) -> bool {
        match self.0 {}
    }

    /// This process's rank.
    pub fn rank(&self) -> usize {
        match self.0 {}
    }

    /// All ranks.
    pub fn roster(&self) -> &Arc<Roster> {
        match self.0 {}
    }

    /// What the MPI library says it is.
    pub fn library(&self) -> &str {
        match self.0 {}
    }

    /// Gives every rank every rank's text.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn exchange(&self, _text: &str) -> Result<Vec<String>, Error> {
        match self.0 {}
    }

    /// The same after work that may take one rank much longer than another.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn exchange_after_work(&self, _text: &str) -> Result<Vec<String>, Error> {
        match self.0 {}
    }

    /// How long a message takes there and back.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn round_trip(&self, _floats: usize, _times: u64) -> Result<Duration, Error> {
        match self.0 {}
    }

    /// What carries the messages of each rank.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn fabric(&self) -> Result<Vec<Fabric>, Error> {
        match self.0 {}
    }

    /// The transport to use, if `wanted` is none in particular the fastest.
    ///
    /// # Errors
    /// If the wanted one cannot be had.
    pub fn transport(&self, _wanted: Option<Transport>, _is_sync: bool) -> Result<Transport, Error> {
        match self.0 {}
    }

    /// Rank 0's end of a link to all workers.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn server(&self, _shape: &Shape, _transport: Transport) -> Result<Server, Error> {
        match self.0 {}
    }

    /// Another rank's end.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn worker(&self, _shape: &Shape, _transport: Transport) -> Result<Worker, Error> {
        match self.0 {}
    }

    /// Waits for all ranks and ends MPI.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn leave(self) -> Result<(), Error> {
        match self.0 {}
    }

    /// Ends the processes of all ranks.
    pub fn abort(&self) -> ! {
        match self.0 {}
    }
}
