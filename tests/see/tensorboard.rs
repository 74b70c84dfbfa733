//! The real TensorBoard reads what we write, shows it while a training runs, and ends with it.

use muster_tests::program::{Sandbox, eventually, root, run, start};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::Command;

/// Where `make test-see` has put TensorBoard.
fn tensorboard() -> Option<String> {
    let found = std::env::var("MUSTER_TENSORBOARD").ok();
    if found.is_none() {
        eprintln!("left to `make test-see`, which gets TensorBoard");
    }
    found
}

/// `mnist` with TensorBoard in its PATH.
fn mnist(sandbox: &Sandbox, bin: &str, arguments: &str) -> Command {
    let mut command = sandbox.mnist(arguments);
    command.env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap()));
    command
}

/// Our script, run by the Python beside TensorBoard.
fn script(sandbox: &Sandbox, bin: &str, arguments: &[&str]) {
    let mut command = Command::new(format!("{bin}/python"));
    command.arg(root().join("tests/see/compare.py")).args(arguments).current_dir(sandbox.path(""));
    run(&mut command).succeeds();
}

#[test]
fn it_reads_the_values_that_the_metrics_have_after_a_resume_too() {
    let Some(bin) = tensorboard() else { return };
    let sandbox = Sandbox::new();
    let train = |options: &str| {
        sandbox.train(&format!("--hidden 16 --log-dir logs --metrics-every 1 {options}")).succeeds();
    };
    train("-s 6");
    let saved = sandbox.files("mnist_model");
    train("-e 3");
    // Back to step 6, as after a kill: steps 7 to 12 are not part of this training any more.
    fs::remove_dir_all(sandbox.path("mnist_model")).unwrap();
    for (path, content) in saved {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    train("-e 2");
    script(&sandbox, &bin, &["files", "logs"]);
}

#[test]
fn it_shows_a_running_training_and_ends_with_it_however_it_ends() {
    let Some(bin) = tensorboard() else { return };
    let sandbox = Sandbox::new();
    let endless = "train --data data --hidden 16 -e 1000000 --metrics-every 50 --checkpoint-secs 1000 -tb";
    for (signal, options) in [("INT", ""), ("KILL", "--no-resume --log-dir other")] {
        let mut training = start(&mut mnist(&sandbox, &bin, &format!("{endless} {options}")));
        let said = training.says("tensorboard ");
        let address = said.split_whitespace().last().unwrap().to_owned();
        let place = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
        training.says("epoch 3:");
        if signal == "INT" {
            script(&sandbox, &bin, &["server", &address, "mnist_logs"]);
        }
        training.signal(signal);
        let outcome = training.ends();
        eventually("TensorBoard ends", || TcpStream::connect(&place).is_err());
        if signal == "INT" {
            assert_eq!(outcome.status.code(), Some(130), "{outcome:?}");
        }
    }
}

#[test]
fn without_it_a_training_says_how_to_get_it() {
    let sandbox = Sandbox::new();
    for option in ["-tb", "--tensorboard"] {
        let mut command = sandbox.mnist(&format!("train --data data {option}"));
        command.env("PATH", sandbox.path("")).env_remove("TENSORBOARD_PORT");
        run(&mut command).refuses(&["tensorboard", "pip install tensorboard", "leave --tensorboard out"]);
    }
}

#[test]
fn a_port_that_is_taken_or_none_is_an_error() {
    let sandbox = Sandbox::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for port in [port.as_str(), "many", "-1", "70000"] {
        let mut command = sandbox.mnist("train --data data --tensorboard");
        command.env("TENSORBOARD_PORT", port);
        run(&mut command).refuses(&[port, "TENSORBOARD_PORT", "unset it"]);
    }
}
