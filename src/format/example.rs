//! `tf.train.Example`: a record as a protobuf message, in a TFRecord.
//!
//! `Example {1: Features {1: map<string, Feature>}}`; a `Feature` is one of 1 `BytesList`, 2 `FloatList`, 3 `Int64List`, each
//! `{1: repeated value}`. Features lie under the key `image`, labels under `label`, as TensorFlowOnSpark names them: the label is
//! one-hot (2017) or a class (2.x). Values may be packed or not, keys come in any order, unknown fields are skipped.

use std::io::{self, Read, Write};

use super::protobuf::{CUT, Field, Message, field};
use super::tfrecord::{self, write_record};
use super::{Element, Position, ReadRows, RowSchema, Rows, RowsView, malformed};
use crate::error::Result;

const FEATURES_KEY: &str = "image";
const LABEL_KEY: &str = "label";

/// The field of `Feature` that holds a list, which says what its values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Byte strings.
    Bytes = 1,
    /// `f32`, little-endian when packed.
    Float = 2,
    /// Varints of 64 bits.
    Int64 = 3,
}

/// Reads records from TFRecords of examples.
pub struct Reader<R> {
    records: tfrecord::Reader<R>,
    schema: RowSchema,
}

impl<R: Read> Reader<R> {
    /// Reads `input`, whose examples are as `schema` says.
    pub fn new(input: R, schema: RowSchema) -> Self {
        Reader { records: tfrecord::Reader::new(input), schema }
    }

    /// The same input, which begins at `position` of its file.
    #[must_use]
    pub fn at(self, position: Position) -> Self {
        Reader { records: self.records.at(position), ..self }
    }
}

impl<T: Element, R: Read> ReadRows<T> for Reader<R> {
    fn read_row(&mut self, rows: &mut Rows<T>) -> Result<bool> {
        let Some(data) = self.records.next_record()? else { return Ok(false) };
        match read_example(data, self.schema, rows) {
            Ok(()) => Ok(true),
            Err(what) => Err(malformed("record", self.records.record(), what)),
        }
    }

    fn skip_row(&mut self) -> Result<bool> {
        self.records.skip_record()
    }

    fn position(&self) -> Position {
        self.records.position()
    }
}

fn read_example<T: Element>(data: &[u8], schema: RowSchema, rows: &mut Rows<T>) -> Result<(), String> {
    let (mut features, mut label) = (None, None);
    for_each_feature(data, |key, feature| match key {
        _ if key == FEATURES_KEY.as_bytes() => features = Some(feature),
        _ if key == LABEL_KEY.as_bytes() => label = Some(feature),
        _ => {}
    })?;
    let absent = |key| format!("expected a feature `{key}`, found none");
    let features = list_of(features.ok_or_else(|| absent(FEATURES_KEY))?)?;
    let label = list_of(label.ok_or_else(|| absent(LABEL_KEY))?)?;
    features.read_row(rows.extend_row(schema.width)).map_err(|what| format!("`{FEATURES_KEY}`: {what}"))?;
    rows.labels.push(label.read_label(schema).map_err(|what| format!("`{LABEL_KEY}`: {what}"))?);
    Ok(())
}

/// Calls `visit` with key and message of every feature of an example.
fn for_each_feature<'a>(data: &'a [u8], mut visit: impl FnMut(&'a [u8], &'a [u8])) -> Result<(), String> {
    let mut example = Message(data);
    while let Some(field) = example.next_field()? {
        let (1, Field::Bytes(features)) = field else { continue };
        let mut features = Message(features);
        while let Some(field) = features.next_field()? {
            let (1, Field::Bytes(entry)) = field else { continue };
            let (mut entry, mut key, mut feature) = (Message(entry), &[][..], &[][..]);
            while let Some(field) = entry.next_field()? {
                match field {
                    (1, Field::Bytes(bytes)) => key = bytes,
                    (2, Field::Bytes(bytes)) => feature = bytes,
                    _ => {}
                }
            }
            visit(key, feature);
        }
    }
    Ok(())
}

/// The list of a `Feature`: the last one, as protobuf's `oneof` has it.
fn list_of(feature: &[u8]) -> Result<List<'_>, String> {
    let (mut feature, mut list) = (Message(feature), None);
    while let Some(field) = feature.next_field()? {
        match field {
            (1, Field::Bytes(_)) => list = Some(List { kind: ListKind::Bytes, message: &[] }),
            (2, Field::Bytes(message)) => list = Some(List { kind: ListKind::Float, message }),
            (3, Field::Bytes(message)) => list = Some(List { kind: ListKind::Int64, message }),
            _ => {}
        }
    }
    list.ok_or_else(|| "expected a list of values, found none".into())
}

