//! `muster doctor`, and what it finds wrong.

use muster_tests::program::{Sandbox, launcher, run};
use std::net::TcpListener;
use std::process::Command;

fn muster(sandbox: &Sandbox, arguments: &str) -> Command {
    let mut command = Command::new(launcher());
    command.args(arguments.split_whitespace()).current_dir(sandbox.path("."));
    command.env("XDG_RUNTIME_DIR", sandbox.path(""));
    command
}

#[test]
fn what_works_is_said_line_by_line() {
    let sandbox = Sandbox::new();
    let outcome = run(&mut muster(&sandbox, "doctor -n 3 data new/model")).succeeds();
    for part in
        ["ok    engine threads", "listens on 127.0.0.1:", "ranks 0-2 registered", "all 3 ranks", "data"]
    {
        assert!(outcome.stdout.contains(part), "no {part:?} in {outcome:?}");
    }
    assert!(!sandbox.path("new").exists());
}

#[test]
fn what_does_not_is_marked() {
    let sandbox = Sandbox::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let outcome = run(&mut muster(&sandbox, &format!("doctor -n 2 --port {port}")));
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert!(outcome.stdout.contains(&format!("WRONG no free port in {port} on 127.0.0.1")), "{outcome:?}");
    let few = run(&mut muster(&sandbox, "doctor -n 3 --hosts localhost:2"));
    assert!(
        few.stdout.contains("3 ranks, but 2 slots") || few.stderr.contains("3 ranks, but 2 slots"),
        "{few:?}"
    );
    assert_ne!(few.status.code(), Some(0));
}

#[test]
fn a_port_that_is_taken_ends_a_job_before_it_begins() {
    let sandbox = Sandbox::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut command = sandbox.muster("run -n 2", "train --data data");
    let outcome = run(command.env("MUSTER_SERVER_PORT", port.to_string()));
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(last.contains(&port.to_string()) && last.contains("--port or MUSTER_SERVER_PORT"), "{outcome:?}");
}
