//! What this machine lacks for a test: said aloud, and listed at the end of `make test`.

use std::fs::File;
use std::io::Write;

/// Names a file; each line in it is printed at the end of `make test` as "not on this machine".
const LIST: &str = "MUSTER_ABSENT";

/// Says past the test harness, which hides what passing tests print, that something could not be shown here.
pub fn absent(what: &str) {
    let _ = writeln!(std::io::stderr(), "NOT ON THIS MACHINE: {what}");
    if let Some(list) = std::env::var_os(LIST) {
        let mut list = File::options().append(true).create(true).open(list).expect("the list can be written");
        writeln!(list, "{what}").expect("the list can be written");
    }
}

/// Whether this is a run that must not leave out what can be installed.
pub fn under_ci() -> bool {
    std::env::var_os("CI").is_some()
}
