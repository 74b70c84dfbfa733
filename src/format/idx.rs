//! IDX, the format of MNIST: a big-endian header (magic number, then one `u32` a dimension) and the elements.
//!
//! Two kinds are read, both of unsigned bytes, raw or compressed with gzip (recognized by its magic bytes,
//! whatever the file's name): images `[count, rows, cols]` and labels `[count]`. Source:
//! <http://yann.lecun.com/exdb/mnist/>, "The IDX file format".

use std::io::{self, Read, Write};
use std::path::Path;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;

use crate::error::Error;
use crate::pages;
use crate::storage::file;

/// How many times its length deflate makes of a stream at most. Source: zlib's technical details.
const DEFLATE_MOST: usize = 1032;

/// What an IDX file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Magic 0x00000803: `[count, rows, cols]` pixels.
    Images,
    /// Magic 0x00000801: `[count]` labels.
    Labels,
}

/// An IDX file of bytes, its header checked against its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// The dimensions, records first: `[count, rows, cols]` or `[count]`.
    pub dims: Vec<usize>,
    /// The elements, row-major; as many as the product of `dims`.
    pub data: Bytes,
}

/// The code of an element type, the third byte of the magic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Unsigned byte.
    U8 = 0x08,
    /// Big-endian `i32`.
    I32 = 0x0c,
    /// Big-endian `f32`.
    F32 = 0x0d,
}

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const MEND: &str = "fetch or copy the file again";

impl Kind {
    /// Rank of the array.
    fn rank(self) -> usize {
        match self {
            Kind::Images => 3,
            Kind::Labels => 1,
        }
    }

    fn magic(self) -> u32 {
        0x0800 | self.rank() as u32
    }

    fn noun(self) -> &'static str {
        match self {
            Kind::Images => "images",
            Kind::Labels => "labels",
        }
    }

    fn header_len(self) -> usize {
        4 + 4 * self.rank()
    }
}

/// Reads the IDX file at `path`; a raw one is memory-mapped and not copied (see [`file::map`]).
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is not an IDX file of `kind`.
pub fn read(path: &Path, kind: Kind) -> Result<Idx, Error> {
    parse(path, file::map(path)?, kind)
}

/// Parses the content of an IDX file, raw or gzip; `path` only names it in messages.
///
/// Never fills more memory with a compressed file than its header announces and the file really contains.
///
/// # Errors
/// [`Error::Format`]: wrong magic number, sizes that overflow, too few or too many bytes, damaged gzip.
pub fn parse(path: &Path, content: Bytes, kind: Kind) -> Result<Idx, Error> {
    let parser = Parser { path, kind };
    if content.starts_with(&GZIP_MAGIC) { parser.gzip(&content) } else { parser.raw(content) }
}

struct Parser<'a> {
    path: &'a Path,
    kind: Kind,
}

