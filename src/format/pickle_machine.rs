//! The pickle machine, for rows of numbers and nothing else.
//!
//! A pickle is a program for a stack machine (PEP 307, PEP 3154, PEP 574, `pickletools`). This one knows the instructions
//! that Python 2 and 3 write for a list of numpy arrays, or of lists of numbers, in protocols 0 to 5, and five global names, which
//! it does not look up but understands. Any other instruction or name is an error, so that no pickle is ever executed.

mod numpy;
#[cfg(test)]
mod tests;
mod text;

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use self::numpy::Global;
use self::text::{Escapes, unescape};
use super::ndarray::{Array, Dtype, Number};

/// A value on the stack or in the memo.
#[derive(Clone, Copy)]
enum Value {
    None,
    Number(Number),
    Global(Global),
    /// An index into the objects.
    Object(usize),
}

/// A value that the program may change, or that is too large to copy.
enum Object<'a> {
    /// Bytes, or text in UTF-8; shared, because a program may name them again and again.
    Bytes(Rc<Cow<'a, [u8]>>),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dtype(Dtype),
    /// `None` until the array is filled in.
    Array(Option<Array<'a>>),
}

/// Runs `pickle` and returns the rows of the list that it holds.
///
/// # Errors
/// Says at which byte, and what was expected there.
pub(super) fn read_rows(pickle: &[u8]) -> Result<Vec<Array<'_>>, String> {
    let mut machine = Machine {
        rest: pickle,
        pickle_bytes: pickle.len(),
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
        objects: vec![],
        encoded: 0,
    };
    loop {
        let at = pickle.len() - machine.rest.len();
        match machine.step() {
            Ok(true) => {}
            Ok(false) => return machine.rows(),
            Err(what) => return Err(format!("byte {at} of the pickle: {what}")),
        }
    }
}

struct Machine<'a> {
    rest: &'a [u8],
    /// Length of the whole program.
    pickle_bytes: usize,
    stack: Vec<Value>,
    /// Heights of the stack where a `MARK` was set.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    objects: Vec<Object<'a>>,
    /// Bytes made from text so far.
    encoded: usize,
}

const ENDS: &str = "the pickle ends inside of an instruction";

impl<'a> Machine<'a> {
    /// Runs one instruction; false when it was `STOP`.
    fn step(&mut self) -> Result<bool, String> {
        let opcode = self.take(1)?[0];
        match opcode {
            b'.' => return Ok(false),
            0x80 => self.protocol()?,
            0x95 => self.take(8).map(drop)?,
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.stack.push(Value::None),
            0x88 | 0x89 => self.push_int(i64::from(opcode == 0x88)),
            b'I' | b'L' | b'J' | b'K' | b'M' | 0x8a | b'F' | b'G' => self.number(opcode)?,
            b'S' | b'V' | b'T' | b'U' | b'X' | 0x8c | 0x8d | b'B' | b'C' | 0x8e | 0x96 => {
                self.bytes(opcode)?
            }
            b']' => self.push(Object::List(vec![])),
            b')' => self.push(Object::Tuple(vec![])),
            b'l' => self.pop_mark().map(|items| self.push(Object::List(items)))?,
            b't' => self.pop_mark().map(|items| self.push(Object::Tuple(items)))?,
            0x85..=0x87 => {
                self.pop_many(usize::from(opcode - 0x84)).map(|items| self.push(Object::Tuple(items)))?
            }
            b'a' => self.pop_many(1).and_then(|items| self.append(items))?,
            b'e' => self.pop_mark().and_then(|items| self.append(items))?,
            b'p' | b'q' | b'r' | 0x94 => self.put(opcode)?,
            b'g' | b'h' | b'j' => self.get(opcode)?,
            b'c' | 0x93 => self.global(opcode)?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            _ => return Err(format!("the opcode {} is none that numpy's arrays need", opcode_name(opcode))),
        }
        Ok(true)
    }

