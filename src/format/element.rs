//! What a feature may be: `u8` (pixels) or `f32`.

use super::{csv_pixels, example, protobuf};

/// A type of feature: what text, protobuf and numpy arrays hold, as one Rust type.
pub trait Element: Copy + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// The values there are, for messages.
    const RANGE: &'static str;
    /// The type's name in numpy.
    const NUMPY: &'static str;

    /// The value `value`, if there is one.
    fn from_i64(value: i64) -> Option<Self>;
    /// The value `value`, if there is one; rounded to the type's precision.
    fn from_f64(value: f64) -> Option<Self>;
    /// The value that `text` spells.
    fn from_text(text: &[u8]) -> Option<Self>;

    /// Reads a whole line of csv fast; false when the line needs [`from_text`](Element::from_text), or is wrong.
    fn parse_line(_line: &[u8], _row: &mut [Self]) -> bool {
        false
    }
    /// Reads a packed list of varints fast; false when it needs [`from_i64`](Element::from_i64), or is wrong.
    fn unpack_varints(_packed: &[u8], _row: &mut [Self]) -> bool {
        false
    }

    /// Appends `row` as text, with commas between.
    fn put_line(row: &[Self], text: &mut Vec<u8>);
    /// Appends the value's little-endian bytes.
    fn put_bytes(self, out: &mut Vec<u8>);
    /// Appends `row` as the packed values of an `Int64List` or a `FloatList`, and says which.
    fn put_list(row: &[Self], out: &mut Vec<u8>) -> example::ListKind;
}

impl Element for u8 {
    const RANGE: &'static str = "an integer from 0 to 255";
    const NUMPY: &'static str = "u1";

    fn from_i64(value: i64) -> Option<u8> {
        value.try_into().ok()
    }

    fn from_f64(value: f64) -> Option<u8> {
        (value == f64::from(value as u8)).then_some(value as u8)
    }

    fn from_text(text: &[u8]) -> Option<u8> {
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    fn parse_line(line: &[u8], row: &mut [u8]) -> bool {
        csv_pixels::parse_line(line, row)
    }

    fn unpack_varints(packed: &[u8], row: &mut [u8]) -> bool {
        protobuf::unpack_pixels(packed, row)
    }

    fn put_line(row: &[u8], text: &mut Vec<u8>) {
        csv_pixels::put_line(row, text);
    }

    fn put_bytes(self, out: &mut Vec<u8>) {
        out.push(self);
    }

    fn put_list(row: &[u8], out: &mut Vec<u8>) -> example::ListKind {
        row.iter().for_each(|&pixel| protobuf::put_varint(u64::from(pixel), out));
        example::ListKind::Int64
    }
}

impl Element for f32 {
    const RANGE: &'static str = "a finite number";
    const NUMPY: &'static str = "f4";

    fn from_i64(value: i64) -> Option<f32> {
        Some(value as f32)
    }

    fn from_f64(value: f64) -> Option<f32> {
        Some(value as f32).filter(|value| value.is_finite())
    }

    fn from_text(text: &[u8]) -> Option<f32> {
        std::str::from_utf8(text).ok()?.trim().parse().ok().filter(|value: &f32| value.is_finite())
    }

    fn put_line(row: &[f32], text: &mut Vec<u8>) {
        for (at, value) in row.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            text.extend_from_slice(format!("{comma}{value:?}").as_bytes());
        }
    }

    fn put_bytes(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn put_list(row: &[f32], out: &mut Vec<u8>) -> example::ListKind {
        row.iter().for_each(|value| value.put_bytes(out));
        example::ListKind::Float
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outside_of_the_type_are_refused() {
        assert_eq!((u8::from_i64(255), u8::from_i64(256), u8::from_i64(-1)), (Some(255), None, None));
        assert_eq!((u8::from_f64(7.0), u8::from_f64(7.5), u8::from_f64(256.0)), (Some(7), None, None));
        assert_eq!(
            (u8::from_f64(f64::NAN), f32::from_f64(1e300), f32::from_text(b"nan")),
            (None, None, None)
        );
        assert_eq!((u8::from_text(b"256"), u8::from_text(b""), u8::from_text(b"1.0")), (None, None, None));
        assert_eq!(f32::from_text(b" 2.5e-3 "), Some(0.0025));
    }
}
