//! Reading data sets: a part at a time, or all of them into memory.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use rayon::prelude::*;

use super::manifest::Manifest;
use super::{Format, SUCCESS};
use crate::error::{Error, Result};
use crate::format::{Element, Position, ReadRows, RowSchema, Rows, csv, example, pickle, sequence_file};
use crate::pages;
use crate::storage::{Entry, Storage};

/// Records between two looks at the memory they take.
const ROWS_AT_ONCE: usize = 1024;

/// Where a data set lies.
#[derive(Clone, Copy, Debug)]
pub struct Location<'a> {
    /// How its files are written.
    pub format: Format,
    /// A directory of parts, or one file: features, or whole records.
    pub features: &'a Path,
    /// The same for labels, where they lie apart.
    pub labels: Option<&'a Path>,
    /// Whether records without a label are an error.
    pub labels_required: bool,
}

/// One file of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartFile {
    /// Its path.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// The files that hold the records of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Features, or whole records.
    pub features: PartFile,
    /// Labels, where they lie apart.
    pub labels: Option<PartFile>,
}

/// What one file holds.
#[derive(Clone, Copy)]
enum Encoding {
    Csv(csv::Layout),
    Pickle(pickle::Content),
    TfRecord,
}

/// Where the files of a part are to be read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartPosition {
    /// In the file of features, or of whole records.
    pub features: Position,
    /// In that of labels, where they lie apart.
    pub labels: Position,
}

/// A data set that was found.
pub struct Source {
    storage: Storage,
    shape: Vec<usize>,
    schema: RowSchema,
    /// How features, or whole records, are written.
    features: Encoding,
    /// How labels are written, where they lie apart.
    labels: Encoding,
    parts: Vec<Part>,
    /// Records of all parts, where a manifest tells.
    rows: Option<u64>,
}

impl Source {
    /// Finds the parts of the data set at `location`, in the order of their numbers. A record has the shape that the
    /// manifest tells, where there is one, else `shape`.
    ///
    /// # Errors
    /// When there are none, when features and labels have different numbers of them, or when labels are asked for in a
    /// place where the format has none.
    pub fn find(storage: &Storage, location: Location, shape: &[usize], classes: usize) -> Result<Source> {
        let (features, labels) = encodings(location)?;
        let (files, manifest) = part_files(storage, location.features)?;
        let rows = manifest.as_ref().map(|manifest| manifest.rows);
        let shape = manifest.map_or(shape.to_vec(), |manifest| manifest.shape);
        let parts = match location.labels {
            None => files.into_iter().map(|features| Part { features, labels: None }).collect(),
            Some(dir) => pair(location.features, files, dir, part_files(storage, dir)?.0)?,
        };
        let schema = RowSchema { width: shape.iter().product(), classes };
        Ok(Source { storage: storage.clone(), shape, schema, features, labels, parts, rows })
    }

    /// The shape of a record.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What a record holds.
    pub fn schema(&self) -> RowSchema {
        self.schema
    }

    /// Streams the records of a part.
    ///
    /// # Errors
    /// When a file of it cannot be opened.
    pub fn open<T: Element>(&self, part: usize) -> Result<PartReader<T>> {
        self.open_at(part, PartPosition::default())
    }

    /// Streams the records of a part from `position` on, which a reader of it has told.
    ///
    /// # Errors
    /// When a file of it cannot be opened, or ends before.
    pub fn open_at<T: Element>(&self, part: usize, position: PartPosition) -> Result<PartReader<T>> {
        let Part { features, labels } = &self.parts[part];
        let labels = labels.as_ref().map(|file| self.open_file(file, self.labels, position.labels));
        let features = self.open_file(features, self.features, position.features)?;
        Ok(PartReader { features, labels: labels.transpose()?, rows: 0 })
    }

    /// Reads all parts, several at a time, in order.
    ///
    /// # Errors
    /// The first error of the first part that has one.
    pub fn read_all<T: Element>(&self) -> Result<Rows<T>> {
        Ok(self.read_within(u64::MAX)?.expect("there is no limit"))
    }

