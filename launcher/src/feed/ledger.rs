//! Which records of an epoch are with whom, and which have been used.

use crate::error::Error;
use std::collections::BTreeMap;

/// How many records, and which: the sum without order of their portions' digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records.
    pub records: u64,
    /// The exclusive or of the digests of all portions.
    pub digest: [u8; 32],
}

impl Tally {
    /// Adds a portion.
    pub fn add(&mut self, count: u32, digest: &[u8; 32]) {
        self.records += u64::from(count);
        self.digest.iter_mut().zip(digest).for_each(|(sum, byte)| *sum ^= byte);
    }

    /// The digest as hexadecimal digits.
    pub fn hex(&self) -> String {
        hex::encode(self.digest)
    }
}

/// BLAKE3 of a portion's bytes and place.
pub fn digest(first: u64, count: u32, bytes: &[u8]) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(bytes).update(&first.to_le_bytes()).update(&count.to_le_bytes());
    hash.finalize().into()
}

/// A portion that a worker holds.
struct Lease {
    worker: usize,
    first: u64,
    count: u32,
    digest: [u8; 32],
}

/// The books of one epoch.
#[derive(Default)]
pub struct Ledger {
    leases: BTreeMap<u64, Lease>,
    issued: u64,
    /// Disjoint ranges of used records: first → one past the last.
    used: BTreeMap<u64, u64>,
    /// What each worker has used.
    tallies: BTreeMap<usize, Tally>,
}

impl Ledger {
    /// Lends a portion to a worker; returns the lease's number.
    pub fn lend(&mut self, worker: usize, first: u64, count: u32, bytes: &[u8]) -> u64 {
        let lease = self.issued;
        self.issued += 1;
        self.leases.insert(lease, Lease { worker, first, count, digest: digest(first, count, bytes) });
        lease
    }

    /// A worker has used what a lease stands for; `results` of its records' results have come with it, if there are any.
    /// Returns the portion's first record.
    ///
    /// # Errors
    /// If it does not hold that lease, has used other bytes, or gives another number of results than there are records.
    pub fn used(
        &mut self,
        worker: usize,
        lease: u64,
        digest: &[u8; 32],
        results: Option<u32>,
    ) -> Result<u64, Error> {
        let held = self.leases.remove(&lease).filter(|held| held.worker == worker);
        let wrong = |found: String| Error::Protocol { peer: format!("worker {worker}"), found };
        let held =
            held.ok_or_else(|| wrong(format!("a receipt for lease {lease}, which it does not hold")))?;
        let Lease { first, count, .. } = held;
        let range = first..first + u64::from(count);
        if held.digest != *digest {
            return Err(wrong(format!("a receipt for other records than {range:?}")));
        }
        if let Some(results) = results.filter(|&results| results != count) {
            return Err(wrong(format!("{results} results for the {count} records {range:?}")));
        }
        let before = self.used.range(..range.end).next_back();
        if before.is_some_and(|(_, &end)| end > range.start && count > 0) {
            return Err(wrong(format!("records {range:?}, of which some have been used before")));
        }
        self.mark(range.start, range.end);
        self.tallies.entry(worker).or_default().add(count, digest);
        Ok(first)
    }

    /// Joins a range to its neighbours, so that a whole epoch is one entry.
    fn mark(&mut self, first: u64, end: u64) {
        if first == end {
            return;
        }
        let end = self.used.remove(&end).unwrap_or(end);
        match self.used.range_mut(..first).next_back().filter(|(_, last)| **last == first) {
            Some((_, last)) => *last = end,
            None => drop(self.used.insert(first, end)),
        }
    }

    /// A worker is lost: its leases are void. What it has used before counts.
    pub fn lost(&mut self, worker: usize) -> Vec<u64> {
        let of_worker = |(&number, lease): (&u64, &Lease)| (lease.worker == worker).then_some(number);
        let void: Vec<u64> = self.leases.iter().filter_map(of_worker).collect();
        self.leases.retain(|_, lease| lease.worker != worker);
        void
    }

    /// Portions that a worker holds.
    pub fn held(&self, worker: usize) -> usize {
        self.leases.values().filter(|lease| lease.worker == worker).count()
    }

    /// Whether nothing is lent.
    pub fn is_settled(&self) -> bool {
        self.leases.is_empty()
    }

    /// Compares what a worker says it has used with the books.
    ///
    /// # Errors
    /// If they differ.
    pub fn compare(&self, worker: usize, said: &Tally) -> Result<(), Error> {
        let booked = self.tallies.get(&worker).copied().unwrap_or_default();
        if booked == *said {
            return Ok(());
        }
        let found = format!(
            "a total of {} records, digest {}, where the ledger has {} records, digest {}",
            said.records,
            said.hex(),
            booked.records,
            booked.hex()
        );
        Err(Error::Protocol { peer: format!("worker {worker}"), found })
    }

    /// Checks that what has been used are all records from `first` to some last one.
    ///
    /// # Errors
    /// If there is a gap.
    pub fn check_run_from(&self, first: u64) -> Result<(), Error> {
        let mut runs = self.used.iter();
        match (runs.next(), runs.next()) {
            (None, _) => Ok(()),
            (Some((&begin, _)), None) if begin == first => Ok(()),
            _ => {
                let found = format!("receipts for records {:?}, which is no run from {first} on", self.used);
                Err(Error::Protocol { peer: "the workers".to_owned(), found })
            }
        }
    }

    /// All that has been used. If the epoch is `complete` (its number of records), that must be all of it, without a gap.
    ///
    /// # Errors
    /// If records are missing.
    pub fn close(&self, complete: Option<u64>) -> Result<Tally, Error> {
        let mut all = Tally::default();
        for tally in self.tallies.values() {
            all.records += tally.records;
            all.digest.iter_mut().zip(&tally.digest).for_each(|(sum, byte)| *sum ^= byte);
        }
        let whole = |records: u64| match records {
            0 => self.used.is_empty(),
            _ => self.used.len() == 1 && self.used.get(&0) == Some(&records),
        };
        match complete.filter(|&records| !whole(records)) {
            None => Ok(all),
            Some(records) => Err(Error::Protocol {
                peer: "the workers".to_owned(),
                found: format!("receipts for {} of {records} records", all.records),
            }),
        }
    }
}
