//! Reading data sets: a part at a time, or all of them into memory.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use rayon::prelude::*;

use super::Format;
use super::manifest::Manifest;
use crate::error::{Error, Result};
use crate::format::{Element, ReadRows, RowSchema, Rows, csv, example, pickle};
use crate::storage::Storage;

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

/// A data set that was found.
pub struct Source<'a> {
    storage: &'a Storage,
    shape: Vec<usize>,
    schema: RowSchema,
    /// How features, or whole records, are written.
    features: Encoding,
    /// How labels are written, where they lie apart.
    labels: Encoding,
    parts: Vec<Part>,
}

impl<'a> Source<'a> {
    /// Finds the parts of the data set at `location`, in the order of their numbers. A record has the shape that the
    /// manifest tells, where there is one, else `shape`.
    ///
    /// # Errors
    /// When there are none, when features and labels have different numbers of them, or when labels are asked for in a
    /// place where the format has none.
    pub fn find(
        storage: &'a Storage,
        location: Location,
        shape: &[usize],
        classes: usize,
    ) -> Result<Source<'a>> {
        let (features, labels) = encodings(location)?;
        let (files, manifest) = part_files(storage, location.features)?;
        let shape = manifest.map_or(shape.to_vec(), |manifest| manifest.shape);
        let parts = match location.labels {
            None => files.into_iter().map(|features| Part { features, labels: None }).collect(),
            Some(dir) => pair(location.features, files, dir, part_files(storage, dir)?.0)?,
        };
        let schema = RowSchema { width: shape.iter().product(), classes };
        Ok(Source { storage, shape, schema, features, labels, parts })
    }

    /// The shape of a record.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Streams the records of a part.
    ///
    /// # Errors
    /// When a file of it cannot be opened.
    pub fn open<T: Element>(&self, part: usize) -> Result<PartReader<T>> {
        let Part { features, labels } = &self.parts[part];
        Ok(PartReader {
            features: self.open_file(features, self.features)?,
            labels: labels.as_ref().map(|file| self.open_file(file, self.labels)).transpose()?,
            rows: 0,
        })
    }

    /// Reads all parts, several at a time, in order.
    ///
    /// # Errors
    /// The first error of the first part that has one.
    pub fn read_all<T: Element>(&self) -> Result<Rows<T>> {
        let parts: Vec<Result<Rows<T>>> =
            (0..self.parts.len()).into_par_iter().map(|part| self.read_part(part)).collect();
        let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
        let mut all = Rows::default();
        all.features.reserve_exact(parts.iter().map(|part| part.features.len()).sum());
        for part in parts {
            all.features.extend(part.features);
            all.labels.extend(part.labels);
        }
        Ok(all)
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

    fn open_file<T: Element>(&self, file: &PartFile, encoding: Encoding) -> Result<FileReader<T>> {
        let input = self.storage.open(&file.path, 0..file.bytes)?;
        let whole = Whole { input, left: file.bytes };
        let input: Box<dyn Read + Send> = if file.path.extension().is_some_and(|end| end == "gz") {
            Box::new(MultiGzDecoder::new(whole))
        } else {
            Box::new(whole)
        };
        let rows: Box<dyn ReadRows<T> + Send> = match encoding {
            Encoding::Csv(layout) => Box::new(csv::Reader::new(input, layout, self.schema)),
            Encoding::Pickle(content) => Box::new(pickle::Reader::new(input, content, self.schema)),
            Encoding::TfRecord => Box::new(example::Reader::new(input, self.schema)),
        };
        Ok(FileReader { path: file.path.clone(), rows })
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
    entries.retain(|entry| !entry.is_dir && entry.name.starts_with("part-") && !entry.name.ends_with(".crc"));
    entries.sort_by_cached_key(|entry| (part_number(&entry.name), entry.name.clone()));
    if entries.is_empty() {
        return Err(Error::Invalid(format!(
            "{} holds no part-* files: name the directory right above them",
            dir.display()
        )));
    }
    let files = entries
        .into_iter()
        .map(|entry| PartFile { path: dir.join(entry.name), bytes: entry.bytes })
        .collect();
    Ok((files, Manifest::read(storage, dir)?))
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

impl<T: Element> ReadRows<T> for PartReader<T> {
    fn read_row(&mut self, rows: &mut Rows<T>) -> Result<bool> {
        let read = self.features.read_row(rows)?;
        if let Some(labels) = &mut self.labels
            && labels.read_row(rows)? != read
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
}

impl<T: Element> FileReader<T> {
    fn read_row(&mut self, rows: &mut Rows<T>) -> Result<bool> {
        self.rows.read_row(rows).map_err(|error| error.in_file(&self.path))
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
