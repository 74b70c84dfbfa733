//! Manual pages and completions come from the programs themselves, so they know every option.

use muster_tests::program::{Sandbox, binary, launcher, run};
use std::fs;
use std::process::Command;

#[test]
fn pages_and_completions_know_the_options() {
    let sandbox = Sandbox::new();
    for (program, page, option) in
        [(binary(), "mnist-train.1", "max-staleness"), (launcher(), "muster-bench.1", "compare")]
    {
        run(Command::new(program).arg("man").arg(sandbox.path("data"))).succeeds();
        let page = fs::read_to_string(sandbox.path("data").join(page)).unwrap().replace('\\', "");
        assert!(page.contains(&format!("--{option}")), "{page}");
        for shell in ["bash", "zsh", "fish"] {
            let outcome = run(Command::new(program).args(["completions", shell])).succeeds();
            assert!(outcome.stdout.contains(option), "{shell}: {outcome:?}");
        }
        let outcome = run(Command::new(program).arg("man").arg(sandbox.path("nowhere")));
        assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains("nowhere"), "{outcome:?}");
    }
}