    fn protocol(&mut self) -> Result<(), String> {
        match self.take(1)?[0] {
            0..=5 => Ok(()),
            other => Err(format!("expected protocol 0 to 5, found {other}")),
        }
    }

    fn number(&mut self, opcode: u8) -> Result<(), String> {
        let number = match opcode {
            b'J' => Number::Int(i32::from_le_bytes(self.take_array()?).into()),
            b'K' => Number::Int(self.take_length(1)? as i64),
            b'M' => Number::Int(self.take_length(2)? as i64),
            b'G' => Number::Float(f64::from_be_bytes(self.take_array()?)),
            0x8a => self.long()?,
            _ => {
                let line = self.take_line()?;
                let text = String::from_utf8_lossy(line);
                let expected = || format!("expected a number, found `{}`", line.escape_ascii());
                match opcode {
                    b'F' => Number::Float(text.parse().map_err(|_| expected())?),
                    _ => Number::Int(text.trim_end_matches('L').parse().map_err(|_| expected())?),
                }
            }
        };
        self.stack.push(Value::Number(number));
        Ok(())
    }

    /// An integer in as many bytes as it needs, two's complement.
    fn long(&mut self) -> Result<Number, String> {
        let length = self.take_length(1)?;
        let bytes = self.take(length)?;
        if bytes.len() > 8 {
            return Err(format!("expected an integer of at most 8 bytes, found {}", bytes.len()));
        }
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut word = [if negative { 0xff } else { 0 }; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        Ok(Number::Int(i64::from_le_bytes(word)))
    }

    fn bytes(&mut self, opcode: u8) -> Result<(), String> {
        let bytes = match opcode {
            b'S' => Cow::Owned(unescape(self.take_line()?, Escapes::Python2Str)?),
            b'V' => Cow::Owned(unescape(self.take_line()?, Escapes::RawUnicode)?),
            _ => {
                let length_bytes = match opcode {
                    b'U' | b'C' | 0x8c => 1,
                    b'T' | b'X' | b'B' => 4,
                    _ => 8,
                };
                let length = self.take_length(length_bytes)?;
                Cow::Borrowed(self.take(length)?)
            }
        };
        self.push(Object::Bytes(Rc::new(bytes)));
        Ok(())
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), String> {
        if let Some(&Value::Object(at)) = self.stack.last()
            && let Object::List(list) = &mut self.objects[at]
        {
            list.extend(items);
            return Ok(());
        }
        Err("expected a list to append to".into())
    }

    fn put(&mut self, opcode: u8) -> Result<(), String> {
        let key = if opcode == 0x94 { self.memo.len() as u64 } else { self.memo_key(opcode, *b"pqr")? };
        let value = *self.stack.last().ok_or("expected a value to remember, the stack is empty")?;
        self.memo.insert(key, value);
        Ok(())
    }

    fn get(&mut self, opcode: u8) -> Result<(), String> {
        let key = self.memo_key(opcode, *b"ghj")?;
        let value = *self
            .memo
            .get(&key)
            .ok_or_else(|| format!("expected a remembered value, number {key} is none"))?;
        self.stack.push(value);
        Ok(())
    }

    /// The operand of an instruction that comes in a text, a short and a long form.
    fn memo_key(&mut self, opcode: u8, [text, short, _]: [u8; 3]) -> Result<u64, String> {
        if opcode == text {
            let line = self.take_line()?;
            let key = std::str::from_utf8(line).ok().and_then(|text| text.parse().ok());
            return key.ok_or_else(|| format!("expected a number, found `{}`", line.escape_ascii()));
        }
        Ok(self.take_length(if opcode == short { 1 } else { 4 })? as u64)
    }

    fn global(&mut self, opcode: u8) -> Result<(), String> {
        let global = if opcode == b'c' {
            let (module, name) = (self.take_line()?, self.take_line()?);
            Global::named(module, name)?
        } else {
            let names = self.pop_many(2)?;
            Global::named(self.text(names[0])?, self.text(names[1])?)?
        };
        self.stack.push(Value::Global(global));
        Ok(())
    }

    /// The rows of the list on the stack.
    fn rows(mut self) -> Result<Vec<Array<'a>>, String> {
        let list = self.pop_many(1)?[0];
        let items = self.items(list, "a list of rows")?;
        let mut held = 0;
        let mut rows = Vec::new();
        for &item in items {
            let row = self.row(item)?;
            // A row may be named again and again at two bytes each; honest pickles hold what they say.
            held += row.len();
            if held > self.pickle_bytes {
                return Err("the pickle repeats its rows".into());
            }
            rows.push(row);
        }
        Ok(rows)
    }

