//! Records as lines of text.
//!
//! | layout | line |
//! |---|---|
//! | [`Layout::Features`] | `0,12,255` |
//! | [`Layout::LabelFirst`] | `5,0,12,255`, as TensorFlowOnSpark 2.x writes it |
//! | [`Layout::LabelBar`] | `5\|0,12,255` (one bar, no backslash): csv2 |
//! | [`Layout::OneHot`] | `0.0,1.0,0.0`: a label alone, as Python prints floats |
//!
//! Lines end in `\n` or `\r\n`; the last one may end with the file.

use std::fmt;
use std::io::{self, Read, Write};

use super::window::Window;
use super::{Element, Position, ReadRows, RowSchema, Rows, RowsView, malformed};
use crate::error::Result;

/// Text is written in pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;
/// No number is spelled longer than this; a longer line has no line ends where they belong.
const COLUMN_BYTES_MAX: usize = 32;

/// What a line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Features.
    Features,
    /// Features, or label and features: the first line's number of columns tells.
    FeaturesOrLabelFirst,
    /// The label's class, a comma, features.
    LabelFirst,
    /// The label's class, a bar, features.
    LabelBar,
    /// A one-hot label.
    OneHot,
}

/// Reads records from lines.
pub struct Reader<R> {
    window: Window<R>,
    layout: Layout,
    schema: RowSchema,
    /// Lines read so far.
    line: u64,
}

impl<R: Read> Reader<R> {
    /// Reads `input`, whose lines are as `layout` and `schema` say.
    pub fn new(input: R, layout: Layout, schema: RowSchema) -> Self {
        Reader { window: Window::new(input), layout, schema, line: 0 }
    }

    /// The same input, which begins at `position` of its file.
    #[must_use]
    pub fn at(self, position: Position) -> Self {
        Reader { window: self.window.at(position.bytes), line: position.units, ..self }
    }

    /// Length of the next line without its `\n`, and whether there is one; `None` at the end of the input.
    fn next_line(&mut self) -> Result<Option<(usize, bool)>> {
        let limit = COLUMN_BYTES_MAX * (self.schema.width + self.schema.classes + 2);
        let mut searched = 0;
        loop {
            let bytes = self.window.bytes();
            if let Some(at) = memchr::memchr(b'\n', &bytes[searched..]) {
                return Ok(Some((searched + at, true)));
            }
            searched = bytes.len();
            if searched > limit {
                let what =
                    format!("expected {} columns, found no line end in {searched} bytes", self.schema.width);
                return Err(malformed("line", self.line + 1, what));
            }
            if !self.window.fill()? {
                return Ok((searched > 0).then_some((searched, false)));
            }
        }
    }
}

impl<T: Element, R: Read> ReadRows<T> for Reader<R> {
    fn read_row(&mut self, rows: &mut Rows<T>) -> Result<bool> {
        let Some((length, ended)) = self.next_line()? else { return Ok(false) };
        self.line += 1;
        let line = &self.window.take(length + usize::from(ended))[..length];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.layout == Layout::FeaturesOrLabelFirst {
            let labelled = columns(line) == self.schema.width + 1;
            self.layout = if labelled { Layout::LabelFirst } else { Layout::Features };
        }
        match parse_line(line, self.layout, self.schema, rows) {
            Ok(()) => Ok(true),
            Err(what) => Err(malformed("line", self.line, what)),
        }
    }

    fn skip_row(&mut self) -> Result<bool> {
        let Some((length, ended)) = self.next_line()? else { return Ok(false) };
        self.line += 1;
        self.window.take(length + usize::from(ended));
        Ok(true)
    }

    fn position(&self) -> Position {
        Position { bytes: self.window.position(), units: self.line, rows: 0 }
    }
}

fn parse_line<T: Element>(
    line: &[u8],
    layout: Layout,
    schema: RowSchema,
    rows: &mut Rows<T>,
) -> Result<(), String> {
    match layout {
        Layout::Features | Layout::FeaturesOrLabelFirst => {
            parse_features(line, rows.extend_row(schema.width))
        }
        Layout::LabelFirst | Layout::LabelBar => {
            let bar = if layout == Layout::LabelBar { b'|' } else { b',' };
            let Some((label, features)) = split_once(line, bar) else {
                return Err(format!(
                    "expected a label, `{}` and {} columns, found {}",
                    bar as char,
                    schema.width,
                    Quoted(line)
                ));
            };
            let class = std::str::from_utf8(label).ok().and_then(|text| text.parse().ok());
            rows.labels.push(schema.class(class, &Quoted(label))?);
            let read = parse_features(features, rows.extend_row(schema.width));
            let apart = || layout == Layout::LabelFirst && columns(line) == schema.width;
            read.map_err(|what| if apart() { label_lies_apart(schema) } else { what })
        }
        Layout::OneHot => {
            rows.labels.push(schema.one_hot(line.split(|&byte| byte == b',').map(parse_hot))?);
            Ok(())
        }
    }
}

