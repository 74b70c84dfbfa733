//! The program runs on CPUs older than the one that built it, and takes there no instruction that they lack: one that it took would end
//! it with a signal. It names the kernels that it runs, and its weights are those of the same arithmetic on this CPU.

use muster_tests::program::{Outcome, Sandbox, run};
use std::process::Command;

/// Twenty steps of five epochs.
const TRAIN: &str = "train --data data --hidden 128 -s 20 --threads 2";

/// `mnist` on an emulated CPU, by the qemu that `make test-kernels` gets; none without it.
fn on_cpu(sandbox: &Sandbox, cpu: &str, arguments: &str) -> Option<Outcome> {
    let Ok(qemu) = std::env::var("MUSTER_QEMU") else {
        eprintln!("left to `make test-kernels`, which gets qemu");
        return None;
    };
    let mnist = sandbox.mnist(arguments);
    let mut command = Command::new(qemu);
    command.args(["-cpu", cpu]).arg(mnist.get_program()).args(mnist.get_args()).current_dir(sandbox.path(""));
    for (name, value) in mnist.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    // What this CPU does not do as that one would is of no interest here.
    let mut outcome = run(&mut command);
    outcome.stderr = outcome.stderr.lines().filter(|line| !line.starts_with("qemu")).collect();
    Some(outcome)
}

/// Twenty steps on an emulated CPU, which must choose `kernels`, and here with kernels of the same arithmetic.
fn trains_as_here(cpu: &str, kernels: &str) {
    let sandbox = Sandbox::new();
    let Some(there) = on_cpu(&sandbox, cpu, &format!("{TRAIN} --report there.json")) else { return };
    let there = there.succeeds();
    assert!(there.stdout.contains(&format!("kernels {kernels})")), "{there:?}");
    let mut here = sandbox.mnist(&format!("{TRAIN} --model here --report here.json"));
    run(here.env("MUSTER_KERNELS", kernels)).succeeds();
    let (there, here) = (sandbox.json("there.json"), sandbox.json("here.json"));
    assert_eq!(there["weights_sha256"], here["weights_sha256"]);
    assert_eq!(there["steps"], 20);
}

#[test]
fn without_avx_the_portable_kernels_run() {
    trains_as_here("Nehalem", "wide");
}

#[test]
fn with_avx2_and_no_more_its_kernels_run() {
    trains_as_here("Haswell", "avx2");
}

#[test]
fn kernels_that_the_cpu_lacks_are_refused() {
    let sandbox = Sandbox::new();
    // The emulator hands its own environment on.
    for (cpu, kernels) in [("Nehalem", "avx2"), ("Haswell", "avx512"), ("Haswell", "amx")] {
        let option = format!("-E MUSTER_KERNELS={kernels} -cpu");
        let Ok(qemu) = std::env::var("MUSTER_QEMU") else { return };
        let mnist = sandbox.mnist(TRAIN);
        let mut command = Command::new(qemu);
        command.args(option.split(' ')).arg(cpu).arg(mnist.get_program()).args(mnist.get_args());
        let outcome = run(command.current_dir(sandbox.path("")));
        assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains(&format!("kernels \"{kernels}\" do not run here")), "{outcome:?}");
    }
}
