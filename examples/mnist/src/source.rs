//! Where the digits come from: a directory, the cache (fetched when empty), or drawn by the program.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use muster::dataset::{Content, Dataset, check_same_shape, hex};
use muster::records::Records;

use crate::digests::Digests;
use crate::fetch::{FILES, Fetcher, Say};
use crate::synthetic;

/// The classes: the digits 0 to 9.
pub const CLASSES: usize = 10;
/// A pixel's byte stands for a number from 0 to 1.
pub const SCALE: f32 = 1.0 / 255.0;
/// The value of `--data` that asks for drawn digits; a directory of that name is `./synthetic`.
pub const SYNTHETIC: &str = "synthetic";

const MNIST: &str = "mnist";
const CUSTOM: &str = "custom";

/// A training set, a test set, or both, of equal shape.
pub struct Mnist {
    /// The digits to train on.
    pub train: Option<Dataset>,
    /// The digits to test on.
    pub test: Option<Dataset>,
    /// `mnist` when all four files have MNIST's SHA-256, `synthetic`, else `custom`.
    pub name: &'static str,
    /// What the user must be told before anything is done with this data.
    pub warning: Option<String>,
    /// The directory, or `synthetic`, for messages.
    origin: PathBuf,
}

/// Opens what `--data` names; `None` stands for the cache, which is fetched into when it is not whole. When
/// that fails, too, the digits are drawn and [`Mnist::warning`] says so. What `digests` know already is not computed again.
///
/// # Errors
/// When the named directory has no data set or a damaged one.
pub fn open(data: Option<&Path>, say: Say, digests: &Digests) -> Result<Mnist> {
    match data {
        Some(data) if data == Path::new(SYNTHETIC) => Ok(drawn()),
        Some(directory) => load(directory, digests),
        None => cached_or_fetched(&cache_dir(say), &Fetcher::from_env(say), digests),
    }
}