    /// Reads all parts, several at a time, in order; none when they hold more than `limit` bytes of features and labels, which a
    /// manifest tells at once and reading finds before much more than that is in memory.
    ///
    /// # Errors
    /// The first error of the first part that has one.
    pub fn read_within<T: Element>(&self, limit: u64) -> Result<Option<Rows<T>>> {
        let row = (self.schema.width * size_of::<T>() + size_of::<u32>()) as u64;
        if self.rows.is_some_and(|rows| rows.saturating_mul(row) > limit) {
            return Ok(None);
        }
        let all = AtomicU64::new(0);
        let fits = |count: usize| {
            let more = count as u64 * row;
            all.fetch_add(more, Ordering::Relaxed).saturating_add(more) <= limit
        };
        let read = |part| {
            let mut rows = Rows::default();
            let mut reader = self.open(part)?;
            loop {
                match reader.read_rows(ROWS_AT_ONCE, &mut rows)? {
                    0 => return Ok(Some(rows)),
                    count if !fits(count) => return Ok(None),
                    _ => {}
                }
            }
        };
        let parts: Vec<Result<Option<Rows<T>>>> = (0..self.parts.len()).into_par_iter().map(read).collect();
        let Some(parts) = parts.into_iter().collect::<Result<Option<Vec<_>>>>()? else { return Ok(None) };
        let mut all = Rows::default();
        let count = parts.iter().map(|part| part.features.len()).sum();
        if pages::reserve(&mut all.features, count).is_err() {
            // Fails as any other allocation does.
            all.features.reserve_exact(count);
        }
        for part in parts {
            all.features.extend(part.features);
            all.labels.extend(part.labels);
        }
        Ok(Some(all))
    }

    /// Reads one part.
    ///
    /// # Errors
    /// Those of its files.
    pub fn read_part<T: Element>(&self, part: usize) -> Result<Rows<T>> {
        let mut rows = Rows::default();
        self.open(part)?.read_rows(usize::MAX, &mut rows)?;
        Ok(rows)
    }

    fn open_file<T: Element>(
        &self,
        file: &PartFile,
        encoding: Encoding,
        position: Position,
    ) -> Result<FileReader<T>> {
        let open = |from: u64, to: u64| {
            Ok::<_, Error>(Whole { input: self.storage.open(&file.path, from..to)?, left: to - from })
        };
        let compressed = file.path.extension().is_some_and(|end| end == "gz");
        let from_here = open(position.bytes, file.bytes)?;
        let input: Box<dyn Read + Send> = match encoding {
            _ if compressed => Box::new(MultiGzDecoder::new(from_here)),
            Encoding::Pickle(_) if position.bytes > 0 => {
                Box::new(open(0, sequence_file::HEADER_BYTES)?.chain(from_here))
            }
            _ => Box::new(from_here),
        };
        let schema = self.schema;
        let rows: Box<dyn ReadRows<T> + Send> = match encoding {
            Encoding::Csv(layout) => Box::new(csv::Reader::new(input, layout, schema).at(position)),
            Encoding::Pickle(content) => Box::new(pickle::Reader::new(input, content, schema).at(position)),
            Encoding::TfRecord => Box::new(example::Reader::new(input, schema).at(position)),
        };
        let mut reader = FileReader { path: file.path.clone(), rows, compressed, given: 0 };
        for _ in 0..position.rows {
            reader.skip_row()?;
        }
        Ok(reader)
    }
}

/// How the files of features (or whole records) and of labels are written.
fn encodings(location: Location) -> Result<(Encoding, Encoding)> {
    use csv::Layout;
    let Location { format, labels, labels_required, .. } = location;
    let invalid = |what: &str| Err(Error::Invalid(format!("format {format}: {what}")));
    let features = match (format, labels) {
        (Format::Csv, Some(_)) => Encoding::Csv(Layout::Features),
        (Format::Csv, None) if labels_required => Encoding::Csv(Layout::LabelFirst),
        (Format::Csv, None) => Encoding::Csv(Layout::FeaturesOrLabelFirst),
        (Format::Pickle, None) if labels_required => {
            return invalid("labels lie apart, name them with --labels");
        }
        (Format::Pickle, _) => Encoding::Pickle(pickle::Content::Features),
        (Format::Csv2 | Format::TfRecord, Some(_)) => {
            return invalid("files hold their labels, leave --labels out");
        }
        (Format::Csv2, None) => Encoding::Csv(Layout::LabelBar),
        (Format::TfRecord, None) => Encoding::TfRecord,
    };
    let labels = match format {
        Format::Pickle => Encoding::Pickle(pickle::Content::Labels),
        _ => Encoding::Csv(Layout::OneHot),
    };
    Ok((features, labels))
}

