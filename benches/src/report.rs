//! What came out, as JSON that later programs read.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::machine::Machine;

/// The version of reports that this program writes; it reads those up to it.
pub const VERSION: u64 = 1;

/// Figures of one machine and one program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`] of the program that wrote it.
    pub version: u64,
    /// The program's own version.
    pub muster: String,
    /// `release`, or `dev` for a build whose figures say little.
    pub build: String,
    /// Where it was measured.
    pub machine: Machine,
    /// Ranks under mpirun; 1 for a process alone.
    pub ranks: usize,
    /// When it was measured, in seconds since 1970.
    pub unix_seconds: u64,
    /// How long it took.
    pub seconds: f64,
    /// All figures, limits first.
    pub figures: Vec<Figure>,
    /// What could not be measured.
    pub left_out: Vec<LeftOut>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it belongs to.
    pub group: Group,
    /// Its name; no other figure has it.
    pub name: String,
    /// What it is counted in.
    pub unit: Unit,
    /// Median over the rounds.
    pub value: f64,
    /// Lower quartile.
    pub low: f64,
    /// Upper quartile.
    pub high: f64,
    /// Rounds in which it was measured.
    pub rounds: usize,
    /// What it cannot pass; none for the limits themselves.
    pub limit: Option<Bound>,
    /// Floating-point operations for each byte, for kernels.
    pub intensity: Option<f64>,
}

/// The limit of a figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// The figure that it comes from.
    pub of: String,
    /// Median over the rounds, in the unit of the figure.
    pub value: f64,
    /// How much of it is reached: the median of what it was in each round.
    pub share: f64,
}

/// Why something was not measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// What.
    pub what: String,
    /// Why, and what mends it.
    pub why: String,
}

/// What figures belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// What the machine can do.
    Machine,
    /// Kernels on one thread.
    Kernels,
    /// Training.
    Training,
    /// Push and pull.
    Exchange,
    /// Reading data.
    Reading,
    /// A job from start to end.
    Launch,
}

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Billions of floating-point operations a second.
    #[serde(rename = "GFLOP/s")]
    Gflops,
    /// Billions of bytes a second.
    #[serde(rename = "GB/s")]
    Gbytes,
    /// Records a second.
    #[serde(rename = "records/s")]
    Records,
    /// Microseconds.
    #[serde(rename = "µs")]
    Micros,
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Millions of bytes.
    #[serde(rename = "MB")]
    Mbytes,
}

impl Group {
    /// All of them, in the order of reports.
    pub const ALL: [Group; 6] =
        [Group::Machine, Group::Kernels, Group::Training, Group::Exchange, Group::Reading, Group::Launch];

    /// A heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Machine => "Limits of this machine",
            Group::Kernels => "Kernels, one thread",
            Group::Training => "Training, batches of 100",
            Group::Exchange => "Push and pull of 784-128-10",
            Group::Reading => "Reading, one thread",
            Group::Launch => "A job from start to end",
        }
    }
}

impl Unit {
    /// As tables write it.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Gflops => "GFLOP/s",
            Unit::Gbytes => "GB/s",
            Unit::Records => "records/s",
            Unit::Micros => "µs",
            Unit::Seconds => "s",
            Unit::Mbytes => "MB",
        }
    }

    /// Whether more of it is better; of time and memory less is.
    pub fn is_rate(self) -> bool {
        !matches!(self, Unit::Micros | Unit::Seconds | Unit::Mbytes)
    }
}

impl Figure {
    /// Distance of the quartiles, in parts of the median.
    pub fn spread(&self) -> f64 {
        (self.high - self.low) / self.value
    }

    /// Whether its numbers can be true.
    fn is_sound(&self) -> bool {
        let ordered = 0.0 < self.low && self.low <= self.value && self.value <= self.high;
        let bounded = self.limit.as_ref().is_none_or(|limit| limit.value > 0.0 && limit.share > 0.0);
        ordered && bounded && self.rounds > 0
    }
}

impl Report {
    /// The figure of this name.
    pub fn figure(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        out.write_all(b"\n")
    }

    /// Reads what [`Report::write`] has written to a file.
    ///
    /// # Errors
    /// If it cannot be read, is none, is damaged, or is of a newer program.
    pub fn read(path: &Path) -> Result<Report, Error> {
        let text = fs::read(path).map_err(Error::io("read", path))?;
        let damaged = |what: String| Error::Damaged { path: path.to_owned(), what };
        let json: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        let version = json["version"].as_u64().ok_or_else(|| damaged("it has no version".to_owned()))?;
        if version > VERSION {
            return Err(Error::Newer { path: path.to_owned(), found: version, known: VERSION });
        }
        let report: Report = serde_json::from_value(json).map_err(|error| damaged(error.to_string()))?;
        match report.figures.iter().find(|figure| !figure.is_sound()) {
            Some(figure) => Err(damaged(format!("the figure `{}` cannot be true", figure.name))),
            None => Ok(report),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report of one kernel and its limits.
    pub(crate) fn report() -> Report {
        let figure = |group, name: &str, unit, value: f64| Figure {
            group,
            name: name.into(),
            unit,
            value,
            low: 0.99 * value,
            high: 1.01 * value,
            rounds: 7,
            limit: None,
            intensity: None,
        };
        let limit = Bound { of: "FMA avx2".into(), value: 100.0, share: 0.8 };
        let product = figure(Group::Kernels, "NN 100×128×784", Unit::Gflops, 80.0);
        let step = figure(Group::Exchange, "threads, 1 worker", Unit::Micros, 20.0);
        Report {
            version: VERSION,
            muster: "0.1.0".into(),
            build: "release".into(),
            machine: Machine {
                cpu: "a <CPU>".into(),
                cores: 2,
                backend: "avx2".into(),
                caches: vec![1 << 15],
            },
            ranks: 1,
            unix_seconds: 1_700_000_000,
            seconds: 12.5,
            figures: vec![
                figure(Group::Machine, "FMA avx2", Unit::Gflops, 100.0),
                figure(Group::Machine, "read L1", Unit::Gbytes, 200.0),
                Figure { limit: Some(limit), intensity: Some(29.0), ..product },
                step,
            ],
            left_out: vec![LeftOut { what: "HDFS".into(), why: "it is not there".into() }],
        }
    }

    fn read(text: &str) -> Result<Report, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Report::read(file.path())
    }

    fn json() -> String {
        let mut bytes = Vec::new();
        report().write(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&json()).unwrap(), report());
    }

    #[test]
    fn a_damaged_file_is_told() {
        let json = json();
        let half = &json[..json.len() / 2];
        let without_figures = json.replace("figures", "numbers");
        let negative = json.replacen("\"low\": 99.0", "\"low\": -1.0", 1);
        for (text, what) in [
            ("", "EOF"),
            (half, "EOF"),
            ("[1]", "no version"),
            ("{\"version\": \"x\"}", "no version"),
            (&without_figures, "missing field `figures`"),
            (&negative, "the figure `FMA avx2` cannot be true"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("muster bench"), "{what}: {error}");
        }
        let absent = Report::read(Path::new("/nowhere/bench.json")).unwrap_err().to_string();
        assert!(absent.contains("cannot read /nowhere/bench.json"), "{absent}");
    }

    #[test]
    fn a_newer_report_is_told_whatever_is_in_it() {
        let error = read(&format!("{{\"version\": {}, \"figures\": 7}}", VERSION + 1)).unwrap_err();
        assert!(matches!(error, Error::Newer { found, .. } if found == VERSION + 1), "{error}");
        assert!(error.to_string().contains("newer muster"), "{error}");
    }
}
