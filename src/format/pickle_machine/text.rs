//! Text in pickles: the escapes of protocol 0, and bytes spelled as text.

/// How text is escaped in protocol 0.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Escapes {
    /// As `repr` of a Python 2 string: quoted; bytes.
    Python2Str,
    /// `\uXXXX` alone; code points up to 255, which become UTF-8.
    RawUnicode,
}

/// The bytes that a line of protocol 0 stands for.
pub(super) fn unescape(line: &[u8], escapes: Escapes) -> Result<Vec<u8>, String> {
    let wrong = || format!("expected an escaped string, found `{}`", line.escape_ascii());
    let mut rest = line;
    if escapes == Escapes::Python2Str {
        let quoted = |quote: &[u8]| line.strip_prefix(quote)?.strip_suffix(quote);
        rest = quoted(b"'").or_else(|| quoted(b"\"")).ok_or_else(wrong)?;
    }
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        let (value, used) = match (byte, after.first(), escapes) {
            (b'\\', Some(b'u'), Escapes::RawUnicode) => (hex(after.get(1..5)).ok_or_else(wrong)?, 5),
            (b'\\', Some(b'x'), Escapes::Python2Str) => (hex(after.get(1..3)).ok_or_else(wrong)?, 3),
            (b'\\', Some(b'n'), Escapes::Python2Str) => (u32::from(b'\n'), 1),
            (b'\\', Some(b'r'), Escapes::Python2Str) => (u32::from(b'\r'), 1),
            (b'\\', Some(b't'), Escapes::Python2Str) => (u32::from(b'\t'), 1),
            (b'\\', Some(&same @ (b'\\' | b'\'' | b'"')), Escapes::Python2Str) => (u32::from(same), 1),
            (b'\\', _, Escapes::Python2Str) => return Err(wrong()),
            _ => (u32::from(byte), 0),
        };
        match escapes {
            Escapes::Python2Str => bytes.push(value as u8),
            Escapes::RawUnicode => {
                let character = char::from_u32(value).ok_or_else(wrong)?;
                bytes.extend(character.encode_utf8(&mut [0; 4]).bytes());
            }
        }
        rest = &after[used..];
    }
    Ok(bytes)
}

fn hex(digits: Option<&[u8]>) -> Option<u32> {
    let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The bytes that `text`, of code points up to 255, stands for.
pub(super) fn latin1(text: &[u8]) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "expected text in UTF-8")?;
    text.chars()
        .map(|c| u8::try_from(c).map_err(|_| format!("expected text in latin1, found {c:?}")))
        .collect()
}