impl Parser<'_> {
    fn raw(&self, content: Bytes) -> Result<Idx, Error> {
        let header_len = self.kind.header_len();
        let dims = self.dims(content.get(..header_len).unwrap_or(&content))?;
        let expected = self.data_len(&dims)?;
        let data = content.slice(header_len..);
        if data.len() != expected {
            return Err(self.wrong_len(&dims, format!("{} bytes", data.len())));
        }
        Ok(Idx { dims, data })
    }

    fn gzip(&self, content: &[u8]) -> Result<Idx, Error> {
        let mut decoder = MultiGzDecoder::new(content);
        let mut header = Vec::new();
        self.decompress(&mut decoder, self.kind.header_len(), &mut header)?;
        let dims = self.dims(&header)?;
        let expected = self.data_len(&dims)?;
        // As the header says, but no more than so short a stream can hold; where that cannot be had, the vector grows as data come.
        let (mut data, most) = (Vec::new(), content.len().saturating_mul(DEFLATE_MOST));
        let _ = pages::reserve(&mut data, expected.saturating_add(1).min(most));
        // One byte past the end tells an over-long stream, and reaching the end checks the CRC of a right
        // one.
        self.decompress(&mut decoder, expected.saturating_add(1), &mut data)?;
        if data.len() > expected {
            return Err(self.wrong_len(&dims, "a gzip stream that goes on".into()));
        }
        if data.len() < expected {
            return Err(self.wrong_len(&dims, format!("{} bytes in the gzip stream", data.len())));
        }
        Ok(Idx { dims, data: data.into() })
    }

    fn decompress(&self, decoder: &mut impl Read, limit: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        decoder.by_ref().take(limit).read_to_end(out).map(drop).map_err(|cause| {
            self.error(
                "a whole gzip stream".into(),
                match cause.kind() {
                    io::ErrorKind::UnexpectedEof => "one that is cut off".into(),
                    _ => format!("a damaged one ({cause})"),
                },
                MEND,
            )
        })
    }

    /// The dimensions in `header`, which is shorter than a header only if the file is.
    fn dims(&self, header: &[u8]) -> Result<Vec<usize>, Error> {
        let expected = || format!("an IDX file of {} (magic {:#010x})", self.kind.noun(), self.kind.magic());
        let words: Vec<u32> = header
            .chunks_exact(4)
            .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        match words.first() {
            Some(&magic) if magic == self.kind.magic() => {}
            Some(&magic) => return Err(self.wrong_magic(expected(), magic)),
            None => return Err(self.error(expected(), format!("only {} bytes", header.len()), MEND)),
        }
        if header.len() < self.kind.header_len() {
            let expected = format!("a header of {} bytes", self.kind.header_len());
            return Err(self.error(expected, format!("only {} bytes", header.len()), MEND));
        }
        Ok(words[1..].iter().map(|&dim| dim as usize).collect())
    }

    fn wrong_magic(&self, expected: String, magic: u32) -> Error {
        let other = if self.kind == Kind::Images { Kind::Labels } else { Kind::Images };
        if magic == other.magic() {
            let found = format!("{} (magic {magic:#010x})", other.noun());
            return self.error(expected, found, "the files of images and labels are swapped");
        }
        self.error(expected, format!("magic {magic:#010x}"), "name an IDX file, raw or .gz")
    }

    /// Bytes of data that a header announces.
    fn data_len(&self, dims: &[usize]) -> Result<usize, Error> {
        dims.iter().try_fold(1usize, |len, &dim| len.checked_mul(dim)).ok_or_else(|| {
            self.error("sizes that fit into memory".into(), format!("a header of {dims:?}"), MEND)
        })
    }

    fn wrong_len(&self, dims: &[usize], found: String) -> Error {
        let len: usize = dims.iter().product();
        self.error(format!("{len} bytes after the header, as its sizes {dims:?} say"), found, MEND)
    }

    fn error(&self, expected: String, found: String, mend: &'static str) -> Error {
        Error::Format { path: self.path.to_owned(), expected, found, mend }
    }
}

/// The header of an array of shape `dims`.
///
/// # Panics
/// When a dimension does not fit into the format's `u32`, or there are more than 255.
pub fn header(element: Element, dims: &[usize]) -> Vec<u8> {
    let rank = u8::try_from(dims.len()).expect("an IDX array has at most 255 dimensions");
    let mut header = vec![0, 0, element as u8, rank];
    for &dim in dims {
        header.extend(u32::try_from(dim).expect("an IDX dimension fits into 32 bits").to_be_bytes());
    }
    header
}

