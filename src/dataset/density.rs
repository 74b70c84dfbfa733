//! How many of a data set's bytes are not 0: found by a sample, the same one whether all records lie in memory or come one run after another.

use super::{Dataset, Features};

/// Records of a sample at most.
const SAMPLE: usize = 500;

/// Counts over records that are added one run after another.
pub(crate) struct Density {
    /// Every so many records one is counted, from the first on.
    step: usize,
    seen: usize,
    nonzeros: u64,
    bytes: u64,
}

impl Density {
    /// For `records` records.
    pub fn new(records: usize) -> Density {
        Density { step: records.div_ceil(SAMPLE).max(1), seen: 0, nonzeros: 0, bytes: 0 }
    }

    /// Adds records.
    pub fn add(&mut self, records: &Dataset) {
        let first = self.seen.next_multiple_of(self.step) - self.seen;
        self.seen += records.len();
        let Features::U8 { bytes, .. } = records.features() else { return };
        for row in bytes.chunks_exact(records.width()).skip(first).step_by(self.step) {
            self.nonzeros += row.iter().filter(|&&byte| byte != 0).count() as u64;
            self.bytes += row.len() as u64;
        }
    }

    /// Per cent of the bytes that are not 0, rounded up.
    pub fn percent(&self) -> u8 {
        (100 * self.nonzeros).div_ceil(self.bytes.max(1)) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn records(bytes: &[u8]) -> Dataset {
        let features = Features::U8 { bytes: bytes.to_vec().into(), scale: 1.0 };
        Dataset::from_features(Path::new("bytes"), features, &[10], 2).unwrap()
    }

    #[test]
    fn it_is_the_same_however_records_are_cut_into_runs() {
        let bytes: Vec<u8> = (0..12_340_usize).map(|i| if i * i % 7 < 3 { 1 } else { 0 }).collect();
        let percent = |records_at_once: usize| {
            let mut density = Density::new(bytes.len() / 10);
            bytes.chunks(10 * records_at_once).for_each(|run| density.add(&records(run)));
            assert_eq!(density.bytes, 4120, "every third record");
            density.percent()
        };
        let whole = percent(bytes.len());
        for records_at_once in [1, 2, 5, 100] {
            assert_eq!(percent(records_at_once), whole);
        }
    }

    #[test]
    fn it_is_rounded_up() {
        let percent = |bytes: &[u8]| {
            let mut density = Density::new(bytes.len() / 10);
            density.add(&records(bytes));
            density.percent()
        };
        assert_eq!(percent(&[0; 20]), 0);
        assert_eq!(percent(&[1; 20]), 100);
        let one = [[0; 999].as_slice(), &[1]].concat();
        assert_eq!(percent(&one), 1);
    }
}
