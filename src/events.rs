//! TensorBoard's event files: TFRecords of `tensorflow.Event` messages
//! (<https://github.com/tensorflow/tensorboard/tree/master/tensorboard/compat/proto>, `event.proto` and `summary.proto`).
//!
//! Scalars, histograms and images are written in the older, short form, which every version of TensorBoard reads.

use crate::error::Error;
use crate::format::protobuf::{field, put_bytes, put_double, put_float, put_number};
use crate::format::tfrecord::write_record;
use crate::histogram::Histogram;

/// What the first event of a file says.
const FILE_VERSION: &[u8] = b"brain.Event:2";
/// `DT_STRING` of `types.proto`.
const STRING: u64 = 7;
/// `DATA_CLASS_TENSOR` of `summary.proto`.
const TENSOR: u64 = 2;
/// Pixels of grey, as `Summary.Image` counts them.
const GREY: u64 = 1;

/// Appends the first event of a file, and that training goes on with step `first_step`: what earlier files have of this step and
/// later ones, TensorBoard then forgets.
pub fn begin(time: f64, first_step: u64, out: &mut Vec<u8>) {
    begin_file(time, out);
    write_event(time, first_step, |event| put_bytes(7, &[1 << 3, 1], event), out);
}

/// Appends the first event of a file.
pub fn begin_file(time: f64, out: &mut Vec<u8>) {
    write_event(time, 0, |event| put_bytes(3, FILE_VERSION, event), out);
}

/// Appends an event.
fn write_event(time: f64, step: u64, body: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    let mut event = Vec::new();
    put_event(time, step, body, &mut event);
    write_record(&event, out).expect("memory takes all bytes");
}

/// Values of one step. Its memory serves step after step, since there may be a step every hundred microseconds.
#[derive(Default)]
pub struct Summary {
    values: Vec<u8>,
    /// The value that is being added.
    value: Vec<u8>,
    /// The event that is being written.
    event: Vec<u8>,
}

impl Summary {
    /// A number.
    pub fn scalar(&mut self, tag: &str, value: f32) {
        self.value(tag, |out| put_float(2, value, out));
    }

    /// A histogram; nothing where nothing was counted.
    pub fn histogram(&mut self, tag: &str, histogram: &Histogram) {
        let (mut limits, mut counts) = (Vec::<u8>::new(), Vec::<u8>::new());
        let mut put = |limit: f64, count: u64| {
            limits.extend(limit.to_le_bytes());
            counts.extend((count as f64).to_le_bytes());
        };
        let mut end = f64::NEG_INFINITY;
        for bucket in histogram.buckets() {
            // A bucket begins where the one before ends, so the room between two of them is an empty one.
            if bucket.low > end {
                put(bucket.low, 0);
            }
            put(bucket.high, bucket.count);
            end = bucket.high;
        }
        if counts.is_empty() {
            return;
        }
        let mut proto = Vec::new();
        let Histogram { min, max, sum, squares, .. } = *histogram;
        for (number, value) in [(1, min), (2, max), (3, histogram.count() as f64), (4, sum), (5, squares)] {
            put_double(number, value, &mut proto);
        }
        put_bytes(6, &limits, &mut proto);
        put_bytes(7, &counts, &mut proto);
        self.value(tag, |out| put_bytes(5, &proto, out));
    }

