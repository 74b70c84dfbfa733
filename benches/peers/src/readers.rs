//! Reading csv on one thread: ours beside what a Python programmer would pick, in turns.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use muster::format::csv;
use muster::format::{ReadRows, RowSchema, Rows, RowsView};

use muster_benches::measure::median;

/// Gigabytes of text a second, by reader, and how many times as fast as each peer ours is.
pub struct Reading {
    /// The readers; ours is `muster`.
    pub rates: BTreeMap<String, f64>,
    /// Medians of the ratios of each round.
    pub ours_by_theirs: BTreeMap<String, f64>,
}

/// Python with the peers, which reads the file each time that it is asked to.
struct Peers {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Peers {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Peers {
    /// None where they are not installed.
    fn start(file: &Path, rows: usize, columns: usize) -> Option<Peers> {
        let mut command = Command::new(crate::root().join("target/peers/venv/bin/python"));
        command
            .arg(crate::root().join("benches/peers/read_csv.py"))
            .arg(file)
            .args([rows.to_string(), columns.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let (ask, answers) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        Some(Peers { child, ask, answers })
    }

    /// The seconds of each of them.
    fn seconds(&mut self) -> io::Result<BTreeMap<String, f64>> {
        let mut answer = String::new();
        self.ask.write_all(b"\n")?;
        self.ask.flush()?;
        self.answers.read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }
}

/// Reads images `[rows, width]` from text, round after round; the rates of the peers are left out where they are not installed.
///
/// # Errors
/// When the text cannot be written, or a peer fails.
pub fn measure(images: &[u8], width: usize, rounds: usize) -> io::Result<Reading> {
    let (schema, rows) = (RowSchema { width, classes: 1 }, images.len() / width);
    let file = tempfile::NamedTempFile::new()?;
    let labels = vec![0; rows];
    csv::write_features(RowsView { features: images, labels: &labels }, schema, &mut file.as_file())?;
    let bytes = file.as_file().metadata()?.len() as f64;
    let mut peers = Peers::start(file.path(), rows, width);
    let mut seconds: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 0..=rounds {
        let mut of_round = peers.as_mut().map_or(Ok(BTreeMap::new()), Peers::seconds)?;
        of_round.insert("muster".to_owned(), read(file.path(), schema, rows)?);
        // The first round warms up.
        for (name, value) in of_round.into_iter().filter(|_| round > 0) {
            seconds.entry(name).or_default().push(value);
        }
    }
    let ours = &seconds["muster"];
    let ratio =
        |theirs: &Vec<f64>| median(ours.iter().zip(theirs).map(|(ours, theirs)| theirs / ours).collect());
    let ours_by_theirs = seconds.iter().map(|(name, theirs)| (name.clone(), ratio(theirs))).collect();
    let rates = seconds.iter().map(|(name, all)| (name.clone(), bytes / median(all.clone()) / 1e9)).collect();
    Ok(Reading { rates, ours_by_theirs })
}

fn read(path: &Path, schema: RowSchema, rows: usize) -> io::Result<f64> {
    let start = Instant::now();
    let mut reader = csv::Reader::new(std::fs::File::open(path)?, csv::Layout::Features, schema);
    let mut all = Rows::<u8>::default();
    let count = reader.read_rows(usize::MAX, &mut all).map_err(io::Error::other)?;
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(black_box(all).features.len(), count * schema.width);
    assert_eq!(count, rows, "all rows are read");
    Ok(seconds)
}
