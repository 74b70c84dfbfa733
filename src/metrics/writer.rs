//! The thread that writes metrics, once a second.

use super::growing::Growing;
use super::{Ended, EpochEnd, FILE, Line, Run, Steps};
use crate::error::Error;
use crate::events::{self, Summary};
use crate::histogram::LayerHistograms;
use crate::mistakes::Mistake;
use crate::storage::Storage;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// From one writing to the next.
const PAUSE: Duration = Duration::from_secs(1);

/// Lines that fit between two writings without an allocation: those of 10,000 steps a second with a line every third.
const ENTRIES: usize = 4096;

/// Entries that may wait for a writer that does not come to them; later ones are left out.
const ENTRIES_MAX: usize = 1 << 18;

/// What is to be written.
pub(super) enum Entry {
    Steps(Steps),
    Epoch(EpochEnd),
    Layers { step: u64, time: f64, layers: Vec<LayerHistograms> },
    End(Ended, Vec<Mistake>),
}

/// Where the training leaves what is to be written.
pub(super) struct Mailbox {
    content: Mutex<Content>,
    closed: Condvar,
}

struct Content {
    entries: Vec<Entry>,
    warning: Option<String>,
    is_closed: bool,
}

impl Default for Mailbox {
    fn default() -> Mailbox {
        let content = Content { entries: Vec::with_capacity(ENTRIES), warning: None, is_closed: false };
        Mailbox { content: Mutex::new(content), closed: Condvar::new() }
    }
}

impl Mailbox {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().expect("no panic while it is held")
    }

    /// Leaves something. The writer is not woken.
    pub fn put(&self, entry: Entry) {
        let mut content = self.content();
        if content.entries.len() < ENTRIES_MAX {
            content.entries.push(entry);
        } else {
            content.warning =
                Some("metrics of some steps are left out: they cannot be written as fast".to_owned());
        }
    }

    /// There will be nothing more.
    pub fn close(&self) {
        self.content().is_closed = true;
        self.closed.notify_all();
    }

    pub fn warn(&self, warning: String) {
        self.content().warning = Some(warning);
    }

    pub fn take_warning(&self) -> Option<String> {
        self.content().warning.take()
    }

    /// Exchanges what is there for `empty` when it is time to write; whether that was the last.
    fn collect(&self, empty: &mut Vec<Entry>) -> bool {
        let waiting = self.closed.wait_timeout_while(self.content(), PAUSE, |content| !content.is_closed);
        let (mut content, _) = waiting.expect("no panic while it is held");
        std::mem::swap(&mut content.entries, empty);
        content.is_closed
    }
}

/// The two files of a run.
pub(super) struct Writer {
    lines: Growing,
    events: Growing,
    summary: Summary,
    /// Whether the last writing failed, which was said.
    has_warned: bool,
}

impl Writer {
    /// Opens the files and writes what stands at their beginning, so that a place where nothing can be written is found now.
    pub fn open(storage: &Arc<Storage>, directory: &Path, run: Run) -> Result<Writer, Error> {
        let lines = Growing::open(storage, &directory.join(FILE))?;
        let name = format!("events.out.tfevents.{:010}.muster.{}", run.time as u64, std::process::id());
        let events = Growing::open(storage, &directory.join(name))?;
        let mut writer = Writer { lines, events, summary: Summary::default(), has_warned: false };
        let (time, next_step) = (run.time, run.first_step + 1);
        events::begin(time, next_step, writer.events.pending());
        let rows = run.options.iter().map(|(name, value)| format!("| {name} | {value} |\n"));
        let table =
            ["| option | value |\n|---|---|\n".to_owned()].into_iter().chain(rows).collect::<String>();
        writer.summary.text("options", &table);
        writer.summary.write(time, run.first_step, writer.events.pending());
        writer.line(&Line::Run(run));
        writer.lines.flush(true)?;
        writer.events.flush(true)?;
        Ok(writer)
    }

    /// Writes until the mailbox is closed.
    pub fn run(mut self, mailbox: &Mailbox) {
        let mut entries = Vec::with_capacity(ENTRIES);
        loop {
            let is_last = mailbox.collect(&mut entries);
            for entry in entries.drain(..) {
                self.write(entry);
            }
            let done = self.lines.flush(is_last).and(self.events.flush(is_last));
            if let (Err(error), false) = (&done, self.has_warned) {
                mailbox.warn(format!("no metrics: {error}; training goes on"));
            }
            self.has_warned = done.is_err();
            if is_last {
                return;
            }
        }
    }

    fn write(&mut self, entry: Entry) {
        match entry {
            Entry::Steps(steps) => {
                self.scalars(&steps);
                self.line(&Line::Steps(steps));
            }
            Entry::Epoch(end) => {
                let of_test =
                    [("test/loss", end.epoch.test_loss), ("test/accuracy", end.epoch.test_accuracy)];
                for (tag, value) in of_test {
                    if let Some(value) = value {
                        self.summary.scalar(tag, value as f32);
                    }
                }
                self.summary.write(end.time, end.step, self.events.pending());
                self.line(&Line::Epoch(end));
            }
            Entry::Layers { step, time, layers } => {
                for (layer, LayerHistograms { weights, gradients }) in layers.iter().enumerate() {
                    self.summary.histogram(&format!("layer_{layer}/weights"), weights);
                    self.summary.histogram(&format!("layer_{layer}/gradients"), gradients);
                }
                self.summary.write(time, step, self.events.pending());
            }
            Entry::End(end, mistakes) => {
                self.pictures(&mistakes);
                self.summary.write(end.time, end.step, self.events.pending());
                self.line(&Line::End(end));
            }
        }
    }

    fn line(&mut self, line: &Line) {
        let pending = self.lines.pending();
        serde_json::to_writer(&mut *pending, line).expect("plain data becomes JSON");
        pending.push(b'\n');
    }

    fn scalars(&mut self, steps: &Steps) {
        self.summary.scalar("train/loss", steps.loss);
        self.summary.scalar("train/accuracy", steps.accuracy);
        self.summary.scalar("train/learning_rate", steps.learning_rate);
        self.summary.scalar("train/images_per_second", steps.images_per_second);
        if let Some(missed) = steps.staleness {
            self.summary.scalar("train/staleness", missed.mean);
        }
        self.summary.write(steps.time, steps.step, self.events.pending());
    }

    fn pictures(&mut self, mistakes: &[Mistake]) {
        for (at, mistake) in mistakes.iter().enumerate() {
            let Mistake { label, prediction, .. } = mistake;
            let tag = format!("misread/{:02}_{label}_read_as_{prediction}", at + 1);
            let grey = mistake.bytes().expect("they were just written");
            self.summary.image(&tag, mistake.rows_and_columns(), &grey).expect("as many bytes as pixels");
        }
    }
}
