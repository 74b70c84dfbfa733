//! One run at a time writes to a model directory, and what cannot be written is found before training.

use muster_tests::program::{Sandbox, eventually, run, start};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

const ENDLESS: &str = "train --data data --hidden 32 -e 1000000 --threads 1";

#[test]
fn a_second_run_is_refused_with_the_pid_of_the_first() {
    let sandbox = Sandbox::new();
    let mut first = start(&mut sandbox.mnist(ENDLESS));
    first.says("plan:");
    for option in ["", "--no-resume"] {
        let pid = format!("process {};", first.pid());
        sandbox.train(&format!("--hidden 32 {option}")).refuses(&[&pid, "mnist_model", "--model"]);
    }
    sandbox.hash("--hidden 32 -e 1 -m another");
    first.signal("KILL");
    first.ends();
    sandbox.report("--hidden 32 -s 5 --no-resume");
}

#[test]
fn reading_a_model_needs_no_lock() {
    let sandbox = Sandbox::new();
    let mut training = start(&mut sandbox.mnist(&format!("{ENDLESS} --checkpoint-secs 0.01")));
    eventually("a checkpoint", || sandbox.path("mnist_model/model.safetensors").exists());
    for i in 0..5 {
        run(&mut sandbox.mnist(&format!("inference --data data -o p{i}"))).succeeds();
    }
    training.signal("KILL");
    training.ends();
}

#[test]
fn places_that_cannot_be_written_are_found_before_training() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("file"), "kept").unwrap();
    fs::create_dir(sandbox.path("folder")).unwrap();
    sandbox.train("-m file").refuses(&["file", "Not a directory", "choose another place"]);
    sandbox.train("-m file/below").refuses(&["file/below", "choose another place"]);
    sandbox.train("-m /proc/mnist_model").refuses(&["/proc/mnist_model", "check the path"]);
    sandbox.train("--report folder").refuses(&["folder", "directory", "--report"]);
    sandbox.train("--report file/r.json").refuses(&["file/r.json", "--report"]);
    sandbox.train("--report no/such/r.json").refuses(&["no/such/r.json", "--report"]);
    assert_eq!(fs::read(sandbox.path("file")).unwrap(), b"kept");
    assert!(!sandbox.path("mnist_model").exists());
}

#[test]
fn a_folder_without_permission() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("closed");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    let may_everything = fs::write(folder.join("probe"), "").is_ok();
    let train = |options: &str| {
        let mut mnist = sandbox.mnist(&format!("train --data data {options}"));
        // Root without the capability to overlook permissions.
        let mut bounded = Command::new("setpriv");
        bounded.arg("--bounding-set=-dac_override,-dac_read_search").arg(mnist.get_program());
        bounded.args(mnist.get_args()).current_dir(sandbox.path(""));
        run(if may_everything { &mut bounded } else { &mut mnist })
    };
    train("-m closed/m").refuses(&["closed/m", "check the permissions"]);
    train("--report closed/r.json").refuses(&["closed/r.json", "--report"]);
}

#[test]
fn a_directory_that_disappears_is_made_anew() {
    let sandbox = Sandbox::new();
    let mut run = start(&mut sandbox.mnist(&format!("{ENDLESS} --checkpoint-secs 0.01")));
    eventually("a checkpoint", || !sandbox.checkpoints("mnist_model").is_empty());
    fs::rename(sandbox.path("mnist_model"), sandbox.path("away")).unwrap();
    eventually("a new checkpoint", || !sandbox.checkpoints("mnist_model").is_empty());
    sandbox.train("--hidden 32").refuses(&[&format!("process {};", run.pid())]);
    run.signal("INT");
    let outcome = run.ends();
    assert_eq!(outcome.status.code(), Some(130), "{outcome:?}");
    let newest = *sandbox.checkpoints("mnist_model").last().unwrap();
    let direct = sandbox.hash(&format!("--hidden 32 -s {newest} -m direct"));
    assert_eq!(sandbox.hash(&format!("--hidden 32 -s {newest}")), direct);
}

#[test]
fn a_directory_that_cannot_be_made_anew_warns_and_is_an_error_at_the_end() {
    let sandbox = Sandbox::new();
    let mut run = start(&mut sandbox.mnist(&format!("{ENDLESS} --checkpoint-secs 0.05")));
    eventually("a checkpoint", || !sandbox.checkpoints("mnist_model").is_empty());
    fs::rename(sandbox.path("mnist_model"), sandbox.path("away")).unwrap();
    // It may be made anew before the file takes its place.
    eventually("the file takes its place", || {
        let _ = fs::remove_dir_all(sandbox.path("mnist_model"));
        !sandbox.path("mnist_model").exists() && fs::write(sandbox.path("mnist_model"), "in the way").is_ok()
    });
    // A training whose output nobody reads stops at a full pipe, and then tries nothing.
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        run.says("epoch");
    }
    run.signal("INT");
    let outcome = run.ends().fails(&["mnist_model", "choose another place"]);
    let warnings = outcome.stderr.lines().filter(|line| line.starts_with("warning: no checkpoint")).count();
    assert!(warnings >= 2, "it tries again: {outcome:?}");
}
