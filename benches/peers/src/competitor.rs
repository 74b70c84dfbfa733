//! Processes that want a core, as others on a shared machine do.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};

/// The argument that makes this program one of them.
pub const SPIN: &str = "--spin";

/// They live as long as this value, and no longer than this process.
pub struct Competitors(Vec<Child>);

impl Competitors {
    /// Starts so many.
    ///
    /// # Errors
    /// If this program cannot be started once more.
    pub fn start(count: usize) -> io::Result<Competitors> {
        let mut all = Competitors(Vec::new());
        for _ in 0..count {
            let child = Command::new(std::env::current_exe()?).arg(SPIN).stdin(Stdio::piped()).spawn()?;
            all.0.push(child);
        }
        Ok(all)
    }
}

impl Drop for Competitors {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended already.
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// What each does: until whoever has started it is gone, and with it the other end of its input.
pub fn spin() -> ! {
    std::thread::spawn(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    _ = io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0)
}
