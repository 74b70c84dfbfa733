//! What a person sees: lines on standard output, remarks and a progress bar on standard error.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
pub use muster::console::{line, remark};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

/// Writes to the terminal.
pub struct Console {
    bar: ProgressBar,
}

impl Console {
    /// With a progress bar of `total` units where standard error is a terminal, without one where `total` is 0.
    pub fn new(total: u64, unit: &str) -> Console {
        let bar = if total == 0 { ProgressBar::hidden() } else { ProgressBar::new(total) };
        let template = format!("{{bar:30}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left  {{msg}}");
        bar.set_style(ProgressStyle::with_template(&template).expect("a valid template"));
        Console { bar }
    }

    /// A line on standard output.
    pub fn line(&self, text: impl Display) {
        self.bar.suspend(|| line(text));
    }

    /// A line on standard error.
    pub fn remark(&self, text: impl Display) {
        self.bar.suspend(|| remark(text));
    }

    /// Moves the progress bar.
    pub fn progress(&self, position: u64, message: impl FnOnce() -> String) {
        if !self.bar.is_hidden() {
            self.bar.set_message(message());
            self.bar.set_position(position);
        }
    }

    /// Moves the progress bar on, from any thread.
    pub fn advance(&self, by: u64) {
        self.bar.inc(by);
    }

    /// Removes the progress bar.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// The local time as Python's `datetime.now().isoformat()` prints it: microseconds, unless they are 0.
pub fn now() -> String {
    isoformat(jiff::ZonedDateTime::now().datetime())
}

fn isoformat(time: jiff::civil::DateTime) -> String {
    let micros = time.subsec_nanosecond() / 1000;
    let seconds = time.strftime("%Y-%m-%dT%H:%M:%S");
    if micros == 0 { seconds.to_string() } else { format!("{seconds}.{micros:06}") }
}

/// `interrupt`, which becomes the number of the first SIGINT or SIGTERM; a second one ends the process at once.
pub fn interrupts(interrupt: Arc<AtomicUsize>) -> Result<Arc<AtomicUsize>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let seen = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, seen.clone())?;
        signal_hook::flag::register(signal, seen.clone())?;
        signal_hook::flag::register_usize(signal, interrupt.clone(), signal as usize)?;
    }
    Ok(interrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_python_s() {
        let time = |nanoseconds| isoformat(jiff::civil::date(2017, 2, 10).at(23, 29, 17, nanoseconds));
        assert_eq!(time(9_563_999), "2017-02-10T23:29:17.009563");
        assert_eq!(time(999), "2017-02-10T23:29:17");
    }
}
