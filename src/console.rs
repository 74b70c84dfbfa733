//! Lines on the terminal, or wherever standard output and error lead. A closed one is no error: the work goes on and ends in order.

use std::fmt::Display;
use std::io::Write;

/// A line on standard output.
pub fn line(text: impl Display) {
    write(&mut std::io::stdout(), text);
}

/// A line on standard error.
pub fn remark(text: impl Display) {
    write(&mut std::io::stderr(), text);
}

/// In one piece: several ranks share one terminal, and their lines are not to run into each other.
fn write(to: &mut impl Write, text: impl Display) {
    let _ = to.write_all(format!("{text}\n").as_bytes());
}