/// Writes an array of bytes of shape `dims`: `[count, rows, cols]` makes a file of images, `[count]` one of
/// labels.
///
/// # Errors
/// Those of `out`.
///
/// # Panics
/// When `data` is not as long as `dims` say.
pub fn write(out: &mut dyn Write, dims: &[usize], data: &[u8]) -> io::Result<()> {
    assert_eq!(data.len(), dims.iter().product::<usize>(), "the data must fill {dims:?}");
    out.write_all(&header(Element::U8, dims))?;
    out.write_all(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn file_of(dims: &[usize], data: &[u8]) -> Vec<u8> {
        [header(Element::U8, dims), data.to_vec()].concat()
    }

    fn parse_images(content: &[u8]) -> Result<Idx, Error> {
        parse(Path::new("images"), Bytes::copy_from_slice(content), Kind::Images)
    }

    /// The message of what is not a file of images.
    fn error(content: &[u8]) -> String {
        parse_images(content).unwrap_err().to_string()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(rows in 0usize..5, cols in 0usize..5, count in 0usize..9, seed: u8) {
            let images: Vec<u8> = (0..count * rows * cols).map(|i| (i as u8).wrapping_mul(seed)).collect();
            let labels = vec![seed; count];
            for (kind, dims, data) in
                [(Kind::Images, vec![count, rows, cols], images), (Kind::Labels, vec![count], labels)]
            {
                let mut content = Vec::new();
                write(&mut content, &dims, &data).unwrap();
                let expected = Idx { dims, data: data.into() };
                for content in [content.clone(), gzip(&content)] {
                    prop_assert_eq!(&parse(Path::new(""), content.into(), kind).unwrap(), &expected);
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(content: Vec<u8>, gzipped: bool) {
            let mut file = file_of(&[1, 2, 3], &content);
            file.truncate(content.len() + 7);
            let _ = parse_images(&if gzipped { gzip(&file) } else { file });
            let _ = parse_images(&content);
        }

        #[test]
        fn a_damaged_gzip_never_passes_for_the_whole(position in 10usize..60, flip in 1u8..) {
            let content = file_of(&[2, 5, 6], &(0..60).collect::<Vec<u8>>());
            let mut damaged = gzip(&content);
            damaged[position] ^= flip;
            prop_assert!(parse_images(&damaged).is_err());
        }
    }

    #[test]
    fn the_headers_are_those_of_mnist() {
        assert_eq!(header(Element::U8, &[60000, 28, 28]), b"\0\0\x08\x03\0\0\xea\x60\0\0\0\x1c\0\0\0\x1c");
        assert_eq!(header(Element::U8, &[60000]), b"\0\0\x08\x01\0\0\xea\x60");
    }

    #[test]
    fn raw_data_is_not_copied() {
        let content = Bytes::from(file_of(&[1, 2, 2], &[1, 2, 3, 4]));
        let idx = parse(Path::new(""), content.clone(), Kind::Images).unwrap();
        assert_eq!(idx.data.as_ptr(), content[16..].as_ptr());
    }

    #[test]
    fn gzip_of_several_members_is_one_stream() {
        let content = file_of(&[1, 2, 2], &[1, 2, 3, 4]);
        let members = [gzip(&content[..9]), gzip(&content[9..])].concat();
        assert_eq!(&parse_images(&members).unwrap().data[..], [1, 2, 3, 4]);
    }

    #[test]
    fn errors_say_what_was_expected_what_was_found_and_what_mends_it() {
        let mend = "fetch or copy the file again";
        let magic = "images: expected an IDX file of images (magic 0x00000803), found";
        assert_eq!(error(b""), format!("{magic} only 0 bytes; {mend}"));
        assert_eq!(error(b"PNG."), format!("{magic} magic 0x504e472e; name an IDX file, raw or .gz"));
        assert_eq!(
            error(&file_of(&[4], &[0; 4])),
            format!("{magic} labels (magic 0x00000801); the files of images and labels are swapped")
        );
        assert_eq!(
            error(&header(Element::U8, &[4, 2, 2])[..9]),
            format!("images: expected a header of 16 bytes, found only 9 bytes; {mend}")
        );
        let long = "images: expected 16 bytes after the header, as its sizes [4, 2, 2] say, found";
        assert_eq!(error(&file_of(&[4, 2, 2], &[0; 15])), format!("{long} 15 bytes; {mend}"));
        assert_eq!(error(&file_of(&[4, 2, 2], &[0; 17])), format!("{long} 17 bytes; {mend}"));
        let short = gzip(&file_of(&[4, 2, 2], &[0; 15]));
        assert_eq!(error(&short), format!("{long} 15 bytes in the gzip stream; {mend}"));
        let most = u32::MAX as usize;
        let overflow = format!(
            "images: expected sizes that fit into memory, found a header of [{most}, {most}, {most}]"
        );
        for content in [header(Element::U8, &[most; 3]), gzip(&header(Element::U8, &[most; 3]))] {
            assert_eq!(error(&content), format!("{overflow}; {mend}"));
        }
    }

    #[test]
    fn damaged_gzip_is_told_from_cut_off() {
        let whole = gzip(&file_of(&[4, 2, 2], &[7; 16]));
        let mut damaged = whole.clone();
        let crc = damaged.len() - 8;
        damaged[crc] ^= 1;
        assert!(error(&damaged).contains("found a damaged one"), "{}", error(&damaged));
        for len in 2..whole.len() {
            let message = error(&whole[..len]);
            assert!(
                message.contains("expected a whole gzip stream, found one that is cut off"),
                "{len}: {message}"
            );
        }
    }

    #[test]
    fn a_huge_header_on_little_data_takes_little_memory() {
        let content = file_of(&[u32::MAX as usize, 1 << 10, 1 << 10], &[0; 100]);
        for content in [gzip(&content), content] {
            assert!(error(&content).contains("found 100 bytes"), "{}", error(&content));
        }
    }

    /// Reading stops right behind what the header announces: the damage further on is never reached.
    #[test]
    fn gzip_that_expands_beyond_its_header_is_not_expanded() {
        let mut bomb = gzip(&file_of(&[1, 2, 2], &vec![0; 64 << 20]));
        let end = bomb.len();
        bomb[end - 1000..].fill(0xff);
        assert!(error(&bomb).contains("found a gzip stream that goes on"), "{}", error(&bomb));
    }

    #[test]
    fn swapped_labels_are_told_too() {
        let images = Bytes::from(file_of(&[1, 2, 2], &[0; 4]));
        let message = parse(Path::new("labels"), images, Kind::Labels).unwrap_err().to_string();
        assert!(message.starts_with("labels: expected an IDX file of labels"), "{message}");
        assert!(message.ends_with("the files of images and labels are swapped"), "{message}");
    }
}
