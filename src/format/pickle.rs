//! Records as PySpark's `saveAsPickleFile` writes them: a SequenceFile of Java `byte[][]` of pickled lists of numpy arrays.
//!
//! Features and labels lie in files of their own: features as `uint8` (or `float32`) of `[width]`, labels one-hot as
//! `float64` of `[classes]`.

use std::io::{self, Read, Write};

use super::ndarray::{Array, Number};
use super::pickle_machine::read_rows;
use super::sequence_file;
use super::{Element, Position, ReadRows, RowSchema, Rows, RowsView, java_serial, malformed};
use crate::error::Result;

/// Rows of a pickled list, as `saveAsPickleFile` batches them by default.
const ROWS_PER_PICKLE: usize = 10;
/// Pickles of a value, as Spark's `saveAsObjectFile` groups them.
const PICKLES_PER_VALUE: usize = 10;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Arrays of `width` features.
    Features,
    /// One-hot arrays of `classes`.
    Labels,
}

/// Reads features or labels.
pub struct Reader<R, T> {
    values: sequence_file::Reader<R>,
    content: Content,
    schema: RowSchema,
    /// The rows of the last value, of which the first `given` were given out.
    rows: Rows<T>,
    given: usize,
    /// Where that value begins.
    begin: Position,
}

impl<R: Read, T: Element> Reader<R, T> {
    /// Reads `input`, whose arrays are as `content` and `schema` say.
    pub fn new(input: R, content: Content, schema: RowSchema) -> Self {
        let (rows, begin) = (Rows::default(), Position::default());
        Reader { values: sequence_file::Reader::new(input), content, schema, rows, given: 0, begin }
    }

    /// The same input: the header of a file, and then what begins at `position` of it.
    #[must_use]
    pub fn at(self, position: Position) -> Self {
        Reader { values: self.values.at(position), ..self }
    }

    /// Makes a record pending; false at the end of the data.
    fn fill(&mut self) -> Result<bool> {
        while self.given == self.pending() {
            self.begin = self.values.position();
            let Some(value) = self.values.next_value()? else { return Ok(false) };
            self.rows.clear();
            self.given = 0;
            if let Err(what) = read_value(value, self.content, self.schema, &mut self.rows) {
                return Err(malformed("value", self.values.value(), what));
            }
        }
        Ok(true)
    }

    fn pending(&self) -> usize {
        match self.content {
            Content::Features => self.rows.features.len() / self.schema.width,
            Content::Labels => self.rows.labels.len(),
        }
    }
}

impl<R: Read, T: Element> ReadRows<T> for Reader<R, T> {
    fn read_row(&mut self, rows: &mut Rows<T>) -> Result<bool> {
        if !self.fill()? {
            return Ok(false);
        }
        let (given, width) = (self.given, self.schema.width);
        match self.content {
            Content::Features => {
                rows.features.extend_from_slice(&self.rows.features[given * width..][..width])
            }
            Content::Labels => rows.labels.push(self.rows.labels[given]),
        }
        self.given += 1;
        Ok(true)
    }

    fn skip_row(&mut self) -> Result<bool> {
        let read = self.fill()?;
        self.given += usize::from(read);
        Ok(read)
    }

    fn position(&self) -> Position {
        let is_between = self.given == self.pending();
        if is_between { self.values.position() } else { Position { rows: self.given as u64, ..self.begin } }
    }
}

fn read_value<T: Element>(
    value: &[u8],
    content: Content,
    schema: RowSchema,
    rows: &mut Rows<T>,
) -> Result<(), String> {
    for (index, pickle) in java_serial::read(value)?.into_iter().enumerate() {
        let arrays = read_rows(pickle).map_err(|what| format!("pickle {}: {what}", index + 1))?;
        for (row, array) in arrays.iter().enumerate() {
            read_array(array, content, schema, rows)
                .map_err(|what| format!("pickle {}, row {}: {what}", index + 1, row + 1))?;
        }
    }
    Ok(())
}

fn read_array<T: Element>(
    array: &Array,
    content: Content,
    schema: RowSchema,
    rows: &mut Rows<T>,
) -> Result<(), String> {
    match content {
        Content::Features => array.read_features(schema.width, &mut rows.features),
        Content::Labels => {
            rows.labels.push(schema.one_hot(array.numbers().map(|number| Some(Number::as_f64(number))))?);
            Ok(())
        }
    }
}

/// Writes features, so that `sc.pickleFile` reads them.
///
/// # Errors
/// Those of `out`.
pub fn write_features<T: Element>(
    rows: RowsView<'_, T>,
    schema: RowSchema,
    out: &mut dyn Write,
) -> io::Result<()> {
    write(rows, schema, out, T::NUMPY, schema.width, |row, _, data| {
        row.iter().for_each(|value| value.put_bytes(data))
    })
}

/// Writes labels, one-hot, so that `sc.pickleFile` reads them.
///
/// # Errors
/// Those of `out`.
pub fn write_labels<T: Element>(
    rows: RowsView<'_, T>,
    schema: RowSchema,
    out: &mut dyn Write,
) -> io::Result<()> {
    write(rows, schema, out, "f8", schema.classes, |_, label, data| {
        (0..schema.classes as u32)
            .for_each(|class| data.extend(f64::from(u8::from(class == label)).to_le_bytes()));
    })
}