/// The parts in `dir`, by number, and their manifest; a file is a part by itself.
fn part_files(storage: &Storage, dir: &Path) -> Result<(Vec<PartFile>, Option<Manifest>)> {
    let not_found = || Error::io("read", dir)(io::ErrorKind::NotFound.into());
    let entry = storage.stat(dir)?.ok_or_else(not_found)?;
    if !entry.is_dir {
        return Ok((vec![PartFile { path: dir.into(), bytes: entry.bytes }], None));
    }
    let mut entries = storage.list(dir)?;
    let is_whole = entries.iter().any(|entry| entry.name == SUCCESS);
    entries.retain(|entry| !entry.is_dir && entry.name.starts_with("part-") && !entry.name.ends_with(".crc"));
    entries.sort_by_cached_key(|entry| (part_number(&entry.name), entry.name.clone()));
    if entries.is_empty() {
        return Err(Error::Invalid(format!(
            "{} holds no part-* files: name the directory right above them",
            dir.display()
        )));
    }
    let manifest = Manifest::read(storage, dir)?;
    manifest.as_ref().map_or(Ok(()), |manifest| manifest.check(dir, &entries, is_whole))?;
    let file = |entry: Entry| PartFile { path: dir.join(entry.name), bytes: entry.bytes };
    Ok((entries.into_iter().map(file).collect(), manifest))
}

/// The number in `part-00012` and in `part-r-00012`.
fn part_number(name: &str) -> u64 {
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(u64::MAX)
}

fn pair(
    features_dir: &Path,
    features: Vec<PartFile>,
    labels_dir: &Path,
    labels: Vec<PartFile>,
) -> Result<Vec<Part>> {
    if features.len() != labels.len() {
        let what = format!("{} and {} parts", features.len(), labels.len());
        return Err(Error::Unpaired { features: features_dir.into(), labels: labels_dir.into(), what });
    }
    Ok(features
        .into_iter()
        .zip(labels)
        .map(|(features, labels)| Part { features, labels: Some(labels) })
        .collect())
}

/// The records of one part.
pub struct PartReader<T> {
    features: FileReader<T>,
    labels: Option<FileReader<T>>,
    /// Records read so far.
    rows: u64,
}

impl<T: Element> PartReader<T> {
    /// Appends up to `limit` records to `rows`, and returns how many there were: fewer only at the end of the part.
    ///
    /// # Errors
    /// Names the file and the place in it; also when features and labels do not end together.
    pub fn read_rows(&mut self, limit: usize, rows: &mut Rows<T>) -> Result<usize> {
        for count in 0..limit {
            let read = |file: &mut FileReader<T>| file.read_row(rows);
            if !self.next(read)? {
                return Ok(count);
            }
        }
        Ok(limit)
    }

    /// Passes over the next record; false at the end of the part.
    ///
    /// # Errors
    /// As [`PartReader::read_rows`], but not all of its records are looked at.
    pub fn skip_row(&mut self) -> Result<bool> {
        self.next(FileReader::skip_row)
    }

    /// Where the next record begins.
    pub fn position(&self) -> PartPosition {
        let labels = self.labels.as_ref().map(FileReader::position);
        PartPosition { features: self.features.position(), labels: labels.unwrap_or_default() }
    }

    /// Takes the next record of features and labels.
    fn next(&mut self, mut take: impl FnMut(&mut FileReader<T>) -> Result<bool>) -> Result<bool> {
        let read = take(&mut self.features)?;
        if let Some(labels) = &mut self.labels
            && take(labels)? != read
        {
            let (shorter, longer) = if read { ("labels", "features") } else { ("features", "labels") };
            return Err(Error::Unpaired {
                features: self.features.path.clone(),
                labels: labels.path.clone(),
                what: format!("the {shorter} end after {} records, the {longer} go on", self.rows),
            });
        }
        self.rows += u64::from(read);
        Ok(read)
    }
}

/// The records of one file, whose errors name it.
struct FileReader<T> {
    path: PathBuf,
    rows: Box<dyn ReadRows<T> + Send>,
    /// It can be read from its beginning only.
    compressed: bool,
    /// Records given out or skipped.
    given: u64,
}

impl<T: Element> FileReader<T> {
    fn read_row(&mut self, rows: &mut Rows<T>) -> Result<bool> {
        self.given += 1;
        self.rows.read_row(rows).map_err(|error| error.in_file(&self.path))
    }

    fn skip_row(&mut self) -> Result<bool> {
        self.given += 1;
        self.rows.skip_row().map_err(|error| error.in_file(&self.path))
    }

    fn position(&self) -> Position {
        if self.compressed {
            return Position { rows: self.given, ..Position::default() };
        }
        self.rows.position()
    }
}

/// A file of known length: an end before that is an error, because text would not notice.
struct Whole<R> {
    input: R,
    left: u64,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            let what = format!("expected {} more bytes: the file changed while it was read", self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        self.left -= count as u64;
        Ok(count)
    }
}