/// What is said of features alone where a label should come first.
fn label_lies_apart(RowSchema { width, .. }: RowSchema) -> String {
    format!(
        "expected a label and {width} columns, found {width} in all; labels that lie apart are named with --labels"
    )
}

/// Reads one line of `row.len()` features.
fn parse_features<T: Element>(line: &[u8], row: &mut [T]) -> Result<(), String> {
    if T::parse_line(line, row) {
        return Ok(());
    }
    if columns(line) != row.len() {
        return Err(format!("expected {} columns, found {}", row.len(), columns(line)));
    }
    for ((column, field), value) in line.split(|&byte| byte == b',').enumerate().zip(row) {
        *value = T::from_text(field).ok_or_else(|| {
            format!("column {}: expected {}, found {}", column + 1, T::RANGE, Quoted(field))
        })?;
    }
    Ok(())
}

/// One column of a one-hot label.
fn parse_hot(field: &[u8]) -> Option<f64> {
    match field {
        b"0.0" => Some(0.0),
        b"1.0" => Some(1.0),
        _ => std::str::from_utf8(field).ok()?.trim().parse().ok(),
    }
}

fn columns(line: &[u8]) -> usize {
    memchr::memchr_iter(b',', line).count() + 1
}

fn split_once(line: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(separator, line)?;
    Some((&line[..at], &line[at + 1..]))
}

/// Text in a message: its beginning, escaped.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let start = &self.0[..self.0.len().min(COLUMN_BYTES_MAX)];
        write!(f, "`{}`{}", start.escape_ascii(), if start.len() < self.0.len() { "…" } else { "" })
    }
}

/// Writes features, one row a line.
///
/// # Errors
/// Those of `out`.
pub fn write_features<T: Element>(
    rows: RowsView<'_, T>,
    schema: RowSchema,
    out: &mut dyn Write,
) -> io::Result<()> {
    write_lines(rows, schema, out, |row, _, text| T::put_line(row, text))
}

/// Writes labels, one-hot, one row a line.
///
/// # Errors
/// Those of `out`.
pub fn write_labels<T: Element>(
    rows: RowsView<'_, T>,
    schema: RowSchema,
    out: &mut dyn Write,
) -> io::Result<()> {
    write_lines(rows, schema, out, |_, label, text| {
        for class in 0..schema.classes {
            text.extend_from_slice(if class == label as usize { b"1.0," } else { b"0.0," });
        }
        text.pop();
    })
}

/// Writes csv2: label, bar, features, one row a line.
///
/// # Errors
/// Those of `out`.
pub fn write_csv2<T: Element>(
    rows: RowsView<'_, T>,
    schema: RowSchema,
    out: &mut dyn Write,
) -> io::Result<()> {
    write_lines(rows, schema, out, |row, label, text| {
        text.extend_from_slice(format!("{label}|").as_bytes());
        T::put_line(row, text);
    })
}

