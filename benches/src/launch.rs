//! Jobs from start to end: `muster run … mnist train`, on a few digits beside the same program without a launcher, and on as many as
//! MNIST has.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use muster::format::idx;

use crate::Error;
use crate::job::Job;
use crate::measure::{Limit, Probe, Sample};
use crate::report::{Group, Unit};
use crate::trainer::random_images;

/// So few that reading and training them does not count.
const FEW: usize = 100;
/// MNIST's.
const MANY: usize = 60_000;
/// Pixels of an edge.
const EDGE: usize = 28;
/// One step of the smallest model, on two ranks.
const STEP: &str = "train --data few --hidden none --steps 1 --threads 1 --no-resume --cluster-size 2";
/// The same on four, and on as many records as MNIST has.
const STEP_OF_FOUR: &str = "train --data many --hidden none --steps 1 --threads 1 --no-resume";
/// An epoch of 784-128-10.
const EPOCH: &str = "train --data many --threads 1 --epochs 1 --no-resume";
/// Where the parts lie.
const PARTS: &str = "-f csv --images parts/train/images --labels parts/train/labels";
/// The figure without a launcher.
const ALONE: &str = "mnist train, 2 ranks, 1 step";

/// What all jobs need: both programs, and data.
struct Scene {
    muster: PathBuf,
    mnist: PathBuf,
    directory: tempfile::TempDir,
}

/// All jobs.
///
/// # Errors
/// If one of the programs does not lie beside this one, or fails to prepare the data.
pub fn probes() -> Result<Vec<Probe<'static>>, Error> {
    let scene = Rc::new(Scene::set()?);
    let probe = |name: &str, unit, limit, sample| {
        let (group, name) = (Group::Launch, name.to_owned());
        Probe { group, name, unit, limit, intensity: None, sample }
    };
    let mnist = |scene: &Scene| scene.command(&scene.mnist, STEP);
    let muster = |scene: &Scene| scene.muster("-n 2", STEP);
    let direct = |scene: &Scene| scene.muster("-n 3", EPOCH);
    let fed = |scene: &Scene| {
        scene.muster("-n 3 --feed", &format!("{} {PARTS}", EPOCH.replace("--data many ", "")))
    };
    let four = |scene: &Scene| scene.muster("-n 4", STEP_OF_FOUR);
    let seconds = |job: &Job| Ok(job.seconds);
    // One after the other is 1 s in 1 s.
    let limit = Some(Limit::Times(ALONE.to_owned(), 1.0));
    // What the job of four ranks takes at its end is taken from the run in which its beginning was.
    let end = Rc::new(Cell::new(0.0));
    let noted = end.clone();
    let begin = move |job: &Job| {
        noted.set(job.seconds - job.said("muster: all ranks are done")?);
        Ok(job.said("plan:")? - job.said("muster: reserve")?)
    };
    Ok(vec![
        probe(ALONE, Unit::Seconds, None, sample(&scene, mnist, false, seconds)),
        probe("the same by muster run", Unit::Seconds, limit, sample(&scene, muster, false, seconds)),
        probe("an epoch, 3 ranks", Unit::Seconds, None, sample(&scene, direct, false, seconds)),
        probe("an epoch, 3 ranks, fed from csv", Unit::Seconds, None, sample(&scene, fed, false, seconds)),
        probe("reserve to first step, 4 ranks", Unit::Seconds, None, sample(&scene, four, false, begin)),
        probe("shutdown, 4 ranks", Unit::Seconds, None, Box::new(move || Ok(end.get()))),
        probe("memory, an epoch, 3 ranks", Unit::Mbytes, None, sample(&scene, direct, true, megabytes)),
        probe("memory, the same fed from csv", Unit::Mbytes, None, sample(&scene, fed, true, megabytes)),
        probe("fed to 1 worker, 784-10", Unit::Records, None, feeding(&scene)),
    ])
}

/// Runs a job, and takes a figure from it.
fn sample(
    scene: &Rc<Scene>,
    command: impl Fn(&Scene) -> Command + 'static,
    is_weighed: bool,
    figure: impl Fn(&Job) -> Result<f64, Error> + 'static,
) -> Sample<'static> {
    let scene = scene.clone();
    Box::new(move || {
        let done = Job::run(&mut command(&scene), is_weighed);
        // The next run is to begin as this one did.
        _ = fs::remove_dir_all(scene.directory.path().join("mnist_model"));
        figure(&done?)
    })
}

fn megabytes(job: &Job) -> Result<f64, Error> {
    Ok(job.peak_bytes as f64 / 1e6)
}

/// The rate at which a worker is fed that has next to nothing to compute, by the report of a training.
fn feeding(scene: &Rc<Scene>) -> Sample<'static> {
    let report = scene.directory.path().join("report.json");
    let command = |scene: &Scene| {
        let arguments =
            format!("train --hidden none --threads 1 --epochs 4 --no-resume --report report.json {PARTS}");
        scene.muster("-n 2 --feed", &arguments)
    };
    sample(scene, command, false, move |_| {
        let text = fs::read(&report).map_err(Error::io("read", &report))?;
        let report: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        report["images_per_second"].as_f64().ok_or_else(|| Error::Program {
            program: "mnist".to_owned(),
            what: "its report has no images_per_second".to_owned(),
        })
    })
}

impl Scene {
    /// Finds the programs and writes the data.
    fn set() -> Result<Scene, Error> {
        let (muster, mnist) = (beside("muster")?, beside("mnist")?);
        let directory =
            tempfile::tempdir().map_err(Error::io("make a directory in", &std::env::temp_dir()))?;
        write_digits(&directory.path().join("few"), FEW)?;
        write_digits(&directory.path().join("many"), MANY)?;
        let scene = Scene { muster, mnist, directory };
        Job::run(&mut scene.command(&scene.mnist, "prepare --data many -f csv --output parts"), false)?;
        Ok(scene)
    }

    fn command(&self, program: &Path, arguments: &str) -> Command {
        let mut command = Command::new(program);
        command.args(arguments.split(' ')).current_dir(self.directory.path());
        command.env("XDG_RUNTIME_DIR", self.directory.path());
        command
    }

    fn muster(&self, options: &str, arguments: &str) -> Command {
        let mut command = self.command(&self.muster, &format!("run {options} --"));
        command.arg(&self.mnist).args(arguments.split(' '));
        command
    }
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

/// A data set like MNIST's, of so many records to train on.
fn write_digits(directory: &Path, records: usize) -> Result<(), Error> {
    let pixels = EDGE * EDGE;
    let (images, labels) = random_images(records, pixels, 10, 49);
    fs::create_dir_all(directory).map_err(Error::io("make", directory))?;
    for (set, records) in [("train", records), ("t10k", records.div_ceil(6))] {
        let dims: [(&str, &[usize], &[u8]); 2] = [
            ("images-idx3-ubyte", &[records, EDGE, EDGE], &images[..records * pixels]),
            ("labels-idx1-ubyte", &[records], &labels[..records]),
        ];
        for (kind, dims, data) in dims {
            let path = directory.join(format!("{set}-{kind}"));
            let bytes = [&idx::header(idx::Element::U8, dims), data].concat();
            fs::write(&path, bytes).map_err(Error::io("write", &path))?;
        }
    }
    Ok(())
}