    /// A picture of `rows * columns` grey bytes.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn image(&mut self, tag: &str, (rows, columns): (usize, usize), grey: &[u8]) -> Result<(), Error> {
        let mut png = Vec::new();
        let encoded = png::Encoder::new(&mut png, columns as u32, rows as u32).write_header();
        let written = encoded.and_then(|mut writer| writer.write_image_data(grey));
        written
            .map_err(|error| Error::Invalid(format!("cannot write a picture for TensorBoard: {error}")))?;
        let mut image = Vec::new();
        put_number(1, rows as u64, &mut image);
        put_number(2, columns as u64, &mut image);
        put_number(3, GREY, &mut image);
        put_bytes(4, &png, &mut image);
        self.value(tag, |out| put_bytes(4, &image, out));
        Ok(())
    }

    /// Markdown.
    pub fn text(&mut self, tag: &str, text: &str) {
        let (mut tensor, mut dimension, mut metadata) = (Vec::new(), Vec::new(), Vec::new());
        put_number(1, 1, &mut dimension);
        put_number(1, STRING, &mut tensor);
        put_bytes(2, &field(2, &dimension), &mut tensor);
        put_bytes(8, text.as_bytes(), &mut tensor);
        put_bytes(1, &field(1, b"text"), &mut metadata);
        put_number(4, TENSOR, &mut metadata);
        self.value(tag, |out| {
            put_bytes(8, &tensor, out);
            put_bytes(9, &metadata, out);
        });
    }

    /// Appends the event of all values to a file.
    pub fn write(&mut self, time: f64, step: u64, out: &mut Vec<u8>) {
        let Summary { values, event, .. } = self;
        event.clear();
        put_event(time, step, |event| put_bytes(5, values, event), event);
        write_record(event, out).expect("memory takes all bytes");
        values.clear();
    }

    fn value(&mut self, tag: &str, fill: impl FnOnce(&mut Vec<u8>)) {
        let Summary { values, value, .. } = self;
        value.clear();
        put_bytes(1, tag.as_bytes(), value);
        fill(value);
        put_bytes(1, value, values);
    }
}

/// Appends an event without its frame.
fn put_event(time: f64, step: u64, fill: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    put_double(1, time, out);
    put_number(2, step, out);
    fill(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tfrecord::Reader;

    /// The messages of a file.
    fn messages(file: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = Reader::new(file);
        std::iter::from_fn(|| reader.next_record().unwrap().map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn a_file_begins_with_its_version_and_the_step_that_training_goes_on_with() {
        let mut file = Vec::new();
        begin(1.5, 301, &mut file);
        let time = [&[0x09][..], &1.5f64.to_le_bytes()].concat();
        let version = [&time[..], b"\x10\x00\x1a\x0dbrain.Event:2"].concat();
        assert_eq!(messages(&file), [version, [&time[..], b"\x10\xad\x02\x3a\x02\x08\x01"].concat()]);
    }

    #[test]
    fn a_scalar_is_a_tag_and_a_float() {
        let (mut summary, mut file) = (Summary::default(), Vec::new());
        summary.scalar("a/b", 0.5);
        summary.write(0.0, 1, &mut file);
        summary.scalar("c", -1.0);
        summary.write(0.0, 2, &mut file);
        let head = [&[0x09][..], &[0; 8], &[0x10, 1]].concat();
        let value = b"\x2a\x0c\x0a\x0a\x0a\x03a/b\x15\x00\x00\x00\x3f";
        assert_eq!(messages(&file)[0], [&head[..], value].concat());
        assert_eq!(messages(&file).len(), 2);
        assert!(messages(&file)[1].len() < messages(&file)[0].len(), "a written summary is empty");
    }

    #[test]
    fn a_picture_is_a_png() {
        let (mut summary, mut file) = (Summary::default(), Vec::new());
        let grey: Vec<u8> = (0..6).collect();
        summary.image("x", (2, 3), &grey).unwrap();
        assert!(summary.image("x", (2, 3), &grey[1..]).is_err());
        summary.write(0.0, 1, &mut file);
        let at = file.windows(8).position(|bytes| bytes == b"\x89PNG\r\n\x1a\n").expect("a PNG");
        let mut reader = png::Decoder::new(std::io::Cursor::new(&file[at..])).read_info().unwrap();
        let mut decoded = [0; 6];
        reader.next_frame(&mut decoded).unwrap();
        assert_eq!(decoded[..], grey);
    }
}