/// The directory for the four raw files: `muster/mnist` in `$XDG_CACHE_HOME`, else in `~/.cache`; without a
/// home that can be written, in the directory for temporary files.
pub fn cache_dir(say: Say) -> PathBuf {
    usable_cache_dir(cache_base(std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")), say)
}

fn usable_cache_dir(base: Option<PathBuf>, say: Say) -> PathBuf {
    match base.map(|base| base.join("muster/mnist")) {
        Some(directory) if fs::create_dir_all(&directory).is_ok() => directory,
        unusable => {
            let temporary = std::env::temp_dir().join("muster/mnist");
            let why = unusable.map_or("neither XDG_CACHE_HOME nor HOME is set".into(), |directory| {
                format!("cannot create {}", directory.display())
            });
            say(&format!(
                "{why}: caching in {}; set XDG_CACHE_HOME to choose another place",
                temporary.display()
            ));
            temporary
        }
    }
}

/// The XDG base directory specification: a path that is not absolute counts as not set.
fn cache_base(xdg_cache_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: Option<OsString>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(xdg_cache_home).or_else(|| Some(absolute(home)?.join(".cache")))
}

fn cached_or_fetched(cache: &Path, fetcher: &Fetcher, digests: &Digests) -> Result<Mnist> {
    if let Ok(cached) = load(cache, digests)
        && cached.name == MNIST
    {
        return Ok(cached);
    }
    match fetcher.fetch(cache) {
        Ok(()) => load(cache, digests),
        Err(error) => Ok(Mnist { warning: Some(synthetic_warning(&error)), ..drawn() }),
    }
}

fn synthetic_warning(error: &anyhow::Error) -> String {
    let frame = "*".repeat(72);
    format!(
        "{frame}\n\
         WARNING: these are SYNTHETIC digits drawn by the program, NOT MNIST:\n\
         {error:#}.\n\
         --data DIR takes the four files from another directory; --data synthetic asks\n\
         for these digits without a warning.\n\
         {frame}"
    )
}

fn drawn() -> Mnist {
    let (train, test) = synthetic::train_and_test(60_000, 10_000);
    let origin = SYNTHETIC.into();
    Mnist { train: Some(train), test: Some(test), name: SYNTHETIC, warning: None, origin }
}

/// Loads the sets that `directory` holds, each file raw or `.gz`, with their digests.
fn load(directory: &Path, digests: &Digests) -> Result<Mnist> {
    let entries = fs::read_dir(directory);
    if let Err(error) = entries {
        bail!(
            "cannot read the directory {}: {error}; --data names one with the files of MNIST",
            directory.display()
        );
    }
    let (train, test) = rayon::join(|| load_pair(directory, 0, digests), || load_pair(directory, 2, digests));
    let (train, test) = (train?, test?);
    ensure!(
        train.is_some() || test.is_some(),
        "{} holds neither {} nor {}, raw or .gz; name the directory that does with --data",
        directory.display(),
        FILES[0].name,
        FILES[2].name
    );
    if let (Some(train), Some(test)) = (&train, &test) {
        check_same_shape((train.path(), train.shape()), (test.path(), test.shape()))?;
    }
    let is_mnist =
        |set: &Option<Dataset>, first| set.as_ref().is_some_and(|set| is_mnist(set.content(), first));
    let name = if is_mnist(&train, 0) && is_mnist(&test, 2) { MNIST } else { CUSTOM };
    Ok(Mnist { train, test, name, warning: None, origin: directory.to_owned() })
}

/// The set whose images are `FILES[first]` and whose labels are the next, if its images are there.
fn load_pair(directory: &Path, first: usize, digests: &Digests) -> Result<Option<Dataset>> {
    let [images, labels] = [first, first + 1].map(|i| find(directory, FILES[i].name));
    match (images, labels) {
        (Some(images), labels) => {
            let dataset = Dataset::from_idx(&images, labels.as_deref(), SCALE, CLASSES)?;
            let files: Vec<&Path> = [Some(&*images), labels.as_deref()].into_iter().flatten().collect();
            digests.content(&dataset, &files);
            Ok(Some(dataset))
        }
        (None, Some(labels)) => {
            bail!("{} is there but not its images, {}; add them", labels.display(), FILES[first].name)
        }
        (None, None) => Ok(None),
    }
}

/// The raw file, else the compressed one.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    [name.to_owned(), format!("{name}.gz")]
        .map(|name| directory.join(name))
        .into_iter()
        .find(|path| path.exists())
}

fn is_mnist(content: &Content, first: usize) -> bool {
    hex(&content.features_sha256) == FILES[first].sha256
        && content.labels_sha256.is_some_and(|digest| hex(&digest) == FILES[first + 1].sha256)
}

/// What is trained on and, for evaluation, another set of equal shape; both are labelled.
pub struct Training {
    /// The digits to train on.
    pub train: Records,
    /// The digits to test on.
    pub test: Option<Records>,
    /// As in [`Mnist`].
    pub name: &'static str,
}

impl Training {
    /// Digits that were read from parts.
    ///
    /// # Errors
    /// When they have different shapes.
    pub fn of_parts(train: Records, test: Option<Records>) -> Result<Training> {
        if let Some(test) = &test {
            check_same_shape((train.path(), train.shape()), (test.path(), test.shape()))?;
        }
        let tests_mnist = test.as_ref().is_none_or(|test| is_mnist(test.content(), 2));
        let name = if is_mnist(train.content(), 0) && tests_mnist { MNIST } else { CUSTOM };
        Ok(Training { train, test, name })
    }
}

impl Mnist {
    /// The labelled training set, and the labelled test set where there is one.
    ///
    /// # Errors
    /// When there is no training set, or labels are missing.
    pub fn into_training(self) -> Result<Training> {
        let origin = self.origin.display();
        let Some(train) = self.train else {
            bail!("{origin} holds no {}, raw or .gz; training needs it and its labels", FILES[0].name);
        };
        for (dataset, labels) in [(Some(&train), &FILES[1]), (self.test.as_ref(), &FILES[3])] {
            let labelled = dataset.is_none_or(|dataset| dataset.labels().is_some());
            ensure!(labelled, "{origin} holds no {}, raw or .gz; training needs it", labels.name);
        }
        Ok(Training { train: train.into(), test: self.test.map(Records::from), name: self.name })
    }

    /// The set to predict: the test set, else the training set; it may have no labels.
    pub fn into_inference(self) -> Dataset {
        self.test.or(self.train).expect("there is a training set or a test set")
    }
}
