//! Bytes ⇄ records, for every format of the data.
//!
//! A record is `width` features and, where the data is labelled, the index of one of `classes` classes. Readers take any
//! [`Read`](std::io::Read) and append to a [`Rows`] that the caller owns and reuses; their memory does not depend on the
//! length of the input. Writers are functions from a [`RowsView`] to a [`Write`](std::io::Write).
//!
//! # Layout
//! - [`idx`]: arrays of bytes, as MNIST comes
//! - [`csv`]: text, features and labels apart (`csv`), together (`csv2`) or label first (`csv` of TFoS 2.x)
//! - [`tfrecord`]: frames with checksums; [`example`]: `tf.train.Example` inside of them
//! - [`sequence_file`]: Hadoop's container; [`java_serial`]: `byte[][]` inside of its values; [`pickle`]: numpy arrays inside of these

mod csv_pixels;
mod element;
mod ndarray;
mod pickle_machine;
pub(crate) mod protobuf;
mod window;

pub mod csv;
pub mod example;
#[doc(hidden)]
pub mod fuzz;
pub mod idx;
pub mod java_serial;
pub mod pickle;
pub mod sequence_file;
pub mod tfrecord;

use crate::error::{Error, Result};
pub use element::Element;

/// The shape of a record; both numbers are at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowSchema {
    /// Features a record.
    pub width: usize,
    /// Classes a label tells apart.
    pub classes: usize,
}

impl RowSchema {
    /// The label `class`, or what was expected of it.
    fn class(&self, class: Option<i64>, found: &dyn std::fmt::Display) -> Result<u32, String> {
        class
            .and_then(|class| u32::try_from(class).ok())
            .filter(|&class| (class as usize) < self.classes)
            .ok_or_else(|| format!("expected a label below {}, found {found}", self.classes))
    }

    /// The class that a one-hot label names.
    ///
    /// # Errors
    /// Says what was expected, when `values` is not `classes` values of which one is 1 and the others 0.
    fn one_hot(&self, values: impl Iterator<Item = Option<f64>>) -> Result<u32, String> {
        let (mut count, mut class, mut valid) = (0, None, true);
        for value in values {
            match value {
                Some(0.0) => {}
                Some(1.0) if class.is_none() => class = Some(count),
                _ => valid = false,
            }
            count += 1;
        }
        match class {
            Some(class) if valid && count == self.classes => Ok(class as u32),
            _ if count != self.classes => {
                Err(format!("expected a one-hot label of {} columns, found {count}", self.classes))
            }
            _ => Err("expected a one-hot label: one 1, the others 0".into()),
        }
    }
}

/// Records read so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows<T> {
    /// `[rows, width]`, row-major.
    pub features: Vec<T>,
    /// One class a row, or empty where the data has no labels.
    pub labels: Vec<u32>,
}

impl<T: Element> Rows<T> {
    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.features.clear();
        self.labels.clear();
    }

    /// The records, to write them.
    pub fn view(&self) -> RowsView<'_, T> {
        RowsView { features: &self.features, labels: &self.labels }
    }

    /// Room for one more row of `width` features, all zero.
    fn extend_row(&mut self, width: usize) -> &mut [T] {
        let start = self.features.len();
        self.features.resize(start + width, T::default());
        &mut self.features[start..]
    }
}

/// Records to write, each of which has a label.
#[derive(Clone, Copy, Debug)]
pub struct RowsView<'a, T> {
    /// `[rows, width]`, row-major.
    pub features: &'a [T],
    /// One class a row.
    pub labels: &'a [u32],
}

impl<'a, T: Element> RowsView<'a, T> {
    /// The records in `range`.
    pub fn slice(&self, range: std::ops::Range<usize>, width: usize) -> RowsView<'a, T> {
        RowsView {
            features: &self.features[range.start * width..range.end * width],
            labels: &self.labels[range],
        }
    }

    /// Features and label of each record.
    fn records(&self, width: usize) -> impl Iterator<Item = (&'a [T], u32)> {
        assert_eq!(self.features.len(), self.labels.len() * width, "every record to write has its label");
        self.features.chunks_exact(width).zip(self.labels.iter().copied())
    }
}

/// Where in its file a record begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Where to begin to read: with a line, a frame, a value.
    pub bytes: u64,
    /// Lines, frames or values before that.
    pub units: u64,
    /// Records to skip from there.
    pub rows: u64,
}

/// A stream of records.
pub trait ReadRows<T> {
    /// Appends the next record to `rows`; false at the end of the data.
    ///
    /// # Errors
    /// Says line or record, what was expected and what was found. What `rows` then holds is unspecified.
    fn read_row(&mut self, rows: &mut Rows<T>) -> Result<bool>;

    /// Appends up to `limit` records to `rows`, and returns how many there were: fewer only at the end of the data.
    ///
    /// # Errors
    /// As [`read_row`](ReadRows::read_row).
    fn read_rows(&mut self, limit: usize, rows: &mut Rows<T>) -> Result<usize> {
        for count in 0..limit {
            if !self.read_row(rows)? {
                return Ok(count);
            }
        }
        Ok(limit)
    }

    /// Passes over the next record, looking no closer at it than is needed to find its end; false at the end of the data.
    ///
    /// # Errors
    /// As [`read_row`](ReadRows::read_row).
    fn skip_row(&mut self) -> Result<bool>;

    /// Where the next record begins.
    fn position(&self) -> Position;
}

/// An error at `unit` number `index`.
fn malformed(unit: &'static str, index: u64, what: impl Into<String>) -> Error {
    Error::Malformed { unit, index, what: what.into() }
}
