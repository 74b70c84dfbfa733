//! `byte[][]` as `java.io.ObjectOutputStream` writes it (Java Object Serialization Specification, chapter 6), and no
//! other object: nothing is ever instantiated.

/// Magic and version of the stream, then `TC_ARRAY` with the description of `[[B`: its name, `serialVersionUID`, flags, no
/// fields, no superclass.
const OUTER: &[u8] =
    b"\xac\xed\x00\x05\x75\x72\x00\x03[[B\x4b\xfd\x19\x15\x67\x67\xdb\x37\x02\x00\x00\x78\x70";
/// `TC_ARRAY` with the description of `[B`, as it comes the first time.
const FIRST: &[u8] = b"\x75\x72\x00\x02[B\xac\xf3\x17\xf8\x06\x08\x54\xe0\x02\x00\x00\x78\x70";
/// `TC_ARRAY` with a reference to that description: it is the third object of the stream.
const NEXT: &[u8] = b"\x75\x71\x00\x7e\x00\x02";

/// The arrays of a serialized `byte[][]`.
///
/// # Errors
/// Says what was expected.
pub fn read(data: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut rest =
        data.strip_prefix(OUTER).ok_or("expected a Java-serialized byte[][], found another object")?;
    let count = take_length(&mut rest)?;
    let mut arrays = Vec::new();
    for index in 0..count {
        let head = if index == 0 { FIRST } else { NEXT };
        rest = rest.strip_prefix(head).ok_or_else(|| {
            format!("expected byte[] number {} of {count}, found another object", index + 1)
        })?;
        let length = take_length(&mut rest)?;
        let (array, after) = rest
            .split_at_checked(length)
            .ok_or_else(|| format!("expected a byte[] of {length} bytes, found {}", rest.len()))?;
        arrays.push(array);
        rest = after;
    }
    if rest.is_empty() { Ok(arrays) } else { Err(format!("found {} bytes after the byte[][]", rest.len())) }
}

fn take_length(rest: &mut &[u8]) -> Result<usize, String> {
    let (length, after) = rest.split_first_chunk().ok_or("expected the length of an array, found the end")?;
    *rest = after;
    let length = i32::from_be_bytes(*length);
    usize::try_from(length).map_err(|_| format!("expected the length of an array, found {length}"))
}

/// Serializes `arrays`.
pub fn write(arrays: &[Vec<u8>]) -> Vec<u8> {
    let mut data = OUTER.to_vec();
    data.extend((arrays.len() as u32).to_be_bytes());
    for (index, array) in arrays.iter().enumerate() {
        data.extend(if index == 0 { FIRST } else { NEXT });
        data.extend((array.len() as u32).to_be_bytes());
        data.extend(array);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for arrays in [vec![], vec![vec![]], vec![vec![1, 2, 3], vec![], vec![4]]] {
            assert_eq!(read(&write(&arrays)).unwrap(), arrays);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let good = write(&[vec![1, 2, 3], vec![4]]);
        for end in 0..good.len() {
            read(&good[..end]).unwrap_err();
        }
        let longer = [good.as_slice(), &[0]].concat();
        assert_eq!(read(&longer).unwrap_err(), "found 1 bytes after the byte[][]");
        let mut negative = good;
        negative[OUTER.len()] = 0xff;
        assert_eq!(read(&negative).unwrap_err(), "expected the length of an array, found -16777214");
        assert_eq!(
            read(b"\xac\xed\x00\x05sr").unwrap_err(),
            "expected a Java-serialized byte[][], found another object"
        );
    }
}
