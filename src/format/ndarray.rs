//! Arrays as numpy pickles them: a type of element, and bytes.

use std::borrow::Cow;
use std::rc::Rc;

use super::Element;

/// A number out of a pickle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    fn element<T: Element>(self) -> Option<T> {
        match self {
            Number::Int(value) => T::from_i64(value),
            Number::Float(value) => T::from_f64(value),
        }
    }

    pub fn as_f64(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
        }
    }
}

/// The types of element that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unsigned,
    Signed,
    Float,
}

/// The type of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dtype {
    kind: Kind,
    bytes: usize,
    big_endian: bool,
}

impl Dtype {
    /// The type of a name like `u1`, `f8`; little-endian until told otherwise.
    pub fn named(name: &[u8]) -> Result<Dtype, String> {
        let (kind, bytes) = match name {
            b"u1" | b"u2" | b"u4" => (Kind::Unsigned, name[1] - b'0'),
            b"i1" | b"i2" | b"i4" | b"i8" => (Kind::Signed, name[1] - b'0'),
            b"f4" | b"f8" => (Kind::Float, name[1] - b'0'),
            _ => {
                return Err(format!(
                    "expected a dtype u1, u2, u4, i1, i2, i4, i8, f4 or f8, found `{}`",
                    name.escape_ascii()
                ));
            }
        };
        Ok(Dtype { kind, bytes: bytes.into(), big_endian: false })
    }

    /// The same type in the order of bytes that `<`, `>`, `|` or `=` stands for; numpy means the writer's own by `=`.
    pub fn ordered(self, order: &[u8]) -> Result<Dtype, String> {
        match order {
            b"<" | b"|" | b"=" => Ok(Dtype { big_endian: false, ..self }),
            b">" => Ok(Dtype { big_endian: true, ..self }),
            _ => Err(format!("expected a byte order, found `{}`", order.escape_ascii())),
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        self.bytes
    }

    fn number(self, bytes: &[u8]) -> Number {
        let mut word = [0; 8];
        word[..self.bytes].copy_from_slice(bytes);
        if self.big_endian {
            word[..self.bytes].reverse();
        }
        let word = u64::from_le_bytes(word);
        let unused = 64 - 8 * self.bytes as u32;
        match (self.kind, self.bytes) {
            (Kind::Unsigned, _) => Number::Int(word as i64),
            (Kind::Signed, _) => Number::Int((word << unused) as i64 >> unused),
            (Kind::Float, 4) => Number::Float(f32::from_bits(word as u32).into()),
            (Kind::Float, _) => Number::Float(f64::from_bits(word)),
        }
    }
}

/// One element of the pickled list: a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Array<'a> {
    /// A numpy array in C order, whatever its shape.
    Numpy { dtype: Dtype, data: Rc<Cow<'a, [u8]>> },
    /// A list or a tuple of numbers.
    Numbers(Vec<Number>),
}

impl Array<'_> {
    pub fn len(&self) -> usize {
        match self {
            Array::Numpy { dtype, data } => data.len() / dtype.bytes,
            Array::Numbers(numbers) => numbers.len(),
        }
    }

    /// The numbers of the row.
    pub fn numbers(&self) -> impl Iterator<Item = Number> {
        let (numpy, list) = match self {
            Array::Numpy { dtype, data } => {
                (Some(data.chunks_exact(dtype.bytes).map(|bytes| dtype.number(bytes))), None)
            }
            Array::Numbers(numbers) => (None, Some(numbers.iter().copied())),
        };
        numpy.into_iter().flatten().chain(list.into_iter().flatten())
    }

    /// Appends the row's `width` features to `features`.
    pub fn read_features<T: Element>(&self, width: usize, features: &mut Vec<T>) -> Result<(), String> {
        if self.len() != width {
            return Err(format!("expected {width} values, found {}", self.len()));
        }
        let wrong = |at| format!("value {}: expected {}", at + 1, T::RANGE);
        if let Array::Numpy { dtype: Dtype { kind: Kind::Unsigned, bytes: 1, .. }, data } = self {
            for (at, &byte) in data.iter().enumerate() {
                features.push(T::from_i64(byte.into()).ok_or_else(|| wrong(at))?);
            }
            return Ok(());
        }
        for (at, number) in self.numbers().enumerate() {
            features.push(number.element().ok_or_else(|| wrong(at))?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(dtype: &str, order: &str, data: &[u8]) -> Vec<f64> {
        let dtype = Dtype::named(dtype.as_bytes()).unwrap().ordered(order.as_bytes()).unwrap();
        Array::Numpy { dtype, data: Rc::new(data.into()) }.numbers().map(Number::as_f64).collect()
    }

    #[test]
    fn every_type_in_both_orders() {
        assert_eq!(values("u1", "|", &[0, 255]), [0.0, 255.0]);
        assert_eq!(values("i1", "|", &[1, 255]), [1.0, -1.0]);
        assert_eq!(values("u2", ">", &[1, 0, 255, 255]), [256.0, 65535.0]);
        assert_eq!(values("i4", "<", &(-7i32).to_le_bytes()), [-7.0]);
        assert_eq!(values("i8", ">", &(-7i64).to_be_bytes()), [-7.0]);
        assert_eq!(values("f4", "<", &1.5f32.to_le_bytes()), [1.5]);
        assert_eq!(values("f8", ">", &(-2.25f64).to_be_bytes()), [-2.25]);
        assert!(Dtype::named(b"O8").unwrap_err().contains("found `O8`"));
    }

    #[test]
    fn rows_are_of_the_width_and_range_asked_for() {
        let row = Array::Numbers(vec![Number::Int(3), Number::Float(4.0), Number::Int(300)]);
        assert_eq!(row.read_features::<u8>(2, &mut vec![]).unwrap_err(), "expected 2 values, found 3");
        assert_eq!(
            row.read_features::<u8>(3, &mut vec![]).unwrap_err(),
            "value 3: expected an integer from 0 to 255"
        );
        let mut features = Vec::new();
        row.read_features::<f32>(3, &mut features).unwrap();
        assert_eq!(features, [3.0, 4.0, 300.0]);
    }
}
