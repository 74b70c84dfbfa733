//! The frames of the data channel, all numbers little endian:
//!
//! ```text
//! to the worker   1 ‖ lease u64 ‖ first u64 ‖ count u32 ‖ records     a portion
//!                 2                                                   no more will come
//! to the driver   1 ‖ lease u64 ‖ digest 32 ‖ results u32 ‖ results   a portion is used
//!                 2                                                   no more is wanted
//!                 4 ‖ step u64                                        the records of this step are wanted
//!                 3 ‖ records u64 ‖ digest 32                         all that was used, the last frame
//! ```

use super::ledger::Tally;
use crate::error::Error;

/// The largest frame, in bytes.
pub const FRAME_MAX: usize = 64 << 20;

/// From the driver to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToWorker<'a> {
    /// Records to use.
    Portion {
        /// The lease's number.
        lease: u64,
        /// Place of the first record in the epoch.
        first: u64,
        /// Number of records.
        count: u32,
        /// The records.
        records: &'a [u8],
    },
    /// No more will come.
    End,
}

/// From a worker to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToFeeder<'a> {
    /// A portion is used.
    Used {
        /// The lease's number.
        lease: u64,
        /// The portion's digest, as the worker has computed it.
        digest: [u8; 32],
        /// Number of results; in training there are none.
        count: u32,
        /// The results.
        results: &'a [u8],
    },
    /// No more is wanted.
    Enough,
    /// The records of a step are wanted; in synchronous training those of all later ones as well.
    Want(u64),
    /// All that the worker has used.
    Total(Tally),
}

impl<'a> ToWorker<'a> {
    /// The frame as the parts that are to be sent one after the other.
    pub fn encode(&self) -> (Vec<u8>, &'a [u8]) {
        match *self {
            ToWorker::Portion { lease, first, count, records } => {
                let place = [lease.to_le_bytes(), first.to_le_bytes()].concat();
                ([&[1], &place[..], &count.to_le_bytes()].concat(), records)
            }
            ToWorker::End => (vec![2], &[]),
        }
    }

    /// A frame's meaning.
    ///
    /// # Errors
    /// If it has none.
    pub fn decode(frame: &'a [u8]) -> Result<ToWorker<'a>, Error> {
        let parse = || match frame.split_first()? {
            (1, rest) => {
                let (lease, rest) = rest.split_first_chunk()?;
                let (first, rest) = rest.split_first_chunk()?;
                let (count, records) = rest.split_first_chunk()?;
                let (lease, first) = (u64::from_le_bytes(*lease), u64::from_le_bytes(*first));
                Some(ToWorker::Portion { lease, first, count: u32::from_le_bytes(*count), records })
            }
            (2, []) => Some(ToWorker::End),
            _ => None,
        };
        parse().ok_or_else(|| nonsense("the feeder", frame))
    }
}

impl<'a> ToFeeder<'a> {
    /// The frame as the parts that are to be sent one after the other.
    pub fn encode(&self) -> (Vec<u8>, &'a [u8]) {
        match *self {
            ToFeeder::Used { lease, digest, count, results } => {
                ([&[1], &lease.to_le_bytes()[..], &digest, &count.to_le_bytes()].concat(), results)
            }
            ToFeeder::Enough => (vec![2], &[]),
            ToFeeder::Want(step) => ([&[4], &step.to_le_bytes()[..]].concat(), &[]),
            ToFeeder::Total(Tally { records, digest }) => {
                ([&[3], &records.to_le_bytes()[..], &digest].concat(), &[])
            }
        }
    }

    /// A frame's meaning.
    ///
    /// # Errors
    /// If it has none.
    pub fn decode(frame: &'a [u8]) -> Result<ToFeeder<'a>, Error> {
        let parse = || match frame.split_first()? {
            (1, rest) => {
                let (lease, rest) = rest.split_first_chunk()?;
                let (&digest, rest) = rest.split_first_chunk()?;
                let (count, results) = rest.split_first_chunk()?;
                let (lease, count) = (u64::from_le_bytes(*lease), u32::from_le_bytes(*count));
                Some(ToFeeder::Used { lease, digest, count, results })
            }
            (2, []) => Some(ToFeeder::Enough),
            (4, step) => Some(ToFeeder::Want(u64::from_le_bytes(step.try_into().ok()?))),
            (3, rest) => {
                let (records, rest) = rest.split_first_chunk()?;
                let digest = rest.try_into().ok()?;
                Some(ToFeeder::Total(Tally { records: u64::from_le_bytes(*records), digest }))
            }
            _ => None,
        };
        parse().ok_or_else(|| nonsense("a worker", frame))
    }
}

fn nonsense(peer: &str, frame: &[u8]) -> Error {
    let found = format!("a data frame of {} bytes that means nothing", frame.len());
    Error::Protocol { peer: peer.to_owned(), found }
}