    fn row(&self, item: Value) -> Result<Array<'a>, String> {
        if let Some(Object::Array(array)) = self.object(item) {
            return array.clone().ok_or_else(|| "expected an array, found one without data".into());
        }
        let numbers =
            self.items(item, "a row: an array, a list or a tuple")?.iter().map(|&value| match value {
                Value::Number(number) => Ok(number),
                _ => Err("expected a number in each column of a row".to_string()),
            });
        numbers.collect::<Result<_, _>>().map(Array::Numbers)
    }

    fn items(&self, value: Value, expected: &str) -> Result<&[Value], String> {
        match self.object(value) {
            Some(Object::Tuple(items) | Object::List(items)) => Ok(items),
            _ => Err(format!("expected {expected}")),
        }
    }

    fn text(&self, value: Value) -> Result<&[u8], String> {
        match self.object(value) {
            Some(Object::Bytes(bytes)) => Ok(bytes),
            _ => Err("expected text".into()),
        }
    }

    fn object(&self, value: Value) -> Option<&Object<'a>> {
        match value {
            Value::Object(at) => Some(&self.objects[at]),
            _ => None,
        }
    }

    fn push(&mut self, object: Object<'a>) {
        self.stack.push(Value::Object(self.objects.len()));
        self.objects.push(object);
    }

    fn push_int(&mut self, value: i64) {
        self.stack.push(Value::Number(Number::Int(value)));
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Value>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(height) if height >= floor => Ok(self.stack.split_off(height)),
            _ => Err("expected more values on the stack".into()),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>, String> {
        let height = self.marks.pop().ok_or("expected a mark on the stack")?;
        Ok(self.stack.split_off(height))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(ENDS)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(ENDS)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn take_length(&mut self, bytes: usize) -> Result<usize, String> {
        let bytes = self.take(bytes)?;
        let length = bytes.iter().rev().fold(0u64, |length, &byte| length << 8 | u64::from(byte));
        Ok(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn take_line(&mut self) -> Result<&'a [u8], String> {
        let end = memchr::memchr(b'\n', self.rest).ok_or(ENDS)?;
        let line = self.take(end + 1)?;
        Ok(&line[..end])
    }
}

/// The name of an instruction that is refused, as `pickletools` has it.
fn opcode_name(opcode: u8) -> String {
    const NAMES: [(u8, &str); 22] = [
        (b'0', "POP"),
        (b'1', "POP_MARK"),
        (b'2', "DUP"),
        (b'i', "INST"),
        (b'o', "OBJ"),
        (b'P', "PERSID"),
        (b'Q', "BINPERSID"),
        (b'd', "DICT"),
        (b'}', "EMPTY_DICT"),
        (b's', "SETITEM"),
        (b'u', "SETITEMS"),
        (0x81, "NEWOBJ"),
        (0x82, "EXT1"),
        (0x83, "EXT2"),
        (0x84, "EXT4"),
        (0x8b, "LONG4"),
        (0x8f, "EMPTY_SET"),
        (0x90, "ADDITEMS"),
        (0x91, "FROZENSET"),
        (0x92, "NEWOBJ_EX"),
        (0x97, "NEXT_BUFFER"),
        (0x98, "READONLY_BUFFER"),
    ];
    let name = NAMES.iter().find(|&&(known, _)| known == opcode).map_or("unknown", |&(_, name)| name);
    format!("{name} (0x{opcode:02x})")
}
