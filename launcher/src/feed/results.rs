//! The results of a fed inference on their way to their parts: in the order of the records, a line for each.

use super::Feeder;
use crate::error::Error;
use muster::parts::output::Output;
use muster::storage::Storage;
use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;

/// See the module.
pub struct Results<'a> {
    output: Option<Output<'a>>,
    storage: &'a Storage,
    directory: &'a Path,
    /// Names of parts and one past their last record, those that are not complete.
    expected: VecDeque<(String, u64, u64)>,
    /// Lines of the first of them.
    lines: Vec<u8>,
    /// Records whose lines are there.
    records: u64,
}

impl<'a> Results<'a> {
    /// A directory that appears whole at the end; or, where the end is open, whose parts appear one by one.
    ///
    /// # Errors
    /// If it is there already, or nothing can be written there.
    pub fn begin(
        storage: &'a Storage,
        directory: &'a Path,
        overwrite: bool,
        follow: bool,
    ) -> Result<Results<'a>, Error> {
        if follow && !overwrite && storage.stat(directory)?.is_some() {
            return Err(muster::Error::OutputExists(directory.to_owned()).into());
        }
        let output = if follow { None } else { Some(Output::begin(storage, directory, overwrite)?) };
        Ok(Results { output, storage, directory, expected: VecDeque::new(), lines: Vec::new(), records: 0 })
    }

    /// A part with these records will come.
    pub fn expect(&mut self, name: String, records: Range<u64>) {
        self.expected.push_back((name, records.start, records.end));
    }

    /// Takes what results there are, and writes the parts that are complete.
    ///
    /// # Errors
    /// If a part cannot be written, or there is not one line for each of its records.
    pub fn take(&mut self, feeder: &mut Feeder) -> Result<(), Error> {
        let mut lines = feeder.results();
        loop {
            while let Some((name, begin, end)) = self.expected.front()
                && self.records >= *end
            {
                self.write(name, end - begin)?;
                self.expected.pop_front();
                self.lines.clear();
            }
            let Some((count, new)) = lines.next() else { return Ok(()) };
            self.records += u64::from(count);
            self.lines.extend(new);
        }
    }

    fn write(&self, name: &str, records: u64) -> Result<(), Error> {
        let found = self.lines.iter().filter(|&&byte| byte == b'\n').count() as u64;
        if found != records {
            let found = format!("{found} lines for the {records} records of {name}");
            return Err(Error::Protocol { peer: "a worker".to_owned(), found });
        }
        match &self.output {
            Some(output) => {
                drop(output.write_part(Path::new(name), records, &|out| out.write_all(&self.lines))?)
            }
            None => self.storage.create(self.directory.join(name), &|out| out.write_all(&self.lines))?,
        }
        Ok(())
    }

    /// All parts have been written.
    ///
    /// # Errors
    /// Those of the storage.
    pub fn finish(self) -> Result<(), Error> {
        let Some(output) = self.output else { return Ok(()) };
        output.finish(Path::new(""))?;
        Ok(output.commit()?)
    }
}