fn write_lines<T: Element>(
    rows: RowsView<'_, T>,
    schema: RowSchema,
    out: &mut dyn Write,
    put_line: impl Fn(&[T], u32, &mut Vec<u8>),
) -> io::Result<()> {
    let mut text = Vec::with_capacity(2 * PIECE_BYTES);
    for (row, label) in rows.records(schema.width) {
        put_line(row, label, &mut text);
        text.push(b'\n');
        if text.len() >= PIECE_BYTES {
            out.write_all(&text)?;
            text.clear();
        }
    }
    out.write_all(&text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCHEMA: RowSchema = RowSchema { width: 3, classes: 10 };

    fn read<T: Element>(text: &str, layout: Layout) -> Result<Rows<T>> {
        let mut rows = Rows::default();
        let mut reader = Reader::new(text.as_bytes(), layout, SCHEMA);
        while reader.read_row(&mut rows)? {}
        Ok(rows)
    }

    fn error(text: &str, layout: Layout) -> String {
        read::<u8>(text, layout).unwrap_err().to_string()
    }

    type WriteRows = fn(RowsView<'_, u8>, RowSchema, &mut dyn Write) -> io::Result<()>;

    fn written(write: WriteRows) -> String {
        let rows = Rows { features: vec![0, 12, 255, 7, 99, 100], labels: vec![5, 0] };
        let mut text = Vec::new();
        write(rows.view(), SCHEMA, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn writes_lines_as_python_does() {
        assert_eq!(written(write_features), "0,12,255\n7,99,100\n");
        assert_eq!(written(write_csv2), "5|0,12,255\n0|7,99,100\n");
        let labels = "0.0,0.0,0.0,0.0,0.0,1.0,0.0,0.0,0.0,0.0\n1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n";
        assert_eq!(written(write_labels), labels);
    }

    #[test]
    fn reads_every_layout_with_any_line_end() {
        let features = vec![0, 12, 255, 7, 99, 100];
        for (text, layout, labels) in [
            ("0,12,255\n7,99,100\n", Layout::Features, vec![]),
            ("0,12,255\r\n7,99,100", Layout::FeaturesOrLabelFirst, vec![]),
            ("5,0,12,255\n0,7,99,100\r\n", Layout::FeaturesOrLabelFirst, vec![5, 0]),
            ("5|0,12,255\n0|7,99,100", Layout::LabelBar, vec![5, 0]),
        ] {
            assert_eq!(read::<u8>(text, layout).unwrap(), Rows { features: features.clone(), labels });
        }
        assert_eq!(read::<u8>("", Layout::Features).unwrap(), Rows::default());
        assert_eq!(read::<u8>("0,0,1,0,0,0,0,0,0.0,0e0", Layout::OneHot).unwrap().labels, [2]);
        assert_eq!(read::<f32>("1.5,-2e3,7\n", Layout::Features).unwrap().features, [1.5, -2000.0, 7.0]);
    }

    #[test]
    fn bad_lines_are_named_with_what_was_expected() {
        use Layout::*;
        for (text, layout, message) in [
            ("0,0,0\n0,0\n", Features, "line 2: expected 3 columns, found 2"),
            ("0,0,0\n\n", Features, "line 2: expected 3 columns, found 1"),
            ("0,0,0,0,0\n", FeaturesOrLabelFirst, "line 1: expected 3 columns, found 5"),
            ("1,0,256\n", Features, "line 1: column 3: expected an integer from 0 to 255, found `256`"),
            ("x,0,0\n", Features, "line 1: column 1: expected an integer from 0 to 255, found `x`"),
            ("5|0,0,256\n", LabelBar, "line 1: column 3: expected an integer from 0 to 255, found `256`"),
            ("10|0,0,0\n", LabelBar, "line 1: expected a label below 10, found `10`"),
            ("-1,0,0,0\n", LabelFirst, "line 1: expected a label below 10, found `-1`"),
            (
                "1,0,0\n",
                LabelFirst,
                "line 1: expected a label and 3 columns, found 3 in all; labels that lie apart are named with --labels",
            ),
            ("5,0,0,0\n", LabelBar, "line 1: expected a label, `|` and 3 columns, found `5,0,0,0`"),
            ("1.0,0.0\n", OneHot, "line 1: expected a one-hot label of 10 columns, found 2"),
            ("0,0,0,0,0,0,0,0,0,0\n", OneHot, "line 1: expected a one-hot label: one 1, the others 0"),
            ("1,1,0,0,0,0,0,0,0,0\n", OneHot, "line 1: expected a one-hot label: one 1, the others 0"),
            ("0.5,1,0,0,0,0,0,0,0,0\n", OneHot, "line 1: expected a one-hot label: one 1, the others 0"),
        ] {
            assert_eq!(error(text, layout), message);
        }
        assert!(error(&"0".repeat(1 << 20), Features).contains("found no line end in"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(features in prop::collection::vec(-1e6f32..1e6, 30), labels in prop::collection::vec(0u32..10, 10)) {
            let rows = Rows { features, labels };
            let mut text = Vec::new();
            write_csv2(rows.view(), SCHEMA, &mut text).unwrap();
            prop_assert_eq!(read::<f32>(std::str::from_utf8(&text).unwrap(), Layout::LabelBar).unwrap(), rows);
        }
    }
}
