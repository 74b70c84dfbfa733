//! The names that a pickle of numpy arrays mentions, and what calling them means.

use std::borrow::Cow;
use std::rc::Rc;

use super::text::latin1;
use super::{Machine, Object, Value};
use crate::format::ndarray::{Array, Dtype, Number};

/// What may be named.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Global {
    /// `numpy.core.multiarray._reconstruct`: an array that is filled in later.
    Reconstruct,
    /// `numpy.core.numeric._frombuffer`: an array.
    FromBuffer,
    Ndarray,
    Dtype,
    /// `_codecs.encode`: how Python 3 spells bytes in protocols 0 to 2.
    Encode,
}

impl Global {
    /// What the name `module.name` means.
    pub fn named(module: &[u8], name: &[u8]) -> Result<Global, String> {
        match (module, name) {
            (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"_reconstruct") => {
                Ok(Global::Reconstruct)
            }
            (b"numpy.core.numeric" | b"numpy._core.numeric", b"_frombuffer") => Ok(Global::FromBuffer),
            (b"numpy", b"ndarray") => Ok(Global::Ndarray),
            (b"numpy", b"dtype") => Ok(Global::Dtype),
            (b"_codecs", b"encode") => Ok(Global::Encode),
            _ => Err(format!(
                "the global `{}.{}` is not one of numpy's arrays; pickles are never executed",
                module.escape_ascii(),
                name.escape_ascii()
            )),
        }
    }
}

impl<'a> Machine<'a> {
    /// Calls a global.
    pub(super) fn reduce(&mut self) -> Result<(), String> {
        let operands = self.pop_many(2)?;
        let Value::Global(global) = operands[0] else { return Err("expected a global to call".into()) };
        let arguments = self.items(operands[1], "a tuple of arguments")?;
        let object = match (global, arguments) {
            (Global::Reconstruct, [Value::Global(Global::Ndarray), _, _]) => Object::Array(None),
            (Global::FromBuffer, &[data, dtype, shape, order]) => {
                let fortran = self.text(order)? == b"F";
                Object::Array(Some(self.array(shape, dtype, fortran, data)?))
            }
            (Global::Dtype, &[name, _, _]) => Object::Dtype(Dtype::named(self.text(name)?)?),
            (Global::Encode, &[text, encoding]) => {
                if self.text(encoding)? != b"latin1" {
                    return Err("expected the encoding latin1".into());
                }
                let bytes = latin1(self.text(text)?)?;
                self.encoded += bytes.len();
                if self.encoded > self.pickle_bytes {
                    return Err("the pickle encodes more text than it holds".into());
                }
                Object::Bytes(Rc::new(Cow::Owned(bytes)))
            }
            _ => return Err("a global is called with arguments it does not take".into()),
        };
        self.push(object);
        Ok(())
    }

    /// Fills in a dtype or an array.
    pub(super) fn build(&mut self) -> Result<(), String> {
        let state = self.pop_many(1)?[0];
        let target = match self.stack.last() {
            Some(&Value::Object(at)) => at,
            _ => return Err("expected a dtype or an array to fill in".into()),
        };
        let object = match (&self.objects[target], self.items(state, "a tuple of state")?) {
            (Object::Dtype(dtype), &[_, order, Value::None, Value::None, Value::None, ..]) => {
                Object::Dtype(dtype.ordered(self.text(order)?)?)
            }
            (Object::Array(None), &[_, shape, dtype, Value::Number(fortran), data]) => {
                Object::Array(Some(self.array(shape, dtype, fortran != Number::Int(0), data)?))
            }
            _ => return Err("expected a dtype or an array to fill in, with its state".into()),
        };
        self.objects[target] = object;
        Ok(())
    }

    fn array(&self, shape: Value, dtype: Value, fortran: bool, data: Value) -> Result<Array<'a>, String> {
        let shape = self.items(shape, "a shape")?;
        if fortran && shape.len() > 1 {
            return Err("expected an array in C order, found Fortran's".into());
        }
        let Some(&Object::Dtype(dtype)) = self.object(dtype) else { return Err("expected a dtype".into()) };
        let mut bytes = dtype.bytes() as i64;
        for &length in shape {
            let Value::Number(Number::Int(length @ 0..)) = length else {
                return Err("expected a shape".into());
            };
            bytes = bytes.checked_mul(length).ok_or("expected a shape that fits into memory")?;
        }
        match self.object(data) {
            Some(Object::Bytes(data)) if data.len() as i64 == bytes => {
                Ok(Array::Numpy { dtype, data: Rc::clone(data) })
            }
            Some(Object::Bytes(data)) => {
                Err(format!("expected an array of {bytes} bytes, found {}", data.len()))
            }
            _ => Err("expected the data of an array".into()),
        }
    }
}
