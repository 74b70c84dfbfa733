//! A process that wants a core, as others on a shared machine do.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};

/// The argument that makes this program one.
pub const SPIN: &str = "--spin";

/// It lives as long as this value, and no longer than this process.
pub struct Competitor(Child);

impl Competitor {
    /// Starts it.
    ///
    /// # Errors
    /// If this program cannot be started once more.
    pub fn start() -> io::Result<Competitor> {
        let child = Command::new(std::env::current_exe()?).arg(SPIN).stdin(Stdio::piped()).spawn()?;
        Ok(Competitor(child))
    }
}

impl Drop for Competitor {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// What it does: until whoever has started it is gone, and with it the other end of its input.
pub fn spin() -> ! {
    std::thread::spawn(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    _ = io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0)
}
