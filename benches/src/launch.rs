//! A job from start to end: `muster run … mnist train` on a few digits, beside the same program without a launcher.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use muster::format::idx;

use crate::Error;
use crate::measure::{Limit, Probe, Sample};
use crate::report::{Group, Unit};
use crate::trainer::random_images;

/// So few that reading and training them does not count.
const RECORDS: usize = 100;
/// Pixels of an edge.
const EDGE: usize = 28;
/// What is trained: one step of the smallest model, on two ranks.
const TRAINING: &str = "train --data data --hidden none --steps 1 --threads 1 --no-resume --cluster-size 2";
/// The figure without a launcher.
const ALONE: &str = "mnist train, 2 ranks, 1 step";

/// Both ways to start it.
///
/// # Errors
/// If one of the programs does not lie beside this one.
pub fn probes() -> Result<Vec<Probe<'static>>, Error> {
    let (muster, mnist) = (beside("muster")?, beside("mnist")?);
    let directory = tempfile::tempdir().map_err(Error::io("make a directory in", &std::env::temp_dir()))?;
    write_digits(&directory.path().join("data"))?;
    let directory = Rc::new(directory);
    let sample = |start: &[&Path], options: &[&str]| -> Sample<'static> {
        let mut command = Command::new(start[0]);
        command.args(options).args(&start[1..]).args(TRAINING.split(' '));
        command.current_dir(directory.path()).env("XDG_RUNTIME_DIR", directory.path());
        let directory = directory.clone();
        Box::new(move || seconds(&mut command, &directory))
    };
    let probe = |name: &str, limit, sample| {
        let (group, name) = (Group::Launch, name.to_owned());
        Probe { group, name, unit: Unit::Seconds, limit, intensity: None, sample }
    };
    // One after the other is 1 s in 1 s.
    let limit = Some(Limit::Times(ALONE.to_owned(), 1.0));
    Ok(vec![
        probe(ALONE, None, sample(&[&mnist], &[])),
        probe("the same by muster run", limit, sample(&[&muster, &mnist], &["run", "-n", "2", "--"])),
    ])
}

/// The program of this name in the directory of this one, or in the one above, where tests run.
fn beside(name: &str) -> Result<PathBuf, Error> {
    let here = std::env::current_exe().map_err(Error::io("find", Path::new("this program")))?;
    let found =
        here.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    let what = || {
        format!(
            "there is no `{name}` beside {}: build both with cargo build --release -p muster-launcher -p mnist",
            here.display()
        )
    };
    found.ok_or_else(|| Error::Usage(what()))
}

/// Runs a program to its end.
fn seconds(command: &mut Command, directory: &tempfile::TempDir) -> Result<f64, Error> {
    let start = Instant::now();
    let output = command.output().map_err(Error::io("start", Path::new(command.get_program())))?;
    let seconds = start.elapsed().as_secs_f64();
    // The next run is to begin as this one did.
    _ = fs::remove_dir_all(directory.path().join("mnist_model"));
    if output.status.success() {
        return Ok(seconds);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let what = said.lines().last().unwrap_or("it said nothing").to_owned();
    Err(Error::Program { program: format!("{command:?}"), what })
}

/// A data set like MNIST's.
fn write_digits(directory: &Path) -> Result<(), Error> {
    let (images, labels) = random_images(RECORDS, EDGE * EDGE, 10, 49);
    fs::create_dir_all(directory).map_err(Error::io("make", directory))?;
    for set in ["train", "t10k"] {
        let dims: [(&str, &[usize], &[u8]); 2] = [
            ("images-idx3-ubyte", &[RECORDS, EDGE, EDGE], &images),
            ("labels-idx1-ubyte", &[RECORDS], &labels),
        ];
        for (kind, dims, data) in dims {
            let path = directory.join(format!("{set}-{kind}"));
            let bytes = [&idx::header(idx::Element::U8, dims), data].concat();
            fs::write(&path, bytes).map_err(Error::io("write", &path))?;
        }
    }
    Ok(())
}
