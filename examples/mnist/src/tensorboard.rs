//! TensorBoard beside a training: a process that shows its log directory, and ends with it.

use anyhow::{Context, Result, anyhow, bail};
use muster_launcher::output::Output;
use muster_launcher::process::{Orphaned, Process, Running};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The log directory of a training with `--tensorboard` but without `--log-dir`.
pub const LOG_DIR: &str = "mnist_logs";

/// Which port TensorBoard takes, as in TensorFlowOnSpark; without it a free one.
const PORT: &str = "TENSORBOARD_PORT";

/// The longest that its start may take: it loads a lot of Python.
const START_MAX: Duration = Duration::from_secs(120);

/// The longest that it may take to end.
const END_MAX: Duration = Duration::from_secs(3);

/// TensorBoard at work. It ends when this is dropped, and when this process ends, however it does.
pub struct TensorBoard(Process);

impl TensorBoard {
    /// Starts it on a directory of this machine, waits until it answers, and prints its address.
    ///
    /// # Errors
    /// If it is not installed, its port is taken, or it does not start.
    pub fn start(directory: &Path) -> Result<TensorBoard> {
        let port = port()?;
        let mut command = Command::new("tensorboard");
        command.arg("--logdir").arg(directory).args(["--host", "localhost", "--port", &port.to_string()]);
        let discarded = Output::captured(tempfile::tempfile().context("cannot start TensorBoard")?);
        let process = Process::spawn(command, Orphaned::Killed, discarded).map_err(|error| {
            anyhow!("{error}; install it with `pip install tensorboard`, or leave --tensorboard out")
        })?;
        let mut tensorboard = TensorBoard(process);
        let address = tensorboard.address()?;
        crate::console::line(format_args!("tensorboard      {address}"));
        Ok(tensorboard)
    }

    /// Waits until it says where it is.
    fn address(&mut self) -> Result<String> {
        let begin = Instant::now();
        loop {
            let last = self.0.last_words(None).unwrap_or_default();
            if let Some(address) = last.split_whitespace().find(|word| word.starts_with("http://")) {
                return Ok(address.to_owned());
            }
            if let Some(exit) = self.0.try_wait() {
                let said = self.0.last_words(None).unwrap_or_default();
                bail!(
                    "TensorBoard ended with {}: {said}; leave --tensorboard out to train without it",
                    exit.status
                );
            }
            if begin.elapsed() > START_MAX {
                bail!("TensorBoard does not answer after {} s; leave --tensorboard out", START_MAX.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for TensorBoard {
    fn drop(&mut self) {
        self.0.terminate();
        let begin = Instant::now();
        while self.0.try_wait().is_none() && begin.elapsed() < END_MAX {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.0.kill();
    }
}

/// The port to take; 0 lets the system choose.
fn port() -> Result<u16> {
    let Some(text) = std::env::var_os(PORT).filter(|text| !text.is_empty()) else { return Ok(0) };
    let port = text.to_str().and_then(|text| text.parse().ok());
    let port: u16 = port.with_context(|| {
        format!(
            "{PORT} is {}, which is no port; set it to a number from 1 to 65535, or unset it",
            text.display()
        )
    })?;
    // TensorBoard says it, too, but only after it has loaded.
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(|_| port).with_context(|| {
        format!("TensorBoard cannot have port {port}; set {PORT} to another one, or unset it for a free one")
    })
}
