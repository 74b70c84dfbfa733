//! The command line of `muster bench`, and the command itself.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use muster::console::remark;
use muster_collective::World;
use tempfile::NamedTempFile;

use crate::Error;
use crate::compare::Comparison;
use crate::report::Report;
use crate::{page, suite, table};

/// Seconds that a suite takes.
const SECONDS: f64 = 120.0;
/// With `--quick`: a few less than the half minute it promises, for what lies around the rounds.
const SECONDS_QUICK: f64 = 22.0;

/// How long ranks wait for one that is stopped while their world is set up or ended.
const RANK_TIMEOUT: Duration = Duration::from_secs(60);

/// `muster bench`
#[derive(Args, Debug)]
pub struct Options {
    /// Measure for less than half a minute, in fewer rounds
    #[arg(long)]
    pub quick: bool,
    /// Seconds to measure for, about [default: 120, with --quick 22]
    #[arg(long, value_name = "SECS", value_parser = seconds, conflicts_with = "quick")]
    pub seconds: Option<Duration>,
    /// The figures, for --compare and for programs
    #[arg(long, value_name = "FILE", default_value = "bench.json")]
    pub json: PathBuf,
    /// The figures as a page with a roofline plot, complete in itself
    #[arg(long, value_name = "FILE", default_value = "bench.html")]
    pub html: PathBuf,
    /// Mark what got slower, beyond the noise, since this file was written by --json
    #[arg(long, value_name = "OLD.json")]
    pub compare: Option<PathBuf>,
}

impl Options {
    /// Measures, writes both files, and prints the table. In a world under mpirun, rank 0 does so.
    ///
    /// # Errors
    /// Before anything is measured: a file that cannot be written, or an old report that cannot be compared with. Then those of the
    /// suite.
    pub fn run(&self) -> Result<(), Error> {
        let Some(world) = World::join(RANK_TIMEOUT, say)? else { return self.run_in(None) };
        match self.run_in(Some(&world)) {
            Ok(()) => Ok(world.leave()?),
            Err(error) => {
                remark(error);
                world.abort()
            }
        }
    }

    fn run_in(&self, world: Option<&World>) -> Result<(), Error> {
        let time = self.time();
        if world.is_some_and(|world| world.rank() > 0) {
            return suite::run(time, world).map(|_| ());
        }
        let old = self.compare.as_deref().map(|path| self.old(path)).transpose()?;
        let (json, html) = (Output::begin(&self.json)?, Output::begin(&self.html)?);
        remark(format_args!("muster bench: measuring for about {:.0} s", time.as_secs_f64()));
        let report = suite::run(time, world)?.expect("rank 0 gets the report");
        let comparison = old.map(|old| Comparison::of(&report, &old));
        json.finish(|out| report.write(out))?;
        html.finish(|out| out.write_all(page::html(&report, comparison.as_ref()).as_bytes()))?;
        // A closed terminal is no error: the files are written.
        _ = io::stdout().write_all(table::text(&report, comparison.as_ref()).as_bytes());
        remark(format_args!("muster bench: wrote {} and {}", self.json.display(), self.html.display()));
        Ok(())
    }

    fn time(&self) -> Duration {
        let default = if self.quick { SECONDS_QUICK } else { SECONDS };
        self.seconds.unwrap_or(Duration::from_secs_f64(default))
    }

    /// The report to compare with, which must not be the file that is written.
    fn old(&self, path: &Path) -> Result<Report, Error> {
        let old = path.canonicalize().ok();
        if old.is_some() && old == self.json.canonicalize().ok() {
            let what = format!(
                "--json would replace {}, which is to be compared with; name another file",
                path.display()
            );
            return Err(Error::Usage(what));
        }
        Report::read(path)
    }
}

/// A file on its way, which replaces what is at its path only once it is whole.
struct Output<'a> {
    path: &'a Path,
    file: NamedTempFile,
}

impl<'a> Output<'a> {
    /// Finds out before the suite runs whether the file can be written.
    fn begin(path: &'a Path) -> Result<Output<'a>, Error> {
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if path.is_dir() {
            return Err(Error::io("write", path)(io::ErrorKind::IsADirectory.into()));
        }
        let file = NamedTempFile::new_in(directory).map_err(Error::io("write", path))?;
        Ok(Output { path, file })
    }

    fn finish(mut self, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
        let mut out = io::BufWriter::new(&mut self.file);
        fill(&mut out).and_then(|()| out.flush()).map_err(Error::io("write", self.path))?;
        drop(out);
        let persisted = self.file.persist(self.path).map_err(|error| error.error).and_then(readable_by_all);
        persisted.map_err(Error::io("write", self.path))
    }
}

/// A temporary file is for its owner only; a report is not.
fn readable_by_all(file: std::fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

/// Why the job ends with another rank.
fn say(reason: &str) {
    remark(format_args!("muster bench: {reason}; the job ends"));
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|&seconds: &f64| seconds > 0.0 && seconds <= 1e6);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "a number of seconds above 0 is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;
    use std::fs;

    fn options(directory: &Path) -> Options {
        let [json, html] = ["bench.json", "bench.html"].map(|name| directory.join(name));
        Options { quick: true, seconds: None, json, html, compare: None }
    }

    #[test]
    fn what_cannot_be_written_or_compared_is_told_before_anything_is_measured() {
        let directory = tempfile::tempdir().unwrap();
        let nowhere = Options { json: directory.path().join("no/bench.json"), ..options(directory.path()) };
        assert!(nowhere.run_in(None).unwrap_err().to_string().contains("no/bench.json"));
        let folder = Options { html: directory.path().to_owned(), ..options(directory.path()) };
        assert!(folder.run_in(None).unwrap_err().to_string().contains("cannot write"));
        let same =
            Options { compare: Some(directory.path().join("bench.json")), ..options(directory.path()) };
        report().write(&mut fs::File::create(&same.json).unwrap()).unwrap();
        assert!(same.run_in(None).unwrap_err().to_string().contains("--json would replace"));
        assert_eq!(Report::read(&same.json).unwrap(), report(), "it is still there");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn a_quick_suite_keeps_its_promise() {
        assert!(options(Path::new(".")).time() < Duration::from_secs(30));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(["0", "-1", "nan", "x"].into_iter().all(|text| seconds(text).is_err()));
    }
}