/// An `Int64List` or a `FloatList`.
struct List<'a> {
    kind: ListKind,
    message: &'a [u8],
}

/// One value of a list.
enum Number {
    Int(i64),
    Float(f32),
}

impl List<'_> {
    /// Reads `row.len()` features.
    fn read_row<T: Element>(&self, row: &mut [T]) -> Result<(), String> {
        if self.kind == ListKind::Int64
            && let Ok(Some((1, Field::Bytes(packed)))) = Message(self.message).next_field()
            && packed.as_ptr_range().end == self.message.as_ptr_range().end
            && T::unpack_varints(packed, row)
        {
            return Ok(());
        }
        let mut count = 0;
        self.for_each(|number| {
            if let Some(value) = row.get_mut(count) {
                *value = match number {
                    Number::Int(value) => T::from_i64(value),
                    Number::Float(value) => T::from_f64(value.into()),
                }
                .ok_or_else(|| format!("value {}: expected {}", count + 1, T::RANGE))?;
            }
            count += 1;
            Ok(())
        })?;
        if count == row.len() { Ok(()) } else { Err(format!("expected {} values, found {count}", row.len())) }
    }

    /// The class that a one-hot label, or a class by itself, names.
    fn read_label(&self, schema: RowSchema) -> Result<u32, String> {
        let (mut values, mut count) = (Vec::with_capacity(schema.classes), 0);
        self.for_each(|number| {
            count += 1;
            if values.len() < schema.classes {
                values.push(match number {
                    Number::Int(value) => value as f64,
                    Number::Float(value) => value.into(),
                });
            }
            Ok(())
        })?;
        match values[..] {
            [class] if schema.classes > 1 => {
                schema.class((class.fract() == 0.0).then_some(class as i64), &class)
            }
            _ if count != schema.classes => {
                Err(format!("expected 1 or {} values, found {count}", schema.classes))
            }
            _ => schema.one_hot(values.into_iter().map(Some)),
        }
    }

    /// Calls `visit` with every value, packed or not.
    fn for_each(&self, mut visit: impl FnMut(Number) -> Result<(), String>) -> Result<(), String> {
        if self.kind == ListKind::Bytes {
            return Err("expected an Int64List or a FloatList, found a BytesList".into());
        }
        let mut list = Message(self.message);
        while let Some(field) = list.next_field()? {
            match (self.kind, field) {
                (ListKind::Int64, (1, Field::Varint(value))) => visit(Number::Int(value as i64))?,
                (ListKind::Float, (1, Field::Fixed32(bits))) => visit(Number::Float(f32::from_bits(bits)))?,
                (ListKind::Int64, (1, Field::Bytes(packed))) => {
                    let mut packed = Message(packed);
                    while !packed.0.is_empty() {
                        visit(Number::Int(packed.varint()? as i64))?;
                    }
                }
                (ListKind::Float, (1, Field::Bytes(packed))) => {
                    let (values, []) = packed.as_chunks() else { return Err(CUT.into()) };
                    values.iter().try_for_each(|&value| visit(Number::Float(f32::from_le_bytes(value))))?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes records as the seed of 2017 did: features as they are, the label one-hot.
///
/// # Errors
/// Those of `out`.
pub fn write<T: Element>(rows: RowsView<'_, T>, schema: RowSchema, out: &mut dyn Write) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(256 << 10, out);
    let mut packed = Vec::new();
    for (row, label) in rows.records(schema.width) {
        packed.clear();
        let kind = T::put_list(row, &mut packed);
        let mut features = feature(FEATURES_KEY, kind, &packed);
        packed.clear();
        packed.resize(schema.classes, 0);
        packed[label as usize] = 1;
        features.extend(feature(LABEL_KEY, ListKind::Int64, &packed));
        write_record(&field(1, &features), &mut out)?;
    }
    out.flush()
}

/// One entry of the map of features.
fn feature(key: &str, kind: ListKind, packed: &[u8]) -> Vec<u8> {
    let mut entry = field(1, key.as_bytes());
    entry.extend(field(2, &field(kind as u8, &field(1, packed))));
    field(1, &entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::protobuf::put_varint;

    const SCHEMA: RowSchema = RowSchema { width: 4, classes: 10 };

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn example(image: Vec<u8>, label: Vec<u8>) -> Vec<u8> {
        field(
            1,
            &[
                field(1, &[field(1, b"image"), field(2, &image)].concat()),
                field(1, &[field(1, b"label"), field(2, &label)].concat()),
            ]
            .concat(),
        )
    }

    fn ints(values: &[i64]) -> Vec<u8> {
        let mut packed = Vec::new();
        values.iter().for_each(|&value| put_varint(value as u64, &mut packed));
        field(3, &field(1, &packed))
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        field(2, &field(1, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>()))
    }

    fn read<T: Element>(data: &[u8]) -> Result<Rows<T>, String> {
        let mut rows = Rows::default();
        read_example(data, SCHEMA, &mut rows).map(|()| rows)
    }

    #[test]
    fn writes_and_reads_the_vector_of_the_seed() {
        let rows = Rows { features: vec![0u8, 127, 128, 255], labels: vec![5] };
        let mut file = Vec::new();
        write(rows.view(), SCHEMA, &mut file).unwrap();
        let framed = "300000000000000095f5d05f0a2e0a130a05696d616765120a1a080a06007f8001ff010a170a056c6162656c120e1a0c0a0a00000000000100000000a5fa36ac";
        assert_eq!(file, bytes(framed));
        let mut read = Rows::default();
        let mut reader = Reader::new(file.as_slice(), SCHEMA);
        assert!(reader.read_row(&mut read).unwrap() && !reader.read_row(&mut read).unwrap());
        assert_eq!(read, rows);
    }

    #[test]
    fn negative_numbers_take_ten_bytes() {
        let mut packed = Vec::new();
        put_varint(-1i64 as u64, &mut packed);
        assert_eq!(
            field(1, &feature("x", ListKind::Int64, &packed)),
            bytes("0a150a130a0178120e1a0c0a0affffffffffffffffff01")
        );
    }

    #[test]
    fn reads_labels_of_both_versions_values_unpacked_and_floats() {
        let one_hot = ints(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        let unpacked = field(3, &[8, 9, 8, 0, 8, 0x80, 1, 8, 1]);
        let unpacked_float = field(2, &[13, 0, 0, 0x20, 0x41].repeat(4));
        let row = |features: [u8; 4], class| Ok(Rows { features: features.to_vec(), labels: vec![class] });
        assert_eq!(read(&example(ints(&[1, 200, 3, 4]), one_hot)), row([1, 200, 3, 4], 3));
        assert_eq!(read(&example(unpacked, ints(&[9]))), row([9, 0, 128, 1], 9));
        assert_eq!(read(&example(unpacked_float, floats(&[2.0]))), row([10; 4], 2));
        let unknown =
            [field(9, b"x"), vec![0x51, 1, 2, 3, 4, 5, 6, 7, 8], example(ints(&[7; 4]), ints(&[0]))].concat();
        assert_eq!(read(&unknown), row([7; 4], 0));
        let floats = read::<f32>(&example(floats(&[0.5, -1.0, 2.0, 3.0]), ints(&[0]))).unwrap();
        assert_eq!(floats.features, [0.5, -1.0, 2.0, 3.0]);
    }

    #[test]
    fn bad_examples_say_what_was_expected() {
        let label = || ints(&[3]);
        for (data, message) in [
            (vec![], "expected a feature `image`, found none"),
            (example(ints(&[1, 2, 3]), label()), "`image`: expected 4 values, found 3"),
            (example(ints(&[1, 2, 3, 4, 5]), label()), "`image`: expected 4 values, found 5"),
            (example(ints(&[1, 2, 3, 256]), label()), "`image`: value 4: expected an integer from 0 to 255"),
            (example(ints(&[1, -2, 3, 4]), label()), "`image`: value 2: expected an integer from 0 to 255"),
            (
                example(field(1, b""), label()),
                "`image`: expected an Int64List or a FloatList, found a BytesList",
            ),
            (example(vec![], label()), "expected a list of values, found none"),
            (example(ints(&[0; 4]), ints(&[10])), "`label`: expected a label below 10, found 10"),
            (
                example(ints(&[0; 4]), ints(&[0; 10])),
                "`label`: expected a one-hot label: one 1, the others 0",
            ),
            (example(ints(&[0; 4]), ints(&[0; 9])), "`label`: expected 1 or 10 values, found 9"),
            (vec![0x0a, 200, 1], CUT),
            (vec![0xff; 11], "expected a varint, found more than 10 bytes of one"),
            (vec![0x0b], "expected a tf.train.Example, found a field of wire type 3"),
        ] {
            assert_eq!(read::<u8>(&data).unwrap_err(), message);
        }
    }
}
