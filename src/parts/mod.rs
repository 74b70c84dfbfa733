//! Directories of parts ⇄ records.
//!
//! A data set is a directory of files `part-00000`, `part-00001` …, each holding the next records of the whole, beside an
//! empty `_SUCCESS` that is written last and a `_manifest.json`; `csv` and `pickle` have a second such directory for labels.
//!
//! # Layout
//! - [`source`]: finding and reading parts, pairing features with labels
//! - [`output`]: writing directories that appear whole or not at all
//! - [`manifest`]: rows, bytes and checksum of each part

pub mod manifest;
pub mod output;
pub mod source;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The file that says that all parts of its directory are there.
const SUCCESS: &str = "_SUCCESS";

/// A format of data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text, features and labels in directories of their own; or label first, as TensorFlowOnSpark 2.x has it.
    Csv,
    /// Text, label and features on one line.
    Csv2,
    /// Pickled numpy arrays in SequenceFiles, features and labels in directories of their own.
    Pickle,
    /// `tf.train.Example` in TFRecords.
    TfRecord,
}

impl Format {
    /// Whether labels lie in a directory of their own.
    pub fn has_labels_apart(self) -> bool {
        matches!(self, Format::Csv | Format::Pickle)
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Format> {
        match name {
            "csv" => Ok(Format::Csv),
            "csv2" => Ok(Format::Csv2),
            "pickle" => Ok(Format::Pickle),
            "tf" | "tfr" => Ok(Format::TfRecord),
            _ => Err(Error::Invalid(format!("`{name}` is no format: use csv, csv2, pickle, tf or tfr"))),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Format::Csv => "csv",
            Format::Csv2 => "csv2",
            Format::Pickle => "pickle",
            Format::TfRecord => "tfr",
        })
    }
}

/// The rows of each of `parts` parts, by the rule of Spark's `parallelize`: it deals out batches of up to 1024 rows.
pub fn split(rows: usize, parts: usize) -> Vec<Range<usize>> {
    const BATCH_ROWS_MAX: usize = 1024;
    let batch = (rows / parts.max(1)).clamp(1, BATCH_ROWS_MAX);
    let blocks = rows.div_ceil(batch);
    let start = |part: usize| (part * blocks / parts * batch).min(rows);
    (0..parts).map(|part| start(part)..start(part + 1)).collect()
}