fn write<T: Element>(
    rows: RowsView<'_, T>,
    schema: RowSchema,
    out: &mut dyn Write,
    dtype: &str,
    length: usize,
    put_data: impl Fn(&[T], u32, &mut Vec<u8>),
) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(256 << 10, out);
    let mut records = rows.records(schema.width).peekable();
    let mut data = Vec::new();
    let mut pickle = || {
        records.peek()?;
        let mut pickle = Pickle::of_arrays(dtype, length);
        for (row, label) in records.by_ref().take(ROWS_PER_PICKLE) {
            data.clear();
            put_data(row, label, &mut data);
            pickle.append(&data);
        }
        Some(pickle.finish())
    };
    let values = std::iter::from_fn(|| {
        let pickles: Vec<Vec<u8>> = std::iter::from_fn(&mut pickle).take(PICKLES_PER_VALUE).collect();
        (!pickles.is_empty()).then(|| java_serial::write(&pickles))
    });
    sequence_file::write(values, &mut out)?;
    out.flush()
}

/// A list of arrays of one type and length, as a program of protocol 3.
///
/// Protocol 3 is the first with bytes; `numpy.core.multiarray._reconstruct` is known to every numpy, 2 included, and makes
/// arrays of their own that may be written to.
struct Pickle<'a> {
    program: Vec<u8>,
    dtype: &'a str,
    length: u32,
    /// No array was appended yet: the memo is still empty.
    first: bool,
}

impl<'a> Pickle<'a> {
    /// An empty list.
    fn of_arrays(dtype: &'a str, length: usize) -> Self {
        Pickle { program: b"\x80\x03](".to_vec(), dtype, length: length as u32, first: true }
    }

    /// Appends the array of these bytes.
    fn append(&mut self, data: &[u8]) {
        self.constant(0, b"cnumpy.core.multiarray\n_reconstruct\n");
        self.constant(1, b"cnumpy\nndarray\nK\x00\x85C\x01b\x87");
        self.program.extend(b"R(K\x01J");
        self.program.extend(self.length.to_le_bytes());
        self.program.push(0x85);
        self.constant(2, &dtype_program(self.dtype));
        self.program.extend(b"\x89B");
        self.program.extend((data.len() as u32).to_le_bytes());
        self.program.extend(data);
        self.program.extend(b"tb");
        self.first = false;
    }

    /// Runs `program` and remembers its value under `key`, or remembers the value of the first time.
    fn constant(&mut self, key: u8, program: &[u8]) {
        if self.first {
            self.program.extend(program);
            self.program.extend([b'q', key]);
        } else {
            self.program.extend([b'h', key]);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.program.extend(b"e.");
        self.program
    }
}

/// `numpy.dtype(name, False, True)` with its order of bytes filled in.
fn dtype_program(name: &str) -> Vec<u8> {
    let order = if name == "u1" { b"|" } else { b"<" };
    let (call, state) =
        (b"\x89\x88\x87R(K\x03X\x01\x00\x00\x00", b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb");
    [b"cnumpy\ndtype\nX\x02\x00\x00\x00", name.as_bytes(), call, order, state].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: RowSchema = RowSchema { width: 4, classes: 3 };

    fn read<T: Element>(file: &[u8], content: Content) -> Result<Rows<T>> {
        let mut rows = Rows::default();
        let mut reader = Reader::new(file, content, SCHEMA);
        while reader.read_row(&mut rows)? {}
        Ok(rows)
    }

    fn file_of(pickle: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        sequence_file::write(std::iter::once(java_serial::write(&[pickle.to_vec()])), &mut file).unwrap();
        file
    }

    #[test]
    fn reads_what_it_writes() {
        for count in [0, 1, 9, 10, 11, 99, 100, 101, 253] {
            let rows = Rows {
                features: (0..count * 4).map(|i| (i * 7) as u8).collect(),
                labels: (0..count).map(|i| i as u32 % 3).collect(),
            };
            let (mut features, mut labels) = (Vec::new(), Vec::new());
            write_features(rows.view(), SCHEMA, &mut features).unwrap();
            write_labels(rows.view(), SCHEMA, &mut labels).unwrap();
            assert_eq!(read::<u8>(&features, Content::Features).unwrap().features, rows.features);
            assert_eq!(read::<u8>(&labels, Content::Labels).unwrap().labels, rows.labels);

            let rows = Rows {
                features: rows.features.iter().map(|&x| f32::from(x) - 0.5).collect(),
                labels: rows.labels,
            };
            features.clear();
            write_features(rows.view(), SCHEMA, &mut features).unwrap();
            assert_eq!(read::<f32>(&features, Content::Features).unwrap().features, rows.features);
        }
    }

    #[test]
    fn bad_rows_are_named() {
        let error = |pickle: &[u8], content| read::<u8>(&file_of(pickle), content).unwrap_err().to_string();
        assert_eq!(
            error(b"](](K\x01ee.", Content::Features),
            "value 1: pickle 1, row 1: expected 4 values, found 1"
        );
        let large = b"](](K\x01K\x02K\x03M\x00\x01ee.";
        let message = "value 1: pickle 1, row 1: value 4: expected an integer from 0 to 255";
        assert_eq!(error(large, Content::Features), message);
        let message = "value 1: pickle 1, row 1: expected a one-hot label of 3 columns, found 4";
        assert_eq!(error(large, Content::Labels), message);
        assert!(
            error(b"cos\nsystem\n.", Content::Features)
                .starts_with("value 1: pickle 1: byte 0 of the pickle: the global")
        );
    }
}
